"""`expand-recurrent` gives what the layer's own evaluator gives, in every variant of every layer."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from compiler.ir.core import Module, Value
from compiler.ir.define import find_op
from compiler.pass_manager import PassContext, run_pipeline
from tests.journeys import assert_one_meaning, journey, random_inputs
from tests.networks import Network, run

GATES = {"nn.lstm": 4, "nn.gru": 3, "nn.rnn": 1}
STEPS, BATCH, SIZE, HIDDEN = 4, 2, 5, 3

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("nn.lstm", {}),
    "lstm with states": ("nn.lstm", {"states": True}),
    "lstm backwards": ("nn.lstm", {"states": True, "direction": "reverse"}),
    "lstm both ways": ("nn.lstm", {"states": True, "direction": "bidirectional"}),
    "lstm both ways from zero": ("nn.lstm", {"direction": "bidirectional"}),
    "lstm with peepholes": ("nn.lstm", {"states": True, "peepholes": True}),
    "lstm with coupled gates": ("nn.lstm", {"states": True, "input_forget": True}),
    "lstm with a clip": ("nn.lstm", {"states": True, "clip": 0.4}),
    "lstm of Keras": ("nn.lstm", {"activations": ("hard_sigmoid", "tanh", "tanh")}),
    "lstm of other functions": ("nn.lstm", {"states": True, "activations": ("sigmoid", "relu", "relu")}),
    "lstm without bias": ("nn.lstm", {"bias": False}),
    "gru": ("nn.gru", {}),
    "gru with states": ("nn.gru", {"states": True}),
    "gru linear before reset": ("nn.gru", {"states": True, "linear_before_reset": True}),
    "gru linear before reset from zero": ("nn.gru", {"linear_before_reset": True}),
    "gru both ways": ("nn.gru", {"states": True, "direction": "bidirectional"}),
    "rnn": ("nn.rnn", {"states": True}),
    "rnn both ways of other functions": ("nn.rnn", {"direction": "bidirectional", "activations": ("relu", "tanh")}),
}


def layer(
    kind: str, *, states: bool = False, peepholes: bool = False, bias: bool = True, steps: int = STEPS,
    outputs: slice = slice(None), **attributes: Any,
) -> Module:  # fmt: skip
    """A network of one recurrent layer that returns its results, or some of them."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    state = (directions, BATCH, HIDDEN)
    count = (2 if kind == "nn.lstm" else 1) if states else 0
    net = Network((steps, BATCH, SIZE), *[state] * count, seed=3)
    rows = GATES[kind] * HIDDEN
    operands: list[Value | None] = [
        net.x, net.constant("w", directions, rows, SIZE), net.constant("r", directions, rows, HIDDEN),
        net.constant("b", directions, 2 * rows) if bias else None,
    ]  # fmt: skip
    operands += net.inputs[1:] or [None]
    if kind == "nn.lstm":
        operands += [] if states else [None]
        operands.append(net.constant("p", directions, 3 * HIDDEN) if peepholes else None)
    found = find_op(kind)
    assert found is not None
    names = ["y", "h", "c"][: 3 if kind == "nn.lstm" else 2]
    op = net.main.body.append(found(*operands, hidden=HIDDEN, names=names, **attributes))
    return net.done(*op.results[outputs])


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_expanded_layer_computes_the_same(variant: str) -> None:
    kind, options = VARIANTS[variant]
    module = layer(kind, **options)
    expanded = run_pipeline(module, "expand-recurrent,simplify")
    assert kind not in {op.op_name for op in expanded.ops()}
    inputs = random_inputs(module, 5)
    for found, wanted in zip(run(expanded, *inputs), run(module, *inputs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_outputs_keep_their_names_and_values_are_named_after_the_layer() -> None:
    module = run_pipeline(layer("nn.lstm", states=True), "expand-recurrent,simplify")
    assert module.main.output_names == ("y", "h", "c")
    names = {r.name for op in module.main.body for r in op.results}
    assert {"y.product", "y.t0.recurrent", "y.t3.h"} <= names
    assert all(re.match(r"[yhc]\b", name) for name in names)


def test_the_same_layer_gives_the_same_text() -> None:
    texts = {str(run_pipeline(layer("nn.gru", states=True), "prepare")) for _ in range(2)}
    assert len(texts) == 1


def test_one_matmul_serves_the_inputs_of_all_steps_and_steps_share_their_weights() -> None:
    module = run_pipeline(layer("nn.lstm", states=True), "prepare")
    products = [op for op in module.ops() if op.op_name == "nn.matmul"]
    assert len(products) == 1 + STEPS
    assert len({op.inputs[1] for op in products}) == 2


def test_results_nobody_takes_are_not_made() -> None:
    module = run_pipeline(layer("nn.lstm", outputs=slice(1, 2)), "expand-recurrent")
    assert {op.op_name for op in module.main.body if op.op_name.startswith("tensor.")} == {
        "tensor.reshape", "tensor.slice",
    }  # fmt: skip
    assert [v.name for v in module.main.body.terminator.inputs] == ["h"]


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [
        ({"steps": 9}, "expand-recurrent{max-steps=8}", "longer than max-steps"),
        ({"steps": 0}, "expand-recurrent", "there are no steps"),
        ({"computed": True}, "expand-recurrent", "weights are not constant"),
    ],
)
def test_what_is_left_alone_is_counted_with_its_reason(options: dict[str, Any], text: str, reason: str) -> None:
    computed = options.pop("computed", False)
    module = layer("nn.rnn", **options)
    if computed:
        (op,) = (op for op in module.main.body if op.op_name == "nn.rnn")
        op.set_operand(1, module.main.add_argument(op.inputs[1].type, "w.in"))
    ctx = PassContext()
    after = run_pipeline(module, text, ctx=ctx)
    assert "nn.rnn" in {op.op_name for op in after.ops()}
    assert reason in str(ctx.statistics)


@pytest.mark.parametrize("variant", ["lstm with states", "lstm both ways", "gru linear before reset", "rnn"])
def test_recurrent_layers_run_on_the_chip_alone(variant: str) -> None:
    kind, options = VARIANTS[variant]
    module = layer(kind, **options)
    inputs = random_inputs(module, 5)
    made = journey(module, [inputs])
    assert [f.name for f in made.model.functions] == ["subnet0"]
    found = assert_one_meaning(made, inputs)
    for y, wanted in zip(found, run(module, *inputs), strict=True):
        assert np.abs(y - wanted).max() < 0.06
