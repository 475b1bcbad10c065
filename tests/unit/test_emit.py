"""From placed kernels to files: records, steps, constants, debug table, host functions; and programs that are safe."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Module, Value
from passes.quantization.scheme import Scheme
from runtime.session import Session
from targets.mlu220 import isa
from targets.mlu220.check import check_function
from targets.mlu220.container import OfflineModel
from targets.mlu220.emit import ConstantPool
from tests.journeys import assert_one_meaning, emitted, journey, random_inputs, run_simulator
from tests.networks import Network


def classifier(batch: int = 1) -> Module:
    net = Network((batch, 3, 12, 10))
    y = net.relu(net.conv(net.x, 16, "a", kernel=3, strides=(2, 2)), "r")
    pooled = net.op("nn.global_avg_pool", net.conv(y, 70, "b"), name="g")
    return net.done(net.matmul(net.op("tensor.reshape", pooled, name="f", shape=(batch, 70)), 10, "scores"))


def test_records_state_the_models_shape_and_the_devices_order_of_axes() -> None:
    model = journey(classifier()).model
    (given,), (made,) = model.inputs, model.outputs
    assert (given.name, given.shape, given.dtype) == ("x", (1, 3, 12, 10), "f32")
    assert (made.name, made.shape) == ("scores", (1, 10))
    (function,) = model.device_functions
    (record,) = function.inputs
    assert record.device_shape == (1, 12, 10, 3) and record.permutation == (0, 2, 3, 1)


def test_the_file_states_board_cores_rounding_and_where_it_came_from() -> None:
    made = journey(classifier(), cores=2, legalize="legalize{rounding=half-away}")
    model = made.model
    assert (model.board, model.cores, model.rounding) == ("m2", 2, "half-away")
    assert len(made.device.programs) == 3


def test_emission_is_a_function_of_the_module() -> None:
    made = journey(classifier())
    assert emitted(made.placed).to_bytes() == emitted(made.placed).to_bytes() == made.model.to_bytes()


@pytest.mark.parametrize("cores", [1, 2, 3, 4])
def test_every_program_is_proven_safe(cores: int) -> None:
    made = journey(classifier(batch=2), cores=cores)
    check_function(made.device, int(made.model.constants.size))


def test_a_saved_file_computes_the_same(tmp_path: object) -> None:
    made = journey(classifier())
    inputs = random_inputs(made.prepared)
    path = tmp_path / "m.cambricon"  # type: ignore[operator]
    made.model.save(path)
    np.testing.assert_array_equal(Session(OfflineModel.load(path)).run(*inputs), assert_one_meaning(made, inputs)[0])


# -- the debug table -------------------------------------------------------------------------------------------------
def test_every_instruction_that_computes_names_its_op_and_source() -> None:
    made = journey(classifier())
    covered = {(entry.core, row) for entry in made.device.debug for row in range(entry.first, entry.last + 1)}
    for core, program in enumerate(made.device.programs[:-1]):
        for index, row in enumerate(program):
            if isa.decode(row).unit is not isa.Unit.CONTROL:
                assert (core, index) in covered, f"core {core}, row {index}: {isa.decode(row).name}"
    names = {entry.op_name.split()[0] for entry in made.device.debug}
    assert {"mlu.conv2d", "mlu.relu", "mlu.pool"} <= names


# -- constants -------------------------------------------------------------------------------------------------------
def test_equal_constants_are_stored_once_and_aligned() -> None:
    pool = ConstantPool()
    places = [pool.place(key, lambda: np.full(10, 3, np.uint8)) for key in ("a", "b", "a")]
    assert places[0] == places[2] != places[1] and all(place % 64 == 0 for place in places)
    assert pool.segment().size == 128


def test_layers_that_share_weights_share_their_bytes() -> None:
    def size(shared: bool) -> int:
        net = Network((1, 64, 4, 4))
        w = net.constant("w", 64, 64, 3, 3, scale=0.05)
        other = w if shared else net.constant("v", 64, 64, 3, 3, scale=0.05)
        x: Value = net.x
        for name, filters in (("a", w), ("b", other)):
            x = net.op("nn.conv2d", x, filters, name=name, pads=(1, 1, 1, 1))
        return int(journey(net.done(x)).model.constants.size)

    assert size(shared=True) < 0.6 * size(shared=False)


# -- wiring ----------------------------------------------------------------------------------------------------------
def with_host(net: Network, x: Value, name: str) -> Value:
    """An op the chip has no instruction for."""
    return net.op("math.atan", x, name=name)


def test_steps_name_functions_and_values_in_order() -> None:
    net = Network((1, 4, 6, 6))
    middle = with_host(net, net.conv(net.x, 8, "a"), "h")
    model = journey(net.done(net.conv(middle, 4, "y"))).model
    assert [step.function for step in model.steps] == ["subnet0", "host0", "subnet1"]
    known = {record.name for record in model.inputs}
    for step in model.steps:
        assert set(step.inputs) <= known
        known |= set(step.outputs)
    assert {record.name for record in model.outputs} <= known


def test_a_host_function_is_a_module_of_its_own_with_its_constants() -> None:
    net = Network((1, 4, 6, 6))
    module = net.done(net.conv(with_host(net, net.conv(net.x, 8, "a"), "h"), 4, "y"))
    (host,) = journey(module).model.host_functions
    assert "math.atan" in host.text and "conv2d" not in host.text and "a.w" not in host.text


def test_a_chip_result_that_is_used_and_returned_in_two_layouts() -> None:
    net = Network((1, 4, 6, 5))
    a = net.conv(net.x, 8, "a")
    made = journey(net.done(a, net.op("tensor.transpose", a, name="t", perm=(0, 2, 3, 1)), with_host(net, a, "h")))
    inputs = random_inputs(made.prepared)
    first, turned, _ = assert_one_meaning(made, inputs)
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), turned)


def test_two_inputs_of_one_name_or_none_get_names_of_their_own() -> None:
    net = Network((1, 2, 3, 3), (1, 2, 3, 3))
    net.inputs[1].name = "x"
    made = journey(net.done(net.add(*net.inputs, "x")), scheme=Scheme())
    names = [r.name for r in (*made.model.inputs, *made.model.outputs)]
    assert len(set(names)) == 3
    inputs = random_inputs(made.prepared)
    (found,) = run_simulator(made.model, inputs)
    np.testing.assert_allclose(found, Interpreter(made.prepared).run(inputs)[0], atol=5e-3)


def test_quantised_records_of_values_that_cross_carry_position_and_scale() -> None:
    """The host takes what the chip gives as integers."""
    net = Network((1, 6, 5, 5))
    left = net.relu(net.conv(net.x, 6, "l"), "lr")
    module = net.done(net.op("nn.conv_transpose2d", left, net.constant("w", 6, 3, 2, 2), name="y", strides=(2, 2)))
    made = journey(module)
    crossing = [r for f in made.model.device_functions for r in f.outputs if r.dtype in ("i8", "i16")]
    assert all(r.position is not None and r.scale is not None for r in crossing)
    assert_one_meaning(made, random_inputs(made.prepared))
