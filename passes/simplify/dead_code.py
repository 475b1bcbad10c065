"""Removal of what nothing needs. Ops have no side effects, so an op whose results nobody takes is dead."""

from __future__ import annotations

from compiler.ir.core import Module
from compiler.pass_context import PassContext


def remove_dead_code(module: Module, ctx: PassContext) -> None:
    """Erase unused ops, then drop unused constants; both are counted."""
    erased = 0
    for function in module.functions.values():
        for op in reversed(function.body):
            if "terminator" in op.signature.traits:
                continue
            if not any(result.uses for result in op.results):
                op.erase()
                erased += 1
    ctx.statistics.count("dead ops removed", erased)
    ctx.statistics.count("unused constants dropped", module.drop_unused_constants())
