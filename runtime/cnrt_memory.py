"""Vendor run-time, queues, notifiers and memory.

See `runtime.cnrt` for how the calls are to be read.
"""
# ruff: noqa: N802, N816

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.cnrt_device import Notifier, Queue, Task
from runtime.cnrt_process import R, call, destroy, live, log, process
from runtime.cnrt_types import (
    Fault,
    cnrtChannelType_t,
    cnrtMemTransDir_t,
    cnrtMemType_t,
    host_array,
    integer,
    not_null,
)


# -- queues and notifiers ----------------------------------------------------------------------------------------------
@call(outs=1, device=True)
def cnrtCreateQueue() -> Queue:
    """`status, queue = cnrtCreateQueue()`"""
    return process.device.create_queue()


@call()
def cnrtDestroyQueue(queue: Queue) -> None:
    """What still waits in it is done first."""
    process.device.finish(live(queue, Queue, "queue"))
    queue.live = False
    if queue in process.device.queues:
        process.device.queues.remove(queue)


@call()
def cnrtSyncQueue(queue: Queue) -> None:
    """Do everything that was put into the queue."""
    process.device.finish(live(queue, Queue, "queue"))


@call()
def cnrtQueryQueue(queue: Queue) -> None:
    """NOT_READY while there is work; every such answer does one piece of it, so polling ends."""
    if live(queue, Queue, "queue").tasks:
        process.device.step(queue)
        raise Fault(R.CNRT_RET_ERR_NOT_READY, "work waits in the queue")


@call(outs=1, device=True)
def cnrtCreateNotifier() -> Notifier:
    """`status, notifier = cnrtCreateNotifier()`"""
    return Notifier()


@call()
def cnrtDestroyNotifier(notifier: Notifier) -> None:
    destroy(notifier, Notifier, "notifier")


@call()
def cnrtPlaceNotifier(notifier: Notifier, queue: Queue) -> None:
    """The notifier takes the time when the queue comes by."""
    live(notifier, Notifier, "notifier")
    notifier.placed = process.device.submit(Task(live(queue, Queue, "queue")))


@call()
def cnrtWaitNotifier(notifier: Notifier) -> None:
    """Do what stands before the notifier in its queue. NOTIFIER: it was never placed."""
    placed = live(notifier, Notifier, "notifier").placed
    if placed is None:
        raise Fault(R.CNRT_RET_ERR_NOTIFIER, "the notifier was never placed: call cnrtPlaceNotifier")
    process.device.run_until(placed)


@call()
def cnrtQueryNotifier(notifier: Notifier) -> None:
    """BUSY while work stands before it; every such answer does one piece of it, so polling ends."""
    pending = live(notifier, Notifier, "notifier").pending
    if pending is not None:
        process.device.step(pending.queue)
        raise Fault(R.CNRT_RET_ERR_BUSY, "work stands before the notifier")


@call()
def cnrtQueueWaitNotifier(notifier: Notifier, queue: Queue, flag: int = 0) -> None:
    """What is put into the queue from now on waits for the notifier, which stands in another queue."""
    placed = live(notifier, Notifier, "notifier").placed

    def work(queue: Queue) -> None:
        if placed is not None:
            process.device.run_until(placed)
            queue.clock = max(queue.clock, placed.ended or 0.0)

    process.device.submit(Task(live(queue, Queue, "queue"), work))


@call(outs=1)
def cnrtNotifierDuration(start: Notifier, end: Notifier) -> float:
    """`status, us = cnrtNotifierDuration(start, end)`: modelled microseconds. NOT_READY: wait for the queue first."""
    first, second = live(start, Notifier, "notifier").time, live(end, Notifier, "notifier").time
    if first is None or second is None:
        raise Fault(R.CNRT_RET_ERR_NOT_READY, "a notifier has no time yet: call cnrtSyncQueue")
    return second - first


# -- memory ------------------------------------------------------------------------------------------------------------
@call(outs=1, device=True)
def cnrtMalloc(size: int) -> int:
    """`status, pointer = cnrtMalloc(bytes)`: device memory, zeroed. NOMEM: the board has less left."""
    return process.device.memory.allocate(integer(size, "the number of bytes", low=1))


cnrtMallocFrameBuffer = cnrtMalloc


@call(device=True)
def cnrtFree(ptr: int) -> None:
    """BUSY: work in a queue still needs it. Freeing 0 (NULL) does nothing."""
    if ptr == 0:
        return
    if process.device.pending(ptr):
        raise Fault(R.CNRT_RET_ERR_BUSY, "work in a queue needs this memory: call cnrtSyncQueue")
    process.device.memory.free(ptr)


