"""Converters of convolutions and poolings. One-dimensional ones become two-dimensional with a height of 1."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.frontend.common.emitter import with_height, without_height
from compiler.frontend.common.windows import Window, cropped
from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.registry import converter
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Value
from compiler.ops import nn, reduce, tensor


# -- windows ---------------------------------------------------------------------------------------------------------
def read_window(n: Node, kernel: Sequence[int], spatial: Sequence[int]) -> Window:
    """The window of a node over an input whose spatial sizes are `spatial`, auto_pad resolved."""
    rank = len(spatial)
    if len(kernel) != rank:
        raise Malformed(f"kernel_shape has {len(kernel)} entries for {rank} spatial dimensions")
    strides = n.attribute("strides", (1,) * rank)
    dilations = n.attribute("dilations", (1,) * rank)
    pads = n.attribute("pads", (0,) * (2 * rank))
    if not len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise Malformed(f"strides, dilations or pads do not have entries for {rank} spatial dimensions")
    window = Window(tuple(kernel), tuple(strides), tuple(dilations), list(pads[:rank]), list(pads[rank:]))
    mode = n.attribute("auto_pad", "NOTSET")
    if mode == "VALID":
        window.before, window.after = [0] * rank, [0] * rank
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        window.pad_for_same(spatial, more_after=mode == "SAME_UPPER")
    elif mode not in ("NOTSET", ""):
        raise Malformed(f"auto_pad is {mode!r}")
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
    operands = with_height(n, source), with_height(n, w), n.optional(2)
    y = n.emit(nn.Conv2d, *operands, groups=groups, **window.attributes())
    return without_height(n, y, x)


@converter("ConvTranspose")
def conv_transpose(n: Node) -> Value:
    x, w = n.input(0), n.input(1)
    spatial = x.type.static_shape[2:]
    mode = n.attribute("auto_pad", "NOTSET")
    rank = len(spatial)
    kernel = kernel_shape(n, w)
    extra = n.attribute("output_padding", (0,) * rank)
    strides = n.attribute("strides", (1,) * rank)
    dilations = n.attribute("dilations", (1,) * rank)
    pads = n.attribute("pads", (0,) * (2 * rank))
    window = Window(tuple(kernel), tuple(strides), tuple(dilations), list(pads[:rank]), list(pads[rank:]))
    sizes = n.attribute("output_shape")
    if sizes is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        sizes = tuple(size * stride for size, stride in zip(spatial, strides, strict=True))
    if sizes is not None:
        extra = _pads_for_output(window, spatial, sizes[-rank:], extra, mode)
    if mode == "VALID":
        window.before, window.after = [0] * rank, [0] * rank
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


# -- pooling -----------------------------------------------------------------------------------------------------------
def _fit_windows(n: Node, window: Window, spatial: Sequence[int]) -> list[int]:
    """Elements to add after each axis, beyond the pads, so that ceil mode's last window fits."""
    if not n.attribute("ceil_mode", 0) or n.attribute("auto_pad", "NOTSET") != "NOTSET":
        return [0] * len(spatial)
    return window.ceil_mode_excess(spatial)


@converter("MaxPool")
def max_pool(n: Node) -> Value:
    n.ignore("storage_order")
    x = n.input(0)
    spatial = x.type.static_shape[2:]
    window = read_window(n, n.required("kernel_shape"), spatial)
    added = _fit_windows(n, window, spatial)
    window.after = [a + b for a, b in zip(window.after, added, strict=True)]
    y = n.emit(nn.MaxPool2d, with_height(n, x), kernel=window.kernel2d, **window.attributes())
    return without_height(n, y, x)


@converter("AveragePool")
def average_pool(n: Node) -> Value:
    return average_pool_of(n, n.input(0))


def average_pool_of(n: Node, x: Value) -> Value:
    """The node's pooling, applied to x."""
    spatial = x.type.static_shape[2:]
    window = read_window(n, n.required("kernel_shape"), spatial)
    added = tuple(_fit_windows(n, window, spatial))
    y = n.emit(
        nn.AvgPool2d, with_height(n, x), kernel=window.kernel2d, extra_pads=(0, *added) if len(added) == 1 else added,
        count_include_pad=bool(n.attribute("count_include_pad", 0)), **window.attributes(),
    )  # fmt: skip
    return without_height(n, y, x)


@converter("LpPool")
def lp_pool(n: Node) -> Value:
    """(sum of |x|^p)^(1/p) as a mean of powers: p = 1 and 2, the ones exporters write."""
    from compiler.ops import math

    order = n.attribute("p", 2)
    if order not in (1, 2):
        raise Unsupported(f"p is {order}, 1 and 2 are supported", "replace it by Pow, AveragePool and Pow")
    x = n.input(0)
    spatial = x.type.static_shape[2:]
    window = read_window(n, n.required("kernel_shape"), spatial)
    added = tuple(_fit_windows(n, window, spatial))
    powers = n.emit(math.Abs, x) if order == 1 else n.emit(math.Mul, x, x)
    padded = n.emit(
        tensor.Pad, with_height(n, powers),
        pads=(0, 0, *window.attributes()["pads"][:2], 0, 0, *window.attributes()["pads"][2:]),
    )  # fmt: skip
    attributes = {**window.attributes(), "pads": (0, 0, 0, 0)}
    mean = n.emit(
        nn.AvgPool2d, padded, kernel=window.kernel2d, count_include_pad=True, **attributes,
    ) if not any(added) else _not_in_ceil_mode()  # fmt: skip
    count = window.kernel2d[0] * window.kernel2d[1]
    total = n.emit(math.Mul, mean, n.scalar_like(count, mean))
    return without_height(n, total if order == 1 else n.emit(math.Sqrt, total), x)


def _not_in_ceil_mode() -> Value:
    raise Unsupported("ceil_mode is set", "pad the input so that the windows fit, and clear ceil_mode")


def _global_pool(n: Node, op_class: type[nn.GlobalAvgPool] | type[nn.GlobalMaxPool], reduction: type) -> Value:
    x = n.input(0)
    if x.type.rank == 4:
        return n.emit(op_class, x)
    return n.emit(reduction, x, axes=tuple(range(2, x.type.rank)), keepdims=True)


@converter("GlobalAveragePool")
def global_average_pool(n: Node) -> Value:
    return _global_pool(n, nn.GlobalAvgPool, reduce.Mean)


@converter("GlobalMaxPool")
def global_max_pool(n: Node) -> Value:
    return _global_pool(n, nn.GlobalMaxPool, reduce.Max)
