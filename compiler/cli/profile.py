"""Say what an offline model costs on the modelled chip: cycles by unit and kernel, bytes by memory, latency, energy.

MODEL is an offline model, or a model that is compiled for its figures: with --calibrate or --scheme as compile does it,
without either with made-up ranges, which hardly change a figure. --sweep compiles a model for several batches or
numbers of cores and compares them. The figures are analytical, from the board's data file; every report names their
basis.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from compiler.cli import arguments
from compiler.cli.compiling import Compiling, check_combination, compile_arguments
from compiler.cli.sweep import axis, rows_of, sweep_text
from compiler.errors import Diagnostic, error

OFFLINE = ".cambricon"
TOP = 10
FILES = {"model": arguments.MODEL_OR_OFFLINE}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.model_arguments(parser, "offline model (.cambricon), or a model or IR file to compile")
    parser.add_argument(
        "--top", type=arguments.count, metavar="N",
        help=f"kernels to show, the longest first (default: {TOP}; --json: all, in order)",
    )  # fmt: skip
    parser.add_argument(
        "--trace", type=Path, metavar="T.json", help="write a timeline for Perfetto or chrome://tracing"
    )
    parser.add_argument("--html", type=Path, metavar="R.html", help="write the report as a page")
    parser.add_argument(
        "--sweep", action="append", default=[], type=axis, metavar="cores=1,2,4",
        help="compile for each of several numbers of cores, or batch=1,2,4,8; both may be given",
    )  # fmt: skip
    before = {action.dest for action in parser._actions} - {"shape", "bind"}
    compile_arguments(parser)
    arguments.load_pass_argument(parser)
    arguments.json_argument(parser)
    own = [a.dest for a in parser._actions if a.dest not in before | {"json"}]
    parser.set_defaults(how_to_compile=own)


def run(args: argparse.Namespace) -> int:
    arguments.writable(args.trace, ".json", args.model)
    arguments.writable(args.html, ".html", args.model, args.trace)
    _check(args)
    arguments.load_passes(args)
    if args.sweep:
        return _sweep(args)
    report = _profile(args)
    title = f"{args.model.name} on {report.board.title}"
    if args.trace is not None:
        from runtime.trace import write_trace

        write_trace(report, args.trace)
        print(f"{args.trace}: open it at https://ui.perfetto.dev or chrome://tracing", file=sys.stderr)
    if args.html is not None:
        from compiler.report.html import profile_page, write_page

        write_page(profile_page(report, title), args.html)
    if args.json:
        arguments.print_json(_facts(report, args.top))
    else:
        print(report.text(args.top or TOP))
    return 0


def _facts(report: Any, top: int | None) -> dict[str, Any]:
    """The report as plain data: all kernels as they run, or the `top` longest."""
    facts = report.as_dict()
    for function in facts["functions"] if top is not None else ():
        function["kernels"] = sorted(function["kernels"], key=lambda kernel: -kernel["cycles"])[:top]
    return facts


def _check(args: argparse.Namespace) -> None:
    """An offline model is what it is: how to compile says nothing about it, and it cannot be swept."""
    if args.model.suffix != OFFLINE:
        check_combination(args)
        if args.preprocess and args.input_type != "uint8" and not os.path.isdir(args.calibrate or ""):
            raise error("E102", "--preprocess has an effect with --input-type uint8, or on a folder of images only")
        for option in ("trace", "top"):
            if args.sweep and getattr(args, option) is not None:
                raise error("E102", f"--{option} is of one compilation, --sweep makes several")
        _check_axes(args)
        return
    if args.sweep:
        raise error(
            "E102", "an offline model is made for one batch and number of cores, which --sweep would change",
            where=str(args.model), help="give the model it was made of: mluc profile MODEL.onnx --sweep …",
        )  # fmt: skip
    given = [name for name in args.how_to_compile if name in args.given]
    if given:
        told = ", ".join("--" + name.replace("_", "-") for name in given)
        raise error(
            "E102", f"{told}: says how to compile, and the file is compiled already", where=str(args.model),
            help="leave it out, or give the model the file was made of",
        )  # fmt: skip


def _check_axes(args: argparse.Namespace) -> None:
    names = [name for name, _ in args.sweep]
    for name in names:
        if name in args.given:
            raise error("E102", f"--sweep {name} says all values of --{name}", help=f"leave out --{name}")
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice:
        raise error("E102", f"--sweep {twice} is given twice", help=f"give all values at once: --sweep {twice}=1,2,4")


def _profile(args: argparse.Namespace) -> Any:
    from runtime.profile import profile
    from targets.mlu220.container import OfflineModel
    from targets.mlu220.hardware import board_of

    if args.model.suffix == OFFLINE:
        model = OfflineModel.load(args.model)
    else:
        compiling = _compiling(args)
        model = compiling.model(args.batch, args.cores)
        arguments.tell(compiling.diagnostics)
    return profile(model, board_of(model))


def _compiling(args: argparse.Namespace) -> Compiling:
    compiling = Compiling(args, pretend=True)
    compiling.check()
    if not args.calibrate and args.scheme is None and args.pipeline is None and not compiling.is_quantised():
        message = "no --calibrate and no --scheme: ranges are made up, which a few conversions may depend on"
        arguments.tell([Diagnostic(code="E118", severity="note", message=message, where=str(args.model))])
    return compiling


def _sweep(args: argparse.Namespace) -> int:
    rows = rows_of(args, _compiling(args))
    if args.html is not None:
        from compiler.report.html import sweep_page, write_page

        write_page(sweep_page(rows, f"{args.model.name} on {args.board}"), args.html)
    if args.json:
        arguments.print_json({"model": str(args.model), "board": args.board, "rows": rows})
    else:
        print(sweep_text(args.model.name, args.board, rows))
    return 0
