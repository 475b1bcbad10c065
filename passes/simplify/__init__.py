"""`simplify`: constant folding, identities, movement composed and cancelled, common subexpressions, dead code.

Everything here keeps the meaning of every remaining value, bit for bit except for the sign of a zero. The rules are
tables in `folding`, `identities`, `movement` and `blocks`; rules for one target are not wanted here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from compiler.ir.core import Module
from compiler.pass_context import Pass, PassContext
from compiler.rewrite import Rule
from passes.simplify.blocks import BLOCKS
from passes.simplify.dead_code import remove_dead_code
from passes.simplify.folding import folding_rules
from passes.simplify.identities import IDENTITIES
from passes.simplify.merging import merge_equal_constants, merge_equal_ops
from passes.simplify.movement import MOVEMENT
from passes.simplify.naming import name_nameless_values


@dataclass(frozen=True, kw_only=True)
class Simplify(Pass):
    """Fold constants, drop identities, compose transposes and reshapes, merge equal ops, remove dead code."""

    name: ClassVar[str] = "simplify"
    max_folded_bytes: int = 64 << 20
    """Results larger than this are not computed at compile time, unless they are no larger than their operands."""

    def run(self, module: Module, ctx: PassContext) -> None:
        rules: Sequence[Rule] = [*folding_rules(self.max_folded_bytes), *IDENTITIES, *MOVEMENT, *BLOCKS]
        merge_equal_constants(module, ctx)
        merged = 1
        while merged:
            ctx.rewrite(module, rules)
            merged = merge_equal_ops(module, ctx)
        remove_dead_code(module, ctx)
        name_nameless_values(module)


@dataclass(frozen=True, kw_only=True)
class FoldConstants(Pass):
    """Compute at compile time whatever depends on constants only."""

    name: ClassVar[str] = "fold-constants"
    max_folded_bytes: int = 64 << 20

    def run(self, module: Module, ctx: PassContext) -> None:
        ctx.rewrite(module, folding_rules(self.max_folded_bytes))
        remove_dead_code(module, ctx)
