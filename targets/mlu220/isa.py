"""The instruction table of the MLU220 model: one class per instruction, and questions about whole programs.

The vendor's encoding is not public; this is our own encoding of the vendor's documented operations (the BANG C builtins,
MLU220.md 1.6, 1.7). A program is an int32 array [n, 32], one row per instruction, per core. This module says what a row is,
which rows are legal and what they touch; what they compute is told here in words and defined by `runtime/oracle.py`.
Every count is >= 1, every offset, pitch and stride is in bytes and >= 0. Outputs of an instruction never overlap themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
)
from targets.mlu220.isa_fields import (
    ALL_QUEUES,
    BY_NAME,
    CONSTANTS,
    COUNTERS,
    INPUT,
    INSTRUCTIONS,
    IPU_CORES,
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
    access,
    bits,
    choice,
    coalesce,
    decode,
    disjoint,
    encode_program,
    f32bits,
    far,
    integer,
    is_input,
    is_on_chip,
    is_output,
    near,
    no_self_overlap,
    number,
    same,
    space_name,
    space_number,
)
from targets.mlu220.isa_types import (
    NUMPY_TYPES,
    TYPE_SIZES,
    BinaryFunction,
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
)

__all__ = [
    "ALL_QUEUES",
    "BY_NAME",
    "CONSTANTS",
    "COUNTERS",
    "INPUT",
    "INSTRUCTIONS",
    "IPU_CORES",
    "LANES",
    "MEMORY_CORE",
    "NRAM",
    "NUMPY_TYPES",
    "OUTPUT",
    "QUEUES",
    "ROW_BYTES",
    "ROW_WORDS",
    "SRAM",
    "TYPE_SIZES",
    "WORKSPACE",
    "WRAM",
    "Accesses",
    "Address",
    "BinaryFunction",
    "Columns",
    "Fault",
    "Field",
    "Float",
    "Instruction",
    "Integer",
    "Mode",
    "Partial",
    "PoolFunction",
    "Queue",
    "ReduceFunction",
    "Runs",
    "Type",
    "UnaryFunction",
    "Unit",
    "coalesce",
    "conv_runs",
    "decode",
    "disjoint",
    "encode_program",
    "filter_bytes",
    "is_input",
    "is_on_chip",
    "is_output",
    "output_size",
    "pack_filters",
    "padded_k",
    "run_unit",
    "same",
    "space_name",
    "space_number",
    "sum_size",
    "unpack_filters",
]  # fmt: skip

BYTE_LIMIT = 2**31 - 1



def pitch(default: int | None = None, doc: str = "") -> Any:
    return number(low=0, default=default, doc=doc)


def stride(doc: str = "") -> Any:
    return number(low=0, high=BYTE_LIMIT, default=0, doc=doc)


def window(default: int | None = None) -> Any:
    return number(high=4095, default=default)


def extent() -> Any:
    return number(high=65535)


# -- pieces of rules --------------------------------------------------------------------------------------------------------
def _aligned(size: Any, *values: Any) -> Any:
    good = np.ones(1, bool)
    for value in values:
        good = good & (value % size == 0)
    return good


def _whole(c: Columns, base: Any, run: Any, *loops: tuple[Any, Any]) -> np.ndarray:
    return no_self_overlap(access(c, NRAM, base, run, loops, merge=False))


def _read_window(outputs: Any, kernel: Any, step: Any, dilation: Any) -> tuple[Any, Any]:
    """(count, step) of the input rows a window operation reads: every step-th for a kernel of 1, otherwise the hull."""
    hull = (outputs - 1) * step + (kernel - 1) * dilation + 1
    return np.where(kernel == 1, outputs, hull), np.where(kernel == 1, step, 1)


def _windows(c: Columns, dilation_y: Any = 1, dilation_x: Any = 1) -> tuple[Any, Any]:
    return (
        output_size(c.h, c.kh, c.stride_y, dilation_y),
        output_size(c.w, c.kw, c.stride_x, dilation_x),
    )


def _window_source(c: Columns, run: Any, dilation_y: Any = 1, dilation_x: Any = 1) -> Accesses:
    oh, ow = _windows(c, dilation_y, dilation_x)
    rows, row_step = _read_window(oh, c.kh, c.stride_y, dilation_y)
    pixels, pixel_step = _read_window(ow, c.kw, c.stride_x, dilation_x)
    loops = [(rows, row_step * c.src_row_pitch), (pixels, pixel_step * c.src_pixel_pitch)]
    return access(c, NRAM, c.src, run, loops)


def _rule(message: str) -> Any:
    return lambda holds: Rule(message, holds)


FITS = _rule("kernel {kh}x{kw} does not fit the input {h}x{w}")
OVERLAPS_ITSELF = _rule("destination overlaps itself: pitches are smaller than what lies inside them")
IN_PLACE = _rule("destination must be exactly a source or apart from it")
APART = _rule("destination overlaps a source")


def _fits(c: Columns) -> np.ndarray:
    return (c.kh <= c.h) & (c.kw <= c.w)


# -- DMA --------------------------------------------------------------------------------------------------------------------
class Copy(Instruction, opcode=0x10, unit=Unit.DMA):
    """Copy n0*n1*n2 runs of bytes between two memories (`__memcpy_async`, strided and 3-D forms). Constants and inputs are
    read-only, WRAM to WRAM does not exist, and WRAM takes one dense run only (MLU220.md 1.6 [C])."""

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
            lambda c: ((c.dst_space != WRAM) & (c.src_space != WRAM)) | (c.n0 * c.n1 * c.n2 == 1),
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
    """Fill n0*n1*n2 runs of NRAM with one element (`__nramset`, `__bang_write_zero`); `value` holds the element's bits."""

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
            lambda c: _aligned(c.element_size, c.dst, c.run, c.dst_stride0, c.dst_stride1, c.dst_stride2),
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


