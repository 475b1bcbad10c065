"""Offsets for buffers that live at known times: a ladder of allocators, each rung dearer and better than the one below.

greedy: in order of time, the smallest hole that fits; n log n. sizes: first fit in a few fixed orders, such as largest
first. search: exchanges in the best of these orders. exact: branch and bound over plans in order of their offsets,
which either finds a plan or proves that there is none. The ladder ends at the first plan that needs no more than what
is alive at once, which no plan can undercut. Nothing here depends on a clock or on chance: the same buffers give the
same plan on every machine.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from passes.memory.exact import NODES, solve

Effort = Literal["greedy", "sizes", "search", "exact"]
RUNGS: tuple[Effort, ...] = ("greedy", "sizes", "search", "exact")
MOST_PAIRS = 2_000_000
"""Pairs of buffers alive together up to which the rungs above greedy are tried."""
SEARCH_WORK = 4_000_000
"""Pairs looked at in all by the rung search."""
SEARCH_WALKS = 20
SEARCH_STEPS = 200
"""Exchanges tried before the search starts again from another order."""


@dataclass(frozen=True)
class Buffer:
    """Bytes needed from step `first` to step `last`, both included. Sizes are multiples of the alignment."""

    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Allocation:
    """An offset per buffer. `bound`: the most bytes alive at one step; `optimal`: no plan needs less than `peak`."""

    offsets: tuple[int, ...]
    peak: int
    bound: int
    method: Effort
    optimal: bool


def allocate(buffers: Sequence[Buffer], effort: Effort = "exact") -> Allocation:
    """The best plan that the rungs up to `effort` find."""
    bound = most_alive(buffers)
    best = _allocation(buffers, _by_time(buffers), bound, "greedy")
    if best.optimal or effort == "greedy" or (conflicts := conflicts_of(buffers)) is None:
        return best
    for rung in RUNGS[1 : RUNGS.index(effort) + 1]:
        for offsets, proved in _PLANS[rung](buffers, conflicts, best):
            found = _allocation(buffers, offsets, bound, rung, proved)
            if found.peak < best.peak or (found.peak == best.peak and found.optimal):
                best = found
            if best.optimal:
                return best
    return best


def most_alive(buffers: Sequence[Buffer]) -> int:
    """The most bytes alive at one step: no plan needs less."""
    changes: dict[int, int] = {}
    for buffer in buffers:
        changes[buffer.first] = changes.get(buffer.first, 0) + buffer.size
        changes[buffer.last + 1] = changes.get(buffer.last + 1, 0) - buffer.size
    alive = peak = 0
    for step in sorted(changes):
        alive += changes[step]
        peak = max(peak, alive)
    return peak


def _allocation(
    buffers: Sequence[Buffer], offsets: Sequence[int], bound: int, method: Effort, proved: bool = False
) -> Allocation:
    peak = max((o + b.size for o, b in zip(offsets, buffers, strict=True)), default=0)
    return Allocation(tuple(offsets), peak, bound, method, proved or peak == bound)


# -- greedy: in order of time ------------------------------------------------------------------------------------------
class _Holes:
    """Free ranges below `top`; everything above is free too. Neighbours are merged."""

    def __init__(self) -> None:
        self.top = 0
        self._by_size: list[tuple[int, int]] = []
        self._size_at: dict[int, int] = {}
        self._start_of_end: dict[int, int] = {}

    def take(self, size: int) -> int:
        """The offset of the smallest hole that fits, or of the top."""
        index = bisect_left(self._by_size, (size, -1))
        if index == len(self._by_size):
            self.top += size
            return self.top - size
        length, start = self._by_size[index]
        self._remove(start)
        if length > size:
            self._add(start + size, length - size)
        return start

    def give(self, start: int, size: int) -> None:
        """Make a range free again."""
        end = start + size
        if end in self._size_at:
            size += self._remove(end)
        if start in self._start_of_end:
            start = self._start_of_end[start]
            size += self._remove(start)
        if start + size == self.top:
            self.top = start
        else:
            self._add(start, size)

    def _add(self, start: int, size: int) -> None:
        insort(self._by_size, (size, start))
        self._size_at[start] = size
        self._start_of_end[start + size] = start

    def _remove(self, start: int) -> int:
        size = self._size_at.pop(start)
        del self._start_of_end[start + size]
        del self._by_size[bisect_left(self._by_size, (size, start))]
        return size


def _by_time(buffers: Sequence[Buffer]) -> list[int]:
    """Each buffer in the smallest hole there is when it starts to live."""
    offsets = [0] * len(buffers)
    holes, living = _Holes(), list[tuple[int, int]]()
    for index in sorted(range(len(buffers)), key=lambda i: (buffers[i].first, -buffers[i].size, i)):
        buffer = buffers[index]
        while living and living[0][0] < buffer.first:
            _, done = heapq.heappop(living)
            holes.give(offsets[done], buffers[done].size)
        offsets[index] = holes.take(buffer.size)
        if buffer.size:
            heapq.heappush(living, (buffer.last, index))
    return offsets


# -- first fit in an order -------------------------------------------------------------------------------------------
def conflicts_of(buffers: Sequence[Buffer]) -> list[list[int]] | None:
    """Per buffer those that live when it does; None if they are too many to list."""
    conflicts: list[list[int]] = [[] for _ in buffers]
    living: list[tuple[int, int]] = []
    pairs = 0
    for index in sorted(range(len(buffers)), key=lambda i: buffers[i].first):
        living = [(last, other) for last, other in living if last >= buffers[index].first]
        pairs += len(living)
        if pairs > MOST_PAIRS:
            return None
        for _, other in living:
            conflicts[index].append(other)
            conflicts[other].append(index)
        living.append((buffers[index].last, index))
    return conflicts


def _first_fit(buffers: Sequence[Buffer], conflicts: Sequence[Sequence[int]], order: Sequence[int]) -> list[int]:
    """Offsets when buffers are put down in this order, each at the lowest free place."""
    offsets = [-1] * len(buffers)
    for index in order:
        offset, size = 0, buffers[index].size
        placed = [(offsets[j], offsets[j] + buffers[j].size) for j in conflicts[index] if offsets[j] >= 0]
        for low, high in sorted(placed):
            if offset + size <= low:
                break
            offset = max(offset, high)
        offsets[index] = offset
    return offsets


Plans = Iterator[tuple[list[int], bool]]
"""Offsets, and whether they are proved to be the best there are."""


def _sorted_orders(buffers: Sequence[Buffer]) -> Iterator[list[int]]:
    keys: tuple[Callable[[Buffer], tuple[int, ...]], ...] = (
        lambda b: (-b.size, b.first),
        lambda b: (-b.size * (b.last - b.first + 1), b.first),
        lambda b: (b.first - b.last, -b.size),
        lambda b: (b.first, -b.size),
        lambda b: (-b.last, -b.size),
    )
    for key in keys:
        yield sorted(range(len(buffers)), key=lambda i: (key(buffers[i]), i))


def _by_size(buffers: Sequence[Buffer], conflicts: Sequence[Sequence[int]], best: Allocation) -> Plans:
    for order in _sorted_orders(buffers):
        yield _first_fit(buffers, conflicts, order), False


def _by_search(buffers: Sequence[Buffer], conflicts: Sequence[Sequence[int]], best: Allocation) -> Plans:
    """Walks from each of the sorted orders, the best one first: a walk that has not arrived soon seldom does later."""
    generator = random.Random(0)
    tries = SEARCH_WORK // (len(buffers) + sum(map(len, conflicts)))
    starts = [(order, _first_fit(buffers, conflicts, order)) for order in _sorted_orders(buffers)]
    starts.sort(key=lambda start: sum(_excess(buffers, start[1], best.bound)))
    for walk in range(SEARCH_WALKS):
        order, offsets = starts[walk % len(starts)]
        steps = min(SEARCH_STEPS, tries - walk * SEARCH_STEPS)
        yield from ((found, False) for found in _walk(buffers, conflicts, best.bound, order, offsets, steps, generator))


def _walk(
    buffers: Sequence[Buffer], conflicts: Sequence[Sequence[int]], bound: int, order: list[int], offsets: list[int],
    steps: int, generator: random.Random,
) -> Iterator[list[int]]:  # fmt: skip
    """One of the buffers that reach above the bound changes places with, or goes in front of, one that lives at about
    the same time; kept unless more bytes reach above the bound than before."""
    excess = _excess(buffers, offsets, bound)
    for step in range(steps):
        high = generator.choice([i for i, bytes in enumerate(excess) if bytes])
        other = generator.choice(conflicts[generator.choice(conflicts[high])])
        trial = list(order)
        here, there = trial.index(high), trial.index(other)
        if step % 2:
            trial[here], trial[there] = other, high
        else:
            trial.insert(min(there, here), trial.pop(here))
        found = _first_fit(buffers, conflicts, trial)
        left = _excess(buffers, found, bound)
        if sum(left) <= sum(excess):
            order, excess = trial, left
            yield found


def _excess(buffers: Sequence[Buffer], offsets: Sequence[int], bound: int) -> list[int]:
    """By how many bytes each buffer reaches above the bound."""
    return [max(0, o + b.size - bound) for o, b in zip(offsets, buffers, strict=True)]


# -- exact -----------------------------------------------------------------------------------------------------------
def _exactly(buffers: Sequence[Buffer], conflicts: Sequence[Sequence[int]], best: Allocation) -> Plans:
    """Plans that need less and less, the last one proved to be the best where the search comes to its end."""
    rows = [(b.size, b.first, b.last) for b in buffers]
    low, high, offsets = best.bound, best.peak, list(best.offsets)
    found = solve(rows, low, NODES)
    if found.offsets is not None:
        yield found.offsets, True
        return
    proved = found.finished
    while proved and low < high:  # from above: each plan found makes the next one sought smaller
        found = solve(rows, high - 1, NODES)
        proved = found.finished
        if found.offsets is None:
            break
        offsets = found.offsets
        high = max(o + b.size for o, b in zip(offsets, buffers, strict=True))
        yield offsets, False
    if proved:
        yield offsets, True


_PLANS: dict[Effort, Callable[[Sequence[Buffer], Sequence[Sequence[int]], Allocation], Plans]] = {
    "sizes": _by_size, "search": _by_search, "exact": _exactly,
}  # fmt: skip
