"""torch's element types: its `ScalarType` codes as files store them, and what they are in a module."""

from __future__ import annotations

from compiler.frontend.records import Unsupported
from compiler.ir.types import DType

SCALAR_TYPES: dict[int, DType] = {
    0: DType.U8, 1: DType.I8, 2: DType.I16, 3: DType.I32, 4: DType.I64, 5: DType.F16, 6: DType.F32, 7: DType.F64,
    11: DType.BOOL, 15: DType.BF16, 27: DType.U16, 28: DType.U32, 29: DType.U64,
}  # fmt: skip
"""Code → element type."""

QUANTISED: dict[int, DType] = {12: DType.I8, 13: DType.U8, 14: DType.I32}
"""qint8, quint8, qint32 → what stores their integers."""

NAMES: dict[int, str] = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64",
    8: "complex32", 9: "complex64", 10: "complex128", 11: "bool", 12: "qint8", 13: "quint8", 14: "qint32",
    15: "bfloat16", 16: "quint4x2", 17: "quint2x4", 23: "float8_e5m2", 24: "float8_e4m3fn", 25: "float8_e5m2fnuz",
    26: "float8_e4m3fnuz", 27: "uint16", 28: "uint32", 29: "uint64",
}  # fmt: skip

CODES: dict[str, int] = {name: code for code, name in NAMES.items()}
"""Name in torch (`float32`) → code."""

REMEDY = "use float32, an integer type or bool"


def widened(dtype: DType) -> DType:
    """The type a value has inside the module: every float is f32, which the scheme may narrow again."""
    return DType.F32 if dtype.is_float else dtype


def dtype_of(code: int) -> DType:
    """The module's type of a ScalarType code. Raises Unsupported for complex, quantised and 8-bit float types."""
    if code not in SCALAR_TYPES:
        raise Unsupported(f"uses element type {NAMES.get(code, code)}", REMEDY)
    return widened(SCALAR_TYPES[code])


def code_of(dtype: DType) -> int:
    """The ScalarType code of an element type."""
    return next(code for code, known in SCALAR_TYPES.items() if known is dtype)


def rank_of(dtype: DType) -> int:
    """0 boolean, 1 integer, 2 float: torch promotes to the highest of these first."""
    return 0 if dtype is DType.BOOL else 2 if dtype.is_float else 1


def promoted(a: DType, b: DType) -> DType:
    """torch's common type of two tensors of the same standing."""
    if a is b or rank_of(a) != rank_of(b):
        return a if rank_of(a) >= rank_of(b) else b
    if a.is_float:
        return a if a.size >= b.size else b
    if a.size == b.size:  # of one size, so one is signed: the next larger signed type holds both
        return {1: DType.I16, 2: DType.I32, 4: DType.I64, 8: DType.I64}[a.size]
    wide, narrow = (a, b) if a.size > b.size else (b, a)
    unsigned_wide = wide in (DType.U8, DType.U16, DType.U32, DType.U64)
    if unsigned_wide and narrow in (DType.I8, DType.I16, DType.I32):
        return {2: DType.I32, 4: DType.I64, 8: DType.I64}[wide.size]
    return wide
