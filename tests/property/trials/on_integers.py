"""Trials of operators between QuantizeLinear and DequantizeLinear: they compute on the integers, not on the reals."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.property.trials.dice import TRIALS, Dice, Trial

OPERATORS = (
    "MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Slice", "Gather", "Split", "Pad",
    "DepthToSpace", "SpaceToDepth", "Clip", "ReduceMax", "ReduceMin", "ArgMax", "Expand", "Tile", "GatherElements",
    "GatherND", "Where", "TopK", "Equal", "Cast", "Max", "Relu", "Abs", "ScatterElements", "Compress", "Shape", "Add",
    "Mul", "Sign", "Greater",
)  # fmt: skip
"""Operators of trials whose reals may be integers as well."""

STEP = np.float32(0.03)


def thrown_on_integers(operator: str, seed: int) -> tuple[onnx.ModelProto, list[np.ndarray], Trial]:
    """A trial of an operator whose reals are quantised: those it is given by a node, those it knows beforehand."""
    dice = Dice(f"{operator} of integers {seed}")
    function, opsets = TRIALS[operator]
    dice.opset = max(13, dice.choice(opsets))
    made = function(dice)
    kind = dice.choice([np.uint8, np.int8])
    zero = kind(dice.choice([0, 5]))
    nodes, infos, arrays, names = [], [], [], []
    known: dict[str, Any] = {"step": STEP, "zero": zero}
    for i, array in enumerate(np.asarray(a) if a is not None else None for a in made.inputs):
        names.append("" if array is None else f"x{i}")
        if array is None:
            continue
        if array.dtype == np.float32 and i in made.free:
            infos.append(helper.make_tensor_value_info(f"r{i}", onnx.TensorProto.FLOAT, array.shape))
            nodes.append(helper.make_node("QuantizeLinear", [f"r{i}", "step", "zero"], [f"x{i}"]))
            arrays.append(array)
        elif array.dtype == np.float32:
            known[f"x{i}"] = np.clip(np.rint(array / STEP) + zero, 0, 100).astype(kind)
        else:
            known[f"x{i}"] = array
    outputs = [f"y{i}" for i in range(made.outputs)]
    nodes.append(helper.make_node(operator, names, outputs, **made.attributes))
    if dice.flip():
        nodes.append(helper.make_node("DequantizeLinear", ["y0", "step", "zero"], ["y"]))
        outputs[0] = "y"
    graph = helper.make_graph(
        nodes, "trial", infos, [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in known.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", dice.opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10), arrays, made
