"""What translation joins, elides and overlaps, what it must leave alone, and that its descriptors stay in the arena."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from compiler.errors import CompilerError
from runtime import Session
from runtime.dataflow import NOBODY, SEVERAL, analyse, levels
from runtime.kernels import layout as L  # noqa: N812
from runtime.lowering import offset_table
from runtime.operations import Access, Geometry, Operation, Placed, Rows, Vector
from runtime.packing import Packer, _tile
from runtime.translate import Options
from targets.mlu220 import isa
from targets.mlu220.container import DeviceFunction, IORecord
from tests.chains import offline_model, random_chains, same_bits
from tests.crowded_programs import ordered
from tests.isa_strategies import RandomFunction, random_inputs

EMPTY = np.zeros((0, isa.ROW_WORDS), np.int32)
N, INPUT, OUTPUT, NRAM, CONSTANTS = 64, isa.INPUT, isa.OUTPUT, isa.NRAM, isa.CONSTANTS


def load(dst: int, offset: int = 0, size: int = 4 * N, space: int = INPUT) -> isa.Copy:
    return isa.Copy(dst=(NRAM, dst), src=(space, offset), run=size)


def store(src: int, offset: int = 0, size: int = 4 * N) -> isa.Copy:
    return isa.Copy(dst=(OUTPUT, offset), src=(NRAM, src), run=size)


def relu(dst: int, src: int) -> isa.Unary:
    return isa.Unary(dst=dst, src=src, count=N, dtype="F32", function="RELU")


def binary(dst: int, a: int, b: int = 0, function: str = "ADD", mode: str = "FULL", **values: object) -> isa.Binary:
    return isa.Binary(dst=dst, a=a, b=b, count=N, dtype="F32", function=function, mode=mode, **values)


def session(*instructions: isa.Instruction, outputs: int = 1, constants: int = 0, **options: object) -> Session:
    """A session of one core's program from f32[2 * N] to f32[outputs * N], its result held against the oracle."""
    records = [IORecord.dense("x", (2 * N,), "f32"), IORecord.dense("y", (outputs * N,), "f32")]
    data = np.random.default_rng(0).normal(size=constants).astype(np.float32).view(np.uint8)
    function = DeviceFunction(
        name="f", inputs=records[:1], outputs=records[1:], programs=[ordered(*instructions), EMPTY], cores=1
    )
    model = offline_model(RandomFunction(function, data))
    made = Session(model, threads=1, **options)  # type: ignore[arg-type]
    x = np.random.default_rng(1).normal(size=2 * N).astype(np.float32)
    expected, found = Session(model, engine="oracle").run(x), made.run(x)
    assert isinstance(expected, np.ndarray) and isinstance(found, np.ndarray)
    assert same_bits(expected, found)
    return made


def count(made: Session, stage: str = "after fuse") -> int:
    return made.statistics["f"][stage]


# -- fusing -----------------------------------------------------------------------------------------------------------
def test_a_run_of_elementwise_instructions_becomes_one_call_with_load_and_store() -> None:
    made = session(
        load(0), relu(0, 0), binary(0, 0, mode="CONST", function="MUL", constant=3.0), relu(512, 0), store(512)
    )
    assert count(made) == 1


def test_without_fusing_every_instruction_is_a_call() -> None:
    made = session(load(0), relu(0, 0), relu(512, 0), store(512), translate={"fuse": False, "elide": False})
    assert count(made) == count(made, "operations") == 4


def test_a_second_reader_keeps_the_intermediate() -> None:
    one = session(load(0), relu(512, 0), relu(1024, 512), store(1024))
    two = session(load(0), relu(512, 0), relu(1024, 512), store(1024), store(512, 4 * N), outputs=2)
    assert count(one) == 1
    assert count(two) == 3


def test_an_operand_that_is_overwritten_in_between_stops_the_chain() -> None:
    late = [relu(512, 0), load(256, 256), binary(512, 512, 256), store(512)]
    assert count(session(load(0), load(256), *late, translate={"elide": False})) == 4
    # the chain's own source is overwritten between its two instructions: relu must happen before
    overwritten = [relu(512, 0), load(0, 256), binary(512, 512, 0), store(512)]
    assert count(session(load(0), *overwritten, translate={"elide": False})) == 4


