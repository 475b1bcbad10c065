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
    SIZES,
    SRC,
)
from runtime.kernels.steps import (
    apply_steps,
    numbered,
    pixel_operands,
    prepare_cycles,
    share,
    step_operands,
    store_lanes,
)


@function
def blocks(arena, d, chunk, scratch, form, distances, prepare, value, pairs, known):
    """A chunk of an operation. `form`: (source type, target, steps). `distances`: bytes between the source's pixels,
    from row to row and within a row.

    `prepare(arena, d, scratch, source, column, columns)` brings what a block of columns needs besides the operands of
    steps; `value(source, address, prepared, known, i)` gives (elements i to i + 16 of the pixel at `address`,),
    and `pairs`, where it is not None, the same of that pixel and the next one in the row.
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
        y, x, pixel = first // out_width, first % out_width, first
        while pixel < end:
            places = (pixel_operands(steps, operands, y, x, pixel, column),)
            a = src + y * src_row + x * src_pixel + column * SIZES[source]
            b = (dst + y * dst_row + x * dst_pixel + column * SIZES[target[0]],)
            taken = 1
            if pairs is not None and x + 1 < out_width and pixel + 1 < end:
                both = (*places, pixel_operands(steps, operands, y, x + 1, pixel + 1, column))
                ends = (*b, b[0] + dst_pixel)
                elements(form, pairs, known, operands, both, scratch, a, ends, factor, whole, columns)
                taken = 2
            else:
                elements(form, value, known, operands, places, scratch, a, b, factor, whole, columns)
            pixel += taken
            x += taken
            if x == out_width:
                x = 0
                y += 1


@function
def elements(form, value, known, operands, places, scratch, source, targets, factor, whole, columns):
    """All columns of a pixel, or of two."""
    for i in range(0, whole, LANES):
        some(form, value, known, operands, places, scratch, source, targets, factor, i, None)
    if whole != columns:
        lanes = lanes_below(columns - whole)
        some(form, value, known, operands, places, scratch, source, targets, factor, whole, lanes)


@function
def some(form, value, known, operands, places, scratch, source, targets, factor, i, lanes):
    """Elements i to i + 16."""
    kind, target, steps = form
    totals = value(kind, source, scratch + SCRATCH_PANEL, known, i)
    for number, total in numbered(totals):
        result = apply_steps(steps, operands, places[number], scratch, i, total)
        store_lanes(target, result, targets[number] + i * SIZES[target[0]], factor, lanes)


@function
def nothing(arena, d, scratch, source, column, columns):
    """Blocks that need nothing prepared."""
