"""What the compiler's choices are worth on the modelled chip, how long compilation takes, and how it grows with the
graph.

`pytest tests/benchmarks --benchmark-enable --models DIR` runs these with the other benchmarks and prints the
ratios.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler import driver
from compiler.batch import load_batch
from compiler.frontend.load import load
from compiler.instruments import TimePasses
from compiler.ir.core import Module
from runtime.profile import Profile, profile
from targets.mlu220.hardware import load_board
from tests.journeys import emitted, legalised, placed, random_inputs
from tests.light_models import save_light_model
from tests.networks import Network

SIZES = (100, 300, 1000, 3000, 10_000)
"""Ops of the generated graphs."""


@pytest.fixture(scope="module", autouse=True)
def only_when_enabled(request: pytest.FixtureRequest) -> None:
    """These take minutes: the default run, which switches benchmarks off, leaves them out."""
    options = request.config.option
    if options.benchmark_disable and not options.benchmark_enable:
        pytest.skip("benchmarks are off; give --benchmark-enable")


# -- on the modelled chip --------------------------------------------------------------------------------------------
def mobilenet_v2(models: Path, folder: Path) -> Module:
    return load(models / "mobilenet_v2_imagenet.onnx", {"input": (1, 3, 224, 224)})


def resnet_50(models: Path, folder: Path) -> Module:
    """The light topology with random weights, batch 4."""
    path = save_light_model("resnet50", folder)
    return load_batch(lambda shapes: load(path, shapes), 4)[0]


NETWORKS = {"MobileNetV2, batch 1": mobilenet_v2, "ResNet-50, batch 4": resnet_50}


@pytest.fixture(scope="module", params=NETWORKS)
def network_of(request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A name and the legalised module. Calibrated on noise: ranges change no cycle."""
    module = NETWORKS[request.param](models, tmp_path_factory.mktemp("light"))
    return request.param, legalised(module, [random_inputs(module, 0)])[1]


def profiled(legal: Module, cores: int = 4, schedule: str = "schedule", **options: str) -> Profile:
    return profile(emitted(placed(legal, schedule, cores=cores, **options), cores), load_board("m2"))


CHOICES: dict[str, tuple[dict[str, Any], float]] = {
    "four cores over one": ({"cores": 1}, 2.5),
    "double buffering over single": ({"schedule": "schedule{buffers=1}"}, 1.1),
    "fusion over one op a kernel": ({"fuse": "fuse-layers{elementwise=false}", "chain": ""}, 1.5),
    "chains of kernels over single ones": ({"chain": ""}, 1.1),
    "keeping on chip over storing": ({"keep": ""}, 1.05),
}
"""What the default is compared with, and the least speed-up that is expected."""


def test_what_choices_are_worth(benchmark: Any, network_of: tuple[str, Module], show: Callable[..., None]) -> None:
    name, legal = network_of
    best = benchmark.pedantic(lambda: profiled(legal), rounds=1)
    traffic = best.traffic()
    moved = traffic["ddr_read"] + traffic["ddr_write"]
    found = {what: profiled(legal, **without).cycles / best.cycles for what, (without, _) in CHOICES.items()}
    benchmark.extra_info.update(
        cycles=best.cycles, utilisation=round(best.utilisation, 4), macs_repeated=round(best.repeated, 4),
        ddr_bytes=moved, ddr_lower_bound=best.ddr_lower_bound, **{k: round(v, 3) for k, v in found.items()},
    )  # fmt: skip
    show(f"{name}: {best.cycles} cycles, {1e3 * best.seconds:.2f} ms, {best.utilisation:.1%} of the matrix units")
    show(f"ddr {moved / 1e6:.2f} MB, {moved / best.ddr_lower_bound:.2f} times inputs, weights and outputs once")
    for what, ratio in found.items():
        show(f"{what}: {ratio:.2f} times as fast")
        assert ratio >= CHOICES[what][1]


# -- time to compile -------------------------------------------------------------------------------------------------
def compile_timed(module: Module, scheme: Any) -> dict[str, float]:
    """Seconds per pass, of emission and in all, without the verifier."""
    times = TimePasses()
    start = time.perf_counter()
    driver.compile_model(module, scheme=scheme, instruments=[times], verify_each=False, crash_directory=None)
    total = time.perf_counter() - start
    found = dict(times.seconds)
    return {**found, "emit": total - sum(found.values()), "all": total}


@pytest.mark.parametrize("name", ["mobilenet_v2_imagenet", "squeezenet_imagenet", "resnet50", "densenet121"])
def test_seconds_per_pass(
    benchmark: Any, models: Path, tmp_path: Path, name: str, show: Callable[..., None]
) -> None:
    path = models / f"{name}.onnx" if "imagenet" in name else save_light_model(name, tmp_path)
    shapes = {"input": (1, 3, 224, 224)} if name.startswith("mobilenet") else {}
    module = driver.prepare(load(path, shapes), crash_directory=None)
    scheme = driver.calibrate(module, [random_inputs(module, 0)], "minmax")
    seconds = benchmark.pedantic(lambda: compile_timed(module, scheme), rounds=1)
    benchmark.extra_info.update({name: round(s, 3) for name, s in seconds.items()})
    show(f"{name}: " + ", ".join(f"{name} {s:.2f} s" for name, s in seconds.items()))


def network(ops: int) -> Module:
    """A chain of convolutions with activations and short cuts, of so many ops."""
    net = Network((1, 8, 8, 8))
    x = net.x
    for k in range(0, ops, 4):
        gate = net.relu(net.conv(x, 8, f"c{k}", kernel=3), f"r{k}")
        x = net.add(net.op("nn.sigmoid", gate, name=f"s{k}"), gate, f"a{k}")
    return net.done(x)


def test_compile_time_grows_no_faster_than_the_graph(benchmark: Any, show: Callable[..., None]) -> None:
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
    show("seconds: " + ", ".join(f"{n} ops {seconds[n]['all']:.2f}" for n in SIZES))
    show("exponents: " + ", ".join(f"{name} {slope:.2f}" for name, slope in slopes.items()))
    assert slopes["all"] <= 1.2
    slow = {name: slope for name, slope in slopes.items() if seconds[SIZES[-1]][name] > 1.0 and slope > 1.4}
    assert not slow
