"""Kernels of awkward sizes and shapes: what is at most a corner of a schedule's search still means the same."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.core import Module
from compiler.ops.graph import Kernel
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
