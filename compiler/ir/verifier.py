"""Whether a module is what the IR promises: structure, dominance, types, per-op checks, and what a level forbids.

`verify` collects every fault before it raises, and shows each inside the printed op, with the operands in question and
who produced them. It never changes the module. What is legal after a stage is data: `LEVELS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compiler.errors import CompilerError, Diagnostic
from compiler.ir.core import Argument, Block, Constant, Function, Module, Op, Result, Value
from compiler.ir.define import plain
from compiler.ir.printer import op_with_spans, type_text, unique_names
from compiler.ir.types import DType, QuantType, TensorType

MAX_OPERANDS_SHOWN = 4
MAX_POSITION = 126
DEEPEST_REGIONS = 40


def verify(module: Module, level: str | None = None) -> None:
    """Check the whole module; `level` names the pass after which it must be legal (a key of `LEVELS`).

    Raises CompilerError with every fault found, ValueError for a level that does not exist.
    """
    found = faults(module, level)
    if found:
        raise CompilerError(found)


def faults(module: Module, level: str | None = None) -> list[Diagnostic]:
    """Every fault of a module, in order: constants, functions, ops, then the rules of the level."""
    rules = rules_of(level) if level is not None else []
    excerpts = Excerpts()
    found = [*_module_faults(module)]
    walkable = True
    for name, function in module.functions.items():
        checker = _Checker(module, function, excerpts)
        found += checker.run(name)
        walkable &= checker.walkable
    if walkable:
        found += _recursion_faults(module, excerpts)
    if not found:
        for rule in rules:
            found += rule(module, excerpts)
    return found


# -- showing a fault -------------------------------------------------------------------------------------------------
class Excerpts:
    """Shows faults inside printed ops; the printed names of a function are made once, when its first fault is shown."""

    def __init__(self) -> None:
        self.names: dict[Function, dict[Value, str]] = {}

    def names_around(self, op: Op) -> dict[Value, str]:
        function = op.function
        if function is None:
            return {}
        if function not in self.names:
            self.names[function] = unique_names(function)
        return self.names[function]

    def fault(self, code: str, message: str, op: Op, operands: Iterable[int] = (), help: str = "") -> Diagnostic:
        """A fault of one op: the printed op, carets under the given operand slots, and who produced them."""
        text, spans = op_with_spans(op, self.names_around(op))
        lines = [text]
        for index in operands:
            value = op._operands[index] if index < len(op._operands) else None
            if index < len(spans):
                start, end = spans[index]
                described = describe(value) if value is not None else "absent"
                lines.append(" " * start + "^" * (end - start) + f" {described}")
        function = op.function
        where = str(op.location) or (f"function @{function.name}" if function is not None else "")
        return Diagnostic(code=code, message=message, op=op.op_name, where=where, excerpt="\n".join(lines), help=help)


def describe(value: Value) -> str:
    """A value's type and where it comes from."""
    if isinstance(value, Constant):
        origin = "a constant"
    elif isinstance(value, Argument):
        function = value.block.function
        origin = f"argument {value.index} of @{function.name}" if function is not None else f"argument {value.index}"
    elif value.producer is not None:
        producer = value.producer
        nodes = producer.location.nodes
        origin = f"produced by {nodes[0]!r}" if nodes else f"produced by {producer.op_name}"
    else:
        origin = "from nowhere"
    return f"{type_text(value.type)}, {origin}"


# -- module ----------------------------------------------------------------------------------------------------------
def _module_faults(module: Module) -> Iterator[Diagnostic]:
    yield from _attribute_faults(module.attributes, "the module")
    for name, constant in module.constants.items():
        where = f"constant @{name}"
        if constant.name != name:
            yield _fault("E308", f"is filed as @{name} but named @{constant.name}", where)
        if constant.module is not module:
            yield _fault("E308", "belongs to another module", where, "add it with Module.add_constant")
        expected = TensorType(constant.data.shape, DType.of(constant.data.dtype), constant.type.quant)
        if constant.type != expected:
            yield _fault("E308", f"has type {type_text(constant.type)}, its data {type_text(expected)}", where)
        yield from _quant_faults(module, constant.type, where)
        yield from _use_faults(constant, where)


