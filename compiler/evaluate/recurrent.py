"""Evaluators of the recurrent layers: the input product of all steps is one matrix product, then a loop over time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from compiler.evaluate.activation import logistic
from compiler.evaluate.registry import evaluator
from compiler.ops import recurrent as ops

Array = np.ndarray
Function = Callable[[Array], Array]

FUNCTIONS: dict[str, Function] = {
    "sigmoid": logistic, "tanh": np.tanh, "relu": lambda x: np.maximum(x, 0),
    "hard_sigmoid": lambda x: np.clip(x * x.dtype.type(0.2) + x.dtype.type(0.5), 0, 1),
}  # fmt: skip


def _direction(op: ops.Recurrent, index: int) -> tuple[bool, list[Function]]:
    """Whether direction `index` runs backwards, and its activations."""
    count = len(op.defaults)
    names = op.gate_activations[index * count : (index + 1) * count]
    return op.direction == "reverse" or index == 1, [FUNCTIONS[name] for name in names]


def _state(state: Array | None, op: ops.Recurrent, x: Array, index: int) -> Array:
    return np.zeros((x.shape[1], op.hidden), x.dtype) if state is None else state[index]


def _biases(b: Array | None, op: ops.Recurrent, x: Array, index: int) -> tuple[Array, Array]:
    """Input and recurrent biases, [gates * hidden] each."""
    width = op.gates * op.hidden
    both = np.zeros(2 * width, x.dtype) if b is None else b[index]
    return both[:width], both[width:]


def _clipped(op: ops.Recurrent, gates: Array) -> Array:
    return np.clip(gates, -op.clip, op.clip) if op.clip > 0 else gates


def _gates(hidden: int, gates: Array) -> list[Array]:
    return [gates[:, i : i + hidden] for i in range(0, gates.shape[1], hidden)]


def _steps(x: Array, backwards: bool) -> range:
    return range(x.shape[0] - 1, -1, -1) if backwards else range(x.shape[0])


@evaluator("nn.lstm", widens=True)
def lstm(
    op: ops.Lstm, x: Array, w: Array, r: Array, b: Array | None, h0: Array | None, c0: Array | None, p: Array | None
) -> tuple[Array, Array, Array]:
    y = np.empty((x.shape[0], op.directions, x.shape[1], op.hidden), x.dtype)
    last_h = np.empty((op.directions, x.shape[1], op.hidden), x.dtype)
    last_c = np.empty_like(last_h)
    for index in range(op.directions):
        backwards, (f, g, h_function) = _direction(op, index)
        h, c = _state(h0, op, x, index), _state(c0, op, x, index)
        fixed = np.matmul(x, w[index].T) + np.add(*_biases(b, op, x, index))
        peepholes = np.zeros((3, op.hidden), x.dtype) if p is None else p[index].reshape(3, op.hidden)
        for t in _steps(x, backwards):
            i, o, forget, cell = _gates(op.hidden, fixed[t] + h @ r[index].T)
            i = f(_clipped(op, i + peepholes[0] * c))
            forget = 1 - i if op.input_forget else f(_clipped(op, forget + peepholes[2] * c))
            c = forget * c + i * g(_clipped(op, cell))
            h = f(_clipped(op, o + peepholes[1] * c)) * h_function(c)
            y[t, index] = h
        last_h[index], last_c[index] = h, c
    return y, last_h, last_c


@evaluator("nn.gru", widens=True)
def gru(op: ops.Gru, x: Array, w: Array, r: Array, b: Array | None, h0: Array | None) -> tuple[Array, Array]:
    y = np.empty((x.shape[0], op.directions, x.shape[1], op.hidden), x.dtype)
    last = np.empty((op.directions, x.shape[1], op.hidden), x.dtype)
    n = op.hidden
    for index in range(op.directions):
        backwards, (f, g) = _direction(op, index)
        h = _state(h0, op, x, index)
        input_bias, recurrent_bias = _biases(b, op, x, index)
        fixed = np.matmul(x, w[index].T) + input_bias
        r_zr, r_h = r[index][: 2 * n].T, r[index][2 * n :].T
        for t in _steps(x, backwards):
            update, reset = _gates(n, f(_clipped(op, fixed[t, :, : 2 * n] + h @ r_zr + recurrent_bias[: 2 * n])))
            if op.linear_before_reset:
                inner = reset * (h @ r_h + recurrent_bias[2 * n :])
            else:
                inner = (reset * h) @ r_h + recurrent_bias[2 * n :]
            h = (1 - update) * g(_clipped(op, fixed[t, :, 2 * n :] + inner)) + update * h
            y[t, index] = h
        last[index] = h
    return y, last


@evaluator("nn.rnn", widens=True)
def rnn(op: ops.Rnn, x: Array, w: Array, r: Array, b: Array | None, h0: Array | None) -> tuple[Array, Array]:
    y = np.empty((x.shape[0], op.directions, x.shape[1], op.hidden), x.dtype)
    last = np.empty((op.directions, x.shape[1], op.hidden), x.dtype)
    for index in range(op.directions):
        backwards, (f,) = _direction(op, index)
        h = _state(h0, op, x, index)
        fixed = np.matmul(x, w[index].T) + np.add(*_biases(b, op, x, index))
        for t in _steps(x, backwards):
            h = f(_clipped(op, fixed[t] + h @ r[index].T))
            y[t, index] = h
        last[index] = h
    return y, last
