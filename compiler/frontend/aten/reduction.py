"""Rows of reductions, running sums, and the places of extremes."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.comparison import truth
from compiler.frontend.aten.dtypes import rank_of
from compiler.frontend.aten.moving import cat, diagonal
from compiler.frontend.aten.promotion import together
from compiler.frontend.aten.registry import aten
from compiler.frontend.aten.types import converted
from compiler.frontend.common.emitter import cut
from compiler.frontend.records import Unsupported
from compiler.ir.core import Op, Value
from compiler.ir.types import DType
from compiler.ops import math, reduce, tensor


def reduced(c: Call, op_class: type[Op], x: Value, dim: Any, keepdim: Any) -> Value:
    """The reduction over some or all axes; a rank-0 tensor is its own."""
    if x.type.rank == 0:
        return x
    return c.emit(op_class, x, axes=c.axes(dim, x.type.rank), keepdims=bool(keepdim))


def _integers_widened(c: Call, x: Value, dtype: Any) -> Value:
    """torch sums and multiplies integers and booleans as int64."""
    if dtype is not None:
        return converted(c, x, dtype)
    return x if rank_of(x.type.dtype) == 2 else c.cast(x, DType.I64)


SUMS: dict[str, type[Op]] = {"sum": reduce.Sum, "prod": reduce.Prod}


@aten("aten::sum", "aten::prod")
def total(c: Call, self: Any, dim: Any = None, keepdim: Any = False, dtype: Any = None) -> Any:
    """The overload without axes has the type in their place, by keyword."""
    return reduced(c, SUMS[c.base], _integers_widened(c, c.tensor(self), dtype), dim, keepdim)


@aten("aten::sum.default", "aten::prod.default")
def total_of_all(c: Call, self: Any, dtype: Any = None) -> Any:
    return total(c, self, None, False, dtype)


@aten("aten::nansum", "aten::nanmean")
def without_nans(c: Call, self: Any, dim: Any = None, keepdim: Any = False, dtype: Any = None) -> Any:
    """NaNs count as nothing: neither in the sum nor in the number of elements."""
    x = c.real(converted(c, self, dtype))
    unusable = c.emit(math.IsNan, x)
    added = reduced(c, reduce.Sum, c.emit(math.Where, unusable, c.scalar_like(0.0, x), x), dim, keepdim)
    if c.base == "nansum":
        return added
    counted = reduced(c, reduce.Sum, c.cast(c.emit(math.Not, unusable), x.type.dtype), dim, keepdim)
    return c.emit(math.Div, added, counted)


@aten("aten::mean")
def mean(c: Call, self: Any, dim: Any = None, keepdim: Any = False, dtype: Any = None) -> Any:
    return reduced(c, reduce.Mean, c.real(converted(c, self, dtype)), dim, keepdim)


@aten("aten::mean.default")
def mean_of_all(c: Call, self: Any, dtype: Any = None) -> Any:
    return mean(c, self, None, False, dtype)


EXTREMES: dict[str, tuple[type[Op], type[Op], type[Op]]] = {
    "max": (reduce.Max, reduce.ArgMax, math.Maximum), "min": (reduce.Min, reduce.ArgMin, math.Minimum),
}  # fmt: skip


@aten("aten::max", "aten::min")
def extreme(c: Call, self: Any, dim: Any = None, keepdim: Any = False) -> Any:
    """Of all elements; with a second tensor, elementwise; along an axis, with places. Of lists in scripted code too."""
    over, place, elementwise = EXTREMES[c.base]
    if not isinstance(self, Value):
        plain = max if c.base == "max" else min
        return plain(self) if dim is None else plain(self, dim)
    if isinstance(dim, Value) and c.overload != "dim":
        from compiler.frontend.aten.promotion import together

        return c.emit(elementwise, *together(c, self, dim))
    if dim is None:
        return _as_numbers(c, over, self, None, False)
    axis = c.axis(dim, self.type.rank)
    x = c.cast(self, DType.U8) if self.type.dtype is DType.BOOL else self
    indices = c.emit(place, x, axis=axis, keepdims=bool(keepdim))
    return _as_numbers(c, over, self, [axis], keepdim), indices


def _as_numbers(c: Call, op_class: type[Op], x: Value, dim: Any, keepdim: Any) -> Value:
    """A reduction that booleans take as numbers and come back from."""
    if x.type.dtype is not DType.BOOL:
        return reduced(c, op_class, x, dim, keepdim)
    return c.cast(reduced(c, op_class, c.cast(x, DType.U8), dim, keepdim), DType.BOOL)


@aten("aten::amax", "aten::amin", quantised="keep")
def amax(c: Call, self: Any, dim: Any = (), keepdim: Any = False) -> Any:
    return _as_numbers(c, reduce.Max if c.base == "amax" else reduce.Min, c.tensor(self), dim, keepdim)


@aten("aten::aminmax")
def aminmax(c: Call, self: Any, dim: Any = None, keepdim: Any = False) -> Any:
    axes = None if dim is None else [dim]
    return _as_numbers(c, reduce.Min, self, axes, keepdim), _as_numbers(c, reduce.Max, self, axes, keepdim)


@aten("aten::argmax", "aten::argmin")
def arg_extreme(c: Call, self: Any, dim: Any = None, keepdim: Any = False) -> Any:
    """Without an axis, the place among all elements in row-major order."""
    x = c.tensor(self)
    op_class = reduce.ArgMax if c.base == "argmax" else reduce.ArgMin
    x = c.cast(x, DType.U8) if x.type.dtype is DType.BOOL else x
    if dim is None:
        found = c.emit(op_class, c.reshape(x, (x.type.elements,)), axis=0, keepdims=False)
        return c.reshape(found, (1,) * x.type.rank) if keepdim else found
    if x.type.rank == 0:
        return c.constant(0, DType.I64)
    return c.emit(op_class, x, axis=c.axis(dim, x.type.rank), keepdims=bool(keepdim))


@aten("aten::any", "aten::all")
def quantifier(c: Call, self: Any, dim: Any = None, keepdim: Any = False) -> Any:
    if not isinstance(self, Value):
        return (any if c.base == "any" else all)(self)
    over = reduce.Max if c.base == "any" else reduce.Min
    return _as_numbers(c, over, truth(c, self), dim, keepdim)


@aten("aten::count_nonzero")
def count_nonzero(c: Call, self: Any, dim: Any = None) -> Any:
    return reduced(c, reduce.Sum, c.cast(truth(c, self), DType.I64), dim, False)


@aten("aten::logsumexp", "aten::special_logsumexp")
def log_sum_exp(c: Call, self: Any, dim: Any, keepdim: Any = False) -> Any:
    return reduced(c, reduce.LogSumExp, c.real(self), dim, keepdim)


# -- norms -------------------------------------------------------------------------------------------------------------
def norm_of(c: Call, x: Value, order: float, dim: Any, keepdim: Any) -> Value:
    x = c.real(x)
    if order in (1.0, 2.0):
        return reduced(c, reduce.L1 if order == 1 else reduce.L2, x, dim, keepdim)
    size = c.emit(math.Abs, x)
    if np.isinf(order):
        return reduced(c, reduce.Max if order > 0 else reduce.Min, size, dim, keepdim)
    if order == 0:
        return reduced(c, reduce.Sum, c.cast(truth(c, x), DType.F32), dim, keepdim)
    powers = c.emit(math.Pow, size, c.scalar_like(order, x))
    return c.emit(math.Pow, reduced(c, reduce.Sum, powers, dim, keepdim), c.scalar_like(1 / order, x))


@aten("aten::norm")
def norm(c: Call, self: Any, p: Any = 2, dim: Any = None, keepdim: Any = False, dtype: Any = None) -> Any:
    return norm_of(c, converted(c, self, dtype), 2.0 if p is None else float(p), dim, keepdim)


@aten("aten::linalg_vector_norm", "aten::linalg_norm")
def vector_norm(c: Call, self: Any, ord: Any = 2, dim: Any = None, keepdim: Any = False, dtype: Any = None) -> Any:
    if c.base == "linalg_norm" and ord is not None and len(c.shape(self)) != 1 and len(c.axes(dim, 8)) != 1:
        raise Unsupported("takes a norm of matrices", "use vector norms (torch.linalg.vector_norm)")
    return norm_of(c, converted(c, self, dtype), 2.0 if ord is None else float(ord), dim, keepdim)


@aten("aten::frobenius_norm")
def frobenius_norm(c: Call, self: Any, dim: Any = None, keepdim: Any = False) -> Any:
    return norm_of(c, self, 2.0, dim, keepdim)


# -- spread ------------------------------------------------------------------------------------------------------------
def _variance(c: Call, x: Value, dim: Any, keepdim: Any, correction: float) -> tuple[Value, Value]:
    """Variance and mean, with `correction` less in the divisor."""
    x = c.real(x)
    axes = c.axes(dim, x.type.rank)
    average = c.emit(reduce.Mean, x, axes=axes)
    centred = c.emit(math.Sub, x, average)
    total = c.emit(reduce.Sum, c.emit(math.Mul, centred, centred), axes=axes, keepdims=bool(keepdim))
    count = int(np.prod([x.type.static_shape[a] for a in axes]))
    variance = c.emit(math.Div, total, c.scalar_like(max(count - correction, 0), x))
    kept = average if keepdim else c.reshape(average, variance.type.static_shape)
    return variance, kept


@aten("aten::var", "aten::std", "aten::var_mean", "aten::std_mean")
def spread(c: Call, self: Any, dim: Any = None, unbiased: Any = None, keepdim: Any = False,
           correction: Any = None) -> Any:  # fmt: skip
    """`unbiased` of older overloads is a correction of 1; in the overload without axes it stands in their place."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if c.overload.startswith("correction") and correction is None and unbiased is not None:
        correction, unbiased = unbiased, None
    less = 1.0 if correction is None and unbiased is not False else 0.0 if correction is None else float(correction)
    variance, average = _variance(c, c.tensor(self), dim, keepdim, less)
    y = c.emit(math.Sqrt, variance) if c.base.startswith("std") else variance
    return (y, average) if c.base.endswith("_mean") else y


