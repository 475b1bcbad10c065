"""Rows of LSTM, GRU and RNN: whole stacks of layers, and single cells as sequences of one step.

torch orders an LSTM's gates i, f, g, o and a GRU's r, z, n; our ops have i, o, f, c and z, r, h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.moving import cat, flip, unsqueeze
from compiler.frontend.aten.passing import INFERENCE
from compiler.frontend.aten.quantized import PackedCell, real_parameters
from compiler.frontend.aten.registry import aten
from compiler.frontend.common.emitter import cut
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Constant, Value
from compiler.ops import nn, recurrent, tensor

PACKED = "make the lengths constants of the network, or give it padded sequences of one length"


@dataclass(frozen=True)
class Kind:
    """A recurrent layer: our op, the places of our gates among torch's, number of states, further attributes."""

    op_class: type[recurrent.Recurrent]
    order: tuple[int, ...]
    states: int
    attributes: tuple[tuple[str, Any], ...] = ()


KINDS = {
    "lstm": Kind(recurrent.Lstm, (0, 3, 1, 2), 2), "gru": Kind(recurrent.Gru, (1, 0, 2), 1, (
        ("linear_before_reset", True),)),
    "rnn_tanh": Kind(recurrent.Rnn, (0,), 1), "rnn_relu": Kind(recurrent.Rnn, (0,), 1, (("activations", ("relu",)),)),
}  # fmt: skip


def _gates(c: Call, w: Value, order: Sequence[int]) -> Value:
    """A parameter with its blocks of gates in our order."""
    size = w.type.static_shape[0] // len(order)
    if tuple(order) == tuple(range(len(order))):
        return w
    return cat(c, [cut(c, w, 0, gate * size, size) for gate in order], 0)


def _layer(c: Call, kind: Kind, x: Value, params: Sequence[Sequence[Value]], states: Sequence[Value],
           bidirectional: bool) -> list[Value]:  # fmt: skip
    """One layer over [steps, batch, input]; `params` per direction w_ih, w_hh and perhaps b_ih, b_hh. The results are
    [steps, batch, directions * hidden] and the last states.
    """
    w, r = (cat(c, [unsqueeze(c, _gates(c, p[i], kind.order), 0) for p in params], 0) for i in (0, 1))
    bias = None
    if len(params[0]) > 2:
        joined = [cat(c, [_gates(c, v, kind.order) for v in p[2:]], 0) for p in params]
        bias = cat(c, [unsqueeze(c, v, 0) for v in joined], 0)
    attributes = dict(kind.attributes)
    if "activations" in attributes:
        attributes["activations"] = attributes["activations"] * len(params)
    direction = "bidirectional" if bidirectional else "forward"
    hidden = r.type.static_shape[2]
    y, *finals = c.emit_all(
        kind.op_class, x, w, r, bias, *states, hidden=hidden, direction=direction, **attributes
    )  # fmt: skip
    steps, directions, batch, _ = y.type.static_shape
    y = y if directions == 1 else c.emit(tensor.Transpose, y, perm=(0, 2, 1, 3))
    return [c.reshape(y, (steps, batch, directions * hidden)), *finals]


def _projected(c: Call, x: Value, params: Sequence[Sequence[Value]], states: Sequence[Value],
               bidirectional: bool) -> list[Value]:  # fmt: skip
    """An LSTM layer whose hidden state is a product with the last of its parameters, P: a plain one of recurrent
    weights R P, whose states are projected afterwards. What R makes of the first state comes in as input of the first
    step.
    """
    h, cell_state = states
    starts = isinstance(h, Constant) and not h.data.any()
    inner = [[p[0], c.emit(nn.MatMul, p[1], p[-1]), *p[2:-1]] for p in params]
    if not starts:
        x = cat(c, [x, *(_at_start(c, h, d, x.type.static_shape[0]) for d in range(len(params)))], 2)
        for d, p in enumerate(params):
            parts = [p[1] if d == other else c.constant(np.zeros_like(p[1].data)) for other in range(len(params))]  # type: ignore[attr-defined]
            inner[d][0] = cat(c, [p[0], *parts], 1)
    zeros = c.constant(np.zeros(cell_state.type.static_shape, np.float32))
    y, last, cells = _layer(c, KINDS["lstm"], x, inner, [zeros, cell_state], bidirectional)
    turned = [c.emit(tensor.Transpose, p[-1], perm=(1, 0)) for p in params]
    hidden = inner[0][1].type.static_shape[1]
    outputs = [c.emit(nn.MatMul, cut(c, y, 2, d * hidden, hidden), w) for d, w in enumerate(turned)]
    finals = [c.emit(nn.MatMul, cut(c, last, 0, d, 1), w) for d, w in enumerate(turned)]
    return [cat(c, outputs, 2), cat(c, finals, 0), cells]


