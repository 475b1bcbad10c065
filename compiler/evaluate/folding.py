"""What the compiler computes of constants where the evaluators use libm or sums of no fixed order.

A file must be the same on every machine, so these functions are written in additions, multiplications and divisions of
f64, each correctly rounded, in a fixed order; sums are folded by a fixed tree. The result is rounded to f32 once, which
makes it the correctly rounded one but for a case in many millions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import factorial, prod
from typing import Any

import numpy as np

from compiler.evaluate.registry import evaluate_op, foldable
from compiler.ir.core import Op
from compiler.ir.types import DType

LARGEST_PRODUCT = 1 << 22
"""Products of a matrix product that are made at once."""

LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
HALF_PI = (1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
"""ln 2 and pi / 2 in parts whose leading ones have zeros to spare, so that products with small integers are exact."""

WIDEST_ANGLE = 1e5


def _horner(coefficients: Sequence[float], x: np.ndarray) -> np.ndarray:
    total = np.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total


def exp(x: np.ndarray) -> np.ndarray:
    """e^x = 2^n e^r with |r| <= ln 2 / 2, e^r by its series."""
    inside = np.clip(np.where(np.isnan(x), 0.0, x), -760.0, 710.0)
    n = np.rint(inside / (LN2_HIGH + LN2_LOW))
    r = (inside - n * LN2_HIGH) - n * LN2_LOW
    y = np.ldexp(_horner([1 / factorial(i) for i in range(15)], r), n.astype(np.int32))
    return np.where(np.isnan(x), x, y)


def log(x: np.ndarray) -> np.ndarray:
    """ln x = e ln 2 + 2 artanh(s), x = m 2^e with m near 1 and s = (m - 1) / (m + 1)."""
    safe = np.where((x > 0) & np.isfinite(x), x, 1.0)
    m, e = np.frexp(safe)
    low = m < np.sqrt(0.5)
    m, e = np.where(low, m * 2, m), e - low
    s = (m - 1) / (m + 1)
    y = 2 * s * _horner([1 / (2 * i + 1) for i in range(12)], s * s) + e * LN2_LOW + e * LN2_HIGH
    edge = np.where(x == 0, -np.inf, np.where(x > 0, np.inf, np.nan))
    return np.where((x > 0) & np.isfinite(x), y, edge)


def _wave(x: np.ndarray, quarter: int) -> np.ndarray:
    """sin(x + quarter * pi / 2)."""
    n = np.rint(x / sum(HALF_PI))
    r = ((x - n * HALF_PI[0]) - n * HALF_PI[1]) - n * HALF_PI[2]
    z = r * r
    sine = r * _horner([(-1) ** i / factorial(2 * i + 1) for i in range(10)], z)
    cosine = _horner([(-1) ** i / factorial(2 * i) for i in range(11)], z)
    turn = (n.astype(np.int64) + quarter) % 4
    y = np.where(turn % 2 == 0, sine, cosine)
    return np.where(turn >= 2, -y, y)


def tanh(x: np.ndarray) -> np.ndarray:
    small = np.abs(x) < 1e-4
    return np.where(small, x - x * x * x / 3, 1 - 2 / (exp(2 * x) + 1))


def tree_sum(x: np.ndarray) -> np.ndarray:
    """The sum over the last axis: its halves are added, again and again."""
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        rest = x[..., 2 * half :]
        x = np.concatenate([x[..., :half] + x[..., half : 2 * half], rest], axis=-1)
    return x[..., 0] if x.shape[-1] else np.zeros(x.shape[:-1])


UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "math.exp": exp, "math.log": log, "math.sin": lambda x: _wave(x, 0), "math.cos": lambda x: _wave(x, 1),
    "math.tanh": tanh, "nn.sigmoid": lambda x: 1 / (1 + exp(-x)),
}  # fmt: skip


def _reduced(op: Any, x: np.ndarray, before: Callable, after: Callable) -> np.ndarray:
    axes = op.reduced_axes
    kept = [i for i in range(x.ndim) if i not in axes]
    count = prod(x.shape[i] for i in axes)
    rows = x.transpose(*kept, *axes).reshape(*(x.shape[i] for i in kept), count)
    y = after(tree_sum(before(rows)), count)
    return y.reshape(op.results[0].type.static_shape)


def _plain(v: np.ndarray, *_: int) -> np.ndarray:
    return v


REDUCTIONS: dict[str, tuple[Callable, Callable]] = {
    "reduce.sum": (_plain, _plain), "reduce.mean": (_plain, lambda v, n: v / n), "reduce.l1": (np.abs, _plain),
    "reduce.l2": (lambda v: v * v, lambda v, n: np.sqrt(v)), "reduce.sum_square": (lambda v: v * v, _plain),
}  # fmt: skip
"""Reduction → what is done to the elements, and to the sum and their number."""


def _matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    left, right = (a[None, :] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    y = tree_sum(left[..., :, None, :] * np.swapaxes(right, -1, -2)[..., None, :, :])
    y = y[..., 0, :] if a.ndim == 1 else y
    return y[..., 0] if b.ndim == 1 else y


def can_fold(op: Op, arrays: Sequence[np.ndarray | None]) -> bool:
    """Whether an op of known operands may be computed when the model is imported."""
    return foldable(op) or _folder(op, arrays) is not None


def fold_op(op: Op, arrays: Sequence[np.ndarray | None]) -> tuple[np.ndarray, ...]:
    """The results of an op for which `can_fold` holds."""
    folder = None if foldable(op) else _folder(op, arrays)
    if folder is None:
        return evaluate_op(op, arrays)
    with np.errstate(all="ignore"):
        wide = folder(*(np.asarray(a, np.float64) for a in arrays))
    result = op.results[0].type
    return (np.asarray(wide, result.dtype.numpy).reshape(result.static_shape),)


def _folder(op: Op, arrays: Sequence[np.ndarray | None]) -> Callable[..., np.ndarray] | None:
    """The function that computes an op in f64; None where there is none, or its operands are out of its range."""
    given = [a for a in arrays if a is not None]
    if len(given) != len(arrays) or any(v.type.dtype is not DType.F32 for v in op.inputs):
        return None
    name, x = op.op_name, given[0]
    if name in ("math.sin", "math.cos") and not (np.abs(x) < WIDEST_ANGLE).all():
        return None
    if name in UNARY:
        return UNARY[name]
    if name in REDUCTIONS:
        return lambda v: _reduced(op, v, *REDUCTIONS[name])
    if name == "math.pow" and (x > 0).all() and all(np.isfinite(a).all() for a in given):
        return lambda a, b: exp(b * log(a))
    if name == "nn.matmul" and op.results[0].type.elements * x.shape[-1] <= LARGEST_PRODUCT:
        return _matmul
    return None
