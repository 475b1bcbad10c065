"""Rows that give plain numbers: sizes, ranks, and tensors of one element read as numbers."""

from __future__ import annotations

import math
from typing import Any

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.promotion import together
from compiler.frontend.aten.registry import aten
from compiler.frontend.records import Malformed
from compiler.ir.core import Constant, Value
from compiler.ir.types import DType
from compiler.ops import math as logic
from compiler.ops import selection, tensor


@aten("aten::size", "aten::sym_size", quantised="keep")
def size(c: Call, self: Any, dim: Any = None) -> Any:
    """Dimensions that depend on data are tensors of rank 0."""
    shape = c.open_shape(self)
    axes = range(len(shape)) if dim is None else [c.axis(dim, len(shape))]
    found = [shape[axis] if shape[axis] is not None else _computed(c, self, axis) for axis in axes]
    return found if dim is None else found[0]


def _computed(c: Call, x: Value, axis: int) -> Value:
    return c.emit(tensor.Gather, c.emit(selection.ShapeOf, x), c.constant(axis, DType.I64), axis=0)


@aten("aten::numel", "aten::sym_numel", quantised="keep")
def numel(c: Call, self: Any) -> Any:
    return c.tensor(self).type.elements


@aten("aten::dim", quantised="keep")
def dim(c: Call, self: Any) -> Any:
    return c.tensor(self).type.rank


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
    return size(c, self, 0) if isinstance(self, Value) else len(self)


# -- tensors of one element --------------------------------------------------------------------------------------------
def number_of(c: Call, x: Any, dtype: DType | None, what: str) -> Any:
    """The one element of a tensor: a Python number where it is known, else a tensor of rank 0."""
    if not isinstance(x, Value) or isinstance(x, Constant):
        return c.number(x, what)
    if x.type.is_static and x.type.elements != 1:
        raise Malformed(f"{what} is taken from {x.type.elements} elements")
    flat = c.reshape(x, ())
    return flat if dtype is None else c.cast(flat, dtype)


@aten("aten::item", "aten::_local_scalar_dense", "aten::ScalarImplicit")
def item(c: Call, self: Any) -> Any:
    return number_of(c, self, None, "a number taken from a tensor")


@aten("aten::Int", "aten::IntImplicit")
def to_int(c: Call, self: Any) -> Any:
    found = int(self) if isinstance(self, str) else number_of(c, self, DType.I64, "an integer taken from a tensor")
    return found if isinstance(found, Value) else int(found)


@aten("aten::Float", "aten::FloatImplicit")
def to_float(c: Call, self: Any) -> Any:
    found = float(self) if isinstance(self, str) else number_of(c, self, DType.F32, "a number taken from a tensor")
    return found if isinstance(found, Value) else float(found)


@aten("aten::Bool", "aten::is_nonzero")
def to_bool(c: Call, self: Any) -> Any:
    found = number_of(c, self, DType.BOOL, "a condition")
    return found if isinstance(found, Value) else bool(found)


@aten("prim::NumToTensor")
def number_to_tensor(c: Call, a: Any) -> Any:
    """A number stays one: tensors of one number only carry it to the next operator."""
    return a


@aten("aten::sym_float", "aten::sym_int")
def symbolic_number(c: Call, a: Any) -> Any:
    is_float = c.base == "sym_float"
    found = number_of(c, a, DType.F32 if is_float else DType.I64, "a number")
    return found if isinstance(found, Value) else float(found) if is_float else math.trunc(found)


@aten("aten::sym_max", "aten::sym_min")
def symbolic_extreme(c: Call, a: Any, b: Any) -> Any:
    return (max if c.base == "sym_max" else min)(c.number(a, "a number"), c.number(b, "a number"))


@aten("aten::sym_ite")
def symbolic_choice(c: Call, b: Any, t: Any, f: Any) -> Any:
    found = to_bool(c, b)
    if isinstance(found, Value):
        return c.emit(logic.Where, found, *together(c, t, f))
    return t if found else f


@aten("aten::sym_not")
def symbolic_not(c: Call, a: Any) -> Any:
    found = to_bool(c, a)
    return c.emit(logic.Not, found) if isinstance(found, Value) else not found


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
