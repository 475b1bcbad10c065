"""Objects of an archive while its code is evaluated: attributes, constants, and what they turn into when first used.

Stored tensors become tensors of the program under the path of their attribute, packed parameters become those of the
aten table, and objects that were saved by a state of their own get it back (`__setstate__` is evaluated like any other
method).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.frontend.aten.dtypes import widened
from compiler.frontend.aten.quantisers import QuantizedTensor, quantised_constant
from compiler.frontend.builder import Builder
from compiler.frontend.records import Malformed, Unsupported
from compiler.frontend.torchscript import packed
from compiler.frontend.torchscript.pickled import Object, Refused, StoredTensor
from compiler.frontend.torchscript.scalars import SIMPLE
from compiler.frontend.torchscript.source import Source
from compiler.frontend.torchscript.tensors import Tensor
from compiler.ir.types import DType

if TYPE_CHECKING:
    from compiler.frontend.torchscript.evaluator import Evaluator

ABSENT: Any = object()
"""An object has no such attribute."""

RESULT = "\0result"
"""The name wanted for a node whose value a function returns."""

DEEPEST = 12


Journal = dict[tuple[int, str], tuple["Object", str, list[Any]]]
"""Attributes that were set, and to what, one after the other."""


class Named(tuple):
    """A named tuple of the archive."""

    fields: tuple[str, ...] = ()

    @staticmethod
    def of(fields: Sequence[str], values: Sequence[Any]) -> Named:
        made = Named(values)
        made.fields = tuple(fields)
        return made


class Instances:
    """The objects and constants of one evaluation."""

    def __init__(self, source: Source, constants: Sequence[Any], builder: Builder) -> None:
        self.source = source
        self.builder = builder
        self._changed: Journal = {}
        self._seen: dict[tuple[int, str], tuple[Object, str, Any]] = {}
        self._constants = constants
        self._ready: dict[int, Any] = {}
        self._kept: list[Any] = []

    def constant(self, name: str) -> Any:
        """`CONSTANTS.c7`."""
        number = name.removeprefix("c")
        if not number.isdigit() or int(number) >= len(self._constants):
            raise Malformed(f"there is no constant {name!r} in the archive")
        return self.ready(self._constants[int(number)], f"constants.{name}")

    def get(self, target: Object, name: str, evaluator: Evaluator) -> Any:
        """An attribute of an object, or a constant of its class; ABSENT where there is none."""
        self._restore(target, evaluator)
        if name in target.attributes:
            value = self.ready(target.attributes[name], f"{target.path}.{name}".strip("."))
            target.attributes[name] = value
            if isinstance(value, list | dict) and (id(target), name) not in self._seen:
                self._seen[id(target), name] = (target, name, value.copy())
            return value
        found = self.source.class_of(target.class_name)
        if found is not None and name in found.constants and not name.startswith("__"):
            return evaluator.qualified(f"{target.class_name}.{name}")
        return ABSENT

    def set(self, target: Object, name: str, value: Any) -> None:
        """Set an attribute while the code is evaluated."""
        if id(target) in self._ready:  # not one that the code made for itself
            self._changed.setdefault((id(target), name), (target, name, []))[2].append(value)
        target.attributes[name] = value

    def journal(self) -> Journal:
        """The attributes set so far, to return to."""
        return {key: (target, name, list(values)) for key, (target, name, values) in self._changed.items()}

    def return_to(self, journal: Journal) -> None:
        self._changed = {key: (target, name, list(values)) for key, (target, name, values) in journal.items()}

    def ready_already(self, value: Any) -> Any:
        """What a value of a pickle turned into, where it was used before; else itself."""
        is_made = isinstance(value, StoredTensor | Object | list | tuple | dict)
        return self._ready.get(id(value), value) if is_made else value

    def changes(self) -> Iterator[tuple[tuple[Object, str], list[Any]]]:
        """The attributes of the archive's objects that were set or written to in place, and what they were set to."""
        for target, name, values in self._changed.values():
            yield (target, name), values
        for target in [kept for kept in self._kept if isinstance(kept, Object)]:
            for name, value in target.attributes.items():
                written = isinstance(value, Tensor) and value.store.version > 0
                if written and (id(target), name) not in self._changed:
                    yield (target, name), []
        for key, (target, name, before) in self._seen.items():
            if key not in self._changed and not same_items(before, target.attributes[name]):
                yield (target, name), []

    def _restore(self, target: Object, evaluator: Evaluator) -> None:
        """Give an object that was saved by `__getstate__` its state back."""
        if target.state is None:
            return
        found = self.source.class_of(target.class_name)
        state, target.state = target.state, None
        if found is not None and "__setstate__" in found.methods:
            target.attributes = {}
            before = dict(self._changed)
            evaluator.method(target, "__setstate__", [self.ready(state, target.path)], {}, 1)
            self._changed = before

    def ready(self, value: Any, path: str, depth: int = 0) -> Any:
        """A value of a pickle as the program sees it; the same one for the same one."""
        if not isinstance(value, StoredTensor | Object | list | tuple | dict) or isinstance(value, Named):
            return value
        if id(value) in self._ready:
            return self._ready[id(value)]
        if depth > DEEPEST:
            raise Malformed("has lists in lists without end")
        made = self._made(value, path, depth)
        self._ready[id(value)] = made
        self._ready[id(made)] = made
        self._kept += [value, made]
        return made

    def _made(self, value: Any, path: str, depth: int) -> Any:
        if isinstance(value, StoredTensor):
            return self.tensor(value, path)
        if isinstance(value, Object):
            if packed.is_packed(value):
                return packed.unpack(value, path, self)
            value.path = value.path or path
            return value
        if isinstance(value, dict):
            return {k: self.ready(v, f"{path}.{k}", depth + 1) for k, v in value.items()}
        return type(value)(self.ready(v, f"{path}.{i}", depth + 1) for i, v in enumerate(value))

    def tensor(self, stored: StoredTensor, path: str) -> Tensor:
        """A stored tensor as a constant of the module."""
        quantised = self.quantised(stored)
        if quantised is not None:
            return Tensor.of(quantised_constant(self.builder, quantised, path or "constant"))
        return Tensor.of(self.builder.constant(self.array(stored), path))

    def array(self, stored: StoredTensor) -> np.ndarray:
        """The elements, as the type the module has for them."""
        try:
            array = stored.array()
        except Refused as fault:
            raise Unsupported(str(fault), fault.help) from None
        kind = widened(DType.of(array.dtype)).numpy
        return array if array.dtype == kind else array.astype(kind)

    def quantised(self, stored: StoredTensor) -> QuantizedTensor | None:
        """A stored tensor of integers with their scale; None for other tensors."""
        if stored.quantiser is None:
            return None
        integers = self.array(stored)
        if len(stored.quantiser) == 3:
            _, scale, zero = stored.quantiser
            if not isinstance(scale, float) or not isinstance(zero, int) or not scale > 0:
                raise Malformed("has a quantised tensor whose scale is no number")
            return QuantizedTensor(integers, scale, zero)
        _, scales, zeros, axis = stored.quantiser
        if not isinstance(scales, StoredTensor) or not isinstance(zeros, StoredTensor) or not isinstance(axis, int):
            raise Malformed("has a quantised tensor whose scales are no tensor")
        steps, points = self.array(scales), self.array(zeros)
        if not 0 <= axis < integers.ndim or steps.shape != (integers.shape[axis],) or points.shape != steps.shape:
            raise Malformed("has a quantised tensor whose scales do not fit its shape")
        return QuantizedTensor(integers, steps, points, axis)


