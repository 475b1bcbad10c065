"""Compile a model to an offline model (.cambricon), with its _twins text.

Calibration data are the only other input: a folder of images (with --preprocess) or a .npz file. With --scheme,
decisions made earlier are used instead. A .mlu file that was dumped after some pass is resumed with --pipeline and the
passes that remain.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from compiler.cli import arguments
from compiler.errors import error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.model_arguments(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE.cambricon", help="the offline model to write"
    )
    group = parser.add_argument_group("quantisation")
    group.add_argument("--calibrate", metavar="DIR|NPZ", help="images or arrays to calibrate on")
    group.add_argument(
        "--images", type=arguments.count, default=0, metavar="N", help="calibrate on at most N samples (default: all)"
    )
    group.add_argument("--method", default="auto", help="calibration method, see mluc list calibrators (default: auto)")
    group.add_argument("--scheme", type=Path, metavar="Q.toml", help="use a scheme file instead of calibrating")
    group.add_argument("--save-scheme", type=Path, metavar="Q.toml", help="write the scheme, to be read or edited")
    group.add_argument(
        "--keep-float", action="append", default=[], metavar="LAYER", help="layers, by name or pattern, for the host"
    )
    group.add_argument(
        "--i16", action="append", default=[], metavar="LAYER", help="layers, by name or pattern, for 16-bit integers"
    )
    group.add_argument(
        "--float", choices=("f16", "f32"), default="f16", help="type of all that the matrix unit does not compute"
    )
    arguments.data_arguments(group)
    passes = parser.add_argument_group("passes")
    passes.add_argument(
        "-p", "--passes", default="", metavar="'a,b{x=1}'", help="passes to run after prepare, before calibration"
    )
    passes.add_argument("--pipeline", metavar="'a,b{x=1}'", help="run exactly these passes instead of all of mluc's")
    arguments.target_arguments(parser)
    parser.add_argument(
        "--batch", type=arguments.count, default=1, metavar="B",
        help="samples that one run of the file takes, for a model made for one (default: 1)",
    )  # fmt: skip
    arguments.instrument_arguments(parser)
    arguments.json_argument(parser)


def run(args: argparse.Namespace) -> int:
    arguments.writable(args.output, args.model, args.scheme)
    arguments.writable(args.save_scheme, args.model, args.output)
    arguments.load_passes(args)
    _check_combination(args)
    watching = arguments.Watching(args)
    module, copies = _load(args)
    preprocess = _preprocess(args, module)
    diagnostics: list[Any] = []
    model = _compile(args, module, copies, preprocess, watching, diagnostics)
    model.save(args.output)
    arguments.tell(diagnostics)
    watching.report()
    _report(args, model, diagnostics)
    return 0


def _check_combination(args: argparse.Namespace) -> None:
    if args.calibrate and args.scheme:
        raise error("E102", "--calibrate and --scheme exclude each other", help="a scheme is what calibration gives")
    if args.pipeline is not None and (args.passes or args.keep_float or args.i16 or args.float != "f16"):
        raise error("E102", "--pipeline says all the passes; write -p, --keep-float, --i16 and --float into it")
    if args.pipeline is not None and args.batch != 1:
        raise error("E102", "--pipeline says all the passes; write replicate{batch=...} into it instead of --batch")
    if args.pipeline is not None and args.calibrate:
        help = "calibrate once with --save-scheme q.toml, then give --scheme q.toml"
        raise error("E102", "--pipeline starts after calibration", help=help)
    _check_passes(args.passes)
    if args.save_scheme and not args.calibrate:
        raise error("E102", "--save-scheme needs --calibrate")
    if args.images and not args.calibrate:
        raise error("E102", "--images needs --calibrate")


def _load(args: argparse.Namespace) -> tuple[Any, int]:
    """The module, and how many copies of it make the batch."""
    if args.batch == 1:
        return arguments.load_model(args), 1
    from compiler.batch import load_batch
    from compiler.frontend.load import load

    return load_batch(lambda shapes: load(args.model, dict(args.shape) | dict(shapes), dict(args.bind)), args.batch)


def _check_passes(text: str) -> None:
    """-p is for float modules: what compile runs by itself after calibration cannot run before it."""
    from compiler.driver import pipeline_text
    from compiler.pass_manager import parse_pipeline

    own = {p.name for p in parse_pipeline(pipeline_text())}
    early = [p.name for p in parse_pipeline(text) if p.name in own] if text else []
    if early:
        told = f"-p runs before calibration, {', '.join(early)} after it"
        raise error("E102", told, help="compile runs them by itself; --pipeline says all the passes")


def _preprocess(args: argparse.Namespace, module: Any) -> Any:
    """The preprocessing asked for, noted on the input."""
    from compiler.preprocess import Preprocess

    if args.preprocess is None:
        return None
    found = Preprocess.parse(args.preprocess)
    inputs = module.main.arguments
    if len(inputs) != 1:
        raise error("E102", f"--preprocess serves models of one input, this has {len(inputs)}")
    inputs[0].attributes["preprocessing"] = found.as_dict()
    return found


def _compile(
    args: argparse.Namespace, module: Any, copies: int, preprocess: Any, watching: Any, diagnostics: list[Any]
) -> Any:
    from compiler import driver
    from compiler.batch import replicated

    options: dict[str, Any] = {
        "board": args.board, "cores": args.cores, "instruments": watching.instruments, "diagnostics": diagnostics,
        "verify_each": not args.no_verify_each, "statistics": watching.statistics,
    }  # fmt: skip
    if args.pipeline is not None:
        return driver.compile_model(module, pipeline=args.pipeline, scheme=args.scheme, **options)
    module = driver.prepare(module, args.passes, instruments=watching.instruments, ctx=_context(args, watching))
    scheme: Any = args.scheme
    if args.calibrate:
        scheme = _calibrate(args, module, preprocess)
        if args.save_scheme:
            scheme.save(args.save_scheme)
    pipeline = driver.pipeline_text(float_type=args.float, keep_float=args.keep_float, i16=args.i16)
    return driver.compile_model(module, scheme=scheme, pipeline=replicated(pipeline, copies), **options)


def _context(args: argparse.Namespace, watching: Any) -> Any:
    from compiler.pass_manager import PassContext
    from compiler.target import load_target

    target = load_target("mlu220", board=args.board, cores=args.cores)
    return PassContext(target=target, statistics=watching.statistics)


def _calibrate(args: argparse.Namespace, module: Any, preprocess: Any) -> Any:
    from compiler import driver

    samples = arguments.open_data(args.calibrate, arguments.inputs_of(module), preprocess, args.images)
    with arguments.progress("calibrating", len(samples)) as done:
        return driver.calibrate(module, samples, args.method, progress=done)


def _report(args: argparse.Namespace, model: Any, diagnostics: list[Any]) -> None:
    facts = {
        "output": str(args.output), "bytes": args.output.stat().st_size, "board": model.board, "cores": model.cores,
        "functions": [
            {"name": f.name, "instructions": sum(len(p) for p in f.programs)} | model.metadata["memory"][f.name]
            for f in model.device_functions
        ] + [{"name": f.name, "host": True} for f in model.host_functions],
        "constants": int(model.constants.size), "warnings": [d.as_dict() for d in diagnostics],
    }  # fmt: skip
    if args.json:
        arguments.print_json(facts)
        return
    print(f"{args.output}: {facts['bytes']:,} bytes, {model.cores} cores of {model.board}")
    for function in facts["functions"]:  # type: ignore[attr-defined]
        if function.get("host"):
            print(f"  {function['name']}: on the host")
        else:
            memory = f"workspace {function['workspace']:,} bytes (lower bound {function['workspace_lower_bound']:,})"
            print(f"  {function['name']}: {function['instructions']:,} instructions, {memory}")
    print(f"  constants: {facts['constants']:,} bytes")
