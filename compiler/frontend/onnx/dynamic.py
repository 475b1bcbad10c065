"""Converters where a shape depends on the network's data, and what others need for such operands.

Data-dependent selection (NonZero, Compress, Unique) makes values with unknown dimensions. What follows them takes
shapes as computed vectors: of such a vector the entries that are known all the same are looked up through the ops that
made it, so that as few dimensions as possible stay unknown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.registry import converter
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Constant, Result, Value
from compiler.ir.types import Dimension, DType
from compiler.ops import math, selection, tensor

DEEPEST_LOOK = 32
MOST_ENTRIES = 64
"""Entries of a vector of dimensions; longer ones are data."""


# -- vectors of dimensions ---------------------------------------------------------------------------------------------
def vector(n: Node, index: int) -> Value:
    """An input that holds dimensions or places, as an i64 vector."""
    value = n.input(index)
    if value.type.dtype is not DType.I64:
        value = n.emit(math.Cast, value, to=DType.I64)
    return n.emit(tensor.Reshape, value, shape=(-1,)) if value.type.rank != 1 else value


def entries(value: Value, depth: int = 0) -> list[int | None] | None:
    """The integers of a vector, None for those that depend on data; None where not even their count is known, and for
    what is no vector of dimensions."""
    if not value.type.dtype.is_integer or value.type.rank > 1 or not value.type.is_static:
        return None
    if value.type.elements > MOST_ENTRIES:
        return None
    if isinstance(value, Constant):
        return [int(v) for v in value.data.reshape(-1)]
    count = value.type.elements
    found = _traced(value.op, depth) if isinstance(value, Result) and depth < DEEPEST_LOOK else None
    return found if found is not None and len(found) == count else [None] * count


def _traced(op: object, depth: int) -> list[int | None] | None:
    if isinstance(op, selection.ShapeOf):
        return list(op.x.type.shape)
    if isinstance(op, tensor.Concat):
        parts = [entries(x, depth + 1) for x in op.xs]
        return None if any(p is None for p in parts) else [v for p in parts if p is not None for v in p]
    if isinstance(op, tensor.Reshape):
        return entries(op.x, depth + 1)
    if isinstance(op, tensor.Slice | tensor.Gather):
        source = entries(op.x, depth + 1)
        if source is None or op.x.type.rank != 1:
            return None
        if isinstance(op, tensor.Slice):
            return source[op.slices[0]]
        if isinstance(op.indices, Constant):
            return [source[int(i)] for i in op.indices.data.reshape(-1)]
    return None


def marked(dims: Sequence[Dimension]) -> tuple[int, ...]:
    """Dimensions as an attribute: -1 for unknown ones."""
    return tuple(-1 if d is None else d for d in dims)


def settled(n: Node, value: Value) -> Value:
    """A vector as a constant, where all of its entries are known after all."""
    found = entries(value)
    if isinstance(value, Constant) or found is None or any(v is None for v in found):
        return value
    return n.constant(np.array(found).reshape(value.type.static_shape), value.type.dtype)


# -- moving values of unknown shape ------------------------------------------------------------------------------------
def rearranged(n: Node, x: Value, axes: Sequence[int | None]) -> Value:
    """x under a shape made of its own axes, given by number, and of new ones of size 1, given as None."""
    shape = [1 if a is None else x.type.shape[a] for a in axes]
    if shape.count(None) <= 1:
        return n.emit(tensor.Reshape, x, shape=marked(shape))
    pool = n.emit(tensor.Concat, n.emit(selection.ShapeOf, x), n.constant([1], DType.I64), axis=0)
    places = n.constant([x.type.rank if a is None else a for a in axes], DType.I64)
    return n.emit(selection.ReshapeAs, x, n.emit(tensor.Gather, pool, places, axis=0), zeros=True, known=marked(shape))


def reshaped(n: Node, x: Value, shape: Value, zeros: bool) -> Value:
    """ONNX Reshape where x or the shape depends on data."""
    wanted = entries(shape)
    if wanted is None:
        raise Unsupported("the rank of its result depends on the network's data", "reshape to a known rank")
    if not zeros:
        wanted = [x.type.shape[i] if d == 0 and i < x.type.rank else d for i, d in enumerate(wanted)]
    known = tuple(-1 if d is None else d for d in wanted)
    if isinstance(shape, Constant) and known.count(-1) <= 1 and 0 not in known:
        return n.emit(tensor.Reshape, x, shape=known)
    return n.emit(selection.ReshapeAs, x, shape, zeros=zeros, known=known)


def expanded(n: Node, x: Value, shape: Value) -> Value:
    """x broadcast with a shape, one of them depending on data."""
    wanted = entries(shape)
    if wanted is None:
        raise Unsupported("the rank of its result depends on the network's data", "expand to a known rank")
    rank = max(len(wanted), x.type.rank)
    own = [1] * (rank - x.type.rank) + list(x.type.shape)
    other = [1] * (rank - len(wanted)) + list(wanted)
    known = [
        b if a == 1 else a if b == 1 or a == b else None if None in (a, b) and 1 not in (a, b) else -2
        for a, b in zip(own, other, strict=True)
    ]
    if -2 in known:
        raise Malformed(f"shape {x.type.shape} does not broadcast to {wanted}")
    known = [next((d for d in (a, b) if d not in (None, 1)), None) if k is None else k
             for k, a, b in zip(known, own, other, strict=True)]  # fmt: skip
    return n.emit(selection.ExpandAs, x, shape, known=marked(known))


def sliced(n: Node, x: Value, starts: Value, ends: Value, steps: Value, axes: Sequence[int]) -> Value:
    """x cut along axes, some of which, or the places where they are cut, depend on data."""
    known = list(x.type.shape)
    bounds = [entries(v) or [None] * len(axes) for v in (starts, ends, steps)]
    for axis, start, end, step in zip(axes, *bounds, strict=True):
        size = known[axis]
        if step == 0:
            raise Malformed("a step is 0")
        settled_all = None not in (size, start, end, step)
        known[axis] = len(selection.sliced_places(start, end, step, size)) if settled_all else None  # type: ignore[arg-type]
    return n.emit(selection.SliceAs, x, starts, ends, steps, axes=tuple(axes), known=marked(known))


# -- converters --------------------------------------------------------------------------------------------------------
@converter("NonZero")
def non_zero(n: Node) -> Value:
    return n.emit(selection.NonZero, n.input(0))


@converter("Compress")
def compress(n: Node) -> Value:
    x, axis = n.input(0), n.attribute("axis")
    if axis is None:
        x, axis = n.emit(tensor.Reshape, x, shape=(-1,)), 0
    chosen = n.known(1)
    if chosen is None:
        return n.emit(selection.Compress, x, n.input(1), axis=axis)
    return n.emit(tensor.Gather, x, n.constant(np.flatnonzero(chosen), DType.I64), axis=axis)


@converter("Unique", since=11)
def unique(n: Node) -> list[Value]:
    x, axis = n.input(0), n.attribute("axis")
    if axis is None:
        x, axis = n.emit(tensor.Reshape, x, shape=(-1,)), 0
    return n.emit_all(selection.Unique, x, axis=axis, ordered=bool(n.attribute("sorted", 1)))
