"""Straight-line vector code for the inner loops that decide the speed: epilogue rows and depthwise windows, as LLVM IR.

Everything is written on vectors of 16 fp32, which LLVM maps to whatever registers there are. Written as loops, the same
code spends more time on alias checks and remainders than on arithmetic. Products and sums are separate instructions
without fast-math flags. Where the CPU has no F16C, fp16 conversions are integer arithmetic on the same vectors.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from compiler import numerics
from runtime.kernels.layout import FORM_BIT_POST, FORM_BIT_RESIDUAL, FORM_BIT_ROUNDS, PANEL
from runtime.kernels.memory import F32, HAS_F16C, I8, I16, I32, I64, pointer

LANES = 16
FLOATS, INTS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
HALVES, SHORTS, BYTES = (ir.VectorType(t, LANES) for t in (ir.HalfType(), I16, I8))
LOWEST, HIGHEST = (float(x) for x in numerics.INTEGER_LIMITS[np.dtype(np.int8)])


# -- pieces -----------------------------------------------------------------------------------------------------------
def all_lanes(type_, value):
    return ir.Constant(type_, [value] * LANES)


def splat(b, value, type_=FLOATS):
    vector = b.insert_element(ir.Constant(type_, ir.Undefined), value, I32(0))
    return b.shuffle_vector(vector, ir.Constant(type_, ir.Undefined), ir.Constant(INTS, [0] * LANES))


def load(b, address, type_=FLOATS):
    value = b.load(pointer(b, address, type_))
    value.align = 1
    return value


def store(b, value, address):
    b.store(value, pointer(b, address, value.type)).align = 1


def widen(b, bits, native=HAS_F16C):
    """fp16 bits → fp32 (see `memory.half_float_portable`)."""
    if native:
        return b.fpext(b.bitcast(bits, HALVES), FLOATS)
    word = b.shl(b.zext(bits, INTS), all_lanes(INTS, 16))
    sign = b.and_(word, all_lanes(INTS, -0x80000000))
    twice = b.add(word, word)
    normal = b.bitcast(b.add(b.lshr(twice, all_lanes(INTS, 4)), all_lanes(INTS, 0x70000000)), FLOATS)
    normal = b.fmul(normal, all_lanes(FLOATS, 2.0**-112))
    small = b.bitcast(b.or_(b.lshr(twice, all_lanes(INTS, 17)), all_lanes(INTS, 0x3F000000)), FLOATS)
    small = b.fsub(small, all_lanes(FLOATS, 0.5))
    magnitude = b.select(b.icmp_unsigned("<", twice, all_lanes(INTS, 0x08000000)), small, normal)
    return b.bitcast(b.or_(b.bitcast(magnitude, INTS), sign), FLOATS)


def narrow(b, x, native=HAS_F16C):
    """fp32 → fp16 bits, nearest even (see `memory.float_half_portable`)."""
    if native:
        return b.bitcast(b.fptrunc(x, HALVES), SHORTS)
    word = b.bitcast(x, INTS)
    size = b.bitcast(b.and_(word, all_lanes(INTS, 0x7FFFFFFF)), FLOATS)
    base = b.fmul(b.fmul(size, all_lanes(FLOATS, 2.0**112)), all_lanes(FLOATS, 2.0**-110))
    twice = b.add(word, word)
    bias = b.and_(twice, all_lanes(INTS, -0x01000000))
    least = all_lanes(INTS, 0x71000000)
    bias = b.select(b.icmp_unsigned(">", bias, least), bias, least)
    lifted = b.bitcast(b.add(b.lshr(bias, all_lanes(INTS, 1)), all_lanes(INTS, 0x07800000)), FLOATS)
    bits = b.bitcast(b.fadd(lifted, base), INTS)
    exponent = b.and_(b.lshr(bits, all_lanes(INTS, 13)), all_lanes(INTS, 0x7C00))
    magnitude = b.add(exponent, b.and_(bits, all_lanes(INTS, 0x0FFF)))
    not_a_number = b.icmp_unsigned(">", twice, all_lanes(INTS, -0x01000000))
    magnitude = b.select(not_a_number, all_lanes(INTS, 0x7E00), magnitude)
    sign = b.and_(b.lshr(word, all_lanes(INTS, 16)), all_lanes(INTS, 0x8000))
    return b.trunc(b.or_(sign, magnitude), SHORTS)


def rounded(b, x, native=HAS_F16C):
    return widen(b, narrow(b, x, native), native)


def clamp(b, x, low, high):
    """low where x <= low, then high where x >= high; NaN stays."""
    x = b.select(b.fcmp_ordered("<=", x, low), low, x)
    return b.select(b.fcmp_ordered(">=", x, high), high, x)


def to_bytes(b, x, factor):
    """`numerics.float_to_int` for int8 and nearest even."""
    value = b.fmul(x, factor)
    value = b.select(b.fcmp_ordered("ord", value, value), value, all_lanes(FLOATS, 0.0))
    value = clamp(b, value, all_lanes(FLOATS, LOWEST), all_lanes(FLOATS, HIGHEST))
    name = f"llvm.rint.v{LANES}f32"
    rint = b.module.globals.get(name) or ir.Function(b.module, ir.FunctionType(FLOATS, [FLOATS]), name)
    return b.trunc(b.fptosi(b.call(rint, [value]), INTS), BYTES)


def function_of(module, name, arguments):
    """(function, builder): an internal function, made once per module; no builder when it is known already."""
    known = module.globals.get(name)
    if known is not None:
        return known, None
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    function.linkage = "internal"
    function.attributes.add("nounwind")
    function.attributes.add("noinline")  # inlined, it would compete for registers with its caller's variables
    return function, ir.IRBuilder(function.append_basic_block("entry"))


def loop(b, count, body, values):
    """values = body(index, values) for index in range(count), count >= 1; the values after the last turn."""
    before, inside, after = b.block, b.append_basic_block("loop"), b.append_basic_block("done")
    b.branch(inside)
    b.position_at_end(inside)
    index = b.phi(I64)
    index.add_incoming(I64(0), before)
    carried = [b.phi(value.type) for value in values]
    for phi, value in zip(carried, values, strict=True):
        phi.add_incoming(value, before)
    results = body(index, carried)
    following = b.add(index, I64(1))
    index.add_incoming(following, b.block)
    for phi, value in zip(carried, results, strict=True):
        phi.add_incoming(value, b.block)
    b.cbranch(b.icmp_signed("<", following, count), inside, after)
    b.position_at_end(after)
    return results


# -- epilogue rows ----------------------------------------------------------------------------------------------------
def _row_function(module, rounds, residual, post):
    """out[32] = the common epilogue of sums[32]. Arguments: sums, out, scale, bias, residual (addresses), factor, low,
    high, post factor."""
    name = f"epilogue_row_{int(rounds)}{int(residual)}{int(post)}"
    function, b = function_of(module, name, [I64] * 5 + [F32] * 4)
    if b is None:
        return function
    sums, out, scale, bias, other, factor, low, high, last = function.args
    factor, low, high, last = (splat(b, x) for x in (factor, low, high, last))

    def step(x):
        return rounded(b, x) if rounds else x

    for k in range(PANEL // LANES):
        offset = I64(4 * LANES * k)
        x = step(b.fmul(b.sitofp(load(b, b.add(sums, offset), INTS), FLOATS), factor))
        x = step(b.fmul(x, load(b, b.add(scale, offset))))
        x = step(b.fadd(x, load(b, b.add(bias, offset))))
        if residual:
            place = b.add(other, I64((2 if rounds else 4) * LANES * k))
            x = step(b.fadd(x, widen(b, load(b, place, SHORTS)) if rounds else load(b, place)))
        x = clamp(b, x, low, high)
        if post:
            x = step(b.fmul(x, last))
        store(b, x, b.add(out, offset))
    b.ret_void()
    return function


@intrinsic
def finish_row(typing, form, sums, out, scale, bias, other, factor, low, high, last):
    """Run the row function that a descriptor's FORM names."""

    def generate(context, b, signature, args):
        after = b.append_basic_block("row_done")
        choice = b.switch(args[0], after)
        for number in range(8):
            block = b.append_basic_block("row")
            choice.add_case(I64(1 + number), block)
            with b.goto_block(block):
                flags = (bool(number & bit) for bit in (FORM_BIT_ROUNDS, FORM_BIT_RESIDUAL, FORM_BIT_POST))
                b.call(_row_function(b.module, *flags), args[1:])
                b.branch(after)
        b.position_at_end(after)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6, *[types.float32] * 4), generate


