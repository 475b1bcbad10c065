"""The accounts of a profile add up: to the timeline, and to what the IR that was compiled implies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.ir.core import Module, Value
from compiler.ops.graph import Kernel
from runtime.accounts import STALLS, UNITS, Accounts, traffic
from runtime.profile import profile
from targets.mlu220 import isa
from targets.mlu220.container import DebugEntry, DeviceFunction, IORecord
from targets.mlu220.hardware import load_board
from targets.mlu220.scheduling import staged_bytes
from targets.mlu220.tiling import KernelShape
from targets.mlu220.timeline import simulate
from tests.chains import random_chains
from tests.journeys import Journey, journey
from tests.networks import Network
from tests.programs import (
    DMA,
    INPUT,
    NRAM,
    OUTPUT,
    SRAM,
    VECTOR,
    barrier,
    copy,
    double_buffered,
    program,
    relu,
    signal,
    wait,
)

BOARD = load_board("m2")


def accounts_of(function: DeviceFunction) -> Accounts:
    return Accounts(function, simulate(function.programs, BOARD))


def function(*programs: np.ndarray, debug: tuple[DebugEntry, ...] = ()) -> DeviceFunction:
    data = IORecord.dense("x", (4096,), "f32")
    return DeviceFunction(
        name="subnet0", inputs=[data], outputs=[data], programs=list(programs), cores=len(programs) - 1,
        debug=list(debug),
    )  # fmt: skip


def two_kernels() -> DeviceFunction:
    """Core 0 loads, computes and stores, twice; the memory core fetches for the second kernel during the first."""
    mask, names = 0b10001, ("mlu.relu a", "mlu.relu b")
    kernels = [
        [
            copy((NRAM, 0), (SRAM if k else INPUT, 0), 1024), signal(DMA, 0), wait(VECTOR, 0, k + 1), relu(0, 0, 256),
            signal(VECTOR, 1), wait(DMA, 1, k + 1), copy((OUTPUT, 1024 * k), (NRAM, 0), 1024),
        ]
        for k in range(2)
    ]  # fmt: skip
    core = program(barrier(mask), *kernels[0], barrier(mask), *kernels[1])
    memory = program(barrier(mask), copy((SRAM, 0), (INPUT, 1024), 1024), barrier(mask))
    debug = (
        DebugEntry(0, 1, 7, names[0], "Relu_0"),
        DebugEntry(0, 9, 15, names[1], "Relu_1"),
        DebugEntry(1, 1, 1, names[1]),
    )
    return function(core, memory, debug=debug)


@pytest.fixture(scope="module")
def small() -> Journey:
    """A residual network of four layers on one core, in one tile per kernel."""
    return journey(residual(), cores=1, schedule="schedule{buffers=1}")


def residual() -> Module:
    net = Network((1, 8, 12, 12))
    a = net.relu(net.conv(net.x, 16, "first", kernel=3), "a")
    b = net.add(net.conv(a, 16, "second", kernel=3), a, "b")
    c = net.conv(b, 6, "third", kernel=1)
    return net.done(net.matmul(net.flatten(c, "flat"), 10, "scores"))


# -- the timeline ------------------------------------------------------------------------------------------------------
def assert_adds_up(accounts: Accounts) -> None:
    """Units to the timeline's queues; kernels to the whole."""
    t, cores = accounts.timeline, accounts.function.cores
    for column, per_unit in ((t.busy, lambda u: u.busy), (t.waiting, lambda u: u.stalled)):
        found = [per_unit(accounts.units[name]) for name in UNITS]
        assert found == [*column[:cores].sum(axis=0).tolist(), int(column[cores, 0])]
    kernels = accounts.kernels
    assert sum(k.cycles for k in kernels) == t.total_cycles
    for name in UNITS:
        assert sum(k.units[name].busy for k in kernels) == accounts.units[name].busy
        for reason in STALLS:
            assert sum(k.units[name].stalls[reason] for k in kernels) == accounts.units[name].stalls[reason]
    for name in t.totals.__dataclass_fields__:
        assert sum(getattr(k.cost.totals, name) for k in kernels) == getattr(t.totals, name)
    assert math.isclose(sum(k.cost.joules for k in kernels), t.joules)
    assert all(0 <= k.idle_compute <= k.cycles for k in kernels)


