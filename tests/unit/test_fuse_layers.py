"""Which ops share a kernel, which stay apart, and which views need a copy."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Module, Op, Value
from compiler.pass_manager import PassContext, run_pipeline
from compiler.rewrite import RewriteCounter
from compiler.target import load_target
from passes.quantization.scheme import Scheme
from tests.journeys import assert_one_meaning, assert_same_bytes, journey, legalised, random_inputs
from tests.networks import Network
from tests.random_networks import networks


def fused(module: Module, fuse: str = "fuse-layers", ctx: PassContext | None = None, **options: object) -> Module:
    _, legal = legalised(module, **options)  # type: ignore[arg-type]
    return run_pipeline(legal, fuse, ctx=ctx or PassContext(target=load_target("mlu220")), crash_directory=None)


def kernels(module: Module) -> list[list[str]]:
    """The ops of every kernel of the first subnet, by their kind."""
    return [
        [op.op_name.partition(".")[2] for op in kernel.regions[0].block if op.op_name != "graph.yield"]
        for kernel in module.functions["subnet0"].body if kernel.op_name == "graph.kernel"
    ]  # fmt: skip


def outside(module: Module) -> list[str]:
    return [op.op_name for op in module.functions["subnet0"].body if op.op_name != "graph.kernel"]


def kernel_with(module: Module, kind: str) -> list[str]:
    return next(ops for ops in kernels(module) if kind in ops)


def test_a_convolution_takes_what_follows_it() -> None:
    net = Network((1, 4, 6, 6))
    module = fused(net.done(net.conv(net.relu(net.conv(net.x, 8, "a"), "r"), 4, "b")))
    first = next(ops for ops in kernels(module) if "relu" in ops)
    assert first[first.index("conv2d") :] == ["conv2d", "mul", "add", "relu", "convert"]


def test_every_joining_is_a_rewrite_that_bisection_can_stop() -> None:
    net = Network((1, 4, 6, 6))
    net.done(net.conv(net.relu(net.conv(net.x, 8, "a"), "r"), 4, "b"))
    whole, none, some = (RewriteCounter(limit=limit) for limit in (None, 0, 2))
    target = load_target("mlu220")
    for counter, alone in ((whole, None), (none, True), (some, False)):
        ops = kernels(fused(net.module, ctx=PassContext(target=target, counter=counter)))
        assert alone is None or all(len(kernel) == 1 for kernel in ops) == alone
    assert (none.count, some.count) == (0, 2) and whole.count > 5
    assert "joins the kernel of" in whole.last


def test_a_residual_joins_the_later_of_its_operands() -> None:
    net = Network((1, 4, 6, 6))
    r = net.relu(net.conv(net.x, 4, "a"), "r")
    module = fused(net.done(net.relu(net.add(net.conv(r, 4, "b", kernel=3), r, "s"), "y")))
    assert kernel_with(module, "relu")
    assert any("conv2d" in ops and ops.count("add") == 2 and "relu" in ops for ops in kernels(module))


def test_an_operand_made_later_keeps_an_op_apart() -> None:
    """Left joins nothing that would need right before it is computed: kernels stay convex."""
    net = Network((1, 4, 6, 6))
    left = net.conv(net.x, 4, "l")
    right = net.conv(net.conv(left, 4, "m"), 4, "r")
    module = fused(net.done(net.add(left, right, "y")))
    order = [kernel.name for kernel in module.functions["subnet0"].body if kernel.op_name == "graph.kernel"]
    defined: set[str] = set()
    for kernel in module.functions["subnet0"].body:
        assert all(v.name in defined for v in kernel.inputs if v.producer is not None), order
        defined |= {r.name for r in kernel.results}


def test_depthwise_taps_and_the_elementwise_ops_around_them_are_one_kernel() -> None:
    net = Network((1, 8, 6, 6))
    y = net.relu(net.conv(net.op("nn.sigmoid", net.x, name="s"), 8, "d", kernel=3, groups=8), "y")
    module = fused(net.done(y), scheme=Scheme())
    assert len(kernels(module)) == 1 and "depthwise_conv2d" in kernels(module)[0]


def test_two_convolutions_are_two_kernels() -> None:
    net = Network((1, 4, 6, 6))
    module = fused(net.done(net.conv(net.conv(net.x, 8, "a"), 4, "b")))
    assert sum("conv2d" in ops for ops in kernels(module)) == 2
    assert all(ops.count("conv2d") <= 1 for ops in kernels(module))


def test_a_kernel_may_give_several_results() -> None:
    net = Network((1, 4, 6, 6))
    a = net.relu(net.conv(net.x, 4, "a"), "r")
    made = journey(net.done(a, net.op("nn.sigmoid", a, name="s"), net.conv(a, 4, "b")), chain="")
    counts = [len(op.results) for op in made.placed.ops() if op.op_name == "graph.kernel"]
    assert max(counts) >= 2
    assert_one_meaning(made, random_inputs(made.prepared))


def test_fusion_can_be_switched_off_and_limited() -> None:
    net = Network((1, 4, 6, 6))
    module = net.done(net.relu(net.conv(net.x, 8, "a"), "r"))
    assert all(len(ops) == 1 for ops in kernels(fused(module, "fuse-layers{elementwise=false}")))
    assert max(len(ops) for ops in kernels(fused(module, "fuse-layers{max-ops=3}"))) == 3


def test_softmax_is_computed_row_by_row_and_stays_right() -> None:
    net = Network((1, 10, 3, 5))
    pooled = net.op("nn.max_pool2d", net.x, name="p", kernel=(1, 1), strides=(2, 1))
    made = journey(net.done(net.op("nn.softmax", pooled, name="y", axis=1)), scheme=Scheme())
    assert_one_meaning(made, random_inputs(made.prepared))


# -- views -----------------------------------------------------------------------------------------------------------
def concatenated(*parts: str) -> Module:
    """A concatenation of: computed values, the input, a value twice, a slice, a value that is returned too."""
    net = Network((1, 4, 6, 6))
    r = net.op("nn.sigmoid", net.x, name="r")
    piece = net.op("tensor.slice", r, name="piece", starts=(0, 1, 0, 0), sizes=(1, 2, 6, 6))
    values: dict[str, Value] = {"x": net.x, "r": r, "slice": piece, "s": net.relu(net.x, "s")}
    joined = net.op("tensor.concat", *(values[p] for p in parts), name="j", axis=1)
    outputs = [net.op("nn.max_pool2d", joined, name="y", kernel=(2, 2))]
    return net.done(*outputs, *([r] if "returned" in parts else []))


def copies(module: Module) -> int:
    return sum(op.op_name == "mlu.copy" for op in module.ops())


@pytest.mark.parametrize(("parts", "needed"), [(("r", "s"), 0), (("r", "r"), 2), (("r", "slice"), 1), (("s", "x"), 0)])
def test_parts_of_a_concatenation_are_copied_only_where_they_lie_elsewhere(parts: tuple[str, ...], needed: int) -> None:
    module = fused(concatenated(*parts), scheme=Scheme())
    assert copies(module) <= needed
    made = journey(concatenated(*parts), scheme=Scheme())
    assert_one_meaning(made, random_inputs(made.prepared))


def test_views_of_views_keep_their_meaning() -> None:
    """A reshape of a slice, a slice of a concatenation, a concatenation of a concatenation, all of them returned."""
    net = Network((1, 4, 6, 6))
    r, s = net.op("nn.sigmoid", net.x, name="r"), net.relu(net.x, "s")
    inner = net.op("tensor.concat", r, s, name="inner", axis=1)
    outer = net.op("tensor.concat", inner, net.op("math.tanh", net.x, name="t"), name="outer", axis=1)
    piece = net.op("tensor.slice", outer, name="piece", starts=(0, 2, 1, 0), sizes=(1, 6, 2, 3), steps=(1, 1, 2, 2))
    flat = net.op("tensor.reshape", piece, name="flat", shape=(1, 36))
    y = net.op("nn.max_pool2d", outer, name="y", kernel=(2, 2))
    made = journey(net.done(y, inner, piece, flat, r), scheme=Scheme())
    inputs = random_inputs(made.prepared)
    assert_one_meaning(made, inputs)


def test_reshapes_and_slices_are_no_instructions() -> None:
    net = Network((1, 4, 6, 6))
    part = net.op("tensor.slice", net.relu(net.x, "r"), name="p", starts=(0, 0, 1, 0), sizes=(1, 4, 4, 6))
    module = fused(net.done(net.op("nn.max_pool2d", part, name="y", kernel=(2, 2))), scheme=Scheme())
    assert "mlu.slice" in outside(module) and copies(module) == 0


def only_relu() -> Module:
    net = Network((1, 4, 6, 6))
    return net.done(net.relu(net.x, "r"))


def test_a_returned_view_is_copied_into_the_callers_buffer() -> None:
    net = Network((1, 4, 6, 6))
    r = net.relu(net.x, "r")
    part = net.op("tensor.slice", r, name="p", starts=(0, 0, 1, 0), sizes=(1, 4, 4, 6))
    module = fused(net.done(part), scheme=Scheme())
    final = module.functions["subnet0"].outputs[0].producer
    assert final is not None and final.op_name == "graph.kernel"
    whole = fused(only_relu(), scheme=Scheme())
    assert copies(whole) == 0


# -- laws ------------------------------------------------------------------------------------------------------------
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(8))
def test_fusion_changes_no_value_and_leaves_views_outside_kernels(module: Module) -> None:
    try:
        _, legal = legalised(module)
    except CompilerError as fault:
        assert all(d.code == "E526" for d in fault.diagnostics)
        return
    grouped = run_pipeline(legal, "fuse-layers", target=load_target("mlu220"), crash_directory=None)
    inputs = random_inputs(module)
    assert_same_bytes(Interpreter(grouped).run(inputs), Interpreter(legal).run(inputs), "fused")
    target = load_target("mlu220")
    inside: list[Op] = [op for op in grouped.ops() if op.op_name == "graph.kernel" for op in op.regions[0].block]
    assert all(op.op_name == "graph.yield" or target.storage(op) == "own" for op in inside)
