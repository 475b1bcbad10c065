"""Text ↔ instructions: one line per instruction, and the listing of a whole offline model.

A listing is compact, meant to be read and edited by hand, and assembles back to the same bytes:

    mluc listing 1
    board "m2"
    cores 1
    input "data" f32 [1, 3, 8, 8] device=[1, 8, 8, 3] permutation=[0, 2, 3, 1] layout=NHWC
    step "subnet0" ["data"] -> ["prob"]
    constants 1254080 sha256:9f2c...
    device "subnet0" workspace=4096 {
      core 0 {
        op "conv1" at "Conv_0"  // 0 to 3
          copy dst=nram+0x0 src=input0+0x40 run=16384
          conv dst=0x1a00 src=0x0 filters=0x0 ci=64 ... fix_position=-12 src_type=I8
      }
      memory {
      }
    }

Fields at their defaults are left out. Blobs above a limit stand by their hash; their bytes go beside the text.
Reading is `assembler_parser.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import CompilerError, error
from compiler.files import LISTING, unreadable, written_whole
from targets.mlu220 import isa
from targets.mlu220.assembler_parser import VERSION_LINE, Parser
from targets.mlu220.container import OfflineModel
from targets.mlu220.container_json import plain
from targets.mlu220.container_records import DebugEntry, DeviceFunction, HostFunction, IORecord, dtype_name

INLINE = 256
"""Bytes up to which a blob is printed in the text."""


@dataclass
class Listing:
    """Text, and the bytes of what the text names by SHA-256."""

    text: str
    blobs: dict[str, bytes] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write the text, and the blobs beside it as `<path>.safetensors`. E700 when that fails."""
        path = Path(path)
        with written_whole(path, "E700") as file:
            file.write(self.text.encode())
        if self.blobs:
            from safetensors.numpy import save

            arrays = {name: np.frombuffer(data, np.uint8) for name, data in sorted(self.blobs.items())}
            with written_whole(_side_file(path), "E700") as file:
                file.write(save(arrays))

    @staticmethod
    def load(path: str | Path) -> Listing:
        """Read a text and the blobs beside it. E700 when that fails."""
        path = Path(path)
        try:
            text = path.read_bytes().decode("utf-8")
            side = _side_file(path)
            blobs: dict[str, bytes] = {}
            if side.exists():
                from safetensors import SafetensorError
                from safetensors.numpy import load

                try:
                    blobs = {name: array.tobytes() for name, array in load(side.read_bytes()).items()}
                except SafetensorError as fault:
                    raise error("E700", f"cannot read the constants: {fault}", where=str(side)) from None
        except OSError as fault:
            raise CompilerError([unreadable(fault.filename or path, LISTING, fault)]) from None
        except UnicodeDecodeError as fault:
            raise error("E700", f"is no listing, byte {fault.start} is not UTF-8", where=str(path)) from None
        return Listing(text, blobs)


def _side_file(path: Path) -> Path:
    return path.with_name(path.name + ".safetensors")


# -- one instruction -------------------------------------------------------------------------------------------------
def instruction_text(row: np.ndarray) -> str:
    """One instruction as a line; rows that are no instruction as `raw` and their words."""
    words = [int(w) for w in row]
    spec = isa.INSTRUCTIONS.get(words[0])
    if spec is None or any(words[spec.width :]):
        return "raw " + " ".join(f"{w & 0xFFFFFFFF:#x}" for w in _trimmed(words))
    defaults = _default_words(spec)
    parts = [spec.name]
    for name, f in spec.fields.items():
        if f.default is None or words[f.column] != defaults[f.column]:
            parts.append(f"{name}={_field_text(f, words)}")
    return " ".join(parts)


def _trimmed(words: list[int]) -> list[int]:
    """Without the zeros at the end; at least the opcode."""
    end = next((k for k in range(len(words), 1, -1) if words[k - 1]), 1)
    return words[:end]


_DEFAULTS: dict[int, list[int]] = {}


def _default_words(spec: type[isa.Instruction]) -> list[int]:
    if spec.opcode not in _DEFAULTS:
        words = [0] * isa.ROW_WORDS
        for f in spec.fields.values():
            if f.default is not None:
                f.write(words, f.default)
        _DEFAULTS[spec.opcode] = words
    return _DEFAULTS[spec.opcode]


def _field_text(f: isa.Field, words: list[int]) -> str:
    word = words[f.column]
    if f.kind == "far":
        space = words[f.column - 1]
        name = isa.space_name(space)
        return f"{name if isa.space_number(name) is not None else space}+{word:#x}"
    if f.kind == "near":
        return f"{word:#x}"
    if f.kind == "bits":
        return f"{word & 0xFFFFFFFF:#x}"
    if f.kind == "f32":
        value = np.array(word, np.int32).view(np.float32)
        text = repr(float(value)) if np.isfinite(value) and float(value).is_integer() else str(value)
        return text if int(np.array(float(text), np.float32).view(np.int32)) == word else f"{word & 0xFFFFFFFF:#x}"
    if f.choices is not None and word in f.choices._value2member_map_:
        return f.choices(word).name
    return str(word)


