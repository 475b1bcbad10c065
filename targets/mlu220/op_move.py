"""Ops that move data without arithmetic, for every element type.

`mlu.reshape`, `mlu.slice` and, where its parts allow, `mlu.concat` are views outside kernels: they name memory and have
no instructions. Inside a kernel a movement is a strided copy within NRAM.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from compiler.evaluate.registry import evaluator
from compiler.ir.define import Dict, Float, Int, Ints, attr, op, operand, result
from compiler.ir.types import TensorType
from targets.mlu220 import isa
from targets.mlu220.boxes import Box, View, common_loops
from targets.mlu220.op_base import Emitter, MluOp


def copy_instructions(out: View, source: View) -> Iterable[isa.Copy]:
    """Copies that fill the view `out` from `source` (equal shapes and element types), three loops and a run each."""
    loops = common_loops([out, source])
    run = out.itemsize
    if loops and loops[-1].strides == (out.itemsize, source.itemsize):
        run = loops.pop().count * out.itemsize
    inner = loops[-3:]
    outer = loops[: len(loops) - len(inner)]
    counts = [1] * (3 - len(inner)) + [loop.count for loop in inner]
    dst_strides = [0] * (3 - len(inner)) + [loop.strides[0] for loop in inner]
    src_strides = [0] * (3 - len(inner)) + [loop.strides[1] for loop in inner]
    for index in itertools.product(*(range(loop.count) for loop in outer)):
        steps = [sum(i * loop.strides[side] for i, loop in zip(index, outer, strict=True)) for side in (0, 1)]
        yield isa.Copy(
            dst=(out.space, out.address + steps[0]), src=(source.space, source.address + steps[1]), run=run,
            n0=counts[0], n1=counts[1], n2=counts[2],
            dst_stride0=dst_strides[0], dst_stride1=dst_strides[1], dst_stride2=dst_strides[2],
            src_stride0=src_strides[0], src_stride1=src_strides[1], src_stride2=src_strides[2],
        )  # fmt: skip


LEAST_MATRIX = 32
"""Least elements of a matrix worth an instruction of the vector unit, where a copy moves them one by one."""


def transpose_instructions(out: View, source: View) -> list[isa.Transpose] | None:
    """Transpositions that fill the view `out` from `source`, which lies in NRAM too: of matrices along the axis in
    which each of the two is dense. None where copies move more than single elements, or matrices are small."""
    loops = common_loops([out, source])
    size = out.itemsize
    rows = next((loop for loop in loops if loop.strides[0] == size), None)
    columns = next((loop for loop in loops if loop.strides[1] == size), None)
    if size not in (1, 2, 4) or rows is None or columns is None or rows is columns:
        return None
    if rows.count * columns.count < LEAST_MATRIX:
        return None
    outer = [loop for loop in loops if loop is not rows and loop is not columns]
    found = []
    for index in itertools.product(*(range(loop.count) for loop in outer)):
        steps = [sum(i * loop.strides[side] for i, loop in zip(index, outer, strict=True)) for side in (0, 1)]
        matrix = isa.Transpose(
            dst=out.address + steps[0], src=source.address + steps[1], rows=rows.count, columns=columns.count,
            element_size=size, src_pitch=rows.strides[1], dst_pitch=columns.strides[0],
        )  # fmt: skip
        found.append(matrix)
    return found


class Movement(MluOp):
    """Base of the movement ops: one copy from each operand's view."""

    unit = "dma"

    def emit_tile(self, emitter: Emitter, out: View, inputs: Sequence[View | None]) -> None:
        source = inputs[0]
        assert source is not None
        for instruction in copy_instructions(out, source):
            emitter.add(instruction, [out.slot], [source.slot])


@op("mlu.copy")
class Copy(Movement):
    """y = x, in memory of its own."""

    x = operand()
    y = result()

    def infer(self) -> TensorType:
        return self.x.type


@op("mlu.reshape")
class Reshape(Movement):
    """The same elements in row-major order under another shape. Always a view."""

    x = operand()
    shape = attr(Ints)
    y = result()

    def check(self) -> Iterable[str]:
        if math.prod(self.shape) != self.x.type.elements:
            yield f"{self.x.type.elements} elements do not fill shape {list(self.shape)}"

    def infer(self) -> TensorType:
        return TensorType(self.shape, self.x.type.dtype)


@op("mlu.storage_cast")
class StorageCast(Movement):
    """The same bytes with another statement of what they stand for, given as result type. Always a view.

    The chip's integers are plain; values that cross to the host say how they are quantised. A truth value is a byte.
    """

    x = operand()
    y = result()

    def check(self) -> Iterable[str]:
        for r in self.results:
            if (r.type.shape, r.type.dtype.size) != (self.x.type.shape, self.x.type.dtype.size):
                yield f"{self.x.type.shape} {self.x.type.dtype} is not stored as {r.type.shape} {r.type.dtype}"


@op("mlu.slice")
class Slice(Movement):
    """y[i] = x[starts + i * steps] over `sizes`; steps are positive. A view."""

    x = operand()
    starts = attr(Ints)
    sizes = attr(Ints)
    steps = attr(Ints)
    y = result()

    def check(self) -> Iterable[str]:
        shape = self.x.type.static_shape
        if not len(shape) == len(self.starts) == len(self.sizes) == len(self.steps):
            yield "starts, sizes and steps must have one entry per axis"
            return
        for axis, (d, start, size, step) in enumerate(zip(shape, self.starts, self.sizes, self.steps, strict=True)):
            if step < 1 or start < 0 or size < 1 or start + (size - 1) * step >= d:
                yield f"axis {axis}: {size} elements from {start} by {step} are not inside {d}"

    def infer(self) -> TensorType:
        return TensorType(self.sizes, self.x.type.dtype)


