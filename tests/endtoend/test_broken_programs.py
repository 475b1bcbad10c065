"""Offline models with a broken program: every kind is refused, with the instruction named, before anything runs."""

from __future__ import annotations

import numpy as np
import pytest
from programs import (
    CONSTANTS,
    DMA,
    EMPTY,
    INPUT,
    NRAM,
    OUTPUT,
    VECTOR,
    WORKSPACE,
    WRAM,
    copy,
    program,
    relu,
    signal,
    wait,
)

from compiler.errors import CompilerError
from runtime.oracle import run_function
from targets.mlu220 import isa
from targets.mlu220.check import check_function
from targets.mlu220.container_records import DebugEntry, DeviceFunction, IORecord
from targets.mlu220.hardware import load_board

FILTERS = np.arange(4 * 2 * 2 * 4, dtype=np.int8).reshape(4, 2, 2, 4)
PACKED = isa.pack_filters(FILTERS, isa.Runs.ROW)


def conv(**values) -> isa.Conv:
    """A 2x2 convolution of the 4x4x4 input into a 3x3x4 output."""
    fields = dict(
        dst=1024, src=0, filters=0, ci=4, h=4, w=4, kh=2, kw=2, co=4, src_row_pitch=16, src_pixel_pitch=4,
        dst_row_pitch=48, dst_pixel_pitch=16, fix_position=-5, src_type="I8", filter_type="I8", dst_type="F32",
    )  # fmt: skip
    return isa.Conv(**{**fields, **values})


def kernel() -> list[isa.Instruction]:
    """Load input and filters, convolve, relu, store."""
    return [
        copy((NRAM, 0), (INPUT, 0), 64),
        copy((WRAM, 0), (CONSTANTS, 0), PACKED.nbytes),
        signal(DMA, 0),
        isa.Wait(queue="MATRIX", counter=0, value=1),
        conv(),
        isa.Signal(queue="MATRIX", counter=1),
        wait(VECTOR, 1, 1),
        relu(1024, 1024, 36),
        signal(VECTOR, 2),
        wait(DMA, 2, 1),
        copy((OUTPUT, 0), (NRAM, 1024), 144),
    ]


LOAD, LOAD_FILTERS, LOADED, WAIT_LOADED, CONV, DONE, WAIT_DONE, RELU, READY, WAIT_READY, STORE = range(11)


def subnet(instructions: list[isa.Instruction] | np.ndarray) -> DeviceFunction:
    rows = instructions if isinstance(instructions, np.ndarray) else program(*instructions)
    return DeviceFunction(
        name="subnet0",
        inputs=[IORecord.dense("image", (1, 4, 4, 4), "i8")],
        outputs=[IORecord.dense("features", (1, 3, 3, 4), "f32")],
        programs=[rows, EMPTY],
        cores=1,
        debug=[DebugEntry(0, 0, max(len(rows) - 1, 0), "graph.kernel conv1", 'loc("Conv_0")')],
    )


def prove(instructions: list[isa.Instruction] | np.ndarray) -> None:
    check_function(subnet(instructions), PACKED.nbytes, load_board("m2"))


def refusal(instructions: list[isa.Instruction] | np.ndarray) -> str:
    with pytest.raises(CompilerError) as refused:
        prove(instructions)
    return str(refused.value)


def without(*removed: int) -> list[isa.Instruction]:
    return [i for k, i in enumerate(kernel()) if k not in removed]


def replaced(place: int, instruction: isa.Instruction) -> list[isa.Instruction]:
    return [instruction if k == place else i for k, i in enumerate(kernel())]


def test_the_unbroken_kernel_is_proven_and_computes_the_convolution():
    x = np.arange(-32, 32, dtype=np.int8).reshape(4, 4, 4)
    prove(kernel())
    (output,) = run_function(subnet(kernel()), PACKED, [x])
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.int64), (2, 2), axis=(0, 1))
    expected = np.einsum("yxckl,oklc->yxo", windows, FILTERS.astype(np.int64)) / 32
    assert np.array_equal(output.view(np.float32).reshape(3, 3, 4), np.maximum(expected, 0))


def test_an_address_outside_memory():
    text = refusal(replaced(LOAD, copy((NRAM, (384 << 10) - 32), (INPUT, 0), 64)))
    assert "error[E712] copy: writes nram from 0x5ffe0 to 0x60020, of 0x60000 bytes" in text
    assert "subnet0: core 0, row 0" in text
    assert "copy dst=nram+0x5ffe0 src=input0+0x0 run=64" in text
    assert 'emitted for graph.kernel conv1 loc("Conv_0")' in text


def test_a_read_beyond_the_end_of_the_input():
    assert "reads input0 from 0x4 to 0x44, of 0x40 bytes" in refusal(replaced(LOAD, copy((NRAM, 0), (INPUT, 4), 64)))


