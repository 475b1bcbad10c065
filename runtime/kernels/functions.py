"""Scalar twins of `compiler/numerics.py`, bit for bit: same steps, same constants, same order, written for one element.

Loops over these vectorise. Selections are written with both sides computed first, so that no branch remains in a loop.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np

from compiler import numerics
from runtime.kernels.build import inlined
from runtime.kernels.memory import (
    absolute,
    bits_float,
    float_bits,
    float_i32,
    floor,
    i32_float,
    rint,
    square_root,
)

ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
INFINITY = np.float32(np.inf)
NAN = np.float32(np.nan)
MAGNITUDE, SIGN = np.int32(0x7FFFFFFF), np.int32(-0x80000000)

HIGHEST, LOWEST = numerics.EXP_HIGHEST, numerics.EXP_LOWEST
LOG2E, LN2_HIGH, LN2_LOW = numerics.EXP_LOG2E, numerics.EXP_LN2_HIGH, numerics.EXP_LN2_LOW
E0, E1, E2, E3, E4, E5 = numerics.EXP_POLYNOMIAL
SCALE, SHIFT = numerics.LOG_SUBNORMAL_SCALE, np.int32(-numerics.LOG_SUBNORMAL_SHIFT)
NORMAL, SQRT_HALF = numerics.LOG_SMALLEST_NORMAL, np.int32(numerics.LOG_SQRT_HALF_BITS)
LOG_HIGH, LOG_LOW = numerics.LOG_LN2_HIGH, numerics.LOG_LN2_LOW
L0, L1, L2, L3 = numerics.LOG_POLYNOMIAL
TANH_SMALL = numerics.TANH_SMALL
T0, T1, T2, T3, T4 = numerics.TANH_POLYNOMIAL
ERF_SMALL, ERF_SATURATED = numerics.ERF_SMALL, numerics.ERF_SATURATED
S0, S1, S2, S3, S4, S5 = numerics.ERF_SMALL_POLYNOMIAL
R0, R1, R2, R3, R4, R5, R6 = numerics.ERF_LARGE_POLYNOMIAL
MANTISSA, BIAS, K23, K1, K0 = np.int32(0x7FFFFF), np.int32(127), np.int32(23), np.int32(1), np.int32(0)


@inlined
def relu(x):
    return ZERO if x <= ZERO else x


@inlined
def leaky_relu(x, alpha):
    scaled = x * alpha
    return x if x >= ZERO else scaled


@inlined
def _power(exponent):
    """2^exponent for an int32 exponent in -126..127."""
    return bits_float(np.int32((exponent + BIAS) << K23))


@inlined
def exp(x):
    x = HIGHEST if x > HIGHEST else x
    x = LOWEST if x < LOWEST else x
    n = rint(x * LOG2E)
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = ((((E0 * r + E1) * r + E2) * r + E3) * r + E4) * r + E5
    y = (p * (r * r) + r) + ONE
    exponent = float_i32(n if n == n else ZERO)
    half = np.int32(exponent >> K1)
    return (y * _power(half)) * _power(np.int32(exponent - half))


@inlined
def log(x):
    subnormal = x < NORMAL
    lifted = x * SCALE
    scaled = lifted if subnormal else x
    distance = np.int32(float_bits(scaled) - SQRT_HALF)
    k = np.int32((SHIFT if subnormal else K0) + np.int32(distance >> K23))
    m = bits_float(np.int32(np.int32(distance & MANTISSA) + SQRT_HALF))
    f = m - ONE
    s = f / (TWO + f)
    z = s * s
    w = z * z
    q = z * (L0 + w * L2) + w * (L1 + w * L3)
    h = (HALF * f) * f
    kf = i32_float(k)
    y = (((s * (h + q) + kf * LOG_LOW) - h) + f) + kf * LOG_HIGH
    y = x if x == INFINITY else y
    special = -INFINITY if x == ZERO else NAN
    return y if x > ZERO else special


@inlined
def sigmoid(x):
    e = exp(-absolute(x))
    top = ONE if x >= ZERO else e
    return top / (ONE + e)


@inlined
def _with_sign(magnitude, sign):
    return bits_float(np.int32(float_bits(magnitude) | np.int32(float_bits(sign) & SIGN)))


@inlined
def tanh(x):
    a = absolute(x)
    z = a * a
    p = (((T0 * z + T1) * z + T2) * z + T3) * z + T4
    small = (p * z) * a + a
    large = ONE - TWO / (exp(a + a) + ONE)
    return _with_sign(small if a < TANH_SMALL else large, x)


@inlined
def erf(x):
    a = absolute(x)
    z = a * a
    p = ((((S0 * z + S1) * z + S2) * z + S3) * z + S4) * z + S5
    small = p * a + a
    t = ERF_SATURATED if a > ERF_SATURATED else a
    p = (((((R0 * t + R1) * t + R2) * t + R3) * t + R4) * t + R5) * t + R6
    large = ONE - exp(p * t - t)
    return _with_sign(small if a < ERF_SMALL else large, x)


@inlined
def rsqrt(x):
    return ONE / square_root(x)


@inlined
def reciprocal(x):
    return ONE / x


@inlined
def maximum(a, b):
    equal = bits_float(np.int32(float_bits(a) & float_bits(b)))
    tie = equal if a == b else NAN
    below = b if b > a else tie
    return a if a > b else below


@inlined
def minimum(a, b):
    equal = bits_float(np.int32(float_bits(a) | float_bits(b)))
    tie = equal if a == b else NAN
    above = b if b < a else tie
    return a if a < b else above


@inlined
def round_half_away(x):
    magnitude = absolute(x)
    whole = floor(magnitude)
    rounded = whole + ONE if magnitude - whole >= HALF else whole
    return -rounded if x < ZERO else rounded


@inlined
def to_integer(x, factor, lowest, highest, half_away):
    """`numerics.float_to_int` up to the narrowing: factor is 2^-position; the result is an int32 within the limits."""
    value = x * factor
    value = value if value == value else ZERO
    value = lowest if value < lowest else value
    value = highest if value > highest else value
    return float_i32(round_half_away(value) if half_away else rint(value))
