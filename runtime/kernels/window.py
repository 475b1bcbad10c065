"""Pooling and depthwise convolution: windows over channels, accumulated in fp32 in tap order, then the chain."""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np

from runtime.kernels import functions
from runtime.kernels.build import inlined, kernel
from runtime.kernels.chain import element_size, load_floats
from runtime.kernels.elementwise import share
from runtime.kernels.layout import (
    BLOCK,
    BLOCK_COLUMNS,
    CHAIN,
    CHUNKS,
    COLUMNS,
    DILATION_X,
    DILATION_Y,
    FUNCTION_CODE,
    KH,
    KW,
    OUT_WIDTH,
    PIXEL_CHUNKS,
    PIXELS,
    SCRATCH_PANEL,
    SCRATCH_VALUE,
    SRC,
    SRC_PIXEL,
    SRC_ROW,
    SRC_TYPE,
    STRIDE_X,
    STRIDE_Y,
    TYPE_F16,
    WEIGHTS,
    WINDOW_FACTOR,
    WORDS,
)
from runtime.kernels.memory import call_chain, f32_at, half_float, i64_at, low_float, u16_at
from runtime.kernels.rows import LANES, window_float, window_float_3x3, window_half, window_half_3x3

MAX, MEAN = 0, 1


@inlined
def accumulate_sum(total, source, kind, n):
    t = f32_at(total, n)
    if kind == TYPE_F16:
        h = u16_at(source, n)
        for i in range(n):
            t[i] = t[i] + half_float(h[i])
    else:
        f = f32_at(source, n)
        for i in range(n):
            t[i] = t[i] + f[i]


@inlined
def accumulate_maximum(total, source, kind, n):
    t = f32_at(total, n)
    if kind == TYPE_F16:
        h = u16_at(source, n)
        for i in range(n):
            t[i] = functions.maximum(t[i], half_float(h[i]))
    else:
        f = f32_at(source, n)
        for i in range(n):
            t[i] = functions.maximum(t[i], f[i])


@inlined
def set_zero(total, n):
    t = f32_at(total, n)
    for i in range(n):
        t[i] = np.float32(0)


@inlined
def prepare_weights(source, weights, kind, taps, pitch, columns):
    """Widen filters [tap][columns] into [group of 16][tap][16]; lanes beyond the columns keep what they hold."""
    size = element_size(kind)
    for first in range(0, columns, LANES):
        for tap in range(taps):
            place = weights + (first * taps + tap * LANES) * 4
            load_floats(place, source + tap * pitch + first * size, kind, min(LANES, columns - first))


@inlined
def add_taps(kind, corner, weights, total, kh, kw, row, pixel, columns):
    if kind == TYPE_F16:
        if kh == 3 and kw == 3:
            window_half_3x3(corner, weights, total, kh, kw, row, pixel, columns)
        else:
            window_half(corner, weights, total, kh, kw, row, pixel, columns)
    elif kh == 3 and kw == 3:
        window_float_3x3(corner, weights, total, kh, kw, row, pixel, columns)
    else:
        window_float(corner, weights, total, kh, kw, row, pixel, columns)


@kernel()
def depthwise(arena, descriptor, chunk, scratch):
    d = i64_at(descriptor, WORDS)
    across, width, kind = d[PIXEL_CHUNKS], d[BLOCK_COLUMNS], d[SRC_TYPE]
    first, end = share(d[PIXELS], across, chunk % across, 1)
    left, right = share(d[COLUMNS], d[CHUNKS] // across, chunk // across, width)
    size = element_size(kind)
    weights = scratch + SCRATCH_PANEL
    row, step = d[DILATION_Y] * d[SRC_ROW], d[DILATION_X] * d[SRC_PIXEL]
    for column in range(left, right, width):
        columns = min(width, right - column)
        height = max(1, BLOCK // columns)
        prepare_weights(arena + d[WEIGHTS] + column * size, weights, kind, d[KH] * d[KW], d[COLUMNS] * size, columns)
        call_chain(d[CHAIN], arena, descriptor, scratch, 0, height, column, columns, 1)
        source = arena + d[SRC] + column * size
        for pixel in range(first, end, height):
            pixels = min(height, end - pixel)
            y, x = pixel // d[OUT_WIDTH], pixel % d[OUT_WIDTH]
            for p in range(pixels):
                total = scratch + SCRATCH_VALUE + 4 * p * columns
                corner = source + y * d[STRIDE_Y] * d[SRC_ROW] + x * d[STRIDE_X] * d[SRC_PIXEL]
                add_taps(kind, corner, weights, total, d[KH], d[KW], row, step, columns)
                x += 1
                if x == d[OUT_WIDTH]:
                    x = 0
                    y += 1
            call_chain(d[CHAIN], arena, descriptor, scratch, pixel, pixels, column, columns, 0)


@inlined
def pool_pixel(d, total, corner, columns):
    """One output pixel: the window's maximum, sum or mean over `columns` channels."""
    kind = d[SRC_TYPE]
    maximum = d[FUNCTION_CODE] == MAX
    if maximum:
        load_floats(total, corner, kind, columns)
    else:
        set_zero(total, columns)
    for ky in range(d[KH]):
        tap = corner + ky * d[SRC_ROW]
        for _ in range(d[KW]):
            if maximum:
                accumulate_maximum(total, tap, kind, columns)
            else:
                accumulate_sum(total, tap, kind, columns)
            tap += d[SRC_PIXEL]
    if d[FUNCTION_CODE] == MEAN:
        t = f32_at(total, columns)
        factor = low_float(d[WINDOW_FACTOR])
        for i in range(columns):
            t[i] = t[i] * factor


@kernel()
def pool(arena, descriptor, chunk, scratch):
    d = i64_at(descriptor, WORDS)
    across, width = d[PIXEL_CHUNKS], d[BLOCK_COLUMNS]
    first, end = share(d[PIXELS], across, chunk % across, 1)
    left, right = share(d[COLUMNS], d[CHUNKS] // across, chunk // across, width)
    for column in range(left, right, width):
        columns = min(width, right - column)
        height = max(1, BLOCK // columns)
        call_chain(d[CHAIN], arena, descriptor, scratch, 0, height, column, columns, 1)
        source = arena + d[SRC] + column * element_size(d[SRC_TYPE])
        for pixel in range(first, end, height):
            pixels = min(height, end - pixel)
            y, x = pixel // d[OUT_WIDTH], pixel % d[OUT_WIDTH]
            for p in range(pixels):
                corner = source + y * d[STRIDE_Y] * d[SRC_ROW] + x * d[STRIDE_X] * d[SRC_PIXEL]
                pool_pixel(d, scratch + SCRATCH_VALUE + 4 * p * columns, corner, columns)
                x += 1
                if x == d[OUT_WIDTH]:
                    x = 0
                    y += 1
            call_chain(d[CHAIN], arena, descriptor, scratch, pixel, pixels, column, columns, 0)
