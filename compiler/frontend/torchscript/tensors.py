"""Tensors as the program's variables see them: they can be written in place, and views share their elements.

Our IR has values, not variables. A `Tensor` therefore remembers what it is a view of and how; writing through one
gives the whole tensor it belongs to a new value, and every other view derives its own anew when it is read next. A
program that writes nothing in place costs nothing for this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.frontend.builder import Builder
from compiler.frontend.records import Unsupported
from compiler.ir.core import Constant, Value
from compiler.ops import math as math_ops
from compiler.ops import tensor as tensor_ops

VIEWS = frozenset(
    f"aten::{name}"
    for name in (
        "slice", "select", "view", "reshape", "view_as", "reshape_as", "flatten", "unflatten", "permute", "transpose",
        "t", "numpy_T", "movedim", "swapaxes", "swapdims", "unsqueeze", "squeeze", "narrow", "expand", "expand_as",
        "unbind", "split", "split_with_sizes", "chunk", "tensor_split", "alias", "detach", "diagonal", "ravel",
    )
)  # fmt: skip
"""Operators whose results share elements with their first argument."""

LARGEST_WRITTEN = 1 << 26
COPIES = "call .clone() before writing, or write the whole tensor"


@dataclass(eq=False)
class Store:
    """The elements that a tensor and its views share. `version` counts writes. Which of several stores one that
    `is_open` stands for, the network's data decide.
    """

    value: Value
    version: int = 0
    is_open: bool = False


@dataclass(frozen=True, eq=False)
class Step:
    """How a view is taken of a tensor: an operator with its other arguments, and which of its results."""

    name: str
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    index: int | None = None


Convert = Callable[[str, Sequence[Any], Mapping[str, Any]], Any]
"""Calls a converter of the aten table on values."""


@dataclass(eq=False)
class Tensor:
    """A tensor of the program. `steps` lead from the store's value to this one's."""

    store: Store
    steps: tuple[Step, ...] = ()
    _value: Value | None = None
    _version: int = field(default=0)

    @staticmethod
    def of(value: Value) -> Tensor:
        """A tensor that shares its elements with no other."""
        return Tensor(Store(value), (), value)

    def view(self, step: Step, value: Value) -> Tensor:
        """A view of this tensor, whose value now is `value`."""
        return Tensor(self.store, (*self.steps, step), value, self.store.version)

    def read(self, convert: Convert) -> Value:
        """The value now."""
        if not self.steps:
            return self.store.value
        if self._version != self.store.version or self._value is None:
            self._value = _along(self.steps, self.store.value, convert)[-1]
            self._version = self.store.version
        return self._value

    def write(self, value: Value, builder: Builder, convert: Convert) -> None:
        """Give the tensor a new value of its own shape and type, and all it shares elements with."""
        if self.store.is_open:
            raise Unsupported("writes to a tensor that is another one's elements or not, as the network's data decide",
                              COPIES)  # fmt: skip
        if self.steps:
            before = _along(self.steps, self.store.value, convert)
            for step, whole in zip(reversed(self.steps), reversed(before[:-1]), strict=True):
                value = _put_back(step, whole, value, builder, convert)
        self.store.value = value
        self.store.version += 1

    @property
    def is_dense(self) -> bool:
        """Whether torch could view it under another shape without copying (as far as can be told)."""
        moving = ("aten::permute", "aten::transpose", "aten::t", "aten::numpy_T", "aten::movedim", "aten::expand")
        return not any(step.name in moving for step in self.steps)


def _apply(step: Step, value: Value, convert: Convert) -> Value:
    answer = convert(step.name, (value, *step.arguments), step.keywords)
    return answer if step.index is None else answer[step.index]


def _along(steps: Sequence[Step], value: Value, convert: Convert) -> list[Value]:
    values = [value]
    for step in steps:
        values.append(_apply(step, values[-1], convert))
    return values


def _put_back(step: Step, whole: Value, part: Value, builder: Builder, convert: Convert) -> Value:
    """`whole` with the elements that `step` picks replaced by `part`."""
    shape = whole.type.static_shape
    count = math.prod(shape)
    if count > LARGEST_WRITTEN:
        raise Unsupported(f"writes to a part of a tensor of {count} elements", COPIES)
    picked = _apply(step, builder.constant(np.arange(count).reshape(shape)), convert)
    if not isinstance(picked, Constant):
        raise Unsupported("writes to a view whose place is not known at import", COPIES)
    order = picked.data.reshape(-1)
    if np.unique(order).size != order.size:
        raise Unsupported("writes to an expanded tensor", COPIES)
    if order.size == count and (order == np.arange(count)).all():
        return _emit(builder, tensor_ops.Reshape, part, shape=shape) if part.type.shape != shape else part
    box = _box(order, shape)
    if box is not None:
        starts, sizes = box
        inner = _emit(builder, tensor_ops.Reshape, part, shape=sizes) if part.type.shape != sizes else part
        return _insert(builder, whole, inner, starts, sizes, 0)
    return _scattered(builder, whole, part, order)


def _emit(builder: Builder, op_class: type, *operands: Value, **attributes: Any) -> Value:
    return builder.emit(op_class, *operands, **attributes)[0]


def _box(order: np.ndarray, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Where positions that are a dense box of a tensor, in order, begin, and the box's sizes; None if they are not."""
    if not order.size:
        return None
    low = np.array(np.unravel_index(order[0], shape))
    high = np.array(np.unravel_index(order[-1], shape)) + 1
    if (high <= low).any():
        return None
    inside = np.arange(math.prod(shape)).reshape(shape)[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    if not np.array_equal(inside.reshape(-1), order):
        return None
    return tuple(int(v) for v in low), inside.shape


def _insert(
    builder: Builder, whole: Value, part: Value, starts: Sequence[int], sizes: Sequence[int], axis: int
) -> Value:
    """A box of `whole` replaced by `part`: the pieces around it are joined, axis by axis."""
    shape = whole.type.static_shape
    while axis < len(shape) and sizes[axis] == shape[axis]:
        axis += 1
    if axis == len(shape):
        return part
    begin, end = starts[axis], starts[axis] + sizes[axis]
    middle = _insert(builder, _cut(builder, whole, axis, begin, end), part, starts, sizes, axis + 1)
    pieces = [middle]
    if begin > 0:
        pieces.insert(0, _cut(builder, whole, axis, 0, begin))
    if end < shape[axis]:
        pieces.append(_cut(builder, whole, axis, end, shape[axis]))
    return _emit(builder, tensor_ops.Concat, *pieces, axis=axis)


def _cut(builder: Builder, x: Value, axis: int, begin: int, end: int) -> Value:
    shape = list(x.type.static_shape)
    starts = [0] * len(shape)
    starts[axis], shape[axis] = begin, end - begin
    return _emit(builder, tensor_ops.Slice, x, starts=starts, sizes=shape, steps=[1] * len(shape))


def _scattered(builder: Builder, whole: Value, part: Value, order: np.ndarray) -> Value:
    """Elements at any places replaced: both are laid out whole, and a constant mask chooses."""
    shape = whole.type.static_shape
    places, mask = np.zeros(math.prod(shape), np.int64), np.zeros(math.prod(shape), np.bool_)
    places[order], mask[order] = np.arange(order.size), True
    flat = _emit(builder, tensor_ops.Reshape, part, shape=(order.size,))
    spread = _emit(builder, tensor_ops.Gather, flat, builder.constant(places.reshape(shape)), axis=0)
    if mask.all():
        return spread
    return _emit(builder, math_ops.Where, builder.constant(mask.reshape(shape)), spread, whole)
