"""Uses, liveness and dominance, and that they are computed once per state of the module."""

from __future__ import annotations

import gc
import weakref

import pytest

from compiler.analyses import analysis, dominance, liveness, uses
from compiler.ir.core import Function, Module, Op, Value
from compiler.ir.parser import parse_module
from compiler.ops.math import Exp

TYPE = "tensor<2xf32>"
TEXT = f"""// mluc ir 1
const @c : {TYPE} = dense<[1.0, 2.0]>
func @main(%x: {TYPE}, %unused: {TYPE}) -> ({TYPE}) {{
  %a = nn.relu %x : {TYPE}
  %dead = math.exp %x : {TYPE}
  %b = math.add %a, @c : {TYPE}
  %d = math.mul %a, %b : {TYPE}
  return %d
}}"""
KERNEL = f"""// mluc ir 1
func @main(%x: {TYPE}) -> ({TYPE}) {{
  %k = graph.kernel %x {{
    (%i: {TYPE}):
    %inner = nn.relu %i : {TYPE}
    yield %inner
  }} : {TYPE}
  %after = nn.relu %k : {TYPE}
  return %after
}}"""


@pytest.fixture
def module() -> Module:
    return parse_module(TEXT)


def value(module: Module, name: str) -> Value:
    values: list[Value] = list(module.main.arguments)
    for op in module.main.walk():
        values += op.results
        for region in op.regions:
            values += region.block.arguments
    return next(v for v in values if v.name == name)


def op(module: Module, name: str) -> Op:
    found = value(module, name).producer
    assert found is not None
    return found


def test_uses_tell_outputs_unused_values_and_constants(module):
    found = uses(module.main)
    assert found.outputs == {value(module, "d")} and found.is_output(value(module, "d"))
    assert [v.name for v in found.unused] == ["unused", "dead"]
    assert [c.name for c in found.constants] == ["c"]


def test_value_lives_from_its_definition_to_its_last_use(module):
    live = liveness(module.main)
    a, x, b = value(module, "a"), value(module, "x"), value(module, "b")
    assert (live.first[x], live.last[x]) == (-1, 1)
    assert (live.first[a], live.last[a]) == (0, 3)
    assert live.alive(2) == [a, b]
    assert live.dies_at(a, op(module, "d")) and not live.dies_at(a, op(module, "b"))


def test_values_interfere_when_alive_at_once(module):
    live = liveness(module.main)
    assert live.interfere(value(module, "a"), value(module, "b"))
    assert not live.interfere(value(module, "x"), value(module, "d"))


def test_peak_is_the_step_with_most_bytes(module):
    live = liveness(module.main)
    assert live.bytes_alive() == [24, 24, 16, 24, 8]
    assert live.peak() == (24, op(module, "a"))


def test_kernel_takes_its_operands_in_one_step():
    module = parse_module(KERNEL)
    live = liveness(module.main)
    assert [o.op_name for o in live.order] == ["graph.kernel", "nn.relu", "graph.return"]
    assert live.dies_at(value(module, "x"), op(module, "k"))


def test_dominance_is_order_seen_through_kernels():
    module = parse_module(KERNEL)
    found = dominance(module.main)
    kernel, inner, after = op(module, "k"), op(module, "inner"), op(module, "after")
    assert found.dominates(value(module, "k"), after) and not found.dominates(value(module, "after"), kernel)
    assert found.dominates(value(module, "x"), inner) and found.dominates(value(module, "i"), inner)
    assert not found.dominates(value(module, "i"), after)
    assert not found.dominates(value(module, "inner"), after)
    assert not found.dominates(value(module, "k"), inner)
    assert found.latest([after, kernel]) is after


def test_constants_dominate_everything(module):
    assert dominance(module.main).dominates(module.constants["c"], op(module, "a"))


def test_analysis_is_computed_once_until_the_module_changes(module):
    computed = []

    @analysis
    def counted(function: Function) -> int:
        computed.append(function.name)
        return len(function.body)

    assert counted(module.main) == counted(module.main) == 5
    assert computed == ["main"]
    module.main.body.insert_before(op(module, "b"), Exp(value(module, "a")))
    assert counted(module.main) == 6 and computed == ["main", "main"]


def test_results_of_different_analyses_do_not_mix(module):
    assert uses(module.main) is uses(module.main)
    assert liveness(module.main) is liveness(module.main)
    assert dominance(module.main) is dominance(module.main)


def test_what_is_known_of_a_function_goes_with_it():
    module = parse_module(TEXT)
    liveness(module.main)
    function = weakref.ref(module.main)
    del module
    gc.collect()
    assert function() is None
