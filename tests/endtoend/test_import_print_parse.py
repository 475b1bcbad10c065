"""What the frontend makes prints, parses back to the same text, and passes the verifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler.frontend.load import load
from compiler.ir.constants import write_module
from compiler.ir.verifier import verify

from .core_models import CORE_MODELS, CoreModel


@pytest.mark.parametrize("model", CORE_MODELS, ids=lambda m: m.file.removesuffix(".onnx"))
def test_an_imported_model_is_valid_and_survives_text(model: CoreModel, models: Path, tmp_path: Path) -> None:
    module = load(models / model.file, model.shapes)
    verify(module)
    write_module(module, tmp_path / "model.mlu")
    again = load(tmp_path / "model.mlu")
    assert str(again) == str(module)
    assert again.attributes == module.attributes
    assert list(again.constants) == list(module.constants)
    for name, constant in again.constants.items():
        np.testing.assert_array_equal(constant.data, module.constants[name].data)
