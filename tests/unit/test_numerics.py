"""The float steps against fp64 references, and their defined values at the edges of fp32."""

import math

import numpy as np
import pytest

from compiler import numerics

REFERENCES = {
    "exp": np.exp,
    "log": np.log,
    "sigmoid": lambda x: np.where(x >= 0, 1 / (1 + np.exp(-x)), np.exp(x) / (1 + np.exp(x))),
    "tanh": np.tanh,
    "erf": np.vectorize(math.erf),
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
}
ULPS = {"exp": 1.0, "log": 1.0, "sigmoid": 2.5, "tanh": 1.5, "erf": 1.5, "sqrt": 0.5, "rsqrt": 1.5, "reciprocal": 0.5}


def samples(name: str) -> np.ndarray:
    """Points over the whole range of fp32, denser where the function varies."""
    rng = np.random.default_rng(7)
    ordinary = np.concatenate([rng.uniform(-104, 88.7, 8000), rng.uniform(-10, 10, 8000), rng.uniform(-1, 1, 8000)])
    every_exponent = rng.integers(0, 0x7F800000, 8000, dtype=np.uint32).view(np.float32)
    x = np.concatenate([ordinary.astype(np.float32), every_exponent, -every_exponent])
    return np.abs(x) if name in ("log", "sqrt", "rsqrt") else x


def ulps(result: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Distance in units of the reference's last fp32 place (the smallest subnormal at least)."""
    unit = np.maximum(np.spacing(np.abs(reference).astype(np.float32)).astype(np.float64), 2.0**-149)
    return np.abs(result.astype(np.float64) - reference) / unit


@pytest.mark.parametrize("name", sorted(REFERENCES))
@np.errstate(all="ignore")
def test_a_unary_function_is_near_its_fp64_reference_over_all_of_fp32(name):
    x = samples(name)
    reference = REFERENCES[name](x.astype(np.float64))
    within = np.isfinite(reference) & (np.abs(reference) < 3.4e38)
    result = numerics.UNARY[name](x)
    assert result.dtype == np.float32
    assert ulps(result[within], reference[within]).max() <= ULPS[name]


NAN, INF = float("nan"), float("inf")
EDGES = np.array([0.0, -0.0, INF, -INF, NAN, 2.0**-149, -(2.0**-149)], np.float32)
AT_THE_EDGES = {
    "relu": [0.0, 0.0, INF, 0.0, NAN, 2.0**-149, 0.0],
    "abs": [0.0, 0.0, INF, INF, NAN, 2.0**-149, 2.0**-149],
    "exp": [1.0, 1.0, INF, 0.0, NAN, 1.0, 1.0],
    "log": [-INF, -INF, INF, NAN, NAN, -103.27893, NAN],
    "sigmoid": [0.5, 0.5, 1.0, 0.0, NAN, 0.5, 0.5],
    "tanh": [0.0, -0.0, 1.0, -1.0, NAN, 2.0**-149, -(2.0**-149)],
    "erf": [0.0, -0.0, 1.0, -1.0, NAN, 2.0**-149, -(2.0**-149)],
    "sqrt": [0.0, -0.0, INF, NAN, NAN, 2.0**-74.5, NAN],
    "rsqrt": [INF, -INF, 0.0, NAN, NAN, 2.0**74.5, NAN],
    "reciprocal": [INF, -INF, 0.0, -0.0, NAN, INF, -INF],
    "leaky_relu": [0.0, -0.0, INF, -INF, NAN, 2.0**-149, -0.0],
}


@pytest.mark.parametrize("name", sorted(numerics.UNARY))
def test_a_unary_function_has_a_defined_value_at_zero_infinity_nan_and_subnormals(name):
    result = numerics.UNARY[name](EDGES)
    expected = np.array(AT_THE_EDGES[name], np.float32)
    np.testing.assert_array_max_ulp(result[~np.isnan(expected)], expected[~np.isnan(expected)], maxulp=1)
    assert np.array_equal(np.isnan(result), np.isnan(expected))
    zero = expected == 0
    assert np.array_equal(np.signbit(result[zero]), np.signbit(expected[zero]))


def test_exp_overflows_and_underflows_where_fp32_does():
    x = np.array([88.72283, 88.72284, -87.33655, -103.97, -103.98], np.float32)
    result = numerics.exp(x)
    assert np.isfinite(result[0]) and result[1] == np.inf
    assert result[2] > 0 and result[3] == np.float32(2.0**-149) and result[4] == 0


def test_the_tail_of_sigmoid_is_a_subnormal_and_not_zero():
    assert 0 < numerics.sigmoid(np.float32(-100)) < 1e-43


def test_functions_keep_the_shape_of_a_scalar_and_of_a_strided_view():
    assert numerics.exp(np.float32(0)).shape == ()
    view = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::3]
    assert np.array_equal(numerics.tanh(view), numerics.tanh(view.copy()))


