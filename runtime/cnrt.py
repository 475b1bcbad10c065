"""The vendor's host API (CNRT) over the simulator, so that host code can be ported line by line and tested without a
card. For new Python code `runtime.Session` is simpler.

A C call `cnrtRet_t f(out *p, in a)` is here `status, p = f(a)`: pointers that C writes through are left out of the
arguments and returned after the status, in C's order; everything else keeps its name, place and meaning. A call with no
such pointer returns the status alone; when a call fails, its values are None. `cnrtExtractFunction` takes the function
and returns it again. Why a call failed is logged under the name `cnrt`, and `cnrtGetLastErr` tells the last code.

Device pointers are integers and may be added to. Host memory is anything with a buffer: NumPy arrays, bytearrays.
Tensors on the device are dense, in the device's layout and type, as the `_twins` text says: the host converts. Queues
work when they are waited for, in order: outputs are there after `cnrtSyncQueue`, and not before. Times of notifiers are
microseconds of the analytical model. A function of the model is one subnet on the chip; what runs on the host
(`mluc inspect`) is the host program's own work, as it is with the vendor's tools. Left out: parameter descriptors
(`_V2` of invoke), kernels in BANG C, memory shared between processes, peers.
"""
# ruff: noqa: F403, N802

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime import cnrt_convert
from runtime.cnrt_convert import QuantizedParam
from runtime.cnrt_memory import *
from runtime.cnrt_models import *
from runtime.cnrt_process import *
from runtime.cnrt_process import R, call, destroy
from runtime.cnrt_types import ENUMS, Fault, integer, not_null, numpy_type


# -- conversions on the host -------------------------------------------------------------------------------------------
def cnrtDataTypeSize(data_type: int) -> int:
    """Bytes of an element, not a status; 0 for a type that has none."""
    try:
        return int(numpy_type(data_type).itemsize)
    except Fault:
        return 0


@call(outs=1, init=False)
def cnrtCreateQuantizedParam(pos: int, scale: float, offset: int) -> QuantizedParam:
    """`status, param = cnrtCreateQuantizedParam(position, scale, 0)`: real = integer * 2^position / scale."""
    return QuantizedParam.of(pos, scale, offset)


@call(init=False)
def cnrtDestroyQuantizedParam(param: QuantizedParam) -> None:
    destroy(param, QuantizedParam, "quantisation parameter")


@call(init=False)
def cnrtCastDataType(
    src_addr: Any, src_data_type: int, dst_addr: Any, dst_data_type: int, data_num: int,
    param: QuantizedParam | None = None,
) -> None:  # fmt: skip
    """Convert `data_num` elements of host memory. Pairs of types: `runtime.cnrt_convert`."""
    dims = [integer(data_num, "the number of elements")]
    cnrt_convert.convert(src_addr, src_data_type, dst_addr, dst_data_type, dims, [0], param)


@call(init=False)
def cnrtTransDataOrder(
    src_addr: Any, data_type: int, dst_addr: Any, dim_num: int, dim_values: Sequence[int], dim_order: Sequence[int]
) -> None:
    """Permute the axes of host memory: axis i of the destination is axis dim_order[i] of the source, whose sizes are
    `dim_values`. NCHW to NHWC: dim_order 0 2 3 1."""
    dims = cnrt_convert.dimensions(dim_num, dim_values)
    cnrt_convert.convert(src_addr, data_type, dst_addr, data_type, dims, _axes(dim_order, dims), None)


@call(init=False)
def cnrtTransOrderAndCast(
    src_addr: Any, src_type: int, dst_addr: Any, dst_type: int, param: QuantizedParam | None, dim_num: int,
    dim_values: Sequence[int], dim_order: Sequence[int],
) -> None:  # fmt: skip
    """`cnrtTransDataOrder` and `cnrtCastDataType` in one."""
    dims = cnrt_convert.dimensions(dim_num, dim_values)
    cnrt_convert.convert(src_addr, src_type, dst_addr, dst_type, dims, _axes(dim_order, dims), param)


@call(init=False)
def cnrtAddDataStride(
    src_addr: Any, data_type: int, dst_addr: Any, dim_num: int, dim_values: Sequence[int], dim_stride: Sequence[int]
) -> None:
    """Copy into a tensor whose axis i is dim_stride[i] longer; the new elements are zero."""
    dims = cnrt_convert.dimensions(dim_num, dim_values)
    strides = _axes(dim_stride, dims)
    if len(strides) < len(dims):
        raise Fault(R.CNRT_RET_ERR_INVALID, f"{len(dims)} axes, strides {strides}")
    cnrt_convert.add_stride(src_addr, data_type, dst_addr, dims, strides)


def _axes(values: Sequence[int], dims: list[int]) -> list[int]:
    """What an array of C says of each axis; it may hold more."""
    return list(not_null(values, "the array of axes"))[: len(dims)]


_CONSTANTS = {name: member for kind in ENUMS for name, member in kind.__members__.items()}
_TYPES = {kind.__name__: kind for kind in ENUMS}


def __getattr__(name: str) -> Any:
    """CNRT_RET_SUCCESS, CNRT_FLOAT32, cnrtDataType_t, ...: names of this module, as in C."""
    for table in (_CONSTANTS, _TYPES):
        if name in table:
            return table[name]
    raise AttributeError(f"module 'runtime.cnrt' has no attribute {name!r}")


__all__ = [*_CONSTANTS, *_TYPES, *(n for n in globals() if n.startswith("cnrt") and not n.startswith("cnrt_"))]
