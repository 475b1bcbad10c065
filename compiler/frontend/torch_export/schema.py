"""The JSON form of an exported program: its unions, types and signatures as Python values.

A union is an object with one entry that says which kind of value it is. The data comes from a file, so every shape of
it is checked where it is taken apart; `Broken` says that it is not what torch writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compiler.frontend.aten import dtypes
from compiler.frontend.inputs import Dim
from compiler.frontend.records import Unsupported

CODES: dict[Any, str] = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16", 29: "float8_e4m3fn",
    30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz", 34: "uint32", 35: "uint64",
}  # fmt: skip
"""The schema's own numbers of element types → torch's names."""

_SYMBOL = re.compile(r"Symbol\('([^']+)'")
_NAME = re.compile(r"[A-Za-z_]\w*")


class Broken(Exception):
    """The data is not of the form the schema gives it."""


@dataclass(frozen=True)
class Name:
    """A reference to the result of an earlier node, or to an input."""

    text: str


@dataclass(frozen=True)
class Subgraph:
    """A graph as an argument of a node."""

    name: str
    graph: Mapping[str, Any]


def record(data: Any, *keys: str) -> Any:
    """The entry of nested objects that `keys` lead to."""
    for key in keys:
        if not isinstance(data, Mapping) or key not in data:
            raise Broken(f"{key!r} is missing")
        data = data[key]
    return data


def items(data: Any, *keys: str) -> list[Any]:
    """As `record`, of a list."""
    found = record(data, *keys)
    if not isinstance(found, list):
        raise Broken(f"{keys[-1] if keys else 'an entry'!r} is not a list")
    return found


def text(data: Any, *keys: str) -> str:
    """As `record`, of a string."""
    found = record(data, *keys)
    if not isinstance(found, str):
        raise Broken(f"{keys[-1]!r} is not a string")
    return found


def union(data: Any) -> tuple[str, Any]:
    """(kind, value) of a union; older files write the kinds that it is not as null."""
    if isinstance(data, Mapping):
        present = {k: v for k, v in data.items() if v is not None} if len(data) > 1 else data
        if len(present) == 1:
            return next(iter(present.items()))
    raise Broken("a value has not exactly one kind")


def scalar_code(code: Any) -> int:
    """torch's ScalarType code of the schema's number of an element type."""
    if not isinstance(code, int) or code not in CODES:
        raise Broken(f"unknown element type {code!r}")
    return dtypes.CODES[CODES[code]]


def number(value: Any) -> float:
    """A float; infinities and NaN are written as words."""
    if isinstance(value, str) and value in ("Infinity", "-Infinity", "NaN"):
        return float(value.replace("Infinity", "inf"))
    if not isinstance(value, int | float):
        raise Broken(f"{value!r} is not a number")
    return float(value)


def integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Broken(f"{value!r} is not an integer")
    return value


# -- arguments ---------------------------------------------------------------------------------------------------------
def argument(data: Any) -> Any:
    """A node's argument: a Python value, `Name`s and `Subgraph`s among it."""
    kind, value = union(data)
    if kind in ("as_device", "as_layout", "as_memory_format", "as_none"):
        return None
    if kind in PLAIN:
        return PLAIN[kind](value)
    if kind in LISTS:
        if not isinstance(value, list):
            raise Broken(f"{kind} is not a list")
        return [LISTS[kind](item) for item in value]
    raise Unsupported(f"takes {kind.removeprefix('as_').replace('_', ' ')} as an argument",
                      "export the network with tensors and numbers in its place")  # fmt: skip


def _named(data: Any) -> Name:
    return Name(text(data, "name"))


def _symbolic(data: Any) -> Any:
    """A number, or the name of one that a node computes."""
    kind, value = union(data)
    if kind == "as_name":
        if not isinstance(value, str):
            raise Broken("a name is not a string")
        return Name(value)
    return value


def _optional(data: Any) -> Any:
    kind, value = union(data)
    return _named(value) if kind == "as_tensor" else None


