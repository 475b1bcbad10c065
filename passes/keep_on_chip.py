"""Values between kernels that stay in the memory the cores share: the pass `keep-on-chip`.

A tensor that the next kernels read need not travel to off-chip memory and back, where all of it fits the shared memory
for as long as it is needed. The same memory holds the filters, scales and biases of a kernel from the time the kernel
before it begins, so that they are loaded once for all cores and in advance. Both ask for bytes during some steps;
those that save the most traffic for the bytes they hold come first, each at the lowest offset that is free. What finds
no room goes the long way.

The lifetimes are those of the order in which the kernels stand, which is settled here: the one in which the fewest
bytes are alive at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from compiler.ir.core import Function, Module, Op, Value
from compiler.ir.verifier import is_subnet
from compiler.ops.graph import Kernel
from compiler.pass_context import Pass, PassContext
from passes.memory.plan import aligned, order_kernels, storages_of

SPACE = "sram"

OVERLAP = 2
"""How often rows are loaded that windows of neighbouring tiles share."""


LEAST_UNHIDDEN = 4096
"""Bytes from which a parameter of the first kernel is loaded once for all cores: nothing runs meanwhile, and every such
load takes its time to begin."""


@dataclass(eq=False)
class Request:
    """Bytes wanted from kernel `first` to kernel `last` (numbers in order), and the off-chip bytes they save."""

    size: int
    first: int
    last: int
    saved: int
    root: Value | None = None
    members: list[Value] = field(default_factory=list)
    kernel: Kernel | None = None
    index: int = 0
    offset: int = -1

    @property
    def name(self) -> str:
        return self.root.name if self.root is not None else f"filters of {self.kernel.name if self.kernel else ''}"

    @property
    def worth(self) -> float:
        """Traffic saved per byte and step."""
        return self.saved / (self.size * (self.last - self.first + 1))


@dataclass(frozen=True, kw_only=True)
class KeepOnChip(Pass):
    """Give kernel results and parameters places in the memory the cores share, where that saves traffic."""

    name = "keep-on-chip"
    requires_target = True
    follows = "fuse-layers"
    values: bool = True
    """Keep results of kernels."""
    parameters: bool = True
    """Load filters, scales and biases one kernel ahead."""

    reorder: bool = True
    """Whether kernels may change places where fewer bytes are then alive at once."""

    def run(self, module: Module, ctx: PassContext) -> None:
        cores = int(module.attributes.get("cores", ctx.target.cores))
        for function in module.functions.values():
            if is_subnet(function):
                self._place(function, cores, ctx)

    def _place(self, function: Function, cores: int, ctx: PassContext) -> None:
        if self.reorder:
            order_kernels(function, ctx)
        kernels = [op for op in function.body if isinstance(op, Kernel)]
        requests = results_of(function, ctx) if self.values else []
        if self.parameters:
            requests += parameters_of(kernels, cores, ctx.target)
        place(requests, ctx.target.shared_bytes)
        kept = [r for r in requests if r.offset >= 0 and ctx.may_rewrite(f"keep {r.name}")]
        for request in kept:
            _note_place(request)
        residents = {value for request in kept for value in request.members}
        staged = {(r.kernel, r.index): r.offset for r in kept if r.kernel}
        for kernel in kernels:
            places = [staged.get((kernel, i), -1) for i in range(len(ctx.target.staged_parameters(kernel)))]
            _note_residents(kernel, residents, places)
        for what, chosen in (("values", [r for r in kept if r.root]), ("parameters", [r for r in kept if r.kernel])):
            ctx.statistics.count(f"{what} kept on chip", len(chosen))
            ctx.statistics.count(f"off-chip bytes saved by keeping {what}", sum(r.saved for r in chosen))


def results_of(function: Function, ctx: PassContext) -> list[Request]:
    """A request per group of kernel results that share bytes and are neither taken nor given by the function."""
    step = _steps(function)
    requests = []
    for storage in storages_of(function, ctx):
        readers = [(v, user) for v in storage.members for user in v.users if isinstance(user, Kernel)]
        saved = sum(value.type.bytes * _times_read(value, kernel) for value, kernel in readers)
        makers = [op for v in storage.members if (op := v.producer) is not None]
        saved += sum(v.type.bytes for v in storage.members if isinstance(v.producer, Kernel))
        if storage.output is None and saved:
            steps = [step[op] for op in (*makers, *(kernel for _, kernel in readers))]
            size = aligned(storage.size, ctx.target.shared_alignment)
            requests.append(Request(size, min(steps), max(steps), saved, storage.root, storage.members))
    return requests


def _times_read(value: Value, kernel: Kernel) -> int:
    """How often a kernel loads an operand, roughly."""
    argument = kernel.body.block.arguments[kernel.inputs.index(value)]
    return OVERLAP if any(any(user.attributes.get("pads") or ()) for user in argument.users) else 1


def parameters_of(kernels: Sequence[Kernel], cores: int, target: Any) -> list[Request]:
    """A request per parameter: from the kernel before, during which it is loaded, to the one that uses it."""
    requests = []
    for number, kernel in enumerate(kernels):
        for index, size in enumerate(target.staged_parameters(kernel)):
            saved = size * max(cores - 1, 1)
            if not size or (number == 0 and size < LEAST_UNHIDDEN):
                continue
            size = aligned(size, target.shared_alignment)
            requests.append(Request(size, max(number - 1, 0), number, saved, kernel=kernel, index=index))
    return requests


def place(requests: Sequence[Request], capacity: int) -> None:
    """Offsets by worth, the lowest free one; -1 for those that do not fit."""
    alive: dict[int, list[Request]] = {}
    for request in sorted(requests, key=lambda r: (-r.worth, r.first, -r.size)):
        offset = 0
        steps = range(request.first, request.last + 1)
        rivals = {rival for step in steps for rival in alive.get(step, ())}
        for other in sorted(rivals, key=lambda r: r.offset):
            if offset + request.size <= other.offset:
                break
            offset = max(offset, other.offset + other.size)
        if offset + request.size <= capacity:
            request.offset = offset
            for step in steps:
                alive.setdefault(step, []).append(request)


def _steps(function: Function) -> dict[Op, int]:
    """Number of the kernel that each op is, or follows."""
    steps: dict[Op, int] = {}
    number = -1
    for op in function.body:
        number += isinstance(op, Kernel)
        steps[op] = max(number, 0)
    return steps


def _note_place(request: Request) -> None:
    """Write the place of values on the ops that make them."""
    place = {"space": SPACE, "offset": request.offset}
    for value in request.members:
        op = value.producer
        assert op is not None
        if isinstance(op, Kernel):
            places = list((op.placement or {}).get("results", [{}] * len(op.results)))
            places[op.results.index(value)] = place if value is request.root else {"space": "view"}  # type: ignore[arg-type]
            op.set_attribute("placement", {"results": places})
        elif value is request.root:
            op.set_attribute("placement", place)


def _note_residents(kernel: Kernel, kept: Collection[Value], places: list[int]) -> None:
    """Note which of a kernel's operands, results and parameters are in the shared memory."""
    found = {
        "inputs": [i for i, value in enumerate(kernel.inputs) if value in kept],
        "results": [i for i, value in enumerate(kernel.results) if value in kept],
        "parameters": places,
    }
    if any(found.values()):
        kernel.set_attribute("on_chip", found)
