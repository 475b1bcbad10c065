"""What bisection rests on: a pass stopped after any number of its rewrites leaves a module that runs and means the
same, and a single rewrite gone wrong in the chip's own passes is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler import driver
from compiler.bisect import bisect
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.constants import read_module
from compiler.ir.core import Module
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from compiler.pass_manager import PIPELINES, PassContext, parse_pipeline, run_pipeline
from compiler.rewrite import RewriteCounter
from compiler.target import load_target
from runtime.session import Session
from targets.mlu220 import rule_table
from tests.journeys import random_inputs
from tests.networks import Network

CHIP = [p.name for p in parse_pipeline(PIPELINES["mlu220"])]
TARGET = load_target("mlu220", cores=2)


def network() -> Module:
    """A residual block, two branches joined, pooling, a vector at the end: something of every rule."""
    net = Network((1, 8, 12, 12))
    x = net.relu(net.conv(net.x, 16, "first", kernel=3), "first.r")
    x = net.add(net.conv(net.relu(net.conv(x, 16, "a", kernel=3), "a.r"), 16, "b", kernel=3), x, "sum")
    left, right = net.op("nn.sigmoid", net.conv(x, 8, "l"), name="l.s"), net.relu(net.conv(x, 8, "r"), "r.r")
    joined = net.op("tensor.concat", left, right, name="joined", axis=1)
    pooled = net.op("nn.max_pool2d", joined, name="pooled", kernel=(2, 2), strides=(2, 2))
    return net.done(net.op("nn.global_avg_pool", net.conv(pooled, 10, "y"), name="scores"))


@pytest.fixture(scope="module")
def stages() -> dict[str, Module]:
    """The network before each pass of the target's pipeline."""
    prepared = driver.prepare(network(), crash_directory=None)
    scheme = driver.calibrate(prepared, [random_inputs(prepared, 3)], "minmax")
    module = run_pipeline(prepared, "quantize", target=TARGET, options={"scheme": scheme}, crash_directory=None)
    found = {}
    for name in CHIP:
        found[name] = module
        module = run_pipeline(module, name, target=TARGET, crash_directory=None)
    found["emit"] = module
    return found


def stopped(module: Module, name: str, limit: int | None) -> tuple[Module, RewriteCounter]:
    counter = RewriteCounter(limit=limit)
    ctx = PassContext(target=TARGET, counter=counter)
    return run_pipeline(module, name, ctx=ctx, verify_each=False, crash_directory=None), counter


def rest_after(name: str) -> str:
    """The passes that follow; kernels of one op each are left unchained, for the search would take long."""
    rest = CHIP[CHIP.index(name) + 1 :]
    return ",".join(n for n in rest if name != "fuse-layers" or n != "chain-kernels")


def every(count: int, most: int = 12) -> list[int]:
    """All numbers up to `count`, or `most` of them spread over the range."""
    return sorted({round(k * count / most) for k in range(most + 1)} if count > most else range(count + 1))


@pytest.mark.parametrize("pipeline", ["simplify", "replicate{batch=3}", "take-pixels", "partition", "quantize"])
def test_a_pass_that_may_rewrite_nothing_changes_nothing(pipeline: str) -> None:
    """But for what nothing needs: simplify removes that all the same."""
    net = Network((1, 4, 8, 8))
    twins = [net.module.add_constant(name, np.ones((4, 4, 1, 1), np.float32)) for name in ("one", "two")]
    branches = [net.op("nn.conv2d", net.x, w, name=f"c.{w.name}") for w in twins]
    module = net.done(net.op("nn.max_pool2d", net.add(*branches, "sum"), name="pooled", kernel=(2, 2)))
    scheme = driver.calibrate(module, [random_inputs(module, 3)], "minmax")
    ctx = PassContext(target=TARGET, options={"scheme": scheme}, counter=RewriteCounter(limit=0))
    result = run_pipeline(module, pipeline, ctx=ctx, verify_each=False, crash_directory=None)
    assert print_module(result) == print_module(module)


