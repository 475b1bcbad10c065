"""Nodes that other nodes stand for: functions of the model, and operators that ONNX itself defines by a body.

Also the checks every node gets against ONNX's own declaration of its operator, and the report of operators nobody
knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx

from compiler.errors import did_you_mean
from compiler.frontend.onnx.node import Inline, Node, SequenceValue
from compiler.frontend.onnx.reader import dtype_of
from compiler.frontend.onnx.registry import CONVERTERS
from compiler.frontend.records import Malformed, NodeRecord, Unsupported
from compiler.ir.core import Value

REMEDIES: dict[str, str] = {
    **dict.fromkeys(
        ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"),
        "export the network for inference, or feed random numbers as an input",
    ),
    **dict.fromkeys(
        ("StringNormalizer", "StringConcat", "StringSplit", "RegexFullMatch"),
        "process text in the host program and feed numbers",
    ),
    "ImageDecoder": "decode pictures in the host program and feed pixels",
}
"""What to do about operators of no converter, where there is more to say than `CUT`."""

CUT = "replace it in the exported model, or cut the model there (onnx.utils.extract_model) and run the rest on the host"


def check_node(proto: onnx.NodeProto, opsets: dict[str, int], ir_version: int) -> None:
    """Raise Malformed where a node breaks its operator's declaration (inputs, outputs, attributes)."""
    has_graph = any(a.HasField("g") for a in proto.attribute)
    if proto.domain not in ("", "ai.onnx") or proto.op_type == "Constant" or has_graph:
        return
    if "" not in opsets:
        raise Malformed("the model imports no opset of the default domain")
    context = onnx.checker.C.CheckerContext()
    context.ir_version = ir_version
    context.opset_imports = opsets
    try:
        onnx.checker.check_node(proto, context)
    except onnx.checker.ValidationError as fault:
        text = str(fault)
        if "No Op registered" in text or "is deprecated in" in text:  # what may still have a converter or a body
            return
        raise Malformed(text.splitlines()[0].strip(), "repair or export the model again") from None


def is_defined(op_type: str, domain: str, opset: int) -> bool:
    """Whether ONNX defines an operator by a body at an opset."""
    try:
        schema: Any = onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.function_opset_versions or schema.context_dependent_function_opset_versions)


def unknown_operator(record: NodeRecord) -> Unsupported:
    """The report of an operator without converter and without body."""
    if record.domain:
        return Unsupported(f"operators of domain {record.domain!r} are not supported", _remedy_for_domain(record))
    known = {op_type for domain, op_type in CONVERTERS if not domain}
    if not onnx.defs.has(record.op_type):
        return Unsupported("this is not an ONNX operator", did_you_mean(record.op_type, known))
    return Unsupported("this operator is not supported", REMEDIES.get(record.op_type, CUT))


def _remedy_for_domain(record: NodeRecord) -> str:
    if record.domain == "com.microsoft" and record.op_type.startswith("QLinear"):
        return "quantise with quant_format=QuantFormat.QDQ, or give mluc the float model and calibration data"
    return "export without custom or runtime-specific operators (no onnxruntime optimisation before export)"


# -- bodies ------------------------------------------------------------------------------------------------------------
def body_of_operator(node: Node, domain: str, opset: int) -> onnx.FunctionProto | None:
    """The body by which ONNX defines an operator at an opset; None if it defines none."""
    try:
        schema: Any = onnx.defs.get_schema(node.proto.op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None
    version = _newest(schema.function_opset_versions, opset)
    if version is not None:
        content = schema.get_function_with_opset_version(version)
    else:
        version = _newest(schema.context_dependent_function_opset_versions, opset)
        if version is None:
            return None
        content = schema.get_context_dependent_function_with_opset_version(
            version, node.proto.SerializeToString(), _input_types(node)
        )
    body = onnx.FunctionProto()
    body.ParseFromString(content)
    _add_schema_defaults(body, schema)
    return body if body.node else None


def _newest(versions: Iterable[int], opset: int) -> int | None:
    """The newest body not newer than the opset, or else the oldest: a body imports its own opset."""
    known = sorted(versions)
    return max((v for v in known if v <= opset), default=known[0] if known else None)


_ELEMENT_CODES = {
    dtype: code for code in onnx.TensorProto.DataType.values() if (dtype := dtype_of(code)) is not None
}


def _input_types(node: Node) -> list[bytes]:
    return [b"" if v is None else _type_of(v).SerializeToString() for v in node.inputs]


def _type_of(value: Value | SequenceValue) -> onnx.TypeProto:
    if isinstance(value, Value):
        return onnx.helper.make_tensor_type_proto(_ELEMENT_CODES[value.type.dtype], value.type.shape)
    if not value.items:
        raise Unsupported("takes an empty sequence", CUT)
    first = value.items[0].type
    element = onnx.helper.make_tensor_type_proto(_ELEMENT_CODES[first.dtype], [None] * first.rank)
    return onnx.helper.make_sequence_type_proto(element)


def _add_schema_defaults(body: onnx.FunctionProto, schema: onnx.defs.OpSchema) -> None:
    given = {a.name for a in body.attribute_proto}
    for name, declared in schema.attributes.items():
        if name not in given and declared.default_value is not None and declared.default_value.type:
            body.attribute_proto.append(declared.default_value)


def inline_function(function: onnx.FunctionProto, node: Node, opsets: dict[str, int]) -> Inline:
    """The body of a function with the caller's attributes put in."""
    if len(node.inputs) > len(function.input):
        raise Malformed(f"gives {len(node.inputs)} inputs, the function takes {len(function.input)}")
    given = {a.name: a for a in function.attribute_proto}
    given.update({a.name: a for a in node.proto.attribute})
    inputs = [*node.inputs, *[None] * (len(function.input) - len(node.inputs))]
    wanted = [name for name, used in zip(function.output, node.proto.output, strict=False) if used]
    positions = [i for i, used in enumerate(node.proto.output) if used]

    def place(values: list) -> list:
        results: list = [None] * len(node.proto.output)
        for position, value in zip(positions, values, strict=True):
            results[position] = value
        return results

    return Inline(
        [_substituted(n, given) for n in function.node], wanted, dict(zip(function.input, inputs, strict=True)),
        then=place, isolated=True, opsets=opsets, hides_nodes=function.domain in ("", "ai.onnx"),
        function=function,
    )  # fmt: skip


def _substituted(proto: onnx.NodeProto, given: dict[str, onnx.AttributeProto]) -> onnx.NodeProto:
    """A copy of a function's node, and of the graphs in it, in which references to attributes are replaced."""
    copy = onnx.NodeProto()
    copy.CopyFrom(proto)
    pending = [copy]
    while pending:
        node = pending.pop()
        kept = []
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                if attribute.ref_attr_name not in given:
                    continue
                value = onnx.AttributeProto()
                value.CopyFrom(given[attribute.ref_attr_name])
                value.name = attribute.name
                attribute = value
            kept.append(attribute)
        copies = [onnx.AttributeProto.FromString(a.SerializeToString()) for a in kept]
        del node.attribute[:]
        node.attribute.extend(copies)
        pending += [inner for a in node.attribute for g in (a.g, *a.graphs) for inner in g.node]
    return copy
