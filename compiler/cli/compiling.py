"""What `compile` and `profile` share: the arguments that say how a model is compiled, and the way from MODEL to an
offline model of any batch and number of cores."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from compiler.cli import arguments
from compiler.errors import Diagnostic, error


def compile_arguments(parser: argparse.ArgumentParser) -> None:
    """Quantisation, passes, target and batch; MODEL itself is `arguments.model_arguments`."""
    group = parser.add_argument_group("quantisation")
    group.add_argument("--calibrate", metavar="DIR|NPZ", help="folder of images, or file of arrays, to calibrate on")
    group.add_argument(
        "--images", type=arguments.count, default=0, metavar="N", help="calibrate on at most N samples (default: all)"
    )
    group.add_argument(
        "--method", default="auto", metavar="NAME", help="calibration method, see mluc list calibrators (default: auto)"
    )
    group.add_argument("--scheme", type=Path, metavar="Q.toml", help="use a scheme file instead of calibrating")
    group.add_argument(
        "--keep-float", action="append", default=[], metavar="LAYER",
        help="keep a layer, by name or pattern, in float: it runs on the host; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--i16", action="append", default=[], metavar="LAYER",
        help="give a layer, by name or pattern, 16-bit integers; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--asymmetric", choices=("i8", "i16", "reals"), default="i8",
        help="what values become that the model stores unsigned or with a zero point: 8 bits over the same range, "
        "16 bits that hold them exactly, or reals that are calibrated anew (default: i8)",
    )  # fmt: skip
    group.add_argument(
        "--float", choices=("f16", "f32"), default="f16",
        help="type of all that the matrix unit does not compute (default: f16)",
    )  # fmt: skip
    arguments.data_arguments(group)
    group.add_argument(
        "--input-type", choices=("float", "uint8"), default="float",
        help="uint8: the model takes pixels, NHWC, and does --preprocess's arithmetic itself (default: float)",
    )  # fmt: skip
    passes = parser.add_argument_group("passes")
    passes.add_argument(
        "-p", "--passes", default="", metavar="'a,b{x=1}'", help="passes to run after prepare, before calibration"
    )
    passes.add_argument(
        "--pipeline", metavar="'a,b{x=1}'",
        help="run exactly these passes, from quantize on, instead of all of mluc's",
    )  # fmt: skip
    arguments.target_arguments(parser)
    parser.add_argument(
        "--batch", type=arguments.count, default=1, metavar="B",
        help="samples that one run of the file takes, for a model made for one (default: 1)",
    )  # fmt: skip


def check_combination(args: argparse.Namespace) -> None:
    """Raise CompilerError E102 for arguments that exclude or need each other."""
    if args.calibrate and args.scheme:
        raise error("E102", "--calibrate and --scheme exclude each other", help="a scheme is what calibration gives")
    if args.pipeline is not None:
        _check_pipeline(args)
    _check_passes(args.passes)
    if args.images and not args.calibrate:
        raise error("E102", "--images needs --calibrate")
    if args.method != "auto" and not args.calibrate:
        raise error("E102", "--method needs --calibrate", help="a scheme has its ranges already" if args.scheme else "")


INTO_THE_PIPELINE = {
    "passes": "the passes of -p", "keep_float": "quantize{keep-float=[…]}", "i16": "quantize{i16=[…]}",
    "float": "legalize{float=f32}", "batch": "replicate{batch=…}", "asymmetric": "drop-asymmetric{to=…}",
    "input_type": "take-pixels",
}  # fmt: skip
"""Arguments that are passes or their options, and what --pipeline says for them."""


def _check_pipeline(args: argparse.Namespace) -> None:
    given = [name for name in INTO_THE_PIPELINE if name in args.given]
    if given:
        told = ", ".join(INTO_THE_PIPELINE[name] for name in given)
        raise error("E102", f"--pipeline says all the passes; write into it: {told}")
    if args.calibrate:
        help = "calibrate once with --save-scheme q.toml, then give --scheme q.toml"
        raise error("E102", "--pipeline starts after calibration", help=help)
    arguments.check_scheme_is_used(args.scheme, args.pipeline, "--pipeline")


def _check_passes(text: str) -> None:
    """-p is for float modules: what compile runs by itself after calibration cannot run before it."""
    from compiler.driver import pipeline_text
    from compiler.pass_manager import parse_pipeline

    own = {p.name for p in parse_pipeline(pipeline_text())}
    early = [p.name for p in parse_pipeline(text) if p.name in own] if text else []
    if early:
        told = f"-p runs before calibration, {', '.join(early)} after it"
        raise error("E102", told, help="compile runs them by itself; --pipeline says all the passes")


class Compiling:
    """MODEL on its way to offline models. It is calibrated once, with batch 1 where it is made for it. An IR file of a
    quantised module goes on from there.

    `pretend`: make up the ranges where there is neither data nor scheme, which gives figures but no results.
    """

    def __init__(self, args: argparse.Namespace, watching: Any = None, pretend: bool = False) -> None:
        self.args = args
        self.watching = watching
        self.pretend = pretend
        self.diagnostics: list[Diagnostic] = []
        self._scheme: Any = args.scheme
        self._modules: dict[int, tuple[Any, int]] = {}

    def model(self, batch: int, cores: int) -> Any:
        """The offline model."""
        from compiler import driver
        from compiler.batch import replicated

        args = self.args
        options: dict[str, Any] = {"board": args.board, "cores": cores, "diagnostics": self.diagnostics}
        if self.watching is not None:
            options |= {
                "instruments": self.watching.instruments, "statistics": self.watching.statistics,
                "verify_each": not args.no_verify_each,
            }  # fmt: skip
        if args.pipeline is not None:
            module = self._module
            self._note_preprocessing(module)
            return driver.compile_model(module, pipeline=args.pipeline, scheme=self.scheme(module), **options)
        if self.is_quantised():
            self._note_preprocessing(self._module)
            return driver.compile_model(self._module, pipeline=self._rest(batch), **options)
        module, copies = self._prepared(batch)
        pixels = args.input_type == "uint8"
        pipeline = driver.pipeline_text(args.float, args.keep_float, args.i16, pixels)
        return driver.compile_model(
            module, scheme=self.scheme(module), pipeline=replicated(pipeline, copies), **options
        )

    def is_quantised(self) -> bool:
        """Whether MODEL is an IR file of a quantised module, which needs no ranges any more. Raises CompilerError E102
        for one that is further on, and for arguments that come too late."""
        if self.args.model.suffix != ".mlu":
            return False
        module, where = self._module, str(self.args.model)
        if len(module.functions) > 1:
            help = "say which passes remain: --pipeline 'legalize,fuse-layers,…'"
            raise error("E102", "is split between chip and host already", where=where, help=help)
        if all(r.type.quant is None for op in module.ops() for r in op.results):
            return False
        early = ("calibrate", "scheme", "passes", "keep_float", "i16", "asymmetric", "input_type")
        given = ["--" + name.replace("_", "-") for name in early if name in self.args.given]
        if given:
            raise error("E102", f"is quantised already, {', '.join(given)} would come before that", where=where)
        return True

    def _rest(self, batch: int) -> str:
        """The pipeline from a quantised module on."""
        from compiler import driver
        from compiler.batch import replicated
        from compiler.pass_manager import parse_pipeline, print_pipeline

        passes = parse_pipeline(driver.pipeline_text(self.args.float))
        place = [p.name for p in passes].index("quantize") + 1
        return replicated(print_pipeline(passes[place:]), batch)

    def scheme(self, module: Any) -> Any:
        """The scheme asked for, calibrated when it is needed first."""
        from compiler import driver

        if self._scheme is None and self.args.calibrate:
            self._scheme = self._calibrated(module)
        elif self._scheme is None and self.pretend:
            self._scheme = driver.pretended_scheme(module)
        return self._scheme

    @cached_property
    def _module(self) -> Any:
        return arguments.load_model(self.args)

    def check(self) -> None:
        """Read MODEL now. Raises CompilerError where that, or the target, is not to be had."""
        self._module  # noqa: B018
        self._context()

    def _prepared(self, batch: int) -> tuple[Any, int]:
        """The prepared module, and how many copies of it make the batch."""
        from compiler import driver
        from passes.quantization.layers import module_hash

        if batch not in self._modules:
            module, copies = self._loaded(batch)
            self._note_preprocessing(module)
            watched = {}
            if self.watching is not None:
                watched = {"instruments": self.watching.instruments, "verify_each": not self.args.no_verify_each}
            prepared = driver.prepare(module, self.args.passes, ctx=self._context(), **watched)
            if batch != 1 and copies == 1 and (self.args.scheme or self.args.calibrate):
                prepared.attributes["scheme_for"] = module_hash(self._prepared(1)[0])  # one scheme for all batches
            self._modules[batch] = prepared, copies
        return self._modules[batch]

    def _loaded(self, batch: int) -> tuple[Any, int]:
        if batch == 1:
            return self._module, 1
        from compiler.batch import load_batch
        from compiler.frontend.load import load

        args = self.args
        return load_batch(lambda shapes: load(args.model, dict(args.shape) | dict(shapes), dict(args.bind)), batch)

    @cached_property
    def _preprocess(self) -> Any:
        from compiler.preprocess import Preprocess

        return Preprocess.parse(self.args.preprocess) if self.args.preprocess is not None else None

    def _note_preprocessing(self, module: Any) -> None:
        """Write the preprocessing asked for on the input."""
        if self._preprocess is None:
            self._check_pixels(module)
            return
        inputs = module.main.arguments
        if len(inputs) != 1:
            raise error("E102", f"--preprocess serves models of one input, this has {len(inputs)}")
        inputs[0].attributes["preprocessing"] = self._preprocess.as_dict()

    def _check_pixels(self, module: Any) -> None:
        """Warn where a network for pixels gets them as they are; a folder of images is warned of when it is opened."""
        told = self.pretend or Path(self.args.calibrate or "").suffix != ".npz"
        stated = any(a.attributes.get("preprocessing") for a in module.main.arguments)
        if self.args.input_type == "uint8" and not told and not stated:
            message = "pixels are taken as they are: RGB, 0 to 255, not normalised"
            help = "say what the network was trained on: --preprocess scale=…,mean=…,std=…"
            self.diagnostics.append(Diagnostic(code="E116", severity="warning", message=message, help=help))

    def _context(self) -> Any:
        from compiler.pass_manager import PassContext, Statistics
        from compiler.target import load_target

        target = load_target("mlu220", board=self.args.board, cores=self.args.cores)
        statistics = self.watching.statistics if self.watching is not None else Statistics()
        options = {"asymmetric": self.args.asymmetric}
        return PassContext(target=target, options=options, statistics=statistics, diagnostics=self.diagnostics)

    def _calibrated(self, module: Any) -> Any:
        from compiler import driver

        samples = arguments.open_calls(self.args.calibrate, module, self._preprocess, self.args.images)
        with arguments.progress("calibrating", len(samples)) as done:
            scheme = driver.calibrate(module, samples, self.args.method, progress=done)
        return replace(scheme, module=module.attributes.get("scheme_for", scheme.module))
