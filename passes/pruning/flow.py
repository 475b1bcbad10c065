"""How channels flow through each op: the table behind the dependency analysis of `groups`.

A rule looks at the channels of an op's operands, notes ties, pins and the constants to be sliced, and says what the
channels of the result are; None means that nothing is known of it. An op without a rule pins what flows into it, which
is always safe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.ir.core import Constant, Function, Op
from compiler.ops.shapes import channel_axis
from passes.pruning.groups import Channels, Dependencies

Rule = Callable[[Any, Dependencies], Channels | None]


def not_understood(op: Op, found: Dependencies) -> Channels | None:
    """The op may mix channels: all of its inputs' stay."""
    found.pin_inputs(op, "network output" if op.op_name == "graph.return" else f"{op.op_name} needs every channel")
    return None


def _input(op: Any, found: Dependencies, axis: int) -> Channels | None:
    """The channels of the first operand, if they lie along `axis`; otherwise they are pinned."""
    channels = found.channels.get(op.operands[0])
    if channels is not None and channels.axis != axis:
        not_understood(op, found)
        return None
    return channels


def _weights(op: Op, index: int = 1) -> np.ndarray | None:
    """The data of a constant, unquantised operand."""
    w = op.operands[index]
    return w.data if isinstance(w, Constant) and w.type.quant is None else None


# -- makers of channels ------------------------------------------------------------------------------------------------
def conv2d(op: Any, found: Dependencies) -> Channels | None:
    """A convolution makes channels of its own; a depthwise one carries its input's on; a grouped one pins them."""
    w, axis = _weights(op), channel_axis(op.layout)
    if w is None:
        return not_understood(op, found)
    inner = 1 if op.layout == "NCHW" else 3
    if op.groups > 1:
        return _depthwise(op, found, w, axis) if w.shape[inner] == 1 else not_understood(op, found)
    channels = _input(op, found, axis)
    if channels is not None:
        found.slice(op, 1, inner, channels.atoms, contracted=True)
    return _made(op, found, w, 0, axis)


def _made(op: Any, found: Dependencies, w: np.ndarray, w_axis: int, axis: int) -> Channels:
    atoms = found.made(op, w.shape[w_axis])
    found.weigh(atoms, w, w_axis)
    found.slice(op, 1, w_axis, atoms)
    if op.op_name != "nn.matmul":
        _slice_vector(op, found, 2, atoms)
    return Channels(axis, atoms)


def _slice_vector(op: Op, found: Dependencies, index: int, atoms: np.ndarray) -> None:
    value = op.operands[index]
    if value is None or isinstance(value, Constant):
        found.slice(op, index, 0, atoms)
    else:
        found.pin(atoms, f"{op.op_name} takes a computed vector")


