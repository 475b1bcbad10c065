"""`replicate`: one network of batch 1, several times side by side, sharing its weights.

For models whose own batch is fixed by their ops (a reshape to [1, 256], say) and which cannot be imported with a larger
one. Runs after `quantize`, so that every copy has the same ranges; where a model can be given a larger batch, that is
the better way, because filters are then loaded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from compiler.errors import CompilerError, Diagnostic
from compiler.ir.core import Function, Module, Value
from compiler.ir.types import TensorType
from compiler.ops.graph import Return
from compiler.ops.quant import Quantize
from compiler.ops.tensor import Concat, Slice
from compiler.pass_context import Pass, PassContext


@dataclass(frozen=True, kw_only=True)
class Replicate(Pass):
    """Compute `batch` samples with a network made for one, by as many copies of its ops; the weights are shared.

    The first axis of every input and output must count samples, and be 1.
    """

    name = "replicate"
    batch: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError("option 'batch' must be at least 1")

    def run(self, module: Module, ctx: PassContext) -> None:
        main = module.main
        _check(main)
        if self.batch == 1 or not ctx.may_rewrite(f"compute {self.batch} samples"):
            return
        copy = Function(main.name, {**main.attributes, "outputs": main.output_names})
        inputs = []
        for argument in main.arguments:
            inputs.append(copy.add_argument(_batched(argument.type, self.batch), argument.name))
            inputs[-1].attributes = dict(argument.attributes)
        wholes = dict(zip(main.arguments, inputs, strict=True)) | _quantised_inputs(main, copy, inputs)
        samples = [_copy_ops(main, copy, wholes, index) for index in range(self.batch)]
        joined = []
        for output, parts in zip(main.outputs, zip(*samples, strict=True), strict=True):
            joined.append(copy.body.append(Concat(*parts, axis=0, names=[output.name])).result)
        copy.body.append(Return(*joined))
        for op in reversed(list(main.body)):
            op.erase()
        module.remove_function(main.name)
        module.add_function(copy)
        ctx.statistics.count("copies", self.batch)


def _check(main: Function) -> None:
    faults = list(_faults("input", main.arguments)) + list(_faults("output", main.outputs))
    if main.module is not None and len(main.module.functions) > 1:
        help = "replicate before partition"
        faults.append(Diagnostic(code="E551", message="the module has several functions", help=help))
    if faults:
        raise CompilerError(faults)


def _faults(role: str, values: Iterable[Value]) -> Iterable[Diagnostic]:
    for value in values:
        if value.type.shape[:1] != (1,):
            shape = "x".join(map(str, value.type.shape)) or "a scalar"
            message = f"{role} {value.name!r} is {shape}: its first axis does not count one sample"
            yield Diagnostic(code="E550", message=message, op="replicate")


def _batched(type: TensorType, batch: int) -> TensorType:
    return TensorType((batch, *type.shape[1:]), type.dtype, type.quant)


def _quantised_inputs(main: Function, copy: Function, inputs: Sequence[Value]) -> dict[Value, Value]:
    """Quantise the batch as a whole, not its samples: on the chip a sliced float would be rounded to f16 first."""
    wholes: dict[Value, Value] = {}
    for argument, whole in zip(main.arguments, inputs, strict=True):
        for op in argument.users:
            if isinstance(op, Quantize):
                types = [_batched(op.result.type, whole.type.static_shape[0])]
                twin = Quantize(whole, types=types, names=[op.name], location=op.location)
                wholes[op.result] = copy.body.append(twin).result
    return wholes


def _copy_ops(main: Function, copy: Function, wholes: Mapping[Value, Value], index: int) -> list[Value]:
    """Append the ops for sample `index`; its outputs. `wholes`: what stands for all samples of a value together."""
    mapping: dict[Value, Value] = {}
    for value, whole in wholes.items():
        if any(user.results and user.results[0] not in wholes for user in value.users) or value in main.outputs:
            sizes = value.type.static_shape
            starts = (index,) + (0,) * (len(sizes) - 1)
            part = Slice(whole, starts=starts, sizes=sizes, names=[f"{value.name}.{index}"])
            mapping[value] = copy.body.append(part).result
    for op in main.body:
        if op is main.body.terminator or (op.results and op.results[0] in wholes):
            continue
        twin = copy.body.append(op.clone(mapping))
        for result in twin.results:
            result.name = f"{result.name}.{index}"
    return [mapping.get(output, output) for output in main.outputs]
