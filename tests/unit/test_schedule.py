"""How kernels run: splits over cores, tiles that fit, options that restrict, and errors where nothing fits."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.errors import CompilerError
from compiler.ir.core import Module
from compiler.ops.graph import Kernel
from compiler.pass_manager import PassContext, run_pipeline
from compiler.target import load_target
from passes.quantization.scheme import Scheme
from targets.mlu220.boxes import volume
from targets.mlu220.scheduling import candidates, estimate
from targets.mlu220.tiling import KernelSchedule, KernelShape, granule
from tests.journeys import assert_one_meaning, journey, legalised, random_inputs
from tests.networks import Network
from tests.random_networks import networks


def convolution(ci: int, size: int, co: int, kernel: int = 3, batch: int = 1) -> Module:
    net = Network((batch, ci, size, size))
    return net.done(net.conv(net.x, co, "y", kernel=kernel))


def scheduled(module: Module, schedule: str = "schedule", cores: int = 4, **options: Any) -> list[Kernel]:
    made = journey(module, cores=cores, schedule=schedule, chain="", **options)
    return [op for op in made.placed.ops() if isinstance(op, Kernel)]


def plan_of(kernel: Kernel) -> KernelSchedule:
    return KernelSchedule.of(kernel)


def kernel_of(kernels: list[Kernel], kind: str = "mlu.conv2d") -> Kernel:
    return next(k for k in kernels if any(op.op_name == kind for op in k.body.block))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), st.integers(1, 4), st.sampled_from(("schedule", "schedule{max-rows=2}", "schedule{buffers=1}")))
def test_tiles_of_all_cores_cover_every_result_once(module: Module, cores: int, schedule: str) -> None:
    try:
        made = journey(module, cores=cores, schedule=schedule)
    except CompilerError as fault:
        assert all(d.code == "E526" for d in fault.diagnostics)
        return
    for op in made.placed.ops():
        if isinstance(op, Kernel):
            shape, plan = KernelShape(op), plan_of(op)
            parts = plan.parts(shape.shape, granule(shape, plan.split))
            boxes = [box for part in parts for block in plan.blocks(part) for box in plan.tiles(part, block)]
            if shape.shape:
                assert len(set(boxes)) == len(boxes) and sum(map(volume, boxes)) == shape.domain.type.elements
            assert len(parts) <= cores


def test_buffers_lie_inside_the_memories_and_apart() -> None:
    target = load_target("mlu220")
    for kernel in scheduled(convolution(64, 40, 192)):
        plan = plan_of(kernel)
        spans = [(offset, offset + size * copies) for offset, size, copies in plan.slots]
        spans += [
            (offset, offset + size * copies)
            for (offset, size, copies), parameter in zip(plan.parameters, KernelShape(kernel).parameters, strict=True)
            if parameter.kind != "filters"
        ]
        spans.sort()
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
        assert spans[-1][1] <= target.board.nram_usable_bytes  # type: ignore[attr-defined]


def test_options_force_a_tiling() -> None:
    module = convolution(16, 20, 256)
    assert plan_of(kernel_of(scheduled(module, "schedule{max-rows=3}"))).tile[1] <= 3
    assert plan_of(kernel_of(scheduled(module, "schedule{max-channels=64}"))).tile[3] == 64
    assert plan_of(kernel_of(scheduled(module, "schedule{split=channels}"))).split == 3
    assert plan_of(kernel_of(scheduled(module, "schedule{split=rows}"))).split == 1
    for buffers in (1, 2):
        assert plan_of(kernel_of(scheduled(module, f"schedule{{buffers={buffers}}}"))).buffers == buffers


def test_channels_are_cut_between_panels_of_filters() -> None:
    plan = plan_of(kernel_of(scheduled(convolution(8, 6, 200, kernel=1), "schedule{split=channels,max-channels=100}")))
    assert plan.tile[3] % 64 == 0


def test_one_core_is_never_split() -> None:
    assert all(plan_of(k).split == -1 for k in scheduled(convolution(8, 12, 16), cores=1))


def test_filters_that_were_put_on_chip_are_read_from_there() -> None:
    kernel = kernel_of(scheduled(convolution(64, 28, 64)))
    assert plan_of(kernel).weights == "sram" and list(kernel.on_chip["parameters"]) == [0, -1, -1]
    large = kernel_of(scheduled(convolution(512, 8, 512, kernel=3)))
    assert large.on_chip["parameters"][0] == -1 and min(large.on_chip["parameters"][1:]) >= 0


@pytest.mark.parametrize(
    ("name", "module", "forced"),
    [
        ("filters larger than WRAM", convolution(256, 6, 512), "schedule"),
        ("columns", convolution(64, 130, 4, kernel=1), "schedule{max-rows=1}"),
        ("batch", convolution(8, 9, 12, batch=5), "schedule"),
        ("batch cut over cores", convolution(8, 9, 12, batch=5), "schedule{split=batch}"),
        ("one pixel", convolution(8, 1, 300, kernel=1), "schedule"),
    ],
    ids=lambda v: v if isinstance(v, str) and " " in v else None,
)
def test_awkward_shapes_are_cut_and_stay_right(name: str, module: Module, forced: str) -> None:
    made = journey(module, schedule=forced, cores=3)
    assert_one_meaning(made, random_inputs(made.prepared))


def test_wide_images_are_cut_into_columns() -> None:
    net = Network((1, 60, 3, 2000))
    module = net.done(net.op("nn.max_pool2d", net.op("nn.sigmoid", net.x, name="s"), name="y", kernel=(3, 3),
                             pads=(1, 1, 1, 1)))  # fmt: skip
    made = journey(module, scheme=Scheme(), cores=1)
    tiles = [plan_of(op).tile for op in made.placed.ops() if isinstance(op, Kernel)]
    assert any(tile[2] < 2000 for tile in tiles)
    assert_one_meaning(made, random_inputs(made.prepared))


def test_a_kernel_that_cannot_fit_is_an_error_with_its_location_and_text(tmp_path: Path) -> None:
    """A softmax over more elements than NRAM holds cannot be cut: on a board whose NRAM holds very little."""
    small = tmp_path / "small.toml"
    entry = 'nram_usable_bytes = { value = 512, unit = "B", tag = "U", source = "made up" }'
    small.write_text(f'extends = "m2"\n{entry}\n')
    net = Network((1, 400))
    module = net.done(net.op("nn.softmax", net.x, name="y", axis=1))
    _, legal = legalised(module, scheme=Scheme())
    assert not any(name.startswith("host") for name in legal.functions)
    ctx = PassContext(target=load_target("mlu220", board=str(small)))
    with pytest.raises(CompilerError) as fault:
        run_pipeline(legal, "fuse-layers,schedule", ctx=ctx, crash_directory=None)
    assert "E610" in str(fault.value) and "no tile of this kernel fits" in str(fault.value)


def test_the_choice_is_deterministic_and_the_cheapest_of_what_the_target_offers() -> None:
    target = load_target("mlu220")
    kernels = scheduled(convolution(32, 24, 96))
    again = scheduled(convolution(32, 24, 96))
    assert [k.schedule for k in kernels] == [k.schedule for k in again]
    for kernel in kernels:
        shape, board = KernelShape(kernel), target.board  # type: ignore[attr-defined]
        offered = [estimate(shape, way, board) for way in candidates(shape, {"cores": 4}, board)]
        assert estimate(shape, plan_of(kernel), board) == min(offered)


def test_more_cores_and_double_buffering_cost_less() -> None:
    def cost(cores: int, schedule: str = "schedule") -> float:
        board = load_target("mlu220", cores=cores).board  # type: ignore[attr-defined]
        kernels = scheduled(convolution(64, 56, 128), schedule, cores)
        return sum(estimate(KernelShape(k), plan_of(k), board) for k in kernels)

    assert cost(4) < 0.7 * cost(1)
    assert cost(4) <= cost(4, "schedule{buffers=1}")
