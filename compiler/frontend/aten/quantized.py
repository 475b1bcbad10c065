"""Rows of `quantized::` and of `aten::quantize_*`, and the packed parameters some of them take.

A quantised operator is the float computation between dequantise and quantise, which is its meaning; the weights stay
integers in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.dtypes import NAMES, QUANTISED
from compiler.frontend.aten.quantisers import (
    QuantizedTensor,
    dequantised,
    output,
    quantise,
    quantised_constant,
    requantised,
    storage_of,
)
from compiler.frontend.aten.registry import aten, convert
from compiler.frontend.common.quantization import channel_quant
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Constant, Value
from compiler.ir.types import DType, TensorType
from compiler.ops import activation, math

REMEDY = "quantise with torch.per_tensor_affine, or torch.per_channel_affine for weights, to qint8 or quint8"


@dataclass(frozen=True)
class PackedConv:
    """Parameters of a quantised convolution. `weight`: [co, ci/groups, kh, kw], or [ci, co/groups, kh, kw] where it is
    transposed; a `QuantizedTensor` or a value. `bias`: reals, an array or a value.
    """

    weight: Any
    bias: Any = None
    stride: Sequence[int] = (1, 1)
    padding: Sequence[int] = (0, 0)
    dilation: Sequence[int] = (1, 1)
    groups: int = 1
    transposed: bool = False
    output_padding: Sequence[int] = (0, 0)


@dataclass(frozen=True)
class PackedLinear:
    """Parameters of a quantised linear layer. `weight`: [out, in]."""

    weight: Any
    bias: Any = None
    name: str = field(default="", compare=False)


@dataclass(frozen=True)
class PackedCell:
    """Parameters of one direction of a quantised recurrent layer: of the input and of the state."""

    input: PackedLinear
    hidden: PackedLinear


def real_parameters(c: Call, packed: PackedLinear) -> tuple[Value, Any]:
    """Weights and bias as constants of reals: gates are cut out of them, which integers behind a dequantise forbid."""
    w = packed.weight
    if isinstance(w, Constant) and w.type.quant is not None:
        raise Unsupported("has weights packed at run time", "save the network with its parameters packed")
    weight = c.constant(w.reals, DType.F32) if isinstance(w, QuantizedTensor) else c.tensor(w)
    known = packed.bias is None or isinstance(packed.bias, Value)
    return weight, packed.bias if known else c.constant(packed.bias, DType.F32)


# -- quantise and dequantise -------------------------------------------------------------------------------------------
@aten("aten::quantize_per_tensor", quantised="keep")
def quantize_per_tensor(c: Call, input: Any, scale: Any, zero_point: Any, dtype: int) -> Any:
    if isinstance(input, list | tuple):
        raise Unsupported("quantises a list of tensors", "quantise them one by one")
    return output(c, c.tensor(input), scale, zero_point, _storage(dtype))


def _storage(code: Any) -> DType:
    if code not in QUANTISED:
        raise Unsupported(f"quantises to {NAMES.get(code, code)}", REMEDY)
    return QUANTISED[code]


@aten("aten::quantize_per_channel", quantised="keep")
def quantize_per_channel(c: Call, input: Any, scales: Any, zero_points: Any, axis: int, dtype: int) -> Any:
    x, storage = c.tensor(input), _storage(dtype)
    steps, zeros = c.known(scales, "the scales"), c.known(zero_points, "the zero points")
    if (zeros != zeros.reshape(-1)[0]).any():
        raise Unsupported("has different zero points per channel", REMEDY)
    name = f"{x.name or 'tensor'}.scales"
    steps32 = steps.astype(np.float32)
    type = channel_quant(c.builder, storage, steps32, int(zeros.reshape(-1)[0]), c.axis(axis, x.type.rank), name)
    return quantise(c, x, TensorType((), storage, type))


@aten("aten::dequantize", quantised="keep")
def dequantize(c: Call, tensors: Any) -> Any:
    return dequantised(c, tensors)


@aten("aten::int_repr", quantised="keep", refuses=True)
def int_repr(c: Call, self: Any) -> Any:
    raise Unsupported("reads the integers of a quantised tensor", "use its values (dequantize)")


@aten("aten::q_scale", quantised="keep")
def q_scale(c: Call, self: Any) -> Any:
    return _per_tensor(self).real_step


@aten("aten::q_zero_point", quantised="keep")
def q_zero_point(c: Call, self: Any) -> Any:
    return _per_tensor(self).zero_point


def _per_tensor(x: Any) -> Any:
    if not isinstance(x, Value) or x.type.quant is None or x.type.quant.axis is not None:
        raise Malformed("its input is not quantised with one scale")
    return x.type.quant


@aten("aten::fake_quantize_per_tensor_affine")
def fake_quantize(c: Call, self: Any, scale: Any, zero_point: Any, quant_min: int, quant_max: int) -> Any:
    storage = {(-128, 127): DType.I8, (-127, 127): DType.I8, (0, 255): DType.U8, (0, 127): DType.U8}.get(
        (quant_min, quant_max)
    )
    if storage is None:
        raise Unsupported(f"quantises to the range {quant_min} to {quant_max}", "use -128 to 127 or 0 to 255")
    return dequantised(c, output(c, c.tensor(self), scale, zero_point, storage))


# -- the decomposed operators of quantised exports ---------------------------------------------------------------------
@aten("quantized_decomposed::quantize_per_tensor", quantised="keep")
def decomposed_quantize(
    c: Call, input: Any, scale: Any, zero_point: Any, quant_min: int, quant_max: int, dtype: Any
) -> Any:
    return output(c, c.tensor(input), scale, zero_point, DType.U8 if dtype == 0 else DType.I8)


@aten("quantized_decomposed::dequantize_per_tensor", quantised="keep")
def decomposed_dequantize(
    c: Call, input: Any, scale: Any, zero_point: Any, quant_min: int, quant_max: int, dtype: Any, **rest: Any
) -> Any:
    if isinstance(input, Constant) and input.type.quant is None:
        q = QuantizedTensor(input.data, c.number(scale, "the scale"), c.integer(zero_point, "the zero point"))
        input = quantised_constant(c.builder, q, input.name or "weight")
    return dequantised(c, input)


@aten("quantized_decomposed::dequantize_per_channel", quantised="keep")
def decomposed_dequantize_channel(
    c: Call, input: Any, scales: Any, zero_points: Any, axis: int, quant_min: int, quant_max: int, dtype: Any,
    **rest: Any,
) -> Any:  # fmt: skip
    if not isinstance(input, Constant):
        raise Unsupported("dequantises computed integers channel by channel", REMEDY)
    zeros = np.zeros(1) if zero_points is None else c.known(zero_points, "the zero points")
    q = QuantizedTensor(input.data, c.known(scales, "the scales"), zeros, c.axis(axis, input.type.rank))
    return dequantised(c, quantised_constant(c.builder, q, input.name or "weight"))


# -- layers with packed parameters -------------------------------------------------------------------------------------
def _weight(c: Call, packed: PackedConv | PackedLinear, transpose: bool) -> Value:
    """The weights as reals: integers in the module behind a dequantise."""
    w, name = packed.weight, getattr(packed, "name", "") or f"{c.builder.prefix or c.base}.weight"
    if isinstance(w, QuantizedTensor):
        if transpose:
            w = replace(w, integers=np.ascontiguousarray(w.integers.T), axis=None if w.axis is None else 1 - w.axis)
        return dequantised(c, quantised_constant(c.builder, w, name))
    if isinstance(w, Constant) and w.type.quant is not None and transpose:
        axis = w.type.quant.axis
        type = replace(w.type.quant, axis=None if axis is None else 1 - axis)
        w = c.builder.module.add_constant(c.builder.fresh_name(f"{w.name}.t"), np.ascontiguousarray(w.data.T), type)
    elif transpose:
        w = convert("aten::t", "", c.builder, [c.tensor(w)])
    return dequantised(c, w)


def _bias(c: Call, packed: PackedConv | PackedLinear, x: Value) -> Any:
    """The bias as reals: whole multiples of the steps of x and weights, as integer arithmetic adds it."""
    bias = packed.bias
    array = bias.data if isinstance(bias, Constant) else bias
    if array is None or isinstance(array, Value):
        return bias
    steps = _weight_steps(packed.weight)
    if steps is not None and x.type.quant is not None and x.type.quant.axis is None:
        unit = np.float32(x.type.quant.real_step) * steps
        array = np.round(np.asarray(array, np.float32) / unit) * unit
    return c.constant(array, DType.F32)


def _weight_steps(weight: Any) -> Any:
    """The f32 step, or one per output channel, of packed weights; None where it is not at hand."""
    if isinstance(weight, QuantizedTensor):
        return np.asarray(weight.scale, np.float32)
    quantised = isinstance(weight, Constant) and weight.type.quant is not None and weight.type.quant.axis is None
    return np.float32(weight.type.quant.real_step) if quantised else None


def _packed(x: Any, kind: type) -> Any:
    if not isinstance(x, kind):
        raise Malformed(f"its parameters are not packed ones but {type(x).__name__}")
    return x


def convolve(c: Call, qx: Value, packed: PackedConv) -> Value:
    """The real convolution of x, which may be quantised."""
    operands = [dequantised(c, qx), _weight(c, packed, transpose=False), _bias(c, packed, qx), packed.stride]
    operands += [packed.padding]
    operands += [packed.dilation, packed.transposed, packed.output_padding, packed.groups]
    return convert("aten::_convolution", "", c.builder, operands)


CONVOLUTIONS = [f"quantized::{n}{s}" for n in ("conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d")
                for s in ("", "_relu")]  # fmt: skip


@aten(*CONVOLUTIONS, quantised="keep")
def quantized_conv(c: Call, qx: Any, packed: Any, output_scale: Any, output_zero_point: Any) -> Any:
    y = convolve(c, c.tensor(qx), _packed(packed, PackedConv))
    y = c.emit(activation.Relu, y) if c.name.endswith("_relu") else y
    return output(c, y, output_scale, output_zero_point, storage_of(qx))


@aten("quantized::conv2d_dynamic", "quantized::conv1d_dynamic", quantised="keep")
def conv_dynamic(c: Call, qx: Any, packed: Any, reduce_range: bool = False) -> Any:
    return convolve(c, c.tensor(qx), _packed(packed, PackedConv))


def multiply(c: Call, qx: Value, packed: PackedLinear) -> Value:
    """The real matrix product of x, which may be quantised."""
    y = convert("aten::matmul", "", c.builder, [dequantised(c, qx), _weight(c, packed, transpose=True)])
    bias = _bias(c, packed, qx)
    return y if bias is None else c.emit(math.Add, y, bias)


@aten("quantized::linear", "quantized::linear_relu", quantised="keep")
def quantized_linear(c: Call, X: Any, W_prepack: Any, Y_scale_i: Any, Y_zero_point_i: Any) -> Any:
    y = multiply(c, c.tensor(X), _packed(W_prepack, PackedLinear))
    y = c.emit(activation.Relu, y) if c.name.endswith("_relu") else y
    return output(c, y, Y_scale_i, Y_zero_point_i, storage_of(X))


@aten("quantized::linear_dynamic", "quantized::linear_relu_dynamic", "quantized::linear_dynamic_fp16",
      "quantized::linear_relu_dynamic_fp16", quantised="keep")  # fmt: skip
def linear_dynamic(c: Call, X: Any, W_prepack: Any, reduce_range: bool = False) -> Any:
    """Quantised weights; the range of X, which torch measures in every call, is left to calibration."""
    y = multiply(c, c.tensor(X), _packed(W_prepack, PackedLinear))
    return c.emit(activation.Relu, y) if "_relu" in c.name else y


@aten("quantized::conv1d_prepack", "quantized::conv2d_prepack", quantised="keep")
def conv_prepack(c: Call, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    return PackedConv(weight, bias, tuple(stride), tuple(padding), tuple(dilation), groups)


@aten("quantized::linear_prepack", quantised="keep")
def linear_prepack(c: Call, W: Any, B: Any = None) -> Any:
    return PackedLinear(W, B)


# -- elementwise and the rest ------------------------------------------------------------------------------------------
BINARY = {"add": math.Add, "mul": math.Mul}


@aten("quantized::add", "quantized::add_relu", "quantized::mul", "quantized::mul_relu", quantised="keep")
def quantized_binary(c: Call, qa: Any, qb: Any, scale: Any = None, zero_point: Any = None) -> Any:
    a, b = dequantised(c, c.tensor(qa)), dequantised(c, c.as_tensor(qb, None))
    y = c.emit(BINARY[c.base.partition("_")[0]], a, c.cast(b, a.type.dtype))
    y = c.emit(activation.Relu, y) if c.name.endswith("_relu") else y
    return requantised(c, y, qa) if scale is None else output(c, y, scale, zero_point, storage_of(qa))


@aten("quantized::add_scalar", "quantized::add_scalar_relu", "quantized::mul_scalar", "quantized::mul_scalar_relu",
      quantised="keep")  # fmt: skip
def quantized_scalar(c: Call, qa: Any, b: Any) -> Any:
    """torch moves the zero point (add) or scales the step (mul) so that nothing is lost; so do we."""
    number, type = float(c.number(b, "the number")), _per_tensor(qa)
    adds = c.base.startswith("add")
    x = dequantised(c, qa)
    y = c.emit(math.Add if adds else math.Mul, x, c.scalar_like(number, x))
    y = c.emit(activation.Relu, y) if c.name.endswith("_relu") else y
    if adds or number <= 0:
        return y
    return output(c, y, type.real_step * number, type.zero_point, qa.type.dtype)


@aten("quantized::cat", "quantized::cat_relu", quantised="keep")
def quantized_cat(c: Call, qx: Any, dim: int, scale: Any = None, zero_point: Any = None) -> Any:
    y = convert("aten::cat", "", c.builder, [dequantised(c, list(qx)), dim])
    y = c.emit(activation.Relu, y) if c.name.endswith("_relu") else y
    return requantised(c, y, qx[0]) if scale is None else output(c, y, scale, zero_point, storage_of(qx[0]))


@aten("quantized::batch_norm", "quantized::batch_norm1d", "quantized::batch_norm2d", "quantized::batch_norm_relu",
      "quantized::batch_norm1d_relu", "quantized::batch_norm2d_relu", quantised="keep")  # fmt: skip
def quantized_batch_norm(
    c: Call, qx: Any, weight: Any, bias: Any, mean: Any, var: Any, eps: float, output_scale: Any,
    output_zero_point: Any,
) -> Any:  # fmt: skip
    operands = [dequantised(c, qx), weight, bias, mean, var, False, 0.0, eps, False]
    y = convert("aten::batch_norm", "", c.builder, operands)
    y = c.emit(activation.Relu, y) if c.name.endswith("_relu") else y
    return output(c, y, output_scale, output_zero_point, storage_of(qx))


def _between(c: Call, name: str, operands: list[Any], scale: Any, zero_point: Any) -> Any:
    """The float operator `name` on dequantised operands, quantised with a scale of its own."""
    y = convert(name, "", c.builder, [dequantised(c, x) for x in operands])
    return output(c, y, scale, zero_point, storage_of(operands[0]))


@aten("quantized::leaky_relu", quantised="keep")
def leaky_relu(c: Call, qx: Any, negative_slope: Any, inplace: bool, output_scale: Any, output_zero_point: Any) -> Any:
    return _between(c, "aten::leaky_relu", [qx, negative_slope], output_scale, output_zero_point)


@aten("quantized::hardswish", "quantized::sigmoid", quantised="keep")
def activation_with_scale(c: Call, qx: Any, output_scale: Any, output_zero_point: Any) -> Any:
    return _between(c, f"aten::{c.base}", [qx], output_scale, output_zero_point)


@aten("quantized::elu", quantised="keep")
def elu(c: Call, self: Any, output_scale: Any, output_zero_point: Any, alpha: Any = 1.0, scale: Any = 1.0,
        input_scale: Any = 1.0) -> Any:  # fmt: skip
    return _between(c, "aten::elu", [self, alpha, scale, input_scale], output_scale, output_zero_point)


@aten("quantized::celu", quantised="keep")
def celu(c: Call, self: Any, output_scale: Any, output_zero_point: Any, alpha: Any = 1.0) -> Any:
    return _between(c, "aten::celu", [self, alpha], output_scale, output_zero_point)


@aten("quantized::prelu", "quantized::matmul", quantised="keep")
def two_operands(c: Call, qx: Any, other: Any, output_scale: Any, output_zero_point: Any) -> Any:
    return _between(c, f"aten::{c.base}", [qx, other], output_scale, output_zero_point)


@aten("quantized::softmax", quantised="keep")
def softmax(c: Call, qx: Any, dim: int, output_scale: Any, output_zero_point: Any) -> Any:
    return _between(c, "aten::softmax", [qx, dim], output_scale, output_zero_point)


@aten("quantized::layer_norm", quantised="keep")
def layer_norm(c: Call, input: Any, normalized_shape: Any, weight: Any, bias: Any, eps: float, output_scale: Any,
               output_zero_point: Any) -> Any:  # fmt: skip
    operands = [input, normalized_shape, weight, bias, eps]
    return _between(c, "aten::layer_norm", operands, output_scale, output_zero_point)


@aten("quantized::group_norm", quantised="keep")
def group_norm(c: Call, input: Any, num_groups: int, weight: Any, bias: Any, eps: float, output_scale: Any,
               output_zero_point: Any) -> Any:  # fmt: skip
    operands = [input, num_groups, weight, bias, eps]
    return _between(c, "aten::group_norm", operands, output_scale, output_zero_point)


@aten("quantized::instance_norm", quantised="keep")
def instance_norm(c: Call, input: Any, weight: Any, bias: Any, eps: float, output_scale: Any,
                  output_zero_point: Any) -> Any:  # fmt: skip
    operands = [input, weight, bias, None, None, True, 0.0, eps]
    return _between(c, "aten::instance_norm", operands, output_scale, output_zero_point)


@aten("quantized::relu6", quantised="keep")
def relu6(c: Call, qx: Any, inplace: bool = False) -> Any:
    return convert("aten::relu6", "", c.builder, [qx])


@aten("quantized::dropout", quantised="keep")
def dropout(c: Call, self: Any, output_scale: Any, output_zero_point: Any, p: Any = 0.5, training: bool = False) -> Any:
    return self
