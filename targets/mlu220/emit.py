"""From scheduled, placed kernels to an offline model: the last step of compilation.

`emit_module` is a pure function: the same module gives the same bytes. Every subnet becomes a device function with one
program per core and one for the memory core; `@main`'s calls become steps, its border transposes the permutations of
input and output records; host functions travel as IR text.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler import numerics
from compiler.ir.core import Constant, Function, Module, Op, Value
from compiler.ir.verifier import is_subnet
from compiler.ops.graph import Kernel
from targets.mlu220 import isa
from targets.mlu220.boxes import View, cut, dense_strides
from targets.mlu220.container import DebugEntry, DeviceFunction, HostFunction, IORecord, OfflineModel
from targets.mlu220.emit_kernel import CoreEmitter, Outside
from targets.mlu220.hardware import Board, own_numbers
from targets.mlu220.op_base import FILTERS, MluOp
from targets.mlu220.op_matrix import Conv2d, Matmul
from targets.mlu220.op_move import Concat, Reshape, Slice, StorageCast
from targets.mlu220.stream import Stream
from targets.mlu220.tiling import KernelSchedule, KernelShape, Parameter, granule, pixels_side_by_side
from targets.mlu220.wiring import Wiring, host_function, plain_data

CONSTANT_ALIGNMENT = 64

STAGED_RUN = 32 << 10
"""Bytes the memory core moves at once, so that the cores need not wait long for the DDR channel."""


class ConstantPool:
    """The constants segment: every content once, each at a multiple of 64 bytes."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._size = 0
        self._known: dict[Any, int] = {}

    def place(self, key: Any, make: Any) -> int:
        """Offset of the bytes that `make()` gives, made only when `key` is new."""
        if key not in self._known:
            data = np.ascontiguousarray(make()).reshape(-1).view(np.uint8)
            padding = -data.size % CONSTANT_ALIGNMENT
            self._parts += [data, np.zeros(padding, np.uint8)]
            self._known[key] = self._size
            self._size += data.size + padding
        return self._known[key]

    def array(self, constant: Constant) -> int:
        return self.place(("array", constant.hash), lambda: constant.data)

    def filters(self, op: Conv2d, pixels: int) -> int:
        """Packed filters of a convolution, for so many pixels side by side, group after group."""
        w = op.w

        def pack() -> np.ndarray:
            data = op.filters_of(pixels)
            groups = np.split(data, op.groups)
            blocks = [group[..., low:high] for low, high in op.pieces for group in groups]
            return np.concatenate([isa.pack_filters(np.ascontiguousarray(block), op.runs) for block in blocks])

        form = int(op.runs), op.groups, op.splits, pixels, op.window_width(pixels)
        return self.place(("filters", w.hash, *form), pack)

    def segment(self) -> np.ndarray:
        return np.concatenate(self._parts) if self._parts else np.zeros(0, np.uint8)


def emit_module(module: Module, board: Board, cores: int) -> OfflineModel:
    """The offline model of a module that went through the target's pipeline."""
    cores = int(module.attributes.get("cores", cores))
    pool = ConstantPool()
    wiring = Wiring(module)
    functions: list[DeviceFunction | HostFunction] = []
    for function in module.functions.values():
        if function.name == "main":
            continue
        inputs, outputs = wiring.records(function)
        if is_subnet(function):
            functions.append(FunctionEmitter(function, pool, board, cores).run(inputs, outputs))
        else:
            functions.append(host_function(module, function, inputs, outputs))
    functions += wiring.layout_functions
    return OfflineModel(
        board=board.name, cores=cores, rounding=_rounding(module), steps=wiring.steps, functions=functions,
        inputs=wiring.model_inputs(), outputs=wiring.model_outputs(), constants=pool.segment(),
        metadata={**_facts(module), "memory": _memory(module), "macs": _macs(module), **own_numbers(board)},
    )  # fmt: skip


def _facts(module: Module) -> dict[str, Any]:
    """The module's attributes as plain data."""
    return {k: plain_data(v) for k, v in sorted(module.attributes.items()) if not k.startswith("_")}


def _memory(module: Module) -> dict[str, Any]:
    """Per subnet, the workspace planned and the least that this order of kernels needs, in bytes."""
    keys = ("workspace", "workspace_lower_bound")
    return {f.name: {k: f.attributes[k] for k in keys} for f in module.functions.values() if is_subnet(f)}


def _macs(module: Module) -> dict[str, int]:
    """Per subnet, the multiply-adds that its convolutions and products mean, however often a tile computes some
    again."""
    return {
        f.name: sum(op.macs for kernel in f.body if isinstance(kernel, Kernel) for op in _products(kernel))
        for f in module.functions.values() if is_subnet(f)
    }  # fmt: skip


def _products(kernel: Kernel) -> list[Conv2d | Matmul]:
    return [op for op in kernel.body.block if isinstance(op, Conv2d | Matmul)]


def _rounding(module: Module) -> str:
    modes = {op.rounding for op in module.ops() if op.op_name == "mlu.convert" and not op.to.is_float}  # type: ignore[attr-defined]
    if len(modes) > 1:
        raise ValueError(f"a file has one rounding mode, the module asks for {sorted(modes)}")
    return next(iter(modes), numerics.NEAREST_EVEN)