# -- matrix -----------------------------------------------------------------------------------------------------------------
class Conv(Instruction, opcode=0x21, unit=Unit.MATRIX):
    """Integer convolution of an NRAM tile with WRAM filters (`__bang_conv`, `__bang_conv_partial`, `__bang_mlp`).

    Exact integer sum (int32 for i8 x i8, otherwise int64) → fp32 nearest even → * 2^fix_position in fp32 → dst_type. No
    padding. partial FIRST stores raw sums [oh][ow][co] dense at partial_sums, MIDDLE adds to them, LAST adds and converts;
    sums of a chain wrap at their width. dst is used by NONE and LAST only, partial_sums by all but NONE. Filters: see
    `filters.py`. Input rows between taps of a kernel larger than 1 count as read."""

    dst = near(NRAM, default=0)
    src = near(NRAM)
    filters = near(WRAM)
    partial_sums = near(NRAM, default=0)
    ci = extent()
    h = extent()
    w = extent()
    kh = window()
    kw = window()
    stride_y = window(1)
    stride_x = window(1)
    dilation_y = window(1)
    dilation_x = window(1)
    co = extent()
    src_row_pitch = pitch()
    src_pixel_pitch = pitch()
    dst_row_pitch = pitch(0)
    dst_pixel_pitch = pitch(0)
    partial = choice(Partial, Partial.NONE)
    fix_position = integer(-126, 126, default=0)
    src_type = choice(Integer)
    filter_type = choice(Integer)
    dst_type = choice(Float)
    runs = choice(Runs, Runs.ROW)

    rules = (
        Rule("i8 input with i16 filters does not exist", lambda c: c.src_type >= c.filter_type),
        FITS(lambda c: ((c.kh - 1) * c.dilation_y < c.h) & ((c.kw - 1) * c.dilation_x < c.w)),
        Rule(
            "runs ROW needs dilation_x = 1 and dense pixels (src_pixel_pitch = ci * element size)",
            lambda c: (c.runs == Runs.TAP)
            | ((c.dilation_x == 1) & (c.src_pixel_pitch == c.ci * TYPE_SIZES[c.src_type])),
        ),
        Rule(
            "K = {kh}*{kw}*{ci} exceeds what an int32 sum of i8 products holds (131071)",
            lambda c: (c.src_type + c.filter_type > 0) | (c.kh * c.kw * c.ci < 2**17),
        ),
        Rule("filters must be 64-byte aligned", lambda c: _aligned(64, c.filters)),
        Rule(
            "src and its pitches must be multiples of the element size",
            lambda c: _aligned(TYPE_SIZES[c.src_type], c.src, c.src_row_pitch, c.src_pixel_pitch),
        ),
        Rule(
            "dst and its pitches must be multiples of the element size",
            lambda c: ~Conv.converts(c)
            | _aligned(TYPE_SIZES[c.dst_type], c.dst, c.dst_row_pitch, c.dst_pixel_pitch),
        ),
        Rule(
            "partial_sums must be a multiple of the sum's size",
            lambda c: (c.partial == Partial.NONE) | _aligned(sum_size(c.src_type, c.filter_type), c.partial_sums),
        ),
        OVERLAPS_ITSELF(lambda c: ~Conv.converts(c) | no_self_overlap(Conv.destination(c, merge=False))),
        APART(
            lambda c: (
                ~Conv.converts(c)
                | (
                    disjoint(Conv.source(c), Conv.destination(c))
                    & ((c.partial == Partial.NONE) | disjoint(Conv.sums(c), Conv.destination(c)))
                )
            )
        ),
        Rule(
            "partial_sums overlap the source",
            lambda c: (c.partial == Partial.NONE) | disjoint(Conv.source(c), Conv.sums(c)),
        ),
    )

    @staticmethod
    def converts(c: Columns) -> np.ndarray:
        """Whether a row writes dst."""
        return (c.partial == Partial.NONE) | (c.partial == Partial.LAST)

    @staticmethod
    def source(c: Columns) -> Accesses:
        return _window_source(c, c.ci * TYPE_SIZES[c.src_type], c.dilation_y, c.dilation_x)

    @staticmethod
    def destination(c: Columns, merge: bool = True, where: Any = True) -> Accesses:
        oh, ow = _windows(c, c.dilation_y, c.dilation_x)
        loops = [(oh, c.dst_row_pitch), (ow, c.dst_pixel_pitch)]
        return access(c, NRAM, c.dst, c.co * TYPE_SIZES[c.dst_type], loops, write=True, merge=merge, where=where)

    @staticmethod
    def sums(c: Columns, write: bool = False, where: Any = True) -> Accesses:
        oh, ow = _windows(c, c.dilation_y, c.dilation_x)
        run = np.minimum(oh * ow, 2**40) * c.co * sum_size(c.src_type, c.filter_type)
        return access(c, NRAM, c.partial_sums, run, write=write, where=where)

    @classmethod
    def accesses(cls, c: Columns) -> list[Accesses]:
        taken = filter_bytes(c.co, c.kh, c.kw, c.ci, c.filter_type, c.runs)
        first, last = c.partial == Partial.FIRST, c.partial == Partial.LAST
        middle = c.partial == Partial.MIDDLE
        return [
            cls.source(c),
            access(c, WRAM, c.filters, taken),
            cls.sums(c, where=middle | last),
            cls.sums(c, write=True, where=first | middle),
            cls.destination(c, where=cls.converts(c)),
        ]

    @classmethod
    def work(cls, c: Columns) -> np.ndarray:
        oh, ow = _windows(c, c.dilation_y, c.dilation_x)
        return oh.astype(float) * ow * c.kh * c.kw * c.ci * c.co


