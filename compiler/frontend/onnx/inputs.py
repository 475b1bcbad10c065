"""Inputs as an ONNX graph declares them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from compiler.errors import Diagnostic
from compiler.frontend.inputs import DeclaredInput, Dim
from compiler.frontend.onnx.reader import dtype_name, held_dtype_of
from compiler.ir.types import DType


def declared_inputs(
    graph_inputs: Sequence[onnx.ValueInfoProto], where: str
) -> tuple[list[DeclaredInput], list[Diagnostic]]:
    """The inputs that are tensors of a type there is, and what is wrong with the others."""
    found: list[DeclaredInput] = []
    faults: list[Diagnostic] = []
    for info in graph_inputs:
        dtype, fault = _element_type(info, where)
        if fault is not None:
            faults.append(fault)
        elif dtype is not None:
            found.append(DeclaredInput(info.name, dtype, _declared_shape(info)))
    return found, faults


def _element_type(info: onnx.ValueInfoProto, where: str) -> tuple[DType | None, Diagnostic | None]:
    if not info.type.HasField("tensor_type"):
        kind = info.type.WhichOneof("value") or "value without a type"
        return None, Diagnostic(
            code="E211", where=where, message=f"input {info.name!r} is a {kind.removesuffix('_type')}, not a tensor",
            help="export the network with tensors as its inputs",
        )  # fmt: skip
    code = info.type.tensor_type.elem_type
    dtype = held_dtype_of(code)
    if dtype is None:
        return None, Diagnostic(
            code="E211", where=where, message=f"input {info.name!r} has elements of type {dtype_name(code)}",
            help="export the network with float, integer or boolean inputs",
        )  # fmt: skip
    return dtype, None


def _declared_shape(info: onnx.ValueInfoProto) -> list[Dim] | None:
    """Dimensions as numbers or symbols ('?' for nameless ones); None when the model gives no shape at all."""
    tensor_type = info.type.tensor_type
    if not tensor_type.HasField("shape"):
        return None
    return [
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else (d.dim_param or "?")
        for d in tensor_type.shape.dim
    ]
