"""Operations → rows of 48 words: kernel addresses, chunk counts, tables, and a last check of every address.

What is uniform over an operation (types, steps, the shape of tiles) chooses the kernel, which is translated for it.
Chunk counts depend on the work only, never on the number of threads.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np

from compiler.errors import error
from runtime.kernels import layout as L  # noqa: N812
from runtime.lowering import Spaces, offset_table
from runtime.operations import Geometry, Operation
from targets.mlu220 import isa
from targets.mlu220.isa_fields import f32_bits

MAX_CHUNKS = 16
CHUNK_MACS = 500_000
CHUNK_ELEMENTS = 16_384
CHUNK_BYTES = 131_072
SLOW_ELEMENT = 8
"""How many plain elements an element of a chain with a transcendental function counts for."""

TILES = {1: (14, 8, 4, 2, 1), 2: (7, 8, 4, 2, 1)}
"""Pixels of a convolution's tile by its vectors of columns, the usual one first: sums of a tile fill the registers."""
TILE_COST = 3
"""What a tile costs besides its sums, in vectors of sums."""
WIDE_TILE = 2

_MODULES = {
    "elementwise": "elementwise", "conv": "conv", "conv_wide": "conv", "depthwise": "window", "pool": "window",
    "reduce": "reduce", "copy": "move", "fill": "move", "transpose": "move", "reshape_filter": "move",
}  # fmt: skip


def kernel_address(name: str, **known: Any) -> int:
    """Address of a kernel for what is known; imports and compiles only what a program needs."""
    module = importlib.import_module(f"runtime.kernels.{_MODULES[name]}")
    return int(getattr(module, "conv" if name == "conv_wide" else name).address(**known))


