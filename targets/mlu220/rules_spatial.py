"""Rules of spatial ops beyond convolution: transposed convolution, max-pool, resizing, pixel shuffles.

Transposed convolutions and dilated pools are taken apart into windows without holes (`rules_windows`); the sums of the
former stay exact integers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from compiler.evaluate.resize import NEAREST, neighbours, source_coordinates
from compiler.ir.core import Constant, Value
from targets.mlu220.lowering import Lowering
from targets.mlu220.rule_table import rule
from targets.mlu220.rules_elementwise import combine, in_working_type, through_float
from targets.mlu220.rules_matrix import _apart, _filters_fit, _scaled, _splits, _sum_type, channels_repeated
from targets.mlu220.rules_move import same_kind
from targets.mlu220.rules_windows import (
    FLOAT_WINDOW,
    LONGEST_WINDOW,
    Phase,
    cropped,
    in_turn,
    phases,
    undilated,
    window_fits,
    window_reason,
)  # fmt: skip


def nhwc(op: Any) -> str | None:
    """The condition of ops that the chip runs in NHWC only."""
    return None if op.layout == "NHWC" else f"{op.op_name} is not in NHWC layout: run convert-layout first"


def _image_phases(op: Any) -> tuple[list[Phase], list[Phase]]:
    _, h, w, _ = op.x.type.static_shape
    _, oh, ow, _ = op.result.type.static_shape
    _, kh, kw, _ = op.w.type.static_shape
    return (
        phases(h, kh, op.strides[0], op.pads[0], op.dilations[0], oh),
        phases(w, kw, op.strides[1], op.pads[1], op.dilations[1], ow),
    )


# -- transposed convolution ------------------------------------------------------------------------------------------
def _is_depthwise(op: Any) -> bool:
    return op.groups > 1 and op.groups == op.x.type.shape[3]


def _transposed_condition(op: Any) -> str | None:
    if op.layout != "NHWC":
        return nhwc(op)
    if not isinstance(op.w, Constant) or (op.bias is not None and not isinstance(op.bias, Constant)):
        return "filters are not constant"
    _, h, w, _ = op.x.type.static_shape
    for axis, (size, found) in enumerate(zip((h, w), _image_phases(op), strict=True)):
        if any(max(-p.before, 0) + max(-p.behind, 0) >= size for p in found):
            return f"its pads leave nothing of axis {axis + 1} of the input"
        if any(len(p.taps) > LONGEST_WINDOW for p in found):
            return f"more than {LONGEST_WINDOW} taps along axis {axis + 1}"
    ci, kh, kw, per_group = op.w.type.static_shape
    if _is_depthwise(op):
        return None if op.x.type.quant is None else "depthwise convolution is not quantised on this chip"
    if op.x.type.quant is None:
        return "convolution in floating point: the matrix unit is integer only (quantise it, or accept a host segment)"
    sizes = (per_group * op.groups, kh, kw, ci // op.groups, op.w.type.dtype, op.groups)
    if _apart(*sizes):
        return "the filters of its groups do not fit WRAM together"
    return _filters_fit(*sizes)


def _as_convolution(w: np.ndarray, groups: int) -> np.ndarray:
    """[ci, kh, kw, co/groups] as [co, kh, kw, ci/groups]."""
    ci, kh, kw, per_group = w.shape
    split = w.reshape(groups, ci // groups, kh, kw, per_group)
    return split.transpose(0, 4, 2, 3, 1).reshape(groups * per_group, kh, kw, ci // groups)


def _taps(w: np.ndarray, rows: Phase, columns: Phase) -> np.ndarray:
    """The part of [co, kh, kw, ci] filters that a pair of phases applies, in the order of the input."""
    for axis, phase in ((1, rows), (2, columns)):
        picked = np.take(w, [t or 0 for t in phase.taps], axis=axis)
        mask = np.asarray([t is not None for t in phase.taps]).astype(w.dtype)
        w = picked * mask.reshape([-1 if a == axis else 1 for a in range(4)])
    return np.ascontiguousarray(w)


@rule("nn.conv_transpose2d", condition=_transposed_condition)
def conv_transpose2d(lowering: Lowering, op: Any) -> Value:
    row_phases, column_phases = _image_phases(op)
    filters = _as_convolution(op.w.data, op.groups)
    step: Callable[..., Value] = _depthwise_phase if _is_depthwise(op) else _integer_phase

    def one(row: int, column: int) -> Value:
        rows, columns = row_phases[row], column_phases[column]
        name = f"{op.w.name}.{row}.{column}"
        return step(lowering, op, name, _taps(filters, rows, columns), rows, columns)

    return in_turn(lowering, [[one(i, j) for j in range(len(column_phases))] for i in range(len(row_phases))])


def _integer_phase(lowering: Lowering, op: Any, name: str, w: np.ndarray, rows: Phase, columns: Phase) -> Value:
    x, pads = cropped(lowering, lowering.get(op.x), (rows.before, rows.behind), (columns.before, columns.behind))
    co, kh, kw, ci = w.shape
    raw = lowering.make(
        "mlu.conv2d", x, lowering.module.add_constant(name, w), pads=pads, groups=op.groups,
        fix_position=op.x.type.quant.position + op.w.type.quant.position, to=_sum_type(lowering, op),
        splits=_splits(co, kh, kw, ci, op.w.type.dtype, op.groups),
    )  # fmt: skip
    return _scaled(lowering, op, raw, op.w, op.bias)


def _depthwise_phase(lowering: Lowering, op: Any, name: str, w: np.ndarray, rows: Phase, columns: Phase) -> Value:
    x = in_working_type(lowering, op)
    x, pads = cropped(lowering, x, (rows.before, rows.behind), (columns.before, columns.behind))
    x = channels_repeated(lowering, x, op.w.type.static_shape[3])
    taps = lowering.constant(name, np.ascontiguousarray(w[:, :, :, 0].transpose(1, 2, 0)), x.type.dtype)
    y = lowering.make("mlu.depthwise_conv2d", x, taps, pads=pads)
    return y if op.bias is None else combine(lowering, "add", y, op.bias)


# -- pools -----------------------------------------------------------------------------------------------------------
def pool_condition(op: Any) -> str | None:
    _, h, w, _ = op.x.type.static_shape
    if any(d > min(h, w) for d in op.dilations):
        return f"dilations {list(op.dilations)} exceed the image"
    if not window_fits(op.kernel, (1, 1), FLOAT_WINDOW):
        return f"a window of {list(op.kernel)} does not fit NRAM"
    return nhwc(op) or window_reason(op.kernel, op.strides)


@rule("nn.max_pool2d", condition=pool_condition)
def max_pool(lowering: Lowering, op: Any) -> Value:
    return through_float(lowering, op, lambda x: pooled(lowering, op, x, "max", op.pads))


def pooled(lowering: Lowering, op: Any, x: Value, function: str, pads: Sequence[int]) -> Value:
    """A pool of a lowered value, dilated or not."""
    window = {"function": function, "kernel": op.kernel}
    dilations = [d if k > 1 else 1 for d, k in zip(op.dilations, op.kernel, strict=True)]
    if max(dilations) == 1:
        return lowering.make("mlu.pool", x, strides=op.strides, pads=pads, **window)
    return undilated(
        lowering, x, op.kernel, pads, dilations, op.strides,
        lambda part, around: lowering.make("mlu.pool", part, pads=around, **window),
    )  # fmt: skip


# -- resizing --------------------------------------------------------------------------------------------------------
GRAIN = 2.0**20
"""Interpolation weights are multiples of 1 over this, so that rounding of coordinates makes no two of one."""


def _resized_axes(op: Any) -> list[int]:
    """Axes whose size or factor changes, last first: the longer rows come last."""
    changed = [
        axis for axis, size in enumerate(op.x.type.static_shape)
        if op.sizes[axis] != size or (op.scales and op.scales[axis] != 1.0)
    ]  # fmt: skip
    return changed[::-1]


def _resize_condition(op: Any) -> str | None:
    return nhwc(op) if op.x.type.rank == 4 else None


@rule("nn.resize", condition=_resize_condition)
def resize(lowering: Lowering, op: Any) -> Value:
    shape = op.x.type.static_shape
    if op.mode == "nearest":
        picked: list[tuple[int, ...]] = [()] * len(shape)
        for axis in _resized_axes(op):
            places = NEAREST[op.nearest_mode](source_coordinates(op, axis, shape[axis]))
            picked[axis] = tuple(int(i) for i in np.clip(places, 0, shape[axis] - 1))
        x = same_kind(lowering, op.x)
        return lowering.make("mlu.take", x, indices=tuple(picked)) if any(picked) else x
    x = in_working_type(lowering, op)
    for axis in _resized_axes(op):
        places, weights = neighbours(op, axis, shape[axis])
        x = _resampled(lowering, op, x, axis, places, np.round(weights * GRAIN) / GRAIN)
    return x


def _resampled(lowering: Lowering, op: Any, x: Value, axis: int, places: np.ndarray, weights: np.ndarray) -> Value:
    """Weighted sums of picked elements along an axis; of two whose weights add up to 1, by their difference."""
    if places.shape[1] == 2:
        low, high = (tuple(map(int, column)) for column in places.T)
        return lowering.make(
            "mlu.interpolate", x, axis=axis, low=low, high=high, weights=tuple(map(float, weights[:, 1]))
        )
    total = None
    for tap in range(places.shape[1]):
        if not weights[:, tap].any():
            continue
        picked: list[tuple[int, ...]] = [()] * x.type.rank
        picked[axis] = tuple(map(int, places[:, tap]))
        part = lowering.make("mlu.take", x, indices=tuple(picked))
        along = weights[:, tap].astype(np.float32).reshape([-1 if a == axis else 1 for a in range(x.type.rank)])
        part = combine(lowering, "mul", part, lowering.module.add_constant(f"{op.name}.weights{axis}.{tap}", along))
        total = part if total is None else lowering.make("mlu.add", total, part)
    assert total is not None
    return total


# -- pixel shuffles --------------------------------------------------------------------------------------------------
@rule("nn.depth_to_space", condition=nhwc)
def depth_to_space(lowering: Lowering, op: Any) -> Value:
    n, h, w, depth = op.x.type.static_shape
    b = op.block_size
    c = depth // (b * b)
    x = same_kind(lowering, op.x)
    if op.mode == "DCR" or c == 1:
        x = lowering.make("mlu.transpose", lowering.reshaped(x, (n, h, w, b, b * c)), perm=(0, 1, 3, 2, 4))
    else:
        x = lowering.make("mlu.transpose", lowering.reshaped(x, (n, h, w, c, b, b)), perm=(0, 1, 4, 2, 5, 3))
    return lowering.reshaped(x, op.result.type.static_shape)


@rule("nn.space_to_depth", condition=nhwc)
def space_to_depth(lowering: Lowering, op: Any) -> Value:
    n, h, w, c = op.x.type.static_shape
    b = op.block_size
    x = lowering.reshaped(same_kind(lowering, op.x), (n, h // b, b, w // b, b * c))
    x = lowering.make("mlu.transpose", x, perm=(0, 1, 3, 2, 4))
    return lowering.reshaped(x, op.result.type.static_shape)


