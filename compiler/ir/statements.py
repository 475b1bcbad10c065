"""IR text cut into statements, each parsed by the grammar of `ir.lark` on its own.

A statement ends at a line end outside brackets, or at a `{` that opens a block, so that a file is never one syntax tree
and a fault in one statement cannot hide faults in the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

STRING = r'"(?:\\.|[^"\\\n])*"'
_MARKS = re.compile(rf'{STRING}|"[^\n]*|//[^\n]*|->|[\n()\[\]{{}}<>]')
_IS_ATTRIBUTES = re.compile(rf"\{{(?:[ \t]*\}}|\s*(?:[A-Za-z_][\w.-]*|{STRING})\s*=)").match
_CONTINUES = re.compile(r"(?:\s|//[^\n]*\n)*(?::|->|,|=|loc\(|attributes\b|\{)").match
_NAME = rf"[%#](?:{STRING}|[^\s:=,\"]+)"
_BEGINS = re.compile(rf"\s*(?:{_NAME}(?:, *{_NAME})* = |(?:return|yield|func|const)\b|[a-z]\w*\.\w+ [%@])").match
_COMMENT_OR_BLANK = re.compile(r"(?:\s|//[^\n]*)*")


def split_statements(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each statement: to the line end outside brackets, or to a `{` that opens a block.

    A line that begins with `:`, `loc(`, `->`, `,` or `{` continues the statement before it. Where a bracket was left
    open, a line that looks like a new statement begins one all the same.
    """
    start = depth = 0
    for match in _MARKS.finditer(text):
        mark, at = match.group(), match.start()
        if mark == "\n":
            if _BEGINS(text, at + 1) if depth else not _CONTINUES(text, at + 1):
                yield start, at
                start, depth = at + 1, 0
        elif mark == "{":
            if _IS_ATTRIBUTES(text, at):
                depth += 1
            else:
                yield start, at + 1
                start, depth = at + 1, 0
        elif mark == "}" and depth == 0:
            yield start, at
            start = at
        elif mark in "([<":
            depth += 1
        elif mark in ")]>}":
            depth = max(depth - 1, 0)
    yield start, len(text)


class Fault(Exception):
    """A fault at a place of the text; the statement it is in is given up."""

    def __init__(self, at: int, width: int, message: str, code: str, help: str = "", op: str = "") -> None:
        super().__init__(message)
        self.at, self.width, self.message, self.code, self.help, self.op = at, width, message, code, help, op


@dataclass(slots=True)
class Statement:
    """What one statement says: `parts` by kind, None where it could not be read. Tokens' places count from `start`."""

    kind: str
    start: int
    end: int
    parts: Any


@cache
def _grammar() -> Any:
    """The statement parser. Loads lark and builds the tables at first use."""
    from lark import Lark, Transformer

    class Shape(Transformer):
        """Statements as (kind, parts); tokens stay tokens, so that faults found later have a place."""

        def module(self, parts: list) -> tuple:
            return ("module", parts[0])

        def alias(self, parts: list) -> tuple:
            return ("alias", parts)

        def constant(self, parts: list) -> tuple:
            return ("constant", parts)

        def function(self, parts: list) -> tuple:
            return ("function", parts)

        def region_arguments(self, parts: list) -> tuple:
            return ("region", parts[0])

        def operation(self, parts: list) -> tuple:
            return ("op", parts)

        def close(self, parts: list) -> tuple:
            return ("close", parts)

        def function_types(self, parts: list) -> Any:
            return parts[0]

        function_attributes = function_types

        def arguments(self, parts: list) -> list:
            return [p for p in parts if p is not None]

        names = operands = types = attributes = arguments

        def argument(self, parts: list) -> tuple:
            return tuple(parts)

        attribute = argument

        def operand(self, parts: list) -> Any:
            return parts[0]

        def opens(self, parts: list) -> bool:
            return True

        def word(self, parts: list) -> Any:
            return parts[0]

        def list(self, parts: list) -> tuple:
            return tuple(p for p in parts if p is not None)

    grammar = (Path(__file__).parent / "ir.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", start="statement", transformer=Shape(), maybe_placeholders=True)


def read_statements(text: str) -> Iterator[Statement | Fault]:
    """The statements of a text in order; before one that cannot be read, its fault."""
    from lark import UnexpectedInput

    grammar = _grammar()
    for begin, end in split_statements(text):
        piece = text[begin:end]
        stripped = _COMMENT_OR_BLANK.sub("", piece, count=1)
        start = end - len(stripped)
        piece = stripped.rstrip()
        if not piece:
            continue
        try:
            kind, parts = grammar.parse(piece)
        except UnexpectedInput as unexpected:
            yield _syntax_fault(unexpected, piece, start)
            kind, parts = _kind_of_broken(piece), None
        yield Statement(kind, start, start + len(piece), parts)


_READABLE = {
    "VALUE": "a value (%name)", "CONSTANT": "a constant (@name)", "TYPE": "a type (tensor<…>)", "NAME": "a name",
    "LOCATION": 'loc("…")', "STRING": "a string", "NUMBER": "a number", "INTEGERS": "a list",
    "DATA": "dense<…> or blob<…>", "ALIAS": "an alias (#name)", "ABSENT": "_", "QUANT": "quant<…>", "KEY": "a name",
    "$END": "the end of the line",
}  # fmt: skip


def _syntax_fault(unexpected: Any, piece: str, start: int) -> Fault:
    token = getattr(unexpected, "token", None)
    expected = getattr(unexpected, "accepts", None) or getattr(unexpected, "expected", None) or unexpected.allowed or ()
    words = sorted({_READABLE.get(name) or f"'{_literal_of(name)}'" for name in expected})
    help = f"expected {' or '.join(words)}" if 0 < len(words) <= 8 else ""
    if token is None:
        at = unexpected.pos_in_stream
        return Fault(start + at, 1, f"unexpected {piece[at]!r}", "E310", help)
    if token.type == "$END":
        return Fault(start + len(piece), 1, "the statement ends too early", "E310", help)
    return Fault(start + token.start_pos, len(token), f"unexpected {str(token)!r}", "E310", help)


def _literal_of(terminal: str) -> str:
    pattern = next((t.pattern.value for t in _grammar().terminals if t.name == terminal), terminal)
    return str(pattern)


def _kind_of_broken(piece: str) -> str:
    """What a statement with a syntax fault was meant to be, so that blocks still nest."""
    for prefix, kind in (("func", "function"), ("const", "constant"), ("#", "alias"), ("module", "module"),
                         ("}", "close"), ("(", "region")):  # fmt: skip
        if piece.startswith(prefix):
            return kind
    return "op"
