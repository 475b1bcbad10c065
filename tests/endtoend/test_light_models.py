"""The topologies that onnx ships, with random weights: imported they give what onnxruntime gives; compiled, the chip
gives to the bit what the legalised module does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.load import load
from compiler.ir.core import Module
from tests.journeys import Arrays, assert_same_bytes, journey, random_inputs, run_simulator
from tests.light_models import LIGHT_MODELS, save_light_model

QUICK = ("squeezenet", "shufflenet")
ALL = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in LIGHT_MODELS]


def imported(name: str, folder: Path) -> tuple[Module, Arrays, Path]:
    path = save_light_model(name, folder)
    module = load(path)
    return module, random_inputs(module), path


@pytest.mark.parametrize("name", ALL)
def test_a_topology_gives_what_onnxruntime_gives(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    module, inputs, path = imported(name, tmp_path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    theirs = session.run(None, {i.name: a for i, a in zip(session.get_inputs(), inputs, strict=True)})
    path.unlink()
    for found, wanted in zip(Interpreter(module).run(inputs), theirs, strict=True):
        assert np.abs(found - wanted).max() <= 1e-4 * np.ptp(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT_MODELS)
def test_a_topology_runs_on_the_chip_alone_and_gives_what_its_legalised_module_gives(name: str, tmp_path: Path) -> None:
    module, inputs, path = imported(name, tmp_path)
    path.unlink()
    made = journey(module, [inputs])
    del module
    assert [f.name for f in made.model.functions] == ["subnet0"]
    wanted = Interpreter(made.legal).run(inputs)
    assert_same_bytes(run_simulator(made.model, inputs), wanted, "simulator")
