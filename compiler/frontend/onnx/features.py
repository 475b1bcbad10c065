"""Converters of feature extraction: n-gram counts, and the operators of `ai.onnx.ml` on tensors of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from compiler.frontend.common.emitter import reshape
from compiler.frontend.onnx.node import Node
from compiler.frontend.onnx.normalization import divided_by_norm
from compiler.frontend.onnx.registry import converter
from compiler.frontend.onnx.tensor import index_operand
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Value
from compiler.ir.types import DType
from compiler.ops import math, nn, reduce, tensor

ML = "ai.onnx.ml"
MOST_SKIPS = 64
"""Places between two parts of an n-gram that are tried."""


# -- n-grams -----------------------------------------------------------------------------------------------------------
@converter("TfIdfVectorizer", since=9)
def tf_idf(n: Node) -> Value:
    """Occurrences of known n-grams, by comparing all of one length with all places at once."""
    x = n.input(0)
    if n.attribute("pool_strings"):
        raise Unsupported("counts words", "encode words as numbers in the host program")
    rows, columns = ((1, x.type.static_shape[0]) if x.type.rank == 1 else x.type.static_shape)
    pool, indexes = n.required("pool_int64s"), n.required("ngram_indexes")
    starts = (*n.required("ngram_counts"), len(pool))
    shortest, longest, skips = (n.required(a) for a in ("min_gram_length", "max_gram_length", "max_skip_count"))
    size = max(indexes) + 1
    n.room_for(max(rows, len(pool)) * size, "counts")
    total: Value = n.constant(np.zeros((rows, size), np.float32))
    seen = 0
    for length, (start, end) in enumerate(pairwise(starts), 1):
        grams = np.array(pool[start:end], np.int64).reshape(-1, length)
        target = np.array(indexes[seen : seen + len(grams)], np.int64)
        seen += len(grams)
        if not shortest <= length <= longest or not len(grams):
            continue
        spread = np.zeros((len(grams), size), np.float32)
        spread[np.arange(len(grams)), target] = 1
        for apart in range(1, (1 if length == 1 else skips + 1) + 1):
            count = columns - (length - 1) * apart
            if count <= 0:
                break
            if apart > MOST_SKIPS:
                raise Unsupported(f"skips up to {skips} places, at most {MOST_SKIPS} are tried", "allow fewer skips")
            n.room_for(rows * count * grams.size, "comparisons")
            found = _occurrences(n, reshape(n, x, (rows, columns)), grams, count, apart)
            total = n.emit(math.Add, total, n.emit(nn.MatMul, found, n.constant(spread)))
    return _weighted(n, total, size, x.type.rank)


def _occurrences(n: Node, x: Value, grams: np.ndarray, count: int, apart: int) -> Value:
    """[rows, grams]: how often each n-gram stands in each row, its parts `apart` places from one another."""
    rows, _ = x.type.static_shape
    length = grams.shape[1]
    places = np.arange(count)[:, None] + np.arange(length) * apart
    windows = reshape(n, n.emit(tensor.Gather, x, n.constant(places, DType.I64), axis=1), (rows, count, 1, length))
    same = n.emit(math.Equal, windows, n.constant(grams[None, None], x.type.dtype))
    all_same = n.emit(reduce.Min, n.emit(math.Cast, same, to=DType.F32), axes=(3,), keepdims=False)
    return n.emit(reduce.Sum, all_same, axes=(1,), keepdims=False)


def _weighted(n: Node, counts: Value, size: int, rank: int) -> Value:
    mode, weights = n.required("mode"), n.attribute("weights")
    y = counts
    if mode == "IDF":
        y = n.emit(math.Cast, n.emit(math.Greater, y, n.scalar_like(0, y)), to=DType.F32)
    if mode != "TF" and weights:
        y = n.emit(math.Mul, y, n.constant(np.array(weights, np.float32)[None, :size]))
    return reshape(n, y, (size,)) if rank == 1 else y


# -- ai.onnx.ml --------------------------------------------------------------------------------------------------------
@converter("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(n: Node) -> Value:
    x, indices = n.input(0), index_operand(n, 1)
    flat = reshape(n, indices, (indices.type.elements,))
    x = reshape(n, x, (1, x.type.elements)) if x.type.rank == 1 else x
    return n.emit(tensor.Gather, x, flat, axis=x.type.rank - 1)


@converter("Binarizer", domain=ML)
def binarizer(n: Node) -> Value:
    x = n.input(0)
    return n.emit(math.Cast, n.emit(math.Greater, x, n.scalar_like(n.attribute("threshold", 0.0), x)), to=x.type.dtype)


@converter("Scaler", domain=ML)
def scaler(n: Node) -> Value:
    x = n.emit(math.Cast, n.input(0), to=DType.F32)
    shifted = n.emit(math.Sub, x, n.constant(np.array(n.attribute("offset", (0.0,)), np.float32)))
    return n.emit(math.Mul, shifted, n.constant(np.array(n.attribute("scale", (1.0,)), np.float32)))


@converter("Normalizer", domain=ML)
def normalizer(n: Node) -> Value:
    x = n.emit(math.Cast, n.input(0), to=DType.F32)
    norms = {"MAX": reduce.Max, "L1": reduce.L1, "L2": reduce.L2}
    return divided_by_norm(n, x, norms[n.attribute("norm", "MAX")], x.type.rank - 1)


COMPARISONS = (math.LessEqual, math.Less, math.GreaterEqual, math.Greater, math.Equal)
NOT_EQUAL, MEMBER = 5, 6


@dataclass
class Forest:
    """Trees as arrays over nodes; leaves come after the nodes and lead to themselves."""

    features: np.ndarray
    splits: np.ndarray
    modes: np.ndarray
    yes: np.ndarray
    no: np.ndarray
    sets: list[np.ndarray]
    depth: int


@converter("TreeEnsemble", since=5, domain=ML)
def tree_ensemble(n: Node) -> Value:
    """All trees for all rows walk down together, as many steps as the deepest tree has levels."""
    x = n.input(0)
    if n.attribute("post_transform", 0) or n.attribute("aggregate_function", 1) not in (0, 1):
        raise Unsupported("transforms its result or takes an extreme of trees", "sum or average trees")
    forest, roots = _forest(n), np.array(n.required("tree_roots"), np.int64)
    rows, _ = x.type.static_shape
    at: Value = n.constant(np.broadcast_to(roots, (rows, len(roots))), DType.I64)
    for _ in range(forest.depth):
        at = _step(n, x, at, forest)
    leaves = len(n.required("leaf_weights"))
    targets = np.zeros((len(forest.features), n.attribute("n_targets", 1)), x.type.dtype.numpy)
    weights = np.asarray(n.required("leaf_weights"))
    places = len(forest.features) - leaves + np.arange(leaves)
    targets[places, np.array(n.required("leaf_targetids"))] = weights
    found = n.emit(tensor.Gather, n.constant(targets), at, axis=0)
    total = reduce.Sum if n.attribute("aggregate_function", 1) == 1 else reduce.Mean
    return n.emit(total, found, axes=(1,), keepdims=False)


def _forest(n: Node) -> Forest:
    features, modes = np.array(n.required("nodes_featureids"), np.int64), np.asarray(n.required("nodes_modes"))
    splits = np.asarray(n.required("nodes_splits"))
    leaves, inner = len(n.required("leaf_weights")), len(features)
    n.ignore("nodes_missing_value_tracks_true", "nodes_hitrates")
    ways = [
        np.array(n.required(f"nodes_{way}nodeids"), np.int64)
        + np.where(np.array(n.required(f"nodes_{way}leafs"), bool), inner, 0)
        for way in ("true", "false")
    ]
    itself = np.arange(inner, inner + leaves)
    members = np.asarray(n.attribute("membership_values", ()))
    ends = np.flatnonzero(np.isnan(members)) if members.size else np.zeros(0, np.int64)
    sets = [m[~np.isnan(m)] for m in np.split(members, ends)] if members.size else []
    yes, no = (np.concatenate([way, itself]) for way in ways)
    if inner + leaves == 0 or max(yes.max(), no.max()) >= inner + leaves:
        raise Malformed("a node leads to a node or leaf that does not exist")
    features, splits, modes = (np.concatenate([a, np.zeros(leaves, a.dtype)]) for a in (features, splits, modes))
    return Forest(features, splits, modes, yes, no, sets, _depth(yes, no, inner))


def _depth(yes: np.ndarray, no: np.ndarray, inner: int) -> int:
    """Steps after which every walk has reached a leaf."""
    reach = np.arange(len(yes))
    pending = {int(i) for i in reach[:inner]}
    for step in range(inner + 1):
        if not pending:
            return step
        pending = {i for p in pending for i in (int(yes[p]), int(no[p])) if i < inner}
    raise Malformed("a tree has no end: its nodes lead back to themselves")


def _step(n: Node, x: Value, at: Value, forest: Forest) -> Value:
    """The next node of every row and tree."""

    def looked_up(table: np.ndarray, dtype: DType) -> Value:
        return n.emit(tensor.Gather, n.constant(table, dtype), at, axis=0)

    value = n.emit(tensor.GatherElements, x, looked_up(forest.features, DType.I64), axis=1)
    split, mode = looked_up(forest.splits, x.type.dtype), looked_up(forest.modes, DType.I64)
    holds: Value = n.constant(np.zeros((), bool))
    for code in sorted({int(m) for m in forest.modes}):
        test = _test(n, code, value, split, forest, at)
        chosen = n.emit(math.Equal, mode, n.constant(code, DType.I64))
        holds = n.emit(math.Or, holds, n.emit(math.And, chosen, test))
    return n.emit(math.Where, holds, looked_up(forest.yes, DType.I64), looked_up(forest.no, DType.I64))


def _test(n: Node, code: int, value: Value, split: Value, forest: Forest, at: Value) -> Value:
    if code < len(COMPARISONS):
        return n.emit(COMPARISONS[code], value, split)
    if code == NOT_EQUAL:
        return n.emit(math.Not, n.emit(math.Equal, value, split))
    return _is_member(n, value, forest.sets, np.flatnonzero(forest.modes == MEMBER), forest, at)


def _is_member(
    n: Node, value: Value, sets: Sequence[np.ndarray], owners: np.ndarray, forest: Forest, at: Value
) -> Value:
    """Whether a value is in its node's set: sets as rows of a table, short ones filled with what equals nothing."""
    width = max((len(s) for s in sets), default=1)
    table = np.full((len(forest.features), max(width, 1)), np.nan, value.type.dtype.numpy)
    for owner, members in zip(owners, sets, strict=False):
        table[owner, : len(members)] = members
    rows, trees = value.type.static_shape
    mine = n.emit(tensor.Gather, n.constant(table), at, axis=0)
    same = n.emit(math.Equal, reshape(n, value, (rows, trees, 1)), mine)
    found = n.emit(reduce.Max, n.emit(math.Cast, same, to=DType.F32), axes=(2,), keepdims=False)
    return n.emit(math.Cast, found, to=DType.BOOL)
