"""`mluc profile --sweep`: one model compiled for several batches and numbers of cores, a row of figures each."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from compiler.cli.compiling import Compiling

Axis = tuple[str, tuple[int, ...]]
Row = dict[str, Any]
AXES = ("cores", "batch")


def axis(text: str) -> Axis:
    """`cores=1,2,4` or `batch=1,4,16`."""
    name, _, values = text.partition("=")
    numbers = [int(v) if v.isdecimal() else 0 for v in values.split(",")]
    if name not in AXES:
        raise argparse.ArgumentTypeError(f"{text!r}: a sweep is over {' or '.join(AXES)}, such as cores=1,2,4")
    if not all(n >= 1 for n in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is not {name}=N,N,… with numbers of at least 1")
    return name, tuple(dict.fromkeys(numbers))


def rows_of(args: argparse.Namespace, compiling: Compiling) -> list[Row]:
    """The figures of every combination, batch by batch; speed-ups are in samples per second over the first."""
    from compiler.target import load_target

    axes = dict(args.sweep)
    for cores in axes.get("cores", ()):  # better told before the first compilation
        load_target("mlu220", board=args.board, cores=cores)
    rows: list[Row] = []
    for batch in axes.get("batch", (args.batch,)):
        for cores in axes.get("cores", (args.cores,)):
            print(f"compiling for {cores} core{'s' if cores != 1 else ''}, batch {batch}", file=sys.stderr)
            rows.append(_row(compiling.model(batch, cores), batch, cores))
    for row in rows:
        row["speedup"] = row["samples_per_second"] / rows[0]["samples_per_second"]
    return rows


def _row(model: Any, batch: int, cores: int) -> Row:
    from runtime.profile import profile
    from targets.mlu220.hardware import board_of

    report = profile(model, board_of(model))
    moved = report.traffic()
    seconds = report.seconds
    return {
        "cores": cores, "batch": batch, "seconds": seconds, "seconds_per_sample": seconds / batch,
        "samples_per_second": batch / seconds if seconds else 0.0, "transfer_seconds": report.transfer_seconds,
        "cycles": report.cycles, "macs": report.macs, "utilisation": report.utilisation,
        "ddr_bytes": moved["ddr_read"] + moved["ddr_write"], "ddr_lower_bound": report.ddr_lower_bound,
        "joules_per_sample": report.joules / batch, "host_functions": report.host_functions,
        "workspace": sum(planned["workspace"] for planned in report.workspace.values()),
    }  # fmt: skip


HEADS = ("cores", "batch", "ms", "ms/sample", "samples/s", "speed-up", "of peak", "DDR bytes", "x least", "mJ/sample",
         "workspace")  # fmt: skip


def sweep_text(name: str, board: str, rows: list[Row]) -> str:
    """The rows as a table."""
    table = [list(HEADS)] + [
        [
            str(r["cores"]), str(r["batch"]), f"{r['seconds'] * 1e3:.3f}", f"{r['seconds_per_sample'] * 1e3:.3f}",
            f"{r['samples_per_second']:.1f}", f"{r['speedup']:.2f}", f"{r['utilisation']:.1%}", str(r["ddr_bytes"]),
            f"{r['ddr_bytes'] / (r['ddr_lower_bound'] or 1):.2f}", f"{r['joules_per_sample'] * 1e3:.3f}",
            str(r["workspace"]),
        ]
        for r in rows
    ]  # fmt: skip
    widths = [max(len(line[k]) for line in table) for k in range(len(HEADS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
    host = sorted({h for r in rows for h in r["host_functions"]})
    told = [f"on the host, not timed: {', '.join(host)}"] if host else []
    title = f"{name} on {board}, analytical model; x least: DDR bytes over inputs, constants and outputs once"
    return "\n".join([title, *lines, *told])
