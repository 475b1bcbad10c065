"""What every `mlu.` op offers beyond its signature: boxes going backwards, parameters, and the instructions of one
tile.

Tiling, fusion, core splits, cost and emission know ops only through this interface: `input_boxes` says which part of
each operand a part of the result needs, `emit_tile` writes the instructions that compute one tile from views of on-chip
memory. No op's meaning depends on the tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np

from compiler import numerics
from compiler.ir.core import Op, Value
from compiler.ir.types import DType, TensorType
from targets.mlu220.boxes import Box, View
from targets.mlu220.isa import Instruction

FLOATS = (DType.F16, DType.F32)

FILTERS = "filters"
"""Parameter kind: convolution filters, packed for WRAM, cut by output channel groups of 64."""

VECTOR = "vector"
"""Parameter kind: one number per channel, in NRAM, cut by channels."""

TAPS = "taps"
"""Parameter kind: depthwise filters [kh, kw, c] in NRAM, cut by channels."""


class Emitter(Protocol):
    """Where `emit_tile` puts its instructions: `isa` instruction objects with the on-chip slots they read and write."""

    def add(self, instruction: Instruction, writes: Sequence[int], reads: Sequence[int]) -> None: ...


class MluOp(Op):
    """Base of the `mlu.` ops."""

    unit: ClassVar[str] = "vector"
    """Which unit does the work: "matrix", "vector" or "dma"."""

    in_place: ClassVar[bool] = False
    """Whether the result may take the place of the first operand in NRAM (equal element type, elementwise)."""

    def input_boxes(self, box: Box) -> list[Box | None]:
        """Per operand, the box needed for `box` of the result; it may reach outside where the op pads."""
        return [box if v is not None else None for v in self._operands]

    def pad_value(self, index: int) -> float | None:
        """What the elements of operand `index` outside its tensor count as; None where the op never reads outside."""
        return None

    def parameter(self, index: int) -> str | None:
        """FILTERS, VECTOR or TAPS for operands loaded once per channel block; None for operands cut into tiles."""
        return None

    def emit_tile(self, emitter: Emitter, out: View, inputs: Sequence[View | None]) -> None:
        """Write the instructions that compute the view `out` from `inputs` (views of exactly `input_boxes`)."""
        raise TypeError(f"{self.op_name} has no instructions")

    def emit_box(self, emitter: Emitter, box: Box, out: View, inputs: Sequence[View | None]) -> None:
        """`emit_tile` for ops whose instructions depend on where in the result the tile lies: at `box`."""
        self.emit_tile(emitter, out, inputs)


def as_type(x: np.ndarray, dtype: DType) -> np.ndarray:
    """fp32 values rounded once to a float type of the chip."""
    return numerics.to_f16(x) if dtype is DType.F16 else x.astype(np.float32, copy=False)


def single(x: np.ndarray) -> np.ndarray:
    """Values of f16 or f32 as fp32 (exact)."""
    return x.astype(np.float32, copy=False)


def is_vector_of(value: Value, shape: Sequence[int | None]) -> bool:
    """Whether a value is one number per index of the last axis of `shape`."""
    return value.type.rank == 1 and len(shape) > 1 and value.type.shape[0] == shape[-1]


def is_row_of(value: Value, shape: Sequence[int | None]) -> bool:
    """Whether a value is one number per row (all axes but the last) of `shape`."""
    return value.type.shape == (*shape[:-1], 1)


def spatial(
    type: TensorType, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int], dilations: Sequence[int]
):
    """Output height and width of a sliding window over an NHWC type; pads are top, left, bottom, right."""
    _, h, w, _ = type.static_shape
    oh = (h + pads[0] + pads[2] - (kernel[0] - 1) * dilations[0] - 1) // strides[0] + 1
    ow = (w + pads[1] + pads[3] - (kernel[1] - 1) * dilations[1] - 1) // strides[1] + 1
    return oh, ow
