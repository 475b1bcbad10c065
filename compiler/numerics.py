"""What every float step of the chip's vector and matrix units computes, as NumPy on whole arrays.

The evaluators of the `mlu.` ops and the runtime's oracle call these functions; the runtime's compiled kernels repeat
them bit for bit. Hence the rules every body here keeps: only `+ - * /`, `sqrt`, comparison, selection, `rint`, `floor`
and bit casts, each rounded separately to fp32, in the order written; constants are `np.float32` and published under a
name, so that a compiled twin imports the same numbers. Nothing is flushed to zero or fused, and no libm function is
called, so the result is the same on every machine. NaN stays NaN, but its sign and payload are not defined. Not for the
neutral ops: those mean what NumPy and BLAS say.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

F32 = np.float32
FloatArray = np.ndarray  # of fp32

LANES = 16
"""Partial sums of one reduction; the width at which a compiled kernel and `sum_lanes` agree."""

NEAREST_EVEN = "nearest-even"
HALF_AWAY = "half-away"
ROUNDINGS = (NEAREST_EVEN, HALF_AWAY)

INTEGER_LIMITS: dict[np.dtype, tuple[np.float32, np.float32]] = {
    np.dtype(np.int8): (F32(-128), F32(127)),
    np.dtype(np.int16): (F32(-32768), F32(32767)),
    np.dtype(np.int32): (F32(-2147483648), F32(2147483520)),  # the largest fp32 below 2^31
}
"""Lowest and highest fp32 value that converts into each integer type."""

# exp(x) = 2^n * e^r. EXP_LN2_HIGH has 9 significant bits, so n * EXP_LN2_HIGH is exact for every n that occurs.
EXP_HIGHEST = F32(89.0)  # above log(FLT_MAX) = 88.72; the scaling overflows to inf by itself
EXP_LOWEST = F32(-104.0)  # below log(2^-150): rounds to zero
EXP_LOG2E = F32(1.44269504)
EXP_LN2_HIGH = F32(0.693359375)
EXP_LN2_LOW = F32(-2.12194440e-4)
EXP_POLYNOMIAL = tuple(
    F32(c) for c in (1.98756915e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
)

# log(x) = k * ln2 + log(m), m in [sqrt(1/2), sqrt(2)). LOG_LN2_HIGH has 16 significant bits: k * LOG_LN2_HIGH is exact.
LOG_SUBNORMAL_SCALE = F32(2.0**25)
LOG_SUBNORMAL_SHIFT = 25
LOG_SMALLEST_NORMAL = F32(2.0**-126)
LOG_SQRT_HALF_BITS = 0x3F3504F3
LOG_LN2_HIGH = F32(6.9313812256e-01)
LOG_LN2_LOW = F32(9.0580006145e-06)
LOG_POLYNOMIAL = tuple(
    F32(c) for c in (0xAAAAAA * 2.0**-24, 0xCCCE13 * 2.0**-25, 0x91E9EE * 2.0**-25, 0xF89E26 * 2.0**-26)
)

TANH_SMALL = F32(0.625)
TANH_POLYNOMIAL = tuple(
    F32(c) for c in (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
)

ERF_SMALL = F32(0.927734375)
ERF_SATURATED = F32(4.0)  # erf(4) rounds to 1
ERF_SMALL_POLYNOMIAL = tuple(
    F32(c) for c in (-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1)
)
ERF_LARGE_POLYNOMIAL = tuple(
    F32(c)
    for c in (-1.7285347e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -0.106777877, -0.634846687, -0.128717512)
)

CANONICAL_NAN = np.uint32(0x7FC00000).view(np.float32)

_ZERO, _HALF, _ONE, _TWO = F32(0), F32(0.5), F32(1), F32(2)
_SIGN = np.uint32(0x80000000)
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_quiet = np.errstate(all="ignore")  # overflow, division by zero and NaN are defined results here, not accidents


def _f32(x: np.ndarray) -> FloatArray:
    """`x` as an fp32 array; f16 widens exactly."""
    return np.asarray(x, dtype=np.float32)


# --- conversions ------------------------------------------------------------------------------------------------------


@_quiet
def to_f16(x: np.ndarray) -> np.ndarray:
    """fp32 to fp16, nearest even; beyond 65519.99 becomes inf, fp16 subnormals are kept."""
    return np.asarray(x, dtype=np.float32).astype(np.float16)


def to_float(x: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """An fp32 result as the destination's float type: the one rounding that ends every vector instruction."""
    return to_f16(x) if np.dtype(dtype) == np.float16 else np.asarray(x, dtype=np.float32)


def power_of_two(exponent: int) -> np.float32:
    """2^exponent in fp32, exact; `exponent` is -149 to 127 (the range of positions)."""
    if not -149 <= exponent <= 127:
        raise ValueError(f"2^{exponent} is not an fp32 number")
    return F32(2.0**exponent)


