"""From a file to an `onnx.ModelProto`, and from its tensors to arrays, with faults a user can read.

Nothing here knows our IR's ops. Weights are read one by one when the importer asks for them, so that a model with
external data needs no second copy in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from compiler.errors import error
from compiler.frontend.onnx.storage import damaged, read_external, slim_model
from compiler.ir.types import DType

OLDEST_OPSET = 1

_DTYPES: dict[int, DType] = {
    onnx.TensorProto.BOOL: DType.BOOL, onnx.TensorProto.INT8: DType.I8, onnx.TensorProto.INT16: DType.I16,
    onnx.TensorProto.INT32: DType.I32, onnx.TensorProto.INT64: DType.I64, onnx.TensorProto.UINT8: DType.U8,
    onnx.TensorProto.UINT16: DType.U16, onnx.TensorProto.UINT32: DType.U32, onnx.TensorProto.UINT64: DType.U64,
    onnx.TensorProto.FLOAT16: DType.F16, onnx.TensorProto.BFLOAT16: DType.BF16, onnx.TensorProto.FLOAT: DType.F32,
    onnx.TensorProto.DOUBLE: DType.F64,
}  # fmt: skip


PACKED: dict[int, tuple[DType, int]] = {
    onnx.TensorProto.INT4: (DType.I8, 4), onnx.TensorProto.UINT4: (DType.U8, 4),
    onnx.TensorProto.INT2: (DType.I8, 2), onnx.TensorProto.UINT2: (DType.U8, 2),
}  # fmt: skip
"""Integers of which several share a byte: inside a module each has a byte of its own, of this type."""


def dtype_of(code: int) -> DType | None:
    """The element type an ONNX type code stands for; None for strings, complex numbers and sub-byte types."""
    return _DTYPES.get(code)


def held_dtype_of(code: int) -> DType | None:
    """The element type that holds values of an ONNX type: its own, or for integers of 2 and 4 bits that of 8."""
    return PACKED[code][0] if code in PACKED else dtype_of(code)


def narrow_bits(code: int) -> int:
    """Bits of an integer type that is narrower than what holds it; 0 for other types."""
    return PACKED[code][1] if code in PACKED else 0


def code_of_name(name: str) -> int:
    """The code of a type's name; 0, which stands for none, where there is no such type."""
    return dict(onnx.TensorProto.DataType.items()).get(name.upper(), 0)


def dtype_name(code: int) -> str:
    """ONNX's name of a type code, for messages."""
    try:
        return str(onnx.TensorProto.DataType.Name(code)).lower()
    except ValueError:
        return f"type {code}"


def widened(dtype: DType) -> DType:
    """The type a value has inside the module: half-precision numbers become f32, which the scheme may narrow again."""
    return DType.F32 if dtype in (DType.F16, DType.BF16) else dtype


def read_model(path: Path) -> onnx.ModelProto:
    """Parse a file, without its external data. Raises CompilerError when it is not a usable ONNX model."""
    try:
        content = slim_model(path)
    except OSError as fault:
        raise error("E201", f"cannot read the file: {fault.strerror or fault}", where=str(path)) from None
    if not content:
        raise error("E201", "the file is empty", where=str(path), help="copy or download the model again")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        raise error(
            "E201", "not an ONNX model, or a damaged or truncated one", where=str(path),
            help=_not_onnx_help(content),
        ) from None
    _check_header(model, path)
    if not all(isinstance(name, str) for name in _names_of(model)):
        raise error(
            "E201", "a damaged ONNX model: a name in it is not text", where=str(path),
            help="copy or download the model again",
        )  # fmt: skip
    return model


