"""Trying schemes on the network itself: how far its outputs move from the float ones.

Which rare values a method may clip cannot be seen from a tensor: a detector's faces are as rare in its tensors as the
outliers of a classifier that nothing depends on. So `auto` compares outputs. The error of an output is a power mean of
its differences relative to that of its own deviations; a high power is led by the largest, however rare they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Constant, Module, Value
from compiler.ops.graph import Return
from compiler.pass_context import PassContext
from passes.quantization.integers import Memo
from passes.quantization.quantize import Quantize
from passes.quantization.scheme import Scheme

Arrays = Sequence[np.ndarray]
Sample = tuple[Arrays, Arrays]
"""Inputs of a network and its outputs in float."""

FIRST = 4
"""Samples, spread evenly, that a scheme is tried on first; those that may win are tried on all."""

CANDIDATES = ("percentile", "minmax", "l2.4")
"""Methods that `auto` chooses between, each only where it is clearly better than those before it. The first, of the
ways that clip rare values, lost least over the shared classifiers; where clipping hurts, the second does not clip."""

RARE, ALL = 8, 2
"""Powers: led by rare large differences, as decisions are; counting all, as the quality of an image does."""

MAYBE, CLEARLY = 0.8, 0.5
"""Part of another candidate's error that one may have at most for all to be tried on all samples, and to win: with few
samples the error of any scheme is uncertain by about a third."""


def judged(module: Module) -> Module:
    """The module, with other outputs where it has some of open shape, as what a detector selects: instead of those the
    numbers they are chosen from, which can be compared one by one."""
    if all(v.type.is_static for v in module.main.outputs):
        return module
    copy = module.clone()
    found = dict.fromkeys(v for output in copy.main.outputs for v in _of_known_shape(output))
    copy.main.attributes.pop("outputs", None)
    last = copy.main.body.terminator
    copy.main.body.append(Return(*(found or copy.main.arguments)))
    last.erase()
    return copy


def _of_known_shape(value: Value) -> Iterator[Value]:
    """The value, or where its shape is open the reals of known shape that it is made of."""
    waiting, seen = [value], set()
    while waiting:
        value = waiting.pop(0)
        if value in seen or isinstance(value, Constant):
            continue
        seen.add(value)
        if value.type.is_static and (value.type.dtype.is_float or len(seen) == 1):
            yield value
        elif value.producer is not None:
            waiting += value.producer.inputs


class Trials:
    """Inputs with the outputs they have in float. Weights are quantised once, however many schemes are tried."""

    def __init__(self, module: Module, samples: Sequence[Sample]) -> None:
        self.module = module
        self.samples = samples
        self._weights: Memo = {}

    def error(self, scheme: Scheme, power: int = RARE, count: int = 0) -> float:
        """The largest error of an output under a scheme, on `count` samples (0: all): 0.01 is a hundredth."""
        return max(self.errors(scheme, power, count), default=0.0)

    def errors(self, scheme: Scheme, power: int = RARE, count: int = 0) -> list[float]:
        """The error of every output."""
        quantized = self.module.clone()
        Quantize(given=scheme, memo=self._weights).run(quantized, PassContext())
        interpreter = Interpreter(quantized)
        samples = self.samples[:: -(-len(self.samples) // count)] if count else self.samples
        found = [interpreter.run(inputs) for inputs, _ in samples]
        return [
            _difference(np.stack([outputs[k] for _, outputs in samples]), np.stack([run[k] for run in found]), power)
            for k in range(len(self.module.main.outputs))
        ]

    def best(self, schemes: dict[str, Scheme]) -> tuple[str, dict[str, float]]:
        """The name of the scheme to take, and the errors of all. Each must be clearly better than those before it."""
        first, *others = schemes
        errors = {name: self.error(scheme, count=FIRST) for name, scheme in schemes.items()}
        hopeful = min((errors[name] for name in others), default=math.inf) <= MAYBE * errors[first]
        if hopeful and len(self.samples) > FIRST:
            errors = {name: self.error(scheme) for name, scheme in schemes.items()}
        taken = first
        for name in others if hopeful else ():
            if errors[name] < CLEARLY * errors[taken]:
                taken = name
        return taken, errors


def _difference(wanted: np.ndarray, found: np.ndarray, power: int) -> float:
    """How far two stacks of outputs differ, relative to the deviation of the first from its mean."""
    if not np.issubdtype(wanted.dtype, np.floating):
        return float(np.mean(wanted != found)) if wanted.size else 0.0
    finite = np.isfinite(wanted)
    if not finite.any():
        return 0.0
    wide = wanted[finite].astype(np.float64)
    error = _mean(found[finite] - wide, power)
    span = _mean(wide - wide.mean(), power) or _mean(wide, power) or 1.0
    return error / span if math.isfinite(error) else math.inf


def _mean(x: np.ndarray, power: int) -> float:
    """The power mean, without overflow."""
    largest = float(np.abs(x).max())
    return largest * float(np.mean(np.abs(x / largest) ** power)) ** (1.0 / power) if largest else 0.0