@_quiet
def round_half_away(x: np.ndarray) -> FloatArray:
    """Nearest integer, ties away from zero: f = floor(|x|); f + 1 where |x| - f >= 0.5 (exact), then the sign of x."""
    magnitude = np.abs(x)
    whole = np.floor(magnitude)
    rounded = np.where(magnitude - whole >= _HALF, whole + _ONE, whole)
    return np.where(x < _ZERO, -rounded, rounded)


@_quiet
def float_to_int(x: np.ndarray, position: int, dtype: np.dtype | type, rounding: str = NEAREST_EVEN) -> np.ndarray:
    """round(x * 2^-position) as `dtype` (int8, int16, int32).

    1. v = x * 2^-position in fp32.  2. NaN becomes 0.  3. v below the type's lowest becomes the lowest, above its
    highest the highest (`INTEGER_LIMITS`).  4. `rint` (nearest even) or `round_half_away`.  5. exact conversion.
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"unknown rounding {rounding!r}, known: {', '.join(ROUNDINGS)}")
    dtype = np.dtype(dtype)
    lowest, highest = INTEGER_LIMITS[dtype]
    value = np.asarray(x, dtype=np.float32) * power_of_two(-position)
    value = np.where(value == value, value, _ZERO)
    value = np.where(value < lowest, lowest, value)
    value = np.where(value > highest, highest, value)
    return (np.rint(value) if rounding == NEAREST_EVEN else round_half_away(value)).astype(dtype)


@_quiet
def int_to_float(x: np.ndarray, position: int) -> FloatArray:
    """x * 2^position: the integer (8 to 64 bits) rounds to fp32 once, nearest even, then one fp32 product.

    An int64 must go to fp32 directly (`vcvtqq2ps`, `cvtsi2ss r64`), not through fp64, which would round twice. This is
    also how the matrix unit writes its integer sums, with `position` = `fix_position`.
    """
    return np.asarray(x).astype(np.float32) * power_of_two(position)


# --- unary functions --------------------------------------------------------------------------------------------------


@_quiet
def relu(x: np.ndarray) -> FloatArray:
    """+0 where x <= 0 (so relu(-0) is +0), else x; NaN stays."""
    x = _f32(x)
    return np.where(x <= _ZERO, _ZERO, x)


@_quiet
def leaky_relu(x: np.ndarray, alpha: float = 0.01) -> FloatArray:
    """x where x >= 0 (both zeros stay), else x * alpha."""
    x = _f32(x)
    return np.where(x >= _ZERO, x, x * F32(alpha))


def absolute(x: np.ndarray) -> FloatArray:
    """The sign bit cleared."""
    return (_f32(x).view(np.uint32) & _MAGNITUDE).view(np.float32)


@_quiet
def exp(x: np.ndarray) -> FloatArray:
    """e^x within 2 ulp; gradual underflow below -87.3, inf above 88.72, NaN stays.

    1. clamp x into [EXP_LOWEST, EXP_HIGHEST].  2. n = rint(x * EXP_LOG2E).
    3. r = (x - n * EXP_LN2_HIGH) - n * EXP_LN2_LOW.
    4. p = Horner of EXP_POLYNOMIAL in r.  5. y = (p * (r * r) + r) + 1.
    6. i = int(n), 0 for NaN; h = i >> 1; result = (y * 2^h) * 2^(i - h), both powers made from bits, so that only the
    last product rounds.
    """
    x = _f32(x)
    x = np.where(x > EXP_HIGHEST, EXP_HIGHEST, x)
    x = np.where(x < EXP_LOWEST, EXP_LOWEST, x)
    n = np.rint(x * EXP_LOG2E)
    r = (x - n * EXP_LN2_HIGH) - n * EXP_LN2_LOW
    p = _horner(EXP_POLYNOMIAL, r)
    y = (p * (r * r) + r) + _ONE
    exponent = np.where(n == n, n, _ZERO).astype(np.int32)
    half = exponent >> 1
    return (y * _power_from_bits(half)) * _power_from_bits(exponent - half)


@_quiet
def log(x: np.ndarray) -> FloatArray:
    """Natural logarithm within 2 ulp; log(+-0) = -inf, log(inf) = inf, NaN below zero.

    1. where x < 2^-126 (subnormals): x *= LOG_SUBNORMAL_SCALE, k0 = -LOG_SUBNORMAL_SHIFT, else k0 = 0.
    2. d = bits(x) - LOG_SQRT_HALF_BITS (int32); k = k0 + (d >> 23); m has the bits (d & 0x7fffff) + LOG_SQRT_HALF_BITS.
    3. f = m - 1; s = f / (2 + f); z = s * s; w = z * z; (L0, L1, L2, L3) = LOG_POLYNOMIAL;
       q = z * (L0 + w * L2) + w * (L1 + w * L3); h = (0.5 * f) * f; K = float(k).
    4. y = (((s * (h + q) + K * LOG_LN2_LOW) - h) + f) + K * LOG_LN2_HIGH.
    5. x == inf gives inf, x == 0 gives -inf, otherwise not (x > 0) gives NaN; on the original x.
    """
    x = _f32(x)
    subnormal = x < LOG_SMALLEST_NORMAL
    scaled = np.where(subnormal, x * LOG_SUBNORMAL_SCALE, x)
    distance = scaled.view(np.int32) - np.int32(LOG_SQRT_HALF_BITS)
    k = np.where(subnormal, np.int32(-LOG_SUBNORMAL_SHIFT), np.int32(0)) + (distance >> 23)
    m = ((distance & np.int32(0x7FFFFF)) + np.int32(LOG_SQRT_HALF_BITS)).view(np.float32)
    f = m - _ONE
    s = f / (_TWO + f)
    z = s * s
    w = z * z
    l0, l1, l2, l3 = LOG_POLYNOMIAL
    q = z * (l0 + w * l2) + w * (l1 + w * l3)
    h = (_HALF * f) * f
    kf = k.astype(np.float32)
    y = (((s * (h + q) + kf * LOG_LN2_LOW) - h) + f) + kf * LOG_LN2_HIGH
    y = np.where(x == F32(np.inf), x, y)
    return np.where(x > _ZERO, y, np.where(x == _ZERO, F32(-np.inf), CANONICAL_NAN))


@_quiet
def sigmoid(x: np.ndarray) -> FloatArray:
    """1 / (1 + e^-x) within 3 ulp: e = exp(-|x|); 1 / (1 + e) where x >= 0, else e / (1 + e), so no tail is lost."""
    x = _f32(x)
    e = exp(-absolute(x))
    return np.where(x >= _ZERO, _ONE, e) / (_ONE + e)


@_quiet
def tanh(x: np.ndarray) -> FloatArray:
    """Within 2 ulp, odd, tanh(-0) = -0. a = |x|, then the sign bit of x is put on the result.

    a < TANH_SMALL: z = a * a; p = Horner of TANH_POLYNOMIAL in z; (p * z) * a + a.
    Otherwise: 1 - 2 / (exp(a + a) + 1).
    """
    x = _f32(x)
    a = absolute(x)
    z = a * a
    small = (_horner(TANH_POLYNOMIAL, z) * z) * a + a
    large = _ONE - _TWO / (exp(a + a) + _ONE)
    return _with_sign(np.where(a < TANH_SMALL, small, large), x)


@_quiet
def erf(x: np.ndarray) -> FloatArray:
    """The error function within 2 ulp, odd, erf(-0) = -0. a = |x|, then the sign bit of x is put on the result.

    a < ERF_SMALL: z = a * a; p = Horner of ERF_SMALL_POLYNOMIAL in z; p * a + a.
    Otherwise: t = min(a, ERF_SATURATED) (NaN stays); p = Horner of ERF_LARGE_POLYNOMIAL in t; 1 - exp(p * t - t).
    """
    x = _f32(x)
    a = absolute(x)
    small = _horner(ERF_SMALL_POLYNOMIAL, a * a) * a + a
    t = np.where(a > ERF_SATURATED, ERF_SATURATED, a)
    large = _ONE - exp(_horner(ERF_LARGE_POLYNOMIAL, t) * t - t)
    return _with_sign(np.where(a < ERF_SMALL, small, large), x)


@_quiet
def sqrt(x: np.ndarray) -> FloatArray:
    """IEEE square root (correctly rounded); sqrt(-0) = -0, NaN below zero."""
    return np.sqrt(_f32(x))


@_quiet
def rsqrt(x: np.ndarray) -> FloatArray:
    """1 / sqrt(x), two roundings."""
    return _ONE / np.sqrt(_f32(x))


@_quiet
def reciprocal(x: np.ndarray) -> FloatArray:
    """1 / x, correctly rounded; 1 / +-0 = +-inf."""
    return _ONE / _f32(x)


def _horner(coefficients: tuple[np.float32, ...], x: FloatArray) -> FloatArray:
    """c0; then p = p * x + c, for each further coefficient, product and sum rounded separately."""
    p = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        p = p * x + c
    return p


def _power_from_bits(exponent: np.ndarray) -> FloatArray:
    """2^exponent for int32 exponents in -126..127."""
    return ((exponent + np.int32(127)) << np.int32(23)).view(np.float32)


def _with_sign(magnitude: np.ndarray, sign: np.ndarray) -> FloatArray:
    """`magnitude` (sign bit clear) with the sign bit of `sign`."""
    return (magnitude.view(np.uint32) | (sign.view(np.uint32) & _SIGN)).view(np.float32)


UNARY: dict[str, Callable[..., FloatArray]] = {
    "relu": relu,
    "abs": absolute,
    "exp": exp,
    "log": log,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "sqrt": sqrt,
    "rsqrt": rsqrt,
    "reciprocal": reciprocal,
    "erf": erf,
    "leaky_relu": leaky_relu,
}
"""Name to function of an fp32 (or f16, widened) array; `leaky_relu` takes its slope as the second argument."""

PARAMETRIC = frozenset({"leaky_relu"})
"""The unary functions that read the instruction's parameter."""


