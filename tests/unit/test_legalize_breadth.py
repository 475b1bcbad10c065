"""The rules beyond convolution networks' daily bread: resizing, transposed convolution, picking by index, reductions
over any axes, normalisations, rarer activations, comparison. Each agrees with the neutral op and has one meaning.
"""

from __future__ import annotations

import numpy as np
import pytest

from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Module, Value
from passes.quantization.scheme import Scheme
from tests.journeys import Arrays, assert_one_meaning, journey, legalised, random_inputs
from tests.networks import Network
from tests.unit.test_legalize import Build, build, host_functions, positive, relative_error, unary, vector


def resized(height: int, width: int, **options: object) -> Build:
    def make(net: Network) -> Value:
        sizes = (*net.x.type.static_shape[:2], height, width)
        return net.op("nn.resize", net.x, name="y", sizes=sizes, **options)

    return make


def behind(case: Build, kind: str, **options: object) -> Build:
    """An op on what a case makes."""
    return lambda net: net.op(kind, case(net), name="z", **options)


def tokens(case_kind: str, shape: tuple[int, ...] = (6, 35), **options: object) -> Build:
    """An op on rows of numbers instead of an image."""

    def make(net: Network) -> Value:
        n = net.x.type.static_shape[0]
        rows = net.op("tensor.reshape", net.x, name="rows", shape=(n, *shape))
        return net.op(case_kind, rows, name="y", **options)

    return make


def layer_norm(net: Network) -> Value:
    rows = net.op("tensor.reshape", net.x, name="rows", shape=(net.x.type.static_shape[0], 6, 35))
    return net.op("nn.layer_norm", rows, vector(net, "s", 35), vector(net, "b", 35), name="y")


def normed(kind: str, **options: object) -> Build:
    return lambda net: net.op(kind, net.x, positive(net, "s", 6), vector(net, "b", 6), name="y", **options)


def gathered(axis: int, *indices: int) -> Build:
    return lambda net: net.op(
        "tensor.gather", net.x, net.module.add_constant("i", np.array(indices, np.int64)), name="y", axis=axis
    )


def per_image(kind: str, swapped: bool = False) -> Build:
    """An image combined with one number per channel of each image of the batch."""

    def make(net: Network) -> Value:
        pooled = net.op("nn.global_avg_pool", net.x, name="g")
        return net.op(kind, *((pooled, net.x) if swapped else (net.x, pooled)), name="y")

    return make


def rows_by_columns(net: Network) -> Value:
    """Two operands that both need repeating."""
    rows = net.op("reduce.max", net.x, name="r", axes=(3,))
    columns = net.op("reduce.max", net.x, name="c", axes=(2,))
    return net.op("math.sub", rows, columns, name="y")


def selected(net: Network) -> Value:
    mask = net.op("math.greater", net.x, net.op("reduce.mean", net.x, name="m", axes=(1,)), name="mask")
    other = net.op("math.not", mask, name="other")
    both = net.op("math.or", net.op("math.and", mask, other, name="and"), mask, name="either")
    return net.op("math.where", both, net.x, net.module.add_constant("k", np.float32(-7.0)), name="y")


def powered(exponent: float, kind: str | None = None) -> Build:
    def make(net: Network) -> Value:
        base = net.x if kind is None else net.op(kind, net.x, name="base")
        return net.op("math.pow", base, net.module.add_constant("e", np.float32(exponent)), name="y")

    return make


HALF_PIXELS = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")

