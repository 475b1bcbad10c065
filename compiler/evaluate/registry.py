"""Which function computes an op: `@evaluator("nn.conv2d")` registers one, `evaluate_op` calls it, `foldable` says
where from.

Evaluators define what ops mean; constant folding, calibration and comparison all use them. An evaluator takes the op
and one array per operand slot (None where an optional operand is absent) and returns an array, or a tuple for several
results. It may return a view of an operand and must not write to one. Families are found lazily by prefix, like those
of ops.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import ml_dtypes
import numpy as np

from compiler.errors import did_you_mean, error
from compiler.ir.core import Constant, Module, Op
from compiler.ir.types import QuantType, TensorType

Evaluator = Callable[..., Any]

FAMILIES = {
    "nn": "compiler.evaluate.nn", "math": "compiler.evaluate.math", "tensor": "compiler.evaluate.tensor",
    "reduce": "compiler.evaluate.reduce", "quant": "compiler.evaluate.quant", "mlu": "targets.mlu220.ops",
}  # fmt: skip
"""Prefix of op names → module that registers the family's evaluators, loaded when first needed."""

HALVES = frozenset({np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)})

_EVALUATORS: dict[str, Evaluator] = {}
_FOLDABLE: dict[str, bool | Callable[[Op], bool]] = {}


def evaluator(
    name: str, *, folds: bool | Callable[[Op], bool] = False, widens: bool = False
) -> Callable[[Evaluator], Evaluator]:
    """Register the function that computes the op `name`.

    folds: whether the result has the same bits on every machine (movement, integers, correctly rounded operations),
    so that the compiler may compute it; a function decides per op. widens: hand 16-bit floats over as f32 and round
    the results once.
    """

    def register(function: Evaluator) -> Evaluator:
        _EVALUATORS[name] = _widened(function) if widens else function
        _FOLDABLE[name] = folds
        return function

    return register


def _widened(function: Evaluator) -> Evaluator:
    """The function computing 16-bit floats in f32, its results rounded to the declared types."""

    @wraps(function)
    def compute(op: Op, *arrays: np.ndarray | None) -> Any:
        if not any(a is not None and a.dtype in HALVES for a in arrays):
            return function(op, *arrays)
        wide = [a.astype(np.float32) if a is not None and a.dtype in HALVES else a for a in arrays]
        found = function(op, *wide)
        several = isinstance(found, tuple)
        rounded = tuple(
            np.asarray(array).astype(r.type.dtype.numpy, copy=False)
            for r, array in zip(op.results, found if several else (found,), strict=True)
        )
        return rounded if several else rounded[0]

    return compute


def find_evaluator(name: str) -> Evaluator | None:
    """The function that computes the op `name`, loading its family if needed; None if there is none."""
    if name not in _EVALUATORS:
        family = FAMILIES.get(name.partition(".")[0])
        if family is not None:
            importlib.import_module(family)
    return _EVALUATORS.get(name)


def foldable(op: Op) -> bool:
    """Whether the compiler may compute `op` from constant operands: same bits on every machine, no BLAS, no libm."""
    if find_evaluator(op.op_name) is None:
        return False
    folds = _FOLDABLE[op.op_name]
    return folds(op) if callable(folds) else folds


def evaluate_op(op: Op, arrays: Sequence[np.ndarray | None]) -> tuple[np.ndarray, ...]:
    """The results of one op on `arrays`, one per operand slot. Raises CompilerError where no evaluator is
    registered."""
    function = find_evaluator(op.op_name)
    if function is None:
        raise error(
            "E353",
            "has no evaluator",
            op=op.op_name,
            where=str(op.location),
            help=did_you_mean(op.op_name, _EVALUATORS),
        )
    with np.errstate(all="ignore"):
        return as_results(op, function(op, *arrays))


def as_results(op: Op, found: Any) -> tuple[np.ndarray, ...]:
    """What an evaluator returned, as one array per result. Raises ValueError where that contradicts the declared
    types."""
    arrays = tuple(np.asarray(a) for a in found) if isinstance(found, tuple) else (np.asarray(found),)
    if len(arrays) != len(op.results):
        raise ValueError(f"evaluator of {op.op_name} gave {len(arrays)} results, declared are {len(op.results)}")
    for result, array in zip(op.results, arrays, strict=True):
        if not agrees(result.type, array):
            found_type = f"{array.dtype}{array.shape}"
            raise ValueError(
                f"evaluator of {op.op_name} gave {found_type} for {result.name!r}, declared is {result.type}"
            )
    return arrays


def agrees(type: TensorType, array: np.ndarray) -> bool:
    """Whether an array has the element type and shape that `type` declares (unknown dimensions agree with any)."""
    if array.dtype != type.dtype.numpy:
        return False
    if array.shape == type.shape:
        return True
    return len(array.shape) == len(type.shape) and all(
        b is None or a == b for a, b in zip(array.shape, type.shape, strict=True)
    )


def scales_of(op: Op, quant: QuantType, rank: int) -> np.ndarray:
    """The fp32 scale or scales of a quantised operand or result of `op`, shaped to broadcast over `rank` axes."""
    if quant.axis is None:
        return np.float32(quant.scale)  # type: ignore[return-value]
    scales = _module_of(op).constant_named(quant.params or "")
    shape = [1] * rank
    shape[quant.axis] = -1
    return scales.astype(np.float32, copy=False).reshape(shape)


def steps_of(op: Op, quant: QuantType, rank: int) -> np.ndarray:
    """The fp32 distance of two neighbouring reals, per tensor or shaped to broadcast over `rank` axes."""
    if quant.axis is None:
        return np.float32(quant.real_step)  # type: ignore[return-value]
    return (np.ldexp(1.0, quant.position) / scales_of(op, quant, rank)).astype(np.float32)


def _module_of(op: Op) -> Module:
    """The module an op is in; a detached op belongs to that of its constants."""
    if op.module is not None:
        return op.module
    for value in op.inputs:
        if isinstance(value, Constant):
            return value.module
    raise ValueError(f"{op!r} is in no module, so its per-axis scales cannot be looked up")
