"""Runs the golden files: `// RUN:` says the pipeline, `// CHECK:` lines what its output must say, in order.

* `// RUN: simplify,fuse-batchnorm`: the pipeline, run in-process with the verifier after every pass.
* `// RUN-FAILS: ...`: the pipeline must raise CompilerError; the checks read its text.
* `// TARGET: mlu220 board=m2 cores=4`: the target of the pass context.
* `// CHECK: text`: a line, after the one matched before, contains the text; blanks match any blanks, `{{...}}` is a
  regex.
* `// CHECK-NEXT: text`: the very next line does. `// CHECK-NOT: text`: no line between the neighbouring matches does.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from compiler.errors import CompilerError
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from compiler.pass_manager import PassContext, run_pipeline
from compiler.target import load_target

FILES = sorted(Path(__file__).parent.rglob("*.mlu"))
DIRECTIVE = re.compile(r"^\s*//\s*(RUN|RUN-FAILS|TARGET|CHECK|CHECK-NEXT|CHECK-NOT):\s*(.*?)\s*$", re.M)


@pytest.mark.parametrize("path", FILES, ids=[str(f.relative_to(Path(__file__).parent)) for f in FILES])
def test_golden_file(path: Path) -> None:
    text = path.read_text()
    directives = DIRECTIVE.findall(text)
    checks = [(kind, what) for kind, what in directives if kind.startswith("CHECK")]
    runs = [(kind, what) for kind, what in directives if kind.startswith("RUN")]
    assert len(runs) == 1 and checks, "a golden file needs one RUN line and CHECK lines"
    assert_checks(produce(text, directives), checks)


def produce(text: str, directives: list[tuple[str, str]]) -> str:
    """What the file's pipeline prints, or the text of the error it must raise."""
    found = dict(directives)
    if "RUN-FAILS" in found:
        with pytest.raises(CompilerError) as fault:
            run(text, found["RUN-FAILS"], found.get("TARGET"))
        return str(fault.value)
    return run(text, found["RUN"], found.get("TARGET"))


def run(text: str, pipeline: str, target: str | None) -> str:
    ctx = PassContext(target=make_target(target))
    return print_module(run_pipeline(parse_module(text), pipeline, ctx=ctx, crash_directory=None))


def make_target(text: str | None) -> object:
    if text is None:
        return None
    name, *options = text.split()
    pairs = [option.split("=", 1) for option in options]
    return load_target(name, **{key: int(value) if value.isdecimal() else value for key, value in pairs})


# -- checks ----------------------------------------------------------------------------------------------------------
def assert_checks(output: str, checks: list[tuple[str, str]]) -> None:
    """Raise AssertionError, showing the output, where a check does not hold."""
    lines = output.splitlines()
    at = -1
    forbidden: list[str] = []
    for kind, text in [*checks, ("END", "")]:
        if kind == "CHECK-NOT":
            forbidden.append(text)
            continue
        if kind == "CHECK-NEXT":
            found = at + 1 if at + 1 < len(lines) and matches(text, lines[at + 1]) else None
        elif kind == "END":
            found = len(lines)
        else:
            found = next((i for i in range(at + 1, len(lines)) if matches(text, lines[i])), None)
        assert found is not None, f"{kind}: {text}\nis not in the output after line {at + 1}:\n{numbered(lines)}"
        for word in forbidden:
            bad = [i + 1 for i in range(at + 1, found) if matches(word, lines[i])]
            assert not bad, f"CHECK-NOT: {word}\nis in line {bad[0]} of the output:\n{numbered(lines)}"
        forbidden, at = [], found


def matches(text: str, line: str) -> bool:
    pieces = re.split(r"\{\{(.*?)\}\}", text)
    regex = "".join(
        piece if i % 2 else r"\s+".join(re.escape(word) for word in re.split(r"\s+", piece))
        for i, piece in enumerate(pieces)
    )
    return re.search(regex, line) is not None


def numbered(lines: list[str]) -> str:
    return "\n".join(f"{i + 1:4}  {line}" for i, line in enumerate(lines))


# -- the checker itself ----------------------------------------------------------------------------------------------
def test_checks_match_in_order() -> None:
    assert_checks("a = 1\nb = 2", [("CHECK", "a = 1"), ("CHECK-NEXT", "b = {{[0-9]}}")])
    with pytest.raises(AssertionError, match="is not in the output after line 2"):
        assert_checks("a = 1\nb = 2", [("CHECK", "b"), ("CHECK", "a")])


def test_check_not_forbids_between_matches() -> None:
    assert_checks("a\nb\nc", [("CHECK", "b"), ("CHECK-NOT", "a")])
    with pytest.raises(AssertionError, match="is in line 2"):
        assert_checks("a\nb\nc", [("CHECK", "a"), ("CHECK-NOT", "b"), ("CHECK", "c")])


def test_check_next_wants_the_next_line() -> None:
    with pytest.raises(AssertionError):
        assert_checks("a\nb\nc", [("CHECK", "a"), ("CHECK-NEXT", "c")])