def _fault(code: str, message: str, where: str, help: str = "") -> Diagnostic:
    return Diagnostic(code=code, message=message, where=where, help=help)


def _attribute_faults(attributes: dict[str, Any], owner: str) -> Iterator[Diagnostic]:
    for key, value in attributes.items():
        if value is None:
            continue
        try:
            plain(value)
        except ValueError as reason:
            yield _fault("E301", f"attribute {key!r}: {reason}", owner)


def _use_faults(value: Value, where: str) -> Iterator[Diagnostic]:
    """Uses that the value lists but its users do not hold."""
    for user, index in value.uses:
        if index >= len(user._operands) or user._operands[index] is not value:
            yield _fault("E305", f"lists operand {index} of {user.op_name} as a use, which takes another value", where)
        elif user.block is None:
            message = f"is still used by a detached {user.op_name} {user.name!r}"
            yield _fault("E305", message, where, "erase() the op instead of detach(), or insert it again")


def _quant_faults(module: Module, type: TensorType, where: str) -> Iterator[Diagnostic]:
    quant = type.quant
    if quant is None:
        return
    for message, help in _messages_of_quant(module, type, quant):
        yield _fault("E308", f"quantised type: {message}", where, help)


def _messages_of_quant(module: Module, type: TensorType, quant: QuantType) -> Iterator[tuple[str, str]]:
    if not quant.storage.is_integer:
        yield f"integers cannot be stored as {quant.storage}", "store them as i8 or i16"
    for name, number in (("scale", quant.scale), ("step", quant.step)):
        if number is not None and not (math.isfinite(number) and number > 0):
            yield f"{name} {number} is not a positive number", ""
        elif number is not None and float(np.float32(number)) != number:
            yield f"{name} {number!r} is not an fp32 number", f"round it: float(np.float32({name}))"
    if abs(quant.position) > MAX_POSITION:
        yield f"position {quant.position} is not an exponent of fp32", f"it lies in ±{MAX_POSITION}"
    if quant.storage.is_integer and not _holds(quant.storage, quant.zero_point):
        yield f"zero point {quant.zero_point} is not a number of type {quant.storage}", ""
    if (quant.axis is None) != (quant.params is None):
        yield "axis and params belong together", "give both (per axis) or neither (per tensor)"
    elif quant.axis is not None and quant.params is not None:
        yield from _messages_of_axis(module, type, quant.axis, quant.params)


def _holds(storage: DType, number: int) -> bool:
    limits = np.iinfo(storage.numpy)
    return int(limits.min) <= number <= int(limits.max)


def _messages_of_axis(module: Module, type: TensorType, axis: int, params: str) -> Iterator[tuple[str, str]]:
    if not 0 <= axis < type.rank:
        yield f"axis {axis} is not one of the {type.rank} axes", ""
        return
    constant = module.constants.get(params)
    if constant is None:
        yield f"the module has no constant @{params} with its scales", "add it with Module.add_constant"
        return
    length = type.shape[axis]
    if constant.type.dtype is not DType.F32 or constant.type.rank != 1:
        yield f"scales @{params} must be one-dimensional f32, not {type_text(constant.type)}", ""
    elif length is not None and constant.type.shape[0] != length:
        yield f"@{params} has {constant.type.shape[0]} scales, axis {axis} has {length} elements", ""


def _recursion_faults(module: Module, excerpts: Excerpts) -> Iterator[Diagnostic]:
    """Functions that call themselves, directly or not: there is no control flow to end it."""
    functions = module.functions.items()
    calls = {name: [op for op in function.walk() if op.op_name == "graph.call"] for name, function in functions}
    settled: set[str] = set()
    for root in calls:
        path: dict[str, Iterator[Op]] = {root: iter(calls[root])} if root not in settled else {}
        while path:
            name = next(reversed(path))
            call = next(path[name], None)
            if call is None:
                settled.add(name)
                del path[name]
                continue
            callee = call.attributes.get("callee")
            if callee in path:
                yield excerpts.fault("E305", f"@{callee} calls itself through @{name}", call)
            elif callee in calls and callee not in settled:
                path[callee] = iter(calls[callee])


