"""The journey from a model to an offline model, as one readable function, and the steps that scripts take one by one.

`compile_model` is what follows calibration: quantise, choose the layout, split between chip and host, lower, fuse, schedule,
place, emit. Everything before it (load, prepare, prune) is pipelines and frontends; nothing here knows an op or a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.errors import Diagnostic
from compiler.instruments import Instrument, VerifyEach
from compiler.ir.core import Module
from compiler.pass_manager import PassContext, PassManager, parse_pipeline, run_pipeline
from compiler.target import Target, load_target

if TYPE_CHECKING:
    from passes.quantization.scheme import Scheme
    from targets.mlu220.container import OfflineModel

TARGET = "mlu220"


def prepare(module: Module, extra: str = "", **options: Any) -> Module:
    """The module calibration runs on: pipeline `prepare`, then `extra` passes (pruning, passes of one's own)."""
    return run_pipeline(module, ",".join(filter(None, ("prepare", extra))), **options)


def calibrate(module: Module, batches: Iterable[Any], method: str = "auto", **options: Any) -> Scheme:
    """The quantisation scheme of a prepared module on calibration data; see `passes.quantization.calibrate`."""
    from passes.quantization.calibrate import calibrate as run

    return run(module, batches, method, **options)


def default_pipeline(target: Target, float_type: str = "f16") -> str:
    """What `compile_model` runs: the text of `quantize` and the target's pipeline."""
    text = f"quantize,{target.pipeline}"
    if float_type != "f16":
        text = ",".join(str(p) for p in parse_pipeline(text)).replace("legalize", f"legalize{{float={float_type}}}", 1)
    return text


def compile_model(
    module: Module,
    *,
    scheme: Scheme | str | Path | None = None,
    board: str = "m2",
    cores: int = 4,
    float_type: str = "f16",
    pipeline: str | None = None,
    instruments: Sequence[Instrument] = (),
    verify_each: bool = True,
    crash_directory: str | Path | None = ".",
    diagnostics: list[Diagnostic] | None = None,
    statistics: Any = None,
) -> OfflineModel:
    """The offline model of a prepared module.

    `scheme`: what `calibrate` gave, or the path of a scheme file. `pipeline`: text to run instead of the default, from
    quantize on; a dump taken after some pass is resumed with the passes that remain. `float_type`: f16 or f32, for everything
    the matrix unit does not compute. Warnings go to `diagnostics`, counts to `statistics`, where given. Raises CompilerError.
    """
    target = load_target(TARGET, board=board, cores=cores)
    options = {} if scheme is None else {"scheme": scheme if not isinstance(scheme, Path) else str(scheme)}
    ctx = PassContext(target=target, options=options)
    if diagnostics is not None:
        ctx.diagnostics = diagnostics
    if statistics is not None:
        ctx.statistics = statistics
    module = module.clone()
    module.attributes.update(target=target.name, board=board, cores=cores)
    watchers = [*instruments, *([VerifyEach()] if verify_each else [])]
    text = pipeline if pipeline is not None else default_pipeline(target, float_type)
    PassManager(text, watchers, ctx, crash_directory=crash_directory).run(module)
    return target.emit(module)
