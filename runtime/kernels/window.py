"""Pooling and depthwise convolution: windows over channels, accumulated in fp32 in tap order, then the steps."""

# mypy: ignore-errors
from __future__ import annotations

from compiler.native.build import kernel
from compiler.native.language import LANES, function
from compiler.native.memory import FLOATS, i64_at, load, low_float, store, zeros
from runtime.kernels import functions
from runtime.kernels.blocks import blocks, nothing
from runtime.kernels.layout import (
    COLUMNS,
    DILATION_X,
    DILATION_Y,
    KH,
    KW,
    SCRATCH_PANEL,
    SIZES,
    SRC_PIXEL,
    SRC_ROW,
    STRIDE_X,
    STRIDE_Y,
    WEIGHTS,
    WINDOW_FACTOR,
)
from runtime.kernels.steps import load_floats

MAX, MEAN, SUM = range(3)
VECTOR_BYTES = 4 * LANES


def taps_of(size):
    """(ky, kx) of a window known beforehand."""
    return tuple((ky, kx) for ky in range(size[0]) for kx in range(size[1]))


@function
def distances(d):
    """Bytes between windows, from row to row and within a row."""
    return d[STRIDE_Y] * d[SRC_ROW], d[STRIDE_X] * d[SRC_PIXEL]


# -- depthwise ---------------------------------------------------------------------------------------------------------
@kernel()
def depthwise(arena, descriptor, chunk, scratch, source, target, steps, size, dense):
    """`size`: (kh, kw) where known beforehand, or None. `dense`: windows lie one pixel apart, and so do their taps."""
    d = i64_at(descriptor)
    window = size, d[KH], d[KW], d[DILATION_Y] * d[SRC_ROW], d[DILATION_X] * d[SRC_PIXEL]
    form = source, target, steps
    pairs = depthwise_pair if dense and size is not None else None
    blocks(arena, d, chunk, scratch, form, distances(d), prepare_weights, depthwise_window, pairs, window)


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
        return (total,)
    place = weights + i * (kh * kw * 4)
    for ky in range(kh):
        for kx in range(kw):
            total = total + load_floats(source, start + ky * row + kx * pixel) * load(FLOATS, place)
            place += VECTOR_BYTES
    return (total,)


@function
def depthwise_pair(source, corner, weights, window, i):
    """16 channels of a window and of the next one, which has all its columns but the first."""
    size, _, _, row, pixel = window
    first, second = zeros(FLOATS), zeros(FLOATS)
    start, w = corner + i * SIZES[source], weights + i * (size[0] * size[1] * 4)
    for ky in tuple(range(size[0])):
        x = load_floats(source, start + ky * row)
        for kx in tuple(range(size[1])):
            following = load_floats(source, start + ky * row + (kx + 1) * pixel)
            weight = load(FLOATS, w + (ky * size[1] + kx) * VECTOR_BYTES)
            first = first + x * weight
            second = second + following * weight
            x = following
    return first, second


# -- pooling -----------------------------------------------------------------------------------------------------------
@kernel()
def pool(arena, descriptor, chunk, scratch, source, target, steps, function):
    """`function`: MAX, MEAN or SUM."""
    d = i64_at(descriptor)
    window = function, d[KH], d[KW], d[SRC_ROW], d[SRC_PIXEL], low_float(d[WINDOW_FACTOR])
    form = source, target, steps
    blocks(arena, d, chunk, scratch, form, distances(d), nothing, pool_window, None, window)


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
    return (total * factor if code == MEAN else total,)