# -- functions -------------------------------------------------------------------------------------------------------
class _Checker:
    """The faults of one function."""

    def __init__(self, module: Module, function: Function, excerpts: Excerpts) -> None:
        self.module = module
        self.function = function
        self.excerpts = excerpts
        self.found: list[Diagnostic] = []
        self.walkable = True
        self.checked_types: set[TensorType] = set()
        self.where = f"function @{function.name}"

    def run(self, name: str) -> list[Diagnostic]:
        function = self.function
        if function.name != name:
            self.found.append(_fault("E305", f"is filed as @{name}", self.where))
        if function.module is not self.module:
            self.found.append(_fault("E305", "belongs to another module", self.where))
        self.found += _attribute_faults(function.attributes, self.where)
        if function.body.owner is not function:
            self.found.append(_fault("E305", "its body belongs to something else", self.where))
        self.walkable = self.all_links(function.body)
        if self.walkable:
            self.block(function.body, "graph.return", None)
            self.output_names()
        return self.found

    def all_links(self, body: Block) -> bool:
        """Whether iteration over every block of the function ends; nothing else is safe to read where it does not."""
        blocks = [body]
        while blocks:
            block = blocks.pop()
            if not self.links(block):
                return False
            blocks += [region.block for op in block for region in op.regions]
        return True

    def output_names(self) -> None:
        names = self.function.attributes.get("outputs")
        last = self.function.body.last
        if names and last is not None and len(names) != len(last._operands):
            message = f"attribute 'outputs' names {len(names)} values, {len(last._operands)} are returned"
            self.found.append(_fault("E305", message, self.where))

    def block(self, block: Block, terminator: str, outer: Op | None, depth: int = 0) -> None:
        """Check a block of the function, or of the region of `outer`."""
        defined: set[Value] = set(block.arguments)
        for index, argument in enumerate(block.arguments):
            where = f"argument {argument.name!r} of {outer.op_name if outer is not None else '@' + self.function.name}"
            if argument.block is not block or argument.index != index:
                self.found.append(_fault("E305", f"stands at {index} but says {argument.index}", where))
            self.found += _attribute_faults(argument.attributes, where)
            self.value(argument, where)
        for op in block:
            self.terminator(op, block, terminator)
            self.operands(op, block, defined)
            self.op(op)
            defined.update(op.results)
            for region in op.regions:
                if region.op is not op or region.block.owner is not region:
                    self.found.append(self.excerpts.fault("E305", "its region belongs to something else", op))
                elif outer is not None and "graph.kernel" in (op.op_name, outer.op_name):
                    message = "stands inside another region; kernels do not nest"
                    self.found.append(self.excerpts.fault("E305", message, op))
                elif depth == DEEPEST_REGIONS:
                    message = f"regions are nested more than {DEEPEST_REGIONS} deep"
                    self.found.append(self.excerpts.fault("E305", message, op))
                else:
                    self.block(region.block, "graph.yield", op, depth + 1)
        if block.last is None:
            self.found.append(_fault("E305", f"has no ops; it must end with {terminator}", self.where))

    def links(self, block: Block) -> bool:
        """Whether `previous`, `next`, `first`, `last` and the length agree."""
        count, previous, op = 0, None, block.first
        while op is not None and op.previous is previous and op.block is block and count <= block._length:
            previous, op, count = op, op.next, count + 1
        if op is None and previous is block.last and count == block._length:
            return True
        near = f" near {op.op_name} {op.name!r}" if op is not None else ""
        self.found.append(_fault("E305", f"the links between its ops are broken{near}", self.where))
        return False

    def terminator(self, op: Op, block: Block, terminator: str) -> None:
        is_last = op is block.last
        if is_last and op.op_name != terminator:
            self.found.append(self.excerpts.fault("E305", f"stands last; the block must end with {terminator}", op))
        elif not is_last and "terminator" in op.signature.traits:
            self.found.append(self.excerpts.fault("E305", "ends the block but does not stand last", op))

    def operands(self, op: Op, block: Block, defined: set[Value]) -> None:
        for index, value in enumerate(op._operands):
            if value is None:
                continue
            if (op, index) not in value.uses:
                message = f"operand {index} does not list this op as its use"
                self.found.append(self.excerpts.fault("E305", message, op, [index], "change operands with set_operand"))
            if value not in defined and not self.is_own_constant(value):
                message, help = self.why_undefined(value, op, block)
                code = "E308" if isinstance(value, Constant) else "E306"
                self.found.append(self.excerpts.fault(code, message, op, [index], help))

    def is_own_constant(self, value: Value) -> bool:
        return isinstance(value, Constant) and self.module.constants.get(value.name) is value

    def why_undefined(self, value: Value, op: Op, block: Block) -> tuple[str, str]:
        if isinstance(value, Constant):
            return f"takes constant @{value.name}, which is not in the module", "add it with Module.add_constant"
        home = value.block if isinstance(value, Argument) else value.op.block if isinstance(value, Result) else None
        if home is block and isinstance(value, Result):
            if value.op is op:
                return f"takes its own result {value.name!r}", "replace_uses_if keeps an op out of a replacement"
            return f"takes {value.name!r} before it is defined", "insert the op after the one that defines its operand"
        if home is None:
            return f"takes {value.name!r}, whose op is in no block", "the op was erased or never inserted"
        if home.function is self.function:
            return f"takes {value.name!r} of another block", "values enter a region as operands of its op"
        other = f"@{home.function.name}" if home.function is not None else "a detached op"
        return f"takes {value.name!r} of {other}", "values cross functions as arguments of graph.call"

    def value(self, value: Value, where: str) -> None:
        if value.uses:
            self.found += _use_faults(value, where)
        if value.type.quant is not None and value.type not in self.checked_types:
            self.checked_types.add(value.type)
            self.found += _quant_faults(self.module, value.type, where)

    def op(self, op: Op) -> None:
        """Declaration, own checks, results, and result types against the op's rule."""
        for index, result in enumerate(op.results):
            if result.op is not op or result.index != index:
                self.found.append(self.excerpts.fault("E305", f"result {index} belongs to something else", op))
            self.value(result, f"value {result.name!r}")
        declared = op.signature.results
        fixed = len(declared) - bool(declared and declared[-1].variadic)
        if len(op.results) < fixed or (len(op.results) > fixed and not (declared and declared[-1].variadic)):
            self.found.append(self.excerpts.fault("E304", f"gives {fixed} results, not {len(op.results)}", op))
            return
        messages = list(op.signature.faults(op))
        self.found += [self.excerpts.fault("E304", m, op, _operands_meant(op, m)) for m in messages]
        if not messages:
            self.inferred_types(op)

    def inferred_types(self, op: Op) -> None:
        try:
            inferred = op.infer()
        except CompilerError as error:
            self.found += [replace(d, op=op.op_name, where=str(op.location)) for d in error.diagnostics]
            return
        if inferred is None:
            return
        types: Sequence[TensorType] = [inferred] if isinstance(inferred, TensorType) else list(inferred)
        recorded = [r.type for r in op.results]
        if len(types) != len(recorded) or not all(map(_agrees, recorded, types)):
            wanted = ", ".join(map(type_text, types))
            message = f"result type is {', '.join(map(type_text, recorded))}, its operands give {wanted}"
            slots = list(range(min(len(op._operands), MAX_OPERANDS_SHOWN)))
            help = "call infer_again() after changing operands"
            self.found.append(self.excerpts.fault("E307", message, op, slots, help))


