"""Sliding windows of convolutions and poolings over one or two spatial axes; one is lifted to two with height 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.frontend.common.emitter import Emitter
from compiler.ir.core import Value
from compiler.ops import tensor


@dataclass
class Window:
    """A sliding window over the spatial axes (one or two of them), as source models give it."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: list[int]
    after: list[int]

    @property
    def extent(self) -> tuple[int, ...]:
        """Input elements a window spans along each axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def attributes(self) -> dict[str, tuple[int, ...]]:
        """strides, pads and dilations of our two-dimensional ops."""
        lift = len(self.kernel) == 1
        return {
            "strides": (1, *self.strides) if lift else self.strides,
            "dilations": (1, *self.dilations) if lift else self.dilations,
            "pads": (0, self.before[0], 0, self.after[0]) if lift else (*self.before, *self.after),
        }

    @property
    def kernel2d(self) -> tuple[int, ...]:
        return (1, *self.kernel) if len(self.kernel) == 1 else self.kernel

    def pad_for_same(self, spatial: Sequence[int], *, more_after: bool = True) -> None:
        """Set the pads so that there are size / stride outputs; an odd one goes to the end or to the front."""
        for i, size in enumerate(spatial):
            outputs = -(-size // self.strides[i])
            total = max((outputs - 1) * self.strides[i] + self.extent[i] - size, 0)
            self.before[i] = total // 2 if more_after else total - total // 2
            self.after[i] = total - self.before[i]

    def ceil_mode_excess(self, spatial: Sequence[int]) -> list[int]:
        """Elements to add after each axis, beyond the pads, so that ceil mode's last window fits."""
        added = []
        for i, size in enumerate(spatial):
            padded = size + self.before[i] + self.after[i]
            outputs = -(-(padded - self.extent[i]) // self.strides[i]) + 1
            if (outputs - 1) * self.strides[i] >= size + self.before[i]:
                outputs -= 1  # a window that would start in the padding is not taken
            added.append(max((outputs - 1) * self.strides[i] + self.extent[i] - padded, 0))
        return added


def cropped(e: Emitter, x: Value, window: Window) -> Value:
    """x without the elements that negative pads take away; the window's pads become non-negative."""
    if min(*window.before, *window.after) >= 0:
        return x
    shape, lead = x.type.static_shape, x.type.rank - len(window.before)
    starts = [0] * lead + [max(-p, 0) for p in window.before]
    ends = [0] * lead + [max(-p, 0) for p in window.after]
    sizes = [d - s - end for d, s, end in zip(shape, starts, ends, strict=True)]
    window.before = [max(p, 0) for p in window.before]
    window.after = [max(p, 0) for p in window.after]
    return e.emit(tensor.Slice, x, starts=starts, sizes=sizes)
