"""From neutral ops to `mlu.` ops by the chip's type rules: the pass `legalize` and its table, one row per neutral op.

It runs on the subnets that `partition` made (NHWC, quantised types on values). Every float value becomes f16, or f32
where asked; function inputs and outputs keep their declared type. Convolution and matmul become the raw integer sum
followed by a multiplication with the scale vector and an addition of the bias; everything that would change bits is
decided here, never in the runtime. The same table answers, before partition, whether an op can run on the chip and, if
not, why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compiler.errors import CompilerError, Diagnostic
from compiler.ir.core import Module, Op
from compiler.ir.types import DType
from compiler.ir.verifier import is_subnet
from compiler.pass_context import Pass, PassContext
from targets.mlu220.fold_scales import fold_scales
from targets.mlu220.lowering import FLOAT_NAMES, Lowering
from targets.mlu220.rules import LEGALIZERS, reason_against
from targets.mlu220.views import sink_reshapes


@dataclass(frozen=True, kw_only=True)
class Legalize(Pass):
    """Turn the ops of subnets into `mlu.` ops, typed by the chip's rules."""

    name = "legalize"
    requires_target = True
    follows = "partition"
    float: Literal["f16", "f32"] = "f16"
    rounding: Literal["nearest-even", "half-away"] = "nearest-even"

    def run(self, module: Module, ctx: PassContext) -> None:
        faults: list[Diagnostic] = []
        for function in list(module.functions.values()):
            if is_subnet(function):
                faults += lower(Lowering(module, function, FLOAT_NAMES[self.float], self.rounding, ctx))
        if faults:
            raise CompilerError(faults)
        for function in module.functions.values():
            if is_subnet(function) and ctx.may_rewrite(f"scales of @{function.name}"):
                folds, pools = fold_scales(module, function)
                ctx.statistics.count("factors in front of a conversion folded into what makes the value", folds)
                ctx.statistics.count("maxima taken before the conversion to integers", pools)
            if is_subnet(function) and ctx.may_rewrite(f"reshapes of @{function.name}"):
                ctx.statistics.count("ops done in the shape in front of a reshape", sink_reshapes(function))
        module.drop_unused_constants()


def lower(lowering: Lowering) -> list[Diagnostic]:
    """Lower a function op by op; what cannot run on the chip is returned, and the function is then left as it was."""
    faults: list[Diagnostic] = []
    for op in list(lowering.function.body):
        lowering.op = op
        if op.op_name == "graph.return":
            break
        reason = reason_against(op)
        if reason is not None:
            faults.append(_misplaced(op, reason))
        elif not faults and not lowering.ctx.may_rewrite(f"{op.op_name} at {op.name}"):
            lowering.keep(op)
        elif not faults:
            if lowering.asked(op) is DType.F32 and lowering.float is DType.F16:
                lowering.ctx.statistics.count("results in f32: their range exceeds f16, or the scheme says so")
            made = LEGALIZERS[op.op_name](lowering, op)
            lowering.bind(op, made if isinstance(made, tuple) else (made,))
    if not faults:
        lowering.finish(lowering.function.body.terminator)
        lowering.drop_unused()
        lowering.swap()
    return faults


def _misplaced(op: Op, reason: str) -> Diagnostic:
    return Diagnostic(
        code="E601",
        message=f"cannot run on the chip: {reason}",
        op=op.op_name,
        where=str(op.location),
        help="run partition before legalize, so that it goes to the host",
    )
