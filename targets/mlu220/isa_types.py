"""Enumerations of instruction fields, and the sizes of element types."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np


class Type(enum.IntEnum):
    """Element types of on-chip data."""

    I8 = 0
    I16 = 1
    F16 = 2
    F32 = 3
    I32 = 4


class Integer(enum.IntEnum):
    """What the matrix unit multiplies; numbers as in `Type`."""

    I8 = 0
    I16 = 1


class Float(enum.IntEnum):
    """What the vector unit computes with; numbers as in `Type`."""

    F16 = 2
    F32 = 3


class Partial(enum.IntEnum):
    """Where a convolution stands in a chain that splits K."""

    NONE = 0
    FIRST = 1
    MIDDLE = 2
    LAST = 3


class Runs(enum.IntEnum):
    """How K is cut into padded runs: per kernel row, or per tap."""

    ROW = 0
    TAP = 1


class FilterOrder(enum.IntEnum):
    """How filters of one tap lie before `reshape_filter`: rows of K, one per output channel, or rows of output
    channels, one per index of K."""

    CHANNELS = 0
    K = 1


class BinaryFunction(enum.IntEnum):
    ADD = 0
    SUB = 1
    MUL = 2
    MAX = 3
    MIN = 4


class Mode(enum.IntEnum):
    """Shape of a binary's second operand."""

    FULL = 0
    CYCLE = 1
    ROW = 2
    CONST = 3


class UnaryFunction(enum.IntEnum):
    RELU = 0
    ABS = 1
    EXP = 2
    LOG = 3
    SIGMOID = 4
    TANH = 5
    SQRT = 6
    RSQRT = 7
    RECIPROCAL = 8
    ERF = 9
    LEAKY_RELU = 10


class PoolFunction(enum.IntEnum):
    MAX = 0
    MEAN = 1
    SUM = 2


class ReduceFunction(enum.IntEnum):
    SUM = 0
    MAX = 1
    MIN = 2


class Queue(enum.IntEnum):
    """The in-order queues of a core; numbers as in `Unit`."""

    DMA = 0
    MATRIX = 1
    VECTOR = 2


TYPE_SIZES = np.array([1, 2, 2, 4, 4], np.int64)
"""Bytes of an element, by `Type`."""
NUMPY_TYPES = {
    Type.I8: np.dtype("<i1"), Type.I16: np.dtype("<i2"), Type.F16: np.dtype("<f2"), Type.F32: np.dtype("<f4"),
    Type.I32: np.dtype("<i4"),
}  # fmt: skip


def sum_size(src_type: Any, filter_type: Any) -> Any:
    """Bytes of a partial sum: 4 for i8 x i8, 8 when a 16-bit type is in play. Ints or arrays."""
    return 4 + 4 * ((src_type + filter_type) > 0)
