"""From a scheduled kernel to the instructions of one core: loads, borders, computation and stores, tile by tile.

A pure function of the kernel, its schedule and the placements of what it reads and writes off the chip. Tiles are
software pipelined in emission order (the loads of the next tile stand before the computation of this one), so that with
two buffers the queues overlap; `stream` adds the synchronisation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from compiler.ir.core import Constant, Value
from compiler.ir.types import DType
from targets.mlu220 import isa
from targets.mlu220.boxes import Box, Interval, View, box_shape, clip, common_loops, dense_strides, volume, whole
from targets.mlu220.op_base import FILTERS, Emitter, MluOp
from targets.mlu220.op_matrix import Conv2d, Matmul
from targets.mlu220.op_move import copy_instructions
from targets.mlu220.tiling import (
    CHANNEL_GROUP,
    KernelSchedule,
    KernelShape,
    Parameter,
    held_inputs,
    pixels_side_by_side,
    products,
    split_convolutions,
    sums_bytes,
)

COPIES = 16
"""Slot numbers of the copies of one buffer follow one another; every buffer has room for so many."""

WRAM_SLOTS = COPIES << 16
"""Slot numbers of parameters start here, so that they never meet those of tile buffers."""


class Sink(Emitter, Protocol):
    """Where instructions go: a `Stream`, or a recorder for cost. `tag` marks the op that the next ones belong to."""

    tag: int


@dataclass(frozen=True)
class Outside:
    """What a kernel sees off the chip: views of its operands, results and constants, and where filters were staged."""

    view: Callable[[Value], View]
    """View of a region argument, of a constant read by tiles or channels, or of a kernel result (by its yielded
    value)."""
    place: Callable[[Parameter], tuple[int, int]]
    """(space, offset) of a constant parameter, filters packed: constants, or SRAM where the memory core put it."""
    tags: Mapping[MluOp, int]


@dataclass(frozen=True)
class Tile:
    number: int
    block: int
    first_of_block: bool
    box: Box


class CoreEmitter:
    """Emits one core's share of one kernel."""

    def __init__(self, sink: Sink, shape: KernelShape, schedule: KernelSchedule, outside: Outside) -> None:
        self.sink = sink
        self.shape = shape
        self.schedule = schedule
        self.outside = outside
        self.slot_of = dict(zip(shape.values, schedule.slot_of, strict=True))
        self.demands: dict[int, dict[Value, Box]] = {}
        self.padding = {value: outside for value, (outside,) in shape.padding.items()}
        self.stages = _by_stage(shape) if schedule.buffers > 1 else [shape.ops]
        self.held = frozenset(held_inputs(shape, schedule))
        self.pixels = pixels_side_by_side(shape, schedule)
        self.ahead = schedule.buffers > 1

    def tiles(self, part: Box) -> list[Tile]:
        found: list[Tile] = []
        blocks: list[Interval] = self.schedule.blocks(part) if part else [(0, 1)]
        for number, block in enumerate(blocks):
            boxes = list(self.schedule.tiles(part, block)) if part else [()]
            found += [Tile(len(found) + i, number, i == 0, box) for i, box in enumerate(boxes)]
        return found

    def run(self, part: Box) -> None:
        """Emit all tiles of a part of the domain."""
        self.run_tiles(self.tiles(part))

    def run_tiles(self, tiles: Sequence[Tile]) -> None:
        for work, index, stage in self.order(len(tiles)):
            self.do(work, tiles[index], stage)

    def order(self, count: int) -> Iterator[tuple[str, int, int]]:
        """(work, tile, stage) in the order of emission. Software pipelined: in one step, stage 0 of a tile, stage 1 of
        the tile before it, and so on, with the loads of the next step ahead of them and the stores of the step before
        behind. With one buffer, tile by tile."""
        depth, ahead = len(self.stages), int(self.ahead)
        for step in range(-ahead, count + depth - 1 + ahead):
            for work, at in (("load", step + ahead), ("compute", step), ("store", step - ahead)):
                yield from ((work, at - stage, stage) for stage in range(depth) if 0 <= at - stage < count)

    def parts_of_a_tile(self) -> Iterator[tuple[str, int]]:
        """(work, stage) of one tile alone, in an order that is right."""
        for stage in range(len(self.stages)):
            yield "load", stage
            yield "compute", stage
            yield "store", stage

    def do(self, work: str, tile: Tile, stage: int) -> None:
        """Emit one part of a stage of a tile: "load", "compute" or "store"."""
        {"load": self.load, "compute": self.compute, "store": self.store}[work](tile, stage)

    # -- one tile ----------------------------------------------------------------------------------------------------
    def load(self, tile: Tile, stage: int) -> None:
        """Bring a stage's parameters (at the start of a channel block) and inputs on chip; fill the borders of what it
        will compute."""
        if tile.number not in self.demands:
            self.demands[tile.number] = self.shape.demand(tile.box)
        demand = self.demands[tile.number]
        members = self.stages[stage]
        if tile.first_of_block:
            for index, parameter in enumerate(self.shape.parameters):
                streamed = isinstance(parameter.op, Conv2d) and parameter.op.splits > 1 and parameter.kind == FILTERS
                if parameter.op in members and not streamed:
                    self._tag(parameter.op)
                    self._load_parameter(index, parameter, tile, demand)
        for value in self.shape.values:
            if value.producer is None and value in demand:
                first = next(op for op in self.shape.ops if value in op.inputs)
                if first in members:
                    if value in self.held and tile.number > 0:
                        continue
                    self._tag(first)
                    self._load_input(value, tile, demand[value])
        for op in members if self.ahead else ():
            result = op.results[0]
            if result in demand:
                self._tag(op)
                self._fill_result_border(result, tile, demand[result])

    def compute(self, tile: Tile, stage: int) -> None:
        """Emit the ops of a stage."""
        demand = self.demands[tile.number]
        for op in self.stages[stage]:
            result = op.results[0]
            if result not in demand:
                continue
            self._tag(op)
            buffer = self._buffer(result, tile, demand[result])
            inner = clip(demand[result], result.type.static_shape)
            if not self.ahead:
                self._fill_result_border(result, tile, demand[result])
            if volume(inner):
                self._compute_op(op, tile, _inside(buffer, demand[result], inner), inner)

    def _compute_op(self, op: MluOp, tile: Tile, out: View, box: Box) -> None:
        demand = self.demands[tile.number]
        inputs: list[View | None] = []
        for i, (value, needed) in enumerate(zip(op.operands, op.input_boxes(box), strict=False)):
            if value is None or needed is None:
                inputs.append(None)
            elif op.parameter(i) is not None:
                inputs.append(self._parameter_view(op, i, tile, needed))
            else:
                inputs.append(_inside(self._buffer(value, tile, demand[value]), demand[value], needed))
        if isinstance(op, Conv2d) and op.splits > 1:
            self._split_convolution(op, tile, out, inputs[0], box[3])
        elif isinstance(op, Matmul):
            op.emit_product(self.sink, out, inputs, self._product_filters(op))
        else:
            op.emit_box(self.sink, box, out, inputs)

    def store(self, tile: Tile, stage: int) -> None:
        """Bring the results that a stage gave off the chip."""
        demand = self.demands[tile.number]
        for value in self.shape.outputs:
            producer = value.producer
            assert isinstance(producer, MluOp)
            if producer not in self.stages[stage]:
                continue
            self._tag(producer)
            box = self.shape.output_box(value, tile.box)
            source = _inside(self._buffer(value, tile, demand[value]), demand[value], box)
            target = _inside(self.outside.view(value), whole(value.type.static_shape), box)
            for instruction in copy_instructions(target, source):
                self.sink.add(instruction, [], [source.slot])
        if stage == len(self.stages) - 1:
            del self.demands[tile.number]

    # -- pieces ------------------------------------------------------------------------------------------------------
    def _tag(self, op: MluOp) -> None:
        self.sink.tag = self.outside.tags.get(op, -1)

    def _buffer(self, value: Value, tile: Tile, box: Box) -> View:
        slot = self.slot_of[value]
        offset, size, copies = self.schedule.slots[slot]
        copy = tile.number % copies
        shape = box_shape(box)
        dtype = value.type.dtype
        if math.prod(shape) * dtype.size > size:
            raise ValueError(f"a tile of {value.name!r} needs more than the {size} bytes of its buffer")
        strides = dense_strides(shape, dtype.size)
        return View(isa.NRAM, offset + copy * size, shape, strides, dtype, COPIES * slot + copy)

    def _load_input(self, value: Value, tile: Tile, box: Box) -> None:
        buffer = self._buffer(value, tile, box)
        inner = clip(box, value.type.static_shape)
        self._fill_border(value, buffer, box, inner)
        if volume(inner):
            source = _inside(self.outside.view(value), whole(value.type.static_shape), inner)
            for instruction in copy_instructions(_inside(buffer, box, inner), source):
                self.sink.add(instruction, [buffer.slot], [])

    def _fill_result_border(self, value: Value, tile: Tile, box: Box) -> None:
        inner = clip(box, value.type.static_shape)
        if box != inner:
            self._fill_border(value, self._buffer(value, tile, box), box, inner)

    def _fill_border(self, value: Value, buffer: View, box: Box, inner: Box) -> None:
        """Fill what of `box` lies outside `inner`, axis by axis."""
        if box == inner or not volume(box):
            return
        bits = fill_bits(self.padding.get(value, 0.0), value.type.dtype)
        remaining = list(box)
        for axis, ((low, high), (inner_low, inner_high)) in enumerate(zip(box, inner, strict=True)):
            if inner_high <= inner_low:
                self._fill(_inside(buffer, box, tuple(remaining)), bits)
                return
            for piece in ((low, inner_low), (inner_high, high)):
                if piece[1] > piece[0]:
                    self._fill(_inside(buffer, box, (*remaining[:axis], piece, *remaining[axis + 1 :])), bits)
            remaining[axis] = (inner_low, inner_high)

    def _fill(self, view: View, bits: int) -> None:
        loops = common_loops([view])
        run = view.itemsize
        if loops and loops[-1].strides == (view.itemsize,):
            run = loops.pop().count * view.itemsize
        inner = loops[-3:]
        outer = loops[: len(loops) - len(inner)]
        counts = [1] * (3 - len(inner)) + [loop.count for loop in inner]
        strides = [0] * (3 - len(inner)) + [loop.strides[0] for loop in inner]
        for index in itertools.product(*(range(loop.count) for loop in outer)):
            start = view.address + sum(i * loop.strides[0] for i, loop in zip(index, outer, strict=True))
            instruction = isa.Fill(
                dst=start, element_size=view.itemsize, value=bits, run=run, n0=counts[0], n1=counts[1], n2=counts[2],
                dst_stride0=strides[0], dst_stride1=strides[1], dst_stride2=strides[2],
            )  # fmt: skip
            self.sink.add(instruction, [view.slot], [])

    def _parameter_place(self, index: int, tile: Tile) -> tuple[int, int]:
        """(offset, slot) of a parameter's copy for this tile's channel block."""
        offset, size, copies = self.schedule.parameters[index]
        copy = tile.block % copies
        return offset + copy * size, WRAM_SLOTS + COPIES * index + copy

    def _load_parameter(self, index: int, parameter: Parameter, tile: Tile, demand: dict[Value, Box]) -> None:
        box = self.shape.parameter_box(parameter, demand)
        address, slot = self._parameter_place(index, tile)
        if parameter.kind == FILTERS:
            self._load_filters(parameter, box, address, slot)
            return
        dtype = parameter.value.type.dtype
        everything = parameter.value.type.static_shape
        if isinstance(parameter.value, Constant):
            view = View(*self.outside.place(parameter), everything, dense_strides(everything, dtype.size), dtype)
        else:
            view = self.outside.view(parameter.value)
        source = _repeated(_inside(view, whole(everything), box), self.pixels.get(parameter.op, 1))
        target = View(isa.NRAM, address, source.shape, dense_strides(source.shape, dtype.size), dtype, slot)
        for instruction in copy_instructions(target, source):
            self.sink.add(instruction, [slot], [])

    def _split_convolution(self, op: Conv2d, tile: Tile, out: View, x: View | None, channels: Interval) -> None:
        """A convolution whose filters come to WRAM part by part, for every tile anew."""
        number, parameter = next((i, p) for i, p in enumerate(self.shape.parameters) if p.op is op)
        place = len(self.shape.parameters) + split_convolutions(self.shape).index(op)
        offset, size, copies = self.schedule.parameters[place]
        copy = tile.number % copies
        itemsize = sums_bytes(op, ((0, 1),))
        strides = dense_strides(out.shape, itemsize)
        sums = View(isa.NRAM, offset + copy * size, out.shape, strides, out.dtype, WRAM_SLOTS + COPIES * place + copy)
        assert x is not None

        def load(piece: Interval) -> View:
            base, length, buffers = self.schedule.parameters[number]
            which = op.pieces.index(piece) % buffers
            slot = WRAM_SLOTS + COPIES * number + which
            self._load_filters(parameter, (channels,), base + which * length, slot, piece)
            return View(isa.WRAM, base + which * length, (), (), op.w.type.dtype, slot)

        op.emit_split(self.sink, out, x, load, sums)

    def _product_filters(self, op: Matmul) -> Callable[[int], View]:
        """Where in WRAM the nth matrix of a product lies."""
        split = split_convolutions(self.shape)
        place = len(self.shape.parameters) + len(split) + products(self.shape).index(op)
        offset, size, copies = self.schedule.parameters[place]

        def filters(number: int) -> View:
            copy = number % copies
            return View(isa.WRAM, offset + copy * size, (), (), op.b.type.dtype, WRAM_SLOTS + COPIES * place + copy)

        return filters

    def _load_filters(
        self, parameter: Parameter, box: Box, address: int, slot: int, piece: Interval | None = None
    ) -> None:
        op = parameter.op
        assert isinstance(op, Conv2d)
        space, base = self.outside.place(parameter)
        low, high = box[0]
        if low % CHANNEL_GROUP:
            raise ValueError(f"filters are cut at channel {low}, which is inside a group of {CHANNEL_GROUP}")
        if piece is not None:  # in the file, a split's filters of all channels follow those of the splits before it
            everything = op.w.type.static_shape[0]
            base += sum(op.filter_bytes(everything, p) for p in op.pieces[: op.pieces.index(piece)])
        start = op.filter_bytes(low, piece) if low else 0
        size = op.filter_bytes(high - low, piece, self.pixels.get(op, 1))
        self.sink.add(isa.Copy(dst=(isa.WRAM, address), src=(space, base + start), run=size), [slot], [])

    def _parameter_view(self, op: MluOp, index: int, tile: Tile, box: Box) -> View:
        for number, parameter in enumerate(self.shape.parameters):
            if parameter.op is op and parameter.index == index:
                address, slot = self._parameter_place(number, tile)
                space = isa.WRAM if parameter.kind == FILTERS else isa.NRAM
                shape, dtype = list(box_shape(box)), parameter.value.type.dtype
                shape[0 if parameter.kind == FILTERS else -1] *= self.pixels.get(op, 1)
                return View(space, address, tuple(shape), dense_strides(shape, dtype.size), dtype, slot)
        raise KeyError(f"{op.op_name} has no parameter {index}")


