"""Unstructured pruning: the smallest weights become zero. A study of what a network can lose, not a way to speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from compiler.ir.core import Constant, Module
from compiler.pass_context import Pass, PassContext
from passes.layers import layers, reject_quantised, replace_constant


@dataclass(frozen=True, kw_only=True)
class PruneMagnitude(Pass):
    """Set the weights of smallest magnitude to zero. The chip gains no speed from it: it has no sparse arithmetic.

    `ratio` is the part of the weights of convolutions and matmuls that become zero: of each layer's, or with scope
    `global` of all layers' together. The file compresses better; for speed use prune-channels.
    """

    name = "prune-magnitude"
    ratio: float = 0.5
    scope: Literal["layer", "global"] = "layer"

    def __post_init__(self) -> None:
        if not 0.0 <= self.ratio < 1.0:
            raise ValueError(f"option 'ratio' must be at least 0 and below 1, not {self.ratio:g}")

    def run(self, module: Module, ctx: PassContext) -> None:
        reject_quantised(module, self.name)
        weights = list(dict.fromkeys(constant for _, constant in layers(module)))
        if not weights:
            return
        for constant, zeroed in zip(weights, self._zeroed(weights), strict=True):
            if zeroed.any() and ctx.may_rewrite(f"prune-magnitude at @{constant.name}"):
                pruned = np.where(zeroed, constant.data.dtype.type(0), constant.data)
                constant.replace_all_uses_with(replace_constant(constant, pruned))
        left = {constant for _, constant in layers(module)}
        ctx.statistics.count("weights", sum(c.data.size for c in left))
        ctx.statistics.count("weights that are zero", sum(c.data.size - int(np.count_nonzero(c.data)) for c in left))

    def _zeroed(self, weights: list[Constant]) -> list[np.ndarray]:
        """For each constant, which elements become zero."""
        flat = [np.abs(c.data.reshape(-1).astype(np.float32)) for c in weights]
        if self.scope == "layer":
            masks = [_smallest(magnitudes, self.ratio) for magnitudes in flat]
        else:
            ends = np.cumsum([len(magnitudes) for magnitudes in flat])[:-1]
            masks = np.split(_smallest(np.concatenate(flat), self.ratio), ends)
        return [mask.reshape(c.data.shape) for mask, c in zip(masks, weights, strict=True)]


def _smallest(magnitudes: np.ndarray, ratio: float) -> np.ndarray:
    """A mask of the `ratio` smallest; among equals the earlier ones."""
    mask = np.zeros(len(magnitudes), bool)
    mask[np.argsort(magnitudes, kind="stable")[: round(len(magnitudes) * ratio)]] = True
    return mask
