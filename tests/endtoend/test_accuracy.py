"""What INT8 costs classifiers on a sample of real data; `test_scores` has all models and all data.

Preprocessing, splits and metrics are those of the data folder's own `score.py`; the float figure is measured in the
same test, on the same images, with onnxruntime. Calibration uses 64 images that are not scored.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler import driver
from compiler.frontend.load import load
from runtime.session import Session
from targets.mlu220.container import OfflineModel
from tests.endtoend.core_models import CORE_MODELS, CoreModel, score_module

IMAGES = 64
Samples = Iterator[tuple[np.ndarray, int]]


@dataclass(frozen=True)
class Task:
    """A classifier: its model, how images become inputs, which images calibrate and which are scored."""

    prefix: str
    preprocess: str
    calibration: Callable[[Any, Path], Samples]
    evaluation: Callable[[Any, Path], Samples]
    quick: int
    """Images of the default test."""

    @property
    def model(self) -> CoreModel:
        (found,) = (m for m in CORE_MODELS if m.file.startswith(self.prefix))
        return found


def cifar(data: Path, images: str, labels: str) -> Samples:
    arrays = np.load(data / "cifar10_jpeg_test5k_calib1k.npz")
    return zip(arrays[images], arrays[labels], strict=True)


def mnist(score: Any, data: Path, part: slice) -> Samples:
    images, labels = score.mnist(str(data))
    return zip(images[part], labels[part], strict=True)


TASKS = [
    Task("mnist_8", "pre_mnist8", lambda s, d: mnist(s, d, slice(-IMAGES, None)),
         lambda s, d: mnist(s, d, slice(0, -IMAGES)), 400),
    Task("resnet20", "pre_torch", lambda s, d: cifar(d, "calib_x", "calib_y"),
         lambda s, d: cifar(d, "x", "y"), 250),
    Task("squeezenet", "pre_squeezenet", lambda s, d: s.imagenet(str(d), "calib"),
         lambda s, d: s.imagenet(str(d), "eval"), 30),
    Task("mobilenet_v2", "pre_torch", lambda s, d: s.imagenet(str(d), "calib"),
         lambda s, d: s.imagenet(str(d), "eval"), 30),
]  # fmt: skip


def compiled(task: Task, models: Path, data: Path, count: int = IMAGES) -> OfflineModel:
    """The offline model at the defaults: method auto, per-channel weights, fp16; no host segment."""
    score = score_module(data)
    module = driver.prepare(load(models / task.model.file, shapes_of(task, data)), crash_directory=None)
    images = itertools.islice(task.calibration(score, data), count)
    scheme = driver.calibrate(module, (getattr(score, task.preprocess)(image) for image, _ in images))
    model = driver.compile_model(module, scheme=scheme, crash_directory=None)
    assert model.host_functions == []
    return model


def shapes_of(task: Task, data: Path) -> dict[str, tuple[int, ...]]:
    """The importer must be told the batch where the file leaves it open."""
    names = {"mobilenet_v2": "input", "resnet20": "input"}
    name = names.get(task.prefix)
    return {name: task.model.inputs(data)[0].shape} if name else {}


def float_model(task: Task, models: Path) -> Callable[[np.ndarray], list[np.ndarray]]:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(models / task.model.file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})


def figures(task: Task, models: Path, data: Path, limit: int | None, count: int = IMAGES) -> dict[str, Any]:
    """Top-1 in float and on the simulator, and how often they agree; `count` images calibrate, `limit` are scored."""
    score = score_module(data)
    simulator = Session(compiled(task, models, data, count), threads=2)
    reference = float_model(task, models)
    preprocess = getattr(score, task.preprocess)
    counts = np.zeros(3, int)
    number = 0
    for image, label in itertools.islice(task.evaluation(score, data), limit):
        x = preprocess(image)
        wanted, found = int(reference(x)[0].argmax()), int(np.asarray(simulator.run(x)).argmax())
        counts += [wanted == label, found == label, wanted == found]
        number += 1
    in_float, on_chip, agree = (100 * counts / number).tolist()
    return {"images": number, "float": in_float, "int8": on_chip, "lost": in_float - on_chip, "agree": agree}


def told(task: Task, result: dict[str, Any]) -> str:
    return (
        f"{task.prefix}: {result['images']} images, top-1 {result['float']:.2f} in float, {result['int8']:.2f} in int8 "
        f"({result['lost']:+.2f} points lost), same answer in {result['agree']:.2f} %"
    )


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.prefix)
def test_a_sample_of_answers_is_the_float_models(task: Task, models: Path, data: Path) -> None:
    """On few images agreement says more than accuracy: nine answers in ten are the float model's own."""
    result = figures(task, models, data, task.quick, count=12)
    assert result["agree"] >= 90.0 and result["lost"] <= 5.0, told(task, result)
