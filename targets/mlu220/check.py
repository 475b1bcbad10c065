"""The static proof that a function's programs are safe: the security boundary between a file and compiled kernels.

Proven, in stages: every row is a legal instruction that its core has; every access lies inside its memory and no
read-only memory is written; the total work is bounded; every wait is reached and every barrier meets; no two accesses
race, nothing unwritten is read and every output byte is written. All faults of a stage are reported before the next
one is looked at. What the rules of one instruction are is `isa`'s business, how instructions are ordered
`ordering`'s. The proof carries a serial order with the same results as every other order that the queues allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.errors import CompilerError, Diagnostic
from targets.mlu220 import isa
from targets.mlu220.container_records import DebugEntry, DeviceFunction
from targets.mlu220.hardware import Board

MAX_ROWS = 1 << 20
"""Instructions of one function, all cores together."""
MAX_INSTRUCTION_WORK = 2.0**33
"""Elementary steps (bytes, elements or multiply-adds) of one instruction: seconds of host time at worst, several times
what the largest convolution on full memories needs."""
MAX_WORK = 2.0**40
"""Elementary steps of one function, 1.1e12: a hundred times a large vision network."""
MAX_RUNS = 2.0**29
"""Runs of bytes in all accesses of a function, and with `MAX_VISITS` the bound of the proof's own time."""
MAX_VISITS = 1 << 33
MAX_WRITABLE = 1 << 32
"""Bytes of workspace and outputs together."""
MAX_ATOMS = 1 << 26
SHOWN = 20
"""Faults reported of one stage; the others are counted."""

_QUEUE_NAMES = ("DMA", "matrix", "vector")


@dataclass(frozen=True)
class MemorySizes:
    """Bytes that programs may use of the on-chip memories (docs/mlu220.md 1.3: the stack's share is left out)."""

    nram: int = 384 << 10
    wram: int = 512 << 10
    sram: int = 1920 << 10

    @staticmethod
    def of(board: Board) -> MemorySizes:
        return MemorySizes(nram=board.nram_usable_bytes, wram=board.wram_bytes, sram=board.sram_usable_bytes)


@dataclass(frozen=True)
class Proof:
    """`order`: int32 [n, 2], every row once as (core, row) in a serial order; the memory core is core 4. `work`:
    elementary steps of the function; `atoms`: how finely the accesses cut the memories."""

    order: np.ndarray
    work: float
    atoms: int


def check_function(function: DeviceFunction, constants_size: int, board: Board | None = None) -> Proof:
    """Prove a `container.DeviceFunction` safe, or raise CompilerError naming the instructions that are not.

    `constants_size`: bytes of the file's constants segment. Without a board the sizes that all boards share are used.
    """
    return check_programs(
        function.programs,
        cores=function.cores,
        workspace=function.workspace,
        inputs=[record.bytes for record in function.inputs],
        outputs=[record.bytes for record in function.outputs],
        constants=constants_size,
        sizes=MemorySizes.of(board) if board else None,
        name=function.name,
        debug=function.debug,
    )


def check_programs(
    programs: Sequence[np.ndarray],
    *,
    cores: int,
    workspace: int = 0,
    inputs: Sequence[int] = (),
    outputs: Sequence[int] = (),
    constants: int = 0,
    sizes: MemorySizes | None = None,
    name: str = "function",
    debug: Sequence[DebugEntry] = (),
) -> Proof:
    """`check_function` on bare programs (int32 [n, 32] for cores 0 to cores - 1, then the memory core) and sizes in
    bytes."""
    _check_form(programs, cores, workspace, inputs, outputs, constants, name)
    ids = [*range(cores), isa.MEMORY_CORE]
    rows = np.ascontiguousarray(np.concatenate(programs))
    core = np.repeat(np.array(ids, np.int64), [len(p) for p in programs])
    stage = _Stage(name, rows, core, ids, _first_rows(programs, ids), debug)
    _check_instructions(stage, programs, ids)
    accesses = isa.footprints(rows)
    memory = _Memory(sizes or MemorySizes(), workspace, inputs, outputs, constants)
    _check_bounds(stage, accesses, memory)
    work = _check_work(stage, accesses)
    _check_control(stage, ids)
    return _check_order(stage, accesses, memory, work)


