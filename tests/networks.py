"""Small float networks for tests of passes: one call a layer, weights from a seeded generator."""

from __future__ import annotations

import numpy as np

from compiler.evaluate.interpreter import Interpreter
from compiler.ir.core import Function, Module, Op, Value
from compiler.ir.define import find_op
from compiler.ir.types import DType, TensorType


class Network:
    """A module under construction. Every method appends one op and returns its first result."""

    def __init__(self, *shapes: tuple[int, ...], seed: int = 0) -> None:
        self.module = Module()
        self.main = self.module.add_function(Function("main"))
        self.random = np.random.default_rng(seed)
        self.inputs: list[Value] = [
            self.main.add_argument(TensorType(shape, DType.F32), "x" if i == 0 else f"x{i}")
            for i, shape in enumerate(shapes)
        ]

    @property
    def x(self) -> Value:
        return self.inputs[0]

    def op(self, kind: str, *operands: Value | None, name: str, **attributes: object) -> Value:
        found = find_op(kind)
        assert found is not None, kind
        op: Op = found(*operands, names=[name], **attributes)
        return self.main.body.append(op).results[0]

    def constant(self, name: str, *shape: int, scale: float = 1.0) -> Value:
        data = (self.random.normal(size=shape) * scale).astype(np.float32)
        return self.module.add_constant(name, data)

    def conv(self, x: Value, co: int, name: str, *, kernel: int = 1, groups: int = 1, **attributes: object) -> Value:
        """A convolution that keeps the size (stride apart), with a bias."""
        inner = x.type.static_shape[1] // groups
        w = self.constant(f"{name}.w", co, inner, kernel, kernel, scale=(inner * kernel * kernel) ** -0.5)
        bias = self.constant(f"{name}.b", co, scale=0.1)
        pads = (kernel // 2,) * 4
        return self.op("nn.conv2d", x, w, bias, name=name, pads=pads, groups=groups, **attributes)

    def relu(self, x: Value, name: str) -> Value:
        return self.op("nn.relu", x, name=name)

    def add(self, a: Value, b: Value, name: str) -> Value:
        return self.op("math.add", a, b, name=name)

    def matmul(self, x: Value, n: int, name: str) -> Value:
        k = x.type.static_shape[-1]
        return self.op("nn.matmul", x, self.constant(f"{name}.w", k, n, scale=k**-0.5), name=name)

    def flatten(self, x: Value, name: str) -> Value:
        return self.op("tensor.reshape", x, name=name, shape=(x.type.static_shape[0], x.type.elements))

    def done(self, *outputs: Value) -> Module:
        """The finished module."""
        found = find_op("graph.return")
        assert found is not None
        self.main.body.append(found(*outputs))
        return self.module

    def image(self) -> np.ndarray:
        return self.random.normal(size=self.x.type.static_shape).astype(np.float32)


def run(module: Module, *inputs: np.ndarray) -> list[np.ndarray]:
    """The outputs of one run."""
    return Interpreter(module).run(list(inputs))


def observed(module: Module, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Every argument and result of one run, by name."""
    values: dict[str, np.ndarray] = {}
    Interpreter(module).run(list(inputs), lambda value, array: values.__setitem__(value.name, array.copy()))
    return values


def op_named(module: Module, name: str) -> Op:
    """The op that defines the value called `name`."""
    return next(op for op in module.ops() if any(r.name == name for r in op.results))
