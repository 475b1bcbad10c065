"""Converters of the `com.microsoft` operators that onnxruntime's optimiser and quantiser leave in saved models."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.frontend.common.emitter import normal_axis
from compiler.frontend.onnx import conv, pooling
from compiler.frontend.onnx.activations import softmax_from, swish_by
from compiler.frontend.onnx.math import gemm
from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.quantization import (
    MICROSOFT,
    centred,
    dequantize,
    dynamic_steps,
    quantize,
    real,
    result_type,
)
from compiler.frontend.onnx.registry import converter
from compiler.frontend.records import Unsupported
from compiler.ir.core import Op, Value
from compiler.ops import activation, math, nn, normalization, reduce, tensor

ACTIVATIONS: dict[str, type[Op]] = {
    "Relu": activation.Relu, "Sigmoid": activation.Sigmoid, "Tanh": math.Tanh, "LeakyRelu": activation.LeakyRelu,
    "HardSigmoid": activation.HardSigmoid,
}  # fmt: skip


# -- fused operators ---------------------------------------------------------------------------------------------------
def _activated(n: Node, y: Value, name: str, parameters: tuple[float, ...]) -> Value:
    if not name:
        return y
    if name == "Clip":
        return n.emit(math.Clip, y, low=parameters[0], high=parameters[1])
    if name not in ACTIVATIONS:
        raise Unsupported(f"fuses {name}", "save the model without onnxruntime's optimisations")
    attributes = dict(zip(("alpha", "beta"), parameters, strict=False))
    return n.emit(ACTIVATIONS[name], y, **attributes)


@converter("FusedConv", domain=MICROSOFT)
def fused_conv(n: Node) -> Value:
    y = conv.conv(n)
    if n.optional(3) is not None:
        y = n.emit(math.Add, y, n.input(3))
    return _activated(n, y, n.attribute("activation", ""), n.attribute("activation_params", ()))


@converter("FusedGemm", domain=MICROSOFT)
def fused_gemm(n: Node) -> Value:
    parameters = (n.attribute("activation_alpha"), n.attribute("activation_beta"))
    return _activated(n, gemm(n), n.attribute("activation", ""), tuple(p for p in parameters if p is not None))


@converter("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul(n: Node) -> Value:
    """Transposes of the last two axes, a product and a factor."""
    a, b = n.input(0), n.input(1)
    if n.attribute("transBatchA", 0) or n.attribute("transBatchB", 0):
        raise Unsupported("transposes batch axes", "save the model without onnxruntime's optimisations")
    a = _swapped(n, a) if n.attribute("transA", 0) else a
    b = _swapped(n, b) if n.attribute("transB", 0) else b
    y = n.emit(nn.MatMul, a, b)
    alpha = n.attribute("alpha", 1.0)
    return y if alpha == 1.0 else n.emit(math.Mul, y, n.scalar_like(alpha, y))


def _swapped(n: Node, x: Value) -> Value:
    rank = x.type.rank
    return n.emit(tensor.Transpose, x, perm=(*range(rank - 2), rank - 1, rank - 2))


@converter("Gelu", "BiasGelu", "FastGelu", domain=MICROSOFT)
def gelu(n: Node) -> Value:
    x = n.input(0)
    if n.optional(1) is not None:
        x = n.emit(math.Add, x, n.input(1))
    return n.emit(activation.Gelu, x, approximate="tanh" if n.proto.op_type == "FastGelu" else "none")


@converter("QuickGelu", domain=MICROSOFT)
def quick_gelu(n: Node) -> Value:
    return swish_by(n, n.attribute("alpha", 1.702))


@converter("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_norm(n: Node) -> list[Value | None]:
    """Layer-norm of a sum; the sum is the fourth output."""
    total = n.emit(math.Add, n.input(0), n.input(1))
    if n.optional(4) is not None:
        total = n.emit(math.Add, total, n.input(4))
    y = n.emit(
        normalization.LayerNorm, total, n.optional(2), n.optional(3), epsilon=n.attribute("epsilon", 1e-12)
    )  # fmt: skip
    return [y, None, None, total]


# -- operators on quantised tensors ------------------------------------------------------------------------------------
QUANTISED: dict[str, type[Op]] = {
    "QLinearAdd": math.Add, "QLinearMul": math.Mul, "QLinearSigmoid": activation.Sigmoid,
    "QLinearLeakyRelu": activation.LeakyRelu,
}  # fmt: skip


@converter("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def qlinear_binary(n: Node) -> Value:
    y = n.emit(QUANTISED[n.proto.op_type], real(n, 0), real(n, 3))
    return quantize(n, y, result_type(n, 6))


@converter("QLinearSigmoid", "QLinearLeakyRelu", domain=MICROSOFT)
def qlinear_unary(n: Node) -> Value:
    attributes: dict[str, Any] = {"alpha": n.attribute("alpha", 0.01)} if n.proto.op_type == "QLinearLeakyRelu" else {}
    y = n.emit(QUANTISED[n.proto.op_type], real(n, 0), **attributes)
    return quantize(n, y, result_type(n, 3))


@converter("QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_global_average_pool(n: Node) -> Value:
    if n.attribute("channels_last", 0):
        raise Unsupported("has its channels last", "save the model without onnxruntime's optimisations")
    x = real(n, 0)
    y = n.emit(reduce.Mean, x, axes=(2, 3)) if x.type.rank != 4 else n.emit(nn.GlobalAvgPool, x)
    return quantize(n, y, result_type(n, 3))


@converter("QLinearAveragePool", domain=MICROSOFT)
def qlinear_average_pool(n: Node) -> Value:
    if n.attribute("channels_last", 0):
        raise Unsupported("has its channels last", "save the model without onnxruntime's optimisations")
    return quantize(n, pooling.average_pool_of(n, real(n, 0)), result_type(n, 3))


@converter("QLinearSoftmax", domain=MICROSOFT)
def qlinear_softmax(n: Node) -> Value:
    """`opset` says which of ONNX's it is."""
    x, axis = real(n, 0), n.attribute("axis", -1)
    if n.attribute("opset", 13) < 13:
        return quantize(n, softmax_from(n, x, activation.Softmax, axis), result_type(n, 3))
    return quantize(n, n.emit(activation.Softmax, x, axis=axis), result_type(n, 3))