def _agrees(recorded: TensorType, inferred: TensorType) -> bool:
    """Whether a recorded type is what a rule gives; a dimension the rule does not know may be known."""
    if recorded == inferred:
        return True
    same = len(recorded.shape) == len(inferred.shape) and recorded.with_shape(()) == inferred.with_shape(())
    return same and all(b is None or a == b for a, b in zip(recorded.shape, inferred.shape, strict=True))


def _operands_meant(op: Op, message: str) -> list[int]:
    """The operand slots a message speaks of: those it names in quotes, else all that are present, up to a few."""
    named = [spec.index for spec in op.signature.operands if f"operand {spec.name!r}" in message and not spec.variadic]
    present = [i for i, v in enumerate(op._operands) if v is not None]
    return named or present[:MAX_OPERANDS_SHOWN]


# -- levels ----------------------------------------------------------------------------------------------------------
Rule = Callable[[Module, Excerpts], Iterator[Diagnostic]]


def is_subnet(function: Function) -> bool:
    """Whether a function runs on the target: it has an attribute `target` other than "host"."""
    return function.attributes.get("target", "host") != "host"


def _static_shapes(module: Module, excerpts: Excerpts) -> Iterator[Diagnostic]:
    for function in module.functions.values():
        if function.name != "main" and not is_subnet(function):
            continue
        for argument in function.arguments:
            if not argument.type.is_static:
                where = f"argument {argument.name!r} of @{function.name}"
                yield _fault("E309", f"has unknown dimensions: {type_text(argument.type)}", where, _BIND)
        for op in function.walk():
            if any(not r.type.is_static for r in op.results) and not _passes_on(module, op):
                yield excerpts.fault("E309", "its result has unknown dimensions", op, (), _BIND)


