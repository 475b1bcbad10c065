"""`mluc export`: names, quantised values, several outputs, what cannot be written; the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import compiler
from compiler import driver
from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.export.onnx import to_onnx
from compiler.frontend.load import load
from compiler.ir.core import Module
from compiler.ir.parser import parse_module
from compiler.pass_manager import run_pipeline
from compiler.target import load_target
from tests.command import Command
from tests.journeys import random_inputs
from tests.networks import Network


def run(model: onnx.ModelProto, inputs: list[np.ndarray]) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: a for i, a in zip(session.get_inputs(), inputs, strict=True)})


def network() -> Module:
    net = Network((1, 3, 8, 8))
    x = net.relu(net.conv(net.x, 8, "first", kernel=3), "first.r")
    x = net.add(net.conv(x, 8, "second", kernel=3), x, "sum")
    x = net.op("nn.max_pool2d", x, name="pooled", kernel=(2, 2), strides=(2, 2))
    return net.done(net.op("nn.silu", net.conv(x, 4, "y"), name="scores"), x)


def test_a_network_comes_back_the_same_from_its_onnx_form(tmp_path: Path) -> None:
    module = network()
    made = to_onnx(module)
    inputs = random_inputs(module)
    wanted = Interpreter(module).run(inputs)
    for ours, theirs in zip(wanted, run(made, inputs), strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)
    onnx.save(made, str(tmp_path / "m.onnx"))
    again = load(tmp_path / "m.onnx")
    assert [a.name for a in again.main.arguments] == ["x"] and again.main.output_names == module.main.output_names
    for ours, theirs in zip(wanted, Interpreter(again).run(inputs), strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)


def test_bounds_of_integers_are_rounded_inwards() -> None:
    text = "func @main(%x: tensor<5xi8>) -> (tensor<5xi8>) {\n"
    text += "  %y = math.clip %x {low = -2.5, high = 300.0} : tensor<5xi8>\n  return %y\n}\n"
    x = np.array([-100, -3, -2, 5, 100], np.int8)
    assert run(to_onnx(parse_module(text)), [x])[0].tolist() == [-2, -2, -2, 5, 100]


def test_a_transpose_of_a_single_number_has_no_axes_to_name() -> None:
    net = Network(())
    made = to_onnx(net.done(net.op("tensor.transpose", net.x, name="y", perm=())))
    assert run(made, [np.array(3.0, np.float32)])[0] == 3.0


def test_all_that_cannot_be_written_is_told_at_once() -> None:
    net = Network((1, 2, 4, 4))
    first = net.op("nn.avg_pool2d", net.x, name="first", kernel=(1, 1), pads=(1, 1, 1, 1))
    second = net.op("nn.avg_pool2d", net.relu(first, "r"), name="second", kernel=(1, 1), pads=(1, 1, 1, 1))
    with pytest.raises(CompilerError) as fault:
        to_onnx(net.done(second))
    assert [d.where for d in fault.value.diagnostics] == ["'first'", "'second'"]


def test_values_keep_their_names() -> None:
    made = to_onnx(network())
    names = {name for node in made.graph.node for name in node.output}
    assert {"first", "first.r", "second", "sum", "pooled", "scores"} <= names
    assert {t.name for t in made.graph.initializer} >= {"first.w", "first.b"}


def test_the_same_module_gives_the_same_bytes() -> None:
    assert to_onnx(network()).SerializeToString() == to_onnx(network()).SerializeToString()


def quantised(weights: str = "per-channel") -> tuple[Module, list[np.ndarray]]:
    module = driver.prepare(network(), crash_directory=None)
    inputs = random_inputs(module, 3)
    scheme = driver.calibrate(module, [inputs], "minmax")
    text = f"quantize{{weights={weights}}}"
    return run_pipeline(module, text, options={"scheme": scheme}, crash_directory=None), inputs


@pytest.mark.parametrize("weights", ["per-channel", "per-tensor"])
def test_quantised_values_become_pairs_of_quantise_and_dequantise(weights: str) -> None:
    module, inputs = quantised(weights)
    made = to_onnx(module)
    kinds = [node.op_type for node in made.graph.node]
    assert "QuantizeLinear" in kinds and "DequantizeLinear" in kinds
    stored = {t.name: t.data_type for t in made.graph.initializer}
    assert any(kind == onnx.TensorProto.INT8 for name, kind in stored.items() if name.startswith("first"))
    for ours, theirs in zip(Interpreter(module).run(inputs), run(made, inputs), strict=True):
        assert np.abs(ours - theirs).max() < 0.02 * np.abs(ours).max()  # a tie may round to the neighbour


def test_a_value_returned_twice_an_input_and_a_constant_can_be_outputs() -> None:
    text = """// mluc ir 1
