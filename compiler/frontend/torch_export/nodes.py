"""The nodes of an exported graph, in order: names, calls of the aten table, writes in place, and graphs in nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from compiler.errors import CompilerError
from compiler.frontend.aten import dtypes
from compiler.frontend.aten.registry import convert, find_converter
from compiler.frontend.builder import Builder
from compiler.frontend.records import UNCONVERTED, Malformed, NodeRecord, Unsupported
from compiler.frontend.torch_export.schema import (
    Broken,
    Name,
    Subgraph,
    argument,
    dimension,
    items,
    operator_of,
    record,
    scalar_code,
)
from compiler.frontend.torch_export.schema import text as text_of
from compiler.frontend.torch_export.subgraphs import SUBGRAPHS, run_subgraph
from compiler.frontend.torchscript.tensors import VIEWS, Step, Tensor
from compiler.ir.core import Argument, Constant, Function, Result, Value
from compiler.ir.location import UNKNOWN, Location
from compiler.ir.types import TensorType
from compiler.ops import math as math_ops
from compiler.ops import tensor as tensor_ops

BLOCKED: Any = type("Blocked", (), {"__repr__": lambda _: "<blocked>"})()
"""Stands for a value whose node was not converted and whose type nobody knows."""

ABSENT: Any = type("Absent", (), {"__repr__": lambda _: "<absent>"})()
"""Stands for a result that a converter does not give, such as the indices of a pooling."""

SELF = frozenset("aten::" + n for n in ("to", "detach", "alias", "dropout", "type_as", "lift_fresh"))
"""Operators that give their tensor itself where they have nothing to do."""

DENSE = ("aten::reshape", "aten::flatten", "aten::contiguous", "aten::reshape_as")
"""Views of tensors that lie dense, else copies."""

REPORT = "if torch runs the model, this is a fault of mluc: report it with the operator"
DEEPEST = 32
LARGEST_CONSTANT = 1 << 29


class Nodes:
    """The walk. `values` binds names to tensors, numbers and lists of them; `records` says what became of each node."""

    def __init__(self, file: str, builder: Builder, function: Function, types: Any) -> None:
        if not isinstance(types, Mapping):
            raise Broken("tensor_values is not a table")
        self.file = file
        self.builder = builder
        self.function = function
        self.values: dict[str, Any] = {}
        self.records: list[NodeRecord] = []
        self._types: Mapping[str, Any] = types
        self._prefix = ""
        self._place: tuple[Location, str] = UNKNOWN, ""
        self._depth = 0

    # -- names -------------------------------------------------------------------------------------------------------
    def lookup(self, name: Name) -> Any:
        if name.text not in self.values:
            raise Broken(f"{name.text!r} is used but nothing computes it")
        return self.values[name.text]

    def value(self, tensor: Tensor) -> Value:
        """What a tensor is now."""
        return tensor.read(self.call)

    def _resolved(self, x: Any) -> Any:
        """An argument with names looked up."""
        if isinstance(x, Name):
            found = self.lookup(x)
            if found is ABSENT:
                raise Unsupported(f"takes {x.text!r}, a result that is not computed here",
                                  "remove the use of that result from the network")  # fmt: skip
            return found
        return [self._resolved(item) for item in x] if isinstance(x, list) else x

    def plain(self, x: Any) -> Any:
        """An argument as the table takes it: tensors as values."""
        if isinstance(x, Tensor):
            return self.value(x)
        return [self.plain(item) for item in x] if isinstance(x, list) else x

    def wrapped(self, x: Any) -> Any:
        if isinstance(x, Value):
            return Tensor.of(x)
        return [self.wrapped(item) for item in x] if isinstance(x, list | tuple) else ABSENT if x is None else x

    # -- writes in place, found before the walk ----------------------------------------------------------------------
    def written_names(self, graph: Any) -> set[str]:
        """Names of inputs whose elements nodes write, directly or through views."""
        roots: dict[str, str] = {}
        written: set[str] = set()
        for node in items(graph, "nodes"):
            name, _ = operator_of(text_of(node, "target"))
            first = next(iter(_argument_names(node)), None)
            if first is None:
                continue
            root = roots.get(first, first)
            if name.endswith("_") and not name.endswith("__") and name.removesuffix("_") not in VIEWS:
                written.add(root)
            if name in VIEWS or name in SELF or name in DENSE or name.endswith("_"):
                for output in items(node, "outputs"):
                    roots.update(dict.fromkeys(_names(argument(output)), root))
        return written

    # -- the walk ----------------------------------------------------------------------------------------------------
    def run(self, graph: Any, results: Iterable[str]) -> None:
        """Visit the nodes that `results`, and what is written in place, depend on."""
        for node in _needed(items(graph, "nodes"), set(results)):
            self._visit(node)

    def _visit(self, node: Any) -> None:
        outputs = [_names(argument(output)) for output in items(node, "outputs")]
        flat = [name for names in outputs for name in names]
        name, overload = operator_of(text_of(node, "target"))
        title = self._prefix + (str(node.get("name") or "") or (flat[0] if flat else name.rpartition("::")[2]))
        entry = NodeRecord(title, name, "", 0, tuple(flat))
        self.records.append(entry)
        self._place = Location.of(title, self.file), self._prefix + (flat[0] if flat else title)
        self.locate()
        last = self.function.body.last
        try:
            self._bind(items(node, "outputs"), self._result(node, name, overload))
        except Unsupported as fault:
            self._fail(entry, "unsupported", fault.reason, fault.remedy, flat)
        except Malformed as fault:
            self._fail(entry, "malformed", fault.reason, fault.remedy, flat)
        except _Blocked:
            known = name in SUBGRAPHS or find_converter(name, overload) is not None
            self._fail(entry, "blocked" if known else "unsupported", UNCONVERTED if known else "has no converter", "",
                       flat)  # fmt: skip
        except CompilerError as fault:
            reasons = "; ".join(d.message for d in fault.diagnostics)
            self._fail(entry, "malformed", reasons, fault.diagnostics[0].help, flat)
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as fault:
            reason = f"its arguments do not fit together ({type(fault).__name__}: {fault})"
            self._fail(entry, "malformed", reason, REPORT, flat)
        self.builder.name_results(last.next if last is not None else self.function.body.first)

    def locate(self) -> None:
        """What is emitted from now on comes from the node being visited."""
        self.builder.begin_node(*self._place)

    def _fail(self, entry: NodeRecord, status: str, reason: str, remedy: str, outputs: Sequence[str]) -> None:
        entry.status, entry.reason, entry.remedy = status, reason, remedy
        for name in outputs:
            self.values[name] = self._placeholder(name)

    def _placeholder(self, name: str) -> Any:
        """A tensor of the type the program declares, so that the nodes after it can be looked at too."""
        try:
            sizes = [dimension(d) for d in items(self._types, name, "sizes")]
            dtype = dtypes.dtype_of(scalar_code(record(self._types, name, "dtype")))
        except (Broken, Unsupported):
            return BLOCKED
        if any(not isinstance(d, int) for d in sizes):
            return BLOCKED
        return Tensor.of(Argument(self.function.body, -1, TensorType(tuple(sizes), dtype), name))  # type: ignore[arg-type]

    # -- one node ----------------------------------------------------------------------------------------------------
    def _result(self, node: Any, name: str, overload: str) -> Any:
        args, kwargs = [], {}
        for entry in items(node, "inputs"):
            value = self._resolved(argument(record(entry, "arg")))
            if _holds_blocked(value):
                raise _Blocked
            if entry.get("kind") == 2 or (entry.get("kind") is None and entry.get("name") in KEYWORDS):
                kwargs[text_of(entry, "name")] = value
            else:
                args.append(value)
        if name.startswith("higher_order::"):
            return run_subgraph(self, name, args)
        first = args[0] if args else None
        if isinstance(first, Tensor) and name.endswith("_") and not name.endswith("__"):
            return self._write(name, overload, first, args, kwargs)
        answer = convert(name, overload, self.builder, [self.plain(a) for a in args],
                         {k: self.plain(v) for k, v in kwargs.items()})  # fmt: skip
        _check_size(answer)
        if isinstance(first, Tensor):
            if name in VIEWS or (name in DENSE and first.is_dense):
                return self._views(name, overload, first, args, kwargs, answer)
            if name in SELF and answer is self.value(first):
                return first
        return self.wrapped(answer)

    def call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        base, _, overload = name.partition(".")
        return convert(base, overload, self.builder, args, kwargs)

    def _views(self, name: str, overload: str, first: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any],
               answer: Any) -> Any:  # fmt: skip
        if name in DENSE and not first.is_dense:
            return self.wrapped(answer)
        rest, named = tuple(self.plain(a) for a in args[1:]), {k: self.plain(v) for k, v in kwargs.items()}
        full = f"{name}.{overload}" if overload else name
        if isinstance(answer, Value):
            return first.view(Step(full, rest, named), answer)
        return [first.view(Step(full, rest, named, i), v) for i, v in enumerate(answer)]

    def _write(self, name: str, overload: str, target: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """An operator that writes in place: its result becomes the elements of its first argument."""
        base = name.removesuffix("_")
        rest, named = [self.plain(a) for a in args[1:]], {k: self.plain(v) for k, v in kwargs.items()}
        before = self.value(target)
        answer = convert(base, overload, self.builder, [before, *rest], named)
        if base in VIEWS:
            view = target.view(Step(base, tuple(rest), named), answer)
            target.steps, target._value, target._version = view.steps, view._value, view._version
            return target
        if not isinstance(answer, Value):
            raise Malformed("writes something else than a tensor")
        if answer is not before:
            target.write(self._fitted(answer, before), self.builder, self.call)
        return target

    def _fitted(self, x: Value, like: Value) -> Value:
        if like.type.quant is None and x.type.dtype is not like.type.dtype:
            x = self.builder.emit(math_ops.Cast, x, to=like.type.dtype)[0]
        if x.type.shape != like.type.shape:
            x = self.builder.emit(tensor_ops.BroadcastTo, x, shape=like.type.static_shape)[0]
        return x

    # -- results -----------------------------------------------------------------------------------------------------
    def _bind(self, outputs: Sequence[Any], result: Any) -> None:
        """Give names their values, and values that have no name yet the names."""
        targets = [argument(output) for output in outputs]
        if len(targets) == 1 and not isinstance(targets[0], list):
            found = [result[0] if isinstance(result, list) and len(result) == 1 else result]
        elif len(targets) == 1:
            found, targets = list(result), targets[0]
        else:
            found = list(result) if isinstance(result, list) else [result]
        for index, target in enumerate(targets):
            if not isinstance(target, Name):
                continue
            value = found[index] if index < len(found) else ABSENT
            self.values[target.text] = value
            inner = self.value(value) if isinstance(value, Tensor) else None
            if isinstance(inner, Result) and not inner.name:
                inner.name = self._prefix + target.text if not self._prefix else self.builder.fresh_name(
                    self._prefix + target.text)  # fmt: skip

    # -- graphs in nodes ---------------------------------------------------------------------------------------------
    def inlined(self, subgraph: Any, operands: Any) -> list[Any]:
        """What a graph gives for its operands, converted in place."""
        if not isinstance(subgraph, Subgraph) or not isinstance(operands, list | tuple):
            raise Malformed("does not take a graph and its operands")
        if self._depth >= DEEPEST:
            raise Malformed("graphs are nested too deeply")
        inner = Nodes(self.file, self.builder, self.function, record(subgraph.graph, "tensor_values"))
        inner.records, inner._depth = self.records, self._depth + 1
        inner._prefix = f"{self._prefix}{subgraph.name}/"
        names = [n for entry in items(subgraph.graph, "inputs") for n in _names(argument(entry))]
        if len(names) != len(operands):
            raise Malformed(f"its graph takes {len(names)} inputs and is given {len(operands)}")
        inner.values.update(zip(names, operands, strict=True))
        outputs = [argument(output) for output in items(subgraph.graph, "outputs")]
        inner.run(subgraph.graph, _names(outputs))
        found = [inner._resolved(output) for output in outputs]
        if _holds_blocked(found):
            raise _Blocked
        return found


KEYWORDS = frozenset(("dtype", "layout", "device", "pin_memory", "memory_format", "alpha", "beta", "rounding_mode",
                      "approximate", "scale", "generator", "non_blocking", "correction", "enable_gqa", "value",
                      "include_self", "reduce", "right", "out_int32", "stable", "implicit"))  # fmt: skip
"""Arguments that torch takes by keyword only; older files do not say which these are."""


class _Blocked(Exception):
    """An argument is the result of a node that was not converted."""


def _holds_blocked(x: Any) -> bool:
    return x is BLOCKED or (isinstance(x, list) and any(_holds_blocked(item) for item in x))


def _needed(nodes: Sequence[Any], names: set[str]) -> list[Any]:
    """The nodes, in order, that compute `names` or write in place, and all that these take. Checks of sizes and of
    values compute nothing.
    """
    found = []
    for node in reversed(nodes):
        operator, _ = operator_of(text_of(node, "target"))
        writes = operator.endswith("_") and not operator.endswith("__")
        bound = [n for output in items(node, "outputs") for n in _names(_argument_or_none(output))]
        if writes or not names.isdisjoint(bound):
            found.append(node)
            names.update(_argument_names(node))
    return found[::-1]


def _argument_or_none(data: Any) -> Any:
    try:
        return argument(data)
    except Unsupported:
        return None


def _names(x: Any) -> list[str]:
    return [i.text for i in (x if isinstance(x, list) else [x]) if isinstance(i, Name)]


def _argument_names(node: Any) -> list[str]:
    return [n for entry in items(node, "inputs") for n in _names(_argument_or_none(record(entry, "arg")))]


def _check_size(answer: Any) -> None:
    for item in answer if isinstance(answer, list | tuple) else (answer,):
        if isinstance(item, Constant) and item.data.nbytes > LARGEST_CONSTANT:
            raise Malformed(f"computes a constant of {item.data.nbytes} bytes")
