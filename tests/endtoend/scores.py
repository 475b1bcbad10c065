"""What every core model scores in float and compiled: data, bounds, and one function that measures both.

Preprocessing, decoding and metrics are those of the data folder's own `score.py`; the float figures come from
onnxruntime on the same images, the others from compiled files run on the simulator. Calibration data are not scored:
models that are scored on all of COCO's or the faces' images calibrate on images of another collection.

    python -m tests.endtoend.scores MODELS DATA [--limit N] [--method M] [name ...]

prints the table of all models.
"""

from __future__ import annotations

import argparse
import itertools
import time
import wave
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compiler import driver
from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.load import load
from compiler.ir.core import Module
from compiler.preprocess import Preprocess
from passes.quantization.layers import multiply_adds
from passes.quantization.scheme import Scheme
from runtime.host import HostSegment
from runtime.session import Session
from targets.mlu220.container import OfflineModel
from tests.endtoend.core_models import score_module

Arrays = list[np.ndarray]
Run = Callable[..., Arrays]
IMAGES = 64
"""Calibration images."""


@dataclass(frozen=True)
class Scored:
    """A model, its task in `score.py`, what calibrates it and what it may lose."""

    name: str
    file: str
    figure: str
    """The figure of the task's result that is bounded."""
    bound: float
    """How much of the figure may be lost on all data, in its own unit; infinite where it is only reported."""
    calibration: Callable[[Any, Path], Iterable[np.ndarray]]
    unit: float = 1.0
    """What the figure is multiplied by to be read: 100 for points."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    whole: int | None = None
    """How many of the task's items are scored at most: the others calibrate."""
    quick: int = 8
    """Items of the default tier's test."""
    method: str = "auto"
    """Calibration method, where the default is not used."""
    preprocess: str = ""
    """How pixels become inputs, as the command is told; empty where they do not."""


def digits(score: Any, data: Path, preprocess: str) -> Iterator[np.ndarray]:
    return (getattr(score, preprocess)(a) for a in score.mnist(str(data))[0][-IMAGES:])


def photos(score: Any, data: Path, count: int = IMAGES) -> Iterator[np.ndarray]:
    """Pixels of ImageNet's calibration split."""
    return (a for a, _ in itertools.islice(score.imagenet(str(data), "calib"), count))


def scenes(score: Any, data: Path) -> Iterator[np.ndarray]:
    """Pixels of COCO images."""
    return (a for _, a, _, _ in itertools.islice(score.coco(str(data)), IMAGES))


def cifar(score: Any, data: Path) -> Iterator[np.ndarray]:
    return (score.pre_torch(a) for a in np.load(data / "cifar10_jpeg_test5k_calib1k.npz")["calib_x"][:IMAGES])


