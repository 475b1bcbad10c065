"""Converters of detectors' operators and of sampling by computed coordinates."""

from __future__ import annotations

from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.registry import converter
from compiler.frontend.onnx.tensor import index_operand
from compiler.ir.core import Value
from compiler.ops import nn

GRID_MODES = {"bilinear": "linear", "bicubic": "cubic"}
"""Names of opset 16 that opset 20 changed."""


@converter("GridSample", since=16)
def grid_sample(n: Node) -> Value:
    mode = n.attribute("mode", "linear")
    return n.emit(
        nn.GridSample, n.input(0), n.input(1), mode=GRID_MODES.get(mode, mode),
        padding=n.attribute("padding_mode", "zeros"), align_corners=bool(n.attribute("align_corners", 0)),
    )  # fmt: skip


def _roi_align(n: Node, half_pixel: bool) -> Value:
    return n.emit(
        nn.RoiAlign, n.input(0), n.input(1), index_operand(n, 2), mode=n.attribute("mode", "avg"),
        size=(n.attribute("output_height", 1), n.attribute("output_width", 1)),
        samples=n.attribute("sampling_ratio", 0), scale=n.attribute("spatial_scale", 1.0), half_pixel=half_pixel,
    )  # fmt: skip


@converter("RoiAlign")
def roi_align_without_shift(n: Node) -> Value:
    return _roi_align(n, half_pixel=False)


@converter("RoiAlign", since=16)
def roi_align(n: Node) -> Value:
    return _roi_align(n, half_pixel=n.attribute("coordinate_transformation_mode", "half_pixel") == "half_pixel")


@converter("NonMaxSuppression", since=10)
def non_max_suppression(n: Node) -> Value:
    def number(index: int, what: str, default: float) -> float:
        return default if n.optional(index) is None else n.array(index, what).item()

    return n.emit(
        nn.NonMaxSuppression, n.input(0), n.input(1), most=int(number(2, "the most boxes", 0)),
        overlap=number(3, "the overlap threshold", 0.0), least_score=number(4, "the score threshold", float("-inf")),
        center=bool(n.attribute("center_point_box", 0)),
    )  # fmt: skip
