"""Instructions of the vector unit: NRAM to NRAM, half or float."""

from __future__ import annotations

from typing import Any

import numpy as np

from targets.mlu220.isa_fields import (
    NRAM,
    Accesses,
    Columns,
    Instruction,
    Rule,
    Unit,
    access,
    choice,
    disjoint,
    f32bits,
    integer,
    near,
    no_self_overlap,
    number,
    same,
)  # fmt: skip
from targets.mlu220.isa_rules import (
    ALIGNED,
    APART,
    FITS,
    IN_PLACE,
    OVERLAPS_ITSELF,
    aligned,
    aligned_window,
    dilations,
    extent,
    fits,
    input_window,
    pitch,
    whole,
    window_pitches,
    window_source,
    window_target,
    window_work,
)  # fmt: skip
from targets.mlu220.isa_types import (
    TYPE_SIZES,
    BinaryFunction,
    Float,
    Mode,
    PoolFunction,
    ReduceFunction,
    Type,
    UnaryFunction,
)


def _rows(c: Columns, base: Any, run: Any, row_pitch: Any, write: bool = False, merge: bool = True) -> Accesses:
    return access(c, NRAM, base, run, [(c.rows, row_pitch)], write=write, merge=merge)


class Binary(Instruction, opcode=0x30, unit=Unit.VECTOR):
    """dst = a (function) b on rows of dense elements, one fp32 operation rounded once (`__bang_add`,
    `__bang_cycle_mul`, `__bang_mul_const`, ...). b is FULL: b[row, i]; CYCLE: b[i % period]; ROW: b[row]; CONST:
    `constant`."""

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
            lambda c: (
                aligned(TYPE_SIZES[c.dtype], c.dst, c.a, c.dst_pitch, c.a_pitch)
                & ((c.mode == Mode.CONST) | aligned(TYPE_SIZES[c.dtype], c.b))
                & ((c.mode != Mode.FULL) | aligned(TYPE_SIZES[c.dtype], c.b_pitch))
            ),
        ),
        OVERLAPS_ITSELF(lambda c: whole(c, c.dst, c.count * TYPE_SIZES[c.dtype], (c.rows, c.dst_pitch))),
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
    """dst = function(src) on rows of dense elements, fp32 inside, rounded once (`__bang_active_*`). `parameter` is
    the slope of LEAKY_RELU. The functions are those of `compiler.numerics`."""

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
            lambda c: aligned(TYPE_SIZES[c.dtype], c.dst, c.src, c.dst_pitch, c.src_pitch),
        ),
        OVERLAPS_ITSELF(lambda c: whole(c, c.dst, c.count * TYPE_SIZES[c.dtype], (c.rows, c.dst_pitch))),
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
    """Convert rows of dense elements (`__bang_half2int8_rd`, `__bang_int82half`, ...): integer → float is x *
    2^position; float → i8/i16 is x * 2^-position, clamped, rounded by the file's mode, NaN to 0; float → float rounds
    to nearest even."""

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
            lambda c: aligned(TYPE_SIZES[c.src_type], c.src, c.src_pitch),
        ),
        Rule(
            "dst and dst_pitch must be multiples of the element size",
            lambda c: aligned(TYPE_SIZES[c.dst_type], c.dst, c.dst_pitch),
        ),
        OVERLAPS_ITSELF(lambda c: whole(c, c.dst, c.count * TYPE_SIZES[c.dst_type], (c.rows, c.dst_pitch))),
        IN_PLACE(lambda c: Convert.in_place(c)),
    )

    @staticmethod
    def in_place(c: Columns) -> np.ndarray:
        """Elements of another size cover the same bytes only where rows are read several times: not one by one."""
        one_by_one = TYPE_SIZES[c.src_type] == TYPE_SIZES[c.dst_type]
        return (one_by_one & same(*Convert.accesses(c))) | disjoint(*Convert.accesses(c))

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
    """Pooling over windows without padding (`__bang_maxpool`, `__bang_avgpool`, `__bang_sumpool`). MEAN and SUM add
    in fp32 in tap order; MEAN multiplies by fp32(1/(kh*kw)); rounded once. Input between windows counts as read when
    the kernel is > 1."""

    dst = near(NRAM)
    src = near(NRAM)
    c = extent()
    h, w, kh, kw, stride_y, stride_x = input_window()
    src_row_pitch, src_pixel_pitch, dst_row_pitch, dst_pixel_pitch = window_pitches()
    dtype = choice(Float)
    function = choice(PoolFunction)

    rules = (
        FITS(lambda c: fits(c)),
        ALIGNED(lambda c: aligned_window(c)),
        OVERLAPS_ITSELF(lambda c: no_self_overlap(Pool.accesses(c, merge=False)[1])),
        APART(lambda c: disjoint(*Pool.accesses(c))),
    )

    @classmethod
    def accesses(cls, c: Columns, merge: bool = True) -> list[Accesses]:
        run = c.c * TYPE_SIZES[c.dtype]
        return [window_source(c, run), window_target(c, run, merge=merge)]

    @classmethod
    def work(cls, c: Columns) -> np.ndarray:
        return window_work(c, c.c)


