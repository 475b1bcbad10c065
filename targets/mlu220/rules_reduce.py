"""Rules of everything that reduces: sums, means, extremes and norms over any axes, softmax, normalisations, arg-max.

The chip reduces the last axis, or a window of an image. Other axes come there by a view where their order allows, else
by a transposition; an axis too long for NRAM is reduced in steps. Sums whose terms may leave f16 are taken in f32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from compiler.ir.core import Constant, Value
from compiler.ir.types import DType
from targets.mlu220.lowering import Lowering
from targets.mlu220.rule_table import also_takes, rule
from targets.mlu220.rules_elementwise import STEEP, Formula, combine, in_working_type, through_float
from targets.mlu220.rules_windows import LONGEST_WINDOW

ROW = 8192
"""Most elements of a row that is reduced at once: some such rows in f32 fit NRAM."""

WINDOW = 384
"""Most elements of a window over 64 or more channels that is reduced at once, likewise."""

LARGEST_INDEX = 1 << 15
"""Indices are converted through i16."""


# -- one axis after the other ----------------------------------------------------------------------------------------
def steps_of(length: int, most: int) -> list[int] | None:
    """Factors of a length, none above `most`, largest first; None if there are none."""
    found = []
    while length > most:
        factor = next((f for f in range(most, 1, -1) if length % f == 0), None)
        if factor is None:
            return None
        found.append(factor)
        length //= factor
    return [*found, length]


def reduction_steps(length: int, behind: int) -> list[int] | None:
    """The lengths in which an axis with `behind` elements behind each of its own is reduced; None if there are none."""
    if behind == 1:
        return steps_of(length, ROW)
    if length <= min(LONGEST_WINDOW, WINDOW * 64 // min(behind, 64)):
        return [length]
    return steps_of(length, WINDOW)


def _blocks(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, int, int] | None:
    """The sizes before, of and behind the reduced axes, where these lie next to each other (axes of 1 anywhere)."""
    real = [a for a in axes if shape[a] > 1]
    if not real:
        return math.prod(shape), 1, 1
    first, last = min(real), max(real)
    if any(shape[a] > 1 and a not in real for a in range(first, last)):
        return None
    return math.prod(shape[:first]), math.prod(shape[a] for a in real), math.prod(shape[last + 1 :])


def _ordered(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """The permutation that brings the reduced axes behind the others."""
    return (*(a for a in range(len(shape)) if a not in axes), *axes)


def reduction_reason(shape: Sequence[int], axes: Sequence[int]) -> str | None:
    """Why axes cannot be reduced; None if they can."""
    blocks = _blocks(shape, axes)
    length, behind = (blocks[1], blocks[2]) if blocks is not None else (math.prod(shape[a] for a in axes), 1)
    if reduction_steps(length, behind) is None:
        return f"{length} elements are too many to be reduced at once, and have no factor to do it in steps"
    return None


def reduced(lowering: Lowering, x: Value, axes: Sequence[int], function: str) -> Value:
    """sum, max or min of a lowered value over some axes, which become 1."""
    shape = x.type.static_shape
    axes = sorted(a % len(shape) for a in axes)
    kept = tuple(1 if a in axes else d for a, d in enumerate(shape))
    blocks = _blocks(shape, axes)
    if blocks is None:
        order = _ordered(shape, axes)
        x = lowering.make("mlu.transpose", x, perm=order)
        length = math.prod(shape[a] for a in axes)
        blocks = (x.type.elements // length, length, 1)
    before, length, behind = blocks
    for step in reduction_steps(length, behind) or []:
        length //= step
        if step > 1 and behind == 1:
            if x.type.static_shape[-1] != step:  # the last axis alone needs no view, and stays in its kernel
                x = lowering.reshaped(x, (before * length, step))
            x = lowering.make("mlu.reduce", x, function=function)
        elif step > 1:
            # the step is the slower part of the axis: [before, step, length, behind]
            x = lowering.reshaped(x, (before, step, 1, length * behind))
            x = _window(lowering, x, function, (step, 1))
    return lowering.reshaped(x, kept)


def _window(lowering: Lowering, x: Value, function: str, kernel: tuple[int, int]) -> Value:
    if function == "min":
        negated = lowering.make("mlu.mul", x, constant=-1.0)
        largest = lowering.make("mlu.pool", negated, function="max", kernel=kernel)
        return lowering.make("mlu.mul", largest, constant=-1.0)
    return lowering.make("mlu.pool", x, function=function, kernel=kernel)


def mean(lowering: Lowering, x: Value, axes: Sequence[int]) -> Value:
    """Mean of an f32 value over some axes, which become 1."""
    count = math.prod(x.type.static_shape[a] for a in axes)
    return lowering.make("mlu.mul", reduced(lowering, x, axes, "sum"), constant=float(np.float32(1.0 / count)))


def _wide(lowering: Lowering, op: Any) -> Value:
    return lowering.floating(op.inputs[0], DType.F32)


def narrowed(lowering: Lowering, op: Any, x: Value) -> Value:
    """A value computed in f32 in the type to go on with."""
    wanted = lowering.working(op.inputs[0])
    return x if x.type.dtype is wanted else lowering.make("mlu.convert", x, to=wanted)


# -- reductions ------------------------------------------------------------------------------------------------------
def _reduce_condition(op: Any) -> str | None:
    return reduction_reason(op.x.type.static_shape, op.reduced_axes)


SUMS: dict[str, tuple[str, str]] = {
    "reduce.sum": ("", ""), "reduce.l1": ("abs", ""), "reduce.l2": ("square", "sqrt"), "reduce.log_sum": ("", "log"),
    "reduce.sum_square": ("square", ""),
}  # fmt: skip
"""Reduction by a sum → what is done to every element before, and to the sum."""


@rule("reduce.max", "reduce.min", condition=_reduce_condition)
def extreme(lowering: Lowering, op: Any) -> Value:
    function = op.op_name.partition(".")[2]
    shape = op.result.type.static_shape
    return through_float(
        lowering, op, lambda x: lowering.reshaped(reduced(lowering, x, op.reduced_axes, function), shape)
    )


@rule("reduce.mean", condition=_reduce_condition)
def mean_of(lowering: Lowering, op: Any) -> Value:
    """A window of a size that fits is one instruction, whose sum is f32 inside."""
    shape, axes = op.x.type.static_shape, op.reduced_axes
    blocks = _blocks(shape, axes)
    if blocks is not None and blocks[2] > 1 and reduction_steps(*blocks[1:]) == [blocks[1]]:
        x = lowering.reshaped(in_working_type(lowering, op), (blocks[0], blocks[1], 1, blocks[2]))
        y = lowering.make("mlu.pool", x, function="mean", kernel=(blocks[1], 1))
    else:
        y = narrowed(lowering, op, mean(lowering, _wide(lowering, op), axes))
    return lowering.reshaped(y, op.result.type.static_shape)


@rule(*SUMS, condition=_reduce_condition)
def sum_of(lowering: Lowering, op: Any) -> Value:
    f: Any = Formula(lowering)
    before, after = SUMS[op.op_name]
    x = _wide(lowering, op)
    if before:
        x = f.mul(x, x) if before == "square" else f.abs(x)
    y = reduced(lowering, x, op.reduced_axes, "sum")
    if after:
        y = getattr(f, after)(y)
    return lowering.reshaped(narrowed(lowering, op, y), op.result.type.static_shape)


@rule("reduce.log_sum_exp", condition=_reduce_condition)
def log_sum_exp(lowering: Lowering, op: Any) -> Value:
    f: Any = Formula(lowering)
    x = _wide(lowering, op)
    peak = reduced(lowering, x, op.reduced_axes, "max")
    powers = f.exp(combine(lowering, "sub", x, peak, lowered=peak))
    y = f.add(f.log(reduced(lowering, powers, op.reduced_axes, "sum")), peak)
    return lowering.reshaped(narrowed(lowering, op, y), op.result.type.static_shape)


# -- one axis, brought behind the others -----------------------------------------------------------------------------
def along_last(lowering: Lowering, x: Value, axis: int, body: Callable[[Value], Value]) -> Value:
    """Apply to a lowered value what works along the last axis, along another one."""
    shape = x.type.static_shape
    rank = len(shape)
    axis %= rank
    if math.prod(shape[axis + 1 :]) == 1:
        rows = lowering.reshaped(x, (*shape[:axis], 1, shape[axis])[-rank:] if axis < rank - 1 else shape)
        return lowering.reshaped(body(rows), shape)
    order = (*range(axis), *range(axis + 1, rank), axis)
    back = tuple(order.index(a) for a in range(rank))
    return lowering.make("mlu.transpose", body(lowering.make("mlu.transpose", x, perm=order)), perm=back)


def _row_condition(op: Any) -> str | None:
    length = op.x.type.static_shape[op.axis]
    return None if length <= ROW else f"a row of {length} elements does not fit NRAM"


def _along_rows(lowering: Lowering, x: Value, function: str) -> Value:
    """Rows reduced to one number, at once where they fit NRAM."""
    if x.type.static_shape[-1] <= ROW:
        return lowering.make("mlu.reduce", x, function=function)
    return reduced(lowering, x, (x.type.rank - 1,), function)


def _long_row_condition(op: Any) -> str | None:
    """Rows that do not fit are reduced in steps."""
    reason = _row_condition(op)
    return reason if reason is None or reduction_steps(op.x.type.static_shape[op.axis], 1) is None else None


@rule("nn.softmax", "nn.log_softmax", condition=_long_row_condition)
def softmax(lowering: Lowering, op: Any) -> Value:
    f: Any = Formula(lowering)

    def rows(x: Value) -> Value:
        shifted = f.sub(x, _along_rows(lowering, x, "max"))
        powers = f.exp(shifted)
        total = _along_rows(lowering, powers, "sum")
        if op.op_name == "nn.log_softmax":
            return f.sub(shifted, f.log(total))
        return f.mul(powers, f.reciprocal(total))

    return along_last(lowering, in_working_type(lowering, op), op.axis, rows)


# -- normalisations --------------------------------------------------------------------------------------------------
def _batch_norm_condition(op: Any) -> str | None:
    if not all(isinstance(v, Constant) for v in op.inputs[1:]):
        return "batch-norm parameters are not constant"
    return None


@rule("nn.batch_norm", condition=_batch_norm_condition)
def batch_norm(lowering: Lowering, op: Any) -> Value:
    scale, bias, mean_, var = (v.data.astype(np.float32) for v in op.inputs[1:])
    factor = scale / np.sqrt(var + np.float32(op.epsilon))
    return _affine(lowering, op, in_working_type(lowering, op), op.axis, factor, bias - mean_ * factor)


def _affine(
    lowering: Lowering, op: Any, x: Value, axis: int, factor: np.ndarray | None, addend: np.ndarray | None
) -> Value:
    """x * factor + addend, arrays that lie along an axis, or broadcast from the last one on where axis is -1."""
    rank = x.type.rank
    for name, kind, data in (("scale", "mul", factor), ("shift", "add", addend)):
        if data is not None:
            if data.ndim == 1:
                data = data.reshape(-1, *(1,) * (rank - 1 - axis % rank))
            constant = lowering.module.add_constant(f"{op.name}.{name}", np.ascontiguousarray(data, np.float32))
            x = combine(lowering, kind, x, constant)
    return x


def _centred(lowering: Lowering, x: Value, axes: Sequence[int], epsilon: float, centre: bool = True) -> Value:
    """(x - mean) / sqrt(var + epsilon) of an f32 value over some axes; without the mean for `centre` False."""
    f: Any = Formula(lowering)
    if centre:
        average = mean(lowering, x, axes)
        x = combine(lowering, "sub", x, average, lowered=average)
    variance = mean(lowering, f.mul(x, x), axes)
    factor = f.rsqrt(f.add(variance, epsilon))
    return combine(lowering, "mul", x, factor, lowered=factor)


def _constant_parameters(op: Any) -> str | None:
    bad = [v for v in op.inputs[1:] if not isinstance(v, Constant)]
    return "scale or bias is not constant" if bad else None


def _layer_norm_condition(op: Any) -> str | None:
    shape = op.x.type.static_shape
    return _constant_parameters(op) or reduction_reason(shape, range(op.axis % len(shape), len(shape)))


@rule("nn.layer_norm", "nn.rms_norm", condition=_layer_norm_condition)
def layer_norm(lowering: Lowering, op: Any) -> Value:
    axes = tuple(range(op.axis % op.x.type.rank, op.x.type.rank))
    y = _centred(lowering, _wide(lowering, op), axes, op.epsilon, op.op_name == "nn.layer_norm")
    factor, addend = (None if v is None else v.data.astype(np.float32) for v in (op.scale, op.bias))
    return narrowed(lowering, op, _affine(lowering, op, y, -1, factor, addend))


def _instance_norm_condition(op: Any) -> str | None:
    rank = op.x.type.rank
    axes = [a for a in range(1, rank) if a != op.axis % rank]
    return _constant_parameters(op) or reduction_reason(op.x.type.static_shape, axes)


@rule("nn.instance_norm", condition=_instance_norm_condition)
def instance_norm(lowering: Lowering, op: Any) -> Value:
    axes = [a for a in range(1, op.x.type.rank) if a != op.axis % op.x.type.rank]
    y = _centred(lowering, _wide(lowering, op), axes, op.epsilon)
    scale, bias = (v.data.astype(np.float32) for v in (op.scale, op.bias))
    return narrowed(lowering, op, _affine(lowering, op, y, op.axis, scale, bias))


def _group_norm_condition(op: Any) -> str | None:
    shape = op.x.type.static_shape
    grouped = (shape[0], op.groups, math.prod(shape[1:]) // op.groups)
    return _constant_parameters(op) or reduction_reason(grouped, [2])


@rule("nn.group_norm", condition=_group_norm_condition)
def group_norm(lowering: Lowering, op: Any) -> Value:
    shape = op.x.type.static_shape
    grouped = lowering.reshaped(_wide(lowering, op), (shape[0] * op.groups, math.prod(shape[1:]) // op.groups))
    y = lowering.reshaped(_centred(lowering, grouped, (1,), op.epsilon), shape)
    scale, bias = (v.data.astype(np.float32) for v in (op.scale, op.bias))
    return narrowed(lowering, op, _affine(lowering, op, y, 1, scale, bias))


@rule("nn.lrn")
def lrn(lowering: Lowering, op: Any) -> Value:
    """x * exp(-beta * log(bias + alpha / size * sum of neighbouring squares)), in f32."""
    f: Any = Formula(lowering)
    x = _wide(lowering, op)
    shape, rank = x.type.static_shape, x.type.rank
    axis = op.axis % rank
    before = (op.size - 1) // 2
    around = [0] * 2 * rank
    around[axis], around[rank + axis] = before, op.size - 1 - before
    padded = lowering.make("mlu.pad", f.mul(x, x), pads=around)
    total = None
    for i in range(op.size):
        starts = tuple(i if a == axis else 0 for a in range(rank))
        part = lowering.make("mlu.slice", padded, starts=starts, sizes=shape, steps=(1,) * rank)
        total = part if total is None else f.add(total, part)
    base = f.add(f.mul(total, op.alpha / op.size), op.bias)
    return narrowed(lowering, op, f.mul(x, f.exp(f.mul(f.log(base), -op.beta))))


# -- places of extremes ----------------------------------------------------------------------------------------------
def _index_condition(op: Any) -> str | None:
    length = op.x.type.static_shape[op.axis]
    if op.x.type.quant is not None:
        return "operand is quantised"
    if length > LARGEST_INDEX:
        return f"indices up to {length} are too large"
    return _long_row_condition(op)


@also_takes(DType.I64, "reduce.argmax", "reduce.argmin")
@rule("reduce.argmax", "reduce.argmin", condition=_index_condition)
def extreme_index(lowering: Lowering, op: Any) -> Value:
    """The least (or last) of the indices, to all of which but those of the extreme elements a large number is added (or
    from which it is subtracted)."""
    f: Any = Formula(lowering)
    shape = op.x.type.static_shape
    length = shape[op.axis]
    function = "max" if op.op_name == "reduce.argmax" else "min"
    away = STEEP[DType.F32] * (-1.0 if function == "max" else 1.0)
    places = lowering.constant(f"{op.name}.places", np.arange(length, dtype=np.float32), DType.F32)

    x, axis, rank = lowering.floating(op.x, DType.F32), op.axis % len(shape), len(shape)
    if math.prod(shape[axis + 1 :]) > 1:
        x = lowering.make("mlu.transpose", x, perm=(*range(axis), *range(axis + 1, rank), axis))
    rows = lowering.reshaped(x, (x.type.elements // length, length))
    distance = f.sub(rows, _along_rows(lowering, rows, function))
    other = f.min(f.mul(f.mul(distance, away), abs(away)), 1.0)
    penalty = f.mul(other, float(-LARGEST_INDEX if op.select_last else LARGEST_INDEX))
    index = _along_rows(lowering, f.add(penalty, places), "max" if op.select_last else "min")
    return lowering.reshaped(index, op.result.type.static_shape)
