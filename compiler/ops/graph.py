"""The `graph.` ops: structure that passes make. Calls between functions, fused kernels, and terminators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from compiler.ir.core import Block, Op, Value
from compiler.ir.define import Dict, attr, op, operand, region, result
from compiler.ir.types import DType, TensorType


@op("graph.return", traits=["terminator"])
class Return(Op):
    """Ends a function and gives its outputs. Printed `return %a, %b`."""

    values = operand(variadic=True)


@op("graph.yield", traits=["terminator"])
class Yield(Op):
    """Ends the region of a kernel and gives its results."""

    values = operand(variadic=True)


@op("graph.call")
class Call(Op):
    """Calls another function of the module. Result types are those the callee returns."""

    arguments = operand(variadic=True)
    callee = attr(str)
    values = result(variadic=True)

    def check(self) -> Iterable[str]:
        module = self.module
        if module is None:
            return
        callee = module.functions.get(self.callee)
        if callee is None:
            yield f"calls @{self.callee}, which the module does not have"
            return
        given = [v.type for v in self.inputs]
        wanted = [a.type for a in callee.arguments]
        if given != wanted:
            yield f"argument types differ from those of @{self.callee}"
        if [r.type for r in self.results] != [v.type for v in callee.outputs]:
            yield f"result types differ from those of @{self.callee}"


@op("graph.kernel")
class Kernel(Op):
    """A fused group of ops whose intermediates never leave the chip.

    Operands become the region's arguments in order; constants are referred to directly inside. `schedule` is written by
    the pass `schedule` (split over cores, tile, buffering, on-chip buffers); `placement` by `plan-memory` (address of
    each result); `on_chip` by `keep-on-chip` (numbers of the operands and results that lie in the shared memory, and
    where filters, scales and biases are put there in advance, -1 for those that are not).
    """

    arguments = operand(variadic=True)
    schedule = attr(Dict, default=None)
    placement = attr(Dict, default=None)
    on_chip = attr(Dict, default=None)
    body = region()
    values = result(variadic=True)

    def check(self) -> Iterable[str]:
        block = self.body.block
        if [v.type for v in self.inputs] != [a.type for a in block.arguments]:
            yield "region's argument types differ from the operands'"
        if block.last is None or block.last.op_name != "graph.yield":
            yield "region does not end with graph.yield"
        elif [v.type for v in block.last.inputs] != [r.type for r in self.results]:
            yield "result types differ from what the region yields"


@op("graph.if")
class If(Op):
    """One of two regions, chosen when the model runs: on the host. Both take the arguments, and give the results."""

    condition = operand(rank=0, dtypes=(DType.BOOL,))
    arguments = operand(variadic=True)
    then_body = region()
    else_body = region()
    values = result(variadic=True)

    def check(self) -> Iterable[str]:
        for name, body in (("then", self.then_body), ("else", self.else_body)):
            taken = [v.type for v in self.arguments]
            yield from _check_body(f"the {name} region", body.block, taken, [r.type for r in self.results])


@op("graph.loop")
class Loop(Op):
    """A region run again and again when the model runs, on the host: at most `trips` times, while its condition holds.

    The region takes the round's number (i64) and whether the loop goes on, the first `carried` of the arguments as the
    round before left them, and the other arguments; it gives whether to go on, the carried values, and what is stacked
    along a new first axis of the results. Source: ONNX Loop-23.
    """

    trips = operand(rank=0, dtypes=(DType.I64,))
    condition = operand(rank=0, dtypes=(DType.BOOL,))
    arguments = operand(variadic=True)
    carried = attr(int)
    body = region()
    values = result(variadic=True)

    def check(self) -> Iterable[str]:
        if not 0 <= self.carried <= min(len(self.arguments), len(self.results)):
            yield f"{self.carried} carried values of {len(self.arguments)} arguments and {len(self.results)} results"
            return
        state = [r.type for r in self.results[: self.carried]]
        scalars = [TensorType((), DType.I64), TensorType((), DType.BOOL)]
        taken = [*scalars, *state, *(v.type for v in self.arguments[self.carried :])]
        stacked = [r.type.with_shape(r.type.shape[1:]) for r in self.results[self.carried :] if r.type.rank]
        yield from _check_body("the region", self.body.block, taken, [scalars[1], *state, *stacked])
        for value, wanted in zip(self.arguments, state, strict=False):
            if not _fits(value.type, wanted):
                yield f"{value.name!r} is carried as {wanted}, not {value.type}"


def _fits(given: TensorType, declared: TensorType) -> bool:
    """Whether a value of one type is also one of another, which may leave dimensions open."""
    shapes = zip(given.shape, declared.shape, strict=False)
    same_rank = given.rank == declared.rank and given.dtype is declared.dtype
    return same_rank and all(d is None or d == g for g, d in shapes)


def _check_body(what: str, block: Block, taken: Sequence[TensorType], given: Sequence[TensorType]) -> Iterator[str]:
    """Faults of a region that is run by itself."""
    if [a.type for a in block.arguments] != list(taken):
        yield f"{what}'s argument types differ from the operands'"
    last = block.last
    if last is None or last.op_name != "graph.yield":
        yield f"{what} does not end with graph.yield"
        return
    results: list[Value] = last.inputs
    if len(results) != len(given) or not all(map(_fits, [v.type for v in results], given)):
        yield f"{what} does not yield the types of the results"
