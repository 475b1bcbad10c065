"""Symbolic evaluation of TorchScript code: statements and expressions, with everything that is known at import known.

Attributes are known, so `if`s on them fold; loops with known trip counts unroll; calls of methods and functions are
followed. Tensor operators become nodes (`operators`). No Python of the file runs: the parsed text is walked, and a
form that TorchScript does not print is refused. Work is bounded.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compiler.errors import CompilerError, Diagnostic, error
from compiler.frontend.records import Malformed, Unsupported
from compiler.frontend.torchscript import decided, instances
from compiler.frontend.torchscript.decided import UNSET
from compiler.frontend.torchscript.instances import Instances, Named
from compiler.frontend.torchscript.operators import BLOCKED, Operators, Refusal, Undecided, node_name
from compiler.frontend.torchscript.pickled import Object
from compiler.frontend.torchscript.source import Class, Function, Source, assigned
from compiler.frontend.torchscript.tensors import Tensor

MOST_STEPS = 400_000
MOST_FAULTS = 200
DEEPEST_CALLS = 60


@dataclass(frozen=True)
class Namespace:
    """`torch`, `ops` and what is below them, until a call says which operator is meant."""

    name: str


@dataclass(frozen=True)
class Qualified:
    """A name of the archive's own code."""

    name: str


@dataclass(frozen=True)
class Bound:
    """A method of an object."""

    target: Any
    name: str


@dataclass
class Frame:
    """A call being followed. `path` is that of the module it belongs to."""

    function: Function
    path: str
    depth: int
    is_method: bool
    names: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Returned:
    """A return statement was met."""

    value: Any


