"""Operators the frontend takes apart: Einsum, sequences, Scan and the like mean what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.common.einsum import parse_equation

from .onnx_graphs import agree, imported, model, node, op_names, random

SIZES = {"b": 2, "h": 3, "i": 4, "j": 5, "k": 6}


@pytest.mark.parametrize(
    "equation",
    ["ij,jk->ik", "bhik,bhjk->bhij", "bhij,bhjk->bhik", "ij->ji", "ij->i", "ij->", "bij,bjk", "i,j->ij", "ij,ij->ij",
     "bij,kj->bik", "ij,jk,kb->ib", "...ij,...jk->...ik", "bhi,i->bh", "ij,i->j", "bi,hj->bh"],
)  # fmt: skip
def test_einsum(equation: str, tmp_path: Path) -> None:
    terms = equation.partition("->")[0].split(",")
    shapes = [tuple(SIZES[c] for c in t.replace("...", "bh")) for t in terms]
    names = [f"x{i}" for i in range(len(terms))]
    proto = model(node("Einsum", names, ["y"], equation=equation), dict(zip(names, shapes, strict=True)))
    agree(proto, [random(*s, seed=i) for i, s in enumerate(shapes)], tmp_path, tolerance=1e-4)


def test_einsum_of_attention_is_one_matmul(tmp_path: Path) -> None:
    proto = model(node("Einsum", ["q", "k"], ["y"], equation="bhid,bhjd->bhij"), {"q": (1, 2, 3, 4), "k": (1, 2, 5, 4)})
    assert op_names(imported(proto, tmp_path)) == ["tensor.transpose", "nn.matmul"]


def test_an_ellipsis_stands_for_axes_of_different_number() -> None:
    terms, result = parse_equation("...ij,jk->...ik", [4, 2])
    assert terms == ["ZYij", "jk"]
    assert result == "ZYik"


@pytest.mark.parametrize(
    ("equation", "message"), [("ij,jk", "2 terms for 1 operands"), ("ijk->i", "rank 2")]
)
def test_einsum_that_does_not_fit_is_explained(equation: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CompilerError, match=message):
        imported(model(node("Einsum", ["x"], ["y"], equation=equation), {"x": (3, 3)}), tmp_path)


# -- sequences ---------------------------------------------------------------------------------------------------------
def test_splitting_to_a_sequence_and_joining_again(tmp_path: Path) -> None:
    nodes = [
        node("SplitToSequence", ["x", "two"], ["s"], axis=1), node("SequenceAt", ["s", "last"], ["a"]),
        node("SequenceErase", ["s", "zero"], ["e"]), node("SequenceInsert", ["e", "a", "zero"], ["i"]),
        node("ConcatFromSequence", ["i"], ["y"], axis=1),
    ]  # fmt: skip
    constants = {"two": np.array(2), "last": np.array(-1), "zero": np.array(0)}
    agree(model(nodes, {"x": (2, 5, 3)}, constants=constants), [random(2, 5, 3)], tmp_path)


def test_stacking_a_constructed_sequence(tmp_path: Path) -> None:
    nodes = [
        node("SequenceConstruct", ["x", "x"], ["s"]), node("ConcatFromSequence", ["s"], ["c"], axis=0, new_axis=1),
        node("SequenceLength", ["s"], ["n"]), node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["c", "f"], ["y"]),
    ]  # fmt: skip
    agree(model(nodes, {"x": (2, 3)}), [random(2, 3)], tmp_path)


def test_a_graph_for_every_element_of_a_sequence(tmp_path: Path) -> None:
    value = onnx.ValueInfoProto(name="i"), onnx.ValueInfoProto(name="o")
    body = helper.make_graph([node("Relu", ["i"], ["o"])], "each", value[:1], value[1:])
    nodes = [
        node("SplitToSequence", ["x"], ["s"], axis=1), node("Identity", ["s"], ["t"]),
        node("SequenceMap", ["t"], ["m"], body=body), node("ConcatFromSequence", ["m"], ["y"], axis=1),
    ]  # fmt: skip
    (y,) = Interpreter(imported(model(nodes, {"x": (2, 3)}), tmp_path)).run([random(2, 3)])
    np.testing.assert_array_equal(y, np.maximum(random(2, 3), 0))


def test_an_optional_is_what_is_in_it(tmp_path: Path) -> None:
    nodes = [
        node("Optional", ["x"], ["o"]), node("OptionalHasElement", ["o"], ["h"]),
        node("OptionalGetElement", ["o"], ["g"]), node("Relu", ["g"], ["y"]),
    ]  # fmt: skip
    proto = model(nodes, {"x": (2, 3)}, ["y", "h"], opset=18)
    y, has = Interpreter(imported(proto, tmp_path)).run([random(2, 3)])
    np.testing.assert_array_equal(y, np.maximum(random(2, 3), 0))
    assert has


def test_an_optional_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    empty = node("Optional", [], ["o"], type=helper.make_tensor_type_proto(1, [2]))
    proto = model([empty, node("OptionalGetElement", ["o"], ["y"])], {"x": (2,)}, opset=18)
    with pytest.raises(CompilerError, match="holds nothing"):
        imported(proto, tmp_path)


def test_a_sequence_where_a_tensor_belongs_is_refused(tmp_path: Path) -> None:
    nodes = [node("SequenceConstruct", ["x"], ["s"]), node("Relu", ["s"], ["y"])]
    with pytest.raises(CompilerError, match="takes a sequence as input 0"):
        imported(model(nodes, {"x": (2,)}), tmp_path)
    with pytest.raises(CompilerError, match="output 's' is not a tensor"):
        imported(model(nodes[:1], {"x": (2,)}, ["s"]), tmp_path)


# -- the rest ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("attributes", [{}, {"scan_input_directions": [1], "scan_output_axes": [1]}], ids=str)
def test_scan_is_unrolled(attributes: dict, tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Add", ["s", "v"], ["s_out"]), node("Identity", ["s_out"], ["collected"])], "body",
        [info("s", TensorProto.FLOAT, [2]), info("v", TensorProto.FLOAT, [2])],
        [info("s_out", TensorProto.FLOAT, [2]), info("collected", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    scan = node("Scan", ["x", "xs"], ["y", "all"], body=body, num_scan_inputs=1, **attributes)
    proto = model(scan, {"x": (2,), "xs": (4, 2)}, ["y", "all"])
    assert op_names(agree(proto, [random(2), random(4, 2)], tmp_path)).count("math.add") == 4


def test_hardmax(tmp_path: Path) -> None:
    agree(model(node("Hardmax", ["x"], ["y"], axis=1), {"x": (2, 3, 4)}), [random(2, 3, 4)], tmp_path)


@pytest.mark.parametrize(("time", "batch"), [(0, 1), (1, 0)])
def test_reverse_sequence_of_known_lengths(time: int, batch: int, tmp_path: Path) -> None:
    proto = model(
        node("ReverseSequence", ["x", "n"], ["y"], time_axis=time, batch_axis=batch), {"x": (3, 3, 2)},
        constants={"n": np.array([1, 3, 2])},
    )  # fmt: skip
    agree(proto, [random(3, 3, 2)], tmp_path)
