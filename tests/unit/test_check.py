"""What the proof accepts, what it refuses, and how it names the instruction at fault."""

import numpy as np
import pytest
from programs import (
    CONSTANTS,
    DMA,
    EMPTY,
    INPUT,
    MATRIX,
    NRAM,
    OUTPUT,
    SRAM,
    VECTOR,
    WORKSPACE,
    WRAM,
    barrier,
    check,
    copy,
    double_buffered,
    program,
    relu,
    signal,
    wait,
)

from compiler.errors import CompilerError
from targets.mlu220 import check as check_module
from targets.mlu220 import isa
from targets.mlu220.check import MemorySizes, check_function
from targets.mlu220.container_records import DebugEntry, DeviceFunction, IORecord
from targets.mlu220.hardware import load_board

STORE = copy((OUTPUT, 0), (INPUT, 0), 64)
"""Makes the single output of 64 bytes complete."""


def faults(*cores: np.ndarray, inputs=(64,), outputs=(64,), **values):
    """The diagnostics of a refused function."""
    with pytest.raises(CompilerError) as refused:
        check(*cores, inputs=inputs, outputs=outputs, **values)
    return refused.value.diagnostics


def codes(*cores: np.ndarray, **values) -> list[str]:
    return [d.code for d in faults(*cores, **values)]


# -- accepted --------------------------------------------------------------------------------------------------------
def test_a_copy_of_the_input_is_safe():
    proof = check(program(STORE), inputs=[64], outputs=[64])
    assert proof.order.tolist() == [[0, 0]]
    assert proof.work == 64


def test_the_order_has_every_row_once_and_rows_of_a_queue_in_turn():
    rows = program(*double_buffered(6))
    order = check(rows, inputs=[1536], outputs=[1536]).order
    assert sorted(map(tuple, order.tolist())) == [(0, row) for row in range(len(rows))]
    for queue in (DMA, VECTOR):
        mine = [row for _, row in order.tolist() if isa.queue_of(rows[row : row + 1])[0] == queue]
        assert mine == sorted(mine)


def test_four_cores_and_the_memory_core_meet_at_barriers():
    load = program(copy((SRAM, 0), (INPUT, 0), 64), barrier(0b11111))
    cores = [
        program(barrier(0b11111), copy((NRAM, 0), (SRAM, 0), 64), copy((OUTPUT, 64 * c), (NRAM, 0), 64))
        for c in range(4)
    ]
    proof = check(*cores, memory_core=load, inputs=[64], outputs=[256])
    assert proof.order[0].tolist() == [4, 0]
    assert {tuple(pair) for pair in proof.order.tolist()} == {
        (4, 0),
        (4, 1),
        *((c, r) for c in range(4) for r in range(3)),
    }


def test_a_barrier_of_some_cores_leaves_the_others_alone():
    pair = program(barrier(0b0011))
    assert len(check(program(barrier(0b0011), STORE), pair, EMPTY, inputs=[64], outputs=[64]).order) == 3


def test_two_cores_may_read_the_same_bytes_at_once():
    cores = [program(copy((OUTPUT, 32 * c), (INPUT, 0), 32)) for c in range(2)]
    check(*cores, inputs=[64], outputs=[64])


def test_interleaved_stores_of_two_cores_do_not_race():
    cores = [program(copy((OUTPUT, 8 * c), (INPUT, 0), 8, n2=4, dst_stride2=16, src_stride2=8)) for c in range(2)]
    check(*cores, inputs=[64], outputs=[64])


def test_an_instruction_may_work_in_place():
    body = [copy((NRAM, 0), (INPUT, 0), 64), barrier(1), relu(0, 0, 16), barrier(1), copy((OUTPUT, 0), (NRAM, 0), 64)]
    check(program(*body), inputs=[64], outputs=[64])


def test_a_wait_for_an_earlier_value_orders_only_what_came_before_that_signal():
    early = [
        copy((NRAM, 0), (INPUT, 0), 64), signal(DMA, 0),
        copy((NRAM, 64), (INPUT, 0), 64), signal(DMA, 0),
        wait(VECTOR, 0, 1), relu(128, 64, 16), STORE,
    ]  # fmt: skip
    assert codes(program(*early)) == ["E716"]
    early[4] = wait(VECTOR, 0, 2)
    check(program(*early), inputs=[64], outputs=[64])


