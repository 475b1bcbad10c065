"""The language kernels are written in: a small part of Python, translated to LLVM IR by its syntax tree.

A kernel works on memory by address, 16 lanes at a time, and is translated for one instruction form at a time: what is
known at that moment (element types, the steps of an epilogue, whether a window is 3x3) is an ordinary Python value, is
computed with in Python, and decides which code is written at all. Everything else is an LLVM value: int64, fp32, one
bit, or a vector. Functions are written into their callers; a loop over a tuple is unrolled, a loop over `range` is
not. There is no type inference to wait for, and what is translated is what is needed: a kernel takes some tens of
milliseconds, where Numba takes seconds.

Integers are int64 wherever they come from; `//` and `%` truncate, so they are for numbers that are not negative.
Conditional expressions compute both sides. Names bound once are values; others are variables with the type of what
they got first.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
F16, F32 = ir.HalfType(), ir.FloatType()
LANES = 16

Value = Any
"""An LLVM value, or a Python object known while translating."""


class Refused(Exception):
    """Source that is not in the language; says where."""


@dataclass(frozen=True)
class Function:
    """A function of the language, written into its callers."""

    python: Callable

    def __call__(self, *arguments: object) -> object:
        raise Refused(f"{self.python.__name__} can only be called from a kernel")


@dataclass(frozen=True)
class Primitive:
    """An operation written in Python that emits instructions: python(translator, *arguments)."""

    python: Callable


@dataclass(frozen=True)
class View:
    """Elements of one type at an address. Integers widen to int64 when read."""

    address: ir.Value
    element: ir.Type
    signed: bool


@dataclass
class Variable:
    """A place on the stack, which the optimiser makes a register. Within the block where it was last written, that
    value is taken again instead of reading it."""

    place: ir.Value
    block: ir.Block | None = None
    value: ir.Value | None = None

    def write(self, b: ir.IRBuilder, value: ir.Value) -> None:
        b.store(value, self.place)
        self.block, self.value = b.block, value

    def read(self, b: ir.IRBuilder) -> ir.Value:
        if self.value is None or self.block is not b.block:
            self.block, self.value = b.block, b.load(self.place)
        return self.value


class Registers:
    """A fixed number of variables, indexed by what is known while translating."""

    def __init__(self, places: list[ir.Value]):
        self.variables = [Variable(place) for place in places]


def function(python: Callable) -> Function:
    return Function(python)


def primitive(python: Callable) -> Primitive:
    return Primitive(python)


def is_known(value: Value) -> bool:
    """Whether something is an ordinary Python object while translating."""
    return not isinstance(value, ir.Value | View | Registers)


@dataclass(frozen=True)
class _Source:
    """A function's tree, the names bound more than once in it, whether it returns before its end, its parameters."""

    tree: ast.FunctionDef
    rebound: frozenset[str]
    returns_early: bool
    parameters: tuple[str, ...]
    defaults: dict[str, Value]
    closure: dict[str, Value]


