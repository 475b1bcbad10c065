"""Rounding weights so that their errors cancel.

Rounding each weight to the nearest integer leaves every output channel with a sum of errors that acts as a bias,
because the inputs of most layers have a mean. Balanced rounding flips the least certain roundings (the errors nearest
to a half) so that errors sum to at most half a step, first over each kernel (one output and one input channel), then
over each output channel. No data are needed. After SQuant (Guo et al., ICLR 2022).
"""

from __future__ import annotations

import numpy as np

_GRAIN = 2.0**20
"""Errors are kept to this part of a step, so that their sums are exact and the same on every machine."""


def balanced(units: np.ndarray, axis: int, qmax: int) -> np.ndarray:
    """Integers near `units` (weights in steps), as float64, in [-qmax, qmax]; output channels lie along `axis`.

    Every integer is one of the two neighbours of its weight. Of the other axes the first counts as input channels, the
    rest as the kernel: quantisation runs before weights are laid out channels last.
    """
    moved = np.moveaxis(units, axis, 0).astype(np.float64)
    kernels = moved.reshape(moved.shape[0], moved.shape[1] if moved.ndim > 1 else 1, -1)
    rounded = np.clip(np.rint(kernels), -qmax, qmax)
    error = np.rint((rounded - kernels) * _GRAIN) / _GRAIN
    _flip(rounded, error, _uncertain(error))
    _flip(rounded, error, _one_per_kernel(error))
    whole = np.clip(rounded, -qmax, qmax).reshape(moved.shape)
    return np.moveaxis(whole, 0, axis)


def _flip(rounded: np.ndarray, error: np.ndarray, chosen: np.ndarray) -> None:
    """Round the chosen elements the other way, in place."""
    change = np.where(chosen, np.sign(error), 0.0)
    rounded -= change
    error -= change


def _largest(values: np.ndarray, count: np.ndarray) -> np.ndarray:
    """A mask of the `count` largest along the last axis; of equals the first."""
    if values.shape[-1] == 1:
        return np.broadcast_to(count > 0, values.shape)
    order = np.argsort(-values, axis=-1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(values.shape[-1]), values.shape), axis=-1)
    return rank < count


def _uncertain(error: np.ndarray) -> np.ndarray:
    """In each kernel, as many elements as its sum of errors is off by, those with the largest errors of that sign."""
    total = error.sum(axis=-1, keepdims=True)
    towards = np.sign(total) * error
    return _largest(towards, np.abs(np.rint(total))) & (towards > 0.0)


def _one_per_kernel(error: np.ndarray) -> np.ndarray:
    """In each output channel, one element of as many kernels as its sum is off by: the kernels that are off most."""
    sums = error.sum(axis=-1)
    total = sums.sum(axis=-1, keepdims=True)
    sign = np.sign(total)
    kernels = _largest(sign * sums, np.abs(np.rint(total)))
    towards = sign[..., None] * error
    return kernels[..., None] & _largest(towards, np.ones((1, 1, 1))) & (towards > 0.0)
