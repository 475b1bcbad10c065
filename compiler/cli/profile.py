"""Say what an offline model costs on the modelled chip: cycles by unit, bytes by memory, latency, energy.

The figures are analytical, from the board's data file; every report names their basis.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from compiler.cli import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.cambricon")
    arguments.json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from runtime.profile import profile
    from targets.mlu220.container import OfflineModel
    from targets.mlu220.hardware import load_board

    model = OfflineModel.load(args.file)
    report = profile(model, load_board(model.board))
    if args.json:
        arguments.print_json(report.as_dict())
    else:
        print(report)
    return 0
