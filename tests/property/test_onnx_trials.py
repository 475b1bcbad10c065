"""Any legal node of an ONNX operator means what onnxruntime computes: random ones of every operator, against it.

`tests/property/trials` throws the nodes. What onnxruntime refuses is nobody's trial; what it takes must be imported.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.load import load
from tests.property.trials.dice import TRIALS, Trial, load_trials, thrown
from tests.property.trials.on_integers import OPERATORS, thrown_on_integers

load_trials()
Throw = tuple[onnx.ModelProto, list[np.ndarray], Trial]


def expected(model: onnx.ModelProto, arrays: list[np.ndarray]) -> list[np.ndarray] | None:
    """What onnxruntime gives without optimising the node away; None where it refuses it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        return session.run(None, {i.name: a for i, a in zip(session.get_inputs(), arrays, strict=True)})
    except Exception:  # onnxruntime's faults share no class below this one
        return None


def compare(found: np.ndarray, wanted: np.ndarray, made: Trial) -> None:
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    if made.steps and found.dtype.kind in "iu":
        np.testing.assert_allclose(found.astype(np.int64), wanted.astype(np.int64), rtol=0, atol=made.steps)
    else:
        np.testing.assert_allclose(found, wanted, rtol=made.tolerance, atol=made.tolerance)


def agreed(throw: Callable[[str, int], Throw], operator: str, seeds: range, folder: Path) -> int:
    """How many of an operator's trials onnxruntime took, all of which came out alike."""
    taken = 0
    path = folder / "model.onnx"
    for seed in seeds:
        model, arrays, made = throw(operator, seed)
        wanted = expected(model, arrays)
        if wanted is None:
            continue
        path.write_bytes(model.SerializeToString())
        try:
            with np.errstate(all="ignore"):
                found = Interpreter(load(path)).run(arrays)
            for ours, theirs in zip(found, wanted, strict=True):
                compare(ours, theirs, made)
        except Exception as fault:
            fault.add_note(f"trial {seed} of {operator}: {'; '.join(map(onnx.printer.to_text, model.graph.node))}")
            raise
        taken += 1
    return taken


@pytest.mark.parametrize("operator", TRIALS)
def test_random_nodes_mean_what_onnxruntime_computes(operator: str, tmp_path: Path) -> None:
    assert agreed(thrown, operator, range(12), tmp_path) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("operator", TRIALS)
def test_many_random_nodes_mean_what_onnxruntime_computes(operator: str, tmp_path: Path) -> None:
    assert agreed(thrown, operator, range(12, 200), tmp_path) >= 40


@pytest.mark.parametrize("operator", OPERATORS)
def test_random_nodes_on_quantised_tensors_compute_on_the_integers(operator: str, tmp_path: Path) -> None:
    assert agreed(thrown_on_integers, operator, range(10), tmp_path) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("operator", OPERATORS)
def test_many_random_nodes_on_quantised_tensors_compute_on_the_integers(operator: str, tmp_path: Path) -> None:
    assert agreed(thrown_on_integers, operator, range(10, 100), tmp_path) >= 10
