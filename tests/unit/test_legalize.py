"""The rules table: what every neutral op becomes on the chip means what it means; what has no rule says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Module, Value
from compiler.ir.types import DType
from compiler.pass_manager import PassContext, run_pipeline
from compiler.target import load_target
from passes.quantization.scheme import Scheme
from tests.journeys import assert_one_meaning, assert_same_bytes, journey, legalised, random_inputs
from tests.networks import Network, op_named

SHAPE = (1, 6, 5, 7)
Build = Callable[[Network], Value]


def vector(net: Network, name: str, *shape: int) -> Value:
    return net.constant(name, *shape, scale=0.5)


def positive(net: Network, name: str, *shape: int) -> Value:
    data = (0.5 + net.random.random(size=shape)).astype(np.float32)
    return net.module.add_constant(name, data)


def unary(kind: str, **options: object) -> Build:
    return lambda net: net.op(kind, net.x, name="y", **options)


def of_positive(kind: str) -> Build:
    """An op on 0.5 + |x|."""

    def build(net: Network) -> Value:
        shifted = net.op("math.add", net.op("math.abs", net.x, name="a"), positive(net, "k", 1), name="s")
        return net.op(kind, shifted, name="y")

    return build


def with_constant(kind: str, *shape: int, swapped: bool = False) -> Build:
    def build(net: Network) -> Value:
        pair = (net.x, positive(net, "k", *shape))
        return net.op(kind, *(pair[::-1] if swapped else pair), name="y")

    return build


def two_values(kind: str) -> Build:
    return lambda net: net.op(kind, net.x, net.op("nn.sigmoid", net.x, name="s"), name="y")


FLOAT_CASES: dict[str, Build] = {
    "relu": unary("nn.relu"), "sigmoid": unary("nn.sigmoid"), "tanh": unary("math.tanh"), "exp": unary("math.exp"),
    "abs": unary("math.abs"), "erf": unary("math.erf"), "neg": unary("math.neg"), "silu": unary("nn.silu"),
    "gelu": unary("nn.gelu"), "hard-swish": unary("nn.hard_swish"), "leaky-relu": unary("nn.leaky_relu", alpha=0.2),
    "hard-sigmoid": unary("nn.hard_sigmoid", alpha=0.3, beta=0.4), "clip": unary("math.clip", low=-0.5, high=0.8),
    "relu6": unary("math.clip", low=0.0, high=6.0), "upper bound": unary("math.clip", high=0.3),
    "lower bound": unary("math.clip", low=-0.3), "log": of_positive("math.log"), "sqrt": of_positive("math.sqrt"),
    "rsqrt": of_positive("math.rsqrt"), "reciprocal": of_positive("math.reciprocal"),
    "prelu": lambda net: net.op("nn.prelu", net.x, vector(net, "p", 6, 1, 1), name="y"),
    "batch-norm": lambda net: net.op(
        "nn.batch_norm", net.x, *(positive(net, n, 6) for n in ("s", "b", "m", "v")), name="y"
    ),
    "softmax over channels": unary("nn.softmax", axis=1),
    "max-pool": unary("nn.max_pool2d", kernel=(3, 2), strides=(2, 1), pads=(1, 1, 1, 0)),
    "average-pool": unary("nn.avg_pool2d", kernel=(2, 2), strides=(2, 2)),
    "average-pool, borders counted": unary("nn.avg_pool2d", kernel=(3, 3), pads=(1, 1, 1, 1), count_include_pad=True),
    "average-pool, borders not counted": unary("nn.avg_pool2d", kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
    "global average": unary("nn.global_avg_pool"), "global maximum": unary("nn.global_max_pool"),
    "mean of pixels": unary("reduce.mean", axes=(2, 3)), "sum of channels": unary("reduce.sum", axes=(1,)),
    "maximum of channels": unary("reduce.max", axes=(1,), keepdims=False),
    "minimum of channels": unary("reduce.min", axes=(1,)), "mean of channels": unary("reduce.mean", axes=(1,)),
    "add": two_values("math.add"), "subtract": two_values("math.sub"), "multiply": two_values("math.mul"),
    "divide": two_values("math.div"), "maximum": two_values("math.maximum"), "minimum": two_values("math.minimum"),
    "add a number": with_constant("math.add"), "a number minus": with_constant("math.sub", swapped=True),
    "divide by a number": with_constant("math.div", 1), "a number divided": with_constant("math.div", 1, swapped=True),
    "add per channel": with_constant("math.add", 6, 1, 1),
    "per channel minus": with_constant("math.sub", 1, 6, 1, 1, swapped=True),
    "multiply per row": with_constant("math.mul", 5, 1), "multiply per column": with_constant("math.mul", 7),
    "multiply by a whole image": with_constant("math.mul", 6, 5, 7),
    "depthwise": lambda net: net.conv(net.x, 6, "y", kernel=3, groups=6),
    "depthwise, strided": lambda net: net.conv(net.x, 6, "y", kernel=3, groups=6, strides=(2, 1)),
    "depthwise, dilated": lambda net: net.conv(net.x, 6, "y", kernel=3, groups=6, dilations=(1, 2)),
    "concatenation": lambda net: net.op("tensor.concat", net.x, net.op("nn.relu", net.x, name="r"), name="y", axis=1),
    "concatenation of rows": lambda net: net.op(
        "tensor.concat", net.x, net.op("nn.relu", net.x, name="r"), name="y", axis=2
    ),
    "slice": unary("tensor.slice", starts=(0, 1, 1, 0), sizes=(1, 4, 2, 7), steps=(1, 1, 2, 1)),
    "pad": unary("tensor.pad", pads=(0, 1, 0, 2, 0, 0, 3, 0), value=-1.5),
    "reshape": unary("tensor.reshape", shape=(1, 3, 10, 7)), "transpose": unary("tensor.transpose", perm=(0, 1, 3, 2)),
    "transpose inside": lambda net: net.op(
        "nn.relu", net.op("tensor.transpose", net.op("nn.sigmoid", net.x, name="s"), name="t", perm=(0, 3, 1, 2)),
        name="y",
    ),
}  # fmt: skip
"""On f16 these agree with fp32 to some roundings of 2^-11."""

INTEGER_CASES: dict[str, Build] = {
    "convolution": lambda net: net.conv(net.x, 9, "y", kernel=3),
    "strided convolution": lambda net: net.conv(net.x, 9, "y", kernel=3, strides=(2, 2)),
    "dilated convolution": lambda net: net.conv(net.x, 9, "y", kernel=3, dilations=(2, 2)),
    "grouped convolution": lambda net: net.conv(net.x, 8, "y", kernel=3, groups=2),
    "grouped convolution of many channels": lambda net: net.conv(net.x, 132, "y", kernel=1, groups=3),
    "convolution of many channels": lambda net: net.conv(net.x, 130, "y", kernel=1),
    "matmul": lambda net: net.matmul(net.flatten(net.x, "f"), 9, "y"),
    "matmul of rows": lambda net: net.matmul(net.op("tensor.reshape", net.x, name="f", shape=(1, 30, 7)), 9, "y"),
    "max-pool of integers": lambda net: net.conv(
        net.op("nn.max_pool2d", net.conv(net.x, 8, "a"), name="p", kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)), 4,
        "y",
    ),
    "squeeze and excitation": lambda net: net.conv(
        net.op("math.mul", net.x, net.op("nn.sigmoid", net.conv(net.op("nn.global_avg_pool", net.x, name="g"), 6, "e"),
                                         name="s"), name="m"), 4, "y"
    ),
    "residual": lambda net: net.add(net.conv(net.relu(net.conv(net.x, 6, "a"), "r"), 6, "b", kernel=3), net.x, "y"),
}  # fmt: skip


def build(case: Build, shape: tuple[int, ...] = SHAPE) -> Module:
    """The case behind a max-pool that keeps the size: a spatial op, so that images take the chip's layout."""
    net = Network(shape, seed=3)
    net.inputs[0] = net.op("nn.max_pool2d", net.x, name="x.pooled", kernel=(2, 1), pads=(0, 0, 1, 0))
    return net.done(case(net))


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-3))


