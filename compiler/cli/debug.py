"""Find what went wrong.

`replay` runs a reproducer file again; `bisect` searches the pass, then the single rewrite, after which a command of
yours says that the IR is bad.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from compiler.cli import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", required=True, metavar="replay|bisect")
    replay = verbs.add_parser("replay", help="run a reproducer again")
    replay.add_argument("file", type=Path, metavar="CRASH.mlu")
    arguments.instrument_arguments(replay)
    bisect = verbs.add_parser("bisect", help="find the pass and the rewrite that broke a result")
    arguments.model_arguments(bisect)
    bisect.add_argument("-p", "--passes", required=True, metavar="'a,b{x=1}'", help="the pipeline, as text")
    bisect.add_argument(
        "--check", required=True, metavar="CMD", help="command that takes an IR file ({} or at the end); 0 is good"
    )
    bisect.add_argument("--directory", type=Path, default=Path("bisect"), help="where IR files go (default: bisect)")
    bisect.add_argument("--scheme", type=Path, metavar="Q.toml", help="the scheme for the pass quantize")
    arguments.load_pass_argument(bisect)
    arguments.target_arguments(bisect)


def run(args: argparse.Namespace) -> int:
    return _replay(args) if args.what == "replay" else _bisect(args)


def _replay(args: argparse.Namespace) -> int:
    from compiler.bisect import replay

    arguments.load_passes(args)
    watching = arguments.Watching(args)
    module = replay(args.file, instruments=watching.instruments, verify_each=not args.no_verify_each)
    watching.report()
    print(f"{args.file}: the pipeline runs through, {sum(1 for _ in module.ops())} ops")
    return 0


def _bisect(args: argparse.Namespace) -> int:
    from compiler.bisect import bisect
    from compiler.target import load_target

    arguments.load_passes(args)
    module = arguments.load_model(args)
    culprit = bisect(
        module, args.passes, args.check, target=load_target("mlu220", board=args.board, cores=args.cores),
        options={"scheme": str(args.scheme)} if args.scheme else {}, directory=args.directory,
        tell=lambda text: print(text, file=sys.stderr),
    )  # fmt: skip
    print(culprit)
    return 0