def _make_store(narrowing, size, name):
    """An intrinsic (address, value, factor) that stores 32 values narrowed by `narrowing`."""

    @intrinsic
    def store_panel(typing, address, value, factor):
        def generate(context, b, signature, args):
            function, inner = function_of(b.module, name, [I64, I64, F32])
            if inner is not None:
                place, source, scale = function.args
                scale = splat(inner, scale)
                for k in range(PANEL // LANES):
                    x = load(inner, inner.add(source, I64(4 * LANES * k)))
                    store(inner, narrowing(inner, x, scale), inner.add(place, I64(size * LANES * k)))
                inner.ret_void()
            b.call(function, args)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.float32), generate

    return store_panel


store_bytes = _make_store(to_bytes, 1, "store_panel_i8")
store_halves = _make_store(lambda b, x, factor: narrow(b, x), 2, "store_panel_f16")
store_floats = _make_store(lambda b, x, factor: x, 4, "store_panel_f32")


# -- depthwise --------------------------------------------------------------------------------------------------------
def _window_function(module, half, kernel):
    """total[columns] = sum over taps of x * w, in tap order, from +0; 16 channels at a time, the last group beyond
    `columns`. Arguments: corner, weights (fp32 [group][tap][16]), total, kh, kw, row, pixel (bytes), columns. `kernel`:
    (kh, kw) known in advance and unrolled, or None."""
    name = f"depthwise_{'f16' if half else 'f32'}_{'x'.join(map(str, kernel)) if kernel else 'any'}"
    function, b = function_of(module, name, [I64] * 8)
    if b is None:
        return function
    corner, weights, total, kh, kw, row, pixel, columns = function.args
    groups = b.sdiv(b.add(columns, I64(LANES - 1)), I64(LANES))
    group_bytes = b.mul(b.mul(kh, kw), I64(4 * LANES))

    def add_tap(x, w, s):
        value = widen(b, load(b, x, SHORTS)) if half else load(b, x)
        return b.fadd(s, b.fmul(value, load(b, w)))

    def unrolled(source, w):
        s = all_lanes(FLOATS, 0.0)
        for ky in range(kernel[0]):
            for kx in range(kernel[1]):
                place = b.add(source, b.add(b.mul(row, I64(ky)), b.mul(pixel, I64(kx))))
                s = add_tap(place, b.add(w, I64(4 * LANES * (ky * kernel[1] + kx))), s)
        return s

    def looped(source, w):
        def line(ky, values):
            def tap(kx, inner):
                x, w, s = inner
                return [b.add(x, pixel), b.add(w, I64(4 * LANES)), add_tap(x, w, s)]

            _, w, s = loop(b, kw, tap, [b.add(source, b.mul(ky, row)), *values])
            return [w, s]

        return loop(b, kh, line, [w, all_lanes(FLOATS, 0.0)])[1]

    def group(index, values):
        source, w, out = values
        store(b, unrolled(source, w) if kernel else looped(source, w), out)
        step = I64((2 if half else 4) * LANES)
        return [b.add(source, step), b.add(w, group_bytes), b.add(out, I64(4 * LANES))]

    loop(b, groups, group, [corner, weights, total])
    b.ret_void()
    return function


def _make_window(half, kernel):
    @intrinsic
    def window(typing, corner, weights, total, kh, kw, row, pixel, columns):
        def generate(context, b, signature, args):
            b.call(_window_function(b.module, half, kernel), args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), generate

    return window


window_half, window_float = _make_window(True, None), _make_window(False, None)
window_half_3x3, window_float_3x3 = _make_window(True, (3, 3)), _make_window(False, (3, 3))
