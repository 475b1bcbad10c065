"""Growing kernels: the pass `fuse-layers`.

A kernel holds an anchor (convolution, depthwise, pooling), elementwise ops before it where the target allows, and the
elementwise chain after it: scale, bias, residual, activation, conversion. Its intermediates never leave the chip. An op
joins a kernel only if everything else it takes is defined before the kernel's first op, so the kernel can stand there
and stays convex. Views stay outside; a concatenation is a view when each of its parts is a kernel result that can be
stored in place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from compiler.ir.core import Argument, Block, Constant, Function, Module, Op, Region, Value
from compiler.ir.define import find_op
from compiler.ir.location import Location
from compiler.ir.verifier import is_subnet
from compiler.ops.graph import Kernel, Yield
from compiler.pass_context import Pass, PassContext
from passes.outlining import boundary


@dataclass(frozen=True, kw_only=True)
class FuseLayers(Pass):
    """Group legalised ops into kernels whose intermediates never leave the chip."""

    name = "fuse-layers"
    requires_target = True
    follows = "legalize"
    max_ops: int = 24
    """Most ops in a kernel."""
    elementwise: bool = True
    """Whether elementwise ops join the kernels that feed them; if not, every op is a kernel of its own."""

    def run(self, module: Module, ctx: PassContext) -> None:
        for function in list(module.functions.values()):
            if is_subnet(function):
                make_views_storable(function, ctx)
                for group in Grouping(function, ctx, self).run():
                    outline(function, group)
                    ctx.statistics.count("kernels")
                    ctx.statistics.count("ops that joined a kernel", len(group.ops) - 1)


# -- views -----------------------------------------------------------------------------------------------------------
def make_views_storable(function: Function, ctx: PassContext) -> None:
    """Copy where a view could not name its bytes: results that share or lie inside other memory, parts of
    concatenations that lie elsewhere, reshapes of strided views."""
    block = function.body
    _make_results_own(function, ctx)
    for op in list(block):
        if ctx.target.storage(op) == "result":
            for index, value in enumerate(op.operands):
                if value is not None and not _storable_part(value, op, ctx):
                    op.set_operand(index, _copied(block, value, op))
                    ctx.statistics.count("copies into concatenations")
        elif ctx.target.storage(op) == "operand" and op.op_name.endswith(".reshape") and _is_strided(op.inputs[0], ctx):
            op.set_operand(0, _copied(block, op.inputs[0], op))
            ctx.statistics.count("copies before reshapes")


def _make_results_own(function: Function, ctx: PassContext) -> None:
    """Give every returned value bytes of its own: they are the caller's buffers."""
    final = function.body.terminator
    taken: set[Value] = set()
    for index, value in enumerate(final.inputs):
        root, whole = value, True
        while root.producer is not None and ctx.target.storage(root.producer) == "operand":
            root = root.producer.inputs[0]
            whole &= root.type.elements == value.type.elements
        inside = any(ctx.target.storage(user) == "result" for user in root.users if user is not final)
        if root.producer is None or root in taken or inside or not whole:
            final.set_operand(index, _copied(function.body, value, final))
            ctx.statistics.count("copies into results")
        taken.add(root)


def _storable_part(value: Value, concat: Op, ctx: PassContext) -> bool:
    """Whether a concatenation's part can be stored in place: a kernel's result that lives nowhere else and is not
    returned."""
    producer = value.producer
    if producer is None or ctx.target.storage(producer) == "operand":
        return False
    for user in value.users:
        if user.op_name == "graph.return" or user.op_name.endswith(".reshape"):
            return False
        if user is not concat and ctx.target.storage(user) == "result":
            return False
    return sum(v is value for v in concat.operands) == 1


def _is_strided(value: Value, ctx: PassContext) -> bool:
    """Whether a value's bytes are not dense: a slice, or a part of a concatenation."""
    producer = value.producer
    if producer is not None and producer.op_name.endswith(".slice"):
        return True
    return any(ctx.target.storage(user) == "result" for user in value.users)


