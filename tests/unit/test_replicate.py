"""`replicate` and `--batch`: several samples at once, each as if it were alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import compiler
from compiler.batch import load_batch, replicated
from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Module
from compiler.pass_manager import run_pipeline
from targets.mlu220.container import OfflineModel
from tests.command import Command, convolution, images, write_model
from tests.networks import Network


def fixed(path: Path) -> Path:
    """A model whose reshape fixes the batch: convolution, reshape to [1, 192], matmul."""
    random = np.random.default_rng(3)
    weights = {
        "w": random.normal(size=(3, 3, 1, 1)).astype(np.float32), "fc": random.normal(size=(192, 4)).astype(np.float32),
        "flat": np.array([1, 192]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], name="conv"),
        helper.make_node("Reshape", ["c", "flat"], ["f"], name="reshape"),
        helper.make_node("MatMul", ["f", "fc"], ["scores"], name="fc"),
    ]
    return write_model(path, nodes, weights, (1, 3, 8, 8))


def flattened(path: Path) -> Path:
    """A model that works on vectors: no dimension of its reshapes counts samples."""
    random = np.random.default_rng(4)
    weights = {"fc": random.normal(size=(192, 4)).astype(np.float32), "flat": np.array([192]), "row": np.array([1, 4])}
    nodes = [
        helper.make_node("Reshape", ["image", "flat"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "fc"], ["s"], name="fc"),
        helper.make_node("Reshape", ["s", "row"], ["scores"], name="row"),
    ]
    return write_model(path, nodes, weights, (1, 3, 8, 8))


def mixing(path: Path) -> Path:
    """A model that a larger batch would not break but change: its reshape [-1] joins the samples, a mean follows."""
    nodes = [
        helper.make_node("Reshape", ["image", "to"], ["r"], name="reshape"),
        helper.make_node("ReduceMean", ["r"], ["m"], name="mean", axes=[0], keepdims=1),
        helper.make_node("Add", ["image", "m"], ["scores"], name="sum"),
    ]
    return write_model(path, nodes, {"to": np.array([-1])}, (1, 4))


def batched(path: Path, batch: int) -> tuple[Module, int]:
    return load_batch(lambda shapes: compiler.load(path, shapes), batch)


def test_copies_compute_every_sample_as_if_it_were_alone():
    net = Network((1, 3, 6, 6))
    y = net.relu(net.conv(net.x, 4, "c", kernel=3), "r")
    single = net.done(net.add(y, y, "s"), y)
    module = run_pipeline(single, "replicate{batch=3}")
    assert [a.type.shape for a in module.main.arguments] == [(3, 3, 6, 6)]
    assert module.main.output_names == single.main.output_names
    x = np.random.default_rng(0).normal(size=(3, 3, 6, 6)).astype(np.float32)
    found = Interpreter(module).run([x])
    for index in range(3):
        wanted = Interpreter(single).run([x[index : index + 1]])
        assert all(np.array_equal(w, f[index : index + 1]) for w, f in zip(wanted, found, strict=True))


def test_weights_are_shared_among_copies():
    net = Network((1, 3, 6, 6))
    module = run_pipeline(net.done(net.conv(net.x, 4, "c")), "replicate{batch=5}")
    assert len(module.constants) == 2
    assert sum(op.op_name == "nn.conv2d" for op in module.main.body) == 5


def test_one_copy_is_the_module_itself():
    net = Network((1, 3))
    module = net.done(net.relu(net.x, "r"))
    assert str(run_pipeline(module, "replicate")) == str(module)


def test_what_does_not_count_samples_is_named():
    net = Network((2, 3), (1, 3))
    with pytest.raises(CompilerError, match="input 'x' is 2x3"):
        run_pipeline(net.done(net.add(net.x, net.inputs[1], "s")), "replicate{batch=2}")


def test_a_model_that_can_be_imported_with_the_batch_is(tmp_path):
    module, copies = batched(convolution(tmp_path / "m.onnx"), 4)
    assert copies == 1
    assert module.main.arguments[0].type.shape == (4, 3, 8, 8)


def test_a_reshape_to_one_sample_becomes_one_to_the_batch(tmp_path):
    module, copies = batched(fixed(tmp_path / "m.onnx"), 4)
    assert copies == 1
    assert [op.attributes["shape"] for op in module.ops() if op.op_name == "tensor.reshape"] == [(4, 192)]
    assert module.main.outputs[0].type.shape == (4, 4)


@pytest.mark.parametrize("model", [flattened, mixing])
def test_a_model_whose_ops_fix_the_batch_or_mix_the_samples_is_copied(tmp_path, model):
    module, copies = batched(model(tmp_path / "m.onnx"), 4)
    assert copies == 4
    assert module.main.arguments[0].type.shape[0] == 1


def test_copies_are_made_after_quantisation():
    text = replicated("quantize,mlu220", 3)
    assert text.startswith("quantize,replicate{batch=3},convert-layout")
    assert replicated("quantize,convert-layout", 1) == "quantize,convert-layout"


@pytest.mark.parametrize("model", [convolution, fixed, flattened])
def test_a_compiled_batch_gives_what_single_runs_give(command: Command, tmp_path: Path, model):
    path, data = model(tmp_path / "m.onnx"), images(tmp_path / "images.npz", 6)
    command("compile", path, "-o", "one.cambricon", "--calibrate", data, "--save-scheme", "q.toml")
    assert command("compile", path, "-o", "three.cambricon", "--scheme", "q.toml", "--batch", "3").code == 0
    assert OfflineModel.load("three.cambricon").inputs[0].shape == (3, 3, 8, 8)
    command("run", "one.cambricon", "--inputs", data, "--output", "one.npz")
    command("run", "three.cambricon", "--inputs", data, "--output", "three.npz")
    assert np.array_equal(np.load("one.npz")["scores"], np.load("three.npz")["scores"])


def test_batch_and_calibration_take_the_same_samples(command: Command, tmp_path: Path):
    path, data = fixed(tmp_path / "m.onnx"), images(tmp_path / "images.npz", 6)
    result = command("compile", path, "-o", "m.cambricon", "--calibrate", data, "--batch", "2", "--json")
    assert result.code == 0
    assert json.loads(result.out)["functions"]
    run = command("run", "m.cambricon", "--inputs", data, "--against", path, "--tolerance", "0.1")
    assert run.code == 0, run.err
    assert "same largest output in 6 of 6 samples" in run.out or "of 6 samples" in run.out


def test_batch_does_not_go_with_a_pipeline(command: Command, model_file: Path):
    result = command("compile", model_file, "-o", "m.cambricon", "--pipeline", "quantize", "--batch", "2")
    assert result.code == 1
    assert "replicate" in result.err
