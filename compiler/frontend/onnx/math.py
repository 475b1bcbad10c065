"""Converters of element-wise arithmetic, comparisons, matrix products and casts."""

from __future__ import annotations

import numpy as np

from compiler.frontend.common.emitter import normal_axis, reshape
from compiler.frontend.onnx import reader
from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.registry import converter
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Op, Value
from compiler.ir.types import DType
from compiler.ops import math, nn, tensor

BINARY: dict[str, type[Op]] = {
    "Add": math.Add, "Sub": math.Sub, "Mul": math.Mul, "Div": math.Div, "Equal": math.Equal, "Less": math.Less,
    "LessOrEqual": math.LessEqual, "Greater": math.Greater, "GreaterOrEqual": math.GreaterEqual, "And": math.And,
    "Or": math.Or, "Xor": math.Xor, "BitwiseAnd": math.BitwiseAnd, "BitwiseOr": math.BitwiseOr,
    "BitwiseXor": math.BitwiseXor,
}  # fmt: skip

UNARY: dict[str, type[Op]] = {
    "Neg": math.Neg, "Abs": math.Abs, "Exp": math.Exp, "Log": math.Log, "Sqrt": math.Sqrt,
    "Reciprocal": math.Reciprocal, "Erf": math.Erf, "Tanh": math.Tanh, "Sin": math.Sin, "Cos": math.Cos,
    "Tan": math.Tan, "Asin": math.Asin, "Acos": math.Acos, "Atan": math.Atan, "Sinh": math.Sinh, "Cosh": math.Cosh,
    "Asinh": math.Asinh, "Acosh": math.Acosh, "Atanh": math.Atanh, "Floor": math.Floor, "Ceil": math.Ceil,
    "Round": math.Round, "Sign": math.Sign, "Not": math.Not, "IsNaN": math.IsNan,
    "BitwiseNot": math.BitwiseNot,
}  # fmt: skip

VARIADIC: dict[str, type[Op]] = {"Sum": math.Add, "Max": math.Maximum, "Min": math.Minimum, "Mean": math.Add}


@converter(*BINARY)
def old_binary(n: Node) -> Value:
    return n.emit(BINARY[n.proto.op_type], n.input(0), _aligned(n))


def _aligned(n: Node) -> Value:
    """The second operand, its axes laid from `axis` of the first on: how operands broadcast before opset 7."""
    a, b = n.input(0), n.input(1)
    n.ignore("broadcast")
    axis = n.attribute("axis")
    if axis is None or not n.attribute("broadcast", 0):
        return b
    after = a.type.rank - normal_axis(axis, a.type.rank) - b.type.rank
    return reshape(n, b, (*b.type.static_shape, *[1] * max(after, 0)))


@converter(*BINARY, since=7)
def binary(n: Node) -> Value:
    return n.emit(BINARY[n.proto.op_type], n.input(0), n.input(1))


@converter(*UNARY)
def unary(n: Node) -> Value:
    return n.emit(UNARY[n.proto.op_type], n.input(0))


@converter(*VARIADIC)
def variadic(n: Node) -> Value:
    values = [n.input(i) for i in range(len(n.inputs))]
    total = values[0]
    for value in values[1:]:
        total = n.emit(VARIADIC[n.proto.op_type], total, value)
    if n.proto.op_type == "Mean" and len(values) > 1:
        total = n.emit(math.Div, total, n.scalar_like(len(values), total))
    return total


@converter("Pow")
def power(n: Node) -> Value:
    """The exponent may be of another type; the result is of the base's."""
    base, exponent = n.input(0), n.input(1) if n.opset >= 7 else _aligned(n)
    dtype = base.type.dtype
    if exponent.type.dtype.is_float and not dtype.is_float:
        base, exponent = (n.emit(math.Cast, v, to=DType.F64) for v in (base, exponent))
        return n.emit(math.Cast, n.emit(math.Pow, base, exponent), to=dtype)
    if exponent.type.dtype is not dtype:
        exponent = n.emit(math.Cast, exponent, to=dtype)
    return n.emit(math.Pow, base, exponent)


@converter("Mod")
def mod(n: Node) -> Value:
    return n.emit(math.Mod, n.input(0), n.input(1), fmod=bool(n.attribute("fmod", 0)))


@converter("Where")
def where(n: Node) -> Value:
    return n.emit(math.Where, n.input(0), n.input(1), n.input(2))


@converter("IsInf")
def is_inf(n: Node) -> Value:
    x = n.input(0)
    positive, negative = n.attribute("detect_positive", 1), n.attribute("detect_negative", 1)
    if positive and negative:
        return n.emit(math.IsInf, x)
    if not positive and not negative:
        return n.emit(math.And, n.emit(math.IsInf, x), n.emit(math.IsNan, x))
    return n.emit(math.Equal, x, n.scalar_like(np.inf if positive else -np.inf, x))


