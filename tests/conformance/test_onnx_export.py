"""What `mluc export` writes: checked by onnx, run by onnxruntime, and equal to the evaluator; for ONNX's own cases, one
per op by default and all of them with `-m slow`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from compiler.evaluate.interpreter import Interpreter
from compiler.export.graph import ROWS
from compiler.export.onnx import to_onnx
from compiler.ir.core import Module
from tests.conformance.onnx_cases import _array, _import, all_cases

Arrays = list[np.ndarray]

LEFT_OUT = {
    "math.bitcast": "reinterprets no bytes", "tensor.cumprod": "has no running product",
}  # fmt: skip
"""Ops ONNX of the opset written has no words for, and what the error says."""

NOT_RUN = ("nn.deform_conv2d", "nn.group_norm")
"""Ops that onnxruntime may lack: checked by onnx only."""

REASONS = ("no implementation", "Could not find an implementation", "NOT_IMPLEMENTED", "bfloat16", "Numpy_type 256",
           "shifts unsigned integers only", "sizes that its scales do not give", "windows beyond the end",
           "padding as large as the window", "graph.if", "graph.loop", "reinterprets no bytes",
           "no running product")  # fmt: skip
"""Why a case may not be run: onnxruntime lacks the type, or ONNX the words."""


@cache
def run_time() -> Any:
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime


def imported(name: str, folder: Path) -> tuple[Module, Arrays] | None:
    """A case as a module, and its free inputs; None where it cannot be imported or evaluated."""
    case = all_cases()[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module, free = _import(case.model, [_array(a) for a in case.data_sets[0][0]], folder)
            Interpreter(module).run(free)
        except Exception:
            return None
    return module, free


def assert_equal(module: Module, inputs: Arrays) -> None:
    """The exported model gives what the evaluator gives, up to the order of sums."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = Interpreter(module).run(inputs)
    made = to_onnx(module)
    onnx.checker.check_model(made, full_check=True)
    session = run_time().InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == list(module.main.output_names)
    found = session.run(None, {a.name: v for a, v in zip(module.main.arguments, inputs, strict=True)})
    for ours, theirs in zip(wanted, found, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        if ours.dtype.kind != "f":
            assert np.array_equal(ours, theirs)
            continue
        finite = ours[np.isfinite(ours)].astype(np.float64)
        span = max(float(np.abs(finite).max(initial=0.0)), 1e-3)
        np.testing.assert_allclose(theirs.astype(np.float64), ours.astype(np.float64), rtol=2e-3, atol=2e-5 * span)


CASES = {
    "nn.relu": "test_relu", "nn.sigmoid": "test_sigmoid_example", "nn.softplus": "test_softplus_example",
    "nn.softsign": "test_softsign_example", "nn.mish": "test_mish", "nn.hard_swish": "test_hardswish",
    "nn.prelu": "test_prelu_example", "nn.global_avg_pool": "test_globalaveragepool",
    "nn.global_max_pool": "test_globalmaxpool", "nn.matmul": "test_einsum_batch_matmul", "math.add": "test_add",
    "math.sub": "test_sub_example", "math.mul": "test_mul_example", "math.div": "test_div_example",
    "math.pow": "test_pow_example", "math.maximum": "test_clip_default_min", "math.minimum": "test_clip_default_max",
    "math.equal": "test_equal", "math.less": "test_less", "math.less_equal": "test_less_equal",
    "math.greater": "test_greater", "math.greater_equal": "test_greater_equal", "math.and": "test_and2d",
    "math.or": "test_or2d", "math.xor": "test_xor2d", "math.not": "test_not_2d",
    "math.bitwise_and": "test_bitwise_and_i32_2d", "math.bitwise_or": "test_bitwise_or_i32_2d",
    "math.bitwise_xor": "test_bitwise_xor_i32_2d", "math.bitwise_not": "test_bitwise_not_2d",
    "math.where": "test_where_example", "math.neg": "test_neg_example", "math.abs": "test_abs",
    "math.sign": "test_sign", "math.exp": "test_exp_example", "math.log": "test_log_example",
    "math.sqrt": "test_sqrt_example", "math.reciprocal": "test_reciprocal_example", "math.erf": "test_erf",
    "math.tanh": "test_tanh_example", "math.sin": "test_sin_example", "math.cos": "test_cos_example",
    "math.tan": "test_tan_example", "math.asin": "test_asin_example", "math.acos": "test_acos_example",
    "math.atan": "test_atan_example", "math.sinh": "test_sinh_example", "math.cosh": "test_cosh_example",
    "math.asinh": "test_asinh_example", "math.acosh": "test_acosh_example", "math.atanh": "test_atanh_example",
    "math.floor": "test_floor_example", "math.ceil": "test_ceil_example", "math.round": "test_round",
    "math.isnan": "test_isnan", "math.isinf": "test_isinf", "math.det": "test_det_2d",
    "tensor.nonzero": "test_nonzero_example", "tensor.shape_of": "test_affine_grid_3d",
    "tensor.expand_as": "test_constantofshape_float_ones", "tensor.range": "test_range_float_type_positive_delta",
    "tensor.tile_as": "test_tile", "nn.leaky_relu": "test_leakyrelu_example", "nn.elu": "test_elu_example",
    "nn.selu": "test_selu_example", "nn.celu": "test_celu", "nn.thresholded_relu": "test_thresholdedrelu_example",
    "nn.hard_sigmoid": "test_hardsigmoid_example", "nn.gelu": "test_gelu_tanh_1",
    "nn.softmax": "test_softmax_example", "nn.log_softmax": "test_logsoftmax_example_1",
    "nn.depth_to_space": "test_depthtospace_example", "nn.space_to_depth": "test_spacetodepth",
    "tensor.transpose": "test_einsum_transpose", "tensor.concat": "test_concat_1d_axis_0",
    "tensor.gather": "test_ai_onnx_ml_array_feature_extractor", "tensor.gather_elements": "test_gather_elements_0",
    "tensor.gather_nd": "test_gathernd_example_int32", "tensor.scatter_nd": "test_scatternd",
    "tensor.scatter_elements": "test_scatter_without_axis", "tensor.compress": "test_compress_0",
    "tensor.unique": "test_unique_sorted_with_axis", "reduce.argmax": "test_argmax_no_keepdims_example",
    "reduce.argmin": "test_argmin_no_keepdims_example", "nn.grid_sample": "test_gridsample",
    "nn.conv2d": "test_basic_conv_with_padding", "nn.conv_transpose2d": "test_convtranspose",
    "nn.max_pool2d": "test_maxpool_2d_uint8", "nn.avg_pool2d": "test_averagepool_2d_precomputed_pads",
    "nn.silu": "test_swish", "math.rsqrt": "test_layer_normalization_4d_axis0",
    "math.clip": "test_clip_default_inbounds", "math.mod": "test_mod_mixed_sign_float64",
    "math.cast": "test_cast_FLOAT_to_FLOAT16", "nn.batch_norm": "test_batchnorm_example",
    "nn.instance_norm": "test_instancenorm_example", "nn.group_norm": "test_group_normalization_example",
    "nn.layer_norm": "test_layer_normalization_4d_axis0", "nn.rms_norm": "test_rms_normalization_4d_axis0",
    "nn.lrn": "test_lrn", "nn.resize": "test_resize_upsample_scales_nearest",
    "nn.roi_align": "test_roialign_aligned_false", "nn.non_max_suppression": "test_nonmaxsuppression_suppress_by_IOU",
    "nn.lstm": "test_lstm_defaults", "nn.gru": "test_gru_defaults", "nn.rnn": "test_simple_rnn_defaults",
    "tensor.reshape": "test_flatten_axis0", "tensor.reshape_as": "test_reshape_reordered_all_dims",
    "tensor.slice": "test_center_crop_pad_crop", "tensor.slice_as": "test_slice_default_axes",
    "tensor.pad": "test_center_crop_pad_pad", "tensor.broadcast_to": "test_tensorscatter",
    "tensor.tile": "test_operator_repeat", "tensor.one_hot": "test_onehot_negative_indices",
    "tensor.cumsum": "test_cumsum_1d", "tensor.topk_as": "test_top_k", "tensor.trilu": "test_triu",
    "reduce.sum": "test_einsum_sum", "reduce.mean": "test_reduce_mean_do_not_keepdims_example",
    "reduce.max": "test_reduce_max_do_not_keepdims_example", "reduce.min": "test_reduce_min_do_not_keepdims_example",
    "reduce.prod": "test_reduce_prod_do_not_keepdims_example", "reduce.l1": "test_reduce_l1_do_not_keepdims_example",
    "reduce.l2": "test_reduce_l2_do_not_keepdims_example",
    "reduce.sum_square": "test_reduce_sum_square_do_not_keepdims_example",
    "reduce.log_sum": "test_reduce_log_sum_desc_axes",
    "reduce.log_sum_exp": "test_reduce_log_sum_exp_do_not_keepdims_example",
    "nn.deform_conv2d": "test_basic_deform_conv_with_padding", "math.shift_left": "test_bitshift_left_uint8",
    "math.shift_right": "test_bitshift_right_uint8", "math.dft": "test_dft",
}  # fmt: skip
"""Op → a case of ONNX's own that has it."""


@pytest.mark.parametrize("kind", CASES)
def test_an_op_s_onnx_form_computes_the_same(kind: str, tmp_path: Path) -> None:
    found = imported(CASES[kind], tmp_path)
    assert found is not None
    module, inputs = found
    assert any(op.op_name == kind for op in module.ops())
    if kind in NOT_RUN:
        onnx.checker.check_model(to_onnx(module), full_check=True)
    else:
        assert_equal(module, inputs)


def test_every_op_with_a_row_is_tried() -> None:
    assert set(ROWS) - set(CASES) - set(LEFT_OUT) - BY_HAND == set()


BY_HAND = {"quant.quantize", "quant.dequantize", "tensor.topk"}
"""Tried in tests/unit/test_export.py."""


@pytest.mark.slow
def test_all_cases_that_import_export_too(tmp_path: Path, show: Callable[..., None]) -> None:
    done, failed = 0, {}
    for name in all_cases():
        found = imported(name, tmp_path) if "light" not in name and "sequence" not in name else None
        if found is None:
            continue
        try:
            assert_equal(*found)
            done += 1
        except Exception as fault:
            if not any(reason in str(fault) for reason in REASONS):
                failed[name] = f"{type(fault).__name__}: {fault}"
    show(f"{done} cases exported and run")
    assert not failed and done > 1600
