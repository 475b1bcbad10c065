"""The `nn.` ops: convolution, pooling, matmul and resampling, as frontends import them.

Spatial ops take four-dimensional tensors in `layout`; weights follow it (`NCHW`: `[co, ci/groups, kh, kw]`, `NHWC`:
`[co, kh, kw, ci/groups]`). Where both x and weights are quantised, the result is f32: the exact integer sum, rounded to
f32, times the product of the steps, plus the bias. Activations, normalisations and recurrent layers are declared in the
modules imported and listed below; what is not here is anything a frontend can express by these.
"""

from __future__ import annotations

from collections.abc import Iterator

from compiler.ir.core import Op, Value
from compiler.ir.define import Choice, Floats, IntPair, IntQuad, Ints, attr, op, operand, result
from compiler.ir.types import Dimension, DType, Shape, TensorType
from compiler.ops.activation import (
    Celu,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    LogSoftmax,
    Mish,
    PRelu,
    Relu,
    Selu,
    Sigmoid,
    Silu,
    Softmax,
    Softplus,
    Softsign,
    ThresholdedRelu,
)
from compiler.ops.normalization import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    Lrn,
    RmsNorm,
)
from compiler.ops.recurrent import (
    Gru,
    Lstm,
    Rnn,
)
from compiler.ops.shapes import (
    FLOATS,
    NUMBERS,
    broadcast,
    check_positive,
    check_vector,
    join_image,
    reject_quantised,
    same,
    split_image,
    times,
    window_count,
)
from compiler.ops.vision import (
    DeformConv2d,
    GridSample,
    NonMaxSuppression,
    RoiAlign,
)

__all__ = [
    "AvgPool2d",
    "BatchNorm",
    "Celu",
    "Conv2d",
    "ConvTranspose2d",
    "DeformConv2d",
    "DepthToSpace",
    "Elu",
    "Gelu",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GridSample",
    "GroupNorm",
    "Gru",
    "HardSigmoid",
    "HardSwish",
    "InstanceNorm",
    "LayerNorm",
    "LeakyRelu",
    "LogSoftmax",
    "Lrn",
    "Lstm",
    "MatMul",
    "MaxPool2d",
    "Mish",
    "NonMaxSuppression",
    "PRelu",
    "Relu",
    "Resize",
    "RmsNorm",
    "Rnn",
    "RoiAlign",
    "Selu",
    "Sigmoid",
    "Silu",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "ThresholdedRelu",
]

LAYOUT = Choice("NCHW", "NHWC")


def split_weights(shape: Shape, layout: str) -> tuple[Dimension, Dimension, Dimension, Dimension]:
    """(outer, inner, kh, kw) of a weight shape: outer is co, or ci for conv_transpose2d; inner the other one per
    group.
    """
    outer, *rest = shape
    inner, kh, kw = rest if layout == "NCHW" else (rest[2], rest[0], rest[1])
    return outer, inner, kh, kw


def _check_product(x: Value, w: Value, bias: Value | None, axis: int) -> Iterator[str]:
    """Element types of a sum of products; per-axis weight scales must lie on the output channel, axis `axis`."""
    if (x.type.quant is None) != (w.type.quant is None):
        yield "either both x and weights are quantised or neither is"
    elif x.type.quant is None or w.type.quant is None:
        if x.type.dtype is not w.type.dtype:
            yield f"x is {x.type.dtype}, weights are {w.type.dtype}"
        if x.type.dtype not in FLOATS:
            yield f"x must be of a float type or quantised, not {x.type.dtype}"
    else:
        if x.type.quant.axis is not None:
            yield "x must have one scale, not one per channel"
        if w.type.quant.axis not in (None, axis):
            yield f"weights have scales along axis {w.type.quant.axis}, they must lie along axis {axis}"
    if bias is not None:
        expected = DType.F32 if x.type.quant is not None else x.type.dtype
        if bias.type.dtype is not expected or bias.type.quant is not None:
            yield f"bias must be {expected}, not {bias.type.dtype}"


