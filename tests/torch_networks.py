"""Small networks written with torch, for tests where it is installed and for the archives in `tests/data`.

Each is (network, example inputs); `saved` gives the bytes torch writes. Import this only where torch is installed.
"""

import io
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

Case = tuple[nn.Module, tuple[Any, ...]]


def convnet() -> Case:
    layers = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.MaxPool2d(2),
              nn.Conv2d(8, 8, 3, groups=8), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(),
              nn.Linear(8, 4)]  # fmt: skip
    return warmed(nn.Sequential(*layers), (torch.randn(2, 3, 8, 8),))


def warmed(net: nn.Module, inputs: tuple[Any, ...]) -> Case:
    """A network whose batch-norms have seen data."""
    with torch.no_grad():
        net.train()(*inputs)
    return net.eval(), inputs


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.inner(x, x, x, need_weights=False)[0])


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.end = nn.Conv2d(3, 8, 3, 2, 1), nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(7, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.up(functional.relu_(self.down(x)))
        y = functional.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return {"mask": self.end(torch.cat([x, y], 1)), "features": y}


class Recurrent(nn.Module):
    def __init__(self, kind: type, **options: Any) -> None:
        super().__init__()
        self.cell = kind(5, 7, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]


class Scripted(nn.Module):
    """Loops, early exits, lists, dictionaries, optional arguments, writing to parts of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.names = ["a", "b"]

    def forward(self, x: Tensor, twice: bool = True, bias: Optional[Tensor] = None):  # noqa: UP045
        for layer in self.layers:
            x = layer(x)
        i = 0
        while i < 5:
            x = x + i
            if i == 3:
                break
            i += 1
        for j in range(2, 10, 3):
            x[:, j % 4] = 1.0
        x[x > 1] = 0.0
        x[0:1, 1:3] += 5
        parts = [t * 2 for t in (x, -x)]
        assert x.dim() == 2, f"bad {x.dim()}"
        if bias is not None:
            x = x + bias
        y = x.clone()
        y[:, ::2] = 7.0
        x.t()[1] = 3.0
        return x, parts, y[None, ..., :2], {self.names[0] + "x": x.chunk(2, 1)[1]}, x.shape[0] // 2 if twice else 1


class Pair(NamedTuple):
    scores: Tensor
    boxes: Tensor


class Detector(nn.Module):
    """Decoding of boxes, named results."""

    def __init__(self) -> None:
        super().__init__()
        rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
        self.register_buffer("grid", torch.stack([rows, columns], -1))

    def forward(self, x: Tensor) -> Pair:
        n = x.shape[0]
        y = x.view(n, 6, 16).permute(0, 2, 1)
        centre = (y[..., :2].sigmoid() + self.grid.view(1, -1, 2)) * 8
        scores, order = y[..., 5].softmax(-1).topk(3, 1)
        boxes = torch.cat([centre, y[..., 2:4].exp()], -1)
        return Pair(scores, boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4)))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(10, 4, padding_idx=0), nn.Linear(4, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.table(ids)).masked_fill(mask.unsqueeze(-1), 0.0).mean(1)


class Memory(nn.Module):
    """A state that is empty before the first call."""

    h: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)
        self.h = torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        if self.h.numel() == 0:
            self.h = torch.zeros(x.shape[0], 4)
        self.h = self.cell(x, self.h)
        return self.h * 2


def network(net: nn.Module, *inputs: Any) -> Callable[[], Case]:
    return lambda: (net.eval(), inputs)


SCRIPTED: dict[str, Callable[[], Case]] = {
    "convnet": convnet, "attention": lambda: (Attention().eval(), (torch.randn(2, 5, 8),)),
    "transformer": lambda: (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), (torch.randn(2, 5, 8),)),
    "unet": lambda: (UNet().eval(), (torch.randn(1, 3, 16, 16),)),
    "lstm": lambda: (Recurrent(nn.LSTM).eval(), (torch.randn(3, 2, 5),)),
    "lstm-both-ways": lambda: (
        Recurrent(nn.LSTM, num_layers=2, bidirectional=True, batch_first=True).eval(), (torch.randn(2, 3, 5),)
    ),
    "gru": lambda: (Recurrent(nn.GRU).eval(), (torch.randn(3, 2, 5),)),
    "rnn": lambda: (Recurrent(nn.RNN, num_layers=2).eval(), (torch.randn(3, 2, 5),)),
    "detector": lambda: (Detector().eval(), (torch.randn(2, 6, 4, 4),)),
    "words": lambda: (Words().eval(), (torch.randint(0, 10, (1, 6)), torch.rand(1, 6) > 0.5)),
}  # fmt: skip
"""Networks that torch can both script and trace."""


def quantised(engine: str) -> Case:
    """A convolutional network in 8 bits."""
    from torch.ao import quantization as q

    torch.backends.quantized.engine = engine
    layers = [q.QuantStub(), nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8),
              nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5), q.DeQuantStub()]  # fmt: skip
    net = q.fuse_modules(nn.Sequential(*layers).eval(), [["1", "2", "3"]])
    net.qconfig = q.get_default_qconfig(engine)
    prepared = q.prepare(net)
    for _ in range(4):
        prepared(torch.randn(2, 3, 8, 8))
    return q.convert(prepared), (torch.randn(1, 3, 8, 8),)


def dynamic() -> Case:
    """Linear layers with 8-bit weights."""
    from torch.ao import quantization as q

    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    return q.quantize_dynamic(net, {nn.Linear}), (torch.randn(2, 6),)


def saved(case: Case, how: str = "script") -> bytes:
    """The archive torch writes: `script`, `trace`, `freeze`, or `mobile` (with bytecode beside the code)."""
    net, inputs = case
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = how == "trace"
        made = torch.jit.trace(net, inputs, check_trace=False, strict=False) if traced else torch.jit.script(net)
        made = torch.jit.freeze(made.eval()) if how == "freeze" else made
        if how == "mobile":
            return made._save_to_buffer_for_lite_interpreter()
        buffer = io.BytesIO()
        torch.jit.save(made, buffer)
    return buffer.getvalue()


def flat(result: Any) -> list[Any]:
    """The tensors and numbers of a result in order, as arrays."""
    if isinstance(result, Tensor):
        return [result.detach().numpy()]
    if isinstance(result, dict):
        return [a for item in result.values() for a in flat(item)]
    if isinstance(result, list | tuple):
        return [a for item in result for a in flat(item)]
    return [result] if isinstance(result, int | float) and not isinstance(result, bool) else []