# -- vector -----------------------------------------------------------------------------------------------------------------
def _rows(c: Columns, base: Any, run: Any, row_pitch: Any, write: bool = False, merge: bool = True) -> Accesses:
    return access(c, NRAM, base, run, [(c.rows, row_pitch)], write=write, merge=merge)


class Binary(Instruction, opcode=0x30, unit=Unit.VECTOR):
    """dst = a (function) b on rows of dense elements, one fp32 operation rounded once (`__bang_add`, `__bang_cycle_mul`,
    `__bang_mul_const`, ...). b is FULL: b[row, i]; CYCLE: b[i % period]; ROW: b[row]; CONST: `constant`."""

    dst = near(NRAM)
    a = near(NRAM)
    b = near(NRAM, default=0)
    rows = number(default=1)
    count = number(doc="elements of a row")
    dst_pitch = pitch(0)
    a_pitch = pitch(0)
    b_pitch = pitch(0)
    dtype = choice(Float)
    function = choice(BinaryFunction)
    mode = choice(Mode, Mode.FULL)
    period = integer(0, 2**24, default=0, doc="elements of b in mode CYCLE")
    constant = f32bits(0.0, doc="b in mode CONST")

    rules = (
        Rule("mode CYCLE needs a period of at least 1", lambda c: (c.mode != Mode.CYCLE) | (c.period >= 1)),
        Rule(
            "addresses and pitches must be multiples of the element size",
            lambda c: _aligned(TYPE_SIZES[c.dtype], c.dst, c.a, c.dst_pitch, c.a_pitch)
            & ((c.mode == Mode.CONST) | _aligned(TYPE_SIZES[c.dtype], c.b))
            & ((c.mode != Mode.FULL) | _aligned(TYPE_SIZES[c.dtype], c.b_pitch)),
        ),
        OVERLAPS_ITSELF(lambda c: _whole(c, c.dst, c.count * TYPE_SIZES[c.dtype], (c.rows, c.dst_pitch))),
        IN_PLACE(lambda c: Binary.in_place(c)),
    )

    @staticmethod
    def second(c: Columns, where: Any = True) -> Accesses:
        """The b operand (meaningless for CONST)."""
        size = TYPE_SIZES[c.dtype]
        cycle = np.minimum(c.period, c.count)
        run = np.where(c.mode == Mode.CYCLE, cycle, np.where(c.mode == Mode.ROW, c.rows, c.count)) * size
        rows = np.where(c.mode == Mode.FULL, c.rows, 1)
        return access(c, NRAM, c.b, run, [(rows, c.b_pitch)], where=where)

    @classmethod
    def in_place(cls, c: Columns) -> np.ndarray:
        run = c.count * TYPE_SIZES[c.dtype]
        dst, a, b = _rows(c, c.dst, run, c.dst_pitch), _rows(c, c.a, run, c.a_pitch), cls.second(c)
        b_good = disjoint(b, dst) | ((c.mode == Mode.FULL) & same(b, dst)) | (c.mode == Mode.CONST)
        return (same(a, dst) | disjoint(a, dst)) & b_good

    @classmethod
    def accesses(cls, c: Columns) -> list[Accesses]:
        run = c.count * TYPE_SIZES[c.dtype]
        return [
            _rows(c, c.a, run, c.a_pitch),
            cls.second(c, where=c.mode != Mode.CONST),
            _rows(c, c.dst, run, c.dst_pitch, write=True),
        ]

    @classmethod
    def work(cls, c: Columns) -> np.ndarray:
        return c.rows.astype(float) * c.count


