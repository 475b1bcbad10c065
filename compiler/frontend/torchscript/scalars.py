"""Operators on numbers, text, lists and dictionaries: evaluated at once, with Python's values.

Integers are those of 64 bits. Whatever could grow without bound from a few bytes of code (powers, shifts, repeated
lists and text) is bounded here.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from compiler.frontend.records import Malformed

LONGEST = 1_000_000
"""Elements a list or text may have."""

_INT64 = 1 << 63


def bounded(value: Any) -> Any:
    """The value. Raises Malformed where an integer leaves 64 bits, or a list or text is too long."""
    if type(value) is int and not -_INT64 <= value < _INT64:
        raise Malformed("computes an integer that does not fit 64 bits")
    if isinstance(value, list | str) and len(value) > LONGEST:
        raise Malformed(f"makes a list or text of {len(value)} elements")
    return value


# -- arithmetic --------------------------------------------------------------------------------------------------------
def _add(a: Any, b: Any, alpha: Any = 1) -> Any:
    if isinstance(a, list | str) and isinstance(b, list | str) and len(a) + len(b) > LONGEST:
        raise Malformed("makes a list or text that is too long")
    return a + (b if alpha == 1 else b * alpha)


def _add_to(a: Any, b: Any) -> Any:
    if isinstance(a, list):
        a.extend(b[:LONGEST])
        return bounded(a)
    return _add(a, b)


def _mul(a: Any, b: Any) -> Any:
    if isinstance(a, list | str) and isinstance(b, int) and len(a) * b > LONGEST:
        raise Malformed("makes a list or text that is too long")
    return a * b


def _div(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode == "floor":
        return a // b
    return math.trunc(a / b) if rounding_mode == "trunc" else a / b


def _pow(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and b >= 0:
        if abs(a) > 1 and b > 64:
            raise Malformed("computes an integer that does not fit 64 bits")
        return a**b
    return math.pow(a, b)


def _shift_left(a: int, b: int) -> int:
    if not 0 <= b < 64:
        raise Malformed(f"shifts by {b} bits")
    return a << b


def _remainder(a: Any, b: Any) -> Any:
    return a % b


def _range_length(low: int, high: int, step: int) -> int:
    if step == 0:
        raise Malformed("counts in steps of 0")
    return max(0, -((low - high) // step))


def _round(x: Any, decimals: int = 0) -> Any:
    return float(round(x, decimals)) if isinstance(x, float) else x


def _float_of(function: Callable[[float], float]) -> Callable[[Any], float]:
    return lambda x: function(float(x))


# -- text and lists ----------------------------------------------------------------------------------------------------
def _format(text: str, *values: Any) -> str:
    """`{}` is replaced by the values in turn; other forms are not TorchScript's."""
    parts = text.split("{}")
    shown = [str(v) if isinstance(v, int | float | str | bool | list | tuple | None) else "a tensor" for v in values]
    shown += ["{}"] * len(parts)
    return "".join(part + value for part, value in zip(parts, [*shown[: len(parts) - 1], ""], strict=True))


def _slice(items: Any, *arguments: Any) -> Any:
    start, end, step = (*arguments, None, None, None)[:3] if len(arguments) < 3 else arguments[:3]
    return items[slice(start, end, step)]


def _get(items: Any, key: Any) -> Any:
    return items[key]


def _set(items: Any, key: Any, value: Any) -> Any:
    items[key] = value
    return bounded(items)


def _append(items: list[Any], value: Any) -> list[Any]:
    items.append(value)
    return bounded(items)


def _extend(items: list[Any], more: Any) -> None:
    items.extend(list(more)[:LONGEST])
    bounded(items)


def _insert(items: list[Any], index: int, value: Any) -> None:
    items.insert(index, value)


def _delete(items: Any, key: Any) -> None:
    del items[key]


def _contains(items: Any, value: Any) -> bool:
    return any(value is item or (type(item) in SIMPLE and item == value) for item in items)


def _dict_get(items: dict[Any, Any], key: Any, default: Any = None) -> Any:
    return items.get(key, default)


def _sort(items: list[Any], reverse: bool = False) -> None:
    items.sort(reverse=reverse)


def _maximum(a: Any, b: Any = None) -> Any:
    return max(a) if b is None else max(a, b)


def _minimum(a: Any, b: Any = None) -> Any:
    return min(a) if b is None else min(a, b)


