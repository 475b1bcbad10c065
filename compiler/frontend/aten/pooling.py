"""Rows of windowed, global and adaptive pooling."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.convolution import batched, per_axis, unbatched
from compiler.frontend.aten.registry import aten
from compiler.frontend.common.emitter import with_height, without_height
from compiler.frontend.common.volumes import avg_pool3d, max_pool3d
from compiler.frontend.common.windows import Window
from compiler.frontend.records import Unsupported
from compiler.ir.core import Op, Value
from compiler.ir.types import DType
from compiler.ops import math, nn, reduce, tensor


def _dimensions(c: Call) -> int:
    """Spatial axes by the operator's name: `max_pool2d` has 2."""
    return int(next(ch for ch in c.name.partition("pool")[2] if ch.isdigit()))


def _window(c: Call, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Window:
    count = _dimensions(c)
    sizes = per_axis(c, kernel, count, "the kernel size")
    given = stride is not None and (not isinstance(stride, list | tuple) or len(stride))
    strides = per_axis(c, stride, count, "the stride") if given else sizes
    pads = per_axis(c, padding, count, "the padding")
    return Window(sizes, strides, per_axis(c, dilation, count, "the dilation"), list(pads), list(pads))


def _excess(c: Call, window: Window, image: Value, ceil_mode: Any) -> list[int]:
    spatial = image.type.static_shape[2:]
    return window.ceil_mode_excess(spatial) if ceil_mode else [0] * len(spatial)


@aten("aten::max_pool1d", "aten::max_pool2d", "aten::max_pool3d", "quantized::max_pool2d", "quantized::max_pool1d",
      quantised="keep")  # fmt: skip
def max_pool(
    c: Call, self: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: Any = False,
) -> Any:  # fmt: skip
    window = _window(c, kernel_size, stride, padding, dilation)
    image = batched(c, c.tensor(self), len(window.kernel) + 2)
    added = _excess(c, window, image, ceil_mode)
    window.after = [a + b for a, b in zip(window.after, added, strict=True)]
    if image.type.rank == 5:
        return unbatched(c, max_pool3d(c, image, window), self)
    y = c.emit(nn.MaxPool2d, with_height(c, image), kernel=window.kernel2d, **window.attributes())
    return unbatched(c, without_height(c, y, image), self)


@aten("aten::max_pool1d_with_indices", "aten::max_pool2d_with_indices", "aten::max_pool3d_with_indices",
      quantised="keep")  # fmt: skip
def max_pool_with_indices(c: Call, self: Any, *args: Any, **kwargs: Any) -> Any:
    """The indices exist only if nobody asks for them."""
    return max_pool(c, self, *args, **kwargs), None


@aten("aten::avg_pool1d", "aten::avg_pool2d", "aten::avg_pool3d")
def avg_pool(
    c: Call, self: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: Any = False,
    count_include_pad: Any = True, divisor_override: Any = None,
) -> Any:  # fmt: skip
    window = _window(c, kernel_size, stride, padding, 1)
    image = batched(c, c.tensor(self), len(window.kernel) + 2)
    added = _excess(c, window, image, ceil_mode)
    if image.type.rank == 5 and divisor_override is None:
        return unbatched(c, avg_pool3d(c, image, window, bool(count_include_pad), added), self)
    attributes = {"kernel": window.kernel2d, "count_include_pad": bool(count_include_pad), **window.attributes()}
    if divisor_override is not None:
        if any(added):
            raise Unsupported("sets a divisor in ceil mode", "pad the input so that the windows fit")
        attributes["count_include_pad"] = True
    attributes["extra_pads"] = (0, *added) if len(added) == 1 else tuple(added)
    y = c.emit(nn.AvgPool2d, with_height(c, image), **attributes)
    if divisor_override is not None:
        y = c.emit(math.Mul, y, c.scalar_like(np.prod(window.kernel) / divisor_override, y))
    return unbatched(c, without_height(c, y, image), self)


# -- adaptive ----------------------------------------------------------------------------------------------------------
def _wanted(c: Call, x: Value, output_size: Any) -> tuple[int, ...]:
    """Output sizes of the spatial axes; None keeps an axis."""
    count = _dimensions(c)
    spatial = x.type.static_shape[-count:]
    listed = list(output_size) if isinstance(output_size, list | tuple) else [output_size] * count
    listed = listed * count if len(listed) == 1 else listed
    return tuple(
        d if size is None else c.integer(size, "the output size") for d, size in zip(spatial, listed, strict=True)
    )


def _even_window(spatial: tuple[int, ...], wanted: tuple[int, ...]) -> Window | None:
    """The window all outputs share, where there is one."""
    kernel, strides = [], []
    for size, outputs in zip(spatial, wanted, strict=True):
        starts = [i * size // outputs for i in range(outputs)]
        lengths = {-(-(i + 1) * size // outputs) - start for i, start in enumerate(starts)}
        steps = {b - a for a, b in pairwise(starts)}
        if len(lengths) != 1 or len(steps) > 1:
            return None
        kernel.append(lengths.pop())
        strides.append(steps.pop() if steps else 1)
    zeros = [0] * len(spatial)
    return Window(tuple(kernel), tuple(strides), (1,) * len(spatial), zeros, list(zeros))


def _adaptive(c: Call, x: Value, output_size: Any, pool: type[Op], whole: type[Op]) -> Value | None:
    """The pooling as a global or windowed one; None where windows differ."""
    wanted = _wanted(c, x, output_size)
    spatial = x.type.static_shape[-len(wanted) :]
    if len(wanted) == 3 and wanted != spatial:
        return None
    if all(w == 1 for w in wanted):
        image = batched(c, x, len(wanted) + 2)
        y = without_height(c, c.emit(whole, with_height(c, image)), image)
        return unbatched(c, y, x)
    if wanted == spatial:
        return x
    window = _even_window(spatial, wanted)
    if window is None:
        return None
    image = batched(c, x, len(wanted) + 2)
    y = c.emit(pool, with_height(c, image), kernel=window.kernel2d, **window.attributes())
    return unbatched(c, without_height(c, y, image), x)


@aten("aten::adaptive_avg_pool1d", "aten::adaptive_avg_pool2d", "aten::_adaptive_avg_pool2d",
      "aten::adaptive_avg_pool3d", "aten::_adaptive_avg_pool3d")  # fmt: skip
def adaptive_avg_pool(c: Call, self: Any, output_size: Any) -> Any:
    """Windows of different sizes are products with matrices of weights, one per axis."""
    x = c.tensor(self)
    y = _adaptive(c, x, output_size, nn.AvgPool2d, nn.GlobalAvgPool)
    if y is not None:
        return y
    wanted = _wanted(c, x, output_size)
    y = x
    for i, outputs in enumerate(reversed(wanted)):
        shape = y.type.static_shape
        weights = c.constant(_means(shape[-1 - i], outputs), DType.F32)
        lead = c.reshape(y, (*shape[: len(shape) - 1 - i], shape[-1 - i], prod(shape[len(shape) - i :])))
        if i == 0:
            y = c.emit(nn.MatMul, y, weights)
        else:
            y = c.emit(nn.MatMul, c.emit(tensor.Transpose, weights, perm=(1, 0)), lead)
            y = c.reshape(y, (*shape[: len(shape) - 1 - i], outputs, *shape[len(shape) - i :]))
    return y


def _means(size: int, outputs: int) -> np.ndarray:
    """[size, outputs]: each column takes the mean of its window."""
    weights = np.zeros((size, outputs), np.float32)
    for i in range(outputs):
        start, end = i * size // outputs, -(-(i + 1) * size // outputs)
        weights[start:end, i] = 1.0 / (end - start)
    return weights


@aten("aten::adaptive_max_pool1d", "aten::adaptive_max_pool2d", "aten::adaptive_max_pool3d", quantised="keep")
def adaptive_max_pool(c: Call, self: Any, output_size: Any) -> Any:
    """Windows of different sizes are reduced one by one and joined."""
    x = c.tensor(self)
    y = _adaptive(c, x, output_size, nn.MaxPool2d, nn.GlobalMaxPool)
    if y is not None:
        return y, None
    wanted = _wanted(c, x, output_size)
    y = x
    for axis, outputs in enumerate(wanted, start=x.type.rank - len(wanted)):
        y = _windows_joined(c, y, axis, outputs)
    return y, None


def _windows_joined(c: Call, x: Value, axis: int, outputs: int) -> Value:
    shape, parts = x.type.static_shape, []
    for i in range(outputs):
        start, end = i * shape[axis] // outputs, -(-(i + 1) * shape[axis] // outputs)
        starts, sizes = [0] * len(shape), list(shape)
        starts[axis], sizes[axis] = start, end - start
        part = c.emit(tensor.Slice, x, starts=starts, sizes=sizes)
        parts.append(c.emit(reduce.Max, part, axes=(axis,), keepdims=True))
    return c.emit(tensor.Concat, *parts, axis=axis)
