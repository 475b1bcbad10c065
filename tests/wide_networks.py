"""Random float networks of everything the backend lowers, of any rank: windows of odd sizes, strides, dilations and
pads, grouped and transposed convolutions, broadcasts in both directions, views of views, products of activations,
reductions over any axes, truth values, recurrent layers, ops that only the host runs, several inputs and outputs, an
output that is used inside too. Every op is evaluated as it is made: what is not finite, always zero or too large is
left out, what grows is scaled down, so that ranges stay those of trained networks. Not tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from compiler.errors import CompilerError
from compiler.evaluate.registry import as_results, find_evaluator
from compiler.ir.core import Constant, Module, Value
from compiler.ir.define import find_op
from compiler.ops.graph import Return
from tests.networks import Network

Choose = Callable[[Sequence[Any]], Any]

SIZES = (9, 6, 13, 1, 20, 3, 7, 2, 34)
CHANNELS = (8, 5, 16, 1, 3, 31, 33, 64, 65, 100, 130, 257)
LARGEST = 30_000
"""Elements of the largest value."""


class Grower:
    """Grows a network, one chosen op at a time; any earlier value may be taken again."""

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        batch = choose((1, 1, 2, 3, 5))
        c, h, w = choose((3, 4, 1, 8, 33, 70)), choose(SIZES), choose(SIZES)
        image = (batch, c, min(h, LARGEST // (batch * c * w)), w)
        others = choose(((), (), (image,), ((batch, 12),), ((batch, 5, 16),), ((image[1],),)))
        self.network = Network(image, *others, seed=choose(range(16)))
        random = np.random.default_rng(self.network.random.integers(1 << 30))
        self.arrays: dict[Value, np.ndarray] = {
            v: random.normal(size=v.type.static_shape).astype(np.float32) for v in self.network.inputs
        }
        self.values: list[Value] = list(self.network.inputs)
        self.count = 0

    def choose(self, options: Sequence[Any]) -> Any:
        if not options:
            raise Unfit("nothing to choose from")
        return self._choose(options)

    # -- taking values ---------------------------------------------------------------------------------------------
    def value(self) -> Value:
        """A recent value, or any earlier one."""
        return self.choose(self.values[-1:] if self.choose((1, 1, 1, 0)) else self.values[-6:])

    def image(self) -> Value:
        """A value of four axes: a recent one, one reshaped to it, or the input."""
        x = self.value()
        if x.type.rank == 4:
            return x
        images = [v for v in self.values if v.type.rank == 4]
        if self.choose((0, 1)):
            return self.choose(images[-3:])
        shape = x.type.static_shape
        spread = shape if len(shape) < 4 else (math.prod(shape[:-3]), *shape[-3:])
        return self.op("tensor.reshape", x, shape=(*(1,) * (4 - len(spread)), *spread))

    def axis(self, x: Value) -> int:
        axis = self.choose(range(x.type.rank))
        return axis - x.type.rank if self.choose((0, 0, 1)) else axis

    def axes(self, x: Value) -> tuple[int, ...]:
        return tuple(a for a in range(x.type.rank) if self.choose((0, 1)))

    def constant(self, *shape: int, scale: float = 1.0) -> Constant:
        self.count += 1
        return self.network.constant(f"k{self.count}", *shape, scale=scale)  # type: ignore[return-value]

    # -- making values ---------------------------------------------------------------------------------------------
    def op(self, kind: str, *operands: Value | None, result: int = 0, **attributes: Any) -> Value:
        """Append an op and run it. Raises Unfit where the result cannot be gone on with."""
        self.count += 1
        found = find_op(kind)
        evaluate = find_evaluator(kind)
        assert found is not None and evaluate is not None, kind
        try:
            op = found(*operands, **attributes)
        except CompilerError as fault:
            raise Unfit(str(fault)) from fault
        self.network.main.body.append(op)
        if list(op.check()) or any(r.type.elements == 0 or r.type.elements > LARGEST for r in op.results):
            raise Unfit(kind)
        for index, made in enumerate(op.results):
            made.name = f"v{self.count}" if not index else f"v{self.count}.{index}"
        given = [None if v is None else v.data if isinstance(v, Constant) else self.arrays[v] for v in op.operands]
        with np.errstate(all="ignore"):
            arrays = as_results(op, evaluate(op, *given))
        if not np.isfinite(arrays[result].astype(np.float64)).all():
            raise Unfit(kind)
        self.arrays.update(zip(op.results, arrays, strict=True))
        return op.results[result]

    def f(self, kind: str, *operands: Value | float, **attributes: Any) -> Value:
        """An op whose operands may be numbers."""
        values = [
            v if isinstance(v, Value) else self.network.module.add_constant(f"n{self.count}", np.float32(v))
            for v in operands
        ]
        return self.op(kind, *values, **attributes)

    def tame(self, x: Value) -> Value:
        """x, multiplied by a number where its range is not that of a trained network's."""
        array = self.arrays[x]
        if array.dtype != np.float32:
            return x
        top = float(np.abs(array).max())
        if top == 0.0:
            raise Unfit("always zero")
        return x if 0.05 < top < 12.0 else self.f("math.mul", x, 2.0 / top)

    def grow(self, layers: Sequence[Callable[[Grower], Value]]) -> None:
        """Append a layer, if it can be had."""
        before = len(self.network.main.body)
        try:
            made = self.tame(self.choose(layers)(self))
        except Unfit:
            self.drop_after(before)
            return
        if made.type.dtype.is_float:
            self.values.append(made)

    def drop_after(self, count: int) -> None:
        for op in reversed(list(self.network.main.body)[count:]):
            op.erase()

    def done(self, *outputs: Value) -> Module:
        self.network.main.body.append(Return(*outputs))
        return self.network.module


