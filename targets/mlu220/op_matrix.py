"""The integer convolution of the matrix unit. Matmul and fully connected layers are convolutions of 1x1 here.

The result is the raw sum: `fp32(sum) * 2^fix_position`, rounded to the result's type; scales and bias are further ops
(MLU220.md 1.7).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from compiler.evaluate.registry import evaluator
from compiler.ir.define import DTypeKind, Int, IntPair, IntQuad, attr, op, operand, result
from compiler.ir.types import DType, TensorType
from targets.mlu220 import isa
from targets.mlu220.boxes import Box, View, window_box
from targets.mlu220.op_base import FILTERS, Emitter, MluOp, as_type, spatial

TYPE_CODES = {
    DType.I8: isa.Type.I8, DType.I16: isa.Type.I16, DType.F16: isa.Type.F16, DType.F32: isa.Type.F32,
}  # fmt: skip


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
    y = result()

    def check(self) -> Iterable[str]:
        x, w = self.x.type, self.w.type
        if x.shape[3] != w.shape[3] * self.groups:
            yield f"input has {x.shape[3]} channels, weights expect {w.shape[3] * self.groups}"
        if w.shape[0] % self.groups:
            yield f"{w.shape[0]} output channels do not divide into {self.groups} groups"
        if x.dtype is DType.I8 and w.dtype is DType.I16:
            yield "i8 input with i16 weights is not a mode of the matrix unit"
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

    def parameter(self, index: int) -> str | None:
        return FILTERS if index == 1 else None

    @property
    def runs(self) -> isa.Runs:
        """How a window is read: whole rows where they are contiguous, else tap by tap."""
        return isa.Runs.ROW if self.dilations[1] == 1 and self.groups == 1 else isa.Runs.TAP

    def filter_bytes(self, channels: int) -> int:
        """WRAM bytes of the filters of `channels` output channels (all groups)."""
        _, kh, kw, ci = self.w.type.static_shape
        per_group = isa.filter_bytes(channels // self.groups, kh, kw, ci, TYPE_CODES[self.w.type.dtype], self.runs)
        return int(per_group) * self.groups

    def emit_tile(self, emitter: Emitter, out: View, inputs: Sequence[View | None]) -> None:
        x, filters = inputs[0], inputs[1]
        assert x is not None and filters is not None
        kh, kw, ci = self.w.type.static_shape[1:]
        channels = out.shape[3] // self.groups
        slab = self.filter_bytes(out.shape[3]) // self.groups
        for n in range(out.shape[0]):
            for g in range(self.groups):
                instruction = isa.Conv(
                    dst=out.address + n * out.strides[0] + g * channels * out.itemsize,
                    src=x.address + n * x.strides[0] + g * ci * x.itemsize,
                    filters=filters.address + g * slab,
                    ci=ci, h=x.shape[1], w=x.shape[2], kh=kh, kw=kw,
                    stride_y=self.strides[0], stride_x=self.strides[1],
                    dilation_y=self.dilations[0], dilation_x=self.dilations[1], co=channels,
                    src_row_pitch=x.strides[1], src_pixel_pitch=x.strides[2],
                    dst_row_pitch=out.strides[1], dst_pixel_pitch=out.strides[2],
                    fix_position=self.fix_position,
                    src_type=TYPE_CODES[x.dtype], filter_type=TYPE_CODES[self.w.type.dtype],
                    dst_type=TYPE_CODES[out.dtype], runs=self.runs,
                )  # fmt: skip
                emitter.add(instruction, [out.slot], [x.slot, filters.slot])


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
