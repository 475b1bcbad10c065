"""What converters of every frontend emit ops through, and the few moves on shapes that all of them need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.frontend.builder import Builder
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Constant, Op, Value
from compiler.ir.types import DType
from compiler.ops import tensor

CUT_3D = "replace it by two-dimensional layers, or run this part in the host program"


class Emitter:
    """A source operator being converted: an ONNX node, an aten call."""

    builder: Builder

    def emit(self, op_class: type[Op], *operands: Value | None, **attributes: Any) -> Value:
        """The first result of a new op (or its constant, where it folds)."""
        return self.builder.emit(op_class, *operands, **attributes)[0]

    def emit_all(self, op_class: type[Op], *operands: Value | None, **attributes: Any) -> list[Value]:
        """All results of a new op."""
        return self.builder.emit(op_class, *operands, **attributes)

    def constant(self, array: Any, dtype: DType | None = None) -> Constant:
        """A tensor that is known."""
        return self.builder.constant(np.asarray(array, None if dtype is None else dtype.numpy))


def normal_axis(axis: int, rank: int) -> int:
    """The axis counted from the front. Raises Malformed when out of range."""
    if not -rank <= axis < rank:
        raise Malformed(f"axis {axis} is out of range for rank {rank}")
    return axis % rank


def reshape(e: Emitter, x: Value, shape: Sequence[int]) -> Value:
    """x under another shape; nothing is emitted where it has that shape already."""
    return x if x.type.shape == tuple(shape) else e.emit(tensor.Reshape, x, shape=tuple(shape))


def cut(e: Emitter, x: Value, axis: int, start: int, size: int, step: int = 1) -> Value:
    """`size` elements from `start` on along one axis."""
    shape = list(x.type.static_shape)
    if size == shape[axis] and step == 1:
        return x
    starts, steps = [0] * len(shape), [1] * len(shape)
    starts[axis], shape[axis], steps[axis] = (start if size else 0), size, step
    return e.emit(tensor.Slice, x, starts=starts, sizes=shape, steps=steps)


def with_height(e: Emitter, x: Value) -> Value:
    """[a, b, l] as [a, b, 1, l]; four-dimensional values stay. Raises Unsupported for other ranks."""
    if x.type.rank == 4:
        return x
    if x.type.rank != 3:
        raise Unsupported(f"has {max(x.type.rank - 2, 0)} spatial dimensions, 1 and 2 are supported", CUT_3D)
    a, b, length = x.type.static_shape
    return e.emit(tensor.Reshape, x, shape=(a, b, 1, length))


def without_height(e: Emitter, y: Value, like: Value) -> Value:
    """Undo `with_height` on a result, if it was done to `like`."""
    if like.type.rank == 4:
        return y
    a, b, _, length = y.type.static_shape
    return e.emit(tensor.Reshape, y, shape=(a, b, length))
