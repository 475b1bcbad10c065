"""Archives written by torch and kept here, read where torch is not installed, against the answers torch gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler.driver import calibrate, compile_model, prepare
from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.lint import lint
from compiler.frontend.load import load
from runtime.session import Session

FOLDER = Path(__file__).parents[1] / "data" / "torchscript"
SHAPES = {"scripted.jit": {"x": (2, 4)}, "attention.pt": {"x": (2, 5, 8)}, "lstm.pt": {"x": (3, 2, 5)},
          "quantised.ptl": {"input": (1, 3, 8, 8)}, "dynamic.ptl": {"input": (2, 6)}}  # fmt: skip
TOLERANCE = {"quantised.ptl": 0.02, "dynamic.ptl": 0.05}
FILES = sorted(p.name for p in FOLDER.iterdir() if p.suffix != ".npz")


def arrays(name: str, kind: str) -> list[np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as kept:
        return [kept[k] for k in kept if k.startswith(kind)]


@pytest.mark.parametrize("name", FILES)
def test_an_archive_gives_what_torch_gave(name: str) -> None:
    module = load(FOLDER / name, SHAPES.get(name))
    found = Interpreter(module).run(arrays(name, "input"))
    for got, wanted in zip(found, arrays(name, "output"), strict=True):
        np.testing.assert_allclose(got, wanted, atol=TOLERANCE.get(name, 1e-5), rtol=1e-5)


@pytest.mark.parametrize("name", FILES)
def test_lint_names_every_operator_of_an_archive(name: str) -> None:
    report = lint(FOLDER / name, shapes=SHAPES.get(name))
    assert report.ok and report.nodes and all("::" in node.operator for node in report.nodes)
    assert len({node.name for node in report.nodes}) == len(report.nodes)


@pytest.mark.parametrize("name", ["convnet.pt", "attention.pt", "lstm.pt", "dynamic.ptl", "quantised.ptl"])
def test_an_archive_compiles_for_the_chip(name: str) -> None:
    module = prepare(load(FOLDER / name, SHAPES.get(name)))
    random = np.random.default_rng(0)
    batches = [[random.normal(size=x.shape).astype(np.float32) for x in arrays(name, "input")] for _ in range(8)]
    model = compile_model(module, scheme=calibrate(module, batches, method="minmax"), cores=1)
    found = Session(model).run(*batches[0])
    wanted = Interpreter(module).run(batches[0])[0]
    assert np.abs(np.asarray(found) - wanted).max() <= 0.1 * np.abs(wanted).max() + 0.05