def _product_dtype(x: TensorType) -> DType:
    return x.dtype if x.quant is None else DType.F32


class _Convolution(Op):
    """What the two convolutions share."""

    x = operand(rank=4)
    w = operand(rank=4)
    bias = operand(rank=1, optional=True)
    strides = attr(IntPair, default=(1, 1))
    pads = attr(IntQuad, default=(0, 0, 0, 0), doc="top, left, bottom, right")
    dilations = attr(IntPair, default=(1, 1))
    groups = attr(int, default=1)

    def _check_attributes(self) -> Iterator[str]:
        yield from check_positive("strides", self.strides)
        yield from check_positive("dilations", self.dilations)
        yield from check_positive("pads", self.pads, least=0)
        yield from check_positive("groups", [self.groups])


@op("nn.conv2d")
class Conv2d(_Convolution):
    """2-D cross-correlation. x: [n, ci, h, w]; w: [co, ci/groups, kh, kw]; bias: [co]. Source: ONNX Conv-22.

    With layout NHWC x and y are [n, h, w, c] and w is [co, kh, kw, ci/groups]. groups == ci is a depthwise convolution.
    """

    layout = attr(LAYOUT, default="NCHW")
    y = result()

    @property
    def kernel(self) -> tuple[Dimension, Dimension]:
        """(kh, kw)."""
        return split_weights(self.w.type.shape, self.layout)[2:]

    def check(self) -> Iterator[str]:
        yield from self._check_attributes()
        yield from _check_product(self.x, self.w, self.bias, axis=0)
        _, channels, _, _ = split_image(self.x.type.shape, self.layout)
        co, inner, _, _ = split_weights(self.w.type.shape, self.layout)
        expected = times(inner, self.groups)
        if not same(channels, expected):
            yield f"input has {channels} channels, weights expect {expected}"
        if co is not None and co % max(self.groups, 1):
            yield f"{co} output channels cannot be divided into {self.groups} groups"
        yield from check_vector("bias", self.bias, co)
        yield from _check_extent(self._output_size())

    def _output_size(self) -> tuple[Dimension, Dimension]:
        _, _, h, w = split_image(self.x.type.shape, self.layout)
        kh, kw = self.kernel
        top, left, bottom, right = self.pads
        return (
            window_count(h, top + bottom, kh, max(self.strides[0], 1), self.dilations[0]),
            window_count(w, left + right, kw, max(self.strides[1], 1), self.dilations[1]),
        )

    def infer(self) -> TensorType:
        n = self.x.type.shape[0]
        shape = join_image(n, self.w.type.shape[0], *self._output_size(), self.layout)
        return TensorType(shape, _product_dtype(self.x.type))


def _check_extent(size: tuple[Dimension, Dimension]) -> Iterator[str]:
    if any(d is not None and d < 1 for d in size):
        yield f"window is larger than the padded input (output would be {size[0]}x{size[1]})"