class Unary(Instruction, opcode=0x31, unit=Unit.VECTOR):
    """dst = function(src) on rows of dense elements, fp32 inside, rounded once (`__bang_active_*`). `parameter` is the slope
    of LEAKY_RELU. The functions are those of `compiler.numerics`."""

    dst = near(NRAM)
    src = near(NRAM)
    rows = number(default=1)
    count = number(doc="elements of a row")
    dst_pitch = pitch(0)
    src_pitch = pitch(0)
    dtype = choice(Float)
    function = choice(UnaryFunction)
    parameter = f32bits(0.0)

    rules = (
        Rule(
            "addresses and pitches must be multiples of the element size",
            lambda c: _aligned(TYPE_SIZES[c.dtype], c.dst, c.src, c.dst_pitch, c.src_pitch),
        ),
        OVERLAPS_ITSELF(lambda c: _whole(c, c.dst, c.count * TYPE_SIZES[c.dtype], (c.rows, c.dst_pitch))),
        IN_PLACE(lambda c: same(*Unary.accesses(c)) | disjoint(*Unary.accesses(c))),
    )

    @classmethod
    def accesses(cls, c: Columns) -> list[Accesses]:
        run = c.count * TYPE_SIZES[c.dtype]
        return [_rows(c, c.src, run, c.src_pitch), _rows(c, c.dst, run, c.dst_pitch, write=True)]

    @classmethod
    def work(cls, c: Columns) -> np.ndarray:
        return c.rows.astype(float) * c.count


