"""From rows and accesses to the flat arrays that `ordering` runs on, and its answers back to rows and spaces.

Every writable memory of a function (each core's NRAM and WRAM, SRAM, workspace, outputs) gets a range of one linear
byte range, as long as what is touched of it. Read-only memories need no shadow. `check` is the only caller and has
verified every field before. Importing this module imports Numba.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from targets.mlu220 import isa, ordering

REPORTED = 64
"""Faults whose details are kept; the rest is counted."""


@dataclass
class Execution:
    """What running all queues showed. `order`: rows in serial order, shorter than all rows after a deadlock, whose
    heads are `hanging`. `faults`: (kind of `ordering`, row, other row or -1, space, offset)."""

    order: np.ndarray
    hanging: list[int] = field(default_factory=list)
    faults: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    fault_count: int = 0
    unwritten_outputs: list[tuple[int, int]] = field(default_factory=list)
    atoms: int = 0
    over_budget: bool = False


def execute(
    rows: np.ndarray, core: np.ndarray, accesses: isa.Accesses, outputs: Sequence[int], max_atoms: int, max_visits: int
) -> Execution:
    """Run the queues of all cores over the shadow of all writable memory; `outputs` are sizes in bytes."""
    accesses = accesses.take(~(isa.is_input(accesses.space) | (accesses.space == isa.CONSTANTS)))
    regions = _Regions(accesses, core[accesses.row], outputs)
    base = accesses.base + regions.start[regions.of_access]
    arguments = (base, accesses.run, np.ascontiguousarray(accesses.counts), np.ascontiguousarray(accesses.strides))
    borders = regions.empty_borders()
    ordering.mark_borders(*arguments, borders)
    ranks = np.zeros(len(borders), np.int32)
    atoms = int(ordering.rank_borders(borders, ranks))
    if atoms > max_atoms:
        return Execution(order=np.zeros(0, np.int64), atoms=atoms, over_budget=True)
    shadow = np.zeros((atoms + 1, ordering.SLOTS), np.int32)
    queues, starts, ends = _queues(rows, core)
    kind, argument, value = _control(rows)
    signal_base = np.zeros(isa.COUNTERS, np.int64)
    signals = np.bincount(argument[kind == ordering.SIGNAL], minlength=isa.COUNTERS)
    signal_base[1:] = np.cumsum(signals)[:-1]
    order, heads = np.zeros(len(rows), np.int64), np.zeros(ordering.QUEUES, np.int64)
    faults = np.zeros((REPORTED, 4), np.int64)
    done, fault_count, left = ordering.simulate(
        queues, starts, ends, kind, argument, value, signal_base, int(signals.sum()),
        np.searchsorted(accesses.row, np.arange(len(rows) + 1)), *arguments, accesses.write,
        accesses.space >= isa.SRAM, borders, ranks, shadow, max_visits, order, heads, faults,
    )  # fmt: skip
    result = Execution(order=order[:done], atoms=atoms, fault_count=int(fault_count), over_budget=left < 0)
    result.hanging = [int(queues[starts[q] + heads[q]]) for q in range(ordering.QUEUES) if heads[q] < ends[q]]
    for access, fault, other, position in faults[: min(fault_count, REPORTED)]:
        row, region = int(accesses.row[access]), regions.of_access[access]
        offset = int(position - regions.start[region])
        result.faults.append((int(fault), row, int(other), int(accesses.space[access]), offset))
    for k in range(len(outputs)):
        start, end = regions.output(k)
        position = ordering.first_unwritten(borders, ranks, shadow, start, end)
        if position >= 0:
            result.unwritten_outputs.append((k, int(position - start)))
    return result


class _Regions:
    """Where each memory lies in the linear range. Region numbers: NRAM and WRAM by core, SRAM, workspace, then
    outputs."""

    FIRST_OUTPUT = 2 * ordering.CORES + 2

    def __init__(self, accesses: isa.Accesses, core: np.ndarray, outputs: Sequence[int]):
        space = accesses.space
        private = np.where(space == isa.NRAM, 0, ordering.CORES) + core
        shared = self.FIRST_OUTPUT - 2 + (space - isa.SRAM)
        output = self.FIRST_OUTPUT + (space - isa.OUTPUT)
        self.of_access = np.where(space < isa.SRAM, private, np.where(space < isa.OUTPUT, shared, output))
        extent = np.zeros(self.FIRST_OUTPUT + len(outputs), np.int64)
        np.maximum.at(extent, self.of_access, accesses.end)
        extent[self.FIRST_OUTPUT :] = outputs
        self.start = np.zeros(len(extent) + 1, np.int64)
        self.start[1:] = np.cumsum((extent + 64) // 64 * 64)  # one byte more than touched: the last border
        self._outputs = outputs

    def output(self, k: int) -> tuple[int, int]:
        start = int(self.start[self.FIRST_OUTPUT + k])
        return start, start + self._outputs[k]

    def empty_borders(self) -> np.ndarray:
        """The bitmap with only the ends of the outputs set."""
        borders = np.zeros(int(self.start[-1]) // 64 + 1, np.uint64)
        for k in range(len(self._outputs)):
            for position in self.output(k):
                borders[position >> 6] |= np.uint64(1 << (position & 63))
        return borders


def _queues(rows: np.ndarray, core: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows of all queues one after the other, where each queue starts, how long it is); barriers stand in three."""
    queue = isa.queue_of(rows)
    meets = np.flatnonzero(queue == isa.ALL_QUEUES)
    single = np.flatnonzero(queue != isa.ALL_QUEUES)
    row = np.concatenate([single, np.repeat(meets, isa.QUEUES)])
    number = np.concatenate([queue[single], np.tile(np.arange(isa.QUEUES), len(meets))]) + core[row] * isa.QUEUES
    lengths = np.bincount(number, minlength=ordering.QUEUES)
    starts = np.cumsum(lengths) - lengths
    return row[np.lexsort((row, number))], starts, lengths


def _control(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(kind, counter or mask, value) of every row."""
    kind, argument, value = (np.zeros(len(rows), np.int64) for _ in range(3))
    for spec, code, name in (
        (isa.Signal, ordering.SIGNAL, "counter"),
        (isa.Wait, ordering.WAIT, "counter"),
        (isa.Barrier, ordering.BARRIER, "mask"),
    ):
        index = np.flatnonzero(rows[:, 0] == spec.opcode)
        kind[index] = code
        argument[index] = rows[index, spec.column(name)]
    waits = np.flatnonzero(kind == ordering.WAIT)
    value[waits] = rows[waits, isa.Wait.column("value")]
    return kind, argument, value