@op("nn.conv_transpose2d")
class ConvTranspose2d(_Convolution):
    """2-D transposed convolution, the gradient of conv2d. x: [n, ci, h, w]; w: [ci, co/groups, kh, kw]; bias: [co].

    Output height: (h - 1) * stride + (kh - 1) * dilation + 1 + output_pad - top - bottom; width likewise. With layout
    NHWC w is [ci, kh, kw, co/groups]. Source: ONNX ConvTranspose-22.
    """

    output_pads = attr(IntPair, default=(0, 0), doc="rows added at the bottom, columns at the right")
    layout = attr(LAYOUT, default="NCHW")
    y = result()

    @property
    def kernel(self) -> tuple[Dimension, Dimension]:
        """(kh, kw)."""
        return split_weights(self.w.type.shape, self.layout)[2:]

    @property
    def channels(self) -> Dimension:
        """Output channels."""
        return times(split_weights(self.w.type.shape, self.layout)[1], self.groups)

    def check(self) -> Iterator[str]:
        yield from self._check_attributes()
        yield from check_positive("output_pads", self.output_pads, least=0)
        yield from _check_product(self.x, self.w, self.bias, axis=1 if self.layout == "NCHW" else 3)
        if self.groups > 1 and self.w.type.quant is not None and self.w.type.quant.axis is not None:
            yield "grouped quantised weights must have one scale"
        _, channels, _, _ = split_image(self.x.type.shape, self.layout)
        ci = self.w.type.shape[0]
        if not same(channels, ci):
            yield f"input has {channels} channels, weights expect {ci}"
        if ci is not None and ci % max(self.groups, 1):
            yield f"{ci} input channels cannot be divided into {self.groups} groups"
        yield from check_vector("bias", self.bias, self.channels)
        yield from _check_extent(self._output_size())

    def _output_size(self) -> tuple[Dimension, Dimension]:
        _, _, h, w = split_image(self.x.type.shape, self.layout)
        sizes: list[Dimension] = []
        for i, (size, k) in enumerate(zip((h, w), self.kernel, strict=True)):
            if size is None or k is None:
                sizes.append(None)
                continue
            full = (size - 1) * self.strides[i] + (k - 1) * self.dilations[i] + 1 + self.output_pads[i]
            sizes.append(full - self.pads[i] - self.pads[i + 2])
        return sizes[0], sizes[1]

    def infer(self) -> TensorType:
        shape = join_image(self.x.type.shape[0], self.channels, *self._output_size(), self.layout)
        return TensorType(shape, _product_dtype(self.x.type))


def _check_reals(op: _Pool | _GlobalPool) -> Iterator[str]:
    """Faults of an operand that has no mean: integers, stored ones included."""
    yield from reject_quantised(op)
    if op.x.type.quant is None and not op.x.type.dtype.is_float:
        yield f"x must be of a float type, not {op.x.type.dtype}"


class _Pool(Op):
    """What the two windowed poolings share. Frontends resolve ceil mode into extra pads."""

    x = operand(rank=4)
    kernel = attr(IntPair)
    strides = attr(IntPair, default=(1, 1))
    pads = attr(IntQuad, default=(0, 0, 0, 0), doc="top, left, bottom, right")
    dilations = attr(IntPair, default=(1, 1))
    layout = attr(LAYOUT, default="NCHW")
    y = result()

    def check(self) -> Iterator[str]:
        yield from check_positive("kernel", self.kernel)
        yield from check_positive("strides", self.strides)
        yield from check_positive("dilations", self.dilations)
        yield from check_positive("pads", self.pads, least=0)
        yield from _check_extent(self._output_size())

    def _extra_pads(self) -> tuple[int, int]:
        return (0, 0)

    def _output_size(self) -> tuple[Dimension, Dimension]:
        _, _, h, w = split_image(self.x.type.shape, self.layout)
        (kh, kw), (top, left, bottom, right), (below, beyond) = self.kernel, self.pads, self._extra_pads()
        return (
            window_count(h, top + bottom + below, kh, max(self.strides[0], 1), self.dilations[0]),
            window_count(w, left + right + beyond, kw, max(self.strides[1], 1), self.dilations[1]),
        )

    def infer(self) -> TensorType:
        n, c, _, _ = split_image(self.x.type.shape, self.layout)
        return self.x.type.with_shape(join_image(n, c, *self._output_size(), self.layout))


@op("nn.max_pool2d")
class MaxPool2d(_Pool):
    """Maximum over windows; padding never wins. x: [n, c, h, w]; a quantised type is kept. Source: ONNX MaxPool-12."""

    x = operand(rank=4, dtypes=NUMBERS)


