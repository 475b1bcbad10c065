"""A profile as a timeline to look at: Chrome's trace-event JSON, which Perfetto and chrome://tracing show.

One track per queue (core x queue, and the memory core's), one for the kernels, one for the host. Every slice carries
its cycles, so that the sums of a track are the report's. A queue that waits for the DDR channel is drawn as waiting
first and copying then. Times are microseconds of the analytical model; host functions have no time and are marks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from compiler.files import written_whole
from runtime.accounts import STALLS, Accounts
from runtime.profile import FunctionProfile, Profile
from targets.mlu220 import isa

PROCESS = 1
KERNELS, HOST = 0, 1
_FIRST = 2
_MEMORY_TRACK = _FIRST + isa.IPU_CORES * isa.QUEUES
WAITS = dict(zip(STALLS, ("wait for the DDR channel", "wait for a signal", "wait at a barrier"), strict=True))

Event = dict[str, Any]


def track(core: int, queue: int, cores: int) -> int:
    """The thread id of a queue's track; the memory core's program stands after those of `cores` cores."""
    return _MEMORY_TRACK if core >= cores else _FIRST + core * isa.QUEUES + queue


def trace(profile: Profile) -> dict[str, Any]:
    """The whole trace, as JSON data."""
    functions = {f.name: f for f in profile.functions}
    host = {segment.name: segment for segment in profile.host}
    events, clock = list(_names(profile)), 0
    for name in profile.steps:
        if name not in functions:
            segment = host[name]
            args = {"reasons": segment.reasons, "from_board": segment.from_board, "to_board": segment.to_board}
            events.append(_event("i", name, HOST, clock, profile, s="t", cat="host", args=args))
            continue
        events += _function_events(functions[name], clock, profile)
        clock += functions[name].timeline.total_cycles
    basis = [f"{figure}: {line}" for figure, lines in profile.basis().items() for line in lines]
    about = {"board": profile.board.title, "clock_hz": profile.board.clock_hz, "cycles": clock, "basis": basis}
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": about}


def write_trace(profile: Profile, path: Path) -> None:
    """Write the trace. E700 when that fails; nothing is left behind then."""
    with written_whole(path, "E700") as file:
        file.write(json.dumps(trace(profile), separators=(",", ":"), allow_nan=False).encode())


def _names(profile: Profile) -> Iterator[Event]:
    """Metadata: the process and its tracks, in order."""
    yield _metadata("process_name", 0, name=f"{profile.board.title} (analytical model)")
    tracks = {KERNELS: "kernels"}
    if profile.host_functions:
        tracks[HOST] = "host (not timed)"
    cores = max([f.timeline.cores for f in profile.functions], default=0)
    for core in range(cores):
        for queue in isa.Queue:
            tracks[track(core, queue, cores)] = f"core {core} {queue.name.lower()}"
    if cores:
        tracks[_MEMORY_TRACK] = "memory core dma"
    for number, name in tracks.items():
        yield _metadata("thread_name", number, name=name)
        yield _metadata("thread_sort_index", number, sort_index=number)


def _metadata(kind: str, thread: int, **args: Any) -> Event:
    return {"name": kind, "ph": "M", "pid": PROCESS, "tid": thread, "args": args}


def _event(phase: str, name: str, thread: int, cycle: int, profile: Profile, **more: Any) -> Event:
    return {"name": name, "ph": phase, "ts": _microseconds(cycle, profile), "pid": PROCESS, "tid": thread, **more}


def _microseconds(cycle: int, profile: Profile) -> float:
    return cycle * 1e6 / profile.board.clock_hz


def _function_events(f: FunctionProfile, clock: int, profile: Profile) -> Iterator[Event]:
    ends = f.accounts.boundaries(len(f.kernels))
    for (start, end), kernel in zip(pairwise([0, *ends]), f.kernels, strict=True):
        args = {
            "cycles": kernel.cycles, "function": f.name, "ops": kernel.ops, "macs": kernel.cost.totals.macs,
            "ddr_bytes": kernel.cost.totals.ddr, "bound": kernel.cost.bound,
        }  # fmt: skip
        if end > start:
            yield _slice(kernel.name, "kernel", KERNELS, clock + start, end - start, profile, args)
    yield from _queue_events(f.accounts, f.timeline.cores, clock, profile)


def _queue_events(accounts: Accounts, cores: int, clock: int, profile: Profile) -> Iterator[Event]:
    s, debug, function = accounts.slices, accounts.debug, accounts.function
    columns = (s.row, s.core, s.queue, s.start, s.waited, s.busy, s.reason, accounts.unit)
    for row, core, queue, start, waited, busy, reason, unit in zip(*(c.tolist() for c in columns), strict=True):
        if unit < 0 or not waited + busy:
            continue
        thread, begin = track(core, queue, cores), clock + start
        args: Event = {"instruction": row - int(accounts.bases[core]), "kernel": int(accounts.kernel[row])}
        if waited:
            yield _slice(WAITS[STALLS[reason]], "stall", thread, begin, waited, profile, args)
        if busy:
            entry = function.debug[debug[row]] if debug[row] >= 0 else None
            name = isa.INSTRUCTIONS[int(accounts.rows[row, 0])].name
            more = {"op": entry.op_name, "location": entry.location} if entry else {}
            yield _slice(name, "work", thread, begin + waited, busy, profile, args | more)


def _slice(name: str, category: str, thread: int, begin: int, cycles: int, profile: Profile, args: Event) -> Event:
    duration = _microseconds(cycles, profile)
    return _event("X", name, thread, begin, profile, cat=category, dur=duration, args={"cycles": cycles, **args})


__all__ = ["HOST", "KERNELS", "WAITS", "trace", "track", "write_trace"]
