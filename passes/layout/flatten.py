"""Flattening of an NHWC image: the image is not transposed, the rows of the matmuls that take the flat vector are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.ir.core import Constant, Op, Value
from passes.op_kinds import is_elementwise


@dataclass
class Flattened:
    """What depends on the order of a flattened image: values, and constants along it as (op, operand, axis)."""

    values: list[Value] = field(default_factory=list)
    constants: list[tuple[Op, int, int]] = field(default_factory=list)


def followers_of_flatten(reshape: Any) -> Flattened | None:
    """Everything downstream that the order of a flattened image reaches; None if it reaches what cannot be permuted."""
    n, c, h, w = reshape.x.type.static_shape
    length, shape = c * h * w, reshape.result.type.shape
    if not shape or shape[-1] != length or reshape.result.type.elements != n * length:
        return None
    found = Flattened([reshape.result])
    for value in found.values:  # grows while it is walked
        for user in value.users:
            if not _follow(user, value, length, found):
                return None
    return found


def _follow(user: Op, value: Value, length: int, found: Flattened) -> bool:
    """Take `user` of a flattened `value` into `found`; False if its result cannot be had in another order."""
    if user.op_name == "nn.matmul":
        weights = user.operands[1]
        fits = user.operands[0] is value and isinstance(weights, Constant) and weights.type.rank == 2
        if fits:
            found.constants.append((user, 1, 0))
        return fits
    quantises = user.op_name in ("quant.quantize", "quant.dequantize") and not _has_axis(user)
    if not (quantises or is_elementwise(user)) or user.result.type.shape != value.type.shape:
        return False
    for index, operand in enumerate(user.operands):
        if operand is None or operand is value or operand.type.elements == 1:
            continue
        if not isinstance(operand, Constant) or operand.type.shape[-1] not in (1, length):
            return False
        if operand.type.shape[-1] == length:
            found.constants.append((user, index, operand.type.rank - 1))
    if user.result not in found.values:
        found.values.append(user.result)
    return True


def _has_axis(op: Op) -> bool:
    types = [v.type for v in (*op.inputs, *op.results)]
    return any(t.quant is not None and t.quant.axis is not None for t in types)


def permute_flat_axis(data: np.ndarray, axis: int, image: tuple[int, int, int]) -> np.ndarray:
    """`data` whose `axis` runs over (c, h, w), with that axis running over (h, w, c) instead."""
    c, h, w = image
    before, after = data.shape[:axis], data.shape[axis + 1 :]
    split = data.reshape(*before, c, h, w, *after)
    return np.ascontiguousarray(np.moveaxis(split, axis, axis + 2)).reshape(data.shape)
