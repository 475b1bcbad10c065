"""torch's rules of common element types: tensors with axes count before rank-0 tensors, those before plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compiler.frontend.aten.call import Call
from compiler.frontend.aten.dtypes import promoted, rank_of
from compiler.ir.core import Value
from compiler.ir.types import DType

NUMBER_TYPES = {bool: DType.BOOL, int: DType.I64, float: DType.F32}
"""Python number → element type where no tensor decides."""


def result_type(*xs: Any) -> DType:
    """The common element type of tensors and numbers."""
    standing: list[DType | None] = [None, None, None]
    for x in xs:
        if isinstance(x, Value):
            place, dtype = (0 if x.type.rank else 1), x.type.dtype
        else:
            place, dtype = 2, NUMBER_TYPES[type(x)]
        found = standing[place]
        standing[place] = dtype if found is None else promoted(found, dtype)
    common: DType | None = None
    for dtype in filter(None, standing):
        if common is None or rank_of(dtype) > rank_of(common):
            common = dtype
    if common is None:
        raise ValueError("no operands")
    return common


def together(c: Call, *xs: Any) -> list[Value]:
    """Tensors and numbers as tensors of their common type."""
    dtype = result_type(*xs)
    return [c.cast(x, dtype) if isinstance(x, Value) else c.constant(x, dtype) for x in xs]


def together_real(c: Call, *xs: Any) -> list[Value]:
    """As `together`, but of reals."""
    dtype = result_type(*xs)
    dtype = dtype if dtype.is_float else DType.F32
    return [c.cast(x, dtype) if isinstance(x, Value) else c.constant(x, dtype) for x in xs]


def no_tensors(xs: Sequence[Any]) -> bool:
    """Whether all operands are plain Python values, so that the operator is Python's own."""
    return not any(isinstance(x, Value) for x in xs)