@converter("QLinearWhere", domain=MICROSOFT)
def qlinear_where(n: Node) -> Value:
    return quantize(n, n.emit(math.Where, n.input(0), real(n, 1), real(n, 4)), result_type(n, 7))


@converter("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(n: Node) -> Value:
    """Result scale and zero point come first, then three inputs for each part."""
    parts = [real(n, i) for i in range(2, len(n.inputs), 3)]
    axis = normal_axis(n.required("axis"), parts[0].type.rank)
    return quantize(n, n.emit(tensor.Concat, *parts, axis=axis), result_type(n, 0))


@converter("QGemm", domain=MICROSOFT)
def qgemm(n: Node) -> Value:
    """Integers of A, B and C with alpha * A' B' + C; without a result scale the result is f32."""
    a, b = real(n, 0), real(n, 3)
    a = _swapped(n, a) if n.attribute("transA", 0) else a
    b = _swapped(n, b) if n.attribute("transB", 0) else b
    alpha = n.attribute("alpha", 1.0)
    y = n.emit(nn.MatMul, a, b)
    y = y if alpha == 1.0 else n.emit(math.Mul, y, n.scalar_like(alpha, y))
    if n.optional(6) is not None:
        step = np.asarray(alpha * n.array(1, "the scale") * n.array(4, "the scale"), np.float32)
        y = n.emit(math.Add, y, dequantize(n, n.input(6), step, None, 0))
    return y if n.optional(7) is None else quantize(n, y, result_type(n, 7))


# -- integer products of real results ----------------------------------------------------------------------------------
@converter("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(n: Node) -> Value:
    """A real operand, quantised by the range of its data, and integers with scale and zero point; perhaps a bias."""
    steps, scale, point = dynamic_steps(n, n.input(0))
    y = n.emit(nn.MatMul, n.emit(math.Sub, steps, point), centred(n, 1, 3, row_axis=-1))
    return _scaled(n, y, scale, n.input(2), n.optional(4))


@converter("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(n: Node) -> Value:
    y = n.emit(nn.MatMul, centred(n, 0, 4, row_axis=-2), centred(n, 1, 5, row_axis=-1))
    return _scaled(n, y, n.input(2), n.input(3), n.optional(6))


def _scaled(n: Node, y: Value, a_scale: Value, b_scale: Value, bias: Value | None) -> Value:
    y = n.emit(math.Mul, y, n.emit(math.Mul, a_scale, b_scale))
    return y if bias is None else n.emit(math.Add, y, bias)
