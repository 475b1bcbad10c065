"""How an instruction is declared: fields, columns, rules, footprints.

An instruction is one row of 32 little-endian int32: word 0 is the opcode, then its fields in declared order, one word
each (two for an address in a named space), then zeros. A class states its fields, its rules and its footprints once,
on whole columns of rows, so that the encoder, the disassembly, the legality check of one instruction and of a whole
program, the hazard check, the cost model and the test strategies all read the same table. Concrete instructions are
in `isa.py`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from compiler.errors import did_you_mean

ROW_WORDS = 32
ROW_BYTES = 4 * ROW_WORDS
MAX_NEAR = 2**24
"""Offsets, counts and pitches inside a core's own memories stay below this, so that no int64 arithmetic overflows."""
MAX_FAR = 2**31 - 1
MAX_WORK = 2.0**40
"""Elementary steps (bytes copied, elements touched, multiply-adds) one instruction may ask for."""

# -- spaces ----------------------------------------------------------------------------------------------------------
NRAM, WRAM, SRAM, WORKSPACE, CONSTANTS = range(5)
INPUT, OUTPUT = 0x100, 0x200
MAX_IO = 0x100
SPACE_NAMES = {NRAM: "nram", WRAM: "wram", SRAM: "sram", WORKSPACE: "workspace", CONSTANTS: "constants"}
IPU_CORES = 4
MEMORY_CORE = 4
COUNTERS = 64


def space_name(space: int) -> str:
    """`nram`, ..., `input3`, `output0`; `space 7` for a number that names none."""
    if INPUT <= space < INPUT + MAX_IO:
        return f"input{space - INPUT}"
    if OUTPUT <= space < OUTPUT + MAX_IO:
        return f"output{space - OUTPUT}"
    return SPACE_NAMES.get(space, f"space {space}")


def space_number(name: str) -> int | None:
    """The inverse of `space_name`; None for an unknown name."""
    for prefix, base in (("input", INPUT), ("output", OUTPUT)):
        digits = name[len(prefix) :]
        if name.startswith(prefix) and digits.isdecimal() and int(digits) < MAX_IO:
            return base + int(digits)
    return next((number for number, known in SPACE_NAMES.items() if known == name), None)


def is_space(space: Any) -> Any:
    """Whether `space` (int or array) names a space."""
    return ((space >= NRAM) & (space <= CONSTANTS)) | is_input(space) | is_output(space)


def is_input(space: Any) -> Any:
    return (space >= INPUT) & (space < INPUT + MAX_IO)


def is_output(space: Any) -> Any:
    return (space >= OUTPUT) & (space < OUTPUT + MAX_IO)


def is_on_chip(space: Any) -> Any:
    """Whether `space` (int or array) is NRAM, WRAM or SRAM; the others live in GDRAM."""
    return (space >= NRAM) & (space <= SRAM)


class Unit(enum.IntEnum):
    """Who executes an instruction. The first three are the numbers of the queues too."""

    DMA = 0
    MATRIX = 1
    VECTOR = 2
    CONTROL = 3


QUEUES = 3
ALL_QUEUES = -1


class Address(NamedTuple):
    """A byte offset in a named space."""

    space: int
    offset: int

    def __str__(self) -> str:
        return f"{space_name(self.space)}+{self.offset:#x}"


