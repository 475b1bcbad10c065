"""Twins of `compiler/numerics.py` for vectors of fp32, bit for bit: same steps, same constants, same order."""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np

from compiler import numerics
from compiler.native.language import function
from compiler.native.memory import absolute, bits_of, float_of, rint, square_root, to_floats, to_ints

ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
INFINITY = np.float32(np.inf)
NAN = np.float32(np.nan)
SIGN = -0x80000000

HIGHEST, LOWEST = numerics.EXP_HIGHEST, numerics.EXP_LOWEST
LOG2E, LN2_HIGH, LN2_LOW = numerics.EXP_LOG2E, numerics.EXP_LN2_HIGH, numerics.EXP_LN2_LOW
E0, E1, E2, E3, E4, E5 = numerics.EXP_POLYNOMIAL
SCALE, SHIFT = numerics.LOG_SUBNORMAL_SCALE, -numerics.LOG_SUBNORMAL_SHIFT
NORMAL, SQRT_HALF = numerics.LOG_SMALLEST_NORMAL, numerics.LOG_SQRT_HALF_BITS
LOG_HIGH, LOG_LOW = numerics.LOG_LN2_HIGH, numerics.LOG_LN2_LOW
L0, L1, L2, L3 = numerics.LOG_POLYNOMIAL
TANH_SMALL = numerics.TANH_SMALL
T0, T1, T2, T3, T4 = numerics.TANH_POLYNOMIAL
ERF_SMALL, ERF_SATURATED = numerics.ERF_SMALL, numerics.ERF_SATURATED
S0, S1, S2, S3, S4, S5 = numerics.ERF_SMALL_POLYNOMIAL
R0, R1, R2, R3, R4, R5, R6 = numerics.ERF_LARGE_POLYNOMIAL
MANTISSA, BIAS = 0x7FFFFF, 127


@function
def relu(x):
    return ZERO if x <= ZERO else x


@function
def leaky_relu(x, alpha):
    scaled = x * alpha
    return x if x >= ZERO else scaled


@function
def _power(exponent):
    """2^exponent for an int32 exponent in -126..127."""
    return float_of((exponent + BIAS) << 23)


@function
def exp(x):
    x = HIGHEST if x > HIGHEST else x
    x = LOWEST if x < LOWEST else x
    n = rint(x * LOG2E)
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = ((((E0 * r + E1) * r + E2) * r + E3) * r + E4) * r + E5
    y = (p * (r * r) + r) + ONE
    exponent = to_ints(n if n == n else ZERO)
    half = exponent >> 1
    return (y * _power(half)) * _power(exponent - half)


@function
def log(x):
    subnormal = x < NORMAL
    lifted = x * SCALE
    scaled = lifted if subnormal else x
    distance = bits_of(scaled) - SQRT_HALF
    shifted = distance >> 23
    k = shifted + SHIFT if subnormal else shifted
    m = float_of((distance & MANTISSA) + SQRT_HALF)
    f = m - ONE
    s = f / (TWO + f)
    z = s * s
    w = z * z
    q = z * (L0 + w * L2) + w * (L1 + w * L3)
    h = (HALF * f) * f
    kf = to_floats(k)
    y = (((s * (h + q) + kf * LOG_LOW) - h) + f) + kf * LOG_HIGH
    y = x if x == INFINITY else y
    special = -INFINITY if x == ZERO else NAN
    return y if x > ZERO else special


@function
def sigmoid(x):
    e = exp(-absolute(x))
    top = ONE if x >= ZERO else e
    return top / (ONE + e)


@function
def _with_sign(magnitude, sign):
    return float_of(bits_of(magnitude) | (bits_of(sign) & SIGN))


@function
def tanh(x):
    a = absolute(x)
    z = a * a
    p = (((T0 * z + T1) * z + T2) * z + T3) * z + T4
    small = (p * z) * a + a
    large = ONE - TWO / (exp(a + a) + ONE)
    return _with_sign(small if a < TANH_SMALL else large, x)


@function
def erf(x):
    a = absolute(x)
    z = a * a
    p = ((((S0 * z + S1) * z + S2) * z + S3) * z + S4) * z + S5
    small = p * a + a
    t = ERF_SATURATED if a > ERF_SATURATED else a
    p = (((((R0 * t + R1) * t + R2) * t + R3) * t + R4) * t + R5) * t + R6
    large = ONE - exp(p * t - t)
    return _with_sign(small if a < ERF_SMALL else large, x)


@function
def rsqrt(x):
    return ONE / square_root(x)


@function
def reciprocal(x):
    return ONE / x


@function
def maximum(a, b):
    equal = float_of(bits_of(a) & bits_of(b))
    tie = equal if a == b else NAN
    below = b if b > a else tie
    return a if a > b else below


@function
def minimum(a, b):
    equal = float_of(bits_of(a) | bits_of(b))
    tie = equal if a == b else NAN
    above = b if b < a else tie
    return a if a < b else above


@function
def _add(a, b):
    return a + b


@function
def _subtract(a, b):
    return a - b


@function
def _multiply(a, b):
    return a * b


@function
def at_least(x, bound):
    """`maximum` for a bound that is neither NaN nor -0."""
    return bound if x <= bound else x


@function
def at_most(x, bound):
    """`minimum` for a bound that is neither NaN nor +0."""
    return bound if x >= bound else x


BINARY = (_add, _subtract, _multiply, maximum, minimum, at_least, at_most)
"""By number of the function."""
UNARY = (relu, absolute, exp, log, sigmoid, tanh, square_root, rsqrt, reciprocal, erf, leaky_relu)
"""By number of the function; the last one takes a parameter."""
LEAKY_RELU = len(UNARY) - 1
