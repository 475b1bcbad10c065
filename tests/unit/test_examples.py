"""The examples do what they say they do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx

import compiler
from compiler.cli.demo import Digits
from compiler.evaluate.interpreter import Interpreter
from runtime import Session
from tests.command import Command, clipped

EXAMPLES = Path(__file__).parents[2] / "examples"


def started(script: str, *words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES.parent)}
    return subprocess.run(
        [sys.executable, str(EXAMPLES / script), *map(str, words)], cwd=folder, env=environment, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip


def test_the_driver_script_compiles_and_prints_only_passes_that_changed_something(model_file, calibration, tmp_path):
    found = started("compile_and_watch.py", model_file, calibration, folder=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "fuse-batchnorm ----" in found.stdout
    assert (tmp_path / "watched.cambricon").is_file()
    assert "'scores'" in found.stdout


def test_the_driver_script_is_shorter_than_twenty_lines():
    assert len((EXAMPLES / "compile_and_watch.py").read_text().splitlines()) < 20


def test_the_pass_replaces_relu6_by_relu(command: Command, tmp_path: Path):
    words = ("-p", "relu6-to-relu", "--load-pass", EXAMPLES / "my_pass.py", "--pass-stats", "-o", "out.mlu")
    assert command("opt", clipped(tmp_path / "m.onnx", 6.0), *words).code == 0
    module = compiler.load("out.mlu")
    assert [op.op_name for op in module.main.body] == ["nn.relu", "graph.return"]
    x = np.array([[-1.0, 0.5, 5.0, 7.0]], np.float32)
    assert Interpreter(module).run([x])[0].tolist() == [[0.0, 0.5, 5.0, 7.0]]


def test_the_pass_says_why_it_leaves_a_smaller_bound_alone(command: Command, tmp_path: Path):
    model = clipped(tmp_path / "m.onnx", 2.0)
    words = ("--load-pass", EXAMPLES / "my_pass.py", "--pass-stats", "-o", "out.mlu")
    left = command("opt", model, "-p", "relu6-to-relu", *words)
    assert "the bound is too small" in left.err
    assert any(op.op_name == "math.clip" for op in compiler.load("out.mlu").main.body)
    command("opt", model, "-p", "relu6-to-relu{least-bound=1}", *words)
    assert any(op.op_name == "nn.relu" for op in compiler.load("out.mlu").main.body)


def test_the_pass_makes_a_compiled_network_cheaper(command: Command, tmp_path: Path):
    model = clipped(tmp_path / "m.onnx", 6.0)
    np.savez("x.npz", image=np.ones((1, 4), np.float32))
    calibrated = ("compile", model, "--calibrate", "x.npz", "-o")
    loaded = ("-p", "relu6-to-relu", "--load-pass", EXAMPLES / "my_pass.py")
    assert command(*calibrated, "a.cambricon").code == 0
    assert command(*calibrated, "b.cambricon", *loaded).code == 0
    assert Path("b.cambricon").stat().st_size < Path("a.cambricon").stat().st_size


def test_the_trained_network_is_the_one_that_was_exported():
    """Made by train_digits.py, which needs torch and scikit-learn: here, that what it wrote fits together."""
    model = onnx.load(Path(compiler.__file__).parent / "demo" / "digits.onnx")
    kinds = {node.op_type for node in model.graph.node}
    assert kinds >= {"Conv", "BatchNormalization", "Relu", "Add", "MaxPool", "GlobalAveragePool", "Gemm"}
    pixels = Digits.load().test_images
    assert (pixels.min(), pixels.max()) == (0, 16)


def test_the_host_program_computes_what_a_session_computes(offline: Path, tmp_path: Path):
    images = np.load(offline.with_name("images.npz"))["image"]
    np.savez(tmp_path / "all.npz", image=images)  # it takes those of one run
    images = images[:1]
    found = started("cnrt_host.py", offline, "all.npz", "out.npz", folder=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "microseconds on the chip" in found.stdout
    scores = np.load(tmp_path / "out.npz")["scores"]
    expected = Session(offline).run(images)
    assert isinstance(expected, np.ndarray)
    assert (scores.reshape(expected.shape) == expected).all()


def test_the_host_program_says_what_went_wrong(tmp_path: Path):
    np.savez(tmp_path / "one.npz", image=np.zeros(1))
    found = started("cnrt_host.py", "missing.cambricon", "one.npz", folder=tmp_path)
    assert found.returncode == 1
    assert "CNRT error 632022: A resource or file does not exist." in found.stderr
