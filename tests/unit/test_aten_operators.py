"""Every row of the aten table that computes on reals: what it makes equals what torch computes."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the judge of the aten table is torch itself")
F = torch.nn.functional

from tests.unit.aten_graphs import check  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def t(*shape: int, low: float = -2.0, high: float = 2.0) -> Any:
    generator = torch.Generator().manual_seed(sum((i + 1) * d for i, d in enumerate(shape)) + 7)
    return torch.rand(*shape, generator=generator) * (high - low) + low


def ints(*shape: int, low: int = 0, high: int = 5) -> Any:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(3))


def bools(*shape: int) -> Any:
    return t(*shape) > 0


X = t(2, 3, 6, 5)
V = t(4, 6)
P = t(4, 6, low=0.1, high=3.0)
S = t(2, 5, 8)

ACTIVATIONS = {
    name: (getattr(F, name), [V * 3])
    for name in ("relu", "relu6", "silu", "mish", "hardswish", "hardsigmoid", "hardtanh", "softsign", "selu", "gelu",
                 "elu", "celu", "leaky_relu", "softplus", "logsigmoid", "hardshrink", "softshrink", "tanhshrink")
} | {
    "sigmoid": (torch.sigmoid, [V]),
    "gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), [V]), "elu alpha": (lambda x: F.elu(x, 0.7), [V]),
    "celu alpha": (lambda x: F.celu(x, 0.5), [V]), "leaky_relu slope": (lambda x: F.leaky_relu(x, 0.2), [V]),
    "softplus beta": (lambda x: F.softplus(x, 2.0, 3.0), [V * 3]), "prelu one": (F.prelu, [X, t(1)]),
    "prelu channels": (F.prelu, [X, t(3)]), "prelu rank 2": (F.prelu, [V, t(6)]), "glu": (F.glu, [V]),
    "glu axis": (lambda x: F.glu(x, 0), [V]), "softmax": (lambda x: F.softmax(x, 1), [X]),
    "log_softmax": (lambda x: F.log_softmax(x, -1), [V]), "softmin": (lambda x: F.softmin(x, 1), [V]),
    "threshold": (lambda x: F.threshold(x, 0.3, -1.0), [V]), "hardtanh bounds": (lambda x: F.hardtanh(x, -0.5, 1), [V]),
    "softmax rank 0": (lambda x: F.softmax(x, 0), [torch.tensor(2.0)]), "rrelu": (lambda x: F.rrelu(x), [V]),
    "normalize": (lambda x: F.normalize(x, dim=1), [V]),
    "hardtanh of ints": (lambda x: F.hardtanh(x.float()), [ints(4)]),
    "relu of ints": (torch.relu, [ints(4, low=-3)]),
}  # fmt: skip

ARITHMETIC = {
    "add": (torch.add, [V, t(6)]), "add alpha": (lambda a, b: torch.add(a, b, alpha=2), [V, V + 1]),
    "add number": (lambda a: a + 1, [V]), "add int and float": (lambda a, b: a + b, [ints(4), t(4)]),
    "add int number": (lambda a: a + 1.5, [ints(4)]), "sub": (torch.sub, [V, t(6)]), "rsub": (lambda a: 1 - a, [V]),
    "rsub alpha": (lambda a, b: torch.rsub(a, b, alpha=3), [V, P]), "mul": (torch.mul, [V, t(4, 1)]),
    "mul bools": (torch.mul, [bools(4), bools(4)]), "add bools": (lambda a, b: a + b, [bools(4), bools(4)]),
    "div": (torch.div, [V, P]), "div ints": (torch.div, [ints(6), ints(6, low=1)]),
    "div floor": (lambda a, b: torch.div(a, b, rounding_mode="floor"), [V * 5, P]),
    "div trunc": (lambda a, b: torch.div(a, b, rounding_mode="trunc"), [V * 5, P]),
    "div floor ints": (lambda a, b: torch.div(a, b, rounding_mode="floor"), [ints(9, low=-9, high=9), ints(9, low=2)]),
    "div trunc ints": (lambda a, b: torch.div(a, b, rounding_mode="trunc"), [ints(9, low=-9, high=9), ints(9, low=2)]),
    "floor_divide": (torch.floor_divide, [V * 5, P]), "floor_divide ints": (lambda a: a // 3, [ints(9, low=-9)]),
    "remainder": (torch.remainder, [V * 5, P]), "remainder ints": (lambda a: a % 3, [ints(9, low=-9)]),
    "fmod": (torch.fmod, [V * 5, P]), "fmod ints": (lambda a: torch.fmod(a, 3), [ints(9, low=-9)]),
    "pow": (torch.pow, [P, V]), "pow 2": (lambda a: a**2, [V]), "pow 3": (lambda a: a**3, [V]),
    "pow half": (lambda a: a**0.5, [P]), "pow -1": (lambda a: a**-1, [P]), "pow -half": (lambda a: a**-0.5, [P]),
    "pow 4": (lambda a: a**4, [V]), "pow base": (lambda a: 2**a, [V]), "pow ints": (lambda a: a**2, [ints(5)]),
    "maximum": (torch.maximum, [V, P]), "minimum": (torch.minimum, [V, P]), "max two": (torch.max, [V, P]),
    "hypot": (torch.hypot, [V, P]), "atan2": (torch.atan2, [V, t(6)]), "logaddexp": (torch.logaddexp, [V, P]),
    "addcmul": (lambda a, b, d: torch.addcmul(a, b, d, value=0.5), [V, P, V]),
    "addcdiv": (lambda a, b, d: torch.addcdiv(a, b, d, value=0.5), [V, V, P]),
    "lerp": (lambda a, b: torch.lerp(a, b, 0.3), [V, P]), "lerp tensor": (torch.lerp, [V, P, t(6, low=0, high=1)]),
    "square": (torch.square, [V]), "expm1": (torch.expm1, [V * 0.01]), "expm1 wide": (torch.expm1, [V]),
    "log1p": (torch.log1p, [P]), "log2": (torch.log2, [P]), "log10": (torch.log10, [P]), "exp2": (torch.exp2, [V]),
    "erfc": (torch.erfc, [V]), "logit": (lambda a: torch.logit(a, 1e-3), [t(5, low=0, high=1)]),
    "deg2rad": (torch.deg2rad, [V]), "rad2deg": (torch.rad2deg, [V]), "trunc": (torch.trunc, [V * 3]),
    "frac": (torch.frac, [V * 3]), "round": (torch.round, [V * 3]), "floor": (torch.floor, [V * 3]),
    "round decimals": (lambda a: torch.round(a, decimals=1), [V]), "ceil": (torch.ceil, [V * 3]),
    "floor ints": (torch.floor, [ints(3)]), "neg": (torch.neg, [V]), "abs": (torch.abs, [V]), "sign": (torch.sign, [V]),
    "sgn": (torch.sgn, [V]), "positive": (torch.positive, [V]), "sqrt of ints": (torch.sqrt, [ints(4)]),
    "nan_to_num": (torch.nan_to_num, [torch.tensor([1.0, float("nan"), float("inf"), -float("inf")])]),
    "clamp": (lambda a: a.clamp(-1, 1), [V]), "clamp min": (lambda a: a.clamp(min=0.5), [V]),
    "clamp tensors": (torch.clamp, [V, t(6) - 1, t(6) + 1]), "clamp ints": (lambda a: a.clamp(1, 3), [ints(9)]),
    "clamp ints by reals": (lambda a: a.clamp(0.5, 3), [ints(9)]), "clamp_min": (lambda a: torch.clamp_min(a, 0), [V]),
    "clamp_max": (lambda a: torch.clamp_max(a, 0), [V]), "bitwise_not": (torch.bitwise_not, [ints(5)]),
    "bitwise_and": (lambda a, b: a & b, [bools(5), t(5) > 1]), "bitwise_or": (lambda a, b: a | b, [bools(5), t(5) > 1]),
    "bitwise_xor": (lambda a, b: a ^ b, [bools(5), t(5) > 1]),
    "bitwise_and ints": (lambda a, b: a & b, [ints(5, high=99), ints(5)]), "not": (lambda a: ~a, [bools(5)]),
    "shift left": (lambda a: a << 2, [ints(5)]), "shift right": (lambda a: a >> 1, [ints(5, low=-9, high=9)]),
    "special_expit": (torch.special.expit, [V]), "rank 0": (lambda a: a * 2 + 1, [torch.tensor(3.0)]),
} | {
    name: (getattr(torch, name), [t(4, 6, low=0.1, high=0.9)])
    for name in ("exp", "log", "sqrt", "rsqrt", "reciprocal", "erf", "tanh", "sin", "cos", "tan", "asin", "acos",
                 "atan", "sinh", "cosh", "asinh", "atanh")
} | {"acosh": (torch.acosh, [P + 1.1])}  # fmt: skip

COMPARISONS = {
    name: (getattr(torch, name), [ints(9), ints(9, high=3)])
    for name in ("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor")
} | {
    "gt number": (lambda a: a > 0.5, [V]), "eq bools": (torch.eq, [bools(5), t(5) > 1]),
    "lt bools": (torch.lt, [bools(5), t(5) > 1]), "logical_not": (torch.logical_not, [V]),
    "isnan": (torch.isnan, [torch.tensor([1.0, float("nan")])]), "isinf": (torch.isinf, [torch.tensor([1.0, 1e39])]),
    "isfinite": (torch.isfinite, [torch.tensor([1.0, 1e39, float("nan")])]), "isnan ints": (torch.isnan, [ints(3)]),
    "isposinf": (torch.isposinf, [torch.tensor([1.0, 1e39, -1e39])]),
    "isneginf": (torch.isneginf, [torch.tensor([1.0, 1e39, -1e39])]), "where": (torch.where, [bools(4, 6), V, P]),
    "where number": (lambda m, a: torch.where(m, a, 0.0), [bools(4, 6), V]),
    "masked_fill": (lambda a, m: a.masked_fill(m, -1e9), [V, bools(4, 6)]),
    "heaviside": (torch.heaviside, [torch.tensor([-1.0, 0.0, 2.0]), torch.tensor(0.5)]),
    "isclose": (torch.isclose, [V, V + 1e-9]), "any": (torch.any, [bools(4, 6)]), "all": (torch.all, [bools(4, 6)]),
    "any axis": (lambda a: a.any(1), [bools(4, 6)]), "all axis": (lambda a: a.all(0, True), [bools(4, 6)]),
    "any of reals": (torch.any, [V]),
}  # fmt: skip

CONVOLUTIONS = {
    "conv1d": (F.conv1d, [S, t(4, 5, 3), t(4)]),
    "conv1d stride": (lambda x, w: F.conv1d(x, w, None, 2, 1), [S, t(4, 5, 3)]),
    "conv2d": (F.conv2d, [X, t(4, 3, 3, 3)]),
    "conv2d bias": (lambda x, w, b: F.conv2d(x, w, b, 2, (1, 0)), [X, t(4, 3, 3, 2), t(4)]),
    "conv2d groups": (lambda x, w: F.conv2d(x, w, groups=3, padding=1), [X, t(6, 1, 3, 3)]),
    "conv2d dilation": (lambda x, w: F.conv2d(x, w, dilation=2), [X, t(4, 3, 2, 2)]),
    "conv2d same": (lambda x, w: F.conv2d(x, w, padding="same"), [X, t(4, 3, 3, 2)]),
    "conv2d valid": (lambda x, w: F.conv2d(x, w, padding="valid"), [X, t(4, 3, 3, 2)]),
    "conv2d unbatched": (F.conv2d, [X[0], t(4, 3, 3, 3)]),
    "conv1d same": (lambda x, w: F.conv1d(x, w, padding="same"), [S, t(4, 5, 4)]),
    "conv3d": (lambda x, w: F.conv3d(x, w, stride=(1, 2, 1), padding=1), [t(1, 2, 4, 5, 4), t(3, 2, 3, 2, 3)]),
    "conv_transpose3d": (lambda x, w: F.conv_transpose3d(x, w, stride=2, padding=1),
        [t(1, 2, 3, 3, 3), t(2, 3, 3, 3, 3)]),
    "conv_transpose1d": (lambda x, w: F.conv_transpose1d(x, w, stride=2), [S, t(5, 3, 3)]),
    "conv_transpose2d": (lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1), [X, t(3, 4, 3, 3), t(4)]),
    "conv_transpose2d groups": (lambda x, w: F.conv_transpose2d(x, w, None, 2, groups=3), [X, t(3, 2, 3, 3)]),
    "conv_transpose2d dilation": (lambda x, w: F.conv_transpose2d(x, w, dilation=2, padding=1), [X, t(3, 2, 3, 3)]),
}  # fmt: skip

POOLING = {
    "max_pool2d": (lambda x: F.max_pool2d(x, 2), [X]), "max_pool2d pads": (lambda x: F.max_pool2d(x, 3, 2, 1), [X]),
    "max_pool2d ceil": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), [X]),
    "max_pool2d dilation": (lambda x: F.max_pool2d(x, 2, 1, dilation=2), [X]),
    "max_pool1d": (lambda x: F.max_pool1d(x, 3, 2), [S]), "avg_pool1d": (lambda x: F.avg_pool1d(x, 3, 2, 1), [S]),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), [X]),
    "avg_pool2d ceil": (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), [X]),
    "avg_pool2d ceil uncounted": (lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), [X]),
    "avg_pool2d divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), [X]),
    "avg_pool2d unbatched": (lambda x: F.avg_pool2d(x, 2), [X[0]]),
    "adaptive 1": (lambda x: F.adaptive_avg_pool2d(x, 1), [X]),
    "adaptive even": (lambda x: F.adaptive_avg_pool2d(x, (3, 5)), [X]),
    "adaptive uneven": (lambda x: F.adaptive_avg_pool2d(x, (4, 3)), [X]),
    "adaptive keep": (lambda x: F.adaptive_avg_pool2d(x, (None, 1)), [X]),
    "adaptive 1d": (lambda x: F.adaptive_avg_pool1d(x, 3), [S]),
    "adaptive max": (lambda x: F.adaptive_max_pool2d(x, 1), [X]),
    "adaptive max uneven": (lambda x: F.adaptive_max_pool2d(x, (4, 3)), [X]),
    "adaptive max 1d": (lambda x: F.adaptive_max_pool1d(x, 3), [S]),
    "max_pool3d": (lambda x: F.max_pool3d(x, 2, 1), [t(1, 2, 3, 4, 4)]),
    "avg_pool3d": (lambda x: F.avg_pool3d(x, 2, 1, 1), [t(1, 2, 3, 4, 4)]),
    "adaptive 3d": (lambda x: F.adaptive_avg_pool3d(x, (2, 1, 3)), [t(1, 2, 3, 4, 4)]),
    "lp_pool2d": (lambda x: F.lp_pool2d(x, 2.0, 2), [X]),
}  # fmt: skip

LINEAR = {
    "linear": (F.linear, [V, t(3, 6), t(3)]), "linear rank 3": (F.linear, [S, t(4, 8)]), "mm": (torch.mm, [V, t(6, 2)]),
    "bmm": (torch.bmm, [S, t(2, 8, 3)]), "matmul": (torch.matmul, [S, t(8, 3)]), "mv": (torch.mv, [V, t(6)]),
    "dot": (torch.dot, [t(6), t(6) + 1]),
    "addmm": (lambda a, b, d: torch.addmm(a, b, d, beta=0.5, alpha=2), [t(2), V, t(6, 2)]),
    "baddbmm": (torch.baddbmm, [t(2, 5, 3), S, t(2, 8, 3)]), "addbmm": (torch.addbmm, [t(5, 3), S, t(2, 8, 3)]),
    "addmv": (torch.addmv, [t(4), V, t(6)]), "outer": (torch.outer, [t(3), t(5)]),
    "matmul ints": (torch.matmul, [ints(2, 3), ints(3, 2)]),
    "einsum": (lambda a, b: torch.einsum("bij,bkj->bik", a, b), [S, t(2, 3, 8)]),
    "einsum ellipsis": (lambda a, b: torch.einsum("...ij,jk->...ik", a, b), [S, t(8, 3)]),
    "tensordot": (lambda a, b: torch.tensordot(a, b, dims=([2], [0])), [S, t(8, 3)]),
    "bilinear": (F.bilinear, [V, t(4, 3), t(2, 6, 3), t(2)]),
    "cross": (lambda a, b: torch.linalg.cross(a, b), [t(4, 3), t(4, 3) + 1]),
    "cdist": (torch.cdist, [V, t(3, 6)]), "addr": (torch.addr, [t(3, 5), t(3), t(5)]),
    "kron": (torch.kron, [t(2, 3), t(3, 2)]),
}  # fmt: skip

NORMALIZATIONS = {
    "batch_norm": (lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b), [X, t(3), t(3, low=0.5), t(3), t(3)]),
    "batch_norm plain": (lambda x, m, v: F.batch_norm(x, m, v), [X, t(3), t(3, low=0.5)]),
    "batch_norm rank 2": (lambda x, m, v: F.batch_norm(x, m, v), [V, t(6), t(6, low=0.5)]),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (6, 5), w, b), [X, t(6, 5), t(6, 5)]),
    "layer_norm plain": (lambda x: F.layer_norm(x, (8,)), [S]),
    "rms_norm": (lambda x, w: F.rms_norm(x, (8,), w), [S, t(8)]),
    "group_norm": (lambda x, w, b: F.group_norm(x, 3, w, b), [t(2, 6, 4, 3), t(6), t(6)]),
    "group_norm plain": (lambda x: F.group_norm(x, 1), [X]), "instance_norm": (F.instance_norm, [X]),
    "instance_norm weights": (lambda x, w, b: F.instance_norm(x, weight=w, bias=b), [X, t(3), t(3)]),
    "local_response_norm": (lambda x: F.local_response_norm(x, 3), [X]),
    "cosine_similarity": (lambda a, b: F.cosine_similarity(a, b), [V, P]),
}  # fmt: skip

MOVES = {
    "view": (lambda x: x.view(2, -1), [X]), "reshape": (lambda x: x.reshape(6, 30), [X]),
    "view_as": (lambda x, y: x.view_as(y), [V, t(2, 12)]), "flatten": (lambda x: x.flatten(1), [X]),
    "flatten part": (lambda x: x.flatten(1, 2), [X]), "flatten rank 0": (lambda x: x.flatten(), [torch.tensor(1.0)]),
    "unflatten": (lambda x: x.unflatten(1, (2, -1)), [V]), "ravel": (torch.ravel, [V]), "t": (torch.t, [V]),
    "squeeze": (lambda x: x.squeeze(), [t(1, 3, 1, 2)]), "squeeze axis": (lambda x: x.squeeze(0), [t(1, 3, 1, 2)]),
    "squeeze kept": (lambda x: x.squeeze(1), [t(1, 3, 1, 2)]),
    "squeeze axes": (lambda x: x.squeeze((0, 2)), [t(1, 3, 1, 2)]),
    "unsqueeze": (lambda x: x.unsqueeze(-1), [V]), "permute": (lambda x: x.permute(0, 2, 3, 1), [X]),
    "transpose": (lambda x: x.transpose(1, -1), [X]), "swapaxes": (lambda x: x.swapaxes(0, 1), [V]),
    "movedim": (lambda x: x.movedim(1, -1), [X]), "movedim several": (lambda x: x.movedim((0, 1), (2, 0)), [X]),
    "mT": (lambda x: x.mT, [X]), "cat": (lambda a, b: torch.cat([a, b], 1), [V, P]),
    "cat types": (lambda a, b: torch.cat([a, b]), [ints(3), t(2)]),
    "cat empty": (lambda a: torch.cat([torch.zeros(0), a]), [V]),
    "stack": (lambda a, b: torch.stack([a, b], -1), [V, P]), "hstack": (lambda a, b: torch.hstack([a, b]), [V, P]),
    "hstack vectors": (lambda a, b: torch.hstack([a, b]), [t(2), t(3)]),
    "vstack": (lambda a, b: torch.vstack([a, b]), [t(3), t(3)]),
    "dstack": (lambda a, b: torch.dstack([a, b]), [V, P]),
    "column_stack": (lambda a, b: torch.column_stack([a, b]), [t(3), t(3)]),
    "slice": (lambda x: x[:, 1:4:2], [V]), "slice negative": (lambda x: x[:, -2:], [V]),
    "select": (lambda x: x[:, -1], [V]),
    "narrow": (lambda x: x.narrow(1, 2, 3), [V]), "split": (lambda x: x.split(4, 1), [V]),
    "chunk": (lambda x: x.chunk(3, 1), [V]),
    "split sizes": (lambda x: x.split([1, 2, 3], 1), [V]), "unbind": (lambda x: x.unbind(1), [V]),
    "tensor_split": (lambda x: x.tensor_split(4, 1), [V]),
    "tensor_split places": (lambda x: x.tensor_split([1, 4], 1), [V]),
    "tril": (torch.tril, [V]), "triu": (lambda x: torch.triu(x, 1), [V]),
    "diagonal": (lambda x: x.diagonal(1, -2, -1), [X]),
    "diag_embed": (torch.diag_embed, [t(2, 3)]),
    "expand": (lambda x: x.expand(3, -1, 6), [t(3, 4, 1)]), "expand_as": (lambda x, y: x.expand_as(y), [t(6), V]),
    "broadcast_to": (lambda x: torch.broadcast_to(x, (2, 4, 6)), [V]), "repeat": (lambda x: x.repeat(2, 1, 3), [V]),
    "broadcast_tensors": (lambda a, b: torch.broadcast_tensors(a, b), [t(4, 1), t(3)]),
    "tile": (lambda x: x.tile(2), [V]),
    "meshgrid": (lambda a, b: torch.meshgrid(a, b, indexing="ij"), [t(2), t(3)]),
    "meshgrid xy": (lambda a, b: torch.meshgrid(a, b, indexing="xy"), [t(2), t(3)]),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), [V]), "roll": (lambda x: x.roll(2, 1), [V]),
    "roll flat": (lambda x: x.roll(3), [V]), "roll two": (lambda x: x.roll((1, -2), (0, 1)), [V]),
    "flip": (lambda x: x.flip(0, 1), [V]), "fliplr": (torch.fliplr, [V]), "rot90": (torch.rot90, [V]),
    "rot90 back": (lambda x: torch.rot90(x, -1), [V]), "rot180": (lambda x: torch.rot90(x, 2), [V]),
    "pad": (lambda x: F.pad(x, (1, 2, 3, 0)), [X]), "pad value": (lambda x: F.pad(x, (1, 2), value=7.0), [X]),
    "pad crop": (lambda x: F.pad(x, (-1, 2)), [X]), "reflect 1d": (lambda x: F.pad(x, (1, 2), "reflect"), [S]),
    "reflect": (lambda x: F.pad(x, (1, 2, 3, 0), "reflect"), [X]),
    "replicate": (lambda x: F.pad(x, (1, 2, 3, 0), "replicate"), [X]),
    "circular": (lambda x: F.pad(x, (1, 2, 3, 0), "circular"), [X]),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), [t(1, 8, 2, 3)]),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), [t(1, 2, 4, 6)]),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 3), [t(2, 6, 4, 3)]),
    "unfold": (lambda x: x.unfold(1, 3, 2), [V]), "im2col": (lambda x: F.unfold(x, (2, 3), padding=1, stride=2), [X]),
    "fold": (lambda x: F.fold(x, (4, 5), (2, 2)), [t(1, 12, 12)]),
    "diag": (torch.diag, [t(4)]), "diag back": (torch.diag, [t(4, 4)]),
    "as_strided": (lambda x: x.as_strided((2, 3), (6, 2), 1), [V]),
    "contiguous": (lambda x: x.permute(1, 0).contiguous() + 1, [V]),
    "clone": (lambda x: x.clone() + 1, [V]), "dropout": (lambda x: F.dropout(x, 0.5, False), [V]),
    "detach": (lambda x: x.detach() * 2, [V]), "to": (lambda x: x.to(torch.int32), [V * 3]),
    "long": (lambda x: x.long(), [V * 3]),
    "bool": (lambda x: x.bool(), [ints(5)]), "type_as": (lambda a, b: a.type_as(b), [ints(4), V]),
    "float": (lambda x: x.float(), [ints(4)]),
}  # fmt: skip

CREATION = {
    "zeros": (lambda x: torch.zeros(2, 6) + x, [t(6)]),
    "ones": (lambda x: torch.ones(2, 6, dtype=torch.int64) * x, [ints(6)]),
    "full": (lambda x: torch.full((2, 6), 3.5) + x, [t(6)]), "full int": (lambda x: torch.full((6,), 3) + x, [ints(6)]),
    "zeros_like": (lambda x: torch.zeros_like(x) + x, [V]),
    "ones_like": (lambda x: torch.ones_like(x, dtype=torch.float32) + x, [V]),
    "full_like": (lambda x: torch.full_like(x, 2) * x, [V]), "new_zeros": (lambda x: x.new_zeros(6) + x, [V]),
    "new_ones": (lambda x: x.new_ones((6,)) + x, [V]), "new_full": (lambda x: x.new_full((6,), 2.0) + x, [V]),
    "arange": (lambda x: torch.arange(6) + x, [V]), "arange start": (lambda x: torch.arange(1, 7) + x, [V]),
    "arange step": (lambda x: torch.arange(0, 3, 0.5) + x, [V]),
    "arange type": (lambda x: torch.arange(6, dtype=torch.float32) + x, [V]),
    "linspace": (lambda x: torch.linspace(0, 1, 6) + x, [V]), "eye": (lambda x: torch.eye(6) @ x, [t(6, 2)]),
    "scalar_tensor": (lambda x: torch.scalar_tensor(2.0) * x, [V]),
    "logspace": (lambda x: torch.logspace(0, 1, 6) + x, [V]),
    "tril_indices": (lambda x: x[torch.tril_indices(3, 3)[0]], [V]),
    "hann_window": (lambda x: torch.hann_window(6) * x, [V]),
    "empty_like filled": (lambda x: torch.empty_like(x).fill_(2) + x, [V]),
}  # fmt: skip

INDEXING = {
    "embedding": (lambda w, i: F.embedding(i, w), [V, ints(2, 3, high=4)]),
    "one_hot": (lambda i: F.one_hot(i, 5), [ints(2, 3)]),
    "embedding_bag": (lambda w, i: F.embedding_bag(i, w, torch.tensor([0, 2]), mode="sum"), [V, ints(5, high=4)]),
    "index_select": (lambda x, i: x.index_select(1, i), [V, ints(3)]),
    "gather": (lambda x, i: x.gather(1, i), [V, ints(4, 2)]),
    "gather fewer": (lambda x, i: x.gather(1, i), [V, ints(3, 2)]), "take": (torch.take, [V, ints(2, 3, high=20)]),
    "take_along_dim": (lambda x, i: torch.take_along_dim(x, i, 1), [V, ints(4, 2)]),
    "index": (lambda x, i: x[i], [V, ints(3, high=4)]), "index second": (lambda x, i: x[:, i], [V, ints(3)]),
    "index two": (lambda x, i, j: x[i, j], [V, ints(3, high=4), ints(3)]),
    "index middle": (lambda x, i, j: x[:, i, j], [X, ints(3, high=3), ints(3)]),
    "index apart": (lambda x, i, j: x[i, :, j], [X, ints(3, high=2), ints(3)]),
    "index by list": (lambda x: x[:, [0, 2]], [V]), "index matrix": (lambda x, i: x[i], [V, ints(2, 2, high=4)]),
    "scatter": (lambda x, i, s: x.scatter(1, i, s), [V, torch.tensor([[0, 2], [1, 3]]), t(2, 2)]),
    "scatter value": (lambda x, i: x.scatter(1, i, 1.5), [V, torch.tensor([[0, 2], [1, 3]])]),
    "scatter_add": (lambda x, i, s: x.scatter_add(1, i, s), [V, ints(4, 6), P]),
    "scatter_reduce": (lambda x, i, s: x.scatter_reduce(1, i, s, "amax"), [V, ints(4, 6), P]),
    "index_add": (lambda x, s: x.index_add(1, torch.tensor([0, 2]), s), [V, t(4, 2)]),
    "index_copy": (lambda x, s: x.index_copy(1, torch.tensor([0, 2]), s), [V, t(4, 2)]),
    "index_fill": (lambda x: x.index_fill(0, torch.tensor([0, 2]), 5.0), [V]),
    "slice_scatter": (lambda x, s: torch.slice_scatter(x, s, 1, 1, 3), [V, t(4, 2)]),
    "slice_scatter step": (lambda x, s: torch.slice_scatter(x, s, 1, 0, 6, 3), [V, t(4, 2)]),
    "select_scatter": (lambda x, s: torch.select_scatter(x, s, 1, -1), [V, t(4)]),
    "index_put": (lambda x, v: x.index_put((torch.tensor([0, 2]),), v), [V, t(2, 6)]),
    "index_put add": (lambda x, v: x.index_put((torch.tensor([0, 0]),), v, True), [V, t(2, 6)]),
    "index_put two": (lambda x, v: x.index_put((torch.tensor([0, 2]), torch.tensor([1, 3])), v), [V, t(2)]),
    "index_put second": (lambda x, v: torch.ops.aten.index_put(x, [None, torch.tensor([1, 3])], v), [V, t(4, 2)]),
    "index_put mask": (lambda x: x.index_put((x > 0,), torch.tensor(0.0)), [V]),
    "masked_select": (torch.masked_select, [V, bools(4, 6)]), "nonzero": (torch.nonzero, [bools(4, 6)]),
    "index by mask": (lambda x, m: x[m], [V, bools(4, 6)]),
    "index rows by mask": (lambda x, m: x[m], [V, bools(4)]),
    "masked_scatter": (lambda x, m, s: x.masked_scatter(m, s), [V, bools(4, 6), P]),
    "bucketize": (lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0])), [V]),
}  # fmt: skip

REDUCTIONS = {
    "sum": (torch.sum, [V]), "sum axis": (lambda x: x.sum(1), [V]), "sum keep": (lambda x: x.sum((0, 1), True), [X]),
    "sum ints": (torch.sum, [ints(5)]), "sum bools": (lambda x: x.sum(0), [bools(5, 2)]),
    "sum type": (lambda x: x.sum(dtype=torch.float32), [ints(4)]),
    "mean": (torch.mean, [V]), "mean axes": (lambda x: x.mean((2, 3), keepdim=True), [X]), "prod": (torch.prod, [P]),
    "prod axis": (lambda x: x.prod(1), [P]), "max": (torch.max, [V]), "min": (torch.min, [V]),
    "max axis": (lambda x: x.max(1), [V]),
    "min axis": (lambda x: x.min(0, True), [V]), "amax": (lambda x: x.amax((1, 2)), [X]),
    "amin": (lambda x: x.amin(1, True), [V]),
    "aminmax": (lambda x: torch.aminmax(x, dim=1), [V]), "argmax": (torch.argmax, [V]),
    "argmax axis": (lambda x: x.argmax(1), [V]),
    "argmin": (lambda x: x.argmin(-1, True), [V]),
    "count_nonzero": (lambda x: torch.count_nonzero(x, 1), [ints(3, 4, high=2)]),
    "logsumexp": (lambda x: torch.logsumexp(x, 1), [V]), "norm": (torch.norm, [V]),
    "norm 1": (lambda x: x.norm(1, 1), [V]),
    "norm 3": (lambda x: torch.linalg.vector_norm(x, 3, 1), [V]),
    "norm inf": (lambda x: torch.linalg.vector_norm(x, float("inf"), 1), [V]),
    "norm 0": (lambda x: torch.linalg.vector_norm(x, 0, 1), [V]), "var": (torch.var, [V]),
    "var axis": (lambda x: x.var(1), [V]),
    "var biased": (lambda x: x.var(1, unbiased=False, keepdim=True), [V]), "std": (torch.std, [V]),
    "std axis": (lambda x: x.std((1, 2)), [X]),
    "std correction": (lambda x: torch.std(x, 1, correction=2), [V]), "var_mean": (lambda x: torch.var_mean(x, 1), [V]),
    "std_mean": (lambda x: torch.std_mean(x, 1, keepdim=True), [V]), "cumsum": (lambda x: x.cumsum(1), [V]),
    "cumsum ints": (lambda x: x.cumsum(0), [ints(5)]),
    "cummax": (lambda x: x.cummax(1)[0], [V]), "logcumsumexp": (lambda x: x.logcumsumexp(1), [V]),
    "cumprod": (lambda x: x.cumprod(1), [V]), "diff": (lambda x: torch.diff(x), [V]),
    "sum rank 0": (lambda x: x.sum(), [torch.tensor(2.0)]),
    "topk": (lambda x: x.topk(3, 1), [V]), "topk smallest": (lambda x: x.topk(2, 0, largest=False), [V]),
    "sort": (torch.sort, [V]),
    "sort descending": (lambda x: x.sort(0, descending=True), [V]),
    "sort stable": (lambda x: torch.sort(x, dim=1, stable=True), [V]),
    "argsort": (lambda x: x.argsort(1), [V]), "msort": (torch.msort, [V]),
    "kthvalue": (lambda x: x.kthvalue(2, 1), [V]),
    "median": (torch.median, [V]), "median axis": (lambda x: x.median(1), [V]),
}  # fmt: skip

RESAMPLING = {
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), [X]),
    "nearest size": (lambda x: F.interpolate(x, (7, 9)), [X]),
    "nearest 1.5": (lambda x: F.interpolate(x, scale_factor=1.5), [X]),
    "nearest 1d": (lambda x: F.interpolate(x, 11), [S]),
    "nearest exact": (lambda x: F.interpolate(x, (7, 9), mode="nearest-exact"), [X]),
    "bilinear 2": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), [X]),
    "bilinear 1.7": (lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"), [X]),
    "bilinear down": (lambda x: F.interpolate(x, (3, 4), mode="bilinear"), [X]),
    "bilinear to 1": (lambda x: F.interpolate(x, (1, 1), mode="bilinear"), [X]),
    "bilinear aligned": (lambda x: F.interpolate(x, (9, 11), mode="bilinear", align_corners=True), [X]),
    "bilinear aligned factor": (lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear", align_corners=True), [X]),
    "linear 1d": (lambda x: F.interpolate(x, 13, mode="linear"), [S]),
    "bicubic": (lambda x: F.interpolate(x, (9, 11), mode="bicubic"), [X]),
    "bicubic aligned": (lambda x: F.interpolate(x, (9, 11), mode="bicubic", align_corners=True), [X]),
    "bilinear antialias": (lambda x: F.interpolate(x, (3, 4), mode="bilinear", antialias=True), [X]),
    "bicubic antialias": (lambda x: F.interpolate(x, (3, 4), mode="bicubic", antialias=True), [X]),
    "recomputed": (lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear", recompute_scale_factor=True), [X]),
    "grid_sample": (lambda x, g: F.grid_sample(x, g, align_corners=False), [X, t(2, 4, 4, 2, low=-1.2, high=1.2)]),
    "grid_sample aligned": (lambda x, g: F.grid_sample(x, g, align_corners=True),
        [X, t(2, 4, 4, 2, low=-1.2, high=1.2)]),
    "grid_sample border": (lambda x, g: F.grid_sample(x, g, padding_mode="border", align_corners=False),
        [X, t(2, 4, 4, 2, low=-1.2, high=1.2)]),
    "grid_sample cubic": (
        lambda x, g: F.grid_sample(x, g, mode="bicubic", padding_mode="reflection", align_corners=True),
        [X, t(2, 4, 4, 2)],
    ),
    "grid_sample nearest": (lambda x, g: F.grid_sample(x, g, mode="nearest", align_corners=False),
        [X, t(2, 4, 4, 2, low=-1.2, high=1.2)]),
    "affine_grid": (lambda m: F.affine_grid(m, [2, 3, 4, 5], align_corners=False), [t(2, 2, 3)]),
}  # fmt: skip

Q = t(2, 4, 5, 8)
ATTENTION = {
    "sdpa": (F.scaled_dot_product_attention, [Q, Q + 1, Q * 2]),
    "sdpa causal": (lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True), [Q]),
    "sdpa mask": (lambda q, m: F.scaled_dot_product_attention(q, q, q, m), [Q, t(5, 5)]),
    "sdpa bool mask": (lambda q, m: F.scaled_dot_product_attention(q, q, q, m), [Q, torch.ones(5, 5).tril().bool()]),
    "sdpa scale": (lambda q: F.scaled_dot_product_attention(q, q, q, scale=0.5), [Q]),
    "sdpa grouped": (lambda q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True), [Q, t(2, 2, 5, 8)]),
}  # fmt: skip

FAMILIES = (ACTIVATIONS, ARITHMETIC, COMPARISONS, CONVOLUTIONS, POOLING, LINEAR, NORMALIZATIONS, MOVES, CREATION,
            INDEXING, REDUCTIONS, RESAMPLING, ATTENTION)  # fmt: skip
CASES = {name: case for family in FAMILIES for name, case in family.items()}


def test_no_two_cases_share_a_name() -> None:
    assert len(CASES) == sum(map(len, FAMILIES))


@pytest.mark.parametrize("name", CASES)
def test_the_training_dialect_equals_torch(name: str) -> None:
    check(*CASES[name])


NOT_DECOMPOSED = {"circular": "the decomposition writes in place", "one_hot": "torch cannot trace the decomposition"}


@pytest.mark.parametrize("name", [n for n in CASES if n not in NOT_DECOMPOSED])
def test_core_aten_equals_torch(name: str) -> None:
    check(*CASES[name], core=True)
