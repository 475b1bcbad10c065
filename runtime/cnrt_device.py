"""The simulated card behind the vendor's run-time: memory with addresses, queues that run when they are waited for.

Device memory is a set of allocations in one address space whose addresses are never given out twice, so that a pointer
that was freed is always found out. Queues are lazy: work is done, in order, when somebody waits for it; a host program
that forgets to wait reads what was there before, every time. Time is that of the analytical model.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from runtime.cnrt_types import Fault, cnrtRet_t

ALIGNMENT = 256
BASE = 0x8_0000_0000
"""The first address: far from small numbers, so that a size given as a pointer is no pointer."""


class DeviceMemory:
    """Allocations by address. A pointer into the middle of one is a pointer, as in C."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.used = 0
        self._next = BASE
        self._starts: list[int] = []
        self._blocks: dict[int, np.ndarray] = {}

    def allocate(self, size: int) -> int:
        """The address of `size` zeroed bytes. NOMEM when the board has fewer left."""
        if size > self.capacity - self.used:
            text = f"{size} bytes of {self.capacity - self.used} that are left"
            raise Fault(cnrtRet_t.CNRT_RET_ERR_NOMEM, text)
        address = self._next
        self._next += -(-(size + 1) // ALIGNMENT) * ALIGNMENT
        self._starts.append(address)
        self._blocks[address] = np.zeros(size, np.uint8)
        self.used += size
        return address

    def free(self, address: int) -> None:
        """INVALID_POINTER: not the start of a live allocation."""
        if address not in self._blocks:
            raise Fault(cnrtRet_t.CNRT_RET_ERR_INVALID_POINTER, f"{_text(address)} is not allocated")
        self.used -= self._blocks.pop(address).size
        self._starts.remove(address)

    def block(self, address: object) -> tuple[int, np.ndarray]:
        """(start, bytes) of the allocation that an address lies in. INVALID_POINTER when it lies in none."""
        if isinstance(address, int | np.integer) and not isinstance(address, bool):
            at = bisect.bisect_right(self._starts, int(address)) - 1
            if at >= 0 and address - self._starts[at] <= self._blocks[self._starts[at]].size:
                return self._starts[at], self._blocks[self._starts[at]]
        raise Fault(cnrtRet_t.CNRT_RET_ERR_INVALID_POINTER, f"{_text(address)} is not device memory, or was freed")

    def view(self, address: int, size: int, what: str) -> np.ndarray:
        """`size` bytes from an address. MEMCPY when they reach beyond the allocation."""
        start, data = self.block(address)
        offset = int(address) - start
        if size > data.size - offset:
            text = f"{what}: {size} bytes at {_text(address)}, {data.size - offset} are allocated"
            raise Fault(cnrtRet_t.CNRT_RET_ERR_MEMCPY, text)
        return data[offset : offset + size]


def _text(address: object) -> str:
    return hex(int(address)) if isinstance(address, int | np.integer) else repr(address)


@dataclass(eq=False, kw_only=True)
class Handle:
    """What the run-time gives out: live until it is destroyed, or the run-time is."""

    live: bool = True


@dataclass(eq=False)
class Queue(Handle):
    """`cnrtQueue_t`: tasks that wait, and the time at which the last one done ended."""

    clock: float = 0.0
    tasks: list[Task] = field(default_factory=list)


@dataclass(eq=False)
class Task:
    """Work in a queue: what it does, the modelled time it takes, the allocations it touches (start addresses), and
    the time at which it was done, None before."""

    queue: Queue
    work: Callable[[Queue], None] | None = None
    microseconds: float = 0.0
    reads: frozenset[int] = frozenset()
    writes: frozenset[int] = frozenset()
    ended: float | None = None


@dataclass(eq=False)
class Notifier(Handle):
    """`cnrtNotifier_t`: where it was placed last."""

    placed: Task | None = None

    @property
    def time(self) -> float | None:
        """When its queue came by."""
        return self.placed.ended if self.placed is not None else None

    @property
    def pending(self) -> Task | None:
        """Its place in a queue that has not come by yet."""
        return self.placed if self.time is None else None


class Device:
    """Memory, and queues that share the one cluster of cores: two queues never compute at the same time."""

    def __init__(self, capacity: int):
        self.memory = DeviceMemory(capacity)
        self.queues: list[Queue] = []
        self.free_at = 0.0

    def create_queue(self) -> Queue:
        queue = Queue()
        self.queues.append(queue)
        return queue

    def submit(self, task: Task) -> Task:
        task.queue.tasks.append(task)
        return task

    def step(self, queue: Queue) -> None:
        """Do the oldest task of a queue."""
        task = queue.tasks.pop(0)
        if task.microseconds:
            queue.clock = max(queue.clock, self.free_at) + task.microseconds
            self.free_at = queue.clock
        if task.work is not None:
            task.work(queue)
        task.ended = queue.clock

    def finish(self, queue: Queue) -> None:
        while queue.tasks:
            self.step(queue)

    def run_until(self, task: Task) -> None:
        """Do everything in a task's queue up to it."""
        while task in task.queue.tasks:
            self.step(task.queue)

    def pending(self, start: int) -> bool:
        """Whether some task that was not done yet touches the allocation."""
        return any(start in t.reads | t.writes for queue in self.queues for t in queue.tasks)

    def pending_writes(self, start: int) -> bool:
        return any(start in t.writes for queue in self.queues for t in queue.tasks)


__all__ = ["Device", "DeviceMemory", "Handle", "Notifier", "Queue", "Task"]
