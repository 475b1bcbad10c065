"""Runs passes over a module: instruments around each, faults that name the pass, a reproducer when one crashes.

This is also where pass authors import from: `Pass`, `PassContext`, `parse_pipeline`, `print_pipeline` and the rest of
the machinery are gathered here. What a pass changed is observed through the module's mutation counter, never declared.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from traceback import extract_tb
from typing import Any

from compiler.errors import CompilerError, Diagnostic, InternalError, did_you_mean, error
from compiler.instruments import BrokenModule, DumpIR, Instrument, VerifyEach
from compiler.ir.core import Module
from compiler.ir.printer import tell_names_apart
from compiler.ir.verifier import LEVELS, Excerpts
from compiler.pass_context import Pass, PassContext, Statistics, function_pass
from compiler.pipelines import (
    PASSES,
    PIPELINES,
    find_pass,
    load_pass_file,
    make_pass,
    option_fields,
    parse_pipeline,
    pass_names,
    print_pipeline,
)
from compiler.reproducer import reproduce

__all__ = [
    "PASSES", "PIPELINES", "Pass", "PassContext", "PassManager", "Statistics", "find_pass", "function_pass",
    "load_pass_file", "make_pass", "option_fields", "parse_pipeline", "pass_names", "print_pipeline", "run_pipeline",
]  # fmt: skip


class PassManager:
    """A list of passes with the instruments around them.

    `stop_after`: name of the pass to stop after (`name#2` for its second run). `crash_directory`: where a reproducer is
    written when a pass crashes; None writes none.
    """

    def __init__(
        self,
        passes: Sequence[Pass] | str,
        instruments: Sequence[Instrument] = (),
        ctx: PassContext | None = None,
        *,
        stop_after: str | None = None,
        crash_directory: Path | str | None = ".",
    ) -> None:
        self.passes = parse_pipeline(passes) if isinstance(passes, str) else list(passes)
        self.instruments = list(instruments)
        self.ctx = ctx or PassContext()
        self.crash_directory = Path(crash_directory) if crash_directory is not None else None
        self._check_targets()
        self._stop_at = len(self.passes) if stop_after is None else _stop_index(self.passes, stop_after)

    def run(self, module: Module) -> Module:
        """Run the passes on `module`, in place, and return it.

        Raises CompilerError for faults of the input, each saying in or after which pass; InternalError for a crash.
        """
        tell_names_apart(module)
        try:
            for instrument in self.instruments:
                instrument.pipeline_begins(module, self.passes)
            for index, pass_ in enumerate(self.passes[: self._stop_at]):
                self._run_pass(index, pass_, module)
        finally:
            for instrument in self.instruments:
                instrument.pipeline_ends(module)
        return module

    def _run_pass(self, index: int, pass_: Pass, module: Module) -> None:
        before = module.clone() if self.crash_directory is not None else None
        for instrument in self.instruments:
            instrument.before(pass_, index + 1, module)
        _check_place(pass_, module)
        version = module.version
        self.ctx.statistics.current = pass_.name
        try:
            pass_.run(module, self.ctx)
            tell_names_apart(module)
            for instrument in reversed(self.instruments):
                instrument.after(pass_, index + 1, module, module.version != version)
        except BrokenModule as fault:
            path, replay = self._reproduce(before, index, fault.render())
            *others, last = fault.diagnostics
            told = f"this is a mistake of the pass: {replay}" if replay else ""
            raise CompilerError([*others, replace(last, help="\n".join(filter(None, (last.help, told))))]) from fault
        except CompilerError as fault:
            raise CompilerError([_within(d, pass_) for d in fault.diagnostics]) from fault
        except InternalError:
            raise
        except Exception as crash:
            path, replay = self._reproduce(before, index, f"{type(crash).__name__}: {crash}")
            told = f"; replay it with: {replay}" if replay else ""
            message = f"pass {pass_.name!r} crashed: {type(crash).__name__}: {crash} ({place_of(crash, pass_)})"
            raise InternalError(message + told, str(path) if path else None, owner_of(pass_)) from crash

    def _reproduce(self, before: Module | None, index: int, message: str) -> tuple[Path | None, str]:
        if before is None or self.crash_directory is None:
            return None, ""
        remaining = self.passes[index:]
        return reproduce(self.crash_directory / f"crash-{remaining[0].name}.mlu", before, remaining, message, self.ctx)

    def _check_targets(self) -> None:
        if self.ctx.target is None:
            needing = sorted({p.name for p in self.passes if p.requires_target})
            if needing:
                names = ", ".join(needing)
                help = "the verbs opt and debug give them one, see --board"
                raise error("E409", f"these passes need a target: {names}", help=help)


OURS = ("compiler", "passes", "targets")
"""Packages whose passes are mluc's own."""


