"""How fast the evaluator is: as a ratio to onnxruntime on one thread, both timed in turn so that noise hits both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Function, Module, Value
from compiler.ir.types import DType, TensorType
from compiler.ops.graph import Return
from compiler.ops.math import Neg

ROUNDS = 15


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratio(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float, float]:
    """(median ratio of neighbouring runs, our best, their best) in seconds."""
    for run in (ours, theirs):
        run()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(ROUNDS)]
    return statistics.median(a / b for a, b in pairs), min(a for a, _ in pairs), min(b for _, b in pairs)


NETWORKS = {
    "mobilenet_v2_imagenet": ("input", (1, 3, 224, 224)),
    "resnet20_cifar10": ("input", (1, 3, 32, 32)),
    "squeezenet_imagenet": ("data_0", (1, 3, 224, 224)),
    "espcn_x3_super_resolution": ("input", (1, 1, 224, 224)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_float_network_takes_a_small_multiple_of_onnxruntime(name: str, models: Path, benchmark) -> None:  # type: ignore[no-untyped-def]
    import onnxruntime

    from compiler.frontend.onnx.importer import import_model

    key, shape = NETWORKS[name]
    path = models / f"{name}.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    interpreter = Interpreter(import_model(path, {key: shape}, {}))
    x = {key: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    found, ours, theirs = ratio(lambda: interpreter.run(x), lambda: session.run(None, x))
    benchmark.extra_info.update(ratio=found, evaluator_ms=ours * 1e3, onnxruntime_ms=theirs * 1e3)
    benchmark.pedantic(interpreter.run, args=(x,), rounds=3)
    assert ours < 6 * theirs, f"{ours / theirs:.1f} times onnxruntime"


def test_a_step_costs_microseconds_beyond_its_evaluator(benchmark) -> None:  # type: ignore[no-untyped-def]
    module = Module()
    main = module.add_function(Function("main"))
    x: Value = main.add_argument(TensorType((4,), DType.F32), "x")
    for _ in range(1000):
        x = main.body.append(Neg(x)).result
    main.body.append(Return(x))
    interpreter = Interpreter(module)
    array = np.zeros(4, np.float32)
    benchmark.pedantic(interpreter.run, args=([array],), rounds=5)
    best = min(seconds(lambda: interpreter.run([array])) for _ in range(5))
    benchmark.extra_info["microseconds_per_step"] = best * 1e3
    assert best < 20e-3
