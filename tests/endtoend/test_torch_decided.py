"""Networks of torch whose course the data decide, on the chip as far as it goes: what decides runs on the host."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="writes the networks and judges what runs")

from torch import Tensor, nn  # noqa: E402
from torch._higher_order_ops.while_loop import while_loop  # noqa: E402

from compiler import driver  # noqa: E402
from compiler.frontend.load import load  # noqa: E402
from tests.journeys import Journey, assert_one_meaning, journey  # noqa: E402
from tests.torch_networks import saved  # noqa: E402
from tests.unit.aten_graphs import flat  # noqa: E402

SHAPE = (1, 3, 8, 8)


class Body(nn.Module):
    """Convolutions, and a small network behind each decision."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Tanh())
        self.first, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 4, 3)


class Choosing(Body):
    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        if y.sum() > 0:  # noqa: SIM108
            y = self.first(y).relu()
        else:
            y = self.second(y)
        return self.head(y)


class Repeating(Body):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        y = self.stem(x)
        rounds = 0
        while bool(y.abs().mean() > 0.1) and rounds < 4:
            y = self.first(y).tanh() if y.sum() > 0 else self.second(y).tanh()
            rounds += 1
        return self.head(y), rounds


class ChoosingExported(Body):
    def forward(self, x: Tensor) -> Any:
        y = self.stem(x)
        return self.head(torch.cond(y.sum() > 0, lambda y: self.first(y).relu(), lambda y: self.second(y), (y,)))


class RepeatingExported(Body):
    def forward(self, x: Tensor) -> Any:
        y = self.stem(x)
        (y,) = while_loop(lambda y: y.abs().mean() > 0.1, lambda y: (self.first(y).tanh() * 0.5,), (y,))
        return self.head(y)


SCRIPTED, EXPORTED = (Choosing, Repeating), (ChoosingExported, RepeatingExported)


def written(network: nn.Module, folder: Path) -> Path:
    if isinstance(network, SCRIPTED):
        (folder / "m.pt").write_bytes(saved((network, ())))
        return folder / "m.pt"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(network, (torch.randn(SHAPE),)), folder / "m.pt2")
    return folder / "m.pt2"


def compiled(kind: type, folder: Path) -> tuple[nn.Module, Journey, list[list[np.ndarray]]]:
    torch.manual_seed(1)
    network = kind().eval()
    module = driver.prepare(load(written(network, folder), {"x": SHAPE}), crash_directory=None)
    random = np.random.default_rng(2)
    samples = [[(random.normal(size=SHAPE) * s).astype(np.float32)] for s in (1.0, 0.1, 2.0, -1.0, 3.0, 0.5)]
    return network, journey(module, samples), samples


@pytest.mark.parametrize("kind", [*SCRIPTED, *EXPORTED])
def test_decisions_run_on_the_host_and_the_rest_on_the_chip(kind: type, tmp_path: Path) -> None:
    network, made, samples = compiled(kind, tmp_path)
    assert [f.name for f in made.model.functions] == ["subnet0", "host0", "subnet1"]
    assert ("graph.if" if "Choosing" in kind.__name__ else "graph.loop") in made.model.host_functions[0].text
    for sample in samples[:3]:
        found = assert_one_meaning(made, sample)
        with torch.no_grad():
            stem = network.stem(torch.from_numpy(sample[0]))
            expected = flat(network(torch.from_numpy(sample[0])))
        if abs(float(stem.sum())) > 1:  # else the integers of the chip may decide otherwise
            assert np.abs(found[0] - expected[0].numpy()).max() < 0.1 * np.abs(expected[0].numpy()).max()
