"""Shape and type rules of the neutral ops: what they infer, unknown dimensions included, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import CompilerError
from compiler.ir.define import load_all_families
from compiler.ir.types import DType, QuantType, TensorType
from compiler.ops.shapes import broadcast, window_count
from tests.one_op import infer, make_op

Q8 = QuantType(DType.I8, -4, 1.5)


def f32(*shape: int | None) -> TensorType:
    return TensorType(shape, DType.F32)


def i64(*shape: int | None) -> TensorType:
    return TensorType(shape, DType.I64)


def i8(*shape: int, quant: QuantType = Q8) -> TensorType:
    return TensorType(shape, DType.I8, quant)


def bits(*shape: int) -> TensorType:
    return TensorType(shape, DType.BOOL)


LSTM = [f32(7, 2, 3), f32(1, 20, 3), f32(1, 20, 5)]

SHAPES: list[tuple[str, list[TensorType | None], dict[str, Any], tuple[int | None, ...]]] = [
    ("nn.conv2d", [f32(1, 3, 224, 224), f32(8, 3, 3, 3)], {"strides": (2, 2), "pads": (1, 1, 1, 1)}, (1, 8, 112, 112)),
    ("nn.conv2d", [f32(2, 9, 10, 4), f32(6, 3, 2, 4)], {"layout": "NHWC"}, (2, 7, 9, 6)),
    ("nn.conv2d", [f32(None, 4, None, 8), f32(4, 1, 3, 3), f32(4)], {"groups": 4}, (None, 4, None, 6)),
    ("nn.conv2d", [f32(1, 1, 9, 9), f32(1, 1, 3, 3)], {"dilations": (2, 3)}, (1, 1, 5, 3)),
    ("nn.conv_transpose2d", [f32(1, 4, 5, 6), f32(4, 3, 2, 2)], {"strides": (2, 2), "groups": 2},
     (1, 6, 10, 12)),
    ("nn.conv_transpose2d", [f32(1, 5, 6, 4), f32(4, 3, 3, 2)], {"layout": "NHWC", "output_pads": (1, 0)},
     (1, 8, 8, 2)),
    ("nn.max_pool2d", [f32(1, 3, 7, 8)], {"kernel": (3, 2), "strides": (2, 2)}, (1, 3, 3, 4)),
    ("nn.avg_pool2d", [f32(1, 6, 6, 3)], {"kernel": (3, 3), "strides": (2, 2), "extra_pads": (1, 1), "layout": "NHWC"},
     (1, 3, 3, 3)),
    ("nn.global_avg_pool", [f32(2, 3, None, 8)], {}, (2, 3, 1, 1)),
    ("nn.matmul", [f32(2, 1, 3, 4), f32(5, 4, 6)], {}, (2, 5, 3, 6)),
    ("nn.matmul", [f32(4), f32(4)], {}, ()),
    ("nn.matmul", [f32(None, 4), f32(4, 6)], {}, (None, 6)),
    ("nn.resize", [f32(1, 3, 8, 8)], {"sizes": (1, 3, 16, 5)}, (1, 3, 16, 5)),
    ("nn.depth_to_space", [f32(1, 12, 3, 4)], {"block_size": 2}, (1, 3, 6, 8)),
    ("nn.space_to_depth", [f32(1, 6, 8, 3)], {"block_size": 2, "layout": "NHWC"}, (1, 3, 4, 12)),
    ("nn.softmax", [f32(2, None)], {}, (2, None)),
    ("nn.layer_norm", [f32(2, 3, 4), f32(4), f32(4)], {}, (2, 3, 4)),
    ("nn.lstm", LSTM, {"hidden": 5}, (7, 1, 2, 5)),
    ("nn.gru", [f32(7, 2, 3), f32(2, 15, 3), f32(2, 15, 5)], {"hidden": 5, "direction": "bidirectional"}, (7, 2, 2, 5)),
    ("math.add", [f32(2, 1, 4), f32(3, 1)], {}, (2, 3, 4)),
    ("math.add", [f32(None, 1), f32(3)], {}, (None, 3)),
    ("math.where", [bits(3), f32(2, 1), f32(1)], {}, (2, 3)),
    ("tensor.reshape", [f32(2, 3, 4)], {"shape": (6, -1)}, (6, 4)),
    ("tensor.reshape", [f32(None, 3, 4)], {"shape": (-1, 12)}, (None, 12)),
    ("tensor.transpose", [f32(1, 2, 3)], {"perm": (2, 0, 1)}, (3, 1, 2)),
    ("tensor.concat", [f32(1, None), f32(None, 3)], {"axis": -1}, (1, None)),
    ("tensor.concat", [f32(2, 4), f32(2, 3), f32(2, 0)], {"axis": 1}, (2, 7)),
    ("tensor.slice", [f32(4, 5)], {"starts": (3, 0), "sizes": (2, 3), "steps": (-2, 2)}, (2, 3)),
    ("tensor.pad", [f32(2, None)], {"pads": (1, 0, 2, 3)}, (5, None)),
    ("tensor.gather", [f32(2, 3, 4), i64(5, 6)], {"axis": 1}, (2, 5, 6, 4)),
    ("tensor.gather", [f32(3), i64()], {}, ()),
    ("tensor.gather_nd", [f32(2, 3, 4), i64(5, 2)], {}, (5, 4)),
    ("tensor.broadcast_to", [f32(3, 1)], {"shape": (2, 3, 4)}, (2, 3, 4)),
    ("tensor.tile", [f32(2, 3)], {"repeats": (1, 2)}, (2, 6)),
    ("tensor.one_hot", [i64(2, 3)], {"depth": 5, "axis": 1}, (2, 5, 3)),
    ("tensor.topk", [f32(2, 8)], {"k": 3}, (2, 3)),
    ("reduce.sum", [f32(2, 3, 4)], {}, (1, 1, 1)),
    ("reduce.mean", [f32(2, None, 4)], {"axes": (-1, 0), "keepdims": False}, (None,)),
    ("reduce.argmax", [f32(2, 3)], {"axis": -1}, (2, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "types", "attributes", "shape"), SHAPES)
def test_an_op_infers_its_shape(
    kind: str, types: list[TensorType | None], attributes: dict[str, Any], shape: tuple[int | None, ...]
) -> None:
    assert infer(kind, *types, **attributes).shape == shape


FAULTS: list[tuple[str, list[TensorType | None], dict[str, Any], str]] = [
    ("nn.conv2d", [f32(1, 4, 8, 8), f32(8, 3, 3, 3)], {}, "input has 4 channels, weights expect 3"),
    ("nn.conv2d", [f32(1, 4, 8, 8), f32(3, 2, 3, 3)], {"groups": 2},
     "3 output channels cannot be divided into 2 groups"),
    ("nn.conv2d", [f32(1, 3, 2, 2), f32(8, 3, 3, 3)], {}, "window is larger than the padded input"),
    ("nn.conv2d", [f32(1, 3, 8, 8), f32(8, 3, 3, 3), f32(7)], {}, "bias has 7 elements, expected 8"),
    ("nn.conv2d", [f32(1, 3, 8, 8), f32(8, 3, 3, 3)], {"strides": (0, 1)}, "strides must be at least 1"),
    ("nn.conv2d", [f32(1, 3, 8, 8), f32(8, 3, 3, 3)], {"pads": (0, 0, -1, 0)}, "pads must be at least 0"),
    ("nn.conv2d", [f32(3, 8, 8), f32(8, 3, 3, 3)], {}, "operand 'x' must have rank 4, not 3"),
    ("nn.conv2d", [i8(1, 3, 8, 8), f32(8, 3, 3, 3)], {}, "either both x and weights are quantised or neither"),
    ("nn.conv2d", [i64(1, 3, 8, 8), i64(8, 3, 3, 3)], {}, "x must be of a float type or quantised, not i64"),
    ("nn.conv2d", [i8(1, 3, 8, 8), i8(8, 3, 3, 3, quant=QuantType(DType.I8, 0, axis=1, params="s"))], {},
     "scales along axis 1, they must lie along axis 0"),
    ("nn.conv_transpose2d", [f32(1, 4, 5, 5), f32(3, 2, 2, 2)], {}, "input has 4 channels, weights expect 3"),
    ("nn.max_pool2d", [f32(1, 3, 8, 8)], {}, "attribute 'kernel' is missing"),
    ("nn.matmul", [i8(2, 3), i8(3, quant=QuantType(DType.I8, 0, axis=0, params="s"))], {}, "along its columns"),
    ("nn.deform_conv2d", [f32(1, 2, 4, 4), f32(3, 2, 1, 1), f32(1, 2, 4, 4), None, f32(1, 2, 4, 4)], {},
     r"mask has shape \(1, 2, 4, 4\), expected \(1, 1, 4, 4\)"),
    ("nn.prelu", [f32(1), f32(3)], {}, "slope .* does not broadcast"),
    ("tensor.scatter_nd", [f32(4), i64(2, 2), f32(2)], {}, "indices name 2 coordinates, x has 1"),
    ("tensor.topk", [f32(0)], {"k": 1, "axis": 0}, "k is 1, axis 0 has 0 elements"),
    ("tensor.gather_elements", [f32(2, 3), i64(3, 3)], {"axis": 1}, "reach beyond x"),
    ("nn.avg_pool2d", [i8(1, 3, 8, 8)], {"kernel": (2, 2)}, "is quantised; put quant.dequantize before it"),
    ("nn.matmul", [f32(3, 4), f32(5, 6)], {}, "a has 4 columns, b has 5 rows"),
    ("nn.matmul", [f32(2, 3, 4), f32(3, 4, 5)], {}, "do not broadcast"),
    ("nn.resize", [f32(1, 3, 8, 8)], {"sizes": (16, 16)}, "sizes has 2 entries, input has rank 4"),
    ("nn.depth_to_space", [f32(1, 6, 4, 4)], {"block_size": 2}, "channels 6 cannot be divided by 4"),
    ("nn.softmax", [f32(2, 3)], {"axis": 2}, "axis 2 is out of range for rank 2"),
    ("nn.batch_norm", [f32(1, 3, 4, 4), f32(3), f32(3), f32(4), f32(3)], {}, "mean has 4 elements, expected 3"),
    ("nn.layer_norm", [f32(2, 4), f32(3)], {}, "does not broadcast"),
    ("nn.prelu", [f32(2, 4), f32(3, 2, 4)], {}, "does not broadcast"),
    ("nn.group_norm", [f32(2, 4, 3), f32(4), f32(4)], {"groups": 3}, "4 channels cannot be divided into 3 groups"),
    ("nn.lstm", [f32(7, 2, 3), f32(1, 20, 4), f32(1, 20, 5)], {"hidden": 5},
     r"w has shape \(1, 20, 4\), expected \(1, 20, 3\)"),
    ("nn.lstm", LSTM, {"hidden": 5, "activations": ["tanh"]}, "must name 3 functions"),
    ("nn.lstm", LSTM, {"hidden": 5, "activations": ["swish"]}, "list of activation names"),
    ("math.add", [f32(2, 3), f32(4)], {}, r"\(2, 3\) and \(4,\) do not broadcast"),
    ("math.add", [f32(2), i64(2)], {}, "one element type, not f32, i64"),
    ("math.exp", [i8(2)], {}, "must be one of"),
    ("math.neg", [i8(2)], {}, "is quantised"),
    ("math.and", [f32(2), f32(2)], {}, "must be one of i1"),
    ("tensor.reshape", [f32(2, 3)], {"shape": (4, -1)}, "do not fit"),
    ("tensor.reshape", [f32(2, 3)], {"shape": (-1, -1)}, "must not be negative, but for one -1"),
    ("tensor.transpose", [f32(2, 3)], {"perm": (0, 0)}, "is not an order of the 2 axes"),
    ("tensor.concat", [f32(2, 3), f32(3, 3)], {"axis": 1}, "differ outside axis 1"),
    ("tensor.concat", [i8(2), i8(2, quant=QuantType(DType.I8, -3))], {"axis": 0}, "differ in quantisation"),
    ("tensor.concat", [], {"axis": 0}, "at least one operand"),
    ("tensor.slice", [f32(4)], {"starts": (2,), "sizes": (3,)}, "axis 0 has 4 elements, slice reads 2 to 4"),
    ("tensor.slice", [f32(4)], {"starts": (0,), "sizes": (2,), "steps": (0,)}, "steps must not be 0"),
    ("tensor.pad", [f32(4)], {"pads": (1, 0), "mode": "reflect"} | {"pads": (4, 0)}, "cannot reflect 4 elements"),
    ("tensor.pad", [f32(4)], {"pads": (1,)}, "pads has 1 entries, rank 1 needs 2"),
    ("tensor.gather", [f32(4), f32(2)], {}, "operand 'indices' must be one of"),
    ("tensor.gather_nd", [f32(4), i64(2, 2)], {}, "indices name 2 coordinates, x has 1"),
    ("tensor.scatter_nd", [f32(4, 3), i64(2, 1), f32(2, 4)], {}, r"updates have shape \(2, 4\), expected \(2, 3\)"),
    ("tensor.broadcast_to", [f32(3)], {"shape": (3, 2)}, "does not broadcast"),
    ("tensor.topk", [f32(4)], {"k": 5}, "k is 5, axis -1 has 4 elements"),
    ("reduce.sum", [f32(2, 3)], {"axes": (2,)}, "axis 2 is out of range"),
    ("reduce.sum", [f32(2, 3)], {"axes": (1, -1)}, "name an axis twice"),
    ("quant.dequantize", [f32(2)], {}, "x is not quantised"),
]  # fmt: skip


@pytest.mark.parametrize("value", [True, "0.1", "nan", b"1"])
def test_a_number_is_neither_a_word_nor_a_truth_value(value: object) -> None:
    with pytest.raises(CompilerError, match="attribute 'alpha' must be number"):
        make_op("nn.leaky_relu", f32(2), alpha=value)


@pytest.mark.parametrize(("kind", "types", "attributes", "message"), FAULTS)
def test_an_op_refuses_what_does_not_fit(
    kind: str, types: list[TensorType | None], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CompilerError, match=message):
        make_op(kind, *types, **attributes)


def test_a_quantised_convolution_gives_f32() -> None:
    assert infer("nn.conv2d", i8(1, 3, 8, 8), i8(8, 3, 3, 3), f32(8)) == f32(1, 8, 6, 6)
    assert infer("nn.matmul", i8(2, 3), i8(3, 4)) == f32(2, 4)


KEEPING: list[tuple[str, list[TensorType], dict[str, Any]]] = [
    ("tensor.reshape", [i8(2, 3)], {"shape": (6,)}),
    ("tensor.transpose", [i8(2, 3)], {"perm": (1, 0)}),
    ("tensor.concat", [i8(2, 3), i8(2, 3)], {"axis": 0}),
    ("tensor.slice", [i8(2, 3)], {"starts": (0, 1), "sizes": (2, 2)}),
    ("tensor.pad", [i8(2, 3)], {"pads": (0, 0, 1, 1)}),
    ("tensor.gather", [i8(2, 3), i64(4)], {}),
    ("tensor.broadcast_to", [i8(2, 3)], {"shape": (4, 2, 3)}),
    ("nn.max_pool2d", [i8(1, 3, 8, 8)], {"kernel": (2, 2)}),
    ("nn.relu", [i8(2, 3)], {}),
    ("nn.resize", [i8(1, 3, 8, 8)], {"sizes": (1, 3, 4, 4)}),
    ("reduce.max", [i8(2, 3)], {}),
]


@pytest.mark.parametrize(("kind", "types", "attributes"), KEEPING)
def test_movement_keeps_the_quantised_type(kind: str, types: list[TensorType], attributes: dict[str, Any]) -> None:
    assert infer(kind, *types, **attributes).quant == Q8


def per_axis(axis: int) -> QuantType:
    return QuantType(DType.I8, -4, axis=axis, params="scales")


@pytest.mark.parametrize(
    ("kind", "axis", "types", "attributes", "moved"),
    [
        ("tensor.transpose", 0, [(8, 3, 2)], {"perm": (1, 2, 0)}, 2),
        ("tensor.reshape", 1, [(4, 8, 6)], {"shape": (2, 2, 8, 3, 2)}, 2),
        ("tensor.broadcast_to", 0, [(8, 3)], {"shape": (2, 8, 3)}, 1),
    ],
)
def test_scales_per_axis_follow_their_axis(
    kind: str, axis: int, types: list[tuple[int, ...]], attributes: dict[str, Any], moved: int
) -> None:
    found = infer(kind, *[i8(*shape, quant=per_axis(axis)) for shape in types], **attributes)
    assert found.quant is not None and found.quant.axis == moved


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("tensor.reshape", {"shape": (4, 4, 3)}), ("tensor.slice", {"starts": (1, 0), "sizes": (4, 6)}),
        ("tensor.pad", {"pads": (1, 0, 0, 0)}), ("tensor.concat", {"axis": 0}), ("tensor.tile", {"repeats": (2, 1)}),
    ],
)  # fmt: skip
def test_rearranging_an_axis_that_has_scales_is_refused(kind: str, attributes: dict[str, Any]) -> None:
    with pytest.raises(CompilerError, match="one scale per index"):
        make_op(kind, i8(8, 6, quant=per_axis(0)), **attributes)


@given(st.lists(st.lists(st.integers(1, 3), max_size=4).map(tuple), min_size=1, max_size=3))
def test_broadcasting_agrees_with_numpy(shapes: list[tuple[int, ...]]) -> None:
    import numpy as np

    try:
        expected = np.broadcast_shapes(*shapes)
    except ValueError:
        expected = None
    assert broadcast(shapes) == expected


@given(st.integers(1, 20), st.integers(0, 4), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
def test_windows_are_counted_as_they_fit(size: int, pads: int, kernel: int, stride: int, dilation: int) -> None:
    reach = (kernel - 1) * dilation + 1
    starts = [s for s in range(0, size + pads, stride) if s + reach <= size + pads]
    assert max(window_count(size, pads, kernel, stride, dilation) or 0, 0) == len(starts)


def test_every_op_says_what_it_means() -> None:
    silent = [
        name for name, cls in load_all_families().items() if not cls.signature.doc and not name.startswith("test.")
    ]
    assert silent == []