# -- fields ----------------------------------------------------------------------------------------------------------
class Field:
    """One named word of an instruction (two for `far`). `kind` is near, far, number, integer, enum, f32 or bits."""

    def __init__(
        self, kind: str, low: int, high: int, default: Any = None, choices: type[enum.IntEnum] | None = None,
        space: int = -1, doc: str = "",
    ):  # fmt: skip
        self.kind, self.low, self.high, self.default = kind, low, high, default
        self.choices, self.space, self.doc = choices, space, doc
        self.name = ""
        self.column = 0
        """Index of the word; of the offset's word for `far`, whose space stands one before it."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @property
    def words(self) -> int:
        return 2 if self.kind == "far" else 1

    def __get__(self, instance: Instruction | None, owner: type) -> Any:
        return self if instance is None else self.read(instance.words)

    def __set__(self, instance: Instruction, value: Any) -> None:
        self.write(instance.words, value)

    def read(self, words: Any) -> Any:
        """The value in a row: int, float, enum member (a plain int when no member has that number) or `Address`."""
        word = int(words[self.column])
        if self.kind == "far":
            return Address(int(words[self.column - 1]), word)
        if self.kind == "f32":
            return float(np.array(word, np.int32).view(np.float32))
        if self.choices is not None and word in self.choices._value2member_map_:
            return self.choices(word)
        return word

    def write(self, words: list[int], value: Any) -> None:
        if type(value) is int and -(2**31) <= value < 2**31 and self.kind != "f32":
            words[self.column] = value
        elif self.kind == "far":
            words[self.column - 1], words[self.column] = (int32(v) for v in value)
        elif self.kind == "f32":
            words[self.column] = f32_bits(value)
        elif self.choices is not None and isinstance(value, str):
            words[self.column] = int(self.choices[value])
        else:
            words[self.column] = int32(value)


def int32(value: Any) -> int:
    """`value` as an int, OverflowError outside int32, TypeError when it is not whole."""
    number = int(value)
    if number != value:
        raise TypeError(f"{value!r} is not an integer")
    if not -(2**31) <= number < 2**31:
        raise OverflowError(f"{number} does not fit a 32-bit word")
    return number


def f32_bits(value: float) -> int:
    """The bits of `value` rounded to fp32, as a signed word."""
    return int(np.array(value, np.float32).view(np.int32))


def near(space: int, default: int | None = None, doc: str = "") -> Any:
    """A byte offset in a memory of the executing core."""
    return Field("near", 0, MAX_NEAR - 1, default, space=space, doc=doc)


def far(doc: str = "") -> Any:
    """A space and a byte offset."""
    return Field("far", 0, MAX_FAR, doc=doc)


def number(low: int = 1, high: int = MAX_NEAR, default: int | None = None, doc: str = "") -> Any:
    """A number of things; also pitches and strides in bytes, with low=0."""
    return Field("number", low, high, default, doc=doc)


def integer(low: int, high: int, default: int | None = None, doc: str = "") -> Any:
    return Field("integer", low, high, default, doc=doc)


def choice(kind: type[enum.IntEnum], default: Any = None, doc: str = "") -> Any:
    return Field("enum", min(kind), max(kind), default, choices=kind, doc=doc)


def f32bits(default: float | None = None, doc: str = "") -> Any:
    """An fp32 immediate, stored as its bits."""
    return Field("f32", -(2**31), 2**31 - 1, default, doc=doc)


def bits(high: int = 2**31 - 1, low: int = 0, default: int | None = None, doc: str = "") -> Any:
    """A bit pattern, printed in hexadecimal."""
    return Field("bits", low, high, default, doc=doc)


# -- columns and footprints ------------------------------------------------------------------------------------------
class Columns:
    """Rows of one opcode, read by field name as int64 arrays; a far field `dst` also has `dst_space`."""

    def __init__(self, spec: type[Instruction], rows: np.ndarray):
        self.spec, self.raw = spec, np.atleast_2d(rows)
        self._columns = spec.layout
        self._rows = np.ascontiguousarray(np.atleast_2d(rows).T, dtype=np.int64)

    def __len__(self) -> int:
        return self._rows.shape[1]

    def __getattr__(self, name: str) -> np.ndarray:
        try:
            return self._rows[self._columns[name]]
        except KeyError:
            raise AttributeError(name) from None


@dataclass
class Accesses:
    """What rows touch: access i of `row[i]` covers, for i0 < counts[0], i1 < counts[1], i2 < counts[2], the `run`
    bytes from base + i0*strides[0] + i1*strides[1] + i2*strides[2] in `space`. Normalised: neighbouring runs are
    merged, unused counts are 1 and their strides 0. All arrays are int64 but `write` (bool); counts and strides are
    [n, 3], outermost first."""

    row: np.ndarray
    space: np.ndarray
    base: np.ndarray
    run: np.ndarray
    counts: np.ndarray
    strides: np.ndarray
    write: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def take(self, index: np.ndarray) -> Accesses:
        """The chosen accesses: indices or a mask."""
        return Accesses(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    @staticmethod
    def concatenate(parts: Sequence[Accesses]) -> Accesses:
        if not parts:
            return Accesses.empty()
        return Accesses(*(np.concatenate([getattr(p, n) for p in parts]) for n in Accesses.__dataclass_fields__))

    @staticmethod
    def empty() -> Accesses:
        none, three = np.zeros(0, np.int64), np.zeros((0, 3), np.int64)
        return Accesses(none, none, none, none, three, three, np.zeros(0, bool))

    @property
    def end(self) -> np.ndarray:
        """One past the last byte touched."""
        return self.base + self.run + ((self.counts - 1) * self.strides).sum(axis=1)

    @property
    def bytes(self) -> np.ndarray:
        """Bytes touched, as float64 because hostile rows may ask for more than int64 holds."""
        return self.run.astype(np.float64) * np.prod(self.counts.astype(np.float64), axis=1)


def access(
    columns: Columns, space: Any, base: Any, run: Any, loops: Sequence[tuple[Any, Any]] = (), write: bool = False,
    where: Any = True, merge: bool = True,
) -> Accesses:  # fmt: skip
    """One access per row of `columns` (those for which `where` holds); `loops` are (count, stride), outermost first.
    `merge=False` leaves it as written, for `no_self_overlap`."""
    n = len(columns)

    def full(value: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(value, np.int64), (n,))

    padding = [(1, 0)] * (3 - len(loops))
    counts = np.stack([full(c) for c, _ in [*padding, *loops]], axis=1)
    strides = np.stack([full(s) for _, s in [*padding, *loops]], axis=1)
    result = Accesses(np.arange(n), full(space), full(base), full(run).copy(), counts, strides, np.full(n, write))
    keep = np.broadcast_to(np.asarray(where, bool), (n,))
    result = result if keep.all() else result.take(keep)
    return coalesce(result) if merge else result


def coalesce(a: Accesses) -> Accesses:
    """Merge runs that touch each other, drop loops of one and loops over the same bytes; the bytes touched are the
    same."""
    counts, strides, run = a.counts.copy(), a.strides.copy(), a.run.copy()
    for _ in range(3):
        counts[strides == 0] = 1
        strides[counts == 1] = 0
        joins = (counts[:, 2] > 1) & (strides[:, 2] == run)
        run = np.where(joins, run * counts[:, 2], run)
        counts[joins, 2], strides[joins, 2] = 1, 0
        for inner, outer in ((2, 1), (1, 0)):
            empty = counts[:, inner] == 1
            for array, neutral in ((counts, 1), (strides, 0)):
                array[empty, inner] = array[empty, outer]
                array[empty, outer] = neutral
    return Accesses(a.row, a.space, a.base, run, counts, strides, a.write)


def disjoint(a: Accesses, b: Accesses) -> np.ndarray:
    """For pairs of accesses, whether they provably share no byte: their hulls are apart, or they interleave with a
    common pitch (gcd of all strides). Sufficient, and part of the definition of what an instruction may ask for."""
    apart = (a.space != b.space) | (a.end <= b.base) | (b.end <= a.base)
    pitch = np.gcd(np.gcd.reduce(a.strides, axis=1), np.gcd.reduce(b.strides, axis=1))
    distance = np.mod(b.base - a.base, np.maximum(pitch, 1))
    return apart | ((pitch > 0) & (distance >= a.run) & (distance + b.run <= pitch))


def no_self_overlap(a: Accesses) -> np.ndarray:
    """Whether every byte of an access is touched once, by nesting: by rising stride, each steps over all inside it."""
    strides = np.where(a.counts == 1, 0, a.strides)
    order = np.argsort(strides, axis=1)
    counts, strides = np.take_along_axis(a.counts, order, 1), np.take_along_axis(strides, order, 1)
    extent, good = a.run.copy(), np.ones(len(a), bool)
    for k in range(3):
        good &= (counts[:, k] == 1) | (strides[:, k] >= extent)
        extent = extent + (counts[:, k] - 1) * strides[:, k]
    return good


def same(a: Accesses, b: Accesses) -> np.ndarray:
    """Whether pairs of accesses cover the same bytes in the same order."""
    return (
        (a.space == b.space) & (a.base == b.base) & (a.run == b.run)
        & (a.counts == b.counts).all(axis=1) & (a.strides == b.strides).all(axis=1)
    )  # fmt: skip


# -- instructions ----------------------------------------------------------------------------------------------------
class Rule(NamedTuple):
    """What must hold: `message` may use {field} names and is the manual's text; `holds` maps columns to booleans."""

    message: str
    holds: Callable[[Columns], Any]