def _by_stage(shape: KernelShape) -> list[list[MluOp]]:
    """The ops of each pipeline stage, in order."""
    stages: list[list[MluOp]] = [[] for _ in range(max(shape.stage_of.values(), default=0) + 1)]
    for op in shape.ops:
        stages[shape.stage_of[op]].append(op)
    return stages


def _repeated(view: View, times: int) -> View:
    """A view of the last axis so many times over: a further axis before it, on which nothing moves."""
    if times == 1:
        return view
    return replace(
        view, shape=(*view.shape[:-1], times, view.shape[-1]), strides=(*view.strides[:-1], 0, view.strides[-1])
    )


def _inside(view: View, box: Box, inner: Box) -> View:
    """The part `inner` of a view that covers `box`."""
    offset = [low - start for (low, _), (start, _) in zip(inner, box, strict=True)]
    return view.sub(offset, box_shape(inner))


def fill_bits(value: float, dtype: DType) -> int:
    """The bits of a fill value as the word a `fill` holds."""
    if dtype.is_float:
        array = np.asarray(value, dtype.numpy)
    else:
        if not math.isfinite(value):
            raise ValueError(f"{value} has no {dtype} form")
        array = np.asarray(int(value), dtype.numpy)
    if array.itemsize == 4:
        return int(array.view(np.int32))
    return int(array.view(np.uint16 if array.itemsize == 2 else np.uint8))
