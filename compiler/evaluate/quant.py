"""Evaluators of the `quant.` ops: single fp32 operations in a fixed order, so they fold."""

from __future__ import annotations

import numpy as np

from compiler.evaluate.registry import evaluator, scales_of, steps_of
from compiler.ir.core import Op
from compiler.ir.types import QuantType


def to_units(op: Op, x: np.ndarray, quant: QuantType) -> np.ndarray:
    """x in steps of `quant`, before rounding: x / step where the model gave a step, else x * scale * 2^-position."""
    x = x.astype(np.float32, copy=False)
    if quant.step is not None and quant.axis is None:
        return x / np.float32(quant.step)
    scaled = x if quant.axis is None and quant.scale == 1.0 else x * scales_of(op, quant, x.ndim)
    return np.ldexp(scaled, np.int32(-quant.position))


@evaluator("quant.quantize", folds=True)
def quantize(op: Op, x: np.ndarray) -> np.ndarray:
    """Rounds to nearest even, adds the zero point, clamps; all before the conversion, so that nothing overflows."""
    quant = op.results[0].type.quant
    assert quant is not None
    limits = np.iinfo(quant.storage.numpy)
    units = to_units(op, x, quant)
    rounded = np.rint(np.where(np.isnan(units), np.float32(0), units)).astype(np.float64)
    return np.clip(rounded + quant.zero_point, limits.min, limits.max).astype(quant.storage.numpy)


@evaluator("quant.dequantize", folds=True)
def dequantize(op: Op, x: np.ndarray) -> np.ndarray:
    """The difference to the zero point is exact in i64, rounded to f32 once, then one product."""
    quant = op.inputs[0].type.quant
    assert quant is not None
    integers = x if quant.zero_point == 0 else x.astype(np.int64) - quant.zero_point
    return integers.astype(np.float32) * steps_of(op, quant, x.ndim)
