"""Converters of poolings over one, two or three spatial axes, of their indices and of what undoes them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from compiler.frontend.common.emitter import reshape, with_height, without_height
from compiler.frontend.common.volumes import avg_pool3d, max_pool3d
from compiler.frontend.common.windows import Window
from compiler.frontend.onnx.conv import auto_pad, declared_window, read_window
from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.registry import converter
from compiler.ir.core import Value
from compiler.ir.types import DType
from compiler.ops import math, nn, reduce, tensor


def _fit_windows(n: Node, window: Window, spatial: Sequence[int]) -> list[int]:
    """Elements to add after each axis, beyond the pads, so that ceil mode's last window fits."""
    if not n.attribute("ceil_mode", 0) or auto_pad(n) != "NOTSET":
        return [0] * len(spatial)
    return window.ceil_mode_excess(spatial)


def _fitted_window(n: Node, spatial: Sequence[int]) -> Window:
    """The node's window, ceil mode resolved into pads."""
    window = read_window(n, n.required("kernel_shape"), spatial)
    added = _fit_windows(n, window, spatial)
    window.after = [a + b for a, b in zip(window.after, added, strict=True)]
    return window


# -- maximum -----------------------------------------------------------------------------------------------------------
@converter("MaxPool")
def max_pool(n: Node) -> list[Value | None]:
    n.ignore("storage_order")
    x = n.input(0)
    window = _fitted_window(n, x.type.static_shape[2:])
    if n.has_output(1):
        return list(_with_indices(n, x, window))
    if x.type.rank == 5:
        return [max_pool3d(n, x, window)]
    y = n.emit(nn.MaxPool2d, with_height(n, x), kernel=window.kernel2d, **window.attributes())
    return [without_height(n, y, x)]


def _with_indices(n: Node, x: Value, window: Window) -> tuple[Value, Value]:
    """Windows gathered side by side by known places: their maxima, and which elements of x those are."""
    shape, spatial = x.type.static_shape, x.type.static_shape[2:]
    counts = [
        (size + window.before[i] + window.after[i] - window.extent[i]) // window.strides[i] + 1
        for i, size in enumerate(spatial)
    ]
    taps = [
        np.arange(counts[i])[:, None] * window.strides[i] + np.arange(window.kernel[i]) * window.dilations[i]
        - window.before[i] for i in range(len(spatial))
    ]  # fmt: skip
    n.room_for(prod(counts) * prod(window.kernel) * prod(shape[:2]), "places")
    places, column_major = _places(taps, spatial)
    outside = prod(spatial)
    wide = x if x.type.dtype.is_float else n.emit(math.Cast, x, to=DType.I32)  # where nothing is as little as a pad
    flat = n.emit(
        tensor.Pad, reshape(n, wide, (*shape[:2], outside)), pads=(0, 0, 0, 0, 0, 1), value=_least(wide.type.dtype)
    )
    windows = n.emit(tensor.Gather, flat, n.constant(places, DType.I64), axis=2)
    best = n.emit(reduce.ArgMax, windows, axis=3, keepdims=True)
    y = n.emit(tensor.GatherElements, windows, best, axis=3)
    order = column_major if n.attribute("storage_order", 0) else places
    table = n.constant(np.broadcast_to(order, (*shape[:2], *order.shape)), DType.I64)
    within = n.emit(tensor.GatherElements, table, best, axis=3)
    first = np.arange(shape[0] * shape[1]).reshape(*shape[:2], 1, 1) * outside
    indices = n.emit(math.Add, within, n.constant(first, DType.I64))
    result = (*shape[:2], *counts)
    y = y if wide is x else n.emit(math.Cast, y, to=x.type.dtype)
    return reshape(n, y, result), reshape(n, indices, result)


