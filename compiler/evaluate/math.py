"""Evaluators of the `math.` ops. What IEEE 754 rounds correctly, integers and comparisons fold; what libm computes
does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.evaluate.registry import evaluator
from compiler.ir.core import Constant, Op


def _register(name: str, function: Callable[..., Any], *, folds: bool) -> None:
    """An evaluator that applies a NumPy function to the operands."""

    @evaluator(name, folds=folds, widens=True)
    def apply(op: Op, *arrays: np.ndarray) -> np.ndarray:
        return function(*arrays)


EXACT: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "maximum": np.maximum, "minimum": np.minimum,
    "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil, "round": np.rint,
    "sign": np.sign, "reciprocal": np.reciprocal, "where": np.where, "isnan": np.isnan, "isinf": np.isinf,
    "equal": np.equal, "less": np.less, "less_equal": np.less_equal, "greater": np.greater,
    "greater_equal": np.greater_equal, "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor,
    "not": np.logical_not, "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor,
    "bitwise_not": np.bitwise_not,
}  # fmt: skip
LIBM: dict[str, Callable[..., Any]] = {
    "exp": np.exp, "log": np.log, "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin,
    "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "asinh": np.arcsinh, "acosh": np.arccosh,
    "atanh": np.arctanh,
}  # fmt: skip

for _name, _function in EXACT.items():
    _register(f"math.{_name}", _function, folds=True)
for _name, _function in LIBM.items():
    _register(f"math.{_name}", _function, folds=False)


def _shifted(function: Callable[..., np.ndarray], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shifts by the width or more, which C leaves open, leave nothing, or the sign where a signed one goes down. A
    negative number of places counts as its unsigned reading, so as more than the width."""
    width, unsigned = a.dtype.itemsize * 8, b.view(np.dtype(f"u{b.dtype.itemsize}"))
    beyond = a < 0 if function is np.right_shift else np.zeros((), bool)
    small = np.minimum(unsigned, width - 1).astype(b.dtype)
    return np.where(unsigned < width, function(a, small), np.where(beyond, -1, 0).astype(a.dtype))


