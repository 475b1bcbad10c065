"""Evaluators of the `nn.` ops that multiply, pool or rearrange images; the rest of the family is in the modules
imported here.

Integer products are exact: stored integers less their zero points are held in the narrowest float type in which every
partial sum is an integer the type represents, so BLAS in any order gives the same bits. The sum is rounded to f32
once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.evaluate import activation, normalization, recurrent, resize, vision
from compiler.evaluate.convolution import Window, convolve, convolve_transposed, exact_float
from compiler.evaluate.registry import evaluator, steps_of
from compiler.ir.core import Op
from compiler.ir.types import QuantType
from compiler.ops import nn as ops

__all__ = ["activation", "normalization", "recurrent", "resize", "vision"]  # registered there, loaded with this family


def _quantised(op: Op) -> bool:
    """Exact integer products have the same bits everywhere."""
    return op.inputs[0].type.quant is not None


def _pair_of_quants(op: Op) -> tuple[QuantType, QuantType]:
    a, b = op.operands[0], op.operands[1]
    assert a is not None and b is not None and a.type.quant is not None and b.type.quant is not None
    return a.type.quant, b.type.quant


def _centred(x: np.ndarray, zero_point: int) -> np.ndarray:
    """Stored integers less their zero point, in i32 where there is one."""
    return x if zero_point == 0 else x.astype(np.int32) - zero_point


def _largest(x: np.ndarray) -> int:
    return max(abs(int(x.min())), abs(int(x.max()))) if x.size else 0


def _scaled(op: Op, total: np.ndarray, step: np.ndarray | np.float32, bias: np.ndarray | None) -> np.ndarray:
    """Exact sums to f32, times the product of the steps, plus the bias: three fp32 roundings."""
    y = total.astype(np.float32, copy=False) * step
    return y if bias is None else y + bias


def _product_step(op: Op, axis: int | None, rank: int, output_axis: int) -> np.ndarray | np.float32:
    """Step of x times step of the weights, per output channel where the weights have several."""
    x_quant, w_quant = _pair_of_quants(op)
    w_type = op.operands[1].type  # type: ignore[union-attr]
    step = (np.float64(x_quant.real_step) * steps_of(op, w_quant, w_type.rank)).astype(np.float32)
    if w_quant.axis is None:
        return step
    shape = [1] * rank
    shape[output_axis] = -1
    return step.reshape(shape)


def _along(vector: np.ndarray | None, rank: int, axis: int) -> np.ndarray | None:
    """A vector shaped to broadcast along `axis`."""
    if vector is None:
        return None
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)


# -- convolution -----------------------------------------------------------------------------------------------------
def _window(op: Any) -> Window:
    return Window(op.strides, op.pads, op.dilations)


def _image(array: np.ndarray, layout: str) -> tuple[int, int, int, int]:
    """(n, c, h, w) of an image batch, (outer, inner, kh, kw) of weights."""
    a, b, c, d = array.shape
    return (a, b, c, d) if layout == "NCHW" else (a, d, b, c)


def _joined(n: int, c: int, h: int, w: int, layout: str) -> tuple[int, ...]:
    return (n, c, h, w) if layout == "NCHW" else (n, h, w, c)


def _convolved_shape(op: ops.Conv2d, x: np.ndarray, w: np.ndarray) -> tuple[int, ...]:
    """Shape of the result; from the arrays, because declared shapes may have unknown dimensions."""
    n, _, h, width = _image(x, op.layout)
    co, _, kh, kw = _image(w, op.layout)
    window = _window(op)
    return _joined(n, co, window.count(0, h, kh), window.count(1, width, kw), op.layout)


def _exact_operands(op: Op, x: np.ndarray, w: np.ndarray, outer: int) -> tuple[np.ndarray, np.ndarray]:
    """x and weights as floats in which every sum is exact; `outer` is the weights' axis of output channels."""
    x_quant, w_quant = _pair_of_quants(op)
    x, w = _centred(x, x_quant.zero_point), _centred(w, w_quant.zero_point)
    others = tuple(i for i in range(w.ndim) if i != outer)
    heaviest = int(np.abs(w.astype(np.int64)).sum(axis=others).max(initial=0))
    dtype = exact_float(float(heaviest) * _largest(x))
    return x.astype(dtype), w.astype(dtype)


