"""Who wrote what an operation reads, who reads what it writes, and who overwrites it: exact, on footprints.

Memory is cut into atoms, the pieces between all points where some run of bytes starts or ends; per atom the passes keep
the last writer (forwards) or the next writer (backwards). Operations are numbered in serial order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.kernels.flow import (
    NEXT_WRITER,
    NOBODY,
    NOTE_ORIGIN,
    NOTE_READ,
    NOTE_WRITE,
    NOTE_WRITER,
    READ,
    READ_LEVEL,
    READ_ORIGIN,
    SEVERAL,
    UNMOVED,
    UNSEEN,
    WRITE_LEVEL,
    cut,
    sweep,
)
from runtime.operations import Access, Operation

__all__ = ["NOBODY", "SEVERAL", "Flow", "analyse", "levels", "origins"]

_ZERO = 1 << 60
"""What stands for a distance of 0, so that distances are not negative numbers."""


@dataclass
class Flow:
    """`source[k]`: the operation that wrote all bytes of read access k, NOBODY or SEVERAL. `next_write[k]`: the first
    later operation that writes any byte of access k, or the number of operations. Per operation: `readers` counts
    the operations that read a byte it wrote, `reader` is the last of them. Access k of operation i, reads before
    writes, has index `first[i] + k`."""

    first: np.ndarray
    source: np.ndarray
    next_write: np.ndarray
    readers: np.ndarray
    reader: np.ndarray

    def read(self, operation: int, k: int) -> int:
        return int(self.source[self.first[operation] + k])


@dataclass
class _Tables:
    """All accesses of a program: where they lie, which write, whose they are; the cuts of memory."""

    table: np.ndarray
    writes: np.ndarray
    operation: np.ndarray
    first: np.ndarray
    borders: np.ndarray
    ranks: np.ndarray
    atoms: int

    def events(self, *parts: tuple[int, np.ndarray], backwards: bool = False) -> np.ndarray:
        """Operation by operation, in serial order or backwards: for every part (what, which accesses) in turn, what
        to do with those of the operation's accesses."""
        rows = []
        for place, (what, chosen) in enumerate(parts):
            index = np.flatnonzero(chosen)
            columns = [np.full(len(index), what), index, self.operation[index], np.full(len(index), place)]
            rows.append(np.stack(columns, axis=1))
        table = np.concatenate(rows)
        order = np.lexsort((table[:, 1], table[:, 3], -table[:, 2] if backwards else table[:, 2]))
        return np.ascontiguousarray(table[order, :3])

    def sweep(self, events: np.ndarray, state: int, found: np.ndarray, **arrays: np.ndarray) -> None:
        """One pass; `state` is what atoms hold at first."""
        count = len(self.first) - 1
        defaults = {name: np.zeros(count, np.int64) for name in ("readers", "reader", "level", "shift")}
        a = {**defaults, **arrays}
        words = (
            events, self.table, self.borders, self.ranks, np.full(self.atoms, state, np.int64),
            np.zeros(self.atoms, np.int64), a["readers"], a["reader"], found, a["level"], a["shift"],
        )  # fmt: skip
        table = np.array([array.ctypes.data for array in words], np.int64)
        sweep(table.ctypes.data, len(events))


def _tables(operations: Sequence[Operation], size: int) -> _Tables:
    rows: list[Access] = []
    writes: list[bool] = []
    first = [0]
    for operation in operations:
        rows += operation.reads
        rows += operation.writes
        writes += [False] * len(operation.reads) + [True] * len(operation.writes)
        first.append(len(rows))
    flat = [(a.base, a.run, *a.counts, *a.strides) for a in rows]
    table = np.array(flat, np.int64).reshape(-1, 8)
    borders, ranks = np.zeros(size // 64 + 2, np.uint64), np.zeros(size // 64 + 2, np.int32)
    result = np.zeros(1, np.int64)
    cut(len(table), table.ctypes.data, borders.ctypes.data, ranks.ctypes.data, len(borders), result.ctypes.data)
    atoms = int(result[0]) + 1
    starts = np.array(first, np.int64)
    owner = np.repeat(np.arange(len(operations)), np.diff(starts))
    return _Tables(table, np.array(writes, bool), owner, starts, borders, ranks, atoms)


def analyse(operations: Sequence[Operation], size: int) -> Flow:
    """The flow of data through operations in serial order; `size` is that of the arena."""
    tables, count = _tables(operations, size), len(operations)
    source = np.where(tables.writes, NOBODY, UNSEEN)
    readers, reader = np.zeros(count, np.int64), np.full(count, NOBODY, np.int64)
    forwards = tables.events((READ, ~tables.writes), (NOTE_WRITER, tables.writes))
    tables.sweep(forwards, NOBODY, source, readers=readers, reader=reader)
    next_write = np.full(len(source), count, np.int64)
    everything = np.ones(len(source), bool)
    backwards = tables.events((NEXT_WRITER, everything), (NOTE_WRITER, tables.writes), backwards=True)
    tables.sweep(backwards, count, next_write)
    return Flow(tables.first, source, next_write, readers, reader)


def origins(
    operations: Sequence[Operation], size: int, shift: Sequence[int | None], is_fixed: Callable[[Access], bool]
) -> list[list[int | None]]:
    """Per read access of every operation, how far on a memory that never changes holds the same bytes; None where
    none does. `shift`: of an operation that copies, from where it writes to where it reads; None for others."""
    tables = _tables(operations, size)
    fixed = np.array([is_fixed(access) for o in operations for access in (*o.reads, *o.writes)], bool)
    found = np.where(fixed, _ZERO, np.where(tables.writes, NOBODY, UNSEEN))
    reads = ~tables.writes & ~fixed
    shifts = np.array([UNMOVED if s is None else s for s in shift], np.int64)
    tables.sweep(tables.events((READ_ORIGIN, reads), (NOTE_ORIGIN, tables.writes)), NOBODY, found, shift=shifts)
    distance = [int(d) - _ZERO if d >= 0 else None for d in found]
    return [distance[i : i + len(o.reads)] for i, o in zip(tables.first[:-1].tolist(), operations, strict=True)]


def levels(operations: Sequence[Operation], size: int) -> np.ndarray:
    """A level per operation, int64 [n]. Operations of a level touch disjoint memory, but for what they all read; what
    an operation must follow is on a lower level."""
    tables = _tables(operations, size)
    level = np.zeros(len(operations), np.int64)
    reads, writes = ~tables.writes, tables.writes
    events = tables.events((READ_LEVEL, reads), (WRITE_LEVEL, writes), (NOTE_READ, reads), (NOTE_WRITE, writes))
    tables.sweep(events, 0, np.zeros(len(tables.table), np.int64), level=level)
    return level