def test_the_accounts_of_a_compiled_network_add_up(small: Journey) -> None:
    assert_adds_up(accounts_of(small.device))
    assert_adds_up(accounts_of(journey(residual(), cores=4).device))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_the_accounts_of_any_program_add_up(seed: int) -> None:
    assert_adds_up(accounts_of(random_chains(seed, 2, 2).function))


def test_programs_without_barriers_are_one_kernel_and_empty_ones_none() -> None:
    one = accounts_of(function(program(*double_buffered(4)), program()))
    assert_adds_up(one)
    assert [k.name for k in one.kernels] == ["no debug entry"]
    assert accounts_of(function(program(), program())).kernels == []


# -- kernels -----------------------------------------------------------------------------------------------------------
def test_a_kernel_lies_between_two_barriers_and_bears_its_nodes_names() -> None:
    accounts = accounts_of(two_kernels())
    assert_adds_up(accounts)
    assert [(k.name, k.ops) for k in accounts.kernels] == [("Relu_0", ["mlu.relu a"]), ("Relu_1", ["mlu.relu b"])]
    assert accounts.boundaries(2)[-1] == accounts.timeline.total_cycles


def test_what_is_fetched_ahead_is_on_the_account_of_the_kernel_that_uses_it() -> None:
    first, second = accounts_of(two_kernels()).kernels
    assert traffic(first.cost.totals)["sram"] == 0
    assert traffic(second.cost.totals)["sram"] == 2 * 1024
    assert (first.cost.totals.ddr_read, second.cost.totals.ddr_read) == (1024, 1024)
    assert (first.units["memory core"].busy, second.units["memory core"].busy > 0) == (0, True)


def test_stalls_are_told_apart_by_what_is_waited_for() -> None:
    accounts = accounts_of(two_kernels())
    vector, memory = accounts.units["vector"], accounts.units["memory core"]
    assert vector.stalls["signal"] > 0 and vector.stalls["ddr"] == 0
    assert memory.stalls["barrier"] > 0 and memory.stalls["signal"] == 0
    crowded = function(*[program(*double_buffered(1, 4096, core=c)) for c in range(4)], program())
    assert accounts_of(crowded).units["dma"].stalls["ddr"] > 0


def test_compute_is_idle_while_nothing_but_copies_runs() -> None:
    copies = function(program(copy((NRAM, 0), (INPUT, 0), 4096), copy((OUTPUT, 0), (NRAM, 0), 4096)), program())
    (kernel,) = accounts_of(copies).kernels
    assert kernel.idle_compute == kernel.cycles
    busy = function(program(isa.Fill(dst=0, element_size=1, value=0, run=64), relu(64, 64, 1000)), program())
    (kernel,) = accounts_of(busy).kernels
    assert kernel.idle_compute == kernel.cycles - kernel.units["vector"].busy


# -- what the IR implies -----------------------------------------------------------------------------------------------
def implied_macs(module: Module) -> int:
    """Of the matrix ops of the legalised module: every output element takes a filter of multiply-adds."""
    convolutions = [op for op in module.ops() if op.op_name == "mlu.conv2d"]
    assert convolutions
    return sum(op.results[0].type.elements * math.prod(op.w.type.static_shape[1:]) for op in convolutions)


def implied_bytes(kernel: Kernel) -> tuple[int, int]:
    """DDR bytes a kernel must read and write: operands and constants once, filters as packed; results once. What is
    kept on the chip costs none."""
    shape = KernelShape(kernel)
    kept: dict[str, tuple[int, ...]] = kernel.attributes.get("on_chip") or {"inputs": (), "results": ()}
    inside = {kernel.body.block.arguments[i] for i in kept["inputs"]}
    taken = {p.value for p in shape.parameters}
    parameters = [staged_bytes(p) or nbytes(p.value) for p in shape.parameters]
    operands = [nbytes(v) for v in shape.values if v.producer is None and v not in taken | inside]
    results = [nbytes(v) for i, v in enumerate(kernel.results) if i not in kept["results"]]
    return sum(parameters) + sum(operands), sum(results)


