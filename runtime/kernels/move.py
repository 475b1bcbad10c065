"""Copies, fills, transpositions and packing of filters.

Chunks cut the outermost loop that has more than one turn, or a single long run.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np

from runtime.kernels.build import inlined, kernel
from runtime.kernels.elementwise import share
from runtime.kernels.layout import (
    CHUNKS,
    COLUMNS,
    DST,
    DST0,
    DST1,
    DST2,
    N0,
    N1,
    N2,
    ORDER,
    PANEL,
    PIXELS,
    RUN,
    SIZE,
    SRC,
    SRC0,
    SRC1,
    SRC2,
    SRC_ROW,
    VALUE,
    WORDS,
)
from runtime.kernels.layout import DST_ROW as OUT_PITCH
from runtime.kernels.memory import bytes_at, copy_bytes, i32_at, i64_at, u16_at

CACHE_LINE = 64
SMALL = 32
TILE = 16


@inlined
def copy_run(destination, source, count):
    """A call of memcpy costs more than a short run."""
    if count > SMALL:
        copy_bytes(destination, source, count)
        return
    while count >= 4:
        i32_at(destination, 1)[0] = i32_at(source, 1)[0]
        destination += 4
        source += 4
        count -= 4
    a, b = bytes_at(destination, 4), bytes_at(source, 4)
    for i in range(count):
        a[i] = b[i]


@kernel()
def copy(arena, descriptor, chunk, scratch):
    d = i64_at(descriptor, WORDS)
    destination, source, run = arena + d[DST], arena + d[SRC], d[RUN]
    first, end = 0, d[N0]
    if end == 1 and d[N1] * d[N2] == 1:
        start, stop = share(run, d[CHUNKS], chunk, CACHE_LINE)
        copy_bytes(destination + start, source + start, stop - start)
        return
    first, end = share(d[N0], d[CHUNKS], chunk, 1)
    for i in range(first, end):
        for j in range(d[N1]):
            a = destination + i * d[DST0] + j * d[DST1]
            b = source + i * d[SRC0] + j * d[SRC1]
            for k in range(d[N2]):
                copy_run(a + k * d[DST2], b + k * d[SRC2], run)


@inlined
def fill_run(address, size, value, count):
    if size == 1:
        b = bytes_at(address, count)
        for i in range(count):
            b[i] = np.uint8(value)
    elif size == 2:
        h = u16_at(address, count // 2)
        for i in range(count // 2):
            h[i] = np.uint16(value)
    else:
        w = i32_at(address, count // 4)
        for i in range(count // 4):
            w[i] = np.int32(value)


@kernel()
def fill(arena, descriptor, chunk, scratch):
    d = i64_at(descriptor, WORDS)
    first, end = share(d[N0], d[CHUNKS], chunk, 1)
    for i in range(first, end):
        for j in range(d[N1]):
            for k in range(d[N2]):
                address = arena + d[DST] + i * d[DST0] + j * d[DST1] + k * d[DST2]
                fill_run(address, d[SIZE], d[VALUE], d[RUN])


@inlined
def transpose_tile(destination, source, rows, columns, size, out_pitch, pitch):
    for c in range(columns):
        if size == 1:
            b = bytes_at(destination + c * out_pitch, rows)
            for r in range(rows):
                b[r] = bytes_at(source + r * pitch, columns)[c]
        elif size == 2:
            h = u16_at(destination + c * out_pitch, rows)
            for r in range(rows):
                h[r] = u16_at(source + r * pitch, columns)[c]
        else:
            w = i32_at(destination + c * out_pitch, rows)
            for r in range(rows):
                w[r] = i32_at(source + r * pitch, columns)[c]


@kernel()
def transpose(arena, descriptor, chunk, scratch):
    """dst[column][row] = src[row][column]; PIXELS rows, COLUMNS columns, tiles that stay in the first-level cache."""
    d = i64_at(descriptor, WORDS)
    size = d[SIZE]
    left, right = share(d[COLUMNS], d[CHUNKS], chunk, TILE)
    for column in range(left, right, TILE):
        columns = min(TILE, right - column)
        for row in range(0, d[PIXELS], TILE):
            rows = min(TILE, d[PIXELS] - row)
            destination = arena + d[DST] + column * d[OUT_PITCH] + row * size
            source = arena + d[SRC] + row * d[SRC_ROW] + column * size
            transpose_tile(destination, source, rows, columns, size, d[OUT_PITCH], d[SRC_ROW])


@inlined
def filter_word(source, channel, k, channel_step, k_step, channels, length, size):
    """The 4 bytes of a lane at index k of K, zeros where there is no channel or no k."""
    word = 0
    if channel < channels:
        for j in range(4 // size):
            if k + j < length:
                address = source + channel * channel_step + (k + j) * k_step
                if size == 1:
                    word |= np.int64(bytes_at(address, 1)[0]) << (8 * j)
                else:
                    word |= np.int64(u16_at(address, 1)[0]) << (16 * j)
    return np.int32(word)


@kernel()
def reshape_filter(arena, descriptor, chunk, scratch):
    """[PIXELS channels][COLUMNS of K], or its transpose, to panels of 32 channels: [panel][K / unit][32][4 bytes]."""
    d = i64_at(descriptor, WORDS)
    size, unit = d[SIZE], 4 // d[SIZE]
    steps = (d[COLUMNS] + unit - 1) // unit
    panels = (d[PIXELS] + 2 * PANEL - 1) // (2 * PANEL) * 2
    channel_step, k_step = (size, d[SRC_ROW]) if d[ORDER] else (d[SRC_ROW], size)
    first, end = share(panels, d[CHUNKS], chunk, 1)
    for panel in range(first, end):
        for step in range(steps):
            w = i32_at(arena + d[DST] + (panel * steps + step) * PANEL * 4, PANEL)
            for lane in range(PANEL):
                w[lane] = filter_word(
                    arena + d[SRC], panel * PANEL + lane, step * unit, channel_step, k_step, d[PIXELS], d[COLUMNS], size
                )
