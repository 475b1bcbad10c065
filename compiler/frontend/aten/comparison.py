"""Rows of comparisons, logic and choice."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.promotion import no_tensors, together
from compiler.frontend.aten.registry import aten
from compiler.ir.core import Op, Value
from compiler.ir.types import DType
from compiler.ops import math

COMPARISONS: dict[str, tuple[type[Op], Callable]] = {
    "eq": (math.Equal, operator.eq), "lt": (math.Less, operator.lt), "le": (math.LessEqual, operator.le),
    "gt": (math.Greater, operator.gt), "ge": (math.GreaterEqual, operator.ge), "less": (math.Less, operator.lt),
    "less_equal": (math.LessEqual, operator.le), "greater": (math.Greater, operator.gt),
    "greater_equal": (math.GreaterEqual, operator.ge),
}  # fmt: skip


@aten(*(f"aten::{name}" for name in COMPARISONS))
def comparison(c: Call, self: Any, other: Any) -> Any:
    """Also of plain values, strings and lists included."""
    op_class, plain = COMPARISONS[c.base]
    if no_tensors([self, other]):
        return plain(self, other)
    a, b = together(c, self, other)
    if a.type.dtype is DType.BOOL and op_class is not math.Equal:
        a, b = c.cast(a, DType.U8), c.cast(b, DType.U8)
    return c.emit(op_class, a, b)


@aten("aten::ne", "aten::not_equal")
def not_equal(c: Call, self: Any, other: Any) -> Any:
    if no_tensors([self, other]):
        return self != other
    return c.emit(math.Not, c.emit(math.Equal, *together(c, self, other)))


def truth(c: Call, x: Any) -> Value:
    """x as booleans: whether it is not 0."""
    return c.cast(c.as_tensor(x), DType.BOOL)


LOGIC: dict[str, type[Op]] = {"logical_and": math.And, "logical_or": math.Or, "logical_xor": math.Xor}


@aten(*(f"aten::{name}" for name in LOGIC))
def logic(c: Call, self: Any, other: Any) -> Any:
    return c.emit(LOGIC[c.base], truth(c, self), truth(c, other))


@aten("aten::logical_not", "aten::__not__")
def logical_not(c: Call, self: Any) -> Any:
    return c.emit(math.Not, truth(c, self)) if isinstance(self, Value) else not self


@aten("aten::isnan")
def is_nan(c: Call, self: Any) -> Any:
    x = c.tensor(self)
    return c.emit(math.IsNan, x) if x.type.dtype.is_float else c.constant(np.zeros(x.type.static_shape, bool))


@aten("aten::isinf")
def is_inf(c: Call, self: Any) -> Any:
    x = c.tensor(self)
    return c.emit(math.IsInf, x) if x.type.dtype.is_float else c.constant(np.zeros(x.type.static_shape, bool))


@aten("aten::isfinite")
def is_finite(c: Call, self: Any) -> Any:
    return c.emit(math.Not, c.emit(math.Or, is_nan(c, self), is_inf(c, self)))


@aten("aten::isposinf", "aten::isneginf")
def is_signed_inf(c: Call, self: Any) -> Any:
    x = c.real(self)
    return c.emit(math.Equal, x, c.scalar_like(np.inf if c.base == "isposinf" else -np.inf, x))


@aten("aten::isclose")
def is_close(c: Call, self: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    a, b = together(c, self, other)
    bound = c.emit(math.Mul, c.emit(math.Abs, b), c.scalar_like(rtol, b))
    bound = c.emit(math.Add, bound, c.scalar_like(atol, b))
    return c.emit(math.LessEqual, c.emit(math.Abs, c.emit(math.Sub, a, b)), bound)


# -- choice ------------------------------------------------------------------------------------------------------------
@aten("aten::where")
def where(c: Call, condition: Any, self: Any = None, other: Any = None) -> Any:
    if self is None and other is None:
        found = np.nonzero(c.known(condition, "the condition"))
        return [c.constant(axis) for axis in found]
    a, b = together(c, self, other)
    return c.emit(math.Where, truth(c, condition), a, b)


@aten("aten::masked_fill")
def masked_fill(c: Call, self: Any, mask: Any, value: Any) -> Any:
    x = c.tensor(self)
    filler = c.cast(value, x.type.dtype) if isinstance(value, Value) else c.scalar_like(value, x)
    return c.emit(math.Where, truth(c, mask), filler, x)


@aten("aten::heaviside")
def heaviside(c: Call, self: Any, values: Any) -> Any:
    x, at_zero = together(c, self, values)
    zero = c.scalar_like(0, x)
    step = c.cast(c.emit(math.Greater, x, zero), x.type.dtype)
    return c.emit(math.Where, c.emit(math.Equal, x, zero), at_zero, step)


@aten("aten::threshold")
def threshold(c: Call, self: Any, threshold: Any, value: Any) -> Any:
    x = c.tensor(self)
    above = c.emit(math.Greater, x, c.scalar_like(threshold, x))
    return c.emit(math.Where, above, x, c.scalar_like(value, x))
