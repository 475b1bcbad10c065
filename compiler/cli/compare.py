"""Compare a float model with its quantised twin, value by value, on data: where quantisation costs most."""

from __future__ import annotations

import argparse
from pathlib import Path

from compiler.cli import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.model_arguments(parser)
    parser.add_argument("--data", required=True, metavar="DIR|NPZ", help="images or arrays")
    parser.add_argument("--scheme", type=Path, metavar="Q.toml", help="the scheme (default: calibrate on the data)")
    parser.add_argument(
        "--images", type=arguments.count, default=8, metavar="N", help="samples to compare on (default: 8)"
    )
    parser.add_argument(
        "--most", type=arguments.count, default=20, metavar="N", help="values to print, worst first (default: 20)"
    )
    arguments.data_arguments(parser)
    arguments.json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from compiler import driver
    from compiler.compare import compare
    from compiler.pass_manager import run_pipeline
    from compiler.preprocess import Preprocess
    from compiler.samples import open_samples

    module = driver.prepare(arguments.load_model(args))
    preprocess = Preprocess.parse(args.preprocess) if args.preprocess else None
    samples = list(open_samples(args.data, arguments.inputs_of(module), preprocess, args.images))
    scheme = str(args.scheme) if args.scheme else driver.calibrate(module, samples)
    quantised = run_pipeline(module, "quantize", options={"scheme": scheme})
    rows = sorted(compare(module, quantised, samples), key=lambda d: d.sqnr)
    if args.json:
        arguments.print_json([d.as_dict() for d in rows])
        return 0
    print(f"{'SQNR':>9}  {'max error':>10}  value   (error accumulated up to this value, {len(samples)} samples)")
    for row in rows[: args.most]:
        print(f"{row.sqnr:6.1f} dB  {row.largest_error:10.4g}  {row.name}")
    return 0
