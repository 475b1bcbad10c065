"""Rows that change or tell an element type."""

from __future__ import annotations

from typing import Any

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.dtypes import CODES, code_of, dtype_of
from compiler.frontend.aten.promotion import NUMBER_TYPES, result_type
from compiler.frontend.aten.registry import aten
from compiler.ir.core import Value

NAMED: dict[str, str] = {
    "float": "float32", "double": "float64", "half": "float16", "bfloat16": "bfloat16", "int": "int32",
    "long": "int64", "short": "int16", "char": "int8", "byte": "uint8", "bool": "bool",
}  # fmt: skip
"""Methods of torch's tensors → element type."""


def converted(c: Call, x: Any, dtype: Any) -> Any:
    """x as a ScalarType code says; None leaves it as it is."""
    return x if dtype is None else c.cast(c.as_tensor(x), dtype_of(dtype))


@aten(*(f"aten::{name}" for name in NAMED))
def named(c: Call, self: Any, *rest: Any) -> Any:
    return converted(c, self, CODES[NAMED[c.base]])


@aten("aten::to", quantised="keep")
def to(c: Call, self: Any, *args: Any, **kwargs: Any) -> Any:
    """The overloads put the type first, or after a device, or give a tensor to be like."""
    dtype = kwargs.get("dtype")
    other = next((a for a in (*args[:1], kwargs.get("other")) if isinstance(a, Value)), None)
    if other is not None:
        return c.cast(c.tensor(self), other.type.dtype)
    if dtype is None:
        head = args[:2] if args and not isinstance(args[0], int) else args[:1]
        dtype = next((a for a in head if isinstance(a, int) and not isinstance(a, bool)), None)
    return self if isinstance(self, Value) and self.type.quant is not None else converted(c, self, dtype)


@aten("aten::_to_copy")
def to_copy(c: Call, self: Any, dtype: Any = None, **rest: Any) -> Any:
    return converted(c, self, dtype)


@aten("aten::type_as")
def type_as(c: Call, self: Any, other: Any) -> Any:
    return c.cast(c.tensor(self), c.tensor(other).type.dtype)


@aten("prims::convert_element_type", "aten::to_dtype")
def convert_element_type(c: Call, a: Any, dtype: Any) -> Any:
    return converted(c, a, dtype)


@aten("aten::is_floating_point")
def is_floating_point(c: Call, self: Any) -> Any:
    return c.tensor(self).type.dtype.is_float


@aten("aten::is_complex")
def is_complex(c: Call, self: Any) -> Any:
    return False


@aten("aten::is_signed")
def is_signed(c: Call, self: Any) -> Any:
    return not c.tensor(self).type.dtype.value.startswith(("u", "i1"))


@aten("aten::result_type")
def common_type(c: Call, a: Any, b: Any) -> Any:
    return code_of(result_type(a, b))


@aten("prim::dtype", "aten::dtype")
def dtype(c: Call, a: Any) -> Any:
    return code_of(c.tensor(a).type.dtype if isinstance(a, Value) else NUMBER_TYPES[type(a)])