def test_a_read_beyond_the_end_of_the_constants():
    beyond = copy((WRAM, 0), (CONSTANTS, 64), PACKED.nbytes)
    assert "reads constants" in refusal(replaced(LOAD_FILTERS, beyond))


def test_a_memory_that_the_function_does_not_have():
    assert "writes output1, which the function does not have" in refusal(
        replaced(STORE, copy((OUTPUT + 1, 0), (NRAM, 1024), 144))
    )
    assert "workspace" in refusal(replaced(STORE, copy((WORKSPACE, 0), (NRAM, 1024), 144)))


@pytest.mark.parametrize(
    ("missing", "reader", "writer"),
    [(WAIT_LOADED, "conv", "copy"), (WAIT_DONE, "unary", "conv"), (WAIT_READY, "copy", "unary")],
)
def test_a_missing_wait(missing, reader, writer):
    text = refusal(without(missing))
    assert f"error[E716] {reader}: reads" in text
    assert f"({writer}) writes, and nothing orders the two" in text
    assert "help: signal a counter in the" in text


@pytest.mark.parametrize("missing", [LOADED, DONE, READY])
def test_a_missing_signal(missing):
    assert "error[E715] wait: waits for counter" in refusal(without(missing))


@pytest.mark.parametrize(("missing", "reader"), [(LOAD, "conv"), (LOAD_FILTERS, "conv"), (CONV, "unary"), (RELU, None)])
def test_a_read_before_anything_was_written(missing, reader):
    if reader is None:
        prove(without(missing))  # without relu the sums are stored as they are
    else:
        text = refusal(without(missing))
        assert f"error[E717] {reader}: reads" in text and "which nothing has written" in text


def test_a_store_that_leaves_a_part_of_the_output():
    assert "error[E718] byte 128 of output 0 is never written" in refusal(
        replaced(STORE, copy((OUTPUT, 0), (NRAM, 1024), 128))
    )


@pytest.mark.parametrize("field", ["stride_y", "stride_x", "dilation_y"])
def test_a_zero_stride(field):
    rows = program(*kernel())
    rows[CONV, isa.Conv.column(field)] = 0
    text = refusal(rows)
    assert "error[E711] conv:" in text and f"{field} = 0 is outside 1 to" in text


def test_a_destination_pitch_of_zero():
    assert "destination overlaps itself" in refusal(replaced(CONV, conv(dst_pixel_pitch=0)))


@pytest.mark.parametrize("values", [dict(kh=5), dict(kw=9), dict(kh=2, dilation_y=4)])
def test_a_kernel_larger_than_its_input(values):
    assert "does not fit the input 4x4" in refusal(replaced(CONV, conv(**values)))


def test_endless_work_in_one_instruction():
    endless = isa.Pool(
        dst=1024, src=0, c=1, h=65535, w=65535, kh=4095, kw=4095, stride_y=500, stride_x=500, src_row_pitch=0,
        src_pixel_pitch=0, dst_row_pitch=512, dst_pixel_pitch=4, dtype="F32", function="SUM",
    )  # fmt: skip
    text = refusal([*kernel(), endless])
    assert "error[E713] pool: asks for" in text and "subnet0: core 0, row 11" in text


def test_endless_work_in_many_instructions():
    heavy = isa.Pool(
        dst=4096, src=0, c=2, h=2048, w=2048, kh=1024, kw=1024, stride_y=20, stride_x=20, src_row_pitch=0,
        src_pixel_pitch=0, dst_row_pitch=512, dst_pixel_pitch=4, dtype="F16", function="MAX",
    ).encode()  # fmt: skip
    text = refusal(np.concatenate([np.tile(heavy, (220, 1)), program(*kernel())]))
    assert "elementary steps in all" in text


def test_queues_that_wait_for_each_other():
    deadlock = [wait(DMA, 2, 1), *kernel()]
    text = refusal(deadlock)
    assert "error[E715] wait: hangs: counter 2 stays at 0" in text
    assert "subnet0: core 0, row 0" in text


def test_an_instruction_that_does_not_exist():
    rows = program(*kernel())
    rows[RELU, 0] = 0xDEAD
    text = refusal(rows)
    assert "no instruction has opcode 0xdead" in text and "subnet0: core 0, row 7" in text


def test_a_function_number_that_does_not_exist():
    rows = program(*kernel())
    rows[RELU, isa.Unary.column("function")] = 44
    assert "function = 44 is outside RELU (0), " in refusal(rows)


def test_several_faults_are_reported_together():
    body = kernel()
    body[LOAD] = copy((NRAM, 0), (INPUT, 64), 64)
    body[STORE] = copy((OUTPUT, 64), (NRAM, 1024), 144)
    text = refusal(body)
    assert text.count("error[E712]") == 2
