"""The `reduce.` ops: many elements to one along `axes` (all axes where the list is empty), or its place along one
axis.
"""

from __future__ import annotations

from collections.abc import Iterator

from compiler.ir.core import Op
from compiler.ir.define import Ints, attr, op, operand, result
from compiler.ir.types import DType, Shape, TensorType
from compiler.ops.shapes import FLOATS, NUMBERS, check_axis, normalize_axes, reject_quantised


def reduced_shape(shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    """`shape` with `axes` (counted from the front) made 1 or removed."""
    if keepdims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


class Reduction(Op):
    """A function of all elements along some axes; same element type."""

    x = operand(dtypes=NUMBERS)
    axes = attr(Ints, default=(), doc="empty: all of them")
    keepdims = attr(bool, default=True)
    y = result()

    @property
    def reduced_axes(self) -> tuple[int, ...]:
        """Axes counted from the front, sorted."""
        return normalize_axes(self.axes, self.x.type.rank)

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        yield from self._check_axes()

    def _check_axes(self) -> Iterator[str]:
        for axis in self.axes:
            yield from check_axis(axis, self.x.type.rank)
        if len({a % max(self.x.type.rank, 1) for a in self.axes}) != len(self.axes):
            yield f"axes {list(self.axes)} name an axis twice"

    def infer(self) -> TensorType:
        return self.x.type.with_shape(reduced_shape(self.x.type.shape, self.reduced_axes, self.keepdims))


class FloatReduction(Reduction):
    """A reduction of reals."""

    x = operand(dtypes=FLOATS)


class OrderReduction(Reduction):
    """A reduction by comparison: integers of one scale are ordered as the reals they stand for, so a quantised type is
    kept.
    """

    def check(self) -> Iterator[str]:
        if self.x.type.quant is not None and self.x.type.quant.axis is not None:
            yield "x must have one scale"
        yield from self._check_axes()


@op("reduce.sum")
class Sum(Reduction):
    """Sum."""


@op("reduce.mean")
class Mean(Reduction):
    """Arithmetic mean; integers truncate."""


@op("reduce.max")
class Max(OrderReduction):
    """Maximum; a quantised type is kept."""


@op("reduce.min")
class Min(OrderReduction):
    """Minimum; a quantised type is kept."""


@op("reduce.prod")
class Prod(Reduction):
    """Product."""


@op("reduce.l1")
class L1(Reduction):
    """Sum of absolute values."""


@op("reduce.l2")
class L2(FloatReduction):
    """Square root of the sum of squares."""


@op("reduce.sum_square")
class SumSquare(Reduction):
    """Sum of squares."""


@op("reduce.log_sum")
class LogSum(FloatReduction):
    """Logarithm of the sum."""


@op("reduce.log_sum_exp")
class LogSumExp(FloatReduction):
    """Logarithm of the sum of exponentials, without overflow."""


class ArgReduction(Op):
    """Index (i64) of an extreme element along `axis`: the first such, or the last with `select_last`."""

    x = operand(dtypes=NUMBERS)
    axis = attr(int, default=0)
    keepdims = attr(bool, default=True)
    select_last = attr(bool, default=False)
    y = result()

    def check(self) -> Iterator[str]:
        faults = list(check_axis(self.axis, self.x.type.rank))
        yield from faults
        if not faults and self.x.type.shape and self.x.type.shape[self.axis] == 0:
            yield f"axis {self.axis} of {self.x.type.shape} has no elements"

    def infer(self) -> TensorType:
        shape = self.x.type.shape
        return TensorType(reduced_shape(shape, (self.axis % max(len(shape), 1),), self.keepdims), DType.I64)


@op("reduce.argmax")
class ArgMax(ArgReduction):
    """Index of the largest element along `axis`. Source: ONNX ArgMax-13."""


@op("reduce.argmin")
class ArgMin(ArgReduction):
    """Index of the smallest element along `axis`. Source: ONNX ArgMin-13."""
