"""Branch and bound for placing buffers below a given capacity: exact for small cases, bounded in work for others.

A plan can be told by putting its buffers down in order of their offsets; each then stands on the skyline of those
below it. Of all plans that fit, one has the least sum of offsets, and only plans that may be this one are looked at: in
it no buffer could stand wholly below the place where the next one is put down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NODES = 4000
"""Partial plans that are looked at for one capacity and one preference before giving up, where buffers are few."""
WORK = 100_000
"""Partial plans times buffers, likewise."""


@dataclass(frozen=True)
class Solved:
    """`offsets`: a plan within the capacity, if one was found. `finished`: without one, it is proved that there is
    none."""

    offsets: list[int] | None
    finished: bool


class _GivenUp(Exception):
    """The search has looked at as many partial plans as it may."""


def solve(buffers: Sequence[tuple[int, int, int]], capacity: int, nodes: int = NODES) -> Solved:
    """A plan for buffers (size, first step, last step) that needs no more than `capacity`."""
    offsets = [0] * len(buffers)
    for part in _separate(buffers):
        found = _solve_part([buffers[i] for i in part], capacity, nodes)
        if found.offsets is None:
            return found
        for index, offset in zip(part, found.offsets, strict=True):
            offsets[index] = offset
    return Solved(offsets, True)


def _separate(buffers: Sequence[tuple[int, int, int]]) -> list[list[int]]:
    """Groups of buffers that no time connects."""
    groups: list[list[int]] = []
    reached = -1
    for index in sorted((i for i in range(len(buffers)) if buffers[i][0]), key=lambda i: buffers[i][1:]):
        _, first, last = buffers[index]
        if first > reached or not groups:
            groups.append([])
        groups[-1].append(index)
        reached = max(reached, last)
    return groups


def _solve_part(buffers: Sequence[tuple[int, int, int]], capacity: int, nodes: int) -> Solved:
    nodes = min(nodes, WORK // len(buffers))
    for preference in range(len(_PREFERENCES)):
        try:
            return Solved(_Search(buffers, capacity, nodes, preference).run(), True)
        except _GivenUp:
            continue
    return Solved(None, False)


_PREFERENCES = ("area", "size", "length")
"""Which buffer is tried first among those at the same height: the largest in this respect."""


class _Search:
    """One search. Steps are renumbered so that only those at which something changes are left."""

    def __init__(self, buffers: Sequence[tuple[int, int, int]], capacity: int, nodes: int, preference: int) -> None:
        steps = {step: k for k, step in enumerate(sorted({first for _, first, _ in buffers}))}
        starts = sorted(steps)
        self.sizes = [size for size, _, _ in buffers]
        self.first = [steps[first] for _, first, _ in buffers]
        self.after = [sum(1 for s in starts if s <= last) for _, _, last in buffers]
        self.capacity = capacity
        self.nodes = nodes
        self.skyline = [0] * len(steps)
        self.remaining = [0] * len(steps)
        self.offsets = [-1] * len(buffers)
        self.waiting = set(range(len(buffers)))
        for i, size in enumerate(self.sizes):
            for k in range(self.first[i], self.after[i]):
                self.remaining[k] += size
        lengths = [last - first + 1 for _, first, last in buffers]
        wanted = [s * n for s, n in zip(self.sizes, lengths, strict=True)], self.sizes, lengths
        self.value = wanted[preference]

    def run(self) -> list[int] | None:
        """Offsets within the capacity; None if there are none. A stack instead of recursion: it gets as deep as there
        are buffers."""
        if max(self.remaining, default=0) > self.capacity:
            return None
        choices = [self._choices(0, -1)]
        put: list[tuple[int, list[int]]] = []
        while choices:
            choice = next(choices[-1], None)
            if choice is None:
                choices.pop()
                if put:
                    self._take_back(*put.pop())
                continue
            place, _, index = choice
            put.append((index, self._put(index, place)))
            if not self.waiting:
                return list(self.offsets)
            choices.append(self._choices(place, index))
        return None

    def _choices(self, lowest: int, previous: int) -> Iterator[tuple[int, int, int]]:
        """What may be put down next, the best first, as (place, -value, index): above (lowest, previous)."""
        self.nodes -= 1
        if self.nodes < 0:
            raise _GivenUp
        places = {i: max(self.skyline[self.first[i] : self.after[i]]) for i in self.waiting}
        if not self._has_room(places, lowest):
            return iter(())
        ceiling = min(place + self.sizes[i] for i, place in places.items())
        return iter(sorted(
            (place, -self.value[i], i) for i, place in places.items()
            if place < ceiling and (place, i) > (lowest, previous)
        ))  # fmt: skip

    def _has_room(self, places: dict[int, int], lowest: int) -> bool:
        """Whether what waits can fit: at every step it stands on the lowest place that anything there has."""
        ground = [self.capacity] * len(self.skyline)
        for i, place in places.items():
            place = max(place, lowest)
            if place + self.sizes[i] > self.capacity:
                return False
            for k in range(self.first[i], self.after[i]):
                if place < ground[k]:
                    ground[k] = place
        return all(g + r <= self.capacity for g, r in zip(ground, self.remaining, strict=True) if r)

    def _put(self, index: int, place: int) -> list[int]:
        """Put a buffer down; gives the skyline that was there."""
        low, high = self.first[index], self.after[index]
        before = self.skyline[low:high]
        self.skyline[low:high] = [place + self.sizes[index]] * (high - low)
        for k in range(low, high):
            self.remaining[k] -= self.sizes[index]
        self.waiting.discard(index)
        self.offsets[index] = place
        return before

    def _take_back(self, index: int, before: list[int]) -> None:
        low, high = self.first[index], self.after[index]
        self.offsets[index] = -1
        self.waiting.add(index)
        for k in range(low, high):
            self.remaining[k] += self.sizes[index]
        self.skyline[low:high] = before