def _at_start(c: Call, h: Value, direction: int, steps: int) -> Value:
    """A direction's first state in the step it begins with, zeros in all others: [steps, batch, features]."""
    first = cut(c, h, 0, direction, 1)
    if steps == 1:
        return first
    zeros = c.constant(np.zeros((steps - 1, *first.type.static_shape[1:]), np.float32))
    return cat(c, [first, zeros] if direction == 0 else [zeros, first], 0)


def _stack(
    c: Call, kind: Kind, x: Value, hx: Sequence[Value], params: Sequence[Value], has_biases: Any, num_layers: int,
    bidirectional: Any, batch_first: Any,
) -> list[Value]:  # fmt: skip
    """All layers; states are [layers * directions, batch, hidden]."""
    alone = x.type.rank == 2
    if alone:
        x, hx, batch_first = unsqueeze(c, x, 1), [unsqueeze(c, h, 1) for h in hx], False
    directions, plain = (2 if bidirectional else 1), (4 if has_biases else 2)
    each = len(params) // (num_layers * directions)
    if each not in (plain, plain + (kind.states == 2)) or len(params) != num_layers * directions * each:
        raise Malformed(f"has {len(params)} parameters for {num_layers} layers")
    run = _layer if each == plain else lambda c, _, *rest: _projected(c, *rest)
    y = c.emit(tensor.Transpose, x, perm=(1, 0, 2)) if batch_first else x
    finals: list[list[Value]] = [[] for _ in hx]
    for layer in range(num_layers):
        first = layer * directions
        groups = [params[(first + d) * each : (first + d + 1) * each] for d in range(directions)]
        states = [cut(c, h, 0, first, directions) for h in hx]
        y, *last = run(c, kind, y, groups, states, bool(bidirectional))
        for found, value in zip(finals, last, strict=True):
            found.append(value)
    y = c.emit(tensor.Transpose, y, perm=(1, 0, 2)) if batch_first else y
    results = [y, *(cat(c, f, 0) for f in finals)]
    return [c.reshape(v, (v.type.static_shape[0], v.type.static_shape[2])) for v in results] if alone else results


@aten("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu")
def layers(c: Call, input: Any, hx: Any, params: Any, has_biases: Any, num_layers: Any, dropout: Any = 0.0,
           train: Any = False, bidirectional: Any = False, batch_first: Any = False) -> Any:  # fmt: skip
    """The overloads `data` take sequences packed by length, as other arguments: data, batch_sizes, hx, params, …"""
    if c.overload == "data" or isinstance(has_biases, list | tuple):
        return _packed(c, input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)
    if train and dropout:
        raise Unsupported("is in training mode", INFERENCE)
    kind = KINDS[c.base]
    states = list(hx) if isinstance(hx, list | tuple) else [hx]
    if len(states) != kind.states:
        raise Malformed(f"has {len(states)} states, expected {kind.states}")
    values = [c.tensor(p) for p in params]
    found = _stack(c, kind, c.tensor(input), states, values, has_biases, c.integer(num_layers, "the number of layers"),
                   bidirectional, batch_first)  # fmt: skip
    return tuple(found)


