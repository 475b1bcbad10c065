"""Rows that read and write by index or by mask. Masks must be known where they decide a shape."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.comparison import truth
from compiler.frontend.aten.embedding import index_of
from compiler.frontend.aten.moving import expand, permute, ravel, select
from compiler.frontend.aten.registry import aten
from compiler.frontend.common.emitter import cut
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Constant, Value
from compiler.ir.types import DType
from compiler.ops import math, reduce, selection, tensor

FIXED = "use torch.where with a mask, or take a fixed number of elements (topk)"


# -- along one axis ----------------------------------------------------------------------------------------------------
@aten("aten::index_select", quantised="keep")
def index_select(c: Call, self: Any, dim: Any, index: Any) -> Any:
    x = c.tensor(self)
    indices = index_of(c, index)
    indices = c.reshape(indices, (1,)) if indices.type.rank == 0 else indices
    return c.emit(tensor.Gather, x, indices, axis=c.axis(dim, x.type.rank))


@aten("aten::gather", "aten::take_along_dim", quantised="keep")
def gather(c: Call, self: Any, dim: Any, index: Any = None, *rest: Any, **named: Any) -> Any:
    """Indices may be fewer than x's elements along other axes; take_along_dim has its operands in another order."""
    if c.base == "take_along_dim":
        self, dim, index = self, named.get("dim", index), named.get("indices", dim)
        if dim is None:
            self, index, dim = ravel(c, self), ravel(c, index), 0
    x, indices = c.tensor(self), index_of(c, index)
    axis = c.axis(dim, x.type.rank)
    if c.base == "take_along_dim":
        x, indices = _broadcast_except(c, x, indices, axis)
    for i, size in enumerate(indices.type.static_shape):
        if i != axis:
            x = cut(c, x, i, 0, size)
    return c.emit(tensor.GatherElements, x, indices, axis=axis)


def _broadcast_except(c: Call, x: Value, indices: Value, axis: int) -> tuple[Value, Value]:
    shapes = [list(v.type.static_shape) for v in (x, indices)]
    along = [s[axis] for s in shapes]
    for s in shapes:
        s[axis] = 1
    common = list(np.broadcast_shapes(*map(tuple, shapes)))
    first, second = ([*common[:axis], size, *common[axis + 1 :]] for size in along)
    return expand(c, x, first), expand(c, indices, second)


@aten("aten::take")
def take(c: Call, self: Any, index: Any) -> Any:
    return c.emit(tensor.Gather, ravel(c, self), index_of(c, index), axis=0)


REDUCTIONS = {None: "none", "add": "add", "sum": "add", "multiply": "mul", "prod": "mul", "amax": "max", "amin": "min"}


@aten("aten::scatter", "aten::scatter_add", "aten::scatter_reduce")
def scatter(c: Call, self: Any, dim: Any, index: Any, src: Any, reduce: Any = None, include_self: Any = True,
            **named: Any) -> Any:  # fmt: skip
    """`src` may be a number. Its elements beyond the indices do not count."""
    x, indices = c.tensor(self), index_of(c, index)
    how = "add" if c.base == "scatter_add" else REDUCTIONS.get(reduce)
    if how is None or (reduce and not include_self):
        raise Unsupported(f"reduces by {reduce}" + ("" if include_self else " without self"), FIXED)
    shape = indices.type.static_shape
    updates = c.cast(src, x.type.dtype) if isinstance(src, Value) else c.scalar_like(src, x)
    if updates.type.rank == 0:
        updates = expand(c, updates, shape)
    for i, size in enumerate(shape):
        updates = cut(c, updates, i, 0, size)
    axis = c.axis(dim, x.type.rank)
    return c.emit(tensor.ScatterElements, x, indices, updates, axis=axis, reduction=how)


def _along(c: Call, x: Value, axis: int, indices: Value, updates: Value, how: str) -> Value:
    """x with the slices that `indices` name along an axis replaced by (or added to) those of `updates`."""
    order = [axis, *(i for i in range(x.type.rank) if i != axis)]
    front = permute(c, x, order)
    wanted = (indices.type.elements, *front.type.static_shape[1:])
    new = expand(c, updates, wanted) if updates.type.rank == 0 else permute(c, updates, order)
    rows = c.reshape(indices, (indices.type.elements, 1))
    y = c.emit(tensor.ScatterNd, front, rows, new, reduction=how)
    return permute(c, y, list(np.argsort(order)))


@aten("aten::index_add", "aten::index_copy", "aten::index_fill")
def index_update(c: Call, self: Any, dim: Any, index: Any, source: Any, alpha: Any = 1) -> Any:
    x = c.tensor(self)
    new = c.cast(source, x.type.dtype) if isinstance(source, Value) else c.scalar_like(source, x)
    if alpha != 1:
        new = c.emit(math.Mul, new, c.scalar_like(alpha, new))
    how = "add" if c.base == "index_add" else "none"
    return _along(c, x, c.axis(dim, x.type.rank), index_of(c, index), new, how)


