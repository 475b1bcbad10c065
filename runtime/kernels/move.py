"""Copies, fills, transpositions and packing of filters.

Chunks cut the outermost loop that has more than one turn, or a single long run.
"""

# mypy: ignore-errors
from __future__ import annotations

from compiler.native.build import kernel
from compiler.native.language import LANES, function
from compiler.native.memory import (
    BYTES,
    INTS,
    SHORTS,
    copy_bytes,
    i64_at,
    lanes_below,
    spread,
    store_first,
    truncated,
    u8_at,
    u16_at,
    u32_at,
)
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
    SRC,
    SRC0,
    SRC1,
    SRC2,
    SRC_ROW,
    VALUE,
)
from runtime.kernels.layout import DST_ROW as OUT_PITCH
from runtime.kernels.steps import share

CACHE_LINE = 64
SMALL = 32
TILE = 16
VECTORS = {1: BYTES, 2: SHORTS, 4: INTS}
VIEWS = {1: u8_at, 2: u16_at, 4: u32_at}
"""By the size of an element."""
PARTS = {1: (0, 1, 2, 3), 2: (0, 1)}
"""The elements of a 4-byte word, by their size."""


@function
def copy_run(destination, source, count):
    """A call of memcpy costs more than a short run."""
    if count > SMALL:
        copy_bytes(destination, source, count)
    else:
        done = 0
        while done + 4 <= count:
            u32_at(destination + done)[0] = u32_at(source + done)[0]
            done += 4
        while done < count:
            u8_at(destination + done)[0] = u8_at(source + done)[0]
            done += 1


@kernel()
def copy(arena, descriptor, chunk, scratch):
    d = i64_at(descriptor)
    destination, source, run = arena + d[DST], arena + d[SRC], d[RUN]
    rows, lines, runs = d[N0], d[N1], d[N2]
    if rows * lines * runs == 1:
        start, stop = share(run, d[CHUNKS], chunk, CACHE_LINE)
        copy_bytes(destination + start, source + start, stop - start)
    else:
        first, end = share(rows, d[CHUNKS], chunk, 1)
        for i in range(first, end):
            for j in range(lines):
                a = destination + i * d[DST0] + j * d[DST1]
                b = source + i * d[SRC0] + j * d[SRC1]
                copy_runs(a, b, run, runs, d[DST2], d[SRC2])


@function
def copy_runs(destination, source, run, runs, dst_step, src_step):
    """Many single elements are what a transposition is made of."""
    if run == 2:
        for k in range(runs):
            u16_at(destination + k * dst_step)[0] = u16_at(source + k * src_step)[0]
    elif run == 4:
        for k in range(runs):
            u32_at(destination + k * dst_step)[0] = u32_at(source + k * src_step)[0]
    else:
        for k in range(runs):
            copy_run(destination + k * dst_step, source + k * src_step, run)


@kernel()
def fill(arena, descriptor, chunk, scratch, size):
    """`size`: bytes of an element."""
    d = i64_at(descriptor)
    first, end = share(d[N0], d[CHUNKS], chunk, 1)
    kind = VECTORS[size]
    value = spread(truncated(d[VALUE], kind.element), kind)
    count = d[RUN] // size
    whole = count - count % LANES
    for i in range(first, end):
        for j in range(d[N1]):
            for k in range(d[N2]):
                address = arena + d[DST] + i * d[DST0] + j * d[DST1] + k * d[DST2]
                for n in range(0, whole, LANES):
                    store_first(value, address + n * size, None)
                if whole != count:
                    store_first(value, address + whole * size, lanes_below(count - whole))


@kernel()
def transpose(arena, descriptor, chunk, scratch, size):
    """dst[column][row] = src[row][column]; PIXELS rows, COLUMNS columns, tiles that stay in the first-level cache.
    `size`: bytes of an element."""
    d = i64_at(descriptor)
    view = VIEWS[size]
    left, right = share(d[COLUMNS], d[CHUNKS], chunk, TILE)
    rows, pitch, out_pitch = d[PIXELS], d[SRC_ROW], d[OUT_PITCH]
    for start in range(left, right, TILE):
        for top in range(0, rows, TILE):
            bottom = min(rows, top + TILE)
            for column in range(start, min(right, start + TILE)):
                destination, source = arena + d[DST] + column * out_pitch, arena + d[SRC] + column * size
                for row in range(top, bottom):
                    view(destination)[row] = view(source + row * pitch)[0]


@function
def filter_word(source, channel, k, channel_step, k_step, channels, length, size):
    """The 4 bytes of a lane at index k of K, zeros where there is no channel or no k."""
    word = 0
    if channel < channels:
        for j in PARTS[size]:
            if k + j < length:
                address = source + channel * channel_step + (k + j) * k_step
                element = u8_at(address)[0] if size == 1 else u16_at(address)[0]
                word = word | (element << (8 * size * j))
    return word


@kernel()
def reshape_filter(arena, descriptor, chunk, scratch, size):
    """[PIXELS channels][COLUMNS of K], or its transpose, to panels of 32 channels: [panel][K / unit][32][4 bytes].
    `size`: bytes of an element."""
    d = i64_at(descriptor)
    unit = 4 // size
    channels, length, pitch, order = d[PIXELS], d[COLUMNS], d[SRC_ROW], d[ORDER]
    steps = (length + unit - 1) // unit
    panels = (channels + 2 * PANEL - 1) // (2 * PANEL) * 2
    channel_step = size if order != 0 else pitch
    k_step = pitch if order != 0 else size
    first, end = share(panels, d[CHUNKS], chunk, 1)
    for panel in range(first, end):
        for step in range(steps):
            words = arena + d[DST] + (panel * steps + step) * PANEL * 4
            for lane in range(PANEL):
                u32_at(words)[lane] = filter_word(
                    arena + d[SRC], panel * PANEL + lane, step * unit, channel_step, k_step, channels, length, size
                )
