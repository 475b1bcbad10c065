"""The profile of an offline model: sums over functions and calls, units, memories, and what every figure rests on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from runtime import Session
from targets.mlu220.container import HostFunction, Step
from targets.mlu220.timeline import simulate
from tests.chains import offline_model, random_chains
from tests.unit.test_session import HOST_TEXT, affine, image_record, model


def test_a_profile_adds_up_the_timelines_of_all_calls() -> None:
    twice = model()
    twice.functions.append(affine("subnet1"))
    twice.steps += [Step("subnet1", ("out",), ("a",)), Step("subnet1", ("a",), ("b",))]
    session = Session(twice)
    profile = session.profile()
    cycles = [simulate(f.programs, session.board).total_cycles for f in twice.device_functions]
    assert [f.calls for f in profile.functions] == [1, 2]
    assert profile.cycles == cycles[0] + 2 * cycles[1]
    assert profile.seconds == pytest.approx(session.board.seconds(profile.cycles))
    assert profile.joules == pytest.approx(sum(profile.energy().values()))


def test_traffic_counts_what_crosses_the_memory_channel() -> None:
    made = Session(model())
    size = made.inputs[0].bytes
    traffic = made.profile().traffic()
    assert traffic["ddr_read"] == size and traffic["ddr_write"] == size
    assert made.profile().transfer_seconds == pytest.approx(2 * size / made.board.host_bytes_per_second)


def test_units_are_busy_between_none_and_all_of_the_time() -> None:
    profile = Session(offline_model(random_chains(2, 2, 2))).profile()
    assert 0 < profile.utilisation < 1 or profile.macs == 0
    for function in profile.functions:
        parts = function.unit_utilisation()
        assert set(parts) == {"dma", "matrix", "vector", "memory core"}
        assert all(0 <= part <= 1 for part in parts.values())


def test_text_and_data_say_the_same_and_name_their_basis() -> None:
    profile = Session(offline_model(random_chains(2, 2, 2))).profile()
    text, data = str(profile), profile.as_dict()
    assert json.loads(json.dumps(data)) == data
    assert f"{data['cycles']} cycles" in text
    assert "analytical" in text and "basis of latency: clock_hz [" in text
    assert all(line for lines in profile.basis().values() for line in lines)


def test_host_functions_are_listed_and_not_timed() -> None:
    mixed = model()
    host = HostFunction(name="host0", text=HOST_TEXT, inputs=[image_record("a")], outputs=[image_record("b")])
    mixed.functions.append(host)
    mixed.steps.append(Step("host0", ("out",), ("b",)))
    profile = Session(mixed).profile()
    assert profile.host_functions == ["host0"] and "host0 (not timed)" in str(profile)
    assert profile.cycles == Session(model()).profile().cycles


def test_a_profile_does_not_run_the_model() -> None:
    session = Session(model(), threads=1)
    before = session._arena.bytes.copy()
    session.profile()
    assert np.array_equal(before, session._arena.bytes)
