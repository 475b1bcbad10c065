"""Rows that give plain numbers: sizes, ranks, and tensors of one element read as numbers."""

from __future__ import annotations

import math
from typing import Any

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.registry import aten
from compiler.ir.core import Value
from compiler.ir.types import DType


@aten("aten::size", "aten::sym_size", quantised="keep")
def size(c: Call, self: Any, dim: Any = None) -> Any:
    shape = c.shape(self)
    return list(shape) if dim is None else shape[c.axis(dim, len(shape))]


@aten("aten::numel", "aten::sym_numel", quantised="keep")
def numel(c: Call, self: Any) -> Any:
    return c.tensor(self).type.elements


@aten("aten::dim", quantised="keep")
def dim(c: Call, self: Any) -> Any:
    return len(c.shape(self))


@aten("aten::stride", "aten::sym_stride", quantised="keep")
def stride(c: Call, self: Any, dim: Any = None) -> Any:
    shape = c.shape(self)
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    return strides if dim is None else strides[c.axis(dim, len(shape))]


@aten("aten::storage_offset", "aten::sym_storage_offset", quantised="keep")
def storage_offset(c: Call, self: Any) -> Any:
    return 0


@aten("aten::is_contiguous", "aten::sym_is_contiguous", quantised="keep")
def is_contiguous(c: Call, self: Any, *rest: Any, **more: Any) -> Any:
    return True


@aten("aten::len", quantised="keep")
def length(c: Call, self: Any) -> Any:
    return c.shape(self)[0] if isinstance(self, Value) else len(self)


# -- tensors of one element --------------------------------------------------------------------------------------------
@aten("aten::item", "aten::_local_scalar_dense", "aten::ScalarImplicit")
def item(c: Call, self: Any) -> Any:
    return c.number(self, "a number taken from a tensor")


@aten("aten::Int", "aten::IntImplicit")
def to_int(c: Call, self: Any) -> Any:
    return int(self) if isinstance(self, str) else c.integer(self, "an integer taken from a tensor")


@aten("aten::Float", "aten::FloatImplicit")
def to_float(c: Call, self: Any) -> Any:
    return float(self) if isinstance(self, str) else float(c.number(self, "a number taken from a tensor"))


@aten("aten::Bool", "aten::is_nonzero")
def to_bool(c: Call, self: Any) -> Any:
    return bool(c.number(self, "a condition"))


@aten("prim::NumToTensor")
def number_to_tensor(c: Call, a: Any) -> Any:
    """A number stays one: tensors of one number only carry it to the next operator."""
    return a


@aten("aten::sym_float", "aten::sym_int")
def symbolic_number(c: Call, a: Any) -> Any:
    number = c.number(a, "a number")
    return float(number) if c.base == "sym_float" else math.trunc(number)


@aten("aten::sym_max", "aten::sym_min")
def symbolic_extreme(c: Call, a: Any, b: Any) -> Any:
    return (max if c.base == "sym_max" else min)(c.number(a, "a number"), c.number(b, "a number"))


@aten("aten::sym_ite")
def symbolic_choice(c: Call, b: Any, t: Any, f: Any) -> Any:
    return t if to_bool(c, b) else f


@aten("aten::sym_not")
def symbolic_not(c: Call, a: Any) -> Any:
    return not to_bool(c, a)


@aten("aten::equal")
def equal(c: Call, self: Any, other: Any) -> Any:
    a, b = c.known(self, "a tensor"), c.known(other, "a tensor")
    return bool(a.shape == b.shape and (a == b).all())


@aten("aten::is_same_size")
def is_same_size(c: Call, self: Any, other: Any) -> Any:
    return c.shape(self) == c.shape(other)


@aten("aten::element_size")
def element_size(c: Call, self: Any) -> Any:
    dtype: DType = c.tensor(self).type.dtype
    return dtype.size
