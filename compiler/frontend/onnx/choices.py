"""Branches and loops that the network's data decide: host ops that hold the converted graphs as regions.

A graph is converted where it stands, at the end of the function, like any graph that stands for a node. What was
emitted for it is then taken out again and put into a region; values from outside become operands of the op and
arguments of the region.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from compiler.frontend.builder import Builder
from compiler.frontend.onnx.node import Inline, Node
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Argument, Constant, Op, Region, Result, Value
from compiler.ir.types import DType, TensorType
from compiler.ops import graph
from compiler.ops.tensor import Reshape

FIXED = "export it with tensors of one type and rank, or run this part in the host program"
MOST_TRIPS = (1 << 63) - 1


class Body:
    """A graph being converted into a region: what is emitted after its start belongs to it."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.region = Region()
        self.last = builder.function.body.last
        self.captured: list[Value] = []
        self.results: list[Value] = []

    def _emitted(self) -> list[Op]:
        body = self.builder.function.body
        op = self.last.next if self.last is not None else body.first
        found = []
        while op is not None:
            found.append(op)
            op = op.next
        return found

    def close(self, outputs: Sequence[Any]) -> None:
        """Take what was emitted into the region, which gives `outputs`."""
        if not all(isinstance(v, Value) for v in outputs):
            raise Unsupported("gives a sequence", FIXED)
        ops = self._emitted()
        if any(op.regions for op in ops):
            raise Unsupported("holds another branch or loop that depends on the network's data", FIXED)
        self.results = [self.builder.registered(v) for v in outputs]  # type: ignore[misc]
        for op in ops:
            self.region.block.append(op.detach())
        self.builder.name_results(self.region.block.first)
        used = [*(v for op in ops for v in op.inputs), *self.results]
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
        for op in reversed(self._emitted()):
            op.erase()


def common_type(a: TensorType, b: TensorType) -> TensorType:
    """The type of a value that is of one of two types. Raises Unsupported where they differ in more than dimensions."""
    if a.dtype is not b.dtype or a.rank != b.rank or a.quant != b.quant:
        raise Unsupported(f"gives {a} or {b}, as the network's data decide", FIXED)
    return TensorType(tuple(d if d == e else None for d, e in zip(a.shape, b.shape, strict=True)), a.dtype, a.quant)


def scalar(n: Node, value: Value, dtype: DType) -> Value:
    """A number or truth value of one element, of rank 0."""
    if value.type.dtype is not dtype:
        raise Malformed(f"takes {value.type} where a single {dtype} belongs")
    if value.type.rank:
        value = n.emit(Reshape, value, shape=())
    return n.builder.registered(value)  # type: ignore[return-value]


def _named(n: Node, op: Op) -> list[Value]:
    """The results of a new op, those that nobody asked for with names of their own."""
    n.builder.function.body.append(op)
    for index, result in enumerate(op.results):
        if not n.has_output(index):
            result.name = n.builder.fresh_name(f"{n.proto.op_type.lower()}.unused")
    return list(op.results)


# -- If ----------------------------------------------------------------------------------------------------------------
def chosen(n: Node, then: onnx.GraphProto, other: onnx.GraphProto) -> Inline:
    """Both branches in regions, the condition choosing when the model runs."""
    condition = scalar(n, n.input(0), DType.BOOL)
    first = Body(n.builder)

    def after_first(outputs: list[Any]) -> Inline:
        first.close(outputs)
        second = Body(n.builder)

        def after_second(outputs: list[Any]) -> list[Value]:
            second.close(outputs)
            if len(first.results) != len(second.results):
                raise Malformed("its branches differ in their number of outputs")
            pairs = zip(first.results, second.results, strict=True)
            types = [common_type(a.type, b.type) for a, b in pairs]
            captured = list(dict.fromkeys([*first.captured, *second.captured]))
            for body in (first, second):
                body.take(captured)
            regions = [first.region, second.region]
            return _named(n, graph.If(condition, *captured, types=types, regions=regions, location=n.builder.location))

        return Inline(other.node, [o.name for o in other.output], initializers=other.initializer, then=after_second)

    return Inline(then.node, [o.name for o in then.output], initializers=then.initializer, then=after_first)


# -- Loop --------------------------------------------------------------------------------------------------------------
def repeated(n: Node, body: onnx.GraphProto, types: Sequence[TensorType] | None = None, tries: int = 3) -> Inline:
    """The body in a region, run as often as the data say. Carried values whose shape changes from round to round get
    types with open dimensions, which takes another try."""
    initial = [n.builder.registered(n.input(i)) for i in range(2, len(n.inputs))]
    types = list(types or [v.type for v in initial])  # type: ignore[union-attr]
    trips = n.optional(0) if n.optional(0) is not None else n.constant(MOST_TRIPS, DType.I64)
    condition = n.optional(1) if n.optional(1) is not None else n.constant(True)
    heads = [scalar(n, trips, DType.I64), scalar(n, condition, DType.BOOL)]  # type: ignore[arg-type]
    made = Body(n.builder)
    names = [i.name for i in body.input]
    if len(names) != len(types) + 2:
        raise Malformed(f"gives its body {len(types) + 2} values, the body takes {len(names)}")
    taken = [TensorType((), DType.I64), TensorType((), DType.BOOL), *types]
    arguments = [
        made.region.block.add_argument(t, n.builder.fresh_name(f"{name}.round"))
        for t, name in zip(taken, names, strict=True)
    ]

    def after(outputs: list[Any]) -> Any:
        if len(outputs) < len(types) + 1 or not all(isinstance(v, Value) for v in outputs):
            raise Malformed("its body gives fewer values than it carries")
        wider = [common_type(t, v.type) for t, v in zip(types, outputs[1:], strict=False)]
        if wider != types:
            made.discard()
            if not tries:
                raise Unsupported("carries values whose type never settles", FIXED)
            return repeated(n, body, wider, tries - 1)
        going = scalar(n, outputs[0], DType.BOOL)
        made.close([going, *outputs[1:]])
        made.take(made.captured)
        scanned = [v.type.with_shape((None, *v.type.shape)) for v in made.results[len(types) + 1 :]]
        op = graph.Loop(
            *heads, *initial, *made.captured, carried=len(types), types=[*types, *scanned], regions=[made.region],
            location=n.builder.location,
        )  # fmt: skip
        return _named(n, op)

    return Inline(
        body.node, [o.name for o in body.output], dict(zip(names, arguments, strict=True)), body.initializer, then=after
    )
