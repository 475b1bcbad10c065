"""From a module of neutral ops to an ONNX model: `to_onnx(module)`, `mluc export`.

One row per op says which nodes it becomes (`rows`, and `elementwise` for those that are one node of the same meaning).
Quantised values become QuantizeLinear and DequantizeLinear pairs around float nodes. What is made for the chip
(layouts, subnets, `mlu.` ops) has no ONNX form; every op without one is named in one error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from compiler.errors import CompilerError, Diagnostic, error
from compiler.export import elementwise, rows  # noqa: F401  # they fill the table
from compiler.export.graph import ROWS, Graph, NotExpressible, element_type, quantized
from compiler.ir.core import Module, Op, Value
from compiler.ir.types import TensorType

if TYPE_CHECKING:
    import onnx

OPSET = 21
IR_VERSION = 10
"""The oldest that goes with the opset, so that old run times read the file."""


# -- the model -------------------------------------------------------------------------------------------------------
def to_onnx(module: Module) -> onnx.ModelProto:
    """The ONNX model of a module whose `@main` holds neutral ops. Raises CompilerError E801 for everything in it that
    has no ONNX form."""
    _check(module)
    graph = Graph(module)
    outputs: list[Value] = []
    faults: list[Diagnostic] = []
    for argument in module.main.arguments:
        graph.names[argument] = graph.fresh(argument.name)
    names = [graph.fresh(name) for name in module.main.output_names]
    reserved: dict[Value, str] = {}
    for value, name in zip(module.main.outputs, names, strict=True):
        if value.producer is not None:
            reserved.setdefault(value, name)
    for op in module.main.body:
        if op.op_name == "graph.return":
            outputs = list(op.inputs)
            continue
        try:
            _write(graph, op, reserved)
        except NotExpressible as reason:
            faults.append(_fault(op, str(reason)))
            graph.names |= {r: graph.fresh(r.name) for r in op.results}  # so that what takes them is looked at too
    if faults:
        raise CompilerError(faults)
    return _model(graph, module, outputs, names)


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


def _model(graph: Graph, module: Module, outputs: Sequence[Value], names: Sequence[str]) -> onnx.ModelProto:
    from onnx import helper, numpy_helper

    main = module.main
    inputs = [_info(graph.names[a], a.type) for a in main.arguments]
    results = []
    for value, name in zip(outputs, names, strict=True):
        made = graph.raw(value)
        if made != name:  # one value returned twice, an input or a constant returned
            graph.node("Identity", made, outputs=[name])
        results.append(_info(name, value.type))
    stored = [numpy_helper.from_array(np.asarray(a, order="C"), n) for n, a in graph.initializers.items()]
    made_graph = helper.make_graph(graph.nodes, str(module.attributes.get("source", "module")), inputs, results, stored)
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(made_graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="mluc")


def _info(name: str, type: TensorType) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, element_type(type.dtype), list(type.shape))
