"""Random float networks of the layers people deploy, for the backend: odd shapes, batches, channels beyond one group
of 64, views of views, several outputs. Made from any source of choices, so that hypothesis can shrink them. Not
tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from compiler.ir.core import Module, Value
from tests.networks import Network

Choose = Callable[[Sequence[Any]], Any]


class Maker:
    """Grows a network of NCHW images, one chosen layer at a time; any earlier image may be taken again."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        shape = (choose((1, 1, 1, 2)), choose((3, 4, 1, 8)), choose((9, 6, 13, 1, 20)), choose((7, 8, 12, 1)))
        self.network = Network(shape, seed=choose(range(8)))
        self.images: list[Value] = [self.network.x]
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def image(self) -> Value:
        return self.choose(self.images[-3:])

    def op(self, kind: str, *operands: Value | None, **attributes: object) -> Value:
        return self.network.op(kind, *operands, name=self.name(), **attributes)

    def like(self, x: Value) -> Value | None:
        """Another image of x's shape, if there is one."""
        return next((v for v in reversed(self.images) if v is not x and v.type.shape == x.type.shape), None)


def convolution(m: Maker) -> Value:
    x = m.image()
    _, c, h, w = x.type.static_shape
    kernel = m.choose([k for k in (1, 3, 2, 5) if k <= min(h, w) + 2])
    stride = m.choose((1, 1, 2))
    dilation = m.choose((1, 1, 2)) if min(h, w) >= 2 * kernel else 1
    reach = (kernel - 1) * dilation
    before, after = (
        m.choose(((reach // 2, reach - reach // 2), (reach, 0))) if reach >= min(h, w) or m.choose((1, 0)) else (0, 0)
    )
    co, groups = m.choose(((8, 1), (5, 1), (16, 1), (66, 1), (130, 1), (2 * c, c), (c, c), (4 * c, c)))
    if groups > 16:
        co, groups = 8, 1
    inner = c // groups
    weights = m.network.constant(f"w{m.count}", co, inner, kernel, kernel, scale=(inner * kernel * kernel) ** -0.5)
    bias = m.network.constant(f"b{m.count}", co, scale=0.1) if m.choose((1, 0)) else None
    return m.op(
        "nn.conv2d", x, weights, bias, strides=(stride, stride), dilations=(dilation, dilation), groups=groups,
        pads=(before, before, after, after),
    )  # fmt: skip


def activation(m: Maker) -> Value:
    kind, options = m.choose((
        ("nn.relu", {}), ("nn.relu", {}), ("nn.leaky_relu", {"alpha": 0.1}), ("nn.sigmoid", {}), ("nn.silu", {}),
        ("nn.hard_swish", {}), ("nn.hard_sigmoid", {"alpha": 0.2, "beta": 0.5}), ("math.tanh", {}), ("nn.gelu", {}),
        ("nn.elu", {}), ("nn.softplus", {}), ("nn.mish", {}),
        ("math.clip", {"low": 0.0, "high": 6.0}), ("math.clip", {"low": -1.0, "high": 0.5}), ("math.abs", {}),
        ("math.neg", {}),
    ))  # fmt: skip
    return m.op(kind, m.image(), **options)


def prelu(m: Maker) -> Value:
    x = m.image()
    return m.op("nn.prelu", x, m.network.constant(f"p{m.count}", x.type.static_shape[1], 1, 1, scale=0.2))


def pool(m: Maker) -> Value:
    x = m.image()
    h, w = x.type.static_shape[2:]
    kernel = m.choose([k for k in (2, 3, 1) if k <= min(h, w)] or [1])
    pads = m.choose(((0, 0, 0, 0), (kernel // 2,) * 4, (0, 0, kernel - 1, kernel - 1)))
    if m.choose((1, 0)):
        return m.op("nn.max_pool2d", x, kernel=(kernel, kernel), strides=m.choose(((1, 1), (2, 2))), pads=pads)
    include = m.choose((False, True))
    return m.op(
        "nn.avg_pool2d",
        x,
        kernel=(kernel, kernel),
        strides=m.choose(((1, 1), (2, 2))),
        pads=pads,
        count_include_pad=include,
    )


def addition(m: Maker) -> Value:
    x = m.image()
    other = m.like(x)
    kind = m.choose(("math.add", "math.sub", "math.mul", "math.maximum", "math.minimum"))
    return m.op(kind, x, other if other is not None else x)


def with_constant(m: Maker) -> Value:
    x = m.image()
    _, c, h, w = x.type.static_shape
    shape = m.choose(((), (c, 1, 1), (1, c, 1, 1), (c, h, w), (w,), (h, 1)))
    constant = m.network.constant(f"k{m.count}", *shape, scale=0.5)
    if m.choose((1, 1, 0)):
        return m.op(m.choose(("math.add", "math.mul", "math.sub")), x, constant)
    return m.op(m.choose(("math.add", "math.mul", "math.sub")), constant, x)


def joined(m: Maker) -> Value:
    x = m.image()
    n, _, h, w = x.type.static_shape
    fitting = [v for v in m.images if (v.type.shape[0], *v.type.shape[2:]) == (n, h, w)]
    parts = [x, m.choose(fitting), *([m.choose(fitting)] if m.choose((0, 1)) else [])]
    return m.op("tensor.concat", *parts, axis=1)


def sliced(m: Maker) -> Value:
    x = m.image()
    n, c, h, w = x.type.static_shape
    start, step = (1, 1) if c > 1 else (0, 1)
    top = 1 if h > 2 else 0
    skip = m.choose((1, 2))
    rows = (h - top + skip - 1) // skip
    return m.op("tensor.slice", x, starts=(0, start, top, 0), sizes=(n, c - start, rows, w), steps=(1, step, skip, 1))


def padded(m: Maker) -> Value:
    x = m.image()
    return m.op("tensor.pad", x, pads=(0, m.choose((0, 2)), 1, 0, 0, 1, 0, 2), value=m.choose((0.0, 0.5)))


def squeezed(m: Maker) -> Value:
    """Squeeze and excitation: a gate per channel, computed at run time."""
    x = m.image()
    c = x.type.static_shape[1]
    inner = m.op("nn.relu", m.network.conv(m.op("nn.global_avg_pool", x), max(c // 2, 1), m.name()))
    return m.op("math.mul", x, m.op("nn.sigmoid", m.network.conv(inner, c, m.name())))


def resized(m: Maker) -> Value:
    x = m.image()
    n, c, h, w = x.type.static_shape
    sizes = (n, c, m.choose((2 * h, h, h + 2, -(-h // 2))), m.choose((w, 2 * w, 3 * w, -(-w // 2))))
    coordinates = m.choose(("half_pixel", "align_corners", "asymmetric"))
    mode = m.choose(("nearest", "linear", "linear", "cubic"))
    return m.op("nn.resize", x, sizes=sizes, mode=mode, coordinate_mode=coordinates)


def transposed(m: Maker) -> Value:
    x = m.image()
    c = x.type.static_shape[1]
    kernel, stride = m.choose(((2, 2), (4, 2), (3, 2), (3, 1), (1, 2), (3, 3)))
    pads = (m.choose((0, (kernel - 1) // 2)),) * 4 if min(x.type.static_shape[2:]) > 1 else (0, 0, 0, 0)
    co, groups = m.choose(((5, 1), (70, 1), (2 * c, 1), (c, c))) if c <= 16 else (6, 1)
    scale = (c * kernel * kernel / groups) ** -0.5
    w = m.network.constant(f"w{m.count}", c, co // groups, kernel, kernel, scale=scale)
    bias = m.network.constant(f"b{m.count}", co, scale=0.1) if m.choose((1, 0)) else None
    return m.op("nn.conv_transpose2d", x, w, bias, strides=(stride, stride), pads=pads, groups=groups)


def normalised(m: Maker) -> Value:
    x = m.image()
    c = x.type.static_shape[1]
    vectors = [m.network.constant(f"n{m.count}.{i}", c, scale=0.5) for i in range(2)]
    if m.choose((0, 1)):
        return m.op("nn.instance_norm", x, *vectors)
    return m.op("nn.group_norm", x, *vectors, groups=m.choose([g for g in (1, 2, c) if c % g == 0]))


def bordered(m: Maker) -> Value:
    x = m.image()
    _, _, h, w = x.type.static_shape
    pads = (0, 0, min(2, h - 1), min(1, w - 1), 0, 0, min(1, h - 1), min(2, w - 1))
    return m.op("tensor.pad", x, pads=pads, mode=m.choose(("reflect", "edge")))


def repeated(m: Maker) -> Value:
    return m.op("tensor.tile", m.image(), repeats=m.choose(((1, 2, 1, 1), (1, 1, 2, 3), (1, 1, 1, 2))))


def shuffled(m: Maker) -> Value:
    x = m.image()
    n, c, h, w = x.type.static_shape
    if c % 2:
        return m.op("nn.relu", x)
    groups = m.op("tensor.reshape", x, shape=(n, 2, c // 2, h, w))
    return m.op("tensor.reshape", m.op("tensor.transpose", groups, perm=(0, 2, 1, 3, 4)), shape=(n, c, h, w))


def softmax(m: Maker) -> Value:
    return m.op("nn.softmax", m.image(), axis=1)


def attended(m: Maker) -> Value:
    """Self-attention between pixels, or between channels: products of two activations around a softmax of rows."""
    x = m.image()
    n, c, h, w = x.type.static_shape
    if h * w > 150:
        return m.op("nn.relu", x)
    rows = m.op("tensor.reshape", x, shape=(n, c, h * w))
    columns = m.op("tensor.transpose", rows, perm=(0, 2, 1))
    first, second = m.choose(((columns, rows), (rows, columns)))
    scale = m.network.module.add_constant(f"a{m.count}", np.float32(0.1))
    scores = m.op("math.mul", m.op("nn.matmul", first, second), scale)
    mixed = m.op("nn.matmul", m.op("nn.softmax", scores, axis=-1), first)
    if first is columns:
        mixed = m.op("tensor.transpose", mixed, perm=(0, 2, 1))
    return m.op("tensor.reshape", mixed, shape=(n, c, h, w))


LAYERS: list[Callable[[Maker], Value]] = [
    convolution, convolution, convolution, convolution, activation, activation, prelu, pool, pool, addition, addition,
    with_constant, joined, joined, sliced, padded, squeezed, shuffled, softmax,
    resized, resized, transposed, transposed, normalised, bordered, repeated, attended,
]  # fmt: skip


def classifier(m: Maker, x: Value) -> Value:
    n = x.type.static_shape[0]
    pooled = m.op(m.choose(("nn.global_avg_pool", "nn.global_max_pool")), x)
    flat = m.op("tensor.reshape", pooled, shape=(n, x.type.static_shape[1]))
    scores = m.op("math.add", m.network.matmul(flat, 10, m.name()), m.network.constant(f"c{m.count}", 10))
    return m.op("nn.softmax", scores, axis=1) if m.choose((0, 1)) else scores


def flattened(m: Maker, x: Value) -> Value:
    n = x.type.static_shape[0]
    flat = m.op("tensor.reshape", x, shape=(n, x.type.elements // n))
    return m.network.matmul(flat, 5, m.name())


def reduced(m: Maker, x: Value) -> Value:
    if m.choose((0, 0, 1)):
        kind = m.choose(("reduce.argmax", "reduce.argmin"))
        return m.op(kind, x, axis=m.choose((1, 2, 3)), keepdims=m.choose((True, False)))
    kind = m.choose(("reduce.mean", "reduce.max", "reduce.sum", "reduce.min", "reduce.l2"))
    return m.op(kind, x, axes=m.choose(((2, 3), (1,), (2,), (1, 3), ())), keepdims=m.choose((True, False)))


HEADS: list[Callable[[Maker, Value], Value]] = [lambda m, x: x, classifier, flattened, reduced]


def network(choose: Choose, layers: int) -> Module:
    m = Maker(choose)
    for _ in range(layers):
        made = choose(LAYERS)(m)
        if made.type.elements <= 40_000:
            m.images.append(made)
    heads = [choose(HEADS) for _ in range(choose((1, 1, 2, 3)))]
    return m.network.done(*[head(m, m.images[-1] if not i else m.image()) for i, head in enumerate(heads)])


def random_network(seed: int, layers: int = 8) -> Module:
    random = np.random.default_rng(seed)
    return network(lambda options: options[int(random.integers(len(options)))], layers)


@st.composite
def networks(draw: st.DrawFn, layers: int = 6) -> Module:
    """A network of up to `layers` drawn layers."""
    return network(lambda options: draw(st.sampled_from(options)), draw(st.integers(1, layers)))
