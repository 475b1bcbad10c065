"""Random instructions and random small programs, for tests that hold the oracle, the simulator, the static check, the
assembler and the cost model against one another. Not tests themselves.

`rows(spec)`: any values inside the fields' ranges (often illegal), straight from the instruction table. `programs()`:
legal, race-free device functions of a few instructions on one to four cores, with strided views, in-place operations,
split sums, traffic over SRAM and workspace, and only the waits they need. `random_inputs` makes data for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from targets.mlu220 import isa
from targets.mlu220.container import DeviceFunction, IORecord
from targets.mlu220.isa import Mode, Partial, Type

DTYPE_NAMES = {Type.I8: "i8", Type.I16: "i16", Type.F16: "f16", Type.F32: "f32", Type.I32: "i32"}
INPUT_ELEMENTS = {Type.F16: 2048, Type.F32: 1024, Type.I8: 6144, Type.I16: 3072, Type.I32: 256}
INPUT_TYPES = list(INPUT_ELEMENTS)
NRAM_BYTES, WRAM_BYTES = 384 << 10, 512 << 10


# -- single rows --------------------------------------------------------------------------------------------------
def field_values(f: isa.Field) -> st.SearchStrategy[Any]:
    """Values of one field, anywhere in its range."""
    if f.kind == "far":
        spaces = st.sampled_from([*range(5), isa.INPUT, isa.OUTPUT + 3])
        return st.tuples(spaces, st.integers(f.low, f.high))
    if f.kind == "f32":
        return st.floats(width=32)
    if f.choices is not None:
        return st.sampled_from(list(f.choices))
    return st.one_of(st.integers(f.low, min(f.high, f.low + 64)), st.integers(f.low, f.high))


def instances(spec: type[isa.Instruction]) -> st.SearchStrategy[isa.Instruction]:
    """Instructions of one class with every field in range; most break a rule."""
    return st.builds(spec, **{name: field_values(f) for name, f in spec.fields.items()})


def any_instruction() -> st.SearchStrategy[isa.Instruction]:
    return st.sampled_from(list(isa.INSTRUCTIONS.values())).flatmap(instances)


# -- programs -------------------------------------------------------------------------------------------------------
@dataclass
class Region:
    """Initialised data: `rows` rows of `count` elements, `pitch` bytes apart. `core` is the owner of NRAM, else -1."""

    space: int
    core: int
    base: int
    type: Type
    rows: int
    count: int
    pitch: int
    writer: tuple[int, int, int] | None = None
    readers: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return int(isa.TYPE_SIZES[self.type])

    @property
    def dense(self) -> bool:
        return self.rows == 1 or self.pitch == self.count * self.size

    @property
    def elements(self) -> int:
        return self.rows * self.count


@dataclass
class RandomFunction:
    """A device function with the constants it reads. `inputs` of it are flat, one per element type."""

    function: DeviceFunction
    constants: np.ndarray


class Drawing:
    """Draws of one generator of random numbers."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        """Uniform, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, items: Any) -> Any:
        items = list(items)
        return items[self.integer(0, len(items) - 1)]


