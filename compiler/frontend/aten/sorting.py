"""Rows that order elements: all of them are the k largest or smallest."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.moving import permute, ravel, select
from compiler.frontend.aten.registry import aten
from compiler.frontend.common.emitter import cut
from compiler.frontend.records import Unsupported
from compiler.ir.core import Constant, Value
from compiler.ir.types import DType
from compiler.ops import math, selection, tensor


def ordered(c: Call, x: Value, k: int, axis: int, largest: bool) -> tuple[Value, Value]:
    if x.type.rank == 0:
        return x, c.constant(0, DType.I64)
    values, places = c.emit_all(tensor.TopK, x, k=k, axis=axis, largest=largest)
    return values, places


@aten("aten::topk")
def topk(c: Call, self: Any, k: Any, dim: Any = -1, largest: Any = True, sorted: Any = True) -> Any:
    x = c.tensor(self)
    return ordered(c, x, c.integer(k, "k"), c.axis(dim, x.type.rank), bool(largest))


@aten("aten::sort", "aten::msort", "aten::argsort")
def sort(c: Call, self: Any, *args: Any, **named: Any) -> Any:
    """Equal elements keep their order. Overload `stable` has the flag before the axis, or by keyword."""
    x = c.tensor(self)
    given = list(args)
    if c.overload == "stable" and given and (given[0] is None or isinstance(given[0], bool)):
        given.pop(0)
    dim = named.get("dim", given[0] if given else (0 if c.base == "msort" else -1))
    descending = named.get("descending", given[1] if len(given) > 1 else False)
    axis = c.axis(dim, x.type.rank)
    k = x.type.static_shape[axis] if x.type.rank else 1
    values, places = ordered(c, x, k, axis, bool(descending))
    return {"sort": (values, places), "msort": values, "argsort": places}[c.base]


@aten("aten::kthvalue")
def kth_value(c: Call, self: Any, k: Any, dim: Any = -1, keepdim: Any = False) -> Any:
    x, count = c.tensor(self), c.integer(k, "k")
    axis = c.axis(dim, x.type.rank)
    found = ordered(c, x, count, axis, False)
    last = [cut(c, v, axis, count - 1, 1) for v in found]
    return tuple(last if keepdim else (select(c, v, axis, 0) for v in last))


@aten("aten::median")
def median(c: Call, self: Any, dim: Any = None, keepdim: Any = False) -> Any:
    """The lower one of the two in the middle."""
    x = c.tensor(self)
    if dim is None:
        flat = c.reshape(x, (x.type.elements,))
        return kth_value(c, flat, (x.type.elements + 1) // 2, 0)[0]
    size = x.type.static_shape[c.axis(dim, x.type.rank)]
    return kth_value(c, x, (size + 1) // 2, dim, keepdim)


@aten("aten::quantile")
def quantile(c: Call, self: Any, q: Any, dim: Any = None, keepdim: Any = False, interpolation: Any = "linear") -> Any:
    """Between the two neighbours in order; several quantiles stand along a new first axis."""
    x = ravel(c, self) if dim is None else c.tensor(self)
    axis = c.axis(-1 if dim is None else dim, x.type.rank)
    rising, _ = ordered(c, x, x.type.static_shape[axis], axis, False)
    wanted = c.known(q, "the quantile").astype(np.float64)
    places = wanted.reshape(-1) * (x.type.static_shape[axis] - 1)
    places = np.round(places) if interpolation == "nearest" else places
    low, high = np.floor(places).astype(np.int64), np.ceil(places).astype(np.int64)
    share = {"lower": low - low, "higher": high - low, "midpoint": (high - low) / 2}.get(interpolation, places - low)
    below, above = (c.emit(tensor.Gather, rising, c.constant(at), axis=axis) for at in (low, high))
    along = [len(places) if i == axis else 1 for i in range(x.type.rank)]
    weight = c.constant(share.astype(np.float32).reshape(along))
    y = c.emit(math.Add, below, c.emit(math.Mul, c.emit(math.Sub, above, below), weight))
    y = permute(c, y, [axis, *(i for i in range(x.type.rank) if i != axis)])
    kept = [1 if dim is None or i == axis else d for i, d in enumerate(c.shape(self)) if keepdim or i != axis]
    return c.reshape(y, (*wanted.shape, *(kept if keepdim or dim is not None else [])))


@aten("aten::unique_consecutive", "aten::bincount", "aten::histc")
def counted(c: Call, self: Any, *args: Any, **named: Any) -> Any:
    """The sizes of their results depend on the data, so that must be known."""
    if not isinstance(self, Constant) or c.base != "bincount":
        raise Unsupported("the size of its result depends on the network's data", "cut the model before it")
    return c.constant(np.bincount(self.data))


@aten("aten::_unique2", "aten::_unique", "aten::unique_dim", quantised="keep")
def unique(c: Call, self: Any, *args: Any, **named: Any) -> Any:
    """The different elements, or slices along an axis, in order; which of them each is, and how often they occur."""
    x = c.tensor(self)
    along = c.base == "unique_dim"
    axis = c.axis(named.get("dim", args[0] if args else None), x.type.rank) if along else 0
    found, _, inverse, counts = c.emit_all(selection.Unique, x if along else ravel(c, x), axis=axis)
    if not along and x.type.is_static:
        inverse = c.reshape(inverse, x.type.static_shape)
    return (found, inverse) if c.base == "_unique" else (found, inverse, counts)
