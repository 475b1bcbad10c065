"""The quantize pass: which layers become integer, how, and that hoisting conversions changes no integer."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.errors import CompilerError
from compiler.ir.core import Module
from compiler.ir.types import DType, QuantType, position_and_scale
from compiler.ir.verifier import verify
from compiler.pass_context import PassContext
from passes.quantization.calibrate import calibrate
from passes.quantization.hoist import Conversions, hoist
from passes.quantization.integers import quantize_array
from passes.quantization.layers import module_hash
from passes.quantization.quantize import Quantize
from passes.quantization.scheme import Scheme, TensorScheme
from tests.networks import Network, observed, op_named, run


def scheme_for(net: Network, **fields) -> Scheme:
    found = calibrate(net.module, [net.image() for _ in range(2)], "minmax")
    return Scheme(tensors=found.tensors, **fields)


def quantized(net: Network, scheme: Scheme | None = None, **options) -> tuple[Module, PassContext]:
    """The network after the pass, verified, with the context."""
    module, ctx = net.module.clone(), PassContext()
    ctx.statistics.current = "quantize"
    Quantize(given=scheme or scheme_for(net), **options).run(module, ctx)
    verify(module)
    return module, ctx


def types_of(module: Module, name: str) -> list[str]:
    op = op_named(module, name)
    return [str(v.type.dtype) for v in op.inputs[:2]] + [str(op.results[0].type.dtype)]


def one_conv() -> Network:
    net = Network((1, 3, 8, 8))
    net.done(net.relu(net.conv(net.x, 8, "c", kernel=3), "y"))
    return net


# -- layers ------------------------------------------------------------------------------------------------------------
def test_a_convolution_takes_integers_and_gives_f32():
    module, ctx = quantized(one_conv())
    assert types_of(module, "c") == ["i8", "i8", "f32"]
    assert op_named(module, "c").inputs[2].type.dtype is DType.F32
    assert ctx.statistics.of("quantize")["layers i8"] == 1


def test_the_result_is_close_to_float():
    net = one_conv()
    image = net.image()
    module, _ = quantized(net, Scheme(tensors=calibrate(net.module, [image], "minmax").tensors))
    (wanted,), (found,) = run(net.module, image), run(module, image)
    assert np.abs(wanted - found).max() < 0.05 * np.abs(wanted).max()


def test_a_depthwise_convolution_stays_float():
    net = Network((1, 4, 8, 8))
    net.done(net.conv(net.relu(net.conv(net.x, 4, "dw", kernel=3, groups=4), "r"), 8, "pw"))
    module, ctx = quantized(net)
    assert types_of(module, "dw") == ["f32", "f32", "f32"]
    assert types_of(module, "pw") == ["i8", "i8", "f32"]
    assert ctx.statistics.of("quantize")["layers float: depthwise"] == 1


def test_a_grouped_convolution_with_wider_groups_becomes_integer():
    net = Network((1, 8, 4, 4))
    net.done(net.conv(net.x, 8, "c", groups=2))
    assert types_of(quantized(net)[0], "c") == ["i8", "i8", "f32"]


def test_a_matmul_has_scales_along_its_columns():
    net = Network((2, 16))
    net.done(net.matmul(net.x, 5, "fc"))
    module, _ = quantized(net)
    assert op_named(module, "fc").inputs[1].type.quant.axis == 1
    assert module.constant_named("fc.w.q").shape == (5,)


def test_a_matmul_of_two_activations_quantises_both():
    net = Network((4, 8), (8, 4))
    net.done(net.op("nn.matmul", net.inputs[0], net.inputs[1], name="y"))
    data = [np.ones((4, 8), np.float32), np.ones((8, 4), np.float32)]
    module, _ = quantized(net, calibrate(net.module, [data]))
    assert types_of(module, "y") == ["i8", "i8", "f32"]


def test_a_transposed_convolution_has_scales_along_its_second_axis():
    net = Network((1, 4, 4, 4))
    w = net.constant("w", 4, 6, 2, 2)
    net.done(net.op("nn.conv_transpose2d", net.x, w, name="y", strides=(2, 2)))
    module, _ = quantized(net)
    assert op_named(module, "y").inputs[1].type.quant.axis == 1


def test_consumers_of_one_value_share_a_conversion():
    net = Network((1, 4, 8, 8))
    net.done(net.add(net.conv(net.x, 4, "a"), net.conv(net.x, 4, "b"), "y"))
    module, _ = quantized(net)
    assert [op.op_name for op in module.main.body].count("quant.quantize") == 1


def test_residual_additions_stay_float():
    net = Network((1, 4, 8, 8))
    hidden = net.relu(net.conv(net.x, 4, "a"), "r")
    net.done(net.add(net.conv(hidden, 4, "b"), hidden, "y"))
    module, _ = quantized(net)
    assert [v.name for v in op_named(module, "y").inputs] == ["b", "r"]


def test_residuals_are_stored_as_integers_on_request():
    net = Network((1, 4, 8, 8))
    hidden = net.relu(net.conv(net.x, 4, "a"), "r")
    net.done(net.add(net.conv(hidden, 4, "b"), hidden, "y"))
    images = [net.image()]
    module, ctx = quantized(net, calibrate(net.module, images, "minmax", residuals="i8"))
    assert [v.name for v in op_named(module, "y").inputs] == ["b", "r.real"]
    assert op_named(module, "r.real").inputs[0] is op_named(module, "b").inputs[0]
    assert ctx.statistics.of("quantize")["residuals i8"] == 1


def test_a_shortcut_no_layer_takes_is_calibrated_for_residuals():
    net = Network((1, 4, 8, 8))
    early, late = net.conv(net.x, 4, "early"), net.conv(net.x, 4, "late")
    net.done(net.add(late, early, "y"))
    assert "early" not in calibrate(net.module, [net.image()]).tensors
    scheme = calibrate(net.module, [net.image()], residuals="i8")
    assert [v.name for v in op_named(quantized(net, scheme)[0], "y").inputs] == ["late", "early.real"]


def test_weights_keep_their_name_and_float_ones_go():
    module, _ = quantized(one_conv())
    assert module.constants["c.w"].type.dtype is DType.I8
    assert sorted(module.constants) == ["c.b", "c.w", "c.w.q"]


def test_weights_also_taken_in_float_get_a_second_constant():
    net = Network((1, 4, 4, 4))
    w = net.constant("w", 4, 4, 1, 1)
    net.done(net.op("nn.conv2d", net.x, w, name="c"), net.op("math.abs", w, name="y"))
    module, _ = quantized(net)
    assert module.constants["w"].type.dtype is DType.F32
    assert op_named(module, "c").inputs[1].name == "w.1"


def test_per_tensor_weights_have_one_scale():
    module, _ = quantized(one_conv(), weights="per-tensor")
    assert op_named(module, "c").inputs[1].type.quant.axis is None
    assert "c.w.q" not in module.constants


# -- choices -----------------------------------------------------------------------------------------------------------
def two_layers() -> Network:
    net = Network((1, 3, 8, 8))
    net.done(net.conv(net.relu(net.conv(net.x, 8, "conv1"), "r"), 4, "conv2"))
    return net


def test_keep_float_leaves_a_layer_float_and_tells_the_cost():
    module, ctx = quantized(two_layers(), keep_float=("conv2",))
    assert types_of(module, "conv2") == ["f32", "f32", "f32"]
    (told,) = ctx.diagnostics
    assert told.message == "'conv2' stays float and runs on the host: 2,048 multiply-adds per inference"
    assert told.severity == "warning"


def test_i16_uses_sixteen_bits_on_both_sides():
    assert types_of(quantized(two_layers(), i16=("conv*",))[0], "conv2") == ["i16", "i16", "f32"]


@pytest.mark.parametrize(
    ("kind", "types"),
    [("i16", ["i16", "i16"]), ("i16xi8", ["i16", "i8"]), ("i8", ["i8", "i8"]), ("float", ["f32"] * 2)],
)
def test_the_schemes_layers_override(kind, types):
    net = two_layers()
    module, _ = quantized(net, scheme_for(net, layers={"conv2": kind}))
    assert types_of(module, "conv2")[:2] == types
    assert types_of(module, "conv1")[:2] == ["i8", "i8"]


def test_a_tensor_given_as_float_keeps_its_layer_float():
    net = two_layers()
    scheme = scheme_for(net)
    scheme.tensors["r"] = TensorScheme(type=DType.F16, absmax=1.0)
    module, _ = quantized(net, scheme)
    assert types_of(module, "conv2")[0] == "f32"


def test_float_types_of_the_scheme_are_noted_on_the_op():
    net = two_layers()
    scheme = scheme_for(net)
    scheme.tensors["conv1"] = TensorScheme(type=DType.F32, absmax=1e5)
    assert op_named(quantized(net, scheme)[0], "conv1").attributes["_float"] == "f32"


def test_the_scheme_is_read_from_a_file(tmp_path):
    net = two_layers()
    scheme_for(net).save(tmp_path / "q.toml")
    Quantize(scheme=str(tmp_path / "q.toml")).run(net.module, PassContext())
    assert types_of(net.module, "conv1")[0] == "i8"


def test_the_scheme_is_taken_from_the_compilations_options():
    net = two_layers()
    Quantize().run(net.module, PassContext(options={"scheme": scheme_for(net).to_toml()}))
    assert types_of(net.module, "conv1")[0] == "i8"


# -- errors ------------------------------------------------------------------------------------------------------------
def test_without_a_scheme_the_error_says_what_to_give():
    with pytest.raises(CompilerError, match=r"E520.*\n(.*\n)*.*--calibrate"):
        Quantize().run(two_layers().module, PassContext())


def test_every_name_that_matches_nothing_is_named():
    net = two_layers()
    scheme = scheme_for(net, layers={"conv3": "i16"})
    scheme.tensors["q"] = TensorScheme.clipped(DType.I8, 1.0, 1.0, "given")
    with pytest.raises(CompilerError) as raised:
        quantized(net, scheme, keep_float=("fc*",), i16=("convx",))
    assert [d.message for d in raised.value.diagnostics] == [
        "scheme: no tensor is called 'q'",
        "scheme: 'conv3' names no layer that can be quantised",
        "keep-float: 'fc*' names no layer that can be quantised",
        "i16: 'convx' names no layer that can be quantised",
    ]
    assert "did you mean" in raised.value.diagnostics[1].help


def test_a_tensor_without_a_range_is_named():
    net = two_layers()
    scheme = scheme_for(net)
    del scheme.tensors["r"]
    with pytest.raises(CompilerError, match="no range for 'r', an input of 'conv2'"):
        quantized(net, scheme)


def test_weights_with_nan_are_named():
    net = Network((1, 2, 4, 4))
    w = net.module.add_constant("w", np.full((2, 2, 1, 1), np.nan, np.float32))
    net.done(net.op("nn.conv2d", net.x, w, name="c"))
    with pytest.raises(CompilerError, match="@w hold NaN"):
        quantized(net, Scheme(tensors={"x": TensorScheme.clipped(DType.I8, 1.0, 1.0, "given")}))


def test_a_scheme_for_another_module_is_told():
    net = two_layers()
    _, ctx = quantized(net, scheme_for(net, module="0" * 64))
    assert ctx.diagnostics[0].code == "E529"
    _, ctx = quantized(net, scheme_for(net, module=module_hash(net.module)))
    assert not ctx.diagnostics


def test_the_hash_sees_weights_and_not_locations():
    one, same, other = two_layers(), two_layers(), two_layers()
    other.module.constants["conv1.w"].replace_all_uses_with(other.constant("other", 8, 3, 1, 1))
    assert module_hash(one.module) == module_hash(same.module)
    assert module_hash(one.module) != module_hash(other.module)


# -- integers ----------------------------------------------------------------------------------------------------------
def test_weights_are_symmetric_integers_with_one_position():
    weights = np.random.default_rng(0).normal(size=(6, 20)).astype(np.float32) * (10.0 ** np.arange(-3, 3))[:, None]
    found = quantize_array(weights.astype(np.float32), DType.I8, 0, "nearest")
    assert found.position == position_and_scale(float(np.abs(weights).max()), 8)[0]
    assert (np.abs(found.data).max(axis=1) == 127).all()
    step = 2.0**found.position / found.scales[:, None]
    assert (np.abs(found.data * step - weights) <= 0.5001 * step).all()


def test_a_channel_of_zeros_has_scale_one():
    weights = np.array([[0, 0], [1, -2]], np.float32)
    found = quantize_array(weights, DType.I8, 0, "nearest")
    assert found.scales[0] == 1.0
    assert (found.data[0] == 0).all()


def test_tiny_channels_keep_ordinary_scales():
    weights = np.array([[1e-30], [1.0]], np.float32)
    assert np.isfinite(quantize_array(weights, DType.I16, 0, "nearest").scales).all()


def test_all_zero_weights_are_allowed():
    assert (quantize_array(np.zeros((2, 2), np.float32), DType.I8, 0, "nearest").scales == 1.0).all()


def test_layers_use_the_schemes_rounding():
    net = Network((1, 32, 4, 4))
    net.done(net.conv(net.x, 16, "c", kernel=3))
    found = [
        quantized(net, scheme_for(net, weight_rounding=r))[0].constants["c.w"].data for r in ("balanced", "nearest")
    ]
    assert 0 < np.count_nonzero(found[0] != found[1]) < found[0].size // 4


# -- hoisting ----------------------------------------------------------------------------------------------------------
def order_of(module: Module) -> list[str]:
    return [op.op_name.partition(".")[2] for op in module.main.body]


def hoisted(net: Network, *outputs) -> tuple[Module, Module]:
    """The network with conversions at its ends, and the same with them hoisted."""
    before = net.done(*outputs)
    after = before.clone()
    hoist(after.main.body, Conversions(after.main.body, lambda name: name), PassContext())
    verify(after)
    return before, after


def ending(net: Network, value, quant: QuantType):
    return net.op("quant.quantize", value, name=f"{value.name}.q", types=[value.type.with_quant(quant)])


ACT = QuantType.from_absmax(2.0)
OTHER = QuantType.from_absmax(3.0)

MOVERS = {
    "max_pool2d": {"kernel": (3, 3), "pads": (1, 1, 1, 1), "strides": (2, 2)},
    "global_max_pool": {},
    "depth_to_space": {"block_size": 2},
    "space_to_depth": {"block_size": 2},
    "resize": {"sizes": (1, 4, 12, 12), "mode": "nearest"},
    "slice": {"starts": (0, 1, 0, 0), "sizes": (1, 2, 3, 6), "steps": (1, 1, 2, 1)},
    "reshape": {"shape": (1, 144)},
    "transpose": {"perm": (0, 2, 3, 1)},
    "pad": {"pads": (0, 0, 1, 1, 0, 2, 0, 1)},
    "tile": {"repeats": (1, 2, 1, 1)},
}


@pytest.mark.parametrize("kind", MOVERS)
def test_a_conversion_moves_above_movement_and_every_integer_stays(kind):
    net = Network((1, 4, 6, 6))
    family = (
        "nn" if kind in ("max_pool2d", "global_max_pool", "depth_to_space", "space_to_depth", "resize") else "tensor"
    )
    moved = net.op(f"{family}.{kind}", net.op("math.abs", net.x, name="a"), name="m", **MOVERS[kind])
    before, after = hoisted(net, ending(net, moved, ACT))
    assert order_of(after) == ["abs", "quantize", kind, "return"]
    image = 2 * net.image()
    np.testing.assert_array_equal(run(before, image)[0], run(after, image)[0])


def test_a_padding_that_is_not_zero_holds_the_conversion_back():
    net = Network((1, 4, 6, 6))
    moved = net.op("tensor.pad", net.x, name="m", pads=(0, 0, 1, 1, 0, 0, 1, 1), value=1.0)
    assert order_of(hoisted(net, ending(net, moved, ACT))[1]) == ["pad", "quantize", "return"]


def test_linear_resampling_holds_the_conversion_back():
    net = Network((1, 4, 6, 6))
    moved = net.op("nn.resize", net.x, name="m", sizes=(1, 4, 12, 12), mode="linear")
    assert order_of(hoisted(net, ending(net, moved, ACT))[1]) == ["resize", "quantize", "return"]


def test_a_concatenation_is_stored_as_integers():
    net = Network((1, 4, 6, 6))
    parts = [net.op("math.abs", net.x, name="a"), net.op("math.neg", net.x, name="b")]
    before, after = hoisted(net, ending(net, net.op("tensor.concat", *parts, name="c", axis=1), ACT))
    assert order_of(after) == ["abs", "quantize", "neg", "quantize", "concat", "return"]
    np.testing.assert_array_equal(run(before, image := net.image())[0], run(after, image)[0])


def test_a_concatenation_with_a_constant_stays_float_and_so_does_what_is_moved_into_it():
    net = Network((1, 4, 6, 6))
    padded = net.op("tensor.pad", net.x, name="p", pads=(0, 0, 1, 0, 0, 0, 1, 0))
    both = net.op("tensor.concat", padded, net.constant("k", 1, 2, 8, 6), name="c", axis=1)
    before, after = hoisted(net, ending(net, both, ACT))
    assert order_of(after) == ["pad", "concat", "quantize", "return"]
    np.testing.assert_array_equal(run(before, image := net.image())[0], run(after, image)[0])


def test_consumers_of_different_types_leave_a_concatenation_float():
    net = Network((1, 4, 6, 6))
    parts = [net.op("math.abs", net.x, name="a"), net.op("math.neg", net.x, name="b")]
    both = net.op("tensor.concat", *parts, name="c", axis=1)
    _, after = hoisted(net, ending(net, both, ACT), ending(net, both, OTHER))
    assert order_of(after) == ["abs", "neg", "concat", "quantize", "quantize", "return"]


def test_an_operand_needed_in_float_keeps_its_pooling_float():
    net = Network((1, 4, 6, 6))
    value = net.op("math.abs", net.x, name="a")
    pooled = net.op("nn.max_pool2d", value, name="p", kernel=(2, 2), strides=(2, 2))
    _, after = hoisted(net, ending(net, pooled, ACT), value)
    assert order_of(after) == ["abs", "max_pool2d", "quantize", "return"]


def test_a_relu_after_a_layer_keeps_its_place():
    net = Network((1, 4, 6, 6))
    _, after = hoisted(net, ending(net, net.relu(net.op("math.abs", net.x, name="a"), "r"), ACT))
    assert order_of(after) == ["abs", "relu", "quantize", "return"]


def test_a_relu_after_a_concatenation_becomes_integer_too():
    net = Network((1, 4, 6, 6))
    both = net.op("tensor.concat", net.op("math.neg", net.x, name="n"), net.x, name="c", axis=1)
    before, after = hoisted(net, ending(net, net.relu(both, "r"), ACT))
    assert order_of(after) == ["quantize", "neg", "quantize", "concat", "relu", "return"]
    np.testing.assert_array_equal(run(before, image := net.image())[0], run(after, image)[0])


def test_poolings_of_one_value_and_the_value_itself_meet_in_a_concatenation():
    net = Network((1, 4, 6, 6))
    value = net.op("math.abs", net.x, name="a")
    pools = [net.op("nn.max_pool2d", value, name=f"p{k}", kernel=(k, k), pads=(k // 2,) * 4) for k in (3, 5)]
    joined = net.op("tensor.concat", value, *pools, name="c", axis=1)
    before, after = hoisted(net, ending(net, joined, ACT))
    assert order_of(after) == ["abs", "quantize", "max_pool2d", "max_pool2d", "concat", "return"]
    np.testing.assert_array_equal(run(before, image := net.image())[0], run(after, image)[0])


def test_hoisting_inside_a_network_changes_no_value():
    net = Network((1, 4, 8, 8))
    squeeze = net.relu(net.conv(net.x, 4, "s"), "sr")
    left, right = net.relu(net.conv(squeeze, 8, "e1"), "l"), net.relu(net.conv(squeeze, 8, "e3", kernel=3), "r")
    joined = net.op("tensor.concat", left, right, name="cat", axis=1)
    pooled = net.op("nn.max_pool2d", joined, name="pool", kernel=(2, 2), strides=(2, 2))
    net.done(net.conv(pooled, 4, "y"))
    scheme = scheme_for(net)
    module, _ = quantized(net, scheme)
    assert op_named(module, "cat").results[0].type.dtype is DType.I8
    values = observed(module, net.image())
    quant = scheme.tensors["pool"].quant()
    expected = np.maximum(values["l"], 0)[:, :8] * np.float32(quant.scale) * np.float32(2.0**-quant.position)
    np.testing.assert_array_equal(values["cat"][:, :8], np.clip(np.rint(expected), -128, 127).astype(np.int8))
