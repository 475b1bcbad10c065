"""Oracle and simulator give the same bytes: random instructions and layers, any host threads, any translation."""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.numerics import ROUNDINGS
from runtime import Session, machine
from tests.chains import offline_model, random_chains, same_bits
from tests.crowded_programs import crowded_function
from tests.isa_strategies import KINDS, RandomFunction, programs, random_function, random_inputs

SLOW_START = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
STEPS = ("fuse", "elide", "overlap")


@pytest.fixture(autouse=True, scope="module")
def wake_threads_for_any_work() -> Iterator[None]:
    """The programs here are short; without this they would run on the calling thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "WORTH_WAKING", 0.0)
        yield


def named_inputs(function: RandomFunction, seed: int) -> dict[str, np.ndarray]:
    records = function.function.inputs
    return {r.name: array for r, array in zip(records, random_inputs(seed, special=True), strict=True)}


def assert_same(function: RandomFunction, seed: int, rounding: str = "nearest-even", **options: object) -> None:
    assert_same_on(named_inputs(function, seed), function, rounding, **options)


def assert_same_on(
    inputs: dict[str, np.ndarray], function: RandomFunction, rounding: str = "nearest-even", **options: object
) -> None:
    model = offline_model(function, rounding)
    expected = Session(model, engine="oracle").run(inputs)
    found = Session(model, **options).run(inputs)  # type: ignore[arg-type]
    assert isinstance(expected, dict) and isinstance(found, dict)
    for name, array in expected.items():
        assert same_bits(array, found[name]), f"{name}: {array.ravel()[:8]} is not {found[name].ravel()[:8]}"


@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_every_kind_of_instruction_computes_what_the_oracle_does(kind: str) -> None:
    for seed in range(6):
        function = random_function(seed, cores=1, length=3, kinds=[kind])
        assert_same(function, seed, rounding=ROUNDINGS[seed % 2], threads=1, translate=False)


@SLOW_START
@given(function=programs(), seed=st.integers(0, 2**31), rounding=st.sampled_from(ROUNDINGS))
def test_random_programs_give_the_oracles_bytes(function: RandomFunction, seed: int, rounding: str) -> None:
    assert_same(function, seed, rounding, threads=2)


@SLOW_START
@given(
    seed=st.integers(0, 2**31), cores=st.sampled_from([1, 2, 4]), layers=st.integers(1, 3),
    rounding=st.sampled_from(ROUNDINGS), threads=st.sampled_from([1, 2, 4]),
)  # fmt: skip
def test_random_layers_give_the_oracles_bytes(seed: int, cores: int, layers: int, rounding: str, threads: int) -> None:
    assert_same(random_chains(seed, cores, layers), seed, rounding, threads=threads)


CROWDED = [range(25), *(pytest.param(range(k, k + 50), marks=pytest.mark.slow) for k in (100, 200))]


@pytest.mark.parametrize("block", CROWDED)
def test_memory_that_is_used_again_and_again_holds_what_the_oracles_does(block: range) -> None:
    for seed in block:
        function, inputs = crowded_function(seed)
        assert_same_on(inputs, function, ROUNDINGS[seed % 2], threads=1 + seed % 2)


@pytest.mark.parametrize("switches", list(itertools.product([False, True], repeat=3)))
def test_no_step_of_translation_changes_a_byte(switches: tuple[bool, ...]) -> None:
    steps = dict(zip(STEPS, switches, strict=True))
    for seed in range(100, 106):
        assert_same(random_chains(seed, 1 + seed % 2, 3), seed, threads=1 + seed % 2, translate=steps)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_many_random_layers_give_the_oracles_bytes(block: int) -> None:
    for seed in range(1000 + 60 * block, 1060 + 60 * block):
        cores, threads = (1, 2, 4)[seed % 3], (1, 2, 3)[seed // 3 % 3]
        assert_same(random_chains(seed, cores, 4), seed, ROUNDINGS[seed % 2], threads=threads)


@pytest.mark.slow
@pytest.mark.parametrize("features", ["", "+sse2,+sse4.2,+avx,+avx2,+f16c,+fma"])
def test_processors_without_the_special_instructions_give_the_same_bytes(features: str) -> None:
    """Without VNNI, with and without F16C, as Numba compiles for another processor; x86 only."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the processors named are x86")
    code = (
        "from tests.property import test_simulator_equals_oracle as t\n"
        "from runtime.kernels import vnni\n"
        "assert not vnni.AVAILABLE\n"
        "for seed in range(200, 230):\n"
        "    t.assert_same(t.random_chains(seed, 1 + seed % 2, 3), seed, threads=1 + seed % 2)\n"
    )
    target = {"NUMBA_CPU_NAME": "haswell" if features else "generic", "NUMBA_CPU_FEATURES": features}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **target}, check=True)
