"""The converter of Einsum."""

from __future__ import annotations

from compiler.frontend.common.einsum import einsum
from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.registry import converter
from compiler.ir.core import Value


@converter("Einsum")
def einsum_node(n: Node) -> Value:
    return einsum(n, n.required("equation"), [n.input(i) for i in range(len(n.inputs))])
