"""The compiled kernels: fp16 conversions, twins of the numerics, integer sums, no fused operations."""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np
import pytest

from compiler import numerics
from compiler.native import build, memory
from compiler.native.language import I8, I16, I32, LANES
from runtime import Session
from runtime.kernels import conv, functions, vnni, window
from runtime.kernels import layout as L  # noqa: N812
from targets.mlu220 import isa
from targets.mlu220.container import DeviceFunction, IORecord
from targets.mlu220.filters import pack_filters
from tests.chains import offline_model, same_bits
from tests.isa_strategies import RandomFunction

EMPTY = np.zeros((0, isa.ROW_WORDS), np.int32)
UNARY_NAMES = [f.name for f in isa.UnaryFunction]


@build.kernel(3)
def widen_all(source, out, count, native):
    for i in range(0, count, LANES):
        memory.store(memory.widen(memory.load(memory.SHORTS, source + 2 * i), native), out + 4 * i)


@build.kernel(3)
def narrow_all(source, out, count, native):
    for i in range(0, count, LANES):
        memory.store(memory.narrow(memory.load(memory.FLOATS, source + 4 * i), native), out + 2 * i)


@build.kernel(4)
def apply_all(a, b, out, count, function):
    for i in range(0, count, LANES):
        x, y = memory.load(memory.FLOATS, a + 4 * i), memory.load(memory.FLOATS, b + 4 * i)
        memory.store(function(x, y), out + 4 * i)


