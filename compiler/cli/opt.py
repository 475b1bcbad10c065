"""Run passes over a model or an IR file and print, or write, the IR.

Dump between passes with --dump-ir, stop with --stop-after, load a pass of your own with --load-pass.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from compiler.cli import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.model_arguments(parser)
    parser.add_argument("-p", "--passes", default="", metavar="'a,b{x=1}'", help="the pipeline, as text")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.mlu", help="write the IR there (default: print it)")
    parser.add_argument("--inline-constants", action="store_true", help="write every constant into the text")
    parser.add_argument("--stop-after", metavar="PASS", help="stop after this pass (PASS#2: its second run)")
    parser.add_argument("--scheme", type=Path, metavar="Q.toml", help="the scheme for the pass quantize")
    arguments.target_arguments(parser)
    arguments.instrument_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from compiler.ir.constants import write_module
    from compiler.ir.printer import print_module
    from compiler.pass_manager import PassContext, run_pipeline
    from compiler.target import load_target

    arguments.writable(args.output, ".mlu", args.model, args.scheme)
    arguments.load_passes(args)
    arguments.check_scheme_is_used(args.scheme, args.passes)
    watching = arguments.Watching(args)
    module = arguments.load_model(args)
    ctx = PassContext(
        target=load_target("mlu220", board=args.board, cores=args.cores), statistics=watching.statistics,
        options={"scheme": str(args.scheme)} if args.scheme else {},
    )  # fmt: skip
    module = run_pipeline(
        module, args.passes, ctx=ctx, stop_after=args.stop_after, instruments=watching.instruments,
        verify_each=not args.no_verify_each,
    )  # fmt: skip
    arguments.tell(ctx.diagnostics)
    if args.output is not None:
        write_module(module, args.output, inline=args.inline_constants)
    else:
        sys.stdout.write(print_module(module, inline_constants=args.inline_constants))
    watching.report()
    return 0
