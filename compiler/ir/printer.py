"""Text of the IR: the same module gives the same bytes on every machine, and `parser` reads them back.

Every op prints in one uniform syntax that follows from its declaration, so that no op has a printer of its own. Names
are made unique per function while printing, quantised types become aliases numbered by first use, and constants appear
as a content hash unless they are small or `inline_constants` asks for their values. Nothing here changes the module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from compiler.ir.core import Argument, Block, Constant, Function, Module, Op, Value
from compiler.ir.define import same_attribute
from compiler.ir.location import Location
from compiler.ir.types import DType, QuantType, TensorType

HEADER = "// mluc ir 1"
INLINE_ELEMENTS = 16
"""Constants of at most this many elements print their values even where large ones print a hash."""

DECIMAL_ELEMENTS = 256
"""With `inline_constants`, longer constants print as bytes in hex: shorter text, and quick to read back."""

HASH_DIGITS = 16
TERMINATORS = {"graph.return": "return", "graph.yield": "yield"}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.$-]*").fullmatch
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*").fullmatch
_SURROGATE = re.compile("[\ud800-\udfff]").search


def print_module(module: Module, *, inline_constants: bool = False) -> str:
    """The whole module as text, ending with a newline."""
    printer = _Printer(_source_of(module), inline_constants, use_aliases=True)
    constants = [printer.constant(c) for c in module.constants.values()]
    functions = [printer.function(f) for f in module.functions.values()]
    lines = [HEADER]
    if module.attributes:
        lines.append(f"module {printer.attributes(module.attributes)}")
    lines += [f"{alias} = {printer.quant(quant)}" for quant, alias in printer.aliases.items()]
    lines += constants
    lines += functions
    return "\n".join(lines) + "\n"


def print_op(op: Op, *, regions: bool = True, location: bool = True) -> str:
    """One op as text, its quantised types written out; `regions=False` shows `{ ... }` for the inside of a kernel."""
    printer = _Printer(_source_of(op.module), False, use_aliases=False)
    names = _names_around(op)
    if regions and op.regions:
        return "\n".join(printer.op_lines(op, names, "", location))
    return printer.one_line(op, names) + (printer.location_suffix(op.location) if location else "")


def op_with_spans(op: Op, names: Mapping[Value, str]) -> tuple[str, list[tuple[int, int]]]:
    """The op on one line without its location, and where each printed operand slot stands in it.

    `names` is what `unique_names` gives for the op's function.
    """
    printer = _Printer(_source_of(op.module), False, use_aliases=False)
    start = len(printer.left_side(op, names))
    spans = []
    for operand in printer.operands(op, names):
        spans.append((start, start + len(operand)))
        start += len(operand) + 2
    return printer.one_line(op, names), spans


def type_text(type: TensorType) -> str:
    """A type, its quantisation written out."""
    return _Printer("", False, use_aliases=False).type(type)


def is_inline(constant: Constant) -> bool:
    """Whether a constant prints its values even without `inline_constants`."""
    return constant.data.size <= INLINE_ELEMENTS or _is_splat(constant.data)


class _Printer:
    """State of one printing: text of each type seen, aliases given so far, options."""

    def __init__(self, source: str, inline_constants: bool, *, use_aliases: bool) -> None:
        self.source = source
        self.inline_constants = inline_constants
        self.use_aliases = use_aliases
        self.types: dict[TensorType, str] = {}
        self.aliases: dict[QuantType, str] = {}
        self.counts = {"#act": 0, "#w": 0}
        self.locations: dict[Location, str] = {}

    # -- types -------------------------------------------------------------------------------------------------------
    def type(self, type: TensorType) -> str:
        text = self.types.get(type)
        if text is None:
            dims = "".join("?x" if d is None else f"{d}x" for d in type.shape)
            quant = f", {self.alias(type.quant)}" if type.quant is not None else ""
            text = self.types[type] = f"tensor<{dims}{type.dtype.value}{quant}>"
        return text

    def type_list(self, values: Iterable[Value]) -> str:
        return ", ".join([self.type(v.type) for v in values])

    def alias(self, quant: QuantType) -> str:
        if not self.use_aliases:
            return self.quant(quant)
        alias = self.aliases.get(quant)
        if alias is None:
            prefix = "#act" if quant.axis is None else "#w"
            alias = self.aliases[quant] = f"{prefix}{self.counts[prefix]}"
            self.counts[prefix] += 1
        return alias

    def quant(self, quant: QuantType) -> str:
        fields = [quant.storage.value, f"position = {quant.position}"]
        if quant.axis is not None:
            fields.append(f"axis = {quant.axis}")
        if quant.params is not None:
            fields.append(f"params = @{name_text(quant.params)}")
        if quant.scale != 1.0 or quant.params is None:
            fields.append(f"scale = {_single(quant.scale)}")
        if quant.zero_point:
            fields.append(f"zero_point = {quant.zero_point}")
        if quant.step is not None:
            fields.append(f"step = {_single(quant.step)}")
        return f"quant<{', '.join(fields)}>"

    # -- constants ---------------------------------------------------------------------------------------------------
    def constant(self, constant: Constant) -> str:
        data = constant.data
        if is_inline(constant) or (self.inline_constants and data.size <= DECIMAL_ELEMENTS):
            value = dense_text(data)
        elif self.inline_constants:
            value = f"hex<{np.ascontiguousarray(data).tobytes().hex()}>"
        else:
            value = f"blob<sha256:{constant.hash[:HASH_DIGITS]}, {data.nbytes} B>"
        return f"const @{name_text(constant.name)} : {self.type(constant.type)} = {value}"

    # -- functions and ops -------------------------------------------------------------------------------------------
    def function(self, function: Function) -> str:
        names = unique_names(function)
        last = function.body.last
        outputs = last.inputs if last is not None and last.op_name == "graph.return" else []
        arguments = self.arguments(function.body, names)
        head = f"func @{name_text(function.name)}({arguments}) -> ({self.type_list(outputs)})"
        if function.attributes:
            head += f" attributes {self.attributes(function.attributes)}"
        lines = [head + " {"]
        for op in function.body:
            lines += self.op_lines(op, names, "  ")
        lines.append("}")
        return "\n".join(lines)

    def arguments(self, block: Block, names: Mapping[Value, str]) -> str:
        return ", ".join([self.argument(a, names) for a in block.arguments])

    def argument(self, argument: Argument, names: Mapping[Value, str]) -> str:
        attributes = f" {self.attributes(argument.attributes)}" if argument.attributes else ""
        return f"{value_text(argument, names)}: {self.type(argument.type)}{attributes}"

    def op_lines(self, op: Op, names: Mapping[Value, str], indent: str, location: bool = True) -> list[str]:
        """The lines of an op; several where it holds regions."""
        tail = self.result_types(op) + (self.location_suffix(op.location) if location else "")
        if not op.regions:
            return [f"{indent}{self.head(op, names)}{tail}"]
        lines = [f"{indent}{self.head(op, names)} {{"]
        for number, region in enumerate(op.regions):
            if number:
                lines.append(indent + "} {")
            lines.append(f"{indent}  ({self.arguments(region.block, names)}):")
            for inner in region.block:
                lines += self.op_lines(inner, names, indent + "    ", location)
        lines.append(f"{indent}}}{tail}")
        return lines

    def one_line(self, op: Op, names: Mapping[Value, str]) -> str:
        """The op without location, regions shown as `{ ... }`."""
        return self.head(op, names) + " { ... }" * len(op.regions) + self.result_types(op)

    def left_side(self, op: Op, names: Mapping[Value, str]) -> str:
        """Results and name, up to where the operands begin."""
        name = op.signature.name
        name = TERMINATORS.get(name, name)
        if op.results:
            return f"{', '.join([value_text(r, names) for r in op.results])} = {name} "
        return name + " "

    def operands(self, op: Op, names: Mapping[Value, str]) -> list[str]:
        """Text of the operand slots. Trailing absent ones are omitted, in the middle they are `_`."""
        slots = op._operands
        count = len(slots)
        if len(slots) <= len(op.signature.operands):
            while count and slots[count - 1] is None:
                count -= 1
        return ["_" if v is None else value_text(v, names) for v in slots[:count]]

    def head(self, op: Op, names: Mapping[Value, str]) -> str:
        """The op without regions, result types and location."""
        text = self.left_side(op, names) + ", ".join(self.operands(op, names))
        attributes = self.attributes_of(op) if op.attributes else ""
        return f"{text.rstrip()} {attributes}" if attributes else text.rstrip()

    def result_types(self, op: Op) -> str:
        return f" : {self.type_list(op.results)}" if op.results else ""

    def attributes_of(self, op: Op) -> str:
        """Declared attributes that differ from their default, in declared order, then the extra ones by name."""
        declared = op.signature.attributes
        shown = [(k, op.attributes[k]) for k, spec in declared.items()
                 if k in op.attributes and not same_attribute(op.attributes[k], spec.default)]  # fmt: skip
        shown += [(k, op.attributes[k]) for k in sorted(op.attributes) if k not in declared]
        return self.attributes(dict(shown)) if shown else ""

    def attributes(self, attributes: Mapping[str, Any]) -> str:
        return attribute_text(attributes)

    def location_suffix(self, location: Location) -> str:
        if not location.places:
            return ""
        text = self.locations.get(location)
        if text is None:
            places = [
                quoted(node) if file == self.source else f"{quoted(file)}:{quoted(node)}"
                for file, node in location.places
            ]
            text = self.locations[location] = f"  loc({', '.join(places)})"
        return text


# -- names -----------------------------------------------------------------------------------------------------------
def quoted(text: str) -> str:
    """A string literal; characters outside ASCII stay readable."""
    return json.dumps(text, ensure_ascii=_SURROGATE(text) is not None)


def name_text(name: str) -> str:
    """A name as it stands after `%` or `@`."""
    return name if _PLAIN_NAME(name) else quoted(name)


def value_text(value: Value, names: Mapping[Value, str]) -> str:
    text = names.get(value)
    if text is not None:
        return text
    return f"{'@' if isinstance(value, Constant) else '%'}{name_text(value.name)}"


def unique_names(function: Function) -> dict[Value, str]:
    """Printed text of every value a function defines. The first value of a name keeps it; others get a suffix."""
    return {value: f"%{name_text(name)}" for value, name in _told_apart(function).items()}


def tell_names_apart(module: Module) -> None:
    """Give every value the name it is printed with, so that a module and what its text parses to are the same."""
    for function in module.functions.values():
        for value, name in _told_apart(function).items():
            value.name = name


def _told_apart(function: Function) -> dict[Value, str]:
    values = _values_of(function)
    taken = {v.name for v in values}
    used: set[str] = set()
    suffixes: dict[str, int] = {}
    names: dict[Value, str] = {}
    for value in values:
        name = value.name
        if not name or name in used:
            base = f"{name}_" if name else "v"
            number = suffixes.get(base, 0 if not name else 1)
            while f"{base}{number}" in taken:
                number += 1
            suffixes[base] = number + 1
            name = f"{base}{number}"
            taken.add(name)
        used.add(name)
        names[value] = name
    return names


def _values_of(function: Function) -> list[Value]:
    values: list[Value] = list(function.arguments)
    stack = [iter(function.body)]
    while stack:
        op = next(stack[-1], None)
        if op is None:
            stack.pop()
            continue
        values += op.results
        for region in op.regions:
            values += region.block.arguments
            stack.append(iter(region.block))
    return values


def _names_around(op: Op) -> dict[Value, str]:
    function = op.function
    return unique_names(function) if function is not None else {}


def _source_of(module: Module | None) -> str:
    source = module.attributes.get("source", "") if module is not None else ""
    return source if isinstance(source, str) else ""


# -- attributes ------------------------------------------------------------------------------------------------------
def attribute_text(value: Any) -> str:
    """An attribute value as text. What IR text cannot hold shows as its type's name (the verifier reports it)."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, DType):
        return value.value
    if isinstance(value, list | tuple):
        return f"[{', '.join([attribute_text(v) for v in value])}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join([f"{_key_text(str(k))} = {attribute_text(v)}" for k, v in value.items()]) + "}"
    return quoted(f"<{type(value).__name__}>")


