"""List what becomes of every node of a model, without compiling it.

A node is compiled, runs on the host, or is unsupported, each with the reason and a way round. The exit code is 1 where
something cannot be converted.
"""

from __future__ import annotations

import argparse

from compiler.cli import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.model_arguments(parser)
    arguments.target_arguments(parser)
    arguments.json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from compiler.driver import lint_model

    report = lint_model(args.model, dict(args.shape), dict(args.bind), board=args.board, cores=args.cores)
    if args.json:
        arguments.print_json(report.as_dict())
    else:
        print(report.render())
    return 0 if report.ok else 1
