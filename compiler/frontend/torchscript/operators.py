"""Calls of torch's operators in the code of an archive: what is answered at once, and what goes to the aten table.

Questions about a tensor (its shape, its type) and computation on numbers and lists are answered with Python's values.
Everything else is one node: it has a record, its tensors go to the table as values, and the answer comes back as
tensors. Operators that write in place write through the tensor they were given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from compiler.errors import CompilerError, Diagnostic, error
from compiler.frontend.aten import dtypes
from compiler.frontend.aten.registry import convert, find_converter
from compiler.frontend.builder import Builder
from compiler.frontend.records import UNCONVERTED, Malformed, NodeRecord, Unsupported
from compiler.frontend.torchscript.scalars import CONTAINERS, SCALARS, bounded
from compiler.frontend.torchscript.tensors import VIEWS, Step, Tensor
from compiler.ir.core import Argument, Constant, Function, Result, Value
from compiler.ir.location import Location
from compiler.ir.types import DType
from compiler.ops import math as math_ops
from compiler.ops import tensor as tensor_ops

MOST_NODES = 50_000
LARGEST_CONSTANT = 1 << 28
"""Bytes a tensor that is computed at import may take."""

MOST_COMPUTED = 1 << 29
"""Bytes all tensors that are computed at import may take."""

REPORT = "if torch runs the model, this is a fault of mluc: report it with the operator"
BLOCKED: Any = type("Blocked", (), {"__repr__": lambda _: "<blocked>"})()
"""Stands for a value whose computation was not converted."""

INDICES = {
    "aten::embedding": 1, "aten::index_select": 2, "aten::gather": 2, "aten::one_hot": 0, "aten::take_along_dim": 1,
    "aten::embedding_bag": 1, "aten::scatter": 2, "aten::take": 1, "aten::index": 1, "aten::scatter_add": 2,
    "aten::scatter_reduce": 2, "aten::index_add": 2, "aten::index_copy": 2, "aten::index_fill": 2, "aten::index_put": 1,
}  # fmt: skip
"""Operators → which argument holds indices: an input of the network that is used so holds integers."""

MASKS = {"aten::masked_fill": 1, "aten::where": 0, "aten::bitwise_not": 0, "aten::masked_select": 1,
         "aten::masked_scatter": 1}
SELF = frozenset(
    f"aten::{name}"
    for name in (
        "to", "detach", "alias", "cpu", "cuda", "dropout", "feature_dropout", "alpha_dropout", "float", "double",
        "half", "type_as", "requires_grad_", "pin_memory", "lift", "lift_fresh", "identity", "set_data",
    )
)  # fmt: skip
"""Operators that give their tensor itself where they have nothing to do."""

SHAPED = ("zeros", "ones", "full", "empty", "rand", "randn", "new_zeros", "new_ones", "new_full", "new_empty", "eye",
          "arange", "linspace", "logspace", "tril_indices", "triu_indices", "one_hot", "bincount", "fill_", "zero_",
          "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "hann_window",
          "hamming_window", "repeat_interleave")  # fmt: skip
"""Operators that make a constant as large as their arguments say."""

_MOST_ELEMENTS = LARGEST_CONSTANT // 4


GIVES_NONE = ("aten::_native_multi_head_attention",)
"""Operators that give None in a tensor's place where they are told to."""

NOT_COMPUTED = Unsupported("is a result that is not computed here", "remove the use of that result from the network")


class Missing:
    """Stands for a tensor that is not computed; `fault` says so, once it is used."""

    def __init__(self, fault: Unsupported) -> None:
        self.fault = fault


class Undecided(Missing):
    """Stands for a variable that the data decide and no tensor can be: not even whether it is None is known."""


class Retype(Exception):
    """An input of the network turns out to hold integers or booleans: the import begins anew with that type."""

    def __init__(self, name: str, dtype: DType) -> None:
        super().__init__(name)
        self.name = name
        self.dtype = dtype


