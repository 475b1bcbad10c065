"""Convolution, transposed convolution and matmul against onnxruntime, a direct sum and exact integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.evaluate import convolution
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Function, Module
from compiler.ir.types import DType, QuantType, TensorType
from compiler.ops.graph import Return
from compiler.ops.nn import Conv2d, ConvTranspose2d, MatMul
from tests.one_op import assert_close, normal, run, run_onnxruntime

few = settings(max_examples=40, deadline=None)


@dataclass(frozen=True)
class Case:
    """A convolution that exists: kernel no larger than the padded image."""

    n: int
    groups: int
    ci: int
    co: int
    h: int
    w: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]

    @property
    def attributes(self) -> dict[str, object]:
        return {"strides": self.strides, "pads": self.pads, "dilations": self.dilations, "groups": self.groups}

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.groups * self.co, self.ci, *self.kernel)

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (self.n, self.groups * self.ci, self.h, self.w)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    dilations = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    pads = tuple(draw(st.integers(0, 3)) for _ in range(4))
    smallest = [
        max(1, (k - 1) * d + 1 - pads[i] - pads[i + 2]) for i, (k, d) in enumerate(zip(kernel, dilations, strict=True))
    ]
    return Case(
        n=draw(st.integers(1, 2)), groups=draw(st.integers(1, 3)),
        ci=draw(st.integers(1, 3)), co=draw(st.integers(1, 3)),
        h=smallest[0] + draw(st.integers(0, 9)), w=smallest[1] + draw(st.integers(0, 9)), kernel=kernel,
        strides=(draw(st.integers(1, 3)), draw(st.integers(1, 3))), pads=pads, dilations=dilations,
    )  # fmt: skip


def direct(case: Case, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The definition: one product per tap, summed in the arrays' own type."""
    top, left, bottom, right = case.pads
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    (kh, kw), (sy, sx), (dy, dx) = case.kernel, case.strides, case.dilations
    oh, ow = (x.shape[2] - (kh - 1) * dy - 1) // sy + 1, (x.shape[3] - (kw - 1) * dx - 1) // sx + 1
    y = np.zeros((case.n, w.shape[0], oh, ow), x.dtype)
    for o in range(w.shape[0]):
        group = o // case.co
        for c in range(case.ci):
            plane = x[:, group * case.ci + c]
            for ky in range(kh):
                for kx in range(kw):
                    rows, columns = (
                        slice(ky * dy, ky * dy + (oh - 1) * sy + 1, sy),
                        slice(kx * dx, kx * dx + (ow - 1) * sx + 1, sx),
                    )
                    y[:, o] += plane[:, rows, columns] * w[o, c, ky, kx]
    return y


