"""The journey from a model to an offline model, as one readable function, and the steps that scripts take one by one.

`compile_model` is what follows calibration: quantise, choose the layout, split between chip and host, lower, fuse,
schedule, place, emit. Everything before it (load, prepare, prune) is pipelines and frontends; nothing here knows an op
or a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.errors import CompilerError, Diagnostic, InternalError, did_you_mean, error
from compiler.instruments import Instrument, VerifyEach
from compiler.ir.core import Module, Op
from compiler.pass_manager import (
    PassContext,
    PassManager,
    make_pass,
    parse_pipeline,
    place_of,
    print_pipeline,
    run_pipeline,
)
from compiler.reproducer import reproduce
from compiler.target import load_target

if TYPE_CHECKING:
    from compiler.frontend.lint import LintReport
    from passes.quantization.scheme import Scheme
    from targets.mlu220.container import OfflineModel

TARGET = "mlu220"
INPUT_TYPES = ("float", "uint8")
SCHEME = "scheme.toml"
"""The constant of a module that holds the text of the scheme it was quantised with."""


def prepare(module: Module, extra: str = "", **options: Any) -> Module:
    """The module calibration runs on: pipeline `prepare`, then `extra` passes (pruning, passes of one's own), which are
    noted on it."""
    _check_module(module)
    module = run_pipeline(module, ",".join(filter(None, ("prepare", extra))), **options)
    if extra:
        module.attributes["passes"] = extra
    return module


def calibrate(module: Module, batches: Iterable[Any], method: str = "auto", **options: Any) -> Scheme:
    """The quantisation scheme of a prepared module on calibration data; see `passes.quantization.calibrate`."""
    from passes.quantization.calibrate import calibrate as run

    _check_module(module)
    if isinstance(batches, Mapping | str | Path):
        help = "compiler.calibrate(module, [batch]); a batch is an array, or a dictionary of arrays by input name"
        raise error("E526", f"calibration takes batches one after the other, not a {type(batches).__name__}", help=help)
    return run(module, batches, method, **options)


def pipeline_text(
    float_type: str = "f16", keep_float: Sequence[str] = (), i16: Sequence[str] = (), pixels: bool = False
) -> str:
    """The pipeline from a prepared module to scheduled kernels with addresses, as text with these options. `pixels`:
    the input becomes uint8, preprocessing is done on the chip."""
    made = [make_pass("take-pixels", {"keep-float": tuple(keep_float), "i16": tuple(i16)})] if pixels else []
    for pass_ in parse_pipeline(f"quantize,{TARGET}"):
        if pass_.name == "quantize":
            pass_ = make_pass("quantize", {"keep-float": tuple(keep_float), "i16": tuple(i16)})
        elif pass_.name == "legalize":
            pass_ = make_pass("legalize", {"float": float_type})
        made.append(pass_)
    return print_pipeline(made)


def compile_model(
    module: Module,
    *,
    scheme: Scheme | str | Path | None = None,
    board: str = "m2",
    cores: int = 4,
    float_type: str = "f16",
    input_type: str = "float",
    pipeline: str | None = None,
    instruments: Sequence[Instrument] = (),
    verify_each: bool = True,
    crash_directory: str | Path | None = ".",
    diagnostics: list[Diagnostic] | None = None,
    statistics: Any = None,
) -> OfflineModel:
    """The offline model of a prepared module.

    `scheme`: what `calibrate` gave, or the path of a scheme file. `pipeline`: text to run instead of the default, from
    quantize on; a dump taken after some pass is resumed with the passes that remain. `float_type`: f16 or f32, for
    everything the matrix unit does not compute. `input_type`: uint8 makes the input pixels (NHWC), the preprocessing
    noted on it part of the network. Warnings go to `diagnostics`, counts to `statistics`, where given.
    Raises CompilerError.
    """
    _check_module(module)
    _check_choices(float_type, input_type, pipeline)
    target = load_target(TARGET, board=board, cores=cores)
    options = {}
    if scheme is not None:  # as text: options are plain data, so that a reproducer can hold them
        options["scheme"] = str(scheme) if isinstance(scheme, str | Path) else scheme.to_toml()
    ctx = PassContext(target=target, options=options)
    if diagnostics is not None:
        ctx.diagnostics = diagnostics
    if statistics is not None:
        ctx.statistics = statistics
    module = module.clone()
    module.attributes.update(target=target.name, board=board, cores=cores)
    watchers = [*([VerifyEach()] if verify_each else []), *instruments]  # outermost: a broken module is dumped first
    text = pipeline if pipeline is not None else pipeline_text(float_type, pixels=input_type == "uint8")
    _note_origin(module, text, options.get("scheme"))
    PassManager(text, watchers, ctx, crash_directory=crash_directory).run(module)
    model = emit(module, ctx, crash_directory)
    model.metadata |= {**_scheme_of(module), **_host_reasons(module)}
    return model


def _check_module(module: Any) -> None:
    if not isinstance(module, Module):
        help = "give what compiler.load gave: module = compiler.prepare(compiler.load('model.onnx'))"
        raise error("E102", f"a {type(module).__name__} is no module", help=help)


def _check_choices(float_type: str, input_type: str, pipeline: str | None) -> None:
    for name, value, known in (("float_type", float_type, ("f16", "f32")), ("input_type", input_type, INPUT_TYPES)):
        if value not in known:
            raise error("E102", f"{name} cannot be {value!r}", help=did_you_mean(str(value), known))
    if pipeline is not None and (float_type, input_type) != ("f16", "float"):
        help = "write into it: legalize{float=f32}, take-pixels"
        raise error("E102", "the pipeline says all the passes, and float_type and input_type nothing", help=help)


def _note_origin(module: Module, pipeline: str, scheme: str | None) -> None:
    """Note in the module how it is compiled: the file says so, and `mluc compare` makes the same again from it. What is
    resumed from a dump says the same as what was not interrupted.
    """
    if not str(module.attributes.get("pipeline", "")).endswith(pipeline):
        module.attributes["pipeline"] = pipeline
    if scheme is not None and ("\n" in scheme or Path(scheme).is_file()):  # `quantize` reports a file that is not there
        text = scheme.encode() if "\n" in scheme else Path(scheme).read_bytes()
        module.constants.pop(SCHEME, None)
        module.add_constant(SCHEME, np.frombuffer(text, np.uint8))
        module.attributes["scheme"] = f"@{SCHEME}"


def _scheme_of(module: Module) -> dict[str, str]:
    """The scheme a module was quantised with, as text."""
    noted = module.constants.get(SCHEME)
    return {} if noted is None else {"scheme": noted.data.tobytes().decode(errors="replace")}


def _host_reasons(module: Module) -> dict[str, dict[str, list[str]]]:
    """Why host segments are not on the chip."""
    found = {f.name: list(f.attributes["reasons"]) for f in module.functions.values() if f.attributes.get("reasons")}
    return {"host_reasons": found} if found else {}


def emit(module: Module, ctx: PassContext, crash_directory: str | Path | None = ".") -> OfflineModel:
    """The offline model of a module after the target's pipeline. Raises InternalError, a reproducer written, when the
    target's `emit` crashes."""
    try:
        return ctx.target.emit(module)
    except (CompilerError, InternalError):
        raise
    except Exception as crash:
        message = f"{type(crash).__name__}: {crash}"
        path, replay = None, ""
        if crash_directory is not None:
            path, replay = reproduce(Path(crash_directory) / "crash-emit.mlu", module, [], message, ctx, emit=True)
        told = f"; replay it with: {replay}" if replay else ""
        message = f"emit crashed: {message} ({place_of(crash)}){told}"
        raise InternalError(message, str(path) if path else None) from crash


def lint_model(
    path: str | Path, shapes: Any = None, bindings: Any = None, *, board: str = "m2", cores: int = 4
) -> LintReport:
    """What becomes of every node of a model, chip or host included, without data: ranges are made up, nothing is
    compiled."""
    from compiler.frontend.lint import lint
    from compiler.frontend.load import load

    report = lint(path, None, shapes, bindings)
    if not report.ok:
        return report
    target = load_target(TARGET, board=board, cores=cores)
    module = prepare(load(path, shapes, bindings))
    module = run_pipeline(
        module, "quantize,convert-layout", target=target, options={"scheme": pretended_scheme(module)}
    )
    reasons = {
        node: reason for op in module.main.body if op.op_name not in ("graph.return", "tensor.transpose")
        if (reason := target.supports(op)) for node in op.location.nodes
    }  # fmt: skip
    return lint(path, _KnownAnswers(reasons), shapes, bindings)


@dataclass(frozen=True)
class _KnownAnswers:
    """Reasons found on the prepared module, by node of the model."""

    reasons: dict[str, str]

    def supports(self, op: Op) -> str | None:
        return next((self.reasons[n] for n in op.location.nodes if n in self.reasons), None)


def pretended_scheme(module: Module) -> Scheme:
    """A scheme that quantises all that can be, every range being [-1, 1]: for figures that need no results."""
    from compiler.ir.types import DType
    from passes.quantization.layers import computed_inputs, integer_layers
    from passes.quantization.scheme import Scheme, TensorScheme

    entry = TensorScheme.clipped(DType.I8, 1.0, 1.0, "minmax")
    names = {v.name for op in integer_layers(module.main) for v in computed_inputs(op)}
    return Scheme(tensors=dict.fromkeys(sorted(names), entry))