def _checked(kind: type) -> Any:
    def check(value: Any) -> Any:
        if not isinstance(value, kind):
            raise Broken(f"{value!r} is not of type {kind.__name__}")
        return value

    return check


def _subgraph(data: Any) -> Subgraph:
    return Subgraph(text(data, "name"), record(data, "graph"))


PLAIN = {
    "as_tensor": _named, "as_int": integer, "as_float": number, "as_string": _checked(str), "as_bool": _checked(bool),
    "as_sym_int": _symbolic, "as_sym_float": _symbolic, "as_sym_bool": _symbolic, "as_scalar_type": scalar_code,
    "as_graph": _subgraph, "as_optional_tensor": _optional, "as_operator": _checked(str),
}  # fmt: skip
"""Kind of argument → its value."""

LISTS = {
    "as_tensors": _named, "as_ints": integer, "as_floats": number, "as_strings": _checked(str),
    "as_bools": _checked(bool), "as_sym_ints": _symbolic, "as_sym_floats": _symbolic, "as_sym_bools": _symbolic,
    "as_optional_tensors": _optional, "as_int_lists": _checked(list), "as_float_lists": _checked(list),
    "as_nested_tensors": lambda v: [_named(item) for item in v],
}  # fmt: skip


# -- operators ---------------------------------------------------------------------------------------------------------
PYTHON = {
    "_operator.add": "aten::add", "_operator.sub": "aten::sub", "_operator.mul": "aten::mul",
    "_operator.truediv": "aten::true_divide", "_operator.floordiv": "aten::floor_divide",
    "_operator.mod": "aten::remainder", "_operator.neg": "aten::neg", "_operator.pow": "aten::pow",
    "_operator.lt": "aten::lt", "_operator.le": "aten::le", "_operator.gt": "aten::gt", "_operator.ge": "aten::ge",
    "_operator.eq": "aten::eq", "_operator.ne": "aten::ne", "_operator.and_": "aten::__and__",
    "_operator.or_": "aten::__or__", "_operator.not_": "aten::sym_not", "math.trunc": "aten::sym_int",
    "math.ceil": "aten::ceil", "math.floor": "aten::floor", "math.sqrt": "aten::sqrt", "builtins.round": "aten::round",
    "torch.sym_float": "aten::sym_float", "torch.sym_int": "aten::sym_int", "torch.sym_max": "aten::sym_max",
    "torch.sym_min": "aten::sym_min", "torch.sym_not": "aten::sym_not", "torch.sym_ite": "aten::sym_ite",
    "torch._sym_sqrt": "aten::sqrt", "torch.sym_sqrt": "aten::sqrt", "builtins.abs": "aten::abs",
    "torch.sym_sum": "aten::sym_sum",
}  # fmt: skip
"""Functions of Python in graphs, on sizes → rows of the table."""


def operator_of(target: str) -> tuple[str, str]:
    """(name in the table, overload) of a node's target, such as torch.ops.aten.add.Tensor."""
    if target in PYTHON:
        return PYTHON[target], ""
    parts = target.removeprefix("torch.ops.").split(".")
    if target.startswith("torch.ops.") and len(parts) in (2, 3):
        return f"{parts[0]}::{parts[1]}", parts[2] if len(parts) == 3 else ""
    return target, ""


# -- types of tensors --------------------------------------------------------------------------------------------------
def dimension(data: Any) -> Dim:
    """A size: a number, or the symbol of an open one; what is computed of symbols has no name of its own."""
    kind, value = union(data)
    if kind == "as_int":
        return integer(value)
    expression = text(value, "expr_str")
    symbols = _SYMBOL.findall(expression)
    if expression.startswith("Symbol(") and len(symbols) == 1:
        return symbols[0]
    if _NAME.fullmatch(expression):
        return expression
    return expression if expression.isdigit() and not symbols else "?"


def size_of(data: Any) -> int:
    """A size that must be a number."""
    found = dimension(data)
    if not isinstance(found, int):
        raise Broken(f"size {found!r} is not a number")
    return found
