"""Elementwise instructions and chains of them: load, apply the steps, store, 16 elements at a time.

A binary, unary or convert instruction is a chain of one step or none; a fused run of them is a longer one.
"""

# mypy: ignore-errors
from __future__ import annotations

from compiler.native.build import kernel
from compiler.native.language import LANES, function
from compiler.native.memory import i64_at, lanes_below, low_float
from runtime.kernels.layout import (
    BLOCK_COLUMNS,
    CHUNKS,
    COLUMNS,
    DST,
    DST_FACTOR,
    DST_PIXEL,
    DST_ROW,
    OUT_WIDTH,
    PIXEL_CHUNKS,
    PIXELS,
    REUSE,
    SRC,
    SRC_FACTOR,
    SRC_PIXEL,
    SRC_ROW,
)
from runtime.kernels.steps import (
    SIZES,
    apply_steps,
    load_lanes,
    pixel_operands,
    prepare_cycles,
    share,
    step_operands,
    store_lanes,
)


@kernel()
def elementwise(arena, descriptor, chunk, scratch, source, target, steps):
    """`source`: element type; `target`: (element type, half away)."""
    d = i64_at(descriptor)
    across, width, out_width = d[PIXEL_CHUNKS], d[BLOCK_COLUMNS], d[OUT_WIDTH]
    first, end = share(d[PIXELS], across, chunk % across, 1)
    left, right = share(d[COLUMNS], d[CHUNKS] // across, chunk // across, width)
    factors = low_float(d[SRC_FACTOR]), low_float(d[DST_FACTOR])
    src, src_row, src_pixel = arena + d[SRC], d[SRC_ROW], d[SRC_PIXEL]
    dst, dst_row, dst_pixel = arena + d[DST], d[DST_ROW], d[DST_PIXEL]
    operands = step_operands(steps, arena, d)
    for column in range(left, right, width):
        columns = min(width, right - column)
        if column == left or columns != width or d[REUSE] == 0:
            prepare_cycles(steps, operands, scratch, column, columns)
        whole = columns - columns % LANES
        y, x = first // out_width, first % out_width
        for pixel in range(first, end):
            places = pixel_operands(steps, operands, y, x, pixel, column)
            a = src + y * src_row + x * src_pixel + column * SIZES[source]
            b = dst + y * dst_row + x * dst_pixel + column * SIZES[target[0]]
            for i in range(0, whole, LANES):
                convert(source, target, steps, operands, places, scratch, factors, a, b, i, None)
            if whole != columns:
                lanes = lanes_below(columns - whole)
                convert(source, target, steps, operands, places, scratch, factors, a, b, whole, lanes)
            x += 1
            if x == out_width:
                x = 0
                y += 1


@function
def convert(source, target, steps, operands, places, scratch, factors, a, b, i, lanes):
    """Elements i to i + 16 of a pixel."""
    value = load_lanes(source, a + i * SIZES[source], factors[0])
    value = apply_steps(steps, operands, places, scratch, i, value)
    store_lanes(target, value, b + i * SIZES[target[0]], factors[1], lanes)
