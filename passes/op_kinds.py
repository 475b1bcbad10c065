"""Kinds of neutral ops that several passes tell apart."""

from __future__ import annotations

from compiler.ir.core import Op
from compiler.ops.activation import Activation, Softmax
from compiler.ops.math import Binary, Cast, Unary, Where


def is_elementwise(op: Op) -> bool:
    """Whether every element of the result depends on the elements at its place only, with broadcasting."""
    return isinstance(op, Binary | Unary | Where | Cast | Activation) and not isinstance(op, Softmax)
