"""TorchScript archives made by hand, without torch: a zip file, a pickle and code as text."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compiler.frontend.torchscript.archive import read_archive
from compiler.frontend.torchscript.importer import Importer, finished
from compiler.ir.core import Module

STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "int64": "LongStorage",
            "int32": "IntStorage", "int16": "ShortStorage", "uint8": "ByteStorage", "bool": "BoolStorage"}  # fmt: skip
QUANTISED = {"int8": "QInt8Storage", "uint8": "QUInt8Storage"}


@dataclass(eq=False)
class Instance:
    """An object of a class of the archive (`M` is `__torch__.M`), with attributes or with a state of its own."""

    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    state: Any = None


@dataclass(eq=False)
class QTensor:
    """A quantised tensor: integers, one scale and zero point, or arrays of them along an axis."""

    integers: np.ndarray
    scale: Any
    zero_point: Any
    axis: int | None = None


class Pickler:
    """Pickles as PyTorch writes them. `storages` collects what goes under the folder."""

    def __init__(self) -> None:
        self.storages: list[bytes] = []

    def pickle(self, value: Any) -> bytes:
        return b"\x80\x02" + self.value(value) + b"."

    def value(self, value: Any) -> bytes:
        if isinstance(value, np.ndarray):
            return self.tensor(value)
        if isinstance(value, QTensor):
            return self.quantised(value)
        if isinstance(value, Instance):
            state = dict(value.attributes) if value.state is None else value.state
            return glob(*f"__torch__.{value.name}".rsplit(".", 1)) + b")\x81" + self.value(state) + b"b"
        if value is None or isinstance(value, bool):
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        if isinstance(value, int):
            return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)
        if isinstance(value, float):
            return b"G" + struct.pack(">d", value)
        if isinstance(value, str):
            data = value.encode()
            return b"X" + struct.pack("<I", len(data)) + data
        parts = b"".join(self.value(v) for v in (pairs(value) if isinstance(value, dict) else value))
        if isinstance(value, dict):
            return b"}(" + parts + b"u"
        return b"(" + parts + b"t" if isinstance(value, tuple) else b"](" + parts + b"e"

    def storage(self, kind: str, array: np.ndarray) -> bytes:
        self.storages.append(np.ascontiguousarray(array).tobytes())
        key = str(len(self.storages) - 1)
        return b"((" + self.value("storage") + glob("torch", kind) + self.value(key) + self.value("cpu") + self.value(
            array.size) + b"tQ"  # fmt: skip

    def tensor(self, array: np.ndarray) -> bytes:
        head = glob("torch._utils", "_rebuild_tensor_v2") + self.storage(STORAGES[str(array.dtype)], array)
        return head + self.layout(array) + b"\x89" + glob("collections", "OrderedDict") + b")RtR"

    def layout(self, array: np.ndarray) -> bytes:
        strides = tuple(s // array.itemsize for s in array.copy(order="C").strides)
        return self.value(0) + self.value(tuple(array.shape)) + self.value(strides)

    def quantised(self, q: QTensor) -> bytes:
        head = glob("torch._utils", "_rebuild_qtensor") + self.storage(QUANTISED[str(q.integers.dtype)], q.integers)
        scheme = glob("torch", "per_tensor_affine" if q.axis is None else "per_channel_affine")
        rest = (q.scale, q.zero_point) if q.axis is None else (q.scale, q.zero_point, q.axis)
        quantiser = b"(" + scheme + b"".join(self.value(v) for v in rest) + b"t"
        tail = b"\x89" + glob("collections", "OrderedDict") + b")RtR"
        return head + self.layout(q.integers) + quantiser + tail


def pairs(value: dict[Any, Any]) -> list[Any]:
    return [part for item in value.items() for part in item]


def glob(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def members(
    code: str | Mapping[str, str], root: Any, constants: Sequence[Any] = (), version: int = 10,
    traced: Sequence[Any] | None = None,
) -> dict[str, bytes]:  # fmt: skip
    """The files of an archive. `code`: the text of `code/__torch__.py`, or of several; `root`: the module's attributes,
    or any value."""
    found: dict[str, bytes] = {}
    texts = {"__torch__": code} if isinstance(code, str) else code
    for name, text in texts.items():
        found[f"code/{name}.py"] = text.encode()
    value = Instance("M", root) if isinstance(root, Mapping) else root
    entries = [("data", "data", value), ("constants", "constants", tuple(constants))]
    if traced is not None:
        entries.append(("traced_inputs", "traced_inputs", {"forward": list(traced)}))
    for name, folder, content in entries:
        pickler = Pickler()
        found[f"{name}.pkl"] = content if isinstance(content, bytes) else pickler.pickle(content)
        found |= {f"{folder}/{k}": data for k, data in enumerate(pickler.storages)}
    found["version"] = f"{version}\n".encode()
    return found


def zipped(files: Mapping[str, bytes], compress: bool = False, top: str = "archive/") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as file:
        for name, data in files.items():
            file.writestr(top + name, data)
    return buffer.getvalue()


def forward(body: str, parameters: str = "x: Tensor", more: str = "") -> str:
    """The code of a module whose `forward` has this body."""
    lines = "\n".join("    " + line for line in body.strip("\n").splitlines())
    head = "class M(Module):\n  __parameters__ = []\n  def forward(self: __torch__.M"
    return f"{head},\n    {parameters}) -> Tensor:\n{lines}\n{more}"


def imported(
    code: str | Mapping[str, str], root: Any = None, constants: Sequence[Any] = (),
    shapes: Mapping[str, Sequence[int]] | None = None, bindings: Mapping[str, Any] | None = None, version: int = 10,
    traced: Sequence[Any] | None = None,
) -> Module:  # fmt: skip
    """The module of an archive made by hand."""
    files = members(code, {} if root is None else root, constants, version, traced)
    return load_bytes(zipped(files), shapes, bindings)


def load_bytes(
    data: bytes, shapes: Mapping[str, Sequence[int]] | None = None, bindings: Mapping[str, Any] | None = None
) -> Module:
    return finished(Importer(read_archive(data, "net.pt"), shapes or {}, bindings or {}))


def written(folder: Path, files: Mapping[str, bytes], name: str = "net.pt") -> Path:
    path = folder / name
    path.write_bytes(zipped(files))
    return path
