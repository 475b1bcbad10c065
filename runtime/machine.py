"""Memory and host threads of the simulator: one arena for all memories of a device, and a pool that runs plans on it.

The arena is one buffer; every memory (NRAM and WRAM of each core, SRAM, constants, workspace, inputs and outputs) is a
region of it, so that kernels address all of them alike and an elided copy is only another offset. A plan is what
`translate` makes of a device function. Nothing here knows instructions.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

ALIGNMENT = 256
SLACK = 65536
"""Readable bytes before the first and after the last region: kernels may read past the end of a run."""


WORTH_WAKING = 2e-4
"""Seconds of work below which a plan runs on the calling thread alone: waking a thread takes about 5e-5."""


@dataclass
class Plan:
    """Descriptors in serial order, int64 [n, 48]; `phases` int64 [m, 4] for many threads; bytes of scratch a thread
    needs. `keep` holds the tables whose addresses stand in descriptors. `regions`: (offset, bytes) in the arena."""

    descriptors: np.ndarray
    phases: np.ndarray
    scratch: int
    keep: list[np.ndarray]
    inputs: list[tuple[int, int]]
    outputs: list[tuple[int, int]]
    kernels: list[str] = field(default_factory=list)
    seconds: float = 1.0
    """About how long one thread takes; short plans are not worth waking others."""
    statistics: dict[str, int] = field(default_factory=dict)


class Regions:
    """Hands out disjoint ranges of the arena."""

    def __init__(self) -> None:
        self.end = SLACK

    def take(self, size: int) -> int:
        offset = self.end
        self.end += -(-size // ALIGNMENT) * ALIGNMENT
        return offset


class Arena:
    """The memory of one session."""

    def __init__(self, size: int):
        self._buffer = np.zeros(size + SLACK + ALIGNMENT, np.uint8)
        start = -self._buffer.ctypes.data % ALIGNMENT
        self.bytes = self._buffer[start:]
        self.address = self.bytes.ctypes.data

    def view(self, region: tuple[int, int]) -> np.ndarray:
        offset, size = region
        return self.bytes[offset : offset + size]


def default_threads() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Executor:
    """Runs plans on an arena with a number of host threads. The bytes do not depend on that number."""

    def __init__(self, arena: Arena, plans: Sequence[Plan], threads: int):
        from runtime.kernels import interpreter

        self._interpreter = interpreter
        self._arena = arena
        self.threads = max(1, threads)
        self._scratch_bytes = -(-max([plan.scratch for plan in plans], default=0) // 4096) * 4096 + 4096
        self._scratch = np.zeros(self._scratch_bytes * self.threads + 64, np.uint8)
        self._scratch_address = self._scratch.ctypes.data + -self._scratch.ctypes.data % 64

    def run(self, plan: Plan) -> None:
        if self.threads == 1 or plan.seconds < WORTH_WAKING or not len(plan.phases):
            self._run_alone(plan)
            return
        pool = shared_pool(self.threads)
        if not pool.lock.acquire(blocking=False):  # another session computes: do not wait for its threads
            self._run_alone(plan)
            return
        try:
            pool.run(plan, self._arena.address, self._scratch_address, self._scratch_bytes)
        finally:
            pool.lock.release()

    def _run_alone(self, plan: Plan) -> None:
        self._interpreter.execute(
            self._arena.address, plan.descriptors.ctypes.data, len(plan.descriptors), self._scratch_address
        )


# -- threads -----------------------------------------------------------------------------------------------------------
def _yield_address() -> int:
    """Address of a C function that offers the processor to another thread, or 0."""
    try:
        if os.name == "nt":
            library = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined]
            return ctypes.cast(library.SwitchToThread, ctypes.c_void_p).value or 0
        return ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0
    except (OSError, AttributeError):  # a platform without it: threads then only spin
        return 0


class Pool:
    """Persistent threads that help with one run at a time. After a run they look out for the next one for a moment,
    then sleep on a semaphore."""

    def __init__(self, threads: int):
        from runtime.kernels import interpreter

        self._interpreter = interpreter
        self.lock = threading.Lock()
        self._control = np.zeros(interpreter.CONTROL_WORDS + threads + 16, np.int64)
        address = self._control.ctypes.data
        self._first = (-address % 128) // 8
        self._address = address + 8 * self._first
        self._control[self._first + interpreter.YIELD] = _yield_address()
        self._control[self._first + interpreter.WORKERS] = threads
        self._control[self._first + interpreter.ASLEEP + 1 :][: threads - 1] = 1
        self._counters = np.zeros(0, np.int64)
        self._wake = threading.Semaphore(0)
        self._stop = False
        self._threads = [
            threading.Thread(target=self._work, args=(k,), name=f"simulator-{k}", daemon=True)
            for k in range(1, threads)
        ]
        for function in (interpreter.run_worker, interpreter.run_main, interpreter.open_run):
            function.prepare()  # compiled before the threads start
        for thread in self._threads:
            thread.start()

    def run(self, plan: Plan, arena: int, scratch: int, scratch_bytes: int) -> None:
        """Execute a plan with the calling thread and the pool's; the caller holds `lock`."""
        module = self._interpreter
        words = len(plan.phases) * module.COUNTER_WORDS
        if len(self._counters) < words + 16:
            self._counters = np.zeros(words + 16, np.int64)
        control = self._control[self._first :]
        counters = self._counters.ctypes.data
        for name, value in (
            (module.ARENA, arena), (module.DESCRIPTORS, plan.descriptors.ctypes.data),
            (module.PHASES, plan.phases.ctypes.data), (module.PHASE_COUNT, len(plan.phases)),
            (module.COUNTERS, counters + -counters % 128), (module.SCRATCH, scratch),
            (module.SCRATCH_BYTES, scratch_bytes),
        ):  # fmt: skip
            control[name] = value
        try:
            module.open_run(self._address, int(control[module.GENERATION]) + 1)
            woken = int(control[module.WOKEN])
            if woken:
                self._wake.release(woken)
        finally:  # interrupted from the keyboard or not: workers must have left before another run is written
            if control[module.GENERATION] % 2:
                module.run_main(self._address)

    def _work(self, index: int) -> None:
        while True:
            self._wake.acquire()
            if self._stop:
                return
            self._interpreter.run_worker(self._address, index)

    def close(self) -> None:
        """End the threads (tests); the pool cannot run afterwards."""
        self._stop = True
        if self._threads:
            self._wake.release(len(self._threads))
        for thread in self._threads:
            thread.join()


_POOLS: dict[int, Pool] = {}
_POOLS_LOCK = threading.Lock()


def shared_pool(threads: int) -> Pool:
    """The process's pool of that many threads, the caller's included."""
    with _POOLS_LOCK:
        if threads not in _POOLS:
            _POOLS[threads] = Pool(threads)
        return _POOLS[threads]


def _forget_pools() -> None:
    """A forked child has none of its parent's threads, and maybe a lock that nobody will release."""
    global _POOLS_LOCK
    _POOLS.clear()
    _POOLS_LOCK = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)

__all__ = ["Arena", "Executor", "Plan", "Pool", "Regions", "default_threads", "shared_pool"]
