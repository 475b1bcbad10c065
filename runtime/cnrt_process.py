"""Vendor run-time, what all calls share (handles, the process and its card), errors, initialisation, devices.

See `runtime.cnrt` for how the calls are to be read.
"""
# ruff: noqa: N802

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.cnrt_device import Device, Handle
from runtime.cnrt_types import ERROR_TEXT, Fault, cnrtChannelType_t, cnrtCoreVersion_t, cnrtRet_t, integer
from runtime.session import Session
from targets.mlu220.container import DeviceFunction, IORecord, OfflineModel
from targets.mlu220.hardware import Board, load_board

log = logging.getLogger("cnrt")
R = cnrtRet_t
VERSION = (4, 10, 1)
"""The version whose calls these are."""
_FAKE = -1


# -- handles -----------------------------------------------------------------------------------------------------------
@dataclass(eq=False)
class Model(Handle):
    """`cnrtModel_t`."""

    offline: OfflineModel


@dataclass(eq=False)
class Function(Handle):
    """`cnrtFunction_t`: empty until something is extracted into it."""

    model: OfflineModel | None = None
    device: DeviceFunction | None = None

    @property
    def records(self) -> list[IORecord]:
        """Inputs, then outputs."""
        return [*self.device.inputs, *self.device.outputs] if self.device is not None else []


@dataclass(eq=False)
class RuntimeContext(Handle):
    """`cnrtRuntimeContext_t`: a function on a device; ready once it has a session."""

    function: Function
    device: int = 0
    channel: int = cnrtChannelType_t.CNRT_CHANNEL_TYPE_NONE
    session: Session | None = None
    microseconds: float = 0.0
    initialised: bool = False


@dataclass(frozen=True)
class cnrtDeviceInfo_t:  # noqa: N801
    """What `cnrtGetDeviceInfo` tells."""

    device_name: str
    core_version: cnrtCoreVersion_t
    core_num: int


class _Process:
    """What the calls of one process share: whether it is initialised, the card, host memory, what was given out."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.flags: int | None = None
        self.board: Board = load_board("m2")
        self.host: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()
        self.handles: weakref.WeakSet[Handle] = weakref.WeakSet()
        self.device = Device(self.board.dram_bytes)
        self.generation = 0

    def reset(self, flags: int | None) -> None:
        self.flags = flags
        self.device = Device(self.board.dram_bytes)
        self.host.clear()
        for handle in self.handles:
            handle.live = False
        self.handles.clear()
        self.generation += 1


class _Thread(threading.local):
    """What the vendor keeps per thread: the current device, and the last error."""

    device: int | None = None
    generation = 0
    channel = int(cnrtChannelType_t.CNRT_CHANNEL_TYPE_NONE)
    error: cnrtRet_t = R.CNRT_RET_SUCCESS


process = _Process()
thread = _Thread()


def call(outs: int = 0, init: bool = True, device: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function that raises `Fault` one that returns a status, then `outs` values. `init`, `device`: what must
    have been called before."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def called(*args: Any, **named: Any) -> Any:
            status, values = R.CNRT_RET_SUCCESS, (None,) * outs
            try:
                with process.lock:
                    _require(init, device)
                    result = function(*args, **named)
                    if isinstance(result, Handle):
                        process.handles.add(result)
                values = () if outs == 0 else (result,) if outs == 1 else result
            except Fault as fault:
                status = thread.error = fault.code
                log.error("%s: %s", function.__name__, fault)
            return (status, *values) if outs else status

        return called

    return wrap


def _require(init: bool, device: bool) -> None:
    if init and process.flags is None:
        raise Fault(R.CNRT_RET_ERR_INIT, "cnrtInit was not called")
    if device and (thread.device is None or thread.generation != process.generation):
        raise Fault(R.CNRT_RET_ERR_NODEV, "cnrtSetCurrentDevice was not called in this thread")


def live(handle: Any, kind: type[Any], what: str) -> Any:
    """The handle, when it is one of that kind and was not destroyed."""
    if handle is None:
        raise Fault(R.CNRT_RET_ERR_INVALID_POINTER, f"the {what} is NULL")
    if not isinstance(handle, kind):
        raise Fault(R.CNRT_RET_ERR_INVALID, f"{handle!r} is not a {what}")
    if not handle.live:
        raise Fault(R.CNRT_RET_ERR_INVALID, f"the {what} was destroyed")
    return handle


def extracted(function: Any) -> tuple[OfflineModel, DeviceFunction]:
    found = live(function, Function, "function")
    if found.device is None:
        raise Fault(R.CNRT_RET_ERR_NO_EXIST, "nothing was extracted into the function: call cnrtExtractFunction")
    return found.model, found.device


def destroy(handle: Any, kind: type[Any], what: str) -> None:
    live(handle, kind, what).live = False


# -- errors ------------------------------------------------------------------------------------------------------------
def cnrtGetErrorStr(err_code: int) -> str:
    """What a status code says; the code itself is returned, not a status."""
    return ERROR_TEXT.get(int(err_code), ERROR_TEXT[int(R.CNRT_RET_ERR_UNKNOWN)])


def cnrtGetLastErr() -> cnrtRet_t:
    """The status of this thread's last call that failed."""
    return thread.error


