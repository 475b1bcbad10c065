"""Integer convolution: exact sums of a tile of pixels and a panel of 32 filters, then conversion and the chain.

A tile is up to 14 pixels. K is described by a table of byte offsets, one per step of four filter bytes, so that
windows, dilation and runs need no loops here. Padding inside runs is multiplied by zero filters; where the filters
are not known to be zero there (they were not read from constants), the panel is copied and cleared first.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np

from runtime.kernels import vnni
from runtime.kernels.build import inlined, kernel
from runtime.kernels.elementwise import share
from runtime.kernels.epilogue import finish_tile, prepare_form
from runtime.kernels.layout import (
    CHAIN,
    CHUNKS,
    COLUMNS,
    FILTER_TYPE,
    FILTERS,
    FIX_FACTOR,
    FORM,
    K_STEPS,
    OFFSETS,
    OUT_WIDTH,
    PANEL,
    PANEL_BYTES,
    PARTIAL,
    PARTIAL_SUMS,
    PIXEL_CHUNKS,
    PIXELS,
    SCRATCH_PANEL,
    SCRATCH_ROWS,
    SCRATCH_START,
    SCRATCH_SUMS,
    SCRATCH_VALUE,
    SRC,
    SRC_PIXEL,
    SRC_ROW,
    STRIDE_X,
    STRIDE_Y,
    TAIL_MASK,
    TILE,
    TYPE_I8,
    WORDS,
)
from runtime.kernels.memory import (
    call_chain,
    f32_at,
    i8_at,
    i16_at,
    i32_at,
    i32_float,
    i64_at,
    i64_float,
    low_float,
)

NONE, FIRST, MIDDLE, LAST = range(4)
STEP_BYTES = 4 * PANEL
HALF_TILE = TILE // 2
HAS_VNNI = vnni.AVAILABLE
tile_7, tile_1, start_sums = vnni.tile_7, vnni.tile_1, vnni.start_sums


@inlined
def row_addresses(arena, d, rows, pixel, pixels):
    """Addresses of the windows of a tile; the last one repeats so that whole half-tiles can be computed."""
    r = i64_at(rows, TILE)
    y, x = pixel // d[OUT_WIDTH], pixel % d[OUT_WIDTH]
    address = arena + d[SRC]
    for p in range(TILE):
        if p < pixels:
            address = arena + d[SRC] + y * d[STRIDE_Y] * d[SRC_ROW] + x * d[STRIDE_X] * d[SRC_PIXEL]
            x += 1
            if x == d[OUT_WIDTH]:
                x = 0
                y += 1
        r[p] = address


@inlined
def clean_panel(d, filters, scratch):
    """Copy a panel with the padding of its runs cleared; TAIL_MASK is the address of one byte mask per step."""
    masks = i32_at(d[TAIL_MASK], d[K_STEPS])
    source = i32_at(filters, d[K_STEPS] * PANEL)
    out = i32_at(scratch + SCRATCH_PANEL, d[K_STEPS] * PANEL)
    for k in range(d[K_STEPS]):
        for j in range(PANEL):
            out[k * PANEL + j] = source[k * PANEL + j] & masks[k]
    return scratch + SCRATCH_PANEL


@inlined
def panel_of(arena, d, panel, scratch):
    filters = arena + d[FILTERS] + panel * d[PANEL_BYTES]
    return clean_panel(d, filters, scratch) if d[TAIL_MASK] else filters


# -- int8 x int8, int32 sums -------------------------------------------------------------------------------------------
@inlined
def portable_tile(rows, offsets, steps, filters, sums, pixels):
    r, o, w = i64_at(rows, TILE), i32_at(offsets, steps), i8_at(filters, steps * STEP_BYTES)
    for p in range(pixels):
        total = i32_at(sums + 4 * PANEL * p, PANEL)
        for j in range(PANEL):
            total[j] = 0
        for k in range(steps):
            x = i8_at(r[p] + o[k], 4)
            x0, x1, x2, x3 = np.int32(x[0]), np.int32(x[1]), np.int32(x[2]), np.int32(x[3])
            base = k * STEP_BYTES
            for j in range(PANEL):
                i = base + 4 * j
                low = np.int32(x0 * np.int32(w[i]) + x1 * np.int32(w[i + 1]))
                high = np.int32(x2 * np.int32(w[i + 2]) + x3 * np.int32(w[i + 3]))
                total[j] = np.int32(total[j] + np.int32(low + high))


if HAS_VNNI:

    @inlined
    def prepare_panel(d, filters, start):
        start_sums(d[K_STEPS], filters, start)

    @inlined
    def sum_tile(d, rows, filters, start, sums, pixels):
        if pixels == 1:
            tile_1(rows, d[OFFSETS], d[K_STEPS], filters, start, sums)
            return
        tile_7(rows, d[OFFSETS], d[K_STEPS], filters, start, sums)
        if pixels > HALF_TILE:
            tile_7(rows + 8 * HALF_TILE, d[OFFSETS], d[K_STEPS], filters, start, sums + 4 * PANEL * HALF_TILE)
else:

    @inlined
    def prepare_panel(d, filters, start):
        pass

    @inlined
    def sum_tile(d, rows, filters, start, sums, pixels):
        portable_tile(rows, d[OFFSETS], d[K_STEPS], filters, sums, pixels)


@inlined
def combine_32(partial, stored, sums, pixels, columns, pitch):
    """FIRST stores a tile's sums, MIDDLE and LAST add the stored ones; MIDDLE stores again. int32 wraps."""
    for p in range(pixels):
        a, b = i32_at(stored + 4 * p * pitch, columns), i32_at(sums + 4 * PANEL * p, columns)
        if partial != FIRST:
            for j in range(columns):
                b[j] = np.int32(a[j] + b[j])
        if partial != LAST:
            for j in range(columns):
                a[j] = b[j]


