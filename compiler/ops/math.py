"""The `math.` ops: functions of elements, with NumPy's broadcasting for two operands.

Integer arithmetic wraps; integer division truncates towards zero. 16-bit floats are computed in f32 and rounded once.
They take reals (or plain integers) only: a quantised operand is a fault, because its integers are not the numbers they
stand for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from compiler.ir.core import Op
from compiler.ir.define import attr, op, operand, result
from compiler.ir.types import DType, Shape, TensorType
from compiler.ops.shapes import (
    FLOATS,
    INTEGERS,
    NUMBERS,
    broadcast,
    check_axis,
    check_positive,
    check_same_dtype,
    reject_quantised,
    same,
)

_INFINITY = float("inf")


class Binary(Op):
    """A function of two elements of one type; a and b broadcast."""

    a = operand(dtypes=NUMBERS)
    b = operand(dtypes=NUMBERS)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        yield from check_same_dtype(self)
        yield from check_broadcast(self)

    def infer(self) -> TensorType:
        return TensorType(common_shape(self), self.a.type.dtype)


def check_broadcast(op: Op) -> Iterator[str]:
    shapes = [v.type.shape for v in op.inputs]
    if broadcast(shapes) is None:
        yield f"shapes {' and '.join(map(str, shapes))} do not broadcast"


def common_shape(op: Op) -> Shape:
    return broadcast(v.type.shape for v in op.inputs) or ()


@op("math.add", traits=["commutative"])
class Add(Binary):
    """a + b."""


@op("math.sub")
class Sub(Binary):
    """a - b."""


@op("math.mul", traits=["commutative"])
class Mul(Binary):
    """a * b."""


@op("math.div")
class Div(Binary):
    """a / b; integers truncate towards zero."""


@op("math.pow")
class Pow(Binary):
    """a to the power of b."""


@op("math.maximum", traits=["commutative"])
class Maximum(Binary):
    """The larger of a and b; NaN if either is."""


@op("math.minimum", traits=["commutative"])
class Minimum(Binary):
    """The smaller of a and b; NaN if either is."""


@op("math.mod")
class Mod(Binary):
    """Remainder with the sign of b, or, with `fmod`, of a. Source: ONNX Mod-13."""

    fmod = attr(bool, default=False)


class Comparison(Binary):
    """A binary function with a boolean result."""

    def infer(self) -> TensorType:
        return TensorType(common_shape(self), DType.BOOL)


@op("math.equal", traits=["commutative"])
class Equal(Comparison):
    """a == b; also of booleans."""

    a = operand()
    b = operand()


@op("math.less")
class Less(Comparison):
    """a < b."""


@op("math.less_equal")
class LessEqual(Comparison):
    """a <= b."""


@op("math.greater")
class Greater(Comparison):
    """a > b."""


@op("math.greater_equal")
class GreaterEqual(Comparison):
    """a >= b."""


class Logical(Comparison):
    """A binary function of booleans."""

    a = operand(dtypes=(DType.BOOL,))
    b = operand(dtypes=(DType.BOOL,))


@op("math.and", traits=["commutative"])
class And(Logical):
    """a and b."""


@op("math.or", traits=["commutative"])
class Or(Logical):
    """a or b."""


@op("math.xor", traits=["commutative"])
class Xor(Logical):
    """a exclusive-or b."""


class BitwiseBinary(Binary):
    """A function of the bits of two integers."""

    a = operand(dtypes=INTEGERS)
    b = operand(dtypes=INTEGERS)


@op("math.bitwise_and", traits=["commutative"])
class BitwiseAnd(BitwiseBinary):
    """Bits set in a and in b."""


@op("math.bitwise_or", traits=["commutative"])
class BitwiseOr(BitwiseBinary):
    """Bits set in a or in b."""


@op("math.bitwise_xor", traits=["commutative"])
class BitwiseXor(BitwiseBinary):
    """Bits set in one of a and b."""


@op("math.shift_left")
class ShiftLeft(BitwiseBinary):
    """a's bits moved up by b places."""


@op("math.shift_right")
class ShiftRight(BitwiseBinary):
    """a's bits moved down by b places."""


@op("math.where")
class Where(Op):
    """a where condition holds, else b; the three broadcast. Source: ONNX Where-16."""

    condition = operand(dtypes=(DType.BOOL,))
    a = operand()
    b = operand()
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        yield from check_same_dtype(self, [self.a, self.b])
        yield from check_broadcast(self)

    def infer(self) -> TensorType:
        return TensorType(common_shape(self), self.a.type.dtype)


class Unary(Op):
    """A function of one number."""

    x = operand(dtypes=NUMBERS)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)

    def infer(self) -> TensorType:
        return self.x.type


class FloatUnary(Unary):
    """A function of one real."""

    x = operand(dtypes=FLOATS)


class Predicate(Unary):
    """A boolean function of one real."""

    x = operand(dtypes=FLOATS)

    def infer(self) -> TensorType:
        return self.x.type.with_dtype(DType.BOOL)


@op("math.neg")
class Neg(Unary):
    """-x."""


@op("math.abs")
class Abs(Unary):
    """|x|."""


@op("math.sign")
class Sign(Unary):
    """-1, 0 or 1."""