CASES: dict[str, Build] = {
    "nearest twice": resized(10, 14, coordinate_mode="asymmetric", nearest_mode="floor"),
    "nearest thrice and once": resized(15, 7), "nearest by odd factors": resized(8, 11),
    "nearest down": resized(3, 4, nearest_mode="ceil"),
    "nearest for tensorflow": resized(9, 9, coordinate_mode="tf_half_pixel_for_nn"),
    **{f"linear, {mode}": resized(11, 28, mode="linear", coordinate_mode=mode) for mode in HALF_PIXELS},
    "linear eight times": resized(33, 49, mode="linear", coordinate_mode="align_corners"),
    "linear down": resized(3, 4, mode="linear"), "linear, antialiased": resized(3, 4, mode="linear", antialias=True),
    "cubic": resized(9, 10, mode="cubic"),
    "elementwise behind linear": behind(resized(10, 14, mode="linear"), "nn.silu"),
    "tile": unary("tensor.tile", repeats=(1, 2, 3, 1)), "tile channels": unary("tensor.tile", repeats=(1, 3, 1, 2)),
    "broadcast": lambda net: net.op(
        "tensor.broadcast_to", net.op("nn.global_max_pool", net.x, name="g"), name="y", shape=net.x.type.static_shape
    ),
    "space to depth": lambda net: net.op(
        "nn.space_to_depth", net.op("tensor.pad", net.x, name="p", pads=(0, 0, 0, 0, 0, 0, 1, 1)), name="y",
        block_size=2,
    ),
    "depth to space": lambda net: net.op(
        "nn.depth_to_space", net.op("tensor.tile", net.x, name="t", repeats=(1, 2, 1, 1)), name="y", block_size=2
    ),
    "depth to space, channel first": lambda net: net.op(
        "nn.depth_to_space", net.op("tensor.tile", net.x, name="t", repeats=(1, 2, 1, 1)), name="y", block_size=2,
        mode="CRD",
    ),
    "reflected border": unary("tensor.pad", pads=(0, 0, 2, 1, 0, 0, 1, 3), mode="reflect"),
    "repeated border": unary("tensor.pad", pads=(0, 1, 2, 1, 0, 0, 1, 3), mode="edge"),
    "wrapped border": unary("tensor.pad", pads=(0, 0, 2, 1, 0, 0, 1, 3), mode="wrap"),
    "backwards": unary("tensor.slice", starts=(0, 5, 1, 6), sizes=(1, 3, 2, 4), steps=(1, -2, 1, -1)),
    "gather": gathered(1, 4, 0, 0, 5), "gather backwards": gathered(2, -1, 3, 2),
    "gather a range": gathered(3, 1, 3, 5),
    "dilated max-pool": unary("nn.max_pool2d", kernel=(2, 3), dilations=(2, 2), pads=(1, 2, 1, 2)),
    "dilated average": unary("nn.avg_pool2d", kernel=(2, 3), dilations=(2, 2)),
    "dilated average of what is there": unary(
        "nn.avg_pool2d", kernel=(3, 2), dilations=(2, 3), strides=(2, 1), pads=(1, 2, 2, 1)
    ),
    "dilated average with its pads": unary(
        "nn.avg_pool2d", kernel=(2, 2), dilations=(1, 2), pads=(0, 1, 1, 1), count_include_pad=True
    ),
    "dilated and strided max-pool": unary(
        "nn.max_pool2d", kernel=(2, 2), dilations=(3, 1), strides=(1, 2), pads=(1, 0, 2, 0)
    ),
    "depthwise transposed": lambda net: net.op(
        "nn.conv_transpose2d", net.x, vector(net, "w", 6, 1, 3, 3), vector(net, "b", 6), name="y", groups=6,
        strides=(2, 2), pads=(1, 1, 1, 1), output_pads=(1, 1)
    ),
    "layer-norm": layer_norm, "layer-norm of images": unary("nn.layer_norm", axis=2),
    "rms-norm": lambda net: net.op(
        "nn.rms_norm", net.op("tensor.reshape", net.x, name="rows", shape=(net.x.type.static_shape[0], 6, 35)),
        vector(net, "s", 35), name="y"
    ),
    "instance-norm": normed("nn.instance_norm"), "group-norm": normed("nn.group_norm", groups=3),
    "lrn": unary("nn.lrn", size=3, alpha=0.3), "lrn over rows": unary("nn.lrn", size=4, alpha=0.3, axis=2),
    "a row resized": lambda net: net.op(
        "nn.resize", net.op("reduce.max", net.x, name="m", axes=(2,), keepdims=False), name="y", mode="linear",
        sizes=(net.x.type.static_shape[0], 6, 13),
    ),
    "softmax over rows": unary("nn.softmax", axis=2), "softmax of tokens": tokens("nn.softmax", axis=1),
    "log-softmax": unary("nn.log_softmax", axis=1),
    "sum of everything": unary("reduce.sum", axes=()), "mean of rows": unary("reduce.mean", axes=(2,)),
    "mean of channels and columns": unary("reduce.mean", axes=(1, 3), keepdims=False),
    "maximum of rows": unary("reduce.max", axes=(2,)), "minimum of pixels": unary("reduce.min", axes=(2, 3)),
    "l1": unary("reduce.l1", axes=(1,)), "l2": unary("reduce.l2", axes=(1, 2)),
    "squares": unary("reduce.sum_square", axes=(3,)),
    "log-sum-exp": unary("reduce.log_sum_exp", axes=(2, 3)), "mean of tokens": tokens("reduce.mean", axes=(1,)),
    "sum in the middle": tokens("reduce.sum", shape=(3, 10, 7), axes=(1, 2)),
    "channels scaled image by image": per_image("math.mul"), "image minus its means": per_image("math.sub"),
    "means minus image": per_image("math.sub", swapped=True), "means over sigmoid": lambda net: net.op(
        "math.div", net.op("nn.global_avg_pool", net.x, name="g"), net.op("nn.sigmoid", net.x, name="s"), name="y"
    ),
    "rows by columns": rows_by_columns,
    "slope per element": lambda net: net.op("nn.prelu", net.x, vector(net, "p", 6, 5, 7), name="y"),
    "elu": unary("nn.elu", alpha=0.7), "selu": unary("nn.selu"), "celu": unary("nn.celu", alpha=2.0),
    "softplus": unary("nn.softplus"), "softsign": unary("nn.softsign"), "mish": unary("nn.mish"),
    "gelu by tanh": unary("nn.gelu", approximate="tanh"), "thresholded": unary("nn.thresholded_relu", alpha=0.3),
    "sign": unary("math.sign"), "selection": selected,
    "square": powered(2.0), "cube": powered(3.0), "root": powered(0.5, "math.abs"),
    "power by logarithm": powered(1.7, "nn.sigmoid"),
}  # fmt: skip