def test_order_is_transitive_over_counters_and_cores():
    first = program(copy((SRAM, 0), (INPUT, 0), 64), signal(DMA, 0))
    second = program(wait(DMA, 0, 1), signal(DMA, 1))
    third = program(wait(DMA, 1, 1), copy((OUTPUT, 0), (SRAM, 0), 64))
    check(first, second, third, inputs=[64], outputs=[64])


# -- form ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(cores=0), "0 cores, the chip has 1 to 4"),
        (dict(cores=2), "2 programs for 2 cores and the memory core"),
        (dict(programs=[np.zeros((1, 31), np.int32), EMPTY]), r"program 0 is int32\[1, 31\]"),
        (dict(programs=[np.zeros((1, 32), np.int64), EMPTY]), r"program 0 is int64\[1, 32\]"),
        (dict(outputs=[0]), "output 0 has 0 bytes"),
        (dict(inputs=[4] * 257), "257 inputs"),
        (dict(workspace=-1), "workspace of -1 bytes"),
        (dict(constants=2**31), "constants of 2147483648 bytes"),
        (dict(outputs=[2**31 - 1] * 3), "more than 4294967296"),
    ],
)
def test_a_function_of_impossible_form_is_refused_before_its_rows_are_read(values, message):
    arguments = dict(programs=[program(STORE), EMPTY], cores=1, inputs=[64], outputs=[64]) | values
    with pytest.raises(CompilerError, match=message) as refused:
        check_module.check_programs(**arguments)
    assert refused.value.diagnostics[0].code == "E710"


def test_too_many_rows_are_refused(monkeypatch):
    monkeypatch.setattr(check_module, "MAX_ROWS", 2)
    assert "more than 2 instructions" in faults(program(STORE, STORE, STORE))[0].message


# -- single instructions ---------------------------------------------------------------------------------------------
def test_an_unknown_opcode_is_named_with_its_core_and_row():
    rows = program(STORE, STORE)
    rows[1, 0] = 0x7777
    (fault,) = faults(rows)
    assert (fault.code, fault.message) == ("E711", "no instruction has opcode 0x7777")
    assert fault.where == "function: core 0, row 1"


def test_words_that_no_field_uses_must_be_zero():
    rows = program(STORE)
    rows[0, 31] = 1
    assert "unused" in faults(rows)[0].message


def test_all_illegal_instructions_are_reported_at_once_and_the_rest_counted():
    rows = program(*[STORE] * 30)
    rows[:, 0] = 0x7777
    found = faults(rows)
    assert len(found) == check_module.SHOWN + 1
    assert found[-1].message == "and 10 more of this kind"


def test_the_memory_core_has_no_vector_unit():
    assert "memory core" in faults(program(STORE), memory_core=program(relu(0, 0, 4)))[0].message


def test_a_fault_shows_the_instruction_and_the_op_it_came_from():
    record = IORecord.dense("x", (16,), "f32")
    function = DeviceFunction(
        name="subnet0", inputs=[record], outputs=[record], cores=1, programs=[program(relu(0, 0, 16)), EMPTY],
        debug=[DebugEntry(0, 0, 0, "mlu.relu", 'loc("Relu_1")')],
    )  # fmt: skip
    with pytest.raises(CompilerError) as refused:
        check_function(function, 0, load_board("m2"))
    text = str(refused.value)
    assert "subnet0: core 0, row 0" in text
    assert 'emitted for mlu.relu loc("Relu_1")' in text
    assert "RELU" in text


# -- bounds ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        (copy((NRAM, 0), (INPUT, 1), 64), "reads input0 from 0x1 to 0x41, of 0x40 bytes"),
        (copy((OUTPUT + 1, 0), (INPUT, 0), 64), "writes output1, which the function does not have"),
        (copy((NRAM, 0), (INPUT + 3, 0), 64), "reads input3, which the function does not have"),
        (copy((WORKSPACE, 0), (INPUT, 0), 64), "writes workspace from 0x0 to 0x40, of 0x20 bytes"),
        (copy((NRAM, 0), (CONSTANTS, 0), 64), "reads constants from 0x0 to 0x40, of 0x10 bytes"),
        (relu(0, (384 << 10) - 60, 16), "reads nram from 0x5ffc4 to 0x60004, of 0x60000 bytes"),
        (copy((WRAM, 512 << 10), (INPUT, 0), 1), "writes wram from 0x80000 to 0x80001, of 0x80000 bytes"),
        (copy((SRAM, 1920 << 10), (INPUT, 0), 1), "writes sram from 0x1e0000 to 0x1e0001, of 0x1e0000 bytes"),
    ],
)
def test_an_access_outside_its_memory_is_named(instruction, message):
    (fault,) = faults(program(instruction), workspace=32, constants=16)
    assert (fault.code, fault.message) == ("E712", message)


