"""Run an offline model on the simulator.

Inputs come from a .npz file (one array per input, under its name; the first axis counts samples) or, where the file
records preprocessing, from images. With --against the outputs are compared with those of the float model; the exit code
is 3 where they differ more than --tolerance.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from compiler.cli import arguments
from compiler.errors import CompilerError, Diagnostic, error
from compiler.files import OFFLINE, written_whole

FILES = {"file": OFFLINE}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.cambricon", help="the offline model")
    parser.add_argument("--inputs", required=True, metavar="NPZ|DIR", help="arrays, or a folder of images")
    parser.add_argument("--output", type=Path, metavar="OUT.npz", help="write the outputs of all samples")
    parser.add_argument(
        "--images", type=arguments.count, default=0, metavar="N", help="run at most N samples (default: all)"
    )
    parser.add_argument("--threads", type=arguments.count, metavar="N", help="host threads (default: all processors)")
    parser.add_argument(
        "--engine", choices=("simulator", "oracle"), default="simulator",
        help="what runs it; oracle: slow NumPy, the reference (default: simulator)",
    )  # fmt: skip
    parser.add_argument(
        "--state", action="store_true", help="samples are calls in a row: what the network remembers goes round"
    )
    parser.add_argument("--against", type=Path, metavar="MODEL", help="compare with this float model")
    parser.add_argument(
        "--bind", action="append", default=[], type=arguments.binding, metavar="NAME=VALUE",
        help="with --against: what the model was compiled with; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", type=arguments.fraction, metavar="T",
        help="with --against: exit code 3 where an error is larger, as a part of the output's range (0.05: 5 %%)",
    )  # fmt: skip
    arguments.data_arguments(parser)
    arguments.json_argument(parser)


def run(args: argparse.Namespace) -> int:
    import numpy as np

    from compiler.preprocess import Preprocess
    from compiler.samples import Input
    from runtime.session import Session

    _check(args)
    arguments.writable(args.output, ".npz", args.file, Path(args.inputs), args.against)
    path = args.file
    session = Session(path, threads=args.threads, engine=args.engine, state=args.state)
    if args.state and not session.model.metadata.get("state"):
        raise error("E102", "--state is for networks that remember something; this file names no such inputs",
                    where=str(path), help="loop them in Python: Session(file, state={output: input})")  # fmt: skip
    recorded = session.inputs[0].preprocessing if len(session.inputs) == 1 else {}
    stated = Preprocess.of(dict(recorded)) if recorded else None
    preprocess = _as_asked(args, Preprocess.parse(args.preprocess), stated) if args.preprocess else stated
    inputs = [Input(r.name, r.shape, r.numpy) for r in session.inputs]
    _check_state(args, session)
    samples = arguments.open_data(args.inputs, inputs, preprocess, args.images)
    if not len(samples):
        raise error("E113", "there are no samples to run", where=str(args.inputs))
    reference = _Reference(args.against, session, dict(args.bind)) if args.against else None
    batches, odd = [], set()
    with arguments.progress("running", len(samples)) as done:
        for sample in samples:
            odd |= {name for name, array in sample.items() if array.dtype.kind == "f" and np.isnan(array).any()}
            outputs: Any = session.run(sample)
            batches.append(outputs)
            if reference is not None:
                reference.take(sample, outputs, samples.rows if len(batches) == len(samples) else samples.batch)
            done(len(batches))
    for name in sorted(odd):
        message = f"input {name!r} holds NaN, which the chip takes for 0 where it makes integers of it"
        arguments.tell([Diagnostic(code="E117", severity="warning", message=message, where=str(args.inputs))])
    if args.output is not None:
        _write(args.output, samples, batches)
    return _report(args, samples.total, batches[0], reference)


def _check(args: argparse.Namespace) -> None:
    """Raise CompilerError E102 for arguments that need or exclude each other."""
    if args.tolerance is not None and args.against is None:
        raise error("E102", "--tolerance needs --against")
    if args.bind and args.against is None:
        raise error("E102", "--bind needs --against", help="the file has its values already")
    if args.state and args.against is not None:
        raise error("E102", "--state does not go with --against", help="compare single calls, the state as an input")
    if args.threads is not None and args.engine == "oracle":
        raise error("E102", "--threads is for the simulator; the oracle runs in one")
    arguments.check_preprocess(args, args.inputs)


def _as_asked(args: argparse.Namespace, asked: Any, stated: Any) -> Any:
    """What --preprocess says. Of a file that takes pixels and does the arithmetic itself, only size and crop are open.
    Raises CompilerError E102."""
    if stated is None or stated.folded is None:
        return asked
    if asked != type(asked)(size=asked.size, crop=asked.crop):
        message = "the file takes pixels and does the arithmetic itself: --preprocess may say size and crop"
        raise error("E102", message, where=str(args.file))
    return replace(stated, size=asked.size, crop=asked.crop)


def _check_state(args: argparse.Namespace, session: Any) -> None:
    """Raise CompilerError E113 where neither the data nor --state say what the network remembers."""
    given = arguments.arrays_in(args.inputs)
    missing = sorted(set(session.model.metadata.get("state", {}).values()) - given) if given else []
    if missing and not args.state:
        help = "--state feeds back what the network remembers, call by call"
        raise error("E113", f"no array for input {', '.join(missing)}", where=str(args.inputs), help=help)


def _write(path: Path, samples: Any, batches: list[dict[str, Any]]) -> None:
    """All outputs, batches joined along the first axis and what only filled the last batch cut off."""
    import numpy as np

    joined: dict[str, Any] = {}
    for name, first in batches[0].items():
        arrays = [batch[name] for batch in batches]
        if first.ndim and first.shape[0] == samples.batch:
            joined[name] = np.concatenate(arrays)[: samples.total]
        else:
            joined[name] = np.stack(arrays)
    with written_whole(path) as file:
        np.savez(file, **joined)


class _Reference:
    """The float model, and how far from it the outputs were. A batch is compared sample by sample where that can be."""

    def __init__(self, path: Path, session: Any, bindings: dict[str, Any]) -> None:
        from compiler.evaluate.interpreter import Interpreter

        records = (*session.inputs, *session.outputs)
        self.preprocess = pixels_of(session)
        batches = {r.shape[0] if r.shape else 0 for r in records}
        self.batch = batches.pop() if len(batches) == 1 and 0 not in batches else 1
        module = _float_model(path, session, self.batch, bindings)
        self.one_by_one = self.batch > 1 and all(a.type.shape[0] == 1 for a in module.main.arguments)
        self.interpreter = Interpreter(module)
        self.names = module.main.output_names
        self.inputs = [a.name for a in module.main.arguments]
        self.errors: dict[str, float] = {}
        self.agree = 0
        self.count = 0

    def take(self, sample: dict[str, Any], outputs: dict[str, Any], real: int) -> None:
        """One batch; `real`: how many of its samples do not merely fill it."""
        import numpy as np

        given = [self.preprocess.to_network(sample[n]) if self.preprocess else sample[n] for n in self.inputs]
        wanted = dict(zip(self.names, self._run(given), strict=True))
        for name, found in outputs.items():
            if name not in wanted:
                raise error("E115", f"the float model has no output {name!r}", help="outputs: " + ", ".join(wanted))
            self.errors[name] = max(self.errors.get(name, 0.0), _difference(wanted[name], found))
        rows = (np.reshape(side[self.names[0]], (self.batch, -1)).argmax(axis=1) for side in (wanted, outputs))
        self.agree += int(np.sum((next(rows) == next(rows))[:real]))
        self.count += min(real, self.batch)

    def _run(self, arrays: list[Any]) -> list[Any]:
        import numpy as np

        if not self.one_by_one:
            return self.interpreter.run(arrays)
        rows = [self.interpreter.run([a[i : i + 1] for a in arrays]) for i in range(self.batch)]
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def pixels_of(session: Any) -> Any:
    """The preprocessing that a network for pixels has inside; None for others."""
    from compiler.preprocess import Preprocess

    (first, *others) = session.inputs
    return Preprocess.of(first.preprocessing) if not others and first.preprocessing.get("folded") else None


def network_shapes(session: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs of the network that a compiled one was made from; what it remembers is none there."""
    remembered = session.model.metadata.get("state", {}).values()
    whole = {r.name: r.shape for r in session.inputs if r.name not in remembered}
    pixels = pixels_of(session)
    if pixels is None or pixels.folded["layout"] != "NCHW":
        return whole
    return {name: (n, c, h, w) for name, (n, h, w, c) in whole.items()}


