"""What would become of each node of a model, without compiling it: `lint(path, target=...)`.

Every node is listed with its fate and, where it cannot be converted or must run on the host, the reason and a way
round.
Compiling asks the same questions; this only asks them all and early.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from compiler.errors import CompilerError, Diagnostic
from compiler.evaluate.control import CONTROL
from compiler.frontend.load import FRONTENDS, frontend_of, load
from compiler.frontend.records import UNCONVERTED
from compiler.ir.core import Argument, Module, Op, Value

if TYPE_CHECKING:
    from compiler.frontend.records import NodeRecord

STATUSES = {
    "converted": "can be compiled",
    "folded": "known at import, cost nothing",
    "host": "run on the host, not on the target",
    "blocked": "follow a node that cannot be converted",
    "unsupported": "cannot be converted",
    "malformed": "break the rules of their operator",
}
"""Fates of nodes, in the order of the summary."""

BAD = ("unsupported", "malformed")

STRUCTURE = ("graph.call", "graph.kernel", "graph.return", "graph.yield")
"""Ops that stand for no node."""

INSIDE = "belongs to a branch or loop that the network's data decide"


class AnswersForOps(Protocol):
    """The part of a target that lint asks."""

    def supports(self, op: Op) -> str | None:
        """Why an op cannot run on the target; None where it can."""


@dataclass(frozen=True)
class LintNode:
    """One node of the model, its fate (a key of `STATUSES`), and why."""

    name: str
    operator: str
    status: str
    reason: str = ""
    help: str = ""

    def as_dict(self) -> dict[str, str]:
        return {
            "name": self.name, "op": self.operator, "status": self.status, "reason": self.reason, "help": self.help
        }  # fmt: skip


@dataclass(frozen=True)
class LintReport:
    """All nodes of a model file. `faults` are those of the file as a whole; `notes` is what else a user must know."""

    file: str
    nodes: Sequence[LintNode]
    faults: Sequence[Diagnostic] = field(default_factory=tuple)
    notes: Sequence[str] = ()

    @property
    def ok(self) -> bool:
        """Whether the model can be compiled (parts of it perhaps for the host)."""
        return not self.faults and not any(n.status in BAD for n in self.nodes)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for `--json`."""
        return {
            "file": self.file, "ok": self.ok, "counts": dict(Counter(n.status for n in self.nodes)),
            "nodes": [n.as_dict() for n in self.nodes], "faults": [f.as_dict() for f in self.faults],
            "notes": list(self.notes),
        }  # fmt: skip

    def render(self) -> str:
        """The report as text: a summary, then every node that needs attention, grouped by operator and reason."""
        counts = Counter(n.status for n in self.nodes)
        lines = [f"{self.file}: {len(self.nodes)} nodes" if self.nodes or not self.faults else f"{self.file}: not read"]
        lines += [f"  {counts[s]:5d} {text}: {self._operators(s)}" for s, text in STATUSES.items() if counts[s]]
        lines += [*(f"note: {note}" for note in self.notes), *(fault.render() for fault in self.faults)]
        groups: dict[tuple[str, str, str, str], list[str]] = {}
        for node in self.nodes:
            if node.status in (*BAD, "host"):
                groups.setdefault((node.status, node.operator, node.reason, node.help), []).append(node.name)
        for (status, operator, reason, remedy), names in groups.items():
            lines += [f"{status}: {operator}: {reason}", f"  nodes ({len(names)}): {', '.join(names)}"]
            lines += [f"  help: {remedy}"] if remedy else []
        return "\n".join(lines)

    def _operators(self, status: str) -> str:
        """How many nodes of each operator have a fate, the most first."""
        found = Counter(n.operator for n in self.nodes if n.status == status)
        return ", ".join(f"{operator} {count}" for operator, count in found.most_common())


def lint(
    path: str | Path, target: AnswersForOps | None = None, shapes: Mapping[str, Sequence[int]] | None = None,
    bindings: Mapping[str, Any] | None = None,
) -> LintReport:  # fmt: skip
    """The fate of every node of a model file. Raises CompilerError only where the file or its inputs cannot be read."""
    path = Path(path)
    if path.suffix.lower() not in FRONTENDS or not path.is_file():
        module = load(path, shapes, bindings)
        nodes = [LintNode(op.name, op.op_name, "converted") for op in _real_ops(module)]
        return LintReport(path.name, _ask_target(nodes, _by_value_name(module), target))
    importer = frontend_of(path).Importer(path, shapes or {}, bindings or {})
    try:
        importer.run()
    except CompilerError as fault:
        return LintReport(path.name, [], list(fault.diagnostics))
    ops, behind = _by_node(importer.module), _behind_placeholders(importer.module)
    nodes = [_lint_node(record, ops.get(record.name, ()), behind) for record in importer.records]
    return LintReport(path.name, _ask_target(nodes, ops, target), importer.faults, state_notes(importer.module))


def state_notes(module: Module) -> list[str]:
    """What a user must know of a network with a memory: which output is which input of the next call, and what those
    inputs are at first.
    """
    first = module.attributes.get("first_state", {})
    return [
        f"output {output!r} is input {name!r} of the next call, "
        + (f"{first[name]:g} everywhere at first" if isinstance(first.get(name), float) else "not uniform at first")
        for output, name in module.attributes.get("state", {}).items()
    ]


def _lint_node(record: NodeRecord, ops: Sequence[Op], behind: Collection[Op]) -> LintNode:
    status, reason = record.status, record.reason
    if status == "converted" and not ops:
        status = "folded"
    elif status == "converted" and any(op in behind for op in ops):
        status, reason = "blocked", UNCONVERTED
    return LintNode(record.name, record.operator, status, reason, record.remedy)


def _behind_placeholders(module: Module) -> set[Op]:
    """Ops that take, perhaps through others, what stands for the result of a node that was not converted."""
    found: set[Op] = set()
    for op in module.ops():
        if any(_is_placeholder(v) or v.producer in found for v in op.inputs):
            found.add(op)
    return found


def _is_placeholder(value: Value) -> bool:
    return isinstance(value, Argument) and value.index < 0


def _ask_target(
    nodes: Sequence[LintNode], ops: Mapping[str, Sequence[Op]], target: AnswersForOps | None
) -> list[LintNode]:
    """Nodes the target declines become host nodes, with its first reason; so do those inside a branch or loop of the
    host."""
    if target is None:
        return list(nodes)
    deciding = [op for found in ops.values() for op in found if op.op_name in CONTROL]
    inside = {id(o) for op in deciding for region in op.regions for o in region.block}
    asked = []
    for node in nodes:
        reasons = [r for op in ops.get(node.name, ()) if (r := INSIDE if id(op) in inside else target.supports(op))]
        declined = bool(reasons) and node.status == "converted"
        asked.append(replace(node, status="host", reason=reasons[0]) if declined else node)
    return asked


def _real_ops(module: Module) -> list[Op]:
    return [op for op in module.ops() if op.op_name not in STRUCTURE]


def _by_node(module: Module) -> dict[str, list[Op]]:
    """Ops by the model's nodes they came from."""
    found: dict[str, list[Op]] = {}
    for op in _real_ops(module):
        for node in op.location.nodes:
            found.setdefault(node, []).append(op)
    return found


def _by_value_name(module: Module) -> dict[str, list[Op]]:
    return {op.name: [op] for op in _real_ops(module)}
