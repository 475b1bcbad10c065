"""What an instruction stream costs: cycles, bytes, multiply-adds of each row, vectorised over programs.

One latency model for the scheduler, pruning advice and the profiler. It is analytical and first order: the matrix
unit follows docs/mlu220.md 1.2 ([I]), the vector unit its 128 bytes per cycle ([C]), everything about copies rests on
assumed latencies and on-chip rates ([U]); the numbers and their basis are the board's. Rows must be legal
(`isa.faults`). How streams overlap in time is `timeline.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from targets.mlu220 import isa
from targets.mlu220.filters import conv_runs, output_size
from targets.mlu220.hardware import Board
from targets.mlu220.isa import Accesses, Columns, UnaryFunction
from targets.mlu220.isa_types import TYPE_SIZES

DEPTHWISE_PASSES = 2
"""A tap is a multiplication and an addition, and the published rate counts single operations (docs/mlu220.md 1.2
[C])."""
ONE_PASS = [UnaryFunction.RELU, UnaryFunction.ABS, UnaryFunction.LEAKY_RELU]


def _ceil(value: np.ndarray, unit: int | np.ndarray) -> np.ndarray:
    return -(-value // unit)


# -- compute --------------------------------------------------------------------------------------------------------
def _conv(c: Columns, board: Board) -> np.ndarray:
    """oh*ow * runs * ceil(run bytes / lane width) * ceil(co / lanes).

    docs/mlu220.md 1.2 counts kh*kw*ceil(ci/32); with runs ROW we let a lane stream over the kw*ci elements of a kernel
    row, since they lie next to each other on both sides ([I]). A 16-bit operand halves the rate.
    """
    oh, ow = output_size(c.h, c.kh, c.stride_y, c.dilation_y), output_size(c.w, c.kw, c.stride_x, c.dilation_x)
    number, length = conv_runs(c.kh, c.kw, c.ci, c.runs)
    wide = np.maximum(TYPE_SIZES[c.src_type], TYPE_SIZES[c.filter_type])
    steps = number * _ceil(length * wide, board.matrix_lane_bytes) * _ceil(c.co, board.matrix_lanes)
    return oh * ow * steps + board.issue_cycles


def _vector_rows(rows: np.ndarray, run: np.ndarray, dense: np.ndarray, board: Board) -> np.ndarray:
    """Passes of the vector unit over rows of `run` bytes; dense rows are one long vector."""
    width = board.vector_bytes_per_cycle
    return np.where(dense, _ceil(rows * run, width), rows * _ceil(run, width))


def _binary(c: Columns, board: Board) -> np.ndarray:
    run = c.count * TYPE_SIZES[c.dtype]
    dense = (c.dst_pitch == run) & (c.a_pitch == run) & ((c.mode != isa.Mode.FULL) | (c.b_pitch == run))
    return _vector_rows(c.rows, run, dense, board) + board.issue_cycles


def _unary(c: Columns, board: Board) -> np.ndarray:
    run = c.count * TYPE_SIZES[c.dtype]
    passes = np.where(np.isin(c.function, ONE_PASS), 1, board.transcendental_passes)
    return passes * _vector_rows(c.rows, run, (c.dst_pitch == run) & (c.src_pitch == run), board) + board.issue_cycles


def _convert(c: Columns, board: Board) -> np.ndarray:
    src, dst = c.count * TYPE_SIZES[c.src_type], c.count * TYPE_SIZES[c.dst_type]
    dense = (c.src_pitch == src) & (c.dst_pitch == dst)
    return _vector_rows(c.rows, np.maximum(src, dst), dense, board) + board.issue_cycles


def _window(c: Columns, board: Board, passes: int, dilation_y: np.ndarray | int, dilation_x: np.ndarray | int):
    oh, ow = output_size(c.h, c.kh, c.stride_y, dilation_y), output_size(c.w, c.kw, c.stride_x, dilation_x)
    vectors = _ceil(c.c * TYPE_SIZES[c.dtype], board.vector_bytes_per_cycle)
    return passes * oh * ow * c.kh * c.kw * vectors + board.issue_cycles


def _pool(c: Columns, board: Board) -> np.ndarray:
    return _window(c, board, 1, 1, 1)


def _depthwise(c: Columns, board: Board) -> np.ndarray:
    return _window(c, board, DEPTHWISE_PASSES, c.dilation_y, c.dilation_x)


def _reduce(c: Columns, board: Board) -> np.ndarray:
    """A pass over every row, then the fold of 16 sums in four steps."""
    return c.rows * (_ceil(c.count * TYPE_SIZES[c.dtype], board.vector_bytes_per_cycle) + 4) + board.issue_cycles


def _transpose(c: Columns, board: Board) -> np.ndarray:
    vectors = _ceil(c.rows * c.columns * c.element_size, board.vector_bytes_per_cycle)
    return board.transpose_passes * vectors + board.issue_cycles


# -- movement -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Transfer:
    """What copies need, one entry per row, in cycles: `latency` until the first byte, `channel` of the DDR, `port` of
    the core's own path. A copy alone takes latency + max(channel, port)."""

    latency: np.ndarray
    channel: np.ndarray
    port: np.ndarray

    @property
    def cycles(self) -> np.ndarray:
        return self.latency + np.maximum(self.channel, self.port)


def _segments(a: Accesses) -> np.ndarray:
    return np.prod(a.counts, axis=1)


