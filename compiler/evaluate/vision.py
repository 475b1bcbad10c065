"""Evaluators of sampling by computed coordinates, regions of interest and non-maximum suppression."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from compiler.errors import error
from compiler.evaluate.registry import evaluator
from compiler.evaluate.resize import cubic
from compiler.ops import vision as ops

Array = np.ndarray


# -- grid sample -----------------------------------------------------------------------------------------------------
def reflected(x: Array, low: float, high: float) -> Array:
    """Coordinates mirrored at both borders until they lie between them."""
    width = high - low
    if width <= 0:
        return np.full_like(x, low)
    distance = np.mod(x - low, 2 * width)
    return low + np.where(distance > width, 2 * width - distance, distance)


def borders(size: int, align_corners: bool) -> tuple[float, float]:
    return (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)


def folded_back(x: Array, size: int, op: ops.GridSample) -> Array:
    """Coordinates outside an axis brought back inside, as the padding asks; zeros stay outside."""
    if op.padding == "zeros":
        return x
    if op.padding == "border":
        return np.clip(x, 0, size - 1)
    low, high = borders(size, op.align_corners)
    return np.where((x < low) | (x > high), reflected(x, low, high), x)


def linear_weights(fraction: Array) -> tuple[Array, ...]:
    return 1 - fraction, fraction


def cubic_weights(fraction: Array) -> tuple[Array, ...]:
    return tuple(cubic(np.abs(fraction - tap), -0.75) for tap in (-1, 0, 1, 2))


SAMPLERS: dict[str, tuple[int, Callable[[Array], tuple[Array, ...]]]] = {
    "nearest": (0, lambda fraction: (np.ones_like(fraction),)), "linear": (0, linear_weights),
    "cubic": (-1, cubic_weights),
}  # fmt: skip
"""Mode → first tap relative to the coordinate's floor, and the weights of all taps."""


@evaluator("nn.grid_sample", widens=True)
def grid_sample(op: ops.GridSample, x: Array, grid: Array) -> Array:
    sizes = x.shape[2:]
    first, weights_of = SAMPLERS[op.mode]
    taps: list[list[tuple[Array, Array]]] = []
    for axis, size in enumerate(sizes):
        place = grid[..., len(sizes) - 1 - axis].astype(np.float32)
        place = (place + 1) / 2 * (size - 1) if op.align_corners else ((place + 1) * size - 1) / 2
        if op.mode != "cubic":  # whose taps are folded back one by one, at their own distances
            place = folded_back(np.rint(place) if op.mode == "nearest" else place, size, op)
        floor = np.floor(place)
        weights = weights_of(place - floor)
        taps.append([(floor + first + i, weight) for i, weight in enumerate(weights)])
    total = np.zeros((x.shape[0], *grid.shape[1:-1], x.shape[1]), x.dtype)
    for choice in itertools.product(*taps):
        total += _picked(x, [place for place, _ in choice], op) * _product([w for _, w in choice])[..., None]
    return np.moveaxis(total, -1, 1).astype(x.dtype, copy=False)


def _product(weights: list[Array]) -> Array:
    total = weights[0]
    for weight in weights[1:]:
        total = total * weight
    return total


def _picked(x: Array, places: list[Array], op: ops.GridSample) -> Array:
    """Pixels [n, …, c] at integer places; those outside are folded back once more, or zero."""
    inside = np.ones(places[0].shape, bool)
    index: list[Array] = []
    for place, size in zip(places, x.shape[2:], strict=True):
        place = folded_back(place, size, op)
        inside &= (place > -1) & (place < size) & np.isfinite(place)
        index.append(np.clip(np.nan_to_num(place), 0, max(size - 1, 0)).astype(np.int64))
    image = np.arange(x.shape[0]).reshape(-1, *[1] * (places[0].ndim - 1))
    found = np.moveaxis(x, 1, -1)[(image, *index)]
    return np.where(inside[..., None], found, x.dtype.type(0))


