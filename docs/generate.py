"""Write the manuals that follow from the code: `python docs/generate.py`, or `--check` that they are up to date.

Passes, ops, instructions, boards and ONNX operators are declared in tables; the pages are those tables with their
documentation. Nothing here is written by hand but the first lines of each page.
"""

from __future__ import annotations

import argparse
import dataclasses
import dis
import inspect
import json
import re
import sys
import textwrap
import types
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from compiler.ir.core import Op  # noqa: E402
from compiler.ir.define import load_all_families  # noqa: E402
from compiler.pass_manager import PIPELINES, find_pass, option_fields, pass_names  # noqa: E402
from compiler.pipelines import describe_kind  # noqa: E402
from targets.mlu220 import ops as chip_ops  # noqa: E402
from targets.mlu220 import target  # noqa: E402
from targets.mlu220.hardware import board_names, load_board  # noqa: E402
from targets.mlu220.isa import INSTRUCTIONS  # noqa: E402
from targets.mlu220.isa_fields import space_name  # noqa: E402
from targets.mlu220.rules import LEGALIZERS  # noqa: E402

NOTE = "<!-- Written by docs/generate.py; change the code, not this page. -->\n"
TABLES = (chip_ops, target)
"""Imported because they fill the tables that are printed here."""


def page(title: str, introduction: str, body: Iterable[str]) -> str:
    text = textwrap.fill(" ".join(introduction.split()), 120, break_long_words=False, break_on_hyphens=False)
    return "\n".join([f"# {title}", "", NOTE, text, "", *body]).rstrip() + "\n"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    head = list(head)
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---" for _ in head) + " |"
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
    yield ""


def documentation(thing: Any) -> str:
    return inspect.cleandoc(thing.__doc__ or "")


# -- passes ----------------------------------------------------------------------------------------------------------
def passes() -> str:
    body = ["## Pipelines", "", *table(("name", "stands for"), ((f"`{n}`", f"`{t}`") for n, t in PIPELINES.items()))]
    for name in built_in(pass_names()):
        kind = find_pass(name)
        body += [f"## `{name}`", "", documentation(kind), ""]
        if kind.requires_target:
            body += ["Asks the target.", ""]
        options = option_fields(kind)
        hints = inspect.get_annotations(kind, eval_str=True) if options else {}
        rows = [(f"`{key}`", describe_kind(hints.get(f.name, f.type)), f"`{default(f)}`") for key, f in options.items()]
        body += table(("option", "is", "default"), rows) if rows else []
    introduction = (
        "Options are given in braces: `prune-channels{ratio=0.2,keep=[stem,head]}`. `mluc list passes` prints the "
        "same list with the passes of installed plugins."
    )
    return page("Passes", introduction, body)


def built_in(names: Iterable[str]) -> list[str]:
    """Without the passes of plugins that happen to be installed."""
    return [n for n in names if find_pass(n).__module__.partition(".")[0] in ("passes", "targets")]


def default(field: dataclasses.Field) -> str:
    if field.default is dataclasses.MISSING:
        return "required"
    value = field.default
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return "[]" if value == () else '""' if value == "" else str(value)


# -- ops -------------------------------------------------------------------------------------------------------------
def ops() -> str:
    families: dict[str, list[type[Op]]] = defaultdict(list)
    for name, kind in load_all_families().items():
        families[name.partition(".")[0]].append(kind)
    body = []
    for family, kinds in families.items():
        body += [f"## `{family}.`", ""]
        for kind in sorted(kinds, key=lambda k: k.signature.name):
            body += one_op(kind)
    introduction = (
        "The IR's ops, by family. Operands in brackets are optional; `*` takes any number. Attributes equal to "
        "their default are not printed. The `mlu.` ops are what the chip can do; they exist after `legalize`."
    )
    return page("Ops", introduction, body)


def one_op(kind: type[Op]) -> Iterator[str]:
    signature = kind.signature
    operands = ", ".join(
        f"*{o.name}" if o.variadic else f"[{o.name}]" if o.optional else o.name for o in signature.operands
    )
    results = ", ".join(f"*{r.name}" if getattr(r, "variadic", False) else r.name for r in signature.results)
    yield f"### `{signature.name}({operands})" + (f" → {results}`" if results else "`")
    yield ""
    yield inspect.cleandoc(signature.doc)
    yield ""
    if signature.attributes:
        listed = (f"`{name}`" + attribute_default(a) for name, a in signature.attributes.items())
        yield "Attributes: " + ", ".join(listed) + "."
        yield ""


