"""Elementwise instructions and chains of them: load, apply the steps, store, 16 elements at a time.

A binary, unary or convert instruction is a chain of one step or none; a fused run of them is a longer one.
"""

# mypy: ignore-errors
from __future__ import annotations

from compiler.native.build import kernel
from compiler.native.language import function
from compiler.native.memory import i64_at, low_float
from runtime.kernels.blocks import blocks, nothing
from runtime.kernels.layout import SIZES, SRC_FACTOR, SRC_PIXEL, SRC_ROW
from runtime.kernels.steps import load_lanes


@kernel()
def elementwise(arena, descriptor, chunk, scratch, source, target, steps):
    """`source`: element type; `target`: (element type, half away)."""
    d = i64_at(descriptor)
    distances = d[SRC_ROW], d[SRC_PIXEL]
    form, factor = (source, target, steps), low_float(d[SRC_FACTOR])
    blocks(arena, d, chunk, scratch, form, distances, nothing, elements, None, factor)


@function
def elements(source, address, prepared, factor, i):
    return (load_lanes(source, address + i * SIZES[source], factor),)
