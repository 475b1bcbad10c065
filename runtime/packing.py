"""Operations → rows of 48 words: kernel addresses, chunk counts, tables, and a last check of every address.

Chunk counts depend on the work only, never on the number of threads.
"""

from __future__ import annotations

import numpy as np

from compiler.errors import error
from runtime.kernels import layout as L
from runtime.lowering import Spaces, offset_table
from runtime.operations import Operation, float_bits

MAX_CHUNKS = 16
CHUNK_MACS = 500_000
CHUNK_ELEMENTS = 16_384
CHUNK_BYTES = 131_072
SLOW_ELEMENT = 8
"""How many plain elements an element of a chain with a transcendental function counts for."""


def kernel_address(name: str) -> int:
    """Address of a kernel; imports and compiles only what a program needs."""
    if name == "chain":
        from runtime.kernels import chain as module
    elif name == "elementwise":
        from runtime.kernels import elementwise as module
    elif name in ("conv", "conv_wide"):
        from runtime.kernels import conv as module
    elif name in ("depthwise", "pool"):
        from runtime.kernels import window as module
    elif name == "reduce":
        from runtime.kernels import reduce as module
    else:
        from runtime.kernels import move as module
    return getattr(module, name).address


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
        steps = np.array([s for o in operations for s in o.steps] or [[0] * L.STEP_WORDS], np.int64)
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
                raise error("E722", f"translation of {operation.kernel} leaves the arena", where=f"core {operation.core}")

    def _pack_chain(self, d: np.ndarray, operation: Operation, steps: int) -> None:
        target = operation.target
        assert target is not None
        d[L.DST], d[L.DST_TYPE], d[L.DST_ROW], d[L.DST_PIXEL] = target.offset, target.type, target.row, target.pixel
        d[L.DST_FACTOR] = float_bits(operation.target_factor)
        d[L.STEPS], d[L.STEP_COUNT] = steps, len(operation.steps)
        d[L.CHAIN] = kernel_address("chain")

    # -- kernels ----------------------------------------------------------------------------------------------------------
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
        form = common_form(operation)
        if form is not None and operation.kernel == "conv":
            for word, value in form.items():
                d[word] = value
        parts = _parts(operation.work, CHUNK_MACS)
        tiles, panels = -(-operation.geometry.pixels // L.TILE), -(-operation.geometry.columns // L.PANEL)
        _cut(d, min(parts, tiles), panels, parts)

    _pack_conv_wide = _pack_conv

    def _padding_is_zero(self, d: np.ndarray, masks: np.ndarray) -> bool:
        """Whether filters have zeros in the padding of their runs: there is none, or they are constants and it is so."""
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
            self.scratch = max(self.scratch, L.SCRATCH_PANEL + taps * width * 4)

    _pack_depthwise = _pack_pool = _pack_window

    def _pack_reduce(self, d: np.ndarray, operation: Operation) -> None:
        d[L.CHUNKS] = min(_parts(operation.work, CHUNK_ELEMENTS), int(d[L.PIXELS]))

    def _pack_transpose(self, d: np.ndarray, operation: Operation) -> None:
        d[L.CHUNKS] = min(_parts(operation.work, CHUNK_ELEMENTS), -(-int(d[L.COLUMNS]) // 16))

    def _pack_copy(self, d: np.ndarray, operation: Operation) -> None:
        parts = _parts(operation.work, CHUNK_BYTES)
        d[L.CHUNKS] = parts if d[L.N0] * d[L.N1] * d[L.N2] == 1 else min(parts, int(d[L.N0]))

    def _pack_fill(self, d: np.ndarray, operation: Operation) -> None:
        d[L.CHUNKS] = min(_parts(operation.work, CHUNK_BYTES), int(d[L.N0]))


_ADD, _MUL, _MAX, _MIN, _RELU = 0, 2, 3, 4, L.UNARY_BASE


def common_form(operation: Operation) -> dict[int, int] | None:
    """Words that describe a convolution's steps in the form of `kernels.epilogue`, or None when they do not have it."""
    target, steps, geometry = operation.target, operation.steps, operation.geometry
    if target is None or geometry is None or target.type not in (L.TYPE_I8, L.TYPE_F16, L.TYPE_F32):
        return None
    if operation.words.get(L.ROUNDING) and target.type == L.TYPE_I8:
        return None
    rounds = bool(steps) and steps[0][L.KIND] == L.NOTHING
    words = {
        L.FORM: 1, L.FORM_ROUNDS: int(rounds), L.FORM_SCALE: -1, L.FORM_BIAS: -1, L.FORM_RESIDUAL: -1, L.FORM_POST: 0,
        L.POST_FACTOR: float_bits(1.0),
    }  # fmt: skip
    low, high = np.float32(-np.inf), np.float32(np.inf)
    stage = 0
    for k, step in enumerate(steps):
        if bool(step[L.ROUND]) != rounds and not (k == len(steps) - 1 and target.type == L.TYPE_F16):
            return None
        if k == 0 and rounds:
            continue
        found = _stage(step, rounds, geometry.columns)
        if found is None or found < stage or (found == stage and found != _CLAMP):
            return None
        stage = found
        constant = np.array(step[L.CONSTANT], np.int64).astype(np.int32).view(np.float32)
        if found == _CLAMP:
            value = np.float32(0) if step[L.KIND] == _RELU else constant
            if rounds:
                with np.errstate(over="ignore"):
                    value = np.float32(np.float16(value))
            if np.isnan(value) or (value == 0 and np.signbit(value) == (step[L.KIND] != _MIN)):
                return None
            if step[L.KIND] == _MIN:
                high = min(high, value)
            elif high != np.inf:
                return None
            else:
                low = max(low, value)
        elif found == _POST:
            words |= {L.FORM_POST: 1, L.POST_FACTOR: step[L.CONSTANT]}
        else:
            words[(L.FORM_SCALE, L.FORM_BIAS, L.FORM_RESIDUAL)[found - 1]] = k
    if low > high:
        return None
    return words | {L.CLAMP_LOW: float_bits(float(low)), L.CLAMP_HIGH: float_bits(float(high))}


_SCALE, _BIAS, _RESIDUAL, _CLAMP, _POST = range(1, 6)


def _stage(step: list[int], rounds: bool, columns: int) -> int | None:
    """Which part of the common form a step can be."""
    kind, mode = step[L.KIND], step[L.MODE]
    if kind == _RELU or (kind in (_MAX, _MIN) and mode == L.CONST):
        return _CLAMP
    if mode == L.CYCLE and step[L.PERIOD] == columns:
        return {_MUL: _SCALE, _ADD: _BIAS}.get(kind)
    if mode == L.FULL and kind == _ADD:
        return _RESIDUAL if step[L.OPERAND_TYPE] == (L.TYPE_F16 if rounds else L.TYPE_F32) else None
    return _POST if mode == L.CONST and kind == _MUL else None


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