# -- a whole model ---------------------------------------------------------------------------------------------------
def disassemble(model: OfflineModel, inline: int = INLINE) -> Listing:
    """The listing of a model; blobs longer than `inline` bytes go to `Listing.blobs`."""
    listing = Listing("")
    listing.text = "\n".join(_Printer(model, inline, listing.blobs).lines()) + "\n"
    return listing


def assemble(text: str, blobs: Mapping[str, bytes] | None = None, where: str = "listing") -> OfflineModel:
    """The model of a listing. CompilerError with every fault found: E750 syntax, E751 unknown names, E752 values, E753
    blobs that are missing or do not match, E754 a model that does not hold together."""
    return Parser(text, blobs or {}, where).model()


def _json(value: Any) -> str:
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)


class _Printer:
    def __init__(self, model: OfflineModel, inline: int, blobs: dict[str, bytes]):
        self.model, self.inline, self.blobs = model, inline, blobs

    def lines(self) -> Iterator[str]:
        model = self.model
        yield VERSION_LINE
        yield f"board {_json(model.board)}"
        yield f"cores {model.cores}"
        yield f"rounding {_json(model.rounding)}"
        if model.metadata:
            yield f"metadata {_json(model.metadata)}"
        yield from (self._record("input", record) for record in model.inputs)
        yield from (self._record("output", record) for record in model.outputs)
        for step in model.steps:
            yield f"step {_json(step.function)} {_json(step.inputs)} -> {_json(step.outputs)}"
        yield f"constants {self._blob(model.constants.tobytes())}"
        for function in model.functions:
            yield from self._device(function) if isinstance(function, DeviceFunction) else self._host(function)

    def _record(self, keyword: str, r: IORecord) -> str:
        parts = [keyword, _json(r.name), r.dtype, _json(r.shape)]
        if r.permutation != tuple(range(len(r.shape))):
            parts += [f"device={_json(r.device_shape)}", f"permutation={_json(r.permutation)}"]
        if r.layout != "ARRAY":
            parts.append(f"layout={r.layout}")
        if r.position is not None:
            parts.append(f"position={r.position}")
        if r.scale is not None:
            parts.append(f"scale={float(r.scale)!r}")
        if r.preprocessing:
            parts.append(f"preprocessing={_json(r.preprocessing)}")
        return " ".join(parts)

    def _blob(self, data: bytes) -> str:
        if len(data) <= self.inline:
            return f"{len(data)} hex:{data.hex()}"
        name = hashlib.sha256(data).hexdigest()
        self.blobs[name] = data
        return f"{len(data)} sha256:{name}"

    def _records(self, function: DeviceFunction | HostFunction) -> Iterator[str]:
        yield from ("  " + self._record("input", record) for record in function.inputs)
        yield from ("  " + self._record("output", record) for record in function.outputs)

    def _device(self, function: DeviceFunction) -> Iterator[str]:
        yield f"device {_json(function.name)} workspace={function.workspace} {{"
        yield from self._records(function)
        simple = _in_order(function.debug)
        for core, program in enumerate(function.programs):
            yield f"  core {core} {{" if core < function.cores else "  memory {"
            marks = [e for e in function.debug if e.core == core] if simple else []
            yield from self._program(program, marks)
            yield "  }"
        if not simple:
            for e in function.debug:
                yield f"  debug {e.core} {e.first} {e.last} {_json(e.op_name)} {_json(e.location)}"
        yield "}"

    def _program(self, program: np.ndarray, marks: list[DebugEntry]) -> Iterator[str]:
        starts = {e.first: e for e in marks}
        ends = {e.last + 1 for e in marks}
        for k, row in enumerate(program):
            if k in starts:
                e = starts[k]
                yield f"    op {_json(e.op_name)} at {_json(e.location)}  // {e.first} to {e.last}"
            elif k in ends:
                yield "    end"
            yield "      " + instruction_text(row)

    def _host(self, function: HostFunction) -> Iterator[str]:
        yield f"host {_json(function.name)} {{"
        yield from self._records(function)
        for name, array in function.constants.items():
            dtype = dtype_name(array.dtype)
            data = self._blob(np.ascontiguousarray(array).tobytes())
            yield f"  constant {_json(name)} {dtype} {_json(array.shape)} {data}"
        yield "  text"
        yield from ("  | " + line for line in function.text.split("\n"))
        yield "}"


def _in_order(entries: list[DebugEntry]) -> bool:
    """Whether entries can stand as marks between instructions: by core and place, without overlap."""
    keys = [(e.core, e.first, e.last) for e in entries]
    return keys == sorted(keys) and all(a[0] < b[0] or a[2] < b[1] for a, b in pairwise(keys))
