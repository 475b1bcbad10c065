"""Placing storages: legal, at the bound, exact on small cases; orders with the lowest peak; views share the bytes of
what they view."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Module, Value
from compiler.ir.types import DType, TensorType
from compiler.pass_manager import PassContext, parse_pipeline, print_pipeline, run_pipeline
from compiler.rewrite import RewriteCounter
from compiler.target import load_target
from passes.memory.allocate import RUNGS, Allocation, Buffer, Effort, allocate, most_alive
from passes.memory.exact import solve
from passes.memory.order import Order, Step, best_order, sections_of
from passes.memory.plan import Storage, verify_plan
from runtime.session import Session
from tests.growth import LINEAR, exponent
from tests.journeys import legalised, random_inputs
from tests.networks import Network, op_named

VALUE = Value(TensorType((1,), DType.I8), "v")


def buffers(count: int, steps: int, length: int) -> st.SearchStrategy[list[Buffer]]:
    one = st.builds(
        lambda size, first, length: Buffer(size, first, first + length), st.integers(1, 30), st.integers(0, steps),
        st.integers(0, length),
    )  # fmt: skip
    return st.lists(one, min_size=1, max_size=count)


def overlaps(items: list[Buffer], offsets: tuple[int, ...]) -> list[tuple[int, int]]:
    """Pairs that share a byte at some step."""
    placed = list(enumerate(zip(items, offsets, strict=True)))
    return [
        (i, j) for (i, (a, p)), (j, (b, q)) in itertools.combinations(placed, 2)
        if a.first <= b.last and b.first <= a.last and p < q + b.size and q < p + a.size
    ]  # fmt: skip


def first_fit(order: tuple[Buffer, ...]) -> int:
    """Bytes needed when buffers are put down in this order, each at the lowest free place."""
    placed: list[tuple[int, int, Buffer]] = []
    for s in order:
        offset = 0
        for low, high, other in sorted(placed, key=lambda p: p[0]):
            if other.first <= s.last and s.first <= other.last and low < offset + s.size and offset < high:
                offset = high
        placed.append((offset, offset + s.size, s))
    return max(high for _, high, _ in placed)


def best_of_all_orders(items: list[Buffer]) -> int:
    """The least bytes any plan needs: an optimal plan is the first fit of its own order of offsets."""
    return min(map(first_fit, itertools.permutations(items)))


# -- the ladder ------------------------------------------------------------------------------------------------------
@settings(max_examples=150, deadline=None)
@given(buffers(6, 6, 4))
def test_the_last_rung_is_exact_on_small_cases(items: list[Buffer]) -> None:
    found = allocate(items)
    assert found.optimal and found.peak == best_of_all_orders(items) and not overlaps(items, found.offsets)


@settings(max_examples=60, deadline=None)
@given(buffers(14, 12, 6), st.sampled_from(RUNGS))
def test_every_rung_gives_a_legal_plan_between_the_bound_and_all_together(items: list[Buffer], rung: Effort) -> None:
    found = allocate(items, rung)
    assert not overlaps(items, found.offsets)
    assert most_alive(items) == found.bound <= found.peak <= sum(b.size for b in items)
    assert found.peak == max(o + b.size for o, b in zip(found.offsets, items, strict=True))


@settings(max_examples=40, deadline=None)
@given(buffers(25, 20, 8))
def test_no_rung_is_worse_than_the_one_below_it_nor_claims_too_much(items: list[Buffer]) -> None:
    plans = [allocate(items, rung) for rung in RUNGS]
    peaks = [p.peak for p in plans]
    assert peaks == sorted(peaks, reverse=True)
    assert all(p.peak == peaks[-1] for p in plans if p.optimal)


@settings(max_examples=60, deadline=None)
@given(buffers(6, 5, 4))
def test_the_exact_solver_finds_a_plan_at_the_optimum_and_proves_that_there_is_none_below(items: list[Buffer]) -> None:
    best = best_of_all_orders(items)
    rows = [(b.size, b.first, b.last) for b in items]
    found = solve(rows, best)
    assert found.offsets is not None and not overlaps(items, tuple(found.offsets))
    assert solve(rows, best - 1).offsets is None and solve(rows, best - 1).finished


@given(buffers(60, 40, 10), st.integers(0, 40))
def test_the_bound_is_the_most_that_lives_at_one_step(items: list[Buffer], step: int) -> None:
    assert sum(b.size for b in items if b.first <= step <= b.last) <= most_alive(items)


def test_a_chain_needs_two_neighbours_at_a_time() -> None:
    found = allocate([Buffer(1024, k, k + 1) for k in range(20)])
    assert found.peak == found.bound == 2048 and found.method == "greedy"


def test_the_exact_solver_puts_down_more_buffers_than_calls_may_nest() -> None:
    rows = [(64, 0, 400), *((64, 10 + step, 10 + step) for step in range(300))]
    assert solve(rows, 128).offsets == [0, *[64] * 300]


def test_a_plan_above_the_bound_is_kept_where_the_exact_solver_proves_that_none_reaches_it() -> None:
    rows = [(2, 0, 1), (3, 0, 0), (1, 1, 3), (2, 1, 2), (1, 2, 3), (1, 2, 2), (3, 3, 4), (2, 4, 4)]
    found = allocate([Buffer(*row) for row in rows])
    assert (found.bound, found.peak, found.optimal) == (5, 6, True)
    assert best_of_all_orders([Buffer(*row) for row in rows]) == 6
    assert not allocate([Buffer(*row) for row in rows], "search").optimal


def test_the_search_reaches_the_bound_where_branch_and_bound_gives_up() -> None:
    rows = [  # an encoder with three levels of skips: TBEFN at 180 x 320, in units of 64 bytes
        (5400, 0, 1), (2700, 0, 1), (2700, 0, 2), (5400, 0, 24), (2700, 1, 4), (2700, 2, 3),
        (2700, 3, 10), (2700, 4, 5), (5400, 4, 24), (5400, 4, 17), (5400, 4, 7), (2700, 5, 6),
        (2700, 6, 6), (28800, 7, 17), (28800, 7, 8), (14400, 8, 16), (14400, 8, 9), (7200, 9, 15),
        (7200, 9, 12), (5400, 10, 19), (14400, 11, 13), (7200, 12, 12), (1840, 12, 12), (14400, 13, 14),
        (1800, 14, 24), (1800, 14, 18), (14400, 15, 15), (3600, 15, 15), (28800, 16, 16), (7200, 16, 16),
        (5400, 17, 18), (5400, 18, 24), (28800, 19, 24), (28800, 19, 20), (14400, 20, 24), (14400, 20, 21),
        (7200, 21, 23), (7200, 21, 22), (7200, 22, 22), (1840, 22, 22), (14400, 23, 23), (3600, 23, 23),
        (28800, 24, 24), (7200, 24, 24),
    ]  # fmt: skip
    assert solve(rows, 105_300).offsets is None
    found = allocate([Buffer(*row) for row in rows])
    assert (found.method, found.peak, found.optimal) == ("search", 105_300, True)
    assert overlaps([Buffer(*row) for row in rows], found.offsets) == []


def test_plans_do_not_depend_on_chance() -> None:
    items = [Buffer(1 + (k * 37) % 91, k, k + (k * 13) % 9) for k in range(60)]
    assert allocate(items) == allocate(list(items))


def test_nothing_to_place_needs_nothing() -> None:
    assert allocate([]) == Allocation((), 0, 0, "greedy", True)


def test_the_first_rung_takes_about_linear_time() -> None:
    def placing(count: int) -> Callable[[], Allocation]:
        items = [Buffer(64 * (1 + (k * 7919) % 97), k, k + 1 + (k * 31) % 40) for k in range(count)]
        return lambda: allocate(items, "greedy")

    assert exponent(placing, 2500, 20_000) < LINEAR


def test_an_overlap_is_noticed() -> None:
    a, b = Storage(VALUE, 100, 0, 2, offset=0), Storage(VALUE, 100, 2, 3, offset=64)
    with pytest.raises(ValueError, match="overlap"):
        verify_plan([a, b])


# -- the order of kernels --------------------------------------------------------------------------------------------
@st.composite
def graphs(draw: st.DrawFn, most: int = 6) -> tuple[list[Step], list[int]]:
    """A few ops; each makes a buffer, which those that wait for it mostly read."""
    count = draw(st.integers(1, most))
    after = [{j for j in range(i) if draw(st.integers(0, 2)) == 0} for i in range(count)]
    touches = [{i} | {j for j in after[i] if draw(st.integers(0, 9))} for i in range(count)]
    sizes = draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    return [Step(frozenset(a), frozenset(t)) for a, t in zip(after, touches, strict=True)], sizes


def runs(steps: list[Step], order: tuple[int, ...]) -> bool:
    return all(steps[op].after <= set(order[:k]) for k, op in enumerate(order))


def peak_of(steps: Sequence[Step], sizes: Sequence[int], order: Sequence[int]) -> int:
    """The most bytes alive at one op of this order."""
    place = {op: k for k, op in enumerate(order)}
    last = [0] * len(sizes)
    for op in order:
        for buffer in steps[op].touches:
            last[buffer] = place[op]
    alive = peak = 0
    living: set[int] = set()
    for k, op in enumerate(order):
        new = steps[op].touches - living
        living |= new
        alive += sum(sizes[b] for b in new)
        peak = max(peak, alive)
        done = [b for b in steps[op].touches if last[b] == k]
        living.difference_update(done)
        alive -= sum(sizes[b] for b in done)
    return peak


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_the_order_found_is_the_best_of_all_orders(graph: tuple[list[Step], list[int]]) -> None:
    steps, sizes = graph
    found = best_order(steps, sizes)
    orders = [o for o in itertools.permutations(range(len(steps))) if runs(steps, o)]
    assert found.ops in orders and found.optimal
    assert found.peak == peak_of(steps, sizes, found.ops) == min(peak_of(steps, sizes, o) for o in orders)


@given(graphs(12))
def test_sections_are_cut_where_every_order_must_pass(graph: tuple[list[Step], list[int]]) -> None:
    steps, _ = graph
    sections = sections_of(steps)
    assert [k for section in sections for k in section] == list(range(len(steps)))
    before: list[set[int]] = []
    for step in steps:
        before.append(set(step.after).union(*(before[o] for o in step.after)))
    for section in sections[:-1]:
        last = section.stop - 1
        assert before[last] == set(range(last)) and all(last in before[k] for k in range(last + 1, len(steps)))


def test_the_branch_that_leaves_less_behind_goes_first() -> None:
    """One branch makes 9 of 1 and the other 9 of 1 by way of 8: done last, the way has more beside it."""
    steps = [
        Step(frozenset(), frozenset({0})), Step(frozenset({0}), frozenset({0, 1})),
        Step(frozenset({0}), frozenset({0, 2})), Step(frozenset({2}), frozenset({2, 3})),
        Step(frozenset({1, 3}), frozenset({1, 3, 4})),
    ]  # fmt: skip
    sizes = [1, 9, 8, 1, 1]
    assert peak_of(steps, sizes, range(5)) == 18
    assert best_order(steps, sizes) == Order((0, 2, 3, 1, 4), 11, True)


def test_an_order_that_cannot_be_bettered_is_left_as_it_is() -> None:
    steps = [Step(frozenset({k - 1} if k else ()), frozenset({k, max(k - 1, 0)})) for k in range(2000)]
    assert best_order(steps, [64] * 2000) == Order(tuple(range(2000)), 128, True)


def test_a_search_that_gives_up_keeps_the_order_and_says_so() -> None:
    steps = [Step(frozenset(), frozenset({k, 9})) for k in range(9)] + [Step(frozenset(range(9)), frozenset(range(9)))]
    found = best_order(steps, [k + 1 for k in range(10)], states=3)
    assert found.ops == tuple(range(10)) and not found.optimal


def blocks_of_two_branches(count: int) -> list[Step]:
    """Each block is a section of its own."""
    steps: list[Step] = []
    for block in range(count):
        start = 4 * block
        entry = frozenset({start - 1} if block else ())
        steps += [
            Step(entry, frozenset({start, *entry})), Step(frozenset({start}), frozenset({start, start + 1})),
            Step(frozenset({start}), frozenset({start, start + 2})),
            Step(frozenset({start + 1, start + 2}), frozenset({start + 1, start + 2, start + 3})),
        ]  # fmt: skip
    return steps


def test_the_search_for_an_order_takes_time_linear_in_the_sections() -> None:
    def searching(blocks: int) -> Callable[[], Order]:
        steps = blocks_of_two_branches(blocks)
        return lambda: best_order(steps, [64 + k % 5 for k in range(len(steps))])

    assert searching(300)().optimal
    assert exponent(searching, 300, 2400) < LINEAR


# -- the pass --------------------------------------------------------------------------------------------------------
def workspace(module: Module) -> int:
    return int(module.functions["subnet0"].attributes["workspace"])


def scheduled(module: Module) -> Module:
    """Kernels that all give their results to off-chip memory."""
    target = load_target("mlu220")
    return run_pipeline(legalised(module)[1], "fuse-layers,schedule", target=target, crash_directory=None)


def placed(module: Module, plan: str = "plan-memory") -> Module:
    return run_pipeline(scheduled(module), plan, target=load_target("mlu220"), crash_directory=None)


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
    made = placed(fire())
    concat = next(op for op in made.ops() if op.op_name == "mlu.concat")
    assert concat.attributes["placement"]["space"] == "workspace"
    for part in concat.inputs:
        assert places(made, part.name)[part.index] == {"space": "view"}
    assert not any(op.op_name == "mlu.copy" for op in made.ops())


def test_outputs_are_the_callers_buffers_and_take_no_workspace() -> None:
    net = Network((1, 8, 6, 6))
    made = placed(net.done(net.relu(net.x, "a"), net.op("nn.sigmoid", net.x, name="b")))
    assert workspace(made) == 0
    kernels = [op for op in made.ops() if op.op_name == "graph.kernel"]
    spaces = {place["space"] for op in kernels for place in op.attributes["placement"]["results"]}
    assert spaces == {"output0", "output1"}


def test_workspace_of_a_deep_chain_does_not_grow_with_depth() -> None:
    def chain(depth: int) -> int:
        net = Network((1, 8, 6, 6))
        x = net.x
        for k in range(depth):
            x = net.relu(net.conv(x, 8, f"c{k}", kernel=3), f"r{k}")
        return workspace(placed(net.done(x)))

    assert chain(12) == chain(5)


def test_the_plan_is_noted_beside_its_lower_bound() -> None:
    module = placed(fire())
    assert workspace(module) >= module.functions["subnet0"].attributes["workspace_lower_bound"] > 0


def test_too_little_memory_is_an_error_that_names_what_lives_at_the_peak() -> None:
    made = scheduled(fire())
    target = load_target("mlu220")
    target.board = dataclasses.replace(target.board, dram_bytes=1000)  # type: ignore[attr-defined]
    with pytest.raises(CompilerError) as fault:
        run_pipeline(made, "plan-memory", ctx=PassContext(target=target), crash_directory=None)
    text = str(fault.value)
    assert "E620" in text and "too many" in text and "alive at the peak" in text


def lopsided() -> Module:
    """Two branches, in the wrong order: the first leaves much behind, the second passes through much."""
    net = Network((1, 8, 16, 16))
    x = net.relu(net.conv(net.x, 8, "in"), "in.r")
    wide = net.relu(net.conv(x, 64, "wide", kernel=3), "wide.r")
    through = net.op("nn.max_pool2d", net.relu(net.conv(x, 64, "through", kernel=3), "through.r"), name="small",
                     kernel=(16, 16), strides=(16, 16))  # fmt: skip
    a, b = net.conv(wide, 8, "a", kernel=3), net.conv(through, 8, "b")
    return net.done(net.op("math.add", a, b, name="sum"))


def test_kernels_change_places_where_fewer_bytes_are_alive_then_and_results_stay_the_same() -> None:
    made = scheduled(lopsided())
    target = load_target("mlu220")
    given, ordered = (
        run_pipeline(made, text, target=target, crash_directory=None)
        for text in ("plan-memory{reorder=false}", "plan-memory")
    )
    names = [[op.name for op in module.functions["subnet0"].body] for module in (given, ordered)]
    assert workspace(ordered) < workspace(given)
    assert names[0] != names[1] and sorted(names[0]) == sorted(names[1])
    inputs = random_inputs(ordered)
    wanted = Interpreter(given).run(inputs)[0]
    assert np.array_equal(Interpreter(ordered).run(inputs)[0], wanted)
    assert np.array_equal(Session(target.emit(ordered)).run(*inputs), wanted)


def test_bisection_can_forbid_the_new_order_and_that_values_share_bytes() -> None:
    made = scheduled(lopsided())
    order = [op.name for op in made.functions["subnet0"].body]
    sizes = []
    for limit in (0, 1, 3, 5, None):
        ctx = PassContext(target=load_target("mlu220"), counter=RewriteCounter(limit=limit))
        left = run_pipeline(made, "plan-memory", ctx=ctx, crash_directory=None)
        assert ([op.name for op in left.functions["subnet0"].body] == order) == (limit == 0)
        sizes.append(workspace(left))
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[-1]


def test_the_rung_is_an_option_of_the_pass() -> None:
    text = "plan-memory{reorder=false,effort=sizes}"
    assert print_pipeline(parse_pipeline(text)) == text
    with pytest.raises(CompilerError, match="one of greedy, sizes, search, exact"):
        parse_pipeline("plan-memory{effort=best}")