def test_a_residual_may_come_through_either_operand() -> None:
    for a, b in ((512, 256), (256, 512)):
        made = session(load(0), load(256, 256), relu(512, 0), binary(512, a, b, function="SUB"), store(512))
        assert count(made) == 1


def test_a_store_over_another_operand_with_a_shift_is_not_joined() -> None:
    """dst overlaps what an earlier member reads, at other positions: blocks would read what others stored."""
    made = session(
        load(0), relu(1024, 0), relu(16, 1024), load(2048, 256), binary(2048, 2048, 16), store(2048),
        translate={"elide": False},
    )  # fmt: skip
    assert count(made) >= 4


def test_a_store_over_the_heads_source_is_not_joined_where_that_is_read_several_times() -> None:
    """Four times the same 64 floats become 256 int8 in the same bytes: not element by element."""
    made = session(
        load(0),
        isa.Unary(dst=1024, src=0, rows=4, count=N, dst_pitch=4 * N, src_pitch=0, dtype="F32", function="ABS"),
        isa.Convert(
            dst=0, src=1024, rows=4, count=N, dst_pitch=N, src_pitch=4 * N, src_type="F32", dst_type="I8", position=-4
        ),
        store(0, size=2 * N), store(2 * N, 2 * N, size=2 * N), translate={"elide": False},
    )  # fmt: skip
    assert count(made) == count(made, "operations")


