"""One meaning: the legalised module in NumPy, the placed module, the emitted instructions in the oracle and the
translated file in the simulator give the same bytes, whatever the tiling, the cores, the host threads and the steps
of translation.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from compiler import driver
from compiler.batch import load_batch, replicated
from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.load import load
from compiler.ir.core import Module
from compiler.pass_manager import run_pipeline
from compiler.target import load_target
from tests.endtoend.core_models import CORE_MODELS, CoreModel
from tests.journeys import (
    Arrays,
    assert_one_meaning,
    assert_same_bytes,
    emitted,
    journey,
    placed,
    random_inputs,
    run_oracle,
    run_simulator,
)
from tests.random_networks import networks, random_network

TILINGS = ("schedule", "schedule{max-rows=3,max-channels=64}", "schedule{buffers=1,split=channels}")
STEPS = ("fuse", "elide", "overlap")

ways = st.fixed_dictionaries({
    "schedule": st.sampled_from((*TILINGS, "schedule{max-rows=1}", "schedule{split=rows,buffers=2}")),
    "cores": st.integers(1, 4),
    "legalize": st.sampled_from(("legalize", "legalize{float=f32}", "legalize{rounding=half-away}")),
    "fuse": st.sampled_from(("fuse-layers", "fuse-layers{elementwise=false}", "fuse-layers{max-ops=2}")),
    "weights": st.sampled_from(("per-channel", "per-tensor")),
    "residuals": st.sampled_from(("float", "i8")),
    "bits": st.sampled_from((8, 8, 16)),
})  # fmt: skip


def compiled_or_skipped(module: Module, way: dict[str, Any]) -> Any:
    """A random network may hold tensors that are always zero, which calibration refuses."""
    try:
        return journey(module, **way)
    except CompilerError as fault:
        assume(not any(d.code == "E526" for d in fault.diagnostics))
        raise


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(networks(), ways)
def test_random_networks_have_one_meaning(module: Module, way: dict[str, Any]) -> None:
    made = compiled_or_skipped(module, way)
    assert_one_meaning(made, random_inputs(made.prepared, 3))


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(14), ways)
def test_many_random_networks_have_one_meaning(module: Module, way: dict[str, Any]) -> None:
    made = compiled_or_skipped(module, way)
    assert_one_meaning(made, random_inputs(made.prepared, 3), threads=(1, 4))


@pytest.mark.parametrize("seed", [2, 6, 12])
def test_no_step_of_translation_and_no_number_of_threads_changes_a_byte(seed: int) -> None:
    made = journey(random_network(seed, 10))
    inputs = random_inputs(made.prepared, 3)
    wanted = Interpreter(made.legal).run(inputs)
    for translate in (False, *({step: False} for step in STEPS)):
        assert_same_bytes(run_simulator(made.model, inputs, 1, translate), wanted, f"translate={translate}")
    for threads in (2, 3):
        assert_same_bytes(run_simulator(made.model, inputs, threads), wanted, f"{threads} threads")


# -- real networks ---------------------------------------------------------------------------------------------------
SMALL = [m for m in CORE_MODELS if m.file.startswith(("mnist_8", "resnet20"))]
LARGE = [m for m in CORE_MODELS if m.file.startswith(("squeezenet", "mobilenet"))]


def name_of(model: CoreModel) -> str:
    return model.file.removesuffix(".onnx")


@cache
def legal_module(models: Path, data: Path, model: CoreModel) -> Module:
    """The legalised module of a real model, calibrated on the one input it is then run on."""
    module = driver.prepare(load(models / model.file, model.shapes), crash_directory=None)
    scheme = driver.calibrate(module, [model.inputs(data)], "minmax")
    pipeline = "quantize,convert-layout,partition,legalize"
    target = load_target("mlu220")
    return run_pipeline(module, pipeline, target=target, options={"scheme": scheme}, crash_directory=None)


@cache
def expected(models: Path, data: Path, model: CoreModel) -> Arrays:
    return Interpreter(legal_module(models, data, model)).run(model.inputs(data))


def assert_compiled_agrees(
    models: Path, data: Path, model: CoreModel, cores: int, schedule: str, oracle: bool, threads: tuple[int, ...],
    translations: tuple[Any, ...] = (None,),
) -> None:  # fmt: skip
    inputs, wanted = model.inputs(data), expected(models, data, model)
    module = placed(legal_module(models, data, model), schedule, cores=cores)
    file = emitted(module, cores)
    if oracle:
        assert_same_bytes(Interpreter(module).run(inputs), wanted, "after plan-memory")
        assert_same_bytes(run_oracle(file, inputs), wanted, "oracle")
    for number in threads:
        for translate in translations:
            what = f"simulator, {number} threads, translate={translate}"
            assert_same_bytes(run_simulator(file, inputs, number, translate), wanted, what)


@pytest.mark.parametrize("schedule", TILINGS)
@pytest.mark.parametrize("cores", [1, 2, 4])
@pytest.mark.parametrize("model", SMALL, ids=name_of)
def test_a_small_model_has_one_meaning(model: CoreModel, cores: int, schedule: str, models: Path, data: Path) -> None:
    assert_compiled_agrees(
        models, data, model, cores, schedule, oracle=True, threads=(1, 4), translations=(None, False)
    )


@pytest.mark.parametrize(
    ("cores", "schedule", "oracle"), [(4, TILINGS[0], True), (1, TILINGS[2], False), (2, TILINGS[1], False)]
)
def test_squeezenet_has_one_meaning(cores: int, schedule: str, oracle: bool, models: Path, data: Path) -> None:
    assert_compiled_agrees(models, data, LARGE[0], cores, schedule, oracle, threads=(1,) if oracle else (4,))


def test_mobilenet_v2_has_one_meaning(models: Path, data: Path) -> None:
    assert_compiled_agrees(models, data, LARGE[1], 4, TILINGS[0], oracle=True, threads=(4,))


@pytest.mark.slow
@pytest.mark.parametrize("schedule", TILINGS)
@pytest.mark.parametrize("cores", [1, 2, 4])
@pytest.mark.parametrize("model", LARGE, ids=name_of)
def test_a_large_model_has_one_meaning(model: CoreModel, cores: int, schedule: str, models: Path, data: Path) -> None:
    each = [{step: False} for step in STEPS] if cores == 4 else []
    assert_compiled_agrees(
        models, data, model, cores, schedule, oracle=True, threads=(1, 4), translations=(None, False, *each)
    )


@pytest.mark.parametrize("board", ["m2", "som", "edge"])
def test_the_board_changes_no_byte(board: str, models: Path, data: Path) -> None:
    model = SMALL[0]
    module = driver.prepare(load(models / model.file, model.shapes), crash_directory=None)
    scheme = driver.calibrate(module, [model.inputs(data)], "minmax")
    file = driver.compile_model(module, scheme=scheme, board=board, crash_directory=None)
    assert file.board == board
    assert_same_bytes(run_simulator(file, model.inputs(data)), expected(models, data, model), board)


def legal_batch(models: Path, data: Path, model: CoreModel, batch: int) -> tuple[Module, Arrays]:
    """The legalised module of a real model for a batch (imported with it, or copied), and images that differ."""
    module, copies = load_batch(lambda shapes: load(models / model.file, model.shapes | dict(shapes)), batch)
    sample = model.inputs(data)
    inputs = [np.concatenate([np.roll(x, 5 * k, axis=-1) for k in range(batch)]) for x in sample]
    prepared = driver.prepare(module, crash_directory=None)
    scheme = driver.calibrate(prepared, [sample if copies > 1 else inputs], "minmax")
    text = replicated("quantize,convert-layout,partition,legalize", copies)
    target = load_target("mlu220")
    return run_pipeline(prepared, text, target=target, options={"scheme": scheme}, crash_directory=None), inputs


@pytest.mark.slow
@pytest.mark.parametrize("model", CORE_MODELS, ids=name_of)
def test_a_batch_of_a_model_has_one_meaning_on_any_cores(model: CoreModel, models: Path, data: Path) -> None:
    if model.file.startswith("silero"):
        pytest.skip("its state is not a batch of samples")
    legal, inputs = legal_batch(models, data, model, 4)
    wanted = Interpreter(legal).run(inputs)
    for cores in (1, 2, 4):
        module = placed(legal, cores=cores)
        assert_same_bytes(run_simulator(emitted(module, cores), inputs, 2), wanted, f"{cores} cores, batch 4")


@pytest.mark.slow
@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("model", [m for m in CORE_MODELS if m not in SMALL + LARGE], ids=name_of)
def test_a_model_has_one_meaning_on_fewer_cores(model: CoreModel, cores: int, models: Path, data: Path) -> None:
    assert_compiled_agrees(models, data, model, cores, TILINGS[0], oracle=False, threads=(2,))


@pytest.mark.slow
@pytest.mark.parametrize("model", [m for m in CORE_MODELS if m not in SMALL + LARGE], ids=name_of)
def test_every_other_model_has_one_meaning_with_its_host_segments(model: CoreModel, models: Path, data: Path) -> None:
    assert_compiled_agrees(models, data, model, 4, TILINGS[0], oracle=True, threads=(1, 4))


@pytest.mark.parametrize("name", ["vit_mnist", "silero", "ppocr"])
def test_models_with_many_host_segments_have_one_meaning(name: str, models: Path, data: Path) -> None:
    (model,) = (m for m in CORE_MODELS if m.file.startswith(name))
    assert_compiled_agrees(models, data, model, 2, TILINGS[1], oracle=True, threads=(2,))


def test_a_batch_gives_what_its_images_give_alone() -> None:
    """Batch 3 in one file against three runs of batch 1, calibrated alike."""
    random = np.random.default_rng(5)
    images = random.normal(size=(3, 4, 9, 7)).astype(np.float32)
    outputs = []
    for batch in (1, 3):
        from tests.networks import Network

        net = Network((batch, 4, 9, 7))
        y = net.conv(net.relu(net.conv(net.x, 8, "a", kernel=3), "r"), 70, "b", kernel=3, strides=(2, 2))
        pooled = net.op("nn.global_avg_pool", y, name="g")
        scores = net.matmul(net.op("tensor.reshape", pooled, name="f", shape=(batch, 70)), 5, "m")
        samples = [[images]] if batch == 3 else [[image[None]] for image in images]
        made = journey(net.done(scores), samples)
        runs = [assert_one_meaning(made, [images[k : k + batch]])[0] for k in range(0, 3, batch)]
        outputs.append(np.concatenate(runs))
    assert_same_bytes([outputs[0]], [outputs[1]], "batch 3")
