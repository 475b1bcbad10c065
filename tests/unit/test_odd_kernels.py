"""Kernels of awkward sizes and shapes: what is at most a corner of a schedule's search still means the same."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.core import Module
from compiler.ops.graph import Kernel
from compiler.pass_manager import run_pipeline
from compiler.target import load_target
from targets.mlu220.op_pick import _most_needed
from targets.mlu220.rules import reason_against
from targets.mlu220.scheduling import structure
from targets.mlu220.tiling import CHANNEL_GROUP, KernelSchedule
from tests.journeys import Journey, assert_one_meaning, journey, random_inputs
from tests.networks import Network


def same_everywhere(module: Module, **options: object) -> Journey:
    """Compile a network and run it everywhere."""
    made = journey(module, **options)  # type: ignore[arg-type]
    assert_one_meaning(made, random_inputs(made.prepared, 3))
    return made


def kernels_of(made: Journey) -> list[Kernel]:
    return [op for op in made.placed.ops() if isinstance(op, Kernel)]


def test_a_constant_read_twice_is_not_scheduled_like_two_constants() -> None:
    net = Network((1, 4, 5, 5), (1, 4, 5, 5))
    first, second = (net.constant(name, 1, 4, 5, 5) for name in ("c", "d"))
    two = net.op("math.mul", net.add(net.inputs[0], first, "a"), second, name="b")
    one = net.op("math.mul", net.add(net.inputs[1], first, "e"), first, name="f")
    apart, shared = kernels_of(same_everywhere(net.done(two, one), chain=""))
    assert structure(apart) != structure(shared)


@pytest.mark.parametrize("rank", [5, 6])
def test_borders_of_more_than_four_axes_are_filled(rank: int) -> None:
    net = Network((2, 3, 2, 3, 2, 3)[:rank])
    same_everywhere(net.done(net.op("tensor.pad", net.x, name="y", pads=(1,) * 2 * rank)))


def test_a_window_over_padding_alone_asks_for_nothing_before_it() -> None:
    net = Network((1, 8, 9, 9))
    bias = net.constant("b", 8)
    y = net.op("nn.conv2d", net.x, net.constant("v", 8, 8, 2, 2, scale=0.2), bias, name="y", strides=(3, 3))
    z = net.op("nn.conv2d", net.relu(y, "r"), net.constant("w", 8, 8, 3, 3, scale=0.1), name="z", pads=(6, 6, 6, 6))
    made = same_everywhere(net.done(z), schedule="schedule{max-rows=1}")
    windows = [[op.op_name for op in kernel.body.block].count("mlu.conv2d") for kernel in kernels_of(made)]
    assert 2 in windows


# -- where a vector of channels is too much ----------------------------------------------------------------------------
def pooled(kind: str, kernel: int, channels: int, size: int, **attributes: object) -> Module:
    net = Network((1, channels, size, size))
    return net.done(net.op(kind, net.x, name="y", kernel=(kernel, kernel), **attributes))


def picked_anywhere() -> Module:
    net = Network((1, 200000))
    places = np.random.default_rng(0).permutation(200000)[:300]
    return net.done(net.op("tensor.gather", net.x, net.module.add_constant("i", places), name="y", axis=1))


@pytest.mark.parametrize(
    "module",
    [pooled("nn.avg_pool2d", 64, 65, 128, strides=(64, 64)), pooled("nn.max_pool2d", 65, 64, 70), picked_anywhere()],
    ids=["mean", "maximum", "gather"],
)
def test_what_not_even_one_vector_fits_of_is_cut_into_narrow_channel_blocks(module: Module) -> None:
    made = same_everywhere(module)
    assert min(KernelSchedule.of(kernel).tile[-1] for kernel in kernels_of(made)) < CHANNEL_GROUP


# -- windows that no instruction or memory takes -----------------------------------------------------------------------
def convolved(ci: int, co: int, size: int, kernel: int, **attributes: object) -> Module:
    net = Network((1, ci, size, size))
    w = net.constant("w", co, ci, kernel, kernel, scale=0.01)
    return net.done(net.op("nn.conv2d", net.x, w, net.constant("b", co), name="y", **attributes))


@pytest.mark.parametrize(("dilations", "strides"), [((20, 3), (1, 1)), ((3, 20), (2, 1)), ((20, 20), (1, 1))])
def test_a_dilated_window_beyond_nram_is_taken_apart_row_by_row_or_column_by_column(
    dilations: tuple[int, int], strides: tuple[int, int]
) -> None:
    pads = (*dilations, *dilations)
    module = convolved(1400 if min(dilations) < 20 else 600, 8, 23, 3, dilations=dilations, strides=strides, pads=pads)
    made = journey(module)
    assert [f.name for f in made.model.functions] == ["subnet0"]
    assert_one_meaning(made, random_inputs(made.prepared, 3))
    (whole,) = [op for op in run_pipeline(module, "prepare", crash_directory=None).ops() if op.op_name == "nn.conv2d"]
    parts = [op for op in made.legal.ops() if op.op_name == "mlu.conv2d"]
    assert len(parts) > 1 and sum(p.result.type.elements for p in parts) >= whole.results[0].type.elements


def test_what_is_computed_before_a_window_stays_apart_where_both_would_not_fit() -> None:
    same_everywhere(convolved(4096, 8, 5, 5))


@pytest.mark.parametrize(
    ("op", "attributes", "reason"),
    [
        ("nn.max_pool2d", {"kernel": (1, 5000)}, "a kernel of"),
        ("nn.avg_pool2d", {"kernel": (1, 2), "strides": (1, 5000)}, "strides of"),
        ("nn.max_pool2d", {"kernel": (1, 2), "dilations": (1, 5000), "strides": (1, 3)}, "dilations"),
    ],
)
def test_windows_that_no_instruction_counts_run_on_the_host(op: str, attributes: dict, reason: str) -> None:
    net = Network((1, 2, 1, 12000))
    module = net.done(net.op(op, net.x, name="y", **attributes))
    nhwc = run_pipeline(module, "prepare,convert-layout", target=load_target("mlu220"), crash_directory=None)
    (pool,) = [o for o in nhwc.ops() if o.op_name == op]
    assert reason in (reason_against(pool) or "")
    assert [f.name for f in same_everywhere(module).model.functions] == ["host0"]


def test_strides_that_no_convolution_counts_run_on_the_host() -> None:
    net = Network((1, 3, 1, 12000))
    y = net.op("nn.conv2d", net.x, net.constant("w", 4, 3, 1, 2), None, name="y", strides=(1, 5000))
    made = journey(net.done(y))
    assert made.model.host_functions


# -- long rows ---------------------------------------------------------------------------------------------------------
def test_how_far_indices_reach_is_found_for_any_length() -> None:
    places = tuple(int(i) for i in np.random.default_rng(1).integers(0, 50, 23))
    for length in range(1, len(places) + 1):
        reach = max(max(places[i : i + length]) - min(places[i : i + length]) for i in range(len(places) - length + 1))
        assert _most_needed(places, length) == reach + 1


def test_a_reflected_sound_of_many_samples_is_cut_into_large_tiles() -> None:
    net = Network((1, 1, 1, 100000))
    made = same_everywhere(
        net.done(net.op("tensor.pad", net.x, name="y", pads=(0, 0, 0, 128, 0, 0, 0, 128), mode="reflect")), cores=1
    )
    (kernel,) = (k for k in kernels_of(made) if any(op.op_name == "mlu.take" for op in k.body.block))
    assert max(KernelSchedule.of(kernel).tile) > 10000
