"""From an ONNX file to a module: one walk over the nodes, every node converted or reported.

The walk keeps a stack of frames instead of recursing: the main graph, and on top of it whatever graph stands for a
node (a branch of `If`, a round of `Loop`, the body of a function). A node that cannot be converted does not stop the
walk: its outputs become placeholders of the type the model declares for them, or blocked where it declares none, and
all such nodes are reported together. What single operators mean is in the converter table, not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from compiler.errors import CompilerError, Diagnostic, error
from compiler.frontend.builder import Builder
from compiler.frontend.inputs import resolve_inputs
from compiler.frontend.onnx import functions, reader
from compiler.frontend.onnx.inputs import declared_inputs
from compiler.frontend.onnx.integers import plain_where_meant
from compiler.frontend.onnx.node import DEPENDS, FIX_SHAPE, Inline, Node
from compiler.frontend.onnx.registry import find_converter, load_converters
from compiler.frontend.onnx.sorting import needed_in_order
from compiler.frontend.records import UNCONVERTED, Malformed, NodeRecord, Unsupported, finished
from compiler.ir.core import Argument, Constant, Function, Module, Result, Value
from compiler.ir.location import Location
from compiler.ir.types import DType, TensorType
from compiler.ops.graph import Return
from compiler.ops.math import Cast

DEEPEST_NESTING = 64
MOST_NODES = 100_000
"""Nodes looked at, those of unrolled loops and inlined functions each time: more is taken for a model that has no end.
"""

REPAIR = "export the model again, or repair it: onnx.checker.check_model(model, full_check=True) tells what is wrong"

BLOCKED: Any = object()
"""Stands for a tensor whose producer was not converted and whose type nobody knows."""


@dataclass
class Scope:
    """Names visible to the nodes of a graph. Initialisers are read when first asked for."""

    opsets: dict[str, int]
    parent: Scope | None = None
    prefix: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, onnx.TensorProto] = field(default_factory=dict)
    owner: NodeRecord | None = None
    location: Location | None = None

    def holder(self, name: str) -> Scope | None:
        """The innermost scope that defines `name`."""
        scope: Scope | None = self
        while scope is not None and name not in scope.values and name not in scope.tensors:
            scope = scope.parent
        return scope


@dataclass
class Frame:
    """A graph being walked: the nodes still to come, and whose results its outputs are."""

    nodes: Iterator[onnx.NodeProto]
    scope: Scope
    inline: Inline | None = None
    caller: tuple[onnx.NodeProto, Scope, NodeRecord] | None = None


def import_model(path: Path, shapes: Mapping[str, Sequence[int]], bindings: Mapping[str, Any]) -> Module:
    """The module of an ONNX file. Raises CompilerError listing every node that cannot be converted."""
    importer = Importer(path, shapes, bindings)
    module = finished(importer)
    if len(importer.function.outputs) != len(importer.model.graph.output):
        raise RuntimeError("an output was not converted and nothing was reported")
    return module


class Importer:
    """One import. After `run`: `module` (complete only if nothing was reported), `records`, `faults`."""

    def __init__(self, path: Path, shapes: Mapping[str, Sequence[int]], bindings: Mapping[str, Any]) -> None:
        load_converters()
        self.file = path.name
        self.path = path
        self.model = reader.read_model(path)
        self.records: list[NodeRecord] = []
        self.faults: list[Diagnostic] = []
        self.module = Module({"source": path.name})
        self.function = self.module.add_function(Function("main"))
        self.builder = Builder(self.module, self.function)
        self._local_functions = {(f.domain, f.name): f for f in self.model.functions}
        self._renamable: set[Value] = set()
        self._declared = {v.name: v for v in (*self.model.graph.value_info, *self.model.graph.output)}
        self._stack: list[Frame] = []
        self._visited = 0
        graph = self.model.graph
        tensors = {t.name: t for t in graph.initializer}
        self._scope = Scope(reader.opsets_of(self.model.opset_import), tensors=tensors)
        free = [i for i in graph.input if i.name not in tensors]
        inputs, faults = declared_inputs(free, self.file)
        self.inputs = resolve_inputs(inputs, shapes, bindings, self.file, faults)
        if self.inputs.assumed:
            self.module.attributes["assumed_shapes"] = dict(self.inputs.assumed)

    # -- the walk ----------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Convert the model as far as possible, filling `module`, `records` and `faults`."""
        graph = self.model.graph
        self._reserve_names()
        self._check_sparse(graph)
        self._add_arguments()
        outputs = [o.name for o in graph.output]
        nodes = needed_in_order(graph.node, outputs, lambda n: self._scope.holder(n) is not None, self.file)
        self._stack = [Frame(iter(nodes), self._scope)]
        while self._stack:
            frame = self._stack[-1]
            node = next(frame.nodes, None)
            if node is not None:
                self._visit(node, frame.scope)
            else:
                self._stack.pop()
                self._leave(frame)
        self._add_outputs()
        _erase_dead_ops(self.function)
        self.module.drop_unused_constants()

    def _reserve_names(self) -> None:
        graph = self.model.graph
        for name in (i.name for i in graph.input):
            self.builder.reserve(name)
        for node in graph.node:
            for name in node.output:
                self.builder.reserve(name)

    def _check_sparse(self, graph: onnx.GraphProto) -> None:
        for tensor in graph.sparse_initializer:
            self.faults.append(Diagnostic(
                code="E211", where=self.file, message=f"initialiser {tensor.values.name!r} is sparse",
                help="export the network with dense weights",
            ))  # fmt: skip
            self._scope.values[tensor.values.name] = BLOCKED

    def _add_arguments(self) -> None:
        codes = {i.name: i.type.tensor_type.elem_type for i in self.model.graph.input}
        for name, type in self.inputs.types.items():
            value: Value = self.function.add_argument(type, name)
            self._note_narrow(value, codes[name])
            inner = reader.widened(type.dtype)
            if inner is not type.dtype:
                self.builder.begin_node(Location.of(name, self.file), name)
                value = self.builder.emit(Cast, value, to=inner)[0]
                self.builder.name_results(self.function.body.last)
            self._scope.values[name] = value
        for name, array in self.inputs.bound.items():
            self._scope.values[name] = self.builder.constant(array, name)
            self._note_narrow(self._scope.values[name], codes[name])

    def _add_outputs(self) -> None:
        values: list[Value] = []
        names = [o.name for o in self.model.graph.output]
        for info in self.model.graph.output:
            value = self._lookup(info.name, self._scope)
            if value is BLOCKED or not isinstance(value, Value):
                if not isinstance(value, Value) and value is not BLOCKED:
                    self.faults.append(_not_a_tensor(info.name, self.file))
                continue
            wanted = reader.dtype_of(info.type.tensor_type.elem_type)
            if wanted in (DType.F16, DType.BF16) and value.type.dtype is DType.F32:
                self.builder.begin_node(Location.of(info.name, self.file), info.name)
                value = self.builder.emit(Cast, value, to=wanted)[0]
                if isinstance(value, Result):
                    value.name = self.builder.fresh_name(info.name)
            values.append(self.builder.registered(value, info.name))  # type: ignore[arg-type]
        self.function.body.append(Return(*values))
        self.function.attributes["outputs"] = tuple(names)

    # -- one node ----------------------------------------------------------------------------------------------------
    def _visit(self, proto: onnx.NodeProto, scope: Scope) -> None:
        self._visited += 1
        if self._visited > MOST_NODES:
            raise error(
                "E217", f"loops and functions unfold to more than {MOST_NODES} nodes", where=self.file,
                help=f"the last one was of operator {proto.op_type!r}: shorten its loop, or run it in the host program",
            )  # fmt: skip
        record = self._record(proto, scope)
        try:
            inputs = [self._lookup(name, scope) if name else None for name in proto.input]
        except CompilerError as fault:
            self.faults += fault.diagnostics
            self._fail(proto, scope, record, "blocked", "a weight of it cannot be read")
            return
        if any(value is BLOCKED for value in inputs):
            self._fail_blocked(proto, scope, record)
            return
        node = Node(
            proto, inputs, self.builder, record.opset,
            partial(reader.read_tensor, model=self.path, where=f"{self.file}: node {record.name!r}"),
        )  # fmt: skip
        self._attempt(partial(self._convert, node, record, scope), proto, scope, record)

    def _fail_blocked(self, proto: onnx.NodeProto, scope: Scope, record: NodeRecord) -> None:
        """A node behind one that was not converted: not looked at, but unsupported all the same if its operator is."""
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        opset = scope.opsets.get(domain, 0)
        known = (proto.domain, proto.op_type) in self._local_functions or functions.is_defined(
            proto.op_type, domain, opset
        )
        if known or find_converter(proto.op_type, opset, domain) is not None:
            self._fail(proto, scope, record, "blocked", UNCONVERTED)
            return
        fault = functions.unknown_operator(record)
        self._fail(proto, scope, record, "unsupported", fault.reason, fault.remedy)

    def _record(self, proto: onnx.NodeProto, scope: Scope) -> NodeRecord:
        """The record a node's fate goes into: its own, or that of the node whose expansion it belongs to."""
        if scope.owner is not None:
            return scope.owner
        outputs = tuple(n for n in proto.output if n)
        name = scope.prefix + (proto.name or (outputs[0] if outputs else proto.op_type))
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        record = NodeRecord(name, proto.op_type, domain, scope.opsets.get(domain, 0), outputs)
        self.records.append(record)
        return record

    def _convert(self, node: Node, record: NodeRecord, scope: Scope) -> Any:
        """What the node gives: values or an `Inline`. Raises Unsupported or Malformed."""
        proto = node.proto
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        opset = node.opset = scope.opsets.get(domain, 0)
        local = self._local_functions.get((proto.domain, proto.op_type))
        if local is not None:
            if any(f.inline is not None and f.inline.function is local for f in self._stack):
                raise Malformed(f"function {record.operator!r} calls itself", "a function must end: repair the model")
            return functions.inline_function(local, node, reader.opsets_of(local.opset_import))
        functions.check_node(proto, scope.opsets, self.model.ir_version)
        found = find_converter(proto.op_type, opset, domain)
        if found is not None:
            plain_where_meant(node)
            answer = found(node)
            if unread := node.unread():
                raise Unsupported(f"has {', '.join(unread)}, which this converter does not know", functions.CUT)
            return answer
        body = functions.body_of_operator(node, domain, opset)
        if body is not None:
            return functions.inline_function(body, node, {**scope.opsets, **reader.opsets_of(body.opset_import)})
        raise functions.unknown_operator(record)

    def _attempt(self, action: Any, proto: onnx.NodeProto, scope: Scope, record: NodeRecord) -> None:
        """Run a step of a node's conversion and settle its answer, or record why not."""
        location = scope.location or Location.of(record.name, self.file)
        self.builder.begin_node(location, scope.prefix + next((n for n in proto.output if n), record.name))
        last = self.function.body.last
        try:
            answer = action()
            if isinstance(answer, Inline):
                self._enter(answer, proto, scope, record)
            else:
                self._bind(proto, scope, answer)
        except Unsupported as fault:
            self._fail(proto, scope, record, "unsupported", fault.reason, fault.remedy)
        except Malformed as fault:
            self._fail(proto, scope, record, "malformed", fault.reason, fault.remedy or REPAIR)
        except CompilerError as fault:
            reasons = "; ".join(d.message for d in fault.diagnostics)
            self._fail(proto, scope, record, "malformed", reasons, fault.diagnostics[0].help or REPAIR)
        except MemoryError:
            remedy = "check the sizes in the model, or run this part in the host program"
            self._fail(proto, scope, record, "unsupported", "needs more memory than there is at import", remedy)
        except (ArithmeticError, LookupError, TypeError, ValueError) as fault:
            if open_inputs := self._open_inputs(proto, scope):
                reason = f"the shape of {', '.join(map(repr, open_inputs))} {DEPENDS}, which this operator cannot take"
                self._fail(proto, scope, record, "unsupported", reason, FIX_SHAPE)
                return
            reason = f"its inputs and attributes do not fit together ({type(fault).__name__}: {fault})"
            remedy = "if onnxruntime runs the model, this is a fault of mluc: report it with the node"
            self._fail(proto, scope, record, "malformed", reason, remedy)
        self.builder.name_results(last.next if last is not None else self.function.body.first)

    def _open_inputs(self, proto: onnx.NodeProto, scope: Scope) -> list[str]:
        """Inputs of a node whose shape is not known at import."""
        values = {name: self._lookup(name, scope) for name in proto.input if name}
        return [name for name, v in values.items() if isinstance(v, Value) and not v.type.is_static]

    def _fail(
        self, proto: onnx.NodeProto, scope: Scope, record: NodeRecord, status: str, reason: str, remedy: str = ""
    ) -> None:
        if record.status not in ("unsupported", "malformed"):
            record.status, record.reason, record.remedy = status, reason, remedy
        for name in filter(None, proto.output):
            scope.values[name] = self._placeholder(name) if scope.parent is None and not scope.prefix else BLOCKED

    def _placeholder(self, name: str) -> Any:
        """A value of the type the model declares for a tensor, so that the nodes after it can be looked at too."""
        info = self._declared.get(name)
        if info is None or not info.type.tensor_type.HasField("shape"):
            return BLOCKED
        dims = [d.dim_value for d in info.type.tensor_type.shape.dim]
        dtype = reader.dtype_of(info.type.tensor_type.elem_type)
        if dtype is None or any(d <= 0 for d in dims):
            return BLOCKED
        return Argument(self.function.body, -1, TensorType(tuple(dims), reader.widened(dtype)), name)

    # -- names -------------------------------------------------------------------------------------------------------
    def _lookup(self, name: str, scope: Scope) -> Any:
        holder = scope.holder(name)
        if holder is None:
            return BLOCKED
        if name not in holder.values:
            array = reader.read_tensor(holder.tensors[name], self.path, self.file)
            holder.values[name] = self.builder.constant(array, name)
            self._note_narrow(holder.values[name], holder.tensors[name].data_type)
        return holder.values[name]

    def _note_narrow(self, value: Value, code: int) -> None:
        if bits := reader.narrow_bits(code):
            self.builder.narrow[value] = bits

    def _bind(self, proto: onnx.NodeProto, scope: Scope, answer: Any) -> None:
        """Give a node's outputs their values, and the values the outputs' names."""
        results = list(answer) if isinstance(answer, list | tuple) else [answer]
        for index, name in enumerate(proto.output):
            if not name:
                continue
            value = results[index] if index < len(results) else None
            if value is None:
                raise Unsupported(f"its output {index} is used", "remove that output from the exported model")
            self._name(value, name, scope)
            scope.values[name] = value

    def _name(self, value: Any, name: str, scope: Scope) -> None:
        if not isinstance(value, Result | Constant) or (value.name and value not in self._renamable):
            return
        if isinstance(value, Constant) and self.module.constants.get(value.name) is value:
            return
        if scope is self._scope:
            value.name = name
            self._renamable.discard(value)
        else:
            value.name = self.builder.fresh_name(scope.prefix + name)
            self._renamable.add(value)

    # -- graphs that stand for nodes ---------------------------------------------------------------------------------
    def _enter(self, inline: Inline, proto: onnx.NodeProto, scope: Scope, record: NodeRecord) -> None:
        if len(self._stack) >= DEEPEST_NESTING:
            raise Malformed("functions or subgraphs are nested too deeply, perhaps a function calls itself")
        inner = Scope(
            inline.opsets or scope.opsets, parent=None if inline.isolated else scope, values=dict(inline.arguments),
            tensors={t.name: t for t in inline.initializers}, owner=scope.owner, location=scope.location,
            prefix=scope.prefix,
        )  # fmt: skip
        if inline.hides_nodes:
            inner.owner = record
            inner.location = scope.location or Location.of(record.name, self.file)
        if inline.isolated:
            inner.prefix = scope.prefix + (proto.name or proto.output[0]) + "/"
        nodes = needed_in_order(inline.nodes, inline.outputs, lambda n: inner.holder(n) is not None, self.file)
        self._stack.append(Frame(iter(nodes), inner, inline, (proto, scope, record)))

    def _leave(self, frame: Frame) -> None:
        if frame.caller is None or frame.inline is None:
            return
        proto, scope, record = frame.caller
        outputs = [self._lookup(name, frame.scope) for name in frame.inline.outputs]
        if any(value is BLOCKED for value in outputs):
            self._fail(proto, scope, record, "blocked", "a node inside it was not converted")
            return
        self._attempt(partial(frame.inline.then, outputs), proto, scope, record)


def _not_a_tensor(name: str, where: str) -> Diagnostic:
    return Diagnostic(
        code="E211", where=where, message=f"output {name!r} is not a tensor",
        help="export the network with tensors as its outputs",
    )  # fmt: skip


def _erase_dead_ops(function: Function) -> None:
    for op in reversed(function.body):
        if op.results and not any(r.uses for r in op.results):
            op.erase()


