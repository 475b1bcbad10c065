"""Ops that pick elements by index lists known at compile time, `mlu.take` and `mlu.interpolate`, and `mlu.interleave`,
which puts results back in turn.

Repetition, tiling, broadcasting, nearest resizing, reflected borders and gathers with constant indices are all
`mlu.take`; linear resizing is `mlu.interpolate`, one axis at a time. Index lists are cut into affine runs, so that a
regular pattern costs a few strided copies whatever its length.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from compiler.evaluate.registry import evaluator
from compiler.ir.define import DTypeKind, Floats, Int, Ints, Kind, attr, op, operand, result
from compiler.ir.types import DType, TensorType
from targets.mlu220 import isa
from targets.mlu220.boxes import Box, Interval, View, rows_of
from targets.mlu220.op_base import FLOATS, Emitter, MluOp, as_type, single
from targets.mlu220.op_matrix import TYPE_CODES
from targets.mlu220.op_move import Concat, Movement, copy_instructions

IntLists = Kind("list of lists of integers", lambda lists: tuple(tuple(int(i) for i in one) for one in lists))

LONGEST_PERIOD = 32
"""Patterns that repeat after more elements than this are copied run by run."""


# -- index lists -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Run:
    """Elements `start + i * step + j * inner_step` for i < count, j < inner, which go to `out + i * out_step + j`."""

    out: int
    start: int
    count: int
    step: int
    out_step: int
    inner: int = 1
    inner_step: int = 0


def _straight(indices: Sequence[int]) -> list[tuple[int, int, int]]:
    """(position, length, step) of maximal runs of constant, non-negative step."""
    found = []
    at = 0
    while at < len(indices):
        end = at + 1
        step = indices[end] - indices[at] if end < len(indices) else 0
        if step >= 0:
            while end < len(indices) and indices[end] - indices[end - 1] == step:
                end += 1
        found.append((at, end - at, max(step, 0)))
        at = end
    return found


@lru_cache(maxsize=4096)
def runs_of(indices: tuple[int, ...]) -> tuple[Run, ...]:
    """An index list as few affine runs: straight ones, or those of one period repeated."""
    n = len(indices)
    array = np.asarray(indices)
    best = [Run(at, indices[at], 1, 0, 0, length, step) for at, length, step in _straight(indices)]
    for period in range(1, min(LONGEST_PERIOD, n // 2) + 1):
        steps = array[period:] - array[:-period]
        if steps[0] < 0 or (steps != steps[0]).any():
            continue
        whole = n // period
        found = [
            Run(at, indices[at], whole, int(steps[0]), period, length, step)
            for at, length, step in _straight(indices[:period])
        ]
        rest = whole * period
        found += [Run(rest + at, indices[rest + at], 1, 0, 0, k, step) for at, k, step in _straight(indices[rest:])]
        if len(found) < len(best):
            best = found
    return tuple(best)


@lru_cache(maxsize=4096)
def _most_needed(indices: tuple[int, ...], length: int) -> int:
    """The most consecutive elements that any `length` consecutive indices reach over."""
    array = np.asarray(indices)
    return int((_sliding(np.maximum, array, length) - _sliding(np.minimum, array, length)).max()) + 1


def _sliding(function: np.ufunc, array: np.ndarray, length: int) -> np.ndarray:
    """The maximum, or minimum, of every `length` consecutive elements, in linear time: of what a block of that length
    holds behind the first of them, and of what the next one holds before the last (van Herk 1992)."""
    blocks = np.append(array, np.full(-len(array) % length, array[-1])).reshape(-1, length)
    behind = function.accumulate(blocks[:, ::-1], axis=1)[:, ::-1].ravel()
    before = function.accumulate(blocks, axis=1).ravel()
    count = len(array) - length + 1
    return function(behind[:count], before[length - 1 :][:count])


def needed(indices: tuple[int, ...], interval: Interval, size: int) -> Interval:
    """The interval of an axis of `size` elements that some of the indices reach over: as long for every interval of one
    length, so that a tile's buffers do not depend on where it lies."""
    low, high = interval
    length = _most_needed(indices, high - low)
    start = min(min(indices[low:high]), size - length)
    return start, start + length


def strided(view: View, axis: int, start: int, count: int, step: int) -> View:
    """`count` indices of an axis from `start` by `step`."""
    shape, strides = list(view.shape), list(view.strides)
    address = view.address + start * strides[axis]
    shape[axis], strides[axis] = count, strides[axis] * step
    return replace(view, address=address, shape=tuple(shape), strides=tuple(strides))


