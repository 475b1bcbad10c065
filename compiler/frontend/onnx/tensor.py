"""Converters that move elements: reshapes, slices, concatenations, gathers, padding."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from compiler.frontend.common.emitter import normal_axis, reshape
from compiler.frontend.onnx import dynamic
from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.registry import converter
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Constant, Op, Value
from compiler.ir.types import DType
from compiler.ops import math, nn, selection, tensor
from compiler.ops.reduce import ArgMax


# -- reshapes ----------------------------------------------------------------------------------------------------------
@converter("Reshape")
def reshape_node(n: Node) -> Value:
    x = n.input(0)
    if n.opset >= 5 and (n.known(1) is None or not x.type.is_static):
        return dynamic.reshaped(n, x, dynamic.settled(n, dynamic.vector(n, 1)), bool(n.attribute("allowzero", 0)))
    shape = n.shape()
    wanted = list(n.ints(1, "the shape") if n.opset >= 5 else n.required("shape"))
    if not n.attribute("allowzero", 0):
        if any(d == 0 and i >= len(shape) for i, d in enumerate(wanted)):
            raise Malformed(f"shape {wanted} copies a dimension the input, of rank {len(shape)}, does not have")
        wanted = [shape[i] if d == 0 else d for i, d in enumerate(wanted)]
    if wanted.count(-1) == 1:
        known = prod(d for d in wanted if d != -1)
        if known and prod(shape) % known == 0:
            wanted[wanted.index(-1)] = prod(shape) // known
    return reshape(n, x, wanted)


@converter("Flatten")
def flatten(n: Node) -> Value:
    shape = n.input(0).type.shape
    axis = n.attribute("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    sizes = [-1 if None in part else prod(d or 0 for d in part) for part in (shape[:axis], shape[axis:])]
    return reshape(n, n.input(0), sizes)


@converter("Squeeze")
def squeeze(n: Node) -> Value:
    shape = n.input(0).type.shape
    axes = n.axes_attribute_or_input(1)
    single = [i for i, d in enumerate(shape) if d == 1]
    dropped = {normal_axis(a, len(shape)) for a in (single if axes is None else axes)}
    if any(shape[a] not in (1, None) for a in dropped):
        raise Malformed(f"squeezes axes {sorted(dropped)} of shape {list(shape)}, which are not all 1")
    if None in shape:
        return dynamic.rearranged(n, n.input(0), [i for i in range(len(shape)) if i not in dropped])
    return reshape(n, n.input(0), [d for i, d in enumerate(shape) if i not in dropped])  # type: ignore[misc]


@converter("Unsqueeze")
def unsqueeze(n: Node) -> Value:
    axes = n.axes_attribute_or_input(1)
    if axes is None:
        raise Malformed("axes are missing")
    shape = n.input(0).type.shape
    rank = len(shape) + len(axes)
    added = {normal_axis(a, rank) for a in axes}
    if len(added) != len(axes):
        raise Malformed(f"axes {list(axes)} name an axis twice")
    rest = iter(range(len(shape)))
    places = [None if i in added else next(rest) for i in range(rank)]
    if None in shape:
        return dynamic.rearranged(n, n.input(0), places)
    return reshape(n, n.input(0), [1 if p is None else shape[p] for p in places])  # type: ignore[misc]


@converter("Transpose")
def transpose(n: Node) -> Value:
    x = n.input(0)
    perm = n.attribute("perm", tuple(reversed(range(x.type.rank))))
    return n.emit(tensor.Transpose, x, perm=perm)


@converter("DepthToSpace")
def depth_to_space(n: Node) -> Value:
    return n.emit(nn.DepthToSpace, n.input(0), block_size=n.required("blocksize"), mode=n.attribute("mode", "DCR"))


@converter("SpaceToDepth")
def space_to_depth(n: Node) -> Value:
    x, block = n.input(0), n.required("blocksize")
    if n.attribute("mode", "DCR") == "DCR":
        return n.emit(nn.SpaceToDepth, x, block_size=block)
    batch, channels, h, w = n.shape()
    cut = reshape(n, x, (batch, channels, h // block, block, w // block, block))
    moved = n.emit(tensor.Transpose, cut, perm=(0, 1, 3, 5, 2, 4))
    return reshape(n, moved, (batch, channels * block * block, h // block, w // block))


# -- joins and cuts ----------------------------------------------------------------------------------------------------
@converter("Concat")
def concat(n: Node) -> Value:
    values = [n.input(i) for i in range(len(n.inputs))]
    axis = normal_axis(n.required("axis") if n.opset >= 4 else n.attribute("axis", 1), values[0].type.rank)
    filled = [v for v in values if v.type.shape[axis] != 0] or values[:1]
    return filled[0] if len(filled) == 1 else n.emit(tensor.Concat, *filled, axis=axis)


def slice_axes(
    n: Node, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int]
) -> Value:
    """Input 0 cut along some axes, with ONNX's clamping of starts and ends."""
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise Malformed("starts, ends, axes and steps differ in length")
    if not n.input(0).type.is_static:
        x, (first, last, apart) = n.input(0), (n.constant(v, DType.I64) for v in (starts, ends, steps))
        places = [normal_axis(a, x.type.rank) for a in axes]
        return dynamic.settled(n, dynamic.sliced(n, x, first, last, apart, places))
    shape = n.shape()
    firsts, sizes, strides = [0] * len(shape), list(shape), [1] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step == 0:
            raise Malformed("a step is 0")
        axis = normal_axis(axis, len(shape))
        found = selection.sliced_places(start, end, step, shape[axis])
        firsts[axis], sizes[axis], strides[axis] = (found.start if found else 0), len(found), step if found else 1
    if sizes == list(shape) and all(s == 1 for s in strides):
        return n.input(0)
    return n.emit(tensor.Slice, n.input(0), starts=firsts, sizes=sizes, steps=strides)


