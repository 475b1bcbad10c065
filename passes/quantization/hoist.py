"""Moving conversions to integers up to where a tensor is made, so that it is stored as integers.

Max-pooling, relu and every op that only moves elements commute with symmetric quantisation, because it is monotone and
keeps zero: the integers are the same, element by element. A conversion moves above such an op when everything that
takes the op's result is, looking through further such ops, an integer op of one and the same type; then the producer's
kernel ends in the conversion and a quarter (or half) of the bytes travel.
"""

from __future__ import annotations

from collections.abc import Callable

from compiler.ir.core import Block, Constant, Op, Value
from compiler.ir.types import QuantType
from compiler.ops.quant import Quantize
from compiler.pass_context import PassContext

Namer = Callable[[str], str]

_ALWAYS = frozenset(
    ["nn.max_pool2d", "nn.global_max_pool", "nn.relu", "nn.depth_to_space", "nn.space_to_depth", "tensor.concat",
     "tensor.slice", "tensor.reshape", "tensor.transpose", "tensor.tile"]
)  # fmt: skip


def commutes(op: Op) -> bool:
    """Whether quantising the operands instead of the result gives the same integers."""
    if op.op_name == "tensor.pad":
        value = op.attributes.get("value", 0.0)
        return op.attributes.get("mode", "constant") != "constant" or value == 0.0
    if op.op_name == "nn.resize":
        return op.attributes.get("mode", "nearest") == "nearest"
    return op.op_name in _ALWAYS


def _may_move(op: Op) -> bool:
    """Whether a conversion may move above an op: what is known stays as it is, so no op that takes it."""
    return commutes(op) and len(op.results) == 1 and not any(isinstance(v, Constant) for v in op.inputs)


class Conversions:
    """The conversions of a block: one for each value and type, right after the value is made."""

    def __init__(self, block: Block, namer: Namer) -> None:
        self.block = block
        self.namer = namer
        self._made: dict[tuple[Value, QuantType], Value] = {}

    def of(self, value: Value, quant: QuantType) -> Value:
        """`value` as integers of this type; itself where it is that already."""
        if value.type.quant == quant:
            return value
        if (value, quant) not in self._made:
            name = self.namer(f"{value.name}.{quant.storage}")
            location = value.producer.location if value.producer is not None else None
            op = Quantize(value, types=[value.type.with_quant(quant)], names=[name])
            if location is not None:
                op.location = location
                self.block.insert_after(value.producer, op)  # type: ignore[arg-type]
            else:
                self.block.prepend(op)
            self._made[value, quant] = op.result
        return self._made[value, quant]


def hoist(block: Block, conversions: Conversions, ctx: PassContext) -> int:
    """Move conversions up as far as it saves bytes; returns the number of ops they moved above.

    One rewrite for bisection: an op moved above leaves integers to those behind it, so all of a chain move or none.
    """
    wanted = _wanted(block)
    moved: set[Op] = set()
    for op in list(block):
        quant = wanted.get(op.results[0]) if len(op.results) == 1 else None
        if quant is not None and _pays(op, quant, wanted, moved):
            if not moved and not ctx.may_rewrite("move conversions to where their operands are made"):
                break
            moved.add(op)
            for index, value in enumerate(op.operands):
                if value is not None:
                    op.set_operand(index, conversions.of(value, quant))
            op.infer_again()
            for user in op.result.users:
                if isinstance(user, Quantize):
                    user.replace_with(op.result)
    return len(moved)


def join_pairs(block: Block, ctx: PassContext) -> int:
    """Drop conversions to integers and back that another to the same type follows, across ops they commute with: those
    that other tools leave behind every op. The integers stay as they are; returns how many were dropped."""
    count = 0
    for op in list(block):
        if op.op_name == "quant.dequantize" and isinstance(op.inputs[0].producer, Quantize):
            first = op.inputs[0].producer
            quant = op.inputs[0].type.quant
            if quant is None or quant.zero_point or not op.result.users or not _all_reach(op.result, quant):
                continue
            if ctx.may_rewrite(f"join the conversions around {op.name}"):
                op.replace_with(first.inputs[0])
                count += 1
                if not first.result.users:
                    first.erase()
    return count


def _all_reach(value: Value, quant: QuantType) -> bool:
    """Whether everything that takes a value is a conversion to a type, or an op it commutes with in front of one."""
    waiting = [value]
    while waiting:
        for user in waiting.pop().users:
            if isinstance(user, Quantize):
                if user.result.type.quant != quant:
                    return False
            elif commutes(user) and len(user.inputs) == 1 and user.results[0].users:
                waiting.append(user.results[0])
            else:
                return False
    return True


def _wanted(block: Block) -> dict[Value, QuantType]:
    """The type all takers of a value want it in, where they agree."""
    wanted: dict[Value, QuantType] = {}
    for op in reversed(list(block)):
        for value in op.inputs:
            if value in wanted or isinstance(value, Constant):
                continue
            types = {_asked_by(user, wanted) for user in value.users}
            if len(types) == 1 and (quant := types.pop()) is not None:
                wanted[value] = quant
    return wanted


def _asked_by(user: Op, wanted: dict[Value, QuantType]) -> QuantType | None:
    if isinstance(user, Quantize):
        return user.result.type.quant
    return wanted.get(user.result) if _may_move(user) else None


def _pays(op: Op, quant: QuantType, wanted: dict[Value, QuantType], moved: set[Op]) -> bool:
    """Whether moving above `op` lets something be stored as integers.

    A concatenation copies its operands anyway; of other ops the operand must not be needed in another form. A relu ends
    the kernel of the layer before it, so there is nothing to gain unless what feeds it moves too.
    """
    if not _may_move(op):
        return False
    if op.op_name == "tensor.concat":
        return True
    (value,) = op.inputs
    if op.op_name == "nn.relu" and value.producer not in moved:
        return False
    return wanted.get(value) == quant
