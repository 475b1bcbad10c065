"""INT8 accuracy of real networks in the evaluator: what quantisation loses, apart from what the chip's floats lose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from compiler.comparison import compare
from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.load import load
from compiler.ir.core import Module
from compiler.pass_manager import run_pipeline
from passes.quantization.calibrate import calibrate
from tests.endtoend.core_models import CORE_MODELS, score_module

MODELS = {m.file.partition("_")[0]: m for m in CORE_MODELS if m.file.endswith(".onnx")}
PREPROCESS = {"squeezenet": "pre_squeezenet", "mobilenet": "pre_torch", "resnet20": "pre_torch"}


def prepared(models: Path, name: str) -> Module:
    model = MODELS[name]
    return run_pipeline(load(models / model.file, shapes=model.shapes), "prepare")


def calibration_images(data: Path, name: str) -> Iterator[np.ndarray]:
    """64 images of the calibration split."""
    score = score_module(data)
    preprocess = getattr(score, PREPROCESS[name])
    if name == "resnet20":
        images = np.load(data / "cifar10_jpeg_test5k_calib1k.npz")["calib_x"]
    else:
        pytest.importorskip("PIL")
        images = (image for image, _ in score.imagenet(str(data), "calib"))
    return (preprocess(image) for image, _ in zip(images, range(64), strict=False))


def quantized(module: Module, data: Path, name: str) -> Module:
    scheme = calibrate(module, calibration_images(data, name))
    return run_pipeline(module, "quantize", options={"scheme": scheme.to_toml()})


def accuracy(module: Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Top-1, in percent."""
    interpreter = Interpreter(module)
    hits = [interpreter.run([x])[0].argmax() == y for x, y in zip(images, labels, strict=True)]
    return 100.0 * float(np.mean(hits))


def test_resnet20_loses_less_than_two_points(models, data):
    files = np.load(data / "cifar10_jpeg_test5k_calib1k.npz")
    images = [score_module(data).pre_torch(x) for x in files["x"][:300]]
    module = prepared(models, "resnet20")
    whole = accuracy(module, images, files["y"][:300])
    assert accuracy(quantized(module, data, "resnet20"), images, files["y"][:300]) >= whole - 2.0


@pytest.mark.parametrize("name", ["squeezenet", "mobilenet"])
def test_imagenet_networks_keep_nine_of_ten_decisions(name, models, data):
    preprocess = getattr(score_module(data), PREPROCESS[name])
    images = [preprocess(x) for x in np.load(data / "imagenet_raw64.npz")["x"][:40]]
    module = prepared(models, name)
    whole, twin = Interpreter(module), Interpreter(quantized(module, data, name))
    same = [whole.run([x])[0].argmax() == twin.run([x])[0].argmax() for x in images]
    assert np.mean(same) >= 0.9


def test_the_comparison_of_resnet20_names_its_layers(models, data):
    module = prepared(models, "resnet20")
    images = [[x] for x, _ in zip(calibration_images(data, "resnet20"), range(4), strict=False)]
    differences = compare(module, quantized(module, data, "resnet20"), images)
    layers = {op.name for op in module.main.body if op.op_name in ("nn.conv2d", "nn.matmul")}
    assert layers <= {d.name for d in differences}
    assert min(d.accumulated.sqnr for d in differences) > 10.0
