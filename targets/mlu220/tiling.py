"""How a kernel is cut into tiles, and where its values lie on chip while a tile is computed.

`KernelShape` is what a kernel asks for, whatever the schedule: which axes may be cut, which box of every value a box of
the result needs, which operands are parameters. `KernelSchedule` is one way to run it, exactly as printed in the
kernel's `schedule` attribute. `allocate` gives the buffers of a way their places, or says that they do not fit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from compiler.ir.core import Argument, Constant, Value
from compiler.ir.types import DType
from compiler.ops.graph import Kernel
from targets.mlu220.boxes import Box, Interval, box_shape, clip, cut, hull, split_evenly, volume, whole
from targets.mlu220.hardware import Board
from targets.mlu220.op_base import FILTERS, MluOp
from targets.mlu220.op_matrix import MOST_PIXELS, Conv2d, Matmul
from targets.mlu220.op_move import Concat, Transpose
from targets.mlu220.op_vector import DepthwiseConv2d, Pool, Reduce

ALIGNMENT = 128
"""Bytes that every on-chip buffer starts at a multiple of (docs/mlu220.md 1.4, the vector operand rule [C])."""

CHANNEL_GROUP = 64
"""Output channels are cut at multiples of the matrix unit's lanes, so that packed filters are cut between panels."""


@dataclass(frozen=True)
class Parameter:
    """An operand loaded once per channel block."""

    op: MluOp
    index: int
    value: Value
    kind: str


