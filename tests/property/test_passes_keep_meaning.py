"""Random networks give the same outputs before and after the target-neutral passes, whatever the order of the passes.

Networks mix spatial ops, elementwise ops with broadcasting, movement, flattening into matmuls and reductions over any
axes; values are reused at random, so that many are shared and several are outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Module, Value
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from compiler.pass_manager import PassContext, run_pipeline
from compiler.rewrite import RewriteCounter
from tests.networks import Network

C, H, W = 4, 4, 6
"""Channels and size that the generated images keep, so that any two of them can be added."""


# -- random networks -------------------------------------------------------------------------------------------------
class Maker:
    """Grows a network of [1, C, H, W] images, one drawn layer at a time."""

    def __init__(self, data: DataObject) -> None:
        self.data = data
        self.network = Network((1, C, H, W), (1, C, H, W), seed=data.draw(st.integers(0, 99), label="seed"))
        self.images: list[Value] = list(self.network.inputs)
        self.outputs: list[Value] = []
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def image(self) -> Value:
        return self.data.draw(st.sampled_from(self.images[-4:]), label="operand")

    def op(self, kind: str, *operands: Value | None, **attributes: object) -> Value:
        return self.network.op(kind, *operands, name=self.name(), **attributes)

    def positive(self, name: str, *shape: int) -> Value:
        return self.network.module.add_constant(name, (0.5 + self.network.random.random(shape)).astype(np.float32))

    def choose(self, *options: object) -> object:
        return self.data.draw(st.sampled_from(options))


def convolution(m: Maker) -> Value:
    kernel, groups = m.choose((1, 1), (3, 1), (3, C), (1, 2))  # type: ignore[misc]
    return m.network.conv(m.image(), C, m.name(), kernel=kernel, groups=groups)


def transposed_convolution(m: Maker) -> Value:
    groups = m.choose(1, 2)
    w = m.network.constant(f"w{m.count}", C, C // groups, 3, 3, scale=0.3)  # type: ignore[operator]
    return m.op("nn.conv_transpose2d", m.image(), w, pads=(1, 1, 1, 1), groups=groups)


def batch_norm(m: Maker) -> Value:
    vectors = [m.positive(f"{word}{m.count}", C) for word in ("scale", "bias", "mean", "var")]
    return m.op("nn.batch_norm", m.image(), *vectors)


def unary(m: Maker) -> Value:
    kind = m.choose("nn.relu", "nn.sigmoid", "math.abs", "math.neg", "math.tanh", "nn.hard_swish", "math.floor")
    return m.op(str(kind), m.image())


def clip(m: Maker) -> Value:
    low, high = m.choose((0.0, 6.0), (-1.0, 1.0), (0.0, float("inf")), (-float("inf"), 0.5))  # type: ignore[misc]
    return m.op("math.clip", m.image(), low=low, high=high)


def binary(m: Maker) -> Value:
    return m.op(str(m.choose("math.add", "math.sub", "math.mul", "math.maximum")), m.image(), m.image())


def with_constant(m: Maker) -> Value:
    shape = m.choose((), (1,), (C, 1, 1), (1, C, 1, 1), (W,), (H, W), (C, H, W))
    values = m.choose(None, 0.0, 1.0)
    other = m.positive(f"k{m.count}", *shape)  # type: ignore[misc]
    if values is not None:
        other = m.network.module.add_constant(f"k{m.count}", np.full(shape, values, np.float32))  # type: ignore[arg-type]
    kind = str(m.choose("math.add", "math.mul", "math.sub", "math.minimum"))
    pair = (m.image(), other) if m.choose(True, False) else (other, m.image())
    return m.op(kind, *pair)


def pool(m: Maker) -> Value:
    kind = m.choose("nn.max_pool2d", "nn.avg_pool2d")
    return m.op(str(kind), m.image(), kernel=(3, 3), pads=(1, 1, 1, 1))


def resampled(m: Maker) -> Value:
    larger = m.op("nn.resize", m.image(), sizes=(1, C, 2 * H, 2 * W), mode=m.choose("nearest", "linear"))
    return m.op("nn.max_pool2d", larger, kernel=(2, 2), strides=(2, 2))


def channel_gate(m: Maker) -> Value:
    x = m.image()
    pooled = m.op("nn.global_avg_pool", x)
    vector = m.op("tensor.reshape", pooled, shape=(1, C))
    gate = m.op("nn.sigmoid", m.network.matmul(vector, C, m.name()))
    return m.op("math.mul", x, m.op("tensor.reshape", gate, shape=(1, C, 1, 1)))


def twice_transposed(m: Maker) -> Value:
    perm = m.choose((0, 2, 3, 1), (0, 3, 2, 1), (0, 1, 3, 2))
    there = m.op("tensor.transpose", m.image(), perm=perm)
    inside = m.op("nn.relu", there) if m.choose(True, False) else there
    return m.op("tensor.transpose", inside, perm=tuple(int(i) for i in np.argsort(perm)))  # type: ignore[arg-type]


def reshaped_and_back(m: Maker) -> Value:
    flat = m.op("tensor.reshape", m.image(), shape=m.choose((1, C * H * W), (C, H, W), (1, C, H * W), (-1,)))
    return m.op("tensor.reshape", m.op("nn.relu", flat), shape=(1, C, H, W))


def sliced_and_padded(m: Maker) -> Value:
    part = m.op("tensor.slice", m.image(), starts=(0, 1, 0, 1), sizes=(1, C - 1, H, W - 1))
    return m.op("tensor.pad", part, pads=(0, 1, 0, 0, 0, 0, 0, 1), mode=m.choose("constant", "edge"))


def joined(m: Maker) -> Value:
    both = m.op("tensor.concat", m.image(), m.image(), axis=m.choose(1, -3))
    return m.op("tensor.slice", both, starts=(0, 1, 0, 0), sizes=(1, C, H, W))


def as_sequence(m: Maker) -> Value:
    """Through one row of H*W pixels and three axes, where it is cut and padded again."""
    row = m.op("tensor.reshape", m.image(), shape=(1, C, 1, H * W))
    flat = m.op("tensor.reshape", m.network.conv(row, C, m.name()), shape=(1, C, H * W))
    part = m.op("tensor.slice", flat, starts=(0, 0, 2), sizes=(1, C, H * W - 3))
    back = m.op("tensor.pad", m.op("nn.relu", part), pads=(0, 0, 1, 0, 0, 2), mode=m.choose("constant", "reflect"))
    return m.op("tensor.reshape", back, shape=(1, C, H, W))


def shuffled(m: Maker) -> Value:
    groups = m.op("tensor.reshape", m.image(), shape=(1, 2, C // 2, H, W))
    swapped = m.op("tensor.transpose", groups, perm=(0, 2, 1, 3, 4))
    return m.op("tensor.reshape", swapped, shape=(1, C, H, W))


def pixel_shuffled(m: Maker) -> Value:
    deep = m.op("tensor.reshape", m.image(), shape=(1, 1, 2, 2, H, W))
    moved = m.op("tensor.transpose", deep, perm=(0, 1, 4, 2, 5, 3))
    image = m.op("tensor.reshape", moved, shape=(1, 1, 2 * H, 2 * W))
    return m.op("nn.space_to_depth", image, block_size=2)


def softmax(m: Maker) -> Value:
    return m.op("nn.softmax", m.image(), axis=m.choose(1, 2, -1))


LAYERS: list[Callable[[Maker], Value]] = [
    convolution, convolution, convolution, transposed_convolution, batch_norm, batch_norm, unary, clip, binary, binary,
    with_constant, with_constant, pool, resampled, channel_gate, twice_transposed, reshaped_and_back, sliced_and_padded,
    joined, shuffled, as_sequence, pixel_shuffled, softmax,
]  # fmt: skip


def flattened(m: Maker, x: Value) -> Value:
    flat = m.network.flatten(x, m.name())
    return m.network.matmul(m.op("nn.relu", flat) if m.choose(True, False) else flat, 3, m.name())


def reduced(m: Maker, x: Value) -> Value:
    kind = m.choose("reduce.mean", "reduce.max", "reduce.sum")
    return m.op(str(kind), x, axes=m.choose((2, 3), (1,), (-1,), (1, 2, 3), (3, 1)), keepdims=m.choose(True, False))


def tokens(m: Maker, x: Value) -> Value:
    flat = m.op("tensor.reshape", x, shape=(1, C, H * W))
    return m.op("tensor.transpose", flat, perm=(0, 2, 1))


HEADS = [flattened, reduced, tokens, lambda m, x: x]


@st.composite
def networks(draw: st.DrawFn) -> Module:
    """A module of up to nine drawn layers, with one to three outputs."""
    m = Maker(draw(st.data()))
    for layer in draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=9)):
        m.images.append(layer(m))
    heads = draw(st.lists(st.sampled_from(HEADS), min_size=1, max_size=3))
    return m.network.done(*[head(m, m.image() if i else m.images[-1]) for i, head in enumerate(heads)])


# -- the laws --------------------------------------------------------------------------------------------------------
def inputs(module: Module) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.normal(size=a.type.static_shape).astype(np.float32) for a in module.main.arguments]


def outputs(module: Module) -> list[np.ndarray]:
    return Interpreter(module).run(inputs(module))


def assert_alike(found: list[np.ndarray], expected: list[np.ndarray], tolerance: float) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        scale = max(1.0, float(np.abs(b).max(initial=0.0)))
        assert np.abs(a - b).max(initial=0.0) <= tolerance * scale


many = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@many
@given(networks())
def test_simplify_keeps_every_bit_but_the_sign_of_zero(module):
    # BLAS and libm may give other bits for other memory layouts of one array, so equality is to a few units in the last
    # place.
    assert_alike(outputs(run_pipeline(module, "simplify")), outputs(module), 1e-6)


@many
@given(networks(), st.permutations(["simplify", "fuse-batchnorm", "convert-layout"]))
def test_passes_in_any_order_keep_outputs_names_and_types(module, order):
    result = run_pipeline(module, ",".join(order))
    assert result.main.output_names == module.main.output_names
    assert [v.type for v in result.main.outputs] == [v.type for v in module.main.outputs]
    assert [(a.name, a.type) for a in result.main.arguments] == [(a.name, a.type) for a in module.main.arguments]
    assert_alike(outputs(result), outputs(module), 1e-4)


@many
@given(networks(), st.data())
def test_pipeline_cut_off_at_any_rewrite_keeps_the_outputs(module, data):
    counter = RewriteCounter()
    run_pipeline(module, "prepare,convert-layout", ctx=PassContext(counter=counter))
    limit = data.draw(st.integers(0, counter.count))
    part = run_pipeline(module, "prepare,convert-layout", ctx=PassContext(counter=RewriteCounter(limit=limit)))
    assert_alike(outputs(part), outputs(module), 1e-4)


@many
@given(networks())
def test_passes_are_done_when_they_say_so(module):
    once = run_pipeline(module, "prepare,convert-layout,simplify")
    again = run_pipeline(once, "simplify,fuse-batchnorm,convert-layout")
    assert print_module(again) == print_module(once)


@many
@given(networks())
def test_pipeline_can_be_resumed_from_text(module):
    whole = run_pipeline(module, "prepare,convert-layout")
    half = parse_module(print_module(run_pipeline(module, "prepare"), inline_constants=True))
    assert print_module(run_pipeline(half, "convert-layout")) == print_module(whole)


def test_spatial_ops_all_run_in_nhwc_after_conversion():
    network = Network((1, C, H, W))
    y = network.conv(network.x, C, "c")
    y = network.op("nn.max_pool2d", y, name="p", kernel=(2, 2))
    module = run_pipeline(network.done(y), "convert-layout")
    assert {op.attributes.get("layout") for op in module.ops() if op.op_name.startswith("nn.")} == {"NHWC"}


@pytest.mark.parametrize("model", ["mnist_8", "resnet20_cifar10", "squeezenet_imagenet", "mobilenet_v2_imagenet"])
def test_classification_nets_have_transposes_at_their_borders_only(models, model):
    from compiler.frontend.load import load

    module = load(models / f"{model}.onnx")
    result = run_pipeline(module, "prepare,convert-layout")
    for op in result.ops():
        if op.op_name == "tensor.transpose":
            at_input = op.operands[0] in result.main.arguments
            at_output = all(user.op_name == "graph.return" for user in op.result.users)
            assert at_input or at_output, f"{op!r} is inside"
    assert_alike(outputs(result), outputs(module), 1e-4)
