"""Evaluator of `nn.resize`: separable, one axis after the other, each as picked neighbours and weights.

Coordinates and coefficients are computed in f64 and follow the definition of ONNX Resize-19; those that are rounded to
the nearest element are computed in f32, as factors are stored: 3 / 0.6 is 5 there, and what frameworks take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.evaluate.registry import evaluator
from compiler.ops.nn import Resize

Array = np.ndarray


def half_pixel_symmetric(i: Array, scale: float, size: int, count: int) -> Array:
    """Half pixels about the centre of the image, whatever was lost when count was rounded from size * scale."""
    adjustment = count / (size * scale)
    return size / 2 * (1 - adjustment) + (i + 0.5) / scale - 0.5


COORDINATES: dict[str, Callable[[Array, float, int, int], Array]] = {
    "half_pixel": lambda i, scale, size, count: (i + 0.5) / scale - 0.5,
    "half_pixel_symmetric": half_pixel_symmetric,
    "pytorch_half_pixel": lambda i, scale, size, count: (i + 0.5) / scale - 0.5 if count > 1 else i * 0.0,
    "tf_half_pixel_for_nn": lambda i, scale, size, count: (i + 0.5) / scale,
    "align_corners": lambda i, scale, size, count: i * (size - 1) / (count - 1) if count > 1 else i * 0.0,
    "asymmetric": lambda i, scale, size, count: i / scale,
}
"""Coordinate mode → source coordinate of output index i, for factor `scale`, `size` input and `count` output
elements."""

NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5), "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor, "ceil": np.ceil,
}  # fmt: skip


def triangle(distance: Array, a: float) -> Array:
    return np.maximum(1 - distance, 0)


def cubic(distance: Array, a: float) -> Array:
    """Keys' kernel: a is its slope at distance 1."""
    d = distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


KERNELS: dict[str, tuple[Callable[[Array, float], Array], int]] = {"linear": (triangle, 1), "cubic": (cubic, 2)}
"""Mode → kernel as a function of distance, and its radius."""


def source_coordinates(op: Resize, axis: int, size: int) -> Array:
    kind: type[np.floating] = np.float32 if op.mode == "nearest" else np.float64
    count = op.sizes[axis]
    scale: Any = kind(op.scales[axis]) if op.scales else kind(count) / kind(size)
    return COORDINATES[op.coordinate_mode](np.arange(count, dtype=kind), scale, size, count)


def neighbours(op: Resize, axis: int, size: int) -> tuple[Array, Array]:
    """Indices [count, taps], clipped to the axis, and weights of the source elements of every output element."""
    kernel, radius = KERNELS[op.mode]
    x = source_coordinates(op, axis, size)
    scale = op.scales[axis] if op.scales else op.sizes[axis] / size
    shrink = min(scale, 1.0) if op.antialias else 1.0
    reach = int(np.ceil(radius / shrink))
    places = np.floor(x).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
    weights = kernel(np.abs(x[:, None] - places) * shrink, op.cubic_a)
    if op.exclude_outside:
        weights = np.where((places >= 0) & (places < size), weights, 0)
    if op.exclude_outside or op.antialias:
        weights = weights / weights.sum(axis=1, keepdims=True)
    return np.clip(places, 0, size - 1), weights


def resample(x: Array, axis: int, places: Array, weights: Array) -> Array:
    """Weighted sum of picked slices along one axis."""
    shape = [1] * x.ndim
    shape[axis] = -1
    total = np.take(x, places[:, 0], axis=axis) * weights[:, 0].astype(x.dtype).reshape(shape)
    for tap in range(1, places.shape[1]):
        total += np.take(x, places[:, tap], axis=axis) * weights[:, tap].astype(x.dtype).reshape(shape)
    return total


@evaluator("nn.resize", folds=lambda op: op.attributes.get("mode", "nearest") == "nearest", widens=True)
def resize(op: Resize, x: Array) -> Array:
    """Axes whose size and factor do not change are left alone."""
    for axis, size in enumerate(x.shape):
        if op.sizes[axis] == size and (not op.scales or op.scales[axis] == 1.0):
            continue
        if op.mode == "nearest":
            places = NEAREST[op.nearest_mode](source_coordinates(op, axis, size))
            x = np.take(x, np.clip(places, 0, size - 1).astype(np.int64), axis=axis)
        else:
            x = resample(x, axis, *neighbours(op, axis, size))
    return x