def attribute_default(attribute: Any) -> str:
    value = getattr(attribute, "default", None)
    plain = isinstance(value, bool | int | float | str | tuple)
    return f" = `{list(value) if isinstance(value, tuple) else value}`" if plain else ""


# -- instructions ----------------------------------------------------------------------------------------------------
def instructions() -> str:
    body = []
    for opcode, kind in sorted(INSTRUCTIONS.items()):
        body += [f"## `{kind.name}` — {opcode:#04x}, {kind.unit.name} unit", "", documentation(kind), ""]
        rows = []
        for name, field in kind.fields.items():
            word = kind.layout[name]
            place = f"{word - field.words + 1}–{word}" if field.words > 1 else str(word)
            rows.append((place, f"`{name}`", field_text(field)))
        body += table(("word", "field", "is"), rows)
        if kind.rules:
            body += ["Refused:", "", *(f"* {re.sub('[{}]', '', rule.message)}" for rule in kind.rules), ""]
    introduction = (
        "An instruction is a row of 32 little-endian int32 words: word 0 the opcode, then the fields, then zeros. "
        "`near` addresses are bytes into a memory of the executing core; `far` addresses are a space and a byte "
        "offset. The encoding is mluc's own; what the instructions do follows the vendor's documented BANG C "
        "builtins, named in parentheses."
    )
    return page("Instructions", introduction, body)


def field_text(field: Any) -> str:
    """What a field may hold."""
    if field.kind == "near":
        text = f"address in {space_name(field.space)}"
    elif field.kind == "far":
        text = "space and address"
    elif field.kind == "enum":
        text = ", ".join(f"{choice.name} = {choice.value}" for choice in field.choices)
    elif field.kind == "f32":
        text = "fp32 bits"
    else:
        text = f"{field.low} to {field.high}" if field.high < 2**24 else f"at least {field.low}"
    return text + (f"; {field.doc}" if field.doc else "")


# -- boards ----------------------------------------------------------------------------------------------------------
TAGS = "C confirmed by a primary source, C2 second-hand, I inferred from published figures, U unknown and assumed here."


def boards() -> str:
    body = []
    for name in board_names():
        board = load_board(name)
        body += [f"## `{name}`: {board.title}", ""]
        rows = ((row[0], board_value(board, row[0]), *row[2:]) for row in board.describe())
        body += table(("", "value", "rests on", "source"), rows)
    introduction = (
        "The numbers behind every latency and energy figure, and what each rests on: " + TAGS + " They are "
        "`targets/mlu220/boards/*.toml`; `--board FILE.toml` takes a board of your own, whose numbers the offline "
        "model then holds."
    )
    return page("Boards", introduction, body)


def board_value(board: Any, name: str) -> str:
    value = getattr(board, name)
    number = f"{int(value):,}" if value == int(value) else f"{value:g}"
    return f"{number} {board.basis[name].unit}".rstrip()


# -- ONNX operators --------------------------------------------------------------------------------------------------
FIGURES = DOCS.parent / "tests" / "conformance" / "onnx_operators.json"


def operators() -> str:
    from compiler.frontend.onnx import registry

    registry.load_converters()
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    domains: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for (domain, name), rows in registry.CONVERTERS.items():
        made = sorted(set().union(*(ops_made_by(converter, name) for _, converter in rows)))
        domains[domain][name] = (versions(rows), ", ".join(f"`{o}`" for o in made) or "—")
    for full, row in figures.items():
        domain, _, name = full.rpartition(".")
        if row["passed"] and not full.startswith("("):
            domains[domain].setdefault(name, ("any", "ONNX's own body of it"))
    body = [*conformance(figures), ""]
    for domain, known in sorted(domains.items()):
        rows = [
            (name, *known[name], *counted(figures.get(f"{domain}.{name}" if domain else name), known[name][1]))
            for name in sorted(known)
        ]
        head = ("operator", "from opset", "its converter uses", "runs on", "cases passed", "failed", "out of scope")
        body += [f"## {domain or 'ai.onnx'}", "", *table(head, rows)]
    return page("Supported ONNX operators", OPERATORS_INTRODUCTION, body)


