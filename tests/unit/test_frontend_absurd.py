"""Models nobody means: sizes beyond any memory, graphs without end, functions in functions. They are imported without
making anything large, or refused with a report; never more.
"""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compiler.errors import CompilerError
from compiler.frontend.load import load
from compiler.frontend.onnx import importer

from .onnx_graphs import model, node, op_names, random, write

HUGE = 2**40
LARGE = 2**27
"""Bytes that no import of these models may take at once."""
X = (2, 3)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def outcome(proto: onnx.ModelProto, folder: Path) -> str:
    """The report, or "" where the model was imported; either without large arrays."""
    path = write(proto, folder)
    tracemalloc.start()
    try:
        load(path)
        return ""
    except CompilerError as fault:
        assert fault.diagnostics
        return str(fault)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < LARGE


# -- sizes -------------------------------------------------------------------------------------------------------------
SIZES = {
    "ConstantOfShape": (["s"], {"s": ints(HUGE)}, {}), "Expand": (["x", "s"], {"s": ints(HUGE, 2, 3)}, {}),
    "Range": (["a", "b", "c"], {"a": np.array(0), "b": np.array(HUGE), "c": np.array(1)}, {}),
    "Tile": (["x", "s"], {"s": ints(HUGE, HUGE)}, {}), "Pad": (["x", "s"], {"s": ints(0, 0, HUGE, HUGE)}, {}),
    "OneHot": (["i", "d", "v"], {"i": ints(1, 2), "d": np.array(HUGE), "v": random(2)}, {}),
    "TopK": (["x", "s"], {"s": ints(HUGE)}, {}), "Split": (["x"], {}, {"num_outputs": HUGE, "axis": 0}),
    "Gather": (["x", "s"], {"s": ints(HUGE)}, {}), "Trilu": (["x", "k"], {"k": np.array(-HUGE)}, {}),
    "CenterCropPad": (["x", "s"], {"s": ints(HUGE, HUGE)}, {}),
    "BlackmanWindow": (["d"], {"d": np.array(HUGE)}, {}),
    "MelWeightMatrix": (["d", "d", "d", "f", "f"], {"d": np.array(HUGE), "f": np.float32(8)}, {}),
}  # fmt: skip


@pytest.mark.parametrize("operator", SIZES)
def test_sizes_beyond_any_memory(operator: str, tmp_path: Path) -> None:
    inputs, constants, attributes = SIZES[operator]
    outputs = ["y", "z"] if operator == "TopK" else ["y"]
    proto = model(node(operator, inputs, outputs, **attributes), {"x": X}, ["y"], constants=constants, opset=18)
    outcome(proto, tmp_path)


def test_what_is_known_and_huge_is_no_constant(tmp_path: Path) -> None:
    proto = model([
        node("ConstantOfShape", ["s"], ["a"]), node("Expand", ["a", "t"], ["b"]), node("Tile", ["b", "r"], ["c"]),
        node("ReduceSum", ["c"], ["d"], keepdims=0), node("Add", ["x", "d"], ["y"]),
    ], {"x": X}, constants={"s": ints(HUGE), "t": ints(4, HUGE), "r": ints(8, 8)})  # fmt: skip
    outcome(proto, tmp_path)


@pytest.mark.parametrize("operator", ["EyeLike", "Dropout", "NonZero", "MaxPool", "Unique", "Resize"])
def test_inputs_beyond_any_memory(operator: str, tmp_path: Path) -> None:
    attributes = {"MaxPool": {"kernel_shape": [3, 3]}}.get(operator, {})
    inputs = ["x", "", "s"] if operator == "Resize" else ["x"]
    outputs = {"Dropout": ["y", "m"], "MaxPool": ["y", "i"]}.get(operator, ["y"])
    shape = (2**20, 2**20) if operator == "EyeLike" else (1, 1, 2**20, 2**20)
    proto = model(node(operator, inputs, outputs, **attributes), {"x": shape}, outputs,
                  constants={"s": np.array([1, 1, 2**20, 2**20], np.float32)})  # fmt: skip
    outcome(proto, tmp_path)


def test_a_declared_weight_without_data_takes_no_memory(tmp_path: Path) -> None:
    proto = model(node("Add", ["x", "w"], ["y"]), {"x": X}, constants={"w": random(1)})
    proto.graph.initializer[0].dims[:] = [HUGE, HUGE]
    assert "E216" in outcome(proto, tmp_path)


