"""Emitting our ops into a function, folding what is known at import.

A tensor that is known (an initialiser, a `Constant` node, the result of folding) is a `Constant` that floats: it
belongs to no module until an op that stays takes it. So exporters' shape arithmetic leaves nothing behind, and a
weight that was reshaped twice is stored once, under its last name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.evaluate.folding import can_fold, fold_op
from compiler.ir.core import Constant, Function, Module, Op, Value
from compiler.ir.location import UNKNOWN, Location

GROWTH_LIMIT = 1 << 16
"""Folding may make a tensor of more elements than its operands have (broadcast, tile) only up to this size."""


class Builder:
    """Appends ops to one function of a module."""

    def __init__(self, module: Module, function: Function) -> None:
        self.module = module
        self.function = function
        self.location: Location = UNKNOWN
        self.narrow: dict[Value, int] = {}
        """Bits of integers that are narrower than their element type (ONNX's of 2 and 4 bits)."""
        self._prefix = ""
        self._names: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._registered: dict[Constant, Constant] = {}
        self._origins: dict[Constant, str] = {}

    def begin_node(self, location: Location, prefix: str) -> None:
        """Ops emitted from now on carry `location`; unnamed values get names that start with `prefix`."""
        self.location = location
        self._prefix = prefix

    @property
    def prefix(self) -> str:
        """What names of the current node's own values begin with."""
        return self._prefix

    def constant(self, array: Any, name: str = "") -> Constant:
        """A floating constant; it joins the module when an emitted op takes it."""
        return Constant(self.module, name, np.asarray(array))

    def emit(self, op_class: type[Op], *operands: Value | None, **attributes: Any) -> list[Value]:
        """The results of a new op, or constants where all of it is known. Raises CompilerError for a faulty op."""
        present = [v for v in operands if v is not None]
        if present and all(isinstance(v, Constant) for v in present):
            folded = self._fold(op_class, operands, attributes)
            if folded is not None:
                return folded
        return self.append(op_class, *operands, **attributes)

    def append(self, op_class: type[Op], *operands: Value | None, **attributes: Any) -> list[Value]:
        """The results of a new op that stays an op even where all of it is known."""
        op = op_class(*(self.registered(v) for v in operands), location=self.location, **attributes)
        self.function.body.append(op)
        return list(op.results)

    def _fold(
        self, op_class: type[Op], operands: Sequence[Value | None], attributes: dict[str, Any]
    ) -> list[Value] | None:
        op = op_class(*operands, **attributes)
        try:
            arrays = [v.data if isinstance(v, Constant) else None for v in operands]
            if not can_fold(op, arrays) or _grows(op) or any(r.type.quant is not None for r in op.results):
                return None
            results = fold_op(op, arrays)
        finally:
            op.set_operands([])
        constants = [self.constant(np.asarray(r)) for r in results]
        if op.op_name.startswith("tensor.") and len(operands) == 1 and isinstance(operands[0], Constant):
            origin = operands[0].name or self._origins.get(operands[0], "")
            self._origins.update(dict.fromkeys(constants, origin))
        return list(constants)

    def registered(self, value: Value | None, name: str = "") -> Value | None:
        """The value itself, or, for a floating constant, its registered twin (called `name` if it has no name yet).

        A nameless constant that was only moved about (reshaped, transposed) is called after what it was made of.
        """
        if not isinstance(value, Constant) or self.module.constants.get(value.name) is value:
            return value
        if value not in self._registered:
            name = value.name or name or self._origins.get(value) or self.fresh_name(f"{self._prefix}.constant")
            self._registered[value] = self.module.add_constant(name, value.data)
        return self._registered[value]

    def reserve(self, name: str) -> None:
        """Keep `name` for a tensor of the model."""
        self._names.add(name)

    def release(self, *names: str) -> None:
        """Names of what was given up are free again."""
        self._names.difference_update(names)

    def fresh_name(self, wanted: str) -> str:
        """`wanted`, or `wanted.1`, … : a name nothing has yet."""
        name = wanted
        while name in self._names:
            self._numbers[wanted] = self._numbers.get(wanted, 0) + 1
            name = f"{wanted}.{self._numbers[wanted]}"
        self._names.add(name)
        return name

    def name_results(self, first: Op | None) -> None:
        """Name the still unnamed results of the ops from `first` on after the node they came from."""
        op = first
        while op is not None:
            for result in op.results:
                if not result.name:
                    result.name = self.fresh_name(f"{self._prefix}.{op.op_name.partition('.')[2]}")
            op = op.next


def _grows(op: Op) -> bool:
    """Whether an op makes many more elements than it takes; what has no known size is made of what it takes."""
    if not all(r.type.is_static for r in op.results):
        return False
    made = sum(math.prod(r.type.static_shape) for r in op.results)
    taken = sum(math.prod(v.type.static_shape) for v in op.inputs)
    return made > max(taken, GROWTH_LIMIT)
