"""Evaluators of the ops whose shapes are known only when they run. A computed shape that cannot be is a CompilerError.
"""

from __future__ import annotations

from math import prod

import numpy as np

from compiler.errors import CompilerError, error
from compiler.evaluate.registry import evaluator
from compiler.ir.core import Op
from compiler.ops import selection as ops

Array = np.ndarray
MOST_BYTES = 1 << 31
"""A computed shape may ask for this much; more is taken for a fault of the data."""


def refused(op: Op, message: str) -> CompilerError:
    return error("E355", message, op=op.op_name, where=str(op.location))


def check_size(op: Op, shape: tuple[int, ...], itemsize: int) -> None:
    """Raises CompilerError where a computed shape is negative or too large."""
    if any(d < 0 for d in shape) or prod(shape) * itemsize > MOST_BYTES:
        raise refused(op, f"computes shape {list(shape)}, which is negative or larger than {MOST_BYTES} bytes")


@evaluator("tensor.nonzero", folds=True)
def nonzero(op: ops.NonZero, x: Array) -> Array:
    return np.array(np.nonzero(np.atleast_1d(x)), np.int64)


@evaluator("tensor.compress", folds=True)
def compress(op: ops.Compress, x: Array, condition: Array) -> Array:
    if condition.size > x.shape[op.axis]:
        raise refused(op, f"{condition.size} conditions for {x.shape[op.axis]} slices")
    return np.compress(condition, x, axis=op.axis)


@evaluator("tensor.unique", folds=True, widens=True)
def unique(op: ops.Unique, x: Array) -> tuple[Array, ...]:
    y, indices, inverse, counts = np.unique(x, True, True, True, axis=op.axis)
    inverse = inverse.reshape(-1)
    if not op.ordered:
        order = np.argsort(indices, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(order.size)
        y, indices, counts, inverse = np.take(y, order, axis=op.axis), indices[order], counts[order], place[inverse]
    return y, *(a.astype(np.int64) for a in (indices, inverse, counts))


@evaluator("tensor.shape_of", folds=True)
def shape_of(op: ops.ShapeOf, x: Array) -> Array:
    return np.array(x.shape, np.int64)


@evaluator("tensor.reshape_as", folds=True)
def reshape_as(op: ops.ReshapeAs, x: Array, shape: Array) -> Array:
    wanted = [int(d) for d in shape]
    if not op.zeros:
        wanted = [x.shape[i] if d == 0 and i < x.ndim else d for i, d in enumerate(wanted)]
    if wanted.count(-1) == 1 and (known := prod(d for d in wanted if d != -1)) and x.size % known == 0:
        wanted[wanted.index(-1)] = x.size // known
    if prod(wanted) != x.size or any(d < 0 for d in wanted):
        raise refused(op, f"{x.size} elements {list(x.shape)} do not fit shape {list(map(int, shape))}")
    return x.reshape(wanted)


@evaluator("tensor.expand_as", folds=True)
def expand_as(op: ops.ExpandAs, x: Array, shape: Array) -> Array:
    wanted = tuple(int(d) for d in shape)
    check_size(op, wanted, x.itemsize)
    try:
        full = np.broadcast_shapes(x.shape, wanted)
    except ValueError:
        raise refused(op, f"shape {list(x.shape)} does not broadcast with {list(wanted)}") from None
    check_size(op, full, x.itemsize)
    return np.broadcast_to(x, full)


@evaluator("tensor.slice_as", folds=True)
def slice_as(op: ops.SliceAs, x: Array, starts: Array, ends: Array, steps: Array) -> Array:
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(op.axes, starts, ends, steps, strict=True):
        if step == 0:
            raise refused(op, "a step is 0")
        found = ops.sliced_places(int(start), int(end), int(step), x.shape[axis])
        index[axis] = slice(found.start, found.stop if found.stop >= 0 else None, found.step) if found else slice(0, 0)
    return x[tuple(index)]


def largest_first(x: Array, count: int, axis: int, largest: bool) -> tuple[Array, Array]:
    """The first elements of a stable sort (equal ones keep the lower index first) and where they stood."""
    axis %= x.ndim
    if largest:  # stable from the other end: sort the reversed axis and turn both back
        size = x.shape[axis]
        order = size - 1 - np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    indices = np.take(order, np.arange(count), axis=axis)
    return np.take_along_axis(x, indices, axis=axis), indices.astype(np.int64)


@evaluator("tensor.topk_as", folds=True)
def topk_as(op: ops.TopKAs, x: Array, k: Array) -> tuple[Array, Array]:
    count = min(max(int(k.reshape(-1)[0]), 0), x.shape[op.axis])
    return largest_first(x, count, op.axis, op.largest)


@evaluator("tensor.range", folds=True)
def range_(op: ops.Range, start: Array, limit: Array, delta: Array) -> Array:
    if not delta:
        raise refused(op, "the step is 0")
    count = max(int(np.ceil((float(limit) - float(start)) / float(delta))), 0)
    check_size(op, (count,), start.itemsize)
    return (start + np.arange(count) * delta).astype(start.dtype)


@evaluator("tensor.tile_as", folds=True)
def tile_as(op: ops.TileAs, x: Array, repeats: Array) -> Array:
    check_size(op, tuple(int(r) * d for r, d in zip(repeats, x.shape, strict=True)), x.itemsize)
    return np.tile(x, repeats)