def test_leaky_relu_multiplies_the_negative_side_by_its_parameter():
    assert numerics.leaky_relu(np.array([-2.0, 3.0], np.float32), 0.25).tolist() == [-0.5, 3.0]


def test_max_and_min_of_nan_are_nan_and_of_two_zeros_are_ordered():
    a = np.array([NAN, 1.0, 0.0, -0.0, 2.0], np.float32)
    b = np.array([1.0, NAN, -0.0, 0.0, -3.0], np.float32)
    larger, smaller = numerics.maximum(a, b), numerics.minimum(a, b)
    assert np.isnan(larger[:2]).all() and np.isnan(smaller[:2]).all()
    assert not np.signbit(larger[2:4]).any() and np.signbit(smaller[2:4]).all()
    assert (larger[4], smaller[4]) == (2.0, -3.0)


def test_to_f16_rounds_ties_to_even_overflows_to_inf_and_keeps_subnormals():
    x = np.array([2049.0, 2051.0, 65519.0, 65520.0, 2.0**-24, 2.0**-25, 1.5 * 2.0**-24], np.float32)
    assert numerics.to_f16(x).tolist() == [2048.0, 2052.0, 65504.0, INF, 2.0**-24, 0.0, 2.0**-23]


def test_float_to_int_clamps_before_it_rounds_and_takes_nan_as_zero():
    x = np.array([NAN, INF, -INF, 127.4, 127.6, -128.7, 1e30], np.float32)
    assert numerics.float_to_int(x, 0, np.int8).tolist() == [0, 127, -128, 127, 127, -128, 127]
    assert numerics.float_to_int(x, 0, np.int32)[1:3].tolist() == [2147483520, -2147483648]


def test_the_two_rounding_modes_differ_only_in_ties():
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, 8388609.0], np.float32)
    assert numerics.float_to_int(x, 0, np.int32).tolist() == [0, 2, 2, 0, -2, -2, 0, 8388609]
    assert numerics.float_to_int(x, 0, np.int32, numerics.HALF_AWAY).tolist() == [1, 2, 3, -1, -2, -3, 0, 8388609]


def test_a_position_scales_by_a_power_of_two_in_both_directions():
    assert numerics.float_to_int(np.float32(0.75), -6, np.int8) == 48
    assert numerics.int_to_float(np.int8(48), -6) == np.float32(0.75)


def test_a_rounding_mode_or_power_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="nearest-even, half-away"):
        numerics.float_to_int(np.zeros(1, np.float32), 0, np.int8, "up")
    with pytest.raises(ValueError, match="not an fp32 number"):
        numerics.power_of_two(128)


def test_an_integer_sum_rounds_to_fp32_once_and_not_through_fp64():
    tie_if_rounded_twice = (1 << 60) + (1 << 36) + 1  # just above the middle; fp64 drops the 1 and makes it a tie
    assert float(tie_if_rounded_twice) == float(1 << 60) + float(1 << 36)
    result = numerics.int_to_float(np.array([tie_if_rounded_twice], np.int64), 0)
    assert int(result[0]) == (1 << 60) + (1 << 37)


@pytest.mark.parametrize("count", [0, 1, 5, 15, 16, 17, 31, 32, 100, 1000])
def test_sum_lanes_is_sixteen_sums_and_a_tree(count):
    x = np.random.default_rng(count).normal(size=count).astype(np.float32)
    lanes = [np.float32(0)] * 16
    for i, value in enumerate(x):
        lanes[i % 16] = np.float32(lanes[i % 16] + value)
    for half in (8, 4, 2, 1):
        lanes = [np.float32(lanes[i] + lanes[i + half]) for i in range(half)]
    assert numerics.sum_lanes(x).tobytes() == lanes[0].tobytes()


def test_reductions_work_over_the_last_axis_of_any_array():
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert numerics.sum_lanes(x).tolist() == x.sum(-1).tolist()
    assert numerics.max_lanes(x).tolist() == x.max(-1).tolist()
    assert numerics.min_lanes(x).tolist() == x.min(-1).tolist()


def test_the_maximum_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        numerics.max_lanes(np.zeros((3, 0), np.float32))


def test_the_mean_factor_is_the_rounded_reciprocal_of_the_count():
    assert numerics.mean_factor(3) == np.float32(1 / 3)
