"""The waits a stream puts between queues: enough for the proof, and not one too many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.errors import CompilerError
from targets.mlu220 import isa
from targets.mlu220.check import check_programs
from targets.mlu220.stream import Stream

SLOT = 256
"""Bytes of a slot: 64 fp32 numbers."""

EMPTY = np.zeros((0, isa.ROW_WORDS), "<i4")
FILTERS_SLOT = 99


def load(stream: Stream, slot: int) -> None:
    stream.add(isa.Copy(dst=(isa.NRAM, slot * SLOT), src=(isa.INPUT, 0), run=SLOT), [slot], [])


def store(stream: Stream, slot: int, number: int) -> None:
    stream.add(isa.Copy(dst=(isa.OUTPUT, number * SLOT), src=(isa.NRAM, slot * SLOT), run=SLOT), [], [slot])


def relu(stream: Stream, dst: int, src: int) -> None:
    stream.add(isa.Unary(dst=dst * SLOT, src=src * SLOT, count=64, dtype="F32", function="RELU"), [dst], [src])


def add(stream: Stream, dst: int, a: int, b: int) -> None:
    instruction = isa.Binary(
        dst=dst * SLOT, a=a * SLOT, b=b * SLOT, rows=1, count=64, dst_pitch=SLOT, a_pitch=SLOT, b_pitch=SLOT,
        dtype="F32", function="ADD", mode="FULL",
    )  # fmt: skip
    stream.add(instruction, [dst], [a, b])


def load_filters(stream: Stream) -> None:
    stream.add(isa.Copy(dst=(isa.WRAM, 0), src=(isa.CONSTANTS, 0), run=256), [FILTERS_SLOT], [])


def conv(stream: Stream, dst: int, src: int) -> None:
    instruction = isa.Conv(
        dst=dst * SLOT, src=src * SLOT, filters=0, ci=4, h=1, w=1, kh=1, kw=1, co=64, src_row_pitch=4,
        src_pixel_pitch=4, dst_row_pitch=SLOT, dst_pixel_pitch=SLOT, src_type="I8", filter_type="I8", dst_type="F32",
    )  # fmt: skip
    stream.add(instruction, [dst], [src, FILTERS_SLOT])


Step = tuple[str, int, int, int]
steps = st.lists(
    st.tuples(st.sampled_from(("load", "store", "relu", "add", "conv")), *[st.integers(0, 3)] * 3),
    min_size=1, max_size=14,
)  # fmt: skip


def emit(chosen: list[Step], phases: int = 1) -> tuple[np.ndarray, int]:
    """The program of the steps, legal when run one after the other, and the number of stores."""
    stream = Stream(0)
    load_filters(stream)
    for slot in range(4):
        load(stream, slot)
    stores = 0
    for index, (kind, dst, a, b) in enumerate(chosen):
        if phases > 1 and index and index % -(-len(chosen) // phases) == 0:
            stream.barrier(0b1)
        if kind == "load":
            load(stream, dst)
        elif kind == "store":
            store(stream, dst, stores)
            stores += 1
        elif kind == "relu":
            relu(stream, dst, a)
        elif kind == "add":
            add(stream, dst, a, b)
        elif a != dst:
            conv(stream, dst, a)
    store(stream, 0, stores)
    return stream.finish(), stores + 1


def prove(program: np.ndarray, stores: int) -> None:
    check_programs(
        [program, EMPTY], cores=1, workspace=0, inputs=[SLOT], outputs=[stores * SLOT], constants=256, name="test"
    )


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps, st.integers(1, 3))
def test_the_proof_accepts_what_the_stream_synchronised(chosen: list[Step], phases: int) -> None:
    prove(*emit(chosen, phases))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_every_wait_is_needed(chosen: list[Step]) -> None:
    program, stores = emit(chosen)
    for index in np.flatnonzero(program[:, 0] == isa.Wait.opcode):
        without = np.delete(program, index, axis=0)
        with pytest.raises(CompilerError, match="E71"):
            prove(without, stores)


def kinds(program: np.ndarray) -> list[str]:
    return [isa.decode(row).name for row in program]


def test_a_queue_need_not_wait_for_itself() -> None:
    stream = Stream(0)
    load(stream, 0)
    load(stream, 0)
    store(stream, 0, 0)
    assert kinds(stream.finish()) == ["copy"] * 3


def test_one_signal_serves_several_waits() -> None:
    """Vector and matrix queue wait for the same load."""
    stream = Stream(0)
    load_filters(stream)
    load(stream, 0)
    relu(stream, 1, 0)
    conv(stream, 2, 0)
    assert kinds(stream.finish()).count("signal") == 1


def test_what_an_earlier_wait_implies_is_not_waited_for_again() -> None:
    stream = Stream(0)
    load(stream, 0)
    load(stream, 1)
    relu(stream, 2, 1)
    relu(stream, 3, 0)
    assert kinds(stream.finish()).count("wait") == 1


def test_what_another_queue_waited_for_is_known_through_it() -> None:
    """The convolution waits for relu, which waited for the load; it need not wait for the load as well."""
    stream = Stream(0)
    load_filters(stream)
    load(stream, 0)
    relu(stream, 1, 0)
    add_to = kinds(stream.finish()).count("wait")
    stream = Stream(0)
    load_filters(stream)
    load(stream, 0)
    relu(stream, 1, 0)
    conv(stream, 2, 1)
    assert kinds(stream.finish()).count("wait") == add_to + 1


def test_counters_go_on_counting_after_a_barrier() -> None:
    stream = Stream(1)
    for _ in range(2):
        load(stream, 0)
        relu(stream, 1, 0)
        stream.barrier(0b10)
    waits = [i for i in map(isa.decode, stream.finish()) if i.name == "wait"]
    assert [w.value for w in waits] == [1, 2] and {w.counter for w in waits} == {1 * isa.QUEUES + isa.Queue.DMA}


def test_runs_of_rows_remember_their_tag() -> None:
    stream = Stream(0)
    stream.tag = 4
    load(stream, 0)
    relu(stream, 1, 0)
    stream.tag = 7
    store(stream, 1, 0)
    stream.tag = -1
    load(stream, 2)
    rows = stream.finish()
    runs = stream.runs()
    assert [tag for _, _, tag in runs] == [4, 7]
    assert runs[0][0] == 0 and runs[0][1] + 1 == runs[1][0] and runs[1][1] == len(rows) - 2