def to_nhwc(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def to_nchw(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 3, 1, 2)


@few
@given(cases())
def test_convolution_is_the_sum_over_taps_in_both_layouts(case: Case) -> None:
    x, w, bias = normal(*case.image_shape), normal(*case.weight_shape, seed=1), normal(case.groups * case.co, seed=2)
    expected = direct(case, x, w) + bias.reshape(1, -1, 1, 1)
    assert_close(run("nn.conv2d", x, w, bias, **case.attributes), expected)
    nhwc = run("nn.conv2d", to_nhwc(x), to_nhwc(w), bias, layout="NHWC", **case.attributes)
    assert_close(to_nchw(nhwc), expected)


@few
@given(cases())
def test_depthwise_convolution_equals_onnxruntime(case: Case) -> None:
    channels, multiplier = case.groups * case.ci + 1, case.co
    x, w = normal(case.n, channels, case.h, case.w), normal(channels * multiplier, 1, *case.kernel, seed=1)
    attributes = {**case.attributes, "groups": channels}
    (expected,) = run_onnxruntime(
        "Conv", x, w, strides=case.strides, pads=case.pads, dilations=case.dilations, group=channels
    )
    assert_close(run("nn.conv2d", x, w, **attributes), expected)
    assert_close(to_nchw(run("nn.conv2d", to_nhwc(x), to_nhwc(w), layout="NHWC", **attributes)), expected)


@few
@given(cases(), st.tuples(st.integers(0, 1), st.integers(0, 1)))
def test_transposed_convolution_equals_onnxruntime(case: Case, output_pads: tuple[int, int]) -> None:
    x = normal(*case.image_shape)
    w, bias = normal(case.groups * case.ci, case.co, *case.kernel, seed=1), normal(case.groups * case.co, seed=2)
    output_pads = tuple(min(p, s - 1) for p, s in zip(output_pads, case.strides, strict=True))  # type: ignore[assignment]
    pads = tuple(min(p, (case.kernel[i % 2] - 1) // 2) for i, p in enumerate(case.pads))
    attributes = {**case.attributes, "pads": pads}
    (expected,) = run_onnxruntime(
        "ConvTranspose", x, w, bias, strides=case.strides, pads=pads, dilations=case.dilations, group=case.groups,
        output_padding=output_pads,
    )  # fmt: skip
    assert_close(run("nn.conv_transpose2d", x, w, bias, output_pads=output_pads, **attributes), expected)
    nhwc = run(
        "nn.conv_transpose2d", to_nhwc(x), to_nhwc(w), bias, output_pads=output_pads, layout="NHWC", **attributes
    )
    assert_close(to_nchw(nhwc), expected)


def test_im2col_in_strips_gives_the_result_of_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = normal(1, 4, 33, 17), normal(5, 4, 3, 3, seed=1)
    whole = run("nn.conv2d", x, w, pads=(1, 1, 1, 1))
    whole_nhwc = run("nn.conv2d", to_nhwc(x), to_nhwc(w), pads=(1, 1, 1, 1), layout="NHWC")
    monkeypatch.setattr(convolution, "STRIP_BYTES", 8000)
    assert_close(run("nn.conv2d", x, w, pads=(1, 1, 1, 1)), whole)
    assert_close(run("nn.conv2d", to_nhwc(x), to_nhwc(w), pads=(1, 1, 1, 1), layout="NHWC"), whole_nhwc)


def test_half_precision_convolution_rounds_once() -> None:
    x, w = normal(1, 3, 5, 5, dtype=np.float16), normal(2, 3, 3, 3, seed=1, dtype=np.float16)
    wide = run("nn.conv2d", x.astype(np.float32), w.astype(np.float32))
    found = run("nn.conv2d", x, w)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, wide.astype(np.float16))


# -- integers ---------------------------------------------------------------------------------------------------------
def integers(*shape: int, dtype: type, seed: int = 0) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


@few
@given(cases(), st.sampled_from([(np.int8, np.int8), (np.int16, np.int8), (np.int16, np.int16)]))
def test_quantised_convolution_is_the_exact_integer_sum_times_steps(case: Case, pair: tuple[type, type]) -> None:
    x, w = integers(*case.image_shape, dtype=pair[0]), integers(*case.weight_shape, dtype=pair[1], seed=1)
    bias = normal(case.groups * case.co, seed=2)
    quants = QuantType(DType.of(pair[0]), -5, 1.25), QuantType(DType.of(pair[1]), -7, 1.5)
    total = direct(case, x.astype(np.int64), w.astype(np.int64))
    step = np.float32(np.float64(quants[0].real_step) * quants[1].real_step)
    expected = total.astype(np.float32) * step + bias.reshape(1, -1, 1, 1)
    np.testing.assert_array_equal(run("nn.conv2d", x, w, bias, quants=quants, **case.attributes), expected)
    nhwc = run("nn.conv2d", to_nhwc(x), to_nhwc(w), bias, quants=quants, layout="NHWC", **case.attributes)
    np.testing.assert_array_equal(to_nchw(nhwc), expected)


def test_a_sum_beyond_24_bits_stays_exact() -> None:
    x, w = np.full((1, 2048, 1, 1), 127, np.int8), np.full((1, 2048, 1, 1), 127, np.int8)
    x[0, 0] = 126  # the sum is odd and above 2^24: f32 accumulation would lose it before the one rounding
    quants = QuantType(DType.I8, 0), QuantType(DType.I8, 0)
    exact = 127 * 127 * 2047 + 126 * 127
    assert run("nn.conv2d", x, w, quants=quants).item() == np.float32(exact)


def test_sums_that_no_float_holds_exactly_are_refused() -> None:
    with pytest.raises(ValueError, match="not exact"):
        convolution.exact_float(2.0**54)


def module_with(op_class: type, x: TensorType, w: np.ndarray, w_quant: QuantType, **attributes: object) -> Module:
    module = Module()
    main = module.add_function(Function("main"))
    op = op_class(main.add_argument(x, "x"), module.add_constant("w", w, w_quant), **attributes)
    main.body.append(op)
    main.body.append(Return(op.result))
    return module


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_weights_may_have_a_scale_per_output_channel(layout: str) -> None:
    x, w = integers(1, 3, 5, 5, dtype=np.int8), integers(4, 3, 3, 3, dtype=np.int8, seed=1)
    scales = np.array([1.0, 1.5, 1.25, 1.75], np.float32)
    x_quant, w_quant = QuantType(DType.I8, -4), QuantType(DType.I8, -6, axis=0, params="w.scales")
    arrays = (x, w) if layout == "NCHW" else (to_nhwc(x), to_nhwc(w))
    module = module_with(Conv2d, TensorType(arrays[0].shape, DType.I8, x_quant), arrays[1], w_quant, layout=layout)
    module.add_constant("w.scales", scales)
    (found,) = Interpreter(module).run([arrays[0]])
    found = found if layout == "NCHW" else to_nchw(found)
    for channel, scale in enumerate(scales):
        alone = QuantType(DType.I8, -6, float(scale))
        expected = run("nn.conv2d", x, w[channel : channel + 1], quants=(x_quant, alone))
        np.testing.assert_array_equal(found[:, channel : channel + 1], expected)


def test_quantised_transposed_convolution_and_matmul_take_a_scale_per_column() -> None:
    scales = np.array([1.0, 1.5], np.float32)
    x_quant = QuantType(DType.I8, -4)
    x, w = integers(1, 3, 4, 4, dtype=np.int8), integers(3, 2, 2, 2, dtype=np.int8, seed=1)
    module = module_with(
        ConvTranspose2d,
        TensorType(x.shape, DType.I8, x_quant),
        w,
        QuantType(DType.I8, -6, axis=1, params="s"),
        strides=(2, 2),
    )
    module.add_constant("s", scales)
    real = run("nn.conv_transpose2d", x * np.float32(2**-4), w * np.float32(2**-6), strides=(2, 2))
    assert_close(Interpreter(module).run([x])[0], real / scales.reshape(1, 2, 1, 1))

    a, b = integers(5, 3, dtype=np.int8), integers(3, 2, dtype=np.int8, seed=1)
    module = module_with(MatMul, TensorType(a.shape, DType.I8, x_quant), b, QuantType(DType.I8, -6, axis=1, params="s"))
    module.add_constant("s", scales)
    expected = (a.astype(np.int64) @ b.astype(np.int64)).astype(np.float32) * (np.float32(2**-10) / scales)
    assert_close(Interpreter(module).run([a])[0], expected, tolerance=1e-6)


def test_zero_points_are_subtracted_and_padding_is_real_zero() -> None:
    x = np.full((1, 1, 3, 3), 130, np.uint8)
    w = np.full((1, 1, 3, 3), 2, np.int8)
    quants = QuantType(DType.U8, 0, zero_point=128), QuantType(DType.I8, 0)
    found = run("nn.conv2d", x, w, quants=quants, pads=(1, 1, 1, 1))
    assert found[0, 0, 0, 0] == 4 * 2 * 2 and found[0, 0, 1, 1] == 9 * 2 * 2


# -- matmul -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("a", "b"),
    [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 1, 3, 4), (6, 4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,))],
)
def test_matmul_has_the_shapes_and_values_of_numpy(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    left, right = normal(*a), normal(*b, seed=1)
    assert_close(run("nn.matmul", left, right), np.asarray(left @ right))


@pytest.mark.parametrize("pair", [(np.int8, np.int8), (np.int16, np.int16)])
def test_quantised_matmul_is_exact(pair: tuple[type, type]) -> None:
    a, b = integers(2, 7, 600, dtype=pair[0]), integers(600, 5, dtype=pair[1], seed=1)
    quants = QuantType(DType.of(pair[0]), -3), QuantType(DType.of(pair[1]), -2)
    exact = (a.astype(np.int64) @ b.astype(np.int64)).astype(np.float32)
    np.testing.assert_array_equal(run("nn.matmul", a, b, quants=quants), exact * np.float32(2**-5))
