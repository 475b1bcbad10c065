"""From scheduled, placed kernels to an offline model: the last step of compilation.

`emit_module` is a pure function: the same module gives the same bytes. Every subnet becomes a device function with one
program per core and one for the memory core; `@main`'s calls become steps, its border transposes the permutations of
input and output records; host functions travel as IR text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler import numerics
from compiler.ir.constants import blobs_of
from compiler.ir.core import Argument, Constant, Function, Module, Op, Result, Value
from compiler.ir.printer import print_module
from compiler.ir.verifier import is_subnet
from compiler.ops.graph import Kernel
from targets.mlu220 import isa
from targets.mlu220.boxes import View, dense_strides
from targets.mlu220.container import DebugEntry, DeviceFunction, HostFunction, IORecord, OfflineModel, Step
from targets.mlu220.emit_kernel import CoreEmitter, Outside
from targets.mlu220.hardware import Board
from targets.mlu220.op_base import FILTERS
from targets.mlu220.op_matrix import Conv2d
from targets.mlu220.op_move import Concat, Reshape, Slice, StorageCast
from targets.mlu220.scheduling import filters_bytes, sram_half
from targets.mlu220.stream import Stream
from targets.mlu220.tiling import KernelSchedule, KernelShape, Parameter, granule

CONSTANT_ALIGNMENT = 64


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

    def filters(self, op: Conv2d) -> int:
        """Packed filters of a convolution, group after group."""
        w = op.w
        per_group = w.data.shape[0] // op.groups

        def pack() -> np.ndarray:
            groups = [w.data[g * per_group : (g + 1) * per_group] for g in range(op.groups)]
            blocks = [group[..., low:high] for low, high in op.pieces for group in groups]
            return np.concatenate([isa.pack_filters(np.ascontiguousarray(block), op.runs) for block in blocks])

        return self.place(("filters", w.hash, int(op.runs), op.groups, op.splits), pack)

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
            functions.append(_host_function(module, function, inputs, outputs))
    functions += wiring.layout_functions
    return OfflineModel(
        board=board.name, cores=cores, rounding=_rounding(module), steps=wiring.steps, functions=functions,
        inputs=wiring.model_inputs(), outputs=wiring.model_outputs(), constants=pool.segment(),
        metadata={**_facts(module), "memory": _memory(module)},
    )  # fmt: skip


def _facts(module: Module) -> dict[str, Any]:
    """The module's attributes as plain data."""
    return {k: _plain(v) for k, v in sorted(module.attributes.items()) if not k.startswith("_")}


