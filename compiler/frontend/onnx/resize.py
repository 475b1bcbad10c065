"""Converters of resampling: the three generations of Upsample and Resize."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

from compiler.frontend.common.emitter import normal_axis
from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.registry import converter
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Value
from compiler.ops import nn

LEGACY = {"coordinate_mode": "asymmetric", "nearest_mode": "floor"}
"""How Upsample and Resize-10 read coordinates."""


def _by_scales(n: Node, scales: Sequence[float], **attributes: object) -> Value:
    shape = n.shape()
    if len(scales) != len(shape):
        raise Malformed(f"{len(scales)} scales for an input of rank {len(shape)}")
    sizes = [floor(d * s) for d, s in zip(shape, scales, strict=True)]
    return n.emit(nn.Resize, n.input(0), sizes=sizes, scales=tuple(scales), **attributes)


def _legacy_mode(n: Node) -> str:
    mode = n.attribute("mode", "nearest")
    return "linear" if mode == "bilinear" else mode


@converter("Upsample")
def upsample_by_attribute(n: Node) -> Value:
    return _by_scales(n, n.required("scales"), mode=_legacy_mode(n), **LEGACY)


@converter("Upsample", since=9)
@converter("Resize", since=10)
def upsample_by_input(n: Node) -> Value:
    scales = [float(s) for s in n.array(1, "scales")]
    return _by_scales(n, scales, mode=_legacy_mode(n), **LEGACY)


@converter("Resize", since=11)
def resize(n: Node) -> Value:
    n.ignore(1, "extrapolation_value")  # both matter to tf_crop_and_resize only
    coordinate_mode = n.attribute("coordinate_transformation_mode", "half_pixel")
    if coordinate_mode == "tf_crop_and_resize":
        raise Unsupported("crops and resizes (tf_crop_and_resize)", "crop with Slice, then resize")
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
    return _by_scales(n, scales, **attributes)


def _by_sizes(n: Node, sizes: list[int], axes: Sequence[int], policy: str, **attributes: object) -> Value:
    if policy == "stretch":
        return n.emit(nn.Resize, n.input(0), sizes=sizes, **attributes)
    shape = n.shape()
    choose = min if policy == "not_larger" else max
    scale = choose(sizes[a] / shape[a] for a in axes)
    scales = [1.0] * len(shape)
    for axis in axes:
        sizes[axis], scales[axis] = floor(shape[axis] * scale + 0.5), scale
    return n.emit(nn.Resize, n.input(0), sizes=sizes, scales=tuple(scales), **attributes)
