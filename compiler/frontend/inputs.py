"""Graph inputs: their types from the model, from `--shape` and from `--bind`, with every open question asked at once.

Static shapes are a rule of the IR, so each symbolic dimension gets a number here. A symbolic leading dimension is
taken for the batch and becomes 1 when nobody says otherwise; any other one left open is an error that says what to
type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from compiler.errors import CompilerError, Diagnostic, did_you_mean
from compiler.ir.types import DType, TensorType

Dim = int | str
"""A size, or the symbol of an open one ('?' for a nameless one)."""


@dataclass(frozen=True)
class DeclaredInput:
    """An input as the model declares it; `dims` is None when it gives no shape at all."""

    name: str
    dtype: DType
    dims: list[Dim] | None


@dataclass
class Inputs:
    """What the importer needs to know: types of the arguments, values of the bound inputs, dimensions that were
    assumed.
    """

    types: dict[str, TensorType] = field(default_factory=dict)
    bound: dict[str, np.ndarray] = field(default_factory=dict)
    assumed: dict[str, tuple[int, ...]] = field(default_factory=dict)


def resolve_inputs(
    inputs: Sequence[DeclaredInput], shapes: Mapping[str, Sequence[int]], bindings: Mapping[str, Any], where: str,
    faults: Sequence[Diagnostic] = (), options: Iterable[str] = (),
) -> Inputs:  # fmt: skip
    """Decide type or value of every graph input. Raises CompilerError listing everything that is wrong or open, and
    `faults`, what was already found wrong with inputs that could not be declared. `options` are names that are bound
    elsewhere.
    """
    faults = list(faults)
    names = [i.name for i in inputs]
    found = Inputs()
    for given, option, known in ((shapes, "--shape", names), (bindings, "--bind", [*names, *options])):
        faults += (_no_such_input(name, option, known, where) for name in given if name not in known)
    dtypes = {i.name: i.dtype for i in inputs}
    declared = {i.name: i.dims for i in inputs}
    free = {n: d for n, d in declared.items() if n not in bindings}
    resolved = _resolve_shapes(free, shapes, found, faults, where)
    for name, shape in resolved.items():
        found.types[name] = TensorType(shape, dtypes[name])
    for name, value in bindings.items():
        if name in dtypes:
            _bind(name, value, dtypes[name], declared[name], found, faults, where)
    if faults:
        raise CompilerError(faults)
    return found


def _no_such_input(name: str, option: str, names: Sequence[str], where: str) -> Diagnostic:
    return Diagnostic(
        code="E204", where=where, message=f"{option} names {name!r}, which is not an input of the model",
        help=did_you_mean(name, names),
    )  # fmt: skip


def _resolve_shapes(
    declared: dict[str, list[Dim] | None], shapes: Mapping[str, Sequence[int]], found: Inputs,
    faults: list[Diagnostic], where: str,
) -> dict[str, tuple[int, ...]]:  # fmt: skip
    symbols: dict[str, int] = {}
    for name, dims in declared.items():
        if name in shapes:
            faults += _match(name, dims, tuple(shapes[name]), symbols, where)
    resolved: dict[str, tuple[int, ...]] = {}
    open_inputs: dict[str, list[Dim] | None] = {}
    for name, dims in declared.items():
        if name in shapes:
            resolved[name] = tuple(int(d) for d in shapes[name])
            continue
        bound = None if dims is None else [symbols.get(d, d) if isinstance(d, str) else d for d in dims]
        if bound and isinstance(bound[0], str):
            symbol, bound = bound[0], [1, *bound[1:]]
            if symbol != "?":
                symbols[symbol] = 1
                bound = [1 if d == symbol else d for d in bound]
            if all(isinstance(d, int) for d in bound):
                found.assumed[name] = tuple(bound)  # type: ignore[arg-type]
        if bound is None or any(isinstance(d, str) for d in bound):
            open_inputs[name] = dims
        else:
            resolved[name] = tuple(bound)  # type: ignore[arg-type]
    if open_inputs:
        faults.append(_open_dimensions(open_inputs, where))
    return resolved


def _match(
    name: str, dims: list[Dim] | None, given: tuple[int, ...], symbols: dict[str, int], where: str
) -> list[Diagnostic]:
    """Faults of a shape the user gave for an input; binds the input's symbols."""

    def fault(message: str) -> list[Diagnostic]:
        shown = "x".join(map(str, dims or ()))
        return [Diagnostic(code="E204", where=where, message=message, help=f"the model declares {name}={shown}")]

    if any(d < 0 for d in given):
        return fault(f"--shape gives input {name!r} a negative dimension")
    if dims is None:
        return []
    if len(dims) != len(given):
        return fault(f"--shape gives input {name!r} {len(given)} dimensions, the model has {len(dims)}")
    for axis, (declared, size) in enumerate(zip(dims, given, strict=True)):
        if isinstance(declared, int):
            if declared != size and axis > 0:
                fixed = f"the model fixes it at {declared}"
                return fault(f"--shape sets dimension {axis} of input {name!r} to {size}, {fixed}")
        elif declared != "?" and symbols.setdefault(declared, size) != size:
            return fault(f"--shape sets {declared!r} to {size} for input {name!r} and to {symbols[declared]} elsewhere")
    return []


