"""The scheme: every quantisation decision, as a TOML file a person can read, edit and give back.

Calibration writes it, `quantize` reads it. It is strict both ways: what is written reads back equal, and a key, name or
pattern that means nothing is an error, all of them at once. Nothing here looks at a module; that the names exist in one
is asked by the pass.
"""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import CompilerError, Diagnostic, did_you_mean, error
from compiler.files import SCHEME, unreadable, written_whole
from compiler.ir.types import DType, QuantType, position_and_scale
from passes.layers import matches

LAYER_TYPES = ("i8", "i16", "i16xi8", "float")
"""What a layer override may say: i8×i8, i16×i16, i16 activations × i8 weights, or not quantised."""
WEIGHTS = ("per-channel", "per-tensor")
RESIDUALS = ("float", "i8")
WEIGHT_ROUNDINGS = ("balanced", "nearest")
_TENSOR_TYPES = {"i8": DType.I8, "i16": DType.I16, "f16": DType.F16, "f32": DType.F32}
_TENSOR_KEYS = ("type", "position", "scale", "absmax", "method")
_CHOICE_KEYS = ("bits", "weights", "weight_rounding", "residuals")
_TOP_KEYS = ("version", "method", *_CHOICE_KEYS, "pipeline", "module", "notes", "layers", "tensors")

F16_MAX = 65504.0
HEADROOM = 4.0
"""How far a float value may grow beyond what calibration saw before fp16 overflows."""
_EDITED_TOO_WIDE = 8.0


@dataclass(frozen=True, kw_only=True)
class TensorScheme:
    """What one tensor becomes. `absmax` is the largest magnitude calibration saw; integers clip at `clip`.

    For i8 and i16, `position` and `scale` are docs/mlu220.md 2.1's; for f16 and f32 they are None.
    """

    type: DType
    absmax: float
    position: int | None = None
    scale: float | None = None
    method: str = "minmax"

    @staticmethod
    def clipped(type: DType, absmax: float, clip: float, method: str) -> TensorScheme:
        """The entry whose integers cover [-clip, clip]."""
        position, scale = position_and_scale(clip, type.size * 8)
        return TensorScheme(type=type, absmax=_f32(absmax), position=position, scale=scale, method=method)

    @property
    def is_quantized(self) -> bool:
        return self.type.is_integer

    def quant(self, storage: DType | None = None) -> QuantType:
        """The quantised type, stored as `storage` where a layer asks for another width: then with the whole range."""
        storage = storage or self.type
        if storage is self.type and self.position is not None and self.scale is not None:
            return QuantType(storage, self.position, self.scale)
        return QuantType.from_absmax(self.absmax, storage)


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """Tensor name → entry, and layer name or glob pattern → override, with what they were made for."""

    tensors: dict[str, TensorScheme] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    method: str = "minmax"
    bits: int = 8
    weights: str = "per-channel"
    weight_rounding: str = "balanced"
    residuals: str = "float"
    pipeline: str = ""
    module: str = ""
    """Hash of the module it was made for (`module_hash`), or empty."""
    notes: tuple[str, ...] = ()
    """Why the scheme is as it is, for people."""

    def layer_type(self, names: Iterable[str]) -> str | None:
        """The override for a layer known by `names`; an exact name wins over patterns, a later pattern over earlier."""
        names = list(names)
        for name in names:
            if name in self.layers:
                return self.layers[name]
        found = [kind for pattern, kind in self.layers.items() if matches(pattern, names)]
        return found[-1] if found else None

    def to_toml(self) -> str:
        """The file's text: the same scheme gives the same text, and reads back equal."""
        return "".join(f"{line}\n" for line in _lines(self))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file whole: to a temporary name first, then renamed."""
        with written_whole(Path(path), "E521") as file:
            file.write(self.to_toml().encode())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Scheme:
        """Read a file. Raises CompilerError naming every unknown key and bad value."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as fault:
            raise CompilerError([unreadable(Path(path), SCHEME, fault)]) from None
        except UnicodeDecodeError as fault:
            raise error("E521", f"scheme is not TOML: {fault}", where=str(path)) from None
        return Scheme.parse(text, str(path))

    @staticmethod
    def parse(text: str, where: str = "scheme") -> Scheme:
        """The scheme a text says. Raises CompilerError naming every unknown key and bad value."""
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as fault:
            raise error("E521", f"scheme is not TOML: {fault}", where=where) from None
        return _Reader(where).scheme(table)


