"""Converters of activations and softmax."""

from __future__ import annotations

from math import prod

from compiler.frontend.common.emitter import reshape
from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.registry import converter
from compiler.ir.core import Op, Value
from compiler.ops import activation, math
from compiler.ops.tensor import Reshape

PLAIN: dict[str, type[Op]] = {
    "Relu": activation.Relu, "Sigmoid": activation.Sigmoid, "HardSwish": activation.HardSwish,
    "Softplus": activation.Softplus, "Softsign": activation.Softsign, "Mish": activation.Mish,
}  # fmt: skip
"""Operators without attributes."""


@converter(*PLAIN)
def plain(n: Node) -> Value:
    return n.emit(PLAIN[n.proto.op_type], n.input(0))


@converter("LeakyRelu")
def leaky_relu(n: Node) -> Value:
    return n.emit(activation.LeakyRelu, n.input(0), alpha=n.attribute("alpha", 0.01))


@converter("PRelu")
def prelu(n: Node) -> Value:
    x, slope = n.input(0), n.input(1)
    spread = (1, x.type.shape[-1]) if n.opset >= 7 else (1,)  # before, and by some exporters later, one a channel
    if n.opset < 9 and slope.type.rank == 1 and x.type.rank > 1 and slope.type.shape[0] not in spread:
        slope = n.emit(Reshape, slope, shape=(slope.type.static_shape[0], *[1] * (x.type.rank - 2)))
    return n.emit(activation.PRelu, x, slope)


@converter("Elu")
def elu(n: Node) -> Value:
    return n.emit(activation.Elu, n.input(0), alpha=n.attribute("alpha", 1.0))


@converter("Celu")
def celu(n: Node) -> Value:
    return n.emit(activation.Celu, n.input(0), alpha=n.attribute("alpha", 1.0))


@converter("Selu")
def selu(n: Node) -> Value:
    alpha, gamma = n.attribute("alpha", 1.67326319217681884765625), n.attribute("gamma", 1.05070102214813232421875)
    return n.emit(activation.Selu, n.input(0), alpha=alpha, gamma=gamma)


@converter("ThresholdedRelu")
def thresholded_relu(n: Node) -> Value:
    return n.emit(activation.ThresholdedRelu, n.input(0), alpha=n.attribute("alpha", 1.0))


@converter("HardSigmoid")
def hard_sigmoid(n: Node) -> Value:
    return n.emit(
        activation.HardSigmoid, n.input(0), alpha=n.attribute("alpha", 0.2), beta=n.attribute("beta", 0.5)
    )


@converter("Gelu")
def gelu(n: Node) -> Value:
    return n.emit(activation.Gelu, n.input(0), approximate=n.attribute("approximate", "none"))


@converter("Swish")
def swish(n: Node) -> Value:
    return swish_by(n, n.attribute("alpha", 1.0))


def swish_by(n: Node, alpha: float) -> Value:
    """x * sigmoid(alpha * x)."""
    x = n.input(0)
    if alpha == 1.0:
        return n.emit(activation.Silu, x)
    return n.emit(math.Mul, x, n.emit(activation.Sigmoid, n.emit(math.Mul, x, n.scalar_like(alpha, x))))


SOFTMAXES: dict[str, type[Op]] = {"Softmax": activation.Softmax, "LogSoftmax": activation.LogSoftmax}


@converter(*SOFTMAXES)
def flattening_softmax(n: Node) -> Value:
    return softmax_from(n, n.input(0), SOFTMAXES[n.proto.op_type], n.attribute("axis", 1))


def softmax_from(n: Node, x: Value, op_class: type[Op], axis: int) -> Value:
    """Softmax as before opset 13: the axes from `axis` on count as one."""
    shape = x.type.static_shape
    axis = axis + len(shape) if axis < 0 else axis
    significant = [i for i in range(axis, len(shape)) if shape[i] != 1]
    if len(significant) <= 1 and axis < len(shape):
        return n.emit(op_class, x, axis=significant[0] if significant else axis)
    flat = reshape(n, x, (prod(shape[:axis]), prod(shape[axis:])))
    return reshape(n, n.emit(op_class, flat, axis=1), shape)


@converter(*SOFTMAXES, since=13)
def softmax(n: Node) -> Value:
    return n.emit(SOFTMAXES[n.proto.op_type], n.input(0), axis=n.attribute("axis", -1))
