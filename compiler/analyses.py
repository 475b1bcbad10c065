"""Facts about a function that passes ask for: uses by kind, liveness, dominance.

Each analysis is computed once per state of the module: the result is kept by the function, with the module's mutation
counter, and dropped as soon as that has moved. Analyses read and never change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from compiler.ir.core import Argument, Constant, Function, Op, Region, Result, Value

Facts = TypeVar("Facts")


def analysis(compute: Callable[[Function], Facts]) -> Callable[[Function], Facts]:
    """Make of `compute(function)` an analysis: cached until the function's module changes."""

    def cached(function: Function) -> Facts:
        if function.module is None:
            return compute(function)
        version = function.module.version
        entry = function.facts.get(compute)
        if entry is None or entry[0] != version:
            entry = function.facts[compute] = (version, compute(function))
        return entry[1]

    cached.__name__ = compute.__name__
    cached.__doc__ = compute.__doc__
    return cached


# -- uses --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Uses:
    """How the values of a function are used. Lists are in program order."""

    outputs: frozenset[Value]
    unused: tuple[Value, ...]
    constants: tuple[Constant, ...]

    def is_output(self, value: Value) -> bool:
        return value in self.outputs


@analysis
def uses(function: Function) -> Uses:
    """Which values the function returns, which nothing takes, and the constants it takes in order of first use."""
    unused: list[Value] = [a for a in function.arguments if not a.uses]
    constants: dict[Constant, None] = {}
    for op in function.walk():
        unused += [r for r in op.results if not r.uses]
        constants.update((v, None) for v in op.inputs if isinstance(v, Constant))
    return Uses(frozenset(function.outputs), tuple(unused), tuple(constants))


# -- liveness ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Liveness:
    """When the values of a function's own block are alive. Step i is the i-th op; constants do not count.

    `first`: step that defines a value (-1 for arguments); `last`: last step that takes it (its first if nothing does).
    """

    order: tuple[Op, ...]
    first: dict[Value, int]
    last: dict[Value, int]

    def alive(self, step: int) -> list[Value]:
        """Values that exist while step `step` runs, its operands and results included."""
        return [v for v, first in self.first.items() if first <= step <= self.last[v]]

    def dies_at(self, value: Value, op: Op) -> bool:
        """Whether nothing after `op` takes `value`."""
        return self.order[self.last[value]] is op if self.last[value] >= 0 else False

    def interfere(self, a: Value, b: Value) -> bool:
        """Whether the two are ever alive at once; an op's operands and results are."""
        return self.first[a] <= self.last[b] and self.first[b] <= self.last[a]

    def bytes_alive(self) -> list[int]:
        """Bytes alive at each step, in one walk."""
        change = [0] * (len(self.order) + 1)
        for value, first in self.first.items():
            if self.order:
                change[max(first, 0)] += value.type.bytes
                change[self.last[value] + 1] -= value.type.bytes
        totals, total = [], 0
        for step in range(len(self.order)):
            total += change[step]
            totals.append(total)
        return totals

    def peak(self) -> tuple[int, Op | None]:
        """Most bytes alive at one step, and that step's op."""
        totals = self.bytes_alive()
        if not totals:
            return 0, None
        step = max(range(len(totals)), key=totals.__getitem__)
        return totals[step], self.order[step]


@analysis
def liveness(function: Function) -> Liveness:
    """Liveness of the arguments and results of the function's own block; kernels count as one step."""
    first: dict[Value, int] = {a: -1 for a in function.arguments}
    last: dict[Value, int] = {a: 0 for a in function.arguments}
    order = tuple(function.body)
    for step, op in enumerate(order):
        for value in _taken(op):
            if value in first:
                last[value] = step
        for result in op.results:
            first[result] = last[result] = step
    return Liveness(order, first, last)


def _taken(op: Op) -> Iterator[Value]:
    yield from op.inputs
    for region in op.regions:
        for inner in region.block:
            yield from inner.inputs


# -- dominance ---------------------------------------------------------------------------------------------------------
class Dominance:
    """Whether a value is defined wherever an op runs. With one block a function: order, seen through regions."""

    def __init__(self, function: Function) -> None:
        self._order = {op: i for i, op in enumerate(function.walk())}

    def dominates(self, value: Value, op: Op) -> bool:
        """Whether `op` may take `value`. Raises KeyError for an op of another function."""
        if isinstance(value, Constant):
            return True
        if isinstance(value, Argument):
            return any(block is value.block for block in _enclosing(op))
        assert isinstance(value, Result)
        visible = any(block is value.op.block for block in _enclosing(op))
        return visible and self._order[value.op] < self._order[op] and not _inside(op, value.op)

    def latest(self, ops: list[Op]) -> Op:
        """The one of `ops` that runs last."""
        return max(ops, key=self._order.__getitem__)


@analysis
def dominance(function: Function) -> Dominance:
    """Dominance among the ops of a function, those inside kernels included."""
    return Dominance(function)


def _enclosing(op: Op) -> Iterator[Any]:
    """The block an op stands in, then the blocks around it."""
    block = op.block
    while block is not None:
        yield block
        owner = block.owner
        block = owner.op.block if isinstance(owner, Region) and owner.op is not None else None


def _inside(op: Op, outer: Op) -> bool:
    """Whether `op` is in a region of `outer`."""
    block = op.block
    while block is not None and isinstance(block.owner, Region) and block.owner.op is not None:
        if block.owner.op is outer:
            return True
        block = block.owner.op.block
    return False
