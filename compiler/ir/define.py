"""Declaring an op once: its operands, attributes, results and regions.

`@op("nn.conv2d")` reads the `operand()`, `attr()`, `result()` and `region()` fields of a class and makes of them the
constructor, typed access, normalisation of attributes, the printer's and parser's knowledge, the checks every op gets
for free, and the manual page. Families of ops are found lazily by prefix through `FAMILIES`, so that IR text of a
target's level parses without anyone importing the target first.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from compiler.errors import CompilerError, Diagnostic, did_you_mean, error
from compiler.ir.core import Op, Region, Result, Value
from compiler.ir.types import DType, TensorType

FAMILIES = {
    "nn": "compiler.ops.nn", "math": "compiler.ops.math", "tensor": "compiler.ops.tensor",
    "reduce": "compiler.ops.reduce", "quant": "compiler.ops.quant", "graph": "compiler.ops.graph",
    "mlu": "targets.mlu220.ops",
}  # fmt: skip
"""Prefix of op names → module that declares the family. Data, not an import: the module is loaded when first needed."""

OPS: dict[str, type[Op]] = {}

MISSING: Any = object()


# -- attribute kinds -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Kind:
    """A kind of attribute: its name in messages and what normalises a value or raises ValueError or TypeError."""

    name: str
    normalize: Callable[[Any], Any]


def _integer(value: Any) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise ValueError
    return int(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise ValueError
    return bool(value)


def _number(value: Any) -> float:
    if isinstance(value, bool | np.bool_ | str | bytes):
        raise ValueError
    return float(value)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _tuple(element: Callable[[Any], Any], length: int | None) -> Callable[[Any], tuple]:
    def normalize(value: Any) -> tuple:
        items = tuple(element(v) for v in value)
        if length is not None and len(items) != length:
            raise ValueError
        return items

    return normalize


def plain(value: Any) -> Any:
    """Any attribute value in its normal form: tuples for sequences, Python numbers for NumPy's, dicts kept in order."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return tuple(plain(v) for v in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bool | int | float | str | DType):
        return value
    raise ValueError(f"{type(value).__name__} cannot be an attribute")