TOLERANCES = {"f16": 6e-3, "f32": 5e-6}


@pytest.mark.parametrize("float_type", TOLERANCES)
@pytest.mark.parametrize("name", CASES)
def test_rules_agree_with_what_the_ops_mean(name: str, float_type: str) -> None:
    prepared, legal = legalised(build(CASES[name]), scheme=Scheme(), legalize=f"legalize{{float={float_type}}}")
    inputs = random_inputs(prepared, 5)
    (found,), (wanted,) = Interpreter(legal).run(inputs), Interpreter(prepared).run(inputs)
    assert host_functions(legal) == []
    assert relative_error(found, wanted) <= TOLERANCES[float_type]


WAYS = ({"cores": 1}, {"cores": 3, "schedule": "schedule{max-rows=2,max-channels=64}"})


@pytest.mark.parametrize("way", WAYS, ids=("whole", "small tiles"))
@pytest.mark.parametrize("name", CASES)
def test_rules_emit_instructions_that_mean_the_same(name: str, way: dict) -> None:
    batch = 1 if name in ("backwards",) else 2
    made = journey(build(CASES[name], (batch, 6, 5, 7)), scheme=Scheme(), **way)
    assert_one_meaning(made, random_inputs(made.prepared, 5))


# -- transposed convolution -------------------------------------------------------------------------------------------
def transposed(ci: int, co: int, kernel: tuple[int, int], groups: int = 1, **options: object) -> Module:
    net = Network((2, ci, 5, 4), seed=2)
    w = net.constant("w", ci, co // groups, *kernel, scale=(ci * kernel[0] * kernel[1]) ** -0.5)
    y = net.op("nn.conv_transpose2d", net.x, w, net.constant("b", co, scale=0.1), name="y", groups=groups, **options)
    return net.done(net.op("nn.relu", y, name="r"))


TRANSPOSED = {
    "twice without overlap": transposed(6, 5, (2, 2), strides=(2, 2)),
    "twice with overlap": transposed(6, 5, (4, 4), strides=(2, 2), pads=(1, 1, 1, 1)),
    "odd kernel": transposed(6, 5, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1), output_pads=(1, 1)),
    "kernel below stride": transposed(4, 70, (1, 2), strides=(3, 2)),
    "stride 1": transposed(4, 3, (3, 3), pads=(1, 0, 2, 1)),
    "dilated": transposed(4, 3, (3, 2), dilations=(2, 3)),
    "dilated and strided": transposed(4, 3, (3, 3), strides=(2, 1), dilations=(3, 2), pads=(1, 2, 0, 1)),
    "pads that crop": transposed(4, 3, (2, 2), strides=(2, 2), pads=(3, 2, 4, 5)),
    "one weight": transposed(1, 1, (1, 1), strides=(2, 2)),
    "groups": transposed(6, 4, (3, 3), groups=2, strides=(2, 2), pads=(1, 1, 0, 0)),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolutions_are_exact_integer_phases(name: str) -> None:
    """The results agree with the float ones to what quantising costs."""
    made = journey(TRANSPOSED[name], cores=2, legalize="legalize{float=f32}")
    inputs = random_inputs(made.prepared, 7)
    (found,) = assert_one_meaning(made, inputs)
    (wanted,) = Interpreter(made.prepared).run(inputs)
    assert host_functions(made.legal) == [] and relative_error(found, wanted) < 0.03


def test_transposed_convolution_does_no_multiplication_with_inserted_zeros() -> None:
    _, legal = legalised(TRANSPOSED["twice with overlap"])
    convolutions = [op for op in legal.ops() if op.op_name == "mlu.conv2d"]
    assert [op.w.type.static_shape for op in convolutions] == [(5, 2, 2, 6)] * 4


# -- indices and truth values -----------------------------------------------------------------------------------------
def places(kind: str, axis: int, shape: tuple[int, ...] = (2, 6, 5, 7), **options: object) -> Module:
    net = Network(shape)
    return net.done(net.op(kind, net.op("math.abs", net.x, name="a"), name="y", axis=axis, **options))


@pytest.mark.parametrize("kind", ["reduce.argmax", "reduce.argmin"])
@pytest.mark.parametrize(("axis", "options"), [(1, {}), (3, {"keepdims": False}), (2, {"select_last": True})])
def test_places_of_extremes_are_exact_also_among_equals(kind: str, axis: int, options: dict[str, object]) -> None:
    made = journey(places(kind, axis, **options), scheme=Scheme(), cores=2)
    x = np.random.default_rng(1).integers(-3, 4, (2, 6, 5, 7)).astype(np.float32)
    (found,) = assert_one_meaning(made, [x])
    assert found.dtype == np.int64 and host_functions(made.legal) == []
    np.testing.assert_array_equal(found, Interpreter(made.prepared).run([x])[0])


@pytest.mark.parametrize("kind", ["greater", "less", "equal", "greater_equal", "less_equal"])
def test_comparisons_are_exact_down_to_the_smallest_difference(kind: str) -> None:
    net = Network((1, 2, 3, 4), (1, 2, 3, 4))
    made = journey(net.done(net.op(f"math.{kind}", net.x, net.inputs[1], name="y")), scheme=Scheme())
    random = np.random.default_rng(1)
    numbers = np.float16([0, 6e-8, -6e-8, 1, 1.001, 60000.0]).astype(np.float32)
    inputs: Arrays = [random.choice(numbers, (1, 2, 3, 4)) for _ in range(2)]
    (found,) = assert_one_meaning(made, inputs)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, Interpreter(made.prepared).run(inputs)[0])


