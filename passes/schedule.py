"""Choosing how each kernel runs: the pass `schedule`.

The target lists the ways that fit its memories and gives each a modelled cost; the pass takes the cheapest, the first
of equals, so that the choice is deterministic. Options restrict the choice: for experiments, and for tests that force
tilings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from compiler.errors import CompilerError, Diagnostic
from compiler.ir.core import Module
from compiler.ir.printer import print_op
from compiler.pass_context import Pass, PassContext


@dataclass(frozen=True, kw_only=True)
class Schedule(Pass):
    """Choose each kernel's split over the cores, tile and buffering by modelled cost."""

    name = "schedule"
    requires_target = True
    follows = "fuse-layers"
    cores: int | None = None
    """Cores to use; none: those of the compilation."""
    max_rows: int | None = None
    """Most rows (second axis) of a tile."""
    max_channels: int | None = None
    """Most channels (last axis) of a tile; rounded up to what the filters' layout allows."""
    buffers: Literal[1, 2] | None = None
    """1: single buffers; 2: double buffers only; none: whichever costs less."""
    split: Literal["rows", "channels", "batch"] | None = None
    """Axis to cut over the cores, where a kernel can be cut along it; none: whichever costs less."""

    def __post_init__(self) -> None:
        for name in ("cores", "max_rows", "max_channels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"option {name.replace('_', '-')!r} must be at least 1, not {value}")

    def run(self, module: Module, ctx: PassContext) -> None:
        constraints = {
            "cores": self.cores or ctx.target.cores, "max_rows": self.max_rows, "max_channels": self.max_channels,
            "buffers": self.buffers, "split": self.split,
        }  # fmt: skip
        module.attributes["cores"] = constraints["cores"]
        faults: list[Diagnostic] = []
        for op in module.ops():
            if op.op_name == "graph.kernel":
                found = None
                if not ctx.may_rewrite(f"schedule {op.name}"):  # bisection asks for the plainest way instead
                    found = ctx.target.best_schedule(op, {**constraints, "cores": 1, "buffers": 1})
                found = found or ctx.target.best_schedule(op, constraints)
                if found is None:
                    faults.append(_does_not_fit(op))
                else:
                    schedule, cycles = found
                    op.set_attribute("schedule", schedule)
                    ctx.statistics.count(f"kernels with {schedule['buffers']} buffers")
                    ctx.statistics.count("modelled cycles of all kernels, one after the other", round(cycles))
        if faults:
            raise CompilerError(faults)


def _does_not_fit(kernel: Any) -> Diagnostic:
    return Diagnostic(
        code="E610", message="no tile of this kernel fits the on-chip memories", op=kernel.op_name,
        where=str(kernel.location), excerpt=print_op(kernel),
        help="relax the options of schedule, or keep the layer on the host",
    )  # fmt: skip
