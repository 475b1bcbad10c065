"""Keeping values and parameters in the shared memory: who gets the room, for how long, and what it saves."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.ir.core import Module
from compiler.pass_manager import PassContext, run_pipeline
from compiler.target import load_target
from passes.keep_on_chip import Request, place
from runtime.profile import profile
from targets.mlu220 import isa
from targets.mlu220.hardware import load_board
from tests.journeys import assert_one_meaning, journey, legalised, random_inputs
from tests.networks import Network

requests = st.lists(
    st.builds(
        lambda size, first, length, saved: Request(128 * size, first, first + length, saved),
        st.integers(1, 12), st.integers(0, 6), st.integers(0, 3), st.integers(1, 10_000),
    ),
    max_size=12,
)  # fmt: skip


@given(requests, st.integers(1, 24))
def test_places_lie_in_the_memory_and_apart_as_long_as_both_are_needed(found: list[Request], room: int) -> None:
    place(found, 128 * room)
    kept = [r for r in found if r.offset >= 0]
    assert all(r.offset + r.size <= 128 * room for r in kept)
    for a, b in itertools.combinations(kept, 2):
        together = a.first <= b.last and b.first <= a.last
        assert not together or a.offset + a.size <= b.offset or b.offset + b.size <= a.offset


@given(requests)
def test_nothing_that_would_fit_is_left_out(found: list[Request]) -> None:
    place(found, sum(r.size for r in found))
    assert all(r.offset >= 0 for r in found)


def test_what_saves_most_for_the_room_it_takes_comes_first() -> None:
    long, short = Request(1024, 0, 9, 4096), Request(1024, 2, 3, 4096)
    place([long, short], 1024)
    assert (long.offset, short.offset) == (-1, 0)


def chain(layers: int = 3, channels: int = 32, size: int = 12) -> Module:
    net = Network((1, channels, size, size))
    x = net.x
    for k in range(layers):
        x = net.relu(net.conv(x, channels, f"c{k}", kernel=3), f"r{k}")
    return net.done(x)


def kept(module: Module, text: str = "keep-on-chip", context: PassContext | None = None) -> list[Any]:
    _, legal = legalised(module)
    ctx = context or PassContext(target=load_target("mlu220"))
    placed = run_pipeline(legal, f"fuse-layers,{text}", ctx=ctx)
    return [op for op in placed.ops() if op.op_name == "graph.kernel"]


def test_a_result_that_the_next_kernel_reads_stays_on_chip() -> None:
    first, *_, last = kept(chain())
    assert first.placement["results"][0]["space"] == "sram"
    assert list(first.on_chip["results"]) == [0] and not list(first.on_chip["inputs"])
    assert list(last.on_chip["inputs"]) == [0]


def test_small_parameters_of_the_first_kernel_are_loaded_by_each_core() -> None:
    made = journey(chain(), chain="")
    first, second, _ = [op for op in made.placed.ops() if op.op_name == "graph.kernel"]
    staged = [[offset >= 0 for offset in op.attributes["on_chip"]["parameters"]] for op in (first, second)]
    assert staged == [[True, False, False], [True, True, True]], "filters, scales, biases"


def test_what_the_function_gives_is_stored() -> None:
    *_, last = kept(chain())
    assert not list(last.on_chip["results"])


@pytest.mark.parametrize(("option", "values", "parameters"), [("values", False, True), ("parameters", True, False)])
def test_each_kind_can_be_left_out(option: str, values: bool, parameters: bool) -> None:
    kernels = kept(chain(), f"keep-on-chip{{{option}=false}}")
    noted = [k.on_chip for k in kernels if k.on_chip]
    assert any(list(n["inputs"]) for n in noted) == values
    assert any(offset >= 0 for n in noted for offset in n["parameters"]) == parameters


def test_what_does_not_fit_goes_the_long_way_and_the_rest_is_counted() -> None:
    ctx = PassContext(target=load_target("mlu220"))
    first, *_ = kept(chain(2, 128, 128), context=ctx)
    assert not list((first.on_chip or {"results": []})["results"])
    counts = ctx.statistics.of("keep-on-chip")
    assert counts["values kept on chip"] == 0 and counts["parameters kept on chip"] > 0


def test_kept_values_take_no_workspace_and_no_traffic() -> None:
    module = chain(4, 16, 12)
    without, with_it = (journey(module, chain="", keep=keep) for keep in ("", "keep-on-chip"))
    assert with_it.device.workspace < without.device.workspace
    board = load_board("m2")
    moved = [profile(made.model, board).traffic() for made in (without, with_it)]
    assert moved[1]["ddr_write"] < moved[0]["ddr_write"] and moved[1]["ddr_read"] < moved[0]["ddr_read"]
    assert moved[1]["sram"] > moved[0]["sram"]


def test_the_memory_core_loads_parameters_in_runs_that_let_others_in_between() -> None:
    made = journey(chain(2, 128, 8))
    copies = made.device.programs[-1][made.device.programs[-1][:, 0] == isa.Copy.opcode]
    runs = copies[:, isa.Copy.column("run")]
    assert runs.max() <= 32 << 10 and runs.sum() > 128 * 128 * 9


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 4), st.sampled_from((8, 70)), st.sampled_from((1, 2, 4)))
def test_keeping_changes_no_byte(layers: int, channels: int, cores: int) -> None:
    made = journey(chain(layers, channels, 9), cores=cores, chain="")
    assert_one_meaning(made, random_inputs(made.prepared, 3))
