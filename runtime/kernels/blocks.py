"""The loops of kernels that work pixel by pixel on blocks of columns: elementwise instructions, pooling, depthwise."""

# mypy: ignore-errors
from __future__ import annotations

from compiler.native.language import LANES, function
from compiler.native.memory import lanes_below, low_float
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
    SCRATCH_PANEL,
    SRC,
)
from runtime.kernels.steps import (
    SIZES,
    apply_steps,
    pixel_operands,
    prepare_cycles,
    share,
    step_operands,
    store_lanes,
)


@function
def blocks(arena, d, chunk, scratch, form, distances, prepare, value, known):
    """A chunk of an operation. `form`: (source type, target, steps). `distances`: bytes between the source's pixels,
    from row to row and within a row.

    `prepare(arena, d, scratch, source, column, columns)` brings what a block of columns needs besides the operands of
    steps; `value(source, address, prepared, known, i)` gives elements i to i + 16 of the pixel at `address`.
    """
    source, target, steps = form
    across, width, out_width = d[PIXEL_CHUNKS], d[BLOCK_COLUMNS], d[OUT_WIDTH]
    first, end = share(d[PIXELS], across, chunk % across, 1)
    left, right = share(d[COLUMNS], d[CHUNKS] // across, chunk // across, width)
    src, src_row, src_pixel = arena + d[SRC], distances[0], distances[1]
    dst, dst_row, dst_pixel, factor = arena + d[DST], d[DST_ROW], d[DST_PIXEL], low_float(d[DST_FACTOR])
    operands = step_operands(steps, arena, d)
    for column in range(left, right, width):
        columns = min(width, right - column)
        prepare(arena, d, scratch, source, column, columns)
        if column == left or columns != width or d[REUSE] == 0:
            prepare_cycles(steps, operands, scratch, column, columns)
        whole = columns - columns % LANES
        y, x = first // out_width, first % out_width
        for pixel in range(first, end):
            places = pixel_operands(steps, operands, y, x, pixel, column)
            a = src + y * src_row + x * src_pixel + column * SIZES[source]
            b = dst + y * dst_row + x * dst_pixel + column * SIZES[target[0]]
            for i in range(0, whole, LANES):
                total = value(source, a, scratch + SCRATCH_PANEL, known, i)
                total = apply_steps(steps, operands, places, scratch, i, total)
                store_lanes(target, total, b + i * SIZES[target[0]], factor, None)
            if whole != columns:
                total = value(source, a, scratch + SCRATCH_PANEL, known, whole)
                total = apply_steps(steps, operands, places, scratch, whole, total)
                store_lanes(target, total, b + whole * SIZES[target[0]], factor, lanes_below(columns - whole))
            x += 1
            if x == out_width:
                x = 0
                y += 1


@function
def nothing(arena, d, scratch, source, column, columns):
    """Blocks that need nothing prepared."""
