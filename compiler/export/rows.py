"""Ops whose ONNX form takes more than a name: windows, normalisations, shapes as operands, several nodes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compiler.evaluate.math import integer_bounds
from compiler.export.graph import Graph, NotExpressible, dequantized, element_type, quantized, row


# -- quantised values ------------------------------------------------------------------------------------------------
@row("quant.quantize")
def quantize(g: Graph, op: Any) -> str:
    return quantized(g, g.get(op.x), op.results[0].type)


@row("quant.dequantize")
def dequantize(g: Graph, op: Any) -> str:
    return dequantized(g, g.raw(op.x), op.x.type)


# -- windows ---------------------------------------------------------------------------------------------------------
@row("nn.conv2d")
def conv2d(g: Graph, op: Any) -> str:
    return g.node(
        "Conv", g.get(op.x), g.get(op.w), g.get(op.bias), name=op.name, strides=list(op.strides), pads=list(op.pads),
        dilations=list(op.dilations), group=op.groups, kernel_shape=list(op.w.type.shape[2:]),
    )  # fmt: skip


@row("nn.conv_transpose2d")
def conv_transpose2d(g: Graph, op: Any) -> str:
    return g.node(
        "ConvTranspose", g.get(op.x), g.get(op.w), g.get(op.bias), name=op.name, strides=list(op.strides),
        pads=list(op.pads), dilations=list(op.dilations), group=op.groups, output_padding=list(op.output_pads),
        kernel_shape=list(op.w.type.shape[2:]),
    )  # fmt: skip


@row("nn.deform_conv2d")
def deform_conv2d(g: Graph, op: Any) -> str:
    return g.node(
        "DeformConv", g.get(op.x), g.get(op.w), g.get(op.offset), g.get(op.bias), g.get(op.mask), name=op.name,
        strides=list(op.strides), pads=list(op.pads), dilations=list(op.dilations), group=op.groups,
        offset_group=op.offset_groups, kernel_shape=list(op.w.type.shape[2:]),
    )  # fmt: skip


@row("nn.max_pool2d")
def max_pool2d(g: Graph, op: Any) -> str:
    window = {"kernel_shape": list(op.kernel), "strides": list(op.strides), "dilations": list(op.dilations)}
    x, pads = g.get(op.x), list(op.pads)
    if any(p >= k for p, k in zip(pads, op.kernel * 2, strict=True)):  # ONNX allows no window without an element
        x, pads = _padded(g, x, pads, -math.inf, op.x), [0, 0, 0, 0]
    return g.node("MaxPool", x, name=op.name, pads=pads, **window)


@row("nn.avg_pool2d")
def avg_pool2d(g: Graph, op: Any) -> str:
    """`extra_pads` never count: they are windows beyond the end, which ONNX knows as ceil mode only."""
    window = {"kernel_shape": list(op.kernel), "strides": list(op.strides), "dilations": list(op.dilations)}
    ceil = any(op.extra_pads)
    if ceil and not _is_ceil_mode(op):
        raise NotExpressible("windows beyond the end that no ceil mode makes")
    if any(p >= k for p, k in zip(op.pads, op.kernel * 2, strict=True)):
        raise NotExpressible("padding as large as the window")
    return g.node(
        "AveragePool", g.get(op.x), name=op.name, pads=list(op.pads), ceil_mode=int(ceil),
        count_include_pad=int(op.count_include_pad), **window,
    )  # fmt: skip


def _is_ceil_mode(op: Any) -> bool:
    """Whether rounding the number of windows up gives the result's size."""
    for axis in range(2):
        size = op.x.type.static_shape[2 + axis] + op.pads[axis] + op.pads[axis + 2]
        reach = (op.kernel[axis] - 1) * op.dilations[axis] + 1
        count = -(-(size - reach) // op.strides[axis]) + 1
        if (count - 1) * op.strides[axis] >= size - op.pads[axis + 2]:
            count -= 1  # a window that would start in the padding at the end
        if count != op.results[0].type.static_shape[2 + axis]:
            return False
    return True


def _padded(g: Graph, x: str, pads: list[int], value: float, like: Any) -> str:
    top, left, bottom, right = pads
    return g.node("Pad", x, g.ints(0, 0, top, left, 0, 0, bottom, right), g.scalar(value, like))


# -- activations -----------------------------------------------------------------------------------------------------
@row("nn.silu")
def silu(g: Graph, op: Any) -> str:
    return g.node("Mul", g.get(op.x), g.node("Sigmoid", g.get(op.x)), name=op.name)


@row("math.rsqrt")
def rsqrt(g: Graph, op: Any) -> str:
    return g.node("Reciprocal", g.node("Sqrt", g.get(op.x)), name=op.name)


@row("math.clip")
def clip(g: Graph, op: Any) -> str:
    bounds = (op.low, op.high)
    if op.x.type.dtype.is_integer:
        bounds = integer_bounds(op.x.type.dtype.numpy, *bounds)
    low = "" if op.low == -math.inf else g.scalar(bounds[0], op.x)
    high = "" if op.high == math.inf else g.scalar(bounds[1], op.x)
    return g.node("Clip", g.get(op.x), low, high, name=op.name)


@row("math.mod")
def mod(g: Graph, op: Any) -> str:
    """ONNX has no remainder of reals with the divisor's sign: the dividend's, put right where the signs differ."""
    a, b = g.get(op.a), g.get(op.b)
    if op.fmod or not op.a.type.dtype.is_float:
        return g.node("Mod", a, b, name=op.name, fmod=int(op.fmod))
    remainder = g.node("Mod", a, b, fmod=1)
    wrong = g.node("Less", g.node("Mul", g.node("Sign", remainder), g.node("Sign", b)), g.scalar(0.0, op.a))
    return g.node("Where", wrong, g.node("Add", remainder, b), remainder, name=op.name)


@row("math.cast")
def cast(g: Graph, op: Any) -> str:
    return g.node("Cast", g.get(op.x), name=op.name, to=element_type(op.to))


@row("math.bitcast")
def bitcast(g: Graph, op: Any) -> str:
    raise NotExpressible("ONNX of opset 21 reinterprets no bytes")


@row("math.shift_left", "math.shift_right")
def shift(g: Graph, op: Any) -> str:
    if not str(op.a.type.dtype).startswith("u"):
        raise NotExpressible("ONNX shifts unsigned integers only")
    return g.node("BitShift", g.get(op.a), g.get(op.b), name=op.name, direction=op.op_name.rpartition("_")[2].upper())


@row("math.dft")
def dft(g: Graph, op: Any) -> str:
    return g.node(
        "DFT", g.get(op.x), g.constant(np.array(op.length, np.int64)), g.constant(np.array(op.axis, np.int64)),
        name=op.name, inverse=int(op.inverse), onesided=int(op.onesided),
    )  # fmt: skip


# -- normalisation ---------------------------------------------------------------------------------------------------
def _last_but(g: Graph, op: Any, axis: int, make: Any) -> str:
    """`make(x)` on x with its axis moved to place 1, and back."""
    rank = op.x.type.rank
    axis %= rank
    if axis == 1:
        return make(g.get(op.x), op.name)
    order = [a for a in range(rank) if a != axis]
    order.insert(1, axis)
    made = make(g.node("Transpose", g.get(op.x), perm=order), "")
    return g.node("Transpose", made, name=op.name, perm=[order.index(a) for a in range(rank)])


@row("nn.batch_norm")
def batch_norm(g: Graph, op: Any) -> str:
    rest = [g.get(v) for v in (op.scale, op.bias, op.mean, op.var)]
    return _last_but(
        g, op, op.axis, lambda x, name: g.node("BatchNormalization", x, *rest, name=name, epsilon=op.epsilon)
    )


@row("nn.instance_norm")
def instance_norm(g: Graph, op: Any) -> str:
    rest = [g.get(op.scale), g.get(op.bias)]
    return _last_but(
        g, op, op.axis, lambda x, name: g.node("InstanceNormalization", x, *rest, name=name, epsilon=op.epsilon)
    )


@row("nn.group_norm")
def group_norm(g: Graph, op: Any) -> str:
    return g.node(
        "GroupNormalization", g.get(op.x), g.get(op.scale), g.get(op.bias), name=op.name, num_groups=op.groups,
        epsilon=op.epsilon,
    )  # fmt: skip


@row("nn.layer_norm", "nn.rms_norm")
def layer_norm(g: Graph, op: Any) -> str:
    """Written out: ONNX's operator wants scale and bias of the normalised axes' very shape."""
    x, axis, rank = g.get(op.x), op.axis % op.x.type.rank, op.x.type.rank
    axes = g.ints(*range(axis, rank))
    centred = x if op.op_name == "nn.rms_norm" else g.node("Sub", x, g.node("ReduceMean", x, axes))
    variance = g.node("ReduceMean", g.node("Mul", centred, centred), axes)
    deviation = g.node("Sqrt", g.node("Add", variance, g.scalar(op.epsilon, op.x)))
    y = g.node("Div", centred, deviation)
    for kind, operand in (("Mul", op.scale), ("Add", op.bias)):
        y = g.node(kind, y, g.get(operand)) if operand is not None else y
    return g.node("Identity", y, name=op.name)


@row("nn.lrn")
def lrn(g: Graph, op: Any) -> str:
    facts = {"size": op.size, "alpha": op.alpha, "beta": op.beta, "bias": op.bias}
    return _last_but(g, op, op.axis, lambda x, name: g.node("LRN", x, name=name, **facts))


# -- resampling and regions ------------------------------------------------------------------------------------------
@row("nn.resize")
def resize(g: Graph, op: Any) -> str:
    scales = g.constant(np.array(op.scales, np.float32)) if op.scales else ""
    sizes = "" if op.scales else g.ints(*op.sizes)
    if op.scales:
        shape = [math.floor(d * s) for d, s in zip(op.x.type.static_shape, op.scales, strict=True)]
        if shape != list(op.sizes):
            raise NotExpressible("sizes that its scales do not give")
    nearest = {"nearest_mode": op.nearest_mode} if op.mode == "nearest" else {}
    cubic = {"cubic_coeff_a": op.cubic_a} if op.mode == "cubic" else {}
    return g.node(
        "Resize", g.get(op.x), "", scales, sizes, name=op.name, mode=op.mode,
        coordinate_transformation_mode=op.coordinate_mode, exclude_outside=int(op.exclude_outside),
        antialias=int(op.antialias) or None, **nearest, **cubic,
    )  # fmt: skip


@row("nn.roi_align")
def roi_align(g: Graph, op: Any) -> str:
    return g.node(
        "RoiAlign", g.get(op.x), g.get(op.rois), g.get(op.batch), name=op.name, output_height=op.size[0],
        output_width=op.size[1], sampling_ratio=op.samples, spatial_scale=op.scale, mode=op.mode,
        coordinate_transformation_mode="half_pixel" if op.half_pixel else "output_half_pixel",
    )  # fmt: skip


@row("nn.non_max_suppression")
def non_max_suppression(g: Graph, op: Any) -> str:
    least = "" if op.least_score == -math.inf else g.constant(np.array([op.least_score], np.float32))
    return g.node(
        "NonMaxSuppression", g.get(op.boxes), g.get(op.scores), g.ints(op.most),
        g.constant(np.array([op.overlap], np.float32)), least, name=op.name, center_point_box=int(op.center),
    )  # fmt: skip


# -- recurrent layers ------------------------------------------------------------------------------------------------
_KINDS = {"nn.lstm": "LSTM", "nn.gru": "GRU", "nn.rnn": "RNN"}
_FUNCTIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "hard_sigmoid": "HardSigmoid"}


