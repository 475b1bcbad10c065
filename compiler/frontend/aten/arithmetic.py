"""Rows of arithmetic on elements. Calls on plain numbers, which scripted code is full of, are Python's arithmetic."""

from __future__ import annotations

import math as pymath
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.promotion import no_tensors, together, together_real
from compiler.frontend.aten.registry import aten
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Op, Value
from compiler.ir.types import DType
from compiler.ops import activation, math


# -- two operands ------------------------------------------------------------------------------------------------------
def _scaled(c: Call, x: Value, factor: Any) -> Value:
    """x times the factor `alpha` of add and sub."""
    return x if factor == 1 else c.emit(math.Mul, x, c.scalar_like(c.number(factor, "alpha"), x))


@aten("aten::add")
def add(c: Call, self: Any, other: Any, alpha: Any = 1) -> Any:
    """Also of two numbers, strings or lists."""
    if no_tensors([self, other]):
        return self + (other if alpha == 1 else other * alpha)
    a, b = together(c, self, other)
    if a.type.dtype is DType.BOOL:
        return c.emit(math.Or, a, b)
    return c.emit(math.Add, a, _scaled(c, b, alpha))


@aten("aten::sub", "aten::subtract")
def sub(c: Call, self: Any, other: Any, alpha: Any = 1) -> Any:
    if no_tensors([self, other]):
        return self - other * alpha
    a, b = together(c, self, other)
    return c.emit(math.Sub, a, _scaled(c, b, alpha))


@aten("aten::rsub")
def rsub(c: Call, self: Any, other: Any, alpha: Any = 1) -> Any:
    a, b = together(c, self, other)
    return c.emit(math.Sub, b, _scaled(c, a, alpha))


@aten("aten::mul", "aten::multiply")
def mul(c: Call, self: Any, other: Any) -> Any:
    if no_tensors([self, other]):
        return self * other
    a, b = together(c, self, other)
    return c.emit(math.And if a.type.dtype is DType.BOOL else math.Mul, a, b)


