"""Convolution on arrays: 1x1 as one matrix product, depthwise by a compiled loop, all else by im2col and BLAS.

The functions take plain arrays of one float type and know no ops; `nn` calls them for reals, and for integers that
are held in floats wide enough to be exact (`exact_float`). im2col works on strips of output rows, so its memory is
bounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STRIP_BYTES = 2 << 20
"""Size of an im2col strip: about what a core's second-level cache holds, measured best on MobileNetV2 and ResNet-20."""


@dataclass(frozen=True)
class Window:
    """How a kernel slides. pads: top, left, bottom, right."""

    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]

    def count(self, side: int, size: int, kernel: int) -> int:
        """Windows along the rows (side 0) or columns (side 1) of an image."""
        padded = size + self.pads[side] + self.pads[side + 2]
        return (padded - (kernel - 1) * self.dilations[side] - 1) // self.strides[side] + 1

    def spread(self, side: int, size: int, kernel: int) -> int:
        """Extent of the image whose windows these would be: what a transposed convolution gives."""
        full = (size - 1) * self.strides[side] + (kernel - 1) * self.dilations[side] + 1
        return full - self.pads[side] - self.pads[side + 2]


def exact_float(largest: float) -> np.dtype:
    """The narrowest float type in which sums of integers, all partial sums at most `largest`, are exact in any
    order."""
    if largest <= 2.0**24:
        return np.dtype(np.float32)
    if largest <= 2.0**53:
        return np.dtype(np.float64)
    raise ValueError(f"integer sums up to {largest:g} are not exact in f64")


def convolve(
    x: np.ndarray, w: np.ndarray, window: Window, groups: int, layout: str, shape: tuple[int, ...]
) -> np.ndarray:
    """Cross-correlation of x with w, both in `layout`; `shape` is the result's."""
    if groups > 1 and groups == (x.shape[1] if layout == "NCHW" else x.shape[3]):
        return _depthwise(x, w, window, layout, shape)
    if layout == "NCHW":
        return _convolve_nchw(x, w, window, groups, shape)
    return _convolve_nhwc(x, w, window, groups, shape)


def _depthwise(x: np.ndarray, w: np.ndarray, window: Window, layout: str, shape: tuple[int, ...]) -> np.ndarray:
    from compiler.evaluate import kernels

    y = np.empty(shape, x.dtype)
    pads = window.pads[:2]
    if layout == "NCHW":
        taps = np.ascontiguousarray(w[:, 0])
        kernels.depthwise_nchw(np.ascontiguousarray(x), taps, y, window.strides, pads, window.dilations)
        return y
    multiplier = shape[3] // x.shape[3]
    source = np.repeat(x, multiplier, axis=3) if multiplier > 1 else np.ascontiguousarray(x)
    taps = np.ascontiguousarray(w[..., 0].transpose(1, 2, 0))
    kernels.depthwise_nhwc(source, taps, y, window.strides, pads, window.dilations)
    return y


def _strided_pixels(x: np.ndarray, window: Window, layout: str) -> np.ndarray:
    """The pixels an unpadded 1x1 kernel sees, dense."""
    sy, sx = window.strides
    seen = x[:, :, ::sy, ::sx] if layout == "NCHW" else x[:, ::sy, ::sx]
    return np.ascontiguousarray(seen)