# -- one subnet ------------------------------------------------------------------------------------------------------
class FunctionEmitter:
    """Programs of one subnet."""

    def __init__(self, function: Function, pool: ConstantPool, board: Board, cores: int) -> None:
        self.function = function
        self.pool = pool
        self.board = board
        self.cores = cores
        self.streams = [Stream(core) for core in range(cores)]
        self.memory = Stream(isa.MEMORY_CORE)
        self.mask = (1 << cores) - 1 | 1 << isa.MEMORY_CORE
        self.views: dict[Value, View] = {}
        self.tagged: list[Op] = []

    def run(self, inputs: list[IORecord], outputs: list[IORecord]) -> DeviceFunction:
        for index, argument in enumerate(self.function.arguments):
            self.views[argument] = _dense(argument, isa.INPUT + index, 0)
        self._place_results()
        kernels = [op for op in self.function.body if isinstance(op, Kernel)]
        for kernel in kernels:
            self._kernel(kernel)
        return DeviceFunction(
            name=self.function.name, inputs=inputs, outputs=outputs,
            programs=[s.finish() for s in (*self.streams, self.memory)], cores=self.cores,
            workspace=int(self.function.attributes["workspace"]), debug=self._debug(),
        )  # fmt: skip

    def _place_results(self) -> None:
        """Views of all values between kernels: first those with places, then what lies inside them."""
        ops = list(self.function.body)
        for op in reversed(ops):
            if isinstance(op, Concat):
                if op.results[0] not in self.views:
                    self.views[op.results[0]] = _placed(op.results[0], op.placement)
                self._place_parts(op)
            elif isinstance(op, Kernel):
                for result, place in zip(op.results, op.placement["results"], strict=True):
                    if place["space"] != "view":
                        self.views[result] = _placed(result, place)
        for op in ops:
            if isinstance(op, StorageCast):
                self.views[op.results[0]] = self._base(op.x)
            elif isinstance(op, Reshape):
                base = self._base(op.x)
                if not base.is_dense:
                    raise ValueError(f"{op.name!r} reshapes a strided view")
                self.views[op.results[0]] = _dense(op.results[0], base.space, base.address)
            elif isinstance(op, Slice):
                base = self._base(op.x)
                part = base.sub(op.starts, op.sizes)
                strides = tuple(s * step for s, step in zip(part.strides, op.steps, strict=True))
                self.views[op.results[0]] = View(part.space, part.address, part.shape, strides, part.dtype)

    def _base(self, value: Value) -> View:
        """Where a value that a view is taken of lies: a constant in its own segment."""
        if isinstance(value, Constant):
            return _dense(value, isa.CONSTANTS, self.pool.array(value))
        return self.views[value]

    def _place_parts(self, op: Concat) -> None:
        for index, part in enumerate(op.xs):
            self.views[part] = op.part(self.views[op.results[0]], index)

    def _kernel(self, kernel: Kernel) -> None:
        shape = KernelShape(kernel)
        schedule = KernelSchedule.of(kernel)
        tags = {op: self._tag(op) for op in shape.ops}
        staged = self._stage_parameters(shape, pixels_side_by_side(shape, schedule), tags)
        for stream in (*self.streams, self.memory):
            stream.tag = -1
            stream.barrier(self.mask)
        outside = Outside(view=self._viewer(kernel, shape), place=lambda p: staged[p], tags=tags)
        for stream, part in zip(
            self.streams, schedule.parts(shape.shape, granule(shape, schedule.split)), strict=False
        ):
            CoreEmitter(stream, shape, schedule, outside).run(part)

    def _stage_parameters(
        self, shape: KernelShape, pixels: dict[MluOp, int], tags: dict[Any, int]
    ) -> dict[Parameter, tuple[int, int]]:
        """Where each constant parameter is read from; the memory core brings them to SRAM one kernel ahead."""
        staged: dict[Parameter, tuple[int, int]] = {}
        for parameter in shape.parameters:
            if not isinstance(parameter.value, Constant):
                continue
            op = parameter.op
            if parameter.kind == FILTERS:
                assert isinstance(op, Conv2d)
                side_by_side = pixels.get(op, 1)
                source = self.pool.filters(op, side_by_side)
                size = op.filter_bytes(op.w.type.static_shape[0], pixels=side_by_side)
            else:
                source, size = self.pool.array(parameter.value), parameter.value.type.bytes
            staged[parameter] = (isa.CONSTANTS, source)
            if parameter in shape.staging:
                offset = shape.staging[parameter]
                self.memory.tag = tags[op]
                for low, high in cut((0, size), STAGED_RUN):
                    copy = isa.Copy(dst=(isa.SRAM, offset + low), src=(isa.CONSTANTS, source + low), run=high - low)
                    self.memory.add(copy, [], [])
                staged[parameter] = (isa.SRAM, offset)
        return staged

    def _viewer(self, kernel: Kernel, shape: KernelShape) -> Any:
        outside: dict[Value, Value] = dict(zip(shape.block.arguments, kernel.inputs, strict=True))
        outside.update(zip(shape.outputs, kernel.results, strict=True))

        def view(value: Value) -> View:
            value = outside.get(value, value)
            if isinstance(value, Constant):
                return _dense(value, isa.CONSTANTS, self.pool.array(value))
            return self.views[value]

        return view

    def _tag(self, op: Op) -> int:
        self.tagged.append(op)
        return len(self.tagged) - 1

    def _debug(self) -> list[DebugEntry]:
        entries = []
        for core, stream in enumerate((*self.streams, self.memory)):
            for first, last, tag in stream.runs():
                op = self.tagged[tag]
                entries.append(DebugEntry(core, first, last, f"{op.op_name} {op.name}", ", ".join(op.location.nodes)))
        return entries


def _dense(value: Value, space: int, address: int) -> View:
    type = value.type
    return View(space, address, type.static_shape, dense_strides(type.static_shape, type.dtype.size), type.dtype)


def _placed(value: Value, place: dict[str, Any]) -> View:
    space = isa.space_number(place["space"])
    if space is None:
        raise ValueError(f"{value.name!r} has no place: {place}")
    return _dense(value, space, int(place["offset"]))
