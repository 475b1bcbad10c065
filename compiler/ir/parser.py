"""IR text to a module: the inverse of `printer`, with faults a person can act on.

A file is cut into statements at line ends outside brackets; each is parsed by the grammar of `ir.lark` and then
built. A statement that fails is reported and left out, and what it would have defined counts as defined, so that one
run reports every fault once. Types are taken as given; whether they are right is the verifier's question.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.errors import CompilerError, Diagnostic, did_you_mean
from compiler.ir.core import Block, Function, Module, Op, Region, Value
from compiler.ir.define import OPS, find_op, load_all_families
from compiler.ir.literals import (
    BlobIndex,
    LiteralError,
    read_data,
    read_integers,
    read_location,
    read_name,
    read_number,
    read_quant,
    read_string,
    read_type,
)
from compiler.ir.location import UNKNOWN, Location
from compiler.ir.statements import STRING, Fault, Statement, read_statements
from compiler.ir.types import DType, QuantType, TensorType

FORMAT = 1
MAX_SYNTAX_FAULTS = 50
MAX_NESTING = 50
_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None, "inf": float("inf"), "nan": float("nan")}
_WORDS |= {d.value: d for d in DType}
_SHORT_NAMES = {"return": "graph.return", "yield": "graph.yield"}


def parse_module(text: str, *, blobs: Mapping[str, np.ndarray] | None = None, file: str = "") -> Module:
    """The module that `text` describes.

    `blobs` maps sha256 hex digests (or prefixes of 8 digits or more) to the arrays of constants whose data is not in
    the text. Raises CompilerError with every fault found, in order of the text.
    """
    return _Builder(text, blobs, file).build()


@dataclass(slots=True)
class _Frame:
    """An open block: a function's body, or a region of an op whose close is still to come."""

    block: Block
    values: dict[str, Value] = field(default_factory=dict)
    op: Statement | None = None
    regions: list[Region] = field(default_factory=list)
    has_arguments: bool = False


