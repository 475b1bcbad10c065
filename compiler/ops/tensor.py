"""The `tensor.` ops: movement of elements and integer bookkeeping. What only moves elements keeps a quantised type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from compiler.ir.core import Op
from compiler.ir.define import Choice, Ints, attr, op, operand, result
from compiler.ir.types import Dimension, DType, QuantType, Shape, TensorType
from compiler.ops import selection
from compiler.ops.shapes import (
    NUMBERS,
    broadcasts_to,
    check_axis,
    check_has_axes,
    check_positive,
    check_same_dtype,
    plus,
    reject_quantised,
    same,
    times,
)

__all__ = ["selection"]  # declared there, loaded with this family

INDEX = frozenset({DType.I32, DType.I64})


def _moved(type: TensorType, shape: Shape, axis: int | None) -> TensorType:
    """`type` with another shape, whose per-axis scales, if any, now lie along `axis`."""
    if type.quant is None or type.quant.axis is None:
        return type.with_shape(shape)
    return TensorType(shape, type.dtype, replace(type.quant, axis=axis))


def _per_axis(quant: QuantType | None) -> bool:
    return quant is not None and quant.axis is not None


def _check_whole_axis(op: Op, type: TensorType, touched: set[int]) -> Iterator[str]:
    """A fault where per-axis scales lie along an axis whose elements the op rearranges."""
    if type.quant is not None and type.quant.axis in touched:
        yield f"x has one scale per index of axis {type.quant.axis}, which this op rearranges"


def _product(shape: Shape) -> Dimension:
    total: Dimension = 1
    for d in shape:
        total = times(total, d)
    return total


def reshaped_axis(before: Shape, after: Shape, axis: int) -> int | None:
    """The axis of `after` that holds the same indices as `axis` of `before`; None if no axis does."""
    lead = _product(before[:axis])
    for i, size in enumerate(after):
        if size == before[axis] and _product(after[:i]) == lead:
            return i
    return None


@op("tensor.reshape")
class Reshape(Op):
    """The same elements in row-major order under another shape; one entry may be -1.

    Source: ONNX Reshape-14 (no zeros).
    """

    x = operand()
    shape = attr(Ints)
    y = result()

    def check(self) -> Iterator[str]:
        x, shape = self.x.type, self.shape
        if shape.count(-1) > 1 or any(d < -1 for d in shape):
            yield f"shape {list(shape)} must not be negative, but for one -1"
            return
        known = _product(tuple(d for d in shape if d != -1))
        elements = _product(x.shape)
        if elements is not None and known is not None:
            fits = elements == known if -1 not in shape else known != 0 and elements % known == 0
            if not fits:
                yield f"{elements} elements {x.shape} do not fit shape {list(shape)}"
                return
        if _per_axis(x.quant) and reshaped_axis(x.shape, self._shape(), x.quant.axis) is None:
            yield f"x has one scale per index of axis {x.quant.axis}, which shape {list(shape)} does not keep"

    def _shape(self) -> Shape:
        if -1 not in self.shape:
            return self.shape
        elements = _product(self.x.type.shape)
        known = _product(tuple(d for d in self.shape if d != -1))
        missing = None if elements is None or not known else elements // known
        return tuple(missing if d == -1 else d for d in self.shape)

    def infer(self) -> TensorType:
        x, shape = self.x.type, self._shape()
        axis = reshaped_axis(x.shape, shape, x.quant.axis) if _per_axis(x.quant) else None
        return _moved(x, shape, axis)


@op("tensor.transpose")
class Transpose(Op):
    """Axis i of y is axis perm[i] of x."""

    x = operand()
    perm = attr(Ints)
    y = result()

    def check(self) -> Iterator[str]:
        if sorted(self.perm) != list(range(self.x.type.rank)):
            yield f"perm {list(self.perm)} is not an order of the {self.x.type.rank} axes"

    def infer(self) -> TensorType:
        x = self.x.type
        axis = self.perm.index(x.quant.axis) if _per_axis(x.quant) else None
        return _moved(x, tuple(x.shape[p] for p in self.perm), axis)


@op("tensor.concat")
class Concat(Op):
    """The operands one after another along `axis`. Quantised operands must have one and the same type."""

    xs = operand(variadic=True)
    axis = attr(int)
    y = result()

    def check(self) -> Iterator[str]:
        if not self.xs:
            yield "takes at least one operand"
            return
        first = self.xs[0].type
        yield from check_has_axes(self)
        yield from check_same_dtype(self)
        yield from check_axis(self.axis, first.rank)
        if any(x.type.quant != first.quant for x in self.xs):
            yield "operands differ in quantisation"
        axis = self.axis % max(first.rank, 1)
        yield from _check_whole_axis(self, first, {axis})
        for x in self.xs[1:]:
            shape = x.type.shape
            fits = len(shape) == first.rank and all(
                i == axis or same(a, b) for i, (a, b) in enumerate(zip(first.shape, shape, strict=True))
            )
            if not fits:
                yield f"shapes {first.shape} and {shape} differ outside axis {axis}"

    def infer(self) -> TensorType:
        first = self.xs[0].type
        axis = self.axis % first.rank
        shape = list(first.shape)
        for x in self.xs[1:]:
            for i, d in enumerate(x.type.shape):
                if i == axis:
                    shape[i] = plus(shape[i], d)
                elif shape[i] is None:
                    shape[i] = d
        return first.with_shape(tuple(shape))


@op("tensor.slice")
class Slice(Op):
    """Along axis i the elements starts[i], starts[i] + steps[i], …, sizes[i] of them. Steps may be negative; starts are
    not.

    steps defaults to 1 everywhere. Source: ONNX Slice-13, with ends resolved to sizes.
    """

    x = operand()
    starts = attr(Ints)
    sizes = attr(Ints)
    steps = attr(Ints, default=())
    y = result()

    @property
    def strides(self) -> tuple[int, ...]:
        """Steps, with the default filled in."""
        return self.steps or (1,) * len(self.starts)

    @property
    def slices(self) -> tuple[slice, ...]:
        """What to index an array with."""
        found = []
        for start, size, step in zip(self.starts, self.sizes, self.strides, strict=True):
            end = start + size * step
            found.append(slice(start, end if end >= 0 else None, step) if size else slice(0, 0))
        return tuple(found)

    def check(self) -> Iterator[str]:
        rank = self.x.type.rank
        if not len(self.starts) == len(self.sizes) == len(self.strides) == rank:
            yield f"starts, sizes and steps need one entry for each of the {rank} axes"
            return
        yield from check_positive("sizes", self.sizes, least=0)
        for i, (start, size, step) in enumerate(zip(self.starts, self.sizes, self.strides, strict=True)):
            dimension = self.x.type.shape[i]
            last = start + (size - 1) * step
            if step == 0:
                yield "steps must not be 0"
            elif size > 0 and (min(start, last) < 0 or (dimension is not None and max(start, last) >= dimension)):
                yield f"axis {i} has {dimension} elements, slice reads {start} to {last}"
        touched = {i for i, d in enumerate(self.x.type.shape) if d != self.sizes[i] or self.strides[i] != 1}
        yield from _check_whole_axis(self, self.x.type, touched)

    def infer(self) -> TensorType:
        return self.x.type.with_shape(self.sizes)


@op("tensor.pad")
class Pad(Op):
    """x with elements added: pads = [before axis 0, before axis 1, …, after axis 0, …]. Source: ONNX Pad-21.

    mode constant writes `value` (as a real; quantised x stores its integer), edge repeats the border, reflect mirrors
    without repeating the border, wrap continues from the other side. Negative pads (cropping) are slices.
    """

    x = operand()
    pads = attr(Ints)
    mode = attr(Choice("constant", "edge", "reflect", "wrap"), default="constant")
    value = attr(float, default=0.0)
    y = result()

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(before, after) of every axis."""
        rank = self.x.type.rank
        return list(zip(self.pads[:rank], self.pads[rank:], strict=True))

    def check(self) -> Iterator[str]:
        x = self.x.type
        if len(self.pads) != 2 * x.rank:
            yield f"pads has {len(self.pads)} entries, rank {x.rank} needs {2 * x.rank}"
            return
        yield from check_positive("pads", self.pads, least=0)
        yield from _check_whole_axis(self, x, {i for i, pair in enumerate(self.pairs) if any(pair)})
        for i, (pair, d) in enumerate(zip(self.pairs, x.shape, strict=True)):
            limit = {"constant": None, "edge": None if d else 0, "wrap": None if d else 0}.get(self.mode, (d or 1) - 1)
            if d is not None and limit is not None and max(pair) > limit:
                yield f"cannot {self.mode} {max(pair)} elements on axis {i} of {d} elements"

    def infer(self) -> TensorType:
        shape = tuple(plus(d, sum(p)) for d, p in zip(self.x.type.shape, self.pairs, strict=True))
        return self.x.type.with_shape(shape)


