"""The order of a function's instructions, and every race in it: the compiled heart of `check`.

Fifteen queues (three per core, the memory core included) run at once; `signal`/`wait` and `barrier` order them.
`simulate` executes the control instructions with one vector clock per queue, which yields a serial order or the heads
that hang, and looks up every access in a shadow memory as it goes. The shadow is exact and small: memory is cut into
atoms, the pieces between all points where some access starts or ends, and an atom remembers its last write (queue,
time) and the last read of each queue (FastTrack, Flanagan & Freund 2009). Only DMA queues reach shared memory and
only a core's own queues its private memory, so five times per atom are enough.

Everything here trusts its arguments: `check` has verified every index.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np

from compiler.native.borders import atom_at, mark, rank
from compiler.native.build import entry
from compiler.native.language import function
from compiler.native.memory import i32_at, i64_at, u8_at

QUEUES_PER_CORE = 3
CORES = 5
QUEUES = QUEUES_PER_CORE * CORES

WORK, SIGNAL, WAIT, BARRIER = range(4)
"""What a row is to the order."""

UNWRITTEN, WRITE_WRITE, WRITE_READ, READ_WRITE = range(4)
"""Kinds of fault, named by what came first and what came second in the serial order."""

SLOTS = 6
"""Words per atom of shadow: the last write, then the last read of each of five accessors."""


def _addresses(*arrays: np.ndarray) -> list[int]:
    assert all(a.flags.c_contiguous for a in arrays)
    return [a.ctypes.data for a in arrays]


# -- atoms -------------------------------------------------------------------------------------------------------------
def mark_borders(base, run, counts, strides, borders):
    """Set a bit of `borders` (uint64 words, one bit per byte of memory) wherever a run of an access starts or ends."""
    arrays = [np.ascontiguousarray(a, np.int64) for a in (base, run, counts, strides)]
    _mark_borders(len(base), *_addresses(*arrays, borders))


def rank_borders(borders, ranks):
    """Borders before each word, into `ranks`; returns how many there are in all."""
    total = np.zeros(1, np.int64)
    _rank_borders(len(borders), *_addresses(borders, ranks, total))
    return int(total[0])


def first_unwritten(borders, ranks, shadow, start, end):
    """The first byte of [start, end) that nothing wrote, or -1; both ends must be borders."""
    result = np.full(1, -1, np.int64)
    _first_unwritten(*_addresses(borders, ranks, shadow, result), start, end)
    return int(result[0])


@entry(6)
def _mark_borders(n, base, run, counts, strides, borders):
    bases, runs, count, stride = i64_at(base), i64_at(run), i64_at(counts), i64_at(strides)
    for k in range(n):
        for i0 in range(count[3 * k]):
            for i1 in range(count[3 * k + 1]):
                start = bases[k] + i0 * stride[3 * k] + i1 * stride[3 * k + 1]
                for _ in range(count[3 * k + 2]):
                    mark(borders, start)
                    mark(borders, start + runs[k])
                    start += stride[3 * k + 2]


@entry(4)
def _rank_borders(n, borders, ranks, result):
    i64_at(result)[0] = rank(borders, ranks, n)


@entry(6)
def _first_unwritten(borders, ranks, shadow, result, start, end):
    for atom in range(atom_at(borders, ranks, start), atom_at(borders, ranks, end)):
        if i32_at(shadow)[SLOTS * atom] == 0:
            for position in range(start, end):
                border = (i64_at(borders)[position >> 6] >> (position & 63)) & 1
                if border != 0 and atom_at(borders, ranks, position) == atom:
                    i64_at(result)[0] = position
                    return


# -- execution ---------------------------------------------------------------------------------------------------------
ARRAYS = (
    "queues", "starts", "ends", "kind", "argument", "value", "signal_base", "access_start", "base", "run", "counts",
    "strides", "is_write", "shared", "borders", "ranks", "shadow", "order", "heads", "faults", "clocks", "snapshots",
    "signals", "found", "clock_of", "joined",
)  # fmt: skip
"""What the table of addresses names, one int64 each."""


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
    given = [queues, starts, ends, kind, argument, value, signal_base, access_start, base, run, counts, strides]
    arrays = [np.ascontiguousarray(a, np.int64) for a in given]
    arrays += [np.ascontiguousarray(a, np.uint8) for a in (is_write, shared)]
    arrays += [borders, ranks, shadow, order, heads, faults]
    sizes = (QUEUES * QUEUES, max(signal_total, 1) * QUEUES, len(signal_base), 4, 8, QUEUES)
    arrays += [np.zeros(size, np.int64) for size in sizes]
    table, results = np.array(_addresses(*arrays), np.int64), np.zeros(3, np.int64)
    _simulate(*_addresses(table, results), budget, len(faults))
    return tuple(results.tolist())


@entry(4)
def _simulate(table, results, budget, reported):
    t, r = i64_at(table), i64_at(results)
    views = ()
    for place in WORDS:
        views = (*views, i64_at(t[place]))
    queues, starts, _, kind, argument, value, signal_base, access_start, *_ = views
    order, heads, faults, clocks, snapshots, signals, found, clock_of, _ = views[17:]
    is_write, shared = u8_at(t[12]), u8_at(t[13])
    done, faulty = 0, 0
    progress = True
    while progress:
        progress = False
        for core in range(CORES):
            while True:
                queue = runnable(core, views)
                if queue < 0:
                    break
                progress = True
                row = queues[starts[queue] + heads[queue]]
                if kind[row] == BARRIER:
                    done = meet(argument[row], views, done)
                    continue
                heads[queue] += 1
                clocks[queue * QUEUES + queue] = heads[queue]
                order[done] = row
                done += 1
                if kind[row] == SIGNAL:
                    counter = argument[row]
                    join(snapshots, signal_base[counter] + signals[counter], clocks, queue)
                    signals[counter] += 1
                elif kind[row] == WAIT and value[row] > 0:
                    join(clocks, queue, snapshots, signal_base[argument[row]] + value[row] - 1)
                for access in range(access_start[row], access_start[row + 1]):
                    for slot in range(SLOTS - 1):
                        if shared[access] != 0:
                            clock_of[slot] = QUEUES_PER_CORE * slot
                        else:
                            clock_of[slot] = QUEUES_PER_CORE * core + min(slot, QUEUES_PER_CORE - 1)
                    me = core if shared[access] != 0 else queue - QUEUES_PER_CORE * core
                    found[0] = -1
                    visited = touch(access, heads[queue], me, queue, is_write[access] != 0, views, t, budget)
                    if visited < 0:
                        r[0], r[1], r[2] = done, faulty, -1
                        return
                    budget -= visited
                    if found[0] >= 0:
                        if faulty < reported:
                            other = -1
                            if found[0] != UNWRITTEN:
                                other = queues[starts[clock_of[found[1]]] + found[2] - 1]
                            faults[4 * faulty], faults[4 * faulty + 1] = access, found[0]
                            faults[4 * faulty + 2], faults[4 * faulty + 3] = other, found[3]
                        faulty += 1
    r[0], r[1], r[2] = done, faulty, budget


WORDS = tuple(range(len(ARRAYS)))


@function
def note(found, kind, slot, time, start):
    """The first fault of an access; a race counts before bytes that nothing wrote."""
    if found[0] < 0 or (found[0] == UNWRITTEN and kind != UNWRITTEN):
        found[0], found[1], found[2], found[3] = kind, slot, time, start


@function
def touch(access, time, me, queue, is_write, views, t, budget):
    """Run one access through the shadow. `found` gets (kind, other's slot, other's time, start) of its first fault.

    `me` is the slot of the executing queue, `clock_of[slot]` the queue behind a slot. Returns the atoms visited, or -1
    when they exceed `budget`.
    """
    base, run, counts, strides = views[8:12]
    clocks, _, _, found, clock_of, _ = views[20:]
    borders, ranks, shadow = t[14], t[15], i32_at(t[16])
    visited = 0
    stamp = time * 8 + me
    for i0 in range(counts[3 * access]):
        for i1 in range(counts[3 * access + 1]):
            start = base[access] + i0 * strides[3 * access] + i1 * strides[3 * access + 1]
            for _ in range(counts[3 * access + 2]):
                first = atom_at(borders, ranks, start)
                last = atom_at(borders, ranks, start + run[access])
                visited += last - first + 1
                if visited > budget:
                    return -1
                for atom in range(first, last):
                    write = shadow[SLOTS * atom]
                    slot = write & 7
                    unordered = write > 0 and (write >> 3) > clocks[queue * QUEUES + clock_of[slot]]
                    if is_write:
                        if unordered:
                            note(found, WRITE_WRITE, slot, write >> 3, start)
                        for reader in range(SLOTS - 1):
                            read = shadow[SLOTS * atom + 1 + reader]
                            if read > 0 and read > clocks[queue * QUEUES + clock_of[reader]]:
                                note(found, READ_WRITE, reader, read, start)
                        shadow[SLOTS * atom] = stamp
                    else:
                        if unordered:
                            note(found, WRITE_READ, slot, write >> 3, start)
                        elif write == 0:
                            note(found, UNWRITTEN, slot, write >> 3, start)
                        shadow[SLOTS * atom + 1 + me] = time
                start += strides[3 * access + 2]
    return visited


@function
def join(into, i, other, j):
    """into[i] = the later of into[i] and other[j], queue by queue."""
    for queue in range(QUEUES):
        into[i * QUEUES + queue] = max(into[i * QUEUES + queue], other[j * QUEUES + queue])


@function
def meets(core, views):
    """Whether every core in the mask of the barrier at the head of `core` stands at a barrier of the same mask."""
    queues, starts, ends, _, argument, *_ = views
    heads = views[18]
    mask = argument[queues[starts[QUEUES_PER_CORE * core] + heads[QUEUES_PER_CORE * core]]]
    for other in range(CORES):
        if (mask >> other) & 1 != 0:
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


@function
def meet(mask, views, done):
    """Pass the barrier on every queue of the cores in `mask`: all their clocks become the join of them all."""
    queues, starts, *_ = views
    order, heads, _, clocks, _, _, _, _, joined = views[17:]
    for queue in range(QUEUES):
        joined[queue] = 0
    for core in range(CORES):
        if (mask >> core) & 1 != 0:
            order[done] = queues[starts[QUEUES_PER_CORE * core] + heads[QUEUES_PER_CORE * core]]
            done += 1
            for queue in range(QUEUES_PER_CORE * core, QUEUES_PER_CORE * (core + 1)):
                heads[queue] += 1
                clocks[queue * QUEUES + queue] = heads[queue]
                join(joined, 0, clocks, queue)
    for core in range(CORES):
        if (mask >> core) & 1 != 0:
            for queue in range(QUEUES_PER_CORE * core, QUEUES_PER_CORE * (core + 1)):
                join(clocks, queue, joined, 0)
    return done


@function
def runnable(core, views):
    """The queue of `core` with the earliest head that need not wait, or -1; any of the three at a barrier that
    meets."""
    queues, starts, ends, *_ = views
    heads = views[18]
    best, best_row = -1, 0
    for queue in range(QUEUES_PER_CORE * core, QUEUES_PER_CORE * (core + 1)):
        if heads[queue] < ends[queue]:
            row = queues[starts[queue] + heads[queue]]
            if (best < 0 or row < best_row) and may_start(core, row, views):
                best, best_row = queue, row
    return best


@function
def may_start(core, row, views):
    """Whether the row at the head of a queue of `core` need not wait."""
    queues, starts, _, kind, argument, value, *_ = views
    heads, signals = views[18], views[22]
    if kind[row] == WAIT:
        return signals[argument[row]] >= value[row]
    if kind[row] == BARRIER:
        return queues[starts[QUEUES_PER_CORE * core] + heads[QUEUES_PER_CORE * core]] == row and meets(core, views)
    return True