# -- initialisation and devices ----------------------------------------------------------------------------------------
@call(init=False)
def cnrtInit(flags: int = 0) -> None:
    """`status = cnrtInit(0)`; 1 for the fake device, on which models can be queried and nothing computes. Again with
    the same flags it changes nothing: every part of a program may call it."""
    if integer(flags, "flags") > 1:
        raise Fault(R.CNRT_RET_ERR_INVALID, f"flags {flags}: 0 or 1")
    if process.flags != int(flags):
        process.reset(int(flags))


def cnrtDestroy() -> None:
    """Free everything; no handle can be used any more. Calls need a new `cnrtInit` afterwards."""
    with process.lock:
        process.reset(None)


@call(outs=1)
def cnrtGetDeviceCount() -> int:
    """`status, dev_num = cnrtGetDeviceCount()`"""
    return 0 if process.flags else 1


@call(outs=1)
def cnrtGetDeviceHandle(ordinal: int) -> int:
    """`status, dev = cnrtGetDeviceHandle(0)`; -1 is the fake device."""
    if ordinal != (_FAKE if process.flags else 0):
        raise Fault(R.CNRT_RET_ERR_NODEV, f"no device {ordinal!r}")
    return int(ordinal)


@call()
def cnrtSetCurrentDevice(dev: int) -> None:
    """For this thread."""
    if dev != (_FAKE if process.flags else 0):
        raise Fault(R.CNRT_RET_ERR_NODEV, f"no device {dev!r}")
    thread.device, thread.generation = int(dev), process.generation


@call(outs=1, device=True)
def cnrtGetCurrentDevice() -> int:
    """`status, dev = cnrtGetCurrentDevice()`"""
    return int(thread.device or 0)


@call(outs=1)
def cnrtGetDeviceInfo(device_ordinal: int) -> cnrtDeviceInfo_t:
    """`status, info = cnrtGetDeviceInfo(0)`"""
    if device_ordinal != 0 or process.flags:
        raise Fault(R.CNRT_RET_ERR_NODEV, f"no device {device_ordinal!r}")
    return cnrtDeviceInfo_t("MLU220", cnrtCoreVersion_t.CNRT_MLU220, process.board.cores)


@call(device=True)
def cnrtSyncDevice() -> None:
    """Wait for all queues."""
    for queue in process.device.queues:
        process.device.finish(queue)


@call(outs=1, init=False)
def cnrtGetVersion() -> int:
    """`status, version = cnrtGetVersion()`: major * 10000 + minor * 100 + patch."""
    return VERSION[0] * 10000 + VERSION[1] * 100 + VERSION[2]


@call(device=True)
def cnrtSetCurrentChannel(channel: int) -> None:
    """The chip has one channel: accepted, without effect."""
    if channel not in list(cnrtChannelType_t):
        raise Fault(R.CNRT_RET_ERR_UNSUPPORTED, f"the chip has no channel {channel!r}")
    thread.channel = int(channel)


__all__ = [
    "cnrtDestroy",
    "cnrtDeviceInfo_t",
    "cnrtGetCurrentDevice",
    "cnrtGetDeviceCount",
    "cnrtGetDeviceHandle",
    "cnrtGetDeviceInfo",
    "cnrtGetErrorStr",
    "cnrtGetLastErr",
    "cnrtGetVersion",
    "cnrtInit",
    "cnrtSetCurrentChannel",
    "cnrtSetCurrentDevice",
    "cnrtSyncDevice",
]  # fmt: skip
