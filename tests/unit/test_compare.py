"""Comparing a float module with its quantised twin: names shared, integers as reals, sums that stream."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compiler.compare import Difference, compare, real_of
from compiler.ir.core import Constant, Module
from compiler.ir.types import DType, QuantType
from compiler.pass_context import PassContext
from passes.quantization.calibrate import calibrate
from passes.quantization.quantize import Quantize
from tests.networks import Network


def pair() -> tuple[Module, Module, list[list[np.ndarray]]]:
    """A network, its quantised twin and three images."""
    net = Network((1, 3, 8, 8))
    hidden = net.relu(net.conv(net.x, 8, "c1"), "r1")
    pooled = net.op("nn.max_pool2d", hidden, name="p", kernel=(2, 2), strides=(2, 2))
    net.done(net.conv(pooled, 4, "c2"))
    images = [[net.image()] for _ in range(3)]
    twin = net.module.clone()
    Quantize(given=calibrate(net.module, [i[0] for i in images], "minmax")).run(twin, PassContext())
    return net.module, twin, images


def test_every_shared_value_is_compared_in_execution_order():
    whole, twin, images = pair()
    assert [d.name for d in compare(whole, twin, images)] == ["c1", "r1", "p", "c2"]


def test_a_module_differs_from_itself_by_nothing():
    whole, _, images = pair()
    assert all(d.sqnr == math.inf and d.largest_error == 0.0 for d in compare(whole, whole.clone(), images))


def test_integers_are_compared_as_the_reals_they_stand_for():
    whole, twin, images = pair()
    pooled = next(d for d in compare(whole, twin, images) if d.name == "p")
    assert 25.0 < pooled.sqnr < 60.0


def test_all_images_count():
    whole, twin, images = pair()
    one, three = compare(whole, twin, images[:1]), compare(whole, twin, images)
    assert [d.elements * 3 for d in one] == [d.elements for d in three]
    assert all(a.largest_error <= b.largest_error for a, b in zip(one, three, strict=True))


def test_progress_is_told():
    whole, twin, images = pair()
    done: list[int] = []
    compare(whole, twin, images, done.append)
    assert done == [1, 2, 3]


def test_the_ratio_is_in_decibels():
    difference = Difference("v")
    difference.add(np.array([10.0, 0.0]), np.array([10.0, 1.0]))
    assert difference.sqnr == pytest.approx(20.0)
    assert difference.as_dict()["largest_error"] == 1.0


def test_noise_without_a_signal_is_the_worst():
    difference = Difference("v")
    difference.add(np.zeros(2), np.ones(2))
    assert difference.sqnr == -math.inf


def test_per_channel_integers_become_reals():
    module = Module()
    module.add_constant("s", np.array([1.0, 2.0], np.float32))
    quant = QuantType(DType.I8, -1, axis=0, params="s")
    value = Constant(module, "w", np.array([[2, 4], [2, 4]], np.int8), quant)
    np.testing.assert_array_equal(real_of(value, value.data, module), [[1, 2], [0.5, 1]])