class Unfit(Exception):
    """What was chosen makes no op, or one that leads nowhere."""


Layer = Callable[[Grower], Value]


# -- windows ---------------------------------------------------------------------------------------------------------
def window(g: Grower, most: int = 5) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, ...]]:
    """A kernel, strides, dilations and pads, not the same along both axes as a rule."""
    kernels = [k for k in (3, 1, 2, 5, 4, 7) if k <= most]
    side = g.choose(kernels)
    kernel = (side, side) if g.choose((1, 1, 0)) else (g.choose(kernels), g.choose(kernels))
    strides = g.choose(((1, 1), (1, 1), (2, 2), (1, 2), (3, 1), (2, 3), (4, 4)))
    dilations = g.choose(((1, 1), (1, 1), (1, 1), (2, 2), (1, 3), (2, 1)))
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    same = (reach[0] // 2, reach[1] // 2, reach[0] - reach[0] // 2, reach[1] - reach[1] // 2)
    causal = (reach[0], reach[1], 0, 0)
    pads = g.choose((same, same, (0, 0, 0, 0), causal, (0, 1, 2, 0), (reach[0] // 2, 0, reach[0], reach[1])))
    return kernel, strides, dilations, pads


def convolution(g: Grower) -> Value:
    x = g.image()
    c = x.type.static_shape[1]
    kernel, strides, dilations, pads = window(g, 7)
    groups = g.choose([n for n in (1, 1, 1, 2, 3, 5, 4, c) if c % n == 0])
    co = g.choose([n for n in CHANNELS if n % groups == 0] + [groups, 2 * groups, 3 * groups])
    inner = c // groups
    w = g.constant(co, inner, *kernel, scale=(inner * math.prod(kernel)) ** -0.5)
    bias = g.constant(co, scale=0.2) if g.choose((1, 0)) else None
    return g.op("nn.conv2d", x, w, bias, strides=strides, dilations=dilations, pads=pads, groups=groups)


def depthwise(g: Grower) -> Value:
    x = g.image()
    c = x.type.static_shape[1]
    kernel, strides, dilations, pads = window(g)
    co = c * g.choose((1, 1, 1, 2, 3))
    w = g.constant(co, 1, *kernel, scale=math.prod(kernel) ** -0.5)
    bias = g.constant(co, scale=0.2) if g.choose((1, 0)) else None
    return g.op("nn.conv2d", x, w, bias, strides=strides, dilations=dilations, pads=pads, groups=c)


def transposed_convolution(g: Grower) -> Value:
    x = g.image()
    c = x.type.static_shape[1]
    kernel, strides, dilations, _ = window(g, 5)
    pads = g.choose(((0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 1, 0), (2, 0, 0, 1)))
    extra = tuple(g.choose((0, 0, s - 1)) for s in strides)
    groups = g.choose([n for n in (1, 1, 1, 2, 3, c) if c % n == 0])
    each = g.choose((3, 1, 2, 33, 65)) if groups < 8 else g.choose((1, 1, 2))
    w = g.constant(c, each, *kernel, scale=(c // groups * math.prod(kernel)) ** -0.5)
    bias = g.constant(each * groups, scale=0.2) if g.choose((1, 0)) else None
    return g.op(
        "nn.conv_transpose2d", x, w, bias, strides=strides, dilations=dilations, pads=pads, output_pads=extra,
        groups=groups,
    )  # fmt: skip


def pool(g: Grower) -> Value:
    x = g.image()
    kernel, strides, dilations, pads = window(g)
    if g.choose((0, 0, 0, 1)):
        kernel = x.type.static_shape[2:]  # type: ignore[assignment]
    pads = tuple(min(p, k - 1) for p, k in zip(pads, (*kernel, *kernel), strict=True))
    if g.choose((1, 0)):
        return g.op("nn.max_pool2d", x, kernel=kernel, strides=strides, pads=pads, dilations=dilations)
    extra = g.choose(((0, 0), (0, 0), tuple(s - 1 for s in strides)))
    for size, k, step, before, after, more in zip(
        x.type.static_shape[2:], kernel, strides, pads[:2], pads[2:], extra, strict=True
    ):
        if (size + before + after + more - k) // step * step - before >= size:
            raise Unfit("a window without a pixel")
    return g.op(
        "nn.avg_pool2d", x, kernel=kernel, strides=strides, pads=pads, extra_pads=extra,
        count_include_pad=g.choose((True, False)),
    )  # fmt: skip


def global_pool(g: Grower) -> Value:
    return g.op(g.choose(("nn.global_avg_pool", "nn.global_max_pool")), g.image())


def resized(g: Grower) -> Value:
    x = g.image()
    n, c, h, w = x.type.static_shape
    sizes = (n, c, g.choose((2 * h, h, h + 2, -(-h // 2), 3 * h)), g.choose((w, 2 * w, w + 1, -(-w // 2))))
    mode = g.choose(("nearest", "linear", "cubic"))
    coordinates = g.choose(("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"))
    options: dict[str, Any] = {"exclude_outside": g.choose((False, True))} if mode == "cubic" else {}
    if mode == "nearest":
        options["nearest_mode"] = g.choose(("round_prefer_floor", "floor", "ceil", "round_prefer_ceil"))
    return g.op("nn.resize", x, sizes=sizes, mode=mode, coordinate_mode=coordinates, **options)


def pixels_shuffled(g: Grower) -> Value:
    x = g.image()
    _, c, h, w = x.type.static_shape
    block = g.choose((2, 3))
    if c % block**2 == 0:
        return g.op("nn.depth_to_space", x, block_size=block, mode=g.choose(("DCR", "CRD")))
    if h % block or w % block:
        raise Unfit("no such blocks")
    return g.op("nn.space_to_depth", x, block_size=block)


def focused(g: Grower) -> Value:
    """Every second row and column stacked as channels, in front of a convolution."""
    x = g.image()
    n, c, h, w = x.type.static_shape
    parts = [
        g.op("tensor.slice", x, starts=(0, 0, i, j), sizes=(n, c, h // 2, w // 2), steps=(1, 1, 2, 2))
        for j in (0, 1) for i in (0, 1)
    ]  # fmt: skip
    stacked = g.op("tensor.concat", *parts, axis=1)
    w_ = g.constant(9, 4 * c, 3, 3, scale=(36 * c) ** -0.5)
    return g.op("nn.conv2d", stacked, w_, None, pads=g.choose(((1, 1, 1, 1), (0, 0, 0, 0))))


# -- elementwise -----------------------------------------------------------------------------------------------------
def activation(g: Grower) -> Value:
    kind, options = g.choose((
        ("nn.relu", {}), ("nn.relu", {}), ("nn.leaky_relu", {"alpha": 0.1}), ("nn.sigmoid", {}), ("nn.silu", {}),
        ("nn.hard_swish", {}), ("nn.hard_sigmoid", {"alpha": 0.2, "beta": 0.5}), ("math.tanh", {}), ("nn.gelu", {}),
        ("nn.gelu", {"approximate": "tanh"}), ("nn.elu", {}), ("nn.elu", {"alpha": 0.3}), ("nn.selu", {}),
        ("nn.celu", {"alpha": 0.7}), ("nn.softplus", {}), ("nn.softsign", {}), ("nn.mish", {}), ("math.erf", {}),
        ("math.clip", {"low": 0.0, "high": 6.0}), ("math.clip", {"low": -1.0, "high": 0.5}), ("math.abs", {}),
        ("math.clip", {"low": 0.25}), ("math.clip", {"high": 0.5}), ("math.neg", {}), ("math.sin", {}),
        ("math.cos", {}),
    ))  # fmt: skip
    return g.op(kind, g.value(), **options)


def composed(g: Grower) -> Value:
    """Functions of a limited domain, on what lies in it."""
    x = g.value()
    above = away_from_zero(g, x)
    kind = g.choose(("math.sqrt", "math.rsqrt", "math.reciprocal", "math.log", "exp", "pow", "root", "prelu"))
    if kind == "exp":
        return g.op("math.exp", g.op("math.clip", x, low=-4.0, high=1.5))
    if kind == "pow":
        return g.f("math.pow", x, g.choose((2.0, 3.0, 1.0)))
    if kind == "root":
        return g.f("math.pow", above, g.choose((0.5, -0.5, -1.0, -2.0, 1.5)))
    if kind == "prelu":
        shape = g.choose((x.type.static_shape, x.type.static_shape[-1:], (1,) * x.type.rank, ()))
        return g.op("nn.prelu", x, g.constant(*shape, scale=0.3))
    return g.op(kind, above)


ARITHMETIC = ("math.add", "math.sub", "math.mul", "math.maximum", "math.minimum", "math.add", "math.mul", "math.div")


def away_from_zero(g: Grower, x: Value) -> Value:
    if isinstance(x, Constant):
        return g.network.module.add_constant(f"{x.name}.p", np.abs(x.data) + np.float32(0.5))
    return g.f("math.add", g.op("math.abs", x), 0.5)


def combined(g: Grower, x: Value, other: Value) -> Value:
    kind = g.choose(ARITHMETIC)
    if g.choose((0, 0, 1)):
        x, other = other, x
    if kind == "math.div":
        other = away_from_zero(g, other)
    return g.op(kind, x, other)


def pair(g: Grower) -> Value:
    """Two values that broadcast against each other; perhaps one with itself."""
    x = g.value()
    fitting = [v for v in g.values if _broadcast(x.type.static_shape, v.type.static_shape)]
    return combined(g, x, g.choose(fitting[-4:]))


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(p == q or 1 in (p, q) for p, q in zip(a[::-1], b[::-1], strict=False))


def with_constant(g: Grower) -> Value:
    x = g.value()
    shape = tuple(d if g.choose((1, 0)) else 1 for d in x.type.static_shape)
    shape = shape[g.choose(range(len(shape) + 1)) :]
    if g.choose((0, 0, 0, 1)):
        shape = (2, *(1,) * (x.type.rank - len(shape)), *shape) if g.choose((0, 1)) else (2, *x.type.static_shape)
    return combined(g, x, g.constant(*shape, scale=0.7))


def gated(g: Grower) -> Value:
    """A value and what was reduced from it, over any axes: squeeze and excitation, centring, scores."""
    x = g.value()
    kind = g.choose(("reduce.mean", "reduce.max", "reduce.min", "reduce.l2"))
    gate = g.tame(g.op(kind, x, axes=g.axes(x), keepdims=True))
    if g.choose((0, 1)):
        gate = g.op("nn.sigmoid", gate)
    return combined(g, x, gate)


def selected(g: Grower) -> Value:
    """A truth value of comparisons, perhaps combined, and a choice by it; or the truth value as a number."""
    x = g.value()
    compare = ("math.less", "math.greater", "math.less_equal", "math.greater_equal")
    fitting = [v for v in g.values if v.type.shape == x.type.shape and v is not x]
    limit: Any = g.choose([*fitting, 0.3])
    condition = g.f(g.choose(compare), x, limit)
    if g.choose((0, 1)):
        other = g.f(g.choose(compare), x, -0.2)
        condition = g.op(g.choose(("math.and", "math.or", "math.xor")), condition, other)
    if g.choose((0, 0, 1)):
        condition = g.op("math.not", condition)
    if g.choose((0, 0, 1)):
        return g.op("math.cast", condition, to=x.type.dtype)
    other = g.choose([*fitting, g.constant(*x.type.static_shape[-1:]), g.constant()])
    return g.op("math.where", condition, *((x, other) if g.choose((0, 1)) else (other, x)))


# -- movement --------------------------------------------------------------------------------------------------------
def joined(g: Grower) -> Value:
    x = g.value()
    axis = g.axis(x)
    shape = list(x.type.static_shape)

    def fits(v: Value) -> bool:
        other = list(v.type.static_shape)
        return len(other) == len(shape) and all(
            p == q or i == axis % len(shape) for i, (p, q) in enumerate(zip(shape, other, strict=True))
        )

    fitting = [v for v in g.values if fits(v)]
    parts = [x, *(g.choose(fitting) for _ in range(g.choose((1, 1, 2, 3))))]
    if g.choose((0, 0, 0, 1)):
        parts.insert(g.choose((0, 1)), g.constant(*shape))
    return g.op("tensor.concat", *parts, axis=axis)


def sliced(g: Grower) -> Value:
    x = g.value()
    starts, sizes, steps = [], [], []
    for d in x.type.static_shape:
        step = g.choose((1, 1, 1, 1, 2, -1, 3, -2))
        start = g.choose([s for s in (0, 0, 1, 2) if s < d])
        size = -(-(d - start) // abs(step))
        if size > 2 and g.choose((0, 0, 1)):
            size -= 1
        starts.append(start if step > 0 else start + (size - 1) * -step)
        sizes.append(size)
        steps.append(step)
    return g.op("tensor.slice", x, starts=starts, sizes=sizes, steps=steps)


def padded(g: Grower) -> Value:
    x = g.value()
    mode = g.choose(("constant", "constant", "reflect", "edge", "wrap"))
    most = [2 if mode == "constant" else min(2, d - 1) for d in x.type.static_shape]
    pads = [min(m, g.choose((0, 0, 1, 2))) for m in (*most, *most)]
    return g.op("tensor.pad", x, pads=pads, mode=mode, value=g.choose((0.0, 0.0, 0.5)) if mode == "constant" else 0.0)


def repeated(g: Grower) -> Value:
    x = g.value()
    if g.choose((0, 1)):
        return g.op("tensor.tile", x, repeats=[g.choose((1, 1, 1, 2, 3)) for _ in x.type.shape])
    shape = [d if d > 1 else g.choose((1, 1, 3, 8)) for d in x.type.static_shape]
    return g.op("tensor.broadcast_to", x, shape=(*g.choose(((), (), (2,))), *shape))


def picked(g: Grower) -> Value:
    x = g.value()
    axis = g.axis(x)
    d = x.type.static_shape[axis]
    indices = np.asarray(g.choose(([0, d - 1, d // 2], [[0, -1], [d // 2, 0]], d // 2, [d - 1], [-1, -1, 0])), np.int64)
    return g.op("tensor.gather", x, g.network.module.add_constant(f"i{g.count}", indices), axis=axis)


def permuted(g: Grower) -> Value:
    x = g.value()
    left, perm = list(range(x.type.rank)), []
    while left:
        perm.append(left.pop(g.choose(range(len(left)))))
    return g.op("tensor.transpose", x, perm=tuple(perm))


def reshaped(g: Grower) -> Value:
    """Axes joined, or split by a factor, or of one element put in or taken out."""
    x = g.value()
    if not x.type.rank:
        raise Unfit("no axes")
    shape = list(x.type.static_shape)
    way = g.choose(("join", "split", "insert", "squeeze", "flat", "images"))
    if way == "join" and len(shape) > 1:
        at = g.choose(range(len(shape) - 1))
        shape[at : at + 2] = [shape[at] * shape[at + 1]]
    elif way == "split":
        at = g.choose(range(len(shape)))
        factor = g.choose([f for f in (2, 3, 4, 5, 1) if shape[at] % f == 0])
        shape[at : at + 1] = [factor, shape[at] // factor] if g.choose((0, 1)) else [shape[at] // factor, factor]
    elif way == "insert":
        shape.insert(g.choose(range(len(shape) + 1)), 1)
    elif way == "squeeze":
        shape = [d for d in shape if d != 1] or [1]
    elif way == "flat":
        shape = [shape[0], math.prod(shape[1:])]
    else:
        shape = [math.prod(shape), 1] if g.choose((0, 1)) else shape[::-1]
    if not 1 <= len(shape) <= 6:
        raise Unfit("too many axes")
    return g.op("tensor.reshape", x, shape=shape)


def shuffled(g: Grower) -> Value:
    x = g.image()
    n, c, h, w = x.type.static_shape
    groups = g.choose([f for f in (2, 3, 4, 1) if c % f == 0])
    split = g.op("tensor.reshape", x, shape=(n, groups, c // groups, h, w))
    return g.op("tensor.reshape", g.op("tensor.transpose", split, perm=(0, 2, 1, 3, 4)), shape=(n, c, h, w))


# -- products --------------------------------------------------------------------------------------------------------
def dense(g: Grower) -> Value:
    x = g.value()
    if not x.type.rank:
        raise Unfit("no row")
    k = x.type.static_shape[-1]
    n = g.choose(CHANNELS)
    w = g.constant(k, n, scale=k**-0.5)
    if g.choose((0, 0, 0, 1)) and x.type.rank > 2:
        w = g.constant(x.type.static_shape[-3], k, min(n, 40), scale=k**-0.5)
    y = g.op("nn.matmul", x, w)
    return g.op("math.add", y, g.constant(y.type.static_shape[-1], scale=0.2)) if g.choose((0, 1)) else y


def product(g: Grower) -> Value:
    """A product of two activations: a value with its own transposition, or two that fit."""
    x = g.value()
    rank = x.type.rank
    if not rank:
        raise Unfit("no row")
    if rank < 2:
        return g.op("nn.matmul", x, x)
    swapped = g.op("tensor.transpose", x, perm=(*range(rank - 2), rank - 1, rank - 2))
    first, second = (x, swapped) if g.choose((0, 1)) else (swapped, x)
    k = first.type.static_shape[-1]
    others = [v for v in g.values if v.type.rank and v.type.static_shape[-2 if v.type.rank > 1 else 0] == k]
    if others and g.choose((0, 1)):
        second = g.choose(others)
    return g.op("nn.matmul", first, second)


def attended(g: Grower) -> Value:
    """Self-attention of several heads."""
    x = g.value()
    if x.type.rank < 2 or x.type.elements > 8000:
        raise Unfit("no rows")
    shape = x.type.static_shape
    c, rows = shape[-1], shape[-2]
    heads = g.choose([h for h in (2, 4, 1) if c % h == 0])
    batch = math.prod(shape[:-2])

    def head(name: str) -> Value:
        y = g.op("nn.matmul", x, g.constant(c, c, scale=c**-0.5))
        y = g.op("tensor.reshape", y, shape=(batch, rows, heads, c // heads))
        return g.op("tensor.transpose", y, perm=(0, 2, 3, 1) if name == "k" else (0, 2, 1, 3))

    scores = g.f("math.mul", g.op("nn.matmul", head("q"), head("k")), (c // heads) ** -0.5)
    mixed = g.op("nn.matmul", g.op("nn.softmax", scores, axis=-1), head("v"))
    return g.op("tensor.reshape", g.op("tensor.transpose", mixed, perm=(0, 2, 1, 3)), shape=shape)


# -- reductions and normalisations -----------------------------------------------------------------------------------
def reduced(g: Grower) -> Value:
    x = g.value()
    kinds = ("mean", "max", "sum", "min", "l2", "l1", "sum_square", "log_sum_exp", "prod")
    return g.op(f"reduce.{g.choose(kinds)}", x, axes=g.axes(x), keepdims=g.choose((True, False)))


def softmax(g: Grower) -> Value:
    x = g.value()
    return g.op(g.choose(("nn.softmax", "nn.log_softmax")), x, axis=g.axis(x))


def normalised(g: Grower) -> Value:
    x = g.value()
    kind = g.choose(("layer", "layer", "rms", "instance", "group", "batch", "lrn"))
    if kind in ("layer", "rms"):
        axis = g.axis(x)
        vectors = [g.constant(*x.type.static_shape[axis:], scale=0.8) if g.choose((1, 0)) else None for _ in range(2)]
        return g.op(f"nn.{kind}_norm", x, *vectors, axis=axis)
    x = g.image()
    c = x.type.static_shape[1]
    vectors = [g.constant(c, scale=0.8) for _ in range(4)]
    if kind == "instance":
        return g.op("nn.instance_norm", x, *vectors[:2])
    if kind == "group":
        return g.op("nn.group_norm", x, *vectors[:2], groups=g.choose([n for n in (1, 2, 3, c) if c % n == 0]))
    if kind == "lrn":
        return g.op("nn.lrn", x, size=g.choose((3, 5, 2)), alpha=0.1, beta=0.75)
    return g.op("nn.batch_norm", x, *vectors[:3], away_from_zero(g, vectors[3]))


def running(g: Grower) -> Value:
    x = g.value()
    return g.op(
        "tensor.cumsum", x, axis=g.axis(x), exclusive=g.choose((False, True)), reverse=g.choose((False, True))
    )


def recurrent(g: Grower) -> Value:
    """A layer with a state, over a few steps of a sequence."""
    x = g.value()
    shape = (*(1,) * (3 - x.type.rank), *x.type.static_shape)
    shape = (math.prod(shape[:-2]), *shape[-2:])
    x = g.op("tensor.reshape", x, shape=shape)
    steps, batch = min(shape[0], 4), min(shape[1], 5)
    x = g.op("tensor.slice", x, starts=(0, 0, 0), sizes=(steps, batch, shape[2]), steps=(1, 1, 1))
    kind, gates = g.choose((("nn.lstm", 4), ("nn.gru", 3), ("nn.rnn", 1)))
    direction = g.choose(("forward", "reverse", "bidirectional"))
    directions, hidden = 1 + (direction == "bidirectional"), g.choose((5, 33))
    w = g.constant(directions, gates * hidden, shape[2], scale=shape[2] ** -0.5)
    r = g.constant(directions, gates * hidden, hidden, scale=hidden**-0.5)
    b = g.constant(directions, 2 * gates * hidden, scale=0.3) if g.choose((0, 1)) else None
    h = g.constant(directions, batch, hidden) if g.choose((0, 1)) else None
    options = {"linear_before_reset": g.choose((True, False))} if kind == "nn.gru" else {}
    return g.op(kind, x, w, r, b, h, hidden=hidden, direction=direction, result=g.choose((0, 1)), **options)


def on_the_host(g: Grower) -> Value:
    """What the chip has no instruction for."""
    x = g.value()
    kind = g.choose(("math.sinh", "math.atan", "tensor.topk", "tensor.trilu", "nn.conv2d"))
    if kind == "tensor.topk":
        return g.op(kind, x, k=g.choose([k for k in (3, 1, 2) if k <= x.type.static_shape[-1]]), axis=-1)
    if kind == "tensor.trilu" and x.type.rank < 2:
        raise Unfit("no matrix")
    if kind == "nn.conv2d":  # computed filters
        x = g.image()
        n, c, h, w = x.type.static_shape
        if n > 8 or c * 9 > h * w or c > 8:
            raise Unfit("not enough for filters")
        part = g.op("tensor.slice", x, starts=(0,) * 4, sizes=(n, c, 3, 3), steps=(1,) * 4)
        return g.op(kind, x, part, None, pads=(1, 1, 1, 1))
    return g.op(kind, x)


WINDOWS: list[Layer] = [
    convolution, convolution, convolution, depthwise, transposed_convolution, pool, pool, global_pool, resized,
    pixels_shuffled, focused,
]  # fmt: skip
ELEMENTWISE: list[Layer] = [activation, activation, composed, pair, pair, with_constant, gated, selected]
MOVEMENT: list[Layer] = [joined, joined, sliced, padded, repeated, picked, permuted, reshaped, shuffled]
PRODUCTS: list[Layer] = [dense, dense, product, attended]
REDUCTIONS: list[Layer] = [reduced, softmax, normalised, running]
LAYERS: list[Layer] = [
    *WINDOWS, *WINDOWS, *ELEMENTWISE, *ELEMENTWISE, *MOVEMENT, *MOVEMENT, *PRODUCTS, *REDUCTIONS, *REDUCTIONS,
    recurrent, on_the_host,
]  # fmt: skip


SMOOTH: list[Layer] = [layer for layer in LAYERS if layer not in (selected, on_the_host)]
"""Layers whose results change little where their operands do."""


def place_of_extreme(g: Grower, x: Value) -> Value:
    kind = g.choose(("reduce.argmax", "reduce.argmin"))
    options = {"keepdims": g.choose((True, False)), "select_last": g.choose((False, False, True))}
    return g.op(kind, x, axis=g.axis(x), **options)


def network(choose: Choose, layers: int, kinds: Sequence[Layer] = LAYERS) -> Module:
    """A network of up to so many layers."""
    g = Grower(choose)
    for _ in range(layers):
        g.grow(kinds)
    made = g.values[len(g.network.inputs) :]
    if not made:
        made = [g.op("nn.relu", g.network.x)]
    outputs = [made[-1]]
    for _ in range(choose((0, 0, 1, 2))):
        outputs.append(choose(made))
    if choose((0, 0, 0, 0, 1)):
        before = len(g.network.main.body)
        try:
            outputs.append(place_of_extreme(g, choose(made[-2:])))
        except Unfit:
            g.drop_after(before)
    return g.done(*outputs)


def random_network(seed: int, layers: int = 8, kinds: Sequence[Layer] = LAYERS) -> Module:
    random = np.random.default_rng(seed)
    return network(lambda options: options[int(random.integers(len(options)))], layers, kinds)


@st.composite
def networks(draw: st.DrawFn, layers: int = 6, kinds: Sequence[Layer] = LAYERS) -> Module:
    """A network of up to `layers` drawn layers."""
    return network(lambda options: draw(st.sampled_from(options)), draw(st.integers(1, layers)), kinds)
