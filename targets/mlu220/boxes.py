"""Boxes of tensors and views of memory: the geometry that tiling, fusion, emission and cost share.

A box is one half-open interval per axis, in elements; it may reach outside its tensor where an op pads (the border is
then filled, not loaded). A view is a box that lies somewhere in memory: address of its first element, shape and byte
strides. `rows_of` finds the common decomposition of several views into dense rows, which is what vector and DMA
instructions take.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compiler.ir.types import DType

Interval = tuple[int, int]
Box = tuple[Interval, ...]


def whole(shape: Sequence[int]) -> Box:
    """The box of a whole tensor."""
    return tuple((0, d) for d in shape)


def box_shape(box: Box) -> tuple[int, ...]:
    return tuple([high - low for low, high in box])


def volume(box: Box) -> int:
    return math.prod(box_shape(box))


def clip(box: Box, shape: Sequence[int]) -> Box:
    """The part of a box that lies in a tensor of this shape."""
    for (low, high), d in zip(box, shape, strict=True):
        if low < 0 or high > d:
            break
    else:
        return box
    return tuple((min(max(low, 0), d), max(min(high, d), 0)) for (low, high), d in zip(box, shape, strict=True))


def hull(first: Box | None, second: Box) -> Box:
    """The smallest box that holds both; an empty one takes no part."""
    if first is None or first == second or not volume(first):
        return second
    if not volume(second):
        return first
    return tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(first, second, strict=True))


def split_evenly(interval: Interval, parts: int, multiple: int = 1) -> list[Interval]:
    """Cut an interval into at most `parts` non-empty pieces whose inner borders are multiples of `multiple` from its
    start."""
    low, high = interval
    units = -(-(high - low) // multiple)
    parts = max(1, min(parts, units))
    borders = [low + (units * i // parts) * multiple for i in range(parts)] + [high]
    return [(a, b) for a, b in itertools.pairwise(borders) if b > a]


def cut(interval: Interval, size: int) -> list[Interval]:
    """Cut an interval into pieces of `size`, the last one possibly smaller."""
    low, high = interval
    return [(a, min(a + size, high)) for a in range(low, high, size)]


def window_box(interval: Interval, kernel: int, stride: int, dilation: int, pad: int) -> Interval:
    """The input interval (not clipped) that a sliding window needs for an output interval."""
    low, high = interval
    return low * stride - pad, (high - 1) * stride - pad + (kernel - 1) * dilation + 1


@dataclass(frozen=True)
class View:
    """A box in memory. `address`: byte offset of its first element in `space`; `strides`: bytes, one per axis.

    `slot` identifies the on-chip buffer for synchronisation (-1 off chip); `space` is a number of `isa`'s address
    spaces.
    """

    space: int
    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: DType
    slot: int = -1

    @property
    def itemsize(self) -> int:
        return self.dtype.size

    @property
    def is_dense(self) -> bool:
        return self.strides == dense_strides(self.shape, self.itemsize)

    def sub(self, offset: Sequence[int], shape: Sequence[int]) -> View:
        """The part that starts at element `offset` and has `shape`."""
        start = self.address + sum(o * s for o, s in zip(offset, self.strides, strict=True))
        return View(self.space, start, tuple(shape), self.strides, self.dtype, self.slot)

    def at(self, axis: int, index: int) -> View:
        """One index of an axis, the axis kept with size 1."""
        offset = [0] * len(self.shape)
        offset[axis] = index
        shape = list(self.shape)
        shape[axis] = 1
        return self.sub(offset, shape)

    def permuted(self, order: Sequence[int]) -> View:
        return View(
            self.space, self.address, tuple(self.shape[i] for i in order), tuple(self.strides[i] for i in order),
            self.dtype, self.slot,
        )  # fmt: skip


def dense_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Row-major byte strides."""
    strides = [itemsize] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    return tuple(strides)


@dataclass(frozen=True)
class Loop:
    """One level of a common traversal: how often, and each view's byte stride."""

    count: int
    strides: tuple[int, ...]


def common_loops(views: Sequence[View]) -> list[Loop]:
    """The traversal of equally shaped views, outermost first, size-1 axes dropped and jointly contiguous axes merged.

    The innermost loop has each view's own element size as stride where the views are dense in their last axis.
    """
    loops: list[Loop] = []
    for axis, count in enumerate(views[0].shape):
        if count == 1:
            continue
        strides = tuple(v.strides[axis] for v in views)
        if loops and all(outer == inner * count for outer, inner in zip(loops[-1].strides, strides, strict=True)):
            loops[-1] = Loop(loops[-1].count * count, strides)
        else:
            loops.append(Loop(count, strides))
    return loops


@dataclass(frozen=True)
class Rows:
    """`rows` rows of `count` dense elements: addresses of the first row in each view, and byte pitches between rows."""

    addresses: tuple[int, ...]
    rows: int
    count: int
    pitches: tuple[int, ...]


def rows_of(views: Sequence[View], single: bool = False) -> Iterator[Rows]:
    """Cover equally shaped views by groups of dense rows. `single`: one row at a time (no outer pitch)."""
    loops = common_loops(views)
    sizes = tuple(v.itemsize for v in views)
    count = loops.pop().count if loops and loops[-1].strides == sizes else 1
    rows, pitches = 1, tuple(size * count for size in sizes)
    if loops and not single:
        last = loops.pop()
        rows, pitches = last.count, last.strides
    for index in itertools.product(*(range(loop.count) for loop in loops)):
        addresses = tuple(
            v.address + sum(i * loop.strides[k] for i, loop in zip(index, loops, strict=True))
            for k, v in enumerate(views)
        )
        yield Rows(addresses, rows, count, pitches)
