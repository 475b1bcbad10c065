"""The ops of the vector unit: elementwise arithmetic, activations, conversion, pooling, depthwise convolution,
reduction.

Each is one fp32 operation on its inputs, rounded once to its type; bodies come from `compiler.numerics`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from compiler import numerics
from compiler.evaluate.registry import evaluator
from compiler.ir.core import Op
from compiler.ir.define import Choice, DTypeKind, Float, Int, IntPair, IntQuad, attr, op, operand, result
from compiler.ir.types import DType, TensorType
from targets.mlu220 import isa
from targets.mlu220.boxes import Box, Rows, View, common_loops, rows_of, window_box
from targets.mlu220.op_base import (
    FLOATS,
    TAPS,
    VECTOR,
    Emitter,
    MluOp,
    as_type,
    is_row_of,
    is_vector_of,
    single,
    spatial,
)
from targets.mlu220.op_matrix import TYPE_CODES


# -- two operands ----------------------------------------------------------------------------------------------------
class Binary(MluOp):
    """An elementwise operation. a: float; b: the same shape, one number per channel [c], one per row [..., 1], 1 in
    place of some axes of a, or absent.

    Where b is absent, attribute `constant` takes its place.
    """

    in_place = True
    a = operand(dtypes=FLOATS)
    b = operand(dtypes=FLOATS, optional=True)
    constant = attr(Float, default=None)
    y = result()

    def check(self) -> Iterable[str]:
        if (self.b is None) == (self.constant is None):
            yield "takes either a second operand or a constant"
        if self.b is not None:
            if self.a.type.dtype is not self.b.type.dtype:
                yield f"operand types differ: {self.a.type.dtype} and {self.b.type.dtype}"
            if self.mode is None and not self.is_spread:
                yield f"shape {self.b.type.shape} cannot be combined with {self.a.type.shape}"

    def infer(self) -> TensorType:
        return TensorType(self.a.type.shape, self.a.type.dtype)

    @property
    def mode(self) -> isa.Mode | None:
        """How the second operand is read; None where no one instruction covers all of it."""
        if self.b is None:
            return isa.Mode.CONST
        shape = self.a.type.shape
        if self.b.type.shape == shape:
            return isa.Mode.FULL
        if is_vector_of(self.b, shape):
            return isa.Mode.CYCLE
        return isa.Mode.ROW if is_row_of(self.b, shape) else None

    @property
    def is_spread(self) -> bool:
        """Whether the second operand has 1 instead of some axes of the first."""
        a, b = self.a.type.shape, self.b.type.shape if self.b is not None else ()
        return len(a) == len(b) and all(d in (1, full) for d, full in zip(b, a, strict=True))

    def input_boxes(self, box: Box) -> list[Box | None]:
        mode = self.mode
        if mode is None:
            return [box, tuple((0, 1) if d == 1 else one for one, d in zip(box, self.b.type.shape, strict=True))]
        second = {isa.Mode.CYCLE: box[-1:], isa.Mode.ROW: (*box[:-1], (0, 1)), isa.Mode.FULL: box}
        return [box, second.get(mode)] if len(self._operands) > 1 else [box]  # type: ignore[arg-type]

    def parameter(self, index: int) -> str | None:
        return VECTOR if index == 1 and self.mode is isa.Mode.CYCLE else None

    def emit_tile(self, emitter: Emitter, out: View, inputs: Sequence[View | None]) -> None:
        a, b = inputs[0], inputs[1] if len(inputs) > 1 else None
        assert a is not None
        mode = self.mode
        if mode is None:
            assert b is not None
            self._emit_spread(emitter, out, a, b)
            return
        views = [out, a, b] if mode is isa.Mode.FULL and b is not None else [out, a]
        for rows in _rows_with_own_operand(views) if mode is isa.Mode.ROW else rows_of(views):
            instruction = isa.Binary(
                dst=rows.addresses[0], a=rows.addresses[1],
                b=(rows.addresses[2] if len(views) == 3 else b.address if b is not None else 0),
                rows=rows.rows, count=rows.count, dst_pitch=rows.pitches[0], a_pitch=rows.pitches[1],
                b_pitch=rows.pitches[2] if len(views) == 3 else 0, dtype=TYPE_CODES[out.dtype],
                function=isa.BinaryFunction[self.op_name.partition(".")[2].upper()], mode=mode,
                period=out.shape[-1] if mode is isa.Mode.CYCLE else 0,
                constant=self.constant if self.constant is not None else 0.0,
            )  # fmt: skip
            emitter.add(instruction, [out.slot], [a.slot] + ([b.slot] if b is not None else []))

    def _emit_spread(self, emitter: Emitter, out: View, a: View, b: View) -> None:
        strides = tuple(0 if d == 1 else s for d, s in zip(b.shape, b.strides, strict=True))
        wide = View(b.space, b.address, out.shape, strides, b.dtype, b.slot)
        for mode, rows in _spread_rows([out, a, wide]):
            instruction = isa.Binary(
                dst=rows.addresses[0], a=rows.addresses[1], b=rows.addresses[2], rows=rows.rows, count=rows.count,
                dst_pitch=rows.pitches[0], a_pitch=rows.pitches[1],
                b_pitch=rows.pitches[2] if mode is isa.Mode.FULL else 0, dtype=TYPE_CODES[out.dtype],
                function=isa.BinaryFunction[self.op_name.partition(".")[2].upper()], mode=mode, period=0, constant=0.0,
            )  # fmt: skip
            emitter.add(instruction, [out.slot], [a.slot, b.slot])


def _spread_rows(views: Sequence[View]) -> Iterator[tuple[isa.Mode, Rows]]:
    """Rows of three views, the last with strides 0 along the axes it lacks, and how each row reads it."""
    loops = common_loops(views)
    size = views[0].itemsize
    count, mode = 1, isa.Mode.FULL
    if loops and loops[-1].strides in ((size, size, size), (size, size, 0)):
        last = loops.pop()
        count, mode = last.count, isa.Mode.FULL if last.strides[2] else isa.Mode.ROW
    rows, pitches = 1, (size * count,) * 3
    if loops and (mode is isa.Mode.FULL or loops[-1].strides[2] == size):
        last = loops.pop()
        rows, pitches = last.count, last.strides  # type: ignore[assignment]
    for index in itertools.product(*(range(loop.count) for loop in loops)):
        steps = [sum(i * loop.strides[k] for i, loop in zip(index, loops, strict=True)) for k in range(3)]
        yield mode, Rows(tuple(v.address + s for v, s in zip(views, steps, strict=True)), rows, count, pitches)


def _rows_with_own_operand(views: Sequence[View]) -> list[Rows]:
    """Views as rows along the last axis, never merged: each row has a number of its own as second operand."""
    flat = [_as_rows(v) for v in views]
    rows, count = flat[0].shape
    return [Rows(tuple(v.address for v in flat), rows, count, tuple(v.strides[0] for v in flat))]


def _as_rows(view: View) -> View:
    """A dense view as two axes: rows, and the last axis."""
    last = view.shape[-1]
    rows = math.prod(view.shape[:-1])
    row_loops = common_loops(
        [View(view.space, view.address, view.shape[:-1], view.strides[:-1], view.dtype, view.slot)]
    )
    if len(row_loops) > 1:
        raise ValueError("a tile of rows must be dense")
    pitch = row_loops[0].strides[0] if row_loops else last * view.itemsize
    return View(view.space, view.address, (rows, last), (pitch, view.strides[-1]), view.dtype, view.slot)


def _evaluate_binary(op: Op, a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    second = single(b) if b is not None else np.float32(op.constant)  # type: ignore[attr-defined]
    function = numerics.BINARY[op.op_name.partition(".")[2]]
    return as_type(function(single(a), np.asarray(second, np.float32)), op.result.type.dtype)


def _declare_binary(name: str, formula: str) -> type[Binary]:
    cls = type(name.capitalize(), (Binary,), {"__doc__": f"{formula}. {Binary.__doc__}", "__module__": __name__})
    evaluator(f"mlu.{name}")(_evaluate_binary)
    return op(f"mlu.{name}", traits=["commutative"] if name != "sub" else [])(cls)


BINARY_OPS = {
    name: _declare_binary(name, formula)
    for name, formula in {"add": "y = a + b", "sub": "y = a - b", "mul": "y = a * b", "max": "y = max(a, b)",
                          "min": "y = min(a, b)"}.items()
}  # fmt: skip


# -- one operand -----------------------------------------------------------------------------------------------------
class Unary(MluOp):
    """An elementwise function of the vector unit, by the fp32 polynomial of `compiler.numerics`."""

    in_place = True
    x = operand(dtypes=FLOATS)
    parameter_value = attr(Float, default=0.0)
    y = result()

    def infer(self) -> TensorType:
        return TensorType(self.x.type.shape, self.x.type.dtype)

    def emit_tile(self, emitter: Emitter, out: View, inputs: Sequence[View | None]) -> None:
        x = inputs[0]
        assert x is not None
        for rows in rows_of([out, x]):
            instruction = isa.Unary(
                dst=rows.addresses[0], src=rows.addresses[1], rows=rows.rows, count=rows.count,
                dst_pitch=rows.pitches[0], src_pitch=rows.pitches[1], dtype=TYPE_CODES[out.dtype],
                function=isa.UnaryFunction[self.op_name.partition(".")[2].upper()],
                parameter=self.parameter_value,
            )  # fmt: skip
            emitter.add(instruction, [out.slot], [x.slot])


def _evaluate_unary(op: Op, x: np.ndarray) -> np.ndarray:
    name = op.op_name.partition(".")[2]
    extra = (np.float32(op.parameter_value),) if name in numerics.PARAMETRIC else ()  # type: ignore[attr-defined]
    return as_type(numerics.UNARY[name](single(x), *extra), op.result.type.dtype)


def _declare_unary(name: str) -> type[Unary]:
    cls = type(name.capitalize(), (Unary,), {"__doc__": f"y = {name}(x). {Unary.__doc__}", "__module__": __name__})
    evaluator(f"mlu.{name}")(_evaluate_unary)
    return op(f"mlu.{name}")(cls)


UNARY_OPS = {name: _declare_unary(name) for name in numerics.UNARY}


@op("mlu.convert")
class Convert(MluOp):
    """Conversion. int to float: y = x * 2^position; float to int: y = round(x * 2^-position), clamped; float to float:
    rounded.

    Source: `__bang_half2int8_*`, `__bang_int82half` and relatives. `rounding` goes to the header of the offline model.
    """

    x = operand(dtypes=(DType.I8, DType.I16, *FLOATS))
    to = attr(DTypeKind)
    position = attr(Int, default=0)
    rounding = attr(Choice(*numerics.ROUNDINGS), default=numerics.NEAREST_EVEN)
    y = result()

    def infer(self) -> TensorType:
        return TensorType(self.x.type.shape, self.to)

    def check(self) -> Iterable[str]:
        if not self.x.type.dtype.is_float and not self.to.is_float:
            yield f"cannot convert {self.x.type.dtype} to {self.to}: one side must be f16 or f32"

    def emit_tile(self, emitter: Emitter, out: View, inputs: Sequence[View | None]) -> None:
        x = inputs[0]
        assert x is not None
        for rows in rows_of([out, x]):
            instruction = isa.Convert(
                dst=rows.addresses[0], src=rows.addresses[1], rows=rows.rows, count=rows.count,
                dst_pitch=rows.pitches[0], src_pitch=rows.pitches[1],
                src_type=TYPE_CODES[x.dtype], dst_type=TYPE_CODES[out.dtype], position=self.position,
            )  # fmt: skip
            emitter.add(instruction, [out.slot], [x.slot])


@evaluator("mlu.convert")
def evaluate_convert(op: Convert, x: np.ndarray) -> np.ndarray:
    source, target = op.x.type.dtype, op.to
    if source.is_float and target.is_float:
        return as_type(single(x), target)
    if source.is_float:
        return numerics.float_to_int(single(x), op.position, target.numpy, op.rounding)
    return as_type(numerics.int_to_float(x, op.position), target)


# -- windows ---------------------------------------------------------------------------------------------------------
@op("mlu.pool")
class Pool(MluOp):
    """Pooling. x: [n, h, w, c]; pads hold 0 (-inf for max). mean: fp32 sum in tap order times fp32(1 / (kh * kw)).

    Source: `__bang_maxpool`, `__bang_avgpool`, `__bang_sumpool`.
    """

    x = operand(rank=4, dtypes=FLOATS)
    function = attr(Choice("max", "mean", "sum"))
    kernel = attr(IntPair)
    strides = attr(IntPair, default=(1, 1))
    pads = attr(IntQuad, default=(0, 0, 0, 0))
    y = result()

    def infer(self) -> TensorType:
        n, _, _, c = self.x.type.shape
        return TensorType(
            (n, *spatial(self.x.type, self.kernel, self.strides, self.pads, (1, 1)), c), self.x.type.dtype
        )

    def input_boxes(self, box: Box) -> list[Box | None]:
        n, h, w, c = box
        (kh, kw), (sy, sx), (top, left, _, _) = self.kernel, self.strides, self.pads
        return [(n, window_box(h, kh, sy, 1, top), window_box(w, kw, sx, 1, left), c)]

    def pad_value(self, index: int) -> float:
        return -math.inf if self.function == "max" else 0.0

    def emit_tile(self, emitter: Emitter, out: View, inputs: Sequence[View | None]) -> None:
        x = inputs[0]
        assert x is not None
        for n in range(out.shape[0]):
            instruction = isa.Pool(
                dst=out.address + n * out.strides[0], src=x.address + n * x.strides[0],
                c=out.shape[3], h=x.shape[1], w=x.shape[2], kh=self.kernel[0], kw=self.kernel[1],
                stride_y=self.strides[0], stride_x=self.strides[1],
                src_row_pitch=x.strides[1], src_pixel_pitch=x.strides[2],
                dst_row_pitch=out.strides[1], dst_pixel_pitch=out.strides[2],
                dtype=TYPE_CODES[out.dtype], function=isa.PoolFunction[self.function.upper()],
            )  # fmt: skip
            emitter.add(instruction, [out.slot], [x.slot])


def _taps(
    x: np.ndarray,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    fill: float,
):
    """The shifted, strided inputs of a window, one per tap in row-major order, as fp32."""
    padded = np.pad(
        single(x), ((0, 0), (pads[0], pads[2]), (pads[1], pads[3]), (0, 0)), constant_values=np.float32(fill)
    )
    oh = (padded.shape[1] - (kernel[0] - 1) * dilations[0] - 1) // strides[0] + 1
    ow = (padded.shape[2] - (kernel[1] - 1) * dilations[1] - 1) // strides[1] + 1
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            y, z = ky * dilations[0], kx * dilations[1]
            yield padded[
                :, y : y + (oh - 1) * strides[0] + 1 : strides[0], z : z + (ow - 1) * strides[1] + 1 : strides[1]
            ]


@evaluator("mlu.pool")
def evaluate_pool(op: Pool, x: np.ndarray) -> np.ndarray:
    taps = _taps(x, op.kernel, op.strides, op.pads, (1, 1), op.pad_value(0))
    if op.function == "max":
        total = next(taps).copy()
        for tap in taps:
            total = numerics.maximum(total, tap)
        return as_type(total, op.result.type.dtype)
    total = np.zeros(op.result.type.static_shape, np.float32)
    for tap in taps:
        total += tap
    if op.function == "mean":
        total *= numerics.mean_factor(op.kernel[0] * op.kernel[1])
    return as_type(total, op.result.type.dtype)


@op("mlu.depthwise_conv2d")
class DepthwiseConv2d(MluOp):
    """Depthwise convolution in floating point. x: [n, h, w, c]; w: [kh, kw, c], the same type; y: [n, oh, ow, c].

    fp32 products and sums, each rounded, in tap order. docs/mlu220.md 1.8: not quantised on this chip.
    """

    x = operand(rank=4, dtypes=FLOATS)
    w = operand(rank=3, dtypes=FLOATS)
    strides = attr(IntPair, default=(1, 1))
    pads = attr(IntQuad, default=(0, 0, 0, 0))
    dilations = attr(IntPair, default=(1, 1))
    y = result()

    def check(self) -> Iterable[str]:
        if self.x.type.shape[3] != self.w.type.shape[2]:
            yield f"input has {self.x.type.shape[3]} channels, weights {self.w.type.shape[2]}"
        if self.x.type.dtype is not self.w.type.dtype:
            yield f"operand types differ: {self.x.type.dtype} and {self.w.type.dtype}"

    def infer(self) -> TensorType:
        oh, ow = spatial(self.x.type, self.w.type.shape[:2], self.strides, self.pads, self.dilations)
        return TensorType((self.x.type.shape[0], oh, ow, self.x.type.shape[3]), self.x.type.dtype)

    def input_boxes(self, box: Box) -> list[Box | None]:
        n, h, w, c = box
        kh, kw, _ = self.w.type.shape
        x = (
            n,
            window_box(h, kh, self.strides[0], self.dilations[0], self.pads[0]),
            window_box(w, kw, self.strides[1], self.dilations[1], self.pads[1]),
            c,
        )
        return [x, ((0, kh), (0, kw), c)]

    def pad_value(self, index: int) -> float | None:
        return 0.0 if index == 0 else None

    def parameter(self, index: int) -> str | None:
        return TAPS if index == 1 else None

    def emit_tile(self, emitter: Emitter, out: View, inputs: Sequence[View | None]) -> None:
        """Where the taps are those of several pixels side by side, that many windows one pixel apart are computed as
        one of as many times the channels. Windows left over at the end of a row are computed together with some before
        them once more."""
        x, taps = inputs[0], inputs[1]
        assert x is not None and taps is not None
        kh, kw, columns = taps.shape
        _, _, width, channels = out.shape
        pixels = columns // channels
        groups = [(0, width // pixels)] + [(width - pixels, 1)] * (width % pixels > 0)
        for n, (first, count) in itertools.product(range(out.shape[0]), groups):
            step = pixels * self.strides[1]
            instruction = isa.Depthwise(
                dst=out.address + n * out.strides[0] + first * out.strides[2],
                src=x.address + n * x.strides[0] + first * self.strides[1] * x.strides[2], filters=taps.address,
                c=columns, h=x.shape[1], w=(count - 1) * step + (kw - 1) * self.dilations[1] + 1, kh=kh, kw=kw,
                stride_y=self.strides[0], stride_x=step, dilation_y=self.dilations[0], dilation_x=self.dilations[1],
                src_row_pitch=x.strides[1], src_pixel_pitch=x.strides[2],
                dst_row_pitch=out.strides[1], dst_pixel_pitch=pixels * out.strides[2], dtype=TYPE_CODES[out.dtype],
            )  # fmt: skip
            emitter.add(instruction, [out.slot], [x.slot, taps.slot])


@evaluator("mlu.depthwise_conv2d")
def evaluate_depthwise(op: DepthwiseConv2d, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    weights = single(w).reshape(-1, w.shape[2])
    total = np.zeros(op.result.type.static_shape, np.float32)
    for tap, weight in zip(_taps(x, w.shape[:2], op.strides, op.pads, op.dilations, 0.0), weights, strict=True):
        total += tap * weight
    return as_type(total, op.result.type.dtype)


# -- reductions ------------------------------------------------------------------------------------------------------
@op("mlu.reduce")
class Reduce(MluOp):
    """Reduction over the last axis. x: [..., n] → y: [..., 1]. Sums: 16 strided partial sums in fp32, folded by a fixed
    tree."""

    x = operand(dtypes=FLOATS)
    function = attr(Choice("sum", "max", "min"))
    y = result()

    def infer(self) -> TensorType:
        return TensorType((*self.x.type.shape[:-1], 1), self.x.type.dtype)

    def input_boxes(self, box: Box) -> list[Box | None]:
        return [(*box[:-1], (0, self.x.type.shape[-1]))]  # type: ignore[list-item]

    def emit_tile(self, emitter: Emitter, out: View, inputs: Sequence[View | None]) -> None:
        x = inputs[0]
        assert x is not None
        rows = _as_rows(x)
        instruction = isa.Reduce(
            dst=out.address, src=rows.address, rows=rows.shape[0], count=rows.shape[1], src_pitch=rows.strides[0],
            dtype=TYPE_CODES[out.dtype], function=isa.ReduceFunction[self.function.upper()],
        )  # fmt: skip
        emitter.add(instruction, [out.slot], [x.slot])


@evaluator("mlu.reduce")
def evaluate_reduce(op: Reduce, x: np.ndarray) -> np.ndarray:
    return as_type(numerics.REDUCE[op.function](single(x))[..., None], op.result.type.dtype)


__all__ = ["BINARY_OPS", "UNARY_OPS", "Convert", "DepthwiseConv2d", "Pool", "Reduce"]