def _depthwise(op: Any, found: Dependencies, w: np.ndarray, axis: int) -> Channels | None:
    channels = _input(op, found, axis)
    if channels is None:
        return None
    incoming = channels.atoms
    atoms = np.repeat(incoming, len(w) // len(incoming))
    found.weigh(atoms, w, 0)
    found.slice(op, 1, 0, atoms)
    _slice_vector(op, found, 2, atoms)
    found.updates.append(lambda count: op.set_attribute("groups", count(incoming)))
    return Channels(axis, atoms)


def conv_transpose2d(op: Any, found: Dependencies) -> Channels | None:
    """As conv2d, with the weights' first two axes exchanged."""
    w, axis = _weights(op), channel_axis(op.layout)
    if w is None or op.groups > 1:
        return not_understood(op, found)
    channels = _input(op, found, axis)
    if channels is not None:
        found.slice(op, 1, 0, channels.atoms, contracted=True)
    return _made(op, found, w, axis, axis)


def matmul(op: Any, found: Dependencies) -> Channels | None:
    """A constant right factor makes channels along the last axis, and contracts those of the left factor's."""
    w, rank = _weights(op), op.a.type.rank
    if w is None or w.ndim != 2 or rank < 2:
        return not_understood(op, found)
    channels = found.channels.get(op.a)
    if channels is not None and channels.axis != rank - 1:
        return channels
    if channels is not None:
        found.slice(op, 1, 0, channels.atoms, contracted=True)
    return _made(op, found, w, 1, rank - 1)


# -- element by element ------------------------------------------------------------------------------------------------
def unary(op: Op, found: Dependencies) -> Channels | None:
    """Each channel stays itself."""
    return found.channels.get(op.inputs[0])


def elementwise(op: Op, found: Dependencies) -> Channels | None:
    """Operands broadcast; computed ones are tied, constant ones are sliced where they have an entry per channel."""
    rank, known = op.result.type.rank, {}
    for index, value in enumerate(op.operands):
        if value is not None and (channels := found.channels.get(value)) is not None:
            known[index] = Channels(channels.axis + rank - value.type.rank, channels.atoms)
    if not known:
        return None
    first = next(iter(known.values()))
    if any(c.axis != first.axis or len(c.atoms) != op.result.type.shape[first.axis] for c in known.values()):
        return not_understood(op, found)
    for index, value in enumerate(op.operands):
        axis = first.axis - (rank - value.type.rank) if value is not None else -1
        if index in known:
            found.tie(first.atoms, known[index].atoms)
        elif value is not None and axis >= 0 and value.type.shape[axis] != 1:
            if isinstance(value, Constant):
                found.slice(op, index, axis, first.atoms)
            else:
                found.pin(first.atoms, f"{op.op_name} with a value of unknown channels")
    return first


def per_channel(op: Any, found: Dependencies) -> Channels | None:
    """A normalisation whose vectors have an entry per channel of `axis`."""
    channels = _input(op, found, op.axis % op.operands[0].type.rank)
    if channels is not None:
        for index in range(1, len(op.operands)):
            _slice_vector(op, found, index, channels.atoms)
    return channels


def along_axis(op: Any, found: Dependencies) -> Channels | None:
    """Softmax and the like: they mix along `axis` only."""
    channels = found.channels.get(op.operands[0])
    if channels is not None and channels.axis == op.axis % op.operands[0].type.rank:
        return not_understood(op, found)
    return channels


def trailing_axes(op: Any, found: Dependencies) -> Channels | None:
    """Layer-norm: mixes `axis` and all after it."""
    channels = found.channels.get(op.operands[0])
    if channels is not None and channels.axis >= op.axis % op.operands[0].type.rank:
        return not_understood(op, found)
    return channels


def spatial(op: Any, found: Dependencies) -> Channels | None:
    """Pooling works on each channel by itself."""
    return _input(op, found, channel_axis(op.layout))


def resize(op: Any, found: Dependencies) -> Channels | None:
    channels = found.channels.get(op.x)
    if channels is None:
        return None
    if op.sizes[channels.axis] != len(channels.atoms):
        return not_understood(op, found)
    _resized(op, found, "sizes", channels)
    return channels


def reduction(op: Any, found: Dependencies) -> Channels | None:
    """Reducing other axes leaves channels alone."""
    channels, rank = found.channels.get(op.x), op.x.type.rank
    if channels is None:
        return None
    given = op.axes if "axes" in op.signature.attributes else (op.axis,)
    axes = {a % rank for a in given} if given else set(range(rank))
    if channels.axis in axes:
        return not_understood(op, found)
    before = 0 if op.keepdims else sum(a < channels.axis for a in axes)
    return Channels(channels.axis - before, channels.atoms)


# -- movement ----------------------------------------------------------------------------------------------------------
def _resized(op: Op, found: Dependencies, attribute: str, channels: Channels) -> None:
    """Keep one entry of a shape attribute equal to the number of channels left."""

    def update(count: Callable[[np.ndarray], int]) -> None:
        shape = list(op.attributes[attribute])
        shape[channels.axis] = count(channels.atoms)
        op.set_attribute(attribute, tuple(shape))

    found.updates.append(update)


def transpose(op: Any, found: Dependencies) -> Channels | None:
    channels = found.channels.get(op.x)
    return Channels(list(op.perm).index(channels.axis), channels.atoms) if channels is not None else None


def reshape(op: Any, found: Dependencies) -> Channels | None:
    """An axis that holds the channels whole, alone or with neighbours, keeps track of them; a split pins them."""
    channels = found.channels.get(op.x)
    if channels is None:
        return None
    moved = _reshaped(channels, op.x.type.static_shape, op.result.type.static_shape)
    if moved is None:
        return not_understood(op, found)
    _resized(op, found, "shape", moved)
    return moved


def _reshaped(channels: Channels, before: tuple[int, ...], after: tuple[int, ...]) -> Channels | None:
    """The axis of `after` whose index runs over outer * channels * inner elements of `before`, if there is one."""
    count, stride = before[channels.axis], int(np.prod(before[channels.axis + 1 :], dtype=np.int64))
    span = count * stride
    for axis, size in enumerate(after):
        step = int(np.prod(after[axis + 1 :], dtype=np.int64))
        if size > 1 and step <= stride and size * step >= span and stride % step == 0 and (size * step) % span == 0:
            repeated = np.repeat(channels.atoms, stride // step)
            return Channels(axis, np.tile(repeated, size * step // span))
    return None


def concat(op: Any, found: Dependencies) -> Channels | None:
    """Along the channel axis, channels line up; along another one they are tied."""
    known = [found.channels.get(v) for v in op.xs]
    axes = {c.axis for c in known if c is not None}
    axis = op.axis % op.result.type.rank
    if not axes:
        return None
    if len(axes) > 1:
        return not_understood(op, found)
    if axes != {axis}:
        return _tied(op, found, known)
    parts = []
    for value, channels in zip(op.xs, known, strict=True):
        if channels is None:
            atoms = found.fresh(value.name, value.type.static_shape[axis])
            found.pin(atoms, "concatenated with unknown channels")
        parts.append(channels.atoms if channels is not None else atoms)
    return Channels(axis, np.concatenate(parts))


def _tied(op: Any, found: Dependencies, known: list[Channels | None]) -> Channels | None:
    if any(c is None for c in known):
        return not_understood(op, found)
    first, *rest = [c for c in known if c is not None]
    for other in rest:
        found.tie(first.atoms, other.atoms)
    return first


def slice_(op: Any, found: Dependencies) -> Channels | None:
    """A dense run of channels; strides over channels pin them."""
    channels = found.channels.get(op.x)
    if channels is None:
        return None
    axis = channels.axis
    steps = op.steps or (1,) * op.x.type.rank
    if steps[axis] != 1:
        return not_understood(op, found)
    start, size = op.starts[axis], op.sizes[axis]
    skipped, taken = channels.atoms[:start], channels.atoms[start : start + size]

    def update(count: Callable[[np.ndarray], int]) -> None:
        starts, sizes = list(op.starts), list(op.sizes)
        starts[axis], sizes[axis] = count(skipped), count(taken)
        op.set_attribute("starts", tuple(starts))
        op.set_attribute("sizes", tuple(sizes))

    found.updates.append(update)
    return Channels(axis, taken)


def pad(op: Any, found: Dependencies) -> Channels | None:
    """Padding channels makes atoms without weights, which go with whatever they are added to."""
    channels = found.channels.get(op.x)
    if channels is None:
        return None
    axis, rank = channels.axis, op.x.type.rank
    before, after = op.pads[axis], op.pads[axis + rank]
    if before == after == 0:
        return channels
    if op.mode != "constant" or before < 0 or after < 0:
        return not_understood(op, found)
    ahead, behind = found.fresh(op.name, before), found.fresh(op.name, after)

    def update(count: Callable[[np.ndarray], int]) -> None:
        pads = list(op.pads)
        pads[axis], pads[axis + rank] = count(ahead), count(behind)
        op.set_attribute("pads", tuple(pads))

    found.updates.append(update)
    return Channels(axis, np.concatenate([ahead, channels.atoms, behind]))


def broadcast_to(op: Any, found: Dependencies) -> Channels | None:
    channels = found.channels.get(op.x)
    if channels is None:
        return None
    moved = Channels(channels.axis + op.result.type.rank - op.x.type.rank, channels.atoms)
    if op.result.type.shape[moved.axis] != len(moved.atoms):
        return not_understood(op, found)
    _resized(op, found, "shape", moved)
    return moved


def tile(op: Any, found: Dependencies) -> Channels | None:
    channels = found.channels.get(op.x)
    if channels is not None and op.repeats[channels.axis] != 1:
        return not_understood(op, found)
    return channels


_UNARY = """
nn: relu leaky_relu elu selu celu thresholded_relu sigmoid hard_sigmoid hard_swish silu gelu softplus softsign mish
math: neg abs sign not exp log sqrt rsqrt reciprocal erf tanh sin cos tan asin acos atan sinh cosh asinh acosh atanh
math: floor ceil round isnan isinf clip cast
"""
_ELEMENTWISE = """
nn: prelu
math: add sub mul div pow maximum minimum mod equal less less_equal greater greater_equal and or xor where
"""
_SPATIAL = "nn: max_pool2d avg_pool2d global_avg_pool global_max_pool"
_REDUCTIONS = "reduce: sum mean max min prod l1 l2 log_sum_exp argmax argmin"


def _rows(names: str, rule: Rule) -> dict[str, Rule]:
    """Op names, a line per family, each with `rule`."""
    lines = [line.partition(":") for line in names.strip().splitlines()]
    return {f"{family}.{name}": rule for family, _, words in lines for name in words.split()}


RULES: dict[str, Rule] = {
    **_rows(_UNARY, unary),
    **_rows(_ELEMENTWISE, elementwise),
    **_rows(_SPATIAL, spatial),
    **_rows(_REDUCTIONS, reduction),
    "nn.conv2d": conv2d,
    "nn.conv_transpose2d": conv_transpose2d,
    "nn.matmul": matmul,
    "nn.batch_norm": per_channel,
    "nn.instance_norm": per_channel,
    "nn.softmax": along_axis,
    "nn.log_softmax": along_axis,
    "nn.lrn": along_axis,
    "nn.layer_norm": trailing_axes,
    "nn.rms_norm": trailing_axes,
    "nn.resize": resize,
    "tensor.transpose": transpose,
    "tensor.reshape": reshape,
    "tensor.concat": concat,
    "tensor.slice": slice_,
    "tensor.pad": pad,
    "tensor.broadcast_to": broadcast_to,
    "tensor.tile": tile,
}
"""Op name → rule."""


def dependencies(function: Function, keep: Callable[[Op], bool] = lambda op: False) -> Dependencies:
    """Follow channels through a function."""
    found = Dependencies(keep)
    for op in function.body:
        channels = RULES.get(op.op_name, not_understood)(op, found)
        if channels is not None:
            found.channels[op.result] = channels
    return found
