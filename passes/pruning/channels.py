"""Structured pruning: whole channels go, shapes shrink, and the chip really has less to do.

The dependency analysis (`groups`, `flow`) says which channels live and die together; this pass chooses the ones whose
weights are smallest and takes them out. Nothing is retrained: that is for the framework the model came from, so ratios
beyond a few tenths cost accuracy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from compiler.errors import CompilerError, Diagnostic, did_you_mean
from compiler.ir.core import Module
from compiler.pass_context import Pass, PassContext
from passes.layers import layer_names, matching, parameters, reject_quantised, unmatched
from passes.pruning.flow import dependencies
from passes.pruning.groups import Group


@dataclass(frozen=True, kw_only=True)
class PruneChannels(Pass):
    """Remove the channels with the smallest weights (L1, summed over all layers they are tied to by sums and concats).

    `ratio` is the part of each group's channels to remove. The number kept is rounded to the nearest `multiple`; 0
    takes the target's lanes for groups larger than those and a quarter of the group, as a power of two, for smaller
    ones. Layers that match `keep` keep their output channels, and so do the network's outputs. Applied before
    quantisation.
    """

    name = "prune-channels"
    ratio: float = 0.3
    multiple: int = 0
    keep: tuple[str, ...] = ()
    min_channels: int = 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.ratio < 1.0:
            raise ValueError(f"option 'ratio' must be at least 0 and below 1, not {self.ratio:g}")
        if self.multiple < 0 or self.min_channels < 1:
            raise ValueError("option 'multiple' must not be negative, 'min-channels' must be at least 1")

    def run(self, module: Module, ctx: PassContext) -> None:
        reject_quantised(module, self.name)
        self._check_patterns(module)
        found = dependencies(module.main, lambda op: matching(self.keep, op))
        before = parameters(module)
        dead: list[np.ndarray] = []
        for group in found.groups():
            dead += self._choose(group, ctx)
        if dead:
            found.remove(module, module.main, np.concatenate(dead).tolist())
            module.drop_unused_constants()
        ctx.statistics.count("parameters before", before)
        ctx.statistics.count("parameters after", parameters(module))

    def _check_patterns(self, module: Module) -> None:
        names = layer_names(module)
        faults = [
            Diagnostic(
                code="E541",
                op=self.name,
                message=f"keep: {p!r} names no layer with weights",
                help=did_you_mean(p, names),
            )
            for p in unmatched(self.keep, names)
        ]
        if faults:
            raise CompilerError(faults)

    def _choose(self, group: Group, ctx: PassContext) -> list[np.ndarray]:
        """The atoms of the components of a group that go: those of least saliency, the last of equals first."""
        total = len(group.components)
        if group.pinned:
            ctx.statistics.count(f"channels left alone: {group.pinned}", total)
            return []
        kept = kept_channels(total, self.ratio, self._multiple(total, ctx), self.min_channels)
        if kept >= total:
            ctx.statistics.count("channels left alone: rounded up to the whole group", total)
            return []
        if not ctx.may_rewrite(f"prune-channels at {group.name}"):
            return []
        order = sorted(range(total), key=lambda i: (-group.components[i].saliency, i))
        ctx.statistics.count("channels removed", total - kept)
        ctx.statistics.count(f"{group.name}: {total} -> {kept}")
        return [group.components[i].atoms for i in order[kept:]]

    def _multiple(self, total: int, ctx: PassContext) -> int:
        if self.multiple:
            return self.multiple
        lanes = ctx.target.lanes if ctx.target is not None else 1
        return lanes if total > lanes else small_multiple(total, lanes)


def kept_channels(total: int, ratio: float, multiple: int, least: int = 1) -> int:
    """How many of `total` channels stay: `total * (1 - ratio)` to the nearest multiple, at least one multiple."""
    wanted = total * (1.0 - ratio)
    kept = max(math.floor(wanted / multiple + 0.5), 1) * multiple
    return min(max(kept, least), total)


def small_multiple(total: int, lanes: int) -> int:
    """The rounding for a group of no more channels than lanes: a quarter of it, as a power of two, at most `lanes`."""
    return min(lanes, 1 << max((total // 4).bit_length() - 1, 0))
