"""Operators that onnxruntime leaves in optimised and quantised models mean what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compiler.errors import CompilerError

from .onnx_graphs import agree, imported, model, node, op_names, random


def microsoft(
    operator: str, inputs: list[str], outputs: tuple[str, ...] = ("y",), **attributes: object
) -> onnx.NodeProto:
    return node(operator, inputs, outputs, domain="com.microsoft", **attributes)


def with_domain(proto: onnx.ModelProto) -> onnx.ModelProto:
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


@pytest.mark.parametrize(
    "attributes",
    [{"activation": "Relu"}, {"activation": "LeakyRelu", "activation_params": [0.2]},
     {"activation": "Clip", "activation_params": [-0.1, 0.3]}, {"activation": "Tanh", "pads": [1, 1, 1, 1]}],
    ids=str,
)  # fmt: skip
def test_fused_conv(attributes: dict, tmp_path: Path) -> None:
    constants = {"w": random(2, 3, 3, 3, seed=1), "b": random(2, seed=2)}
    proto = model(microsoft("FusedConv", ["x", "w", "b"], **attributes), {"x": (1, 3, 5, 5)}, constants=constants)
    agree(with_domain(proto), [random(1, 3, 5, 5)], tmp_path)


def test_an_activation_nobody_knows_is_refused(tmp_path: Path) -> None:
    conv = microsoft("FusedConv", ["x", "w"], activation="Swirl")
    with pytest.raises(CompilerError, match="fuses Swirl"):
        imported(with_domain(model(conv, {"x": (1, 1, 2, 2)}, constants={"w": random(1, 1, 1, 1)})), tmp_path)


@pytest.mark.parametrize("operator", ["Gelu", "BiasGelu", "FastGelu"])
def test_gelus(operator: str, tmp_path: Path) -> None:
    inputs = ["x"] if operator == "Gelu" else ["x", "b"]
    proto = model(microsoft(operator, inputs), {"x": (2, 4)}, constants={"b": random(4, seed=1)})
    agree(with_domain(proto), [random(2, 4)], tmp_path, tolerance=1e-4)


@pytest.mark.parametrize("alpha", [1.0, 1.702])
def test_quick_gelu(alpha: float, tmp_path: Path) -> None:
    proto = model(microsoft("QuickGelu", ["x"], alpha=alpha), {"x": (2, 4)})
    agree(with_domain(proto), [random(2, 4)], tmp_path)


def test_fused_matmul(tmp_path: Path) -> None:
    proto = model(microsoft("FusedMatMul", ["a", "b"], transB=1, alpha=0.5), {"a": (2, 3, 4), "b": (2, 5, 4)})
    agree(with_domain(proto), [random(2, 3, 4), random(2, 5, 4, seed=1)], tmp_path)


def test_fused_gemm(tmp_path: Path) -> None:
    gemm = microsoft("FusedGemm", ["a", "w", "c"], transB=1, activation="LeakyRelu", activation_alpha=0.1)
    constants = {"w": random(5, 4, seed=1), "c": random(5, seed=2)}
    agree(with_domain(model(gemm, {"a": (3, 4)}, constants=constants)), [random(3, 4)], tmp_path)


def test_skip_layer_normalization_gives_its_sum(tmp_path: Path) -> None:
    norm = microsoft("SkipLayerNormalization", ["x", "skip", "g", "b"], ("y", "", "", "sum"), epsilon=1e-5)
    constants = {"g": random(8, seed=1), "b": random(8, seed=2)}
    proto = model(norm, {"x": (1, 2, 8), "skip": (1, 2, 8)}, ["y", "sum"], constants)
    agree(with_domain(proto), [random(1, 2, 8), random(1, 2, 8, seed=3)], tmp_path)


# -- quantised ---------------------------------------------------------------------------------------------------------
def parameters(name: str, scale: float, zero: int) -> dict[str, np.ndarray]:
    return {f"{name}_scale": np.array(scale, np.float32), f"{name}_zero": np.array(zero, np.uint8)}


def bytes_of(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("operator", ["QLinearAdd", "QLinearMul"])
def test_quantised_arithmetic(operator: str, tmp_path: Path) -> None:
    constants = {**parameters("a", 0.02, 128), **parameters("b", 0.03, 120), **parameters("y", 0.05, 100)}
    q = microsoft(operator, ["a", "a_scale", "a_zero", "b", "b_scale", "b_zero", "y_scale", "y_zero"])
    integers = ((2, 16), TensorProto.UINT8)
    agree(with_domain(model(q, {"a": integers, "b": integers}, constants=constants)),
          [bytes_of(2, 16), bytes_of(2, 16, seed=1)], tmp_path, tolerance=1.0)  # fmt: skip


@pytest.mark.parametrize("operator", ["QLinearSigmoid", "QLinearLeakyRelu"])
def test_quantised_activations(operator: str, tmp_path: Path) -> None:
    constants = {**parameters("x", 0.02, 128), **parameters("y", 1 / 256, 0)}
    q = microsoft(operator, ["x", "x_scale", "x_zero", "y_scale", "y_zero"])
    agree(with_domain(model(q, {"x": ((64,), TensorProto.UINT8)}, constants=constants)), [bytes_of(64)], tmp_path,
          tolerance=1.0)  # fmt: skip


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [("QLinearGlobalAveragePool", {}), ("QLinearAveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]})],
)
def test_quantised_pooling(operator: str, attributes: dict, tmp_path: Path) -> None:
    constants = {**parameters("x", 0.02, 128), **parameters("y", 0.02, 128)}
    q = microsoft(operator, ["x", "x_scale", "x_zero", "y_scale", "y_zero"], **attributes)
    proto = model(q, {"x": ((1, 3, 4, 4), TensorProto.UINT8)}, constants=constants)
    agree(with_domain(proto), [bytes_of(1, 3, 4, 4)], tmp_path, tolerance=1.0)


def test_quantised_concat_requantises_its_parts(tmp_path: Path) -> None:
    constants = {**parameters("a", 0.02, 128), **parameters("b", 0.04, 100), **parameters("y", 0.04, 110)}
    q = microsoft("QLinearConcat", ["y_scale", "y_zero", "a", "a_scale", "a_zero", "b", "b_scale", "b_zero"], axis=1)
    integers = ((2, 8), TensorProto.UINT8)
    agree(with_domain(model(q, {"a": integers, "b": integers}, constants=constants)),
          [bytes_of(2, 8), bytes_of(2, 8, seed=1)], tmp_path, tolerance=1.0)  # fmt: skip


@pytest.mark.parametrize("real", [False, True])
def test_quantised_gemm(real: bool, tmp_path: Path) -> None:
    constants = {
        **parameters("a", 0.02, 128), **parameters("y", 0.1, 128), "b": bytes_of(5, 8, seed=1),
        "b_scale": np.array(0.01, np.float32), "b_zero": np.array(120, np.uint8),
        "c": np.arange(5, dtype=np.int32) * 100,
    }  # fmt: skip
    inputs = ["a", "a_scale", "a_zero", "b", "b_scale", "b_zero", "c", *([] if real else ["y_scale", "y_zero"])]
    proto = model(microsoft("QGemm", inputs, transB=1), {"a": ((3, 8), TensorProto.UINT8)}, constants=constants)
    agree(with_domain(proto), [bytes_of(3, 8)], tmp_path, tolerance=1e-4 if real else 1.0)


def test_a_product_that_onnxruntime_quantises_as_it_runs(tmp_path: Path) -> None:
    """onnxruntime's optimiser makes one node of DynamicQuantizeLinear, MatMulInteger and what follows."""
    constants = {"b": np.arange(-6, 6, dtype=np.int8).reshape(4, 3), "s": np.float32(0.1), "bias": random(3)}
    product = microsoft("DynamicQuantizeMatMul", ["x", "b", "s", "", "bias"])
    agree(with_domain(model(product, {"x": (2, 4)}, constants=constants)), [random(2, 4)], tmp_path)


def test_the_pair_of_onnxruntime_s_own_domain_is_onnx_s(tmp_path: Path) -> None:
    nodes = [
        microsoft("QuantizeLinear", ["x", "s", "z"], ("q",)), microsoft("DequantizeLinear", ["q", "s", "z"]),
    ]  # fmt: skip
    proto = with_domain(model(nodes, {"x": (2, 4)}, constants={"s": np.float32(1e-4), "z": np.int16(0)}))
    assert op_names(agree(proto, [random(2, 4)], tmp_path)) == ["quant.quantize", "quant.dequantize"]
