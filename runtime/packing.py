"""Operations → rows of 48 words: kernel addresses, chunk counts, tables, and a last check of every address.

Chunk counts depend on the work only, never on the number of threads.
"""

from __future__ import annotations

import importlib

import numpy as np

from compiler.errors import error
from runtime.forms import common_form
from runtime.kernels import layout as L  # noqa: N812
from runtime.lowering import Spaces, offset_table
from runtime.operations import Operation, float_bits
from targets.mlu220 import isa

MAX_CHUNKS = 16
CHUNK_MACS = 500_000
CHUNK_ELEMENTS = 16_384
CHUNK_BYTES = 131_072
SLOW_ELEMENT = 8
"""How many plain elements an element of a chain with a transcendental function counts for."""


_MODULES = {
    "chain": "chain", "elementwise": "elementwise", "conv": "conv", "conv_wide": "conv", "depthwise": "window",
    "pool": "window", "transcendental": "transcendental", "reduce": "reduce", "copy": "move", "fill": "move",
    "transpose": "move", "reshape_filter": "move",
}  # fmt: skip


def kernel_address(name: str) -> int:
    """Address of a kernel; imports and compiles only what a program needs."""
    module = importlib.import_module(f"runtime.kernels.{_MODULES[name]}")
    return int(getattr(module, name).address)


