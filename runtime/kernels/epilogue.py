"""The epilogue that nearly every convolution has, as straight loops over a tile's 32 columns.

sum * 2^fix [round] * scale[c] [round] + bias[c] [round] + residual [round], clamped, * constant [round], stored.
With or without rounding to fp16 after every step. Steps that are missing are neutral: * 1, + -0, clamped at
infinity; a ReLU is a clamp at +0. `packing.py` recognises the form; everything else goes through `chain.py`, which
computes the same.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np

from compiler import numerics
from runtime.kernels import functions
from runtime.kernels.build import inlined
from runtime.kernels.layout import (
    CLAMP_HIGH,
    CLAMP_LOW,
    DST,
    DST_FACTOR,
    DST_PIXEL,
    DST_ROW,
    DST_TYPE,
    FIX_FACTOR,
    FORM_BIAS,
    FORM_POST,
    FORM_RESIDUAL,
    FORM_ROUNDS,
    FORM_SCALE,
    OPERAND,
    OPERAND_PIXEL,
    OPERAND_ROW,
    OPERAND_TYPE,
    OUT_WIDTH,
    PANEL,
    POST_FACTOR,
    SCRATCH_OPERANDS,
    SCRATCH_VALUE,
    STEP_WORDS,
    STEPS,
    TYPE_F16,
    TYPE_I8,
)
from runtime.kernels.memory import (
    f32_at,
    float_half,
    half_float,
    i8_at,
    i32_at,
    i32_float,
    i64_at,
    low_float,
    u16_at,
)

LOWEST, HIGHEST = numerics.INTEGER_LIMITS[np.dtype(np.int8)]
ONE, MINUS_ZERO = np.float32(1), np.float32(-0.0)
VECTOR_BYTES = 4 * PANEL
NEUTRAL_SCALE = SCRATCH_OPERANDS
"""Operand buffers of the scale and of the bias stand at fixed places; the chain's own are not used."""
NEUTRAL_BIAS = SCRATCH_OPERANDS + VECTOR_BYTES


@inlined
def load_vector(out, address, kind, columns):
    """Widen `columns` elements of a scale or bias vector; the rest of the panel is not looked at."""
    o = f32_at(out, PANEL)
    if kind == TYPE_F16:
        h = u16_at(address, columns)
        for j in range(columns):
            o[j] = half_float(h[j])
    else:
        f = f32_at(address, columns)
        for j in range(columns):
            o[j] = f[j]


@inlined
def prepare_form(arena, d, scratch, column, columns):
    """Load scale and bias of a panel, or what is neutral in their place."""
    scale, bias = f32_at(scratch + NEUTRAL_SCALE, PANEL), f32_at(scratch + NEUTRAL_BIAS, PANEL)
    for j in range(PANEL):
        scale[j] = ONE
        bias[j] = MINUS_ZERO
    for place in range(2):
        index = d[FORM_SCALE] if place == 0 else d[FORM_BIAS]
        if index >= 0:
            t = i64_at(d[STEPS] + index * STEP_WORDS * 8, STEP_WORDS)
            size = 2 if t[OPERAND_TYPE] == TYPE_F16 else 4
            out = scratch + (NEUTRAL_SCALE if place == 0 else NEUTRAL_BIAS)
            load_vector(out, arena + t[OPERAND] + column * size, t[OPERAND_TYPE], columns)


@inlined
def rounded(x):
    return half_float(float_half(x))


@inlined
def clamp(x, low, high):
    x = low if x <= low else x
    return high if x >= high else x


@inlined
def scale_rounded(sums, value, scratch, factor, low, high):
    s, v = i32_at(sums, PANEL), f32_at(value, PANEL)
    scale, bias = f32_at(scratch + NEUTRAL_SCALE, PANEL), f32_at(scratch + NEUTRAL_BIAS, PANEL)
    for j in range(PANEL):
        x = rounded(i32_float(s[j]) * factor)
        x = rounded(x * scale[j])
        x = rounded(x + bias[j])
        v[j] = clamp(x, low, high)


@inlined
def scale_rounded_residual(sums, value, scratch, factor, low, high, residual):
    s, v, r = i32_at(sums, PANEL), f32_at(value, PANEL), u16_at(residual, PANEL)
    scale, bias = f32_at(scratch + NEUTRAL_SCALE, PANEL), f32_at(scratch + NEUTRAL_BIAS, PANEL)
    for j in range(PANEL):
        x = rounded(i32_float(s[j]) * factor)
        x = rounded(x * scale[j])
        x = rounded(x + bias[j])
        x = rounded(x + half_float(r[j]))
        v[j] = clamp(x, low, high)