@aten("aten::div", "aten::divide")
def div(c: Call, self: Any, other: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode == "floor":
        return floor_divide(c, self, other)
    if rounding_mode is None:
        return true_divide(c, self, other)
    if rounding_mode != "trunc":
        raise Malformed(f"rounding_mode is {rounding_mode!r}")
    if no_tensors([self, other]):
        return pymath.trunc(self / other)
    a, b = together(c, self, other)
    y = c.emit(math.Div, a, b)
    return trunc(c, y) if y.type.dtype.is_float else y


@aten("aten::true_divide")
def true_divide(c: Call, self: Any, other: Any) -> Any:
    return self / other if no_tensors([self, other]) else c.emit(math.Div, *together_real(c, self, other))


@aten("aten::floor_divide", "aten::floordiv")
def floor_divide(c: Call, self: Any, other: Any) -> Any:
    if no_tensors([self, other]):
        return self // other
    a, b = together(c, self, other)
    if a.type.dtype.is_float:
        return c.emit(math.Floor, c.emit(math.Div, a, b))
    return c.emit(math.Div, c.emit(math.Sub, a, c.emit(math.Mod, a, b)), b)


@aten("aten::remainder")
def remainder(c: Call, self: Any, other: Any) -> Any:
    if no_tensors([self, other]):
        return self % other
    a, b = together(c, self, other)
    if not a.type.dtype.is_float:
        return c.emit(math.Mod, a, b)
    return c.emit(math.Sub, a, c.emit(math.Mul, c.emit(math.Floor, c.emit(math.Div, a, b)), b))


@aten("aten::fmod")
def fmod(c: Call, self: Any, other: Any) -> Any:
    if no_tensors([self, other]):
        return pymath.fmod(self, other)
    return c.emit(math.Mod, *together(c, self, other), fmod=True)


@aten("aten::pow", "aten::float_power")
def power(c: Call, self: Any, exponent: Any) -> Any:
    """Small known exponents of reals are products and roots, which the target has."""
    if no_tensors([self, exponent]):
        return self**exponent
    if c.base == "float_power":
        self = c.real(self)
    if isinstance(self, Value) and self.type.dtype.is_float and isinstance(exponent, int | float):
        y = _simple_power(c, self, float(exponent))
        if y is not None:
            return y
    return c.emit(math.Pow, *together(c, self, exponent))


def _simple_power(c: Call, x: Value, exponent: float) -> Value | None:
    if exponent == 1.0:
        return x
    if exponent == 2.0:
        return c.emit(math.Mul, x, x)
    if exponent == 3.0:
        return c.emit(math.Mul, c.emit(math.Mul, x, x), x)
    plain = {0.5: math.Sqrt, -0.5: math.Rsqrt, -1.0: math.Reciprocal}.get(exponent)
    return None if plain is None else c.emit(plain, x)


EXTREMES: dict[str, type[Op]] = {
    "maximum": math.Maximum, "minimum": math.Minimum, "fmax": math.Maximum, "fmin": math.Minimum,
}  # fmt: skip


@aten("aten::fmax", "aten::fmin")
def extreme_of_numbers(c: Call, self: Any, other: Any) -> Any:
    """Where one operand is NaN, the other."""
    a, b = together(c, self, other)
    y = c.emit(EXTREMES[c.base], a, b)
    if not a.type.dtype.is_float:
        return y
    y = c.emit(math.Where, c.emit(math.IsNan, a), b, y)
    return c.emit(math.Where, c.emit(math.IsNan, b), a, y)


@aten("aten::maximum", "aten::minimum")
def extreme(c: Call, self: Any, other: Any) -> Any:
    a, b = together(c, self, other)
    if a.type.dtype is DType.BOOL:
        return c.emit(math.Or if "max" in c.name else math.And, a, b)
    return c.emit(EXTREMES[c.base], a, b)


@aten("aten::hypot")
def hypot(c: Call, self: Any, other: Any) -> Any:
    a, b = together_real(c, self, other)
    return c.emit(math.Sqrt, c.emit(math.Add, c.emit(math.Mul, a, a), c.emit(math.Mul, b, b)))


@aten("aten::atan2", "aten::arctan2")
def atan2(c: Call, self: Any, other: Any) -> Any:
    """The arc tangent of the quotient, half a turn away where the divisor is negative."""
    y, x = together_real(c, self, other)
    zero = c.scalar_like(0.0, x)
    angle = c.emit(math.Atan, c.emit(math.Div, y, x))
    turn = c.emit(math.Where, c.emit(math.Less, y, zero), c.scalar_like(-pymath.pi, x), c.scalar_like(pymath.pi, x))
    found = c.emit(math.Where, c.emit(math.Less, x, zero), c.emit(math.Add, angle, turn), angle)
    both = c.emit(math.And, c.emit(math.Equal, x, zero), c.emit(math.Equal, y, zero))
    return c.emit(math.Where, both, zero, found)


@aten("aten::logaddexp")
def log_add_exp(c: Call, self: Any, other: Any) -> Any:
    a, b = together_real(c, self, other)
    apart = c.emit(math.Neg, c.emit(math.Abs, c.emit(math.Sub, a, b)))
    return c.emit(math.Add, c.emit(math.Maximum, a, b), c.emit(activation.Softplus, apart))


# -- three operands ----------------------------------------------------------------------------------------------------
@aten("aten::addcmul")
def addcmul(c: Call, self: Any, tensor1: Any, tensor2: Any, value: Any = 1) -> Any:
    a, b, d = together(c, self, tensor1, tensor2)
    return c.emit(math.Add, a, _scaled(c, c.emit(math.Mul, b, d), value))


@aten("aten::addcdiv")
def addcdiv(c: Call, self: Any, tensor1: Any, tensor2: Any, value: Any = 1) -> Any:
    a, b, d = together_real(c, self, tensor1, tensor2)
    return c.emit(math.Add, a, _scaled(c, c.emit(math.Div, b, d), value))


@aten("aten::lerp")
def lerp(c: Call, self: Any, end: Any, weight: Any) -> Any:
    a, b = together(c, self, end)
    return c.emit(math.Add, a, c.emit(math.Mul, c.emit(math.Sub, b, a), c.as_tensor(weight, a)))


# -- one operand -------------------------------------------------------------------------------------------------------
REAL: dict[str, tuple[type[Op], Callable[[float], Any]]] = {
    "exp": (math.Exp, pymath.exp), "log": (math.Log, pymath.log), "sqrt": (math.Sqrt, pymath.sqrt),
    "rsqrt": (math.Rsqrt, lambda v: 1 / pymath.sqrt(v)), "reciprocal": (math.Reciprocal, lambda v: 1 / v),
    "erf": (math.Erf, pymath.erf), "tanh": (math.Tanh, pymath.tanh), "sin": (math.Sin, pymath.sin),
    "cos": (math.Cos, pymath.cos), "tan": (math.Tan, pymath.tan), "asin": (math.Asin, pymath.asin),
    "acos": (math.Acos, pymath.acos), "atan": (math.Atan, pymath.atan), "sinh": (math.Sinh, pymath.sinh),
    "cosh": (math.Cosh, pymath.cosh), "asinh": (math.Asinh, pymath.asinh), "acosh": (math.Acosh, pymath.acosh),
    "atanh": (math.Atanh, pymath.atanh), "arcsin": (math.Asin, pymath.asin), "arccos": (math.Acos, pymath.acos),
    "arctan": (math.Atan, pymath.atan),
}  # fmt: skip
"""Functions of reals → our op, and the function of a plain number."""


@aten(*(f"aten::{name}" for name in REAL))
def real_function(c: Call, self: Any, base: Any = None) -> Any:
    """Of numbers, a logarithm may have a base."""
    op_class, plain = REAL[c.base]
    if base is not None:
        return pymath.log(self, base)
    return c.emit(op_class, c.real(self)) if isinstance(self, Value) else plain(self)


ROUNDINGS: dict[str, tuple[type[Op], Callable[[float], Any]]] = {
    "floor": (math.Floor, pymath.floor), "ceil": (math.Ceil, pymath.ceil),
}  # fmt: skip


@aten("aten::floor", "aten::ceil")
def rounding(c: Call, self: Any) -> Any:
    op_class, plain = ROUNDINGS[c.base]
    if not isinstance(self, Value):
        return plain(self)
    return c.emit(op_class, self) if self.type.dtype.is_float else self


@aten("aten::round")
def round_to_even(c: Call, self: Any, decimals: int = 0) -> Any:
    if not isinstance(self, Value):
        return round(self, decimals) if decimals else float(round(self))
    if not self.type.dtype.is_float:
        return self
    if not decimals:
        return c.emit(math.Round, self)
    factor = c.scalar_like(10.0**decimals, self)
    return c.emit(math.Div, c.emit(math.Round, c.emit(math.Mul, self, factor)), factor)


@aten("aten::trunc", "aten::fix")
def trunc(c: Call, self: Any) -> Any:
    if not isinstance(self, Value):
        return pymath.trunc(self)
    if not self.type.dtype.is_float:
        return self
    below = c.emit(math.Less, self, c.scalar_like(0.0, self))
    return c.emit(math.Where, below, c.emit(math.Ceil, self), c.emit(math.Floor, self))


@aten("aten::frac")
def frac(c: Call, self: Any) -> Any:
    return c.emit(math.Sub, self, trunc(c, self))


@aten("aten::neg", "aten::negative", "aten::abs", "aten::absolute", "prim::abs")
def sign_change(c: Call, self: Any) -> Any:
    negates = c.base.startswith("neg")
    if not isinstance(self, Value):
        return -self if negates else abs(self)
    return c.emit(math.Neg if negates else math.Abs, self)


@aten("aten::sign", "aten::sgn")
def sign(c: Call, self: Any) -> Any:
    return self if self.type.dtype is DType.BOOL else c.emit(math.Sign, c.tensor(self))


@aten("aten::square")
def square(c: Call, self: Any) -> Any:
    return c.emit(math.Mul, self, self)


FACTORS: dict[str, tuple[type[Op], float]] = {"log2": (math.Log, 1 / pymath.log(2)),
                                              "log10": (math.Log, 1 / pymath.log(10))}  # fmt: skip


@aten("aten::log2", "aten::log10")
def logarithm(c: Call, self: Any) -> Any:
    if not isinstance(self, Value):
        return getattr(pymath, c.base)(self)
    op_class, factor = FACTORS[c.base]
    y = c.emit(op_class, c.real(self))
    return c.emit(math.Mul, y, c.scalar_like(factor, y))


@aten("aten::log1p", "aten::special_log1p")
def log1p(c: Call, self: Any) -> Any:
    x = c.real(self)
    return c.emit(math.Log, c.emit(math.Add, x, c.scalar_like(1.0, x)))


@aten("aten::expm1", "aten::special_expm1")
def expm1(c: Call, self: Any) -> Any:
    """Where |x| is small, x + x²/2 + x³/6 keeps the digits the difference would lose."""
    x = c.real(self)
    one = c.scalar_like(1.0, x)
    sixth = c.emit(math.Mul, x, c.scalar_like(1 / 3, x))
    inner = c.emit(math.Add, one, sixth)
    half = c.emit(math.Mul, c.emit(math.Mul, x, c.scalar_like(0.5, x)), inner)
    series = c.emit(math.Mul, x, c.emit(math.Add, one, half))
    small = c.emit(math.Less, c.emit(math.Abs, x), c.scalar_like(5e-3, x))
    return c.emit(math.Where, small, series, c.emit(math.Sub, c.emit(math.Exp, x), one))


@aten("aten::exp2", "aten::special_exp2")
def exp2(c: Call, self: Any) -> Any:
    x = c.real(self)
    return c.emit(math.Exp, c.emit(math.Mul, x, c.scalar_like(pymath.log(2), x)))


@aten("aten::erfc")
def erfc(c: Call, self: Any) -> Any:
    x = c.real(self)
    return c.emit(math.Sub, c.scalar_like(1.0, x), c.emit(math.Erf, x))


@aten("aten::logit")
def logit(c: Call, self: Any, eps: Any = None) -> Any:
    x = c.real(self)
    x = x if eps is None else c.emit(math.Clip, x, low=float(eps), high=1.0 - float(eps))
    return c.emit(math.Log, c.emit(math.Div, x, c.emit(math.Sub, c.scalar_like(1.0, x), x)))


@aten("aten::deg2rad", "aten::rad2deg")
def angle_unit(c: Call, self: Any) -> Any:
    x = c.real(self)
    return c.emit(math.Mul, x, c.scalar_like(pymath.pi / 180 if c.base == "deg2rad" else 180 / pymath.pi, x))


@aten("aten::nan_to_num")
def nan_to_num(c: Call, self: Any, nan: Any = None, posinf: Any = None, neginf: Any = None) -> Any:
    x = c.tensor(self)
    if not x.type.dtype.is_float:
        return x
    largest = float(np.finfo(np.float32).max)
    x = c.emit(math.Where, c.emit(math.IsNan, x), c.scalar_like(0.0 if nan is None else float(nan), x), x)
    high, low = (largest if posinf is None else float(posinf)), (-largest if neginf is None else float(neginf))
    x = c.emit(math.Where, c.emit(math.Equal, x, c.scalar_like(np.inf, x)), c.scalar_like(high, x), x)
    return c.emit(math.Where, c.emit(math.Equal, x, c.scalar_like(-np.inf, x)), c.scalar_like(low, x), x)


# -- bounds ------------------------------------------------------------------------------------------------------------
@aten("aten::clamp", "aten::clip", "aten::hardtanh")
def clamp(c: Call, self: Any, min: Any = None, max: Any = None, **named: Any) -> Any:
    """Bounds are numbers, or tensors that broadcast."""
    low, high = named.get("min_val", min), named.get("max_val", max)
    if c.base == "hardtanh":
        low, high = (-1.0 if low is None else low), (1.0 if high is None else high)
    x = c.tensor(self)
    if not isinstance(low, Value) and not isinstance(high, Value):
        real = x.type.dtype.is_float or any(isinstance(bound, float) for bound in (low, high))
        if real:
            x = c.real(x)
            return c.emit(math.Clip, x, low=-np.inf if low is None else float(low),
                          high=np.inf if high is None else float(high))  # fmt: skip
    if low is not None:
        x = c.emit(math.Maximum, *together(c, x, low))
    return c.emit(math.Minimum, *together(c, x, high)) if high is not None else x


@aten("aten::clamp_min")
def clamp_min(c: Call, self: Any, min: Any) -> Any:
    return clamp(c, self, min, None)


@aten("aten::clamp_max")
def clamp_max(c: Call, self: Any, max: Any) -> Any:
    return clamp(c, self, None, max)


# -- bits --------------------------------------------------------------------------------------------------------------
BITS: dict[str, tuple[type[Op], type[Op], Callable]] = {
    "and": (math.And, math.BitwiseAnd, operator.and_), "or": (math.Or, math.BitwiseOr, operator.or_),
    "xor": (math.Xor, math.BitwiseXor, operator.xor),
}  # fmt: skip
"""Function → our op of booleans, of integers, and of plain numbers."""


@aten(*(f"aten::bitwise_{name}" for name in BITS), *(f"aten::__{name}__" for name in BITS))
def bitwise(c: Call, self: Any, other: Any) -> Any:
    logical, bits, plain = BITS[c.base.removeprefix("bitwise_").strip("_")]
    if no_tensors([self, other]):
        return plain(self, other)
    a, b = together(c, self, other)
    return c.emit(logical if a.type.dtype is DType.BOOL else bits, a, b)


@aten("aten::bitwise_not")
def bitwise_not(c: Call, self: Any) -> Any:
    x = c.tensor(self)
    return c.emit(math.Not if x.type.dtype is DType.BOOL else math.BitwiseNot, x)


@aten("aten::__lshift__", "aten::__rshift__", "aten::bitwise_left_shift", "aten::bitwise_right_shift")
def shift(c: Call, self: Any, other: Any) -> Any:
    """By powers of two: a right shift of a negative number rounds down."""
    left = "left" in c.name or "lshift" in c.name
    if no_tensors([self, other]):
        return self << other if left else self >> other
    if isinstance(other, Value):
        raise Unsupported("shifts by a tensor", "shift by a number")
    x = c.tensor(self)
    factor = c.scalar_like(1 << c.integer(other, "the shift"), x)
    return c.emit(math.Mul, x, factor) if left else floor_divide(c, x, factor)


# -- of two operands, by others ----------------------------------------------------------------------------------------
@aten("aten::copysign")
def copy_sign(c: Call, self: Any, other: Any) -> Any:
    """The sign of a zero is not told apart."""
    a, b = together_real(c, self, other)
    size = c.emit(math.Abs, a)
    return c.emit(math.Where, c.emit(math.Less, b, c.scalar_like(0.0, b)), c.emit(math.Neg, size), size)


@aten("aten::xlogy", "aten::special_xlogy")
def x_log_y(c: Call, self: Any, other: Any) -> Any:
    x, y = together_real(c, self, other)
    zero = c.scalar_like(0.0, x)
    return c.emit(math.Where, c.emit(math.Equal, x, zero), zero, c.emit(math.Mul, x, c.emit(math.Log, y)))


@aten("aten::sinc", "aten::special_sinc")
def sinc(c: Call, self: Any) -> Any:
    x = c.real(self)
    turned = c.emit(math.Mul, x, c.scalar_like(pymath.pi, x))
    at_zero = c.emit(math.Equal, x, c.scalar_like(0.0, x))
    one = c.scalar_like(1.0, x)
    quotient = c.emit(math.Div, c.emit(math.Sin, turned), c.emit(math.Where, at_zero, one, turned))
    return c.emit(math.Where, at_zero, one, quotient)
