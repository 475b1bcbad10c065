"""Comparing a float module with its quantised or legalised twin: names shared, integers as reals, layouts turned back,
errors accumulated and of the op alone, sums that stream.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from compiler import driver
from compiler.comparison import Comparison, Errors, compare, real_of
from compiler.ir.core import Constant, Module
from compiler.ir.parser import parse_module
from compiler.ir.types import DType, QuantType
from compiler.pass_context import PassContext
from compiler.pass_manager import run_pipeline
from compiler.target import load_target
from passes.quantization.calibrate import calibrate
from passes.quantization.quantize import Quantize
from tests.networks import Network

Pair = tuple[Module, Module, list[list[np.ndarray]]]


def pair() -> Pair:
    """A network, its quantised twin and three images."""
    net = Network((1, 3, 8, 8))
    hidden = net.relu(net.conv(net.x, 8, "c1"), "r1")
    pooled = net.op("nn.max_pool2d", hidden, name="p", kernel=(2, 2), strides=(2, 2))
    net.done(net.conv(pooled, 4, "c2"))
    images = [[net.image()] for _ in range(3)]
    twin = net.module.clone()
    Quantize(given=calibrate(net.module, [i[0] for i in images], "minmax")).run(twin, PassContext())
    return net.module, twin, images


def lowered(module: Module, images: list[list[np.ndarray]], after: str) -> Module:
    """The module after a pass of the target's pipeline."""
    ctx = PassContext(target=load_target("mlu220"), options={"scheme": calibrate(module, [i[0] for i in images])})
    return run_pipeline(module, driver.pipeline_text(), ctx=ctx, stop_after=after, crash_directory=None)


def value(found: Comparison, name: str):
    return next(d for d in found if d.name == name)


# -- accumulated -------------------------------------------------------------------------------------------------------
def test_every_shared_value_is_compared_in_execution_order():
    whole, twin, images = pair()
    assert [d.name for d in compare(whole, twin, images)] == ["c1", "r1", "p", "c2"]


def test_a_module_differs_from_itself_by_nothing():
    whole, _, images = pair()
    for d in compare(whole, whole.clone(), images):
        assert d.accumulated.sqnr == d.alone.sqnr == math.inf and d.accumulated.largest_error == 0.0


def test_integers_are_compared_as_the_reals_they_stand_for():
    whole, twin, images = pair()
    assert 25.0 < value(compare(whole, twin, images), "p").accumulated.sqnr < 60.0


def test_all_images_count():
    whole, twin, images = pair()
    one, three = compare(whole, twin, images[:1]), compare(whole, twin, images)
    assert (one.samples, three.samples) == (1, 3)
    assert [d.accumulated.elements * 3 for d in one] == [d.accumulated.elements for d in three]
    for a, b in zip(one, three, strict=True):
        assert a.accumulated.largest_error <= b.accumulated.largest_error
        assert a.alone.largest_error <= b.alone.largest_error


def test_progress_is_told():
    whole, twin, images = pair()
    done: list[int] = []
    compare(whole, twin, images, done.append)
    assert done == [1, 2, 3]


# -- alone -------------------------------------------------------------------------------------------------------------
CHAIN = """// mluc ir 1
func @main(%x: tensor<1x2x2x2xf32>) -> (tensor<1x2x2x2xf32>) {
  %a = nn.relu %x : tensor<1x2x2x2xf32>
  %b = math.clip %a {high = HIGH} : tensor<1x2x2x2xf32>
  %c = math.neg %b : tensor<1x2x2x2xf32>
  %d = math.exp %c : tensor<1x2x2x2xf32>
  return %d
}"""


def test_only_the_op_that_errs_errs_alone_and_all_after_it_carry_the_error():
    images = [[np.linspace(-1, 4, 8, dtype=np.float32).reshape(1, 2, 2, 2)]]
    good, bad = (parse_module(CHAIN.replace("HIGH", high)) for high in ("6.0", "3.0"))
    found = compare(good, bad, images)
    assert [d.accumulated.noise > 0 for d in found] == [False, True, True, True]
    assert [d.alone.noise > 0 for d in found] == [False, True, False, False]
    assert found.first(below=100.0).name == "b"
    assert found.worst_alone.name == "b"


