"""Every instruction in plain NumPy: slow, obvious, trusted. The simulator and the evaluators are tested against this.

Memories are flat byte arrays; an operand is a strided view of one, made by the `np.ndarray` constructor, which
refuses a view that leaves its buffer. Float steps are those of `compiler.numerics`. Instructions run one at a time in
the serial order that `check` proves; memory that nothing has written holds a poison byte, so that a result which
depends on it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler import numerics
from compiler.errors import error
from targets.mlu220 import isa
from targets.mlu220.check import MemorySizes, check_function
from targets.mlu220.container_records import DeviceFunction

POISON = 0xA5


@dataclass
class Memories:
    """Every byte an instruction may touch, as flat uint8 arrays: `nram` and `wram` per core, the rest per function."""

    nram: list[np.ndarray]
    wram: list[np.ndarray]
    sram: np.ndarray
    workspace: np.ndarray
    constants: np.ndarray
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]

    @staticmethod
    def create(
        cores: int = 1,
        workspace: int = 0,
        constants: np.ndarray | None = None,
        inputs: Sequence[np.ndarray] = (),
        outputs: Sequence[int] = (),
        sizes: MemorySizes | None = None,
        poison: int = POISON,
    ) -> Memories:
        """Poisoned memories around copies of `inputs` and `constants` (any dtype); `outputs` are sizes in bytes."""
        sizes = sizes or MemorySizes()

        def poisoned(size: int) -> np.ndarray:
            return np.full(size, poison, np.uint8)

        return Memories(
            nram=[poisoned(sizes.nram) for _ in range(cores)],
            wram=[poisoned(sizes.wram) for _ in range(cores)],
            sram=poisoned(sizes.sram),
            workspace=poisoned(workspace),
            constants=_read_only(np.zeros(0, np.uint8) if constants is None else constants),
            inputs=[_read_only(x) for x in inputs],
            outputs=[poisoned(size) for size in outputs],
        )

    def space(self, space: int, core: int) -> np.ndarray:
        """The bytes that `space` names for an instruction of `core`."""
        if isa.is_input(space):
            return self.inputs[space - isa.INPUT]
        if isa.is_output(space):
            return self.outputs[space - isa.OUTPUT]
        if space in (isa.NRAM, isa.WRAM):
            return (self.nram if space == isa.NRAM else self.wram)[core]
        return {isa.SRAM: self.sram, isa.WORKSPACE: self.workspace, isa.CONSTANTS: self.constants}[space]


def _read_only(x: np.ndarray) -> np.ndarray:
    """The bytes of an array, copied, not writable."""
    return np.frombuffer(np.ascontiguousarray(x).tobytes(), np.uint8)


def run_function(
    function: DeviceFunction,
    constants: np.ndarray,
    inputs: Sequence[np.ndarray],
    order: Iterable[tuple[int, int]] | np.ndarray | None = None,
    rounding: str = numerics.NEAREST_EVEN,
    sizes: MemorySizes | None = None,
    poison: int = POISON,
) -> list[np.ndarray]:
    """The output tensors of a function as uint8 arrays, in the device's layout.

    `inputs` are arrays in the device's layout (any dtype, right number of bytes). `order` is `Proof.order`; without
    it the function is checked here. E720: inputs that do not fit the function's records.
    """
    _check_inputs(function, inputs)
    if order is None:
        order = check_function(function, int(np.asarray(constants).nbytes)).order
    memories = Memories.create(
        function.cores, function.workspace, constants, inputs, [r.bytes for r in function.outputs], sizes, poison
    )
    for core, row in np.asarray(order).tolist():
        program = function.programs[function.cores if core == isa.MEMORY_CORE else core]
        execute(program[row], core, memories, rounding)
    return memories.outputs


def _check_inputs(function: DeviceFunction, inputs: Sequence[np.ndarray]) -> None:
    if len(inputs) != len(function.inputs):
        raise error("E720", f"{function.name} takes {len(function.inputs)} inputs, {len(inputs)} were given")
    for record, array in zip(function.inputs, inputs, strict=True):
        if array.nbytes != record.bytes:
            raise error("E720", f"{function.name}: input {record.name} has {record.bytes} bytes, not {array.nbytes}")


def execute(
    instruction: isa.Instruction | np.ndarray, core: int, memories: Memories, rounding: str = numerics.NEAREST_EVEN
) -> None:
    """Run one instruction (or the row that encodes it) of `core`. Control instructions do nothing here."""
    if isinstance(instruction, np.ndarray):
        instruction = isa.decode(instruction)
    _Executor(core, memories, rounding).run(instruction)


def view(memory: np.ndarray, offset: int, shape: Sequence[int], strides: Sequence[int], dtype: Any) -> np.ndarray:
    """A strided view of a byte array; ValueError when it leaves the array."""
    return np.ndarray(tuple(shape), np.dtype(dtype), buffer=memory, offset=offset, strides=tuple(strides))


@dataclass
class _Executor:
    """One method per instruction; `i` is always the instruction."""

    core: int
    memories: Memories
    rounding: str

    def run(self, i: Any) -> None:
        handler: Callable[[Any], None] | None = getattr(self, i.name, None)
        if handler is not None:
            handler(i)
        elif i.unit is not isa.Unit.CONTROL:
            raise NotImplementedError(f"the oracle has no {i.name}")

    @property
    def nram(self) -> np.ndarray:
        return self.memories.nram[self.core]

    def rows(self, base: int, rows: int, count: int, pitch: int, dtype: Any) -> np.ndarray:
        """[rows, count] dense elements, rows `pitch` bytes apart, in NRAM."""
        dtype = np.dtype(dtype)
        return view(self.nram, base, (rows, count), (pitch, dtype.itemsize), dtype)

    def pixels(self, base: int, shape: Sequence[int], row_pitch: int, pixel_pitch: int, dtype: Any) -> np.ndarray:
        """[h, w, c] elements in NRAM."""
        dtype = np.dtype(dtype)
        return view(self.nram, base, shape, (row_pitch, pixel_pitch, dtype.itemsize), dtype)

    def window_input(self, i: Any, channels: int, dtype: Any) -> tuple[np.ndarray, int, int]:
        """(the part of src that windows reach, [rows, pixels, channels]; output rows; output columns)."""
        dilation_y, dilation_x = getattr(i, "dilation_y", 1), getattr(i, "dilation_x", 1)
        oh = isa.output_size(i.h, i.kh, i.stride_y, dilation_y)
        ow = isa.output_size(i.w, i.kw, i.stride_x, dilation_x)
        shape = (
            (oh - 1) * i.stride_y + (i.kh - 1) * dilation_y + 1,
            (ow - 1) * i.stride_x + (i.kw - 1) * dilation_x + 1,
            channels,
        )
        return self.pixels(i.src, shape, i.src_row_pitch, i.src_pixel_pitch, dtype), oh, ow

    # -- DMA -----------------------------------------------------------------------------------------------------------
    def copy(self, i: Any) -> None:
        shape = (i.n0, i.n1, i.n2, i.run)
        src = view(
            self.memories.space(i.src.space, self.core), i.src.offset, shape,
            (i.src_stride0, i.src_stride1, i.src_stride2, 1), np.uint8,
        )  # fmt: skip
        dst = view(
            self.memories.space(i.dst.space, self.core), i.dst.offset, shape,
            (i.dst_stride0, i.dst_stride1, i.dst_stride2, 1), np.uint8,
        )  # fmt: skip
        dst[...] = src

    def fill(self, i: Any) -> None:
        dtype = np.dtype(f"<u{i.element_size}")
        shape = (i.n0, i.n1, i.n2, i.run // i.element_size)
        strides = (i.dst_stride0, i.dst_stride1, i.dst_stride2, i.element_size)
        view(self.nram, i.dst, shape, strides, dtype)[...] = i.value & ((1 << (8 * i.element_size)) - 1)

    def reshape_filter(self, i: Any) -> None:
        dtype = _numpy(i.filter_type)
        if i.order is isa.FilterOrder.CHANNELS:
            w = self.rows(i.src, i.co, i.ci, i.src_pitch, dtype)
        else:
            w = self.rows(i.src, i.ci, i.co, i.src_pitch, dtype).T
        packed = isa.pack_filters(np.ascontiguousarray(w)[:, None, None, :], isa.Runs.TAP)
        self.memories.wram[self.core][i.dst : i.dst + len(packed)] = packed

    # -- matrix --------------------------------------------------------------------------------------------------------
    def conv(self, i: Any) -> None:
        x, oh, ow = self.window_input(i, i.ci, _numpy(i.src_type))
        size = int(isa.filter_bytes(i.co, i.kh, i.kw, i.ci, i.filter_type, i.runs))
        packed = self.memories.wram[self.core][i.filters : i.filters + size]
        w = isa.unpack_filters(packed, i.co, i.kh, i.kw, i.ci, i.filter_type, i.runs)
        sums = np.zeros((oh, ow, i.co), np.int64)
        for ky in range(i.kh):
            for kx in range(i.kw):
                pixels = _tap(x, ky * i.dilation_y, kx * i.dilation_x, oh, ow, i.stride_y, i.stride_x)
                # fp64 is exact here: at most 2^16 products of at most 2^30 each stay below 2^53
                sums += (pixels.astype(np.float64) @ w[:, ky, kx, :].T.astype(np.float64)).astype(np.int64)
        self._store_sums(i, sums)

    def _store_sums(self, i: Any, sums: np.ndarray) -> None:
        """Add to and keep partial sums, or convert to dst; sums wrap at their width."""
        sum_type = np.dtype(f"<i{int(isa.sum_size(i.src_type, i.filter_type))}")
        sums = sums.astype(sum_type)
        if i.partial is not isa.Partial.NONE:
            count = sums.size
            kept = view(self.nram, i.partial_sums, (count,), (sum_type.itemsize,), sum_type)
            if i.partial is not isa.Partial.FIRST:
                sums = sums + kept.reshape(sums.shape)
            if i.partial is not isa.Partial.LAST:
                kept[...] = sums.reshape(count)
                return
        dtype = _numpy(i.dst_type)
        dst = self.pixels(i.dst, sums.shape, i.dst_row_pitch, i.dst_pixel_pitch, dtype)
        dst[...] = numerics.to_float(numerics.int_to_float(sums, i.fix_position), dtype)

    # -- vector --------------------------------------------------------------------------------------------------------
    def binary(self, i: Any) -> None:
        dtype = _numpy(i.dtype)
        a = self.rows(i.a, i.rows, i.count, i.a_pitch, dtype)
        result = numerics.BINARY[i.function.name.lower()](a, self._second(i, dtype))
        self.rows(i.dst, i.rows, i.count, i.dst_pitch, dtype)[...] = numerics.to_float(result, dtype)

    def _second(self, i: Any, dtype: np.dtype) -> np.ndarray:
        """The b operand, broadcastable to [rows, count]."""
        if i.mode is isa.Mode.FULL:
            return self.rows(i.b, i.rows, i.count, i.b_pitch, dtype)
        if i.mode is isa.Mode.CYCLE:
            period = min(i.period, i.count)
            return np.resize(self.rows(i.b, 1, period, 0, dtype), (1, i.count))
        if i.mode is isa.Mode.ROW:
            return self.rows(i.b, 1, i.rows, 0, dtype).T
        return np.full((1, 1), i.constant, np.float32)

    def unary(self, i: Any) -> None:
        dtype = _numpy(i.dtype)
        name = i.function.name.lower()
        arguments = (i.parameter,) if name in numerics.PARAMETRIC else ()
        result = numerics.UNARY[name](self.rows(i.src, i.rows, i.count, i.src_pitch, dtype), *arguments)
        self.rows(i.dst, i.rows, i.count, i.dst_pitch, dtype)[...] = numerics.to_float(result, dtype)

    def convert(self, i: Any) -> None:
        src_type, dst_type = _numpy(i.src_type), _numpy(i.dst_type)
        src = self.rows(i.src, i.rows, i.count, i.src_pitch, src_type)
        if dst_type.kind == "i":
            result = numerics.float_to_int(src, i.position, dst_type, self.rounding)
        elif src_type.kind == "i":
            result = numerics.to_float(numerics.int_to_float(src, i.position), dst_type)
        else:
            result = numerics.to_float(src, dst_type)
        self.rows(i.dst, i.rows, i.count, i.dst_pitch, dst_type)[...] = result

    def pool(self, i: Any) -> None:
        dtype = _numpy(i.dtype)
        x, oh, ow = self.window_input(i, i.c, dtype)
        largest = i.function is isa.PoolFunction.MAX
        result = np.full((oh, ow, i.c), -np.inf if largest else 0, np.float32)
        combine = numerics.maximum if largest else numerics.add
        for ky in range(i.kh):
            for kx in range(i.kw):
                result = combine(result, _tap(x, ky, kx, oh, ow, i.stride_y, i.stride_x))
        if i.function is isa.PoolFunction.MEAN:
            result = numerics.mul(result, np.asarray(numerics.mean_factor(i.kh * i.kw)))
        dst = self.pixels(i.dst, result.shape, i.dst_row_pitch, i.dst_pixel_pitch, dtype)
        dst[...] = numerics.to_float(result, dtype)

    def depthwise(self, i: Any) -> None:
        dtype = _numpy(i.dtype)
        x, oh, ow = self.window_input(i, i.c, dtype)
        w = self.pixels(i.filters, (i.kh, i.kw, i.c), i.kw * i.c * dtype.itemsize, i.c * dtype.itemsize, dtype)
        result = np.zeros((oh, ow, i.c), np.float32)
        for ky in range(i.kh):
            for kx in range(i.kw):
                pixels = _tap(x, ky * i.dilation_y, kx * i.dilation_x, oh, ow, i.stride_y, i.stride_x)
                result = numerics.add(result, numerics.mul(pixels, w[ky, kx]))
        dst = self.pixels(i.dst, result.shape, i.dst_row_pitch, i.dst_pixel_pitch, dtype)
        dst[...] = numerics.to_float(result, dtype)

    def reduce(self, i: Any) -> None:
        dtype = _numpy(i.dtype)
        src = self.rows(i.src, i.rows, i.count, i.src_pitch, dtype)
        result = numerics.REDUCE[i.function.name.lower()](src)
        self.rows(i.dst, 1, i.rows, 0, dtype)[...] = numerics.to_float(result, dtype)

    def transpose(self, i: Any) -> None:
        dtype = np.dtype(f"<u{i.element_size}")
        src = self.rows(i.src, i.rows, i.columns, i.src_pitch, dtype)
        self.rows(i.dst, i.columns, i.rows, i.dst_pitch, dtype)[...] = src.T


def _numpy(type_number: int) -> np.dtype:
    """The NumPy type of an `isa.Type`."""
    result: Any = isa.NUMPY_TYPES[isa.Type(type_number)]
    return result


def _tap(x: np.ndarray, top: int, left: int, oh: int, ow: int, stride_y: int, stride_x: int) -> np.ndarray:
    """[oh, ow, c]: the pixel of every window at offset (top, left)."""
    bottom, right = top + (oh - 1) * stride_y + 1, left + (ow - 1) * stride_x + 1
    return x[top:bottom:stride_y, left:right:stride_x]
