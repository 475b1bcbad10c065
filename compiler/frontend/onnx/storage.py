"""Where a model's weights lie, so that they are read once, straight into the arrays that keep them.

A model file is a protobuf message whose weights are fields of it. Parsing it whole holds every weight twice. Instead
the message is walked by its tags, which touches little of the file, and large weights are replaced by what ONNX writes
for weights kept outside: file, offset, length, here of the model file itself. One reader then serves both, and it is
the one that takes care: a location must be a file beside or below the model, not reached by a link, and must hold what
the tensor declares.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG

import numpy as np
import onnx

from compiler.errors import CompilerError, error

LEAST = 4096
"""Bytes from which on a weight is read from its place; smaller ones are parsed with the rest."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 9, 13, 14

INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph"}, "graph": {1: "node", 5: "tensor"}, "node": {5: "attribute"}, "attribute": {5: "tensor"},
    "tensor": {},
}  # fmt: skip
"""Message → field number → message, on the ways from a model to its weights (onnx.proto)."""


class Unreadable(Exception):
    """The bytes are not such a message, or one that says a thing twice."""


# -- walking -----------------------------------------------------------------------------------------------------------
def slim_model(path: Path) -> bytes:
    """The model's message with the place of every large weight instead of the weight.

    A file that is no such message is given as it is: parsing it will tell. Raises OSError.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < LEAST:
            return file.read()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                slim = _rewritten(content, 0, size, "model", path.name)
            except (Unreadable, IndexError):
                slim = None
            return content[:] if slim is None else slim


def _rewritten(content: mmap.mmap, start: int, end: int, kind: str, name: str) -> bytes | None:
    """A message with its large weights replaced; None where it has none."""
    if end - start < LEAST:
        return None
    parts: list[bytes] = []
    kept = start
    replaced = False
    for number, wire, first, body, after in _fields(content, start, end):
        if wire != BYTES or after - body < LEAST:
            if kind == "tensor" and number in (EXTERNAL_DATA, DATA_LOCATION):
                return None
            continue
        new: bytes | None = None
        if kind == "tensor" and number == RAW_DATA:
            if replaced:
                raise Unreadable
            new = _external(name, body, after - body)
        elif number in INSIDE[kind]:
            inner = _rewritten(content, body, after, INSIDE[kind][number], name)
            new = None if inner is None else _varint(number << 3 | BYTES) + _varint(len(inner)) + inner
        if new is not None:
            parts += [content[kept:first], new]
            kept, replaced = after, True
    if not replaced:
        return None
    return b"".join([*parts, content[kept:end]])


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Number, wire type, start, start of the body and end of every field. Raises Unreadable, IndexError."""
    at = start
    while at < end:
        first = at
        tag, at = _read_varint(content, at)
        wire = tag & 7
        body = at
        if wire == VARINT:
            _, at = _read_varint(content, at)
        elif wire == BYTES:
            length, body = _read_varint(content, at)
            at = body + length
        elif wire in (FIXED64, FIXED32):
            at += 8 if wire == FIXED64 else 4
        else:
            raise Unreadable
        if at > end:
            raise Unreadable
        yield tag >> 3, wire, first, body, at


def _read_varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while shift < 70:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise Unreadable


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _external(name: str, offset: int, length: int) -> bytes:
    """Fields of a tensor that say where its data are."""
    tensor = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", name), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return tensor.SerializeToString()


# -- reading -----------------------------------------------------------------------------------------------------------
def read_external(tensor: onnx.TensorProto, dtype: np.dtype, model: Path, where: str) -> np.ndarray:
    """A tensor's elements from the file it names, or from the model's own. Raises CompilerError where it must not or
    cannot be read."""
    entries = {e.key: e.value for e in tensor.external_data}
    name, location = tensor.name or "(unnamed)", entries.get("location", "")
    shape = tuple(tensor.dims)
    if any(d < 0 for d in shape):
        raise refused(name, f"its shape is {list(shape)}", location, where)
    needed = math.prod(shape) * dtype.itemsize
    path = model if location == model.name else _checked_path(location, model.parent, name, where)
    try:
        offset, length = (int(entries.get(key) or absent) for key, absent in (("offset", 0), ("length", needed)))
    except ValueError:
        raise refused(name, "its offset or length is no number", location, where) from None
    size = path.stat().st_size
    if offset < 0 or length != needed or offset + needed > size:
        if path is model:
            raise damaged(name, f"shape {list(shape)} of {dtype} and {length} bytes", where)
        found = f"{needed} bytes from {offset} on are needed, {length} are said to be there, the file has {size}"
        raise refused(name, found, location, where)
    array = np.empty(shape, dtype)
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        view, done = memoryview(array.reshape(-1).view(np.uint8).data), 0
        while done < array.nbytes:
            got = file.readinto(view[done:])
            if not got:
                raise refused(name, "the file became shorter", location, where)
            done += got
    return array


def _checked_path(location: str, directory: Path, name: str, where: str) -> Path:
    """The file a location names: below the model's directory, by a plain path, and no link."""
    parts = Path(location).parts
    if not parts or "\0" in location or Path(location).is_absolute() or ".." in parts or "\\" in location:
        raise refused(name, "its location is no path below the model's folder", location, where)
    path = directory
    for index, part in enumerate(parts):
        path = path / part
        try:
            status = path.lstat()
        except OSError as fault:
            raise refused(name, f"{fault.strerror or fault}", location, where) from None
        last = index == len(parts) - 1
        if path.is_symlink() or (last and not S_ISREG(status.st_mode)):
            raise refused(name, "its location is a link or no ordinary file", location, where)
    return path


def refused(name: str, reason: str, location: str, where: str) -> CompilerError:
    return error(
        "E202", f"external data of tensor {name!r} cannot be read: {reason}", where=where,
        help=f"put the file {location!r} beside the model" if location else "export the model again",
    )  # fmt: skip


def damaged(name: str, reason: str, where: str) -> CompilerError:
    return error(
        "E216", f"the data of tensor {name!r} do not fit its declaration: {reason}", where=where,
        help="the file is damaged or was edited wrongly: export the network again",
    )  # fmt: skip
