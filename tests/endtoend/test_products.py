"""Products of two activations: the chip brings one operand into the filters' layout while the network runs."""

from __future__ import annotations

import numpy as np
import pytest

from compiler import driver
from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Module, Op, Value
from compiler.pass_manager import run_pipeline
from compiler.target import load_target
from tests.journeys import assert_one_meaning, journey, legalised, random_inputs
from tests.networks import Network

SHAPES = {
    "one matrix": ((5, 9), (9, 7)),
    "heads": ((2, 3, 17, 8), (2, 3, 8, 17)),
    "heads share the second": ((4, 6, 8), (8, 5)),
    "heads share the first": ((1, 6, 8), (3, 8, 5)),
    "axes of one on either side": ((2, 1, 6, 8), (1, 3, 8, 70)),
    "more columns than lanes": ((3, 40, 33), (3, 33, 200)),
    "a vector on the left": ((9,), (9, 7)),
    "a vector on the right": ((4, 5, 9), (9,)),
}


def products(module: Module) -> list[Op]:
    return [op for op in module.ops() if op.op_name == "mlu.matmul"]


def network(a: tuple[int, ...], b: tuple[int, ...]) -> Module:
    net = Network(a, b)
    return net.done(net.op("nn.matmul", *net.inputs, name="y"))


@pytest.mark.parametrize("cores", [1, 4])
@pytest.mark.parametrize("case", SHAPES)
def test_a_product_of_activations_has_one_meaning(case: str, cores: int) -> None:
    module = network(*SHAPES[case])
    inputs = random_inputs(module, 3)
    made = journey(module, [inputs], cores=cores)
    assert len(products(made.legal)) == 1
    (y,) = assert_one_meaning(made, inputs, threads=(1, 2))
    (real,) = Interpreter(made.prepared).run(inputs)
    assert y.shape == real.shape
    assert np.abs(y - real).max() < 0.05 * np.abs(real).max() + 0.05


@pytest.mark.parametrize(("bits", "types"), [(8, ("i8", "i8")), (16, ("i16", "i16"))])
def test_both_operands_are_integers_of_the_layers_width(bits: int, types: tuple[str, str]) -> None:
    module = network((2, 6, 8), (2, 8, 5))
    inputs = random_inputs(module, 3)
    made = journey(module, [inputs], bits=bits)
    (op,) = products(made.legal)
    assert tuple(str(v.type.dtype) for v in op.inputs) == types
    (y,) = assert_one_meaning(made, inputs)
    (real,) = Interpreter(made.prepared).run(inputs)
    assert np.abs(y - real).max() < (0.2 if bits == 8 else 0.01)


TILINGS = ("schedule{max-rows=2,max-channels=64}", "schedule{buffers=1}", "schedule{split=batch}")


@pytest.mark.parametrize("schedule", TILINGS)
def test_no_tiling_changes_a_byte(schedule: str) -> None:
    made = journey(network((2, 3, 21, 40), (2, 3, 40, 130)), schedule=schedule)
    assert_one_meaning(made, random_inputs(made.prepared, 3))


@pytest.mark.parametrize("kind", ["x x'", "x' x"])
def test_a_matrix_times_itself_has_room_for_both_parts_of_it(kind: str) -> None:
    net = Network((1, 72, 8) if kind == "x x'" else (1, 8, 72))
    turned = net.op("tensor.transpose", net.x, name="t", perm=(0, 2, 1))
    y = net.op("nn.matmul", *((net.x, turned) if kind == "x x'" else (turned, net.x)), name="y")
    made = journey(net.done(y), schedule="schedule{max-rows=3,max-channels=64}", bits=16)
    assert_one_meaning(made, random_inputs(made.prepared, 3))


def attention(net: Network, x: Value, heads: int) -> Value:
    """Self-attention as exported: one product for q, k and v, a five-dimensional split, k transposed."""
    batch, length, width = x.type.static_shape
    size = width // heads
    qkv = net.op("tensor.reshape", net.matmul(x, 3 * width, "qkv"), name="split", shape=(batch, length, 3, heads, size))
    turned = net.op("tensor.transpose", qkv, name="turned", perm=(2, 0, 3, 1, 4))
    q, k, v = (_part(net, turned, index) for index in range(3))
    factor = net.module.add_constant("factor", np.float32(size**-0.5))
    scores = net.op("nn.matmul", q, net.op("tensor.transpose", k, name="kt", perm=(0, 1, 3, 2)), name="scores")
    weights = net.op("nn.softmax", net.op("math.mul", scores, factor, name="scaled"), name="p", axis=-1)
    merged = net.op("tensor.transpose", net.op("nn.matmul", weights, v, name="mixed"), name="merged", perm=(0, 2, 1, 3))
    out = net.matmul(net.op("tensor.reshape", merged, name="flat", shape=x.type.static_shape), width, "out")
    return net.add(x, net.add(out, net.constant("out.b", width), "biased"), "sum")


def _part(net: Network, turned: Value, index: int) -> Value:
    sizes = (1, *turned.type.static_shape[1:])
    attributes = {"starts": (index, 0, 0, 0, 0), "sizes": sizes, "steps": (1,) * 5}
    part = net.op("tensor.slice", turned, name=f"part{index}", **attributes)
    return net.op("tensor.reshape", part, name="qkv"[index], shape=sizes[1:])


@pytest.mark.parametrize("batch", [1, 3])
def test_attention_runs_on_the_chip_alone(batch: int) -> None:
    net = Network((batch, 17, 32))
    module = net.done(attention(net, net.x, 4))
    inputs = random_inputs(module, 3)
    made = journey(module, [inputs])
    assert [f.name for f in made.model.functions] == ["subnet0"]
    (y,) = assert_one_meaning(made, inputs, threads=(1, 2))
    (real,) = Interpreter(made.prepared).run(inputs)
    assert np.abs(y - real).max() < 0.05 * np.abs(real).max()


def test_a_transposed_second_operand_is_read_in_place() -> None:
    net = Network((1, 17, 32))
    _, legal = legalised(net.done(attention(net, net.x, 4)))
    scores, mixed = products(legal)
    assert scores.transpose_b and not mixed.transpose_b  # type: ignore[attr-defined]
    turned = [op.perm for op in legal.ops() if op.op_name == "mlu.transpose"]  # type: ignore[attr-defined]
    assert (0, 1, 3, 2) not in turned


def test_a_sum_too_long_for_the_memories_goes_to_the_host_with_the_reason() -> None:
    module = network((2, 20000), (20000, 2))
    scheme = driver.calibrate(module, [random_inputs(module, 7)], "minmax")
    text, options = "quantize,convert-layout,partition{host=false}", {"scheme": scheme}
    with pytest.raises(CompilerError, match="do not fit the on-chip memories"):
        run_pipeline(module, text, target=load_target("mlu220"), options=options, crash_directory=None)