class Fault(NamedTuple):
    """A row that is not a legal instruction."""

    row: int
    message: str


INSTRUCTIONS: dict[int, type[Instruction]] = {}
"""The instruction table: opcode → class."""
BY_NAME: dict[str, type[Instruction]] = {}
"""Mnemonic → class."""


class Instruction:
    """Base of all instructions; `words` is the row. Subclasses declare `opcode`, `unit`, fields and rules."""

    opcode: ClassVar[int] = 0
    unit: ClassVar[Unit] = Unit.CONTROL
    name: ClassVar[str] = ""
    fields: ClassVar[dict[str, Field]] = {}
    layout: ClassVar[dict[str, int]] = {}
    width: ClassVar[int] = 1
    rules: ClassVar[tuple[Rule, ...]] = ()
    template: ClassVar[list[int]] = []
    required: ClassVar[frozenset[str]] = frozenset()

    __slots__ = ("words",)

    def __init_subclass__(cls, opcode: int, unit: Unit, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        cls.opcode, cls.unit, cls.name = opcode, unit, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()
        cls.fields = {name: f for name, f in vars(cls).items() if isinstance(f, Field)}
        cls.layout = {}
        cls.width = 1
        for name, f in cls.fields.items():
            if f.kind == "far":
                cls.layout[name + "_space"] = cls.width
            cls.width += f.words
            f.column = cls.layout[name] = cls.width - 1
        if cls.width > ROW_WORDS or opcode in INSTRUCTIONS:
            raise TypeError(f"{cls.name}: opcode {opcode:#x} is taken or {cls.width} words do not fit a row")
        cls.template = [opcode] + [0] * (ROW_WORDS - 1)
        cls.required = frozenset(name for name, f in cls.fields.items() if f.default is None)
        for f in cls.fields.values():
            if f.default is not None:
                f.write(cls.template, f.default)
        INSTRUCTIONS[opcode] = BY_NAME[cls.name] = cls

    def __init__(self, **values: Any):
        words = self.words = self.template.copy()
        for name, value in values.items():
            f = self.fields.get(name)
            if f is None:
                raise TypeError(f"{self.name} has no field {name!r}; {did_you_mean(name, self.fields)}")
            f.write(words, value)
        if not self.required <= values.keys():
            missing = next(name for name in self.fields if name in self.required and name not in values)
            raise TypeError(f"{self.name} needs field {missing!r}")

    @classmethod
    def column(cls, name: str) -> int:
        """Index of the word that holds a field (the offset of a far field; its space is column(name + "_space"))."""
        return cls.layout[name]

    @classmethod
    def build(cls, **values: Any) -> np.ndarray:
        """Many instructions at once: every value is a scalar or an array, broadcast together → [n, 32] int32. Far
        fields are given as two values, `dst_space` and `dst`; f32 fields as floats."""
        arrays = {name: cls._words(name, value) for name, value in values.items()}
        shape = np.broadcast_shapes((1,), *(a.shape for a in arrays.values()))
        out = np.zeros((*shape, ROW_WORDS), np.int32)
        out[..., 0] = cls.opcode
        for name, f in cls.fields.items():
            for column in (name,) if f.kind != "far" else (name + "_space", name):
                if column not in arrays and f.default is None:
                    raise TypeError(f"{cls.name} needs field {column!r}")
                out[..., cls.layout[column]] = arrays.pop(column) if column in arrays else cls._words(name, f.default)
        for name in arrays:
            raise TypeError(f"{cls.name} has no field {name!r}; {did_you_mean(name, cls.layout)}")
        return out.reshape(-1, ROW_WORDS)

    @classmethod
    def _words(cls, name: str, value: Any) -> np.ndarray:
        f = cls.fields.get(name)
        if f is not None and f.kind == "f32":
            return np.asarray(value, np.float32).view(np.int32)
        if f is not None and f.choices is not None and isinstance(value, str):
            value = f.choices[value]
        array = np.asarray(value, np.int64)
        if array.size and not -(2**31) <= array.min() <= array.max() < 2**31:
            raise OverflowError(f"{cls.name}: a value of {name} does not fit a 32-bit word")
        return array

    def encode(self) -> np.ndarray:
        """The row: 32 little-endian int32."""
        return np.array(self.words, "<i4")

    def check(self) -> Iterator[str]:
        """What makes this instruction illegal on every board; nothing when it is legal."""
        yield from (fault.message for fault in self.faults(self.encode()))

    @classmethod
    def faults(cls, rows: np.ndarray) -> list[Fault]:
        """`check` for many rows of this opcode. A row with a field out of range is not looked at further."""
        columns = Columns(cls, rows)
        if not len(columns):
            return []
        found, sound = cls._range_faults(columns)
        if not sound.any():
            return found
        columns = Columns(cls, np.atleast_2d(rows)[sound])
        places = np.flatnonzero(sound)
        for rule in (*cls.rules, BOUNDED_WORK):
            broken = ~np.broadcast_to(np.asarray(rule.holds(columns), bool), (len(columns),))
            for k in np.flatnonzero(broken):
                words = columns._rows[:, k]
                values = {name: f.read(words) for name, f in cls.fields.items()}
                found.append(Fault(int(places[k]), rule.message.format_map(_Readable(values))))
        return found

    @classmethod
    def _range_faults(cls, columns: Columns) -> tuple[list[Fault], np.ndarray]:
        rows = columns._rows
        found = []
        sound = np.ones(len(columns), bool)
        tail = (rows[cls.width :] != 0).any(axis=0)
        for k in np.flatnonzero(tail):
            found.append(Fault(int(k), f"words {cls.width} to {ROW_WORDS - 1} are unused and must be 0"))
        sound &= ~tail
        for name, f in cls.fields.items():
            values = rows[f.column]
            bad = (values < f.low) | (values > f.high)
            for k in np.flatnonzero(bad):
                found.append(Fault(int(k), f"{name} = {values[k]} is outside {_range_text(f)}"))
            sound &= ~bad
            if f.kind == "far":
                unknown = ~is_space(rows[f.column - 1])
                for k in np.flatnonzero(unknown):
                    found.append(Fault(int(k), f"{name} names no memory: {space_name(int(rows[f.column - 1, k]))}"))
                sound &= ~unknown
        return found, sound

    @classmethod
    def footprints(cls, rows: np.ndarray) -> Accesses:
        """Every byte the rows read and write; `row` counts within `rows`. Rows must be in range (see `faults`)."""
        return Accesses.concatenate(cls.accesses(Columns(cls, rows)))

    @classmethod
    def accesses(cls, c: Columns) -> list[Accesses]:
        """Overridden: the accesses of whole columns, reads before writes."""
        return []

    @classmethod
    def work(cls, c: Columns) -> np.ndarray:
        """Overridden: elementary steps per row, float64 so that hostile rows do not overflow."""
        return np.ones(len(c))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Instruction) and self.words == other.words

    def __hash__(self) -> int:
        return hash(tuple(self.words))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={f.read(self.words)!r}' for n, f in self.fields.items())})"


class _Readable(dict):
    """Field values as a reader wants them in a message: enum members by name, addresses as space+offset."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        return value.name if isinstance(value, enum.IntEnum) else value


BOUNDED_WORK = Rule("more than 2^40 elementary steps", lambda c: c.spec.work(c) <= MAX_WORK)


def _range_text(f: Field) -> str:
    if f.choices is not None:
        return ", ".join(f"{member.name} ({member.value})" for member in f.choices)
    return f"{f.low} to {f.high}"


def decode(row: np.ndarray | Iterable[int]) -> Instruction:
    """The instruction in a row. ValueError for an unknown opcode; fields are not checked (`check` does)."""
    words = [int(w) for w in row]
    spec = INSTRUCTIONS.get(words[0])
    if spec is None or len(words) != ROW_WORDS:
        raise ValueError(f"no instruction has opcode {words[0]:#x}")
    instruction = spec.__new__(spec)
    instruction.words = words
    return instruction


def encode_program(instructions: Iterable[Instruction]) -> np.ndarray:
    """Instructions → [n, 32] little-endian int32."""
    words = [instruction.words for instruction in instructions]
    return np.array(words, "<i4").reshape(-1, ROW_WORDS)