def same(a: Any, b: Any) -> bool:
    """Whether two values are one, or plain ones that are equal."""
    return a is b or (type(a) is type(b) and isinstance(a, SIMPLE) and a == b)


def same_items(before: Any, after: Any) -> bool:
    """Whether a list or dictionary holds what it held."""
    if type(before) is not type(after) or len(before) != len(after):
        return False
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(same(v, after[k]) for k, v in before.items())
    return all(map(same, before, after))


_PYTHON: dict[str, Any] = {"int": int, "float": float, "bool": bool, "str": str, "Tensor": Tensor,
                           "NoneType": type(None), "Number": (int, float), "Any": object, "Device": str,
                           "Scalar": (int, float)}  # fmt: skip


def is_of_type(value: Any, type_text: str) -> bool:
    """`isinstance` for TorchScript's types, by their text; elements of containers are not looked at."""
    base, _, rest = type_text.partition("[")
    if base == "Optional":
        return value is None or is_of_type(value, rest.removesuffix("]"))
    if base == "bool" or isinstance(value, bool):
        return isinstance(value, bool) and base in ("bool", "Any")
    if base in ("List", "Tuple", "Dict", "list", "tuple", "dict"):
        return isinstance(value, {"list": list, "tuple": tuple, "dict": dict}[base.lower()])
    if base in _PYTHON:
        return isinstance(value, _PYTHON[base])
    return isinstance(value, Object) and value.class_name == type_text