def _first_rows(programs: Sequence[np.ndarray], ids: Sequence[int]) -> np.ndarray:
    """Per core number, the index of its first row among all rows."""
    first = np.zeros(isa.MEMORY_CORE + 1, np.int64)
    first[list(ids)] = np.cumsum([0, *(len(p) for p in programs[:-1])])
    return first


# -- reporting -------------------------------------------------------------------------------------------------------
@dataclass
class _Stage:
    """All rows of a function, and the faults of the stage being checked."""

    name: str
    rows: np.ndarray
    core: np.ndarray
    ids: Sequence[int]
    first: np.ndarray
    debug: Sequence[DebugEntry]
    faults: list[Diagnostic] = field(default_factory=list)
    more: int = 0

    def place(self, row: int) -> str:
        core = int(self.core[row])
        label = "memory core" if core == isa.MEMORY_CORE else f"core {core}"
        return f"{label}, row {int(row - self.first[core])}"

    def text(self, row: int) -> str:
        from targets.mlu220.assembler import instruction_text

        return instruction_text(self.rows[row])

    def short(self, row: int) -> str:
        """`core 0, row 5 (copy)`: how another instruction is named inside a message."""
        return f"{self.place(row)} ({isa.INSTRUCTIONS[int(self.rows[row, 0])].name})"

    def queue(self, row: int) -> str:
        return _QUEUE_NAMES[int(isa.queue_of(self.rows[row : row + 1])[0])]

    def fault(self, code: str, row: int | None, message: str, help: str = "") -> None:
        """Note a fault; only the first `SHOWN` are rendered."""
        if len(self.faults) >= SHOWN:
            self.more += 1
            return
        if row is None:
            self.faults.append(Diagnostic(code=code, message=message, where=self.name, help=help))
            return
        known = isa.INSTRUCTIONS.get(int(self.rows[row, 0]))
        self.faults.append(
            Diagnostic(
                code=code, message=message, op=known.name if known else "", where=f"{self.name}: {self.place(row)}",
                excerpt=self.text(row), help=help, notes=self._source(row),
            )
        )  # fmt: skip

    def _source(self, row: int) -> tuple[str, ...]:
        """The op a row was emitted for, by the file's debug table (which may say anything: it is not trusted)."""
        core = int(self.core[row])
        local = int(row - self.first[core])
        program = self.ids.index(core)
        for entry in self.debug:
            if entry.core == program and entry.first <= local <= entry.last:
                return (f"emitted for {entry.op_name} {entry.location}".rstrip(),)
        return ()

    def finish(self) -> None:
        """Raise what was found."""
        if not self.faults:
            return
        if self.more:
            self.faults.append(Diagnostic(code=self.faults[-1].code, message=f"and {self.more} more of this kind"))
        raise CompilerError(self.faults)


# -- form and single instructions ------------------------------------------------------------------------------------
def _check_form(
    programs: Sequence[np.ndarray], cores: int, workspace: int, inputs: Sequence[int], outputs: Sequence[int],
    constants: int, name: str,
) -> None:  # fmt: skip
    """Shapes and sizes that everything after this trusts."""
    messages = []
    if not 1 <= cores <= isa.IPU_CORES:
        messages.append(f"{cores} cores, the chip has 1 to {isa.IPU_CORES}")
    elif len(programs) != cores + 1:
        messages.append(f"{len(programs)} programs for {cores} cores and the memory core")
    for index, program in enumerate(programs):
        if program.ndim != 2 or program.shape[1] != isa.ROW_WORDS or program.dtype.newbyteorder("=") != np.int32:
            messages.append(f"program {index} is {program.dtype}{list(program.shape)}, not int32[n, {isa.ROW_WORDS}]")
    if sum(len(p) for p in programs) > MAX_ROWS:
        messages.append(f"more than {MAX_ROWS} instructions")
    for label, values in (("input", inputs), ("output", outputs)):
        if len(values) > isa.MAX_IO:
            messages.append(f"{len(values)} {label}s, at most {isa.MAX_IO} can be addressed")
        messages += [f"{label} {k} has {size} bytes" for k, size in enumerate(values) if not 0 < size <= isa.MAX_FAR]
    for label, size in (("workspace", workspace), ("constants", constants)):
        if not 0 <= size <= isa.MAX_FAR:
            messages.append(f"{label} of {size} bytes")
    if workspace + sum(outputs) > MAX_WRITABLE:
        messages.append(f"workspace and outputs of {workspace + sum(outputs)} bytes, more than {MAX_WRITABLE}")
    if messages:
        raise CompilerError([Diagnostic(code="E710", message=m, where=name) for m in messages])


