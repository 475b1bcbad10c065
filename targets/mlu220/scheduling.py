"""The ways a kernel can run, and what one costs: the search space of the pass `schedule`.

A candidate names the axis cut over the cores, the tile and the buffering. Channel blocks are as wide as WRAM allows,
rows as many as NRAM allows. Cost is that of the instructions of one typical tile, by the same latency model the timing
report uses, times the number of tiles of the busiest core.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compiler.ir.core import Constant, Value
from compiler.ops.graph import Kernel
from targets.mlu220 import cost, isa
from targets.mlu220.boxes import Box, View, box_shape, dense_strides, volume
from targets.mlu220.emit_kernel import COPIES, WRAM_SLOTS, CoreEmitter, Outside, Tile
from targets.mlu220.hardware import Board
from targets.mlu220.op_base import FILTERS
from targets.mlu220.op_matrix import Conv2d
from targets.mlu220.tiling import (
    CHANNEL_GROUP,
    KernelSchedule,
    KernelShape,
    Parameter,
    allocate,
    granule,
    place_buffers,
    sample_tiles,
    split_convolutions,
    tile_count,
)


def cheapest(
    shape: KernelShape, constraints: dict[str, Any], board: Board
) -> tuple[KernelSchedule, float] | None:
    """The candidate of least modelled cost, the first of equals, and that cost in cycles; None if nothing fits."""
    best: tuple[KernelSchedule, float] | None = None
    for schedule in candidates(shape, constraints, board):
        cycles = estimate(shape, schedule, board)
        if best is None or cycles < best[1]:
            best = schedule, cycles
    return best


IMMEDIATES = frozenset({"constant", "fix_position", "parameter_value", "position", "rounding", "value"})
"""Attributes that say what is computed, not how much of it: numbers inside instructions."""


def structure(kernel: Kernel) -> tuple[Any, ...]:
    """What a kernel's schedule depends on: its ops, their attributes but for immediates, shapes and element types, and
    how they are connected."""
    number: dict[Value, int] = {}

    def kind(value: Value) -> Any:
        return value.type.shape, value.type.dtype

    def name(value: Value | None) -> Any:
        if value is None:
            return None
        return kind(value) if isinstance(value, Constant) else number[value]

    block = kernel.body.block
    for argument in block.arguments:
        number[argument] = len(number)
    ops = []
    for op in block:
        attributes = tuple((k, repr(v)) for k, v in sorted(op.attributes.items()) if k not in IMMEDIATES)
        ops.append((op.op_name, attributes, tuple(name(v) for v in op.operands), tuple(map(kind, op.results))))
        for result in op.results:
            number[result] = len(number)
    noted = kernel.on_chip or {}
    kept = tuple(noted.get("inputs", ())), tuple(noted.get("results", ()))
    staged = tuple(offset >= 0 for offset in noted.get("parameters", ()))
    return tuple(map(kind, block.arguments)), tuple(ops), kept, staged


MOST_CHANNEL_CHOICES = 2
"""Channel blocks tried per split and buffering: the two widest that fit."""

SPLIT_NAMES = {"batch": 0, "rows": 1}


def candidates(shape: KernelShape, constraints: dict[str, Any], board: Board) -> Iterator[KernelSchedule]:
    """Schedules of a kernel that fit the memories, in a fixed order."""
    cores, most = constraints["cores"], constraints.get("max_rows")
    for split in _split_axes(shape, cores, constraints.get("split")):
        for buffers in _buffer_choices(constraints.get("buffers")):
            sizes = _channel_choices(shape, split, cores, constraints.get("max_channels"))
            fitting = 0
            for channels in sizes:
                if fitting == MOST_CHANNEL_CHOICES:
                    break
                found = [
                    _largest_tile(shape, split, cores, buffers, channels, most, images, board)
                    for images in _image_choices(shape, split, most)
                ]
                fitting += any(found)
                for schedule in dict.fromkeys(filter(None, found)):
                    yield schedule
                    smaller = _with_more_tiles(shape, schedule, board)
                    if smaller is not None and not most:
                        yield smaller


def _image_choices(shape: KernelShape, split: int, max_rows: int | None) -> tuple[int, ...]:
    """How many images of a batch a tile may hold at most: one, or all of a core's, so that filters that are cut into
    blocks are loaded once."""
    if len(shape.shape) != 4 or 0 in shape.whole_axes:
        return (shape.shape[0] if shape.shape else 1,)
    return (1, shape.shape[0]) if split != 0 and shape.shape[0] > 1 and not max_rows else (1,)


def _buffer_choices(asked: int | None) -> tuple[int, ...]:
    return (asked,) if asked in (1, 2) else (2, 1)


def _split_axes(shape: KernelShape, cores: int, asked: str | None) -> list[int]:
    """Axes that may be cut over the cores; -1 stands for one core."""
    rank = len(shape.shape)
    possible = [a for a in range(rank) if a not in shape.whole_axes and shape.shape[a] > 1]
    if cores == 1 or not possible:
        return [-1]
    if asked is not None:
        axis = rank - 1 if asked == "channels" else SPLIT_NAMES.get(asked, -1)
        if axis in possible:
            return [axis]
    enough = [a for a in possible if shape.shape[a] >= cores]
    # Columns are cut over the cores only where neither rows nor channels suffice.
    return [a for a in enough if a != 2 or len(enough) < 3 or rank != 4] or possible


def _channel_choices(shape: KernelShape, split: int, cores: int, most: int | None) -> list[int]:
    """Sizes of the last axis of a tile, largest first."""
    if not shape.shape:
        return [1]
    axis = len(shape.shape) - 1
    full = shape.shape[axis]
    unit = granule(shape, axis)
    if split == axis:
        full = min(full, -(-math.ceil(full / cores) // unit) * unit)
    if axis in shape.whole_axes:
        return [full]
    step = CHANNEL_GROUP
    limit = full if most is None else min(full, max(step, -(-most // step) * step))
    sizes = [limit]
    while sizes[-1] > step:
        sizes.append(max(step, -(-(sizes[-1] // 2) // step) * step))
    return list(dict.fromkeys(sizes))


def _largest_tile(
    shape: KernelShape, split: int, cores: int, buffers: int, channels: int, max_rows: int | None, images: int,
    board: Board,
) -> KernelSchedule | None:  # fmt: skip
    """The candidate with the largest tile that fits: shrink batch first, then rows, then columns."""
    if not shape.shape:
        return allocate(shape, KernelSchedule(-1, cores, (), buffers, "direct"), board)
    base = KernelSchedule(split, cores, (), buffers, "direct")
    sizes = list(shape.shape[:-1])
    if 0 <= split < len(sizes):
        sizes[split] = math.ceil(sizes[split] / cores)
    if sizes:
        sizes[0] = min(sizes[0], images)
    if max_rows is not None and len(sizes) > 1 and 1 not in shape.whole_axes:
        sizes[1] = min(sizes[1], max_rows)
    for axis in [a for a in range(len(sizes)) if a not in shape.whole_axes]:
        sizes[axis] = _largest_size(shape, base, sizes, channels, axis, board)
    found = allocate(shape, replace(base, tile=(*sizes, channels)), board)
    return None if found is None else replace(found, weights="sram" if shape.staging else "direct")


def _largest_size(
    shape: KernelShape, base: KernelSchedule, sizes: Sequence[int], channels: int, axis: int, board: Board
) -> int:
    """The largest size of one axis at which a tile fits, at most what it has now; 1 where none does. Bytes grow with
    the size nearly in proportion, so the first guess is rarely far off."""

    def bytes_at(size: int) -> int:
        tile = (*sizes[:axis], size, *sizes[axis + 1 :], channels)
        _, nram, wram = place_buffers(shape, replace(base, tile=tile))
        return nram if wram <= board.wram_bytes else board.nram_usable_bytes + 1

    room, high = board.nram_usable_bytes, sizes[axis]
    if high == 1 or (most := bytes_at(high)) <= room:
        return high
    least = bytes_at(1)
    if least > room or most == least:
        return 1
    size = max(1, min(high - 1, 1 + (room - least) * (high - 1) // (most - least)))
    while size > 1 and bytes_at(size) > room:
        size -= 1
    return size


def _with_more_tiles(shape: KernelShape, found: KernelSchedule, board: Board) -> KernelSchedule | None:
    """The same schedule cut into about four tiles a core, where it has fewer: so that loads and computation overlap."""
    count = tile_count(shape, found)
    if found.buffers == 1 or count >= 4 or not shape.shape:
        return None
    sizes = list(found.tile)
    axis = next((a for a in range(len(sizes) - 1) if sizes[a] >= 4 and a not in shape.whole_axes), None)
    if axis is None:
        return None
    sizes[axis] = math.ceil(sizes[axis] * count / 4)
    smaller = allocate(shape, replace(found, tile=tuple(sizes), slots=(), slot_of=(), parameters=()), board)
    return None if smaller is None else replace(smaller, weights=found.weights)


def staged_bytes(parameter: Parameter) -> int:
    """Bytes of all of a constant parameter, filters packed; 0 for one that is computed."""
    if parameter.kind == FILTERS:
        assert isinstance(parameter.op, Conv2d)
        return parameter.op.filter_bytes(parameter.value.type.static_shape[0])
    return parameter.value.type.bytes if isinstance(parameter.value, Constant) else 0


# -- cost ------------------------------------------------------------------------------------------------------------
class Recorder:
    """Takes instructions for their cost, with the slots that order them."""

    def __init__(self) -> None:
        self.tag = -1
        self.rows: list[list[int]] = []
        self.slots: list[tuple[Sequence[int], Sequence[int]]] = []

    def add(self, instruction: isa.Instruction, writes: Sequence[int], reads: Sequence[int]) -> None:
        self.rows.append(instruction.words)
        self.slots.append((writes, reads))


class Clock:
    """Times instructions: every queue in order, each instruction waiting for the slots it touches.

    Instructions were recorded for one tile; run as those of another, they touch its copies of the buffers.
    """

    def __init__(self, recorder: Recorder, copies: Mapping[int, int], board: Board, cores: int) -> None:
        rows = np.array(recorder.rows, "<i4").reshape(-1, isa.ROW_WORDS)
        queues, durations = isa.queue_of(rows).tolist(), _durations(rows, board, cores)
        slots = [(self._rotating(w, copies), self._rotating(r, copies)) for w, r in recorder.slots]
        self.entries = list(zip(queues, durations, slots, strict=True))
        self.free = [0.0, 0.0, 0.0]
        self.written: dict[int, float] = {}
        self.read: dict[int, float] = {}
        self.now = 0.0

    @staticmethod
    def _rotating(slots: Sequence[int], copies: Mapping[int, int]) -> list[tuple[int, int, int]]:
        """(number of the buffer's first copy, copy, how many) of on-chip slots."""
        return [(s - s % COPIES, s % COPIES, copies.get(s // COPIES, 0)) for s in slots if s >= 0]

    def run(self, first: int, end: int, shift: int = 0) -> None:
        """Time the entries of a range as those of the tile `shift` further on; `now` is then when the last of them
        ends."""
        written, read, free = self.written, self.read, self.free
        for queue, duration, (writes, reads) in self.entries[first:end]:
            start = free[queue]
            taken = [base + ((copy + shift) % count if count else copy) for base, copy, count in reads]
            made = [base + ((copy + shift) % count if count else copy) for base, copy, count in writes]
            for slot in taken:
                start = max(start, written.get(slot, 0.0))
            for slot in made:
                start = max(start, written.get(slot, 0.0), read.get(slot, 0.0))
            self.now = free[queue] = start + duration
            for slot in taken:
                read[slot] = max(read.get(slot, 0.0), self.now)
            for slot in made:
                written[slot] = self.now


def _durations(rows: np.ndarray, board: Board, cores: int) -> list[float]:
    """Cycles of each instruction when `cores` cores do the same at once and share the DDR channel."""
    durations = cost.cycles(rows, board).astype(float)
    copies = np.flatnonzero(rows[:, 0] == isa.Copy.opcode)
    if len(copies):
        transfers = cost.transfers(rows[copies], board)
        shared = transfers.latency + np.maximum(transfers.channel * cores, transfers.port)
        durations[copies] = np.where(transfers.channel > 0, shared, durations[copies])
    return durations.tolist()


FULL = 4
"""Tiles timed for an estimate beyond those that fill the pipeline."""

BLOCKS_SHOWN = 4
"""Least channel blocks timed for an estimate; those before the last stand for all that follow."""


def estimate(shape: KernelShape, schedule: KernelSchedule, board: Board) -> float:
    """Modelled cycles of a kernel: typical tiles of the busiest core, timed in the order in which they will be emitted
    until the pipeline is full, and for the rest as many times what one more tile, or one more channel block, takes. A
    barrier and a first access to DDR come on top."""
    parts: list[Box] = schedule.parts(shape.shape, granule(shape, schedule.split)) if shape.shape else [()]
    part = max(parts, key=volume) if shape.shape else ()
    count = tile_count(shape, schedule) if shape.shape else 1
    blocks = -(-box_shape(part)[-1] // schedule.tile[-1]) if shape.shape else 1
    per_block = max(count // blocks, 1)
    recorder = Recorder()
    emitter = CoreEmitter(recorder, shape, schedule, _pretend(shape))
    typical = _typical(shape, schedule, part)
    kinds = [typical, replace(typical, number=1, first_of_block=False), replace(typical, number=2)]
    ranges = {
        (work, kind, stage): _emitted(emitter, recorder, work, tile, stage)
        for kind, tile in enumerate(kinds) for work, stage in emitter.parts_of_a_tile()
    }  # fmt: skip
    clock = Clock(recorder, _copies(shape, schedule), board, len(parts))
    stages = len(emitter.stages)
    shown = min(per_block, stages + FULL)
    shown_blocks = min(blocks, max(BLOCKS_SHOWN, -(-(stages + FULL) // shown) + 1))
    ends: dict[int, float] = {}
    for work, index, stage in emitter.order(shown * shown_blocks):
        kind = 1 if index % shown else 2 if index else 0
        clock.run(*ranges[work, kind, stage], index - kinds[kind].number)
        if stage == stages - 1:
            ends[index] = max(clock.free)
    # Tiles that end while the first stage still begins others: the pace before the pipeline drains.
    pace = (ends[FULL - 1] - ends[FULL - 3]) / 2 if per_block > shown else 0.0
    full_blocks = [ends[shown * (shown_blocks - back) - 1] for back in (1, 3)] if blocks > shown_blocks else [0.0, 0.0]
    more_blocks = (full_blocks[0] - full_blocks[1]) / 2
    cycles = max(clock.free) + (blocks - shown_blocks) * more_blocks + blocks * (per_block - shown) * pace
    return board.ddr_latency_cycles + 2 * board.sync_cycles + cycles


def _copies(shape: KernelShape, schedule: KernelSchedule) -> dict[int, int]:
    """Copies of every buffer whose copies tiles take in turn: tile buffers, and sums of split convolutions."""
    copies = {slot: count for slot, (_, _, count) in enumerate(schedule.slots)}
    first = WRAM_SLOTS // COPIES + len(shape.parameters)
    for index in range(len(split_convolutions(shape))):
        copies[first + index] = schedule.parameters[len(shape.parameters) + index][2]
    return copies


def _emitted(emitter: CoreEmitter, recorder: Recorder, work: str, tile: Tile, stage: int) -> tuple[int, int]:
    """Emit one part of a tile; the range of its instructions."""
    first = len(recorder.rows)
    emitter.do(work, tile, stage)
    return first, len(recorder.rows)


def _typical(shape: KernelShape, schedule: KernelSchedule, part: Box) -> Tile:
    """A tile of the part, of full size where there is one."""
    if not shape.shape:
        return Tile(0, 0, True, ())
    box = tuple((low, min(low + size, high)) for (low, high), size in zip(part, schedule.tile, strict=True))
    middle = sample_tiles(shape, [high - low for low, high in box])
    inside = middle[len(middle) // 2]
    return Tile(0, 0, True, (*inside[:-1], box[-1]))


def _pretend(shape: KernelShape) -> Outside:
    """Everything dense at address 0, of SRAM or the workspace: offsets do not change the cost."""

    def view(value: Value) -> View:
        type = value.type
        space = isa.SRAM if value in shape.kept else isa.WORKSPACE
        return View(space, 0, type.static_shape, dense_strides(type.static_shape, type.dtype.size), type.dtype)

    def place(parameter: Parameter) -> tuple[int, int]:
        return (isa.SRAM if parameter in shape.staging else isa.CONSTANTS), 0

    return Outside(view=view, place=place, tags={})
