"""Attributes that a network changes from call to call, as inputs and outputs.

A compiled network has no memory. The code is therefore evaluated twice: first as for the first call, which shows what
the attributes become; then as for all later calls, with every tensor that changes as an input and its new value as an
output, and every number or flag at the value it settles at. The first values of those inputs must make the later graph
compute what the first call computes: that is tried out on random data, and refused where it does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Constant, Function, Module, Value
from compiler.ir.types import DType, TensorType

NEXT = ".next"
"""An attribute's output is called after its input, with this at the end."""

LARGEST_LISTED = 4096
MOST_TRIED = 1 << 30
"""Elements a network may compute where its first call has to be tried out."""

SEEDS = (1, 2)
REMEDY = (
    "call the network once before saving it, so that its attributes have the shapes and values of later calls, "
    "or give its state to forward as arguments"
)


@dataclass
class Plan:
    """What the second evaluation starts from. `tensors`: attribute's path → type of the input it becomes; `settled`:
    attribute's path → the value it keeps; `candidates`: arrays that may be a tensor's first value.
    """

    tensors: dict[str, TensorType] = field(default_factory=dict)
    settled: dict[str, Any] = field(default_factory=dict)
    candidates: dict[str, list[np.ndarray]] = field(default_factory=dict)
    exact: set[str] = field(default_factory=set)

    @property
    def is_empty(self) -> bool:
        return not self.tensors and not self.settled

    def same_as(self, other: Plan) -> bool:
        """Whether another evaluation would start from the same."""
        return self.tensors == other.tensors and _same_values(self.settled, other.settled)


def _same_values(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.keys() == b.keys() and all(same_value(v, b[name]) for name, v in a.items())


def same_value(a: Any, b: Any) -> bool:
    """Whether two values of an attribute are the same as far as a network can tell."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and bool(
            a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        )  # fmt: skip
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same_value(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and (a is b or (isinstance(a, int | float | str) and a == b))


def add_change(plan: Plan, path: str, before: Any, after: Any, assigned: Sequence[Any]) -> bool:
    """Enter an attribute that was `before` and is `after` (values of the module, or Python's; arrays where known).
    False where it can be neither an input nor settle.
    """
    if isinstance(after, Constant):
        if not same_value(before, after.data):
            plan.settled[path] = after.data
        return True
    if isinstance(after, Value):
        type = TensorType(after.type.shape, after.type.dtype)
        plan.tensors[path] = type
        fitting = [a for a in (before, *assigned) if isinstance(a, np.ndarray) and _fits(a, type)]
        plan.candidates[path] = [*fitting, np.zeros(type.static_shape, type.dtype.numpy)]
        if fitting and fitting[0] is before:
            plan.exact.add(path)
        return True
    if not _is_plain(after):
        return False
    if not same_value(before, after):
        plan.settled[path] = after
    return True


def _is_plain(value: Any) -> bool:
    """Whether a value of an attribute consists of numbers and text only."""
    if isinstance(value, list | tuple):
        return len(value) <= LARGEST_LISTED and all(isinstance(v, bool | int | float | str | None) for v in value)
    return isinstance(value, bool | int | float | str | None)


def _fits(array: np.ndarray, type: TensorType) -> bool:
    return array.shape == type.shape and DType.of(array.dtype) is type.dtype


def first_values(plan: Plan, first: Module, later: Module, names: Sequence[str]) -> dict[str, np.ndarray] | None:
    """Values of the state inputs `names` with which `later` computes what `first` computes; None if none were found.

    Both modules give the network's outputs and then the new state, `first` of the state it has.
    """
    exact = all(name in plan.exact for name in names) and not plan.settled
    chosen = {name: plan.candidates[name][0] for name in names}
    if exact:
        return chosen
    if sum(r.type.elements for m in (first, later) for op in m.ops() for r in op.results) > MOST_TRIED:
        return None
    zeros = {name: plan.candidates[name][-1] for name in names}
    for values in (chosen, zeros):
        if all(_agree(first, later, values, seed) for seed in SEEDS):
            return values
    return None


def _agree(first: Module, later: Module, values: Mapping[str, np.ndarray], seed: int) -> bool:
    data = {a.name: _random(a.type, seed + k) for k, a in enumerate(first.functions["main"].arguments)}
    expected = _results(first, data)
    found = _results(later, {**data, **values})
    for name, value in expected.items():
        if name in found and not np.allclose(value, found[name], rtol=1e-3, atol=1e-4, equal_nan=True):
            return False
    return True


def _results(module: Module, data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    function: Function = module.functions["main"]
    results = Interpreter(module).run([data[a.name] for a in function.arguments])
    return dict(zip(function.attributes["outputs"], results, strict=True))


def _random(type: TensorType, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if type.dtype.is_float:
        return generator.standard_normal(type.static_shape).astype(type.dtype.numpy)
    return generator.integers(0, 2, type.static_shape).astype(type.dtype.numpy)


def as_attribute(value: np.ndarray) -> float | list[float] | None:
    """A first value as IR text has it: one number for all elements, or the elements; None where there are too many."""
    flat = value.reshape(-1)
    if flat.size == 0 or (flat == flat[0]).all():
        return float(flat[0]) if flat.size else 0.0
    return [float(v) for v in flat] if flat.size <= LARGEST_LISTED else None
