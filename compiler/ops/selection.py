"""The `tensor.` ops whose shape, or the shape of whose result, is known only when they run. All run on the host.

A result's unknown dimensions are None in its type; operands that are shapes are i64 vectors, so that arithmetic on them
is ordinary arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator

from compiler.ir.core import Op
from compiler.ir.define import Ints, attr, op, operand, result
from compiler.ir.types import Dimension, DType, TensorType
from compiler.ops.shapes import NUMBERS, check_axis, check_has_axes, reject_quantised, same

VECTOR = (DType.I64,)


@op("tensor.nonzero")
class NonZero(Op):
    """Coordinates of the elements that are not zero, one row an axis, in row-major order. Source: ONNX NonZero-13."""

    x = operand()
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)

    def infer(self) -> TensorType:
        return TensorType((max(self.x.type.rank, 1), None), DType.I64)


@op("tensor.compress")
class Compress(Op):
    """Slices of x along `axis` whose condition holds; a shorter condition drops the rest. Source: ONNX Compress-11."""

    x = operand()
    condition = operand(rank=1, dtypes=(DType.BOOL,))
    axis = attr(int, default=0)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        yield from check_axis(self.axis, self.x.type.rank)
        yield from check_has_axes(self)

    def infer(self) -> TensorType:
        return self.x.type.with_shape(_opened(self.x.type.shape, self.axis))


def _opened(shape: tuple[Dimension, ...], axis: int) -> tuple[Dimension, ...]:
    return tuple(None if i == axis % len(shape) else d for i, d in enumerate(shape))


@op("tensor.unique")
class Unique(Op):
    """Different slices of x along `axis`, sorted or in the order they appear; where each stands first, which of them
    each slice of x is, and how often they occur.

    Source: ONNX Unique-11; without `axis` a model flattens x first.
    """

    x = operand()
    axis = attr(int, default=0)
    ordered = attr(bool, default=True, doc="sorted; otherwise in the order they appear")
    y = result()
    indices = result()
    inverse = result()
    counts = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        yield from check_axis(self.axis, self.x.type.rank)
        yield from check_has_axes(self)

    def infer(self) -> list[TensorType]:
        shape = self.x.type.shape
        found = TensorType((None,), DType.I64)
        inverse = TensorType((shape[self.axis],), DType.I64)
        return [self.x.type.with_shape(_opened(shape, self.axis)), found, inverse, found]


@op("tensor.shape_of")
class ShapeOf(Op):
    """The shape of x as an i64 vector."""

    x = operand()
    y = result()

    def infer(self) -> TensorType:
        return TensorType((self.x.type.rank,), DType.I64)


@op("tensor.reshape_as")
class ReshapeAs(Op):
    """x under a shape that is computed: -1 stands for what is left, 0 for x's own dimension unless `zeros` are meant.

    `known`: the dimensions of the result, -1 where they are not known. Source: ONNX Reshape-14.
    """

    x = operand()
    shape = operand(rank=1, dtypes=VECTOR)
    zeros = attr(bool, default=False)
    known = attr(Ints)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        if not same(self.shape.type.shape[0], len(self.known)):
            yield f"shape has {self.shape.type.shape[0]} entries, known has {len(self.known)}"

    def infer(self) -> TensorType:
        return self.x.type.with_shape(unknown(self.known))


def unknown(known: tuple[int, ...]) -> tuple[Dimension, ...]:
    """Dimensions of an attribute in which -1 stands for an unknown one."""
    return tuple(None if d < 0 else d for d in known)


@op("tensor.expand_as")
class ExpandAs(Op):
    """x broadcast with a shape that is computed. `known`: dimensions of the result, -1 where unknown. Source: ONNX
    Expand-13."""

    x = operand()
    shape = operand(rank=1, dtypes=VECTOR)
    known = attr(Ints)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)

    def infer(self) -> TensorType:
        return self.x.type.with_shape(unknown(self.known))


def sliced_places(start: int, end: int, step: int, size: int) -> range:
    """The places a slice takes of an axis. ONNX differs from Python in one thing: backwards, a start before the first
    element is the first one.
    """
    return range(*slice(max(start, -size) if step < 0 else start, end, step).indices(size))


@op("tensor.slice_as")
class SliceAs(Op):
    """x cut along `axes` from computed starts to computed ends by computed steps, with ONNX's clamping.

    Each of the three is a vector with an entry for each of `axes`. `known`: dimensions of the result, -1 where unknown.
    Source: ONNX Slice-13.
    """

    x = operand()
    starts = operand(rank=1, dtypes=VECTOR)
    ends = operand(rank=1, dtypes=VECTOR)
    steps = operand(rank=1, dtypes=VECTOR)
    axes = attr(Ints)
    known = attr(Ints)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        if len(self.known) != self.x.type.rank:
            yield f"known has {len(self.known)} entries, x has rank {self.x.type.rank}"
        for axis in self.axes:
            yield from check_axis(axis, self.x.type.rank)
        for value in (self.starts, self.ends, self.steps):
            if not same(value.type.shape[0], len(self.axes)):
                yield f"{value.name!r} has {value.type.shape[0]} entries for {len(self.axes)} axes"

    def infer(self) -> TensorType:
        return self.x.type.with_shape(unknown(self.known))


@op("tensor.topk_as")
class TopKAs(Op):
    """`tensor.topk` of a computed number of elements, or of all there are if they are fewer. Source: ONNX TopK-11."""

    x = operand(dtypes=NUMBERS)
    k = operand(dtypes=VECTOR)
    axis = attr(int, default=-1)
    largest = attr(bool, default=True)
    values = result()
    indices = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        yield from check_axis(self.axis, self.x.type.rank)
        yield from check_has_axes(self)

    def infer(self) -> list[TensorType]:
        shape = _opened(self.x.type.shape, self.axis)
        return [self.x.type.with_shape(shape), TensorType(shape, DType.I64)]


@op("tensor.range")
class Range(Op):
    """start, start + delta, … up to before limit; three computed numbers. Source: ONNX Range-11."""

    start = operand(rank=0, dtypes=NUMBERS)
    limit = operand(rank=0, dtypes=NUMBERS)
    delta = operand(rank=0, dtypes=NUMBERS)
    y = result()

    def infer(self) -> TensorType:
        return TensorType((None,), self.start.type.dtype)


@op("tensor.tile_as")
class TileAs(Op):
    """x repeated along every axis a computed number of times. Source: ONNX Tile-13."""

    x = operand()
    repeats = operand(rank=1, dtypes=VECTOR)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        if not same(self.repeats.type.shape[0], self.x.type.rank):
            yield f"repeats has {self.repeats.type.shape[0]} entries, x has rank {self.x.type.rank}"

    def infer(self) -> TensorType:
        return self.x.type.with_shape((None,) * self.x.type.rank)
