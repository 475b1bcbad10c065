"""What watches passes run: dumps, the verifier, times. Each is one small class that the pass manager calls.

Instruments never change the module. They take passes as they find them (a name is enough), so that this module needs to
know nothing of pipelines.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from compiler.errors import CompilerError, did_you_mean, error
from compiler.ir.constants import SHARED, blobs_of, write_blobs
from compiler.ir.core import Module
from compiler.ir.printer import print_module
from compiler.ir.verifier import LEVELS, verify
from compiler.pipelines import pass_names


class NamedPass(Protocol):
    """What instruments see of a pass."""

    @property
    def name(self) -> str: ...


class Instrument:
    """Base: does nothing. `index` is the pass's place in the pipeline, from 1."""

    def pipeline_begins(self, module: Module, passes: Sequence[NamedPass]) -> None:
        """Called once, before the first pass."""

    def before(self, pass_: NamedPass, index: int, module: Module) -> None:
        """Called before each pass."""

    def after(self, pass_: NamedPass, index: int, module: Module, changed: bool) -> None:
        """Called after each pass that succeeded; `changed`: the mutation counter moved."""

    def pipeline_ends(self, module: Module) -> None:
        """Called once, after the last pass or where the pipeline stopped, also on failure."""


# -- dumps -------------------------------------------------------------------------------------------------------------
DUMP_MOMENTS = ("before", "after", "changed")


@dataclass
class DumpIR(Instrument):
    """Prints the IR around passes: `before`, `after`, or only where it `changed`; only for `names`, if any.

    With `directory`, into numbered files `03-fuse-batchnorm.mlu` beside one `constants.safetensors` that holds every
    constant once by content; otherwise to `stream`.
    """

    moment: str = "changed"
    names: tuple[str, ...] = ()
    directory: Path | None = None
    stream: TextIO | None = None
    written: list[Path] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    """Names of the passes of all pipelines watched."""
    _last: str = ""
    _passes: int = 0
    _offset: int = 0
    """Passes of this pipeline, and of those this instrument has watched before it: numbers go on."""
    _blobs: dict[str, np.ndarray] = field(default_factory=dict)

    @staticmethod
    def parse(text: str, directory: Path | None = None, stream: TextIO | None = None) -> DumpIR:
        """The instrument `--dump-ir=TEXT` asks for: `changed`, `after:simplify,legalize`."""
        moment, _, names = text.partition(":")
        if moment not in DUMP_MOMENTS:
            raise error("E408", f"cannot dump IR {moment!r}", help=did_you_mean(moment, DUMP_MOMENTS))
        return DumpIR(moment, tuple(n.strip() for n in names.split(",") if n.strip()), directory, stream)

    def pipeline_begins(self, module: Module, passes: Sequence[NamedPass]) -> None:
        self._check_names([p.name for p in passes])
        self.seen |= {p.name for p in passes}
        first = not self._passes
        self._offset += self._passes
        self._passes = len(passes)
        if self.moment == "changed":
            self._last = print_module(module)
            if first:
                self._write("00-input", self._last, module)

    def _check_names(self, present: Sequence[str]) -> None:
        """A name must be in the pipeline, or be that of a pass: compilation runs several pipelines."""
        known = {*present, *pass_names()}
        for name in self.names:
            if name not in known:
                message = f"cannot dump around {name!r}: no such pass in the pipeline"
                raise error("E408", message, help=did_you_mean(name, known))

    @property
    def unseen(self) -> list[str]:
        """Names asked for that no pipeline has had."""
        return [name for name in self.names if name not in self.seen]

    def before(self, pass_: NamedPass, index: int, module: Module) -> None:
        if self.moment == "before" and self._wanted(pass_):
            self._write(f"{self._offset + index:02}-before-{pass_.name}", print_module(module), module)

    def after(self, pass_: NamedPass, index: int, module: Module, changed: bool) -> None:
        if self.moment == "before" or (self.moment == "changed" and not changed):
            return
        text = print_module(module)
        if self.moment == "after" or text != self._last:
            if self._wanted(pass_):
                self._write(f"{self._offset + index:02}-{pass_.name}", text, module)
            self._last = text

    def _wanted(self, pass_: NamedPass) -> bool:
        return not self.names or pass_.name in self.names

    def _write(self, title: str, text: str, module: Module) -> None:
        if self.directory is None:
            print(f"// ---- {title} ----\n{text}", file=self.stream or sys.stdout)
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{title}.mlu"
        path.write_text(text, encoding="utf-8")
        self._blobs |= blobs_of(module)
        self.written.append(path)

    def pipeline_ends(self, module: Module) -> None:
        if self.directory is not None and self._blobs:
            write_blobs(self._blobs, self.directory / SHARED)


# -- the verifier ------------------------------------------------------------------------------------------------------
@dataclass
class VerifyEach(Instrument):
    """Verifies the module at the start and after every pass that changed it; a fault names the pass it followed."""

    level: str | None = None

    def pipeline_begins(self, module: Module, passes: Sequence[NamedPass]) -> None:
        verify(module, level=self.level)

    def after(self, pass_: NamedPass, index: int, module: Module, changed: bool) -> None:
        level = pass_.name if pass_.name in _LEVEL_NAMES else self.level
        if not changed and level == self.level:
            return
        self.level = level
        try:
            verify(module, level=self.level)
        except CompilerError as fault:
            raise BrokenModule(
                [replace(d, where=f"{d.where}  after pass {pass_.name!r}".strip()) for d in fault.diagnostics]
            ) from fault


_LEVEL_NAMES = frozenset(known.name for known in LEVELS)


class BrokenModule(CompilerError):
    """The verifier's faults after a pass: the pass's mistake, not the user's."""


# -- times -------------------------------------------------------------------------------------------------------------
@dataclass
class TimePasses(Instrument):
    """Wall-clock seconds of each pass, verification and dumps left out."""

    clock: Callable[[], float] = time.perf_counter
    seconds: list[tuple[str, float]] = field(default_factory=list)
    _started: float = 0.0

    def before(self, pass_: NamedPass, index: int, module: Module) -> None:
        self._started = self.clock()

    def after(self, pass_: NamedPass, index: int, module: Module, changed: bool) -> None:
        self.seconds.append((pass_.name, self.clock() - self._started))

    def as_dict(self) -> list[dict[str, Any]]:
        """Plain data, for `--json`."""
        return [{"pass": name, "seconds": seconds} for name, seconds in self.seconds]

    def __str__(self) -> str:
        total = sum(seconds for _, seconds in self.seconds)
        rows = [f"{s * 1e3:10.1f} ms  {s / total if total else 0.0:6.1%}  {name}" for name, s in self.seconds]
        return "\n".join([*rows, f"{total * 1e3:10.1f} ms  total"])


def count_ops(module: Module) -> dict[str, int]:
    """Number of ops by kind, sorted by name; terminators left out."""
    counts: dict[str, int] = {}
    for op in module.ops():
        if "terminator" not in op.signature.traits:
            counts[op.op_name] = counts.get(op.op_name, 0) + 1
    return dict(sorted(counts.items()))
