"""Rows that move elements: views, joins, cuts, repetition, padding, and the rearrangements built of these."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.promotion import together
from compiler.frontend.aten.quantisers import dequantised, requantised
from compiler.frontend.aten.registry import aten
from compiler.frontend.common.columns import summed_columns
from compiler.frontend.common.emitter import cut
from compiler.frontend.common.windows import Window
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Constant, Value
from compiler.ir.types import Dimension, DType
from compiler.ops import nn, selection, tensor


# -- views -------------------------------------------------------------------------------------------------------------
def is_open(x: Any) -> bool:
    """Whether it is a number that depends on data."""
    return isinstance(x, Value) and not isinstance(x, Constant)


@aten("aten::view", "aten::reshape", "aten::_unsafe_view", "aten::view_copy", "aten::_reshape_alias", quantised="keep")
def reshape(c: Call, self: Any, shape: Any, *strides: Any) -> Any:
    x = c.tensor(self)
    listed = shape if isinstance(shape, list | tuple) else [shape]
    wanted: list[Dimension] = [None if is_open(d) else c.integer(d, "the shape") for d in listed]
    if x.type.is_static and None not in wanted and wanted.count(-1) == 1:
        known = prod(d for d in wanted if d is not None and d != -1)
        if known and x.type.elements % known == 0:
            wanted[wanted.index(-1)] = x.type.elements // known
    elif not x.type.is_static or None in wanted:
        wanted = [None if d == -1 else d for d in wanted]
    return c.reshape(x, wanted)


@aten("aten::view.dtype", quantised="keep", refuses=True)
def view_dtype(c: Call, self: Any, dtype: Any) -> Any:
    raise Unsupported("reads the bits of a tensor as another type", "convert the values with .to(dtype)")


@aten("aten::view_as", "aten::reshape_as", quantised="keep")
def reshape_as(c: Call, self: Any, other: Any) -> Any:
    return c.reshape(c.tensor(self), c.shape(other))


@aten("aten::flatten", quantised="keep")
def flatten(c: Call, self: Any, start_dim: Any = 0, end_dim: Any = -1) -> Any:
    shape = c.open_shape(self)
    if not shape:
        return c.reshape(self, (1,))
    start, end = c.axis(start_dim, len(shape)), c.axis(end_dim, len(shape))
    known = [d for d in shape[start : end + 1] if d is not None]
    joined = prod(known) if len(known) == end + 1 - start else None
    return c.reshape(self, (*shape[:start], joined, *shape[end + 1 :]))


@aten("aten::ravel", quantised="keep")
def ravel(c: Call, self: Any) -> Any:
    return flatten(c, self)


@aten("aten::unflatten", quantised="keep")
def unflatten(c: Call, self: Any, dim: Any, sizes: Any, names: Any = None) -> Any:
    shape = c.shape(self)
    axis = c.axis(dim, len(shape))
    return reshape(c, self, [*shape[:axis], *_filled(c.integers(sizes, "the sizes"), shape[axis]), *shape[axis + 1 :]])


def _filled(sizes: Sequence[int], total: int) -> list[int]:
    """Sizes whose product is `total`, with -1 replaced."""
    known = prod(s for s in sizes if s != -1)
    return [total // known if s == -1 and known else s for s in sizes]


@aten("aten::squeeze", "aten::squeeze_copy", quantised="keep")
def squeeze(c: Call, self: Any, dim: Any = None) -> Any:
    """Axes of more than one element stay, even where they are named."""
    shape = c.open_shape(self)
    axes = () if isinstance(dim, list | tuple) and not dim else c.axes(dim, len(shape))
    return c.reshape(self, [d for i, d in enumerate(shape) if i not in axes or d != 1])


@aten("aten::unsqueeze", "aten::unsqueeze_copy", quantised="keep")
def unsqueeze(c: Call, self: Any, dim: Any) -> Any:
    shape = list(c.open_shape(self))
    shape.insert(c.axis(dim, len(shape) + 1), 1)
    return c.reshape(self, shape)


@aten("aten::permute", "aten::permute_copy", quantised="keep")
def permute(c: Call, self: Any, dims: Any) -> Any:
    x = c.tensor(self)
    perm = tuple(c.axis(d, x.type.rank) for d in c.integers(dims, "the dimensions"))
    return x if perm == tuple(range(x.type.rank)) else c.emit(tensor.Transpose, x, perm=perm)


@aten("aten::transpose", "aten::transpose_copy", "aten::swapaxes", "aten::swapdims", quantised="keep")
def transpose(c: Call, self: Any, dim0: Any, dim1: Any) -> Any:
    rank = len(c.open_shape(self))
    if rank == 0:
        return self
    a, b = c.axis(dim0, rank), c.axis(dim1, rank)
    order = list(range(rank))
    order[a], order[b] = b, a
    return permute(c, self, order)


@aten("aten::t", "aten::numpy_T", "aten::mT", "aten::t_copy", "aten::adjoint", quantised="keep")
def matrix_transpose(c: Call, self: Any) -> Any:
    rank = len(c.open_shape(self))
    if c.base == "numpy_T":
        return permute(c, self, list(reversed(range(rank))))
    return transpose(c, self, -1, -2) if rank > 1 else self


@aten("aten::movedim", "aten::moveaxis", quantised="keep")
def move_axes(c: Call, self: Any, source: Any, destination: Any) -> Any:
    rank = len(c.open_shape(self))
    origins = [c.axis(s, rank) for s in c.integers(source, "the source")]
    targets = [c.axis(d, rank) for d in c.integers(destination, "the destination")]
    rest = iter(i for i in range(rank) if i not in origins)
    placed = dict(zip(targets, origins, strict=True))
    return permute(c, self, [placed[i] if i in placed else next(rest) for i in range(rank)])


# -- joins -------------------------------------------------------------------------------------------------------------
@aten("aten::cat", "aten::concat", "aten::concatenate", quantised="keep")
def cat(c: Call, tensors: Any, dim: Any = 0) -> Any:
    """Empty one-dimensional tensors are left out, as torch does; quantised ones of different scales meet as reals."""
    values = [c.tensor(v) for v in tensors]
    if not values:
        raise Malformed("joins no tensors")
    if any(v.type.quant is not None for v in values):
        return _cat_quantised(c, values, dim)
    values = together(c, *values)
    axis = c.axis(dim, max(v.type.rank for v in values))
    filled = [v for v in values if v.type.shape != (0,) and v.type.shape[axis] != 0] or values[:1]
    return filled[0] if len(filled) == 1 else c.emit(tensor.Concat, *filled, axis=axis)


def _cat_quantised(c: Call, values: list[Value], dim: Any) -> Value:
    if all(v.type.quant == values[0].type.quant for v in values):
        return c.emit(tensor.Concat, *values, axis=c.axis(dim, values[0].type.rank))
    like = c.first_quantised(values)
    return requantised(c, cat(c, dequantised(c, values), dim), like)


@aten("aten::stack", quantised="keep")
def stack(c: Call, tensors: Any, dim: Any = 0) -> Any:
    return cat(c, [unsqueeze(c, v, dim) for v in tensors], dim)


@aten("aten::hstack", "aten::vstack", "aten::dstack", "aten::row_stack", "aten::column_stack", quantised="keep")
def stack_by_name(c: Call, tensors: Any) -> Any:
    """NumPy's joins: along axis 0 of at least 2-D tensors, axis 1 (0 of vectors), or axis 2 of at least 3-D ones."""
    ranks = [len(c.shape(v)) for v in tensors]
    if c.base == "hstack":
        flat = [c.reshape(v, (1,)) if r == 0 else v for v, r in zip(tensors, ranks, strict=True)]
        return cat(c, flat, 0 if max(ranks) < 2 else 1)
    if c.base == "column_stack":
        columns = [c.reshape(v, (v.type.elements, 1)) if r < 2 else v for v, r in zip(tensors, ranks, strict=True)]
        return cat(c, columns, 1)
    if c.base == "dstack":
        return cat(c, [_lifted_last(c, v) for v in tensors], 2)
    return cat(c, [c.reshape(v, (1, v.type.elements)) if r < 2 else v for v, r in zip(tensors, ranks, strict=True)], 0)


