"""Random nodes of ONNX operators: attributes, shapes and element types of every opset, as small models. Not tests.

One function an operator: it is given dice and the opset, and says what node it throws. What it throws need not be
legal: what onnxruntime refuses is nobody's trial.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

INT_MIN, INT_MAX = -(2**63), 2**63 - 1


class Dice(random.Random):
    """Random numbers, shapes and arrays."""

    opset = 17

    def flip(self, chance: float = 0.5) -> bool:
        return self.random() < chance

    def shape(self, low: int = 1, high: int = 4, most: int = 5) -> tuple[int, ...]:
        return tuple(self.randint(1, most) for _ in range(self.randint(low, high)))

    def floats(self, *shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
        rng = np.random.default_rng(self.getrandbits(32))
        return rng.uniform(low, high, shape).astype(np.float32)

    def ints(self, *shape: int, low: int = -5, high: int = 5, dtype: Any = np.int64) -> np.ndarray:
        rng = np.random.default_rng(self.getrandbits(32))
        return np.asarray(rng.integers(low, high, shape, endpoint=True)).astype(dtype)

    def numbers(self, *shape: int, kinds: str = "fil") -> np.ndarray:
        """An array of one of the types f32, i32, i64, u8 and bool, by their letters."""
        kind = self.choice(kinds)
        if kind == "f":
            return self.floats(*shape)
        if kind == "d":
            return self.floats(*shape).astype(np.float64)
        if kind == "b":
            return self.ints(*shape, low=0, high=1).astype(bool)
        if kind == "u":
            return self.ints(*shape, low=0, high=255, dtype=np.uint8)
        return self.ints(*shape, dtype=np.int32 if kind == "i" else np.int64)

    def axis(self, rank: int) -> int:
        return self.randint(-rank, rank - 1)

    def axes(self, rank: int, least: int = 1) -> list[int]:
        """Different axes, some counted from the end."""
        found = self.sample(range(rank), self.randint(least, rank))
        return [a - rank if self.flip() else a for a in found]

    def broadcast(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape that broadcasts with `shape`."""
        cut = self.randint(0, len(shape))
        return tuple(1 if self.flip(0.3) else d for d in shape[cut:])

    def some(self, **attributes: Any) -> dict[str, Any]:
        """Each of the attributes, or not."""
        return {name: value for name, value in attributes.items() if value is not None and self.flip(0.7)}


@dataclass
class Trial:
    """A node: its attributes, its inputs (None for absent ones), which of them the network is given, its outputs.

    `steps`: by how much integers may differ, where a real is rounded to them.
    """

    inputs: Sequence[np.ndarray | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    free: Sequence[int] = (0,)
    outputs: int = 1
    tolerance: float = 1e-5
    steps: int = 0


Thrower = Callable[[Dice], Trial]
TRIALS: dict[str, tuple[Thrower, tuple[int, ...]]] = {}
"""Operator, after its domain where that is not ONNX's own → what throws it, and the opsets it is thrown for. What comes
after a space tells several kinds of trials of an operator from one another."""


def trial(*operators: str, opsets: Sequence[int] = (17,), domain: str = "") -> Callable[[Thrower], Thrower]:
    """Register a function as what throws some operators; `opsets` are ONNX's own also where the domain is another."""

    def decorate(function: Thrower) -> Thrower:
        for operator in operators:
            TRIALS[f"{domain}.{operator}" if domain else operator] = (function, tuple(opsets))
        return function

    return decorate


def load_trials() -> None:
    """Fill the table."""
    for module in ("elementwise", "axes", "movement", "windows", "sampling", "recurrence", "attention", "quantised"):
        importlib.import_module(f"tests.property.trials.{module}")


def thrown(operator: str, seed: int) -> tuple[onnx.ModelProto, list[np.ndarray], Trial]:
    """The model of a number, and what it is given; the same number gives the same model."""
    function, opsets = TRIALS[operator]
    dice = Dice(f"{operator} {seed}")
    dice.opset = dice.choice(opsets)
    made = function(dice)
    if dice.flip(0.1):  # a network of constants: what is folded at import means the same
        made.free = ()
    domain, _, kind = operator.partition(" ")[0].rpartition(".")
    present = {f"x{i}": np.asarray(array) for i, array in enumerate(made.inputs) if array is not None}
    given = {f"x{i}" for i in made.free}
    node = helper.make_node(
        kind, ["" if array is None else f"x{i}" for i, array in enumerate(made.inputs)],
        [f"y{i}" for i in range(made.outputs)], domain=domain, **made.attributes,
    )  # fmt: skip
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in present.items() if name in given
    ]  # fmt: skip
    tensors = [numpy_helper.from_array(array, name) for name, array in present.items() if name not in given]
    graph = helper.make_graph([node], "trial", infos, [onnx.ValueInfoProto(name=name) for name in node.output], tensors)
    imports = [helper.make_opsetid("", dice.opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return model, [array for name, array in present.items() if name in given], made
