"""Converters of convolutions. One-dimensional ones become two-dimensional with a height of 1, three-dimensional ones
are written with two-dimensional ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from compiler.frontend.common.columns import summed_columns
from compiler.frontend.common.emitter import with_height, without_height
from compiler.frontend.common.volumes import conv3d, conv_transpose3d
from compiler.frontend.common.windows import Window, cropped
from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.registry import converter
from compiler.frontend.records import Malformed
from compiler.ir.core import Value
from compiler.ops import nn


# -- windows ---------------------------------------------------------------------------------------------------------
def declared_window(n: Node, kernel: Sequence[int], rank: int) -> Window:
    """The window a node declares over `rank` spatial axes, auto_pad aside."""
    if len(kernel) != rank:
        raise Malformed(f"kernel_shape has {len(kernel)} entries for {rank} spatial dimensions")
    strides = n.attribute("strides", (1,) * rank)
    dilations = n.attribute("dilations", (1,) * rank)
    pads = n.attribute("pads", (0,) * (2 * rank))
    if not len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise Malformed(f"strides, dilations or pads do not have entries for {rank} spatial dimensions")
    return Window(tuple(kernel), tuple(strides), tuple(dilations), list(pads[:rank]), list(pads[rank:]))


def auto_pad(n: Node) -> str:
    """NOTSET, VALID, SAME_UPPER or SAME_LOWER."""
    mode = n.attribute("auto_pad", "NOTSET") or "NOTSET"
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise Malformed(f"auto_pad is {mode!r}")
    return mode


def read_window(n: Node, kernel: Sequence[int], spatial: Sequence[int]) -> Window:
    """The window of a node over an input whose spatial sizes are `spatial`, auto_pad resolved."""
    window, mode = declared_window(n, kernel, len(spatial)), auto_pad(n)
    if mode == "VALID":
        window.before, window.after = [0] * len(spatial), [0] * len(spatial)
    elif mode != "NOTSET":
        window.pad_for_same(spatial, more_after=mode == "SAME_UPPER")
    return window


# -- convolutions ------------------------------------------------------------------------------------------------------
def kernel_shape(n: Node, w: Value) -> tuple[int, ...]:
    """Spatial sizes of the weights, which the attribute must repeat where it is given."""
    found = w.type.static_shape[2:]
    if n.attribute("kernel_shape", found) != found:
        raise Malformed(f"kernel_shape is {list(n.attribute('kernel_shape'))}, the weights are {list(found)}")
    return found


@converter("Conv")
def conv(n: Node) -> Value:
    x, w = n.input(0), n.input(1)
    window = read_window(n, kernel_shape(n, w), x.type.static_shape[2:])
    source = cropped(n, x, window)
    groups = n.attribute("group", 1)
    if x.type.rank == 5:
        return conv3d(n, source, w, n.optional(2), window, groups)
    operands = with_height(n, source), with_height(n, w), n.optional(2)
    y = n.emit(nn.Conv2d, *operands, groups=groups, **window.attributes())
    return without_height(n, y, x)


@converter("ConvTranspose")
def conv_transpose(n: Node) -> Value:
    x, w = n.input(0), n.input(1)
    spatial, mode = x.type.static_shape[2:], auto_pad(n)
    rank = len(spatial)
    window = declared_window(n, kernel_shape(n, w), rank)
    extra, sizes = n.attribute("output_padding", (0,) * rank), n.attribute("output_shape")
    if sizes is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        sizes = tuple(size * stride for size, stride in zip(spatial, window.strides, strict=True))
    if sizes is not None:
        extra = _pads_for_output(window, spatial, sizes[-rank:], extra, mode)
    elif mode == "VALID":
        window.before, window.after = [0] * rank, [0] * rank
    if rank == 3:
        return conv_transpose3d(n, x, w, n.optional(2), window, n.attribute("group", 1), tuple(extra))
    y = n.emit(
        nn.ConvTranspose2d, with_height(n, x), with_height(n, w), n.optional(2), groups=n.attribute("group", 1),
        output_pads=(0, *extra) if rank == 1 else extra, **window.attributes(),
    )  # fmt: skip
    return without_height(n, y, x)


def _pads_for_output(
    window: Window, spatial: Sequence[int], sizes: Sequence[int], extra: Sequence[int], mode: str
) -> tuple[int, ...]:
    """Set the window's pads so that the output has `sizes`; gives the output padding (grown where pads cannot)."""
    grown = list(extra)
    for i, (size, wanted) in enumerate(zip(spatial, sizes, strict=True)):
        total = window.strides[i] * (size - 1) + extra[i] + window.extent[i] - wanted
        if total < 0:
            grown[i] -= total
            total = 0
        half = total // 2
        window.before[i] = half if mode == "SAME_UPPER" else total - half
        window.after[i] = total - window.before[i]
    return tuple(grown)


@converter("DeformConv", since=19)
def deform_conv(n: Node) -> Value:
    x, w = n.input(0), n.input(1)
    window = read_window(n, kernel_shape(n, w), x.type.static_shape[2:])
    return n.emit(
        nn.DeformConv2d, x, w, n.input(2), n.optional(3), n.optional(4), groups=n.attribute("group", 1),
        offset_groups=n.attribute("offset_group", 1), **window.attributes(),
    )  # fmt: skip


@converter("Col2Im", since=18)
def col2im(n: Node) -> Value:
    """Blocks laid out as columns, added where they overlap: a transposed convolution by one-hot weights."""
    x, image, block = n.input(0), n.ints(1, "the image's shape"), n.ints(2, "the block's shape")
    n.room_for(x.type.static_shape[1] * prod(block))
    return summed_columns(n, x, declared_window(n, block, len(image)), image)
