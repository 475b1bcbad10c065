"""Networks whose course the data decide, written with torch, each with inputs that take it every way it can go.

Import this only where torch is installed.
"""

from collections.abc import Callable
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch._higher_order_ops.map import map as mapped
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

Case = tuple[nn.Module, list[tuple[Tensor, ...]]]


# -- for torch.jit.script ----------------------------------------------------------------------------------------------
class Branches(nn.Module):
    """Both branches assign; a condition of two parts; layers inside."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.sum() > 0:
            y = self.first(x)
            z = y + 1
        else:
            y = self.second(x).tanh()
            z = x
        if x.mean() > 0 and x.max() < 2:
            z = z.relu()
        return y, z


class Early(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 3
        y = x.abs()
        if y.sum() > 4:
            return y - 1
        return y


class Numbers(nn.Module):
    """Numbers taken from tensors, chosen, and computed with."""

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        k = x.sum().item()
        count = 3
        if k > 0:
            scale = 2.0
            count = count + 1
        else:
            scale = 0.5
        return x * scale + float(x[0, 0]) * int(x.max()), count * 2


class Refining(nn.Module):
    """A loop with a counter, a branch in it, and layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        i = 0
        while bool(x.abs().max() > 0.3) and i < 5:
            if x.mean() > 0:  # noqa: SIM108
                x = self.up(x) * 0.5
            else:
                x = self.down(x).tanh()
            i += 1
        return x, i


class Breaking(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        for _ in range(10):
            y = y + x
            if y.max() > 5:
                break
            y = y * 1.1
        return y


class Counting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = x
        for i in range(int(x.abs().max())):
            total = total + i
        return total


class Writing(nn.Module):
    """Writes in place, through views, to lists and to what a loop goes over."""

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        y = x.clone()
        row = y[0]
        kept: list[Tensor] = []
        if x.sum() > 0:
            y[0] = 7.0
            kept.append(x)
        else:
            row.add_(1)
            kept.append(-x)
        while y.sum() < 20:
            y += 1
        return y * row, kept


class Checking(nn.Module):
    """Raises for what it does not like: taken for granted."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.isnan(x).any():
            raise ValueError("not a number")
        assert bool(x.min() < 100), "too large"
        return x * 2


class Growing(nn.Module):
    """Carries a tensor whose size changes from round to round."""

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        y = x
        while y.abs().sum() < 10:
            y = torch.cat([y, x.abs() + 1])
        return y, y.shape[0]


class Sizes(nn.Module):
    """Branches of different sizes."""

    def forward(self, x: Tensor) -> Tensor:
        y = x[:1] if x.sum() > 0 else x[:2]
        return y * 2


class Remembering(nn.Module):
    """An attribute that a branch sets."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            self.seen = self.seen + 1
        return x + self.seen


class Perhaps(nn.Module):
    """A tensor or None: refused."""

    def forward(self, x: Tensor) -> Tensor:
        y: Optional[Tensor] = None  # noqa: UP045
        if x.sum() > 0:
            y = x * 2
        return y if y is not None else x


WAYS = [(torch.full((2, 3), v) + torch.tensor([[0.1, -0.2, 0.3]])).split(2)[:1] for v in (0.2, -0.1, 2.0, -3.0, 4.0)]

SCRIPTED: dict[str, Callable[[], nn.Module]] = {
    "branches": Branches, "early": Early, "numbers": Numbers, "refining": Refining, "breaking": Breaking,
    "counting": Counting, "writing": Writing, "checking": Checking, "sizes": Sizes,
    "growing": Growing,
}  # fmt: skip


# -- for torch.export --------------------------------------------------------------------------------------------------
class Cond(nn.Module):
    """A choice in a choice, with layers, giving two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Any:
        def inner(x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.cond(x.max() > -1, lambda y: (y + 1, y.clone()), lambda y: (y - 1, y * 2), (x,))

        return torch.cond(x.sum() > 0, lambda x: (self.layer(x), x * 2), inner, (x,))


class While(nn.Module):
    """Carries a counter that is known at first, and takes a layer and an input along."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Any:
        start, more = torch.zeros((), dtype=torch.int64), x * 0.01
        return while_loop(
            lambda i, y: (y.abs().max() > 0.3) & (i < 6), lambda i, y: (i + 1, self.layer(y).tanh() * 0.7 + more),
            (start, x),
        )  # fmt: skip


class Known(nn.Module):
    """A loop that the program ends after three rounds."""

    def forward(self, x: Tensor) -> Any:
        start = torch.zeros((), dtype=torch.int64)
        return while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 1.5), (start, x))[1]


class Scan(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return scan(lambda h, y: (h * 0.5 + y, (h + y).relu()), x[0] + 1, x, dim=0)


class Map(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return mapped(lambda y, other: y * other + 1, x, x[0] + 1)


class Item(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x * x.sum().item() + x.max().int().item()


class Found(nn.Module):
    """As many as there are."""

    def forward(self, x: Tensor) -> Any:
        values, inverse, counts = torch.unique(x.round(), return_inverse=True, return_counts=True)
        return x[x > 0], torch.nonzero(x > 0.5), x[x.sum(1) > 0], values, inverse, counts, x.round().unique(dim=0)


class Moved(nn.Module):
    """What is found is joined, turned, cut and reshaped."""

    def forward(self, x: Tensor) -> Any:
        y = x[x.sum(1) > 0.1]
        several = torch.stack([y, y * 2], 1)
        joined = torch.cat([y, x.relu()])
        return several.flatten(1), joined.t(), y.unsqueeze(1)[..., 1:].squeeze(1), y.reshape(-1), joined[1:], y.shape[0]


EXPORTED: dict[str, Callable[[], nn.Module]] = {
    "cond": Cond, "while": While, "known": Known, "scan": Scan, "map": Map, "item": Item, "found": Found,
    "moved": Moved,
}  # fmt: skip
