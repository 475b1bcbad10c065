"""The aten table: which function turns which operator of torch into our ops. TorchScript and torch.export share it.

A converter is one row: `@aten("aten::conv2d")`. It is called with the arguments of torch's schema, by position and by
keyword; a tensor is a `Value` (a `Constant` where it is known at import), everything else a Python number, string,
None or list of those, and it answers in the same kinds. A name without overload serves all of them; a row of a dotted
name (`aten::max.dim`) wins where the caller knows the overload. `aten::relu_` is `aten::relu` here: callers rebind.

Quantised tensors are values of a quantised type. A row says what it does with them: `keep` (the ops it emits take
them), `same` (dequantise, compute, quantise as the first tensor was; torch's rule for most), or it has no choice, and
then `same` is what happens.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compiler.frontend.aten.call import OPEN, Call, tensors_in
from compiler.frontend.aten.quantisers import dequantised, requantised
from compiler.frontend.builder import Builder
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Value

FAMILY_MODULES = ("activations", "arithmetic", "attention", "comparison", "convolution", "creation", "embedding",
                  "indexing", "linear", "moving", "normalization", "passing", "pooling", "prepacked", "quantized",
                  "recurrent", "reduction", "resampling", "scalars", "sorting", "types",
                  "vision")  # fmt: skip

Converter = Callable[..., Any]

IGNORED = ("device", "layout", "pin_memory", "memory_format", "non_blocking", "generator", "requires_grad")
"""Arguments that say where and how tensors lie in memory; a row need not name them."""

REPLACE = "write it with operators that docs/supported-aten-operators.md lists, or compute it in the host program"
REPORT = "if torch runs the model, this is a fault of mluc: report it with the operator"


@dataclass(frozen=True)
class Row:
    """An operator's converter, and what becomes of quantised tensors."""

    function: Converter
    quantised: str
    parameters: frozenset[str]
    takes_any: bool
    refuses: bool = False
    """It only says why not."""

    @staticmethod
    def of(function: Converter, quantised: str, refuses: bool) -> Row:
        kinds = inspect.signature(function).parameters.values()
        return Row(
            function, quantised, frozenset(p.name for p in kinds), any(p.kind is p.VAR_KEYWORD for p in kinds),
            refuses,
        )


ATEN: dict[str, Row] = {}
"""Name, with or without overload → row. Complete once `load_converters` ran."""


def aten(*names: str, quantised: str = "same", refuses: bool = False) -> Callable[[Converter], Converter]:
    """Register a function as the converter of `names`. `quantised`: `same` or `keep`. One that `refuses` only says why
    the operator cannot be converted.
    """

    def decorate(function: Converter) -> Converter:
        row = Row.of(function, quantised, refuses)
        for name in names:
            if name in ATEN:
                raise ValueError(f"{name} has two rows")
            ATEN[name] = row
        return function

    return decorate


def load_converters() -> None:
    """Fill the table."""
    for family in FAMILY_MODULES:
        importlib.import_module(f"compiler.frontend.aten.{family}")


def find_converter(name: str, overload: str = "") -> Row | None:
    """The row of an operator; its in-place form has the row of the plain one. None if there is none."""
    load_converters()
    for wanted in (name, name.removesuffix("_") if not name.endswith("__") else name):
        row = ATEN.get(f"{wanted}.{overload}") or ATEN.get(wanted)
        if row is not None:
            return row
    return None


def convert(
    name: str, overload: str, builder: Builder, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> Any:
    """What a call of operator `name` gives. Raises Unsupported or Malformed (and CompilerError for a faulty op)."""
    row = find_converter(name, overload)
    if row is None:
        raise Unsupported("has no converter", REPLACE)
    call = Call(name, builder, overload)
    given = {k: v for k, v in (kwargs or {}).items() if k not in IGNORED or k in row.parameters}
    if "out" not in row.parameters:
        given.pop("out", None)
    if row.quantised == "keep" or not call.has_quantised([*args, *given.values()]):
        return _answer(row, call, args, given)
    like = call.first_quantised([*args, *given.values()])
    real = [dequantised(call, a) for a in args]
    answer = _answer(row, call, real, {k: dequantised(call, v) for k, v in given.items()})
    return requantised(call, answer, like)


def _answer(row: Row, call: Call, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    try:
        return row.function(call, *args, **kwargs)
    except TypeError as fault:
        if fault.__traceback__ is not None and fault.__traceback__.tb_next is None:
            raise Malformed(f"its arguments do not fit its schema: {fault}", REPORT) from None
        raise Malformed(f"its arguments do not fit together ({fault})", REPORT) from None
    except (ArithmeticError, LookupError, ValueError, AttributeError) as fault:
        if any(not v.type.is_static for v in tensors_in([*args, *kwargs.values()])):
            raise Unsupported("takes a tensor whose shape depends on the network's data", OPEN) from None
        raise Malformed(f"its arguments do not fit together ({type(fault).__name__}: {fault})", REPORT) from fault


def is_tensor(x: Any) -> bool:
    return isinstance(x, Value)