def _key_text(key: str) -> str:
    return key if _PLAIN_KEY(key) else quoted(key)


# -- numbers ---------------------------------------------------------------------------------------------------------
def _single(value: float) -> str:
    """Shortest text that reads back as the same fp32 number."""
    return str(np.float32(value))


def _is_splat(data: np.ndarray) -> bool:
    """Whether all elements have the same bits."""
    if data.size < 2:
        return data.size == 1
    first = data[(0,) * data.ndim].tobytes()
    if any(v.tobytes() != first for v in data.flat[1:INLINE_ELEMENTS]):
        return False
    bits = np.ascontiguousarray(data).reshape(-1).view(f"u{data.itemsize}")
    return bool((bits == bits[0]).all())


def dense_text(data: np.ndarray) -> str:
    """`dense<…>` with the elements in row-major order, or one element where all are the same."""
    if data.size == 0:
        return "dense<>"
    flat = np.ascontiguousarray(data).reshape(-1)
    if _is_splat(data):
        return f"dense<{_element_texts(flat[:1])[0]}>"
    return f"dense<[{', '.join(_element_texts(flat))}]>"


def _element_texts(flat: np.ndarray) -> Sequence[str]:
    if flat.dtype == np.bool_:
        return ["true" if v else "false" for v in flat.tolist()]
    if flat.dtype.kind in "iu":
        return [str(v) for v in flat.tolist()]
    texts = [_float_text(v) for v in flat]
    bits = flat.view(f"u{flat.itemsize}").tolist()
    return [
        text if _reads_back(text, flat.dtype, b) else f"0x{b:0{2 * flat.itemsize}x}"
        for text, b in zip(texts, bits, strict=True)
    ]


def _float_text(value: Any) -> str:
    if value.dtype.kind == "f":
        return str(value)
    exact = float(value)
    for digits in range(1, 7):
        text = f"{exact:.{digits}g}"
        if type(value)(float(text)) == value:
            return text if set(text) & set(".en") else text + ".0"
    return str(exact)


def _reads_back(text: str, dtype: np.dtype, bits: int) -> bool:
    with np.errstate(over="ignore"):
        again = np.array([float(text)]).astype(dtype)
    return int(again.view(f"u{dtype.itemsize}")[0]) == bits
