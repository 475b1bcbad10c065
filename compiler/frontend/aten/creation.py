"""Rows that make tensors from nothing but numbers. All of them are known at import."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.dtypes import dtype_of
from compiler.frontend.aten.promotion import NUMBER_TYPES
from compiler.frontend.aten.registry import aten
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Value
from compiler.ir.types import DType


def _type(dtype: Any, fallback: DType = DType.F32) -> DType:
    return fallback if dtype is None else dtype_of(dtype)


MOST_ELEMENTS = 1 << 28


def limited(count: float) -> int:
    """A number of elements to make. Raises Malformed where no network would want as many."""
    if not count <= MOST_ELEMENTS:
        raise Malformed(f"makes a tensor of {count:.0f} elements")
    return max(int(count), 0)


def filled(c: Call, shape: Any, value: Any, dtype: DType) -> Value:
    sizes = c.integers(shape, "the shape")
    limited(prod(sizes))
    return c.constant(np.full(sizes, value, dtype.numpy))


VALUES = {"zeros": 0, "ones": 1, "empty": 0}


@aten("aten::zeros", "aten::ones", "aten::empty")
def constant_tensor(c: Call, size: Any, dtype: Any = None, *rest: Any, **more: Any) -> Any:
    """What torch leaves undefined is 0 here."""
    return filled(c, size, VALUES[c.base], _type(dtype))


@aten("aten::empty_strided", "aten::empty_permuted")
def empty_strided(c: Call, size: Any, stride: Any, dtype: Any = None, *rest: Any, **more: Any) -> Any:
    return filled(c, size, 0, _type(dtype))


@aten("aten::new_zeros", "aten::new_ones", "aten::new_empty")
def new_constant(c: Call, self: Any, size: Any, dtype: Any = None, *rest: Any, **more: Any) -> Any:
    return filled(c, size, VALUES[c.base.removeprefix("new_")], _type(dtype, c.tensor(self).type.dtype))


@aten("aten::new_empty_strided")
def new_empty_strided(c: Call, self: Any, size: Any, stride: Any, dtype: Any = None, *rest: Any, **more: Any) -> Any:
    return filled(c, size, 0, _type(dtype, c.tensor(self).type.dtype))


@aten("aten::zeros_like", "aten::ones_like", "aten::empty_like")
def constant_like(c: Call, self: Any, dtype: Any = None, *rest: Any, **more: Any) -> Any:
    x = c.tensor(self)
    return filled(c, x.type.static_shape, VALUES[c.base.removesuffix("_like")], _type(dtype, x.type.dtype))


def _spread(c: Call, value: Any, shape: Any, dtype: DType) -> Value:
    """A number, or a rank-0 tensor, all over a shape."""
    from compiler.ops.tensor import BroadcastTo

    if isinstance(value, Value):
        return c.emit(BroadcastTo, c.cast(value, dtype), shape=c.integers(shape, "the shape"))
    return filled(c, shape, value, dtype)


@aten("aten::full")
def full(c: Call, size: Any, fill_value: Any, *rest: Any, dtype: Any = None, **more: Any) -> Any:
    """After the value come names or the type, by overload."""
    if dtype is None and rest and isinstance(rest[0], int):
        dtype = rest[0]
    natural = fill_value.type.dtype if isinstance(fill_value, Value) else NUMBER_TYPES[type(fill_value)]
    return _spread(c, fill_value, size, _type(dtype, natural))


@aten("aten::full_like")
def full_like(c: Call, self: Any, fill_value: Any, dtype: Any = None, *rest: Any, **more: Any) -> Any:
    x = c.tensor(self)
    return _spread(c, fill_value, x.type.static_shape, _type(dtype, x.type.dtype))


@aten("aten::new_full")
def new_full(c: Call, self: Any, size: Any, fill_value: Any, dtype: Any = None, *rest: Any, **more: Any) -> Any:
    return _spread(c, fill_value, size, _type(dtype, c.tensor(self).type.dtype))


@aten("aten::fill", "aten::zero", "aten::copy")
def overwritten(c: Call, self: Any, value: Any = 0, *rest: Any) -> Any:
    """self with all its elements replaced; self's type stays."""
    from compiler.frontend.aten.moving import expand

    x = c.tensor(self)
    source = value if isinstance(value, Value) else c.scalar_like(c.number(value, "the value"), x)
    return expand(c, c.cast(source, x.type.dtype), x.type.static_shape)


