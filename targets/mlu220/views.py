"""Moving reshapes down, past elementwise ops and reductions, so that these join the kernel of the layer before them.

A matrix product is computed as a convolution and a norm over rows of a matrix; what comes before and after has the
model's own shape. A reshape that keeps the last axis does not matter to an op that works row by row: the op is done in
the shape in front of the reshape. Reshapes are views and cost nothing, but a kernel has one shape. No value changes.
"""

from __future__ import annotations

from typing import Any

from compiler.ir.core import Argument, Constant, Function, Op, Value
from targets.mlu220.op_move import Concat, Reshape, Slice
from targets.mlu220.op_vector import Binary, Convert, Reduce, Unary

Shape = tuple[int, ...]

FLAT = ".flat"
"""What the name of a value in another than its own shape ends in, where it has its own shape too."""


def sink_reshapes(function: Function) -> int:
    """Move reshapes below the ops that do not care; the number of ops passed."""
    moved = 0
    for op in list(function.body):
        if isinstance(op, Reshape):
            _compose(op)
        elif isinstance(op, Binary | Unary | Convert | Reduce) and _sink(op):
            moved += 1
    for op in reversed(list(function.body)):
        if isinstance(op, Reshape) and not op.result.users:
            if op.x.name == f"{op.result.name}{FLAT}":
                op.x.name = op.result.name
            op.erase()
    return moved


def _compose(op: Reshape) -> None:
    """A reshape of a reshape is one of what the first one takes; one to the same shape is nothing."""
    if isinstance(op.x.producer, Reshape):
        op.set_operand(0, op.x.producer.x)
    if op.x.type.shape == op.shape and not _is_returned(op.result):
        op.result.replace_all_uses_with(op.x)


def _sink(op: Any) -> bool:
    """Do an op in the shape in front of its first operand's reshape."""
    source = op.inputs[0].producer
    if not isinstance(source, Reshape):
        return False
    before, after = source.x.type.static_shape, source.result.type.static_shape
    if len(before) < 2 or not after or before[-1] != after[-1] or isinstance(source.x, Argument | Constant):
        return False
    if isinstance(source.x.producer, Slice | Concat) or any(isinstance(user, Concat) for user in op.result.users):
        return False
    second = op.b if isinstance(op, Binary) else None
    if second is not None and not _can_follow(second, before, after):
        return False
    op.set_operand(0, source.x)
    if second is not None:
        op.set_operand(1, _followed(second, before, after, op))
    _reshape_result(op)
    return True


def _reshape_result(op: Any) -> None:
    """Infer the op's result anew and give its takers the shape they had."""
    result = op.result
    shape, users = result.type.static_shape, list(result.users)
    op.infer_again()
    name = result.name
    back = Reshape(result, shape=shape, names=[name], location=op.location)
    op.block.insert_after(op, back)
    result.replace_uses_if(back.result, lambda user: user in users)
    result.name = f"{name}{FLAT}"


def _wanted(shape: Shape, before: Shape, after: Shape) -> Shape | None:
    """The shape a second operand has beside a first one of shape `before` when it has `shape` beside one of `after`."""
    if shape == after:
        return before
    if shape == (*after[:-1], 1):
        return (*before[:-1], 1)
    return shape if len(shape) == 1 and shape[0] == before[-1] else None


def _can_follow(value: Value, before: Shape, after: Shape) -> bool:
    """Whether a second operand can be had in the other shape without a copy."""
    shape = value.type.static_shape
    wanted = _wanted(shape, before, after)
    if wanted is None or wanted == shape:
        return wanted is not None
    if isinstance(value, Constant):
        return True
    if isinstance(value.producer, Reshape):
        value = value.producer.x
    strided = isinstance(value.producer, Slice | Concat) or any(isinstance(user, Concat) for user in value.users)
    return value.type.shape == wanted or not strided


def _followed(value: Value, before: Shape, after: Shape, op: Op) -> Value:
    wanted = _wanted(value.type.static_shape, before, after)
    assert wanted is not None
    if value.type.shape == wanted:
        return value
    if isinstance(value, Constant):
        assert op.module is not None
        return op.module.add_constant(value.name, value.data.reshape(wanted))
    if isinstance(value.producer, Reshape):
        value = value.producer.x
        if value.type.shape == wanted:
            return value
    view = Reshape(value, shape=wanted, names=[f"{value.name}.view"], location=op.location)
    op.block.insert_before(op, view)  # type: ignore[union-attr]
    return view.result


def _is_returned(value: Value) -> bool:
    return any(user.op_name == "graph.return" for user in value.users)
