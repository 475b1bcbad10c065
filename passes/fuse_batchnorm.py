"""`fuse-batchnorm`: fold batch-norms, scales and shifts per channel into the convolution or matmul that feeds them.

New weights are computed in f64 from correctly rounded operations and rounded once, so they are the same on every
machine. What is not folded here (a norm in front of its convolution, norms of values something else takes) stays as it
is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from compiler.ir.core import Constant, Module, Op
from compiler.ops.math import Add
from compiler.ops.shapes import channel_axis
from compiler.pass_context import Pass, PassContext
from compiler.rewrite import Declined, Match, OpPattern, Rewriter, Rule, anything, constant, pattern

_CONVOLUTION = pattern("nn.conv2d", "nn.conv_transpose2d", bind="producer")
_MATMUL = pattern("nn.matmul", bind="producer", b=constant("weights", where=lambda c: c.type.rank > 1))
_SHIFTED_MATMUL = pattern("math.add", bind="shifted", a=_MATMUL, b=constant("shift"))


def _batch_norm_of(producer: OpPattern) -> OpPattern:
    return pattern(
        "nn.batch_norm", x=producer, scale=anything("scale"), bias=anything("bias"), mean=anything("mean"),
        var=anything("var"),
    )  # fmt: skip


@dataclass(frozen=True)
class _Affine:
    """y = x * scale + shift per output channel, in f64; `bias`: the constant whose name a new bias takes."""

    scale: np.ndarray
    shift: np.ndarray
    bias: Constant | None = None


@dataclass(frozen=True, kw_only=True)
class FuseBatchNorm(Pass):
    """Fold an inference batch-norm, or a scale or shift per channel, into the convolution or matmul that feeds it."""

    name: ClassVar[str] = "fuse-batchnorm"
    max_weight_growth: float = 64.0
    """Leave a scale alone that makes the largest weight larger by more than this factor."""

    def run(self, module: Module, ctx: PassContext) -> None:
        ctx.rewrite(
            module,
            [
                Rule(_batch_norm_of(_CONVOLUTION), self.fold_batchnorm),
                Rule(_batch_norm_of(_MATMUL), self.fold_batchnorm),
                Rule(_batch_norm_of(_SHIFTED_MATMUL), self.fold_batchnorm),
                *self._arithmetic_rules(_CONVOLUTION, ("math.add", "math.sub", "math.mul", "math.div")),
                *self._arithmetic_rules(_MATMUL, ("math.mul", "math.div")),
                *self._arithmetic_rules(_SHIFTED_MATMUL, ("math.add", "math.sub", "math.mul", "math.div")),
            ],
        )
        module.drop_unused_constants()

    def _arithmetic_rules(self, producer: OpPattern, names: tuple[str, ...]) -> list[Rule]:
        wanted = [pattern(name, a=producer, b=constant("factor")) for name in names]
        return [Rule(p, self.fold_scale if p.names[0] in _SCALES else self.fold_shift) for p in wanted]

    def fold_batchnorm(self, match: Match, rewriter: Rewriter) -> object:
        norm: Any = match.root
        vectors = [norm.scale, norm.bias, norm.mean, norm.var]
        if not all(isinstance(v, Constant) for v in vectors):
            return Declined("statistics are not constant")
        channel = _channel_axis(match.producer)
        if norm.axis % norm.x.type.rank != channel:
            return Declined("normalises another axis than the output channel")
        gamma, beta, mean, var = (v.data.astype(np.float64) for v in vectors)
        with np.errstate(all="ignore"):  # a scale that is not finite is declined
            scale = gamma / np.sqrt(var + norm.epsilon)
            shift = beta - mean * scale
        return self._fold(match, rewriter, _Affine(scale, shift, norm.bias))

    def fold_scale(self, match: Match, rewriter: Rewriter) -> object:
        factor = _per_channel(match)
        with np.errstate(divide="ignore"):
            scale = factor if match.root.op_name == "math.mul" else 1.0 / factor
        return self._fold(match, rewriter, _Affine(scale, np.zeros_like(scale)))

    def fold_shift(self, match: Match, rewriter: Rewriter) -> object:
        factor = _per_channel(match)
        shift = factor if match.root.op_name == "math.add" else -factor
        return self._fold(match, rewriter, _Affine(np.ones_like(shift), shift, match.factor))

    def _fold(self, match: Match, rewriter: Rewriter, affine: _Affine) -> object:
        producer = match.producer
        weights = producer.operands[1]
        if not isinstance(weights, Constant):
            return Declined("weights are not constant")
        if weights.type.quant is not None or not weights.type.dtype.is_float:
            return Declined("weights are quantised")
        addend = _addend(match)
        if not (np.isfinite(affine.scale).all() and np.isfinite(affine.shift).all()):
            return Declined("scale is not finite")
        scaled = (weights.data.astype(np.float64) * _along_weights(affine.scale, producer)).astype(weights.data.dtype)
        if np.abs(scaled).max(initial=0.0) > self.max_weight_growth * np.abs(weights.data).max(initial=0.0):
            return Declined("scale too large")
        if not (affine.scale == 1.0).all():
            weights = rewriter.derive(weights, scaled)
        bias = _new_constant(rewriter, addend, affine, weights, f"{match.root.name}.bias")
        fold = _into_matmul if producer.op_name == "nn.matmul" else _into_convolution
        fold(match, rewriter, weights, bias)
        return None


_SCALES = ("math.mul", "math.div")


def _addend(match: Match) -> Constant | None:
    """What is added to the producer's sums already, per channel. Raises Declined where it is anything else."""
    producer = match.producer
    if producer.op_name != "nn.matmul":
        if producer.bias is not None and not isinstance(producer.bias, Constant):
            raise Declined("bias is not constant")
        return producer.bias
    addend: Constant | None = match.bindings.get("shift")
    if addend is not None:
        shape, count = addend.type.static_shape, _channels(producer)
        per_channel = addend.data.size == 1 or (shape[-1] == count and addend.data.size == count)
        if not per_channel or match.shifted.result.type != producer.result.type:
            raise Declined("addend is not per channel")
    return addend