def _convolve_nchw(x: np.ndarray, w: np.ndarray, window: Window, groups: int, shape: tuple[int, ...]) -> np.ndarray:
    n, co, oh, ow = shape
    inner, kernel = w.shape[1], w.shape[2:]
    matrices = np.ascontiguousarray(w).reshape(groups, co // groups, -1)
    if kernel == (1, 1) and window.pads == (0, 0, 0, 0):
        pixels = _strided_pixels(x, window, "NCHW").reshape(n, groups, inner, oh * ow)
        return np.matmul(matrices, pixels).reshape(shape)
    y = np.empty((n, groups, co // groups, oh * ow), x.dtype)
    source = np.ascontiguousarray(x).reshape(n, groups, inner, *x.shape[2:])
    from compiler.evaluate import kernels

    for rows, columns in _strips(matrices.shape[2], oh, ow, x.dtype):
        view = columns.reshape(inner, *kernel, -1)
        flat = columns.reshape(matrices.shape[2], -1)
        part = slice(rows.start * ow, rows.stop * ow)
        for image in range(n):
            for group in range(groups):
                kernels.im2col_nchw(
                    source[image, group],
                    view,
                    rows.start,
                    kernel,
                    window.strides,
                    window.pads[:2],
                    window.dilations,
                    ow,
                )
                np.matmul(matrices[group], flat, out=y[image, group, :, part])
    return y.reshape(shape)


def _convolve_nhwc(x: np.ndarray, w: np.ndarray, window: Window, groups: int, shape: tuple[int, ...]) -> np.ndarray:
    n, oh, ow, co = shape
    kernel, inner = w.shape[1:3], w.shape[3]
    matrices = np.ascontiguousarray(w).reshape(groups, co // groups, -1).transpose(0, 2, 1)
    if groups == 1 and kernel == (1, 1) and window.pads == (0, 0, 0, 0):
        return np.matmul(_strided_pixels(x, window, "NHWC").reshape(-1, inner), matrices[0]).reshape(shape)
    y = np.empty((n, oh * ow, groups, co // groups), x.dtype)
    source = np.ascontiguousarray(x)
    from compiler.evaluate import kernels

    for rows, columns in _strips(matrices.shape[1], oh, ow, x.dtype):
        view = columns.reshape(-1, *kernel, inner)
        flat = columns.reshape(-1, matrices.shape[1])
        part = slice(rows.start * ow, rows.stop * ow)
        for image in range(n):
            for group in range(groups):
                channels = source[image, :, :, group * inner : (group + 1) * inner]
                kernels.im2col_nhwc(
                    np.ascontiguousarray(channels), view, rows.start, kernel, window.strides, window.pads[:2],
                    window.dilations, ow,
                )  # fmt: skip
                y[image, part, group] = np.matmul(flat, matrices[group])
    return y.reshape(shape)


def _strips(depth: int, oh: int, ow: int, dtype: np.dtype) -> list[tuple[slice, np.ndarray]]:
    """Ranges of output rows, each with a flat buffer for its columns; strips of equal height share one."""
    height = max(1, min(oh, STRIP_BYTES // max(1, depth * ow * dtype.itemsize)))
    buffer = np.empty(depth * height * ow, dtype)
    return [
        (slice(top, min(top + height, oh)), buffer[: depth * (min(top + height, oh) - top) * ow])
        for top in range(0, oh, height)
    ]


def convolve_transposed(
    x: np.ndarray, w: np.ndarray, window: Window, groups: int, shape: tuple[int, ...]
) -> np.ndarray:
    """Transposed convolution, NCHW: every pixel of x adds a scaled kernel to y. `shape` is the result's."""
    n, ci, h, width = x.shape
    _, co, kh, kw = w.shape
    (sy, sx), (dy, dx), (top, left, _, _) = window.strides, window.dilations, window.pads
    matrices = w.reshape(groups, ci // groups, -1).transpose(0, 2, 1)
    products = np.matmul(matrices, np.ascontiguousarray(x).reshape(n, groups, ci // groups, h * width))
    taps = products.reshape(n, groups * co, kh, kw, h, width)
    full = np.zeros(
        (n, groups * co, _reach(h, sy, kh, dy, top, shape[2]), _reach(width, sx, kw, dx, left, shape[3])), x.dtype
    )
    for ky in range(kh):
        for kx in range(kw):
            rows = slice(ky * dy, ky * dy + (h - 1) * sy + 1, sy)
            columns = slice(kx * dx, kx * dx + (width - 1) * sx + 1, sx)
            full[:, :, rows, columns] += taps[:, :, ky, kx]
    return full[:, :, top : top + shape[2], left : left + shape[3]]


def _reach(size: int, stride: int, kernel: int, dilation: int, before: int, wanted: int) -> int:
    """Extent that holds every addend and, after `before` elements, the wanted result (output_pads may exceed the
    addends)."""
    return max((size - 1) * stride + (kernel - 1) * dilation + 1, before + wanted)
