"""Evaluators of the `reduce.` ops. Comparisons and integers fold; sums of floats depend on their order and do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.evaluate.registry import evaluator
from compiler.ir.core import Op
from compiler.ops.reduce import ArgReduction, Reduction


def _integers(op: Op) -> bool:
    return not op.inputs[0].type.dtype.is_float


def _register(name: str, function: Callable[..., Any], *, folds: bool | Callable[[Op], bool]) -> None:
    """An evaluator from a function of (array, axes, keepdims); the result gets the operand's element type."""

    @evaluator(name, folds=folds, widens=True)
    def apply(op: Reduction, x: np.ndarray) -> np.ndarray:
        found = function(x, axis=op.reduced_axes, keepdims=op.keepdims)
        return np.asarray(found).astype(x.dtype, copy=False)


def mean(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    """Integers: the exact mean, truncated."""
    if x.dtype.kind == "f":
        return np.mean(x, axis=axis, keepdims=keepdims, dtype=x.dtype)
    total = np.sum(x, axis=axis, keepdims=keepdims, dtype=np.int64)
    return np.trunc(total / max(x.size // max(total.size, 1), 1))


def l2(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    return np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))


def log_sum_exp(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    """max + log(sum(exp(x - max))); an infinite maximum is not subtracted."""
    peak = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    peak = np.where(np.isfinite(peak), peak, x.dtype.type(0))
    total = np.log(np.sum(np.exp(x - peak), axis=axis, keepdims=True)) + peak
    return total if keepdims else np.squeeze(total, axis)


def extreme(function: Callable[..., Any], low: bool) -> Callable[..., Any]:
    """A maximum or minimum whose empty case is the type's own bound."""

    def apply(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> Any:
        if x.size:
            return function(x, axis=axis, keepdims=keepdims)
        bound = np.inf if x.dtype.kind == "f" else None
        initial = (-bound if low else bound) if bound else getattr(np.iinfo(x.dtype), "min" if low else "max")
        return function(x, axis=axis, keepdims=keepdims, initial=initial)

    return apply


_register("reduce.sum", np.sum, folds=_integers)
_register("reduce.mean", mean, folds=_integers)
_register("reduce.prod", np.prod, folds=_integers)
_register("reduce.l1", lambda x, **how: np.sum(np.abs(x), **how), folds=_integers)
_register("reduce.sum_square", lambda x, **how: np.sum(x * x, **how), folds=_integers)
_register("reduce.l2", l2, folds=False)
_register("reduce.log_sum", lambda x, **how: np.log(np.sum(x, **how)), folds=False)
_register("reduce.log_sum_exp", log_sum_exp, folds=False)
_register("reduce.max", extreme(np.max, low=True), folds=True)
_register("reduce.min", extreme(np.min, low=False), folds=True)


def _index_of(op: ArgReduction, x: np.ndarray, function: Callable[..., Any]) -> np.ndarray:
    if op.select_last and x.ndim:
        found = x.shape[op.axis] - 1 - function(np.flip(x, op.axis), axis=op.axis, keepdims=op.keepdims)
    else:
        found = function(x, axis=op.axis, keepdims=op.keepdims)
    return np.asarray(found, np.int64)


@evaluator("reduce.argmax", folds=True)
def argmax(op: ArgReduction, x: np.ndarray) -> np.ndarray:
    return _index_of(op, x, np.argmax)


@evaluator("reduce.argmin", folds=True)
def argmin(op: ArgReduction, x: np.ndarray) -> np.ndarray:
    return _index_of(op, x, np.argmin)
