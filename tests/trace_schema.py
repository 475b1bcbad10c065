"""The Chrome trace-event format, JSON object form, as a schema: which fields events of each phase have, of which types.

After the format's public description ("Trace Event Format"), in the words of JSON Schema as far as it is needed. What
the viewers only tolerate (numbers as strings, events without a track) is not allowed here. Not tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

NUMBER: Schema = {"type": "number", "minimum": 0}
IDENTIFIER: Schema = {"type": "integer", "minimum": 0}
TEXT: Schema = {"type": "string"}
ARGUMENTS: Schema = {"type": "object"}
COMMON: dict[str, Schema] = {"name": TEXT, "ph": TEXT, "pid": IDENTIFIER, "tid": IDENTIFIER}
TIMED = COMMON | {"ts": NUMBER}


def event(required: dict[str, Schema], **optional: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": required | optional, "closed": True}


METADATA = {
    "process_name": {"name": TEXT}, "process_labels": {"labels": TEXT},
    "process_sort_index": {"sort_index": IDENTIFIER},
    "thread_name": {"name": TEXT}, "thread_sort_index": {"sort_index": IDENTIFIER},
}  # fmt: skip
"""Metadata events by name, and what their arguments are."""

PHASES: dict[str, Schema] = {
    "X": event(TIMED | {"dur": NUMBER}, cat=TEXT, args=ARGUMENTS, cname=TEXT, tts=NUMBER, tdur=NUMBER),
    "B": event(TIMED, cat=TEXT, args=ARGUMENTS, cname=TEXT),
    "E": event({k: v for k, v in TIMED.items() if k != "name"}, name=TEXT, cat=TEXT, args=ARGUMENTS),
    "i": event(TIMED, cat=TEXT, s={"enum": ["t", "p", "g"]}, args=ARGUMENTS, cname=TEXT),
    "C": event(TIMED | {"args": ARGUMENTS}, cat=TEXT, id=TEXT),
    "M": event(COMMON | {"args": ARGUMENTS}, ts=NUMBER, cat=TEXT),
}
"""Phases a trace of a chip can need; flows, objects and asynchronous events are none of them."""

TRACE: Schema = {
    "type": "object", "required": ["traceEvents"], "closed": True,
    "properties": {
        "traceEvents": {"type": "array", "items": {"phases": PHASES}}, "displayTimeUnit": {"enum": ["ms", "ns"]},
        "systemTraceEvents": TEXT, "otherData": ARGUMENTS, "stackFrames": ARGUMENTS, "samples": {"type": "array"},
    },
}  # fmt: skip

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "number": (int, float), "integer": (int,),
}  # fmt: skip


def faults(value: Any, schema: Schema, where: str = "trace") -> Iterator[str]:
    """Everything in which `value` is not what the schema says."""
    if "phases" in schema:
        yield from _event_faults(value, schema["phases"], where)
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is not one of {schema['enum']}"
    kind = schema.get("type")
    if kind is not None and (not isinstance(value, _TYPES[kind]) or isinstance(value, bool)):
        yield f"{where}: {value!r} is no {kind}"
        return
    if value in (float("inf"), float("nan")) or (isinstance(value, float) and value != value):
        yield f"{where}: {value} cannot be written as JSON"
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{where}: {value} is less than {schema['minimum']}"
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{where}: has no {name!r}"
    for name, part in value.items() if isinstance(value, dict) else ():
        if name in properties:
            yield from faults(part, properties[name], f"{where}.{name}")
        elif schema.get("closed"):
            yield f"{where}: {name!r} is not part of the format"
    for index, part in enumerate(value) if "items" in schema else ():
        yield from faults(part, schema["items"], f"{where}[{index}]")


def _event_faults(value: Any, phases: dict[str, Schema], where: str) -> Iterator[str]:
    phase = value.get("ph") if isinstance(value, dict) else None
    if phase not in phases:
        yield f"{where}: phase {phase!r} is not one of {', '.join(phases)}"
        return
    yield from faults(value, phases[phase], where)
    if phase == "M" and isinstance(value.get("args"), dict):
        known = METADATA.get(value.get("name", ""))
        if known is None:
            yield f"{where}: no metadata is called {value.get('name')!r}"
        else:
            yield from faults(value["args"], event(known), f"{where}.args")
