"""Converters of sequence operators. A sequence is a tuple of values at import and never exists at run time."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.frontend.common.control import HOST_LOOP, LONGEST_LOOP
from compiler.frontend.common.emitter import normal_axis, reshape
from compiler.frontend.onnx.node import Node, SequenceValue
from compiler.frontend.onnx.registry import converter
from compiler.frontend.onnx.tensor import slice_axes
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Value
from compiler.ir.types import DType
from compiler.ops import tensor


def _position(n: Node, index: int, length: int) -> int:
    """A known position in a sequence of `length`, counted from the front."""
    position = int(n.array(index, "the position").reshape(-1)[0])
    if not -length <= position <= length:
        raise Malformed(f"position {position} is out of range for a sequence of {length}")
    return position + length if position < 0 else position


@converter("SequenceConstruct")
def construct(n: Node) -> SequenceValue:
    return SequenceValue(tuple(n.input(i) for i in range(len(n.inputs))))


@converter("SequenceEmpty")
def empty(n: Node) -> SequenceValue:
    n.ignore("dtype")
    return SequenceValue(())


@converter("SequenceInsert")
def insert(n: Node) -> SequenceValue:
    items = n.sequence(0).items
    at = len(items) if n.optional(2) is None else _position(n, 2, len(items))
    return SequenceValue((*items[:at], n.input(1), *items[at:]))


@converter("SequenceErase")
def erase(n: Node) -> SequenceValue:
    items = n.sequence(0).items
    at = len(items) - 1 if n.optional(1) is None else _position(n, 1, len(items))
    return SequenceValue((*items[:at], *items[at + 1 :]))


@converter("SequenceAt")
def at(n: Node) -> Value:
    items = n.sequence(0).items
    position = _position(n, 1, len(items))
    if position >= len(items):
        raise Malformed(f"position {position} is out of range for a sequence of {len(items)}")
    return items[position]


@converter("SequenceLength")
def length(n: Node) -> Value:
    return n.constant(len(n.sequence(0).items), DType.I64)


@converter("SplitToSequence")
def split(n: Node) -> SequenceValue:
    shape = n.shape()
    axis = normal_axis(n.attribute("axis", 0), len(shape))
    keepdims = bool(n.attribute("keepdims", 1)) or n.optional(1) is not None
    sizes = _split_sizes(n, shape[axis])
    if len(sizes) > LONGEST_LOOP:
        raise Unsupported(f"makes {len(sizes)} parts, at most {LONGEST_LOOP} are made", HOST_LOOP)
    found, start = [], 0
    for size in sizes:
        part = slice_axes(n, (start,), (start + size,), (axis,), (1,))
        found.append(part if keepdims else reshape(n, part, shape[:axis] + shape[axis + 1 :]))
        start += size
    return SequenceValue(tuple(found))


def _split_sizes(n: Node, total: int) -> Sequence[int]:
    if n.optional(1) is None:
        return range(total) if total > LONGEST_LOOP else [1] * total
    given = n.array(1, "split")
    if given.ndim:
        return [int(v) for v in given]
    size = int(given)
    if size < 1:
        raise Malformed(f"splits into parts of {size}")
    starts = range(0, total, size)
    return starts if len(starts) > LONGEST_LOOP else [min(size, total - start) for start in starts]


@converter("ConcatFromSequence")
def concat(n: Node) -> Value:
    items = list(n.sequence(0).items)
    if not items:
        raise Malformed("joins an empty sequence")
    rank, new_axis = items[0].type.rank, bool(n.attribute("new_axis", 0))
    axis = normal_axis(n.required("axis"), rank + new_axis)
    if new_axis:
        items = [reshape(n, v, (*v.type.static_shape[:axis], 1, *v.type.static_shape[axis:])) for v in items]
    return items[0] if len(items) == 1 else n.emit(tensor.Concat, *items, axis=axis)
