"""Conversions on the host, as the vendor's run-time offers them: types, orders of axes, quantisation. Pure functions.

Quantised values mean real = integer * 2^position / scale. Conversions to integers round to nearest even and saturate
(the vendor does not publish its rounding, [U]). Pairs of types are those of the vendor's documentation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compiler import numerics
from runtime.cnrt_types import Fault, cnrtDataType_t, cnrtRet_t, host_array, integer, not_null, numpy_type

_T = cnrtDataType_t
_PLAIN = {
    (_T.CNRT_FLOAT32, _T.CNRT_FLOAT16), (_T.CNRT_FLOAT32, _T.CNRT_UINT8), (_T.CNRT_INT64, _T.CNRT_FLOAT16),
    (_T.CNRT_FLOAT16, _T.CNRT_FLOAT32), (_T.CNRT_FLOAT16, _T.CNRT_UINT8), (_T.CNRT_UINT8, _T.CNRT_FLOAT32),
    (_T.CNRT_UINT8, _T.CNRT_FLOAT16),
}  # fmt: skip
_QUANTIZED = {
    (_T.CNRT_FLOAT32, _T.CNRT_INT8), (_T.CNRT_FLOAT32, _T.CNRT_INT16), (_T.CNRT_FLOAT32, _T.CNRT_INT32),
    (_T.CNRT_FLOAT16, _T.CNRT_INT16), (_T.CNRT_INT8, _T.CNRT_FLOAT32), (_T.CNRT_INT16, _T.CNRT_FLOAT32),
    (_T.CNRT_INT32, _T.CNRT_FLOAT32),
}  # fmt: skip


@dataclass(eq=False)
class QuantizedParam:
    """`cnrtQuantizedParam_t`. The chip is symmetric: offset is 0."""

    position: int
    scale: float
    live: bool = True

    @staticmethod
    def of(position: int, scale: float, offset: float) -> QuantizedParam:
        """INVALID: a scale that is not positive, a position beyond +-127; UNSUPPORTED: an offset."""
        position = integer(position, "position", low=-127)
        number = isinstance(scale, int | float | np.floating) and math.isfinite(scale)
        if position > 127 or not number or scale <= 0:
            raise Fault(cnrtRet_t.CNRT_RET_ERR_INVALID, f"position {position} and scale {scale!r}")
        if offset != 0:
            raise Fault(cnrtRet_t.CNRT_RET_ERR_UNSUPPORTED, f"offset {offset!r}: quantisation is symmetric")
        return QuantizedParam(position, float(scale))


def cast(values: np.ndarray, source: int, target: int, param: QuantizedParam | None) -> np.ndarray:
    """`values` of data type `source` as `target`. UNSUPPORTED: a pair the vendor does not document."""
    dtype = numpy_type(target)
    if param is not None and not (isinstance(param, QuantizedParam) and param.live):
        raise Fault(cnrtRet_t.CNRT_RET_ERR_INVALID, "no quantisation parameters, or they were destroyed")
    if source == target:
        return values
    pair = (cnrtDataType_t(source), cnrtDataType_t(target))
    if pair not in (_PLAIN if param is None else _QUANTIZED):
        kind = "without" if param is None else "with"
        text = f"{pair[0].name} to {pair[1].name} {kind} quantisation parameters"
        raise Fault(cnrtRet_t.CNRT_RET_ERR_UNSUPPORTED, text)
    with np.errstate(all="ignore"):  # overflow to infinity and NaN have defined results here
        if param is not None and dtype.kind == "i":
            scaled = values.astype(np.float32) * np.float32(param.scale)
            return numerics.float_to_int(scaled, param.position, dtype)
        if param is not None:
            return numerics.int_to_float(values, param.position) / np.float32(param.scale)
        if dtype == np.uint8:
            return np.rint(np.clip(np.nan_to_num(values.astype(np.float32)), 0, 255)).astype(np.uint8)
        return values.astype(dtype)


def reorder(values: np.ndarray, dims: Sequence[int], order: Sequence[int]) -> np.ndarray:
    """Axis i of the result is axis order[i] of the source, whose shape is `dims`. INVALID: not a permutation."""
    order = [integer(axis, "an axis") for axis in order]
    if sorted(order) != list(range(len(dims))):
        raise Fault(cnrtRet_t.CNRT_RET_ERR_INVALID, f"{order} is not an order of {len(dims)} axes")
    return values.reshape(tuple(dims)).transpose(tuple(order))


def dimensions(dim_num: int, dim_values: Sequence[int]) -> list[int]:
    """The first `dim_num` sizes. INVALID: fewer, or one below 1."""
    count = integer(dim_num, "the number of axes", low=1)
    if len(not_null(dim_values, "the array of sizes")) < count:
        raise Fault(cnrtRet_t.CNRT_RET_ERR_INVALID, f"{count} axes, sizes {list(dim_values)}")
    return [integer(d, "the size of an axis", low=1) for d in list(dim_values)[:count]]


def convert(
    source: object, source_type: int, target: object, target_type: int, dims: Sequence[int], order: Sequence[int],
    param: QuantizedParam | None,
) -> None:  # fmt: skip
    """Host memory to host memory: permute axes, then cast."""
    count = math.prod(dims)
    values = host_array(source, numpy_type(source_type), count, "the source")
    out = host_array(target, numpy_type(target_type), count, "the destination", write=True)
    result = cast(reorder(values, dims, order), source_type, target_type, param)
    out[:] = np.array(result, order="C", copy=True).reshape(-1)  # a copy first: the two may be the same memory


def add_stride(source: object, data_type: int, target: object, dims: Sequence[int], stride: Sequence[int]) -> None:
    """Copy into a larger tensor: axis i of the destination has stride[i] more elements, which become zero."""
    dtype = numpy_type(data_type)
    wide = [d + integer(s, "a stride") for d, s in zip(dims, stride, strict=True)]
    values = host_array(source, dtype, math.prod(dims), "the source").reshape(tuple(dims)).copy()
    out = host_array(target, dtype, math.prod(wide), "the destination", write=True).reshape(wide)
    out[...] = 0
    out[tuple(slice(d) for d in dims)] = values


__all__ = ["QuantizedParam", "add_stride", "cast", "convert", "dimensions", "reorder"]
