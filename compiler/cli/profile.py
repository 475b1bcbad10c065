"""Say what an offline model costs on the modelled chip: cycles by unit and kernel, bytes by memory, latency, energy.

The figures are analytical, from the board's data file; every report names their basis.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from compiler.cli import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.cambricon")
    parser.add_argument(
        "--top", type=arguments.count, default=10, metavar="N", help="kernels to show, the longest first (default: 10)"
    )
    parser.add_argument(
        "--trace", type=Path, metavar="T.json", help="write a timeline for Perfetto or chrome://tracing"
    )
    arguments.json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from runtime.profile import profile
    from targets.mlu220.container import OfflineModel
    from targets.mlu220.hardware import load_board

    arguments.writable(args.trace, args.file)
    model = OfflineModel.load(args.file)
    report = profile(model, load_board(model.board))
    if args.trace is not None:
        from runtime.trace import write_trace

        write_trace(report, args.trace)
        print(f"{args.trace}: open it at https://ui.perfetto.dev or chrome://tracing", file=sys.stderr)
    if args.json:
        arguments.print_json(report.as_dict())
    else:
        print(report.text(args.top))
    return 0