@row(*_KINDS)
def recurrent(g: Graph, op: Any) -> list[str]:
    operands = [g.get(op.x), g.get(op.w), g.get(op.r), g.get(op.b), "", g.get(op.h0)]
    facts: dict[str, Any] = {"activations": [_FUNCTIONS[name] for name in op.gate_activations]}
    if op.op_name == "nn.lstm":
        operands += [g.get(op.c0), g.get(op.p)]
        facts["input_forget"] = int(op.input_forget)
    if op.op_name == "nn.gru":
        facts["linear_before_reset"] = int(op.linear_before_reset)
    return g.node(
        _KINDS[op.op_name], *operands, outputs=len(op.results), hidden_size=op.hidden, direction=op.direction,
        clip=op.clip or None, **facts,
    )  # fmt: skip


# -- shapes ----------------------------------------------------------------------------------------------------------
@row("tensor.reshape")
def reshape(g: Graph, op: Any) -> str:
    return g.node("Reshape", g.get(op.x), g.ints(*op.shape), name=op.name, allowzero=int(0 in op.shape))


@row("tensor.reshape_as")
def reshape_as(g: Graph, op: Any) -> str:
    return g.node("Reshape", g.get(op.x), g.get(op.shape), name=op.name, allowzero=int(op.zeros))