def host_functions(module: Module) -> list[str]:
    return [name for name in module.functions if name.startswith("host")]


@pytest.mark.parametrize(("float_type", "tolerance"), [("f16", 4e-3), ("f32", 3e-6)])
@pytest.mark.parametrize("name", FLOAT_CASES)
def test_float_ops_mean_on_the_chip_what_they_mean(name: str, float_type: str, tolerance: float) -> None:
    prepared, legal = legalised(build(FLOAT_CASES[name]), legalize=f"legalize{{float={float_type}}}", scheme=Scheme())
    assert host_functions(legal) == []
    inputs = random_inputs(prepared, 3)
    (found,), (wanted,) = Interpreter(legal).run(inputs), Interpreter(prepared).run(inputs)
    assert found.shape == wanted.shape and relative_error(found, wanted) <= tolerance


@pytest.mark.parametrize(("bits", "tolerance"), [(8, 0.03), (16, 4e-3)])
@pytest.mark.parametrize("name", INTEGER_CASES)
def test_integer_layers_mean_on_the_chip_what_they_mean(name: str, bits: int, tolerance: float) -> None:
    module = build(INTEGER_CASES[name])
    inputs = random_inputs(module, 3)
    prepared, legal = legalised(module, [inputs], bits=bits)
    assert host_functions(legal) == []
    (found,), (wanted,) = Interpreter(legal).run(inputs), Interpreter(prepared).run(inputs)
    assert relative_error(found, wanted) <= tolerance


