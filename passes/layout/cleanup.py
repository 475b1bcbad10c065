"""Transposes that the conversion leaves around reshapes of tokens and channels, moved out of the way or cancelled."""

from __future__ import annotations

from typing import Any

from compiler.ops.tensor import Reshape, Transpose
from compiler.rewrite import Declined, Match, Rewriter, Rule, pattern, shared
from passes.layout.rules import TO_NCHW, TO_NHWC
from passes.simplify.identities import IDENTITIES
from passes.simplify.movement import MOVEMENT

_SWAP_LAST = (0, 2, 1)
_SHUFFLE = (0, 2, 1, 3, 4)


def _perm(*perm: int) -> Any:
    return lambda op: op.perm == perm


def image_to_tokens(match: Match, rewriter: Rewriter) -> object:
    """NHWC -> NCHW -> [n, c, h*w] -> [n, h*w, c]: a reshape of the NHWC image."""
    n, c, h, w = match.back.result.type.static_shape
    if match.reshape.result.type.shape != (n, c, h * w):
        return Declined("not image to tokens")
    rewriter.replace(match.root, rewriter.create(Reshape, match.back.x, shape=(n, h * w, c)).result)
    return None


def tokens_to_image(match: Match, rewriter: Rewriter) -> object:
    """[n, h*w, c] -> [n, c, h*w] -> NCHW -> NHWC: a reshape of the tokens."""
    n, c, h, w = match.reshape.result.type.static_shape
    if match.swap.result.type.shape != (n, c, h * w):
        return Declined("not tokens to image")
    rewriter.replace(match.root, rewriter.create(Reshape, match.swap.x, shape=(n, h, w, c)).result)
    return None


def shuffle_channels(match: Match, rewriter: Rewriter) -> object:
    """A channel shuffle between two NHWC images, written in NCHW: the same on the last axis."""
    n, c, h, w = match.back.result.type.static_shape
    split = match.split.result.type.static_shape
    if split[0] != n or split[3:] != (h, w) or match.join.result.type.shape != (n, c, h, w):
        return Declined("not a channel shuffle")
    groups = rewriter.create(Reshape, match.back.x, shape=(n, h, w, split[1], split[2])).result
    swapped = rewriter.create(Transpose, groups, perm=(0, 1, 2, 4, 3)).result
    rewriter.replace(match.root, rewriter.create(Reshape, swapped, shape=(n, h, w, c)).result)
    return None


_TO_NCHW = shared(pattern("tensor.transpose", where=_perm(*TO_NCHW), bind="back"))

LAYOUT_CLEANUP = [
    *[rule for rule in MOVEMENT if rule.label in ("compose_transposes", "compose_reshapes")],
    *[rule for rule in IDENTITIES if rule.label == "drop_identity"],
    Rule(
        pattern(
            "tensor.transpose", where=_perm(*_SWAP_LAST),
            x=shared(pattern("tensor.reshape", bind="reshape", x=_TO_NCHW)),
        ),
        image_to_tokens,
    ),
    Rule(
        pattern(
            "tensor.transpose", where=_perm(*TO_NHWC),
            x=shared(pattern(
                "tensor.reshape", bind="reshape",
                x=shared(pattern("tensor.transpose", where=_perm(*_SWAP_LAST), bind="swap")),
            )),
        ),
        tokens_to_image,
    ),
    Rule(
        pattern(
            "tensor.transpose", where=_perm(*TO_NHWC),
            x=shared(pattern(
                "tensor.reshape", bind="join",
                x=shared(pattern(
                    "tensor.transpose", where=_perm(*_SHUFFLE),
                    x=shared(pattern("tensor.reshape", bind="split", x=_TO_NCHW)),
                )),
            )),
        ),
        shuffle_channels,
    ),
]  # fmt: skip