class Depthwise(Instruction, opcode=0x34, unit=Unit.VECTOR):
    """Depthwise convolution in float (docs/mlu220.md 1.8: not quantised [C]); filters [kh*kw][c] dense in NRAM. fp32
    accumulator from 0, taps in order, product and sum rounded separately; rounded once to dtype. No padding."""

    dst = near(NRAM)
    src = near(NRAM)
    filters = near(NRAM)
    c = extent()
    h, w, kh, kw, stride_y, stride_x = input_window()
    dilation_y, dilation_x = dilations()
    src_row_pitch, src_pixel_pitch, dst_row_pitch, dst_pixel_pitch = window_pitches()
    dtype = choice(Float)

    rules = (
        FITS(lambda c: fits(c, c.dilation_y, c.dilation_x)),
        ALIGNED(lambda c: aligned_window(c, c.filters)),
        OVERLAPS_ITSELF(lambda c: no_self_overlap(Depthwise.accesses(c, merge=False)[2])),
        APART(lambda c: Depthwise.apart(c)),
    )

    @classmethod
    def apart(cls, c: Columns) -> np.ndarray:
        src, filters, dst = cls.accesses(c)
        return disjoint(src, dst) & disjoint(filters, dst)

    @classmethod
    def accesses(cls, c: Columns, merge: bool = True) -> list[Accesses]:
        run = c.c * TYPE_SIZES[c.dtype]
        return [
            window_source(c, run, c.dilation_y, c.dilation_x),
            access(c, NRAM, c.filters, c.kh * c.kw * run),
            window_target(c, run, c.dilation_y, c.dilation_x, merge=merge),
        ]

    @classmethod
    def work(cls, c: Columns) -> np.ndarray:
        return window_work(c, c.c, c.dilation_y, c.dilation_x)


class Reduce(Instruction, opcode=0x35, unit=Unit.VECTOR):
    """dst[row] = SUM, MAX or MIN of a row, dst dense (`__bang_reduce_sum`, `__bang_max`). SUM: 16 strided partial
    sums in fp32 folded by a fixed tree (`compiler.numerics.sum_lanes`), rounded once; MAX and MIN give NaN when there
    is one."""

    dst = near(NRAM)
    src = near(NRAM)
    rows = number(default=1)
    count = number(doc="elements of a row")
    src_pitch = pitch(0)
    dtype = choice(Float)
    function = choice(ReduceFunction)

    rules = (
        ALIGNED(lambda c: aligned(TYPE_SIZES[c.dtype], c.dst, c.src, c.src_pitch)),
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
            lambda c: aligned(c.element_size, c.dst, c.src, c.src_pitch, c.dst_pitch),
        ),
        OVERLAPS_ITSELF(lambda c: whole(c, c.dst, c.rows * c.element_size, (c.columns, c.dst_pitch))),
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