@op("mlu.transpose")
class Transpose(Movement):
    """Result axis i is operand axis perm[i]."""

    x = operand()
    perm = attr(Ints)
    y = result()

    def infer(self) -> TensorType:
        return TensorType(tuple(self.x.type.shape[i] for i in self.perm), self.x.type.dtype)

    def check(self) -> Iterable[str]:
        if sorted(self.perm) != list(range(self.x.type.rank)):
            yield f"perm {list(self.perm)} is not an order of {self.x.type.rank} axes"

    def input_boxes(self, box: Box) -> list[Box | None]:
        return [tuple(box[self.perm.index(axis)] for axis in range(len(box)))]

    def emit_tile(self, emitter: Emitter, out: View, inputs: Sequence[View | None]) -> None:
        """By copies of what stays together; where that is single elements, by the vector unit, a matrix at a time."""
        source = inputs[0]
        assert source is not None
        source = source.permuted(self.perm)
        matrices = transpose_instructions(out, source)
        if matrices is None:
            super().emit_tile(emitter, out, [source])
        else:
            for instruction in matrices:
                emitter.add(instruction, [out.slot], [source.slot])


@op("mlu.pad")
class Pad(Movement):
    """x with `pads` [before..., after...] elements of `value` around it."""

    x = operand()
    pads = attr(Ints)
    value = attr(Float, default=0.0)
    y = result()

    def check(self) -> Iterable[str]:
        if len(self.pads) != 2 * self.x.type.rank or min(self.pads) < 0:
            yield "pads must be two non-negative numbers per axis"

    def infer(self) -> TensorType:
        rank = self.x.type.rank
        shape = (
            d + b + a for d, b, a in zip(self.x.type.static_shape, self.pads[:rank], self.pads[rank:], strict=True)
        )
        return TensorType(tuple(shape), self.x.type.dtype)

    def input_boxes(self, box: Box) -> list[Box | None]:
        return [tuple((low - before, high - before) for (low, high), before in zip(box, self.pads, strict=False))]

    def pad_value(self, index: int) -> float:
        return self.value


@op("mlu.concat")
class Concat(Movement):
    """Operands one after the other along `axis`."""

    xs = operand(variadic=True)
    axis = attr(Int)
    placement = attr(Dict, default=None)
    y = result()

    def check(self) -> Iterable[str]:
        first = self.xs[0].type
        for x in self.xs[1:]:
            same = x.type.dtype is first.dtype and x.type.rank == first.rank
            if not same or any(
                a != b for i, (a, b) in enumerate(zip(x.type.shape, first.shape, strict=True)) if i != self.axis
            ):
                yield f"{x.type.shape} {x.type.dtype} cannot follow {first.shape} {first.dtype} along axis {self.axis}"

    def infer(self) -> TensorType:
        shape = list(self.xs[0].type.static_shape)
        shape[self.axis] = sum(x.type.static_shape[self.axis] for x in self.xs)
        return TensorType(tuple(shape), self.xs[0].type.dtype)

    def input_boxes(self, box: Box) -> list[Box | None]:
        """The axis of concatenation is never cut, so every operand gives all of it."""
        return [(*box[: self.axis], (0, x.type.static_shape[self.axis]), *box[self.axis + 1 :]) for x in self.xs]

    def part(self, whole: View, index: int) -> View:
        """Where in a view of the result an operand's elements go."""
        start = [0] * len(whole.shape)
        start[self.axis] = sum(x.type.static_shape[self.axis] for x in self.xs[:index])
        shape = list(whole.shape)
        shape[self.axis] = self.xs[index].type.static_shape[self.axis]
        return whole.sub(start, shape)

    def emit_tile(self, emitter: Emitter, out: View, inputs: Sequence[View | None]) -> None:
        for index, source in enumerate(inputs):
            super().emit_tile(emitter, self.part(out, index), [source])


@evaluator("mlu.copy")
def evaluate_copy(op: Copy, x: np.ndarray) -> np.ndarray:
    return x.copy()


@evaluator("mlu.reshape")
def evaluate_reshape(op: Reshape, x: np.ndarray) -> np.ndarray:
    return x.reshape(op.shape)


@evaluator("mlu.storage_cast")
def evaluate_storage_cast(op: StorageCast, x: np.ndarray) -> np.ndarray:
    return x.view(op.result.type.dtype.numpy)


@evaluator("mlu.slice")
def evaluate_slice(op: Slice, x: np.ndarray) -> np.ndarray:
    index = tuple(
        slice(start, start + (size - 1) * step + 1, step)
        for start, size, step in zip(op.starts, op.sizes, op.steps, strict=True)
    )
    return x[index]


@evaluator("mlu.transpose")
def evaluate_transpose(op: Transpose, x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(op.perm))


@evaluator("mlu.pad")
def evaluate_pad(op: Pad, x: np.ndarray) -> np.ndarray:
    rank = x.ndim
    widths = list(zip(op.pads[:rank], op.pads[rank:], strict=True))
    return np.pad(x, widths, constant_values=np.asarray(op.value).astype(x.dtype))


@evaluator("mlu.concat")
def evaluate_concat(op: Concat, *xs: np.ndarray) -> np.ndarray:
    return np.concatenate(xs, axis=op.axis)
