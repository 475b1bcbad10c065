"""Converters of Loop and Scan: loops whose number of rounds is known at import are unrolled, round by round.

Each round is an `Inline` whose continuation gives the next one, so that long loops need no deep stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from compiler.frontend.common.control import HOST_LOOP, LONGEST_LOOP, Body
from compiler.frontend.common.emitter import normal_axis, reshape
from compiler.frontend.onnx.choices import repeated
from compiler.frontend.onnx.node import Inline, Node
from compiler.frontend.onnx.registry import converter
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Constant, Value
from compiler.ir.types import DType
from compiler.ops import tensor


def _round(body: onnx.GraphProto, arguments: Sequence[Any], then: Any) -> Inline:
    names = [i.name for i in body.input]
    if len(names) != len(arguments):
        raise Malformed(f"gives its body {len(arguments)} values, the body takes {len(names)}")
    return Inline(
        body.node, [o.name for o in body.output], dict(zip(names, arguments, strict=True)), body.initializer, then=then
    )


def _joined(n: Node, values: Sequence[Value], axis: int = 0) -> Value:
    """Values of all rounds along a new axis."""
    if not all(isinstance(v, Value) for v in values):
        raise Unsupported("gives a sequence every round", HOST_LOOP)
    shape = values[0].type.static_shape
    lifted = [reshape(n, v, (*shape[:axis], 1, *shape[axis:])) for v in values]
    return lifted[0] if len(lifted) == 1 else n.emit(tensor.Concat, *lifted, axis=axis)


@converter("Loop")
def loop(n: Node) -> Any:
    """A loop whose rounds are known at import, unrolled; any other one is a region that the host repeats."""
    n.ignore("body", *range(2, len(n.inputs)))
    trips, condition = n.known(0), n.known(1)
    unknown = (n.optional(0) is not None and trips is None) or (n.optional(1) is not None and condition is None)
    if unknown or (trips is None and condition is None):
        return repeated(n, n.graph("body"))
    limit = int(trips.reshape(-1)[0]) if trips is not None else None
    if limit is not None and limit > LONGEST_LOOP and (condition is None or condition.reshape(-1)[0]):
        return repeated(n, n.graph("body"))
    alive = condition is None or bool(condition.reshape(-1)[0])
    return _Unrolling(n, n.graph("body"), limit).next_round(0, alive, list(n.inputs[2:]), [])


class _Unrolling:
    """The state of a loop that is being unrolled."""

    def __init__(self, node: Node, body: onnx.GraphProto, limit: int | None) -> None:
        self.node = node
        self.body = body
        self.limit = limit

    def next_round(self, number: int, alive: bool, carried: list[Any], collected: list[list[Any]]) -> Any:
        """One more round as an `Inline`, or the loop's results."""
        if not alive or (self.limit is not None and number >= self.limit):
            return [*carried, *self._stacked(collected)]
        if number >= LONGEST_LOOP:
            raise Unsupported(f"has more than {LONGEST_LOOP} rounds", HOST_LOOP)
        values = [self.node.constant(number, DType.I64), self.node.constant(True), *carried]
        emitted = Body(self.node.builder)

        def then(outputs: list[Any]) -> Any:
            if not isinstance(outputs[0], Constant):
                if number:
                    raise Unsupported("its condition depends on the network's data after a round", HOST_LOOP)
                emitted.discard()
                return repeated(self.node, self.body)
            state, scanned = outputs[1 : 1 + len(carried)], outputs[1 + len(carried) :]
            return self.next_round(number + 1, bool(outputs[0].data.reshape(-1)[0]), state, [*collected, scanned])

        return _round(self.body, values, then)

    def _stacked(self, collected: list[list[Any]]) -> list[Any]:
        """Per-round outputs joined along a new leading axis."""
        if not collected:
            if any(self.node.has_output(i) for i in range(len(self.body.input) - 2, len(self.node.proto.output))):
                raise Unsupported("runs no round but gives per-round outputs", "remove the loop from the model")
            return []
        return [_joined(self.node, values) for values in zip(*collected, strict=True)]