def _names_of(model: onnx.ModelProto) -> Iterator[object]:
    """Every name in the model. Python's protobuf gives bytes for those that are not UTF-8."""
    nodes = [n for f in model.functions for n in f.node]
    graphs = [model.graph]
    for function in model.functions:
        yield from (function.name, function.domain, *function.input, *function.output, *function.attribute)
    yield from (o.domain for o in model.opset_import)
    while nodes or graphs:
        if graphs:
            graph = graphs.pop()
            nodes += graph.node
            yield from (t.name for t in graph.initializer)
            for info in (*graph.input, *graph.output, *graph.value_info):
                yield info.name
                yield from (d.dim_param for d in info.type.tensor_type.shape.dim)
        else:
            node = nodes.pop()
            yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
            yield from (text for a in node.attribute for text in (a.name, a.ref_attr_name))
            graphs += [g for a in node.attribute for g in (a.g, *a.graphs) if g.ByteSize()]


def _not_onnx_help(content: bytes) -> str:
    if content.startswith((b"PK\x03\x04", b"\x80")):
        return "this looks like a PyTorch archive: name it .pt, or export the network with torch.onnx.export"
    return "copy or download the model again; 'onnx.checker.check_model' must accept it"


def _check_header(model: onnx.ModelProto, path: Path) -> None:
    if not model.HasField("graph") or not model.opset_import:
        raise error(
            "E201", "not an ONNX model: it has no graph or no opset", where=str(path),
            help="export the network again with torch.onnx.export or a similar exporter",
        )  # fmt: skip
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            continue
        if opset.version < OLDEST_OPSET:
            raise error(
                "E203", f"opset {opset.version} is older than {OLDEST_OPSET}, the oldest that is read", where=str(path),
                help=f"convert it: onnx.version_converter.convert_version(onnx.load({path.name!r}), 13)",
            )  # fmt: skip
        if opset.version > newest:
            raise error(
                "E203", f"opset {opset.version} is newer than {newest}, the newest the onnx package knows",
                where=str(path), help="pip install --upgrade onnx, or export with opset_version=17",
            )  # fmt: skip


def opsets_of(imports: object) -> dict[str, int]:
    """Domain → version; the default domain is ''."""
    return {("" if o.domain == "ai.onnx" else o.domain): o.version for o in imports}  # type: ignore[attr-defined]


def read_tensor(tensor: onnx.TensorProto, model: Path, where: str) -> np.ndarray:
    """A tensor's elements as an array, half precision widened to f32. Raises CompilerError on damaged or absent data.
    """
    name = tensor.name or "(unnamed)"
    if tensor.data_type in PACKED:
        return _unpacked(tensor, model, name, where)
    dtype = dtype_of(tensor.data_type)
    if dtype is None:
        raise error(
            "E216", f"tensor {name!r} has elements of type {dtype_name(tensor.data_type)}, which is not supported",
            where=where, help="export the network with float, integer or boolean weights",
        )  # fmt: skip
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        array = read_external(tensor, dtype.numpy, model, where)
    else:
        array = _stored(tensor, dtype, name, where)
    if array.shape != tuple(tensor.dims):
        raise damaged(name, f"declared shape {tuple(tensor.dims)}, data for {array.shape}", where)
    return array.astype(np.float32) if dtype in (DType.F16, DType.BF16) else array


def _unpacked(tensor: onnx.TensorProto, model: Path, name: str, where: str) -> np.ndarray:
    """Integers of 2 or 4 bits, one a byte."""
    dtype, bits = PACKED[tensor.data_type]
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        size = -(-math.prod(tensor.dims) * bits // 8)
        packed = onnx.TensorProto(name=tensor.name, dims=[size], external_data=tensor.external_data)
        data = read_external(packed, np.dtype(np.uint8), model, where).tobytes()
        tensor = onnx.TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=data)
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as fault:
        raise damaged(name, str(fault), where) from None
    if array.shape != tuple(tensor.dims):
        raise damaged(name, f"declared shape {tuple(tensor.dims)}, data for {array.shape}", where)
    return array.astype(dtype.numpy)


def _stored(tensor: onnx.TensorProto, dtype: DType, name: str, where: str) -> np.ndarray:
    """The elements a message holds itself."""
    if tensor.HasField("raw_data") and len(tensor.raw_data) != math.prod(tensor.dims) * dtype.size:
        raise damaged(name, f"shape {list(tensor.dims)} of {dtype} and {len(tensor.raw_data)} bytes", where)
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as fault:
        raise damaged(name, str(fault), where) from None