# -- loops and functions without end -----------------------------------------------------------------------------------
def loop(rounds: int, inner: list[onnx.NodeProto], depth: int = 0) -> onnx.NodeProto:
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        inner, f"body{depth}", [info(f"i{depth}", TensorProto.INT64, ()), info(f"c{depth}", TensorProto.BOOL, ()),
        info(f"v{depth}", TensorProto.FLOAT, X)], [info(f"c{depth}", TensorProto.BOOL, ()),
        info(f"w{depth}", TensorProto.FLOAT, X)],
    )  # fmt: skip
    return node("Loop", ["n", "t", f"v{depth - 1}" if depth else "x"], [f"w{depth - 1}" if depth else "y"], body=body)


def test_a_loop_of_many_rounds_stays_one(tmp_path: Path) -> None:
    proto = model(loop(0, [node("Relu", ["v0"], ["w0"])]), {"x": X},
                  constants={"n": np.array(HUGE), "t": np.array(True)})  # fmt: skip
    assert op_names(load(write(proto, tmp_path))) == ["graph.loop"]


@pytest.fixture
def few_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is as large as unrolled networks are, which takes a while to reach."""
    monkeypatch.setattr(importer, "MOST_NODES", 2000)


def test_loops_in_loops(tmp_path: Path, few_nodes: None) -> None:
    nested = node("Relu", ["v7"], ["w7"])
    for depth in range(7, 0, -1):
        nested = loop(0, [nested], depth)
    proto = model(loop(0, [nested]), {"x": X}, constants={"n": np.array(1000), "t": np.array(True)})
    assert "E217" in outcome(proto, tmp_path)


def functions(*bodies: list[onnx.NodeProto]) -> onnx.ModelProto:
    """F0 is called by the model; the others are there to be called."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    made = [helper.make_function("mine", f"F{i}", ["a"], ["b"], body, opsets) for i, body in enumerate(bodies)]
    proto = model(node("F0", ["x"], ["y"], domain="mine"), {"x": X}, functions=made)
    proto.opset_import.append(opsets[1])
    return proto


def call(name: str, x: str, y: str) -> onnx.NodeProto:
    return node(name, [x], [y], domain="mine")


def test_functions_in_functions(tmp_path: Path) -> None:
    proto = functions(
        [call("F1", "a", "c"), call("F1", "c", "b")], [call("F2", "a", "c"), node("Neg", ["c"], ["b"])],
        [node("Relu", ["a"], ["b"])],
    )  # fmt: skip
    assert op_names(load(write(proto, tmp_path))) == ["nn.relu", "math.neg", "nn.relu", "math.neg"]


def test_a_function_that_calls_itself(tmp_path: Path) -> None:
    assert "calls itself" in outcome(functions([call("F0", "a", "b")]), tmp_path)


def test_functions_that_call_each_other(tmp_path: Path) -> None:
    assert "calls itself" in outcome(functions([call("F1", "a", "b")], [call("F0", "a", "b")]), tmp_path)


def test_functions_that_double_at_every_level(tmp_path: Path, few_nodes: None) -> None:
    levels = [[call(f"F{i + 1}", "a", "c"), call(f"F{i + 1}", "c", "b")] for i in range(40)]
    assert "E217" in outcome(functions(*levels, [node("Relu", ["a"], ["b"])]), tmp_path)


# -- everything at once ------------------------------------------------------------------------------------------------
def test_all_faults_are_told_together_with_names_and_remedies(tmp_path: Path) -> None:
    proto = model([
        node("RandomNormalLike", ["x"], ["a"], name="noise"), node("Reshape", ["x", "s"], ["b"], name="shape"),
        node("Conv", ["x", "w"], ["c"], name="conv"), node("Relluu", ["x"], ["d"], name="typo"),
        node("Concat", ["x", "q"], ["e"], name="join", axis=5), node("Sum", [*"abcde"], ["y"], name="sum"),
    ], {"x": X, "q": (X, TensorProto.BOOL)}, constants={"s": ints(7), "w": random(1, 1, 1, 1)})  # fmt: skip
    text = outcome(proto, tmp_path)
    for name in ("noise", "shape", "conv", "typo", "join"):
        assert f"node {name!r}" in text
    assert "did you mean" in text and text.count("help:") >= 4
