"""A network that onnxruntime quantised compiles with its own scales, wholly to the chip, and answers alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler import driver
from compiler.frontend.load import load
from runtime.session import Session
from tests.endtoend.scores import SCORED, cifar, score_module


def quantised_by_onnxruntime(model: Path, images: Iterator[np.ndarray], target: Path, symmetric: bool) -> Path:
    """The model with QuantizeLinear and DequantizeLinear around every op."""
    tool = pytest.importorskip("onnxruntime.quantization")

    class Reader(tool.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(images, None)
            return None if image is None else {"input": np.asarray(image, np.float32)}

    tool.quantize_static(
        str(model), str(target), Reader(), quant_format=tool.QuantFormat.QDQ, per_channel=True,
        activation_type=tool.QuantType.QInt8 if symmetric else tool.QuantType.QUInt8,
        weight_type=tool.QuantType.QInt8, extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True},
    )  # fmt: skip
    return target


def answers(run: Any, images: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(run(image)) for image in images])


def compare(models: Path, data: Path, path: Path, float_type: str, count: int, calibrate: bool) -> tuple[float, float]:
    """How often the first classes agree, and the mean largest difference relative to the range of the answer."""
    onnxruntime = pytest.importorskip("onnxruntime")
    (resnet,) = (s for s in SCORED if s.name == "resnet20")
    score = score_module(data)
    module = driver.prepare(load(path, shapes=resnet.shapes), crash_directory=None)
    scheme = driver.calibrate(module, cifar(score, data)) if calibrate else None
    model = driver.compile_model(module, scheme=scheme, float_type=float_type, crash_directory=None)
    assert model.host_functions == []
    pictures = np.load(data / "cifar10_jpeg_test5k_calib1k.npz")["x"][:count]
    images = [np.asarray(score.pre_torch(a), np.float32) for a in pictures]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = answers(lambda x: session.run(None, {"input": x})[0], images)
    found = answers(Session(model, threads=2).run, images)
    agree = float(np.mean(wanted.argmax(1) == found.argmax(1)))
    return agree, float(np.mean(np.abs(wanted - found).max(1) / np.ptp(wanted, axis=1)))


def test_symmetric_scales_are_the_chips_own(models: Path, data: Path, tmp_path: Path) -> None:
    images = itertools.islice(cifar(score_module(data), data), 16)
    path = quantised_by_onnxruntime(models / "resnet20_cifar10.onnx", images, tmp_path / "q.onnx", True)
    agree, error = compare(models, data, path, "f32", 60, calibrate=False)
    assert agree == 1.0 and error < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("symmetric", "least"), [(True, 0.94), (False, 0.94)])
def test_most_answers_are_the_same_in_half_floats(
    symmetric: bool, least: float, models: Path, data: Path, tmp_path: Path
) -> None:
    """Half floats between the layers round some integers to their neighbour; zero points are calibrated away."""
    images = itertools.islice(cifar(score_module(data), data), 16)
    path = quantised_by_onnxruntime(models / "resnet20_cifar10.onnx", images, tmp_path / "q.onnx", symmetric)
    agree, _ = compare(models, data, path, "f16", 400, calibrate=not symmetric)
    assert agree >= least
