"""Reductions over dense rows. A sum keeps 16 strided partial sums and folds them by a fixed tree
(`numerics.sum_lanes`)."""

# mypy: ignore-errors
from __future__ import annotations

from compiler.native.build import kernel
from compiler.native.language import LANES, function
from compiler.native.memory import FLOATS, i64_at, lane, lanes_below, select, spread, upper_lanes, zeros
from runtime.kernels import functions
from runtime.kernels.layout import CHUNKS, COLUMNS, DST, PIXELS, SIZES, SRC, SRC_ROW
from runtime.kernels.steps import load_floats, share, store_lanes

SUM, MAX = 0, 1
FOLDS = (8, 4, 2, 1)


@function
def combine(code, a, b):
    if code == SUM:
        return a + b
    return functions.maximum(a, b) if code == MAX else functions.minimum(a, b)


@function
def row_lanes(source, code, address, count):
    """16 strided partial results of a row; an extreme starts with the first element in every lane."""
    total = zeros(FLOATS) if code == SUM else spread(lane(load_floats(source, address), 0))
    whole = count - count % LANES
    for i in range(0, whole, LANES):
        total = combine(code, total, load_floats(source, address + i * SIZES[source]))
    if whole != count:
        more = combine(code, total, load_floats(source, address + whole * SIZES[source]))
        total = select(lanes_below(count - whole), more, total)
    return total


@kernel()
def reduce(arena, descriptor, chunk, scratch, source, code):
    d = i64_at(descriptor)
    first, end = share(d[PIXELS], d[CHUNKS], chunk, 1)
    for row in range(first, end):
        total = row_lanes(source, code, arena + d[SRC] + row * d[SRC_ROW], d[COLUMNS])
        for width in FOLDS:
            total = combine(code, total, upper_lanes(total, width))
        store_lanes((source, False), total, arena + d[DST] + row * SIZES[source], 0.0, lanes_below(1))
