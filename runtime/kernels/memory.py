"""What kernels need and Numba does not offer: memory by address, fp16, single instructions, calls by address,
atomics.

fp16 is stored as 16-bit words. Where the CPU has F16C the conversions are LLVM's `fpext` and `fptrunc` of `half`,
which vectorise to `vcvtph2ps` and `vcvtps2ph`; elsewhere they are bit arithmetic with the same results (nearest
even, subnormals kept, overflow to infinity). Only NaN payloads may differ.
"""

# mypy: ignore-errors
from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from runtime.kernels.build import cpu_features, inlined

I8, I16, I32, I64 = (ir.IntType(n) for n in (8, 16, 32, 64))
F16, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()

HAS_F16C = "f16c" in cpu_features()
IS_X86 = "sse2" in cpu_features()


def pointer(builder, address, type_=I8):
    return builder.inttoptr(address, ir.PointerType(type_))


def _view(element):
    """An intrinsic (address, count) → the array of `count` elements that lies there. `carray` does the same and takes a
    tenth of a second to compile for every element type."""
    array_type = types.Array(element, 1, "C")

    @intrinsic
    def view(typing, address, count):
        def generate(context, b, signature, args):
            size = context.get_abi_sizeof(context.get_value_type(element))
            array = context.make_array(array_type)(context, b)
            count_ = context.cast(b, args[1], signature.args[1], types.intp)
            data = b.inttoptr(args[0], array.data.type)
            populate_array(array, data=data, shape=[count_], strides=[I64(size)], itemsize=I64(size), meminfo=None)
            return array._getvalue()

        return array_type(types.int64, types.int64), generate

    return view


bytes_at, i8_at, i16_at, u16_at = (_view(t) for t in (types.uint8, types.int8, types.int16, types.uint16))
i32_at, i64_at, f32_at = (_view(t) for t in (types.int32, types.int64, types.float32))


