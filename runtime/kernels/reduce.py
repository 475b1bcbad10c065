"""Reductions over dense rows. A sum keeps 16 strided partial sums and folds them by a fixed tree
(`numerics.sum_lanes`)."""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np

from runtime.kernels import functions
from runtime.kernels.build import inlined, kernel
from runtime.kernels.chain import element_size, load_float, load_floats
from runtime.kernels.elementwise import share
from runtime.kernels.layout import (
    BLOCK,
    CHUNKS,
    COLUMNS,
    DST,
    FUNCTION_CODE,
    PIXELS,
    SCRATCH_OPERANDS,
    SCRATCH_VALUE,
    SRC,
    SRC_ROW,
    SRC_TYPE,
    TYPE_F16,
    WORDS,
)
from runtime.kernels.memory import f32_at, float_half, i64_at, u16_at

SUM, MAX = 0, 1
LANES = 16


@inlined
def row_sum(source, kind, count, scratch):
    lanes = f32_at(scratch + SCRATCH_OPERANDS, LANES)
    value = f32_at(scratch + SCRATCH_VALUE, BLOCK)
    for j in range(LANES):
        lanes[j] = np.float32(0)
    for start in range(0, count, BLOCK):
        n = min(BLOCK, count - start)
        load_floats(scratch + SCRATCH_VALUE, source + start * element_size(kind), kind, n)
        whole = n // LANES * LANES
        for i in range(0, whole, LANES):
            for j in range(LANES):
                lanes[j] = lanes[j] + value[i + j]
        for j in range(n - whole):
            lanes[j] = lanes[j] + value[whole + j]
    width = LANES // 2
    while width > 0:
        for j in range(width):
            lanes[j] = lanes[j] + lanes[j + width]
        width //= 2
    return lanes[0]


@inlined
def row_extreme(source, kind, count, largest):
    size = element_size(kind)
    result = load_float(source, kind)
    for i in range(count):
        x = load_float(source + i * size, kind)
        result = functions.maximum(result, x) if largest else functions.minimum(result, x)
    return result


@kernel()
def reduce(arena, descriptor, chunk, scratch):
    d = i64_at(descriptor, WORDS)
    kind, count, code = d[SRC_TYPE], d[COLUMNS], d[FUNCTION_CODE]
    first, end = share(d[PIXELS], d[CHUNKS], chunk, 1)
    for row in range(first, end):
        source = arena + d[SRC] + row * d[SRC_ROW]
        extreme = row_extreme(source, kind, count, code == MAX) if code != SUM else np.float32(0)
        result = row_sum(source, kind, count, scratch) if code == SUM else extreme
        address = arena + d[DST] + row * element_size(kind)
        if kind == TYPE_F16:
            u16_at(address, 1)[0] = float_half(result)
        else:
            f32_at(address, 1)[0] = result
