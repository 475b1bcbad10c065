"""List what mluc knows: passes, pipelines, ops, boards, calibrators, instructions, or operators of models."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from compiler.cli import arguments

Rows = list[dict[str, str]]


def _passes() -> Rows:
    from compiler.pass_manager import find_pass, option_fields, pass_names

    rows = []
    for name in pass_names():
        kind = find_pass(name)
        rows.append({"name": name, "options": ", ".join(option_fields(kind)), "summary": kind.summary()})
    return rows


def _pipelines() -> Rows:
    from compiler.pass_manager import PIPELINES

    return [{"name": name, "summary": text} for name, text in PIPELINES.items()]


def _ops() -> Rows:
    from compiler.ir.define import load_all_families

    families = load_all_families()
    return [{"name": name, "summary": kind.signature.doc.partition("\n")[0]} for name, kind in families.items()]


def _boards() -> Rows:
    from targets.mlu220.hardware import board_names, load_board

    boards = [(name, load_board(name)) for name in board_names()]
    return [{"name": name, "summary": f"{board.title}, {board.clock_hz / 1e6:g} MHz"} for name, board in boards]


AUTO = "tries those marked * and keeps the one whose outputs are nearest to the float network's; the default"


def _calibrators() -> Rows:
    from passes.quantization.observers import METHODS
    from passes.quantization.trials import CANDIDATES

    told = {name: method.summary + " *" * (name in CANDIDATES) for name, method in METHODS.items()}
    return [{"name": name, "summary": text} for name, text in {"auto": AUTO, **told}.items()]


def _instructions() -> Rows:
    from targets.mlu220.isa import INSTRUCTIONS

    rows = []
    for opcode, kind in sorted(INSTRUCTIONS.items()):
        summary = " ".join((kind.__doc__ or "").split())
        rows.append({"name": kind.name, "summary": f"{opcode:#04x}  {kind.unit.name.lower()}  {summary}"})
    return rows


def _operators() -> Rows:
    from compiler.frontend.aten import registry as aten
    from compiler.frontend.onnx import registry as onnx

    onnx.load_converters()
    aten.load_converters()
    rows = [
        {"name": name, "summary": domain or "ONNX", "converter": found[-1][1].__name__}
        for (domain, name), found in sorted(onnx.CONVERTERS.items())
    ]
    return rows + [
        {"name": name, "summary": "torch", "converter": row.function.__name__}
        for name, row in sorted(aten.ATEN.items())
        if not row.refuses
    ]


LISTS: dict[str, Callable[[], Rows]] = {
    "passes": _passes, "pipelines": _pipelines, "ops": _ops, "boards": _boards, "calibrators": _calibrators,
    "instructions": _instructions, "operators": _operators,
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=LISTS, metavar="WHAT", help=", ".join(LISTS))
    arguments.json_argument(parser)


def run(args: argparse.Namespace) -> int:
    rows = LISTS[args.what]()
    if args.json:
        arguments.print_json(rows)
        return 0
    width = max((len(r["name"]) for r in rows), default=0)
    for row in rows:
        print(f"{row['name']:{width}}  {row['summary']}".rstrip())
        if row.get("options"):
            print(f"{'':{width}}  options: {row['options']}")
    return 0