def same_attribute(a: Any, b: Any) -> bool:
    """Whether two attribute values are the same to the bit: 0.0 and -0.0, 1 and 1.0 and true differ, nan equals nan."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a.hex() == b.hex()
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_attribute, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_attribute(v, b[k]) for k, v in a.items())
    return bool(a == b)


def _dtype(value: Any) -> DType:
    return value if isinstance(value, DType) else DType(value)


Int = Kind("integer", _integer)
Float = Kind("number", _number)
Bool = Kind("boolean", _boolean)
Str = Kind("string", _string)
Ints = Kind("list of integers", _tuple(_integer, None))
IntPair = Kind("pair of integers", _tuple(_integer, 2))
IntQuad = Kind("four integers", _tuple(_integer, 4))
Floats = Kind("list of numbers", _tuple(_number, None))
DTypeKind = Kind("element type", _dtype)
Dict = Kind("dictionary", lambda v: plain(dict(v)))
Any_ = Kind("any", plain)

_BY_TYPE: dict[Any, Kind] = {int: Int, float: Float, bool: Bool, str: Str, DType: DTypeKind, dict: Dict}


def Choice(*words: str) -> Kind:  # noqa: N802 - reads as a kind in declarations
    """One of `words`."""

    def normalize(value: Any) -> str:
        if str(value) not in words:
            raise ValueError
        return str(value)

    return Kind("one of " + ", ".join(words), normalize)


# -- fields of a declaration -----------------------------------------------------------------------------------------
@dataclass
class operand:  # noqa: N801 - reads as a keyword in declarations
    """A value the op takes. `rank`: required rank or tuple of ranks; `dtypes`: allowed element types (None: any)."""

    rank: int | tuple[int, ...] | None = None
    dtypes: frozenset[DType] | tuple[DType, ...] | None = None
    optional: bool = False
    variadic: bool = False
    doc: str = ""
    name: str = ""
    index: int = 0

    def __get__(self, instance: Op | None, owner: type) -> Any:
        if instance is None:
            return self
        if self.variadic:
            return tuple(instance._operands[self.index :])
        return instance._operands[self.index]


@dataclass
class attr:  # noqa: N801
    """A compile-time parameter. `kind`: a `Kind`, or one of int, float, bool, str, DType, dict."""

    kind: Any
    default: Any = MISSING
    doc: str = ""
    name: str = ""

    def __get__(self, instance: Op | None, owner: type) -> Any:
        if instance is None:
            return self
        return instance.attributes.get(self.name, self.default)

    def __set__(self, instance: Op, value: Any) -> None:
        instance.set_attribute(self.name, value)


@dataclass
class result:  # noqa: N801
    """A value the op defines. At most one, the last, may be variadic."""

    variadic: bool = False
    doc: str = ""
    name: str = ""
    index: int = 0

    def __get__(self, instance: Op | None, owner: type) -> Any:
        if instance is None:
            return self
        if self.variadic:
            return tuple(instance.results[self.index :])
        return instance.results[self.index]


@dataclass
class region:  # noqa: N801
    """A region the op holds."""

    doc: str = ""
    name: str = ""
    index: int = 0

    def __get__(self, instance: Op | None, owner: type) -> Any:
        return self if instance is None else instance.regions[self.index]


# -- signature -------------------------------------------------------------------------------------------------------
@dataclass
class OpSignature:
    """What a declaration says, in the form the constructor, printer, parser, verifier and manual use."""

    name: str
    operands: tuple[operand, ...]
    attributes: dict[str, attr]
    results: tuple[result, ...]
    regions: tuple[region, ...]
    traits: frozenset[str]
    doc: str

    @property
    def variadic(self) -> bool:
        return bool(self.operands) and self.operands[-1].variadic

    def normalize(self, key: str, value: Any) -> Any:
        """The normal form of an attribute's value. Raises CompilerError when the value is not of its kind."""
        declared = self.attributes.get(key)
        kind = _BY_TYPE.get(declared.kind, declared.kind) if declared is not None else Any_
        try:
            return kind.normalize(value)
        except (TypeError, ValueError, OverflowError):
            raise error("E301", f"attribute {key!r} must be {kind.name}, not {value!r}", op=self.name) from None

    def fill(
        self, op: Op, operands: Sequence[Value | None], attributes: dict[str, Any], regions: Sequence[Region]
    ) -> None:
        """Give a new op its operands, attributes and regions, normalised. Raises CompilerError on misuse."""
        fixed = len(self.operands) - self.variadic
        if len(operands) < fixed:
            operands = [*operands, *[None] * (fixed - len(operands))]
        for key, value in attributes.items():
            if key not in self.attributes and not key.startswith("_"):
                raise error(
                    "E302", f"has no attribute {key!r}", op=self.name, help=did_you_mean(key, self.attributes)
                )
            if value is not None:
                normal = self.normalize(key, value)
                if key not in self.attributes or not same_attribute(normal, self.attributes[key].default):
                    op.attributes[key] = normal
        op.set_operands(operands)
        op.regions = list(regions)
        for r in op.regions:
            r.op = op

    def make_results(self, op: Op, types: Sequence[TensorType] | None, names: Sequence[str]) -> None:
        """Create the results: of `types` where given, else inferred after the checks. Faults raise CompilerError."""
        if types is None:
            try:
                types = self._checked_types(op)
            except BaseException:
                op.set_operands([])  # an op that was never made must not stay among the users of its operands
                raise
        op.results = [
            Result(op, i, t, names[i] if i < len(names) else "") for i, t in enumerate(types)
        ]

    def _checked_types(self, op: Op) -> Sequence[TensorType]:
        faults = [Diagnostic(code="E304", message=m, op=self.name, where=str(op.location)) for m in self.faults(op)]
        if faults:
            raise CompilerError(faults)
        return self.inferred(op)

    def inferred(self, op: Op) -> Sequence[TensorType]:
        """Result types by the op's rule. Raises CompilerError for ops that have none."""
        types = op.infer()
        if types is None:
            if not self.results:
                return ()
            raise error("E303", "has no shape rule: its result types must be given", op=self.name)
        return [types] if isinstance(types, TensorType) else list(types)

    def faults(self, op: Op) -> Iterator[str]:
        """Everything wrong with an op by its declaration and its own `check` (only if the declaration holds)."""
        found = False
        for message in self._declared_faults(op):
            found = True
            yield message
        if not found:
            yield from op.check()

    def _declared_faults(self, op: Op) -> Iterator[str]:
        fixed = len(self.operands) - self.variadic
        given = op.operands
        if len(given) < fixed or (len(given) > fixed and not self.variadic):
            yield f"takes {'at least ' if self.variadic else ''}{fixed} operands, not {len(given)}"
            return
        for spec in self.operands:
            values = given[spec.index :] if spec.variadic else given[spec.index : spec.index + 1]
            for value in values:
                if value is None:
                    if not spec.optional:
                        yield f"operand {spec.name!r} is missing"
                    continue
                ranks = (spec.rank,) if isinstance(spec.rank, int) else spec.rank
                if ranks is not None and value.type.rank not in ranks:
                    wanted = " or ".join(map(str, ranks))
                    yield f"operand {spec.name!r} must have rank {wanted}, not {value.type.rank}"
                if spec.dtypes is not None and value.type.dtype not in spec.dtypes:
                    wanted = ", ".join(sorted(str(d) for d in spec.dtypes))
                    yield f"operand {spec.name!r} must be one of {wanted}, not {value.type.dtype}"
        for name, parameter in self.attributes.items():
            if parameter.default is MISSING and name not in op.attributes:
                yield f"attribute {name!r} is missing"
        for name, value in op.attributes.items():
            if name not in self.attributes and not name.startswith("_"):
                yield f"has no attribute {name!r}"
            else:
                try:
                    self.normalize(name, value)
                except CompilerError as fault:
                    yield fault.diagnostics[0].message
        if len(op.regions) != len(self.regions):
            yield f"has {len(op.regions)} regions, declares {len(self.regions)}"


