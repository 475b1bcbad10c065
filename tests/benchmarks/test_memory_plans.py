"""Off-chip memory of every core and light model beside its lower bound, as a table.

`pytest tests/benchmarks/test_memory_plans.py -m slow --models DIR` prints it. Every model is planned twice: with all
values between kernels off the chip, which is what the planner is for, and as it is compiled, with the values that fit
kept on the chip. Ranges are made up; they change no size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compiler import driver
from compiler.frontend.load import load
from compiler.ir.core import Module
from compiler.ir.verifier import is_subnet
from compiler.pass_manager import PIPELINES, PassContext, parse_pipeline, run_pipeline
from compiler.target import load_target
from tests.endtoend.core_models import CORE_MODELS, CoreModel
from tests.light_models import LIGHT_MODELS, save_light_model

LIMIT = 1.02
"""Most times the bound, and only where the exact solver proves that no plan needs less."""


HEADING = (
    f"{'model':28} {'values':>6} {'peak':>11} {'bound':>11} {'ratio':>6}  {'given order':>11}  {'kept on chip':>12}"
    "  how"
)


def assert_planned(name: str, module: Module, show: Callable[..., None]) -> None:
    """Plan a scheduled module's subnets and show a row."""
    target = load_target("mlu220")
    module = driver.prepare(module)
    scheme = driver.pretended_scheme(module)
    backend = [p.name for p in parse_pipeline(PIPELINES["mlu220"])]
    middle = backend[: backend.index("chain-kernels") + 1]
    options: dict[str, Any] = {"target": target, "verify_each": False, "crash_directory": None}
    module = run_pipeline(module, ",".join(["quantize", *middle]), **options, options={"scheme": scheme})
    kept = run_pipeline(module, "keep-on-chip", **options)
    for made in (module, kept):
        pretend_schedules(made)
    ctx = PassContext(target=target)
    planned = run_pipeline(module, "plan-memory", ctx=ctx, verify_each=False, crash_directory=None)
    given = run_pipeline(module, "plan-memory{reorder=false}", **options)
    kept = run_pipeline(kept, "plan-memory", **options)
    told = [k.split("storages placed by ")[1] for k in ctx.statistics.of("plan-memory") if "placed by" in k]
    peak, bound = total(planned, "workspace"), total(planned, "workspace_lower_bound")
    least = total(given, "workspace_lower_bound")
    values = sum(1 for op in planned.ops() if op.op_name == "graph.kernel")
    show(f"{name:28} {values:6} {peak:11,} {bound:11,} {peak / bound if bound else 1:6.2f}  "
         f"{least:11,}  {total(kept, 'workspace'):12,}  {'; '.join(told)}")  # fmt: skip
    assert all("not proved" not in how for how in told)
    assert peak <= bound * LIMIT
    assert bound <= least
    assert total(kept, "workspace") <= total(kept, "workspace_lower_bound") * LIMIT


def pretend_schedules(module: Module) -> None:
    """Plans depend on no schedule, and looking for them takes long."""
    for op in module.ops():
        if op.op_name == "graph.kernel":
            op.set_attribute("schedule", {"buffers": 1})


def total(module: Module, attribute: str) -> int:
    return sum(int(f.attributes[attribute]) for f in module.functions.values() if is_subnet(f))


@pytest.mark.slow
@pytest.mark.parametrize("core", CORE_MODELS, ids=lambda core: core.file.removesuffix(".onnx"))
def test_core_models_need_no_more_memory_than_lives_at_once(
    core: CoreModel, models: Path, show: Callable[..., None]
) -> None:
    if core is CORE_MODELS[0]:
        show(HEADING)
    assert_planned(core.file.removesuffix(".onnx"), load(models / core.file, core.shapes), show)


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT_MODELS)
def test_light_models_need_no_more_memory_than_lives_at_once(
    name: str, tmp_path: Path, show: Callable[..., None]
) -> None:
    assert_planned(f"light {name}", load(save_light_model(name, tmp_path)), show)