def transfers(copies: np.ndarray, board: Board) -> Transfer:
    """Cost of `copy` rows. DDR moves whole bursts, so short runs waste the channel; every run starts anew."""
    c = Columns(isa.Copy, copies)
    src, dst = isa.Copy.accesses(c)
    total = c.run * c.n0 * c.n1 * c.n2
    bursts = np.zeros(len(c), np.int64)
    for side in (src, dst):
        burst = _segments(side) * _ceil(side.run, board.ddr_burst_bytes) * board.ddr_burst_bytes
        bursts += np.where(isa.is_on_chip(side.space), 0, np.maximum(burst, total))
    channel = np.ceil(bursts / board.ddr_bytes_per_cycle).astype(np.int64)
    own = (src.space <= isa.WRAM) & (dst.space <= isa.WRAM)
    rate = np.where(own, board.nram_bytes_per_cycle, board.sram_bytes_per_cycle)
    port = _ceil(total, rate) + (np.maximum(_segments(src), _segments(dst)) - 1) * board.segment_cycles
    latency = np.where(bursts > 0, board.ddr_latency_cycles, board.on_chip_latency_cycles)
    return Transfer(latency, channel, port)


def _copy(c: Columns, board: Board) -> np.ndarray:
    return transfers(np.ascontiguousarray(c.raw), board).cycles


def _fill(c: Columns, board: Board) -> np.ndarray:
    (dst,) = isa.Fill.accesses(c)
    total = c.run * c.n0 * c.n1 * c.n2
    return _ceil(total, board.nram_bytes_per_cycle) + (_segments(dst) - 1) * board.segment_cycles + board.issue_cycles


def _reshape_filter(c: Columns, board: Board) -> np.ndarray:
    """A read and a write pass, as for a transposition ([U]): not published."""
    vectors = _ceil(isa.ReshapeFilter.size(c), board.nram_bytes_per_cycle)
    return board.transpose_passes * vectors + board.on_chip_latency_cycles


_CYCLES: dict[int, Callable[[Columns, Board], np.ndarray]] = {
    isa.Copy.opcode: _copy, isa.Fill.opcode: _fill, isa.Conv.opcode: _conv, isa.Binary.opcode: _binary,
    isa.Unary.opcode: _unary, isa.Convert.opcode: _convert, isa.Pool.opcode: _pool, isa.Depthwise.opcode: _depthwise,
    isa.Reduce.opcode: _reduce, isa.Transpose.opcode: _transpose, isa.ReshapeFilter.opcode: _reshape_filter,
}  # fmt: skip


def cycles(rows: np.ndarray, board: Board) -> np.ndarray:
    """Cycles every row takes when nothing else runs, int64 [n]; 0 for control."""
    result = np.zeros(len(rows), np.int64)
    for spec, index in isa.groups(rows):
        if spec.opcode in _CYCLES:
            result[index] = _CYCLES[spec.opcode](Columns(spec, rows[index]), board)
    return result


# -- quantities -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Quantities:
    """What every row moves and computes: int64 [n] each, or plain sums after `total`."""

    macs8: np.ndarray
    macs16: np.ndarray
    vector_ops: np.ndarray
    ddr_read: np.ndarray
    ddr_write: np.ndarray
    sram: np.ndarray
    nram: np.ndarray
    wram: np.ndarray

    def total(self) -> Totals:
        return Totals(**{name: int(getattr(self, name).sum()) for name in Totals.__dataclass_fields__})


@dataclass(frozen=True)
class Totals:
    """Sums of `Quantities` over programs: multiply-adds, single vector operations, bytes."""

    macs8: int = 0
    macs16: int = 0
    vector_ops: int = 0
    ddr_read: int = 0
    ddr_write: int = 0
    sram: int = 0
    nram: int = 0
    wram: int = 0

    @property
    def macs(self) -> int:
        return self.macs8 + self.macs16

    @property
    def ddr(self) -> int:
        return self.ddr_read + self.ddr_write

    def __add__(self, other: Totals) -> Totals:
        return Totals(**{n: getattr(self, n) + getattr(other, n) for n in Totals.__dataclass_fields__})


def quantities(rows: np.ndarray) -> Quantities:
    """Bytes by memory and operations. A copy moves every byte it is asked for on both sides; what a unit touches counts
    once, however often it reads it again."""
    n = len(rows)
    work = isa.work(rows).astype(np.int64)
    macs8, macs16, vector_ops = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    for spec, index in isa.groups(rows):
        if spec is isa.Conv:
            wide = (rows[index, spec.column("src_type")] + rows[index, spec.column("filter_type")]) > 0
            macs8[index], macs16[index] = np.where(wide, 0, work[index]), np.where(wide, work[index], 0)
        elif spec.unit is isa.Unit.VECTOR:
            vector_ops[index] = work[index] * (DEPTHWISE_PASSES if spec is isa.Depthwise else 1)
    accesses = isa.footprints(rows)
    size = np.where(rows[accesses.row, 0] == isa.Copy.opcode, work[accesses.row], accesses.bytes)

    def summed(mask: np.ndarray) -> np.ndarray:
        return np.bincount(accesses.row[mask], weights=size[mask], minlength=n).astype(np.int64)

    off_chip = ~isa.is_on_chip(accesses.space)
    return Quantities(
        macs8=macs8, macs16=macs16, vector_ops=vector_ops,
        ddr_read=summed(off_chip & ~accesses.write), ddr_write=summed(off_chip & accesses.write),
        sram=summed(accesses.space == isa.SRAM), nram=summed(accesses.space == isa.NRAM),
        wram=summed(accesses.space == isa.WRAM),
    )  # fmt: skip