@functools.cache
def _source(python: Callable) -> _Source:
    tree = ast.parse(textwrap.dedent(inspect.getsource(python))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    ast.increment_lineno(tree, python.__code__.co_firstlineno - 1)
    early = any(isinstance(n, ast.Return) and n is not tree.body[-1] for n in ast.walk(tree))
    parameters = inspect.signature(python).parameters
    defaults = {n: p.default for n, p in parameters.items() if p.default is not inspect.Parameter.empty}
    closure = dict(inspect.getclosurevars(python).nonlocals) if python.__closure__ else {}
    return _Source(tree, frozenset(_rebound(tree)), early, tuple(parameters), defaults, closure)


def _rebound(tree: ast.FunctionDef) -> Iterable[str]:
    """Names that need a place: assigned in more than one statement. A loop binds its own names anew every turn."""
    own = {n for loop in ast.walk(tree) if isinstance(loop, ast.For) for n in ast.walk(loop.target)}
    seen = {a.arg for a in (*tree.args.args, *tree.args.kwonlyargs)}
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in own:
            if node.id in seen:
                yield node.id
            seen.add(node.id)


class _Loop:
    def __init__(self, again: ir.Block, after: ir.Block):
        self.again, self.after = again, after


class _Frame:
    """One function being written: its names, and where `return` goes."""

    def __init__(self, python: Callable, source: _Source):
        self.python, self.rebound = python, source.rebound
        self.names: dict[str, Value] = {}
        self.variables: dict[str, Variable] = {}
        self.loops: list[_Loop] = []
        self.exit: ir.Block | None = None
        self.result: Value = None
        self.scopes = (source.closure, python.__globals__, vars(builtins))


class Translator:
    """Writes one LLVM function from a Python function of the language."""

    def __init__(self, module: ir.Module, name: str, arguments: int):
        self.module = module
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * arguments), name)
        self.function.attributes.add("nounwind")
        self._places = ir.IRBuilder(self.function.append_basic_block("places"))
        self.b = ir.IRBuilder(self.function.append_basic_block("body"))
        self._frames: list[_Frame] = []

    def write(self, python: Callable, known: dict[str, Value]) -> None:
        """The body of the function: its arguments are int64, `known` are the keyword arguments."""
        self._inline(python, self.function.args, known)
        if not self.b.block.is_terminated:
            self.b.ret_void()
        self._places.branch(self.function.blocks[1])

    def place(self, type_: ir.Type) -> ir.Value:
        """Room for a variable."""
        return self._places.alloca(type_)

    def declare(self, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
        """An LLVM intrinsic or external function of this name."""
        known = self.module.globals.get(name)
        return known or ir.Function(self.module, ir.FunctionType(result, arguments), name)

    # -- functions -----------------------------------------------------------------------------------------------------
    def _inline(self, python: Callable, arguments: Sequence[Value], keywords: dict[str, Value]) -> Value:
        source = _source(python)
        given = dict(zip(source.parameters, arguments, strict=False))
        names = {**source.defaults, **given, **keywords}
        if len(given) < len(arguments) or given.keys() & keywords.keys() or names.keys() != set(source.parameters):
            raise TypeError(f"{python.__name__} takes {source.parameters}")
        frame = _Frame(python, source)
        self._frames.append(frame)
        for name, value in names.items():
            self._bind(name, value)
        if source.returns_early:
            frame.exit = self.b.append_basic_block("exit")
        self._block(source.tree.body)
        if frame.exit is not None:
            if not self.b.block.is_terminated:
                self.b.branch(frame.exit)
            self.b.position_at_end(frame.exit)
        self._frames.pop()
        return self._read(frame.result)

    def _read(self, value: Value) -> Value:
        if isinstance(value, Variable):
            return value.read(self.b)
        return tuple(self._read(v) for v in value) if type(value) is tuple else value

    def call(self, callee: Value, arguments: list[Value], keywords: dict[str, Value] | None = None) -> Value:
        """A call: written in place, emitted by a primitive, or done in Python when everything is known."""
        keywords = keywords or {}
        if isinstance(callee, Primitive):
            return callee.python(self, *arguments, **keywords)
        if isinstance(callee, Function):
            return self._inline(callee.python, arguments, keywords)
        if callee in (builtins.min, builtins.max) and not all(map(is_known, arguments)):
            return functools.reduce(functools.partial(self._extreme, callee is builtins.min), arguments)
        if all(map(is_known, (*arguments, *keywords.values()))):
            return callee(*arguments, **keywords)
        raise TypeError(f"call of {callee!r} with values that are not known yet")

    def _extreme(self, least: bool, a: Value, b: Value) -> ir.Value:
        a, b = self.alike(a, b)
        return self.b.select(self.b.icmp_signed("<" if least else ">", a, b), a, b)

    # -- statements ----------------------------------------------------------------------------------------------------
    def _block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            if self.b.block.is_terminated:
                return
            code = self._frames[-1].python.__code__
            try:
                getattr(self, "_do_" + type(statement).__name__.lower(), self._do_unknown)(statement)
            except Refused:
                raise
            except Exception as fault:
                message = f"{code.co_filename}:{statement.lineno} in {code.co_name}: {type(fault).__name__}: {fault}"
                raise Refused(message) from fault

    def _do_unknown(self, node: ast.stmt) -> None:
        raise TypeError(f"{type(node).__name__} is not in the language")

    def _do_expr(self, node: ast.Expr) -> None:
        self.value(node.value)

    def _do_pass(self, node: ast.Pass) -> None:
        pass

    def _do_assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self._assign(target, value)

    def _do_augassign(self, node: ast.AugAssign) -> None:
        load: Any = ast.copy_location(ast.BinOp(_as_load(node.target), node.op, node.value), node)
        self._assign(node.target, self.value(load))

    def _assign(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Tuple):
            parts = list(target.elts)
            if isinstance(parts[-1], ast.Starred):
                rest: Any = parts.pop()
                self._assign(rest.value, value[len(parts) :])
                value = value[: len(parts)]
            for part, one in zip(parts, value, strict=True):
                self._assign(part, one)
        elif isinstance(target, ast.Subscript):
            self._set_item(self.value(target.value), self.value(target.slice), value)
        else:
            assert isinstance(target, ast.Name)
            self._bind(target.id, value)

    def _set_item(self, container: Value, index: Value, value: Value) -> None:
        if isinstance(container, Registers):
            variable = container.variables[index]
            variable.write(self.b, self.as_type(value, variable.place.type.pointee))
            return
        assert isinstance(container, View), f"cannot store in {container!r}"
        value = self.as_type(value, I64 if isinstance(container.element, ir.IntType) else container.element)
        if isinstance(container.element, ir.IntType) and container.element.width < 64:
            value = self.b.trunc(value, container.element)
        self.b.store(value, self._element(container, index)).align = 1

    def _bind(self, name: str, value: Value) -> None:
        frame = self._frames[-1]
        numeric = isinstance(value, ir.Value | bool | int | float | np.integer | np.floating)
        if name not in frame.rebound or name == "_" or not numeric:
            frame.names[name] = value
            return
        variable = frame.variables.get(name)
        if variable is None:
            value = self.as_value(value)
            variable = frame.variables[name] = Variable(self.place(value.type))
        variable.write(self.b, self.as_type(value, variable.place.type.pointee))
        frame.names[name] = variable

    def _do_if(self, node: ast.If) -> None:
        test = self.value(node.test)
        if is_known(test):
            self._block(node.body if test else node.orelse)
            return
        then, after = self.b.append_basic_block("then"), self.b.append_basic_block("after")
        other = self.b.append_basic_block("else") if node.orelse else after
        self.b.cbranch(test, then, other)
        for block, body in ((then, node.body), (other, node.orelse)):
            if block is not after:
                self.b.position_at_end(block)
                self._block(body)
                if not self.b.block.is_terminated:
                    self.b.branch(after)
        self.b.position_at_end(after)

    def _do_while(self, node: ast.While) -> None:
        test, body, after = (self.b.append_basic_block(n) for n in ("test", "body", "after"))
        self.b.branch(test)
        self.b.position_at_end(test)
        self._branch_on(self.value(node.test), body, after)
        self._loop_body(node.body, body, _Loop(test, after))
        if not self.b.block.is_terminated:
            self.b.branch(test)
        self.b.position_at_end(after)

    def _branch_on(self, test: Value, then: ir.Block, other: ir.Block) -> None:
        if is_known(test):
            self.b.branch(then if test else other)
        else:
            self.b.cbranch(test, then, other)

    def _loop_body(self, statements: list[ast.stmt], block: ir.Block, loop: _Loop) -> None:
        frame = self._frames[-1]
        self.b.position_at_end(block)
        frame.loops.append(loop)
        self._block(statements)
        frame.loops.pop()

    def _do_for(self, node: ast.For) -> None:
        over = self._range_of(node.iter)
        if over is None:
            for item in self.value(node.iter):
                self._assign(node.target, item)
                self._block(node.body)
            return
        start, stop, step = (self.as_type(v, I64) for v in over)
        index = self.place(I64)
        self.b.store(start, index)
        test, body, again, after = (self.b.append_basic_block(n) for n in ("test", "body", "again", "after"))
        self.b.branch(test)
        self.b.position_at_end(test)
        self.b.cbranch(self.b.icmp_signed("<", self.b.load(index), stop), body, after)
        self.b.position_at_end(body)
        self._assign(node.target, self.b.load(index))
        self._loop_body(node.body, body, _Loop(again, after))
        if not self.b.block.is_terminated:
            self.b.branch(again)
        self.b.position_at_end(again)
        self.b.store(self.b.add(self.b.load(index), step), index)
        self.b.branch(test)
        self.b.position_at_end(after)

    def _range_of(self, node: ast.expr) -> list[Value] | None:
        """(start, stop, step) of `range(...)` in the source; None for anything else, which is unrolled."""
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range"):
            return None
        values = [self.value(a) for a in node.args]
        return [0, values[0], 1] if len(values) == 1 else [*values, 1][:3]

    def _do_break(self, node: ast.Break) -> None:
        self.b.branch(self._frames[-1].loops[-1].after)

    def _do_continue(self, node: ast.Continue) -> None:
        self.b.branch(self._frames[-1].loops[-1].again)

    def _do_return(self, node: ast.Return) -> None:
        frame = self._frames[-1]
        value = self.value(node.value) if node.value is not None else None
        if frame.exit is None:
            frame.result = value
            return
        frame.result = self._keep(frame.result, value)
        self.b.branch(frame.exit)

    def _keep(self, known: Value, value: Value) -> Value:
        """Where the results of several `return`s go."""
        if isinstance(value, tuple):
            return tuple(self._keep(k, v) for k, v in zip(known or [None] * len(value), value, strict=True))
        if known is None and (value is None or isinstance(value, View)):
            return value
        if known is None:
            value = self.as_value(value)
            known = Variable(self.place(value.type))
        known.write(self.b, self.as_type(value, known.place.type.pointee))
        return known

    # -- expressions ---------------------------------------------------------------------------------------------------
    def value(self, node: ast.expr) -> Value:
        """The value of an expression."""
        write = _EXPRESSIONS.get(type(node))
        if write is None:
            raise TypeError(f"{type(node).__name__} is not in the language")
        return write(self, node)

    def _call(self, node: ast.Call) -> Value:
        keywords = {k.arg: self.value(k.value) for k in node.keywords if k.arg}
        return self.call(self.value(node.func), [self.value(a) for a in node.args], keywords)

    def _comparison(self, node: ast.Compare) -> Value:
        ((operator,), (right,)) = node.ops, node.comparators
        return self.compare(type(operator).__name__, self.value(node.left), self.value(right))

    def _spliced(self, node: ast.expr) -> Iterable[Value]:
        return self.value(node.value) if isinstance(node, ast.Starred) else (self.value(node),)

    def _name(self, name: str) -> Value:
        frame = self._frames[-1]
        if name in frame.names:
            return self._read(frame.names[name])
        for scope in frame.scopes:
            if name in scope:
                return scope[name]
        raise NameError(f"{name} is not defined")

    def _item(self, container: Value, index: Value) -> Value:
        if isinstance(container, Registers):
            return container.variables[index].read(self.b)
        if not isinstance(container, View):
            return container[index]
        value = self.b.load(self._element(container, index))
        value.align = 1
        if isinstance(container.element, ir.IntType) and container.element.width < 64:
            return (self.b.sext if container.signed else self.b.zext)(value, I64)
        return value

    def _element(self, view: View, index: Value) -> ir.Value:
        base = self.b.inttoptr(view.address, ir.PointerType(view.element))
        return self.b.gep(base, [self.as_type(index, I64)])

    def _boolean(self, all_of: bool, nodes: list[ast.expr]) -> Value:
        """`and` or `or`; what comes after the deciding operand is not computed."""
        first = self.value(nodes[0])
        if len(nodes) == 1:
            return first
        if is_known(first):
            return self._boolean(all_of, nodes[1:]) if bool(first) == all_of else first
        place = self.place(I1)
        self.b.store(first, place)
        more, after = self.b.append_basic_block("more"), self.b.append_basic_block("decided")
        self.b.cbranch(first, *((more, after) if all_of else (after, more)))
        self.b.position_at_end(more)
        self.b.store(self.as_type(self._boolean(all_of, nodes[1:]), I1), place)
        self.b.branch(after)
        self.b.position_at_end(after)
        return self.b.load(place)

    def _choice(self, node: ast.IfExp) -> Value:
        test = self.value(node.test)
        if is_known(test):
            return self.value(node.body if test else node.orelse)
        then, other = self.value(node.body), self.value(node.orelse)
        if isinstance(test.type, ir.VectorType) and is_known(then) and is_known(other):
            then = self.as_type(then, ir.VectorType(self.as_value(then).type, test.type.count))
        return self.b.select(test, *self.alike(then, other))

    def _unary(self, name: str, value: Value) -> Value:
        if is_known(value):
            return {"USub": lambda: -value, "Not": lambda: not value, "Invert": lambda: ~value}[name]()
        if name == "USub":
            return self.b.neg(value) if isinstance(_scalar(value.type), ir.IntType) else self.b.fneg(value)
        return self.b.not_(value)

    def binary(self, name: str, a: Value, b: Value) -> Value:
        """`a op b`; in Python when both are known."""
        if is_known(a) and is_known(b):
            return _IN_PYTHON[name](a, b)
        a, b = self.alike(a, b)
        table = _ON_INTEGERS if isinstance(_scalar(a.type), ir.IntType) else _ON_FLOATS
        return getattr(self.b, table[name])(a, b)

    def compare(self, name: str, a: Value, b: Value) -> Value:
        """`a op b`: signed integers, or ordered floats."""
        if name in ("Is", "IsNot", "In", "NotIn") or (is_known(a) and is_known(b)):
            return _IN_PYTHON[name](a, b)
        a, b = self.alike(a, b)
        sign = _SIGNS[name]
        if isinstance(_scalar(a.type), ir.IntType):
            return self.b.icmp_signed(sign, a, b)
        return (self.b.fcmp_unordered if sign == "!=" else self.b.fcmp_ordered)(sign, a, b)

    # -- types ---------------------------------------------------------------------------------------------------------
    def as_value(self, value: Value) -> ir.Value:
        """An LLVM value of its own type: int64, fp32, or one bit."""
        if not is_known(value):
            return value
        if isinstance(value, bool | np.bool_):
            return I1(int(value))
        return F32(float(np.float32(value))) if isinstance(value, float | np.floating) else I64(int(value))

    def as_type(self, value: Value, type_: ir.Type) -> ir.Value:
        """An LLVM value of a type: constants are made, scalars spread over the lanes of a vector."""
        scalar = _scalar(type_)
        if is_known(value):
            number = float(np.float32(value)) if isinstance(scalar, ir.FloatType) else int(value)
            if isinstance(scalar, ir.IntType) and number != value:
                raise TypeError(f"{value} where {type_} is needed")
            if not isinstance(type_, ir.VectorType):
                return ir.Constant(type_, number)
            zero = number == 0 and not np.signbit(number)
            return ir.Constant(type_, None if zero else [number] * type_.count)  # None is short for zeros
        if value.type == type_:
            return value
        if isinstance(type_, ir.VectorType) and value.type == scalar:
            return self.spread(value, type_)
        raise TypeError(f"{value.type} where {type_} is needed")

    def spread(self, value: ir.Value, type_: ir.VectorType) -> ir.Value:
        """The scalar in every lane."""
        empty = ir.Constant(type_, ir.Undefined)
        lanes = ir.Constant(ir.VectorType(I32, type_.count), None)
        return self.b.shuffle_vector(self.b.insert_element(empty, value, I32(0)), empty, lanes)

    def alike(self, a: Value, b: Value) -> tuple[ir.Value, ir.Value]:
        """Both as LLVM values of one type."""
        if is_known(a) and is_known(b):
            a = self.as_value(a)
        if is_known(a) or (not is_known(b) and isinstance(b.type, ir.VectorType)):
            return self.as_type(a, b.type), b
        return a, self.as_type(b, a.type)


def _scalar(type_: ir.Type) -> ir.Type:
    return type_.element if isinstance(type_, ir.VectorType) else type_


def _as_load(target: ast.expr) -> ast.expr:
    """The expression that reads what an assignment writes."""
    if isinstance(target, ast.Name):
        return ast.Name(target.id, ast.Load())
    assert isinstance(target, ast.Subscript)
    return ast.Subscript(target.value, target.slice, ast.Load())


_EXPRESSIONS: dict[type, Callable[[Translator, Any], Value]] = {
    ast.Constant: lambda t, n: n.value,
    ast.Name: lambda t, n: t._name(n.id),
    ast.Tuple: lambda t, n: tuple(v for e in n.elts for v in t._spliced(e)),
    ast.Attribute: lambda t, n: getattr(t.value(n.value), n.attr),
    ast.BinOp: lambda t, n: t.binary(type(n.op).__name__, t.value(n.left), t.value(n.right)),
    ast.UnaryOp: lambda t, n: t._unary(type(n.op).__name__, t.value(n.operand)),
    ast.Compare: lambda t, n: t._comparison(n),
    ast.BoolOp: lambda t, n: t._boolean(isinstance(n.op, ast.And), n.values),
    ast.IfExp: lambda t, n: t._choice(n),
    ast.Call: lambda t, n: t._call(n),
    ast.Slice: lambda t, n: slice(*(t.value(e) if e else None for e in (n.lower, n.upper, n.step))),
    ast.Subscript: lambda t, n: t._item(t.value(n.value), t.value(n.slice)),
}
_ON_INTEGERS = {
    "Add": "add", "Sub": "sub", "Mult": "mul", "FloorDiv": "sdiv", "Mod": "srem", "LShift": "shl", "RShift": "ashr",
    "BitAnd": "and_", "BitOr": "or_", "BitXor": "xor",
}  # fmt: skip
_ON_FLOATS = {"Add": "fadd", "Sub": "fsub", "Mult": "fmul", "Div": "fdiv"}
_SIGNS = {"Eq": "==", "NotEq": "!=", "Lt": "<", "LtE": "<=", "Gt": ">", "GtE": ">="}
_IN_PYTHON: dict[str, Callable] = {
    "Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mult": lambda a, b: a * b, "Div": lambda a, b: a / b,
    "FloorDiv": lambda a, b: a // b, "Mod": lambda a, b: a % b, "LShift": lambda a, b: a << b,
    "RShift": lambda a, b: a >> b, "BitAnd": lambda a, b: a & b, "BitOr": lambda a, b: a | b,
    "BitXor": lambda a, b: a ^ b, "Eq": lambda a, b: a == b, "NotEq": lambda a, b: a != b, "Lt": lambda a, b: a < b,
    "LtE": lambda a, b: a <= b, "Gt": lambda a, b: a > b, "GtE": lambda a, b: a >= b, "Is": lambda a, b: a is b,
    "IsNot": lambda a, b: a is not b, "In": lambda a, b: a in b, "NotIn": lambda a, b: a not in b,
}  # fmt: skip
