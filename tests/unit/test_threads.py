"""The pool: the same bytes for every number of host threads, run after run, whoever else is using the machine."""

from __future__ import annotations

import multiprocessing
import threading
from itertools import pairwise

import numpy as np
import pytest

from runtime import Session, machine
from runtime.machine import Arena, Executor, Plan, Pool, Regions, shared_pool
from targets.mlu220.container import OfflineModel
from tests.chains import offline_model, random_chains, same_bits
from tests.isa_strategies import random_inputs


@pytest.fixture(autouse=True)
def wake_threads_for_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs here are short; without this they would run on the calling thread."""
    monkeypatch.setattr(machine, "WORTH_WAKING", 0.0)


def case(seed: int, cores: int = 4, layers: int = 3) -> tuple[OfflineModel, dict[str, np.ndarray]]:
    model = offline_model(random_chains(seed, cores, layers))
    return model, {r.name: x for r, x in zip(model.inputs, random_inputs(seed), strict=True)}


def run(session: Session, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    result = session.run(inputs)
    assert isinstance(result, dict)
    return result


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(same_bits(a[name], b[name]) for name in a)


@pytest.mark.parametrize("seed", range(4))
def test_any_number_of_threads_gives_the_same_bytes_every_time(seed: int) -> None:
    model, inputs = case(seed)
    expected = run(Session(model, threads=1), inputs)
    for threads in (2, 3, 4, 7):
        session = Session(model, threads=threads)
        assert all(same(expected, run(session, inputs)) for _ in range(15))


def test_sessions_with_as_many_threads_share_a_pool() -> None:
    assert shared_pool(3) is shared_pool(3)
    assert shared_pool(3) is not shared_pool(2)


def test_sessions_that_run_at_the_same_time_do_not_disturb_each_other() -> None:
    cases = [case(seed, 2, 2) for seed in range(3)]
    sessions = [Session(model, threads=2) for model, _ in cases]
    expected = [run(Session(model, threads=1), inputs) for model, inputs in cases]
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(25):
            if not same(expected[k], run(sessions[k], cases[k][1])):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_busy_processors_only_slow_a_run_down() -> None:
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            np.sort(np.random.default_rng(0).normal(size=20000))

    burners = [threading.Thread(target=burn) for _ in range(3)]
    for burner in burners:
        burner.start()
    try:
        model, inputs = case(11)
        expected = run(Session(model, threads=1), inputs)
        session = Session(model, threads=4)
        assert all(same(expected, run(session, inputs)) for _ in range(10))
    finally:
        stop.set()
        for burner in burners:
            burner.join()


def test_a_pool_can_be_closed_and_its_threads_end() -> None:
    pool = Pool(3)
    threads = list(pool._threads)
    pool.close()
    assert not any(thread.is_alive() for thread in threads)


def _run_in_child(model: OfflineModel, inputs: dict[str, np.ndarray], queue: multiprocessing.Queue) -> None:
    queue.put(run(Session(model, threads=2), inputs))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_gets_threads_of_its_own() -> None:
    model, inputs = case(5, 2, 2)
    expected = run(Session(model, threads=2), inputs)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_run_in_child, args=(model, inputs, queue))
    child.start()
    found = queue.get(timeout=60)
    child.join(timeout=60)
    assert child.exitcode == 0
    assert same(expected, found)


def test_a_run_that_is_interrupted_is_finished_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers must have left before the next run is written where they read."""
    model, inputs = case(5, 2, 2)
    session = Session(model, threads=2)
    expected = run(session, inputs)
    (plan,) = session._plans.values()
    executor, pool = session._executor, Pool(2)
    place = (executor._arena.address, executor._scratch_address, executor._scratch_bytes)
    wake = pool._wake.release

    def interrupted(count: int) -> None:
        wake(count)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pool._wake, "release", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.run(plan, *place)
    assert pool._control[pool._first] % 2 == 0 and pool._control[pool._first + 16] == 0, "closed, and nobody inside"
    pool.run(plan, *place)
    pool.close()
    assert same(expected, run(session, inputs))


def test_regions_are_aligned_and_disjoint_with_slack_before_and_after() -> None:
    regions = Regions()
    places = [(regions.take(size), size) for size in (1, 300, 0, 256, 7)]
    arena = Arena(regions.end)
    assert all(offset % 256 == 0 and offset >= 4096 for offset, _ in places)
    assert all(a + size <= b for (a, size), (b, _) in pairwise(places))
    assert len(arena.bytes) >= regions.end + 4096 and arena.address % 256 == 0


def test_short_plans_leave_the_other_threads_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "WORTH_WAKING", 1.0)
    monkeypatch.setattr(machine, "shared_pool", None)
    model, inputs = case(5, 1, 1)
    run(Session(model, threads=2), inputs)


def test_an_empty_plan_runs() -> None:
    plan = Plan(np.zeros((0, 48), np.int64), np.zeros((0, 4), np.int64), 0, [], [], [])
    for threads in (1, 2):
        Executor(Arena(4096), [plan], threads).run(plan)
