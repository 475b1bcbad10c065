"""Trials of layers with a state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.property.trials.dice import Dice, Trial, trial


def _recurrent(d: Dice, gates: int, defaults: Sequence[str], states: int) -> Trial:
    steps, batch, size, hidden = d.randint(1, 4), d.randint(1, 3), d.randint(1, 4), d.randint(1, 4)
    direction = d.choice(["forward", "reverse", "bidirectional"])
    directions = 2 if direction == "bidirectional" else 1
    layout = d.randint(0, 1) if d.opset >= 14 and d.flip(0.3) else 0
    x = d.floats(*((batch, steps, size) if layout else (steps, batch, size)))
    inputs: list[Any] = [x, d.floats(directions, gates * hidden, size), d.floats(directions, gates * hidden, hidden)]
    state = (batch, directions, hidden) if layout else (directions, batch, hidden)
    inputs.append(d.floats(directions, 2 * gates * hidden) if d.flip() else None)
    inputs.append(np.full(batch, steps, np.int32) if d.flip(0.2) else None)
    inputs += [d.floats(*state) if d.flip(0.4) else None for _ in range(states)]
    if states == 2:
        inputs.append(d.floats(directions, 3 * hidden) if d.flip(0.4) else None)
    while inputs[-1] is None:
        inputs.pop()
    attributes: dict[str, Any] = {"hidden_size": hidden, **({"layout": 1} if layout else {})}
    attributes |= d.some(direction=direction) if directions == 1 else {"direction": direction}
    if d.flip(0.3):
        attributes["clip"] = d.uniform(0.3, 1.5)
    if d.flip(0.3):
        names = [d.choice(["Relu", "Tanh", "Sigmoid", "HardSigmoid"]) for _ in list(defaults) * directions]
        attributes["activations"] = names
        if "HardSigmoid" in names:
            count = names.count("HardSigmoid")
            attributes |= d.some(activation_alpha=[0.2] * count, activation_beta=[0.5] * count)
    return Trial(inputs, attributes, outputs=1 + states, tolerance=1e-4)


@trial("LSTM", opsets=(7, 14))
def lstm(d: Dice) -> Trial:
    found = _recurrent(d, 4, ["Sigmoid", "Tanh", "Tanh"], 2)
    found.attributes |= d.some(input_forget=d.randint(0, 1)) if d.flip(0.3) else {}
    return found


@trial("GRU", opsets=(7, 14))
def gru(d: Dice) -> Trial:
    found = _recurrent(d, 3, ["Sigmoid", "Tanh"], 1)
    found.attributes |= d.some(linear_before_reset=d.randint(0, 1))
    return found


@trial("RNN", opsets=(7, 14))
def rnn(d: Dice) -> Trial:
    return _recurrent(d, 1, ["Tanh"], 1)
