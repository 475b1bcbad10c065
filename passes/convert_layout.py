"""`convert-layout`: spatial ops from NCHW to NHWC, with as few transposes as the graph allows.

One sweep in program order. Spatial ops get `layout = "NHWC"`; ops that do not care run in the layout their operands
already have, or the one their users want; everything else sees NCHW as before. A transpose is made only when a value is
asked for in the layout it is not in, once per value; weights and other constants are transposed here, at compile time.
Flattening is followed into the matmul behind it, whose rows are permuted instead. How each op's attributes move is in
`layout.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from compiler.ir.core import Constant, Function, Module, Op, Value
from compiler.ir.location import Location
from compiler.ops.tensor import Reshape, Transpose
from compiler.pass_context import Pass, PassContext
from compiler.rewrite import erase_dead, inherit_names
from passes.layout.cleanup import LAYOUT_CLEANUP
from passes.layout.flatten import Flattened, followers_of_flatten, permute_flat_axis
from passes.layout.rules import (
    KEPT_OPERANDS,
    SPATIAL,
    TO_NCHW,
    TO_NHWC,
    is_agnostic,
    is_image,
    move_attributes,
    moved_axis,
    order_is_kept,
    permuted,
    reduces_alike,
)


@dataclass(frozen=True, kw_only=True)
class ConvertLayout(Pass):
    """Run spatial ops in NHWC, the chip's layout; transposes are inserted at the borders and cancelled."""

    name: ClassVar[str] = "convert-layout"

    def run(self, module: Module, ctx: PassContext) -> None:
        for function in module.functions.values():
            _Conversion(function, ctx).run()
        ctx.rewrite(module, LAYOUT_CLEANUP)
        module.drop_unused_constants()
        ctx.statistics.count("transposes left", sum(op.op_name == "tensor.transpose" for op in module.ops()))


def ops_to_move(function: Function) -> set[Op]:
    """The ops that are to give their images in NHWC: the spatial ones, and those between that do not care."""
    moving: set[Op] = set()
    waiting = [
        op for op in function.body
        if op.op_name in SPATIAL and op.attributes.get("layout", "NCHW") == "NCHW" and op.results[0].type.rank == 4
    ]  # fmt: skip
    while waiting:
        op = waiting.pop()
        if op in moving:
            continue
        moving.add(op)
        reached = [user for r in op.results for user in r.users if is_agnostic(user)]
        feeding = op.inputs[:1] if op.op_name in SPATIAL else [] if op.op_name == "tensor.reshape" else op.inputs
        producers = [v.producer for v in feeding if is_image(v)]
        reached += [p for p in producers if p is not None and (is_agnostic(p) or _can_reshape_to_nhwc(p))]
        waiting += reached
    return moving


def _can_reshape_to_nhwc(op: Op) -> bool:
    return op.op_name == "tensor.reshape" and is_image(op.results[0]) and order_is_kept(op.results[0].type.shape)


