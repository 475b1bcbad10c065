"""Pipelines as text, both ways, and the tables by which passes and named pipelines are found.

`simplify,fuse-batchnorm{max-weight-growth=16},prepare` is a list of passes; a name may also be that of a pipeline,
which is text again. Options are typed by the pass's dataclass fields. Passes are found in a lazy table, through the
entry-point group `mluc.passes`, or in a file; nothing is imported before its name is used.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import re
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from compiler.errors import CompilerError, Diagnostic, did_you_mean, error
from compiler.files import PASS_FILE, check_file
from compiler.pass_context import Pass

ENTRY_POINTS = "mluc.passes"

PASSES: dict[str, str | type[Pass]] = {
    "simplify": "passes.simplify:Simplify",
    "fold-constants": "passes.simplify:FoldConstants",
    "expand-recurrent": "passes.expand_recurrent:ExpandRecurrent",
    "fuse-batchnorm": "passes.fuse_batchnorm:FuseBatchNorm",
    "convert-layout": "passes.convert_layout:ConvertLayout",
    "prune-magnitude": "passes.pruning.magnitude:PruneMagnitude",
    "prune-channels": "passes.pruning.channels:PruneChannels",
    "take-pixels": "passes.quantization.pixels:TakePixels",
    "drop-asymmetric": "passes.quantization.asymmetric:DropAsymmetric",
    "quantize": "passes.quantization.quantize:Quantize",
    "replicate": "passes.replicate:Replicate",
    "partition": "passes.partition:Partition",
    "legalize": "targets.mlu220.legalize:Legalize",
    "fuse-layers": "passes.fuse_layers:FuseLayers",
    "chain-kernels": "passes.chain_kernels:ChainKernels",
    "keep-on-chip": "passes.keep_on_chip:KeepOnChip",
    "schedule": "passes.schedule:Schedule",
    "plan-memory": "passes.memory.plan:PlanMemory",
}
"""Pass name → "module:Class" (or the class, for passes of a file). Data, not imports."""

PIPELINES: dict[str, str] = {
    "prepare": "drop-asymmetric,simplify,expand-recurrent,fuse-batchnorm,simplify",
    "mlu220": "convert-layout,partition,legalize,fuse-layers,chain-kernels,keep-on-chip,schedule,plan-memory",
}
"""Pipeline name → its text. Targets add theirs here."""


# -- finding passes ----------------------------------------------------------------------------------------------------
def pass_names() -> list[str]:
    """Names of all passes that can be used, sorted; imports none of them."""
    return sorted({*PASSES, *_entry_points()})


def find_pass(name: str) -> type[Pass]:
    """The class of a pass. Raises CompilerError E401 for a name nobody has, E405 for a plugin that does not load."""
    found = PASSES.get(name)
    if isinstance(found, type):
        return found
    if found is not None:
        module, _, attribute = found.partition(":")
        return _checked(getattr(importlib.import_module(module), attribute), name, module)
    point = _entry_points().get(name)
    if point is None:
        known = [*pass_names(), *PIPELINES]
        raise error("E401", f"no pass or pipeline is called {name!r}", help=did_you_mean(name, known))
    try:
        loaded = point.load()
    except Exception as failure:  # a plugin's import can fail in any way; the user must learn which plugin
        raise error(
            "E405", f"pass {name!r} of plugin {point.value!r} does not load: {type(failure).__name__}: {failure}"
        ) from failure
    return _checked(loaded, name, point.value)


def load_pass_file(path: str | Path) -> list[type[Pass]]:
    """Make the passes of a Python file known by name. Raises CompilerError for none, and for names that clash."""
    path = Path(path)
    check_file(path, PASS_FILE)
    module_name = f"_mluc_pass_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as failure:  # whatever the file does wrong is the user's to know, by file
        raise error("E406", f"{path} does not load: {type(failure).__name__}: {failure}") from failure
    found = [c for c in vars(module).values() if _is_pass(c) and c.__module__ == module_name]
    if not found:
        raise error("E406", f"{path} defines no pass", help="a pass is a dataclass derived from Pass, with a name")
    for kind in found:
        taken = PASSES.get(kind.name)
        if isinstance(taken, str) or kind.name in PIPELINES:
            raise error("E406", f"{path} defines {kind.name!r}, which exists already", help="choose another name")
        PASSES[kind.name] = _checked(kind, kind.name, str(path))
    return found


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def _is_pass(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Pass) and thing is not Pass and bool(thing.name)


def _checked(kind: Any, name: str, origin: str) -> type[Pass]:
    """`kind` if it is a usable pass called `name`; otherwise CompilerError E405 saying what its author must do."""
    if not isinstance(kind, type) or not issubclass(kind, Pass):
        help = "derive the class from compiler.pass_manager.Pass"
        raise error("E405", f"{origin} gives {kind!r} for {name!r}", help=help)
    if kind.name != name:
        raise error("E405", f"{origin} registers {name!r} but the class calls itself {kind.name!r}")
    if not dataclasses.is_dataclass(kind) or "__dataclass_fields__" not in vars(kind):
        raise error("E405", f"pass {name!r} is not a dataclass", help="add @dataclass(frozen=True, kw_only=True)")
    return kind


# -- text to passes ----------------------------------------------------------------------------------------------------
def parse_pipeline(text: str) -> list[Pass]:
    """Passes of pipeline text, named pipelines expanded. Raises CompilerError with every fault of names and options."""
    faults: list[Diagnostic] = []
    passes = list(_build(text, (), faults))
    if faults:
        raise CompilerError(faults)
    return passes


def _build(text: str, within: tuple[str, ...], faults: list[Diagnostic]) -> Iterator[Pass]:
    for name, options in _Reader(text).items():
        try:
            if name in PIPELINES:
                if name in within:
                    raise error("E402", f"pipeline {name!r} contains itself: {' -> '.join([*within, name])}")
                if options:
                    raise error("E402", f"pipeline {name!r} takes no options", help=f"it stands for {PIPELINES[name]}")
                yield from _build(PIPELINES[name], (*within, name), faults)
            else:
                yield make_pass(name, options)
        except CompilerError as fault:
            faults += fault.diagnostics


def make_pass(name: str, options: dict[str, Any] | None = None) -> Pass:
    """A pass by name, options by their names in text. Raises CompilerError with every unknown or ill-typed option."""
    kind = find_pass(name)
    fields = option_fields(kind)
    hints = typing.get_type_hints(kind)
    values, faults = {}, []
    for key, value in (options or {}).items():
        field = fields.get(key.replace("_", "-"))
        if field is None:
            help = did_you_mean(key, fields) if fields else f"{name} takes no options"
            faults.append(Diagnostic(code="E403", message=f"has no option {key!r}", op=name, help=help))
            continue
        try:
            values[field.name] = convert_option(value, hints[field.name])
        except ValueError:
            wanted = describe_kind(hints[field.name])
            message = f"option {key!r} must be {wanted}, not {_print_value(value)}"
            faults.append(Diagnostic(code="E404", message=message, op=name))
    missing = [k for k, f in fields.items() if f.name not in values and _required(f) and not faults]
    faults += [Diagnostic(code="E404", message=f"needs option {k!r}", op=name) for k in missing]
    if faults:
        raise CompilerError(faults)
    try:
        return kind(**values)
    except (TypeError, ValueError) as refusal:  # a pass may check its options in __post_init__
        raise error("E404", str(refusal), op=name) from refusal


def option_fields(kind: type[Pass]) -> dict[str, dataclasses.Field]:
    """The options of a pass by their names in text."""
    return {f.name.replace("_", "-"): f for f in dataclasses.fields(kind) if f.init and f.metadata.get("text", True)}


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def convert_option(value: Any, kind: Any) -> Any:
    """`value`, as the text gave it, as an option of type `kind`. Raises ValueError when it is not one."""
    origin = get_origin(kind)
    if origin is Literal:
        if value not in get_args(kind):
            raise ValueError
        return value
    if origin in (types.UnionType, typing.Union):
        return _convert_union(value, get_args(kind))
    if origin in (tuple, list) or kind in (tuple, list):
        element = (get_args(kind) or (Any,))[0]
        items = value if isinstance(value, tuple | list) else (value,)
        return (origin or kind)(convert_option(v, element) for v in items)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is Any or (isinstance(kind, type) and type(value) is kind):
        return value
    raise ValueError


def _convert_union(value: Any, kinds: Sequence[Any]) -> Any:
    if value is None or (value == "none" and types.NoneType in kinds):
        return None
    for kind in kinds:
        try:
            return convert_option(value, kind)
        except ValueError:
            continue
    raise ValueError


_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a string", Path: "a path"}


def describe_kind(kind: Any) -> str:
    """What an option of this type may be, in words."""
    origin = get_origin(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(describe_kind(k) if k is not types.NoneType else "none" for k in get_args(kind))
    if origin in (tuple, list):
        return "a list, each " + describe_kind(get_args(kind)[0])
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))


# -- passes to text ----------------------------------------------------------------------------------------------------
def print_pipeline(passes: Sequence[Pass]) -> str:
    """The text that parses back to `passes`; options equal to their defaults are left out."""
    return ",".join(_print_pass(p) for p in passes)


def _print_pass(pass_: Pass) -> str:
    options = []
    for key, field in option_fields(type(pass_)).items():
        value = getattr(pass_, field.name)
        default = field.default_factory() if callable(field.default_factory) else field.default
        if value != default or type(value) is not type(default):
            options.append(f"{key}={_print_value(value)}")
    return f"{pass_.name}{{{','.join(options)}}}" if options else pass_.name


_BARE = re.compile(r"[A-Za-z_./*][\w./*:@-]*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf|nan)")
_CONSTANTS = {"true": True, "false": False}


def _print_value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_print_value, value)) + "]"
    text = str(value) if not isinstance(value, float) else repr(value)
    if isinstance(value, int | float) or (_BARE.fullmatch(text) and not _special(text)):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _special(text: str) -> bool:
    return text in _CONSTANTS or text == "none" or _NUMBER.fullmatch(text) is not None


class _Reader:
    """Reads pipeline text: items of a name and options, by recursive descent."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def items(self) -> Iterator[tuple[str, dict[str, Any]]]:
        if not self.text.strip():
            return
        while True:
            name = self._take(re.compile(r"[A-Za-z][\w-]*"), "a pass name")
            yield name, self._options() if self._peek("{") else {}
            if not self._peek(","):
                break
        self._space()
        if self.at < len(self.text):
            self._fail("',' or the end")

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        while not self._peek("}"):
            key = self._take(re.compile(r"[A-Za-z][\w-]*"), "an option name or '}'")
            if key in options:
                raise error("E402", f"option {key!r} is given twice", excerpt=self.text)
            options[key] = self._value() if self._peek("=") else True  # a bare option is a switch
            if not self._peek(","):
                self._expect("}")
                break
        return options

    def _value(self) -> Any:
        if self._peek("["):
            items = []
            while not self._peek("]"):
                items.append(self._value())
                if not self._peek(","):
                    self._expect("]")
                    break
            return tuple(items)
        if self._peek('"'):
            body = self._take(re.compile(r'(?:[^"\\]|\\.)*(?=")'), "a closing quote", space=False)
            self.at += 1
            return re.sub(r"\\(.)", r"\1", body)
        word = self._take(re.compile(r"[+-]?[\w./*][\w./*:@+-]*"), "a value")
        return self._plain(word)

    def _plain(self, word: str) -> Any:
        if word in _CONSTANTS:
            return _CONSTANTS[word]
        if word == "none":
            return None
        if _NUMBER.fullmatch(word):
            return int(word) if re.fullmatch(r"[+-]?\d+", word) else float(word)
        return word

    def _space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def _peek(self, character: str) -> bool:
        """Whether `character` comes next; if so it is taken."""
        self._space()
        if not self.text.startswith(character, self.at):
            return False
        self.at += 1
        return True

    def _expect(self, character: str) -> None:
        if not self._peek(character):
            self._fail(repr(character))

    def _take(self, wanted: re.Pattern[str], what: str, space: bool = True) -> str:
        if space:
            self._space()
        found = wanted.match(self.text, self.at)
        if found is None:
            self._fail(what)
        self.at = found.end()
        return found.group()

    def _fail(self, wanted: str) -> NoReturn:
        excerpt = f"{self.text}\n{' ' * self.at}^"
        help = "a pipeline reads a,b{option=1},c"
        raise error("E402", f"pipeline text: expected {wanted}", excerpt=excerpt, help=help)