@op("nn.avg_pool2d")
class AvgPool2d(_Pool):
    """Mean over windows. x: [n, c, h, w]. Source: ONNX AveragePool-19.

    The divisor is the number of input elements under the window, plus, if `count_include_pad`, the padding elements
    under it. `extra_pads` (bottom, right) enlarge the output like `pads` but never count: that is what ceil mode asks
    for.
    """

    count_include_pad = attr(bool, default=False)
    extra_pads = attr(IntPair, default=(0, 0), doc="bottom, right; from ceil mode, never counted")

    def _extra_pads(self) -> tuple[int, int]:
        return self.extra_pads

    def check(self) -> Iterator[str]:
        yield from _check_reals(self)
        yield from check_positive("extra_pads", self.extra_pads, least=0)
        yield from super().check()


class _GlobalPool(Op):
    """Reduction of an image batch to one pixel, [n, c, 1, 1]."""

    x = operand(rank=4, dtypes=NUMBERS)
    layout = attr(LAYOUT, default="NCHW")
    y = result()

    def check(self) -> Iterator[str]:
        if 0 in split_image(self.x.type.shape, self.layout)[2:]:
            yield f"the image {self.x.type.shape} has no pixels"

    def infer(self) -> TensorType:
        n, c, _, _ = split_image(self.x.type.shape, self.layout)
        return self.x.type.with_shape(join_image(n, c, 1, 1, self.layout))


@op("nn.global_avg_pool")
class GlobalAvgPool(_GlobalPool):
    """Mean over the whole image. x: [n, c, h, w] -> [n, c, 1, 1]. Source: ONNX GlobalAveragePool-1."""

    def check(self) -> Iterator[str]:
        yield from _check_reals(self)
        yield from super().check()


@op("nn.global_max_pool")
class GlobalMaxPool(_GlobalPool):
    """Maximum over the whole image; a quantised type is kept. Source: ONNX GlobalMaxPool-1."""


@op("nn.matmul")
class MatMul(Op):
    """Matrix product with NumPy's meaning: leading axes broadcast, 1-D operands are row (a) and column (b) vectors.

    a: [..., m, k]; b: [..., k, n]. Quantised operands give f32; b may have scales along its last axis. Source: ONNX
    MatMul-13.
    """

    a = operand()
    b = operand()
    y = result()

    def check(self) -> Iterator[str]:
        a, b = self.a.type, self.b.type
        if (a.quant is None) != (b.quant is None):
            yield "either both operands are quantised or neither is"
        elif a.quant is None or b.quant is None:
            if a.dtype is not b.dtype:
                yield f"operands must have one element type, not {a.dtype}, {b.dtype}"
        else:
            if a.quant.axis is not None:
                yield "a must have one scale"
            if b.quant.axis is not None and (b.rank < 2 or b.quant.axis != b.rank - 1):
                yield f"b has scales along axis {b.quant.axis}, they must lie along its columns"
        if a.rank == 0 or b.rank == 0:
            yield "operands must have at least one axis"
            return
        inner = b.shape[-2] if b.rank > 1 else b.shape[0]
        if not same(a.shape[-1], inner):
            yield f"a has {a.shape[-1]} columns, b has {inner} rows"
        if broadcast([a.shape[:-2], b.shape[:-2]]) is None:
            yield f"leading axes {a.shape[:-2]} and {b.shape[:-2]} do not broadcast"

    def infer(self) -> TensorType:
        a, b = self.a.type, self.b.type
        shape = (broadcast([a.shape[:-2], b.shape[:-2]]) or ()) + a.shape[-2:-1] + (b.shape[-1:] if b.rank > 1 else ())
        return TensorType(shape, _product_dtype(a))


