"""Quantised operators compute, from the same integers, the integers torch computes, up to one step of rounding."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the judge of the aten table is torch itself")

from compiler.evaluate.interpreter import Interpreter  # noqa: E402
from compiler.frontend.aten.quantisers import QuantizedTensor  # noqa: E402
from compiler.frontend.aten.quantized import PackedConv, PackedLinear  # noqa: E402
from compiler.frontend.aten.registry import convert  # noqa: E402
from compiler.frontend.builder import Builder  # noqa: E402
from compiler.frontend.load import load  # noqa: E402
from compiler.frontend.records import Unsupported  # noqa: E402
from compiler.ir.core import Function, Module, Value  # noqa: E402
from compiler.ir.types import DType, TensorType  # noqa: E402
from compiler.ir.verifier import verify  # noqa: E402
from compiler.ops.graph import Return  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

Q = torch.ops.quantized
QINT8, QUINT8 = 12, 13
Build = Callable[[Callable[..., Any], Value], Any]


def quantised(x: Any, scale: float = 0.03, zero: int = 120, dtype: Any = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(x, scale, zero, dtype or torch.quint8)


def per_channel(w: Any, axis: int = 0, zeros: Any = None) -> Any:
    count = w.shape[axis]
    scales = torch.linspace(0.01, 0.03, count)
    zeros = torch.zeros(count, dtype=torch.int64) if zeros is None else zeros
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_channel(w, scales, zeros, axis, torch.qint8)


def stored(q: Any) -> QuantizedTensor:
    """A quantised tensor of torch as an archive has it."""
    if q.qscheme() is torch.per_tensor_affine:
        return QuantizedTensor(q.int_repr().numpy(), q.q_scale(), q.q_zero_point())
    scales, zeros = q.q_per_channel_scales().numpy(), q.q_per_channel_zero_points().numpy()
    return QuantizedTensor(q.int_repr().numpy(), scales, zeros, q.q_per_channel_axis())


def module_of(x: Any, build: Build, scale: float = 0.03, zero: int = 120, dtype: int = QUINT8) -> Module:
    """Quantise an input, compute, and give the reals of the result."""
    module = Module({"source": "quantised"})
    function = module.add_function(Function("main"))
    builder = Builder(module, function)

    def call(name: str, *args: Any) -> Any:
        return convert(name, "", builder, args)

    argument = function.add_argument(TensorType(tuple(x.shape), DType.F32), "x")
    result = build(call, call("aten::quantize_per_tensor", argument, scale, zero, dtype))
    results = result if isinstance(result, list | tuple) else [result]
    function.body.append(Return(*(call("aten::dequantize", r) for r in results)))
    builder.name_results(function.body.first)
    verify(module)
    return module


def check(x: Any, build: Build, expected: Any, steps: float = 1.0, **quantiser: Any) -> Module:
    """The module's result against torch's quantised `expected`: at most `steps` steps apart, and mostly none."""
    module = module_of(x, build, **quantiser)
    found = Interpreter(module).run([x.numpy()])[0]
    reals = expected.dequantize().numpy() if expected.is_quantized else expected.numpy()
    step = expected.q_scale() if expected.is_quantized else 1e-5
    assert found.shape == reals.shape
    apart = np.abs(found - reals) / step
    assert apart.max() <= steps + 1e-3
    assert (apart > 0.5).mean() <= 0.15, "only ties may round the other way"
    return module


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


X = torch.randn(2, 3, 8, 8)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("channels", [False, True])
def test_a_convolution_of_packed_parameters(relu: bool, channels: bool) -> None:
    w, b = torch.randn(4, 3, 3, 3) * 0.5, torch.randn(4)
    qw = per_channel(w) if channels else quantised(w, 0.02, 0, torch.qint8)
    packed = Q.conv2d_prepack(qw, b, [2, 1], [1, 0], [1, 1], 1)
    name = "conv2d_relu" if relu else "conv2d"
    expected = getattr(Q, name)(quantised(X), packed, 0.1, 60)
    mine = PackedConv(stored(qw), b.numpy(), (2, 1), (1, 0), (1, 1), 1)
    module = check(X, lambda call, q: call(f"quantized::{name}", q, mine, 0.1, 60), expected)
    assert any(c.type.quant is not None for c in module.constants.values()), "weights stay integers"


def test_a_depthwise_convolution() -> None:
    qw = per_channel(torch.randn(3, 1, 3, 3) * 0.5)
    packed = Q.conv2d_prepack(qw, None, [1, 1], [1, 1], [1, 1], 3)
    mine = PackedConv(stored(qw), None, (1, 1), (1, 1), (1, 1), 3)
    check(X, lambda call, q: call("quantized::conv2d", q, mine, 0.05, 128), Q.conv2d(quantised(X), packed, 0.05, 128))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("channels", [False, True])
def test_a_linear_layer_of_packed_parameters(relu: bool, channels: bool) -> None:
    x, w, b = torch.randn(5, 8), torch.randn(6, 8) * 0.5, torch.randn(6)
    qw = per_channel(w) if channels else quantised(w, 0.02, 0, torch.qint8)
    packed = Q.linear_prepack(qw, b)
    name = "linear_relu" if relu else "linear"
    mine = PackedLinear(stored(qw), b.numpy())
    expected = getattr(Q, name)(quantised(x), packed, 0.06, 100)
    check(x, lambda call, q: call(f"quantized::{name}", q, mine, 0.06, 100), expected)


def test_a_dynamic_linear_layer_keeps_integer_weights_and_leaves_the_input_to_calibration() -> None:
    x, w, b = torch.randn(5, 8), torch.randn(6, 8) * 0.5, torch.randn(6)
    qw = quantised(w, 0.02, 0, torch.qint8)
    mine = PackedLinear(stored(qw), b.numpy())
    module = module_of(x, lambda call, q: call("quantized::linear_dynamic", call("aten::dequantize", q), mine, False))
    found = Interpreter(module).run([x.numpy()])[0]
    expected = Q.linear_dynamic(quantised(x).dequantize(), Q.linear_prepack(qw, b), False).numpy()
    np.testing.assert_allclose(found, expected, atol=0.1)


ON_ONE = {
    "relu": lambda q: torch.relu(q), "max_pool2d": lambda q: torch.max_pool2d(q, 2),
    "adaptive_avg_pool2d": lambda q: torch.nn.functional.adaptive_avg_pool2d(q, 1),
    "avg_pool2d": lambda q: torch.nn.functional.avg_pool2d(q, 2), "mean": lambda q: q.mean((2, 3)),
    "reshape": lambda q: q.reshape(2, -1), "hardtanh": lambda q: torch.nn.functional.hardtanh(q, -0.5, 1.0),
    "clamp": lambda q: q.clamp(-0.5, 1.0), "flatten": lambda q: q.flatten(1),
    "permute": lambda q: q.permute(0, 2, 3, 1),
    "upsample": lambda q: torch.nn.functional.interpolate(q, scale_factor=2.0),
    "cat": lambda q: torch.cat([q, q], 1),
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "hardsigmoid": torch.nn.functional.hardsigmoid,
}  # fmt: skip
CALLS = {
    "relu": lambda call, q: call("aten::relu", q), "max_pool2d": lambda call, q: call("aten::max_pool2d", q, [2, 2]),
    "adaptive_avg_pool2d": lambda call, q: call("aten::adaptive_avg_pool2d", q, [1, 1]),
    "avg_pool2d": lambda call, q: call("aten::avg_pool2d", q, [2, 2]),
    "mean": lambda call, q: call("aten::mean", q, [2, 3]), "reshape": lambda call, q: call("aten::reshape", q, [2, -1]),
    "hardtanh": lambda call, q: call("aten::hardtanh", q, -0.5, 1.0),
    "clamp": lambda call, q: call("aten::clamp", q, -0.5, 1.0), "flatten": lambda call, q: call("aten::flatten", q, 1),
    "permute": lambda call, q: call("aten::permute", q, [0, 2, 3, 1]),
    "upsample": lambda call, q: call("aten::upsample_nearest2d", q, None, [2.0, 2.0]),
    "cat": lambda call, q: call("aten::cat", [q, q], 1), "sigmoid": lambda call, q: call("aten::sigmoid", q),
    "tanh": lambda call, q: call("aten::tanh", q), "hardsigmoid": lambda call, q: call("aten::hardsigmoid", q),
}  # fmt: skip


@pytest.mark.parametrize("name", ON_ONE)
def test_a_quantised_tensor_flows_through(name: str) -> None:
    module = check(X, CALLS[name], ON_ONE[name](quantised(X)))
    assert not any(op.op_name.startswith("math.mod") for op in module.ops())


@pytest.mark.parametrize("name", ["relu", "reshape", "permute", "max_pool2d", "cat"])
def test_what_only_moves_or_compares_integers_keeps_them(name: str) -> None:
    module = module_of(X, CALLS[name])
    assert [op.op_name for op in module.ops()].count("quant.quantize") == 1


@pytest.mark.parametrize("name", ["add", "add_relu", "mul", "mul_relu"])
def test_two_quantised_tensors(name: str) -> None:
    q = quantised(X)
    check(X, lambda call, x: call(f"quantized::{name}", x, x, 0.05, 100), getattr(Q, name)(q, q, 0.05, 100))


@pytest.mark.parametrize(
    ("name", "args"), [("hardswish", ()), ("leaky_relu", (0.2, False)), ("elu", ()), ("celu", ())]
)
def test_activations_with_scales_of_their_own(name: str, args: tuple) -> None:
    expected = getattr(Q, name)(quantised(X), *args, 0.04, 90)
    check(X, lambda call, q: call(f"quantized::{name}", q, *args, 0.04, 90), expected)


def test_a_batch_norm() -> None:
    w, b, m, v = torch.rand(3) + 0.5, torch.randn(3), torch.randn(3), torch.rand(3) + 0.5
    expected = Q.batch_norm2d(quantised(X), w, b, m, v, 1e-5, 0.05, 100)

    def build(call: Any, q: Any) -> Any:
        vectors = [call("aten::tensor", t.tolist()) for t in (w, b, m, v)]
        return call("quantized::batch_norm2d", q, *vectors, 1e-5, 0.05, 100)

    check(X, build, expected)


def test_joining_with_a_new_scale() -> None:
    q = quantised(X)
    check(X, lambda call, x: call("quantized::cat", [x, x], 1, 0.05, 90), Q.cat([q, q], 1, 0.05, 90))


@pytest.mark.parametrize(("name", "number"), [("add_scalar", 0.7), ("mul_scalar", 1.5)])
def test_a_number_moves_or_scales_the_steps(name: str, number: float) -> None:
    module = module_of(X, lambda call, q: call(f"quantized::{name}", q, number))
    found = Interpreter(module).run([X.numpy()])[0]
    np.testing.assert_allclose(found, getattr(Q, name)(quantised(X), number).dequantize().numpy(), atol=0.02)


def test_weights_whose_channels_differ_in_zero_point_are_reals_in_the_module() -> None:
    qw = per_channel(torch.randn(4, 3, 3, 3) * 0.3, zeros=torch.tensor([0, 1, 2, 3]))
    mine = PackedConv(stored(qw), None, (1, 1), (0, 0), (1, 1), 1)
    module = module_of(X, lambda call, q: call("quantized::conv2d", q, mine, 0.1, 60))
    found = Interpreter(module).run([X.numpy()])[0]
    reals = torch.nn.functional.conv2d(quantised(X).dequantize(), qw.dequantize())
    np.testing.assert_allclose(found, quantised(reals, 0.1, 60).dequantize().numpy(), atol=0.11)
    assert not any(c.type.quant is not None for c in module.constants.values())


def test_types_torch_quantises_to_in_four_bits_are_refused() -> None:
    with pytest.raises(Unsupported, match="quint4x2"):
        module_of(X, lambda call, q: call("aten::quantize_per_tensor", call("aten::dequantize", q), 0.1, 0, 16))


# -- the rest of the table ---------------------------------------------------------------------------------------------
def test_one_dimensional_and_transposed_convolutions() -> None:
    x, w = torch.randn(2, 3, 9), torch.randn(4, 3, 3) * 0.4
    qw = quantised(w, 0.02, 0, torch.qint8)
    mine = PackedConv(stored(qw), None, (2,), (1,), (1,), 1)
    packed = Q.conv1d_prepack(qw, None, [2], [1], [1], 1)
    check(x, lambda call, q: call("quantized::conv1d", q, mine, 0.06, 100), Q.conv1d(quantised(x), packed, 0.06, 100))
    qt = quantised(torch.randn(3, 4, 3, 3) * 0.4, 0.02, 0, torch.qint8)
    mine = PackedConv(stored(qt), None, (2, 2), (1, 1), (1, 1), 1, True, (1, 1))
    reals = torch.nn.functional.conv_transpose2d(quantised(X).dequantize(), qt.dequantize(), None, 2, 1, 1)
    check(X, lambda call, q: call("quantized::conv_transpose2d", q, mine, 0.1, 100), quantised(reals, 0.1, 100))


def test_a_dynamic_convolution_takes_reals() -> None:
    qw = quantised(torch.randn(4, 3, 3, 3) * 0.4, 0.02, 0, torch.qint8)
    mine = PackedConv(stored(qw), None, (1, 1), (1, 1), (1, 1), 1)
    module = module_of(X, lambda call, q: call("quantized::conv2d_dynamic", call("aten::dequantize", q), mine))
    reals = torch.nn.functional.conv2d(quantised(X).dequantize(), qw.dequantize(), padding=1)
    np.testing.assert_allclose(Interpreter(module).run([X.numpy()])[0], reals.numpy(), atol=1e-4)


NORMS = {
    "layer_norm": ([[8, 8]], lambda r: torch.nn.functional.layer_norm(r, (8, 8))),
    "group_norm": ([3], lambda r: torch.nn.functional.group_norm(r, 3)),
    "instance_norm": ([], lambda r: torch.nn.functional.instance_norm(r)),
}  # fmt: skip


@pytest.mark.parametrize("name", NORMS)
def test_normalisations_with_scales_of_their_own(name: str) -> None:
    head, reference = NORMS[name]
    expected = quantised(reference(quantised(X).dequantize()), 0.03, 128)
    check(X, lambda call, q: call(f"quantized::{name}", q, *head, None, None, 1e-5, 0.03, 128), expected)


def test_softmax_sigmoid_prelu_and_products_with_scales_of_their_own() -> None:
    q = quantised(X)
    real = q.dequantize()
    check(X, lambda call, x: call("quantized::softmax", x, 1, 1 / 256, 0), quantised(real.softmax(1), 1 / 256, 0))
    check(X, lambda call, x: call("quantized::sigmoid", x, 1 / 256, 0), quantised(real.sigmoid(), 1 / 256, 0))
    check(X, lambda call, x: call("quantized::matmul", x, x, 0.3, 128), quantised(real @ real, 0.3, 128))
    check(X, lambda call, x: call("quantized::relu6", x), quantised(real.clamp(0, 6)))


def test_fake_quantisation_is_quantise_and_dequantise() -> None:
    args = (0.05, 10, 0, 255)
    expected = torch.fake_quantize_per_tensor_affine(quantised(X).dequantize(), *args)
    module = module_of(
        X, lambda call, q: call("aten::fake_quantize_per_tensor_affine", call("aten::dequantize", q), *args)
    )
    np.testing.assert_allclose(Interpreter(module).run([X.numpy()])[0], expected.numpy(), atol=1e-6)


class Recurrent(torch.nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.layers, self.head = kind(6, 8, 2, bidirectional=True), torch.nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.layers(x)[0])


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_layers_quantised_while_they_run(kind: str, tmp_path: Path) -> None:
    layer, x = getattr(torch.nn, kind), torch.randn(5, 1, 6)
    network = torch.ao.quantization.quantize_dynamic(Recurrent(layer).eval(), {layer, torch.nn.Linear})
    torch.jit.save(torch.jit.trace(network, (x,)), tmp_path / "m.pt")
    module = load(tmp_path / "m.pt")
    assert f"nn.{kind.lower()}" in {op.op_name for op in module.ops()}
    found, expected = Interpreter(module).run([x.numpy()])[0], network(x).detach().numpy()
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
