"""How regions that are chosen or repeated when a model runs are evaluated. Used by the interpreter only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from compiler.ir.core import Op
from compiler.ir.types import TensorType

Run = Callable[[int, Sequence[np.ndarray]], list[np.ndarray]]
"""Runs the region of a number on arrays."""


def run_if(op: Op, operands: Sequence[np.ndarray], run: Run) -> list[np.ndarray]:
    condition, *arguments = operands
    return run(0 if condition else 1, arguments)


def run_loop(op: Op, operands: Sequence[np.ndarray], run: Run) -> list[np.ndarray]:
    trips, condition, *arguments = operands
    count: int = op.attributes["carried"]
    state, fixed = list(arguments[:count]), list(arguments[count:])
    stacks: list[list[np.ndarray]] = [[] for _ in op.results[count:]]
    alive, number = bool(condition), 0
    while alive and number < trips:
        going, *given = run(0, [np.array(number, np.int64), np.array(True), *state, *fixed])
        alive, state = bool(going), given[:count]
        for stack, array in zip(stacks, given[count:], strict=True):
            stack.append(array)
        number += 1
    return [*state, *(_stacked(r.type, stack) for r, stack in zip(op.results[count:], stacks, strict=True))]


def _stacked(type: TensorType, stack: list[np.ndarray]) -> np.ndarray:
    """Arrays of all rounds along a new first axis; of no rounds, an empty array of their type."""
    if stack:
        return np.stack(stack)
    shape: list[int] = [0, *(d or 0 for d in type.shape[1:])]
    return np.zeros(shape, type.dtype.numpy)


CONTROL: dict[str, Callable[[Op, Sequence[np.ndarray], Run], list[np.ndarray]]] = {
    "graph.if": run_if, "graph.loop": run_loop,
}  # fmt: skip