# -- sequences of several lengths --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Lengths:
    """The lengths of packed sequences, the longest first, and where their elements lie: time by time."""

    each: tuple[int, ...]

    @staticmethod
    def of(c: Call, batch_sizes: Any) -> Lengths:
        """From how many sequences still run at each time."""
        if isinstance(batch_sizes, Value) and not isinstance(batch_sizes, Constant):
            raise Unsupported("takes sequences whose lengths depend on the network's data", PACKED)
        sizes = c.integers(batch_sizes, "the batch sizes")
        return Lengths(tuple(sum(size > row for size in sizes) for row in range(sizes[0])))

    def place(self, time: int, row: int) -> int:
        """Where an element lies among all packed ones."""
        return sum(min(length, time) for length in self.each) + sum(length > time for length in self.each[:row])

    def padded(self, absent: int) -> np.ndarray:
        """[time, row] places of elements, `absent` where a sequence has ended."""
        return np.array([
            [self.place(t, row) if t < length else absent for row, length in enumerate(self.each)]
            for t in range(self.each[0])
        ], np.int64)  # fmt: skip

    @property
    def order(self) -> list[tuple[int, int]]:
        """(time, row) of the elements as they are packed."""
        return [(t, row) for t in range(self.each[0]) for row, length in enumerate(self.each) if t < length]


@aten("aten::_pack_padded_sequence")
def pack(c: Call, input: Any, lengths: Any, batch_first: Any = False) -> Any:
    """Lengths must be known, and the longest come first."""
    x = c.tensor(input)
    x = c.emit(tensor.Transpose, x, perm=(1, 0, *range(2, x.type.rank))) if batch_first else x
    found = Lengths(c.integers(lengths, "the lengths of sequences"))
    steps, batch, *rest = x.type.static_shape
    places = c.constant(np.array([t * batch + row for t, row in found.order], np.int64))
    running = np.array([sum(length > t for length in found.each) for t in range(found.each[0])], np.int64)
    return c.emit(tensor.Gather, c.reshape(x, (steps * batch, *rest)), places, axis=0), c.constant(running)


@aten("aten::_pad_packed_sequence")
def unpack(c: Call, data: Any, batch_sizes: Any, batch_first: Any, padding_value: Any, total_length: Any) -> Any:
    x, lengths = c.tensor(data), Lengths.of(c, batch_sizes)
    total, *rest = x.type.static_shape
    absent = c.constant(np.full((1, *rest), float(padding_value), np.float32))
    places = lengths.padded(total)
    more = max(c.integer(total_length, "the total length") - len(places), 0)
    places = np.pad(places, ((0, more), (0, 0)), constant_values=total)
    y = c.emit(tensor.Gather, cat(c, [x, absent], 0), c.constant(places.T if batch_first else places), axis=0)
    return y, c.constant(np.array(lengths.each, np.int64))


def _packed(c: Call, data: Any, batch_sizes: Any, hx: Any, params: Any, has_biases: Any, num_layers: Any, dropout: Any,
            train: Any, bidirectional: Any) -> Any:  # fmt: skip
    """Sequences of one length at a time: each group runs as a batch of its own."""
    x, lengths = c.tensor(data), Lengths.of(c, batch_sizes)
    states = list(hx) if isinstance(hx, list | tuple) else [hx]
    rows: dict[tuple[int, int], int] = {}
    outputs: list[Value] = []
    finals: list[list[Value]] = [[] for _ in states]
    for length in sorted(set(lengths.each), reverse=True):
        group = [row for row, own in enumerate(lengths.each) if own == length]
        places = np.array([[lengths.place(t, row) for row in group] for t in range(length)], np.int64)
        part = c.emit(tensor.Gather, x, c.constant(places), axis=0)
        starts = [cut(c, h, 1, group[0], len(group)) for h in states]
        y, *last = layers(c, part, starts if len(starts) > 1 else starts[0], params, has_biases, num_layers, dropout,
                          train, bidirectional)  # fmt: skip
        rows |= {(t, row): len(rows) + t * len(group) + i for t in range(length) for i, row in enumerate(group)}
        outputs.append(c.reshape(y, (length * len(group), y.type.static_shape[2])))
        for found, value in zip(finals, last, strict=True):
            found.append(value)
    order = c.constant(np.array([rows[element] for element in lengths.order], np.int64))
    return (c.emit(tensor.Gather, cat(c, outputs, 0), order, axis=0), *(cat(c, f, 1) for f in finals))


