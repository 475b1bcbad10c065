"""Movement of elements, reductions and quantisation against NumPy and onnx's own reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.errors import CompilerError
from compiler.evaluate.registry import evaluate_op
from compiler.ir.types import DType, QuantType, TensorType
from compiler.ops.quant import Quantize
from tests.one_op import assert_close, make_op, normal, run, run_all, run_onnx_reference, run_onnxruntime

few = settings(max_examples=50, deadline=None)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def counted(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@few
@given(shapes, st.data())
def test_transpose_moves_axes_and_its_inverse_brings_them_back(shape: tuple[int, ...], data: st.DataObject) -> None:
    perm = data.draw(st.permutations(range(len(shape))))
    x = counted(*shape)
    y = run("tensor.transpose", x, perm=perm)
    np.testing.assert_array_equal(y, x.transpose(perm))
    np.testing.assert_array_equal(run("tensor.transpose", y, perm=np.argsort(perm).tolist()), x)


@few
@given(shapes, st.data())
def test_slices_read_what_their_starts_sizes_and_steps_say(shape: tuple[int, ...], data: st.DataObject) -> None:
    starts, sizes, steps = [], [], []
    for d in shape:
        size = data.draw(st.integers(0, d))
        step = data.draw(st.sampled_from([s for s in (1, 2, -1, -2) if (size - 1) * abs(s) < d]))
        reach = max(size - 1, 0) * abs(step)
        start = data.draw(st.integers(0, d - 1 - reach)) + (reach if step < 0 else 0)
        starts.append(start), sizes.append(size), steps.append(step)
    x = counted(*shape)
    picked = np.ix_(*[[s + i * t for i in range(n)] for s, n, t in zip(starts, sizes, steps, strict=True)])
    expected = x[tuple(p.astype(int) for p in picked)]
    np.testing.assert_array_equal(run("tensor.slice", x, starts=starts, sizes=sizes, steps=steps), expected)


@few
@given(shapes, st.sampled_from(["constant", "edge", "reflect", "wrap"]), st.data())
def test_padding_equals_numpy(shape: tuple[int, ...], mode: str, data: st.DataObject) -> None:
    limits = [d - 1 if mode == "reflect" else 2 if mode == "constant" else d for d in shape]
    pairs = [(data.draw(st.integers(0, n)), data.draw(st.integers(0, n))) for n in limits]
    x = counted(*shape)
    expected = np.pad(x, pairs, mode=mode, **({"constant_values": 7} if mode == "constant" else {}))  # type: ignore[call-overload]
    pads = [p[0] for p in pairs] + [p[1] for p in pairs]
    np.testing.assert_array_equal(run("tensor.pad", x, pads=pads, mode=mode, value=7.0), expected)


def test_padding_of_quantised_integers_is_the_integer_of_the_value() -> None:
    x = np.array([5], np.int8)
    quant = QuantType(DType.I8, -1, zero_point=3)
    np.testing.assert_array_equal(run("tensor.pad", x, quants=(quant,), pads=[1, 1]), [3, 5, 3])
    np.testing.assert_array_equal(run("tensor.pad", x, quants=(quant,), pads=[1, 0], value=2.0), [7, 5])


def test_reshape_concat_broadcast_and_tile() -> None:
    x = counted(2, 6)
    np.testing.assert_array_equal(run("tensor.reshape", x, shape=[3, -1]), x.reshape(3, 4))
    np.testing.assert_array_equal(run("tensor.concat", x, x + 1, axis=-1), np.concatenate([x, x + 1], 1))
    np.testing.assert_array_equal(run("tensor.broadcast_to", x, shape=[3, 2, 6]), np.broadcast_to(x, (3, 2, 6)))
    np.testing.assert_array_equal(run("tensor.tile", x, repeats=[2, 3]), np.tile(x, (2, 3)))


@few
@given(shapes, shapes, st.data())
def test_gather_equals_numpy_take(shape: tuple[int, ...], places: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    indices = np.random.default_rng(0).integers(-shape[axis], shape[axis], places)
    x = counted(*shape)
    np.testing.assert_array_equal(run("tensor.gather", x, indices, axis=axis), np.take(x, indices, axis))


def test_an_index_out_of_range_is_named() -> None:
    with pytest.raises(CompilerError, match="index 4 is out of range for 3 elements"):
        run("tensor.gather", counted(3), np.array([0, 4]))


def test_gather_elements_and_gather_nd_equal_onnx() -> None:
    x = counted(2, 3, 4)
    indices = np.array([[[0, -1, 2, 1]], [[3, 2, 1, 0]]]) % 3
    (expected,) = run_onnxruntime("GatherElements", x, indices, axis=1)
    np.testing.assert_array_equal(run("tensor.gather_elements", x, indices, axis=1), expected)
    pairs = np.array([[1, 2], [0, -1]])
    (expected,) = run_onnxruntime("GatherND", x, pairs)
    np.testing.assert_array_equal(run("tensor.gather_nd", x, pairs), expected)
    batched = np.array([[[2], [0]], [[1], [1]]])
    (expected,) = run_onnxruntime("GatherND", x, batched, batch_dims=1)
    np.testing.assert_array_equal(run("tensor.gather_nd", x, batched, batch_dims=1), expected)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter_equals_onnxruntime(reduction: str) -> None:
    x, rows = normal(4, 3), np.array([[2], [0]] if reduction == "none" else [[2], [2]])
    updates = normal(2, 3, seed=1)
    (expected,) = run_onnxruntime("ScatterND", x, rows, updates, opset=18, reduction=reduction)
    assert_close(run("tensor.scatter_nd", x, rows, updates, reduction=reduction), expected)
    places = np.array([[1, 0, 3], [2, -1, 0]])
    (expected,) = run_onnxruntime("ScatterElements", x, places, updates, opset=18, reduction=reduction)
    assert_close(run("tensor.scatter_elements", x, places, updates, reduction=reduction), expected)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_hot_equals_onnxruntime(axis: int) -> None:
    indices = np.array([[0, 2], [-1, 1]])
    (expected,) = run_onnxruntime("OneHot", indices, np.array(3), np.array([0.5, 2.0], np.float32), axis=axis)
    np.testing.assert_array_equal(run("tensor.one_hot", indices, depth=3, axis=axis, on=2.0, off=0.5), expected)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumulative_sum_equals_onnxruntime(exclusive: bool, reverse: bool) -> None:
    x = normal(3, 4)
    (expected,) = run_onnxruntime("CumSum", x, np.array(1), exclusive=int(exclusive), reverse=int(reverse))
    assert_close(run("tensor.cumsum", x, axis=1, exclusive=exclusive, reverse=reverse), expected)


@pytest.mark.parametrize("largest", [True, False])
def test_topk_gives_equal_elements_by_lower_index(largest: bool) -> None:
    x = np.array([[3, 1, 3, 2, 1], [0, 0, 0, 0, 0]], np.float32)
    expected = run_onnxruntime("TopK", x, np.array([3]), outputs=2, axis=-1, largest=int(largest))
    for found, wanted in zip(run_all("tensor.topk", x, k=3, largest=largest), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("upper", "k"), [(True, 0), (True, 1), (False, 0), (False, -1)])
def test_triangles_equal_numpy(upper: bool, k: int) -> None:
    x = normal(2, 4, 5)
    np.testing.assert_array_equal(run("tensor.trilu", x, upper=upper, k=k), (np.triu if upper else np.tril)(x, k))


# -- reductions -------------------------------------------------------------------------------------------------------
REDUCTIONS = {
    "sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd",
    "l1": "ReduceL1", "l2": "ReduceL2", "sum_square": "ReduceSumSquare", "log_sum_exp": "ReduceLogSumExp",
    "log_sum": "ReduceLogSum",
}  # fmt: skip


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize(("axes", "keepdims"), [((), True), ((1,), False), ((0, -1), True), ((-1,), False)])
def test_reductions_equal_onnx(name: str, axes: tuple[int, ...], keepdims: bool) -> None:
    x = np.abs(normal(2, 3, 4)) + 0.5
    operands = (x, np.array(axes, np.int64)) if axes else (x,)
    (expected,) = run_onnx_reference(REDUCTIONS[name], *operands, opset=18, keepdims=int(keepdims))
    assert_close(run(f"reduce.{name}", x, axes=axes, keepdims=keepdims), np.asarray(expected, np.float32))


def test_log_sum_exp_does_not_overflow() -> None:
    found = run("reduce.log_sum_exp", np.array([1000.0, 1000.0, -np.inf], np.float32))
    np.testing.assert_allclose(found, [1000 + np.log(2)])


def test_integer_sums_keep_their_type_and_means_truncate() -> None:
    x = np.array([[1, 2], [4, -9]], np.int32)
    np.testing.assert_array_equal(run("reduce.sum", x, axes=(1,), keepdims=False), np.array([3, -5], np.int32))
    np.testing.assert_array_equal(run("reduce.mean", x, axes=(1,), keepdims=False), np.array([1, -2], np.int32))


@pytest.mark.parametrize("name", ["max", "min"])
def test_the_extremes_of_nothing_are_the_bounds_of_the_type(name: str) -> None:
    empty = np.zeros((0, 2), np.int32)
    bound = np.iinfo(np.int32).min if name == "max" else np.iinfo(np.int32).max
    np.testing.assert_array_equal(run(f"reduce.{name}", empty, axes=(0,), keepdims=False), [bound, bound])


@pytest.mark.parametrize("kind", ["argmax", "argmin"])
@pytest.mark.parametrize("last", [False, True])
def test_index_of_an_extreme_takes_the_first_or_the_last(kind: str, last: bool) -> None:
    x = np.array([[1, 3, 3, 1], [2, 2, 2, 2]], np.float32)
    name = "ArgMax" if kind == "argmax" else "ArgMin"
    (expected,) = run_onnxruntime(name, x, axis=1, keepdims=0, select_last_index=int(last))
    np.testing.assert_array_equal(run(f"reduce.{kind}", x, axis=1, keepdims=False, select_last=last), expected)


# -- quantisation -----------------------------------------------------------------------------------------------------
def quantize(x: np.ndarray, quant: QuantType) -> np.ndarray:
    op = make_op(
        "quant.quantize", TensorType(x.shape, DType.of(x.dtype)), types=[TensorType(x.shape, quant.storage, quant)]
    )
    return evaluate_op(op, [x])[0]


def test_quantisation_by_position_and_scale_rounds_ties_to_even_and_saturates() -> None:
    x = np.array([0.25, 0.75, -0.25, 100.0, -100.0, np.nan, np.inf], np.float32)
    np.testing.assert_array_equal(quantize(x, QuantType(DType.I8, -1)), [0, 2, 0, 127, -128, 0, 127])


def test_quantisation_by_an_imported_step_divides_as_onnx_does() -> None:
    x = normal(1000) * 3
    step, zero_point = np.float32(0.0234), np.uint8(117)
    (expected,) = run_onnxruntime("QuantizeLinear", x, np.asarray(step), np.asarray(zero_point))
    quant = QuantType(DType.U8, 0, zero_point=117, step=float(step))
    np.testing.assert_array_equal(quantize(x, quant), expected)
    (real,) = run_onnxruntime("DequantizeLinear", expected, np.asarray(step), np.asarray(zero_point))
    np.testing.assert_array_equal(run("quant.dequantize", expected, quants=(quant,)), real)


@given(st.floats(2.0**-20, 2.0**20, width=32), st.sampled_from([DType.I8, DType.I16]))
@few
def test_quantising_and_back_errs_by_half_a_step_and_rounding_of_f32(absmax: float, storage: DType) -> None:
    quant = QuantType.from_absmax(absmax, storage)
    x = np.linspace(-absmax, absmax, 101, dtype=np.float32)
    back = run("quant.dequantize", quantize(x, quant), quants=(quant,))
    assert np.abs(back - x).max() <= quant.real_step * 0.5 + absmax * 2.0**-22


def test_scales_per_channel_come_from_the_module() -> None:
    x = np.array([[1.0, 1.0], [2.0, 2.0]], np.float32)
    quant = QuantType(DType.I8, -2, axis=0, params="scales")
    op = make_op("quant.quantize", TensorType((2, 2), DType.F32), types=[TensorType((2, 2), DType.I8, quant)])
    assert isinstance(op, Quantize) and op.module is not None
    op.module.add_constant("scales", np.array([1.0, 2.0], np.float32))
    np.testing.assert_array_equal(evaluate_op(op, [x])[0], [[4, 4], [16, 16]])
