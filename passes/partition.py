"""Splitting `@main` into what the chip runs and what the host runs: the pass `partition`.

The target answers per op, with the reason. Ops are levelled so that a level holds one device and everything it needs
lies below: each level becomes a function, `@subnet0`, `@host0`, `@subnet1`, …, and `@main` is left with calls.
Transposes at the border between a subnet and the outside stay in `@main`: they become the permutation of an input or
output record.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from compiler.errors import CompilerError, Diagnostic, error
from compiler.ir.core import Argument, Constant, Function, Module, Op, Value
from compiler.ops.graph import Call, Return
from compiler.pass_context import Pass, PassContext
from passes.outlining import boundary

MLU, HOST = "mlu", "host"


@dataclass(frozen=True, kw_only=True)
class Partition(Pass):
    """Outline what the chip can run into @subnetN and the rest into @hostN."""

    name = "partition"
    requires_target = True
    host: bool = True
    """Whether host segments are allowed; if not, every op the chip cannot run is an error."""

    def run(self, module: Module, ctx: PassContext) -> None:
        if len(module.functions) > 1:
            names = ", ".join(f"@{name}" for name in module.functions if name != "main")
            raise error("E606", f"the module is partitioned already: it has {names}", help="run partition once")
        main = module.main
        reasons = {op: ctx.target.supports(op) for op in main.body if op.op_name != "graph.return"}
        rejected = {op: reason for op, reason in reasons.items() if reason is not None}
        border = border_transposes(main, rejected)
        rejected = {op: reason for op, reason in rejected.items() if op not in border}
        if rejected and not self.host:
            raise CompilerError([_fault(op, reason) for op, reason in rejected.items()])
        self._report(rejected, ctx)
        segments = _segments(main, rejected, border)
        _outline(module, segments, border, rejected, ctx)
        ctx.statistics.count("segments on the chip", sum(s.device == MLU for s in segments))
        ctx.statistics.count("segments on the host", sum(s.device == HOST for s in segments))

    def _report(self, rejected: dict[Op, str], ctx: PassContext) -> None:
        counts = Counter((op.op_name, reason) for op, reason in rejected.items())
        for (name, reason), count in sorted(counts.items()):
            meant = [op for op, why in rejected.items() if (op.op_name, why) == (name, reason)]
            nodes = [str(op.location) or repr(op.name) for op in meant]
            ctx.diagnose(
                "E603",
                f"{count} run on the host: {reason}",
                op=name,
                where="; ".join(nodes[:4]) + (" …" if count > 4 else ""),
            )


def _fault(op: Op, reason: str) -> Diagnostic:
    return Diagnostic(
        code="E604", message=f"cannot run on the chip: {reason}", op=op.op_name, where=str(op.location),
        help="allow host segments with partition{host=true}",
    )  # fmt: skip


def border_transposes(main: Function, rejected: dict[Op, str]) -> set[Op]:
    """Transposes that only change the layout of what enters or leaves the chip: of an input, of an output, or next to
    the host."""
    found: set[Op] = set()
    for op in main.body:
        if op.op_name != "tensor.transpose" or op.inputs[0].type.quant is not None:
            continue
        source = op.inputs[0].producer
        if (
            isinstance(op.inputs[0], Argument)
            or source in rejected
            or source in found
            or all(user.op_name == "graph.return" or user in rejected for user in op.results[0].users)
        ):
            found.add(op)
    return found


@dataclass
class Segment:
    """Ops that run in one place, in order."""

    device: str
    ops: list[Op]


def _segments(main: Function, rejected: dict[Op, str], border: set[Op]) -> list[Segment]:
    """Levels of one device each: an op's level is the least one of its device at or above those of what it takes."""
    levels: dict[Op, int] = {}
    members: dict[int, list[Op]] = {}
    for op in main.body:
        if op.op_name == "graph.return":
            continue
        below = max((levels[v.producer] for v in op.inputs if v.producer is not None), default=0)
        if op in border:
            levels[op] = below
            continue
        parity = 1 if op in rejected else 0
        level = below if below % 2 == parity else below + 1
        levels[op] = level
        members.setdefault(level, []).append(op)
    _take_inner_transposes(main, border, levels, members)
    return [Segment(HOST if level % 2 else MLU, members[level]) for level in sorted(members)]