@inlined
def scale_exact(sums, value, scratch, factor, low, high):
    s, v = i32_at(sums, PANEL), f32_at(value, PANEL)
    scale, bias = f32_at(scratch + NEUTRAL_SCALE, PANEL), f32_at(scratch + NEUTRAL_BIAS, PANEL)
    for j in range(PANEL):
        x = i32_float(s[j]) * factor
        x = x * scale[j]
        v[j] = clamp(x + bias[j], low, high)


@inlined
def scale_exact_residual(sums, value, scratch, factor, low, high, residual):
    s, v, r = i32_at(sums, PANEL), f32_at(value, PANEL), f32_at(residual, PANEL)
    scale, bias = f32_at(scratch + NEUTRAL_SCALE, PANEL), f32_at(scratch + NEUTRAL_BIAS, PANEL)
    for j in range(PANEL):
        x = i32_float(s[j]) * factor
        x = x * scale[j]
        x = x + bias[j]
        v[j] = clamp(x + r[j], low, high)


@inlined
def multiply(value, n, factor, rounds):
    v = f32_at(value, n)
    if rounds:
        for i in range(n):
            v[i] = rounded(v[i] * factor)
    else:
        for i in range(n):
            v[i] = v[i] * factor


@inlined
def store_row(address, value, kind, columns, factor):
    v = f32_at(value, PANEL)
    if kind == TYPE_F16:
        h = u16_at(address, columns)
        if columns == PANEL:
            for j in range(PANEL):
                h[j] = float_half(v[j])
        else:
            for j in range(columns):
                h[j] = float_half(v[j])
    elif kind == TYPE_I8:
        b = i8_at(address, columns)
        if columns == PANEL:
            for j in range(PANEL):
                b[j] = np.int8(functions.to_integer(v[j], factor, LOWEST, HIGHEST, False))
        else:
            for j in range(columns):
                b[j] = np.int8(functions.to_integer(v[j], factor, LOWEST, HIGHEST, False))
    else:
        f = f32_at(address, columns)
        for j in range(columns):
            f[j] = v[j]


@inlined
def finish_tile(arena, d, scratch, sums, first, pixels, column, columns):
    """From the sums of a tile to stored elements."""
    value = scratch + SCRATCH_VALUE
    factor, low, high = low_float(d[FIX_FACTOR]), low_float(d[CLAMP_LOW]), low_float(d[CLAMP_HIGH])
    width, rounds = d[OUT_WIDTH], d[FORM_ROUNDS] != 0
    y, x = first // width, first % width
    if d[FORM_RESIDUAL] >= 0:
        t = i64_at(d[STEPS] + d[FORM_RESIDUAL] * STEP_WORDS * 8, STEP_WORDS)
        residual = arena + t[OPERAND] + column * (2 if rounds else 4)
        ry, rx = y, x
        for p in range(pixels):
            address = residual + ry * t[OPERAND_ROW] + rx * t[OPERAND_PIXEL]
            at = sums + VECTOR_BYTES * p
            if rounds:
                scale_rounded_residual(at, value + VECTOR_BYTES * p, scratch, factor, low, high, address)
            else:
                scale_exact_residual(at, value + VECTOR_BYTES * p, scratch, factor, low, high, address)
            rx += 1
            if rx == width:
                rx = 0
                ry += 1
    else:
        for p in range(pixels):
            if rounds:
                scale_rounded(sums + VECTOR_BYTES * p, value + VECTOR_BYTES * p, scratch, factor, low, high)
            else:
                scale_exact(sums + VECTOR_BYTES * p, value + VECTOR_BYTES * p, scratch, factor, low, high)
    if d[FORM_POST]:
        multiply(value, pixels * PANEL, low_float(d[POST_FACTOR]), rounds)
    kind, store_factor = d[DST_TYPE], low_float(d[DST_FACTOR])
    size = 1 if kind == TYPE_I8 else (2 if kind == TYPE_F16 else 4)
    target = arena + d[DST] + column * size
    for p in range(pixels):
        store_row(target + y * d[DST_ROW] + x * d[DST_PIXEL], value + VECTOR_BYTES * p, kind, columns, store_factor)
        x += 1
        if x == width:
            x = 0
            y += 1
