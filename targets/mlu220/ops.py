"""The `mlu.` ops: what the chip can do, NHWC, typed by the chip's rules, each with its evaluator, boxes and
instructions.

Found by prefix: loading this module declares the whole family.
"""

from targets.mlu220.op_base import FILTERS, TAPS, VECTOR, MluOp
from targets.mlu220.op_matrix import Conv2d, Matmul
from targets.mlu220.op_move import Concat, Copy, Pad, Reshape, Slice, StorageCast, Transpose
from targets.mlu220.op_pick import Interleave, Interpolate, Take, Widen
from targets.mlu220.op_vector import BINARY_OPS, UNARY_OPS, Convert, DepthwiseConv2d, Pool, Reduce

__all__ = [
    "BINARY_OPS", "FILTERS", "TAPS", "UNARY_OPS", "VECTOR", "Concat", "Conv2d", "Convert", "Copy", "DepthwiseConv2d",
    "Interleave", "Interpolate", "Matmul", "MluOp", "Pad", "Pool", "Reduce", "Reshape", "Slice", "StorageCast", "Take",
    "Transpose", "Widen",
]  # fmt: skip
