"""What the compiler's choices are worth on the modelled chip, how long compilation takes, and how it grows with the
graph.

`pytest tests/benchmarks --benchmark-enable -s --models DIR` runs these with the other benchmarks and prints the
ratios.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler import driver
from compiler.frontend.load import load
from compiler.instruments import TimePasses
from compiler.ir.core import Module
from targets.mlu220.hardware import load_board
from targets.mlu220.timeline import simulate
from tests.journeys import emitted, legalised, placed, random_inputs
from tests.networks import Network

SIZES = (100, 500, 1000, 5000)
"""Ops of the generated graphs."""


@pytest.fixture(scope="module", autouse=True)
def only_when_enabled(request: pytest.FixtureRequest) -> None:
    """These take minutes: the default run, which switches benchmarks off, leaves them out."""
    options = request.config.option
    if options.benchmark_disable and not options.benchmark_enable:
        pytest.skip("benchmarks are off; give --benchmark-enable")


# -- on the modelled chip --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def mobilenet(models: Path) -> Module:
    """MobileNetV2, legalised. Calibrated on noise: ranges change no cycle."""
    module = load(models / "mobilenet_v2_imagenet.onnx", {"input": (1, 3, 224, 224)})
    return legalised(module, [random_inputs(module, 0)])[1]


def cycles(legal: Module, cores: int, schedule: str = "schedule", **options: str) -> int:
    model = emitted(placed(legal, schedule, cores=cores, **options), cores)
    return sum(simulate(f.programs, load_board("m2")).total_cycles for f in model.device_functions)


CHOICES: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "four cores over one": ({"cores": 1}, {"cores": 4}, 2.0),
    "double buffering over single": ({"cores": 4, "schedule": "schedule{buffers=1}"}, {"cores": 4}, 1.1),
    "fusion over one op a kernel": (
        {"cores": 4, "fuse": "fuse-layers{elementwise=false}", "chain": ""},
        {"cores": 4},
        1.5,
    ),
    "chains of kernels over single ones": ({"cores": 4, "chain": ""}, {"cores": 4}, 1.0),
}
"""What is compared: without, with, and the least speed-up that is expected."""


@pytest.mark.parametrize("name", CHOICES)
def test_what_a_choice_is_worth_on_mobilenet_v2(benchmark: Any, mobilenet: Module, name: str) -> None:
    without, with_it, least = CHOICES[name]
    slow, fast = cycles(mobilenet, **without), benchmark.pedantic(lambda: cycles(mobilenet, **with_it), rounds=1)
    benchmark.extra_info.update(cycles_without=slow, cycles_with=fast, ratio=round(slow / fast, 3))
    print(f"\n{name}: {slow} -> {fast} cycles, {slow / fast:.2f} times as fast")
    assert slow / fast >= least


# -- time to compile -------------------------------------------------------------------------------------------------
def compile_timed(module: Module, scheme: Any) -> dict[str, float]:
    """Seconds per pass, of emission and in all, without the verifier."""
    times = TimePasses()
    start = time.perf_counter()
    driver.compile_model(module, scheme=scheme, instruments=[times], verify_each=False, crash_directory=None)
    total = time.perf_counter() - start
    found = dict(times.seconds)
    return {**found, "emit": total - sum(found.values()), "all": total}


@pytest.mark.parametrize("file", ["mobilenet_v2_imagenet.onnx", "squeezenet_imagenet.onnx"])
def test_seconds_per_pass(benchmark: Any, models: Path, file: str) -> None:
    shapes = {"input": (1, 3, 224, 224)} if file.startswith("mobilenet") else {}
    module = driver.prepare(load(models / file, shapes), crash_directory=None)
    scheme = driver.calibrate(module, [random_inputs(module, 0)], "minmax")
    seconds = benchmark.pedantic(lambda: compile_timed(module, scheme), rounds=1)
    benchmark.extra_info.update({name: round(s, 3) for name, s in seconds.items()})
    print(f"\n{file}: " + ", ".join(f"{name} {s:.2f} s" for name, s in seconds.items()))
    assert seconds["all"] < 60


def network(ops: int) -> Module:
    """A chain of convolutions with activations and short cuts, of so many ops."""
    net = Network((1, 8, 8, 8))
    x = net.x
    for k in range(0, ops, 4):
        gate = net.relu(net.conv(x, 8, f"c{k}", kernel=3), f"r{k}")
        x = net.add(net.op("nn.sigmoid", gate, name=f"s{k}"), gate, f"a{k}")
    return net.done(x)


def test_compile_time_grows_no_faster_than_the_graph(benchmark: Any) -> None:
    """Slope of log time over log size, as a whole and for every pass that takes a second at the largest size."""
    seconds: dict[int, dict[str, float]] = {}

    def measure() -> None:
        for ops in (SIZES[0], *SIZES):  # the first is thrown away: imports and compiled helpers
            module = driver.prepare(network(ops), crash_directory=None)
            scheme = driver.calibrate(module, [random_inputs(module, 0)], "minmax")
            seconds[ops] = compile_timed(module, scheme)

    benchmark.pedantic(measure, rounds=1)
    slopes = {
        name: float(np.polyfit(np.log(SIZES), np.log([max(seconds[n][name], 1e-4) for n in SIZES]), 1)[0])
        for name in seconds[SIZES[-1]]
    }
    benchmark.extra_info.update(
        {f"seconds_{n}": round(seconds[n]["all"], 2) for n in SIZES}, exponent=round(slopes["all"], 2)
    )
    print("\nseconds: " + ", ".join(f"{n} ops {seconds[n]['all']:.2f}" for n in SIZES))
    print("exponents: " + ", ".join(f"{name} {slope:.2f}" for name, slope in slopes.items()))
    assert slopes["all"] <= 1.3
    slow = {name: slope for name, slope in slopes.items() if seconds[SIZES[-1]][name] > 1.0 and slope > 1.4}
    assert not slow
