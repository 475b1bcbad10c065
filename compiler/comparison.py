"""Where a compiled model departs from the float model, value by value, on the same data.

The twin is the module after some pass: quantised, or legalised (the chip's own arithmetic, fp16 included). Values are
matched by name. Each has two errors against the float value: the accumulated one, everything before it being the
twin's too, and that of its op alone: the op is run on the float model's values, converted to what it takes. Beside
them stand the outputs of the offline model, run on the simulator. Only sums are kept, so memory does not grow with the
number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.errors import error
from compiler.evaluate.blas import blas_threads
from compiler.evaluate.control import CONTROL
from compiler.evaluate.interpreter import Inputs, Interpreter, match_inputs
from compiler.evaluate.quant import quantize
from compiler.evaluate.registry import evaluate_op
from compiler.ir.core import Block, Constant, Function, Module, Op, Value
from compiler.ir.types import DType
from compiler.preprocess import Preprocess

Arrays = dict[str, np.ndarray]
NHWC = (0, 2, 3, 1)


# -- sums ------------------------------------------------------------------------------------------------------------
@dataclass
class Errors:
    """One kind of error of one value over all samples: sums of squares, and the largest error and magnitude."""

    elements: int = 0
    signal: float = 0.0
    noise: float = 0.0
    largest_error: float = 0.0
    largest: float = 0.0

    @property
    def sqnr(self) -> float:
        """Signal to noise ratio in dB; inf where there is no error."""
        if self.noise == 0.0:
            return math.inf
        ratio = self.signal / self.noise
        return 10.0 * math.log10(ratio) if ratio > 0.0 else -math.inf

    def add(self, wanted: np.ndarray, found: np.ndarray) -> None:
        """Take the same value of one more sample into account. What is no number on one side only is an infinite
        error."""
        reference, other = (a.astype(np.float64).reshape(-1) for a in (wanted, found))
        same = (reference == other) | (np.isnan(reference) & np.isnan(other))
        with np.errstate(invalid="ignore"):
            difference = np.where(same, 0.0, np.abs(other - reference))
        difference[np.isnan(difference)] = math.inf
        finite = np.where(np.isfinite(reference), reference, 0.0)
        self.elements += reference.size
        self.signal += float(np.dot(finite, finite))
        self.noise += float(np.dot(difference, difference))
        self.largest_error = max(self.largest_error, float(difference.max(initial=0.0)))
        self.largest = max(self.largest, float(np.abs(finite).max(initial=0.0)))

    def as_dict(self) -> dict[str, object]:
        """Plain data, for `--json`."""
        return {"sqnr": self.sqnr, "largest_error": self.largest_error, "largest": self.largest}


@dataclass
class Difference:
    """A value's errors; `op` is the twin's op that defines it, `node` where that came from."""

    name: str
    op: str = ""
    node: str = ""
    accumulated: Errors = field(default_factory=Errors)
    alone: Errors = field(default_factory=Errors)

    def as_dict(self) -> dict[str, object]:
        """Plain data, for `--json`."""
        return {
            "name": self.name, "op": self.op, "node": self.node, "elements": self.accumulated.elements,
            "accumulated": self.accumulated.as_dict(), "alone": self.alone.as_dict(),
        }  # fmt: skip


@dataclass
class OutputDifference:
    """An output of the offline model (without one, of the twin) against the float model's; `same_bytes`: equal to the
    twin's in every sample."""

    name: str
    errors: Errors = field(default_factory=Errors)
    same_bytes: bool = True

    def as_dict(self) -> dict[str, object]:
        """Plain data, for `--json`."""
        return {"name": self.name, **self.errors.as_dict(), "same_bytes": self.same_bytes}


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: values in execution order, and the outputs of the offline model or else of the twin."""

    values: list[Difference]
    outputs: list[OutputDifference]
    samples: int

    def __iter__(self) -> Iterator[Difference]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def first(self, below: float) -> Difference | None:
        """The first value in execution order whose accumulated SQNR is below `below` dB."""
        return next((d for d in self.values if d.accumulated.sqnr < below), None)

    @property
    def worst(self) -> Difference | None:
        """The value that has lost most, with all before it."""
        return min(self.values, key=lambda d: d.accumulated.sqnr, default=None)

    @property
    def worst_alone(self) -> Difference | None:
        """The value whose own op loses most."""
        return min(self.values, key=lambda d: d.alone.sqnr, default=None)


# -- comparing -------------------------------------------------------------------------------------------------------
def compare(
    reference: Module,
    twin: Module,
    batches: Iterable[Inputs | np.ndarray],
    progress: Callable[[int], None] | None = None,
    session: Any = None,
) -> Comparison:
    """The errors of every float value of `reference` that `twin` has under the same name.

    Each batch is one run: an array, arrays in order of the inputs, or a dict by name. `twin` may be the module after
    any pass up to the end; values in the chip's layout are turned back. `session`: a `runtime.Session` of the offline
    model, whose outputs are compared too.
    """
    comparing = _Comparing(reference, twin, session)
    for batch in batches:
        comparing.take(batch)
        if progress is not None:
            progress(comparing.samples)
    order = [r.name for op in reference.main.body for r in op.results]
    values = [comparing.found[name] for name in order if name in comparing.found]
    return Comparison(values, list(comparing.outputs.values()), comparing.samples)


class _Comparing:
    """The sums so far."""

    def __init__(self, reference: Module, twin: Module, session: Any) -> None:
        self.reference, self.twin = Interpreter(reference), Interpreter(twin)
        decided = {id(o) for op in twin.ops() if op.op_name in CONTROL for g in op.regions for o in g.block}
        self.names = {r.name for op in twin.ops() if id(op) not in decided for r in op.results}
        main = reference.main
        self.open_outputs = {
            n for n, v in zip(main.output_names, main.outputs, strict=True) if not v.type.is_static
        }
        self.session = session
        self.found: dict[str, Difference] = {}
        self.outputs: dict[str, OutputDifference] = {}
        self.layouts: dict[str, int] = {}
        self.samples = 0

    def take(self, batch: Inputs | np.ndarray) -> None:
        batch = [batch] if isinstance(batch, np.ndarray) else batch
        wanted, results = self._float_values(batch)
        batch = _as_taken(self.reference.function, self.twin.function, batch)
        own = self._accumulated(batch, wanted)
        inputs = match_inputs(self.twin.function, batch)
        with np.errstate(all="ignore"), blas_threads(self.twin.threads):
            _Alone(self, wanted).run(self.twin.function.body, inputs)
        self._outputs(batch, results, own)
        self.samples += 1

    def _float_values(self, batch: Inputs) -> tuple[Arrays, list[np.ndarray]]:
        """One run of the float model: the values the twin has too, and the outputs."""
        values: Arrays = {}

        def keep(value: Value, array: np.ndarray) -> None:
            if value.producer is not None and value.name in self.names and value.type.dtype.is_float:
                values[value.name] = array

        return values, self.reference.run(batch, keep)

    def _accumulated(self, batch: Inputs, wanted: Arrays) -> list[np.ndarray]:
        waiting = dict(wanted)

        def check(value: Value, array: np.ndarray) -> None:
            if value.name in waiting and _comparable(value):
                real = real_of(value, array, self.twin.module)
                reference = self.device_view(value, waiting[value.name], real)
                if reference is not None:
                    del waiting[value.name]
                    self._difference(value).accumulated.add(reference, real)

        return self.twin.run(batch, check)

    def _difference(self, value: Value) -> Difference:
        op = value.producer
        assert op is not None
        return self.found.setdefault(value.name, Difference(value.name, op.op_name, ", ".join(op.location.nodes)))

    def device_view(self, value: Value, reference: np.ndarray, found: np.ndarray | None = None) -> np.ndarray | None:
        """A float value in the layout the twin has it in; None if it has another shape there.

        Where sizes leave open whether that is NHWC, the values of the first sample decide.
        """
        if not value.type.is_static:
            return None
        shape = value.type.static_shape
        views = [v for v in _views(reference) if v.shape == shape]
        if not views and reference.shape[-1:] == shape[-1:] and reference.size == value.type.elements:
            views = [reference.reshape(shape)]  # the chip computes row by row, whatever the axes before the last
        if len(views) > 1 and value.name not in self.layouts and found is not None:
            distances = [float(np.nansum(np.abs(view - found))) for view in views]
            self.layouts[value.name] = distances.index(min(distances))
        return views[self.layouts.get(value.name, 0)] if views else None

    def _outputs(self, batch: Inputs, wanted: Sequence[np.ndarray], twins: Sequence[np.ndarray]) -> None:
        reference = dict(zip(self.reference.function.output_names, wanted, strict=True))
        found = twin = dict(zip(self.twin.function.output_names, twins, strict=True))
        if self.session is not None:
            names = [a.name for a in self.reference.function.arguments]
            found = self.session.run(dict(batch if isinstance(batch, Mapping) else zip(names, batch, strict=True)))
        for name, array in found.items():
            if name in self.open_outputs and reference[name].shape != array.shape:
                continue  # as many as were found: nothing to compare one by one
            if name not in reference or reference[name].shape != array.shape:
                shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in reference.items())
                message = f"the model has no output {name!r} of shape {list(array.shape)}"
                raise error("E115", message, help=f"its outputs: {shapes}")
            row = self.outputs.setdefault(name, OutputDifference(name))
            row.errors.add(reference[name], array)
            row.same_bytes &= name in twin and twin[name].tobytes() == array.tobytes()


class _Alone:
    """One run of the twin in which every value that the float model has too is put right as soon as it is computed, so
    that its error is that of its own op and of the conversions in front of it."""

    def __init__(self, comparing: _Comparing, wanted: Arrays) -> None:
        self.comparing = comparing
        self.module = comparing.twin.module
        self.waiting = dict(wanted)

    def run(self, block: Block, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        environment: dict[Value, np.ndarray] = dict(zip(block.arguments, inputs, strict=True))

        def look_up(value: Value | None) -> Any:
            if value is None:
                return None
            return value.data if isinstance(value, Constant) else environment[value]

        for op in block:
            arrays = [look_up(v) for v in op.operands]
            if "terminator" in op.signature.traits:
                return arrays
            for result, array in zip(op.results, self._evaluate(op, arrays), strict=True):
                environment[result] = self._put_right(op, result, array)
        return []

    def _evaluate(self, op: Op, arrays: list[Any]) -> Sequence[np.ndarray]:
        if op.op_name == "graph.call":
            return self.run(self.module.functions[op.attributes["callee"]].body, arrays)
        if op.op_name == "graph.kernel":
            return self.run(op.regions[0].block, arrays)
        if op.op_name in CONTROL:
            return CONTROL[op.op_name](op, arrays, lambda i, given: self.run(op.regions[i].block, list(given)))
        return evaluate_op(op, arrays)

    def _put_right(self, op: Op, value: Value, array: np.ndarray) -> np.ndarray:
        if value.name not in self.waiting or not _comparable(value):
            return array
        reference = self.comparing.device_view(value, self.waiting[value.name])
        if reference is None:
            return array
        del self.waiting[value.name]
        self.comparing._difference(value).alone.add(reference, real_of(value, array, self.module))
        if value.type.quant is None:
            return np.asarray(reference.astype(array.dtype), order="C")
        return quantize(op, reference) if value is op.results[0] else array


def _as_taken(reference: Function, twin: Function, batch: Inputs) -> Inputs:
    """The batch as the twin takes it: as pixels, where preprocessing was folded into it."""
    argument = twin.arguments[0] if len(twin.arguments) == 1 else None
    if argument is None or argument.type.dtype is not DType.U8 or reference.arguments[0].type.dtype is DType.U8:
        return batch
    (array,) = batch.values() if isinstance(batch, Mapping) else batch
    return {argument.name: Preprocess.of(argument.attributes.get("preprocessing", {})).to_pixels(array)}


def _comparable(value: Value) -> bool:
    """Whether an op defines it and it stands for reals: floats, or integers of a quantised type."""
    return value.producer is not None and (value.type.dtype.is_float or value.type.quant is not None)


def _views(reference: np.ndarray) -> Iterator[np.ndarray]:
    """A float value as it is, in NHWC, and, with one spatial axis, as the chip holds it: with a height of 1."""
    yield reference
    if reference.ndim == 3:
        reference = np.expand_dims(reference, 2)
        yield reference
    if reference.ndim == 4:
        yield reference.transpose(NHWC)


def real_of(value: Value, array: np.ndarray, module: Module) -> np.ndarray:
    """The reals an array of `value`'s type stands for."""
    quant = value.type.quant
    if quant is None:
        return array
    integers = array.astype(np.int64) - quant.zero_point
    if quant.axis is None:
        return integers * quant.real_step
    shape = [1] * array.ndim
    shape[quant.axis] = -1
    return integers * (math.ldexp(1.0, quant.position) / module.constant_named(quant.params or "").reshape(shape))
