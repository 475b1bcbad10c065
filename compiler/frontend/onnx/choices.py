"""Branches and loops that the network's data decide: the graphs they hold, converted into regions of host ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from compiler.frontend.common.control import Body, Loop, choice
from compiler.frontend.onnx.node import Inline, Node
from compiler.frontend.records import Malformed
from compiler.ir.core import Result, Value


def _named(n: Node, results: list[Value]) -> list[Value]:
    """The results of a new op, those that nobody asked for with names of their own."""
    for index, result in enumerate(results):
        if isinstance(result, Result) and not n.has_output(index):
            result.name = n.builder.fresh_name(f"{n.proto.op_type.lower()}.unused")
    return results


def chosen(n: Node, then: onnx.GraphProto, other: onnx.GraphProto) -> Inline:
    """Both branches in regions, the condition choosing when the model runs."""
    first = Body(n.builder)

    def after_first(outputs: list[Any]) -> Inline:
        first.close(outputs)
        second = Body(n.builder)

        def after_second(outputs: list[Any]) -> list[Value]:
            second.close(outputs)
            return _named(n, choice(n.builder, n.input(0), first, second))

        return Inline(other.node, [o.name for o in other.output], initializers=other.initializer, then=after_second)

    return Inline(then.node, [o.name for o in then.output], initializers=then.initializer, then=after_first)


def repeated(n: Node, body: onnx.GraphProto) -> Inline:
    """The body in a region, run as often as the data say."""
    names = [i.name for i in body.input]
    initial = [n.input(i) for i in range(2, len(n.inputs))]
    if len(names) != len(initial) + 2:
        raise Malformed(f"gives its body {len(initial) + 2} values, the body takes {len(names)}")
    return _round(n, body, Loop(n.builder, initial, names))


def _round(n: Node, body: onnx.GraphProto, loop: Loop) -> Inline:
    def after(outputs: Sequence[Any]) -> Any:
        if len(outputs) < len(loop.types) + 1 or not all(isinstance(v, Value) for v in outputs):
            raise Malformed("its body gives fewer values than it carries")
        if not loop.close(outputs[0], outputs[1:]):
            return _round(n, body, loop.again())
        return _named(n, loop.results(n.optional(0), n.optional(1)))

    arguments = dict(zip([i.name for i in body.input], [loop.number, loop.going, *loop.carried], strict=True))
    return Inline(body.node, [o.name for o in body.output], arguments, body.initializer, then=after)
