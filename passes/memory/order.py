"""The order of kernels that keeps the fewest bytes alive: a search over what has been executed so far.

Kernels are given as what they wait for and which buffers they touch; a buffer lives from the first op that touches it
to the last. A partial order of execution is known by the set of ops it has executed, so the search is one over sets,
those with the lowest peak first and, of these, those that have come farthest: where it ends by itself the order is the
best there is, and where it has to give up it says so. Sequences are cut at ops that all others must come before or
after, and searched section by section.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

STATES = 20_000
"""Sets of executed ops that are looked at before giving up, all parts of a sequence together."""


@dataclass(frozen=True)
class Step:
    """One op: numbers of the ops it waits for, and of the buffers it reads or writes."""

    after: frozenset[int]
    touches: frozenset[int]


@dataclass(frozen=True)
class Order:
    """Op numbers in order, the most bytes then alive at one op, and whether that is proved to be the least."""

    ops: tuple[int, ...]
    peak: int
    optimal: bool


def best_order(steps: Sequence[Step], sizes: Sequence[int], states: int = STATES) -> Order:
    """An order of `steps` with a low peak; where none is lower, the given one, which must be an order of execution.

    Sections are searched from the highest down; one that stays below what another needs anyhow is left as it is.
    """
    spans = _spans(steps, len(sizes))
    sections = [_Section(steps, sizes, ops, spans) for ops in sections_of(steps)]
    bases = _bases(sizes, spans, sections)
    given = [base + s.peak(range(len(s.ops))) for base, s in zip(bases, sections, strict=True)]
    orders: list[Sequence[int]] = [s.ops for s in sections]
    needed, optimal = 0, True
    for k in sorted(range(len(sections)), key=lambda k: (-given[k], k)):
        if given[k] <= needed or not states:
            break
        found, looked, proved = sections[k].search(states, given[k] - bases[k])
        states -= min(looked, states)
        optimal &= proved
        if found is not None:
            orders[k] = [sections[k].ops.start + op for op in found]
            given[k] = bases[k] + sections[k].peak(found)
        needed = max(needed, given[k])
    whole = tuple(op for order in orders for op in order)
    return Order(whole, max(given, default=0), optimal)


def _spans(steps: Sequence[Step], buffers: int) -> list[tuple[int, int]]:
    """Per buffer, the first and the last op that touch it."""
    first, last = [len(steps)] * buffers, [-1] * buffers
    for k, step in enumerate(steps):
        for b in step.touches:
            first[b] = min(first[b], k)
            last[b] = k
    return list(zip(first, last, strict=True))


def _bases(sizes: Sequence[int], spans: Sequence[tuple[int, int]], sections: Sequence[_Section]) -> list[int]:
    """Per section, the bytes that live through it without its touching them."""
    at = [0] * (len(sections) + 1)
    place = {op: k for k, section in enumerate(sections) for op in section.ops}
    for size, (first, last) in zip(sizes, spans, strict=True):
        if last >= 0:
            at[place[first]] += size
            at[place[last] + 1] -= size
    alive, bases = 0, []
    for k, section in enumerate(sections):
        alive += at[k]
        bases.append(alive - sum(section.sizes))
    return bases


# -- sections ----------------------------------------------------------------------------------------------------------
def sections_of(steps: Sequence[Step]) -> list[range]:
    """The order cut behind every op that all others are before or after, whatever the order."""
    count = len(steps)
    first_user, last_needed = [count] * count, [-1] * count
    for k, step in enumerate(steps):
        for other in step.after:
            first_user[other] = min(first_user[other], k)
            last_needed[k] = max(last_needed[k], other)
    # ends[k]: ops before k that nothing before or at k waits for; starts[k]: ops behind k that wait for none from k on.
    ends, starts = [0] * (count + 1), [0] * (count + 1)
    for k in range(count):
        ends[k] += 1
        ends[first_user[k]] -= 1
        starts[last_needed[k] + 1] += 1
        starts[k] -= 1
    cuts, open_ends, open_starts = [0], 0, 0
    for k in range(count):
        open_ends += ends[k]
        open_starts += starts[k]
        if open_ends == 1 and open_starts == 0:
            cuts.append(k + 1)
    if cuts[-1] != count:
        cuts.append(count)
    return [range(a, b) for a, b in pairwise(cuts)]


class _Section:
    """A run of ops between two cuts. `base`: bytes alive all through it that it does not touch; `entering`: bytes alive
    at its start that it does."""

    def __init__(
        self, steps: Sequence[Step], sizes: Sequence[int], ops: range, spans: Sequence[tuple[int, int]]
    ) -> None:
        self.ops = ops
        self.after = [sum(1 << (o - ops.start) for o in steps[k].after if o >= ops.start) for k in ops]
        self.users: list[list[int]] = [[] for _ in ops]
        for k in ops:
            for o in steps[k].after:
                if o >= ops.start:
                    self.users[o - ops.start].append(k - ops.start)
        touched = sorted({b for k in ops for b in steps[k].touches})
        number = {b: n for n, b in enumerate(touched)}
        self.sizes = [sizes[b] for b in touched]
        self.touches = [[number[b] for b in sorted(steps[k].touches)] for k in ops]
        self.entered = [spans[b][0] < ops.start for b in touched]
        self.stays = [spans[b][1] >= ops.stop for b in touched]
        self.touchers = [0] * len(touched)
        for k, buffers in enumerate(self.touches):
            for b in buffers:
                self.touchers[b] |= 1 << k
        self.entering = sum(size for size, entered in zip(self.sizes, self.entered, strict=True) if entered)

    def new_bytes(self, op: int, done: int) -> int:
        return sum(self.sizes[b] for b in self.touches[op] if not (self.entered[b] or self.touchers[b] & done))

    def freed_bytes(self, op: int, done: int) -> int:
        left = ~(done | 1 << op)
        return sum(self.sizes[b] for b in self.touches[op] if not (self.stays[b] or self.touchers[b] & left))

    def peak(self, order: Sequence[int]) -> int:
        """Of an order of its ops, without what it does not touch."""
        alive, highest, done = self.entering, self.entering, 0
        for op in order:
            alive += self.new_bytes(op, done)
            highest = max(highest, alive)
            alive -= self.freed_bytes(op, done)
            done |= 1 << op
        return highest

    def search(self, states: int, below: int) -> tuple[list[int] | None, int, bool]:
        """An order with the lowest peak; None if none is below `below` or found in time. Also how many states were
        looked at, and whether the answer is proved."""
        ready = tuple(k for k in range(len(self.ops)) if not self.after[k])
        heap: list[tuple[int, int, int, int, int, tuple[int, ...], Any]]
        heap = [(self.entering, 0, 0, 0, self.entering, ready, None)]
        best = {0: self.entering}
        looked = pushed = 0
        while heap:
            peak, undone, _, done, alive, ready, path = heapq.heappop(heap)
            if best[done] < peak:
                continue
            if not ready:
                return _unwound(path), looked, True
            looked += 1
            if looked > states:
                return None, looked, False
            for op in self._worth_trying(ready, done, alive, peak):
                during = alive + self.new_bytes(op, done)
                following = done | 1 << op
                reached = max(peak, during)
                if reached >= best.get(following, below):
                    continue
                best[following] = reached
                pushed += 1
                more = tuple(u for u in self.users[op] if not self.after[u] & ~following)
                left = (*(r for r in ready if r != op), *more)
                entry = (reached, undone - 1, pushed, following, during - self.freed_bytes(op, done), left, (op, path))
                heapq.heappush(heap, entry)
        return None, looked, True

    def _worth_trying(self, ready: Sequence[int], done: int, alive: int, peak: int) -> Sequence[int]:
        """All that is ready; or one op alone that raises no peak and frees as much as it takes: doing it now never
        harms."""
        for op in ready:
            new = self.new_bytes(op, done)
            if alive + new <= peak and new <= self.freed_bytes(op, done):
                return (op,)
        return ready


def _unwound(path: Any) -> list[int]:
    order = []
    while path is not None:
        op, path = path
        order.append(op)
    return order[::-1]
