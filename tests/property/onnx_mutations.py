"""Damaged ONNX models: bytes changed anywhere, or the message edited into what no exporter writes. Not tests."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import onnx
from onnx import TensorProto, helper

ABSURD = (-(2**63), -1, 0, 1, 2**16, 2**31, 2**40, 2**62)


@cache
def seeds() -> list[bytes]:
    """One model of each of ONNX's own cases that is small, and networks of several families of operators."""
    from tests.conformance.onnx_cases import all_cases
    from tests.onnx_models import detector

    found = [case.model.SerializeToString() for case in all_cases().values() if case.model.ByteSize() < 1 << 16]
    return [*found, *[detector(8).SerializeToString()] * 20]


def mutated(seed: int) -> bytes:
    """The damaged model of a number; the same number gives the same bytes."""
    dice = random.Random(seed)
    content = dice.choice(seeds())
    for _ in range(dice.choice((1, 1, 2, 4))):
        content = dice.choice(WAYS)(content, dice)
    return content


# -- bytes -------------------------------------------------------------------------------------------------------------
def changed_bytes(content: bytes, dice: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(dice.randint(1, 8)):
        if found:
            found[dice.randrange(len(found))] = dice.randrange(256)
    return bytes(found)


def truncated(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content) + 1)]


def removed(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(content) + 1)
    return content[:at] + content[at + dice.randint(1, 64) :]


def repeated(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(content) + 1)
    return content[:at] + content[at : at + dice.randint(1, 64)] * 2 + content[at:]


# -- messages ----------------------------------------------------------------------------------------------------------
def edited(edit: Callable[[onnx.ModelProto, random.Random], None]) -> Callable[[bytes, random.Random], bytes]:
    """An edit of the message, of bytes; what is no message stays."""

    def way(content: bytes, dice: random.Random) -> bytes:
        model = onnx.ModelProto()
        try:
            model.ParseFromString(content)
            edit(model, dice)
            return model.SerializeToString()
        except Exception:  # whatever protobuf says of damaged bytes
            return content

    return way


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    found = [*model.graph.node, *(n for f in model.functions for n in f.node)]
    return found + [i for n in found for a in n.attribute for g in (a.g, *a.graphs) for i in g.node]


def _names(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    names = [i.name for i in (*graph.input, *graph.output, *graph.initializer)]
    return [*names, *(name for n in _nodes(model) for name in (*n.input, *n.output)), "", "nobody"]


def rewired(model: onnx.ModelProto, dice: random.Random) -> None:
    """Another tensor as a node's input: missing names, cycles, wrong types."""
    node = dice.choice(_nodes(model))
    if node.input:
        node.input[dice.randrange(len(node.input))] = dice.choice(_names(model))


def renamed_output(model: onnx.ModelProto, dice: random.Random) -> None:
    node = dice.choice(_nodes(model))
    node.output[dice.randrange(len(node.output))] = dice.choice(_names(model))


def more_or_fewer_inputs(model: onnx.ModelProto, dice: random.Random) -> None:
    node = dice.choice(_nodes(model))
    if dice.random() < 0.5 and node.input:
        del node.input[dice.randrange(len(node.input))]
    else:
        node.input.append(dice.choice(_names(model)))


def another_operator(model: onnx.ModelProto, dice: random.Random) -> None:
    node = dice.choice(_nodes(model))
    node.op_type = dice.choice([s.name for s in onnx.defs.get_all_schemas() if s.domain in ("", "ai.onnx")])


def absurd_attribute(model: onnx.ModelProto, dice: random.Random) -> None:
    attributes = [a for n in _nodes(model) for a in n.attribute]
    attribute = dice.choice(attributes)
    if attribute.ints:
        attribute.ints[dice.randrange(len(attribute.ints))] = dice.choice(ABSURD)
    elif attribute.HasField("i"):
        attribute.i = dice.choice(ABSURD)
    elif attribute.HasField("f"):
        attribute.f = dice.choice((float("nan"), float("inf"), -1e30, 0.0))
    elif attribute.HasField("s"):
        attribute.s = dice.choice((b"", b"\xff\xfe", b"SAME_UPPER", b"nonsense"))
    else:
        attribute.type = dice.randrange(15)


def absurd_shape(model: onnx.ModelProto, dice: random.Random) -> None:
    dims = [d for i in (*model.graph.input, *model.graph.output) for d in i.type.tensor_type.shape.dim]
    dice.choice(dims).dim_value = dice.choice(ABSURD)


def absurd_weight(model: onnx.ModelProto, dice: random.Random) -> None:
    """A weight of other dimensions or another type than its data; or a new one that shapes are read from."""
    graph, tensors = model.graph, [*model.graph.initializer, *(a.t for n in _nodes(model) for a in n.attribute if a.t)]
    if tensors and dice.random() < 0.5:
        tensor = dice.choice(tensors)
        if tensor.dims and dice.random() < 0.5:
            tensor.dims[dice.randrange(len(tensor.dims))] = dice.choice(ABSURD)
        else:
            tensor.data_type = dice.randrange(30)
        return
    name = dice.choice([i.name for i in graph.input])
    sizes = [dice.choice(ABSURD[1:]) for _ in range(dice.randint(0, 5))]
    graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(sizes)], sizes))


def another_type(model: onnx.ModelProto, dice: random.Random) -> None:
    dice.choice(model.graph.input).type.tensor_type.elem_type = dice.randrange(30)


def another_opset(model: onnx.ModelProto, dice: random.Random) -> None:
    model.opset_import[0].version = dice.choice((-1, 0, 1, 5, 6, 7, 8, 9, 10, 11, 13, 18, 21, 25, 26, 10**6))


def duplicated_node(model: onnx.ModelProto, dice: random.Random) -> None:
    model.graph.node.append(dice.choice(model.graph.node))


def made_a_function(model: onnx.ModelProto, dice: random.Random) -> None:
    """An operator of the model defined as a function, which may use itself."""
    node = dice.choice(model.graph.node)
    inner = dice.choice(model.graph.node)
    made = model.functions.add(name=node.op_type, domain=node.domain)
    made.input.extend(inner.input)
    made.output.extend(inner.output)
    made.node.append(inner)
    made.opset_import.extend(model.opset_import)


WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    changed_bytes, truncated, removed, repeated,
    *(edited(edit) for edit in (
        rewired, rewired, renamed_output, more_or_fewer_inputs, another_operator, another_operator, absurd_attribute,
        absurd_attribute, absurd_shape, absurd_shape, absurd_weight, absurd_weight, another_type, another_opset,
        duplicated_node, made_a_function,
    )),
)  # fmt: skip
