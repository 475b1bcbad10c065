"""What kernels do with memory and registers: views, vectors of 16 lanes, fp16, single instructions, calls, atomics.

fp16 is stored as 16-bit words. Where the CPU has F16C the conversions are LLVM's `fpext` and `fptrunc` of `half`,
which are `vcvtph2ps` and `vcvtps2ph`; elsewhere they are bit arithmetic with the same results (nearest even,
subnormals kept, overflow to infinity). Only NaN payloads may differ. Loads of vectors read all 16 lanes, whatever of
them is wanted: there is slack behind all memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from compiler import numerics
from compiler.native.build import cpu_features
from compiler.native.language import F16, F32, I1, I8, I16, I32, I64, LANES, Registers, Translator, View, primitive

Value = Any
HAS_F16C = "f16c" in cpu_features()
HAS_AVX512 = {"avx512f", "avx512bw", "avx512vl"} <= cpu_features()
IS_X86 = "sse2" in cpu_features()

FLOATS, INTS, WIDE = (ir.VectorType(t, LANES) for t in (F32, I32, I64))
HALVES, SHORTS, BYTES, BITS = (ir.VectorType(t, LANES) for t in (F16, I16, I8, I1))


# -- memory ------------------------------------------------------------------------------------------------------------
def _view(element: ir.Type, signed: bool = True) -> Any:
    return primitive(lambda t, address: View(t.as_type(address, I64), element, signed))


i8_at, i16_at, i32_at, i64_at, f32_at = (_view(e) for e in (I8, I16, I32, I64, F32))
u8_at, u16_at, u32_at = (_view(e, signed=False) for e in (I8, I16, I32))


def _pointer(t: Translator, address: Value, type_: ir.Type = I8) -> ir.Value:
    return t.b.inttoptr(t.as_type(address, I64), ir.PointerType(type_))


@primitive
def load(t: Translator, type_: ir.Type, address: Value) -> ir.Value:
    """A value of any type at an address."""
    value = t.b.load(_pointer(t, address, type_))
    value.align = 1
    return value


@primitive
def store(t: Translator, value: Value, address: Value) -> None:
    t.b.store(value, _pointer(t, address, value.type)).align = 1


@primitive
def store_first(t: Translator, value: Value, address: Value, lanes: Value) -> None:
    """Store the first `lanes` lanes of a vector, a mask or None for all of them.

    A vector that was just narrowed from wider integers must not meet a mask that is known to hold one lane: LLVM for
    AVX-512 (20 to 22 at least) then stores that lane as wide as it was.
    """
    if lanes is None:
        t.b.store(value, _pointer(t, address, value.type)).align = 1
        return
    kind = {FLOATS: "f32", INTS: "i32", WIDE: "i64", SHORTS: "i16", BYTES: "i8"}[value.type]
    pointer = ir.PointerType(value.type)
    name = f"llvm.masked.store.v{LANES}{kind}.p0"
    function = t.declare(name, ir.VoidType(), [value.type, pointer, I32, BITS])
    t.b.call(function, [value, _pointer(t, address, value.type), I32(1), lanes])


@primitive
def lanes_below(t: Translator, count: Value) -> ir.Value:
    """The mask of the first `count` lanes."""
    numbers = ir.Constant(INTS, list(range(LANES)))
    return t.b.icmp_signed("<", numbers, t.spread(t.b.trunc(t.as_type(count, I64), I32), INTS))


@primitive
def registers(t: Translator, count: int, type_: ir.Type) -> Registers:
    """That many variables of a type."""
    return Registers([t.place(type_) for _ in range(count)])


@primitive
def stack(t: Translator, size: int) -> ir.Value:
    """The address of that many int64 of the function's own."""
    return t.b.ptrtoint(t.place(ir.ArrayType(I64, size)), I64)


@primitive
def copy_bytes(t: Translator, destination: Value, source: Value, count: Value) -> None:
    """`memcpy`: the two ranges do not overlap."""
    function = t.module.declare_intrinsic("llvm.memcpy", [ir.PointerType(I8), ir.PointerType(I8), I64])
    t.b.call(function, [_pointer(t, destination), _pointer(t, source), t.as_type(count, I64), I1(0)])


# -- scalars -----------------------------------------------------------------------------------------------------------
@primitive
def low_float(t: Translator, word: Value) -> ir.Value:
    """The fp32 number whose bits are the low half of a descriptor word."""
    return t.b.bitcast(t.b.trunc(word, I32), F32)


@primitive
def popcount(t: Translator, word: Value) -> ir.Value:
    """Bits that are set."""
    return t.b.call(t.declare("llvm.ctpop.i64", I64, [I64]), [word])


