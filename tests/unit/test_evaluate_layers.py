"""Resampling, normalisations and recurrent layers against onnx's reference and onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.one_op import assert_close, normal, run, run_all, run_onnx_reference, run_onnxruntime

COORDINATES = [
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"
]  # fmt: skip
SIZES = [(1, 2, 7, 9), (1, 2, 10, 4), (1, 2, 3, 1), (1, 2, 5, 6)]


def resized(x: np.ndarray, sizes: tuple[int, ...], **attributes: Any) -> np.ndarray:
    """By onnx's reference, but for two modes it lacks or takes differently from the operator's text: by onnxruntime."""
    mode = attributes.get("coordinate_transformation_mode", "half_pixel")
    judge = run_onnxruntime if mode in ("tf_half_pixel_for_nn", "pytorch_half_pixel") else run_onnx_reference
    return judge("Resize", x, None, None, np.array(sizes), **attributes)[0].astype(x.dtype)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_interpolation_equals_onnx(mode: str, coordinates: str, sizes: tuple[int, ...]) -> None:
    x = normal(1, 2, 5, 6)
    expected = resized(x, sizes, mode=mode, coordinate_transformation_mode=coordinates)
    assert_close(run("nn.resize", x, sizes=sizes, mode=mode, coordinate_mode=coordinates), expected)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("coordinates", [*COORDINATES, "tf_half_pixel_for_nn"])
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_nearest_neighbours_equal_onnx(rounding: str, coordinates: str, sizes: tuple[int, ...]) -> None:
    x = normal(1, 2, 5, 6)
    expected = resized(x, sizes, mode="nearest", coordinate_transformation_mode=coordinates, nearest_mode=rounding)
    found = run("nn.resize", x, sizes=sizes, coordinate_mode=coordinates, nearest_mode=rounding)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_antialiased_shrinking_equals_onnx(mode: str) -> None:
    x = normal(1, 1, 12, 9)
    expected = resized(x, (1, 1, 5, 4), mode=mode, antialias=1, exclude_outside=1)
    assert_close(run("nn.resize", x, sizes=(1, 1, 5, 4), mode=mode, antialias=True, exclude_outside=True), expected)


def test_cubic_weights_outside_the_image_can_be_left_out() -> None:
    x = normal(1, 1, 4, 4)
    expected = resized(x, (1, 1, 9, 9), mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5)
    assert_close(run("nn.resize", x, sizes=(1, 1, 9, 9), mode="cubic", exclude_outside=True, cubic_a=-0.5), expected)


def test_the_given_factor_counts_not_the_rounded_size() -> None:
    x = normal(1, 1, 5, 5)
    scales = np.array([1, 1, 1.3, 0.7], np.float32)
    (expected,) = run_onnxruntime("Resize", x, None, scales, mode="linear")
    found = run("nn.resize", x, sizes=expected.shape, mode="linear", scales=[float(s) for s in scales])
    assert_close(found, expected)


def test_resizing_to_the_same_size_changes_nothing() -> None:
    x = normal(1, 2, 5, 6)
    np.testing.assert_array_equal(run("nn.resize", x, sizes=x.shape, mode="linear"), x)


# -- normalisations ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("axis", [1, 3])
def test_batch_norm_equals_onnxruntime_on_either_channel_axis(axis: int) -> None:
    x = normal(2, 3, 4, 5)
    vectors = normal(3), normal(3, seed=1), normal(3, seed=2), np.abs(normal(3, seed=3)) + 0.1
    (expected,) = run_onnxruntime("BatchNormalization", x, *vectors, epsilon=1e-3)
    if axis == 1:
        assert_close(run("nn.batch_norm", x, *vectors, epsilon=1e-3), expected)
    else:
        found = run("nn.batch_norm", np.ascontiguousarray(x.transpose(0, 2, 3, 1)), *vectors, epsilon=1e-3, axis=3)
        assert_close(found.transpose(0, 3, 1, 2), expected)


@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_norm_equals_onnxruntime(axis: int) -> None:
    x = normal(2, 3, 4) + 5
    shape = x.shape[axis:]
    scale, bias = normal(*shape, seed=1), normal(*shape, seed=2)
    (expected,) = run_onnxruntime("LayerNormalization", x, scale, bias, axis=axis)
    assert_close(run("nn.layer_norm", x, scale, bias, axis=axis), expected)
    plain = run("nn.layer_norm", x, axis=axis)
    assert_close(run("nn.layer_norm", x, np.ones(shape, np.float32), None, axis=axis), plain)


def test_rms_norm_divides_by_the_root_of_the_mean_square() -> None:
    x, scale = normal(2, 3, 4), normal(4, seed=1)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + np.float32(1e-5)) * scale
    assert_close(run("nn.rms_norm", x, scale), expected)


def test_instance_and_group_norm_equal_onnxruntime() -> None:
    x, scale, bias = normal(2, 4, 3, 5), normal(4, seed=1), normal(4, seed=2)
    (expected,) = run_onnxruntime("InstanceNormalization", x, scale, bias)
    assert_close(run("nn.instance_norm", x, scale, bias), expected)
    assert_close(run("nn.group_norm", x, scale, bias, groups=4), expected)
    (expected,) = run_onnx_reference("GroupNormalization", x, scale, bias, opset=21, num_groups=2)
    assert_close(run("nn.group_norm", x, scale, bias, groups=2), expected)


@pytest.mark.parametrize("size", [1, 3, 4])
def test_local_response_norm_divides_by_the_neighbouring_channels(size: int) -> None:
    x = normal(2, 6, 3, 2)
    expected = np.empty_like(x)
    for c in range(6):
        low, high = max(0, c - (size - 1) // 2), min(5, c + size // 2)
        squares = (x[:, low : high + 1].astype(np.float64) ** 2).sum(axis=1)
        expected[:, c] = x[:, c] / (1.5 + 0.1 / size * squares) ** 0.6
    assert_close(run("nn.lrn", x, size=size, alpha=0.1, beta=0.6, bias=1.5), expected)


# -- recurrent layers -------------------------------------------------------------------------------------------------
STEPS, BATCH, INPUT, HIDDEN = 4, 2, 3, 5
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def operands(kind: str, directions: int) -> list[np.ndarray]:
    rows = GATES[kind] * HIDDEN
    found = [
        normal(STEPS, BATCH, INPUT),
        normal(directions, rows, INPUT, seed=1),
        normal(directions, rows, HIDDEN, seed=2),
    ]
    found += [normal(directions, 2 * rows, seed=3), normal(directions, BATCH, HIDDEN, seed=4)]
    return [*found, normal(directions, BATCH, HIDDEN, seed=5)] if kind == "lstm" else found


def with_lengths(arrays: list[np.ndarray | None]) -> list[np.ndarray | None]:
    """ONNX has the sequence lengths between the biases and the initial states."""
    return [*arrays[:4], None, *arrays[4:]]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_recurrent_layers_equal_onnxruntime(kind: str, direction: str) -> None:
    arrays = operands(kind, 2 if direction == "bidirectional" else 1)
    outputs = 3 if kind == "lstm" else 2
    expected = run_onnxruntime(
        kind.upper(), *with_lengths(list(arrays)), outputs=outputs, hidden_size=HIDDEN, direction=direction
    )
    found = run_all(f"nn.{kind}", *arrays, hidden=HIDDEN, direction=direction)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs)


def test_biases_and_initial_states_default_to_zero() -> None:
    arrays = operands("lstm", 1)[:3]
    expected = run_onnxruntime("LSTM", *arrays, outputs=3, hidden_size=HIDDEN)
    for ours, theirs in zip(run_all("nn.lstm", *arrays, hidden=HIDDEN), expected, strict=True):
        assert_close(ours, theirs)


def test_peepholes_and_clipping_equal_onnxruntime() -> None:
    arrays, p = operands("lstm", 1), normal(1, 3 * HIDDEN, seed=6)
    expected = run_onnxruntime("LSTM", *with_lengths(list(arrays)), p, outputs=3, hidden_size=HIDDEN, clip=0.5)
    found = run_all("nn.lstm", *arrays, p, hidden=HIDDEN, clip=0.5)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs)


def test_coupled_gates_forget_what_they_take_in() -> None:
    """onnxruntime and the definition agree: f = 1 - i."""
    arrays = operands("lstm", 1)
    expected = run_onnxruntime("LSTM", *with_lengths(list(arrays)), outputs=3, hidden_size=HIDDEN, input_forget=1)
    assert_close(run_all("nn.lstm", *arrays, hidden=HIDDEN, input_forget=True)[0], expected[0])


def test_gru_can_reset_after_the_product() -> None:
    arrays = operands("gru", 1)
    expected = run_onnxruntime("GRU", *with_lengths(list(arrays)), outputs=2, hidden_size=HIDDEN, linear_before_reset=1)
    assert_close(run_all("nn.gru", *arrays, hidden=HIDDEN, linear_before_reset=True)[0], expected[0])


def test_activations_can_be_chosen_per_direction() -> None:
    arrays = operands("rnn", 2)
    expected = run_onnxruntime(
        "RNN", *with_lengths(list(arrays)), outputs=2, hidden_size=HIDDEN, direction="bidirectional",
        activations=["Relu", "Sigmoid"],
    )  # fmt: skip
    found = run_all("nn.rnn", *arrays, hidden=HIDDEN, direction="bidirectional", activations=["Relu", "sigmoid"])
    assert_close(found[0], expected[0])
