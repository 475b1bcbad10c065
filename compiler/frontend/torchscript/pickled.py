"""What the pickles of a TorchScript archive may name, and what stands for it here.

This is the allow-list: every global that a pickle names is looked up in `known_global`, and what is not there is
refused by name. Nothing is imported and nothing of the file is called: a rebuilt tensor is a description of bytes, an
object of a class of the archive is a bag of attributes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from compiler.errors import CompilerError
from compiler.frontend.torchscript.archive import DAMAGED, Archive

LARGEST_TENSOR = 1 << 31
"""Bytes one tensor may take."""


@dataclass(frozen=True)
class ElementType:
    """torch's name of an element type and the NumPy type of its bytes; None for what has none here."""

    name: str
    numpy: np.dtype | None

    @property
    def quantised(self) -> bool:
        return self.name in ("qint8", "quint8", "qint32")


def _types(**names: Any) -> dict[str, ElementType]:
    return {name: ElementType(name, None if kind is None else np.dtype(kind)) for name, kind in names.items()}


ELEMENT_TYPES = _types(
    float32=np.float32, float64=np.float64, float16=np.float16, bfloat16=ml_dtypes.bfloat16, uint8=np.uint8,
    int8=np.int8, int16=np.int16, int32=np.int32, int64=np.int64, bool=np.bool_, qint8=np.int8, quint8=np.uint8,
    qint32=np.int32, uint16=np.uint16, uint32=np.uint32, uint64=np.uint64, complex32=None, complex64=None,
    complex128=None, quint4x2=None, quint2x4=None,
)  # fmt: skip

STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "ByteStorage": "uint8", "CharStorage": "int8", "ShortStorage": "int16", "IntStorage": "int32",
    "LongStorage": "int64", "BoolStorage": "bool", "QInt8Storage": "qint8", "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32", "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
    "ComplexHalfStorage": "complex32", "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
    "UInt16Storage": "uint16", "UInt32Storage": "uint32", "UInt64Storage": "uint64",
}  # fmt: skip
SCHEMES = ("per_tensor_affine", "per_channel_affine", "per_channel_affine_float_qparams", "per_tensor_symmetric")
LISTS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "build_complexlist")


class Refused(Exception):
    """A pickle asks for something that no model needs, or is not well formed."""

    def __init__(self, message: str, help: str = DAMAGED) -> None:
        super().__init__(message)
        self.help = help


@dataclass(frozen=True)
class Global:
    """A global the allow-list knows. `kind`: function, storage, scheme, class, dtype."""

    kind: str
    name: str


@dataclass(eq=False)
class Object:
    """An object of a class of the archive: its class's qualified name, its attributes, or the state a class without
    attributes was given.
    """

    class_name: str
    attributes: dict[str, Any] = field(default_factory=dict)
    state: Any = None
    path: str = ""


@dataclass(frozen=True)
class Device:
    """`torch.device`: known, and without meaning here."""

    name: str


@dataclass(frozen=True, eq=False)
class Storage:
    """Bytes of a tensor in the archive, found when they are asked for."""

    archive: Archive
    folder: str
    key: str
    element: ElementType
    count: int

    def array(self) -> np.ndarray:
        """All elements, mapped from the file where it stores them uncompressed."""
        if self.element.numpy is None:
            raise Refused(f"holds a tensor of {self.element.name}", "use float32, an integer type or bool")
        data = self.archive.storage(f"{self.folder}{self.key}")
        if len(data) < self.count * self.element.numpy.itemsize:
            wanted = self.count * self.element.numpy.itemsize
            raise Refused(f"storage {self.folder}{self.key} has {len(data)} bytes where {wanted} are needed")
        return np.frombuffer(data, self.element.numpy, self.count)


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor of the archive. `quantiser`: (scheme, step, zero point) or (scheme, steps, zero points, axis)."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    quantiser: tuple[Any, ...] | None = None

    @property
    def element(self) -> ElementType:
        return self.storage.element

    def array(self) -> np.ndarray:
        """The elements as a read-only view of the storage. Raises Refused where they lie outside of it."""
        array = self.storage.array()
        reach = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        empty = 0 in self.shape
        if not empty and self.offset + reach >= array.size:
            raise Refused(f"a tensor reaches past the end of storage {self.storage.key}")
        if math.prod(self.shape) * array.itemsize > LARGEST_TENSOR:
            raise Refused(f"a tensor of shape {self.shape} is too large")
        if empty:
            return np.zeros(self.shape, array.dtype)
        steps = tuple(stride * array.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(array[self.offset :], self.shape, steps, writeable=False)


# -- the allow-list ----------------------------------------------------------------------------------------------------
def known_global(module: str, name: str) -> Global:
    """What a pickle's global stands for. Raises Refused, naming it, where the allow-list does not have it."""
    full = f"{module}.{name}"
    if full in FUNCTIONS:
        return Global("function", full)
    if module == "torch" and name in STORAGES:
        return Global("storage", STORAGES[name])
    if module == "torch" and name in SCHEMES:
        return Global("scheme", name)
    if module == "torch" and name in ELEMENT_TYPES:
        return Global("dtype", name)
    if module == "__torch__" or module.startswith("__torch__."):
        return Global("class", full)
    raise Refused(
        f"names {full!r}, which no network needs: it is not on the list of what a model file may use",
        "do not load this file with PyTorch either unless you trust who made it; "
        "a model saved with torch.jit.save uses tensors, numbers, text, lists and its own classes only",
    )


def _sizes(values: Any, what: str) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or not all(type(v) is int and v >= 0 for v in values):
        raise Refused(f"{what} of a tensor is not a list of sizes")
    return tuple(values)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    return _tensor(storage, offset, shape, strides, None)


def _rebuild_qtensor(storage: Any, offset: Any, shape: Any, strides: Any, quantiser: Any, *_: Any) -> StoredTensor:
    scheme = quantiser[0] if isinstance(quantiser, tuple) and quantiser else None
    if not isinstance(scheme, Global) or scheme.kind != "scheme":
        raise Refused("a quantised tensor names no scheme")
    if len(quantiser) != (3 if scheme.name.startswith("per_tensor") else 4):
        raise Refused("a quantised tensor has not the parameters of its scheme")
    return _tensor(storage, offset, shape, strides, (scheme.name, *quantiser[1:]))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, quantiser: Any) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise Refused("a tensor has no storage")
    sizes, steps = _sizes(shape, "the shape"), _sizes(strides, "the stride")
    if type(offset) is not int or offset < 0 or len(sizes) != len(steps) or len(sizes) > 32:
        raise Refused("a tensor's offset, shape and strides do not fit together")
    if storage.element.quantised != (quantiser is not None):
        raise Refused("a tensor's element type and its quantiser do not fit together")
    return StoredTensor(storage, offset, sizes, steps, quantiser)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _build_list(items: Any) -> Any:
    if not isinstance(items, list):
        raise Refused("a list is built of something else")
    return items


