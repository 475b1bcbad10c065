"""`drop-asymmetric`: quantised values of imported models that the chip has no type for become reals again.

Other tools store activations unsigned or with a zero point; the chip's integers are signed and symmetric. Such a value
becomes reals clipped to the range its integers cover, which keeps what the training saw of its ends, and calibration
and `quantize` choose the chip's own integers for it. What that costs is said per tensor. Weights of a form the chip
has keep it, and so do values that leave the network as integers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compiler.ir.core import Module, Op, Value
from compiler.ir.types import DType, QuantType
from compiler.ops.math import Clip
from compiler.pass_context import Pass, PassContext

HELD = (DType.I8, DType.I16)
_MOVES = ("tensor.reshape", "tensor.transpose", "tensor.slice", "tensor.concat", "nn.max_pool2d", "nn.global_max_pool")
"""Ops on stored integers that mean the same on the reals they stand for."""

_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class DropAsymmetric(Pass):
    """Turn imported values stored unsigned or with a zero point into reals clipped to the range of their integers."""

    name: ClassVar[str] = "drop-asymmetric"

    def run(self, module: Module, ctx: PassContext) -> None:
        for function in module.functions.values():
            dropped = _droppable([op for op in function.body if op.op_name == "quant.quantize"])
            notes = [_clip(op) for op in dropped if ctx.may_rewrite(f"drop {op.name}")]
            if not notes:
                continue
            for op in list(function.body):
                if op.op_name == "quant.dequantize" and op.inputs[0].type.quant is None:
                    op.replace_with(op.inputs[0])
                elif op.op_name in _MOVES:
                    op.infer_again()
            ctx.statistics.count("asymmetric values made reals", len(notes))
            _tell(ctx, notes)


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


def _clip(op: Op) -> tuple[float, str]:
    """Put a clip in a quantisation's place; gives what the chip's 8 bits lose, in bits, and the words for it."""
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
    x: Value = op.inputs[0]
    rectified = x.producer is not None and x.producer.op_name == "nn.relu" and low <= 0
    clip = Clip(x, low=-math.inf if rectified else low, high=high, names=[result.name], location=op.location)
    block = op.block
    if block is None:
        raise ValueError("a detached quantisation cannot be replaced")
    block.insert_before(op, clip)
    op.replace_with(clip.results[0])
    return math.log2(symmetric / step), note


def _tell(ctx: PassContext, notes: list[tuple[float, str]]) -> None:
    worst = sorted(notes, key=lambda note: -note[0])
    bits = sum(lost for lost, _ in notes) / len(notes)
    more = (f"... and {len(notes) - _SHOWN} more",) if len(notes) > _SHOWN else ()
    ctx.diagnose(
        "E530",
        f"{len(notes)} values are stored unsigned or with a zero point, which the chip has not: they are quantised "
        f"anew from calibration data, {bits:.1f} bits coarser on average",
        severity="warning", notes=(*(note for _, note in worst[:_SHOWN]), *more),
        help="for the accuracy of the file as it is, give the layers that matter 16 bits: --i16 NAME",
    )  # fmt: skip
