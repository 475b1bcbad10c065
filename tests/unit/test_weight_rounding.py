"""Balanced rounding: neighbours only, and errors that cancel over kernels and output channels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from compiler.ir.types import DType
from passes.quantization.integers import quantize_array
from passes.quantization.rounding import balanced

weights = arrays(np.float64, array_shapes(min_dims=2, max_dims=4, max_side=6), elements=st.floats(-100, 100))


@given(weights, st.integers(0, 1))
def test_every_integer_is_a_neighbour_of_its_weight(units, axis):
    found = balanced(units, axis, 127)
    assert (found == np.rint(found)).all()
    assert (np.abs(found - units) <= 1.0 + 1e-5).all()


@given(weights)
def test_errors_of_an_output_channel_sum_to_half_a_step(units):
    error = (balanced(units, 0, 127) - units).reshape(len(units), -1)
    assert (np.abs(error.sum(axis=1)) <= 0.501).all()


@given(weights)
def test_errors_of_a_kernel_sum_to_a_step_and_mostly_to_half_of_one(units):
    sums = (balanced(units, 0, 127) - units).reshape(units.shape[0], units.shape[1], -1).sum(axis=2)
    assert (np.abs(sums) <= 1.001).all()


@given(weights)
def test_integers_stay_integers(units):
    whole = np.rint(units)
    assert (balanced(whole, 0, 127) == whole).all()


@given(weights, st.sampled_from([10, 127]))
def test_the_range_is_kept(units, qmax):
    assert np.abs(balanced(units, 0, qmax)).max() <= qmax


def test_the_output_axis_may_be_any():
    units = np.random.default_rng(0).normal(size=(3, 5, 2, 2)) * 20
    swapped = balanced(np.swapaxes(units, 0, 1), 1, 127)
    np.testing.assert_array_equal(np.swapaxes(swapped, 0, 1), balanced(units, 0, 127))


def test_a_constant_input_gives_an_output_without_bias():
    weights = np.random.default_rng(1).normal(size=(8, 64, 3, 3)).astype(np.float32)
    bias = {}
    for rounding in ("nearest", "balanced"):
        found = quantize_array(weights, DType.I8, 0, rounding)
        step = 2.0**found.position / found.scales[:, None, None, None]
        bias[rounding] = np.abs((found.data * step - weights).sum(axis=(1, 2, 3), dtype=np.float64)).max()
    assert bias["balanced"] < 0.05 * bias["nearest"]