# -- running -----------------------------------------------------------------------------------------------------------
@aten("aten::cumsum")
def cumsum(c: Call, self: Any, dim: Any, dtype: Any = None) -> Any:
    x = _integers_widened(c, c.tensor(self), dtype)
    return x if x.type.rank == 0 else c.emit(tensor.CumSum, x, axis=c.axis(dim, x.type.rank))


@aten("aten::cumprod")
def cumprod(c: Call, self: Any, dim: Any, dtype: Any = None) -> Any:
    x = _integers_widened(c, c.tensor(self), dtype)
    return x if x.type.rank == 0 else c.emit(tensor.CumProd, x, axis=c.axis(dim, x.type.rank))


LONGEST = 256
"""Running maxima are written out, element by element, up to this many."""


@aten("aten::cummax", "aten::cummin")
def running_extreme(c: Call, self: Any, dim: Any) -> Any:
    """The values; their places exist only if nobody asks for them."""
    x = c.tensor(self)
    axis = c.axis(dim, x.type.rank)
    size = x.type.static_shape[axis]
    if size > LONGEST:
        raise Unsupported(f"runs over {size} elements", f"run over at most {LONGEST}")
    step = math.Maximum if c.base == "cummax" else math.Minimum
    parts = [cut(c, x, axis, 0, 1)]
    for i in range(1, size):
        parts.append(c.emit(step, parts[-1], cut(c, x, axis, i, 1)))
    return parts[0] if size == 1 else c.emit(tensor.Concat, *parts, axis=axis), None


