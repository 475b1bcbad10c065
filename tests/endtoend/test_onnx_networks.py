"""Networks made with onnx.helper go through the whole compiler and give what onnxruntime gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from compiler import driver
from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.load import load
from runtime.session import Session
from tests.journeys import Journey, assert_one_meaning, journey
from tests.onnx_models import detector, save

ort = pytest.importorskip("onnxruntime")


def images(count: int, *shape: int) -> list[list[np.ndarray]]:
    random = np.random.default_rng(1)
    return [[random.normal(size=shape).astype(np.float32)] for _ in range(count)]


def reference(path: Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: a for i, a in zip(session.get_inputs(), inputs, strict=True)})


def compiled(proto: onnx.ModelProto, samples: list[list[np.ndarray]], folder: Path, **options: object) -> Journey:
    return journey(driver.prepare(load(save(proto, folder))), samples, **options)


# -- a detector --------------------------------------------------------------------------------------------------------
def test_a_detector_finds_in_float_what_onnxruntime_finds(tmp_path: Path) -> None:
    path = save(detector(), tmp_path)
    run = Interpreter(load(path)).run
    counts = set()
    for sample in images(6, 1, 3, 32, 32):
        (ours,), (theirs,) = run(sample), reference(path, sample)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        counts.add(len(ours))
    assert len(counts) > 1


def test_a_detector_runs_on_the_chip_up_to_its_selection(tmp_path: Path) -> None:
    samples = images(8, 1, 3, 32, 32)
    made = compiled(detector(), samples, tmp_path, cores=2)
    names = [f.name for f in made.model.functions]
    assert names == ["subnet0", "host0"]
    assert "nn.non_max_suppression" in made.model.host_functions[0].text
    assert [r.shape for r in made.model.outputs] == [(-1, 6)]
    assert_one_meaning(made, samples[0], threads=(1,))


def test_a_saved_detector_gives_as_many_rows_as_it_finds(tmp_path: Path) -> None:
    samples = images(8, 1, 3, 32, 32)
    compiled(detector(), samples, tmp_path).model.save(tmp_path / "detector.cambricon")
    session = Session(tmp_path / "detector.cambricon")
    for sample in samples[:4]:
        ours, (theirs,) = session.run(*sample), reference(tmp_path / "model.onnx", sample)
        assert isinstance(ours, np.ndarray)
        assert ours.shape[1] == 6
        best = theirs[np.argmax(theirs[:, 1])]
        same = ours[(ours[:, 0] == best[0]) & (np.abs(ours[:, 2:] - best[2:]).max(axis=1) < 1.0)]
        assert len(same) and np.abs(same[:, 1] - best[1]).min() < 0.05


def test_an_image_without_objects_gives_no_rows(tmp_path: Path) -> None:
    proto = detector()
    for tensor in proto.graph.initializer:
        if onnx.numpy_helper.to_array(tensor).tolist() == pytest.approx(0.55):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32(0.999999), tensor.name))
    samples = images(4, 1, 3, 32, 32)
    found = Session(compiled(proto, samples, tmp_path).model).run(*samples[0])
    assert isinstance(found, np.ndarray)
    assert found.shape == (0, 6)
