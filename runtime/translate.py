"""Instructions → descriptors of kernel calls, once at load. Every step can be switched off; none changes a byte.

`lower` gives one operation per instruction in the proof's serial order. `elide` reads weights where they lie instead
of copying them, `fuse` joins runs of instructions into one kernel call where the bytes between them are dead
afterwards, and `overlap` groups operations that touch disjoint memory into phases for many threads. `pack` makes
descriptors, and checks once more that every address they hold lies in the arena.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from compiler.errors import did_you_mean, error
from runtime.kernels import layout as L  # noqa: N812
from runtime.lowering import Spaces, lower
from runtime.machine import Plan
from runtime.operations import Operation
from runtime.packing import Packer
from targets.mlu220.container import DeviceFunction

_SECONDS = {"conv": 1e-11, "conv_wide": 5e-11, "depthwise": 1e-10, "copy": 1e-10, "fill": 1e-10}
"""Host seconds for an elementary step (a multiply-add, an element, a byte), to the order of magnitude."""


@dataclass(frozen=True)
class Options:
    """Which steps of translation are on."""

    fuse: bool = True
    elide: bool = True
    overlap: bool = True

    @staticmethod
    def of(values: Mapping[str, bool] | bool | None) -> Options:
        """From what a caller gave: nothing, all on or off, or some by name. E721: an unknown step."""
        names = [f.name for f in fields(Options)]
        if values is None or isinstance(values, bool):
            return Options(**dict.fromkeys(names, values is not False))
        for name in values:
            if name not in names:
                raise error("E721", f"translation has no step {name!r}", help=did_you_mean(name, names))
        return Options(**values)


def translate(
    function: DeviceFunction, order: np.ndarray, spaces: Spaces, rounding: str, options: Options, arena: np.ndarray,
) -> Plan:  # fmt: skip
    """The plan of a checked function. `arena` must hold the constants already: their padding is looked at."""
    operations = lower(function, order, spaces, rounding)
    statistics = {"instructions": len(order), "operations": len(operations)}
    if options.elide:
        from runtime.elision import elide

        operations = elide(operations, spaces, len(arena))
    statistics["after elide"] = len(operations)
    if options.fuse:
        from runtime.fusion import fuse

        operations = fuse(operations, len(arena))
    statistics["after fuse"] = len(operations)
    packer = Packer(arena, spaces)
    phases = _phases(operations, options, len(arena))
    descriptors = packer.pack([operation for phase in phases for operation in phase])
    bounds = np.cumsum([0, *(len(phase) for phase in phases)])
    chunks = descriptors[:, L.CHUNKS]
    table = np.zeros((len(phases), 4), np.int64)
    for k, (first, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        descriptors[first:end, L.FIRST_CHUNK] = np.cumsum(chunks[first:end]) - chunks[first:end]
        table[k, :3] = first, end, chunks[first:end].sum()
    statistics["phases"] = len(phases)
    return Plan(
        descriptors=descriptors,
        phases=table,
        scratch=packer.scratch,
        keep=packer.keep,
        inputs=[(offset, record.bytes) for offset, record in zip(spaces.inputs, function.inputs, strict=True)],
        outputs=[(offset, record.bytes) for offset, record in zip(spaces.outputs, function.outputs, strict=True)],
        kernels=[operation.kernel for phase in phases for operation in phase],
        seconds=sum(_SECONDS.get(operation.kernel, 1e-9) * operation.work + 2e-7 for operation in operations),
        statistics=statistics,
    )


def _phases(operations: list[Operation], options: Options, arena: int) -> list[list[Operation]]:
    if not options.overlap or not operations:
        return [[operation] for operation in operations]
    from runtime.dataflow import levels

    grouped: dict[int, list[Operation]] = {}
    for operation, level in zip(operations, levels(operations, arena).tolist(), strict=True):
        grouped.setdefault(level, []).append(operation)
    return [grouped[level] for level in sorted(grouped)]
