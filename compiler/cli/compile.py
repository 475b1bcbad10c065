"""Compile a model to an offline model (.cambricon), with its _twins text.

Calibration data are the only other input: a folder of images (with --preprocess) or a .npz file. With --scheme,
decisions made earlier are used instead. A .mlu file that was dumped after some pass is resumed with --pipeline and the
passes that remain.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from compiler.cli import arguments
from compiler.cli.compiling import Compiling, check_combination, compile_arguments
from compiler.errors import error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.model_arguments(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE.cambricon", help="the offline model to write"
    )
    compile_arguments(parser)
    parser.add_argument("--save-scheme", type=Path, metavar="Q.toml", help="write the scheme, to be read or edited")
    arguments.instrument_arguments(parser)
    arguments.json_argument(parser)


def run(args: argparse.Namespace) -> int:
    arguments.writable(args.output, ".cambricon", args.model, args.scheme)
    arguments.writable(args.save_scheme, ".toml", args.model, args.output)
    arguments.load_passes(args)
    check_combination(args)
    if args.save_scheme and not args.calibrate:
        raise error("E102", "--save-scheme needs --calibrate")
    watching = arguments.Watching(args)
    compiling = Compiling(args, watching)
    model = compiling.model(args.batch, args.cores)
    if args.save_scheme:
        compiling.scheme(None).save(args.save_scheme)
    model.save(args.output)
    arguments.tell(compiling.diagnostics)
    watching.report()
    _report(args, model, compiling.diagnostics)
    return 0


def _report(args: argparse.Namespace, model: Any, diagnostics: list[Any]) -> None:
    reasons = model.metadata.get("host_reasons", {})
    facts = {
        "output": str(args.output), "bytes": args.output.stat().st_size, "board": model.board, "cores": model.cores,
        "functions": [
            {"name": f.name, "instructions": sum(len(p) for p in f.programs)} | model.metadata["memory"][f.name]
            for f in model.device_functions
        ] + [{"name": f.name, "host": True, "reasons": reasons.get(f.name, [])} for f in model.host_functions],
        "constants": int(model.constants.size), "warnings": [d.as_dict() for d in diagnostics],
    }  # fmt: skip
    if args.json:
        arguments.print_json(facts)
        return
    print(f"{args.output}: {facts['bytes']:,} bytes, {model.cores} core{'s' * (model.cores != 1)} of {model.board}")
    for function in facts["functions"]:  # type: ignore[attr-defined]
        if function.get("host"):
            print("; ".join([f"  {function['name']}: on the host", *function["reasons"]]))
        else:
            memory = f"workspace {function['workspace']:,} bytes (lower bound {function['workspace_lower_bound']:,})"
            print(f"  {function['name']}: {function['instructions']:,} instructions, {memory}")
    print(f"  constants: {facts['constants']:,} bytes")