def _restore_type_tag(value: Any, _: Any) -> Any:
    return value


def _ordered_dict(*arguments: Any) -> dict[Any, Any]:
    if arguments:
        raise Refused("an OrderedDict is built of something else than items")
    return {}


def _device(name: Any, *_: Any) -> Device:
    return Device(str(name) if isinstance(name, str) else "cpu")


def _complex(real: Any, imaginary: Any) -> complex:
    if not isinstance(real, float) or not isinstance(imaginary, float):
        raise Refused("a complex number is built of something else than two numbers")
    return complex(real, imaginary)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_qtensor": _rebuild_qtensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch.jit._pickle.restore_type_tag": _restore_type_tag,
    "collections.OrderedDict": _ordered_dict,
    "torch.device": _device,
    "builtins.complex": _complex,
    **{f"torch.jit._pickle.{name}": _build_list for name in LISTS},
}
"""The functions a pickle may call, and what is done instead."""


def call(target: Any, arguments: Any) -> Any:
    """What a REDUCE gives. Raises Refused for anything that is not one of `FUNCTIONS`."""
    if not isinstance(target, Global) or target.kind != "function":
        name = target.name if isinstance(target, Global) else type(target).__name__
        raise Refused(f"calls {name!r}, which cannot be called")
    if not isinstance(arguments, tuple):
        raise Refused(f"calls {target.name!r} with something else than arguments")
    try:
        return FUNCTIONS[target.name](*arguments)
    except TypeError:
        raise Refused(f"calls {target.name!r} with {len(arguments)} arguments") from None


def storage_of(archive: Archive, folder: str, reference: Any) -> Storage:
    """The storage a persistent id names: ('storage', type, key, device, count)."""
    if not (isinstance(reference, tuple) and len(reference) >= 5 and reference[0] == "storage"):
        raise Refused("names something else than a storage by a persistent id")
    kind, key, count = reference[1], reference[2], reference[4]
    if not isinstance(kind, Global) or kind.kind != "storage" or not isinstance(key, str):
        raise Refused("a storage has no element type or no name")
    if type(count) is not int or count < 0:
        raise Refused("a storage has no size")
    return Storage(archive, folder, key, ELEMENT_TYPES[kind.name], count)


def walk(root: Any) -> Sequence[tuple[str, Any]]:
    """Every object and tensor reachable from `root`, each once, with the path by which it is reached first."""
    found: list[tuple[str, Any]] = []
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", root)]
    while waiting:
        path, value = waiting.pop()
        if not isinstance(value, Object | StoredTensor | list | tuple | dict) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Object | StoredTensor):
            found.append((path, value))
        children: list[tuple[Any, Any]] = []
        if isinstance(value, Object):
            children = [*value.attributes.items(), ("", value.state)]
        elif isinstance(value, dict):
            children = list(value.items())
        elif isinstance(value, list | tuple):
            children = list(enumerate(value))
        waiting += [(f"{path}.{name}".strip("."), child) for name, child in reversed(children)]
    return found


def as_fault(archive: Archive, member: str, fault: Refused) -> CompilerError:
    """A refusal as the fault of a member."""
    return archive.fault(f"{member}: {fault}", fault.help)