def _open_dimensions(open_inputs: dict[str, list[Dim] | None], where: str) -> Diagnostic:
    notes, typed = [], []
    for name, dims in open_inputs.items():
        if dims is None:
            notes.append(f"input {name!r} has no declared shape")
            typed.append(f"--shape {name}=1x...")
            continue
        notes.append(f"input {name!r} is " + "x".join(map(str, dims)))
        typed.append(f"--shape {name}=" + "x".join(_suggested(axis, d, len(dims)) for axis, d in enumerate(dims)))
    return Diagnostic(
        code="E205", where=where, message="some dimensions have no size", notes=tuple(notes),
        help="say them, for example: " + " ".join(typed),
    )  # fmt: skip


def _suggested(axis: int, dim: Dim, rank: int) -> str:
    if isinstance(dim, int):
        return str(dim)
    return "1" if axis == 0 else "224" if rank == 4 and axis >= 2 else "16"


def _bind(
    name: str, value: Any, dtype: DType, dims: list[Dim] | None, found: Inputs, faults: list[Diagnostic], where: str
) -> None:
    array = np.asarray(value)
    if dtype.is_float:
        message, remedy = f"--bind names {name!r}, a float input", "only integer and boolean inputs can be bound"
    elif array.dtype.kind not in "biu" or (array.astype(dtype.numpy) != array).any():
        message, remedy = f"--bind gives {name!r} the value {value!r}, not {dtype} data", "give an integer that fits"
    elif (fitted := _fitted(array, dims)) is None:
        shown = "x".join(map(str, dims or ())) or "a single number"
        message = f"--bind gives {name!r} {array.size} elements of shape {list(array.shape)}, the model has {shown}"
        remedy = "give one number or as many"
    else:
        found.bound[name] = fitted.astype(dtype.numpy)
        return
    faults.append(Diagnostic(code="E204", where=where, message=message, help=remedy))


def _fitted(array: np.ndarray, dims: list[Dim] | None) -> np.ndarray | None:
    """Values in the declared shape; None where they do not fit. One number fills it, open dimensions being 1 then."""
    if dims is None:
        return array
    shape = tuple(d if isinstance(d, int) else 1 for d in dims)
    if array.size == 1:
        return np.broadcast_to(array.reshape(()), shape)
    if all(isinstance(d, int) for d in dims):
        return array.reshape(shape) if array.size == prod(shape) else None
    agree = all(isinstance(d, str) or d == size for d, size in zip(dims, array.shape, strict=False))
    return array if array.ndim == len(dims) and agree else None
