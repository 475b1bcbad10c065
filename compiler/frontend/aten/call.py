"""What a converter sees of a call of a torch operator besides its arguments: ways to look at them and to emit ops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from compiler.frontend.builder import Builder
from compiler.frontend.common import emitter
from compiler.frontend.common.emitter import Emitter
from compiler.frontend.records import Malformed, Unsupported
from compiler.ir.core import Constant, Value
from compiler.ir.types import Dimension, DType
from compiler.ops import math

OPEN = "take a fixed number of elements (topk), or do this part in the host program"
BIND = "make it a constant in the exported model; an integer or boolean input can be bound with --bind"


class Call(Emitter):
    """One call of a torch operator. Lives while its converter runs."""

    def __init__(self, name: str, builder: Builder, overload: str = "") -> None:
        self.name = name
        self.overload = overload
        self.builder = builder

    @property
    def base(self) -> str:
        """The name without namespace and the mark of in-place forms: `relu` of `aten::relu_`."""
        plain = self.name.rpartition("::")[2]
        return plain if plain.endswith("__") else plain.removesuffix("_")

    # -- emission ----------------------------------------------------------------------------------------------------
    def scalar_like(self, number: float, value: Value) -> Constant:
        """A rank-0 constant of the element type of `value`."""
        return self.constant(number, value.type.dtype)

    def reshape(self, x: Value, shape: Sequence[Dimension]) -> Value:
        """x under another shape, one of whose dimensions may depend on data; nothing is emitted where it has that shape
        already.
        """
        if list(shape).count(None) > 1:
            raise Unsupported("makes a tensor of several dimensions that depend on the network's data", OPEN)
        return x if x.type.shape == tuple(shape) else emitter.reshape(self, x, [-1 if d is None else d for d in shape])

    def cast(self, x: Value, dtype: DType) -> Value:
        return x if x.type.dtype is dtype else self.emit(math.Cast, x, to=dtype)

    # -- arguments ---------------------------------------------------------------------------------------------------
    def as_tensor(self, x: Any, like: Value | None = None) -> Value:
        """x as a tensor: a number becomes a rank-0 constant, of the element type of `like` where one is given."""
        if isinstance(x, Value):
            return x
        if not isinstance(x, bool | int | float | list | tuple):
            raise Malformed(f"expected a tensor or a number, not {type(x).__name__}")
        if like is not None:
            return self.scalar_like(x, like)  # type: ignore[arg-type]
        array = np.asarray(x)
        return self.constant(array.astype(np.float32) if array.dtype.kind == "f" else array)

    def tensor(self, x: Any, what: str = "its input") -> Value:
        """x, which must be a tensor."""
        if not isinstance(x, Value):
            raise Malformed(f"{what} is not a tensor but {type(x).__name__}")
        return x

    def real(self, x: Any) -> Value:
        """x as a tensor of reals: integers and booleans are cast, as torch does before a function of reals."""
        value = self.as_tensor(x)
        return value if value.type.dtype.is_float else self.cast(value, DType.F32)

    def known(self, x: Any, what: str) -> np.ndarray:
        """The elements of an argument that must be known at import. `what` names it for the message."""
        if isinstance(x, Constant):
            return x.data
        if isinstance(x, Value):
            raise Unsupported(f"{what} depends on the network's data", BIND)
        if isinstance(x, list | tuple):
            return np.asarray([self.known(item, what) for item in x])
        return np.asarray(x)

    def number(self, x: Any, what: str) -> Any:
        """A Python number that must be known."""
        found = self.known(x, what)
        if found.size != 1 or found.dtype.kind not in "biuf":
            raise Malformed(f"{what} is not one number")
        return found.reshape(()).item()

    def integer(self, x: Any, what: str) -> int:
        return int(self.number(x, what))

    def integers(self, x: Any, what: str) -> tuple[int, ...]:
        """A list of integers that must be known; one integer is a list of one."""
        if isinstance(x, list | tuple):
            return tuple(self.integer(item, what) for item in x)
        return tuple(int(v) for v in self.known(x, what).reshape(-1))

    def shape(self, x: Any) -> tuple[int, ...]:
        return self.tensor(x).type.static_shape

    def open_shape(self, x: Any) -> tuple[Dimension, ...]:
        """The shape of a tensor, None for dimensions that depend on data."""
        return self.tensor(x).type.shape

    def axis(self, axis: Any, rank: int) -> int:
        """An axis counted from the front; a rank-0 tensor counts as having one."""
        return emitter.normal_axis(self.integer(axis, "the dimension"), max(rank, 1))

    def axes(self, axes: Any, rank: int) -> tuple[int, ...]:
        """Several axes; None and [] are all of them."""
        if axes is None or (isinstance(axes, list | tuple) and not axes):
            return tuple(range(rank))
        return tuple(self.axis(a, rank) for a in self.integers(axes, "the dimensions"))

    # -- quantised tensors -------------------------------------------------------------------------------------------
    def has_quantised(self, args: Iterable[Any]) -> bool:
        return any(v.type.quant is not None for v in tensors_in(args))

    def first_quantised(self, args: Iterable[Any]) -> Value:
        return next(v for v in tensors_in(args) if v.type.quant is not None)


def tensors_in(args: Iterable[Any]) -> Iterator[Value]:
    """The tensors among arguments, also those in lists."""
    for arg in args:
        if isinstance(arg, Value):
            yield arg
        elif isinstance(arg, list | tuple):
            yield from tensors_in(arg)
