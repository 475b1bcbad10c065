"""Recognising the epilogue that nearly every convolution has  for which `kernels/epilogue.py` has straight loops.

[round] [* scale per column] [+ bias per column] [+ residual] [clamps] [* constant], every step rounded to fp16 or none.
What does not have this form runs through `kernels/chain.py` with the same result.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from runtime.kernels import layout as L  # noqa: N812
from runtime.operations import Operation, float_bits

ADD, MUL, MAX, MIN, RELU = 0, 2, 3, 4, L.UNARY_BASE
SCALE, BIAS, RESIDUAL, CLAMP, POST = range(5)
_WORDS = (L.FORM_SCALE, L.FORM_BIAS, L.FORM_RESIDUAL)


@dataclass
class _Form:
    """The part of a form read so far: the last stage seen, and the words it gives."""

    rounds: bool
    columns: int
    stage: int = -1
    low: np.float32 = field(default_factory=lambda: np.float32(-np.inf))
    high: np.float32 = field(default_factory=lambda: np.float32(np.inf))
    words: dict[int, int] = field(default_factory=dict)

    def take(self, number: int, step: list[int]) -> bool:
        """Fit the next step in; False when it has no place."""
        stage = self._stage_of(step)
        if stage is None or stage < self.stage or (stage == self.stage and stage != CLAMP):
            return False
        self.stage = stage
        if stage == CLAMP:
            return self._clamp(step)
        if stage == POST:
            self.words[L.POST_FACTOR] = step[L.CONSTANT]
        else:
            self.words[_WORDS[stage]] = number
        return True

    def _stage_of(self, step: list[int]) -> int | None:
        kind, mode = step[L.KIND], step[L.MODE]
        if kind == RELU or (kind in (MAX, MIN) and mode == L.CONST):
            return CLAMP
        if mode == L.CYCLE and step[L.PERIOD] == self.columns:
            return {MUL: SCALE, ADD: BIAS}.get(kind)
        if mode == L.FULL and kind == ADD:
            return RESIDUAL if step[L.OPERAND_TYPE] == (L.TYPE_F16 if self.rounds else L.TYPE_F32) else None
        return POST if mode == L.CONST and kind == MUL else None

    def _clamp(self, step: list[int]) -> bool:
        """`low if x <= low else x` is `numerics.maximum` but for NaN and for -0 as a bound; likewise +0 above."""
        upper = step[L.KIND] == MIN
        bound = _constant(step) if step[L.KIND] != RELU else np.float32(0)
        if self.rounds:  # the value is an fp16 number, so a bound that is none rounds to the result's rounding
            with np.errstate(over="ignore"):
                bound = np.float32(np.float16(bound))
        if np.isnan(bound) or (bound == 0 and bool(np.signbit(bound)) != upper):
            return False
        if upper:
            self.high = np.minimum(self.high, bound)
        elif self.high == np.inf:
            self.low = np.maximum(self.low, bound)
        else:
            return False
        return bool(self.low <= self.high)


def _constant(step: list[int]) -> np.float32:
    return np.float32(np.array(step[L.CONSTANT], np.int64).astype(np.int32).view(np.float32))


def common_form(operation: Operation) -> dict[int, int] | None:
    """Descriptor words that say an int8 convolution's steps in the common form; None when they do not have it."""
    target, steps, geometry = operation.target, operation.steps, operation.geometry
    if operation.kernel != "conv" or target is None or geometry is None:
        return None
    nearest_even = not operation.words.get(L.ROUNDING)
    if target.type not in ((L.TYPE_I8, L.TYPE_F16, L.TYPE_F32) if nearest_even else (L.TYPE_F16, L.TYPE_F32)):
        return None
    form = _Form(rounds=bool(steps) and steps[0][L.KIND] == L.NOTHING, columns=geometry.columns)
    for number, step in enumerate(steps):
        stored = number == len(steps) - 1 and target.type == L.TYPE_F16  # the store rounds for the last step
        if bool(step[L.ROUND]) != form.rounds and not stored:
            return None
        if not (number == 0 and form.rounds) and not form.take(number, step):
            return None
    missing = {L.FORM_SCALE: -1, L.FORM_BIAS: -1, L.FORM_RESIDUAL: -1}
    bounds = {L.CLAMP_LOW: float_bits(float(form.low)), L.CLAMP_HIGH: float_bits(float(form.high))}
    bits = L.FORM_BIT_ROUNDS * form.rounds
    bits += L.FORM_BIT_RESIDUAL * (L.FORM_RESIDUAL in form.words) + L.FORM_BIT_POST * (L.POST_FACTOR in form.words)
    return {L.FORM: 1 + bits, **missing, **form.words, **bounds}