@op("tensor.gather")
class Gather(Op):
    """Slices of x along `axis`, picked by `indices` (negative ones count from the end): y has indices' shape in that
    axis's place.

    Source: ONNX Gather-13.
    """

    x = operand()
    indices = operand(dtypes=INDEX)
    axis = attr(int, default=0)
    y = result()

    def check(self) -> Iterator[str]:
        yield from check_axis(self.axis, self.x.type.rank)
        yield from check_has_axes(self)
        yield from _check_whole_axis(self, self.x.type, {self.axis % max(self.x.type.rank, 1)})

    def infer(self) -> TensorType:
        x, axis = self.x.type, self.axis % self.x.type.rank
        quant_axis = x.quant.axis if _per_axis(x.quant) else None
        if quant_axis is not None and quant_axis > axis:
            quant_axis += self.indices.type.rank - 1
        return _moved(x, x.shape[:axis] + self.indices.type.shape + x.shape[axis + 1 :], quant_axis)


def _check_elements(op: GatherElements | ScatterElements, x: Shape, indices: Shape) -> Iterator[str]:
    """Faults of indices that pick an element of x for each of their places, which outside `axis` are places of x."""
    faults = [*check_has_axes(op), *check_axis(op.axis, len(x))]
    yield from faults
    if len(indices) != len(x):
        yield f"indices have rank {len(indices)}, x has rank {len(x)}"
    elif not faults:
        others = [(i, d) for axis, (i, d) in enumerate(zip(indices, x, strict=True)) if axis != op.axis % len(x)]
        if any(i is not None and d is not None and i > d for i, d in others):
            yield f"indices {indices} reach beyond x {x} outside axis {op.axis}"


