"""Cycles, bytes and operations of instructions, and how streams overlap in time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isa_strategies import programs

from compiler.errors import CompilerError
from targets.mlu220 import isa
from targets.mlu220.cost import cycles, quantities, transfers
from targets.mlu220.hardware import load_board
from targets.mlu220.isa import CONSTANTS, INPUT, NRAM, OUTPUT, SRAM, WORKSPACE, WRAM
from targets.mlu220.timeline import simulate

BOARD = load_board("m2")
EMPTY = np.zeros((0, 32), np.int32)


def conv(ci=64, co=64, size=16, kernel=3, **changes):
    out = size - kernel + 1
    pixel = ci * (2 if changes.get("src_type") == "I16" else 1)
    values = dict(
        src=0, dst=0x30000, filters=0, ci=ci, h=size, w=size, kh=kernel, kw=kernel, co=co, src_row_pitch=size * pixel,
        src_pixel_pitch=pixel, dst_row_pitch=out * co * 2, dst_pixel_pitch=co * 2, src_type="I8", filter_type="I8",
        dst_type="F16", runs="TAP",
    )  # fmt: skip
    return isa.Conv(**{**values, **changes})


def one(instruction) -> int:
    return int(cycles(instruction.encode()[None], BOARD)[0])


def copy(dst=NRAM, src=INPUT, run=4096, at=0, **changes):
    return isa.Copy(dst=(dst, at), src=(src, 0), run=run, **changes)


def rows(*instructions):
    return isa.encode_program(instructions)


# -- single instructions --------------------------------------------------------------------------------------------
def test_a_convolution_follows_the_first_order_formula():
    assert one(conv()) == 14 * 14 * 9 * 2 * 1 + BOARD.issue_cycles
    assert one(conv(ci=65, co=65)) == 14 * 14 * 9 * 3 * 2 + BOARD.issue_cycles


def test_16_bit_operands_halve_the_rate():
    assert one(conv(src_type="I16")) - BOARD.issue_cycles == 2 * (one(conv()) - BOARD.issue_cycles)


def test_row_runs_stream_over_a_whole_kernel_row():
    assert one(conv(ci=3, runs="TAP")) - BOARD.issue_cycles == 14 * 14 * 9
    assert one(conv(ci=3, runs="ROW")) - BOARD.issue_cycles == 14 * 14 * 3


def test_a_full_convolution_reaches_the_published_peak():
    work = 14 * 14 * 9 * 64 * 64
    assert work / (one(conv()) - BOARD.issue_cycles) == 2048


def test_vector_work_takes_128_bytes_per_cycle():
    add = isa.Binary(dst=0, a=0, b=8192, count=4096, dtype="F16", function="ADD")
    assert one(add) == 64 + BOARD.issue_cycles
    short = isa.Binary(dst=0, a=0, b=65536, rows=100, count=3, dtype="F16", function="ADD", dst_pitch=64, a_pitch=64,
                       b_pitch=64)  # fmt: skip
    assert one(short) == 100 + BOARD.issue_cycles


def test_transcendental_functions_take_more_passes_than_relu():
    def unary(function):
        return one(isa.Unary(dst=0, src=0, count=6400, dtype="F16", function=function)) - BOARD.issue_cycles

    assert unary("EXP") == BOARD.transcendental_passes * unary("RELU")


def test_windows_cost_by_taps():
    def pool(k):
        values = dict(dst=0x20000, src=0, c=64, h=16, w=16, src_row_pitch=2048, src_pixel_pitch=128, dtype="F16")
        n = 17 - k
        return one(isa.Pool(**values, kh=k, kw=k, function="MAX", dst_row_pitch=n * 128, dst_pixel_pitch=128))

    assert pool(2) == 15 * 15 * 4 + BOARD.issue_cycles
    assert pool(3) == 14 * 14 * 9 + BOARD.issue_cycles


def test_a_copy_from_ddr_pays_latency_and_bandwidth():
    cost = one(copy(run=1 << 20, dst=SRAM))
    assert cost == BOARD.ddr_latency_cycles + int(np.ceil((1 << 20) / BOARD.ddr_bytes_per_cycle))


def test_short_runs_pay_for_whole_bursts():
    dense = copy(run=64 * 64)
    scattered = copy(run=4, n2=1024, dst_stride2=4, src_stride2=128)
    assert scattered.run * scattered.n2 == dense.run
    assert one(scattered) > 5 * one(dense)


def test_neighbouring_runs_cost_as_one():
    strided = copy(run=64, n2=64, dst_stride2=64, src_stride2=64)
    assert one(strided) == one(copy(run=4096))


def test_copies_inside_the_core_do_not_touch_the_ddr_channel():
    t = transfers(rows(copy(NRAM, SRAM), copy(WRAM, NRAM), copy(NRAM, CONSTANTS), copy(WORKSPACE, INPUT)), BOARD)
    assert (t.channel > 0).tolist() == [False, False, True, True]
    assert t.channel[3] > t.channel[2]


def test_control_takes_no_unit_time():
    program = rows(isa.Signal(queue=0, counter=0), isa.Wait(queue=0, counter=0, value=1), isa.Barrier(mask=1))
    assert cycles(program, BOARD).tolist() == [0, 0, 0]


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 12), st.integers(1, 3), st.data())
def test_a_larger_convolution_is_never_cheaper(ci, co, extra, kernel, data):
    size = kernel + extra
    grown = data.draw(st.sampled_from([(ci + 7, co, size), (ci, co + 7, size), (ci, co, size + 1)]))
    for runs in ("ROW", "TAP"):
        small = one(conv(ci, co, size, kernel, runs=runs))
        assert one(conv(*grown, kernel, runs=runs)) >= small


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.sampled_from([SRAM, INPUT, NRAM]))
def test_a_larger_copy_is_never_cheaper(run, more, space):
    assert one(copy(src=space, run=run + more, at=2 << 20)) >= one(copy(src=space, run=run, at=2 << 20))


# -- quantities -----------------------------------------------------------------------------------------------------
def test_bytes_are_counted_by_memory():
    q = quantities(rows(copy(NRAM, INPUT, 100), copy(SRAM, NRAM, 100), copy(OUTPUT, SRAM, 50)))
    assert (q.ddr_read.tolist(), q.ddr_write.tolist()) == ([100, 0, 0], [0, 0, 50])
    assert (q.nram.tolist(), q.sram.tolist()) == ([100, 100, 0], [0, 100, 50])
    assert q.total().ddr == 150


def test_a_copy_that_repeats_its_source_reads_as_much_as_it_writes():
    repeated = isa.Copy(dst=(NRAM, 0), src=(CONSTANTS, 0), run=64, n2=3, dst_stride2=64, src_stride2=0)
    q = quantities(rows(repeated))
    assert (q.ddr_read.tolist(), q.nram.tolist()) == ([192], [192])


def test_multiply_adds_are_counted_by_width_and_vector_operations_apart():
    q = quantities(rows(conv(), conv(src_type="I16"), isa.Binary(dst=0, a=0, count=9, dtype="F16", function="MUL",
                                                                  mode="CONST", constant=1.0)))  # fmt: skip
    work = 14 * 14 * 9 * 64 * 64
    assert q.macs8.tolist() == [work, 0, 0]
    assert q.macs16.tolist() == [0, work, 0]
    assert q.vector_ops.tolist() == [0, 0, 9]


# -- streams --------------------------------------------------------------------------------------------------------
def test_queues_of_a_core_run_side_by_side():
    load, compute = copy(run=1 << 16), conv()
    timeline = simulate([rows(load, compute), EMPTY], BOARD)
    assert timeline.total_cycles == max(one(load), one(compute))
    assert timeline.start[0].tolist() == [0, 0]


def test_a_wait_holds_its_queue_until_the_signal():
    load = copy(run=1 << 16)
    program = rows(load, isa.Signal(queue="DMA", counter=5), isa.Wait(queue="MATRIX", counter=5, value=1), conv())
    timeline = simulate([program, EMPTY], BOARD)
    assert timeline.start[0][3] == one(load) + BOARD.sync_cycles
    assert timeline.waiting[0].tolist() == [0, one(load) + BOARD.sync_cycles, 0]
    assert timeline.busy[0].tolist() == [one(load), one(conv()), 0]


def test_double_buffering_hides_the_shorter_of_load_and_compute():
    steps = []
    for k in range(20):
        if k >= 2:
            steps.append(isa.Wait(queue="DMA", counter=1, value=k - 1))
        steps += [copy(run=16384, at=k % 2 * 16384), isa.Signal(queue="DMA", counter=0)]
        steps += [isa.Wait(queue="MATRIX", counter=0, value=k + 1), conv(), isa.Signal(queue="MATRIX", counter=1)]
    timeline = simulate([rows(*steps), EMPTY], BOARD)
    assert timeline.total_cycles < 20 * one(conv()) * 1.05
    assert timeline.utilisation > 0.9


def test_the_ddr_channel_is_shared():
    alone = simulate([rows(copy(run=1 << 18)), EMPTY], BOARD).total_cycles
    both = simulate([rows(copy(run=1 << 18))] * 2 + [EMPTY], BOARD)
    assert both.total_cycles == 2 * alone - BOARD.ddr_latency_cycles
    assert both.ddr_busy == 2 * (alone - BOARD.ddr_latency_cycles)


def test_on_chip_copies_of_different_cores_do_not_disturb_each_other():
    programs_ = [rows(copy(NRAM, SRAM, 1 << 16))] * 4 + [EMPTY]
    assert simulate(programs_, BOARD).total_cycles == one(copy(NRAM, SRAM, 1 << 16))


def test_a_barrier_releases_all_when_the_last_arrives():
    slow, fast = rows(conv(), isa.Barrier(mask=0b11), conv()), rows(isa.Barrier(mask=0b11), conv())
    timeline = simulate([slow, fast, EMPTY], BOARD)
    release = one(conv()) + BOARD.sync_cycles
    assert timeline.start[0][2] == timeline.start[1][1] == release
    assert timeline.end[1][0] == release


def test_barriers_follow_one_another():
    program = rows(*[isa.Barrier(mask=0b10011)] * 5)
    assert simulate([program] * 3, BOARD).total_cycles == 5 * BOARD.sync_cycles


@pytest.mark.parametrize(
    "program",
    [[isa.Wait(queue=1, counter=0, value=1)], [isa.Barrier(mask=0b11)],
     [isa.Wait(queue=0, counter=3, value=1), isa.Signal(queue=0, counter=3)]],
)  # fmt: skip
def test_programs_that_never_end_are_refused(program):
    with pytest.raises(CompilerError, match="E760"):
        simulate([rows(*program), EMPTY], BOARD)


@pytest.mark.parametrize("ddr", [True, False])
def test_four_cores_are_not_slower_than_one(ddr):
    work = [copy(run=1 << 14, src=INPUT if ddr else SRAM), conv()] * 4
    single = simulate([rows(*work), EMPTY], BOARD)
    quad = simulate([rows(*work[:2])] * 4 + [EMPTY], BOARD)
    assert quad.total_cycles <= single.total_cycles
    assert quad.totals == single.totals


def test_a_faster_clock_takes_less_time_but_not_fewer_ddr_seconds():
    program = [rows(copy(run=1 << 20, dst=SRAM)), EMPTY]
    slow, fast = simulate(program, BOARD), simulate(program, BOARD.with_values(clock_hz=1000e6))
    assert fast.total_cycles > slow.total_cycles
    assert fast.ddr_busy / 1000e6 == pytest.approx(slow.ddr_busy / 500e6, rel=1e-3)


def test_rooflines_bound_the_time_from_below_and_name_the_resource():
    heavy = simulate([rows(copy(), conv(), conv()), EMPTY], BOARD)
    assert heavy.bound == "matrix" and heavy.roofline["matrix"] <= heavy.total_cycles
    moving = simulate([rows(copy(run=1 << 18)), EMPTY], BOARD)
    assert moving.bound == "ddr" and moving.roofline["ddr"] <= moving.total_cycles


def test_energy_adds_up_and_idle_power_counts():
    timeline = simulate([rows(copy(), conv()), EMPTY], BOARD)
    assert timeline.joules == pytest.approx(sum(timeline.energy.values()))
    assert timeline.energy["matrix"] == pytest.approx(14 * 14 * 9 * 64 * 64 * BOARD.joules_per_mac_int8)
    assert timeline.energy["idle"] == pytest.approx(BOARD.idle_watts * timeline.seconds)
    assert timeline.watts > BOARD.idle_watts


def test_full_load_stays_near_the_boards_peak_power():
    steps = [copy(run=8192), *[conv(size=30, dst=0x10000, co=64)] * 2] * 8
    timeline = simulate([rows(*steps)] * 4 + [EMPTY], BOARD)
    assert 0.7 * BOARD.peak_watts < timeline.watts < 1.1 * BOARD.peak_watts


def test_an_empty_function_takes_no_time():
    timeline = simulate([EMPTY, EMPTY], BOARD)
    assert (timeline.total_cycles, timeline.utilisation, timeline.watts) == (0, 0.0, 0.0)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_every_instruction_of_a_legal_program_runs_in_queue_order(made):
    timeline = simulate(made.function.programs, BOARD)
    assert timeline.total_cycles == max(e.max() for e in timeline.end if len(e))
    for program, start, end in zip(made.function.programs, timeline.start, timeline.end, strict=True):
        assert (end >= start).all()
        assert ((end - start) >= cycles(program, BOARD)).all()
        queue = isa.queue_of(program)
        for q in range(isa.QUEUES):
            index = np.flatnonzero((queue == q) | (queue == isa.ALL_QUEUES))
            assert (start[index][1:] >= end[index][:-1]).all()
    assert max(timeline.roofline.values()) <= timeline.total_cycles + 1
