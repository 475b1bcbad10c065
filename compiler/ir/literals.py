"""Reading the tokens of IR text that stand for whole things: types, quantisation, constant data, locations, strings.

Each function takes the token's text and returns what it means, or raises `LiteralError` with what is wrong with it; the
parser knows the place. The inverse of each is in `printer`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from compiler.errors import did_you_mean
from compiler.ir.location import UNKNOWN, Location
from compiler.ir.types import DType, QuantType, TensorType


class LiteralError(Exception):
    """What is wrong with one token, and what to write instead."""

    def __init__(self, message: str, help: str = "", code: str = "E315") -> None:
        super().__init__(message)
        self.message = message
        self.help = help
        self.code = code


MAX_CONSTANT_BYTES = 1 << 33
MAX_DIGITS = 1000
_DTYPES = {d.value: d for d in DType}
_STRING = r'"(?:\\.|[^"\\])*"'
_TENSOR = re.compile(r"tensor<((?:(?:\d{1,15}|\?)x)*)([A-Za-z]\w*)\s*(?:,\s*(.+))?>", re.DOTALL).fullmatch
_QUANT = re.compile(r"quant<\s*(\w+)\s*((?:,.*)?)>", re.DOTALL).fullmatch
_QUANT_FIELD = re.compile(rf",\s*(\w+)\s*=\s*(@?{_STRING}|[^\s,]+)\s*").match
_PLACE = re.compile(rf"({_STRING})(?:\s*:\s*({_STRING}))?")
_BLOB = re.compile(r"blob<\s*sha256:([0-9a-f]{8,64})\s*,\s*(\d+)\s*B\s*>").fullmatch
_QUANT_FIELDS = ("position", "scale", "axis", "params", "zero_point", "step")


def read_string(text: str) -> str:
    """The value of a string literal."""
    try:
        value = json.loads(text)
    except ValueError:
        raise LiteralError(f"{text} is not a string: bad escape", code="E310") from None
    return str(value)


def read_name(token: str) -> str:
    """The name in `%name`, `%"any name"`, `@name` or `@"any name"`."""
    return read_string(token[1:]) if token[1:2] == '"' else token[1:]


def read_type(text: str, aliases: Mapping[str, QuantType]) -> TensorType:
    """`tensor<1x?x3xf32>`, `tensor<4xi8, #act0>`, or the quantisation written out."""
    match = _TENSOR(text)
    if match is None:
        raise LiteralError(f"{text!r} is not a type", "write dimensions and element type: tensor<1x3x224x224xf32>")
    dims, element, quant_text = match.groups()
    dtype = _dtype(element)
    shape = tuple(None if d == "?" else int(d) for d in dims.split("x")[:-1])
    if quant_text is None:
        return TensorType(shape, dtype)
    quant = _read_quant_or_alias(quant_text.strip(), aliases)
    if quant.storage is not dtype:
        raise LiteralError(f"the quantisation stores {quant.storage}, the element type is {dtype}")
    return TensorType(shape, dtype, quant)


def _dtype(word: str) -> DType:
    dtype = _DTYPES.get(word)
    if dtype is None:
        raise LiteralError(f"there is no element type {word!r}", did_you_mean(word, _DTYPES))
    return dtype


def _read_quant_or_alias(text: str, aliases: Mapping[str, QuantType]) -> QuantType:
    if not text.startswith("#"):
        return read_quant(text)
    quant = aliases.get(text)
    if quant is None:
        raise LiteralError(f"there is no alias {text}", did_you_mean(text, aliases))
    return quant


def read_quant(text: str) -> QuantType:
    """`quant<i8, position = -6, scale = 1.682119>`; scale and step are read as fp32."""
    match = _QUANT(text)
    if match is None:
        raise LiteralError(f"{text!r} is not a quantisation", "write quant<i8, position = -6, scale = 1.5>")
    storage, rest = _dtype(match[1]), match[2].strip()
    fields: dict[str, str] = {}
    while rest:
        field = _QUANT_FIELD(rest)
        if field is None:
            raise LiteralError(f"cannot read {rest!r} in a quantisation", "fields are written `, name = value`")
        if field[1] not in _QUANT_FIELDS:
            raise LiteralError(f"a quantisation has no field {field[1]!r}", did_you_mean(field[1], _QUANT_FIELDS))
        if field[1] in fields:
            raise LiteralError(f"{field[1]!r} is given twice")
        fields[field[1]] = field[2]
        rest = rest[field.end() :]
    if "position" not in fields:
        raise LiteralError("a quantisation needs a position", "add `position = …`")
    return QuantType(storage, **{key: _quant_field(key, value) for key, value in fields.items()})


def _quant_field(key: str, text: str) -> Any:
    try:
        if key == "params":
            if text.startswith("@"):
                return read_name(text)
            raise ValueError
        return float(np.float32(text)) if key in ("scale", "step") else int(text)
    except ValueError:
        wanted = {"params": "a constant's name (@name)", "scale": "a number", "step": "a number"}.get(key, "an integer")
        raise LiteralError(f"{key!r} must be {wanted}, not {text}") from None


def read_location(text: str, source: str) -> Location:
    """`loc("node", "file":"node")`; a place without a file is in the module's source."""
    places = []
    for match in _PLACE.finditer(text):
        file, node = (source, match[1]) if match[2] is None else (read_string(match[1]), match[2])
        places.append((file, read_string(node)))
    rest = _PLACE.sub("", text)[4:-1]
    if rest.replace(",", "").strip() or rest.count(",") != max(len(places) - 1, 0):
        raise LiteralError(f"cannot read {text}", 'write loc("node") or loc("file.onnx":"node", …)', "E310")
    return Location(tuple(sorted(set(places)))) if places else UNKNOWN