class Evaluator:
    """One evaluation of an archive's code."""

    def __init__(self, source: Source, instances: Instances, operators: Operators) -> None:
        self.source = source
        self.instances = instances
        self.operators = operators
        self.file = operators.file
        self._steps = 0

    # -- calls ---------------------------------------------------------------------------------------------------------
    def call(
        self, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any], path: str, depth: int = 0,
        is_method: bool = True,
    ) -> Any:  # fmt: skip
        """What a function of the archive gives."""
        if depth > DEEPEST_CALLS:
            raise self.fault(function, function.node, "calls are nested too deeply, perhaps a function calls itself")
        frame = Frame(function, path, depth, is_method)
        names = [p.arg for p in function.parameters]
        if len(args) > len(names) or any(name not in names for name in kwargs):
            raise self.fault(function, function.node, f"{function.name} is called with arguments it does not take")
        frame.names.update(zip(names, args, strict=False))
        frame.names.update(kwargs)
        for name, default in function.defaults.items():
            if name not in frame.names:
                frame.names[name] = self.expression(default, frame)
        missing = [name for name in names if name not in frame.names]
        if missing:
            raise self.fault(function, function.node, f"{function.name} is called without {', '.join(missing)}")
        answer = self.block(function.node.body, frame)
        return answer.value if answer is not None else None

    def method(self, target: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], depth: int) -> Any:
        """What a method of an object gives."""
        function = self.find_method(target, name)
        return self.call(function, [target, *args], kwargs, target.path, depth)

    def find_method(self, target: Object, name: str) -> Function:
        found = self.source.class_of(target.class_name)
        if found is None or name not in found.methods:
            if target.class_name.startswith("__torch__.torch.classes."):
                kind = target.class_name.removeprefix("__torch__.torch.classes.")
                raise Unsupported(f"calls {name} of class {kind}, which PyTorch implements in C++")
            raise Malformed(f"class {target.class_name} has no method {name!r}")
        return found.methods[name]

    def fault(self, function: Function, node: ast.AST, message: str, help: str = "") -> CompilerError:
        """A fault of the code that is nobody's node."""
        return error("E212", message, where=f"{self.file}: {function.place(node)}", help=help)

    # -- statements ----------------------------------------------------------------------------------------------------
    def block(self, body: Sequence[ast.stmt], frame: Frame) -> Returned | None:
        for statement in body:
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise self.fault(frame.function, statement, f"runs for more than {MOST_STEPS} statements",
                                 "loops are unrolled: their trip counts must be small")  # fmt: skip
            answer = self.statement(statement, frame)
            if answer is not None:
                return answer
        return None

    def statement(self, node: ast.stmt, frame: Frame) -> Returned | None:
        action = STATEMENTS.get(type(node))
        if action is None:
            raise self.fault(frame.function, node, f"has a {type(node).__name__}, which TorchScript does not write")
        try:
            return action(self, node, frame)
        except Unsupported as fault:
            self.report(node, frame, "E210", fault.reason, fault.remedy)
        except Malformed as fault:
            self.report(node, frame, "E212", fault.reason, fault.remedy)
        except Refusal as fault:
            fault.where = fault.where or f"{self.file}: {frame.function.place(node)}"
            raise
        for name in assigned(node):
            frame.names[name] = BLOCKED
        return Returned(BLOCKED) if isinstance(node, ast.Return) else None

    def report(self, node: ast.AST, frame: Frame, code: str, message: str, help: str) -> None:
        """Keep a fault and go on, unless there are too many."""
        where = f"{self.file}: {frame.function.place(node)}" + (f" in {frame.path!r}" if frame.path else "")
        self.operators.faults.append(Diagnostic(code=code, where=where, message=message, help=help))
        if len(self.operators.faults) >= MOST_FAULTS:
            raise self.fault(frame.function, node, f"has more than {MOST_FAULTS} faults; the rest is not looked at")

    def assign(self, node: ast.Assign, frame: Frame) -> None:
        target = node.targets[0]
        hint = target.id if isinstance(target, ast.Name) else ""
        if hint and frame.is_method and hint == frame.function.result:
            hint = instances.RESULT
        self.bind(target, self.expression(node.value, frame, hint), frame)

    def assign_typed(self, node: ast.AnnAssign, frame: Frame) -> None:
        if node.value is not None:
            self.bind(node.target, self.expression(node.value, frame), frame)

    def assign_changed(self, node: ast.AugAssign, frame: Frame) -> None:
        names = {ast.Add: "aten::add_", ast.Sub: "aten::sub_", ast.Mult: "aten::mul_", ast.Div: "aten::div_"}
        name = names.get(type(node.op))
        if name is None:
            raise self.fault(frame.function, node, "changes a variable in a way TorchScript does not write")
        target = ast.copy_location(ast.Name(node.target.id, ast.Load()), node) if isinstance(
            node.target, ast.Name) else node.target  # fmt: skip
        left, right = self.expression(target, frame), self.expression(node.value, frame)
        if not isinstance(left, Tensor | list):
            name = name.removesuffix("_")
        self.bind(node.target, self.operators.call(name, [left, right], {}, node_name(frame.path, "", name)), frame)

    def bind(self, target: ast.expr, value: Any, frame: Frame) -> None:
        """Give a variable, an attribute, an item, or each of several, its value."""
        if isinstance(target, ast.Name):
            frame.names[target.id] = value
        elif isinstance(target, ast.Attribute):
            holder = self.expression(target.value, frame)
            if not isinstance(holder, Object):
                raise Malformed(f"sets attribute {target.attr!r} of something that has none")
            self.instances.set(holder, target.attr, value)
        elif isinstance(target, ast.Tuple | ast.List):
            self.unpack(target.elts, value, frame)
        elif isinstance(target, ast.Subscript):
            holder, key = self.expression(target.value, frame), self.expression(target.slice, frame)
            self.operators.call("aten::_set_item", [holder, key, value], {}, node_name(frame.path, "", "set_item"))
        else:
            raise self.fault(frame.function, target, "assigns to something that TorchScript cannot")

    def unpack(self, targets: Sequence[ast.expr], value: Any, frame: Frame) -> None:
        if value is BLOCKED:
            value = [BLOCKED] * len(targets)
        if not isinstance(value, list | tuple) or len(value) != len(targets):
            count = len(value) if isinstance(value, list | tuple) else "no"
            raise Malformed(f"takes {len(targets)} values where there are {count}")
        for target, item in zip(targets, value, strict=True):
            self.bind(target, item, frame)

    def evaluate(self, node: ast.Expr, frame: Frame) -> None:
        self.expression(node.value, frame)

    def choose(self, node: ast.If, frame: Frame) -> Returned | None:
        condition = self.condition(node.test, frame)
        if condition is BLOCKED:
            self.skip([*node.body, *node.orelse], frame)
            return None
        if not isinstance(condition, Tensor):
            return self.block(node.body if condition else node.orelse, frame)
        found = decided.choose(
            self, node, frame, condition, [lambda: self.given(node.body, frame), lambda: self.given(node.orelse, frame)]
        )
        return Returned(found[0]) if isinstance(found, tuple) and found else None

    def given(self, body: Sequence[ast.stmt], frame: Frame) -> tuple[Any, ...]:
        """What statements return: nothing, or one value."""
        answer = self.block(body, frame)
        return () if answer is None else (answer.value,)

    def condition(self, test: ast.expr, frame: Frame) -> Any:
        """A condition as a bool, or as a tensor where the network's data decide it; BLOCKED, with the fault reported,
        where it cannot be converted.
        """
        try:
            return self.operators.number(self.expression(test, frame), bool)
        except Unsupported as fault:
            self.report(test, frame, "E210", fault.reason, fault.remedy)
            return BLOCKED

    def skip(self, body: Sequence[ast.stmt], frame: Frame) -> None:
        """Statements that may or may not run: what they assign is not known, but operators without a converter are
        reported with everything else.
        """
        for statement in body:
            for name in assigned(statement):
                frame.names[name] = BLOCKED
            for node in ast.walk(statement):
                name = _operator_name(node)
                if name and not self.operators.is_known(name):
                    self.operators.refuse(name, node_name(frame.path, "", name))

    def repeat(self, node: ast.While, frame: Frame) -> Returned | None:
        condition = self.condition(node.test, frame)
        start = decided.Start(self, frame) if condition is True else None
        while condition is True:
            self._steps += 1
            answer = self.block(node.body, frame)
            if answer is not None:
                return answer
            condition = self.condition(node.test, frame)
            if isinstance(condition, Tensor) and start is not None:
                condition = start.again()
                break
            start = None
        if condition is BLOCKED:
            self.skip(node.body, frame)
        elif condition is not False:
            decided.repeat(self, node, frame, condition, None, lambda _: self.round(node, frame))
        return None

    def round(self, node: ast.While | ast.For, frame: Frame) -> Any:
        """Follow the body of a loop that the network's data end, once; gives whether it goes on."""
        if self.block(node.body, frame) is not None:
            raise Unsupported("returns from inside a loop that the network's data end", "return after the loop")
        return self.condition(node.test, frame) if isinstance(node, ast.While) else True

    def count(self, node: ast.For, frame: Frame) -> Returned | None:
        items = self.expression(node.iter, frame)
        if items is BLOCKED:
            self.skip([*node.body, ast.Assign([node.target], node.iter)], frame)
            return None
        if isinstance(items, Tensor):
            trips = self.operators.value(items)
            decided.repeat(self, node, frame, None, trips, lambda i: self.numbered(node, i, frame))
            return None
        if not isinstance(items, range | list | tuple):
            raise Malformed("goes through something that is no list")
        for item in items:
            self._steps += 1
            self.bind(node.target, item, frame)
            answer = self.block(node.body, frame)
            if answer is not None:
                return answer
        return None

    def numbered(self, node: ast.For, number: Tensor, frame: Frame) -> Any:
        self.bind(node.target, number, frame)
        return self.round(node, frame)

    def within(self, node: ast.With, frame: Frame) -> Returned | None:
        """`with torch.no_grad():` and the like: what its object does on entry and exit happens."""
        for item in node.items:
            target = self.expression(item.context_expr, frame)
            if isinstance(target, Object):
                entered = self.method(target, "__enter__", [], {}, frame.depth + 1)
                if item.optional_vars is not None:
                    self.bind(item.optional_vars, entered, frame)
        return self.block(node.body, frame)

    def refuse(self, node: ast.Raise, frame: Frame) -> None:
        raise Refusal(ast.unparse(node.exc) if node.exc is not None else "")

    def check(self, node: ast.Assert, frame: Frame) -> None:
        if self.condition(node.test, frame) is False:  # what the data decide is not checked
            raise Refusal(str(self.expression(node.msg, frame)) if node.msg is not None else "an assertion fails")

    def leave(self, node: ast.Return, frame: Frame) -> Returned:
        hint = instances.RESULT if frame.is_method else ""
        return Returned(None if node.value is None else self.expression(node.value, frame, hint))

    # -- expressions ---------------------------------------------------------------------------------------------------
    def expression(self, node: ast.expr, frame: Frame, hint: str = "") -> Any:
        """The value of an expression; a node made for it is called after `hint`, the variable it goes to."""
        if isinstance(node, ast.Call):
            return self.call_expression(node, frame, hint)
        action = EXPRESSIONS.get(type(node))
        if action is None:
            raise self.fault(frame.function, node, f"has a {type(node).__name__}, which TorchScript does not write")
        return action(self, node, frame)

    def name(self, node: ast.Name, frame: Frame) -> Any:
        if node.id in frame.names:
            found = frame.names[node.id]
            if isinstance(found, Undecided):
                raise Unsupported(f"{node.id!r} {found.fault.reason}", found.fault.remedy)
            return found
        if node.id in NAMES:
            return NAMES[node.id]
        raise self.fault(frame.function, node, f"name {node.id!r} has no value")

    def constant(self, node: ast.Constant, frame: Frame) -> Any:
        if node.value is Ellipsis:
            raise self.fault(frame.function, node, "has an ellipsis, which TorchScript does not write")
        return node.value

    def attribute(self, node: ast.Attribute, frame: Frame) -> Any:
        return self.attribute_of(self.expression(node.value, frame), node.attr)

    def attribute_of(self, holder: Any, name: str) -> Any:
        if holder is BLOCKED:
            return BLOCKED
        if isinstance(holder, Namespace):
            return Namespace(f"{holder.name}.{name}")
        if isinstance(holder, Qualified):
            return self.qualified(f"{holder.name}.{name}")
        if holder is CONSTANTS:
            return self.instances.constant(name)
        if isinstance(holder, Object):
            found = self.instances.get(holder, name, self)
            return Bound(holder, name) if found is instances.ABSENT else found
        if isinstance(holder, Named) and name in holder.fields:
            return holder[holder.fields.index(name)]
        if isinstance(holder, tuple | list | dict | str | Tensor):
            return Bound(holder, name)
        raise Malformed(f"asks for attribute {name!r} of something that has none")

    def qualified(self, name: str) -> Any:
        """A class or function of the archive, a constant of a class, or a name on the way to one."""
        owner, _, last = name.rpartition(".")
        found = self.source.class_of(owner) if self.source.find(name) is None else None
        if found is not None and last in found.constants:
            return self.expression(found.constants[last], Frame(_nowhere(owner), "", 0, False))
        return Qualified(name)

    def subscript(self, node: ast.Subscript, frame: Frame) -> Any:
        holder = self.expression(node.value, frame)
        if holder is BLOCKED:
            return BLOCKED
        if isinstance(node.slice, ast.Slice):
            parts = (node.slice.lower, node.slice.upper, node.slice.step)
            bounds = [None if part is None else self.expression(part, frame) for part in parts]
            if isinstance(holder, list | tuple | str):
                return holder[slice(*bounds)]
            raise Malformed("takes a slice of something that is no list")
        key = self.expression(node.slice, frame)
        if isinstance(holder, Tensor):
            return self.operators.call("aten::select", [holder, 0, key], {}, node_name(frame.path, "", "select"))
        if isinstance(holder, Object):  # a ModuleList or ModuleDict, by number or name
            return self.attribute_of(holder, str(key))
        return self.operators.call("aten::__getitem__", [holder, key], {}, frame.path)

    def list_display(self, node: ast.List, frame: Frame) -> list[Any]:
        return [self.expression(item, frame) for item in node.elts]

    def tuple_display(self, node: ast.Tuple, frame: Frame) -> tuple[Any, ...]:
        return tuple(self.expression(item, frame) for item in node.elts)

    def dict_display(self, node: ast.Dict, frame: Frame) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            name = None if key is None else self.expression(key, frame)
            if not isinstance(name, str | int | float):
                raise Malformed("makes a dictionary with keys that are neither text nor numbers")
            made[name] = self.expression(value, frame)
        return made

    def unary(self, node: ast.UnaryOp, frame: Frame) -> Any:
        value = self.expression(node.operand, frame)
        if isinstance(node.op, ast.USub) and isinstance(value, int | float | complex):
            return -value
        if isinstance(node.op, ast.Not):
            truth = self.operators.number(value, bool)
            if isinstance(truth, Tensor):
                return self.operators.call("aten::logical_not", [truth], {}, node_name(frame.path, "", "not"))
            return BLOCKED if truth is BLOCKED else not truth
        raise self.fault(frame.function, node, "has an operator that TorchScript does not write")

    def either(self, node: ast.IfExp, frame: Frame) -> Any:
        condition = self.condition(node.test, frame)
        if isinstance(condition, Tensor):
            found = decided.choose(self, node, frame, condition, [
                lambda: (self.expression(node.body, frame),), lambda: (self.expression(node.orelse, frame),)
            ])  # fmt: skip
            return found if found is BLOCKED else found[0]
        return BLOCKED if condition is BLOCKED else self.expression(node.body if condition else node.orelse, frame)

    # -- calls as expressions ------------------------------------------------------------------------------------------
    def call_expression(self, node: ast.Call, frame: Frame, hint: str) -> Any:
        if isinstance(node.func, ast.Name) and node.func.id in FORMS and node.func.id not in frame.names:
            return FORMS[node.func.id](self, node, frame)
        target = self.expression(node.func, frame)
        args = [self.expression(a, frame) for a in node.args]
        kwargs = {k.arg: self.expression(k.value, frame) for k in node.keywords if k.arg is not None}
        if isinstance(target, Namespace):
            return self.operator(target, args, kwargs, frame, hint)
        if isinstance(target, Bound):
            return self.bound(target, args, kwargs, frame)
        if isinstance(target, Qualified):
            return self.own(target, args, kwargs, frame)
        if target is BLOCKED:
            return BLOCKED
        raise self.fault(frame.function, node, "calls something that cannot be called")

    def operator(
        self, target: Namespace, args: list[Any], kwargs: dict[str, Any], frame: Frame, hint: str
    ) -> Any:
        name = _schema_name(target.name)
        if hint is instances.RESULT and frame.path and frame.function.name.endswith(".forward"):
            return self.operators.call(name, args, kwargs, frame.path)
        if hint is instances.RESULT or frame.path or not frame.is_method:
            hint = ""  # inside a module the path says more than the names of its variables
        return self.operators.call(name, args, kwargs, node_name(frame.path, hint, name))

    def bound(self, target: Bound, args: list[Any], kwargs: dict[str, Any], frame: Frame) -> Any:
        if isinstance(target.target, Object):
            return self.method(target.target, target.name, args, kwargs, frame.depth + 1)
        name = f"aten::{target.name}"
        return self.operators.call(name, [target.target, *args], kwargs, node_name(frame.path, "", name))

    def own(self, target: Qualified, args: list[Any], kwargs: dict[str, Any], frame: Frame) -> Any:
        """A call of the archive's own code: a function, `__new__` of a class, or a named tuple."""
        found = self.source.find(target.name)
        if isinstance(found, Function):
            return self.call(found, args, kwargs, frame.path, frame.depth + 1, is_method=False)
        if target.name.endswith(".__new__"):
            return Object(target.name.removesuffix(".__new__"))
        if isinstance(found, Class) and found.kind == "NamedTuple":
            return Named.of(found.fields, [*args, *(kwargs[f] for f in found.fields[len(args) :])])
        if isinstance(found, Class):
            made = Object(found.name)
            self.method(made, "__init__", args, kwargs, frame.depth + 1)
            return made
        raise Malformed(f"calls {target.name}, which the archive does not define")

    def to_number(self, node: ast.Call, frame: Frame, kind: type) -> Any:
        value = self.expression(node.args[0], frame)
        found = self.operators.number(value, kind)
        if kind is float and isinstance(found, int):
            return float(found)
        return found

    def to_text(self, node: ast.Call, frame: Frame) -> str:
        value = self.expression(node.args[0], frame)
        return str(value) if isinstance(value, str | int | float | bool | None) else "a tensor"

    def second(self, node: ast.Call, frame: Frame) -> Any:
        """`annotate(T, x)`, `unchecked_cast(T, x)`."""
        return self.expression(node.args[1], frame)

    def named_attribute(self, node: ast.Call, frame: Frame) -> Any:
        name = self.expression(node.args[1], frame)
        return self.attribute_of(self.expression(node.args[0], frame), str(name))

    def has_attribute(self, node: ast.Call, frame: Frame) -> bool:
        holder, name = self.expression(node.args[0], frame), self.expression(node.args[1], frame)
        return isinstance(holder, Object) and self.instances.get(holder, str(name), self) is not instances.ABSENT

    def in_range(self, node: ast.Call, frame: Frame) -> Any:
        bounds = [self.expression(a, frame) for a in node.args]
        if any(b is BLOCKED for b in bounds):
            return BLOCKED
        if len(bounds) == 1 and isinstance(bounds[0], Tensor):
            return bounds[0]
        if any(isinstance(b, Tensor) for b in bounds):
            raise Unsupported("counts between bounds that the network's data decide", "count from 0, in steps of 1")
        return range(*bounds)

    def is_instance(self, node: ast.Call, frame: Frame) -> bool:
        value = self.expression(node.args[0], frame)
        kinds = node.args[1].elts if isinstance(node.args[1], ast.Tuple | ast.List) else [node.args[1]]
        return any(instances.is_of_type(value, ast.unparse(kind)) for kind in kinds)

    def show(self, node: ast.Call, frame: Frame) -> None:
        return None

    def unset(self, node: ast.Call, frame: Frame) -> Any:
        return UNSET