@op("nn.resize")
class Resize(Op):
    """Resampling to shape `sizes` (all axes). Source: ONNX Resize-19 (and Upsample-9 with coordinate_mode asymmetric).

    `scales`, one per axis, are the factors used in coordinate arithmetic where the model gave them; without them the
    factor of an axis is output size / input size. `cubic_a` is the cubic coefficient; `exclude_outside` renormalises
    cubic weights at the border; `antialias` widens the linear and cubic filters when shrinking. A quantised type is
    kept by mode nearest only.
    """

    x = operand()
    sizes = attr(Ints)
    mode = attr(Choice("nearest", "linear", "cubic"), default="nearest")
    coordinate_mode = attr(
        Choice("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "tf_half_pixel_for_nn", "align_corners",
               "asymmetric"),
        default="half_pixel",
    )  # fmt: skip
    nearest_mode = attr(
        Choice("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"), default="round_prefer_floor"
    )
    cubic_a = attr(float, default=-0.75)
    scales = attr(Floats, default=())
    exclude_outside = attr(bool, default=False)
    antialias = attr(bool, default=False)
    layout = attr(LAYOUT, default="NCHW")
    y = result()

    def check(self) -> Iterator[str]:
        rank = self.x.type.rank
        if len(self.sizes) != rank:
            yield f"sizes has {len(self.sizes)} entries, input has rank {rank}"
        if self.scales and len(self.scales) != rank:
            yield f"scales has {len(self.scales)} entries, input has rank {rank}"
        yield from check_positive("sizes", self.sizes)
        if 0 in self.x.type.shape:
            yield f"there is nothing to resample in {self.x.type.shape}"
        if self.mode != "nearest":
            yield from reject_quantised(self)

    def infer(self) -> TensorType:
        return self.x.type.with_shape(self.sizes)


def _check_blocks(block: int, values: tuple[Dimension, ...], power: int, what: str) -> Iterator[str]:
    """Faults of a block size, and of dimensions that its power does not divide."""
    divisor = block**power
    if block < 1:
        yield f"block must be at least 1, not {block}"
    elif any(v is not None and v % divisor for v in values):
        yield f"{what} {' x '.join(map(str, values))} cannot be divided by {divisor}"


def _divide(value: Dimension, divisor: int) -> Dimension:
    return None if value is None else value // divisor


@op("nn.depth_to_space")
class DepthToSpace(Op):
    """Channels become pixels: [n, c*b*b, h, w] -> [n, c, h*b, w*b]. Source: ONNX DepthToSpace-13.

    Mode DCR reads the channel axis as (block row, block column, c), CRD as (c, block row, block column).
    """

    x = operand(rank=4)
    block_size = attr(int)
    mode = attr(Choice("DCR", "CRD"), default="DCR")
    layout = attr(LAYOUT, default="NCHW")
    y = result()

    def check(self) -> Iterator[str]:
        _, c, _, _ = split_image(self.x.type.shape, self.layout)
        yield from _check_blocks(self.block_size, (c,), 2, "channels")

    def infer(self) -> TensorType:
        n, c, h, w = split_image(self.x.type.shape, self.layout)
        b = self.block_size
        shape = join_image(n, _divide(c, b * b), times(h, b), times(w, b), self.layout)
        return self.x.type.with_shape(shape)


@op("nn.space_to_depth")
class SpaceToDepth(Op):
    """Pixels become channels: [n, c, h*b, w*b] -> [n, b*b*c, h, w], block row slowest, then block column, then c.

    Source: ONNX SpaceToDepth-13.
    """

    x = operand(rank=4)
    block_size = attr(int)
    layout = attr(LAYOUT, default="NCHW")
    y = result()

    def check(self) -> Iterator[str]:
        _, _, h, w = split_image(self.x.type.shape, self.layout)
        yield from _check_blocks(self.block_size, (h, w), 1, "image size")

    def infer(self) -> TensorType:
        n, c, h, w = split_image(self.x.type.shape, self.layout)
        b = self.block_size
        shape = join_image(n, times(c, b * b), _divide(h, b), _divide(w, b), self.layout)
        return self.x.type.with_shape(shape)