def _check_instructions(stage: _Stage, programs: Sequence[np.ndarray], ids: Sequence[int]) -> None:
    found = isa.faults(stage.rows)
    for core, program in zip(ids, programs, strict=True):
        first = int(stage.first[core])
        found += [isa.Fault(first + fault.row, fault.message) for fault in isa.core_faults(program, core)]
    for fault in sorted(found, key=lambda fault: fault.row):
        stage.fault("E711", fault.row, fault.message)
    stage.finish()


# -- bounds ----------------------------------------------------------------------------------------------------------
class _Memory:
    """Sizes of the spaces a function may address, and where each writable one lies in the shadow's linear memory."""

    def __init__(
        self, sizes: MemorySizes, workspace: int, inputs: Sequence[int], outputs: Sequence[int], constants: int
    ):
        self.outputs = outputs
        self.spaces = np.array(
            [isa.NRAM, isa.WRAM, isa.SRAM, isa.WORKSPACE, isa.CONSTANTS]
            + [isa.INPUT + k for k in range(len(inputs))]
            + [isa.OUTPUT + k for k in range(len(outputs))]
        )
        self.sizes = np.array([sizes.nram, sizes.wram, sizes.sram, workspace, constants, *inputs, *outputs], np.int64)

    def size(self, spaces: np.ndarray) -> np.ndarray:
        """Bytes of each space, -1 where the function has no such space."""
        index = np.minimum(np.searchsorted(self.spaces, spaces), len(self.spaces) - 1)
        return np.where(self.spaces[index] == spaces, self.sizes[index], -1)


def _check_bounds(stage: _Stage, accesses: isa.Accesses, memory: _Memory) -> None:
    size = memory.size(accesses.space)
    end = accesses.end
    read_only = accesses.write & (isa.is_input(accesses.space) | (accesses.space == isa.CONSTANTS))
    for k in np.flatnonzero((accesses.base < 0) | (accesses.run < 1) | (end > size) | read_only):
        space = isa.space_name(int(accesses.space[k]))
        verb = "writes" if accesses.write[k] else "reads"
        if size[k] < 0:
            message = f"{verb} {space}, which the function does not have"
        elif read_only[k]:
            message = f"writes {space}, which is read-only"
        else:
            message = f"{verb} {space} from {int(accesses.base[k]):#x} to {int(end[k]):#x}, of {int(size[k]):#x} bytes"
        stage.fault("E712", int(accesses.row[k]), message)
    stage.finish()


def _check_work(stage: _Stage, accesses: isa.Accesses) -> float:
    """Bounded work, of the instructions and of the proof itself."""
    work = isa.work(stage.rows)
    for row in np.flatnonzero(work > MAX_INSTRUCTION_WORK):
        message = f"asks for {work[row]:.3g} elementary steps, at most {MAX_INSTRUCTION_WORK:.3g} are allowed"
        stage.fault("E713", int(row), message, "split it into several instructions")
    total = float(work.sum())
    if total > MAX_WORK:
        stage.fault("E713", None, f"asks for {total:.3g} elementary steps in all, at most {MAX_WORK:.3g} are allowed")
    runs = np.prod(accesses.counts.astype(np.float64), axis=1)
    if runs.sum() > MAX_RUNS:
        stage.fault(
            "E713", int(accesses.row[np.argmax(runs)]),
            f"the function touches {runs.sum():.3g} separate runs of bytes (most of them here), at most {MAX_RUNS:.3g} "
            "can be proven",
        )  # fmt: skip
    stage.finish()
    return total