def _f32(number: float) -> float:
    return float(np.float32(number))


# -- writing -----------------------------------------------------------------------------------------------------------
def _lines(scheme: Scheme) -> Iterator[str]:
    yield "# mluc quantisation scheme: real = integer * 2^position / scale. Edit it, then compile with --scheme."
    yield "# [layers]: name or pattern = " + " | ".join(json.dumps(kind) for kind in LAYER_TYPES)
    yield "version = 1"
    yield f"method = {_text(scheme.method)}"
    yield f"bits = {scheme.bits}"
    yield f"weights = {_text(scheme.weights)}"
    yield f"weight_rounding = {_text(scheme.weight_rounding)}"
    yield f"residuals = {_text(scheme.residuals)}"
    yield f"pipeline = {_text(scheme.pipeline)}"
    yield f"module = {_text(scheme.module)}"
    if scheme.notes:
        yield "notes = ["
        yield from (f"  {_text(note)}," for note in scheme.notes)
        yield "]"
    yield ""
    yield "[layers]"
    for pattern, kind in scheme.layers.items():
        yield f"{_text(pattern)} = {_text(kind)}"
    yield ""
    yield "[tensors]"
    for name, tensor in scheme.tensors.items():
        yield f"{_text(name)} = {_tensor_text(tensor)}"


def _tensor_text(tensor: TensorScheme) -> str:
    parts = [f"type = {_text(str(tensor.type))}"]
    if tensor.position is not None:
        parts.append(f"position = {tensor.position}")
    if tensor.scale is not None:
        parts.append(f"scale = {_number(tensor.scale)}")
    parts += [f"absmax = {_number(tensor.absmax)}", f"method = {_text(tensor.method)}"]
    return "{ " + ", ".join(parts) + " }"


def _number(value: float) -> str:
    """The shortest text that reads back as the same fp32 number."""
    text = str(np.float32(value))
    return text if "." in text or "e" in text else text + ".0"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# -- reading -----------------------------------------------------------------------------------------------------------
