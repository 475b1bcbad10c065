"""Random programs on little memory that is used again and again: in place, over parts of what is still needed, as
other element types than were written, through copies of copies. They hold translation to what memory really contains;
`isa_strategies` and `chains` give every result a place of its own. Not tests.

An instruction is drawn with random places, mostly ones that were used before, and kept when it is legal and reads as
floats only what was written as floats: then no NaN appears, whose bits nothing defines.
"""

from __future__ import annotations

import numpy as np

from targets.mlu220 import isa
from targets.mlu220.container import DeviceFunction, IORecord
from targets.mlu220.isa import Mode, Type
from tests.isa_strategies import Drawing, RandomFunction

WINDOW = 1024
"""Bytes that are used of NRAM, of SRAM and of the workspace."""
SPACES = (isa.NRAM, isa.SRAM, isa.WORKSPACE)
FLOATS = (Type.F16, Type.F32)
TAGS = {Type.F16: (1, 2), Type.F32: (3, 4, 5, 6)}
"""What a byte of an element is known as; 0 in other types."""
View = tuple[int, int, int, int, int]
"""Base, rows, elements of a row, bytes between rows, bytes of an element."""


def ordered(*instructions: isa.Instruction) -> np.ndarray:
    """A program in which every instruction waits for the one before it."""
    rows: list[isa.Instruction] = []
    done = [0, 0, 0]
    for before, instruction in zip((None, *instructions), instructions, strict=False):
        if before is not None and before.unit != instruction.unit:
            rows.append(isa.Wait(queue=int(instruction.unit), counter=int(before.unit), value=done[before.unit]))
        rows.append(instruction)
        done[instruction.unit] += 1
        rows.append(isa.Signal(queue=int(instruction.unit), counter=int(instruction.unit)))
    return isa.encode_program(rows)


def size_of(type: Type) -> int:
    return int(isa.TYPE_SIZES[type])


def places(base: int, rows: int, count: int, pitch: int, size: int) -> np.ndarray:
    """The offset of every element."""
    return (base + np.add.outer(np.arange(rows) * pitch, np.arange(count) * size)).ravel()


