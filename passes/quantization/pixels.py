"""The pass that lets a network take images as they are: uint8 pixels, height by width by channels.

Preprocessing, `(pixel * scale - mean) / std` in some order of channels, goes into the first convolution: with
`pixel - 128` as its exact i8 input, weights are multiplied by `scale / std` per input channel, and what is left over is
a sum of the weights that joins the bias. Zeros around the image become pixels of the mean; a mean that is no whole
pixel is rounded, which is said. Where the input goes elsewhere, the conversion is explicit: pixels become floats on the
chip, are multiplied and shifted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.errors import error
from compiler.ir.core import Argument, Constant, Module, Op, Value
from compiler.ir.types import DType, QuantType, TensorType
from compiler.ops.math import Add, Cast, Mul, Sub
from compiler.ops.quant import Quantize as QuantizeOp
from compiler.ops.tensor import Pad, Transpose
from compiler.pass_context import Pass, PassContext
from compiler.preprocess import Preprocess
from passes.layers import matching, names_of, replace_constant
from passes.quantization.integers import WeightType, check_weights, quantize_array
from passes.quantization.layers import is_depthwise, module_hash
from passes.quantization.quantize import find_scheme
from passes.quantization.scheme import Scheme

CENTRE = 128
"""What is subtracted from a pixel so that it fits i8."""

TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


@dataclass(frozen=True)
class Affine:
    """x = factor * pixel + shift per channel of the network, whose channel j is the image's order[j]."""

    factor: np.ndarray
    shift: np.ndarray
    order: tuple[int, ...]

    @staticmethod
    def of(preprocess: Preprocess, channels: int) -> Affine:
        """Raises CompilerError E531 for numbers of mean or std that do not fit the channels."""
        mean, std = (np.asarray(v, np.float64) for v in (preprocess.mean, preprocess.std))
        if {mean.size, std.size} - {1, channels}:
            raise error("E531", f"the input has {channels} channels, mean {mean.size} numbers and std {std.size}",
                        op=TakePixels.name, help="give one number or one per channel")  # fmt: skip
        one = np.ones(channels)
        order = range(channels)[::-1] if preprocess.order == "bgr" else range(channels)
        return Affine(preprocess.scale / std * one, -mean / std * one, tuple(order))

    @property
    def zero_pixels(self) -> np.ndarray:
        """The pixels nearest to those that the network sees as 0, per channel."""
        return np.rint(-self.shift / self.factor)

    @property
    def zero_error(self) -> float:
        """How far, in pixels, these are from it."""
        return float(np.abs(self.zero_pixels + self.shift / self.factor).max())


