"""Rows of resampling: interpolation to a size or by factors, and sampling along a grid."""

from __future__ import annotations

from math import floor
from typing import Any

import numpy as np

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.registry import aten
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Value
from compiler.ir.types import DType
from compiler.ops import math, nn, tensor

CUT_3D = "resize the axes two at a time"


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
@aten("aten::grid_sampler", "aten::grid_sampler_2d")
def grid_sample(c: Call, input: Any, grid: Any, interpolation_mode: Any, padding_mode: Any, align_corners: Any) -> Any:
    """Gathers at the four corners of each place, weighted (bilinear), or at the nearest pixel."""
    x, places = c.tensor(input), c.tensor(grid)
    if x.type.rank != 4 or interpolation_mode not in (0, 1) or padding_mode not in (0, 1):
        raise Unsupported("samples volumes, by cubics or with reflection",
                          "sample images, bilinear or nearest, with zeros or border padding")  # fmt: skip
    n, _, h, w = x.type.static_shape
    out = places.type.static_shape[1:3]
    column = _pixel(c, places, 0, w, padding_mode, align_corners)
    row = _pixel(c, places, 1, h, padding_mode, align_corners)
    if interpolation_mode == 1:
        row, column = c.emit(math.Round, row), c.emit(math.Round, column)
        return _picked(c, x, row, column, out)
    top, left = c.emit(math.Floor, row), c.emit(math.Floor, column)
    one = c.constant(1.0, DType.F32)
    total = None
    for y_side in (0, 1):
        for x_side in (0, 1):
            at_row = c.emit(math.Add, top, one) if y_side else top
            at_column = c.emit(math.Add, left, one) if x_side else left
            share = c.emit(math.Mul, _share(c, row, at_row, one), _share(c, column, at_column, one))
            part = c.emit(math.Mul, _picked(c, x, at_row, at_column, out), c.reshape(share, (n, 1, *out)))
            total = part if total is None else c.emit(math.Add, total, part)
    return total


def _share(c: Call, place: Value, corner: Value, one: Value) -> Value:
    """1 minus the distance."""
    return c.emit(math.Sub, one, c.emit(math.Abs, c.emit(math.Sub, place, corner)))


def _pixel(c: Call, grid: Value, which: int, size: int, padding_mode: int, align_corners: Any) -> Value:
    """Places along one axis in pixels, [n, places], from -1..1."""
    shape = grid.type.static_shape
    cut = c.emit(tensor.Slice, grid, starts=(0, 0, 0, which), sizes=(*shape[:3], 1))
    flat = c.reshape(cut, (shape[0], shape[1] * shape[2]))
    scale, shift = ((size - 1) / 2, (size - 1) / 2) if align_corners else (size / 2, (size - 1) / 2)
    place = c.emit(math.Mul, flat, c.scalar_like(scale, flat))
    place = c.emit(math.Add, place, c.scalar_like(shift, flat))
    return c.emit(math.Clip, place, low=0.0, high=float(size - 1)) if padding_mode == 1 else place


def _picked(c: Call, x: Value, row: Value, column: Value, out: tuple[int, ...]) -> Value:
    """Pixels at whole places, [n, c, *out]; those outside are 0."""
    n, channels, h, w = x.type.static_shape
    inside_row = c.emit(math.Clip, row, low=0.0, high=float(h - 1))
    inside_column = c.emit(math.Clip, column, low=0.0, high=float(w - 1))
    within = c.emit(math.And, c.emit(math.Equal, row, inside_row), c.emit(math.Equal, column, inside_column))
    place = c.emit(math.Add, c.emit(math.Mul, inside_row, c.scalar_like(w, row)), inside_column)
    index = c.emit(tensor.BroadcastTo, c.reshape(c.cast(place, DType.I64), (n, 1, out[0] * out[1])),
                   shape=(n, channels, out[0] * out[1]))  # fmt: skip
    found = c.emit(tensor.GatherElements, c.reshape(x, (n, channels, h * w)), index, axis=2)
    kept = c.emit(math.Mul, found, c.reshape(c.cast(within, x.type.dtype), (n, 1, out[0] * out[1])))
    return c.reshape(kept, (n, channels, *out))


@aten("aten::affine_grid_generator")
def affine_grid(c: Call, theta: Any, size: Any, align_corners: Any) -> Any:
    """A product of known places, [h*w, 3], with the matrices."""
    n, _, h, w = c.integers(size, "the size")

    def line(count: int) -> np.ndarray:
        whole = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
        return whole if align_corners else whole * (count - 1) / count

    rows, columns = np.meshgrid(line(h), line(w), indexing="ij")
    base = np.stack([columns, rows, np.ones_like(rows)], axis=-1).reshape(1, h * w, 3).astype(np.float32)
    turned = c.emit(tensor.Transpose, c.tensor(theta), perm=(0, 2, 1))
    return c.reshape(c.emit(nn.MatMul, c.constant(base), turned), (n, h, w, 2))
