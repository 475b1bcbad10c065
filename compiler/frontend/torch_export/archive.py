"""The container of a torch.export archive (`.pt2`), in its present layout and the one before torch 2.8.

Now: `models/<name>.json`, and raw bytes of storages under `data/weights/` and `data/constants/` with a table of which
tensor lies where. Before: `serialized_exported_program.json`, and files of torch.save beside it. Both give the same
`Archive`: the exported program as plain JSON data, and its tensors by name, each read when it is asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import CompilerError, error
from compiler.frontend.torch_export.schema import CODES, Broken, size_of
from compiler.frontend.torchscript import archive as container
from compiler.frontend.torchscript.pickled import ELEMENT_TYPES, Refused, StoredTensor, as_fault
from compiler.frontend.torchscript.unpickle import read_pickle

NEWEST = 8
OLDEST = 5
"""Major versions of the schema of exported programs that are read (torch 2.3 to 2.13)."""

LARGEST_PROGRAM = 512 << 20
SAVE_AGAIN = "load it with the torch that wrote it and save it again with a torch between 2.3 and 2.13"
REMEDY = "save it with torch.export.save(torch.export.export(model.eval(), (example,)), 'model.pt2')"

Reader = Callable[[], np.ndarray]


@dataclass
class Archive:
    """An exported program and its tensors. `weights` are its parameters and buffers, `constants` its lifted tensors."""

    file: str
    program: dict[str, Any]
    weights: dict[str, Reader] = field(default_factory=dict)
    constants: dict[str, Reader] = field(default_factory=dict)


def open_archive(path: Path) -> Archive:
    """Raises CompilerError where the file is not a usable archive of torch.export."""
    data = container.map_file(path)
    _refuse_other_files(data[:1024], path.name)
    source = container.read_container(data, path.name, path)
    if "serialized_exported_program.json" in source:
        return _old_layout(source)
    if "byteorder" in source and source.read("byteorder", 64).strip() == b"big":
        raise source.fault("was written by a big-endian machine", "save it on a machine like yours")
    names = sorted(m for m in source.members if m.startswith("models/") and m.endswith(".json"))
    if not names:
        raise _wrong_kind(source)
    if len(names) > 1:
        raise error("E220", f"holds {len(names)} models: {', '.join(names)}", where=path.name, help=REMEDY)
    name = names[0].removeprefix("models/").removesuffix(".json")
    archive = Archive(path.name, _program(source, names[0]))
    archive.weights = _payload(source, f"data/weights/{name}_weights_config.json", f"data/weights/{name}.pt")
    archive.constants = _payload(source, f"data/constants/{name}_constants_config.json", f"data/constants/{name}.pt")
    return archive


def _refuse_other_files(head: bytes, file: str) -> None:
    if not head:
        raise error("E201", "the file is empty", where=file, help=container.DAMAGED)
    if head[:2] != b"PK":
        raise error("E201", "is not an archive of torch.export, or a damaged one", where=file, help=container.DAMAGED)


def _wrong_kind(source: container.Archive) -> CompilerError:
    if "data.pkl" in source:
        what = "is a TorchScript archive" if any(m.startswith("code/") for m in source.members) else "is of torch.save"
        return error("E220", f"{what}, not of torch.export", where=source.file, help="TorchScript has the suffix .pt")
    if any(m.startswith("data/aotinductor/") for m in source.members):
        return error("E220", "holds compiled code only (AOTInductor)", where=source.file, help=REMEDY)
    return error("E220", "holds no exported program", where=source.file, help=REMEDY)


# -- the program -------------------------------------------------------------------------------------------------------
def _program(source: container.Archive, member: str) -> dict[str, Any]:
    program = _json(source, member)
    if not isinstance(program, dict):
        raise source.fault(f"{member!r} holds no exported program", REMEDY)
    version = program.get("schema_version")
    major = version.get("major") if isinstance(version, dict) else None
    if not isinstance(major, int) or not OLDEST <= major <= NEWEST:
        raise error(
            "E220", f"its schema has version {major}, versions {OLDEST} to {NEWEST} are read", where=source.file,
            help=SAVE_AGAIN,
        )  # fmt: skip
    return program


def _json(source: container.Archive, member: str) -> Any:
    try:
        return json.loads(source.read(member, LARGEST_PROGRAM))
    except (ValueError, RecursionError) as fault:
        raise source.fault(f"{member!r} is damaged: {fault}", container.DAMAGED) from None


# -- its tensors -------------------------------------------------------------------------------------------------------
def _payload(source: container.Archive, config: str, saved: str) -> dict[str, Reader]:
    """Tensors by name: a table of raw storages, or one file of torch.save."""
    if config not in source:
        return _saved_tensors(source, saved) if saved in source else {}
    table = _json(source, config)
    entries = table.get("config") if isinstance(table, dict) else None
    if not isinstance(entries, dict):
        raise source.fault(f"{config!r} holds no table of tensors", container.DAMAGED)
    folder = config.rpartition("/")[0]
    return {name: partial(_entry, source, folder, name, meta) for name, meta in entries.items()}


def _entry(source: container.Archive, folder: str, name: str, entry: Any) -> np.ndarray:
    """One tensor of a table."""
    try:
        member = f"{folder}/{entry['path_name']}"
        if entry.get("use_pickle") or not isinstance(entry.get("tensor_meta"), Mapping):
            raise error(
                "E210", f"{name!r} is a pickled object, not a plain tensor", where=source.file,
                help="export a network whose weights are plain tensors",
            )  # fmt: skip
        return _strided(source, member, name, entry["tensor_meta"])
    except (Broken, KeyError, TypeError, AttributeError, OverflowError) as fault:
        raise source.fault(f"the record of tensor {name!r} is damaged: {fault}", container.DAMAGED) from None


def _strided(source: container.Archive, member: str, name: str, meta: Mapping[str, Any]) -> np.ndarray:
    element = ELEMENT_TYPES.get(CODES.get(meta["dtype"], ""))
    if element is None or element.numpy is None:
        raise error(
            "E210", f"tensor {name!r} is of type {CODES.get(meta['dtype'], meta['dtype'])}", where=source.file,
            help="use float32, an integer type or bool",
        )  # fmt: skip
    shape = tuple(size_of(d) for d in meta["sizes"])
    strides = tuple(size_of(d) for d in meta["strides"])
    offset = size_of(meta["storage_offset"])
    if len(shape) != len(strides) or offset < 0 or min((*shape, *strides), default=0) < 0:
        raise Broken("its strides do not fit its shape")
    if 0 in shape:
        return np.zeros(shape, element.numpy)
    data = source.storage(member)
    storage = np.frombuffer(data, element.numpy, len(data) // element.numpy.itemsize)
    reach = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if reach >= storage.size or math.prod(shape) > max(4 * storage.size, 1 << 20):
        raise Broken("it reaches past the end of its storage")
    steps = tuple(stride * element.numpy.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


def _saved_tensors(source: container.Archive, member: str) -> dict[str, Reader]:
    """The tensors of a file of torch.save that lies in the archive."""
    inner = container.read_container(bytes(source.storage(member)), f"{source.file}:{member}")
    if "data.pkl" not in inner:
        raise source.fault(f"{member!r} is not a file of torch.save", container.DAMAGED)
    found = read_pickle(inner, "data.pkl", "data/")
    if not isinstance(found, dict):
        raise source.fault(f"{member!r} holds no table of tensors", container.DAMAGED)
    return {name: partial(_saved, inner, str(name), value) for name, value in found.items()}


def _saved(inner: container.Archive, name: str, value: Any) -> np.ndarray:
    if not isinstance(value, StoredTensor):
        raise error("E210", f"{name!r} is not a plain tensor", where=inner.file, help=REMEDY)
    try:
        return value.array()
    except Refused as fault:
        raise as_fault(inner, "data.pkl", fault) from None


def _old_layout(source: container.Archive) -> Archive:
    archive = Archive(source.file, _program(source, "serialized_exported_program.json"))
    for member, place in (("serialized_state_dict", "weights"), ("serialized_constants", "constants")):
        if f"{member}.pt" in source and source.members[f"{member}.pt"].file_size:
            setattr(archive, place, _saved_tensors(source, f"{member}.pt"))
    return archive
