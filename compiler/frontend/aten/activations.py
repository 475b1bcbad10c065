"""Rows of activations and softmax."""

from __future__ import annotations

from typing import Any

from compiler.frontend.aten.arithmetic import clamp
from compiler.frontend.aten.call import Call
from compiler.frontend.aten.registry import aten
from compiler.frontend.aten.types import converted
from compiler.frontend.records import Malformed
from compiler.ir.core import Op, Value
from compiler.ir.types import DType
from compiler.ops import activation, math, tensor

PLAIN: dict[str, type[Op]] = {
    "sigmoid": activation.Sigmoid, "silu": activation.Silu, "swish": activation.Silu, "mish": activation.Mish,
    "hardswish": activation.HardSwish, "softsign": activation.Softsign, "special_expit": activation.Sigmoid,
    "selu": activation.Selu,
}  # fmt: skip
"""Activations without parameters."""


@aten(*(f"aten::{name}" for name in PLAIN))
def plain(c: Call, self: Any) -> Any:
    return c.emit(PLAIN[c.base], c.real(self))


@aten("aten::relu", quantised="keep")
def relu(c: Call, self: Any) -> Any:
    x = c.tensor(self)
    if x.type.dtype.is_float or x.type.quant is not None:
        return c.emit(activation.Relu, x)
    return c.emit(math.Maximum, x, c.scalar_like(0, x))


@aten("aten::relu6")
def relu6(c: Call, self: Any) -> Any:
    return clamp(c, self, 0.0, 6.0)


@aten("aten::hardsigmoid")
def hard_sigmoid(c: Call, self: Any) -> Any:
    return c.emit(activation.HardSigmoid, c.tensor(self), alpha=1 / 6, beta=0.5)


@aten("aten::leaky_relu")
def leaky_relu(c: Call, self: Any, negative_slope: Any = 0.01) -> Any:
    return c.emit(activation.LeakyRelu, c.tensor(self), alpha=float(c.number(negative_slope, "the slope")))


@aten("aten::prelu", "aten::_prelu_kernel")
def prelu(c: Call, self: Any, weight: Any) -> Any:
    """One slope, or one per channel (axis 1)."""
    x, slope = c.tensor(self), c.tensor(weight, "its weight")
    if slope.type.elements > 1 and slope.type.rank == 1 and x.type.rank > 2:
        slope = c.reshape(slope, (slope.type.elements, *[1] * (x.type.rank - 2)))
    elif slope.type.elements == 1:
        slope = c.reshape(slope, ())
    return c.emit(activation.PRelu, x, slope)


@aten("aten::elu")
def elu(c: Call, self: Any, alpha: Any = 1.0, scale: Any = 1.0, input_scale: Any = 1.0) -> Any:
    """scale * (x where x > 0, else alpha * (exp(input_scale * x) - 1))."""
    x = c.tensor(self)
    if input_scale != 1:
        below = c.emit(activation.Elu, c.emit(math.Mul, x, c.scalar_like(input_scale, x)), alpha=float(alpha))
        positive = c.emit(math.Greater, x, c.scalar_like(0.0, x))
        y = c.emit(math.Where, positive, x, below)
    else:
        y = c.emit(activation.Elu, x, alpha=float(alpha))
    return y if scale == 1 else c.emit(math.Mul, y, c.scalar_like(scale, y))


@aten("aten::celu")
def celu(c: Call, self: Any, alpha: Any = 1.0) -> Any:
    return c.emit(activation.Celu, c.tensor(self), alpha=float(alpha))


@aten("aten::gelu")
def gelu(c: Call, self: Any, approximate: str = "none") -> Any:
    return c.emit(activation.Gelu, c.tensor(self), approximate=approximate)


