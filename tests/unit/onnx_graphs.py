"""Small ONNX models for the frontend's tests, and the comparison of our evaluator with onnxruntime on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.load import load
from compiler.ir.core import Module

Shape = Sequence[int | str]
node = helper.make_node


def model(
    nodes: Sequence[onnx.NodeProto] | onnx.NodeProto, inputs: Mapping[str, Any], outputs: Sequence[str] = ("y",),
    constants: Mapping[str, np.ndarray] | None = None, opset: int = 17, **fields: Any,
) -> onnx.ModelProto:  # fmt: skip
    """A model. `inputs` maps names to shapes (f32) or to (shape, ONNX element type); outputs carry no shape."""
    listed = [nodes] if isinstance(nodes, onnx.NodeProto) else list(nodes)
    infos = [_info(name, spec) for name, spec in inputs.items()]
    results = [onnx.ValueInfoProto(name=name) if isinstance(name, str) else _info(*name) for name in outputs]
    tensors = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(listed, "test", infos, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **fields)


def _info(name: str, spec: Any) -> onnx.ValueInfoProto:
    if isinstance(spec, tuple) and len(spec) == 2 and isinstance(spec[0], tuple | list):
        return helper.make_tensor_value_info(name, spec[1], spec[0])
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, spec)


def write(proto: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def imported(proto: onnx.ModelProto, folder: Path, **options: Any) -> Module:
    return load(write(proto, folder), **options)


def op_names(module: Module) -> list[str]:
    """Names of main's ops without the return."""
    return [op.op_name for op in module.main.body][:-1]


def random(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def agree(
    proto: onnx.ModelProto, arrays: Sequence[np.ndarray], folder: Path, tolerance: float = 1e-5, **options: Any
) -> Module:
    """Import a model, evaluate it and compare with onnxruntime; gives the module."""
    import onnxruntime

    shapes = {i.name: a.shape for i, a in zip(proto.graph.input, arrays, strict=False)}
    module = imported(proto, folder, **{"shapes": shapes, **options})
    found = Interpreter(module).run(list(arrays))
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    feeds = {i.name: a for i, a in zip(session.get_inputs(), arrays, strict=False)}
    expected = session.run(None, feeds)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    return module
