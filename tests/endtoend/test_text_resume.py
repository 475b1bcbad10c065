"""Compilation can stop as text after any pass: every dump prints, parses and verifies, and the passes that remain make
the same offline model of it, byte for byte. Over every model of the core set, host segments included.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler import driver
from compiler.frontend.load import load
from compiler.instruments import DumpIR
from compiler.ir.constants import read_module
from compiler.ir.core import Module
from compiler.ir.printer import print_module
from compiler.ir.verifier import LEVELS, verify
from compiler.pass_manager import parse_pipeline, print_pipeline
from passes.quantization.scheme import Scheme
from tests.endtoend.core_models import CORE_MODELS, CoreModel
from tests.journeys import random_inputs
from tests.random_networks import random_network

PASSES = parse_pipeline(driver.pipeline_text())
QUICK = ("mnist_8", "resnet20", "silero", "espcn")
LEVEL_NAMES = {level.name for level in LEVELS}


def compile_with_dumps(module: Module, scheme: Scheme, folder: Path) -> bytes:
    """The file, with the module before the first and after every pass in `folder`."""
    dump = DumpIR("after", directory=folder)
    dump.pipeline_begins = lambda module, passes: dump._write("00-input", print_module(module), module)  # type: ignore
    return driver.compile_model(module, scheme=scheme, instruments=[dump], crash_directory=None).to_bytes()


def assert_every_dump_resumes(module: Module, scheme: Scheme, folder: Path) -> None:
    wanted = compile_with_dumps(module, scheme, folder)
    dumps = sorted(folder.glob("*.mlu"))
    assert len(dumps) == len(PASSES) + 1
    for done, path in enumerate(dumps):
        resumed = read_module(path)
        last = PASSES[done - 1].name if done else ""
        verify(resumed, level=last if last in LEVEL_NAMES else None)
        assert print_module(resumed) == path.read_text(), f"{path.name} does not print as it was read"
        remaining = print_pipeline(PASSES[done:])
        given = scheme if not done else None
        found = driver.compile_model(resumed, scheme=given, pipeline=remaining, crash_directory=None)
        assert found.to_bytes() == wanted, f"resumed from {path.name}, the file differs"


@pytest.mark.parametrize(
    "model",
    [pytest.param(m, marks=[] if m.file.startswith(QUICK) else pytest.mark.slow) for m in CORE_MODELS],
    ids=lambda m: m.file.removesuffix(".onnx"),
)
def test_every_stage_of_a_model_resumes_from_text(model: CoreModel, models: Path, data: Path, tmp_path: Path) -> None:
    module = driver.prepare(load(models / model.file, model.shapes), crash_directory=None)
    scheme = driver.calibrate(module, [model.inputs(data)], "minmax")
    assert_every_dump_resumes(module, scheme, tmp_path)


@pytest.mark.parametrize("seed", [1, 3, 4, 8])
def test_every_stage_of_a_random_network_resumes_from_text(seed: int, tmp_path: Path) -> None:
    module = driver.prepare(random_network(seed, 10), crash_directory=None)
    scheme = driver.calibrate(module, [random_inputs(module, 7)], "minmax")
    assert_every_dump_resumes(module, scheme, tmp_path)


def test_the_saved_scheme_and_the_saved_module_give_the_same_file(tmp_path: Path) -> None:
    """What a user keeps is text: the prepared module and the scheme."""
    from compiler.ir.constants import write_module

    module = driver.prepare(random_network(4, 10), crash_directory=None)
    scheme = driver.calibrate(module, [random_inputs(module, 7)], "mse")
    scheme.save(tmp_path / "q.toml")
    write_module(module, tmp_path / "m.mlu")
    again = driver.compile_model(read_module(tmp_path / "m.mlu"), scheme=tmp_path / "q.toml", crash_directory=None)
    assert again.to_bytes() == driver.compile_model(module, scheme=scheme, crash_directory=None).to_bytes()
