"""Evaluators of the normalisations. Means and variances are taken in two passes, in the operand's own float type."""

from __future__ import annotations

import numpy as np

from compiler.evaluate.registry import evaluator
from compiler.ops import normalization as ops


def _vector(values: np.ndarray, like: np.ndarray, axis: int) -> np.ndarray:
    """A vector in the element type of `like`, shaped to broadcast along `axis`."""
    shape = [1] * like.ndim
    shape[axis] = -1
    return values.astype(like.dtype, copy=False).reshape(shape)


def _normalized(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    """(x - mean) / sqrt(var + epsilon) over `axes`."""
    centred = x - np.mean(x, axis=axes, keepdims=True, dtype=x.dtype)
    variance = np.mean(centred * centred, axis=axes, keepdims=True, dtype=x.dtype)
    return centred / np.sqrt(variance + x.dtype.type(epsilon))


@evaluator("nn.batch_norm", widens=True)
def batch_norm(
    op: ops.BatchNorm, x: np.ndarray, scale: np.ndarray, bias: np.ndarray, mean: np.ndarray, var: np.ndarray
) -> np.ndarray:
    """Folded into one factor and one addend per channel, as inference engines do."""
    factor = scale / np.sqrt(var + var.dtype.type(op.epsilon))
    addend = bias - mean * factor
    y = x * _vector(factor, x, op.axis)
    y += _vector(addend, x, op.axis)
    return y


@evaluator("nn.layer_norm", widens=True)
def layer_norm(op: ops.LayerNorm, x: np.ndarray, scale: np.ndarray | None, bias: np.ndarray | None) -> np.ndarray:
    return _affine(_normalized(x, tuple(range(op.axis % x.ndim, x.ndim)), op.epsilon), scale, bias)


@evaluator("nn.rms_norm", widens=True)
def rms_norm(op: ops.RmsNorm, x: np.ndarray, scale: np.ndarray | None, bias: np.ndarray | None) -> np.ndarray:
    axes = tuple(range(op.axis % x.ndim, x.ndim))
    mean_square = np.mean(x * x, axis=axes, keepdims=True, dtype=x.dtype)
    return _affine(x / np.sqrt(mean_square + x.dtype.type(op.epsilon)), scale, bias)


def _affine(y: np.ndarray, scale: np.ndarray | None, bias: np.ndarray | None) -> np.ndarray:
    if scale is not None:
        y = y * scale
    return y if bias is None else y + bias


@evaluator("nn.instance_norm", widens=True)
def instance_norm(op: ops.InstanceNorm, x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    axes = tuple(i for i in range(1, x.ndim) if i != op.axis % x.ndim)
    return _normalized(x, axes, op.epsilon) * _vector(scale, x, op.axis) + _vector(bias, x, op.axis)


@evaluator("nn.group_norm", widens=True)
def group_norm(op: ops.GroupNorm, x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    groups = x.reshape(x.shape[0], op.groups, -1)
    return _normalized(groups, (2,), op.epsilon).reshape(x.shape) * _vector(scale, x, 1) + _vector(bias, x, 1)


@evaluator("nn.lrn", widens=True)
def lrn(op: ops.Lrn, x: np.ndarray) -> np.ndarray:
    """The window reaches (size - 1) // 2 channels down and size // 2 up, clipped at the ends."""
    channels = np.moveaxis(x, op.axis, 0)
    padded = np.zeros((channels.shape[0] + op.size - 1, *channels.shape[1:]), x.dtype)
    before = (op.size - 1) // 2
    padded[before : before + channels.shape[0]] = channels * channels
    total = sum(padded[i : i + channels.shape[0]] for i in range(op.size))
    kind = x.dtype.type
    factor = np.power(
        kind(op.bias) + kind(op.alpha / op.size) * np.moveaxis(np.asarray(total), 0, op.axis), kind(op.beta)
    )
    return x / factor
