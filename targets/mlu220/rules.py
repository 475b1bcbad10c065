"""What the chip can do with each neutral op, and why not: the table behind `Target.supports` and the pass `legalize`.

A rule is a function `(lowering, op) → lowered value`; a condition is a function `op → reason or None`. An op without a
row has no instruction here and goes to the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from compiler.ir.core import Constant, Op, Value
from compiler.ir.types import DType
from targets.mlu220.lowering import Lowering
from targets.mlu220.rule_table import CONDITIONS, LEGALIZERS, rule
from targets.mlu220.rules_matrix import scale_vector as scale_vector  # the rest of the table

MAX_BROADCAST_BYTES = 16 << 20
"""A constant operand may be repeated to the full shape up to this size."""


def reason_against(op: Op) -> str | None:
    """Why the chip cannot run a neutral op as it stands; None if it can."""
    if op.op_name not in LEGALIZERS:
        return f"no instruction for {op.op_name}"
    for value in [*op.inputs, *op.results]:
        if not value.type.is_static:
            return f"shape of {value.name!r} is not known at compile time"
        if not value.type.elements:
            return f"{value.name!r} is empty"
        if value.type.quant is None and value.type.dtype not in (DType.F32, DType.F16):
            return f"{value.name!r} is {value.type.dtype}: the chip computes on i8, i16, f16 and f32"
        if value.type.quant is not None and value.type.dtype not in (DType.I8, DType.I16):
            return f"{value.name!r} is quantised to {value.type.dtype}: the chip has i8 and i16"
        if value.type.quant is not None and value.type.quant.zero_point:
            return f"{value.name!r} is quantised with a zero point: the chip is symmetric"
    condition = CONDITIONS.get(op.op_name)
    return condition(op) if condition is not None else None


# -- quantisation ----------------------------------------------------------------------------------------------------
@rule("quant.quantize")
def quantize(lowering: Lowering, op: Any) -> Value:
    quant = op.result.type.quant
    x = lowering.get(op.x) if not isinstance(op.x, Constant) else lowering.floating(op.x)
    factor = np.float32(math.ldexp(1.0, quant.position) / quant.step) if quant.step is not None else quant.scale
    if float(factor) != 1.0:
        x = lowering.make("mlu.mul", x, constant=float(factor))
    return lowering.make("mlu.convert", x, to=op.result.type.dtype, position=quant.position, rounding=lowering.rounding)


@rule("quant.dequantize")
def dequantize(lowering: Lowering, op: Any) -> Value:
    quant = op.x.type.quant
    y = lowering.make("mlu.convert", lowering.get(op.x), to=lowering.float, position=quant.position)
    factor = float(np.float32(math.ldexp(quant.real_step, -quant.position)))
    return lowering.make("mlu.mul", y, constant=factor) if factor != 1.0 else y


def _through_float(lowering: Lowering, op: Any, body: Callable[[Value], Value]) -> Value:
    """Apply a float computation; a quantised operand goes through float and back, both exact."""
    quant = op.inputs[0].type.quant
    if quant is None:
        return body(lowering.floating(op.inputs[0], lowering.working(op.inputs[0])))
    wide = DType.F32 if quant.storage is DType.I16 else lowering.float
    y = body(lowering.make("mlu.convert", lowering.get(op.inputs[0]), to=wide))
    return lowering.make("mlu.convert", y, to=quant.storage, rounding=lowering.rounding)


# -- pooling and normalisation ---------------------------------------------------------------------------------------
def _nhwc(op: Any) -> str | None:
    return None if op.layout == "NHWC" else f"{op.op_name} is not in NHWC layout: run convert-layout first"


def _max_pool_condition(op: Any) -> str | None:
    return "dilated max-pool has no instruction" if tuple(op.dilations) != (1, 1) else _nhwc(op)


@rule("nn.max_pool2d", condition=_max_pool_condition)
def max_pool(lowering: Lowering, op: Any) -> Value:
    window = {"function": "max", "kernel": op.kernel, "strides": op.strides, "pads": op.pads}
    return _through_float(lowering, op, lambda x: lowering.make("mlu.pool", x, **window))


def _avg_pool_condition(op: Any) -> str | None:
    return "dilated average-pool has no instruction" if tuple(op.dilations) != (1, 1) else _nhwc(op)


@rule("nn.avg_pool2d", condition=_avg_pool_condition)
def avg_pool(lowering: Lowering, op: Any) -> Value:
    top, left, bottom, right = op.pads
    pads = (top, left, bottom + op.extra_pads[0], right + op.extra_pads[1])
    window = {"kernel": op.kernel, "strides": op.strides, "pads": pads}
    x = lowering.floating(op.x, lowering.working(op.x))
    if not any(pads) or (op.count_include_pad and not any(op.extra_pads)):
        return lowering.make("mlu.pool", x, function="mean", **window)
    total = lowering.make("mlu.pool", x, function="sum", **window)
    factor = np.float32(1.0) / _window_counts(op, pads)
    full = np.ascontiguousarray(np.broadcast_to(factor[None, :, :, None], op.result.type.static_shape))
    return lowering.make("mlu.mul", total, lowering.constant(f"{op.name}.count", full, total.type.dtype))


def _window_counts(op: Any, pads: Sequence[int]) -> np.ndarray:
    """How many elements each window of an average-pool divides by, [oh, ow] fp32."""
    _, h, w, _ = op.x.type.static_shape
    _, oh, ow, _ = op.result.type.static_shape
    axes = []
    for size, out, kernel, stride, before, after in (
        (h, oh, op.kernel[0], op.strides[0], pads[0], op.pads[2]),
        (w, ow, op.kernel[1], op.strides[1], pads[1], op.pads[3]),
    ):
        low = np.arange(out) * stride - before
        first, last = (-before, size + after) if op.count_include_pad else (0, size)
        axes.append(np.minimum(low + kernel, last) - np.maximum(low, first))
    return np.outer(axes[0], axes[1]).astype(np.float32)


@rule("nn.global_avg_pool", "nn.global_max_pool", condition=_nhwc)
def global_pool(lowering: Lowering, op: Any) -> Value:
    _, h, w, _ = op.x.type.static_shape
    function = "mean" if op.op_name == "nn.global_avg_pool" else "max"
    return _through_float(lowering, op, lambda x: lowering.make("mlu.pool", x, function=function, kernel=(h, w)))


def _batch_norm_condition(op: Any) -> str | None:
    if not all(isinstance(v, Constant) for v in op.inputs[1:]):
        return "batch-norm parameters are not constant"
    return None if op.axis % op.x.type.rank == op.x.type.rank - 1 else "channels are not the last axis"


@rule("nn.batch_norm", condition=_batch_norm_condition)
def batch_norm(lowering: Lowering, op: Any) -> Value:
    scale, bias, mean, var = (v.data.astype(np.float32) for v in op.inputs[1:])
    factor = scale / np.sqrt(var + np.float32(op.epsilon))
    x = lowering.floating(op.x, lowering.working(op.x))
    y = lowering.make("mlu.mul", x, lowering.constant(f"{op.name}.scale", factor, x.type.dtype))
    return lowering.make("mlu.add", y, lowering.constant(f"{op.name}.shift", bias - mean * factor, x.type.dtype))


def _last_axis(op: Any) -> str | None:
    if op.axis % op.x.type.rank != op.x.type.rank - 1:
        return f"axis {op.axis} is not the last"
    return None


@rule("nn.softmax", condition=_last_axis)
def softmax(lowering: Lowering, op: Any) -> Value:
    x = lowering.floating(op.x, lowering.working(op.x))
    shifted = lowering.make("mlu.sub", x, lowering.make("mlu.reduce", x, function="max"))
    powers = lowering.make("mlu.exp", shifted)
    total = lowering.make("mlu.reduce", powers, function="sum")
    return lowering.make("mlu.mul", powers, lowering.make("mlu.reciprocal", total))


def _reduce_condition(op: Any) -> str | None:
    rank = op.x.type.rank
    axes = {a % rank for a in op.axes} if op.axes else set(range(rank))
    if axes == {rank - 1} or (rank == 4 and axes == {1, 2} and op.op_name != "reduce.min"):
        return None
    return f"reduction over axes {sorted(axes)} has no instruction: the last axis, or height and width, can be reduced"


@rule("reduce.mean", "reduce.sum", "reduce.max", "reduce.min", condition=_reduce_condition)
def reduce(lowering: Lowering, op: Any) -> Value:
    function = op.op_name.partition(".")[2]
    x = lowering.floating(op.x, lowering.working(op.x))
    shape = op.x.type.static_shape
    if {a % len(shape) for a in op.axes} == {len(shape) - 1}:
        y = lowering.make("mlu.reduce", x, function="sum" if function == "mean" else function)
        if function == "mean":
            y = lowering.make("mlu.mul", y, constant=float(np.float32(1.0 / shape[-1])))
    else:
        y = lowering.make("mlu.pool", x, function=function, kernel=shape[1:3])
    return lowering.reshaped(y, op.result.type.static_shape)


# -- elementwise -----------------------------------------------------------------------------------------------------
UNARY = {
    "nn.relu": "relu", "nn.sigmoid": "sigmoid", "math.tanh": "tanh", "math.exp": "exp", "math.log": "log",
    "math.sqrt": "sqrt", "math.rsqrt": "rsqrt", "math.reciprocal": "reciprocal", "math.erf": "erf", "math.abs": "abs",
}  # fmt: skip


@rule(*UNARY)
def unary(lowering: Lowering, op: Any) -> Value:
    return _through_float(lowering, op, lambda x: lowering.make(f"mlu.{UNARY[op.op_name]}", x))


@rule("nn.leaky_relu")
def leaky_relu(lowering: Lowering, op: Any) -> Value:
    x = lowering.floating(op.x, lowering.working(op.x))
    return lowering.make("mlu.leaky_relu", x, parameter_value=op.alpha)


def _prelu_condition(op: Any) -> str | None:
    if not isinstance(op.slope, Constant) or not _is_channel_vector(op.slope, op.x):
        return "slope is not one constant per channel"
    return None


@rule("nn.prelu", condition=_prelu_condition)
def prelu(lowering: Lowering, op: Any) -> Value:
    x = lowering.floating(op.x, lowering.working(op.x))
    slope = lowering.constant(op.slope.name, _channel_vector(op.slope, op.x), x.type.dtype)
    negative = lowering.make("mlu.mul", lowering.make("mlu.min", x, constant=0.0), slope)
    return lowering.make("mlu.add", lowering.make("mlu.relu", x), negative)


@rule("math.clip")
def clip(lowering: Lowering, op: Any) -> Value:
    return _through_float(lowering, op, lambda x: _clip(lowering, x, op.low, op.high))


def _clip(lowering: Lowering, x: Value, low: float, high: float) -> Value:
    if low == 0.0:
        x = lowering.make("mlu.relu", x)
    elif low > -math.inf:
        x = lowering.make("mlu.max", x, constant=low)
    return lowering.make("mlu.min", x, constant=high) if high < math.inf else x


@rule("nn.hard_sigmoid", "nn.hard_swish", "nn.silu", "math.neg", "nn.gelu")
def composed(lowering: Lowering, op: Any) -> Value:
    x = lowering.floating(op.inputs[0], lowering.working(op.inputs[0]))
    make = lowering.make
    if op.op_name == "math.neg":
        return make("mlu.mul", x, constant=-1.0)
    if op.op_name == "nn.silu":
        return make("mlu.mul", x, make("mlu.sigmoid", x))
    if op.op_name == "nn.gelu":
        gate = make("mlu.add", make("mlu.erf", make("mlu.mul", x, constant=math.sqrt(0.5))), constant=1.0)
        return make("mlu.mul", make("mlu.mul", x, constant=0.5), gate)
    alpha, beta = (op.alpha, op.beta) if op.op_name == "nn.hard_sigmoid" else (1.0 / 6.0, 0.5)
    gate = _clip(lowering, make("mlu.add", make("mlu.mul", x, constant=alpha), constant=beta), 0.0, 1.0)
    return gate if op.op_name == "nn.hard_sigmoid" else make("mlu.mul", x, gate)


BINARY = {
    "math.add": "add", "math.sub": "sub", "math.mul": "mul", "math.div": "mul", "math.maximum": "max",
    "math.minimum": "min",
}  # fmt: skip


def _is_channel_vector(value: Value, like: Value) -> bool:
    """Whether a value is one number per last-axis index of `like`, under any number of leading ones."""
    shape = value.type.static_shape
    return bool(shape) and shape[-1] == like.type.shape[-1] and math.prod(shape) == shape[-1]


def _channel_vector(constant: Constant, like: Value) -> np.ndarray:
    return constant.data.astype(np.float32).reshape(like.type.static_shape[-1])


def _binary_condition(op: Any) -> str | None:
    a, b = op.a, op.b
    if isinstance(a, Constant) and isinstance(b, Constant):
        return "both operands are constant"
    if a.type.quant is not None or b.type.quant is not None:
        return "operands are quantised"
    full = op.result.type.static_shape
    for one in (a, b):
        shape = one.type.static_shape
        if shape == full or _is_channel_vector(one, op.result) or shape == (*full[:-1], 1):
            continue
        if isinstance(one, Constant) and (one.type.elements == 1 or op.result.type.elements * 4 <= MAX_BROADCAST_BYTES):
            continue
        return f"operand of shape {list(shape)} cannot be broadcast to {list(full)} on the chip"
    if a.type.static_shape != full and b.type.static_shape != full:
        return "both operands need broadcasting"
    return None


@rule(*BINARY, condition=_binary_condition)
def binary(lowering: Lowering, op: Any) -> Value:
    a, b, name = op.a, op.b, BINARY[op.op_name]
    full = op.result.type.static_shape
    swap = isinstance(a, Constant) or (a.type.static_shape != full and not isinstance(b, Constant))
    if swap and op.op_name == "math.sub":
        negated = lowering.make("mlu.mul", lowering.floating(b, lowering.working(a, b)), constant=-1.0)
        return _combine(lowering, "add", negated, a, full)
    if op.op_name == "math.div":
        if isinstance(b, Constant):
            inverse = (np.float32(1.0) / b.data.astype(np.float32)).astype(np.float32)
            b = lowering.module.add_constant(f"{b.name}.inverse", inverse)
        else:
            dtype = lowering.working(a, b)
            inverted = lowering.make("mlu.reciprocal", lowering.floating(b, dtype))
            if swap:
                return _combine(lowering, "mul", inverted, a, full)
            return _combine(lowering, "mul", lowering.floating(a, dtype), b, full, lowered=inverted)
    if swap:
        a, b = b, a
    return _combine(lowering, name, lowering.floating(a, lowering.working(a, b)), b, full)


def _combine(
    lowering: Lowering, name: str, a: Value, b: Value, full: tuple[int, ...], lowered: Value | None = None
) -> Value:
    """`a name b` with `a` lowered and of full shape, `b` neutral (or already `lowered`): constant, vector, row or
    full."""
    if isinstance(b, Constant) and lowered is None:
        if b.type.elements == 1:
            return lowering.make(f"mlu.{name}", a, constant=float(b.data.astype(np.float32).reshape(())))
        data = b.data.astype(np.float32)
        if b.type.elements == full[-1] == b.type.shape[-1]:
            data = data.reshape(full[-1])
        elif data.shape != full and data.shape != (*full[:-1], 1):
            data = np.ascontiguousarray(np.broadcast_to(data, full))
        return lowering.make(f"mlu.{name}", a, lowering.constant(b.name, data, a.type.dtype))
    second = lowered if lowered is not None else lowering.floating(b, a.type.dtype)
    shape = second.type.static_shape
    if shape not in (full, (*full[:-1], 1)) and math.prod(shape) == full[-1]:
        second = lowering.reshaped(second, (full[-1],))
    return lowering.make(f"mlu.{name}", a, second)


# -- movement --------------------------------------------------------------------------------------------------------
def _same_kind(lowering: Lowering, value: Value) -> Value:
    """A value as it stands: integers if quantised, else in the working float type."""
    if value.type.quant is not None:
        return lowering.get(value)
    return lowering.floating(value, lowering.working(value))


@rule("tensor.reshape")
def reshape(lowering: Lowering, op: Any) -> Value:
    return lowering.reshaped(_same_kind(lowering, op.x), op.result.type.static_shape)


@rule("tensor.transpose")
def transpose(lowering: Lowering, op: Any) -> Value:
    x = _same_kind(lowering, op.x)
    shape = x.type.static_shape
    kept = [i for i in op.perm if shape[i] != 1]
    if kept == sorted(kept):  # only axes of one element move: the same bytes
        return lowering.reshaped(x, op.result.type.static_shape)
    return lowering.make("mlu.transpose", x, perm=op.perm)


def _slice_condition(op: Any) -> str | None:
    return "slices backwards" if min(op.strides, default=1) < 1 else None


@rule("tensor.slice", condition=_slice_condition)
def slice_(lowering: Lowering, op: Any) -> Value:
    return lowering.make("mlu.slice", _same_kind(lowering, op.x), starts=op.starts, sizes=op.sizes, steps=op.strides)


def _pad_condition(op: Any) -> str | None:
    return None if op.mode == "constant" else f"padding mode {op.mode!r} has no instruction"


@rule("tensor.pad", condition=_pad_condition)
def pad(lowering: Lowering, op: Any) -> Value:
    x = _same_kind(lowering, op.x)
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
