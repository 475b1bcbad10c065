"""Run an offline model on the simulator.

Inputs come from a .npz file (one array per input, under its name) or, where the file records preprocessing, from images. With
--against the outputs are compared with those of the float model; the exit code is 3 where they differ more than --tolerance.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from compiler.cli import arguments
from compiler.errors import error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.cambricon")
    parser.add_argument("--inputs", required=True, metavar="NPZ|DIR", help="arrays, or a folder of images")
    parser.add_argument("--output", type=Path, metavar="OUT.npz", help="write the outputs of all samples")
    parser.add_argument("--images", type=int, default=0, metavar="N", help="run at most N samples")
    parser.add_argument("--threads", type=int, help="host threads (default: all processors)")
    parser.add_argument("--engine", choices=("simulator", "oracle"), default="simulator", help="oracle: slow NumPy, the reference")
    parser.add_argument("--against", type=Path, metavar="MODEL", help="compare with this float model")
    parser.add_argument("--tolerance", type=float, metavar="T", help="largest error allowed with --against, as a part of the range")
    arguments.data_arguments(parser)
    arguments.json_argument(parser)


def run(args: argparse.Namespace) -> int:
    import numpy as np

    from compiler.preprocess import Preprocess, batches
    from runtime.session import Session

    if args.tolerance is not None and args.against is None:
        raise error("E102", "--tolerance needs --against")
    if args.output is not None:
        arguments.writable(args.output)
    session = Session(args.file, threads=args.threads, engine=args.engine)
    recorded = session.inputs[0].preprocessing if len(session.inputs) == 1 else {}
    preprocess = Preprocess.parse(args.preprocess) if args.preprocess else Preprocess.of(dict(recorded)) if recorded else None
    samples = _whole_batches(session, batches(args.inputs, [r.name for r in session.inputs], preprocess, args.images), args)
    results: dict[str, list[np.ndarray]] = {r.name: [] for r in session.outputs}
    reference = _Reference(args.against, session) if args.against else None
    count = 0
    for sample in samples:
        outputs = session.run(sample)
        for name, value in outputs.items():
            results[name].append(value)
        if reference is not None:
            reference.take(sample, outputs)
        count += 1
    if not count:
        raise error("E113", "there are no samples to run", where=str(args.inputs))
    if args.output is not None:
        np.savez(args.output, **{name: np.concatenate(values) for name, values in results.items()})
    return _report(args, count, results, reference)


def _whole_batches(session: Any, samples: Any, args: argparse.Namespace) -> Any:
    """Inputs exactly as the model states them; a `.npz` that holds one such array per input is one sample."""
    import numpy as np

    from compiler.preprocess import load_npz

    path = Path(args.inputs)
    if not path.is_dir():
        arrays = load_npz(path)
        records = session.inputs
        if len(records) == 1 and len(arrays) == 1:
            arrays = {records[0].name: next(iter(arrays.values()))}
        if all(r.name in arrays and arrays[r.name].shape == r.shape for r in records):
            return [{r.name: arrays[r.name].astype(r.numpy, copy=False) for r in records}]
    types = {r.name: r.numpy for r in session.inputs}
    return ({n: np.asarray(a, types[n]) for n, a in sample.items()} for sample in samples)


class _Reference:
    """The float model, and how far from it the outputs were."""

    def __init__(self, path: Path, session: Any) -> None:
        from compiler.evaluate.interpreter import Interpreter
        from compiler.frontend.load import load

        module = load(path, shapes={r.name: r.shape for r in session.inputs} if path.suffix == ".onnx" else None)
        self.interpreter = Interpreter(module)
        self.names = module.main.output_names
        self.inputs = [a.name for a in module.main.arguments]
        self.errors: dict[str, float] = {}
        self.agree = 0
        self.count = 0

    def take(self, sample: dict[str, Any], outputs: dict[str, Any]) -> None:
        import numpy as np

        wanted = dict(zip(self.names, self.interpreter.run([sample[n] for n in self.inputs]), strict=True))
        for name, found in outputs.items():
            if name not in wanted:
                raise error("E115", f"the float model has no output {name!r}", help="its outputs are " + ", ".join(wanted))
            span = float(np.ptp(wanted[name])) or 1.0
            difference = float(np.max(np.abs(wanted[name].astype(np.float64) - found))) / span
            self.errors[name] = max(self.errors.get(name, 0.0), difference)
        first = self.names[0]
        self.agree += int(np.argmax(wanted[first]) == np.argmax(outputs[first]))
        self.count += 1


def _report(args: argparse.Namespace, count: int, results: dict[str, list[Any]], reference: Any) -> int:
    import numpy as np

    failed = reference is not None and args.tolerance is not None and max(reference.errors.values()) > args.tolerance
    facts: dict[str, Any] = {"samples": count, "outputs": {n: list(np.shape(v[0])) for n, v in results.items()}}
    if reference is not None:
        facts["error"] = reference.errors
        facts["same_argmax"] = reference.agree / reference.count
    if args.json:
        arguments.print_json(facts)
        return 3 if failed else 0
    print(f"{count} samples")
    for name, values in results.items():
        flat = np.asarray(values[0]).reshape(-1)
        print(f"  {name}: {list(np.shape(values[0]))}, first sample {np.array2string(flat[:8], precision=5)}")
    if reference is not None:
        for name, value in reference.errors.items():
            print(f"  {name}: largest error {value:.3%} of the float output's range")
        print(f"  same largest output in {reference.agree} of {reference.count} samples")
    if failed:
        print(f"error: beyond the tolerance of {args.tolerance:.3%}")
    return 3 if failed else 0
