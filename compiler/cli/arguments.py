"""Groups of arguments that several verbs share, and how their texts become values.

A value that does not parse is a usage error, told by argparse with the option's name.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.errors import CompilerError, Diagnostic, error
from compiler.files import BOARD, DATA, FORMATS, IR, MODEL, OFFLINE, PASS_FILE, SCHEME, Wanted, fault_of

if TYPE_CHECKING:
    from compiler.samples import Input


MODEL_HELP = "model: .onnx, TorchScript (.pt, .jit, .ptl), torch.export (.pt2), or .mlu (IR text)"


def model_arguments(parser: argparse.ArgumentParser, help: str = MODEL_HELP) -> None:
    """MODEL and how its inputs are bound."""
    group = parser.add_argument_group("model")
    group.add_argument("model", type=Path, metavar="MODEL", help=help)
    group.add_argument(
        "--shape", action="append", default=[], type=shape, metavar="NAME=1x3x224x224",
        help="the shape of an input whose dimensions the model leaves open; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--bind", action="append", default=[], type=binding, metavar="NAME=VALUE",
        help="fix an integer or boolean input, or an option of a scripted network, to a value; may be repeated",
    )  # fmt: skip


def target_arguments(parser: argparse.ArgumentParser) -> None:
    """Board and cores."""
    group = parser.add_argument_group("target")
    group.add_argument("--board", default="m2", metavar="NAME", help="m2, som, edge, or a .toml file (default: m2)")
    group.add_argument(
        "--cores", default=4, type=int, metavar="N", help="cores of the chip to use, 1 to 4 (default: 4)"
    )


def instrument_arguments(parser: argparse.ArgumentParser) -> None:
    """What to watch while passes run."""
    group = parser.add_argument_group("watching passes")
    group.add_argument(
        "--dump-ir", metavar="before|after|changed",
        help="print the IR before or after every pass, or where it changed; of some passes: after:simplify,quantize",
    )  # fmt: skip
    group.add_argument(
        "--dump-dir", type=Path, metavar="DIR",
        help="write the dumps there, as numbered files (without --dump-ir: changed)",
    )  # fmt: skip
    group.add_argument("--no-verify-each", action="store_true", help="do not verify the IR after every pass")
    group.add_argument("--time-passes", action="store_true", help="print the time each pass took")
    group.add_argument("--pass-stats", action="store_true", help="print what each pass counted, and its reasons")
    load_pass_argument(group)


def load_pass_argument(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--load-pass", action="append", default=[], type=Path, metavar="FILE.py",
        help="make the passes of a Python file known; may be repeated",
    )  # fmt: skip


PREPROCESS = (
    "how images become inputs: (pixel * scale - mean) / std. size: shorter side after resizing, bilinear; crop: side "
    "of the square cut from the centre (both: 0, not done); scale: 1, which leaves pixels at 0 to 255 (0.00392157 "
    "makes them 0 to 1); mean, std: one number or three, [0.485,0.456,0.406], in scaled units (0 and 1); order: rgb, "
    "bgr or gray (rgb)"
)
"""Help for --preprocess; the keys are those of `compiler.preprocess`."""


def data_arguments(parser: argparse._ActionsContainer) -> None:
    """How images become inputs."""
    parser.add_argument("--preprocess", metavar="size=256,crop=224,…", help=PREPROCESS)


def json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`x=1x3x224x224`."""
    name, separator, sizes = text.rpartition("=")
    try:
        found = tuple(int(s) for s in sizes.split("x")) if sizes else ()
    except ValueError:
        found = (0,)
    if not separator or not name or any(d < 1 for d in found):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=1x3x224x224")
    return name, found


def binding(text: str) -> tuple[str, Any]:
    """`sr=16000`, `training=false`, `sizes=1,2`; for options of scripted networks also `k=0.5` and `mode="fast"`."""
    name, separator, raw = text.rpartition("=")
    words: dict[str, Any] = {"true": True, "false": False}
    value: Any = None
    for reading in (lambda: words[raw.lower()], lambda: [int(v) for v in raw.split(",")], lambda: float(raw)):
        try:
            value = reading()
            break
        except (KeyError, ValueError):
            continue
    if value is None and len(raw) > 1 and raw[0] == raw[-1] == '"':
        value = raw[1:-1]
    if value is None or not separator or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER or NAME=true")
    return name, value[0] if isinstance(value, list) and len(value) == 1 else value