# -- counters and barriers -------------------------------------------------------------------------------------------
def _check_control(stage: _Stage, ids: Sequence[int]) -> None:
    """Counters with one signaller, waits with enough signals, barriers of cores that exist."""
    rows, opcode = stage.rows, stage.rows[:, 0]
    signals = np.flatnonzero(opcode == isa.Signal.opcode)
    counters = rows[signals, isa.Signal.column("counter")]
    signaller = stage.core[signals] * isa.QUEUES + rows[signals, isa.Signal.column("queue")]
    first_of: dict[int, int] = {}
    for counter, index in zip(*np.unique(counters, return_index=True), strict=True):
        first_of[int(counter)] = int(index)
    owner = np.array([first_of.get(c, 0) for c in range(isa.COUNTERS)])
    for k in np.flatnonzero(signaller != signaller[owner[counters]]) if len(signals) else ():
        other = int(signals[owner[counters[k]]])
        stage.fault(
            "E714", int(signals[k]),
            f"counter {int(counters[k])} is signalled by the {stage.queue(other)} queue at {stage.place(other)} too",
            "one queue signals a counter; take another counter",
        )  # fmt: skip
    totals = np.bincount(counters, minlength=isa.COUNTERS)
    waits = np.flatnonzero(opcode == isa.Wait.opcode)
    wanted, values = rows[waits, isa.Wait.column("counter")], rows[waits, isa.Wait.column("value")]
    for k in np.flatnonzero(values > totals[wanted]):
        counter, value = int(wanted[k]), int(values[k])
        message = f"waits for counter {counter} to reach {value}, but it is signalled {int(totals[counter])} times"
        stage.fault("E715", int(waits[k]), message)
    present = sum(1 << core for core in ids)
    for row in np.flatnonzero(opcode == isa.Barrier.opcode):
        mask = int(rows[row, isa.Barrier.column("mask")])
        if mask & ~present:
            missing = ", ".join(str(c) for c in range(isa.MEMORY_CORE + 1) if (mask & ~present) >> c & 1)
            stage.fault("E714", int(row), f"the barrier names core {missing}, which runs no program")
    stage.finish()


# -- order and races -------------------------------------------------------------------------------------------------
def _check_order(stage: _Stage, accesses: isa.Accesses, memory: _Memory, work: float) -> Proof:
    from targets.mlu220 import shadow

    run = shadow.execute(stage.rows, stage.core, accesses, memory.outputs, MAX_ATOMS, MAX_VISITS)
    if run.over_budget:
        stage.fault(
            "E713", None, "its accesses cut memory into too many pieces to be proven",
            "use larger tiles, or fewer strided stores",
        )  # fmt: skip
        stage.finish()
    if len(run.order) < len(stage.rows):
        _report_deadlock(stage, run)
    pairs = set()
    for kind, row, other, space, offset in run.faults:
        if (row, other) not in pairs:
            _report_race(stage, kind, row, other, f"{isa.space_name(space)}+{offset:#x}")
        pairs.add((row, other))
    stage.more += run.fault_count - len(run.faults)
    stage.finish()
    for output, offset in run.unwritten_outputs:
        stage.fault("E718", None, f"byte {offset} of output {output} is never written")
    stage.finish()
    order = np.stack([stage.core[run.order], run.order - stage.first[stage.core[run.order]]], axis=1).astype(np.int32)
    return Proof(order=order, work=work, atoms=run.atoms)


def _report_deadlock(stage: _Stage, run: Any) -> None:
    """Name the instruction at which every queue hangs."""
    executed = stage.rows[run.order]
    signals = executed[executed[:, 0] == isa.Signal.opcode, isa.Signal.column("counter")]
    reached = np.bincount(signals, minlength=isa.COUNTERS)
    for row in sorted(set(run.hanging)):
        if stage.rows[row, 0] == isa.Wait.opcode:
            counter = int(stage.rows[row, isa.Wait.column("counter")])
            message = f"hangs: counter {counter} stays at {int(reached[counter])}"
            help = "the signal stands behind a wait or barrier that hangs too"
        else:
            message = "hangs: not every queue of every core in its mask reaches a barrier of the same mask"
            help = "every core named in the mask needs the same barriers in the same order"
        stage.fault("E715", row, message, help)
    stage.finish()


def _report_race(stage: _Stage, kind: int, row: int, other: int, place: str) -> None:
    from targets.mlu220 import ordering

    if kind == ordering.UNWRITTEN:
        stage.fault("E717", row, f"reads {place}, which nothing has written")
        return
    mine = "reads" if kind == ordering.WRITE_READ else "writes"
    theirs = "reads" if kind == ordering.READ_WRITE else "writes"
    stage.fault(
        "E716", row, f"{mine} {place}, which {stage.short(other)} {theirs}, and nothing orders the two",
        f"signal a counter in the {stage.queue(other)} queue after {stage.place(other)} and wait for it before this, "
        "or the other way round",
    )  # fmt: skip
