"""Rules of rounding to whole numbers, of the circular functions, and of products and running sums in halves.

Adding 2^23 to a number below it leaves no fraction: the addition itself rounds to nearest, ties to even. What exceeds
2^23 has no fraction and goes around. All is computed in f32 whatever the working type, because whole numbers beyond
2048 are not exact in half floats anyway and angles would lose their fraction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from compiler.ir.core import Value
from compiler.ir.types import DType
from targets.mlu220.lowering import Lowering
from targets.mlu220.rule_table import rule
from targets.mlu220.rules_elementwise import Formula, _is_positive
from targets.mlu220.rules_reduce import along_last, narrowed

WHOLE = 2.0**23
"""From here on fp32 numbers are whole."""

HALF_PI = (1.5703125, 4.837512969970703e-04, 7.549789948768648e-08)
"""pi / 2 in parts: products of the first two with numbers up to 2^12 are exact in fp32."""

SINE = (-1.6666654611e-1, 8.3321608736e-3, -1.9515295891e-4)
COSINE = (4.166664568298827e-2, -1.388731625493765e-3, 2.443315711809948e-5)
"""Polynomials of the circular functions on [-pi/4, pi/4] (Cephes), in the square of the angle."""


def _magnitude_rounded(f: Any, x: Value) -> Value:
    """A number that is not negative, rounded."""
    low = f.min(x, WHOLE)
    return f.add(f.add(f.add(low, WHOLE), -WHOLE), f.sub(x, low))


def _rounded(f: Any, x: Value) -> Value:
    above, below = f.relu(x), f.relu(f.mul(x, -1.0))
    return f.sub(_magnitude_rounded(f, above), _magnitude_rounded(f, below))


def _floor(f: Any, x: Value) -> Value:
    nearest = _rounded(f, x)
    return f.sub(nearest, _is_positive(f, f.sub(nearest, x)))


def _ceil(f: Any, x: Value) -> Value:
    return f.mul(_floor(f, f.mul(x, -1.0)), -1.0)


def _polynomial(f: Any, x: Value, coefficients: tuple[float, ...]) -> Value:
    y = f.add(f.mul(x, coefficients[-1]), coefficients[-2])
    for coefficient in coefficients[-3::-1]:
        y = f.add(f.mul(y, x), coefficient)
    return y


def _circular(f: Any, x: Value, quarters: float) -> Value:
    """The sine of x plus `quarters` quarter turns. With x = n * pi/2 + r, the result is that of r by sine or cosine,
    as n is even or odd, with the sign of n / 2."""
    n = _rounded(f, f.mul(x, 2.0 / math.pi))
    r = x
    for part in HALF_PI:
        r = f.sub(r, f.mul(n, part))
    n = f.add(n, quarters)
    square = f.mul(r, r)
    sine = f.add(f.mul(f.mul(_polynomial(f, square, SINE), square), r), r)
    cosine = f.add(f.add(f.mul(f.mul(_polynomial(f, square, COSINE), square), square), f.mul(square, -0.5)), 1.0)
    pairs = _floor(f, f.mul(n, 0.5))  # whole half turns
    odd = f.sub(n, f.mul(pairs, 2.0))
    negative = f.sub(pairs, f.mul(_floor(f, f.mul(pairs, 0.5)), 2.0))
    value = f.add(sine, f.mul(odd, f.sub(cosine, sine)))
    return f.mul(value, f.add(f.mul(negative, -2.0), 1.0))


WIDE: dict[str, Callable[[Any, Value], Value]] = {
    "math.round": _rounded, "math.floor": _floor, "math.ceil": _ceil,
    "math.sin": lambda f, x: _circular(f, x, 0.0), "math.cos": lambda f, x: _circular(f, x, 1.0),
}  # fmt: skip
"""Formulas computed in f32. The circular functions are good to 1e-6 up to angles of some thousands."""


@rule(*WIDE)
def wide(lowering: Lowering, op: Any) -> Value:
    return narrowed(lowering, op, WIDE[op.op_name](Formula(lowering), lowering.floating(op.x, DType.F32)))


# -- products and running sums ---------------------------------------------------------------------------------------
def _part(lowering: Lowering, x: Value, start: int, size: int) -> Value:
    """Some elements of the last axis."""
    shape = x.type.static_shape
    starts, sizes = (*(0 for _ in shape[:-1]), start), (*shape[:-1], size)
    return lowering.make("mlu.slice", x, starts=starts, sizes=sizes, steps=(1,) * len(shape))


@rule("reduce.prod")
def product_of(lowering: Lowering, op: Any) -> Value:
    """The first half of the elements times the second, until one is left."""
    shape = op.x.type.static_shape
    axes = tuple(sorted(a % len(shape) for a in (op.axes or range(len(shape)))))
    x = lowering.floating(op.x, DType.F32)
    if axes != tuple(range(len(shape) - len(axes), len(shape))):
        x = lowering.make("mlu.transpose", x, perm=(*(a for a in range(len(shape)) if a not in axes), *axes))
    length = math.prod(shape[a] for a in axes)
    x = lowering.reshaped(x, (x.type.elements // length, length))
    while length > 1:
        half = length // 2
        y = lowering.make("mlu.mul", _part(lowering, x, 0, half), _part(lowering, x, half, half))
        if length % 2:
            y = lowering.make("mlu.concat", y, _part(lowering, x, 2 * half, 1), axis=1)
        x, length = y, half + length % 2
    return narrowed(lowering, op, lowering.reshaped(x, op.result.type.static_shape))


@rule("tensor.cumsum")
def running_sum(lowering: Lowering, op: Any) -> Value:
    """Added to itself, moved by 1, 2, 4, ... elements."""

    def moved(x: Value, distance: int) -> Value:
        length, rank = x.type.static_shape[-1], x.type.rank
        kept = _part(lowering, x, distance if op.reverse else 0, length - distance)
        before, after = (0, distance) if op.reverse else (distance, 0)
        zeros = (0,) * (rank - 1)
        return lowering.make("mlu.pad", kept, pads=(*zeros, before, *zeros, after), value=0.0)

    def sums(x: Value) -> Value:
        distance, length = 1, x.type.static_shape[-1]
        while distance < length:
            x = lowering.make("mlu.add", x, moved(x, distance))
            distance *= 2
        if op.exclusive:
            return moved(x, 1) if length > 1 else lowering.make("mlu.mul", x, constant=0.0)
        return x

    return narrowed(lowering, op, along_last(lowering, lowering.floating(op.x, DType.F32), op.axis, sums))
