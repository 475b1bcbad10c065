"""Real trained networks through the evaluator: the same numbers as onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler.evaluate.interpreter import evaluate_function

MODELS = {
    "deeplab_v3_mnv2_257": {"sub_7": (1, 257, 257, 3)},
    "espcn_x3_super_resolution": {"input": (1, 1, 224, 224)},
    "mnist_8": {"Input3": (1, 1, 28, 28)},
    "mobilenet_v2_imagenet": {"input": (1, 3, 224, 224)},
    "ppocr_textline_cls": {"x": (1, 3, 48, 192)},
    "resnet20_cifar10": {"input": (2, 3, 32, 32)},
    "silero_vad_16k_static": {"input": (1, 576), "state": (2, 1, 128)},
    "squeezenet_imagenet": {"data_0": (1, 3, 224, 224)},
    "tbefn_lowlight_180x320": {"Placeholder": (1, 3, 180, 320)},
    "ultraface_rfb_320": {"input": (1, 3, 240, 320)},
    "vit_mnist": {"input": (1, 1, 28, 28)},
    "yolox_nano": {"images": (1, 3, 416, 416)},
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_gives_the_numbers_of_onnxruntime(name: str, models: Path) -> None:
    import onnxruntime

    from compiler.frontend.onnx.importer import import_model

    path, shapes = models / f"{name}.onnx", MODELS[name]
    random = np.random.default_rng(0)
    inputs = {key: random.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    expected = dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True))
    found = evaluate_function(import_model(path, shapes, {}), inputs)
    assert found.keys() == expected.keys()
    for key, wanted in expected.items():
        assert found[key].shape == wanted.shape
        assert np.abs(found[key] - wanted).max() <= 1e-4 * np.abs(wanted).max()