const @c : tensor<2xf32> = dense<[1.0, 2.0]>
func @main(%x: tensor<2xf32>) -> (tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>)
    attributes {outputs = ["a", "b", "in", "two"]} {
  %y = nn.relu %x : tensor<2xf32>
  return %y, %y, %x, @c
}"""
    module = parse_module(text)
    made = to_onnx(module)
    assert [o.name for o in made.graph.output] == ["a", "b", "in", "two"]
    found = run(made, [np.array([-1.0, 3.0], np.float32)])
    assert [f.tolist() for f in found] == [[0.0, 3.0], [0.0, 3.0], [-1.0, 3.0], [1.0, 2.0]]


def test_numbers_without_axes_stay_so() -> None:
    text = """// mluc ir 1
const @c : tensor<f32> = dense<[2.0]>
func @main(%x: tensor<f32>) -> (tensor<f32>) {
  %y = math.mul %x, @c : tensor<f32>
  return %y
}"""
    (found,) = run(to_onnx(parse_module(text)), [np.array(3.0, np.float32)])
    assert found.shape == () and found == 6.0


def test_the_largest_elements_come_with_their_places() -> None:
    net = Network((3, 10))
    net.op("tensor.topk", net.x, name="top", k=4, axis=1)
    (top,) = net.main.body
    module = net.done(*top.results)
    inputs = random_inputs(module)
    for ours, theirs in zip(Interpreter(module).run(inputs), run(to_onnx(module), inputs), strict=True):
        assert np.array_equal(ours, theirs)


def refused(module: Module) -> str:
    with pytest.raises(CompilerError) as fault:
        to_onnx(module)
    return str(fault.value)


def test_what_is_made_for_the_chip_is_refused_with_the_stage_to_export_at() -> None:
    module, _ = quantised()
    target = load_target("mlu220")
    laid_out = run_pipeline(module, "convert-layout", target=target, crash_directory=None)
    told = refused(laid_out)
    assert "nn.conv2d: is laid out for the chip (NHWC)" in told and "before convert-layout" in told
    assert told.count("error[E801]") >= 3
    split = run_pipeline(laid_out, "partition,legalize", target=target, crash_directory=None)
    assert "split between chip and host" in refused(split) and "before the pass partition" in refused(split)


def test_every_op_without_a_form_is_named_at_once() -> None:
    text = """// mluc ir 1
func @main(%x: tensor<2xi32>) -> (tensor<2xf32>, tensor<2xi32>) {
  %y = math.bitcast %x {to = f32} : tensor<2xf32>
  %z = tensor.cumprod %x {axis = 0} : tensor<2xi32>
  return %y, %z
}"""
    told = refused(parse_module(text))
    assert "math.bitcast: ONNX of opset 21 reinterprets no bytes" in told and "no running product" in told


def test_scripts_export_through_the_package() -> None:
    assert compiler.to_onnx is to_onnx


# -- the command -----------------------------------------------------------------------------------------------------
def test_export_writes_what_passes_made(command: Command, model_file: Path, calibration: Path) -> None:
    result = command("export", model_file, "-p", "prepare", "-o", "out.onnx")
    assert result.code == 0, result.err
    made = onnx.load("out.onnx")
    assert f"{len(made.graph.node)} nodes, opset 21" in result.out
    assert "BatchNormalization" not in {n.op_type for n in made.graph.node}
    image = np.load(calibration)["image"][:1]
    wanted = Interpreter(compiler.load(model_file)).run([image])[0]
    assert np.allclose(run(made, [image])[0], wanted, atol=1e-4)


def test_an_exported_file_compiles_to_the_same_results(command: Command, model_file: Path, calibration: Path) -> None:
    assert command("opt", model_file, "-p", "prepare", "-o", "p.mlu").code == 0
    assert command("export", "p.mlu", "-o", "p.onnx").code == 0
    for source, made in ((model_file, "a.cambricon"), ("p.onnx", "b.cambricon")):
        assert command("compile", source, "-o", made, "--calibrate", calibration, "--method", "minmax").code == 0
        assert command("run", made, "--inputs", calibration, "--output", f"{made}.npz").code == 0
    one, other = (np.load(f"{name}.cambricon.npz")["scores"] for name in "ab")
    assert np.abs(one - other).max() < 1e-3 * np.abs(one).max()


def test_export_of_a_quantised_model_takes_a_scheme(command: Command, offline: Path) -> None:
    model, scheme = offline.with_name("small.onnx"), offline.with_name("q.toml")
    assert command("export", model, "-p", "prepare,quantize", "--scheme", scheme, "-o", "q.onnx").code == 0
    assert "QuantizeLinear" in {n.op_type for n in onnx.load("q.onnx").graph.node}
    assert "error[E102]" in command("export", model, "--scheme", scheme, "-o", "q.onnx").err


def test_export_never_replaces_its_input(command: Command, model_file: Path) -> None:
    assert "error[E101]" in command("export", model_file, "-o", model_file).err
