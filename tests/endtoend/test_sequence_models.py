"""Attention and recurrence in real models: a small vision transformer and a voice detector, wholly on the chip."""

from __future__ import annotations

import wave
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler import driver
from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.load import load
from compiler.ir.core import Module
from passes.quantization.layers import multiply_adds
from runtime.session import Session
from targets.mlu220.cost import quantities
from tests.endtoend.core_models import score_module
from tests.journeys import Arrays, Journey, assert_one_meaning, journey

VIT, VAD = "vit_mnist.onnx", "silero_vad_16k_static.onnx"


@cache
def prepared(models: Path, name: str) -> Module:
    return driver.prepare(load(models / name))


@cache
def digits(data: Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels = score_module(data).mnist(str(data))
    return images, labels


def samples(models: Path, data: Path, name: str) -> list[Arrays]:
    """Calibration inputs that are not scored; the voice detector's with the states it had in float."""
    if name == VIT:
        return [[score_module(data).pre_mnist_vit(a)] for a in digits(data)[0][-64:]]
    run = Interpreter(prepared(models, name)).run
    found: list[Arrays] = []
    state = np.zeros((2, 1, 128), np.float32)
    for x in frames(data, 900, 1200):
        found.append([x, state])
        state = run([x, state])[1]
    return found[20::4]


def frames(data: Path, first: int, last: int) -> list[np.ndarray]:
    """512 samples each, with the 64 before them."""
    with wave.open(str(data / "speech60s_16k.wav")) as recording:
        sound = np.frombuffer(recording.readframes(recording.getnframes()), np.int16).astype(np.float32) / 32768
    return [sound[None, k * 512 - 64 : (k + 1) * 512] for k in range(max(first, 1), last)]


def compiled(models: Path, data: Path, name: str, **options: Any) -> Journey:
    return journey(prepared(models, name), samples(models, data, name), **options)


@pytest.mark.parametrize("cores", [1, 2, 4])
@pytest.mark.parametrize("name", [VIT, VAD])
def test_the_model_runs_on_the_chip_alone_with_one_meaning(name: str, cores: int, models: Path, data: Path) -> None:
    made = compiled(models, data, name, cores=cores)
    assert [f.name for f in made.model.functions] == ["subnet0"]
    assert_one_meaning(made, samples(models, data, name)[0], threads=(1, 2))


@pytest.mark.parametrize("name", [VIT, VAD])
def test_every_multiplication_of_the_model_is_one_of_the_matrix_unit(name: str, models: Path, data: Path) -> None:
    made = compiled(models, data, name)
    wanted = sum(multiply_adds(op) for op in made.prepared.ops() if op.op_name in ("nn.matmul", "nn.conv2d"))
    assert sum(made.model.metadata["macs"].values()) == wanted
    computed = sum(quantities(program).total().macs for program in made.device.programs)
    assert computed >= wanted  # what tiles share at their borders is computed again


def test_the_transformer_keeps_its_accuracy_in_int8(models: Path, data: Path) -> None:
    assert lost_points(models, data, 400) <= 1.0


@pytest.mark.slow
def test_the_transformer_loses_at_most_three_tenths_of_a_point(models: Path, data: Path) -> None:
    assert lost_points(models, data, 4000) <= 0.3


def lost_points(models: Path, data: Path, count: int) -> float:
    """Points of top-1 lost against float."""
    score = score_module(data)
    chip = Session(compiled(models, data, VIT).model)
    real = Interpreter(prepared(models, VIT))
    top = [score.vit_mnist(run, str(data), count)["top1"] for run in (lambda x: real.run([x]), lambda x: [chip.run(x)])]
    return 100 * (top[0] - top[1])


@pytest.mark.parametrize(("bits", "agreement", "error"), [(8, 0.97, 0.7), (16, 1.0, 0.03)])
def test_the_voice_detector_agrees_with_float_while_its_state_loops(
    bits: int, agreement: float, error: float, models: Path, data: Path
) -> None:
    chip = Session(compiled(models, data, VAD, bits=bits).model)
    found = score_module(data).silero(lambda x, state: chip.run(x, state), str(data), 200)
    assert found["agree"] >= agreement
    assert found["max_err"] <= error
