"""The serialised code of an archive: its classes and functions, found by qualified name and parsed when asked for.

TorchScript prints its code in Python's syntax, so `ast` parses it; nothing is compiled or run. What statements mean is
in `evaluator`.
"""

from __future__ import annotations

import ast
import warnings
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

from compiler.errors import CompilerError, error
from compiler.frontend.torchscript.archive import DAMAGED, LARGEST_TEXT, Archive

DEEPEST = 150
"""Expressions and blocks may be nested this deep."""


def loads_of(node: ast.AST) -> Counter[str]:
    """How often a piece of code reads each variable."""
    return Counter(n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))


def assigned(node: ast.AST) -> list[str]:
    """The variables a piece of code may assign."""
    return [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


@dataclass(eq=False)
class Function:
    """A function or method: its parameters and body, and where it stands."""

    name: str
    member: str
    node: ast.FunctionDef

    @cached_property
    def loads(self) -> Counter[str]:
        """How often it reads each variable."""
        return loads_of(self.node)

    @property
    def parameters(self) -> list[ast.arg]:
        return [*self.node.args.args, *self.node.args.kwonlyargs]

    @property
    def defaults(self) -> dict[str, ast.expr]:
        """Parameter → default, where it has one."""
        arguments = self.node.args
        found = dict(zip((a.arg for a in reversed(arguments.args)), reversed(arguments.defaults), strict=False))
        pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        return found | {a.arg: default for a, default in pairs if default is not None}

    @property
    def result(self) -> str:
        """The variable whose value it returns; empty where it returns something else."""
        last = self.node.body[-1]
        return last.value.id if isinstance(last, ast.Return) and isinstance(last.value, ast.Name) else ""

    def place(self, node: ast.AST) -> str:
        """Where a piece of the function stands, for messages."""
        return f"{self.member}:{getattr(node, 'lineno', self.node.lineno)}"


@dataclass(eq=False)
class Class:
    """A class: its methods, the constants it declares, and what kind it is (Module, NamedTuple, Enum, or '')."""

    name: str
    kind: str
    methods: dict[str, Function] = field(default_factory=dict)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)
    annotations: dict[str, ast.expr] = field(default_factory=dict)


class Source:
    """All code of an archive."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self._members: dict[str, dict[str, Function | Class]] = {}
        self._read = 0

    def find(self, qualified: str) -> Function | Class | None:
        """The class or function of a qualified name (`__torch__.torch.nn.functional.relu`); None if there is none."""
        module, _, name = qualified.rpartition(".")
        return self._module(module).get(name) if module else None

    def class_of(self, qualified: str) -> Class | None:
        found = self.find(qualified)
        return found if isinstance(found, Class) else None

    def hooks_of(self, qualified: str, kind: str) -> list[str]:
        """The methods a class calls before or after `forward`; `kind` is the name of their list."""
        found = self.class_of(qualified)
        listed = found.constants.get(kind) if found is not None else None
        items = listed.elts if isinstance(listed, ast.List) else []
        return [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]

    def _module(self, module: str) -> dict[str, Function | Class]:
        if module not in self._members:
            member = f"code/{module.replace('.', '/')}.py"
            self._members[module] = self._parse(member, module) if member in self.archive else {}
        return self._members[module]

    def _parse(self, member: str, module: str) -> dict[str, Function | Class]:
        text = self.archive.read(member)
        self._read += len(text)
        if self._read > LARGEST_TEXT:
            raise self._fault(member, f"more than {LARGEST_TEXT} bytes of code are not read")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Python's about code that is none of its own
                tree = ast.parse(text.decode())
        except SyntaxError as fault:
            raise self._fault(member, f"line {fault.lineno}: {fault.msg}") from None
        except (ValueError, RecursionError, MemoryError) as fault:
            raise self._fault(member, str(fault) or type(fault).__name__) from None
        _check_depth(tree, member, self.archive.file)
        found: dict[str, Function | Class] = {}
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                found[node.name] = Function(f"{module}.{node.name}", member, node)
            elif isinstance(node, ast.ClassDef):
                found[node.name] = _class(node, f"{module}.{node.name}", member)
        return found

    def _fault(self, member: str, what: str) -> CompilerError:
        return error("E201", f"{member} is not code that TorchScript writes: {what}", where=self.archive.file,
                     help=DAMAGED)  # fmt: skip


def _class(node: ast.ClassDef, name: str, member: str) -> Class:
    base = node.bases[0].id if node.bases and isinstance(node.bases[0], ast.Name) else ""
    made = Class(name, base)
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            made.methods[item.name] = Function(f"{name}.{item.name}", member, item)
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            made.fields.append(item.target.id)
            made.annotations[item.target.id] = item.annotation
            if item.value is not None:
                made.constants[item.target.id] = item.value
        elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            made.constants[item.targets[0].id] = item.value
    return made


def _check_depth(tree: ast.AST, member: str, file: str) -> None:
    """Refuse code nested deeper than any network's: it is walked recursively."""
    waiting: list[tuple[ast.AST, int]] = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > DEEPEST:
            raise error("E201", f"{member} is nested more than {DEEPEST} deep", where=file, help=DAMAGED)
        waiting += [(child, depth + 1) for child in ast.iter_child_nodes(node)]
