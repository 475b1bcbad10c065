"""`drop-asymmetric`: quantised values of imported models whose form the chip has not get one that it has.

Other tools store activations unsigned or with a zero point; the chip's integers are signed and symmetric. By default
such a value becomes 8 bits, symmetric, over the range its integers cover: the file's own ranges stay, nothing needs
calibration, and what is coarser is said per tensor. 16 bits hold the same integers exactly. As reals, clipped to the
range, they are calibrated anew like any other. Weights of a form the chip has keep it, and so do values that leave the
network as integers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from compiler.ir.core import Module, Op, Value
from compiler.ir.types import DType, QuantType, position_and_scale
from compiler.ops.math import Clip
from compiler.ops.quant import Quantize
from compiler.pass_context import Pass, PassContext

HELD = (DType.I8, DType.I16)
_MOVES = ("tensor.reshape", "tensor.transpose", "tensor.slice", "tensor.concat", "nn.max_pool2d", "nn.global_max_pool")
"""Ops on stored integers that mean the same on the reals they stand for."""

_SHOWN = 8
_NEARLY = 0.9
"""A range that reaches this part of the new integers' is left to end where they do."""


@dataclass(frozen=True, kw_only=True)
class DropAsymmetric(Pass):
    """Give imported values stored unsigned or with a zero point a form that the chip has."""

    name: ClassVar[str] = "drop-asymmetric"
    to: Literal["i8", "i16", "reals"] | None = None
    """i8: coarser by up to a bit; i16: exact, at the price of 16-bit layers; reals: calibrated anew. None: what the
    compilation was asked for, else i8."""

    def run(self, module: Module, ctx: PassContext) -> None:
        to = self.to or ctx.options.get("asymmetric", "i8")
        for function in module.functions.values():
            dropped = _droppable([op for op in function.body if op.op_name == "quant.quantize"])
            notes = [_replace(op, to) for op in dropped if ctx.may_rewrite(f"drop {op.name}")]
            if not notes:
                continue
            for op in list(function.body):
                if op.op_name == "quant.dequantize" and op.inputs[0].type.quant is None:
                    op.replace_with(op.inputs[0])
                elif op.op_name in _MOVES:
                    op.infer_again()
            ctx.statistics.count(f"asymmetric values made {to}", len(notes))
            if to != "i16":
                _tell(ctx, notes, to)


def _droppable(quantizes: Iterable[Op]) -> list[Op]:
    """The quantisations to undo: of a form the chip has not, read as reals only, and joined only with their like."""
    foreign = [op for op in quantizes if _is_foreign(op.results[0].type.quant)]
    found = {op: region for op in foreign if (region := _region(op)) is not None}
    while True:
        inside = {value for region in found.values() for value in region}
        left = {
            op: region for op, region in found.items()
            if all(v in inside for user in _users(region) if user.op_name == "tensor.concat" for v in user.inputs)
        }  # fmt: skip
        if len(left) == len(found):
            return list(found)
        found = left


def _is_foreign(quant: QuantType | None) -> bool:
    return quant is not None and quant.axis is None and (quant.storage not in HELD or quant.zero_point != 0)


def _region(op: Op) -> set[Value] | None:
    """The value and what it is moved into; None where something else than reals is made of it."""
    region: set[Value] = set()
    waiting: list[Value] = [op.results[0]]
    while waiting:
        value = waiting.pop()
        region.add(value)
        for user in value.users:
            if user.op_name in _MOVES:
                waiting += [r for r in user.results if r not in region]
            elif user.op_name != "quant.dequantize":
                return None
    return region


def _users(values: Iterable[Value]) -> set[Op]:
    return {user for value in values for user in value.users}


def _replace(op: Op, to: str) -> tuple[float, str]:
    """Put another form of the value in a quantisation's place; gives what the chip's 8 bits lose, in bits, and the
    words for it.
    """
    result = op.results[0]
    quant: QuantType = result.type.quant  # type: ignore[assignment]
    limits = np.iinfo(quant.storage.numpy)
    step = quant.real_step
    low, high = ((bound - quant.zero_point) * step for bound in (int(limits.min), int(limits.max)))
    symmetric = max(-low, high) / 127
    note = (
        f"{result.name!r}: {quant.storage} with steps of {step:.6g} and zero point {quant.zero_point}; "
        f"signed 8 bits over its range have steps of {symmetric:.6g}"
    )
    x = _clipped(op, low, high, to, result.name)
    if to != "reals":
        made = _exact(step) if to == "i16" else QuantType.from_absmax(max(-low, high))
        stored = Quantize(x, types=[result.type.with_quant(made)], names=[result.name], location=op.location)
        op.block.insert_before(op, stored)  # type: ignore[union-attr]
        x = stored.results[0]
    op.replace_with(x)
    return math.log2(symmetric / step), note


def _exact(step: float) -> QuantType:
    """16 bits with the very same step."""
    position, scale = position_and_scale(step * 32767, 16)
    return QuantType(DType.I16, position, scale, step=step)


def _clipped(op: Op, low: float, high: float, to: str, name: str) -> Value:
    """What is quantised, clipped to the range of the old integers where the new ones do not end there themselves."""
    x: Value = op.inputs[0]
    rectified = x.producer is not None and x.producer.op_name == "nn.relu"
    reach = max(-low, high) if to == "i8" else math.inf
    low = -math.inf if (rectified and low <= 0) or -low >= _NEARLY * reach else low
    high = math.inf if high >= _NEARLY * reach else high
    if math.isinf(low) and math.isinf(high):
        return x
    clip = Clip(x, low=low, high=high, names=[name if to == "reals" else f"{name}.range"], location=op.location)
    op.block.insert_before(op, clip)  # type: ignore[union-attr]
    return clip.results[0]


def _tell(ctx: PassContext, notes: list[tuple[float, str]], to: str) -> None:
    worst = sorted(notes, key=lambda note: -note[0])
    bits = sum(lost for lost, _ in notes) / len(notes)
    more = (f"... and {len(notes) - _SHOWN} more",) if len(notes) > _SHOWN else ()
    how = "keep their ranges" if to == "i8" else "are quantised anew from calibration data"
    ctx.diagnose(
        "E530",
        f"{len(notes)} values are stored unsigned or with a zero point, which the chip has not: they {how}, "
        f"{bits:.1f} bits coarser on average",
        severity="warning", notes=(*(note for _, note in worst[:_SHOWN]), *more),
        help="--asymmetric i16 keeps them exactly, in 16-bit layers",
    )  # fmt: skip