@dataclass(frozen=True, kw_only=True)
class TakePixels(Pass):
    """Make the network's input uint8 pixels, NHWC, with the preprocessing noted on it folded into the first layer.

    Run it before `quantize`, after calibration. Layers that match `keep-float` or `i16`, or that the scheme makes so,
    are as there.
    """

    name = "take-pixels"
    keep_float: tuple[str, ...] = ()
    i16: tuple[str, ...] = ()

    def run(self, module: Module, ctx: PassContext) -> None:
        x = self._image(module)
        if not ctx.may_rewrite(f"take {x.name} as pixels"):
            return
        scheme = find_scheme("", ctx) if ctx.options.get("scheme") else None
        if scheme is not None and scheme.module == module_hash(module):
            module.attributes["scheme_for"] = scheme.module  # the scheme still fits: what it names is kept
        planar = _is_planar(x)
        layout = "NCHW" if planar else "NHWC"
        channels = x.type.static_shape[1 if planar else 3]
        preprocess = Preprocess.of(x.attributes.get("preprocessing", {}))
        affine = Affine.of(preprocess, channels)
        layers = _first_layers(x, planar)
        reason = self._reason(layers, affine, scheme)
        users = x.users
        _become_pixels(x, planar)
        module.version += 1
        if reason is None:
            for layer in layers:
                self._fold(module, layer, x, affine, scheme, ctx)
            idle = [user for user in users if not user.results[0].uses and user not in layers]
            module.attributes["absorbed"] = tuple(user.results[0].name for user in idle)
            for user in idle:
                user.erase()
            ctx.statistics.count("layers that take pixels", len(layers))
            order = "rgb" if preprocess.order == "bgr" else preprocess.order
            x.attributes["preprocessing"] = preprocess.on_chip(order, layout)
            return
        ctx.statistics.count(f"conversion of pixels is explicit: {reason}")
        self._convert(module, x, affine, planar, users)
        x.attributes["preprocessing"] = preprocess.on_chip(preprocess.order, layout)

    def _image(self, module: Module) -> Argument:
        inputs = module.main.arguments
        if len(inputs) != 1 or inputs[0].type.rank != 4 or inputs[0].type.dtype is not DType.F32:
            told = ", ".join(f"{a.name} {a.type}" for a in inputs)
            raise error("E531", f"uint8 input is for models of one image input, this one takes {told}", op=self.name)
        return inputs[0]

    # -- folding -------------------------------------------------------------------------------------------------------
    def _reason(self, layers: list[Any], affine: Affine, scheme: Scheme | None) -> str | None:
        """Why preprocessing cannot join the first layers; None if it can."""
        if not layers:
            return "something else than convolutions takes the input"
        if any(self._kind(op, scheme) == "float" for op in layers):
            return "the first layer stays float"
        zeros = affine.zero_pixels
        if any(any(op.pads) for op in layers) and (zeros.min() < 0 or zeros.max() > 255):
            return "the first layer is padded with what no pixel stands for"
        return None

    def _kind(self, op: Op, scheme: Scheme | None) -> str:
        if matching(self.keep_float, op):
            return "float"
        if matching(self.i16, op):
            return "i16"
        asked = scheme.layer_type(names_of(op)) if scheme is not None else None
        return asked or ("i16" if scheme is not None and scheme.bits == 16 else "i8")

    def _fold(
        self, module: Module, layer: Any, x: Argument, affine: Affine, scheme: Scheme | None, ctx: PassContext
    ) -> None:
        storage = DType.I16 if self._kind(layer, scheme) == "i16" else DType.I8
        image = np.argsort(affine.order)
        pads = tuple(layer.pads)
        if any(pads) and affine.zero_error > 1e-3:
            message = f"the border of {layer.name!r} is padded with whole pixels of the mean, off by up to "
            message += f"{affine.zero_error:.2f} of 255"
            ctx.diagnose("E532", message, op=self.name, help="a border pixel then stands for nearly 0, not for 0")
        factor = affine.factor[image].reshape(1, -1, 1, 1)
        scaled = (layer.w.data.astype(np.float64)[:, image] * factor).astype(np.float32)
        weights = _integer_weights(layer.w, scaled, storage, scheme)
        centre = (CENTRE + affine.shift / affine.factor)[image].reshape(1, -1, 1, 1)
        bias = (_real(weights) * centre).sum(axis=(1, 2, 3)) + (layer.bias.data if layer.bias is not None else 0.0)
        layer.set_operand(0, _centred_pixels(module, layer, x, affine, pads, storage))
        layer.set_operand(1, weights)
        layer.set_operand(2, module.add_constant(f"{layer.name}.bias", bias.astype(np.float32)))
        layer.set_attribute("pads", (0, 0, 0, 0))
        layer.infer_again()

    # -- converting ----------------------------------------------------------------------------------------------------
    def _convert(self, module: Module, x: Argument, affine: Affine, planar: bool, users: list[Op]) -> None:
        """Pixels as floats, in the order the network takes them: the image must be in it."""
        builder = _Builder(module, x)
        value = builder.add(Cast, x, to=DType.F32)
        if (affine.factor != 1.0).any():
            value = builder.add(Mul, value, builder.vector("factor", affine.factor))
        if affine.shift.any():
            value = builder.add(Add, value, builder.vector("shift", affine.shift))
        if planar:
            value = builder.add(Transpose, value, perm=TO_NCHW)
        x.replace_uses_if(value, lambda user: user in users)
        module.attributes["renamed"] = (value.name, x.name)


def _is_planar(x: Argument) -> bool:
    """Whether an image's channels come before its rows."""
    shape = x.type.static_shape
    return not (shape[1] not in (1, 3) and shape[3] in (1, 3))


def _become_pixels(x: Argument, planar: bool) -> None:
    n, *rest = x.type.static_shape
    c, h, w = rest if planar else (rest[2], rest[0], rest[1])
    x.type = TensorType((n, h, w, c), DType.U8)
    x.attributes["layout"] = "NHWC"


