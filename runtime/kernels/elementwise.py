"""Elementwise instructions and chains of them: load a block as fp32, run the chain, store.

A binary, unary or convert instruction is a chain of one step or none; a fused run of them is a longer one.
"""

# mypy: ignore-errors
from __future__ import annotations

from runtime.kernels.build import inlined, kernel
from runtime.kernels.chain import element_size, load_block
from runtime.kernels.layout import (
    BLOCK,
    BLOCK_COLUMNS,
    CHAIN,
    CHUNKS,
    COLUMNS,
    OUT_WIDTH,
    PIXEL_CHUNKS,
    PIXELS,
    REUSE,
    SCRATCH_VALUE,
    SRC,
    SRC_FACTOR,
    SRC_PIXEL,
    SRC_ROW,
    SRC_TYPE,
    WORDS,
)
from runtime.kernels.memory import call_chain, i64_at, low_float


@inlined
def share(total, parts, part, unit):
    """Part `part` of `parts` of range(total), cut at multiples of `unit`: (first, end)."""
    units = (total + unit - 1) // unit
    return units * part // parts * unit, min(total, units * (part + 1) // parts * unit)


@kernel()
def elementwise(arena, descriptor, chunk, scratch):
    d = i64_at(descriptor, WORDS)
    across = d[PIXEL_CHUNKS]
    width = d[BLOCK_COLUMNS]
    height = max(1, BLOCK // width)
    first, end = share(d[PIXELS], across, chunk % across, 1)
    left, right = share(d[COLUMNS], d[CHUNKS] // across, chunk // across, width)
    factor = low_float(d[SRC_FACTOR])
    kind = d[SRC_TYPE]
    for column in range(left, right, width):
        columns = min(width, right - column)
        if column == left or columns != width or not d[REUSE]:
            call_chain(d[CHAIN], arena, descriptor, scratch, 0, height, column, columns, 1)
        source = arena + d[SRC] + column * element_size(kind)
        for pixel in range(first, end, height):
            pixels = min(height, end - pixel)
            load_block(
                scratch + SCRATCH_VALUE, source, kind, d[SRC_ROW], d[SRC_PIXEL], d[OUT_WIDTH], pixel, pixels, columns,
                factor,
            )  # fmt: skip
            call_chain(d[CHAIN], arena, descriptor, scratch, pixel, pixels, column, columns, 0)
