"""Boards: sizes, rates, clocks and energies of the chip as data, each with the basis of its number.

A board is a TOML file in `boards/` (or anywhere, given by path). Every number carries a confidence tag of
docs/mlu220.md ([C] confirmed, [C2] second-hand, [I] inferred, [U] unknown and assumed) and its source, so that a report
can say what a figure rests on. Nothing here computes: latency is `cost.py`, legality is `isa.py` and `check.py`.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from compiler.errors import CompilerError, Diagnostic, did_you_mean, error
from compiler.files import BOARD, unreadable

BOARDS = Path(__file__).parent / "boards"
TAGS = ("C", "C2", "I", "U", "user")


@dataclass(frozen=True)
class Basis:
    """What a number rests on: unit, confidence tag, source in words."""

    unit: str
    tag: str
    source: str

    def __str__(self) -> str:
        return f"[{self.tag}] {self.source}"


@dataclass(frozen=True, kw_only=True)
class Board:
    """One board. Sizes in bytes, rates per cycle of the IPU clock or per second as named, energies in joules."""

    name: str
    title: str
    clock_hz: float
    cores: int
    nram_bytes: int
    nram_usable_bytes: int
    wram_bytes: int
    sram_bytes: int
    sram_usable_bytes: int
    dram_bytes: int
    matrix_lanes: int
    matrix_lane_bytes: int
    vector_bytes_per_cycle: int
    ddr_bytes_per_second: float
    ddr_burst_bytes: int
    ddr_latency_cycles: int
    sram_bytes_per_cycle: int
    nram_bytes_per_cycle: int
    on_chip_latency_cycles: int
    segment_cycles: int
    issue_cycles: int
    transcendental_passes: int
    transpose_passes: int
    sync_cycles: int
    host_bytes_per_second: float
    idle_watts: float
    peak_watts: float
    joules_per_mac_int8: float
    joules_per_mac_int16: float
    joules_per_vector_op: float
    joules_per_ddr_byte: float
    joules_per_sram_byte: float
    joules_per_nram_byte: float
    basis: Mapping[str, Basis] = field(default_factory=dict, repr=False, hash=False, compare=False)

    @property
    def ddr_bytes_per_cycle(self) -> float:
        return self.ddr_bytes_per_second / self.clock_hz

    def macs_per_cycle(self, bits: int) -> int:
        """Multiply-adds of one core's matrix unit per cycle, when the wider operand has `bits` = 8 or 16."""
        return self.matrix_lanes * self.matrix_lane_bytes * 8 // bits

    def peak_ops_per_second(self, bits: int = 8) -> float:
        """Operations (two per multiply-add) of all cores."""
        return 2.0 * self.macs_per_cycle(bits) * self.cores * self.clock_hz

    def seconds(self, cycles: float) -> float:
        return cycles / self.clock_hz

    def with_values(self, **values: Any) -> Board:
        """The board with some numbers replaced, their basis marked as the user's."""
        basis = {
            n: Basis(self.basis[n].unit if n in self.basis else "", "user", "given on the command line") for n in values
        }
        return replace(self, **values, basis={**self.basis, **basis})

    def describe(self) -> Iterator[tuple[str, str, str, str]]:
        """(name, value with unit, tag, source) of every number, in declared order."""
        for name in _NUMBERS:
            basis = self.basis.get(name, Basis("", "user", ""))
            yield name, f"{getattr(self, name):g} {basis.unit}".rstrip(), basis.tag, basis.source


_NUMBERS = [f.name for f in fields(Board) if f.name not in ("name", "title", "basis")]
_WHOLE = {f.name for f in fields(Board) if f.type == "int"}


def board_names() -> list[str]:
    """Names of the boards that come with the compiler."""
    return sorted(path.stem for path in BOARDS.glob("*.toml"))


