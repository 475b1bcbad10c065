"""Converters of resampling: the three generations of Upsample and Resize."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Any

import numpy as np

from compiler.evaluate.resize import KERNELS, NEAREST
from compiler.frontend.common.emitter import normal_axis
from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.registry import converter
from compiler.frontend.records import Malformed
from compiler.ir.core import Constant, Value
from compiler.ir.types import DType
from compiler.ops import math, nn, tensor

LEGACY = {"coordinate_mode": "asymmetric", "nearest_mode": "floor"}
"""How Upsample and Resize-10 read coordinates."""


def _resized(size: float, scale: float) -> int:
    """Elements of an axis by its factor, multiplied in f32 as factors are stored: 10 by 0.7 gives 7."""
    return floor(np.float32(size) * np.float32(scale))


def _resampled(n: Node, x: Value, **attributes: Any) -> Value:
    """nn.resize; between integers it is done in reals, whose fractions are dropped."""
    if x.type.dtype.is_float or attributes.get("mode", "nearest") == "nearest":
        return n.emit(nn.Resize, x, **attributes)
    y = n.emit(nn.Resize, n.emit(math.Cast, x, to=DType.F32), **attributes)
    limits = np.iinfo(x.type.dtype.numpy)
    return n.emit(math.Cast, n.emit(math.Clip, y, low=float(limits.min), high=float(limits.max)), to=x.type.dtype)


def _by_scales(n: Node, x: Value, scales: Sequence[float], **attributes: Any) -> Value:
    shape = x.type.static_shape
    if len(scales) != len(shape):
        raise Malformed(f"{len(scales)} scales for an input of rank {len(shape)}")
    sizes = [_resized(d, s) for d, s in zip(shape, scales, strict=True)]
    return _resampled(n, x, sizes=sizes, scales=tuple(scales), **attributes)


def _legacy_mode(n: Node) -> str:
    mode = n.attribute("mode", "nearest")
    return "linear" if mode == "bilinear" else mode


@converter("Upsample")
def upsample_by_attribute(n: Node) -> Value:
    if n.opset < 7:
        factors = (1.0, 1.0, n.required("height_scale"), n.required("width_scale"))
        return _by_scales(n, n.input(0), factors, mode=_legacy_mode(n), **LEGACY)
    return _by_scales(n, n.input(0), n.required("scales"), mode=_legacy_mode(n), **LEGACY)


@converter("Upsample", since=9)
def upsample_by_input(n: Node) -> Value:
    return _by_scales(n, n.input(0), [float(s) for s in n.array(1, "scales")], mode=_legacy_mode(n), **LEGACY)


@converter("Resize", since=10)
def resize_by_input(n: Node) -> Value:
    """The nearest element of a smaller picture is the next one up, as ONNX's cases of Resize-10 have it."""
    scales, mode = [float(s) for s in n.array(1, "scales")], _legacy_mode(n)
    if mode != "nearest" or min(scales, default=1.0) >= 1:
        return _by_scales(n, n.input(0), scales, mode=mode, **LEGACY)
    smaller = _by_scales(n, n.input(0), [min(s, 1.0) for s in scales], **{**LEGACY, "nearest_mode": "ceil"})
    return _by_scales(n, smaller, [max(s, 1.0) for s in scales], **LEGACY)


@converter("Resize", since=11)
def resize(n: Node) -> Value:
    coordinate_mode = n.attribute("coordinate_transformation_mode", "half_pixel")
    if coordinate_mode == "tf_crop_and_resize":
        return _crop_and_resize(n)
    n.ignore(1, "extrapolation_value")  # both matter to tf_crop_and_resize only
    attributes = {
        "mode": n.attribute("mode", "nearest"), "coordinate_mode": coordinate_mode,
        "nearest_mode": n.attribute("nearest_mode", "round_prefer_floor"),
        "cubic_a": n.attribute("cubic_coeff_a", -0.75), "exclude_outside": bool(n.attribute("exclude_outside", 0)),
        "antialias": bool(n.attribute("antialias", 0)),
    }  # fmt: skip
    rank = len(n.shape())
    axes = [normal_axis(a, rank) for a in n.attribute("axes", tuple(range(rank)))]
    policy = n.attribute("keep_aspect_ratio_policy", "stretch")
    if n.optional(3) is not None and n.ints(3, "sizes"):
        n.ignore(2)
        sizes = list(n.shape())
        for axis, size in zip(axes, n.ints(3, "sizes"), strict=True):
            sizes[axis] = size
        return _by_sizes(n, sizes, axes, policy, **attributes)
    scales = [1.0] * rank
    for axis, scale in zip(axes, n.array(2, "scales").reshape(-1), strict=True):
        scales[axis] = float(scale)
    return _by_scales(n, n.input(0), scales, **attributes)