@pytest.mark.parametrize("name", [*FLOAT_CASES, *INTEGER_CASES])
def test_every_rule_emits_instructions_that_mean_the_same(name: str) -> None:
    case = FLOAT_CASES.get(name) or INTEGER_CASES[name]
    scheme = {"scheme": Scheme()} if name in FLOAT_CASES else {}
    made = journey(build(case, (2, *SHAPE[1:])) if "matmul" not in name and "reshape" not in name else build(case),
                   cores=2, **scheme)  # fmt: skip
    assert_one_meaning(made, random_inputs(made.prepared, 5))


# -- types and rounding ----------------------------------------------------------------------------------------------
def test_float_values_take_the_type_asked_for_and_outputs_their_own() -> None:
    _, legal = legalised(build(INTEGER_CASES["residual"]), legalize="legalize{float=f32}")
    inside = {r.type.dtype for op in legal.functions["subnet0"].body for r in op.results}
    assert DType.F16 not in inside
    _, legal = legalised(build(INTEGER_CASES["residual"]))
    assert legal.functions["subnet0"].outputs[0].type.dtype is DType.F32
    assert op_named(legal, "b.conv2d").result.type.dtype is DType.F16


def test_a_value_whose_range_exceeds_half_precision_is_computed_in_single() -> None:
    net = Network((1, 4, 4, 4))
    huge = net.op("math.mul", net.conv(net.x, 4, "c"), net.module.add_constant("k", np.float32(40000.0)), name="big")
    module = net.done(net.op("math.mul", huge, net.module.add_constant("s", np.float32(1e-4)), name="y"))
    prepared, legal = legalised(module)
    assert op_named(legal, "big").result.type.dtype is DType.F32
    inputs = random_inputs(prepared, 8)
    (found,), (wanted,) = Interpreter(legal).run(inputs), Interpreter(prepared).run(inputs)
    assert np.isfinite(found).all() and relative_error(found, wanted) < 0.03


def test_ties_round_to_even_or_away_from_zero_as_asked() -> None:
    """A quantised step of exactly 1: inputs at .5 tell the modes apart, in the evaluator and in the file."""
    net = Network((1, 1, 1, 8))
    w = net.module.add_constant("w", np.ones((1, 1, 1, 1), np.float32))
    module = net.done(net.op("nn.conv2d", net.x, w, name="y"))
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 127.0, -127.0], np.float32).reshape(1, 1, 1, 8)
    results = {}
    for mode in ("nearest-even", "half-away"):
        made = journey(module, [[x]], legalize=f"legalize{{rounding={mode},float=f32}}")
        assert made.model.rounding == mode
        results[mode] = np.rint(assert_one_meaning(made, [x])[0].ravel()[:6]).tolist()
    assert results["nearest-even"] == [0, 2, 2, 0, -2, -2]
    assert results["half-away"] == [1, 2, 3, -1, -2, -3]


