"""Networks exported by torch go through the whole compiler and give what torch gives in float."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="writes the archives and judges what runs")

from compiler import driver  # noqa: E402
from compiler.evaluate.interpreter import Interpreter  # noqa: E402
from compiler.frontend.load import load  # noqa: E402
from runtime.session import Session  # noqa: E402
from tests.exported_networks import Detector, networks  # noqa: E402
from tests.journeys import Journey, assert_one_meaning, journey  # noqa: E402
from tests.unit.aten_graphs import flat  # noqa: E402

SAMPLES = 8


def exported(network: Any, inputs: tuple[Any, ...], path: Path) -> Path:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(network, inputs), path)
    return path


def samples_like(inputs: tuple[Any, ...]) -> list[list[np.ndarray]]:
    random = np.random.default_rng(3)
    return [[random.normal(size=tuple(i.shape)).astype(np.float32) for i in inputs] for _ in range(SAMPLES)]


def compiled(network: Any, inputs: tuple[Any, ...], folder: Path) -> tuple[Journey, list[list[np.ndarray]]]:
    module = driver.prepare(load(exported(network, inputs, folder / "m.pt2")), crash_directory=None)
    samples = samples_like(inputs)
    return journey(module, samples), samples


def results(made: Journey, sample: list[np.ndarray]) -> list[np.ndarray]:
    found = Session(made.model).run(*sample)
    return [found] if isinstance(found, np.ndarray) else list(found.values() if isinstance(found, dict) else found)


def reference(network: Any, sample: list[np.ndarray]) -> list[np.ndarray]:
    with torch.no_grad():
        return [r.numpy() for r in flat(network(*(torch.from_numpy(a) for a in sample)))]


def assert_alike(found: list[np.ndarray], expected: list[np.ndarray], error: float = 0.03) -> None:
    """Every result within `error` of the largest value it should have."""
    assert [f.shape for f in found] == [e.shape for e in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(ours.astype(np.float64) - theirs).max() <= error * np.abs(theirs).max()


ON_CHIP = ("mobilenet", "block", "encoder", "attention", "lstm", "gru", "cells", "unet", "writer")


@pytest.mark.parametrize("name", ON_CHIP)
def test_a_network_runs_on_the_chip_alone(name: str, tmp_path: Path) -> None:
    network, inputs = networks()[name]
    made, samples = compiled(network, inputs, tmp_path)
    assert made.model.host_functions == []
    for sample in samples[:2]:
        assert_alike(results(made, sample), reference(network, sample))


def test_a_transformer_block_has_one_meaning_at_every_level(tmp_path: Path) -> None:
    network, inputs = networks()["block"]
    made, samples = compiled(network, inputs, tmp_path)
    assert_one_meaning(made, samples[0], threads=(1,))


def test_a_detector_with_decode_and_suppression_of_fixed_shapes(tmp_path: Path) -> None:
    network, inputs = networks()["detector"]
    made, samples = compiled(network, inputs, tmp_path)
    for sample in samples[:2]:
        (boxes, scores, _), (best, points, _) = results(made, sample), reference(network, sample)
        assert abs(scores.max() - points.max()) < 0.02
        nearest = np.abs(boxes - best[points.argmax()]).max(axis=1).min()
        assert nearest < 0.5, "the best box is found, wherever it stands"


class Computed(torch.nn.Module):
    """Weights by functions that are not folded at import."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.g = torch.nn.Parameter(torch.randn(8, 4, 2)), torch.nn.Parameter(torch.rand(8, 1, 1) + 0.5)

    def forward(self, x: Any) -> Any:
        length = torch.asinh(self.v).square().sum((1, 2), keepdim=True).sqrt()
        return torch.relu(torch.nn.functional.conv1d(x, self.v * (self.g / length)))


def test_weights_that_are_computed_when_the_model_runs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Computed().eval()
    made, samples = compiled(network, (torch.randn(1, 4, 20),), tmp_path)
    for sample in samples[:2]:
        assert_alike(results(made, sample), reference(network, sample))


class Suppressing(Detector):
    """As torchvision's detectors end: as many boxes as are found."""

    def forward(self, x: Any) -> Any:
        boxes, scores, labels = super().forward(x)
        keep = torch.ops.torchvision.nms(boxes, scores, 0.05)
        return boxes[keep], scores[keep], labels[keep]


@pytest.fixture
def nms() -> Any:
    """torchvision's operator, for the test alone where torchvision is not installed."""
    if hasattr(torch.ops.torchvision, "nms"):
        yield
        return
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", _suppressed, "CPU")
    fake = torch.library.register_fake("torchvision::nms", _sizes, lib=library)
    yield fake
    library._destroy()


def _suppressed(boxes: Any, scores: Any, threshold: float) -> Any:
    kept: list[int] = []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for i in scores.argsort(descending=True).tolist():
        corner, other = torch.maximum(boxes[i, :2], boxes[kept, :2]), torch.minimum(boxes[i, 2:], boxes[kept, 2:])
        common = (other - corner).clamp(min=0).prod(1)
        if not (common / (areas[i] + areas[kept] - common) > threshold).any():
            kept.append(i)
    return torch.tensor(kept)


def _sizes(boxes: Any, scores: Any, threshold: float) -> Any:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


def test_a_detector_that_ends_in_suppression_gives_as_many_boxes_as_it_finds(nms: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Suppressing().eval()
    made, samples = compiled(network, (torch.randn(1, 3, 32, 32),), tmp_path)
    assert any("nn.non_max_suppression" in f.text for f in made.model.host_functions)
    in_float = Interpreter(made.prepared)
    counts = set()
    for sample in samples:
        (boxes, scores, labels), expected = results(made, sample), reference(network, sample)
        assert len(boxes) == len(scores) == len(labels)
        assert abs(scores[0] - expected[1][0]) < 0.02
        for ours, theirs in zip(in_float.run(sample), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-3)
        counts.add(len(expected[0]))
    assert len(counts) > 1


def test_a_buffer_is_carried_from_call_to_call_by_the_session(tmp_path: Path) -> None:
    network, inputs = networks()["counter"]
    module = driver.prepare(load(exported(network, inputs, tmp_path / "m.pt2")), crash_directory=None)
    first = np.full((1, 4), module.attributes["first_state"]["mean"], np.float32)
    samples = samples_like(inputs)
    made = journey(module, [[x, first] for (x,) in samples])
    network.mean.fill_(0.5)
    state = first
    for (x,) in samples[:3]:
        found, state = results(made, [x, state])
        with torch.no_grad():
            expected = network(torch.from_numpy(x)).numpy()
        assert_alike([found, state], [expected, network.mean.numpy()], error=0.05)
