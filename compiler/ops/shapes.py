"""Shape and type rules that several op families share. Dimensions that are not known yet (None) propagate; nothing
raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from compiler.ir.core import Op
from compiler.ir.types import Dimension, DType, Shape

FLOATS = frozenset({DType.F16, DType.BF16, DType.F32, DType.F64})
NUMBERS = frozenset(DType) - {DType.BOOL}
INTEGERS = NUMBERS - FLOATS
STORED = frozenset({DType.I8, DType.I16, DType.U8, DType.I32})
"""Element types quantised values are stored in; i32 is the type of quantised biases."""


def broadcast(shapes: Iterable[Shape]) -> Shape | None:
    """The common shape by NumPy's rule, or None where the shapes do not fit. Unknown dimensions fit anything."""
    result: list[Dimension] = []
    for shape in shapes:
        width = max(len(result), len(shape))
        left: Shape = (1,) * (width - len(result)) + tuple(result)
        right: Shape = (1,) * (width - len(shape)) + shape
        result = []
        for a, b in zip(left, right, strict=True):
            if a == 1 or a == b:
                result.append(b)
            elif b == 1 or b is None:
                result.append(a)
            elif a is None:
                result.append(b)
            else:
                return None
    return tuple(result)


def broadcasts_to(shape: Shape, target: Shape) -> bool:
    """Whether `shape` can be repeated to `target`, which stays as it is. Unknown dimensions fit anything."""
    pairs = zip(reversed(shape), reversed(target), strict=False)
    return len(shape) <= len(target) and all(a == 1 or same(a, b) for a, b in pairs)


def same(a: Dimension, b: Dimension) -> bool:
    """Whether two dimensions may be equal: they are, or one is unknown."""
    return a is None or b is None or a == b


def times(a: Dimension, b: Dimension) -> Dimension:
    return None if a is None or b is None else a * b


def plus(a: Dimension, b: Dimension) -> Dimension:
    return None if a is None or b is None else a + b


def window_count(size: Dimension, pads: int, kernel: Dimension, stride: int, dilation: int = 1) -> Dimension:
    """Positions of a sliding window along an axis of `size` elements with `pads` elements added, both sides
    together."""
    if size is None or kernel is None:
        return None
    return (size + pads - (kernel - 1) * dilation - 1) // stride + 1


def split_image(shape: Shape, layout: str) -> tuple[Dimension, Dimension, Dimension, Dimension]:
    """(n, c, h, w) of a four-dimensional shape in `layout`."""
    a, b, c, d = shape
    return (a, b, c, d) if layout == "NCHW" else (a, d, b, c)


def join_image(n: Dimension, c: Dimension, h: Dimension, w: Dimension, layout: str) -> Shape:
    """The shape in `layout` of an image batch."""
    return (n, c, h, w) if layout == "NCHW" else (n, h, w, c)


def channel_axis(layout: str) -> int:
    return 1 if layout == "NCHW" else 3


def reject_quantised(op: Op) -> Iterator[str]:
    """Faults for quantised operands of an op that is defined on reals only."""
    for value in op.inputs:
        if value.type.quant is not None:
            yield f"operand {value.name!r} is quantised; put quant.dequantize before it"


def check_same_dtype(op: Op, operands: Iterable[object] | None = None) -> Iterator[str]:
    """Faults where operands (all of them, or those given) differ in element type."""
    values = op.inputs if operands is None else [v for v in operands if v is not None]
    found = list(dict.fromkeys(v.type.dtype for v in values))  # type: ignore[attr-defined]
    if len(found) > 1:
        yield f"operands must have one element type, not {', '.join(map(str, found))}"


def check_axis(axis: int, rank: int, name: str = "axis") -> Iterator[str]:
    """A fault where an axis, counted from either end, is none of `rank`; a single number has axis 0."""
    if not -rank <= axis < max(rank, 1):
        yield f"{name} {axis} is out of range for rank {rank}"


def check_has_axes(op: Op) -> Iterator[str]:
    """A fault where the first operand is a single number."""
    first = op.inputs[0]
    if first.type.rank == 0:
        yield f"operand {first.name!r} must have at least one axis"


def normalize_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes counted from the front, sorted; all of them where `axes` is empty."""
    return tuple(sorted(a % rank for a in axes)) if axes and rank else tuple(range(rank))


def check_positive(name: str, values: Iterable[int], least: int = 1) -> Iterator[str]:
    listed = tuple(values)
    if any(v < least for v in listed):
        yield f"{name} must be at least {least}, not {list(listed)}"


def check_vector(name: str, value: object, length: Dimension) -> Iterator[str]:
    """A fault where an optional one-dimensional operand has not `length` elements."""
    if value is not None and not same(value.type.shape[0], length):  # type: ignore[attr-defined]
        yield f"{name} has {value.type.shape[0]} elements, expected {length}"  # type: ignore[attr-defined]