def _by_sizes(n: Node, sizes: list[int], axes: Sequence[int], policy: str, **attributes: Any) -> Value:
    if policy == "stretch":
        return _resampled(n, n.input(0), sizes=sizes, **attributes)
    shape = n.shape()
    choose = min if policy == "not_larger" else max
    scale = choose(sizes[a] / shape[a] for a in axes)
    scales = [1.0] * len(shape)
    for axis in axes:
        sizes[axis], scales[axis] = floor(shape[axis] * scale + 0.5), scale
    return _resampled(n, n.input(0), sizes=sizes, scales=tuple(scales), **attributes)


def _crop_and_resize(n: Node) -> Value:
    """A known region, resampled: along every axis that changes a product with a known matrix of weights."""
    x, shape = n.input(0), n.shape()
    mode, outside = n.attribute("mode", "nearest"), n.attribute("extrapolation_value", 0.0)
    nearest, slope = n.attribute("nearest_mode", "round_prefer_floor"), n.attribute("cubic_coeff_a", -0.75)
    n.ignore("exclude_outside", "keep_aspect_ratio_policy", "antialias")
    axes = [normal_axis(a, len(shape)) for a in n.attribute("axes", tuple(range(len(shape))))]
    regions = n.array(1, "the region").reshape(2, -1)
    by_size = n.optional(3) is not None and bool(n.ints(3, "sizes"))
    given = [float(v) for v in (n.ints(3, "sizes") if by_size else n.array(2, "scales").reshape(-1))]
    n.ignore(2)
    covered: Value = n.constant(np.ones((), bool))
    for axis, start, end, size in zip(axes, *regions, given, strict=True):
        count = int(size) if by_size else _resized(shape[axis] * (end - start), size)
        if count < 1:
            raise Malformed(f"axis {axis} is resized to {count} elements")
        n.room_for(count * shape[axis], "weights")
        steps = (end - start) * (shape[axis] - 1) / max(count - 1, 1)
        places = start * (shape[axis] - 1) + np.arange(count) * steps
        if count == 1:
            places = np.array([0.5 * (start + end) * (shape[axis] - 1)])
        inside = (places >= 0) & (places <= shape[axis] - 1)
        weights = _weights(places, shape[axis], mode, nearest, slope)
        x = _weighted(n, x, axis, weights)
        along = [1] * len(shape)
        along[axis] = count
        covered = n.emit(math.And, covered, n.constant(inside.reshape(along)))
    if isinstance(covered, Constant) and covered.data.all():
        return x
    return n.emit(math.Where, covered, x, n.scalar_like(outside, x))


def _weights(places: np.ndarray, size: int, mode: str, nearest: str, slope: float) -> np.ndarray:
    """[outputs, inputs] of an axis, places counted in input elements; the border repeats."""
    if mode == "nearest":
        taps, factors = NEAREST[nearest](places)[:, None], np.ones((len(places), 1))
    else:
        kernel, radius = KERNELS[mode]
        taps = np.floor(places)[:, None] + np.arange(1 - radius, radius + 1)
        factors = kernel(np.abs(places[:, None] - taps), slope)
    matrix = np.zeros((len(places), size))
    rows = np.broadcast_to(np.arange(len(places))[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, size - 1).astype(np.int64)), factors)
    return matrix


def _weighted(n: Node, x: Value, axis: int, weights: np.ndarray) -> Value:
    """x along one axis by a matrix."""
    if weights.shape[0] == weights.shape[1] and (weights == np.eye(len(weights))).all():
        return x
    order = [i for i in range(x.type.rank) if i != axis] + [axis]
    moved = n.emit(tensor.Transpose, x, perm=order)
    y = n.emit(nn.MatMul, moved, n.constant(weights.T, x.type.dtype))
    return n.emit(tensor.Transpose, y, perm=np.argsort(order).tolist())