# -- take ------------------------------------------------------------------------------------------------------------
@op("mlu.take")
class Take(Movement):
    """y[i, j, …] = x[indices[0][i], indices[1][j], …]: one list per axis, an empty one takes the axis as it is."""

    x = operand()
    indices = attr(IntLists)
    y = result()

    def check(self) -> Iterable[str]:
        shape = self.x.type.static_shape
        if len(self.indices) != len(shape):
            yield f"{len(self.indices)} lists for {len(shape)} axes"
            return
        for axis, (d, picked) in enumerate(zip(shape, self.indices, strict=True)):
            if picked and not (min(picked) >= 0 and max(picked) < d):
                yield f"axis {axis}: an index is not below {d}"

    def infer(self) -> TensorType:
        shape = [len(picked) or d for d, picked in zip(self.x.type.static_shape, self.indices, strict=True)]
        return TensorType(tuple(shape), self.x.type.dtype)

    def input_boxes(self, box: Box) -> list[Box | None]:
        shape = self.x.type.static_shape
        return [tuple(
            needed(picked, interval, d) if picked else interval
            for interval, picked, d in zip(box, self.indices, shape, strict=True)
        )]  # fmt: skip

    def emit_box(self, emitter: Emitter, box: Box, out: View, inputs: Sequence[View | None]) -> None:
        source = inputs[0]
        assert source is not None
        (taken,) = self.input_boxes(box)
        assert taken is not None
        for instruction in self._copies(box, taken, out, source):
            emitter.add(instruction, [out.slot], [source.slot])

    def _copies(self, box: Box, taken: Box, out: View, source: View) -> Iterator[isa.Copy]:
        axes: list[tuple[Run, ...]] = []
        for (low, high), (first, _), picked in zip(box, taken, self.indices, strict=True):
            if picked:
                axes.append(runs_of(tuple(i - first for i in picked[low:high])))
            else:
                axes.append((Run(0, 0, 1, 0, 0, high - low, 1),))
        for runs in itertools.product(*axes):
            yield from copy_instructions(_along(out, runs, True), _along(source, runs, False))


def _along(view: View, runs: Sequence[Run], out: bool) -> View:
    """A view's elements along one run per axis; every axis becomes two, the run's count and its inner elements."""
    address, shape, strides = view.address, [], []
    for stride, run in zip(view.strides, runs, strict=True):
        address += stride * (run.out if out else run.start)
        shape += [run.count, run.inner]
        strides += [stride * (run.out_step if out else run.step), stride * (1 if out else run.inner_step)]
    return replace(view, address=address, shape=tuple(shape), strides=tuple(strides))


@evaluator("mlu.take")
def evaluate_take(op: Take, x: np.ndarray) -> np.ndarray:
    for axis, picked in enumerate(op.indices):
        if picked:
            x = np.take(x, picked, axis=axis)
    return np.ascontiguousarray(x)


# -- interpolate -----------------------------------------------------------------------------------------------------
@op("mlu.interpolate")
class Interpolate(MluOp):
    """y[i] = x[low[i]] + (x[high[i]] - x[low[i]]) * weights[i] along `axis`: a difference, a product and a sum, each
    rounded to x's type."""

    x = operand(dtypes=FLOATS)
    axis = attr(Int)
    low = attr(Ints)
    high = attr(Ints)
    weights = attr(Floats)
    y = result()

    def check(self) -> Iterable[str]:
        rank = self.x.type.rank
        if not 0 <= self.axis < rank:
            yield f"axis {self.axis} of {rank} axes"
            return
        if not len(self.low) == len(self.high) == len(self.weights) > 0:
            yield "low, high and weights must have one entry per element of the result"
            return
        if min(*self.low, *self.high) < 0 or max(*self.low, *self.high) >= self.x.type.static_shape[self.axis]:
            yield f"an index is not below {self.x.type.shape[self.axis]}"

    def infer(self) -> TensorType:
        shape = list(self.x.type.static_shape)
        shape[self.axis] = len(self.low)
        return TensorType(tuple(shape), self.x.type.dtype)

    def input_boxes(self, box: Box) -> list[Box | None]:
        size = self.x.type.static_shape[self.axis]
        low, high = box[self.axis]
        pairs = tuple(i for pair in zip(self.low, self.high, strict=True) for i in pair)
        return [(*box[: self.axis], needed(pairs, (2 * low, 2 * high), size), *box[self.axis + 1 :])]

    def emit_box(self, emitter: Emitter, box: Box, out: View, inputs: Sequence[View | None]) -> None:
        x, axis = inputs[0], self.axis
        assert x is not None
        (taken,) = self.input_boxes(box)
        assert taken is not None
        first, _ = taken[axis]
        low, high = box[axis]
        for run in linear_runs(self.low[low:high], self.high[low:high], self.weights[low:high]):
            y = strided(out, axis, run.out, run.count, run.out_step)
            a = strided(x, axis, run.low - first, run.count, run.low_step)
            b = strided(x, axis, run.high - first, run.count, run.high_step)
            for views, function, weight in (
                ((y, b, a), isa.BinaryFunction.SUB, None), ((y, y, None), isa.BinaryFunction.MUL, run.weight),
                ((y, y, a), isa.BinaryFunction.ADD, None),
            ):  # fmt: skip
                _emit_binary(emitter, views, function, weight)


