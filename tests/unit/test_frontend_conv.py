"""Convolutions and poolings of ONNX models mean what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from compiler.errors import CompilerError

from .onnx_graphs import agree, imported, model, node, op_names, random


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 2, 0, 1], "strides": [2, 1]},
        {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "VALID"},
        {"kernel_shape": [3, 2]},
    ],
    ids=str,
)
def test_conv(attributes: dict, tmp_path: Path) -> None:
    proto = model(
        node("Conv", ["x", "w", "b"], ["y"], **attributes), {"x": (1, 3, 9, 8)},
        constants={"w": random(4, 3, 3, 2, seed=1), "b": random(4, seed=2)},
    )  # fmt: skip
    assert op_names(agree(proto, [random(1, 3, 9, 8)], tmp_path)) == ["nn.conv2d"]


def test_depthwise_conv(tmp_path: Path) -> None:
    proto = model(
        node("Conv", ["x", "w"], ["y"], group=4, pads=[1, 1, 1, 1]), {"x": (2, 4, 5, 5)},
        constants={"w": random(4, 1, 3, 3)},
    )  # fmt: skip
    agree(proto, [random(2, 4, 5, 5)], tmp_path)


def test_one_dimensional_conv_gets_a_height_of_one(tmp_path: Path) -> None:
    proto = model(
        node("Conv", ["x", "w", "b"], ["y"], strides=[2], pads=[1, 2], dilations=[2]), {"x": (1, 3, 20)},
        constants={"w": random(5, 3, 3), "b": random(5)},
    )  # fmt: skip
    module = agree(proto, [random(1, 3, 20)], tmp_path)
    assert op_names(module) == ["tensor.reshape", "nn.conv2d", "tensor.reshape"]
    assert module.constants["w"].data.shape == (5, 3, 1, 3)


def test_conv_with_computed_weights(tmp_path: Path) -> None:
    proto = model(node("Conv", ["x", "w"], ["y"]), {"x": (1, 2, 5, 5), "w": (3, 2, 2, 2)})
    agree(proto, [random(1, 2, 5, 5), random(3, 2, 2, 2)], tmp_path)


VOLUMES = [
    {},
    {"strides": [2, 1, 2], "pads": [1, 0, 1, 0, 2, 1]},
    {"dilations": [2, 1, 1], "pads": [1, 1, 1, 1, 1, 1]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2, 1]},
    {"group": 2, "pads": [1, 1, 1, 1, 1, 1]},
]


@pytest.mark.parametrize("attributes", VOLUMES, ids=str)
def test_three_dimensional_conv_is_one_two_dimensional_conv(attributes: dict, tmp_path: Path) -> None:
    w = random(4, 2 if "group" not in attributes else 1, 3, 2, 3)
    proto = model(node("Conv", ["x", "w", "b"], ["y"], **attributes), {"x": (2, 2, 6, 5, 4)},
                  constants={"w": w, "b": random(4)})  # fmt: skip
    assert op_names(agree(proto, [random(2, 2, 6, 5, 4)], tmp_path)).count("nn.conv2d") == 1


@pytest.mark.parametrize("attributes", [
    {}, {"strides": [2, 1, 3], "output_padding": [1, 0, 2]}, {"dilations": [2, 1, 1], "pads": [1, 0, 1, 2, 1, 0]},
    {"group": 2, "strides": [3, 2, 2]}, {"output_shape": [9, 6, 7], "strides": [2, 2, 2]},
], ids=str)  # fmt: skip
def test_three_dimensional_transposed_conv(attributes: dict, tmp_path: Path) -> None:
    w = random(4, 3, 3, 2, 3)
    proto = model(node("ConvTranspose", ["x", "w", "b"], ["y"], **attributes), {"x": (2, 4, 4, 3, 3)},
                  constants={"w": w, "b": random(3 * attributes.get("group", 1))})  # fmt: skip
    agree(proto, [random(2, 4, 4, 3, 3)], tmp_path)


def test_four_dimensional_conv_is_refused_with_a_way_round(tmp_path: Path) -> None:
    proto = model(node("Conv", ["x", "w"], ["y"]), {"x": (1, 1, 4, 4, 4, 4)}, constants={"w": random(1, 1, 2, 2, 2, 2)})
    with pytest.raises(CompilerError, match=r"4 spatial dimensions[\s\S]*host program"):
        imported(proto, tmp_path)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 2]},
        {"strides": [2, 2], "pads": [1, 0, 0, 1], "output_padding": [1, 0]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "output_shape": [9, 10]},
        {"strides": [3, 3], "output_shape": [13, 14], "auto_pad": "SAME_LOWER"},
        {"strides": [2, 2], "output_shape": [8, 9], "auto_pad": "VALID"},
        {"dilations": [2, 1]},
    ],
    ids=str,
)
def test_conv_transpose(attributes: dict, tmp_path: Path) -> None:
    proto = model(
        node("ConvTranspose", ["x", "w", "b"], ["y"], **attributes), {"x": (1, 3, 4, 5)},
        constants={"w": random(3, 2, 3, 3, seed=1), "b": random(2, seed=2)},
    )  # fmt: skip
    agree(proto, [random(1, 3, 4, 5)], tmp_path)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [({"auto_pad": "SAME"}, "auto_pad is 'SAME'"), ({"strides": [2]}, "do not have entries for 2")]
)
def test_a_transposed_window_that_is_none_is_reported(attributes: dict, message: str, tmp_path: Path) -> None:
    transposed = node("ConvTranspose", ["x", "w"], ["y"], **attributes)
    proto = model(transposed, {"x": (1, 3, 4, 5)}, constants={"w": random(3, 2, 3, 3)})
    with pytest.raises(CompilerError, match=message):
        imported(proto, tmp_path)


def test_one_dimensional_grouped_conv_transpose(tmp_path: Path) -> None:
    proto = model(
        node("ConvTranspose", ["x", "w"], ["y"], group=2, strides=[2], output_padding=[1]), {"x": (1, 4, 6)},
        constants={"w": random(4, 3, 3)},
    )  # fmt: skip
    agree(proto, [random(1, 4, 6)], tmp_path)


POOLS = [
    {"kernel_shape": [3, 3], "strides": [2, 2]},
    {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
]


@pytest.mark.parametrize("attributes", POOLS, ids=str)
def test_max_pool(attributes: dict, tmp_path: Path) -> None:
    proto = model(node("MaxPool", ["x"], ["y"], **attributes), {"x": (1, 2, 8, 7)})
    assert op_names(agree(proto, [random(1, 2, 8, 7)], tmp_path)) == ["nn.max_pool2d"]


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("attributes", POOLS, ids=str)
def test_average_pool(attributes: dict, include: int, tmp_path: Path) -> None:
    proto = model(
        node("AveragePool", ["x"], ["y"], count_include_pad=include, **attributes), {"x": (1, 2, 8, 7)}, opset=19
    )  # fmt: skip
    agree(proto, [random(1, 2, 8, 7)], tmp_path)


def test_dilated_max_pool(tmp_path: Path) -> None:
    proto = model(node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 3]), {"x": (1, 2, 8, 7)})
    agree(proto, [random(1, 2, 8, 7)], tmp_path)


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_one_dimensional_pool(operator: str, tmp_path: Path) -> None:
    proto = model(node(operator, ["x"], ["y"], kernel_shape=[3], strides=[2], pads=[1, 1]), {"x": (1, 2, 9)})
    agree(proto, [random(1, 2, 9)], tmp_path)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 6)])
@pytest.mark.parametrize("operator", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pool(operator: str, shape: tuple, tmp_path: Path) -> None:
    agree(model(node(operator, ["x"], ["y"]), {"x": shape}), [random(*shape)], tmp_path)


@pytest.mark.parametrize("order", [1, 2])
def test_lp_pool(order: int, tmp_path: Path) -> None:
    proto = model(
        node("LpPool", ["x"], ["y"], p=order, kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1]),
        {"x": (1, 2, 6, 6)}, opset=18,
    )  # fmt: skip
    agree(proto, [random(1, 2, 6, 6)], tmp_path)


@pytest.mark.parametrize("attributes", [{}, {"storage_order": 1}, {"pads": [1, 1, 1, 1], "strides": [2, 2]}], ids=str)
def test_indices_of_max_pool(attributes: dict, tmp_path: Path) -> None:
    pool = node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 3], **attributes)
    agree(model(pool, {"x": (2, 3, 6, 5)}, ["y", "i"]), [random(2, 3, 6, 5)], tmp_path)


def test_the_least_integer_is_found_before_what_is_outside(tmp_path: Path) -> None:
    pool = node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2], pads=[1, 1])
    proto = model(pool, {"x": ((1, 1, 4), TensorProto.UINT8)}, ["y", "i"])
    agree(proto, [np.array([[[0, 3, 0, 0]]], np.uint8)], tmp_path)


def test_what_max_pool_took_goes_back_to_its_place(tmp_path: Path) -> None:
    pool = node("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2], strides=[2, 2])
    back = node("MaxUnpool", ["p", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    agree(model([pool, back], {"x": (2, 3, 6, 4)}), [random(2, 3, 6, 4)], tmp_path)


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("attributes", [
    {"strides": [2, 1, 2]}, {"pads": [1, 1, 1, 1, 1, 1]}, {"ceil_mode": 1, "strides": [2, 2, 2]},
], ids=str)  # fmt: skip
def test_pooling_of_volumes(operator: str, attributes: dict, tmp_path: Path) -> None:
    pool = node(operator, ["x"], ["y"], kernel_shape=[3, 2, 3], **attributes)
    agree(model(pool, {"x": (2, 3, 6, 5, 7)}, opset=19), [random(2, 3, 6, 5, 7)], tmp_path)


def test_the_kernel_must_match_the_input_rank(tmp_path: Path) -> None:
    proto = model(node("MaxPool", ["x"], ["y"], kernel_shape=[2]), {"x": (1, 1, 4, 4)})
    with pytest.raises(CompilerError, match=r"E212.*MaxPool"):
        imported(proto, tmp_path)


def test_weights_of_half_precision_are_widened(tmp_path: Path) -> None:
    import onnx

    weights = random(2, 3, 1, 1).astype(np.float16)
    proto = model(
        node("Conv", ["x", "w"], ["y"]), {"x": ((1, 3, 4, 4), onnx.TensorProto.FLOAT16)},
        [("y", ((1, 2, 4, 4), onnx.TensorProto.FLOAT16))], {"w": weights},
    )  # fmt: skip
    module = agree(proto, [random(1, 3, 4, 4).astype(np.float16)], tmp_path, tolerance=2e-3)
    assert op_names(module) == ["math.cast", "nn.conv2d", "math.cast"]
    assert module.constants["w"].data.dtype == np.float32
