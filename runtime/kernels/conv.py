"""Integer convolution: exact sums of a tile of pixels and a panel of 32 filters, kept in registers, then conversion,
the steps, and the store.

K is described by a table of byte offsets, one per step of four filter bytes, so that windows, dilation and runs need no
loops here. Padding inside runs is multiplied by zero filters; where the filters are not known to be zero there (they
were not read from constants), the panel is copied and cleared first.
"""

# mypy: ignore-errors
from __future__ import annotations

from compiler.native.build import kernel
from compiler.native.language import I16, I32, LANES, function
from compiler.native.memory import (
    INTS,
    WIDE,
    i64_at,
    lanes_below,
    load,
    low_float,
    registers,
    sign_extended,
    spread,
    store,
    store_first,
    to_floats,
    u32_at,
    zeros,
)
from runtime.kernels.layout import (
    CHUNKS,
    COLUMNS,
    DST,
    DST_FACTOR,
    DST_PIXEL,
    DST_ROW,
    FILTERS,
    FIX_FACTOR,
    K_STEPS,
    OFFSETS,
    OUT_WIDTH,
    PANEL,
    PANEL_BYTES,
    PARTIAL_SUMS,
    PIXEL_CHUNKS,
    PIXELS,
    SCRATCH_PANEL,
    SCRATCH_START,
    SIZES,
    SRC,
    SRC_PIXEL,
    SRC_ROW,
    STARTS,
    STRIDE_X,
    STRIDE_Y,
    TAIL_MASK,
    TYPE_I8,
)
from runtime.kernels.steps import (
    apply_steps,
    pixel_operands,
    prepare_cycles,
    share,
    step_operands,
    store_lanes,
)
from runtime.kernels.vnni import AVAILABLE, activations, byte_of, dot, flip

NONE, FIRST, MIDDLE, LAST = range(4)
STEP_BYTES = 4 * PANEL
VECTOR_BYTES = 4 * LANES


def upto(count):
    """For a loop that is unrolled."""
    return tuple(range(count))


