"""The `nn.` normalisations, in their inference form. They take reals only and keep shape and element type."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.ir.core import Op
from compiler.ir.define import attr, op, operand, result
from compiler.ir.types import TensorType
from compiler.ops.shapes import (
    FLOATS,
    broadcasts_to,
    check_axis,
    check_has_axes,
    check_positive,
    check_same_dtype,
    check_vector,
    reject_quantised,
)


class Normalization(Op):
    """Common rules: float operands of one type, result like x."""

    x = operand(dtypes=FLOATS)

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        yield from check_same_dtype(self)

    def infer(self) -> TensorType:
        return self.x.type


@op("nn.batch_norm")
class BatchNorm(Normalization):
    """scale * (x - mean) / sqrt(var + epsilon) + bias, the four vectors along `axis`.

    Source: ONNX BatchNormalization-15.
    """

    scale = operand(rank=1, dtypes=FLOATS)
    bias = operand(rank=1, dtypes=FLOATS)
    mean = operand(rank=1, dtypes=FLOATS)
    var = operand(rank=1, dtypes=FLOATS)
    epsilon = attr(float, default=1e-5)
    axis = attr(int, default=1)
    y = result()

    def check(self) -> Iterator[str]:
        yield from reject_quantised(self)
        faults = [*check_has_axes(self), *check_axis(self.axis, self.x.type.rank)]
        yield from faults
        if not faults:
            for name in ("scale", "bias", "mean", "var"):
                yield from check_vector(name, getattr(self, name), self.x.type.shape[self.axis])


@op("nn.layer_norm")
class LayerNorm(Normalization):
    """(x - mean) / sqrt(var + epsilon) * scale + bias, mean and variance over the axes from `axis` to the last.

    scale and bias broadcast to the normalised axes. Source: ONNX LayerNormalization-17.
    """

    scale = operand(dtypes=FLOATS, optional=True)
    bias = operand(dtypes=FLOATS, optional=True)
    axis = attr(int, default=-1)
    epsilon = attr(float, default=1e-5)
    y = result()

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from check_has_axes(self)
        yield from check_axis(self.axis, self.x.type.rank)
        for name, value in (("scale", self.scale), ("bias", self.bias)):
            if value is not None and not broadcasts_to(value.type.shape, self.x.type.shape):
                yield f"{name} {value.type.shape} does not broadcast to {self.x.type.shape}"


@op("nn.rms_norm")
class RmsNorm(LayerNorm):
    """x / sqrt(mean(x^2) + epsilon) * scale + bias over the axes from `axis` to the last.

    Source: ONNX RMSNormalization-23.
    """


@op("nn.instance_norm")
class InstanceNorm(Normalization):
    """Per image and channel: scale * (x - mean) / sqrt(var + epsilon) + bias. Channels lie on `axis`, images on axis 0.

    Source: ONNX InstanceNormalization-22.
    """

    scale = operand(rank=1, dtypes=FLOATS)
    bias = operand(rank=1, dtypes=FLOATS)
    epsilon = attr(float, default=1e-5)
    axis = attr(int, default=1)
    y = result()

    def check(self) -> Iterator[str]:
        yield from super().check()
        faults = [*check_has_axes(self), *check_axis(self.axis, self.x.type.rank)]
        yield from faults
        if not faults:
            yield from check_vector("scale", self.scale, self.x.type.shape[self.axis])
            yield from check_vector("bias", self.bias, self.x.type.shape[self.axis])


@op("nn.group_norm")
class GroupNorm(Normalization):
    """Per image and group of channels (axis 1): (x - mean) / sqrt(var + epsilon), then scale and bias per channel.

    Source: ONNX GroupNormalization-21.
    """

    scale = operand(rank=1, dtypes=FLOATS)
    bias = operand(rank=1, dtypes=FLOATS)
    groups = attr(int)
    epsilon = attr(float, default=1e-5)
    y = result()

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from check_positive("groups", [self.groups])
        if self.x.type.rank < 2:
            yield "input must have at least two axes"
            return
        channels = self.x.type.shape[1]
        if channels is not None and channels % max(self.groups, 1):
            yield f"{channels} channels cannot be divided into {self.groups} groups"
        yield from check_vector("scale", self.scale, channels)
        yield from check_vector("bias", self.bias, channels)


@op("nn.lrn")
class Lrn(Normalization):
    """x / (bias + alpha / size * sum of squares over `size` neighbouring channels) ^ beta. Source: ONNX LRN-13."""

    size = attr(int)
    alpha = attr(float, default=1e-4)
    beta = attr(float, default=0.75)
    bias = attr(float, default=1.0)
    axis = attr(int, default=1)
    y = result()

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from check_positive("size", [self.size])
        yield from check_has_axes(self)
        yield from check_axis(self.axis, self.x.type.rank)
