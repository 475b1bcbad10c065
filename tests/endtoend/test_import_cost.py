"""Importing large models takes time and memory in proportion to their size."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.growth import LINEAR
from tests.importing import cost

MB = 1 << 20


def large(folder: Path, megabytes: int, external: bool = False) -> Path:
    """A chain of products with weights of 8 MB."""
    random, x, nodes, tensors = np.random.default_rng(0), "x", [], []
    for i in range(megabytes // 8):
        shape = (1024, 2048) if i % 2 == 0 else (2048, 1024)
        tensors.append(numpy_helper.from_array(random.random(shape, dtype=np.float32), f"w{i}"))
        nodes += [helper.make_node("MatMul", [x, f"w{i}"], [f"m{i}"]), helper.make_node("Relu", [f"m{i}"], [f"r{i}"])]
        x = f"r{i}"
    graph = helper.make_graph(
        nodes, "large", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 1024))],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, None)], tensors,
    )  # fmt: skip
    path = folder / f"{megabytes}{'e' if external else ''}.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, str(path), save_as_external_data=external, location=f"{megabytes}.bin")
    return path


@pytest.mark.slow
def test_memory_is_that_of_the_weights_and_time_grows_with_them(tmp_path: Path) -> None:
    costs = {size: [cost(path) for _ in range(3)] for size in (80, 320) for path in [large(tmp_path, size)]}
    for size, found in costs.items():
        assert all(each.grown < 1.2 * size * MB for each in found)
    assert all(each.peak < 2.2 * 320 * MB for each in costs[320])
    seconds = {size: min(each.cpu_seconds for each in found) for size, found in costs.items()}
    assert math.log(seconds[320] / seconds[80]) / math.log(320 / 80) < LINEAR


@pytest.mark.slow
def test_weights_kept_outside_are_held_once(tmp_path: Path) -> None:
    found = cost(large(tmp_path, 304, external=True))
    assert found.peak < 1.2 * 304 * MB


def test_a_model_of_32_mb_is_held_once(tmp_path: Path) -> None:
    assert cost(large(tmp_path, 32)).grown < 1.6 * 32 * MB
