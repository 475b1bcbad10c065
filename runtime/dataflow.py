"""Who wrote what an operation reads, who reads what it writes, and who overwrites it: exact, on footprints.

Memory is cut into atoms, the pieces between all points where some run of bytes starts or ends; per atom the passes keep
the last writer (forwards) or the next writer (backwards). Operations are numbered in serial order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from compiler.code_cache import ensure_code_cache
from runtime.operations import Access, Operation

ensure_code_cache()

NOBODY, SEVERAL, UNSEEN = -1, -2, -3
"""Sources of a read: memory that no operation wrote (constants, inputs), bytes of several writers, not looked at."""

_M1, _M2 = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
_M4, _SUM = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)
_S1, _S2, _S4, _S56, _LOW = (np.uint64(v) for v in (1, 2, 4, 56, 63))


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


@njit(cache=True, inline="always")
def _popcount(x):
    x = x - ((x >> _S1) & _M1)
    x = (x & _M2) + ((x >> _S2) & _M2)
    x = (x + (x >> _S4)) & _M4
    return np.int64((x * _SUM) >> _S56)


@njit(cache=True, inline="always")
def _atom(borders, ranks, position):
    """The atom that starts at `position`, a border: the number of borders before it."""
    before = (_S1 << (np.uint64(position) & _LOW)) - _S1
    return ranks[position >> 6] + _popcount(borders[position >> 6] & before)


@njit(cache=True)
def _cut(table, borders, ranks):
    """Mark where runs start and end, count the marks before each word; returns the number of atoms."""
    for k in range(len(table)):
        for i0 in range(table[k, 2]):
            for i1 in range(table[k, 3]):
                for i2 in range(table[k, 4]):
                    start = table[k, 0] + i0 * table[k, 5] + i1 * table[k, 6] + i2 * table[k, 7]
                    end = start + table[k, 1]
                    borders[start >> 6] |= _S1 << (np.uint64(start) & _LOW)
                    borders[end >> 6] |= _S1 << (np.uint64(end) & _LOW)
    total = 0
    for word in range(len(borders)):
        ranks[word] = total
        if borders[word]:
            total += _popcount(borders[word])
    return total


READ, NOTE_WRITER, NEXT_WRITER, READ_LEVEL, WRITE_LEVEL, NOTE_READ, NOTE_WRITE = range(7)
"""What a pass does with an access: see `_sweep`."""


@njit(cache=True)
def _sweep(events, table, borders, ranks, state, other, readers, reader, found, level):
    """Apply events (what, access, operation) in order to the atoms of their accesses.

    READ: `found` of the access is the common last writer; count the operation among the writer's readers. NEXT_WRITER
    (backwards): `found` is the nearest writer. NOTE_WRITER: remember the operation as writer. Levels: `state` is the
    level after the last write, `other` that after the last write or read; READ_LEVEL and WRITE_LEVEL raise the
    operation's level above those, NOTE_READ and NOTE_WRITE raise them above the operation's.
    """
    for e in range(len(events)):
        what, access, me = events[e, 0], events[e, 1], events[e, 2]
        row = table[access]
        for i0 in range(row[2]):
            for i1 in range(row[3]):
                start = row[0] + i0 * row[5] + i1 * row[6]
                for _ in range(row[4]):
                    first, end = _atom(borders, ranks, start), _atom(borders, ranks, start + row[1])
                    start += row[7]
                    for atom in range(first, end):
                        value = state[atom]
                        if what == READ:
                            same = found[access] == UNSEEN or found[access] == value
                            found[access] = value if same else SEVERAL
                            if value >= 0 and reader[value] != me:
                                reader[value] = me
                                readers[value] += 1
                        elif what == NOTE_WRITER:
                            state[atom] = me
                        elif what == NEXT_WRITER:
                            found[access] = min(found[access], value)
                        elif what == READ_LEVEL:
                            level[me] = max(level[me], value)
                        elif what == WRITE_LEVEL:
                            level[me] = max(level[me], other[atom])
                        elif what == NOTE_READ:
                            other[atom] = max(other[atom], level[me] + 1)
                        else:
                            state[atom] = other[atom] = level[me] + 1


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
        defaults = {name: np.zeros(count, np.int64) for name in ("readers", "reader", "level")}
        a = {**defaults, **arrays}
        _sweep(
            events, self.table, self.borders, self.ranks, np.full(self.atoms, state, np.int64),
            np.zeros(self.atoms, np.int64), a["readers"], a["reader"], found, a["level"],
        )  # fmt: skip


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
    atoms = _cut(table, borders, ranks) + 1
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


def levels(operations: Sequence[Operation], size: int) -> np.ndarray:
    """A level per operation, int64 [n]. Operations of a level touch disjoint memory, but for what they all read; what
    an operation must follow is on a lower level."""
    tables = _tables(operations, size)
    level = np.zeros(len(operations), np.int64)
    reads, writes = ~tables.writes, tables.writes
    events = tables.events((READ_LEVEL, reads), (WRITE_LEVEL, writes), (NOTE_READ, reads), (NOTE_WRITE, writes))
    tables.sweep(events, 0, np.zeros(len(tables.table), np.int64), level=level)
    return level
