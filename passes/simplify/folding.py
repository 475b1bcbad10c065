"""Constant folding: an op of constants only is computed now, where its meaning is the same on every machine."""

from __future__ import annotations

import numpy as np

from compiler.evaluate.registry import evaluate_op, foldable
from compiler.ir.core import Constant, Op
from compiler.rewrite import Declined, Match, Rewriter, Rule, pattern


def _has_constants_only(op: Op) -> bool:
    return (
        bool(op.results)
        and not op.regions
        and op.op_name != "graph.call"
        and all(isinstance(v, Constant) for v in op.inputs)
        and all(r.type.is_static for r in op.results)
    )


def folding_rules(max_bytes: int) -> list[Rule]:
    """The rule that computes ops of constants, unless the result is over `max_bytes` and larger than the operands."""

    def fold_constants(match: Match, rewriter: Rewriter) -> object:
        op = match.root
        if not foldable(op):
            return Declined(f"{op.op_name} may differ between machines")
        size = sum(r.type.bytes for r in op.results)
        if size > max_bytes and size > sum(v.type.bytes for v in op.inputs):
            return Declined("result too large")
        arrays = [v.data if isinstance(v, Constant) else None for v in op.operands]
        for result, array in zip(op.results, evaluate_op(op, arrays), strict=True):
            data = np.array(array, order="C")  # a copy: the evaluator may have returned a view of an operand
            rewriter.replace_value(result, rewriter.constant(result.name or op.op_name, data, result.type.quant))
        rewriter.erase(op)
        return None

    return [Rule(pattern(where=_has_constants_only), fold_constants)]
