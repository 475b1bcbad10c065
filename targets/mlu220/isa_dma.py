"""Instructions of the DMA queue, and those that order queues and cores."""

from __future__ import annotations

import numpy as np

from targets.mlu220.filters import filter_bytes
from targets.mlu220.isa_fields import (
    CONSTANTS,
    COUNTERS,
    MEMORY_CORE,
    NRAM,
    WRAM,
    Accesses,
    Columns,
    Instruction,
    Rule,
    Unit,
    access,
    bits,
    choice,
    disjoint,
    far,
    integer,
    is_input,
    near,
    no_self_overlap,
    number,
)  # fmt: skip
from targets.mlu220.isa_rules import APART, BYTE_LIMIT, OVERLAPS_ITSELF, aligned, extent, pitch, stride
from targets.mlu220.isa_types import TYPE_SIZES, FilterOrder, Integer, Queue, Runs


class Copy(Instruction, opcode=0x10, unit=Unit.DMA):
    """Copy n0*n1*n2 runs of bytes between two memories (`__memcpy_async`, strided and 3-D forms). Constants and
    inputs are read-only, WRAM to WRAM does not exist, and WRAM takes one dense run only (docs/mlu220.md 1.6 [C])."""

    dst = far()
    src = far()
    run = number(high=BYTE_LIMIT, doc="bytes of one run")
    n0 = number(default=1)
    n1 = number(default=1)
    n2 = number(default=1)
    dst_stride0 = stride()
    dst_stride1 = stride()
    dst_stride2 = stride()
    src_stride0 = stride()
    src_stride1 = stride()
    src_stride2 = stride()

    rules = (
        Rule("writes to {dst}, which is read-only", lambda c: ~(is_input(c.dst_space) | (c.dst_space == CONSTANTS))),
        Rule("no copy from WRAM to WRAM", lambda c: (c.dst_space != WRAM) | (c.src_space != WRAM)),
        Rule(
            "a copy to or from WRAM is one dense run (n0 = n1 = n2 = 1)",
            lambda c: ((c.dst_space != WRAM) & (c.src_space != WRAM)) | ((c.n0 == 1) & (c.n1 == 1) & (c.n2 == 1)),
        ),
        OVERLAPS_ITSELF(lambda c: no_self_overlap(Copy.destination(c, merge=False))),
        APART(lambda c: disjoint(*Copy.accesses(c))),
    )

    @staticmethod
    def destination(c: Columns, merge: bool = True) -> Accesses:
        loops = [(c.n0, c.dst_stride0), (c.n1, c.dst_stride1), (c.n2, c.dst_stride2)]
        return access(c, c.dst_space, c.dst, c.run, loops, write=True, merge=merge)

    @classmethod
    def accesses(cls, c: Columns) -> list[Accesses]:
        loops = [(c.n0, c.src_stride0), (c.n1, c.src_stride1), (c.n2, c.src_stride2)]
        return [access(c, c.src_space, c.src, c.run, loops), cls.destination(c)]

    @classmethod
    def work(cls, c: Columns) -> np.ndarray:
        return c.run.astype(float) * c.n0 * c.n1 * c.n2


class Fill(Instruction, opcode=0x11, unit=Unit.DMA):
    """Fill n0*n1*n2 runs of NRAM with one element (`__nramset`, `__bang_write_zero`); `value` holds the element's
    bits."""

    dst = near(NRAM)
    element_size = number(high=4)
    value = bits(low=-(2**31), default=0)
    run = number(doc="bytes of one run")
    n0 = number(default=1)
    n1 = number(default=1)
    n2 = number(default=1)
    dst_stride0 = pitch(0)
    dst_stride1 = pitch(0)
    dst_stride2 = pitch(0)

    rules = (
        Rule("element_size is 1, 2 or 4, not {element_size}", lambda c: c.element_size != 3),
        Rule(
            "value {value:#x} does not fit {element_size} bytes (unsigned)",
            lambda c: (c.element_size == 4) | ((c.value >= 0) & (c.value < (1 << (8 * np.minimum(c.element_size, 4))))),
        ),
        Rule(
            "dst, run and strides must be multiples of element_size {element_size}",
            lambda c: aligned(c.element_size, c.dst, c.run, c.dst_stride0, c.dst_stride1, c.dst_stride2),
        ),
        OVERLAPS_ITSELF(lambda c: no_self_overlap(Fill.accesses(c, merge=False)[0])),
    )

    @classmethod
    def accesses(cls, c: Columns, merge: bool = True) -> list[Accesses]:
        loops = [(c.n0, c.dst_stride0), (c.n1, c.dst_stride1), (c.n2, c.dst_stride2)]
        return [access(c, NRAM, c.dst, c.run, loops, write=True, merge=merge)]

    @classmethod
    def work(cls, c: Columns) -> np.ndarray:
        return c.run.astype(float) * c.n0 * c.n1 * c.n2


class ReshapeFilter(Instruction, opcode=0x12, unit=Unit.DMA):
    """Bring filters of one tap from NRAM to WRAM in the matrix unit's layout (`__bang_reshape_filter` and the copy
    after it): one operand of a product of two activations. order CHANNELS: src[co][ci], K: src[ci][co]; rows lie
    src_pitch bytes apart. Padding (see `filters.py`) is written with zeros."""

    dst = near(WRAM)
    src = near(NRAM)
    co = extent()
    ci = extent()
    src_pitch = pitch()
    filter_type = choice(Integer)
    order = choice(FilterOrder, FilterOrder.CHANNELS)

    rules = (
        Rule("dst must be 64-byte aligned, as filters are", lambda c: aligned(64, c.dst)),
        Rule(
            "src and src_pitch must be multiples of the element size",
            lambda c: aligned(TYPE_SIZES[c.filter_type], c.src, c.src_pitch),
        ),
    )

    @classmethod
    def accesses(cls, c: Columns) -> list[Accesses]:
        by_channel = c.order == FilterOrder.CHANNELS
        count, length = np.where(by_channel, c.co, c.ci), np.where(by_channel, c.ci, c.co)
        return [
            access(c, NRAM, c.src, length * TYPE_SIZES[c.filter_type], [(count, c.src_pitch)]),
            access(c, WRAM, c.dst, cls.size(c), write=True),
        ]

    @staticmethod
    def size(c: Columns) -> np.ndarray:
        """Bytes of WRAM written."""
        return filter_bytes(c.co, 1, 1, c.ci, c.filter_type, Runs.TAP)

    @classmethod
    def work(cls, c: Columns) -> np.ndarray:
        return cls.size(c).astype(float)


# -- control -----------------------------------------------------------------------------------------------------------
class Signal(Instruction, opcode=0x01, unit=Unit.CONTROL):
    """Add 1 to a cluster-wide counter when everything before it in its queue is done. One queue signals a counter."""

    queue = choice(Queue)
    counter = integer(0, COUNTERS - 1)


class Wait(Instruction, opcode=0x02, unit=Unit.CONTROL):
    """Hold a queue until a counter has reached a value."""

    queue = choice(Queue)
    counter = integer(0, COUNTERS - 1)
    value = number()


class Barrier(Instruction, opcode=0x03, unit=Unit.CONTROL):
    """Drain all queues of the core, then meet all cores of the mask (bit 4: the memory core; `__sync_cluster`)."""

    mask = bits(low=1, high=(1 << (MEMORY_CORE + 1)) - 1)