def _into_convolution(match: Match, rewriter: Rewriter, weights: Constant, bias: Constant | None) -> None:
    """The convolution again with new weights and bias in place of what follows it."""
    conv = match.producer
    new = rewriter.create(type(conv), conv.x, weights, bias, **conv.attributes)
    rewriter.replace(match.root, new.result)


def _into_matmul(match: Match, rewriter: Rewriter, weights: Constant, bias: Constant | None) -> None:
    """The matmul again with new weights, then one addition of a constant where there is anything to add."""
    matmul = match.producer
    new = rewriter.create(type(matmul), matmul.a, weights)
    if bias is not None:
        new.result.name = matmul.name if weights is matmul.b else f"{match.root.name}.product"
        new = rewriter.create(Add, new.result, bias)
    rewriter.replace(match.root, new.result)


def _new_constant(
    rewriter: Rewriter, old: Constant | None, affine: _Affine, weights: Constant, name: str
) -> Constant | None:
    """`old * scale + shift` per channel, as a vector; None where there is neither."""
    dtype = weights.data.dtype
    if old is not None:
        before = np.broadcast_to(old.data.astype(np.float64).reshape(-1), affine.scale.shape)
        return rewriter.derive(old, (before * affine.scale + affine.shift).astype(dtype))
    if affine.bias is not None:
        return rewriter.derive(affine.bias, affine.shift.astype(dtype))
    return rewriter.constant(name, affine.shift.astype(dtype)) if affine.shift.any() else None


def _channel_axis(producer: Any) -> int:
    """The axis of the output channels in the producer's result."""
    if producer.op_name == "nn.matmul":
        return producer.result.type.rank - 1
    return channel_axis(producer.layout)


def _channels(producer: Any) -> int:
    return producer.result.type.static_shape[_channel_axis(producer)]


def _per_channel(match: Match) -> np.ndarray:
    """The root's constant as one f64 number per output channel. Raises Declined where it is anything else."""
    producer: Op = match.producer
    result, factor = match.root.result, match.factor
    if result.type != producer.result.type:
        raise Declined("constant makes the result larger")
    count = _channels(producer)
    if factor.data.size == 1:
        return np.full(count, factor.data.astype(np.float64).item())
    padded = (1,) * (result.type.rank - factor.type.rank) + factor.type.static_shape
    axis = _channel_axis(producer)
    if factor.data.size != count or padded[axis] != count:
        raise Declined("constant is not per channel")
    return factor.data.astype(np.float64).reshape(-1)


def _along_weights(scale: np.ndarray, producer: Any) -> np.ndarray:
    """One factor per output channel, shaped to multiply the producer's weights."""
    weights = producer.operands[1].type.static_shape
    if producer.op_name == "nn.matmul":
        return scale  # broadcasts along the last axis, the columns
    if producer.op_name == "nn.conv2d":
        return scale.reshape(-1, 1, 1, 1)
    groups = producer.groups
    per_group = scale.reshape(groups, 1, -1)
    rows = np.repeat(per_group, weights[0] // groups, axis=1).reshape(weights[0], -1)
    return rows[:, :, None, None] if producer.layout == "NCHW" else rows[:, None, None, :]
