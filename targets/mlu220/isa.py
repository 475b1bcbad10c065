"""The instruction table of the MLU220 model: one class per instruction, and questions about whole programs.

The vendor's encoding is not public; this is our own encoding of the vendor's documented operations (the BANG C
builtins, docs/mlu220.md 1.6, 1.7). A program is an int32 array [n, 32], one row per instruction, per core. This module
says what a row is, which rows are legal and what they touch; what they compute is told here in words and defined by
`runtime/oracle.py`. Every count is >= 1, every offset, pitch and stride is in bytes and >= 0. Outputs of an
instruction never overlap themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from targets.mlu220.filters import (
    LANES,
    conv_runs,
    filter_bytes,
    output_size,
    pack_filters,
    padded_k,
    run_unit,
    unpack_filters,
)  # fmt: skip
from targets.mlu220.isa_dma import Barrier, Copy, Fill, ReshapeFilter, Signal, Wait
from targets.mlu220.isa_fields import (
    ALL_QUEUES,
    BY_NAME,
    CONSTANTS,
    COUNTERS,
    INPUT,
    INSTRUCTIONS,
    IPU_CORES,
    MAX_FAR,
    MAX_IO,
    MAX_NEAR,
    MAX_WORK,
    MEMORY_CORE,
    NRAM,
    OUTPUT,
    QUEUES,
    ROW_BYTES,
    ROW_WORDS,
    SRAM,
    WORKSPACE,
    WRAM,
    Accesses,
    Address,
    Columns,
    Fault,
    Field,
    Instruction,
    Rule,
    Unit,
    coalesce,
    decode,
    disjoint,
    encode_program,
    is_input,
    is_on_chip,
    is_output,
    is_space,
    no_self_overlap,
    same,
    space_name,
    space_number,
)  # fmt: skip
from targets.mlu220.isa_matrix import Conv
from targets.mlu220.isa_types import (
    NUMPY_TYPES,
    TYPE_SIZES,
    BinaryFunction,
    FilterOrder,
    Float,
    Integer,
    Mode,
    Partial,
    PoolFunction,
    Queue,
    ReduceFunction,
    Runs,
    Type,
    UnaryFunction,
    sum_size,
)  # fmt: skip
from targets.mlu220.isa_vector import Binary, Convert, Depthwise, Pool, Reduce, Transpose, Unary

__all__ = [
    "ALL_QUEUES", "BY_NAME", "CONSTANTS", "COUNTERS", "INPUT", "INSTRUCTIONS", "IPU_CORES", "LANES", "MAX_FAR",
    "MAX_IO", "MAX_NEAR", "MAX_WORK", "MEMORY_CORE", "NRAM", "NUMPY_TYPES", "OUTPUT", "QUEUES", "ROW_BYTES",
    "ROW_WORDS", "SRAM", "TYPE_SIZES", "WORKSPACE", "WRAM", "Accesses", "Address", "Barrier", "Binary",
    "BinaryFunction", "Columns", "Conv", "Convert", "Copy", "Depthwise", "Fault", "Field", "Fill", "FilterOrder",
    "Float", "Instruction", "Integer", "Mode", "Partial", "Pool", "PoolFunction", "Queue", "Reduce",
    "ReduceFunction", "ReshapeFilter", "Rule", "Runs", "Signal", "Transpose", "Type", "Unary", "UnaryFunction",
    "Unit", "Wait", "coalesce", "conv_runs", "core_faults", "decode", "disjoint", "encode_program", "faults",
    "filter_bytes", "footprints", "groups", "is_input", "is_on_chip", "is_output", "is_space", "no_self_overlap",
    "output_size", "pack_filters", "padded_k", "queue_of", "run_unit", "same", "space_name", "space_number",
    "sum_size", "unpack_filters", "work",
]  # fmt: skip


def groups(rows: np.ndarray) -> Iterator[tuple[type[Instruction], np.ndarray]]:
    """(class, indices of its rows) for every known opcode that occurs, by opcode."""
    for opcode in np.unique(rows[:, 0]):
        if int(opcode) in INSTRUCTIONS:
            yield INSTRUCTIONS[int(opcode)], np.flatnonzero(rows[:, 0] == opcode)


def queue_of(rows: np.ndarray) -> np.ndarray:
    """The queue every row stands in, int64 [n]; ALL_QUEUES for a barrier. Opcodes must be known."""
    result = np.full(len(rows), ALL_QUEUES, np.int64)
    for spec, index in groups(rows):
        if spec.unit is not Unit.CONTROL:
            result[index] = spec.unit
        elif "queue" in spec.layout:
            result[index] = rows[index, spec.column("queue")]
    return result


def footprints(rows: np.ndarray) -> Accesses:
    """What every row of a program reads and writes, in row order, reads before writes within a row."""
    parts = []
    for spec, index in groups(rows):
        part = spec.footprints(rows[index])
        part.row = index[part.row]
        parts.append(part)
    accesses = Accesses.concatenate(parts)
    return accesses.take(np.lexsort((accesses.write, accesses.row)))


def work(rows: np.ndarray) -> np.ndarray:
    """Elementary steps of every row, float64 [n]."""
    result = np.ones(len(rows))
    for spec, index in groups(rows):
        result[index] = spec.work(Columns(spec, rows[index]))
    return result


def faults(rows: np.ndarray, core: int | None = None) -> list[Fault]:
    """Every row that is not a legal instruction (on `core`, when given), in row order."""
    found = [
        Fault(int(k), f"no instruction has opcode {int(rows[k, 0]):#x}")
        for k in np.flatnonzero(~np.isin(rows[:, 0], list(INSTRUCTIONS)))
    ]
    for spec, index in groups(rows):
        found += [Fault(int(index[fault.row]), fault.message) for fault in spec.faults(rows[index])]
    if core is not None:
        found += core_faults(rows, core)
    return sorted(found, key=lambda fault: fault.row)


def core_faults(rows: np.ndarray, core: int) -> list[Fault]:
    """The rows that are not legal on `core`, whatever else they are: foreign barriers, units the memory core lacks."""
    found = []
    meets = np.flatnonzero(rows[:, 0] == Barrier.opcode)
    for k in meets[(rows[meets, Barrier.column("mask")] >> core & 1) == 0]:
        found.append(Fault(int(k), f"barrier mask does not name its own core {core}"))
    if core != MEMORY_CORE:
        return found
    allowed = [Copy.opcode, Signal.opcode, Wait.opcode, Barrier.opcode]
    for k in np.flatnonzero(np.isin(rows[:, 0], list(INSTRUCTIONS)) & ~np.isin(rows[:, 0], allowed)):
        found.append(Fault(int(k), f"the memory core has no {INSTRUCTIONS[int(rows[k, 0])].name}"))
    copies = np.flatnonzero(rows[:, 0] == Copy.opcode)
    for name in ("dst_space", "src_space"):
        spaces = rows[copies, Copy.column(name)]
        for k in copies[(spaces == NRAM) | (spaces == WRAM)]:
            found.append(Fault(int(k), "the memory core reaches SRAM and GDRAM only"))
    for k in np.flatnonzero(np.isin(rows[:, 0], [Signal.opcode, Wait.opcode])):
        if rows[k, Signal.column("queue")] != Queue.DMA:
            found.append(Fault(int(k), "the memory core has a DMA queue only"))
    return found
