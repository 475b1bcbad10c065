"""Each instruction of the oracle against small independent loops, and how a function runs."""

import numpy as np
import pytest
from programs import CONSTANTS, EMPTY, INPUT, NRAM, OUTPUT, SRAM, WORKSPACE, WRAM, copy, double_buffered, program, relu

from compiler import numerics
from compiler.errors import CompilerError
from runtime.oracle import Memories, execute, run_function, view
from targets.mlu220 import isa
from targets.mlu220.container_records import DeviceFunction, IORecord

F32, F16 = np.float32, np.float16


@pytest.fixture
def memories() -> Memories:
    return Memories.create(cores=2, workspace=1024, constants=np.arange(64, dtype=np.uint8), outputs=[256])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def put(memories: Memories, offset: int, array: np.ndarray, space: int = NRAM) -> None:
    data = np.frombuffer(array.tobytes(), np.uint8)
    memories.space(space, 0)[offset : offset + len(data)] = data


def get(memories: Memories, offset: int, shape, dtype) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return memories.nram[0][offset : offset + size].view(dtype).reshape(shape)


# -- DMA -------------------------------------------------------------------------------------------------------------
def test_copy_moves_strided_runs_between_memories(memories):
    put(memories, 100, np.arange(200, dtype=np.uint8))
    execute(
        copy((WORKSPACE, 7), (NRAM, 100), 3, n0=2, n1=2, n2=3, dst_stride0=100, dst_stride1=40, dst_stride2=5,
             src_stride0=60, src_stride1=20, src_stride2=4),
        0, memories,
    )  # fmt: skip
    for i0 in range(2):
        for i1 in range(2):
            for i2 in range(3):
                start = 7 + 100 * i0 + 40 * i1 + 5 * i2
                source = 60 * i0 + 20 * i1 + 4 * i2
                assert memories.workspace[start : start + 3].tolist() == [source, source + 1, source + 2]
    assert memories.workspace[10] == 0xA5  # between two runs


def test_copy_addresses_every_space_of_the_executing_core(memories):
    execute(copy((WRAM, 64), (CONSTANTS, 8), 4), 1, memories)
    execute(copy((SRAM, 0), (WRAM, 64), 4), 1, memories)
    execute(copy((OUTPUT, 12), (SRAM, 0), 4), 4, memories)
    assert memories.outputs[0][12:16].tolist() == [8, 9, 10, 11]
    assert memories.wram[0][64] == 0xA5