# --- binary functions -------------------------------------------------------------------------------------------------


@_quiet
def add(a: np.ndarray, b: np.ndarray) -> FloatArray:
    """a + b in fp32."""
    return np.asarray(a, dtype=np.float32) + np.asarray(b, dtype=np.float32)


@_quiet
def sub(a: np.ndarray, b: np.ndarray) -> FloatArray:
    """a - b in fp32."""
    return np.asarray(a, dtype=np.float32) - np.asarray(b, dtype=np.float32)


@_quiet
def mul(a: np.ndarray, b: np.ndarray) -> FloatArray:
    """a * b in fp32."""
    return np.asarray(a, dtype=np.float32) * np.asarray(b, dtype=np.float32)


@_quiet
def maximum(a: np.ndarray, b: np.ndarray) -> FloatArray:
    """a where a > b, b where b > a, bits(a) & bits(b) where equal (so max(-0, +0) = +0), else the canonical NaN."""
    a, b = _f32(a), _f32(b)
    equal = (a.view(np.uint32) & b.view(np.uint32)).view(np.float32)
    return np.where(a > b, a, np.where(b > a, b, np.where(a == b, equal, CANONICAL_NAN)))


@_quiet
def minimum(a: np.ndarray, b: np.ndarray) -> FloatArray:
    """a where a < b, b where b < a, bits(a) | bits(b) where equal (so min(-0, +0) = -0), else the canonical NaN."""
    a, b = _f32(a), _f32(b)
    equal = (a.view(np.uint32) | b.view(np.uint32)).view(np.float32)
    return np.where(a < b, a, np.where(b < a, b, np.where(a == b, equal, CANONICAL_NAN)))


