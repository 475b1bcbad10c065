"""Arithmetic, activations, normalisations and matrix products of ONNX models mean what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from compiler.errors import CompilerError

from .onnx_graphs import agree, imported, model, node, op_names, random

X = (2, 3, 4)


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"])
def test_binary_operators_broadcast(operator: str, tmp_path: Path) -> None:
    proto = model(node(operator, ["x", "c"], ["y"]), {"x": X}, constants={"c": random(3, 1, seed=1)})
    agree(proto, [random(*X)], tmp_path)


@pytest.mark.parametrize("operator", ["And", "Or", "Xor"])
def test_logical_operators(operator: str, tmp_path: Path) -> None:
    boolean = ((4,), TensorProto.BOOL)
    proto = model(node(operator, ["a", "b"], ["y"]), {"a": boolean, "b": boolean})
    agree(proto, [np.array([True, True, False, False]), np.array([True, False, True, False])], tmp_path)


@pytest.mark.parametrize(
    "operator",
    ["Neg", "Abs", "Exp", "Sqrt", "Reciprocal", "Erf", "Tanh", "Sin", "Cos", "Floor", "Ceil", "Round", "Sign", "Relu",
     "Sigmoid", "Softplus", "Softsign", "HardSwish", "Elu", "Selu", "LeakyRelu", "HardSigmoid", "Mish", "Log",
     "ThresholdedRelu", "Celu"],
)  # fmt: skip
def test_unary_operators(operator: str, tmp_path: Path) -> None:
    low = 0.1 if operator in ("Sqrt", "Log", "Reciprocal") else -3.0
    agree(model(node(operator, ["x"], ["y"]), {"x": X}, opset=18), [random(*X, low=low, high=3.0)], tmp_path)


@pytest.mark.parametrize("operator", ["Sum", "Mean", "Max", "Min"])
def test_variadic_operators(operator: str, tmp_path: Path) -> None:
    proto = model(node(operator, ["a", "b", "c"], ["y"]), {"a": X, "b": X, "c": (3, 4)})
    agree(proto, [random(*X), random(*X, seed=1), random(3, 4, seed=2)], tmp_path)


def test_pow_takes_an_integer_exponent(tmp_path: Path) -> None:
    proto = model(node("Pow", ["x", "e"], ["y"]), {"x": X}, constants={"e": np.array(2, np.int64)})
    agree(proto, [random(*X)], tmp_path)


def test_pow_of_an_integer_by_a_fraction(tmp_path: Path) -> None:
    proto = model(node("Pow", ["x", "e"], ["y"]), {"x": ((3,), TensorProto.INT64)}, constants={"e": np.float32(1.5)})
    agree(proto, [np.array([1, 4, 5])], tmp_path)


@pytest.mark.parametrize("fmod", [0, 1])
def test_mod_of_negative_integers(fmod: int, tmp_path: Path) -> None:
    integers = ((4,), TensorProto.INT64)
    proto = model(node("Mod", ["a", "b"], ["y"], fmod=fmod), {"a": integers, "b": integers})
    agree(proto, [np.array([-7, 7, -7, 7]), np.array([3, -3, -3, 3])], tmp_path)


def test_clip_before_opset_11_has_attributes(tmp_path: Path) -> None:
    module = agree(model(node("Clip", ["x"], ["y"], min=0.0, max=0.5), {"x": X}, opset=9), [random(*X)], tmp_path)
    (clip, _) = module.main.body
    assert (clip.low, clip.high) == (0.0, 0.5)


def test_clip_with_one_constant_bound(tmp_path: Path) -> None:
    proto = model(node("Clip", ["x", "", "high"], ["y"]), {"x": X}, constants={"high": np.array(0.25, np.float32)})
    assert op_names(agree(proto, [random(*X)], tmp_path)) == ["math.clip"]


def test_clip_with_a_computed_bound(tmp_path: Path) -> None:
    proto = model(node("Clip", ["x", "low"], ["y"]), {"x": X, "low": ()})
    assert op_names(agree(proto, [random(*X), np.array(0.1, np.float32)], tmp_path)) == ["math.maximum"]


@pytest.mark.parametrize("target", [TensorProto.INT32, TensorProto.BOOL, TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_cast(target: int, tmp_path: Path) -> None:
    proto = model(node("Cast", ["x"], ["y"], to=target), {"x": X}, [("y", (X, target))])
    agree(proto, [random(*X, low=-5, high=5)], tmp_path)


def test_cast_to_the_own_type_leaves_nothing(tmp_path: Path) -> None:
    proto = model([node("Cast", ["x"], ["c"], to=TensorProto.FLOAT), node("Relu", ["c"], ["y"])], {"x": X})
    assert op_names(imported(proto, tmp_path)) == ["nn.relu"]


def test_where(tmp_path: Path) -> None:
    proto = model(node("Where", ["c", "a", "b"], ["y"]), {"c": ((2, 1), TensorProto.BOOL), "a": (2, 3), "b": (3,)})
    agree(proto, [np.array([[True], [False]]), random(2, 3), random(3)], tmp_path)


@pytest.mark.parametrize(("positive", "negative"), [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_is_inf(positive: int, negative: int, tmp_path: Path) -> None:
    proto = model(node("IsInf", ["x"], ["y"], detect_positive=positive, detect_negative=negative), {"x": (4,)})
    agree(proto, [np.array([1, np.inf, -np.inf, np.nan], np.float32)], tmp_path)


# -- matrix products ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("a", "b"), [((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((4,), (4, 2)), ((2, 4), (4,))])
def test_matmul(a: tuple, b: tuple, tmp_path: Path) -> None:
    agree(model(node("MatMul", ["a", "b"], ["y"]), {"a": a, "b": b}), [random(*a), random(*b, seed=1)], tmp_path)


@pytest.mark.parametrize("attributes", [{}, {"transB": 1}, {"transA": 1, "alpha": 0.5, "beta": 2.0}], ids=str)
def test_gemm(attributes: dict, tmp_path: Path) -> None:
    a = (4, 3) if attributes.get("transA") else (3, 4)
    b = (5, 4) if attributes.get("transB") else (4, 5)
    constants = {"b": random(*b, seed=1), "c": random(5, seed=2)}
    module = agree(
        model(node("Gemm", ["a", "b", "c"], ["y"], **attributes), {"a": a}, constants=constants), [random(*a)], tmp_path
    )
    assert op_names(module)[-2:] == ["nn.matmul", "math.add"]


def test_gemm_puts_its_factors_into_constant_weights(tmp_path: Path) -> None:
    constants = {"w": random(5, 4, seed=1), "c": random(5, seed=2)}
    gemm = node("Gemm", ["a", "w", "c"], ["y"], transB=1, alpha=0.5, beta=2.0)
    module = agree(model(gemm, {"a": (3, 4)}, constants=constants), [random(3, 4)], tmp_path)
    assert op_names(module) == ["nn.matmul", "math.add"]


# -- normalisations ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 3), (2, 3, 5)])
def test_batch_normalization(shape: tuple, tmp_path: Path) -> None:
    constants = {n: random(3, seed=i, low=0.5) for i, n in enumerate("sbmv")}
    proto = model(node("BatchNormalization", ["x", *"sbmv"], ["y"], epsilon=1e-3), {"x": shape}, constants=constants)
    assert op_names(agree(proto, [random(*shape)], tmp_path)) == ["nn.batch_norm"]


def test_batch_normalization_in_training_is_refused(tmp_path: Path) -> None:
    constants = {n: random(3) for n in "sbmv"}
    bn = node("BatchNormalization", ["x", *"sbmv"], ["y"], training_mode=1)
    with pytest.raises(CompilerError, match=r"training mode[\s\S]*model\.eval"):
        imported(model(bn, {"x": (2, 3)}, constants=constants), tmp_path)


@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_normalization(axis: int, tmp_path: Path) -> None:
    shape = X[axis % 3 :]
    constants = {"s": random(*shape, seed=1), "b": random(*shape, seed=2)}
    proto = model(node("LayerNormalization", ["x", "s", "b"], ["y"], axis=axis), {"x": X}, constants=constants)
    agree(proto, [random(*X)], tmp_path)


def test_statistics_of_layer_normalization_are_computed_when_used(tmp_path: Path) -> None:
    proto = model(
        node("LayerNormalization", ["x", "s"], ["y", "m", "d"]), {"x": X}, ["y", "m", "d"], {"s": random(4)}
    )  # fmt: skip
    agree(proto, [random(*X)], tmp_path)


def test_instance_normalization(tmp_path: Path) -> None:
    constants = {"s": random(3, seed=1), "b": random(3, seed=2)}
    proto = model(node("InstanceNormalization", ["x", "s", "b"], ["y"]), {"x": (2, 3, 5, 5)}, constants=constants)
    agree(proto, [random(2, 3, 5, 5)], tmp_path)


def test_lrn(tmp_path: Path) -> None:
    proto = model(node("LRN", ["x"], ["y"], size=3, alpha=0.1), {"x": (1, 5, 3, 3)})
    agree(proto, [random(1, 5, 3, 3)], tmp_path)


@pytest.mark.parametrize("order", [1, 2])
def test_lp_normalization(order: int, tmp_path: Path) -> None:
    agree(model(node("LpNormalization", ["x"], ["y"], p=order, axis=1), {"x": X}), [random(*X)], tmp_path)


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(("opset", "axis"), [(17, -1), (17, 1), (11, 1), (11, 2), (11, 0)])
def test_softmax(operator: str, opset: int, axis: int, tmp_path: Path) -> None:
    agree(model(node(operator, ["x"], ["y"], axis=axis), {"x": X}, opset=opset), [random(*X)], tmp_path)


def test_softmax_of_old_opsets_stays_one_op_where_the_flattened_axes_are_single(tmp_path: Path) -> None:
    proto = model(node("Softmax", ["x"], ["y"]), {"x": (1, 10, 1, 1)}, opset=7)
    assert op_names(agree(proto, [random(1, 10, 1, 1)], tmp_path)) == ["nn.softmax"]


@pytest.mark.parametrize("slope", [(1,), (3, 1, 1)])
def test_prelu(slope: tuple, tmp_path: Path) -> None:
    proto = model(node("PRelu", ["x", "s"], ["y"]), {"x": (2, 3, 4, 4)}, constants={"s": random(*slope)})
    agree(proto, [random(2, 3, 4, 4)], tmp_path)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate: str, tmp_path: Path) -> None:
    agree(model(node("Gelu", ["x"], ["y"], approximate=approximate), {"x": X}, opset=20), [random(*X)], tmp_path)


def test_dropout_disappears(tmp_path: Path) -> None:
    proto = model([node("Dropout", ["x"], ["d"]), node("Relu", ["d"], ["y"])], {"x": X})
    assert op_names(agree(proto, [random(*X)], tmp_path)) == ["nn.relu"]


def test_group_normalisation_of_opset_18_has_scales_per_group(tmp_path: Path) -> None:
    norm = node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)
    proto = model(norm, {"x": (1, 4, 5)}, constants={"s": random(2, seed=1), "b": random(2, seed=2)}, opset=18)
    agree(proto, [random(1, 4, 5)], tmp_path, tolerance=1e-4)


def test_slopes_before_opset_7_are_one_a_channel_however_wide_the_picture(tmp_path: Path) -> None:
    proto = model(node("PRelu", ["x", "s"], ["y"]), {"x": (1, 3, 2, 3)}, constants={"s": random(3)}, opset=6)
    assert imported(proto, tmp_path).main.body.first.slope.type.shape == (3, 1, 1)


# -- reductions --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "operator",
    ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
     "ReduceLogSumExp", "ReduceLogSum"],
)  # fmt: skip
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions_with_axes_as_input(operator: str, keepdims: int, tmp_path: Path) -> None:
    proto = model(
        node(operator, ["x", "axes"], ["y"], keepdims=keepdims), {"x": X},
        constants={"axes": np.array([0, -1], np.int64)}, opset=18,
    )  # fmt: skip
    agree(proto, [random(*X, low=0.1)], tmp_path)


@pytest.mark.parametrize("attributes", [{"axes": [1]}, {"axes": [-1], "keepdims": 0}, {}], ids=str)
def test_reductions_with_axes_as_attribute(attributes: dict, tmp_path: Path) -> None:
    agree(model(node("ReduceMean", ["x"], ["y"], **attributes), {"x": X}, opset=13), [random(*X)], tmp_path)


def test_reduction_without_axes_can_be_a_no_op(tmp_path: Path) -> None:
    proto = model(node("ReduceSum", ["x"], ["y"], noop_with_empty_axes=1), {"x": X})
    assert op_names(agree(proto, [random(*X)], tmp_path)) == []


@pytest.mark.parametrize("operator", ["ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"])
def test_reductions_of_no_axis_still_take_squares_and_logarithms(operator: str, tmp_path: Path) -> None:
    proto = model(node(operator, ["x"], ["y"], noop_with_empty_axes=1, keepdims=0), {"x": X}, opset=18)
    agree(proto, [random(*X, low=0.1, high=3)], tmp_path)
    agree(model(node(operator, ["x"], ["y"]), {"x": ()}, opset=13), [np.array(2.5, np.float32)], tmp_path)


def test_given_axes_are_reduced_whatever_no_axes_would_mean(tmp_path: Path) -> None:
    mean = node("ReduceMean", ["x", "a"], ["y"], noop_with_empty_axes=1)
    proto = model(mean, {"x": X}, constants={"a": np.array([1])}, opset=18)
    agree(proto, [random(*X)], tmp_path)


def test_reductions_of_integers_with_roots_truncate(tmp_path: Path) -> None:
    proto = model(node("ReduceL2", ["x"], ["y"], axes=[1], keepdims=0), {"x": ((2, 3), TensorProto.INT64)}, opset=13)
    agree(proto, [np.array([[1, 2, 3], [4, -4, 1]])], tmp_path)


def test_an_axis_that_is_not_there_is_reported(tmp_path: Path) -> None:
    proto = model(node("ReduceSum", ["x", "a"], ["y"]), {"x": X}, constants={"a": np.array([3])})
    with pytest.raises(CompilerError, match="axis 3 is out of range"):
        imported(proto, tmp_path)


@pytest.mark.parametrize("operator", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("attributes", [{}, {"axis": -1, "keepdims": 0, "select_last_index": 1}], ids=str)
def test_arg_reductions(operator: str, attributes: dict, tmp_path: Path) -> None:
    values = np.array([[1, 3, 3], [0, 0, 2]], np.float32)
    agree(model(node(operator, ["x"], ["y"], **attributes), {"x": (2, 3)}), [values], tmp_path)