CONSTANTS = object()
NAMES: dict[str, Any] = {
    "torch": Namespace("torch"), "ops": Namespace("ops"), "CONSTANTS": CONSTANTS, "__torch__": Qualified("__torch__"),
    "inf": math.inf, "nan": math.nan, "infj": complex(0, math.inf), "nanj": complex(0, math.nan),
}  # fmt: skip
FORMS: dict[str, Callable[[Evaluator, ast.Call, Frame], Any]] = {
    "int": lambda e, n, f: e.to_number(n, f, int), "float": lambda e, n, f: e.to_number(n, f, float),
    "bool": lambda e, n, f: e.to_number(n, f, bool), "str": Evaluator.to_text, "annotate": Evaluator.second,
    "unchecked_cast": Evaluator.second, "uninitialized": Evaluator.unset, "getattr": Evaluator.named_attribute,
    "hasattr": Evaluator.has_attribute, "range": Evaluator.in_range, "isinstance": Evaluator.is_instance,
    "print": Evaluator.show,
}  # fmt: skip
"""Calls whose arguments are not all values."""

STATEMENTS: dict[type, Callable[[Evaluator, Any, Frame], Returned | None]] = {
    ast.Assign: Evaluator.assign, ast.AnnAssign: Evaluator.assign_typed, ast.AugAssign: Evaluator.assign_changed,
    ast.Expr: Evaluator.evaluate, ast.If: Evaluator.choose, ast.While: Evaluator.repeat, ast.For: Evaluator.count,
    ast.With: Evaluator.within, ast.Raise: Evaluator.refuse, ast.Assert: Evaluator.check,
    ast.Return: Evaluator.leave, ast.Pass: lambda e, n, f: None,
}  # fmt: skip
EXPRESSIONS: dict[type, Callable[[Evaluator, Any, Frame], Any]] = {
    ast.Name: Evaluator.name, ast.Constant: Evaluator.constant, ast.Attribute: Evaluator.attribute,
    ast.Subscript: Evaluator.subscript, ast.List: Evaluator.list_display, ast.Tuple: Evaluator.tuple_display,
    ast.Dict: Evaluator.dict_display, ast.UnaryOp: Evaluator.unary, ast.IfExp: Evaluator.either,
}  # fmt: skip


def _schema_name(dotted: str) -> str:
    """`torch.relu` → aten::relu, `ops.quantized.add` → quantized::add."""
    first, *middle, last = dotted.split(".")
    return f"aten::{last}" if first == "torch" or not middle else f"{'.'.join(middle)}::{last}"


def _operator_name(node: ast.AST) -> str:
    """The operator a piece of code calls; empty where it calls none."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return ""
    dotted = ast.unparse(node.func)
    return _schema_name(dotted) if re.fullmatch(r"(torch|ops)(\.\w+)+", dotted) else ""


def _nowhere(name: str) -> Function:
    """Stands for the function where an expression of a class is evaluated."""
    node = ast.parse("def constants(): pass").body[0]
    return Function(name, name, node)  # type: ignore[arg-type]
