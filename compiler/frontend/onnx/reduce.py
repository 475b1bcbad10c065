"""Converters of reductions over axes."""

from __future__ import annotations

from compiler.frontend.common.emitter import normal_axis, reshape
from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.registry import converter
from compiler.ir.core import Op, Value
from compiler.ir.types import DType
from compiler.ops import reduce
from compiler.ops.math import Cast

REDUCTIONS: dict[str, type[Op]] = {
    "ReduceSum": reduce.Sum, "ReduceMean": reduce.Mean, "ReduceMax": reduce.Max, "ReduceMin": reduce.Min,
    "ReduceProd": reduce.Prod, "ReduceL1": reduce.L1, "ReduceL2": reduce.L2, "ReduceSumSquare": reduce.SumSquare,
    "ReduceLogSum": reduce.LogSum, "ReduceLogSumExp": reduce.LogSumExp,
}  # fmt: skip

ARG_REDUCTIONS: dict[str, type[Op]] = {"ArgMax": reduce.ArgMax, "ArgMin": reduce.ArgMin}


UNCHANGED = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")
"""Reductions that give a single element as it is."""


@converter(*REDUCTIONS)
def reduction(n: Node) -> Value:
    """Axes are an attribute in older opsets and an input in newer ones; none means all, or none by request."""
    x, keepdims = n.input(0), bool(n.attribute("keepdims", 1))
    rank = x.type.rank
    axes = tuple(normal_axis(a, rank) for a in n.axes_attribute_or_input(1) or ())
    by_request = bool(n.attribute("noop_with_empty_axes", 0))
    if axes or (rank and not by_request):
        return _reduced(n, x, axes, keepdims)
    if n.proto.op_type in UNCHANGED:
        return x
    return _reduced(n, reshape(n, x, (*x.type.static_shape, 1)), (rank,), False)


def _reduced(n: Node, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    """The node's reduction; of truth values by way of integers, and of integers by way of reals where roots or
    logarithms are taken."""
    op_class, dtype = REDUCTIONS[n.proto.op_type], x.type.dtype
    if dtype is DType.BOOL:
        x = n.emit(Cast, x, to=DType.U8)
    elif not dtype.is_float and issubclass(op_class, reduce.FloatReduction):
        x = n.emit(Cast, x, to=DType.F32)
    y = n.emit(op_class, x, axes=axes, keepdims=keepdims)
    return y if y.type.dtype is dtype else n.emit(Cast, y, to=dtype)


@converter(*ARG_REDUCTIONS)
def arg_reduction(n: Node) -> Value:
    return n.emit(
        ARG_REDUCTIONS[n.proto.op_type], n.input(0), axis=n.attribute("axis", 0),
        keepdims=bool(n.attribute("keepdims", 1)), select_last=bool(n.attribute("select_last_index", 0)),
    )  # fmt: skip
