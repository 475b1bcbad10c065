"""What each op needs to run in NHWC: which ops must, which may, and how their attributes and operands move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from compiler.ir.core import Op, Value
from compiler.ir.types import Shape, TensorType
from passes.op_kinds import is_elementwise

TO_NHWC = (0, 2, 3, 1)
TO_NCHW = (0, 3, 1, 2)

SPATIAL = frozenset(
    {
        "nn.conv2d", "nn.conv_transpose2d", "nn.max_pool2d", "nn.avg_pool2d", "nn.global_avg_pool",
        "nn.global_max_pool", "nn.resize", "nn.depth_to_space", "nn.space_to_depth",
    }
)  # fmt: skip
"""Ops that the chip runs in NHWC only; they have an attribute `layout`."""

KEPT_OPERANDS: dict[str, tuple[int, ...]] = {
    "nn.conv2d": (2,), "nn.conv_transpose2d": (2,), "nn.batch_norm": (1, 2, 3, 4), "nn.instance_norm": (1, 2),
    "tensor.gather": (1,),
}  # fmt: skip
"""Operands that are vectors along an axis, not images: they stay as they are."""


def permuted(type: TensorType, perm: Sequence[int] = TO_NHWC) -> TensorType:
    """The type of a tensor after a transpose."""
    shape = tuple(type.shape[axis] for axis in perm)
    quant = type.quant
    if quant is not None and quant.axis is not None:
        quant = replace(quant, axis=perm.index(quant.axis))
    return TensorType(shape, type.dtype, quant)


def order_is_kept(shape: Shape) -> bool:
    """Whether an NCHW image has its elements in the same order in NHWC: only axes of one element move."""
    _, c, h, w = shape
    return c == 1 or (h == 1 and w == 1)


def is_image(value: Value) -> bool:
    return value.type.rank == 4 and value.type.is_static


# -- attributes --------------------------------------------------------------------------------------------------------
def _moved(items: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(items[axis] for axis in TO_NHWC) if items else ()


def moved_axis(axis: int) -> int:
    """Where an axis of an NCHW image, possibly counted from the end, is in NHWC."""
    return TO_NHWC.index(axis % 4)


def _axis(op: Any) -> dict[str, Any]:
    return {"axis": moved_axis(op.axis)}


def _axes(op: Any) -> dict[str, Any]:
    return {"axes": tuple(sorted(map(moved_axis, op.axes)))}


def _nothing(op: Any) -> dict[str, Any]:
    return {}


Move = Callable[[Any], dict[str, Any]]

_BY_NAME: dict[str, Move] = {
    "quant.quantize": _nothing,
    "quant.dequantize": _nothing,
    "tensor.concat": _axis,
    "tensor.cumsum": _axis,
    "tensor.topk": _axis,
    "tensor.gather": _axis,
    "tensor.slice": lambda op: {"starts": _moved(op.starts), "sizes": _moved(op.sizes), "steps": _moved(op.steps)},
    "tensor.pad": lambda op: {"pads": _moved(op.pads[:4]) + _moved(op.pads[4:])},
    "tensor.tile": lambda op: {"repeats": _moved(op.repeats)},
    "tensor.broadcast_to": lambda op: {"shape": _moved(op.shape)},
    "nn.softmax": _axis,
    "nn.log_softmax": _axis,
    "nn.batch_norm": _axis,
    "nn.instance_norm": _axis,
    "nn.lrn": _axis,
    "reduce.argmax": _axis,
    "reduce.argmin": _axis,
    "nn.resize": lambda op: {"sizes": _moved(op.sizes), "scales": _moved(op.scales)},
}
"""Op → the attributes that change when it runs in NHWC. Elementwise ops and reductions are found by their class."""


def _move_of(op: Op) -> Move | None:
    move = _BY_NAME.get(op.op_name)
    if move is not None:
        return move
    if op.op_name in SPATIAL or is_elementwise(op):
        return _nothing
    return _axes if op.op_name.startswith("reduce.") else None


def move_attributes(op: Op) -> dict[str, Any]:
    """All attributes of the op in NHWC."""
    move = _move_of(op)
    assert move is not None, op
    layout = {"layout": "NHWC"} if op.op_name in SPATIAL else {}
    return {**op.attributes, **move(op), **layout}


def is_agnostic(op: Op) -> bool:
    """Whether the op can run in either layout: images in, images out, attributes that move."""
    if op.op_name in SPATIAL or not op.results or not all(is_image(r) for r in op.results) or _move_of(op) is None:
        return False
    if op.op_name == "tensor.gather" and op.operands[1].type.rank != 1:  # type: ignore[union-attr]
        return False
    return all(v.type.rank <= 4 and v.type.is_static for v in op.inputs)


# -- reductions that remove axes ---------------------------------------------------------------------------------------
def reduces_alike(op: Any) -> bool:
    """Whether a reduction of an image that removes axes leaves the others in the same order in both layouts."""
    if not op.op_name.startswith("reduce.") or op.keepdims or not is_image(op.operands[0]):
        return False
    gone = {op.axis % 4} if op.op_name.startswith("reduce.arg") else set(op.reduced_axes)
    return [a for a in range(4) if a not in gone] == [a for a in TO_NHWC if a not in gone]
