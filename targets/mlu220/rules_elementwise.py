"""Rules of elementwise ops: activations, arithmetic with broadcasting, comparison and selection, powers.

A truth value is 0 or 1 in the working float type. Comparisons have no instruction of their own: the difference of
unequal numbers is never 0 (subnormals are kept), so, made large and clipped, it is a truth value. Infinite operands of
one sign compare as not a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.ir.core import Constant, Value
from compiler.ir.types import DType
from targets.mlu220.lowering import Lowering
from targets.mlu220.rule_table import also_takes, rule

MAX_BROADCAST_BYTES = 16 << 20
"""A constant operand may be repeated to the full shape up to this size."""

STEEP = {DType.F16: 2.0**15, DType.F32: 2.0**120}
"""Twice this times the smallest number of a type is at least 1."""

LARGEST_POWER = 4
"""Integer powers up to this are products."""


def through_float(lowering: Lowering, op: Any, body: Callable[[Value], Value]) -> Value:
    """Apply a float computation; a quantised operand goes through float and back, both exact."""
    quant = op.inputs[0].type.quant
    if quant is None:
        return body(lowering.floating(op.inputs[0], lowering.working(op.inputs[0])))
    wide = DType.F32 if quant.storage is DType.I16 else lowering.float
    y = body(lowering.make("mlu.convert", lowering.get(op.inputs[0]), to=wide))
    return lowering.make("mlu.convert", y, to=quant.storage, rounding=lowering.rounding)


def in_working_type(lowering: Lowering, op: Any) -> Value:
    """The first operand as a float of the type to compute in."""
    return lowering.floating(op.inputs[0], lowering.working(op.inputs[0]))


# -- one operand -----------------------------------------------------------------------------------------------------
UNARY = {
    "nn.relu": "relu", "nn.sigmoid": "sigmoid", "math.tanh": "tanh", "math.exp": "exp", "math.log": "log",
    "math.sqrt": "sqrt", "math.rsqrt": "rsqrt", "math.reciprocal": "reciprocal", "math.erf": "erf", "math.abs": "abs",
}  # fmt: skip


@rule(*UNARY)
def unary(lowering: Lowering, op: Any) -> Value:
    return through_float(lowering, op, lambda x: lowering.make(f"mlu.{UNARY[op.op_name]}", x))


@rule("nn.leaky_relu")
def leaky_relu(lowering: Lowering, op: Any) -> Value:
    return lowering.make("mlu.leaky_relu", in_working_type(lowering, op), parameter_value=op.alpha)


def _prelu_condition(op: Any) -> str | None:
    return None if isinstance(op.slope, Constant) else "slope is not constant"


@rule("nn.prelu", condition=_prelu_condition)
def prelu(lowering: Lowering, op: Any) -> Value:
    x = in_working_type(lowering, op)
    negative = combine(lowering, "mul", lowering.make("mlu.min", x, constant=0.0), op.slope)
    return lowering.make("mlu.add", lowering.make("mlu.relu", x), negative)


@rule("math.clip")
def clip(lowering: Lowering, op: Any) -> Value:
    return through_float(lowering, op, lambda x: clipped(lowering, x, op.low, op.high))


def clipped(lowering: Lowering, x: Value, low: float, high: float) -> Value:
    """x limited to [low, high]."""
    if low == 0.0:
        x = lowering.make("mlu.relu", x)
    elif low > -math.inf:
        x = lowering.make("mlu.max", x, constant=low)
    return lowering.make("mlu.min", x, constant=high) if high < math.inf else x


class Formula:
    """Short names for writing activations: `f.mul(x, 2.0)`, `f.exp(x)`; a number is an immediate."""

    def __init__(self, lowering: Lowering) -> None:
        self._lowering = lowering

    def __getattr__(self, name: str) -> Callable[..., Value]:
        def make(x: Value, second: Value | float | None = None) -> Value:
            if isinstance(second, Value):
                return self._lowering.make(f"mlu.{name}", x, second)
            constant = {} if second is None else {"constant": float(second)}
            return self._lowering.make(f"mlu.{name}", x, **constant)

        return make


def _elu(f: Any, x: Value, alpha: float, inner: float = 1.0) -> Value:
    below = f.min(x, 0.0)
    powers = f.add(f.exp(below if inner == 1.0 else f.mul(below, inner)), -1.0)
    return f.add(f.relu(x), powers if alpha == 1.0 else f.mul(powers, alpha))


def _softplus(f: Any, x: Value) -> Value:
    """max(x, 0) + log(1 + exp(-|x|)): never overflows."""
    return f.add(f.log(f.add(f.exp(f.mul(f.abs(x), -1.0)), 1.0)), f.relu(x))


def _hard(f: Any, x: Value, alpha: float, beta: float) -> Value:
    return f.min(f.relu(f.add(f.mul(x, alpha), beta)), 1.0)


def _gelu(f: Any, x: Value, approximate: str) -> Value:
    half = f.mul(x, 0.5)
    if approximate == "none":
        return f.mul(half, f.add(f.erf(f.mul(x, math.sqrt(0.5))), 1.0))
    cubic = f.mul(x, f.add(f.mul(f.mul(x, x), 0.044715), 1.0))
    return f.mul(half, f.add(f.tanh(f.mul(cubic, math.sqrt(2.0 / math.pi))), 1.0))


def _steep(f: Any, x: Value) -> Value:
    """A number of the sign of x that is at least 1 away from 0, or 0."""
    factor = STEEP[x.type.dtype]
    return f.mul(f.mul(x, factor), factor)


FORMULAS: dict[str, Callable[[Any, Value, Any], Value]] = {
    "math.neg": lambda f, x, op: f.mul(x, -1.0),
    "math.sign": lambda f, x, op: f.min(f.max(_steep(f, x), -1.0), 1.0),
    "nn.silu": lambda f, x, op: f.mul(x, f.sigmoid(x)),
    "nn.gelu": lambda f, x, op: _gelu(f, x, op.approximate),
    "nn.hard_sigmoid": lambda f, x, op: _hard(f, x, op.alpha, op.beta),
    "nn.hard_swish": lambda f, x, op: f.mul(x, _hard(f, x, 1.0 / 6.0, 0.5)),
    "nn.elu": lambda f, x, op: _elu(f, x, op.alpha),
    "nn.selu": lambda f, x, op: f.mul(_elu(f, x, op.alpha), op.gamma),
    "nn.celu": lambda f, x, op: _elu(f, x, op.alpha, 1.0 / op.alpha),
    "nn.thresholded_relu": lambda f, x, op: f.mul(x, f.min(_steep(f, f.relu(f.add(x, -op.alpha))), 1.0)),
    "nn.softplus": lambda f, x, op: _softplus(f, x),
    "nn.softsign": lambda f, x, op: f.mul(x, f.reciprocal(f.add(f.abs(x), 1.0))),
    "nn.mish": lambda f, x, op: f.mul(x, f.tanh(_softplus(f, x))),
}
"""Activations composed of instructions: op → function of (formula, x, op)."""


@rule(*FORMULAS)
def composed(lowering: Lowering, op: Any) -> Value:
    return FORMULAS[op.op_name](Formula(lowering), in_working_type(lowering, op), op)


# -- powers ----------------------------------------------------------------------------------------------------------
NOT_NEGATIVE = frozenset({
    "nn.relu", "nn.sigmoid", "nn.softplus", "nn.hard_sigmoid", "nn.softmax", "math.abs", "math.exp", "math.sqrt",
    "reduce.l1", "reduce.l2", "reduce.sum_square",
})  # fmt: skip
"""Ops whose results are never negative."""


def _exponent(op: Any) -> float | None:
    """The constant exponent, one number; None where it is none."""
    if not isinstance(op.b, Constant) or isinstance(op.a, Constant):
        return None
    values = np.unique(op.b.data.astype(np.float64))
    same_shape = np.broadcast_shapes(op.a.type.static_shape, op.b.type.static_shape) == op.a.type.static_shape
    return float(values[0]) if len(values) == 1 and same_shape else None


def _never_negative(value: Value) -> bool:
    producer = value.producer
    if producer is None:
        return False
    if producer.op_name == "math.clip":
        return producer.attributes.get("low", -math.inf) >= 0
    return producer.op_name in NOT_NEGATIVE or (producer.op_name == "math.pow" and _exponent(producer) == 2.0)


def _pow_condition(op: Any) -> str | None:
    exponent = _exponent(op)
    if exponent is None:
        return "exponent is not one constant number"
    if abs(exponent) in (0.5, *range(1, LARGEST_POWER + 1)) or (exponent > 0 and _never_negative(op.a)):
        return None
    return f"the power {exponent:g} goes by the logarithm, and the base may be negative"


@rule("math.pow", condition=_pow_condition)
def power(lowering: Lowering, op: Any) -> Value:
    f: Any = Formula(lowering)
    x = lowering.floating(op.a, lowering.working(op.a))
    exponent = _exponent(op)
    assert exponent is not None
    size = abs(exponent)
    if size == 0.5:
        return f.sqrt(x) if exponent > 0 else f.rsqrt(x)
    if size > LARGEST_POWER or size != int(size):
        return f.exp(f.mul(f.log(x), exponent))
    y = x
    for _ in range(int(size) - 1):
        y = f.mul(y, x)
    return f.reciprocal(y) if exponent < 0 else y


# -- two operands ----------------------------------------------------------------------------------------------------
BINARY = {
    "math.add": "add", "math.sub": "sub", "math.mul": "mul", "math.div": "mul", "math.maximum": "max",
    "math.minimum": "min",
}  # fmt: skip


def _binary_condition(op: Any) -> str | None:
    a, b = op.inputs[-2:]
    if all(isinstance(v, Constant) for v in op.inputs):
        return "all operands are constant"
    if a.type.quant is not None or b.type.quant is not None:
        return "operands are quantised"
    return None


def spread_shape(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """A shape with leading axes of 1 up to a rank."""
    return (1,) * (rank - len(shape)) + shape


def broadcasted(lowering: Lowering, value: Value, full: tuple[int, ...]) -> Value:
    """A lowered value repeated to a shape it broadcasts to."""
    shape = spread_shape(value.type.static_shape, len(full))
    value = lowering.reshaped(value, shape)
    if shape == full:
        return value
    picked = [(0,) * d if d != one else () for d, one in zip(full, shape, strict=True)]
    return lowering.make("mlu.take", value, indices=tuple(picked))


def combine(lowering: Lowering, name: str, a: Value, b: Value, lowered: Value | None = None) -> Value:
    """`a name b` with `a` lowered and of the result's shape; `b` is neutral, or already `lowered`: an immediate, a
    vector along the last axis, one number a row, or 1 instead of some other axes."""
    full = a.type.static_shape
    if isinstance(b, Constant) and lowered is None:
        if b.type.elements == 1:
            return lowering.make(f"mlu.{name}", a, constant=float(b.data.astype(np.float32).reshape(())))
        data = b.data.astype(np.float32)
        shape = _second_shape(data.shape, full)
        return lowering.make(f"mlu.{name}", a, lowering.constant(b.name, data.reshape(shape), a.type.dtype))
    second = lowered if lowered is not None else lowering.floating(b, a.type.dtype)
    second = lowering.reshaped(second, _second_shape(second.type.static_shape, full))
    return lowering.make(f"mlu.{name}", a, second)


def _second_shape(shape: tuple[int, ...], full: tuple[int, ...]) -> tuple[int, ...]:
    """The shape under which a second operand is read: a vector where it is one number per index of the last axis."""
    if shape and shape != full and len(full) > 1 and math.prod(shape) == shape[-1] == full[-1]:
        return (full[-1],)
    return spread_shape(shape, len(full))


def _in_full(lowering: Lowering, value: Value, full: tuple[int, ...], dtype: DType) -> Value:
    """A neutral value in a float type, repeated to a shape."""
    if isinstance(value, Constant):
        data = np.ascontiguousarray(np.broadcast_to(value.data.astype(np.float32), full))
        return lowering.constant(value.name, data, dtype)
    return broadcasted(lowering, lowering.floating(value, dtype), full)


@rule(*BINARY, condition=_binary_condition)
def binary(lowering: Lowering, op: Any) -> Value:
    a, b, name = op.a, op.b, BINARY[op.op_name]
    full = op.result.type.static_shape
    dtype = lowering.working(a, b)
    swap = isinstance(a, Constant) or (a.type.static_shape != full and not isinstance(b, Constant))
    if op.op_name == "math.div":
        if isinstance(b, Constant):
            inverse = (np.float32(1.0) / b.data.astype(np.float32)).astype(np.float32)
            b = lowering.module.add_constant(f"{b.name}.inverse", inverse)
        else:
            inverted = lowering.make("mlu.reciprocal", lowering.floating(b, dtype))
            if swap:
                return combine(lowering, name, broadcasted(lowering, inverted, full), a)
            return combine(lowering, name, _in_full(lowering, a, full, dtype), b, lowered=inverted)
    if swap and op.op_name == "math.sub":
        negated = lowering.make("mlu.mul", lowering.floating(b, dtype), constant=-1.0)
        return combine(lowering, "add", broadcasted(lowering, negated, full), a)
    if swap:
        a, b = b, a
    return combine(lowering, name, broadcasted(lowering, lowering.floating(a, dtype), full), b)


# -- truth values ----------------------------------------------------------------------------------------------------
COMPARISONS: dict[str, Callable[[Any, Value], Value]] = {
    "math.greater": lambda f, d: _is_positive(f, d),
    "math.less": lambda f, d: _is_positive(f, f.mul(d, -1.0)),
    "math.less_equal": lambda f, d: _not(f, _is_positive(f, d)),
    "math.greater_equal": lambda f, d: _not(f, _is_positive(f, f.mul(d, -1.0))),
    "math.equal": lambda f, d: _not(f, _is_positive(f, f.abs(d))),
}
"""Comparison → truth value from the difference of its operands."""


def _is_positive(f: Any, x: Value) -> Value:
    return f.min(_steep(f, f.relu(x)), 1.0)


def _not(f: Any, x: Value) -> Value:
    return f.add(f.mul(x, -1.0), 1.0)


def _comparison_condition(op: Any) -> str | None:
    if any(v.type.dtype is DType.BOOL for v in op.inputs):
        return "compares truth values"
    return _binary_condition(op)


@also_takes(DType.BOOL, *COMPARISONS)
@rule(*COMPARISONS, condition=_comparison_condition)
def comparison(lowering: Lowering, op: Any) -> Value:
    full = op.result.type.static_shape
    dtype = lowering.working(op.a, op.b)
    if isinstance(op.a, Constant):
        reversed_ = lowering.make("mlu.mul", _in_full(lowering, op.b, full, dtype), constant=-1.0)
        difference = combine(lowering, "add", reversed_, op.a)
    else:
        difference = combine(lowering, "sub", _in_full(lowering, op.a, full, dtype), op.b)
    return COMPARISONS[op.op_name](Formula(lowering), difference)


def _where_condition(op: Any) -> str | None:
    for value in op.inputs[1:]:
        if value.type.quant is not None:
            return "operands are quantised"
        if isinstance(value, Constant) and not np.isfinite(value.data).all():
            return "an infinite constant cannot be selected by multiplication"
    return None


@also_takes(DType.BOOL, "math.where")
@rule("math.where", condition=_where_condition)
def where(lowering: Lowering, op: Any) -> Value:
    """cond * a + (1 - cond) * b: exact for finite numbers."""
    condition, a, b = op.inputs
    full = op.result.type.static_shape
    dtype = lowering.working(*(v for v in (a, b) if not isinstance(v, Constant)))
    f: Any = Formula(lowering)
    mask = _in_full(lowering, condition, full, dtype)
    first = combine(lowering, "mul", mask, a)
    return f.add(first, combine(lowering, "mul", _not(f, mask), b))


LOGIC: dict[str, Callable[[Any, Value, Value], Value]] = {
    "math.and": lambda f, a, b: f.mul(a, b), "math.or": lambda f, a, b: f.max(a, b),
    "math.xor": lambda f, a, b: f.abs(f.sub(a, b)),
}  # fmt: skip


@also_takes(DType.BOOL, *LOGIC)
@rule(*LOGIC)
def logic(lowering: Lowering, op: Any) -> Value:
    full = op.result.type.static_shape
    a, b = (_in_full(lowering, v, full, lowering.float) for v in op.inputs)
    return LOGIC[op.op_name](Formula(lowering), a, b)


@also_takes(DType.BOOL, "math.not")
@rule("math.not")
def negation(lowering: Lowering, op: Any) -> Value:
    return _not(Formula(lowering), lowering.floating(op.x, lowering.float))


def _cast_condition(op: Any) -> str | None:
    return None if op.result.type.dtype.is_float else f"no conversion to {op.result.type.dtype} on the chip"


@also_takes(DType.BOOL, "math.cast")
@also_takes(DType.U8, "math.cast")
@rule("math.cast", condition=_cast_condition)
def cast(lowering: Lowering, op: Any) -> Value:
    return in_working_type(lowering, op) if op.x.type.dtype is not DType.U8 else _from_bytes(lowering, op)


def _from_bytes(lowering: Lowering, op: Any) -> Value:
    """Bytes as floats: read as i8, those of 128 and more are 256 too small. Exact in either float type."""
    f: Any = Formula(lowering)
    signed = lowering.make("mlu.storage_cast", lowering.get(op.x), types=[op.x.type.with_dtype(DType.I8)])
    x = lowering.make("mlu.convert", signed, to=lowering.asked(op) or lowering.float)
    return f.add(x, f.mul(f.min(f.relu(f.mul(x, -1.0)), 1.0), 256.0))
