"""The `nn.` ops of detectors and of sampling by computed coordinates. None has an instruction: they run on the host."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.ir.core import Op
from compiler.ir.define import Choice, IntPair, IntQuad, attr, op, operand, result
from compiler.ir.types import DType, TensorType
from compiler.ops.shapes import (
    FLOATS,
    NUMBERS,
    check_positive,
    check_same_dtype,
    check_vector,
    reject_quantised,
    same,
    times,
)

INDEX = (DType.I32, DType.I64)


@op("nn.grid_sample")
class GridSample(Op):
    """x read at the places `grid` names, each a vector in [-1, 1] with the last spatial axis first.

    x: [n, c, d1, …]; grid: [n, o1, …, rank]; y: [n, c, o1, …]. Nearest rounds half to even. Source: ONNX GridSample-22.
    """

    x = operand(dtypes=NUMBERS)
    grid = operand(dtypes=FLOATS)
    mode = attr(Choice("linear", "nearest", "cubic"), default="linear")
    padding = attr(Choice("zeros", "border", "reflection"), default="zeros")
    align_corners = attr(bool, default=False)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        x, grid = self.x.type, self.grid.type
        if x.rank < 3 or grid.rank != x.rank:
            yield f"x has rank {x.rank}, grid {grid.rank}: both must have one rank of at least 3"
        elif not same(grid.shape[-1], x.rank - 2) or not same(grid.shape[0], x.shape[0]):
            yield f"grid has shape {grid.shape}, expected [{x.shape[0]}, ..., {x.rank - 2}]"

    def infer(self) -> TensorType:
        return self.x.type.with_shape(self.x.type.shape[:2] + self.grid.type.shape[1:-1])


@op("nn.roi_align")
class RoiAlign(Op):
    """Each region of an image, resampled to `size`: the mean or maximum of samples in every bin.

    x: [n, c, h, w]; rois: [r, 4] as x1, y1, x2, y2; batch: [r]; y: [r, c, *size]. `samples` per bin and axis; 0 takes
    as many as pixels. Source: ONNX RoiAlign-22.
    """

    x = operand(rank=4, dtypes=FLOATS)
    rois = operand(rank=2, dtypes=FLOATS)
    batch = operand(rank=1, dtypes=INDEX)
    size = attr(IntPair, default=(1, 1))
    samples = attr(int, default=0)
    scale = attr(float, default=1.0, doc="from coordinates of the regions to pixels")
    mode = attr(Choice("avg", "max"), default="avg")
    half_pixel = attr(bool, default=True, doc="shift coordinates by half a pixel; else regions have at least one pixel")
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        yield from check_positive("size", self.size)
        yield from check_positive("samples", [self.samples], least=0)
        yield from check_same_dtype(self, [self.x, self.rois])
        if not same(self.rois.type.shape[1], 4) or not same(self.rois.type.shape[0], self.batch.type.shape[0]):
            yield f"regions have shape {self.rois.type.shape}, their images {self.batch.type.shape}"

    def infer(self) -> TensorType:
        return self.x.type.with_shape((self.rois.type.shape[0], self.x.type.shape[1], *self.size))


@op("nn.deform_conv2d")
class DeformConv2d(Op):
    """2-D convolution whose taps read at displaced places, linearly interpolated; outside x there are zeros.

    offset: [n, 2*offset_groups*kh*kw, oh, ow], y before x; mask: [n, offset_groups*kh*kw, oh, ow] factors. Source: ONNX
    DeformConv-22.
    """

    x = operand(rank=4, dtypes=FLOATS)
    w = operand(rank=4, dtypes=FLOATS)
    offset = operand(rank=4, dtypes=FLOATS)
    bias = operand(rank=1, dtypes=FLOATS, optional=True)
    mask = operand(rank=4, dtypes=FLOATS, optional=True)
    strides = attr(IntPair, default=(1, 1))
    pads = attr(IntQuad, default=(0, 0, 0, 0), doc="top, left, bottom, right")
    dilations = attr(IntPair, default=(1, 1))
    groups = attr(int, default=1)
    offset_groups = attr(int, default=1)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        yield from check_same_dtype(self)
        for name in ("strides", "dilations"):
            yield from check_positive(name, getattr(self, name))
        yield from check_positive("groups and offset_groups", (self.groups, self.offset_groups))
        x, w, offset = self.x.type.shape, self.w.type.shape, self.offset.type.shape
        if not same(x[1], times(w[1], self.groups)) or (w[0] or 0) % max(self.groups, 1):
            yield f"input has {x[1]} channels, weights {w} in {self.groups} groups expect {times(w[1], self.groups)}"
        taps = times(times(w[2], w[3]), self.offset_groups)
        if not same(offset[1], times(2, taps)) or (x[1] or 0) % max(self.offset_groups, 1):
            yield f"offset has {offset[1]} channels for {self.offset_groups} groups of a {w[2]}x{w[3]} kernel"
        wanted = (offset[0], taps, *offset[2:])
        if self.mask is not None and not all(map(same, self.mask.type.shape, wanted)):
            yield f"mask has shape {self.mask.type.shape}, expected {wanted}"
        if not same(offset[0], x[0]):
            yield f"offset is for {offset[0]} images, input has {x[0]}"
        yield from check_vector("bias", self.bias, w[0])

    def infer(self) -> TensorType:
        n, _, height, width = self.offset.type.shape
        return self.x.type.with_shape((n, self.w.type.shape[0], height, width))


@op("nn.non_max_suppression")
class NonMaxSuppression(Op):
    """Per image and class the best boxes that overlap no better one by more than a threshold: rows of
    [image, class, box].

    boxes: [images, boxes, 4] as corners y1, x1, y2, x2, or, with `center`, as x, y, width, height; scores: [images,
    classes, boxes]. How many rows there are depends on the data. Source: ONNX NonMaxSuppression-11.
    """

    boxes = operand(rank=3, dtypes=FLOATS)
    scores = operand(rank=3, dtypes=FLOATS)
    most = attr(int, default=0, doc="boxes per image and class")
    overlap = attr(float, default=0.0, doc="intersection over union above which the weaker box goes")
    least_score = attr(float, default=float("-inf"), doc="boxes must score more")
    center = attr(bool, default=False)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        yield from check_same_dtype(self)
        boxes, scores = self.boxes.type.shape, self.scores.type.shape
        if not same(boxes[2], 4) or not same(boxes[0], scores[0]) or not same(boxes[1], scores[2]):
            yield f"boxes {boxes} and scores {scores} do not fit together"

    def infer(self) -> TensorType:
        return TensorType((None, 3), DType.I64)
