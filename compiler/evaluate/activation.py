"""Evaluators of the activations: NumPy expressions that avoid overflow where a naive one would give NaN."""

from __future__ import annotations

import numpy as np

from compiler.evaluate.registry import evaluator
from compiler.ops import activation as ops


@evaluator("nn.relu", folds=True, widens=True)
def relu(op: ops.Relu, x: np.ndarray) -> np.ndarray:
    from compiler.evaluate import kernels

    quant = op.x.type.quant
    if quant is not None:
        return np.maximum(x, x.dtype.type(quant.zero_point))
    return kernels.relu(x)


@evaluator("nn.leaky_relu", folds=True, widens=True)
def leaky_relu(op: ops.LeakyRelu, x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, x, x * x.dtype.type(op.alpha))


@evaluator("nn.prelu", folds=True, widens=True)
def prelu(op: ops.PRelu, x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, x, x * slope)


@evaluator("nn.thresholded_relu", folds=True, widens=True)
def thresholded_relu(op: ops.ThresholdedRelu, x: np.ndarray) -> np.ndarray:
    return np.where(x > x.dtype.type(op.alpha), x, x.dtype.type(0))


@evaluator("nn.elu", widens=True)
def elu(op: ops.Elu, x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, x, x.dtype.type(op.alpha) * np.expm1(x))


@evaluator("nn.selu", widens=True)
def selu(op: ops.Selu, x: np.ndarray) -> np.ndarray:
    kind = x.dtype.type
    return kind(op.gamma) * np.where(x > 0, x, kind(op.alpha) * np.expm1(x))


@evaluator("nn.celu", widens=True)
def celu(op: ops.Celu, x: np.ndarray) -> np.ndarray:
    alpha = x.dtype.type(op.alpha)
    return np.maximum(x, 0) + np.minimum(alpha * np.expm1(x / alpha), 0)


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) in one buffer; exp(-x) = inf gives 0."""
    y = np.negative(x)
    np.exp(y, out=y)
    y += 1
    return np.reciprocal(y, out=y)


@evaluator("nn.sigmoid", widens=True)
def sigmoid(op: ops.Sigmoid, x: np.ndarray) -> np.ndarray:
    return logistic(np.atleast_1d(x)).reshape(x.shape)


@evaluator("nn.silu", widens=True)
def silu(op: ops.Silu, x: np.ndarray) -> np.ndarray:
    return x * logistic(np.atleast_1d(x)).reshape(x.shape)


@evaluator("nn.hard_sigmoid", folds=True, widens=True)
def hard_sigmoid(op: ops.HardSigmoid, x: np.ndarray) -> np.ndarray:
    from compiler.evaluate import kernels

    kind = x.dtype.type
    return kernels.clip(x * kind(op.alpha) + kind(op.beta), 0.0, 1.0)


@evaluator("nn.hard_swish", folds=True, widens=True)
def hard_swish(op: ops.HardSwish, x: np.ndarray) -> np.ndarray:
    from compiler.evaluate import kernels

    kind = x.dtype.type
    return x * kernels.clip(x / kind(6) + kind(0.5), 0.0, 1.0)


@evaluator("nn.gelu", widens=True)
def gelu(op: ops.Gelu, x: np.ndarray) -> np.ndarray:
    kind = x.dtype.type
    if op.approximate == "tanh":
        inner = kind(np.sqrt(2 / np.pi)) * (x + kind(0.044715) * x * x * x)
        return kind(0.5) * x * (1 + np.tanh(inner))
    from compiler.evaluate import kernels

    return kind(0.5) * x * (1 + kernels.erf(x * kind(np.sqrt(0.5))))


def log1p_exp(x: np.ndarray) -> np.ndarray:
    """log(1 + exp(x)) as max(x, 0) + log1p(exp(-|x|)), which cannot overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


@evaluator("nn.softplus", widens=True)
def softplus(op: ops.Softplus, x: np.ndarray) -> np.ndarray:
    return log1p_exp(x)


@evaluator("nn.softsign", folds=True, widens=True)
def softsign(op: ops.Softsign, x: np.ndarray) -> np.ndarray:
    return x / (1 + np.abs(x))


@evaluator("nn.mish", widens=True)
def mish(op: ops.Mish, x: np.ndarray) -> np.ndarray:
    return x * np.tanh(log1p_exp(x))


@evaluator("nn.softmax", widens=True)
def softmax(op: ops.Softmax, x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - np.max(x, axis=op.axis, keepdims=True, initial=-np.inf))
    return powers / np.sum(powers, axis=op.axis, keepdims=True)


@evaluator("nn.log_softmax", widens=True)
def log_softmax(op: ops.LogSoftmax, x: np.ndarray) -> np.ndarray:
    below = x - np.max(x, axis=op.axis, keepdims=True, initial=-np.inf)
    return below - np.log(np.sum(np.exp(below), axis=op.axis, keepdims=True))
