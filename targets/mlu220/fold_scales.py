"""Fewer passes of the vector unit in front of a conversion to integers, after legalisation.

A result that only the next layer reads is multiplied by its scale's factor and converted. Where it comes from a chain
that a positive factor passes through (scale, bias, ReLU, a limit), the factor goes into the constants of the chain:
one multiplication less, and one rounding. A maximum over values that were made integers and floats again is taken
before they are made integers: on fewer of them, with the same result, since conversion keeps the order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compiler.ir.core import Constant, Function, Module, Op, Value
from compiler.ir.types import DType
from targets.mlu220.op_vector import BINARY_OPS, UNARY_OPS, Convert, DepthwiseConv2d, Pool

HOMOGENEOUS: tuple[type[Op], ...] = (UNARY_OPS["relu"], UNARY_OPS["leaky_relu"])
SHIFTS: tuple[type[Op], ...] = tuple(BINARY_OPS[name] for name in ("add", "sub", "min", "max"))
FACTORS: tuple[type[Op], ...] = (BINARY_OPS["mul"], DepthwiseConv2d)
SCALED = ".scaled"
"""What the name of a value ends in that is a multiple of the value it is named for."""


def fold_scales(module: Module, function: Function) -> tuple[int, int]:
    """Fold factors and move maxima; how many of each."""
    pools = sum(_pool_before_conversion(op) for op in list(function.body) if isinstance(op, Pool))
    folds = 0
    for op in list(function.body):
        if isinstance(op, Convert) and not op.to.is_float and isinstance(op.x.producer, BINARY_OPS["mul"]):
            folds += _fold(module, op.x.producer)
    return folds, pools


def _fold(module: Module, factor: Any) -> bool:
    """Take a multiplication by a positive constant into the constants of the chain in front of it."""
    c = factor.constant
    if c is None or not (0 < c < math.inf) or not factor.result.has_one_use:
        return False
    chain: list[Any] = []
    op: Any = factor.a.producer
    while isinstance(op, HOMOGENEOUS + SHIFTS) and _is_alone(op) and _has_constant(op):
        chain.append(op)
        op = op.inputs[0].producer
    if not (isinstance(op, FACTORS) and _is_alone(op) and _has_constant(op)):
        return False
    members = [member for member in (*chain, op) if not isinstance(member, HOMOGENEOUS)]
    constants = [_scaled(member, c) for member in members]
    if any(new is None for new in constants):
        return False
    for member, new in zip(members, constants, strict=True):
        if isinstance(new, float):
            member.set_attribute("constant", new)
        elif new is not None:
            member.set_operand(1, module.add_constant(f"{member.operands[1].name}{SCALED}", new))
    for member in (*chain, op):
        member.result.name = f"{member.result.name}{SCALED}"
    factor.replace_with(factor.a)
    return True


def _is_alone(op: Op) -> bool:
    """Whether one op reads the result, and nothing outside sees it."""
    return op.results[0].has_one_use and op.results[0].users[0].op_name != "graph.return"


def _has_constant(op: Any) -> bool:
    if isinstance(op, HOMOGENEOUS):
        return True
    second = op.operands[1] if len(op.operands) > 1 else None
    return isinstance(second, Constant) if second is not None else op.attributes.get("constant") is not None


def _scaled(op: Any, c: float) -> np.ndarray | float | None:
    """The constant of an op, times c; None where that leaves the numbers its type holds with full precision."""
    second = op.operands[1] if len(op.operands) > 1 else None
    if second is None:
        product = float(np.float32(op.constant) * np.float32(c))
        return product if math.isfinite(product) or not math.isfinite(op.constant) else None
    dtype = second.type.dtype
    exact = second.data.astype(np.float32) * np.float32(c)
    with np.errstate(over="ignore"):  # looked for below
        new = exact.astype(dtype.numpy)
    factors = isinstance(op, FACTORS)
    tiny = np.abs(new[second.data != 0]) < np.finfo(np.float16 if dtype is DType.F16 else np.float32).tiny
    return None if not np.isfinite(new).all() or (factors and tiny.any()) else new


def _pool_before_conversion(pool: Any) -> bool:
    """max(float(int(x))) as float(int(max(x))); where that is made an integer again, just int(max(x))."""
    back = pool.x.producer
    there = back.x.producer if isinstance(back, Convert) else None
    if pool.function != "max" or not isinstance(there, Convert) or there.to.is_float:
        return False
    if not (_is_alone(back) and _is_alone(there)) or there.x.type.dtype is not pool.result.type.dtype:
        return False
    source: Value = there.x
    pool.set_operand(0, source)
    assert pool.block is not None
    name = pool.result.name
    users = list(pool.result.users)
    again = [u for u in users if _undoes(u, back)]
    small = Convert(
        pool.result, to=there.to, position=there.position, rounding=there.rounding, names=[f"{name}.int"],
        location=pool.location,
    )  # fmt: skip
    pool.block.insert_after(pool, small)
    for user in again:
        user.replace_with(small.result)
    if len(again) < len(users):
        wide = Convert(small.result, to=back.to, position=back.position, names=[name], location=pool.location)
        pool.block.insert_after(small, wide)
        pool.result.replace_uses_if(wide.result, lambda user: user is not small)
        pool.result.name = f"{name}.max"
    back.erase()
    there.erase()
    return True


def _undoes(op: Op, back: Any) -> bool:
    """Whether an op makes the integers again that `back` made floats."""
    return (
        isinstance(op, Convert) and op.to is back.x.type.dtype and op.position == back.position
        and op.x.type.dtype is back.to
    )  # fmt: skip
