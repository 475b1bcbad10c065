"""Ops that give back their operand, or say twice what once is enough: a small rule each, collected in `IDENTITIES`."""

from __future__ import annotations

import math
from typing import Any

from compiler.ir.core import Constant, Op, Value
from compiler.ops.activation import Relu
from compiler.ops.math import Clip, Mul
from compiler.ops.tensor import Reshape
from compiler.rewrite import Declined, Match, Rewriter, Rule, anything, constant, pattern, shared


def uniform_value(value: Value | None) -> Any:
    """The one number all elements of an unquantised constant have; None if there is no such number."""
    if not isinstance(value, Constant) or value.type.quant is not None or not value.data.size:
        return None
    first = value.data.flat[0]
    if not bool((value.data.reshape(-1)[:64] == first).all()):  # spares a walk over large weights
        return None
    return first.item() if bool((value.data == first).all()) else None


def _replace_by(match: Match, rewriter: Rewriter, value: Value) -> object:
    """Let `value` stand for the root's result, if it is of the same type."""
    if value.type != match.root.result.type:
        return Declined("shape or type differs")
    rewriter.replace(match.root, value)
    return None


# -- arithmetic with a neutral element ---------------------------------------------------------------------------------
def _is_uniform(number: float) -> Any:
    return constant(where=lambda c: uniform_value(c) == number)


def drop_neutral(match: Match, rewriter: Rewriter) -> object:
    """x + 0, x - 0, x * 1, x / 1, x ** 1."""
    return _replace_by(match, rewriter, match.x)


_NEUTRAL = [
    Rule(pattern("math.add", "math.sub", a=anything("x"), b=_is_uniform(0)), drop_neutral),
    Rule(pattern("math.mul", "math.div", "math.pow", a=anything("x"), b=_is_uniform(1)), drop_neutral),
]


# -- ops that do nothing -----------------------------------------------------------------------------------------------
def _same_pixels(op: Op) -> bool:
    """A resize whose every sampling point is a pixel: same size, a coordinate rule that then gives x back."""
    a: Any = op
    return (
        a.mode in ("nearest", "linear")
        and a.coordinate_mode in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
        and all(s == 1.0 for s in a.scales)
        and a.x.type.shape == a.sizes
    )


def _reduces_nothing(op: Op) -> bool:
    a: Any = op
    return a.keepdims and all(a.x.type.shape[i] == 1 for i in a.reduced_axes)


def _one_pixel_window(op: Op) -> bool:
    a: Any = op
    extra = getattr(a, "extra_pads", (0, 0))
    return a.kernel == (1, 1) and a.strides == (1, 1) and not any(a.pads) and not any(extra)


_DOES_NOTHING: dict[str, Any] = {
    "tensor.reshape": lambda op: True,
    "tensor.broadcast_to": lambda op: True,
    "tensor.tile": lambda op: all(r == 1 for r in op.repeats),
    "tensor.transpose": lambda op: op.perm == tuple(range(len(op.perm))),
    "tensor.slice": lambda op: not any(op.starts) and all(s == 1 for s in op.strides),
    "tensor.pad": lambda op: not any(op.pads),
    "tensor.concat": lambda op: len(op.xs) == 1,
    "math.cast": lambda op: True,
    "math.clip": lambda op: op.low == -math.inf and op.high == math.inf,
    "nn.max_pool2d": _one_pixel_window,
    "nn.avg_pool2d": _one_pixel_window,
    "nn.resize": _same_pixels,
    "reduce.sum": _reduces_nothing,
    "reduce.mean": _reduces_nothing,
    "reduce.max": _reduces_nothing,
    "reduce.min": _reduces_nothing,
    "reduce.prod": _reduces_nothing,
}
"""Op → when it gives its first operand back, provided that the types are equal."""


def _gives_operand_back(op: Op) -> bool:
    operand = op.operands[0] if op.operands else None
    return operand is not None and operand.type == op.result.type and bool(_DOES_NOTHING[op.op_name](op))


def drop_identity(match: Match, rewriter: Rewriter) -> object:
    """An op that does nothing."""
    return _replace_by(match, rewriter, match.root.inputs[0])


# -- idempotent and bounded functions ----------------------------------------------------------------------------------
_IDEMPOTENT = ("nn.relu", "math.abs", "math.floor", "math.ceil", "math.round", "math.sign")


def drop_repetition(match: Match, rewriter: Rewriter) -> object:
    """f(f(x)) where f(f(x)) = f(x)."""
    return _replace_by(match, rewriter, match.inner.result)


