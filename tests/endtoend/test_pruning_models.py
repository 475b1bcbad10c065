"""Structured pruning of real networks: shapes shrink as promised, and the law of pruning holds on them too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler.driver import compile_model
from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.load import load
from compiler.ir.core import Module
from compiler.ir.types import DType
from compiler.ir.verifier import verify
from compiler.pass_manager import PassContext, run_pipeline
from compiler.target import load_target
from passes.pruning.flow import dependencies
from passes.quantization.layers import computed_inputs, integer_layers
from passes.quantization.scheme import Scheme, TensorScheme
from targets.mlu220.hardware import load_board
from targets.mlu220.timeline import simulate
from tests.endtoend.core_models import CORE_MODELS, CoreModel

ONNX = [m for m in CORE_MODELS if m.file.endswith(".onnx")]
MODELS = {m.file.partition("_")[0]: m for m in ONNX}


def prepared(models: Path, model: CoreModel) -> Module:
    return run_pipeline(load(models / model.file, shapes=model.shapes), "prepare")


def lost(module: Module, pipeline: str) -> float:
    """The part of the parameters a pipeline of one pruning pass takes away."""
    ctx = PassContext()
    run_pipeline(module, pipeline, ctx=ctx)
    counts = ctx.statistics.of("prune-channels")
    return 1 - counts["parameters after"] / counts["parameters before"]


def test_squeezenet_loses_a_quarter_of_its_parameters(models):
    module = prepared(models, MODELS["squeezenet"])
    assert lost(module, "prune-channels{ratio=0.3}") >= 0.25
    assert lost(module, "prune-channels{ratio=0.3,multiple=64}") >= 0.25


def test_squeezenet_loses_fifteen_percent_of_its_modelled_cycles(models):
    target = load_target("mlu220", board="m2", cores=4)
    module = prepared(models, MODELS["squeezenet"])
    pruned = run_pipeline(module, "prune-channels{ratio=0.3}", target=target)
    assert modelled_cycles(pruned) <= 0.85 * modelled_cycles(module)


def modelled_cycles(module: Module) -> int:
    """What the timing report says of a module compiled with made-up ranges."""
    entry = TensorScheme.clipped(DType.I8, 1.0, 1.0, "minmax")
    scheme = Scheme(tensors={v.name: entry for op in integer_layers(module.main) for v in computed_inputs(op)})
    model = compile_model(module, scheme=scheme, board="m2", cores=4)
    return sum(simulate(f.programs, load_board("m2")).total_cycles for f in model.device_functions)


def test_resnet20_loses_a_quarter_of_its_parameters_in_multiples_of_eight(models):
    module = prepared(models, MODELS["resnet20"])
    assert lost(module, "prune-channels{ratio=0.3,multiple=8}") >= 0.25


def test_every_channel_count_of_resnet20_is_a_multiple(models):
    module = prepared(models, MODELS["resnet20"])
    pruned = run_pipeline(module, "prune-channels{ratio=0.3,multiple=8}")
    counts = {op.results[0].type.shape[1] for op in pruned.main.body if op.op_name == "nn.conv2d"}
    assert all(count % 8 == 0 for count in counts)


@pytest.mark.parametrize("model", ONNX, ids=lambda m: m.file)
def test_a_pruned_network_is_the_whole_one_with_channels_ignored(model, models, data):
    module = prepared(models, model)
    dead = smallest_channels(module, 0.3)
    whole, pruned = module.clone(), module.clone()
    ignore(whole, dead)
    dependencies(pruned.main).remove(pruned, pruned.main, dead)
    pruned.drop_unused_constants()
    verify(pruned)
    inputs = model.inputs(data)
    for wanted, found in zip(Interpreter(whole).run(inputs), Interpreter(pruned).run(inputs), strict=True):
        tolerance = 1e-3 * max(1e-3, float(np.abs(wanted).max()))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


def smallest_channels(module: Module, ratio: float) -> list[int]:
    dead: list[int] = []
    for group in dependencies(module.main).groups():
        if not group.pinned:
            order = sorted(group.components, key=lambda component: component.saliency)
            dead += [a for component in order[: int(ratio * len(order))] for a in component.atoms.tolist()]
    return dead


def ignore(module: Module, dead: list[int]) -> None:
    """Put zeros wherever a layer sums over one of the channels."""
    for place in dependencies(module.main).slices:
        if place.contracted:
            constant = place.op.operands[place.operand]
            data = constant.data.copy()
            np.moveaxis(data, place.axis, 0)[np.isin(place.atoms, dead)] = 0
            place.op.set_operand(place.operand, module.add_constant(constant.name, data))
