"""The offline model's bytes, both ways: the `.cambricon` container. Our own format; the vendor's is not public.

All numbers are little-endian. Layout:

    0    8   magic  89 4D 4C 55 43 0D 0A 1A
    8    4   format version, 1
    12   4   number of sections n
    16   8   file size
    24   8   zero
    32   32  SHA-256 of bytes 0 to 31 and of the section table
    64   64n section table: kind (4 letters), index, offset, size (u64 each), SHA-256 of the section, 8 zero bytes
    ...      sections in table order, each at the next multiple of 64, gaps filled with zeros

Sections: HEAD board, cores, rounding, functions, records, steps and metadata as JSON; PROG k the programs of function
k, one core after the other; TEXT k and DATA k the IR text and the constants of host function k; CNST the constants of
all device functions; DBUG the debug table as JSON. Same model, same bytes. Every bit of a file is covered by a
checksum or must be zero. Constants stay mapped; programs are copied to private memory, because compiled kernels trust
them once `check.py` has seen them and a mapping could change afterwards.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from compiler.errors import CompilerError, Diagnostic
from compiler.files import OFFLINE, check_file, written_whole
from targets.mlu220 import container_json as js
from targets.mlu220.container_records import (
    DTYPES,
    MAX_BYTES,
    ROUNDINGS,
    DebugEntry,
    DeviceFunction,
    HostFunction,
    IORecord,
    Step,
    dtype_name,
    numpy_dtype,
    step_faults,
)
from targets.mlu220.isa_fields import IPU_CORES, ROW_BYTES, ROW_WORDS
from targets.mlu220.twins import twins_text

__all__ = [
    "DTYPES", "DebugEntry", "DeviceFunction", "HostFunction", "IORecord", "OfflineModel", "Step", "dtype_name",
    "numpy_dtype",
]  # fmt: skip

MAGIC = b"\x89MLUC\r\n\x1a"
VERSION = 1
ALIGNMENT = 64
MAX_SECTIONS = 4096
_HEADER = struct.Struct("<8sIIQQ32s")
_ENTRY = struct.Struct("<4sIQQ32sQ")
_KINDS = (b"HEAD", b"PROG", b"TEXT", b"DATA", b"CNST", b"DBUG")


@dataclass(kw_only=True, eq=False)
class OfflineModel:
    """A `.cambricon` file in memory. `constants`: uint8 array, one segment for all device functions; `metadata`: plain
    data (numbers, text, lists, dictionaries)."""

    board: str
    cores: int
    rounding: str = "nearest-even"
    steps: list[Step] = field(default_factory=list)
    functions: list[DeviceFunction | HostFunction] = field(default_factory=list)
    inputs: list[IORecord] = field(default_factory=list)
    outputs: list[IORecord] = field(default_factory=list)
    constants: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))
    metadata: dict[str, Any] = field(default_factory=dict)

    def function(self, name: str) -> DeviceFunction | HostFunction:
        """The function of that name; KeyError when there is none."""
        for function in self.functions:
            if function.name == name:
                return function
        raise KeyError(name)

    @property
    def device_functions(self) -> list[DeviceFunction]:
        return [f for f in self.functions if isinstance(f, DeviceFunction)]

    @property
    def host_functions(self) -> list[HostFunction]:
        return [f for f in self.functions if isinstance(f, HostFunction)]

    def faults(self) -> Iterator[str]:
        """What keeps this from being a sound model; instructions are not looked at (`check.py` does)."""
        if not 1 <= self.cores <= IPU_CORES:
            yield f"{self.cores} cores; the chip has 1 to {IPU_CORES}"
        if self.rounding not in ROUNDINGS:
            yield f"rounding {self.rounding!r} is not one of {', '.join(ROUNDINGS)}"
        if self.constants.dtype != np.uint8 or self.constants.ndim != 1 or self.constants.size > MAX_BYTES:
            yield "constants are not one array of at most 2^31 - 1 bytes"
        for function in self.functions:
            yield from function.faults()
        for record in self.inputs:
            yield from record.faults()
        for record in self.outputs:
            yield from record.faults(may_be_open=True)
        yield from step_faults(self.steps, self.functions, self.inputs, self.outputs)

    def to_bytes(self) -> bytes:
        """The file. ValueError when the model is not sound: that is the emitter's mistake, not the user's."""
        faults = list(self.faults())
        if faults:
            raise ValueError("; ".join(faults))
        return _write(list(_sections(self)))

    @staticmethod
    def from_bytes(data: Any, where: str = "") -> OfflineModel:
        """A model from the bytes of a file (bytes, mmap, array). CompilerError E70x, naming the section, when they are
        not a sound file."""
        return _Reader(memoryview(data), where).model()

    def save(self, path: str | Path) -> None:
        """Write the file and its `_twins` text beside it, each to a temporary name first. E700 when that fails."""
        path = Path(path)
        with written_whole(path, "E700") as file:
            file.write(self.to_bytes())
        with written_whole(path.with_name(path.name + "_twins"), "E700") as file:
            file.write(twins_text(self, path.name).encode())

    @staticmethod
    def load(path: str | Path) -> OfflineModel:
        """Read and verify a file; its constants stay mapped. CompilerError E70x, naming the section, for a bad one."""
        check_file(path, OFFLINE)
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return OfflineModel.from_bytes(data, str(path))


def _fail(code: str, message: str, where: str, help: str = "") -> NoReturn:
    raise CompilerError([Diagnostic(code=code, message=message, where=where, help=help)])


# -- writing ---------------------------------------------------------------------------------------------------------
def _sections(model: OfflineModel) -> Iterator[tuple[bytes, int, bytes]]:
    """(kind, index, bytes) of every section, in file order."""
    yield b"HEAD", 0, js.dump(_head(model))
    for k, function in enumerate(model.functions):
        if isinstance(function, DeviceFunction):
            yield b"PROG", k, b"".join(np.ascontiguousarray(p).tobytes() for p in function.programs)
        else:
            yield b"TEXT", k, function.text.encode()
            yield b"DATA", k, _host_data(function)[1]
    yield b"CNST", 0, model.constants.tobytes()
    debug = [f.debug if isinstance(f, DeviceFunction) else [] for f in model.functions]
    yield b"DBUG", 0, js.dump(js.debug_to_json(debug))


def _head(model: OfflineModel) -> dict[str, Any]:
    return {
        "board": model.board,
        "cores": model.cores,
        "rounding": model.rounding,
        "steps": [js.step_to_json(step) for step in model.steps],
        "functions": [_function_to_json(function) for function in model.functions],
        "inputs": [js.record_to_json(record) for record in model.inputs],
        "outputs": [js.record_to_json(record) for record in model.outputs],
        "metadata": js.plain(model.metadata),
    }


def _function_to_json(function: DeviceFunction | HostFunction) -> dict[str, Any]:
    head: dict[str, Any] = {
        "name": function.name,
        "inputs": [js.record_to_json(record) for record in function.inputs],
        "outputs": [js.record_to_json(record) for record in function.outputs],
    }
    if isinstance(function, HostFunction):
        return {**head, "kind": "host", "constants": _host_data(function)[0]}
    lengths = [len(program) for program in function.programs]
    return {**head, "kind": "device", "cores": function.cores, "workspace": function.workspace, "lengths": lengths}


def _host_data(function: HostFunction) -> tuple[list[dict[str, Any]], bytes]:
    """The table of a host function's constants and their bytes, each 64-byte aligned."""
    table, parts, offset = [], [], 0
    for name, array in function.constants.items():
        name_of_type = dtype_name(array.dtype)
        data = np.ascontiguousarray(array, numpy_dtype(name_of_type)).tobytes()
        table.append({"name": name, "dtype": name_of_type, "shape": list(array.shape), "offset": offset})
        parts.append(data + bytes(-len(data) % ALIGNMENT))
        offset += len(parts[-1])
    return table, b"".join(parts)