@aten("aten::logcumsumexp")
def log_cumsum_exp(c: Call, self: Any, dim: Any) -> Any:
    """Relative to the largest of all, so that nothing overflows."""
    x = c.tensor(self)
    axis = c.axis(dim, x.type.rank)
    largest = c.emit(reduce.Max, x, axes=(axis,))
    total = c.emit(tensor.CumSum, c.emit(math.Exp, c.emit(math.Sub, x, largest)), axis=axis)
    return c.emit(math.Add, c.emit(math.Log, total), largest)


@aten("aten::diff")
def diff(c: Call, self: Any, n: Any = 1, dim: Any = -1, prepend: Any = None, append: Any = None) -> Any:
    axis = c.axis(dim, len(c.shape(self)))
    x = cat(c, [v for v in (prepend, self, append) if v is not None], axis)
    for _ in range(c.integer(n, "the number of rounds")):
        size = c.shape(x)[axis]
        x = c.emit(math.Sub, cut(c, x, axis, 1, size - 1), cut(c, x, axis, 0, size - 1))
    return x


@aten("aten::cdist", "aten::_cdist_forward")
def cdist(c: Call, x1: Any, x2: Any, p: Any = 2.0, compute_mode: Any = None) -> Any:
    a, b = c.real(x1), c.real(x2)
    first = c.reshape(a, (*a.type.static_shape[:-1], 1, a.type.static_shape[-1]))
    second = c.reshape(b, (*b.type.static_shape[:-2], 1, *b.type.static_shape[-2:]))
    return norm_of(c, c.emit(math.Sub, first, second), float(p), [-1], False)


@aten("aten::pairwise_distance")
def pairwise_distance(c: Call, x1: Any, x2: Any, p: Any = 2.0, eps: Any = 1e-6, keepdim: Any = False) -> Any:
    apart = c.emit(math.Sub, c.real(x1), c.real(x2))
    return norm_of(c, c.emit(math.Add, apart, c.scalar_like(eps, apart)), float(p), [-1], keepdim)


@aten("aten::trace")
def trace(c: Call, self: Any) -> Any:
    return reduced(c, reduce.Sum, diagonal(c, self), None, False)


@aten("aten::isin")
def is_in(c: Call, elements: Any, test_elements: Any, assume_unique: Any = False, invert: Any = False) -> Any:
    """Compared with each of the others."""
    x, others = together(c, elements, test_elements)
    wide = c.emit(math.Equal, c.reshape(x, (*x.type.static_shape, 1)), c.reshape(others, (others.type.elements,)))
    found = c.emit(reduce.Max, c.cast(wide, DType.U8), axes=(x.type.rank,), keepdims=False)
    return c.emit(math.Not, c.cast(found, DType.BOOL)) if invert else c.cast(found, DType.BOOL)


@aten("aten::mse_loss", "aten::l1_loss")
def loss(c: Call, self: Any, target: Any, reduction: Any = 1) -> Any:
    """`reduction`: none, the mean, or the sum."""
    apart = c.emit(math.Sub, *together(c, self, target))
    y = c.emit(math.Mul, apart, apart) if c.base == "mse_loss" else c.emit(math.Abs, apart)
    return y if reduction == 0 else reduced(c, reduce.Mean if reduction == 1 else reduce.Sum, y, None, False)