class CrowdedBuilder(Drawing):
    """Methods draw one instruction each, and return it when it can stand."""

    def __init__(self, seed: int):
        super().__init__(seed)
        self.tags = {space: np.zeros(WINDOW, np.uint8) for space in (*SPACES, isa.INPUT)}
        self.views: list[View] = []
        self.program: list[isa.Instruction] = []

    # -- places
    def place(self, type: Type) -> View:
        """Somewhere new, or something used lately: the same, as one row, as another type, or a little beside it."""
        size = size_of(type)
        if not self.views or self.chance(0.15):
            rows, count = self.pick([1, 1, 2, 4, 8]), self.pick([1, 4, 8, 16, 24, 32])
            gap = self.pick([0, 0, 0, 0, size, -size * (count // 2), -size * count])
            return 16 * self.integer(0, WINDOW // 16 - 1), rows, count, count * size + gap, size
        base, rows, count, pitch, used = self.views[-1] if self.chance(0.5) else self.pick(self.views[-8:])
        kind, width = self.integer(0, 9), max(1, count * used // size)
        if used == size and kind < 6:
            return base, rows, count, pitch, size
        if kind < 8:
            whole = rows * width if pitch == count * used else width
            return base - base % size, 1, whole, 0, size
        beside = size * self.integer(0, 3) if kind == 8 else 0
        return base - base % size + beside, rows, width, pitch - pitch % size, size

    def reads(self, type: Type, elements: np.ndarray) -> bool:
        """Whether elements may be read as a type."""
        if elements.max() + size_of(type) > WINDOW:
            return False
        tags = self.tags[isa.NRAM]
        return all((tags[elements + k] == tag).all() for k, tag in enumerate(TAGS.get(type, ())))

    def keep(self, instruction: isa.Instruction, type: Type, *used: View) -> isa.Instruction | None:
        """The instruction, when it is legal; the last view is what it writes."""
        rows = isa.encode_program([instruction])
        accesses = isa.footprints(rows)
        inside = ~np.isin(accesses.space, list(self.tags)) | (accesses.end <= WINDOW)
        if isa.faults(rows) or not inside.all():
            return None
        for k, tag in enumerate(TAGS.get(type, (0,) * size_of(type))):
            self.tags[isa.NRAM][places(*used[-1]) + k] = tag
        self.views += used
        return instruction

    # -- instructions
    def unary(self) -> isa.Instruction | None:
        type = self.pick(FLOATS)
        source = base, rows, count, pitch, size = self.place(type)
        to, _, _, to_pitch, _ = source if self.chance(0.4) else self.place(type)
        to_pitch = to_pitch if self.chance(0.7) else count * size
        if not self.reads(type, places(*source)):
            return None
        unary = isa.Unary(
            dst=to, src=base, rows=rows, count=count, dst_pitch=to_pitch, src_pitch=pitch, dtype=type,
            function=self.pick(["RELU", "ABS", "LEAKY_RELU"]), parameter=0.25,
        )  # fmt: skip
        return self.keep(unary, type, source, (to, rows, count, to_pitch, size))

    def binary(self) -> isa.Instruction | None:
        type, mode = self.pick(FLOATS), self.pick(Mode)
        source = base, rows, count, pitch, size = self.place(type)
        to, _, _, to_pitch, _ = target = source if self.chance(0.4) else self.place(type)
        other, _, _, other_pitch, _ = target if self.chance(0.2) else self.place(type)
        period = self.pick([1, 2, 4, 8, count])
        elements = {
            Mode.FULL: (other, rows, count, other_pitch, size), Mode.CYCLE: (other, 1, min(period, count), 0, size),
            Mode.ROW: (other, 1, rows, 0, size), Mode.CONST: source,
        }[mode]  # fmt: skip
        if not self.reads(type, places(*source)) or not self.reads(type, places(*elements)):
            return None
        constant = mode is Mode.CONST
        binary = isa.Binary(
            dst=to, a=base, b=0 if constant else other, rows=rows, count=count, dst_pitch=to_pitch, a_pitch=pitch,
            b_pitch=0 if constant else other_pitch, dtype=type, mode=mode, period=period,
            function=self.pick(["MUL", "MUL", "MAX", "MIN"] if constant else ["ADD", "SUB", "MAX", "MIN"]),
            constant=self.pick([0.5, -0.75, 0.0, -0.0, 1.0]),
        )  # fmt: skip
        return self.keep(binary, type, elements, source, (to, rows, count, to_pitch, size))

    def convert(self) -> isa.Instruction | None:
        source_type, type = self.pick(Type), self.pick(Type)
        if type is Type.F16 and source_type in (Type.I16, Type.I32):  # beyond what it holds
            return None
        source = base, rows, count, pitch, _ = self.place(source_type)
        to, _, _, to_pitch, _ = self.place(type)
        if self.chance(0.4):
            to, to_pitch = base, count * size_of(type)
        if not self.reads(source_type, places(*source)):
            return None
        convert = isa.Convert(
            dst=to, src=base, rows=rows, count=count, dst_pitch=to_pitch, src_pitch=pitch, src_type=source_type,
            dst_type=type, position=self.pick([0, -4, -7]),
        )  # fmt: skip
        return self.keep(convert, type, source, (to, rows, count, to_pitch, size_of(type)))

    def copy(self) -> isa.Instruction | None:
        """Rows of bytes, between any of the memories; they stay what they were."""
        source_space, space = (self.pick([isa.NRAM] * 4 + [isa.SRAM, isa.WORKSPACE]) for _ in range(2))
        source_space = isa.INPUT if self.chance(0.2) else source_space
        source = base, rows, count, pitch, size = self.place(self.pick(Type))
        to, _, _, to_pitch, _ = self.place(self.pick(Type))
        copy = isa.Copy(
            dst=(space, to), src=(source_space, base), run=count * size, n2=rows, dst_stride2=to_pitch,
            src_stride2=pitch,
        )  # fmt: skip
        before = self.tags[isa.NRAM].copy()
        if self.keep(copy, Type.I8, source, (to, rows, count * size, to_pitch, 1)) is None:
            return None
        self.tags[isa.NRAM] = before
        self.tags[space][places(to, rows, count * size, to_pitch, 1)] = self.tags[source_space][
            places(base, rows, count * size, pitch, 1)
        ]
        self.views[-1] = (to, rows, count, to_pitch, size)
        return copy

    def pieces(self) -> isa.Instruction | None:
        """A run from a memory that does not change over another one, in two pieces, now and then from two places."""
        source, between, to = (16 * self.integer(0, 40) for _ in range(3))
        run, apart = 16 * self.integer(2, 8), self.pick([0, 0, 0, 16])
        self.program += [
            isa.Copy(dst=(isa.SRAM, between), src=(isa.INPUT, source), run=16),
            isa.Copy(dst=(isa.SRAM, between + 16), src=(isa.INPUT, source + 16 + apart), run=run - 16),
        ]
        self.tags[isa.SRAM][between : between + run] = 0
        copy = isa.Copy(dst=(isa.NRAM, to), src=(isa.SRAM, between), run=run)
        return self.keep(copy, Type.I8, (to, 1, run, 0, 1))

    def fill(self) -> isa.Instruction | None:
        type, value = self.pick([(Type.I8, 77), (Type.F16, 0x3800), (Type.F32, 0x3F000000)])
        to, rows, count, pitch, size = target = self.place(type)
        fill = isa.Fill(dst=to, element_size=size, value=value, run=count * size, n2=rows, dst_stride2=pitch)
        return self.keep(fill, type, target)

    def pool(self) -> isa.Instruction | None:
        type, channels, kernel = self.pick(FLOATS), self.pick([1, 4, 8, 16]), self.integer(1, 2)
        height, width = self.integer(2, 4), self.integer(2, 4)
        base, to, size = self.place(type)[0], self.place(type)[0], size_of(type)
        pixel, out = channels * size, (width - kernel + 1) * channels * size
        if not self.reads(type, places(base, 1, height * width * channels, 0, size)):
            return None
        pool = isa.Pool(
            dst=to, src=base, c=channels, h=height, w=width, kh=kernel, kw=kernel, src_row_pitch=width * pixel,
            src_pixel_pitch=pixel, dst_row_pitch=out, dst_pixel_pitch=pixel, dtype=type,
            function=self.pick(["MAX", "MEAN"]),
        )  # fmt: skip
        pixels = (height - kernel + 1) * (width - kernel + 1)
        return self.keep(pool, type, (to, pixels, channels, pixel, size))

    def conv(self) -> isa.Instruction | None:
        """A kernel of 1x1 on any bytes; its filters come first."""
        type, inputs, outputs = self.pick(FLOATS), self.pick([4, 8]), self.pick([1, 4, 16, 17, 32, 33, 40])
        height, width, filters = self.integer(1, 3), self.integer(1, 3), 64 * self.integer(0, 7)
        base, to, size = self.place(Type.I8)[0], self.place(type)[0], size_of(type)
        pixel = outputs * size + self.pick([0, 0, size])
        conv = isa.Conv(
            dst=to, src=base, filters=filters, ci=inputs, h=height, w=width, kh=1, kw=1, co=outputs,
            src_row_pitch=inputs * width, src_pixel_pitch=inputs, dst_row_pitch=width * pixel, dst_pixel_pitch=pixel,
            fix_position=-9, src_type="I8", filter_type="I8", dst_type=type, runs=self.pick(isa.Runs),
        )  # fmt: skip
        kept = self.keep(conv, type, (to, height * width, outputs, pixel, size))
        if kept is not None:
            origin = (isa.CONSTANTS, 64 * self.integer(0, 7))
            self.program.append(isa.Copy(dst=(isa.WRAM, filters), src=origin, run=64 * 64))
        return kept

    def reduce(self) -> isa.Instruction | None:
        type = self.pick(FLOATS)
        source = base, rows, count, pitch, size = self.place(type)
        to = self.place(type)[0]
        if not self.reads(type, places(*source)):
            return None
        reduce = isa.Reduce(
            dst=to, src=base, rows=rows, count=count, src_pitch=pitch, dtype=type, function=self.pick(["MAX", "MIN"])
        )
        return self.keep(reduce, type, (to, 1, rows, 0, size))

    # -- chains: elementwise instructions, each on the result of the one before
    def chain(self) -> None:
        """Results lie where something else of the chain lay; copies and others that overwrite it stand in between."""
        type = self.pick(FLOATS)
        base, rows, count, _, size = self.place(type)
        value = (base, rows, count, count * size, size)
        lain = [value]
        for _ in range(self.integer(2, 4)):
            value = self.link(type, value, lain)
            if self.chance(0.3):
                value = self.relay(type, value, lain)
            if self.chance(0.4):
                self.spoil(type, self.pick(lain))
            self.views.append(value)

    def link(self, type: Type, value: View, lain: list[View]) -> View:
        """One more instruction: its result, or the old one where it cannot stand."""
        target, other = ((self.pick([*lain, *lain, self.place(type)])[0], *value[1:]) for _ in range(2))
        first, second = (value, other) if self.chance(0.7) else (other, value)
        link = {"dst": target[0], "rows": value[1], "count": value[2], "dst_pitch": value[3], "dtype": type}
        instruction: isa.Instruction = isa.Unary(src=value[0], src_pitch=value[3], function="ABS", **link)
        if self.chance(0.7):
            pitches = {"a_pitch": value[3], "b_pitch": value[3]}
            function = self.pick(["SUB", "MAX"])
            instruction = isa.Binary(a=first[0], b=second[0], function=function, **pitches, **link)
        readable = all(self.reads(type, places(*view)) for view in (value, other))
        if not readable or self.keep(instruction, type, other, target) is None:
            return value
        self.program.append(instruction)
        lain += [other, target]
        return target

    def relay(self, type: Type, value: View, lain: list[View]) -> View:
        """The value at another place; the old one is sometimes overwritten at once."""
        target = (self.place(type)[0], *value[1:])
        copy = isa.Copy(dst=(isa.NRAM, target[0]), src=(isa.NRAM, value[0]), run=value[1] * value[3])
        if not self.reads(type, places(*value)) or self.keep(copy, type, target) is None:
            return value
        self.program.append(copy)
        lain.append(target)
        if self.chance(0.6):
            self.spoil(type, value)
        return target

    def spoil(self, type: Type, view: View) -> None:
        base, _, count, pitch, size = view
        fill = isa.Fill(dst=base, element_size=size, value=0x3000 if size == 2 else 0x3E000000, run=pitch)
        if self.keep(fill, type, (base, 1, count, pitch, size)) is not None:
            self.program.append(fill)

    # -- whole programs
    def begin(self) -> None:
        """Every byte is written: as int8, and parts of NRAM as floats."""
        self.program += [isa.Copy(dst=(space, 0), src=(isa.INPUT, 0), run=WINDOW) for space in SPACES]
        for _ in range(6):
            type, number = self.pick([(Type.F16, 1), (Type.F32, 2)])
            run = 64 * self.integer(1, 6)
            base = self.integer(0, (WINDOW - run) // 64) * 64
            load = isa.Copy(dst=(isa.NRAM, base), src=(isa.INPUT + number, 64 * self.integer(0, 3)), run=run)
            self.keep(load, type, (base, 1, run // size_of(type), 0, size_of(type)))
            self.program.append(load)

    def end(self) -> None:
        """Much of NRAM is overwritten, or nothing would ever be dead; the windows are the outputs."""
        for base in range(0, WINDOW, 64):
            if self.chance(0.6):
                self.program.append(isa.Copy(dst=(isa.NRAM, base), src=(isa.INPUT, base), run=64))
        for k, space in enumerate(SPACES):
            self.program.append(isa.Copy(dst=(isa.OUTPUT + k, 0), src=(space, 0), run=WINDOW))

    def function(self, length: int) -> RandomFunction:
        """A device function of that many instructions drawn, besides chains."""
        self.begin()
        for _ in range(200 * length):
            if self.chance(0.1):
                self.chain()
            instruction = getattr(self, self.pick(KINDS))()
            if instruction is not None:
                self.program.append(instruction)
                length -= 1
            if not length:
                break
        self.end()
        types = (("i8", WINDOW), ("f16", WINDOW // 2), ("f32", WINDOW // 4))
        programs = [ordered(*self.program), np.zeros((0, isa.ROW_WORDS), np.int32)]
        function = DeviceFunction(
            name="subnet0", inputs=[IORecord.dense(f"in_{name}", (count,), name) for name, count in types],
            outputs=[IORecord.dense(f"out{k}", (WINDOW,), "i8") for k in range(len(SPACES))], programs=programs,
            cores=1, workspace=WINDOW,
        )  # fmt: skip
        return RandomFunction(function, self.rng.integers(0, 256, 8192).astype(np.uint8))


KINDS = ["unary"] * 5 + ["binary"] * 7 + ["convert"] * 5 + ["copy"] * 5 + ["conv"] * 3
KINDS += ["pieces", "pieces", "fill", "pool", "reduce"]


def crowded_function(seed: int, length: int = 24) -> tuple[RandomFunction, dict[str, np.ndarray]]:
    """A legal device function, and inputs for it."""
    made = CrowdedBuilder(seed).function(length)
    rng = np.random.default_rng(seed)
    inputs = {
        "in_i8": rng.integers(-128, 128, WINDOW).astype(np.int8),
        "in_f16": rng.normal(size=WINDOW // 2).astype(np.float16),
        "in_f32": rng.normal(size=WINDOW // 4).astype(np.float32),
    }
    return made, inputs