# -- whole slices ------------------------------------------------------------------------------------------------------
@aten("aten::slice_scatter")
def slice_scatter(c: Call, self: Any, src: Any, dim: Any = 0, start: Any = None, end: Any = None, step: Any = 1) -> Any:
    """A slice of consecutive elements is a join of three parts; other steps write by index."""
    x = c.tensor(self)
    axis, size = c.axis(dim, x.type.rank), x.type.static_shape[c.axis(dim, x.type.rank)]
    bounds = slice(*(None if v is None else c.integer(v, "a bound") for v in (start, end, step)))
    found = range(*bounds.indices(size))
    shape = list(x.type.static_shape)
    shape[axis] = len(found)
    new = expand(c, c.cast(c.as_tensor(src), x.type.dtype), shape)
    if found.step != 1:
        return _along(c, x, axis, c.constant(np.asarray(found, np.int64)), new, "none")
    parts = [cut(c, x, axis, 0, found.start), new, cut(c, x, axis, found.start + len(found), size - found.start
                                                      - len(found))]  # fmt: skip
    parts = [p for p in parts if p.type.static_shape[axis]]
    return parts[0] if len(parts) == 1 else c.emit(tensor.Concat, *parts, axis=axis)


@aten("aten::select_scatter")
def select_scatter(c: Call, self: Any, src: Any, dim: Any, index: Any) -> Any:
    x = c.tensor(self)
    axis, at = c.axis(dim, x.type.rank), c.integer(index, "the index")
    at += x.type.static_shape[axis] if at < 0 else 0
    shape = list(x.type.static_shape)
    shape[axis] = 1
    new = c.as_tensor(src)
    new = new if new.type.rank == 0 else c.reshape(new, shape)
    return slice_scatter(c, x, new, axis, at, at + 1)


# -- by lists of indices -----------------------------------------------------------------------------------------------
def _per_axis(c: Call, x: Value, indices: Any) -> list[Value | None]:
    """One index tensor or None per axis; a mask stands for as many axes as it has."""
    found: list[Value | None] = []
    for index in indices:
        if index is None:
            found.append(None)
        elif c.as_tensor(index).type.dtype in (DType.BOOL, DType.U8):
            found += places_of(c, index)
        else:
            found.append(index_of(c, index))
    return found + [None] * (x.type.rank - len(found))


def _is_open_mask(index: Any) -> bool:
    """Whether it is a mask over several axes that depends on the data."""
    known = isinstance(index, Constant) or not isinstance(index, Value)
    return not known and index.type.dtype is DType.BOOL and index.type.rank > 1


def _coordinates(c: Call, x: Value, axes: list[int], listed: list[Value]) -> Value:
    """The index tensors of several leading axes, broadcast, as coordinates along a new last axis."""
    if not all(v.type.is_static for v in listed):
        raise Unsupported("combines a mask of the network's data with other indices", FIXED)
    shape = np.broadcast_shapes(*(v.type.static_shape for v in listed))
    columns = []
    for axis, index in zip(axes, listed, strict=True):
        wide = c.cast(expand(c, index, shape), DType.I64)
        size = x.type.static_shape[axis]
        if isinstance(wide, Constant):
            wide = c.constant(np.where(wide.data < 0, wide.data + size, wide.data))
        columns.append(c.reshape(wide, (*shape, 1)))
    return columns[0] if len(columns) == 1 else c.emit(tensor.Concat, *columns, axis=len(shape))


@aten("aten::index", "aten::_unsafe_index", quantised="keep")
def index(c: Call, self: Any, indices: Any) -> Any:
    """NumPy's rule: the indexed axes give way to the indices' own, in place where they are neighbours, else in front.
    """
    x = c.tensor(self)
    if len(indices) == 1 and _is_open_mask(indices[0]):
        places = c.emit(tensor.Transpose, c.emit(selection.NonZero, indices[0]), perm=(1, 0))
        return c.emit(tensor.GatherNd, x, places)
    listed = _per_axis(c, x, indices)
    axes = [i for i, v in enumerate(listed) if v is not None]
    picks = [v for v in listed if v is not None]
    if not axes:
        return x
    if len(axes) == 1:
        return _one_index(c, x, picks[0], axes[0])
    order = axes + [i for i in range(x.type.rank) if i not in axes]
    y = c.emit(tensor.GatherNd, permute(c, x, order), _coordinates(c, x, axes, picks))
    neighbours = axes == list(range(axes[0], axes[-1] + 1))
    if not neighbours or axes[0] == 0:
        return y
    width = len(np.broadcast_shapes(*(v.type.static_shape for v in picks)))
    lead = list(range(width, width + axes[0]))
    return permute(c, y, [*lead, *range(width), *range(width + axes[0], y.type.rank)])


def _one_index(c: Call, x: Value, picks: Value, axis: int) -> Value:
    if isinstance(picks, Constant) and picks.data.size == 1 and picks.type.rank == 0:
        return select(c, x, axis, int(picks.data))
    return c.emit(tensor.Gather, x, picks, axis=axis)