HALF = {"run": 2 * N, "n2": 2}
TWICE = isa.Unary(dst=1024, src=512, rows=2, count=N // 2, dst_pitch=2 * N, src_pitch=0, dtype="F32", function="ABS")
LOOK_ALIKES = {
    "the result's first half is read twice": [relu(512, 0), TWICE, store(1024)],
    "the result's first half is copied twice": [
        relu(512, 0), isa.Copy(dst=(OUTPUT, 0), src=(NRAM, 512), dst_stride2=2 * N, **HALF)
    ],
    "the other operand begins in the middle of the result": [
        load(640), relu(512, 0), binary(1024, 512, 640), store(1024)
    ],
    "a member's result lies over one half of an operand, a load over the other": [
        relu(512, 0), relu(128, 512), load(0, 256, size=128), relu(1024, 128), store(1024)
    ],
}  # fmt: skip


@pytest.mark.parametrize("program", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
def test_what_only_looks_like_a_chain_computes_what_it_says(program: list[isa.Instruction]) -> None:
    session(load(0), *program, translate={"elide": False})


def test_fusing_random_layers_saves_calls() -> None:
    saved = 0
    for seed in range(12):
        model = offline_model(random_chains(seed, 1, 3))
        statistics = Session(model, threads=1).statistics["subnet0"]
        saved += statistics["after elide"] - statistics["after fuse"]
    assert saved > 40


# -- eliding ----------------------------------------------------------------------------------------------------------
def test_constants_are_read_where_they_lie() -> None:
    made = session(
        load(0), load(256, space=CONSTANTS), binary(512, 0, 256), store(512), constants=N, translate={"fuse": False}
    )
    assert count(made, "after elide") == 2


@pytest.mark.parametrize(("second", "calls"), [(128, 2), (192, 4)])
def test_constants_that_come_in_pieces_are_read_where_they_lie_together(second: int, calls: int) -> None:
    """Over another memory, too; from two places they are a tile that was gathered."""
    pieces = [
        isa.Copy(dst=(isa.SRAM, 0), src=(CONSTANTS, 0), run=128),
        isa.Copy(dst=(isa.SRAM, 128), src=(CONSTANTS, second), run=128), load(256, space=isa.SRAM),
    ]  # fmt: skip
    made = session(load(0), *pieces, binary(512, 0, 256), store(512), constants=2 * N, translate={"fuse": False})
    assert count(made, "after elide") == calls


def test_rows_that_a_copy_brings_closer_together_are_not_read_where_they_were() -> None:
    rows = isa.Copy(dst=(NRAM, 256), src=(CONSTANTS, 0), dst_stride2=2 * N, src_stride2=4 * N, **HALF)
    session(load(0), rows, binary(512, 0, 256), store(512), constants=2 * N, translate={"fuse": False})


def test_a_copy_whose_source_changes_before_the_reader_stays() -> None:
    relay = isa.Copy(dst=(NRAM, 512), src=(NRAM, 0), run=4 * N)
    made = session(load(0), relay, load(0, 256), binary(1024, 512, 0), store(1024), translate={"fuse": False})
    assert count(made, "after elide") == 2, "the relayed bytes are still in the input, so both copies can go"
    spoiled = session(
        load(0), relu(0, 0), relay, load(0, 256), binary(1024, 512, 0), store(1024), translate={"fuse": False}
    )
    assert count(spoiled, "after elide") == 4, "the relu's result is gone from its place: the relay stays"


def test_a_reader_that_writes_over_the_origin_reads_the_copy() -> None:
    relay = isa.Copy(dst=(NRAM, 1024), src=(NRAM, 0), run=4 * N)
    made = session(load(0), relu(0, 0), relay, relu(16, 1024), store(16), translate={"fuse": False})
    assert count(made, "after elide") == 4


def test_outputs_are_written_even_if_nobody_reads_them() -> None:
    made = session(load(0), store(0), translate={"fuse": False})
    assert count(made, "after elide") == 1


# -- overlapping ------------------------------------------------------------------------------------------------------
def touched(access: Access) -> set[int]:
    """Every byte of an access."""
    offsets = itertools.product(*(range(0, c * s, s) if c > 1 else (0,) for c, s in zip(*access[2:], strict=True)))
    return {access.base + sum(o) + k for o in offsets for k in range(access.run)}


def operation(reads: list[Access], writes: list[Access]) -> Operation:
    return Operation(kernel="copy", words={}, reads=reads, writes=writes, work=1.0)


def run_of(base: int, run: int = 8, rows: int = 1, pitch: int = 0) -> Access:
    return Access(base, run, (1, 1, rows), (0, 0, pitch if rows > 1 else 0))


def random_operations(seed: int) -> list[Operation]:
    rng = np.random.default_rng(seed)

    def access() -> Access:
        rows, run = int(rng.integers(1, 4)), int(rng.integers(1, 9))
        return run_of(int(rng.integers(64, 120)), run, rows, run + int(rng.integers(0, 5)))

    return [operation([access() for _ in range(rng.integers(0, 3))], [access()]) for _ in range(12)]


@pytest.mark.parametrize("seed", range(20))
def test_levels_put_every_conflict_in_order_and_nothing_else_is_needed(seed: int) -> None:
    operations = random_operations(seed)
    level = levels(operations, 256)
    bytes_read = [set().union(*map(touched, o.reads)) for o in operations]
    bytes_written = [set().union(*map(touched, o.writes)) for o in operations]
    for i, j in itertools.combinations(range(len(operations)), 2):
        conflict = bytes_written[i] & (bytes_read[j] | bytes_written[j]) or bytes_read[i] & bytes_written[j]
        assert not conflict or level[i] < level[j]


@pytest.mark.parametrize("seed", range(20))
def test_flow_names_the_last_writer_and_the_next_one(seed: int) -> None:
    operations = random_operations(100 + seed)
    flow = analyse(operations, 256)
    writers: dict[int, int] = {}
    for i, o in enumerate(operations):
        for k, access in enumerate(o.reads):
            sources = {writers.get(byte, NOBODY) for byte in touched(access)}
            assert flow.read(i, k) == (sources.pop() if len(sources) == 1 else SEVERAL)
        for k, access in enumerate([*o.reads, *o.writes]):
            later = [j for j in range(i + 1, 12) if touched(access) & set().union(*map(touched, operations[j].writes))]
            assert flow.next_write[flow.first[i] + k] == (later[0] if later else 12)
        writers.update(dict.fromkeys(set().union(*map(touched, o.writes)), i))


def test_cores_that_do_not_meet_share_a_phase() -> None:
    function = random_chains(3, cores=4, layers=2)
    statistics = Session(offline_model(function), threads=2).statistics["subnet0"]
    assert statistics["phases"] < statistics["after fuse"] / 2


# -- geometry, tables, packing ----------------------------------------------------------------------------------------
def vector(rows: int, count: int, mode: int = L.CONST, period: int = 0, pitch: int | None = None) -> Vector:
    dense = count * 4 if pitch is None else pitch
    operand = Rows(0, dense, L.TYPE_F32)
    return Vector(rows, count, operand, operand, 2, mode, Rows(64, count * 4, L.TYPE_F32), period)


def test_dense_rows_fit_every_geometry_and_strided_ones_only_their_own() -> None:
    assert vector(4, 6).step(Geometry(2, 2, 6)) is not None
    assert vector(1, 24, L.CYCLE, 6).step(Geometry(2, 2, 6)) is not None
    assert vector(1, 24, L.CYCLE, 4).step(Geometry(2, 2, 6)) is None
    strided = vector(2, 12, pitch=64)
    assert strided.place(strided.source, Geometry(2, 2, 6)) == Placed(0, 64, 24, L.TYPE_F32)
    assert strided.place(strided.source, Geometry(1, 1, 24)) is None


def test_row_operands_need_their_own_rows() -> None:
    assert vector(4, 6, L.ROW).step(Geometry(4, 1, 6)) is not None
    assert vector(4, 6, L.ROW).step(Geometry(1, 1, 24)) is None


def test_tiles_waste_as_few_pixels_as_they_can() -> None:
    for pixels, columns, expected in ((49, 64, 7), (16, 64, 8), (8, 160, 8), (1, 1000, 1), (28, 16, 14), (3, 32, 4)):
        assert _tile(Geometry(1, pixels, columns)) == expected, (pixels, columns)


def test_offsets_follow_runs_of_rows_or_of_taps() -> None:
    row, masks = offset_table((2, 3, 3, 0, 0, 1, 100, 3))
    assert row.tolist() == [0, 4, 8, 100, 104, 108]
    assert masks.tolist() == [-1, -1, 0xFF] * 2
    tap, _ = offset_table((1, 2, 6, 1, 0, 1, 100, 7))
    assert tap.tolist() == [0, 4, 7, 11]
    wide, _ = offset_table((1, 1, 6, 0, 0, 2, 100, 12))
    assert wide.tolist() == [0, 8], "int16 activations with int8 filters take 8 bytes a step"


def test_the_same_filters_may_be_read_as_many_columns_or_as_many_steps() -> None:
    """What sums begin with depends on the form, not only on where the filters lie."""
    filters = isa.Copy(dst=(isa.WRAM, 0), src=(CONSTANTS, 0), run=4 * 64 * 2)
    shape = {"src": 0, "filters": 0, "h": 1, "w": 1, "kh": 1, "kw": 1, "src_row_pitch": 0, "dst_type": "F32"}
    shape |= {"src_type": "I8", "filter_type": "I8", "fix_position": -7}
    wide = isa.Conv(dst=512, ci=4, co=64, src_pixel_pitch=4, **shape)
    deep = isa.Conv(dst=1024, ci=8, co=32, src_pixel_pitch=8, **shape)
    session(load(0), filters, wide, deep, store(512), store(1024, 4 * N, size=128), load(2048), store(2048, 384, 128),
            outputs=2, constants=128)  # fmt: skip


def test_an_address_outside_the_arena_is_refused() -> None:
    packer = Packer(np.zeros(4096, np.uint8), None)  # type: ignore[arg-type]
    with pytest.raises(CompilerError, match="leaves the arena"):
        packer.pack([operation([run_of(4090)], [run_of(128)])])


def test_an_unknown_step_of_translation_is_an_error_with_a_hint() -> None:
    with pytest.raises(CompilerError, match="fuse"):
        Options.of({"fuze": True})
    assert Options.of(False) == Options(False, False, False)
    assert Options.of({"elide": False}) == Options(True, False, True)


def test_descriptors_do_not_depend_on_the_number_of_threads() -> None:
    model = offline_model(random_chains(8, 2, 3))
    counts = []
    for threads in (1, 2):
        made = Session(model, threads=threads)
        made.run({r.name: x for r, x in zip(made.inputs, random_inputs(0), strict=True)})
        (plan,) = made._plans.values()
        counts.append(plan.descriptors[:, L.CHUNKS].tolist())
    assert counts[0] == counts[1]
