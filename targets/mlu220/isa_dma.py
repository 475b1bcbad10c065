"""Instructions of the DMA queue, and those that order queues and cores."""

from __future__ import annotations

import numpy as np

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
from targets.mlu220.isa_rules import APART, BYTE_LIMIT, OVERLAPS_ITSELF, aligned, pitch, stride
from targets.mlu220.isa_types import Queue


class Copy(Instruction, opcode=0x10, unit=Unit.DMA):
    """Copy n0*n1*n2 runs of bytes between two memories (`__memcpy_async`, strided and 3-D forms). Constants and
    inputs are read-only, WRAM to WRAM does not exist, and WRAM takes one dense run only (MLU220.md 1.6 [C])."""

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