@pytest.mark.parametrize("name", ["convert-layout", "legalize"])
def test_a_lowering_stopped_anywhere_computes_the_same(stages: dict[str, Module], name: str) -> None:
    inputs = random_inputs(stages[name], 5)
    wanted = Interpreter(stages[name]).run(inputs)[0]
    total = stopped(stages[name], name, None)[1].count
    assert total > 5
    for limit in every(total):
        module, counter = stopped(stages[name], name, limit)
        again = parse_module(print_module(module, inline_constants=True))
        found = Interpreter(again).run(inputs)[0]
        assert counter.count == limit
        assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max(), counter.last


@pytest.mark.parametrize("name", ["fuse-layers", "chain-kernels", "keep-on-chip", "schedule", "plan-memory"])
def test_a_choice_of_the_backend_stopped_anywhere_gives_the_same_bytes(stages: dict[str, Module], name: str) -> None:
    inputs = random_inputs(stages[name], 5)
    wanted = Interpreter(stages["fuse-layers"]).run(inputs)[0]
    total = stopped(stages[name], name, None)[1].count
    for limit in every(total, 3):
        module, _ = stopped(stages[name], name, limit)
        done = run_pipeline(module, rest_after(name), target=TARGET, crash_directory=None)
        assert np.array_equal(Session(TARGET.emit(done)).run(*inputs), wanted), f"{limit} of {total}"


# -- one rewrite gone wrong ------------------------------------------------------------------------------------------
def close_to(wanted: np.ndarray, inputs: list[np.ndarray]) -> Any:
    """A judge: good while the module gives about what it should."""

    def judge(path: Path) -> bool:
        found = Interpreter(read_module(path)).run(inputs)[0]
        return bool(np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max())

    return judge


def test_the_op_whose_lowering_is_wrong_is_found(
    stages: dict[str, Module], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = rule_table.LEGALIZERS["nn.relu"]

    def wrong(lowering: Any, op: Any) -> Any:
        made = right(lowering, op)
        return lowering.make("mlu.sigmoid", made) if op.name == "a.r" else made

    monkeypatch.setitem(rule_table.LEGALIZERS, "nn.relu", wrong)
    module = stages["convert-layout"]
    inputs = random_inputs(module, 5)
    judge = close_to(Interpreter(module).run(inputs)[0], inputs)
    pipeline = "convert-layout,partition,legalize,fuse-layers"
    culprit = bisect(module, pipeline, judge, target=TARGET, directory=tmp_path)
    assert culprit.pass_text == "legalize"
    assert culprit.description == "nn.relu at a.r"


def test_the_kernel_whose_schedule_is_wrong_is_found(
    stages: dict[str, Module], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All its buffers lie at one address; only the emitted program shows it."""
    best = TARGET.best_schedule

    def wrong(kernel: Any, constraints: dict[str, Any]) -> Any:
        found = best(kernel, constraints)
        if found is None or constraints.get("buffers") == 1 or kernel.name != guilty:
            return found
        return {**found[0], "slots": [[0, *slot[1:]] for slot in found[0]["slots"]]}, found[1]

    monkeypatch.setattr(TARGET, "best_schedule", wrong)
    before = stages["chain-kernels"]
    guilty = [op.name for op in before.ops() if op.op_name == "graph.kernel"][1]
    inputs = random_inputs(before, 5)
    wanted = Interpreter(before).run(inputs)[0]

    def judge(path: Path) -> bool:
        module = read_module(path)
        if any(op.op_name == "graph.kernel" and not op.attributes.get("schedule") for op in module.ops()):
            return True
        try:
            done = run_pipeline(module, "plan-memory", target=TARGET, crash_directory=None)
            return bool(np.array_equal(Session(TARGET.emit(done)).run(*inputs), wanted))
        except Exception:
            return False

    culprit = bisect(before, "schedule", judge, target=TARGET, directory=tmp_path)
    assert culprit.pass_text == "schedule"
    assert culprit.description == f"schedule {guilty}"
