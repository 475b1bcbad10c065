"""Rules of the matrix unit: convolutions, matrix products with constants and of two activations.

Each becomes the raw integer sum, a multiplication with the scale and an addition of the bias.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir.core import Constant, Value
from compiler.ir.types import DType, QuantType
from targets.mlu220 import isa
from targets.mlu220.lowering import Lowering
from targets.mlu220.op_matrix import SPLIT_UNIT
from targets.mlu220.rule_table import rule
from targets.mlu220.rules_focus import unfolded
from targets.mlu220.rules_move import taken
from targets.mlu220.rules_windows import chip, undilated, window_fits, window_reason

MAX_SUM = 1 << 17
"""Products of i8 that an int32 sum holds whatever they are."""

TILE_BYTES_PER_COLUMN = 16
"""NRAM bytes a column of a product's smallest tile takes beside the operands: the sum and what follows it."""


def _is_depthwise(op: Any) -> bool:
    """Whether every group has one channel. Of integers, several results per channel are sums of the matrix unit."""
    several = op.w.type.shape[0] != op.groups
    return op.groups > 1 and op.groups == op.x.type.shape[3] and not (several and op.x.type.quant is not None)


def channels_repeated(lowering: Lowering, x: Value, times: int) -> Value:
    """An NHWC value with every channel several times in turn: the chip's depthwise convolution makes one result of
    each."""
    channels = np.arange(x.type.static_shape[3])
    return taken(lowering, x, {3: np.repeat(channels, times)}) if times > 1 else x