def count(text: str) -> int:
    """A number of samples or threads: at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def fraction(text: str) -> float:
    """A tolerance: at least 0, finite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value


def seconds(text: str) -> float:
    """A span of time: more than 0, finite."""
    value = fraction(text)
    if value == 0.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def load_model(args: argparse.Namespace) -> Any:
    """The module of MODEL."""
    from compiler.frontend.load import load

    return load(args.model, shapes=dict(args.shape), bindings=dict(args.bind))


def inputs_of(module: Any) -> Sequence[Input]:
    """What a module takes, for `compiler.samples`."""
    from compiler.samples import Input

    return [Input(a.name, a.type.static_shape, a.type.dtype.numpy) for a in module.main.arguments]


def load_passes(args: argparse.Namespace) -> None:
    from compiler.pass_manager import load_pass_file

    for path in args.load_pass:
        load_pass_file(path)


class Watching:
    """The instruments the user asked for, and what they have to say afterwards."""

    def __init__(self, args: argparse.Namespace) -> None:
        from compiler.instruments import DumpIR, TimePasses
        from compiler.pass_manager import Statistics

        self.statistics = Statistics()
        self.times = TimePasses() if args.time_passes else None
        self.instruments: list[Any] = [self.times] if self.times else []
        self.dump: DumpIR | None = None
        if args.dump_dir is not None:
            make_folder(args.dump_dir)
        if args.dump_ir or args.dump_dir:
            stream = sys.stderr if getattr(args, "json", False) else None  # which has the output for itself
            self.dump = DumpIR.parse(args.dump_ir or "changed", args.dump_dir, stream)
            self.instruments.append(self.dump)
        self.show_statistics = args.pass_stats

    def report(self) -> None:
        """Print times and counts, to the standard error stream."""
        for name in self.dump.unseen if self.dump is not None else ():
            tell([Diagnostic(code="E408", severity="warning", message=f"nothing dumped: no pass {name!r} was run")])
        if self.times is not None:
            print(self.times, file=sys.stderr)
        if self.show_statistics:
            print(str(self.statistics) or "the passes counted nothing", file=sys.stderr)


def tell(diagnostics: Iterable[Diagnostic]) -> None:
    """Warnings, to the standard error stream."""
    for diagnostic in diagnostics:
        print(diagnostic.render(), file=sys.stderr)


def print_json(value: Any) -> None:
    print(json.dumps(_plain(value), indent=2, default=str, allow_nan=False))


def _plain(value: Any) -> Any:
    """JSON knows no infinities: they, and NaN, become null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def writable(path: Path | None, kind: str, *inputs: Path | None) -> None:
    """Check that a path can be written later, is not named as files of another kind than `kind` (a suffix), and
    replaces none of `inputs`; better told before the work than after.

    None, an option not given, is fine. Raises CompilerError E101.
    """
    if path is None:
        return
    if os.path.isdir(path):
        raise error("E101", "is a folder, give a file name", where=str(path))
    if os.path.exists(path) and not os.path.isfile(path):
        raise error("E101", "is a device or a pipe, which a file would take the place of", where=str(path))
    if not os.path.isdir(path.parent):
        raise error("E101", "the folder does not exist", where=str(path.parent), help=f"mkdir -p {path.parent}")
    if path.resolve() in [i.resolve() for i in inputs if i is not None]:
        raise error("E101", "the output would replace an input", where=str(path), help="give another name")
    known = {suffix for found in FORMATS for suffix in found.suffixes}
    if path.suffix.lower() in known - {kind}:
        help = f"name it {path.with_suffix(kind)}"
        raise error("E101", f"what is written there is no {path.suffix} file", where=str(path), help=help)
    if not os.access(path.parent, os.W_OK):
        raise error("E101", "the folder cannot be written to", where=str(path.parent))


def make_folder(folder: Path) -> None:
    """Make a folder for files that are written later. Raises CompilerError E101."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        reason = "is a file, give a folder" if os.path.isfile(folder) else f"cannot make the folder: {fault.strerror}"
        raise error("E101", reason, where=str(folder)) from None


