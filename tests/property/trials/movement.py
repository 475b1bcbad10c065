"""Trials of operators that move elements."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper

from tests.property.trials.dice import INT_MAX, INT_MIN, Dice, Trial, trial


@trial("Reshape", opsets=(5, 13, 14, 19))
def reshape(d: Dice) -> Trial:
    shape = d.shape(0)
    size, wanted = int(np.prod(shape)), []
    while size > 1 and d.flip(0.8):
        divisor = d.choice([i for i in range(1, size + 1) if size % i == 0])
        wanted.append(divisor)
        size //= divisor
    wanted.append(size)
    if d.flip(0.4):
        wanted[d.randrange(len(wanted))] = -1
    wanted = [0 if i < len(shape) and shape[i] == w and d.flip() else w for i, w in enumerate(wanted)]
    return Trial([d.numbers(*shape, kinds="fl"), np.array(wanted, np.int64)])


@trial("Flatten", opsets=(9, 11, 13))
def flatten(d: Dice) -> Trial:
    x = d.floats(*d.shape(1))
    return Trial([x], d.some(axis=d.randint(-x.ndim if d.opset >= 11 else 0, x.ndim)))


@trial("Squeeze", opsets=(9, 11, 13))
def squeeze(d: Dice) -> Trial:
    shape = tuple(1 if d.flip() else d.randint(2, 4) for _ in range(d.randint(1, 5)))
    single = [i for i, s in enumerate(shape) if s == 1]
    axes = d.sample(single, d.randint(1, len(single))) if single else []
    axes = [a - len(shape) if d.opset >= 11 and d.flip() else a for a in axes]
    if not axes or d.flip(0.3):
        return Trial([d.floats(*shape)])
    return Trial([d.floats(*shape)], {"axes": axes}) if d.opset < 13 else Trial([d.floats(*shape), np.array(axes)])


@trial("Unsqueeze", opsets=(9, 11, 13))
def unsqueeze(d: Dice) -> Trial:
    x, count = d.floats(*d.shape(0)), d.randint(1, 3)
    rank = x.ndim + count
    axes = [a - rank if d.opset >= 11 and d.flip() else a for a in d.sample(range(rank), count)]
    return Trial([x], {"axes": axes}) if d.opset < 13 else Trial([x, np.array(axes)])


@trial("Transpose", opsets=(13,))
def transpose(d: Dice) -> Trial:
    x = d.numbers(*d.shape(0, 5), kinds="flu")
    return Trial([x], d.some(perm=d.sample(range(x.ndim), x.ndim) or None))


@trial("Concat", opsets=(4, 11, 13))
def concat(d: Dice) -> Trial:
    shape = d.shape(1)
    axis = d.axis(len(shape)) if d.opset >= 11 else d.randrange(len(shape))
    parts = []
    for _ in range(d.randint(1, 4)):
        size = list(shape)
        size[axis] = d.randint(0, 4)
        parts.append(d.floats(*size))
    return Trial(parts, {"axis": axis}, free=d.choice([(0,), (0, 1)]) if len(parts) > 1 else (0,))


@trial("Slice", opsets=(9, 10, 11, 13))
def slices(d: Dice) -> Trial:
    x = d.numbers(*d.shape(1), kinds="fl")
    axes = d.axes(x.ndim) if d.opset >= 10 else d.sample(range(x.ndim), d.randint(1, x.ndim))
    place = [*range(-7, 8), INT_MAX, INT_MIN, 2**31 - 1, -(2**31) + 1]
    starts, ends = ([d.choice(place) for _ in axes] for _ in range(2))
    if d.opset < 10:
        return Trial([x], {"starts": starts, "ends": ends, "axes": axes})
    steps = [d.choice([1, 1, 1, -1, 2, -2, 3, -3, 9, INT_MAX, -INT_MAX]) for _ in axes]
    ends = [min(e, 7) if s < 0 else e for e, s in zip(ends, steps, strict=True)]  # there is no "to the end" backwards
    parts: list[Any] = [np.array(v) for v in (starts, ends, axes, steps)]
    if len(axes) == x.ndim and d.flip():
        parts[2] = None
    return Trial([x, *parts] if d.flip(0.8) else [x, *parts[:3]])


@trial("Slice by data", opsets=(10, 11, 13))
def slices_by_data(d: Dice) -> Trial:
    found = slices(d)
    found.free = (0, 1, 2)
    return found


@trial("Split", opsets=(7, 11, 13, 18))
def split(d: Dice) -> Trial:
    x, count = d.floats(*d.shape(1, most=9)), d.randint(1, 4)
    axis = d.axis(x.ndim) if d.opset >= 11 else d.randrange(x.ndim)
    attributes: dict[str, Any] = {"axis": axis}
    if d.flip():
        cuts = sorted(d.randint(0, x.shape[axis]) for _ in range(count - 1))
        sizes = [b - a for a, b in zip([0, *cuts], [*cuts, x.shape[axis]], strict=True)]
        if d.opset < 13:
            return Trial([x], {**attributes, "split": sizes}, outputs=count)
        return Trial([x, np.array(sizes)], attributes, outputs=count)
    return Trial([x], attributes | ({"num_outputs": count} if d.opset >= 18 else {}), outputs=count)


@trial("Pad", opsets=(2, 11, 13, 18, 19))
def pad(d: Dice) -> Trial:
    x = d.floats(*d.shape(1)) if d.opset < 13 else d.numbers(*d.shape(1), kinds="fil")
    mode = d.choice(["constant", "reflect", "edge", *(["wrap"] if d.opset >= 19 else [])])
    low = -2 if d.flip(0.3) else 0
    attributes: dict[str, Any] = d.some(mode=mode)
    if d.opset < 11:
        pads = [d.randint(low, 3) for _ in range(2 * x.ndim)]
        return Trial([x], {**attributes, "pads": pads, **d.some(value=d.uniform(-1, 1))})
    axes = d.axes(x.ndim) if d.opset >= 18 and d.flip() else None
    pads = [d.randint(low, 3) for _ in range(2 * (x.ndim if axes is None else len(axes)))]
    value = np.array(d.randint(-3, 3)).astype(x.dtype) if d.flip() else None
    return Trial([x, np.array(pads), value, *([] if axes is None else [np.array(axes)])], attributes)


@trial("Expand", opsets=(8, 13))
def expand(d: Dice) -> Trial:
    shape = d.shape(0)
    wanted = tuple(1 if d.flip(0.3) else s for s in shape)
    x = d.numbers(*d.broadcast(shape), kinds="flb")
    return Trial([x, np.array([*(d.shape(0, 1)), *wanted], np.int64)])


@trial("Tile", opsets=(6, 13))
def tile(d: Dice) -> Trial:
    x = d.numbers(*d.shape(1), kinds="fl")
    return Trial([x, d.ints(x.ndim, low=1, high=3)], free=d.choice([(0,), (0, 1)]))


@trial("DepthToSpace", opsets=(7, 11, 13))
def depth_to_space(d: Dice) -> Trial:
    block = d.randint(1, 3)
    x = d.floats(d.randint(1, 2), block * block * d.randint(1, 3), d.randint(1, 4), d.randint(1, 4))
    return Trial([x], {"blocksize": block, **(d.some(mode=d.choice(["DCR", "CRD"])) if d.opset >= 11 else {})})


@trial("SpaceToDepth", opsets=(7, 13))
def space_to_depth(d: Dice) -> Trial:
    block = d.randint(1, 3)
    return Trial([d.floats(1, d.randint(1, 3), block * d.randint(1, 3), block * d.randint(1, 3))], {"blocksize": block})


@trial("Gather", opsets=(7, 11, 13))
def gather(d: Dice) -> Trial:
    x = d.numbers(*d.shape(1), kinds="flu")
    axis = d.axis(x.ndim)
    size = x.shape[axis]
    indices = d.ints(*d.shape(0, 2, 3), low=-size if d.opset >= 11 else 0, high=size - 1,
                     dtype=d.choice([np.int32, np.int64]))  # fmt: skip
    return Trial([x, indices], d.some(axis=axis) if axis == 0 else {"axis": axis}, free=d.choice([(0,), (0, 1), (1,)]))


@trial("GatherElements", opsets=(11, 13))
def gather_elements(d: Dice) -> Trial:
    x = d.floats(*d.shape(1))
    axis = d.axis(x.ndim)
    shape = [d.randint(1, s) for s in x.shape]
    shape[axis] = d.randint(1, 6)
    size = x.shape[axis]
    return Trial([x, d.ints(*shape, low=-size, high=size - 1)], {"axis": axis}, free=d.choice([(0,), (0, 1)]))


@trial("GatherND", opsets=(11, 12, 13))
def gather_nd(d: Dice) -> Trial:
    x = d.floats(*d.shape(1))
    batch = d.randint(0, x.ndim - 1) if d.opset >= 12 and d.flip() else 0
    width = d.randint(1, x.ndim - batch)
    shape = (*x.shape[:batch], *d.shape(0, 2, 3))
    columns = [d.ints(*shape, low=-s, high=s - 1) for s in x.shape[batch : batch + width]]
    return Trial([x, np.stack(columns, -1)], {"batch_dims": batch} if batch else {}, free=d.choice([(0,), (0, 1)]))


@trial("ScatterElements", opsets=(11, 13, 16, 18))
def scatter_elements(d: Dice) -> Trial:
    x = d.numbers(*d.shape(1), kinds="fl")
    axis = d.axis(x.ndim)
    shape = [d.randint(1, s) for s in x.shape]
    size = x.shape[axis]
    indices = d.ints(*shape, low=-size, high=size - 1)
    kinds = {18: ["none", "add", "mul", "max", "min"], 16: ["none", "add", "mul"]}.get(d.opset, ["none"])
    reduction = d.choice(kinds)
    if reduction == "none":  # one update a place: which of several stays is not said
        order = np.array(d.sample(range(size), shape[axis]))
        indices = np.broadcast_to(order.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)]), shape).copy()
    updates = d.numbers(*shape, kinds="f" if x.dtype.kind == "f" else "l")
    attributes = {"axis": axis, **({"reduction": reduction} if d.opset >= 16 else {})}
    return Trial([x, indices, updates], attributes, free=d.choice([(0,), (0, 1, 2)]))


@trial("ScatterND", opsets=(11, 13, 16, 18))
def scatter_nd(d: Dice) -> Trial:
    x = d.floats(*d.shape(1))
    width = d.randint(1, x.ndim)
    places = [p for p in np.ndindex(*x.shape[:width])]
    kinds = {18: ["none", "add", "mul", "max", "min"], 16: ["none", "add", "mul"]}.get(d.opset, ["none"])
    reduction = d.choice(kinds)
    count = d.randint(1, min(4, len(places)))
    chosen = d.sample(places, count) if reduction == "none" else d.choices(places, k=count)
    indices = np.array([[p - s if d.flip(0.2) else p for p, s in zip(c, x.shape, strict=False)] for c in chosen])
    attributes = {"reduction": reduction} if d.opset >= 16 else {}
    return Trial([x, indices, d.floats(count, *x.shape[width:])], attributes, free=d.choice([(0,), (0, 1, 2)]))


@trial("OneHot", opsets=(9, 11))
def one_hot(d: Dice) -> Trial:
    depth = d.randint(1, 5)
    indices = d.ints(*d.shape(0, 3), low=-depth - 1, high=depth + 1, dtype=d.choice([np.int64, np.int32, np.float32]))
    values = d.numbers(2, kinds="fl")
    axis = d.randint(-indices.ndim - 1, indices.ndim)
    form = np.array(depth) if d.flip() else np.array([depth])
    return Trial([indices, form.astype(d.choice([np.int64, np.float32])), values], d.some(axis=axis))


@trial("ReverseSequence", opsets=(10,))
def reverse_sequence(d: Dice) -> Trial:
    x = d.floats(*d.shape(2))
    time = d.randint(0, 1)
    lengths = d.ints(x.shape[1 - time], low=1, high=x.shape[time])
    return Trial([x, lengths], {"time_axis": time, "batch_axis": 1 - time} if time or d.flip() else {})


@trial("Compress", opsets=(9, 11))
def compress(d: Dice) -> Trial:
    x = d.floats(*d.shape(1))
    axis = d.choice([None, d.axis(x.ndim) if d.opset >= 11 else d.randrange(x.ndim)])
    size = x.size if axis is None else x.shape[axis]
    chosen = d.numbers(d.randint(1, size), kinds="b")
    return Trial([x, chosen], {} if axis is None else {"axis": axis}, free=d.choice([(0,), (0, 1)]))


@trial("NonZero", opsets=(9, 13))
def non_zero(d: Dice) -> Trial:
    return Trial([d.ints(*d.shape(1), low=-1, high=1).astype(d.choice([np.float32, np.int64, bool]))])


@trial("Unique", opsets=(11,))
def unique(d: Dice) -> Trial:
    x = d.ints(*d.shape(1, 3, 4), low=0, high=2).astype(d.choice([np.float32, np.int64]))
    return Trial([x], d.some(axis=d.axis(x.ndim), sorted=d.randint(0, 1)), outputs=d.randint(1, 4))


@trial("EyeLike", opsets=(9,))
def eye_like(d: Dice) -> Trial:
    return Trial([d.numbers(*d.shape(2, 2), kinds="fl")], d.some(k=d.randint(-4, 4), dtype=d.choice([1, 6, 7, 9])))


@trial("Range", opsets=(11,))
def ranges(d: Dice) -> Trial:
    step = d.choice([-3, -2, -1, 1, 2, 3])
    given = [np.array(v, d.choice([np.int64])) for v in (d.randint(-5, 5), d.randint(-9, 9), step)]
    if d.flip():
        given = [np.array(float(v) * 0.3, np.float32) for v in given]
    return Trial(given, free=d.choice([(), (0,), (0, 1, 2)]))


@trial("Shape", opsets=(13, 15, 19))
def shapes(d: Dice) -> Trial:
    x = d.floats(*d.shape(0))
    return Trial([x], d.some(start=d.randint(-5, 5), end=d.randint(-5, 5)) if d.opset >= 15 else {})


@trial("ConstantOfShape", opsets=(9, 20))
def constant_of_shape(d: Dice) -> Trial:
    value = numpy_helper.from_array(d.numbers(1, kinds="filub"))
    shape = np.array(d.shape(0), np.int64)
    return Trial([shape], d.some(value=value), free=d.choice([(), (0,)]) if shape.size else ())
