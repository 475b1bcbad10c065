"""`mluc demo`: the network that comes with the package, its data, and the files it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from compiler.cli.demo import Digits
from tests.command import Command


def test_the_demo_recognises_digits_as_well_in_int8_as_in_float(command: Command):
    told = json.loads(command("demo", "--json").out)
    assert told["test_images"] == 400
    assert told["float_accuracy"] > 0.98
    assert told["int8_accuracy"] > told["float_accuracy"] - 0.01
    assert told["profile"]


def test_the_demo_prints_both_accuracies_and_the_profile(command: Command):
    result = command("demo")
    assert result.code == 0
    assert "float network" in result.out and "INT8" in result.out and "latency" in result.out


def test_the_files_it_keeps_serve_the_other_verbs(command: Command):
    assert command("demo", "--output", "kept").code == 0
    words = ("compile", "kept/digits.onnx", "-o", "d.cambricon", "--calibrate", "kept/calibration.npz")
    assert command(*words).code == 0
    words = ("run", "d.cambricon", "--inputs", "kept/test.npz", "--output", "scores.npz")
    assert command(*words).out.startswith("400 samples")
    right = np.load("scores.npz")["scores"].argmax(axis=1) == np.load("kept/test_labels.npy")
    assert right.mean() > 0.97


def test_the_offline_model_it_keeps_is_the_one_that_compile_makes(command: Command):
    command("demo", "--output", "kept")
    command("compile", "kept/digits.onnx", "-o", "d.cambricon", "--calibrate", "kept/calibration.npz")
    assert Path("d.cambricon").read_bytes() == Path("kept/digits.cambricon").read_bytes()


@pytest.mark.parametrize("words", [("--output", "file"), ("--output", "no/where"), ("--board", "m3"), ("--cores", "7")])
def test_a_mistake_is_told(command: Command, words):
    Path("file").write_text("in the way")
    result = command("demo", *words)
    assert result.code == 1
    assert "error[E" in result.err


def test_calibration_and_test_images_are_disjoint():
    digits = Digits.load()
    calibration = {image.tobytes() for image in digits.calibration_images}
    assert len(calibration) == 100
    assert not calibration & {image.tobytes() for image in digits.test_images}
    assert len(digits.test_images) == len(digits.test_labels) == 400
    assert digits.test_images.shape[1:] == (1, 8, 8)
    assert set(digits.test_labels) == set(range(10))
