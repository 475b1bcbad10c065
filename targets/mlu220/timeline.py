"""How instruction streams overlap in time: cores, queues, signals, barriers and the one DDR channel.

An event loop over the queues of all cores, in order of time. Each queue is in order; a copy that touches DDR asks for
the channel when it starts and gets it first come, first served, whole transfers at a time. Contention for SRAM ports
is not modelled ([U]). Beside the time it keeps who was busy, who waited, and what bound the whole: rooflines,
traffic, energy, each with the board's basis for it.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from compiler.errors import error
from targets.mlu220 import isa
from targets.mlu220.cost import Totals, cycles, quantities, transfers
from targets.mlu220.hardware import Board

_RUN, _TRANSFER, _SIGNAL, _WAIT, _BARRIER = range(5)


@dataclass(kw_only=True)
class Timeline:
    """When every instruction ran. `start`, `end`: one int64 array per core (memory core last), in cycles; `busy`,
    `waiting`: int64 [cores, queues], cycles of work and of waiting for a counter, a barrier or the DDR channel."""

    board: Board
    cores: int
    total_cycles: int
    start: list[np.ndarray]
    end: list[np.ndarray]
    busy: np.ndarray
    waiting: np.ndarray
    ddr_busy: int
    totals: Totals

    @property
    def seconds(self) -> float:
        return self.board.seconds(self.total_cycles)

    @property
    def utilisation(self) -> float:
        """Multiply-adds done as a part of what the matrix units of the used cores could do in this time."""
        peak = self._matrix_cycles
        return peak / self.total_cycles if self.total_cycles else 0.0

    @property
    def _matrix_cycles(self) -> float:
        board, totals = self.board, self.totals
        return (totals.macs8 / board.macs_per_cycle(8) + totals.macs16 / board.macs_per_cycle(16)) / self.cores

    @cached_property
    def roofline(self) -> dict[str, float]:
        """Least cycles by each resource alone: matrix units, vector units (counted as half), DDR channel."""
        lanes = self.board.vector_bytes_per_cycle / 2
        return {
            "matrix": self._matrix_cycles,
            "vector": self.totals.vector_ops / lanes / self.cores,
            "ddr": self.totals.ddr / self.board.ddr_bytes_per_cycle,
        }

    @property
    def bound(self) -> str:
        """The resource whose roofline is highest."""
        return max(self.roofline, key=lambda name: self.roofline[name])

    @cached_property
    def energy(self) -> dict[str, float]:
        """Joules by where they go; `idle` is the board's idle power over the time."""
        board, totals = self.board, self.totals
        return {
            "matrix": totals.macs8 * board.joules_per_mac_int8 + totals.macs16 * board.joules_per_mac_int16,
            "vector": totals.vector_ops * board.joules_per_vector_op,
            "ddr": totals.ddr * board.joules_per_ddr_byte,
            "sram": totals.sram * board.joules_per_sram_byte,
            "nram": (totals.nram + totals.wram) * board.joules_per_nram_byte,
            "idle": board.idle_watts * self.seconds,
        }

    @property
    def joules(self) -> float:
        return sum(self.energy.values())

    @property
    def watts(self) -> float:
        return self.joules / self.seconds if self.total_cycles else 0.0


def simulate(programs: Sequence[np.ndarray], board: Board) -> Timeline:
    """Time of one call of a device function. `programs` as in the container: cores, then the memory core. The
    programs must be legal; E760 when they wait for each other for ever."""
    machine = _Machine(programs, board)
    total = machine.run()
    start, end = np.array(machine.start, np.int64), np.array(machine.end, np.int64)
    places = np.cumsum([0, *(len(p) for p in programs)])
    cuts = list(pairwise(places))
    return Timeline(
        board=board, cores=max(1, len(programs) - 1), total_cycles=total, start=[start[a:b] for a, b in cuts],
        end=[end[a:b] for a, b in cuts], busy=np.array(machine.busy).reshape(-1, isa.QUEUES),
        waiting=np.array(machine.waiting).reshape(-1, isa.QUEUES), ddr_busy=machine.ddr_busy,
        totals=quantities(np.concatenate(programs)).total(),
    )  # fmt: skip


