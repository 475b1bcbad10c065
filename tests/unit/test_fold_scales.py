"""Factors in front of conversions to integers: what takes them in, what forbids it, and that the numbers stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Function, Module
from compiler.ir.types import DType, TensorType
from compiler.ops.graph import Return
from targets.mlu220.fold_scales import fold_scales
from targets.mlu220.op_vector import BINARY_OPS, UNARY_OPS, Convert, DepthwiseConv2d, Pool
from tests.journeys import assert_one_meaning, journey, legalised, random_inputs
from tests.networks import Network


class Chain:
    """A subnet of one input, f16 [1, 4, 4, 8], built op by op."""

    def __init__(self) -> None:
        self.module = Module()
        self.function = self.module.add_function(Function("subnet0"))
        self.x = self.function.add_argument(TensorType((1, 4, 4, 8), DType.F16), "x")

    def constant(self, name: str, data: Any) -> Any:
        return self.module.add_constant(name, np.asarray(data, np.float16))

    def add(self, kind: type, *operands: Any, **attributes: Any) -> Any:
        return self.function.body.append(kind(*operands, names=[attributes.pop("name", "v")], **attributes)).result

    def names(self) -> list[str]:
        return [op.op_name.removeprefix("mlu.") for op in self.function.body]

    def done(self, *values: Any) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
        """What the first result is before and after folding, and what was folded."""
        self.function.body.append(Return(*values))
        x = np.random.default_rng(0).normal(size=(1, 4, 4, 8)).astype(np.float16)
        before = Interpreter(self.module, "subnet0").run([x])[0]
        found = fold_scales(self.module, self.function)
        return before, Interpreter(self.module, "subnet0").run([x])[0], found


def layer(chain: Chain, factor: float = 1.7, scale: float = 0.3) -> tuple[Any, Any]:
    """x * scale + bias, ReLU, limited to 6, * factor, to i8; the value before the factor, and the last."""
    scales = chain.constant("scale", np.linspace(scale, 2 * scale, 8))
    y = chain.add(BINARY_OPS["mul"], chain.x, scales, name="m")
    y = chain.add(BINARY_OPS["add"], y, chain.constant("bias", np.linspace(-1, 1, 8)), name="b")
    y = chain.add(UNARY_OPS["relu"], y, name="r")
    y = chain.add(BINARY_OPS["min"], y, constant=6.0, name="six")
    scaled = chain.add(BINARY_OPS["mul"], y, constant=factor, name="f")
    return y, chain.add(Convert, scaled, to=DType.I8, position=-5, name="i")


def test_a_factor_goes_into_scale_bias_and_limit() -> None:
    chain = Chain()
    before, after, found = chain.done(layer(chain)[1])
    assert found == (1, 0)
    assert chain.names() == ["mul", "add", "relu", "min", "convert", "return"] or "return" in chain.names()[-1]
    assert np.abs(before.astype(int) - after).max() <= 1
    assert (before != after).mean() < 0.1


def test_values_that_are_multiples_of_what_they_are_named_for_say_so() -> None:
    chain = Chain()
    chain.done(layer(chain)[1])
    assert [op.name for op in chain.function.body][:4] == ["m.scaled", "b.scaled", "r.scaled", "six.scaled"]


def test_a_value_that_is_needed_itself_keeps_its_factor_apart() -> None:
    chain = Chain()
    value, last = layer(chain)
    assert chain.done(last, value)[2] == (0, 0)


@pytest.mark.parametrize("factor", [-1.5, float("inf")])
def test_only_positive_finite_factors_are_folded(factor: float) -> None:
    chain = Chain()
    assert chain.done(layer(chain, factor)[1])[2] == (0, 0)


@pytest.mark.parametrize(("factor", "scale"), [(1e-4, 0.3), (1.9, 40000.0)])
def test_constants_that_would_lose_digits_or_overflow_stay(factor: float, scale: float) -> None:
    chain = Chain()
    assert chain.done(layer(chain, factor, scale)[1])[2] == (0, 0)


def test_a_factor_goes_into_the_taps_of_a_depthwise_convolution() -> None:
    chain = Chain()
    taps = chain.constant("taps", np.random.default_rng(1).normal(size=(3, 3, 8)))
    y = chain.add(DepthwiseConv2d, chain.x, taps, pads=(1, 1, 1, 1), name="d")
    y = chain.add(BINARY_OPS["mul"], chain.add(UNARY_OPS["relu"], y, name="r"), constant=1.3, name="f")
    before, after, found = chain.done(chain.add(Convert, y, to=DType.I8, position=-4, name="i"))
    assert found == (1, 0)
    assert np.abs(before.astype(int) - after).max() <= 1


def test_a_maximum_is_taken_before_the_conversion_and_gives_the_same_integers() -> None:
    chain = Chain()
    y = chain.add(Convert, chain.x, to=DType.I8, position=-5, name="i")
    wide = chain.add(Convert, y, to=DType.F16, name="wide")
    pooled = chain.add(Pool, wide, function="max", kernel=(2, 2), strides=(2, 2), name="p")
    before, after, found = chain.done(chain.add(Convert, pooled, to=DType.I8, name="again"))
    assert found == (0, 1)
    assert chain.names()[:2] == ["pool", "convert"] and len(chain.names()) == 3
    assert np.array_equal(before, after)


def test_a_maximum_that_is_needed_as_a_float_gives_the_same_floats() -> None:
    chain = Chain()
    y = chain.add(Convert, chain.x, to=DType.I8, position=-5, name="i")
    wide = chain.add(Convert, y, to=DType.F16, name="wide")
    pooled = chain.add(Pool, wide, function="max", kernel=(3, 3), pads=(1, 1, 1, 1), name="p")
    before, after, found = chain.done(pooled)
    assert found == (0, 1)
    assert np.array_equal(before, after)


def test_means_stay_where_they_are() -> None:
    chain = Chain()
    y = chain.add(Convert, chain.x, to=DType.I8, position=-5, name="i")
    wide = chain.add(Convert, y, to=DType.F16, name="wide")
    assert chain.done(chain.add(Pool, wide, function="mean", kernel=(2, 2), name="p"))[2] == (0, 0)


def test_layers_in_a_row_multiply_once_each() -> None:
    net = Network((1, 8, 8, 8))
    x = net.x
    for k in range(3):
        x = net.relu(net.conv(x, 16, f"c{k}", kernel=3), f"r{k}")
    module = net.done(x)
    _, legal = legalised(module)
    names = [op.op_name for op in legal.functions["subnet0"].body]
    assert names.count("mlu.mul") <= 4  # one per layer, and the input's
    assert_one_meaning(journey(module), random_inputs(module, 3))
