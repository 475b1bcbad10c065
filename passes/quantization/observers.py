"""What calibration remembers of a tensor, and how a range is chosen from it.

An observer sees a tensor once per image and keeps a fixed amount of memory: the largest magnitude, or also a histogram
of magnitudes whose range doubles in powers of two. Doubling merges pairs of bins exactly, so the histogram does not
depend on the order of the images. A method turns an observer into the magnitude at which the tensor is clipped. Only
magnitudes are kept: the chip's quantisation is symmetric (docs/mlu220.md 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

BINS = 8192
"""Bins of a histogram: at least 32 per step of an i8 type that uses the whole range."""


class RangeObserver:
    """The largest magnitude of a tensor, and whether anything not finite was seen."""

    def __init__(self) -> None:
        self.absmax = 0.0
        self.count = 0
        self.not_finite = 0

    def observe(self, array: np.ndarray) -> None:
        """Take one more array into account."""
        if array.size == 0:
            return
        self.count += array.size
        largest = max(float(array.max()), -float(array.min()))
        if not math.isfinite(largest):
            finite = np.isfinite(array)
            self.not_finite += int(array.size - finite.sum())
            largest = float(np.abs(array[finite]).max(initial=0.0))
        self.absmax = max(self.absmax, largest)


class HistogramObserver(RangeObserver):
    """A range and a histogram of the magnitudes: bin i counts magnitudes in [i, i + 1) * range / BINS; zeros are left
    out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.range = 0.0
        self.bins = np.zeros(BINS, np.int64)

    def observe(self, array: np.ndarray) -> None:
        super().observe(array)
        if self.absmax == 0.0 or self.not_finite:
            return
        self._grow()
        magnitudes = np.abs(array.reshape(-1).astype(np.float32, copy=False))
        indices = (magnitudes * np.float32(BINS / self.range)).astype(np.int32)
        counts = np.bincount(indices, minlength=BINS)
        counts[0] -= array.size - np.count_nonzero(array)
        self.bins += counts

    def _grow(self) -> None:
        """Double the range until it is above the largest magnitude, merging bins in pairs."""
        wanted = math.ldexp(1.0, max(math.frexp(self.absmax)[1], -100))
        if self.range == 0.0:
            self.range = wanted
        while self.range < wanted:
            merged = self.bins.reshape(-1, 2).sum(axis=1)
            self.bins = np.concatenate([merged, np.zeros(BINS - len(merged), np.int64)])
            self.range *= 2.0

    @property
    def centres(self) -> np.ndarray:
        """The magnitude in the middle of each bin."""
        return (np.arange(BINS) + 0.5) * (self.range / BINS)


def minmax(observer: RangeObserver, qmax: int) -> float:
    """The whole range: nothing is clipped."""
    return observer.absmax


def percentile(fraction: float) -> Callable[[HistogramObserver, int], float]:
    """The method that clips all but `fraction` of the elements, zeros not counted."""

    def clip(observer: HistogramObserver, qmax: int) -> float:
        reached = np.cumsum(observer.bins)
        index = int(np.searchsorted(reached, fraction * reached[-1]))
        return min((index + 1) * observer.range / BINS, observer.absmax)

    return clip


def mse(observer: HistogramObserver, qmax: int) -> float:
    """The clipping with the smallest expected squared error of quantising to integers in [-qmax, qmax]."""
    return _best_clip(observer, qmax, 2.0)


def power24(observer: HistogramObserver, qmax: int) -> float:
    """As `mse`, with the error to the power 2.4: rare large magnitudes, which carry decisions, count for more."""
    return _best_clip(observer, qmax, 2.4)


def _best_clip(observer: HistogramObserver, qmax: int, power: float) -> float:
    used = np.flatnonzero(observer.bins)
    counts, centres = observer.bins[used].astype(np.float64), observer.centres[used]
    best, best_error = observer.absmax, math.inf
    for fraction in np.linspace(1.0, 0.1, 91):
        clip = observer.absmax * float(fraction)
        step = clip / qmax
        rounded = np.minimum(np.rint(centres / step), qmax) * step
        loss = float(np.dot(counts, np.abs(centres - rounded) ** power))
        if loss < best_error:
            best, best_error = clip, loss
    return best


class Method(NamedTuple):
    """How a range is chosen: the observer that is needed, the rule (observer, qmax) → clipping magnitude, and what that
    does."""

    observer: type[RangeObserver]
    clip: Callable[..., float]
    summary: str


METHODS = {
    "minmax": Method(RangeObserver, minmax, "the whole range that was seen, nothing is clipped"),
    "percentile": Method(HistogramObserver, percentile(0.9999), "clips the largest 0.01 % of the magnitudes"),
    "percentile-99.9": Method(HistogramObserver, percentile(0.999), "clips the largest 0.1 %"),
    "percentile-99.999": Method(HistogramObserver, percentile(0.99999), "clips the largest 0.001 %"),
    "mse": Method(HistogramObserver, mse, "the range with the least mean squared error"),
    "l2.4": Method(HistogramObserver, power24, "as mse, of errors to the power of 2.4: large ones count more"),
}
"""Calibration methods by name; `auto` is a choice among some of them (`trials`)."""