@evaluator("math.shift_left", folds=True)
def shift_left(op: Op, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _shifted(np.left_shift, a, b)


@evaluator("math.shift_right", folds=True)
def shift_right(op: Op, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _shifted(np.right_shift, a, b)


@evaluator("math.bitcast", folds=True)
def bitcast(op: Op, x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).view(op.to.numpy).reshape(x.shape)  # type: ignore[attr-defined]


@evaluator("math.det", widens=True)
def det(op: Op, x: np.ndarray) -> np.ndarray:
    return np.linalg.det(x)


@evaluator("math.dft", widens=True)
def dft(op: Op, x: np.ndarray) -> np.ndarray:
    axis = op.axis % x.ndim  # type: ignore[attr-defined]
    signal = x[..., 0] if x.shape[-1] == 1 else x[..., 0] + 1j * x[..., 1].astype(x.dtype)
    if op.inverse and op.onesided:  # type: ignore[attr-defined]
        return np.fft.irfft(signal, op.length, axis)[..., None].astype(x.dtype)  # type: ignore[attr-defined]
    found = (np.fft.ifft if op.inverse else np.fft.fft)(signal, op.length, axis)  # type: ignore[attr-defined]
    parts = np.stack([found.real, found.imag], axis=-1).astype(x.dtype)
    return parts[(slice(None),) * axis + (slice(op.result.type.shape[axis]),)]  # type: ignore[attr-defined]


@evaluator("math.rsqrt", folds=True, widens=True)
def rsqrt(op: Op, x: np.ndarray) -> np.ndarray:
    """Two correctly rounded steps: the square root, then the quotient."""
    return np.reciprocal(np.sqrt(x))


@evaluator("math.div", folds=True, widens=True)
def div(op: Op, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integers truncate towards zero; a quotient by zero is zero there."""
    if a.dtype.kind == "f":
        return np.divide(a, b)
    quotient = np.floor_divide(a, b)
    inexact = (a - quotient * b != 0) & ((a < 0) != (b < 0)) & (b != 0)
    return (quotient + inexact).astype(a.dtype)


@evaluator("math.mod", folds=True, widens=True)
def mod(op: Op, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The remainder is exact in either convention."""
    return np.fmod(a, b) if op.fmod else np.mod(a, b)  # type: ignore[attr-defined]


EXACT_POWERS: dict[float, Callable[[np.ndarray], np.ndarray]] = {
    0.0: np.ones_like, 0.5: np.sqrt, 1.0: np.positive, 2.0: np.square, -1.0: np.reciprocal,
}  # fmt: skip
"""Exponents whose power is one correctly rounded operation. pow(-inf, 0.5) is inf by C's rule and NaN here: roots are
meant."""


def _exact_exponent(exponent: np.ndarray) -> Callable[[np.ndarray], np.ndarray] | None:
    return EXACT_POWERS.get(float(exponent.reshape(-1)[0])) if exponent.size == 1 else None


def _power_folds(op: Op) -> bool:
    a, b = op.inputs
    if not a.type.dtype.is_float:
        return True
    return isinstance(b, Constant) and _exact_exponent(b.data) is not None


@evaluator("math.pow", folds=_power_folds, widens=True)
def power(op: Op, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    exact = _exact_exponent(b) if a.dtype.kind == "f" else None
    if exact is not None:
        shape = np.broadcast_shapes(a.shape, b.shape)
        return exact(a).reshape(shape)
    if a.dtype.kind == "f":
        return np.power(a, b)
    return _integer_power(a, b)


def _integer_power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a^b by squaring, wrapping; a negative exponent gives the truncated reciprocal: 0, or ±1 for a = ±1."""
    result = np.ones(np.broadcast_shapes(a.shape, b.shape), a.dtype)
    base = np.broadcast_to(a, result.shape).copy()
    exponent = np.abs(np.broadcast_to(b, result.shape).astype(np.int64))
    while exponent.any():
        np.multiply(result, base, out=result, where=(exponent & 1).astype(bool))
        np.multiply(base, base, out=base)
        exponent = exponent >> 1
    vanishes = np.broadcast_to(b < 0, result.shape) & (np.abs(np.broadcast_to(a, result.shape)) != 1)
    return np.where(vanishes, np.zeros((), a.dtype), result)


@evaluator("math.erf", widens=True)
def erf(op: Op, x: np.ndarray) -> np.ndarray:
    """Accurate to the last bit or so: the C library's function, applied to every element by a compiled loop."""
    from compiler.evaluate import kernels

    return kernels.erf(x)


def integer_bounds(dtype: np.dtype, low: float, high: float) -> tuple[int, int]:
    """Bounds of a clip as integers of a type: those beyond it are its own, others are rounded inwards."""
    limits = np.iinfo(dtype)
    lowest = limits.min if low <= limits.min else int(np.ceil(min(low, limits.max)))
    highest = limits.max if high >= limits.max else int(np.floor(max(high, limits.min)))
    return min(lowest, limits.max), max(highest, limits.min)


@evaluator("math.clip", folds=True, widens=True)
def clip(op: Op, x: np.ndarray) -> np.ndarray:
    """Integers are compared as integers."""
    low, high = op.low, op.high  # type: ignore[attr-defined]
    if x.dtype.kind in "iu":
        lowest, highest = integer_bounds(x.dtype, low, high)
        return np.minimum(np.maximum(x, x.dtype.type(lowest)), x.dtype.type(highest))
    from compiler.evaluate import kernels

    return kernels.clip(x, low, high)


def _cast_folds(op: Op) -> bool:
    """Floats beyond an integer type's range convert to whatever the machine likes."""
    (x,) = op.inputs
    to = op.attributes["to"]
    if not (x.type.dtype.is_float and to.is_integer):
        return True
    if not isinstance(x, Constant):
        return False
    limits, wide = np.iinfo(to.numpy), x.data.astype(np.float64)
    return bool(np.all((wide > limits.min - 1.0) & (wide < limits.max + 1.0)))


@evaluator("math.cast", folds=_cast_folds)
def cast(op: Op, x: np.ndarray) -> np.ndarray:
    """To i1: x != 0. f64 to a 16-bit float rounds once."""
    to = op.to.numpy  # type: ignore[attr-defined]
    if to == np.bool_:
        return x != 0
    return x.astype(to)
