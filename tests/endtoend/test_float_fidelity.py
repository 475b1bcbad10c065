"""An imported model computes what onnxruntime computes, on every model of the core set and a real input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.load import load

from .core_models import CORE_MODELS, CoreModel

TOLERANCE = 1e-4
"""Largest difference, as a part of the output's range."""


@pytest.mark.parametrize("model", CORE_MODELS, ids=lambda m: m.file.removesuffix(".onnx"))
def test_the_imported_model_agrees_with_onnxruntime(model: CoreModel, models: Path, data: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    inputs = model.inputs(data)
    module = load(models / model.file, model.shapes)
    found = Interpreter(module).run(inputs)

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(models / model.file), options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    expected = session.run(list(module.main.output_names), dict(zip(names, inputs, strict=True)))

    for name, ours, theirs in zip(module.main.output_names, found, expected, strict=True):
        assert ours.shape == theirs.shape
        error = np.abs(ours - theirs).max() / max(np.ptp(theirs), np.abs(theirs).max())
        assert error <= TOLERANCE, f"{name}: error is {error:.2g} of the output's range"