def _write(sections: list[tuple[bytes, int, bytes]]) -> bytes:
    offset = _HEADER.size + _ENTRY.size * len(sections)
    table, parts = [], []
    for kind, index, data in sections:
        table.append(_ENTRY.pack(kind, index, offset, len(data), hashlib.sha256(data).digest(), 0))
        parts += [data, bytes(-len(data) % ALIGNMENT)]
        offset += len(data) + len(parts[-1])
    entries = b"".join(table)
    head = _HEADER.pack(MAGIC, VERSION, len(sections), offset, 0, b"")[:32]
    return b"".join([head, hashlib.sha256(head + entries).digest(), entries, *parts])


# -- reading ---------------------------------------------------------------------------------------------------------
class _Reader:
    """One file being read: bounds and checksums first, then sections, then the rules of `OfflineModel.faults`."""

    def __init__(self, data: memoryview, where: str):
        self.data, self.where = data, where
        self.sections = self._table(self._header())

    def fail(self, code: str, message: str, section: str = "header") -> NoReturn:
        help = "the file is damaged or not ours; compile it again" if code != "E701" else ""
        _fail(code, message, f"{self.where}  section {section}".strip(), help)

    def _header(self) -> int:
        if len(self.data) < _HEADER.size:
            self.fail("E702", f"the file has {len(self.data)} bytes, too few for a header")
        magic, version, count, size, zero, _ = _HEADER.unpack_from(self.data)
        if magic != MAGIC:
            self.fail("E700", "this is no offline model of mluc (wrong magic number); vendor files cannot be read")
        if version != VERSION:
            self.fail("E701", f"format version {version}; this program reads version {VERSION}")
        if size != len(self.data):
            self.fail("E702", f"the file should have {size} bytes and has {len(self.data)}")
        if not 1 <= count <= MAX_SECTIONS or _HEADER.size + count * _ENTRY.size > size or zero:
            self.fail("E703", f"a table of {count} sections does not fit", "table")
        return count

    def _table(self, count: int) -> dict[tuple[str, int], tuple[int, int]]:
        """(kind, index) → (offset, size), all checksums verified and every byte between sections zero."""
        end = _HEADER.size + count * _ENTRY.size
        digest = hashlib.sha256(self.data[:32])
        digest.update(self.data[_HEADER.size : end])
        if digest.digest() != self.data[32:64]:
            self.fail("E704", "checksum of the section table does not match", "table")
        found: dict[tuple[str, int], tuple[int, int]] = {}
        for k in range(count):
            kind, index, offset, size, checksum, zero = _ENTRY.unpack_from(self.data, _HEADER.size + k * _ENTRY.size)
            if kind not in _KINDS or zero:
                self.fail("E703", f"entry {k} is of unknown kind {kind!r}", "table")
            name = f"{kind.decode()} {index}"
            if (kind.decode(), index) in found:
                self.fail("E703", "the section is there twice", name)
            start = end + -end % ALIGNMENT
            if offset != start or size > len(self.data) - offset or bytes(self.data[end:offset]).strip(b"\0"):
                self.fail("E703", f"{size} bytes at {offset} are not where the section must be ({start})", name)
            if hashlib.sha256(self.data[offset : offset + size]).digest() != checksum:
                self.fail("E704", "checksum does not match", name)
            found[kind.decode(), index] = (offset, size)
            end = offset + size
        if end + -end % ALIGNMENT != len(self.data) or bytes(self.data[end:]).strip(b"\0"):
            self.fail("E703", "bytes after the last section", "table")
        return found

    def take(self, kind: str, index: int) -> memoryview:
        """The bytes of a section, once."""
        place = self.sections.pop((kind, index), None)
        if place is None:
            self.fail("E703", "the section is missing", f"{kind} {index}")
        return self.data[place[0] : place[0] + place[1]]

    def _parsed(self, kind: str, read: Callable[[Any], Any]) -> Any:
        try:
            return read(js.parse(bytes(self.take(kind, 0))))
        except js.Malformed as fault:
            self.fail("E705", str(fault), f"{kind} 0")

    def model(self) -> OfflineModel:
        head = self._parsed("HEAD", lambda value: js.read(value, _HEAD_KINDS, "head"))
        heads = head.pop("functions")
        functions = [self._function(k, value) for k, value in enumerate(heads)]
        constants = np.frombuffer(self.take("CNST", 0), np.uint8)
        tables = self._parsed("DBUG", lambda value: js.debug_from_json(value, len(functions)))
        for function, entries in zip(functions, tables, strict=True):
            if isinstance(function, DeviceFunction):
                function.debug = entries
            elif entries:
                self.fail("E705", f"debug entries for host function {function.name!r}", "DBUG 0")
        for kind, index in self.sections:
            self.fail("E703", "no function owns the section", f"{kind} {index}")
        model = OfflineModel(**head, functions=functions, constants=constants)
        faults = list(model.faults())
        if faults:
            self.fail("E706", "; ".join(faults[:5]), "HEAD 0")
        return model

    def _function(self, k: int, value: Any) -> DeviceFunction | HostFunction:
        kinds = _HOST_KINDS if isinstance(value, dict) and value.get("kind") == "host" else _DEVICE_KINDS
        try:
            head = js.read(value, kinds, f"function {k}")
        except js.Malformed as fault:
            self.fail("E705", str(fault), "HEAD 0")
        if head.pop("kind") not in ("host", "device"):
            self.fail("E705", f"function {k} is neither for the host nor for the device", "HEAD 0")
        if kinds is _DEVICE_KINDS:
            return DeviceFunction(**{n: v for n, v in head.items() if n != "lengths"}, programs=self._programs(k, head))
        try:
            source = bytes(self.take("TEXT", k)).decode("utf-8")
        except UnicodeDecodeError as fault:
            self.fail("E705", str(fault), f"TEXT {k}")
        return HostFunction(**{**head, "constants": self._host_constants(k, head["constants"])}, text=source)

    def _programs(self, k: int, head: dict[str, Any]) -> list[np.ndarray]:
        data, lengths = self.take("PROG", k), head["lengths"]
        if len(lengths) > IPU_CORES + 1 or any(n < 0 for n in lengths) or sum(lengths) * ROW_BYTES != len(data):
            self.fail("E705", f"{len(data)} bytes for programs of {lengths!r:.80} instructions", f"PROG {k}")
        rows = np.frombuffer(data, "<i4").reshape(-1, ROW_WORDS).copy()
        return np.split(rows, np.cumsum(lengths)[:-1]) if lengths else []

    def _host_constants(self, k: int, table: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        data, result, offset = self.take("DATA", k), {}, 0
        for entry in table:
            if entry["dtype"] not in DTYPES or any(d < 0 for d in entry["shape"]) or len(entry["shape"]) > 32:
                self.fail("E705", f"constant {entry['name']!r:.40} has no such type or shape", f"DATA {k}")
            dtype = numpy_dtype(entry["dtype"])
            size = dtype.itemsize * math.prod(entry["shape"])
            if math.prod(max(d, 1) for d in entry["shape"]) > 2**40:
                self.fail("E705", f"constant {entry['name']!r:.40} is larger than memory", f"DATA {k}")
            if entry["offset"] != offset or size > len(data) - offset or entry["name"] in result:
                self.fail("E705", f"constant {entry['name']!r:.40} is not where it must be", f"DATA {k}")
            result[entry["name"]] = np.frombuffer(data[offset : offset + size], dtype).reshape(entry["shape"])
            offset += size + -size % ALIGNMENT
        if offset != len(data):
            self.fail("E705", "bytes that no constant owns", f"DATA {k}")
        return result


_FUNCTION_KINDS: dict[str, js.Kind] = {"name": js.text, "kind": js.text, "inputs": js.records, "outputs": js.records}
_DEVICE_KINDS = {**_FUNCTION_KINDS, "cores": js.whole, "workspace": js.whole, "lengths": js.sequence(js.whole)}
_CONSTANT_KINDS: dict[str, js.Kind] = {
    "name": js.text, "dtype": js.text, "shape": js.sequence(js.whole), "offset": js.whole,
}  # fmt: skip
_HOST_KINDS = {**_FUNCTION_KINDS, "constants": js.sequence(lambda v: js.read(v, _CONSTANT_KINDS, "constant"))}
_HEAD_KINDS: dict[str, js.Kind] = {
    "board": js.text, "cores": js.whole, "rounding": js.text, "steps": js.steps, "functions": js.sequence(js.mapping),
    "inputs": js.records, "outputs": js.records, "metadata": js.mapping,
}  # fmt: skip