@aten("aten::softplus")
def softplus(c: Call, self: Any, beta: Any = 1, threshold: Any = 20) -> Any:
    """log(1 + exp(beta x)) / beta; above the threshold torch returns x, which differs by less than its rounding."""
    x = c.tensor(self)
    scaled = x if beta == 1 else c.emit(math.Mul, x, c.scalar_like(beta, x))
    y = c.emit(activation.Softplus, scaled)
    y = y if beta == 1 else c.emit(math.Div, y, c.scalar_like(beta, y))
    if threshold >= 17:
        return y
    return c.emit(math.Where, c.emit(math.Greater, scaled, c.scalar_like(threshold, x)), x, y)


@aten("aten::log_sigmoid")
def log_sigmoid(c: Call, self: Any) -> Any:
    """-softplus(-x)."""
    return c.emit(math.Neg, c.emit(activation.Softplus, c.emit(math.Neg, c.tensor(self))))


@aten("aten::log_sigmoid_forward")
def log_sigmoid_forward(c: Call, self: Any) -> Any:
    return log_sigmoid(c, self), None


@aten("aten::glu")
def glu(c: Call, self: Any, dim: int = -1) -> Any:
    """The first half along an axis times the sigmoid of the second."""
    x = c.tensor(self)
    axis, shape = c.axis(dim, x.type.rank), list(x.type.static_shape)
    if shape[axis] % 2:
        raise Malformed(f"cannot halve {shape[axis]} elements")
    shape[axis] //= 2
    starts = [shape[axis] if i == axis else 0 for i in range(len(shape))]
    first = c.emit(tensor.Slice, x, starts=[0] * len(shape), sizes=shape)
    second = c.emit(tensor.Slice, x, starts=starts, sizes=shape)
    return c.emit(math.Mul, first, c.emit(activation.Sigmoid, second))


@aten("aten::hardshrink", "aten::softshrink")
def shrink(c: Call, self: Any, lambd: Any = 0.5) -> Any:
    """x outside [-lambd, lambd] (soft: moved towards 0 by lambd), 0 inside."""
    x = c.tensor(self)
    inside = c.emit(math.Clip, x, low=-float(lambd), high=float(lambd))
    moved = c.emit(math.Sub, x, inside)
    if c.base == "softshrink":
        return moved
    return c.emit(math.Where, c.emit(math.Equal, moved, c.scalar_like(0.0, x)), c.scalar_like(0.0, x), x)


@aten("aten::tanhshrink")
def tanhshrink(c: Call, self: Any) -> Any:
    return c.emit(math.Sub, self, c.emit(math.Tanh, c.tensor(self)))


# -- softmax -----------------------------------------------------------------------------------------------------------
SOFTMAXES: dict[str, type[Op]] = {
    "softmax": activation.Softmax, "log_softmax": activation.LogSoftmax, "special_softmax": activation.Softmax,
    "special_log_softmax": activation.LogSoftmax,
}  # fmt: skip


def _softmax(c: Call, op_class: type[Op], x: Value, dim: Any) -> Value:
    x = c.real(x)
    if x.type.rank:
        return c.emit(op_class, x, axis=c.axis(dim, x.type.rank))
    return c.reshape(c.emit(op_class, c.reshape(x, (1,)), axis=0), ())


@aten(*(f"aten::{name}" for name in SOFTMAXES))
def softmax(c: Call, self: Any, dim: Any, dtype: Any = None) -> Any:
    return _softmax(c, SOFTMAXES[c.base], converted(c, self, dtype), dim)


@aten("aten::_softmax")
def core_softmax(c: Call, self: Any, dim: Any, half_to_float: Any = None) -> Any:
    return _softmax(c, activation.Softmax, self, dim)


@aten("aten::_log_softmax")
def core_log_softmax(c: Call, self: Any, dim: Any, half_to_float: Any = None) -> Any:
    return _softmax(c, activation.LogSoftmax, self, dim)


@aten("aten::_safe_softmax")
def safe_softmax(c: Call, self: Any, dim: Any, dtype: Any = None) -> Any:
    """A softmax that gives 0 where all elements along the axis are -inf."""
    y = _softmax(c, activation.Softmax, self, dim)
    unusable = c.emit(math.IsNan, y)
    return c.emit(math.Where, unusable, c.constant(0.0, DType.F32), y)
