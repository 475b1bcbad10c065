"""Inputs of a scripted network: from the parameters of its `forward` to inputs of the module, and back.

A tensor is an input; a tuple, list or dictionary of tensors is several, named `x.0` or `x.key`; a number, flag or text
has to be known and comes from `--bind` or from its default. Shapes come from `--shape`, or from the archive where
tracing recorded them. Nothing here evaluates the network.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.errors import Diagnostic
from compiler.frontend.aten.dtypes import widened
from compiler.frontend.inputs import DeclaredInput, Inputs, resolve_inputs
from compiler.frontend.torchscript.pickled import StoredTensor
from compiler.frontend.torchscript.source import Function
from compiler.ir.types import DType

NUMBERS = {"int": int, "float": float, "bool": bool, "str": str, "Number": float, "Optional[int]": int,
           "Optional[float]": float, "Optional[bool]": bool, "Optional[str]": str, "number": float}  # fmt: skip
MISSING: Any = object()
"""A parameter without a value."""


@dataclass(frozen=True)
class Leaf:
    """One tensor input."""

    name: str


@dataclass
class Signature:
    """What `forward` takes: per parameter a Leaf, a value, or a tuple, list or dict of those. `resolved` has types and
    bound values of the leaves. Parameters left to their defaults are absent.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    resolved: Inputs = field(default_factory=Inputs)


@dataclass
class _Reader:
    shapes: Mapping[str, Sequence[int]]
    bindings: Mapping[str, Any]
    dtypes: Mapping[str, DType]
    file: str
    leaves: list[DeclaredInput] = field(default_factory=list)
    faults: list[Diagnostic] = field(default_factory=list)
    values: set[str] = field(default_factory=set)


def read_signature(
    forward: Function, recorded: Sequence[Any], shapes: Mapping[str, Sequence[int]], bindings: Mapping[str, Any],
    dtypes: Mapping[str, DType], file: str,
) -> Signature:  # fmt: skip
    """The inputs of a network. `recorded`: the inputs it was traced with, where the archive has them; `dtypes`: element
    types that are known better than from the archive. Raises CompilerError for everything that is open or wrong.
    """
    reader = _Reader(shapes, bindings, dtypes, file)
    signature = Signature()
    defaults = forward.defaults
    for index, parameter in enumerate(forward.parameters[1:]):
        known = recorded[index] if index < len(recorded) else MISSING
        kind = "Tensor" if parameter.annotation is None else ast.unparse(parameter.annotation)
        value = _parameter(reader, parameter.arg, kind, known, parameter.arg in defaults)
        if value is not MISSING:
            signature.parameters[parameter.arg] = value
    free = {n: v for n, v in bindings.items() if n not in reader.values}
    leaves = [_with_binding(leaf, free) for leaf in reader.leaves]
    signature.resolved = resolve_inputs(leaves, shapes, free, file, reader.faults, sorted(reader.values))
    return signature


def _with_binding(leaf: DeclaredInput, bindings: Mapping[str, Any]) -> DeclaredInput:
    """A tensor bound to a value holds integers or booleans, of the shape the value has."""
    if leaf.name not in bindings or not leaf.dtype.is_float:
        return leaf
    flags = np.asarray(bindings[leaf.name]).dtype == np.bool_
    return DeclaredInput(leaf.name, DType.BOOL if flags else DType.I64, leaf.dims)


