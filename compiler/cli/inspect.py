"""Say what a file holds: inputs and outputs, functions, sizes. Takes models, IR files and offline models."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from compiler.cli import arguments
from compiler.errors import error

FILES = {"model": arguments.MODEL_OR_OFFLINE}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.model_arguments(parser, "model, IR file (.mlu) or offline model (.cambricon)")
    parser.add_argument("--scheme", action="store_true", help="print the scheme an offline model was made with")
    arguments.json_argument(parser)


def run(args: argparse.Namespace) -> int:
    offline = args.model.suffix == ".cambricon"
    _check(args, offline)
    if args.scheme:
        return _print_scheme(args)
    facts = _offline(args) if offline else _module(args)
    if args.json:
        arguments.print_json(facts)
        return 0
    for key, value in facts.items():
        if isinstance(value, list):
            print(f"{key}:")
            for item in value:
                print("  " + (", ".join(map(_told, item, item.values())) if isinstance(item, dict) else str(item)))
        elif isinstance(value, dict):
            print(f"{key}:" + "".join(f"\n  {k}: {v}" for k, v in value.items()))
        else:
            print(f"{key}: {value}")
    return 0


def _check(args: argparse.Namespace, offline: bool) -> None:
    where = str(args.model)
    if args.scheme and not offline:
        raise error("E102", "--scheme prints what an offline model was made with, and this is none", where=where)
    if offline and (args.shape or args.bind):
        raise error("E102", "--shape and --bind are for models; an offline model has its shapes", where=where)


def _told(key: str, value: Any) -> str:
    """A field of a line; what speaks for itself without its name."""
    if key in ("name", "why"):
        return str(value)
    shown = f"{value:.2f}" if isinstance(value, float) else f"{value:,}" if key in _BYTES else value
    return f"{key.replace('_', ' ')} {shown}"


_BYTES = ("inputs", "outputs", "workspace", "lower_bound")


def _offline(args: argparse.Namespace) -> dict[str, Any]:
    from targets.mlu220.container import OfflineModel
    from targets.mlu220.hardware import BOARD_NUMBERS

    model = OfflineModel.load(args.model)

    def record(r: Any) -> dict[str, Any]:
        facts = {
            "name": r.name, "shape": "x".join(map(str, r.shape)), "dtype": r.dtype, "layout": r.layout,
            "device": "x".join(map(str, r.device_shape)),
        }  # fmt: skip
        return facts | ({"preprocessing": dict(r.preprocessing)} if r.preprocessing else {})

    device = [{"name": f.name, "instructions": [len(p) for p in f.programs]} for f in model.device_functions]
    made = dict(model.metadata)
    reasons = made.pop("host_reasons", {})
    planned = made.pop("memory", {})
    own = " (of its own, its numbers are in the file)" if made.pop(BOARD_NUMBERS, None) else ""
    if "scheme" in made:
        made["scheme"] = f"{made['scheme'].count(chr(10))} lines, printed by --scheme"
    host = [
        {"name": f.name, "on": "host"} | ({"why": "; ".join(reasons[f.name])} if f.name in reasons else {})
        for f in model.host_functions
    ]

    return {
        "file": str(args.model), "kind": "offline model (runs on mluc's simulator, not on a card)",
        "board": model.board + own, "cores": model.cores, "rounding": model.rounding,
        "constant_bytes": int(model.constants.size),
        "inputs": [record(r) for r in model.inputs], "outputs": [record(r) for r in model.outputs],
        "functions": [*device, *host],
        "memory": [_memory(f, planned.get(f.name)) for f in model.device_functions],
        "steps": [f"{s.function}({', '.join(s.inputs)}) -> {', '.join(s.outputs)}" for s in model.steps],
        "metadata": made,
    }  # fmt: skip


def _memory(function: Any, planned: dict[str, int] | None) -> dict[str, Any]:
    """Bytes a subnet needs off the chip, and the plan of its workspace beside the least that any plan needs."""
    facts = {
        "name": function.name, "inputs": sum(r.bytes for r in function.inputs),
        "outputs": sum(r.bytes for r in function.outputs), "workspace": function.workspace,
    }  # fmt: skip
    if planned is None:
        return facts
    least = planned["workspace_lower_bound"]
    return facts | {"lower_bound": least, "ratio": function.workspace / least if least else 1.0}


def _print_scheme(args: argparse.Namespace) -> int:
    from targets.mlu220.container import OfflineModel

    text = OfflineModel.load(args.model).metadata.get("scheme")
    if text is None:
        raise error("E104", "the file was made without a scheme", where=str(args.model))
    if args.json:
        arguments.print_json({"scheme": text})
    else:
        sys.stdout.write(text)
    return 0


def _module(args: argparse.Namespace) -> dict[str, Any]:
    from compiler.frontend.lint import state_notes
    from compiler.instruments import count_ops
    from compiler.ir.printer import type_text

    module = arguments.load_model(args)
    constants = module.constants.values()
    results = zip(module.main.output_names, module.main.outputs, strict=True)
    return {
        "file": str(args.model), "kind": "module",
        "inputs": [{"name": a.name, "type": type_text(a.type)} for a in module.main.arguments],
        "outputs": [{"name": name, "type": type_text(value.type)} for name, value in results],
        "functions": list(module.functions), "ops": count_ops(module),
        "constants": len(module.constants), "constant_bytes": sum(c.data.nbytes for c in constants),
        **({"state": notes} if (notes := state_notes(module)) else {}),
    }  # fmt: skip
