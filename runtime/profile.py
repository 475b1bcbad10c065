"""What an offline model costs on the chip: latency, utilisation, traffic and energy, each with what it rests on.

The figures come from `targets.mlu220.timeline` (an analytical model, not a measurement) and from the board's data; host
functions run on the host and are listed with the reason and the price of their transfers, not timed. Nothing here
executes a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from runtime.accounts import STALLS, UNITS, Accounts, KernelAccount, constants_read, traffic
from targets.mlu220.container import HostFunction, OfflineModel
from targets.mlu220.hardware import Board
from targets.mlu220.timeline import Timeline, simulate

MEMORIES = ("ddr_read", "ddr_write", "sram", "nram", "wram")
TOP = 10
"""Kernels of each function that the text shows."""
_BASIS = {
    "latency": (
        "clock_hz", "matrix_lanes", "matrix_lane_bytes", "vector_bytes_per_cycle", "ddr_bytes_per_second",
        "ddr_latency_cycles", "ddr_burst_bytes", "sram_bytes_per_cycle", "nram_bytes_per_cycle",
        "on_chip_latency_cycles", "segment_cycles", "issue_cycles", "transcendental_passes",
        "transpose_passes", "sync_cycles",
    ),
    "transfers": ("host_bytes_per_second",),
    "energy": (
        "joules_per_mac_int8", "joules_per_mac_int16", "joules_per_vector_op", "joules_per_ddr_byte",
        "joules_per_sram_byte", "joules_per_nram_byte", "idle_watts",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class FunctionProfile:
    """One device function: when its units worked, and the bytes of its inputs and outputs that the host moves."""

    name: str
    timeline: Timeline
    calls: int
    host_bytes: int
    accounts: Accounts

    @property
    def seconds(self) -> float:
        """Time on the chip of one call."""
        return self.timeline.seconds

    def transfer_seconds(self, board: Board) -> float:
        return self.host_bytes / board.host_bytes_per_second

    @property
    def kernels(self) -> list[KernelAccount]:
        """Its kernels, in the order they run."""
        return self.accounts.kernels

    def busy_cycles(self) -> dict[str, int]:
        """Cycles of work by unit, all cores together."""
        return {name: unit.busy for name, unit in self.accounts.units.items()}

    def unit_utilisation(self) -> dict[str, float]:
        """Part of the time the unit of an average core was busy."""
        total = self.timeline.total_cycles
        return {
            name: cycles / total / (1 if name == "memory core" else self.timeline.cores) if total else 0.0
            for name, cycles in self.busy_cycles().items()
        }


@dataclass(frozen=True)
class HostSegment:
    """A function that runs on the host: why, and the bytes that one call moves from the board and back for it."""

    name: str
    calls: int
    reasons: list[str]
    from_board: int
    to_board: int

    def transfer_seconds(self, board: Board) -> float:
        """Of one call; part of what the device functions on both sides of it are charged."""
        return (self.from_board + self.to_board) / board.host_bytes_per_second


@dataclass(frozen=True)
class Profile:
    """The whole model: device functions in order of their first call, and what runs on the host."""

    board: Board
    functions: list[FunctionProfile]
    host: list[HostSegment]
    steps: list[str]
    """Functions in the order in which one inference calls them."""
    constant_bytes: int
    """Of the constants segment, what instructions read; the rest is padding."""
    implied_macs: dict[str, int] = field(default_factory=dict)
    """Per device function, the multiply-adds its network means, where the file says so; tiles compute some again."""
    workspace: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per device function, the bytes planned for values between kernels and the least that any plan needs, where the
    file says so."""

    @property
    def host_functions(self) -> list[str]:
        return [segment.name for segment in self.host]

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
        """Multiply-adds of the network, each once, as a part of what the matrix units could have done in the time."""
        used = sum(f.calls * f.timeline.utilisation * f.seconds * self._meant(f) for f in self.functions)
        return used / self.seconds if self.seconds else 0.0

    def _meant(self, f: FunctionProfile) -> float:
        """The part of a function's multiply-adds that the network means: not done again at the borders of tiles, nor
        with zeros of filters for several pixels."""
        done = f.timeline.totals.macs
        return self.implied_macs.get(f.name, done) / done if done else 0.0

    @property
    def repeated(self) -> float:
        """Multiply-adds done again at the borders of tiles, or with zeros of filters for several pixels, as a part of
        those of the network."""
        meant = sum(f.calls * self._meant(f) * f.timeline.totals.macs for f in self.functions)
        return self.macs / meant - 1.0 if meant else 0.0

    def traffic(self) -> dict[str, int]:
        """Bytes by memory."""
        return {m: sum(f.calls * getattr(f.timeline.totals, m) for f in self.functions) for m in MEMORIES}

    @property
    def ddr_lower_bound(self) -> int:
        """DDR bytes of an ideal chip: inputs, constants and outputs of every function once."""
        return self.constant_bytes + sum(f.calls * f.host_bytes for f in self.functions)

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
            "macs_repeated": self.repeated,
            "utilisation": self.utilisation,
            "bytes": self.traffic(),
            "ddr_lower_bound": self.ddr_lower_bound,
            "joules": self.joules,
            "energy": self.energy(),
            "functions": [_function_dict(f, self.board) for f in self.functions],
            "steps": self.steps,
            "host": [_host_dict(segment, self.board) for segment in self.host],
            "host_functions": self.host_functions,
            "memory": {"constants": self.constant_bytes, "workspace": self.workspace},
            "basis": self.basis(),
        }

    def text(self, top: int = TOP) -> str:
        """The report, with the `top` longest kernels of each function."""
        return "\n".join(_lines(self, top))

    def __str__(self) -> str:
        return self.text()