@build.kernel(3)
def convert_all(source, out, count, element, half_away):
    for i in range(0, count, LANES):
        x = memory.load(memory.FLOATS, source + 4 * i) * np.float32(0.5)
        memory.store(memory.to_integers(x, element, half_away), out + i * (element.width // 8))


@build.kernel(2)
def widen_int64(source, out):
    memory.store(memory.to_floats(memory.load(memory.WIDE, source)), out)


def call(kernel, *arrays, **known):
    """Run a kernel on the addresses of arrays and the number of elements of the first one."""
    kernel(*(a.ctypes.data for a in arrays), arrays[0].size, **known)


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
    call(widen_all, halves, found, native=path == "native")
    assert same_bits(found, halves.view(np.float16).astype(np.float32))


@pytest.mark.parametrize("path", PATHS)
def test_floats_narrow_to_half_as_numpy_does_at_every_rounding_border(path: str) -> None:
    x = rounding_cases()
    x = np.ascontiguousarray(x[: len(x) // LANES * LANES])
    found = np.zeros(len(x), np.uint16)
    call(narrow_all, x, found, native=path == "native")
    with np.errstate(all="ignore"):
        assert same_bits(found.view(np.float16), x.astype(np.float16))


def test_int64_goes_to_fp32_with_one_rounding() -> None:
    values = np.resize(
        [2**24 + 1, 2**53 + 1, 2**62 + 2**38 + 1, -(2**62) - 2**38 - 1, (2**24 + 1) * 2**30 + 1], LANES
    ).astype(np.int64)
    found = np.zeros(len(values), np.float32)
    widen_int64(values.ctypes.data, found.ctypes.data)
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
    found = np.zeros_like(a)
    for function, expected in ((functions.maximum, numerics.maximum), (functions.minimum, numerics.minimum)):
        apply_all(a.ctypes.data, b.ctypes.data, found.ctypes.data, len(a), function=function)
        assert same_bits(found, expected(a, b))


@pytest.mark.parametrize("rounding", numerics.ROUNDINGS)
@pytest.mark.parametrize("element,dtype", [(I8, np.int8), (I16, np.int16), (I32, np.int32)])
def test_conversion_to_integers_clamps_rounds_and_drops_nan(rounding: str, element: object, dtype: type) -> None:
    edges = np.array([0.5, 1.5, -0.5, -1.5, 126.5, 127.5, -128.5, 32767.5, 3e9, -3e9, np.inf, -np.inf, np.nan, -0.0])
    x = np.concatenate([edges, np.random.default_rng(1).normal(size=4978) * 300]).astype(np.float32)
    found = np.zeros(len(x), dtype)
    call(convert_all, x, found, element=element, half_away=rounding == numerics.HALF_AWAY)
    assert (found == numerics.float_to_int(x, 1, dtype, rounding)).all()


# -- integer sums -----------------------------------------------------------------------------------------------------
@build.kernel(5)
def sums_of_a_tile(rows, offsets, k_steps, filters, out, instruction):
    """Sums of 7 x 32, by the instruction or without it."""
    addresses = memory.i64_at(rows)
    sums, flipped = memory.registers(14, memory.INTS), vnni.flip() if instruction else None
    for j in (0, 1):
        start = memory.zeros(memory.INTS)
        if instruction:
            for k in range(k_steps):
                weights = memory.load(memory.INTS, filters + 128 * k + 64 * j)
                start = vnni.dot_unsigned(start, flipped, weights)
        for m in range_of_7:
            sums[2 * m + j] = memory.zeros(memory.INTS) - start
    for k in range(k_steps):
        for j in (0, 1):
            weights = memory.load(memory.INTS, filters + 128 * k + 64 * j)
            for m in range_of_7:
                x = memory.spread(memory.load(I32, addresses[m] + memory.i32_at(offsets)[k]), memory.INTS)
                total = sums[2 * m + j]
                if instruction:
                    sums[2 * m + j] = vnni.dot_unsigned(total, x ^ flipped, weights)
                else:
                    sums[2 * m + j] = vnni.dot_portable(total, x, weights)
    for m in range_of_7:
        for j in (0, 1):
            memory.store(sums[2 * m + j], out + 128 * m + 64 * j)


range_of_7 = tuple(range(7))


def packed_case(pixels: int, k: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(activations [pixels, k], filters [32, k], the packed panel), drawn from [low, high]."""
    rng = np.random.default_rng(k)
    x = rng.integers(low, high, (pixels, k), np.int8, endpoint=True)
    w = rng.integers(low, high, (32, k), np.int8, endpoint=True)
    return x, w, pack_filters(w.reshape(32, 1, 1, k), 0)


WAYS = [
    pytest.param(False, id="portable"),
    pytest.param(True, marks=pytest.mark.skipif(not vnni.AVAILABLE, reason="no AVX-512 VNNI in the code's target")),
]


@pytest.mark.parametrize("instruction", WAYS)
@pytest.mark.parametrize("k,low,high", [(4, -128, 127), (260, -128, 127), (4608, -128, -128), (4608, 127, 127)])
def test_integer_sums_are_exact_at_the_extremes(k: int, low: int, high: int, instruction: bool) -> None:
    x, w, panel = packed_case(7, k, low, high)
    rows = (x.ctypes.data + np.arange(7) * k).astype(np.int64)
    offsets, sums = np.arange(0, k, 4, dtype=np.int32), np.zeros((7, 32), np.int32)
    addresses = [a.ctypes.data for a in (rows, offsets, panel, sums)]
    sums_of_a_tile(*addresses[:2], k // 4, *addresses[2:], instruction=instruction)
    assert (sums == x.astype(np.int64) @ w.T.astype(np.int64)).all()


def test_what_sums_begin_with_cancels_the_shift_of_the_activations() -> None:
    _, w, panel = packed_case(7, 64, -128, 127)
    expected = -128 * w.astype(np.int64).sum(axis=1) if vnni.AVAILABLE else np.zeros(32)
    assert (vnni.starts_of(panel, 16)[0] == expected).all()


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


@pytest.mark.parametrize("channels", [1, 17, 33])
@pytest.mark.parametrize("name", ["I8", "I16"])
def test_an_integer_store_of_one_lane_leaves_what_lies_behind_it(name: str, channels: int) -> None:
    """Tiles of three pixels, the right one first: the last pixel of the left one borders on it."""
    random = np.random.default_rng(4)
    x, w = (random.integers(-127, 127, shape, np.int8) for shape in ((1, 6, 4), (channels, 1, 1, 4)))
    packed, size = pack_filters(w, 0), 1 if name == "I8" else 2
    rows = [
        isa.Copy(dst=(isa.NRAM, 0), src=(isa.INPUT, 0), run=x.nbytes),
        isa.Copy(dst=(isa.WRAM, 0), src=(isa.CONSTANTS, 0), run=packed.nbytes),
        isa.Signal(queue=0, counter=0), isa.Wait(queue=1, counter=0, value=1),
    ]  # fmt: skip
    for number, pixel in enumerate((3, 0)):
        sums, integers = 1024 * (2 * number + 1), 1024 * (2 * number + 2)
        rows += [
            isa.Conv(dst=sums, src=4 * pixel, filters=0, ci=4, h=1, w=3, kh=1, kw=1, co=channels, src_row_pitch=12,
                     src_pixel_pitch=4, dst_row_pitch=12 * channels, dst_pixel_pitch=4 * channels, src_type="I8",
                     filter_type="I8", dst_type="F32"),
            isa.Signal(queue=1, counter=1), isa.Wait(queue=2, counter=1, value=number + 1),
            isa.Convert(dst=integers, src=sums, rows=1, count=3 * channels, dst_pitch=3 * channels * size,
                        src_pitch=12 * channels, src_type="F32", dst_type=name, position=9 if size == 1 else 0),
            isa.Signal(queue=2, counter=2), isa.Wait(queue=0, counter=2, value=number + 1),
            isa.Copy(dst=(isa.OUTPUT, pixel * channels * size), src=(isa.NRAM, integers), run=3 * channels * size),
        ]  # fmt: skip
    inputs, outputs = [IORecord.dense("x", x.shape, "i8")], [IORecord.dense("y", (6, channels), name.lower())]
    programs = [isa.encode_program(rows), EMPTY]
    function = DeviceFunction(name="f", inputs=inputs, outputs=outputs, programs=programs, cores=1)
    model = offline_model(RandomFunction(function, packed))
    session = Session(model, threads=1)
    assert session.statistics["f"]["after fuse"] == 2, "each store is that of a convolution"
    found, expected = session.run(x), Session(model, engine="oracle").run(x)
    assert isinstance(found, np.ndarray) and isinstance(expected, np.ndarray)
    np.testing.assert_array_equal(found, expected)


# -- machine code -----------------------------------------------------------------------------------------------------
HALF_STEPS = ((L.NOTHING, 0, 0, True, False), (2, L.CYCLE, L.TYPE_F16, True, False), (L.UNARY_BASE, 3, 0, True, False))
CONV = {
    "wide": (L.TYPE_I8, L.TYPE_I8), "target": (L.TYPE_F16, False), "steps": HALF_STEPS, "partial": 0, "tile": 7,
    "linear": True, "full": True, "tail": 0, "dirty": False,
}  # fmt: skip
DEPTHWISE = {"source": L.TYPE_F16, "target": (L.TYPE_F16, False), "steps": HALF_STEPS, "size": (3, 3), "dense": True}


@pytest.mark.parametrize("kernel,known", [(conv.conv, CONV), (window.depthwise, DEPTHWISE)], ids=["conv", "depthwise"])
def test_no_product_and_sum_are_fused_into_one_rounding(kernel: build.Kernel, known: dict) -> None:
    code = kernel.assembly(**known)
    assert "vfmadd" not in code and "vfnmadd" not in code and "fmla" not in code


@pytest.mark.skipif(not vnni.AVAILABLE, reason="no AVX-512 VNNI in the code's target")
@pytest.mark.parametrize("tile,tail", [(7, 0), (8, 0), (14, 16)])
def test_the_tile_keeps_its_sums_in_registers(tile: int, tail: int) -> None:
    code = conv.conv.assembly(**{**CONV, "tile": tile, "full": not tail, "tail": tail})
    dots = [line for line in code.splitlines() if "vpdpbusd" in line and "{1to16}" not in line]
    assert len(dots) >= tile * (1 if tail else 2)
    assert not any("zmmword ptr [rsp" in line for line in dots)


def test_code_is_compiled_once_and_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    first = build.Kernel(widen_int64.python, 2)
    assert first.address() == first.address()
    (kept,) = (path for path in tmp_path.rglob("*") if path.is_file())
    monkeypatch.setattr(build, "optimised", None)
    assert build.Kernel(widen_int64.python, 2).address(), "loaded: there is nothing to compile it with"
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(TypeError):  # a damaged file is compiled again
        build.Kernel(widen_int64.python, 2).address()


def test_source_digest_changes_when_any_kernel_source_does(tmp_path) -> None:
    (tmp_path / "a.py").write_text("x = 1")
    first = build.source_digest.__wrapped__(tmp_path)
    assert build.source_digest.__wrapped__(tmp_path) == first
    (tmp_path / "a.py").write_text("x = 2")
    assert build.source_digest.__wrapped__(tmp_path) != first
