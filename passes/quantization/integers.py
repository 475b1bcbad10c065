"""Weights as integers: one position per tensor, a scale per tensor or per output channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compiler.errors import error
from compiler.ir.core import Constant
from compiler.ir.types import DType, QuantType, position_and_scale
from compiler.numerics import float_to_int
from passes.layers import replace_constant
from passes.quantization.rounding import balanced

_SMALLEST_CHANNEL = 2.0**-20
"""Channels this much below the largest are scaled as if they were not, so that their scales stay ordinary fp32 numbers.
"""

_PART = 1 << 20
"""Weights that are rounded at a time: rounding takes some hundred bytes for each."""


@dataclass(frozen=True)
class Integers:
    """Stored integers with their position, and one scale, or one per index of `axis`."""

    data: np.ndarray
    position: int
    scales: np.ndarray
    axis: int | None


def quantize_array(weights: np.ndarray, storage: DType, axis: int | None, rounding: str, outputs: int = 0) -> Integers:
    """w * scale * 2^-position as integers, symmetric (docs/mlu220.md 2.1); one scale per index of `axis` where it is
    given.

    The position is the tensor's; a channel whose weights are all zero gets scale 1. `rounding` is `nearest` (ties to
    even) or `balanced` (see `rounding`), for which `outputs` is the axis of output channels.
    """
    weights = weights.astype(np.float32)
    position, scales = _position_and_scales(weights, storage.size * 8, axis)
    shape = [1] * weights.ndim
    if axis is not None:
        shape[axis] = -1
    scaled = weights * scales.reshape(shape)
    if rounding == "balanced" and weights.ndim > 1:
        qmax = (1 << (storage.size * 8 - 1)) - 1
        data = np.empty(weights.shape, storage.numpy)
        step = max(_PART * weights.shape[outputs] // max(weights.size, 1), 1)
        for first in range(0, weights.shape[outputs], step):  # output channels do not depend on one another
            part = (slice(None),) * outputs + (slice(first, first + step),)
            data[part] = balanced(np.ldexp(scaled[part].astype(np.float64), -position), outputs, qmax)
        return Integers(data, position, scales, axis)
    return Integers(float_to_int(scaled, position, storage.numpy), position, scales, axis)


def _position_and_scales(weights: np.ndarray, bits: int, axis: int | None) -> tuple[int, np.ndarray]:
    """The tensor's position, and its scale or those along `axis`."""
    absmax = float(np.abs(weights).max(initial=0.0))
    position, scale = position_and_scale(absmax, bits)
    if axis is None or absmax == 0.0:
        return position, np.full(1 if axis is None else weights.shape[axis], scale, np.float32)
    others = tuple(i for i in range(weights.ndim) if i != axis)
    largest = np.abs(weights).max(axis=others).astype(np.float64)
    bounded = np.maximum(largest, absmax * _SMALLEST_CHANNEL)
    scales = ((1 << (bits - 1)) - 1) * 2.0**position / bounded
    return position, np.where(largest == 0.0, 1.0, scales).astype(np.float32)


def check_weights(constant: Constant) -> None:
    """Raise CompilerError E523 where weights hold NaN or infinity."""
    if not np.isfinite(constant.data).all():
        raise error(
            "E523", f"weights @{constant.name} hold NaN or infinity and cannot be quantised", op="quantize",
            help="look at the training run that made them; to go on, keep the layer float",
        )  # fmt: skip


@dataclass(frozen=True)
class WeightType:
    """How a constant is quantised: per index of `axis` or with one scale; output channels lie along `outputs`."""

    storage: DType
    axis: int | None
    outputs: int
    rounding: str


Memo = dict[tuple[str, WeightType], Integers]
"""Integers of weights by their hash, for those who quantise a network more than once."""


def convert_constant(weights: Constant, kind: WeightType, in_place: bool, memo: Memo | None = None) -> Constant:
    """The integer twin of a constant, in its place or beside it; per-channel scales go to `<name>.q`."""
    module = weights.module
    storage, axis = kind.storage, kind.axis
    key = (weights.hash, kind)
    integers = memo.get(key) if memo is not None else None
    if integers is None:
        integers = quantize_array(weights.data, storage, axis, kind.rounding, kind.outputs)
    if memo is not None:
        memo[key] = integers
    if axis is None:
        quant = QuantType(storage, integers.position, float(integers.scales[0]))
    else:
        params = module.add_constant(f"{weights.name}.q", integers.scales)
        quant = QuantType(storage, integers.position, axis=axis, params=params.name)
    if in_place:
        return replace_constant(weights, integers.data, quant)
    return module.add_constant(weights.name, integers.data, quant)
