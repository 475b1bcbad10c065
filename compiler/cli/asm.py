"""Make an offline model from a listing that `mluc disasm` printed, edited or not. Checksums are made anew; what the
instructions do is proved safe when the file is run."""

from __future__ import annotations

import argparse
from pathlib import Path

from compiler.cli import arguments
from compiler.files import LISTING

FILES = {"file": LISTING}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.asm", help="the listing; constants are beside it")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE.cambricon", help="the offline model to write"
    )


def run(args: argparse.Namespace) -> int:
    from targets.mlu220.assembler import Listing, assemble

    arguments.writable(args.output, ".cambricon", args.file)
    listing = Listing.load(args.file)
    assemble(listing.text, listing.blobs, str(args.file)).save(args.output)
    return 0
