"""Rows of table look-ups."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.registry import aten
from compiler.frontend.records import Unsupported
from compiler.ir.core import Value
from compiler.ir.types import DType
from compiler.ops import math, reduce, tensor


def index_of(c: Call, indices: Any) -> Value:
    """Indices in an element type our gathers take."""
    value = c.as_tensor(indices)
    return value if value.type.dtype in tensor.INDEX else c.cast(value, DType.I64)


@aten("aten::embedding")
def embedding(c: Call, weight: Any, indices: Any, padding_idx: Any = -1, *rest: Any, **more: Any) -> Any:
    return c.emit(tensor.Gather, c.tensor(weight), index_of(c, indices), axis=0)


MODES = {0: reduce.Sum, 1: reduce.Mean, 2: reduce.Max}


@aten("aten::embedding_bag", "aten::_embedding_bag", "aten::_embedding_bag_forward_only")
def embedding_bag(
    c: Call, weight: Any, indices: Any, offsets: Any, scale_grad_by_freq: Any = False, mode: Any = 0,
    sparse: Any = False, per_sample_weights: Any = None, include_last_offset: Any = False, padding_idx: Any = None,
) -> Any:  # fmt: skip
    """Sums, means or maxima of looked-up rows, in bags whose places are known."""
    rows = embedding(c, weight, indices)
    starts = c.known(offsets, "where the bags start").reshape(-1)
    if padding_idx not in (None, -1):
        raise Unsupported("leaves an index out of its bags", "use a zero row for it and mode sum")
    if per_sample_weights is not None:
        rows = c.emit(math.Mul, rows, c.reshape(per_sample_weights, (rows.type.static_shape[0], 1)))
    ends = [*starts[1:], *([] if include_last_offset else [rows.type.static_shape[0]])]
    bags = [_bag(c, rows, int(start), int(end), mode) for start, end in zip(starts, ends, strict=False)]
    return c.emit(tensor.Concat, *bags, axis=0), None, None, None


def _bag(c: Call, rows: Value, start: int, end: int, mode: int) -> Value:
    width = rows.type.static_shape[1]
    if start == end:
        return c.constant(np.zeros((1, width), np.float32))
    part = c.emit(tensor.Slice, rows, starts=(start, 0), sizes=(end - start, width))
    return c.emit(MODES[mode], part, axes=(0,))


@aten("aten::one_hot")
def one_hot(c: Call, self: Any, num_classes: Any = -1) -> Any:
    depth = c.integer(num_classes, "the number of classes")
    if depth < 0:
        depth = int(c.known(self, "the classes").max()) + 1
    return c.emit(tensor.OneHot, c.tensor(self), depth=depth, to=DType.I64)
