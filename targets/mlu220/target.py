"""The MLU220 as passes see it: what it supports, how ops fuse, which schedules fit and what they cost, and `emit`.

Implements the protocol of `compiler.target`. The answers come from tables and modules of this package; this class only
collects them behind one name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from compiler.errors import error
from compiler.ir.core import Constant, Module, Op
from compiler.ops.graph import Kernel
from compiler.target import Role, Storage
from targets.mlu220.container import OfflineModel
from targets.mlu220.emit import emit_module
from targets.mlu220.hardware import Board, load_board
from targets.mlu220.op_base import FILTERS, MluOp
from targets.mlu220.op_matrix import Conv2d
from targets.mlu220.op_move import Concat, Movement, Reshape, Slice, StorageCast
from targets.mlu220.op_vector import Binary, Convert, DepthwiseConv2d, Pool, Reduce, Unary
from targets.mlu220.rules import reason_against
from targets.mlu220.scheduling import candidates, estimate
from targets.mlu220.tiling import KernelSchedule, KernelShape

PIPELINE = "mlu220"


class Mlu220:
    """A board with an MLU220 and the number of its cores to use."""

    name = "mlu220"
    lanes = 64
    memory_alignment = 64
    pipeline = PIPELINE

    def __init__(self, board: str | Board = "m2", cores: int = 4) -> None:
        self.board = board if isinstance(board, Board) else load_board(board)
        if not 1 <= cores <= self.board.cores:
            raise error("E605", f"{cores} cores asked for; {self.board.title} has {self.board.cores}")
        self.cores = cores
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
        shapes = {r.type.shape for member in group for r in member.results}
        if isinstance(op, Pool | DepthwiseConv2d | Conv2d):
            return _reason_against_anchor(group, op)
        anchored = any(isinstance(member, Conv2d | Pool | DepthwiseConv2d) for member in group)
        reduced = any(isinstance(member, Reduce) for member in group)
        domain = group[-1].results[0].type.shape if not reduced else max(shapes, key=_size)
        shape = op.results[0].type.shape
        if isinstance(op, Reduce):
            if anchored:
                return "a reduction keeps all channels together, which the layer before it may not fit"
            return None if op.x.type.shape == domain else "it reduces another shape"
        if shape != domain and not (reduced and shape == (*domain[:-1], 1)):
            return "its shape differs from the kernel's"
        return None

    def schedules(self, kernel: Any, constraints: dict[str, Any]) -> Iterable[dict[str, Any]]:
        shape = KernelShape(kernel)
        return [schedule.to_attribute() for schedule in candidates(shape, constraints, self.board)]

    def kernel_cost(self, kernel: Kernel, schedule: dict[str, Any]) -> float:
        return estimate(KernelShape(kernel), KernelSchedule(**schedule), self.board)

    def emit(self, module: Module) -> OfflineModel:
        return emit_module(module, self.board, self.cores)


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
    shapes = {r.type.shape for member in group for r in member.results}
    if shapes != {op.operands[0].type.shape}:  # type: ignore[union-attr]
        return "shapes before it differ"
    if op.parameter(1) is FILTERS and any(member.operands[1:] and member.parameter(1) for member in group):  # type: ignore[attr-defined]
        return "per-channel operands before a convolution"
    return None