def read_integers(text: str) -> tuple[int, ...]:
    """The integers of `[1, 2, 3]`."""
    words = text[1:-1].split(",")
    if max(map(len, words)) > MAX_DIGITS:
        raise LiteralError(f"an integer of more than {MAX_DIGITS} digits", code="E310")
    return tuple(map(int, words))


def read_number(text: str) -> int | float:
    """An integer, or a float where the text has a point, an exponent or is not finite."""
    if len(text) > MAX_DIGITS:
        raise LiteralError(f"a number of {len(text)} digits", code="E310")
    return float(text) if set(text) & set(".eEni") else int(text)


# -- constant data ---------------------------------------------------------------------------------------------------
class BlobIndex:
    """Arrays by sha256 hex digest, found by any prefix of at least 8 digits."""

    def __init__(self, blobs: Mapping[str, np.ndarray]) -> None:
        self.by_prefix: dict[str, list[tuple[str, np.ndarray]]] = {}
        for digest, array in blobs.items():
            self.by_prefix.setdefault(digest[:8], []).append((digest, array))

    def find(self, digits: str) -> np.ndarray | None:
        near = self.by_prefix.get(digits[:8], ())
        return next((a for d, a in near if d.startswith(digits) or digits.startswith(d)), None)


def read_data(text: str, type: TensorType, blobs: BlobIndex | None) -> np.ndarray:
    """The array of `dense<…>`, `hex<…>` or `blob<sha256:…, N B>` of a type. Blobs are looked up by hash prefix."""
    if not type.is_static:
        raise LiteralError("a constant cannot have unknown dimensions")
    if type.bytes > MAX_CONSTANT_BYTES:
        raise LiteralError(f"a constant of {type.bytes} B; at most {MAX_CONSTANT_BYTES} B are read", code="E317")
    if text.startswith("blob"):
        return _read_blob(text, type, blobs)
    body = text[text.index("<") + 1 : -1].strip()
    if text.startswith("hex"):
        return _read_hex(body, type)
    items = body.removeprefix("[").removesuffix("]").strip()
    words = [w.strip() for w in items.split(",")] if items else []
    elements = type.elements
    if len(words) != elements and (len(words) != 1 or body.startswith("[")):
        raise LiteralError(f"{len(words)} elements given, the type has {elements}", code="E317")
    flat = _read_elements(words, type.dtype)
    if len(words) != elements:
        flat = np.broadcast_to(flat, (elements,)).copy()
    return flat.reshape(type.static_shape)


def _read_hex(body: str, type: TensorType) -> np.ndarray:
    try:
        raw = bytes.fromhex(body)
    except ValueError:
        raise LiteralError("data is not hexadecimal", code="E317") from None
    if len(raw) != type.bytes:
        raise LiteralError(f"{len(raw)} bytes given, the type has {type.bytes}", code="E317")
    return np.frombuffer(raw, dtype=type.dtype.numpy).reshape(type.static_shape)


def _read_elements(words: list[str], dtype: DType) -> np.ndarray:
    try:
        if dtype is DType.BOOL:
            return np.array([{"true": True, "false": False, "1": True, "0": False}[w] for w in words], dtype=np.bool_)
        if dtype.is_integer:
            return np.array([int(w) for w in words], dtype=dtype.numpy)
        with np.errstate(over="ignore"):
            flat = np.array([math.nan if "x" in w else float(w) for w in words]).astype(dtype.numpy)
        bits = flat.view(f"u{dtype.size}")
        for index, word in enumerate(words):
            if "x" in word:
                bits[index] = int(word, 16)
        return flat
    except (ValueError, KeyError, OverflowError):
        wrong = next((w for w in words if not _fits(w, dtype)), words[0])
        raise LiteralError(f"{wrong!r} is not a number of type {dtype}", code="E317") from None


def _fits(word: str, dtype: DType) -> bool:
    try:
        if dtype.is_float:
            return float(word) is not None if "x" not in word else 0 <= int(word, 16) < 1 << 8 * dtype.size
        np.array([int(word)], dtype=dtype.numpy)
    except (ValueError, OverflowError):
        return dtype is DType.BOOL and word in ("true", "false")
    return True


def _read_blob(text: str, type: TensorType, blobs: BlobIndex | None) -> np.ndarray:
    match = _BLOB(text)
    if match is None:
        raise LiteralError(f"cannot read {text}", "write blob<sha256:…, N B>", "E317")
    digits, size = match[1], int(match[2])
    if blobs is None:
        raise LiteralError(
            f"the data ({size} B) is in a side file that was not given",
            "read the .mlu together with its .safetensors file, or write it with --inline-constants", "E320",
        )  # fmt: skip
    data = blobs.find(digits)
    if data is None:
        message = f"the side file has no tensor sha256:{digits}"
        raise LiteralError(message, "the two files are not of one module", "E320")
    if data.nbytes != size or data.shape != type.shape or DType.of(data.dtype) is not type.dtype:
        found = TensorType(data.shape, DType.of(data.dtype))
        raise LiteralError(
            f"tensor sha256:{digits} of the side file has {data.nbytes} B of shape {found.shape} {found.dtype}, "
            f"not {size} B of shape {type.shape} {type.dtype}", code="E321",
        )  # fmt: skip
    return data