def luminance(score: Any, data: Path) -> Iterator[np.ndarray]:
    """Photos' grey values."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return ((a.astype(np.float32) @ weights / 255)[None, None] for a in photos(score, data, 16))


def darkened(score: Any, data: Path) -> Iterator[np.ndarray]:
    for a in photos(score, data, 16):
        yield score.nchw((score._resize(a, 320, 180).astype(np.float32) / 255 * 0.25) ** 1.1)


LINES, STEPS = 168, 1500
"""Text lines that are scored, of 200; steps of speech that do not calibrate, of 1874."""


def lines(score: Any, data: Path) -> Iterator[np.ndarray]:
    """The other text lines, upright and upside down."""
    for a in np.load(data / "textlines_synth.npz")["x"][LINES:]:
        yield score.pre_ocrcls(a)
        yield score.pre_ocrcls(a[::-1, ::-1])


def speech(score: Any, data: Path) -> Iterator[np.ndarray]:
    """Steps of the voice detector that are not scored."""
    with wave.open(str(data / "speech60s_16k.wav")) as recording:
        sound = np.frombuffer(recording.readframes(recording.getnframes()), np.int16).astype(np.float32) / 32768
    return (sound[None, k * 512 - 64 : (k + 1) * 512] for k in range(STEPS, len(sound) // 512))


TORCH = f"scale={1 / 255!r},mean=[0.485,0.456,0.406],std=[0.229,0.224,0.225]"
POINTS = {"figure": "top1", "unit": 100.0}
SCORED = [
    Scored("mnist_8", "mnist_8.onnx", bound=0.5, quick=400, whole=10000 - IMAGES, **POINTS,
           calibration=lambda s, d: digits(s, d, "pre_mnist8")),
    Scored("resnet20", "resnet20_cifar10.onnx", bound=0.5, quick=200, **POINTS, calibration=cifar, preprocess=TORCH,
           shapes={"input": (1, 3, 32, 32)}),
    Scored("vit_mnist", "vit_mnist.onnx", bound=0.3, quick=200, whole=10000 - IMAGES, **POINTS,
           calibration=lambda s, d: digits(s, d, "pre_mnist_vit")),
    Scored("squeezenet", "squeezenet_imagenet.onnx", bound=0.6, **POINTS,
           method="percentile-99.999", preprocess="mean=[104,117,123],order=bgr",
           calibration=lambda s, d: map(s.pre_squeezenet, photos(s, d))),
    Scored("mobilenet_v2", "mobilenet_v2_imagenet.onnx", bound=0.5, **POINTS, shapes={"input": (1, 3, 224, 224)},
           preprocess=TORCH, calibration=lambda s, d: map(s.pre_torch, photos(s, d))),
    Scored("ppocr_cls", "ppocr_textline_cls.onnx", "acc", 1.0, lines, 100.0, {"x": (1, 3, 48, 192)}, LINES, 40),
    Scored("ultraface", "ultraface_rfb_320.onnx", "recall_vs_fp32", 0.05,
           lambda s, d: map(s.pre_ultraface, scenes(s, d)), preprocess="mean=127,std=128"),
    Scored("espcn", "espcn_x3_super_resolution.onnx", "psnr", 0.3, luminance,
           shapes={"input": (1, 1, 224, 224)}, quick=2),
    Scored("tbefn", "tbefn_lowlight_180x320.onnx", "psnr", float("inf"), darkened, whole=40, quick=2),
    Scored("yolox_nano", "yolox_nano.onnx", "mAP", 0.02, lambda s, d: (s.pre_yolox(a)[0] for a in photos(s, d)),
           preprocess="order=bgr"),
    Scored("deeplab", "deeplab_v3_mnv2_257.onnx", "mIoU", 0.02, lambda s, d: map(s.pre_deeplab, photos(s, d)),
           preprocess=f"scale={1 / 127.5!r},mean=1"),
    Scored("silero", "silero_vad_16k_static.onnx", "agree", 0.02, speech, quick=150),
]  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What a model scored."""

    scored: Scored
    real: dict[str, Any]
    chip: dict[str, Any]
    on_chip: float
    """Part of the multiply-adds that the chip's matrix and vector units do."""
    host: int
    """Host segments."""
    wide: int
    """Layers of 16-bit integers."""
    calibration: float
    seconds: float
    notes: tuple[str, ...]
    """Why the scheme is as it is."""

    @property
    def lost(self) -> float:
        return (self.real[self.scored.figure] - self.chip[self.scored.figure]) * self.scored.unit

    def __str__(self) -> str:
        s = self.scored
        others = {k: v for k, v in self.chip.items() if k not in (s.figure, "n", "boxes")}
        return (
            f"{s.name:<13}{s.figure:<15}{self.chip.get('n', self.chip.get('faces')):>6}"
            f"{self.real[s.figure] * s.unit:>9.3f}{self.chip[s.figure] * s.unit:>9.3f}{self.lost:>+8.3f}"
            f"{s.bound:>7.2f}{100 * self.on_chip:>9.2f}{self.host:>5}{self.wide:>4}"
            f"{self.calibration:>7.1f}{self.seconds:>7.1f}  {others}"
        )


HEADING = (
    f"{'model':<13}{'figure':<15}{'items':>6}{'float':>9}{'compiled':>9}{'lost':>8}{'bound':>7}{'on chip':>9}"
    f"{'host':>5}{'i16':>4}{'calib':>7}{'sim':>7}  other figures"
)


def prepared(scored: Scored, models: Path) -> Module:
    return driver.prepare(load(models / scored.file, shapes=scored.shapes), crash_directory=None)


