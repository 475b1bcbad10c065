"""The ONNX graph under construction, and the table of rows that write ops into it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.ir.core import Constant, Module, Value
from compiler.ir.types import DType, QuantType, TensorType

if TYPE_CHECKING:
    import onnx

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


def element_type(dtype: DType) -> int:
    """The number ONNX has for an element type."""
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(dtype.numpy)
