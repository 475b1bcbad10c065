"""Pooling and depthwise convolution: windows over channels, accumulated in fp32 in tap order, then the steps."""

# mypy: ignore-errors
from __future__ import annotations

from compiler.native.build import kernel
from compiler.native.language import LANES, function
from compiler.native.memory import FLOATS, i64_at, lanes_below, load, low_float, store, zeros
from runtime.kernels import functions
from runtime.kernels.layout import (
    BLOCK_COLUMNS,
    CHUNKS,
    COLUMNS,
    DILATION_X,
    DILATION_Y,
    DST,
    DST_FACTOR,
    DST_PIXEL,
    DST_ROW,
    KH,
    KW,
    OUT_WIDTH,
    PIXEL_CHUNKS,
    PIXELS,
    SCRATCH_PANEL,
    SRC,
    SRC_PIXEL,
    SRC_ROW,
    STRIDE_X,
    STRIDE_Y,
    WEIGHTS,
    WINDOW_FACTOR,
)
from runtime.kernels.steps import (
    SIZES,
    apply_steps,
    load_floats,
    pixel_operands,
    prepare_cycles,
    share,
    step_operands,
    store_lanes,
)

MAX, MEAN, SUM = range(3)
VECTOR_BYTES = 4 * LANES


def taps_of(size):
    """(ky, kx) of a window known beforehand."""
    return tuple((ky, kx) for ky in range(size[0]) for kx in range(size[1]))


@function
def windows(arena, d, chunk, scratch, source, target, steps, window, value, prepare):
    """The loops over blocks of columns and pixels: `value(source, corner, weights, window, i)` gives the 16 lanes of a
    window, `prepare(...)` brings the weights of a block."""
    across, width, out_width = d[PIXEL_CHUNKS], d[BLOCK_COLUMNS], d[OUT_WIDTH]
    first, end = share(d[PIXELS], across, chunk % across, 1)
    left, right = share(d[COLUMNS], d[CHUNKS] // across, chunk // across, width)
    src, src_row, src_pixel = arena + d[SRC], d[STRIDE_Y] * d[SRC_ROW], d[STRIDE_X] * d[SRC_PIXEL]
    dst, dst_row, dst_pixel, factor = arena + d[DST], d[DST_ROW], d[DST_PIXEL], low_float(d[DST_FACTOR])
    operands = step_operands(steps, arena, d)
    for column in range(left, right, width):
        columns = min(width, right - column)
        prepare(arena, d, scratch, source, column, columns)
        prepare_cycles(steps, operands, scratch, column, columns)
        whole = columns - columns % LANES
        y, x = first // out_width, first % out_width
        for pixel in range(first, end):
            places = pixel_operands(steps, operands, y, x, pixel, column)
            a = src + y * src_row + x * src_pixel + column * SIZES[source]
            b = dst + y * dst_row + x * dst_pixel + column * SIZES[target[0]]
            for i in range(0, whole, LANES):
                total = value(source, a, scratch + SCRATCH_PANEL, window, i)
                total = apply_steps(steps, operands, places, scratch, i, total)
                store_lanes(target, total, b + i * SIZES[target[0]], factor, None)
            if whole != columns:
                total = value(source, a, scratch + SCRATCH_PANEL, window, whole)
                total = apply_steps(steps, operands, places, scratch, whole, total)
                store_lanes(target, total, b + whole * SIZES[target[0]], factor, lanes_below(columns - whole))
            x += 1
            if x == out_width:
                x = 0
                y += 1


# -- depthwise ---------------------------------------------------------------------------------------------------------
@kernel()
def depthwise(arena, descriptor, chunk, scratch, source, target, steps, size):
    """`size`: (kh, kw) where known beforehand, or None."""
    d = i64_at(descriptor)
    window = size, d[KH], d[KW], d[DILATION_Y] * d[SRC_ROW], d[DILATION_X] * d[SRC_PIXEL]
    windows(arena, d, chunk, scratch, source, target, steps, window, depthwise_window, prepare_weights)


@function
def prepare_weights(arena, d, scratch, source, column, columns):
    """Widen filters [tap][columns] into [group of 16][tap][16]."""
    taps, pitch = d[KH] * d[KW], d[COLUMNS] * SIZES[source]
    filters = arena + d[WEIGHTS] + column * SIZES[source]
    for first in range(0, columns, LANES):
        for tap in range(taps):
            place = scratch + SCRATCH_PANEL + (first * taps + tap * LANES) * 4
            store(load_floats(source, filters + tap * pitch + first * SIZES[source]), place)


@function
def depthwise_window(source, corner, weights, window, i):
    """16 channels: the sum over taps of x * w, in tap order, from +0."""
    size, kh, kw, row, pixel = window
    total = zeros(FLOATS)
    start = corner + i * SIZES[source]
    if size is not None:
        w = weights + i * (size[0] * size[1] * 4)
        for ky, kx in taps_of(size):
            x = load_floats(source, start + ky * row + kx * pixel)
            total = total + x * load(FLOATS, w + (ky * size[1] + kx) * VECTOR_BYTES)
        return total
    place = weights + i * (kh * kw * 4)
    for ky in range(kh):
        for kx in range(kw):
            total = total + load_floats(source, start + ky * row + kx * pixel) * load(FLOATS, place)
            place += VECTOR_BYTES
    return total


# -- pooling -----------------------------------------------------------------------------------------------------------
@kernel()
def pool(arena, descriptor, chunk, scratch, source, target, steps, function):
    """`function`: MAX, MEAN or SUM."""
    d = i64_at(descriptor)
    window = function, d[KH], d[KW], d[SRC_ROW], d[SRC_PIXEL], low_float(d[WINDOW_FACTOR])
    windows(arena, d, chunk, scratch, source, target, steps, window, pool_window, no_weights)


@function
def no_weights(arena, d, scratch, source, column, columns):
    pass


@function
def pool_window(source, corner, weights, window, i):
    """16 channels: the maximum, sum or mean over the taps."""
    code, kh, kw, row, pixel, factor = window
    start = corner + i * SIZES[source]
    total = load_floats(source, start) if code == MAX else zeros(FLOATS)
    for ky in range(kh):
        for kx in range(kw):
            x = load_floats(source, start + ky * row + kx * pixel)
            total = functions.maximum(total, x) if code == MAX else total + x
    return total * factor if code == MEAN else total
