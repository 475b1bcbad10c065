"""Quantised tensors of torch on their way into the module and out again.

A quantised tensor is a value of a quantised type with the model's own step and zero point, as in the ONNX frontend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.frontend.aten.call import Call
from compiler.frontend.builder import Builder
from compiler.frontend.common.quantization import channel_quant, tensor_quant
from compiler.ir.core import Value
from compiler.ir.types import DType, TensorType
from compiler.ops import quant


@dataclass(frozen=True)
class QuantizedTensor:
    """A quantised tensor as archives store it. `scale` and `zero_point` are arrays where `axis` is not None."""

    integers: np.ndarray
    scale: Any
    zero_point: Any
    axis: int | None = None

    @property
    def reals(self) -> np.ndarray:
        """What the integers stand for, as f32."""
        shape = [1] * self.integers.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        scale = np.asarray(self.scale, np.float32).reshape(shape if self.axis is not None else ())
        zero = np.asarray(self.zero_point, np.float32).reshape(shape if self.axis is not None else ())
        return ((self.integers.astype(np.float32) - zero) * scale).astype(np.float32)


def quantised_constant(builder: Builder, q: QuantizedTensor, name: str = "weight") -> Value:
    """The tensor as a constant of the module under a quantised type; reals where channels differ in zero point."""
    zeros = np.asarray(q.zero_point, np.float64).reshape(-1)
    if (zeros != zeros[0]).any() or zeros[0] != np.round(zeros[0]):
        return builder.constant(q.reals, name)
    storage, zero = DType.of(q.integers.dtype), int(zeros[0])
    name = builder.fresh_name(name)
    if q.axis is None:
        type = tensor_quant(storage, float(np.float32(q.scale)), zero)
    else:
        scales = np.asarray(q.scale, np.float32)
        type = channel_quant(builder, storage, scales, zero, q.axis, f"{name}.scales")
    return builder.module.add_constant(name, q.integers, type)


def dequantised(c: Call, x: Any) -> Any:
    """x with every quantised tensor in it as reals."""
    if isinstance(x, list | tuple):
        return type(x)(dequantised(c, item) for item in x)
    if isinstance(x, QuantizedTensor):
        x = quantised_constant(c.builder, x)
    if isinstance(x, Value) and x.type.quant is not None:
        return c.builder.append(quant.Dequantize, x)[0]
    return x


BOUNDED = {"sigmoid": (1 / 256, {DType.U8: 0, DType.I8: -128}), "hardsigmoid": (1 / 256, {DType.U8: 0, DType.I8: -128}),
           "tanh": (2 / 256, {DType.U8: 128, DType.I8: 0})}  # fmt: skip
"""Functions whose results torch gives a scale and zero points of their own."""


def requantised(c: Call, x: Any, like: Value) -> Any:
    """x with every tensor of reals in it quantised as `like` is, or as torch does the function's results."""
    if c.base in BOUNDED and isinstance(x, Value) and like.type.dtype in BOUNDED[c.base][1]:
        step, zeros = BOUNDED[c.base]
        return output(c, x, step, zeros[like.type.dtype], like.type.dtype)
    if isinstance(x, list | tuple):
        return type(x)(requantised(c, item, like) for item in x)
    if not isinstance(x, Value) or not x.type.dtype.is_float or like.type.quant is None:
        return x
    return x if like.type.quant.axis is not None else quantise(c, x, TensorType((), like.type.dtype, like.type.quant))


def quantise(c: Call, x: Value, type: TensorType) -> Value:
    """x rounded to the integers of a quantised type (whose shape does not matter)."""
    result = TensorType(x.type.shape, type.dtype, type.quant)
    return c.builder.append(quant.Quantize, c.cast(x, DType.F32), types=[result])[0]


def output(c: Call, x: Value, scale: Any, zero_point: Any, storage: DType) -> Value:
    """x quantised with a known scale and zero point."""
    step, zero = float(c.number(scale, "the scale")), c.integer(zero_point, "the zero point")
    return quantise(c, x, TensorType((), storage, tensor_quant(storage, step, zero)))


def storage_of(x: Value, fallback: DType = DType.U8) -> DType:
    return x.type.dtype if x.type.quant is not None else fallback
