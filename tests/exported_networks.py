"""Small networks as users bring them, written with torch: what the reader of torch.export is tried out on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Inverted(nn.Module):
    """MobileNet's block: expand, depthwise, project, and the input added where it fits."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.adds = stride == 1 and inner == outer
        self.layers = nn.Sequential(
            nn.Conv2d(inner, 2 * inner, 1, bias=False), nn.BatchNorm2d(2 * inner), nn.ReLU6(inplace=True),
            nn.Conv2d(2 * inner, 2 * inner, 3, stride, 1, groups=2 * inner, bias=False), nn.BatchNorm2d(2 * inner),
            nn.Hardswish(inplace=True), nn.Conv2d(2 * inner, outer, 1, bias=False), nn.BatchNorm2d(outer),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(Inverted(8, 8, 1), Inverted(8, 16, 2), Inverted(16, 16, 1))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1)
        return self.head(F.dropout(y.flatten(1), 0.2, self.training))


class Block(nn.Module):
    """A transformer block with its own attention."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        parts = self.qkv(self.norms[0](x)).reshape(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width)
        x = x + self.out(y)
        return x + self.mlp(self.norms[1](x))


class Encoder(nn.Module):
    """torch's own transformer layer, which takes its fused way at inference."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: Tensor, memory: Tensor) -> Any:
        return self.layer(x, memory, memory)


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.LSTM(6, 8, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x)[0][:, -1])


class Gru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.GRU(6, 8, num_layers=2)

    def forward(self, x: Tensor, h: Tensor) -> Any:
        return self.layers(x, h)


class Cells(nn.Module):
    """Cells in a loop of Python."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.rnn = nn.LSTMCell(4, 5), nn.GRUCell(5, 5), nn.RNNCell(5, 5, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        h, c, g, r = (x.new_zeros(x.shape[1], 5) for _ in range(4))
        for step in x:
            h, c = self.lstm(step, (h, c))
            g = self.gru(h, g)
            r = self.rnn(g, r)
        return torch.cat([h, c, g, r], 1)


class UNet(nn.Module):
    """Down, up by a transposed convolution, and across."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = self.pair(3, 8), self.pair(8, 16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last, self.head = self.pair(16, 8), nn.Conv2d(8, 2, 1)

    @staticmethod
    def pair(inner: int, outer: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        up = self.up(b)
        large = F.interpolate(b, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(self.last(torch.cat([a, up], 1))) + large[:, :2]


class Detector(nn.Module):
    """A grid of boxes, decoded, and the best of them that overlap no better one."""

    def __init__(self, boxes: int = 8) -> None:
        super().__init__()
        self.boxes = boxes
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.SiLU())
        self.head = nn.Conv2d(16, 4 + 3, 1)

    def forward(self, x: Tensor) -> Any:
        raw = self.head(self.backbone(x))
        _, _, h, w = raw.shape
        ys, xs = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack([xs, ys], -1).reshape(-1, 2).to(raw.dtype)
        cells = raw.flatten(2).permute(0, 2, 1)[0]
        centre = (cells[:, :2].sigmoid() * 2 - 0.5 + grid) * 4
        half = (cells[:, 2:4].sigmoid() * 2) ** 2 * 4
        boxes = torch.cat([centre - half, centre + half], 1)
        scores, labels = cells[:, 4:].sigmoid().max(1)
        top, order = scores.topk(self.boxes)
        return suppressed(boxes[order], top, labels[order])


def suppressed(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """Suppression of sorted boxes with fixed shapes: scores of those that go become 0."""
    corner = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    other = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = (other - corner).clamp(min=0).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    overlap = common / (area[:, None] + area[None, :] - common) > threshold
    keep = torch.ones_like(scores)
    for i in range(boxes.shape[0] - 1):
        hidden = torch.cat([torch.zeros(i + 1), overlap[i, i + 1 :].to(keep.dtype)])
        keep = keep * (1 - hidden * keep[i])
    return boxes, scores * keep, labels


class Counter(nn.Module):
    """A running mean that is kept in a buffer and written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, 4), 0.5))
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        self.mean.mul_(0.9).add_(0.1 * y.mean(0, keepdim=True))
        return y - self.mean


class Writer(nn.Module):
    """Writes parts of tensors through views."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, 0] = 0
        y[:, 1:3] += 1
        y.view(-1)[::5] *= 2
        z = torch.zeros(x.shape[0], x.shape[1] + 2)
        z[:, 1:-1] = y
        z[z > 1.5] = 1.5
        return z


def networks() -> dict[str, tuple[nn.Module, tuple[Any, ...]]]:
    """Every network with example inputs; the same in every run."""
    torch.manual_seed(0)
    made: dict[str, tuple[nn.Module, tuple[Any, ...]]] = {
        "mobilenet": (MobileNet(), (torch.randn(1, 3, 32, 32),)), "block": (Block(), (torch.randn(1, 10, 32),)),
        "encoder": (Encoder(), (torch.randn(1, 7, 16),)),
        "attention": (Attention(), (torch.randn(1, 5, 16), torch.randn(1, 7, 16))),
        "lstm": (Lstm(), (torch.randn(1, 9, 6),)), "gru": (Gru(), (torch.randn(9, 1, 6), torch.randn(2, 1, 8))),
        "cells": (Cells(), (torch.randn(4, 2, 4),)), "unet": (UNet(), (torch.randn(1, 3, 16, 16),)),
        "detector": (Detector(), (torch.randn(1, 3, 32, 32),)), "writer": (Writer(), (torch.randn(3, 6),)),
        "counter": (Counter(), (torch.randn(2, 4),)),
    }  # fmt: skip
    for module, _ in made.values():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.2)
                layer.running_var.uniform_(0.5, 1.5)
        module.eval()
    return made