# -- cells -------------------------------------------------------------------------------------------------------------
def _step(c: Call, kind: Kind, x: Value, states: Sequence[Value], params: Sequence[Any]) -> list[Value]:
    alone = x.type.rank == 1
    if alone:
        x, states = unsqueeze(c, x, 0), [unsqueeze(c, h, 0) for h in states]
    present = [p for p in params if p is not None]
    _, *finals = _layer(c, kind, unsqueeze(c, x, 0), [present], [unsqueeze(c, h, 0) for h in states], False)
    return [c.reshape(f, f.type.static_shape[2:] if alone else f.type.static_shape[1:]) for f in finals]


@aten("aten::lstm_cell")
def lstm_cell(c: Call, input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    return tuple(_step(c, KINDS["lstm"], c.tensor(input), list(hx), [w_ih, w_hh, b_ih, b_hh]))


@aten("aten::gru_cell", "aten::rnn_tanh_cell", "aten::rnn_relu_cell")
def cell(c: Call, input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    kind = KINDS[c.base.removesuffix("_cell")]
    return _step(c, kind, c.tensor(input), [c.tensor(hx)], [w_ih, w_hh, b_ih, b_hh])[0]


# -- quantised while they run ------------------------------------------------------------------------------------------
@aten("aten::quantized_lstm", "aten::quantized_gru")
def quantized_layers(
    c: Call, input: Any, hx: Any, params: Any, has_biases: Any, num_layers: Any, dropout: Any = 0.0, train: Any = False,
    bidirectional: Any = False, batch_first: Any = False, dtype: Any = None, use_dynamic: Any = False,
) -> Any:  # fmt: skip
    """The quantised weights' reals; the ranges of data, which torch measures in every call, are left to calibration."""
    plain: list[Value] = []
    for packed in params:
        if not isinstance(packed, PackedCell):
            raise Malformed(f"its parameters are not packed ones but {type(packed).__name__}")
        pairs = [real_parameters(c, part) for part in (packed.input, packed.hidden)]
        plain += [w for w, _ in pairs] + [b for _, b in pairs if b is not None]
    kind = KINDS[c.base.removeprefix("quantized_")]
    states = list(hx) if isinstance(hx, list | tuple) else [hx]
    count = c.integer(num_layers, "the number of layers")
    has_both = len(plain) == 4 * len(params)
    return tuple(_stack(c, kind, c.tensor(input), states, plain, has_both, count, bidirectional, batch_first))


CELLS = {"quantized_lstm_cell_dynamic": "lstm", "quantized_gru_cell_dynamic": "gru",
         "quantized_rnn_tanh_cell_dynamic": "rnn_tanh", "quantized_rnn_relu_cell_dynamic": "rnn_relu"}  # fmt: skip


@aten(*(f"quantized::{name}" for name in CELLS))
def quantized_cell(c: Call, input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    """As the cells, with packed weights, which may hold the biases."""
    parts = [real_parameters(c, packed) for packed in (w_ih, w_hh)]
    biases = [own if own is not None else given for (_, own), given in zip(parts, (b_ih, b_hh), strict=True)]
    states = list(hx) if isinstance(hx, list | tuple) else [hx]
    found = _step(c, KINDS[CELLS[c.base]], c.tensor(input), states, [w for w, _ in parts] + biases)
    return tuple(found) if len(found) > 1 else found[0]


# -- what exporters for single devices leave ---------------------------------------------------------------------------
@aten("aten::mkldnn_rnn_layer")
def mkldnn_layer(
    c: Call, input: Any, weight0: Any, weight1: Any, weight2: Any, weight3: Any, hx_: Any, cx_: Any, reverse: Any,
    batch_sizes: Any, mode: Any, hidden_size: Any, num_layers: Any, has_biases: Any, bidirectional: Any,
    batch_first: Any, train: Any,
) -> Any:  # fmt: skip
    """One direction of one LSTM layer; the reverse one runs over the flipped sequence."""
    if batch_sizes:
        raise Unsupported("takes a packed sequence", PACKED)
    x = flip(c, input, [0]) if reverse else c.tensor(input)
    params = [weight0, weight1, *([weight2, weight3] if has_biases else [])]
    states = [unsqueeze(c, v, 0) if v.type.rank == 2 else v for v in (hx_, cx_)]
    y, h, cell_state = _layer(c, KINDS["lstm"], x, [params], states, False)
    y = flip(c, y, [0]) if reverse else y
    return y, c.reshape(h, c.shape(hx_)), c.reshape(cell_state, c.shape(cx_)), None