BINARY: dict[str, Callable[[np.ndarray, np.ndarray], FloatArray]] = {
    "add": add,
    "sub": sub,
    "mul": mul,
    "max": maximum,
    "min": minimum,
}
"""Name to function of two broadcastable fp32 (or f16, widened) arrays."""


# --- reductions -------------------------------------------------------------------------------------------------------


@_quiet
def sum_lanes(x: np.ndarray) -> FloatArray:
    """Sum over the last axis in fp32, in the one order the chip uses.

    1. sixteen sums start at +0; lane j adds x[j], x[j + 16], x[j + 32], ... in that order (a last incomplete group may
    be filled up with +0: a sum that started at +0 is never -0, so adding +0 changes nothing).
    2. for n = 8, 4, 2, 1: lane i becomes lane[i] + lane[i + n].  3. lane 0 is the result; an empty axis gives +0.
    """
    x = np.asarray(x, dtype=np.float32)
    count = x.shape[-1]
    lanes = np.zeros((*x.shape[:-1], LANES), np.float32)
    for start in range(0, count, LANES):
        width = min(LANES, count - start)
        lanes[..., :width] += x[..., start : start + width]
    width = LANES // 2
    while width:
        lanes = lanes[..., :width] + lanes[..., width : 2 * width]
        width //= 2
    return lanes[..., 0]


def max_lanes(x: np.ndarray) -> FloatArray:
    """`maximum` over the last axis (not empty); exact, so any order gives the same bits."""
    return _fold(maximum, x)


def min_lanes(x: np.ndarray) -> FloatArray:
    """`minimum` over the last axis (not empty); exact, so any order gives the same bits."""
    return _fold(minimum, x)


def _fold(function: Callable[[np.ndarray, np.ndarray], FloatArray], x: np.ndarray) -> FloatArray:
    """Halve the last axis until one element is left; `function` is associative, commutative and idempotent."""
    x = np.asarray(x, dtype=np.float32)
    if not x.shape[-1]:
        raise ValueError("a maximum or minimum needs at least one element")
    while x.shape[-1] > 1:
        half = (x.shape[-1] + 1) // 2
        x = function(x[..., :half], x[..., x.shape[-1] - half :])
    return x[..., 0]


REDUCE: dict[str, Callable[[np.ndarray], FloatArray]] = {"sum": sum_lanes, "max": max_lanes, "min": min_lanes}
"""Name to reduction over the last axis."""


@_quiet
def mean_factor(count: int) -> np.float32:
    """fp32(1 / count): what the mean of a pooling window multiplies its sum with."""
    return _ONE / F32(count)
