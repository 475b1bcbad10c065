"""Running a function of a module on arrays, op by op.

A plan per function is made once: evaluators looked up, values numbered, and for each step the values that die with
it, so that an array lives no longer than its last use and a step costs little beyond the evaluator itself. Calls and
kernels have plans of their own and run inside. The plan is made anew when the module has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compiler.errors import CompilerError, Diagnostic, did_you_mean, error
from compiler.evaluate.blas import blas_threads
from compiler.evaluate.control import CONTROL
from compiler.evaluate.registry import Evaluator, agrees, as_results, find_evaluator
from compiler.ir.core import Argument, Block, Constant, Function, Module, Op, Value

Observe = Callable[[Value, np.ndarray], None]
Inputs = Sequence[np.ndarray] | Mapping[str, np.ndarray]

STRUCTURE = frozenset({"graph.call", "graph.kernel", "graph.return", "graph.yield", *CONTROL})


@dataclass(frozen=True, slots=True)
class Step:
    """One op of a plan. `operands`, `results` and `dead` are slots of the environment; `inner` is a call's or
    kernel's plan, or those of the regions that an op chooses from."""

    op: Op
    function: Evaluator | None
    inner: tuple[Plan, ...]
    operands: tuple[int, ...]
    results: tuple[int, ...]
    dead: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A block, ready to run. Slot 0 is always None; `environment` holds the constants and None elsewhere."""

    arguments: tuple[Argument, ...]
    argument_slots: tuple[int, ...]
    unused_arguments: tuple[int, ...]
    environment: tuple[np.ndarray | None, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]


class Interpreter:
    """Evaluates a function of a module. Raises CompilerError at once where an op has no evaluator.

    `threads` is what matrix products use: one by default, so that results do not depend on the number of cores and
    several interpreters do not get in each other's way.
    """

    def __init__(self, module: Module, function: str = "main", threads: int = 1) -> None:
        if function not in module.functions:
            raise error(
                "E354", f"the module has no function @{function}", help=did_you_mean(function, module.functions)
            )
        self.module = module
        self.threads = threads
        self.function = module.functions[function]
        self._version = module.version
        self._plan = make_plan(self.function)

    def run(self, inputs: Inputs, observe: Observe | None = None) -> list[np.ndarray]:
        """The outputs for `inputs`, in order or by name.

        `observe(value, array)` is called for every argument and every result, inner functions and kernels included, in
        execution order; it must not write to the array. Outputs may share memory with inputs or constants. Raises
        CompilerError for wrong count, names, shapes or types.
        """
        if self.module.version != self._version:
            self._plan = make_plan(self.function)
            self._version = self.module.version
        arrays = match_inputs(self.function, inputs)
        with np.errstate(all="ignore"), blas_threads(self.threads):
            return run_plan(self._plan, arrays, observe)


def evaluate_function(module: Module, inputs: Inputs, function: str = "main") -> dict[str, np.ndarray]:
    """The outputs of one run, by the names users know them by."""
    interpreter = Interpreter(module, function)
    return dict(zip(interpreter.function.output_names, interpreter.run(inputs), strict=True))


# -- running ---------------------------------------------------------------------------------------------------------
def run_plan(plan: Plan, inputs: Sequence[np.ndarray], observe: Observe | None) -> list[np.ndarray]:
    """Run a plan on arrays of the right types."""
    environment = list(plan.environment)
    for argument, slot, array in zip(plan.arguments, plan.argument_slots, inputs, strict=True):
        environment[slot] = array
        if observe is not None:
            observe(argument, array)
    for slot in plan.unused_arguments:
        environment[slot] = None
    for step in plan.steps:
        _run_step(step, environment, observe)
    return [environment[slot] for slot in plan.outputs]  # type: ignore[misc]


def _run_step(step: Step, environment: list[np.ndarray | None], observe: Observe | None) -> None:
    operands = [environment[slot] for slot in step.operands]
    if step.inner:
        results = as_results(step.op, tuple(_run_inner(step, operands, observe)))  # type: ignore[arg-type]
    else:
        results = as_results(step.op, step.function(step.op, *operands))  # type: ignore[misc]
    for slot, array in zip(step.results, results, strict=True):
        environment[slot] = array
    if observe is not None:
        for result, array in zip(step.op.results, results, strict=True):
            observe(result, array)
    for slot in step.dead:
        environment[slot] = None


def _run_inner(step: Step, operands: Sequence[np.ndarray], observe: Observe | None) -> list[np.ndarray]:
    control = CONTROL.get(step.op.op_name)
    if control is None:
        return run_plan(step.inner[0], operands, observe)
    return control(step.op, operands, lambda index, arrays: run_plan(step.inner[index], arrays, observe))


# -- planning --------------------------------------------------------------------------------------------------------
def make_plan(function: Function) -> Plan:
    """The plan of a function. Raises CompilerError naming every op without an evaluator, and functions that call
    themselves."""
    faults: dict[str, Diagnostic] = {}
    plan = _plan_block(function.body, (function.name,), faults)
    if faults:
        raise CompilerError(list(faults.values()))
    return plan


def _plan_block(block: Block, callers: tuple[str, ...], faults: dict[str, Diagnostic]) -> Plan:
    slots: dict[Value, int] = {}
    environment: list[np.ndarray | None] = [None]

    def slot_of(value: Value | None) -> int:
        if value is None:
            return 0
        if value not in slots:
            slots[value] = len(environment)
            environment.append(value.data if isinstance(value, Constant) else None)
        return slots[value]

    arguments = tuple(slot_of(a) for a in block.arguments)
    terminator = block.terminator
    outputs = tuple(slot_of(v) for v in terminator.inputs)
    last_use = _last_uses(block)
    steps = []
    for op in block:
        if op is terminator:
            break
        function, inner = _resolve(op, callers, faults)
        operands = tuple(slot_of(v) for v in op.operands)
        results = tuple(slot_of(r) for r in op.results)
        dead = tuple(slot_of(v) for v in [*dict.fromkeys(op.inputs), *op.results] if last_use.get(v, op) is op)
        steps.append(Step(op, function, inner, operands, results, dead))
    unused = tuple(slot_of(a) for a in block.arguments if a not in last_use)
    return Plan(tuple(block.arguments), arguments, unused, tuple(environment), tuple(steps), outputs)


def _last_uses(block: Block) -> dict[Value, Op | None]:
    """The op after which each used value is dead; None for constants, which never die."""
    last: dict[Value, Op | None] = {}
    for op in block:
        for value in op.inputs:
            last[value] = None if isinstance(value, Constant) else op
    return last


def _resolve(
    op: Op, callers: tuple[str, ...], faults: dict[str, Diagnostic]
) -> tuple[Evaluator | None, tuple[Plan, ...]]:
    """The evaluator of an op, or the plans inside it."""
    if op.op_name == "graph.kernel" or op.op_name in CONTROL:
        return None, tuple(_plan_block(region.block, callers, faults) for region in op.regions)
    if op.op_name == "graph.call":
        plan = _plan_call(op, callers, faults)
        return None, () if plan is None else (plan,)
    function = find_evaluator(op.op_name)
    if function is None:
        faults.setdefault(
            op.op_name, Diagnostic(code="E353", message="has no evaluator", op=op.op_name, where=str(op.location))
        )
    return function, ()


def _plan_call(op: Op, callers: tuple[str, ...], faults: dict[str, Diagnostic]) -> Plan | None:
    module, name = op.module, op.attributes["callee"]
    assert module is not None
    message = ""
    if name not in module.functions:
        message = f"calls @{name}, which the module does not have"
    elif name in callers:
        message = f"@{name} calls itself, through {' -> '.join(callers)}"
    if message:
        faults[f"@{name}"] = Diagnostic(code="E354", message=message, op=op.op_name, where=str(op.location))
        return None
    return _plan_block(module.functions[name].body, (*callers, name), faults)


# -- inputs ----------------------------------------------------------------------------------------------------------
def match_inputs(function: Function, inputs: Inputs) -> list[np.ndarray]:
    """The inputs in the order of the function's arguments, checked against their types. Raises CompilerError."""
    arguments = function.arguments
    if isinstance(inputs, Mapping):
        given = _by_name(function, inputs)
    else:
        given = list(inputs)
        if len(given) != len(arguments):
            wanted = ", ".join(a.name for a in arguments)
            raise error(
                "E350", f"@{function.name} takes {len(arguments)} inputs, not {len(given)}", help=f"inputs: {wanted}"
            )
    arrays = [np.asarray(array) for array in given]
    faults = [
        fault
        for argument, array in zip(arguments, arrays, strict=True)
        if (fault := _input_fault(function, argument, array)) is not None
    ]
    if faults:
        raise CompilerError(faults)
    return arrays


def _by_name(function: Function, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    names = [a.name for a in function.arguments]
    faults = [
        Diagnostic(code="E350", message=f"@{function.name} has no input {name!r}", help=did_you_mean(name, names))
        for name in inputs
        if name not in names
    ]
    faults += [
        Diagnostic(code="E350", message=f"input {name!r} of @{function.name} is missing")
        for name in names
        if name not in inputs
    ]
    if faults:
        raise CompilerError(faults)
    return [inputs[name] for name in names]


def _input_fault(function: Function, argument: Argument, array: np.ndarray) -> Diagnostic | None:
    type = argument.type
    if agrees(type, array):
        return None
    place = f"@{function.name}, input {argument.name!r}"
    if array.dtype != type.dtype.numpy:
        message = f"elements are {array.dtype}, expected {type.dtype.numpy}"
        return Diagnostic(code="E352", message=message, where=place, help=f"pass x.astype(numpy.{type.dtype.numpy})")
    expected = "x".join("?" if d is None else str(d) for d in type.shape)
    message = f"shape is {'x'.join(map(str, array.shape))}, expected {expected}"
    return Diagnostic(code="E351", message=message, where=place)