def _parameter(r: _Reader, name: str, kind: str, known: Any, has_default: bool) -> Any:
    if kind in NUMBERS:
        return _number(r, name, kind, known, has_default)
    if kind == "Tensor":
        if has_default and name not in r.shapes and known is MISSING:
            return MISSING
        return _tensor(r, name, known)
    inner, _, rest = kind.partition("[")
    rest = rest.removesuffix("]")
    given = [n for n in r.shapes if n == name or n.startswith(f"{name}.")]
    if inner == "Optional":
        wanted = bool(given) or (known is not MISSING and known is not None)
        return _parameter(r, name, rest, known, False) if wanted else (MISSING if has_default else None)
    if inner in ("List", "Dict", "list", "dict") and not given and known is MISSING:
        return MISSING if has_default else _open(r, name, kind)
    if inner in ("Tuple", "tuple"):
        if has_default and not given and known is MISSING:
            return MISSING
        parts = _split(rest)
        items = known if isinstance(known, tuple | list) and len(known) == len(parts) else [MISSING] * len(parts)
        return tuple(_parameter(r, f"{name}.{i}", part, items[i], False) for i, part in enumerate(parts))
    if inner in ("List", "list"):
        count = len(known) if isinstance(known, list) else len(given)
        items = known if isinstance(known, list) else [MISSING] * count
        return [_parameter(r, f"{name}.{i}", rest, items[i], False) for i in range(count)]
    if inner in ("Dict", "dict"):
        keys = list(known) if isinstance(known, dict) else [n.removeprefix(f"{name}.") for n in given]
        found = known if isinstance(known, dict) else {}
        return {k: _parameter(r, f"{name}.{k}", _split(rest)[-1], found.get(k, MISSING), False) for k in keys}
    if has_default:
        return MISSING
    r.faults.append(Diagnostic(
        code="E211", where=r.file, message=f"input {name!r} is a {kind}, not a tensor",
        help="save a network whose forward takes tensors, or tuples, lists and dictionaries of tensors",
    ))  # fmt: skip
    return MISSING


def _open(r: _Reader, name: str, kind: str) -> Any:
    example = f"--shape {name}.0=1x..." if kind[:4].lower() == "list" else f"--shape {name}.KEY=1x..."
    r.faults.append(Diagnostic(
        code="E205", where=r.file, message=f"input {name!r} is a {kind}: nothing says how many tensors it holds",
        help=f"say their shapes, for example: {example}",
    ))  # fmt: skip
    return MISSING


def _split(text: str) -> list[str]:
    """`int, Tuple[int, Tensor]` → its parts."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _tensor(r: _Reader, name: str, known: Any) -> Leaf:
    dtype, dims = DType.F32, None
    if isinstance(known, StoredTensor):
        dims = list(known.shape)
        if known.element.numpy is not None and not known.element.quantised:
            dtype = widened(DType.of(known.element.numpy))
    if name in r.shapes:  # the recorded shape is that of an example
        dims = None
    r.leaves.append(DeclaredInput(name, r.dtypes.get(name, dtype), dims))  # type: ignore[arg-type]
    return Leaf(name)


def _number(r: _Reader, name: str, kind: str, known: Any, has_default: bool) -> Any:
    wanted = NUMBERS[kind]
    r.values.add(name)
    if name in r.shapes:
        r.faults.append(Diagnostic(
            code="E204", where=r.file, message=f"--shape names {name!r}, which is {_article(kind)}, not a tensor",
            help=f"give it a value: --bind {name}=...",
        ))  # fmt: skip
    if name in r.bindings:
        value = r.bindings[name]
        if isinstance(value, bool | int | float | str) and (wanted is not bool or value in (0, 1)):
            return wanted(value)
        r.faults.append(Diagnostic(
            code="E204", where=r.file, message=f"--bind gives {name!r} the value {value!r}, not {_article(kind)}",
            help="give one number" if wanted is not bool else "give true or false",
        ))  # fmt: skip
        return MISSING
    if isinstance(known, wanted | int) if wanted is not str else isinstance(known, str):
        return wanted(known)
    if has_default or kind.startswith("Optional"):
        return MISSING if has_default else None
    examples = {"bool": "true", "str": "'\"TEXT\"'", "float": "0.5", "Number": "0.5"}
    example = examples.get(kind, "16000" if name == "sr" else "1")
    r.faults.append(Diagnostic(
        code="E205", where=r.file, message=f"input {name!r} is {_article(kind)}: it must be known when compiling",
        help=f"give it a value, for example: --bind {name}={example}",
    ))  # fmt: skip
    return MISSING


def _article(kind: str) -> str:
    plain = kind.removeprefix("Optional[").removesuffix("]")
    return {"int": "an integer", "str": "a text", "bool": "a flag"}.get(plain, "a number")
