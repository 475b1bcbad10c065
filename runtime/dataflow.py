"""Who wrote what an operation reads, who reads what it writes, and who overwrites it: exact, on footprints.

Memory is cut into atoms, the pieces between all points where some run of bytes starts or ends; per atom the passes keep
the last writer (forwards) or the next writer (backwards). Operations are numbered in serial order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from runtime.operations import Access, Operation

NOBODY, SEVERAL = -1, -2
"""Sources of a read: memory that no operation wrote (constants, inputs), or bytes of several writers."""

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


@njit(cache=True)
def _visit(mode, row, me, borders, ranks, state, other, readers, reader, found):
    """Apply one access (a row of the table) to all its atoms; `mode` says which pass. Returns the access's result."""
    for i0 in range(row[2]):
        for i1 in range(row[3]):
            start = row[0] + i0 * row[5] + i1 * row[6]
            for _ in range(row[4]):
                for atom in range(_atom(borders, ranks, start), _atom(borders, ranks, start + row[1])):
                    value = state[atom]
                    if mode == 0:  # read, forwards: the common last writer
                        found = value if found == -3 or found == value else SEVERAL
                        if value >= 0 and reader[value] != me:
                            reader[value] = me
                            readers[value] += 1
                    elif mode == 1:  # note a writer, either direction
                        state[atom] = me
                    elif mode == 2:  # backwards: the nearest next writer
                        found = min(found, value)
                    elif mode == 3:  # levels: a read comes after the last write
                        found = max(found, value)
                    elif mode == 4:  # levels: a write comes after the last write and all reads
                        found = max(found, max(value, other[atom]))
                    elif mode == 5:  # levels: note a read
                        other[atom] = max(other[atom], me)
                    else:  # levels: note a write
                        state[atom] = me
                        other[atom] = me
                start += row[7]
    return found


@njit(cache=True)
def _flow(table, writes, first, borders, ranks, atoms, source, next_write, readers, reader):
    count = len(first) - 1
    state, other = np.full(atoms, np.int64(NOBODY)), np.zeros(0, np.int64)
    for i in range(count):
        for k in range(first[i], first[i + 1]):
            if not writes[k]:
                source[k] = _visit(0, table[k], i, borders, ranks, state, other, readers, reader, -3)
        for k in range(first[i], first[i + 1]):
            if writes[k]:
                _visit(1, table[k], i, borders, ranks, state, other, readers, reader, 0)
    state[:] = count
    for i in range(count - 1, -1, -1):
        for k in range(first[i], first[i + 1]):
            next_write[k] = _visit(2, table[k], i, borders, ranks, state, other, readers, reader, count)
        for k in range(first[i], first[i + 1]):
            if writes[k]:
                _visit(1, table[k], i, borders, ranks, state, other, readers, reader, 0)


@njit(cache=True)
def _levels(table, writes, first, borders, ranks, atoms, result):
    """`state`: level after the last write; `other`: level after the last write or read."""
    state, other = np.zeros(atoms, np.int64), np.zeros(atoms, np.int64)
    none = np.zeros(0, np.int64)
    for i in range(len(first) - 1):
        level = 0
        for k in range(first[i], first[i + 1]):
            level = _visit(4 if writes[k] else 3, table[k], i, borders, ranks, state, other, none, none, level)
        result[i] = level
        for k in range(first[i], first[i + 1]):
            _visit(6 if writes[k] else 5, table[k], level + 1, borders, ranks, state, other, none, none, 0)


def _tables(operations: Sequence[Operation], size: int) -> tuple[np.ndarray, ...]:
    """(accesses [n, 8], which write, first access of each operation, borders, ranks, atoms)."""
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
    atoms = _cut(table, borders, ranks)
    return table, np.array(writes, bool), np.array(first, np.int64), borders, ranks, atoms + 1


def analyse(operations: Sequence[Operation], size: int) -> Flow:
    """The flow of data through operations in serial order; `size` is that of the arena."""
    table, writes, first, borders, ranks, atoms = _tables(operations, size)
    source, next_write = np.full(len(table), NOBODY, np.int64), np.zeros(len(table), np.int64)
    readers, reader = np.zeros(len(operations), np.int64), np.full(len(operations), NOBODY, np.int64)
    _flow(table, writes, first, borders, ranks, atoms, source, next_write, readers, reader)
    return Flow(first, source, next_write, readers, reader)


def levels(operations: Sequence[Operation], size: int) -> np.ndarray:
    """A level per operation, int64 [n]. Operations of a level touch disjoint memory, but for what they all read; what
    an operation must follow is on a lower level."""
    table, writes, first, borders, ranks, atoms = _tables(operations, size)
    result = np.zeros(len(operations), np.int64)
    _levels(table, writes, first, borders, ranks, atoms, result)
    return result
