"""Rounding, circular functions, products, running sums and long rows on the chip, against their float meaning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler.evaluate.interpreter import Interpreter
from passes.quantization.scheme import Scheme
from tests.journeys import assert_one_meaning, journey, legalised
from tests.networks import Network


def single(shape: tuple[int, ...], op: str, **attributes: Any) -> Network:
    net = Network(shape)
    net.done(net.op(op, net.x, name="y", **attributes))
    return net


def on_chip(net: Network, x: np.ndarray, float_type: str = "f32") -> np.ndarray:
    """The result of the legalised module, wholly on the chip."""
    _, legal = legalised(net.module, scheme=Scheme(), legalize=f"legalize{{float={float_type}}}")
    assert [name for name in legal.functions if name != "main"] == ["subnet0"]
    return Interpreter(legal).run([x])[0]


EDGES = [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, -0.49999997, 1e-30, -1e-30, 3.999, -3.999, 8388607.5,
         8388608.0, 16777215.0, -8388607.5, 123456792.0, 3e38, np.inf, -np.inf]  # fmt: skip


@pytest.mark.parametrize("name", ["round", "floor", "ceil"])
def test_rounding_is_exact_for_every_finite_number(name: str) -> None:
    random = np.random.default_rng(0)
    x = np.concatenate([np.array(EDGES, np.float32), (random.normal(size=490) * 10.0 ** random.integers(-3, 9, 490))])
    x = x.astype(np.float32)[None]
    wanted = {"round": np.rint, "floor": np.floor, "ceil": np.ceil}[name](x)
    found = on_chip(single(x.shape, f"math.{name}"), x)
    finite = np.isfinite(x)
    assert np.array_equal(found[finite], wanted[finite])


@pytest.mark.parametrize("name", ["round", "floor", "ceil"])
def test_rounding_of_half_floats_gives_their_whole_numbers(name: str) -> None:
    x = (np.random.default_rng(1).normal(size=(1, 512)) * 300).astype(np.float16).astype(np.float32)
    wanted = {"round": np.rint, "floor": np.floor, "ceil": np.ceil}[name](x)
    assert np.array_equal(on_chip(single(x.shape, f"math.{name}"), x, "f16"), wanted)


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_circular_functions_are_good_to_a_millionth(name: str) -> None:
    x = np.concatenate([np.linspace(-20, 20, 2000), np.linspace(-3000, 3000, 2000)]).astype(np.float32)[None]
    found = on_chip(single(x.shape, f"math.{name}"), x)
    assert np.abs(found - getattr(np, name)(x.astype(np.float64))).max() < 2e-6


@pytest.mark.parametrize(
    ("shape", "axes"), [((2, 7), (1,)), ((3, 4, 5), (0, 2)), ((2, 3, 4, 4), (2, 3)), ((4, 1, 3), (1, 2))]
)
@pytest.mark.parametrize("keepdims", [True, False])
def test_products_over_any_axes(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> None:
    x = np.random.default_rng(2).uniform(0.5, 1.5, shape).astype(np.float32)
    found = on_chip(single(shape, "reduce.prod", axes=axes, keepdims=keepdims), x)
    np.testing.assert_allclose(found, np.prod(x, axis=axes, keepdims=keepdims), rtol=1e-6)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((2, 13), 1), ((3, 8, 5), 1), ((1, 1), 1)])
def test_running_sums_both_ways(shape: tuple[int, ...], axis: int, reverse: bool, exclusive: bool) -> None:
    net = single(shape, "tensor.cumsum", axis=axis, reverse=reverse, exclusive=exclusive)
    x = net.image()
    np.testing.assert_allclose(on_chip(net, x), Interpreter(net.module).run([x])[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("op", "axis"), [("nn.softmax", 1), ("nn.log_softmax", 1), ("nn.softmax", 0)])
def test_rows_that_do_not_fit_are_reduced_in_steps(op: str, axis: int) -> None:
    net = single((2, 12000) if axis else (12000, 2), op, axis=axis)
    x = net.image()
    np.testing.assert_allclose(on_chip(net, x), Interpreter(net.module).run([x])[0], rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("last", [False, True])
def test_the_place_of_the_largest_in_a_long_row(last: bool) -> None:
    net = single((2, 20000), "reduce.argmax", axis=1, keepdims=False, select_last=last)
    x = net.image()
    x[0, [15, 17000]] = 9.0
    assert np.array_equal(on_chip(net, x), Interpreter(net.module).run([x])[0])


@pytest.mark.parametrize(
    ("op", "attributes"),
    [("math.floor", {}), ("math.cos", {}), ("reduce.prod", {"axes": (1,)}), ("tensor.cumsum", {"axis": 1}),
     ("nn.softmax", {"axis": 1})],
)  # fmt: skip
@pytest.mark.parametrize("cores", [1, 4])
def test_they_have_one_meaning(op: str, attributes: dict[str, Any], cores: int) -> None:
    net = single((3, 10000), op, **attributes)
    assert_one_meaning(journey(net.module, scheme=Scheme(), cores=cores), [net.image()], threads=(1, 2))
