"""What runs where: levels of one device each, transposes at the border, dense crossing values, reasons told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Module, Value
from compiler.ir.types import DType
from compiler.ir.verifier import verify
from compiler.pass_manager import PassContext, run_pipeline
from compiler.rewrite import RewriteCounter
from compiler.target import load_target
from passes.quantization.scheme import Scheme
from tests.journeys import assert_one_meaning, assert_same_bytes, journey, legalised, random_inputs
from tests.networks import Network
from tests.random_networks import networks


def on_host(net: Network, x: Value, name: str) -> Value:
    """An op the chip has no instruction for."""
    return net.op("math.atan", x, name=name)


def partitioned(module: Module, pipeline: str = "partition", ctx: PassContext | None = None) -> Module:
    ctx = ctx or PassContext(target=load_target("mlu220"), options={"scheme": Scheme()})
    return run_pipeline(module, pipeline, ctx=ctx, crash_directory=None)


def calls(module: Module) -> list[str]:
    return [op.attributes["callee"] for op in module.main.body if op.op_name == "graph.call"]


def test_a_network_the_chip_can_run_is_one_subnet() -> None:
    net = Network((1, 4, 4, 4))
    module = partitioned(net.done(net.relu(net.relu(net.x, "a"), "b")))
    assert calls(module) == ["subnet0"] and list(module.functions) == ["main", "subnet0"]


def test_segments_alternate_and_hold_as_much_as_they_can() -> None:
    """Two branches, one through the host: the other branch does not wait in a segment of its own."""
    net = Network((1, 4, 4, 4))
    a = net.relu(net.x, "a")
    hosted = on_host(net, a, "h")
    beside = net.relu(net.op("nn.sigmoid", a, name="s"), "b")
    module = partitioned(net.done(net.add(net.relu(hosted, "c"), beside, "y")))
    assert calls(module) == ["subnet0", "host0", "subnet1"]
    assert {"a", "s", "b"} <= {op.name for op in module.functions["subnet0"].body}


def test_main_is_left_with_calls_and_border_transposes() -> None:
    net = Network((1, 4, 4, 4))
    y = on_host(net, net.op("nn.max_pool2d", net.x, name="p", kernel=(2, 2)), "h")
    module = partitioned(net.done(net.op("nn.max_pool2d", y, name="q", kernel=(2, 2))), "convert-layout,partition")
    assert {op.op_name for op in module.main.body} == {"graph.call", "graph.return", "tensor.transpose"}


def test_a_transpose_between_two_chip_ops_stays_on_the_chip() -> None:
    net = Network((1, 4, 3, 5))
    turned = net.op("tensor.transpose", net.relu(net.x, "a"), name="t", perm=(0, 2, 3, 1))
    module = partitioned(net.done(net.relu(turned, "b")))
    assert calls(module) == ["subnet0"]
    assert "tensor.transpose" in {op.op_name for op in module.functions["subnet0"].body}


def test_the_reasons_are_told_once_per_kind_with_their_nodes() -> None:
    net = Network((1, 4, 4, 4))
    ctx = PassContext(target=load_target("mlu220"))
    partitioned(net.done(on_host(net, on_host(net, net.x, "h1"), "h2")), ctx=ctx)
    (told,) = ctx.diagnostics
    assert told.code == "E603" and told.severity == "warning" and "2 run on the host" in told.message
    assert "h1" in told.where and "h2" in told.where


def test_each_reason_is_told_with_its_own_nodes() -> None:
    net = Network((1, 4, 4, 4))
    doubles = [net.op("math.cast", net.x, name=name, to=DType.F64) for name in ("c", "d")]
    ctx = PassContext(target=load_target("mlu220"))
    partitioned(net.done(*[net.relu(double, f"relu of {double.name}") for double in doubles]), ctx=ctx)
    told = [(d.message.split()[5], d.where) for d in ctx.diagnostics if d.op == "nn.relu"]
    assert sorted(told) == [("'c'", "'relu of c'"), ("'d'", "'relu of d'")]


def test_a_partition_stopped_after_any_segment_computes_the_same() -> None:
    net = Network((1, 4, 4, 4))
    a = net.relu(net.x, "a")
    beside = net.relu(net.op("nn.sigmoid", a, name="s"), "b")
    module = net.done(net.add(net.relu(on_host(net, a, "h"), "c"), beside, "y"))
    inputs = random_inputs(module, 1)
    wanted = Interpreter(module).run(inputs)[0]
    for limit in range(4):
        ctx = PassContext(target=load_target("mlu220"), counter=RewriteCounter(limit=limit))
        part = run_pipeline(module, "partition", ctx=ctx, verify_each=False, crash_directory=None)
        verify(part)
        assert calls(part) == ["subnet0", "host0", "subnet1"][:limit] and ctx.counter.count == limit
        assert np.array_equal(Interpreter(part).run(inputs)[0], wanted)


def test_host_segments_can_be_forbidden() -> None:
    net = Network((1, 4, 4, 4))
    with pytest.raises(CompilerError) as fault:
        partitioned(net.done(on_host(net, on_host(net, net.x, "h1"), "h2")), "partition{host=false}")
    assert [d.code for d in fault.value.diagnostics] == ["E604", "E604"]
    assert "partition{host=true}" in str(fault.value)


def test_a_model_of_host_ops_only_has_no_subnet_and_runs() -> None:
    net = Network((1, 4, 4, 4))
    made = journey(net.done(on_host(net, net.x, "y")), scheme=Scheme())
    assert made.model.device_functions == [] and [s.function for s in made.model.steps] == ["host0"]
    assert_one_meaning(made, random_inputs(made.prepared))


def test_quantised_values_cross_between_chip_and_host() -> None:
    """Two products of activations: one operand leaves the chip as integers, with what they stand for."""
    net = Network((1, 1, 6, 8))
    a = net.op("nn.sigmoid", net.conv(net.x, 1, "c"), name="a")
    w = net.op("tensor.transpose", a, name="t", perm=(0, 1, 3, 2))
    module = net.done(net.conv(on_host(net, net.op("nn.matmul", a, w, name="m"), "h"), 2, "y"))
    made = journey(module)
    assert_one_meaning(made, random_inputs(made.prepared))


def test_inputs_and_outputs_keep_their_layout_around_host_segments() -> None:
    """Transposes on either side of a host function, of a subnet, and between the two."""
    net = Network((1, 4, 6, 8))
    left = net.conv(on_host(net, net.x, "h"), 6, "l", kernel=3)
    module = net.done(on_host(net, left, "g"), left, net.conv(net.x, 5, "r", kernel=3))
    made = journey(module)
    inputs = random_inputs(made.prepared)
    for found, wanted in zip(assert_one_meaning(made, inputs), Interpreter(made.prepared).run(inputs), strict=True):
        assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()


@pytest.mark.parametrize("returned", ["input", "twice", "input and value", "constant"])
def test_results_that_nothing_computes_are_returned_all_the_same(returned: str) -> None:
    net = Network((1, 4, 4, 4))
    y = net.relu(net.x, "y")
    constant = net.module.add_constant("k", np.arange(4, dtype=np.float32))
    outputs = {"input": [net.x], "twice": [y, y], "input and value": [net.x, y, net.x], "constant": [constant, y]}
    made = journey(net.done(*outputs[returned]), scheme=Scheme())
    inputs = random_inputs(made.prepared)
    found, wanted = assert_one_meaning(made, inputs), Interpreter(made.prepared).run(inputs)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_partition_changes_no_value(module: Module) -> None:
    inputs = random_inputs(module)
    module = run_pipeline(module, "convert-layout", crash_directory=None)
    split = partitioned(module)
    assert_same_bytes(Interpreter(split).run(inputs), Interpreter(module).run(inputs), "partitioned")


def test_a_partitioned_module_is_not_partitioned_again() -> None:
    net = Network((1, 4, 6, 6))
    module = net.done(net.relu(net.conv(net.x, 4, "c"), "r"))
    _, legal = legalised(module)
    with pytest.raises(CompilerError, match="partitioned already: it has @subnet0"):
        run_pipeline(legal, "partition", target=load_target("mlu220"))
