"""Rows of convolutions, transposed ones included. One-dimensional ones become two-dimensional with a height of 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.registry import aten
from compiler.frontend.common.emitter import with_height, without_height
from compiler.frontend.common.volumes import conv3d, conv_transpose3d
from compiler.frontend.common.windows import Window
from compiler.frontend.records import Malformed
from compiler.ir.core import Value
from compiler.ops import nn


def per_axis(c: Call, value: Any, count: int, what: str) -> tuple[int, ...]:
    """torch's list of one entry per spatial axis, where one number stands for all."""
    found = c.integers(value, what)
    found = found * count if len(found) == 1 else found
    if len(found) != count:
        raise Malformed(f"{what} has {len(found)} entries for {count} spatial dimensions")
    return found


def spatial_rank(weight: Value) -> int:
    count = weight.type.rank - 2
    if count not in (1, 2, 3):
        raise Malformed(f"its weight has rank {weight.type.rank}")
    return count


def batched(c: Call, x: Value, rank: int) -> Value:
    """x with a batch axis of 1 where torch was given a single image."""
    return c.reshape(x, (1, *x.type.static_shape)) if x.type.rank == rank - 1 else x


def unbatched(c: Call, y: Value, like: Value) -> Value:
    return c.reshape(y, y.type.static_shape[1:]) if y.type.rank == like.type.rank + 1 else y


def window_of(c: Call, w: Value, stride: Any, padding: Any, dilation: Any) -> Window:
    count = spatial_rank(w)
    pads = per_axis(c, padding, count, "the padding")
    strides, dilations = per_axis(c, stride, count, "the stride"), per_axis(c, dilation, count, "the dilation")
    return Window(w.type.static_shape[2:], strides, dilations, list(pads), list(pads))


def convolve(c: Call, x: Value, w: Value, bias: Any, window: Window, groups: int) -> Value:
    image = batched(c, x, w.type.rank)
    if w.type.rank == 5:
        return unbatched(c, conv3d(c, image, w, bias, window, groups), x)
    operands = with_height(c, image), with_height(c, w), bias
    y = c.emit(nn.Conv2d, *operands, groups=groups, **window.attributes())
    return unbatched(c, without_height(c, y, image), x)


@aten("aten::conv1d", "aten::conv2d", "aten::conv3d")
def conv(
    c: Call, input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Any:  # fmt: skip
    """`padding` may be "same" or "valid", as in the string overloads."""
    x, w = c.tensor(input), c.tensor(weight, "its weight")
    if not isinstance(padding, str):
        return convolve(c, x, w, bias, window_of(c, w, stride, padding, dilation), groups)
    window = window_of(c, w, stride, 0, dilation)
    if padding == "same":
        _pad_for_same(window)
    elif padding != "valid":
        raise Malformed(f"padding is {padding!r}")
    return convolve(c, x, w, bias, window, groups)


def _pad_for_same(window: Window) -> None:
    """torch allows it with stride 1 only; an odd element goes to the end."""
    if any(s != 1 for s in window.strides):
        raise Malformed("padding 'same' with a stride")
    window.before = [(e - 1) // 2 for e in window.extent]
    window.after = [e - 1 - b for e, b in zip(window.extent, window.before, strict=True)]


@aten("aten::_convolution_mode")
def convolution_mode(
    c: Call, input: Any, weight: Any, bias: Any, stride: Any, padding: str, dilation: Any, groups: int
) -> Any:
    return conv(c, input, weight, bias, stride, padding, dilation, groups)


@aten("aten::_convolution", "aten::convolution")
def convolution(
    c: Call, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int, *flags: Any, **more: Any,
) -> Any:  # fmt: skip
    if transposed:
        return conv_transpose(c, input, weight, bias, stride, padding, output_padding, groups, dilation)
    return conv(c, input, weight, bias, stride, padding, dilation, groups)


@aten("aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d")
def conv_transpose(
    c: Call, input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    x, w = c.tensor(input), c.tensor(weight, "its weight")
    window = window_of(c, w, stride, padding, dilation)
    extra: Sequence[int] = per_axis(c, output_padding, len(window.kernel), "the output padding")
    image = batched(c, x, w.type.rank)
    if w.type.rank == 5:
        return unbatched(c, conv_transpose3d(c, image, w, bias, window, groups, tuple(extra)), x)
    y = c.emit(
        nn.ConvTranspose2d, with_height(c, image), with_height(c, w), bias, groups=groups,
        output_pads=(0, *extra) if len(extra) == 1 else extra, **window.attributes(),
    )  # fmt: skip
    return unbatched(c, without_height(c, y, image), x)
