"""Reshapes and transposes that together say something plainer: pixel shuffles, and unit axes that only come and go."""

from __future__ import annotations

from typing import Any

from compiler.ir.core import Op, Value
from compiler.ops.activation import PRelu
from compiler.ops.nn import DepthToSpace, SpaceToDepth
from compiler.ops.tensor import Pad, Reshape, Slice
from compiler.rewrite import Declined, Match, Rewriter, Rule, pattern
from passes.op_kinds import is_elementwise

# -- pixel shuffles --------------------------------------------------------------------------------------------------
_DEPTH_TO_SPACE = {
    (0, 1, 4, 2, 5, 3): ("CRD", 1, 2),
    (0, 3, 4, 1, 5, 2): ("DCR", 3, 1),
}
"""perm → mode, and which axes of the split shape are the channels and the first block axis."""

_SPACE_TO_DEPTH = (0, 3, 5, 1, 2, 4)


def find_depth_to_space(match: Match, rewriter: Rewriter) -> object:
    """[n, c*b*b, h, w] split into six axes, transposed and joined to [n, c, h*b, w*b]: depth_to_space."""
    mode, channels, block = _DEPTH_TO_SPACE[match.transpose.perm]
    x, split = match.split.x, match.split.result.type.shape
    b, c = split[block], split[channels]
    if x.type.rank != 4 or split[block + 1] != b or None in split:
        return Declined("not a pixel shuffle")
    n, _, h, w = x.type.shape
    if split[0] != n or split[4:] != (h, w) or match.root.result.type.shape != (n, c, h * b, w * b):
        return Declined("not a pixel shuffle")
    rewriter.replace(match.root, rewriter.create(DepthToSpace, x, block_size=b, mode=mode).result)
    return None


def find_space_to_depth(match: Match, rewriter: Rewriter) -> object:
    """[n, c, h*b, w*b] split into six axes, transposed and joined to [n, b*b*c, h, w]: space_to_depth."""
    x, split = match.split.x, match.split.result.type.shape
    if x.type.rank != 4 or None in split or split[3] != split[5]:
        return Declined("not a pixel shuffle")
    n, c, h, b, w, _ = split
    if x.type.shape != (n, c, h * b, w * b) or match.root.result.type.shape != (n, c * b * b, h, w):
        return Declined("not a pixel shuffle")
    rewriter.replace(match.root, rewriter.create(SpaceToDepth, x, block_size=b).result)
    return None


def _shuffle(*perms: tuple[int, ...]) -> Any:
    split = pattern("tensor.reshape", bind="split", where=lambda op: op.result.type.rank == 6)
    return pattern(
        "tensor.reshape",
        x=pattern("tensor.transpose", bind="transpose", where=lambda op: op.perm in perms, x=split),
    )


# -- unit axes -------------------------------------------------------------------------------------------------------
def _without_ones(value: Value) -> tuple[int | None, ...]:
    return tuple(d for d in value.type.shape if d != 1)


def _squeezed(value: Value | None) -> Value | None:
    """What a reshape that only adds or removes axes of one element was made of; None for any other value."""
    op = value.producer if value is not None else None
    if not isinstance(op, Reshape) or _without_ones(op.x) != _without_ones(op.result):
        return None
    per_axis = op.x.type.quant is not None and op.x.type.quant.axis is not None
    return None if per_axis or not op.x.type.is_static else op.x


def _takes_squeezed_only(op: Op) -> bool:
    """Whether all operands but single numbers are such reshapes, each for this op alone, of values of one shape."""
    if not is_elementwise(op):
        return False
    images = [v for v in op.inputs if v.type.elements != 1]
    sources = [_squeezed(v) for v in images]
    shapes = [source.type.shape for source in sources if source is not None]
    alone = all(all(user is op for user in v.users) and v.type.shape == op.result.type.shape for v in images)
    if not images or not alone or len(shapes) != len(images) or len(set(shapes)) != 1:
        return False
    return not isinstance(op, PRelu) or op.slope.type.rank <= len(shapes[0])  # a slope may not add axes


def _replace_by_reshape_of(new: Op, op: Op, rewriter: Rewriter) -> None:
    """Let `new`, which has the name of `op`, stand for it through a reshape."""
    shape = op.result.type.static_shape
    rewriter.replace(op, rewriter.create(Reshape, new.result, names=[f"{op.name}.reshape"], shape=shape).result)


def sink_squeeze(match: Match, rewriter: Rewriter) -> None:
    """f(reshape(x)), f elementwise, the reshape adding or removing unit axes: reshape(f(x)), to meet its inverse."""
    op = match.root
    operands = [v if v is None or v.type.elements == 1 else _squeezed(v) for v in op.operands]
    _replace_by_reshape_of(rewriter.create(type(op), *operands, names=[op.name], **op.attributes), op, rewriter)


def _source_axes(outer: Value, inner: Value) -> list[int | None]:
    """For each axis of `inner`, the axis of `outer` with the same indices; None for axes of one element."""
    there = iter(i for i, d in enumerate(outer.type.shape) if d != 1)
    return [next(there) if d != 1 else None for d in inner.type.shape]


def _takes_squeezed(op: Op) -> bool:
    return op.result.type.is_static and op.result.type.elements > 0 and _squeezed(op.operands[0]) is not None


def sink_squeeze_below_slice(match: Match, rewriter: Rewriter) -> None:
    """slice(reshape(x)), the reshape adding or removing unit axes: reshape(slice(x))."""
    op = match.root
    x = op.x.producer.x
    axes = _source_axes(op.x, x)
    new = rewriter.create(
        Slice,
        x,
        names=[op.name],
        starts=[0 if a is None else op.starts[a] for a in axes],
        sizes=[1 if a is None else op.sizes[a] for a in axes],
        steps=[1 if a is None else op.strides[a] for a in axes] if op.steps else (),
    )
    _replace_by_reshape_of(new, op, rewriter)


def sink_squeeze_below_pad(match: Match, rewriter: Rewriter) -> object:
    """pad(reshape(x)), the reshape adding or removing unit axes that are not padded: reshape(pad(x))."""
    op = match.root
    x = op.x.producer.x
    if any(any(pair) for pair, d in zip(op.pairs, op.x.type.shape, strict=True) if d == 1):
        return Declined("pads a unit axis")
    pairs = [(0, 0) if a is None else op.pairs[a] for a in _source_axes(op.x, x)]
    pads = [before for before, _ in pairs] + [after for _, after in pairs]
    new = rewriter.create(Pad, x, names=[op.name], pads=pads, mode=op.mode, value=op.value)
    _replace_by_reshape_of(new, op, rewriter)
    return None


BLOCKS = [
    Rule(_shuffle(*_DEPTH_TO_SPACE), find_depth_to_space),
    Rule(_shuffle(_SPACE_TO_DEPTH), find_space_to_depth),
    Rule(pattern(where=_takes_squeezed_only), sink_squeeze),
    Rule(pattern("tensor.slice", where=_takes_squeezed), sink_squeeze_below_slice),
    Rule(pattern("tensor.pad", where=_takes_squeezed), sink_squeeze_below_pad),
]
