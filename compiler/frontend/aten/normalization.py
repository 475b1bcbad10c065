"""Rows of normalisations, in their inference form."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.moving import transpose
from compiler.frontend.aten.passing import INFERENCE
from compiler.frontend.aten.registry import aten
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Value
from compiler.ir.types import DType
from compiler.ops import math, normalization, reduce


def _vector(c: Call, value: Any, size: int, fill: float) -> Value:
    """A parameter per channel; absent ones are all `fill`."""
    return c.constant(np.full(size, fill, np.float32)) if value is None else c.cast(c.tensor(value), DType.F32)


# -- by stored statistics ----------------------------------------------------------------------------------------------
def batch_norm_of(c: Call, x: Value, weight: Any, bias: Any, mean: Any, var: Any, eps: Any) -> Value:
    if mean is None or var is None:
        return by_batch(c, x, weight, bias, eps)
    channels = x.type.static_shape[1]
    scale, shift = _vector(c, weight, channels, 1.0), _vector(c, bias, channels, 0.0)
    return c.emit(normalization.BatchNorm, x, scale, shift, c.tensor(mean), c.tensor(var), epsilon=float(eps))


def by_batch(c: Call, x: Value, weight: Any, bias: Any, eps: Any) -> Value:
    """Statistics of the batch itself, for layers that keep none: an instance norm of one image as long as the batch."""
    n, channels, *rest = x.type.static_shape
    scale, shift = _vector(c, weight, channels, 1.0), _vector(c, bias, channels, 0.0)
    if n == 1 and rest:
        return c.emit(normalization.InstanceNorm, x, scale, shift, epsilon=float(eps))
    lead = transpose(c, x, 0, 1)
    flat = c.reshape(lead, (1, channels, n * prod(rest)))
    y = c.emit(normalization.InstanceNorm, flat, scale, shift, epsilon=float(eps))
    return transpose(c, c.reshape(y, lead.type.static_shape), 0, 1)


@aten("aten::batch_norm")
def batch_norm(
    c: Call, input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: Any,
    momentum: Any, eps: Any, cudnn_enabled: Any = False,
) -> Any:  # fmt: skip
    if training and running_mean is not None:
        raise Unsupported("is in training mode", INFERENCE)
    return batch_norm_of(c, c.tensor(input), weight, bias, running_mean, running_var, eps)


@aten("aten::native_batch_norm", "aten::_batch_norm_impl_index", "aten::cudnn_batch_norm")
def native_batch_norm(
    c: Call, input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: Any,
    momentum: Any, eps: Any, *rest: Any,
) -> Any:  # fmt: skip
    return batch_norm(c, input, weight, bias, running_mean, running_var, training, momentum, eps), None, None


@aten("aten::_native_batch_norm_legit_no_training", "aten::_batch_norm_no_update")
def batch_norm_no_training(
    c: Call, input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, momentum: Any, eps: Any
) -> Any:
    return batch_norm_of(c, c.tensor(input), weight, bias, running_mean, running_var, eps), None, None


# -- by the data's own statistics --------------------------------------------------------------------------------------
def _layer_norm(c: Call, op_class: type, x: Value, shape: Any, weight: Any, bias: Any, eps: Any) -> Value:
    sizes = c.integers(shape, "the normalised shape")
    if x.type.static_shape[x.type.rank - len(sizes) :] != sizes:
        raise Malformed(f"the last axes of {list(x.type.static_shape)} are not {list(sizes)}")
    return c.emit(op_class, x, weight, bias, axis=x.type.rank - len(sizes), epsilon=float(eps))


@aten("aten::layer_norm")
def layer_norm(c: Call, input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: Any = 1e-5,
               cudnn_enable: Any = False) -> Any:  # fmt: skip
    return _layer_norm(c, normalization.LayerNorm, c.tensor(input), normalized_shape, weight, bias, eps)


@aten("aten::native_layer_norm")
def native_layer_norm(c: Call, input: Any, normalized_shape: Any, weight: Any, bias: Any, eps: Any) -> Any:
    return layer_norm(c, input, normalized_shape, weight, bias, eps), None, None


@aten("aten::rms_norm", "aten::_fused_rms_norm")
def rms_norm(c: Call, input: Any, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Any:
    epsilon = float(np.finfo(np.float32).eps) if eps is None else eps
    y = _layer_norm(c, normalization.RmsNorm, c.tensor(input), normalized_shape, weight, None, epsilon)
    return (y, None) if c.base == "_fused_rms_norm" else y


@aten("aten::group_norm")
def group_norm(c: Call, input: Any, num_groups: Any, weight: Any = None, bias: Any = None, eps: Any = 1e-5,
               cudnn_enabled: Any = False) -> Any:  # fmt: skip
    x = c.tensor(input)
    channels = x.type.static_shape[1]
    scale, shift = _vector(c, weight, channels, 1.0), _vector(c, bias, channels, 0.0)
    groups = c.integer(num_groups, "the number of groups")
    return c.emit(normalization.GroupNorm, x, scale, shift, groups=groups, epsilon=float(eps))


@aten("aten::native_group_norm")
def native_group_norm(c: Call, input: Any, weight: Any, bias: Any, N: Any, C: Any, HxW: Any, group: Any,
                      eps: Any) -> Any:  # fmt: skip
    return group_norm(c, input, group, weight, bias, eps), None, None


@aten("aten::instance_norm")
def instance_norm(
    c: Call, input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, use_input_stats: Any,
    momentum: Any, eps: Any, cudnn_enabled: Any = False,
) -> Any:  # fmt: skip
    x = c.tensor(input)
    if not use_input_stats:
        return batch_norm_of(c, x, weight, bias, running_mean, running_var, eps)
    channels = x.type.static_shape[1]
    scale, shift = _vector(c, weight, channels, 1.0), _vector(c, bias, channels, 0.0)
    return c.emit(normalization.InstanceNorm, x, scale, shift, epsilon=float(eps))


@aten("aten::_native_batch_norm_legit")
def batch_norm_legit(c: Call, input: Any, weight: Any, bias: Any, *rest: Any) -> Any:
    """Without stored statistics, which is also what instance norm is decomposed into."""
    if c.overload != "no_stats":
        raise Unsupported("is in training mode", INFERENCE)
    return by_batch(c, c.tensor(input), weight, bias, rest[2]), None, None


# -- of weights --------------------------------------------------------------------------------------------------------
@aten("aten::_weight_norm", "aten::_weight_norm_interface")
def weight_norm(c: Call, v: Any, g: Any, dim: Any = 0) -> Any:
    """g * v / |v|, the norm over all axes but `dim` (-1: over all). Known weights are normalised at import, in exact
    steps.
    """
    axes = tuple(i for i in range(len(c.shape(v))) if i != dim)
    squares = c.emit(reduce.Sum, c.emit(math.Mul, v, v), axes=axes)
    y = c.emit(math.Mul, v, c.emit(math.Div, g, c.emit(math.Sqrt, squares)))
    return (y, None) if c.base.endswith("interface") else y


@aten("aten::local_response_norm")
def local_response_norm(c: Call, input: Any, size: Any, alpha: Any = 1e-4, beta: Any = 0.75, k: Any = 1.0) -> Any:
    window = c.integer(size, "the size")
    return c.emit(normalization.Lrn, input, size=window, alpha=float(alpha), beta=float(beta), bias=float(k))


@aten("aten::cosine_similarity")
def cosine_similarity(c: Call, x1: Any, x2: Any, dim: Any = 1, eps: Any = 1e-8) -> Any:
    shape = np.broadcast_shapes(c.shape(x1), c.shape(x2))
    axis = (c.axis(dim, len(shape)),)
    dots = c.emit(reduce.Sum, c.emit(math.Mul, x1, x2), axes=axis, keepdims=False)
    lengths = [_length(c, x, axis, eps) for x in (x1, x2)]
    return c.emit(math.Div, dots, c.emit(math.Mul, *lengths))


def _length(c: Call, x: Value, axes: tuple[int, ...], least: float) -> Value:
    y = c.emit(math.Sqrt, c.emit(reduce.Sum, c.emit(math.Mul, x, x), axes=axes, keepdims=False))
    return c.emit(math.Clip, y, low=float(least))


