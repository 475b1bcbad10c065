"""The `quant.` ops: the only places where reals become stored integers and back. A quantised value is its raw
integers.
"""

from __future__ import annotations

from collections.abc import Iterator

from compiler.ir.core import Op
from compiler.ir.define import op, operand, result
from compiler.ir.types import DType, TensorType
from compiler.ops.shapes import FLOATS, STORED, same


@op("quant.quantize")
class Quantize(Op):
    """Reals to integers: round(x / step) + zero_point, ties to even, clamped to the storage type; NaN gives the zero
    point.

    The result's type carries the quantisation and must be given (`types=`). Where it has no explicit step the division
    is the chip's: x * scale in f32, then an exact shift by the position.
    """

    x = operand(dtypes=FLOATS)
    y = result()

    def check(self) -> Iterator[str]:
        for r in self.results:
            if r.type.quant is None:
                yield f"result must be of a quantised type, not {r.type.dtype}"
            elif r.type.dtype not in STORED:
                yield f"{r.type.dtype} cannot store quantised values"
            if len(r.type.shape) != self.x.type.rank or not all(map(same, r.type.shape, self.x.type.shape)):
                yield f"result shape {r.type.shape} differs from x's {self.x.type.shape}"


@op("quant.dequantize")
class Dequantize(Op):
    """Integers to the reals they stand for: (x - zero_point) as f32, times step. Result f32."""

    x = operand()
    y = result()

    def check(self) -> Iterator[str]:
        if self.x.type.quant is None:
            yield "x is not quantised"

    def infer(self) -> TensorType:
        return self.x.type.with_dtype(DType.F32)
