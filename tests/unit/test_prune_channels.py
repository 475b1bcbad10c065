"""Structured pruning: which channels are tied, which are pinned and why, and what the pass counts."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.errors import CompilerError
from compiler.ir.core import Module
from compiler.ir.types import DType, QuantType
from compiler.pass_context import PassContext
from compiler.pipelines import make_pass
from compiler.rewrite import RewriteCounter
from passes.pruning.channels import PruneChannels
from passes.pruning.flow import dependencies
from tests.networks import Network, op_named


def groups_of(net: Network) -> dict[str, str]:
    """Group name → size and, where it is pinned, why."""
    found = dependencies(net.module.main).groups()
    return {g.name: f"{len(g.components)} {g.pinned}".strip() for g in found}


def prune(module: Module, **options) -> PassContext:
    ctx = PassContext(**options.pop("context", {}))
    ctx.statistics.current = "prune"
    PruneChannels(**options).run(module, ctx)
    return ctx


def chain() -> Network:
    net = Network((1, 3, 4, 4))
    net.done(net.conv(net.relu(net.conv(net.x, 8, "a"), "r"), 4, "b"))
    return net


def test_a_sum_ties_the_layers_it_adds():
    net = Network((1, 3, 4, 4))
    a = net.conv(net.x, 8, "a")
    s = net.add(net.conv(a, 8, "b"), a, "s")
    net.done(net.conv(s, 4, "c"))
    assert groups_of(net) == {"a + b": "8", "c": "4 network output"}


def test_a_concatenation_keeps_its_parts_apart():
    net = Network((1, 3, 4, 4))
    both = net.op("tensor.concat", net.conv(net.x, 8, "a"), net.conv(net.x, 6, "b"), name="cat", axis=1)
    net.done(net.conv(both, 4, "c"))
    assert groups_of(net) == {"a": "8", "b": "6", "c": "4 network output"}


def test_a_concatenation_with_the_network_input_pins_only_that():
    net = Network((1, 3, 4, 4))
    both = net.op("tensor.concat", net.conv(net.x, 8, "a"), net.x, name="cat", axis=1)
    net.done(net.conv(both, 4, "c"))
    assert groups_of(net)["a"] == "8"
    assert groups_of(net)["x"] == "3 concatenated with unknown channels"


def test_an_op_that_mixes_channels_pins_them_with_the_reason():
    net = Network((1, 3, 4, 4))
    mixed = net.op("nn.softmax", net.conv(net.x, 8, "a"), name="s", axis=1)
    net.done(net.conv(mixed, 4, "b"))
    assert groups_of(net)["a"] == "8 nn.softmax needs every channel"


def test_a_grouped_convolution_pins_its_input():
    net = Network((1, 3, 4, 4))
    net.done(net.conv(net.conv(net.x, 8, "a"), 8, "g", groups=2))
    assert groups_of(net) == {"a": "8 nn.conv2d needs every channel"}


def test_a_sum_with_the_network_input_pins_channels():
    net = Network((1, 3, 4, 4))
    net.done(net.conv(net.add(net.conv(net.x, 3, "a"), net.x, "s"), 4, "b"))
    assert groups_of(net)["a"] == "3 math.add with a value of unknown channels"


def test_a_reshape_that_splits_channels_pins_them():
    net = Network((1, 3, 4, 4))
    split = net.op("tensor.reshape", net.conv(net.x, 8, "a"), name="s", shape=(1, 2, 4, 4, 4))
    net.done(net.op("reduce.sum", split, name="y", axes=(2,), keepdims=False))
    assert groups_of(net)["a"] == "8 tensor.reshape needs every channel"


def test_a_strided_slice_over_channels_pins_them():
    net = Network((1, 3, 4, 4))
    every_other = net.op(
        "tensor.slice", net.conv(net.x, 8, "a"), name="s", starts=(0, 0, 0, 0), sizes=(1, 4, 4, 4), steps=(1, 2, 1, 1)
    )
    net.done(net.conv(every_other, 4, "b"))
    assert groups_of(net)["a"] == "8 tensor.slice needs every channel"


def test_hidden_features_of_a_transformer_block_may_go():
    net = Network((1, 5, 8))
    hidden = net.op("nn.gelu", net.add(net.matmul(net.x, 32, "up"), net.constant("up.b", 32), "u"), name="g")
    out = net.add(net.matmul(hidden, 8, "down"), net.x, "sum")
    net.done(net.op("nn.layer_norm", out, net.constant("ln.s", 8), net.constant("ln.b", 8), name="y"))
    assert groups_of(net)["up"] == "32"
    prune(net.module, ratio=0.5, multiple=8)
    assert net.module.constants["up.b"].type.shape == (16,)
    assert net.module.constants["down.w"].type.shape == (16, 8)


def test_the_smallest_channels_go_and_the_others_keep_their_order():
    net = Network((1, 1, 2, 2))
    w = net.module.add_constant("w", np.array([3, 1, 4, 2], np.float32).reshape(4, 1, 1, 1))
    net.done(net.conv(net.op("nn.conv2d", net.x, w, name="a"), 2, "b"))
    prune(net.module, ratio=0.5, multiple=1)
    assert net.module.constants["w"].data.ravel().tolist() == [3, 4]


def test_saliency_is_summed_over_tied_layers():
    net = Network((1, 1, 2, 2))
    one = net.module.add_constant("one", np.array([3, 1], np.float32).reshape(2, 1, 1, 1))
    two = net.module.add_constant("two", np.array([0, 5], np.float32).reshape(2, 1, 1, 1))
    parts = [net.op("nn.conv2d", net.x, w, name=w.name + ".y") for w in (one, two)]
    net.done(net.conv(net.add(*parts, "s"), 2, "b"))
    prune(net.module, ratio=0.5, multiple=1)
    assert net.module.constants["one"].data.ravel().tolist() == [1]


def test_a_depthwise_convolution_loses_groups():
    net = Network((1, 3, 4, 4))
    net.done(net.conv(net.conv(net.conv(net.x, 8, "a"), 8, "dw", kernel=3, groups=8), 4, "b"))
    prune(net.module, ratio=0.5, multiple=1)
    assert op_named(net.module, "dw").attributes["groups"] == 4
    assert net.module.constants["dw.w"].type.shape == (4, 1, 3, 3)


def test_weights_shared_by_two_layers_are_sliced_for_each():
    net = Network((1, 8, 4, 4))
    w = net.constant("w", 8, 8, 1, 1)
    first = net.op("nn.conv2d", net.x, w, name="a")
    net.done(net.conv(net.op("nn.conv2d", first, w, name="b"), 4, "c"))
    prune(net.module, ratio=0.5, multiple=1)
    assert op_named(net.module, "a").inputs[1].type.shape == (4, 8, 1, 1)
    assert op_named(net.module, "b").inputs[1].type.shape == (4, 4, 1, 1)


def test_layers_to_keep_are_kept():
    net = chain()
    ctx = prune(net.module, ratio=0.5, multiple=1, keep=("a",))
    assert op_named(net.module, "a").results[0].type.shape[1] == 8
    assert ctx.statistics.of("prune")["channels left alone: kept by option"] == 8


def test_the_pass_counts_parameters_groups_and_declines():
    net = chain()
    assert dict(prune(net.module, ratio=0.5, multiple=1).statistics.of("prune")) == {
        "channels removed": 4,
        "a: 8 -> 4": 1,
        "channels left alone: network output": 4,
        "parameters before": 8 * 3 + 8 + 4 * 8 + 4,
        "parameters after": 4 * 3 + 4 + 4 * 4 + 4,
    }


@pytest.mark.parametrize(("multiple", "kept"), [(1, 6), (2, 6), (4, 4), (8, 8), (16, 8)])
def test_the_number_kept_is_the_nearest_multiple(multiple, kept):
    net = chain()
    prune(net.module, ratio=0.3, multiple=multiple)
    assert op_named(net.module, "a").results[0].type.shape[1] == kept


class Lanes:
    """A target that only knows its lanes."""

    lanes = 64


@pytest.mark.parametrize(("channels", "kept"), [(256, 192), (128, 64), (64, 48), (48, 32), (16, 12), (3, 2)])
def test_multiple_zero_asks_the_target(channels, kept):
    net = Network((1, 3, 4, 4))
    net.done(net.conv(net.conv(net.x, channels, "a"), 4, "b"))
    prune(net.module, ratio=0.3, context={"target": Lanes()})
    assert op_named(net.module, "a").results[0].type.shape[1] == kept


def test_at_least_min_channels_stay():
    net = chain()
    prune(net.module, ratio=0.9, multiple=1, min_channels=5)
    assert op_named(net.module, "a").results[0].type.shape[1] == 5


def test_bisection_can_forbid_a_group():
    net = chain()
    prune(net.module, ratio=0.5, multiple=1, context={"counter": RewriteCounter(limit=0)})
    assert op_named(net.module, "a").results[0].type.shape[1] == 8


@pytest.mark.parametrize("option", [{"ratio": 1.0}, {"ratio": -0.1}, {"multiple": -1}, {"min-channels": 0}])
def test_options_out_of_range_are_errors(option):
    with pytest.raises(CompilerError, match="E404"):
        make_pass("prune-channels", option)


def test_a_quantised_module_is_refused():
    net = Network((1, 2, 2, 2))
    w = net.module.add_constant("w", np.ones((2, 2, 1, 1), np.int8), QuantType(DType.I8, -6))
    x = net.op("quant.quantize", net.x, name="q", types=[net.x.type.with_quant(QuantType(DType.I8, -6))])
    net.done(net.op("nn.conv2d", x, w, name="y"))
    with pytest.raises(CompilerError, match="put prune-channels before quantize"):
        prune(net.module)
