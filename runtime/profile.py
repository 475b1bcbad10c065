"""What an offline model costs on the chip: latency, utilisation, traffic and energy, each with what it rests on.

The figures come from `targets.mlu220.timeline` (an analytical model, not a measurement) and from the board's data; host
functions run on the host and are listed, not timed. Nothing here executes a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from targets.mlu220.container import HostFunction, OfflineModel
from targets.mlu220.hardware import Board
from targets.mlu220.isa import Queue
from targets.mlu220.timeline import Timeline, simulate

MEMORIES = ("ddr_read", "ddr_write", "sram", "nram", "wram")
_BASIS = {
    "latency": (
        "clock_hz", "matrix_lanes", "matrix_lane_bytes", "vector_bytes_per_cycle", "ddr_bytes_per_second",
        "ddr_latency_cycles",
    ),
    "energy": ("joules_per_mac_int8", "joules_per_vector_op", "joules_per_ddr_byte", "idle_watts"),
}  # fmt: skip


@dataclass(frozen=True)
class FunctionProfile:
    """One device function: when its units worked, and the bytes of its inputs and outputs that the host moves."""

    name: str
    timeline: Timeline
    calls: int
    host_bytes: int

    @property
    def seconds(self) -> float:
        """Time on the chip of one call."""
        return self.timeline.seconds

    def transfer_seconds(self, board: Board) -> float:
        return self.host_bytes / board.host_bytes_per_second

    def busy_cycles(self) -> dict[str, int]:
        """Cycles of work by unit, all cores together."""
        busy = self.timeline.busy
        cores = busy[:-1] if len(busy) > self.timeline.cores else busy
        memory = busy[-1, Queue.DMA] if len(busy) > self.timeline.cores else 0
        names = [f"{queue.name.lower()}" for queue in Queue]
        return {**{name: int(cores[:, k].sum()) for k, name in enumerate(names)}, "memory core": int(memory)}

    def unit_utilisation(self) -> dict[str, float]:
        """Part of the time the unit of an average core was busy."""
        total = self.timeline.total_cycles
        return {
            name: cycles / total / (1 if name == "memory core" else self.timeline.cores) if total else 0.0
            for name, cycles in self.busy_cycles().items()
        }


@dataclass(frozen=True)
class Profile:
    """The whole model: device functions in order of their first call, and what runs on the host."""

    board: Board
    functions: list[FunctionProfile]
    host_functions: list[str]

    @property
    def seconds(self) -> float:
        """Time of one inference on the chip, without host functions."""
        return sum(f.calls * f.seconds for f in self.functions)

    @property
    def transfer_seconds(self) -> float:
        """Time to move inputs and outputs between host and board."""
        return sum(f.calls * f.transfer_seconds(self.board) for f in self.functions)

    @property
    def cycles(self) -> int:
        return sum(f.calls * f.timeline.total_cycles for f in self.functions)

    @property
    def joules(self) -> float:
        return sum(f.calls * f.timeline.joules for f in self.functions)

    @property
    def macs(self) -> int:
        return sum(f.calls * f.timeline.totals.macs for f in self.functions)

    @property
    def utilisation(self) -> float:
        """Multiply-adds done, as a part of what the matrix units could have done in the time."""
        used = sum(f.calls * f.timeline.utilisation * f.seconds for f in self.functions)
        return used / self.seconds if self.seconds else 0.0

    def traffic(self) -> dict[str, int]:
        """Bytes by memory."""
        return {m: sum(f.calls * getattr(f.timeline.totals, m) for f in self.functions) for m in MEMORIES}

    def energy(self) -> dict[str, float]:
        """Joules by where they go."""
        result: dict[str, float] = {}
        for f in self.functions:
            for name, joules in f.timeline.energy.items():
                result[name] = result.get(name, 0.0) + f.calls * joules
        return result

    def basis(self) -> dict[str, list[str]]:
        """Per figure, the numbers of the board it rests on, with their confidence tags and sources."""
        known = self.board.basis
        return {
            figure: [f"{name} {known[name]}" for name in names if name in known] for figure, names in _BASIS.items()
        }

    def as_dict(self) -> dict[str, object]:
        """Plain data, for `--json`."""
        return {
            "board": self.board.name,
            "seconds": self.seconds,
            "transfer_seconds": self.transfer_seconds,
            "cycles": self.cycles,
            "macs": self.macs,
            "utilisation": self.utilisation,
            "bytes": self.traffic(),
            "joules": self.joules,
            "energy": self.energy(),
            "functions": [_function_dict(f, self.board) for f in self.functions],
            "host_functions": self.host_functions,
            "basis": self.basis(),
        }

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def profile(model: OfflineModel, board: Board) -> Profile:
    """The cost of one inference. E760: programs that wait for each other for ever."""
    calls: dict[str, int] = {}
    for step in model.steps:
        calls[step.function] = calls.get(step.function, 0) + 1
    functions, host = [], []
    for name, count in calls.items():
        function = model.function(name)
        if isinstance(function, HostFunction):
            host.append(name)
            continue
        moved = sum(r.bytes for r in (*function.inputs, *function.outputs))
        functions.append(FunctionProfile(name, simulate(function.programs, board), count, moved))
    return Profile(board, functions, host)


def _function_dict(f: FunctionProfile, board: Board) -> dict[str, object]:
    t = f.timeline
    return {
        "name": f.name, "calls": f.calls, "seconds": f.seconds, "cycles": t.total_cycles, "bound": t.bound,
        "utilisation": t.utilisation, "busy_cycles": f.busy_cycles(), "unit_utilisation": f.unit_utilisation(),
        "roofline_cycles": dict(t.roofline), "joules": t.joules, "transfer_seconds": f.transfer_seconds(board),
    }  # fmt: skip


def _lines(p: Profile) -> Iterator[str]:
    yield f"{p.board.title}, {p.board.clock_hz / 1e6:g} MHz, analytical model"
    rate = f"{1 / p.seconds:.1f} inferences/s" if p.seconds else "nothing to do"
    yield f"latency      {p.seconds * 1e3:.3f} ms on the chip ({p.cycles} cycles), {rate}"
    yield f"transfers    {p.transfer_seconds * 1e3:.3f} ms between host and board"
    yield f"work         {p.macs / 1e6:.1f} M multiply-adds, {p.utilisation:.1%} of the matrix units' peak"
    yield "traffic      " + ", ".join(f"{name.replace('_', ' ')} {_bytes(size)}" for name, size in p.traffic().items())
    watts = p.joules / p.seconds if p.seconds else 0.0
    parts = ", ".join(f"{name} {joules * 1e3:.2f}" for name, joules in p.energy().items())
    yield f"energy       {p.joules * 1e3:.2f} mJ ({watts:.2f} W): {parts}"
    for f in p.functions:
        units = ", ".join(f"{name} {part:.0%}" for name, part in f.unit_utilisation().items())
        times = f"{f.calls} x " if f.calls > 1 else ""
        yield f"{f.name:12} {times}{f.seconds * 1e3:.3f} ms, bound by {f.timeline.bound}; busy: {units}"
    if p.host_functions:
        yield f"on the host  {', '.join(p.host_functions)} (not timed)"
    for figure, lines in p.basis().items():
        for line in lines:
            yield f"basis of {figure}: {line}"


def _bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.2f} {unit}"
    return f"{size} B"


__all__ = ["FunctionProfile", "Profile", "profile"]
