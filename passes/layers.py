"""Layers with weights: which ops they are, how a user names them, how many parameters there are.

Shared by pruning and quantisation, so that a name or pattern means the same to both.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator

import numpy as np

from compiler.errors import error
from compiler.ir.core import Constant, Module, Op
from compiler.ir.types import QuantType

WEIGHTED = ("nn.conv2d", "nn.conv_transpose2d", "nn.matmul")
"""Ops whose second operand, where it is a constant, holds weights."""


def layers(module: Module) -> Iterator[tuple[Op, Constant]]:
    """The ops that have constant weights, with these."""
    for op in module.ops():
        if op.op_name in WEIGHTED and isinstance(op.operands[1], Constant):
            yield op, op.operands[1]


def names_of(op: Op) -> list[str]:
    """What a user may call a layer: its result, its weights, its source nodes."""
    return [op.name, *(v.name for v in op.inputs[1:2] if isinstance(v, Constant)), *op.location.nodes]


def layer_names(module: Module) -> list[str]:
    """Every name a layer may be called by."""
    return [name for op, _ in layers(module) for name in names_of(op)]


def matches(pattern: str, names: Iterable[str]) -> bool:
    """Whether a name or glob pattern (`*`, `?`, `[..]`) means one of `names`; a pattern that is a name means itself."""
    return any(pattern == name or fnmatch.fnmatchcase(name, pattern) for name in names)


def unmatched(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """The patterns that mean none of `names`."""
    known = list(names)
    return [pattern for pattern in patterns if not matches(pattern, known)]


def matching(patterns: Iterable[str], op: Op) -> bool:
    """Whether a name or glob pattern means this layer."""
    names = names_of(op)
    return any(matches(pattern, names) for pattern in patterns)


def replace_constant(old: Constant, data: np.ndarray, quant: QuantType | None = None) -> Constant:
    """A constant of other content under `old`'s name and in its place in the module; `old`'s uses stay with `old`."""
    module = old.module
    new = Constant(module, old.name, data, quant)
    module.constants[old.name] = new
    module.version += 1
    return new


def parameters(module: Module) -> int:
    """Elements of all float constants in use."""
    return sum(c.data.size for c in module.constants.values() if c.uses and c.type.dtype.is_float)


def reject_quantised(module: Module, pass_name: str) -> None:
    """Raise CompilerError E540 where a weight is quantised already."""
    for op, constant in layers(module):
        if constant.type.quant is not None:
            raise error(
                "E540", "works on float weights, the module is quantised already", op=pass_name,
                where=f"{op.name}: weights @{constant.name} are {constant.type.dtype}",
                help=f"put {pass_name} before quantize",
            )  # fmt: skip
