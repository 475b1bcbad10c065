"""Inputs of a model: symbolic dimensions, bound values, and the questions asked when something is open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.inputs import DeclaredInput, resolve_inputs
from compiler.ir.core import Module
from compiler.ir.types import DType

from .onnx_graphs import agree, imported, model, node, op_names, random


def relu(**inputs: object) -> onnx.ModelProto:
    return model([node("Relu", [name], [f"y_{name}"]) for name in inputs], inputs, [f"y_{n}" for n in inputs])


def shapes_of(module: Module) -> list[tuple]:
    return [a.type.shape for a in module.main.arguments]


def test_a_leading_symbolic_dimension_is_a_batch_of_one(tmp_path: Path) -> None:
    module = imported(relu(x=("N", 3, 8, 8)), tmp_path)
    assert shapes_of(module) == [(1, 3, 8, 8)]
    assert module.attributes["assumed_shapes"] == {"x": (1, 3, 8, 8)}


def test_a_given_shape_is_not_assumed(tmp_path: Path) -> None:
    module = imported(relu(x=("N", 3)), tmp_path, shapes={"x": (4, 3)})
    assert shapes_of(module) == [(4, 3)]
    assert "assumed_shapes" not in module.attributes


def test_a_symbol_has_one_size_in_all_inputs(tmp_path: Path) -> None:
    module = imported(relu(a=("N", 3), b=(2, "N")), tmp_path, shapes={"a": (5, 3)})
    assert shapes_of(module) == [(5, 3), (2, 5)]


def test_open_dimensions_are_asked_for_together_with_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(CompilerError) as caught:
        imported(relu(a=("N", 3, "H", "W"), b=(2, "T")), tmp_path)
    (fault,) = caught.value.diagnostics
    assert fault.code == "E205"
    assert fault.notes == ("input 'a' is Nx3xHxW", "input 'b' is 2xT")
    assert fault.help == "say them, for example: --shape a=1x3x224x224 --shape b=2x16"


def test_an_input_without_a_shape_must_be_told(tmp_path: Path) -> None:
    proto = relu(x=(1,))
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(CompilerError, match=r"input 'x' has no declared shape[\s\S]*--shape x="):
        imported(proto, tmp_path)
    assert shapes_of(imported(proto, tmp_path, shapes={"x": (2, 2)})) == [(2, 2)]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"imput": (1, 3)}, r"'imput', which is not an input[\s\S]*did you mean 'input'"),
        ({"input": (1, 3, 4)}, r"3 dimensions, the model has 2[\s\S]*declares input=Nx3"),
        ({"input": (1, 4)}, r"sets dimension 1 of input 'input' to 4, the model fixes it at 3"),
        ({"input": (-1, 3)}, "negative"),
    ],
)
def test_a_shape_that_does_not_fit_is_an_error(shapes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(CompilerError, match=message):
        imported(relu(input=("N", 3)), tmp_path, shapes=shapes)


def test_contradicting_symbols_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(CompilerError, match="sets 'N' to 3 for input 'b' and to 2 elsewhere"):
        imported(relu(a=("N", 3), b=("N",)), tmp_path, shapes={"a": (2, 3), "b": (3,)})


def test_a_fixed_batch_can_be_given_anew(tmp_path: Path) -> None:
    assert shapes_of(imported(relu(x=(1, 3)), tmp_path, shapes={"x": (8, 3)})) == [(8, 3)]


def test_initialisers_listed_as_inputs_are_weights(tmp_path: Path) -> None:
    proto = model(node("Add", ["x", "w"], ["y"]), {"x": (2, 3), "w": (3,)}, constants={"w": random(3)})
    module = agree(proto, [random(2, 3)], tmp_path)
    assert [a.name for a in module.main.arguments] == ["x"]


# -- bindings ----------------------------------------------------------------------------------------------------------
def branching() -> onnx.ModelProto:
    proto = model(
        [node("Equal", ["sr", "k"], ["is16"]), node("Where", ["is16", "x", "z"], ["y"])],
        {"x": (2,), "sr": ((), TensorProto.INT64)},
        constants={"k": np.array(16000), "z": np.zeros(2, np.float32)},
    )  # fmt: skip
    return proto


def test_a_bound_input_is_an_input_no_more(tmp_path: Path) -> None:
    module = imported(branching(), tmp_path, bindings={"sr": 16000})
    assert [a.name for a in module.main.arguments] == ["x"]
    assert "is16" in module.constants
    x = random(2)
    np.testing.assert_array_equal(Interpreter(module).run([x])[0], x)


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        ({"sr": 1.5}, r"the value 1\.5, not i64"),
        ({"sr": [1, 2]}, "2 elements of shape .*, the model has a single number"),
        ({"x": 1}, "float input"),
        ({"rs": 1}, "did you mean 'sr'"),
    ],
)
def test_a_binding_that_does_not_fit_is_an_error(bindings: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(CompilerError, match=message):
        imported(branching(), tmp_path, bindings=bindings)


@pytest.mark.parametrize(
    ("value", "shape"),
    [(3, (1, 2)), ([[3, 4]], (1, 2)), ([[1, 2], [3, 4]], (2, 2)), ([1, 2], None), ([[1, 2, 3]], None)],
)
def test_a_binding_has_the_rank_the_model_declares(value: object, shape: tuple | None, tmp_path: Path) -> None:
    inputs = {"x": ((2, 2), TensorProto.INT64), "k": (("n", 2), TensorProto.INT64)}
    proto = model(node("Add", ["x", "k"], ["y"]), inputs)
    if shape is None:
        with pytest.raises(CompilerError, match="the model has nx2"):
            imported(proto, tmp_path, bindings={"k": value})
    else:
        assert imported(proto, tmp_path, bindings={"k": value}).constants["k"].type.shape == shape


def test_all_faults_of_the_inputs_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(CompilerError) as caught:
        imported(relu(a=("N", "H")), tmp_path, shapes={"b": (1,)}, bindings={"c": 1})
    assert [f.code for f in caught.value.diagnostics] == ["E204", "E204", "E205"]


def test_half_precision_inputs_and_outputs_keep_their_type(tmp_path: Path) -> None:
    half = ((2, 3), TensorProto.FLOAT16)
    module = imported(model(node("Relu", ["x"], ["y"]), {"x": half}, [("y", half)]), tmp_path)
    assert op_names(module) == ["math.cast", "nn.relu", "math.cast"]
    assert str(module.main.arguments[0].type.dtype) == str(module.main.outputs[0].type.dtype) == "f16"
    assert module.main.output_names == ("y",)


def test_strings_and_sequences_are_refused(tmp_path: Path) -> None:
    proto = model(node("Relu", ["x"], ["y"]), {"x": ((2,), TensorProto.STRING)})
    with pytest.raises(CompilerError, match="elements of type string"):
        imported(proto, tmp_path)
    proto.graph.input[0].CopyFrom(onnx.helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None))
    with pytest.raises(CompilerError, match="is a sequence, not a tensor"):
        imported(proto, tmp_path)


def test_a_binding_of_no_input_is_told_with_options_that_may_be_bound() -> None:
    declared = [DeclaredInput("x", DType.F32, [1, 4])]
    with pytest.raises(CompilerError, match=r"--bind names 'rate'[\s\S]*known: sr, x"):
        resolve_inputs(declared, {}, {"rate": 16000}, "vad.jit", options=["sr"])
    with pytest.raises(CompilerError, match=r"--shape names 'sr'[\s\S]*known: x"):
        resolve_inputs(declared, {"sr": (1,)}, {}, "vad.jit", options=["sr"])
