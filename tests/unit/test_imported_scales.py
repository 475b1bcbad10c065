"""Models that come quantised keep their own scales: their integers reach the matrix unit, and nothing is calibrated."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.errors import CompilerError
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Module, Value
from compiler.ir.types import DType, QuantType
from compiler.ops.quant import Dequantize, Quantize
from compiler.pass_manager import PassContext, run_pipeline
from passes.quantization.calibrate import calibrate
from passes.quantization.hoist import join_pairs
from passes.quantization.layers import has_own_scheme, imported, integer_layers, without_range
from tests.journeys import assert_one_meaning, journey
from tests.networks import Network, op_named

COARSE, FINE, OUT = (float(np.float32(step)) for step in (0.05, 0.03, 0.1))


def pair(net: Network, x: Value, name: str, step: float = COARSE, storage: DType = DType.I8, zero: int = 0) -> Value:
    """x to integers and back, as another tool wrote it."""
    plain = QuantType.from_absmax(step * 127, storage)
    quant = QuantType(storage, plain.position, plain.scale, zero_point=zero, step=step)
    stored = net.main.body.append(Quantize(x, types=[x.type.with_quant(quant)], names=[f"{name}.q"])).results[0]
    return net.main.body.append(Dequantize(stored, names=[name])).results[0]


def quantized_network(storage: DType = DType.I8) -> Network:
    """Two convolutions with a relu and a max-pool between them, a pair of conversions after each op."""
    net = Network((1, 3, 8, 8))
    x = pair(net, net.x, "x.d", FINE, storage)
    y = pair(net, net.conv(x, 8, "c1", kernel=3), "c1.d", storage=storage)
    y = pair(net, net.relu(y, "r1"), "r1.d", storage=storage)
    y = pair(net, net.op("nn.max_pool2d", y, name="p1", kernel=(2, 2), strides=(2, 2)), "p1.d", storage=storage)
    net.done(pair(net, net.conv(y, 4, "c2"), "y", OUT, storage))
    return net


def quantized(module: Module) -> tuple[Module, PassContext]:
    ctx = PassContext()
    return run_pipeline(module, "quantize", ctx=ctx, crash_directory=None), ctx


@pytest.mark.parametrize("storage", [DType.I8, DType.I16])
def test_a_model_with_its_own_scales_needs_no_scheme(storage: DType) -> None:
    net = quantized_network(storage)
    assert has_own_scheme(net.main)
    made, _ = quantized(net.module)
    for name, step in (("c1", FINE), ("c2", COARSE)):
        taken = op_named(made, name).inputs[0].type
        assert taken.dtype is storage and taken.quant is not None and taken.quant.real_step == step


def test_weights_apart_it_computes_what_it_did() -> None:
    net = quantized_network()
    image = net.image()
    wanted = Interpreter(net.module).run([image])[0]
    found = Interpreter(quantized(net.module)[0]).run([image])[0]
    assert np.abs(found - wanted).max() <= OUT + 1e-6  # one step of the output


def test_pairs_in_front_of_a_pair_of_the_same_type_go_and_no_bit_changes() -> None:
    net = quantized_network()
    image = net.image()
    wanted = Interpreter(net.module).run([image])[0]
    before = sum(op.op_name == "quant.quantize" for op in net.module.ops())
    assert join_pairs(net.main.body, PassContext()) == 2  # those of c1 and r1, for the one after the max-pool
    assert sum(op.op_name == "quant.quantize" for op in net.module.ops()) == before - 2
    assert np.array_equal(Interpreter(net.module).run([image])[0], wanted)


def test_a_pair_that_the_output_takes_stays() -> None:
    net = Network((1, 4))
    net.done(pair(net, net.relu(pair(net, net.x, "a"), "r"), "b"), pair(net, net.x, "c"))
    assert join_pairs(net.main.body, PassContext()) == 1
    assert op_named(net.module, "c").op_name == "quant.dequantize"


def test_a_pair_is_followed_through_any_number_of_ops() -> None:
    net = Network((1, 4))
    x = pair(net, net.x, "a")
    for k in range(1500):
        x = net.relu(x, f"r{k}")
    net.done(pair(net, x, "b"))
    assert join_pairs(net.main.body, PassContext()) == 1


def test_a_pair_of_another_step_stays() -> None:
    net = Network((1, 4))
    net.done(pair(net, net.relu(pair(net, net.x, "a"), "r"), "b", FINE))
    assert join_pairs(net.main.body, PassContext()) == 0


def test_values_with_a_zero_point_are_not_the_chips() -> None:
    net = Network((1, 3, 8, 8))
    net.done(net.conv(pair(net, net.x, "x.d", zero=3), 4, "y"))
    (layer,) = integer_layers(net.main)
    assert imported(layer.inputs[0]) is None and without_range(layer) == [layer.inputs[0]]
    with pytest.raises(CompilerError, match="E520"):
        quantized(net.module)


def test_layers_without_scales_of_their_own_are_calibrated() -> None:
    net = Network((1, 3, 8, 8))
    inner = net.relu(net.conv(pair(net, net.x, "x.d", FINE), 8, "c1", kernel=3), "r1")
    net.done(net.conv(inner, 4, "c2"))
    assert not has_own_scheme(net.main)
    scheme = calibrate(net.module, [net.image()], "minmax")
    assert list(scheme.tensors) == ["r1"]
    made = run_pipeline(net.module, "quantize", options={"scheme": scheme}, crash_directory=None)
    assert op_named(made, "c1").inputs[0].type.quant.real_step == FINE  # type: ignore[union-attr]
    assert op_named(made, "c2").inputs[0].type.dtype is DType.I8


def test_a_layer_asked_for_in_16_bits_takes_the_same_reals() -> None:
    net = quantized_network()
    made = run_pipeline(net.module, "quantize{i16=c2}", crash_directory=None)
    taken = op_named(made, "c2").inputs[0].type
    assert taken.dtype is DType.I16 and taken.quant is not None and taken.quant.real_step == COARSE


def test_it_runs_on_the_chip_with_one_meaning() -> None:
    net = quantized_network()
    image = net.image()
    wanted = Interpreter(net.module).run([image])[0]
    made = journey(net.module, scheme=False, legalize="legalize{float=f32}")
    assert [f.name for f in made.model.functions] == ["subnet0"]
    (found,) = assert_one_meaning(made, [image], threads=(1, 2))
    assert np.abs(found - wanted).max() <= 2 * OUT + 1e-6
