"""Branches and loops that the network's data decide: host ops that hold what was converted as regions.

A body is converted where it stands, at the end of the function, like everything else. What was emitted for it is then
taken out again and put into a region; values from outside become operands of the op and arguments of the region.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compiler.frontend.builder import Builder
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Argument, Constant, Op, Region, Result, Value
from compiler.ir.printer import type_text
from compiler.ir.types import DType, TensorType
from compiler.ops import graph
from compiler.ops.tensor import Reshape

FIXED = "export it with tensors of one type and rank, or run this part in the host program"
HOST_LOOP = "run the loop in the host program"
LONGEST_LOOP = 1024
"""Rounds of a loop that are unrolled."""

MOST_TRIPS = (1 << 63) - 1
TRIES = 3
"""How often a loop's body is converted anew with wider types of what it carries."""


class Body:
    """Part of a graph being converted into a region: what is emitted after its start belongs to it."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.region = Region()
        self.last = builder.function.body.last
        self.captured: list[Value] = []
        self.results: list[Value] = []
        self._is_out = False

    def _emitted(self) -> list[Op]:
        body = self.builder.function.body
        op = self.last.next if self.last is not None else body.first
        found = []
        while op is not None:
            found.append(op)
            op = op.next
        return found

    def take_out(self) -> None:
        """Take what was emitted into the region."""
        self.builder.name_results(self.last.next if self.last is not None else self.builder.function.body.first)
        for op in self._emitted():
            self.region.block.append(op.detach())
        self._is_out = True

    def put_back(self) -> None:
        """Emit what was taken out once more: it is no region after all."""
        for op in list(self.region.block):
            self.builder.function.body.append(op.detach())

    def close(self, outputs: Sequence[Any]) -> None:
        """Make the region give `outputs`; what nothing of it takes is left out."""
        if not all(isinstance(v, Value) for v in outputs):
            raise Unsupported("gives a sequence", FIXED)
        if not self._is_out:
            self.take_out()
        self.results = [self.builder.registered(v) for v in outputs]  # type: ignore[misc]
        for op in reversed(self.region.block):
            if not any(r.uses or r in self.results for r in op.results):
                op.erase()
        used = [*(v for op in self.region.block for v in op.inputs), *self.results]
        self.captured = [v for v in dict.fromkeys(used) if not isinstance(v, Constant) and not self._inside(v)]

    def _inside(self, value: Value) -> bool:
        if isinstance(value, Result):
            return value.op.block is self.region.block
        return isinstance(value, Argument) and value.block is self.region.block

    def take(self, captured: Sequence[Value]) -> None:
        """Give the region an argument for each of `captured` and end it."""
        block = self.region.block
        inside = set(block)
        replaced: dict[Value, Value] = {}
        for value in captured:
            argument = block.add_argument(value.type, self.builder.fresh_name(f"{value.name}.inside"))
            value.replace_uses_if(argument, lambda user: user in inside)
            replaced[value] = argument
        block.append(graph.Yield(*(replaced.get(v, v) for v in self.results)))

    def discard(self) -> None:
        """Erase what was emitted."""
        for op in reversed(self.region.block if self._is_out else self._emitted()):
            self.builder.release(*(r.name for r in op.results))
            op.erase()


def common_type(a: TensorType, b: TensorType) -> TensorType:
    """The type of a value that is of one of two types. Raises Unsupported where they differ in more than dimensions."""
    if a.dtype is not b.dtype or a.rank != b.rank or a.quant != b.quant:
        raise Unsupported(f"gives {type_text(a)} or {type_text(b)}, as the network's data decide", FIXED)
    return TensorType(tuple(d if d == e else None for d, e in zip(a.shape, b.shape, strict=True)), a.dtype, a.quant)


def scalar(builder: Builder, value: Value, dtype: DType) -> Value:
    """A number or truth value of one element, of rank 0."""
    if value.type.dtype is not dtype:
        raise Malformed(f"takes {type_text(value.type)} where a single {dtype} belongs")
    if value.type.rank:
        value = builder.emit(Reshape, value, shape=())[0]
    return builder.registered(value)  # type: ignore[return-value]


def choice(builder: Builder, condition: Value, then: Body, other: Body) -> list[Value]:
    """What one of two closed bodies gives, the condition choosing when the model runs."""
    if len(then.results) != len(other.results):
        raise Malformed("its branches differ in their number of outputs")
    types = [common_type(a.type, b.type) for a, b in zip(then.results, other.results, strict=True)]
    captured = list(dict.fromkeys([*then.captured, *other.captured]))
    for body in (then, other):
        body.take(captured)
    regions = [then.region, other.region]
    return builder.append(graph.If, scalar(builder, condition, DType.BOOL), *captured, types=types, regions=regions)


class Loop:
    """A body in a region, run as often as the data say.

    `number`, `going` and `carried` stand for the round's number, true, and what the round before left; the body is
    converted with them. Carried values whose shape changes from round to round take another try, with open dimensions:
    `close` then says False, and another `Loop` of `types` is to be tried.
    """

    def __init__(
        self, builder: Builder, initial: Sequence[Value], names: Sequence[str],
        types: Sequence[TensorType] | None = None, tries: int = TRIES,
    ) -> None:  # fmt: skip
        self.builder = builder
        self.initial = [builder.registered(v) for v in initial]
        self.types = list(types or [v.type for v in initial])
        self.names = list(names)
        self.tries = tries
        self.body = Body(builder)
        taken = [TensorType((), DType.I64), TensorType((), DType.BOOL), *self.types]
        self.number, self.going, *self.carried = (
            self.body.region.block.add_argument(t, builder.fresh_name(f"{name}.round"))
            for t, name in zip(taken, names, strict=True)
        )

    def again(self) -> Loop:
        """The next try."""
        return Loop(self.builder, self.initial, self.names, self.types, self.tries - 1)  # type: ignore[arg-type]

    def close(self, going: Value, outputs: Sequence[Value]) -> bool:
        """End the body: whether to go on, what it carries, and what is stacked over the rounds."""
        wider = [common_type(t, v.type) for t, v in zip(self.types, outputs, strict=False)]
        if wider == self.types:
            self.body.close([scalar(self.builder, going, DType.BOOL), *outputs])
            self.body.take(self.body.captured)
            return True
        self.discard()
        if not self.tries:
            raise Unsupported("carries values whose type never settles", FIXED)
        self.types = wider
        return False

    def discard(self) -> None:
        """Give the body up."""
        self.body.discard()
        self.builder.release(*(a.name for a in self.body.region.block.arguments))

    def results(self, trips: Value | None, condition: Value | None) -> list[Value]:
        """What the loop gives: at most `trips` rounds, none where the condition does not hold."""
        known = self.builder.constant
        heads = [
            scalar(self.builder, trips if trips is not None else known(MOST_TRIPS), DType.I64),
            scalar(self.builder, condition if condition is not None else known(True), DType.BOOL),
        ]
        stacked = [v.type.with_shape((None, *v.type.shape)) for v in self.body.results[len(self.types) + 1 :]]
        return self.builder.append(
            graph.Loop, *heads, *self.initial, *self.body.captured, carried=len(self.types),
            types=[*self.types, *stacked], regions=[self.body.region],
        )  # fmt: skip
