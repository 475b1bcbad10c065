"""Whole networks as ONNX files, made with onnx.helper: what exporters write round detectors, transformers and loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node
F32, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


class Graph:
    """An ONNX graph under construction; methods give names of tensors."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def constant(self, array: object, dtype: type = np.int64) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def weight(self, *shape: int) -> str:
        fan = max(int(np.prod(shape[1:])), 1)
        return self.constant(self.random.normal(size=shape) / np.sqrt(fan), np.float32)

    def op(self, kind: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: object) -> str:
        """The first output of a new node; further ones are called after it with .1, .2, …"""
        made = name or f"{kind.lower()}{len(self.nodes)}"
        names = [made, *(f"{made}.{i}" for i in range(1, outputs))]
        self.nodes.append(node(kind, list(inputs), names, name=f"n_{made}", **attributes))
        return made

    def conv(self, x: str, ci: int, co: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> str:
        pad = kernel // 2
        y = self.op("Conv", x, self.weight(co, ci, kernel, kernel), self.constant(self.random.normal(size=co) * 0.1,
                    np.float32), pads=[pad] * 4, strides=[stride] * 2)  # fmt: skip
        return self.op("Relu", y) if relu else y

    def model(self, inputs: dict[str, tuple], outputs: dict[str, tuple], opset: int = 17) -> onnx.ModelProto:
        """Inputs and outputs: name → shape (f32), or (shape, element type)."""
        graph = helper.make_graph(
            self.nodes, "network", [_info(n, s) for n, s in inputs.items()], [_info(n, s) for n, s in outputs.items()],
            self.tensors,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _info(name: str, spec: tuple) -> onnx.ValueInfoProto:
    typed = len(spec) == 2 and isinstance(spec[0], tuple)
    return helper.make_tensor_value_info(name, spec[1] if typed else F32, spec[0] if typed else spec)


def detector(size: int = 32, classes: int = 3, most: int = 10) -> onnx.ModelProto:
    """A backbone, decoding of boxes and scores on a grid, non-maximum suppression, and a row for each box that is left:
    [class, score, x1, y1, x2, y2].
    """
    g = Graph()
    y = g.conv(g.conv(g.conv("image", 3, 16), 16, 24, stride=2), 24, 32, stride=2)
    side = size // 4
    cells = side * side
    head = g.conv(y, 32, 4 + classes, kernel=1, relu=False)
    flat = g.op("Transpose", g.op("Reshape", head, g.constant([1, 4 + classes, cells])), perm=[0, 2, 1])
    raw = g.op("Slice", flat, g.constant([0]), g.constant([4]), g.constant([2]))
    scores = g.op("Transpose", g.op("Sigmoid", g.op("Slice", flat, g.constant([4]), g.constant([4 + classes]),
                  g.constant([2]))), perm=[0, 2, 1])  # fmt: skip
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="xy"), -1).reshape(1, cells, 2) * 4.0
    offsets = g.op("Slice", raw, g.constant([0]), g.constant([2]), g.constant([2]))
    sizes = g.op("Slice", raw, g.constant([2]), g.constant([4]), g.constant([2]))
    centres = g.op("Add", g.op("Mul", g.op("Sigmoid", offsets), g.constant(4.0, np.float32)),
                   g.constant(grid, np.float32))  # fmt: skip
    half = g.op("Mul", g.op("Exp", sizes), g.constant(4.0, np.float32))
    boxes = g.op("Concat", g.op("Sub", centres, half), g.op("Add", centres, half), axis=2, name="boxes")
    chosen = g.op("NonMaxSuppression", boxes, scores, g.constant(most), g.constant(0.5, np.float32),
                  g.constant(0.55, np.float32))  # fmt: skip
    rows = g.op("Squeeze", g.op("Gather", chosen, g.constant([2]), axis=1), g.constant([1]))
    kinds = g.op("Squeeze", g.op("Gather", chosen, g.constant([1]), axis=1), g.constant([1]))
    kept_boxes = g.op("Gather", g.op("Squeeze", boxes, g.constant([0])), rows, axis=0)
    places = g.op("Concat", g.op("Unsqueeze", kinds, g.constant([1])), g.op("Unsqueeze", rows, g.constant([1])), axis=1)
    kept_scores = g.op("GatherND", g.op("Squeeze", scores, g.constant([0])), places)
    count = g.op("Gather", g.op("Shape", kept_scores), g.constant(0), axis=0)
    column = g.op("Reshape", kept_scores, g.op("Concat", g.op("Unsqueeze", count, g.constant([0])), g.constant([1]),
                  axis=0))  # fmt: skip
    g.op("Concat", g.op("Unsqueeze", g.op("Cast", kinds, to=F32), g.constant([1])), column, kept_boxes, axis=1,
         name="detections")  # fmt: skip
    return g.model({"image": (1, 3, size, size)}, {"detections": ("found", 6)})


def save(proto: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path
