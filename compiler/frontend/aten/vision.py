"""Rows of torchvision's operators: what detectors do with boxes. They run on the host."""

from __future__ import annotations

from typing import Any

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.registry import aten
from compiler.ir.types import DType
from compiler.ops import tensor, vision


@aten("torchvision::nms")
def nms(c: Call, dets: Any, scores: Any, iou_threshold: Any) -> Any:
    """Indices of the boxes that stay, best first. How many there are depends on the data."""
    boxes, points = c.tensor(dets), c.tensor(scores)
    count = boxes.type.static_shape[0]
    rows = c.emit(
        vision.NonMaxSuppression, c.reshape(boxes, (1, count, 4)), c.reshape(points, (1, 1, count)), most=count,
        overlap=float(c.number(iou_threshold, "the threshold")),
    )  # fmt: skip
    return c.emit(tensor.Gather, rows, c.constant(2, DType.I64), axis=1)


@aten("torchvision::roi_align")
def roi_align(
    c: Call, input: Any, rois: Any, spatial_scale: Any, pooled_height: int, pooled_width: int, sampling_ratio: int,
    aligned: Any,
) -> Any:  # fmt: skip
    """Regions are rows of image, x1, y1, x2, y2."""
    x, regions = c.tensor(input), c.tensor(rois)
    corners = c.emit(tensor.Gather, regions, c.constant([1, 2, 3, 4], DType.I64), axis=1)
    image = c.emit(tensor.Gather, regions, c.constant(0, DType.I64), axis=1)
    return c.emit(
        vision.RoiAlign, x, corners, c.cast(image, DType.I64), size=(pooled_height, pooled_width),
        samples=max(sampling_ratio, 0), scale=float(spatial_scale), half_pixel=bool(aligned),
    )  # fmt: skip


@aten("torchvision::deform_conv2d")
def deform_conv2d(
    c: Call, input: Any, weight: Any, offset: Any, mask: Any, bias: Any, stride_h: int, stride_w: int, pad_h: int,
    pad_w: int, dilation_h: int, dilation_w: int, groups: int, offset_groups: int, use_mask: Any,
) -> Any:  # fmt: skip
    return c.emit(
        vision.DeformConv2d, c.tensor(input), c.tensor(weight), c.tensor(offset), bias, mask if use_mask else None,
        strides=(stride_h, stride_w), pads=(pad_h, pad_w, pad_h, pad_w), dilations=(dilation_h, dilation_w),
        groups=groups, offset_groups=offset_groups,
    )  # fmt: skip