def merge_clips(match: Match, rewriter: Rewriter) -> object:
    """clip(clip(x)): one clip, when the two ranges overlap."""
    inner, outer = match.inner, match.root
    low, high = max(inner.low, outer.low), min(inner.high, outer.high)
    if low > high:
        return Declined("ranges do not overlap")
    new = rewriter.create(Clip, inner.x, low=low, high=high)
    rewriter.replace(outer, new.result)
    return None


def clip_of_relu(match: Match, rewriter: Rewriter) -> object:
    """clip(relu(x), low <= 0, high): clip(x, 0, high)."""
    new = rewriter.create(Clip, match.inner.x, low=max(match.root.low, 0.0), high=match.root.high)
    rewriter.replace(match.root, new.result)
    return None


def relu_of_clip(match: Match, rewriter: Rewriter) -> object:
    """relu(clip(x, low, high > 0)): clip(x, max(low, 0), high)."""
    inner = match.inner
    new = rewriter.create(Clip, inner.x, low=max(inner.low, 0.0), high=inner.high)
    rewriter.replace(match.root, new.result)
    return None


def square(match: Match, rewriter: Rewriter) -> object:
    """x ** 2: x * x."""
    x = match.root.a
    if x.type != match.root.result.type:
        return Declined("shape or type differs")
    rewriter.replace(match.root, rewriter.create(Mul, x, x).result)
    return None


def clip_to_relu(match: Match, rewriter: Rewriter) -> object:
    """clip(x, 0, inf) of a float: relu(x)."""
    new = rewriter.create(Relu, match.root.x)
    rewriter.replace(match.root, new.result)
    return None


def extremum_to_clip(match: Match, rewriter: Rewriter) -> object:
    """maximum(x, number) and minimum(x, number) of floats: clip."""
    op, x = match.root, match.x
    if x.type != op.result.type:
        return Declined("shape or type differs")
    number = float(uniform_value(match.bound))
    if math.isnan(number):
        return Declined("bound is NaN")
    bound: dict[str, Any] = {"low": number} if op.op_name == "math.maximum" else {"high": number}
    rewriter.replace(op, rewriter.create(Clip, x, **bound).result)
    return None


def drop_double_negation(match: Match, rewriter: Rewriter) -> object:
    """-(-x)."""
    return _replace_by(match, rewriter, match.inner.x)


def _is_float_relu(op: Any) -> bool:
    return op.low == 0.0 and op.high == math.inf and op.x.type.dtype.is_float


_BOUNDS = [
    *(Rule(pattern(f, x=shared(pattern(f, bind="inner"))), drop_repetition) for f in _IDEMPOTENT),
    Rule(pattern("math.clip", x=pattern("math.clip", bind="inner")), merge_clips),
    Rule(pattern("math.clip", x=pattern("nn.relu", bind="inner"), where=lambda op: op.high > 0), clip_of_relu),
    Rule(pattern("nn.relu", x=pattern("math.clip", bind="inner", where=lambda op: op.high > 0)), relu_of_clip),
    Rule(pattern("math.clip", where=_is_float_relu), clip_to_relu),
    Rule(
        pattern(
            "math.maximum", "math.minimum", a=anything("x", where=lambda v: v.type.dtype.is_float),
            b=constant("bound", where=lambda c: uniform_value(c) is not None),
        ),
        extremum_to_clip,
    ),
    Rule(pattern("math.pow", b=_is_uniform(2)), square),
    Rule(pattern("math.neg", x=shared(pattern("math.neg", bind="inner"))), drop_double_negation),
]  # fmt: skip


# -- plainer words for the same ----------------------------------------------------------------------------------------
def reduction_to_reshape(match: Match, rewriter: Rewriter) -> object:
    """A sum, mean or extremum over axes of one element that removes them: a reshape."""
    op = match.root
    new = rewriter.create(Reshape, op.operands[0], shape=op.result.type.static_shape)
    rewriter.replace(op, new.result)
    return None


def _removes_unit_axes(op: Any) -> bool:
    return not op.keepdims and all(op.x.type.shape[i] == 1 for i in op.reduced_axes) and op.result.type.is_static


IDENTITIES = [
    Rule(pattern(*_DOES_NOTHING, where=_gives_operand_back), drop_identity),
    *_NEUTRAL,
    *_BOUNDS,
    Rule(
        pattern("reduce.sum", "reduce.mean", "reduce.max", "reduce.min", "reduce.prod", where=_removes_unit_axes),
        reduction_to_reshape,
    ),
]
