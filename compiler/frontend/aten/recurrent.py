"""Rows of LSTM, GRU and RNN: whole stacks of layers, and single cells as sequences of one step.

torch orders an LSTM's gates i, f, g, o and a GRU's r, z, n; our ops have i, o, f, c and z, r, h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.moving import cat, flip, unsqueeze
from compiler.frontend.aten.passing import INFERENCE
from compiler.frontend.aten.quantized import PackedCell, real_parameters
from compiler.frontend.aten.registry import aten
from compiler.frontend.common.emitter import cut
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Value
from compiler.ops import recurrent, tensor

PACKED = "give the network padded sequences of one length"


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


def _stack(
    c: Call, kind: Kind, x: Value, hx: Sequence[Value], params: Sequence[Value], has_biases: Any, num_layers: int,
    bidirectional: Any, batch_first: Any,
) -> list[Value]:  # fmt: skip
    """All layers; states are [layers * directions, batch, hidden]."""
    alone = x.type.rank == 2
    if alone:
        x, hx, batch_first = unsqueeze(c, x, 1), [unsqueeze(c, h, 1) for h in hx], False
    directions, each = (2 if bidirectional else 1), (4 if has_biases else 2)
    if len(params) != num_layers * directions * each:
        raise Unsupported(f"has {len(params)} parameters for {num_layers} layers, as with projections",
                          "use a recurrent layer without proj_size")  # fmt: skip
    y = c.emit(tensor.Transpose, x, perm=(1, 0, 2)) if batch_first else x
    finals: list[list[Value]] = [[] for _ in hx]
    for layer in range(num_layers):
        first = layer * directions
        groups = [params[(first + d) * each : (first + d + 1) * each] for d in range(directions)]
        states = [cut(c, h, 0, first, directions) for h in hx]
        y, *last = _layer(c, kind, y, groups, states, bool(bidirectional))
        for found, value in zip(finals, last, strict=True):
            found.append(value)
    y = c.emit(tensor.Transpose, y, perm=(1, 0, 2)) if batch_first else y
    results = [y, *(cat(c, f, 0) for f in finals)]
    return [c.reshape(v, (v.type.static_shape[0], v.type.static_shape[2])) for v in results] if alone else results


@aten("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu")
def layers(c: Call, input: Any, hx: Any, params: Any, has_biases: Any, num_layers: Any, dropout: Any = 0.0,
           train: Any = False, bidirectional: Any = False, batch_first: Any = False) -> Any:  # fmt: skip
    """The overloads `data` take sequences packed by length."""
    if c.overload == "data" or isinstance(has_biases, list | tuple):
        raise Unsupported("takes a packed sequence", PACKED)
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
