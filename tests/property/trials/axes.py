"""Trials of operators along axes, and of matrix products."""

from __future__ import annotations

import numpy as np

from tests.property.trials.dice import Dice, Trial, trial


# -- axes --------------------------------------------------------------------------------------------------------------
@trial("Softmax", "LogSoftmax", "Hardmax", opsets=(7, 11, 13))
def softmax(d: Dice) -> Trial:
    x = d.floats(*d.shape(2 if d.opset < 13 else 1))
    return Trial([x], d.some(axis=d.axis(x.ndim)))


def _reduction(d: Dice, attribute_until: int) -> Trial:
    x = d.floats(*d.shape(0)) if d.flip(0.7) else d.ints(*d.shape(0, most=2), low=-3, high=3)
    axes = d.axes(x.ndim, least=0) if x.ndim else []
    attributes = d.some(keepdims=d.randint(0, 1))
    if d.opset < attribute_until:
        return Trial([x], attributes | ({"axes": axes} if axes and d.flip(0.8) else {}))
    attributes |= d.some(noop_with_empty_axes=d.randint(0, 1))
    return Trial([x, d.choice([np.array(axes, np.int64)] * 3 + [None])], attributes)


@trial("ReduceSum", opsets=(11, 13))
def reduce_sum(d: Dice) -> Trial:
    return _reduction(d, 13)


@trial("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
       opsets=(11, 13, 18))  # fmt: skip
def reduction(d: Dice) -> Trial:
    return _reduction(d, 18)


@trial("ReduceLogSum", "ReduceLogSumExp", opsets=(11, 13, 18))
def log_reduction(d: Dice) -> Trial:
    found = _reduction(d, 18)
    found.inputs = [d.floats(*found.inputs[0].shape, low=0.5, high=3), *found.inputs[1:]]  # type: ignore[union-attr]
    return found


@trial("ArgMax", "ArgMin", opsets=(11, 12, 13))
def arg_reduction(d: Dice) -> Trial:
    x = d.ints(*d.shape(1), low=-2, high=2, dtype=np.int32).astype(d.choice([np.float32, np.int32]))
    attributes = d.some(axis=d.axis(x.ndim), keepdims=d.randint(0, 1))
    return Trial([x], attributes | (d.some(select_last_index=d.randint(0, 1)) if d.opset >= 12 else {}))


@trial("CumSum", opsets=(11, 14))
def cumsum(d: Dice) -> Trial:
    x = d.numbers(*d.shape(1), kinds="fild")
    axis = np.array(d.axis(x.ndim), d.choice([np.int32, np.int64]))
    return Trial([x, axis], d.some(exclusive=d.randint(0, 1), reverse=d.randint(0, 1)))


@trial("TopK", opsets=(7, 10, 11))
def top_k(d: Dice) -> Trial:
    x = d.floats(*d.shape(1)) if d.flip() else d.ints(*d.shape(1), low=-2, high=2).astype(np.float32)
    axis = d.axis(x.ndim) if d.opset >= 11 else d.randrange(x.ndim)
    count = d.randint(1, x.shape[axis])
    if d.opset < 10:
        return Trial([x], {"k": count, "axis": axis}, outputs=2)
    more = d.some(largest=d.randint(0, 1)) if d.opset >= 11 else {}
    return Trial([x, np.array([count])], {"axis": axis, **more}, outputs=2)


@trial("Trilu", opsets=(14,))
def trilu(d: Dice) -> Trial:
    return Trial(
        [d.numbers(*d.shape(2), kinds="fl"), *([np.array(d.randint(-6, 6))] if d.flip(0.7) else [])],
        d.some(upper=d.randint(0, 1)),
    )


# -- matrices ----------------------------------------------------------------------------------------------------------
@trial("MatMul", opsets=(7, 9, 13))
def matmul(d: Dice) -> Trial:
    m, k, n = d.shape(3, 3)
    batch = d.shape(0, 2, 3)
    a = d.floats(k) if d.flip(0.2) else d.floats(*d.broadcast(batch), m, k)
    b = d.floats(k) if d.flip(0.2) else d.floats(*d.broadcast(batch), k, n)
    return Trial([a, b], free=d.choice([(0,), (0, 1), (1,)]))


@trial("Gemm", opsets=(7, 9, 11, 13))
def gemm(d: Dice) -> Trial:
    m, k, n = d.shape(3, 3)
    ta, tb = d.randint(0, 1), d.randint(0, 1)
    a, b = d.floats(*((k, m) if ta else (m, k))), d.floats(*((n, k) if tb else (k, n)))
    c = d.floats(*d.choice([(), (1,), (n,), (1, n), (m, 1), (m, n), (1, 1)]))
    attributes = d.some(alpha=d.uniform(-1, 2), beta=d.choice([0.0, 1.0, 0.5, -2.0]))
    attributes |= ({"transA": 1} if ta else {}) | ({"transB": 1} if tb else {})
    inputs = [a, b] if d.opset >= 11 and d.flip(0.2) else [a, b, c]
    return Trial(inputs, attributes, free=d.choice([(0,), (0, 1), (0, 1, 2)[: len(inputs)]]))


EQUATIONS = ("ij,jk->ik", "bij,bjk->bik", "ij->ji", "ii->i", "ii", "ij->", "i,j->ij", "ij,ij->", "bhqd,bhkd->bhqk",
             "...ij,...jk->...ik", "abc,cd->abd", "ijk,jil->kl", "i,i", "aij,ajk", "ij,kj,lk->il", "iij->ij",
             "...i->...", "b...,b->...", "abc->cab", "ij,k->kji", "ab,ab->ba", "xyz,zx->y")  # fmt: skip


@trial("Einsum", opsets=(12,))
def einsum(d: Dice) -> Trial:
    equation = d.choice(EQUATIONS)
    sizes: dict[str, int] = {}
    wide = d.shape(0, 2, 3)  # the same everywhere: onnxruntime does not survive all that broadcast
    arrays = []
    for term in equation.partition("->")[0].split(","):
        head, dots, tail = term.partition("...")
        shape = [sizes.setdefault(c, d.randint(1, 4)) for c in head] + list(wide if dots else ())
        arrays.append(d.floats(*shape, *(sizes.setdefault(c, d.randint(1, 4)) for c in tail)))
    return Trial(arrays, {"equation": equation if d.flip() else equation.replace(",", " , ")}, free=range(len(arrays)))