@converter("Slice")
def slice_by_attributes(n: Node) -> Value:
    starts, ends = n.required("starts"), n.required("ends")
    return slice_axes(n, starts, ends, n.attribute("axes", tuple(range(len(starts)))), (1,) * len(starts))


@converter("Slice", since=10)
def slice_by_inputs(n: Node) -> Value:
    if any(n.optional(i) is not None and n.known(i) is None for i in (1, 2, 4)):
        return _slice_by_data(n)
    starts, ends = n.ints(1, "starts"), n.ints(2, "ends")
    axes = n.optional_ints(3, "axes") or tuple(range(len(starts)))
    cut = slice_axes(n, starts, ends, axes, n.optional_ints(4, "steps") or (1,) * len(starts))
    return dynamic.settled(n, cut)


def _slice_by_data(n: Node) -> Value:
    x, starts, ends = n.input(0), dynamic.vector(n, 1), dynamic.vector(n, 2)
    count = (dynamic.entries(starts) or dynamic.entries(ends) or [])
    axes = n.optional_ints(3, "axes") or tuple(range(len(count)))
    steps = n.constant([1] * len(axes), DType.I64) if n.optional(4) is None else dynamic.vector(n, 4)
    return dynamic.sliced(n, x, starts, ends, steps, [normal_axis(a, x.type.rank) for a in axes])


