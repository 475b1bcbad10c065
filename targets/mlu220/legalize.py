"""From neutral ops to `mlu.` ops by the chip's type rules: the pass `legalize` and its table, one row per neutral op.

It runs on the subnets that `partition` made (NHWC, quantised types on values). Every float value becomes f16, or f32
where asked; function inputs and outputs keep their declared type. Convolution and matmul become the raw integer sum
followed by a multiplication with the scale vector and an addition of the bias; everything that would change bits is
decided here, never in the runtime. The same table answers, before partition, whether an op can run on the chip and, if
not, why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from compiler import numerics
from compiler.errors import CompilerError, Diagnostic
from compiler.ir.core import Argument, Constant, Function, Module, Op, Value
from compiler.ir.define import find_op
from compiler.ir.types import DType
from compiler.ir.verifier import is_subnet
from compiler.ops.graph import Return
from compiler.pass_context import Pass, PassContext
from targets.mlu220.rules import LEGALIZERS, reason_against

FLOAT_NAMES = {"f16": DType.F16, "f32": DType.F32}


@dataclass(frozen=True, kw_only=True)
class Legalize(Pass):
    """Turn the ops of subnets into `mlu.` ops, typed by the chip's rules."""

    name = "legalize"
    requires_target = True
    verify_level = "legalize"
    float: Literal["f16", "f32"] = "f16"
    rounding: Literal["nearest-even", "half-away"] = "nearest-even"

    def run(self, module: Module, ctx: PassContext) -> None:
        faults: list[Diagnostic] = []
        for function in list(module.functions.values()):
            if is_subnet(function):
                faults += Lowering(module, function, FLOAT_NAMES[self.float], self.rounding, ctx).run()
        if faults:
            raise CompilerError(faults)
        module.drop_unused_constants()


class Lowering:
    """Rewrites one function; rules call its helpers to make `mlu.` ops at the end of the new body."""

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

    def run(self) -> list[Diagnostic]:
        faults: list[Diagnostic] = []
        self.target.module = self.module
        for argument in self.function.arguments:
            twin = self.target.add_argument(argument.type, argument.name)
            twin.attributes = dict(argument.attributes)
            self.values[argument] = twin
        for op in list(self.function.body):
            self.op = op
            if op.op_name == "graph.return":
                self._finish(op)
                continue
            reason = reason_against(op)
            if reason is not None:
                faults.append(
                    Diagnostic(
                        code="E601",
                        message=f"cannot run on the chip: {reason}",
                        op=op.op_name,
                        where=str(op.location),
                        help="run partition before legalize, so that it goes to the host",
                    )
                )
                continue
            self._lower(op)
        if not faults:
            self._swap()
        return faults

    def _lower(self, op: Op) -> None:
        if self.asked(op) is DType.F32 and self.float is DType.F16:
            self.ctx.statistics.count("results in f32: their range exceeds f16, or the scheme says so")
        made = LEGALIZERS[op.op_name](self, op)
        results = made if isinstance(made, tuple) else (made,)
        for old, new in zip(op.results, results, strict=True):
            self.values[old] = new
            if not isinstance(new, Constant) and new.producer is not None and new not in self.named:
                new.name = old.name
                self.named.add(new)

    def _swap(self) -> None:
        """Put the new body in place of the old one, under the same name and position."""
        for op in reversed(list(self.function.body)):
            op.erase()
        self.target.module = None
        self.module.functions[self.function.name] = self.target
        self.target.module = self.module
        self.function.module = None
        self.module.version += 1

    def _finish(self, op: Op) -> None:
        """Return the values in their declared types."""
        self.target.body.append(Return(*(self.as_declared(v) for v in op.inputs), location=op.location))

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
        if lowered.type.dtype is value.type.dtype:
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