def nbytes(value: Value) -> int:
    return value.type.elements * value.type.dtype.size


def test_multiply_adds_are_those_of_the_legalised_module(small: Journey) -> None:
    report = profile(small.model, BOARD)
    expected = implied_macs(small.legal)
    assert expected == 144 * (16 * 9 * (8 + 16) + 6 * 16) + 6 * 144 * 10
    assert report.implied_macs == {"subnet0": expected}
    with_zeros = sum(k.cost.totals.macs for k in report.functions[0].kernels)
    assert report.macs == with_zeros > expected, "filters of several pixels hold zeros too"
    assert report.repeated == pytest.approx(with_zeros / expected - 1)


def test_bytes_are_those_of_the_kernels_operands_constants_and_results(small: Journey) -> None:
    report = profile(small.model, BOARD)
    kernels = [op for op in small.placed.functions["subnet0"].body if isinstance(op, Kernel)]
    expected = [implied_bytes(kernel) for kernel in kernels]
    found = [(k.cost.totals.ddr_read, k.cost.totals.ddr_write) for k in report.functions[0].kernels]
    assert [written for _, written in found] == [written for _, written in expected]
    entering = nbytes(small.placed.functions["subnet0"].arguments[0])
    for kernel, (read, _), (least, _) in zip(kernels, found, expected, strict=True):
        rows = 0 if kernel.inputs[0].producer is not None else entering // 4  # read again where tiles overlap
        assert least <= read <= least + 2 * rows


def test_more_cores_do_the_same_multiply_adds_or_more_at_halos(small: Journey) -> None:
    four = profile(journey(residual(), cores=4).model, BOARD)
    assert four.macs >= implied_macs(small.legal)
    assert four.traffic()["ddr_write"] <= profile(small.model, BOARD).traffic()["ddr_write"]


def test_an_ideal_chip_moves_no_more_than_the_modelled_one(small: Journey) -> None:
    report = profile(small.model, BOARD)
    traffic = report.traffic()
    assert 0 < report.ddr_lower_bound <= traffic["ddr_read"] + traffic["ddr_write"]


# -- the report --------------------------------------------------------------------------------------------------------
def test_the_text_shows_cycles_by_unit_and_bytes_by_memory(small: Journey) -> None:
    report = profile(small.model, BOARD)
    (only,) = report.functions
    lines = [line.split() for line in str(report).splitlines()]
    for name, cycles in only.busy_cycles().items():
        assert any(words[: len(name.split()) + 1] == [*name.split(), str(cycles)] for words in lines)
    for name, size in traffic(only.timeline.totals).items():
        assert [*name.split("_"), str(size)] in lines


def test_the_text_shows_the_longest_kernels_first_and_as_many_as_wanted(small: Journey) -> None:
    report = profile(small.model, BOARD)
    longest = sorted((k.cycles for k in report.functions[0].kernels), reverse=True)
    lines = report.text(top=2).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("  longest 2 of"))
    assert [int(line.split()[0]) for line in lines[start + 2 : start + 4]] == longest[:2]
    assert not lines[start + 4].startswith("  ")
    assert "first" in str(report) and "scores" in str(report)


def test_json_has_every_kernel_with_units_bytes_bound_and_energy(small: Journey) -> None:
    data = profile(small.model, BOARD).as_dict()
    (only,) = data["functions"]  # type: ignore[misc]
    assert sum(k["cycles"] for k in only["kernels"]) == only["cycles"] == data["cycles"]
    assert sum(k["macs"] for k in only["kernels"]) == data["macs"]
    for kernel in only["kernels"]:
        assert set(kernel["units"]) == set(UNITS) and kernel["bound"] in kernel["roofline_cycles"]
        assert set(kernel["bytes"]) == set(data["bytes"]) and kernel["joules"] > 0  # type: ignore[arg-type]


def test_a_long_name_is_shortened_in_the_table_only() -> None:
    made = two_kernels()
    made.debug[0] = DebugEntry(0, 1, 7, "mlu.relu a", ", ".join(f"node_{k}" for k in range(40)))
    (kernel, _) = accounts_of(made).kernels
    assert kernel.name.endswith("node_39")
