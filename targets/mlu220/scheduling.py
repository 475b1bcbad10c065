"""The ways a kernel can run, and what one costs: the search space of the pass `schedule`.

A candidate names the axis cut over the cores, the tile and the buffering. Channel blocks are as wide as WRAM allows,
rows as many as NRAM allows. Cost is that of the instructions of one typical tile, by the same latency model the timing
report uses, times the number of tiles of the busiest core.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compiler.ir.core import Constant, Value
from compiler.ops.graph import Kernel
from targets.mlu220 import cost, isa
from targets.mlu220.boxes import Box, View, box_shape, clip, dense_strides, volume
from targets.mlu220.emit_kernel import COPIES, WRAM_SLOTS, CoreEmitter, Outside, Tile
from targets.mlu220.hardware import Board
from targets.mlu220.op_base import FILTERS, MluOp
from targets.mlu220.op_matrix import Conv2d
from targets.mlu220.op_vector import DepthwiseConv2d, Pool
from targets.mlu220.tiling import (
    CHANNEL_GROUP,
    KernelSchedule,
    KernelShape,
    Parameter,
    allocate,
    granule,
    held_inputs,
    place_buffers,
    products,
    sample_tiles,
    split_convolutions,
    tile_count,
)


def cheapest(
    shape: KernelShape, constraints: dict[str, Any], board: Board
) -> tuple[KernelSchedule, float] | None:
    """The candidate of least modelled cost, the first of equals, and that cost in cycles; None if nothing fits, or
    nothing that fits takes less than the constraint `below`.

    What no schedule of a kind can beat is known before its tile is sought: kinds whose bound is above the best time so
    far are passed over, and so are candidates.
    """
    if any(len(outside) > 1 for outside in shape.padding.values()):
        return None
    below = constraints.get("below", math.inf)
    best: tuple[KernelSchedule, float] | None = None

    def may_be_best(schedule: KernelSchedule) -> bool:
        return least_cycles(shape, schedule, board) < (best[1] if best is not None else below)

    for schedule in candidates(shape, constraints, board, may_be_best):
        if may_be_best(schedule):
            cycles = estimate(shape, schedule, board)
            if cycles < (best[1] if best is not None else below):
                best = schedule, cycles
    return best


IMMEDIATES = frozenset({"constant", "fix_position", "parameter_value", "position", "rounding"})
"""Attributes that say what is computed, not how much of it: numbers inside instructions."""


def structure(kernel: Kernel) -> tuple[Any, ...]:
    """What a kernel's schedule depends on: its ops, their attributes but for immediates, shapes and element types, and
    how they are connected. A constant counts by its shape and by where else it is read, not by what it holds."""
    number: dict[Value, int] = {}

    def kind(value: Value) -> Any:
        return value.type.shape, value.type.dtype

    def name(value: Value | None) -> Any:
        if value is None:
            return None
        if isinstance(value, Constant):
            return number.setdefault(value, len(number)), kind(value)
        return number[value]

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

COLUMN_PARTS = (2, 4)
"""Into how many parts columns are cut where that saves computing borders again."""

NEVER = 1 << 62
"""Bytes of a tile that no NRAM has room for."""

SPLIT_NAMES = {"batch": 0, "rows": 1}


def candidates(
    shape: KernelShape, constraints: dict[str, Any], board: Board,
    is_wanted: Callable[[KernelSchedule], bool] = lambda schedule: True,
) -> Iterator[KernelSchedule]:  # fmt: skip
    """Schedules of a kernel that fit the memories, in a fixed order; kinds are left out that are not wanted even with
    the largest tile there could be. Channel blocks narrower than the lanes are tried only where no other fits."""
    cores, max_rows, most = constraints["cores"], constraints.get("max_rows"), constraints.get("max_channels")
    for choices in (_channel_choices, _narrow_choices):
        fits = False
        for split in _split_axes(shape, cores, constraints.get("split")):
            sizes = _size_choices(shape, split, cores, max_rows)
            for buffers in _buffer_choices(constraints.get("buffers")):
                base = KernelSchedule(split, cores, (), buffers, "direct")
                widths = choices(shape, split, cores, most)
                for schedule in _largest_tiles(shape, base, widths, sizes, board, is_wanted):
                    fits = True
                    yield schedule
                    smaller = _with_more_tiles(shape, schedule, board)
                    if smaller is not None and not max_rows:
                        yield smaller
        if fits or shape.assumed is not None:
            return


def _largest_tiles(
    shape: KernelShape, base: KernelSchedule, widths: Sequence[int], sizes: Sequence[tuple[int, ...]], board: Board,
    is_wanted: Callable[[KernelSchedule], bool],
) -> Iterator[KernelSchedule]:  # fmt: skip
    """The largest tile for each of the widest channel blocks that fit and each of some sizes of the other axes."""
    fitting = 0
    for channels in widths:
        if fitting == MOST_CHANNEL_CHOICES:
            return
        wanted = [most for most in sizes if is_wanted(replace(base, tile=(*most, channels)))]
        found = [_largest_tile(shape, base, channels, most, board) for most in wanted]
        fitting += any(found)
        yield from dict.fromkeys(filter(None, found))


def _size_choices(shape: KernelShape, split: int, cores: int, max_rows: int | None) -> list[tuple[int, ...]]:
    """The most that a tile may have of every axis but the last: a core's part; of a batch one image or all; where what
    lies outside a tile is computed again, also parts of the columns, so that there is room for more rows."""
    sizes = list(shape.shape[:-1])
    if 0 <= split < len(sizes):
        sizes[split] = math.ceil(sizes[split] / cores)
    if max_rows is not None and len(sizes) > 1 and 1 not in shape.whole_axes:
        sizes[1] = min(sizes[1], max_rows)
    found = []
    for images in _image_choices(shape, split, max_rows):
        most = [min(sizes[0], images), *sizes[1:]] if sizes else []
        found.append(tuple(most))
        if len(sizes) == 3 and shape.recomputes and images == 1 and not max_rows and 2 not in shape.whole_axes:
            found += [(*most[:2], -(-most[2] // parts)) for parts in COLUMN_PARTS if most[2] >= 4 * parts]
    return list(dict.fromkeys(found))


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


def _narrow_choices(shape: KernelShape, split: int, cores: int, most: int | None) -> list[int]:
    """Sizes of the last axis below the least of `_channel_choices`, largest first: for windows of which not even one
    over a vector of channels fits, and for elements picked from all over a long row."""
    axis = len(shape.shape) - 1
    if axis < 0 or axis in shape.whole_axes or granule(shape, axis) > 1:
        return []
    sizes = [_channel_choices(shape, split, cores, most)[-1]]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    return sizes[1:]


def _largest_tile(
    shape: KernelShape, base: KernelSchedule, channels: int, most: Sequence[int], board: Board
) -> KernelSchedule | None:
    """The candidate with the largest tile that fits, of sizes up to `most`: shrink batch first, then rows, then
    columns."""
    weights = "sram" if shape.staging else "direct"
    if not shape.shape:
        return allocate(shape, KernelSchedule(-1, base.cores, (), base.buffers, weights), board)
    sizes = list(most)
    if not sizes:  # nothing but channels
        return allocate(shape, replace(base, tile=(channels,), weights=weights), board)
    tried: dict[tuple[int, ...], tuple[KernelSchedule, int]] = {}

    def bytes_at(axis: int, size: int) -> int:
        tile = (*sizes[:axis], size, *sizes[axis + 1 :], channels)
        if tile not in tried:
            placed, nram, wram = place_buffers(shape, replace(base, tile=tile, weights=weights))
            tried[tile] = placed, nram if wram <= board.wram_bytes else NEVER
        return tried[tile][1]

    room = board.nram_usable_bytes
    if bytes_at(0, sizes[0]) == NEVER and not products(shape):
        return None  # filters do not depend on the other axes
    for axis in [a for a in range(len(sizes)) if a not in shape.whole_axes]:
        sizes[axis] = _largest_size(lambda size, axis=axis: bytes_at(axis, size), sizes[axis], room)  # type: ignore[misc]
    return tried[*sizes, channels][0] if bytes_at(0, sizes[0]) <= room else None


def _largest_size(bytes_at: Callable[[int], int], high: int, room: int) -> int:
    """The largest size of one axis at which a tile fits, at most `high`; 1 where none does. Bytes grow with the size
    nearly in proportion, so the first guess is rarely far off."""
    if high == 1 or (most := bytes_at(high)) <= room:
        return high
    least = bytes_at(1)
    if least > room or most == least:
        return 1
    size = max(1, min(high - 1, 1 + (room - least) * (high - 1) // (most - least)))
    if size == 1 or bytes_at(size) <= room:
        return size
    return bisect.bisect_right(range(1, size), room, key=bytes_at)


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
    """Bytes of all of a constant parameter, filters packed, for as many pixels side by side as there may be; 0 for one
    that is computed."""
    op = parameter.op
    if parameter.kind == FILTERS:
        assert isinstance(op, Conv2d)
        return max(op.filter_bytes(op.w.type.static_shape[0], pixels=pixels) for pixels in (1, op.most_pixels))
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


def least_cycles(shape: KernelShape, schedule: KernelSchedule, board: Board) -> float:
    """What a schedule takes at least: for as many typical tiles as the busiest core has, the time of the unit that has
    the most to do."""
    if not shape.shape:
        return 0.0
    parts = schedule.parts(shape.shape, granule(shape, schedule.split))
    tile = _typical(shape, schedule, max(parts, key=volume))
    work = [0.0, 0.0]
    demand = shape.demand(tile.box)
    for op in shape.ops:
        if op.results[0] in demand:
            y = op.results[0]
            out = box_shape(clip(demand[y], y.type.static_shape))
            work[op.unit == "matrix"] += _least_work(op, out, board, shape.most_pixels.get(op, 1))
    held = held_inputs(shape, schedule)
    moved = [v for v in shape.values if v.producer is None and v in demand and v not in held]
    off_chip = sum(
        volume(clip(box, v.type.static_shape)) * v.type.dtype.size
        for v, box in [*((v, demand[v]) for v in moved), *((v, shape.output_box(v, tile.box)) for v in shape.outputs)]
        if v not in shape.kept
    )  # fmt: skip
    ddr = off_chip * len(parts) / board.ddr_bytes_per_cycle
    return max(*work, ddr) * tile_count(shape, schedule)


def _least_work(op: MluOp, out: tuple[int, ...], board: Board, pixels: int) -> float:
    """Cycles of an op's unit for a result of this shape, so many pixels as one, without what each instruction costs on
    top."""
    elements = math.prod(out)
    if isinstance(op, Conv2d):
        _, kh, _, ci = op.w.type.static_shape
        wide = max(op.x.type.dtype.size, op.w.type.dtype.size)
        lanes = -(-(out[-1] // op.groups) // board.matrix_lanes) * op.groups
        steps = kh * op.window_width(pixels) / pixels * ci * wide / board.matrix_lane_bytes
        return elements / out[-1] * steps * lanes if out[-1] else 0.0
    taps = 1
    if isinstance(op, DepthwiseConv2d):
        taps = cost.DEPTHWISE_PASSES * math.prod(op.w.type.static_shape[:2])
    elif isinstance(op, Pool):
        taps = math.prod(op.kernel)
    elif op.unit != "vector":
        return 0.0
    return elements * op.results[0].type.dtype.size * taps / board.vector_bytes_per_cycle


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
    needed = [True, per_block > 1, blocks > 1]
    ranges = {
        (work, kind, stage): _emitted(emitter, recorder, work, tile, stage)
        for kind, tile in enumerate(kinds) if needed[kind] for work, stage in emitter.parts_of_a_tile()
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