def _emit_binary(
    emitter: Emitter, views: tuple[View, View, View | None], function: isa.BinaryFunction, constant: float | None
) -> None:
    out, _, b = views
    used = [v for v in views if v is not None]
    for rows in rows_of(used):
        instruction = isa.Binary(
            dst=rows.addresses[0], a=rows.addresses[1], b=rows.addresses[2] if b is not None else 0,
            rows=rows.rows, count=rows.count, dst_pitch=rows.pitches[0], a_pitch=rows.pitches[1],
            b_pitch=rows.pitches[2] if b is not None else 0, dtype=TYPE_CODES[out.dtype], function=function,
            mode=isa.Mode.CONST if b is None else isa.Mode.FULL, period=0, constant=constant or 0.0,
        )  # fmt: skip
        emitter.add(instruction, [out.slot], [v.slot for v in used[1:]])


@dataclass(frozen=True)
class LinearRun:
    """Elements `out + i * out_step` that mix `low + i * low_step` and `high + i * high_step` with one weight."""

    out: int
    out_step: int
    count: int
    low: int
    low_step: int
    high: int
    high_step: int
    weight: float


def linear_runs(low: Sequence[int], high: Sequence[int], weights: Sequence[float]) -> list[LinearRun]:
    """Interpolated elements grouped by weight, and each group cut where its steps change."""
    places: dict[float, list[int]] = {}
    for position, weight in enumerate(weights):
        places.setdefault(weight, []).append(position)
    found = []
    for weight, positions in places.items():
        at = 0
        while at < len(positions):
            first, end, steps = positions[at], at + 1, (0, 0, 0)
            while end < len(positions):
                here, before = positions[end], positions[end - 1]
                step = (here - before, low[here] - low[before], high[here] - high[before])
                if min(step) < 0 or (end > at + 1 and step != steps):
                    break
                steps = step
                end += 1
            found.append(LinearRun(first, steps[0], end - at, low[first], steps[1], high[first], steps[2], weight))
            at = end
    return found


@evaluator("mlu.interpolate")
def evaluate_interpolate(op: Interpolate, x: np.ndarray) -> np.ndarray:
    dtype = op.result.type.dtype
    a, b = single(np.take(x, op.low, axis=op.axis)), single(np.take(x, op.high, axis=op.axis))
    shape = [1] * x.ndim
    shape[op.axis] = -1
    weights = np.asarray(op.weights, np.float32).reshape(shape)
    difference = single(as_type(b - a, dtype))
    product = single(as_type(difference * weights, dtype))
    return as_type(product + a, dtype)


# -- widen -----------------------------------------------------------------------------------------------------------
@op("mlu.widen")
class Widen(Movement):
    """Integers that are not negative in a wider type: zeros, and the narrow integers in their low bytes."""

    x = operand(dtypes=(DType.I16,))
    to = attr(DTypeKind)
    y = result()

    def check(self) -> Iterable[str]:
        if self.to not in (DType.I32, DType.I64):
            yield f"widens to i32 or i64, not {self.to}"

    def infer(self) -> TensorType:
        return TensorType(self.x.type.shape, self.to)

    def emit_tile(self, emitter: Emitter, out: View, inputs: Sequence[View | None]) -> None:
        x = inputs[0]
        assert x is not None and out.is_dense
        size = math.prod(out.shape) * out.itemsize
        emitter.add(isa.Fill(dst=out.address, element_size=4, value=0, run=size), [out.slot], [])
        low = replace(out, dtype=x.dtype)  # the strides stay those of the wide elements
        for instruction in copy_instructions(low, x):
            emitter.add(instruction, [out.slot], [x.slot])


@evaluator("mlu.widen")
def evaluate_widen(op: Widen, x: np.ndarray) -> np.ndarray:
    return x.astype(op.to.numpy)


# -- interleave ------------------------------------------------------------------------------------------------------
@op("mlu.interleave")
class Interleave(Concat):
    """Operands' indices in turn along `axis`: y[i * k + j] = xs[j][i] for k operands. A view, like a concatenation."""

    def check(self) -> Iterable[str]:
        yield from super().check()
        sizes = [x.type.static_shape[self.axis] for x in self.xs]
        if sizes != [len(range(j, sum(sizes), len(sizes))) for j in range(len(sizes))]:
            yield f"operands of {sizes} elements cannot take turns along axis {self.axis}"

    def part(self, whole: View, index: int) -> View:
        length = self.xs[index].type.static_shape[self.axis]
        return strided(whole, self.axis, index, length, len(self.xs))


@evaluator("mlu.interleave")
def evaluate_interleave(op: Interleave, *xs: np.ndarray) -> np.ndarray:
    y = np.empty(op.result.type.static_shape, xs[0].dtype)
    everything = [slice(None)] * y.ndim
    for index, x in enumerate(xs):
        y[(*everything[: op.axis], slice(index, None, len(xs)), *everything[op.axis + 1 :])] = x
    return y
