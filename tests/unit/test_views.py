"""Reshapes move below ops that work row by row, so that these join the kernel before them; no value changes."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Module
from compiler.ir.parser import parse_module
from compiler.ir.verifier import verify
from targets.mlu220.views import sink_reshapes
from tests.journeys import assert_one_meaning, journey, random_inputs
from tests.networks import Network

HEAD = "const @v : tensor<4xf16> = dense<[1.0, 2.0, 3.0, 4.0]>\n"
SIGNATURE = "func @main(%x: tensor<1x6x4xf16>, %z: tensor<2x3x4xf16>)"


def module(body: str, result: str = "2x3x4xf16") -> Module:
    return parse_module(f"// mluc ir 1\n{HEAD}{SIGNATURE} -> (tensor<{result}>) {{\n{body}\n}}\n")


FIRST = "%a = mlu.relu %x : tensor<1x6x4xf16>\n%r = mlu.reshape %a {shape = [2, 3, 4]} : tensor<2x3x4xf16>\n"


def kinds(found: Module) -> list[str]:
    return [op.op_name for op in found.main.body if op.op_name != "graph.return"]


def sunk(text: str, result: str = "2x3x4xf16") -> Module:
    """The module after sinking, verified and held to what it computed before."""
    before, after = module(text, result), module(text, result)
    sink_reshapes(after.main)
    verify(after)
    random = np.random.default_rng(1)
    inputs = [random.normal(size=a.type.static_shape).astype(np.float16) for a in before.main.arguments]
    for found, wanted in zip(Interpreter(after).run(inputs), Interpreter(before).run(inputs), strict=True):
        assert np.array_equal(found, wanted)
    return after


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("%y = mlu.exp %r : tensor<2x3x4xf16>", "2x3x4xf16"),
        ("%y = mlu.mul %r {constant = 2.0} : tensor<2x3x4xf16>", "2x3x4xf16"),
        ("%y = mlu.add %r, @v : tensor<2x3x4xf16>", "2x3x4xf16"),
        ("%y = mlu.add %r, %z : tensor<2x3x4xf16>", "2x3x4xf16"),
        ("%y = mlu.convert %r {to = f32} : tensor<2x3x4xf32>", "2x3x4xf32"),
        ('%y = mlu.reduce %r {function = "max"} : tensor<2x3x1xf16>', "2x3x1xf16"),
    ],
)
def test_an_op_that_works_row_by_row_is_done_in_front_of_the_reshape(line: str, result: str) -> None:
    after = sunk(f"{FIRST}{line}\nreturn %y", result)
    *_, last = kinds(after)
    assert last == "mlu.reshape"
    (op,) = (op for op in after.main.body if op.op_name == line.split()[2])
    assert op.results[0].type.shape[0] == 1 and op.results[0].name == "y.flat"


def test_a_chain_goes_as_a_whole_and_keeps_the_names_of_its_values() -> None:
    after = sunk(
        FIRST + '%m = mlu.reduce %r {function = "max"} : tensor<2x3x1xf16>\n'
        "%s = mlu.sub %r, %m : tensor<2x3x4xf16>\n%y = mlu.exp %s : tensor<2x3x4xf16>\nreturn %y"
    )
    assert kinds(after) == ["mlu.relu", "mlu.reduce", "mlu.sub", "mlu.exp", "mlu.reshape"]
    assert [op.results[0].name for op in after.main.body if op.results] == ["a", "m", "s", "y.flat", "y"]


def test_reshapes_there_and_back_vanish() -> None:
    back = "%b = mlu.reshape %r {shape = [1, 6, 4]} : tensor<1x6x4xf16>\n"
    text = f"{FIRST}{back}%y = mlu.exp %b : tensor<1x6x4xf16>\nreturn %y"
    assert kinds(sunk(text, "1x6x4xf16")) == ["mlu.relu", "mlu.exp"]


EXP = "%y = mlu.exp %r : tensor<2x3x4xf16>\nreturn %y"
LEFT = {
    "another last axis": (
        "%a = mlu.relu %x : tensor<1x6x4xf16>\n%r = mlu.reshape %a {shape = [3, 8]} : tensor<3x8xf16>\n"
        "%y = mlu.exp %r : tensor<3x8xf16>\nreturn %y", "3x8xf16",
    ),
    "an input of the function": (
        f"%r = mlu.reshape %x {{shape = [2, 3, 4]}} : tensor<2x3x4xf16>\n{EXP}", "2x3x4xf16",
    ),
    "a part of a concatenation": (
        f"{FIRST}%e = mlu.exp %r : tensor<2x3x4xf16>\n"
        "%y = mlu.concat %e, %z {axis = 0} : tensor<4x3x4xf16>\nreturn %y", "4x3x4xf16",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_what_would_gain_nothing_or_cost_a_copy_stays(case: str) -> None:
    text, result = LEFT[case]
    before = kinds(module(text, result))
    assert kinds(sunk(text, result)) == before


def layers(*names: str) -> Module:
    """A product with bias, then these ops over its last axis, then a product."""
    net = Network((2, 5, 16))
    y = net.add(net.matmul(net.x, 32, "m"), net.constant("b", 32), "biased")
    for name in names:
        if name == "nn.softmax":
            y = net.op(name, y, name=name, axis=-1)
        else:
            y = net.op(name, y, net.constant(f"{name}.s", 32), net.constant(f"{name}.b", 32), name=name)
    return net.done(net.matmul(y, 8, "last"))


@pytest.mark.parametrize("name", ["nn.softmax", "nn.layer_norm"])
def test_what_normalises_rows_is_one_kernel(name: str) -> None:
    made = journey(layers(name), fuse="fuse-layers")
    kernels = [op for op in made.placed.ops() if op.op_name == "graph.kernel"]
    assert len(kernels) == 4  # to integers; product and bias; norm and to integers; product
    assert_one_meaning(made, random_inputs(made.prepared, 3))


def test_rows_too_long_for_all_that_they_need_are_split_into_kernels() -> None:
    net = Network((3, 8192))
    y = net.op("nn.softmax", net.x, name="p", axis=-1)
    for index in range(9):
        y = net.add(y, net.constant(f"c{index}", 3, 8192), f"y{index}")
    made = journey(net.done(y))
    assert_one_meaning(made, random_inputs(made.prepared, 3))
