"""Compiled loops for what NumPy does badly: depthwise convolution, pooling, im2col and erf.

Row-wise inner loops, so that the compiler vectorises them; windows are clipped to the image, so that no padded copy
is made. Strides 1 and 2 are constants in loops of their own for the same reason. Arrays must be C-contiguous. The
results are those of the neutral ops, which do not promise bits: sums may be fused and are taken in tap order.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_fast = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})


@_fast
def _first(pad: int, offset: int, stride: int) -> int:
    """The first window whose element at `offset` is inside the image."""
    return max(0, (pad - offset + stride - 1) // stride)


@_fast
def _beyond(size: int, pad: int, offset: int, stride: int, count: int) -> int:
    """One past the last window whose element at `offset` is inside an image of `size` elements."""
    return max(0, min(count, (size - 1 + pad - offset) // stride + 1))


@_fast
def _multiply_row(target: np.ndarray, source: np.ndarray, weight: float, stride: int) -> None:
    if stride == 1:
        for i in range(target.size):
            target[i] += source[i] * weight
    elif stride == 2:
        for i in range(target.size):
            target[i] += source[2 * i] * weight
    else:
        for i in range(target.size):
            target[i] += source[stride * i] * weight


@_fast
def depthwise_nchw(x, w, y, strides, pads, dilations):
    """y += depthwise convolution of x [n, c, h, w] with w [co, kh, kw]; channel o of y reads channel o // (co / c) of
    x."""
    n, c, height, width = x.shape
    co, kh, kw = w.shape
    oh, ow = y.shape[2], y.shape[3]
    multiplier = co // c
    for image in range(n):
        for o in range(co):
            plane = x[image, o // multiplier]
            for oy in range(oh):
                target = y[image, o, oy]
                for ky in range(kh):
                    iy = oy * strides[0] + ky * dilations[0] - pads[0]
                    if iy < 0 or iy >= height:
                        continue
                    for kx in range(kw):
                        offset = kx * dilations[1]
                        first = _first(pads[1], offset, strides[1])
                        beyond = _beyond(width, pads[1], offset, strides[1], ow)
                        if first < beyond:
                            start = first * strides[1] + offset - pads[1]
                            _multiply_row(target[first:beyond], plane[iy, start:], w[o, ky, kx], strides[1])


@_fast
def depthwise_nhwc(x, w, y, strides, pads, dilations):
    """y += depthwise convolution of x [n, h, w, c] with w [kh, kw, c]."""
    n, height, width, c = x.shape
    kh, kw = w.shape[0], w.shape[1]
    oh, ow = y.shape[1], y.shape[2]
    for image in range(n):
        for oy in range(oh):
            for ox in range(ow):
                target = y[image, oy, ox]
                for ky in range(kh):
                    iy = oy * strides[0] + ky * dilations[0] - pads[0]
                    if iy < 0 or iy >= height:
                        continue
                    for kx in range(kw):
                        ix = ox * strides[1] + kx * dilations[1] - pads[1]
                        if 0 <= ix < width:
                            source = x[image, iy, ix]
                            weights = w[ky, kx]
                            for i in range(c):
                                target[i] += source[i] * weights[i]


@_fast
def _maximum_row(target: np.ndarray, source: np.ndarray, stride: int) -> None:
    for i in range(target.size):
        value = source[stride * i]
        if not value <= target[i]:  # takes NaN as well
            target[i] = value


@_fast
def _maximum_dense_row(target: np.ndarray, source: np.ndarray) -> None:
    for i in range(target.size):
        value = source[i]
        if not value <= target[i]:
            target[i] = value


@_fast
def max_pool_nchw(x, y, kernel, strides, pads, dilations):
    """y = max(y, windows of x [planes, h, w]); NaN stays once taken, because nothing compares with it."""
    planes, height, width = x.shape
    oh, ow = y.shape[1], y.shape[2]
    for plane in range(planes):
        for oy in range(oh):
            target = y[plane, oy]
            for ky in range(kernel[0]):
                iy = oy * strides[0] + ky * dilations[0] - pads[0]
                if iy < 0 or iy >= height:
                    continue
                for kx in range(kernel[1]):
                    offset = kx * dilations[1]
                    first = _first(pads[1], offset, strides[1])
                    beyond = _beyond(width, pads[1], offset, strides[1], ow)
                    if first < beyond:
                        start = first * strides[1] + offset - pads[1]
                        if strides[1] == 1:
                            _maximum_dense_row(target[first:beyond], x[plane, iy, start:])
                        else:
                            _maximum_row(target[first:beyond], x[plane, iy, start:], strides[1])


@_fast
def max_pool_nhwc(x, y, kernel, strides, pads, dilations):
    """y = max(y, windows of x [n, h, w, c])."""
    n, height, width, _ = x.shape
    oh, ow = y.shape[1], y.shape[2]
    for image in range(n):
        for oy in range(oh):
            for ox in range(ow):
                for ky in range(kernel[0]):
                    iy = oy * strides[0] + ky * dilations[0] - pads[0]
                    if iy < 0 or iy >= height:
                        continue
                    for kx in range(kernel[1]):
                        ix = ox * strides[1] + kx * dilations[1] - pads[1]
                        if 0 <= ix < width:
                            _maximum_dense_row(y[image, oy, ox], x[image, iy, ix])


@_fast
def sum_pool_nchw(x, y, kernel, strides, pads, dilations):
    """y += sums of windows of x [planes, h, w]; padding adds nothing."""
    planes, height, width = x.shape
    oh, ow = y.shape[1], y.shape[2]
    one = x.dtype.type(1)
    for plane in range(planes):
        for oy in range(oh):
            for ky in range(kernel[0]):
                iy = oy * strides[0] + ky * dilations[0] - pads[0]
                if iy < 0 or iy >= height:
                    continue
                for kx in range(kernel[1]):
                    offset = kx * dilations[1]
                    first = _first(pads[1], offset, strides[1])
                    beyond = _beyond(width, pads[1], offset, strides[1], ow)
                    if first < beyond:
                        start = first * strides[1] + offset - pads[1]
                        _multiply_row(y[plane, oy, first:beyond], x[plane, iy, start:], one, strides[1])


@_fast
def sum_pool_nhwc(x, y, kernel, strides, pads, dilations):
    """y += sums of windows of x [n, h, w, c]."""
    n, height, width, c = x.shape
    oh, ow = y.shape[1], y.shape[2]
    for image in range(n):
        for oy in range(oh):
            for ox in range(ow):
                target = y[image, oy, ox]
                for ky in range(kernel[0]):
                    iy = oy * strides[0] + ky * dilations[0] - pads[0]
                    if iy < 0 or iy >= height:
                        continue
                    for kx in range(kernel[1]):
                        ix = ox * strides[1] + kx * dilations[1] - pads[1]
                        if 0 <= ix < width:
                            source = x[image, iy, ix]
                            for i in range(c):
                                target[i] += source[i]


@_fast
def im2col_nchw(x, columns, first_row, kernel, strides, pads, dilations, ow):
    """columns [c, kh, kw, rows * ow] = the windows of image x [c, h, w] for `rows` output rows from `first_row` on."""
    c, height, width = x.shape
    rows = columns.shape[3] // ow
    for channel in range(c):
        for ky in range(kernel[0]):
            for kx in range(kernel[1]):
                offset = kx * dilations[1]
                first = _first(pads[1], offset, strides[1])
                beyond = max(first, _beyond(width, pads[1], offset, strides[1], ow))
                start = first * strides[1] + offset - pads[1]
                for row in range(rows):
                    target = columns[channel, ky, kx, row * ow : (row + 1) * ow]
                    iy = (first_row + row) * strides[0] + ky * dilations[0] - pads[0]
                    if iy < 0 or iy >= height or first >= ow:
                        target[:] = 0
                        continue
                    target[:first] = 0
                    target[beyond:] = 0
                    source = x[channel, iy, start:]
                    if strides[1] == 1:
                        for i in range(beyond - first):
                            target[first + i] = source[i]
                    else:
                        for i in range(beyond - first):
                            target[first + i] = source[strides[1] * i]


@_fast
def im2col_nhwc(x, columns, first_row, kernel, strides, pads, dilations, ow):
    """columns [rows * ow, kh, kw, c] = the windows of image x [h, w, c] for output rows from `first_row` on."""
    height, width, c = x.shape
    for index in range(columns.shape[0]):
        oy = first_row + index // ow
        ox = index % ow
        for ky in range(kernel[0]):
            iy = oy * strides[0] + ky * dilations[0] - pads[0]
            for kx in range(kernel[1]):
                ix = ox * strides[1] + kx * dilations[1] - pads[1]
                target = columns[index, ky, kx]
                if iy < 0 or iy >= height or ix < 0 or ix >= width:
                    target[:] = 0
                else:
                    source = x[iy, ix]
                    for i in range(c):
                        target[i] = source[i]


@njit(cache=True, nogil=True)
def _erf(x, y):
    for i in range(x.size):
        y[i] = math.erf(x[i])


def erf(x: np.ndarray) -> np.ndarray:
    """The error function of every element, computed in f64 and rounded."""
    flat = np.ascontiguousarray(x).reshape(-1)
    y = np.empty_like(flat)
    _erf(flat.astype(np.float64), y)
    return y.reshape(x.shape)
