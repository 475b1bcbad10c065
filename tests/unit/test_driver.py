"""The journey as one function: pipelines as text, options that reach their passes, lint without data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compiler
from compiler import driver
from compiler.errors import CompilerError, Diagnostic
from compiler.instruments import TimePasses
from compiler.ir.core import Module
from compiler.pass_manager import Statistics, parse_pipeline
from targets.mlu220.container import OfflineModel
from tests.command import convolution
from tests.journeys import random_inputs, run_simulator
from tests.networks import Network


def network() -> Module:
    net = Network((1, 4, 8, 8))
    return net.done(net.conv(net.relu(net.conv(net.x, 8, "a", kernel=3), "r"), 4, "b"))


def compiled(module: Module, **options: object) -> OfflineModel:
    prepared = driver.prepare(module, crash_directory=None)
    scheme = driver.calibrate(prepared, [random_inputs(prepared)], "minmax")
    return driver.compile_model(prepared, scheme=scheme, crash_directory=None, **options)  # type: ignore[arg-type]


def test_the_pipeline_is_text_that_parses_back_with_its_options() -> None:
    text = driver.pipeline_text(float_type="f32", keep_float=("a",), i16=("b*",))
    passes = {p.name: p for p in parse_pipeline(text)}
    assert passes["legalize"].float == "f32"  # type: ignore[attr-defined]
    assert passes["quantize"].keep_float == ("a",) and passes["quantize"].i16 == ("b*",)  # type: ignore[attr-defined]
    assert next(iter(passes)) == "quantize" and list(passes)[-1] == "plan-memory"


def test_defaults_are_not_spelled_out() -> None:
    assert "{" not in driver.pipeline_text()


def test_board_and_cores_are_recorded() -> None:
    model = compiled(network(), board="som", cores=2)
    assert (model.board, model.cores) == ("som", 2)
    assert model.metadata["board"] == "som"


def test_the_module_given_is_left_as_it_was() -> None:
    module = driver.prepare(network(), crash_directory=None)
    before = str(module)
    scheme = driver.calibrate(module, [random_inputs(module)], "minmax")
    driver.compile_model(module, scheme=scheme, crash_directory=None)
    assert str(module) == before


def test_a_scheme_may_be_a_file(tmp_path: Path) -> None:
    module = driver.prepare(network(), crash_directory=None)
    scheme = driver.calibrate(module, [random_inputs(module)], "minmax")
    scheme.save(tmp_path / "q.toml")
    models = [driver.compile_model(module, scheme=s, crash_directory=None) for s in (scheme, tmp_path / "q.toml")]
    assert models[0].to_bytes() == models[1].to_bytes()


def test_without_a_scheme_the_user_is_told_what_to_give() -> None:
    with pytest.raises(CompilerError, match=r"(?s)E520.*--calibrate"):
        driver.compile_model(driver.prepare(network(), crash_directory=None), crash_directory=None)


def test_without_quantisation_integer_layers_run_on_the_host_with_the_reason() -> None:
    diagnostics: list[Diagnostic] = []
    module = driver.prepare(network(), crash_directory=None)
    model = driver.compile_model(module, pipeline="mlu220", diagnostics=diagnostics, crash_directory=None)
    assert model.host_functions and any("integer only" in d.message for d in diagnostics)


def test_keep_float_and_i16_reach_their_layers() -> None:
    module = driver.prepare(network(), crash_directory=None)
    scheme = driver.calibrate(module, [random_inputs(module)], "minmax")

    def functions(**options: object) -> list[str]:
        text = driver.pipeline_text(**options)  # type: ignore[arg-type]
        model = driver.compile_model(module, scheme=scheme, pipeline=text, crash_directory=None)
        return [step.function for step in model.steps]

    assert functions() == functions(i16=("a",)) == ["subnet0"]
    assert any(name.startswith("host") for name in functions(keep_float=("b",)))


def test_passes_can_be_put_after_prepare() -> None:
    module = driver.prepare(network(), "prune-channels{ratio=0.5,multiple=1}", crash_directory=None)
    (first, *_) = (op for op in module.main.body if op.op_name == "nn.conv2d")
    assert first.result.type.shape[1] < 8
    scheme = driver.calibrate(module, [random_inputs(module)], "minmax")
    model = driver.compile_model(module, scheme=scheme, crash_directory=None)
    assert run_simulator(model, random_inputs(module))[0].shape == (1, 4, 8, 8)


def test_instruments_and_statistics_see_every_pass() -> None:
    times, statistics = TimePasses(), Statistics()
    compiled(network(), instruments=[times], statistics=statistics)
    names = [name for name, _ in times.seconds]
    assert names == [p.name for p in parse_pipeline(driver.pipeline_text())]
    assert statistics.of("partition")["segments on the chip"] == 1 and statistics.of("fuse-layers")["kernels"] >= 2


def test_a_pipeline_with_a_misspelt_pass_is_refused_before_any_work() -> None:
    with pytest.raises(CompilerError, match="schedule"):
        driver.compile_model(network(), pipeline="quantize,schedul", crash_directory=None)


def test_lint_says_what_becomes_of_every_node_without_data(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    w = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="the_conv"),
        helper.make_node("Atan", ["c"], ["y"], name="the_tangent"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 5, 5))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 5, 5))], [w],
    )  # fmt: skip
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    text = str(driver.lint_model(path))
    assert "the_tangent" in text and "no instruction for math.atan" in text


def test_no_public_name_is_also_a_module_which_would_take_its_place_once_imported() -> None:
    import pkgutil

    assert not set(compiler.__all__) & {m.name for m in pkgutil.iter_modules(compiler.__path__)}


# -- what scripts get wrong ------------------------------------------------------------------------------------------
def test_what_options_are_called_in_python_is_said_to_scripts_only(tmp_path: Path) -> None:
    path = convolution(tmp_path / "open.onnx", (1, 3, "h", "w"))
    with pytest.raises(CompilerError) as raised:
        compiler.load(path)
    assert "--shape image=1x3x224x224" in str(raised.value)
    assert "in Python: compiler.load(model, shapes={'NAME': (1, 3, 224, 224)})" in str(raised.value)
    assert "in Python" not in raised.value.render()
    with pytest.raises(CompilerError, match=r"in Python: compiler\.compile_model\(module, scheme=compiler\.calibrate"):
        compiler.compile_model(compiler.prepare(compiler.load(path, {"image": (1, 3, 8, 8)})))


def test_every_option_with_a_name_in_python_is_one_of_the_command_line() -> None:
    import argparse
    import importlib

    from compiler.cli.main import VERBS
    from compiler.errors import IN_PYTHON

    options: set[str] = set()
    for verb in ("compile", "opt"):
        parser = argparse.ArgumentParser()
        importlib.import_module(VERBS[verb][0]).add_arguments(parser)
        options |= set(parser._option_string_actions)
    assert set(IN_PYTHON) <= options


@pytest.mark.parametrize("shapes", [{"image": "1x3x8x8"}, (1, 3, 8, 8), [("image", (1, 3, 8, 8))], {"image": 8}])
def test_shapes_that_are_no_sizes_by_name_are_told(tmp_path: Path, shapes: Any) -> None:
    with pytest.raises(CompilerError, match=r"E204[\s\S]*give sizes by input"):
        compiler.load(convolution(tmp_path / "small.onnx"), shapes=shapes)


def test_shapes_may_be_of_numpy(tmp_path: Path) -> None:
    array = np.zeros((2, 3, 8, 8))
    path = convolution(tmp_path / "small.onnx", ("n", 3, 8, 8))
    for shape in (list(array.shape), tuple(np.int64(d) for d in array.shape)):
        assert compiler.load(path, shapes={"image": shape}).main.arguments[0].type.shape == (2, 3, 8, 8)


@pytest.mark.parametrize("step", [compiler.prepare, compiler.compile_model, lambda m: compiler.calibrate(m, [])])
def test_a_path_in_place_of_a_module_is_told(step: Any) -> None:
    with pytest.raises(CompilerError, match=r"E102[\s\S]*compiler\.load"):
        step("model.onnx")


def test_a_single_batch_in_place_of_batches_is_told(tmp_path: Path) -> None:
    module = compiler.prepare(compiler.load(convolution(tmp_path / "small.onnx")))
    for batches in ({"image": np.zeros((1, 3, 8, 8), np.float32)}, "images.npz"):
        with pytest.raises(CompilerError, match=r"E526[\s\S]*\[batch\]"):
            compiler.calibrate(module, batches)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_type": "int8"}, "input_type cannot be 'int8'"), ({"float_type": "bf16"}, "float_type cannot be"),
        ({"pipeline": "quantize,mlu220", "float_type": "f32"}, "the pipeline says all the passes"),
    ],
)  # fmt: skip
def test_a_choice_there_is_not_or_that_does_nothing_is_told(tmp_path: Path, options: Any, message: str) -> None:
    module = compiler.prepare(compiler.load(convolution(tmp_path / "small.onnx")))
    with pytest.raises(CompilerError, match=message):
        compiler.compile_model(module, scheme="q.toml", **options)


def test_compare_takes_the_array_of_the_only_input(tmp_path: Path) -> None:
    module = compiler.prepare(compiler.load(convolution(tmp_path / "small.onnx")))
    found = compiler.compare(module, module, [np.ones((1, 3, 8, 8), np.float32)])
    assert found.samples == 1 and all(d.accumulated.noise == 0.0 for d in found)