def calibration_data(scored: Scored, module: Module, data: Path) -> list[Any]:
    """Inputs to calibrate on; a model with state gets the states it has in float."""
    images = [np.ascontiguousarray(a, np.float32) for a in scored.calibration(score_module(data), data)]
    arguments = module.main.arguments
    if len(arguments) == 1:
        return images
    state = np.zeros(arguments[1].type.static_shape, np.float32)
    run, found = Interpreter(module).run, []
    for x in images:
        found.append([x, state])
        state = run([x, state])[1]
    return found[20::4]


@dataclass(frozen=True)
class Compiled:
    """A model on its way: prepared, quantised, compiled, and the seconds that calibration took."""

    module: Module
    scheme: Scheme
    model: OfflineModel
    seconds: float


def compiled(
    scored: Scored, models: Path, data: Path, method: str = "", input_type: str = "float", **options: Any
) -> Compiled:
    """The offline model at the defaults of the command."""
    method = method or scored.method
    module = prepared(scored, models)
    samples = calibration_data(scored, module, data)
    start = time.perf_counter()
    scheme = driver.calibrate(module, samples, method, **options)
    seconds = time.perf_counter() - start
    if input_type == "uint8":
        module.main.arguments[0].attributes["preprocessing"] = Preprocess.parse(scored.preprocess).as_dict()
    model = driver.compile_model(module, scheme=scheme, input_type=input_type, crash_directory=None)
    return Compiled(module, scheme, model, seconds)


MATRIX_OPS = ("nn.conv2d", "nn.conv_transpose2d", "nn.matmul")


def work(module: Module) -> int:
    """Multiply-adds of a module."""
    return sum(multiply_adds(op) for op in module.ops() if op.op_name in MATRIX_OPS)


def on_chip(module: Module, model: OfflineModel) -> float:
    """Part of the prepared module's multiply-adds that no host segment does."""
    left = sum(work(HostSegment(f)._interpreter.module) for f in model.host_functions)
    return 1.0 - left / work(module)


def float_run(scored: Scored, models: Path) -> Run:
    """The model in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(models / scored.file), options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))


def chip_run(model: OfflineModel) -> Run:
    """The compiled model on the simulator; where it takes pixels, they are recovered from the input."""
    session = Session(model, threads=2)
    (record, *_) = session.inputs
    taken = Preprocess.of(record.preprocessing)

    def run(*arrays: np.ndarray) -> Arrays:
        given = [np.asarray(a, np.float32) for a in arrays]
        found = session.run(*([taken.to_pixels(*given)] if record.dtype == "u8" else given))
        return found if isinstance(found, list) else [found]  # type: ignore[return-value, list-item]

    return run


def measure(
    scored: Scored, models: Path, data: Path, limit: int | None = None, method: str = "", **options: Any
) -> Result:
    """The figures of a model, on at most `limit` items."""
    score = score_module(data)
    task = score.TASKS[scored.name][0]
    made = compiled(scored, models, data, method, **options)
    items = min(filter(None, (limit, scored.whole)), default=None)
    start = time.perf_counter()
    chip = task(chip_run(made.model), str(data), items)
    seconds = time.perf_counter() - start
    real = task(float_run(scored, models), str(data), items)
    wide = sum(v in ("i16", "i16xi8") for v in made.scheme.layers.values())
    return Result(
        scored, real, chip, on_chip(made.module, made.model), len(made.model.host_functions), wide, made.seconds,
        seconds, made.scheme.notes,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Scores of the core models in float and compiled.")
    parser.add_argument("models", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", metavar="name", help="models (default: all)")
    parser.add_argument("--limit", type=int, help="score at most so many items of each")
    parser.add_argument("--input-type", default="float", choices=("float", "uint8"), help="what models take")
    parser.add_argument("--method", default="", help="calibration method for all")
    args = parser.parse_intermixed_args()
    print(HEADING, flush=True)
    for scored in SCORED:
        if (not args.names or scored.name in args.names) and (scored.preprocess or args.input_type == "float"):
            result = measure(scored, args.models, args.data, args.limit, args.method, input_type=args.input_type)
            print(result, *(f"    {note}" for note in result.notes), sep="\n", flush=True)


if __name__ == "__main__":
    main()
