"""The table of rules itself: which function lowers a neutral op, and under which condition.

The rows are in `rules` and in the modules it imports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compiler.ir.core import Value
from compiler.ir.types import DType
from targets.mlu220.lowering import Lowering

Rule = Callable[[Lowering, Any], Value]
Condition = Callable[[Any], "str | None"]

LEGALIZERS: dict[str, Rule] = {}
CONDITIONS: dict[str, Condition] = {}

OTHER_TYPES: dict[str, frozenset[DType]] = {}
"""Op → element types its rule handles beside the chip's own."""

INDEX_OPERANDS: dict[str, int] = {"tensor.gather": 1}
"""Op → operand that is an index list, used at compile time."""


def rule(*names: str, condition: Condition | None = None) -> Callable[[Rule], Rule]:
    """Register a rule for neutral ops, with the condition under which it applies."""

    def decorate(function: Rule) -> Rule:
        for name in names:
            LEGALIZERS[name] = function
            if condition is not None:
                CONDITIONS[name] = condition
        return function

    return decorate


def also_takes(dtype: DType, *names: str) -> Callable[[Rule], Rule]:
    """Note that a rule handles operands or results of an element type that the chip does not compute on."""

    def decorate(function: Rule) -> Rule:
        for name in names:
            OTHER_TYPES[name] = OTHER_TYPES.get(name, frozenset()) | {dtype}
        return function

    return decorate
