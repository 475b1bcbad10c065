"""More networks written with torch, one for each habit that exporters meet: windows that roll, masks, time embeddings,
weights normalised on the fly, shapes computed from shapes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class ConvNext(nn.Module):
    """Depthwise, channels last, layer norm, a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm, self.up, self.down = nn.LayerNorm(8, eps=1e-6), nn.Linear(8, 32), nn.Linear(32, 8)
        self.gamma = nn.Parameter(torch.full((8,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.deep(x).permute(0, 2, 3, 1)
        y = self.gamma * self.down(F.gelu(self.up(self.norm(y))))
        return (x + y.permute(0, 3, 1, 2)).mean([-2, -1])


class Swin(nn.Module):
    """Attention in shifted windows with a table of relative positions and a mask made in forward."""

    def __init__(self, window: int = 4) -> None:
        super().__init__()
        self.window, self.qkv, self.out = window, nn.Linear(8, 24), nn.Linear(8, 8)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, 2) * 0.1)
        place = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = (place[:, :, None] - place[:, None, :]).permute(1, 2, 0) + window - 1
        self.register_buffer("index", apart[..., 0] * (2 * window - 1) + apart[..., 1])

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        m, shift = self.window, self.window // 2
        mask = torch.zeros(1, h, w, 1)
        for number, rows in enumerate((slice(0, -m), slice(-m, -shift), slice(-shift, None))):
            for other, columns in enumerate((slice(0, -m), slice(-m, -shift), slice(-shift, None))):
                mask[:, rows, columns] = number * 3 + other
        windows = self.cut(torch.roll(x, (-shift, -shift), (1, 2)))
        zones = self.cut(mask).squeeze(-1)
        apart = zones[:, None, :] - zones[:, :, None]
        bias = self.table[self.index.view(-1)].view(m * m, m * m, 2).permute(2, 0, 1)
        q, k, v = self.qkv(windows).reshape(-1, m * m, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * (c // 2) ** -0.5 + bias
        scores = scores.masked_fill((apart != 0)[:, None], -100.0)
        y = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, m * m, c))
        y = y.view(b, h // m, w // m, m, m, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return torch.roll(y, (shift, shift), (1, 2))

    def cut(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        m = self.window
        return x.view(b, h // m, m, w // m, m, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, m * m, c)


class Bert(nn.Module):
    """Indices in, a mask of padding, positions by arange, a pooled first token."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 16, padding_idx=0), nn.Embedding(20, 16)
        self.norm, self.qkv = nn.LayerNorm(16), nn.Linear(16, 48)
        self.out, self.pool = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, ids: Tensor) -> Tensor:
        b, n = ids.shape
        hidden = (1.0 - (ids != 0)[:, None, None, :].float()) * torch.finfo(torch.float32).min
        x = self.norm(self.words(ids) + self.places(torch.arange(n, device=ids.device).unsqueeze(0)))
        q, k, v = (p.view(b, n, 4, 4).transpose(1, 2) for p in self.qkv(x).chunk(3, -1))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(4) + hidden
        y = torch.matmul(F.softmax(scores, dim=-1), v).transpose(1, 2).contiguous().view(b, n, 16)
        return torch.tanh(self.pool(self.out(y)[:, 0]))


class Vit(nn.Module):
    """A class token expanded over the batch, positions added, patches by a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.randn(1, 1, 16))
        self.places = nn.Parameter(torch.randn(1, 17, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True, activation="gelu")
        self.layers, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(y.shape[0], -1, -1), y], 1) + self.places
        return self.head(self.layers(y)[:, 0])


class Diffusion(nn.Module):
    """A UNet's block with group norm, SiLU, and an embedding of time by sines."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(4, 8)
        self.time, self.last = nn.Linear(16, 16), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        waves = torch.exp(torch.arange(8, dtype=torch.float32) * (-math.log(10000.0) / 8))
        angles = step[:, None].float() * waves[None]
        scale, shift = self.time(torch.cat([angles.sin(), angles.cos()], -1))[:, :, None, None].chunk(2, 1)
        y = F.silu(self.norm(self.first(x)) * (1 + scale) + shift)
        y = F.interpolate(F.avg_pool2d(y, 2), size=x.shape[-2:], mode="nearest")
        return self.last(y) + x


class Wave(nn.Module):
    """Causal, gated, dilated convolutions whose weights are normalised."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.layers = nn.ModuleList(norm(nn.Conv1d(4, 8, 2, dilation=2**i)) for i in range(3))
        self.head = nn.Conv1d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for i, layer in enumerate(self.layers):
            y = layer(F.pad(x, (2**i, 0)))
            y = torch.tanh(y[:, :4]) * torch.sigmoid(y[:, 4:])
            x, total = x + y, total + y
        return self.head(F.relu(total))


class Shuffle(nn.Module):
    """Channels split, shuffled by views, squeezed and excited."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        y = torch.cat([kept, self.branch(changed)], 1)
        b, c, h, w = y.shape
        y = y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return y * F.hardsigmoid(self.excite(F.relu_(self.squeeze(y.mean((2, 3), keepdim=True)))))


class Style(nn.Module):
    """Reflected borders, instance norm, upsampling, and pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(2), nn.Conv2d(3, 8, 5), nn.InstanceNorm2d(8, affine=True), nn.PReLU(8),
            nn.Upsample(scale_factor=2, mode="bicubic"), nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Points(nn.Module):
    """A set of points: shared layers, the maximum over all, distances, the nearest by topk and gather."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp, self.head = nn.Sequential(nn.Conv1d(6, 16, 1), nn.LeakyReLU(0.2)), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        near = (-torch.cdist(x, x)).topk(3, dim=-1)[1]
        others = torch.gather(x.unsqueeze(1).expand(b, n, n, 3), 2, near.unsqueeze(-1).expand(b, n, 3, 3)).mean(2)
        y = self.mlp(torch.cat([x, others - x], -1).transpose(1, 2))
        return F.log_softmax(self.head(y.amax(-1)), -1)


class Rotary(nn.Module):
    """Attention with rotated pairs, grouped heads and a causal mask, as language models have it."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False), nn.Linear(16, 16)
        self.norm = nn.RMSNorm(16)

    def rotate(self, x: Tensor) -> Tensor:
        angles = torch.outer(torch.arange(x.shape[2]).float(), 1.0 / 100 ** (torch.arange(0, 4, 2) / 4))
        cos, sin = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()
        first, second = x[..., :2], x[..., 2:]
        return x * cos + torch.cat((-second, first), -1) * sin

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        h = self.norm(x)
        q = self.q(h).view(b, n, 4, 4).transpose(1, 2)
        k, v = self.kv(h).view(b, n, 2, 2, 4).unbind(2)
        k, v = (t.transpose(1, 2).repeat_interleave(2, dim=1) for t in (k, v))
        y = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, is_causal=True)
        return x + self.out(y.transpose(1, 2).flatten(2))


class Fpn(nn.Module):
    """A pyramid: results of three sizes, in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Conv2d(3 if i == 0 else 8, 8, 3, 2, 1) for i in range(3))
        self.side = nn.ModuleList(nn.Conv2d(8, 4, 1) for _ in range(3))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        levels = []
        for layer in self.down:
            x = F.elu(layer(x))
            levels.append(x)
        top = self.side[2](levels[2])
        results = {"p2": top}
        for i in (1, 0):
            top = self.side[i](levels[i]) + F.interpolate(top, size=levels[i].shape[-2:], mode="nearest")
            results[f"p{i}"] = F.max_pool2d(top, 3, 1, 1)
        return results


class Einsum(nn.Module):
    """Products written with letters, norms, cosines, and a mixture by softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.experts, self.gate = nn.Parameter(torch.randn(3, 6, 4) * 0.3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        shares = self.gate(x).softmax(-1)
        y = torch.einsum("bni,eio,bne->bno", x, self.experts, shares)
        y = y / y.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        alike = F.cosine_similarity(y[:, :1], y, dim=-1).unsqueeze(-1)
        return torch.cat([y, alike, y.std(1, keepdim=True).expand_as(y)], -1)


def zoo() -> dict[str, tuple[nn.Module, tuple[Any, ...]]]:
    """Every network with example inputs; the same in every run."""
    torch.manual_seed(1)
    made: dict[str, tuple[nn.Module, tuple[Any, ...]]] = {
        "convnext": (ConvNext(), (torch.randn(1, 3, 16, 16),)), "swin": (Swin(), (torch.randn(1, 8, 8, 8),)),
        "bert": (Bert(), (torch.tensor([[4, 9, 2, 7, 0, 0]]),)), "vit": (Vit(), (torch.randn(1, 3, 16, 16),)),
        "diffusion": (Diffusion(), (torch.randn(1, 3, 8, 8), torch.tensor([7]))),
        "wave": (Wave(), (torch.randn(1, 4, 20),)), "shuffle": (Shuffle(), (torch.randn(1, 8, 6, 6),)),
        "style": (Style(), (torch.randn(1, 3, 8, 8),)), "points": (Points(), (torch.randn(1, 10, 3),)),
        "rotary": (Rotary(), (torch.randn(1, 6, 16),)), "fpn": (Fpn(), (torch.randn(1, 3, 20, 28),)),
        "einsum": (Einsum(), (torch.randn(2, 5, 6),)),
    }  # fmt: skip
    for module, _ in made.values():
        module.eval()
    return made