@converter("Split")
def split(n: Node) -> list[Value]:
    n.ignore("num_outputs")
    shape = n.input(0).type.shape
    axis = normal_axis(n.attribute("axis", 0), len(shape))
    total = shape[axis]
    if total is None:
        raise Unsupported(f"splits axis {axis}, whose size depends on the network's data", "use Slice instead")
    sizes = n.optional_ints(1, "split") or n.attribute("split")
    if sizes is None:
        count = n.attribute("num_outputs", len(n.proto.output))
        if count != len(n.proto.output):
            raise Malformed(f"num_outputs is {count}, it has {len(n.proto.output)} outputs")
        size = -(-total // count)
        sizes = [min(size, total - i * size) for i in range(count)]
    if sum(sizes) != total or min(sizes, default=0) < 0:
        raise Malformed(f"cannot split {total} elements into {list(sizes)}")
    found, start = [], 0
    for size in sizes:
        found.append(slice_axes(n, (start,), (start + size,), (axis,), (1,)))
        start += size
    return found


def pad_axes(n: Node, pads: Sequence[int], value: float) -> Value:
    """Input 0 with elements added, or taken away where a pad is negative."""
    x, rank, mode = n.input(0), n.input(0).type.rank, n.attribute("mode", "constant")
    if len(pads) != 2 * rank:
        raise Malformed(f"{len(pads)} pads for an input of rank {rank}")
    starts, ends = [max(-p, 0) for p in pads[:rank]], [max(-p, 0) for p in pads[rank:]]
    if any(starts) or any(ends):
        sizes = [d - s - e for d, s, e in zip(n.shape(), starts, ends, strict=True)]
        x = n.emit(tensor.Slice, x, starts=starts, sizes=sizes)
    added = tuple(max(p, 0) for p in pads)
    if x.type.quant is not None:  # ONNX puts on an integer, our op the real it stands for
        value = (value - x.type.quant.zero_point) * x.type.quant.real_step
    return n.emit(tensor.Pad, x, pads=added, mode=mode, value=value) if any(added) else x


@converter("Pad")
def pad_by_attributes(n: Node) -> Value:
    return pad_axes(n, n.required("pads" if n.opset >= 2 else "paddings"), n.attribute("value", 0.0))


@converter("Pad", since=11)
def pad_by_inputs(n: Node) -> Value:
    pads, rank = n.ints(1, "pads"), n.input(0).type.rank
    value = 0.0 if n.optional(2) is None else float(n.array(2, "the padding value").item())
    axes = n.optional_ints(3, "axes")
    if axes is not None:
        if len(pads) != 2 * len(axes):
            raise Malformed(f"{len(pads)} pads for {len(axes)} axes")
        full = [0] * (2 * rank)
        for i, axis in enumerate(axes):
            full[normal_axis(axis, rank)] = pads[i]
            full[normal_axis(axis, rank) + rank] = pads[i + len(axes)]
        pads = tuple(full)
    return pad_axes(n, pads, value)


# -- repetition --------------------------------------------------------------------------------------------------------
@converter("Expand")
def expand(n: Node) -> Value:
    x = n.input(0)
    if n.known(1) is None or not x.type.is_static:
        shape_of = dynamic.settled(n, dynamic.vector(n, 1))
        if not isinstance(shape_of, Constant) or not x.type.is_static:
            return dynamic.expanded(n, x, shape_of)
        return n.emit(tensor.BroadcastTo, x, shape=np.broadcast_shapes(n.shape(), tuple(shape_of.data)))
    try:
        shape = np.broadcast_shapes(n.shape(), n.ints(1, "the shape"))
    except ValueError:
        raise Malformed(f"shape {n.shape()} does not broadcast to {n.ints(1, 'the shape')}") from None
    return x if shape == n.shape() else n.emit(tensor.BroadcastTo, x, shape=shape)


@converter("Tile")
def tile_one_axis(n: Node) -> Value:
    repeats, axis = [1] * n.input(0).type.rank, int(n.array(2, "the axis").item())
    repeats[normal_axis(axis, len(repeats))] = int(n.array(1, "the number of tiles").item())
    return n.emit(tensor.Tile, n.input(0), repeats=repeats)


@converter("Tile", since=6)
def tile(n: Node) -> Value:
    if n.known(1) is None:
        return n.emit(selection.TileAs, n.input(0), dynamic.vector(n, 1))
    return n.emit(tensor.Tile, n.input(0), repeats=n.ints(1, "repeats"))


# -- indexing ----------------------------------------------------------------------------------------------------------
@converter("Gather")
def gather(n: Node) -> Value:
    """One known index is a slice and a reshape, which the target can place without moving anything."""
    x, indices = n.input(0), n.known(1)
    axis = normal_axis(n.attribute("axis", 0), x.type.rank)
    if indices is None or indices.size != 1 or n.known(0) is not None or not x.type.is_static:
        return dynamic.settled(n, n.emit(tensor.Gather, x, index_operand(n, 1, x.type.shape[axis]), axis=axis))
    shape = list(n.shape())
    index = int(indices.item())
    if not -shape[axis] <= index < shape[axis]:
        raise Malformed(f"index {index} is out of range for {shape[axis]} elements")
    starts, sizes = [0] * len(shape), list(shape)
    starts[axis], sizes[axis] = index % shape[axis], 1
    cut = x if sizes == shape else n.emit(tensor.Slice, x, starts=starts, sizes=sizes)
    return dynamic.settled(n, reshape(n, cut, (*shape[:axis], *indices.shape, *shape[axis + 1 :])))


def index_operand(n: Node, position: int, size: int | None = None) -> Value:
    """An index operand, in an element type our gathers take. Raises Malformed for known ones that are not among `size`
    elements."""
    value, known = n.input(position), n.known(position)
    if size is not None and known is not None and not ((known >= -size) & (known < size)).all():
        raise Malformed(f"its indices, from {known.min()} to {known.max()}, are not all among {size} elements")
    return value if value.type.dtype in tensor.INDEX else n.emit(math.Cast, value, to=DType.I64)


@converter("GatherElements")
def gather_elements(n: Node) -> Value:
    x, axis = n.input(0), n.attribute("axis", 0)
    size = x.type.shape[normal_axis(axis, x.type.rank)]
    return n.emit(tensor.GatherElements, x, index_operand(n, 1, size), axis=axis)


@converter("GatherND")
def gather_nd(n: Node) -> Value:
    return n.emit(tensor.GatherNd, n.input(0), index_operand(n, 1), batch_dims=n.attribute("batch_dims", 0))


@converter("ScatterND")
def scatter_nd(n: Node) -> Value:
    reduction = n.attribute("reduction", "none")
    return n.emit(tensor.ScatterNd, n.input(0), index_operand(n, 1), n.input(2), reduction=reduction)


@converter("Scatter", "ScatterElements")
def scatter_elements(n: Node) -> Value:
    return n.emit(
        tensor.ScatterElements, n.input(0), index_operand(n, 1), n.input(2), axis=n.attribute("axis", 0),
        reduction=n.attribute("reduction", "none"),
    )  # fmt: skip


@converter("OneHot")
def one_hot(n: Node) -> Value:
    depth, values = int(n.array(1, "depth").item()), n.array(2, "the two values")
    off, on = (float(v) for v in values.reshape(-1))
    return n.emit(
        tensor.OneHot, n.input(0), depth=depth, axis=n.attribute("axis", -1), on=on, off=off, to=DType.of(values.dtype)
    )


@converter("Hardmax")
def flattening_hardmax(n: Node) -> Value:
    """Before opset 13 the axes from `axis` on count as one."""
    shape = n.shape()
    axis = n.attribute("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    flat = reshape(n, n.input(0), (prod(shape[:axis]), prod(shape[axis:])))
    return reshape(n, _largest_marked(n, flat, 1), shape)


@converter("Hardmax", since=13)
def hardmax(n: Node) -> Value:
    return _largest_marked(n, n.input(0), normal_axis(n.attribute("axis", -1), len(n.shape())))


def _largest_marked(n: Node, x: Value, axis: int) -> Value:
    """1 at the first maximum along an axis, 0 elsewhere."""
    largest = n.emit(ArgMax, x, axis=axis, keepdims=False)
    return n.emit(tensor.OneHot, largest, depth=x.type.static_shape[axis], axis=axis, to=x.type.dtype)


@converter("ReverseSequence")
def reverse_sequence(n: Node) -> Value:
    """Known lengths make it a gather over time and batch together."""
    x, lengths = n.input(0), n.ints(1, "sequence_lens")
    time, batch = n.attribute("time_axis", 0), n.attribute("batch_axis", 1)
    if {time, batch} != {0, 1}:
        raise Malformed(f"time and batch must be axes 0 and 1, not {time} and {batch}")
    shape = n.shape()
    n.room_for(shape[0] * shape[1], "places")
    order = np.arange(shape[0] * shape[1]).reshape(shape[:2])
    for row, length in zip(order.T if time == 0 else order, lengths, strict=True):
        row[:length] = row[:length][::-1].copy()
    flat = reshape(n, x, (shape[0] * shape[1], *shape[2:]))
    return reshape(n, n.emit(tensor.Gather, flat, n.constant(order.reshape(-1), DType.I64)), shape)


@converter("TopK")
def top_k(n: Node) -> list[Value]:
    n.ignore("sorted")
    axis = normal_axis(n.attribute("axis", -1), n.input(0).type.rank)
    if n.optional(1) is not None and n.known(1) is None:
        largest = bool(n.attribute("largest", 1))
        return n.emit_all(selection.TopKAs, n.input(0), dynamic.vector(n, 1), axis=axis, largest=largest)
    count = n.attribute("k") if n.optional(1) is None else int(n.array(1, "k").item())
    return n.emit_all(tensor.TopK, n.input(0), k=count, axis=axis, largest=bool(n.attribute("largest", 1)))


RUNNING: dict[str, type[Op]] = {"CumSum": tensor.CumSum, "CumProd": tensor.CumProd}


@converter(*RUNNING)
def running_total(n: Node) -> Value:
    return n.emit(
        RUNNING[n.proto.op_type], n.input(0), axis=int(n.array(1, "the axis").item()),
        exclusive=bool(n.attribute("exclusive", 0)), reverse=bool(n.attribute("reverse", 0)),
    )  # fmt: skip


@converter("Trilu")
def trilu(n: Node) -> Value:
    diagonal = 0 if n.optional(1) is None else int(n.array(1, "the diagonal").item())
    return n.emit(tensor.Trilu, n.input(0), upper=bool(n.attribute("upper", 1)), k=diagonal)


@converter("TensorScatter", since=24)
def tensor_scatter(n: Node) -> Value:
    """An update written into a cache from a place of each batch row on; circular ones wrap round."""
    cache, update = n.input(0), n.input(1)
    shape, axis = update.type.static_shape, normal_axis(n.attribute("axis", -2), cache.type.rank)
    along = [1] * len(shape)
    along[axis] = shape[axis]
    n.room_for(shape[axis], "places")
    places: Value = n.constant(np.arange(shape[axis]).reshape(along), DType.I64)
    if n.optional(2) is not None:
        first = reshape(n, n.emit(math.Cast, n.input(2), to=DType.I64), (shape[0], *[1] * (len(shape) - 1)))
        places = n.emit(math.Add, first, places)
    if n.attribute("mode", "linear") == "circular":
        places = n.emit(math.Mod, places, n.constant(cache.type.static_shape[axis], DType.I64))
    return n.emit(tensor.ScatterElements, cache, n.emit(tensor.BroadcastTo, places, shape=shape), update, axis=axis)