class _Machine:
    """State of the event loop. Queues are numbered core * 3 + queue, instructions through all programs."""

    def __init__(self, programs: Sequence[np.ndarray], board: Board):
        self.sync = board.sync_cycles
        rows = np.concatenate(programs) if programs else np.zeros((0, isa.ROW_WORDS), np.int32)
        self.queues = _queues(programs)
        count = len(rows)
        self._plan(rows, board)
        self.start, self.end = [0] * count, [0] * count
        self.busy, self.waiting = [0] * len(self.queues), [0] * len(self.queues)
        self.ddr_free = self.ddr_busy = 0
        self.signals: dict[int, list[int]] = defaultdict(list)
        self.sleepers: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.arrived: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.heap: list[tuple[int, int]] = []
        self.position = [0] * len(self.queues)

    def _plan(self, rows: np.ndarray, board: Board) -> None:
        """Per instruction: its kind and up to three numbers, as plain lists for the loop."""
        kind = np.full(len(rows), _RUN)
        first, second, third = cycles(rows, board), np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        copies = np.flatnonzero(rows[:, 0] == isa.Copy.opcode)
        if len(copies):
            transfer = transfers(rows[copies], board)
            shared = transfer.channel > 0
            where = copies[shared]
            kind[where] = _TRANSFER
            first[where], second[where] = transfer.latency[shared], transfer.channel[shared]
            third[where] = np.maximum(transfer.port - transfer.channel, 0)[shared]
        for spec, number in ((isa.Signal, _SIGNAL), (isa.Wait, _WAIT), (isa.Barrier, _BARRIER)):
            where = np.flatnonzero(rows[:, 0] == spec.opcode)
            kind[where] = number
            first[where] = rows[where, spec.column("mask" if spec is isa.Barrier else "counter")]
            if spec is isa.Wait:
                second[where] = rows[where, spec.column("value")]
        self.kind, self.first = kind.tolist(), first.tolist()
        self.second, self.third = second.tolist(), third.tolist()

    def run(self) -> int:
        """Play everything; the cycle at which the last instruction ends."""
        self.heap = [(0, q) for q, queue in enumerate(self.queues) if queue]
        heapq.heapify(self.heap)
        last = 0
        while self.heap:
            time, q = heapq.heappop(self.heap)
            queue, at = self.queues[q], self.position[q]
            if at == len(queue):
                last = max(last, time)
                continue
            self._step(time, q, queue[at])
        stuck = [q for q, queue in enumerate(self.queues) if self.position[q] < len(queue)]
        if stuck:
            names = ", ".join(f"core {q // isa.QUEUES} {isa.Queue(q % isa.QUEUES).name}" for q in stuck[:4])
            raise error("E760", f"the programs wait for each other for ever: {names}")
        return last

    def _step(self, time: int, q: int, instruction: int) -> None:
        kind = self.kind[instruction]
        if kind == _RUN:
            self.busy[q] += self.first[instruction]
            self._done(q, instruction, time, time + self.first[instruction])
        elif kind == _TRANSFER:
            self._transfer(time, q, instruction)
        elif kind == _SIGNAL:
            self._signal(time, q, instruction)
        elif kind == _WAIT:
            counter, value = self.first[instruction], self.second[instruction]
            times = self.signals[counter]
            if len(times) < value:
                self.sleepers[counter].append((value, q))
                self.start[instruction] = time
            else:
                self._resume(q, instruction, time, max(time, times[value - 1] + self.sync))
        else:
            self._barrier(time, q, instruction)

    def _done(self, q: int, instruction: int, start: int, end: int) -> None:
        self.start[instruction], self.end[instruction] = start, end
        self.position[q] += 1
        heapq.heappush(self.heap, (end, q))

    def _resume(self, q: int, instruction: int, start: int, end: int) -> None:
        self.waiting[q] += end - start
        self._done(q, instruction, start, end)

    def _transfer(self, time: int, q: int, instruction: int) -> None:
        """Latency overlaps others' use of the channel; then the channel, first come first served."""
        ready = time + self.first[instruction]
        begin, channel = max(ready, self.ddr_free), self.second[instruction]
        self.ddr_free = begin + channel
        self.ddr_busy += channel
        end = self.ddr_free + self.third[instruction]
        self.waiting[q] += begin - ready
        self.busy[q] += end - time - (begin - ready)
        self._done(q, instruction, time, end)

    def _signal(self, time: int, q: int, instruction: int) -> None:
        counter = self.first[instruction]
        times = self.signals[counter]
        times.append(time)
        self._done(q, instruction, time, time)
        if counter in self.sleepers:
            asleep = self.sleepers.pop(counter)
            for value, sleeper in asleep:
                if value > len(times):
                    self.sleepers[counter].append((value, sleeper))
                    continue
                waiting = self.queues[sleeper][self.position[sleeper]]
                self._resume(sleeper, waiting, self.start[waiting], time + self.sync)

    def _barrier(self, time: int, q: int, instruction: int) -> None:
        """All queues of all cores in the mask meet; a core stands in one barrier at a time, so the mask names it."""
        mask = self.first[instruction]
        self.start[instruction] = time
        arrived = self.arrived[mask]
        arrived.append((q, instruction))
        if len(arrived) < isa.QUEUES * mask.bit_count():
            return
        for queue, barrier in self.arrived.pop(mask):
            self._resume(queue, barrier, self._since(queue, barrier), time + self.sync)

    def _since(self, q: int, instruction: int) -> int:
        """When this queue arrived: the three queues share the instruction's row, so ask the one before it."""
        at = self.position[q]
        return self.end[self.queues[q][at - 1]] if at else 0


def _queues(programs: Sequence[np.ndarray]) -> list[list[int]]:
    """Instructions of every queue, numbered through all programs; a barrier stands in all three of its core."""
    result, offset = [], 0
    for program in programs:
        number = isa.queue_of(program)
        for queue in range(isa.QUEUES):
            result.append((np.flatnonzero((number == queue) | (number == isa.ALL_QUEUES)) + offset).tolist())
        offset += len(program)
    return result