# -- Scan --------------------------------------------------------------------------------------------------------------
@converter("Scan", since=8)
def scan_batch(n: Node) -> Any:
    """Opset 8 scans every row of a batch apart: input 0 holds lengths, which must be full ones."""
    if n.optional(0) is not None:
        raise Unsupported("has sequences of different lengths", "leave sequence_lens out, or give full lengths")
    directions, count = n.attribute("directions"), n.required("num_scan_inputs")
    if directions is not None and any(directions):
        raise Unsupported("scans backwards in opset 8", "convert the model to opset 9 or later")
    n.ignore("body", *range(len(n.inputs)))
    values = [n.input(i) for i in range(1, len(n.inputs))]
    (batch,) = {v.type.static_shape[0] for v in values}
    body, states = n.graph("body"), len(values) - count
    length = values[-1].type.static_shape[1]

    def rows(number: int, done: list[list[Any]]) -> Any:
        if number == batch:
            return [_joined(n, column) for column in zip(*done, strict=True)]
        row = [_slice(n, v, 0, number) for v in values]
        return steps(number, 0, row[:states], [], row[states:], done)

    def steps(number: int, step: int, carried: list[Any], collected: list[Any], scanned: list[Any], done: Any) -> Any:
        if step == length:
            return rows(number + 1, [*done, [*carried, *(_joined(n, c) for c in zip(*collected, strict=True))]])
        now = [*carried, *(_slice(n, v, 0, step) for v in scanned)]
        return _round(body, now, lambda outputs: steps(
            number, step + 1, outputs[:states], [*collected, outputs[states:]], scanned, done
        ))  # fmt: skip

    if not 1 <= batch * length <= LONGEST_LOOP:
        raise Unsupported(f"has {batch * length} rounds, 1 to {LONGEST_LOOP} are unrolled", HOST_LOOP)
    return rows(0, [])


@converter("Scan", since=9)
def scan(n: Node) -> Any:
    """A loop over slices of its last inputs; states are its first ones."""
    count = n.required("num_scan_inputs")
    n.ignore("body", "scan_output_axes", "scan_output_directions", *range(len(n.inputs)))
    scanned = [n.input(i) for i in range(len(n.inputs) - count, len(n.inputs))]
    axes = [
        normal_axis(a, v.type.rank) for a, v in zip(n.attribute("scan_input_axes", (0,) * count), scanned, strict=True)
    ]
    backwards = n.attribute("scan_input_directions", (0,) * count)
    rounds = {v.type.static_shape[a] for v, a in zip(scanned, axes, strict=True)}
    if len(rounds) != 1:
        raise Malformed(f"scans inputs of different lengths {sorted(rounds)}")
    (length,) = rounds
    if not 1 <= length <= LONGEST_LOOP:
        raise Unsupported(f"has {length} rounds, 1 to {LONGEST_LOOP} are unrolled", HOST_LOOP)
    slices = [
        [_slice(n, v, axis, length - 1 - i if back else i) for i in range(length)]
        for v, axis, back in zip(scanned, axes, backwards, strict=True)
    ]
    body, states = n.graph("body"), len(n.inputs) - count

    def next_round(number: int, carried: list[Any], collected: list[list[Any]]) -> Any:
        if number == length:
            return [*carried, *_scan_outputs(n, collected)]
        return _round(body, [*carried, *(s[number] for s in slices)], lambda outputs: next_round(
            number + 1, outputs[:states], [*collected, outputs[states:]]
        ))  # fmt: skip

    return next_round(0, list(n.inputs[:states]), [])


def _slice(n: Node, value: Value, axis: int, index: int) -> Value:
    shape = value.type.static_shape
    starts, sizes = [0] * len(shape), list(shape)
    starts[axis], sizes[axis] = index, 1
    return reshape(n, n.emit(tensor.Slice, value, starts=starts, sizes=sizes), shape[:axis] + shape[axis + 1 :])


def _scan_outputs(n: Node, collected: list[list[Any]]) -> list[Value]:
    count = len(collected[0])
    axes, backwards = n.attribute("scan_output_axes", (0,) * count), n.attribute("scan_output_directions", (0,) * count)
    return [
        _joined(n, values[::-1] if back else values, normal_axis(axis, values[0].type.rank + 1))
        for values, axis, back in zip(zip(*collected, strict=True), axes, backwards, strict=True)
    ]