class Packer:
    """Makes descriptors. Tables are shared between descriptors that need the same; `keep` holds them alive."""

    def __init__(self, arena: np.ndarray, spaces: Spaces):
        self._arena = arena
        self._spaces = spaces
        self._tables: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}
        self._clean: dict[tuple[int, ...], bool] = {}
        self._begins: dict[tuple[int, int, int], np.ndarray] = {}
        self.keep: list[np.ndarray] = []
        self.scratch = L.SCRATCH_PANEL

    def pack(self, operations: list[Operation]) -> np.ndarray:
        descriptors = np.zeros((len(operations), L.WORDS), np.int64)
        for operation in operations:
            operation.steps = _simplified(operation)
        steps = np.array([s for o in operations for s in o.steps] or [[0] * L.STEP_WORDS], np.int64)
        self.keep.append(steps)
        address = steps.ctypes.data
        for d, operation in zip(descriptors, operations, strict=True):
            self._check(operation)
            for word, value in operation.words.items():
                d[word] = value
            if operation.target is not None:
                target = operation.target
                d[L.DST], d[L.DST_ROW], d[L.DST_PIXEL] = target.offset, target.row, target.pixel
                d[L.DST_FACTOR] = f32_bits(operation.target_factor)
                d[L.STEPS] = address
            if operation.geometry is not None:
                d[L.PIXELS], d[L.COLUMNS] = operation.geometry.pixels, operation.geometry.columns
                d[L.OUT_WIDTH] = operation.geometry.width
            address += len(operation.steps) * L.STEP_WORDS * 8
            known = getattr(self, "_pack_" + operation.kernel)(d, operation)
            d[L.FUNCTION] = kernel_address(operation.kernel, **known)
        return descriptors

    def _check(self, operation: Operation) -> None:
        """`check` has proven the instructions; this guards translation itself, over-reads included."""
        for access in (*operation.reads, *operation.writes):
            if access.base < 64 or access.end + 64 > len(self._arena):
                where = f"core {operation.core}, row {operation.row}"
                raise error("E722", f"translation of {operation.kernel} leaves the arena", where=where)

    # -- kernels: each fills in its words and says what the kernel is translated for
    def _pack_conv(self, d: np.ndarray, operation: Operation) -> dict[str, Any]:
        geometry = operation.geometry
        assert operation.table is not None and geometry is not None
        if operation.table not in self._tables:
            self._tables[operation.table] = offset_table(operation.table)
            self.keep += self._tables[operation.table]
        offsets, masks = self._tables[operation.table]
        d[L.OFFSETS] = offsets.ctypes.data
        wide = (int(d[L.SRC_TYPE]), int(d[L.FILTER_TYPE]))
        dirty = not self._padding_is_zero(d, masks)
        if dirty:
            d[L.TAIL_MASK] = masks.ctypes.data
            self.scratch = max(self.scratch, L.SCRATCH_PANEL + len(masks) * 4 * L.PANEL)
        elif wide == (L.TYPE_I8, L.TYPE_I8):
            d[L.STARTS] = self._starts(d)
        linear = _is_linear(d, operation)
        tile = WIDE_TILE if operation.kernel == "conv_wide" else _tile(geometry)
        parts = _parts(operation.work, CHUNK_MACS)
        tiles, panels = -(-geometry.pixels // tile), -(-geometry.columns // L.PANEL)
        _cut(d, min(parts, tiles), panels, parts)
        return {
            "wide": wide, "partial": int(d[L.PARTIAL]), "tile": tile, "linear": linear, "dirty": dirty,
            "full": geometry.columns >= L.PANEL, "tail": geometry.columns % L.PANEL, **_epilogue(operation),
        }  # fmt: skip

    _pack_conv_wide = _pack_conv

    def _padding_is_zero(self, d: np.ndarray, masks: np.ndarray) -> bool:
        """Whether the padding of runs holds zeros: there is none, or the filters are constants and it does."""
        if (masks == -1).all():
            return True
        first, size = self._filters(d)
        if not self._spaces.is_constant(first, first + size):
            return False
        key = (first, size, id(masks))
        if key not in self._clean:
            words = self._arena[first : first + size].view(np.int32).reshape(-1, len(masks), L.PANEL)
            self._clean[key] = not (words & ~masks[:, None]).any()
        return self._clean[key]

    def _filters(self, d: np.ndarray) -> tuple[int, int]:
        """(offset, bytes) of a convolution's filters."""
        return int(d[L.FILTERS]), -(-int(d[L.COLUMNS]) // L.PANEL) * int(d[L.PANEL_BYTES])

    def _starts(self, d: np.ndarray) -> int:
        """Address of what sums begin with, when the filters are constants; otherwise 0, and the kernel computes it."""
        from runtime.kernels.vnni import starts_of

        first, size = self._filters(d)
        if not self._spaces.is_constant(first, first + size):
            return 0
        steps = int(d[L.K_STEPS])
        key = (first, size, steps)  # the same bytes may be many columns of few steps elsewhere
        if key not in self._begins:
            self._begins[key] = starts_of(self._arena[first : first + size], steps)
            self.keep.append(self._begins[key])
        return int(self._begins[key].ctypes.data)

    def _pack_elementwise(self, d: np.ndarray, operation: Operation) -> dict[str, Any]:
        geometry = operation.geometry
        assert geometry is not None
        periods = [s[L.PERIOD] for s in operation.steps if s[L.KIND] < L.UNARY_BASE and s[L.MODE] == L.CYCLE]
        width = geometry.columns
        reuse = True
        if width > L.BLOCK and periods:
            step = math.lcm(*periods)
            reuse = step <= L.BLOCK
            width = L.BLOCK // step * step if reuse else L.BLOCK
        elif width > L.BLOCK:
            width = -(-geometry.columns // MAX_CHUNKS // L.BLOCK) * L.BLOCK
        d[L.BLOCK_COLUMNS], d[L.REUSE] = width, reuse
        slow = any(s[L.KIND] > L.UNARY_BASE + 1 and s[L.KIND] != L.NOTHING for s in operation.steps)
        parts = _parts(geometry.elements * (SLOW_ELEMENT if slow else 1), CHUNK_ELEMENTS)
        _cut(d, min(parts, geometry.pixels), -(-geometry.columns // width), parts)
        return {"source": int(d[L.SRC_TYPE]), **_epilogue(operation)}

    def _pack_depthwise(self, d: np.ndarray, operation: Operation) -> dict[str, Any]:
        taps, width = self._cut_window(d, operation)
        self.scratch = max(self.scratch, L.SCRATCH_PANEL + taps * (width + 16) * 4)
        known = (3, 3) if (d[L.KH], d[L.KW]) == (3, 3) else None
        dense = bool(d[L.STRIDE_X] == 1 and d[L.DILATION_X] == 1)
        return {"source": int(d[L.SRC_TYPE]), "size": known, "dense": dense, **_epilogue(operation)}

    def _pack_pool(self, d: np.ndarray, operation: Operation) -> dict[str, Any]:
        self._cut_window(d, operation)
        return {"source": int(d[L.SRC_TYPE]), "function": int(d[L.FUNCTION_CODE]), **_epilogue(operation)}

    @staticmethod
    def _cut_window(d: np.ndarray, operation: Operation) -> tuple[int, int]:
        """(taps, columns of a block)."""
        geometry = operation.geometry
        assert geometry is not None
        d[L.BLOCK_COLUMNS] = width = min(geometry.columns, L.BLOCK)
        parts = _parts(operation.work, 2 * CHUNK_ELEMENTS)
        _cut(d, min(parts, geometry.pixels), -(-geometry.columns // width), parts)
        return int(d[L.KH] * d[L.KW]), width

    def _pack_reduce(self, d: np.ndarray, operation: Operation) -> dict[str, Any]:
        d[L.CHUNKS] = min(_parts(operation.work, CHUNK_ELEMENTS), int(d[L.PIXELS]))
        return {"source": int(d[L.SRC_TYPE]), "code": int(d[L.FUNCTION_CODE])}

    def _pack_transpose(self, d: np.ndarray, operation: Operation) -> dict[str, Any]:
        d[L.CHUNKS] = min(_parts(operation.work, CHUNK_ELEMENTS), -(-int(d[L.COLUMNS]) // 16))
        return {"size": int(d[L.SIZE])}

    def _pack_reshape_filter(self, d: np.ndarray, operation: Operation) -> dict[str, Any]:
        d[L.CHUNKS] = min(_parts(operation.work, CHUNK_BYTES), -(-int(d[L.PIXELS]) // isa.LANES) * 2)
        return {"size": int(d[L.SIZE])}

    def _pack_copy(self, d: np.ndarray, operation: Operation) -> dict[str, Any]:
        parts = _parts(operation.work, CHUNK_BYTES)
        d[L.CHUNKS] = parts if d[L.N0] * d[L.N1] * d[L.N2] == 1 else min(parts, int(d[L.N0]))
        return {}

    def _pack_fill(self, d: np.ndarray, operation: Operation) -> dict[str, Any]:
        d[L.CHUNKS] = min(_parts(operation.work, CHUNK_BYTES), int(d[L.N0]))
        return {"size": int(d[L.SIZE])}


def _epilogue(operation: Operation) -> dict[str, Any]:
    """What a kernel with steps is translated for: the steps, and (element type, half away) of what it stores."""
    columns = (L.KIND, L.MODE, L.OPERAND_TYPE)
    steps = tuple((*(int(s[c]) for c in columns), bool(s[L.ROUND]), bool(s[L.SWAP])) for s in operation.steps)
    kind = operation.target.type if operation.target is not None else L.TYPE_F32
    half_away = bool(operation.words.get(L.ROUNDING)) and kind in (L.TYPE_I8, L.TYPE_I16, L.TYPE_I32)
    return {"steps": steps, "target": (int(kind), half_away)}


def _is_linear(d: np.ndarray, operation: Operation) -> bool:
    """Whether the pixels of a convolution lie at one distance everywhere, from row to row too."""
    geometry, width = operation.geometry, int(d[L.OUT_WIDTH])
    assert geometry is not None
    pairs = [(d[L.STRIDE_Y] * d[L.SRC_ROW], d[L.STRIDE_X] * d[L.SRC_PIXEL]), (d[L.DST_ROW], d[L.DST_PIXEL])]
    pairs += [
        (s[L.OPERAND_ROW], s[L.OPERAND_PIXEL])
        for s in operation.steps
        if s[L.KIND] < L.UNARY_BASE and s[L.MODE] == L.FULL
    ]
    return geometry.height == 1 or all(row == width * pixel for row, pixel in pairs)


def _tile(geometry: Geometry) -> int:
    """Pixels of a tile: those that waste least on the last one."""
    vectors = 1 if geometry.columns <= L.PANEL // 2 else 2

    def cost(tile: int) -> int:
        return -(-geometry.pixels // tile) * (tile * vectors + TILE_COST)

    return min(TILES[vectors], key=cost)


def _simplified(operation: Operation) -> list[list[int]]:
    """The steps in the words kernels know, without roundings that change nothing: of what is an fp16 number already,
    and of the last step where the store rounds anyway."""
    steps, halves = [], operation.words.get(L.SRC_TYPE) == L.TYPE_F16 and operation.vector is not None
    stored = operation.target is not None and operation.target.type == L.TYPE_F16
    for number, original in enumerate(operation.steps):
        step = list(original)
        bound = np.array(step[L.CONSTANT], np.int64).astype(np.int32).view(np.float32)
        if step[L.MODE] == L.CONST and _is_plain_bound(step[L.KIND], bound):
            step[L.KIND] += L.AT_LEAST - L.MAX
        if halves and _keeps_halves(step, bound):
            step[L.ROUND] = 0
        halves = bool(step[L.ROUND]) or (halves and _keeps_halves(step, bound))
        if stored and number == len(operation.steps) - 1:
            step[L.ROUND] = 0
        if step[L.KIND] != L.NOTHING or step[L.ROUND]:
            steps.append(step)
    return steps


def _is_plain_bound(kind: int, bound: np.ndarray) -> bool:
    """Whether MAX or MIN with this constant needs no care for NaN or for the sign of zero."""
    careful = np.isnan(bound) or (bound == 0 and bool(np.signbit(bound)) == (kind == L.MAX))
    return kind in (L.MAX, L.MIN) and not careful


def _keeps_halves(step: list[int], bound: np.ndarray) -> bool:
    """Whether a step makes fp16 numbers of fp16 numbers without rounding."""
    if step[L.KIND] in (L.AT_LEAST, L.AT_MOST):
        with np.errstate(over="ignore"):
            return bool(np.float32(np.float16(bound)) == bound)
    return step[L.KIND] in (L.RELU, L.ABS, L.NOTHING)


def _parts(work: float, unit: int) -> int:
    return int(min(MAX_CHUNKS, max(1.0, work / unit)))


def _cut(d: np.ndarray, across: int, columns: int, parts: int) -> None:
    """Chunks over pixels first, then over blocks of columns."""
    along = max(1, min(columns, parts // across))
    d[L.PIXEL_CHUNKS], d[L.CHUNKS] = across, across * along
