"""How fast the simulator is: per image beside onnxruntime's INT8 (U8S8, its fastest mode), timed in turn, as ratios;
and what loading costs with and without kept machine code.

Weights and shapes are those of real networks; calibration data is noise, which changes no speed. Needs `--models DIR`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import Session

ROUNDS = 15
NETWORKS = {
    "mobilenet_v2_imagenet": (1, 3, 224, 224), "squeezenet_imagenet": (1, 3, 224, 224),
    "resnet20_cifar10": (1, 3, 32, 32), "yolox_nano": (1, 3, 416, 416),
}  # fmt: skip


def noise(shape: tuple[int, ...], count: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape).astype(np.float32) for _ in range(count))


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, models: Path) -> tuple[str, Any]:
    """(name, offline model for four cores in fp16)."""
    import compiler

    name = request.param
    module = compiler.prepare(compiler.load(models / f"{name}.onnx"))
    scheme = compiler.calibrate(module, ((x,) for x in noise(NETWORKS[name], 4)))
    return name, compiler.compile_model(module, scheme=scheme)


def _opset(path: Path) -> int:
    import onnx

    imports = onnx.load(str(path), load_external_data=False).opset_import
    return max(o.version for o in imports if o.domain in ("", "ai.onnx"))


def onnxruntime_int8(path: Path, folder: Path, shape: tuple[int, ...], threads: int) -> Callable[[np.ndarray], object]:
    """onnxruntime on the network quantised by its own tools."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    name = onnxruntime.InferenceSession(str(path)).get_inputs()[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = noise(shape, 4)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch}

    target = folder / "int8.onnx"
    quantize_static(
        str(path),
        str(target),
        Reader(),
        per_channel=_opset(path) >= 13,  # before it DequantizeLinear has no axis
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(target), options)
    return lambda x: session.run(None, {name: x})


def seconds(run: Callable[[np.ndarray], object], x: np.ndarray) -> float:
    start = time.perf_counter()
    run(x)
    return time.perf_counter() - start


@pytest.mark.parametrize("threads", [1, 2])
def test_an_image_takes_a_small_multiple_of_onnxruntime_int8(
    network: tuple[str, Any], threads: int, models: Path, tmp_path: Path, benchmark: Any
) -> None:
    name, model = network
    session = Session(model, threads=threads)
    reference = onnxruntime_int8(models / f"{name}.onnx", tmp_path, NETWORKS[name], threads)
    x = next(noise(NETWORKS[name], 1))
    for run in (session.run, reference):
        run(x)
    pairs = [(seconds(session.run, x), seconds(reference, x)) for _ in range(ROUNDS)]
    ours, theirs = min(a for a, _ in pairs), min(b for _, b in pairs)
    benchmark.extra_info.update(
        ratio=statistics.median(a / b for a, b in pairs), simulator_ms=ours * 1e3, onnxruntime_ms=theirs * 1e3
    )
    benchmark.pedantic(session.run, args=(x,), rounds=5)
    assert ours < 20 * theirs + 0.01


@pytest.mark.parametrize("step", ["fuse", "elide"])
def test_what_a_step_of_translation_gains(network: tuple[str, Any], step: str, benchmark: Any) -> None:
    name, model = network
    x = next(noise(NETWORKS[name], 1))
    with_step, without = Session(model, threads=1), Session(model, threads=1, translate={step: False})
    for session in (with_step, without):
        session.run(x)
    pairs = [(seconds(with_step.run, x), seconds(without.run, x)) for _ in range(ROUNDS)]
    benchmark.extra_info.update(ratio=statistics.median(a / b for a, b in pairs))
    benchmark.pedantic(with_step.run, args=(x,), rounds=5)


def test_loading_proves_and_translates_once(network: tuple[str, Any], benchmark: Any) -> None:
    _, model = network
    benchmark.pedantic(Session, args=(model,), rounds=3)


LOAD = "import sys, time; from runtime import Session; Session(sys.argv[1]); print(time.process_time())"


def test_the_first_load_of_all_compiles_in_seconds(network: tuple[str, Any], tmp_path: Path, benchmark: Any) -> None:
    """Processor seconds of a process that loads a model, without kept code and with it."""
    model, environment = network[1], {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "code")}
    model.save(tmp_path / "model")

    def load() -> float:
        command = [sys.executable, "-c", LOAD, str(tmp_path / "model")]
        return float(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)

    first, second = load(), load()
    benchmark.extra_info.update(first_seconds=first, second_seconds=second)
    benchmark.pedantic(load, rounds=1)
    assert second < first < 30
