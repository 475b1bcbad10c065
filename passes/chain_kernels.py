"""Joining kernels whose intermediate need not leave the chip: the pass `chain-kernels`.

`fuse-layers` makes one kernel per anchor. Where a kernel's results go to one other kernel only (expand → depthwise →
project, convolution → pooling), the two can be one: tiles of the second ask for their halo of the first, which computes
it again at tile borders, and the tensor between them is neither stored nor loaded. The target models both ways; the
cheaper one stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from compiler.ir.core import Module, Region, Result, Value
from compiler.ir.location import Location
from compiler.ir.verifier import is_subnet
from compiler.ops.graph import Kernel, Yield
from compiler.pass_context import Pass, PassContext


@dataclass(frozen=True, kw_only=True)
class ChainKernels(Pass):
    """Join kernels that follow each other where the target models the whole as cheaper than its parts."""

    name = "chain-kernels"
    requires_target = True
    follows = "fuse-layers"
    max_ops: int = 40
    """Most ops in a kernel."""
    gain: float = 0.0
    """Join only where at least this share of the cycles is saved."""

    kept: float = 0.25
    """Tensors of up to this share of the memory that the cores share are expected to stay there."""

    def run(self, module: Module, ctx: PassContext) -> None:
        cores = module.attributes.get("cores", ctx.target.cores)
        constraints = {"cores": cores, "buffers": 2, "assumed": int(ctx.target.shared_bytes * self.kept)}
        for function in module.functions.values():
            if is_subnet(function):
                for op in list(function.body):
                    if isinstance(op, Kernel):
                        self._absorb_producers(op, constraints, ctx)

    def _absorb_producers(self, kernel: Kernel, constraints: dict[str, Any], ctx: PassContext) -> None:
        """Join a kernel with those that feed it alone, nearest first, as long as that saves cycles."""
        while True:
            for value in kernel.inputs:
                first = value.producer
                if isinstance(first, Kernel) and self._pays(first, kernel, constraints, ctx):
                    kernel = join(first, kernel)
                    break
            else:
                return

    def _pays(self, first: Kernel, second: Kernel, constraints: dict[str, Any], ctx: PassContext) -> bool:
        if any(user is not second and not second.is_before(user) for result in first.results for user in result.users):
            return False
        if len(first.body.block) + len(second.body.block) - 2 > self.max_ops:
            return False
        reason = ctx.target.reason_against_chaining(first, second)
        if reason is None:
            reason = self._reason_in_cycles(first, second, constraints, ctx)
        if reason is not None:
            ctx.statistics.count(f"left apart: {reason}")
            return False
        if not ctx.may_rewrite(f"chain {first.name} and {second.name}"):
            return False
        ctx.statistics.count("kernels joined with the one that feeds them")
        return True

    def _reason_in_cycles(
        self, first: Kernel, second: Kernel, constraints: dict[str, Any], ctx: PassContext
    ) -> str | None:
        parts = [ctx.target.best_schedule(kernel, constraints) for kernel in (first, second)]
        apart = sum(part[1] for part in parts if part is not None) if all(parts) else math.inf
        trial = joined(first, second)
        whole = ctx.target.best_schedule(trial, {**constraints, "below": apart * (1.0 - self.gain)})
        trial.erase()
        if whole is not None:
            return None
        return "together they take longer, or do not fit the chip's memories"


def joined(first: Kernel, second: Kernel) -> Kernel:
    """A detached kernel that does what both do; neither is changed. It holds uses of what both take until it is
    erased."""
    region = Region()
    mapping: dict[Value, Value] = {}
    outside: dict[Value, Value] = {}
    made = set(first.results)

    def enter(kernel: Kernel) -> None:
        for value, argument in zip(kernel.inputs, kernel.body.block.arguments, strict=True):
            if value in made:
                mapping[argument] = mapping[_yielded(first, value)]  # type: ignore[arg-type]
                continue
            if value not in outside:
                outside[value] = region.block.add_argument(argument.type, argument.name)
            mapping[argument] = outside[value]

    for kernel in (first, second):
        enter(kernel)
        for op in kernel.body.block:
            if op.op_name != "graph.yield":
                region.block.append(op.clone(mapping))
    results = [*second.results, *shared_results(first, second)]
    inner = [*second.body.block.terminator.inputs, *(_yielded(first, r) for r in results[len(second.results) :])]
    region.block.append(Yield(*(mapping[v] for v in inner)))
    return Kernel(
        *outside, types=[r.type for r in results], names=[r.name for r in results], regions=[region],
        location=Location.union((first.location, second.location)),
    )  # fmt: skip


def shared_results(first: Kernel, second: Kernel) -> list[Result]:
    """Results of the first kernel that others than the second take too: the two together still give them."""
    return [r for r in first.results if any(user is not second for user in r.users)]


def _yielded(kernel: Kernel, result: Result) -> Value:
    return kernel.body.block.terminator.inputs[kernel.results.index(result)]


def join(first: Kernel, second: Kernel) -> Kernel:
    """Put the joined kernel in the place of the second; both are gone afterwards."""
    kernel = joined(first, second)
    shared = shared_results(first, second)
    assert second.block is not None
    second.block.insert_before(second, kernel)
    for old, new in zip(shared, kernel.results[len(second.results) :], strict=True):
        old.replace_uses_if(new, lambda user: user is not second)
    second.replace_with(*kernel.results[: len(second.results)])
    first.erase()
    return kernel
