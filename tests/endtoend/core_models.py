"""The core model set: how each model is imported, and one real input for it, prepared as the data's `score.py` does."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

Arrays = list[np.ndarray]


@cache
def score_module(data: Path) -> ModuleType:
    """The data folder's own preprocessing."""
    spec = importlib.util.spec_from_file_location("score", data / "score.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _photo(data: Path) -> np.ndarray:
    return np.load(data / "imagenet_raw64.npz")["x"][3]


def _scene(data: Path) -> np.ndarray:
    return np.load(data / "coco_letterbox416_raw8.npz")["x"][1]


def _digit(data: Path) -> np.ndarray:
    return score_module(data).mnist(str(data))[0][5]


def _speech(data: Path) -> Arrays:
    import wave

    with wave.open(str(data / "speech60s_16k.wav")) as recording:
        samples = np.frombuffer(recording.readframes(40000), np.int16)[32000:32576]
    return [samples.astype(np.float32)[None] / 32768, _state()]


def _state() -> np.ndarray:
    """Some state in the middle of speech; the zeros at its start would leave calibration without a range."""
    return np.random.default_rng(0).uniform(-0.5, 0.5, (2, 1, 128)).astype(np.float32)


def _dark(data: Path) -> np.ndarray:
    score = score_module(data)
    return score.nchw((score._resize(_photo(data), 320, 180).astype(np.float32) / 255 * 0.25) ** 1.1)


def _luminance(data: Path) -> np.ndarray:
    return np.load(data / "superres_y_x3.npz")["lr"][0].astype(np.float32)[None, None] / 255


@dataclass(frozen=True)
class CoreModel:
    """A file of the model set. `sample` gives a real input; `shapes` what the importer must be told."""

    file: str
    sample: Callable[[Path], np.ndarray | Arrays]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict, hash=False)

    def inputs(self, data: Path) -> Arrays:
        sample = self.sample(data)
        arrays = sample if isinstance(sample, list) else [sample]
        return [np.ascontiguousarray(a, np.float32) for a in arrays]


CORE_MODELS = [
    CoreModel("squeezenet_imagenet.onnx", lambda d: score_module(d).pre_squeezenet(_photo(d))),
    CoreModel("mobilenet_v2_imagenet.onnx", lambda d: score_module(d).pre_torch(_photo(d))),
    CoreModel(
        "resnet20_cifar10.onnx",
        lambda d: score_module(d).pre_torch(np.load(d / "cifar10_jpeg_test5k_calib1k.npz")["x"][7]),
    ),
    CoreModel("yolox_nano.onnx", lambda d: score_module(d).nchw(_scene(d)[..., ::-1].astype(np.float32))),
    CoreModel("ultraface_rfb_320.onnx", lambda d: score_module(d).pre_ultraface(_photo(d))),
    CoreModel("deeplab_v3_mnv2_257.onnx", lambda d: score_module(d).pre_deeplab(_scene(d))),
    CoreModel("espcn_x3_super_resolution.onnx", _luminance),
    CoreModel("tbefn_lowlight_180x320.onnx", _dark),
    CoreModel(
        "ppocr_textline_cls.onnx", lambda d: score_module(d).pre_ocrcls(np.load(d / "textlines_synth.npz")["x"][4]),
        {"x": (1, 3, 48, 192)},
    ),
    CoreModel("vit_mnist.onnx", lambda d: score_module(d).pre_mnist_vit(_digit(d))),
    CoreModel("silero_vad_16k_static.onnx", _speech),
    CoreModel("mnist_8.onnx", lambda d: score_module(d).pre_mnist8(_digit(d))),
]  # fmt: skip
