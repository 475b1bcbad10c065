"""Where the time and the bytes of a device function go: by unit, by kernel, every cycle and every byte once.

A kernel is what lies between two barriers; its name is that of the model's ops that the debug table gives for its
instructions. Filters that the memory core fetches ahead of time are on the account of the kernel that uses them. All
numbers follow from a `Timeline` and the instructions; sums over kernels are the timeline's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from targets.mlu220 import isa
from targets.mlu220.container import DeviceFunction
from targets.mlu220.cost import Totals, cycles, quantities
from targets.mlu220.timeline import Timeline

UNITS = ("dma", "matrix", "vector", "memory core")
STALLS = ("ddr", "signal", "barrier")
"""What a unit can wait for: the DDR channel, a signal of another queue (data, or a free buffer), the other cores."""


@dataclass(frozen=True)
class UnitTime:
    """Cycles of a unit, all cores together: at work, and waiting by reason."""

    busy: int
    stalls: dict[str, int]

    @property
    def stalled(self) -> int:
        return sum(self.stalls.values())

    def as_dict(self) -> dict[str, object]:
        return {"busy": self.busy, "stalled": self.stalled, "stalls": dict(self.stalls)}


@dataclass(frozen=True, kw_only=True)
class KernelAccount:
    """One kernel. `cycles`: from the barrier before it to the one that ends it; `idle_compute`: those of them in
    which neither the matrix nor the vector unit of an average core worked; `cost`: its operations and bytes, as a
    timeline of its own."""

    ops: list[str]
    locations: list[str]
    cycles: int
    idle_compute: float
    units: dict[str, UnitTime]
    cost: Timeline

    @property
    def name(self) -> str:
        """The model's nodes, or the ops where those are the compiler's own."""
        names = self.locations or [op.partition(" ")[2] or op for op in self.ops]
        return ", ".join(names) or "no debug entry"

    def as_dict(self) -> dict[str, object]:
        cost, totals = self.cost, self.cost.totals
        return {
            "name": self.name, "ops": self.ops, "locations": self.locations, "cycles": self.cycles,
            "idle_compute_cycles": self.idle_compute, "units": {k: u.as_dict() for k, u in self.units.items()},
            "macs": totals.macs, "vector_ops": totals.vector_ops, "bytes": traffic(totals),
            "utilisation": cost.utilisation, "bound": cost.bound, "roofline_cycles": dict(cost.roofline),
            "joules": cost.joules,
        }  # fmt: skip


def constants_read(rows: np.ndarray, touched: np.ndarray) -> None:
    """Mark in `touched`, a bool per byte of the constants segment, what instructions read of it."""
    accesses = isa.footprints(rows)
    accesses = accesses.take(accesses.space == isa.CONSTANTS)
    place = np.stack([accesses.base, accesses.run], axis=1)
    distinct = np.unique(np.concatenate([place, accesses.counts, accesses.strides], axis=1), axis=0)
    for base, run, *loops in distinct.tolist():
        counts, strides = loops[:3], loops[3:]
        np.lib.stride_tricks.as_strided(touched[base:], (*counts, run), (*strides, 1))[...] = True


def traffic(totals: Totals) -> dict[str, int]:
    """Bytes by memory."""
    return {name: getattr(totals, name) for name in ("ddr_read", "ddr_write", "sram", "nram", "wram")}


@dataclass(frozen=True)
class Slices:
    """What every queue did when, int64 arrays: one entry per instruction and queue it stands in (a barrier stands in
    all three of its core). A slice waits first, then works: `waited` + `busy` cycles from `start`."""

    row: np.ndarray
    core: np.ndarray
    queue: np.ndarray
    start: np.ndarray
    waited: np.ndarray
    busy: np.ndarray
    reason: np.ndarray
    """Index into STALLS of what `waited` waited for."""


class Accounts:
    """The accounts of one device function."""

    def __init__(self, function: DeviceFunction, timeline: Timeline):
        self.function = function
        self.timeline = timeline
        self.rows = np.concatenate(function.programs)
        self.bases = np.cumsum([0, *(len(p) for p in function.programs)])

    # -- units ---------------------------------------------------------------------------------------------------------
    @cached_property
    def slices(self) -> Slices:
        """Queue after queue, in order."""
        parts: list[tuple[np.ndarray, ...]] = []
        work = cycles(self.rows, self.timeline.board)
        for core, (low, high) in enumerate(pairwise(self.bases)):
            program = self.rows[low:high]
            where = isa.queue_of(program)
            start, end = self.timeline.start[core], self.timeline.end[core]
            for queue in range(isa.QUEUES):
                index = np.flatnonzero((where == queue) | (where == isa.ALL_QUEUES))
                opcode = program[index, 0]
                before = np.concatenate([[0], end[index][:-1]]) if len(index) else end[index]
                begin = np.where(opcode == isa.Barrier.opcode, before, start[index])
                busy = work[low + index]
                reason = np.select([opcode == isa.Wait.opcode, opcode == isa.Barrier.opcode], [1, 2], 0)
                place = np.full(len(index), core), np.full(len(index), queue)
                parts.append((low + index, *place, begin, end[index] - begin - busy, busy, reason))
        return Slices(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    @cached_property
    def unit(self) -> np.ndarray:
        """Per slice, an index into UNITS; -1 for the queues that the memory core does not have."""
        s, memory = self.slices, self.function.cores
        unit = s.queue.copy()
        unit[s.core >= memory] = np.where(s.queue[s.core >= memory] == isa.Queue.DMA, UNITS.index("memory core"), -1)
        return unit

    @cached_property
    def units(self) -> dict[str, UnitTime]:
        """Of the whole function."""
        return self._unit_times(np.zeros(len(self.slices.row), np.int64), 1)[0]

    def _unit_times(self, group: np.ndarray, count: int) -> list[dict[str, UnitTime]]:
        """Cycles by unit of each of `count` groups of slices; `group` numbers the group of every slice."""
        mine = self.unit >= 0
        place = group[mine] * len(UNITS) + self.unit[mine]
        shape = (count, len(UNITS), len(STALLS))
        busy = _sums(place, self.slices.busy[mine], math.prod(shape[:2])).reshape(shape[:2])
        place = place * len(STALLS) + self.slices.reason[mine]
        waited = _sums(place, self.slices.waited[mine], math.prod(shape)).reshape(shape)
        return [
            {
                name: UnitTime(int(busy[k, u]), dict(zip(STALLS, waited[k, u].tolist(), strict=True)))
                for u, name in enumerate(UNITS)
            }
            for k in range(count)
        ]

    # -- kernels -------------------------------------------------------------------------------------------------------
    @cached_property
    def debug(self) -> np.ndarray:
        """Per row, the number of its debug entry, or -1."""
        found = np.full(len(self.rows), -1)
        for number, entry in enumerate(self.function.debug):
            base = self.bases[entry.core]
            found[base + entry.first : base + entry.last + 1] = number
        return found

    @cached_property
    def _phase(self) -> np.ndarray:
        """Per row, how many barriers its core has passed; the barrier itself counts to what it ends."""
        barrier = self.rows[:, 0] == isa.Barrier.opcode
        parts = [np.cumsum(barrier[a:b]) - barrier[a:b] for a, b in pairwise(self.bases)]
        return np.concatenate(parts)

    @cached_property
    def kernel(self) -> np.ndarray:
        """Per row, its kernel, counted from 0."""
        phase, split = self._phase.copy(), self.bases[-2]
        control = np.isin(self.rows[:, 0], [isa.Barrier.opcode, isa.Signal.opcode, isa.Wait.opcode])
        if len(phase) and not (~control[:split] & (phase[:split] == 0)).any():
            phase = np.maximum(phase, min(1, phase.max()))  # nothing but the first barrier: the first kernel's start
        first: dict[str, int] = {}
        for row in np.flatnonzero(self.debug[:split] >= 0):
            first.setdefault(self.function.debug[self.debug[row]].op_name, int(phase[row]))
        for row in split + np.flatnonzero(self.debug[split:] >= 0):  # fetched ahead for a later kernel
            phase[row] = first.get(self.function.debug[self.debug[row]].op_name, phase[row])
        return np.unique(phase, return_inverse=True)[1].reshape(-1)

    @cached_property
    def kernels(self) -> list[KernelAccount]:
        """In the order they run."""
        count = int(self.kernel.max()) + 1 if len(self.kernel) else 0
        spans, computing, totals = self._spans(count), self._computing(count), self._totals(count)
        units, names = self._unit_times(self.kernel[self.slices.row], count), self._names(count)
        return [
            KernelAccount(
                ops=names[k][0], locations=names[k][1], cycles=spans[k],
                idle_compute=max(0.0, spans[k] - computing[k]), units=units[k],
                cost=replace(self.timeline, total_cycles=spans[k], totals=totals[k]),
            )
            for k in range(count)
        ]  # fmt: skip

    def boundaries(self, count: int) -> list[int]:
        """The cycle at which each of `count` kernels ends: the last core passes its barrier; the last ends it all."""
        ends = np.zeros(count, np.int64)
        barrier = self.rows[:, 0] == isa.Barrier.opcode
        np.maximum.at(ends, self.kernel[barrier], np.concatenate(self.timeline.end)[barrier])
        if count:
            ends[-1] = self.timeline.total_cycles
        return [int(end) for end in np.maximum.accumulate(ends)]

    def _spans(self, count: int) -> list[int]:
        return [b - a for a, b in pairwise([0, *self.boundaries(count)])]

    def _computing(self, count: int) -> np.ndarray:
        """Per kernel, cycles in which some compute unit of an average core works: the union of its two queues'
        work."""
        s = self.slices
        total = np.zeros(count)
        for core in range(self.function.cores):
            mine = np.flatnonzero((s.core == core) & (s.queue != isa.Queue.DMA) & (s.busy > 0))
            mine = mine[np.argsort(s.start[mine] + s.waited[mine], kind="stable")]
            begin = s.start[mine] + s.waited[mine]
            end = begin + s.busy[mine]
            reached = np.concatenate([[0], np.maximum.accumulate(end)[:-1]]) if len(mine) else end
            new = np.maximum(0, end - np.maximum(begin, reached))
            total += np.bincount(self.kernel[s.row[mine]], weights=new, minlength=count)
        return total / self.function.cores

    def _totals(self, count: int) -> list[Totals]:
        each = quantities(self.rows)
        sums = {n: _sums(self.kernel, getattr(each, n), count) for n in Totals.__dataclass_fields__}
        return [Totals(**{name: int(column[k]) for name, column in sums.items()}) for k in range(count)]

    def _names(self, count: int) -> list[tuple[list[str], list[str]]]:
        """Per kernel, its op names and model nodes as the cores come by them."""
        found: list[tuple[dict[str, None], dict[str, None]]] = [({}, {}) for _ in range(count)]
        tagged = np.flatnonzero(self.debug >= 0)
        pairs = np.stack([self.kernel[tagged], self.debug[tagged]], axis=1)
        for kernel, number in dict.fromkeys(map(tuple, pairs.tolist())):
            entry = self.function.debug[number]
            ops, nodes = found[kernel]
            ops[entry.op_name] = None
            nodes.update(dict.fromkeys(node for node in entry.location.split(", ") if node))
        return [(list(ops), list(nodes)) for ops, nodes in found]


def _sums(place: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """int64 [count]: the values added up by place."""
    result = np.zeros(count, np.int64)
    np.add.at(result, place, values)
    return result


__all__ = ["STALLS", "UNITS", "Accounts", "KernelAccount", "Slices", "UnitTime", "constants_read", "traffic"]
