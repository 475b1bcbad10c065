"""What is computed at import of constants is right to the last bit of f32, and the same on every machine."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.evaluate import folding
from compiler.frontend.builder import Builder
from compiler.ir.core import Constant, Function, Module
from compiler.ops import activation, nn, reduce
from compiler.ops import math as ops

reals = st.floats(-80, 80, width=32)


@pytest.fixture
def builder() -> Builder:
    module = Module({"source": "folding"})
    return Builder(module, module.add_function(Function("main")))


def as_f64(x: float) -> np.ndarray:
    return np.array([x], np.float64)


def close(found: np.ndarray, expected: float) -> bool:
    """To the precision that makes the f32 result the correctly rounded one but for ties."""
    return bool(abs(found[0] - expected) <= 4e-15 * abs(expected) + 1e-300)


@given(reals)
def test_the_exponential(x: float) -> None:
    assert close(folding.exp(as_f64(x)), math.exp(x))


@given(st.floats(2.0**-100, 2.0**100, width=32))
def test_the_logarithm(x: float) -> None:
    assert abs(folding.log(as_f64(x))[0] - math.log(x)) <= 4e-15 * max(abs(math.log(x)), 1e-3)


@given(st.floats(-9e4, 9e4, width=32))
def test_sine_and_cosine(x: float) -> None:
    for name, function in (("math.sin", math.sin), ("math.cos", math.cos)):
        assert abs(folding.UNARY[name](as_f64(x))[0] - function(x)) < 1e-14


@given(reals)
def test_tanh_and_sigmoid(x: float) -> None:
    assert abs(folding.UNARY["math.tanh"](as_f64(x))[0] - math.tanh(x)) <= 1e-12 * abs(math.tanh(x))
    assert close(folding.UNARY["nn.sigmoid"](as_f64(x)), 1 / (1 + math.exp(-x)))


def test_what_is_not_a_number_stays_so() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 0.0])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(folding.log(values), [np.nan, np.inf, np.nan, -np.inf])
        np.testing.assert_array_equal(folding.exp(values), [np.nan, np.inf, 0.0, 1.0])


@given(st.lists(reals, min_size=1, max_size=40))
def test_a_sum_by_halves(values: list[float]) -> None:
    assert abs(folding.tree_sum(np.array(values)) - math.fsum(values)) <= 1e-12 * sum(map(abs, values)) + 1e-300


@pytest.mark.parametrize("op_class", [reduce.Sum, reduce.Mean, reduce.L1, reduce.L2, reduce.SumSquare])
@pytest.mark.parametrize("axes", [(), (1,), (0, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions_of_constants_are_constants(builder: Builder, op_class: type, axes: tuple, keepdims: bool) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    (y,) = builder.emit(op_class, builder.constant(x), axes=axes, keepdims=keepdims)
    where = axes or None
    expected = {
        reduce.Sum: x.sum(where, keepdims=keepdims), reduce.Mean: x.mean(where, keepdims=keepdims),
        reduce.L1: np.abs(x).sum(where, keepdims=keepdims), reduce.SumSquare: (x * x).sum(where, keepdims=keepdims),
        reduce.L2: np.sqrt((x * x).sum(where, keepdims=keepdims)),
    }[op_class]  # fmt: skip
    assert isinstance(y, Constant)
    np.testing.assert_allclose(y.data, expected, rtol=1e-5, atol=1e-6)


def test_a_sum_of_nothing_is_zero(builder: Builder) -> None:
    (y,) = builder.emit(reduce.Sum, builder.constant(np.zeros((0, 3), np.float32)), axes=(1,))
    (z,) = builder.emit(reduce.Sum, builder.constant(np.zeros((2, 0), np.float32)), axes=(1,))
    assert isinstance(y, Constant) and isinstance(z, Constant)
    assert y.data.shape == (0, 1) and z.data.tolist() == [[0.0], [0.0]]


SHAPES = [((3, 4), (4, 2)), ((4,), (4, 2)), ((3, 4), (4,)), ((2, 3, 4), (4, 5)), ((4,), (4,))]


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_products_of_constants_are_constants(builder: Builder, a: tuple, b: tuple) -> None:
    random = np.random.default_rng(0)
    left, right = (random.normal(size=s).astype(np.float32) for s in (a, b))
    (y,) = builder.emit(nn.MatMul, builder.constant(left), builder.constant(right))
    assert isinstance(y, Constant)
    np.testing.assert_allclose(y.data, left @ right, rtol=1e-5, atol=1e-6)


def test_powers_of_constants_are_constants(builder: Builder) -> None:
    x, y = np.array([0.5, 2.0, 100.0], np.float32), np.array([0.3, -1.7, 0.25], np.float32)
    (z,) = builder.emit(ops.Pow, builder.constant(x), builder.constant(y))
    assert isinstance(z, Constant)
    np.testing.assert_allclose(z.data, x**y, rtol=1e-6)


def test_a_function_without_a_written_form_stays_an_op(builder: Builder) -> None:
    x = builder.constant(np.ones(3, np.float32))
    assert not isinstance(builder.emit(ops.Asinh, x)[0], Constant)
    assert not isinstance(builder.emit(activation.Gelu, x)[0], Constant)
    assert not isinstance(builder.emit(ops.Sin, builder.constant(np.full(3, 1e8, np.float32)))[0], Constant)