# -- ranges ------------------------------------------------------------------------------------------------------------
@aten("aten::arange")
def arange(c: Call, *args: Any, **kwargs: Any) -> Any:
    """The overloads have (end), (start, end) or (start, end, step) before the type."""
    numbers = [kwargs[k] for k in ("start", "end", "step") if k in kwargs]
    count = {"start": 2, "start_step": 3, "start_out": 3, "": 0}.get(c.overload, 1)
    if c.overload == "" and not numbers:
        count = len(args) - 4 if len(args) in (5, 6, 7) else min(len(args), 3)
    given = [*args[:count], *numbers]
    dtype = kwargs.get("dtype", args[count] if len(args) > count else None)
    bounds = [c.number(v, "a bound") for v in given]
    start, end, step = (0, bounds[0], 1) if len(bounds) == 1 else (*bounds, 1)[:3]
    natural = DType.I64 if all(isinstance(b, int) for b in bounds) else DType.F32
    wanted = _type(dtype, natural)
    limited((end - start) / step)
    exact = np.arange(start, end, step, dtype=None if natural is DType.I64 else np.float64)
    return c.constant(exact.astype(wanted.numpy))


@aten("aten::linspace")
def linspace(c: Call, start: Any, end: Any, steps: Any, dtype: Any = None, *rest: Any, **more: Any) -> Any:
    bounds = c.number(start, "the start"), c.number(end, "the end")
    values = np.linspace(*bounds, limited(c.integer(steps, "the number of steps")), dtype=np.float64)
    return c.constant(values.astype(_type(dtype).numpy))


@aten("aten::logspace")
def logspace(c: Call, start: Any, end: Any, steps: Any, base: float = 10.0, dtype: Any = None, *rest: Any,
             **more: Any) -> Any:  # fmt: skip
    bounds = c.number(start, "the start"), c.number(end, "the end")
    values = np.logspace(*bounds, limited(c.integer(steps, "the number of steps")), base=base, dtype=np.float64)
    return c.constant(values.astype(_type(dtype).numpy))


@aten("aten::eye")
def eye(c: Call, n: Any, m: Any = None, dtype: Any = None, *rest: Any, **more: Any) -> Any:
    columns = n if m is None else m
    rows, width = c.integer(n, "rows"), c.integer(columns, "columns")
    limited(rows * width)
    return c.constant(np.eye(rows, width, dtype=_type(dtype).numpy))


@aten("aten::tril_indices", "aten::triu_indices")
def triangle_indices(c: Call, row: Any, col: Any, offset: Any = 0, dtype: Any = None, *rest: Any, **more: Any) -> Any:
    rows, columns, shift = c.integer(row, "rows"), c.integer(col, "columns"), c.integer(offset, "offset")
    limited(rows * columns)
    places = np.tri(rows, columns, k=shift - (c.base == "triu_indices"), dtype=bool)
    found = np.nonzero(places if c.base == "tril_indices" else ~places)
    return c.constant(np.stack(found).astype(_type(dtype, DType.I64).numpy))


@aten("aten::hann_window", "aten::hamming_window")
def window(c: Call, window_length: Any, periodic: Any = True, *rest: Any, **more: Any) -> Any:
    length = limited(c.integer(window_length, "the length"))
    edge = 0.5 if c.base == "hann_window" else 0.54
    angles = 2 * np.pi * np.arange(length) / max(length - (not periodic), 1)
    return c.constant((edge - (1 - edge) * np.cos(angles)).astype(np.float32))


# -- numbers -----------------------------------------------------------------------------------------------------------
@aten("aten::scalar_tensor", "aten::tensor", "aten::as_tensor")
def from_numbers(c: Call, data: Any, dtype: Any = None, *rest: Any, **more: Any) -> Any:
    """A tensor of a number, or of nested lists of them."""
    if isinstance(data, Value):
        return data if dtype is None else c.cast(data, dtype_of(dtype))
    found = c.known(data, "the data")
    natural = DType.F32 if found.dtype.kind == "f" or not found.size or c.base == "scalar_tensor" else DType.of(
        found.dtype
    )  # fmt: skip
    return c.constant(found.astype(_type(dtype, natural).numpy))


RANDOM = ("rand", "randn", "rand_like", "randn_like", "randint", "randperm", "bernoulli", "multinomial", "normal",
          "uniform", "native_dropout_backward", "randint_like", "exponential", "poisson")  # fmt: skip


@aten(*(f"aten::{name}" for name in RANDOM), refuses=True)
def random(c: Call, *args: Any, **kwargs: Any) -> Any:
    raise Unsupported("draws random numbers", "make them an input of the network")
