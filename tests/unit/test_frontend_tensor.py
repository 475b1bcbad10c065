"""Operators that move elements, resize or recur mean what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter

from .onnx_graphs import agree, imported, model, node, op_names, random

X = (2, 3, 4)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize("shape", [(6, 4), (0, -1), (2, 0, 2, 2), (-1,)])
def test_reshape(shape: tuple, tmp_path: Path) -> None:
    proto = model(node("Reshape", ["x", "s"], ["y"]), {"x": X}, constants={"s": ints(*shape)})
    assert op_names(agree(proto, [random(*X)], tmp_path)) == ["tensor.reshape"]


def test_reshape_to_a_size_that_does_not_fit_is_reported(tmp_path: Path) -> None:
    proto = model(node("Reshape", ["x", "s"], ["y"]), {"x": X}, constants={"s": ints(5, 5)})
    with pytest.raises(CompilerError, match=r"E212.*Reshape"):
        imported(proto, tmp_path)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
def test_flatten(axis: int, tmp_path: Path) -> None:
    agree(model(node("Flatten", ["x"], ["y"], axis=axis), {"x": X}), [random(*X)], tmp_path)


@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze_and_unsqueeze(opset: int, tmp_path: Path) -> None:
    if opset == 11:
        nodes = [node("Unsqueeze", ["x"], ["u"], axes=[0, 2]), node("Squeeze", ["u"], ["y"], axes=[0])]
        constants = {}
    else:
        nodes = [node("Unsqueeze", ["x", "a"], ["u"]), node("Squeeze", ["u", "b"], ["y"])]
        constants = {"a": ints(0, 2), "b": ints(0)}
    agree(model(nodes, {"x": X}, constants=constants, opset=opset), [random(*X)], tmp_path)


def test_squeezing_an_axis_that_is_not_one_is_reported(tmp_path: Path) -> None:
    proto = model(node("Squeeze", ["x", "a"], ["y"]), {"x": X}, constants={"a": ints(1)})
    with pytest.raises(CompilerError, match="not all 1"):
        imported(proto, tmp_path)


@pytest.mark.parametrize("attributes", [{}, {"perm": [1, 0, 2]}], ids=str)
def test_transpose(attributes: dict, tmp_path: Path) -> None:
    agree(model(node("Transpose", ["x"], ["y"], **attributes), {"x": X}), [random(*X)], tmp_path)


def test_concat(tmp_path: Path) -> None:
    proto = model(node("Concat", ["a", "b", "c"], ["y"], axis=-2), {"a": X, "b": (2, 1, 4)}, constants={
        "c": random(2, 2, 4)
    })  # fmt: skip
    agree(proto, [random(*X), random(2, 1, 4)], tmp_path)


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ([1], [3], [2], [1]),
        ([-3, 0], [-1, 100], [1, 2], [1, 2]),
        ([-1], [-(2**62)], [2], [-1]),
        ([3], [0], [-1], [-2]),
        ([0, 1], [2, 3], None, None),
    ],
)
def test_slice(starts: list, ends: list, axes: list | None, steps: list | None, tmp_path: Path) -> None:
    named = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
    constants = {name: ints(*values) for name, values in named.items() if values is not None}
    agree(model(node("Slice", ["x", *constants], ["y"]), {"x": X}, constants=constants), [random(*X)], tmp_path)


def test_slice_backwards_from_before_the_first_element_has_that_one(tmp_path: Path) -> None:
    constants = {"s": np.array([-9]), "e": np.array([-99]), "a": np.array([1]), "t": np.array([-1])}
    proto = model(node("Slice", ["x", "s", "e", "a", "t"], ["y"]), {"x": (2, 5)}, constants=constants)
    agree(proto, [random(2, 5)], tmp_path)


def test_slice_before_opset_10_has_attributes(tmp_path: Path) -> None:
    proto = model(node("Slice", ["x"], ["y"], starts=[1], ends=[2**60], axes=[2]), {"x": X}, opset=9)
    agree(proto, [random(*X)], tmp_path)


def test_slice_of_everything_leaves_nothing(tmp_path: Path) -> None:
    proto = model(node("Slice", ["x"], ["s"], starts=[0], ends=[99], axes=[2]), {"x": X}, ["s"], opset=9)
    assert op_names(imported(proto, tmp_path)) == []


def test_slice_with_computed_bounds_has_unknown_sizes(tmp_path: Path) -> None:
    integers = ((1,), TensorProto.INT64)
    proto = model(node("Slice", ["x", "s", "e"], ["y"]), {"x": X, "s": integers, "e": integers})
    module = imported(proto, tmp_path)
    assert module.main.outputs[0].type.shape == (None, *X[1:])
    x = random(*X)
    (y,) = Interpreter(module).run([x, ints(0), ints(-1)])
    np.testing.assert_array_equal(y, x[0:-1])


def test_split_by_sizes(tmp_path: Path) -> None:
    proto = model(
        node("Split", ["x", "s"], ["a", "b"], axis=2), {"x": X}, ["a", "b"], constants={"s": ints(1, 3)}
    )  # fmt: skip
    agree(proto, [random(*X)], tmp_path)


def test_split_by_attribute(tmp_path: Path) -> None:
    agree(model(node("Split", ["x"], ["a", "b"], axis=1, split=[2, 1]), {"x": X}, ["a", "b"], opset=11), [random(*X)],
          tmp_path)  # fmt: skip


def test_split_into_unequal_parts(tmp_path: Path) -> None:
    proto = model(node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2), {"x": X}, ["a", "b"], opset=18)
    agree(proto, [random(*X)], tmp_path)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_pad(mode: str, tmp_path: Path) -> None:
    proto = model(node("Pad", ["x", "p"], ["y"], mode=mode), {"x": X}, constants={"p": ints(0, 1, 2, 0, 0, 3)})
    agree(proto, [random(*X)], tmp_path)


def test_pad_with_value_and_cropping(tmp_path: Path) -> None:
    constants = {"p": ints(0, -1, 2, 0, 0, -2), "v": np.array(7, np.float32)}
    agree(model(node("Pad", ["x", "p", "v"], ["y"]), {"x": X}, constants=constants), [random(*X)], tmp_path)


def test_pad_along_some_axes(tmp_path: Path) -> None:
    proto = model(
        node("Pad", ["x", "p", "", "a"], ["y"]), {"x": X}, constants={"p": ints(1, 2), "a": ints(-1)}, opset=18
    )  # fmt: skip
    agree(proto, [random(*X)], tmp_path)


def test_pad_by_nothing_has_a_mode_all_the_same(tmp_path: Path) -> None:
    proto = model(node("Pad", ["x", "p"], ["y"], mode="reflect"), {"x": (2, 3)}, constants={"p": np.zeros(4, np.int64)})
    assert op_names(agree(proto, [random(2, 3)], tmp_path)) == []


def test_pads_that_do_not_belong_to_the_axes_are_reported(tmp_path: Path) -> None:
    constants = {"p": np.array([1, 1, 1]), "a": np.array([0, 1])}
    proto = model(node("Pad", ["x", "p", "", "a"], ["y"]), {"x": (2, 3)}, constants=constants, opset=18)
    with pytest.raises(CompilerError, match="3 pads for 2 axes"):
        imported(proto, tmp_path)


def test_pad_before_opset_11_has_attributes(tmp_path: Path) -> None:
    proto = model(node("Pad", ["x"], ["y"], pads=[0, 0, 1, 0, 0, 1], value=2.0), {"x": X}, opset=10)
    agree(proto, [random(*X)], tmp_path)


def test_expand_broadcasts_both_ways(tmp_path: Path) -> None:
    proto = model(node("Expand", ["x", "s"], ["y"]), {"x": (3, 1)}, constants={"s": ints(2, 1, 4)})
    agree(proto, [random(3, 1)], tmp_path)


def test_tile(tmp_path: Path) -> None:
    proto = model(node("Tile", ["x", "r"], ["y"]), {"x": X}, constants={"r": ints(1, 2, 3)})
    agree(proto, [random(*X)], tmp_path)


@pytest.mark.parametrize("index", [0, -1])
def test_gather_of_one_known_index_is_a_slice(index: int, tmp_path: Path) -> None:
    proto = model(node("Gather", ["x", "i"], ["y"], axis=1), {"x": X}, constants={"i": np.array(index, np.int64)})
    assert op_names(agree(proto, [random(*X)], tmp_path)) == ["tensor.slice", "tensor.reshape"]


@pytest.mark.parametrize("operator", ["Gather", "GatherElements"])
def test_known_indices_beyond_the_axis_are_reported(operator: str, tmp_path: Path) -> None:
    proto = model(node(operator, ["x", "i"], ["y"], axis=1), {"x": (2, 4)}, constants={"i": np.array([[1, -5]])})
    with pytest.raises(CompilerError, match="from -5 to 1, are not all among 4 elements"):
        imported(proto, tmp_path)


def test_gather_by_computed_indices(tmp_path: Path) -> None:
    proto = model(node("Gather", ["x", "i"], ["y"], axis=1), {"x": X, "i": ((2, 2), TensorProto.INT32)})
    agree(proto, [random(*X), np.array([[0, 2], [-1, 1]], np.int32)], tmp_path)


def test_gather_elements_and_scatter_elements(tmp_path: Path) -> None:
    nodes = [node("GatherElements", ["x", "i"], ["g"], axis=1), node("ScatterElements", ["x", "i", "g"], ["y"])]
    agree(model(nodes, {"x": (3, 3), "i": ((3, 3), TensorProto.INT64)}), [random(3, 3), np.tile(ints(2, 0, 1), (3, 1))],
          tmp_path)  # fmt: skip


def test_gather_nd_and_scatter_nd(tmp_path: Path) -> None:
    nodes = [node("GatherND", ["x", "i"], ["g"]), node("ScatterND", ["x", "i", "g"], ["y"])]
    agree(model(nodes, {"x": X}, constants={"i": np.array([[0, 1], [1, 2]])}), [random(*X)], tmp_path)


def test_one_hot(tmp_path: Path) -> None:
    constants = {"d": np.array(4, np.int64), "v": np.array([-1, 2], np.float32)}
    proto = model(node("OneHot", ["i", "d", "v"], ["y"], axis=0), {"i": ((3,), TensorProto.INT64)}, constants=constants)
    agree(proto, [ints(0, 3, -1)], tmp_path)


@pytest.mark.parametrize(("opset", "axis"), [(11, 1), (11, -2), (13, 1)])
def test_hardmax(opset: int, axis: int, tmp_path: Path) -> None:
    agree(model(node("Hardmax", ["x"], ["y"], axis=axis), {"x": (2, 3, 4)}, opset=opset), [random(2, 3, 4)], tmp_path)


@pytest.mark.parametrize("largest", [0, 1])
def test_top_k(largest: int, tmp_path: Path) -> None:
    proto = model(
        node("TopK", ["x", "k"], ["v", "i"], axis=1, largest=largest), {"x": X}, ["v", "i"], {"k": ints(2)}
    )  # fmt: skip
    agree(proto, [random(*X)], tmp_path)


@pytest.mark.parametrize("attributes", [{}, {"exclusive": 1, "reverse": 1}], ids=str)
def test_cumulative_sum(attributes: dict, tmp_path: Path) -> None:
    proto = model(node("CumSum", ["x", "a"], ["y"], **attributes), {"x": X}, constants={"a": np.array(1, np.int64)})
    agree(proto, [random(*X)], tmp_path)


@pytest.mark.parametrize("upper", [0, 1])
def test_trilu(upper: int, tmp_path: Path) -> None:
    proto = model(node("Trilu", ["x", "k"], ["y"], upper=upper), {"x": X}, constants={"k": np.array(1, np.int64)})
    agree(proto, [random(*X)], tmp_path)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str, tmp_path: Path) -> None:
    proto = model(node("DepthToSpace", ["x"], ["y"], blocksize=2, mode=mode), {"x": (1, 8, 2, 3)})
    agree(proto, [random(1, 8, 2, 3)], tmp_path)


def test_space_to_depth(tmp_path: Path) -> None:
    agree(model(node("SpaceToDepth", ["x"], ["y"], blocksize=2), {"x": (1, 2, 4, 6)}), [random(1, 2, 4, 6)], tmp_path)


def test_compress_by_a_known_condition(tmp_path: Path) -> None:
    proto = model(node("Compress", ["x", "c"], ["y"], axis=1), {"x": X}, constants={"c": np.array([1, 0, 1], bool)})
    agree(proto, [random(*X)], tmp_path)


def test_non_zero_of_data_has_as_many_columns_as_it_finds(tmp_path: Path) -> None:
    module = imported(model(node("NonZero", ["x"], ["y"]), {"x": X}), tmp_path)
    assert module.main.outputs[0].type.shape == (len(X), None)
    x = np.maximum(random(*X), 0)
    (y,) = Interpreter(module).run([x])
    np.testing.assert_array_equal(y, np.array(np.nonzero(x)))


# -- resampling --------------------------------------------------------------------------------------------------------
RESIZES = [
    {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    {"mode": "nearest"},
    {"mode": "linear"},
    {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
    {"mode": "cubic", "cubic_coeff_a": -0.5},
]


@pytest.mark.parametrize("attributes", RESIZES, ids=str)
def test_resize_by_sizes(attributes: dict, tmp_path: Path) -> None:
    proto = model(
        node("Resize", ["x", "", "", "s"], ["y"], **attributes), {"x": (1, 2, 4, 5)}, constants={"s": ints(1, 2, 7, 9)}
    )  # fmt: skip
    agree(proto, [random(1, 2, 4, 5)], tmp_path, tolerance=1e-4)


@pytest.mark.parametrize("attributes", RESIZES, ids=str)
def test_resize_by_scales(attributes: dict, tmp_path: Path) -> None:
    scales = np.array([1, 1, 2, 1.5], np.float32)
    proto = model(node("Resize", ["x", "", "s"], ["y"], **attributes), {"x": (1, 2, 4, 5)}, constants={"s": scales})
    agree(proto, [random(1, 2, 4, 5)], tmp_path, tolerance=1e-4)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("operator", "opset"), [("Upsample", 7), ("Upsample", 9), ("Resize", 10)])
def test_older_ways_to_resize(operator: str, opset: int, mode: str, tmp_path: Path) -> None:
    scales = np.array([1, 1, 2, 3], np.float32)
    if opset == 7:
        proto = model(node(operator, ["x"], ["y"], mode=mode, scales=list(scales)), {"x": (1, 2, 3, 4)}, opset=7)
    else:
        proto = model(node(operator, ["x", "s"], ["y"], mode=mode), {"x": (1, 2, 3, 4)}, constants={"s": scales},
                      opset=opset)  # fmt: skip
    agree(proto, [random(1, 2, 3, 4)], tmp_path, tolerance=1e-4)


@pytest.mark.parametrize("scales", [(0.6, 0.6), (0.5, 2.0)], ids=str)
def test_the_nearest_element_of_a_smaller_picture_in_opset_10_is_the_next_one_up(scales: tuple, tmp_path: Path) -> None:
    constants = {"s": np.array([1, 1, *scales], np.float32)}
    proto = model(node("Resize", ["x", "s"], ["y"]), {"x": (1, 2, 7, 9)}, constants=constants, opset=10)
    agree(proto, [random(1, 2, 7, 9)], tmp_path)


def test_factors_are_multiplied_and_divided_as_they_are_stored(tmp_path: Path) -> None:
    constants = {"s": np.array([1, 1, 0.7, 0.6], np.float32)}
    resize = node("Resize", ["x", "", "s"], ["y"], coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    module = agree(model(resize, {"x": (1, 1, 10, 10)}, constants=constants), [random(1, 1, 10, 10)], tmp_path)
    assert module.main.body.first.result.type.shape == (1, 1, 7, 6)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_cubic_samples_beyond_the_border_weigh_the_elements_where_they_are(
    padding: str, align: int, tmp_path: Path
) -> None:
    sample = node("GridSample", ["x", "g"], ["y"], mode="cubic", padding_mode=padding, align_corners=align)
    proto = model(sample, {"x": (1, 2, 3, 4), "g": (1, 5, 5, 2)}, opset=20)
    agree(proto, [random(1, 2, 3, 4), random(1, 5, 5, 2, low=-1.5, high=1.5)], tmp_path, tolerance=1e-4)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_crop_and_resize_of_a_known_region(mode: str, tmp_path: Path) -> None:
    resize = node("Resize", ["x", "r", "", "s"], ["y"], coordinate_transformation_mode="tf_crop_and_resize",
                  mode=mode, extrapolation_value=5.0)  # fmt: skip
    constants = {"r": np.array([0, 0, 0.3, -0.2, 1, 1, 0.9, 1.1], np.float32), "s": ints(1, 1, 5, 6)}
    agree(model(resize, {"x": (1, 1, 4, 7)}, constants=constants), [random(1, 1, 4, 7)], tmp_path)


# -- recurrence --------------------------------------------------------------------------------------------------------
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("operator", GATES)
def test_recurrent_layers(operator: str, direction: str, tmp_path: Path) -> None:
    directions, rows = 2 if direction == "bidirectional" else 1, GATES[operator] * 5
    constants = {
        "w": random(directions, rows, 3, seed=1), "r": random(directions, rows, 5, seed=2),
        "b": random(directions, 2 * rows, seed=3),
    }  # fmt: skip
    outputs = ["y", "h", "c"] if operator == "LSTM" else ["y", "h"]
    proto = model(
        node(operator, ["x", "w", "r", "b"], outputs, hidden_size=5, direction=direction), {"x": (4, 2, 3)}, outputs,
        constants,
    )  # fmt: skip
    agree(proto, [random(4, 2, 3)], tmp_path)


def test_lstm_with_initial_states(tmp_path: Path) -> None:
    constants = {"w": random(1, 20, 3, seed=1), "r": random(1, 20, 5, seed=2)}
    proto = model(
        node("LSTM", ["x", "w", "r", "", "", "h", "c"], ["", "hn", "cn"], hidden_size=5),
        {"x": (1, 2, 3), "h": (1, 2, 5), "c": (1, 2, 5)}, ["hn", "cn"], constants,
    )  # fmt: skip
    agree(proto, [random(1, 2, 3), random(1, 2, 5), random(1, 2, 5, seed=4)], tmp_path)


def test_gru_that_resets_after_the_product(tmp_path: Path) -> None:
    constants = {"w": random(1, 15, 3, seed=1), "r": random(1, 15, 5, seed=2), "b": random(1, 30, seed=3)}
    proto = model(
        node("GRU", ["x", "w", "r", "b"], ["y"], hidden_size=5, linear_before_reset=1), {"x": (3, 2, 3)},
        constants=constants,
    )  # fmt: skip
    agree(proto, [random(3, 2, 3)], tmp_path)


def hard_lstm(**parameters: list[float]) -> onnx.ModelProto:
    names = ["HardSigmoid", "Tanh", "Tanh"]
    lstm = node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4, activations=names, **parameters)
    return model(lstm, {"x": (2, 1, 3)}, constants={"w": random(1, 16, 3, seed=1), "r": random(1, 16, 4, seed=2)})


def test_gates_of_keras_are_hard_sigmoids(tmp_path: Path) -> None:
    agree(hard_lstm(activation_alpha=[0.2], activation_beta=[0.5]), [random(2, 1, 3, low=-3, high=3)], tmp_path)


def test_other_slopes_of_gates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompilerError, match=r"uses activation_alpha 0\.16"):
        imported(hard_lstm(activation_alpha=[0.16]), tmp_path)


def test_the_hidden_size_is_that_of_the_weights_where_it_is_left_out(tmp_path: Path) -> None:
    proto = model(node("GRU", ["x", "w", "r"], ["y"]), {"x": (2, 1, 3)},
                  constants={"w": random(1, 12, 3), "r": random(1, 12, 4)})  # fmt: skip
    assert imported(proto, tmp_path).main.outputs[0].type.shape == (2, 1, 1, 4)


def test_sequences_of_different_lengths_are_refused(tmp_path: Path) -> None:
    constants = {"w": random(1, 5, 3), "r": random(1, 5, 5), "n": np.array([4, 2], np.int32)}
    proto = model(
        node("RNN", ["x", "w", "r", "", "n"], ["y"], hidden_size=5), {"x": (4, 2, 3)}, constants=constants
    )  # fmt: skip
    with pytest.raises(CompilerError, match="different lengths"):
        imported(proto, tmp_path)


def test_numbers_that_look_like_dimensions_are_not_taken_for_some(tmp_path: Path) -> None:
    nodes = [node("Concat", ["c", "x"], ["v"], axis=0), node("Slice", ["v", "zero", "one"], ["y"])]
    proto = model(nodes, {"x": (2,)}, constants={"c": random(1) + 0.5, "zero": ints(0), "one": ints(1)})
    agree(proto, [random(2)], tmp_path)
