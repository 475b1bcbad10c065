"""Calibration: observers that do not grow, methods that clip, and errors that name the tensor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compiler.errors import CompilerError
from compiler.ir.types import DType
from passes.quantization.calibrate import KEPT, _Watched, calibrate
from passes.quantization.observers import BINS, METHODS, HistogramObserver, RangeObserver
from passes.quantization.scheme import Scheme
from passes.quantization.widen import has_state, last_layers
from tests.networks import Network

values = arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False))


def observed(*parts: np.ndarray) -> HistogramObserver:
    observer = HistogramObserver()
    for part in parts:
        observer.observe(part)
    return observer


def two_convolutions(**input_shape) -> Network:
    net = Network((1, 3, 8, 8))
    hidden = net.relu(net.conv(net.x, 8, "c1", kernel=3), "r1")
    net.done(net.conv(hidden, 4, "c2"))
    return net


# -- observers ---------------------------------------------------------------------------------------------------------
@given(st.lists(values, min_size=1, max_size=5), st.randoms())
def test_the_histogram_does_not_depend_on_the_order_of_images(parts, random):
    shuffled = list(parts)
    random.shuffle(shuffled)
    one, other = observed(*parts), observed(*shuffled)
    assert one.range == other.range
    assert (one.bins == other.bins).all()


@given(st.lists(values, min_size=1, max_size=5))
def test_the_histogram_counts_every_element_that_is_not_zero(parts):
    assert observed(*parts).bins.sum() == sum(np.count_nonzero(p) for p in parts)


@given(values)
def test_the_range_is_a_power_of_two_above_the_largest_magnitude(array):
    observer = observed(array)
    if observer.absmax:
        assert np.log2(observer.range) % 1 == 0
        assert observer.absmax < observer.range
        assert observer.range <= max(2 * observer.absmax, 2.0**-100)


def test_memory_does_not_grow_with_images():
    observer = observed(*(np.full(1000, 2.0**k, np.float32) for k in range(-20, 20)))
    assert len(observer.bins) == BINS


def test_the_range_observer_counts_what_is_not_finite():
    observer = RangeObserver()
    observer.observe(np.array([1.0, np.nan, -np.inf, -3.0], np.float32))
    assert observer.not_finite == 2
    assert observer.absmax == 3.0


@given(values, st.sampled_from(sorted(METHODS)))
def test_no_method_clips_above_the_largest_magnitude(array, method):
    observer = observed(array)
    if observer.absmax:
        assert 0.0 < METHODS[method][1](observer, 127) <= observer.absmax


def test_mse_clips_a_lonely_outlier():
    array = np.append(np.random.default_rng(0).normal(size=100_000), 40.0).astype(np.float32)
    assert 4.0 < METHODS["mse"][1](observed(array), 127) < 30.0


def test_mse_keeps_the_range_of_a_uniform_tensor():
    array = np.random.default_rng(0).uniform(-1, 1, 100_000).astype(np.float32)
    assert METHODS["mse"][1](observed(array), 127) > 0.97


def test_percentile_leaves_out_the_largest_part():
    array = np.arange(1, 100_001, dtype=np.float32)
    assert METHODS["percentile-99.9"][1](observed(array), 127) == pytest.approx(99_900, rel=1e-3)


# -- calibrate ---------------------------------------------------------------------------------------------------------
def test_minmax_gives_the_largest_magnitude_over_all_images():
    net = two_convolutions()
    images = [net.image() for _ in range(3)]
    scheme = calibrate(net.module, images, "minmax")
    assert scheme.tensors["x"].absmax == np.abs(np.stack(images)).max()
    assert list(scheme.tensors) == ["x", "r1"]
    assert {entry.type for entry in scheme.tensors.values()} == {DType.I8}


def test_calibration_is_deterministic():
    net = two_convolutions()
    images = [net.image() for _ in range(3)]
    assert calibrate(net.module, images).to_toml() == calibrate(net.module, iter(images)).to_toml()


def test_a_stack_of_images_is_split():
    net = two_convolutions()
    images = [net.image() for _ in range(4)]
    done = []
    stacked = calibrate(net.module, [np.concatenate(images)], "minmax", progress=done.append)
    assert stacked == calibrate(net.module, images, "minmax")
    assert done == [1, 2, 3, 4]


def test_images_without_a_batch_axis_and_dicts_by_name_are_understood():
    net = two_convolutions()
    image = net.image()
    expected = calibrate(net.module, [image])
    assert calibrate(net.module, [image[0]]) == expected
    assert calibrate(net.module, [{"x": image}]) == expected


def test_sixteen_bits_take_the_whole_range():
    net = two_convolutions()
    entry = calibrate(net.module, [net.image()], "mse", bits=16).tensors["x"]
    assert entry.type is DType.I16
    assert entry.method == "minmax"


def test_calibration_leaves_the_module_alone():
    net = two_convolutions()
    text, version = str(net.module), net.module.version
    calibrate(net.module, [net.image()])
    assert (str(net.module), net.module.version) == (text, version)


def test_a_float_value_that_fp16_could_overflow_on_becomes_f32():
    net = Network((1, 3, 4, 4))
    big = net.op("math.mul", net.conv(net.x, 4, "c"), net.module.add_constant("k", np.float32(1e5)), name="big")
    net.done(net.op("nn.sigmoid", big, name="y"))
    scheme = calibrate(net.module, [net.image()])
    assert scheme.tensors["big"].type is DType.F32
    assert "y" not in scheme.tensors


def test_both_factors_of_a_computed_matmul_are_calibrated():
    net = Network((4, 8), (8, 4))
    net.done(net.op("nn.matmul", net.inputs[0], net.inputs[1], name="y"))
    data = [np.ones((4, 8), np.float32), np.ones((8, 4), np.float32)]
    assert list(calibrate(net.module, [data]).tensors) == ["x", "x1"]


def test_depthwise_inputs_need_no_range():
    net = Network((1, 4, 8, 8))
    net.done(net.conv(net.x, 4, "dw", kernel=3, groups=4))
    assert not calibrate(net.module, [net.image()]).tensors


def test_a_tensor_that_is_always_zero_is_an_error_that_names_it():
    net = two_convolutions()
    with pytest.raises(CompilerError, match="'x' was zero"):
        calibrate(net.module, [np.zeros((1, 3, 8, 8), np.float32)])


def test_nan_is_an_error_that_names_the_tensor():
    net = two_convolutions()
    with pytest.raises(CompilerError, match="'x' held 192 NaN"):
        calibrate(net.module, [np.full((1, 3, 8, 8), np.nan, np.float32)])


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "no calibration data"),
        ([np.ones((1, 3, 9, 8), np.float32)], "has shape 1x3x8x8, calibration data 1x3x9x8"),
        ([{"y": np.ones((1, 3, 8, 8), np.float32)}], "name an input 'y'"),
        ([{}], "lack input 'x'"),
        ([[np.ones((1, 3, 8, 8), np.float32)] * 2], "has 1 inputs"),
    ],
)
def test_data_that_do_not_fit_are_an_error(batches, message):
    with pytest.raises(CompilerError, match=message):
        calibrate(two_convolutions().module, batches)


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(CompilerError, match="did you mean 'minmax'"):
        calibrate(two_convolutions().module, [], "min-max")


# -- what auto decides -------------------------------------------------------------------------------------------------
def detector() -> Network:
    """A network whose output hangs on values so rare that percentiles clip them."""
    net = Network((1, 1, 128, 128))
    found = net.op("nn.conv2d", net.x, net.module.add_constant("w", np.ones((1, 1, 1, 1), np.float32)), name="found")
    net.done(net.relu(found, "y"))
    return net


def scenes(count: int = 16) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    images = [random.uniform(-1.0, 1.0, (1, 1, 128, 128)).astype(np.float32) for _ in range(count)]
    for image in images[::2]:
        image[0, 0, 5, 7] = 60.0
    return images


def test_auto_does_not_clip_rare_values_that_the_output_is_made_of():
    net = detector()
    scheme = calibrate(net.module, scenes())
    assert scheme.method == "minmax"
    assert "auto chose minmax" in scheme.notes[0]


def test_auto_is_the_same_for_the_same_data():
    module = detector().module
    assert calibrate(module, scenes()).to_toml() == calibrate(module, scenes()).to_toml()


def test_a_method_that_is_named_is_taken_as_it_is():
    scheme = calibrate(detector().module, scenes(), "percentile")
    assert scheme.method == "percentile" and scheme.notes == () and scheme.layers == {}


@pytest.mark.parametrize("count", [1, 3, 8, 9, 20])
def test_any_number_of_samples_is_enough_for_auto(count):
    assert calibrate(detector().module, scenes(count)).tensors


def test_samples_to_try_on_are_few_and_spread_evenly():
    net = detector()
    watched = _Watched(net.module, {}, KEPT, None)
    for number in range(64):
        watched.run([np.full((1, 1, 128, 128), number, np.float32)])
    assert [int(inputs[0].flat[0]) for inputs, _ in watched.kept] == list(range(0, 64, 8))


def test_layers_that_make_an_image_become_wide_where_it_shows():
    net = Network((1, 4, 80, 80))
    wide = net.relu(net.conv(net.x, 32, "c1", kernel=3), "r1")
    net.done(net.conv(net.relu(net.conv(wide, 8, "c2", kernel=3), "r2"), 1, "image"))
    random = np.random.default_rng(1)
    scheme = calibrate(net.module, [random.normal(size=(1, 4, 80, 80)).astype(np.float32) for _ in range(4)], "auto")
    assert set(scheme.layers.items()) <= {("image", "i16")}
    assert Scheme.parse(scheme.to_toml()) == scheme
    assert [op.name for op in last_layers(net.main)] == ["image"]


def test_a_state_that_comes_back_makes_all_layers_wide():
    net = Network((1, 16), (1, 16))
    moved = net.matmul(net.add(*net.inputs, "sum"), 16, "moved")
    net.done(net.op("math.tanh", moved, name="next"), net.matmul(moved, 4, "y"))
    assert has_state(net.main)
    random = np.random.default_rng(1)
    samples = [[random.normal(size=(1, 16)).astype(np.float32) for _ in range(2)] for _ in range(8)]
    scheme = calibrate(net.module, samples)
    assert set(scheme.layers) == {"moved", "y"}
    assert "state of the next step" in scheme.notes[-1]


def test_of_tensors_that_held_no_numbers_the_first_is_named_and_the_rest_counted() -> None:
    net = Network((1, 4, 8, 8))
    module = net.done(net.conv(net.relu(net.conv(net.x, 8, "a", kernel=3), "r"), 4, "b"))
    with pytest.raises(CompilerError) as raised:
        calibrate(module, [np.full((1, 4, 8, 8), np.nan, np.float32)], "minmax")
    (fault,) = raised.value.diagnostics
    assert "'x' held 256 NaN" in fault.message and fault.notes == ("and so did tensors after it: 1",)