def _splits(co: int, kh: int, kw: int, ci: int, dtype: DType, groups: int = 1) -> int:
    """Into how many parts the input channels must be cut for the filters of 64 output channels to fit WRAM twice."""
    code = isa.Type.I16 if dtype is DType.I16 else isa.Type.I8
    room = chip().wram_bytes
    whole = int(isa.filter_bytes(min(co // groups, 64), kh, kw, ci, code, isa.Runs.TAP)) * groups
    return 1 if whole <= (room if groups > 1 else room // 2) else -(-2 * whole // room)


def _apart(co: int, kh: int, kw: int, ci: int, dtype: DType, groups: int) -> bool:
    """Whether the groups of a convolution are convolutions of their own: all of their filters do not fit WRAM, and a
    tile holds all channels of a grouped one."""
    code = isa.Type.I16 if dtype is DType.I16 else isa.Type.I8
    each = int(isa.filter_bytes(co // groups, kh, kw, ci, code, isa.Runs.TAP))
    return groups > 1 and each * groups > chip().wram_bytes


def _filters_fit(co: int, kh: int, kw: int, ci: int, dtype: DType, groups: int) -> str | None:
    if kh * kw * ci >= MAX_SUM and dtype is DType.I8:
        return f"a sum of {kh * kw * ci} products of i8 does not fit int32"
    splits = _splits(co, kh, kw, ci, dtype, groups)
    if splits > 1 and (groups > 1 or -(-ci // SPLIT_UNIT) < splits):
        return "its filters do not fit WRAM, however the input channels are split"
    return None


def _conv_condition(op: Any) -> str | None:
    if op.layout != "NHWC":
        return "convolution is not in NHWC layout: run convert-layout first"
    if not isinstance(op.w, Constant):
        return "filters are not constant"
    reason = window_reason(op.w.type.static_shape[1:3], op.strides, op.dilations)
    if reason is not None:
        return reason
    if _is_depthwise(op):
        return None if op.x.type.quant is None else "depthwise convolution is not quantised on this chip"
    if op.x.type.quant is None:
        return "convolution in floating point: the matrix unit is integer only (quantise it, or accept a host segment)"
    co, kh, kw, ci = op.w.type.static_shape
    if _holes_to_close(op) is None:
        return f"a window of {kh}x{kw} over {op.x.type.shape[3]} channels does not fit NRAM"
    if _apart(co, kh, kw, ci, op.w.type.dtype, op.groups):
        return _filters_fit(co // op.groups, kh, kw, ci, op.w.type.dtype, 1)
    return _filters_fit(co, kh, kw, ci, op.w.type.dtype, op.groups)


def scale_vector(module: Any, x: QuantType, w: QuantType) -> np.ndarray | float:
    """What the raw sum times 2^(positions) must be multiplied by: per channel, or one number. fp32, correctly
    rounded."""

    def remainder(quant: QuantType) -> np.ndarray:
        if quant.params is not None:
            return np.float32(1.0) / module.constant_named(quant.params).astype(np.float32)
        return np.asarray(np.float32(math.ldexp(quant.real_step, -quant.position)))

    product = (remainder(x) * remainder(w)).astype(np.float32)
    return float(product) if product.ndim == 0 else product


def _scaled(lowering: Lowering, op: Any, raw: Value, w: Value, bias: Value | None) -> Value:
    """raw * scale + bias, each step rounded to the type of `raw`."""
    x_quant, w_quant = op.inputs[0].type.quant, w.type.quant
    assert x_quant is not None and w_quant is not None
    scale = scale_vector(lowering.module, x_quant, w_quant)
    dtype = raw.type.dtype
    if isinstance(scale, float):
        y = lowering.make("mlu.mul", raw, constant=scale)
    else:
        y = lowering.make("mlu.mul", raw, lowering.constant(f"{w.name}.scale", scale, dtype))
    if bias is not None:
        assert isinstance(bias, Constant)
        y = lowering.make("mlu.add", y, lowering.constant(bias.name, bias.data.astype(np.float32), dtype))
    return y


def _sum_type(lowering: Lowering, op: Any) -> DType:
    """The type the matrix unit writes: that of the result, which the scheme may have made f32."""
    return lowering.asked(op) or lowering.float


@rule("nn.conv2d", condition=_conv_condition)
def conv2d(lowering: Lowering, op: Any) -> Value:
    window = {"strides": op.strides, "pads": op.pads, "dilations": op.dilations}
    if _is_depthwise(op):
        dtype = lowering.working(op.x)
        taps = lowering.constant(op.w.name, np.ascontiguousarray(op.w.data[:, :, :, 0].transpose(1, 2, 0)), dtype)
        x = channels_repeated(lowering, lowering.floating(op.x, dtype), op.w.type.static_shape[0] // op.groups)
        y = lowering.make("mlu.depthwise_conv2d", x, taps, **window)
        if op.bias is not None:
            y = lowering.make("mlu.add", y, lowering.constant(op.bias.name, op.bias.data, dtype))
        return y
    fix = op.x.type.quant.position + op.w.type.quant.position
    x, w = op.x, lowering.get(op.w)
    focus = unfolded(op)
    if focus is not None:
        folded, filters, window = focus
        x, w = folded.image, lowering.module.add_constant(f"{op.w.name}.unfolded", filters)
    co, kh, kw, ci = w.type.static_shape
    image = lowering.get(x)
    if kh == kw == 1 and max(window["strides"]) > 1 and not any(window["pads"]):
        image, window = _pixels_read(lowering, image, window["strides"]), {}
    same = {"fix_position": fix, "to": _sum_type(lowering, op)}

    def convolved(image: Value, **window: Any) -> Value:
        if _apart(co, kh, kw, ci, op.w.type.dtype, op.groups):
            raw = _group_by_group(lowering, image, w, op.groups, {**window, **same})
        else:
            splits = _splits(co, kh, kw, ci, op.w.type.dtype, op.groups)
            raw = lowering.make("mlu.conv2d", image, w, groups=op.groups, splits=splits, **window, **same)
        return _scaled(lowering, op, raw, op.w, op.bias)

    closed = _holes_to_close(op)
    if closed in (None, (1, 1)):
        return convolved(image, **window)
    kept = tuple(1 if c > 1 else d for c, d in zip(closed, op.dilations, strict=True))
    reach = [(k - 1) * d + 1 for k, d in zip((kh, kw), kept, strict=True)]
    return undilated(
        lowering, image, reach, op.pads, closed, op.strides,
        lambda part, pads: convolved(part, pads=pads, dilations=kept),
    )  # fmt: skip


def _holes_to_close(op: Any) -> tuple[int, int] | None:
    """The dilations that a convolution is taken apart by so that one window over all channels fits NRAM: none, those of
    the rows, of the columns, or both; None where that does not suffice."""
    _, kh, kw, _ = op.w.type.static_shape
    dy, dx = op.dilations
    pixel = op.x.type.static_shape[3] * op.x.type.dtype.size
    for closed in dict.fromkeys(((1, 1), (dy, 1), (1, dx), (dy, dx))):
        kept = [1 if c > 1 else d for c, d in zip(closed, op.dilations, strict=True)]
        if window_fits((kh, kw), kept, pixel):
            return closed
    return None


def _group_by_group(lowering: Lowering, image: Value, w: Value, groups: int, same: dict[str, Any]) -> Value:
    """A grouped convolution as one for each group, of that group's channels."""
    assert isinstance(w, Constant)
    co, kh, kw, ci = w.type.static_shape
    n, height, width, _ = image.type.static_shape
    each = co // groups
    splits = _splits(each, kh, kw, ci, w.type.dtype)
    parts = []
    for g in range(groups):
        cut = {"starts": (0, 0, 0, g * ci), "sizes": (n, height, width, ci), "steps": (1,) * 4}
        x = lowering.make("mlu.slice", image, **cut)
        filters = np.ascontiguousarray(w.data[g * each : (g + 1) * each])
        constant = lowering.module.add_constant(f"{w.name}.{g}", filters)
        parts.append(lowering.make("mlu.conv2d", x, constant, splits=splits, **same))
    return lowering.make("mlu.concat", *parts, axis=3)


def _pixels_read(lowering: Lowering, image: Value, strides: Sequence[int]) -> Value:
    """The pixels of an image that a 1x1 window with these strides reads, as a view: the others are then not loaded."""
    n, h, w, c = image.type.static_shape
    sizes = (n, -(-h // strides[0]), -(-w // strides[1]), c)
    return lowering.make("mlu.slice", image, starts=(0,) * 4, sizes=sizes, steps=(1, *strides, 1))


def _matmul_condition(op: Any) -> str | None:
    if op.a.type.quant is None or op.b.type.quant is None:
        return "matmul in floating point: the matrix unit is integer only (quantise it, or accept a host segment)"
    if not _has_packed_filters(op):
        return _product_condition(op)
    k, n = op.b.type.static_shape
    return _filters_fit(n, 1, 1, k, op.b.type.dtype, 1)


def _has_packed_filters(op: Any) -> bool:
    """Whether the second operand is a constant matrix, so that its layout is made at compile time."""
    return isinstance(op.b, Constant) and op.b.type.rank == 2


@rule("nn.matmul", condition=_matmul_condition)
def matmul(lowering: Lowering, op: Any) -> Value:
    if not _has_packed_filters(op):
        return product(lowering, op)
    k, n = op.b.type.static_shape
    rows = op.a.type.elements // k
    x = lowering.reshaped(lowering.get(op.a), (1, 1, rows, k))
    filters = np.ascontiguousarray(op.b.data.T).reshape(n, 1, 1, k)
    w = lowering.module.add_constant(f"{op.b.name}.i", filters)
    fix = op.a.type.quant.position + op.b.type.quant.position
    splits = _splits(n, 1, 1, k, op.b.type.dtype)
    raw = lowering.make("mlu.conv2d", x, w, fix_position=fix, to=_sum_type(lowering, op), splits=splits)
    return lowering.reshaped(_scaled(lowering, op, raw, op.b, None), op.result.type.static_shape)


# -- products of two activations -------------------------------------------------------------------------------------
def _product_condition(op: Any) -> str | None:
    a, b = op.a.type, op.b.type
    if a.dtype is DType.I8 and b.dtype is DType.I16:
        return "i8 by i16 is not a mode of the matrix unit"
    k = a.static_shape[-1]
    if k >= MAX_SUM and a.dtype is DType.I8:
        return f"a sum of {k} products of i8 does not fit int32"
    board = chip()
    columns = min(b.static_shape[-1] if b.rank > 1 else 1, isa.LANES)
    code = isa.Type.I16 if b.dtype is DType.I16 else isa.Type.I8
    filters = int(isa.filter_bytes(isa.LANES, 1, 1, k, code, isa.Runs.TAP))
    tile = k * columns * b.dtype.size + k * a.dtype.size + columns * TILE_BYTES_PER_COLUMN
    if filters > board.wram_bytes or tile > board.nram_usable_bytes:
        return f"{columns} columns of {k} elements do not fit the on-chip memories"
    return None


def product(lowering: Lowering, op: Any) -> Value:
    """Both operands lose or gain leading axes of 1 until their ranks agree; a transposition of the second one's last
    two axes is read in place."""
    second, transposed = _transposed_source(op.b)
    a, b = lowering.get(op.a), lowering.get(second)
    a_shape, b_shape = a.type.static_shape, b.type.static_shape
    if len(a_shape) == 1:
        a_shape = (1, *a_shape)
    if len(b_shape) == 1:
        b_shape = (*b_shape, 1)
    rank = max(len(a_shape), len(b_shape))
    a = lowering.reshaped(a, (1,) * (rank - len(a_shape)) + a_shape)
    b = lowering.reshaped(b, (1,) * (rank - len(b_shape)) + b_shape)
    raw = lowering.make(
        "mlu.matmul", a, b, transpose_b=transposed, to=_sum_type(lowering, op),
        fix_position=op.a.type.quant.position + op.b.type.quant.position,
    )  # fmt: skip
    return lowering.reshaped(_scaled(lowering, op, raw, op.b, None), op.result.type.static_shape)


def _transposed_source(value: Value) -> tuple[Value, bool]:
    """What a value is the transposition (of its last two axes) of, and True; or itself and False."""
    producer = value.producer
    if producer is None or producer.op_name != "tensor.transpose":
        return value, False
    rank = value.type.rank
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    return (producer.inputs[0], True) if rank > 1 and tuple(producer.attributes["perm"]) == swapped else (value, False)