@row("tensor.slice")
def slice_(g: Graph, op: Any) -> str:
    """ONNX says where a slice ends; going backwards past the first element is the most negative number."""
    steps = op.steps or (1,) * len(op.starts)
    ends = [a + n * s for a, n, s in zip(op.starts, op.sizes, steps, strict=True)]
    ends = [-(2**62) if end < 0 else end for end in ends]
    axes = range(len(ends))
    return g.node(
        "Slice", g.get(op.x), g.ints(*op.starts), g.ints(*ends), g.ints(*axes), g.ints(*steps), name=op.name
    )


@row("tensor.slice_as")
def slice_as(g: Graph, op: Any) -> str:
    return g.node(
        "Slice", g.get(op.x), g.get(op.starts), g.get(op.ends), g.ints(*op.axes), g.get(op.steps), name=op.name
    )


@row("tensor.pad")
def pad(g: Graph, op: Any) -> str:
    value = g.scalar(op.value, op.x) if op.mode == "constant" and op.x.type.quant is None else ""
    if op.x.type.quant is not None and op.value:
        value = g.constant(np.array(op.value, np.float32))
    return g.node("Pad", g.get(op.x), g.ints(*op.pads), value, name=op.name, mode=op.mode)


@row("tensor.broadcast_to")
def broadcast_to(g: Graph, op: Any) -> str:
    return g.node("Expand", g.get(op.x), g.ints(*op.shape), name=op.name)


