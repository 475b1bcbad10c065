"""Random chains of layers, joined into kernels as far as the target allows: one meaning whatever is joined, cut, kept
on chip or computed side by side.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from compiler.errors import CompilerError
from compiler.ir.core import Module, Value
from tests.journeys import assert_one_meaning, journey, random_inputs
from tests.networks import Network

CHANNELS = (4, 8, 24, 70, 130)


class Chain:
    """Grows a chain of image layers; results of its own shape may be added, those of an earlier layer read again."""

    def __init__(self, draw: Any, batch: int) -> None:
        self.draw = draw
        size = draw(st.integers(3, 14)), draw(st.integers(3, 14))
        self.net = Network((batch, draw(st.sampled_from(CHANNELS)), *size), seed=draw(st.integers(0, 7)))
        self.made: list[Value] = [self.net.x]

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def grow(self, number: int) -> None:
        x = self.made[-1] if self.pick(True, True, True, False) else self.pick(*self.made[-3:])
        name = f"v{number}"
        kind = self.pick("conv", "conv", "conv", "depthwise", "pool", "relu", "clip", "add")
        self.made.append(getattr(self, kind)(x, name))

    def conv(self, x: Value, name: str) -> Value:
        kernel = self.pick(1, 1, 3, 5) if min(x.type.static_shape[2:]) > 2 else 1
        stride = self.pick(1, 1, 1, 2)
        return self.net.conv(x, self.pick(*CHANNELS), name, kernel=kernel, strides=(stride, stride))

    def depthwise(self, x: Value, name: str) -> Value:
        channels, stride = x.type.static_shape[1], self.pick(1, 1, 2)
        kernel = 3 if min(x.type.static_shape[2:]) > 2 else 1
        return self.net.conv(x, channels, name, kernel=kernel, groups=channels, strides=(stride, stride))

    def pool(self, x: Value, name: str) -> Value:
        if min(x.type.static_shape[2:]) < 3:
            return self.relu(x, name)
        kind, stride = self.pick("nn.max_pool2d", "nn.avg_pool2d"), self.pick(1, 2)
        return self.net.op(kind, x, name=name, kernel=(3, 3), strides=(stride, stride), pads=(1, 1, 1, 1))

    def relu(self, x: Value, name: str) -> Value:
        return self.net.relu(x, name)

    def clip(self, x: Value, name: str) -> Value:
        return self.net.op("math.clip", x, name=name, low=0.0, high=6.0)

    def add(self, x: Value, name: str) -> Value:
        """A short cut: over the layers since a value of the same shape, or over one made for it."""
        same = [v for v in self.made if v is not x and v.type.shape == x.type.shape]
        other = self.pick(*same) if same else self.net.conv(x, x.type.static_shape[1], f"{name}_branch", kernel=1)
        return self.net.add(x, other, name)


@st.composite
def chains(draw: Any, most: int = 6) -> Module:
    chain = Chain(draw, draw(st.sampled_from((1, 4))))
    for number in range(draw(st.integers(2, most))):
        chain.grow(number)
    outputs = [chain.made[-1]]
    if chain.pick(False, False, True) and len(chain.made) > 2:
        outputs.append(chain.made[-2])
    return chain.net.done(*outputs)


WAYS = st.fixed_dictionaries({
    "cores": st.sampled_from((1, 2, 4)),
    "schedule": st.sampled_from((
        "schedule", "schedule{max-rows=1}", "schedule{max-rows=2,max-channels=64}", "schedule{buffers=1}",
        "schedule{split=rows}", "schedule{split=batch,max-rows=3}", "schedule{split=channels}",
    )),
    "chain": st.sampled_from(("chain-kernels{gain=-99.0}", "chain-kernels{gain=-99.0}", "chain-kernels", "")),
    "keep": st.sampled_from((
        "keep-on-chip", "keep-on-chip", "keep-on-chip{values=false}", "keep-on-chip{parameters=false}", "",
    )),
})  # fmt: skip


def assert_chain_has_one_meaning(module: Module, way: dict[str, Any]) -> None:
    try:
        made = journey(module, **way)
    except CompilerError as fault:  # tensors that are always zero, or a forced tiling that does not fit
        assume(not any(d.code in ("E526", "E610") for d in fault.diagnostics))
        raise
    assert_one_meaning(made, random_inputs(made.prepared, 3))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(chains(), WAYS)
def test_random_chains_have_one_meaning(module: Module, way: dict[str, Any]) -> None:
    assert_chain_has_one_meaning(module, way)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(chains(10), WAYS)
def test_many_random_chains_have_one_meaning(module: Module, way: dict[str, Any]) -> None:
    assert_chain_has_one_meaning(module, way)