def test_error_of_an_op_alone_has_the_conversions_in_front_of_it():
    whole, twin, images = pair()
    found = compare(whole, twin, images)
    assert value(found, "r1").alone.noise < value(found, "r1").accumulated.noise
    assert value(found, "c2").alone.noise > 0
    assert value(found, "c1").alone.noise == value(found, "c1").accumulated.noise  # nothing stands before it


def test_where_nothing_was_lost_no_value_is_first_below():
    whole, _, images = pair()
    assert compare(whole, whole.clone(), images).first(below=300.0) is None


# -- lowered twins -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("after", ["convert-layout", "partition", "legalize", "plan-memory"])
def test_twins_of_every_stage_are_turned_back_from_the_chips_layout(after):
    """Sizes differ on all axes, so that a value in the wrong layout would not fit."""
    net = Network((1, 3, 6, 10))
    net.done(net.relu(net.conv(net.relu(net.conv(net.x, 8, "c1"), "r1"), 5, "c2"), "r2"))
    images = [[net.image()] for _ in range(2)]
    found = compare(net.module, lowered(net.module, images, after), images)
    assert {"c1", "r1", "c2", "r2"} >= {d.name for d in found} >= {"r2"}
    assert all(d.accumulated.sqnr > 25.0 and d.alone.sqnr > 25.0 for d in found)


def test_layout_that_sizes_leave_open_is_found_by_the_values():
    net = Network((1, 8, 8, 8))
    net.done(net.relu(net.conv(net.x, 8, "c1"), "r1"))
    images = [[net.image()]]
    found = compare(net.module, lowered(net.module, images, "legalize"), images)
    assert len(found) == 2 and all(d.accumulated.sqnr > 25.0 and d.alone.sqnr > 25.0 for d in found)


def test_offline_model_is_compared_by_its_outputs():
    from runtime.session import Session

    whole, _, images = pair()
    scheme = calibrate(whole, [i[0] for i in images])
    session = Session(driver.compile_model(whole, scheme=scheme, crash_directory=None))
    (output,) = compare(whole, lowered(whole, images, "legalize"), images, session=session).outputs
    assert (output.name, output.same_bytes) == ("c2", True)
    assert 20.0 < output.errors.sqnr < 60.0
    (own,) = compare(whole, lowered(whole, images, "legalize"), images).outputs
    assert own == output
    (other,) = compare(whole, whole.clone(), images, session=session).outputs
    assert not other.same_bytes and other.errors == output.errors


# -- sums --------------------------------------------------------------------------------------------------------------
def test_the_ratio_is_in_decibels():
    errors = Errors()
    errors.add(np.array([10.0, 0.0]), np.array([10.0, 1.0]))
    assert errors.sqnr == pytest.approx(20.0)
    assert errors.as_dict()["largest_error"] == 1.0


def test_noise_without_a_signal_is_the_worst():
    errors = Errors()
    errors.add(np.zeros(2), np.ones(2))
    assert errors.sqnr == -math.inf


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_on_one_side_only_is_an_infinite_error(odd):
    same, lost = Errors(), Errors()
    same.add(np.array([odd, 1.0]), np.array([odd, 1.0]))
    lost.add(np.array([2.0, 1.0]), np.array([odd, 1.0]))
    assert (same.sqnr, lost.sqnr, lost.largest_error) == (math.inf, -math.inf, math.inf)


def test_per_channel_integers_become_reals():
    module = Module()
    module.add_constant("s", np.array([1.0, 2.0], np.float32))
    quant = QuantType(DType.I8, -1, axis=0, params="s")
    value = Constant(module, "w", np.array([[2, 4], [2, 4]], np.int8), quant)
    np.testing.assert_array_equal(real_of(value, value.data, module), [[1, 2], [0.5, 1]])
