"""Ops that are one ONNX node of the same meaning: a table of names, and of attributes that go by another name."""

from __future__ import annotations

from typing import Any

from compiler.export.graph import ROWS, Graph

SAME = {
    "nn.relu": "Relu", "nn.sigmoid": "Sigmoid", "nn.softplus": "Softplus", "nn.softsign": "Softsign",
    "nn.mish": "Mish", "nn.hard_swish": "HardSwish", "nn.prelu": "PRelu", "nn.global_avg_pool": "GlobalAveragePool",
    "nn.global_max_pool": "GlobalMaxPool", "nn.matmul": "MatMul",
    "math.add": "Add", "math.sub": "Sub", "math.mul": "Mul", "math.div": "Div", "math.pow": "Pow",
    "math.maximum": "Max", "math.minimum": "Min", "math.equal": "Equal", "math.less": "Less",
    "math.less_equal": "LessOrEqual", "math.greater": "Greater", "math.greater_equal": "GreaterOrEqual",
    "math.and": "And", "math.or": "Or", "math.xor": "Xor", "math.not": "Not",
    "math.bitwise_and": "BitwiseAnd", "math.bitwise_or": "BitwiseOr", "math.bitwise_xor": "BitwiseXor",
    "math.bitwise_not": "BitwiseNot", "math.where": "Where", "math.neg": "Neg", "math.abs": "Abs",
    "math.sign": "Sign", "math.exp": "Exp", "math.log": "Log", "math.sqrt": "Sqrt", "math.reciprocal": "Reciprocal",
    "math.erf": "Erf", "math.tanh": "Tanh", "math.sin": "Sin", "math.cos": "Cos", "math.tan": "Tan",
    "math.asin": "Asin", "math.acos": "Acos", "math.atan": "Atan", "math.sinh": "Sinh", "math.cosh": "Cosh",
    "math.asinh": "Asinh", "math.acosh": "Acosh", "math.atanh": "Atanh", "math.floor": "Floor", "math.ceil": "Ceil",
    "math.round": "Round", "math.isnan": "IsNaN", "math.isinf": "IsInf", "math.det": "Det",
    "tensor.nonzero": "NonZero", "tensor.shape_of": "Shape", "tensor.expand_as": "Expand", "tensor.range": "Range",
    "tensor.tile_as": "Tile",
}  # fmt: skip
"""Op → operator; operands in order, no attributes."""

WITH_ATTRIBUTES: dict[str, tuple[str, dict[str, str]]] = {
    "nn.leaky_relu": ("LeakyRelu", {"alpha": "alpha"}),
    "nn.elu": ("Elu", {"alpha": "alpha"}),
    "nn.selu": ("Selu", {"alpha": "alpha", "gamma": "gamma"}),
    "nn.celu": ("Celu", {"alpha": "alpha"}),
    "nn.thresholded_relu": ("ThresholdedRelu", {"alpha": "alpha"}),
    "nn.hard_sigmoid": ("HardSigmoid", {"alpha": "alpha", "beta": "beta"}),
    "nn.gelu": ("Gelu", {"approximate": "approximate"}),
    "nn.softmax": ("Softmax", {"axis": "axis"}),
    "nn.log_softmax": ("LogSoftmax", {"axis": "axis"}),
    "nn.depth_to_space": ("DepthToSpace", {"block_size": "blocksize", "mode": "mode"}),
    "nn.space_to_depth": ("SpaceToDepth", {"block_size": "blocksize"}),
    "tensor.transpose": ("Transpose", {"perm": "perm"}),
    "tensor.concat": ("Concat", {"axis": "axis"}),
    "tensor.gather": ("Gather", {"axis": "axis"}),
    "tensor.gather_elements": ("GatherElements", {"axis": "axis"}),
    "tensor.gather_nd": ("GatherND", {"batch_dims": "batch_dims"}),
    "tensor.scatter_nd": ("ScatterND", {"reduction": "reduction"}),
    "tensor.scatter_elements": ("ScatterElements", {"axis": "axis", "reduction": "reduction"}),
    "tensor.compress": ("Compress", {"axis": "axis"}),
    "tensor.unique": ("Unique", {"axis": "axis", "ordered": "sorted"}),
    "reduce.argmax": ("ArgMax", {"axis": "axis", "keepdims": "keepdims", "select_last": "select_last_index"}),
    "reduce.argmin": ("ArgMin", {"axis": "axis", "keepdims": "keepdims", "select_last": "select_last_index"}),
    "nn.grid_sample": ("GridSample", {"mode": "mode", "padding": "padding_mode", "align_corners": "align_corners"}),
}  # fmt: skip
"""Op → operator, and our attributes by theirs."""


def plain(value: Any) -> Any:
    """An attribute's value as ONNX stores it; None, which is left out, for an empty list: it has no type there."""
    if isinstance(value, bool):
        return int(value)
    return list(value) or None if isinstance(value, tuple) else value


def _one_node(graph: Graph, op: Any) -> Any:
    kind, names = WITH_ATTRIBUTES.get(op.op_name) or (SAME[op.op_name], {})
    attributes = {theirs: plain(getattr(op, ours)) for ours, theirs in names.items()}
    count = len(op.results)
    operands = (graph.get(v) for v in op.operands)
    return graph.node(kind, *operands, outputs=count, name=op.name if count == 1 else "", **attributes)


ROWS.update(dict.fromkeys([*SAME, *WITH_ATTRIBUTES], _one_node))
