"""Converters of reductions over axes."""

from __future__ import annotations

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


@converter(*REDUCTIONS)
def reduction(n: Node) -> Value:
    """Axes are an attribute in older opsets and an input in newer ones; none means all, or nothing by request."""
    x = n.input(0)
    axes = n.axes_attribute_or_input(1) or ()
    if not axes and n.attribute("noop_with_empty_axes", 0):
        return x
    keepdims = bool(n.attribute("keepdims", 1))
    if x.type.rank == 0:
        return x
    attributes = {"axes": tuple(a % x.type.rank for a in axes), "keepdims": keepdims}
    if x.type.dtype is not DType.BOOL:
        return n.emit(REDUCTIONS[n.proto.op_type], x, **attributes)
    y = n.emit(REDUCTIONS[n.proto.op_type], n.emit(Cast, x, to=DType.U8), **attributes)
    return n.emit(Cast, y, to=DType.BOOL)


@converter(*ARG_REDUCTIONS)
def arg_reduction(n: Node) -> Value:
    return n.emit(
        ARG_REDUCTIONS[n.proto.op_type], n.input(0), axis=n.attribute("axis", 0),
        keepdims=bool(n.attribute("keepdims", 1)), select_last=bool(n.attribute("select_last_index", 0)),
    )  # fmt: skip
