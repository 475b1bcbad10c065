"""Rows of matrix products."""

from __future__ import annotations

from math import prod
from typing import Any

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.moving import matrix_transpose, permute
from compiler.frontend.aten.promotion import together
from compiler.frontend.aten.registry import aten
from compiler.frontend.common import einsum as common_einsum
from compiler.ir.core import Value
from compiler.ops import math, nn, reduce, tensor


def product(c: Call, a: Any, b: Any) -> Value:
    """The matrix product, of reals: integers are exact in f32 up to 2^24 and come back as they were."""
    x, y = together(c, c.tensor(a), c.tensor(b))
    if x.type.dtype.is_float:
        return c.emit(nn.MatMul, x, y)
    return c.cast(c.emit(nn.MatMul, c.real(x), c.real(y)), x.type.dtype)


def weighted_sum(c: Call, y: Value, bias: Any, beta: Any, alpha: Any) -> Value:
    """beta * bias + alpha * y."""
    if alpha != 1:
        y = c.emit(math.Mul, y, c.scalar_like(alpha, y))
    if beta == 0 or bias is None:
        return y
    b = c.tensor(bias, "its bias")
    return c.emit(math.Add, y, b if beta == 1 else c.emit(math.Mul, b, c.scalar_like(beta, b)))


@aten("aten::linear")
def linear(c: Call, input: Any, weight: Any, bias: Any = None) -> Any:
    return weighted_sum(c, product(c, input, matrix_transpose(c, weight)), bias, 1, 1)


@aten("aten::mm", "aten::bmm", "aten::matmul", "aten::mv", "aten::dot", "aten::vdot", "aten::linalg_matmul",
      "aten::__matmul__")  # fmt: skip
def matmul(c: Call, self: Any, other: Any) -> Any:
    return product(c, self, other)


@aten("aten::addmm", "aten::addmv", "aten::baddbmm")
def add_product(c: Call, self: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    return weighted_sum(c, product(c, a, b), self, beta, alpha)


@aten("aten::addbmm")
def add_batch_product(c: Call, self: Any, batch1: Any, batch2: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    total = c.emit(reduce.Sum, product(c, batch1, batch2), axes=(0,), keepdims=False)
    return weighted_sum(c, total, self, beta, alpha)


@aten("aten::_addmm_activation")
def add_product_activation(c: Call, self: Any, mat1: Any, mat2: Any, beta: Any = 1, alpha: Any = 1,
                           use_gelu: bool = False) -> Any:  # fmt: skip
    from compiler.frontend.aten.activations import gelu, relu

    y = add_product(c, self, mat1, mat2, beta, alpha)
    return gelu(c, y) if use_gelu else relu(c, y)


@aten("aten::outer", "aten::ger")
def outer(c: Call, self: Any, vec2: Any) -> Any:
    a, b = together(c, self, vec2)
    return c.emit(math.Mul, c.reshape(a, (a.type.elements, 1)), c.reshape(b, (1, b.type.elements)))


@aten("aten::addr")
def add_outer(c: Call, self: Any, vec1: Any, vec2: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    return weighted_sum(c, outer(c, vec1, vec2), self, beta, alpha)


@aten("aten::einsum")
def einsum(c: Call, equation: str, tensors: Any, path: Any = None) -> Any:
    return common_einsum.einsum(c, equation, together(c, *tensors))


@aten("aten::tensordot")
def tensordot(c: Call, self: Any, other: Any, dims_self: Any, dims_other: Any) -> Any:
    """The summed axes go last in the one and first in the other, then it is a matrix product."""
    a, b = together(c, self, other)
    left = [c.axis(d, a.type.rank) for d in c.integers(dims_self, "the dimensions")]
    right = [c.axis(d, b.type.rank) for d in c.integers(dims_other, "the dimensions")]
    rows = [i for i in range(a.type.rank) if i not in left]
    columns = [i for i in range(b.type.rank) if i not in right]
    kept = [a.type.static_shape[i] for i in rows], [b.type.static_shape[i] for i in columns]
    inner = prod(a.type.static_shape[i] for i in left)
    x = c.reshape(permute(c, a, rows + left), (prod(kept[0]), inner))
    y = c.reshape(permute(c, b, right + columns), (inner, prod(kept[1])))
    return c.reshape(c.emit(nn.MatMul, x, y), (*kept[0], *kept[1]))


@aten("aten::bilinear")
def bilinear(c: Call, input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    y = common_einsum.einsum(c, "...a,oab,...b->...o", [input1, weight, input2])
    return weighted_sum(c, y, bias, 1, 1)


@aten("aten::_trilinear")
def trilinear(c: Call, i1: Any, i2: Any, i3: Any, expand1: Any, expand2: Any, expand3: Any, sumdim: Any,
              unroll_dim: Any = 1) -> Any:  # fmt: skip
    """The product of three tensors with axes inserted, summed over some."""
    factors = []
    for value, axes in ((i1, expand1), (i2, expand2), (i3, expand3)):
        shape = list(c.shape(value))
        for axis in axes:
            shape.insert(axis, 1)
        factors.append(c.reshape(value, shape))
    y = c.emit(math.Mul, c.emit(math.Mul, factors[0], factors[1]), factors[2])
    return c.emit(reduce.Sum, y, axes=tuple(sumdim), keepdims=False)


@aten("aten::kron")
def kron(c: Call, self: Any, other: Any) -> Any:
    """Every product of an element of the one with an element of the other, in blocks."""
    a, b = together(c, self, other)
    rank = max(a.type.rank, b.type.rank)
    left = (1,) * (rank - a.type.rank) + a.type.static_shape
    right = (1,) * (rank - b.type.rank) + b.type.static_shape
    x = c.reshape(a, [d for size in left for d in (size, 1)])
    y = c.emit(math.Mul, x, c.reshape(b, [d for size in right for d in (1, size)]))
    return c.reshape(y, [m * n for m, n in zip(left, right, strict=True)])


@aten("aten::linalg_cross", "aten::cross")
def cross(c: Call, self: Any, other: Any, dim: Any = -1) -> Any:
    from compiler.frontend.aten.moving import roll

    a, b = together(c, self, other)
    axis = c.axis(-1 if dim is None else dim, a.type.rank)
    first = c.emit(math.Mul, roll(c, a, [-1], [axis]), roll(c, b, [-2], [axis]))
    second = c.emit(math.Mul, roll(c, a, [-2], [axis]), roll(c, b, [-1], [axis]))
    return c.emit(math.Sub, first, second)


@aten("aten::chain_matmul", "aten::linalg_multi_dot")
def chain(c: Call, matrices: Any) -> Any:
    y = c.tensor(matrices[0])
    for other in matrices[1:]:
        y = product(c, y, other)
    return y


@aten("aten::inner")
def inner(c: Call, self: Any, other: Any) -> Any:
    """Summed over the last axes of both."""
    a, b = c.tensor(self), c.tensor(other)
    if not a.type.rank or not b.type.rank:
        return c.emit(math.Mul, a, b)
    rows, columns = a.type.static_shape[:-1], b.type.static_shape[:-1]
    width = a.type.static_shape[-1]
    flat = c.emit(tensor.Transpose, c.reshape(b, (prod(columns), width)), perm=(1, 0))
    return c.reshape(product(c, c.reshape(a, (prod(rows), width)), flat), (*rows, *columns))
