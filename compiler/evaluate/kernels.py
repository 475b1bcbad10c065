"""Compiled loops for what NumPy does badly: depthwise convolution, pooling, im2col and erf.

Row-wise inner loops, so that the compiler vectorises them; windows are clipped to the image, so that no padded copy
is made. Strides 1 and 2 are constants in loops of their own for the same reason. Arrays must be C-contiguous. The
results are those of the neutral ops, which do not promise bits: sums may be fused and are taken in tap order.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from compiler.code_cache import ensure_code_cache

ensure_code_cache()

BLOCK = 2048
"""Elements a dense loop takes at a time: with the sources of four taps they stay in the first-level cache."""

_fast = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})


@_fast
def _first(pad, offset, stride):
    """The first window whose element at `offset` is inside the image."""
    return max(0, (pad - offset + stride - 1) // stride)


@_fast
def _beyond(size, pad, offset, stride, count):
    """One past the last window whose element at `offset` is inside an image of `size` elements."""
    return max(0, min(count, (size - 1 + pad - offset) // stride + 1))


# -- planes ----------------------------------------------------------------------------------------------------------
# A padded plane is stored as stride x stride phases, phase (p, q) holding rows p, p + stride, … and columns likewise,
# all with one pitch. Then the element under tap (ky, kx) of window (oy, ox) lies at a fixed distance from oy * pitch
# + ox for all windows: one long dense loop per tap, whatever the stride, over the whole plane, the gaps between rows
# included.


@_fast
def _phase_shape(oh, ow, kernel, strides, dilations):
    """Rows and columns of a phase that hold every element some window reads."""
    rows = oh + (kernel[0] - 1) * dilations[0] // strides[0]
    columns = ow + (kernel[1] - 1) * dilations[1] // strides[1]
    return rows, columns


@_fast
def _copy_strided(target, source, stride):
    """target[i] = source[i * stride]; unsigned indices spare the test for negative ones, which would forbid vector
    code."""
    if stride == 1:
        for i in range(target.size):
            target[i] = source[i]
    elif stride == 2:
        for i in range(target.size):
            target[i] = source[np.uint64(2 * i)]
    else:
        for i in range(target.size):
            target[i] = source[np.uint64(stride * i)]


@_fast
def _split_pairs(even, odd, source):
    """even[i] = source[2 i], odd[i] = source[2 i + 1], as far as all three reach; one pass, twice as fast as two."""
    both = min(even.size, odd.size, source.size // 2)
    for i in range(np.uint64(both)):
        j = np.uint64(i) * np.uint64(2)
        even[np.uint64(i)] = source[j]
        odd[np.uint64(i)] = source[j + np.uint64(1)]
    for i in range(both, min(even.size, (source.size + 1) // 2)):
        even[i] = source[2 * i]
    for i in range(both, min(odd.size, source.size // 2)):
        odd[i] = source[2 * i + 1]


@_fast
def _fill_phases(plane, phases, strides, pads):
    """Spread an image over its phases [stride, stride, rows, columns]; elements of the border are left as they are."""
    height, width = plane.shape
    _, _, rows, columns = phases.shape
    for p in range(strides[0]):
        for i in range(_first(pads[0], p, strides[0]), _beyond(height, pads[0], p, strides[0], rows)):
            source = plane[i * strides[0] + p - pads[0]]
            if strides[1] == 2:
                even, odd = phases[p, pads[1] % 2, i], phases[p, (pads[1] + 1) % 2, i]
                _split_pairs(even[pads[1] // 2 :], odd[(pads[1] + 1) // 2 :], source)
                continue
            for q in range(strides[1]):
                first = _first(pads[1], q, strides[1])
                beyond = _beyond(width, pads[1], q, strides[1], columns)
                if first < beyond:
                    start = first * strides[1] + q - pads[1]
                    _copy_strided(phases[p, q, i, first:beyond], source[start:], strides[1])


@_fast
def _tap_offsets(kernel, strides, dilations, rows, columns):
    """Distance of each tap's elements from the start of the phases."""
    offsets = np.empty(kernel[0] * kernel[1], np.int64)
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            y, x = ky * dilations[0], kx * dilations[1]
            phase = (y % strides[0]) * strides[1] + x % strides[1]
            offsets[ky * kernel[1] + kx] = (phase * rows + y // strides[0]) * columns + x // strides[1]
    return offsets


@_fast
def _weighted_sum(source, offsets, weights, total):
    """total[i] = sum over taps of source[i + offset] * weight; four taps at a time, in blocks that stay in the
    cache."""
    for start in range(0, total.size, BLOCK):
        part = total[start : start + BLOCK]
        part[:] = 0
        tap = 0
        while tap + 4 <= offsets.size:
            a, b = source[start + offsets[tap] :], source[start + offsets[tap + 1] :]
            c, d = source[start + offsets[tap + 2] :], source[start + offsets[tap + 3] :]
            wa, wb, wc, wd = weights[tap], weights[tap + 1], weights[tap + 2], weights[tap + 3]
            for i in range(part.size):
                part[i] += a[i] * wa + b[i] * wb + c[i] * wc + d[i] * wd
            tap += 4
        while tap < offsets.size:
            a, wa = source[start + offsets[tap] :], weights[tap]
            for i in range(part.size):
                part[i] += a[i] * wa
            tap += 1


@_fast
def _maximum(source, offsets, total):
    """total[i] = maximum over taps of source[i + offset]; NaN wins, also once taken."""
    for start in range(0, total.size, BLOCK):
        part = total[start : start + BLOCK]
        first = source[start + offsets[0] :]
        for i in range(part.size):
            part[i] = first[i]
        for tap in range(1, offsets.size):
            other = source[start + offsets[tap] :]
            for i in range(part.size):
                value = other[i]
                part[i] = value if value > part[i] or value != value else part[i]


@_fast
def _take_windows(total, columns, y):
    """The windows' values out of the dense loop's rows."""
    oh, ow = y.shape
    for oy in range(oh):
        row = total[oy * columns :]
        for ox in range(ow):
            y[oy, ox] = row[ox]


@_fast
def depthwise_nchw(x, w, y, strides, pads, dilations):
    """y = depthwise convolution of x [n, c, h, w] with w [co, kh, kw]; channel o of y reads channel o // (co / c) of
    x."""
    n, c = x.shape[:2]
    co, kh, kw = w.shape
    oh, ow = y.shape[2:]
    multiplier = co // c
    rows, columns = _phase_shape(oh, ow, (kh, kw), strides, dilations)
    offsets = _tap_offsets((kh, kw), strides, dilations, rows, columns)
    size = strides[0] * strides[1] * rows * columns
    source = np.zeros(size + columns, x.dtype)
    phases = source[:size].reshape((strides[0], strides[1], rows, columns))
    total = np.empty(oh * columns, x.dtype)
    for image in range(n):
        for channel in range(c):
            _fill_phases(x[image, channel], phases, strides, pads)
            for o in range(channel * multiplier, (channel + 1) * multiplier):
                _weighted_sum(source, offsets, w[o].reshape(kh * kw), total)
                _take_windows(total, columns, y[image, o])


@_fast
def sum_pool_nchw(x, y, kernel, strides, pads, dilations):
    """y = sums of windows of x [planes, h, w]; padding adds nothing."""
    oh, ow = y.shape[1:]
    rows, columns = _phase_shape(oh, ow, kernel, strides, dilations)
    offsets = _tap_offsets(kernel, strides, dilations, rows, columns)
    size = strides[0] * strides[1] * rows * columns
    source = np.zeros(size + columns, x.dtype)
    phases = source[:size].reshape((strides[0], strides[1], rows, columns))
    total = np.empty(oh * columns, x.dtype)
    ones = np.ones(offsets.size, x.dtype)
    for plane in range(x.shape[0]):
        _fill_phases(x[plane], phases, strides, pads)
        _weighted_sum(source, offsets, ones, total)
        _take_windows(total, columns, y[plane])


@_fast
def max_pool_nchw(x, y, kernel, strides, pads, dilations, lowest):
    """y = maxima of windows of x [planes, h, w]; padding is `lowest`."""
    oh, ow = y.shape[1:]
    rows, columns = _phase_shape(oh, ow, kernel, strides, dilations)
    offsets = _tap_offsets(kernel, strides, dilations, rows, columns)
    size = strides[0] * strides[1] * rows * columns
    source = np.full(size + columns, lowest, x.dtype)
    phases = source[:size].reshape((strides[0], strides[1], rows, columns))
    total = np.empty(oh * columns, x.dtype)
    for plane in range(x.shape[0]):
        _fill_phases(x[plane], phases, strides, pads)
        _maximum(source, offsets, total)
        _take_windows(total, columns, y[plane])


# -- pixels ----------------------------------------------------------------------------------------------------------
@_fast
def _taps_inside(start, dilation, size, kernel):
    """The range of taps of a window at `start` that lie inside `size` elements."""
    first = 0 if start >= 0 else (-start + dilation - 1) // dilation
    beyond = 0 if start >= size else (size - 1 - start) // dilation + 1
    return first, min(kernel, beyond)


@_fast
def _multiply_pixels(target, source, weights, first, beyond, start, dilation):
    """target += pixels of one row times their taps' weights, three taps at a time."""
    c = target.size
    kx = first
    while kx + 3 <= beyond:
        x = start + kx * dilation
        a, b, d = source[x], source[x + dilation], source[x + 2 * dilation]
        wa, wb, wd = weights[kx], weights[kx + 1], weights[kx + 2]
        for i in range(c):
            target[i] += a[i] * wa[i] + b[i] * wb[i] + d[i] * wd[i]
        kx += 3
    while kx < beyond:
        a, wa = source[start + kx * dilation], weights[kx]
        for i in range(c):
            target[i] += a[i] * wa[i]
        kx += 1


@_fast
def depthwise_nhwc(x, w, y, strides, pads, dilations):
    """y = depthwise convolution of x [n, h, w, c] with w [kh, kw, c]."""
    n, height, width = x.shape[:3]
    kh, kw = w.shape[0], w.shape[1]
    oh, ow = y.shape[1], y.shape[2]
    for image in range(n):
        for oy in range(oh):
            top = oy * strides[0] - pads[0]
            ky_first, ky_beyond = _taps_inside(top, dilations[0], height, kh)
            for ox in range(ow):
                left = ox * strides[1] - pads[1]
                first, beyond = _taps_inside(left, dilations[1], width, kw)
                target = y[image, oy, ox]
                target[:] = 0
                for ky in range(ky_first, ky_beyond):
                    source = x[image, top + ky * dilations[0]]
                    _multiply_pixels(target, source, w[ky], first, beyond, left, dilations[1])


@_fast
def _maximum_pixel(target, source):
    for i in range(target.size):
        value = source[i]
        target[i] = value if value > target[i] or value != value else target[i]


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
                            _maximum_pixel(y[image, oy, ox], x[image, iy, ix])


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
                    _copy_strided(target[first:beyond], x[channel, iy, start:], strides[1])


@_fast
def im2col_nhwc(x, columns, first_row, kernel, strides, pads, dilations, ow):
    """columns [rows * ow, kh, kw, c] = the windows of image x [h, w, c] for output rows from `first_row` on."""
    height, width, c = x.shape
    for index in range(columns.shape[0]):
        top = (first_row + index // ow) * strides[0] - pads[0]
        left = (index % ow) * strides[1] - pads[1]
        first, beyond = _taps_inside(left, dilations[1], width, kernel[1])
        for ky in range(kernel[0]):
            iy = top + ky * dilations[0]
            target = columns[index, ky].reshape(kernel[1] * c)
            if iy < 0 or iy >= height or first >= beyond:
                target[:] = 0
                continue
            target[: first * c] = 0
            target[beyond * c :] = 0
            row = x[iy].reshape(width * c)
            if dilations[1] == 1:  # the taps of a row are one run
                _copy_strided(target[first * c : beyond * c], row[(left + first) * c :], 1)
            else:
                for kx in range(first, beyond):
                    _copy_strided(target[kx * c : (kx + 1) * c], row[(left + kx * dilations[1]) * c :], 1)


@_fast
def _relu(x, y):
    for i in range(x.size):
        value = x[i]
        y[i] = value if value > 0 or value != value else 0


@_fast
def _clip(x, y, low, high):
    for i in range(x.size):
        value = x[i]
        value = low if value < low else value
        y[i] = high if value > high else value


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, +0), NaN kept. NumPy's maximum is several times slower and may give -0."""
    x = np.asarray(x, order="C")
    y = np.empty_like(x)
    _relu(x.reshape(-1), y.reshape(-1))
    return y


def clip(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """min(max(x, low), high), NaN kept."""
    x = np.asarray(x, order="C")
    y = np.empty_like(x)
    _clip(x.reshape(-1), y.reshape(-1), x.dtype.type(low), x.dtype.type(high))
    return y


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
