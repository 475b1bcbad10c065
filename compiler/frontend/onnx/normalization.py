"""Converters of normalisations and of layers that do nothing at inference."""

from __future__ import annotations

import numpy as np

from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.registry import converter
from compiler.frontend.records import Unsupported
from compiler.ir.core import Op, Value
from compiler.ops import math, normalization, reduce, tensor

INFERENCE = "export the network for inference (model.eval(), training=TrainingMode.EVAL)"


@converter("BatchNormalization")
def batch_norm(n: Node) -> Value:
    if n.attribute("training_mode", 0):
        raise Unsupported("is in training mode", INFERENCE)
    if n.opset < 9 and not n.attribute("spatial", 1):
        raise Unsupported("normalises every pixel by its own statistics (spatial = 0)", INFERENCE)
    n.ignore("momentum", "is_test")  # before opset 7 exporters leave is_test as it was
    scale, bias, mean, var = (n.input(i) for i in range(1, 5))
    return n.emit(
        normalization.BatchNorm, n.input(0), scale, bias, mean, var, epsilon=n.attribute("epsilon", 1e-5),
    )  # fmt: skip


@converter("InstanceNormalization")
def instance_norm(n: Node) -> Value:
    return n.emit(
        normalization.InstanceNorm, n.input(0), n.input(1), n.input(2), epsilon=n.attribute("epsilon", 1e-5)
    )


@converter("LayerNormalization")
def layer_norm(n: Node) -> list[Value | None]:
    n.ignore("stash_type")
    x, axis, epsilon = n.input(0), n.attribute("axis", -1), n.attribute("epsilon", 1e-5)
    y = n.emit(normalization.LayerNorm, x, n.optional(1), n.optional(2), axis=axis, epsilon=epsilon)
    if not (n.has_output(1) or n.has_output(2)):
        return [y]
    axes = tuple(range(axis % x.type.rank, x.type.rank))
    mean = n.emit(reduce.Mean, x, axes=axes)
    centred = n.emit(math.Sub, x, mean)
    variance = n.emit(reduce.Mean, n.emit(math.Mul, centred, centred), axes=axes)
    deviation = n.emit(math.Rsqrt, n.emit(math.Add, variance, n.scalar_like(epsilon, x)))
    return [y, mean, deviation]


@converter("RMSNormalization")
def rms_norm(n: Node) -> Value:
    n.ignore("stash_type")
    return n.emit(
        normalization.RmsNorm, n.input(0), n.optional(1), axis=n.attribute("axis", -1),
        epsilon=n.attribute("epsilon", 1e-5),
    )  # fmt: skip


@converter("GroupNormalization", since=21)
def group_norm(n: Node) -> Value:
    n.ignore("stash_type")
    return n.emit(
        normalization.GroupNorm, n.input(0), n.input(1), n.input(2), groups=n.required("num_groups"),
        epsilon=n.attribute("epsilon", 1e-5),
    )  # fmt: skip


@converter("LRN")
def lrn(n: Node) -> Value:
    return n.emit(
        normalization.Lrn, n.input(0), size=n.required("size"), alpha=n.attribute("alpha", 1e-4),
        beta=n.attribute("beta", 0.75), bias=n.attribute("bias", 1.0),
    )  # fmt: skip


@converter("LpNormalization")
def lp_normalization(n: Node) -> Value:
    return divided_by_norm(n, n.input(0), reduce.L1 if n.attribute("p", 2) == 1 else reduce.L2, n.attribute("axis", -1))


def divided_by_norm(n: Node, x: Value, reduction: type[Op], axis: int) -> Value:
    """x by its norm along an axis; zeros where that is zero."""
    norm = n.emit(reduction, x, axes=(axis,))
    zero = n.emit(math.Equal, norm, n.scalar_like(0.0, norm))
    return n.emit(math.Div, x, n.emit(math.Where, zero, n.scalar_like(1.0, norm), norm))


@converter("Dropout")
def dropout(n: Node) -> list[Value | None]:
    """Nothing at inference. The mask output is all true."""
    n.ignore("ratio", "seed", "is_test", 1)
    training = n.known(2)
    if n.optional(2) is not None and (training is None or training.item()):
        raise Unsupported("is in training mode", INFERENCE)
    x = n.input(0)
    if not n.has_output(1):
        return [x, None]
    return [x, n.emit(tensor.BroadcastTo, n.constant(np.ones((), bool)), shape=x.type.static_shape)]