SIMPLE = (int, float, bool, str, type(None))

SCALARS: dict[str, Callable[..., Any]] = {
    "aten::add": _add, "aten::sub": lambda a, b, alpha=1: a - b * alpha, "aten::mul": _mul, "aten::div": _div,
    "aten::floordiv": operator.floordiv, "aten::floor_divide": operator.floordiv, "aten::remainder": _remainder,
    "aten::fmod": math.fmod, "aten::neg": operator.neg, "aten::abs": abs, "aten::pow": _pow, "prim::abs": abs,
    "aten::eq": operator.eq, "aten::ne": operator.ne, "aten::lt": operator.lt, "aten::le": operator.le,
    "aten::gt": operator.gt, "aten::ge": operator.ge, "aten::__not__": operator.not_,
    "aten::__and__": operator.and_, "aten::__or__": operator.or_, "aten::__xor__": operator.xor,
    "aten::__lshift__": _shift_left, "aten::__rshift__": operator.rshift, "aten::__is__": operator.is_,
    "aten::__isnot__": operator.is_not, "aten::bitwise_not": operator.invert,
    "aten::floor": lambda x: math.floor(x), "aten::ceil": lambda x: math.ceil(x), "aten::round": _round,
    "aten::sqrt": _float_of(math.sqrt), "aten::exp": _float_of(math.exp), "aten::log": _float_of(math.log),
    "aten::log2": _float_of(math.log2), "aten::log10": _float_of(math.log10), "aten::sin": _float_of(math.sin),
    "aten::cos": _float_of(math.cos), "aten::tanh": _float_of(math.tanh), "aten::isnan": _float_of(math.isnan),
    "aten::isinf": _float_of(math.isinf), "aten::isfinite": _float_of(math.isfinite),
    "prim::max": _maximum, "prim::min": _minimum, "aten::max": _maximum, "aten::min": _minimum, "aten::gcd": math.gcd,
    "aten::__range_length": _range_length, "aten::__derive_index": lambda i, low, step: low + i * step,
    "aten::Int": int, "aten::Float": float, "aten::Bool": bool, "prim::NumToTensor": lambda x: x,
    "prim::unchecked_unwrap_optional": lambda x: x, "aten::_unwrap_optional": lambda x: x, "aten::ord": ord,
}  # fmt: skip
"""Operators that are evaluated at once where no argument is a tensor."""

CONTAINERS: dict[str, Callable[..., Any]] = {
    "aten::len": len, "aten::append": _append, "aten::extend": _extend, "aten::insert": _insert,
    "aten::__getitem__": _get, "aten::_set_item": _set, "aten::__contains__": _contains, "aten::Delete": _delete,
    "aten::pop": lambda items, *key: items.pop(*key), "aten::clear": lambda items: items.clear(),
    "aten::copy": lambda items: items.copy(), "aten::list": list, "aten::reverse": lambda items: items.reverse(),
    "aten::slice": _slice, "aten::add": _add, "aten::add_": _add_to, "aten::mul": _mul, "aten::keys": lambda d: list(d),
    "aten::values": lambda d: list(d.values()), "aten::items": lambda d: list(d.items()), "aten::get": _dict_get,
    "aten::update": lambda d, more: d.update(more), "aten::dict": dict, "aten::sort": _sort, "aten::sorted": sorted,
    "aten::index": lambda items, value: items.index(value), "aten::count": lambda items, value: items.count(value),
    "aten::eq": operator.eq, "aten::ne": operator.ne, "aten::format": _format, "aten::percentFormat": _format,
    "aten::lower": str.lower, "aten::upper": str.upper, "aten::strip": str.strip, "aten::startswith": str.startswith,
    "aten::endswith": str.endswith, "aten::find": str.find, "aten::rfind": str.rfind, "aten::join": str.join,
    "aten::split": str.split, "aten::splitlines": str.splitlines, "aten::isdigit": str.isdigit,
    "aten::sum": sum, "aten::any": any, "aten::all": all, "prim::max": _maximum, "prim::min": _minimum,
    "prim::setdefault": lambda d, *a: d.setdefault(*a), "aten::setdefault": lambda d, *a: d.setdefault(*a),
    "aten::popitem": lambda d: d.popitem(),
}  # fmt: skip
"""Operators on a list, dictionary, tuple or text as first argument."""
