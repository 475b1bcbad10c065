"""Choosing how each kernel runs: the pass `schedule`.

The target lists the ways that fit its memories and gives each a modelled cost; the pass takes the cheapest, the first
of equals, so that the choice is deterministic. Options restrict the choice: for experiments, and for tests that force
tilings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compiler.errors import CompilerError, Diagnostic
from compiler.ir.core import Module
from compiler.ir.printer import print_op
from compiler.pass_context import Pass, PassContext


@dataclass(frozen=True, kw_only=True)
class Schedule(Pass):
    """Choose each kernel's split over the cores, tile and buffering by modelled cost."""

    name = "schedule"
    requires_target = True
    verify_level = "schedule"
    cores: int | None = None
    """Cores to use; none: those of the compilation."""
    max_rows: int | None = None
    """Most rows (second axis) of a tile."""
    max_channels: int | None = None
    """Most channels (last axis) of a tile; rounded up to what the filters' layout allows."""
    buffers: int | None = None
    """1: single buffers; 2: double buffers only; none: whichever costs less."""
    split: str | None = None
    """Axis to cut over the cores: rows, channels or batch; none: whichever costs less."""

    def run(self, module: Module, ctx: PassContext) -> None:
        constraints = {
            "cores": self.cores or ctx.target.cores, "max_rows": self.max_rows, "max_channels": self.max_channels,
            "buffers": self.buffers, "split": self.split,
        }  # fmt: skip
        module.attributes["cores"] = constraints["cores"]
        faults: list[Diagnostic] = []
        for op in module.ops():
            if op.op_name == "graph.kernel":
                best = self._best(op, constraints, ctx)
                if best is None:
                    faults.append(_does_not_fit(op))
                else:
                    op.set_attribute("schedule", best)
                    ctx.statistics.count(f"{best['buffers']} buffers")
        if faults:
            raise CompilerError(faults)

    @staticmethod
    def _best(kernel: Any, constraints: dict[str, Any], ctx: PassContext) -> dict[str, Any] | None:
        best, least = None, float("inf")
        for schedule in ctx.target.schedules(kernel, constraints):
            cost = ctx.target.kernel_cost(kernel, schedule)
            if cost < least:
                best, least = schedule, cost
        return best


def _does_not_fit(kernel: Any) -> Diagnostic:
    return Diagnostic(
        code="E610", message="no tile of this kernel fits the on-chip memories", op=kernel.op_name,
        where=str(kernel.location), excerpt=print_op(kernel),
        help="relax the options of schedule, or keep the layer on the host",
    )  # fmt: skip