def load_board(name_or_path: str | Path) -> Board:
    """A board by name, or from a TOML file. E690: unknown name; E691: every fault of the file at once."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if str(name_or_path) not in board_names():
            hint = did_you_mean(str(name_or_path), board_names())
            raise error(
                "E690", f"no board is named {str(name_or_path)!r}", help=f"{hint}\nor give the path of a .toml file"
            )
        path = BOARDS / f"{name_or_path}.toml"
    return _build(path, _read(path, seen=()))


BOARD_NUMBERS = "board_numbers"
"""Under this name an offline model has the numbers of a board that does not come with the compiler."""


def own_numbers(board: Board) -> dict[str, Any]:
    """What an offline model says of its board: nothing of one that comes with the compiler, all numbers of another."""
    if board.name in board_names() and board == load_board(board.name):
        return {}
    numbers = {
        name: {"value": getattr(board, name), "unit": known.unit, "tag": known.tag, "source": known.source}
        for name, known in board.basis.items()
    }
    return {BOARD_NUMBERS: {"title": board.title, **numbers}}


def board_of(model: Any) -> Board:
    """The board an offline model was made for: the one it names, or whose numbers it has. CompilerError E690, E691."""
    numbers = model.metadata.get(BOARD_NUMBERS)
    if not isinstance(numbers, dict):
        return load_board(model.board)
    return _build(Path(model.board), {"name": model.board, **numbers})


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The tables of a board file over those of the one it extends."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise CompilerError([unreadable(path, BOARD, fault)]) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise error("E691", f"the board is not TOML: {fault}", where=str(path)) from None
    base = tables.pop("extends", None)
    if base is None:
        return tables
    parent = BOARDS / f"{base}.toml" if str(base) in board_names() else path.parent / str(base)
    if parent in (*seen, path):
        raise error("E691", f"boards extend each other in a circle through {base!r}", where=str(path))
    return {**_read(parent, (*seen, path)), "name": path.stem, **tables}


def _build(path: Path, tables: dict[str, Any]) -> Board:
    faults: list[str] = []
    values: dict[str, Any] = {"name": str(tables.pop("name", path.stem)), "title": str(tables.pop("title", ""))}
    basis: dict[str, Basis] = {}
    for name in tables:
        if name not in _NUMBERS:
            faults.append(f"unknown entry {name!r}; {did_you_mean(name, _NUMBERS)}")
    for name in _NUMBERS:
        fault = _entry_fault(name, tables.get(name))
        if fault:
            faults.append(fault)
            continue
        entry = tables[name]
        values[name] = int(entry["value"]) if name in _WHOLE else float(entry["value"])
        basis[name] = Basis(entry["unit"], entry["tag"], entry["source"])
    if faults:
        raise CompilerError([Diagnostic(code="E691", message=text, where=str(path)) for text in faults])
    return Board(**values, basis=basis)


def _entry_fault(name: str, entry: Any) -> str:
    if entry is None:
        return f"{name} is missing"
    if not isinstance(entry, dict) or set(entry) != {"value", "unit", "tag", "source"}:
        return f"{name} must be a table with value, unit, tag and source"
    value = entry["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
        return f"{name} must be a number of at least 0, not {value!r}"
    if name in _WHOLE and value != int(value):
        return f"{name} must be whole, not {value!r}"
    if value == 0 and name not in _MAY_BE_ZERO:
        return f"{name} must be more than 0"
    if name in _ON_CHIP and value > LARGEST_MEMORY:
        return f"{name} must be at most {LARGEST_MEMORY}"
    if entry["tag"] not in TAGS:
        return f"{name}: tag {entry['tag']!r} is not one of {', '.join(TAGS)}"
    if not isinstance(entry["unit"], str) or not isinstance(entry["source"], str):
        return f"{name}: unit and source are text"
    return ""


LARGEST_MEMORY = 1 << 28
"""Bytes of a memory on the chip; the simulator allocates them."""
_ON_CHIP = {"nram_bytes", "nram_usable_bytes", "wram_bytes", "sram_bytes", "sram_usable_bytes"}
_MAY_BE_ZERO = {
    "ddr_latency_cycles", "on_chip_latency_cycles", "segment_cycles", "issue_cycles", "sync_cycles", "idle_watts",
    *(name for name in _NUMBERS if name.startswith("joules_")),
}  # fmt: skip
