"""torch functions through the aten table: traced to operators, converted one by one, and run beside torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from compiler.evaluate.interpreter import Interpreter
from compiler.frontend.aten import dtypes
from compiler.frontend.aten.registry import convert
from compiler.frontend.builder import Builder
from compiler.ir.core import Function, Module, Value
from compiler.ir.types import DType, TensorType
from compiler.ir.verifier import verify
from compiler.ops.graph import Return

SEEN: set[str] = set()
"""Operators, with overloads, that were converted so far."""


def trace(function: Callable, inputs: Sequence[Any], *, core: bool) -> Any:
    """The function's graph of operators: torch's training-time ones, or those left after its own decompositions."""
    from torch.fx.experimental.proxy_tensor import make_fx

    def plain(*args: Any) -> Any:
        return function(*args)

    table = decompositions() if core else None
    graph = make_fx(plain, decomposition_table=table, pre_dispatch=not core)(*inputs).graph
    graph.eliminate_dead_code()
    return graph


@cache
def decompositions() -> Any:
    import torch

    return dict(torch.export.default_decompositions().items())


def build(graph: Any, inputs: Sequence[Any], known: Sequence[int] = ()) -> Module:
    """The module of a traced graph. The inputs listed in `known` are constants of it."""
    module = Module({"source": "traced"})
    function = module.add_function(Function("main"))
    builder = Builder(module, function)
    values: dict[Any, Any] = {}
    places = iter(range(len(inputs)))
    for node in graph.nodes:
        if node.op == "placeholder":
            place = next(places)
            array = as_array(inputs[place])
            type = TensorType(array.shape, DType.of(array.dtype))
            values[node] = builder.constant(array) if place in known else function.add_argument(type, node.name)
        elif node.op == "get_attr":
            values[node] = builder.constant(as_array(getattr(graph.owning_module, node.target)))
        elif node.op == "call_function":
            values[node] = _call(builder, node, values)
        elif node.op == "output":
            listed = node.args[0] if isinstance(node.args[0], list | tuple) else [node.args[0]]
            results = [_value(builder, values[n] if hasattr(n, "op") else n) for n in listed if n is not None]
            function.body.append(Return(*(builder.registered(v) for v in results)))
    builder.name_results(function.body.first)
    verify(module)
    return module


def _value(builder: Builder, x: Any) -> Value:
    return x if isinstance(x, Value) else builder.constant(np.asarray(x))


def _call(builder: Builder, node: Any, values: dict[Any, Any]) -> Any:
    import operator

    if node.target is operator.getitem:
        return values[node.args[0]][node.args[1]]
    schema = node.target._schema
    overload = node.target._overloadname
    name = schema.name
    args = [_argument(a, values) for a in node.args]
    kwargs = {k: _argument(v, values) for k, v in node.kwargs.items()}
    SEEN.add(f"{name}.{overload}")
    return convert(name, overload, builder, args, kwargs)


def _argument(x: Any, values: dict[Any, Any]) -> Any:
    import torch

    if isinstance(x, torch.fx.Node):
        return values[x]
    if isinstance(x, list | tuple):
        return [_argument(item, values) for item in x]
    if isinstance(x, torch.dtype):
        return dtypes.CODES[str(x).removeprefix("torch.")]
    return None if isinstance(x, torch.device | torch.layout | torch.memory_format) else x


def as_array(x: Any) -> np.ndarray:
    """A torch tensor, or a number, as the array a module has for it."""
    import torch

    array = x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
    return array.astype(np.float32) if array.dtype in (np.float64, np.float16) else array


def run(module: Module, inputs: Sequence[Any], known: Sequence[int] = ()) -> list[np.ndarray]:
    return Interpreter(module).run([as_array(x) for i, x in enumerate(inputs) if i not in known])


def flat(x: Any) -> list[Any]:
    """The tensors and numbers of nested results, without the absent ones."""
    if isinstance(x, dict):
        x = list(x.values())
    if isinstance(x, list | tuple):
        return [leaf for item in x for leaf in flat(item)]
    return [] if x is None else [x]


def assert_close(found: Sequence[np.ndarray], expected: Sequence[Any], rtol: float = 1e-4, atol: float = 1e-5) -> None:
    assert len(found) == len(expected)
    for array, wanted in zip(found, expected, strict=True):
        reference = as_array(wanted)
        assert array.shape == reference.shape
        assert array.dtype == reference.dtype
        np.testing.assert_allclose(array, reference, rtol=rtol, atol=atol, equal_nan=True)


def check(function: Callable, inputs: Sequence[Any], *, core: bool = False, known: Sequence[int] = (),
          rtol: float = 1e-4, atol: float = 1e-5) -> Module:  # fmt: skip
    """Convert a function and compare its results on `inputs` with torch's. Gives the module."""
    import torch

    with torch.no_grad():
        expected = flat(function(*inputs))
        module = build(trace(function, inputs, core=core), inputs, known)
    assert_close(run(module, inputs, known), expected, rtol, atol)
    return module
