"""The command `mluc`: finds the verb, runs it, and turns faults into text and exit codes.

Exit codes: 0 fine, 1 a fault of the input, 2 usage, 3 a tolerance not met, 70 a crash. A verb is a module with
`add_arguments(parser)` and `run(args) -> int`, imported only when it is used, so that `mluc --help` loads nothing
heavy. Its `FILES` say which arguments name files of which kind, besides those that all verbs share.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from traceback import print_exception
from types import ModuleType

from compiler.cli.arguments import check_files
from compiler.cli.parser import Parser
from compiler.errors import CompilerError, InternalError, did_you_mean

VERBS = {
    "compile": ("compiler.cli.compile", "compile a model to an offline model (.cambricon)"),
    "run": ("compiler.cli.run", "run an offline model on the simulator"),
    "profile": ("compiler.cli.profile", "say what an offline model costs on the chip"),
    "opt": ("compiler.cli.opt", "run passes over a model or IR file"),
    "compare": ("compiler.cli.compare", "compare a model with its quantised twin, value by value"),
    "inspect": ("compiler.cli.inspect", "say what a model, IR file or offline model holds"),
    "export": ("compiler.cli.export", "write a model or IR file as ONNX"),
    "disasm": ("compiler.cli.disasm", "print the instructions of an offline model"),
    "asm": ("compiler.cli.asm", "make an offline model from a listing"),
    "lint": ("compiler.cli.lint", "list what becomes of every node, without compiling"),
    "list": ("compiler.cli.listing", "list passes, pipelines, ops, boards, calibrators, instructions or operators"),
    "debug": ("compiler.cli.debug", "replay a crash, bisect to the rewrite that broke a result, reduce to the ops"),
    "demo": ("compiler.cli.demo", "compile, run and score the network that comes with mluc"),
}
"""Verb → its module and one line of help."""

OK, FAULT, USAGE, TOLERANCE, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 70, 130
REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system says where no more can be written, or nothing at all, whatever the file: no mistake of mluc."""
NO_READER = errno.EPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    _prepare_streams()
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("mluc: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as fault:
        if fault.errno not in (*REFUSED, NO_READER):
            raise
        return _unwritten(fault)


def _unwritten(fault: OSError) -> int:
    """Tell, unless nobody is there to read it, that something cannot be written: a file, or what is printed."""
    if fault.filename is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
    if fault.errno == NO_READER:  # as of mluc list ops | head -1
        return OK
    place = f" {fault.filename}" if fault.filename is not None else ""
    print(f"mluc: cannot write{place}: {fault.strerror}", file=sys.stderr)
    return FAULT


def _prepare_streams() -> None:
    """Let closed streams swallow what is printed, and others take letters they lack: names of layers, "…"."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, it stays open as the stream would
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(words: list[str]) -> int:
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    verbs = "\n".join(f"{name:9} {text}" for name, (_, text) in VERBS.items())
    parser = Parser(
        prog="mluc", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("verb", nargs="?", metavar="VERB", help=verbs)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    try:
        chosen = parser.parse_args(words)
    except SystemExit as stop:
        return int(stop.code or 0)
    if chosen.version:
        from compiler import __version__

        print(f"mluc {__version__}")
        return OK
    if chosen.verb is None:
        parser.print_help()
        return USAGE
    if chosen.verb not in VERBS:
        help = did_you_mean(chosen.verb, VERBS)
        print(f"mluc: no verb {chosen.verb!r}; {help}\n`mluc --help` lists them", file=sys.stderr)
        return USAGE
    return _run_verb(chosen.verb, chosen.rest)


_DESCRIPTION = """From a trained network to an offline model for the Cambricon MLU220, and a bit-exact simulator for it.
The offline model is mluc's own documented format: it runs on the simulator, not on a card."""
_EPILOG = """`mluc VERB --help` explains a verb.
exit codes: 0 fine, 1 a fault of the input, 2 usage, 3 a tolerance not met, 70 a crash, of mluc or of a pass,
130 interrupted"""


def _run_verb(verb: str, words: Sequence[str]) -> int:
    place, summary = VERBS[verb]
    module: ModuleType = importlib.import_module(place)
    parser = Parser(
        prog=f"mluc {verb}", description=(module.__doc__ or summary).strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--traceback", action="store_true", help="show Python's traceback of a fault")
    module.add_arguments(parser)
    try:
        args = parser.parse_args(words)
    except SystemExit as stop:
        return int(stop.code or 0)
    args.given = parser.given(words)
    try:
        check_files(args, verb, getattr(module, "FILES", {}))
        return int(module.run(args) or 0)
    except CompilerError as fault:
        return _faulty(fault, args)
    except InternalError as fault:
        return _internal(fault, args)
    except MemoryError:
        print("mluc: not enough memory", file=sys.stderr)
        return FAULT
    except Exception as fault:
        if isinstance(fault, OSError) and fault.errno in (*REFUSED, NO_READER):
            raise
        return _internal(fault, args)


def _faulty(fault: CompilerError, args: argparse.Namespace) -> int:
    if args.traceback:
        print_exception(fault)
    if getattr(args, "json", False):
        print(json.dumps({"ok": False, "faults": [d.as_dict() for d in fault.diagnostics]}, indent=2))
    print(fault.render(), file=sys.stderr)
    return FAULT


def _internal(fault: Exception, args: argparse.Namespace) -> int:
    if args.traceback:
        print_exception(fault)
    message = str(fault) if isinstance(fault, InternalError) else f"{type(fault).__name__}: {fault}"
    owner = fault.owner if isinstance(fault, InternalError) else ""
    print(f"mluc: {'' if owner else 'internal error: '}{message}", file=sys.stderr)
    more = "" if args.traceback else "; --traceback shows where it happened"
    print(f"  this is a mistake of {owner or 'mluc'}{more}", file=sys.stderr)
    return INTERNAL


if __name__ == "__main__":
    sys.exit(main())