def _places(taps: Sequence[np.ndarray], spatial: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """[windows, taps] row-major places in an image, and the same counted column by column; one past the end for pads.
    """
    rank = len(spatial)
    grids = [
        t.reshape([t.shape[0] if a == i else t.shape[1] if a == rank + i else 1 for a in range(2 * rank)])
        for i, t in enumerate(taps)
    ]
    shape = np.broadcast_shapes(*(g.shape for g in grids))
    inside = np.ones(shape, bool)
    rows, columns = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for i, (grid, size) in enumerate(zip(grids, spatial, strict=True)):
        inside &= (grid >= 0) & (grid < size)
        rows = rows + grid * prod(spatial[i + 1 :])
        columns = columns + grid * prod(spatial[:i])
    flat = (prod(shape[:rank]), prod(shape[rank:]))
    return tuple(np.where(inside, p, prod(spatial)).reshape(flat) for p in (rows, columns))  # type: ignore[return-value]


def _least(dtype: DType) -> float:
    return -np.inf if dtype.is_float else float(np.iinfo(dtype.numpy).min)


@converter("GlobalMaxPool")
def global_max_pool(n: Node) -> Value:
    return _global_pool(n, nn.GlobalMaxPool, reduce.Max)


@converter("MaxUnpool")
def max_unpool(n: Node) -> Value:
    """Elements put back where the indices say they came from, zeros elsewhere."""
    x, indices = n.input(0), n.input(1)
    kernel = n.required("kernel_shape")
    spatial = x.type.static_shape[2:]
    window = declared_window(n, kernel, len(spatial))
    lost = [before + after for before, after in zip(window.before, window.after, strict=True)]
    sizes = [(size - 1) * window.strides[i] + kernel[i] - lost[i] for i, size in enumerate(spatial)]
    shape = (*x.type.static_shape[:2], *sizes)
    count = prod(spatial) * prod(shape[:2])
    empty = n.emit(tensor.BroadcastTo, n.scalar_like(0, x), shape=(prod(shape),))
    flat = n.emit(
        tensor.ScatterElements, empty, reshape(n, indices, (count,)), reshape(n, x, (count,)), axis=0
    )  # fmt: skip
    y = reshape(n, flat, shape)
    wanted = n.optional_ints(2, "the output's shape")
    if wanted is None or wanted == shape:
        return y
    return n.emit(tensor.Pad, y, pads=(*[0] * len(shape), *(w - d for w, d in zip(wanted, shape, strict=True))))


# -- means -------------------------------------------------------------------------------------------------------------
@converter("AveragePool")
def average_pool(n: Node) -> Value:
    return average_pool_of(n, n.input(0))


def average_pool_of(n: Node, x: Value) -> Value:
    """The node's pooling, applied to x."""
    spatial = x.type.static_shape[2:]
    window = read_window(n, n.required("kernel_shape"), spatial)
    added = _fit_windows(n, window, spatial)
    return _mean(n, x, window, added, bool(n.attribute("count_include_pad", 0)))


def _mean(n: Node, x: Value, window: Window, excess: list[int], count_include_pad: bool) -> Value:
    if x.type.rank == 5:
        return avg_pool3d(n, x, window, count_include_pad, excess)
    extra = (0, *excess) if len(excess) == 1 else tuple(excess)
    y = n.emit(
        nn.AvgPool2d, with_height(n, x), kernel=window.kernel2d, extra_pads=extra, count_include_pad=count_include_pad,
        **window.attributes(),
    )  # fmt: skip
    return without_height(n, y, x)


@converter("LpPool")
def lp_pool(n: Node) -> Value:
    """(sum of |x|^p)^(1/p), the sum being a mean of zero-padded windows times their size."""
    order, x = n.attribute("p", 2), n.input(0)
    window = _fitted_window(n, x.type.static_shape[2:])
    powers = n.emit(math.Mul, x, x) if order == 2 else n.emit(math.Abs, x)
    if order not in (1, 2):
        powers = n.emit(math.Pow, powers, n.scalar_like(order, x))
    powers = n.emit(tensor.Pad, powers, pads=(0, 0, *window.before, 0, 0, *window.after))
    count = prod(window.kernel)
    window.before, window.after = [0] * len(window.before), [0] * len(window.after)
    mean = _mean(n, powers, window, [0] * len(window.kernel), True)
    total = n.emit(math.Mul, mean, n.scalar_like(count, mean))
    if order == 1:
        return total
    if order == 2:
        return n.emit(math.Sqrt, total)
    return n.emit(math.Pow, total, n.scalar_like(1 / order, total))


def _global_pool(n: Node, op_class: type[nn.GlobalAvgPool] | type[nn.GlobalMaxPool], reduction: type) -> Value:
    x = n.input(0)
    if x.type.rank == 4:
        return n.emit(op_class, x)
    return n.emit(reduction, x, axes=tuple(range(2, x.type.rank)), keepdims=True)


@converter("GlobalAveragePool")
def global_average_pool(n: Node) -> Value:
    return _global_pool(n, nn.GlobalAvgPool, reduce.Mean)


@converter("GlobalLpPool")
def global_lp_pool(n: Node) -> Value:
    x, order = n.input(0), n.attribute("p", 2)
    axes = tuple(range(2, x.type.rank))
    if order in (1, 2):
        return n.emit(reduce.L1 if order == 1 else reduce.L2, x, axes=axes)
    powers = n.emit(math.Pow, n.emit(math.Abs, x), n.scalar_like(order, x))
    return n.emit(math.Pow, n.emit(reduce.Sum, powers, axes=axes), n.scalar_like(1 / order, x))
