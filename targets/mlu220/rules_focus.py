"""A convolution of pixels that were folded into channels, seen as one of the image they were taken from.

Detectors begin with a "focus": the rows and columns of the image, every second one, stacked as channels. The copies
would move runs of a pixel's few bytes; a convolution with a kernel and strides that much larger reads the image itself,
and its integer sums are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.ir.core import Value


@dataclass(frozen=True)
class Folded:
    """An image, the step of its folding, and the first row and column of every stack of channels, in order."""

    image: Value
    step: int
    starts: tuple[tuple[int, int], ...]


def folded(value: Value) -> Folded | None:
    """What an NHWC value is the folding of: a concatenation of strided slices, or a space-to-depth; None if neither."""
    producer: Any = value.producer
    if producer is None:
        return None
    if producer.op_name == "nn.space_to_depth" and producer.layout == "NHWC":
        b = producer.block_size
        return Folded(producer.x, b, tuple((i, j) for i in range(b) for j in range(b)))
    if producer.op_name != "tensor.concat" or producer.axis % value.type.rank != 3:
        return None
    slices: list[Any] = [v.producer for v in producer.inputs]
    if any(s is None or s.op_name != "tensor.slice" or s.x is not slices[0].x for s in slices):
        return None
    image = slices[0].x
    step = slices[0].strides[1]
    n, h, w, c = image.type.static_shape
    if step < 2 or h % step or w % step:
        return None
    for part in slices:
        whole = part.starts[0] == part.starts[3] == 0 and part.sizes == (n, h // step, w // step, c)
        if not whole or part.strides != (1, step, step, 1):
            return None
    starts = tuple((s.starts[1], s.starts[2]) for s in slices)
    return Folded(image, step, starts) if len(set(starts)) == len(starts) == step**2 else None


def unfolded_filters(w: np.ndarray, found: Folded) -> np.ndarray:
    """Filters [co, kh, kw, ci] of a folding as those of its image."""
    co, kh, kw, ci = w.shape
    c = ci // len(found.starts)
    wide = np.zeros((co, kh * found.step, kw * found.step, c), w.dtype)
    for index, (row, column) in enumerate(found.starts):
        wide[:, row :: found.step, column :: found.step] = w[..., index * c : (index + 1) * c]
    return wide


def unfolded(op: Any) -> tuple[Folded, np.ndarray, dict[str, Any]] | None:
    """The image that a convolution of a folding may read, the filters and the window; None if it is none."""
    found = folded(op.x) if op.groups == 1 and tuple(op.dilations) == (1, 1) else None
    if found is None or found.image.type.quant != op.x.type.quant:
        return None
    s = found.step
    window = {"strides": tuple(s * v for v in op.strides), "pads": tuple(s * p for p in op.pads)}
    return found, unfolded_filters(op.w.data, found), window