class Convert(Instruction, opcode=0x32, unit=Unit.VECTOR):
    """Convert rows of dense elements (`__bang_half2int8_rd`, `__bang_int82half`, ...): integer → float is x * 2^position;
    float → i8/i16 is x * 2^-position, clamped, rounded by the file's mode, NaN to 0; float → float rounds to nearest even."""

    dst = near(NRAM)
    src = near(NRAM)
    rows = number(default=1)
    count = number(doc="elements of a row")
    dst_pitch = pitch(0)
    src_pitch = pitch(0)
    src_type = choice(Type)
    dst_type = choice(Type)
    position = integer(-126, 126, default=0)

    rules = (
        Rule("no conversion from {src_type} to {dst_type}", lambda c: Convert.exists(c)),
        Rule(
            "src and src_pitch must be multiples of the element size",
            lambda c: _aligned(TYPE_SIZES[c.src_type], c.src, c.src_pitch),
        ),
        Rule(
            "dst and dst_pitch must be multiples of the element size",
            lambda c: _aligned(TYPE_SIZES[c.dst_type], c.dst, c.dst_pitch),
        ),
        OVERLAPS_ITSELF(lambda c: _whole(c, c.dst, c.count * TYPE_SIZES[c.dst_type], (c.rows, c.dst_pitch))),
        IN_PLACE(lambda c: same(*Convert.accesses(c)) | disjoint(*Convert.accesses(c))),
    )

    @staticmethod
    def exists(c: Columns) -> np.ndarray:
        from_float = (c.src_type == Type.F16) | (c.src_type == Type.F32)
        to_float = (c.dst_type == Type.F16) | (c.dst_type == Type.F32)
        return (from_float ^ to_float) & (c.dst_type != Type.I32) | (from_float & to_float & (c.src_type != c.dst_type))

    @classmethod
    def accesses(cls, c: Columns) -> list[Accesses]:
        return [
            _rows(c, c.src, c.count * TYPE_SIZES[c.src_type], c.src_pitch),
            _rows(c, c.dst, c.count * TYPE_SIZES[c.dst_type], c.dst_pitch, write=True),
        ]

    @classmethod
    def work(cls, c: Columns) -> np.ndarray:
        return c.rows.astype(float) * c.count


class Pool(Instruction, opcode=0x33, unit=Unit.VECTOR):
    """Pooling over windows without padding (`__bang_maxpool`, `__bang_avgpool`, `__bang_sumpool`). MEAN and SUM add in fp32 in
    tap order; MEAN multiplies by fp32(1/(kh*kw)); rounded once. Input between windows counts as read when the kernel is > 1."""

    dst = near(NRAM)
    src = near(NRAM)
    c = extent()
    h = extent()
    w = extent()
    kh = window()
    kw = window()
    stride_y = window(1)
    stride_x = window(1)
    src_row_pitch = pitch()
    src_pixel_pitch = pitch()
    dst_row_pitch = pitch()
    dst_pixel_pitch = pitch()
    dtype = choice(Float)
    function = choice(PoolFunction)

    rules = (
        FITS(lambda c: _fits(c)),
        Rule(
            "addresses and pitches must be multiples of the element size",
            lambda c: _aligned(
                TYPE_SIZES[c.dtype], c.dst, c.src, c.src_row_pitch, c.src_pixel_pitch, c.dst_row_pitch, c.dst_pixel_pitch
            ),
        ),
        OVERLAPS_ITSELF(lambda c: no_self_overlap(Pool.accesses(c, merge=False)[1])),
        APART(lambda c: disjoint(*Pool.accesses(c))),
    )

    @classmethod
    def accesses(cls, c: Columns, merge: bool = True) -> list[Accesses]:
        oh, ow = _windows(c)
        run = c.c * TYPE_SIZES[c.dtype]
        loops = [(oh, c.dst_row_pitch), (ow, c.dst_pixel_pitch)]
        return [_window_source(c, run), access(c, NRAM, c.dst, run, loops, write=True, merge=merge)]

    @classmethod
    def work(cls, c: Columns) -> np.ndarray:
        oh, ow = _windows(c)
        return oh.astype(float) * ow * c.kh * c.kw * c.c


