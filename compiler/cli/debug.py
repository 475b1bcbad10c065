"""Find what went wrong.

`replay` runs a reproducer file again; `bisect` searches the pass, then the single rewrite, after which a command of
yours says that the IR is bad; `reduce` searches the smallest part of a module of which it says so.

The command gets an IR file (in place of {}, or at its end) and exits with 0 where all is well.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import Any

from compiler.cli import arguments
from compiler.errors import error
from compiler.files import IR

FILES = {"file": IR}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", required=True, metavar="replay|bisect|reduce")
    replay = verbs.add_parser("replay", help="run a reproducer again", description="Run a reproducer again.")
    replay.add_argument("file", type=Path, metavar="CRASH.mlu", help="the file that was written at the crash")
    arguments.instrument_arguments(replay)
    bisect = verbs.add_parser(
        "bisect", help="find the pass and the rewrite that broke a result",
        description="Find the pass, then the single rewrite, after which --check fails, and show what it changed.",
    )  # fmt: skip
    arguments.model_arguments(bisect)
    bisect.add_argument("-p", "--passes", required=True, metavar="'a,b{x=1}'", help="the pipeline, as text")
    _judge_arguments(bisect, "bisect")
    bisect.add_argument("--scheme", type=Path, metavar="Q.toml", help="the scheme for the pass quantize")
    arguments.load_pass_argument(bisect)
    arguments.target_arguments(bisect)
    arguments.json_argument(bisect)
    reduce = verbs.add_parser(
        "reduce", help="find the smallest part of a module that still fails",
        description="Find the smallest part of a module of which --check still says that it is bad.",
    )  # fmt: skip
    arguments.model_arguments(reduce)
    _judge_arguments(reduce, "reduce")
    reduce.add_argument(
        "--data", metavar="NPZ", help="inputs: each IR file then has a .npz file of the same name with its inputs"
    )
    reduce.add_argument("-o", "--output", type=Path, metavar="FILE.mlu", help="also write what is left there")
    arguments.json_argument(reduce)
    for verb in (replay, bisect, reduce):  # also where people put it: behind the verb
        verb.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _judge_arguments(parser: argparse.ArgumentParser, folder: str) -> None:
    parser.add_argument(
        "--check", required=True, metavar="CMD",
        help="command, run without a shell, that takes an IR file in place of {} or at its end; 0 is good",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=arguments.seconds, metavar="S",
        help="seconds after which the command counts as failed (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--directory", type=Path, default=Path(folder), metavar="DIR", help=f"where IR files go (default: {folder})"
    )


def run(args: argparse.Namespace) -> int:
    return {"replay": _replay, "bisect": _bisect, "reduce": _reduce}[args.what](args)


def _replay(args: argparse.Namespace) -> int:
    from compiler.bisect import replay

    arguments.load_passes(args)
    watching = arguments.Watching(args)
    module = replay(
        args.file, instruments=watching.instruments, statistics=watching.statistics,
        verify_each=not args.no_verify_each,
    )  # fmt: skip
    watching.report()
    print(f"{args.file}: the pipeline runs through, {sum(1 for _ in module.ops())} ops")
    return 0


def _bisect(args: argparse.Namespace) -> int:
    from compiler.bisect import Command, bisect
    from compiler.target import load_target

    arguments.load_passes(args)
    arguments.check_scheme_is_used(args.scheme, args.passes)
    arguments.make_folder(args.directory)
    judge = Command(args.check, args.timeout)
    module = arguments.load_model(args)
    culprit = bisect(
        module, args.passes, judge, target=load_target("mlu220", board=args.board, cores=args.cores),
        options={"scheme": str(args.scheme)} if args.scheme else {}, directory=args.directory, tell=_tell,
    )  # fmt: skip
    if args.json:
        arguments.print_json(vars(culprit))
        return 0
    print(culprit)
    if not culprit.failure:
        print(_changes(culprit.good, culprit.bad))
    return 0


def _changes(good: Path, bad: Path, most: int = 30) -> str:
    """What differs between two IR files, long lines cut."""
    before, after = (path.read_text(encoding="utf-8").splitlines() for path in (good, bad))
    lines = list(difflib.unified_diff(before, after, str(good), str(bad), lineterm="", n=1))
    shown = [line if len(line) <= 160 else line[:157] + "..." for line in lines[:most]]
    return "\n".join([*shown, *([f"... {len(lines) - most} more lines"] if len(lines) > most else [])])


def _reduce(args: argparse.Namespace) -> int:
    from compiler.bisect import Command
    from compiler.ir.constants import write_module
    from compiler.ir.printer import print_module
    from compiler.reduce import reduce

    arguments.writable(args.output, ".mlu", args.model)
    arguments.make_folder(args.directory)
    judge = Command(args.check, args.timeout)
    module = arguments.load_model(args)
    reduced = reduce(module, judge, inputs=_first_sample(args, module), directory=args.directory, tell=_tell)
    if args.output is not None:
        write_module(reduced.module, args.output)
    if args.json:
        facts = {"ops": reduced.ops, "ops_before": reduced.ops_before, "judgements": reduced.judgements}
        arguments.print_json({**facts, "file": reduced.path})
        return 0
    print(print_module(reduced.module))
    print(reduced, file=sys.stderr)
    return 0


def _first_sample(args: argparse.Namespace, module: Any) -> Any:
    if args.data is None:
        return None
    samples = arguments.open_data(args.data, arguments.inputs_of(module), limit=1)
    try:
        return next(iter(samples))
    except StopIteration:
        raise error("E113", "there are no samples", where=str(args.data)) from None


def _tell(text: str) -> None:
    print(text, file=sys.stderr)
