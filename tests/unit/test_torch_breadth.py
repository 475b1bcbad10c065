"""One table of ordinary layers and operators of torch: traced, scripted, exported and decomposed, judged by torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="writes the networks and judges what was read")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402

from compiler.evaluate.interpreter import Interpreter  # noqa: E402
from compiler.frontend.lint import lint  # noqa: E402
from compiler.frontend.load import load  # noqa: E402
from tests import torch_networks  # noqa: E402
from tests.torchscript_archives import load_bytes  # noqa: E402
from tests.unit.aten_graphs import as_array, assert_close, flat  # noqa: E402


class Recurrent(nn.Module):
    def __init__(self, kind: type, states: int = 0, **options: Any) -> None:
        super().__init__()
        self.layer = kind(5, 7, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Projected(nn.Module):
    """First states that are not zero."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.layer = nn.LSTM(5, 7, proj_size=3, **options)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (a, b) = self.layer(x, (h, c))
        return y, a, b


class Packed(nn.Module):
    """Sequences of several lengths, which are constants of the network."""

    def __init__(self, kind: type, lengths: list[int], **options: Any) -> None:
        super().__init__()
        self.layer = kind(5, 7, batch_first=True, **options)
        self.register_buffer("lengths", torch.tensor(lengths))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        packed = pack_padded_sequence(x, self.lengths, batch_first=True, enforce_sorted=False)
        y, _ = self.layer(packed)
        return pad_packed_sequence(y, batch_first=True)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        later = torch.triu(torch.ones(x.size(1), x.size(1), dtype=torch.bool), 1)
        y, weights = self.inner(x, x, x, attn_mask=later, average_attn_weights=False)
        assert weights is not None
        return y, weights


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.TransformerDecoderLayer(8, 2, 16)

    def forward(self, target: Tensor, memory: Tensor) -> Tensor:
        return self.inner(target, memory)


class Indexing(nn.Module):
    """Slices, lists of indices, and what is written by them."""

    def forward(self, x: Tensor, i: Tensor) -> list[Tensor]:
        y = x.clone()
        y[i] = 0.5
        y[:, 1:3, ::2] += 1
        z = x.scatter_add(0, i.view(-1, 1, 1).expand(-1, 4, 5), x[:2]).index_add(0, i, x[:2], alpha=2.0)
        return [y, z, x[..., 1::2], x[:, None, -1], x[i][:, i], x.roll((1, -2), (0, 2)), x.flip([0, 2]), x.cumsum(1)]


class Small(nn.Module):
    """Operators that stand alone here and there."""

    def forward(self, x: Tensor) -> list[Tensor]:
        y = abs(x)
        return [torch.copysign(y, x), torch.xlogy(y, y + 1), torch.sinc(x), torch.trace(x), torch.inner(x, x),
                F.pairwise_distance(x, y), torch.chain_matmul(x, x.t()), torch.isin(x.int(), torch.tensor([0, 1])),
                torch.quantile(x, 0.3, dim=1), F.mse_loss(x, y), F.l1_loss(x, y)]  # fmt: skip


class Grids(nn.Module):
    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        grid = F.affine_grid(theta, list(x.size()), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False), F.affine_grid(theta, list(x.size()), align_corners=True)


class Windows(nn.Module):
    """Pooling to sizes that do not divide, unfolding, folding, resizing."""

    def forward(self, x: Tensor) -> list[Tensor]:
        patches = F.unfold(x, (3, 2), dilation=(1, 2), padding=(1, 0), stride=(2, 1))
        return [F.adaptive_avg_pool2d(x, (3, 4)), F.adaptive_max_pool2d(x, (3, 4)), patches,
                F.fold(patches, (8, 9), (3, 2), dilation=(1, 2), padding=(1, 0), stride=(2, 1)),
                F.interpolate(x, scale_factor=1.7, mode="bicubic"), F.interpolate(x, scale_factor=0.6, mode="area"),
                F.interpolate(x, size=(4, 3), mode="bilinear", antialias=True)]  # fmt: skip


