"""Placing values in off-chip memory: the pass `plan-memory`.

Views share the bytes of what they view, so values are first grouped into storages; a storage lives from the kernel that
first writes into it to the last op that reads it. Storages of outputs are the caller's buffers; the others get offsets
in the workspace, largest first, each at the lowest offset free during its life. The plan is verified and kept beside
its lower bound, the most bytes alive at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from compiler.errors import error
from compiler.ir.core import Argument, Constant, Function, Module, Op, Result, Value
from compiler.ir.verifier import is_subnet
from compiler.pass_context import Pass, PassContext


@dataclass(eq=False)
class Storage:
    """Bytes that one or more values share. `first` and `last`: order numbers of the ops between which they are
    needed."""

    root: Value
    size: int
    first: int
    last: int
    output: int | None = None
    offset: int = -1
    members: list[Value] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class PlanMemory(Pass):
    """Give every value between kernels its place in off-chip memory."""

    name = "plan-memory"
    requires_target = True
    verify_level = "plan-memory"

    def run(self, module: Module, ctx: PassContext) -> None:
        for function in module.functions.values():
            if is_subnet(function):
                self._plan(function, ctx)

    def _plan(self, function: Function, ctx: PassContext) -> None:
        storages = storages_of(function, ctx)
        workspace = [s for s in storages if s.output is None]
        peak = allocate(workspace, ctx.target.memory_alignment)
        verify_plan(workspace)
        bound = lower_bound(workspace, ctx.target.memory_alignment)
        if peak > ctx.target.memory_bytes:
            raise _over_budget(function, workspace, peak, ctx.target.memory_bytes)
        for storage in storages:
            _write_placement(storage)
        function.attributes["workspace"] = peak
        function.attributes["workspace_lower_bound"] = bound
        module = function.module
        if module is not None:
            module.version += 1
        ctx.statistics.count(f"@{function.name}: workspace bytes", peak)
        ctx.statistics.count(f"@{function.name}: lower bound bytes", bound)


def storages_of(function: Function, ctx: PassContext) -> list[Storage]:
    """The storages of a function's kernel results and concatenations, in order of first use."""
    ops = list(function.body)
    order = {op: index for index, op in enumerate(ops)}
    root_of: dict[Value, Value] = {}

    def root(value: Value) -> Value:
        while value in root_of:
            value = root_of[value]
        return value

    for op in ops:
        kind = ctx.target.storage(op)
        if kind == "operand":
            root_of[op.results[0]] = root(op.inputs[0])
        elif kind == "result":
            for value in op.inputs:
                root_of[root(value)] = op.results[0]
    storages: dict[Value, Storage] = {}
    for op in ops:
        for value in op.results:
            owner = root(value)
            if isinstance(owner, Argument | Constant):
                continue
            storage = storages.get(owner)
            if storage is None:
                storage = storages[owner] = Storage(owner, owner.type.bytes, order[op], order[op])
            storage.members.append(value)
            storage.first = min(storage.first, order[op])
            storage.last = max([storage.last, order[op], *(order[user] for user in value.users)])
    for index, value in enumerate(function.outputs):
        storages[root(value)].output = index
    return list(storages.values())


def allocate(storages: Sequence[Storage], alignment: int) -> int:
    """Offsets by size, largest first, lowest free place; returns the bytes needed."""
    placed: list[Storage] = []
    for storage in sorted(storages, key=lambda s: (-s.size, s.first)):
        offset = 0
        for other in sorted((p for p in placed if _overlap_in_time(p, storage)), key=lambda p: p.offset):
            if offset + storage.size <= other.offset:
                break
            offset = max(offset, _aligned(other.offset + other.size, alignment))
        storage.offset = offset
        placed.append(storage)
    return max((_aligned(s.offset + s.size, alignment) for s in storages), default=0)


def lower_bound(storages: Sequence[Storage], alignment: int) -> int:
    """The most bytes alive at one op: no plan of this order of kernels needs less."""
    changes: dict[int, int] = {}
    for storage in storages:
        size = _aligned(storage.size, alignment)
        changes[storage.first] = changes.get(storage.first, 0) + size
        changes[storage.last + 1] = changes.get(storage.last + 1, 0) - size
    alive = peak = 0
    for step in sorted(changes):
        alive += changes[step]
        peak = max(peak, alive)
    return peak


def verify_plan(storages: Sequence[Storage]) -> None:
    """Raise ValueError if two storages that live at once share a byte: a mistake of this pass."""
    active: list[Storage] = []
    for storage in sorted(storages, key=lambda s: s.first):
        active = [a for a in active if a.last >= storage.first]
        for other in active:
            if storage.offset < other.offset + other.size and other.offset < storage.offset + storage.size:
                raise ValueError(f"storages of {storage.root.name!r} and {other.root.name!r} overlap")
        active.append(storage)


def _overlap_in_time(a: Storage, b: Storage) -> bool:
    return a.first <= b.last and b.first <= a.last


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _write_placement(storage: Storage) -> None:
    """Note on the op that defines the root where its bytes are; kernels whose results lie in a view say so."""
    space = "workspace" if storage.output is None else f"output{storage.output}"
    place = {"space": space, "offset": max(storage.offset, 0) if storage.output is None else 0}
    for value in storage.members:
        op = value.producer
        assert isinstance(value, Result) and op is not None
        if op.op_name == "graph.kernel":
            places = list((op.attributes.get("placement") or {}).get("results", [{}] * len(op.results)))
            places[value.index] = place if value is storage.root else {"space": "view"}
            op.set_attribute("placement", {"results": places})
        elif value is storage.root:
            op.set_attribute("placement", place)


def _over_budget(function: Function, storages: Sequence[Storage], peak: int, budget: int) -> Exception:
    step = max(
        range(max(s.last for s in storages) + 1), key=lambda t: sum(s.size for s in storages if s.first <= t <= s.last)
    )
    alive = sorted((s for s in storages if s.first <= step <= s.last), key=lambda s: -s.size)
    ops: list[Op] = list(function.body)
    return error(
        "E620", f"@{function.name} needs {peak} bytes of workspace, the board has {budget} ({peak - budget} too many)",
        where=str(ops[step].location),
        notes=tuple(f"alive at the peak: {s.root.name!r}, {s.size} bytes" for s in alive[:8]),
        help="use a smaller batch or input",
    )  # fmt: skip
