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


def places() -> onnx.ModelProto:
    """Where a feature map exceeds a threshold, and what it is there."""
    g = Graph()
    y = g.conv("image", 3, 8)
    found = g.op("NonZero", g.op("Greater", y, g.constant(0.5, np.float32)))
    g.op("Transpose", found, perm=[1, 0], name="where")
    g.op("GatherND", y, "where", name="what")
    return g.model({"image": (1, 3, 8, 8)}, {"where": (("k", 4), I64), "what": ("k",)})


def regions_of_interest() -> onnx.ModelProto:
    """Two stages: boxes chosen by scores, their part of the feature map resampled and classified."""
    g = Graph()
    y = g.conv("image", 3, 8)
    boxes = g.constant(g.random.uniform(0, 7, size=(1, 6, 4)), np.float32)
    scores = g.op("Sigmoid", g.op("Reshape", g.op("GlobalAveragePool", g.conv(y, 8, 6)), g.constant([1, 1, 6])))
    chosen = g.op("NonMaxSuppression", boxes, scores, g.constant([4]), g.constant([0.7], np.float32))
    rows = g.op("Gather", chosen, g.constant(2), axis=1)
    kept = g.op("Gather", g.op("Squeeze", boxes, g.constant([0])), rows, axis=0)
    crops = g.op("RoiAlign", y, kept, g.op("Mul", rows, g.constant(0)), output_height=3, output_width=3,
                 sampling_ratio=2)  # fmt: skip
    logits = g.op("Gemm", g.op("Flatten", crops), g.weight(5, 72), g.constant(np.zeros(5), np.float32), transB=1)
    g.op("Softmax", logits, name="kinds")
    return g.model({"image": (1, 3, 8, 8)}, {"kinds": ("k", 5)})


def shapes_from_data() -> onnx.ModelProto:
    """Shapes of what is left of a vector, put to use as exporters do."""
    g = Graph()
    flat = g.op("Reshape", g.conv("image", 3, 8), g.constant([-1]))
    left = g.op("Compress", flat, g.op("Greater", flat, g.constant(0.2, np.float32)))
    size = g.op("Shape", left)
    g.op("Range", g.constant(0), g.op("Squeeze", size), g.constant(1), name="numbers")
    g.op("Add", g.op("ConstantOfShape", size), left, name="same")
    half = g.op("Slice", left, g.constant([0]), g.op("Div", size, g.constant([2])), g.constant([0]))
    wanted = g.op("Concat", g.constant([3]), g.op("Shape", half), axis=0)
    g.op("Expand", g.op("Unsqueeze", half, g.constant([0])), wanted, name="rows")
    best = g.op("Min", size, g.constant([5]))
    g.op("TopK", left, best, outputs=2, name="best")
    outputs = {"numbers": (("n",), I64), "same": ("n",), "rows": (3, "h"), "best": ("b",), "best.1": (("b",), I64)}
    return g.model({"image": (1, 3, 8, 8)}, outputs)


def refined(rounds: int = 50) -> onnx.ModelProto:
    """Features refined by a product in a loop until they change little, and a head that depends on their mean."""
    g = Graph()
    pooled = g.op("Flatten", g.op("GlobalAveragePool", g.conv("image", 3, 8)))
    info = helper.make_tensor_value_info
    weight = numpy_helper.from_array((np.eye(8) * 0.5 + 0.02).astype(np.float32), "refine")
    body = helper.make_graph([
        node("MatMul", ["v", "refine"], ["w"]), node("Sub", ["w", "v"], ["d"]), node("Abs", ["d"], ["a"]),
        node("ReduceMax", ["a"], ["m"], keepdims=0), node("Greater", ["m", "small"], ["go"]),
    ], "body", [info("i", I64, ()), info("c", BOOL, ()), info("v", F32, (1, 8))],
        [info("go", BOOL, ()), info("w", F32, (1, 8)), info("m", F32, ())], [weight])  # fmt: skip
    g.tensors.append(numpy_helper.from_array(np.float32(0.01), "small"))
    heads = [g.constant(rounds), g.constant(True, np.bool_)]
    g.nodes.append(node("Loop", [*heads, pooled], ["settled", "steps"], body=body))
    positive = g.op("Greater", g.op("ReduceSum", "settled", keepdims=0), g.constant(0.0, np.float32))
    branches = {}
    for name, kind in (("then_branch", "Relu"), ("else_branch", "Neg")):
        out = info(f"{name}_y", F32, None)
        branches[name] = helper.make_graph([node(kind, ["settled"], [f"{name}_y"])], name, [], [out])
    g.nodes.append(node("If", [positive], ["y"], **branches))
    return g.model({"image": (1, 3, 8, 8)}, {"y": (1, 8), "steps": ("n",)})


def save(proto: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path
