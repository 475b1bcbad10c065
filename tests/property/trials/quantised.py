"""Trials of quantised operators and of onnxruntime's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.property.trials.dice import Dice, Trial, trial
from tests.property.trials.windows import pooling_of, window_of


# -- quantisation ------------------------------------------------------------------------------------------------------
def _zero(d: Dice, dtype: Any, *shape: int) -> np.ndarray:
    return d.ints(*shape, low=0, high=9, dtype=dtype)


@trial("QuantizeLinear", opsets=(10, 13, 19, 21))
def quantize_linear(d: Dice) -> Trial:
    x = d.floats(*d.shape(1))
    per_axis = d.opset >= 13 and d.flip()
    axis = d.axis(x.ndim)
    shape = (x.shape[axis],) if per_axis else ()
    scale = d.floats(*shape, low=0.01, high=0.2)
    zero = _zero(d, d.choice([np.uint8, np.int8]), *shape) if d.flip(0.7) else None
    return Trial([x, scale, *([] if zero is None else [zero])], {"axis": axis} if per_axis else {}, steps=1)


@trial("DequantizeLinear", opsets=(10, 13, 19, 21))
def dequantize_linear(d: Dice) -> Trial:
    dtype = d.choice([np.uint8, np.int8, np.int32])
    shape = d.shape(1)
    x = d.ints(*shape, low=0, high=100, dtype=dtype)
    per_axis = d.opset >= 13 and d.flip()
    axis = d.axis(x.ndim)
    block = d.opset >= 21 and d.flip(0.3)
    wide = list(shape)
    wide[axis] = -(-shape[axis] // 2)
    size = tuple(wide) if block else (shape[axis],) if per_axis else ()
    scale = d.floats(*size, low=0.01, high=0.2)
    zero = _zero(d, dtype, *size) if dtype != np.int32 and d.flip(0.7) else None
    attributes: dict[str, Any] = {"axis": axis} if per_axis or block else {}
    if block:
        attributes["block_size"] = 2
    return Trial([x, scale, *([] if zero is None else [zero])], attributes, free=d.choice([(0,), ()]))


@trial("DynamicQuantizeLinear", opsets=(11,))
def dynamic_quantize(d: Dice) -> Trial:
    return Trial([d.floats(*d.shape(1))], outputs=3, steps=1)


@trial("MatMulInteger", opsets=(10,))
def matmul_integer(d: Dice) -> Trial:
    m, k, n = d.shape(3, 3)
    a, b = (d.ints(*s, low=0, high=100, dtype=d.choice([np.uint8, np.int8])) for s in ((m, k), (k, n)))
    zeros = [_zero(d, a.dtype), _zero(d, b.dtype, *d.choice([(), (1,), (n,)]))]
    return Trial([a, b, *zeros[: d.randint(0, 2)]], free=d.choice([(0,), (0, 1)]))


@trial("ConvInteger", opsets=(10,))
def conv_integer(d: Dice) -> Trial:
    co, ci, kernel = d.randint(1, 3), d.randint(1, 3), [d.randint(1, 3), d.randint(1, 3)]
    x, w = d.ints(1, ci, 5, 6, low=0, high=200, dtype=np.uint8), d.ints(co, ci, *kernel, low=0, high=90, dtype=np.uint8)
    zeros = [_zero(d, np.uint8), _zero(d, np.uint8)]
    return Trial([x, w, *zeros[: d.randint(0, 2)]], window_of(d, (5, 6), kernel))


@trial("QLinearMatMul", opsets=(10, 21))
def qlinear_matmul(d: Dice) -> Trial:
    m, k, n = d.shape(3, 3)
    dtype = d.choice([np.uint8, np.int8])
    b_shape = (n,) if d.flip(0.3) else ()
    given = [
        d.ints(m, k, low=0, high=100, dtype=dtype), d.floats(low=0.01, high=0.1), _zero(d, dtype),
        d.ints(k, n, low=0, high=100, dtype=dtype), d.floats(*b_shape, low=0.01, high=0.1), _zero(d, dtype, *b_shape),
        d.floats(low=0.1, high=0.9), _zero(d, dtype),
    ]  # fmt: skip
    return Trial(given, steps=1)


@trial("QLinearConv", opsets=(10,))
def qlinear_conv(d: Dice) -> Trial:
    co, ci, kernel = d.randint(1, 3), d.randint(1, 3), [d.randint(1, 3), d.randint(1, 3)]
    dtype = d.choice([np.uint8, np.int8])
    w_shape = (co,) if d.flip() else ()
    given = [
        d.ints(1, ci, 5, 6, low=0, high=100, dtype=dtype), d.floats(low=0.01, high=0.1), _zero(d, dtype),
        d.ints(co, ci, *kernel, low=-50, high=50, dtype=np.int8), d.floats(*w_shape, low=0.01, high=0.1),
        np.zeros(w_shape, np.int8), d.floats(low=0.1, high=0.9), _zero(d, dtype),
        *([d.ints(co, low=-99, high=99, dtype=np.int32)] if d.flip() else []),
    ]  # fmt: skip
    return Trial(given, window_of(d, (5, 6), kernel), steps=1)


# -- com.microsoft -----------------------------------------------------------------------------------------------------
MICROSOFT = "com.microsoft"


@trial("FusedMatMul", opsets=(13,), domain=MICROSOFT)
def fused_matmul(d: Dice) -> Trial:
    m, k, n = d.shape(3, 3)
    batch, ta, tb = d.shape(0, 2, 3), d.randint(0, 1), d.randint(0, 1)
    a, b = d.floats(*batch, *((k, m) if ta else (m, k))), d.floats(*batch, *((n, k) if tb else (k, n)))
    return Trial([a, b], d.some(alpha=d.uniform(-1, 2)) | {"transA": ta, "transB": tb}, free=(0, 1))


@trial("BiasGelu", "FastGelu", opsets=(13,), domain=MICROSOFT)
def bias_gelu(d: Dice) -> Trial:
    x = d.floats(*d.shape(2))
    return Trial([x, d.floats(x.shape[-1])], tolerance=1e-3)


@trial("QuickGelu", opsets=(13,), domain=MICROSOFT)
def quick_gelu(d: Dice) -> Trial:
    return Trial([d.floats(*d.shape(1))], d.some(alpha=d.choice([1.0, 1.5, 1.702])), tolerance=1e-4)


@trial("SkipLayerNormalization", opsets=(13,), domain=MICROSOFT)
def skip_layer_norm(d: Dice) -> Trial:
    x = d.floats(*d.shape(3, 3))
    size = x.shape[-1]
    more = [d.floats(size), d.floats(size)][: d.randint(0, 2)]
    return Trial([x, d.floats(*x.shape), d.floats(size), *more], {"epsilon": 0.05}, free=(0, 1),
                 tolerance=1e-3)  # fmt: skip


@trial("QLinearAdd", "QLinearMul", opsets=(13,), domain=MICROSOFT)
def qlinear_binary(d: Dice) -> Trial:
    shape, dtype = d.shape(1), d.choice([np.uint8, np.int8])
    given: list[Any] = []
    for size in (shape, d.broadcast(shape)):
        given += [d.ints(*size, low=0, high=100, dtype=dtype), d.floats(low=0.01, high=0.1), _zero(d, dtype)]
    return Trial([*given, d.floats(low=0.1, high=0.2), _zero(d, dtype)], free=(0, 3), steps=1)


@trial("QLinearSigmoid", "QLinearLeakyRelu", opsets=(13,), domain=MICROSOFT)
def qlinear_unary(d: Dice) -> Trial:
    dtype = d.choice([np.uint8, np.int8])
    x = d.ints(*d.shape(1), low=0, high=100, dtype=dtype)
    given = [x, d.floats(low=0.01, high=0.1), _zero(d, dtype), d.floats(low=0.01, high=0.1), _zero(d, dtype)]
    return Trial(given, steps=1)


@trial("QLinearGlobalAveragePool", opsets=(13,), domain=MICROSOFT)
def qlinear_global_pool(d: Dice) -> Trial:
    dtype = d.choice([np.uint8, np.int8])
    x = d.ints(*d.shape(4, 4), low=0, high=100, dtype=dtype)
    given = [x, d.floats(low=0.01, high=0.1), _zero(d, dtype), d.floats(low=0.01, high=0.1), _zero(d, dtype)]
    return Trial(given, steps=1)


@trial("QLinearAveragePool", opsets=(13,), domain=MICROSOFT)
def qlinear_pool(d: Dice) -> Trial:
    x, attributes = pooling_of(d, 99)
    dtype = d.choice([np.uint8, np.int8])
    given = [d.ints(*x.shape, low=0, high=100, dtype=dtype), d.floats(low=0.01, high=0.1), _zero(d, dtype),
             d.floats(low=0.05, high=0.1), _zero(d, dtype)]  # fmt: skip
    return Trial(given, attributes | d.some(count_include_pad=d.randint(0, 1)), steps=1)


@trial("QLinearConcat", opsets=(13,), domain=MICROSOFT)
def qlinear_concat(d: Dice) -> Trial:
    shape, dtype = d.shape(1), d.choice([np.uint8, np.int8])
    axis = d.axis(len(shape))
    given: list[Any] = [d.floats(low=0.05, high=0.1), _zero(d, dtype)]
    for _ in range(d.randint(1, 3)):
        size = list(shape)
        size[axis] = d.randint(1, 4)
        given += [d.ints(*size, low=0, high=100, dtype=dtype), d.floats(low=0.01, high=0.1), _zero(d, dtype)]
    return Trial(given, {"axis": axis}, free=(2, 5), steps=1)


@trial("QGemm", opsets=(13,), domain=MICROSOFT)
def qgemm(d: Dice) -> Trial:
    m, k, n = d.shape(3, 3)
    ta, tb = d.randint(0, 1), d.randint(0, 1)
    given: list[Any] = [
        d.ints(*((k, m) if ta else (m, k)), low=0, high=100, dtype=np.uint8), d.floats(low=0.01, high=0.1),
        _zero(d, np.uint8), d.ints(*((n, k) if tb else (k, n)), low=-50, high=50, dtype=np.int8),
        d.floats(low=0.01, high=0.1), np.int8(0), d.ints(n, low=-99, high=99, dtype=np.int32) if d.flip() else None,
    ]  # fmt: skip
    given += [d.floats(low=0.1, high=0.9), _zero(d, np.uint8)] if d.flip() else []
    return Trial(given, d.some(alpha=d.uniform(0.5, 2)) | {"transA": ta, "transB": tb}, steps=1, tolerance=1e-4)


@trial("FusedConv", opsets=(13,), domain=MICROSOFT)
def fused_conv(d: Dice) -> Trial:
    co, ci, kernel = d.randint(1, 3), d.randint(1, 3), [d.randint(1, 3), d.randint(1, 3)]
    kinds: dict[str, list[float] | None] = {
        "Relu": None, "Tanh": None, "Sigmoid": None, "LeakyRelu": [0.2], "Clip": [-0.5, 1.0], "HardSigmoid": [0.3, 0.4]
    }  # fmt: skip
    kind = d.choice(list(kinds))
    attributes = {"activation": kind, **({"activation_params": kinds[kind]} if kinds[kind] else {})}
    given = [d.floats(1, ci, 5, 6), d.floats(co, ci, *kernel), *([d.floats(co)] if d.flip() else [])]
    return Trial(given, attributes | window_of(d, (5, 6), kernel), tolerance=1e-4)


@trial("FusedGemm", opsets=(13,), domain=MICROSOFT)
def fused_gemm(d: Dice) -> Trial:
    m, k, n = d.shape(3, 3)
    kind = d.choice(["Relu", "LeakyRelu", "Sigmoid", "Tanh"])
    attributes = {"activation": kind, **({"activation_alpha": 0.3} if kind == "LeakyRelu" else {})}
    return Trial([d.floats(m, k), d.floats(k, n), d.floats(n)], attributes | d.some(alpha=d.uniform(0.5, 2)))


@trial("Gelu", opsets=(13,), domain=MICROSOFT)
def gelu(d: Dice) -> Trial:
    return Trial([d.floats(*d.shape(1))], tolerance=1e-4)


@trial("QLinearSoftmax", opsets=(13,), domain=MICROSOFT)
def qlinear_softmax(d: Dice) -> Trial:
    """Results that fit: beyond the last step onnxruntime starts again from the first."""
    dtype = d.choice([np.uint8, np.int8])
    x = d.ints(*d.shape(2), low=0, high=100, dtype=dtype)
    given = [x, d.floats(low=0.01, high=0.1), _zero(d, dtype), np.float32(0.01), _zero(d, dtype)]
    return Trial(given, {"axis": d.axis(x.ndim), "opset": d.choice([11, 13])}, steps=1)


@trial("QLinearWhere", opsets=(13,), domain=MICROSOFT)
def qlinear_where(d: Dice) -> Trial:
    shape, dtype = d.shape(1), d.choice([np.uint8, np.int8])
    given: list[Any] = [d.numbers(*shape, kinds="b")]
    for _ in range(2):
        given += [d.ints(*shape, low=0, high=100, dtype=dtype), d.floats(low=0.01, high=0.1), _zero(d, dtype)]
    return Trial([*given, d.floats(low=0.1, high=0.2), _zero(d, dtype)], free=(0, 1, 4), steps=1)


@trial("QuantizeLinear", opsets=(13,), domain=MICROSOFT)
def quantize_to_sixteen(d: Dice) -> Trial:
    zero = d.ints(low=0, high=9, dtype=d.choice([np.uint16, np.int16, np.uint8, np.int8]))
    return Trial([d.floats(*d.shape(1)), d.floats(low=0.001, high=0.2), zero], steps=1)


@trial("DequantizeLinear", opsets=(13,), domain=MICROSOFT)
def dequantize_from_sixteen(d: Dice) -> Trial:
    dtype = d.choice([np.uint16, np.int16, np.uint8, np.int8])
    x = d.ints(*d.shape(1), low=0, high=100, dtype=dtype)
    return Trial([x, d.floats(low=0.001, high=0.2), *([_zero(d, dtype)] if d.flip() else [])])


@trial("DynamicQuantizeMatMul", opsets=(13,), domain=MICROSOFT)
def dynamic_quantize_matmul(d: Dice) -> Trial:
    m, k, n = d.shape(3, 3)
    dtype = d.choice([np.uint8, np.int8])
    each = (n,) if d.flip() else ()
    given = [d.floats(*d.shape(0, 1), m, k), d.ints(k, n, low=0, high=100, dtype=dtype), d.floats(*each, low=0.01)]
    given += [d.choice([None, _zero(d, dtype, *each)]), d.choice([None, d.floats(n)])]
    return Trial(given, tolerance=1e-4)


@trial("MatMulIntegerToFloat", opsets=(13,), domain=MICROSOFT)
def matmul_integer_to_float(d: Dice) -> Trial:
    m, k, n = d.shape(3, 3)
    dtype = d.choice([np.uint8, np.int8])
    each = (n,) if d.flip() else ()
    given = [d.ints(m, k, low=0, high=100, dtype=np.uint8), d.ints(k, n, low=0, high=100, dtype=dtype)]
    given += [d.floats(low=0.01, high=0.1), d.floats(*each, low=0.01, high=0.1), d.choice([None, _zero(d, np.uint8)])]
    given += [d.choice([None, _zero(d, dtype, *each)]), d.choice([None, d.floats(n)])]
    return Trial(given, free=(0, 2), tolerance=1e-4)
