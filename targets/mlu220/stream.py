"""The instruction stream of one core, and the signals and waits that keep its three queues in step.

Emission writes instructions in an order that is right when executed one after the other, naming the on-chip slots each
one reads and writes. The stream then orders the queues: before an instruction whose slots conflict with an earlier one
in another queue it puts a wait, unless that order already follows from earlier waits (vector clocks); after the awaited
instruction, a signal. Slots never partly overlap within a kernel, and a barrier separates kernels, so nothing else has
to be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from targets.mlu220 import isa

Clock = tuple[int, int, int]


@dataclass
class _Slot:
    """Who last wrote a slot and who has read it since: (queue, sequence number) pairs."""

    writer: tuple[int, int] | None = None
    readers: dict[int, int] = field(default_factory=dict)


@dataclass
class _Entry:
    words: list[int]
    queue: int
    waits: list[tuple[int, int]]
    signalled: bool
    clock: Clock
    tag: int


class Stream:
    """Instructions of one core, in emission order, from barrier to barrier."""

    def __init__(self, core: int) -> None:
        self.core = core
        self.rows: list[list[int]] = []
        self.tags: list[int] = []
        self.tag = -1
        """Whatever the emitter wants remembered with the next instructions: an index of the debug table."""
        self._signals = [0, 0, 0]
        self._begin()

    def _begin(self) -> None:
        self._entries: list[_Entry] = []
        self._by_queue: tuple[list[int], list[int], list[int]] = ([], [], [])
        self._known: list[list[int]] = [[-1] * 3 for _ in range(3)]
        self._slots: dict[int, _Slot] = {}

    def add(self, instruction: isa.Instruction, writes: Sequence[int], reads: Sequence[int]) -> None:
        """Append an instruction; `writes` and `reads` are slot numbers, negative ones mean memory off the chip."""
        queue = int(instruction.unit)
        sequence = len(self._by_queue[queue])
        needed: dict[int, int] = {}
        for slot in reads:
            if slot >= 0:
                self._need(needed, queue, self._slots.setdefault(slot, _Slot()).writer)
        for slot in writes:
            if slot >= 0:
                state = self._slots.setdefault(slot, _Slot())
                self._need(needed, queue, state.writer)
                for reader in state.readers.items():
                    self._need(needed, queue, reader)
        waits = []
        known = self._known[queue]
        awaited = {other: self._entries[self._by_queue[other][number]] for other, number in needed.items()}
        for other, number in sorted(needed.items()):
            implied = any(entry.clock[other] >= number for q, entry in awaited.items() if q != other)
            if number > known[other] and not implied:
                awaited[other].signalled = True
                waits.append((other, number))
        for other, _ in waits:
            for q in range(3):
                known[q] = max(known[q], awaited[other].clock[q])
        known[queue] = sequence
        self._by_queue[queue].append(len(self._entries))
        self._entries.append(_Entry(instruction.words, queue, waits, False, tuple(known), self.tag))  # type: ignore[arg-type]
        for slot in reads:
            if slot >= 0:
                self._slots[slot].readers[queue] = sequence
        for slot in writes:
            if slot >= 0:
                self._slots[slot] = _Slot((queue, sequence))

    @staticmethod
    def _need(needed: dict[int, int], queue: int, access: tuple[int, int] | None) -> None:
        if access is not None and access[0] != queue:
            needed[access[0]] = max(needed.get(access[0], -1), access[1])

    def barrier(self, mask: int) -> None:
        """End a phase: all queues of all cores in `mask` meet."""
        self._flush()
        self._row(isa.Barrier(mask=mask), -1)

    def finish(self) -> np.ndarray:
        """The program, int32 [n, 32]."""
        self._flush()
        return np.array(self.rows, "<i4").reshape(-1, isa.ROW_WORDS)

    def _flush(self) -> None:
        """Turn the phase's entries into rows, with counter values: the nth signal of a queue brings its counter to
        n."""
        ordinal: dict[tuple[int, int], int] = {}
        counts = list(self._signals)
        for queue in range(3):
            for number, index in enumerate(self._by_queue[queue]):
                if self._entries[index].signalled:
                    counts[queue] += 1
                    ordinal[queue, number] = counts[queue]
        for entry in self._entries:
            for other, number in entry.waits:
                wait = isa.Wait(queue=entry.queue, counter=self._counter(other), value=ordinal[other, number])
                self._row(wait, entry.tag)
            self.rows.append(entry.words)
            self.tags.append(entry.tag)
            if entry.signalled:
                self._row(isa.Signal(queue=entry.queue, counter=self._counter(entry.queue)), entry.tag)
        self._signals = counts
        self._begin()

    def _counter(self, queue: int) -> int:
        return self.core * isa.QUEUES + queue

    def _row(self, instruction: isa.Instruction, tag: int) -> None:
        self.rows.append(instruction.words)
        self.tags.append(tag)

    def runs(self) -> list[tuple[int, int, int]]:
        """(first, last, tag) of maximal runs of rows with one tag, untagged rows left out."""
        found: list[tuple[int, int, int]] = []
        for index, tag in enumerate(self.tags):
            if tag < 0:
                continue
            if found and found[-1][2] == tag and found[-1][1] == index - 1:
                found[-1] = (found[-1][0], index, tag)
            else:
                found.append((index, index, tag))
        return found