def _passes_on(module: Module, op: Op) -> bool:
    """Whether an op of @main only hands on, or lays out anew, what a host function gives."""
    if op.op_name == "tensor.transpose":
        return not op.inputs[0].type.is_static
    callee = module.functions.get(op.attributes.get("callee", ""))
    return op.op_name == "graph.call" and callee is not None and not is_subnet(callee)


_BIND = "bind them at import: --shape NAME=1x3x224x224"


def _main_only_calls(module: Module, excerpts: Excerpts) -> Iterator[Diagnostic]:
    main = module.functions.get("main")
    for op in main.body if main is not None else ():
        if op.op_name not in ("graph.call", "graph.return", "tensor.transpose"):
            yield excerpts.fault("E309", "stands in @main, which holds only calls and layouts after partition", op)


def _only_families(*families: str) -> Rule:
    def rule(module: Module, excerpts: Excerpts) -> Iterator[Diagnostic]:
        for function in filter(is_subnet, module.functions.values()):
            for op in function.walk():
                if op.op_name.partition(".")[0] not in families:
                    allowed = " and ".join(f"{f}." for f in families)
                    message = f"stands in @{function.name}, which holds only {allowed} ops after legalize"
                    yield excerpts.fault("E309", message, op)

    return rule


def _no_zero_points(module: Module, excerpts: Excerpts) -> Iterator[Diagnostic]:
    for function in filter(is_subnet, module.functions.values()):
        for op in function.walk():
            for index, value in enumerate(op._operands):
                if value is not None and value.type.quant is not None and value.type.quant.zero_point:
                    message = "takes a type with a zero point, which the chip does not have"
                    yield excerpts.fault("E309", message, op, [index])


def _kernels_have(attribute: str, level: str) -> Rule:
    def rule(module: Module, excerpts: Excerpts) -> Iterator[Diagnostic]:
        for function in filter(is_subnet, module.functions.values()):
            for op in function.body:
                if op.op_name == "graph.kernel" and op.attributes.get(attribute) is None:
                    yield excerpts.fault("E309", f"has no {attribute} after {level}", op)

    return rule


def _subnets_hold_kernels(module: Module, excerpts: Excerpts) -> Iterator[Diagnostic]:
    """Something must give a subnet's outputs, and after fuse-layers nothing but kernels does."""
    for function in filter(is_subnet, module.functions.values()):
        if len(function.body) > 1 and not any(op.op_name == "graph.kernel" for op in function.body):
            first = next(iter(function.body))
            yield excerpts.fault("E309", f"@{function.name} holds no kernel after fuse-layers", first)


@dataclass(frozen=True)
class Level:
    """What holds after a pass, besides what held before it."""

    name: str
    rules: tuple[Rule, ...]


LEVELS = (
    Level("partition", (_static_shapes, _main_only_calls)),
    Level("legalize", (_only_families("mlu", "graph"), _no_zero_points)),
    Level("fuse-layers", (_subnets_hold_kernels,)),
    Level("schedule", (_kernels_have("schedule", "schedule"),)),
    Level("plan-memory", (_kernels_have("placement", "plan-memory"),)),
)
"""The levels of the journey in order; each keeps the rules of those before it."""


def rules_of(level: str) -> list[Rule]:
    """The rules that hold after pass `level`. Raises ValueError for a name that is not a level."""
    names = [known.name for known in LEVELS]
    if level not in names:
        raise ValueError(f"no level {level!r}; levels are {', '.join(names)}")
    return [rule for known in LEVELS[: names.index(level) + 1] for rule in known.rules]
