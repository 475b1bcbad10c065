"""`@main` and the host segments of an offline model: steps on named values, records of inputs and outputs, IR text.

Border transposes that `partition` left in `@main` become the permutations of records here, so that neither the chip nor
a host function spends an instruction on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compiler.ir.constants import blobs_of
from compiler.ir.core import Argument, Constant, Function, Module, Op, Result, Value
from compiler.ir.printer import print_module
from compiler.ops.graph import Return
from compiler.ops.tensor import Transpose
from targets.mlu220.container import HostFunction, IORecord, Step
from targets.mlu220.container_records import OPEN


def plain_data(value: Any) -> Any:
    """A value of the IR's attributes as JSON can hold it."""
    if isinstance(value, tuple | list):
        return [plain_data(v) for v in value]
    if isinstance(value, dict):
        return {k: plain_data(v) for k, v in value.items()}
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


class Wiring:
    """`@main` as steps on named values, with the permutations of border transposes in the records."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.main = module.main
        self.names: dict[Value, str] = {}
        self.steps: list[Step] = []
        self.layout_functions: list[HostFunction] = []
        self._by_callee: dict[str, tuple[list[IORecord], list[IORecord]]] = {}
        self._name_values()
        for op in self.main.body:
            if op.op_name == "graph.call":
                self._call(op)
        self._remaining()

    def _name_values(self) -> None:
        """Inputs and outputs keep the model's names; everything else is made unique."""
        taken: set[str] = set()

        def name(value: Value, wanted: str) -> None:
            if value in self.names:
                return
            unique, number = wanted or "value", 0
            while unique in taken:
                number += 1
                unique = f"{wanted}.{number}"
            taken.add(unique)
            self.names[value] = unique

        for argument in self.main.arguments:
            name(argument, argument.name)
        for value, wanted in zip(self.main.outputs, self.main.output_names, strict=True):
            name(value, wanted)
        for op in self.main.body:
            for result in op.results:
                name(result, result.name)

    def _source(self, value: Value) -> tuple[Value, tuple[int, ...]]:
        """The value a chain of border transposes starts from, and the permutation from it to `value`."""
        order = tuple(range(value.type.rank))
        while isinstance(value, Result) and value.op.op_name == "tensor.transpose":
            perm = value.op.attributes["perm"]
            order = tuple(perm[i] for i in order)
            value = value.op.inputs[0]
        return value, order

    def _sole_transposed(self, value: Value) -> tuple[Value, tuple[int, ...]]:
        """The value to make instead of a call's result: a chain of transposes of it that is returned and used by
        nothing else; and the permutation from the made value to the result."""
        order = tuple(range(value.type.rank))
        final, found = value, order
        while final.has_one_use and final.users[0].op_name == "tensor.transpose":
            perm = final.users[0].attributes["perm"]
            found = tuple(perm.index(i) for i in found)
            final = final.users[0].results[0]
        if all(user.op_name == "graph.return" for user in final.users):
            return final, found
        return value, order

    def _call(self, op: Op) -> None:
        callee = self.module.functions[op.attributes["callee"]]
        inputs, outputs, taken, made = [], [], [], []
        for value, argument in zip(op.inputs, callee.arguments, strict=True):
            source, order = self._source(value)
            inputs.append(_record(self.names[source], source, order, argument))
            taken.append(self.names[source])
        for value in op.results:
            final, order = self._sole_transposed(value)
            outputs.append(_record(self.names[final], final, order, None))
            made.append(self.names[final])
        self._by_callee[callee.name] = (inputs, outputs)
        self.steps.append(Step(callee.name, tuple(taken), tuple(made)))

    def _remaining(self) -> None:
        """Returned values that no call makes (constants, transposes of values used elsewhere too) come from host
        functions; a returned input is itself."""
        known = {name for step in self.steps for name in step.outputs}
        for value in self.main.outputs:
            name = self.names[value]
            if name in known or isinstance(value, Argument):
                continue
            known.add(name)
            source, order = self._source(value)
            taken = () if isinstance(source, Constant) else (self.names[source],)
            function = _layout_function(f"layout{len(self.layout_functions)}", source, order, taken, value, name)
            self.layout_functions.append(function)
            self.steps.append(Step(function.name, taken, (name,)))

    def records(self, function: Function) -> tuple[list[IORecord], list[IORecord]]:
        return self._by_callee[function.name]

    def model_inputs(self) -> list[IORecord]:
        return [_record(self.names[a], a, tuple(range(a.type.rank)), a) for a in self.main.arguments]

    def model_outputs(self) -> list[IORecord]:
        return [_record(self.names[v], v, tuple(range(v.type.rank)), None) for v in self.main.outputs]


def _record(name: str, value: Value, order: Sequence[int], argument: Argument | None) -> IORecord:
    shape = tuple(OPEN if d is None else d for d in value.type.shape)
    quant = value.type.quant
    attributes = argument.attributes if argument is not None else {}
    return IORecord(
        name=name, shape=shape, dtype=str(value.type.dtype), device_shape=tuple(shape[i] for i in order),
        permutation=tuple(order), layout=str(attributes.get("layout", "NCHW" if len(shape) == 4 else "ARRAY")),
        position=quant.position if quant is not None else None, scale=quant.scale if quant is not None else None,
        preprocessing=plain_data(dict(attributes.get("preprocessing", {}))),
    )  # fmt: skip


def host_function(module: Module, function: Function, inputs: list[IORecord], outputs: list[IORecord]) -> HostFunction:
    """A host segment as a module of its own, whose `@main` it is."""
    alone = module.clone()
    for name in list(alone.functions):
        if name != function.name:
            for op in reversed(list(alone.functions[name].body)):
                op.erase()
            alone.remove_function(name)
    body = alone.functions.pop(function.name)
    body.name = "main"
    alone.functions["main"] = body
    alone.attributes = {}
    alone.drop_unused_constants()
    return HostFunction(
        name=function.name, text=print_module(alone), inputs=inputs, outputs=outputs, constants=blobs_of(alone)
    )


def _layout_function(
    name: str, source: Value, order: Sequence[int], taken: tuple[str, ...], value: Value, made: str
) -> HostFunction:
    """A host function that permutes its operand, or a constant, to the axes of a returned value."""
    module = Module()
    main = module.add_function(Function("main"))
    if isinstance(source, Constant):
        operand: Value = module.add_constant(source.name, source.data, source.type.quant)
    else:
        operand = main.add_argument(source.type, "x")
    op = main.body.append(Transpose(operand, perm=tuple(order), names=["y"]))
    main.body.append(Return(op.results[0]))
    identity = tuple(range(source.type.rank))
    return HostFunction(
        name=name, text=print_module(module),
        inputs=[_record(taken_name, source, identity, None) for taken_name in taken],
        outputs=[_record(made, value, tuple(range(value.type.rank)), None)], constants=blobs_of(module),
    )  # fmt: skip
