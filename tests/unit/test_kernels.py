"""The compiled kernels: fp16 conversions, twins of the numerics, integer sums, no fused operations."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit, types
from numba.extending import intrinsic

from compiler import numerics
from runtime import Session
from runtime.kernels import build, conv, functions, memory, rows, vnni, window
from runtime.kernels import layout as L  # noqa: N812
from runtime.operations import float_bits
from targets.mlu220 import isa
from targets.mlu220.container import DeviceFunction, IORecord
from targets.mlu220.filters import pack_filters
from tests.chains import offline_model, same_bits
from tests.isa_strategies import RandomFunction

EMPTY = np.zeros((0, isa.ROW_WORDS), np.int32)
UNARY_NAMES = [f.name for f in isa.UnaryFunction]


def widen_with(convert):
    @njit
    def widen(h, out):
        for i in range(len(h)):
            out[i] = convert(h[i])

    return widen


def narrow_with(convert):
    @njit
    def narrow(x, out):
        for i in range(len(x)):
            out[i] = convert(x[i])

    return narrow


def rounding_cases() -> np.ndarray:
    """Every fp16 number, the midpoint to its neighbour, and what lies just beside both; then random bit patterns."""
    halves = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.float16).astype(np.float32)
    bits = halves.view(np.uint32).astype(np.uint64)
    near = [bits, *(bits + offset for offset in (1, 0xFFF, 0x1000, 0x1001, 0x1FFF)), bits - np.minimum(bits, 1)]
    tiny = np.arange(0x33000000, 0x38800000, 0x3FF, dtype=np.uint64)  # around and inside the subnormal fp16 range
    random = np.random.default_rng(0).integers(0, 1 << 32, 1 << 20, dtype=np.uint64)
    return (np.concatenate([*near, tiny, tiny | 0x80000000, random]) & 0xFFFFFFFF).astype(np.uint32).view(np.float32)


PATHS = [
    pytest.param("portable"),
    pytest.param("native", marks=pytest.mark.skipif(not memory.HAS_F16C, reason="no F16C in the code's target")),
]


@pytest.mark.parametrize("path", PATHS)
def test_every_half_widens_as_numpy_does(path: str) -> None:
    halves = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    found = np.zeros(1 << 16, np.float32)
    widen_with(getattr(memory, f"half_float_{path}"))(halves, found)
    assert same_bits(found, halves.view(np.float16).astype(np.float32))


@pytest.mark.parametrize("path", PATHS)
def test_floats_narrow_to_half_as_numpy_does_at_every_rounding_border(path: str) -> None:
    x = rounding_cases()
    found = np.zeros(len(x), np.uint16)
    narrow_with(getattr(memory, f"float_half_{path}"))(x, found)
    with np.errstate(all="ignore"):
        assert same_bits(found.view(np.float16), x.astype(np.float16))


def test_int64_goes_to_fp32_with_one_rounding() -> None:
    values = np.array(
        [2**24 + 1, 2**53 + 1, 2**62 + 2**38 + 1, -(2**62) - 2**38 - 1, (2**24 + 1) * 2**30 + 1], np.int64
    )
    found = np.zeros(len(values), np.float32)
    narrow_with(memory.i64_float)(values, found)
    assert (found == values.astype(np.float32)).all()
    assert (found != values.astype(np.float64).astype(np.float32)).any(), "the values do not tell the two apart"


def run_unary(function: str, x: np.ndarray, parameter: float = 0.0) -> np.ndarray:
    """One fp32 unary instruction through the simulator."""
    size = x.nbytes
    program = isa.encode_program([
        isa.Copy(dst=(isa.NRAM, 0), src=(isa.INPUT, 0), run=size), isa.Signal(queue=0, counter=0),
        isa.Wait(queue=2, counter=0, value=1),
        isa.Unary(dst=0, src=0, count=len(x), dtype="F32", function=function, parameter=parameter),
        isa.Signal(queue=2, counter=1), isa.Wait(queue=0, counter=1, value=1),
        isa.Copy(dst=(isa.OUTPUT, 0), src=(isa.NRAM, 0), run=size),
    ])  # fmt: skip
    records = [IORecord.dense(name, x.shape, "f32") for name in ("x", "y")]
    function_ = DeviceFunction(name="f", inputs=records[:1], outputs=records[1:], programs=[program, EMPTY], cores=1)
    result = Session(offline_model(RandomFunction(function_, np.zeros(0, np.uint8))), threads=1).run(x)
    assert isinstance(result, np.ndarray)
    return result


@pytest.mark.parametrize("name", UNARY_NAMES)
def test_unary_functions_are_bit_identical_to_numerics(name: str) -> None:
    spread = np.arange(0, 1 << 32, 52711, dtype=np.uint64).astype(np.uint32).view(np.float32)
    dense = np.linspace(-20, 20, 12001, dtype=np.float32)
    x = np.concatenate([spread[: 1 << 16], spread[-8000:], dense])
    arguments = (np.float32(0.125),) if name.lower() in numerics.PARAMETRIC else ()
    expected = numerics.UNARY[name.lower()](x, *arguments)
    assert same_bits(run_unary(name, x, 0.125), np.asarray(expected, np.float32))


def test_maximum_and_minimum_order_zeros_and_spread_nan() -> None:
    values = np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1e-45], np.float32)
    a, b = (x.ravel() for x in np.meshgrid(values, values))

    @njit
    def both(a, b, high, low):
        for i in range(len(a)):
            high[i] = functions.maximum(a[i], b[i])
            low[i] = functions.minimum(a[i], b[i])

    high, low = np.zeros_like(a), np.zeros_like(a)
    both(a, b, high, low)
    assert same_bits(high, numerics.maximum(a, b))
    assert same_bits(low, numerics.minimum(a, b))


@pytest.mark.parametrize("rounding", numerics.ROUNDINGS)
@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_conversion_to_integers_clamps_rounds_and_drops_nan(rounding: str, dtype: type) -> None:
    low, high = numerics.INTEGER_LIMITS[np.dtype(dtype)]
    edges = np.array([0.5, 1.5, -0.5, -1.5, 126.5, 127.5, -128.5, 32767.5, 3e9, -3e9, np.inf, -np.inf, np.nan, -0.0])
    x = np.concatenate([edges, np.random.default_rng(1).normal(size=5000) * 300]).astype(np.float32)
    half_away = rounding == numerics.HALF_AWAY

    @njit(error_model="numpy")
    def convert(x, out):
        for i in range(len(x)):
            out[i] = functions.to_integer(x[i], np.float32(0.5), low, high, half_away)

    found = np.zeros(len(x), np.int32)
    convert(x, found)
    assert (found == numerics.float_to_int(x, 1, dtype, rounding)).all()


# -- integer sums -----------------------------------------------------------------------------------------------------
@build.kernel(5)
def portable_sums(rows, offsets, steps, filters, sums):
    conv.portable_tile(rows, offsets, steps, filters, sums, 7)


def packed_case(pixels: int, k: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(activations [pixels, k], filters [32, k], the packed panel), drawn from [low, high]."""
    rng = np.random.default_rng(k)
    x = rng.integers(low, high, (pixels, k), np.int8, endpoint=True)
    w = rng.integers(low, high, (32, k), np.int8, endpoint=True)
    return x, w, pack_filters(w.reshape(32, 1, 1, k), 0)