def _float_model(path: Path, session: Any, batch: int, bindings: dict[str, Any]) -> Any:
    """The module for one sample, whose meaning no batch can change; or for the whole batch, if it has no other."""
    from compiler.frontend.load import load

    if path.suffix == ".mlu":
        return load(path)
    whole = network_shapes(session)
    if batch > 1:
        try:
            return load(path, {name: (1, *shape[1:]) for name, shape in whole.items()}, bindings)
        except CompilerError:
            pass  # a model made for this batch; whatever else is wrong with it, the next line tells
    return load_as_compiled(path, whole, bindings)


def load_as_compiled(path: Path, shapes: dict[str, tuple[int, ...]], bindings: dict[str, Any]) -> Any:
    """The module of the model that an offline model of these inputs may have been made of. Raises CompilerError E115
    where it has others."""
    from compiler.frontend.load import load

    try:
        return load(path, shapes, bindings)
    except CompilerError as fault:
        if all(d.code != "E204" or d.message.startswith("--bind") for d in fault.diagnostics):
            raise
        told = ", ".join(f"{name}={'x'.join(map(str, shape))}" for name, shape in shapes.items())
        message = f"does not take the inputs of the offline model, {told}; it is not the model that one was made of"
        raise error("E115", message, where=str(path), help=fault.diagnostics[0].help) from None


