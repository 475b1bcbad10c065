"""Which layers `auto` makes 16 bits wide: where the outputs of the network say that it pays.

Two kinds of output suffer from 8 bits more than decisions do. An image-like output is the answer itself, so the
rounding of the layers that make it is seen in it; and a state that comes back as an input of the next step accumulates
its error. For the first the layers that make the outputs are tried in 16 bits, for the second all layers, and what
is kept is said with its effect and its price.
"""

from __future__ import annotations

import dataclasses

from compiler.ir.core import Constant, Function, Module, Op, Value
from passes.quantization.layers import integer_layers, multiply_adds
from passes.quantization.scheme import Scheme
from passes.quantization.trials import ALL, Trials

DENSE = 4096
"""Elements an output must have to count as image-like."""

GAIN = 0.8
"""Part of the error that must be left at most for 16 bits to be kept."""

SHARE = 0.25
"""Part of the network's multiply-adds that layers in front of image-like outputs may have."""

STATE_ERROR = 0.01
"""What the outputs may differ by in a network with a state, per step."""


def widened(module: Module, trials: Trials, scheme: Scheme) -> Scheme:
    """The scheme with layers of 16 bits where they pay, and notes why."""
    if has_state(module.main):
        return _for_state(module, trials, scheme)
    if any(v.type.is_static and v.type.elements >= DENSE for v in module.main.outputs):
        return _for_dense(module, trials, scheme)
    return scheme


def has_state(function: Function) -> bool:
    """Whether an output is of the shape of an input, in a function of several of both: a state, by all signs."""
    inputs, outputs = function.arguments, function.outputs
    return len(inputs) > 1 < len(outputs) and any(v.type == a.type for v in outputs for a in inputs)


def last_layers(function: Function) -> list[Op]:
    """Integer layers whose results reach an output through no other one, in order."""
    layers = set(integer_layers(function))
    found, seen = set(), set()
    pending: list[Value] = list(function.outputs)
    while pending:
        value = pending.pop()
        if value in seen or isinstance(value, Constant) or value.producer is None:
            continue
        seen.add(value)
        if value.producer in layers:
            found.add(value.producer)
        else:
            pending += value.producer.inputs
    return [op for op in function.body if op in found]


def _for_dense(module: Module, trials: Trials, scheme: Scheme) -> Scheme:
    layers = last_layers(module.main)
    share = _share(module, layers)
    if not layers or share > SHARE:
        return scheme
    before = trials.error(scheme, ALL)
    wide = _with(scheme, layers, "i16")
    after = trials.error(wide, ALL)
    if after > GAIN * before:
        return scheme
    made = ", ".join(repr(op.name) for op in layers)
    return _noted(wide, f"i16 for {made}, which make the output: {_effect(before, after, share)}")


def _for_state(module: Module, trials: Trials, scheme: Scheme) -> Scheme:
    """The narrowest types that keep the error of one step small."""
    layers = list(integer_layers(module.main))
    before = trials.error(scheme, ALL)
    if before <= STATE_ERROR or not layers:
        return scheme
    wide, after = scheme, before
    for kind in ("i16xi8", "i16"):
        wide = _with(scheme, layers, kind)
        after = trials.error(wide, ALL)
        if after <= STATE_ERROR:
            break
    if after > GAIN * before:
        return scheme
    effect = _effect(before, after, _share(module, layers))
    return _noted(wide, f"{kind} for all layers, because an output is the state of the next step: {effect}")


def _with(scheme: Scheme, layers: list[Op], kind: str) -> Scheme:
    return dataclasses.replace(scheme, layers=scheme.layers | {op.name: kind for op in layers})


def _noted(scheme: Scheme, note: str) -> Scheme:
    return dataclasses.replace(scheme, notes=(*scheme.notes, note))


def _share(module: Module, layers: list[Op]) -> float:
    total = sum(multiply_adds(op) for op in integer_layers(module.main))
    return sum(multiply_adds(op) for op in layers) / total if total else 0.0


def _effect(before: float, after: float, share: float) -> str:
    return f"error {100 * before:.2f} % -> {100 * after:.2f} %, {100 * share:.1f} % of the multiply-adds"
