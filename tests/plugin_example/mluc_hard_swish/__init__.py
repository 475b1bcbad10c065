"""A pass in a package of its own: x * clip(x + 3, 0, 6) / 6 is nn.hard_swish."""

from dataclasses import dataclass
from typing import ClassVar

from compiler.ir.core import Constant, Module
from compiler.ops.activation import HardSwish
from compiler.pass_manager import Pass, PassContext
from compiler.rewrite import Match, Rewriter, anything, constant, pattern


def _number(wanted: float):
    def is_number(value: Constant) -> bool:
        return value.data.size == 1 and value.data.item() == wanted

    return constant(where=is_number)


_SHIFTED = pattern("math.add", a=anything("x"), b=_number(3.0))
_CLIPPED = pattern("math.clip", x=_SHIFTED, where=lambda op: (op.low, op.high) == (0.0, 6.0))
HARD_SWISH = pattern("math.div", a=pattern("math.mul", a=anything("x"), b=_CLIPPED), b=_number(6.0))


@dataclass(frozen=True, kw_only=True)
class FindHardSwish(Pass):
    """Recognise hard-swish written out as x * clip(x + 3, 0, 6) / 6."""

    name: ClassVar[str] = "find-hard-swish"
    only: tuple[str, ...] = ()
    """Names of the values to rewrite; empty: all."""

    def run(self, module: Module, ctx: PassContext) -> None:
        ctx.rewrite(module, HARD_SWISH, self.recognise)

    def recognise(self, match: Match, rewriter: Rewriter) -> None:
        if not self.only or match.root.name in self.only:
            rewriter.replace(match.root, rewriter.create(HardSwish, match.x).result)
