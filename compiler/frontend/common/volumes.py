"""Convolutions and poolings over three spatial axes, by two-dimensional ones: the chip has no others.

A convolution gathers the slices of depth a window spans as channels, so that one two-dimensional convolution sums them
all; a pooling is one over the plane, then one over depth.
"""

from __future__ import annotations

from typing import Any

from compiler.frontend.common.emitter import Emitter, cut, reshape
from compiler.frontend.common.windows import Window
from compiler.ir.core import Value
from compiler.ops import math, nn, tensor

DEPTH = 2
"""The axis of depth of [n, c, d, h, w]."""


def plane(window: Window) -> dict[str, Any]:
    """strides, dilations and pads of a window's last two axes."""
    return {
        "strides": window.strides[1:], "dilations": window.dilations[1:],
        "pads": (*window.before[1:], *window.after[1:]),
    }  # fmt: skip


def padded(e: Emitter, x: Value, axis: int, before: int, after: int) -> Value:
    """x with zeros added along one axis."""
    if not before and not after:
        return x
    pads = [0] * (2 * x.type.rank)
    pads[axis], pads[x.type.rank + axis] = before, after
    return e.emit(tensor.Pad, x, pads=pads)


def conv3d(e: Emitter, x: Value, w: Value, bias: Value | None, window: Window, groups: int) -> Value:
    """x [n, ci, d, h, w] and weights [co, ci/groups, kd, kh, kw]."""
    x = padded(e, x, DEPTH, window.before[0], window.after[0])
    n, channels, depth, height, width = x.type.static_shape
    co, inner, kd, kh, kw = w.type.static_shape
    count = (depth - window.extent[0]) // window.strides[0] + 1
    taps = [cut(e, x, DEPTH, k * window.dilations[0], count, window.strides[0]) for k in range(kd)]
    lifted = [reshape(e, t, (n, channels, 1, count, height, width)) for t in taps]
    stacked = lifted[0] if kd == 1 else e.emit(tensor.Concat, *lifted, axis=2)
    images = e.emit(tensor.Transpose, stacked, perm=(0, 3, 1, 2, 4, 5))
    y = e.emit(
        nn.Conv2d, reshape(e, images, (n * count, channels * kd, height, width)),
        reshape(e, w, (co, inner * kd, kh, kw)), bias, groups=groups, **plane(window),
    )  # fmt: skip
    return _volume(e, y, n, count)


def _volume(e: Emitter, y: Value, n: int, depth: int) -> Value:
    """[n*d, c, h, w] as [n, c, d, h, w]."""
    _, channels, height, width = y.type.static_shape
    apart = reshape(e, y, (n, depth, channels, height, width))
    return e.emit(tensor.Transpose, apart, perm=(0, 2, 1, 3, 4))


def conv_transpose3d(
    e: Emitter, x: Value, w: Value, bias: Value | None, window: Window, groups: int, extra: tuple[int, ...]
) -> Value:
    """x [n, ci, d, h, w] and weights [ci, co/groups, kd, kh, kw]; every tap of depth lands on its own slices."""
    n, channels, depth, height, width = x.type.static_shape
    ci, inner, kd, kh, kw = w.type.static_shape
    images = reshape(e, e.emit(tensor.Transpose, x, perm=(0, 2, 1, 3, 4)), (n * depth, channels, height, width))
    y = e.emit(
        nn.ConvTranspose2d, images, reshape(e, w, (ci, inner * kd, kh, kw)), groups=groups, output_pads=extra[1:],
        **plane(window),
    )  # fmt: skip
    _, _, oh, ow = y.type.static_shape
    spread = e.emit(tensor.Transpose, reshape(e, y, (n, depth, inner * groups, kd, oh, ow)), perm=(0, 2, 3, 1, 4, 5))
    stride, dilation = window.strides[0], window.dilations[0]
    total: Value | None = None
    full = (depth - 1) * stride + (kd - 1) * dilation + 1
    for k in range(kd):
        part = reshape(e, cut(e, spread, 2, k, 1), (n, inner * groups, depth, 1, oh, ow))
        part = reshape(e, padded(e, part, 3, 0, stride - 1), (n, inner * groups, depth * stride, oh, ow))
        part = cut(e, part, DEPTH, 0, (depth - 1) * stride + 1)
        part = padded(e, part, DEPTH, k * dilation, full - (depth - 1) * stride - 1 - k * dilation)
        total = part if total is None else e.emit(math.Add, total, part)
    assert total is not None
    total = padded(e, total, DEPTH, 0, extra[0])
    total = cut(e, total, DEPTH, window.before[0], full + extra[0] - window.before[0] - window.after[0])
    if bias is None:
        return total
    return e.emit(math.Add, total, reshape(e, bias, (1, bias.type.static_shape[0], 1, 1, 1)))


def max_pool3d(e: Emitter, x: Value, window: Window) -> Value:
    """Maximum over the plane, then over depth."""
    return _in_two_steps(e, x, window, nn.MaxPool2d, {}, {})


def avg_pool3d(e: Emitter, x: Value, window: Window, count_include_pad: bool, excess: list[int]) -> Value:
    """Mean over the plane, then over depth: the number of elements counted is a product of the two."""
    shared = {"count_include_pad": count_include_pad}
    inside, across = {**shared, "extra_pads": tuple(excess[1:])}, {**shared, "extra_pads": (excess[0], 0)}
    return _in_two_steps(e, x, window, nn.AvgPool2d, inside, across)


def _in_two_steps(
    e: Emitter, x: Value, window: Window, op_class: type, inside: dict[str, Any], across: dict[str, Any]
) -> Value:
    n, channels, depth, height, width = x.type.static_shape
    y = e.emit(
        op_class, reshape(e, x, (n, channels * depth, height, width)), kernel=window.kernel[1:], **plane(window),
        **inside,
    )  # fmt: skip
    _, _, oh, ow = y.type.static_shape
    y = e.emit(
        op_class, reshape(e, y, (n, channels, depth, oh * ow)), kernel=(window.kernel[0], 1),
        strides=(window.strides[0], 1), dilations=(window.dilations[0], 1),
        pads=(window.before[0], 0, window.after[0], 0), **across,
    )  # fmt: skip
    return reshape(e, y, (n, channels, y.type.static_shape[2], oh, ow))
