"""From an archive of torch.export to a module: one walk over the graph's nodes, every node converted or reported.

The graph comes as it was exported, in torch's training-time operators, or decomposed to core ATen; the aten table
serves both. The former writes tensors in place, so names stand for `Tensor`s that know what they are views of. Buffers
that the network writes are inputs and outputs of the module, with their first values as an attribute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import CompilerError, Diagnostic, error
from compiler.frontend.aten import dtypes
from compiler.frontend.builder import Builder
from compiler.frontend.inputs import DeclaredInput, resolve_inputs
from compiler.frontend.records import NodeRecord, Unsupported, finished
from compiler.frontend.torch_export.archive import REMEDY, Archive, Reader, open_archive
from compiler.frontend.torch_export.nodes import ABSENT, BLOCKED, Nodes
from compiler.frontend.torch_export.schema import (
    CODES,
    Broken,
    Name,
    argument,
    dimension,
    items,
    record,
    scalar_code,
    text,
    union,
)
from compiler.frontend.torch_export.subgraphs import TOKEN
from compiler.frontend.torchscript.state import NEXT, as_attribute
from compiler.frontend.torchscript.tensors import Tensor
from compiler.ir.core import Function, Module, Result, Value
from compiler.ir.location import Location
from compiler.ir.types import DType, TensorType
from compiler.ops.graph import Return
from compiler.ops.math import Cast

STATE = "give the state to forward as an argument and return it"


def import_model(path: Path, shapes: Mapping[str, Sequence[int]], bindings: Mapping[str, Any]) -> Module:
    """The module of a `.pt2` file. Raises CompilerError listing every node that cannot be converted."""
    return finished(Importer(path, shapes, bindings))


class Importer:
    """One import. After `run`: `module` (complete only if nothing was reported), `records`, `faults`."""

    def __init__(self, path: Path, shapes: Mapping[str, Sequence[int]], bindings: Mapping[str, Any]) -> None:
        self.archive: Archive = open_archive(path)
        self.file = path.name
        self.faults: list[Diagnostic] = []
        self.module = Module({"source": path.name})
        self.function = self.module.add_function(Function("main"))
        self.builder = Builder(self.module, self.function)
        try:
            program = record(self.archive.program, "graph_module")
            self._graph = record(program, "graph")
            self._inputs = [union(spec) for spec in items(program, "signature", "input_specs")]
            self._outputs = [union(spec) for spec in items(program, "signature", "output_specs")]
            self.nodes = Nodes(self.file, self.builder, self.function, record(self._graph, "tensor_values"))
            self._user_inputs = self._names_of_user_inputs()
            self.inputs = resolve_inputs(self._declared(), shapes, bindings, self.file)
        except Broken as fault:
            raise self._broken(fault) from None
        except Unsupported as fault:
            raise error("E211", f"an input {fault.reason}", where=self.file, help=fault.remedy) from None
        if self.inputs.assumed:
            self.module.attributes["assumed_shapes"] = dict(self.inputs.assumed)
        self._state: dict[str, np.ndarray] = {}

    @property
    def records(self) -> list[NodeRecord]:
        return self.nodes.records

    def _broken(self, fault: Broken) -> CompilerError:
        return error("E212", f"the exported program is damaged: {fault}", where=self.file, help=REMEDY)

    def _fault(self, message: str, help: str) -> None:
        self.faults.append(Diagnostic(code="E211", where=self.file, message=message, help=help))

    def run(self) -> None:
        """Convert the graph as far as possible."""
        try:
            self._reserve_names()
            self._add_arguments()
            self._add_stored_tensors()
            results = [n for output in items(self._graph, "outputs") for n in _names_in(output)]
            self.nodes.run(self._graph, results)
            self._add_outputs()
        except Broken as fault:
            raise self._broken(fault) from None
        if not self.faults and all(r.status == "converted" for r in self.records):
            _erase_dead_ops(self.function)
            self.module.drop_unused_constants()

    def _reserve_names(self) -> None:
        for name in self.inputs.types:
            self.builder.reserve(name)
        for node in items(self._graph, "nodes"):
            for output in items(node, "outputs"):
                for name in _names_in(output):
                    self.builder.reserve(name)

    # -- inputs ------------------------------------------------------------------------------------------------------
    def _names_of_user_inputs(self) -> list[str]:
        found = []
        for kind, spec in self._inputs:
            if kind == "user_input":
                value = argument(record(spec, "arg"))
                found += [value.text] if isinstance(value, Name) else []
        return found

    def _declared(self) -> list[DeclaredInput]:
        """The inputs as the program declares them; a number is a rank-0 input, to be bound."""
        types, found = record(self._graph, "tensor_values"), []
        for name in self._user_inputs:
            if name not in types:
                found.append(DeclaredInput(name, DType.I64, []))
                continue
            dtype = dtypes.SCALAR_TYPES.get(scalar_code(record(types[name], "dtype")))
            if dtype is None:
                kind = CODES[types[name]["dtype"]]
                raise Unsupported(f"({name!r}) is of type {kind}", "use float32, an integer type or bool")
            found.append(DeclaredInput(name, dtype, [dimension(d) for d in items(types[name], "sizes")]))
        return found

    def _add_arguments(self) -> None:
        for name, type in self.inputs.types.items():
            if name not in record(self._graph, "tensor_values"):
                self._fault(f"input {name!r} is a number", f"give it a value with --bind {name}=...")
                continue
            value: Value = self.function.add_argument(type, name)
            inner = dtypes.widened(type.dtype)
            if inner is not type.dtype:
                self.builder.begin_node(Location.of(name, self.file), name)
                value = self.builder.emit(Cast, value, to=inner)[0]
                self.builder.name_results(self.function.body.last)
            self.nodes.values[name] = Tensor.of(value)
        for name, array in self.inputs.bound.items():
            known = Tensor.of(self.builder.constant(array, name))
            is_tensor = name in record(self._graph, "tensor_values")
            self.nodes.values[name] = known if is_tensor else int(array.reshape(-1)[0])

    def _add_stored_tensors(self) -> None:
        written = self._written_buffers()
        for kind, spec in self._inputs:
            if kind in ("parameter", "buffer", "tensor_constant"):
                title = text(spec, f"{kind}_name")
                holder = self.archive.constants if kind == "tensor_constant" else self.archive.weights
                reader = holder.get(title) or self.archive.constants.get(title) or self.archive.weights.get(title)
                self._add_stored(text(spec, "arg", "name"), title, reader, written)
            elif kind == "custom_obj":
                self.nodes.values[text(spec, "arg", "name")] = BLOCKED
                self._fault(f"input {text(spec, 'arg', 'name')!r} is an object", "export a network of tensors only")
            elif kind == "token":
                self.nodes.values[text(spec, "arg", "name")] = TOKEN
            elif kind == "constant_input":
                self.nodes.values[text(spec, "name")] = union(record(spec, "value"))[1]

    def _add_stored(self, name: str, title: str, reader: Reader | None, written: set[str]) -> None:
        self.nodes.values[name] = BLOCKED
        try:
            if reader is None:
                raise error("E201", f"tensor {title!r} is missing", where=self.file, help=REMEDY)
            array = reader()
        except CompilerError as fault:
            self.faults += fault.diagnostics
            return
        dtype = DType.of(array.dtype)
        wide = array if dtypes.widened(dtype) is dtype else array.astype(dtypes.widened(dtype).numpy)
        if name not in written:
            self.nodes.values[name] = Tensor.of(self.builder.constant(np.ascontiguousarray(wide), title))
            return
        self._state[title] = wide
        self.builder.reserve(title)
        type = TensorType(wide.shape, dtypes.widened(dtype))
        self.nodes.values[name] = Tensor.of(self.function.add_argument(type, title))

    def _written_buffers(self) -> set[str]:
        """Names of parameters and buffers that the network writes: as the signature says, or in place."""
        stored = [(k, s) for k, s in self._inputs if k in ("parameter", "buffer")]
        by_title = {text(s, f"{k}_name"): text(s, "arg", "name") for k, s in stored}
        said = {by_title.get(text(s, k.replace("mutation", "name")), "")
                for k, s in self._outputs if k in ("buffer_mutation", "parameter_mutation")}  # fmt: skip
        return said | (self.nodes.written_names(self._graph) & set(by_title.values()))

    # -- outputs -----------------------------------------------------------------------------------------------------
    def _add_outputs(self) -> None:
        outputs: dict[str, Value] = {}
        after: dict[str, Value] = {}
        for kind, spec in self._outputs:
            if kind == "user_output":
                self._add_output(argument(record(spec, "arg")), outputs)
            elif kind in ("buffer_mutation", "parameter_mutation", "user_input_mutation"):
                title = text(spec, kind.replace("mutation", "name"))
                after[title] = self.nodes.lookup(Name(text(spec, "arg", "name")))
            elif kind not in ("token", "loss_output"):
                self._fault(f"returns a gradient ({kind})", "export the network for inference")
        for title, value in {**self._written_in_place(), **after}.items():
            if value is not BLOCKED:
                outputs[title + NEXT] = self._as_value(value)
        if not outputs and not self.faults and not any(r.status in ("unsupported", "malformed") for r in self.records):
            self._fault("the network gives no tensor", "return at least one tensor from forward")
        values = [self.builder.registered(value, name) for name, value in outputs.items()]
        self.function.body.append(Return(*values))  # type: ignore[arg-type]
        self.function.attributes["outputs"] = tuple(outputs)
        self._document_state(outputs)

    def _as_value(self, x: Any) -> Value:
        return self.nodes.value(x) if isinstance(x, Tensor) else self.builder.constant(np.asarray(x))

    def _add_output(self, reference: Any, outputs: dict[str, Value]) -> None:
        """Enter an output under the name of what it is; numbers become tensors, None is no output."""
        if isinstance(reference, list):
            for item in reference:
                self._add_output(item, outputs)
            return
        found = self.nodes.lookup(reference) if isinstance(reference, Name) else reference
        if found is BLOCKED or found is None:
            return
        if isinstance(found, str) or found is ABSENT:
            self._fault(f"returns {found!r}", "return tensors")
            return
        name = reference.text if isinstance(reference, Name) else "output"
        value = self._as_value(found)
        meta = record(self._graph, "tensor_values").get(name) if isinstance(found, Tensor) else None
        declared = dtypes.SCALAR_TYPES.get(scalar_code(record(meta, "dtype"))) if meta is not None else None
        if declared in (DType.F16, DType.BF16) and value.type.dtype is DType.F32:
            self.builder.begin_node(Location.of(name, self.file), name)
            value = self.builder.emit(Cast, value, to=declared)[0]
            if isinstance(value, Result):
                value.name = self.builder.fresh_name(name)
        outputs[self._free_name(name, outputs)] = value

    @staticmethod
    def _free_name(name: str, outputs: Mapping[str, Value]) -> str:
        number, free = 1, name
        while free in outputs:
            free, number = f"{name}.{number}", number + 1
        return free

    def _written_in_place(self) -> dict[str, Any]:
        """Inputs and buffers whose tensors the graph wrote."""
        titles = {text(s, "arg", "name"): text(s, f"{k}_name") for k, s in self._inputs if k in ("parameter", "buffer")}
        titles.update({name: name for name in self._user_inputs})
        found = {}
        for name, title in titles.items():
            tensor = self.nodes.values.get(name)
            is_state = title in self._state or name in self._user_inputs
            if is_state and isinstance(tensor, Tensor) and tensor.store.version:
                found[title] = tensor
        return found

    def _document_state(self, outputs: Mapping[str, Value]) -> None:
        """Say in the module which outputs become which inputs of the next call, and what those are at first."""
        state = {name: value for name, value in self._state.items() if name + NEXT in outputs}
        if not state:
            return
        shown = {name: as_attribute(value) for name, value in state.items()}
        for name, value in shown.items():
            if value is None:
                self._fault(f"the first value of buffer {name!r} is too large to be kept", STATE)
        self.module.attributes["state"] = {name + NEXT: name for name in state}
        self.module.attributes["first_state"] = shown


def _names_in(output: Any) -> list[str]:
    """Names that a node's output binds."""
    try:
        found = argument(output)
    except Unsupported:
        return []
    listed = found if isinstance(found, list) else [found]
    return [item.text for item in listed if isinstance(item, Name)]


def _erase_dead_ops(function: Function) -> None:
    for op in reversed(function.body):
        if op.results and not any(r.uses for r in op.results):
            op.erase()


