"""What became of each node of a source graph, and how all that could not be converted is told at once.

Every frontend keeps one `NodeRecord` a node (an ONNX node, a call in TorchScript, a node of an exported graph); a
converter says no by raising `Unsupported` or `Malformed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from compiler.errors import CompilerError, Diagnostic
from compiler.ir.core import Module


class Unsupported(Exception):
    """A converter declines a node: why, and what the user can do."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class Malformed(Exception):
    """The node breaks the specification of its format."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


UNCONVERTED = "takes the output of a node that was not converted"
"""Why a node is blocked."""


@dataclass
class NodeRecord:
    """What became of a node. `status`: converted, folded (known at import), unsupported, malformed, or blocked (takes
    the output of a node that was not converted). `opset` is 0 where operators have no versions.
    """

    name: str
    op_type: str
    domain: str
    opset: int
    outputs: tuple[str, ...]
    status: str = "converted"
    reason: str = ""
    remedy: str = ""

    @property
    def operator(self) -> str:
        return f"{self.domain}.{self.op_type}" if self.domain else self.op_type

    @property
    def place(self) -> str:
        opset = f", opset {self.opset}" if self.opset else ""
        return f"node {self.name!r}{opset}" + (f", output {self.outputs[0]!r}" if self.outputs else "")

    def as_dict(self) -> dict[str, object]:
        return {
            "name": self.name, "op": self.operator, "opset": self.opset, "outputs": list(self.outputs),
            "status": self.status, "reason": self.reason, "help": self.remedy,
        }  # fmt: skip


class Import(Protocol):
    """An import of some frontend's: a file's module, and what could not be converted of it."""

    @property
    def file(self) -> str: ...

    @property
    def module(self) -> Module: ...

    @property
    def records(self) -> Sequence[NodeRecord]: ...

    @property
    def faults(self) -> Sequence[Diagnostic]: ...

    def run(self) -> None:
        """Convert as far as possible, filling the fields."""


def finished(importer: Import) -> Module:
    """The module of an import, run to its end. Raises CompilerError listing everything that cannot be converted."""
    importer.run()
    faults = [*importer.faults, *diagnostics_of(importer.records, importer.file)]
    if faults:
        raise CompilerError(faults)
    return importer.module


CODES = {"unsupported": "E210", "malformed": "E212"}


def diagnostics_of(records: Sequence[NodeRecord], where: str) -> list[Diagnostic]:
    """One diagnostic per operator and reason, each listing all its nodes."""
    groups: dict[tuple[str, str, str, str], list[NodeRecord]] = {}
    for record in records:
        if record.status in CODES:
            groups.setdefault((record.status, record.operator, record.reason, record.remedy), []).append(record)
    return [
        Diagnostic(
            code=CODES[status], op=operator, where=where, help=remedy,
            message=f"{reason} ({len(members)} node{'s' if len(members) > 1 else ''})",
            notes=tuple(r.place for r in members),
        )
        for (status, operator, reason, remedy), members in groups.items()
    ]  # fmt: skip