def check_scheme_is_used(scheme: Path | None, pipeline: str, option: str = "-p") -> None:
    """Raise CompilerError E102 for a scheme that no pass would read."""
    from compiler.pass_manager import parse_pipeline

    if scheme is not None and not {p.name for p in parse_pipeline(pipeline)} & {"quantize", "take-pixels"}:
        raise error("E102", f"--scheme is for the pass quantize, and {option} does not name it")


def check_preprocess(args: argparse.Namespace, source: str) -> None:
    """Raise CompilerError E102 for --preprocess beside arrays, which nothing is done to."""
    if args.preprocess and not os.path.isdir(source):
        help = "leave it out, or give the folder of images"
        raise error("E102", "--preprocess is for images; arrays are taken as they are", where=source, help=help)


def arrays_in(source: str | Path) -> set[str]:
    """Names of the arrays a .npz file holds; none for a folder, or a file that is none."""
    import zipfile

    try:
        with zipfile.ZipFile(source) as file:
            return {name.removesuffix(".npy") for name in file.namelist()}
    except (OSError, zipfile.BadZipFile):
        return set()


def open_data(source: str | Path, inputs: Sequence[Input], preprocess: Any = None, limit: int = 0) -> Any:
    """The samples of a folder or file, with warnings of what was taken for granted: images and integers as they are
    (networks hardly ever want that), arrays by another name."""
    from compiler.samples import open_samples

    samples = open_samples(source, inputs, preprocess, limit)
    if preprocess is None and os.path.isdir(source) and inputs[0].dtype.kind == "f":
        message = "images are taken as they are: RGB, 0 to 255, neither resized nor normalised"
        help = "say what the network was trained on: --preprocess size=256,crop=224,mean=…,std=…"
        tell([Diagnostic(code="E116", severity="warning", message=message, where=str(source), help=help)])
    tell(samples.warnings)
    return samples


def open_calls(source: str | Path, module: Any, preprocess: Any = None, limit: int = 0) -> Any:
    """The samples for the inputs of a module. What a network remembers need not be among them: the module is then run
    over them in order."""
    from compiler.samples import Calls

    remembered = set(module.attributes.get("state", {}).values())
    if remembered <= arrays_in(source):  # states are given like other inputs
        remembered = set()
    samples = open_data(source, [i for i in inputs_of(module) if i.name not in remembered], preprocess, limit)
    return Calls(module, samples) if remembered else samples


MODEL_OR_OFFLINE = replace(MODEL, what="a model or an offline model", suffixes=(*MODEL.suffixes, *OFFLINE.suffixes))
TWIN = replace(OFFLINE, what="an offline model or IR text", suffixes=(*OFFLINE.suffixes, *IR.suffixes))
FILES: Mapping[str, Wanted] = {
    "model": MODEL, "against": MODEL, "calibrate": DATA, "data": DATA, "inputs": DATA, "scheme": SCHEME,
    "load_pass": PASS_FILE, "board": BOARD,
}  # fmt: skip
"""What the arguments take that name files, where a verb's own `FILES` does not say otherwise."""


def check_files(args: argparse.Namespace, verb: str, own: Mapping[str, Wanted]) -> None:
    """Raise CompilerError with every file of the command line that is missing, or cannot be what is asked for."""
    faults: list[Diagnostic] = []
    for name, wanted in {**own, **{n: w for n, w in FILES.items() if n not in own}}.items():
        given = getattr(args, name, None)
        for path in given if isinstance(given, list) else [given]:
            fault = _file_fault(path, wanted, verb)
            faults += [fault] if fault is not None else []
    if faults:
        raise CompilerError(faults)


def _file_fault(path: Any, wanted: Wanted, verb: str) -> Diagnostic | None:
    if not isinstance(path, str | Path) or (wanted is BOARD and Path(path).suffix not in BOARD.suffixes):
        return None  # not given, a flag of the same name, or a board that mluc knows by its name
    path = Path(path)
    if wanted is OFFLINE and path.suffix.lower() in MODEL.suffixes and path.exists():
        made = path.with_suffix(".cambricon").name
        return Diagnostic(
            code="E103", message=f"is a model to be compiled; mluc {verb} takes the offline model that is made of it",
            where=str(path), help=f"mluc compile {path} -o {made} --calibrate DATA && mluc {verb} {made} …",
        )  # fmt: skip
    return fault_of(path, wanted)


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Any]:
    """A progress bar for work over a second, only on a terminal; gives a function that takes the number done."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
