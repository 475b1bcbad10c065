"""Boxes, views and their common decomposition into dense rows, against element-by-element enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.ir.types import DType
from targets.mlu220 import isa
from targets.mlu220.boxes import (
    Box,
    View,
    box_shape,
    clip,
    common_loops,
    cut,
    dense_strides,
    hull,
    rows_of,
    split_evenly,
    volume,
    whole,
    window_box,
)
from targets.mlu220.emit_kernel import fill_bits
from targets.mlu220.op_move import copy_instructions

DTYPES = (DType.I8, DType.F16, DType.F32)


def addresses(view: View) -> list[int]:
    """Byte address of every element, in row-major order of the view's shape."""
    return [
        view.address + sum(i * s for i, s in zip(index, view.strides, strict=True))
        for index in itertools.product(*map(range, view.shape))
    ]


@st.composite
def views(draw: st.DrawFn, count: int, same_dtype: bool = False) -> list[View]:
    """Equally shaped parts of larger dense tensors, with axes in any order of memory and steps between elements."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=5)))
    made: list[View] = []
    for _ in range(count):
        dtype = made[0].dtype if made and same_dtype else draw(st.sampled_from(DTYPES))
        order = draw(st.sampled_from([tuple(range(len(shape))), draw(st.permutations(range(len(shape))))]))
        spare = [draw(st.sampled_from((0, 0, 0, 1, 2))) for _ in shape]
        outer = [shape[axis] + spare[axis] for axis in order]
        dense = dense_strides(outer, dtype.size)
        strides = [0] * len(shape)
        for place, axis in enumerate(order):
            strides[axis] = dense[place]
        start = sum(draw(st.integers(0, spare[axis])) * strides[axis] for axis in range(len(shape)))
        made.append(View(isa.NRAM, 64 + start, shape, tuple(strides), dtype))
    return made


# -- decomposition ---------------------------------------------------------------------------------------------------
@given(st.integers(1, 3).flatmap(lambda n: views(n)), st.booleans())
def test_rows_visit_every_element_of_all_views_once_and_together(drawn: list[View], single: bool) -> None:
    visited = []
    for rows in rows_of(drawn, single):
        assert not single or rows.rows == 1
        for r, c in itertools.product(range(rows.rows), range(rows.count)):
            places = zip(drawn, rows.addresses, rows.pitches, strict=True)
            visited.append(tuple(a + r * pitch + c * v.itemsize for v, a, pitch in places))
    assert sorted(visited) == sorted(zip(*map(addresses, drawn), strict=True))


@given(st.integers(1, 3).flatmap(lambda n: views(n)))
def test_loops_visit_elements_in_row_major_order(drawn: list[View]) -> None:
    loops = common_loops(drawn)
    visited = [
        tuple(v.address + sum(i * loop.strides[k] for i, loop in zip(index, loops, strict=True))
              for k, v in enumerate(drawn))
        for index in itertools.product(*(range(loop.count) for loop in loops))
    ]  # fmt: skip
    assert visited == list(zip(*map(addresses, drawn), strict=True))


def test_dense_views_are_one_row() -> None:
    dense = View(isa.NRAM, 0, (2, 3, 4, 5), dense_strides((2, 3, 4, 5), 2), DType.F16)
    assert dense.is_dense
    (rows,) = rows_of([dense, dense])
    assert (rows.rows, rows.count) == (1, 120)


def copied_bytes(instructions: Sequence[isa.Copy]) -> Iterator[tuple[int, int]]:
    """(destination, source) of every byte that copies move."""
    for copy in instructions:
        counts = (copy.n0, copy.n1, copy.n2)
        for index in itertools.product(*map(range, counts)):
            to = sum(i * s for i, s in zip(index, (copy.dst_stride0, copy.dst_stride1, copy.dst_stride2), strict=True))
            of = sum(i * s for i, s in zip(index, (copy.src_stride0, copy.src_stride1, copy.src_stride2), strict=True))
            for byte in range(copy.run):
                yield copy.dst[1] + to + byte, copy.src[1] + of + byte


@settings(max_examples=60)
@given(views(2, same_dtype=True))
def test_copies_move_every_byte_where_it_belongs(drawn: list[View]) -> None:
    out, source = drawn
    wanted = [
        (a + byte, b + byte) for a, b in zip(addresses(out), addresses(source), strict=True)
        for byte in range(out.itemsize)
    ]  # fmt: skip
    assert sorted(copied_bytes(list(copy_instructions(out, source)))) == sorted(wanted)


def test_a_copy_takes_one_instruction_up_to_three_loops_around_a_run() -> None:
    shape = (3, 4, 5, 6)
    strided = View(isa.NRAM, 0, shape, (*(2 * s for s in dense_strides(shape, 1)[:-1]), 1), DType.I8)
    dense = View(isa.WORKSPACE, 0, shape, dense_strides(shape, 1), DType.I8)
    assert len(list(copy_instructions(strided, dense))) == 1


# -- views -----------------------------------------------------------------------------------------------------------
@given(views(1), st.data())
def test_a_part_of_a_view_has_the_addresses_of_its_elements(drawn: list[View], data: st.DataObject) -> None:
    (view,) = drawn
    low = [data.draw(st.integers(0, d - 1)) for d in view.shape]
    size = [data.draw(st.integers(1, d - a)) for d, a in zip(view.shape, low, strict=True)]
    table = np.array(addresses(view)).reshape(view.shape)
    part = table[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))]
    assert addresses(view.sub(low, size)) == part.ravel().tolist()
    axis = data.draw(st.integers(0, len(view.shape) - 1))
    assert addresses(view.at(axis, low[axis])) == table.take([low[axis]], axis).ravel().tolist()


@given(views(1), st.randoms())
def test_a_permuted_view_is_the_transposed_table(drawn: list[View], random: object) -> None:
    (view,) = drawn
    order = list(range(len(view.shape)))
    random.shuffle(order)  # type: ignore[attr-defined]
    table = np.array(addresses(view)).reshape(view.shape).transpose(order)
    assert addresses(view.permuted(order)) == table.ravel().tolist()


# -- boxes -----------------------------------------------------------------------------------------------------------
intervals = st.tuples(st.integers(-3, 6), st.integers(0, 6)).map(lambda t: (t[0], t[0] + t[1]))
boxes = st.tuples(intervals, intervals)


def points(box: Box) -> set[tuple[int, ...]]:
    return set(itertools.product(*(range(*interval) for interval in box)))


@given(boxes, st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_clipping_keeps_the_points_inside(box: Box, shape: tuple[int, int]) -> None:
    assert points(clip(box, shape)) == points(box) & points(whole(shape))
    assert volume(box) == len(points(box))


@given(boxes, boxes)
def test_the_hull_is_the_least_box_that_holds_both(a: Box, b: Box) -> None:
    assert hull(None, b) == b
    both = hull(a, b)
    assert points(a) | points(b) <= points(both)
    for axis, (low, high) in enumerate(both):
        inside = {point[axis] for point in points(a) | points(b)}
        assert not inside or (low, high) == (min(inside), max(inside) + 1)


@given(st.integers(0, 9), st.integers(1, 40), st.integers(1, 6), st.sampled_from((1, 2, 8)))
def test_an_interval_is_split_into_neighbours_that_cover_it(low: int, size: int, parts: int, multiple: int) -> None:
    pieces = split_evenly((low, low + size), parts, multiple)
    assert [x for a, b in pieces for x in range(a, b)] == list(range(low, low + size))
    assert len(pieces) <= parts and all((a - low) % multiple == 0 for a, _ in pieces)
    sizes = [-(-(b - a) // multiple) for a, b in pieces]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(-4, 9), st.integers(1, 40), st.integers(1, 9))
def test_cutting_gives_pieces_of_one_size_and_a_rest(low: int, size: int, step: int) -> None:
    pieces = cut((low, low + size), step)
    assert [x for a, b in pieces for x in range(a, b)] == list(range(low, low + size))
    assert all(b - a == step for a, b in pieces[:-1])


@given(st.integers(0, 9), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.integers(0, 3))
def test_a_window_needs_what_its_taps_touch(
    low: int, size: int, kernel: int, stride: int, dilation: int, pad: int
) -> None:
    touched = {o * stride - pad + t * dilation for o in range(low, low + size) for t in range(kernel)}
    assert window_box((low, low + size), kernel, stride, dilation, pad) == (min(touched), max(touched) + 1)


def test_box_shape_is_the_size_per_axis() -> None:
    assert box_shape(((1, 4), (0, 0), (-2, 2))) == (3, 0, 4)


@pytest.mark.parametrize(
    ("value", "dtype", "bits"),
    [(0.0, DType.I8, 0), (-1.0, DType.I8, 0xFF), (float("-inf"), DType.F16, 0xFC00), (1.0, DType.F32, 0x3F800000)],
)
def test_fill_values_become_the_bits_of_their_type(value: float, dtype: DType, bits: int) -> None:
    assert fill_bits(value, dtype) & 0xFFFFFFFF == bits


def test_integers_have_no_infinity() -> None:
    with pytest.raises(ValueError, match="no i8 form"):
        fill_bits(float("inf"), DType.I8)
