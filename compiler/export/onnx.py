"""From a module of neutral ops to an ONNX model: `to_onnx(module)`, `mluc export`.

One row per op says which nodes it becomes (`rows`, and `elementwise` for those that are one node of the same meaning).
Quantised values become QuantizeLinear and DequantizeLinear pairs around float nodes. What is made for the chip
(layouts, subnets, `mlu.` ops) has no ONNX form; every op without one is named in one error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.errors import CompilerError, Diagnostic, error
from compiler.ir.core import Constant, Module, Op, Value
from compiler.ir.types import DType, QuantType, TensorType

if TYPE_CHECKING:
    import onnx

OPSET = 21
IR_VERSION = 10
"""The oldest that goes with the opset, so that old run times read the file."""

Row = Callable[["Graph", Any], "str | Sequence[str]"]
ROWS: dict[str, Row] = {}
"""Op name → the function that writes its nodes and gives the names of its results."""


def row(*names: str) -> Callable[[Row], Row]:
    """Register how ops are written."""

    def decorate(function: Row) -> Row:
        ROWS.update(dict.fromkeys(names, function))
        return function

    return decorate


class NotExpressible(Exception):
    """Raised by a row for an op whose attributes ONNX has no words for."""


class Graph:
    """The ONNX graph under construction. Values of the module are known by names of their own."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, np.ndarray] = {}
        self.names: dict[Value, str] = {}
        self.floats: dict[Value, str] = {}
        self._taken: set[str] = set()
        self._constants: dict[Any, str] = {}

    def fresh(self, wanted: str) -> str:
        """A name nothing has yet."""
        name, number = wanted or "value", 0
        while name in self._taken:
            number += 1
            name = f"{wanted}.{number}"
        self._taken.add(name)
        return name

    def node(self, kind: str, *inputs: str, outputs: int | Sequence[str] = 1, name: str = "", **attributes: Any) -> Any:
        """Append a node; gives the name of its result, or a list where it has several. An attribute of None is left
        out, as are absent inputs at the end."""
        from onnx import helper

        given = list(inputs)
        while given and not given[-1]:
            given.pop()
        made = [self.fresh(name or kind.lower()) for _ in range(outputs)] if isinstance(outputs, int) else list(outputs)
        attributes = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(helper.make_node(kind, given, made, name=self.fresh(f"{made[0]}/{kind}"), **attributes))
        return made[0] if len(made) == 1 else made

    def constant(self, data: Any, name: str = "constant") -> str:
        """An initialiser; equal small ones are stored once."""
        array = np.asarray(data)
        key = (array.dtype.str, array.shape, array.tobytes()) if array.nbytes <= 64 else None
        if key is None or key not in self._constants:
            made = self.fresh(name)
            self.initializers[made] = array
            if key is None:
                return made
            self._constants[key] = made
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """An i64 vector."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float, like: Value) -> str:
        return self.constant(np.array(value, like.type.dtype.numpy))

    def get(self, value: Value | None) -> str:
        """The name of an operand; reals where it is quantised, nothing where it is absent."""
        if value is None:
            return ""
        if value.type.quant is None:
            return self.raw(value)
        if value not in self.floats:
            self.floats[value] = dequantized(self, self.raw(value), value.type)
        return self.floats[value]

    def raw(self, value: Value) -> str:
        """The name of an operand as it is stored."""
        if value not in self.names:
            assert isinstance(value, Constant)
            self.names[value] = self.fresh(value.name)
            self.initializers[self.names[value]] = value.data
        return self.names[value]


# -- quantised values ------------------------------------------------------------------------------------------------
def _parameters(graph: Graph, quant: QuantType) -> tuple[str, str, dict[str, int]]:
    """Scale, zero point and axis of a quantised type, as QuantizeLinear takes them."""
    if quant.axis is None:
        scale = np.array(quant.real_step, np.float32)
    else:
        steps = math.ldexp(1.0, quant.position) / graph.module.constant_named(quant.params or "")
        scale = np.asarray(steps, np.float32).reshape(-1)
    zero = np.full(scale.shape, quant.zero_point, quant.storage.numpy)
    axis = {} if quant.axis is None else {"axis": quant.axis}
    return graph.constant(scale, "scale"), graph.constant(zero, "zero_point"), axis


def quantized(graph: Graph, name: str, type: TensorType) -> str:
    assert type.quant is not None
    scale, zero, axis = _parameters(graph, type.quant)
    return graph.node("QuantizeLinear", name, scale, zero, name=f"{name}.q", **axis)


def dequantized(graph: Graph, name: str, type: TensorType) -> str:
    assert type.quant is not None
    scale, zero, axis = _parameters(graph, type.quant)
    return graph.node("DequantizeLinear", name, scale, zero, name=f"{name}.f", **axis)


# -- the model -------------------------------------------------------------------------------------------------------
def to_onnx(module: Module) -> onnx.ModelProto:
    """The ONNX model of a module whose `@main` holds neutral ops. Raises CompilerError E801 for everything in it that
    has no ONNX form."""
    from compiler.export import elementwise, rows  # noqa: F401  # they fill the table

    _check(module)
    graph = Graph(module)
    outputs: list[Value] = []
    faults: list[Diagnostic] = []
    for argument in module.main.arguments:
        graph.names[argument] = graph.fresh(argument.name)
    reserved = _reserve_outputs(graph, module)
    for op in module.main.body:
        if op.op_name == "graph.return":
            outputs = list(op.inputs)
            continue
        try:
            _write(graph, op, reserved)
        except NotExpressible as reason:
            faults.append(_fault(op, str(reason)))
    if faults:
        raise CompilerError(faults)
    return _model(graph, module, outputs)


def _check(module: Module) -> None:
    """Every op must have a row; what is made for the chip is told apart from what is merely missing."""
    if len(module.functions) > 1:
        raise error(
            "E801", "the module is split between chip and host, which ONNX cannot say",
            help="export it before the pass partition",
        )  # fmt: skip
    faults = []
    for op in module.ops():
        if op.op_name == "graph.return":
            continue
        if op.op_name not in ROWS:
            faults.append(_fault(op, "has no form in ONNX"))
        elif op.attributes.get("layout") == "NHWC":
            faults.append(_fault(op, "is laid out for the chip (NHWC)", "export the module before convert-layout"))
    if faults:
        raise CompilerError(faults)


def _fault(op: Op, reason: str, help: str = "") -> Diagnostic:
    return Diagnostic(code="E801", message=reason, op=op.op_name, where=str(op.location) or repr(op.name), help=help)


def _reserve_outputs(graph: Graph, module: Module) -> dict[Value, str]:
    """Names of outputs, for the values that can have them: results of ops, each once."""
    reserved: dict[Value, str] = {}
    for value, name in zip(module.main.outputs, module.main.output_names, strict=True):
        if value.producer is not None and value not in reserved:
            reserved[value] = graph.fresh(name)
    return reserved


def _write(graph: Graph, op: Op, reserved: dict[Value, str]) -> None:
    """The nodes of one op; its results get the names of the module's values."""
    made = ROWS[op.op_name](graph, op)
    found = [made] if isinstance(made, str) else list(made)
    for result, name in zip(op.results, found, strict=True):
        if result.type.quant is not None and op.op_name != "quant.quantize":
            name = quantized(graph, name, result.type)
        if result in reserved:
            name = _renamed(graph, name, reserved[result])
        graph.names[result] = name


