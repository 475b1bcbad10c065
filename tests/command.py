"""What the tests of the command line share: small ONNX files made on the spot, and a way to run the command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiler.cli.main import main


@dataclass(frozen=True)
class Result:
    """What a run of the command did."""

    code: int
    out: str
    err: str


class Command:
    """`command("compile", path, "-o", other)` runs mluc in this process, captured."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: object) -> Result:
        self.capsys.readouterr()
        code = main([str(w) for w in words])
        captured = self.capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)


def write_model(
    path: Path, nodes: Sequence[onnx.NodeProto], weights: dict[str, np.ndarray], shape: Sequence[object]
) -> Path:
    """An ONNX file of one input `image` and one output `scores`."""
    graph = helper.make_graph(
        list(nodes), "small", [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def convolution(path: Path, shape: Sequence[object] = (1, 3, 8, 8)) -> Path:
    """Convolution with batch-norm and relu, global average, fully connected: 8 channels, 4 scores."""
    random = np.random.default_rng(1)
    weights = {
        "w": random.normal(size=(8, 3, 3, 3), scale=0.2), "scale": random.uniform(0.5, 1.5, 8), "shift": np.zeros(8),
        "mean": random.normal(size=8, scale=0.1), "variance": random.uniform(0.5, 1.5, 8),
        "fc": random.normal(size=(8, 4)),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["n"], name="norm"),
        helper.make_node("Relu", ["n"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "fc"], ["scores"], name="fc"),
    ]
    return write_model(path, nodes, {k: v.astype(np.float32) for k, v in weights.items()}, shape)


def images(path: Path, count: int = 6, shape: Sequence[int] = (3, 8, 8)) -> Path:
    """A `.npz` file of random images under the name of the model's input."""
    np.savez(path, image=np.random.default_rng(2).normal(size=(count, *shape)).astype(np.float32))
    return path


def clipped(path: Path, high: float) -> Path:
    """A clip from 0 to `high` of four numbers."""
    nodes = [helper.make_node("Clip", ["image", "low", "high"], ["scores"], name="relu6")]
    return write_model(path, nodes, {"low": np.float32(0.0), "high": np.float32(high)}, (1, 4))
