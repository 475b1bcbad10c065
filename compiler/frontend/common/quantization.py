"""Quantised types from the scales and zero points of a model, whichever framework wrote it."""

from __future__ import annotations

import numpy as np

from compiler.frontend.builder import Builder
from compiler.ir.types import DType, QuantType, position_and_scale


def tensor_quant(storage: DType, step: float, zero_point: int) -> QuantType:
    """The type of integers with one step (as f32, in which scales are stored) and zero point."""
    step = float(np.float32(step))
    position, scale = position_and_scale(step * ((1 << (storage.size * 8 - 1)) - 1), storage.size * 8)
    return QuantType(storage, position, scale, zero_point=zero_point, step=step)


def channel_quant(
    builder: Builder, storage: DType, steps: np.ndarray, zero_point: int, axis: int, name: str
) -> QuantType:
    """The type of integers with one step per index of `axis`; the scales become constant `name` of the module."""
    position, _ = position_and_scale(float(steps.max()) * ((1 << (storage.size * 8 - 1)) - 1), storage.size * 8)
    params = builder.module.add_constant(builder.fresh_name(name), channel_scales(steps, position))
    return QuantType(storage, position, axis=axis, params=params.name, zero_point=zero_point)


def channel_scales(steps: np.ndarray, position: int) -> np.ndarray:
    """The scales that stand for steps where the position is given."""
    return np.divide(np.ldexp(1.0, position), steps.astype(np.float64)).astype(np.float32)
