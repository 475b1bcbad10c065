"""Rules of ops that only move elements: views where strides allow, else strided copies."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir.core import Constant, Value
from targets.mlu220.lowering import Lowering
from targets.mlu220.rule_table import rule


def same_kind(lowering: Lowering, value: Value) -> Value:
    """A value as it stands: integers if quantised, else in the working float type."""
    if value.type.quant is not None:
        return lowering.get(value)
    return lowering.floating(value, lowering.working(value))


def taken(lowering: Lowering, x: Value, lists: dict[int, np.ndarray]) -> Value:
    """A lowered value's elements at index lists along some axes; a view where every list goes up by equal steps."""
    shape = x.type.static_shape
    starts, sizes, steps = [0] * len(shape), list(shape), [1] * len(shape)
    regular = True
    for axis, indices in lists.items():
        differences = np.unique(np.diff(indices))
        regular &= len(differences) <= 1 and (not len(differences) or differences[0] > 0)
        starts[axis], sizes[axis] = int(indices[0]), len(indices)
        steps[axis] = int(differences[0]) if len(differences) else 1
    if regular:
        return x if tuple(sizes) == shape else lowering.make("mlu.slice", x, starts=starts, sizes=sizes, steps=steps)
    picked = [tuple(map(int, lists[axis])) if axis in lists else () for axis in range(len(shape))]
    return lowering.make("mlu.take", x, indices=tuple(picked))


@rule("tensor.reshape")
def reshape(lowering: Lowering, op: Any) -> Value:
    return lowering.reshaped(same_kind(lowering, op.x), op.result.type.static_shape)


@rule("tensor.transpose")
def transpose(lowering: Lowering, op: Any) -> Value:
    x = same_kind(lowering, op.x)
    shape = x.type.static_shape
    kept = [i for i in op.perm if shape[i] != 1]
    if kept == sorted(kept):  # only axes of one element move: the same bytes
        return lowering.reshaped(x, op.result.type.static_shape)
    return lowering.make("mlu.transpose", x, perm=op.perm)


@rule("tensor.slice")
def slice_(lowering: Lowering, op: Any) -> Value:
    """A view; axes read backwards are taken by index."""
    x = same_kind(lowering, op.x)
    if min(op.strides, default=1) >= 1:
        return lowering.make("mlu.slice", x, starts=op.starts, sizes=op.sizes, steps=op.strides)
    lists = {
        axis: start + step * np.arange(size)
        for axis, (start, size, step) in enumerate(zip(op.starts, op.sizes, op.strides, strict=True))
        if (start, size, step) != (0, x.type.shape[axis], 1)
    }
    return taken(lowering, x, lists)


@rule("tensor.pad")
def pad(lowering: Lowering, op: Any) -> Value:
    x = same_kind(lowering, op.x)
    if op.mode != "constant":
        shape = x.type.static_shape
        lists = {a: np.pad(np.arange(shape[a]), pair, mode=op.mode) for a, pair in enumerate(op.pairs) if any(pair)}
        return taken(lowering, x, lists)
    quant = op.x.type.quant
    value = op.value
    if quant is not None:
        value = float(np.clip(np.rint(op.value / quant.real_step), -quant.qmax, quant.qmax))
    return lowering.make("mlu.pad", x, pads=op.pads, value=value)


@rule("tensor.concat")
def concat(lowering: Lowering, op: Any) -> Value:
    if op.inputs[0].type.quant is not None:
        parts = [lowering.get(v) for v in op.inputs]
    else:
        dtype = lowering.working(*op.inputs)
        parts = [lowering.floating(v, dtype) for v in op.inputs]
    return lowering.make("mlu.concat", *parts, axis=op.axis % op.result.type.rank)


@rule("tensor.tile")
def tile(lowering: Lowering, op: Any) -> Value:
    x = same_kind(lowering, op.x)
    shape = x.type.static_shape
    return taken(lowering, x, {a: np.tile(np.arange(shape[a]), r) for a, r in enumerate(op.repeats) if r != 1})


@rule("tensor.broadcast_to")
def broadcast_to(lowering: Lowering, op: Any) -> Value:
    full = op.result.type.static_shape
    x = same_kind(lowering, op.x)
    x = lowering.reshaped(x, (1,) * (len(full) - x.type.rank) + x.type.static_shape)
    pairs = enumerate(zip(full, x.type.static_shape, strict=True))
    return taken(lowering, x, {a: np.zeros(d, np.int64) for a, (d, one) in pairs if d != one})


def _gather_condition(op: Any) -> str | None:
    if isinstance(op.x, Constant):
        return "picks from a constant by computed indices" if not isinstance(op.indices, Constant) else "is constant"
    return None if isinstance(op.indices, Constant) else "indices are not constant"


@rule("tensor.gather", condition=_gather_condition)
def gather(lowering: Lowering, op: Any) -> Value:
    x = same_kind(lowering, op.x)
    axis = op.axis % x.type.rank
    indices = op.indices.data.astype(np.int64).reshape(-1) % x.type.static_shape[axis]
    y = taken(lowering, x, {axis: indices})
    return lowering.reshaped(y, op.result.type.static_shape)


