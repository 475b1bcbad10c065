"""Placing values in off-chip memory: the pass `plan-memory`.

Views share the bytes of what they view, so values are first grouped into storages; a storage lives from the kernel that
first writes into it to the last op that reads it. Kernels are put into the order that keeps the fewest bytes alive
(`order`); storages of outputs are the caller's buffers, and the others get offsets in the workspace (`allocate`). The
plan is verified and kept beside its lower bound, the most bytes alive at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from compiler.errors import error
from compiler.ir.core import Argument, Constant, Function, Module, Op, Result, Value
from compiler.ir.verifier import is_subnet
from compiler.pass_context import Pass, PassContext
from passes.memory.allocate import Allocation, Buffer, Effort, allocate
from passes.memory.order import Step, best_order


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
    """Order the kernels, and give every value between them its place in off-chip memory."""

    name = "plan-memory"
    requires_target = True
    follows = "schedule"
    reorder: bool = True
    """Whether kernels may change places where fewer bytes are then alive at once."""
    effort: Effort = "exact"
    """How far to go for a plan that needs no more than is alive at once; each includes those before it."""

    def run(self, module: Module, ctx: PassContext) -> None:
        for function in module.functions.values():
            if is_subnet(function):
                self._plan(function, ctx)

    def _plan(self, function: Function, ctx: PassContext) -> None:
        if self.reorder and not _is_settled(function):
            order_kernels(function, ctx)
        storages = [s for s in storages_of(function, ctx) if not _is_kept(s.root)]
        workspace = [s for s in storages if s.output is None]
        found = place(workspace, ctx.target.memory_alignment, self.effort)
        peak = _unshared(workspace, found.peak, ctx)
        verify_plan(workspace)
        if peak > ctx.target.memory_bytes:
            raise _over_budget(function, workspace, peak, ctx.target.memory_bytes)
        for storage in storages:
            _write_placement(storage)
        function.attributes["workspace"] = peak
        function.attributes["workspace_lower_bound"] = found.bound
        module = function.module
        if module is not None:
            module.version += 1
        ctx.statistics.count(f"@{function.name}: workspace bytes", peak)
        ctx.statistics.count(f"@{function.name}: lower bound bytes", found.bound)
        how = "optimal" if found.optimal else "not proved optimal"
        ctx.statistics.count(f"@{function.name}: storages placed by {found.method}, {how}", len(workspace))


def order_kernels(function: Function, ctx: PassContext) -> None:
    """Put the ops into an order with a lower peak, if there is one."""
    ops = [op for op in function.body if "terminator" not in op.signature.traits]
    steps, sizes = steps_of(function, ops, ctx)
    order = best_order(steps, sizes)
    if list(order.ops) == list(range(len(ops))):
        return
    if not ctx.may_rewrite(f"order the kernels of @{function.name}"):
        return
    terminator = function.body.terminator
    for index in order.ops:
        function.body.insert_before(terminator, ops[index].detach())
    ctx.statistics.count(f"@{function.name}: kernels put elsewhere", sum(k != i for k, i in enumerate(order.ops)))


def steps_of(function: Function, ops: Sequence[Op], ctx: PassContext) -> tuple[list[Step], list[int]]:
    """The ops as the search for an order sees them, and the bytes of the workspace's storages."""
    number = {op: k for k, op in enumerate(ops)}
    storages = [s for s in storages_of(function, ctx) if s.output is None]
    touches: list[set[int]] = [set() for _ in ops]
    for index, storage in enumerate(storages):
        for value in storage.members:
            for op in (value.producer, *value.users):
                if op in number:
                    touches[number[op]].add(index)
    after = [frozenset(number[p] for v in op.inputs if (p := v.producer) is not None) for op in ops]
    alignment = ctx.target.memory_alignment
    steps = [Step(waits, frozenset(touched)) for waits, touched in zip(after, touches, strict=True)]
    return steps, [aligned(s.size, alignment) for s in storages]


def place(storages: Sequence[Storage], alignment: int, effort: Effort = "exact") -> Allocation:
    """Give each storage its offset in the workspace."""
    found = allocate([Buffer(aligned(s.size, alignment), s.first, s.last) for s in storages], effort)
    for storage, offset in zip(storages, found.offsets, strict=True):
        storage.offset = offset
    return found


def _unshared(storages: Sequence[Storage], peak: int, ctx: PassContext) -> int:
    """Give storages that bisection lets share no bytes places of their own behind the plan; returns the new peak."""
    for storage in storages:
        if not ctx.may_rewrite(f"share bytes with {storage.root.name}"):
            storage.offset = peak
            peak += aligned(storage.size, ctx.target.memory_alignment)
    return peak


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


def verify_plan(storages: Sequence[Storage]) -> None:
    """Raise ValueError if two storages that live at once share a byte: a mistake of this pass."""
    active: list[Storage] = []
    for storage in sorted(storages, key=lambda s: s.first):
        active = [a for a in active if a.last >= storage.first]
        for other in active:
            if storage.offset < other.offset + other.size and other.offset < storage.offset + storage.size:
                raise ValueError(f"storages of {storage.root.name!r} and {other.root.name!r} overlap")
        active.append(storage)


def aligned(size: int, alignment: int) -> int:
    """The least multiple of an alignment that holds `size`."""
    return -(-size // alignment) * alignment


def _is_settled(function: Function) -> bool:
    """Whether places on the chip were given for the order in which the ops stand."""
    return any(op.attributes.get("on_chip") for op in function.body) or any(
        _is_kept(value) for op in function.body for value in op.results
    )


def _is_kept(root: Value) -> bool:
    """Whether a value has its place on the chip already."""
    op = root.producer
    places = op.attributes.get("placement") if op is not None else None
    if not places:
        return False
    if isinstance(root, Result) and op is not None and op.op_name == "graph.kernel":
        places = places["results"][root.index]
    return places.get("space") == "sram"


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