def test_max_pool_of_integers_loses_nothing() -> None:
    """The pool between two convolutions runs on what the second one takes, so that quantising is done once."""
    _, legal = legalised(build(INTEGER_CASES["max-pool of integers"]))
    converts = [op for op in legal.ops() if op.op_name == "mlu.convert" and not op.to.is_float]
    assert len(converts) >= 2 and host_functions(legal) == []


def test_names_stay_on_the_values_that_mean_the_same() -> None:
    _, legal = legalised(build(INTEGER_CASES["residual"]))
    names = {r.name for op in legal.functions["subnet0"].body for r in op.results}
    assert {"a.scaled", "r.scaled", "b", "y"} <= {name.removesuffix(".f16") for name in names}


def test_legalizing_twice_from_one_module_gives_one_text() -> None:
    texts = {str(legalised(build(INTEGER_CASES["squeeze and excitation"]))[1]) for _ in range(2)}
    assert len(texts) == 1


# -- reasons ---------------------------------------------------------------------------------------------------------
def dynamic_filters(net: Network) -> Value:
    other = net.op("tensor.reshape", net.x, name="w", shape=(35, 6, 1, 1))
    return net.op("nn.conv2d", net.x, other, name="y")


REASONS: dict[str, tuple[Build, str]] = {
    "float convolution": (lambda net: net.conv(net.x, 4, "y"), "integer only"),
    "float matmul": (lambda net: net.matmul(net.flatten(net.x, "f"), 9, "y"), "integer only"),
    "filters computed at run time": (dynamic_filters, "filters are not constant"),
    "pool beyond the image": (
        unary("nn.avg_pool2d", kernel=(2, 2), dilations=(6, 6), pads=(4, 4, 4, 4)), "exceed the image"
    ),
    "inverse circular functions": (unary("math.atan"), "no instruction for math.atan"),
    "a power of what may be negative": (
        lambda net: net.op("math.pow", net.x, net.module.add_constant("e", np.float32(2.5)), name="y"),
        "may be negative",
    ),
    "an axis of a large prime": (
        lambda net: net.op(
            "reduce.sum", net.op("tensor.tile", net.x, name="t", repeats=(1, 1, 2003, 1)), name="y", axes=(2, 3)
        ),
        "no factor",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REASONS)
def test_what_the_chip_cannot_do_says_why_and_runs_on_the_host(name: str) -> None:
    case, reason = REASONS[name]
    ctx = PassContext(target=load_target("mlu220"), options={"scheme": Scheme()})
    module = run_pipeline(build(case), "convert-layout,partition,legalize", ctx=ctx, crash_directory=None)
    assert any(reason in d.message for d in ctx.diagnostics), [d.message for d in ctx.diagnostics]
    assert host_functions(module)


def test_legalize_without_partition_reports_every_op_it_cannot_do() -> None:
    net = Network(SHAPE)
    y = net.op("math.atan", net.conv(net.x, 6, "c"), name="y")
    module = net.done(y)
    module.main.attributes["target"] = "mlu220"
    subnet = module.main
    module.functions["subnet0"] = module.functions.pop("main")
    subnet.name = "subnet0"
    with pytest.raises(CompilerError) as fault:
        run_pipeline(module, "legalize", target=load_target("mlu220"), verify_each=False, crash_directory=None)
    assert [d.code for d in fault.value.diagnostics] == ["E601", "E601"]
    assert "run partition before legalize" in str(fault.value)


def test_what_runs_on_the_chip_does_not_depend_on_the_number_of_cores() -> None:
    made: list[Any] = [journey(build(INTEGER_CASES["residual"]), cores=cores) for cores in (1, 4)]
    inputs = random_inputs(made[0].prepared, 5)
    assert_same_bytes(assert_one_meaning(made[0], inputs), assert_one_meaning(made[1], inputs), "4 cores")
