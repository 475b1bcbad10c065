"""Types of values: element type, shape and, for quantised tensors, how integers stand for reals.

Types are immutable and compare by value. A quantised type carries the chip's own form, `real = integer * 2^position /
scale` (docs/mlu220.md 2.1), and the exact fp32 step an imported model gave, so that imported scales survive. Per-axis
scales live in a constant of the module and are named here, so that a type stays short and hashable.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np


class DType(enum.Enum):
    """Element types; the value is the name used in IR text."""

    BOOL = "i1"
    I8 = "i8"
    I16 = "i16"
    I32 = "i32"
    I64 = "i64"
    U8 = "u8"
    U16 = "u16"
    U32 = "u32"
    U64 = "u64"
    F16 = "f16"
    BF16 = "bf16"
    F32 = "f32"
    F64 = "f64"

    def __repr__(self) -> str:
        return f"DType.{self.name}"

    def __str__(self) -> str:
        return self.value

    @property
    def numpy(self) -> np.dtype:
        return _NUMPY[self]

    @property
    def size(self) -> int:
        """Bytes an element takes in memory."""
        return _NUMPY[self].itemsize

    @property
    def is_float(self) -> bool:
        return self in (DType.F16, DType.BF16, DType.F32, DType.F64)

    @property
    def is_integer(self) -> bool:
        return not self.is_float and self is not DType.BOOL

    @staticmethod
    def of(dtype: object) -> DType:
        """The DType of a NumPy dtype (or anything `np.dtype` takes). Raises KeyError for strings and objects."""
        return _FROM_NUMPY[np.dtype(dtype)]  # type: ignore[call-overload]


_NUMPY = {
    DType.BOOL: np.dtype(np.bool_), DType.I8: np.dtype(np.int8), DType.I16: np.dtype(np.int16),
    DType.I32: np.dtype(np.int32), DType.I64: np.dtype(np.int64), DType.U8: np.dtype(np.uint8),
    DType.U16: np.dtype(np.uint16), DType.U32: np.dtype(np.uint32), DType.U64: np.dtype(np.uint64),
    DType.F16: np.dtype(np.float16), DType.BF16: np.dtype(ml_dtypes.bfloat16), DType.F32: np.dtype(np.float32),
    DType.F64: np.dtype(np.float64),
}  # fmt: skip
_FROM_NUMPY = {numpy_type: dtype for dtype, numpy_type in _NUMPY.items()}


class Layout(enum.Enum):
    """Order of the axes of a four-dimensional spatial tensor."""

    NCHW = "NCHW"
    NHWC = "NHWC"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class QuantType:
    """How stored integers stand for reals: `real = (integer - zero_point) * 2^position / scale`.

    Per tensor: `scale` is an fp32 number. Per axis: `axis` and `params` are given, `params` names a constant of the
    module that holds one fp32 scale per index of that axis, and `scale` is 1.0. `step` is the exact fp32 step of an
    imported scale where `2^position / scale` would round to another number, else None.
    """

    storage: DType
    position: int
    scale: float = 1.0
    axis: int | None = None
    params: str | None = None
    zero_point: int = 0
    step: float | None = None

    @property
    def bits(self) -> int:
        return self.storage.size * 8

    @property
    def qmax(self) -> int:
        """Largest stored magnitude; the range is symmetric: encoding does not use the lowest integer of the type."""
        return (1 << (self.bits - 1)) - 1

    @property
    def real_step(self) -> float:
        """Distance of two neighbouring reals, per tensor, as the exact fp32 step."""
        if self.step is not None:
            return self.step
        return float(np.float32(math.ldexp(1.0, self.position) / self.scale))

    @staticmethod
    def from_absmax(absmax: float, storage: DType = DType.I8) -> QuantType:
        """The type whose range is [-absmax, absmax] (docs/mlu220.md 2.1). absmax 0 gives position -(bits-2), scale
        1."""
        position, scale = position_and_scale(absmax, storage.size * 8)
        return QuantType(storage, position, scale)


def position_and_scale(absmax: float, bits: int) -> tuple[int, float]:
    """`position = floor(log2(absmax)) - (bits - 2)`, `scale = qmax * 2^position / absmax`, rounded to fp32."""
    if not absmax > 0.0 or not math.isfinite(absmax):
        return -(bits - 2), 1.0
    position = math.frexp(absmax)[1] - 1 - (bits - 2)
    return position, float(np.float32(((1 << (bits - 1)) - 1) * math.ldexp(1.0, position) / absmax))


Dimension = int | None
Shape = tuple[Dimension, ...]


@dataclass(frozen=True)
class TensorType:
    """Type of a tensor value. `shape` may hold None where a dimension is not known yet (printed `?`)."""

    shape: Shape
    dtype: DType
    quant: QuantType | None = None

    def __post_init__(self) -> None:
        if self.quant is not None and self.quant.storage is not self.dtype:
            raise ValueError(f"quantised storage {self.quant.storage} differs from element type {self.dtype}")

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        return None not in self.shape

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape, known to be static. Raises ValueError where it is not."""
        if not self.is_static:
            raise ValueError(f"shape {self.shape} is not static")
        return self.shape  # type: ignore[return-value]

    @property
    def elements(self) -> int:
        return math.prod(self.static_shape)

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.size

    def with_shape(self, shape: Shape) -> TensorType:
        return TensorType(tuple(shape), self.dtype, self.quant)

    def with_dtype(self, dtype: DType) -> TensorType:
        """The same shape with another element type, not quantised."""
        return TensorType(self.shape, dtype)

    def with_quant(self, quant: QuantType) -> TensorType:
        return TensorType(self.shape, quant.storage, quant)
