"""The order of a function's instructions, and every race in it: the compiled heart of `check`.

Fifteen queues (three per core, the memory core included) run at once; `signal`/`wait` and `barrier` order them.
`simulate` executes the control instructions with one vector clock per queue, which yields a serial order or the heads
that hang, and looks up every access in a shadow memory as it goes. The shadow is exact and small: memory is cut into
atoms, the pieces between all points where some access starts or ends, and an atom remembers its last write (queue,
time) and the last read of each queue (FastTrack, Flanagan & Freund 2009). Only DMA queues reach shared memory and
only a core's own queues its private memory, so five times per atom are enough.

Everything here trusts its arguments: `check` has verified every index. Importing this module imports Numba.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from compiler.code_cache import ensure_code_cache

ensure_code_cache()

QUEUES_PER_CORE = 3
CORES = 5
QUEUES = QUEUES_PER_CORE * CORES

WORK, SIGNAL, WAIT, BARRIER = range(4)
"""What a row is to the order."""

UNWRITTEN, WRITE_WRITE, WRITE_READ, READ_WRITE = range(4)
"""Kinds of fault, named by what came first and what came second in the serial order."""

SLOTS = 6
"""Words per atom of shadow: the last write, then the last read of each of five accessors."""

_MASK_1 = np.uint64(0x5555555555555555)
_MASK_2 = np.uint64(0x3333333333333333)
_MASK_4 = np.uint64(0x0F0F0F0F0F0F0F0F)
_SUM_8 = np.uint64(0x0101010101010101)
_S1, _S2, _S4, _S56, _S6, _LOW = (np.uint64(v) for v in (1, 2, 4, 56, 6, 63))


@njit(cache=True)
def _popcount(x):
    x = x - ((x >> _S1) & _MASK_1)
    x = (x & _MASK_2) + ((x >> _S2) & _MASK_2)
    x = (x + (x >> _S4)) & _MASK_4
    return np.int64((x * _SUM_8) >> _S56)


@njit(cache=True)
def _atom(borders, ranks, position):
    """Index of the atom that starts at `position`, which must be a border: the number of borders before it."""
    word = position >> 6
    before = (_S1 << (np.uint64(position) & _LOW)) - _S1
    return ranks[word] + _popcount(borders[word] & before)


@njit(cache=True)
def mark_borders(base, run, counts, strides, borders):
    """Set a bit of `borders` (uint64 words, one bit per byte of memory) wherever a run of an access starts or ends."""
    for k in range(len(base)):
        for i0 in range(counts[k, 0]):
            for i1 in range(counts[k, 1]):
                start = base[k] + i0 * strides[k, 0] + i1 * strides[k, 1]
                for _ in range(counts[k, 2]):
                    end = start + run[k]
                    borders[start >> 6] |= _S1 << (np.uint64(start) & _LOW)
                    borders[end >> 6] |= _S1 << (np.uint64(end) & _LOW)
                    start += strides[k, 2]


@njit(cache=True)
def rank_borders(borders, ranks):
    """Borders before each word, into `ranks`; returns how many there are in all."""
    total = 0
    for word in range(len(borders)):
        ranks[word] = total
        if borders[word]:
            total += _popcount(borders[word])
    return total


@njit(cache=True)
def first_unwritten(borders, ranks, shadow, start, end):
    """The first byte of [start, end) that nothing wrote, or -1; both ends must be borders."""
    for atom in range(_atom(borders, ranks, start), _atom(borders, ranks, end)):
        if shadow[atom, 0] == 0:
            for position in range(start, end):
                bit = (borders[position >> 6] >> (np.uint64(position) & _LOW)) & _S1
                if bit and _atom(borders, ranks, position) == atom:
                    return position
    return -1


@njit(cache=True)
def _touch(
    access, time, me, clocks, queue, clock_of, base, run, counts, strides, is_write, borders, ranks, shadow, budget,
    found,
):  # fmt: skip
    """Run one access through the shadow. `found` gets (kind, other's slot, other's time, start) of its first fault.

    `me` is the slot of the executing queue, clocks[queue] its vector clock, `clock_of[slot]` the queue behind a slot.
    Returns the atoms visited, or -1 when they exceed `budget`.
    """
    visited = 0
    stamp = time * 8 + me
    for i0 in range(counts[access, 0]):
        for i1 in range(counts[access, 1]):
            start = base[access] + i0 * strides[access, 0] + i1 * strides[access, 1]
            for _ in range(counts[access, 2]):
                first = _atom(borders, ranks, start)
                last = _atom(borders, ranks, start + run[access])
                visited += last - first + 1
                if visited > budget:
                    return -1
                for atom in range(first, last):
                    write = shadow[atom, 0]
                    slot = write & 7
                    unordered = write > 0 and (write >> 3) > clocks[queue, clock_of[slot]]
                    if is_write:
                        if unordered and found[0] < 0:
                            found[0], found[1], found[2], found[3] = WRITE_WRITE, slot, write >> 3, start
                        for reader in range(SLOTS - 1):
                            read = shadow[atom, 1 + reader]
                            if read > 0 and read > clocks[queue, clock_of[reader]] and found[0] < 0:
                                found[0], found[1], found[2], found[3] = READ_WRITE, reader, read, start
                        shadow[atom, 0] = stamp
                    else:
                        if found[0] < 0 and (unordered or write == 0):
                            kind = WRITE_READ if unordered else UNWRITTEN
                            found[0], found[1], found[2], found[3] = kind, slot, write >> 3, start
                        shadow[atom, 1 + me] = time
                start += strides[access, 2]
    return visited


@njit(cache=True)
def _meets(core, queues, starts, heads, ends, argument):
    """Whether every core in the mask of the barrier at the head of `core` stands at a barrier of the same mask."""
    mask = argument[queues[starts[QUEUES_PER_CORE * core] + heads[QUEUES_PER_CORE * core]]]
    for other in range(CORES):
        if (mask >> other) & 1 == 0:
            continue
        first = QUEUES_PER_CORE * other
        if heads[first] >= ends[first]:
            return False
        row = queues[starts[first] + heads[first]]
        if argument[row] != mask:
            return False
        for queue in range(first, first + QUEUES_PER_CORE):
            if heads[queue] >= ends[queue] or queues[starts[queue] + heads[queue]] != row:
                return False
    return True


@njit(cache=True)
def _join(into, i, other, j):
    """into[i] = the later of into[i] and other[j], queue by queue."""
    for queue in range(QUEUES):
        into[i, queue] = max(into[i, queue], other[j, queue])


@njit(cache=True)
def _meet(mask, queues, starts, heads, clocks, order, done):
    """Pass the barrier on every queue of the cores in `mask`: all their clocks become the join of them all."""
    joined = np.zeros((1, QUEUES), np.int32)
    for core in range(CORES):
        if (mask >> core) & 1:
            order[done] = queues[starts[QUEUES_PER_CORE * core] + heads[QUEUES_PER_CORE * core]]
            done += 1
            for queue in range(QUEUES_PER_CORE * core, QUEUES_PER_CORE * (core + 1)):
                heads[queue] += 1
                clocks[queue, queue] = heads[queue]
                _join(joined, 0, clocks, queue)
    for core in range(CORES):
        if (mask >> core) & 1:
            for queue in range(QUEUES_PER_CORE * core, QUEUES_PER_CORE * (core + 1)):
                _join(clocks, queue, joined, 0)
    return done


@njit(cache=True)
def _runnable(core, queues, starts, heads, ends, kind, argument, value, signals):
    """The queue of `core` with the earliest head that need not wait, or -1; any of the three at a barrier that
    meets."""
    best, best_row = -1, 0
    for queue in range(QUEUES_PER_CORE * core, QUEUES_PER_CORE * (core + 1)):
        if heads[queue] >= ends[queue]:
            continue
        row = queues[starts[queue] + heads[queue]]
        if best >= 0 and row >= best_row:
            continue
        if kind[row] == WAIT and signals[argument[row]] < value[row]:
            continue
        if kind[row] == BARRIER and not (
            queues[starts[QUEUES_PER_CORE * core] + heads[QUEUES_PER_CORE * core]] == row
            and _meets(core, queues, starts, heads, ends, argument)
        ):
            continue
        best, best_row = queue, row
    return best


@njit(cache=True)
def simulate(
    queues, starts, ends, kind, argument, value, signal_base, signal_total,
    access_start, base, run, counts, strides, is_write, shared, borders, ranks, shadow, budget,
    order, heads, faults,
):  # fmt: skip
    """Execute every row once in an order the queues allow; returns (rows executed, faults found, budget left or -1).

    `queues[starts[q] + i]` for i < ends[q] are the rows of queue q (numbered so that a core's rows ascend); a barrier
    stands in all three queues of its core. `kind`, `argument` (counter or mask) and `value` are per row;
    `signal_base[c]` is where the signals of counter c begin among `signal_total`. Accesses of row r are
    access_start[r] to access_start[r + 1]; those of `shared` memory are told apart by core, the others by queue. Out:
    `order` rows in serial order, `heads` where each queue stopped, `faults` rows (access, kind, other row, position).
    """
    clocks = np.zeros((QUEUES, QUEUES), np.int32)
    snapshots = np.zeros((max(signal_total, 1), QUEUES), np.int32)
    signals = np.zeros(len(signal_base), np.int64)
    found = np.zeros(4, np.int64)
    clock_of = np.zeros(8, np.int64)
    done, faulty = 0, 0
    progress = True
    while progress:
        progress = False
        for core in range(CORES):
            while True:
                queue = _runnable(core, queues, starts, heads, ends, kind, argument, value, signals)
                if queue < 0:
                    break
                progress = True
                row = queues[starts[queue] + heads[queue]]
                if kind[row] == BARRIER:
                    done = _meet(argument[row], queues, starts, heads, clocks, order, done)
                    continue
                heads[queue] += 1
                clocks[queue, queue] = heads[queue]
                order[done] = row
                done += 1
                if kind[row] == SIGNAL:
                    counter = argument[row]
                    _join(snapshots, signal_base[counter] + signals[counter], clocks, queue)
                    signals[counter] += 1
                elif kind[row] == WAIT and value[row] > 0:
                    _join(clocks, queue, snapshots, signal_base[argument[row]] + value[row] - 1)
                for access in range(access_start[row], access_start[row + 1]):
                    for slot in range(SLOTS - 1):
                        if shared[access]:
                            clock_of[slot] = QUEUES_PER_CORE * slot
                        else:
                            clock_of[slot] = QUEUES_PER_CORE * core + min(slot, QUEUES_PER_CORE - 1)
                    me = core if shared[access] else queue - QUEUES_PER_CORE * core
                    found[0] = -1
                    visited = _touch(
                        access, heads[queue], me, clocks, queue, clock_of, base, run, counts, strides,
                        is_write[access], borders, ranks, shadow, budget, found,
                    )  # fmt: skip
                    if visited < 0:
                        return done, faulty, -1
                    budget -= visited
                    if found[0] >= 0:
                        if faulty < len(faults):
                            other = -1
                            if found[0] != UNWRITTEN:
                                other = queues[starts[clock_of[found[1]]] + found[2] - 1]
                            faults[faulty, 0], faults[faulty, 1] = access, found[0]
                            faults[faulty, 2], faults[faulty, 3] = other, found[3]
                        faulty += 1
    return done, faulty, budget