def conformance(figures: dict[str, Any]) -> Iterator[str]:
    """The share of ONNX's own cases that pass, those that do not, and what is out of scope."""
    passed, failed = sum(r["passed"] for r in figures.values()), sum(len(r["failed"]) for r in figures.values())
    yield f"**{passed} of ONNX's {passed + failed} cases in scope pass: {passed / (passed + failed):.2%}.**"
    yield ""
    networks = [(name.strip("()"), r["passed"], len(r["failed"])) for name, r in figures.items() if name[0] == "("]
    yield from table(("cases of whole networks", "passed", "failed"), sorted(networks))
    outside: Counter[str] = Counter()
    for row in figures.values():
        outside.update(row["out"])
    yield from table(("out of scope", "cases"), sorted(outside.items()))
    wrong = [(name, full, why) for full, r in figures.items() for name, why in r["failed"].items()]
    if wrong:
        yield from table(("case that fails", "operator", "why"), sorted(wrong))
    never = sorted(n for n, r in figures.items() if not r["passed"] and not r["failed"] and n[0] != "(")
    yield "Operators whose cases are all out of scope: " + ", ".join(never) + "."


def counted(row: dict[str, Any] | None, made: str) -> tuple[str, ...]:
    """Where the operator runs, and its cases; what has no case goes by the ops its converter uses."""
    if row is None:
        names = re.findall(r"`(.*?)`", made)
        return (place(names), "—", "—", "—")
    best = next((p for p in PLACES if row["places"].get(p)), "—")
    outside = ", ".join(f"{count} {why}" for why, count in sorted(row["out"].items()))
    return (best, str(row["passed"]), str(len(row["failed"])), outside or "—")


PLACES = ("MLU integer", "MLU float", "MLU and host", "host", "folded")
"""Places in the order in which the best one is shown."""

OPERATORS_INTRODUCTION = """
What imports, the IR ops its converter uses, where those run, and what became of ONNX's own test cases (`python
tests/conformance/onnx_cases.py` runs them all and writes this page). *Runs on* is the target's answer for the case that
suits it best: *MLU integer*: on the matrix unit, in INT8 or INT16, once quantised; *MLU float*: on the vector unit, or
moved there; *MLU and host*: some of its ops have no instruction; *host*: none has, the node runs in NumPy between two
parts on the chip; *folded*: it is gone after import. Other element types and ranks than a case's run on the host, and
convolutions and products that stay in float do too: `mluc lint MODEL` says of every node where it runs, and why. An
operator without a converter that ONNX defines as a function of others is expanded; whatever else is met is reported,
all at once, with the nodes' names. Several opsets: the operator's meaning changed there.
"""


def versions(rows: list[tuple[int, Any]]) -> str:
    """From the first opset on that a converter covers, and those at which another one takes over."""
    from compiler.frontend.onnx.reader import OLDEST_OPSET

    starts = [max(since, OLDEST_OPSET) for since, _ in rows]
    return ", ".join(str(s) for s in dict.fromkeys(starts))


def place(made: list[str]) -> str:
    """Where ops run, by whether the target has rules for them."""
    if not made:
        return "folded"
    on_chip = [name in LEGALIZERS for name in made]
    products = any(name in ("nn.conv2d", "nn.conv_transpose2d", "nn.matmul") for name in made)
    whole = "MLU integer" if products else "MLU float"
    return whole if all(on_chip) else "MLU and host" if any(on_chip) else "host"


def ops_made_by(converter: Callable[..., Any], operator: str) -> set[str]:
    """Names of the ops a converter's code mentions, directly, in a table under the operator's name, or in helpers."""
    found: set[str] = set()
    waiting: list[Any] = [inspect.unwrap(converter)]
    seen: set[Any] = set()
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, dict):
            thing = thing.get(operator)
        if isinstance(thing, tuple | list):
            waiting += thing
        elif isinstance(thing, type) and issubclass(thing, Op):
            found |= {thing.signature.name} if hasattr(thing, "signature") else set()
        elif isinstance(thing, types.FunctionType) and thing not in seen and _is_ours(thing):
            seen.add(thing)
            waiting += mentioned(thing.__code__, thing.__globals__)
            waiting += [cell.cell_contents for cell in thing.__closure__ or ()]
    return found


