"""Joining kernels: what is joined, what is left apart and why, and that no byte changes, however deep the pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler.ir.core import Module
from compiler.pass_manager import PassContext, run_pipeline
from compiler.target import load_target
from targets.mlu220.emit_kernel import CoreEmitter
from targets.mlu220.scheduling import Recorder, _pretend, candidates, structure
from targets.mlu220.tiling import KernelSchedule, KernelShape
from tests.journeys import assert_one_meaning, journey, legalised, random_inputs
from tests.networks import Network


def inverted_residual(channels: int = 24, size: int = 12, stride: int = 1) -> Module:
    """Expand, depthwise, project, as in MobileNetV2, between two plain convolutions."""
    net = Network((1, 8, size, size))
    x = net.relu(net.conv(net.x, 16, "stem", kernel=3), "stem_relu")
    wide = net.relu(net.conv(x, channels, "expand"), "expand_relu")
    deep = net.relu(
        net.conv(wide, channels, "depthwise", kernel=3, groups=channels, strides=(stride, stride)), "depthwise_relu"
    )
    return net.done(net.conv(net.conv(deep, 16, "project"), 8, "head"))


def fused(module: Module, cores: int = 4) -> Module:
    _, legal = legalised(module, cores=cores)
    return run_pipeline(legal, "fuse-layers", target=load_target("mlu220", cores=cores))


def kernels(module: Module) -> list:
    return [op for op in module.ops() if op.op_name == "graph.kernel"]


def test_expand_depthwise_and_project_become_one_kernel() -> None:
    module = fused(inverted_residual())
    ctx = PassContext(target=load_target("mlu220"))
    chained = run_pipeline(module, "chain-kernels", ctx=ctx)
    assert len(kernels(chained)) < len(kernels(module))
    anchors = [[op.op_name for op in k.body.block if "conv" in op.op_name] for k in kernels(chained)]
    assert any({"mlu.conv2d", "mlu.depthwise_conv2d"} <= set(names) and len(names) >= 3 for names in anchors)
    assert ctx.statistics.of("chain-kernels")["kernels joined with the one that feeds them"] >= 2


def test_kernels_grow_up_to_the_ops_asked_for() -> None:
    module = fused(inverted_residual())
    chained = run_pipeline(module, "chain-kernels{gain=-9.0,max-ops=12}", target=load_target("mlu220"))
    sizes = [len(k.body.block) - 1 for k in kernels(chained)]
    assert max(sizes) <= 12 and 1 < len(sizes) < len(kernels(module))


def test_what_is_taken_to_stay_on_the_chip_is_a_share_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    target, asked = load_target("mlu220"), []
    search = target.best_schedule

    def noted(kernel: Any, constraints: dict[str, Any]) -> Any:
        asked.append(constraints["assumed"])
        return search(kernel, constraints)

    monkeypatch.setattr(target, "best_schedule", noted)
    run_pipeline(fused(inverted_residual()), "chain-kernels{kept=0.5}", target=target)
    assert set(asked) == {target.shared_bytes // 2}


def test_a_value_that_another_kernel_needs_too_is_a_result_of_the_chain() -> None:
    net = Network((1, 8, 8, 8))
    x = net.relu(net.conv(net.x, 16, "a", kernel=3), "a_relu")
    y = net.conv(x, 8, "b")
    module = net.done(net.add(y, net.conv(net.relu(y, "late"), 8, "c"), "sum"))
    chained = run_pipeline(fused(module), "chain-kernels{gain=-9.0}", target=load_target("mlu220"))
    assert len(kernels(chained)) == 1
    twins = Network((1, 8, 8, 8))
    x = twins.relu(twins.conv(twins.x, 16, "a", kernel=3), "a_relu")
    forked = fused(twins.done(twins.conv(x, 8, "b"), twins.conv(x, 8, "c")))
    first, *_ = kernels(run_pipeline(forked, "chain-kernels{gain=-9.0}", target=load_target("mlu220")))
    assert len(first.results) == 2


def test_a_result_of_another_height_that_is_needed_elsewhere_keeps_kernels_apart() -> None:
    net = Network((1, 8, 8, 8))
    x = net.relu(net.conv(net.x, 16, "a", kernel=3), "a_relu")
    module = net.done(net.conv(x, 8, "b", kernel=3, strides=(2, 2)), net.conv(x, 8, "c", kernel=3))
    ctx = PassContext(target=load_target("mlu220"))
    assert len(kernels(run_pipeline(fused(module), "chain-kernels{gain=-9.0}", ctx=ctx))) > 1
    reason = "left apart: results of other height or width are needed elsewhere"
    assert ctx.statistics.of("chain-kernels")[reason] >= 1


def test_kernels_that_cost_more_together_stay_apart_and_are_counted() -> None:
    ctx = PassContext(target=load_target("mlu220"))
    chained = run_pipeline(fused(inverted_residual()), "chain-kernels{gain=0.999}", ctx=ctx)
    assert len(kernels(chained)) == len(kernels(fused(inverted_residual())))
    reason = "left apart: together they take longer, or do not fit the chip's memories"
    assert ctx.statistics.of("chain-kernels")[reason] >= 1


def test_the_chained_schedule_is_modelled_cheaper_than_its_parts() -> None:
    target = load_target("mlu220")
    module = fused(inverted_residual(96, 28))
    constraints = {"cores": 4, "buffers": 2}

    def total(m: Module) -> float:
        return sum(target.best_schedule(k, constraints)[1] for k in kernels(m))  # type: ignore[index]

    assert total(run_pipeline(module, "chain-kernels", target=target)) < total(module)


@pytest.mark.parametrize("cores", [1, 3, 4])
@pytest.mark.parametrize("schedule", ["schedule", "schedule{max-rows=1}", "schedule{buffers=1,max-rows=2}"])
@pytest.mark.parametrize("stride", [1, 2])
def test_chains_keep_every_byte(cores: int, schedule: str, stride: int) -> None:
    """max-rows=1 makes many tiles: every stage of the pipeline is then at work at once."""
    made = journey(inverted_residual(stride=stride), cores=cores, schedule=schedule, chain="chain-kernels{gain=-9.0}")
    assert_one_meaning(made, random_inputs(made.prepared, 3), threads=(1, 2))


def test_stages_begin_where_the_matrix_unit_waits_for_the_vector_unit() -> None:
    module = run_pipeline(fused(inverted_residual()), "chain-kernels{gain=-9.0}", target=load_target("mlu220"))
    (kernel,) = kernels(module)
    shape = KernelShape(kernel)
    stages = [shape.stage_of[op] for op in shape.ops if op.op_name == "mlu.conv2d"]
    assert stages == sorted(set(stages)) and len(stages) == 4


def residual() -> Module:
    net = Network((1, 16, 8, 8))
    a = net.relu(net.conv(net.x, 16, "a"), "a_relu")
    b = net.relu(net.conv(a, 16, "b", kernel=3), "b_relu")
    return net.done(net.add(net.conv(b, 16, "c"), a, "sum"))


def test_a_value_has_a_buffer_for_every_stage_it_outlives() -> None:
    chained = run_pipeline(fused(residual()), "chain-kernels{gain=-9.0}", target=load_target("mlu220"))
    (kernel,) = kernels(chained)
    shape = KernelShape(kernel)
    longest = 0
    for value in shape.values:
        used = [shape.stage_of[user] for user in value.users if user in shape.stage_of]
        if value.producer is not None and used:
            outlived = max(used) - shape.stage_of[value.producer]  # type: ignore[index]
            longest = max(longest, outlived)
            assert shape.copies[value] >= outlived + 1
    assert longest >= 2


@pytest.mark.parametrize("schedule", ["schedule", "schedule{max-rows=1}", "schedule{buffers=1}"])
def test_values_that_outlive_stages_keep_every_byte(schedule: str) -> None:
    made = journey(residual(), schedule=schedule, chain="chain-kernels{gain=-9.0}")
    assert_one_meaning(made, random_inputs(made.prepared, 3))


def test_values_of_different_stages_never_share_a_slot() -> None:
    module = run_pipeline(fused(inverted_residual()), "chain-kernels{gain=-9.0},schedule", target=load_target("mlu220"))
    for kernel in kernels(module):
        shape, schedule = KernelShape(kernel), KernelSchedule.of(kernel)
        if schedule.buffers == 1:
            continue
        stages: dict[int, set] = {}
        for value, slot in zip(shape.values, schedule.slot_of, strict=True):
            stages.setdefault(slot, set()).add(shape.stage_of.get(value.producer, "argument"))  # type: ignore[arg-type]
        assert all(len(s) == 1 for s in stages.values())


def test_the_order_of_emission_does_each_part_of_each_tile_once_and_loads_ahead() -> None:
    module = run_pipeline(fused(inverted_residual()), "chain-kernels{gain=-9.0}", target=load_target("mlu220"))
    shape = KernelShape(kernels(module)[0])
    target = load_target("mlu220")
    schedule = next(s for s in candidates(shape, {"cores": 4}, target.board) if s.buffers == 2)  # type: ignore[attr-defined]
    emitter = CoreEmitter(Recorder(), shape, schedule, _pretend(shape))
    order = list(emitter.order(5))
    assert len(order) == len(set(order)) == 5 * 3 * len(emitter.stages)
    place = {part: i for i, part in enumerate(order)}
    for tile in range(5):
        for stage in range(len(emitter.stages)):
            assert place["load", tile, stage] < place["compute", tile, stage] < place["store", tile, stage]
            if stage:
                assert place["compute", tile, stage - 1] < place["compute", tile, stage]
            if tile < 4:
                assert place["load", tile + 1, stage] < place["compute", tile, stage] or stage == 0
    assert place["load", 1, 0] < place["compute", 0, 0]


def test_equal_kernels_share_one_search() -> None:
    first, second = (kernels(fused(inverted_residual())) for _ in range(2))
    assert [structure(k) for k in first] == [structure(k) for k in second]
    assert structure(first[0]) != structure(first[-1])
    target = load_target("mlu220")
    found = [target.best_schedule(k, {"cores": 4}) for k in (first[0], second[0])]
    assert found[0] == found[1] and np.isfinite(found[0][1])  # type: ignore[index]


@pytest.mark.parametrize("schedule", ["schedule{max-rows=1}", "schedule"])
def test_results_read_beyond_their_border_are_stored_before_they_are_written_over(
    schedule: str,
) -> None:
    """Max-pools in a row, all of them results: filled ahead of their computation, stored behind it."""
    net = Network((1, 8, 12, 12))
    values = [net.relu(net.conv(net.x, 8, "a"), "r")]
    for k in range(3):
        values.append(net.op("nn.max_pool2d", values[-1], name=f"p{k}", kernel=(3, 3), pads=(1, 1, 1, 1)))
    made = journey(net.done(net.op("tensor.concat", *values, name="all", axis=1)), cores=1, schedule=schedule,
                   chain="chain-kernels{gain=-99.0}")  # fmt: skip
    assert_one_meaning(made, random_inputs(made.prepared, 3))


def test_two_ops_that_want_different_borders_of_one_value_stay_in_different_kernels() -> None:
    """A depthwise convolution pads with zero, a max-pool with minus infinity; the value between has one border."""
    net = Network((1, 4, 3, 3))
    wide = net.conv(net.x, 4, "wide")
    deep = net.conv(wide, 4, "deep", kernel=3, groups=4)
    low = net.conv(deep, 4, "low", kernel=3, groups=4, strides=(2, 2))
    high = net.op("nn.max_pool2d", wide, name="high", kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    made = journey(net.done(net.add(high, low, "sum")), cores=1, chain="chain-kernels{gain=-99.0}")
    assert all(len(p) == 1 for k in kernels(made.placed) for p in KernelShape(k).padding.values())
    assert len(kernels(made.placed)) > 1
    assert_one_meaning(made, random_inputs(made.prepared))
