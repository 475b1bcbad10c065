"""Unstructured pruning: the smallest weights become zero, of each layer or of all together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import CompilerError
from compiler.pass_context import PassContext
from compiler.pipelines import make_pass
from passes.pruning.magnitude import PruneMagnitude
from tests.networks import Network


def two_layers(small: float = 0.01) -> Network:
    net = Network((1, 4, 2, 2))
    hidden = net.conv(net.x, 8, "a")
    w = net.constant("b.w", 4, 8, 1, 1, scale=small)
    net.done(net.op("nn.conv2d", hidden, w, name="b"))
    return net


def prune(net: Network, **options) -> PassContext:
    ctx = PassContext()
    ctx.statistics.current = "prune"
    PruneMagnitude(**options).run(net.module, ctx)
    return ctx


def zeros(net: Network, name: str) -> int:
    data = net.module.constants[name].data
    return data.size - np.count_nonzero(data)


@given(st.sampled_from([0.0, 0.25, 0.5, 0.9]), st.sampled_from(["layer", "global"]), st.integers(0, 5))
def test_what_becomes_zero_is_never_larger_than_what_stays(ratio, scope, seed):
    net = Network((1, 4, 2, 2), seed=seed)
    net.done(net.conv(net.conv(net.x, 8, "a"), 4, "b"))
    before = {name: net.module.constants[name].data for name in ("a.w", "b.w")}
    prune(net, ratio=ratio, scope=scope)
    zeroed = {name: net.module.constants[name].data == 0 for name in before}
    groups = [("a.w",), ("b.w",)] if scope == "layer" else [("a.w", "b.w")]
    for group in groups:
        gone = np.concatenate([np.abs(before[n][zeroed[n]]) for n in group])
        left = np.concatenate([np.abs(before[n][~zeroed[n]]) for n in group])
        assert len(gone) == round(ratio * (len(gone) + len(left)))
        assert gone.max(initial=0) <= left.min()


def test_each_layer_loses_the_same_part():
    net = two_layers()
    prune(net, ratio=0.5)
    assert (zeros(net, "a.w"), zeros(net, "b.w")) == (16, 16)


def test_global_scope_takes_them_where_they_are_small():
    net = two_layers()
    prune(net, ratio=0.5, scope="global")
    assert zeros(net, "b.w") > zeros(net, "a.w")


def test_biases_and_shapes_stay():
    net = two_layers()
    bias = net.module.constants["a.b"].data.copy()
    prune(net, ratio=0.9)
    assert (net.module.constants["a.b"].data == bias).all()
    assert net.module.constants["a.w"].type.shape == (8, 4, 1, 1)


def test_sparsity_is_counted():
    assert dict(prune(two_layers(), ratio=0.25).statistics.of("prune")) == {"weights": 64, "weights that are zero": 16}


def test_shared_weights_are_pruned_once():
    net = Network((1, 4, 2, 2))
    w = net.constant("w", 4, 4, 1, 1)
    net.done(net.op("nn.conv2d", net.op("nn.conv2d", net.x, w, name="a"), w, name="b"))
    prune(net, ratio=0.5)
    assert list(net.module.constants) == ["w"]
    assert zeros(net, "w") == 8


def test_the_documentation_says_that_the_chip_gains_no_speed():
    assert "no speed" in PruneMagnitude.summary()


def test_a_ratio_of_one_is_an_error():
    with pytest.raises(CompilerError, match="E404"):
        make_pass("prune-magnitude", {"ratio": 1.0})
