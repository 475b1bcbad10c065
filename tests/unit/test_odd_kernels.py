"""Kernels of awkward sizes and shapes: what is at most a corner of a schedule's search still means the same."""

from __future__ import annotations

from compiler.ir.core import Module
from compiler.ops.graph import Kernel
from targets.mlu220.scheduling import structure
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
