"""Rows of the float layers that mobile archives pack for XNNPACK: a layer whose result is clamped to a range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.registry import aten, convert
from compiler.frontend.records import Malformed
from compiler.ir.types import DType
from compiler.ops import math as math_ops


@dataclass(frozen=True)
class Clamped:
    """A packed layer. `kind`: linear or conv; `settings` of a convolution: strides, paddings, dilations, whether it is
    transposed, output paddings, groups.
    """

    kind: str
    weight: Any
    bias: Any
    low: float
    high: float
    settings: tuple[Any, ...] = ()


RUNS = ("linear_clamp_run", "conv2d_clamp_run", "conv2d_transpose_clamp_run")


@aten(*(f"prepacked::{name}" for name in RUNS))
def clamped_layer(c: Call, x: Any, packed: Any) -> Any:
    if not isinstance(packed, Clamped):
        raise Malformed("its parameters are not packed ones")
    bias = None if packed.bias is None else c.constant(packed.bias, DType.F32)
    if packed.kind == "linear":
        y = convert("aten::linear", "", c.builder, [x, packed.weight, bias])
    else:
        y = convert("aten::_convolution", "", c.builder, [x, packed.weight, bias, *packed.settings])
    if math.isinf(packed.low) and math.isinf(packed.high):
        return y
    return c.emit(math_ops.Clip, y, low=packed.low, high=packed.high)


@aten("prepacked::linear_clamp_prepack")
def linear_prepack(c: Call, W: Any, B: Any = None, output_min: Any = None, output_max: Any = None) -> Any:
    low, high = _limits(output_min, output_max)
    return Clamped("linear", W, None if B is None else c.known(B, "the bias"), low, high)


@aten("prepacked::conv2d_clamp_prepack")
def conv_prepack(
    c: Call, W: Any, B: Any, stride: Any, padding: Any, dilation: Any, groups: int, output_min: Any = None,
    output_max: Any = None,
) -> Any:  # fmt: skip
    settings = (tuple(stride), tuple(padding), tuple(dilation), False, (0, 0), groups)
    bias = None if B is None else c.known(B, "the bias")
    return Clamped("conv", W, bias, *_limits(output_min, output_max), settings)


def _limits(low: Any, high: Any) -> tuple[float, float]:
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)
