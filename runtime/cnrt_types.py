"""The numbers of the vendor's run-time: status codes, data types, orders of axes, directions, and what codes say.

Values are those of docs/mlu220.md 3.4 [C]. The names are the vendor's, so that ported code reads as it did.
"""
# ruff: noqa: N801

from __future__ import annotations

import enum
from typing import Any

import numpy as np


class cnrtRet_t(enum.IntEnum):
    """What every call returns."""

    CNRT_RET_SUCCESS = 0
    CNRT_RET_WARNING_FAKE_DEVICE = 1
    CNRT_RET_ERR_NOT_READY = 632006
    CNRT_RET_ERR_INVALID = 632007
    CNRT_RET_ERR_NOMEM = 632008
    CNRT_RET_ERR_NODEV = 632009
    CNRT_RET_ERR_IO = 632010
    CNRT_RET_ERR_BUSY = 632014
    CNRT_RET_ERR_UNSUPPORTED = 632020
    CNRT_RET_ERR_INVALID_POINTER = 632021
    CNRT_RET_ERR_NO_EXIST = 632022
    CNRT_RET_ERR_INIT = 632024
    CNRT_RET_ERR_QUEUE = 632025
    CNRT_RET_ERR_OUT_RANGE = 632026
    CNRT_RET_ERR_INVALID_TYPE = 632030
    CNRT_RET_ERR_MLU = 632032
    CNRT_RET_ERR_ONCHIP_CORE = 632033
    CNRT_RET_ERR_NOTIFIER = 632034
    CNRT_RET_ERR_MEMCPY = 632036
    CNRT_RET_ERR_KERNEL_VERSION_TOO_HIGH = 632043
    CNRT_RET_ERR_UNKNOWN = 999991


ERROR_TEXT = {
    0: "The operation was successful.",
    1: "Use fake device currently.",
    632006: "Operations issued previously have not completed yet.",
    632007: "Invalid argument.",
    632008: "Insufficient memory for the operation.",
    632009: "No such device.",
    632010: "I/O error.",
    632014: "Device or resource busy.",
    632020: "Unsupported operation.",
    632021: "Invalid pointer.",
    632022: "A resource or file does not exist.",
    632024: "Uninitialized.",
    632025: "Failure on queue.",
    632026: "Number out of range.",
    632030: "Invalid type.",
    632032: "MLU error.",
    632033: "On-chip core error.",
    632034: "Failure on notifier operation.",
    632036: "Failure on memory copy.",
    632043: "Kernel version too high, not supported.",
    999991: "Unknown error.",
}


class cnrtDataType_t(enum.IntEnum):
    """Element types."""

    CNRT_INVALID = 0x0
    CNRT_FLOAT16 = 0x12
    CNRT_FLOAT32 = 0x13
    CNRT_FLOAT64 = 0x14
    CNRT_INT4 = 0x20
    CNRT_INT8 = 0x21
    CNRT_INT16 = 0x22
    CNRT_INT32 = 0x23
    CNRT_INT64 = 0x24
    CNRT_UINT8 = 0x31
    CNRT_UINT16 = 0x32
    CNRT_UINT32 = 0x33
    CNRT_QUANT8 = 0x51
    CNRT_BOOL = 0x61


class cnrtDimOrder_t(enum.IntEnum):
    """Orders of axes, outermost first."""

    CNRT_NCHW = 0x0123
    CNRT_NHWC = 0x0231
    CNRT_HWCN = 0x2310


class cnrtCoreVersion_t(enum.IntEnum):
    """Chips."""

    CNRT_1H8 = 0
    CNRT_1H16 = 1
    CNRT_MLU100 = 3
    CNRT_1H8MINI = 4
    CNRT_MLU270 = 5
    CNRT_MLU220 = 6
    CNRT_MLU290 = 7


class cnrtFunctionType_t(enum.IntEnum):
    """Cores a kernel takes."""

    CNRT_FUNC_TYPE_BLOCK = 1
    CNRT_FUNC_TYPE_UNION1 = 4
    CNRT_FUNC_TYPE_UNION2 = 8
    CNRT_FUNC_TYPE_UNION4 = 16


class cnrtMemTransDir_t(enum.IntEnum):
    """Directions of a copy."""

    CNRT_MEM_TRANS_DIR_HOST2DEV = 0
    CNRT_MEM_TRANS_DIR_DEV2DEV = 1
    CNRT_MEM_TRANS_DIR_DEV2HOST = 2
    CNRT_MEM_TRANS_DIR_HOST2HOST = 3


