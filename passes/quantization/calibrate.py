"""Calibration: data in, scheme out.

Runs the float module on images, one at a time, and watches the inputs of the layers the matrix unit will compute, with
memory that does not grow with the number of images. The module is only read. The result is a `Scheme`: reproducible per
machine, and the reproducible input of all that follows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from compiler.errors import CompilerError, Diagnostic, did_you_mean, error
from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Argument, Module, Value
from compiler.ir.types import DType
from passes.quantization.layers import integer_layers, module_hash, shortcuts, values_of, without_range
from passes.quantization.observers import METHODS, HistogramObserver, RangeObserver
from passes.quantization.scheme import F16_MAX, HEADROOM, RESIDUALS, WEIGHT_ROUNDINGS, WEIGHTS, Scheme, TensorScheme
from passes.quantization.trials import CANDIDATES, Sample, Trials, judged
from passes.quantization.widen import widened

Batch = np.ndarray | Mapping[str, np.ndarray] | tuple[np.ndarray, ...] | list[np.ndarray]
Progress = Callable[[int], None]
"""Called with the number of images done."""

AUTO = CANDIDATES[0]
"""What method `auto` takes where nothing speaks for another: of the ways that clip rare values, the one that lost least
over the shared models. Points of top-1 lost with 64 calibration images and balanced weights, in brackets with mse:
SqueezeNet 0.0 (1.0), MobileNetV2 0.0 (0.2), ResNet-20 0.0 (0.1)."""

KEPT = 8
"""Samples that `auto` tries schemes on, spread evenly over the data."""


def calibrate(
    module: Module,
    batches: Iterable[Batch],
    method: str = "auto",
    bits: int = 8,
    *,
    weights: str = "per-channel",
    weight_rounding: str = "balanced",
    residuals: str = "float",
    pipeline: str = "prepare",
    progress: Progress | None = None,
) -> Scheme:
    """The scheme that fits `module`, a prepared float module, on `batches`.

    Method `auto` chooses by the network's outputs on some of the samples (see `trials` and `widen`). A batch is an
    array for a module of one input, a dict by input name, or a sequence in order of the inputs. Where its first axis is
    a multiple of the module's, it is split; where it lacks the axis and the module's batch is 1, it gets it. Raises
    CompilerError for no data, data that do not fit, and tensors that are all zero, NaN or infinite.
    """
    _check_options(method, bits, weights, weight_rounding, residuals)
    auto, method = method == "auto" and bits == 8, AUTO if method == "auto" else method
    calibrated, module = module, judged(module)
    wanted = _wanted(module, residuals)
    observers = _observers(module, "minmax" if bits == 16 else method, wanted)
    watched = _Watched(module, observers, KEPT if auto else 0, progress)
    for batch in batches:
        for inputs in feeds(module, batch):
            watched.run(inputs)
    if not watched.seen:
        raise error("E526", "there are no calibration data", help="give at least one image; 64 or more are advised")
    storage = DType.I16 if bits == 16 else DType.I8

    def scheme(method: str) -> Scheme:
        return Scheme(
            tensors=_entries(observers, wanted, method, storage), method=method, bits=bits, weights=weights,
            weight_rounding=weight_rounding, residuals=residuals, pipeline=pipeline,
        )  # fmt: skip

    _check_ranges(observers, wanted)
    found = _decided(Trials(module, watched.kept), scheme) if auto and wanted else scheme(method)
    return dataclasses.replace(found, module=module_hash(calibrated))


def _decided(trials: Trials, scheme: Callable[[str], Scheme]) -> Scheme:
    """What `auto` means for a network: the method and the wide layers that its outputs speak for."""
    schemes = {name: scheme(name) for name in CANDIDATES}
    method, errors = trials.best(schemes)
    told = ", ".join(f"{name} {100 * value:.1f} %" for name, value in errors.items())
    note = f"auto chose {method}; rare errors of the outputs: {told}"
    return widened(trials.module, trials, dataclasses.replace(schemes[method], notes=(note,)))


class _Watched:
    """The module run on samples in float, observed. Some samples and their outputs are kept, spread evenly: every
    second one is dropped, and from then on passed by, whenever there are too many."""

    def __init__(
        self, module: Module, observers: dict[Value, RangeObserver], wanted: int, progress: Progress | None
    ) -> None:
        self.interpreter = Interpreter(module)
        self.observers = observers
        self.progress = progress
        self.wanted = wanted
        self.stride = 1
        self.seen = 0
        self.kept: list[Sample] = []

    def run(self, inputs: list[np.ndarray]) -> None:
        """Observe a sample."""
        outputs = self.interpreter.run(inputs, lambda value, array: _observe(self.observers, value, array))
        if self.wanted and self.seen % self.stride == 0:
            if len(self.kept) == self.wanted:
                self.kept = self.kept[::2]
                self.stride *= 2
            if self.seen % self.stride == 0:
                self.kept.append(([a.copy() for a in inputs], [a.copy() for a in outputs]))
        self.seen += 1
        if self.progress is not None:
            self.progress(self.seen)


def _check_options(method: str, bits: int, weights: str, weight_rounding: str, residuals: str) -> None:
    choices: list[tuple[str, object, tuple]] = [
        ("method", method, ("auto", *METHODS)), ("bits", bits, (8, 16)), ("weights", weights, WEIGHTS),
        ("weight_rounding", weight_rounding, WEIGHT_ROUNDINGS),
        ("residuals", residuals, RESIDUALS),
    ]  # fmt: skip
    faults = [
        Diagnostic(
            code="E527", op="calibrate", message=f"{name} {value!r} is not known",
            help=did_you_mean(str(value), map(str, words)),
        )
        for name, value, words in choices
        if value not in words
    ]  # fmt: skip
    if faults:
        raise CompilerError(faults)


# -- observing ---------------------------------------------------------------------------------------------------------
def _wanted(module: Module, residuals: str) -> set[Value]:
    """The values that will be quantised."""
    wanted = {v for op in integer_layers(module.main) for v in without_range(op)}
    if residuals == "i8":
        wanted |= {op.inputs[index] for op, index in shortcuts(module.main)}
    return wanted


def _observers(module: Module, method: str, wanted: set[Value]) -> dict[Value, RangeObserver]:
    """An observer for each float value: the method's for those to be quantised, the range for the others."""
    kind = METHODS[method].observer
    return {
        value: kind() if value in wanted else RangeObserver()
        for value in values_of(module.main)
        if value.type.dtype.is_float
    }


