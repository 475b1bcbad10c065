"""Converters of Fourier transforms."""

from __future__ import annotations

import numpy as np

from compiler.frontend.common.emitter import normal_axis, reshape
from compiler.frontend.onnx import reader
from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.registry import converter
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Value
from compiler.ir.types import DType
from compiler.ops import math, tensor


def _dft(n: Node, axis: int) -> Value:
    x = n.input(0)
    axis = normal_axis(axis, x.type.rank)
    inverse, onesided = bool(n.attribute("inverse", 0)), bool(n.attribute("onesided", 0))
    found = x.type.static_shape[axis]
    length = 2 * (found - 1) if inverse and onesided else found
    if n.optional(1) is not None:
        length = int(n.array(1, "the length").item())
    return n.emit(math.Dft, x, axis=axis, length=length, inverse=inverse, onesided=onesided)


@converter("DFT", since=17)
def dft_by_attribute(n: Node) -> Value:
    return _dft(n, n.attribute("axis", 1))


@converter("DFT", since=20)
def dft(n: Node) -> Value:
    return _dft(n, -2 if n.optional(2) is None else int(n.array(2, "the axis").item()))


@converter("STFT", since=17)
def stft(n: Node) -> Value:
    """Frames picked by known places, times the window, each transformed."""
    x, step = n.input(0), int(n.array(1, "the frame step").item())
    window = n.optional(2)
    samples = x.type.static_shape[1]
    if n.optional(3) is not None:
        length = int(n.array(3, "the frame length").item())
    else:
        length = samples if window is None else window.type.static_shape[0]
    if step < 1 or not 1 <= length <= samples:
        raise Malformed(f"frames of {length} samples, {step} apart, of a signal of {samples}")
    count = 1 + (samples - length) // step
    n.room_for(count * length, "places")
    places = np.arange(count)[:, None] * step + np.arange(length)
    frames = n.emit(tensor.Gather, x, n.constant(places, DType.I64), axis=1)
    if window is not None:
        frames = n.emit(math.Mul, frames, reshape(n, window, (1, 1, length, 1)))
    return n.emit(math.Dft, frames, axis=2, length=length, onesided=bool(n.attribute("onesided", 1)))


@converter("MelWeightMatrix", since=17)
def mel_weight_matrix(n: Node) -> Value:
    """Triangles over a spectrum's bins, evenly spaced on the mel scale: known at import."""
    bins, length, rate = (int(n.array(i, what).item()) for i, what in enumerate(("bins", "the length", "the rate")))
    low, high = float(n.array(3, "the lower edge").item()), float(n.array(4, "the upper edge").item())
    dtype = reader.dtype_of(n.attribute("output_datatype", 1))
    if dtype is None or not 0 < bins <= length or rate < 1:
        raise Unsupported(f"makes {bins} bins of a spectrum of {length} at {rate} Hz", "export the matrix as a weight")
    n.room_for(bins * (length // 2 + 1), "a matrix")
    mels = 2595 * np.log10(1 + np.array([low, high]) / 700)
    edges = mels[0] + np.arange(bins + 2) * ((mels[1] - mels[0]) / (bins + 2))
    corners = np.floor((length + 1) * 700 * (10 ** (edges / 2595) - 1) / rate).astype(np.int64)
    left, centre, right = (corners[i : bins + i] for i in range(3))
    place = np.arange(length // 2 + 1)[:, None]
    rising = np.divide(place - left, centre - left, out=np.ones((len(place), bins)), where=centre > left)
    falling = np.divide(right - place, right - centre, out=np.zeros((len(place), bins)), where=right > centre)
    matrix = np.where((place >= left) & (place <= centre), rising, 0.0)
    matrix = np.where((place >= centre) & (place < right), falling, matrix)
    return n.constant(matrix, reader.widened(dtype))