@pytest.mark.parametrize("k,low,high", [(4, -128, 127), (64, -128, 127), (4608, -128, -128), (4608, 127, 127)])
def test_integer_sums_are_exact_at_the_extremes(k: int, low: int, high: int) -> None:
    x, w, panel = packed_case(7, k, low, high)
    rows = (x.ctypes.data + np.arange(L.TILE).clip(max=6) * k).astype(np.int64)
    offsets, sums = np.arange(0, k, 4, dtype=np.int32), np.zeros((7, 32), np.int32)
    portable_sums(rows.ctypes.data, offsets.ctypes.data, k // 4, panel.ctypes.data, sums.ctypes.data)
    assert (sums == x.astype(np.int64) @ w.T.astype(np.int64)).all()


@pytest.mark.skipif(not vnni.AVAILABLE, reason="no AVX-512 VNNI in the code's target")
@pytest.mark.parametrize("k,low,high", [(4, -128, 127), (260, -128, 127), (4608, -128, -128), (4608, 127, 127)])
def test_the_dot_instruction_gives_the_same_sums(k: int, low: int, high: int) -> None:
    x, w, panel = packed_case(7, k, low, high)
    rows = (x.ctypes.data + np.arange(7) * k).astype(np.int64)
    offsets, sums, start = np.arange(0, k, 4, dtype=np.int32), np.zeros((7, 32), np.int32), np.zeros(32, np.int32)
    addresses = [a.ctypes.data for a in (rows, offsets, panel, start, sums)]

    @njit
    def run(rows, offsets, panel, start, sums):
        vnni.start_sums(k // 4, panel, start)
        vnni.tile_7(rows, offsets, k // 4, panel, start, sums)

    run(*addresses)
    assert (start == -128 * w.astype(np.int64).sum(axis=1)).all()
    assert (sums == x.astype(np.int64) @ w.T.astype(np.int64)).all()


def conv_model(w: np.ndarray, packed: np.ndarray, constants: bool) -> tuple[RandomFunction, list[np.ndarray]]:
    """A convolution whose filters come from the constants or from a second input."""
    co, kh, kw, ci = w.shape
    x = np.random.default_rng(5).integers(-128, 127, (6, 7, ci), np.int8)
    oh, ow = 6 - kh + 1, 7 - kw + 1
    program = isa.encode_program([
        isa.Copy(dst=(isa.NRAM, 0), src=(isa.INPUT, 0), run=x.nbytes),
        isa.Copy(dst=(isa.WRAM, 0), src=(isa.CONSTANTS if constants else isa.INPUT + 1, 0), run=packed.nbytes),
        isa.Signal(queue=0, counter=0), isa.Wait(queue=1, counter=0, value=1),
        isa.Conv(dst=4096, src=0, filters=0, ci=ci, h=6, w=7, kh=kh, kw=kw, co=co, src_row_pitch=7 * ci,
                 src_pixel_pitch=ci, dst_row_pitch=ow * co * 4, dst_pixel_pitch=co * 4, src_type="I8", filter_type="I8",
                 dst_type="F32"),
        isa.Signal(queue=1, counter=1), isa.Wait(queue=0, counter=1, value=1),
        isa.Copy(dst=(isa.OUTPUT, 0), src=(isa.NRAM, 4096), run=oh * ow * co * 4),
    ])  # fmt: skip
    inputs = [IORecord.dense("x", x.shape, "i8")] + ([] if constants else [IORecord.dense("w", packed.shape, "u8")])
    outputs = [IORecord.dense("y", (oh, ow, co), "f32")]
    function = DeviceFunction(name="f", inputs=inputs, outputs=outputs, programs=[program, EMPTY], cores=1)
    data = packed if constants else np.zeros(0, np.uint8)
    return RandomFunction(function, data), [x] if constants else [x, packed]


@pytest.mark.parametrize("constants", [True, False])
@pytest.mark.parametrize("dirty", [True, False])
def test_padding_inside_filters_is_never_multiplied(constants: bool, dirty: bool) -> None:
    w = np.random.default_rng(3).integers(-127, 127, (5, 2, 3, 3), np.int8)
    packed = pack_filters(w, 0)
    if dirty:
        rows = packed.view(np.int8).reshape(
            -1, 2, 6, 32, 4
        )  # runs of 9 are padded to 12: bytes 1 to 3 of each third step
        rows[:, :, [2, 5], :, 1:] = 77
    function, inputs = conv_model(w, packed, constants)
    model = offline_model(function)
    found, expected = Session(model, threads=1).run(*inputs), Session(model, engine="oracle").run(*inputs)
    assert isinstance(found, np.ndarray) and isinstance(expected, np.ndarray)
    assert (found == expected).all()


# -- machine code -----------------------------------------------------------------------------------------------------
def machine_code(kernel: build.Kernel) -> str:
    """Assembly of a kernel compiled afresh: cached code keeps none."""
    from numba import cfunc

    signature = types.void(*[types.int64] * kernel.arguments)
    return str(cfunc(signature, error_model="numpy")(kernel.function)._library.get_asm_str())


@pytest.mark.parametrize("kernel", [conv.conv, window.depthwise], ids=lambda k: k.name)
def test_no_product_and_sum_are_fused_into_one_rounding(kernel: build.Kernel) -> None:
    code = machine_code(kernel)
    assert "vfmadd" not in code and "vfnmadd" not in code and "fmla" not in code


@pytest.mark.skipif(not vnni.AVAILABLE, reason="no AVX-512 VNNI in the code's target")
def test_the_tile_keeps_its_sums_in_registers() -> None:
    code = machine_code(conv.conv)
    tile = code[code.index("vnni_tile_7") :]
    loop = [line for line in tile.splitlines() if "vpdpbusd" in line][: 7 * vnni.VECTORS]
    assert len(loop) == 7 * vnni.VECTORS
    assert not any("rsp" in line for line in loop)


def test_float_bits_are_signed_words() -> None:
    assert float_bits(1.0) == 0x3F800000
    assert float_bits(-0.0) == -(2**31)


def test_source_digest_changes_when_any_kernel_source_does(monkeypatch, tmp_path) -> None:
    (tmp_path / "runtime" / "kernels").mkdir(parents=True)
    (tmp_path / "runtime" / "kernels" / "a.py").write_text("x = 1")
    (tmp_path / "compiler").mkdir()
    (tmp_path / "compiler" / "numerics.py").write_text("y = 1")
    monkeypatch.setattr(build, "_PACKAGE", tmp_path / "runtime" / "kernels")
    first = build.source_digest.__wrapped__()
    (tmp_path / "runtime" / "kernels" / "a.py").write_text("x = 2")
    assert build.source_digest.__wrapped__() != first


# -- vector code ------------------------------------------------------------------------------------------------------
def round_vectors(native: bool):
    """fp32 → fp16 → fp32 on whole vectors, by the path given."""

    @intrinsic
    def step(typing, source, out):
        def generate(context, b, signature, args):
            rows.store(b, rows.rounded(b, rows.load(b, args[0]), native), args[1])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    @njit
    def run(source, out, count):
        for i in range(count):
            step(source + 64 * i, out + 64 * i)

    return run


@pytest.mark.parametrize("path", PATHS)
def test_vectors_round_to_half_as_numpy_does(path: str) -> None:
    x = np.ascontiguousarray(rounding_cases()[: 1 << 20])
    found = np.zeros_like(x)
    round_vectors(path == "native")(x.ctypes.data, found.ctypes.data, len(x) // rows.LANES)
    with np.errstate(all="ignore"):
        assert same_bits(found, x.astype(np.float16).astype(np.float32))


def test_bytes_are_stored_as_numerics_converts_them() -> None:
    edges = np.array(
        [0.5, 1.5, -0.5, 126.5, 127.5, -128.5, 3e9, -3e9, np.inf, -np.inf, np.nan, -0.0, 1e-45], np.float32
    )
    x = np.resize(np.concatenate([edges, np.random.default_rng(2).normal(size=300) * 90]).astype(np.float32), 320)
    found = np.zeros(len(x), np.int8)

    @njit
    def run(source, out, panels):
        for i in range(panels):
            rows.store_bytes(out + 32 * i, source + 128 * i, np.float32(0.5))

    run(x.ctypes.data, found.ctypes.data, len(x) // 32)
    assert (found == numerics.float_to_int(x, 1, np.int8)).all()