def _lifted_last(c: Call, x: Value) -> Value:
    shape = c.shape(x)
    return c.reshape(x, ((1,) * (2 - len(shape)) + shape + (1,)) if len(shape) < 3 else shape)


# -- cuts --------------------------------------------------------------------------------------------------------------
@aten("aten::slice", "aten::slice_copy", quantised="keep")
def slice_axis(c: Call, self: Any, dim: Any = 0, start: Any = None, end: Any = None, step: Any = 1) -> Any:
    if isinstance(self, list | tuple | str):  # aten::slice of lists: (list, start, end, step)
        return self[slice(dim, start, end if end is not None else 1)]
    x = c.tensor(self)
    axis = c.axis(dim, x.type.rank)
    if not x.type.is_static or any(map(is_open, (start, end))):
        return _cut_by_data(c, x, axis, start, end, c.integer(step, "the step"))
    first = None if start is None else c.integer(start, "the start")
    last = None if end is None else c.integer(end, "the end")
    found = range(*slice(first, last, c.integer(step, "the step")).indices(x.type.static_shape[axis]))
    return cut(c, x, axis, found.start, len(found), found.step)


def _cut_by_data(c: Call, x: Value, axis: int, start: Any, end: Any, step: int) -> Value:
    """x cut along an axis between bounds that may depend on the data, as its shape may."""
    bounds = [0 if start is None else start, np.iinfo(np.int64).max if end is None else end, step]
    vectors = [c.reshape(c.cast(c.as_tensor(b), DType.I64), (1,)) for b in bounds]
    size, known = x.type.shape[axis], list(x.type.shape)
    if size is None or any(map(is_open, bounds)):
        known[axis] = None
    else:
        known[axis] = len(range(size)[slice(*(c.integer(b, "a bound") for b in bounds))])
    marked = [-1 if d is None else d for d in known]
    return c.emit(selection.SliceAs, x, *vectors, axes=(axis,), known=marked)


