"""The records of an offline model as JSON, both ways; reading is strict, because a file may be hostile.

`read` takes an annotated dataclass-like description from a table, never from the file: every key must be there,
nothing else may be, every value must have its kind. Faults are `Malformed`, which `container.py` turns into a
diagnostic naming the section.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from targets.mlu220.container_records import DebugEntry, IORecord, Step


class Malformed(ValueError):
    """Section text that is not what the format says."""


def dump(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, no NaN; the same value gives the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def parse(data: bytes) -> Any:
    """JSON text → plain data. Malformed for anything else, bombs of nesting or digits included."""
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant, parse_float=finite)
    except (ValueError, RecursionError) as fault:
        raise Malformed(f"not JSON: {fault}") from None


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number")


def finite(text: str) -> float:
    """A JSON number as a float; ValueError for one beyond all floats, which could not be written again."""
    number = float(text)
    return number if math.isfinite(number) else _no_constant(text)


# -- kinds -----------------------------------------------------------------------------------------------------------
Kind = Callable[[Any], Any]


def whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**62) < value < 2**62:
        raise Malformed(f"{value!r:.40} is not a whole number")
    return value


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise Malformed(f"{value!r:.40} is not text")
    return value


def number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Malformed(f"{value!r:.40} is not a number")
    return float(value)


def mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{value!r:.40} is not an object")
    return value


def optional(kind: Kind) -> Kind:
    return lambda value: None if value is None else kind(value)


def sequence(kind: Kind, make: Callable[[Any], Any] = list) -> Kind:
    def read_all(value: Any) -> Any:
        if not isinstance(value, list):
            raise Malformed(f"{value!r:.40} is not a list")
        return make(kind(item) for item in value)

    return read_all


def read(value: Any, kinds: dict[str, Kind], what: str) -> dict[str, Any]:
    """The object `value`, each key read by its kind. Malformed, naming `what` and the key, for any other shape."""
    for key in mapping(value):
        if key not in kinds:
            raise Malformed(f"{what} has an unknown entry {key!r:.40}")
    result = {}
    for key, kind in kinds.items():
        if key not in value:
            raise Malformed(f"{what} has no entry {key!r}")
        try:
            result[key] = kind(value[key])
        except Malformed as fault:
            raise Malformed(f"{what}.{key}: {fault}") from None
    return result


# -- records ---------------------------------------------------------------------------------------------------------
_RECORD: dict[str, Kind] = {
    "name": text, "shape": sequence(whole, tuple), "dtype": text, "device_shape": sequence(whole, tuple),
    "permutation": sequence(whole, tuple), "layout": text, "position": optional(whole), "scale": optional(number),
    "preprocessing": mapping,
}  # fmt: skip
_STEP: dict[str, Kind] = {"function": text, "inputs": sequence(text, tuple), "outputs": sequence(text, tuple)}


def record_to_json(record: IORecord) -> dict[str, Any]:
    return {key: plain(getattr(record, key)) for key in _RECORD}


def plain(value: Any) -> Any:
    """Tuples as lists, mappings with text keys, NumPy numbers as Python's: what comes back from JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def record_from_json(value: Any) -> IORecord:
    return IORecord(**read(value, _RECORD, "record"))


def step_to_json(step: Step) -> dict[str, Any]:
    return {"function": step.function, "inputs": list(step.inputs), "outputs": list(step.outputs)}


def step_from_json(value: Any) -> Step:
    return Step(**read(value, _STEP, "step"))


records = sequence(record_from_json)
steps = sequence(step_from_json)


def debug_to_json(tables: Sequence[Sequence[DebugEntry]]) -> dict[str, Any]:
    """Debug entries of several functions: strings once, entries as six numbers."""
    strings = sorted({s for table in tables for e in table for s in (e.op_name, e.location)})
    number_of = {s: k for k, s in enumerate(strings)}
    rows = [
        [k, e.core, e.first, e.last, number_of[e.op_name], number_of[e.location]]
        for k, table in enumerate(tables)
        for e in table
    ]
    return {"strings": strings, "entries": rows}


def debug_from_json(value: Any, functions: int) -> list[list[DebugEntry]]:
    """The inverse of `debug_to_json`."""
    kinds = {"strings": sequence(text), "entries": sequence(sequence(whole, tuple))}
    table = read(value, kinds, "debug table")
    strings, result = table["strings"], [[] for _ in range(functions)]  # type: ignore[var-annotated]
    for row in table["entries"]:
        if len(row) != 6 or not 0 <= row[0] < functions or not all(0 <= k < len(strings) for k in row[4:]):
            raise Malformed(f"debug entry {list(row)!r:.80} names what is not there")
        result[row[0]].append(DebugEntry(row[1], row[2], row[3], strings[row[4]], strings[row[5]]))
    return result