class Operators:
    """The operators of one import; `records` holds what became of each node."""

    def __init__(self, file: str, builder: Builder, function: Function, version: int, weights: int = 0) -> None:
        self.file = file
        self.builder = builder
        self.function = function
        self.version = version
        self.records: list[NodeRecord] = []
        self.faults: list[Diagnostic] = []
        self._weights = weights
        self._computed = 0

    def value(self, tensor: Tensor) -> Value:
        """The value a tensor has now."""
        return tensor.read(self._convert)

    def call(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], node: str) -> Any:
        """What an operator gives. `node` is the name wanted for it. Raises Unsupported or Malformed for computation on
        numbers and lists; faults of nodes go into their records.
        """
        if name not in IDENTITIES:
            _check_present(args)
        at_once = self._at_once(name, args, kwargs)
        if at_once is not None:
            return at_once()
        record = self.begin(name, node)
        if len(self.records) > MOST_NODES:
            message = f"the network computes more than {MOST_NODES} nodes"
            raise error("E212", message, where=self.file, help="loops are unrolled: their trip counts must be small")
        if _holds_blocked([*args, *kwargs.values()]):
            known = self.is_known(name)
            record.status = "blocked" if known else "unsupported"
            record.reason = UNCONVERTED if known else "has no converter"
            return BLOCKED
        return self._attempt(name, args, kwargs, record)

    # -- nodes ---------------------------------------------------------------------------------------------------------
    def begin(self, name: str, node: str) -> NodeRecord:
        """The record of a decision of the network's data."""
        record = NodeRecord(self.builder.fresh_name(node), name, "", 0, ())
        self.records.append(record)
        self.locate(record)
        return record

    def locate(self, record: NodeRecord) -> None:
        """What is emitted from now on comes from a node."""
        self.builder.begin_node(Location.of(record.name, self.file), record.name)

    def mark(self) -> tuple[int, int]:
        """How far the import is, to go back to."""
        return len(self.records), len(self.faults)

    def rewind(self, mark: tuple[int, int]) -> None:
        """Forget what was reported since `mark`: that code is followed anew, or never runs."""
        records, faults = mark
        self.builder.release(*(record.name for record in self.records[records:]))
        del self.records[records:], self.faults[faults:]

    # -- answered at once ----------------------------------------------------------------------------------------------
    def _at_once(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[[], Any] | None:
        """The computation of an operator that makes no node; None for the others."""
        first = args[0] if args else None
        if first is BLOCKED or (name not in QUESTIONS and any(a is BLOCKED for a in args)):
            return None
        if name in QUESTIONS and not (isinstance(first, list | tuple | dict | str) and name in CONTAINERS):
            return lambda: _asked(self, name, args)
        if isinstance(first, list | tuple | dict | str) and name in CONTAINERS and not _is_list_of_tensors(name, first):
            return lambda: _plain(CONTAINERS[name], args, kwargs)
        if name in SCALARS and not any(isinstance(a, Tensor) for a in (*args, *kwargs.values())):
            return lambda: _plain(SCALARS[name], args, kwargs)
        if name in IDENTITIES:
            return lambda: (first is args[1]) == (name == "aten::__is__")
        return None

    # -- calls of the table --------------------------------------------------------------------------------------------
    def _attempt(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], record: NodeRecord) -> Any:
        last = self.function.body.last
        try:
            return self._node(name, args, kwargs, record.name)
        except Unsupported as fault:
            record.status, record.reason, record.remedy = "unsupported", fault.reason, fault.remedy
        except Malformed as fault:
            record.status, record.reason, record.remedy = "malformed", fault.reason, fault.remedy
        except CompilerError as fault:
            record.status = "malformed"
            record.reason = "; ".join(d.message for d in fault.diagnostics)
            record.remedy = fault.diagnostics[0].help
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as fault:
            record.status, record.remedy = "malformed", REPORT
            record.reason = f"its arguments do not fit together ({type(fault).__name__}: {fault})"
        finally:
            self.builder.name_results(last.next if last is not None else self.function.body.first)
        return BLOCKED

    def _node(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], node: str) -> Any:
        name, args, kwargs = self._of_today(name, args, kwargs)
        self._check_sizes(name, args)
        self._check_inputs(name if name.endswith("__") else name.removesuffix("_"), args)
        first = args[0] if args else None
        in_place = name.endswith("_") and not name.endswith("__") and name not in SELF
        if isinstance(first, Tensor) and in_place:
            return self._write(name, first, args, kwargs, node)
        answer = self._convert(name, [self.plain(a) for a in args], {k: self.plain(v) for k, v in kwargs.items()})
        self._name(answer, node)
        if isinstance(first, Tensor):
            if name in VIEWS or (name == "aten::contiguous" and first.is_dense):
                return self._views(name, first, args, kwargs, answer)
            if name in SELF and answer is self.value(first):
                return first
        return self._results(name, answer)

    def _convert(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        answer = convert(name, "", self.builder, args, kwargs)
        for item in answer if isinstance(answer, list | tuple) else (answer,):
            if isinstance(item, Constant):
                self._count(item)
        return answer

    def _count(self, constant: Constant) -> None:
        """Keep what is computed at import within bounds."""
        self._computed += constant.data.nbytes
        if constant.data.nbytes > LARGEST_CONSTANT and constant.data.base is None:
            raise Malformed(f"computes a constant of {constant.data.nbytes} bytes")
        if self._computed > MOST_COMPUTED + 8 * self._weights:
            raise Malformed("computes too much from constants alone")

    def _of_today(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[str, Sequence[Any], Mapping[str, Any]]:
        """An operator of an old archive as today's: its meaning changed with the version of the file format."""
        plain = name.removesuffix("_")
        if name == "prim::data":
            return "aten::detach", args, kwargs
        divides = plain == "aten::div" and self.version < 4 and "rounding_mode" not in kwargs and len(args) == 2
        if divides and not any(self._is_real(a) for a in args):
            return name, args, {"rounding_mode": "trunc"}
        if name == "aten::full" and self.version < 5 and kwargs.get("dtype") is None and len(args) > 1:
            return name, [args[0], float(args[1]), *args[2:]], kwargs
        if name in ("aten::linspace", "aten::logspace") and self.version < 9 and len(args) > 2 and args[2] is None:
            return name, [*args[:2], 100, *args[3:]], kwargs
        return name, args, kwargs

    def _is_real(self, x: Any) -> bool:
        return self.value(x).type.dtype.is_float if isinstance(x, Tensor) else isinstance(x, float)

    def _check_sizes(self, name: str, args: Sequence[Any]) -> None:
        """Refuse a constant that would not fit memory before it is made."""
        if name.removeprefix("aten::") not in SHAPED:
            return
        sizes = next((a for a in args if isinstance(a, list)), [a for a in args if isinstance(a, int)])
        count = 1
        for size in sizes:
            count *= max(abs(size), 1) if isinstance(size, int) else 1
        if args and isinstance(args[0], Tensor) and not name.startswith("aten::new_"):
            count = max(count, self.value(args[0]).type.elements)
        if count > _MOST_ELEMENTS:
            raise Malformed(f"makes a tensor of {count} elements")

    def _check_inputs(self, name: str, args: Sequence[Any]) -> None:
        """Find inputs of the network whose use shows that they hold integers or booleans."""
        for table, dtype in ((INDICES, DType.I64), (MASKS, DType.BOOL)):
            place = table.get(name)
            if place is None or place >= len(args):
                continue
            for item in args[place] if isinstance(args[place], list) else [args[place]]:
                source = _source(self.value(item)) if isinstance(item, Tensor) else None
                if isinstance(source, Argument) and source.type.dtype.is_float:
                    raise Retype(source.name, dtype)

    # -- tensors and values --------------------------------------------------------------------------------------------
    def plain(self, x: Any, depth: int = 0) -> Any:
        """An argument as the aten table takes it: tensors as values."""
        if isinstance(x, Tensor):
            return self.value(x)
        if isinstance(x, list | tuple):
            _check_present(x)
            if depth > 3:
                raise Malformed("takes lists in lists in lists")
            return [self.plain(item, depth + 1) for item in x]
        return x

    def is_known(self, name: str) -> bool:
        """Whether there is a way to convert an operator."""
        at_once = name in QUESTIONS or name in SCALARS or name in CONTAINERS or name in IDENTITIES
        return at_once or name in ("aten::copy_", "aten::fill_", "aten::zero_", "prim::data") or bool(
            find_converter(name)
        )  # fmt: skip

    def refuse(self, name: str, node: str) -> None:
        """Record an operator of code that is not followed, which has no converter."""
        record = NodeRecord(self.builder.fresh_name(node), name, "", 0, (), "unsupported", "has no converter")
        self.records.append(record)

    def wrapped(self, x: Any) -> Any:
        """An answer of the table as the program sees it: values as tensors."""
        if isinstance(x, Value):
            return Tensor.of(x)
        if isinstance(x, list | tuple):
            return type(x)(self.wrapped(item) for item in x)
        return x

    def _results(self, name: str, answer: Any) -> Any:
        """The answer of the table for a node; results that a row does not give are missing."""
        found = self.wrapped(answer)
        if not isinstance(found, tuple) or name in GIVES_NONE:
            return found
        return tuple(Missing(NOT_COMPUTED) if item is None else item for item in found)

    def _name(self, answer: Any, node: str) -> None:
        """Call the results of a node after it, those that have no name yet."""
        results = [v for v in (answer if isinstance(answer, list | tuple) else (answer,)) if isinstance(v, Result)]
        for number, result in enumerate(results):
            if not result.name:
                result.name = node if number == 0 else self.builder.fresh_name(f"{node}.{number}")

    def _views(self, name: str, first: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any], answer: Any) -> Any:
        if name in ("aten::reshape", "aten::flatten", "aten::reshape_as") and not first.is_dense:
            return self.wrapped(answer)
        rest = tuple(self.plain(a) for a in args[1:])
        named = {k: self.plain(v) for k, v in kwargs.items()}
        if isinstance(answer, Value):
            return first.view(Step(name, rest, named), answer)
        return [first.view(Step(name, rest, named, i), v) for i, v in enumerate(answer)]

    # -- writing -------------------------------------------------------------------------------------------------------
    def _write(self, name: str, target: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any], node: str) -> Any:
        """An operator that writes in place: its result becomes the tensor's elements."""
        before = self.value(target)
        rest = [self.plain(a) for a in args[1:]]
        if name == "aten::copy_":
            value = self._fitted(rest[0], before)
        elif name in ("aten::fill_", "aten::zero_"):
            value = self._fitted(rest[0] if name == "aten::fill_" else 0, before)
        elif name.removesuffix("_") in VIEWS:
            return self._rebind(name.removesuffix("_"), target, rest, kwargs)
        else:
            named = {k: self.plain(v) for k, v in kwargs.items()}
            value = self._fitted(self._convert(name.removesuffix("_"), [before, *rest], named), before)
        self._name(value, node)
        target.write(value, self.builder, self._convert)
        return target

    def _rebind(self, name: str, target: Tensor, rest: list[Any], kwargs: Mapping[str, Any]) -> Tensor:
        """`unsqueeze_` and the like: the variable itself becomes a view."""
        value = self._convert(name, [self.value(target), *rest], kwargs)
        view = target.view(Step(name, tuple(rest), dict(kwargs)), value)
        target.steps, target._value, target._version = view.steps, view._value, view._version
        return target

    def _fitted(self, x: Any, like: Value) -> Value:
        """x broadcast and cast to the shape and element type of `like`."""
        if not isinstance(x, Value):
            shape, dtype = like.type.static_shape, like.type.dtype.numpy
            return self.builder.constant(np.full(shape, x, dtype))
        if like.type.quant is None and x.type.dtype is not like.type.dtype:
            x = self.builder.emit(math_ops.Cast, x, to=like.type.dtype)[0]
        if x.type.shape != like.type.shape:
            x = self.builder.emit(tensor_ops.BroadcastTo, x, shape=like.type.static_shape)[0]
        return x

    # -- numbers of tensors --------------------------------------------------------------------------------------------
    def number(self, x: Any, kind: type) -> Any:
        """`int(x)`, `float(x)`, `bool(x)`. Of a tensor that depends on data, a tensor of rank 0."""
        if x is BLOCKED:
            return BLOCKED
        _check_present([x])
        if not isinstance(x, Tensor):
            return _plain(kind, [x], {})
        value = self.value(x)
        if isinstance(value, Constant):
            if value.data.size != 1:
                raise Malformed(f"a tensor of {value.data.size} elements is taken for a number")
            return bounded(kind(value.data.reshape(()).item()))
        if value.type.is_static and value.type.elements != 1:
            raise Malformed(f"a tensor of {value.type.elements} elements is taken for a number")
        value = value if not value.type.rank else self.builder.emit(tensor_ops.Reshape, value, shape=())[0]
        dtype = NUMBERS[kind]
        return Tensor.of(value if value.type.dtype is dtype else self.builder.emit(math_ops.Cast, value, to=dtype)[0])


