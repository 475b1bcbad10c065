"""The table of rules itself: which function lowers a neutral op, and under which condition.

The rows are in `rules` and in the modules it imports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compiler.ir.core import Value
from targets.mlu220.lowering import Lowering

Rule = Callable[[Lowering, Any], Value]
Condition = Callable[[Any], "str | None"]

LEGALIZERS: dict[str, Rule] = {}
CONDITIONS: dict[str, Condition] = {}


def rule(*names: str, condition: Condition | None = None) -> Callable[[Rule], Rule]:
    """Register a rule for neutral ops, with the condition under which it applies."""

    def decorate(function: Rule) -> Rule:
        for name in names:
            LEGALIZERS[name] = function
            if condition is not None:
                CONDITIONS[name] = condition
        return function

    return decorate
