"""A person edits an instruction: `disasm`, a text change, `asm`. Oracle and simulator follow alike, the result
changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compiler import driver
from compiler.errors import CompilerError
from compiler.frontend.load import load
from compiler.ir.core import Module
from runtime.session import Session
from targets.mlu220.assembler import Listing, assemble, disassemble
from targets.mlu220.container import OfflineModel
from tests.journeys import Arrays, assert_same_bytes, journey, random_inputs, run_oracle, run_simulator
from tests.networks import Network

Edit = Callable[[str], str]


def network() -> Module:
    net = Network((1, 4, 9, 7))
    pooled = net.op("nn.max_pool2d", net.relu(net.conv(net.x, 8, "a", kernel=3), "r"), name="p", kernel=(2, 2))
    return net.done(net.op("nn.leaky_relu", net.conv(pooled, 6, "b"), name="y", alpha=0.1))


@pytest.fixture(scope="module")
def compiled() -> tuple[OfflineModel, Arrays]:
    made = journey(network())
    return made.model, random_inputs(made.prepared, 3)


def every(pattern: str, replacement: str) -> Edit:
    return lambda text: re.sub(pattern, replacement, text)


def doubled(text: str) -> str:
    """The first constant factor of the file, twice as large."""
    return re.sub(r"constant=([0-9.e-]+)", lambda m: f"constant={float(m[1]) * 2!r}", text, count=1)


EDITS: dict[str, Edit] = {
    "relu becomes abs": every("function=RELU", "function=ABS"),
    "another slope": every(r"function=LEAKY_RELU parameter=\S+", "function=LEAKY_RELU parameter=0.5"),
    "a maximum becomes a mean": every("function=MAX", "function=MEAN"),
    "a constant": doubled,
    "a position": every(r"fix_position=-(\d+)", r"fix_position=-1\1"),
    "rounding": every('rounding "nearest-even"', 'rounding "half-away"'),
}


def edited(model: OfflineModel, edit: Edit) -> OfflineModel:
    listing = disassemble(model)
    text = edit(listing.text)
    assert text != listing.text
    return assemble(text, listing.blobs)


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_listing_changes_oracle_and_simulator_alike(name: str, compiled: tuple[OfflineModel, Arrays]) -> None:
    model, inputs = compiled
    changed = edited(model, EDITS[name])
    found = run_oracle(changed, inputs)
    for translate in (None, False):
        assert_same_bytes(run_simulator(changed, inputs, 2, translate), found, f"{name}, translate={translate}")
    differs = any(not np.array_equal(a, b) for a, b in zip(found, run_oracle(model, inputs), strict=True))
    assert differs or name == "rounding"


def test_an_unedited_listing_is_the_same_file(compiled: tuple[OfflineModel, Arrays]) -> None:
    model, _ = compiled
    listing = disassemble(model)
    assert assemble(listing.text, listing.blobs).to_bytes() == model.to_bytes()


def test_an_edit_that_breaks_the_program_is_refused(compiled: tuple[OfflineModel, Arrays]) -> None:
    """Without its first wait the program races, and neither engine runs it."""
    model, _ = compiled
    broken = edited(model, lambda text: re.sub(r"\n\s*wait queue=VECTOR[^\n]*", "", text, count=1))
    for engine in ("oracle", "simulator"):
        with pytest.raises(CompilerError, match="E71"):
            Session(broken, engine=engine)


def test_a_real_model_edited_in_files(models: Path, data: Path, tmp_path: Path) -> None:
    """mnist_8: its relus as absolute values, through the files the command line writes."""
    from tests.endtoend.core_models import CORE_MODELS

    (mnist,) = (m for m in CORE_MODELS if m.file == "mnist_8.onnx")
    module = driver.prepare(load(models / mnist.file), crash_directory=None)
    inputs = mnist.inputs(data)
    scheme = driver.calibrate(module, [inputs], "minmax")
    model = driver.compile_model(module, scheme=scheme, crash_directory=None)
    disassemble(model).save(tmp_path / "m.asm")
    listing = Listing.load(tmp_path / "m.asm")
    changed = assemble(EDITS["relu becomes abs"](listing.text), listing.blobs)
    changed.save(tmp_path / "m.cambricon")
    again = OfflineModel.load(tmp_path / "m.cambricon")
    found = run_oracle(again, inputs)
    assert_same_bytes(run_simulator(again, inputs, 2), found, "edited mnist_8")
    assert not np.array_equal(found[0], run_oracle(model, inputs)[0])