def _renamed(graph: Graph, name: str, wanted: str) -> str:
    """Let the node that makes `name` make `wanted`; an identity, where no node does or others use the name already."""
    last = graph.nodes[-1] if graph.nodes else None
    if last is not None and name in last.output:
        last.output[list(last.output).index(name)] = wanted
        return wanted
    return graph.node("Identity", name, outputs=[wanted])


def _model(graph: Graph, module: Module, outputs: Sequence[Value]) -> onnx.ModelProto:
    from onnx import helper, numpy_helper

    main = module.main
    inputs = [_info(graph.names[a], a.type) for a in main.arguments]
    results, seen = [], set()
    for value, name in zip(outputs, main.output_names, strict=True):
        made = graph.raw(value)
        if made in seen or value.producer is None:  # one value returned twice, an input or a constant returned
            made = graph.node("Identity", made, outputs=[graph.fresh(name)])
        seen.add(made)
        results.append(_info(made, value.type))
    stored = [numpy_helper.from_array(np.asarray(a, order="C"), n) for n, a in graph.initializers.items()]
    made_graph = helper.make_graph(graph.nodes, str(module.attributes.get("source", "module")), inputs, results, stored)
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(made_graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="mluc")


def _info(name: str, type: TensorType) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, element_type(type.dtype), list(type.shape))


def element_type(dtype: DType) -> int:
    """The number ONNX has for an element type."""
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(dtype.numpy)
