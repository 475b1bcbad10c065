"""Ops that only move elements, composed and cancelled: transposes, reshapes, slices, concats, pads, single gathers."""

from __future__ import annotations

from typing import Any

from compiler.ir.core import Constant, Op, Value
from compiler.ops.nn import Conv2d
from compiler.ops.tensor import Concat, Pad, Reshape, Slice, Transpose
from compiler.rewrite import Declined, Match, Rewriter, Rule, constant, pattern, shared


def composed(outer: tuple[int, ...], inner: tuple[int, ...]) -> tuple[int, ...]:
    """The perm of transpose(transpose(x, inner), outer)."""
    return tuple(inner[axis] for axis in outer)


def compose_transposes(match: Match, rewriter: Rewriter) -> None:
    """transpose(transpose(x)): one transpose, or none."""
    x, perm = match.inner.x, composed(match.root.perm, match.inner.perm)
    if perm == tuple(range(len(perm))):
        rewriter.replace(match.root, x)
    else:
        rewriter.replace(match.root, rewriter.create(Transpose, x, perm=perm).result)


def compose_reshapes(match: Match, rewriter: Rewriter) -> object:
    """reshape(reshape(x)): one reshape."""
    shape = match.root.result.type.shape
    if None in shape:
        return Declined("shape is not known")
    if match.inner.x.type.quant is not None and match.inner.x.type.quant.axis is not None:
        return Declined("scales per axis")  # the axis may pass through the middle shape only
    new = rewriter.create(Reshape, match.inner.x, shape=shape)
    rewriter.replace(match.root, new.result)
    return None


def flatten_concat(match: Match, rewriter: Rewriter) -> object:
    """concat(…, concat(…) that nothing else takes, …) along one axis: one concat."""
    root = match.root
    operands: list[Value] = []
    inlined = []
    for x in root.xs:
        inner = _inner_concat(root, x)
        operands += inner.xs if inner is not None else [x]
        if inner is not None:
            inlined.append(inner)
    if not inlined:
        return None
    location = match.location
    for inner in inlined:
        location |= inner.location
    new = rewriter.create(Concat, *operands, axis=root.axis, location=location)
    rewriter.replace(root, new.result)
    return None


def _inner_concat(root: Any, x: Value) -> Any:
    producer = x.producer
    if not isinstance(producer, Concat) or not x.has_one_use:
        return None
    rank = root.result.type.rank
    return producer if producer.axis % rank == root.axis % rank else None


def compose_slices(match: Match, rewriter: Rewriter) -> None:
    """slice(slice(x)): one slice."""
    inner, outer = match.inner, match.root
    starts = tuple(i + o * s for i, o, s in zip(inner.starts, outer.starts, inner.strides, strict=True))
    steps = tuple(i * o for i, o in zip(inner.strides, outer.strides, strict=True))
    steps = steps if any(s != 1 for s in steps) else ()
    new = rewriter.create(Slice, inner.x, starts=starts, sizes=outer.sizes, steps=steps)
    rewriter.replace(outer, new.result)


def compose_pads(match: Match, rewriter: Rewriter) -> object:
    """pad(pad(x)) with one constant: one pad."""
    inner, outer = match.inner, match.root
    if (inner.mode, inner.value) != (outer.mode, outer.value) or inner.mode not in ("constant", "edge"):
        return Declined("modes differ")
    pads = tuple(a + b for a, b in zip(inner.pads, outer.pads, strict=True))
    new = rewriter.create(Pad, inner.x, pads=pads, mode=inner.mode, value=inner.value)
    rewriter.replace(outer, new.result)
    return None


def pad_into_convolution(match: Match, rewriter: Rewriter) -> object:
    """conv2d(pad(x)) with zeros around the image: the convolution's own pads."""
    pad, conv = match.pad, match.root
    quant = pad.x.type.quant
    if pad.mode != "constant" or pad.value != 0.0 or (quant is not None and quant.zero_point != 0):
        return Declined("padding is not zero")
    h, w = (2, 3) if conv.layout == "NCHW" else (1, 2)
    if any(any(pair) for axis, pair in enumerate(pad.pairs) if axis not in (h, w)):
        return Declined("pads more than the image")
    extra = (pad.pairs[h][0], pad.pairs[w][0], pad.pairs[h][1], pad.pairs[w][1])
    attributes = {**conv.attributes, "pads": tuple(a + b for a, b in zip(conv.pads, extra, strict=True))}
    new = rewriter.create(Conv2d, pad.x, *conv.operands[1:], **attributes)
    rewriter.replace(conv, new.result)
    return None


def gather_to_slice(match: Match, rewriter: Rewriter) -> object:
    """gather of one constant index: a slice, and a reshape where the axis goes away."""
    op: Any = match.root
    shape = op.x.type.shape
    if None in shape:
        return Declined("shape is not known")
    axis = op.axis % len(shape)
    quant = op.x.type.quant
    if quant is not None and quant.axis is not None:
        return Declined("scales per axis")
    index = int(match.indices.data.reshape(-1)[0])
    if not -shape[axis] <= index < shape[axis]:
        return Declined("index is out of range")
    index %= shape[axis]
    starts = tuple(index if i == axis else 0 for i in range(len(shape)))
    sizes = tuple(1 if i == axis else d for i, d in enumerate(shape))
    piece = rewriter.create(Slice, op.x, starts=starts, sizes=sizes).result
    if piece.type != op.result.type:
        piece = rewriter.create(Reshape, piece, shape=op.result.type.static_shape).result
    rewriter.replace(op, piece)
    return None


def _one_index(value: Constant) -> bool:
    return value.data.size == 1


def _takes_a_concat(op: Op) -> bool:
    return any(_inner_concat(op, x) is not None for x in op.inputs)


MOVEMENT = [
    Rule(pattern("tensor.transpose", x=shared(pattern("tensor.transpose", bind="inner"))), compose_transposes),
    Rule(pattern("tensor.reshape", x=shared(pattern("tensor.reshape", bind="inner"))), compose_reshapes),
    Rule(pattern("tensor.concat", where=_takes_a_concat), flatten_concat),
    Rule(pattern("tensor.slice", x=pattern("tensor.slice", bind="inner")), compose_slices),
    Rule(pattern("tensor.pad", x=pattern("tensor.pad", bind="inner")), compose_pads),
    Rule(pattern("nn.conv2d", x=pattern("tensor.pad", bind="pad")), pad_into_convolution),
    Rule(pattern("tensor.gather", indices=constant("indices", where=_one_index)), gather_to_slice),
]