@aten("aten::narrow", "aten::narrow_copy", quantised="keep")
def narrow(c: Call, self: Any, dim: Any, start: Any, length: Any) -> Any:
    axis = c.axis(dim, len(c.shape(self)))
    first = c.integer(start, "the start")
    first += c.shape(self)[axis] if first < 0 else 0
    return cut(c, self, axis, first, c.integer(length, "the length"))


@aten("aten::select", "aten::select_copy", quantised="keep")
def select(c: Call, self: Any, dim: Any, index: Any) -> Any:
    x = c.tensor(self)
    axis = c.axis(dim, x.type.rank)
    if is_open(index) or not x.type.is_static:
        return c.emit(tensor.Gather, x, c.reshape(c.cast(c.as_tensor(index), DType.I64), ()), axis=axis)
    shape, at = x.type.static_shape, c.integer(index, "the index")
    if not -shape[axis] <= at < shape[axis]:
        raise Malformed(f"index {at} is out of range for {shape[axis]} elements")
    return c.reshape(cut(c, x, axis, at % shape[axis], 1), shape[:axis] + shape[axis + 1 :])


def _parts(c: Call, x: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
    found, start = [], 0
    for size in sizes:
        found.append(cut(c, x, axis, start, size))
        start += size
    if start != x.type.shape[axis]:
        raise Malformed(f"cannot split {x.type.shape[axis]} elements into {list(sizes)}")
    return found


@aten("aten::split", "aten::unsafe_split", "aten::split_copy", "aten::split_with_sizes",
      "aten::unsafe_split_with_sizes", "aten::split_with_sizes_copy", quantised="keep")  # fmt: skip
def split(c: Call, self: Any, split_size: Any = None, dim: Any = 0, **named: Any) -> Any:
    """Into parts of one size, the last perhaps smaller, or of listed sizes."""
    wanted = named.get("split_sizes", named.get("split_size_or_sections", split_size))
    axis = c.axis(dim, len(c.shape(self)))
    if isinstance(wanted, list | tuple):
        return _parts(c, self, axis, c.integers(wanted, "the sizes"))
    total, size = c.shape(self)[axis], c.integer(wanted, "the size")
    if size < 1:
        raise Malformed(f"splits into parts of {size}")
    return _parts(c, self, axis, [min(size, total - at) for at in range(0, total, size)] or [0])


@aten("aten::chunk", "aten::unsafe_chunk", quantised="keep")
def chunk(c: Call, self: Any, chunks: Any, dim: Any = 0) -> Any:
    total = c.shape(self)[c.axis(dim, len(c.shape(self)))]
    return split(c, self, max(-(-total // c.integer(chunks, "the number of parts")), 1), dim)


@aten("aten::tensor_split", "aten::hsplit", "aten::vsplit", quantised="keep")
def tensor_split(c: Call, self: Any, sections: Any, dim: Any = 0) -> Any:
    """Into parts as equal as can be, or at listed places."""
    rank = len(c.shape(self))
    axis = {"hsplit": 1 if rank > 1 else 0, "vsplit": 0}.get(c.base, c.axis(dim, rank))
    total = c.shape(self)[axis]
    if isinstance(sections, list | tuple):
        places = [0, *(min(max(p + total if p < 0 else p, 0), total) for p in c.integers(sections, "indices")), total]
        return _parts(c, self, axis, [b - a for a, b in pairwise(places)])
    count = c.integer(sections, "the number of parts")
    return _parts(c, self, axis, [total // count + (i < total % count) for i in range(count)])


@aten("aten::unbind", "aten::unbind_copy", quantised="keep")
def unbind(c: Call, self: Any, dim: Any = 0) -> Any:
    return [select(c, self, dim, i) for i in range(c.shape(self)[c.axis(dim, len(c.shape(self)))])]


@aten("aten::tril", "aten::triu")
def triangle(c: Call, self: Any, diagonal: Any = 0) -> Any:
    return c.emit(tensor.Trilu, c.tensor(self), upper=c.base == "triu", k=c.integer(diagonal, "the diagonal"))


@aten("aten::linalg_diagonal", quantised="keep")
def matrix_diagonal(c: Call, A: Any, offset: Any = 0, dim1: Any = -2, dim2: Any = -1) -> Any:
    return diagonal(c, A, offset, dim1, dim2)


@aten("aten::diagonal", "aten::diagonal_copy", quantised="keep")
def diagonal(c: Call, self: Any, offset: Any = 0, dim1: Any = 0, dim2: Any = 1) -> Any:
    """A gather along the two axes taken as one."""
    rank = len(c.shape(self))
    a, b = c.axis(dim1, rank), c.axis(dim2, rank)
    rest = [i for i in range(rank) if i not in (a, b)]
    x = permute(c, self, [*rest, a, b])
    *lead, rows, columns = c.shape(x)
    places = np.diagonal(np.arange(rows * columns).reshape(rows, columns), c.integer(offset, "the offset"))
    return c.emit(tensor.Gather, c.reshape(x, (*lead, rows * columns)), c.constant(places.copy()), axis=len(lead))


# -- repetition --------------------------------------------------------------------------------------------------------
@aten("aten::expand", "aten::broadcast_to", "aten::expand_copy", quantised="keep")
def expand(c: Call, self: Any, size: Any, implicit: bool = False) -> Any:
    """-1 keeps an axis."""
    shape, wanted = c.shape(self), list(c.integers(size, "the shape"))
    lead = len(wanted) - len(shape)
    wanted = [shape[i - lead] if d == -1 and i >= lead else d for i, d in enumerate(wanted)]
    return self if tuple(wanted) == shape else c.emit(tensor.BroadcastTo, self, shape=tuple(wanted))


@aten("aten::expand_as", quantised="keep")
def expand_as(c: Call, self: Any, other: Any) -> Any:
    return expand(c, self, c.shape(other))


@aten("aten::broadcast_tensors", quantised="keep")
def broadcast_tensors(c: Call, tensors: Any) -> Any:
    shape = np.broadcast_shapes(*(c.shape(v) for v in tensors))
    return [expand(c, v, shape) for v in tensors]


@aten("aten::meshgrid", quantised="keep")
def meshgrid(c: Call, tensors: Any, indexing: str = "ij") -> Any:
    """Each vector along an axis of its own; indexing xy exchanges the first two axes."""
    sizes = [v.type.elements for v in tensors]
    grids = []
    for i, v in enumerate(tensors):
        row = c.reshape(v, [sizes[j] if j == i else 1 for j in range(len(sizes))])
        grid = expand(c, row, sizes)
        grids.append(transpose(c, grid, 0, 1) if indexing == "xy" and len(sizes) > 1 else grid)
    return grids


@aten("aten::repeat", "aten::tile", quantised="keep")
def repeat(c: Call, self: Any, repeats: Any) -> Any:
    """One entry per axis, for new leading axes too; tile may have fewer."""
    shape, counts = c.shape(self), c.integers(repeats, "the repeats")
    if len(counts) < len(shape):
        if c.base == "repeat":
            raise Malformed(f"{len(counts)} repeats for a tensor of rank {len(shape)}")
        counts = (1,) * (len(shape) - len(counts)) + counts
    x = c.reshape(self, (1,) * (len(counts) - len(shape)) + shape)
    return x if all(r == 1 for r in counts) else c.emit(tensor.Tile, x, repeats=counts)


@aten("aten::repeat_interleave", quantised="keep")
def repeat_interleave(c: Call, self: Any, repeats: Any = None, dim: Any = None, output_size: Any = None) -> Any:
    """Each element several times in place: a gather by known places. Repeats alone give the places."""
    if repeats is None:
        counts = c.known(self, "the repeats")
        return c.constant(np.repeat(np.arange(counts.size), counts))
    x = c.tensor(self)
    if dim is None:
        x, dim = ravel(c, x), 0
    axis = c.axis(dim, x.type.rank)
    places = np.repeat(np.arange(x.type.static_shape[axis]), c.known(repeats, "the repeats").reshape(-1))
    return c.emit(tensor.Gather, x, c.constant(places), axis=axis)


@aten("aten::roll", quantised="keep")
def roll(c: Call, self: Any, shifts: Any, dims: Any = ()) -> Any:
    x, moves = c.tensor(self), c.integers(shifts, "the shifts")
    if isinstance(dims, list | tuple) and not dims:
        return c.reshape(roll(c, ravel(c, x), moves, [0]), x.type.static_shape)
    for shift, dim in zip(moves, c.integers(dims, "the dimensions"), strict=True):
        axis = c.axis(dim, x.type.rank)
        size = x.type.static_shape[axis]
        at = -shift % size if size else 0
        if at:
            x = c.emit(tensor.Concat, cut(c, x, axis, at, size - at), cut(c, x, axis, 0, at), axis=axis)
    return x


@aten("aten::flip", "aten::fliplr", "aten::flipud", quantised="keep")
def flip(c: Call, self: Any, dims: Any = None) -> Any:
    x = c.tensor(self)
    shape, listed = x.type.static_shape, {"fliplr": (1,), "flipud": (0,)}.get(c.base, dims)
    axes = {c.axis(d, len(shape)) for d in c.integers(listed, "the dimensions")}
    starts = [d - 1 if i in axes and d else 0 for i, d in enumerate(shape)]
    steps = [-1 if i in axes and d else 1 for i, d in enumerate(shape)]
    return c.emit(tensor.Slice, x, starts=starts, sizes=shape, steps=steps) if axes else x


@aten("aten::rot90", quantised="keep")
def rotate(c: Call, self: Any, k: Any = 1, dims: Any = (0, 1)) -> Any:
    a, b = c.integers(dims, "the dimensions")
    turns = c.integer(k, "the number of turns") % 4
    if turns == 2:
        return _flipped(c, _flipped(c, self, a), b)
    if turns == 0:
        return self
    turned = transpose(c, self, a, b)
    return _flipped(c, turned, a if turns == 1 else b)


def _flipped(c: Call, x: Value, axis: int) -> Value:
    size = x.type.static_shape[axis]
    return cut(c, x, c.axis(axis, x.type.rank), size - 1, size, -1)


# -- padding -----------------------------------------------------------------------------------------------------------
MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def padded(c: Call, x: Value, pad: Any, mode: str, value: Any) -> Value:
    """torch lists (before, after) from the last axis on; negative entries cut."""
    listed, rank = c.integers(pad, "the padding"), x.type.rank
    if len(listed) % 2 or len(listed) > 2 * rank:
        raise Malformed(f"{len(listed)} pads for a tensor of rank {rank}")
    before, after = [0] * rank, [0] * rank
    for i in range(len(listed) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = listed[2 * i], listed[2 * i + 1]
    for axis in range(rank):
        first, last = max(-before[axis], 0), max(-after[axis], 0)
        x = cut(c, x, axis, first, x.type.static_shape[axis] - first - last)
    pads = tuple(max(p, 0) for p in (*before, *after))
    filler = 0.0 if value is None else float(c.number(value, "the padding value"))
    return c.emit(tensor.Pad, x, pads=pads, mode=MODES[mode], value=filler) if any(pads) else x


@aten("aten::pad", quantised="keep")
def pad(c: Call, self: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    if mode not in MODES:
        raise Malformed(f"mode is {mode!r}")
    return padded(c, c.tensor(self), pad, mode, value)


@aten("aten::constant_pad_nd", quantised="keep")
def constant_pad(c: Call, self: Any, pad: Any, value: Any = 0) -> Any:
    return padded(c, c.tensor(self), pad, "constant", value)


@aten("aten::reflection_pad1d", "aten::reflection_pad2d", "aten::reflection_pad3d", "aten::replication_pad1d",
      "aten::replication_pad2d", "aten::replication_pad3d", "aten::_pad_circular", quantised="keep")  # fmt: skip
def border_pad(c: Call, self: Any, padding: Any) -> Any:
    mode = "circular" if "circular" in c.name else "reflect" if "reflection" in c.name else "replicate"
    return padded(c, c.tensor(self), padding, mode, None)


@aten("aten::_pad_enum", quantised="keep")
def pad_enum(c: Call, self: Any, pad: Any, mode: int, value: Any = None) -> Any:
    return padded(c, c.tensor(self), pad, ["reflect", "replicate", "circular", "constant"][mode], value)


# -- channels and pixels -----------------------------------------------------------------------------------------------
def _as_images(c: Call, x: Value) -> Value:
    """x with its leading axes made one batch axis."""
    *lead, channels, h, w = x.type.static_shape
    return c.reshape(x, (prod(lead), channels, h, w))


@aten("aten::pixel_shuffle", quantised="keep")
def pixel_shuffle(c: Call, self: Any, upscale_factor: Any) -> Any:
    factor = c.integer(upscale_factor, "the factor")
    y = c.emit(nn.DepthToSpace, _as_images(c, self), block_size=factor, mode="CRD")
    return c.reshape(y, (*c.shape(self)[:-3], *c.shape(y)[1:]))


@aten("aten::pixel_unshuffle", quantised="keep")
def pixel_unshuffle(c: Call, self: Any, downscale_factor: Any) -> Any:
    b = c.integer(downscale_factor, "the factor")
    *lead, channels, h, w = c.shape(self)
    blocks = c.reshape(self, (prod(lead) * channels, h // b, b, w // b, b))
    moved = c.emit(tensor.Transpose, blocks, perm=(0, 2, 4, 1, 3))
    return c.reshape(moved, (*lead, channels * b * b, h // b, w // b))


@aten("aten::channel_shuffle", "aten::native_channel_shuffle", quantised="keep")
def channel_shuffle(c: Call, self: Any, groups: Any) -> Any:
    count, (n, channels, *rest) = c.integer(groups, "the number of groups"), c.shape(self)
    grouped = c.reshape(self, (n, count, channels // count, prod(rest)))
    return c.reshape(c.emit(tensor.Transpose, grouped, perm=(0, 2, 1, 3)), c.shape(self))


# -- windows as axes ---------------------------------------------------------------------------------------------------
@aten("aten::unfold", "aten::unfold_copy", quantised="keep")
def unfold(c: Call, self: Any, dimension: Any, size: Any, step: Any) -> Any:
    """Windows along an axis, their elements along a new last axis."""
    shape = c.shape(self)
    axis = c.axis(dimension, len(shape))
    length, stride = c.integer(size, "the size"), c.integer(step, "the step")
    count = (shape[axis] - length) // stride + 1
    places = np.arange(count)[:, None] * stride + np.arange(length)
    x = c.emit(tensor.Gather, self, c.constant(places), axis=axis)
    return move_axes(c, x, axis + 1, -1)


def _places(size: int, kernel: int, stride: int, dilation: int) -> np.ndarray:
    """[kernel, outputs]: the elements of a padded axis that windows cover."""
    outputs = (size - (kernel - 1) * dilation - 1) // stride + 1
    return np.arange(kernel)[:, None] * dilation + np.arange(outputs)[None, :] * stride


def _two(c: Call, value: Any, what: str) -> tuple[int, int]:
    found = c.integers(value, what)
    return (found[0], found[-1])


@aten("aten::im2col", quantised="keep")
def im2col(c: Call, self: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    """[n, c, h, w] to [n, c*kh*kw, windows]: two gathers."""
    pads = _two(c, padding, "the padding")
    x = padded(c, c.tensor(self), [pads[1], pads[1], pads[0], pads[0]], "constant", None)
    n, channels, h, w = c.shape(x)
    (kh, kw), strides = _two(c, kernel_size, "the kernel size"), _two(c, stride, "the stride")
    dilations = _two(c, dilation, "the dilation")
    rows, columns = _places(h, kh, strides[0], dilations[0]), _places(w, kw, strides[1], dilations[1])
    x = c.emit(tensor.Gather, x, c.constant(rows), axis=2)
    x = c.emit(tensor.Gather, x, c.constant(columns), axis=4)
    x = c.emit(tensor.Transpose, x, perm=(0, 1, 2, 4, 3, 5))
    return c.reshape(x, (n, channels * kh * kw, rows.shape[1] * columns.shape[1]))


@aten("aten::col2im")
def col2im(c: Call, self: Any, output_size: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    kernel, steps, gaps, pads = (
        _two(c, v, "an entry per axis") for v in (kernel_size, stride, dilation, padding)
    )  # fmt: skip
    x = c.tensor(self)
    batched = x if x.type.rank == 3 else c.reshape(x, (1, *x.type.static_shape))
    y = summed_columns(c, batched, Window(kernel, steps, gaps, list(pads), list(pads)), _two(c, output_size, "a size"))
    return y if x.type.rank == 3 else c.reshape(y, y.type.static_shape[1:])


@aten("aten::diag_embed", "aten::diag")
def diag_embed(c: Call, self: Any, offset: Any = 0, dim1: Any = -2, dim2: Any = -1) -> Any:
    """Vectors as diagonals: a scatter into zeros, by a product with a known mask. Of a matrix, `diag` is the other way.
    """
    from compiler.ops import math

    x, shift = c.tensor(self), c.integer(offset, "the offset")
    if c.base == "diag" and x.type.rank == 2:
        return diagonal(c, x, shift)
    *lead, size = x.type.static_shape
    side, rank = size + abs(shift), len(lead) + 2
    row = padded(c, x, (max(shift, 0), max(-shift, 0)), "constant", None)
    mask = np.eye(side, k=shift, dtype=x.type.dtype.numpy)
    y = c.emit(math.Mul, c.reshape(row, (*lead, 1, side)), c.constant(mask))
    if c.base == "diag":
        return y
    return move_axes(c, y, [-2, -1], [c.axis(dim1, rank), c.axis(dim2, rank)])


@aten("aten::as_strided", "aten::as_strided_copy", quantised="keep")
def as_strided(c: Call, self: Any, size: Any, stride: Any, storage_offset: Any = None) -> Any:
    """A gather over the tensor's elements in row-major order, which is how they lie unless a view came before."""
    sizes, strides = c.integers(size, "the size"), c.integers(stride, "the stride")
    places = np.full(sizes, 0 if storage_offset is None else c.integer(storage_offset, "the offset"), np.int64)
    for axis, step in enumerate(strides):
        places += (np.arange(sizes[axis]) * step).reshape([-1 if i == axis else 1 for i in range(len(sizes))])
    flat = ravel(c, self)
    if places.size == flat.type.elements and (places.reshape(-1) == np.arange(places.size)).all():
        return c.reshape(flat, sizes)
    return c.emit(tensor.Gather, flat, c.constant(places), axis=0)
