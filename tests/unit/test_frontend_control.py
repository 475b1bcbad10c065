"""What is decided at import: folding of shape arithmetic, branches, loops, functions; and what names survive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiler.errors import CompilerError
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from compiler.ir.verifier import verify

from .onnx_graphs import agree, imported, model, node, op_names, random


def scalar(value: int) -> np.ndarray:
    return np.array(value, np.int64)


def test_an_exporter_s_shape_arithmetic_leaves_nothing_behind(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"]), node("Unsqueeze", ["n", "axes"], ["n1"]),
        node("Concat", ["n1", "rest"], ["target"], axis=0), node("Reshape", ["x", "target"], ["y"]),
    ]  # fmt: skip
    constants = {"zero": scalar(0), "axes": np.array([0]), "rest": np.array([-1])}
    module = agree(model(nodes, {"x": (2, 3, 4)}, constants=constants), [random(2, 3, 4)], tmp_path)
    assert op_names(module) == ["tensor.reshape"]
    assert not module.constants


def test_range_size_and_constant_of_shape_are_known(tmp_path: Path) -> None:
    nodes = [
        node("Size", ["x"], ["n"]), node("Range", ["zero", "n", "two"], ["r"]),
        node("Cast", ["r"], ["f"], to=TensorProto.FLOAT), node("Add", ["x", "f"], ["y"]),
    ]  # fmt: skip
    proto = model(nodes, {"x": (4, 1)}, constants={"zero": scalar(0), "two": scalar(2)})
    module = agree(proto, [random(4, 1)], tmp_path)
    np.testing.assert_array_equal(module.constants["f"].data, np.float32([0, 2]))


def test_a_huge_constant_of_shape_is_not_stored(tmp_path: Path) -> None:
    nodes = [node("ConstantOfShape", ["s"], ["z"]), node("Add", ["x", "z"], ["y"])]
    module = imported(model(nodes, {"x": (1, 1)}, constants={"s": np.array([1000, 1000])}), tmp_path)
    assert sum(c.data.size for c in module.constants.values()) == 1


def test_constants_of_every_attribute_kind(tmp_path: Path) -> None:
    nodes = [
        node("Constant", [], ["a"], value_float=2.0), node("Constant", [], ["b"], value_floats=[1.0, 2.0]),
        node("Constant", [], ["c"], value=numpy_helper.from_array(np.float32([3]))),
        node("Mul", ["x", "a"], ["m"]), node("Add", ["m", "b"], ["p"]), node("Sub", ["p", "c"], ["y"]),
    ]  # fmt: skip
    agree(model(nodes, {"x": (2,)}), [random(2)], tmp_path)


def test_products_of_constants_are_computed_at_import(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["a", "b"], ["w"]), node("Add", ["x", "w"], ["y"])]
    proto = model(nodes, {"x": (2, 2)}, constants={"a": random(2, 3), "b": random(3, 2)})
    assert op_names(agree(proto, [random(2, 2)], tmp_path)) == ["math.add"]


def test_functions_that_need_libm_are_not_folded(tmp_path: Path) -> None:
    nodes = [node("Asinh", ["a"], ["w"]), node("Add", ["x", "w"], ["y"])]
    proto = model(nodes, {"x": (2, 2)}, constants={"a": random(2, 2)})
    assert op_names(agree(proto, [random(2, 2)], tmp_path)) == ["math.asinh", "math.add"]


# -- names and locations -----------------------------------------------------------------------------------------------
def test_values_keep_tensor_names_and_ops_know_their_node(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], ["conv:0"], name="Conv_1"), node("Relu", ["conv:0"], ["out/y"])]
    module = imported(model(nodes, {"x": (1, 2, 3)}, ["out/y"], constants={"w": random(1, 2, 1)}), tmp_path)
    assert [op.name for op in module.main.body][:-1] == ["conv:0.reshape", "conv:0.conv2d", "conv:0", "out/y"]
    assert str(module.main.body.first.location) == "model.onnx: node 'Conv_1'"
    assert str(module.main.body.last.previous.location) == "model.onnx: node 'out/y'"
    assert module.main.output_names == ("out/y",)
    assert module.attributes["source"] == "model.onnx"
    assert list(module.constants) == ["w"]


def test_outputs_may_be_inputs_constants_and_doubles(tmp_path: Path) -> None:
    nodes = [node("Identity", ["x"], ["a"]), node("Identity", ["k"], ["b"]), node("Relu", ["x"], ["c"])]
    proto = model(nodes, {"x": (2,)}, ["a", "b", "c"], constants={"k": random(3)})
    assert agree(proto, [random(2)], tmp_path).main.output_names == ("a", "b", "c")


def test_the_same_model_imports_to_the_same_text(tmp_path: Path) -> None:
    proto = model(node("Conv", ["x", "w"], ["y"]), {"x": (1, 2, 3)}, constants={"w": random(1, 2, 1)})
    assert str(imported(proto, tmp_path)) == str(imported(proto, tmp_path))


# -- If and Loop -------------------------------------------------------------------------------------------------------
def branch(name: str, operator: str) -> onnx.GraphProto:
    out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
    return helper.make_graph([node(operator, ["x"], [f"{name}_out"])], name, [], [out])


def branching(*before: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [*before, node("If", ["c"], ["y"], then_branch=branch("then", "Relu"), else_branch=branch("else", "Neg"))]


@pytest.mark.parametrize(("condition", "operator"), [(True, "nn.relu"), (False, "math.neg")])
def test_a_known_condition_chooses_a_branch(condition: bool, operator: str, tmp_path: Path) -> None:
    proto = model(branching(), {"x": (2,)}, constants={"c": np.array(condition)})
    module = agree(proto, [random(2)], tmp_path)
    assert [(op.op_name, op.name) for op in module.main.body][:-1] == [(operator, "y")]


def test_a_condition_on_a_shape_is_known(tmp_path: Path) -> None:
    before = [node("Size", ["x"], ["n"]), node("Equal", ["n", "two"], ["c"])]
    proto = model(branching(*before), {"x": (2,)}, constants={"two": scalar(2)})
    assert op_names(agree(proto, [random(2)], tmp_path)) == ["nn.relu"]


def test_a_condition_can_be_bound(tmp_path: Path) -> None:
    proto = model(branching(), {"x": (2,), "c": ((), TensorProto.BOOL)})
    assert op_names(imported(proto, tmp_path)) == ["graph.if"]
    assert op_names(imported(proto, tmp_path, bindings={"c": True})) == ["nn.relu"]


def test_an_unsupported_node_inside_a_branch_is_reported(tmp_path: Path) -> None:
    then = branch("then", "RandomNormalLike")
    nodes = [node("If", ["c"], ["y"], then_branch=then, else_branch=branch("else", "Neg"))]
    with pytest.raises(CompilerError, match=r"E210.*RandomNormalLike"):
        imported(model(nodes, {"x": (2, 2)}, constants={"c": np.array(True)}), tmp_path)


def doubling_loop() -> onnx.NodeProto:
    """Adds the carried value to itself; collects it in every round."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["cond"], ["cond_out"]), node("Add", ["v", "v"], ["v_out"]),
         node("Neg", ["v_out"], ["scan"])],
        "body",
        [info("i", TensorProto.INT64, []), info("cond", TensorProto.BOOL, []), info("v", TensorProto.FLOAT, [2])],
        [info("cond_out", TensorProto.BOOL, []), info("v_out", TensorProto.FLOAT, [2]),
         info("scan", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    return node("Loop", ["n", "", "x"], ["y", "all"], body=body)


def test_a_loop_with_a_known_trip_count_is_unrolled(tmp_path: Path) -> None:
    proto = model(doubling_loop(), {"x": (2,)}, ["y", "all"], constants={"n": scalar(3)})
    module = agree(proto, [random(2)], tmp_path)
    assert op_names(module).count("math.add") == 3
    assert len({op.name for op in module.main.body}) == len(list(module.main.body))


def test_a_loop_of_unknown_length_stays_one(tmp_path: Path) -> None:
    proto = model(doubling_loop(), {"x": (2,), "n": ((), TensorProto.INT64)}, ["y", "all"])
    module = agree(proto, [random(2), scalar(3)], tmp_path)
    assert op_names(module) == ["graph.loop"]
    assert [v.type.shape for v in module.main.outputs] == [(2,), (None, 2)]
    agree(proto, [random(2), scalar(0)], tmp_path)


# -- what the data decide ----------------------------------------------------------------------------------------------
def test_a_branch_that_the_data_choose(tmp_path: Path) -> None:
    before = [node("ReduceSum", ["x"], ["s"], keepdims=0), node("Greater", ["s", "zero"], ["c"])]
    proto = model(branching(*before), {"x": (2,)}, constants={"zero": np.float32(0)}, opset=11)
    for x in (np.float32([1, 2]), np.float32([1, -2])):
        module = agree(proto, [x], tmp_path)
    assert op_names(module) == ["reduce.sum", "math.greater", "graph.if"]


def test_branches_of_different_shapes_have_an_open_one(tmp_path: Path) -> None:
    out = [helper.make_tensor_value_info(f"{k}_out", TensorProto.FLOAT, None) for k in "ab"]
    constants = [numpy_helper.from_array(np.array(v, np.int64), n) for n, v in (("s0", [0]), ("s1", [1]), ("s2", [2]))]
    cut = helper.make_graph([node("Slice", ["x", "s0", "s1"], ["a_out"])], "a", [], out[:1], constants)
    whole = helper.make_graph([node("Slice", ["x", "s0", "s2"], ["b_out"])], "b", [], out[1:], constants)
    proto = model([node("If", ["c"], ["y"], then_branch=cut, else_branch=whole)],
                  {"x": (3, 2), "c": ((), TensorProto.BOOL)})  # fmt: skip
    for c in (True, False):
        module = agree(proto, [random(3, 2), np.array(c)], tmp_path)
    assert module.main.outputs[0].type.shape == (None, 2)


def growing_loop() -> onnx.NodeProto:
    """Doubles a value until its sum is large enough, collecting it; and a vector that grows by one a round."""
    info = helper.make_tensor_value_info
    body = helper.make_graph([
        node("Add", ["v", "v"], ["w"]), node("ReduceSum", ["w"], ["s"], keepdims=0),
        node("Less", ["s", "limit"], ["go"]), node("Mul", ["w", "k"], ["o"]),
        node("Unsqueeze", ["s", "ax"], ["s1"]), node("Concat", ["g", "s1"], ["h"], axis=0),
    ], "body", [
        info("i", TensorProto.INT64, ()), info("c", TensorProto.BOOL, ()), info("v", TensorProto.FLOAT, (2,)),
        info("g", TensorProto.FLOAT, None),
    ], [
        info("go", TensorProto.BOOL, ()), info("w", TensorProto.FLOAT, (2,)), info("h", TensorProto.FLOAT, None),
        info("o", TensorProto.FLOAT, (2,)),
    ])  # fmt: skip
    return node("Loop", ["", "t", "x", "start"], ["y", "sums", "all"], body=body)


def test_a_loop_that_the_data_end(tmp_path: Path) -> None:
    constants = {"t": np.array(True), "limit": np.float32(20), "ax": np.array([0]), "start": np.zeros(1, np.float32)}
    proto = model(growing_loop(), {"x": (2,), "k": (2,)}, ["y", "sums", "all"], constants)
    for x in (np.float32([1, 2]), np.float32([30, 2])):
        module = agree(proto, [x, random(2)], tmp_path)
    assert [v.type.shape for v in module.main.outputs] == [(2,), (None,), (None, 2)]
    assert "graph.loop" in op_names(module)


def test_regions_print_and_parse(tmp_path: Path) -> None:
    constants = {"t": np.array(True), "limit": np.float32(20), "ax": np.array([0]), "start": np.zeros(1, np.float32)}
    module = imported(model(growing_loop(), {"x": (2,), "k": (2,)}, ["y", "sums", "all"], constants), tmp_path)
    verify(module)
    assert print_module(parse_module(print_module(module))) == print_module(module)


def test_a_choice_inside_a_choice(tmp_path: Path) -> None:
    inner = node("If", ["d"], ["m"], then_branch=branch("p", "Relu"), else_branch=branch("q", "Neg"))
    out = helper.make_tensor_value_info("m", TensorProto.FLOAT, None)
    outer = helper.make_graph([inner], "outer", [], [out])
    proto = model([node("If", ["c"], ["y"], then_branch=outer, else_branch=branch("r", "Abs"))],
                  {"x": (2,), "c": ((), TensorProto.BOOL), "d": ((), TensorProto.BOOL)})  # fmt: skip
    for c, d in ((True, True), (True, False), (False, True)):
        module = agree(proto, [random(2), np.array(c), np.array(d)], tmp_path)
    verify(module)
    assert op_names(module) == ["graph.if"]
    assert print_module(parse_module(print_module(module))) == print_module(module)


# -- functions ---------------------------------------------------------------------------------------------------------
def with_function(body: list[onnx.NodeProto], call: onnx.NodeProto) -> onnx.ModelProto:
    function = helper.make_function(
        "local", "Scaled", ["a", "b"], ["r"], body, [helper.make_opsetid("", 17)], ["slope"]
    )  # fmt: skip
    proto = model(call, {"x": (2,)}, functions=[function])
    proto.opset_import.append(helper.make_opsetid("local", 1))
    return proto


def test_a_function_of_the_model_is_inlined_with_its_attributes(tmp_path: Path) -> None:
    leaky = node("LeakyRelu", ["a"], ["t"])
    leaky.attribute.append(onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope"))
    proto = with_function([leaky, node("Add", ["t", "b"], ["r"])], node("Scaled", ["x", "x"], ["y"], slope=0.5,
                          domain="local", name="call"))  # fmt: skip
    module = agree(proto, [random(2)], tmp_path)
    leaky_op, add = list(module.main.body)[:2]
    assert leaky_op.alpha == 0.5
    assert (leaky_op.name, add.name) == ("call/t", "y")
    assert str(add.location) == "model.onnx: node 'call/r'"


def test_a_function_that_calls_itself_is_refused(tmp_path: Path) -> None:
    call = node("Scaled", ["a", "b"], ["r"], domain="local")
    proto = with_function([call], node("Scaled", ["x", "x"], ["y"], domain="local"))
    proto.functions[0].opset_import.append(helper.make_opsetid("local", 1))
    with pytest.raises(CompilerError, match="calls itself"):
        imported(proto, tmp_path)


def test_an_operator_that_onnx_defines_by_others_is_expanded_under_its_own_name(tmp_path: Path) -> None:
    proto = model(node("MeanVarianceNormalization", ["x"], ["y"], name="mvn"), {"x": (1, 2, 3, 3)})
    module = agree(proto, [random(1, 2, 3, 3)], tmp_path, tolerance=1e-4)
    assert {op.location.nodes for op in module.main.body if op.results} == {("mvn",)}
