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

    def __str__(self) -> str:
        return "\n".join(d.render() for d in self.diagnostics)


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
    """A help line naming the nearest candidates, or all of them when none is near and they are few."""
    known = sorted(set(candidates))
    close = nearest(word, known)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    if known and len(known) <= 12:
        return "known: " + ", ".join(known)
    return ""
