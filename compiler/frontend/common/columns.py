"""Images from the blocks that sliding windows cut out of them: the inverse of unfolding, `col2im`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from compiler.frontend.common.emitter import Emitter, reshape, with_height, without_height
from compiler.frontend.common.volumes import conv_transpose3d
from compiler.frontend.common.windows import Window
from compiler.ir.core import Value
from compiler.ops import nn


def summed_columns(e: Emitter, x: Value, window: Window, image: Sequence[int]) -> Value:
    """x [n, c * taps, blocks] as [n, c, *image], blocks added where they overlap: a transposed convolution by one-hot
    weights.
    """
    rank, taps = len(image), prod(window.kernel)
    batch, rows, _ = x.type.static_shape
    channels = rows // taps
    padded = [size + window.before[i] + window.after[i] for i, size in enumerate(image)]
    counts = [(size - window.extent[i]) // window.strides[i] + 1 for i, size in enumerate(padded)]
    extra = tuple(
        size - (counts[i] - 1) * window.strides[i] - window.extent[i] for i, size in enumerate(padded)
    )  # fmt: skip
    columns = reshape(e, x, (batch, rows, *counts))
    ones = np.tile(np.eye(taps, dtype=x.type.dtype.numpy), (channels, 1))
    one_hot = e.constant(ones.reshape(rows, 1, *window.kernel))
    if rank == 3:
        return conv_transpose3d(e, columns, one_hot, None, window, channels, extra)
    y = e.emit(
        nn.ConvTranspose2d, with_height(e, columns), with_height(e, one_hot), groups=channels,
        output_pads=(0, *extra) if rank == 1 else extra, **window.attributes(),
    )  # fmt: skip
    return without_height(e, y, columns)
