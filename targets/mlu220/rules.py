"""What the chip can do with each neutral op, and why not: the table behind `Target.supports` and the pass `legalize`.

A rule is a function `(lowering, op) → lowered value`; a condition is a function `op → reason or None`. An op without a
row has no instruction here and goes to the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir.core import Constant, Op, Value
from compiler.ir.types import DType
from targets.mlu220 import rules_move, rules_round  # noqa: F401 - rows of the table
from targets.mlu220.lowering import Lowering
from targets.mlu220.rule_table import CONDITIONS, INDEX_OPERANDS, LEGALIZERS, OTHER_TYPES, rule
from targets.mlu220.rules_elementwise import through_float
from targets.mlu220.rules_matrix import scale_vector as scale_vector
from targets.mlu220.rules_reduce import mean, narrowed, reduced, reduction_steps
from targets.mlu220.rules_spatial import nhwc, pool_condition, pooled


def reason_against(op: Op) -> str | None:
    """Why the chip cannot run a neutral op as it stands; None if it can."""
    if op.op_name not in LEGALIZERS:
        return f"no instruction for {op.op_name}"
    indices = INDEX_OPERANDS.get(op.op_name)
    for value in [*(v for i, v in enumerate(op.operands) if v is not None and i != indices), *op.results]:
        if not value.type.is_static:
            return f"shape of {value.name!r} is not known at compile time"
        if not value.type.elements:
            return f"{value.name!r} is empty"
        types = OTHER_TYPES.get(op.op_name, frozenset()) | {DType.F32, DType.F16}
        if value.type.quant is None and value.type.dtype not in types:
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


# -- pooling ---------------------------------------------------------------------------------------
@rule("nn.avg_pool2d", condition=pool_condition)
def avg_pool(lowering: Lowering, op: Any) -> Value:
    top, left, bottom, right = op.pads
    pads = (top, left, bottom + op.extra_pads[0], right + op.extra_pads[1])
    x = lowering.floating(op.x, lowering.working(op.x))
    if not any(pads) or (op.count_include_pad and not any(op.extra_pads)):
        return pooled(lowering, op, x, "mean", pads)
    total = pooled(lowering, op, x, "sum", pads)
    factor = np.float32(1.0) / _window_counts(op, pads)
    full = np.ascontiguousarray(np.broadcast_to(factor[None, :, :, None], op.result.type.static_shape))
    return lowering.make("mlu.mul", total, lowering.constant(f"{op.name}.count", full, total.type.dtype))


def _window_counts(op: Any, pads: Sequence[int]) -> np.ndarray:
    """How many elements each window of an average-pool divides by, [oh, ow] fp32."""
    _, h, w, _ = op.x.type.static_shape
    _, oh, ow, _ = op.result.type.static_shape
    axes = []
    for axis, (size, out, before, after) in enumerate(((h, oh, pads[0], op.pads[2]), (w, ow, pads[1], op.pads[3]))):
        low = np.arange(out) * op.strides[axis] - before
        taps = low[:, None] + np.arange(op.kernel[axis]) * op.dilations[axis]
        first, last = (-before, size + after) if op.count_include_pad else (0, size)
        axes.append(((taps >= first) & (taps < last)).sum(axis=1))
    return np.outer(axes[0], axes[1]).astype(np.float32)


def _global_pool_condition(op: Any) -> str | None:
    _, h, w, c = op.x.type.static_shape
    if reduction_steps(h * w, c) is None:
        return f"{h * w} pixels are too many to be pooled at once, and have no factor to do it in steps"
    return nhwc(op)


@rule("nn.global_avg_pool", "nn.global_max_pool", condition=_global_pool_condition)
def global_pool(lowering: Lowering, op: Any) -> Value:
    """One window over the image where that fits NRAM, else windows of windows."""
    _, h, w, c = op.x.type.static_shape
    average = op.op_name == "nn.global_avg_pool"
    if reduction_steps(h * w, max(c, 2)) == [h * w]:
        function = "mean" if average else "max"
        return through_float(lowering, op, lambda x: lowering.make("mlu.pool", x, function=function, kernel=(h, w)))
    if not average:
        return through_float(lowering, op, lambda x: reduced(lowering, x, (1, 2), "max"))
    return narrowed(lowering, op, mean(lowering, lowering.floating(op.x, DType.F32), (1, 2)))