class Depthwise(Instruction, opcode=0x34, unit=Unit.VECTOR):
    """Depthwise convolution in float (MLU220.md 1.8: not quantised [C]); filters [kh*kw][c] dense in NRAM. fp32 accumulator
    from 0, taps in order, product and sum rounded separately; rounded once to dtype. No padding."""

    dst = near(NRAM)
    src = near(NRAM)
    filters = near(NRAM)
    c = extent()
    h = extent()
    w = extent()
    kh = window()
    kw = window()
    stride_y = window(1)
    stride_x = window(1)
    dilation_y = window(1)
    dilation_x = window(1)
    src_row_pitch = pitch()
    src_pixel_pitch = pitch()
    dst_row_pitch = pitch()
    dst_pixel_pitch = pitch()
    dtype = choice(Float)

    rules = (
        FITS(lambda c: ((c.kh - 1) * c.dilation_y < c.h) & ((c.kw - 1) * c.dilation_x < c.w)),
        Rule(
            "addresses and pitches must be multiples of the element size",
            lambda c: _aligned(TYPE_SIZES[c.dtype], c.dst, c.src, c.filters, c.src_row_pitch, c.src_pixel_pitch)
            & _aligned(TYPE_SIZES[c.dtype], c.dst_row_pitch, c.dst_pixel_pitch),
        ),
        OVERLAPS_ITSELF(lambda c: no_self_overlap(Depthwise.accesses(c, merge=False)[2])),
        APART(lambda c: Depthwise.apart(c)),
    )

    @classmethod
    def apart(cls, c: Columns) -> np.ndarray:
        src, filters, dst = cls.accesses(c)
        return disjoint(src, dst) & disjoint(filters, dst)

    @classmethod
    def accesses(cls, c: Columns, merge: bool = True) -> list[Accesses]:
        oh, ow = _windows(c, c.dilation_y, c.dilation_x)
        run = c.c * TYPE_SIZES[c.dtype]
        loops = [(oh, c.dst_row_pitch), (ow, c.dst_pixel_pitch)]
        return [
            _window_source(c, run, c.dilation_y, c.dilation_x),
            access(c, NRAM, c.filters, c.kh * c.kw * run),
            access(c, NRAM, c.dst, run, loops, write=True, merge=merge),
        ]

    @classmethod
    def work(cls, c: Columns) -> np.ndarray:
        oh, ow = _windows(c, c.dilation_y, c.dilation_x)
        return oh.astype(float) * ow * c.kh * c.kw * c.c


class Reduce(Instruction, opcode=0x35, unit=Unit.VECTOR):
    """dst[row] = SUM, MAX or MIN of a row, dst dense (`__bang_reduce_sum`, `__bang_max`). SUM: 16 strided partial sums in fp32
    folded by a fixed tree (`compiler.numerics.sum_lanes`), rounded once; MAX and MIN give NaN when there is one."""

    dst = near(NRAM)
    src = near(NRAM)
    rows = number(default=1)
    count = number(doc="elements of a row")
    src_pitch = pitch(0)
    dtype = choice(Float)
    function = choice(ReduceFunction)

    rules = (
        Rule(
            "addresses and pitches must be multiples of the element size",
            lambda c: _aligned(TYPE_SIZES[c.dtype], c.dst, c.src, c.src_pitch),
        ),
        APART(lambda c: disjoint(*Reduce.accesses(c))),
    )

    @classmethod
    def accesses(cls, c: Columns) -> list[Accesses]:
        size = TYPE_SIZES[c.dtype]
        return [
            _rows(c, c.src, c.count * size, c.src_pitch),
            access(c, NRAM, c.dst, c.rows * size, write=True),
        ]

    @classmethod
    def work(cls, c: Columns) -> np.ndarray:
        return c.rows.astype(float) * c.count


class Transpose(Instruction, opcode=0x36, unit=Unit.VECTOR):
    """dst[column][row] = src[row][column], elements of 1, 2 or 4 bytes (`__bang_transpose`)."""

    dst = near(NRAM)
    src = near(NRAM)
    rows = number()
    columns = number()
    element_size = number(high=4)
    src_pitch = pitch()
    dst_pitch = pitch()

    rules = (
        Rule("element_size is 1, 2 or 4, not {element_size}", lambda c: c.element_size != 3),
        Rule(
            "addresses and pitches must be multiples of element_size {element_size}",
            lambda c: _aligned(c.element_size, c.dst, c.src, c.src_pitch, c.dst_pitch),
        ),
        OVERLAPS_ITSELF(lambda c: _whole(c, c.dst, c.rows * c.element_size, (c.columns, c.dst_pitch))),
        APART(lambda c: disjoint(*Transpose.accesses(c))),
    )

    @classmethod
    def accesses(cls, c: Columns) -> list[Accesses]:
        return [
            _rows(c, c.src, c.columns * c.element_size, c.src_pitch),
            access(c, NRAM, c.dst, c.rows * c.element_size, [(c.columns, c.dst_pitch)], write=True),
        ]

    @classmethod
    def work(cls, c: Columns) -> np.ndarray:
        return c.rows.astype(float) * c.columns


# -- control ----------------------------------------------------------------------------------------------------------------
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


# -- whole programs ---------------------------------------------------------------------------------------------------------
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
        found += _core_faults(rows, core)
    return sorted(found, key=lambda fault: fault.row)


def _core_faults(rows: np.ndarray, core: int) -> list[Fault]:
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
