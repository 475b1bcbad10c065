"""The instruction of the matrix unit."""

from __future__ import annotations

from typing import Any

import numpy as np

from targets.mlu220.filters import filter_bytes
from targets.mlu220.isa_fields import (
    NRAM,
    WRAM,
    Accesses,
    Columns,
    Instruction,
    Rule,
    Unit,
    access,
    choice,
    disjoint,
    integer,
    near,
    no_self_overlap,
)  # fmt: skip
from targets.mlu220.isa_rules import (
    APART,
    FITS,
    OVERLAPS_ITSELF,
    aligned,
    dilations,
    extent,
    fits,
    input_window,
    window_pitches,
    window_source,
    window_target,
    window_work,
    windows,
)
from targets.mlu220.isa_types import TYPE_SIZES, Float, Integer, Partial, Runs, sum_size


class Conv(Instruction, opcode=0x21, unit=Unit.MATRIX):
    """Integer convolution of an NRAM tile with WRAM filters (`__bang_conv`, `__bang_conv_partial`, `__bang_mlp`).

    Exact integer sum (int32 for i8 x i8, otherwise int64) → fp32 nearest even → * 2^fix_position in fp32 → dst_type.
    No padding. partial FIRST stores raw sums [oh][ow][co] dense at partial_sums, MIDDLE adds to them, LAST adds and
    converts; sums of a chain wrap at their width. dst is used by NONE and LAST only, partial_sums by all but NONE.
    Filters: see `filters.py`. Input rows between taps of a kernel larger than 1 count as read.
    """

    dst = near(NRAM, default=0)
    src = near(NRAM)
    filters = near(WRAM)
    partial_sums = near(NRAM, default=0)
    ci = extent()
    h, w, kh, kw, stride_y, stride_x = input_window()
    dilation_y, dilation_x = dilations()
    co = extent()
    src_row_pitch, src_pixel_pitch, dst_row_pitch, dst_pixel_pitch = window_pitches(dst=0)
    partial = choice(Partial, Partial.NONE)
    fix_position = integer(-126, 126, default=0)
    src_type = choice(Integer)
    filter_type = choice(Integer)
    dst_type = choice(Float)
    runs = choice(Runs, Runs.ROW)

    rules = (
        Rule("i8 input with i16 filters does not exist", lambda c: c.src_type >= c.filter_type),
        FITS(lambda c: fits(c, c.dilation_y, c.dilation_x)),
        Rule(
            "runs ROW needs dilation_x = 1 and dense pixels (src_pixel_pitch = ci * element size)",
            lambda c: (
                (c.runs == Runs.TAP) | ((c.dilation_x == 1) & (c.src_pixel_pitch == c.ci * TYPE_SIZES[c.src_type]))
            ),
        ),
        Rule(
            "K = {kh}*{kw}*{ci} exceeds what an int32 sum of i8 products holds (131071)",
            lambda c: (c.src_type + c.filter_type > 0) | (c.kh * c.kw * c.ci < 2**17),
        ),
        Rule("filters must be 64-byte aligned", lambda c: aligned(64, c.filters)),
        Rule(
            "src and its pitches must be multiples of the element size",
            lambda c: aligned(TYPE_SIZES[c.src_type], c.src, c.src_row_pitch, c.src_pixel_pitch),
        ),
        Rule(
            "dst and its pitches must be multiples of the element size",
            lambda c: ~Conv.converts(c) | aligned(TYPE_SIZES[c.dst_type], c.dst, c.dst_row_pitch, c.dst_pixel_pitch),
        ),
        Rule(
            "partial_sums must be a multiple of the sum's size",
            lambda c: (c.partial == Partial.NONE) | aligned(sum_size(c.src_type, c.filter_type), c.partial_sums),
        ),
        OVERLAPS_ITSELF(lambda c: ~Conv.converts(c) | no_self_overlap(Conv.destination(c, merge=False))),
        APART(
            lambda c: (
                ~Conv.converts(c)
                | (
                    disjoint(Conv.source(c), Conv.destination(c))
                    & ((c.partial == Partial.NONE) | disjoint(Conv.sums(c), Conv.destination(c)))
                )
            )
        ),
        Rule(
            "partial_sums overlap the source",
            lambda c: (c.partial == Partial.NONE) | disjoint(Conv.source(c), Conv.sums(c)),
        ),
    )

    @staticmethod
    def converts(c: Columns) -> np.ndarray:
        """Whether a row writes dst."""
        return (c.partial == Partial.NONE) | (c.partial == Partial.LAST)

    @staticmethod
    def source(c: Columns) -> Accesses:
        return window_source(c, c.ci * TYPE_SIZES[c.src_type], c.dilation_y, c.dilation_x)

    @staticmethod
    def destination(c: Columns, merge: bool = True, where: Any = True) -> Accesses:
        run = c.co * TYPE_SIZES[c.dst_type]
        return window_target(c, run, c.dilation_y, c.dilation_x, merge=merge, where=where)

    @staticmethod
    def sums(c: Columns, write: bool = False, where: Any = True) -> Accesses:
        oh, ow = windows(c, c.dilation_y, c.dilation_x)
        run = oh * ow * c.co * sum_size(c.src_type, c.filter_type)
        return access(c, NRAM, c.partial_sums, run, write=write, where=where)

    @classmethod
    def accesses(cls, c: Columns) -> list[Accesses]:
        taken = filter_bytes(c.co, c.kh, c.kw, c.ci, c.filter_type, c.runs)
        first, last = c.partial == Partial.FIRST, c.partial == Partial.LAST
        middle = c.partial == Partial.MIDDLE
        return [
            cls.source(c),
            access(c, WRAM, c.filters, taken),
            cls.sums(c, where=middle | last),
            cls.sums(c, write=True, where=first | middle),
            cls.destination(c, where=cls.converts(c)),
        ]

    @classmethod
    def work(cls, c: Columns) -> np.ndarray:
        return window_work(c, c.ci * c.co, c.dilation_y, c.dilation_x)