@aten("aten::index_put", "aten::_unsafe_index_put", "aten::_index_put_impl")
def index_put(c: Call, self: Any, indices: Any, values: Any, accumulate: Any = False, unsafe: Any = False) -> Any:
    x = c.tensor(self)
    new = c.cast(c.as_tensor(values), x.type.dtype)
    given = [i for i in indices if i is not None]
    masked = len(given) == 1 and given[0].type.dtype is DType.BOOL and not isinstance(given[0], Constant)
    if masked and new.type.elements == 1 and indices[0] is not None:
        return _put_by_mask(c, x, given[0], new, accumulate)
    listed = _per_axis(c, x, indices)
    axes = [i for i, v in enumerate(listed) if v is not None]
    order = axes + [i for i in range(x.type.rank) if i not in axes]
    front = permute(c, x, order)
    places = _coordinates(c, x, axes, [listed[i] for i in axes])  # type: ignore[misc]
    lead = places.type.static_shape[:-1]
    shape = lead + front.type.static_shape[len(axes) :]
    if axes[0] and axes == list(range(axes[0], axes[-1] + 1)) and new.type.rank == len(shape):
        new = permute(c, new, _indexed_first(axes[0], len(lead), new.type.rank))
    how = "add" if accumulate else "none"
    y = c.emit(tensor.ScatterNd, front, places, expand(c, new, shape), reduction=how)
    return permute(c, y, list(np.argsort(order)))


def _indexed_first(before: int, width: int, rank: int) -> list[int]:
    """The order that brings `width` indexed axes from behind `before` others to the front."""
    return [*range(before, before + width), *range(before), *range(before + width, rank)]


def _put_by_mask(c: Call, x: Value, mask: Value, new: Value, accumulate: Any) -> Value:
    mask = c.reshape(mask, (*mask.type.static_shape, *[1] * (x.type.rank - mask.type.rank)))
    new = c.reshape(new, ())
    return c.emit(math.Where, mask, c.emit(math.Add, x, new) if accumulate else new, x)


@aten("aten::masked_select", quantised="keep")
def masked_select(c: Call, self: Any, mask: Any) -> Any:
    """How many elements there are depends on the data where the mask does."""
    shape = np.broadcast_shapes(c.shape(self), c.shape(mask))
    flat = ravel(c, expand(c, self, shape))
    if isinstance(mask, Constant):
        chosen = np.flatnonzero(np.broadcast_to(mask.data, shape))
        return c.emit(tensor.Gather, flat, c.constant(chosen), axis=0)
    return c.emit(selection.Compress, flat, ravel(c, expand(c, truth(c, mask), shape)))


@aten("aten::masked_scatter")
def masked_scatter(c: Call, self: Any, mask: Any, source: Any) -> Any:
    """The n-th chosen place takes the n-th element of the source."""
    x = c.tensor(self)
    chosen = expand(c, truth(c, mask), x.type.static_shape)
    order = c.emit(tensor.CumSum, c.cast(ravel(c, chosen), DType.I64), axis=0)
    places = c.emit(math.Clip, c.real(c.emit(math.Sub, order, c.scalar_like(1, order))), low=0.0)
    picked = c.emit(tensor.Gather, ravel(c, c.cast(source, x.type.dtype)), c.cast(places, DType.I64), axis=0)
    return c.emit(math.Where, chosen, c.reshape(picked, x.type.static_shape), x)


@aten("aten::nonzero", "aten::nonzero_numpy", "aten::argwhere")
def nonzero(c: Call, self: Any) -> Any:
    x = c.tensor(self)
    if c.base == "nonzero_numpy":
        return places_of(c, x)
    if isinstance(x, Constant):
        return c.constant(np.argwhere(x.data).astype(np.int64))
    return c.emit(tensor.Transpose, c.emit(selection.NonZero, x), perm=(1, 0))


def places_of(c: Call, mask: Value) -> list[Value]:
    """Indices of the elements that are not zero, per axis. How many there are depends on the data where it does."""
    if isinstance(mask, Constant):
        return [c.constant(axis) for axis in np.nonzero(mask.data)]
    found = c.emit(selection.NonZero, mask)
    return [c.emit(tensor.Gather, found, c.constant(axis, DType.I64), axis=0) for axis in range(mask.type.rank)]


@aten("aten::bucketize", "aten::searchsorted")
def bucketize(c: Call, self: Any, boundaries: Any, out_int32: Any = False, right: Any = False, **more: Any) -> Any:
    """How many boundaries lie below: a sum of comparisons."""
    x, edges = (self, boundaries) if c.base == "bucketize" else (boundaries, self)
    x, edges = c.as_tensor(x), c.tensor(edges)
    if edges.type.rank != 1:
        raise Malformed("the boundaries must be one sorted list")
    wide = c.reshape(c.real(x), (*x.type.static_shape, 1))
    below = c.emit(math.GreaterEqual if right else math.Greater, wide, c.real(edges))
    total = c.emit(reduce.Sum, c.cast(below, DType.I64), axes=(x.type.rank,), keepdims=False)
    return c.cast(total, DType.I32) if out_int32 else total
