"""The trace is Chrome's trace-event JSON, has one track per queue, and its sums are the report's."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from runtime import trace as tracing
from runtime.profile import Profile, profile
from runtime.trace import HOST, KERNELS, trace, track
from targets.mlu220 import isa
from targets.mlu220.container import HostFunction, Step
from targets.mlu220.hardware import load_board
from tests import trace_schema
from tests.chains import offline_model, random_chains
from tests.command import Command
from tests.unit.test_session import HOST_TEXT, affine, image_record, model

BOARD = load_board("m2")


def slices(data: dict[str, Any], *categories: str) -> list[dict[str, Any]]:
    return [e for e in data["traceEvents"] if e["ph"] == "X" and (not categories or e["cat"] in categories)]


def assert_schema(data: dict[str, Any]) -> None:
    """The trace is one by the format's schema, survives JSON, and has a named track for every event."""
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert not list(trace_schema.faults(data, trace_schema.TRACE))
    named = {e["tid"] for e in data["traceEvents"] if e["name"] == "thread_name"}
    for event in data["traceEvents"]:
        if event["ph"] != "M":
            assert event["tid"] in named
        if event["ph"] == "X":
            assert event["dur"] > 0 and event["args"]["cycles"] > 0


def assert_tracks_are_sequences(data: dict[str, Any]) -> None:
    last: dict[int, float] = defaultdict(float)
    for event in slices(data):
        assert event["ts"] >= last[event["tid"]] - 1e-9
        last[event["tid"]] = event["ts"] + event["dur"]


def assert_totals_are_the_reports(data: dict[str, Any], report: Profile) -> None:
    """Per queue and in all, in cycles and in microseconds."""
    found: dict[tuple[int, str], int] = defaultdict(int)
    for event in slices(data):
        found[event["tid"], event["cat"]] += event["args"]["cycles"]
    for core in range(isa.IPU_CORES + 1):
        for queue in range(isa.QUEUES):
            busy = stalled = 0
            for f in report.functions:
                t, row = f.timeline, core if core < isa.IPU_CORES else f.timeline.cores
                if row < len(t.busy) and (core < t.cores or (core == isa.IPU_CORES and queue == 0)):
                    busy += f.calls * int(t.busy[row, queue])
                    stalled += f.calls * int(t.waiting[row, queue])
            thread = track(core, queue, isa.IPU_CORES)
            if core < isa.IPU_CORES or queue == 0:
                assert (found[thread, "work"], found[thread, "stall"]) == (busy, stalled)
    assert found[KERNELS, "kernel"] == report.cycles == data["otherData"]["cycles"]
    end = max((e["ts"] + e["dur"] for e in slices(data)), default=0.0)
    assert end == pytest.approx(1e6 * report.seconds)


@pytest.mark.parametrize("seed", range(4))
def test_a_trace_is_well_formed_and_adds_up_to_the_report(seed: int) -> None:
    report = profile(offline_model(random_chains(seed, 1 + seed, 3)), BOARD)
    data = trace(report)
    assert_schema(data)
    assert_tracks_are_sequences(data)
    assert_totals_are_the_reports(data, report)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"ph": "Z"}, "phase 'Z' is not one of"),
        ({"ts": "0"}, "'0' is no number"),
        ({"ts": -1.0}, "-1.0 is less than 0"),
        ({"dur": float("nan")}, "cannot be written as JSON"),
        ({"tid": 1.5}, "1.5 is no integer"),
        ({"pid": None}, "None is no integer"),
        ({"args": []}, "[] is no object"),
        ({"duration": 1}, "'duration' is not part of the format"),
    ],
)  # fmt: skip
def test_the_schema_refuses_what_is_no_trace(change: dict[str, Any], fault: str) -> None:
    data = trace(profile(offline_model(random_chains(1, 2, 2)), BOARD))
    slices(data)[0].update(change)
    assert any(fault in told for told in trace_schema.faults(data, trace_schema.TRACE))


def test_the_schema_knows_the_metadata_there_is() -> None:
    data = trace(profile(offline_model(random_chains(1, 2, 2)), BOARD))
    data["traceEvents"][0]["name"] = "process_title"
    assert any("no metadata is called" in told for told in trace_schema.faults(data, trace_schema.TRACE))


def test_every_queue_that_exists_has_a_named_track() -> None:
    data = trace(profile(offline_model(random_chains(1, 2, 2)), BOARD))
    names = [e["args"]["name"] for e in data["traceEvents"] if e["name"] == "thread_name"]
    queues = [f"core {core} {queue}" for core in range(2) for queue in ("dma", "matrix", "vector")]
    assert names == ["kernels", *queues, "memory core dma"]


def test_calls_follow_one_another_and_host_functions_are_marks_between_them() -> None:
    mixed = model()
    host = HostFunction(name="host0", text=HOST_TEXT, inputs=[image_record("a")], outputs=[image_record("b")])
    mixed.functions += [host, affine("subnet1")]
    mixed.steps += [Step("host0", ("out",), ("b",)), Step("subnet1", ("b",), ("c",)), Step("subnet1", ("c",), ("d",))]
    report = profile(mixed, BOARD)
    data = trace(report)
    assert_schema(data)
    assert_tracks_are_sequences(data)
    assert_totals_are_the_reports(data, report)
    (mark,) = [e for e in data["traceEvents"] if e["ph"] == "i"]
    first, *later = slices(data, "kernel")
    assert (mark["tid"], mark["name"]) == (HOST, "host0")
    size = report.host[0].from_board
    assert mark["args"] == {"reasons": [], "from_board": size, "to_board": size}
    assert mark["ts"] == pytest.approx(first["dur"]) and len(later) == 2


def test_slices_name_the_instruction_its_op_and_where_it_comes_from(offline: Path, command: Command) -> None:
    result = command("profile", offline, "--trace", "t.json", "--json")
    assert result.code == 0 and "perfetto" in result.err
    data, report = json.loads(Path("t.json").read_text()), json.loads(result.out)
    assert_schema(data)
    assert_tracks_are_sequences(data)
    conv = next(e for e in slices(data, "work") if e["name"] == "conv")
    assert conv["args"]["op"].startswith("mlu.conv2d") and "conv" in conv["args"]["location"]
    for unit, cycles in report["functions"][0]["busy_cycles"].items():
        tracks = [e["tid"] for e in data["traceEvents"] if e["ph"] == "M" and unit in str(e["args"].get("name"))]
        if unit == "dma":
            tracks.remove(tracing._MEMORY_TRACK)
        assert sum(e["args"]["cycles"] for e in slices(data, "work") if e["tid"] in tracks) == cycles


def test_a_wait_for_the_channel_is_drawn_as_a_stall() -> None:
    data = trace(profile(offline_model(random_chains(3, 4, 4)), BOARD))
    assert {e["name"] for e in slices(data, "stall")} <= set(tracing.WAITS.values())


# -- the command -------------------------------------------------------------------------------------------------------
def test_the_command_shows_as_many_kernels_as_it_is_asked_for(offline: Path, command: Command) -> None:
    assert "longest 1 of" in command("profile", offline, "--top", 1).out
    assert command("profile", offline, "--top", 0).code == 2


def test_the_trace_never_replaces_the_model_and_needs_a_folder(offline: Path, command: Command) -> None:
    assert "error[E101]" in command("profile", offline, "--trace", offline).err
    assert "error[E101]" in command("profile", offline, "--trace", "no/such/t.json").err
