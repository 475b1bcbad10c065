"""Converters of LSTM, GRU and RNN. Batch-first models are transposed; a shorter sequence per batch row is not
supported.
"""

from __future__ import annotations

from typing import Any

from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.registry import converter
from compiler.frontend.records import Unsupported
from compiler.ir.core import Value
from compiler.ops import recurrent, tensor
from compiler.ops.recurrent import ACTIVATIONS

FULL_LENGTH = "give every sequence its full length, or leave sequence_lens out"


def _common(n: Node) -> dict[str, Any]:
    n.ignore("output_sequence")
    lengths = n.optional(4)
    if lengths is not None:
        steps = n.shape()[1 if n.attribute("layout", 0) else 0]
        known = n.known(4)
        if known is None or (known != steps).any():
            raise Unsupported("has sequences of different lengths", FULL_LENGTH)
    return {
        "hidden": n.attribute("hidden_size", n.shape(2)[-1]), "direction": n.attribute("direction", "forward"),
        "activations": _activations(n), "clip": n.attribute("clip", 0.0),
    }  # fmt: skip


def _activations(n: Node) -> tuple[str, ...]:
    """Names of the layer's functions. Parameters belong to those that take any, in order: to hard_sigmoid."""
    given = tuple(a.lower() for a in n.attribute("activations", ()))
    found = tuple("hard_sigmoid" if a == "hardsigmoid" else a for a in given)
    other = [a for a in found if a not in ACTIVATIONS]
    for name, only in (("activation_alpha", 0.2), ("activation_beta", 0.5)):
        values = n.attribute(name, ())[: found.count("hard_sigmoid")]
        other += [f"{name} {v:g}" for v in values if abs(v - only) > 1e-6]
    if other:
        remedy = f"use {', '.join(ACTIVATIONS)}, the last with alpha 0.2 and beta 0.5"
        raise Unsupported(f"uses {', '.join(other)}", remedy)
    return found


def _swapped(n: Node, value: Value | None, batch_first: bool) -> Value | None:
    """A rank-3 operand with its first two axes exchanged, if the node is batch-first."""
    return n.emit(tensor.Transpose, value, perm=(1, 0, 2)) if value is not None and batch_first else value


def _run(n: Node, op_class: type[recurrent.Recurrent], states: int, **attributes: Any) -> list[Value | None]:
    batch_first = bool(n.attribute("layout", 0))
    operands = [_swapped(n, n.input(0), batch_first), n.input(1), n.input(2), n.optional(3)]
    operands += [_swapped(n, n.optional(5 + i), batch_first) for i in range(states)]
    if states == 2:
        operands.append(n.optional(7))
    while operands[-1] is None:
        operands.pop()
    y, *finals = n.emit_all(op_class, *operands, **_common(n), **attributes)
    if not batch_first:
        return [y, *finals]
    return [n.emit(tensor.Transpose, y, perm=(2, 0, 1, 3)), *(_swapped(n, f, True) for f in finals)]


@converter("LSTM")
def lstm(n: Node) -> list[Value | None]:
    return _run(n, recurrent.Lstm, 2, input_forget=bool(n.attribute("input_forget", 0)))


@converter("GRU")
def gru(n: Node) -> list[Value | None]:
    return _run(n, recurrent.Gru, 1, linear_before_reset=bool(n.attribute("linear_before_reset", 0)))


@converter("RNN")
def rnn(n: Node) -> list[Value | None]:
    return _run(n, recurrent.Rnn, 1)
