"""What translate works on: instructions as operations with absolute offsets, explicit accesses and a geometry.

An operation is one kernel call. Its output is a grid of pixels ([height][width], `columns` elements each), and a run of
elementwise steps may follow before the store. Elementwise instructions can be seen in several geometries; `express`
says whether and how.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from runtime.kernels import layout as L  # noqa: N812


class Access(NamedTuple):
    """Bytes touched: `run` at base + i0*s0 + i1*s1 + i2*s2. Offsets in the arena."""

    base: int
    run: int
    counts: tuple[int, int, int]
    strides: tuple[int, int, int]

    @property
    def end(self) -> int:
        return self.base + self.run + sum((c - 1) * s for c, s in zip(self.counts, self.strides, strict=True))


class Geometry(NamedTuple):
    """How an output is seen: rows of pixels, pixels of a row, elements of a pixel."""

    height: int
    width: int
    columns: int

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def elements(self) -> int:
        return self.pixels * self.columns


class Placed(NamedTuple):
    """A tensor in memory under a geometry: offset, bytes between rows and between pixels, element type."""

    offset: int
    row: int
    pixel: int
    type: int


class Rows(NamedTuple):
    """An operand of an elementwise instruction: offset, bytes between rows, element type."""

    offset: int
    pitch: int
    type: int


@dataclass(frozen=True)
class Vector:
    """An elementwise instruction. `second` is the other operand: its address (FULL, CYCLE, ROW) or nothing (CONST).
    `swapped`: the chain's value is operand b (mode FULL)."""

    rows: int
    count: int
    source: Rows
    target: Rows
    kind: int
    mode: int = L.CONST
    second: Rows | None = None
    period: int = 0
    constant: int = 0
    rounded: bool = False
    source_factor: float = 1.0
    target_factor: float = 1.0

    @property
    def natural(self) -> Geometry:
        """The geometry in which this is fastest: one long run where everything is dense."""
        operands = [self.source, self.target] + ([self.second] if self.mode == L.FULL and self.second else [])
        dense = all(self._is_dense(operand) for operand in operands)
        if dense and self.mode in (L.FULL, L.CONST):
            return Geometry(1, 1, self.rows * self.count)
        if dense and self.mode == L.CYCLE and self.count % self.period == 0:
            return Geometry(self.rows * self.count // self.period, 1, self.period)
        return Geometry(self.rows, 1, self.count)

    def _is_dense(self, operand: Rows) -> bool:
        return self.rows == 1 or operand.pitch == self.count * L.SIZES[operand.type]

    def place(self, operand: Rows, g: Geometry) -> Placed | None:
        """Where an operand's elements lie under a geometry; None when it cannot be said with two pitches."""
        size = L.SIZES[operand.type]
        if self._is_dense(operand):
            return Placed(operand.offset, g.width * g.columns * size, g.columns * size, operand.type)
        if self.count == g.columns:
            return Placed(operand.offset, g.width * operand.pitch, operand.pitch, operand.type)
        if self.count == g.width * g.columns:
            return Placed(operand.offset, operand.pitch, g.columns * size, operand.type)
        return None

    def step(self, g: Geometry, swapped: bool = False) -> list[int] | None:
        """The chain step under a geometry, or None when there is none."""
        step = [0] * L.STEP_WORDS
        step[L.KIND], step[L.MODE], step[L.ROUND], step[L.CONSTANT] = self.kind, self.mode, self.rounded, self.constant
        if self.kind >= L.UNARY_BASE or self.mode == L.CONST:
            return step
        second = self.source if swapped else self.second
        assert second is not None
        step[L.OPERAND], step[L.OPERAND_TYPE], step[L.SWAP] = second.offset, second.type, swapped
        if self.mode == L.FULL:
            placed = self.place(second, g)
            if placed is None:
                return None
            step[L.OPERAND_ROW], step[L.OPERAND_PIXEL] = placed.row, placed.pixel
        elif self.mode == L.CYCLE:
            step[L.PERIOD] = self.period
            if self.count != g.columns and (self.count % self.period or g.columns % self.period):
                return None
        elif self.count != g.columns:
            return None
        return step


@dataclass
class Operation:
    """One kernel call. `reads` and `writes` are all bytes touched. `target` is the destination under `geometry`
    (kernels with a chain only)."""

    kernel: str
    words: dict[int, int]
    reads: list[Access]
    writes: list[Access]
    work: float
    geometry: Geometry | None = None
    target: Placed | None = None
    target_factor: float = 1.0
    vector: Vector | None = None
    steps: list[list[int]] = field(default_factory=list)
    table: tuple[int, ...] | None = None
    core: int = 0
    row: int = 0


def merge(accesses: Sequence[Access]) -> list[Access]:
    """Without duplicates, order kept."""
    return list(dict.fromkeys(accesses))