@converter("Clip")
def clip_by_attributes(n: Node) -> Value:
    """Before opset 11 the bounds are attributes."""
    lowest, highest = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)
    low, high = n.attribute("min", lowest), n.attribute("max", highest)
    return n.emit(
        math.Clip, n.input(0), low=-np.inf if low <= lowest else low, high=np.inf if high >= highest else high
    )


@converter("Clip", since=11)
def clip(n: Node) -> Value:
    x = n.input(0)
    low, high = n.known(1), n.known(2)
    given = [n.optional(1) is not None, n.optional(2) is not None]
    if x.type.dtype.is_float and given == [low is not None, high is not None]:
        return n.emit(
            math.Clip, x, low=-np.inf if low is None else low.item(), high=np.inf if high is None else high.item()
        )
    if given[0]:
        x = n.emit(math.Maximum, x, n.input(1))
    return n.emit(math.Minimum, x, n.input(2)) if given[1] else x


@converter("Cast", "CastLike")
def cast(n: Node) -> Value:
    n.ignore("saturate", "round_mode")  # both speak of 8-bit floats, which are refused
    x = n.input(0)
    if n.proto.op_type == "CastLike":
        target, bits = n.input(1).type.dtype, n.builder.narrow.get(n.input(1), 0)
    else:
        code = _type_code(n)
        dtype, bits = reader.held_dtype_of(code), reader.narrow_bits(code)
        if dtype is None:
            raise Unsupported(f"casts to {reader.dtype_name(code)}", "cast to a float, integer or boolean type")
        target = reader.widened(dtype)
    if bits and bits != n.builder.narrow.get(x):
        return _narrowed(n, x, target, bits)
    return x if target is x.type.dtype else n.emit(math.Cast, x, to=target)


def _narrowed(n: Node, x: Value, target: DType, bits: int) -> Value:
    """The lowest bits of integers (of reals without their fraction), held in `target`; signed ones have their sign."""
    whole = n.emit(math.Cast, x, to=DType.I32)
    low = n.emit(math.BitwiseAnd, whole, n.constant((1 << bits) - 1, DType.I32))
    if target is DType.I8:
        sign = n.constant(1 << (bits - 1), DType.I32)
        low = n.emit(math.Sub, n.emit(math.BitwiseXor, low, sign), sign)
    y = n.emit(math.Cast, low, to=target)
    n.builder.narrow[y] = bits
    return y


def _type_code(n: Node) -> int:
    """The attribute `to`: a number, or before opset 6 a name."""
    code = n.required("to")
    return reader.code_of_name(code) if isinstance(code, str) else code


@converter("BitShift")
def bit_shift(n: Node) -> Value:
    shift: type[Op] = math.ShiftLeft if n.required("direction") == "LEFT" else math.ShiftRight
    return n.emit(shift, n.input(0), n.input(1))


@converter("BitCast", since=26)
def bit_cast(n: Node) -> Value:
    """Halves are widened inside the module: they are narrowed again for their bits."""
    x, target = n.input(0), reader.dtype_of(n.required("to"))
    if target is None:
        raise Unsupported(f"casts to {reader.dtype_name(n.required('to'))}", "cast to a float, integer or boolean type")
    if x.type.dtype is DType.F32 and target.size == 2:
        x = n.emit(math.Cast, x, to=DType.F16)
    y = n.emit(math.BitCast, x, to=target)
    wide = reader.widened(target)
    return y if wide is target else n.emit(math.Cast, y, to=wide)


@converter("Det")
def det(n: Node) -> Value:
    return n.emit(math.Det, n.input(0))


# -- matrix products ---------------------------------------------------------------------------------------------------
@converter("MatMul")
def matmul(n: Node) -> Value:
    return n.emit(nn.MatMul, n.input(0), n.input(1))


def _matrix(n: Node, index: int, transposed: bool) -> Value:
    value = n.input(index)
    if value.type.rank != 2:
        raise Malformed(f"input {index} must have rank 2, not {value.type.rank}")
    return n.emit(tensor.Transpose, value, perm=(1, 0)) if transposed else value


@converter("Gemm")
def gemm(n: Node) -> Value:
    """alpha * A' B' + beta * C, as matmul and add; factors go into constants where there are any."""
    n.ignore("broadcast")
    alpha, beta = n.attribute("alpha", 1.0), n.attribute("beta", 1.0)
    a, b = _matrix(n, 0, bool(n.attribute("transA", 0))), _matrix(n, 1, bool(n.attribute("transB", 0)))
    if alpha != 1.0:
        b = n.emit(math.Mul, b, n.scalar_like(alpha, b))
    y = n.emit(nn.MatMul, a, b)
    c = n.optional(2)
    if c is None or beta == 0.0:
        return y
    if beta != 1.0:
        c = n.emit(math.Mul, c, n.scalar_like(beta, c))
    return n.emit(math.Add, y, c)