def _memory(module: Module) -> dict[str, Any]:
    """Per subnet, the workspace planned and the least that this order of kernels needs, in bytes."""
    keys = ("workspace", "workspace_lower_bound")
    return {f.name: {k: f.attributes[k] for k in keys} for f in module.functions.values() if is_subnet(f)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


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
        for number, kernel in enumerate(kernels):
            self._kernel(kernel, number)
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
                self.views[op.results[0]] = self.views[op.x]
            elif isinstance(op, Reshape):
                base = self.views[op.x]
                if not base.is_dense:
                    raise ValueError(f"{op.name!r} reshapes a strided view")
                self.views[op.results[0]] = _dense(op.results[0], base.space, base.address)
            elif isinstance(op, Slice):
                base = self.views[op.x]
                part = base.sub(op.starts, op.sizes)
                strides = tuple(s * step for s, step in zip(part.strides, op.steps, strict=True))
                self.views[op.results[0]] = View(part.space, part.address, part.shape, strides, part.dtype)

    def _place_parts(self, op: Concat) -> None:
        start = [0] * op.results[0].type.rank
        whole = self.views[op.results[0]]
        for part in op.xs:
            self.views[part] = whole.sub(start, part.type.static_shape)
            start[op.axis] += part.type.static_shape[op.axis]

    def _kernel(self, kernel: Kernel, number: int) -> None:
        shape = KernelShape(kernel)
        schedule = KernelSchedule.of(kernel)
        tags = {op: self._tag(op) for op in shape.ops}
        staged = self._stage_filters(shape, schedule, number, tags)
        for stream in (*self.streams, self.memory):
            stream.tag = -1
            stream.barrier(self.mask)
        outside = Outside(view=self._viewer(kernel, shape), filters=lambda p: staged[p], tags=tags)
        for stream, part in zip(
            self.streams, schedule.parts(shape.shape, granule(shape, schedule.split)), strict=False
        ):
            CoreEmitter(stream, shape, schedule, outside).run(part)

    def _stage_filters(
        self, shape: KernelShape, schedule: KernelSchedule, number: int, tags: dict[Any, int]
    ) -> dict[Parameter, tuple[int, int]]:
        """Where each parameter's filters are read from; the memory core brings them to SRAM one kernel ahead."""
        staged: dict[Parameter, tuple[int, int]] = {}
        offset = (number % 2) * sram_half(self.board)
        for parameter in shape.parameters:
            if parameter.kind != FILTERS:
                continue
            assert isinstance(parameter.op, Conv2d)
            place = self.pool.filters(parameter.op)
            staged[parameter] = (isa.CONSTANTS, place)
            if schedule.weights == "sram":
                size = filters_bytes(parameter)
                self.memory.tag = tags[parameter.op]
                copy = isa.Copy(dst=(isa.SRAM, offset), src=(isa.CONSTANTS, place), run=size)
                self.memory.add(copy, [], [])
                staged[parameter] = (isa.SRAM, offset)
                offset += -(-size // 128) * 128
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


# -- main and the host -----------------------------------------------------------------------------------------------
class Wiring:
    """`@main` as steps on named values, with the permutations of border transposes in the records."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.main = module.main
        self.names: dict[Value, str] = {}
        self.steps: list[Step] = []
        self.layout_functions: list[HostFunction] = []
        self._by_callee: dict[str, tuple[list[IORecord], list[IORecord]]] = {}
        self._name_values()
        for op in self.main.body:
            if op.op_name == "graph.call":
                self._call(op)
        self._remaining()

    def _name_values(self) -> None:
        """Inputs and outputs keep the model's names; everything else is made unique."""
        taken: set[str] = set()

        def name(value: Value, wanted: str) -> None:
            if value in self.names:
                return
            unique, number = wanted or "value", 0
            while unique in taken:
                number += 1
                unique = f"{wanted}.{number}"
            taken.add(unique)
            self.names[value] = unique

        for argument in self.main.arguments:
            name(argument, argument.name)
        for value, wanted in zip(self.main.outputs, self.main.output_names, strict=True):
            name(value, wanted)
        for op in self.main.body:
            for result in op.results:
                name(result, result.name)

    def _source(self, value: Value) -> tuple[Value, tuple[int, ...]]:
        """The value a chain of border transposes starts from, and the permutation from it to `value`."""
        order = tuple(range(value.type.rank))
        while isinstance(value, Result) and value.op.op_name == "tensor.transpose":
            perm = value.op.attributes["perm"]
            order = tuple(perm[i] for i in order)
            value = value.op.inputs[0]
        return value, order

    def _sole_transposed(self, value: Value) -> tuple[Value, tuple[int, ...]]:
        """The value to make instead of a call's result: a chain of transposes of it that is returned and used by nothing
        else; and the permutation from the made value to the result."""
        order = tuple(range(value.type.rank))
        final, found = value, order
        while final.has_one_use and final.users[0].op_name == "tensor.transpose":
            perm = final.users[0].attributes["perm"]
            found = tuple(perm.index(i) for i in found)
            final = final.users[0].results[0]
        if all(user.op_name == "graph.return" for user in final.users):
            return final, found
        return value, order

    def _call(self, op: Op) -> None:
        callee = self.module.functions[op.attributes["callee"]]
        inputs, outputs, taken, made = [], [], [], []
        for value, argument in zip(op.inputs, callee.arguments, strict=True):
            source, order = self._source(value)
            inputs.append(_record(self.names[source], source, order, argument))
            taken.append(self.names[source])
        for value in op.results:
            final, order = self._sole_transposed(value)
            outputs.append(_record(self.names[final], final, order, None))
            made.append(self.names[final])
        self._by_callee[callee.name] = (inputs, outputs)
        self.steps.append(Step(callee.name, tuple(taken), tuple(made)))

    def _remaining(self) -> None:
        """Returned values that no call makes (inputs, transposes of values used elsewhere too) come from host
        functions."""
        known = {name for step in self.steps for name in step.outputs}
        done: set[str] = set()
        for value in self.main.outputs:
            name = self.names[value]
            if name in known or name in done:
                continue
            done.add(name)
            source, order = self._source(value)
            function = _layout_function(
                f"layout{len(self.layout_functions)}", source, order, self.names[source], value, name
            )
            self.layout_functions.append(function)
            made = name if source is not value else f"{name}.output"
            self.steps.append(Step(function.name, (self.names[source],), (made,)))

    def records(self, function: Function) -> tuple[list[IORecord], list[IORecord]]:
        return self._by_callee[function.name]

    def model_inputs(self) -> list[IORecord]:
        return [_record(self.names[a], a, tuple(range(a.type.rank)), a) for a in self.main.arguments]

    def model_outputs(self) -> list[IORecord]:
        return [_record(self.names[v], v, tuple(range(v.type.rank)), None) for v in self.main.outputs]


def _record(name: str, value: Value, order: Sequence[int], argument: Argument | None) -> IORecord:
    shape = value.type.static_shape
    quant = value.type.quant
    attributes = argument.attributes if argument is not None else {}
    return IORecord(
        name=name, shape=shape, dtype=str(value.type.dtype), device_shape=tuple(shape[i] for i in order),
        permutation=tuple(order), layout=str(attributes.get("layout", "NCHW" if len(shape) == 4 else "ARRAY")),
        position=quant.position if quant is not None else None, scale=quant.scale if quant is not None else None,
        preprocessing=_plain(dict(attributes.get("preprocessing", {}))),
    )  # fmt: skip


def _host_function(module: Module, function: Function, inputs: list[IORecord], outputs: list[IORecord]) -> HostFunction:
    """A host segment as a module of its own, whose `@main` it is."""
    alone = module.clone()
    for name in list(alone.functions):
        if name != function.name:
            for op in reversed(list(alone.functions[name].body)):
                op.erase()
            alone.remove_function(name)
    body = alone.functions.pop(function.name)
    body.name = "main"
    alone.functions["main"] = body
    alone.attributes = {}
    alone.drop_unused_constants()
    return HostFunction(
        name=function.name, text=print_module(alone), inputs=inputs, outputs=outputs, constants=blobs_of(alone)
    )


def _layout_function(
    name: str, source: Value, order: Sequence[int], source_name: str, value: Value, made: str
) -> HostFunction:
    from compiler.ops.graph import Return
    from compiler.ops.tensor import Transpose

    module = Module()
    main = module.add_function(Function("main"))
    argument = main.add_argument(source.type, "x")
    op = main.body.append(Transpose(argument, perm=tuple(order), names=["y"]))
    main.body.append(Return(op.results[0]))
    identity = tuple(range(source.type.rank))
    return HostFunction(
        name=name, text=print_module(module), inputs=[_record(source_name, source, identity, None)],
        outputs=[_record(made, value, tuple(range(value.type.rank)), None)],
    )  # fmt: skip
