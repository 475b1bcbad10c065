"""The language of kernels: what is known is computed while translating, the rest is machine code that does the same."""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.native import build, memory
from compiler.native.language import Refused, function
from compiler.native.memory import f32_at, i8_at, i64_at, u8_at, u16_at

SMALL = st.integers(0, 1000)


def run(kernel: build.Kernel, *values: int, size: int = 4, **known: object) -> list[int]:
    """Results that a kernel of (out, values...) writes at `out`."""
    out = np.zeros(size, np.int64)
    kernel(out.ctypes.data, *values, **known)
    return out.tolist()


@build.kernel(4)
def arithmetic(out, a, b, c):
    o = i64_at(out)
    o[0] = (a + b) * c - a // (b + 1)
    o[1] = a % (c + 1) + (b << 2) - (c >> 1)
    o[2] = min(a, b, c) * 1000 + max(a, b)
    o[3] = (a & b) | (c ^ 5)


@settings(max_examples=50, deadline=None)
@given(a=SMALL, b=SMALL, c=SMALL)
def test_integers_compute_as_in_python(a: int, b: int, c: int) -> None:
    expected = [
        (a + b) * c - a // (b + 1), a % (c + 1) + (b << 2) - (c >> 1), min(a, b, c) * 1000 + max(a, b),
        (a & b) | (c ^ 5),
    ]  # fmt: skip
    assert run(arithmetic, a, b, c) == expected


@build.kernel(2)
def loops(out, n):
    o = i64_at(out)
    total, turns = 0, 0
    for i in range(n):
        if i == 3:
            continue
        for j in range(i, 2 * i, 2):
            total += j
        if total > 500:
            break
    left = n
    while left > 1 and left != 7:
        left = left // 2 if left % 2 == 0 else 3 * left + 1
        turns += 1
    o[0], o[1], o[2] = total, turns, left


def loops_in_python(n: int) -> list[int]:
    total = turns = 0
    for i in range(n):
        if i == 3:
            continue
        total += sum(range(i, 2 * i, 2))
        if total > 500:
            break
    left = n
    while left > 1 and left != 7:
        left = left // 2 if left % 2 == 0 else 3 * left + 1
        turns += 1
    return [total, turns, left, 0]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(0, 200))
def test_loops_continue_break_and_count_as_in_python(n: int) -> None:
    assert run(loops, n) == loops_in_python(n)


@function
def sign(x):
    if x > 0:
        return 1, x
    if x < 0:
        return -1, -x
    return 0, x


@build.kernel(2)
def calls(out, x):
    o = i64_at(out)
    o[0], o[1] = sign(x)
    o[2], o[3] = sign(x - 1)


@pytest.mark.parametrize("x", [-5, 0, 1, 2])
def test_functions_return_from_anywhere(x: int) -> None:
    assert run(calls, x) == [np.sign(x), abs(x), np.sign(x - 1), abs(x - 1)]


@build.kernel(2)
def chosen(out, x, which, numbers):
    o = i64_at(out)
    if which == "sum":
        for number in numbers:
            x += number
    elif which is None:
        x = undefined_name  # noqa: F821
    o[0] = x
    for place, (number, _) in enumerate_known(numbers):
        o[1 + place] = number


def enumerate_known(numbers: tuple[int, ...]) -> tuple:
    return tuple(enumerate((n, None) for n in numbers))


def test_what_is_known_decides_which_code_is_written() -> None:
    assert run(chosen, 5, which="sum", numbers=(1, 2, 3)) == [11, 1, 2, 3]
    assert run(chosen, 5, which="none", numbers=(7,)) == [5, 7, 0, 0]


def test_code_of_what_is_known_differs_and_is_kept_apart() -> None:
    addresses = {chosen.address(which="sum", numbers=(n,)) for n in range(3)}
    assert len(addresses) == 3
    assert chosen.address(which="sum", numbers=(1,)) in addresses


@build.kernel(3)
def bytes_and_words(out, source, n):
    o = i64_at(out)
    o[0] = i8_at(source)[n]
    o[1] = u8_at(source)[n]
    o[2] = u16_at(source)[n]
    i8_at(source)[0] = 300
    o[3] = i8_at(source)[0]