OpClass = TypeVar("OpClass", bound=type[Op])


def op(name: str, *, traits: Iterable[str] = ()) -> Callable[[OpClass], OpClass]:
    """Register a class as the op `name`. Traits: "commutative" (first two operands), "terminator"."""

    def decorate(cls: OpClass) -> OpClass:
        declared: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            declared.update(vars(base))
        fields: dict[type, list[Any]] = {operand: [], attr: [], result: [], region: []}
        for key, value in declared.items():
            if type(value) in fields and key == key.rstrip("_"):
                value.name = key
                if hasattr(value, "index"):
                    value.index = len(fields[type(value)])
                fields[type(value)].append(value)
                if type(value) is attr and value.default is not MISSING and value.default is not None:
                    value.default = _BY_TYPE.get(value.kind, value.kind).normalize(value.default)
        cls.signature = OpSignature(
            name=name,
            operands=tuple(fields[operand]),
            attributes={a.name: a for a in fields[attr]},
            results=tuple(fields[result]),
            regions=tuple(fields[region]),
            traits=frozenset(traits),
            doc=(cls.__doc__ or "").strip(),
        )
        if name in OPS and OPS[name].__qualname__ != cls.__qualname__:
            raise ValueError(f"op {name!r} is declared twice")
        OPS[name] = cls
        return cls

    return decorate


def find_op(name: str) -> type[Op] | None:
    """The class of an op by name, loading its family if needed; None if there is no such op."""
    if name not in OPS:
        family = FAMILIES.get(name.partition(".")[0])
        if family is not None:
            importlib.import_module(family)
    return OPS.get(name)


def load_all_families() -> dict[str, type[Op]]:
    """Every declared op, by name, sorted."""
    for family in FAMILIES.values():
        importlib.import_module(family)
    return dict(sorted(OPS.items()))
