"""Laws of the float steps: order, symmetry, and conversions over every fp16 number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler import numerics

floats = st.floats(width=32, allow_nan=False)
ALL_F16 = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.float16)


@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh", "erf"])
def test_a_monotone_function_rises_over_every_fp16_number(name):
    x = np.sort(ALL_F16[np.isfinite(ALL_F16)].astype(np.float32))
    result = np.minimum(numerics.UNARY[name](x), np.float32(1e38))  # inf - inf has no sign
    last_place = np.spacing(np.abs(result[1:])).astype(np.float64)
    assert (np.diff(result.astype(np.float64)) >= -last_place).all()


@given(floats, floats)
def test_exp_never_falls_by_more_than_its_last_place(a, b):
    low, high = numerics.exp(np.array(sorted((a, b)), np.float32))
    assert high >= low or low - high <= np.spacing(low)


@given(floats)
def test_tanh_and_erf_are_odd(x):
    pair = np.array([x, -x], np.float32)
    for function in (numerics.tanh, numerics.erf):
        positive, negative = function(pair)
        assert positive.tobytes() == (-negative).tobytes()


@given(floats, floats, floats)
def test_max_and_min_are_commutative_and_associative_to_the_bit(a, b, c):
    a, b, c = (np.float32(v) for v in (a, b, c))
    for function in (numerics.maximum, numerics.minimum):
        assert function(a, b).tobytes() == function(b, a).tobytes()
        assert function(function(a, b), c).tobytes() == function(a, function(b, c)).tobytes()


def test_every_fp16_number_survives_widening_and_rounding():
    back = numerics.to_f16(ALL_F16.astype(np.float32))
    nan = np.isnan(ALL_F16)
    assert np.array_equal(back.view(np.uint16)[~nan], ALL_F16.view(np.uint16)[~nan])
    assert np.isnan(back[nan]).all()


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("rounding", numerics.ROUNDINGS)
@pytest.mark.parametrize("position", [-7, 0, 5])
def test_every_fp16_number_converts_to_the_nearest_integer_that_fits(dtype, rounding, position):
    result = numerics.float_to_int(ALL_F16, position, dtype, rounding)
    limits = np.iinfo(dtype)
    exact = np.nan_to_num(ALL_F16.astype(np.float64), nan=0.0, posinf=1e9, neginf=-1e9) * 2.0**-position
    clamped = np.clip(exact, limits.min, limits.max)
    assert result.dtype == dtype
    assert (np.abs(result - clamped) <= 0.5).all()
    ties = np.abs(result - clamped) == 0.5
    if rounding == numerics.NEAREST_EVEN:
        assert (result[ties] % 2 == 0).all()
    else:
        assert (np.abs(result[ties].astype(np.float64)) > np.abs(clamped[ties])).all()


@given(st.integers(-(2**62), 2**62), st.integers(-60, 60))
def test_an_integer_becomes_the_nearest_fp32_times_a_power_of_two(value, position):
    result = float(numerics.int_to_float(np.array([value], np.int64), position)[0])
    exact = value * 2.0**position  # fp64; its own rounding is far below half an fp32 place
    assert abs(result - exact) <= abs(exact) * 2.0**-24 * (1 + 2.0**-28)


@given(st.lists(st.integers(-1000, 1000), max_size=80))
def test_sum_lanes_of_small_integers_is_exact(values):
    assert numerics.sum_lanes(np.array(values, np.float32)) == sum(values)


@given(st.lists(floats, min_size=1, max_size=40))
def test_reduced_maximum_does_not_depend_on_the_order(values):
    x = np.array(values, np.float32)
    assert numerics.max_lanes(x).tobytes() == numerics.max_lanes(x[::-1]).tobytes()
    assert numerics.min_lanes(x).tobytes() == numerics.min_lanes(x[::-1]).tobytes()
