"""Evaluators of the `tensor.` ops. All fold: they move elements or compute with integers (cumsum of floats
excepted)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.errors import error
from compiler.evaluate import selection
from compiler.evaluate.registry import evaluator
from compiler.evaluate.selection import largest_first
from compiler.ir.core import Op
from compiler.ops import tensor as ops

__all__ = ["selection"]  # registered there, loaded with this family


@evaluator("tensor.reshape", folds=True)
def reshape(op: ops.Reshape, x: np.ndarray) -> np.ndarray:
    return x.reshape(op.shape)


@evaluator("tensor.transpose", folds=True)
def transpose(op: ops.Transpose, x: np.ndarray) -> np.ndarray:
    return np.asarray(x.transpose(op.perm), order="C")


@evaluator("tensor.concat", folds=True)
def concat(op: ops.Concat, *xs: np.ndarray) -> np.ndarray:
    return np.concatenate(xs, axis=op.axis)


@evaluator("tensor.slice", folds=True)
def slice_(op: ops.Slice, x: np.ndarray) -> np.ndarray:
    return x[op.slices]


def stored_zero(op: Op, x: np.ndarray, value: float) -> Any:
    """A real as an element of x: its integer where x is quantised."""
    quant = op.inputs[0].type.quant
    if quant is None:
        return np.asarray(value).astype(x.dtype)
    limits = np.iinfo(x.dtype)
    integer = round(value / quant.real_step) + quant.zero_point if value else quant.zero_point
    return x.dtype.type(min(max(integer, limits.min), limits.max))


@evaluator("tensor.pad", folds=True)
def pad(op: ops.Pad, x: np.ndarray) -> np.ndarray:
    if op.mode == "constant" or not any(op.pads):
        y = np.full([d + sum(p) for d, p in zip(x.shape, op.pairs, strict=True)], stored_zero(op, x, op.value), x.dtype)
        y[tuple(slice(before, before + d) for d, (before, _) in zip(x.shape, op.pairs, strict=True))] = x
        return y
    return np.pad(x, op.pairs, mode=op.mode)


def check_indices(op: Op, indices: np.ndarray, size: int) -> np.ndarray:
    """Indices with negative ones counted from the end. Raises CompilerError where one is out of range."""
    if indices.size and (indices.min() < -size or indices.max() >= size):
        found = [int(i) for i in (indices.min(), indices.max()) if not -size <= i < size]
        raise error(
            "E355", f"index {found[0]} is out of range for {size} elements", op=op.op_name, where=str(op.location)
        )
    return np.where(indices < 0, indices + size, indices)


@evaluator("tensor.gather", folds=True)
def gather(op: ops.Gather, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return np.take(x, check_indices(op, indices, x.shape[op.axis]), axis=op.axis)


@evaluator("tensor.gather_elements", folds=True)
def gather_elements(op: ops.GatherElements, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return x[_along_axis(indices, check_indices(op, indices, x.shape[op.axis]), op.axis)]


def _along_axis(shape_of: np.ndarray, indices: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
    """An index tuple that picks `indices` along `axis` and the element's own place along the other axes."""
    places: list[np.ndarray] = list(np.indices(shape_of.shape, sparse=True))
    places[axis] = indices
    return tuple(places)


def _coordinates(op: Op, x_shape: tuple[int, ...], indices: np.ndarray) -> tuple[np.ndarray, ...]:
    """The last axis of `indices` as one checked index array per coordinate."""
    return tuple(check_indices(op, indices[..., i], x_shape[i]) for i in range(indices.shape[-1]))


@evaluator("tensor.gather_nd", folds=True)
def gather_nd(op: ops.GatherNd, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    batch = op.batch_dims
    coordinates = _coordinates(op, x.shape[batch:], indices)
    lead = tuple(p.reshape(p.shape + (1,) * (indices.ndim - 1 - batch)) for p in _batch_places(indices.shape[:batch]))
    return x[lead + coordinates]


def _batch_places(shape: tuple[int, ...]) -> list[np.ndarray]:
    return list(np.indices(shape, sparse=True)) if shape else []


SCATTER: dict[str, Callable[..., None]] = {
    "add": np.add.at, "mul": np.multiply.at, "max": np.maximum.at, "min": np.minimum.at,
}  # fmt: skip


def _scatter(reduction: str, x: np.ndarray, places: tuple[np.ndarray, ...], updates: np.ndarray) -> np.ndarray:
    y = x.copy()
    if reduction == "none":
        y[places] = updates
    else:
        SCATTER[reduction](y, places, updates)
    return y


@evaluator("tensor.scatter_nd", folds=True, widens=True)
def scatter_nd(op: ops.ScatterNd, x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    return _scatter(op.reduction, x, _coordinates(op, x.shape, indices), updates)


@evaluator("tensor.scatter_elements", folds=True, widens=True)
def scatter_elements(op: ops.ScatterElements, x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
    places = _along_axis(indices, check_indices(op, indices, x.shape[op.axis]), op.axis)
    return _scatter(op.reduction, x, places, updates)


@evaluator("tensor.broadcast_to", folds=True)
def broadcast_to(op: ops.BroadcastTo, x: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x, op.shape)


@evaluator("tensor.tile", folds=True)
def tile(op: ops.Tile, x: np.ndarray) -> np.ndarray:
    return np.tile(x, op.repeats)


@evaluator("tensor.one_hot", folds=True)
def one_hot(op: ops.OneHot, indices: np.ndarray) -> np.ndarray:
    """Indices outside [-depth, depth) give `off` everywhere."""
    places = np.where(indices < 0, indices + op.depth, indices).astype(np.int64)
    hot = np.expand_dims(places, op.axis) == np.arange(op.depth).reshape(_along(op.axis, indices.ndim + 1))
    to = op.to.numpy
    return np.where(hot, np.asarray(op.on).astype(to), np.asarray(op.off).astype(to))


def _along(axis: int, rank: int) -> list[int]:
    shape = [1] * rank
    shape[axis] = -1
    return shape


@evaluator("tensor.cumsum", folds=lambda op: not op.inputs[0].type.dtype.is_float, widens=True)
def cumsum(op: ops.CumSum, x: np.ndarray) -> np.ndarray:
    return _running(op, x, np.cumsum, 0)


@evaluator("tensor.cumprod", folds=lambda op: not op.inputs[0].type.dtype.is_float, widens=True)
def cumprod(op: ops.CumProd, x: np.ndarray) -> np.ndarray:
    return _running(op, x, np.cumprod, 1)


def _running(op: ops.CumSum, x: np.ndarray, function: Callable[..., np.ndarray], first: int) -> np.ndarray:
    """Running totals along the op's axis; exclusive ones start with `first`."""
    if not x.ndim:  # a single number, which NumPy would make a vector of
        return np.full_like(x, first) if op.exclusive else x
    ordered = np.flip(x, op.axis) if op.reverse else x
    total = function(ordered, axis=op.axis, dtype=x.dtype)
    if op.exclusive:
        shifted = np.full_like(total, first)
        axis = op.axis % x.ndim
        lead = (slice(None),) * axis
        shifted[(*lead, slice(1, None))] = total[(*lead, slice(None, -1))]
        total = shifted
    return np.flip(total, op.axis) if op.reverse else total


@evaluator("tensor.topk", folds=True)
def topk(op: ops.TopK, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return largest_first(x, op.k, op.axis, op.largest)


@evaluator("tensor.trilu", folds=True)
def trilu(op: ops.Trilu, x: np.ndarray) -> np.ndarray:
    return np.triu(x, op.k) if op.upper else np.tril(x, op.k)