class _Conversion:
    """Conversion of one function. `nhwc` and `nchw`: values' twins in that layout; `moved`: values living in NHWC."""

    def __init__(self, function: Function, ctx: PassContext) -> None:
        assert function.module is not None
        self.function = function
        self.module = function.module
        self.ctx = ctx
        self.moving = ops_to_move(function)
        self.nhwc: dict[Value, Value] = {}
        self.nchw: dict[Value, Value] = {}
        self.moved: set[Value] = set()
        self.replaced: list[Op] = []
        self.derived: list[tuple[Constant, Constant]] = []

    def run(self) -> None:
        names = self.function.output_names
        for op in list(self.function.body):
            self._visit(op)
        for op in reversed(self.replaced):
            erase_dead(op)
        inherit_names(self.module, self.derived)
        if self.function.output_names != names:
            self.function.attributes["outputs"] = names

    def _visit(self, op: Op) -> None:
        step = self._step_for(op)
        if step is None or not self.ctx.may_rewrite(f"{op.op_name} to NHWC at {op.name}"):
            self._feed_nchw(op)
        else:
            step(op)

    def _step_for(self, op: Op) -> Any:
        """The method that converts the op; None if it stays in NCHW."""
        if op.op_name == "tensor.reshape":
            if op in self.moving:
                return self._convert_reshape
            source = op.inputs[0]
            if source not in self.moved:
                return None
            if order_is_kept(source.type.shape):
                return self._convert_reshape
            followers = followers_of_flatten(op)
            return (lambda op: self._convert_flatten(op, followers)) if followers is not None else None
        if op in self.moving:
            return self._convert
        if op.inputs and op.inputs[0] in self.moved and op.op_name.startswith("reduce.") and reduces_alike(op):
            return self._convert_reduction
        return None

    # -- conversions ---------------------------------------------------------------------------------------------------
    def _convert(self, op: Op) -> None:
        """The same op on NHWC operands with its attributes moved."""
        kept = KEPT_OPERANDS.get(op.op_name, ())
        operands = [v if v is None or i in kept else self._in_nhwc(v) for i, v in enumerate(op.operands)]
        types = [permuted(r.type) for r in op.results]
        self._replace(op, type(op)(*operands, types=types, location=op.location, **move_attributes(op)), moved=True)

    def _convert_reduction(self, op: Any) -> None:
        """A reduction that removes axes and leaves the others in the same order."""
        by_index = op.op_name.startswith("reduce.arg")
        moved = {"axis": moved_axis(op.axis)} if by_index else {"axes": tuple(sorted(map(moved_axis, op.reduced_axes)))}
        types = [r.type for r in op.results]
        new = type(op)(self._in_nhwc(op.inputs[0]), types=types, location=op.location, **{**op.attributes, **moved})
        self._replace(op, new, moved=False)

    def _convert_reshape(self, op: Any) -> None:
        """A reshape of, or to, an image whose elements are in the same order in both layouts."""
        direct = op.x in self.moved and order_is_kept(op.x.type.shape)
        source = self.nhwc[op.x] if direct else self._in_nchw(op.x)
        moved = op in self.moving
        type = permuted(op.result.type) if moved else op.result.type
        new = Reshape(source, shape=type.static_shape, types=[type], location=op.location)
        self._replace(op, new, moved)

    def _convert_flatten(self, op: Any, followers: Flattened) -> None:
        """A flattened image whose order reaches only what can be permuted at compile time."""
        image = op.x.type.static_shape[1:]
        for user, index, axis in followers.constants:
            old = user.operands[index]
            assert isinstance(old, Constant)
            new = self.module.add_constant(old.name, permute_flat_axis(old.data, axis, image), old.type.quant)
            user.set_operand(index, new)
            self.derived.append((old, new))
        for value in followers.values:
            value.name = f"{value.name}.nhwc"
        op.set_operand(0, self.nhwc[op.x])

    def _feed_nchw(self, op: Op) -> None:
        """Leave the op as it is; operands that moved come back through a transpose."""
        for index, value in enumerate(op.operands):
            if value is not None and value in self.moved:
                op.set_operand(index, self._in_nchw(value))

    def _replace(self, op: Op, new: Op, moved: bool) -> None:
        """Put `new` where `op` is. Its results are NHWC twins of the old ones if `moved`, else stand for them."""
        assert op.block is not None
        op.block.insert_before(op, new)
        self.ctx.statistics.count(f"{op.op_name} converted")
        for old, result in zip(op.results, new.results, strict=True):
            result.name = old.name
            if moved:
                self.nhwc[old] = result
                self.moved.add(old)
            else:
                old.replace_all_uses_with(result)
        self.replaced.append(op)

    # -- a value in one layout or the other ----------------------------------------------------------------------------
    def _in_nhwc(self, value: Value) -> Value:
        """The value in NHWC, transposed once, right behind its definition; constants here and now."""
        twin = self.nhwc.get(value)
        if twin is None:
            twin = self.nhwc[value] = self._make_nhwc(value)
        return twin

    def _make_nhwc(self, value: Value) -> Value:
        quant = value.type.quant
        if value.type.elements == 1 and (quant is None or quant.axis is None):
            return value  # broadcasts alike in both layouts
        if isinstance(value, Constant):
            return self._constant_in_nhwc(value)
        image = value
        if value.type.rank < 4:
            shape = (1,) * (4 - value.type.rank) + value.type.static_shape
            image = self._insert_behind(value, Reshape(value, shape=shape, names=[f"{value.name}.4d"]))
        return self._insert_behind(image, Transpose(image, perm=TO_NHWC, names=[f"{value.name}.nhwc"]))

    def _constant_in_nhwc(self, value: Constant) -> Constant:
        data = value.data.reshape((1,) * (4 - value.type.rank) + value.type.static_shape)
        quant = value.type.quant
        if quant is not None and quant.axis is not None:
            quant = permuted(replace(value.type, shape=data.shape, quant=quant)).quant
        new = self.module.add_constant(value.name, np.ascontiguousarray(data.transpose(TO_NHWC)), quant)
        if new is not value:
            self.derived.append((value, new))
        return new

    def _in_nchw(self, value: Value) -> Value:
        """The value in NCHW: itself, or a transpose of what it became."""
        if value not in self.moved:
            return value
        back = self.nchw.get(value)
        if back is None:
            twin = self.nhwc[value]
            back = self._insert_behind(twin, Transpose(twin, perm=TO_NCHW, names=[f"{value.name}.nchw"]))
            self.nchw[value] = back
        return back

    def _insert_behind(self, value: Value, op: Op) -> Value:
        producer = value.producer
        if producer is None:
            op.location = Location.of(value.name) if value.name else op.location
            self.function.body.prepend(op)
        else:
            op.location = producer.location
            assert producer.block is not None
            producer.block.insert_after(producer, op)
        return op.result
