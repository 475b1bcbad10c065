"""Models that cannot be imported are explained: every unsupported node at once, broken files without a traceback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compiler.errors import CompilerError, Diagnostic
from compiler.frontend.load import load

from .onnx_graphs import imported, model, node, op_names, random, write


def faults_of(proto: onnx.ModelProto, folder: Path) -> list[Diagnostic]:
    with pytest.raises(CompilerError) as caught:
        imported(proto, folder)
    return list(caught.value.diagnostics)


# -- unsupported nodes -------------------------------------------------------------------------------------------------
def test_every_unsupported_node_is_listed_at_once_grouped_by_operator(tmp_path: Path) -> None:
    nodes = [
        node("RandomNormalLike", ["x"], ["a"], name="first"), node("Relu", ["a"], ["b"]),
        node("RandomNormalLike", ["b"], ["c"], name="second"), node("Bernoulli", ["x"], ["d"], name="third"),
    ]  # fmt: skip
    proto = model(nodes, {"x": (1, 3, 3)}, ["c", "d"])
    proto.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, (1, 3, 3)))
    drawn, bernoulli = faults_of(proto, tmp_path)
    assert (drawn.code, drawn.op) == ("E210", "RandomNormalLike")
    assert "(2 nodes)" in drawn.message
    assert drawn.notes == ("node 'first', opset 17, output 'a'", "node 'second', opset 17, output 'c'")
    assert bernoulli.notes == ("node 'third', opset 17, output 'd'",)
    assert "for inference" in drawn.help


def test_nodes_after_one_of_unknown_type_are_not_blamed(tmp_path: Path) -> None:
    proto = model([node("RandomNormalLike", ["x"], ["a"]), node("Relu", ["a"], ["y"])], {"x": (1, 3, 3)})
    assert [f.op for f in faults_of(proto, tmp_path)] == ["RandomNormalLike"]


def test_an_unsupported_node_that_no_output_needs_does_no_harm(tmp_path: Path) -> None:
    proto = model([node("RandomNormalLike", ["x"], ["a"]), node("Relu", ["x"], ["y"])], {"x": (1, 3, 3)})
    assert op_names(imported(proto, tmp_path)) == ["nn.relu"]


def test_a_custom_domain_is_named(tmp_path: Path) -> None:
    proto = model(node("BeamSearch", ["x"], ["y"], domain="com.microsoft"), {"x": (1,)})
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    (fault,) = faults_of(proto, tmp_path)
    assert fault.op == "com.microsoft.BeamSearch"
    assert "custom or runtime-specific" in fault.help


def test_a_misspelt_operator_gets_a_suggestion(tmp_path: Path) -> None:
    (fault,) = faults_of(model(node("Rellu", ["x"], ["y"]), {"x": (1,)}), tmp_path)
    assert "not an ONNX operator" in fault.message
    assert "'Relu'" in fault.help


def test_an_attribute_a_converter_does_not_know_is_not_ignored(tmp_path: Path) -> None:
    proto = model(node("Relu", ["x"], ["y"]), {"x": (1,)})
    proto.graph.node[0].attribute.append(helper.make_attribute("slope", 2.0))
    (fault,) = faults_of(proto, tmp_path)
    assert "slope" in fault.message


# -- malformed nodes and graphs ----------------------------------------------------------------------------------------
def test_operands_that_do_not_fit_are_reported_with_the_op_s_own_words(tmp_path: Path) -> None:
    proto = model(node("Conv", ["x", "w"], ["y"], name="c1"), {"x": (1, 4, 5, 5)}, constants={"w": random(2, 3, 1, 1)})
    (fault,) = faults_of(proto, tmp_path)
    assert (fault.code, fault.op) == ("E212", "Conv")
    assert "input has 4 channels, weights expect 3" in fault.message
    assert "'c1'" in fault.notes[0]


def test_a_missing_required_attribute_is_reported(tmp_path: Path) -> None:
    (fault,) = faults_of(model(node("Concat", ["x", "x"], ["y"]), {"x": (1,)}), tmp_path)
    assert fault.code == "E212"
    assert "axis" in fault.message


def test_mixed_element_types_are_reported(tmp_path: Path) -> None:
    proto = model(node("Add", ["a", "b"], ["y"]), {"a": (2,), "b": ((2,), TensorProto.INT64)})
    (fault,) = faults_of(proto, tmp_path)
    assert "one element type, not f32, i64" in fault.message


def test_a_tensor_nobody_defines_is_reported_with_the_nearest_names(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["feature"]), node("Relu", ["featur"], ["y"], name="r2")]
    (fault,) = faults_of(model(nodes, {"x": (1,)}), tmp_path)
    assert fault.code == "E213"
    assert "node 'r2' (Relu) needs tensor 'featur'" in fault.message
    assert "'feature'" in fault.help


def test_an_output_nobody_defines_is_reported(tmp_path: Path) -> None:
    (fault,) = faults_of(model(node("Relu", ["x"], ["y"]), {"x": (1,)}, ["z"]), tmp_path)
    assert "graph output needs tensor 'z'" in fault.message


def test_a_cycle_is_reported(tmp_path: Path) -> None:
    nodes = [node("Add", ["x", "b"], ["a"], name="one"), node("Relu", ["a"], ["b"], name="two")]
    (fault,) = faults_of(model(nodes, {"x": (1,)}, ["b"]), tmp_path)
    assert fault.code == "E214"
    assert "'one', 'two'" in fault.notes[0]


def test_a_name_inside_a_branch_is_not_the_one_outside(tmp_path: Path) -> None:
    result = onnx.ValueInfoProto(name="r")
    branch = helper.make_graph([node("Relu", ["x"], ["z"]), node("Neg", ["z"], ["r"])], "branch", [], [result])
    nodes = [node("If", ["c"], ["a"], then_branch=branch, else_branch=branch), node("Exp", ["a"], ["z"]),
             node("Log", ["z"], ["y"])]  # fmt: skip
    module = imported(model(nodes, {"x": (2,)}, constants={"c": np.array(True)}), tmp_path)
    assert op_names(module) == ["nn.relu", "math.neg", "math.exp", "math.log"]


def test_a_tensor_defined_twice_is_reported(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["y"], name="one"), node("Neg", ["x"], ["y"], name="two")]
    (fault,) = faults_of(model(nodes, {"x": (1,)}), tmp_path)
    assert fault.code == "E215"


def test_nodes_out_of_order_are_sorted(tmp_path: Path) -> None:
    nodes = [node("Relu", ["a"], ["y"]), node("Neg", ["x"], ["a"])]
    assert op_names(imported(model(nodes, {"x": (1,)}), tmp_path)) == ["math.neg", "nn.relu"]


# -- files -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file is empty"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"<!DOCTYPE html>", "web page"),
        (b"PK\x03\x04" + bytes(40), "PyTorch archive"),
        (bytes(range(256)), "damaged or truncated|no graph"),
    ],
)
def test_a_file_that_is_no_model_is_explained(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(CompilerError, match=message):
        load(path)


def test_a_truncated_model_is_explained(tmp_path: Path) -> None:
    proto = model(node("MatMul", ["x", "w"], ["y"]), {"x": (1, 64)}, constants={"w": random(64, 64)})
    path = write(proto, tmp_path)
    content = path.read_bytes()
    for length in range(1, len(content), 997):
        path.write_bytes(content[:length])
        with pytest.raises(CompilerError, match="E201"):
            load(path)


def test_damaged_tensor_data_are_reported(tmp_path: Path) -> None:
    proto = model(node("Add", ["x", "w"], ["y"]), {"x": (4,)}, constants={"w": random(4)})
    proto.graph.initializer[0].dims[0] = 5
    (fault,) = faults_of(proto, tmp_path)
    assert (fault.code, "'w'" in fault.message) == ("E216", True)


@pytest.mark.parametrize(("opset", "message"), [(0, "older than 1"), (999, "newer than")])
def test_opsets_outside_the_range_are_refused_with_a_remedy(opset: int, message: str, tmp_path: Path) -> None:
    (fault,) = faults_of(model(node("Relu", ["x"], ["y"]), {"x": (1,)}, opset=opset), tmp_path)
    assert fault.code == "E203"
    assert message in fault.message
    assert fault.help


def test_external_data_are_read_from_beside_the_model(tmp_path: Path) -> None:
    weights = random(64, 64)
    proto = model(node("MatMul", ["x", "w"], ["y"]), {"x": (1, 64)}, constants={"w": weights})
    path = tmp_path / "model.onnx"
    onnx.save_model(proto, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    np.testing.assert_array_equal(load(path).constants["w"].data, weights)

    (tmp_path / "weights.bin").unlink()
    with pytest.raises(CompilerError, match=r"E202[\s\S]*weights\.bin"):
        load(path)


def test_a_missing_file_gets_a_suggestion(tmp_path: Path) -> None:
    write(model(node("Relu", ["x"], ["y"]), {"x": (1,)}), tmp_path, "resnet.onnx")
    with pytest.raises(CompilerError, match=r"no such file[\s\S]*resnet\.onnx"):
        load(tmp_path / "resnt.onnx")


def test_unknown_kinds_of_files_are_refused(tmp_path: Path) -> None:
    for name, message in (("model.tflite", r"E220[\s\S]*\.onnx"), ("model.pt", "is not a TorchScript archive")):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(CompilerError, match=message):
            load(tmp_path / name)


def test_a_directory_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(CompilerError, match="is a folder, not a model"):
        load(tmp_path)


def test_unsupported_operators_behind_others_are_listed_too(tmp_path: Path) -> None:
    """Det gives no shape the model declares, so what follows is not looked at; its operators still are."""
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="fine"),
        helper.make_node("Nonsense", ["b"], ["c"], name="second"),
        helper.make_node("RandomNormalLike", ["c"], ["d"], name="third"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 3])],
        [helper.make_tensor_value_info("d", TensorProto.FLOAT, None)],
    )  # fmt: skip
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    with pytest.raises(CompilerError) as caught:
        load(path)
    text = str(caught.value)
    assert all(name in text for name in ("first", "second", "third")) and "fine" not in text