class KernelShape:
    """The demands of a kernel's region."""

    def __init__(self, kernel: Kernel, assumed: int | None = None) -> None:
        """`assumed`: where the pass that keeps values on chip has not run, tensors of up to so many bytes, and
        parameters of up to twice as many, count as kept."""
        self.kernel = kernel
        self.assumed = assumed
        self.block = kernel.body.block
        self.ops: list[MluOp] = [op for op in self.block if op.op_name != "graph.yield"]  # type: ignore[misc]
        self.outputs: list[Value] = self.block.terminator.inputs
        self.domain: Value = max(self.outputs, key=lambda v: (v.type.elements, -self.outputs.index(v)))
        self.shape = self.domain.type.static_shape
        self._demands: dict[Box, dict[Value, Box]] = {}
        self._parameter_boxes: dict[tuple[Parameter, Interval], Box] = {}
        self.pixels: dict[Any, dict[MluOp, int]] = {}
        """What `pixels_side_by_side` found before."""

    @cached_property
    def values(self) -> list[Value]:
        """Arguments, constants read tile by tile, and results, in a fixed order."""
        constants = [
            v for op in self.ops for i, v in enumerate(op.operands) if isinstance(v, Constant) and not op.parameter(i)
        ]
        parameters = {p.value for p in self.parameters}
        arguments = [a for a in self.block.arguments if a not in parameters or self._read_as_tile(a)]
        return [*arguments, *dict.fromkeys(constants), *(op.results[0] for op in self.ops)]

    def _read_as_tile(self, argument: Argument) -> bool:
        return any(not isinstance(op, MluOp) or op.parameter(i) is None for op, i in argument.uses)

    @cached_property
    def parameters(self) -> list[Parameter]:
        found = []
        for op in self.ops:
            for i, value in enumerate(op.operands):
                kind = op.parameter(i) if value is not None else None
                if kind is not None and value is not None:
                    found.append(Parameter(op, i, value, kind))
        return found

    @cached_property
    def kept(self) -> frozenset[Value]:
        """Arguments and outputs that lie in SRAM between kernels."""
        pairs = [*self.block.arguments], [*self.outputs]
        if self.assumed is not None:
            return frozenset(v for values in pairs for v in values if v.type.bytes <= self.assumed)
        noted = self.kernel.on_chip or {}
        return frozenset(
            values[i] for values, key in zip(pairs, ("inputs", "results"), strict=True) for i in noted.get(key, ())
        )

    @cached_property
    def staging(self) -> dict[Parameter, int]:
        """Where in SRAM the memory core puts parameters; those that cores load themselves are left out."""
        if self.assumed is not None:
            size = sum(p.value.type.bytes for p in self.parameters)
            return dict.fromkeys(self.parameters, 0) if size <= 2 * self.assumed else {}
        noted = (self.kernel.on_chip or {}).get("parameters") or [-1] * len(self.parameters)
        return {p: offset for p, offset in zip(self.parameters, noted, strict=True) if offset >= 0}

    @cached_property
    def whole_axes(self) -> frozenset[int]:
        """Axes of the domain that no tile may cut."""
        axes: set[int] = set()
        rank = len(self.shape)
        if any(v.type.static_shape[-1:] != self.shape[-1:] for v in self.outputs):
            axes.add(rank - 1)
        for op in self.ops:
            if isinstance(op, Reduce) or (isinstance(op, Conv2d) and op.groups > 1):
                axes.add(rank - 1)
            elif isinstance(op, Concat):
                axes.add(op.axis)
            elif isinstance(op, Transpose):
                axes.add(rank - 1)
        return frozenset(axes)

    @cached_property
    def stage_of(self) -> dict[MluOp, int]:
        """Which stage of the pipeline each op belongs to: a new one begins where the matrix unit awaits the vector
        unit.

        A convolution of the kernel's arguments waits for the stage that takes its result where that is larger than what
        it reads: less is then kept from stage to stage.
        """
        stages: dict[MluOp, int] = {}
        for op in self.ops:
            before = [stages[p] for v in op.inputs if (p := v.producer) in stages]
            after_vector = any(p in stages and p.unit != "matrix" for v in op.inputs if (p := v.producer) is not None)
            stages[op] = max(before, default=0) + (op.unit == "matrix" and after_vector)
        for op in reversed(self.ops):
            result = op.results[0]
            users = [user for user in result.users if user in stages]
            small = sum(v.type.bytes for i, v in enumerate(op.operands) if v is not None and not op.parameter(i))
            if users and result not in self.outputs and op.unit == "matrix" and small <= result.type.bytes:
                stages[op] = max(stages[op], min(stages[user] - (user.unit == "matrix") for user in users))
        return stages

    @cached_property
    def padding(self) -> dict[Value, frozenset[float]]:
        """What the ops that read a value beyond its border take its elements there for. A value has one buffer, so one
        border: a kernel in which two ops want different ones (zero and minus infinity) has no schedule.
        """
        found: dict[Value, frozenset[float]] = {}
        for op in self.ops:
            read = op.input_boxes(tuple((0, d) for d in op.results[0].type.static_shape))
            for i, (value, box) in enumerate(zip(op.operands, read, strict=True)):
                outside = op.pad_value(i)
                if value is None or box is None or outside is None:
                    continue
                if any(low < 0 or high > d for (low, high), d in zip(box, value.type.static_shape, strict=True)):
                    found[value] = found.get(value, frozenset()) | {outside}
        return found

    @cached_property
    def bordered(self) -> frozenset[Value]:
        """Intermediate values that some op reads beyond their border: it is filled before they are computed."""
        return frozenset(value for value in self.padding if value.producer is not None)

    @cached_property
    def recomputes(self) -> bool:
        """Whether neighbouring tiles need some of the same intermediate results."""
        return any(
            isinstance(op, Pool | DepthwiseConv2d | Conv2d) and op.operands[0].producer is not None  # type: ignore[union-attr]
            and max(op.kernel if isinstance(op, Pool) else op.w.type.static_shape[-3:-1]) > 1
            for op in self.ops
        )  # fmt: skip

    @cached_property
    def copies(self) -> dict[Value, int]:
        """Buffers per value when the stages of neighbouring tiles run side by side: from the step before it is needed
        (arguments, and borders) or the one in which it is computed to the last that reads it; at least two."""
        found = {}
        for value in self.values:
            used = [self.stage_of[user] for user in value.users if user in self.stage_of]
            made = min(used, default=0) - 1 if value.producer is None else self.stage_of[value.producer]  # type: ignore[index]
            used.append(made + 1 if value in self.outputs else made)  # results are stored one step later
            made -= value in self.bordered
            found[value] = max(2, max(used) - made + 1)
        return found

    @cached_property
    def most_pixels(self) -> dict[MluOp, int]:
        """Per convolution, the pixels that are best computed as one."""
        return {op: op.most_pixels for op in self.ops if isinstance(op, Conv2d)}

    @cached_property
    def narrow(self) -> list[DepthwiseConv2d | Conv2d]:
        """Convolutions that may compute several neighbouring pixels as one."""
        if len(self.shape) != 4:
            return []
        return [
            op for op in self.ops
            if (isinstance(op, DepthwiseConv2d) and op.strides[1] == 1)
            or (isinstance(op, Conv2d) and self.most_pixels[op] > 1)
        ]  # fmt: skip

    def demand(self, box: Box) -> dict[Value, Box]:
        """Per value of the region, the box (not clipped) that a box of the domain needs of it."""
        if box not in self._demands:
            self._demands[box] = self._demand(box)
        return self._demands[box]

    @cached_property
    def _readers(self) -> list[tuple[MluOp, Value, tuple[int, ...], list[tuple[int, Value]]]]:
        """Ops from last to first, with their result, its shape, and the operands they read by tiles."""
        return [
            (
                op, op.results[0], op.results[0].type.static_shape,
                [(i, v) for i, v in enumerate(op.operands) if v is not None and op.parameter(i) is None],
            )
            for op in reversed(self.ops)
        ]  # fmt: skip

    def _demand(self, box: Box) -> dict[Value, Box]:
        wanted: dict[Value, Box] = {value: self.output_box(value, box) for value in self.outputs}
        for op, result, shape, read in self._readers:
            if result not in wanted:
                continue
            inner = clip(wanted[result], shape)
            needed = op.input_boxes(inner)
            empty = [axis for axis, (low, high) in enumerate(inner) if low == high]  # all of it is padding
            for i, taken in read:
                part = needed[i] if i < len(needed) else None
                if part is not None and empty:
                    part = tuple((0, 0) if axis in empty else interval for axis, interval in enumerate(part))
                if part is not None:
                    wanted[taken] = hull(wanted.get(taken), part)
        return wanted

    def output_box(self, value: Value, box: Box) -> Box:
        shape = value.type.static_shape
        if shape == self.shape:
            return box
        if shape[:-1] == self.shape[:-1]:
            return (*box[:-1], (0, shape[-1]))
        raise ValueError(f"output {value.name!r} of shape {shape} does not follow the kernel's {self.shape}")

    def parameter_box(self, parameter: Parameter, demand: dict[Value, Box]) -> Box:
        """The part of a parameter that a tile with these demands needs: a matter of its channels."""
        result = parameter.op.results[0]
        channels = demand[result][-1]
        key = parameter, channels
        if key not in self._parameter_boxes:
            box = parameter.op.input_boxes(clip(demand[result], result.type.static_shape))[parameter.index]
            assert box is not None
            self._parameter_boxes[key] = box
        return self._parameter_boxes[key]


