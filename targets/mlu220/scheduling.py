"""The ways a kernel can run, and what one costs: the search space of the pass `schedule`.

A candidate names the axis cut over the cores, the tile and the buffering. Channel blocks are as wide as WRAM allows,
rows as many as NRAM allows. Cost is that of the instructions of one typical tile, by the same latency model the timing
report uses, times the number of tiles of the busiest core.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compiler.ir.core import Value
from targets.mlu220 import cost, isa
from targets.mlu220.boxes import Box, View, box_shape, dense_strides, volume
from targets.mlu220.emit_kernel import CoreEmitter, Outside, Tile
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
    sample_tiles,
    tile_count,
)

SPLIT_NAMES = {"batch": 0, "rows": 1}


def candidates(shape: KernelShape, constraints: dict[str, Any], board: Board) -> Iterator[KernelSchedule]:
    """Schedules of a kernel that fit the memories, in a fixed order."""
    cores = constraints["cores"]
    for split in _split_axes(shape, cores, constraints.get("split")):
        for buffers in _buffer_choices(constraints.get("buffers")):
            for channels in _channel_choices(shape, split, cores, constraints.get("max_channels")):
                found = _largest_tile(shape, split, cores, buffers, channels, constraints.get("max_rows"), board)
                if found is None:
                    continue
                yield found
                smaller = _with_more_tiles(shape, found, board)
                if smaller is not None and not constraints.get("max_rows"):
                    yield smaller


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
    return possible


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
    shape: KernelShape, split: int, cores: int, buffers: int, channels: int, max_rows: int | None, board: Board
) -> KernelSchedule | None:
    """The candidate with the largest tile that fits: shrink batch first, then rows, then columns."""
    if not shape.shape:
        return allocate(shape, KernelSchedule(-1, cores, (), buffers, "direct"), board)
    base = KernelSchedule(split, cores, (), buffers, "direct")
    sizes = list(shape.shape[:-1])
    if 0 <= split < len(sizes):
        sizes[split] = math.ceil(sizes[split] / cores)
    if len(shape.shape) == 4 and not {0} & shape.whole_axes:
        sizes[0] = 1
    if max_rows is not None and len(sizes) > 1 and 1 not in shape.whole_axes:
        sizes[1] = min(sizes[1], max_rows)
    while True:
        found = allocate(shape, replace(base, tile=(*sizes, channels)), board)
        if found is not None:
            return replace(found, weights=_weights(shape, found, board))
        axis = next((a for a in range(len(sizes)) if sizes[a] > 1 and a not in shape.whole_axes), None)
        if axis is None:
            return None
        sizes[axis] = math.ceil(sizes[axis] / 2) if sizes[axis] > 8 else sizes[axis] - 1


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


def _weights(shape: KernelShape, schedule: KernelSchedule, board: Board) -> str:
    """Through SRAM when several cores need the same filters and all of them fit half of it."""
    total = sum(filters_bytes(p) for p in shape.parameters if p.kind == FILTERS)
    shared = schedule.cores > 1 and schedule.split not in (-1, len(shape.shape) - 1)
    return "sram" if shared and 0 < total <= sram_half(board) else "direct"


def filters_bytes(parameter: Parameter) -> int:
    """Bytes of all filters of a parameter."""
    assert isinstance(parameter.op, Conv2d)
    return parameter.op.filter_bytes(parameter.value.type.static_shape[0])


def sram_half(board: Board) -> int:
    return board.sram_usable_bytes // 2 // 128 * 128


# -- cost ------------------------------------------------------------------------------------------------------------
class Recorder:
    """Takes instructions for their cost alone."""

    def __init__(self) -> None:
        self.tag = -1
        self.rows: list[list[int]] = []

    def add(self, instruction: isa.Instruction, writes: Sequence[int], reads: Sequence[int]) -> None:
        self.rows.append(instruction.words)


@dataclass(frozen=True)
class Load:
    """Cycles that some instructions keep each resource busy: a core's three queues, and the DDR channel all cores
    share."""

    dma: float
    matrix: float
    vector: float
    ddr: float

    @staticmethod
    def of(rows: np.ndarray, board: Board) -> Load:
        if not len(rows):
            return Load(0.0, 0.0, 0.0, 0.0)
        dma, matrix, vector = np.bincount(isa.queue_of(rows), cost.cycles(rows, board), minlength=3).astype(float)
        copies = rows[rows[:, 0] == isa.Copy.opcode]
        return Load(dma, matrix, vector, float(cost.transfers(copies, board).channel.sum()) if len(copies) else 0.0)

    def transfer(self, cores: int) -> float:
        """Cycles of the transfers when so many cores do the same at once."""
        return max(self.dma, self.ddr * cores)


def estimate(shape: KernelShape, schedule: KernelSchedule, board: Board) -> float:
    """Modelled cycles of a kernel: the busiest core's tiles, each as long as its slowest resource, plus one tile to
    fill the pipeline; without double buffering the queues of a tile add up. A barrier and a first access to DDR come on
    top."""
    part = max(schedule.parts(shape.shape, granule(shape, schedule.split)), key=volume) if shape.shape else ()
    cores = len(schedule.parts(shape.shape, granule(shape, schedule.split)))
    tile, parameters = _loads(shape, schedule, _typical(shape, schedule, part), board)
    blocks = -(-box_shape(part)[-1] // schedule.tile[-1]) if shape.shape else 1
    tiles = tile_count(shape, schedule) if shape.shape else 1
    alone = tile.transfer(cores) + tile.matrix + tile.vector
    steady = alone if schedule.buffers == 1 else max(tile.transfer(cores), tile.matrix, tile.vector)
    start = board.ddr_latency_cycles + 2 * board.sync_cycles
    return start + (tiles - 1) * steady + alone + blocks * parameters.transfer(cores)


def _loads(shape: KernelShape, schedule: KernelSchedule, tile: Tile, board: Board) -> tuple[Load, Load]:
    """What a tile costs without its parameters, and what the parameters of a channel block cost."""
    recorder = Recorder()
    emitter = CoreEmitter(recorder, shape, schedule, _pretend(shape, schedule))
    emitter.load(replace(tile, first_of_block=False))
    inputs = len(recorder.rows)
    emitter.compute(tile)
    emitter.store(tile)
    whole = len(recorder.rows)
    emitter.load(replace(tile, first_of_block=True))
    rows = np.array(recorder.rows, "<i4").reshape(-1, isa.ROW_WORDS)
    return Load.of(rows[:whole], board), Load.of(rows[whole : len(rows) - inputs], board)


def _typical(shape: KernelShape, schedule: KernelSchedule, part: Box) -> Tile:
    """A tile of the part, of full size where there is one."""
    if not shape.shape:
        return Tile(0, 0, True, ())
    box = tuple((low, min(low + size, high)) for (low, high), size in zip(part, schedule.tile, strict=True))
    middle = sample_tiles(shape, [high - low for low, high in box])
    inside = middle[len(middle) // 2]
    return Tile(0, 0, True, (*inside[:-1], box[-1]))


def _pretend(shape: KernelShape, schedule: KernelSchedule) -> Outside:
    """Everything dense at address 0 of the workspace: places do not change the cost."""

    def view(value: Value) -> View:
        type = value.type
        return View(isa.WORKSPACE, 0, type.static_shape, dense_strides(type.static_shape, type.dtype.size), type.dtype)

    space = isa.SRAM if schedule.weights == "sram" else isa.CONSTANTS
    return Outside(view=view, filters=lambda parameter: (space, 0), tags={})
