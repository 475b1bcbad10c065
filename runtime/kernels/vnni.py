"""The int8 dot product of a tile: one instruction, `vpdpbusd` (AVX-512 VNNI), where there is one.

The instruction multiplies unsigned by signed bytes; adding 128 to the activations (xor 0x80) makes them unsigned, and
the sums then start at -128 * (sum of the filter's column), so that the result is exact modulo 2^32. Where the
instruction is missing, four products and sums in int32 give the same numbers, and sums start at zero.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np
from llvmlite import ir

from compiler.native.build import cpu_features
from compiler.native.language import I32, function, primitive
from compiler.native.memory import INTS, load, spread

AVAILABLE = {"avx512f", "avx512bw", "avx512vl", "avx512vnni"} <= cpu_features()
SIGN_FLIP = -0x7F7F7F80  # 0x80808080


@primitive
def flip(t):
    """What makes activations unsigned, hidden from the optimiser, which would split the instruction otherwise."""
    value = ir.Constant(INTS, [SIGN_FLIP] * INTS.count)
    return t.b.asm(ir.FunctionType(INTS, [INTS]), "", "=v,0", [value], False)


@primitive
def dot_unsigned(t, total, unsigned, signed):
    return t.b.call(t.declare("llvm.x86.avx512.vpdpbusd.512", INTS, [INTS] * 3), [total, unsigned, signed])


@function
def byte_of(word, number):
    """Byte `number` of every lane, with its sign."""
    return (word << (24 - 8 * number)) >> 24


@function
def dot_portable(total, x, w):
    for number in (0, 1, 2, 3):
        total = total + byte_of(x, number) * byte_of(w, number)
    return total


@function
def activations(address, flipped):
    """Four bytes in every lane, ready for `dot`."""
    x = spread(load(I32, address), INTS)
    return x ^ flipped if AVAILABLE else x


@function
def dot(total, x, w):
    return dot_unsigned(total, x, w) if AVAILABLE else dot_portable(total, x, w)


def starts_of(filters: np.ndarray, k_steps: int) -> np.ndarray:
    """What the sums of every column begin with: int32, by panels of 32. `filters`: int8 [panel][k_steps][32][4]."""
    panels = filters.view(np.int8).reshape(-1, k_steps, 32, 4)
    if not AVAILABLE:
        return np.zeros((len(panels), 32), np.int32)
    return (panels.sum(axis=(1, 3), dtype=np.int32) * np.int32(-128)).astype(np.int32)