class _Builder:
    """One parse: faults found so far, and what the names seen so far mean."""

    def __init__(self, text: str, blobs: Mapping[str, np.ndarray] | None, file: str) -> None:
        self.text = text
        self.blobs = BlobIndex(blobs) if blobs is not None else None
        self.file = file
        self.module = Module()
        self.source = ""
        self.aliases: dict[str, QuantType] = {}
        self.types: dict[str, TensorType] = {}
        self.locations: dict[str, Location] = {}
        self.faults: list[tuple[int, Diagnostic]] = []
        self.line_starts = [0, *(m.end() for m in re.finditer("\n", text))]
        self.frames: list[_Frame] = []
        self.defined: set[str] = set()
        self.broken: set[Value] = set()
        self.broken_names: set[str] = set()
        self.statements: list[Statement] = []
        self.position = 0

    def build(self) -> Module:
        self.check_header()
        self.read_text()
        for kinds in (("module",), ("alias",), ("constant",)):
            for statement in self.statements:
                if statement.kind in kinds:
                    self.guarded(statement)
        for position, statement in enumerate(self.statements):
            self.position = position
            if statement.kind not in ("module", "alias", "constant"):
                self.guarded(statement)
        if self.frames:
            last = self.statements[-1]
            message = "a block is still open at the end of the file"
            self.report(Fault(last.start, 1, message, "E319", "close it with }"))
        if self.faults:
            raise CompilerError([d for _, d in sorted(self.faults, key=lambda f: f[0])])
        return self.module

    def read_text(self) -> None:
        """Read the statements; a text that is not IR at all is given up after its first faults."""
        for item in read_statements(self.text):
            if isinstance(item, Fault):
                self.report(item)
            else:
                self.statements.append(item)
            if len(self.faults) > MAX_SYNTAX_FAULTS:
                raise CompilerError([d for _, d in self.faults])

    def guarded(self, statement: Statement) -> None:
        """Build one statement; a fault in it is reported and the next one goes on."""
        try:
            getattr(self, f"build_{statement.kind}")(statement)
        except Fault as fault:
            self.report(fault)

    # -- faults ------------------------------------------------------------------------------------------------------
    def report(self, fault: Fault) -> None:
        line = bisect.bisect_right(self.line_starts, fault.at) - 1
        begin = self.line_starts[line]
        end = self.text.find("\n", begin)
        source = self.text[begin : len(self.text) if end < 0 else end].rstrip("\r")
        column = fault.at - begin
        width = max(1, min(fault.width, len(source) - column))
        shift = column - 60 if len(source) > 200 and column > 60 else 0
        shown = ("…" if shift else "") + source[shift : shift + 200].replace("\t", " ")
        carets = " " * (column - shift + bool(shift)) + "^" * min(width, 200)
        where = f"{self.file or '<text>'}:{line + 1}:{column + 1}"
        self.faults.append((fault.at, Diagnostic(
            code=fault.code, message=fault.message, op=fault.op, where=where, excerpt=f"{shown}\n{carets}",
            help=fault.help,
        )))  # fmt: skip

    def fault(self, statement: Statement, token: Any, message: str, code: str, help: str = "", op: str = "") -> Fault:
        """A fault at a token of a statement (at its begin where there is no token)."""
        if token is None:
            return Fault(statement.start, statement.end - statement.start, message, code, help, op)
        return Fault(statement.start + token.start_pos, len(token), message, code, help, op)

    def literal(self, statement: Statement, token: Any, read: Any, *arguments: Any) -> Any:
        """What a token means, by a reader of `literals`."""
        try:
            return read(str(token), *arguments)
        except LiteralError as fault:
            raise self.fault(statement, token, fault.message, fault.code, fault.help) from None

    def check_header(self) -> None:
        header = re.match(r"\s*//\s*mluc ir (\d+)", self.text)
        if header is not None and int(header[1]) != FORMAT:
            message = f"this is IR text of format {header[1]}; this version reads format {FORMAT}"
            self.report(Fault(header.start(1), len(header[1]), message, "E319"))

    # -- module level ------------------------------------------------------------------------------------------------
    def build_module(self, statement: Statement) -> None:
        if statement.parts is None:
            return
        if self.module.attributes:
            raise self.fault(statement, None, "the module line is given twice", "E319")
        self.module.attributes = self.attributes(statement, statement.parts)
        source = self.module.attributes.get("source", "")
        self.source = source if isinstance(source, str) else ""

    def build_alias(self, statement: Statement) -> None:
        if statement.parts is None:
            self.note_broken(statement)
            return
        name, quant = statement.parts
        if name in self.aliases:
            raise self.fault(statement, name, f"alias {name} is defined twice", "E313")
        self.aliases[str(name)] = QuantType(DType.I8, 0)
        self.aliases[str(name)] = self.literal(statement, quant, read_quant)

    def build_constant(self, statement: Statement) -> None:
        if statement.parts is None:
            self.note_broken(statement)
            return
        name_token, type_token, data_token = statement.parts
        name = self.literal(statement, name_token, read_name)
        if name in self.module.constants:
            raise self.fault(statement, name_token, f"constant {name_token} is defined twice", "E313")
        self.broken_names.add(f"@{name}")
        type = self.type(statement, type_token)
        data = self.literal(statement, data_token, read_data, type, self.blobs)
        constant = self.module.add_constant(name, data, type.quant)
        self.broken_names.discard(f"@{name}")
        if data_token.startswith("blob<") and not constant.hash.startswith(data_token.split(":")[1].split(",")[0]):
            message = f"the data of {name_token} in the side file does not have the hash it is filed under"
            raise self.fault(statement, data_token, message, "E321", "the side file is damaged: write it again")

    def build_broken(self, statement: Statement) -> None:
        self.note_broken(statement)

    def note_broken(self, statement: Statement) -> None:
        """What a statement that could not be read would have defined is not reported as undefined later."""
        head = self.text[statement.start : statement.end].partition("=")[0]
        for mark, name in re.findall(rf"([%@#])({STRING}|[A-Za-z0-9_.$-]+)", head):
            self.broken_names.add(mark + (read_string(name) if name.startswith('"') else name))

    # -- functions ---------------------------------------------------------------------------------------------------
    def build_function(self, statement: Statement) -> None:
        if self.frames:
            message = "a function begins inside another block"
            self.report(self.fault(statement, None, message, "E319", "close it with }"))
            self.frames.clear()
        self.defined, self.broken = set(), set()
        self.broken_names = {name for name in self.broken_names if not name.startswith("%")}
        if statement.parts is None:
            self.note_broken(statement)
            self.frames.append(_Frame(Function("").body))
            return
        name_token, arguments, _, attributes = statement.parts
        function = Function(self.literal(statement, name_token, read_name))
        self.frames.append(_Frame(function.body, has_arguments=True))
        if function.name in self.module.functions:
            self.report(self.fault(statement, name_token, f"function {name_token} is defined twice", "E313"))
        else:
            self.module.add_function(function)
        self.add_arguments(statement, self.frames[-1], arguments)
        if attributes is not None:
            function.attributes = self.attributes(statement, attributes)

    def add_arguments(self, statement: Statement, frame: _Frame, arguments: list) -> None:
        for name_token, type_token, attributes in arguments:
            try:
                type = self.type(statement, type_token)
            except Fault as fault:
                self.report(fault)
                type = TensorType((), DType.F32)
            argument = frame.block.add_argument(type)
            self.define(statement, name_token, argument)
            if attributes is not None:
                argument.attributes = self.attributes(statement, attributes)

    def build_region(self, statement: Statement) -> None:
        frame = self.frames[-1] if self.frames else None
        if frame is None or frame.has_arguments or frame.block.first is not None:
            raise self.fault(statement, None, "region arguments stand where no region begins", "E319")
        frame.has_arguments = True
        if statement.parts is not None:
            self.add_arguments(statement, frame, statement.parts)

    def build_close(self, statement: Statement) -> None:
        if not self.frames:
            raise self.fault(statement, None, "nothing is open that this could close", "E319")
        frame = self.frames.pop()
        opens, types, location = statement.parts or (None, None, None)
        if frame.op is None:
            if types or location:
                self.report(self.fault(statement, None, "a function's } stands alone", "E319"))
            if isinstance(frame.block.owner, Function) and frame.block.owner.module is not None:
                self.check_result_types(frame.block.owner)
            return
        if opens:
            self.open_region(frame.op, frame.regions)
            return
        self.build_op(frame.op, regions=frame.regions, close=statement)

    def check_result_types(self, function: Function) -> None:
        """The types after `->` must be those the function returns."""
        statement = next(s for s in reversed(self.statements[: self.position]) if s.kind == "function")
        last = function.body.last
        if statement.parts is None or statement.parts[2] is None or last is None or last.op_name != "graph.return":
            return
        declared = [self.type(statement, t) for t in statement.parts[2]]
        returned = last.inputs
        if declared != [v.type for v in returned] and not self.broken.intersection(returned) and not self.faults:
            message = f"@{function.name} declares other result types than it returns"
            raise self.fault(statement, (statement.parts[2] or [statement.parts[0]])[0], message, "E318")

    # -- ops ---------------------------------------------------------------------------------------------------------
    def open_region(self, statement: Statement, regions: list[Region]) -> None:
        if len(self.frames) > MAX_NESTING:
            raise self.fault(statement, None, f"regions are nested more than {MAX_NESTING} deep", "E319")
        region = Region()
        self.frames.append(_Frame(region.block, op=statement, regions=[*regions, region]))

    def build_op(
        self, statement: Statement, regions: list[Region] | None = None, close: Statement | None = None
    ) -> None:
        if not self.frames:
            raise self.fault(statement, None, "an op stands outside any function", "E319", "open one: func @main() {")
        if statement.parts is None:
            self.note_broken(statement)
            if self.text[statement.start : statement.end].endswith("{") and close is None:
                self.open_region(statement, [])
            return
        names, name, operands, attributes, opens, types, location = statement.parts
        if opens and close is None:
            self.open_region(statement, [])
            return
        if close is not None:
            _, types, location = close.parts or (None, [], None)
        self.make_op(statement, close or statement, names or [], name, operands, attributes or [],
                     types, location, regions or [])  # fmt: skip

    def make_op(
        self, statement: Statement, tail: Statement, names: list, name: Any, operands: list, attributes: list,
        types: list | None, location: Any, regions: list[Region],
    ) -> None:  # fmt: skip
        """Make the op and define its results; when it cannot be made, its results count as defined but broken."""
        faults = len(self.faults)
        values = [self.operand(statement, token, name) for token in operands]
        result_types: list[TensorType] | None = None
        made: list[Value] = []
        try:
            result_types = [self.type(tail, t) for t in types] if types is not None else None
            cls = self.op_class(statement, name)
            given = self.checked_attributes(statement, cls, attributes)
            place = self.location(tail, location)
            declared = cls.signature.results
            if result_types is None and not names and (not declared or declared[-1].variadic):
                result_types = []
            if len(self.faults) == faults:
                self.check_counts(statement, name, names, result_types)
                if result_types is not None or not self.broken.intersection(v for v in values if v is not None):
                    op = cls(*values, types=result_types, location=place, regions=regions, **given)
                    self.frames[-1].block.append(op)
                    made = list(op.results)
                    if result_types is None and len(made) != len(names):
                        message = f"gives {len(made)} results, {len(names)} are named"
                        raise self.fault(statement, name, message, "E318", op=str(name))
        except Fault as fault:
            self.report(fault)
        except CompilerError as error:
            for d in error.diagnostics:
                self.report(self.fault(statement, name, d.message, d.code, d.help, op=str(name)))
        for index, token in enumerate(names):
            if index < len(made):
                self.define(statement, token, made[index])
            else:
                known = result_types is not None and index < len(result_types)
                value = Value(result_types[index] if known else TensorType((), DType.F32))  # type: ignore[index]
                self.broken.add(value)
                self.define(statement, token, value)

    def check_counts(self, statement: Statement, name: Any, names: list, types: list | None) -> None:
        if types is not None and len(types) != len(names):
            message = f"{len(names)} results are named, {len(types)} types are given"
            raise self.fault(statement, name, message, "E318", op=str(name))

    def op_class(self, statement: Statement, token: Any) -> type[Op]:
        name = _SHORT_NAMES.get(token, str(token))
        cls = find_op(name)
        if cls is None:
            load_all_families()
            raise self.fault(statement, token, f"there is no op {name!r}", "E311", did_you_mean(name, OPS))
        return cls

    def checked_attributes(self, statement: Statement, cls: type[Op], pairs: list) -> dict[str, Any]:
        """Attributes of an op in normal form; every wrong one is reported at its name."""
        signature = cls.signature
        given: dict[str, Any] = {}
        for token, raw in pairs:
            key = self.literal(statement, token, read_string) if token[0] == '"' else str(token)
            if key not in signature.attributes and not key.startswith("_"):
                known = did_you_mean(key, signature.attributes)
                self.report(self.fault(statement, token, f"has no attribute {key!r}", "E302", known, signature.name))
            elif key in given:
                message = f"attribute {key!r} is given twice"
                self.report(self.fault(statement, token, message, "E313", op=signature.name))
            else:
                value = self.value(statement, raw)
                try:
                    given[key] = signature.normalize(key, value)
                except CompilerError as error:
                    message = error.diagnostics[0].message
                    self.report(self.fault(statement, token, message, "E301", op=signature.name))
        return given

    def attributes(self, statement: Statement, pairs: list, depth: int = 0) -> dict[str, Any]:
        """A dictionary as it stands in the text."""
        result: dict[str, Any] = {}
        for token, raw in pairs:
            key = self.literal(statement, token, read_string) if token[0] == '"' else str(token)
            if key in result:
                raise self.fault(statement, token, f"{key!r} is given twice", "E313")
            result[key] = self.value(statement, raw, depth)
        return result

    def value(self, statement: Statement, raw: Any, depth: int = 0) -> Any:
        """An attribute value: a token, a tuple of values, or a list of (key, value) pairs."""
        if depth > MAX_NESTING:
            raise self.fault(statement, None, f"attributes nest deeper than {MAX_NESTING}", "E310")
        if isinstance(raw, tuple):
            return tuple(self.value(statement, item, depth + 1) for item in raw)
        if isinstance(raw, list):
            return self.attributes(statement, raw, depth + 1)
        kind = raw.type
        if kind == "NUMBER":
            return self.literal(statement, raw, read_number)
        if kind == "INTEGERS":
            return self.literal(statement, raw, read_integers)
        if kind == "STRING":
            return self.literal(statement, raw, read_string)
        if raw not in _WORDS:
            raise self.fault(statement, raw, f"{str(raw)!r} is not a value", "E310", f'a string is written "{raw}"')
        return _WORDS[raw]

    def type(self, statement: Statement, token: Any) -> TensorType:
        type = self.types.get(token)
        if type is None:
            type = self.types[str(token)] = self.literal(statement, token, read_type, self.aliases)
        return type

    def location(self, statement: Statement, token: Any) -> Location:
        if token is None:
            return UNKNOWN
        location = self.locations.get(token)
        if location is None:
            location = self.locations[str(token)] = self.literal(statement, token, read_location, self.source)
        return location

    # -- names -------------------------------------------------------------------------------------------------------
    def define(self, statement: Statement, token: Any, value: Value) -> None:
        name = value.name = self.literal(statement, token, read_name)
        if name in self.defined:
            self.report(self.fault(statement, token, f"value {token} is defined twice in this function", "E313"))
        self.defined.add(name)
        self.frames[-1].values[name] = value

    def operand(self, statement: Statement, token: Any, op: Any) -> Value | None:
        """The value a token names; a fault is reported and a broken value given where there is none."""
        if token == "_":
            return None
        try:
            name = self.literal(statement, token, read_name)
        except Fault as fault:
            self.report(fault)
            name = ""
        scope: Mapping[str, Value] = self.module.constants if token[0] == "@" else self.frames[-1].values
        value = scope.get(name)
        if value is not None:
            return value
        if token[0] + name not in self.broken_names and name:
            self.report(self.undefined(statement, token, name, str(op)))
        value = Value(TensorType((), DType.F32), name)
        self.broken.add(value)
        return value

    def undefined(self, statement: Statement, token: Any, name: str, op: str) -> Fault:
        """The fault of using a name that means nothing here: defined later, outside the kernel, or nowhere."""
        if token[0] == "@":
            help = did_you_mean(name, self.module.constants)
            return self.fault(statement, token, f"there is no constant {token}", "E316", help, op)
        if any(name in frame.values for frame in self.frames[:-1]):
            message = f"value {token} is defined outside this region"
            help = "make it an operand of the kernel and use the region's argument"
            return self.fault(statement, token, message, "E312", help, op)
        for later in self.statements[self.position :]:
            if later.kind == "function":
                break
            if later.kind == "op" and later.parts and token in (later.parts[0] or ()):
                line = bisect.bisect_right(self.line_starts, later.start)
                message = f"value {token} is used before it is defined, at line {line}"
                return self.fault(statement, token, message, "E312", "ops stand in execution order", op)
        help = did_you_mean(name, self.frames[-1].values)
        return self.fault(statement, token, f"there is no value {token} in this function", "E312", help, op)