# -- sizes ------------------------------------------------------------------------------------------------------------
LONG: dict[str, tuple[tuple[int, ...], Build]] = {
    "a picture's mean": ((1, 8, 96, 100), unary("nn.global_avg_pool")),
    "a picture's maximum": ((1, 8, 96, 100), unary("nn.global_max_pool")),
    "the norm of everything": ((1, 3, 96, 100), unary("reduce.l2", axes=())),
    "instance-norm of a picture": ((1, 6, 90, 90), normed("nn.instance_norm")),
    "means of many rows": ((1, 2, 4000, 3), unary("reduce.mean", axes=(2,))),
}


@pytest.mark.parametrize("name", LONG)
def test_axes_too_long_for_the_chip_are_reduced_in_steps(name: str) -> None:
    shape, case = LONG[name]
    made = journey(build(case, shape), scheme=Scheme())
    inputs = random_inputs(made.prepared, 5)
    (found,), (wanted,) = assert_one_meaning(made, inputs), Interpreter(made.prepared).run(inputs)
    assert host_functions(made.legal) == [] and relative_error(found, wanted) < 4e-3


def test_a_sum_that_leaves_half_precision_does_not_spoil_a_mean() -> None:
    net = Network((1, 40, 64))
    prepared, legal = legalised(net.done(net.op("reduce.mean", net.x, name="y", axes=(2,))), scheme=Scheme())
    inputs = [np.full((1, 40, 64), 3000.0, np.float32)]
    np.testing.assert_array_equal(Interpreter(legal).run(inputs)[0], Interpreter(prepared).run(inputs)[0])



# -- pixels folded into channels ---------------------------------------------------------------------------------------
def focus(net: Network) -> Value:
    n, c, h, w = net.x.type.static_shape
    window = {"sizes": (n, c, h // 2, w // 2), "steps": (1, 1, 2, 2)}
    starts = ((0, 0), (1, 0), (0, 1), (1, 1))
    parts = [net.op("tensor.slice", net.x, name=f"s{i}", starts=(0, 0, *s), **window) for i, s in enumerate(starts)]
    return net.op("tensor.concat", *parts, name="f", axis=1)


def space_to_depth(net: Network) -> Value:
    return net.op("nn.space_to_depth", net.x, name="f", block_size=2)


@pytest.mark.parametrize("fold", [focus, space_to_depth])
@pytest.mark.parametrize("window", [(3, (1, 1)), (2, (2, 1))])
def test_a_convolution_of_folded_pixels_reads_the_image_itself(fold: Build, window: tuple) -> None:
    kernel, strides = window
    net = Network((2, 3, 12, 8))
    module = net.done(net.conv(fold(net), 5, "y", kernel=kernel, strides=strides))
    made = journey(module, legalize="legalize{float=f32}")
    inputs = random_inputs(made.prepared, 5)
    (found,), (wanted,) = assert_one_meaning(made, inputs), Interpreter(made.prepared).run(inputs)
    assert relative_error(found, wanted) < 0.03
    names = {op.op_name for op in made.legal.functions["subnet0"].body}
    assert not names & {"mlu.slice", "mlu.concat", "mlu.transpose"}
