"""Which of ONNX's test cases are out of scope: cases of what a compiler of trained networks on tensors does not take.

A case is out of scope for what it holds (element types, kinds of values, operators), never for failing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto

TWIN = "the `_expanded` twin of another case"
TRAINING = "training and losses"
STRINGS = "strings"
CONTAINERS = "sequences, optionals and maps"
IMAGES = "image decoding"
RANDOM = "random draws"
SMALL = "4-bit and 8-bit float types"

OPERATORS = {
    "ImageDecoder": IMAGES, "RandomNormal": RANDOM, "RandomNormalLike": RANDOM, "RandomUniform": RANDOM,
    "RandomUniformLike": RANDOM, "Bernoulli": RANDOM, "Multinomial": RANDOM, "StringNormalizer": STRINGS,
    "StringConcat": STRINGS, "StringSplit": STRINGS, "RegexFullMatch": STRINGS,
    "SoftmaxCrossEntropyLoss": TRAINING, "NegativeLogLikelihoodLoss": TRAINING,
    **dict.fromkeys((
        "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength",
        "SequenceMap", "SplitToSequence", "ConcatFromSequence", "Optional", "OptionalHasElement", "OptionalGetElement",
        "ZipMap", "DictVectorizer", "CastMap",
    ), CONTAINERS),
}  # fmt: skip

DISPUTED = dict.fromkeys(
    ("test_resize_downsample_scales_linear_align_corners", "test_resize_downsample_scales_cubic_align_corners"),
    "expects corners aligned to 2.4 elements, which the factor 0.6 makes of 4; the operator's text says the length of "
    "the result, 2, and so do onnxruntime and PyTorch",
)
"""Cases that fail on purpose: what they expect is not what the operator's text says and other tools compute."""

SMALL_TYPES = {
    code for name, code in TensorProto.DataType.items() if re.fullmatch(r"FLOAT[48]\w*", name)
}  # fmt: skip


def operator_of(case: Any) -> str:
    """The operator a case is about: that of its only node, else of what its name says about the network."""
    nodes = case.model.graph.node
    kinds = {("" if n.domain == "ai.onnx" else n.domain, n.op_type) for n in nodes if n.op_type != "Constant"}
    if len(kinds) == 1 and case.kind == "node":
        domain, kind = next(iter(kinds))
        return f"{domain}.{kind}" if domain else kind
    return {"node": "(networks of several nodes)", "real": "(topologies: `light_*`)"}.get(
        case.kind, f"(networks: `{case.kind}`)"
    )


def out_of_scope(case: Any) -> str | None:
    """Why a case is out of scope; None if it is in scope."""
    if re.search(r"_expanded(_ver\d+)?$", case.name):
        return TWIN
    for node in _nodes(case.model):
        if node.op_type in OPERATORS and node.domain in ("", "ai.onnx", "ai.onnx.ml"):
            return OPERATORS[node.op_type]
        if node.domain == "ai.onnx.preview.training" or _in_training(node, case):
            return TRAINING
    kinds = {i.type.WhichOneof("value") for i in (*case.model.graph.input, *case.model.graph.output)}
    if kinds != {"tensor_type"}:
        return CONTAINERS
    types = set(_element_types(case.model))
    if TensorProto.STRING in types:
        return STRINGS
    return SMALL if types & SMALL_TYPES else None


def _in_training(node: onnx.NodeProto, case: Any) -> bool:
    if node.op_type == "Dropout":
        return case.name.startswith("test_training_dropout")
    return node.op_type == "BatchNormalization" and any(a.name == "training_mode" and a.i for a in node.attribute)


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    pending = [*model.graph.node, *(n for f in model.functions for n in f.node)]
    while pending:
        node = pending.pop()
        yield node
        pending += [inner for a in node.attribute for g in (a.g, *a.graphs) for inner in g.node]


def _element_types(model: onnx.ModelProto) -> Iterator[int]:
    """Types of the interface, of weights and of attributes; Cast and its like name theirs by number."""
    for info in (*model.graph.input, *model.graph.output):
        yield info.type.tensor_type.elem_type
    yield from (t.data_type for t in model.graph.initializer)
    for node in _nodes(model):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t.data_type
            elif attribute.type in (AttributeProto.STRINGS,) and attribute.name.startswith(("value_", "pool_", "keys")):
                yield TensorProto.STRING
            elif attribute.name in ("to", "output_dtype", "dtype") and attribute.type == AttributeProto.INT:
                yield attribute.i