@op("math.not")
class Not(Unary):
    """Logical negation."""

    x = operand(dtypes=(DType.BOOL,))


@op("math.bitwise_not")
class BitwiseNot(Unary):
    """All bits of x turned."""

    x = operand(dtypes=INTEGERS)


@op("math.exp")
class Exp(FloatUnary):
    """e to the power of x."""


@op("math.log")
class Log(FloatUnary):
    """Natural logarithm."""


@op("math.sqrt")
class Sqrt(FloatUnary):
    """Square root; NaN below zero."""


@op("math.rsqrt")
class Rsqrt(FloatUnary):
    """1 / sqrt(x)."""


@op("math.reciprocal")
class Reciprocal(FloatUnary):
    """1 / x."""


@op("math.erf")
class Erf(FloatUnary):
    """The error function, 2 / sqrt(pi) * integral of exp(-t^2) from 0 to x."""


@op("math.tanh")
class Tanh(FloatUnary):
    """Hyperbolic tangent."""


@op("math.sin")
class Sin(FloatUnary):
    """Sine of x in radians."""


@op("math.cos")
class Cos(FloatUnary):
    """Cosine of x in radians."""


@op("math.tan")
class Tan(FloatUnary):
    """Tangent of x in radians."""


@op("math.asin")
class Asin(FloatUnary):
    """Inverse sine, in radians."""


@op("math.acos")
class Acos(FloatUnary):
    """Inverse cosine, in radians."""


@op("math.atan")
class Atan(FloatUnary):
    """Inverse tangent, in radians."""


@op("math.sinh")
class Sinh(FloatUnary):
    """Hyperbolic sine."""


@op("math.cosh")
class Cosh(FloatUnary):
    """Hyperbolic cosine."""


@op("math.asinh")
class Asinh(FloatUnary):
    """Inverse hyperbolic sine."""


@op("math.acosh")
class Acosh(FloatUnary):
    """Inverse hyperbolic cosine."""


@op("math.atanh")
class Atanh(FloatUnary):
    """Inverse hyperbolic tangent."""


@op("math.floor")
class Floor(FloatUnary):
    """Largest integer not above x."""


@op("math.ceil")
class Ceil(FloatUnary):
    """Smallest integer not below x."""


@op("math.round")
class Round(FloatUnary):
    """Nearest integer, ties to even."""


@op("math.isnan")
class IsNan(Predicate):
    """Whether x is not a number."""


@op("math.isinf")
class IsInf(Predicate):
    """Whether x is infinite."""


@op("math.clip")
class Clip(Unary):
    """min(max(x, low), high); NaN stays NaN. Bounds that are values are expressed with maximum and minimum."""

    low = attr(float, default=-_INFINITY)
    high = attr(float, default=_INFINITY)

    def check(self) -> Iterator[str]:
        yield from super().check()
        if math.isnan(self.low) or math.isnan(self.high):
            yield f"bounds must be numbers, not {self.low} and {self.high}"


@op("math.cast")
class Cast(Op):
    """x as element type `to`: floats round to nearest even, float to integer truncates towards zero, to i1 is x != 0.

    Source: ONNX Cast-13.
    """

    x = operand()
    to = attr(DType)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)

    def infer(self) -> TensorType:
        return self.x.type.with_dtype(self.to)


@op("math.bitcast")
class BitCast(Op):
    """The bits of x read as another element type of the same width. Source: ONNX BitCast-26."""

    x = operand()
    to = attr(DType)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        if self.to.size != self.x.type.dtype.size:
            yield f"{self.x.type.dtype} and {self.to} differ in width"

    def infer(self) -> TensorType:
        return self.x.type.with_dtype(self.to)


@op("math.det")
class Det(Op):
    """Determinant of the square matrices in the last two axes. Source: ONNX Det-22."""

    x = operand(dtypes=FLOATS)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        shape = self.x.type.shape
        if len(shape) < 2 or not same(shape[-1], shape[-2]):
            yield f"x has shape {shape}, its last two axes must be equal"

    def infer(self) -> TensorType:
        return self.x.type.with_shape(self.x.type.shape[:-2])


@op("math.dft")
class Dft(Op):
    """Discrete Fourier transform along `axis` over `length` elements; the last axis of x holds the real part, or the
    real and the imaginary one.

    onesided: only the frequencies up to the middle are given, or, inverse, taken. Source: ONNX DFT-20.
    """

    x = operand(dtypes=FLOATS)
    axis = attr(int, default=-2)
    length = attr(int)
    inverse = attr(bool, default=False)
    onesided = attr(bool, default=False)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        x = self.x.type
        if x.rank < 2 or x.shape[-1] not in (1, 2):
            yield f"x has shape {x.shape}, its last axis must hold 1 or 2 numbers"
            return
        yield from check_axis(self.axis, x.rank)
        if self.axis % x.rank == x.rank - 1:
            yield "axis must not be the last one"
        yield from check_positive("length", [self.length])

    def infer(self) -> TensorType:
        shape = list(self.x.type.shape)
        shape[self.axis] = self.length // 2 + 1 if self.onesided and not self.inverse else self.length
        shape[-1] = 1 if self.onesided and self.inverse else 2
        return self.x.type.with_shape(tuple(shape))
