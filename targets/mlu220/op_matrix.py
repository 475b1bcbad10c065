"""The integer products of the matrix unit: convolutions, fully connected layers among them as convolutions of 1x1, and
products of two activations.

The result is the raw sum: `fp32(sum) * 2^fix_position`, rounded to the result's type; scales and bias are further ops
(docs/mlu220.md 1.7).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from compiler.evaluate.registry import evaluator
from compiler.ir.define import Bool, DTypeKind, Int, IntPair, IntQuad, attr, op, operand, result
from compiler.ir.types import DType, TensorType
from targets.mlu220 import isa
from targets.mlu220.boxes import Box, Interval, View, cut, window_box
from targets.mlu220.op_base import FILTERS, Emitter, MluOp, as_type, spatial

TYPE_CODES = {
    DType.I8: isa.Type.I8, DType.I16: isa.Type.I16, DType.F16: isa.Type.F16, DType.F32: isa.Type.F32,
}  # fmt: skip


MOST_PIXELS = 8
"""Most pixels that a convolution of few channels computes as one."""

BYTE_STEPS = 1 / 8
"""Steps of the matrix unit that a byte more of filters must save at least: about twice what four cores do while it
comes from DDR."""

SPLIT_UNIT = 32
"""Input channels are split at multiples of this: what a lane of the matrix unit takes per cycle (docs/mlu220.md 1.2
[I])."""


@op("mlu.conv2d")
class Conv2d(MluOp):
    """Integer convolution. x: [n, h, w, ci] i8 or i16; w: [co, kh, kw, ci/groups] i8 or i16; y: [n, oh, ow, co] `to`.

    y = to(fp32(sum) * 2^fix_position); the sum is exact. Source: `__bang_conv`.
    """

    unit = "matrix"
    x = operand(rank=4, dtypes=(DType.I8, DType.I16))
    w = operand(rank=4, dtypes=(DType.I8, DType.I16))
    strides = attr(IntPair, default=(1, 1))
    pads = attr(IntQuad, default=(0, 0, 0, 0))
    dilations = attr(IntPair, default=(1, 1))
    groups = attr(Int, default=1)
    fix_position = attr(Int)
    to = attr(DTypeKind, default=DType.F16)
    splits = attr(
        Int, default=1, doc="parts of the input channels whose filters fit WRAM; sums stay integers between them"
    )
    y = result()

    def check(self) -> Iterable[str]:
        x, w = self.x.type, self.w.type
        if x.shape[3] != w.shape[3] * self.groups:
            yield f"input has {x.shape[3]} channels, weights expect {w.shape[3] * self.groups}"
        if w.shape[0] % self.groups:
            yield f"{w.shape[0]} output channels do not divide into {self.groups} groups"
        if x.dtype is DType.I8 and w.dtype is DType.I16:
            yield "i8 input with i16 weights is not a mode of the matrix unit"
        if self.splits < 1 or (self.splits > 1 and self.groups > 1):
            yield f"{self.splits} splits of {self.groups} groups"
        if self.to not in (DType.F16, DType.F32):
            yield f"the matrix unit writes f16 or f32, not {self.to}"

    def infer(self) -> TensorType:
        oh, ow = spatial(self.x.type, self.w.type.shape[1:3], self.strides, self.pads, self.dilations)
        return TensorType((self.x.type.shape[0], oh, ow, self.w.type.shape[0]), self.to)

    def input_boxes(self, box: Box) -> list[Box | None]:
        n, h, w, c = box
        _, kh, kw, _ = self.w.type.shape
        top, left, _, _ = self.pads
        x = (
            n,
            window_box(h, kh, self.strides[0], self.dilations[0], top),
            window_box(w, kw, self.strides[1], self.dilations[1], left),
            (0, self.x.type.shape[3]),
        )
        return [x, (c, (0, kh), (0, kw), (0, self.w.type.shape[3]))]

    def pad_value(self, index: int) -> float | None:
        return 0.0 if index == 0 else None

    def parameter(self, index: int) -> str | None:
        return FILTERS if index == 1 else None

    @property
    def runs(self) -> isa.Runs:
        """How a window is read: whole rows where they are contiguous, else tap by tap."""
        dense = self.dilations[1] == 1 and self.groups == 1 and self.splits == 1
        return isa.Runs.ROW if dense else isa.Runs.TAP

    @property
    def pieces(self) -> list[Interval]:
        """The input channels of each split: equal multiples of the lanes' 32 bytes, the last one smaller."""
        ci = self.w.type.static_shape[3]
        if self.splits == 1:
            return [(0, ci)]
        return cut((0, ci), -(-ci // (self.splits * SPLIT_UNIT)) * SPLIT_UNIT)

    @property
    def most_pixels(self) -> int:
        """How many neighbouring pixels are best computed as one of as many times the channels, so that the lanes of the
        matrix unit are filled: for the fewest steps, larger filters counted in."""
        n, oh, ow, co = self.y.type.static_shape
        if self.groups > 1 or self.splits > 1 or self.dilations[1] > 1:
            return 1
        most = min(MOST_PIXELS, isa.LANES // co, ow)
        cost = {
            pixels: n * oh * -(-ow // pixels) * self._steps(pixels) + BYTE_STEPS * self.filter_bytes(co, pixels=pixels)
            for pixels in range(1, most + 1)
        }
        return min(cost, key=cost.__getitem__, default=1)

    def _steps(self, pixels: int) -> int:
        """Steps of a lane of the matrix unit per window of so many pixels."""
        _, kh, _, ci = self.w.type.static_shape
        wide = max(self.x.type.dtype.size, self.w.type.dtype.size)
        return kh * -(-self.window_width(pixels) * ci * wide // SPLIT_UNIT)

    def window_width(self, pixels: int) -> int:
        """Columns of the window of so many pixels side by side."""
        return self.w.type.static_shape[2] + (pixels - 1) * self.strides[1]

    def filters_of(self, pixels: int) -> np.ndarray:
        """Filters of so many pixels computed as one: those of every pixel, zero where others' windows are."""
        w = self.w.data
        if pixels == 1:
            return w
        co, kh, kw, ci = w.shape
        found = np.zeros((pixels, co, kh, self.window_width(pixels), ci), w.dtype)
        for pixel in range(pixels):
            first = pixel * self.strides[1]
            found[pixel, :, :, first : first + kw] = w
        return found.reshape(pixels * co, *found.shape[2:])

    def filter_bytes(self, channels: int, piece: Interval | None = None, pixels: int = 1) -> int:
        """WRAM bytes of the filters of `channels` output channels (all groups), of one split's input channels or of
        all, for so many pixels as one."""
        kh, kw = self.w.type.static_shape[1], self.window_width(pixels)
        code, co = TYPE_CODES[self.w.type.dtype], pixels * channels // self.groups
        pieces = self.pieces if piece is None else [piece]
        sizes = (isa.filter_bytes(co, kh, kw, high - low, code, self.runs) for low, high in pieces)
        return sum(map(int, sizes)) * self.groups

    @property
    def macs(self) -> int:
        """Multiply-adds of the whole result."""
        _, kh, kw, ci = self.w.type.static_shape
        return self.result.type.elements * kh * kw * ci

    def emit_split(self, emitter: Emitter, out: View, x: View, load: Callable[[Interval], View], sums: View) -> None:
        """Write a tile as a chain of partial sums in `sums`; `load` brings the filters of a split to WRAM."""
        chain = [isa.Partial.FIRST, *[isa.Partial.MIDDLE] * (len(self.pieces) - 2), isa.Partial.LAST]
        for piece, partial in zip(self.pieces, chain, strict=True):
            filters = load(piece)
            last = partial is isa.Partial.LAST
            reads = [x.slot, filters.slot] + ([sums.slot] if partial is not isa.Partial.FIRST else [])
            for n in range(out.shape[0]):
                instruction = self._instruction(
                    out.at(0, n),
                    x.at(0, n).sub((0, 0, 0, piece[0]), (1, *x.shape[1:3], piece[1] - piece[0])),
                    filters.address,
                    partial=partial, partial_sums=sums.at(0, n).address,
                )  # fmt: skip
                emitter.add(instruction, [sums.slot, *([out.slot] if last else [])], reads)

    def _instruction(self, out: View, x: View, filters: int, pixels: int = 1, **partial: int) -> isa.Conv:
        """The convolution of one image of one group: views of exactly its input and output channels."""
        return isa.Conv(
            dst=out.address, src=x.address, filters=filters,
            ci=x.shape[3], h=x.shape[1], w=x.shape[2], kh=self.w.type.shape[1], kw=self.window_width(pixels),
            stride_y=self.strides[0], stride_x=pixels * self.strides[1],
            dilation_y=self.dilations[0], dilation_x=self.dilations[1], co=pixels * out.shape[3],
            src_row_pitch=x.strides[1], src_pixel_pitch=x.strides[2],
            dst_row_pitch=out.strides[1], dst_pixel_pitch=pixels * out.strides[2],
            fix_position=self.fix_position,
            src_type=TYPE_CODES[x.dtype], filter_type=TYPE_CODES[self.w.type.dtype],
            dst_type=TYPE_CODES[out.dtype], runs=self.runs, **partial,
        )  # fmt: skip

    def _emit_pixels(self, emitter: Emitter, out: View, x: View, filters: View, pixels: int) -> None:
        """Several pixels as one; those left over at the end of a row are computed together with some before them once
        more."""
        width = out.shape[2]
        whole = [(0, width // pixels * pixels)] + [(width - pixels, pixels)] * (width % pixels > 0)
        for n, (first, columns) in itertools.product(range(out.shape[0]), whole):
            taken = (columns // pixels - 1) * pixels * self.strides[1] + self.window_width(pixels)
            instruction = self._instruction(
                out.sub((n, 0, first, 0), (1, out.shape[1], columns, out.shape[3])),
                x.sub((n, 0, first * self.strides[1], 0), (1, x.shape[1], taken, x.shape[3])),
                filters.address, pixels,
            )  # fmt: skip
            emitter.add(instruction, [out.slot], [x.slot, filters.slot])

    def emit_tile(self, emitter: Emitter, out: View, inputs: Sequence[View | None]) -> None:
        x, filters = inputs[0], inputs[1]
        assert x is not None and filters is not None
        pixels = filters.shape[0] // out.shape[3]
        if pixels > 1:
            self._emit_pixels(emitter, out, x, filters, pixels)
            return
        ci = self.w.type.static_shape[3]
        channels = out.shape[3] // self.groups
        slab = self.filter_bytes(out.shape[3]) // self.groups
        for n in range(out.shape[0]):
            for g in range(self.groups):
                instruction = self._instruction(
                    out.sub((n, 0, 0, g * channels), (1, *out.shape[1:3], channels)),
                    x.sub((n, 0, 0, g * ci), (1, *x.shape[1:3], ci)),
                    filters.address + g * slab,
                )
                emitter.add(instruction, [out.slot], [x.slot, filters.slot])


@op("mlu.matmul")
class Matmul(MluOp):
    """Integer product of two activations. a: [..., m, k]; b: [..., k, n], or [..., n, k] with `transpose_b`.

    y: [..., m, n] `to`; leading axes are equal or 1.
    y = to(fp32(sum) * 2^fix_position); the sum is exact. b is brought to WRAM matrix by matrix. Source:
    `__bang_reshape_filter`, `__bang_mlp`.
    """

    unit = "matrix"
    a = operand(dtypes=(DType.I8, DType.I16))
    b = operand(dtypes=(DType.I8, DType.I16))
    transpose_b = attr(Bool, default=False)
    fix_position = attr(Int)
    to = attr(DTypeKind, default=DType.F16)
    y = result()

    def check(self) -> Iterable[str]:
        a, b = self.a.type.static_shape, self.b.type.static_shape
        if len(a) != len(b) or len(a) < 2:
            yield f"operands of rank {len(a)} and {len(b)}: both must have the same rank of at least 2"
            return
        if a[-1] != b[self.k_axis]:
            yield f"a has {a[-1]} columns, b expects {b[self.k_axis]}"
        if any(p != q and 1 not in (p, q) for p, q in zip(a[:-2], b[:-2], strict=True)):
            yield f"leading axes {list(a[:-2])} and {list(b[:-2])} do not go together"
        if self.a.type.dtype is DType.I8 and self.b.type.dtype is DType.I16:
            yield "i8 by i16 is not a mode of the matrix unit"
        if self.to not in (DType.F16, DType.F32):
            yield f"the matrix unit writes f16 or f32, not {self.to}"

    @property
    def k_axis(self) -> int:
        """The axis of b that is summed over."""
        return -1 if self.transpose_b else -2

    def infer(self) -> TensorType:
        a, b = self.a.type.static_shape, self.b.type.static_shape
        leading = (max(p, q) for p, q in zip(a[:-2], b[:-2], strict=True))
        return TensorType((*leading, a[-2], b[-2 if self.transpose_b else -1]), self.to)

    def input_boxes(self, box: Box) -> list[Box | None]:
        *leading, m, n = box
        a, b = self.a.type.static_shape, self.b.type.static_shape
        k = (0, a[-1])

        def repeated(shape: tuple[int, ...]) -> Box:
            return tuple((0, 1) if d == 1 else interval for d, interval in zip(shape, leading, strict=False))

        return [(*repeated(a), m, k), (*repeated(b), *((n, k) if self.transpose_b else (k, n)))]

    def filter_bytes(self, channels: int) -> int:
        """WRAM bytes of `channels` columns of one matrix b."""
        code = TYPE_CODES[self.b.type.dtype]
        return int(isa.filter_bytes(channels, 1, 1, self.a.type.static_shape[-1], code, isa.Runs.TAP))

    @property
    def macs(self) -> int:
        """Multiply-adds of the whole result."""
        return self.result.type.elements * self.a.type.static_shape[-1]

    def emit_product(
        self, emitter: Emitter, out: View, inputs: Sequence[View | None], filters: Callable[[int], View]
    ) -> None:
        """Write a tile matrix by matrix; `filters` gives the place in WRAM for the nth b."""
        a, b = inputs[0], inputs[1]
        assert a is not None and b is not None
        place, count, held = None, 0, None
        for index in np.ndindex(*out.shape[:-2]):
            y, x = _matrix(out, index), _matrix(a, index)
            other = _matrix(b, index)
            if place is None or other.address != held:
                place, held, count = filters(count), other.address, count + 1
                emitter.add(self._reshape(place, other), [place.slot], [other.slot])
            emitter.add(self._product(y, x, place), [y.slot], [x.slot, place.slot])

    def _reshape(self, place: View, b: View) -> isa.ReshapeFilter:
        rows, columns = b.shape
        co, ci = (rows, columns) if self.transpose_b else (columns, rows)
        order = isa.FilterOrder.CHANNELS if self.transpose_b else isa.FilterOrder.K
        return isa.ReshapeFilter(
            dst=place.address, src=b.address, co=co, ci=ci, src_pitch=b.strides[0], filter_type=TYPE_CODES[b.dtype],
            order=order,
        )  # fmt: skip

    def _product(self, y: View, a: View, filters: View) -> isa.Conv:
        """A matrix product as a convolution of 1x1 over one row of m pixels."""
        return isa.Conv(
            dst=y.address, src=a.address, filters=filters.address, ci=a.shape[1], h=1, w=a.shape[0], kh=1, kw=1,
            co=y.shape[1], src_row_pitch=0, src_pixel_pitch=a.strides[0], dst_row_pitch=0, dst_pixel_pitch=y.strides[0],
            fix_position=self.fix_position, src_type=TYPE_CODES[a.dtype], filter_type=TYPE_CODES[self.b.type.dtype],
            dst_type=TYPE_CODES[y.dtype], runs=isa.Runs.TAP,
        )  # fmt: skip


def _matrix(view: View, index: Sequence[int]) -> View:
    """The matrix of the last two axes at an index of the leading ones; axes of 1 stand for every index."""
    address = view.address + sum(i * s for i, s, d in zip(index, view.strides, view.shape, strict=False) if d > 1)
    return View(view.space, address, view.shape[-2:], view.strides[-2:], view.dtype, view.slot)


@evaluator("mlu.matmul")
def evaluate_matmul(op: Matmul, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    bound = a.shape[-1] << (a.itemsize * 8 + b.itemsize * 8 - 2)
    real = np.float32 if bound <= 1 << 24 else np.float64
    second = np.swapaxes(b, -1, -2) if op.transpose_b else b
    sums = np.matmul(a.astype(real), second.astype(real)).astype(np.int64)
    return as_type(sums.astype(np.float32) * np.float32(np.ldexp(1.0, op.fix_position)), op.to)


@evaluator("mlu.conv2d")
def evaluate_conv2d(op: Conv2d, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    sums = integer_convolution(x, w, op.strides, op.pads, op.dilations, op.groups)
    scaled = sums.astype(np.float32) * np.float32(np.ldexp(1.0, op.fix_position))
    return as_type(scaled, op.to)


def integer_convolution(
    x: np.ndarray,
    w: np.ndarray,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> np.ndarray:
    """Exact sums, int64, of an NHWC convolution of integers: floating-point BLAS in a range where it is exact.

    A product of b-bit and c-bit integers summed over K terms is below K * 2^(b+c-2); fp32 holds integers to 2^24, fp64
    to 2^53.
    """
    n = x.shape[0]
    co, kh, kw, cg = w.shape
    bound = kh * kw * cg << (x.itemsize * 8 + w.itemsize * 8 - 2)
    real = np.float32 if bound <= 1 << 24 else np.float64
    padded = np.pad(x, ((0, 0), (pads[0], pads[2]), (pads[1], pads[3]), (0, 0)))
    oh = (padded.shape[1] - (kh - 1) * dilations[0] - 1) // strides[0] + 1
    ow = (padded.shape[2] - (kw - 1) * dilations[1] - 1) // strides[1] + 1
    out = np.zeros((n, oh, ow, co), np.int64)
    per_group = co // groups
    for g in range(groups):
        block = np.empty((n, oh, ow, kh * kw * cg), real)
        for ky in range(kh):
            for kx in range(kw):
                rows = slice(ky * dilations[0], ky * dilations[0] + (oh - 1) * strides[0] + 1, strides[0])
                columns = slice(kx * dilations[1], kx * dilations[1] + (ow - 1) * strides[1] + 1, strides[1])
                tap = (ky * kw + kx) * cg
                block[..., tap : tap + cg] = padded[:, rows, columns, g * cg : (g + 1) * cg]
        matrix = w[g * per_group : (g + 1) * per_group].reshape(per_group, -1).astype(real)
        out[..., g * per_group : (g + 1) * per_group] = (block.reshape(-1, kh * kw * cg) @ matrix.T).reshape(
            n, oh, ow, -1
        )
    return out