def parameter_bytes(parameter: Parameter, box: Box, pixels: int) -> int:
    """On-chip bytes of the part `box` of a parameter, for so many pixels side by side."""
    if parameter.kind == FILTERS:
        assert isinstance(parameter.op, Conv2d)
        channels = box[0][1] - box[0][0]
        return max(parameter.op.filter_bytes(channels, piece, pixels) for piece in parameter.op.pieces)
    return pixels * volume(box) * parameter.value.type.dtype.size


MOST_TAP_BYTES = 16 << 10
"""Most NRAM bytes of depthwise filters that stand there once for each of several pixels."""


def pixels_side_by_side(shape: KernelShape, schedule: KernelSchedule) -> dict[MluOp, int]:
    """Per convolution of few channels, how many neighbouring pixels are computed as one of as many times the channels:
    the vectors, and the lanes of the matrix unit, would be filled in part only. It then has filters for as many."""
    if not shape.narrow:
        return {}
    parts = schedule.parts(shape.shape, granule(shape, schedule.split))
    columns = tuple(dict.fromkeys(piece for part in parts for piece in cut(part[2], schedule.tile[2])))
    key = columns, schedule.tile[3]
    if key not in shape.pixels:
        demands = [shape.demand((*parts[0][:2], piece, (0, schedule.tile[3]))) for piece in columns]
        shape.pixels[key] = {op: _pixels_of(shape, op, demands) for op in shape.narrow}
    return shape.pixels[key]