def test_the_last_byte_of_a_memory_may_be_used():
    size = MemorySizes().sram
    body = [copy((SRAM, size - 64), (INPUT, 0), 64), copy((OUTPUT, 0), (SRAM, size - 64), 64)]
    check(program(*body), inputs=[64], outputs=[64])


def test_strides_and_counts_of_the_largest_words_do_not_overflow_the_bounds():
    far = copy((NRAM, 0), (INPUT, 0), 1, n0=2**24, src_stride0=2**31 - 1, dst_stride0=2**31 - 1)
    assert codes(program(far)) == ["E712", "E712"]


@pytest.mark.parametrize("space", [INPUT, CONSTANTS])
def test_read_only_memory_cannot_be_written(space):
    (fault,) = faults(program(copy((space, 0), (NRAM, 0), 16)), constants=16)
    assert "read-only" in fault.message


def test_a_board_with_less_memory_proves_less():
    small = MemorySizes(nram=32)
    assert codes(program(copy((NRAM, 0), (INPUT, 0), 64), STORE), sizes=small) == ["E712"]


# -- work ------------------------------------------------------------------------------------------------------------
def test_an_instruction_of_endless_work_is_refused():
    endless = isa.Pool(
        dst=1024, src=0, c=2, h=65535, w=65535, kh=4095, kw=4095, stride_y=999, stride_x=999, src_row_pitch=0,
        src_pixel_pitch=0, dst_row_pitch=512, dst_pixel_pitch=4, dtype="F16", function="MAX",
    )  # fmt: skip
    assert list(endless.check()) == []
    (fault,) = faults(program(endless, STORE))
    assert fault.code == "E713" and "elementary steps" in fault.message


def test_many_instructions_of_endless_work_are_refused_together(monkeypatch):
    monkeypatch.setattr(check_module, "MAX_WORK", 100.0)
    (fault,) = faults(program(STORE, STORE))
    assert fault.code == "E713" and "128 elementary steps in all" in fault.message


def test_more_separate_runs_than_can_be_proven_are_refused(monkeypatch):
    monkeypatch.setattr(check_module, "MAX_RUNS", 4.0)
    (fault,) = faults(program(copy((OUTPUT, 0), (INPUT, 0), 1, n2=8, dst_stride2=2, src_stride2=2)))
    assert fault.code == "E713" and "runs" in fault.message


@pytest.mark.parametrize(("name", "limit"), [("MAX_ATOMS", 1), ("MAX_VISITS", 1)])
def test_a_proof_that_would_take_too_long_is_refused(monkeypatch, name, limit):
    monkeypatch.setattr(check_module, name, limit)
    (fault,) = faults(program(copy((NRAM, 0), (INPUT, 0), 8), copy((NRAM, 8), (INPUT, 0), 8), STORE))
    assert fault.code == "E713" and "too many pieces" in fault.message


# -- counters, barriers, deadlock ------------------------------------------------------------------------------------
def test_a_counter_is_signalled_by_one_queue_only():
    (fault,) = faults(program(signal(DMA, 5), signal(VECTOR, 5), STORE))
    assert fault.code == "E714"
    assert fault.message == "counter 5 is signalled by the DMA queue at core 0, row 0 too"


def test_a_wait_for_more_signals_than_exist_is_refused():
    (fault,) = faults(program(signal(DMA, 5), wait(VECTOR, 5, 2), STORE))
    assert (fault.code, fault.where) == ("E715", "function: core 0, row 1")
    assert fault.message == "waits for counter 5 to reach 2, but it is signalled 1 times"


def test_queues_that_wait_for_each_other_are_all_named():
    found = faults(program(wait(DMA, 1, 1), signal(DMA, 0), wait(VECTOR, 0, 1), signal(VECTOR, 1), STORE))
    assert [(d.code, d.where) for d in found] == [
        ("E715", "function: core 0, row 0"),
        ("E715", "function: core 0, row 2"),
    ]
    assert "counter 1 stays at 0" in found[0].message


