"""The epilogue every kernel shares: a run of elementwise steps on a block in scratch, then one store.

A kernel leaves a block of fp32 values, `pixels` x `columns` dense, at the start of its scratch memory. The chain
applies the descriptor's steps, each rounded as the instruction it stands for, and stores the block in the
destination's type. Operands that do not change from block to block (constants, cycles over the columns) are widened
once, by a call with `prepare` set. A block has at most `layout.BLOCK` elements.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np

from compiler import numerics
from runtime.kernels import functions, layout
from runtime.kernels.build import inlined, kernel
from runtime.kernels.layout import (
    ADDRESS,
    BLOCK,
    CONST,
    CONSTANT,
    CYCLE,
    DST,
    DST_FACTOR,
    DST_PIXEL,
    DST_ROW,
    DST_TYPE,
    FULL,
    KIND,
    MODE,
    NOTHING,
    OPERAND,
    OPERAND_PIXEL,
    OPERAND_ROW,
    OPERAND_TYPE,
    OUT_WIDTH,
    PERIOD,
    ROUND,
    ROUNDING,
    SCRATCH_OPERANDS,
    SCRATCH_VALUE,
    STEP_COUNT,
    STEP_WORDS,
    STEPS,
    SWAP,
    TYPE_F16,
    TYPE_F32,
    TYPE_I8,
    TYPE_I16,
    UNARY_BASE,
    WORDS,
)
from runtime.kernels.memory import (
    absolute,
    call_kernel,
    f32_at,
    float_half,
    half_float,
    i8_at,
    i16_at,
    i32_at,
    i32_float,
    i64_at,
    low_float,
    u16_at,
)

I8_LOW, I8_HIGH = numerics.INTEGER_LIMITS[np.dtype(np.int8)]
I16_LOW, I16_HIGH = numerics.INTEGER_LIMITS[np.dtype(np.int16)]
I32_LOW, I32_HIGH = numerics.INTEGER_LIMITS[np.dtype(np.int32)]
RELU, ABS, LEAKY = UNARY_BASE, UNARY_BASE + 1, UNARY_BASE + 10
OPERAND_BYTES = 4 * BLOCK


@inlined
def load_floats(out, source, kind, n):
    """Widen `n` dense f16 or f32 elements into out (an address)."""
    o = f32_at(out, n)
    if kind == TYPE_F16:
        h = u16_at(source, n)
        for i in range(n):
            o[i] = half_float(h[i])
    else:
        f = f32_at(source, n)
        for i in range(n):
            o[i] = f[i]


@inlined
def load_float(source, kind):
    """One f16 or f32 element."""
    return half_float(u16_at(source, 1)[0]) if kind == TYPE_F16 else f32_at(source, 1)[0]


@inlined
def load_run(out, source, kind, n, factor):
    """Widen `n` dense elements of any type; integers become x * factor."""
    o = f32_at(out, n)
    if kind == TYPE_I8:
        b = i8_at(source, n)
        for i in range(n):
            o[i] = i32_float(np.int32(b[i])) * factor
    elif kind == TYPE_I16:
        s = i16_at(source, n)
        for i in range(n):
            o[i] = i32_float(np.int32(s[i])) * factor
    elif kind in (TYPE_F16, TYPE_F32):
        load_floats(out, source, kind, n)
    else:
        w = i32_at(source, n)
        for i in range(n):
            o[i] = i32_float(w[i]) * factor


@inlined
def store_run(destination, value, kind, n, factor, half_away):
    """Narrow `n` fp32 values into dense elements of any type."""
    v = f32_at(value, n)
    if kind == TYPE_F16:
        h = u16_at(destination, n)
        for i in range(n):
            h[i] = float_half(v[i])
    elif kind == TYPE_F32:
        f = f32_at(destination, n)
        for i in range(n):
            f[i] = v[i]
    else:
        store_integers(destination, v, kind, n, factor, half_away)


@inlined
def store_integers(destination, v, kind, n, factor, half_away):
    if kind == TYPE_I8:
        b = i8_at(destination, n)
        for i in range(n):
            b[i] = np.int8(functions.to_integer(v[i], factor, I8_LOW, I8_HIGH, half_away))
    elif kind == TYPE_I16:
        s = i16_at(destination, n)
        for i in range(n):
            s[i] = np.int16(functions.to_integer(v[i], factor, I16_LOW, I16_HIGH, half_away))
    else:
        w = i32_at(destination, n)
        for i in range(n):
            w[i] = functions.to_integer(v[i], factor, I32_LOW, I32_HIGH, half_away)


@inlined
def element_size(kind):
    return 1 if kind == TYPE_I8 else (2 if kind <= TYPE_F16 else 4)


@inlined
def load_block(out, address, kind, row, pixel, width, first, pixels, columns, factor):
    """Gather pixels first..first+pixels (`width` to a row) of `columns` elements each; one run where they lie dense."""
    run, runs = columns, pixels
    if (pixel == columns * element_size(kind) or pixels == 1) and row == width * pixel:
        run, runs = pixels * columns, 1
    y, x = first // width, first % width
    for p in range(runs):
        load_run(out + 4 * p * run, address + y * row + x * pixel, kind, run, factor)
        x += 1
        if x == width:
            x = 0
            y += 1


@inlined
def store_block(d, address, value, first, pixels, columns):
    kind, row, pixel, width = d[DST_TYPE], d[DST_ROW], d[DST_PIXEL], d[OUT_WIDTH]
    factor, half_away = low_float(d[DST_FACTOR]), d[ROUNDING] != 0
    run, runs = columns, pixels
    if (pixel == columns * element_size(kind) or pixels == 1) and row == width * pixel:
        run, runs = pixels * columns, 1
    y, x = first // width, first % width
    for p in range(runs):
        store_run(address + y * row + x * pixel, value + 4 * p * run, kind, run, factor, half_away)
        x += 1
        if x == width:
            x = 0
            y += 1


@inlined
def round_run(v, n):
    for i in range(n):
        v[i] = half_float(float_half(v[i]))


@inlined
def apply_binary(kind, v, b, n):
    """v = v op b for the five binary functions."""
    if kind == 0:
        for i in range(n):
            v[i] = v[i] + b[i]
    elif kind == 1:
        for i in range(n):
            v[i] = v[i] - b[i]
    elif kind == 2:
        for i in range(n):
            v[i] = v[i] * b[i]
    elif kind == 3:
        for i in range(n):
            v[i] = functions.maximum(v[i], b[i])
    else:
        for i in range(n):
            v[i] = functions.minimum(v[i], b[i])


@inlined
def apply_cheap(kind, v, n, parameter):
    """v = function(v) for the unary functions that compilers use in every network."""
    if kind == RELU:
        for i in range(n):
            v[i] = functions.relu(v[i])
    elif kind == ABS:
        for i in range(n):
            v[i] = absolute(v[i])
    else:
        for i in range(n):
            v[i] = functions.leaky_relu(v[i], parameter)


@inlined
def prepare_cycle(out, source, kind, period, first, pixels, columns):
    """out[p, i] = source[(first + i) % period] for every pixel."""
    size = element_size(kind)
    position, done = first % period, 0
    while done < columns:
        run = min(period - position, columns - done)
        load_floats(out + 4 * done, source + position * size, kind, run)
        done += run
        position = 0
    o = f32_at(out, pixels * columns)
    for i in range(columns, pixels * columns):
        o[i] = o[i - columns]


@inlined
def prepare_operands(arena, d, scratch, pixels, column, columns):
    for s in range(d[STEP_COUNT]):
        t = i64_at(d[STEPS] + s * STEP_WORDS * 8, STEP_WORDS)
        buffer = scratch + SCRATCH_OPERANDS + s * OPERAND_BYTES
        if t[KIND] < UNARY_BASE and t[MODE] == CYCLE:
            prepare_cycle(buffer, arena + t[OPERAND], t[OPERAND_TYPE], t[PERIOD], column, pixels, columns)
        elif t[KIND] < UNARY_BASE and t[MODE] == CONST:
            b = f32_at(buffer, pixels * columns)
            value = low_float(t[CONSTANT])
            for i in range(pixels * columns):
                b[i] = value


@inlined
def gather_operand(arena, d, t, buffer, first, pixels, column, columns):
    kind = t[OPERAND_TYPE]
    address = arena + t[OPERAND]
    if t[MODE] == FULL:
        address += column * element_size(kind)
        load_block(buffer, address, kind, t[OPERAND_ROW], t[OPERAND_PIXEL], d[OUT_WIDTH], first, pixels, columns,
                   np.float32(1))  # fmt: skip
        return
    values = f32_at(buffer, pixels * columns)
    for p in range(pixels):
        value = load_float(address + (first + p) * element_size(kind), kind)
        for i in range(columns):
            values[p * columns + i] = value


@inlined
def swap(v, b, n):
    for i in range(n):
        a = v[i]
        v[i] = b[i]
        b[i] = a


@kernel(8)
def chain(arena, descriptor, scratch, first, pixels, column, columns, prepare):
    """Prepare the operands for a range of columns, or apply the steps to a block and store it."""
    d = i64_at(descriptor, WORDS)
    if prepare:
        prepare_operands(arena, d, scratch, pixels, column, columns)
        return
    n = pixels * columns
    v = f32_at(scratch + SCRATCH_VALUE, n)
    for s in range(d[STEP_COUNT]):
        t = i64_at(d[STEPS] + s * STEP_WORDS * 8, STEP_WORDS)
        kind, rounded = t[KIND], t[ROUND] != 0
        if kind < UNARY_BASE:
            buffer = scratch + SCRATCH_OPERANDS + s * OPERAND_BYTES
            if t[MODE] == FULL or t[MODE] == layout.ROW:
                gather_operand(arena, d, t, buffer, first, pixels, column, columns)
            b = f32_at(buffer, n)
            if t[SWAP]:
                swap(v, b, n)  # only with operands gathered for this block
            apply_binary(kind, v, b, n)
        elif kind in (RELU, ABS, LEAKY):
            apply_cheap(kind, v, n, low_float(t[CONSTANT]))
        elif kind != NOTHING:
            call_kernel(t[ADDRESS], scratch + SCRATCH_VALUE, n, kind, 0)
        if rounded:
            round_run(v, n)
    address = arena + d[DST] + column * element_size(d[DST_TYPE])
    store_block(d, address, scratch + SCRATCH_VALUE, first, pixels, columns)