def _pixels_of(shape: KernelShape, op: DepthwiseConv2d | Conv2d, demands: Sequence[dict[Value, Box]]) -> int:
    """How many pixels an op computes as one in tiles with these demands; at most their columns."""
    y = op.results[0]
    boxes = [box_shape(clip(demand[y], y.type.static_shape)) for demand in demands if y in demand]
    widths = [box[2] for box in boxes if box[2]]
    size = max((box[3] for box in boxes), default=0) * y.type.dtype.size
    if not widths or not size:
        return 1
    if isinstance(op, Conv2d):
        return shape.most_pixels[op] if shape.most_pixels[op] <= min(widths) else 1
    most = min(MOST_PIXELS, *widths, MOST_TAP_BYTES // (math.prod(op.w.type.static_shape[:2]) * size))
    vectors = {
        pixels: sum(-(-width // pixels) for width in widths) * -(-pixels * size // ALIGNMENT)
        for pixels in range(1, max(most, 1) + 1)
    }
    return min(vectors, key=vectors.__getitem__)


def split_convolutions(shape: KernelShape) -> list[Conv2d]:
    """The convolutions whose sums stay in NRAM between parts of their input channels."""
    return [op for op in shape.ops if isinstance(op, Conv2d) and op.splits > 1]


def sums_bytes(op: Conv2d, box: Box) -> int:
    """NRAM bytes of a tile's integer sums: int32 for i8 operands, int64 otherwise."""
    narrow = op.x.type.dtype is DType.I8 and op.w.type.dtype is DType.I8
    return volume(box) * (4 if narrow else 8)


def products(shape: KernelShape) -> list[Matmul]:
    """The products of two activations, which bring one operand to WRAM themselves."""
    return [op for op in shape.ops if isinstance(op, Matmul)]


@dataclass(frozen=True)
class KernelSchedule:
    """One way to run a kernel; every field is printed in the IR.

    split: axis cut over the cores (-1: one core). tile: sizes per axis of the domain. buffers: 1, or 2 for double
    buffering. weights: "sram" if the memory core loads filters once for all cores, else "direct". slots: (offset,
    bytes, copies) of each NRAM buffer; the copies follow one another. slot_of: slot per value of
    `KernelShape.values` (-1: none). parameters: (offset, bytes, buffers) per parameter, in WRAM for filters and in NRAM
    otherwise; after them the same for the integer sums of each convolution whose input channels are split, and for the
    WRAM of each product of two activations.
    """

    split: int
    cores: int
    tile: tuple[int, ...]
    buffers: int
    weights: str
    slots: tuple[tuple[int, int, int], ...] = ()
    slot_of: tuple[int, ...] = ()
    parameters: tuple[tuple[int, int, int], ...] = ()

    def to_attribute(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of(kernel: Kernel) -> KernelSchedule:
        return KernelSchedule(**kernel.schedule)

    def parts(self, shape: Sequence[int], granule: int) -> list[Box]:
        """The box of the domain that each core computes; cores without work are left out."""
        box = whole(shape)
        if self.split < 0:
            return [box]
        return [
            (*box[: self.split], piece, *box[self.split + 1 :])
            for piece in split_evenly(box[self.split], self.cores, granule)
        ]

    def blocks(self, part: Box) -> list[Interval]:
        """The channel blocks (last axis) of a core's part, in order."""
        return cut(part[-1], self.tile[-1]) if part else []

    def tiles(self, part: Box, block: Interval) -> Iterator[Box]:
        """The tiles of a channel block, row-major."""
        axes = [cut(interval, size) for interval, size in zip(part[:-1], self.tile[:-1], strict=True)]

        def walk(chosen: tuple[Interval, ...]) -> Iterator[Box]:
            if len(chosen) == len(axes):
                yield (*chosen, block)
                return
            for interval in axes[len(chosen)]:
                yield from walk((*chosen, interval))

        yield from walk(())


def granule(shape: KernelShape, axis: int) -> int:
    """Cores' parts along an axis start at multiples of this."""
    has_filters = any(p.kind == FILTERS for p in shape.parameters)
    return CHANNEL_GROUP if has_filters and axis == len(shape.shape) - 1 else 1


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def sample_tiles(shape: KernelShape, tile: Sequence[int]) -> list[Box]:
    """Tiles whose demands, axis by axis, bound all others: first, middle and last along every axis.

    Where a demand of the middle one reaches over a border along an axis that is cut, others may ask for more: all.
    """
    slack = [max(d - size, 0) for size, d in zip(tile, shape.shape, strict=True)]

    def at(lows: Iterable[int]) -> Box:
        return tuple((low, min(low + size, d)) for low, size, d in zip(lows, tile, shape.shape, strict=True))

    middle = at(s // 2 for s in slack)
    if _reaches_over(shape, shape.demand(middle), [axis for axis, s in enumerate(slack) if s]):
        return list(dict.fromkeys(at(min(place, s) for s in slack) for place in range(max(slack) + 1)))
    return list(dict.fromkeys((at(0 for _ in slack), middle, at(slack))))


def corner_tiles(shape: KernelShape, tile: Sequence[int]) -> list[Box]:
    """Further tiles that bound all demands where a matrix is multiplied with itself: it is then needed from its first
    row (or column) asked for on either side to the last, most where the two are far apart."""
    if not any(op.a is op.b for op in products(shape)):
        return []
    ends = [dict.fromkeys((0, max(d - size, 0))) for size, d in zip(tile, shape.shape, strict=True)]
    return [
        tuple((low, min(low + size, d)) for low, size, d in zip(lows, tile, shape.shape, strict=True))
        for lows in itertools.product(*ends)
    ]


def _reaches_over(shape: KernelShape, demand: dict[Value, Box], axes: Sequence[int]) -> bool:
    """Whether a demand leaves its tensor along one of some axes of the domain."""
    for value, box in demand.items():
        if len(box) != len(shape.shape):
            return bool(axes)
        for axis in axes:
            low, high = box[axis]
            if low < 0 or high > value.type.static_shape[axis]:
                return True
    return False


def allocate(shape: KernelShape, schedule: KernelSchedule, board: Board) -> KernelSchedule | None:
    """The schedule with places for its buffers, or None if they do not fit NRAM and WRAM."""
    placed, nram, wram = place_buffers(shape, schedule)
    return placed if nram <= board.nram_usable_bytes and wram <= board.wram_bytes else None


def place_buffers(shape: KernelShape, schedule: KernelSchedule) -> tuple[KernelSchedule, int, int]:
    """The schedule with places for its buffers, and the bytes of NRAM and WRAM they take."""
    tiles = [*sample_tiles(shape, schedule.tile), *corner_tiles(shape, schedule.tile)]
    demands = [shape.demand(tile) for tile in tiles]
    blocks = len(cut((0, shape.shape[-1]), schedule.tile[-1])) if shape.shape else 1
    copies = schedule.buffers if blocks > 1 else 1
    pixels = pixels_side_by_side(shape, schedule)
    parameters, nram, wram = [], 0, 0
    for parameter in shape.parameters:
        side_by_side = pixels.get(parameter.op, 1)
        boxes = [shape.parameter_box(parameter, d) for d in demands]
        size = aligned(max(parameter_bytes(parameter, box, side_by_side) for box in boxes))
        if parameter.kind == FILTERS:
            split = isinstance(parameter.op, Conv2d) and parameter.op.splits > 1
            filter_copies = schedule.buffers if split else copies
            parameters.append((wram, size, filter_copies))
            wram += size * filter_copies
        else:
            parameters.append((nram, size, copies))
            nram += size * copies
    for op in split_convolutions(shape):
        size = aligned(max(sums_bytes(op, clip(d[op.results[0]], op.results[0].type.static_shape)) for d in demands))
        parameters.append((nram, size, schedule.buffers))
        nram += size * schedule.buffers
    for product in products(shape):
        y = product.results[0]
        columns = max(box_shape(clip(d[y], y.type.static_shape))[-1] for d in demands)
        size = aligned(product.filter_bytes(columns))
        parameters.append((wram, size, schedule.buffers))
        wram += size * schedule.buffers
    sizes = [_largest(d[v] for d in demands if v in d) * v.type.dtype.size for v in shape.values]
    slot_of, slot_sizes = _assign_slots(shape, [aligned(s) for s in sizes], demands, schedule.buffers > 1)
    held = {shape.values.index(v) for v in held_inputs(shape, schedule)}
    slots = []
    for slot, size in enumerate(slot_sizes):
        users = [i for i, s in enumerate(slot_of) if s == slot]
        single = schedule.buffers == 1 or held.issuperset(users)
        count = 1 if single else max(shape.copies[shape.values[i]] for i in users)
        slots.append((nram, size, count))
        nram += size * count
    placed = replace(schedule, slots=tuple(slots), slot_of=tuple(slot_of), parameters=tuple(parameters))
    return placed, nram, wram


def _largest(boxes: Iterable[Box]) -> int:
    """Elements of a box as long along every axis as the longest of some."""
    shapes = [box_shape(box) for box in boxes]
    return math.prod(map(max, zip(*shapes, strict=True))) if shapes else 0


def held_inputs(shape: KernelShape, schedule: KernelSchedule) -> list[Value]:
    """Inputs of which every tile of a core needs the same: where a tile holds all of a core's part but for its
    channels, and they do not depend on these."""
    part = max(schedule.parts(shape.shape, granule(shape, schedule.split)), key=volume) if shape.shape else ()
    if not part or any(size < high - low for size, (low, high) in zip(schedule.tile[:-1], part[:-1], strict=True)):
        return []
    blocks = cut(part[-1], schedule.tile[-1])
    demands = [shape.demand((*part[:-1], block)) for block in (blocks[0], blocks[-1])]
    return [v for v in shape.values if v.producer is None and len({d.get(v) for d in demands}) == 1]


def _assign_slots(
    shape: KernelShape, sizes: list[int], demands: list[dict[Value, Box]], staged: bool
) -> tuple[list[int], list[int]]:
    """A slot per value: elementwise results take their operand's place; slots of dead intermediates are used again.

    Inputs and outputs keep slots of their own, so that loads and stores of neighbouring tiles overlap the computation.
    Where tiles overlap (`staged`), only values of one pipeline stage that no later one reads share a slot: its other
    user would already be a tile further; and none whose border is filled ahead of it.
    """
    index_of = {v: i for i, v in enumerate(shape.values)}
    stage_of = shape.stage_of if staged else dict.fromkeys(shape.ops, 0)
    last_use = {v: step for step, op in enumerate(shape.ops) for v in op.inputs}
    pinned = {*shape.outputs, *(v for v in shape.values if v.producer is None), *(shape.bordered if staged else ())}
    kept = {
        v for v in shape.values if v.producer is not None
        and any(stage_of[user] != stage_of[v.producer] for user in v.users if user in stage_of)  # type: ignore[index]
    }  # fmt: skip
    slot_of = [-1] * len(sizes)
    slots: list[int] = []
    free: dict[int, list[int]] = {stage: [] for stage in stage_of.values()}

    def new_slot(size: int, stage: int) -> int:
        fitting = [s for s in free[stage] if slots[s] >= size]
        if fitting:
            best = min(fitting, key=lambda s: (slots[s], s))
            free[stage].remove(best)
            return best
        slots.append(size)
        return len(slots) - 1

    for v in shape.values:
        if v.producer is None:
            slots.append(sizes[index_of[v]])
            slot_of[index_of[v]] = len(slots) - 1
    for op in sorted(shape.ops, key=lambda op: stage_of[op]):
        step = shape.ops.index(op)
        result = op.results[0]
        first = op.operands[0] if op.operands else None
        stage = stage_of[op]
        dying = [
            v for v in dict.fromkeys(op.inputs)
            if v in index_of and last_use[v] == step and v not in pinned and v not in kept
        ]  # fmt: skip
        if op.in_place and first in dying and _same_place(first, result, demands):
            slot = slot_of[index_of[first]]
            dying.remove(first)
        elif result in pinned or result in kept:
            slots.append(sizes[index_of[result]])
            slot = len(slots) - 1
        else:
            slot = new_slot(sizes[index_of[result]], stage)
        slot_of[index_of[result]] = slot
        free[stage] += [slot_of[index_of[v]] for v in dying]
    return slot_of, slots


def _same_place(first: Value, result: Value, demands: list[dict[Value, Box]]) -> bool:
    """Whether two values have the same element size and the same box in every tile, nothing of it outside the
    tensor."""
    return first.type.dtype.size == result.type.dtype.size and all(
        d.get(first) == d.get(result) == clip(d[result], result.type.static_shape) for d in demands
    )


def tile_count(shape: KernelShape, schedule: KernelSchedule) -> int:
    """Tiles of the busiest core."""
    part = max(schedule.parts(shape.shape, granule(shape, schedule.split)), key=volume)
    return math.prod(-(-s // t) for s, t in zip(box_shape(part), schedule.tile, strict=True))