def _copied(block: Block, value: Value, before: Op) -> Value:
    kind = find_op("mlu.copy")
    assert kind is not None
    copy = kind(value, names=[f"{value.name}.copy"], location=before.location)
    block.insert_before(before, copy)
    return copy.results[0]


# -- grouping --------------------------------------------------------------------------------------------------------
@dataclass(eq=False)
class Group:
    """Ops that become one kernel, in order. `anchored`: holds more than elementwise ops."""

    ops: list[Op] = field(default_factory=list)
    anchored: bool = False


class Grouping:
    """One walk over a function's ops, each joining a kernel begun earlier or beginning one."""

    def __init__(self, function: Function, ctx: PassContext, options: FuseLayers) -> None:
        self.function = function
        self.target = ctx.target
        self.may_rewrite = ctx.may_rewrite
        self.options = options
        self.group_of: dict[Op, Group] = {}
        self.order = {op: index for index, op in enumerate(function.body)}

    def run(self) -> list[Group]:
        for op in self.function.body:
            role = self.target.role(op) if op.op_name != "graph.return" else "view"
            if role == "view":
                continue
            group = self._group_to_join(op, role)
            if group is None:
                group = Group()
            group.ops.append(op)
            group.anchored |= role != "elementwise"
            self.group_of[op] = group
        return list(dict.fromkeys(self.group_of.values()))

    def _group_to_join(self, op: Op, role: str) -> Group | None:
        if role == "movement" or not self.options.elementwise:
            return None
        producers = [v.producer for v in op.inputs if v.producer in self.group_of]
        groups = list(dict.fromkeys(self.group_of[p] for p in producers if p is not None))
        for group in sorted(groups, key=lambda g: -self.order[g.ops[0]]):
            told = f"{op.name} joins the kernel of {group.ops[0].name}"
            if self._may_join(group, op, role) and self.may_rewrite(told):
                return group
        return None

    def _may_join(self, group: Group, op: Op, role: str) -> bool:
        if len(group.ops) >= self.options.max_ops:
            return False
        start = self.order[group.ops[0]]
        inside = set(group.ops)
        for value in op.inputs:
            if isinstance(value, Constant | Argument) or value.producer in inside:
                continue
            producer = value.producer
            if producer is None or self._definition(producer) >= start:
                return False
        if role == "anchor" and (group.anchored or not self._used_only_by(group, op)):
            return False
        return self.target.reason_against_joining(group.ops, op) is None

    def _definition(self, producer: Op) -> int:
        """Where a value will be defined: at its kernel's first op."""
        group = self.group_of.get(producer)
        return self.order[producer] if group is None else self.order[group.ops[0]]

    @staticmethod
    def _used_only_by(group: Group, op: Op) -> bool:
        inside = {*group.ops, op}
        return all(user in inside for member in group.ops for r in member.results for user in r.users)


# -- outlining -------------------------------------------------------------------------------------------------------
def outline(function: Function, group: Group) -> Kernel:
    """Replace a group's ops by a `graph.kernel` that holds them, at the place of the first."""
    inside = set(group.ops)
    inputs, outputs = boundary(group.ops)
    region = Region()
    marker = group.ops[0].previous
    for value in inputs:
        argument = region.block.add_argument(value.type, f"{value.name}.in")
        value.replace_uses_if(argument, lambda user: user in inside)
    for op in group.ops:
        region.block.append(op.detach())
    kernel = Kernel(
        *inputs, types=[v.type for v in outputs], names=[v.name for v in outputs], regions=[region],
        location=Location.union(op.location for op in group.ops),
    )  # fmt: skip
    if marker is None:
        function.body.prepend(kernel)
    else:
        function.body.insert_after(marker, kernel)
    for value, result in zip(outputs, kernel.results, strict=True):
        value.replace_uses_if(result, lambda user: user not in inside)
    for value in outputs:
        value.name = f"{value.name}.t"
    region.block.append(Yield(*outputs))
    return kernel
