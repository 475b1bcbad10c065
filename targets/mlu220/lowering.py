"""Making `mlu.` ops: the state of lowering one function, and the helpers that the rules of `rules` build with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler import numerics
from compiler.ir.core import Argument, Constant, Function, Module, Op, Value
from compiler.ir.define import find_op
from compiler.ir.types import DType
from compiler.ops.graph import Return
from compiler.pass_context import PassContext

FLOAT_NAMES = {"f16": DType.F16, "f32": DType.F32}


class Lowering:
    """One function being rewritten: rules make `mlu.` ops at the end of its new body."""

    def __init__(self, module: Module, function: Function, float_type: DType, rounding: str, ctx: PassContext) -> None:
        self.module = module
        self.function = function
        self.float = float_type
        self.rounding = rounding
        self.ctx = ctx
        self.values: dict[Value, Value] = {}
        self.cached: dict[tuple[Value, DType], Value] = {}
        self.op: Op | None = None
        self.named: set[Value] = set()
        self.target = Function(function.name, function.attributes)
        self.target.module = module
        for argument in function.arguments:
            twin = self.target.add_argument(argument.type, argument.name)
            twin.attributes = dict(argument.attributes)
            self.values[argument] = twin

    def bind(self, op: Op, results: Sequence[Value]) -> None:
        """Let lowered values stand for the results of a neutral op; the first to do so takes the result's name."""
        for old, new in zip(op.results, results, strict=True):
            self.values[old] = new
            if not isinstance(new, Constant) and new.producer is not None and new not in self.named:
                new.name = old.name
                self.named.add(new)

    def keep(self, op: Op) -> None:
        """Take a neutral op over as it is, its operands converted back: what bisection sees of a function lowered in
        part."""
        mapping = {v: v if isinstance(v, Constant) else self.as_declared(v) for v in op.inputs}
        copy = op.clone(mapping)
        self.target.body.append(copy)
        self.values.update(zip(op.results, copy.results, strict=True))

    def swap(self) -> None:
        """Put the new body in place of the old one, under the same name and position."""
        for op in reversed(list(self.function.body)):
            op.erase()
        self.target.module = None
        self.module.functions[self.function.name] = self.target
        self.target.module = self.module
        self.function.module = None
        self.module.version += 1

    def finish(self, op: Op) -> None:
        """Return the values in their declared types."""
        self.target.body.append(Return(*(self.as_declared(v) for v in op.inputs), location=op.location))

    def drop_unused(self) -> None:
        """Erase ops that rules made and nothing takes after all."""
        for op in reversed(list(self.target.body)):
            if op.op_name != "graph.return" and not any(r.users for r in op.results):
                op.erase()

    # -- helpers for rules -------------------------------------------------------------------------------------------
    def make(self, name: str, *operands: Value | None, **attributes: Any) -> Value:
        """Append an `mlu.` op at the current location and give its result."""
        kind = find_op(name)
        assert kind is not None and self.op is not None
        op = kind(*operands, location=self.op.location, **attributes)
        self.target.body.append(op)
        op.results[0].name = f"{self.op.name}.{name.partition('.')[2]}" if self.op.results else ""
        return op.results[0]

    def get(self, value: Value) -> Value:
        """The lowered value of a neutral one, whatever its type; constants keep their data."""
        found = self.values.get(value)
        if found is None:
            assert isinstance(value, Constant)
            found = self.values[value] = self.plain(value)
        return found

    def plain(self, constant: Constant) -> Constant:
        """The constant without a quantised type."""
        if constant.type.quant is None:
            return constant
        return self.module.add_constant(f"{constant.name}.i", constant.data)

    def floating(self, value: Value, dtype: DType | None = None) -> Value:
        """A float value of the chip's working type (or `dtype`)."""
        wanted = dtype or self.float
        if isinstance(value, Constant):
            return self.constant(value.name, value.data.astype(np.float32), wanted)
        lowered = self.get(value)
        if lowered.type.dtype is wanted:
            return lowered
        key = (lowered, wanted)
        if key not in self.cached:
            if lowered.type.dtype is DType.BOOL:  # a byte of 0 or 1
                lowered = self.make("mlu.storage_cast", lowered, types=[lowered.type.with_dtype(DType.I8)])
            self.cached[key] = self.make("mlu.convert", lowered, to=wanted)
        return self.cached[key]

    def working(self, *values: Value) -> DType:
        """The float type in which to combine values: f32 where one of them had to become f32, else the default."""
        lowered = [self.get(v) for v in values if not isinstance(v, Constant)]
        wide = any(v.type.dtype is DType.F32 and not isinstance(v, Argument) for v in lowered)
        asked = self.asked(self.op) if self.op is not None else None
        return asked or (DType.F32 if wide else self.float)

    def asked(self, op: Op) -> DType | None:
        """The float type the scheme wants for the op's result: f32 where its range, with headroom, exceeds f16."""
        return FLOAT_NAMES.get(op.attributes.get("_float", ""))

    def as_declared(self, value: Value) -> Value:
        """The lowered value in the type the neutral one has, for function outputs."""
        lowered = self.get(value)
        if lowered.type == value.type:
            return lowered
        if value.type.dtype is DType.BOOL:
            byte = self.make("mlu.convert", lowered, to=DType.I8, rounding=self.rounding)
            final = self.make("mlu.storage_cast", byte, types=[value.type])
        elif value.type.dtype is DType.I64:
            short = self.make("mlu.convert", lowered, to=DType.I16, rounding=self.rounding)
            final = self.make("mlu.widen", short, to=value.type.dtype)
        elif lowered.type.dtype is value.type.dtype:
            final = self.make("mlu.storage_cast", lowered, types=[value.type])
        else:
            final = self.make("mlu.convert", lowered, to=value.type.dtype)
        final.name, lowered.name = value.name, f"{value.name}.{lowered.type.dtype}"
        return final

    def constant(self, name: str, data: np.ndarray, dtype: DType) -> Constant:
        """An fp32 array as a constant of a float type, rounded once."""
        rounded = numerics.to_f16(data) if dtype is DType.F16 else np.ascontiguousarray(data, np.float32)
        return self.module.add_constant(f"{name}.{dtype}", rounded)

    def reshaped(self, value: Value, shape: tuple[int, ...]) -> Value:
        """A view of the value under another shape."""
        if value.type.shape == shape:
            return value
        return self.make("mlu.reshape", value, shape=shape)
