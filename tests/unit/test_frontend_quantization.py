"""Quantised ONNX models: the model's own scales become types, and the integers of weights stay what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from .onnx_graphs import agree, model, node, op_names, random


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