@intrinsic
def copy_bytes(typing, destination, source, count):
    """`memcpy`: the two ranges do not overlap."""

    def generate(context, b, signature, args):
        pointers = [ir.PointerType(I8)] * 2
        function = b.module.declare_intrinsic("llvm.memcpy", [*pointers, I64])
        b.call(function, [pointer(b, args[0]), pointer(b, args[1]), args[2], ir.IntType(1)(0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


# -- bits and conversions ----------------------------------------------------------------------------------------------
@intrinsic
def float_bits(typing, x):
    """fp32 → its 32 bits as int32."""
    return types.int32(types.float32), lambda _, b, s, args: b.bitcast(args[0], I32)


@intrinsic
def bits_float(typing, x):
    """int32 → the fp32 number of these bits."""
    return types.float32(types.int32), lambda _, b, s, args: b.bitcast(args[0], F32)


@intrinsic
def low_float(typing, word):
    """The fp32 number whose bits are the low half of a descriptor word."""
    return types.float32(types.int64), lambda _, b, s, args: b.bitcast(b.trunc(args[0], I32), F32)


@intrinsic
def i64_float(typing, x):
    """int64 → fp32, rounded once (Numba's own cast goes through fp64 and rounds twice)."""
    return types.float32(types.int64), lambda _, b, s, args: b.sitofp(args[0], F32)


@intrinsic
def i32_float(typing, x):
    """int32 → fp32, rounded once."""
    return types.float32(types.int32), lambda _, b, s, args: b.sitofp(args[0], F32)


@intrinsic
def float_i32(typing, x):
    """fp32 that is an integer in range → int32."""
    return types.int32(types.float32), lambda _, b, s, args: b.fptosi(args[0], I32)


def _unary_intrinsic(name):
    @intrinsic
    def function(typing, x):
        def generate(context, b, signature, args):
            return b.call(b.module.declare_intrinsic(name, [F32]), args)

        return types.float32(types.float32), generate

    return function


rint = _unary_intrinsic("llvm.rint")
floor = _unary_intrinsic("llvm.floor")
square_root = _unary_intrinsic("llvm.sqrt")
absolute = _unary_intrinsic("llvm.fabs")


@intrinsic
def half_float_native(typing, h):
    return types.float32(types.uint16), lambda _, b, s, args: b.fpext(b.bitcast(args[0], F16), F32)


@intrinsic
def float_half_native(typing, x):
    return types.uint16(types.float32), lambda _, b, s, args: b.bitcast(b.fptrunc(args[0], F16), I16)


@inlined
def half_float_portable(h):
    """fp16 bits → fp32 by integer arithmetic: rebias normal numbers, renormalise subnormals with a subtraction."""
    word = types.uint32(types.uint32(h) << types.uint32(16))
    sign = types.uint32(word & types.uint32(0x80000000))
    twice = types.uint32(word + word)
    normal = bits_float(types.int32(types.uint32((twice >> types.uint32(4)) + types.uint32(0x70000000))))
    normal = normal * types.float32(2.0**-112)
    small = bits_float(types.int32(types.uint32((twice >> types.uint32(17)) | types.uint32(0x3F000000))))
    small = small - types.float32(0.5)
    magnitude = small if twice < types.uint32(0x08000000) else normal
    return bits_float(types.int32(types.uint32(types.uint32(float_bits(magnitude)) | sign)))


@inlined
def float_half_portable(x):
    """fp32 → fp16 bits, nearest even: an addition at the right exponent does the rounding."""
    base = (absolute(x) * types.float32(2.0**112)) * types.float32(2.0**-110)
    word = types.uint32(float_bits(x))
    twice = types.uint32(word + word)
    bias = types.uint32(twice & types.uint32(0xFF000000))
    bias = bias if bias >= types.uint32(0x71000000) else types.uint32(0x71000000)
    base = bits_float(types.int32(types.uint32((bias >> types.uint32(1)) + types.uint32(0x07800000)))) + base
    bits = types.uint32(float_bits(base))
    magnitude = types.uint32(((bits >> types.uint32(13)) & types.uint32(0x7C00)) + (bits & types.uint32(0x0FFF)))
    magnitude = types.uint32(0x7E00) if twice > types.uint32(0xFF000000) else magnitude
    return types.uint16(((word >> types.uint32(16)) & types.uint32(0x8000)) | magnitude)


half_float = half_float_native if HAS_F16C else half_float_portable
float_half = float_half_native if HAS_F16C else float_half_portable


# -- calls, atomics ----------------------------------------------------------------------------------------------------
@intrinsic
def call_kernel(typing, function, arena, descriptor, chunk, scratch):
    """Call a kernel by address."""

    def generate(context, b, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [I64] * 4)
        b.call(b.inttoptr(args[0], ir.PointerType(kind)), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@intrinsic
def call_chain(typing, function, arena, descriptor, scratch, pixel, pixels, column, columns, prepare):
    """Call the epilogue of a kernel by address (see `chain.py`)."""

    def generate(context, b, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [I64] * 8)
        b.call(b.inttoptr(args[0], ir.PointerType(kind)), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), generate


@intrinsic
def call_yield(typing, function):
    """Give the processor to another thread: call `int function(void)`, or nothing when the address is 0."""

    def generate(context, b, signature, args):
        with b.if_then(b.icmp_unsigned("!=", args[0], I64(0))):
            b.call(b.inttoptr(args[0], ir.PointerType(ir.FunctionType(I32, []))), [])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def pause(typing):
    """Tell the core that this is a waiting loop."""

    def generate(context, b, signature, args):
        if IS_X86:
            function = b.module.globals.get("llvm.x86.sse2.pause")
            if function is None:
                function = ir.Function(b.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause")
            b.call(function, [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def atomic_add(typing, address, value):
    """Add to an int64 in memory; the value before. Sequentially consistent."""
    return types.int64(types.int64, types.int64), lambda _, b, s, args: b.atomic_rmw(
        "add", pointer(b, args[0], I64), args[1], "seq_cst"
    )


@intrinsic
def atomic_exchange(typing, address, value):
    """Store an int64; the value before. Sequentially consistent."""
    return types.int64(types.int64, types.int64), lambda _, b, s, args: b.atomic_rmw(
        "xchg", pointer(b, args[0], I64), args[1], "seq_cst"
    )


@intrinsic
def atomic_load(typing, address):
    return types.int64(types.int64), lambda _, b, s, args: b.load_atomic(pointer(b, args[0], I64), "seq_cst", 8)