class cnrtMemType_t(enum.IntEnum):
    """Kinds of host memory."""

    CNRT_MEMTYPE_DEFAULT = 0
    CNRT_MEMTYPE_LOCKED = 1


class cnrtChannelType_t(enum.IntEnum):
    """Channels of device memory. The chip has one."""

    CNRT_CHANNEL_TYPE_DUPLICATE = -2
    CNRT_CHANNEL_TYPE_NONE = -1
    CNRT_CHANNEL_TYPE_0 = 0


class cnrtRuntimeContextInfo_t(enum.IntEnum):
    """What `cnrtGetRuntimeContextInfo` can tell."""

    CNRT_RT_CTX_FUNCTION = 1
    CNRT_RT_CTX_DEV_ORDINAL = 2
    CNRT_RT_CTX_CORE_NUMBER = 3
    CNRT_RT_CTX_MODEL_PARALLEL = 4
    CNRT_RT_CTX_CHANNEL = 5


ENUMS: tuple[type[enum.IntEnum], ...] = (
    cnrtRet_t, cnrtDataType_t, cnrtDimOrder_t, cnrtCoreVersion_t, cnrtFunctionType_t, cnrtMemTransDir_t,
    cnrtMemType_t, cnrtChannelType_t, cnrtRuntimeContextInfo_t,
)  # fmt: skip

NUMPY = {
    "CNRT_FLOAT16": "<f2", "CNRT_FLOAT32": "<f4", "CNRT_FLOAT64": "<f8", "CNRT_INT8": "|i1", "CNRT_INT16": "<i2",
    "CNRT_INT32": "<i4", "CNRT_INT64": "<i8", "CNRT_UINT8": "|u1", "CNRT_UINT16": "<u2", "CNRT_UINT32": "<u4",
    "CNRT_QUANT8": "|i1", "CNRT_BOOL": "|b1",
}  # fmt: skip


class Fault(Exception):
    """A call that fails: its status code, and for the log why."""

    def __init__(self, code: cnrtRet_t, reason: str):
        super().__init__(reason)
        self.code = code


def numpy_type(data_type: int) -> np.dtype:
    """The NumPy type of a data type. INVALID_TYPE when the host has none (INT4, or no data type at all)."""
    try:
        return np.dtype(NUMPY[cnrtDataType_t(data_type).name])
    except (ValueError, KeyError):
        raise Fault(cnrtRet_t.CNRT_RET_ERR_INVALID_TYPE, f"no host type for data type {data_type!r}") from None


def not_null(value: Any, what: str) -> Any:
    """The value; INVALID_POINTER for None, which is C's NULL."""
    if value is None:
        raise Fault(cnrtRet_t.CNRT_RET_ERR_INVALID_POINTER, f"{what} is NULL")
    return value


def integer(value: object, what: str, low: int = 0) -> int:
    """A whole number of at least `low`; INVALID otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or int(value) < low:
        raise Fault(cnrtRet_t.CNRT_RET_ERR_INVALID, f"{what} must be a whole number of at least {low}, not {value!r}")
    return int(value)


def _buffer(buffer: object, what: str) -> memoryview:
    try:
        return memoryview(buffer)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise Fault(cnrtRet_t.CNRT_RET_ERR_INVALID_POINTER, f"{what} is {buffer!r}, not host memory") from None


def host_bytes(buffer: object, what: str) -> bytes:
    """All of host memory, copied; faults as of `host_array`."""
    return host_array(buffer, np.dtype(np.uint8), _buffer(buffer, what).nbytes, what).tobytes()


def host_array(buffer: object, dtype: np.dtype, count: int, what: str, write: bool = False) -> np.ndarray:
    """The first `count` elements of host memory (an array, bytes, anything with a buffer) as `dtype`, without a copy.

    INVALID_POINTER when it is not contiguous memory, or not writable where it must be; OUT_RANGE when too small.
    """
    view = _buffer(buffer, what)
    if not view.c_contiguous or (write and view.readonly):
        state = "contiguous" if not view.c_contiguous else "writable"
        raise Fault(cnrtRet_t.CNRT_RET_ERR_INVALID_POINTER, f"{what} is not {state} memory")
    if view.nbytes < count * dtype.itemsize:
        text = f"{what} has {view.nbytes} bytes, {count * dtype.itemsize} are needed"
        raise Fault(cnrtRet_t.CNRT_RET_ERR_OUT_RANGE, text)
    return np.frombuffer(view.cast("B") if view.nbytes else b"", dtype, count)


__all__ = ["ENUMS", "ERROR_TEXT", "NUMPY", "Fault", "host_array", "host_bytes", "integer", "not_null", "numpy_type"]