class _Reader:
    """Turns a TOML table into a scheme, collecting every fault before raising."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.faults: list[Diagnostic] = []

    def fault(self, message: str, help: str = "") -> None:
        self.faults.append(Diagnostic(code="E522", message=message, where=self.where, help=help))

    def scheme(self, table: dict[str, Any]) -> Scheme:
        self.known(table, _TOP_KEYS, "scheme")
        if table.get("version") != 1:
            self.fault(f"scheme version {table.get('version')!r} is not known", "this mluc reads `version = 1`")
        fields: dict[str, Any] = {
            "method": self.string(table, "method", "minmax"),
            "bits": self.choice(table, "bits", (8, 16), 8),
            "weights": self.choice(table, "weights", WEIGHTS, "per-channel"),
            "weight_rounding": self.choice(table, "weight_rounding", WEIGHT_ROUNDINGS, "balanced"),
            "residuals": self.choice(table, "residuals", RESIDUALS, "float"),
            "pipeline": self.string(table, "pipeline", ""),
            "module": self.string(table, "module", ""),
            "notes": self.strings(table, "notes"),
        }
        layers = self.table(table, "layers")
        for pattern in layers:
            self.choice(layers, pattern, LAYER_TYPES, "i8", f"layer {pattern!r}")
        tensors = {name: self.tensor(name, entry) for name, entry in self.table(table, "tensors").items()}
        if self.faults:
            raise CompilerError(self.faults)
        kept = {name: entry for name, entry in tensors.items() if entry is not None}
        return Scheme(tensors=kept, layers=dict(layers), **fields)

    def tensor(self, name: str, entry: Any) -> TensorScheme | None:
        if not isinstance(entry, dict):
            self.fault(f"tensor {name!r} must be a table, not {entry!r}", '{ type = "i8", absmax = 1.0 }')
            return None
        before = len(self.faults)
        subject = f"tensor {name!r}"
        self.known(entry, _TENSOR_KEYS, subject)
        kind = _TENSOR_TYPES[self.choice(entry, "type", tuple(_TENSOR_TYPES), "i8", subject)]
        absmax = self.number(entry, "absmax", subject)
        method = self.string(entry, "method", "given")
        position, scale = self.position(entry, subject), self.number(entry, "scale", subject, absent=None)
        if len(self.faults) > before:
            return None
        if not kind.is_integer:
            if position is not None or scale is not None:
                self.fault(f"{subject} is {kind} and takes neither position nor scale")
            return TensorScheme(type=kind, absmax=absmax or 0.0, method=method)
        return self.quantized(subject, kind, absmax, position, scale, method)

    def quantized(
        self, subject: str, kind: DType, absmax: float | None, position: int | None, scale: float | None, method: str
    ) -> TensorScheme | None:
        """An integer entry: from absmax, or from position and scale, which must not contradict it."""
        if (position is None) != (scale is None):
            self.fault(f"{subject} has {'scale' if position is None else 'position'} alone", "give both or neither")
            return None
        if position is None or scale is None:
            if not absmax:
                self.fault(f"{subject} needs absmax, or position and scale")
                return None
            return TensorScheme.clipped(kind, absmax, absmax, method)
        reach = QuantType(kind, position, scale).qmax * math.ldexp(1.0, position) / scale
        if absmax and reach > _EDITED_TOO_WIDE * absmax:
            self.fault(
                f"{subject}: position and scale reach {reach:g}, absmax is {absmax:g}",
                "leave position and scale out to have them computed for this type",
            )
        return TensorScheme(type=kind, absmax=absmax or _f32(reach), position=position, scale=scale, method=method)

    # -- single values -------------------------------------------------------------------------------------------------
    def known(self, table: dict[str, Any], keys: Iterable[str], subject: str) -> None:
        for key in sorted(table.keys() - set(keys)):
            self.fault(f"{subject} has no key {key!r}", did_you_mean(key, keys))

    def table(self, table: dict[str, Any], key: str) -> dict[str, Any]:
        value = table.get(key, {})
        if not isinstance(value, dict):
            self.fault(f"{key!r} must be a table, not {value!r}", f"[{key}]")
            return {}
        return value

    def string(self, table: dict[str, Any], key: str, default: str) -> str:
        value = table.get(key, default)
        if not isinstance(value, str):
            self.fault(f"{key!r} must be a string, not {value!r}")
            return default
        return value

    def strings(self, table: dict[str, Any], key: str) -> tuple[str, ...]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.fault(f"{key!r} must be a list of strings, not {value!r}")
            return ()
        return tuple(value)

    def choice(self, table: dict[str, Any], key: str, words: tuple, default: Any, subject: str = "scheme") -> Any:
        value = table.get(key, default)
        if isinstance(value, bool) or value not in words:
            help = did_you_mean(str(value), map(str, words)) or "one of " + ", ".join(map(str, words))
            self.fault(f"{subject}: {key} = {value!r} is not known", help)
            return default
        return value

    def position(self, entry: dict[str, Any], subject: str) -> int | None:
        value = entry.get("position")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not -126 <= value <= 126):
            self.fault(f"{subject}: position must be an integer in -126..126, not {value!r}")
            return None
        return value

    def number(self, entry: dict[str, Any], key: str, subject: str, absent: float | None = 0.0) -> float | None:
        """A positive finite number, rounded to fp32; absmax may be 0 where it is not needed."""
        value = entry.get(key)
        if value is None:
            return absent
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            self.fault(f"{subject}: {key} must be a positive number, not {value!r}")
            return absent
        return _f32(value)
