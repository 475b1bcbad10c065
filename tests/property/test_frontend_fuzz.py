"""A damaged model is imported or refused with a diagnostic, whatever bytes it consists of, in bounded time and memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compiler.errors import CompilerError
from compiler.frontend.load import load


@cache
def sample() -> bytes:
    """A small model with weights, shape arithmetic, a branch and several families of operators."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((4, 2, 3, 3)).astype(np.float32), "shape": np.array([0, -1]),
        "v": rng.standard_normal((4 * 25, 5)).astype(np.float32), "c": np.array(True), "pads": np.array([0, 1, 0, 2]),
        "starts": np.array([1]), "ends": np.array([7]), "axes": np.array([1]),
    }  # fmt: skip
    out = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Relu", ["m"], ["t"])], "branch", [], [out])
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], strides=[2, 2], auto_pad="SAME_UPPER"),
        helper.make_node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2], ceil_mode=1),
        helper.make_node("Reshape", ["p", "shape"], ["r"]), helper.make_node("MatMul", ["r", "v"], ["m"]),
        helper.make_node("If", ["c"], ["b"], then_branch=branch, else_branch=branch),
        helper.make_node("Pad", ["b", "pads"], ["q"]),
        helper.make_node("Slice", ["q", "starts", "ends", "axes"], ["s"]),
        helper.make_node("Softmax", ["s"], ["y"], axis=-1),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 2, 11, 11))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()


def attempt(content: bytes) -> None:
    """Import bytes as a model; any exception but CompilerError is a failure."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        try:
            load(path)
        except CompilerError as fault:
            assert fault.diagnostics
            assert str(fault)


def test_the_undamaged_model_is_imported() -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(sample())
        assert load(path).main.arguments[0].type.shape == (1, 2, 11, 11)


POSITIONS = st.integers(0, len(sample()) - 1)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(POSITIONS, st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes(changes: list[tuple[int, int]]) -> None:
    content = bytearray(sample())
    for position, byte in changes:
        content[position] = byte
    attempt(bytes(content))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(POSITIONS, st.integers(1, 40))
def test_removed_bytes(position: int, count: int) -> None:
    attempt(sample()[:position] + sample()[position + count :])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_arbitrary_bytes(content: bytes) -> None:
    attempt(content)


def broken_rules(first: int, last: int) -> list[dict]:
    """What imports of damaged models did that they must not, in a process whose memory is limited."""
    script = Path(__file__).with_name("import_mutated.py")
    found = subprocess.run(
        [sys.executable, str(script), str(first), str(last)], capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    assert lines and lines[-1] == {"done": last - first}, f"the process ended early: {found.stderr[-2000:]}"
    return lines[:-1]


def test_damaged_models_of_every_operator() -> None:
    assert broken_rules(0, 500) == []


@pytest.mark.slow
def test_ten_thousand_damaged_models_of_every_operator() -> None:
    assert broken_rules(500, 10_500) == []
