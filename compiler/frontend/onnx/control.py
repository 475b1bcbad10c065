"""Converters of what is decided at import: constants, shape arithmetic, and control flow with known conditions."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx

from compiler.frontend.onnx import reader
from compiler.frontend.onnx.builder import GROWTH_LIMIT
from compiler.frontend.onnx.node import Inline, Malformed, Node, Unsupported
from compiler.frontend.onnx.registry import converter
from compiler.ir.core import Constant, Value
from compiler.ir.types import DType
from compiler.ops import tensor

LONGEST_LOOP = 1024
"""Rounds of a loop that are unrolled."""


@converter("Identity")
def identity(n: Node) -> Value:
    return n.input(0)


@converter("Constant")
def constant(n: Node) -> Value:
    if n.has("value"):
        return n.constant(n.attribute("value"))
    for name, dtype in (("value_float", DType.F32), ("value_floats", DType.F32), ("value_int", DType.I64),
                        ("value_ints", DType.I64)):  # fmt: skip
        if n.has(name):
            return n.constant(n.attribute(name), dtype)
    kind = n.proto.attribute[0].name if n.proto.attribute else "no value"
    raise Unsupported(f"holds {kind}, which is not supported", "use dense tensors of numbers or booleans")


@converter("ConstantOfShape")
def constant_of_shape(n: Node) -> Value:
    shape = n.ints(0, "the shape")
    value = np.asarray(n.attribute("value", np.zeros(1, np.float32))).reshape(-1)[0]
    if prod(shape) <= GROWTH_LIMIT:
        return n.constant(np.full(shape, value))
    return n.emit(tensor.BroadcastTo, n.constant(value), shape=shape)


@converter("Shape")
def shape(n: Node) -> Value:
    found = n.shape()[n.attribute("start", 0) : n.attribute("end", None)]
    return n.constant(found, DType.I64)


@converter("Size")
def size(n: Node) -> Value:
    return n.constant(prod(n.shape()), DType.I64)


@converter("Range")
def range_node(n: Node) -> Value:
    start, limit, delta = (n.array(i, what) for i, what in enumerate(("start", "limit", "delta")))
    count = max(int(np.ceil((limit.item() - start.item()) / delta.item())), 0)
    return n.constant((start.reshape(()) + np.arange(count) * delta.reshape(())).astype(start.dtype))


@converter("EyeLike")
def eye_like(n: Node) -> Value:
    rows, columns = n.shape()
    code = n.attribute("dtype")
    dtype = n.input(0).type.dtype if code is None else reader.dtype_of(code)
    if dtype is None:
        raise Unsupported(f"makes {reader.dtype_name(code)}", "use a float, integer or boolean type")
    return n.constant(np.eye(rows, columns, n.attribute("k", 0), reader.widened(dtype).numpy))


# -- control flow ------------------------------------------------------------------------------------------------------
@converter("If")
def if_node(n: Node) -> Inline:
    """The branch a known condition chooses."""
    n.ignore("then_branch", "else_branch")
    if n.known(0) is None:
        raise Unsupported(
            "its condition depends on the network's data",
            "export without data-dependent branches, or bind the input that decides (--bind NAME=VALUE)",
        )
    graph = n.required("then_branch" if n.array(0, "the condition").reshape(-1)[0] else "else_branch")
    return Inline(graph.node, [o.name for o in graph.output], initializers=graph.initializer)


@converter("Loop")
def loop(n: Node) -> Any:
    """A loop whose rounds are known at import, unrolled."""
    n.ignore("body", *range(2, len(n.inputs)))
    trips, condition = n.known(0), n.known(1)
    unknown = (n.optional(0) is not None and trips is None) or (n.optional(1) is not None and condition is None)
    if unknown or (trips is None and condition is None):
        raise Unsupported(
            "its number of rounds is not known at import",
            "export the network with a fixed number of rounds, or run the loop in the host program",
        )
    limit = int(trips.reshape(-1)[0]) if trips is not None else None
    alive = condition is None or bool(condition.reshape(-1)[0])
    return _Unrolling(n, n.required("body"), limit).next_round(0, alive, list(n.inputs[2:]), [])


class _Unrolling:
    """The state of a loop that is being unrolled."""

    def __init__(self, node: Node, body: onnx.GraphProto, limit: int | None) -> None:
        self.node = node
        self.body = body
        self.limit = limit

    def next_round(self, number: int, alive: bool, carried: list[Any], collected: list[list[Any]]) -> Any:
        """One more round as an `Inline`, or the loop's results."""
        if not alive or (self.limit is not None and number >= self.limit):
            return [*carried, *self._stacked(collected)]
        if number >= LONGEST_LOOP:
            raise Unsupported(f"has more than {LONGEST_LOOP} rounds", "run the loop in the host program")
        names = [i.name for i in self.body.input]
        if len(names) != len(carried) + 2:
            raise Malformed(f"the loop carries {len(carried)} values, its body takes {len(names) - 2}")
        values = [self.node.constant(number, DType.I64), self.node.constant(True), *carried]

        def then(outputs: list[Any]) -> Any:
            if not isinstance(outputs[0], Constant):
                raise Unsupported("its condition depends on the network's data", "export it with a fixed trip count")
            state, scanned = outputs[1 : 1 + len(carried)], outputs[1 + len(carried) :]
            return self.next_round(number + 1, bool(outputs[0].data.reshape(-1)[0]), state, [*collected, scanned])

        return Inline(
            self.body.node, [o.name for o in self.body.output], dict(zip(names, values, strict=True)),
            self.body.initializer, then=then,
        )  # fmt: skip

    def _stacked(self, collected: list[list[Any]]) -> list[Any]:
        """Per-round outputs joined along a new leading axis."""
        if not collected:
            if any(self.node.has_output(i) for i in range(len(self.body.input) - 2, len(self.node.proto.output))):
                raise Unsupported("runs no round but gives per-round outputs", "remove the loop from the model")
            return []
        rounds = [
            [self.node.emit(tensor.Reshape, v, shape=(1, *v.type.static_shape)) for v in values]
            for values in zip(*collected, strict=True)
        ]
        return [r[0] if len(r) == 1 else self.node.emit(tensor.Concat, *r, axis=0) for r in rounds]