@op("tensor.gather_elements")
class GatherElements(Op):
    """y[i][j] = x[indices[i][j]][j] along axis 0, and so on. Source: ONNX GatherElements-13."""

    x = operand()
    indices = operand(dtypes=INDEX)
    axis = attr(int, default=0)
    y = result()

    def check(self) -> Iterator[str]:
        yield from _check_elements(self, self.x.type.shape, self.indices.type.shape)
        if _per_axis(self.x.type.quant):
            yield "x must have one scale"

    def infer(self) -> TensorType:
        return self.x.type.with_shape(self.indices.type.shape)


@op("tensor.gather_nd")
class GatherNd(Op):
    """y[i] = x[indices[i]]: the last axis of `indices` holds leading coordinates of x, after `batch_dims` common axes.

    Source: ONNX GatherND-13.
    """

    x = operand()
    indices = operand(dtypes=INDEX)
    batch_dims = attr(int, default=0)
    y = result()

    def check(self) -> Iterator[str]:
        x, indices, batch = self.x.type, self.indices.type, self.batch_dims
        if _per_axis(x.quant):
            yield "x must have one scale"
        if indices.rank == 0 or indices.shape[-1] is None:
            yield "the last axis of indices must be known"
        elif not 0 <= batch < indices.rank or not all(map(same, x.shape[:batch], indices.shape[:batch])):
            yield f"x {x.shape} and indices {indices.shape} do not have {batch} axes in common"
        elif indices.shape[-1] > x.rank - batch:
            yield f"indices name {indices.shape[-1]} coordinates, x has {x.rank - self.batch_dims}"

    def infer(self) -> TensorType:
        x, indices = self.x.type, self.indices.type
        return x.with_shape(indices.shape[:-1] + x.shape[self.batch_dims + indices.shape[-1] :])


@op("tensor.scatter_nd")
class ScatterNd(Op):
    """x with x[indices[i]] replaced by updates[i] (or added, multiplied, …). Source: ONNX ScatterND-18."""

    x = operand()
    indices = operand(dtypes=INDEX)
    updates = operand()
    reduction = attr(Choice("none", "add", "mul", "max", "min"), default="none")
    y = result()

    def check(self) -> Iterator[str]:
        x, indices, updates = self.x.type, self.indices.type, self.updates.type
        if x.quant is not None or updates.quant is not None:
            yield from reject_quantised(self)
        yield from check_same_dtype(self, [self.x, self.updates])
        if indices.rank == 0 or indices.shape[-1] is None:
            yield "the last axis of indices must be known"
            return
        if indices.shape[-1] > x.rank:
            yield f"indices name {indices.shape[-1]} coordinates, x has {x.rank}"
        wanted = indices.shape[:-1] + x.shape[indices.shape[-1] :]
        if len(wanted) != updates.rank or not all(map(same, wanted, updates.shape)):
            yield f"updates have shape {updates.shape}, expected {wanted}"

    def infer(self) -> TensorType:
        return self.x.type