@pytest.mark.parametrize(("size", "value"), [(1, 0x7F), (2, 0x3C00), (4, -1)])
def test_fill_repeats_the_low_bytes_of_its_value(memories, size, value):
    execute(isa.Fill(dst=16, element_size=size, value=value, run=8, n2=2, dst_stride2=32), 0, memories)
    pattern = list((value & 0xFFFFFFFF).to_bytes(4, "little")[:size]) * (8 // size)
    assert memories.nram[0][16:24].tolist() == pattern
    assert memories.nram[0][48:56].tolist() == pattern
    assert memories.nram[0][24] == 0xA5


# -- matrix ----------------------------------------------------------------------------------------------------------
def conv_sums(x, w, stride, dilation) -> np.ndarray:
    co, kh, kw, ci = w.shape
    oh = (x.shape[0] - (kh - 1) * dilation[0] - 1) // stride[0] + 1
    ow = (x.shape[1] - (kw - 1) * dilation[1] - 1) // stride[1] + 1
    sums = np.zeros((oh, ow, co), object)
    for y, u, o in np.ndindex(oh, ow, co):
        for ky, kx, c in np.ndindex(kh, kw, ci):
            pixel = x[y * stride[0] + ky * dilation[0], u * stride[1] + kx * dilation[1], c]
            sums[y, u, o] += int(pixel) * int(w[o, ky, kx, c])
    return sums


@pytest.mark.parametrize(("src_type", "filter_type"), [("I8", "I8"), ("I16", "I8"), ("I16", "I16")])
@pytest.mark.parametrize("runs", ["ROW", "TAP"])
@pytest.mark.parametrize("dst_type", ["F16", "F32"])
def test_conv_is_an_exact_integer_sum_scaled_and_rounded(memories, rng, src_type, filter_type, runs, dst_type):
    dtypes = {"I8": np.int8, "I16": np.int16}
    limits = np.iinfo(dtypes[src_type])
    x = rng.integers(limits.min, limits.max, (7, 6, 5), endpoint=True).astype(dtypes[src_type])
    w = rng.integers(-128, 127, (70, 3, 2, 5)).astype(dtypes[filter_type])
    dilation_x = 1 if runs == "ROW" else 2
    put(memories, 0, x)
    put(memories, 128, isa.pack_filters(w, isa.Runs[runs]), WRAM)
    size = x.dtype.itemsize
    instruction = isa.Conv(
        dst=8192, src=0, filters=128, ci=5, h=7, w=6, kh=3, kw=2, stride_y=2, stride_x=1, dilation_y=1,
        dilation_x=dilation_x, co=70, src_row_pitch=30 * size, src_pixel_pitch=5 * size, dst_row_pitch=2048,
        dst_pixel_pitch=300, fix_position=-9, src_type=src_type, filter_type=filter_type, dst_type=dst_type, runs=runs,
    )  # fmt: skip
    assert list(instruction.check()) == []
    execute(instruction.encode(), 0, memories)
    sums = conv_sums(x, w, (2, 1), (1, dilation_x))
    expected = (sums.astype(F32) * F32(2.0**-9)).astype(F16 if dst_type == "F16" else F32)
    result = view(memories.nram[0], 8192, sums.shape, (2048, 300, expected.itemsize), expected.dtype)
    assert np.array_equal(result, expected)


def test_a_conv_split_over_input_channels_gives_the_same_bits_as_one(memories, rng):
    x = rng.integers(-128, 127, (3, 3, 12)).astype(np.int8)
    w = rng.integers(-128, 127, (8, 2, 2, 12)).astype(np.int8)
    common = dict(h=3, w=3, kh=2, kw=2, co=8, dst_row_pitch=64, dst_pixel_pitch=32, src_type="I8", filter_type="I8",
                  dst_type="F32", fix_position=-3, src_row_pitch=36, src_pixel_pitch=12, runs="TAP")  # fmt: skip
    put(memories, 0, x)
    put(memories, 0, isa.pack_filters(w, isa.Runs.TAP), WRAM)
    execute(isa.Conv(dst=1024, src=0, filters=0, ci=12, **common), 0, memories)
    for part, kind in enumerate(["FIRST", "MIDDLE", "LAST"]):
        put(memories, 0, isa.pack_filters(w[..., 4 * part : 4 * part + 4], isa.Runs.TAP), WRAM)
        piece = isa.Conv(dst=2048, src=4 * part, filters=0, partial_sums=4096, ci=4, partial=kind, **common)
        assert list(piece.check()) == []
        execute(piece, 0, memories)
    assert np.array_equal(get(memories, 1024, (2, 2, 8), F32), get(memories, 2048, (2, 2, 8), F32))


# -- vector ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("function", ["ADD", "SUB", "MUL", "MAX", "MIN"])
@pytest.mark.parametrize("mode", ["FULL", "CYCLE", "ROW", "CONST"])
@pytest.mark.parametrize("dtype", ["F16", "F32"])
def test_binary_takes_its_second_operand_by_mode(memories, rng, function, mode, dtype):
    kind = F16 if dtype == "F16" else F32
    size = np.dtype(kind).itemsize
    a, b = rng.normal(size=(3, 10)).astype(kind), rng.normal(size=(3, 10)).astype(kind)
    put(memories, 0, a)
    put(memories, 512, b)
    execute(
        isa.Binary(dst=1024, a=0, b=512, rows=3, count=10, dst_pitch=64, a_pitch=10 * size, b_pitch=10 * size,
                   dtype=dtype, function=function, mode=mode, period=4, constant=0.1),
        0, memories,
    )  # fmt: skip
    flat = b.reshape(-1)
    operate = {"ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "MAX": np.maximum, "MIN": np.minimum}[function]
    for row, i in np.ndindex(3, 10):
        second = {"FULL": b[row, i], "CYCLE": flat[i % 4], "ROW": flat[row], "CONST": F32(0.1)}[mode]
        expected = operate(F32(a[row, i]), F32(second)).astype(kind)
        assert get(memories, 1024 + 64 * row, (10,), kind)[i] == expected


@pytest.mark.parametrize("function", [f.name for f in isa.UnaryFunction])
def test_unary_applies_the_function_of_numerics_and_may_work_in_place(memories, rng, function):
    x = rng.normal(size=20).astype(F16)
    put(memories, 64, x)
    execute(isa.Unary(dst=64, src=64, count=20, dtype="F16", function=function, parameter=0.2), 0, memories)
    arguments = (0.2,) if function == "LEAKY_RELU" else ()
    expected = numerics.UNARY[function.lower()](x.astype(F32), *arguments).astype(F16)
    assert np.array_equal(get(memories, 64, (20,), F16), expected, equal_nan=True)


def test_convert_quantises_with_the_rounding_mode_of_the_file_and_back(memories):
    put(memories, 0, np.array([0.5, 1.5, -2.5, 400, np.nan], F32))
    convert = isa.Convert(dst=64, src=0, count=5, src_type="F32", dst_type="I8")
    execute(convert, 0, memories)
    assert get(memories, 64, (5,), np.int8).tolist() == [0, 2, -2, 127, 0]
    execute(convert, 0, memories, numerics.HALF_AWAY)
    assert get(memories, 64, (5,), np.int8).tolist() == [1, 2, -3, 127, 0]
    execute(isa.Convert(dst=128, src=64, count=5, src_type="I8", dst_type="F16", position=-4), 0, memories)
    assert get(memories, 128, (5,), F16).tolist() == [0.0625, 0.125, -0.1875, 7.9375, 0]


def test_convert_between_floats_rounds_to_nearest_even(memories):
    put(memories, 0, np.array([2049, 65520, 2.0**-25], F32))
    execute(isa.Convert(dst=64, src=0, count=3, src_type="F32", dst_type="F16"), 0, memories)
    assert get(memories, 64, (3,), F16).tolist() == [2048, np.inf, 0]


@pytest.mark.parametrize("function", ["MAX", "MEAN", "SUM"])
def test_pool_folds_each_window_in_tap_order(memories, rng, function):
    x = rng.normal(size=(5, 7, 3)).astype(F16)
    put(memories, 0, x)
    execute(
        isa.Pool(dst=1024, src=0, c=3, h=5, w=7, kh=3, kw=2, stride_y=2, stride_x=3, src_row_pitch=42,
                 src_pixel_pitch=6, dst_row_pitch=20, dst_pixel_pitch=10, dtype="F16", function=function),
        0, memories,
    )  # fmt: skip
    for y, u, c in np.ndindex(2, 2, 3):
        window = [F32(x[2 * y + ky, 3 * u + kx, c]) for ky in range(3) for kx in range(2)]
        total = F32(0)
        for value in window:
            total = total + value
        expected = {"MAX": max(window), "SUM": total, "MEAN": total * F32(1 / 6)}[function]
        assert get(memories, 1024 + 20 * y + 10 * u, (3,), F16)[c] == F16(expected)


def test_depthwise_adds_rounded_products_in_tap_order(memories, rng):
    x, w = rng.normal(size=(6, 6, 4)).astype(F32), rng.normal(size=(2, 2, 4)).astype(F32)
    put(memories, 0, x)
    put(memories, 1024, w)
    execute(
        isa.Depthwise(dst=2048, src=0, filters=1024, c=4, h=6, w=6, kh=2, kw=2, stride_y=2, stride_x=1, dilation_y=3,
                      dilation_x=2, src_row_pitch=96, src_pixel_pitch=16, dst_row_pitch=64, dst_pixel_pitch=16,
                      dtype="F32"),
        0, memories,
    )  # fmt: skip
    result = get(memories, 2048, (2, 4, 4), F32)
    for y, u, c in np.ndindex(2, 4, 4):
        total = F32(0)
        for ky, kx in np.ndindex(2, 2):
            total = total + x[2 * y + 3 * ky, u + 2 * kx, c] * w[ky, kx, c]
        assert result[y, u, c] == total


@pytest.mark.parametrize("function", ["SUM", "MAX", "MIN"])
def test_reduce_folds_rows_into_a_dense_vector(memories, rng, function):
    x = rng.normal(size=(4, 37)).astype(F32)
    put(memories, 0, x)
    execute(isa.Reduce(dst=1024, src=0, rows=4, count=37, src_pitch=148, dtype="F32", function=function), 0, memories)
    expected = {"SUM": numerics.sum_lanes, "MAX": lambda v: v.max(-1), "MIN": lambda v: v.min(-1)}[function](x)
    assert np.array_equal(get(memories, 1024, (4,), F32), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_transpose_swaps_rows_and_columns_of_any_element_size(memories, dtype):
    size = np.dtype(dtype).itemsize
    x = np.arange(15, dtype=dtype).reshape(3, 5)
    put(memories, 0, x)
    execute(
        isa.Transpose(dst=256, src=0, rows=3, columns=5, element_size=size, src_pitch=5 * size, dst_pitch=4 * size),
        0, memories,
    )  # fmt: skip
    for column in range(5):
        assert get(memories, 256 + 4 * size * column, (3,), dtype).tolist() == x[:, column].tolist()


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("order", ["CHANNELS", "K"])
def test_reshape_filter_gives_wram_what_packing_at_compile_time_would(memories, rng, dtype, order):
    w = rng.integers(-100, 100, (70, 5)).astype(dtype)
    x = w if order == "CHANNELS" else np.ascontiguousarray(w.T)
    put(memories, 0, x)
    kind = "I8" if dtype is np.int8 else "I16"
    reshape = isa.ReshapeFilter(dst=128, src=0, co=70, ci=5, src_pitch=x.strides[0], filter_type=kind, order=order)
    execute(reshape, 0, memories)
    packed = isa.pack_filters(w[:, None, None, :], isa.Runs.TAP)
    assert np.array_equal(memories.wram[0][128 : 128 + len(packed)], packed)


# -- functions -------------------------------------------------------------------------------------------------------
def relu_function(tiles: int = 4) -> DeviceFunction:
    record = IORecord.dense("x", (tiles * 64,), "f32")
    return DeviceFunction(
        name="subnet0", inputs=[record], outputs=[record], programs=[program(*double_buffered(tiles)), EMPTY], cores=1
    )


def test_a_function_runs_in_the_order_that_check_proves(rng):
    x = rng.normal(size=256).astype(F32)
    (output,) = run_function(relu_function(), np.zeros(0, np.uint8), [x])
    assert np.array_equal(output.view(F32), np.maximum(x, 0))


def test_a_proven_function_gives_the_same_bytes_whatever_memory_held_before(rng):
    x = rng.normal(size=256).astype(F32)
    outputs = [run_function(relu_function(), np.zeros(0, np.uint8), [x], poison=p)[0] for p in (0, 0x7F, 0xFF)]
    assert outputs[0].tobytes() == outputs[1].tobytes() == outputs[2].tobytes()


def test_unwritten_memory_holds_the_poison(memories):
    execute(copy((OUTPUT, 0), (NRAM, 0), 4), 0, memories)
    assert memories.outputs[0][:4].tolist() == [0xA5] * 4


def test_inputs_and_constants_cannot_be_written():
    memories = Memories.create(inputs=[np.zeros(8, np.uint8)])
    with pytest.raises(ValueError, match="read-only"):
        execute(copy((INPUT, 0), (NRAM, 0), 4), 0, memories)


def test_a_view_that_leaves_its_memory_is_refused(memories):
    with pytest.raises(ValueError):
        execute(relu(0, len(memories.nram[0]) - 4, 64), 0, memories)


def test_inputs_of_the_wrong_size_are_refused_by_name():
    with pytest.raises(CompilerError, match="input x has 1024 bytes, not 4"):
        run_function(relu_function(), np.zeros(0, np.uint8), [np.zeros(1, F32)])
    with pytest.raises(CompilerError, match="takes 1 inputs, 0 were given"):
        run_function(relu_function(), np.zeros(0, np.uint8), [])


def test_every_instruction_of_the_table_has_an_oracle():
    from runtime.oracle import _Executor

    for spec in isa.INSTRUCTIONS.values():
        assert spec.unit is isa.Unit.CONTROL or hasattr(_Executor, spec.name)
