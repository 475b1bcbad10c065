"""Compare a float model with what the compiler makes of it, value by value, on data: where most is lost.

Each value's error is told twice: accumulated, and of its op alone (run on the float model's values). The twin is the
module after --after, made with the passes and the scheme that the offline model records; without one, with --scheme,
or calibrated on the same data. The offline model's outputs are compared too, and it is told whether they are the
twin's, byte for byte. An IR file in its place is the twin itself; with --at-least that makes a judge for
`mluc debug bisect`: exit code 3 where an output is worse.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from compiler.cli import arguments
from compiler.errors import error

FILES = {"file": arguments.TWIN}
MOST = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.model_arguments(parser)
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="what became of it: .cambricon or .mlu")
    parser.add_argument("--data", required=True, metavar="DIR|NPZ", help="folder of images, or file of arrays")
    parser.add_argument(
        "--scheme", type=Path, metavar="Q.toml", help="the scheme (default: the file's, else calibrate on the data)"
    )
    parser.add_argument("-p", "--passes", default="", metavar="'a,b{x=1}'", help="passes the twin had after prepare")
    parser.add_argument(
        "--pipeline", metavar="'a,b{x=1}'", help="the twin's passes after calibration (default: those of compile)"
    )
    parser.add_argument("--after", metavar="PASS", help="the twin is the module after this pass (default: legalize)")
    parser.add_argument(
        "--float", choices=("f16", "f32"),
        help="type of all that the matrix unit does not compute (default: the file's, else f16)",
    )  # fmt: skip
    parser.add_argument(
        "--images", type=arguments.count, default=8, metavar="N", help="samples to compare on (default: 8)"
    )
    parser.add_argument(
        "--sort", choices=("accumulated", "alone", "order"),
        help="by which error, worst first, or in execution order (default: accumulated; --json: order)",
    )  # fmt: skip
    parser.add_argument(
        "--most", type=arguments.count, metavar="N", help=f"values to print (default: {MOST}; --json: all)"
    )
    parser.add_argument(
        "--below", type=float, default=20.0, metavar="DB",
        help="name the first value whose SQNR is below this, in dB (default: 20)",
    )  # fmt: skip
    parser.add_argument(
        "--at-least", type=float, metavar="DB", help="exit code 3 where an output's SQNR is less than this, in dB"
    )
    parser.add_argument("--html", type=Path, metavar="R.html", help="write the comparison as a page")
    parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]  # options between the two files
    arguments.load_pass_argument(parser)
    arguments.data_arguments(parser)
    arguments.json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from compiler import driver
    from compiler.cli.run import pixels_of
    from compiler.comparison import compare

    arguments.writable(args.html, ".html", args.model, args.file)
    _check(args)
    arguments.load_passes(args)
    session = _session(args)
    reference = driver.prepare(_model(args, session))
    if session is not None and pixels_of(session) is not None:
        reference.main.arguments[0].attributes["preprocessing"] = pixels_of(session).whole.as_dict()
    samples = arguments.open_calls(args.data, reference, _preprocess(args, session), args.images)
    twin, after = _twin(args, reference, samples, session)
    with arguments.progress("comparing", len(samples)) as done:
        found = compare(reference, twin, samples, done, session)
    if args.html is not None:
        _write_page(args, found, after)
    if args.json:
        arguments.print_json(_facts(args, found, after))
    else:
        _report(args, found, after)
    return 3 if _too_bad(args, found) else 0


def _check(args: argparse.Namespace) -> None:
    """Raise CompilerError E102 for arguments that would have no effect."""
    arguments.check_preprocess(args, args.data)
    if args.pipeline is not None and args.float:
        raise error("E102", "--pipeline says all the passes; write legalize{float=…} into it instead of --float")
    made = ("scheme", "passes", "pipeline", "after", "float")
    given = ["--" + name for name in made if name in args.given]
    if args.file is not None and args.file.suffix == ".mlu" and given:
        message = f"{', '.join(given)}: says how the twin is made, and an IR file is the twin itself"
        raise error("E102", message, where=str(args.file))


def _too_bad(args: argparse.Namespace, found: Any) -> list[str]:
    """Outputs that are worse than --at-least."""
    return [o.name for o in found.outputs if args.at_least is not None and o.errors.sqnr < args.at_least]


def _session(args: argparse.Namespace) -> Any:
    if args.file is None or args.file.suffix == ".mlu":
        return None
    from runtime.session import Session

    return Session(args.file)


def _model(args: argparse.Namespace, session: Any) -> Any:
    """The float model, with the shapes that the offline model has."""
    from compiler.cli.run import load_as_compiled, network_shapes

    if session is None or args.shape or args.model.suffix == ".mlu":
        return arguments.load_model(args)
    return load_as_compiled(args.model, network_shapes(session), dict(args.bind))


def _preprocess(args: argparse.Namespace, session: Any) -> Any:
    """What --preprocess says, else what the offline model records."""
    from compiler.preprocess import Preprocess

    if args.preprocess:
        return Preprocess.parse(args.preprocess)
    recorded = session.inputs[0].preprocessing if session is not None and len(session.inputs) == 1 else None
    return Preprocess.of(dict(recorded)).whole if recorded else None


def _twin(args: argparse.Namespace, reference: Any, samples: Any, session: Any) -> tuple[Any, str]:
    """What the compiler makes of the model up to --after, and the name of that pass."""
    from compiler import driver
    from compiler.pass_manager import PassContext, parse_pipeline, run_pipeline
    from compiler.target import load_target

    if args.file is not None and session is None:
        from compiler.ir.constants import read_module

        return read_module(args.file), args.file.name
    made = _made(args, session)
    board = {"board": session.board, "cores": session.model.cores} if session is not None else {}
    target = load_target(driver.TARGET, **board)
    module = run_pipeline(reference, made["passes"], target=target) if made["passes"] else reference
    scheme = made["scheme"] or driver.calibrate(module, samples)
    passes = parse_pipeline(made["pipeline"])
    names = [p.name for p in passes]
    after = args.after or ("legalize" if "legalize" in names else names[-1] if names else "prepare")
    ctx = PassContext(target=target, options={"scheme": scheme})
    twin = run_pipeline(module, passes, ctx=ctx, stop_after=after if names else None)
    arguments.tell(ctx.diagnostics)
    return twin, after


def _made(args: argparse.Namespace, session: Any) -> dict[str, str]:
    """How the twin is made: what the command line says, else what the offline model records, else as compile does."""
    from compiler import driver

    recorded = session.model.metadata if session is not None else {}
    pipeline = args.pipeline
    if pipeline is None:
        pipeline = driver.pipeline_text(args.float) if args.float else recorded.get("pipeline")
    return {
        "passes": args.passes or recorded.get("passes", ""),
        "pipeline": pipeline if pipeline is not None else driver.pipeline_text(),
        "scheme": str(args.scheme) if args.scheme else recorded.get("scheme", ""),
    }


def _facts(args: argparse.Namespace, found: Any, after: str) -> dict[str, Any]:
    name = {key: d.name if d else None for key, d in _named(args, found).items()}
    return {
        "samples": found.samples, "after": after, "ok": not _too_bad(args, found), "below": args.below, **name,
        "values": [d.as_dict() for d in _sorted(found.values, args.sort or "order")[: args.most]],
        "outputs": [o.as_dict() for o in found.outputs],
    }  # fmt: skip


def _named(args: argparse.Namespace, found: Any) -> dict[str, Any]:
    return {"first": found.first(args.below), "worst": found.worst, "worst_alone": found.worst_alone}


def _titles(args: argparse.Namespace) -> dict[str, str]:
    return {"first": f"first below {args.below:g} dB", "worst": "worst accumulated", "worst_alone": "worst alone"}


def _write_page(args: argparse.Namespace, found: Any, after: str) -> None:
    from compiler.report.html import comparison_page, write_page

    titles = _titles(args)
    named = {titles[key]: value for key, value in _named(args, found).items()}
    against = f" and {args.file.name}" if args.file is not None else ""
    write_page(comparison_page(found, f"{args.model.name}{against}", after, named, args.below), args.html)


def _report(args: argparse.Namespace, found: Any, after: str) -> None:
    rows, most = _sorted(found.values, args.sort or "accumulated"), args.most or MOST
    print(f"against the float model, after {after}, {found.samples} sample{'s' if found.samples != 1 else ''}")
    print(f"{'SQNR':>12}  {'max error':>10}  {'SQNR':>12}  {'max error':>10}")
    print(f"{'accumulated':>12}  {'':10}  {'op alone':>12}")
    for row in rows[:most]:
        print(f"{_errors(row.accumulated)}  {_errors(row.alone)}  {_titled(row)}")
    if len(rows) > most:
        print(f"... {len(rows) - most} more, see --most")
    named = _named(args, found)
    for key, title in _titles(args).items():
        print(f"{title + ':':22} {_titled(named[key]) if named[key] else 'none'}")
    for output in found.outputs:
        same = "the twin's bytes" if output.same_bytes else "not the twin's bytes"
        told = f", {same} from {args.file}" if args.file is not None and args.file.suffix != ".mlu" else ""
        print(f"output: {_errors(output.errors)}  {output.name}{told}")
    for name in _too_bad(args, found):
        print(f"mluc: {name} has less than {args.at_least:g} dB", file=sys.stderr)
    if any(not o.same_bytes for o in found.outputs):
        help = "is it of another scheme, other passes or another --float? The values above are those of the twin"
        print(f"note: the file was not made as the twin was; {help}", file=sys.stderr)


def _sorted(rows: list[Any], by: str) -> list[Any]:
    return rows if by == "order" else sorted(rows, key=lambda d: getattr(d, by).sqnr)


def _titled(row: Any) -> str:
    return f"{row.name}  ({row.node})" if row.node and row.node != row.name else row.name


def _errors(errors: Any) -> str:
    return f"{errors.sqnr:9.1f} dB  {errors.largest_error:10.4g}"