def test_cores_that_meet_at_barriers_in_another_order_hang():
    first = program(barrier(0b011), barrier(0b101), STORE)
    second = program(barrier(0b011))
    third = program(barrier(0b101), barrier(0b101))
    found = faults(first, second, third)
    assert [(d.code, d.where) for d in found] == [("E715", "function: core 2, row 1")]
    assert "barrier of the same mask" in found[0].message


def test_a_barrier_of_a_core_without_a_program_is_refused():
    (fault,) = faults(program(barrier(0b101), STORE))
    assert fault.message == "the barrier names core 2, which runs no program"


def test_a_barrier_must_name_its_own_core():
    assert "own core" in faults(program(STORE), program(barrier(0b01)))[0].message


def test_a_queue_behind_a_barrier_that_another_queue_cannot_reach_hangs():
    found = faults(program(wait(MATRIX, 0, 1), barrier(1), signal(DMA, 0), STORE))
    assert [d.where for d in found] == ["function: core 0, row 0", "function: core 0, row 1"]


# -- races and unwritten memory --------------------------------------------------------------------------------------
LOAD, COMPUTE = copy((NRAM, 0), (INPUT, 0), 64), relu(64, 0, 16)


def test_a_read_that_does_not_wait_for_the_write_is_a_race():
    (fault,) = faults(program(LOAD, COMPUTE, STORE))
    assert fault.code == "E716"
    assert fault.message == "reads nram+0x0, which core 0, row 0 (copy) writes, and nothing orders the two"
    assert "signal a counter in the DMA queue after core 0, row 0" in fault.help


def test_a_write_over_what_is_still_read_is_a_race():
    body = [LOAD, signal(DMA, 0), wait(VECTOR, 0, 1), COMPUTE, LOAD, STORE]
    (fault,) = faults(program(*body))
    assert fault.code == "E716" and "reads, and nothing orders" in fault.message


def test_two_writes_of_two_cores_are_a_race():
    (fault,) = faults(program(STORE), program(STORE))
    assert fault.message == "writes output0+0x0, which core 0, row 0 (copy) writes, and nothing orders the two"


def test_writes_that_share_one_byte_are_a_race():
    first = program(copy((OUTPUT, 0), (INPUT, 0), 33))
    assert codes(first, program(copy((OUTPUT, 32), (INPUT, 0), 32))) == ["E716"]


def test_private_memories_of_two_cores_do_not_meet():
    check(program(LOAD, STORE), program(LOAD), inputs=[64], outputs=[64])


def test_a_barrier_orders_the_queues_of_a_core():
    check(program(LOAD, barrier(1), COMPUTE, STORE), inputs=[64], outputs=[64])


def test_memory_is_empty_when_a_function_starts():
    (fault,) = faults(
        program(copy((WORKSPACE, 0), (INPUT, 0), 32), copy((OUTPUT, 0), (WORKSPACE, 0), 64)), workspace=64
    )
    assert fault.code == "E717" and "which nothing has written" in fault.message


def test_inputs_and_constants_are_written_before_the_start():
    check(program(copy((OUTPUT, 0), (CONSTANTS, 0), 64)), outputs=[64], constants=64)


def test_an_output_with_a_hole_is_refused_naming_its_first_byte():
    body = [copy((OUTPUT, 0), (INPUT, 0), 16), copy((OUTPUT, 20), (INPUT, 0), 44)]
    (fault,) = faults(program(*body))
    assert (fault.code, fault.message) == ("E718", "byte 16 of output 0 is never written")


def test_every_incomplete_output_is_named():
    found = faults(program(STORE), outputs=(64, 8, 8))
    assert [d.message for d in found] == [f"byte 0 of output {k} is never written" for k in (1, 2)]


def test_a_filter_that_was_not_loaded_whole_is_noticed():
    conv = isa.Conv(
        dst=1024, src=0, filters=0, ci=4, h=1, w=1, kh=1, kw=1, co=1, src_row_pitch=4, src_pixel_pitch=4,
        dst_row_pitch=4, dst_pixel_pitch=4, src_type="I8", filter_type="I8", dst_type="F32",
    )  # fmt: skip
    for size, expected in ((256, None), (255, "E717")):
        body = program(LOAD, copy((WRAM, 0), (INPUT, 0), size), barrier(1), conv, copy((OUTPUT, 0), (INPUT, 0), 64))
        if expected is None:
            check(body, inputs=[256], outputs=[64])
        else:
            assert codes(body, inputs=(256,)) == [expected]


def test_an_empty_function_without_outputs_is_safe():
    assert check(EMPTY).order.shape == (0, 2)