def _take_inner_transposes(
    main: Function, border: set[Op], levels: dict[Op, int], members: dict[int, list[Op]]
) -> None:
    """Move border transposes between two ops of one segment into it: outside, the segment would take what it gives."""
    order = {op: index for index, op in enumerate(main.body)}
    for op in reversed(list(order)):
        if op not in border:
            continue
        source = op.inputs[0].producer
        while source in border:
            source = source.inputs[0].producer
        users = op.results[0].users
        if source is not None and any(u not in border and levels.get(u) == levels[op] for u in users):
            border.remove(op)
            members[levels[op]].append(op)
    for ops in members.values():
        ops.sort(key=lambda op: order[op])


def _reasons(segment: Segment, rejected: dict[Op, str]) -> list[str]:
    """Why a segment's ops are not on the chip, each reason once, with the kind of op and how many it holds for."""
    counts = Counter((op.op_name, rejected[op]) for op in segment.ops if op in rejected)
    return [f"{name} ({count}): {reason}" for (name, reason), count in counts.items()]


def _outline(
    module: Module, segments: list[Segment], border: set[Op], rejected: dict[Op, str], ctx: PassContext
) -> None:
    """Make functions of the segments; what bisection forbids to outline stays in `@main`."""
    main = module.main
    counts: Counter[str] = Counter()
    final = main.body.terminator
    for segment in segments:
        prefix = "subnet" if segment.device == MLU else "host"
        name = f"{prefix}{counts[prefix]}"
        if not ctx.may_rewrite(f"outline {segment.ops[0].name} and what runs with it as @{name}"):
            break
        counts[prefix] += 1
        function = Function(name, {"target": ctx.target.name if segment.device == MLU else HOST})
        if segment.device == HOST:
            function.attributes["reasons"] = _reasons(segment, rejected)
        module.add_function(function)
        _move(main, segment, function)
    if counts:
        _settle(main, final)


def _move(main: Function, segment: Segment, function: Function) -> None:
    """Move a segment's ops into a function of their own, and call it where the last of them stood."""
    inside = set(segment.ops)
    inputs, outputs = boundary(segment.ops)
    for value in inputs:
        argument = function.add_argument(value.type, value.name)
        value.replace_uses_if(argument, lambda user: user in inside)
    anchor = segment.ops[-1]
    marker = anchor.next
    for op in segment.ops:
        function.body.append(op.detach())
    call = Call(
        *inputs, types=[v.type for v in outputs], names=[v.name for v in outputs], callee=function.name,
        location=segment.ops[-1].location,
    )  # fmt: skip
    assert marker is not None
    main.body.insert_before(marker, call)
    for value, result in zip(outputs, call.results, strict=True):
        value.replace_uses_if(result, lambda user: user not in inside)
    function.body.append(Return(*outputs))


def _settle(main: Function, final: Op) -> None:
    """Put the ops of `@main` (calls and border transposes) in an order in which every value is defined before its
    use."""
    waiting = [op for op in main.body if op is not final]
    for op in waiting:
        op.detach()
    placed: set[Value] = set(main.arguments)
    pending: dict[Value, list[Op]] = {}
    missing: dict[Op, int] = {}
    ready: list[Op] = []
    for op in waiting:
        needs = {v for v in op.inputs if not isinstance(v, Constant) and v not in placed}
        missing[op] = len(needs)
        for value in needs:
            pending.setdefault(value, []).append(op)
        if not needs:
            ready.append(op)
    for op in ready:  # grows while it is walked
        main.body.insert_before(final, op)
        for result in op.results:
            for user in pending.get(result, ()):
                missing[user] -= 1
                if not missing[user]:
                    ready.append(user)
