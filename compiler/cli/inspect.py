"""Say what a file holds: inputs and outputs, functions, sizes. Takes models, IR files and offline models."""

from __future__ import annotations

import argparse
from typing import Any

from compiler.cli import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.model_arguments(parser, "model, .mlu or .cambricon")
    arguments.json_argument(parser)


def run(args: argparse.Namespace) -> int:
    facts = _offline(args) if args.model.suffix == ".cambricon" else _module(args)
    if args.json:
        arguments.print_json(facts)
        return 0
    for key, value in facts.items():
        if isinstance(value, list):
            print(f"{key}:")
            for item in value:
                print("  " + (", ".join(f"{k} {v}" for k, v in item.items()) if isinstance(item, dict) else str(item)))
        elif isinstance(value, dict):
            print(f"{key}: " + ", ".join(f"{k} {v}" for k, v in value.items()))
        else:
            print(f"{key}: {value}")
    return 0


def _offline(args: argparse.Namespace) -> dict[str, Any]:
    from targets.mlu220.container import OfflineModel

    model = OfflineModel.load(args.model)

    def record(r: Any) -> dict[str, Any]:
        facts = {
            "name": r.name, "shape": "x".join(map(str, r.shape)), "dtype": r.dtype, "layout": r.layout,
            "device": "x".join(map(str, r.device_shape)),
        }  # fmt: skip
        return facts | ({"preprocessing": dict(r.preprocessing)} if r.preprocessing else {})

    device = [
        {"name": f.name, "instructions": [len(p) for p in f.programs], "workspace": f.workspace}
        for f in model.device_functions
    ]

    return {
        "file": str(args.model), "kind": "offline model (runs on mluc's simulator, not on a card)",
        "board": model.board, "cores": model.cores, "rounding": model.rounding,
        "constant_bytes": int(model.constants.size),
        "inputs": [record(r) for r in model.inputs], "outputs": [record(r) for r in model.outputs],
        "functions": [*device, *({"name": f.name, "on": "host"} for f in model.host_functions)],
        "steps": [f"{s.function}({', '.join(s.inputs)}) -> {', '.join(s.outputs)}" for s in model.steps],
        "metadata": model.metadata,
    }  # fmt: skip


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
