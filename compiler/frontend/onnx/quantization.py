"""Converters of quantised models: QuantizeLinear and DequantizeLinear pairs, and the integer operators they replace.

A tensor between the two carries a quantised type with the model's own step and zero point, so that imported scales
survive. Integer operators (ConvInteger, QLinearConv, …) become the same float computation between dequantise and
quantise, which is their meaning.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.frontend.common.emitter import normal_axis, reshape, with_height, without_height
from compiler.frontend.common.quantization import channel_quant, channel_scales, tensor_quant
from compiler.frontend.onnx import conv, reader
from compiler.frontend.onnx.integers import plain
from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.registry import converter
from compiler.frontend.records import Unsupported
from compiler.ir.core import Constant, Value
from compiler.ir.types import DType, QuantType, TensorType
from compiler.ops import math, nn, quant, reduce, tensor
from compiler.ops.shapes import STORED

MICROSOFT = "com.microsoft"
"""The domain of onnxruntime's own operators, which the pair was in for 16 bits before opset 21."""

PER_TENSOR = "quantise with one scale per tensor, or one per output channel for weights, and a constant zero point"


def quant_type(n: Node, storage: DType, scale: np.ndarray, zero: np.ndarray | None, axis: int) -> QuantType:
    """The type of integers with ONNX's scale and zero point; per-axis scales become a constant of the module."""
    if not _is_one_number(zero):
        raise Unsupported("has different zero points per channel", PER_TENSOR)
    if scale.ndim > 1:
        raise Unsupported("has scales per block", PER_TENSOR)
    if storage not in STORED:
        raise Unsupported(f"stores integers as {storage}", PER_TENSOR)
    point = 0 if zero is None else int(zero.reshape(-1)[0])
    if scale.size == 1:
        return tensor_quant(storage, float(scale.reshape(-1)[0]), point)
    return channel_quant(n.builder, storage, scale, point, axis, f"{n.proto.output[0]}.scales")


def _is_one_number(zero: np.ndarray | None) -> bool:
    """Whether zero points are all the same, as where there are none."""
    return zero is None or bool((zero == zero.reshape(-1)[0]).all())