def _first_layers(x: Argument, planar: bool) -> list[Any]:
    """The convolutions that take an image, perhaps transposed to NCHW; none where anything else takes it too."""
    found = []
    for user in x.users:
        takers: list[Any] = [user]
        if not planar:
            if user.op_name != "tensor.transpose" or tuple(user.attributes["perm"]) != TO_NCHW:
                return []
            takers = user.results[0].users
        for op in takers:
            whole = op.op_name == "nn.conv2d" and op.groups == 1 and op.layout == "NCHW"
            constant = whole and all(isinstance(v, Constant) for v in op.inputs[1:])
            if not constant or is_depthwise(op) or op.inputs[0].type.quant is not None:
                return []
            found.append(op)
    return found


def _centred_pixels(
    module: Module, layer: Op, x: Argument, affine: Affine, pads: tuple[int, ...], storage: DType
) -> Value:
    """pixel - 128 as integers, NCHW, with a border of pixels that stand for 0. The border is put on while they do."""
    builder = _Builder(module, x, layer)
    value = builder.add(Cast, x, to=DType.F32)
    if any(pads):
        zeros = affine.zero_pixels[np.argsort(affine.order)]
        top, left, bottom, right = pads
        value = builder.add(Sub, value, builder.vector("zero", zeros))
        value = builder.add(Pad, value, pads=(0, top, left, 0, 0, bottom, right, 0))
        value = builder.add(Add, value, builder.vector("centre", zeros - CENTRE))
    else:
        value = builder.add(Add, value, builder.vector("centre", np.full(x.type.static_shape[3], -CENTRE)))
    quant = QuantType(storage, 0, 1.0)
    value = builder.add(QuantizeOp, value, types=[value.type.with_quant(quant)])
    return builder.add(Transpose, value, perm=TO_NCHW)


def _integer_weights(old: Constant, weights: np.ndarray, storage: DType, scheme: Scheme | None) -> Constant:
    """The weights of the first layer as integers, in the place of `old` where nothing else takes it."""
    check_weights(old)
    choices = scheme or Scheme()
    kind = WeightType(storage, 0 if choices.weights == "per-channel" else None, 0, choices.weight_rounding)
    integers = quantize_array(weights, kind.storage, kind.axis, kind.rounding, kind.outputs)
    module = old.module
    if kind.axis is None:
        quant = QuantType(storage, integers.position, float(integers.scales[0]))
    else:
        params = module.add_constant(f"{old.name}.q", integers.scales)
        quant = QuantType(storage, integers.position, axis=0, params=params.name)
    if len(old.users) == 1 and module.constants.get(old.name) is old:
        return replace_constant(old, integers.data, quant)
    return module.add_constant(old.name, integers.data, quant)


def _real(weights: Constant) -> np.ndarray:
    """What integer weights stand for. What the layer adds for the mean must be a multiple of these, or the difference
    to the true ones would act on every pixel's distance from 128 and not on that from the mean."""
    quant = weights.type.quant
    assert quant is not None
    if quant.params is None:
        return weights.data * quant.real_step
    scales = weights.module.constant_named(quant.params).astype(np.float64).reshape(-1, 1, 1, 1)
    return np.ldexp(weights.data.astype(np.float64), quant.position) / scales


class _Builder:
    """Makes ops at the start of a function (or in front of one), named after the input."""

    def __init__(self, module: Module, x: Argument, before: Op | None = None) -> None:
        self.module = module
        self.x = x
        self.block = module.main.body
        self.anchor = before or next(iter(self.block))
        self.location = self.anchor.location
        self.taken = {v.name for op in self.block for v in op.results}

    def add(self, kind: type[Op], *operands: Value, **options: Any) -> Value:
        name, number = f"{self.x.name}.{kind.__name__.lower()}", 0
        while name in self.taken:
            number += 1
            name = f"{self.x.name}.{kind.__name__.lower()}.{number}"
        self.taken.add(name)
        op = kind(*operands, names=[name], location=self.location, **options)
        return self.block.insert_before(self.anchor, op).results[0]

    def vector(self, name: str, values: np.ndarray) -> Constant:
        """One number per channel, spread over an NHWC image."""
        return self.module.add_constant(f"{self.x.name}.{name}", np.asarray(values, np.float32).reshape(1, 1, 1, -1))
