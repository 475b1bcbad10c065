"""Large constants beside IR text, in a `.safetensors` file keyed by content hash; modules written and read whole.

The side file is an ordinary safetensors file (8 bytes of header length, JSON header, data), written here because the
library's NumPy side has no bfloat16 and copies what it writes. Reading maps the file, so that opening a model costs no
memory until its weights are used. Files appear complete or not at all: they are written aside and renamed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from compiler.errors import CompilerError, error
from compiler.files import IR, unreadable, written_whole
from compiler.ir.core import Module, hash_of_array
from compiler.ir.parser import parse_module
from compiler.ir.printer import is_inline, print_module
from compiler.ir.types import DType

SUFFIX = ".safetensors"
SHARED = "constants.safetensors"
"""Name of a side file that several IR files of one folder share."""

_MAX_HEADER = 100_000_000
_NAMES = {
    DType.BOOL: "BOOL", DType.I8: "I8", DType.I16: "I16", DType.I32: "I32", DType.I64: "I64", DType.U8: "U8",
    DType.U16: "U16", DType.U32: "U32", DType.U64: "U64", DType.F16: "F16", DType.BF16: "BF16", DType.F32: "F32",
    DType.F64: "F64",
}  # fmt: skip
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


def blobs_of(module: Module) -> dict[str, np.ndarray]:
    """sha256 hex → array, of the constants whose text is a hash; what `parse_module` wants as `blobs`."""
    return {c.hash: c.data for c in module.constants.values() if not is_inline(c)}


def save_blobs(module: Module, path: str | Path) -> int:
    """Write the constants whose text is a hash, each content once; returns how many tensors the file holds."""
    blobs = blobs_of(module)
    write_blobs(blobs, path)
    return len(blobs)


def write_blobs(blobs: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Write tensors under their hashes, as `load_blobs` reads them."""
    with written_whole(Path(path), "E322") as file:
        _write_tensors(file, blobs)


def load_blobs(path: str | Path, *, check: bool = False) -> dict[str, np.ndarray]:
    """sha256 hex → read-only array mapped from the file. `check` reads everything and compares it with its hash.

    Raises CompilerError where the file is missing, truncated or not safetensors, or (with `check`) a tensor is damaged.
    """
    path = Path(path)
    header, data = _open_tensors(path)
    blobs = {key: _tensor(path, key, entry, data) for key, entry in header.items() if key != "__metadata__"}
    if check:
        for key, array in blobs.items():
            if hash_of_array(array) != key:
                message = f"tensor {key} does not have the content it is named after"
                raise error("E321", message, where=str(path), help="the file is damaged: write it again")
    return blobs


def side_file(path: str | Path) -> Path:
    """Where the large constants of an IR file are: the same name with `.safetensors`."""
    return Path(path).with_suffix(SUFFIX)


def _side_file_of(path: Path) -> Path:
    """The side file to read: the IR file's own, else the one its folder shares, if there is one."""
    own, shared = side_file(path), path.with_name(SHARED)
    return shared if shared.exists() and not own.exists() else own


def write_module(module: Module, path: str | Path, inline: bool = False) -> None:
    """Write IR text to `path` and, unless `inline` or all constants are small, their data to the side file.

    The side file is in place before the text that refers to it.
    """
    path = Path(path)
    if path.suffix == SUFFIX:
        raise error("E322", "IR text cannot be written to a .safetensors file", where=str(path), help="name it .mlu")
    if not inline and blobs_of(module):
        save_blobs(module, side_file(path))
    text = print_module(module, inline_constants=inline)
    with written_whole(path, "E322") as file:
        file.write(text.encode("utf-8"))


def read_module(path: str | Path) -> Module:
    """The module that `write_module` wrote, its large constants mapped from the side file and compared with their hash.

    Raises CompilerError with every fault of the text, or what is wrong with the side file.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as reason:
        raise CompilerError([unreadable(path, IR, reason)]) from None
    except UnicodeDecodeError as reason:
        raise error("E322", f"is not IR text: byte {reason.start} is not UTF-8", where=str(path)) from None
    blobs = load_blobs(_side_file_of(path)) if "= blob<" in text else None
    return parse_module(text, blobs=blobs, file=str(path))


# -- files -------------------------------------------------------------------------------------------------------------
def _write_tensors(file: BinaryIO, blobs: Mapping[str, np.ndarray]) -> None:
    """Tensors by decreasing element size, then by key: all are aligned, and the same module gives the same bytes."""
    order = sorted(blobs, key=lambda key: (-blobs[key].itemsize, key))
    header: dict[str, Any] = {}
    offset = 0
    for key in order:
        array = blobs[key]
        header[key] = {
            "dtype": _NAMES[DType.of(array.dtype)], "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }  # fmt: skip
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * ((56 - len(text)) % 64)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in _arrays_in(order, blobs):
        file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _arrays_in(order: Iterable[str], blobs: Mapping[str, np.ndarray]) -> Iterable[np.ndarray]:
    return (blobs[key] for key in order if blobs[key].size)


def _open_tensors(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """The header of a safetensors file, and its data as mapped bytes."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER):
                raise _damaged(path, "it ends inside its header")
            header = json.loads(file.read(length))
    except FileNotFoundError:
        help = "keep it beside the .mlu file, or write the module with --inline-constants"
        raise error("E320", "the file with the constants' data is missing", where=str(path), help=help) from None
    except OSError as reason:
        raise error("E320", f"cannot read the constants' data: {reason.strerror}", where=str(path)) from None
    except ValueError:
        raise _damaged(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a table of tensors")
    if size == 8 + length:
        return header, np.zeros(0, np.uint8)
    return header, np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)


def _tensor(path: Path, key: str, entry: Any, data: np.ndarray) -> np.ndarray:
    try:
        dtype = _DTYPES[entry["dtype"]]
        shape = tuple(int(d) for d in entry["shape"])
        begin, end = (int(o) for o in entry["data_offsets"])
        if not 0 <= begin <= end <= data.size:
            raise _damaged(path, f"tensor {key} reaches past its end")
        return np.asarray(data[begin:end]).view(dtype.numpy).reshape(shape)
    except (KeyError, TypeError, ValueError):
        raise _damaged(path, f"the entry of tensor {key} does not fit its data") from None


def _damaged(path: Path, what: str) -> CompilerError:
    return error("E320", f"is not a whole safetensors file: {what}", where=str(path), help="write it again")