def _source(value: Value) -> Value:
    """What a value was before it was only moved about."""
    moves = ("tensor.reshape", "tensor.slice", "tensor.transpose", "tensor.broadcast_to")
    while isinstance(value, Result) and value.op.op_name in moves:
        value = value.op.inputs[0]
    return value


DECIDES = "keep the data in tensors, or do this part in the host program"
NUMBERS = {bool: DType.BOOL, int: DType.I64, float: DType.F32}
"""Python's numbers → the element types of tensors that stand for them."""

IDENTITIES = ("aten::__is__", "aten::__isnot__")


def _plain(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    try:
        return bounded(function(*args, **kwargs))
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as fault:
        raise Malformed(f"its arguments do not fit together ({type(fault).__name__}: {fault})") from None


def _asked(o: Operators, name: str, args: Sequence[Any]) -> Any:
    """The answer to a question about a tensor."""
    try:
        return QUESTIONS[name](o, *args)
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as fault:
        raise Malformed(f"{name}: its arguments do not fit together ({type(fault).__name__}: {fault})") from None


def _is_list_of_tensors(name: str, items: Any) -> bool:
    """Whether an operator on lists is meant for the tensors in one (`aten::sum` of a list of numbers is not)."""
    if name in ("aten::index", "aten::sum", "aten::any", "aten::all", "prim::max", "prim::min"):
        return any(isinstance(item, Tensor) for item in items)
    return False


def _check_present(args: Sequence[Any]) -> None:
    """Raise Unsupported where one of them is missing."""
    for x in args:
        if isinstance(x, Missing):
            raise Unsupported(f"takes what {x.fault.reason}", x.fault.remedy)


def _holds_blocked(args: Sequence[Any]) -> bool:
    return any(a is BLOCKED or (isinstance(a, list | tuple) and any(i is BLOCKED for i in a)) for a in args)


# -- questions about a tensor ------------------------------------------------------------------------------------------
def _size(o: Operators, x: Tensor, axis: int | None = None) -> Any:
    value = o.value(x)
    if axis is not None and not -value.type.rank <= axis < value.type.rank:
        raise Malformed(f"asks for dimension {axis} of a tensor of {value.type.rank}")
    if not value.type.is_static:
        return o.wrapped(convert("aten::size", "", o.builder, [value, axis]))
    shape = value.type.static_shape
    return list(shape) if axis is None else shape[axis]


def _len(o: Operators, x: Any) -> Any:
    if not isinstance(x, Tensor):
        return _plain(len, [x], {})
    if not o.value(x).type.rank:
        raise Malformed("asks for the length of a tensor without dimensions")
    return _size(o, x, 0)


def _dtype(o: Operators, x: Tensor) -> int:
    type = o.value(x).type
    if type.quant is not None:
        return next(code for code, storage in dtypes.QUANTISED.items() if storage is type.dtype)
    return dtypes.code_of(type.dtype)


def _item(o: Operators, x: Tensor) -> Any:
    dtype = o.value(x).type.dtype
    return o.number(x, bool if dtype is DType.BOOL else float if dtype.is_float else int)


def _tolist(o: Operators, x: Tensor, *_: Any) -> Any:
    value = o.value(x)
    if not isinstance(value, Constant):
        raise Unsupported("makes a list of a tensor's data", DECIDES)
    return bounded(value.data.tolist())


def _strides(o: Operators, x: Tensor, axis: int | None = None) -> Any:
    shape = o.value(x).type.static_shape
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    strides = strides[: len(shape)]
    return strides if axis is None else strides[axis]


def _raise(o: Operators, *args: Any) -> Any:
    raise Refusal(str(args[0]) if args else "")


class Refusal(Exception):
    """The network's own code raises an exception for the inputs it was given; `where` it does."""

    where = ""


def _nothing(o: Operators, *args: Any) -> None:
    return None


QUESTIONS: dict[str, Callable[..., Any]] = {
    "aten::size": _size, "aten::dim": lambda o, x: o.value(x).type.rank,
    "aten::ndimension": lambda o, x: o.value(x).type.rank,
    "aten::len": _len, "aten::numel": lambda o, x: o.value(x).type.elements, "prim::dtype": _dtype,
    "aten::dtype": _dtype, "aten::stride": _strides, "aten::item": _item, "prim::tolist": _tolist,
    "aten::tolist": _tolist, "prim::device": lambda o, *x: "cpu", "aten::device": lambda o, *x: "cpu",
    "prim::layout": lambda o, x: 0, "prim::is_cuda": lambda o, x: False, "prim::is_cpu": lambda o, x: True,
    "prim::is_quantized": lambda o, x: o.value(x).type.quant is not None, "prim::is_sparse": lambda o, x: False,
    "prim::is_mkldnn": lambda o, x: False, "prim::is_mps": lambda o, x: False, "prim::is_xpu": lambda o, x: False,
    "prim::is_nested": lambda o, x: False, "prim::is_meta": lambda o, x: False, "prim::requires_grad": lambda o, x:
    False, "aten::is_contiguous": lambda o, *x: True, "aten::get_device": lambda o, x: -1,
    "aten::is_grad_enabled": lambda o: False, "aten::set_grad_enabled": _nothing, "aten::is_autocast_enabled":
    lambda o: False, "aten::is_autocast_cpu_enabled": lambda o: False, "aten::manual_seed": _nothing,
    "prim::index": lambda o, x: 0, "prim::type": lambda o, x: "cpu", "prim::RaiseException": _raise,
    "aten::warn": _nothing, "prim::Print": _nothing, "aten::_get_tracing_state": lambda o: False, "prim::grad":
    _nothing, "prim::shape": _size, "aten::nelement": lambda o, x: o.value(x).type.elements,
    "aten::is_leaf": lambda o, x: True, "prim::itemsize": lambda o, x: o.value(x).type.dtype.size,
    "aten::element_size": lambda o, x: o.value(x).type.dtype.size, "prim::is_vulkan": lambda o, x: False,
}  # fmt: skip
"""Operators that are questions, or have no meaning here; they make no node."""


def node_name(path: str, hint: str, operator: str) -> str:
    """The name of a node: its module's path and the variable it goes to, or the operator where that has no name."""
    plain = operator.rpartition("::")[2].strip("_") or "node"
    word = plain if not hint or re.fullmatch(r"_\d+", hint) else hint
    return f"{path}.{word}" if path else word