class Packer:
    """Makes descriptors. Tables are shared between descriptors that need the same; `keep` holds them alive."""

    def __init__(self, arena: np.ndarray, spaces: Spaces):
        self._arena = arena
        self._spaces = spaces
        self._tables: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}
        self._clean: dict[tuple[int, ...], bool] = {}
        self.keep: list[np.ndarray] = []
        self.scratch = L.SCRATCH_PANEL

    def pack(self, operations: list[Operation]) -> np.ndarray:
        descriptors = np.zeros((len(operations), L.WORDS), np.int64)
        for operation in operations:
            operation.steps = _without_last_rounding(operation)
        steps = np.array([self._resolve(s) for o in operations for s in o.steps] or [[0] * L.STEP_WORDS], np.int64)
        self.keep.append(steps)
        address = steps.ctypes.data
        for d, operation in zip(descriptors, operations, strict=True):
            self._check(operation)
            for word, value in operation.words.items():
                d[word] = value
            d[L.FUNCTION] = kernel_address(operation.kernel)
            if operation.target is not None:
                self._pack_chain(d, operation, address)
            if operation.geometry is not None:
                d[L.PIXELS], d[L.COLUMNS] = operation.geometry.pixels, operation.geometry.columns
                d[L.OUT_WIDTH] = operation.geometry.width
            address += len(operation.steps) * L.STEP_WORDS * 8
            getattr(self, "_pack_" + operation.kernel)(d, operation)
        return descriptors

    def _check(self, operation: Operation) -> None:
        """`check` has proven the instructions; this guards translation itself, over-reads included."""
        for access in (*operation.reads, *operation.writes):
            if access.base < 64 or access.end + 64 > len(self._arena):
                where = f"core {operation.core}, row {operation.row}"
                raise error("E722", f"translation of {operation.kernel} leaves the arena", where=where)

    def _pack_chain(self, d: np.ndarray, operation: Operation, steps: int) -> None:
        target = operation.target
        assert target is not None
        d[L.DST], d[L.DST_TYPE], d[L.DST_ROW], d[L.DST_PIXEL] = target.offset, target.type, target.row, target.pixel
        d[L.DST_FACTOR] = float_bits(operation.target_factor)
        d[L.STEPS], d[L.STEP_COUNT] = steps, len(operation.steps)
        d[L.CHAIN] = kernel_address("chain")
        for word, value in (common_form(operation) or {}).items():
            d[word] = value

    @staticmethod
    def _resolve(step: list[int]) -> list[int]:
        """A step with the address of the function it calls."""
        if not L.UNARY_BASE + 2 <= step[L.KIND] < L.UNARY_BASE + 10:
            return step
        resolved = list(step)
        resolved[L.ADDRESS] = kernel_address("transcendental")
        return resolved

    # -- kernels -------------------------------------------------------------------------------------------------------
    def _pack_conv(self, d: np.ndarray, operation: Operation) -> None:
        assert operation.table is not None and operation.geometry is not None
        if operation.table not in self._tables:
            self._tables[operation.table] = offset_table(operation.table)
            self.keep += self._tables[operation.table]
        offsets, masks = self._tables[operation.table]
        d[L.OFFSETS] = offsets.ctypes.data
        if not self._padding_is_zero(d, masks):
            d[L.TAIL_MASK] = masks.ctypes.data
            self.scratch = max(self.scratch, L.SCRATCH_PANEL + len(masks) * 4 * L.PANEL)
        if d[L.CHAIN] == 0:
            d[L.CHAIN] = kernel_address("chain")  # a convolution that only stores sums still prepares its chain
        parts = _parts(operation.work, CHUNK_MACS)
        tiles, panels = -(-operation.geometry.pixels // L.TILE), -(-operation.geometry.columns // L.PANEL)
        _cut(d, min(parts, tiles), panels, parts)

    _pack_conv_wide = _pack_conv

    def _padding_is_zero(self, d: np.ndarray, masks: np.ndarray) -> bool:
        """Whether the padding of runs holds zeros: there is none, or the filters are constants and it does."""
        if (masks == -1).all():
            return True
        first = int(d[L.FILTERS])
        panels = -(-int(d[L.COLUMNS]) // L.PANEL)
        size = panels * int(d[L.PANEL_BYTES])
        if not self._spaces.is_constant(first, first + size):
            return False
        key = (first, size, id(masks))
        if key not in self._clean:
            words = self._arena[first : first + size].view(np.int32).reshape(panels, len(masks), L.PANEL)
            self._clean[key] = not (words & ~masks[:, None]).any()
        return self._clean[key]

    def _pack_elementwise(self, d: np.ndarray, operation: Operation) -> None:
        geometry = operation.geometry
        assert geometry is not None
        periods = [s[L.PERIOD] for s in operation.steps if s[L.KIND] < L.UNARY_BASE and s[L.MODE] == L.CYCLE]
        width = geometry.columns
        reuse = True
        if width > L.BLOCK:
            step = int(np.lcm.reduce(np.array(periods, np.int64))) if periods else 1
            reuse = 0 < step <= L.BLOCK
            width = L.BLOCK // step * step if reuse else L.BLOCK
        d[L.BLOCK_COLUMNS], d[L.REUSE] = width, reuse
        slow = any(s[L.KIND] > L.UNARY_BASE + 1 and s[L.KIND] != L.NOTHING for s in operation.steps)
        parts = _parts(geometry.elements * (SLOW_ELEMENT if slow else 1), CHUNK_ELEMENTS)
        _cut(d, min(parts, geometry.pixels), -(-geometry.columns // width), parts)

    def _pack_window(self, d: np.ndarray, operation: Operation) -> None:
        geometry = operation.geometry
        assert geometry is not None
        taps = int(d[L.KH] * d[L.KW])
        d[L.BLOCK_COLUMNS] = width = min(geometry.columns, L.BLOCK)
        parts = _parts(operation.work, 2 * CHUNK_ELEMENTS)
        _cut(d, min(parts, geometry.pixels), -(-geometry.columns // width), parts)
        if operation.kernel == "depthwise":
            self.scratch = max(self.scratch, L.SCRATCH_PANEL + taps * (width + 16) * 4)

    _pack_depthwise = _pack_pool = _pack_window

    def _pack_reduce(self, d: np.ndarray, operation: Operation) -> None:
        d[L.CHUNKS] = min(_parts(operation.work, CHUNK_ELEMENTS), int(d[L.PIXELS]))

    def _pack_transpose(self, d: np.ndarray, operation: Operation) -> None:
        d[L.CHUNKS] = min(_parts(operation.work, CHUNK_ELEMENTS), -(-int(d[L.COLUMNS]) // 16))

    def _pack_reshape_filter(self, d: np.ndarray, operation: Operation) -> None:
        d[L.CHUNKS] = min(_parts(operation.work, CHUNK_BYTES), -(-int(d[L.PIXELS]) // isa.LANES) * 2)

    def _pack_copy(self, d: np.ndarray, operation: Operation) -> None:
        parts = _parts(operation.work, CHUNK_BYTES)
        d[L.CHUNKS] = parts if d[L.N0] * d[L.N1] * d[L.N2] == 1 else min(parts, int(d[L.N0]))

    def _pack_fill(self, d: np.ndarray, operation: Operation) -> None:
        d[L.CHUNKS] = min(_parts(operation.work, CHUNK_BYTES), int(d[L.N0]))


def _without_last_rounding(operation: Operation) -> list[list[int]]:
    """The steps, the last one without the rounding to fp16 that the store does anyway."""
    steps = operation.steps
    if not steps or operation.target is None or operation.target.type != L.TYPE_F16:
        return steps
    if steps[-1][L.KIND] == L.NOTHING:
        return steps[:-1]
    last = list(steps[-1])
    last[L.ROUND] = 0
    return [*steps[:-1], last]


def _parts(work: float, unit: int) -> int:
    return int(min(MAX_CHUNKS, max(1.0, work / unit)))


def _cut(d: np.ndarray, across: int, columns: int, parts: int) -> None:
    """Chunks over pixels first, then over blocks of columns."""
    along = max(1, min(columns, parts // across))
    d[L.PIXEL_CHUNKS], d[L.CHUNKS] = across, across * along