# -- panels ------------------------------------------------------------------------------------------------------------
@function
def clean_panel(d, filters, scratch):
    """Copy a panel with the padding of its runs cleared; TAIL_MASK is the address of one byte mask per step."""
    masks = d[TAIL_MASK]
    for k in range(d[K_STEPS]):
        mask = spread(load(I32, masks + 4 * k), INTS)
        for j in upto(PANEL // LANES):
            place = k * STEP_BYTES + j * VECTOR_BYTES
            store(load(INTS, filters + place) & mask, scratch + SCRATCH_PANEL + place)
    return scratch + SCRATCH_PANEL


@function
def panel_of(arena, d, scratch, dirty, panel):
    filters = arena + d[FILTERS] + panel * d[PANEL_BYTES]
    return clean_panel(d, filters, scratch) if dirty else filters


@function
def starts_of_panel(d, scratch, filters, panel):
    """Address of what the sums of a panel begin with: the table's, or computed from the filters."""
    address = d[STARTS] + panel * STEP_BYTES
    if d[STARTS] == 0:
        address = scratch + SCRATCH_START
        compute_starts(d[K_STEPS], filters, address)
    return address


@function
def compute_starts(steps, filters, out):
    if AVAILABLE:
        sums, flipped = registers(PANEL // LANES, INTS), flip()
        for j in upto(PANEL // LANES):
            sums[j] = zeros(INTS)
        for k in range(steps):
            for j in upto(PANEL // LANES):
                sums[j] = dot(sums[j], flipped, load(INTS, filters + k * STEP_BYTES + j * VECTOR_BYTES))
        for j in upto(PANEL // LANES):
            store(zeros(INTS) - sums[j], out + j * VECTOR_BYTES)
    else:
        for j in upto(PANEL // LANES):
            store(zeros(INTS), out + j * VECTOR_BYTES)


# -- the loops over panels and tiles -----------------------------------------------------------------------------------
@kernel()
def conv(arena, descriptor, chunk, scratch, wide, target, steps, partial, tile, linear, full, tail, dirty):
    """`wide`: (activation type, filter type). `target`: (element type, half away). A tile has `tile` pixels.

    `linear`: pixels lie at one distance everywhere, so that rows need no thought. `full`: there are whole panels;
    `tail`: columns of the last panel, 0 when it is whole. `dirty`: the padding of filters is to be cleared.
    """
    d = i64_at(descriptor)
    across = d[PIXEL_CHUNKS]
    first, end = share(d[PIXELS], across, chunk % across, tile)
    left, right = share(d[COLUMNS], d[CHUNKS] // across, chunk // across, PANEL)
    operands = step_operands(steps, arena, d)
    form = wide, target, steps, partial, tile, linear, operands
    whole = right - right % PANEL if tail else right
    if full:
        for column in range(left, whole, PANEL):
            panel(arena, d, scratch, form, dirty, column, first, end, PANEL)
    if tail and whole != right:
        panel(arena, d, scratch, form, dirty, whole, first, end, tail)


@function
def panel(arena, d, scratch, form, dirty, column, first, end, columns):
    """All pixels of first..end by one panel's `columns` columns."""
    wide, target, steps, partial, tile, linear, operands = form
    filters = panel_of(arena, d, scratch, dirty, column // PANEL)
    starts = starts_of_panel(d, scratch, filters, column // PANEL) if wide == (TYPE_I8, TYPE_I8) else 0
    prepare_cycles(steps, operands, scratch, column, columns)
    vectors = (columns + LANES - 1) // LANES
    # counted at run time: LLVM stores four bytes of an integer narrowed to fewer for a constant mask of one lane
    lanes = lanes_below(d[COLUMNS] % LANES) if columns % LANES else None
    src, dst, size = arena + d[SRC], arena + d[DST] + column * SIZES[target[0]], SIZES[target[0]]
    src_step, dst_step, out_width = d[STRIDE_X] * d[SRC_PIXEL], d[DST_PIXEL], d[OUT_WIDTH]
    src_row, dst_row = d[STRIDE_Y] * d[SRC_ROW], d[DST_ROW]
    offsets, k_steps, total_columns = d[OFFSETS], d[K_STEPS], d[COLUMNS]
    fix, factor = low_float(d[FIX_FACTOR]), low_float(d[DST_FACTOR])
    stored = arena + d[PARTIAL_SUMS]
    y, x = first // out_width, first % out_width
    if linear:
        y, x = 0, first
    for pixel in range(first, end, tile):
        sources, targets, places = (), (), ()
        for m in upto(tile):
            sources = (*sources, src + x * src_step if linear else src + y * src_row + x * src_step)
            targets = (*targets, dst + x * dst_step if linear else dst + y * dst_row + x * dst_step)
            places = (*places, pixel_operands(steps, operands, y, x, pixel + m, column))
            if linear:
                x = min(x + 1, end - 1) if m + 1 < tile else x + 1
            else:
                inside = pixel + m + 1 < end
                following = x + 1
                wraps = following == out_width
                x = (0 if wraps else following) if inside else x
                y = (y + 1 if wraps else y) if inside else y
        sums = tile_sums(wide, tile, vectors, sources, offsets, k_steps, filters, starts)
        for m in upto(tile):
            if m == 0 or pixel + m < end:
                for j in upto(vectors):
                    mask = lanes if j == vectors - 1 else None
                    total = sums[m * vectors + j]
                    if partial != NONE:
                        place = (pixel + m) * total_columns + column + j * LANES
                        total = combine(partial, wide, stored, place, total, mask)
                    if partial in (NONE, LAST):
                        value = apply_steps(steps, operands, places[m], scratch, j * LANES, to_floats(total) * fix)
                        store_lanes(target, value, targets[m] + j * LANES * size, factor, mask)


@function
def combine(partial, wide, stored, place, total, lanes):
    """FIRST stores sums, MIDDLE and LAST add the stored ones; MIDDLE stores again. Sums wrap."""
    kind, size = (INTS, 4) if wide == (TYPE_I8, TYPE_I8) else (WIDE, 8)
    if partial != FIRST:
        total = total + load(kind, stored + place * size)
    if partial != LAST:
        store_first(total, stored + place * size, lanes)
    return total


# -- sums --------------------------------------------------------------------------------------------------------------
@function
def tile_sums(wide, tile, vectors, sources, offsets, k_steps, filters, starts):
    """`tile` x `vectors` vectors of exact sums."""
    kind = INTS if wide == (TYPE_I8, TYPE_I8) else WIDE
    sums = registers(tile * vectors, kind)
    for m in upto(tile):
        for j in upto(vectors):
            sums[m * vectors + j] = load(INTS, starts + j * VECTOR_BYTES) if kind is INTS else zeros(WIDE)
    flipped = flip() if AVAILABLE else None
    for k in range(k_steps):
        offset = offset_of(offsets, k)
        for j in upto(vectors):
            weights = load(INTS, filters + k * STEP_BYTES + j * VECTOR_BYTES)
            for m in upto(tile):
                address = sources[m] + offset
                if kind is INTS:
                    sums[m * vectors + j] = dot(sums[m * vectors + j], activations(address, flipped), weights)
                else:
                    sums[m * vectors + j] = wide_dot(wide, sums[m * vectors + j], address, weights)
    return sums


@function
def offset_of(offsets, k):
    return u32_at(offsets)[k]


@function
def wide_dot(wide, total, address, weights):
    """Products of int16 activations fit int32; four of them with int8 filters do too, two with int16 filters do not."""
    if wide[1] == TYPE_I8:
        products = zeros(INTS)
        for number in upto(4):
            products = products + activation_16(address, number) * byte_of(weights, number)
        return total + sign_extended(products, WIDE)
    for number in upto(2):
        half = (weights << (16 - 16 * number)) >> 16
        total = total + sign_extended(activation_16(address, number) * half, WIDE)
    return total


@function
def activation_16(address, number):
    return spread(sign_extended(load(I16, address + 2 * number), I32), INTS)
