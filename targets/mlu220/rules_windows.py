"""Sliding windows: what an instruction takes of them, and those with holes as ones without.

A transposed convolution by strides (s, t) is s * t ordinary ones, one per residue of the output's row and column, whose
results are stored in turn (`mlu.interleave`); a window dilated by (s, t) likewise, each over every s-th row and every
t-th column of the image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compiler.ir.core import Value
from targets.mlu220 import isa
from targets.mlu220.hardware import Board, load_board
from targets.mlu220.lowering import Lowering

DEFAULT_BOARD = "m2"
"""Every board has the same chip: its memories are those of any of them."""

LONGEST_WINDOW = isa.Pool.fields["kw"].high
"""Most rows or columns of a kernel, and largest stride and dilation, that an instruction takes."""

BESIDE_WINDOW = 16 << 10
"""NRAM bytes left for what stands beside one window: its results, their sums, scale and bias."""

FLOAT_WINDOW = 8
"""NRAM bytes of an element of a window of floats: as it is loaded and as it is computed with."""


@functools.cache
def chip() -> Board:
    """A board, for what all of them share: the memories of the chip."""
    return load_board(DEFAULT_BOARD)


# -- what an instruction takes ---------------------------------------------------------------------------------------
def window_reason(kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int] = (1, 1)) -> str | None:
    """Why no instruction has such a window; None if one has."""
    for what, numbers in (("a kernel", kernel), ("strides", strides), ("dilations", dilations)):
        if max(numbers) > LONGEST_WINDOW:
            return f"{what} of {list(numbers)}: an instruction takes at most {LONGEST_WINDOW}"
    return None


def window_fits(kernel: Sequence[int], dilations: Sequence[int], pixel: int) -> bool:
    """Whether one window, of `pixel` bytes a pixel, fits NRAM."""
    rows, columns = ((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    return rows * columns * pixel <= chip().nram_usable_bytes - BESIDE_WINDOW


# -- windows with holes ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Phase:
    """Every `stride`-th output along one axis: which taps of the kernel it needs (None: a zero), nearest first in the
    input, and how much is to be padded (cropped, where negative) before and behind the input."""

    taps: tuple[int | None, ...]
    before: int
    behind: int


def phases(size: int, kernel: int, stride: int, pad: int, dilation: int, outputs: int) -> list[Phase]:
    """The phases of a transposed convolution along one axis. Output o takes x[i] * w[k] where i * stride + k * dilation
    = o + pad."""
    found = []
    for residue in range(min(stride, outputs)):
        count = -(-(outputs - residue) // stride)
        shift, rest = divmod(residue + pad, stride)
        places = {k * dilation: k for k in range(kernel) if (k * dilation - rest) % stride == 0}
        reach = max(((place - rest) // stride for place in places), default=0)
        taps = tuple(places.get(rest + stride * m) for m in range(reach, -1, -1))
        found.append(Phase(taps, reach - shift, count - 1 + shift - (size - 1)))
    return found


def cropped(lowering: Lowering, x: Value, rows: tuple[int, int], columns: tuple[int, int]) -> tuple[Value, list[int]]:
    """An NHWC value without what negative pads take away, and the pads that are left: top, left, bottom, right."""
    n, h, w, c = x.type.static_shape
    cut = [max(-p, 0) for p in (*rows, *columns)]
    if any(cut):
        sizes = (n, h - cut[0] - cut[1], w - cut[2] - cut[3], c)
        x = lowering.make("mlu.slice", x, starts=(0, cut[0], cut[2], 0), sizes=sizes, steps=(1, 1, 1, 1))
    return x, [max(rows[0], 0), max(columns[0], 0), max(rows[1], 0), max(columns[1], 0)]


def in_turn(lowering: Lowering, grid: Sequence[Sequence[Value]]) -> Value:
    """The image whose pixels come from a grid of images in turn."""
    rows = [row[0] if len(row) == 1 else lowering.make("mlu.interleave", *row, axis=2) for row in grid]
    return rows[0] if len(rows) == 1 else lowering.make("mlu.interleave", *rows, axis=1)


def _dilated_phases(size: int, kernel: int, pads: tuple[int, int], dilation: int) -> list[tuple[int, int, Phase]]:
    """Per residue of the output at stride 1: the first input element and the number of them, and the pads."""
    outputs = size + sum(pads) - (kernel - 1) * dilation
    found = []
    for residue in range(min(dilation, outputs)):
        count = -(-(outputs - residue) // dilation)
        base, first = divmod(residue - pads[0], dilation)
        length = -(-(size - first) // dilation)
        found.append((first, length, Phase((), -base, count + kernel - 2 + base - (length - 1))))
    return found


def undilated(
    lowering: Lowering, x: Value, kernel: Sequence[int], pads: Sequence[int], dilations: Sequence[int],
    strides: Sequence[int], window: Callable[[Value, list[int]], Value],
) -> Value:  # fmt: skip
    """A dilated window as a grid of windows without dilation, at stride 1; strides pick from it. `window` makes one of
    the grid from its part of the image and its pads."""
    n, h, w, c = x.type.static_shape
    (top, left, bottom, right), (dy, dx) = pads, dilations
    grid: list[list[Value]] = []
    for first_row, height, rows in _dilated_phases(h, kernel[0], (top, bottom), dy):
        grid.append([])
        for first_column, width, columns in _dilated_phases(w, kernel[1], (left, right), dx):
            starts, sizes = (0, first_row, first_column, 0), (n, height, width, c)
            part = lowering.make("mlu.slice", x, starts=starts, sizes=sizes, steps=(1, dy, dx, 1))
            part, around = cropped(lowering, part, (rows.before, rows.behind), (columns.before, columns.behind))
            grid[-1].append(window(part, around))
    y = in_turn(lowering, grid)
    if tuple(strides) == (1, 1):
        return y
    n, h, w, c = y.type.static_shape
    sizes = (n, -(-h // strides[0]), -(-w // strides[1]), c)
    return lowering.make("mlu.slice", y, starts=(0,) * 4, sizes=sizes, steps=(1, *strides, 1))
