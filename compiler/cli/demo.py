"""Compile, run and score the network that comes with mluc: handwritten digits, 8x8 pixels.

The network was trained by examples/train_digits.py. It is quantised on 100 calibration digits and run, on the
simulator, on 400 digits that neither training nor calibration has seen.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.cli import arguments
from compiler.errors import error

if TYPE_CHECKING:
    import numpy as np


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="keep model, data and offline model there (default: none is kept)"
    )
    arguments.target_arguments(parser)
    arguments.json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from compiler import driver
    from runtime.profile import profile
    from targets.mlu220.hardware import board_of

    _check_output(args.output)
    digits = Digits.load()
    with _model_file() as path:
        from compiler.frontend.load import load

        module = load(path)
    started = time.perf_counter()
    prepared = driver.prepare(module)
    scheme = driver.calibrate(prepared, [{"image": image} for image in _one_by_one(digits.calibration_images)])
    model = driver.compile_model(prepared, scheme=scheme, board=args.board, cores=args.cores)
    compiled = time.perf_counter() - started
    facts = {
        "test_images": len(digits.test_images), "calibration_images": len(digits.calibration_images),
        "compile_seconds": round(compiled, 2), "float_accuracy": _float_accuracy(module, digits),
        "int8_accuracy": _int8_accuracy(model, digits),
    }  # fmt: skip
    report = profile(model, board_of(model))
    if args.output is not None:
        _keep(args.output, digits, model)
    if args.json:
        arguments.print_json(facts | {"profile": report.as_dict()})
        return 0
    _tell(facts, args.output)
    print()
    print(report)
    return 0


@dataclass(frozen=True)
class Digits:
    """Calibration and test images, [samples, 1, 8, 8] float32, values 0 to 16, and the digits the test images show."""

    calibration_images: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @staticmethod
    def load() -> Digits:
        import numpy as np

        stored = np.load(io.BytesIO(_data("digits.npz")), allow_pickle=False)
        calibration, test = (stored[name].astype(np.float32) for name in ("calibration_images", "test_images"))
        return Digits(calibration, test, stored["test_labels"])


def _data(name: str) -> bytes:
    return resources.files("compiler.demo").joinpath(name).read_bytes()


@contextmanager
def _model_file() -> Iterator[Path]:
    with resources.as_file(resources.files("compiler.demo").joinpath("digits.onnx")) as path:
        yield path


def _one_by_one(images: np.ndarray) -> Iterator[np.ndarray]:
    return (images[i : i + 1] for i in range(len(images)))


def _float_accuracy(module: Any, digits: Digits) -> float:
    """Of the model as it was given, evaluated in NumPy."""
    from compiler.evaluate.interpreter import Interpreter

    interpreter = Interpreter(module)
    return _accuracy([interpreter.run([image])[0] for image in _one_by_one(digits.test_images)], digits)


def _int8_accuracy(model: Any, digits: Digits) -> float:
    """Of the offline model, on the simulator."""
    from runtime.session import Session

    session = Session(model)
    return _accuracy([session.run(image) for image in _one_by_one(digits.test_images)], digits)


def _accuracy(scores: list[Any], digits: Digits) -> float:
    import numpy as np

    return float(np.mean(np.concatenate(scores).argmax(axis=1) == digits.test_labels))


def _tell(facts: dict[str, Any], folder: Path | None) -> None:
    count = facts["test_images"]
    print(f"digits: compiled in {facts['compile_seconds']:.1f} s, calibrated on {facts['calibration_images']} images")
    print(f"{count} held-back digits, recognised by")
    print(f"  the float network in NumPy            {facts['float_accuracy']:.2%}")
    print(f"  the INT8 offline model, simulated     {facts['int8_accuracy']:.2%}")
    if folder is not None:
        print(f"  files are in {folder}: {', '.join(_FILES)}")


_FILES = ("digits.onnx", "calibration.npz", "test.npz", "test_labels.npy", "digits.cambricon", "digits.cambricon_twins")


def _check_output(folder: Path | None) -> None:
    if folder is not None and folder.exists() and not folder.is_dir():
        raise error("E101", "is a file, give a folder", where=str(folder))
    if folder is not None:
        arguments.writable(folder / "digits.onnx" if folder.is_dir() else folder, ".onnx")


def _keep(folder: Path, digits: Digits, model: Any) -> None:
    """Write what the other verbs take: `mluc compile digits.onnx --calibrate calibration.npz`, and so on."""
    import numpy as np

    folder.mkdir(exist_ok=True)
    (folder / "digits.onnx").write_bytes(_data("digits.onnx"))
    np.savez_compressed(folder / "calibration.npz", image=digits.calibration_images)
    np.savez_compressed(folder / "test.npz", image=digits.test_images)
    np.save(folder / "test_labels.npy", digits.test_labels)
    model.save(folder / "digits.cambricon")
