"""Print the instructions of an offline model, in a form that `mluc asm` reads back to the same bytes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from compiler.cli import arguments
from compiler.files import OFFLINE

FILES = {"file": OFFLINE}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.cambricon", help="the offline model")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE.asm", help="write there, constants beside it (default: print)"
    )


def run(args: argparse.Namespace) -> int:
    from targets.mlu220.assembler import disassemble
    from targets.mlu220.container import OfflineModel

    arguments.writable(args.output, ".asm", args.file)
    listing = disassemble(OfflineModel.load(args.file))
    if args.output is None:
        sys.stdout.write(listing.text)
        if listing.blobs:
            print("note: constants are left out; -o FILE.asm writes them beside the listing", file=sys.stderr)
        return 0
    listing.save(args.output)
    return 0
