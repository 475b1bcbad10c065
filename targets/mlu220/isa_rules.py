"""Field kinds, rules and footprints that several instructions share."""

from __future__ import annotations

from typing import Any

import numpy as np

from targets.mlu220.filters import output_size
from targets.mlu220.isa_fields import NRAM, Accesses, Columns, Rule, access, no_self_overlap, number
from targets.mlu220.isa_types import TYPE_SIZES

BYTE_LIMIT = 2**31 - 1


def pitch(default: int | None = None, doc: str = "") -> Any:
    return number(low=0, default=default, doc=doc)


def stride(doc: str = "") -> Any:
    return number(low=0, high=BYTE_LIMIT, default=0, doc=doc)


def window(default: int | None = None) -> Any:
    return number(high=4095, default=default)


def extent() -> Any:
    return number(high=65535)


def input_window() -> tuple[Any, Any, Any, Any, Any, Any]:
    """h, w, kh, kw, stride_y, stride_x."""
    return extent(), extent(), window(), window(), window(1), window(1)


def dilations() -> tuple[Any, Any]:
    """dilation_y, dilation_x."""
    return window(1), window(1)


def window_pitches(dst: int | None = None) -> tuple[Any, Any, Any, Any]:
    """src_row_pitch, src_pixel_pitch, dst_row_pitch, dst_pixel_pitch; `dst` is the default of the last two."""
    return pitch(), pitch(), pitch(dst), pitch(dst)


def aligned(size: Any, *values: Any) -> Any:
    good = np.ones(1, bool)
    for value in values:
        good = good & (value % size == 0)
    return good


def whole(c: Columns, base: Any, run: Any, *loops: tuple[Any, Any]) -> np.ndarray:
    return no_self_overlap(access(c, NRAM, base, run, loops, merge=False))


def read_window(outputs: Any, kernel: Any, step: Any, dilation: Any) -> tuple[Any, Any]:
    """(count, step) of the input rows a window operation reads: every step-th for a kernel of 1, otherwise the hull."""
    hull = (outputs - 1) * step + (kernel - 1) * dilation + 1
    return np.where(kernel == 1, outputs, hull), np.where(kernel == 1, step, 1)


def windows(c: Columns, dilation_y: Any = 1, dilation_x: Any = 1) -> tuple[Any, Any]:
    return (
        output_size(c.h, c.kh, c.stride_y, dilation_y),
        output_size(c.w, c.kw, c.stride_x, dilation_x),
    )


def window_source(c: Columns, run: Any, dilation_y: Any = 1, dilation_x: Any = 1) -> Accesses:
    oh, ow = windows(c, dilation_y, dilation_x)
    rows, row_step = read_window(oh, c.kh, c.stride_y, dilation_y)
    pixels, pixel_step = read_window(ow, c.kw, c.stride_x, dilation_x)
    loops = [(rows, row_step * c.src_row_pitch), (pixels, pixel_step * c.src_pixel_pitch)]
    return access(c, NRAM, c.src, run, loops)


def window_target(c: Columns, run: Any, dilation_y: Any = 1, dilation_x: Any = 1, **options: Any) -> Accesses:
    oh, ow = windows(c, dilation_y, dilation_x)
    return access(c, NRAM, c.dst, run, [(oh, c.dst_row_pitch), (ow, c.dst_pixel_pitch)], write=True, **options)


def window_work(c: Columns, channels: Any, dilation_y: Any = 1, dilation_x: Any = 1) -> np.ndarray:
    """Multiply-adds, comparisons or additions: one per tap and channel of every window."""
    oh, ow = windows(c, dilation_y, dilation_x)
    return oh.astype(float) * ow * c.kh * c.kw * channels


def rule(message: str) -> Any:
    return lambda holds: Rule(message, holds)


ALIGNED = rule("addresses and pitches must be multiples of the element size")
FITS = rule("kernel {kh}x{kw} does not fit the input {h}x{w}")
OVERLAPS_ITSELF = rule("destination overlaps itself: pitches are smaller than what lies inside them")
IN_PLACE = rule("destination must be exactly a source or apart from it")
APART = rule("destination overlaps a source")


def fits(c: Columns, dilation_y: Any = 1, dilation_x: Any = 1) -> np.ndarray:
    return ((c.kh - 1) * dilation_y < c.h) & ((c.kw - 1) * dilation_x < c.w)


def aligned_window(c: Columns, *others: Any) -> Any:
    """Whether the places and pitches of a window instruction on floats are multiples of its element size."""
    pitches = (c.src_row_pitch, c.src_pixel_pitch, c.dst_row_pitch, c.dst_pixel_pitch)
    return aligned(TYPE_SIZES[c.dtype], c.dst, c.src, *pitches, *others)
