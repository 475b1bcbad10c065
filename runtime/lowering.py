"""Instruction rows → operations: addresses become offsets in the arena, geometry and kernels are chosen.

One function per instruction. Rows must have passed `check`; nothing is verified here. The work is done per opcode on
columns where it is uniform (footprints) and per row where kernels differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from compiler import numerics
from runtime.kernels import layout as L  # noqa: N812
from runtime.operations import Access, Geometry, Operation, Placed, Rows, Vector
from targets.mlu220 import isa
from targets.mlu220.container import DeviceFunction
from targets.mlu220.isa_fields import f32_bits

ABSENT = -1


@dataclass
class Spaces:
    """Where every memory of a device function lies in the arena: per core NRAM and WRAM, then the shared ones."""

    nram: list[int]
    wram: list[int]
    sram: int
    workspace: int
    constants: int
    inputs: list[int]
    outputs: list[int]
    constants_size: int = 0

    def is_constant(self, first: int, end: int) -> bool:
        """Whether a range of the arena lies in the constants."""
        return self.constants <= first and end <= self.constants + self.constants_size

    def is_read_only(self, offset: int) -> bool:
        """Whether a place in the arena belongs to the constants or to an input; inputs lie before outputs."""
        if self.is_constant(offset, offset + 1):
            return True
        return bool(self.inputs) and self.inputs[0] <= offset < min(self.outputs, default=offset + 1)

    def offset(self, space: int, core: int) -> int:
        """Arena offset of the first byte of `space` as core `core` sees it."""
        if space == isa.NRAM:
            return self.nram[core]
        if space == isa.WRAM:
            return self.wram[core]
        if isa.is_input(space):
            return self.inputs[space - isa.INPUT]
        if isa.is_output(space):
            return self.outputs[space - isa.OUTPUT]
        return {isa.SRAM: self.sram, isa.WORKSPACE: self.workspace, isa.CONSTANTS: self.constants}[space]


@dataclass
class _Context:
    """What a builder needs besides the row: base offsets of the core's memories and the file's rounding."""

    spaces: Spaces
    core: int
    half_away: bool

    @property
    def nram(self) -> int:
        return self.spaces.nram[self.core]

    @property
    def wram(self) -> int:
        return self.spaces.wram[self.core]


def lower(function: DeviceFunction, order: np.ndarray, spaces: Spaces, rounding: str) -> list[Operation]:
    """The operations of a checked function in the serial order of its proof; control instructions vanish."""
    by_core: dict[int, list[Operation | None]] = {}
    for core in np.unique(order[:, 0]).tolist():
        program = function.programs[function.cores if core == isa.MEMORY_CORE else core]
        context = _Context(spaces, core if core < len(spaces.nram) else 0, rounding == numerics.HALF_AWAY)
        by_core[core] = _lower_program(program, core, context)
    operations = (by_core[core][row] for core, row in order.tolist())
    return [operation for operation in operations if operation is not None]


def _lower_program(program: np.ndarray, core: int, context: _Context) -> list[Operation | None]:
    result: list[Operation | None] = [None] * len(program)
    for spec, index in isa.groups(program):
        builder = _BUILDERS.get(spec.opcode)
        if builder is None:
            continue
        rows = program[index]
        fields = list(spec.layout)
        columns = [rows[:, spec.column(name)].tolist() for name in fields]
        reads, writes = _accesses(spec.footprints(rows), len(index), context)
        work = spec.work(isa.Columns(spec, rows)).tolist()
        for k, (row, values) in enumerate(zip(index.tolist(), zip(*columns, strict=True), strict=True)):
            operation = builder(SimpleNamespace(**dict(zip(fields, values, strict=True))), context)
            operation.reads, operation.writes, operation.work = reads[k], writes[k], work[k]
            operation.core, operation.row = core, row
            result[row] = operation
    return result


def _accesses(accesses: isa.Accesses, count: int, context: _Context) -> tuple[list[list[Access]], list[list[Access]]]:
    """(reads, writes) of every row, in arena offsets."""
    reads: list[list[Access]] = [[] for _ in range(count)]
    writes: list[list[Access]] = [[] for _ in range(count)]
    lists = (
        accesses.row.tolist(), accesses.space.tolist(), accesses.base.tolist(), accesses.run.tolist(),
        accesses.counts.tolist(), accesses.strides.tolist(), accesses.write.tolist(),
    )  # fmt: skip
    for row, space, base, run, counts, strides, write in zip(*lists, strict=True):
        access = Access(context.spaces.offset(space, context.core) + base, run, tuple(counts), tuple(strides))
        (writes if write else reads)[row].append(access)
    return reads, writes


# -- moving ------------------------------------------------------------------------------------------------------------
def _operation(kernel: str, words: dict[int, int], **values: object) -> Operation:
    return Operation(kernel=kernel, words=words, reads=[], writes=[], work=0.0, **values)  # type: ignore[arg-type]


def _loops(counts: list[int], *strides: list[int]) -> tuple[list[int], ...]:
    """Nested loops with the ones that turn once dropped, so that the outermost loop is the one chunks cut."""
    kept = [k for k in range(3) if counts[k] > 1]
    padding = [1] * (3 - len(kept))
    return ([counts[k] for k in kept] + padding, *[[s[k] for k in kept] + [0] * len(padding) for s in strides])


def _copy(f: SimpleNamespace, context: _Context) -> Operation:
    counts, dst, src = _loops(
        [f.n0, f.n1, f.n2],
        [f.dst_stride0, f.dst_stride1, f.dst_stride2],
        [f.src_stride0, f.src_stride1, f.src_stride2],
    )
    run = f.run
    while counts[0] > 1:  # runs that touch become one
        last = max(k for k in range(3) if counts[k] > 1)
        if dst[last] != run or src[last] != run:
            break
        run *= counts[last]
        counts[last], dst[last], src[last] = 1, 0, 0
    words = {
        L.DST: context.spaces.offset(f.dst_space, context.core) + f.dst,
        L.SRC: context.spaces.offset(f.src_space, context.core) + f.src,
        L.RUN: run, L.N0: counts[0], L.N1: counts[1], L.N2: counts[2], L.DST0: dst[0], L.DST1: dst[1], L.DST2: dst[2],
        L.SRC0: src[0], L.SRC1: src[1], L.SRC2: src[2],
    }  # fmt: skip
    return _operation("copy", words)


def _fill(f: SimpleNamespace, context: _Context) -> Operation:
    counts, dst = _loops([f.n0, f.n1, f.n2], [f.dst_stride0, f.dst_stride1, f.dst_stride2])
    words = {
        L.DST: context.nram + f.dst, L.SIZE: f.element_size, L.VALUE: f.value, L.RUN: f.run, L.N0: counts[0],
        L.N1: counts[1], L.N2: counts[2], L.DST0: dst[0], L.DST1: dst[1], L.DST2: dst[2],
    }  # fmt: skip
    return _operation("fill", words)


def _reshape_filter(f: SimpleNamespace, context: _Context) -> Operation:
    words = {
        L.DST: context.wram + f.dst, L.SRC: context.nram + f.src, L.PIXELS: f.co, L.COLUMNS: f.ci,
        L.SIZE: L.SIZES[f.filter_type], L.SRC_ROW: f.src_pitch, L.ORDER: f.order,
    }  # fmt: skip
    return _operation("reshape_filter", words)


def _transpose(f: SimpleNamespace, context: _Context) -> Operation:
    words = {
        L.DST: context.nram + f.dst, L.SRC: context.nram + f.src, L.PIXELS: f.rows, L.COLUMNS: f.columns,
        L.SIZE: f.element_size, L.SRC_ROW: f.src_pitch, L.DST_ROW: f.dst_pitch,
    }  # fmt: skip
    return _operation("transpose", words)


def _reduce(f: SimpleNamespace, context: _Context) -> Operation:
    words = {
        L.DST: context.nram + f.dst, L.SRC: context.nram + f.src, L.PIXELS: f.rows, L.COLUMNS: f.count,
        L.SRC_ROW: f.src_pitch, L.SRC_TYPE: f.dtype, L.FUNCTION_CODE: f.function,
    }  # fmt: skip
    return _operation("reduce", words)


# -- windows -----------------------------------------------------------------------------------------------------------
def _window(
    f: SimpleNamespace, context: _Context, dilation_y: int, dilation_x: int, columns: int
) -> tuple[dict[int, int], Geometry]:
    height = isa.output_size(f.h, f.kh, f.stride_y, dilation_y)
    width = isa.output_size(f.w, f.kw, f.stride_x, dilation_x)
    words = {
        L.SRC: context.nram + f.src, L.SRC_ROW: f.src_row_pitch, L.SRC_PIXEL: f.src_pixel_pitch,
        L.STRIDE_Y: f.stride_y, L.STRIDE_X: f.stride_x,
    }  # fmt: skip
    return words, Geometry(height, width, columns)


def _on_floats(
    kernel: str, f: SimpleNamespace, context: _Context, words: dict[int, int], geometry: Geometry
) -> Operation:
    """A window instruction of the vector unit."""
    words |= {L.SRC_TYPE: f.dtype, L.KH: f.kh, L.KW: f.kw}
    target = Placed(context.nram + f.dst, f.dst_row_pitch, f.dst_pixel_pitch, f.dtype)
    return _operation(kernel, words, geometry=geometry, target=target)


def _depthwise(f: SimpleNamespace, context: _Context) -> Operation:
    words, geometry = _window(f, context, f.dilation_y, f.dilation_x, f.c)
    words |= {L.DILATION_Y: f.dilation_y, L.DILATION_X: f.dilation_x, L.WEIGHTS: context.nram + f.filters}
    return _on_floats("depthwise", f, context, words, geometry)


def _pool(f: SimpleNamespace, context: _Context) -> Operation:
    words, geometry = _window(f, context, 1, 1, f.c)
    factor = f32_bits(float(numerics.mean_factor(f.kh * f.kw)))
    words |= {L.FUNCTION_CODE: f.function, L.WINDOW_FACTOR: factor}
    return _on_floats("pool", f, context, words, geometry)


def _conv(f: SimpleNamespace, context: _Context) -> Operation:
    words, geometry = _window(f, context, f.dilation_y, f.dilation_x, f.co)
    wide = f.src_type or f.filter_type
    padded = isa.padded_k(f.kh, f.kw, f.ci, f.filter_type, f.runs)
    words |= {
        L.FILTERS: context.wram + f.filters, L.FIX_FACTOR: f32_bits(float(numerics.power_of_two(f.fix_position))),
        L.PARTIAL: f.partial, L.PARTIAL_SUMS: context.nram + f.partial_sums, L.FILTER_TYPE: f.filter_type,
        L.SRC_TYPE: f.src_type,
        L.K_STEPS: padded // isa.run_unit(f.filter_type), L.PANEL_BYTES: padded * L.SIZES[f.filter_type] * L.PANEL,
    }  # fmt: skip
    table = (
        f.kh, f.kw, f.ci, f.runs, f.filter_type, L.SIZES[f.src_type], f.src_row_pitch * f.dilation_y,
        f.src_pixel_pitch * f.dilation_x,
    )  # fmt: skip
    stores = f.partial in (isa.Partial.NONE, isa.Partial.LAST)
    target = Placed(context.nram + f.dst, f.dst_row_pitch, f.dst_pixel_pitch, f.dst_type) if stores else None
    return _operation("conv_wide" if wide else "conv", words, geometry=geometry, target=target, table=table)


def offset_table(key: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(byte offsets of the activations of every step of K, int32; byte masks of the filters of every step, int32).

    `key` is `Operation.table`: kernel, channels, runs, filter type, activation size, row and pixel distance of taps.
    """
    kh, kw, ci, runs, filter_type, size, row, pixel = key
    unit = isa.run_unit(filter_type)
    _, length = isa.conv_runs(kh, kw, ci, runs)
    steps = -(-length // unit)
    starts = [ky * row + (kx * pixel if runs else 0) for ky in range(kh) for kx in range(kw if runs else 1)]
    offsets = np.add.outer(np.array(starts), np.arange(steps) * unit * size).reshape(-1)
    left = min(unit, length - (steps - 1) * unit) * L.SIZES[filter_type]
    masks = np.full(steps, -1, np.int64)
    masks[-1] = -1 if left == 4 else (1 << (8 * left)) - 1
    return offsets.astype(np.int32), np.tile(masks, len(starts)).astype(np.int32)


# -- elementwise -------------------------------------------------------------------------------------------------------
def _binary(f: SimpleNamespace, context: _Context) -> Operation:
    second = Rows(context.nram + f.b, f.b_pitch, f.dtype) if f.mode != L.CONST else None
    return _vector(
        Vector(
            rows=f.rows, count=f.count, source=Rows(context.nram + f.a, f.a_pitch, f.dtype),
            target=Rows(context.nram + f.dst, f.dst_pitch, f.dtype), kind=f.function, mode=f.mode, second=second,
            period=min(f.period, f.count), constant=f.constant, rounded=f.dtype == L.TYPE_F16,
        ),
        context,
    )  # fmt: skip


def _unary(f: SimpleNamespace, context: _Context) -> Operation:
    return _vector(
        Vector(
            rows=f.rows, count=f.count, source=Rows(context.nram + f.src, f.src_pitch, f.dtype),
            target=Rows(context.nram + f.dst, f.dst_pitch, f.dtype), kind=L.UNARY_BASE + f.function,
            constant=f.parameter, rounded=f.dtype == L.TYPE_F16,
        ),
        context,
    )  # fmt: skip


def _convert(f: SimpleNamespace, context: _Context) -> Operation:
    from_float, to_float = (t in (L.TYPE_F16, L.TYPE_F32) for t in (f.src_type, f.dst_type))
    source_factor = 1.0 if from_float else float(numerics.power_of_two(f.position))
    target_factor = 1.0 if to_float else float(numerics.power_of_two(-f.position))
    return _vector(
        Vector(
            rows=f.rows, count=f.count, source=Rows(context.nram + f.src, f.src_pitch, f.src_type),
            target=Rows(context.nram + f.dst, f.dst_pitch, f.dst_type), kind=L.NOTHING,
            rounded=f.dst_type == L.TYPE_F16, source_factor=source_factor, target_factor=target_factor,
        ),
        context,
    )  # fmt: skip


def _vector(vector: Vector, context: _Context) -> Operation:
    """An elementwise operation on its own. Its store rounds, so a step that only rounds is not needed."""
    operation = _operation("elementwise", {L.ROUNDING: int(context.half_away)}, vector=vector)
    place_alone(operation)
    return operation


def place_alone(operation: Operation) -> None:
    """Set words and steps of an elementwise operation in the geometry in which it is fastest."""
    vector = operation.vector
    assert vector is not None
    place_vector(operation, vector.natural)
    if vector.kind != L.NOTHING:
        step = vector.step(vector.natural)
        assert step is not None
        operation.steps = [step]


def place_vector(operation: Operation, geometry: Geometry) -> None:
    """Set source and target words of an elementwise operation for a geometry that its vector can be expressed in."""
    vector = operation.vector
    assert vector is not None
    source, target = vector.place(vector.source, geometry), vector.place(vector.target, geometry)
    assert source is not None and target is not None
    operation.geometry, operation.target, operation.target_factor = geometry, target, vector.target_factor
    operation.words |= {
        L.SRC: source.offset, L.SRC_TYPE: source.type, L.SRC_ROW: source.row, L.SRC_PIXEL: source.pixel,
        L.SRC_FACTOR: f32_bits(vector.source_factor),
    }  # fmt: skip


_BUILDERS: dict[int, Callable[[SimpleNamespace, _Context], Operation]] = {
    isa.Copy.opcode: _copy,
    isa.Fill.opcode: _fill,
    isa.Conv.opcode: _conv,
    isa.Binary.opcode: _binary,
    isa.Unary.opcode: _unary,
    isa.Convert.opcode: _convert,
    isa.Pool.opcode: _pool,
    isa.Depthwise.opcode: _depthwise,
    isa.Reduce.opcode: _reduce,
    isa.Transpose.opcode: _transpose,
    isa.ReshapeFilter.opcode: _reshape_filter,
}
