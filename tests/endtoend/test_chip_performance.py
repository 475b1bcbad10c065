"""How busy ResNet-50 (light topology, random weights, batch 4) and MobileNetV2 keep the modelled chip of board m2.

Floors a little below what is reached; the figures themselves are printed by the benchmarks.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from compiler.batch import load_batch
from compiler.frontend.load import load
from compiler.ir.core import Module
from runtime.profile import Profile, profile
from targets.mlu220.hardware import load_board
from tests.journeys import emitted, legalised, placed, random_inputs
from tests.light_models import save_light_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory: pytest.TempPathFactory) -> Module:
    """Batch 4, legalised; calibrated on noise."""
    path = save_light_model("resnet50", tmp_path_factory.mktemp("light"))
    module, copies = load_batch(lambda shapes: load(path, shapes), 4)
    path.unlink()
    assert copies == 1
    return legalised(module, [random_inputs(module, 0)])[1]


@pytest.fixture(scope="module")
def mobilenet(models: Path) -> Module:
    module = load(models / "mobilenet_v2_imagenet.onnx", {"input": (1, 3, 224, 224)})
    return legalised(module, [random_inputs(module, 0)])[1]


def profiled(legal: Module, cores: int = 4, **passes: str) -> Profile:
    return profile(emitted(placed(legal, cores=cores, **passes), cores), load_board("m2"))


@pytest.fixture(scope="module")
def resnet50_profile(resnet50: Module) -> Profile:
    return profiled(resnet50)


@pytest.fixture(scope="module")
def mobilenet_profile(mobilenet: Module) -> Profile:
    return profiled(mobilenet)


def test_resnet50_uses_three_quarters_of_the_matrix_units(resnet50_profile: Profile) -> None:
    assert resnet50_profile.utilisation >= 0.74
    assert resnet50_profile.repeated < 0.01
    assert resnet50_profile.cycles <= 2_680_000


def test_mobilenet_v2_takes_three_quarters_of_a_millisecond(mobilenet_profile: Profile) -> None:
    assert mobilenet_profile.cycles <= 378_000


def test_four_cores_are_worth_more_than_three_on_resnet50(resnet50: Module, resnet50_profile: Profile) -> None:
    assert profiled(resnet50, cores=1).cycles / resnet50_profile.cycles >= 3.25


def test_four_cores_are_worth_nearly_three_on_mobilenet_v2(mobilenet: Module, mobilenet_profile: Profile) -> None:
    assert profiled(mobilenet, cores=1).cycles / mobilenet_profile.cycles >= 2.9


@pytest.mark.parametrize(
    ("without", "least"),
    [({"schedule": "schedule{buffers=1}"}, 1.38), ({"chain": ""}, 1.5), ({"keep": ""}, 1.22)],
    ids=["double buffering", "chaining", "keeping on chip"],
)
def test_what_a_choice_is_worth_on_resnet50(
    resnet50: Module, resnet50_profile: Profile, without: dict[str, str], least: float
) -> None:
    assert profiled(resnet50, **without).cycles / resnet50_profile.cycles >= least


@pytest.mark.parametrize(
    ("without", "least"),
    [({"schedule": "schedule{buffers=1}"}, 1.17), ({"chain": ""}, 1.2), ({"keep": ""}, 1.2)],
    ids=["double buffering", "chaining", "keeping on chip"],
)
def test_what_a_choice_is_worth_on_mobilenet_v2(
    mobilenet: Module, mobilenet_profile: Profile, without: dict[str, str], least: float
) -> None:
    assert profiled(mobilenet, **without).cycles / mobilenet_profile.cycles >= least


def ddr_over_bound(profile: Profile) -> float:
    moved = profile.traffic()
    return (moved["ddr_read"] + moved["ddr_write"]) / profile.ddr_lower_bound


def test_mobilenet_v2_moves_little_more_than_inputs_weights_and_outputs(mobilenet_profile: Profile) -> None:
    assert 1.0 <= ddr_over_bound(mobilenet_profile) <= 1.12


def test_resnet50_spills_only_what_sram_cannot_hold(resnet50: Module, resnet50_profile: Profile) -> None:
    assert ddr_over_bound(resnet50_profile) <= 4.3
    assert ddr_over_bound(profiled(resnet50, keep="", chain="")) > 1.5 * ddr_over_bound(resnet50_profile)