# -- deformable convolution ------------------------------------------------------------------------------------------
@evaluator("nn.deform_conv2d", widens=True)
def deform_conv2d(op: ops.DeformConv2d, x: Array, w: Array, offset: Array, bias: Array | None, mask: Array | None
                  ) -> Array:  # fmt: skip
    """One matrix product of the weights with all taps, gathered at their displaced places."""
    n, _, height, width = x.shape
    co, inner, kh, kw = w.shape
    oh, ow = offset.shape[2:]
    displaced = offset.reshape(n, op.offset_groups, kh * kw, 2, oh, ow)
    factors = None if mask is None else mask.reshape(n, op.offset_groups, kh * kw, 1, oh, ow)
    ky, kx = np.meshgrid(np.arange(kh) * op.dilations[0], np.arange(kw) * op.dilations[1], indexing="ij")
    rows = ky.reshape(-1, 1, 1) + (np.arange(oh) * op.strides[0] - op.pads[0])[:, None]
    columns = kx.reshape(-1, 1, 1) + (np.arange(ow) * op.strides[1] - op.pads[1])[None, :]
    y, x_place = displaced[:, :, :, 0] + rows, displaced[:, :, :, 1] + columns
    images = x.reshape(n * op.offset_groups, -1, height, width)
    places = (a.reshape(n * op.offset_groups, kh * kw, oh, ow) for a in (y, x_place))
    taps = _bilinear(images, *places).reshape(n, op.offset_groups, -1, kh * kw, oh, ow)
    if factors is not None:
        taps = taps * factors.reshape(n, op.offset_groups, 1, kh * kw, oh, ow)
    columns_of = taps.reshape(n, op.groups, inner * kh * kw, oh * ow)
    result = np.matmul(w.reshape(op.groups, co // op.groups, inner * kh * kw), columns_of).reshape(n, co, oh, ow)
    return result if bias is None else result + bias.reshape(-1, 1, 1)


def _bilinear(images: Array, y: Array, x: Array) -> Array:
    """Values [image, channel, …] of images at real places, zero outside."""
    height, width = images.shape[2:]
    top, left = np.floor(y), np.floor(x)
    total = np.zeros((images.shape[0], images.shape[1], *y.shape[1:]), images.dtype)
    which = np.arange(images.shape[0]).reshape(-1, *[1] * (y.ndim - 1))
    for row, column in itertools.product((top, top + 1), (left, left + 1)):
        weight = (1 - np.abs(y - row)) * (1 - np.abs(x - column))
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        rows = np.clip(row, 0, height - 1).astype(np.int64)
        columns = np.clip(column, 0, width - 1).astype(np.int64)
        found = np.moveaxis(images, 1, -1)[which, rows, columns] * np.where(inside, weight, 0)[..., None]
        total += np.moveaxis(found, -1, 1).astype(images.dtype)
    return total


MOST_SAMPLES = 1 << 12
"""Samples along one axis of a bin; a region that needs more is a fault of the data."""


# -- regions ---------------------------------------------------------------------------------------------------------
@evaluator("nn.roi_align", widens=True)
def roi_align(op: ops.RoiAlign, x: Array, rois: Array, batch: Array) -> Array:
    found = np.empty((len(rois), x.shape[1], *op.size), x.dtype)
    shift = 0.5 if op.half_pixel else 0.0
    for index, (roi, image) in enumerate(zip(rois, batch, strict=True)):
        if not -x.shape[0] <= image < x.shape[0]:
            raise error("E355", f"region {index} names image {image} of {x.shape[0]}", op=op.op_name)
        left, top, right, bottom = (float(v) * op.scale - shift for v in roi)
        spans = [bottom - top, right - left]
        if not np.isfinite(spans).all():
            raise error("E355", f"region {index} is {roi.tolist()}, which is no rectangle", op=op.op_name)
        if not op.half_pixel:
            spans = [max(span, 1.0) for span in spans]
        samples = [op.samples or int(np.ceil(span / bins)) for span, bins in zip(spans, op.size, strict=True)]
        if min(samples) < 1:
            found[index] = 0
            continue
        if max(samples) > MOST_SAMPLES:
            raise error("E355", f"region {index} is {roi.tolist()}, too large to sample", op=op.op_name)
        axes = [
            _samples(start, span, bins, count, size)
            for start, span, bins, count, size in zip((top, left), spans, op.size, samples, x.shape[2:], strict=True)
        ]
        found[index] = _region(op, x[image], axes, samples)
    return found


def _samples(start: float, span: float, bins: int, count: int, size: int) -> list[tuple[Array, Array]]:
    """The lower and upper neighbour of every sample along an axis, each as indices and weights; outside weigh 0."""
    places = start + (np.arange(bins * count) + 0.5) * (span / bins / count)
    outside = (places < -1) | (places > size)
    places = np.clip(places, 0, size - 1)
    low = np.minimum(places.astype(np.int64), size - 1)
    fraction = np.where(low >= size - 1, 0, places - low)
    high = np.minimum(low + 1, size - 1)
    return [(low, np.where(outside, 0, 1 - fraction)), (high, np.where(outside, 0, fraction))]


def _region(op: ops.RoiAlign, image: Array, axes: list[list[tuple[Array, Array]]], samples: list[int]) -> Array:
    """A region's bins: weighted neighbours of all samples, summed or, for max, compared, then per bin."""
    terms = [
        image[:, rows[:, None], columns[None, :]] * (below[:, None] * beside[None, :]).astype(image.dtype)
        for rows, below in axes[0]
        for columns, beside in axes[1]
    ]
    total = sum(terms[1:], terms[0]) if op.mode == "avg" else np.maximum.reduce(terms)
    bins = total.reshape(image.shape[0], op.size[0], samples[0], op.size[1], samples[1])
    return bins.mean(axis=(2, 4)) if op.mode == "avg" else bins.max(axis=(2, 4))


# -- non-maximum suppression -----------------------------------------------------------------------------------------
@evaluator("nn.non_max_suppression", widens=True)
def non_max_suppression(op: ops.NonMaxSuppression, boxes: Array, scores: Array) -> Array:
    rows = [
        (image, cls, box)
        for image, cls in itertools.product(*map(range, scores.shape[:2]))
        for box in _kept(op, boxes[image], scores[image, cls])
    ]
    return np.array(rows, np.int64).reshape(-1, 3)


def _kept(op: ops.NonMaxSuppression, boxes: Array, scores: Array) -> Iterator[int]:
    """Places of one class's boxes that stay, best first."""
    corners = _corners(boxes, op.center)
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > op.least_score]
    taken = 0
    while order.size and taken < op.most:
        best, order = order[0], order[1:]
        yield int(best)
        taken += 1
        sides = np.minimum(corners[order, 2:], corners[best, 2:]) - np.maximum(corners[order, :2], corners[best, :2])
        common = np.prod(np.maximum(sides, 0), axis=1)
        union = areas[order] + areas[best] - common
        order = order[~(np.divide(common, union, out=np.zeros_like(common), where=union > 0) > op.overlap)]


def _corners(boxes: Array, center: bool) -> Array:
    """Boxes as low and high corners, whichever way they were given."""
    first, second = boxes[:, :2], boxes[:, 2:]
    if center:
        first, second = first - second / 2, first + second / 2
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=1)
