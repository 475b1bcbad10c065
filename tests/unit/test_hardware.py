"""Boards: the ones that come along, the basis of their numbers, and faults of board files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from compiler.errors import CompilerError
from targets.mlu220.hardware import TAGS, board_names, board_of, load_board, own_numbers

ENTRY = '{ value = %s, unit = "Hz", tag = "C", source = "test" }'


def fail(path) -> list:
    with pytest.raises(CompilerError) as caught:
        load_board(path)
    return list(caught.value.diagnostics)


def test_three_boards_come_along():
    assert board_names() == ["edge", "m2", "som"]


@pytest.mark.parametrize(("name", "tops"), [("m2", 8.19), ("som", 13.1), ("edge", 13.1)])
def test_peak_int8_rate_is_the_published_one(name, tops):
    assert load_board(name).peak_ops_per_second(8) / 1e12 == pytest.approx(tops, rel=0.01)


def test_16_bit_runs_at_half_the_rate():
    board = load_board("m2")
    assert (board.macs_per_cycle(8), board.macs_per_cycle(16)) == (2048, 1024)


def test_usable_sizes_leave_the_stacks_share():
    board = load_board("m2")
    assert (board.nram_usable_bytes, board.sram_usable_bytes) == (384 << 10, 1920 << 10)
    assert board.wram_bytes == 512 << 10


@pytest.mark.parametrize("name", ["m2", "som", "edge"])
def test_every_number_says_what_it_rests_on(name):
    rows = list(load_board(name).describe())
    assert len(rows) == len(dataclasses.fields(load_board(name))) - 3
    for field, value, tag, source in rows:
        assert field and value and tag in TAGS and source


def test_numbers_the_vendor_never_published_are_tagged_as_assumptions():
    basis = load_board("m2").basis
    for name in ("ddr_latency_cycles", "sram_bytes_per_cycle", "issue_cycles", "joules_per_vector_op"):
        assert basis[name].tag == "U" and "assumed" in basis[name].source


def test_a_replaced_value_is_marked_as_the_users():
    board = load_board("m2").with_values(clock_hz=700e6)
    assert board.clock_hz == 700e6
    assert str(board.basis["clock_hz"]) == "[user] given on the command line"
    assert board.basis["clock_hz"].unit == "Hz"


def test_a_board_file_may_extend_a_known_board(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "som"\nclock_hz = ' + ENTRY % "650e6")
    board = load_board(path)
    assert (board.name, board.clock_hz) == ("mine", 650e6)
    assert board.peak_watts == load_board("som").peak_watts


def test_an_unknown_board_names_the_nearest():
    (fault,) = fail("m3")
    assert fault.code == "E690" and "did you mean 'm2'" in fault.help


def test_a_board_file_reports_every_fault_at_once(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(
        'extends = "m2"\nclock_herz = 5\nclock_hz = 500\ncores = ' + ENTRY % "1.5" + "\nissue_cycles = " + ENTRY % "-1"
    )
    messages = [fault.message for fault in fail(path)]
    assert len(messages) == 4
    assert any("unknown entry 'clock_herz'; did you mean 'clock_hz'" in m for m in messages)
    assert any("clock_hz must be a table" in m for m in messages)
    assert any("cores must be whole" in m for m in messages)
    assert any("issue_cycles must be a number of at least 0" in m for m in messages)


def test_a_board_file_without_base_must_be_complete(tmp_path):
    path = tmp_path / "empty.toml"
    path.write_text("")
    messages = [fault.message for fault in fail(path)]
    assert "nram_bytes is missing" in messages and "peak_watts is missing" in messages


def test_boards_that_extend_each_other_are_refused(tmp_path):
    (tmp_path / "a.toml").write_text('extends = "b.toml"')
    (tmp_path / "b.toml").write_text('extends = "a.toml"')
    (fault,) = fail(tmp_path / "a.toml")
    assert "in a circle" in fault.message


def test_an_unreadable_file_names_the_file(tmp_path):
    (tmp_path / "broken.toml").write_text("clock = [")
    for name in ("broken.toml", "absent.toml"):
        (fault,) = fail(tmp_path / name)
        assert fault.code == "E691" and name in fault.where


def test_a_memory_on_the_chip_that_no_simulator_could_allocate_is_refused(tmp_path: Path) -> None:
    number = '{value = 1e15, unit = "B", tag = "U", source = "test"}'
    (tmp_path / "huge.toml").write_text(f'extends = "m2"\nnram_usable_bytes = {number}\n')
    with pytest.raises(CompilerError, match="nram_usable_bytes must be at most"):
        load_board(tmp_path / "huge.toml")


def test_an_offline_model_names_a_board_of_mluc_s_and_holds_the_numbers_of_another(tmp_path: Path) -> None:
    class Model:
        board = "som"
        metadata: dict[str, object] = {}

    som, other = load_board("som"), load_board("som").with_values(clock_hz=5e8)
    assert own_numbers(som) == {} and board_of(Model()) == som
    Model.metadata = own_numbers(other)
    assert board_of(Model()) == other and board_of(Model()).basis == other.basis