def _is_ours(function: types.FunctionType) -> bool:
    return function.__module__.startswith("compiler.frontend")


def mentioned(code: types.CodeType, names: dict[str, Any]) -> Iterator[Any]:
    """Globals that code loads, and attributes of modules."""
    base: Any = None
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_GLOBAL":
            base = names.get(str(instruction.argval))
            yield base
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and isinstance(base, types.ModuleType):
            yield getattr(base, str(instruction.argval), None)
            base = None
        else:
            base = None
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from mentioned(constant, names)


# -- torch's operators -----------------------------------------------------------------------------------------------
def aten() -> str:
    from compiler.frontend.aten import registry

    registry.load_converters()
    refused = sorted(n for n, row in registry.ATEN.items() if row.refuses)
    families: dict[str, list[str]] = defaultdict(list)
    for name in sorted(registry.ATEN.keys() - set(refused)):
        families[registry.ATEN[name].function.__module__.rpartition(".")[2]].append(name)
    told = ", ".join(f"`{n}`" for n in refused)
    summary = f"**{len(registry.ATEN) - len(refused)} operators.** Refused with a reason: {told}."
    body = [*textwrap.wrap(summary, 120, break_on_hyphens=False), ""]
    for family, names in sorted(families.items()):
        title = (sys.modules[f"compiler.frontend.aten.{family}"].__doc__ or "").partition("\n")[0]
        rows = []
        for name in names:
            function = registry.ATEN[name].function
            base = name.rpartition("::")[2].partition(".")[0]
            made = sorted(aten_ops_made_by(function, base))
            note = (function.__doc__ or "").strip().partition("\n")[0]
            rows.append((f"`{name}`", ", ".join(f"`{o}`" for o in made) or "—", place(made) if made else "—", note))
        body += [f"## {family}", "", title, "", *table(("operator", "its converter uses", "runs on", "note"), rows)]
    return page("Supported operators of torch", ATEN_INTRODUCTION, body)


def aten_ops_made_by(function: Callable[..., Any], base: str, depth: int = 3) -> set[str]:
    """As `ops_made_by`, and what rows use that the converter calls by their names."""
    from compiler.frontend.aten import registry

    found = ops_made_by(function, base)
    for constant in inspect.unwrap(function).__code__.co_consts if depth else ():
        if isinstance(constant, str) and constant in registry.ATEN:
            found |= aten_ops_made_by(registry.ATEN[constant].function, constant.rpartition("::")[2], depth - 1)
    return found


ATEN_INTRODUCTION = """
What imports from TorchScript (`.pt`, `.jit`, `.ptl`) and torch.export (`.pt2`): torch's operators, the IR ops their
converters use, and where those run: *MLU integer*: on the matrix unit, once quantised; *MLU float*: on the vector unit,
or moved there; *MLU and host*: some of them have no instruction; *host*: none has. A name stands for all its overloads,
and for the form that writes in place (`aten::relu_`). Core ATen and the operators of training are covered alike, but
for complex numbers, random draws and gradients. Whatever else is met is reported, all at once, with the nodes' names.
"""


# -- all of them -----------------------------------------------------------------------------------------------------
PAGES: dict[str, Callable[[], str]] = {
    "passes.md": passes, "ops.md": ops, "instructions.md": instructions, "boards.md": boards,
    "supported-operators.md": operators, "supported-aten-operators.md": aten,
}  # fmt: skip


def outdated() -> list[str]:
    """Pages that are not what the code says."""
    return [
        name for name, make in PAGES.items()
        if not (DOCS / name).is_file() or (DOCS / name).read_text(encoding="utf-8") != make()
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page is out of date")
    if parser.parse_args().check:
        stale = outdated()
        print("\n".join(f"docs/{name} is out of date: python docs/generate.py" for name in stale))
        return 1 if stale else 0
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
