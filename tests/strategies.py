"""Hypothesis strategies for IR: types, attribute values, constants, whole valid modules; the `test.` ops they use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from compiler.ir.core import Block, Constant, Function, Module, Op, Region, Value
from compiler.ir.define import Any_, Choice, Floats, IntPair, attr, op, operand, region, result
from compiler.ir.location import Location
from compiler.ir.types import DType, QuantType, TensorType
from compiler.ops.graph import Call, Kernel, Return, Yield
from compiler.ops.math import Add
from compiler.ops.nn import Relu
from compiler.ops.tensor import Concat


# -- ops ---------------------------------------------------------------------------------------------------------------
@op("test.unary")
class Unary(Op):
    """One operand, one result of its type, and an attribute of every kind."""

    x = operand()
    count = attr(int, default=1)
    ratio = attr(float, default=0.0)
    flag = attr(bool, default=False)
    word = attr(str, default="")
    mode = attr(Choice("near", "far"), default="near")
    pair = attr(IntPair, default=(1, 1))
    numbers = attr(Floats, default=())
    to = attr(DType, default=None)
    table = attr(dict, default=None)
    anything = attr(Any_, default=None)
    y = result()

    def infer(self) -> TensorType:
        return self.x.type


@op("test.optional")
class Optional(Op):
    """Two optional operands after a required one, any two results."""

    x = operand()
    a = operand(optional=True)
    b = operand(optional=True)
    first = result()
    second = result()


@op("test.source")
class Source(Op):
    """No operands, any number of results."""

    values = result(variadic=True)


@op("test.sink")
class Sink(Op):
    """Any number of operands, no result."""

    values = operand(variadic=True)


@op("test.matched")
class Matched(Op):
    """Two operands that must be f32 of rank 2 and have as many rows."""

    a = operand(rank=2, dtypes=(DType.F32,))
    b = operand(rank=2, dtypes=(DType.F32,))
    axis = attr(int)
    y = result()

    def check(self) -> Iterator[str]:
        if self.a.type.shape[0] != self.b.type.shape[0]:
            yield f"a has {self.a.type.shape[0]} rows, b has {self.b.type.shape[0]}"

    def infer(self) -> TensorType:
        return self.a.type


@op("test.branch")
class Branch(Op):
    """Two regions."""

    x = operand()
    left = region()
    right = region()
    y = result()


# -- leaves ------------------------------------------------------------------------------------------------------------
plain_names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.$-]{0,6}", fullmatch=True)
names = st.one_of(st.sampled_from(["x", "y", "conv1", "a/b:0", "_", "1", ""]), plain_names, st.text(max_size=8))
shapes = st.lists(st.integers(0, 6), max_size=4).map(tuple)
dynamic_shapes = st.lists(st.one_of(st.none(), st.integers(0, 300)), max_size=5).map(tuple)
dtypes = st.sampled_from(list(DType))
singles = st.floats(width=32, min_value=2.0**-60, max_value=2.0**60)

scalars: SearchStrategy[Any] = st.one_of(
    st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), dtypes
)
attribute_values: SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
attribute_tables = st.dictionaries(st.text(max_size=6), attribute_values, max_size=4)
locations = st.lists(st.tuples(st.sampled_from(["", "m.onnx", "other file.pt"]), st.text(max_size=6)), max_size=3).map(
    lambda places: Location(tuple(sorted(set(places))))
)


@st.composite
def quant_types(draw: DrawFn) -> QuantType:
    """A per-tensor quantisation."""
    storage = draw(st.sampled_from([DType.I8, DType.I16, DType.U8]))
    zero_point = draw(st.sampled_from([0, 0, 3, 100]))
    step = draw(st.one_of(st.none(), singles))
    return QuantType(storage, draw(st.integers(-30, 30)), draw(singles), zero_point=zero_point, step=step)


@st.composite
def tensor_types(draw: DrawFn, dynamic: bool = True) -> TensorType:
    """Any tensor type; per-tensor quantised ones included."""
    shape = draw(dynamic_shapes if dynamic else shapes)
    if draw(st.integers(0, 4)) == 0:
        return TensorType(shape, DType.F32).with_quant(draw(quant_types()))
    return TensorType(shape, draw(dtypes))


@st.composite
def arrays(draw: DrawFn, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """An array of any element type with arbitrary bits, NaN payloads included; often of equal elements."""
    shape = draw(shapes) if shape is None else shape
    dtype = draw(dtypes).numpy
    size = int(np.prod(shape, dtype=np.int64))
    if draw(st.booleans()):
        value = draw(st.sampled_from([0, 1, -1.5, 0.1, float("nan"), float("inf"), 3e38]))
        with np.errstate(all="ignore"):
            return np.full(shape, np.array(value).astype(dtype))
    seed = draw(st.integers(0, 2**32 - 1))
    raw = np.random.default_rng(seed).integers(0, 256, size * dtype.itemsize, dtype=np.uint8)
    if dtype == np.bool_:
        raw &= 1
    return raw.view(dtype).reshape(shape)


# -- modules -----------------------------------------------------------------------------------------------------------
class _Maker:
    """Draws ops into a block; `pool` is what they may take."""

    def __init__(self, draw: DrawFn, module: Module, block: Block, pool: list[Value]) -> None:
        self.draw, self.module, self.block, self.pool = draw, module, block, pool

    def place(self, made: Op) -> None:
        for value in made.results:
            value.name = self.draw(names)
        made.location = self.draw(locations)
        self.block.append(made)
        self.pool += made.results

    def value(self) -> Value:
        return self.draw(st.sampled_from(self.pool))

    def values(self, least: int = 0, most: int = 3) -> list[Value]:
        return self.draw(st.lists(st.sampled_from(self.pool), min_size=least, max_size=most)) if self.pool else []

    def types(self, least: int = 0, most: int = 2) -> list[TensorType]:
        return self.draw(st.lists(tensor_types(), min_size=least, max_size=most))

    def op(self, nested: bool) -> None:
        kinds = ["source", "sink", "relu", *(["kernel"] if nested else [])]
        kinds += ["unary", "unary", "optional", "add", "concat"] if self.pool else []
        getattr(self, self.draw(st.sampled_from(kinds)))()

    def source(self) -> None:
        self.place(Source(types=self.types(1)))

    def sink(self) -> None:
        self.place(Sink(*self.values()))

    def unary(self) -> None:
        given: dict[str, Any] = {
            "count": self.draw(st.one_of(st.none(), st.integers())),
            "ratio": self.draw(st.one_of(st.none(), st.floats())),
            "flag": self.draw(st.one_of(st.none(), st.booleans())),
            "word": self.draw(st.one_of(st.none(), st.text(max_size=4))),
            "mode": self.draw(st.sampled_from([None, "near", "far"])),
            "pair": self.draw(st.one_of(st.none(), st.tuples(st.integers(0, 3), st.integers(0, 3)))),
            "numbers": self.draw(st.one_of(st.none(), st.lists(st.floats(), max_size=3))),
            "to": self.draw(st.one_of(st.none(), dtypes)),
            "table": self.draw(st.one_of(st.none(), attribute_tables)),
            "anything": self.draw(st.one_of(st.none(), attribute_values)),
            "_note": self.draw(st.one_of(st.none(), attribute_values)),
        }
        shown = self.draw(st.sets(st.sampled_from(sorted(given)), max_size=4))
        self.place(Unary(self.value(), **{key: given[key] for key in shown}))

    def optional(self) -> None:
        optional = [self.draw(st.one_of(st.none(), st.sampled_from(self.pool))) for _ in range(2)]
        self.place(Optional(self.value(), *optional, types=self.types(2)))

    def relu(self) -> None:
        type = TensorType(self.draw(shapes), DType.F32)
        source = Source(types=[type])
        self.place(source)
        self.place(Relu(source.results[0]))

    def joined(self, cls: type[Op]) -> None:
        shape = self.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple))
        source = Source(types=[TensorType(shape, DType.F32)] * 2)
        self.place(source)
        self.place(cls(*source.results, **({"axis": 0} if cls is Concat else {})))

    def add(self) -> None:
        self.joined(Add)

    def concat(self) -> None:
        self.joined(Concat)

    def kernel(self) -> None:
        operands = self.values()
        inner = Region()
        arguments: list[Value] = [inner.block.add_argument(v.type, self.draw(names)) for v in operands]
        constants: list[Value] = list(self.module.constants.values())
        maker = _Maker(self.draw, self.module, inner.block, arguments + constants)
        for _ in range(self.draw(st.integers(0, 3))):
            maker.op(nested=False)
        inner.block.append(Yield(*maker.values()))
        schedule = self.draw(st.one_of(st.none(), attribute_tables))
        types = [v.type for v in inner.block.terminator.inputs]
        self.place(Kernel(*operands, regions=[inner], types=types, schedule=schedule))


@st.composite
def modules(draw: DrawFn) -> Module:
    """A valid module: constants (per-axis quantised ones too), functions with calls, kernels, names of every sort."""
    module = Module(draw(attribute_tables))
    if draw(st.booleans()):
        module.attributes["source"] = "m.onnx"
    for _ in range(draw(st.integers(0, 3))):
        _add_constant(draw, module)
    functions = draw(st.lists(names.filter(bool), unique=True, min_size=1, max_size=2))
    for name in functions:
        _add_function(draw, module, name)
    return module


def _add_constant(draw: DrawFn, module: Module) -> Constant:
    array = draw(arrays())
    if array.dtype == np.int8 and array.ndim and array.shape[0]:
        scales = module.add_constant(draw(names), np.linspace(0.5, 2.0, array.shape[0], dtype=np.float32))
        return module.add_constant(draw(names), array, QuantType(DType.I8, -3, axis=0, params=scales.name))
    return module.add_constant(draw(names), array)


def _add_function(draw: DrawFn, module: Module, name: str) -> Function:
    earlier = list(module.functions.values())
    function = module.add_function(Function(name, draw(st.one_of(st.just({}), attribute_tables))))
    function.attributes.pop("outputs", None)
    for type in draw(st.lists(tensor_types(), max_size=2)):
        argument = function.add_argument(type, draw(names))
        argument.attributes = draw(st.one_of(st.just({}), attribute_tables))
    pool: list[Value] = [*function.arguments, *module.constants.values()]
    maker = _Maker(draw, module, function.body, pool)
    for _ in range(draw(st.integers(0, 5))):
        maker.op(nested=True)
    for callee in earlier:
        if not callee.arguments and draw(st.booleans()):
            maker.place(Call(callee=callee.name, types=[v.type for v in callee.outputs]))
    function.body.append(Return(*maker.values()))
    return function
