"""Common subexpressions: equal constants become one, and equal ops of the same operands become one."""

from __future__ import annotations

from collections.abc import Hashable

from compiler.ir.core import Block, Constant, Module, Op, Value
from compiler.ir.types import TensorType
from compiler.pass_context import PassContext
from compiler.rewrite import keep_output_names

_UNORDERED = frozenset({"math.add", "math.mul", "math.equal", "math.and", "math.or", "math.xor"})
"""Ops that give the same bits in either order; maximum of +0 and -0 does not."""


def merge_equal_constants(module: Module, ctx: PassContext) -> int:
    """Make every use of equal constants use the first of them; returns how many went out of use."""
    alike: dict[TensorType, list[Constant]] = {}
    for constant in module.constants.values():
        if constant.uses:
            alike.setdefault(constant.type, []).append(constant)
    merged = 0
    for group in alike.values():
        if len(group) > 1:  # only then are contents worth hashing
            merged += _merge_group(group, ctx)
    ctx.statistics.count("equal constants merged", merged)
    return merged


def _merge_group(group: list[Constant], ctx: PassContext) -> int:
    first_of: dict[str, Constant] = {}
    merged = 0
    for constant in group:
        first = first_of.setdefault(constant.hash, constant)
        if first is not constant and ctx.may_rewrite(f"merge_equal_constants at @{constant.name}"):
            constant.replace_all_uses_with(first)
            merged += 1
    return merged


def merge_equal_ops(module: Module, ctx: PassContext) -> int:
    """Merge equal ops of each function's own block; returns how many went."""
    merged = sum(_merge_in(function.body, ctx) for function in module.functions.values())
    ctx.statistics.count("equal ops merged", merged)
    return merged


def _merge_in(block: Block, ctx: PassContext) -> int:
    known: dict[Hashable, Op] = {}
    merged = 0
    for op in block:
        if op.regions or not op.results:
            continue
        first = known.setdefault(_key(op), op)
        if first is op or not ctx.may_rewrite(f"merge_equal_ops at {op.name}"):
            continue
        for result, same in zip(op.results, first.results, strict=True):
            keep_output_names(result, same)
        first.location = first.location | op.location
        op.replace_with(*first.results)
        merged += 1
    return merged


def _key(op: Op) -> Hashable:
    operands: list[Value | None] = list(op.operands)
    if op.op_name in _UNORDERED:
        operands.sort(key=id)
    attributes = tuple(sorted((k, repr(v)) for k, v in op.attributes.items()))  # repr tells -0.0 from 0.0
    return op.op_name, tuple(map(id, operands)), attributes, tuple(r.type for r in op.results)
