"""Whether two modules say the same: op by op, with constants compared by content hash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compiler.ir.core import Argument, Block, Constant, Module, Op, Value
from compiler.ir.define import MISSING, same_attribute
from compiler.ir.printer import attribute_text, print_op


def modules_equal(a: Module, b: Module, *, names: bool = True) -> bool:
    """Whether two modules have the same functions, ops, types, attributes, locations, constants and (`names`) names."""
    return first_difference(a, b, names=names) is None


def first_difference(a: Module, b: Module, *, names: bool = True) -> str | None:
    """Where two modules first differ, in words; None where they are equal. Numbers are compared to the bit."""
    return next(_differences(a, b, names), None)


def _differences(a: Module, b: Module, names: bool) -> Iterator[str]:
    if not same_attribute(a.attributes, b.attributes):
        yield f"module attributes {attribute_text(a.attributes)} and {attribute_text(b.attributes)}"
    if list(a.constants) != list(b.constants):
        yield f"constants {sorted(a.constants.keys() ^ b.constants.keys()) or 'in another order'}"
        return
    for name, constant in a.constants.items():
        other = b.constants[name]
        if constant.type != other.type or constant.hash != other.hash:
            yield f"constant @{name}"
    if list(a.functions) != list(b.functions):
        yield f"functions {list(a.functions)} and {list(b.functions)}"
        return
    for name, function in a.functions.items():
        if not same_attribute(function.attributes, b.functions[name].attributes):
            yield f"attributes of @{name}"
        twins: dict[Value, Value] = {}
        yield from _block_differences(function.body, b.functions[name].body, twins, names, f"@{name}")


def _block_differences(a: Block, b: Block, twins: dict[Value, Value], names: bool, where: str) -> Iterator[str]:
    if len(a.arguments) != len(b.arguments) or len(a) != len(b):
        yield f"{where}: {len(a.arguments)} arguments and {len(a)} ops, {len(b.arguments)} arguments and {len(b)} ops"
        return
    if not _same_values(a.arguments, b.arguments, twins, names):
        yield f"arguments of {where}"
    for mine, other in zip(a, b, strict=True):
        if not _same_op(mine, other, twins, names):
            yield f"{where}: {print_op(mine, regions=False)} and {print_op(other, regions=False)}"
            return
        for mine_region, other_region in zip(mine.regions, other.regions, strict=True):
            yield from _block_differences(mine_region.block, other_region.block, twins, names, f"{where} {mine.name!r}")


def _same_values(a: Sequence[Value], b: Sequence[Value], twins: dict[Value, Value], names: bool) -> bool:
    """Whether definitions agree; they become twins."""
    twins.update(zip(a, b, strict=False))
    return len(a) == len(b) and all(
        x.type == y.type and (not names or x.name == y.name)
        and (not (isinstance(x, Argument) and isinstance(y, Argument)) or same_attribute(x.attributes, y.attributes))
        for x, y in zip(a, b, strict=True)
    )  # fmt: skip


def _same_op(a: Op, b: Op, twins: dict[Value, Value], names: bool) -> bool:
    return (
        a.op_name == b.op_name
        and a.location == b.location
        and len(a.regions) == len(b.regions)
        and _same_attributes(a, b)
        and len(a._operands) == len(b._operands)
        and all(_same_operand(x, y, twins) for x, y in zip(a._operands, b._operands, strict=True))
        and _same_values(a.results, b.results, twins, names)
    )


def _same_operand(a: Value | None, b: Value | None, twins: dict[Value, Value]) -> bool:
    if isinstance(a, Constant) and isinstance(b, Constant):
        return a.name == b.name
    return a is b is None or (a is not None and twins.get(a) is b)


def _same_attributes(a: Op, b: Op) -> bool:
    """Attributes, where one that is absent counts as its default."""
    declared = a.signature.attributes
    defaults = {key: spec.default for key, spec in declared.items()}
    return all(
        same_attribute(a.attributes.get(key, defaults.get(key, MISSING)),
                       b.attributes.get(key, defaults.get(key, MISSING)))
        for key in a.attributes.keys() | b.attributes.keys()
    )  # fmt: skip
