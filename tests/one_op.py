"""Running a single op: through the evaluator, and through onnxruntime or onnx's reference as an independent judge."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Function, Module, Op
from compiler.ir.define import find_op
from compiler.ir.types import DType, QuantType, TensorType
from compiler.ops.graph import Return

Array = np.ndarray


def argument_type(array: Array, quant: QuantType | None = None) -> TensorType:
    return TensorType(array.shape, DType.of(array.dtype), quant)


def make_op(kind: str, *types: TensorType | None, **attributes: Any) -> Op:
    """The op on fresh arguments of the given types, in a module of its own."""
    function = Module().add_function(Function("main"))
    operands = [None if t is None else function.add_argument(t, f"x{i}") for i, t in enumerate(types)]
    op_class = find_op(kind)
    assert op_class is not None, kind
    op = function.body.append(op_class(*operands, **attributes))
    function.body.append(Return(*op.results))
    return op


def infer(kind: str, *types: TensorType | None, **attributes: Any) -> TensorType:
    """The type of the first result."""
    return make_op(kind, *types, **attributes).results[0].type


def run_all(
    kind: str, *arrays: Array | None, quants: tuple[QuantType | None, ...] = (), **attributes: Any
) -> list[Array]:
    """Every result of one op on arrays; the interpreter checks them against the declared types."""
    padded = [*quants, *[None] * len(arrays)]
    types = [None if a is None else argument_type(a, padded[i]) for i, a in enumerate(arrays)]
    op = make_op(kind, *types, **attributes)
    assert op.module is not None
    return Interpreter(op.module).run([a for a in arrays if a is not None])


def run(kind: str, *arrays: Array | None, quants: tuple[QuantType | None, ...] = (), **attributes: Any) -> Array:
    """The first result."""
    return run_all(kind, *arrays, quants=quants, **attributes)[0]


def _onnx_model(
    kind: str, arrays: tuple[Array | None, ...], outputs: int, opset: int, attributes: dict[str, Any]
) -> Any:
    from onnx import helper

    names = ["" if a is None else f"x{i}" for i, a in enumerate(arrays)]
    node = helper.make_node(kind, names, [f"y{i}" for i in range(outputs)], **attributes)
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in zip(names, arrays, strict=True)
        if a is not None
    ]
    results = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "one", inputs, results)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def _feeds(arrays: tuple[Array | None, ...]) -> dict[str, Array]:
    return {f"x{i}": a for i, a in enumerate(arrays) if a is not None}


def run_onnxruntime(
    kind: str, *arrays: Array | None, outputs: int = 1, opset: int = 17, **attributes: Any
) -> list[Array]:
    """The results of an ONNX operator in onnxruntime, without graph optimisation."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    model = _onnx_model(kind, arrays, outputs, opset, attributes).SerializeToString()
    return onnxruntime.InferenceSession(model, options).run(None, _feeds(arrays))


def run_onnx_reference(
    kind: str, *arrays: Array | None, outputs: int = 1, opset: int = 19, **attributes: Any
) -> list[Array]:
    """The results of an ONNX operator in onnx's own Python reference."""
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(_onnx_model(kind, arrays, outputs, opset, attributes)).run(None, _feeds(arrays))


def normal(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    """Reproducible normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_close(found: Array, expected: Array, tolerance: float = 1e-5) -> None:
    """Same shape and type; differences are at most `tolerance` of the largest magnitude expected (at least 1e-3)."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    finite = np.abs(expected[np.isfinite(expected)]).max(initial=1e-3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * finite)
