"""Functions of elements: activations and math against onnxruntime or NumPy in f64, in every float type."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from compiler.ir.types import DType, QuantType
from tests.one_op import assert_close, normal, run, run_onnxruntime

ACTIVATIONS: dict[str, tuple[str, int, dict[str, Any], dict[str, Any]]] = {
    "nn.relu": ("Relu", 17, {}, {}),
    "nn.leaky_relu": ("LeakyRelu", 17, {"alpha": 0.3}, {"alpha": 0.3}),
    "nn.elu": ("Elu", 17, {"alpha": 1.5}, {"alpha": 1.5}),
    "nn.selu": ("Selu", 17, {}, {}),
    "nn.celu": ("Celu", 17, {"alpha": 2.0}, {"alpha": 2.0}),
    "nn.thresholded_relu": ("ThresholdedRelu", 17, {"alpha": 0.5}, {"alpha": 0.5}),
    "nn.sigmoid": ("Sigmoid", 17, {}, {}),
    "nn.hard_sigmoid": ("HardSigmoid", 17, {"alpha": 0.25, "beta": 0.4}, {"alpha": 0.25, "beta": 0.4}),
    "nn.hard_swish": ("HardSwish", 17, {}, {}),
    "nn.gelu": ("Gelu", 20, {}, {}),
    "nn.softplus": ("Softplus", 17, {}, {}),
    "nn.softsign": ("Softsign", 17, {}, {}),
    "nn.mish": ("Mish", 18, {}, {}),
    "nn.softmax": ("Softmax", 17, {"axis": 1}, {"axis": 1}),
    "nn.log_softmax": ("LogSoftmax", 17, {"axis": 0}, {"axis": 0}),
    "math.exp": ("Exp", 17, {}, {}), "math.erf": ("Erf", 17, {}, {}), "math.tanh": ("Tanh", 17, {}, {}),
    "math.sin": ("Sin", 17, {}, {}), "math.cos": ("Cos", 17, {}, {}), "math.sinh": ("Sinh", 17, {}, {}),
    "math.atan": ("Atan", 17, {}, {}), "math.asinh": ("Asinh", 17, {}, {}), "math.round": ("Round", 17, {}, {}),
    "math.floor": ("Floor", 17, {}, {}), "math.ceil": ("Ceil", 17, {}, {}), "math.sign": ("Sign", 17, {}, {}),
    "math.neg": ("Neg", 17, {}, {}), "math.abs": ("Abs", 17, {}, {}), "math.reciprocal": ("Reciprocal", 17, {}, {}),
    "math.isnan": ("IsNaN", 17, {}, {}), "math.isinf": ("IsInf", 17, {}, {}),
}  # fmt: skip


def wide_range() -> np.ndarray:
    """Normal numbers, halves that tie, and magnitudes where a naive formula overflows."""
    special = np.array([0.0, 0.5, 1.5, -0.5, -1.5, 2.5, 8.0, -8.0, 30.0, -30.0, 80.0, -80.0], np.float32)
    return np.concatenate([normal(36) * 3, special]).reshape(6, 8)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_a_function_of_elements_equals_onnxruntime(kind: str) -> None:
    name, opset, ours, theirs = ACTIVATIONS[kind]
    x = wide_range()
    (expected,) = run_onnxruntime(name, x, opset=opset, **theirs)
    found = run(kind, x, **ours)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [k for k in ACTIVATIONS if not k.startswith("math.is")])
def test_half_precision_is_the_single_precision_result_rounded_once(kind: str) -> None:
    attributes = ACTIVATIONS[kind][2]
    x = np.clip(wide_range(), -9, 9).astype(np.float16)
    expected = run(kind, x.astype(np.float32), **attributes).astype(np.float16)
    np.testing.assert_array_equal(run(kind, x, **attributes), expected)


@pytest.mark.parametrize(
    ("kind", "function", "low", "high"),
    [
        ("math.log", np.log, 0.01, 9), ("math.sqrt", np.sqrt, 0, 9), ("math.tan", np.tan, -1, 1),
        ("math.asin", np.arcsin, -1, 1), ("math.acos", np.arccos, -1, 1), ("math.cosh", np.cosh, -3, 3),
        ("math.acosh", np.arccosh, 1, 9), ("math.atanh", np.arctanh, -0.9, 0.9),
        ("math.rsqrt", lambda x: 1 / np.sqrt(x), 0.01, 9),
        ("math.erf", np.vectorize(math.erf), -4, 4),
        ("nn.silu", lambda x: x / (1 + np.exp(-x)), -30, 30),
        ("nn.gelu", lambda x: x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2, -6, 6),
    ],
)  # fmt: skip
def test_a_function_is_accurate_against_double_precision(kind: str, function: Any, low: float, high: float) -> None:
    x = np.linspace(low, high, 501, dtype=np.float32)
    np.testing.assert_allclose(run(kind, x), function(x.astype(np.float64)), rtol=1e-6, atol=3e-7)


def test_gelu_by_tanh_is_the_published_formula() -> None:
    x = normal(50).astype(np.float64)
    expected = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    assert_close(run("nn.gelu", x.astype(np.float32), approximate="tanh"), expected.astype(np.float32))


def test_relu_of_negative_zero_is_positive_zero_and_of_nan_is_nan() -> None:
    x = np.array([-0.0, 0.0, np.nan, -1.0, 2.0, -np.inf, np.inf] * 5, np.float32)
    found = run("nn.relu", x)
    assert not np.signbit(found[~np.isnan(x)]).any()
    np.testing.assert_array_equal(found[:7], [0, 0, np.nan, 0, 2, 0, np.inf])


def test_relu_of_quantised_integers_stops_at_the_zero_point() -> None:
    x = np.array([-128, -3, 0, 7], np.int8)
    quant = QuantType(DType.I8, -4, zero_point=-3)
    np.testing.assert_array_equal(run("nn.relu", x, quants=(quant,)), [-3, -3, 0, 7])


def test_prelu_broadcasts_its_slope() -> None:
    x, slope = normal(2, 3, 4), normal(3, 1, seed=1)
    np.testing.assert_array_equal(run("nn.prelu", x, slope), np.where(x >= 0, x, x * slope))


def test_softmax_does_not_overflow() -> None:
    x = np.array([[1000.0, 999.0], [-1000.0, -1000.0]], np.float32)
    np.testing.assert_allclose(run("nn.softmax", x), [[0.7310586, 0.26894143], [0.5, 0.5]], rtol=1e-6)


BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "maximum": np.maximum, "minimum": np.minimum,
    "equal": np.equal, "less": np.less, "less_equal": np.less_equal, "greater": np.greater,
    "greater_equal": np.greater_equal,
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8])
@pytest.mark.parametrize("name", BINARY)
def test_binary_functions_broadcast_like_numpy(name: str, dtype: type) -> None:
    a, b = (normal(2, 1, 4) * 20).astype(dtype), (normal(3, 1, seed=1) * 20).astype(dtype)
    np.testing.assert_array_equal(run(f"math.{name}", a, b), BINARY[name](a, b))


def test_brain_floats_are_computed_in_single_precision() -> None:
    a = np.array([1.0, 3.0, 255.0], ml_dtypes.bfloat16)
    b = np.array([0.00390625, 1.0, 1.0], ml_dtypes.bfloat16)
    found = run("math.add", a, b)
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found.astype(np.float32), [1.0, 4.0, 256.0])


def test_integer_division_truncates_and_division_by_zero_is_zero() -> None:
    a, b = np.array([7, -7, 7, -7, 5], np.int32), np.array([2, 2, -2, -2, 0], np.int32)
    np.testing.assert_array_equal(run("math.div", a, b), [3, -3, -3, 3, 0])


def test_float_division_follows_ieee() -> None:
    a, b = np.array([1, -1, 0], np.float32), np.zeros(3, np.float32)
    np.testing.assert_array_equal(run("math.div", a, b), [np.inf, -np.inf, np.nan])


def test_remainder_takes_the_sign_of_the_divisor_or_with_fmod_of_the_dividend() -> None:
    a, b = np.array([7, -7, 7, -7], np.int64), np.array([3, 3, -3, -3], np.int64)
    np.testing.assert_array_equal(run("math.mod", a, b), [1, 2, -2, -1])
    np.testing.assert_array_equal(run("math.mod", a, b, fmod=True), [1, -1, 1, -1])


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0, -1.0, 3.0, 0.3])
def test_powers_of_floats_equal_c(exponent: float) -> None:
    x = np.abs(normal(3, 4)) + 0.1
    b = np.array([exponent], np.float32)
    np.testing.assert_allclose(run("math.pow", x, b), x.astype(np.float64) ** b, rtol=1e-6)


def test_powers_of_integers_wrap_and_negative_exponents_vanish() -> None:
    a, b = np.array([3, -2, 2, 1, -1, 7], np.int32), np.array([4, 3, -1, -5, -3, 0], np.int32)
    np.testing.assert_array_equal(run("math.pow", a, b), [81, -8, 0, 1, -1, 1])


def test_logic_and_selection() -> None:
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    np.testing.assert_array_equal(run("math.and", a, b), a & b)
    np.testing.assert_array_equal(run("math.or", a, b), a | b)
    np.testing.assert_array_equal(run("math.xor", a, b), a ^ b)
    np.testing.assert_array_equal(run("math.not", a), ~a)
    x, y = normal(3, 4), normal(1, 4, seed=1)
    np.testing.assert_array_equal(run("math.where", a, x, y), np.where(a, x, y))


def test_clip_keeps_nan_and_takes_integer_bounds_inwards() -> None:
    x = np.array([np.nan, -5, 0.25, 9], np.float32)
    np.testing.assert_array_equal(run("math.clip", x, low=0.0, high=6.0), [np.nan, 0, 0.25, 6])
    integers = np.array([-5, 0, 9], np.int8)
    np.testing.assert_array_equal(run("math.clip", integers, low=-2.5, high=6.5), [-2, 0, 6])
    np.testing.assert_array_equal(run("math.clip", integers), integers)


@pytest.mark.parametrize("to", [DType.F16, DType.BF16, DType.F64, DType.I32, DType.I64, DType.BOOL])
def test_cast_truncates_rounds_or_tests(to: DType) -> None:
    x = np.array([0.0, 0.7, -1.7, 2049.0], np.float32)
    expected = x != 0 if to is DType.BOOL else x.astype(to.numpy)
    found = run("math.cast", x, to=to)
    assert found.dtype == to.numpy
    np.testing.assert_array_equal(found, expected)


def test_scalars_stay_arrays_without_axes() -> None:
    x = np.asarray(np.float32(2.0))
    for kind in ("math.neg", "nn.sigmoid", "nn.silu", "nn.relu", "math.erf", "math.clip"):
        found = run(kind, x)
        assert isinstance(found, np.ndarray) and found.shape == ()
