"""Random networks of everything the backend lowers keep their meaning from the float network to the simulator, whatever
is tiled, joined, kept on chip, made of 16 bits or left to the host, and resumed from text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Module
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from compiler.pass_manager import run_pipeline
from passes.quantization.layers import integer_layers
from tests.journeys import Arrays, assert_one_meaning, emitted, journey, legalised, placed, random_inputs
from tests.networks import Network
from tests.wide_networks import SMOOTH, networks

PLACES = st.fixed_dictionaries({
    "cores": st.sampled_from((4, 1, 2, 3)),
    "schedule": st.sampled_from((
        "schedule", "schedule{max-rows=1}", "schedule{max-rows=2,max-channels=64}", "schedule{buffers=1}",
        "schedule{split=rows}", "schedule{split=batch,max-rows=3}", "schedule{split=channels}",
    )),
    "fuse": st.sampled_from(("fuse-layers", "fuse-layers{elementwise=false}", "fuse-layers{max-ops=2}")),
    "chain": st.sampled_from(("chain-kernels", "chain-kernels{gain=-99.0}", "")),
    "keep": st.sampled_from(("keep-on-chip", "keep-on-chip{values=false}", "keep-on-chip{parameters=false}", "")),
})  # fmt: skip
TYPES = st.fixed_dictionaries({
    "legalize": st.sampled_from(("legalize", "legalize{float=f32}", "legalize{rounding=half-away}")),
    "weights": st.sampled_from(("per-channel", "per-tensor")),
    "residuals": st.sampled_from(("float", "i8")),
    "bits": st.sampled_from((8, 8, 16)),
})  # fmt: skip
EXACT = {"bits": 16, "legalize": "legalize{float=f32}"}
"""What keeps the most of the float meaning."""

any_speed = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def of_layers(module: Module, draw: Any) -> str:
    """The pass `quantize`, with some layers on the host and some in 16 bits."""
    names = [op.results[0].name for op in integer_layers(module.main)]
    chosen = {name: draw(st.sampled_from(("", "", "", "", "i16", "keep-float"))) for name in names}
    lists = {kind: [n for n in names if chosen[n] == kind] for kind in ("i16", "keep-float")}
    options = ",".join(f"{kind}=[{','.join(found)}]" for kind, found in lists.items() if found)
    return f"quantize{{{options}}}" if options else "quantize"


def assert_holds(module: Module, types: dict[str, Any], places: dict[str, Any], data: Any, scale: float) -> None:
    """One meaning, on numbers like those of calibration or far larger ones."""
    prepared = run_pipeline(module, "prepare", crash_directory=None)
    try:
        made = journey(prepared, quantize=of_layers(prepared, data.draw), **types, **places)
    except CompilerError as fault:  # tensors that are always zero, or a forced tiling that does not fit
        assume(not any(d.code in ("E526", "E610") for d in fault.diagnostics))
        raise
    assert_one_meaning(made, [np.float32(scale) * x for x in random_inputs(made.prepared, 3)])


scales = st.sampled_from((1.0, 1.0, 1e4))


@settings(max_examples=12, **any_speed)
@given(networks(), TYPES, PLACES, st.data(), scales)
def test_wide_networks_have_one_meaning(module, types, places, data, scale) -> None:
    assert_holds(module, types, places, data, scale)


@pytest.mark.slow
@settings(max_examples=100, **any_speed)
@given(networks(12), TYPES, PLACES, st.data(), scales)
def test_many_wide_networks_have_one_meaning(module, types, places, data, scale) -> None:
    assert_holds(module, types, places, data, scale)


def assert_alike(found: Arrays, wanted: Arrays, tolerance: float) -> None:
    """The same types, and numbers that differ by a part of the largest; places of extremes are not compared."""
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        if a.dtype.kind == "f":
            assert np.abs(a - b).max() <= tolerance * max(float(np.abs(b).max()), 1e-3)


@settings(max_examples=60, **any_speed)
@given(networks(10))
def test_preparation_and_layout_keep_the_meaning(module: Module) -> None:
    made = run_pipeline(module, "prepare,convert-layout", crash_directory=None)
    assert made.main.output_names == module.main.output_names
    inputs = random_inputs(module)
    assert_alike(Interpreter(made).run(inputs), Interpreter(module).run(inputs), 1e-3)


@settings(max_examples=40, **any_speed)
@given(networks(8, SMOOTH))
def test_lowering_keeps_the_meaning_where_types_are_wide(module: Module) -> None:
    inputs = random_inputs(module)
    try:
        _, legal = legalised(module, [inputs], **EXACT)
    except CompilerError as fault:
        assume(not any(d.code == "E526" for d in fault.diagnostics))
        raise
    assert_alike(Interpreter(legal).run(inputs), Interpreter(module).run(inputs), 0.02)


@settings(max_examples=10, **any_speed)
@given(networks(), PLACES)
def test_a_compilation_resumed_from_text_gives_the_same_file(module: Module, places: dict[str, Any]) -> None:
    try:
        made = journey(module, **places)
    except CompilerError as fault:
        assume(not any(d.code in ("E526", "E610") for d in fault.diagnostics))
        raise
    cores = places["cores"]
    legal, final = (parse_module(print_module(m, inline_constants=True)) for m in (made.legal, made.placed))
    assert emitted(final, cores).to_bytes() == made.model.to_bytes()
    assert emitted(placed(legal, **places), cores).to_bytes() == made.model.to_bytes()


# -- found so --------------------------------------------------------------------------------------------------------
def test_a_number_that_the_host_computes_stays_a_number() -> None:
    net = Network((1, 3, 4, 4))
    mean = net.op("reduce.mean", net.x, name="m", keepdims=False)
    y = net.add(net.op("math.sinh", mean, name="s"), mean, "y")
    made = journey(net.done(y))
    (found,) = assert_one_meaning(made, random_inputs(made.prepared))
    assert found.shape == ()


@pytest.mark.parametrize("kind", ["math.add", "math.sub", "math.mul", "math.maximum"])
def test_a_number_made_at_run_time_is_combined_with_an_image(kind: str) -> None:
    net = Network((2, 3, 4, 5), (2, 3, 4, 5))
    mean = net.op("reduce.mean", net.x, name="m", keepdims=False)
    first, second = net.op(kind, mean, net.inputs[1], name="a"), net.op(kind, net.inputs[1], mean, name="b")
    made = journey(net.done(first, second), **EXACT)
    inputs = random_inputs(made.prepared)
    assert_alike(assert_one_meaning(made, inputs), Interpreter(made.prepared).run(inputs), 1e-5)


@pytest.mark.parametrize("kind", ["nn.conv2d", "nn.conv_transpose2d"])
def test_a_depthwise_convolution_of_several_results_per_channel_runs_on_the_chip(kind: str) -> None:
    net = Network((2, 4, 7, 6))
    shape = (12, 1, 3, 3) if kind == "nn.conv2d" else (4, 3, 3, 3)
    y = net.op(kind, net.x, net.constant("w", *shape), net.constant("b", 12), name="y", groups=4, strides=(2, 2))
    made = journey(net.done(y), **EXACT)
    assert not [f for f in made.legal.functions if f.startswith("host")]
    inputs = random_inputs(made.prepared)
    assert_alike(assert_one_meaning(made, inputs), Interpreter(made.prepared).run(inputs), 1e-5)
