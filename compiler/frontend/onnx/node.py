"""What a converter sees of an ONNX node: its inputs as values, its attributes as Python values, and ways to emit ops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from compiler.frontend.builder import Builder
from compiler.frontend.common.emitter import Emitter
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Constant, Value

MOST_ELEMENTS = 1 << 24
"""Elements of a constant that is not a weight of the model."""

DEPENDS = "depends on the network's data"
FIX_SHAPE = "cut the model before the operator that selects by data, or select a fixed number (TopK)"


@dataclass(frozen=True)
class SequenceValue:
    """What an ONNX sequence is while a model is imported: the values in it."""

    items: tuple[Value, ...]


@dataclass
class Inline:
    """A converter's answer that a graph stands for the node: a branch, one round of a loop, a function's body.

    `arguments` bind names of the graph to values. `then` takes the values of `outputs` and gives the node's results,
    or another `Inline` to go on with. `isolated` graphs (function bodies) see no names of the graph around them. A
    graph that `hides_nodes` is not the user's: whatever happens in it is reported of the node it stands for.
    """

    nodes: Sequence[onnx.NodeProto]
    outputs: Sequence[str]
    arguments: dict[str, Value | None] = field(default_factory=dict)
    initializers: Sequence[onnx.TensorProto] = ()
    then: Callable[[list[Value | None]], Any] = list
    isolated: bool = False
    hides_nodes: bool = False
    function: onnx.FunctionProto | None = None
    opsets: dict[str, int] | None = None


class Node(Emitter):
    """One ONNX node with its inputs looked up. Lives while its converter runs."""

    def __init__(
        self, proto: onnx.NodeProto, inputs: Sequence[Value | SequenceValue | None], builder: Builder, opset: int,
        read_tensor: Callable[[onnx.TensorProto], np.ndarray],
    ) -> None:  # fmt: skip
        self.proto = proto
        self.inputs: list[Any] = list(inputs)
        self.builder = builder
        self.opset = opset
        self._read_tensor = read_tensor
        self._attributes = {a.name: a for a in proto.attribute}
        self._read: set[str | int] = {"consumed_inputs"}  # how operators before opset 6 reused memory

    # -- inputs ------------------------------------------------------------------------------------------------------
    def input(self, index: int) -> Value:
        """A required input. Raises Malformed when the node does not have it."""
        value = self.optional(index)
        if value is None:
            raise Malformed(f"input {index} is missing")
        return value

    def optional(self, index: int) -> Value | None:
        self._read.add(index)
        value = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(value, SequenceValue):
            raise Unsupported(f"takes a sequence as input {index}", "export the network with tensors in its place")
        return value

    def value_or_sequence(self, index: int) -> Value | SequenceValue:
        """A required input that may be a sequence."""
        self._read.add(index)
        return self.sequence(index) if isinstance(self.inputs[index], SequenceValue) else self.input(index)

    def sequence(self, index: int) -> SequenceValue:
        """A required input that is a sequence."""
        self._read.add(index)
        value = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(value, SequenceValue):
            raise Malformed(f"input {index} is not a sequence")
        return value

    def known(self, index: int) -> np.ndarray | None:
        """The elements of an input that is known at import, else None (also when absent)."""
        value = self.optional(index)
        return value.data if isinstance(value, Constant) else None

    def array(self, index: int, what: str) -> np.ndarray:
        """The elements of a required input that must be known. `what` names it for the message."""
        self.input(index)
        found = self.known(index)
        if found is None:
            raise Unsupported(
                f"{what} (input {index}, {self.proto.input[index]!r}) depends on the network's data",
                "make it a constant in the exported model; an integer or boolean graph input can be bound with --bind",
            )
        return found

    def ints(self, index: int, what: str) -> tuple[int, ...]:
        return tuple(int(v) for v in self.array(index, what).reshape(-1))

    def optional_ints(self, index: int, what: str) -> tuple[int, ...] | None:
        return None if self.optional(index) is None else self.ints(index, what)

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """The shape of a required input, which must not depend on the network's data."""
        type = self.input(index).type
        if not type.is_static:
            raise Unsupported(f"the shape of input {index}, {self.proto.input[index]!r}, {DEPENDS}", FIX_SHAPE)
        return type.static_shape

    # -- attributes --------------------------------------------------------------------------------------------------
    def has(self, name: str) -> bool:
        self._read.add(name)
        return name in self._attributes

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute as number, str, tuple, array (tensors) or GraphProto; `default` when absent."""
        self._read.add(name)
        proto = self._attributes.get(name)
        if proto is None:
            return default
        value = onnx.helper.get_attribute_value(proto)
        if value is None:
            raise Malformed(f"attribute {name!r} has no value")
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, onnx.TensorProto):
            return self._read_tensor(value)
        if proto.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
            return tuple(value)
        if proto.type == onnx.AttributeProto.STRINGS:
            return tuple(v.decode("utf-8", "replace") for v in value)
        return value

    def graph(self, name: str) -> onnx.GraphProto:
        """A required attribute that is a graph."""
        value = self.required(name)
        if not isinstance(value, onnx.GraphProto):
            raise Malformed(f"attribute {name!r} is not a graph")
        return value

    def required(self, name: str) -> Any:
        if name not in self._attributes:
            raise Malformed(f"attribute {name!r} is missing")
        return self.attribute(name)

    def ignore(self, *names: str | int) -> None:
        """Attributes and inputs (by position) that do not matter to a compiled network."""
        self._read.update(names)

    def unread(self) -> list[str]:
        """What the node says and its converter did not ask about, as text. Attributes at their default do not count."""
        found = [f"input {i}" for i, v in enumerate(self.inputs) if v is not None and i not in self._read]
        return found + [
            f"attribute {name!r}" for name, proto in self._attributes.items()
            if name not in self._read and not self._is_default(name, proto)
        ]  # fmt: skip

    def _is_default(self, name: str, proto: onnx.AttributeProto) -> bool:
        if not onnx.defs.has(self.proto.op_type, self.opset, self.proto.domain):
            return False
        declared = onnx.defs.get_schema(self.proto.op_type, self.opset, self.proto.domain).attributes.get(name)
        default = declared.default_value if declared is not None else None
        if default is None or not default.type:
            return False
        return onnx.helper.get_attribute_value(default) == onnx.helper.get_attribute_value(proto)

    def axes_attribute_or_input(self, index: int, name: str = "axes") -> tuple[int, ...] | None:
        """Axes as newer opsets give them (an input) or as older ones do (an attribute); None when neither is there."""
        if self.optional(index) is not None:
            return self.ints(index, name)
        return self.attribute(name)

    @property
    def has_output(self) -> Callable[[int], bool]:
        return lambda index: index < len(self.proto.output) and bool(self.proto.output[index])

    # -- emission ----------------------------------------------------------------------------------------------------
    def room_for(self, elements: int, what: str = "a table") -> None:
        """Raise Unsupported where a constant of so many elements would be made at import."""
        if elements > MOST_ELEMENTS:
            reason = f"needs {what} of {elements} elements, at most {MOST_ELEMENTS} are made at import"
            raise Unsupported(reason, "check the sizes in the model, or run this part in the host program")

    def scalar_like(self, number: float, value: Value) -> Constant:
        """A rank-0 constant of the element type of `value`."""
        return self.constant(number, value.type.dtype)
