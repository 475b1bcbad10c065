"""The `graph.` ops: structure that passes make. Calls between functions, fused kernels, and terminators."""

from __future__ import annotations

from collections.abc import Iterable

from compiler.ir.core import Op
from compiler.ir.define import Dict, attr, op, operand, region, result


@op("graph.return", traits=["terminator"])
class Return(Op):
    """Ends a function and gives its outputs. Printed `return %a, %b`."""

    values = operand(variadic=True)


@op("graph.yield", traits=["terminator"])
class Yield(Op):
    """Ends the region of a kernel and gives its results."""

    values = operand(variadic=True)


@op("graph.call")
class Call(Op):
    """Calls another function of the module. Result types are those the callee returns."""

    arguments = operand(variadic=True)
    callee = attr(str)
    values = result(variadic=True)

    def check(self) -> Iterable[str]:
        module = self.module
        if module is None:
            return
        callee = module.functions.get(self.callee)
        if callee is None:
            yield f"calls @{self.callee}, which the module does not have"
            return
        given = [v.type for v in self.inputs]
        wanted = [a.type for a in callee.arguments]
        if given != wanted:
            yield f"argument types differ from those of @{self.callee}"
        if [r.type for r in self.results] != [v.type for v in callee.outputs]:
            yield f"result types differ from those of @{self.callee}"


@op("graph.kernel")
class Kernel(Op):
    """A fused group of ops whose intermediates never leave the chip.

    Operands become the region's arguments in order; constants are referred to directly inside. `schedule` is written by
    the pass `schedule` (split over cores, tile, buffering, on-chip buffers); `placement` by `plan-memory` (address of
    each result); `on_chip` by `keep-on-chip` (numbers of the operands and results that lie in the shared memory, and
    where filters, scales and biases are put there in advance, -1 for those that are not).
    """

    arguments = operand(variadic=True)
    schedule = attr(Dict, default=None)
    placement = attr(Dict, default=None)
    on_chip = attr(Dict, default=None)
    body = region()
    values = result(variadic=True)

    def check(self) -> Iterable[str]:
        block = self.body.block
        if [v.type for v in self.inputs] != [a.type for a in block.arguments]:
            yield "region's argument types differ from the operands'"
        if block.last is None or block.last.op_name != "graph.yield":
            yield "region does not end with graph.yield"
        elif [v.type for v in block.last.inputs] != [r.type for r in self.results]:
            yield "result types differ from what the region yields"
