"""What quantisation cost, value by value: a float module and its quantised twin on the same images.

Both run side by side; for each value name they share, the error against the float value is summed up, so memory does
not grow with the number of images. Quantised values are compared as the reals they stand for. The error of a value is
the accumulated one: everything before it is quantised too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from compiler.evaluate.interpreter import Inputs, Interpreter
from compiler.ir.core import Module, Value


@dataclass
class Difference:
    """The error of one value over all images: sums of squares, and the largest error and magnitude."""

    name: str
    elements: int = 0
    signal: float = 0.0
    noise: float = 0.0
    largest_error: float = 0.0
    largest: float = 0.0

    @property
    def sqnr(self) -> float:
        """Signal to quantisation noise ratio in dB; inf where there is no error."""
        if self.noise == 0.0:
            return math.inf
        return 10.0 * math.log10(self.signal / self.noise) if self.signal > 0.0 else -math.inf

    def add(self, wanted: np.ndarray, found: np.ndarray) -> None:
        """Take the same value of one more image into account."""
        difference = (found.astype(np.float64) - wanted).reshape(-1)
        reference = wanted.astype(np.float64).reshape(-1)
        self.elements += reference.size
        self.signal += float(np.dot(reference, reference))
        self.noise += float(np.dot(difference, difference))
        self.largest_error = max(self.largest_error, float(np.abs(difference).max(initial=0.0)))
        self.largest = max(self.largest, float(np.abs(reference).max(initial=0.0)))

    def as_dict(self) -> dict[str, object]:
        """Plain data, for `--json`."""
        return {
            "name": self.name,
            "sqnr": self.sqnr,
            "largest_error": self.largest_error,
            "largest": self.largest,
            "elements": self.elements,
        }


def compare(
    reference: Module,
    quantized: Module,
    batches: Iterable[Inputs],
    progress: Callable[[int], None] | None = None,
) -> list[Difference]:
    """The difference of every float value of `reference` to the value of that name in `quantized`, in execution order.

    Each batch is one run: arrays in order of the inputs, or a dict by name. Shapes must agree.
    """
    expected, actual = Interpreter(reference), Interpreter(quantized)
    differences: dict[str, Difference] = {}
    for count, batch in enumerate(batches, 1):
        wanted = _shared_values(expected, batch, quantized)

        def check(value: Value, array: np.ndarray, wanted: dict[str, np.ndarray] = wanted) -> None:
            if (float_array := wanted.pop(value.name, None)) is not None:
                real = real_of(value, array, quantized)
                if real.shape == float_array.shape:
                    differences.setdefault(value.name, Difference(value.name)).add(float_array, real)

        actual.run(batch, check)
        if progress is not None:
            progress(count)
    order = [r.name for op in reference.main.body for r in op.results]
    return [differences[name] for name in order if name in differences]


def _shared_values(interpreter: Interpreter, batch: Inputs, other: Module) -> dict[str, np.ndarray]:
    """One run's float values whose names the other module has too."""
    names = {r.name for op in other.main.body for r in op.results}
    values: dict[str, np.ndarray] = {}

    def keep(value: Value, array: np.ndarray) -> None:
        if value.producer is not None and value.name in names and value.type.dtype.is_float:
            values[value.name] = array

    interpreter.run(batch, keep)
    return values


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
