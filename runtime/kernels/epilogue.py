"""The epilogue that nearly every convolution has, 32 columns at a time.

sum * 2^fix [round] * scale[c] [round] + bias[c] [round] + residual [round], clamped, * constant [round], stored.
With or without rounding to fp16 after every step. Steps that are missing are neutral: * 1, + -0, clamped at
infinity; a ReLU is a clamp at +0. `packing.py` recognises the form; everything else goes through `chain.py`, which
computes the same.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np

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
    FORM,
    FORM_BIAS,
    FORM_RESIDUAL,
    FORM_SCALE,
    OPERAND,
    OPERAND_PIXEL,
    OPERAND_ROW,
    OPERAND_TYPE,
    OUT_WIDTH,
    PANEL,
    POST_FACTOR,
    SCRATCH_OPERANDS,
    STEP_WORDS,
    STEPS,
    TYPE_F16,
    TYPE_I8,
)
from runtime.kernels.memory import copy_bytes, f32_at, half_float, i64_at, low_float, u16_at
from runtime.kernels.rows import (
    finish_row,
    store_bytes,
    store_floats,
    store_halves,
)

ONE, MINUS_ZERO = np.float32(1), np.float32(-0.0)
VECTOR_BYTES = 4 * PANEL
SCALES, BIASES, FINISHED, SPARE = (SCRATCH_OPERANDS + k * VECTOR_BYTES for k in range(4))
"""In place of the chain's operands: the vectors of a panel, a finished row, and the row that takes a partial store."""


@inlined
def load_vector(out, address, kind, columns):
    """Widen `columns` elements of a scale or bias vector."""
    o = f32_at(out, columns)
    if kind == TYPE_F16:
        h = u16_at(address, columns)
        for j in range(columns):
            o[j] = half_float(h[j])
    else:
        f = f32_at(address, columns)
        for j in range(columns):
            o[j] = f[j]


@inlined
def prepare_vector(arena, d, index, out, neutral, column, columns):
    """The operand of step `index` for a block of columns, or what is neutral when there is no such step."""
    if index < 0:
        o = f32_at(out, columns)
        for j in range(columns):
            o[j] = neutral
        return
    t = i64_at(d[STEPS] + index * STEP_WORDS * 8, STEP_WORDS)
    size = 2 if t[OPERAND_TYPE] == TYPE_F16 else 4
    load_vector(out, arena + t[OPERAND] + column * size, t[OPERAND_TYPE], columns)


@inlined
def prepare_form(arena, d, scratch, column, columns):
    """Load scale and bias of a block of columns."""
    prepare_vector(arena, d, d[FORM_SCALE], scratch + SCALES, ONE, column, columns)
    prepare_vector(arena, d, d[FORM_BIAS], scratch + BIASES, MINUS_ZERO, column, columns)


@inlined
def store_panel(address, value, kind, factor):
    if kind == TYPE_I8:
        store_bytes(address, value, factor)
    elif kind == TYPE_F16:
        store_halves(address, value, factor)
    else:
        store_floats(address, value, factor)


@inlined
def finish_tile(arena, d, scratch, sums, first, pixels, column, columns):
    """From the sums of a tile, 32 to a pixel, to stored elements."""
    scale, bias, out, spare = scratch + SCALES, scratch + BIASES, scratch + FINISHED, scratch + SPARE
    factor, low, high = low_float(d[FIX_FACTOR]), low_float(d[CLAMP_LOW]), low_float(d[CLAMP_HIGH])
    width, kind, form, last = d[OUT_WIDTH], d[DST_TYPE], d[FORM], low_float(d[POST_FACTOR])
    size = 1 if kind == TYPE_I8 else (2 if kind == TYPE_F16 else 4)
    target, store_factor = arena + d[DST] + column * size, low_float(d[DST_FACTOR])
    other, other_row, other_pixel = np.int64(0), np.int64(0), np.int64(0)
    if d[FORM_RESIDUAL] >= 0:
        t = i64_at(d[STEPS] + d[FORM_RESIDUAL] * STEP_WORDS * 8, STEP_WORDS)
        other = arena + t[OPERAND] + column * (2 if t[OPERAND_TYPE] == TYPE_F16 else 4)
        other_row, other_pixel = t[OPERAND_ROW], t[OPERAND_PIXEL]
    y, x = first // width, first % width
    for p in range(pixels):
        residual = other + y * other_row + x * other_pixel
        finish_row(form, sums + VECTOR_BYTES * p, out, scale, bias, residual, factor, low, high, last)
        place = target + y * d[DST_ROW] + x * d[DST_PIXEL]
        if columns == PANEL:
            store_panel(place, out, kind, store_factor)
        else:
            store_panel(spare, out, kind, store_factor)
            copy_bytes(place, spare, columns * size)
        x += 1
        if x == width:
            x = 0
            y += 1
