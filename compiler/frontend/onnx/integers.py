"""What operators see of quantised tensors that are not dequantised first.

A tensor from QuantizeLinear has a quantised type, by which our ops mean the reals it stands for; ONNX's operators mean
the integers. To move elements about, or to choose among them, is the same in both. For every other operator the
integers are made plain.
"""

from __future__ import annotations

from compiler.frontend.onnx.node import Node, SequenceValue
from compiler.frontend.records import Unsupported
from compiler.ir.core import Value
from compiler.ir.types import DType
from compiler.ops import math, quant

INTEGERS_OF_A_SCALE = frozenset({
    "DequantizeLinear", "QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "QLinearSigmoid",
    "QLinearLeakyRelu", "QLinearSoftmax", "QLinearWhere", "QLinearConcat", "QLinearAveragePool",
    "QLinearGlobalAveragePool", "QGemm",
})  # fmt: skip
"""Operators that are told scales and zero points beside the integers."""

WHATEVER = frozenset({
    "Identity", "Optional", "OptionalGetElement", "OptionalHasElement", "If", "Loop", "Scan", "SequenceConstruct",
    "SequenceInsert", "Shape", "Size",
})  # fmt: skip
"""Operators that do not look at elements."""

MOVES = frozenset({
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "SplitToSequence", "Gather",
    "GatherElements", "GatherND", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Pad", "MaxPool", "GlobalMaxPool",
    "ReduceMax", "ReduceMin", "ArgMax", "ArgMin", "Compress", "ReverseSequence",
})  # fmt: skip
"""Operators that move elements of their first input, or choose among them."""


def plain_where_meant(n: Node) -> None:
    """Make inputs of a node plain integers where its operator means them."""
    quantised = [i for i, v in enumerate(n.inputs) if isinstance(v, Value) and v.type.quant is not None]
    if not quantised or _takes_types(n, quantised):
        return
    for index in quantised:
        n.inputs[index] = plain(n, n.inputs[index])


def _takes_types(n: Node, quantised: list[int]) -> bool:
    operator = n.proto.op_type
    if operator in INTEGERS_OF_A_SCALE or operator in WHATEVER:
        return True
    first = n.inputs[0]
    if operator == "Concat":
        return all(not isinstance(v, SequenceValue) and v.type.quant == first.type.quant for v in n.inputs)
    if quantised != [0]:
        return False
    if operator == "Relu":
        return first.type.quant.zero_point == 0
    if operator in ("Resize", "Upsample"):
        region = n.attribute("coordinate_transformation_mode", "") == "tf_crop_and_resize"
        return n.attribute("mode", "nearest") == "nearest" and not region
    return operator in MOVES and not (operator == "MaxPool" and n.has_output(1))


def plain(n: Node, x: Value) -> Value:
    """The integers of a quantised value with one scale, which is exact for up to 16 bits."""
    held = x.type.quant
    assert held is not None
    if held.axis is not None:
        raise Unsupported("takes integers that have a scale per channel", "dequantise them before this operator")
    steps = n.emit(math.Round, n.emit(math.Div, n.emit(quant.Dequantize, x), n.constant(held.real_step, DType.F32)))
    if held.zero_point:
        steps = n.emit(math.Add, steps, n.constant(held.zero_point, DType.F32))
    return n.emit(math.Cast, steps, to=held.storage)