@inlined
def widen_32(sums, value, pixels, columns, factor):
    for p in range(pixels):
        s, v = i32_at(sums + 4 * PANEL * p, columns), f32_at(value + 4 * p * columns, columns)
        for j in range(columns):
            v[j] = i32_float(s[j]) * factor


@kernel()
def conv(arena, descriptor, chunk, scratch):
    """i8 x i8."""
    d = i64_at(descriptor, WORDS)
    across = d[PIXEL_CHUNKS]
    first, end = share(d[PIXELS], across, chunk % across, TILE)
    left, right = share(d[COLUMNS], d[CHUNKS] // across, chunk // across, PANEL)
    factor = low_float(d[FIX_FACTOR])
    sums, rows, start = scratch + SCRATCH_SUMS, scratch + SCRATCH_ROWS, scratch + SCRATCH_START
    for column in range(left, right, PANEL):
        columns = min(PANEL, right - column)
        filters = panel_of(arena, d, column // PANEL, scratch)
        prepare_panel(d, filters, start)
        if d[FORM]:
            prepare_form(arena, d, scratch, column, columns)
        else:
            call_chain(d[CHAIN], arena, descriptor, scratch, 0, TILE, column, columns, 1)
        for pixel in range(first, end, TILE):
            pixels = min(TILE, end - pixel)
            row_addresses(arena, d, rows, pixel, pixels)
            sum_tile(d, rows, filters, start, sums, pixels)
            if d[PARTIAL] != NONE:
                stored = arena + d[PARTIAL_SUMS] + 4 * (pixel * d[COLUMNS] + column)
                combine_32(d[PARTIAL], stored, sums, pixels, columns, d[COLUMNS])
                if d[PARTIAL] != LAST:
                    continue
            if d[FORM]:
                finish_tile(arena, d, scratch, sums, pixel, pixels, column, columns)
                continue
            widen_32(sums, scratch + SCRATCH_VALUE, pixels, columns, factor)
            call_chain(d[CHAIN], arena, descriptor, scratch, pixel, pixels, column, columns, 0)


# -- int16 activations, int64 sums -------------------------------------------------------------------------------------
@inlined
def wide_row_i8(total, source, offsets, steps, filters):
    """One pixel of int16 x int8: products of a step fit int32, the sum of steps is int64."""
    t, o, w = i64_at(total, PANEL), i32_at(offsets, steps), i8_at(filters, steps * STEP_BYTES)
    for k in range(steps):
        x = i16_at(source + o[k], 4)
        x0, x1, x2, x3 = np.int32(x[0]), np.int32(x[1]), np.int32(x[2]), np.int32(x[3])
        base = k * STEP_BYTES
        for j in range(PANEL):
            i = base + 4 * j
            low = np.int32(x0 * np.int32(w[i]) + x1 * np.int32(w[i + 1]))
            high = np.int32(x2 * np.int32(w[i + 2]) + x3 * np.int32(w[i + 3]))
            t[j] += np.int64(np.int32(low + high))


@inlined
def wide_row_i16(total, source, offsets, steps, filters):
    """One pixel of int16 x int16: a product fits int32, two do not."""
    t, o, w = i64_at(total, PANEL), i32_at(offsets, steps), i16_at(filters, steps * STEP_BYTES // 2)
    for k in range(steps):
        x = i16_at(source + o[k], 2)
        x0, x1 = np.int32(x[0]), np.int32(x[1])
        base = k * (STEP_BYTES // 2)
        for j in range(PANEL):
            i = base + 2 * j
            low, high = np.int32(x0 * np.int32(w[i])), np.int32(x1 * np.int32(w[i + 1]))
            t[j] += np.int64(low) + np.int64(high)


@inlined
def combine_64(partial, stored, sums, pixels, columns, pitch):
    for p in range(pixels):
        a, b = i64_at(stored + 8 * p * pitch, columns), i64_at(sums + 8 * PANEL * p, columns)
        if partial != FIRST:
            for j in range(columns):
                b[j] = a[j] + b[j]
        if partial != LAST:
            for j in range(columns):
                a[j] = b[j]


@inlined
def widen_64(sums, value, pixels, columns, factor):
    for p in range(pixels):
        s, v = i64_at(sums + 8 * PANEL * p, columns), f32_at(value + 4 * p * columns, columns)
        for j in range(columns):
            v[j] = i64_float(s[j]) * factor


@kernel()
def conv_wide(arena, descriptor, chunk, scratch):
    """i16 x i8 and i16 x i16."""
    d = i64_at(descriptor, WORDS)
    across = d[PIXEL_CHUNKS]
    first, end = share(d[PIXELS], across, chunk % across, TILE)
    left, right = share(d[COLUMNS], d[CHUNKS] // across, chunk // across, PANEL)
    factor = low_float(d[FIX_FACTOR])
    sums, rows = scratch + SCRATCH_SUMS, scratch + SCRATCH_ROWS
    r = i64_at(rows, TILE)
    for column in range(left, right, PANEL):
        columns = min(PANEL, right - column)
        filters = panel_of(arena, d, column // PANEL, scratch)
        call_chain(d[CHAIN], arena, descriptor, scratch, 0, TILE, column, columns, 1)
        for pixel in range(first, end, TILE):
            pixels = min(TILE, end - pixel)
            row_addresses(arena, d, rows, pixel, pixels)
            for p in range(pixels):
                total = i64_at(sums + 8 * PANEL * p, PANEL)
                for j in range(PANEL):
                    total[j] = 0
                if d[FILTER_TYPE] == TYPE_I8:
                    wide_row_i8(sums + 8 * PANEL * p, r[p], d[OFFSETS], d[K_STEPS], filters)
                else:
                    wide_row_i16(sums + 8 * PANEL * p, r[p], d[OFFSETS], d[K_STEPS], filters)
            if d[PARTIAL] != NONE:
                stored = arena + d[PARTIAL_SUMS] + 8 * (pixel * d[COLUMNS] + column)
                combine_64(d[PARTIAL], stored, sums, pixels, columns, d[COLUMNS])
                if d[PARTIAL] != LAST:
                    continue
            widen_64(sums, scratch + SCRATCH_VALUE, pixels, columns, factor)
            call_chain(d[CHAIN], arena, descriptor, scratch, pixel, pixels, column, columns, 0)