@evaluator("nn.conv2d", folds=_quantised, widens=True)
def conv2d(op: ops.Conv2d, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    shape = _convolved_shape(op, x, w)
    axis = 1 if op.layout == "NCHW" else 3
    bias = _along(bias, 4, axis)
    if op.x.type.quant is None:
        y = convolve(x, w, _window(op), op.groups, op.layout, shape)
        if bias is not None:
            y += bias
        return y
    x, w = _exact_operands(op, x, w, outer=0)
    total = convolve(x, w, _window(op), op.groups, op.layout, shape)
    return _scaled(op, total, _product_step(op, 0, 4, axis), bias)


def _as_nchw(x: np.ndarray, layout: str) -> np.ndarray:
    return x if layout == "NCHW" else x.transpose(0, 3, 1, 2)


@evaluator("nn.conv_transpose2d", folds=_quantised, widens=True)
def conv_transpose2d(op: ops.ConvTranspose2d, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """NHWC goes through NCHW: the op is rare and the additions dominate."""
    (n, _, h, width), (_, inner, kh, kw) = _image(x, op.layout), _image(w, op.layout)
    window = _window(op)
    size = [window.spread(side, s, k) + op.output_pads[side] for side, (s, k) in enumerate(((h, kh), (width, kw)))]
    shape = (n, inner * op.groups, size[0], size[1])
    quantised = op.x.type.quant is not None
    bias = _along(bias, 4, 1)
    if quantised:
        x, w = _exact_operands(op, x, w, outer=1 if op.layout == "NCHW" else 3)
    y = convolve_transposed(_as_nchw(x, op.layout), _as_nchw(w, op.layout), window, op.groups, shape)
    if quantised:
        y = _scaled(op, y, _product_step(op, 1, 4, 1), bias)
    elif bias is not None:
        y = y + bias
    return np.ascontiguousarray(y if op.layout == "NCHW" else y.transpose(0, 2, 3, 1))


@evaluator("nn.matmul", folds=lambda op: not op.inputs[0].type.dtype.is_float, widens=True)
def matmul(op: ops.MatMul, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if op.a.type.quant is None:
        return np.matmul(a, b)
    a_quant, b_quant = _pair_of_quants(op)
    a, b = _centred(a, a_quant.zero_point), _centred(b, b_quant.zero_point)
    dtype = exact_float(float(a.shape[-1]) * _largest(a) * _largest(b))
    total = np.matmul(a.astype(dtype), b.astype(dtype))
    step = (np.float64(a_quant.real_step) * steps_of(op, b_quant, 1 if b_quant.axis is None else b.ndim)).astype(
        np.float32
    )
    return _scaled(op, total, step.reshape(-1) if b_quant.axis is not None else step, None)


# -- pooling ---------------------------------------------------------------------------------------------------------
def _lowest(dtype: np.dtype) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _planes(array: np.ndarray) -> np.ndarray:
    """[n, c, h, w] as [n * c, h, w], sharing memory."""
    return array.reshape(-1, *array.shape[2:])


def _pooled_shape(op: Any, x: np.ndarray, extra: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    n, c, h, w = _image(x, op.layout)
    window = _window(op)
    oh, ow = window.count(0, h + extra[0], op.kernel[0]), window.count(1, w + extra[1], op.kernel[1])
    return _joined(n, c, oh, ow, op.layout)


@evaluator("nn.max_pool2d", folds=True, widens=True)
def max_pool2d(op: ops.MaxPool2d, x: np.ndarray) -> np.ndarray:
    from compiler.evaluate import kernels

    y = np.full(_pooled_shape(op, x), _lowest(x.dtype), x.dtype)
    x = np.ascontiguousarray(x)
    how = (op.kernel, op.strides, op.pads[:2], op.dilations)
    if op.layout == "NCHW":
        kernels.max_pool_nchw(_planes(x), _planes(y), *how, y.dtype.type(_lowest(y.dtype)))
    else:
        kernels.max_pool_nhwc(x, y, *how)
    return y


@evaluator("nn.avg_pool2d", widens=True)
def avg_pool2d(op: ops.AvgPool2d, x: np.ndarray) -> np.ndarray:
    from compiler.evaluate import kernels

    y = np.zeros(_pooled_shape(op, x, op.extra_pads), x.dtype)
    x = np.ascontiguousarray(x)
    how = (op.kernel, op.strides, op.pads[:2], op.dilations)
    if op.layout == "NCHW":
        kernels.sum_pool_nchw(_planes(x), _planes(y), *how)
    else:
        kernels.sum_pool_nhwc(x, y, *how)
    (_, _, h, w), (_, _, oh, ow) = _image(x, op.layout), _image(y, op.layout)
    counts = _counts(op, 0, h, oh)[:, None] * _counts(op, 1, w, ow)
    shaped = counts.astype(y.dtype).reshape((oh, ow) if op.layout == "NCHW" else (oh, ow, 1))
    return np.divide(y, shaped, out=y)


def _counts(op: ops.AvgPool2d, side: int, size: int, windows: int) -> np.ndarray:
    """Elements under each window along one axis that count for the mean, at least one."""
    before, after = op.pads[side], op.pads[side + 2]
    low, high = (-before, size + after) if op.count_include_pad else (0, size)
    starts = np.arange(windows)[:, None] * op.strides[side] - before
    places = starts + np.arange(op.kernel[side]) * op.dilations[side]
    return np.maximum(((places >= low) & (places < high)).sum(axis=1), 1)


def _image_axes(layout: str) -> tuple[int, int]:
    return (2, 3) if layout == "NCHW" else (1, 2)


@evaluator("nn.global_avg_pool", widens=True)
def global_avg_pool(op: ops.GlobalAvgPool, x: np.ndarray) -> np.ndarray:
    return np.mean(x, axis=_image_axes(op.layout), keepdims=True, dtype=x.dtype)


@evaluator("nn.global_max_pool", folds=True, widens=True)
def global_max_pool(op: ops.GlobalMaxPool, x: np.ndarray) -> np.ndarray:
    return np.max(x, axis=_image_axes(op.layout), keepdims=True)


# -- blocks of pixels ------------------------------------------------------------------------------------------------
@evaluator("nn.depth_to_space", folds=True)
def depth_to_space(op: ops.DepthToSpace, x: np.ndarray) -> np.ndarray:
    b = op.block_size
    n, c, h, w = _as_nchw(x, op.layout).shape
    split = (b, b, c // b**2) if op.mode == "DCR" else (c // b**2, b, b)
    if op.layout == "NCHW":
        axes = (0, 3, 4, 1, 5, 2) if op.mode == "DCR" else (0, 1, 4, 2, 5, 3)
        return x.reshape(n, *split, h, w).transpose(axes).reshape(n, c // b**2, h * b, w * b)
    axes = (0, 1, 3, 2, 4, 5) if op.mode == "DCR" else (0, 1, 4, 2, 5, 3)
    return x.reshape(n, h, w, *split).transpose(axes).reshape(n, h * b, w * b, c // b**2)


@evaluator("nn.space_to_depth", folds=True)
def space_to_depth(op: ops.SpaceToDepth, x: np.ndarray) -> np.ndarray:
    b = op.block_size
    n, c, h, w = _as_nchw(x, op.layout).shape
    if op.layout == "NCHW":
        blocks = x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
        return blocks.reshape(n, b * b * c, h // b, w // b)
    blocks = x.reshape(n, h // b, b, w // b, b, c).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(n, h // b, w // b, b * b * c)
