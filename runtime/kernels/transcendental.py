"""Unary functions made of polynomials, divisions and roots. A kernel of their own: many networks never compile it."""

# mypy: ignore-errors
from __future__ import annotations

from runtime.kernels import functions
from runtime.kernels.build import kernel
from runtime.kernels.layout import UNARY_BASE
from runtime.kernels.memory import f32_at, square_root

EXP, LOG, SIGMOID, TANH, SQRT, RSQRT, RECIPROCAL, ERF = range(UNARY_BASE + 2, UNARY_BASE + 10)


@kernel()
def transcendental(value, n, kind, unused):
    """v = function(v) on n fp32 numbers at an address."""
    v = f32_at(value, n)
    if kind == EXP:
        for i in range(n):
            v[i] = functions.exp(v[i])
    elif kind == LOG:
        for i in range(n):
            v[i] = functions.log(v[i])
    elif kind == SIGMOID:
        for i in range(n):
            v[i] = functions.sigmoid(v[i])
    elif kind == TANH:
        for i in range(n):
            v[i] = functions.tanh(v[i])
    elif kind == SQRT:
        for i in range(n):
            v[i] = square_root(v[i])
    elif kind == RSQRT:
        for i in range(n):
            v[i] = functions.rsqrt(v[i])
    elif kind == RECIPROCAL:
        for i in range(n):
            v[i] = functions.reciprocal(v[i])
    elif kind == ERF:
        for i in range(n):
            v[i] = functions.erf(v[i])
