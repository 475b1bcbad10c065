"""Converters of what is decided at import: constants, shape arithmetic, and branches. Loops are in `loops`."""

from __future__ import annotations

from math import prod

import numpy as np

from compiler.frontend.builder import GROWTH_LIMIT
from compiler.frontend.common.emitter import reshape
from compiler.frontend.onnx import dynamic, reader
from compiler.frontend.onnx.choices import chosen
from compiler.frontend.onnx.node import Inline, Node, SequenceValue
from compiler.frontend.onnx.registry import converter
from compiler.frontend.records import Unsupported
from compiler.ir.core import Constant, Value
from compiler.ir.types import DType
from compiler.ops import reduce, selection, tensor


@converter("Identity", "Optional", "OptionalGetElement")
def identity(n: Node) -> Value | SequenceValue:
    """Optionals are what is in them: one that holds nothing is not supported."""
    if not n.inputs:
        raise Unsupported("holds nothing", "export the network with tensors in its place")
    n.ignore("type")
    return n.value_or_sequence(0)


@converter("OptionalHasElement")
def has_element(n: Node) -> Value:
    n.ignore(0)
    return n.constant(bool(n.inputs) and n.inputs[0] is not None)


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
    value = np.asarray(n.attribute("value", np.zeros(1, np.float32))).reshape(-1)[0]
    wanted = dynamic.settled(n, dynamic.vector(n, 0))
    if not isinstance(wanted, Constant):
        return dynamic.expanded(n, n.constant(value), wanted)
    shape = tuple(int(d) for d in wanted.data)
    if prod(shape) <= GROWTH_LIMIT:
        return n.constant(np.full(shape, value))
    return n.emit(tensor.BroadcastTo, n.constant(value), shape=shape)


@converter("Shape")
def shape(n: Node) -> Value:
    x, cut = n.input(0), slice(n.attribute("start", 0), n.attribute("end", None))
    if None not in x.type.shape[cut]:
        return n.constant(x.type.shape[cut], DType.I64)
    whole = n.emit(selection.ShapeOf, x)
    start, end, _ = cut.indices(x.type.rank)
    if (start, end) == (0, x.type.rank):
        return whole
    return n.emit(tensor.Slice, whole, starts=(start,), sizes=(max(end - start, 0),))


@converter("Size")
def size(n: Node) -> Value:
    if not n.input(0).type.is_static:
        return n.emit(reduce.Prod, n.emit(selection.ShapeOf, n.input(0)), axes=(0,), keepdims=False)
    return n.constant(prod(n.shape()), DType.I64)


@converter("Range")
def range_node(n: Node) -> Value:
    if any(n.known(i) is None for i in range(3)):
        return n.emit(selection.Range, *(reshape(n, n.input(i), ()) for i in range(3)))
    start, limit, delta = (n.array(i, what) for i, what in enumerate(("start", "limit", "delta")))
    count = max(int(np.ceil((limit.item() - start.item()) / delta.item())), 0)
    n.room_for(count, "a range")
    return n.constant((start.reshape(()) + np.arange(count) * delta.reshape(())).astype(start.dtype))


@converter("EyeLike")
def eye_like(n: Node) -> Value:
    rows, columns = n.shape()
    n.room_for(rows * columns, "a matrix")
    code = n.attribute("dtype")
    dtype = n.input(0).type.dtype if code is None else reader.dtype_of(code)
    if dtype is None:
        raise Unsupported(f"makes {reader.dtype_name(code)}", "use a float, integer or boolean type")
    return n.constant(np.eye(rows, columns, n.attribute("k", 0), reader.widened(dtype).numpy))


# -- control flow ------------------------------------------------------------------------------------------------------
@converter("If")
def if_node(n: Node) -> Inline:
    """The branch a known condition chooses; or both, as regions of an op that runs on the host."""
    n.ignore("then_branch", "else_branch")
    if n.known(0) is None:
        return chosen(n, n.graph("then_branch"), n.graph("else_branch"))
    graph = n.graph("then_branch" if n.array(0, "the condition").reshape(-1)[0] else "else_branch")
    return Inline(graph.node, [o.name for o in graph.output], initializers=graph.initializer)
