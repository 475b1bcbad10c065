"""The MLU220 as passes see it: what it supports, how ops fuse, which schedules fit and what they cost, and `emit`.

Implements the protocol of `compiler.target`. The answers come from tables and modules of this package; this class only
collects them behind one name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from compiler.errors import error
from compiler.ir.core import Constant, Module, Op
from compiler.ops.graph import Kernel
from compiler.target import Role, Storage
from targets.mlu220.boxes import volume
from targets.mlu220.container import OfflineModel
from targets.mlu220.emit import emit_module
from targets.mlu220.hardware import Board, load_board
from targets.mlu220.op_base import FILTERS, MluOp
from targets.mlu220.op_matrix import Conv2d, Matmul
from targets.mlu220.op_move import Concat, Movement, Reshape, Slice, StorageCast
from targets.mlu220.op_vector import Binary, Convert, DepthwiseConv2d, Pool, Reduce, Unary
from targets.mlu220.rules import reason_against
from targets.mlu220.rules_windows import BESIDE_WINDOW, chip
from targets.mlu220.scheduling import cheapest, staged_bytes, structure
from targets.mlu220.tiling import ALIGNMENT, CHANNEL_GROUP, KernelSchedule, KernelShape

PIPELINE = "mlu220"


class Mlu220:
    """A board with an MLU220 and the number of its cores to use."""

    name = "mlu220"
    lanes = 64
    memory_alignment = 64
    shared_alignment = ALIGNMENT
    pipeline = PIPELINE

    def __init__(self, board: str | Board = "m2", cores: int = 4) -> None:
        self.board = board if isinstance(board, Board) else load_board(board)
        if not 1 <= cores <= self.board.cores:
            raise error("E605", f"{cores} cores asked for; {self.board.title} has {self.board.cores}")
        self.cores = cores
        self._schedules: dict[Any, tuple[KernelSchedule, float] | None] = {}
        self.options = {"board": self.board.name, "cores": cores}

    @property
    def memory_bytes(self) -> int:
        return self.board.dram_bytes

    def supports(self, op: Op) -> str | None:
        return reason_against(op)

    def role(self, op: Op) -> Role:
        if isinstance(op, Reshape | StorageCast | Slice | Concat):
            return "view"
        if isinstance(op, Movement):
            return "movement"
        if isinstance(op, Reduce):
            return "reduction"
        return "elementwise" if isinstance(op, Binary | Unary | Convert) else "anchor"

    def storage(self, op: Op) -> Storage:
        if isinstance(op, Reshape | StorageCast | Slice):
            return "operand"
        return "result" if isinstance(op, Concat) else "own"

    def reason_against_joining(self, group: Sequence[Op], op: Op) -> str | None:
        assert isinstance(op, MluOp)
        if isinstance(op, Matmul):
            return "a product of two activations reads both from memory"
        if isinstance(op, Pool | DepthwiseConv2d | Conv2d):
            return _reason_against_anchor(group, op)
        anchored = any(isinstance(member, Conv2d | Matmul | Pool | DepthwiseConv2d) for member in group)
        reduced = any(isinstance(member, Reduce) for member in group)
        domain = group[-1].results[0].type.shape if not reduced else _largest_shape(group)
        shape = op.results[0].type.shape
        if isinstance(op, Reduce):
            if anchored:
                return "a reduction keeps all channels together, which the layer before it may not fit"
            return None if op.x.type.shape == domain else "it reduces another shape"
        if shape != domain and not (reduced and shape == (*domain[:-1], 1)):
            return "its shape differs from the kernel's"
        if reduced and _row_bytes([*group, op], domain) > self.board.nram_usable_bytes:
            return "a row of everything it takes would not fit"
        return None

    def reason_against_chaining(self, first: Kernel, second: Kernel) -> str | None:
        return reason_against_chaining(first, second)

    @property
    def shared_bytes(self) -> int:
        return self.board.sram_usable_bytes

    def staged_parameters(self, kernel: Kernel) -> list[int]:
        return [staged_bytes(p) for p in KernelShape(kernel).parameters]

    def best_schedule(self, kernel: Kernel, constraints: dict[str, Any]) -> tuple[dict[str, Any], float] | None:
        """Kernels of one structure get one schedule, which is searched once."""
        below = constraints.get("below", math.inf)
        rest = tuple(sorted((k, v) for k, v in constraints.items() if v is not None and k != "below"))
        key = structure(kernel), rest
        if key not in self._schedules:
            found = cheapest(KernelShape(kernel, constraints.get("assumed")), constraints, self.board)
            if found is None and below < math.inf:
                return None  # perhaps because of the limit: what there is beyond it was not looked for
            self._schedules[key] = found
        found = self._schedules[key]
        return None if found is None or found[1] >= below else (found[0].to_attribute(), found[1])

    def emit(self, module: Module) -> OfflineModel:
        return emit_module(module, self.board, self.cores)


INTERMEDIATE_ROWS = 3
"""Rows between reductions that are alive at once: what is reduced, what it is reduced from, and a product of both."""


def _largest_shape(group: Sequence[Op]) -> tuple[int | None, ...]:
    """The shape a kernel with reductions is tiled in: of its results, and of what it reduces."""
    shapes = [r.type.shape for member in group for r in member.results]
    shapes += [member.x.type.shape for member in group if isinstance(member, Reduce)]
    return max(shapes, key=_size)


def _row_bytes(group: Sequence[Op], domain: tuple[int | None, ...]) -> int:
    """NRAM bytes of the smallest tile of a kernel that keeps rows together, in f32."""
    entering = {v for member in group for v in member.inputs if v.producer not in group}
    return (len(entering) + INTERMEDIATE_ROWS) * (domain[-1] or 1) * 4


def _size(shape: Sequence[int | None]) -> int:
    size = 1
    for d in shape:
        size *= d or 1
    return size


def _reason_against_anchor(group: Sequence[Op], op: MluOp) -> str | None:
    """Elementwise ops before a window are computed again in every halo, and for every channel block of a
    convolution."""
    if any(not isinstance(member, Binary | Unary | Convert) for member in group):
        return "only elementwise ops can stand before it"
    outside = [v for member in group for v in member.inputs if not isinstance(v, Constant)]
    if len({v for v in outside if v.producer not in group}) > 1:
        return "more than one tensor enters before it"
    if isinstance(op, Conv2d) and op.w.type.static_shape[0] > 128:
        return "the input would be computed again for every channel block"
    if _window_bytes(group, op) > chip().nram_usable_bytes - BESIDE_WINDOW:
        return "a window of it would not fit beside what it is computed from"
    shapes = {r.type.shape for member in group for r in member.results}
    if shapes != {op.operands[0].type.shape}:  # type: ignore[union-attr]
        return "shapes before it differ"
    if op.parameter(1) is FILTERS and any(member.operands[1:] and member.parameter(1) for member in group):  # type: ignore[attr-defined]
        return "per-channel operands before a convolution"
    return None


def _window_bytes(group: Sequence[Op], op: MluOp) -> int:
    """NRAM bytes of the least that a window op with elementwise ops before it reads: one window over a group of
    channels, in every element size it has on its way."""
    *axes, channels = op.results[0].type.static_shape
    window = op.input_boxes((*((0, 1) for _ in axes), (0, min(channels, CHANNEL_GROUP))))[0]
    assert window is not None
    before = {v for member in group for v in (*member.inputs, *member.results) if not isinstance(v, Constant)}
    return volume(window) * sum({v.type.dtype.size for v in before})


CHAINABLE = (Conv2d, DepthwiseConv2d, Pool, Binary, Unary, Convert)


def reason_against_chaining(first: Kernel, second: Kernel) -> str | None:
    """Chains are of windows and elementwise ops over images; a halo must be worth computing twice."""
    ops = [op for kernel in (first, second) for op in kernel.body.block if op.op_name != "graph.yield"]
    for op in ops:
        if not isinstance(op, CHAINABLE) or op.results[0].type.rank != 4:
            return f"{op.op_name} does not chain"
        if isinstance(op, Conv2d) and (op.groups > 1 or op.splits > 1):
            return "a convolution with groups or split channels does not chain"
    outputs = {r.type.shape[:-1] for r in second.results}
    outputs |= {r.type.shape[:-1] for r in first.results if any(user is not second for user in r.users)}
    if len(outputs) > 1:
        return "results of other height or width are needed elsewhere"
    return None