def test_views_widen_what_they_read_and_cut_what_they_store() -> None:
    data = np.array([1, -1, -2, 3, 0xFF, 4, 0, 0], np.int16).view(np.uint8)
    assert run(bytes_and_words, data.ctypes.data, 2) == [-1, 255, 0xFFFE, 44]


@function
def first_and_rest(values):
    first, *rest = values
    return first, rest


@build.kernel(3)
def spliced(out, a, b):
    o = i64_at(out)
    values = ()
    for value in (a, b, 7):
        values = (*values, value * 2)
    o[0], rest = first_and_rest(values)
    o[1], o[2] = rest
    o[3] = values[1:][1]


def test_tuples_are_spliced_sliced_and_taken_apart() -> None:
    assert run(spliced, 3, 4) == [6, 8, 14, 14]


@build.kernel(3)
def guarded(out, table, n):
    o = i64_at(out)
    i = 0
    while i < n and i64_at(table + 8 * i)[0] != 0:
        i += 1
    o[0] = i
    o[1] = 1 if i == n or i > 100 else 0


def test_and_stops_before_reading_what_is_not_there() -> None:
    table = np.array([1, 1, 0, 1], np.int64)
    assert run(guarded, table.ctypes.data, 4)[:2] == [2, 0]
    assert run(guarded, 0, 0)[:2] == [0, 1], "the null address is never read"


@build.kernel(2)
def floats(out, source):
    f, o = f32_at(source), f32_at(out)
    o[0] = f[0] * np.float32(0.1) + 1.5
    o[1] = -f[0]
    o[2] = f[0] if f[0] < f[1] else f[1]
    o[3] = 1.0 / f[1]


def test_floats_are_fp32_at_every_step() -> None:
    x, out = np.array([3.3, 7.0], np.float32), np.zeros(4, np.float32)
    floats(out.ctypes.data, x.ctypes.data)
    one = np.float32(1)
    assert out.tolist() == [x[0] * np.float32(0.1) + np.float32(1.5), -x[0], x[0], one / x[1]]


@build.kernel(3)
def lanes(out, source, count):
    x = memory.load(memory.FLOATS, source)
    memory.store_first(memory.select(x > 0.0, x * x, -1.0), out, memory.lanes_below(count))


@pytest.mark.parametrize("count", [0, 1, 7, 16])
def test_masked_stores_leave_the_other_lanes_alone(count: int) -> None:
    x = np.linspace(-2, 2, 16, dtype=np.float32)
    out = np.full(16, 9, np.float32)
    lanes(out.ctypes.data, x.ctypes.data, count)
    expected = np.where(x > 0, x * x, np.float32(-1))
    assert (out[:count] == expected[:count]).all() and (out[count:] == 9).all()


@build.kernel(1)
def with_list_comprehension(out):
    i64_at(out)[0] = [x for x in (1, 2)]


@build.kernel(1)
def with_unknown_call(out):
    i64_at(out)[0] = print(out)


@build.kernel(1)
def with_assert(out):
    assert out


@build.kernel(2)
def with_half_an_integer(out, n):
    i64_at(out)[0] = n * 0.5


@build.kernel(2)
def with_too_many_arguments(out, n):
    i64_at(out)[0] = sign(n, n)


@build.kernel(2)
def with_too_few_arguments(out, n):
    i64_at(out)[0] = sign()


@function
def one_of_two_views(out, n):
    if n > 0:
        return i64_at(out)
    return i8_at(out)


@build.kernel(2)
def with_a_view_that_is_not_known(out, n):
    one_of_two_views(out, n)[0] = 1


REFUSED = [
    with_list_comprehension, with_unknown_call, with_assert, with_half_an_integer, with_too_many_arguments,
    with_too_few_arguments,
]  # fmt: skip


def test_which_view_a_function_gives_is_known() -> None:
    with pytest.raises(Refused, match="one_of_two_views"):
        with_a_view_that_is_not_known.module()


@pytest.mark.parametrize("kernel", REFUSED, ids=lambda k: k.name)
def test_what_is_not_in_the_language_is_refused_with_its_line(kernel: build.Kernel) -> None:
    line = kernel.python.__code__.co_firstlineno + 2
    with pytest.raises(Refused, match=rf"test_language.py:{line} in {kernel.name}"):
        kernel.module()


def test_functions_of_the_language_are_not_called_from_python() -> None:
    with pytest.raises(Refused, match="kernel"):
        sign(1)