def _observe(observers: dict[Value, RangeObserver], value: Value, array: np.ndarray) -> None:
    observer = observers.get(value)
    if observer is not None:
        observer.observe(array)


def feeds(module: Module, batch: Batch) -> Iterator[list[np.ndarray]]:
    """A batch as runs of the module: inputs in order, split along the first axis. Raises CompilerError where it cannot
    fit.
    """
    arguments = module.main.arguments
    given = _in_order(arguments, batch)
    parts = [_split(argument, np.asarray(array)) for argument, array in zip(arguments, given, strict=True)]
    counts = {len(p) for p in parts}
    if len(counts) > 1:
        raise error("E526", f"inputs of one batch hold different numbers of images: {sorted(counts)}")
    yield from (list(run) for run in zip(*parts, strict=True))


def _in_order(arguments: list[Argument], batch: Batch) -> list[np.ndarray]:
    names = [a.name for a in arguments]
    if isinstance(batch, Mapping):
        faults = [
            Diagnostic(code="E526", message=f"calibration data name an input {name!r}", help=did_you_mean(name, names))
            for name in batch
            if name not in names
        ]
        faults += [
            Diagnostic(code="E526", message=f"calibration data lack input {n!r}") for n in names if n not in batch
        ]
        if faults:
            raise CompilerError(faults)
        return [batch[name] for name in names]
    given = list(batch) if isinstance(batch, tuple | list) else [batch]
    if len(given) != len(arguments):
        raise error("E526", f"the module has {len(arguments)} inputs ({', '.join(names)}), the batch {len(given)}")
    return given


def _split(argument: Argument, array: np.ndarray) -> list[np.ndarray]:
    """An array as arrays of the argument's own shape."""
    shape = argument.type.shape
    array = array.astype(argument.type.dtype.numpy, copy=False)
    if array.ndim == len(shape) - 1 and shape[0] in (1, None):
        array = array[None]
    if array.ndim != len(shape) or not all(
        b is None or a == b for a, b in zip(array.shape[1:], shape[1:], strict=True)
    ):
        raise error(
            "E526", f"input {argument.name!r} has shape {_shape(shape)}, calibration data {_shape(array.shape)}"
        )
    if not shape or shape[0] in (None, array.shape[0]):
        return [array]
    if array.shape[0] % shape[0]:
        raise error("E526", f"{array.shape[0]} images do not fill batches of {shape[0]} of input {argument.name!r}")
    return list(array.reshape(-1, *shape))  # type: ignore[arg-type]


def _shape(shape: tuple) -> str:
    return "x".join("?" if d is None else str(d) for d in shape)


# -- deciding ----------------------------------------------------------------------------------------------------------
def _check_ranges(observers: dict[Value, RangeObserver], wanted: set[Value]) -> None:
    """Raise CompilerError naming every tensor whose range means nothing; of those that held no numbers the first, which
    the others follow from."""
    faults = []
    odd = [value for value in observers if value in wanted and observers[value].not_finite]
    for value in odd[:1]:
        count = observers[value].not_finite
        message = f"{value.name!r} held {count} NaN or infinite elements during calibration"
        note = f"and so did tensors after it: {len(odd) - 1}" if len(odd) > 1 else ""
        help = "check the preprocessing (mean, std, value range) and the model"
        faults.append(_range_fault(value, message, help, note))
    for value, observer in observers.items():
        if value in wanted and not observer.not_finite and observer.absmax == 0.0:
            message = f"{value.name!r} was zero in all calibration data, so it has no range"
            help = "calibrate with data that reach it, or keep the layer that takes it float"
            faults.append(_range_fault(value, message, help))
    if faults:
        raise CompilerError(faults)


def _range_fault(value: Value, message: str, help: str, note: str = "") -> Diagnostic:
    where = str(value.producer.location) if value.producer is not None else "an input of the model"
    notes = (note,) if note else ()
    return Diagnostic(code="E526", op="calibrate", message=message, where=where, help=help, notes=notes)


def _entries(
    observers: dict[Value, RangeObserver], wanted: set[Value], method: str, storage: DType
) -> dict[str, TensorScheme]:
    """An entry for each value to be quantised, and for each float value fp16 could overflow on."""
    entries: dict[str, TensorScheme] = {}
    for value, observer in observers.items():
        if value in wanted:
            used = method if isinstance(observer, HistogramObserver) else "minmax"
            clip = METHODS[used].clip(observer, 127)
            entries[value.name] = TensorScheme.clipped(storage, observer.absmax, clip, used)
        elif observer.absmax * HEADROOM > F16_MAX:
            entries[value.name] = TensorScheme(
                type=DType.F32, absmax=float(np.float32(observer.absmax)), method="range"
            )
    return entries