def _parameters(n: Node, first: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Scale and zero point, inputs `first` and `first + 1`."""
    scale = n.array(first, "the scale")
    return scale, None if n.optional(first + 1) is None else n.array(first + 1, "the zero point")


def _axis(n: Node, rank: int, scale: np.ndarray) -> int:
    axis = n.attribute("axis", 1)
    return normal_axis(axis, rank) if scale.size > 1 else 0


def _fits_a_type(n: Node, storage: DType, scale: np.ndarray, zero: np.ndarray | None) -> bool:
    """Whether a quantised type can say it: one scale, or one per index of an axis, and one zero point."""
    return storage in STORED and not n.attribute("block_size", 0) and scale.ndim <= 1 and _is_one_number(zero)


# -- the pair ----------------------------------------------------------------------------------------------------------
@converter("QuantizeLinear")
@converter("QuantizeLinear", domain=MICROSOFT)
def quantize_linear(n: Node) -> Value:
    """What a quantised type cannot say (scales per block, several zero points, computed scales) is arithmetic."""
    x, zero_point = n.input(0), n.optional(2)
    n.ignore("saturate", "precision", "axis", "block_size")  # the latter are nothing to a single scale
    code = n.attribute("output_dtype", 0)
    if code:
        storage, bits = reader.held_dtype_of(code), reader.narrow_bits(code)
    else:
        storage = zero_point.type.dtype if zero_point is not None else DType.U8
        bits = n.builder.narrow.get(zero_point, 0) if zero_point is not None else 0
    if storage is None:
        raise Unsupported(f"makes {reader.dtype_name(code)}", "quantise to 2, 4, 8 or 16 bits")
    scale, zero = n.known(1), n.known(2)
    computed = scale is None or (zero_point is not None and zero is None)
    if computed or bits or not _fits_a_type(n, storage, scale, zero):  # type: ignore[arg-type]
        return _quantize_plain(n, x, storage, bits)
    assert scale is not None
    if isinstance(x, Constant) and x.data.size == scale.size == 1:  # a number, such as what a Pad puts on
        limits = np.iinfo(storage.numpy)
        steps = np.rint(x.data.astype(np.float32) / scale.reshape(()).astype(np.float32))
        point = 0 if zero is None else int(zero.reshape(()))
        return n.constant(np.clip(steps + point, limits.min, limits.max), storage)
    return quantize(n, x, quant_type(n, storage, scale, zero, _axis(n, x.type.rank, scale)))


def quantize(n: Node, x: Value, type: QuantType) -> Value:
    if x.type.dtype is not DType.F32:
        x = n.emit(math.Cast, x, to=DType.F32)
    return n.emit(quant.Quantize, n.builder.registered(x), types=[TensorType(x.type.shape, type.storage, type)])


@converter("DequantizeLinear")
@converter("DequantizeLinear", domain=MICROSOFT)
def dequantize_linear(n: Node) -> Value:
    n.ignore("output_dtype", "axis", "block_size")  # the latter are nothing to a single scale
    x, scale, zero = n.input(0), n.known(1), n.known(2)
    computed = scale is None or (n.optional(2) is not None and zero is None)
    if computed and x.type.quant is not None:
        x = plain(n, x)
    if computed or (x.type.quant is None and not _fits_a_type(n, x.type.dtype, scale, zero)):  # type: ignore[arg-type]
        return _dequantize_plain(n, x, n.input(1), n.optional(2))
    assert scale is not None
    return dequantize(n, x, scale, zero, _axis(n, x.type.rank, scale))


def dequantize(n: Node, x: Value, scale: np.ndarray, zero: np.ndarray | None, axis: int) -> Value:
    """Reals of stored integers: constants keep their integers under a quantised type."""
    if x.type.quant is not None:
        if _says(n, x.type.quant, scale, zero, axis):
            return n.emit(quant.Dequantize, x)
        x = plain(n, x)
    several = isinstance(x, Constant) and x.data.size > 1  # single numbers are attributes
    if isinstance(x, Constant) and several and x.type.dtype in STORED and _is_one_number(zero):
        type = quant_type(n, x.type.dtype, scale, zero, axis)
        stored = n.builder.module.add_constant(x.name or f"{n.proto.output[0]}.stored", x.data, type)
        return n.builder.append(quant.Dequantize, stored)[0]
    zero_point = None if zero is None or not zero.any() else n.constant(zero)
    return _dequantize_plain(n, x, n.constant(scale), zero_point, axis)


def _says(n: Node, held: QuantType, scale: np.ndarray, zero: np.ndarray | None, axis: int) -> bool:
    """Whether a type has these scales and zero points: integers may be read by others than they were written by."""
    if not _is_one_number(zero) or held.zero_point != (0 if zero is None else int(zero.reshape(-1)[0])):
        return False
    if held.axis is None or held.params is None:
        return scale.size == 1 and float(np.float32(scale.reshape(-1)[0])) == held.real_step
    written = n.builder.module.constants[held.params].data
    read = channel_scales(scale, held.position) if scale.ndim == 1 else np.zeros(0)
    return held.axis == axis and np.array_equal(written, read)


def _dequantize_plain(n: Node, x: Value, scale: Value, zero: Value | None, axis: int | None = None) -> Value:
    """Integers that have no quantised type, such as those of a graph input, by arithmetic."""
    known = [v.data for v in (x, scale, zero) if isinstance(v, Constant)]
    if x.type.elements == 1 and len(known) == (2 if zero is None else 3):  # converters may need the number itself
        whole = known[0].astype(np.float32) - (known[2].astype(np.float32).reshape(-1)[0] if zero is not None else 0.0)
        return n.constant(whole.astype(np.float32) * known[1].astype(np.float32).reshape(-1)[0])
    y = n.emit(math.Cast, x, to=DType.F32)
    if zero is not None and not (isinstance(zero, Constant) and not zero.data.any()):
        y = n.emit(math.Sub, y, _spread(n, x, zero, axis))
    return n.emit(math.Mul, y, _spread(n, x, scale, axis))


def _quantize_plain(n: Node, x: Value, storage: DType, bits: int = 0) -> Value:
    """By arithmetic; `bits` where the integers are narrower than what holds them."""
    x = n.emit(math.Cast, x, to=DType.F32) if x.type.dtype is not DType.F32 else x
    y = n.emit(math.Round, n.emit(math.Div, x, _spread(n, x, n.input(1), None)))
    if n.optional(2) is not None:
        y = n.emit(math.Add, y, _spread(n, x, n.input(2), None))
    unused = 8 * storage.size - (bits or 8 * storage.size)
    limits = np.iinfo(storage.numpy)
    low, high = float(limits.min >> unused), float(limits.max >> unused)
    y = n.emit(math.Cast, n.emit(math.Clip, y, low=low, high=high), to=storage)
    if bits:
        n.builder.narrow[y] = bits
    return y


def _spread(n: Node, x: Value, values: Value, axis: int | None) -> Value:
    """Scales or zero points as f32, in a shape that broadcasts with x: per tensor, per index of an axis, per block."""
    values = n.emit(math.Cast, values, to=DType.F32) if values.type.dtype is not DType.F32 else values
    if values.type.elements == 1:
        return reshape(n, values, ())
    axis = normal_axis(n.attribute("axis", 1), x.type.rank) if axis is None else axis
    block = n.attribute("block_size", 0)
    if not block:
        shape = [1] * x.type.rank
        shape[axis] = values.type.elements
        return reshape(n, values, shape)
    n.room_for(x.type.static_shape[axis], "places")
    places = np.arange(x.type.static_shape[axis]) // block
    return n.emit(tensor.Gather, values, n.constant(places, DType.I64), axis=axis)


@converter("DynamicQuantizeLinear")
def dynamic_quantize_linear(n: Node) -> list[Value]:
    steps, scale, point = dynamic_steps(n, n.input(0))
    return [n.emit(math.Cast, steps, to=DType.U8), scale, n.emit(math.Cast, point, to=DType.U8)]


def dynamic_steps(n: Node, x: Value) -> tuple[Value, Value, Value]:
    """x in steps from 0 to 255 by the range of the data, their scale and zero point: computed values, all f32."""
    zero = n.constant(0.0, DType.F32)
    high = n.emit(math.Maximum, n.emit(reduce.Max, x, keepdims=False), zero)
    low = n.emit(math.Minimum, n.emit(reduce.Min, x, keepdims=False), zero)
    scale = n.emit(math.Div, n.emit(math.Sub, high, low), n.constant(255.0, DType.F32))
    point = n.emit(math.Round, n.emit(math.Clip, n.emit(math.Div, n.emit(math.Neg, low), scale), low=0.0, high=255.0))
    steps = n.emit(math.Add, n.emit(math.Round, n.emit(math.Div, x, scale)), point)
    return n.emit(math.Clip, steps, low=0.0, high=255.0), scale, point


# -- integer operators -------------------------------------------------------------------------------------------------
def centred(n: Node, index: int, zero_index: int, row_axis: int | None = None) -> Value:
    """Integers minus their zero point, as f32 (exact for 8 bits)."""
    x = n.emit(math.Cast, n.input(index), to=DType.F32)
    zero = n.optional(zero_index)
    if zero is None or (n.known(zero_index) is not None and not n.known(zero_index).any()):  # type: ignore[union-attr]
        return x
    zero = n.emit(math.Cast, zero, to=DType.F32)
    if zero.type.rank == 1 and zero.type.shape[0] != 1 and row_axis is not None:
        shape = [1] * x.type.rank
        shape[row_axis] = -1
        zero = n.emit(tensor.Reshape, zero, shape=shape)
    elif zero.type.rank == 1:
        zero = reshape(n, zero, ())
    return n.emit(math.Sub, x, zero)


@converter("MatMulInteger")
def matmul_integer(n: Node) -> Value:
    y = n.emit(nn.MatMul, centred(n, 0, 2, row_axis=-2), centred(n, 1, 3, row_axis=-1))
    return n.emit(math.Cast, y, to=DType.I32)


@converter("ConvInteger")
def conv_integer(n: Node) -> Value:
    y = _convolve(n, centred(n, 0, 2), centred(n, 1, 3, row_axis=0), None)
    return n.emit(math.Cast, y, to=DType.I32)


def _convolve(n: Node, x: Value, w: Value, bias: Value | None) -> Value:
    window = conv.read_window(n, conv.kernel_shape(n, w), x.type.static_shape[2:])
    attributes: dict[str, Any] = {**window.attributes(), "groups": n.attribute("group", 1)}
    y = n.emit(nn.Conv2d, with_height(n, x), with_height(n, w), bias, **attributes)
    return without_height(n, y, x)


def real(n: Node, first: int, axis: int = 0) -> Value:
    """The real tensor of inputs `first` (integers), `first + 1` (scale) and `first + 2` (zero point)."""
    return dequantize(n, n.input(first), *_parameters(n, first + 1), axis)


def result_type(n: Node, first: int) -> QuantType:
    """The type that inputs `first` (scale) and `first + 1` (zero point) ask of the result."""
    scale, zero = _parameters(n, first)
    return quant_type(n, DType.U8 if zero is None else DType.of(zero.dtype), scale, zero, 0)


@converter("QLinearConv")
def qlinear_conv(n: Node) -> Value:
    bias = n.optional(8)
    if bias is not None:
        bias = dequantize(n, bias, (n.array(1, "the scale") * n.array(4, "the scale")).reshape(-1), None, 0)
    return quantize(n, _convolve(n, real(n, 0), real(n, 3), bias), result_type(n, 6))


@converter("QLinearMatMul")
def qlinear_matmul(n: Node) -> Value:
    a, b = real(n, 0, max(n.input(0).type.rank - 2, 0)), real(n, 3, n.input(3).type.rank - 1)
    return quantize(n, n.emit(nn.MatMul, a, b), result_type(n, 6))
