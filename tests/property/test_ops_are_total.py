"""Every op either says what is wrong with it or can be evaluated: nothing gets past the checks and fails later.

Each neutral op is made of operands of every rank, empty ones and single numbers included, and of several element types,
with its attributes at zero, negative and out of range.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from compiler.errors import CompilerError
from compiler.evaluate.registry import evaluate_op
from compiler.ir.core import Function, Module, Op
from compiler.ir.define import _BY_TYPE, MISSING, attr, load_all_families, operand
from compiler.ir.types import DType, TensorType

SHAPES = ((), (0,), (1,), (3,), (2, 3), (0, 3), (1, 3, 4), (2, 3, 4, 4), (2, 0, 4, 4), (1, 4, 4, 4))
DTYPES = (DType.F32, DType.F16, DType.I8, DType.BOOL, DType.I64)
NEUTRAL = ("nn", "math", "tensor", "reduce")
DECLARED_WHEN_RUN = ("tensor.expand_as", "tensor.reshape_as", "tensor.slice_as", "tensor.topk_as")
"""Ops whose declared shape, or the size of an operand, is a promise that only the data can keep."""
CASES = [
    name for name in load_all_families() if name.partition(".")[0] in NEUTRAL and name not in DECLARED_WHEN_RUN
]


def settings_of(parameter: attr, rank: int) -> list[Any]:
    """Values of an attribute's kind, likely and unlikely ones."""
    kind = _BY_TYPE.get(parameter.kind, parameter.kind).name
    if kind.startswith("one of "):
        return kind.removeprefix("one of ").split(", ")
    plain: dict[str, list[Any]] = {
        "integer": [0, 1, -1, 2, rank - 1, -rank],
        "pair of integers": [(1, 1), (2, 2), (0, 1)],
        "four integers": [(0, 0, 0, 0), (1, 1, 1, 1)],
        "list of integers": [(), (0,), tuple(range(rank)), (1,) * rank, (2,) * rank, (-1,), (1,) * (2 * rank)],
        "boolean": [True],
        "element type": [DType.F32, DType.I8, DType.BOOL],
        "number": [0.5, float("nan")],
    }
    return plain.get(kind, [])


def attributes_of(kind: type[Op], rank: int) -> list[dict[str, Any]]:
    """All settings of the attributes that must be given; of the others one at a time differs from its default."""
    found: list[dict[str, Any]] = [{}]
    declared = kind.signature.attributes
    for name in (n for n, a in declared.items() if a.default is MISSING):
        found = [{**others, name: value} for others in found for value in settings_of(declared[name], rank)]
    for name in (n for n, a in declared.items() if a.default is not MISSING):
        found += [{**found[0], name: value} for value in settings_of(declared[name], rank)]
    return found[:60]


def shapes_of(count: int, random: np.random.Generator) -> Iterator[tuple[tuple[int, ...], ...]]:
    yield from ((shape,) * count for shape in SHAPES)
    for _ in range(10):
        yield tuple(SHAPES[i] for i in random.integers(0, len(SHAPES), count))


def fitting(spec: operand, shape: tuple[int, ...], dtype: DType) -> TensorType:
    """The type nearest to what is wished that the declaration of an operand allows."""
    ranks = (spec.rank,) if isinstance(spec.rank, int) else spec.rank
    if ranks is not None and len(shape) not in ranks:
        shape = next((s for s in SHAPES if len(s) in ranks), (1,) * ranks[0])
    if spec.dtypes is not None and dtype not in spec.dtypes:
        dtype = min(spec.dtypes, key=str)
    return TensorType(shape, dtype)


def data_of(type: TensorType, random: np.random.Generator) -> np.ndarray:
    return random.integers(0, 2, type.static_shape).astype(type.dtype.numpy)


@pytest.mark.parametrize("name", CASES)
def test_what_an_op_takes_can_be_evaluated(name: str) -> None:
    kind, random = load_all_families()[name], np.random.default_rng(0)
    specs = kind.signature.operands
    for shapes in shapes_of(len(specs), random):
        for dtype in DTYPES:
            for attributes in attributes_of(kind, len(shapes[0]) if shapes else 0):
                function = Module().add_function(Function("main"))
                types = [fitting(spec, shape, dtype) for spec, shape in zip(specs, shapes, strict=True)]
                operands = [function.add_argument(type) for type in types]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing
                    try:
                        op = kind(*operands, **attributes)
                        evaluate_op(op, [data_of(v.type, random) for v in operands])
                    except CompilerError:
                        continue


@pytest.mark.parametrize("name", [n for n in load_all_families() if n.partition(".")[0] in NEUTRAL])
def test_checks_and_shape_rules_take_dimensions_that_are_not_known(name: str) -> None:
    kind, random = load_all_families()[name], np.random.default_rng(1)
    specs = kind.signature.operands
    for shapes in shapes_of(len(specs), random):
        types = [fitting(spec, shape, DType.F32) for spec, shape in zip(specs, shapes, strict=True)]
        opened = [t.with_shape(tuple(None if random.random() < 0.5 else d for d in t.shape)) for t in types]
        for attributes in attributes_of(kind, opened[0].rank if opened else 0):
            function = Module().add_function(Function("main"))
            try:
                op = kind(*[function.add_argument(type) for type in opened], **attributes)
            except CompilerError:
                continue
            assert all(d is None or d >= 0 for result in op.results for d in result.type.shape)