class _Builder(Drawing):
    """Grows programs for `cores` cores and the memory core; every method appends one legal, ordered instruction."""

    def __init__(self, seed: int, cores: int, dirty_padding: bool = False):
        super().__init__(seed)
        self.cores, self.dirty_padding = cores, dirty_padding
        self.programs: list[list[isa.Instruction]] = [[] for _ in range(isa.MEMORY_CORE + 1)]
        self.counters = self.rng.permutation(isa.COUNTERS)
        self.issued: dict[tuple[int, int], int] = {}
        self.known: dict[tuple[int, int, int, int], int] = {}
        self.nram = [0] * (isa.MEMORY_CORE + 1)
        self.wram = [0] * (isa.MEMORY_CORE + 1)
        self.sram = self.workspace = 0
        self.regions: list[Region] = []
        self.constants: list[np.ndarray] = []
        self.outputs: list[IORecord] = []

    # ordering
    def append(self, core: int, instruction: isa.Instruction, reads: list[Region], writes: list[Region]) -> None:
        """Add waits for what must come first, the instruction, and a signal that it is done."""
        queue = int(instruction.unit)
        needed = [r.writer for r in [*reads, *writes]] + [reader for r in writes for reader in r.readers]
        for before in needed:
            if before is not None and before[:2] != (core, queue):
                self._wait(core, queue, before)
        self.programs[core].append(instruction)
        done = self.issued[core, queue] = self.issued.get((core, queue), 0) + 1
        self.programs[core].append(isa.Signal(queue=queue, counter=self._counter(core, queue)))
        for region in reads:
            region.readers.append((core, queue, done))
        for region in writes:
            region.writer, region.readers = (core, queue, done), []

    def _counter(self, core: int, queue: int) -> int:
        return int(self.counters[core * isa.QUEUES + queue])

    def _wait(self, core: int, queue: int, before: tuple[int, int, int]) -> None:
        key = (core, queue, *before[:2])
        if self.known.get(key, 0) < before[2]:
            self.known[key] = before[2]
            counter = self._counter(*before[:2])
            self.programs[core].append(isa.Wait(queue=queue, counter=counter, value=before[2]))

    def barrier(self) -> None:
        """All cores meet; afterwards everybody knows of everything before."""
        members = [*range(self.cores), isa.MEMORY_CORE]
        for core in members:
            self.programs[core].append(isa.Barrier(mask=sum(1 << m for m in members)))
            for queue in range(isa.QUEUES):
                for producer, done in self.issued.items():
                    self.known[(core, queue, *producer)] = done

    # memory
    def allocate(self, core: int, type: Type, rows: int, count: int, strided: bool = True) -> Region:
        """A new, uninitialised NRAM region of a core, its pitch dense or with a gap."""
        size = int(isa.TYPE_SIZES[type])
        pitch = (count + (self.integer(0, 5) if strided and self.chance(0.4) else 0)) * size
        base = -(-self.nram[core] // 8) * 8 + size * self.integer(0, 3)
        self.nram[core] = base + rows * pitch
        if self.nram[core] > NRAM_BYTES:
            raise MemoryError
        return Region(isa.NRAM, core, base, type, rows, count, pitch)

    def publish(self, region: Region) -> Region:
        self.regions.append(region)
        return region

    def load(self, core: int, type: Type, elements: int) -> Region:
        """Bring part of an input into NRAM, by the core itself or by the memory core over SRAM."""
        size = int(isa.TYPE_SIZES[type])
        offset = self.integer(0, INPUT_ELEMENTS[type] - elements) * size
        source = Region(isa.INPUT + INPUT_TYPES.index(type), -1, offset, type, 1, elements, elements * size)
        if self.chance(0.3):
            source = self.move(isa.MEMORY_CORE, source, isa.SRAM)
        return self.move(core, source, isa.NRAM)

    def move(self, core: int, source: Region, space: int) -> Region:
        """Copy a region to dense memory of another space; rows become runs."""
        if space == isa.NRAM:
            target = self.allocate(core, source.type, source.rows, source.count)
        else:
            base = self.sram if space == isa.SRAM else self.workspace
            pitch = source.count * source.size
            target = Region(space, -1, base, source.type, source.rows, source.count, pitch)
            step = -(-source.rows * pitch // 64) * 64
            self.sram, self.workspace = (base + step, self.workspace) if space == isa.SRAM else (self.sram, base + step)
        strides = {f"{side}_stride{k}": 0 for side in ("dst", "src") for k in range(3)}
        level = self.integer(0, 2)
        strides[f"dst_stride{level}"], strides[f"src_stride{level}"] = target.pitch, source.pitch
        copy = isa.Copy(
            dst=(target.space, target.base), src=(source.space, source.base), run=source.count * source.size,
            **{f"n{level}": source.rows}, **strides,
        )  # fmt: skip
        self.append(core, copy, [source], [target])
        return self.publish(target)

    def source(self, core: int, type: Type, elements: int = 1, dense: bool = False) -> Region:
        """An NRAM region of this core with at least so many elements, an old one or newly loaded."""
        found = [
            r for r in self.regions
            if r.core == core and r.type == type and r.elements >= elements and (r.dense or not dense)
        ]  # fmt: skip
        if found and self.chance(0.7):
            return self.pick(found)
        most = INPUT_ELEMENTS[type] // 4
        return self.load(core, type, self.integer(elements, max(elements, most)))

    # instructions
    def view(self, region: Region) -> dict[str, int]:
        """rows and count of a part of a region."""
        return {"rows": self.integer(1, region.rows), "count": self.integer(1, region.count)}

    def float_type(self) -> Type:
        return self.pick([Type.F16, Type.F32])

    def unary(self, core: int) -> None:
        type = self.float_type()
        src = self.source(core, type)
        values = {"dtype": type, "function": self.pick(isa.UnaryFunction), "parameter": float(self.rng.normal())}
        if self.chance(0.3):
            values.update(rows=src.rows, count=src.count, dst_pitch=src.pitch, src_pitch=src.pitch)
            self.append(core, isa.Unary(dst=src.base, src=src.base, **values), [src], [src])
            return
        part = self.view(src)
        dst = self.allocate(core, type, **part)
        pitches = {"dst_pitch": dst.pitch, "src_pitch": src.pitch}
        self.append(core, isa.Unary(dst=dst.base, src=src.base, **part, **pitches, **values), [src], [dst])
        self.publish(dst)

    def binary(self, core: int) -> None:
        type = self.float_type()
        a = self.source(core, type)
        part = self.view(a)
        mode = self.pick(Mode)
        values: dict[str, Any] = {"dtype": type, "function": self.pick(isa.BinaryFunction), "mode": mode}
        reads = [a]
        if mode is Mode.CONST:
            values["constant"] = float(self.rng.normal())
        else:
            needed = {Mode.FULL: part["count"], Mode.ROW: part["rows"], Mode.CYCLE: 1}[mode]
            b = self.source(core, type, needed, dense=True)
            reads.append(b)
            values["b"] = b.base
            if mode is Mode.CYCLE:
                values["period"] = self.integer(1, b.elements)
            if mode is Mode.FULL:
                room = (b.elements - part["count"]) // max(part["rows"] - 1, 1)
                values["b_pitch"] = self.integer(0, room) * b.size
        dst = self.allocate(core, type, **part)
        values.update(dst_pitch=dst.pitch, a_pitch=a.pitch, **part)
        self.append(core, isa.Binary(dst=dst.base, a=a.base, **values), reads, [dst])
        self.publish(dst)

    def convert(self, core: int) -> None:
        floats = [Type.F16, Type.F32]
        src_type = self.pick(Type)
        to_float = [t for t in floats if t != src_type]
        dst_type = self.pick([*to_float, Type.I8, Type.I16] if src_type in floats else floats)
        src = self.source(core, src_type)
        part = self.view(src)
        dst = self.allocate(core, dst_type, **part)
        convert = isa.Convert(
            dst=dst.base, src=src.base, **part, dst_pitch=dst.pitch, src_pitch=src.pitch, src_type=src_type,
            dst_type=dst_type, position=self.integer(-9, 3),
        )  # fmt: skip
        self.append(core, convert, [src], [dst])
        self.publish(dst)

    def window(self, core: int, type: Type, channels: int, dilated: bool, dense_pixels: bool = False) -> tuple:
        """A random window over a dense region: (region, fields, output rows and columns)."""
        g = {"kh": self.integer(1, 3), "kw": self.integer(1, 3)}
        g |= {"stride_y": self.integer(1, 3), "stride_x": self.integer(1, 2)}
        dilations = (self.integer(1, 2), self.integer(1, 2)) if dilated else (1, 1)
        if dilated:
            g |= {"dilation_y": dilations[0], "dilation_x": 1 if dense_pixels else dilations[1]}
        spans = [(g["kh"] - 1) * dilations[0] + 1, (g["kw"] - 1) * g.get("dilation_x", 1) + 1]
        g |= {"h": spans[0] + self.integer(0, 4), "w": spans[1] + self.integer(0, 5)}
        pixel = channels + (0 if dense_pixels else self.integer(0, 2))
        row = g["w"] * pixel + self.integer(0, 3)
        src = self.source(core, type, g["h"] * row, dense=True)
        g |= {"src": src.base, "src_row_pitch": row * src.size, "src_pixel_pitch": pixel * src.size}
        oh = (g["h"] - spans[0]) // g["stride_y"] + 1
        ow = (g["w"] - spans[1]) // g["stride_x"] + 1
        return src, g, oh, ow

    def place(self, core: int, type: Type, oh: int, ow: int, channels: int) -> tuple[Region, dict[str, int]]:
        """A destination of pixels, perhaps with gaps between them."""
        dst = self.allocate(core, type, oh * ow, channels)
        return dst, {"dst": dst.base, "dst_row_pitch": ow * dst.pitch, "dst_pixel_pitch": dst.pitch}

    def pool(self, core: int) -> None:
        type, channels = self.float_type(), self.integer(1, 9)
        src, g, oh, ow = self.window(core, type, channels, dilated=False)
        dst, d = self.place(core, type, oh, ow, channels)
        pool = isa.Pool(c=channels, dtype=type, function=self.pick(isa.PoolFunction), **g, **d)
        self.append(core, pool, [src], [dst])
        self.publish(dst)

    def depthwise(self, core: int) -> None:
        type, channels = self.float_type(), self.integer(1, 9)
        src, g, oh, ow = self.window(core, type, channels, dilated=True)
        filters = self.source(core, type, g["kh"] * g["kw"] * channels, dense=True)
        dst, d = self.place(core, type, oh, ow, channels)
        self.append(core, isa.Depthwise(c=channels, dtype=type, filters=filters.base, **g, **d), [src, filters], [dst])
        self.publish(dst)

    def reduce(self, core: int) -> None:
        type = self.float_type()
        src = self.source(core, type)
        part = self.view(src)
        dst = self.allocate(core, type, 1, part["rows"])
        values = {"dtype": type, "function": self.pick(isa.ReduceFunction), "src_pitch": src.pitch}
        self.append(core, isa.Reduce(dst=dst.base, src=src.base, **part, **values), [src], [dst])
        self.publish(dst)

    def transpose(self, core: int) -> None:
        src = self.source(core, self.pick(Type))
        part = self.view(src)
        dst = self.allocate(core, src.type, part["count"], part["rows"])
        transpose = isa.Transpose(
            dst=dst.base, src=src.base, rows=part["rows"], columns=part["count"], element_size=src.size,
            src_pitch=src.pitch, dst_pitch=dst.pitch,
        )  # fmt: skip
        self.append(core, transpose, [src], [dst])
        self.publish(dst)

    def fill(self, core: int) -> None:
        dst = self.allocate(core, self.pick(Type), self.integer(1, 6), self.integer(1, 40))
        value = self.integer(0, 200)
        fill = isa.Fill(
            dst=dst.base, element_size=dst.size, value=value, run=dst.count * dst.size, n1=dst.rows,
            dst_stride1=dst.pitch,
        )  # fmt: skip
        self.append(core, fill, [], [dst])
        self.publish(dst)

    def filters(self, core: int, shape: tuple[int, int, int, int], type: Type, runs: isa.Runs) -> Region:
        """Random filters in constants, copied to WRAM."""
        limit = 1 << (8 * int(isa.TYPE_SIZES[type]) - 1)
        w = self.rng.integers(-limit, limit, shape).astype(isa.NUMPY_TYPES[type])
        packed = isa.pack_filters(w, runs)
        if self.dirty_padding:
            real = isa.pack_filters(np.full_like(w, -1), runs) != 0
            packed = np.where(real, packed, self.rng.integers(0, 256, len(packed))).astype(np.uint8)
        offset = sum(len(part) for part in self.constants)
        self.constants.append(packed)
        base = self.wram[core]
        self.wram[core] += len(packed)
        if self.wram[core] > WRAM_BYTES:
            raise MemoryError
        target = Region(isa.WRAM, core, base, Type.I8, 1, len(packed), len(packed))
        copy = isa.Copy(dst=(isa.WRAM, base), src=(isa.CONSTANTS, offset), run=len(packed))
        self.append(core, copy, [], [target])
        return target

    def conv(self, core: int) -> None:
        src_type, filter_type = self.pick([(Type.I8, Type.I8), (Type.I16, Type.I8), (Type.I16, Type.I16)])
        runs = self.pick(isa.Runs)
        dst_type, ci, co = self.float_type(), self.integer(1, 9), self.pick([1, 3, 32, 64, 70])
        src, g, oh, ow = self.window(core, src_type, ci, dilated=True, dense_pixels=runs is isa.Runs.ROW)
        types = {"src_type": src_type, "filter_type": filter_type, "dst_type": dst_type, "runs": runs}
        shape = (co, g["kh"], g["kw"], ci)
        dst, d = self.place(core, dst_type, oh, ow, co)
        links = self.pick([[Partial.NONE]] * 3 + [[Partial.FIRST, Partial.LAST], list(Partial)[1:]])
        values = dict(ci=ci, co=co, fix_position=self.integer(-14, 2), **types, **g)
        sums = self._sums(core, oh * ow * co, src_type, filter_type) if len(links) > 1 else None
        for partial in links:
            filters = self.filters(core, shape, filter_type, runs)
            place = {"filters": filters.base, "partial": partial, "partial_sums": sums.base if sums else 0}
            last = partial in (Partial.NONE, Partial.LAST)
            reads = [src, filters] + ([sums] if sums and partial is Partial.LAST else [])
            writes = [dst] if last else [sums]
            self.append(core, isa.Conv(**values, **place, **(d if last else {})), reads, writes)  # type: ignore[list-item]
        self.publish(dst)

    def product(self, core: int) -> None:
        """Two activations: one reshaped into WRAM, the other convolved with it by a kernel of 1x1."""
        src_type, filter_type = self.pick([(Type.I8, Type.I8), (Type.I16, Type.I8), (Type.I16, Type.I16)])
        other = self.source(core, filter_type)
        part = self.view(other)
        order = self.pick(isa.FilterOrder)
        co, ci = (part["rows"], part["count"]) if order is isa.FilterOrder.CHANNELS else (part["count"], part["rows"])
        size = int(isa.filter_bytes(co, 1, 1, ci, filter_type, isa.Runs.TAP))
        filters = Region(isa.WRAM, core, self.wram[core], Type.I8, 1, size, size)
        self.wram[core] += size
        src, dst_type = self.source(core, src_type, elements=ci, dense=True), self.float_type()
        pixels = src.elements // ci
        dst = self.allocate(core, dst_type, pixels, co)
        if self.wram[core] > WRAM_BYTES:
            raise MemoryError
        reshape = isa.ReshapeFilter(
            dst=filters.base, src=other.base, co=co, ci=ci, src_pitch=other.pitch, filter_type=filter_type, order=order
        )
        conv = isa.Conv(
            dst=dst.base, src=src.base, filters=filters.base, ci=ci, h=1, w=pixels, kh=1, kw=1, co=co,
            src_row_pitch=0, src_pixel_pitch=ci * src.size, dst_row_pitch=0, dst_pixel_pitch=dst.pitch,
            fix_position=self.integer(-14, 2), src_type=src_type, filter_type=filter_type, dst_type=dst_type,
            runs=self.pick(isa.Runs),
        )  # fmt: skip
        self.append(core, reshape, [other], [filters])
        self.append(core, conv, [src, filters], [dst])
        self.publish(dst)

    def _sums(self, core: int, elements: int, src_type: Type, filter_type: Type) -> Region:
        width = int(isa.sum_size(int(src_type), int(filter_type)))
        self.nram[core] = -(-self.nram[core] // 8) * 8
        sums = Region(isa.NRAM, core, self.nram[core], Type.I32, 1, elements * width // 4, elements * width)
        self.nram[core] += elements * width
        if self.nram[core] > NRAM_BYTES:
            raise MemoryError
        return sums

    def exchange(self, core: int) -> None:
        """A region through SRAM or workspace to some core."""
        found = [r for r in self.regions if r.core == core]
        if found:
            shared = self.move(core, self.pick(found), self.pick([isa.SRAM, isa.WORKSPACE]))
            if self.chance(0.5):
                other = isa.WORKSPACE if shared.space == isa.SRAM else isa.SRAM
                shared = self.move(isa.MEMORY_CORE, shared, other)
            self.move(self.integer(0, self.cores - 1), shared, isa.NRAM)

    def store(self, region: Region) -> None:
        """A region becomes an output, dense."""
        name = DTYPE_NAMES[region.type]
        k = len(self.outputs)
        self.outputs.append(IORecord.dense(f"out{k}", (region.rows, region.count), name))
        target = Region(isa.OUTPUT + k, -1, 0, region.type, region.rows, region.count, region.count * region.size)
        copy = isa.Copy(
            dst=(target.space, 0), src=(region.space, region.base), run=target.pitch, n2=region.rows,
            dst_stride2=target.pitch, src_stride2=region.pitch,
        )  # fmt: skip
        self.append(region.core if region.core >= 0 else isa.MEMORY_CORE, copy, [region], [target])

    def finish(self) -> RandomFunction:
        last = self.regions[-6:] or [self.load(0, Type.F16, 16)]
        for region in last:
            self.store(region)
        kept = [*range(self.cores), isa.MEMORY_CORE]
        function = DeviceFunction(
            name="subnet0", inputs=input_records(), outputs=self.outputs, cores=self.cores,
            programs=[isa.encode_program(self.programs[core]) for core in kept], workspace=self.workspace,
        )  # fmt: skip
        constants = np.concatenate(self.constants) if self.constants else np.zeros(0, np.uint8)
        return RandomFunction(function, constants)


KINDS = [
    "unary", "binary", "convert", "pool", "depthwise", "reduce", "transpose", "fill", "conv", "conv", "exchange",
    "product",
]  # fmt: skip


def input_records() -> list[IORecord]:
    return [IORecord.dense(f"in_{DTYPE_NAMES[t]}", (INPUT_ELEMENTS[t],), DTYPE_NAMES[t]) for t in INPUT_TYPES]


def random_function(
    seed: int, cores: int = 1, length: int = 8, kinds: list[str] | None = None, dirty_padding: bool = False
) -> RandomFunction:
    """A legal device function of about `length` computing instructions, of the given method names of the builder;
    `dirty_padding` puts noise where filters are padded, which no result may depend on."""
    builder = _Builder(seed, cores, dirty_padding)
    for _ in range(length):
        make: Callable[[int], None] = getattr(builder, builder.pick(kinds or KINDS))
        try:
            make(builder.integer(0, cores - 1))
        except MemoryError:
            break
        if builder.chance(0.1):
            builder.barrier()
    return builder.finish()


def programs(max_length: int = 12, kinds: list[str] | None = None) -> st.SearchStrategy[RandomFunction]:
    """Random legal device functions; shrinks towards fewer instructions and cores."""
    return st.builds(
        random_function, seed=st.integers(0, 2**32 - 1), cores=st.sampled_from([1, 2, 4]),
        length=st.integers(1, max_length), kinds=st.just(kinds),
    )  # fmt: skip


def random_inputs(seed: int, special: bool = False) -> list[np.ndarray]:
    """One array per input record; `special` adds infinities, NaN, subnormals and both zeros to the float ones."""
    rng = np.random.default_rng(seed)
    arrays = []
    for type, elements in INPUT_ELEMENTS.items():
        dtype = isa.NUMPY_TYPES[type]
        if type in (Type.F16, Type.F32):
            values = (rng.normal(size=elements) * np.exp2(rng.integers(-4, 5, elements))).astype(dtype)
            if special:
                places = rng.choice(elements, 24, replace=False)
                values[places] = np.resize(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 6e-8, -6e-8, 6e4], dtype), 24)
        else:
            info = np.iinfo(dtype)
            values = rng.integers(info.min, info.max, elements, dtype, endpoint=True)
        arrays.append(values)
    return arrays
