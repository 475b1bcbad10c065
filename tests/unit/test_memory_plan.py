"""Placing storages: legal, near the bound, exact on small cases; views share the bytes of what they view."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.errors import CompilerError
from compiler.ir.core import Module, Value
from compiler.ir.types import DType, TensorType
from compiler.pass_manager import PassContext, run_pipeline
from compiler.target import load_target
from passes.memory.plan import Storage, allocate, lower_bound, verify_plan
from tests.journeys import journey
from tests.networks import Network, op_named

ALIGNMENT = 64
VALUE = Value(TensorType((1,), DType.I8), "v")


def storage(size: int, first: int, last: int) -> Storage:
    return Storage(VALUE, size, first, last)


storages = st.lists(
    st.builds(lambda size, first, length: storage(size, first, first + length), st.integers(1, 300), st.integers(0, 6),
              st.integers(0, 4)),
    min_size=1, max_size=5,
)  # fmt: skip
many = st.lists(
    st.builds(lambda size, first, length: storage(size, first, first + length), st.integers(1, 5000),
              st.integers(0, 40), st.integers(0, 10)),
    min_size=1, max_size=60,
)  # fmt: skip


def first_fit(order: tuple[Storage, ...]) -> int:
    """Bytes needed when storages are put down in this order, each at the lowest free place."""
    placed: list[tuple[int, int, Storage]] = []
    for s in order:
        size = -(-s.size // ALIGNMENT) * ALIGNMENT
        offset = 0
        for low, high, other in sorted(placed, key=lambda p: p[0]):
            if other.first <= s.last and s.first <= other.last and low < offset + size and offset < high:
                offset = high
        placed.append((offset, offset + size, s))
    return max(high for _, high, _ in placed)


def exact(items: list[Storage]) -> int:
    """The least bytes any plan needs: an optimal plan is the first fit of its own order of offsets."""
    return min(map(first_fit, itertools.permutations(items)))


@settings(max_examples=150, deadline=None)
@given(storages)
def test_plans_are_legal_and_between_the_exact_optimum_and_half_more(items: list[Storage]) -> None:
    peak = allocate(items, ALIGNMENT)
    verify_plan(items)
    best = exact(items)
    assert lower_bound(items, ALIGNMENT) <= best <= peak <= best * 1.5


@given(many)
def test_plans_of_many_storages_are_legal_and_no_larger_than_all_together(items: list[Storage]) -> None:
    peak = allocate(items, ALIGNMENT)
    verify_plan(items)
    assert all(s.offset % ALIGNMENT == 0 for s in items)
    assert lower_bound(items, ALIGNMENT) <= peak <= sum(-(-s.size // ALIGNMENT) * ALIGNMENT for s in items)


@given(many, st.integers(0, 40))
def test_the_bound_is_what_lives_at_one_step(items: list[Storage], step: int) -> None:
    alive = sum(-(-s.size // ALIGNMENT) * ALIGNMENT for s in items if s.first <= step <= s.last)
    assert alive <= lower_bound(items, ALIGNMENT)


def test_a_chain_needs_two_neighbours_at_a_time() -> None:
    chain = [storage(1000, k, k + 1) for k in range(20)]
    assert allocate(chain, ALIGNMENT) == lower_bound(chain, ALIGNMENT) == 2048


def test_an_overlap_is_noticed() -> None:
    a, b = storage(100, 0, 2), storage(100, 2, 3)
    a.offset, b.offset = 0, 64
    with pytest.raises(ValueError, match="overlap"):
        verify_plan([a, b])


# -- the pass --------------------------------------------------------------------------------------------------------
def workspace(module: Module) -> int:
    return int(module.functions["subnet0"].attributes["workspace"])


def places(module: Module, name: str) -> list[dict[str, object]]:
    return op_named(module, name).attributes["placement"]["results"]


def fire() -> Module:
    """Two convolutions joined: the network that views were made for."""
    net = Network((1, 8, 10, 10))
    squeezed = net.relu(net.conv(net.x, 16, "s"), "sr")
    left, right = net.relu(net.conv(squeezed, 64, "l"), "lr"), net.relu(net.conv(squeezed, 64, "r", kernel=3), "rr")
    joined = net.op("tensor.concat", left, right, name="j", axis=1)
    return net.done(net.conv(joined, 8, "y"))


def test_parts_of_a_concatenation_are_stored_in_place() -> None:
    made = journey(fire(), chain="")
    concat = next(op for op in made.placed.ops() if op.op_name == "mlu.concat")
    assert concat.attributes["placement"]["space"] == "workspace"
    for part in concat.inputs:
        assert places(made.placed, part.name)[part.index] == {"space": "view"}
    assert not any(op.op_name == "mlu.copy" for op in made.placed.ops())


def test_outputs_are_the_callers_buffers_and_take_no_workspace() -> None:
    net = Network((1, 8, 6, 6))
    made = journey(net.done(net.relu(net.x, "a"), net.op("nn.sigmoid", net.x, name="b")), chain="")
    assert workspace(made.placed) == 0
    kernels = [op for op in made.placed.ops() if op.op_name == "graph.kernel"]
    spaces = {place["space"] for op in kernels for place in op.attributes["placement"]["results"]}
    assert spaces == {"output0", "output1"}


def test_workspace_of_a_deep_chain_does_not_grow_with_depth() -> None:
    def chain(depth: int) -> int:
        net = Network((1, 8, 6, 6))
        x = net.x
        for k in range(depth):
            x = net.relu(net.conv(x, 8, f"c{k}", kernel=3), f"r{k}")
        return workspace(journey(net.done(x), chain="").placed)

    assert chain(12) == chain(5)


def test_the_plan_is_noted_beside_its_lower_bound() -> None:
    module = journey(fire(), chain="").placed
    assert workspace(module) >= module.functions["subnet0"].attributes["workspace_lower_bound"] > 0


def test_too_little_memory_is_an_error_that_names_what_lives_at_the_peak() -> None:
    made = journey(fire(), chain="")
    target = load_target("mlu220")
    target.board = dataclasses.replace(target.board, dram_bytes=1000)  # type: ignore[attr-defined]
    names = "schedule,plan-memory"
    grouped = run_pipeline(made.legal, "fuse-layers", target=target, crash_directory=None)
    with pytest.raises(CompilerError) as fault:
        run_pipeline(grouped, names, ctx=PassContext(target=target), crash_directory=None)
    text = str(fault.value)
    assert "E620" in text and "too many" in text and "alive at the peak" in text
