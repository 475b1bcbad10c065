"""Quantised ONNX models: the model's own scales become types, and the integers of weights stay what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiler.evaluate.interpreter import Interpreter

from .onnx_graphs import agree, imported, model, node, op_names, random


def scale(*values: float) -> np.ndarray:
    return np.float32(values[0]) if len(values) == 1 else np.array(values, np.float32)


def qdq_conv(zero: int = 0) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    constants = {
        "xs": np.array(0.02, np.float32), "xz": np.array(zero, np.int8),
        "wq": rng.integers(-127, 127, (4, 3, 3, 3), np.int8), "ws": scale(0.01, 0.02, 0.03, 0.015),
        "wz": np.zeros(4, np.int8), "bq": rng.integers(-999, 999, 4, np.int32),
        "bs": scale(2e-4, 4e-4, 6e-4, 3e-4), "bz": np.zeros(4, np.int32),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]), node("DequantizeLinear", ["xq", "xs", "xz"], ["xf"]),
        node("DequantizeLinear", ["wq", "ws", "wz"], ["wf"], axis=0),
        node("DequantizeLinear", ["bq", "bs", "bz"], ["bf"], axis=0), node("Conv", ["xf", "wf", "bf"], ["y"]),
    ]  # fmt: skip
    return model(nodes, {"x": (1, 3, 6, 6)}, constants=constants)


@pytest.mark.parametrize("zero", [0, 3])
def test_a_qdq_model_keeps_integers_and_scales(zero: int, tmp_path: Path) -> None:
    proto = qdq_conv(zero)
    module = agree(proto, [random(1, 3, 6, 6)], tmp_path, tolerance=1e-4)
    assert op_names(module).count("quant.dequantize") == 3
    quantised = module.main.body.first.result.type.quant
    assert (quantised.real_step, quantised.zero_point) == (float(np.float32(0.02)), zero)
    weights = module.constants["wq"]
    assert (str(weights.type.dtype), weights.type.quant.axis) == ("i8", 0)
    steps = np.ldexp(1.0, weights.type.quant.position) / module.constants[weights.type.quant.params].data
    np.testing.assert_allclose(steps, [0.01, 0.02, 0.03, 0.015], rtol=1e-6)


def test_a_quantised_single_number_is_known(tmp_path: Path) -> None:
    constants = {
        "v": np.array(50, np.int8), "s": np.array(0.5, np.float32), "z": np.array(10, np.int8),
        "p": np.array([0, 1, 0, 1]),
    }  # fmt: skip
    nodes = [node("DequantizeLinear", ["v", "s", "z"], ["value"]), node("Pad", ["x", "p", "value"], ["y"])]
    assert op_names(agree(model(nodes, {"x": (2, 2)}, constants=constants), [random(2, 2)], tmp_path)) == ["tensor.pad"]


def test_integers_of_a_graph_input_are_dequantised_by_arithmetic(tmp_path: Path) -> None:
    constants = {"s": np.array(0.5, np.float32), "z": np.array(128, np.uint8)}
    proto = model(node("DequantizeLinear", ["x", "s", "z"], ["y"]), {"x": ((4,), TensorProto.UINT8)},
                  constants=constants)  # fmt: skip
    module = agree(proto, [np.array([0, 100, 128, 255], np.uint8)], tmp_path)
    assert op_names(module) == ["math.cast", "math.sub", "math.mul"]


def test_zero_points_that_differ_per_channel_are_arithmetic(tmp_path: Path) -> None:
    constants = {"w": np.ones((2, 2), np.int8), "s": scale(0.1, 0.2), "z": np.array([1, 2], np.int8)}
    proto = model(
        [node("DequantizeLinear", ["w", "s", "z"], ["wf"]), node("MatMul", ["x", "wf"], ["y"])], {"x": (1, 2)},
        constants=constants,
    )  # fmt: skip
    agree(proto, [random(1, 2)], tmp_path, tolerance=1e-3)  # onnxruntime quantises x for such a product


def test_a_quantised_product_whose_columns_have_their_own_zero_points(tmp_path: Path) -> None:
    constants = {
        "as": scale(0.05), "az": np.int8(3), "b": np.arange(-6, 6, dtype=np.int8).reshape(3, 4),
        "bs": scale(0.1, 0.2, 0.3, 0.1), "bz": np.array([0, 1, 2, 3], np.int8), "ys": scale(0.4), "yz": np.int8(1),
    }  # fmt: skip
    product = node("QLinearMatMul", ["a", "as", "az", "b", "bs", "bz", "ys", "yz"], ["y"])
    proto = model(product, {"a": ((2, 3), TensorProto.INT8)}, constants=constants)
    agree(proto, [np.array([[1, -50, 90], [7, 0, 20]], np.int8)], tmp_path)


def test_an_axis_is_nothing_to_a_single_scale_that_is_computed(tmp_path: Path) -> None:
    nodes = [node("QuantizeLinear", ["x", "s"], ["q"], axis=0), node("DequantizeLinear", ["q", "s"], ["y"], axis=0)]
    agree(model(nodes, {"x": (2,), "s": ()}), [random(2), np.array(0.01, np.float32)], tmp_path)


def test_scales_that_are_computed_are_arithmetic(tmp_path: Path) -> None:
    nodes = [node("QuantizeLinear", ["x", "s"], ["q"]), node("DequantizeLinear", ["q", "s"], ["y"])]
    agree(model(nodes, {"x": (2,), "s": ()}), [random(2), np.array(0.01, np.float32)], tmp_path)


def test_scales_per_block(tmp_path: Path) -> None:
    constants = {"w": np.arange(24, dtype=np.int8).reshape(4, 6), "s": random(2, 6, low=0.1)}
    dequantize = node("DequantizeLinear", ["w", "s"], ["wf"], axis=0, block_size=2)
    proto = model([dequantize, node("MatMul", ["x", "wf"], ["y"])], {"x": (1, 4)}, constants=constants, opset=21)
    agree(proto, [random(1, 4)], tmp_path)


def test_dynamic_quantisation_is_expressed_with_computed_scales(tmp_path: Path) -> None:
    proto = model(node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), {"x": (3, 4)}, ["q", "s", "z"])
    agree(proto, [random(3, 4)], tmp_path)


def test_integer_matmul(tmp_path: Path) -> None:
    proto = model(
        node("MatMulInteger", ["a", "b", "za"], ["y"]), {"a": ((3, 4), TensorProto.UINT8)},
        constants={"b": np.arange(8, dtype=np.int8).reshape(4, 2), "za": np.array(7, np.uint8)},
    )  # fmt: skip
    agree(proto, [np.arange(12, dtype=np.uint8).reshape(3, 4)], tmp_path)


@pytest.mark.parametrize("kind", ["INT4", "UINT4"])
@pytest.mark.parametrize("rows", [4, 256])
def test_weights_of_four_bits_are_unpacked(kind: str, rows: int, tmp_path: Path) -> None:
    """Small ones are in the message, large ones are read from their place in the file."""
    low = -8 if kind == "INT4" else 0
    numbers = np.random.default_rng(0).integers(low, low + 16, (rows, 64))
    weights = helper.make_tensor("w", getattr(TensorProto, kind), (rows, 64), numbers.reshape(-1))
    raw = numpy_helper.from_array(numpy_helper.to_array(weights), "w")
    dequantize = node("DequantizeLinear", ["w", "s"], ["wf"], axis=0, block_size=2)
    scales = np.random.default_rng(1).uniform(0.1, 1, (rows // 2, 64)).astype(np.float32)
    proto = model([dequantize, node("MatMul", ["x", "wf"], ["y"])], {"x": (1, rows)}, constants={"s": scales}, opset=21)
    proto.ir_version = 10
    proto.graph.initializer.append(raw)
    agree(proto, [random(1, rows)], tmp_path, tolerance=1e-2)


# -- operators on integers that have a scale ---------------------------------------------------------------------------
def quantised_by(*nodes: onnx.NodeProto, zero: int = 5, **constants: np.ndarray) -> onnx.ModelProto:
    """x [1, 2, 6, 6] as integers q, which `nodes` turn into integers r, given as reals y."""
    pair = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["r", "s", "z"], ["y"])]
    known = {"s": scale(0.03), "z": np.int8(zero), **constants}
    return model([pair[0], *nodes, pair[1]], {"x": (1, 2, 6, 6)}, constants=known, opset=18)


IMAGE = random(1, 2, 6, 6)


def test_moved_integers_keep_their_scale(tmp_path: Path) -> None:
    moves = [node("MaxPool", ["q"], ["a"], kernel_shape=[2, 2]), node("Transpose", ["a"], ["r"], perm=[0, 2, 3, 1])]
    names = op_names(agree(quantised_by(*moves), [IMAGE], tmp_path))
    assert names == ["quant.quantize", "nn.max_pool2d", "tensor.transpose", "quant.dequantize"]


@pytest.mark.parametrize("value", [None, 7])
def test_a_pad_puts_integers_on_integers(value: int | None, tmp_path: Path) -> None:
    constants = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), **({} if value is None else {"v": np.int8(value)})}
    pad = node("Pad", ["q", "p", *(["v"] if value is not None else [])], ["r"])
    assert "tensor.pad" in op_names(agree(quantised_by(pad, **constants), [IMAGE], tmp_path))


@pytest.mark.parametrize("nodes", [
    [node("Relu", ["q"], ["r"])], [node("Clip", ["q", "low"], ["r"])], [node("Max", ["q", "low"], ["r"])],
    [node("Concat", ["q", "four"], ["r"], axis=1)], [node("Neg", ["q"], ["r"])],
    [node("MaxPool", ["q"], ["r", "places"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
    [node("TopK", ["q", "two"], ["r", "places"])],
], ids=lambda nodes: nodes[0].op_type)  # fmt: skip
@pytest.mark.parametrize("zero", [0, 5])
def test_other_operators_see_plain_integers(nodes: list[onnx.NodeProto], zero: int, tmp_path: Path) -> None:
    constants = {"low": np.int8(-3), "four": np.full((1, 1, 6, 6), 4, np.int8), "two": np.array([2])}
    agree(quantised_by(*nodes, zero=zero, **constants), [IMAGE], tmp_path)


def test_integers_may_be_read_by_another_scale_than_they_were_written_by(tmp_path: Path) -> None:
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "t", "u"], ["y"])]
    constants = {"s": scale(0.03), "z": np.int8(5), "t": scale(0.5), "u": np.int8(-3)}
    agree(model(nodes, {"x": (1, 2, 6, 6)}, constants=constants), [IMAGE], tmp_path)


def test_integers_of_a_picture_are_resampled_as_reals(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 1, 4, 5), np.uint8)
    resize = node("Resize", ["x", "", "", "s"], ["y"], mode="linear")
    found = {}
    for kind, array in ((TensorProto.UINT8, picture), (TensorProto.FLOAT, picture.astype(np.float32))):
        proto = model(resize, {"x": (picture.shape, kind)}, constants={"s": np.array([1, 1, 7, 9])})
        found[kind] = Interpreter(imported(proto, tmp_path)).run([array])[0]
    np.testing.assert_array_equal(found[TensorProto.UINT8], np.trunc(found[TensorProto.FLOAT]))