@primitive
def shift_right(t: Translator, word: Value, count: Value) -> ir.Value:
    """Logical shift: zeros come in."""
    return t.b.lshr(word, t.as_type(count, I64))


@primitive
def spread(t: Translator, value: Value, type_: ir.VectorType = FLOATS) -> ir.Value:
    """A scalar in every lane."""
    return t.as_type(value, type_)


@primitive
def zeros(t: Translator, type_: ir.VectorType) -> ir.Value:
    return t.as_type(0, type_)


@primitive
def lane(t: Translator, vector: Value, index: int) -> ir.Value:
    return t.b.extract_element(vector, I32(index))


@primitive
def upper_lanes(t: Translator, vector: Value, width: int) -> ir.Value:
    """Lanes from `width` on moved to the front."""
    order = ir.Constant(INTS, [(width + i) % LANES for i in range(LANES)])
    return t.b.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), order)


@primitive
def select(t: Translator, mask: Value, a: Value, b: Value) -> ir.Value:
    return t.b.select(mask, *t.alike(a, b))


# -- conversions -------------------------------------------------------------------------------------------------------
@primitive
def to_floats(t: Translator, value: Value) -> ir.Value:
    """Integers → fp32, rounded once."""
    return t.b.sitofp(value, FLOATS)


@primitive
def to_ints(t: Translator, value: Value) -> ir.Value:
    """fp32 that are integers in range → int32."""
    return t.b.fptosi(value, INTS)


@primitive
def sign_extended(t: Translator, value: Value, type_: ir.Type) -> ir.Value:
    return t.b.sext(value, type_)


@primitive
def truncated(t: Translator, value: Value, type_: ir.Type) -> ir.Value:
    return t.b.trunc(value, type_)


@primitive
def bits_of(t: Translator, value: Value) -> ir.Value:
    """fp32 → int32 of the same bits."""
    return t.b.bitcast(value, INTS)


@primitive
def float_of(t: Translator, value: Value) -> ir.Value:
    """int32 → fp32 of the same bits."""
    return t.b.bitcast(value, FLOATS)


def _unary(name: str) -> Any:
    def emit(t: Translator, value: Value) -> ir.Value:
        return t.b.call(t.declare(f"llvm.{name}.v{LANES}f32", FLOATS, [FLOATS]), [value])

    return primitive(emit)


rint, floor, square_root, absolute = (_unary(n) for n in ("rint", "floor", "sqrt", "fabs"))


def _widen(t: Translator, bits: ir.Value, native: bool = HAS_F16C) -> ir.Value:
    """fp16 bits → fp32: rebias normal numbers, renormalise subnormals with a subtraction."""
    b = t.b
    if native:
        return b.fpext(b.bitcast(bits, HALVES), FLOATS)
    word = b.shl(b.zext(bits, INTS), t.as_type(16, INTS))
    sign = b.and_(word, t.as_type(-0x80000000, INTS))
    twice = b.add(word, word)
    normal = b.bitcast(b.add(b.lshr(twice, t.as_type(4, INTS)), t.as_type(0x70000000, INTS)), FLOATS)
    normal = b.fmul(normal, t.as_type(2.0**-112, FLOATS))
    small = b.bitcast(b.or_(b.lshr(twice, t.as_type(17, INTS)), t.as_type(0x3F000000, INTS)), FLOATS)
    small = b.fsub(small, t.as_type(0.5, FLOATS))
    magnitude = b.select(b.icmp_unsigned("<", twice, t.as_type(0x08000000, INTS)), small, normal)
    return b.bitcast(b.or_(b.bitcast(magnitude, INTS), sign), FLOATS)


def _narrow(t: Translator, x: ir.Value, native: bool = HAS_F16C) -> ir.Value:
    """fp32 → fp16 bits, nearest even: an addition at the right exponent does the rounding."""
    b = t.b
    if native:
        return b.bitcast(b.fptrunc(x, HALVES), SHORTS)
    word = b.bitcast(x, INTS)
    size = b.bitcast(b.and_(word, t.as_type(0x7FFFFFFF, INTS)), FLOATS)
    base = b.fmul(b.fmul(size, t.as_type(2.0**112, FLOATS)), t.as_type(2.0**-110, FLOATS))
    twice = b.add(word, word)
    bias = b.and_(twice, t.as_type(-0x01000000, INTS))
    least = t.as_type(0x71000000, INTS)
    bias = b.select(b.icmp_unsigned(">", bias, least), bias, least)
    lifted = b.bitcast(b.add(b.lshr(bias, t.as_type(1, INTS)), t.as_type(0x07800000, INTS)), FLOATS)
    bits = b.bitcast(b.fadd(lifted, base), INTS)
    exponent = b.and_(b.lshr(bits, t.as_type(13, INTS)), t.as_type(0x7C00, INTS))
    magnitude = b.add(exponent, b.and_(bits, t.as_type(0x0FFF, INTS)))
    not_a_number = b.icmp_unsigned(">", twice, t.as_type(-0x01000000, INTS))
    magnitude = b.select(not_a_number, t.as_type(0x7E00, INTS), magnitude)
    sign = b.and_(b.lshr(word, t.as_type(16, INTS)), t.as_type(0x8000, INTS))
    return b.trunc(b.or_(sign, magnitude), SHORTS)