@call(device=True)
def cnrtFreeArray(ptr: Sequence[int], length: int) -> None:
    """Free the first `length` of several pointers; stops at the first that fails."""
    for pointer in list(not_null(ptr, "the array"))[: integer(length, "the length")]:
        if (status := cnrtFree(pointer)) != R.CNRT_RET_SUCCESS:
            raise Fault(status, f"{pointer!r} was not freed")


@call(outs=1)
def cnrtMallocHost(size: int, type: int = cnrtMemType_t.CNRT_MEMTYPE_DEFAULT) -> np.ndarray:
    """`status, memory = cnrtMallocHost(bytes, type)`: a uint8 array."""
    memory = np.zeros(integer(size, "the number of bytes", low=1), np.uint8)
    process.host[id(memory)] = memory
    return memory


@call()
def cnrtFreeHost(ptr: np.ndarray) -> None:
    if process.host.pop(id(ptr), None) is None:
        raise Fault(R.CNRT_RET_ERR_INVALID_POINTER, "not memory of cnrtMallocHost, or freed before")


@call(device=True)
def cnrtMemset(ptr: int, c: int, size: int) -> None:
    """Fill device memory with a byte."""
    byte = integer(c, "the byte", low=-(1 << 31)) & 0xFF
    process.device.memory.view(ptr, integer(size, "the number of bytes"), "memset")[:] = byte


@call(device=True)
def cnrtMemcpy(dst: Any, src: Any, size: int, dir: int) -> None:
    """Copy now. Device sides are pointers, host sides memory. Work waiting in queues is not waited for: a warning is
    logged when some of it still has to write what is read here."""
    target, source = _sides(dst, src, integer(size, "the number of bytes"), dir)
    reads_device = dir != cnrtMemTransDir_t.CNRT_MEM_TRANS_DIR_HOST2DEV
    if reads_device and process.device.pending_writes(process.device.memory.block(src)[0]):
        log.warning("cnrtMemcpy reads memory that work in a queue has yet to write: call cnrtSyncQueue first")
    target[:] = source.copy()


@call(device=True)
def cnrtMemcpyAsync(dest: Any, src: Any, size: int, queue: Queue, dir: int) -> None:
    """Copy when the queue comes to it."""
    live(queue, Queue, "queue")
    target, source = _sides(dest, src, integer(size, "the number of bytes"), dir)
    way, block = cnrtMemTransDir_t, process.device.memory.block
    reads = [block(src)[0]] if dir != way.CNRT_MEM_TRANS_DIR_HOST2DEV else []
    writes = [block(dest)[0]] if dir != way.CNRT_MEM_TRANS_DIR_DEV2HOST else []

    def work(queue: Queue) -> None:
        target[:] = source.copy()

    time = 1e6 * int(size) / process.board.host_bytes_per_second
    process.device.submit(Task(queue, work, time, frozenset(reads), frozenset(writes)))


def _sides(dst: Any, src: Any, size: int, direction: int) -> tuple[np.ndarray, np.ndarray]:
    """Destination and source of a copy as bytes."""
    memory, byte, way = process.device.memory, np.dtype(np.uint8), cnrtMemTransDir_t
    if direction == way.CNRT_MEM_TRANS_DIR_HOST2DEV:
        return memory.view(dst, size, "the destination"), host_array(src, byte, size, "the source")
    if direction == way.CNRT_MEM_TRANS_DIR_DEV2HOST:
        return host_array(dst, byte, size, "the destination", write=True), memory.view(src, size, "the source")
    if direction == way.CNRT_MEM_TRANS_DIR_DEV2DEV:
        return memory.view(dst, size, "the destination"), memory.view(src, size, "the source")
    raise Fault(R.CNRT_RET_ERR_UNSUPPORTED, f"no copies in direction {direction!r}")


@call(outs=2, device=True)
def cnrtGetMemInfo(channel: int = cnrtChannelType_t.CNRT_CHANNEL_TYPE_0) -> tuple[int, int]:
    """`status, free, total = cnrtGetMemInfo(channel)` in bytes."""
    memory = process.device.memory
    return memory.capacity - memory.used, memory.capacity


__all__ = [
    "cnrtCreateNotifier",
    "cnrtCreateQueue",
    "cnrtDestroyNotifier",
    "cnrtDestroyQueue",
    "cnrtFree",
    "cnrtFreeArray",
    "cnrtFreeHost",
    "cnrtGetMemInfo",
    "cnrtMalloc",
    "cnrtMallocFrameBuffer",
    "cnrtMallocHost",
    "cnrtMemcpy",
    "cnrtMemcpyAsync",
    "cnrtMemset",
    "cnrtNotifierDuration",
    "cnrtPlaceNotifier",
    "cnrtQueryNotifier",
    "cnrtQueryQueue",
    "cnrtQueueWaitNotifier",
    "cnrtSyncQueue",
    "cnrtWaitNotifier",
]  # fmt: skip
