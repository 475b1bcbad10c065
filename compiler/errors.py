"""Faults a user can read: what is wrong, where, and what to do instead.

Every room raises `CompilerError` with one or more `Diagnostic`s; the command line and the reports render them. This
module imports nothing of ours and nothing heavy, because every other module imports it. Internal mistakes (broken
invariants) are not diagnostics: they stay Python exceptions, and the driver turns them into a reproducer file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    """One fault. `code` is stable ("E304"); `where` names file, node, op or instruction; `excerpt` is printed IR or
    text."""

    code: str
    message: str
    op: str = ""
    where: str = ""
    excerpt: str = ""
    help: str = ""
    notes: tuple[str, ...] = ()
    severity: str = "error"

    def render(self) -> str:
        """The fault as several lines of text, without a trailing newline."""
        subject = f"{self.op}: " if self.op else ""
        lines = [f"{self.severity}[{self.code}] {subject}{self.message}"]
        if self.where:
            lines.append(f"  {self.where}")
        lines += [f"    {line}" for line in self.excerpt.splitlines()]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  help: {line}" for line in self.help.splitlines()]
        return "\n".join(lines)

    def at(self, where: str) -> Diagnostic:
        """The same fault with `where` put in front of what it already says of its place."""
        return replace(self, where=f"{where}  {self.where}".rstrip())

    def as_dict(self) -> dict[str, object]:
        """Plain data, for `--json`."""
        return {
            "severity": self.severity, "code": self.code, "message": self.message, "op": self.op, "where": self.where,
            "excerpt": self.excerpt, "notes": list(self.notes), "help": self.help,
        }  # fmt: skip


@dataclass
class CompilerError(Exception):
    """One or more faults of the user's input. Never raised for a broken invariant of ours."""

    diagnostics: Sequence[Diagnostic] = field(default_factory=list)

    def render(self) -> str:
        """The faults as the command line tells them."""
        return "\n".join(d.render() for d in self.diagnostics)

    def __str__(self) -> str:
        """As `render`, with what the options it speaks of are called in Python."""
        text = self.render()
        return "\n".join([text, *(f"  in Python: {way}" for option, way in IN_PYTHON.items() if option in text)])


IN_PYTHON = {
    "--shape": "compiler.load(model, shapes={'NAME': (1, 3, 224, 224)})",
    "--bind": "compiler.load(model, bindings={'NAME': VALUE})",
    "--calibrate": "compiler.compile_model(module, scheme=compiler.calibrate(module, batches))",
    "--scheme": "compiler.compile_model(module, scheme='q.toml')",
    "--board": "compiler.compile_model(module, board='m2', cores=4), or target=compiler.target.load_target('mlu220')",
    "--asymmetric": "compiler.prepare(module, ctx=PassContext(options={'asymmetric': 'i16'}))",
    "--inline-constants": "compiler.ir.constants.write_module(module, path, inline=True)",
}
"""Options of the command line that messages speak of, and what a script writes for them."""


class InternalError(RuntimeError):
    """A mistake of ours, or of `owner` (a pass that is not mluc's own), caught at the border of a pass; `reproducer` is
    the file that replays it, where one was written."""

    def __init__(self, message: str, reproducer: str | None = None, owner: str = "") -> None:
        super().__init__(message)
        self.reproducer = reproducer
        self.owner = owner


def error(code: str, message: str, **fields: object) -> CompilerError:
    """A `CompilerError` of one diagnostic; `fields` are those of `Diagnostic`."""
    return CompilerError([Diagnostic(code=code, message=message, **fields)])  # type: ignore[arg-type]


def nearest(word: str, candidates: Iterable[str], count: int = 3, cutoff: float = 0.4) -> list[str]:
    """At most `count` of `candidates` that a person who typed `word` may have meant, best first."""
    return difflib.get_close_matches(word, sorted(set(candidates)), n=count, cutoff=cutoff)


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """A help line naming the nearest candidates, or some of them, all when they are few, when none is near."""
    known = sorted(set(candidates))
    close = nearest(word, known, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    if len(known) <= 16:
        return "known: " + ", ".join(known) if known else ""
    return "known: " + ", ".join(known[:8]) + f", and {len(known) - 8} more"
