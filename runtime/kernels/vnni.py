"""The int8 dot product of a tile, written as LLVM IR around `vpdpbusd` (AVX-512 VNNI).

LLVM never finds this instruction in a loop, and it is seven times faster than what it finds. The instruction
multiplies unsigned by signed bytes; adding 128 to the activations (xor 0x80) makes them unsigned, and the sums then
start at -128 * (sum of the filter's column), so that the result is exact modulo 2^32. Accumulators are SSA values:
nothing spills.
"""

# mypy: ignore-errors
from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from runtime.kernels.build import cpu_features
from runtime.kernels.layout import PANEL
from runtime.kernels.memory import I32, I64
from runtime.kernels.rows import INTS, LANES, function_of, load, loop, splat, store

AVAILABLE = {"avx512f", "avx512bw", "avx512vl", "avx512vnni"} <= cpu_features()
VECTOR = INTS
VECTORS = PANEL // LANES
VECTOR_BYTES = 4 * LANES
SIGN_FLIP = -0x7F7F7F80  # 0x80808080


def _opaque(b, value):
    """The value, hidden from the optimiser: with a visible constant code generation does not end (LLVM 22)."""
    return b.asm(ir.FunctionType(VECTOR, [VECTOR]), "", "=v,0", [value], False)


def _dot(b, total, unsigned, signed):
    name = "llvm.x86.avx512.vpdpbusd.512"
    function = b.module.globals.get(name)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(VECTOR, [VECTOR] * 3), name)
    return b.call(function, [total, unsigned, signed])


def _tile_function(module, pixels):
    """sums[pixels][32] = start[32] + dot products. Arguments: rows (int64 addresses), offsets (int32 per step of 4
    bytes), steps, filters ([steps][32][4]), start (int32[32]), sums."""
    function, b = function_of(module, f"vnni_tile_{pixels}", [I64] * 6)
    if b is None:
        return function
    rows, offsets, steps, filters, start, sums = function.args
    flip = _opaque(b, ir.Constant(VECTOR, [SIGN_FLIP] * LANES))
    sources = [load(b, b.add(rows, I64(8 * m)), I64) for m in range(pixels)]
    first = [load(b, b.add(start, I64(VECTOR_BYTES * j)), VECTOR) for j in range(VECTORS)]

    def step(index, values):
        *totals, weights = values
        offset = b.sext(load(b, b.add(offsets, b.mul(index, I64(4))), I32), I64)
        columns = [load(b, b.add(weights, I64(VECTOR_BYTES * j)), VECTOR) for j in range(VECTORS)]
        for m, source in enumerate(sources):
            x = b.xor(splat(b, load(b, b.add(source, offset), I32), VECTOR), flip)
            for j, column in enumerate(columns):
                totals[m * VECTORS + j] = _dot(b, totals[m * VECTORS + j], x, column)
        return [*totals, b.add(weights, I64(VECTOR_BYTES * VECTORS))]

    *totals, _ = loop(b, steps, step, first * pixels + [filters])
    for k, total in enumerate(totals):
        store(b, total, b.add(sums, I64(VECTOR_BYTES * k)))
    b.ret_void()
    return function


def _start_function(module):
    """start[32] = -128 * column sums of a panel. Arguments: steps, filters, start."""
    function, b = function_of(module, "vnni_start", [I64] * 3)
    if b is None:
        return function
    steps, filters, start = function.args
    flip = _opaque(b, ir.Constant(VECTOR, [SIGN_FLIP] * LANES))
    zero = ir.Constant(VECTOR, [0] * LANES)

    def step(index, values):
        *totals, weights = values
        totals = [
            _dot(b, t, flip, load(b, b.add(weights, I64(VECTOR_BYTES * j)), VECTOR)) for j, t in enumerate(totals)
        ]
        return [*totals, b.add(weights, I64(VECTOR_BYTES * VECTORS))]

    *totals, _ = loop(b, steps, step, [zero] * VECTORS + [filters])
    for j, total in enumerate(totals):
        store(b, b.sub(zero, total), b.add(start, I64(VECTOR_BYTES * j)))
    b.ret_void()
    return function


def make_tile(pixels):
    """An intrinsic that computes a tile of `pixels` x 32 sums."""

    @intrinsic
    def tile(typing, rows, offsets, steps, filters, start, sums):
        def generate(context, b, signature, args):
            b.call(_tile_function(b.module, pixels), args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), generate

    return tile


@intrinsic
def start_sums(typing, steps, filters, start):
    def generate(context, b, signature, args):
        b.call(_start_function(b.module), args)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


tile_7, tile_1 = make_tile(7), make_tile(1)
