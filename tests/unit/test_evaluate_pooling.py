"""Pooling and pixel shuffles against onnxruntime, in both layouts and with the corner cases of padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.ir.types import DType, QuantType
from tests.one_op import assert_close, normal, run, run_onnxruntime

few = settings(max_examples=40, deadline=None)


@st.composite
def windows(draw: st.DrawFn) -> dict[str, tuple[int, ...]]:
    """Attributes of a pooling; every window touches the image, because pads are less than the kernel."""
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    pads = tuple(draw(st.integers(0, kernel[i % 2] - 1)) for i in range(4))
    return {"kernel": kernel, "strides": (draw(st.integers(1, 3)), draw(st.integers(1, 3))), "pads": pads}


images = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(4, 12), st.integers(4, 12))


def in_nhwc(kind: str, x: np.ndarray, **attributes: object) -> np.ndarray:
    y = run(kind, np.ascontiguousarray(x.transpose(0, 2, 3, 1)), layout="NHWC", **attributes)
    return y.transpose(0, 3, 1, 2)


@few
@given(images, windows())
def test_max_pool_equals_onnxruntime(shape: tuple[int, ...], window: dict[str, tuple[int, ...]]) -> None:
    x = normal(*shape)
    (expected,) = run_onnxruntime(
        "MaxPool", x, kernel_shape=window["kernel"], strides=window["strides"], pads=window["pads"]
    )
    np.testing.assert_array_equal(run("nn.max_pool2d", x, **window), expected)
    np.testing.assert_array_equal(in_nhwc("nn.max_pool2d", x, **window), expected)


@few
@given(images, windows(), st.booleans())
def test_average_pool_equals_onnxruntime(
    shape: tuple[int, ...], window: dict[str, tuple[int, ...]], count: bool
) -> None:
    x = normal(*shape)
    (expected,) = run_onnxruntime(
        "AveragePool", x, kernel_shape=window["kernel"], strides=window["strides"], pads=window["pads"],
        count_include_pad=int(count),
    )  # fmt: skip
    assert_close(run("nn.avg_pool2d", x, count_include_pad=count, **window), expected)
    assert_close(in_nhwc("nn.avg_pool2d", x, count_include_pad=count, **window), expected)


def test_dilated_max_pool_equals_onnxruntime() -> None:
    x = normal(1, 2, 9, 11)
    (expected,) = run_onnxruntime("MaxPool", x, kernel_shape=[2, 3], strides=[2, 1], dilations=[3, 2])
    window = {"kernel": (2, 3), "strides": (2, 1), "dilations": (3, 2)}
    np.testing.assert_array_equal(run("nn.max_pool2d", x, **window), expected)
    np.testing.assert_array_equal(in_nhwc("nn.max_pool2d", x, **window), expected)


def test_rows_added_by_ceil_mode_do_not_count() -> None:
    x = normal(1, 1, 5, 5)
    (expected,) = run_onnxruntime(
        "AveragePool",
        x,
        opset=19,
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[0, 0, 0, 0],
        ceil_mode=1,
        count_include_pad=1,
    )
    assert expected.shape == (1, 1, 2, 2)
    x = normal(1, 1, 6, 6)
    (expected,) = run_onnxruntime("AveragePool", x, opset=19, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    found = run("nn.avg_pool2d", x, kernel=(3, 3), strides=(2, 2), extra_pads=(1, 1), count_include_pad=True)
    assert_close(found, expected)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_maximum_of_a_window_with_nan_is_nan(layout: str) -> None:
    x = np.zeros((1, 1, 1, 5) if layout == "NCHW" else (1, 1, 5, 1), np.float32)
    x.reshape(-1)[1] = np.nan
    x.reshape(-1)[2:] = [3, 2, 1]
    found = run("nn.max_pool2d", x, kernel=(1, 3), layout=layout).reshape(-1)
    np.testing.assert_array_equal(found, [np.nan, np.nan, 3])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_max_pool_keeps_a_quantised_type_and_padding_never_wins(layout: str) -> None:
    x = np.full((1, 1, 2, 2) if layout == "NCHW" else (1, 2, 2, 1), -100, np.int8)
    found = run("nn.max_pool2d", x, quants=(QuantType(DType.I8, -3),), kernel=(3, 3), pads=(1, 1, 1, 1), layout=layout)
    assert found.dtype == np.int8 and (found == -100).all()


def test_half_precision_mean_is_taken_in_single_precision() -> None:
    x = np.full((1, 1, 64, 64), 30.0, np.float16)  # the sum, 122880, is beyond f16
    assert run("nn.global_avg_pool", x).item() == 30.0
    assert run("nn.avg_pool2d", x, kernel=(64, 64)).item() == 30.0


@pytest.mark.parametrize("kind", ["avg", "max"])
def test_global_pooling_reduces_the_image_in_both_layouts(kind: str) -> None:
    x = normal(2, 3, 4, 5)
    expected = (np.mean if kind == "avg" else np.max)(x, axis=(2, 3), keepdims=True)
    assert_close(run(f"nn.global_{kind}_pool", x), expected)
    assert_close(in_nhwc(f"nn.global_{kind}_pool", x), expected)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_equals_onnxruntime_in_both_layouts(mode: str) -> None:
    x = normal(2, 12, 3, 4)
    (expected,) = run_onnxruntime("DepthToSpace", x, blocksize=2, mode=mode)
    np.testing.assert_array_equal(run("nn.depth_to_space", x, block_size=2, mode=mode), expected)
    np.testing.assert_array_equal(in_nhwc("nn.depth_to_space", x, block_size=2, mode=mode), expected)


def test_space_to_depth_undoes_depth_to_space_in_both_layouts() -> None:
    x = normal(2, 12, 3, 4)
    deep = run("nn.depth_to_space", x, block_size=2)
    (expected,) = run_onnxruntime("SpaceToDepth", deep, blocksize=2)
    np.testing.assert_array_equal(expected, x)
    np.testing.assert_array_equal(run("nn.space_to_depth", deep, block_size=2), x)
    np.testing.assert_array_equal(in_nhwc("nn.space_to_depth", deep, block_size=2), x)
