"""Rows of resampling: interpolation to a size or by factors, and sampling along a grid."""

from __future__ import annotations

from math import floor
from typing import Any

import numpy as np

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.registry import aten
from compiler.frontend.records import Malformed
from compiler.ir.core import Value
from compiler.ops import nn, tensor, vision


def resized(c: Call, x: Value, output_size: Any, scales: Any, **attributes: Any) -> Value:
    """x with its spatial axes resampled. torch counts coordinates by a given factor, else by the sizes' quotient."""
    shape = x.type.static_shape
    spatial = shape[2:]
    factors = [None if s is None else float(c.number(s, "a scale factor")) for s in scales]
    if output_size is not None and (not isinstance(output_size, list | tuple) or len(output_size)):
        sizes = list(c.integers(output_size, "the output size"))
    elif all(f is not None for f in factors) and len(factors) == len(spatial):
        sizes = [floor(d * f) for d, f in zip(spatial, factors, strict=True)]  # type: ignore[operator]
    else:
        raise Malformed("neither an output size nor scale factors are given")
    if len(sizes) != len(spatial):
        raise Malformed(f"{len(sizes)} sizes for {len(spatial)} spatial dimensions")
    if len(factors) == len(spatial) and all(f is not None and f > 0 for f in factors):
        attributes["scales"] = (1.0, 1.0, *factors)
    if tuple(sizes) == spatial and "scales" not in attributes:
        return x
    return c.emit(nn.Resize, x, sizes=(*shape[:2], *sizes), **attributes)


def _factors(rest: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
    """Scale factors: a list in the overloads `vec`, else one number or None per axis."""
    if "scale_factors" in named:
        return list(named["scale_factors"] or [])
    if len(rest) == 1 and isinstance(rest[0], list | tuple):
        return list(rest[0])
    spelled = [named[k] for k in ("scales_d", "scales_h", "scales_w", "scales") if k in named]
    return [*rest, *spelled]


NEAREST = ("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
           "_upsample_nearest_exact2d")  # fmt: skip


@aten(*(f"aten::{name}" for name in NEAREST), quantised="keep")
def upsample_nearest(c: Call, input: Any, output_size: Any = None, *rest: Any, **named: Any) -> Any:
    exact = "exact" in c.name
    return resized(
        c, c.tensor(input), output_size, _factors(rest, named), mode="nearest",
        coordinate_mode="half_pixel" if exact else "asymmetric",
        nearest_mode="round_prefer_ceil" if exact else "floor",
    )  # fmt: skip


LINEAR = ("upsample_linear1d", "upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_trilinear3d")
CUBIC = ("upsample_bicubic2d", "_upsample_bicubic2d_aa")


@aten(*(f"aten::{name}" for name in (*LINEAR, *CUBIC)))
def upsample_smooth(
    c: Call, input: Any, output_size: Any = None, align_corners: Any = False, *rest: Any, **named: Any
) -> Any:
    antialias = c.name.endswith("_aa")
    attributes: dict[str, Any] = {"mode": "cubic" if "cubic" in c.name else "linear", "antialias": antialias}
    if attributes["mode"] == "cubic":
        attributes["cubic_a"] = -0.5 if antialias else -0.75
    if antialias:
        attributes["exclude_outside"] = True
    factors = [None] if align_corners and output_size is not None else _factors(rest, named)
    attributes["coordinate_mode"] = "align_corners" if align_corners else "half_pixel"
    return resized(c, c.tensor(input), output_size, factors, **attributes)


# -- sampling along a grid ---------------------------------------------------------------------------------------------
GRID_MODES, GRID_PADDING = ("linear", "nearest", "cubic"), ("zeros", "border", "reflection")


@aten("aten::grid_sampler", "aten::grid_sampler_2d", "aten::grid_sampler_3d")
def grid_sample(c: Call, input: Any, grid: Any, interpolation_mode: int, padding_mode: int, align_corners: Any) -> Any:
    return c.emit(
        vision.GridSample, c.tensor(input), c.tensor(grid), mode=GRID_MODES[interpolation_mode],
        padding=GRID_PADDING[padding_mode], align_corners=bool(align_corners),
    )  # fmt: skip


@aten("aten::affine_grid_generator")
def affine_grid(c: Call, theta: Any, size: Any, align_corners: Any) -> Any:
    """A product of known places, [places, axes + 1], with the matrices."""
    n, _, *sizes = c.integers(size, "the size")

    def line(count: int) -> np.ndarray:
        whole = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
        return whole if align_corners else whole * (count - 1) / count

    grids = np.meshgrid(*map(line, sizes), indexing="ij")
    base = np.stack([*reversed(grids), np.ones(sizes)], axis=-1).reshape(1, -1, len(sizes) + 1).astype(np.float32)
    turned = c.emit(tensor.Transpose, c.tensor(theta), perm=(0, 2, 1))
    return c.reshape(c.emit(nn.MatMul, c.constant(base), turned), (n, *sizes, len(sizes)))
