"""Reading a listing: every line by itself, so that one run reports many faults, each with line, column and a
suggestion.

The grammar is in `assembler.py`. A line is words, JSON values (text, lists, objects) and `name=value` pairs; `//`
starts a comment. Nothing written is ignored: an unknown word is an error that names the nearest known ones.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from compiler.errors import CompilerError, Diagnostic, did_you_mean
from targets.mlu220 import isa
from targets.mlu220.container import OfflineModel
from targets.mlu220.container_json import Malformed, finite
from targets.mlu220.container_records import (
    DTYPES,
    DebugEntry,
    DeviceFunction,
    HostFunction,
    IORecord,
    Step,
    numpy_dtype,
)  # fmt: skip

VERSION_LINE = "mluc listing 1"
MAX_FAULTS = 20
_SPACE = re.compile(r"(?:\s|//.*)*")
_WORD = re.compile(r"""[^\s="{}\[\]]+""")


class _Bad(Exception):
    """A fault of the current line."""

    def __init__(self, code: str, message: str, column: int, help: str = ""):
        super().__init__(message)
        self.code, self.message, self.column, self.help = code, message, column, help


class Line:
    """A cursor over one line."""

    def __init__(self, text: str):
        self.text, self.at = text, 0
        self.skip()

    def skip(self) -> None:
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at

    @property
    def done(self) -> bool:
        return self.at >= len(self.text)

    def bad(self, code: str, message: str, at: int | None = None, help: str = "") -> _Bad:
        return _Bad(code, message, self.at if at is None else at, help)

    def peek(self, symbol: str) -> bool:
        return self.text.startswith(symbol, self.at)

    def expect(self, symbol: str) -> None:
        if not self.peek(symbol):
            raise self.bad("E750", f"expected {symbol!r}")
        self.at += len(symbol)
        self.skip()

    def word(self, what: str = "a word") -> str:
        match = _WORD.match(self.text, self.at)
        if match is None or match.group().startswith("//"):
            raise self.bad("E750", f"expected {what}")
        self.at = match.end()
        self.skip()
        return match.group()

    def json(self, kind: type | tuple[type, ...], what: str) -> Any:
        """A JSON value of that Python type."""
        start = self.at
        try:
            decoder = json.JSONDecoder(parse_constant=_no_constant, parse_float=finite)
            value, self.at = decoder.raw_decode(self.text, self.at)
        except (ValueError, RecursionError):
            raise self.bad("E750", f"expected {what}") from None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.bad("E752", f"expected {what}", start)
        self.skip()
        return value

    def text_value(self, what: str) -> str:
        return self.json(str, what + " in quotation marks")

    def integer(self, what: str, low: int = 0, high: int = 2**31 - 1) -> int:
        start = self.at
        value = parse_integer(self.word(what))
        if value is None or not low <= value <= high:
            raise self.bad("E752", f"expected {what}, a whole number from {low} to {high}", start)
        return value

    def integers(self, what: str) -> tuple[int, ...]:
        start, values = self.at, self.json(list, what)
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
            raise self.bad("E752", f"{what} is a list of whole numbers", start)
        return tuple(values)

    def texts(self, what: str) -> tuple[str, ...]:
        start, values = self.at, self.json(list, what)
        if not all(isinstance(v, str) for v in values):
            raise self.bad("E752", f"{what} is a list of texts", start)
        return tuple(values)

    def end(self) -> None:
        if not self.done:
            raise self.bad("E750", f"nothing more can stand here: {self.text[self.at :]!r:.40}")

    def pairs(self, readers: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """`name=value` until the line ends or a brace opens; every value read by its name's reader."""
        result: dict[str, Any] = {}
        while not self.done and not self.peek("{"):
            start = self.at
            name = self.word("name=value")
            if name not in readers:
                raise self.bad("E751", f"{name!r} means nothing here", start, did_you_mean(name, readers))
            if name in result:
                raise self.bad("E750", f"{name!r} is given twice", start)
            self.expect("=")
            result[name] = readers[name]()
        return result


def _no_constant(text: str) -> Any:
    raise ValueError(text)


def parse_integer(text: str) -> int | None:
    """Decimal or 0x hexadecimal, perhaps negative; None for anything else."""
    try:
        return int(text, 0) if len(text) < 40 else None
    except ValueError:
        return None


# -- instructions ----------------------------------------------------------------------------------------------------
def parse_instruction(line: Line) -> np.ndarray:
    """One instruction line → its row. Legality is not looked at (`isa.faults`), only that fields fit their words."""
    start = line.at
    mnemonic = line.word("an instruction")
    if mnemonic == "raw":
        return _raw(line)
    spec = isa.BY_NAME.get(mnemonic)
    if spec is None:
        help = did_you_mean(mnemonic, [*isa.BY_NAME, "raw", "op", "end"])
        raise line.bad("E751", f"no instruction is called {mnemonic!r}", start, help)
    readers = {name: _reader(line, f) for name, f in spec.fields.items()}
    values = line.pairs(readers)
    missing = [name for name, f in spec.fields.items() if f.default is None and name not in values]
    if missing:
        raise line.bad("E752", f"{mnemonic} needs {', '.join(missing)}", start)
    line.end()
    words = [spec.opcode] + [0] * (isa.ROW_WORDS - 1)
    for name, f in spec.fields.items():
        if name in values:
            for column, word in values[name](f):
                words[column] = word
        else:
            f.write(words, f.default)
    return np.array(words, "<i4")


def _raw(line: Line) -> np.ndarray:
    words: list[int] = []
    while not line.done and len(words) < isa.ROW_WORDS:
        words.append(_signed(line.integer("a word", 0, 2**32 - 1)))
    line.end()
    return np.array(words + [0] * (isa.ROW_WORDS - len(words)), "<i4")


def _signed(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word


def _reader(line: Line, f: isa.Field) -> Callable[[], Any]:
    """Reads the value of a field; gives a function from the field to its (column, word) pairs."""

    def read() -> Any:
        start = line.at
        text = line.word(f"the value of {f.name}")
        words = _far_words(line, f, text, start) if f.kind == "far" else [_field_word(line, f, text, start)]
        columns = [f.column - 1, f.column] if f.kind == "far" else [f.column]
        return lambda _: list(zip(columns, words, strict=True))

    return read


def _far_words(line: Line, f: isa.Field, text: str, start: int) -> list[int]:
    name, plus, digits = text.partition("+")
    space, offset = isa.space_number(name), parse_integer(digits)
    if space is None:
        space = parse_integer(name)
    if space is None:
        known = [*(isa.space_name(s) for s in range(5)), "input0", "output0"]
        raise line.bad("E751", f"no memory is called {name!r}", start, did_you_mean(name, known))
    if not plus or offset is None:
        raise line.bad("E752", f"{f.name} is a memory and an offset, such as sram+0x40", start)
    return [_checked(line, f, v, start) for v in (space, offset)]


def _field_word(line: Line, f: isa.Field, text: str, start: int) -> int:
    if f.choices is not None and text in f.choices.__members__:
        return int(f.choices[text])
    value = parse_integer(text)
    if f.kind in ("f32", "bits") and value is not None and text.startswith("0x"):
        if not 0 <= value < 2**32:
            raise line.bad("E752", f"{f.name} = {text} does not fit 32 bits", start)
        return _signed(value)
    if f.kind == "f32":
        try:
            with np.errstate(over="ignore"):
                return int(np.array(float(text), np.float32).view(np.int32))
        except ValueError:
            raise line.bad("E752", f"{f.name} is a number, or its bits as 0x...", start) from None
    if value is None and f.choices is not None:
        names = list(f.choices.__members__)
        raise line.bad("E751", f"{f.name} cannot be {text!r}", start, did_you_mean(text, names))
    if value is None:
        raise line.bad("E752", f"{f.name} is a whole number, not {text!r}", start)
    return _checked(line, f, value, start)


def _checked(line: Line, f: isa.Field, value: int, start: int) -> int:
    if not -(2**31) <= value < 2**31:
        raise line.bad("E752", f"{f.name} = {value} does not fit a 32-bit word", start)
    return value


# -- listings --------------------------------------------------------------------------------------------------------
class Parser:
    """One listing being read. Faults are collected; `model` raises them together."""

    def __init__(self, text: str, blobs: Mapping[str, bytes], where: str):
        self.lines = text.split("\n")
        self.blobs, self.where = blobs, where
        self.number = 0
        self.faults: list[Diagnostic] = []
        self.top: dict[str, Any] = {}
        self.inputs: list[IORecord] = []
        self.outputs: list[IORecord] = []
        self.steps: list[Step] = []
        self.functions: list[DeviceFunction | HostFunction] = []

    def model(self) -> OfflineModel:
        """Read everything; CompilerError when anything was wrong."""
        self._block(
            {
                "board": self._board, "cores": self._cores, "rounding": self._rounding, "metadata": self._metadata,
                "input": lambda line: self.inputs.append(self._record(line)),
                "output": lambda line: self.outputs.append(self._record(line)),
                "step": self._step, "constants": self._constants, "device": self._device, "host": self._host,
            },
            nested=False,
        )  # fmt: skip
        if not self.faults and self.lines[0].strip() != VERSION_LINE:
            self._report(_Bad("E750", f"a listing begins with {VERSION_LINE!r}", 0), 0)
        for name in ("board", "cores"):
            if name not in self.top and not self.faults:
                self._report(_Bad("E754", f"the listing names no {name}", 0), 0)
        if not self.faults:
            model = OfflineModel(
                **self.top, inputs=self.inputs, outputs=self.outputs, steps=self.steps, functions=self.functions
            )
            self.faults += [Diagnostic(code="E754", message=text, where=self.where) for text in model.faults()]
        if self.faults:
            raise CompilerError(self.faults[:MAX_FAULTS])
        return model

    def _report(self, fault: _Bad, number: int | None = None) -> None:
        number = self.number if number is None else number
        text = self.lines[number] if number < len(self.lines) else ""
        self.faults.append(
            Diagnostic(
                code=fault.code,
                message=fault.message,
                where=f"{self.where}:{number + 1}:{fault.column + 1}",
                excerpt=f"{text}\n{' ' * fault.column}^" if len(text) < 400 else "",
                help=fault.help,
            )
        )

    def _block(self, keywords: Mapping[str, Callable[[Line], None]], nested: bool = True, other: Any = None) -> None:
        """Lines up to the closing brace, or the end of the text. `other` reads lines that no keyword begins."""
        opened = self.number - 1
        while self.number < len(self.lines):
            line = Line(self.lines[self.number])
            if line.peek("}") and nested:
                self.number += 1
                return
            try:
                if not line.done and (self.number or self.lines[0].strip() != VERSION_LINE):
                    self._line(line, keywords, other)
            except (_Bad, Malformed) as fault:
                bad = fault if isinstance(fault, _Bad) else line.bad("E752", str(fault), 0)
                self._report(bad)
                self._skip_block()
            self.number += 1
            if len(self.faults) >= MAX_FAULTS:
                self.number = len(self.lines)
        if nested and len(self.faults) < MAX_FAULTS:
            self._report(_Bad("E750", "the block that opens here is never closed", 0), max(opened, 0))

    def _skip_block(self) -> None:
        """After a fault in the line that opens a block: go to the block's end, so that one mistake is reported once."""
        depth = 0
        for number in range(self.number, len(self.lines)):
            text = self.lines[number].partition("//")[0].strip()
            depth += text.endswith("{") - (text == "}")
            if depth <= 0:
                self.number = number
                return

    def _line(self, line: Line, keywords: Mapping[str, Callable[[Line], None]], other: Any) -> None:
        start = line.at
        word = line.word("a word")
        if word in keywords:
            keywords[word](line)
        elif other is not None:
            line.at = start
            other(line)
        else:
            raise line.bad("E751", f"{word!r} means nothing here", start, did_you_mean(word, keywords))

    def _open(self, line: Line) -> None:
        """The brace that ends a line; the block's lines follow."""
        line.expect("{")
        line.end()
        self.number += 1

    # one line each
    def _board(self, line: Line) -> None:
        self.top["board"] = line.text_value("the board's name")
        line.end()

    def _cores(self, line: Line) -> None:
        self.top["cores"] = line.integer("the number of cores", 1, isa.IPU_CORES)
        line.end()

    def _rounding(self, line: Line) -> None:
        self.top["rounding"] = line.text_value("the rounding mode")
        line.end()

    def _metadata(self, line: Line) -> None:
        self.top["metadata"] = line.json(dict, "an object")
        line.end()

    def _step(self, line: Line) -> None:
        name = line.text_value("a function")
        inputs = line.texts("the inputs")
        line.expect("->")
        self.steps.append(Step(name, inputs, line.texts("the outputs")))
        line.end()

    def _constants(self, line: Line) -> None:
        self.top["constants"] = np.frombuffer(self._blob(line), np.uint8)
        line.end()

    def _blob(self, line: Line) -> bytes:
        size = line.integer("a number of bytes", 0, 2**40)
        start = line.at
        kind, _, digits = line.word("hex: or sha256:").partition(":")
        if kind == "sha256":
            data = self.blobs.get(digits)
            if data is None or len(data) != size or hashlib.sha256(data).hexdigest() != digits:
                what = "is not there" if data is None else "is not what its hash says"
                help = "keep the .safetensors file beside the text"
                raise line.bad("E753", f"the blob of {size} bytes {what}", start, help)
            return data
        try:
            data = bytes.fromhex(digits)
        except ValueError:
            data = b""
        if kind != "hex" or len(data) != size:
            raise line.bad("E752", f"expected hex: and {2 * size} digits, or sha256: and a hash", start)
        return data

    def _dtype(self, line: Line) -> str:
        start = line.at
        name = line.word("an element type")
        if name not in DTYPES:
            raise line.bad("E751", f"no element type is called {name!r}", start, did_you_mean(name, DTYPES))
        return name

    def _record(self, line: Line) -> IORecord:
        name, dtype = line.text_value("a name"), self._dtype(line)
        shape = line.integers("a shape")
        values = line.pairs(
            {
                "device": lambda: line.integers("a shape"), "permutation": lambda: line.integers("a permutation"),
                "layout": lambda: line.word("a layout"), "position": lambda: line.integer("a position", -(2**31)),
                "scale": lambda: float(line.json((int, float), "a number")),
                "preprocessing": lambda: line.json(dict, "an object"),
            }
        )  # fmt: skip
        line.end()
        permutation = values.pop("permutation", tuple(range(len(shape))))
        device_shape = values.pop("device", shape)
        return IORecord(
            name=name, shape=shape, dtype=dtype, device_shape=device_shape, permutation=permutation, **values
        )

    # blocks
    def _device(self, line: Line) -> None:
        name = line.text_value("the function's name")
        workspace = line.pairs({"workspace": lambda: line.integer("the size of the workspace")}).get("workspace", 0)
        self._open(line)
        function = DeviceFunction(name=name, inputs=[], outputs=[], programs=[], cores=0, workspace=workspace)
        programs: dict[int, np.ndarray] = {}
        marks: dict[int, list[DebugEntry]] = {}

        def core(line: Line) -> None:
            number = line.integer("the core's number", 0, isa.IPU_CORES - 1)
            if number != len(programs) or -1 in programs:
                raise line.bad("E750", "cores stand in order from 0, the memory core last", 0)
            programs[number] = self._program(line, number, marks)

        def memory(line: Line) -> None:
            if -1 in programs:
                raise line.bad("E750", "the memory core is there twice", 0)
            programs[-1] = self._program(line, len(programs), marks)

        self._block(
            {
                "input": lambda line: function.inputs.append(self._record(line)),
                "output": lambda line: function.outputs.append(self._record(line)),
                "core": core, "memory": memory, "debug": lambda line: function.debug.append(self._debug(line)),
            }
        )  # fmt: skip
        self.number -= 1
        function.cores = len(programs) - (-1 in programs)
        function.programs = [*programs.values(), *([] if -1 in programs else [np.zeros((0, isa.ROW_WORDS), "<i4")])]
        function.debug += [entry for core in sorted(marks) for entry in marks[core]]
        self.functions.append(function)

    def _debug(self, line: Line) -> DebugEntry:
        core, first, last = (line.integer("a number") for _ in range(3))
        entry = DebugEntry(core, first, last, line.text_value("an op"), line.text_value("a location"))
        line.end()
        return entry

    def _program(self, line: Line, core: int, marks: dict[int, list[DebugEntry]]) -> np.ndarray:
        self._open(line)
        rows: list[np.ndarray] = []
        entries = marks.setdefault(core, [])
        current: list[tuple[int, str, str]] = []

        def close() -> None:
            if current:
                first, op, location = current.pop()
                if first < len(rows):
                    entries.append(DebugEntry(core, first, len(rows) - 1, op, location))

        def op(line: Line) -> None:
            name = line.text_value("an op")
            start = line.at
            if line.word("at") != "at":
                raise line.bad("E750", "expected 'at'", start)
            location = line.text_value("a location")
            line.end()
            close()
            current.append((len(rows), name, location))

        def end(line: Line) -> None:
            line.end()
            close()

        self._block({"op": op, "end": end}, other=lambda line: rows.append(parse_instruction(line)))
        close()
        self.number -= 1
        return np.stack(rows) if rows else np.zeros((0, isa.ROW_WORDS), "<i4")

    def _host(self, line: Line) -> None:
        name = line.text_value("the function's name")
        self._open(line)
        function = HostFunction(name=name, text="", inputs=[], outputs=[])

        def constant(line: Line) -> None:
            start = line.at
            name, dtype = line.text_value("a name"), numpy_dtype(self._dtype(line))
            shape = line.integers("a shape")
            data = self._blob(line)
            line.end()
            if any(d < 0 for d in shape) or math.prod(shape) * dtype.itemsize != len(data):
                raise line.bad("E752", f"{len(data)} bytes do not make {dtype}{list(shape)}", start)
            function.constants[name] = np.frombuffer(data, dtype).reshape(shape)

        def text(line: Line) -> None:
            line.end()
            found = []
            while self.number + 1 < len(self.lines) and self.lines[self.number + 1].startswith("  |"):
                self.number += 1
                found.append(self.lines[self.number][4:])
            function.text = "\n".join(found)

        self._block(
            {
                "input": lambda line: function.inputs.append(self._record(line)),
                "output": lambda line: function.outputs.append(self._record(line)),
                "constant": constant, "text": text,
            }
        )  # fmt: skip
        self.number -= 1
        self.functions.append(function)