@op("tensor.scatter_elements")
class ScatterElements(Op):
    """x with x[indices[i][j]][j] replaced by updates[i][j] along axis 0, and so on. Source: ONNX ScatterElements-18."""

    x = operand()
    indices = operand(dtypes=INDEX)
    updates = operand()
    axis = attr(int, default=0)
    reduction = attr(Choice("none", "add", "mul", "max", "min"), default="none")
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        yield from check_same_dtype(self, [self.x, self.updates])
        yield from _check_elements(self, self.x.type.shape, self.indices.type.shape)
        if self.updates.type.shape != self.indices.type.shape:
            yield f"updates have shape {self.updates.type.shape}, indices {self.indices.type.shape}"

    def infer(self) -> TensorType:
        return self.x.type


@op("tensor.broadcast_to")
class BroadcastTo(Op):
    """x repeated to `shape` by NumPy's rule (one direction: x's axes of one element grow). ONNX Expand is this after
    broadcast.
    """

    x = operand()
    shape = attr(Ints)
    y = result()

    def check(self) -> Iterator[str]:
        yield from check_positive("shape", self.shape, least=0)
        if not broadcasts_to(self.x.type.shape, self.shape):
            yield f"{self.x.type.shape} does not broadcast to {list(self.shape)}"

    def infer(self) -> TensorType:
        x = self.x.type
        axis = x.quant.axis + len(self.shape) - x.rank if _per_axis(x.quant) else None
        return _moved(x, self.shape, axis)


@op("tensor.tile")
class Tile(Op):
    """x repeated `repeats[i]` times along axis i. Source: ONNX Tile-13."""

    x = operand()
    repeats = attr(Ints)
    y = result()

    def check(self) -> Iterator[str]:
        if len(self.repeats) != self.x.type.rank:
            yield f"repeats has {len(self.repeats)} entries, x has rank {self.x.type.rank}"
            return
        yield from check_positive("repeats", self.repeats, least=0)
        yield from _check_whole_axis(self, self.x.type, {i for i, r in enumerate(self.repeats) if r != 1})

    def infer(self) -> TensorType:
        return self.x.type.with_shape(tuple(times(d, r) for d, r in zip(self.x.type.shape, self.repeats, strict=True)))


@op("tensor.one_hot")
class OneHot(Op):
    """`on` where the new axis's index equals the index, else `off`. Indices in [-depth, depth).

    Source: ONNX OneHot-11.
    """

    indices = operand(dtypes=NUMBERS)
    depth = attr(int)
    axis = attr(int, default=-1)
    on = attr(float, default=1.0)
    off = attr(float, default=0.0)
    to = attr(DType, default=DType.F32)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        yield from check_positive("depth", [self.depth])
        yield from check_axis(self.axis, self.indices.type.rank + 1)

    def infer(self) -> TensorType:
        shape = list(self.indices.type.shape)
        shape.insert(self.axis % (len(shape) + 1), self.depth)
        return TensorType(tuple(shape), self.to)


@op("tensor.cumsum")
class CumSum(Op):
    """Running sum along `axis`; exclusive: without the element itself; reverse: from the end.

    Source: ONNX CumSum-14.
    """

    x = operand(dtypes=NUMBERS)
    axis = attr(int)
    exclusive = attr(bool, default=False)
    reverse = attr(bool, default=False)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        yield from check_axis(self.axis, self.x.type.rank)

    def infer(self) -> TensorType:
        return self.x.type


@op("tensor.cumprod")
class CumProd(CumSum):
    """Running product along `axis`; exclusive: without the element itself; reverse: from the end.

    Source: ONNX CumProd-26.
    """


@op("tensor.topk")
class TopK(Op):
    """The k largest (or smallest) elements along `axis`, in order, and their i64 indices; equal ones by lower index.

    Source: ONNX TopK-11 (the order is sorted always).
    """

    x = operand(dtypes=NUMBERS)
    k = attr(int)
    axis = attr(int, default=-1)
    largest = attr(bool, default=True)
    values = result()
    indices = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        faults = [*check_has_axes(self), *check_axis(self.axis, self.x.type.rank)]
        yield from faults or check_positive("k", [self.k], least=0)
        size = self.x.type.shape[self.axis] if not faults else None
        if size is not None and size < self.k:
            yield f"k is {self.k}, axis {self.axis} has {size} elements"

    def infer(self) -> list[TensorType]:
        shape = list(self.x.type.shape)
        shape[self.axis] = self.k
        return [self.x.type.with_shape(tuple(shape)), TensorType(tuple(shape), DType.I64)]


@op("tensor.trilu")
class Trilu(Op):
    """The upper or lower triangle of the last two axes, zero elsewhere; diagonal `k` belongs to it.

    Source: ONNX Trilu-14.
    """

    x = operand()
    upper = attr(bool, default=True)
    k = attr(int, default=0)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        if self.x.type.rank < 2:
            yield "x must have at least two axes"

    def infer(self) -> TensorType:
        return self.x.type