def normed() -> nn.Module:
    """Weights normalised in every way there is; before torch's parametrisations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = [nn.utils.weight_norm(nn.Conv1d(4, 4, 3)), nn.utils.weight_norm(nn.Linear(6, 6), dim=None)]
        return nn.Sequential(*layers, nn.utils.spectral_norm(nn.Linear(6, 3)))


def parametrised() -> nn.Module:
    from torch.nn.utils.parametrizations import spectral_norm, weight_norm

    layers = [weight_norm(nn.Conv1d(4, 4, 3)), weight_norm(nn.Linear(6, 6), dim=None), spectral_norm(nn.Linear(6, 3))]
    return nn.Sequential(*layers)


NORMS = [nn.GroupNorm(2, 8), nn.LocalResponseNorm(3), nn.InstanceNorm2d(8, affine=True), nn.PixelShuffle(2),
         nn.RMSNorm(10)]  # fmt: skip
ALL, TRACED = ("trace", "script", "training", "core"), ("trace", "training", "core")

BREADTH: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...], tuple[str, ...]]] = {
    "norms": (lambda: nn.Sequential(*NORMS), ((2, 8, 5, 5),), ALL),
    "attention with a mask": (Masked, ((2, 5, 8),), ALL),
    "encoder layer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", norm_first=True),
                      ((5, 2, 8),), ALL),
    "decoder layer": (Decoder, ((5, 2, 8), (7, 2, 8)), ALL),
    "gru": (lambda: Recurrent(nn.GRU, num_layers=2, bidirectional=True), ((4, 2, 5),), ALL),
    "lstm with projections": (lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True, proj_size=3), ((4, 2, 5),),
                              ALL),
    "projected first states": (lambda: Projected(bidirectional=True, bias=False), ((4, 2, 5), (2, 2, 3), (2, 2, 7)),
                               ALL),
    "packed lstm": (lambda: Packed(nn.LSTM, [4, 2, 4]), ((3, 4, 5),), ("trace", "script")),
    "packed gru": (lambda: Packed(nn.GRU, [1, 4, 2], bidirectional=True, num_layers=2), ((3, 4, 5),),
                   ("trace", "script")),
    "small operators": (Small, ((3, 4),), ALL), "grids": (Grids, ((2, 3, 5, 6), (2, 2, 3)), ALL),
    "windows": (Windows, ((2, 3, 8, 9),), ALL), "normed weights": (normed, ((2, 4, 8),), TRACED),
    "parametrised weights": (parametrised, ((2, 4, 8),), TRACED),
}  # fmt: skip


def read(network: Any, inputs: tuple[Any, ...], way: str, folder: Path) -> Any:
    if way in ("trace", "script"):
        names = [a.name for a in torch.jit.script(network).forward.schema.arguments][1:] if way == "script" else []
        shapes = {name: tuple(x.shape) for name, x in zip(names, inputs, strict=False)}
        return load_bytes(torch_networks.saved((network, inputs), way), shapes)
    program = torch.export.export(network, inputs)
    torch.export.save(program if way == "training" else program.run_decompositions(), folder / "m.pt2")
    return load(folder / "m.pt2")


def agree(network: Any, inputs: tuple[Any, ...], way: str, folder: Path) -> None:
    network = network.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        expected = flat(network(*(x.clone() for x in inputs)))
        module = read(network, inputs, way, folder)
    assert_close(Interpreter(module).run([as_array(x) for x in inputs]), expected, 1e-3, 1e-4)


@pytest.mark.parametrize(("name", "way"), [(n, way) for n, (_, _, ways) in BREADTH.items() for way in ways])
def test_an_ordinary_layer_gives_what_torch_gives(name: str, way: str, tmp_path: Path) -> None:
    make, shapes, _ = BREADTH[name]
    torch.manual_seed(0)
    agree(make(), tuple(torch.randn(shape) for shape in shapes), way, tmp_path)


@pytest.mark.parametrize("way", ALL)
def test_indices_find_their_element_type_by_their_use(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    agree(Indexing(), (torch.randn(4, 4, 5), torch.tensor([2, 0])), way, tmp_path)


class Strange(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.special.bessel_j0(x) + 1
        return y.relu().reshape(-1), torch.tanh(x)


@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_lint_counts_what_follows_an_unsupported_operator_as_blocked(suffix: str, tmp_path: Path) -> None:
    path, x = tmp_path / f"m{suffix}", torch.randn(3, 4)
    if suffix == ".pt":
        path.write_bytes(torch_networks.saved((Strange(), (x,)), "trace"))
    else:
        torch.export.save(torch.export.export(Strange(), (x,)), path)
    found = {node.operator.removeprefix("aten::"): node.status for node in lint(path).nodes}
    assert found == {
        "special_bessel_j0": "unsupported", "add": "blocked", "relu": "blocked", "reshape": "blocked",
        "tanh": "converted",
    }  # fmt: skip