widen, narrow = primitive(_widen), primitive(_narrow)
"""fp16 bits → fp32 and back. The second argument chooses the instructions or the arithmetic (tests)."""


@primitive
def rounded(t: Translator, x: Value, native: bool = HAS_F16C) -> ir.Value:
    """fp32 rounded to what fp16 can say."""
    return _widen(t, _narrow(t, x, native), native)


_DTYPES: dict[ir.Type, Any] = {I8: np.dtype(np.int8), I16: np.dtype(np.int16), I32: np.dtype(np.int32)}


@primitive
def to_integers(t: Translator, x: Value, element: ir.Type, half_away: bool) -> ir.Value:
    """`numerics.float_to_int` after the multiplication: NaN is 0, clamped, rounded, narrowed."""
    b, (low, high) = t.b, numerics.INTEGER_LIMITS[_DTYPES[element]]
    low, high, zero = (t.as_type(float(v), FLOATS) for v in (low, high, 0.0))
    if HAS_AVX512 and not half_away and element is not I32:
        # max and min give their second operand for NaN, the conversion INT_MIN, whose low bits are 0
        x = b.select(b.fcmp_ordered(">", low, x), low, x)
        x = b.select(b.fcmp_ordered("<", high, x), high, x)
        arguments = [FLOATS, INTS, I16, I32]
        convert = t.declare("llvm.x86.avx512.mask.cvtps2dq.512", INTS, arguments)
        return b.trunc(b.call(convert, [x, t.as_type(0, INTS), I16(-1), I32(4)]), ir.VectorType(element, LANES))
    x = b.select(b.fcmp_ordered("ord", x, x), x, zero)
    x = b.select(b.fcmp_ordered("<", x, low), low, x)
    x = b.select(b.fcmp_ordered(">", x, high), high, x)
    whole = b.fptosi(_half_away(t, x) if half_away else rint.python(t, x), INTS)
    return whole if element is I32 else b.trunc(whole, ir.VectorType(element, LANES))


def _half_away(t: Translator, x: ir.Value) -> ir.Value:
    b, zero, one = t.b, t.as_type(0.0, FLOATS), t.as_type(1.0, FLOATS)
    magnitude = absolute.python(t, x)
    whole = floor.python(t, magnitude)
    up = b.fcmp_ordered(">=", b.fsub(magnitude, whole), t.as_type(0.5, FLOATS))
    whole = b.select(up, b.fadd(whole, one), whole)
    return b.select(b.fcmp_ordered("<", x, zero), b.fneg(whole), whole)


# -- calls, atomics ----------------------------------------------------------------------------------------------------
@primitive
def call_kernel(t: Translator, function: Value, *arguments: Value) -> None:
    """Call a kernel by address."""
    kind = ir.FunctionType(ir.VoidType(), [I64] * len(arguments))
    t.b.call(t.b.inttoptr(function, ir.PointerType(kind)), [t.as_type(a, I64) for a in arguments])


@primitive
def call_yield(t: Translator, function: Value) -> None:
    """Give the processor to another thread: call `int function(void)`, or nothing when the address is 0."""
    with t.b.if_then(t.b.icmp_unsigned("!=", function, I64(0))):
        t.b.call(t.b.inttoptr(function, ir.PointerType(ir.FunctionType(I32, []))), [])


@primitive
def pause(t: Translator) -> None:
    """Tell the core that this is a waiting loop."""
    if IS_X86:
        t.b.call(t.declare("llvm.x86.sse2.pause", ir.VoidType(), []), [])


@primitive
def atomic_add(t: Translator, address: Value, value: Value) -> ir.Value:
    """Add to an int64 in memory; the value before. Sequentially consistent."""
    return t.b.atomic_rmw("add", _pointer(t, address, I64), t.as_type(value, I64), "seq_cst")


@primitive
def atomic_exchange(t: Translator, address: Value, value: Value) -> ir.Value:
    """Store an int64; the value before. Sequentially consistent."""
    return t.b.atomic_rmw("xchg", _pointer(t, address, I64), t.as_type(value, I64), "seq_cst")


@primitive
def atomic_load(t: Translator, address: Value) -> ir.Value:
    return t.b.load_atomic(_pointer(t, address, I64), "seq_cst", 8)