def owner_of(pass_: Pass) -> str:
    """Whose mistake a crash of a pass is, in words; empty where it is mluc's."""
    module = type(pass_).__module__
    if module.partition(".")[0] in OURS:
        return ""
    file = getattr(sys.modules.get(module), "__file__", None)
    return f"the pass {pass_.name!r}" + (f" of {file}" if file else "")


def place_of(crash: BaseException, pass_: Pass | None = None) -> str:
    """File and line where an exception was raised: the last line of the pass's own file, if it came through it."""
    frames = extract_tb(crash.__traceback__)
    own = getattr(sys.modules.get(type(pass_).__module__), "__file__", None)
    frame = next((f for f in reversed(frames) if f.filename == own), frames[-1])
    return f"{Path(frame.filename).name}, line {frame.lineno}"


def _check_place(pass_: Pass, module: Module) -> None:
    """Raise E414 where a pass of another level must come first, naming the first one that is missing."""
    for level in LEVELS[: 1 + next((i for i, known in enumerate(LEVELS) if known.name == pass_.follows), -1)]:
        if any(True for rule in level.rules for _ in rule(module, Excerpts())):
            raise error(
                "E414", f"pass {pass_.name!r} comes after {pass_.follows!r}; pass {level.name!r} has not been run yet",
                help=f"put {level.name!r} before it; the whole way is 'prepare,quantize{_pipeline_of(pass_)}'",
            )  # fmt: skip


def _pipeline_of(pass_: Pass) -> str:
    """The named pipeline that has this pass, with a comma before it."""
    found = (name for name, text in PIPELINES.items() if pass_.name in text.split(","))
    return "".join(f",{name}" for name in found)


def _within(diagnostic: Diagnostic, pass_: Pass) -> Diagnostic:
    """The fault, with the pass it happened in."""
    if " pass '" in diagnostic.where:
        return diagnostic
    return replace(diagnostic, where=f"{diagnostic.where}  in pass {pass_.name!r}".strip())


def _stop_index(passes: Sequence[Pass], stop_after: str) -> int:
    """How many passes run when stopping after `name` or `name#2`."""
    name, _, number = stop_after.partition("#")
    places = [i + 1 for i, p in enumerate(passes) if p.name == name]
    nth = int(number) if number.isdecimal() else 0 if "#" in stop_after else 1
    if not 1 <= nth <= len(places):
        known = [p.name for p in passes]
        times = "once" if len(places) == 1 else f"{len(places)} times"
        help = f"the pipeline runs {name!r} {times}" if places else did_you_mean(name, known)
        raise error("E407", f"cannot stop after {stop_after!r}: the pipeline has no such pass", help=help)
    return places[nth - 1]


def run_pipeline(
    module: Module,
    pipeline: str | Sequence[Pass],
    *,
    target: Any = None,
    options: dict[str, Any] | None = None,
    ctx: PassContext | None = None,
    dump: str | None = None,
    dump_dir: Path | str | None = None,
    verify_each: bool = True,
    stop_after: str | None = None,
    instruments: Sequence[Instrument] = (),
    crash_directory: Path | str | None = ".",
) -> Module:
    """A copy of `module` after the passes of `pipeline` (text or passes); constants' data are shared with the original.

    `dump`: `before`, `after` or `changed`, optionally `:names`; to the terminal or into `dump_dir`. Further
    `instruments` (times, counts) are run around each pass. `ctx`, if given, is used instead of a new one for `target`
    and `options`.
    """
    context = ctx or PassContext(target=target, options=dict(options or {}))
    watchers: list[Instrument] = [VerifyEach()] if verify_each else []  # outermost: a broken module is dumped first
    if dump is not None or dump_dir is not None:
        watchers.append(DumpIR.parse(dump or "changed", Path(dump_dir) if dump_dir is not None else None))
    watchers += instruments
    manager = PassManager(pipeline, watchers, context, stop_after=stop_after, crash_directory=crash_directory)
    return manager.run(module.clone())