def _difference(wanted: Any, found: Any) -> float:
    """The largest error as a part of the wanted range; infinite where just one of the two is no number."""
    import numpy as np

    error = np.abs(wanted.astype(np.float64) - found)
    error[(np.isnan(wanted) & np.isnan(found)) | (wanted == found)] = 0.0
    error[np.isnan(error)] = np.inf
    finite = wanted[np.isfinite(wanted)].astype(np.float64)
    span = float(np.ptp(finite)) if finite.size else 0.0
    return float(error.max(initial=0.0)) / (span or 1.0)


def _report(args: argparse.Namespace, count: int, first: dict[str, Any], reference: Any) -> int:
    failed = reference is not None and args.tolerance is not None and max(reference.errors.values()) > args.tolerance
    facts: dict[str, Any] = {"samples": count, "outputs": {name: list(array.shape) for name, array in first.items()}}
    if reference is not None:
        facts |= {"error": reference.errors, "same_argmax": reference.agree / reference.count, "ok": not failed}
    if args.json:
        arguments.print_json(facts)
        return 3 if failed else 0
    print(f"{count} sample{'s' if count != 1 else ''}" + (f", outputs in {args.output}" if args.output else ""))
    for name, array in first.items():
        shown = " ".join(f"{value:.5g}" for value in array.reshape(-1)[:8].tolist())
        print(f"  {name}: {list(array.shape)}, first sample {shown}{' …' if array.size > 8 else ''}")
    if reference is not None:
        for name, value in reference.errors.items():
            print(f"  {name}: largest error {value:.3%} of the float output's range")
        print(f"  same largest output in {reference.agree} of {reference.count} samples")
    if failed:
        print(f"mluc: beyond the tolerance of {args.tolerance:.3%}", file=sys.stderr)
    return 3 if failed else 0