@row("tensor.tile")
def tile(g: Graph, op: Any) -> str:
    return g.node("Tile", g.get(op.x), g.ints(*op.repeats), name=op.name)


@row("tensor.one_hot")
def one_hot(g: Graph, op: Any) -> str:
    values = g.constant(np.array([op.off, op.on], op.to.numpy))
    return g.node("OneHot", g.get(op.indices), g.constant(np.array(op.depth, np.int64)), values, name=op.name,
                  axis=op.axis)  # fmt: skip


@row("tensor.cumsum")
def cumsum(g: Graph, op: Any) -> str:
    axis = g.constant(np.array(op.axis, np.int64))
    return g.node("CumSum", g.get(op.x), axis, name=op.name, exclusive=int(op.exclusive), reverse=int(op.reverse))


@row("tensor.cumprod")
def cumprod(g: Graph, op: Any) -> str:
    raise NotExpressible("ONNX of opset 21 has no running product")


@row("tensor.topk")
def topk(g: Graph, op: Any) -> list[str]:
    return g.node("TopK", g.get(op.x), g.ints(op.k), outputs=2, axis=op.axis, largest=int(op.largest))


@row("tensor.topk_as")
def topk_as(g: Graph, op: Any) -> list[str]:
    k = g.node("Reshape", g.get(op.k), g.ints(1))
    return g.node("TopK", g.get(op.x), k, outputs=2, axis=op.axis, largest=int(op.largest))


@row("tensor.trilu")
def trilu(g: Graph, op: Any) -> str:
    return g.node("Trilu", g.get(op.x), g.constant(np.array(op.k, np.int64)), name=op.name, upper=int(op.upper))


# -- reductions ------------------------------------------------------------------------------------------------------
_REDUCTIONS = {
    "reduce.sum": "ReduceSum", "reduce.mean": "ReduceMean", "reduce.max": "ReduceMax", "reduce.min": "ReduceMin",
    "reduce.prod": "ReduceProd", "reduce.l1": "ReduceL1", "reduce.l2": "ReduceL2",
    "reduce.sum_square": "ReduceSumSquare", "reduce.log_sum": "ReduceLogSum", "reduce.log_sum_exp": "ReduceLogSumExp",
}  # fmt: skip


@row(*_REDUCTIONS)
def reduction(g: Graph, op: Any) -> str:
    axes = g.ints(*op.axes) if op.axes else ""
    return g.node(_REDUCTIONS[op.op_name], g.get(op.x), axes, name=op.name, keepdims=int(op.keepdims))
