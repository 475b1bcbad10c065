"""The topologies that onnx ships for its own tests (`light_resnet50.onnx`, …), with random weights put into them.

The files hold no weights: each is a `ConstantOfShape` of its shape. Here every one of them becomes an initialiser drawn
for the place it is used in (He's variance for a convolution, a positive variance for a batch-norm), so that values keep
their size through the network and INT8 has something to represent.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

DIRECTORY = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

LIGHT_MODELS = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19",
    "zfnet512",
)  # fmt: skip

POSITIVE = {("BatchNormalization", 1), ("BatchNormalization", 4), ("Mul", 1)}
"""Operator and operand whose elements are drawn around 1."""

RESIDUAL = ("BatchNormalization of a branch", 1)
"""The scale of what is added to a short cut is drawn small, as training leaves it: sums of many branches would
otherwise grow from block to block until half precision cannot hold them."""

SMALL = {("BatchNormalization", 2), ("BatchNormalization", 3), ("Conv", 2), ("Gemm", 2), ("Add", 1)}
"""Operator and operand whose elements are drawn around 0, small."""


def light_model(name: str, seed: int = 0) -> onnx.ModelProto:
    """`light_<name>.onnx` with random weights; the same for the same seed."""
    model = onnx.load(str(DIRECTORY / f"light_{name}.onnx"))
    graph = model.graph
    places = _places(graph)
    shapes = {t.name: tuple(numpy_helper.to_array(t)) for t in graph.initializer if t.name.endswith("__SHAPE")}
    drawn, kept = [], []
    random = np.random.default_rng(seed)
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes:
            array = _draw(random, places.get(node.output[0], ("", 0)), tuple(int(d) for d in shapes[node.input[0]]))
            drawn.append(numpy_helper.from_array(array, node.output[0]))
        else:
            kept.append(node)
    for tensor in graph.initializer:
        if tensor.name not in shapes:
            array = numpy_helper.to_array(tensor)
            if array.dtype == np.float32:
                array = _draw(random, places.get(tensor.name, ("", 0)), array.shape)
            drawn.append(numpy_helper.from_array(array, tensor.name))
    inputs = [i for i in graph.input if i.name not in {t.name for t in graph.initializer}]
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(kept)
    graph.initializer.extend(drawn)
    graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)  # before it, initialisers had to be listed as inputs too
    return model


def save_light_model(name: str, directory: Path, seed: int = 0) -> Path:
    """The file of `light_model(name)` in a directory."""
    path = directory / f"light_{name}.onnx"
    onnx.save(light_model(name, seed), str(path))
    return path


def _places(graph: onnx.GraphProto) -> dict[str, tuple[str, int]]:
    """Where a tensor is used first: operator and operand number, looking through `Unsqueeze`."""
    places: dict[str, tuple[str, int]] = {}
    through: dict[str, str] = {}
    for node in graph.node:
        for index, tensor in enumerate(node.input):
            if node.op_type == "Unsqueeze":
                through[node.output[0]] = tensor
            else:
                places.setdefault(tensor, (node.op_type, index))
    for inner, outer in reversed([(v, k) for k, v in through.items()]):
        if outer in places:
            places[inner] = places[outer]
    summands = {t for node in graph.node if node.op_type in ("Sum", "Add") for t in node.input}
    for node in graph.node:
        if node.op_type == "BatchNormalization" and node.output[0] in summands:
            places[node.input[1]] = RESIDUAL
    return places


def _draw(random: np.random.Generator, place: tuple[str, int], shape: tuple[int, ...]) -> np.ndarray:
    if place in POSITIVE:
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    if place == RESIDUAL:
        return random.uniform(0.1, 0.4, shape).astype(np.float32)
    if place in SMALL:
        return random.normal(0, 0.1, shape).astype(np.float32)
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else 1
    return (random.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / max(fan_in, 1)))).astype(np.float32)