def profile(model: OfflineModel, board: Board) -> Profile:
    """The cost of one inference. E760: programs that wait for each other for ever."""
    calls: dict[str, int] = {}
    for step in model.steps:
        calls[step.function] = calls.get(step.function, 0) + 1
    functions, host = [], []
    for name, count in calls.items():
        function = model.function(name)
        if isinstance(function, HostFunction):
            host.append(_host_segment(model, function, count))
            continue
        moved = sum(r.bytes for r in (*function.inputs, *function.outputs))
        timeline = simulate(function.programs, board)
        functions.append(FunctionProfile(name, timeline, count, moved, Accounts(function, timeline)))
    touched = np.zeros(model.constants.size, bool)
    for f in functions:
        constants_read(f.accounts.rows, touched)
    constants = int(touched.sum())
    implied, planned = model.metadata.get("macs", {}), model.metadata.get("memory", {})
    return Profile(board, functions, host, [step.function for step in model.steps], constants, implied, planned)


def _host_segment(model: OfflineModel, function: HostFunction, calls: int) -> HostSegment:
    """A host function, and the tensors that cross because it stands between device functions; mean of its calls."""
    device = {f.name for f in model.device_functions}
    made = {name for step in model.steps if step.function in device for name in step.outputs}
    taken = {name for step in model.steps if step.function in device for name in step.inputs}
    mine = [step for step in model.steps if step.function == function.name]
    crossing = [
        sum(record.bytes for step in mine for name, record in zip(names(step), records, strict=True) if name in side)
        for names, records, side in (
            (lambda step: step.inputs, function.inputs, made), (lambda step: step.outputs, function.outputs, taken)
        )
    ]  # fmt: skip
    reasons = model.metadata.get("host_reasons", {}).get(function.name, [])
    return HostSegment(function.name, calls, list(reasons), crossing[0] // calls, crossing[1] // calls)


def _host_dict(segment: HostSegment, board: Board) -> dict[str, object]:
    return {
        "name": segment.name, "calls": segment.calls, "reasons": segment.reasons, "from_board": segment.from_board,
        "to_board": segment.to_board, "transfer_seconds": segment.transfer_seconds(board),
    }  # fmt: skip


def _function_dict(f: FunctionProfile, board: Board) -> dict[str, object]:
    t = f.timeline
    return {
        "name": f.name, "calls": f.calls, "cores": t.cores, "seconds": f.seconds, "cycles": t.total_cycles,
        "bound": t.bound, "utilisation": t.utilisation, "busy_cycles": f.busy_cycles(),
        "unit_utilisation": f.unit_utilisation(), "units": {k: u.as_dict() for k, u in f.accounts.units.items()},
        "bytes": traffic(t.totals), "macs": t.totals.macs, "roofline_cycles": dict(t.roofline), "joules": t.joules,
        "transfer_seconds": f.transfer_seconds(board), "kernels": [k.as_dict() for k in f.kernels],
    }  # fmt: skip


# -- text --------------------------------------------------------------------------------------------------------------
def _lines(p: Profile, top: int) -> Iterator[str]:
    yield f"{p.board.title}, {p.board.clock_hz / 1e6:g} MHz, analytical model"
    rate = f"{1 / p.seconds:.1f} inferences/s" if p.seconds else "nothing to do"
    yield f"latency      {p.seconds * 1e3:.3f} ms on the chip ({p.cycles} cycles), {rate}"
    yield f"transfers    {p.transfer_seconds * 1e3:.3f} ms between host and board"
    if len(p.steps) > 1:
        yield f"steps        {' > '.join(p.steps)}"
    again = f" ({p.repeated:.1%} more than the network's: at tile borders, with zeros)" if p.repeated > 0.0005 else ""
    yield f"work         {p.macs / 1e6:.1f} M multiply-adds{again}, {p.utilisation:.1%} of the matrix units' peak"
    yield "traffic      " + ", ".join(f"{name.replace('_', ' ')} {_bytes(size)}" for name, size in p.traffic().items())
    moved, least = p.traffic()["ddr_read"] + p.traffic()["ddr_write"], p.ddr_lower_bound
    if least:
        yield f"             ddr {moved / least:.2f} times inputs, constants and outputs once ({_bytes(least)})"
    watts = p.joules / p.seconds if p.seconds else 0.0
    parts = ", ".join(f"{name} {joules * 1e3:.3g}" for name, joules in p.energy().items())
    yield f"energy       {p.joules * 1e3:.3g} mJ ({watts:.2f} W): {parts}"
    yield from _memory_lines(p)
    for f in p.functions:
        yield from _function_lines(f, top)
    yield from _host_lines(p)
    for figure, lines in p.basis().items():
        for line in lines:
            yield f"basis of {figure}: {line}"


def _memory_lines(p: Profile) -> Iterator[str]:
    if p.constant_bytes or p.workspace:
        yield f"memory       constants {_bytes(p.constant_bytes)}"
    for name, planned in p.workspace.items():
        size, least = planned["workspace"], planned["workspace_lower_bound"]
        yield f"             {name} workspace {_bytes(size)}, {size / least if least else 1:.2f} times the lower bound"


def _host_lines(p: Profile) -> Iterator[str]:
    """What runs on the host, why, and what is moved for it."""
    if p.host:
        yield ""
    for segment in p.host:
        times = f"{segment.calls} x " if segment.calls > 1 else ""
        yield f"on the host  {times}{segment.name} (not timed)"
        yield from (f"  {reason}" for reason in segment.reasons)
        moved = f"{_bytes(segment.from_board)} from the board, {_bytes(segment.to_board)} back"
        yield f"  {moved}: {segment.transfer_seconds(p.board) * 1e3:.3f} ms of the transfers"


def _function_lines(f: FunctionProfile, top: int) -> Iterator[str]:
    t, cores = f.timeline, f.timeline.cores
    times = f"{f.calls} x " if f.calls > 1 else ""
    of = f"{cores} cores" if cores > 1 else "1 core"
    yield ""
    yield f"{f.name:12} {times}{f.seconds * 1e3:.3f} ms, {t.total_cycles} cycles of {of}, bound by {t.bound}"
    heads = ["unit", "busy cycles", "of time", *(f"waits: {name}" for name in STALLS)]
    table = [
        [name, str(unit.busy), f"{f.unit_utilisation()[name]:.1%}", *(str(unit.stalls[s]) for s in STALLS)]
        for name, unit in f.accounts.units.items()
    ]
    yield from _table(heads, table)
    yield from _table(["memory", "bytes"], [[name.replace("_", " "), str(n)] for name, n in traffic(t.totals).items()])
    shown = sorted(f.kernels, key=lambda k: -k.cycles)[:top]
    if shown:
        yield f"  longest {len(shown)} of {len(f.kernels)} kernels; busy cycles by unit, all cores together"
        yield from _table(_KERNEL_HEADS, [_kernel_row(k, t) for k in shown], left=("kernel",))


_KERNEL_HEADS = [
    "cycles", "share", *UNITS, "no compute", "macs", "of peak", "ddr bytes", "sram bytes", "bound", "uJ", "kernel",
]  # fmt: skip


def _kernel_row(k: KernelAccount, whole: Timeline) -> list[str]:
    totals, share = k.cost.totals, k.cycles / whole.total_cycles if whole.total_cycles else 0.0
    reached = k.cost.roofline[k.cost.bound] / k.cycles if k.cycles else 0.0
    return [
        str(k.cycles), f"{share:.1%}", *(str(k.units[name].busy) for name in UNITS), f"{k.idle_compute:.0f}",
        str(totals.macs), f"{k.cost.utilisation:.1%}", str(totals.ddr), str(totals.sram),
        f"{k.cost.bound} {reached:.0%}", f"{k.cost.joules * 1e6:.1f}", _shortened(k.name),
    ]  # fmt: skip


def _table(heads: list[str], rows: list[list[str]], left: tuple[str, ...] = ()) -> Iterator[str]:
    """Columns as wide as they must be; the first and those in `left` flush left."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    for row in [heads, *rows]:
        cells = [
            cell.ljust(width) if (i == 0 and not left) or heads[i] in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield ("  " + "  ".join(cells)).rstrip()


def _shortened(name: str, width: int = 60) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


def _bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.2f} {unit}"
    return f"{size} B"


__all__ = ["FunctionProfile", "HostSegment", "Profile", "profile"]
