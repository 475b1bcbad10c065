"""Finding what broke a result: running a reproducer again, and bisection to the pass and then to the single rewrite.

Any command is the judge: it gets an IR file and says with its exit code whether the module is still good (0) or not.
Bisection searches the shortest prefix of the pipeline that is bad, then, inside its last pass, the smallest number of
rewrites that is. It assumes that what is bad stays bad.
"""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compiler.errors import CompilerError, InternalError, error
from compiler.instruments import Instrument
from compiler.ir.constants import write_module
from compiler.ir.core import Module
from compiler.ir.printer import print_module
from compiler.pass_context import Pass, PassContext, Statistics
from compiler.pass_manager import PassManager, run_pipeline
from compiler.pipelines import parse_pipeline, print_pipeline
from compiler.reproducer import read_reproducer
from compiler.rewrite import RewriteCounter
from compiler.target import load_target

Judge = Callable[[Path], bool]
MakeTarget = Callable[[dict[str, Any]], Any]


# -- replay ---------------------------------------------------------------------------------------------------------
def replay(
    path: Path | str,
    *,
    make_target: MakeTarget | None = None,
    instruments: Sequence[Instrument] = (),
    statistics: Statistics | None = None,
    **options: Any,
) -> Module:
    """Run a reproducer again and return the module it gives now. Raises what the pipeline (or `emit`) raises.

    `make_target` remakes the target from the options written in the file (default: by name, board and cores); counts go
    to `statistics`; `options` go to `run_pipeline`.
    """
    found = read_reproducer(path)
    target = (make_target or remade_target)(found.options)
    options.setdefault("crash_directory", None)
    ctx = PassContext(target=target, options=found.options, statistics=statistics or Statistics())
    module = run_pipeline(found.module, found.pipeline, ctx=ctx, instruments=instruments, **options)
    if found.emit:
        target.emit(module)
    return module


def remade_target(options: dict[str, Any]) -> Any:
    """The target that a reproducer's options name; None if they name none."""
    if "target" not in options:
        return None
    return load_target(options["target"], **{k: options[k] for k in ("board", "cores") if k in options})


# -- bisection ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Culprit:
    """What turned a good module bad. Pass and rewrite are counted from 1; rewrite 0: no single one is to blame."""

    pass_number: int
    pass_text: str
    rewrite: int
    rewrites: int
    description: str
    good: Path
    bad: Path
    failure: str = ""
    """What the pass said, where it did not get through; there is no bad file then."""

    def __str__(self) -> str:
        if self.failure:
            return f"pass {self.pass_number}, {self.pass_text}, fails: {self.failure}\ngood: {self.good}"
        lines = [f"pass {self.pass_number}, {self.pass_text}, makes it bad"]
        if self.rewrite:
            lines.append(f"rewrite {self.rewrite} of its {self.rewrites}: {self.description}")
        else:
            lines.append(f"not by one of its {self.rewrites} counted rewrites alone")
        return "\n".join([*lines, f"good: {self.good}", f"bad:  {self.bad}"])


TIMED_OUT = "timed out"


class Command:
    """A judge that runs a command with the IR file in place of `{}` (or appended); exit code 0 means good.

    Raises CompilerError E411 when the command cannot be run; one that takes longer than `timeout` seconds judges bad.
    After each judgement `code` is the exit code (or `TIMED_OUT`) and `said` the end of what the command printed.
    """

    def __init__(self, command: str, timeout: float | None = None) -> None:
        try:
            self.words = shlex.split(command)
        except ValueError as fault:
            raise error("E411", f"the check command is not a command: {fault}", excerpt=command) from None
        if not self.words:
            help = "give a command that takes an IR file, --check 'cmd {}'"
            raise error("E411", "the check command is empty", help=help)
        self.timeout = timeout
        self.code: int | str = 0
        self.said = ""

    def __call__(self, path: Path) -> bool:
        named = any("{}" in w for w in self.words)
        line = [w.replace("{}", str(path)) for w in self.words] if named else [*self.words, str(path)]
        try:
            done = subprocess.run(
                line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                errors="replace", timeout=self.timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            self.code, self.said = TIMED_OUT, ""
            return False
        except OSError as failure:
            help = "it is run without a shell; for what a shell does: --check 'sh -c \"...\"'"
            raise error(
                "E411", f"cannot run the check command {line[0]!r}: {failure.strerror}", help=help
            ) from failure
        self.code, self.said = done.returncode, "\n".join(done.stdout.strip().splitlines()[-8:])
        return done.returncode == 0


def told_by(judge: Judge) -> dict[str, Any]:
    """What a judge has to say for its last judgement, as fields of a diagnostic."""
    if not isinstance(judge, Command):
        return {}
    return {"excerpt": judge.said, "notes": (f"exit code of the check: {judge.code}",)}


class Remembering:
    """Writes modules to files and has them judged, each content once: passes that change nothing cost nothing."""

    def __init__(self, judge: Judge, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.judge = judge
        self.folder = folder
        self.judgements = 0
        self._known: dict[bytes, bool] = {}

    def __call__(self, module: Module, name: str) -> bool:
        path = self.folder / name
        write_module(module, path)
        key = hashlib.sha256(print_module(module).encode()).digest()
        if key not in self._known:
            self.judgements += 1
            self._known[key] = self.judge(path)
        return self._known[key]


def bisect(
    module: Module,
    pipeline: str | Sequence[Pass],
    check: str | Judge,
    *,
    target: Any = None,
    options: dict[str, Any] | None = None,
    directory: Path | str = "bisect",
    tell: Callable[[str], None] | None = None,
) -> Culprit:
    """The pass, and the rewrite in it, after which `check` says that the module is bad.

    IR files are written into `directory`; `tell` hears of each step. Raises CompilerError E412 when the input is bad
    already or the whole pipeline's result is good.
    """
    passes = parse_pipeline(pipeline) if isinstance(pipeline, str) else list(pipeline)
    judge = Remembering(Command(check) if isinstance(check, str) else check, Path(directory))
    return _Bisection(passes, judge, target, dict(options or {}), tell or (lambda _: None), [module]).run()


@dataclass
class _Bisection:
    """The search; `prefixes[k]` is the module after the first k passes, as far as they have been run."""

    passes: list[Pass]
    judge: Remembering
    target: Any
    options: dict[str, Any]
    tell: Callable[[str], None]
    prefixes: list[Module]
    last: RewriteCounter = field(default_factory=RewriteCounter)
    failure: str = ""
    stuck: bool = False
    """Whether the pass after the last prefix fails."""

    def run(self) -> Culprit:
        if not self._good_after(0):
            told = told_by(self.judge.judge)
            raise error("E412", "the check fails on the input already", help="bisection needs a good start", **told)
        if self._good_after(len(self.passes)):
            raise error("E412", "the check passes after the whole pipeline", help="there is nothing to look for")
        number = _first_bad(0, len(self.passes), self._good_after)
        rewrites = self._count_rewrites(number)
        failure = self.failure  # of that run
        rewrite, description = (0, "") if failure else self._guilty_rewrite(number, rewrites)
        folder = self.judge.folder
        good = folder / (self._name(number, rewrite - 1) if rewrite else self._name(number - 1))
        bad = folder / (self._name(number, rewrite) if rewrite else self._name(number))
        text = print_pipeline(self.passes[number - 1 : number])
        return Culprit(number, text, rewrite, rewrites, description, good, bad, failure)

    # -- passes
    def _good_after(self, count: int) -> bool:
        module = self._prefix(count)
        good = module is not None and self.judge(module, self._name(count))
        done = print_pipeline(self.passes[:count]) or "the input"
        self.tell(f"{'good' if good else 'bad '}  {done}")
        return good

    def _prefix(self, count: int) -> Module | None:
        """The module after `count` passes; None if one of them fails."""
        while len(self.prefixes) <= count:
            following = self._run(len(self.prefixes), None) if not self.stuck else None
            if following is None:
                self.stuck = True
                return None
            self.prefixes.append(following)
        return self.prefixes[count]

    # -- rewrites
    def _count_rewrites(self, number: int) -> int:
        self._run(number, None)
        return self.last.count

    def _guilty_rewrite(self, number: int, rewrites: int) -> tuple[int, str]:
        """The first bad rewrite of a pass and what it was; (0, "") if none is to blame alone."""
        if not self._good_with(number, 0) or (rewrites and self._good_with(number, rewrites)):
            return 0, ""
        if not rewrites:
            return 0, ""
        found = _first_bad(0, rewrites, lambda limit: self._good_with(number, limit))
        self._run(number, found)
        return found, self.last.last

    def _good_with(self, number: int, limit: int) -> bool:
        module = self._run(number, limit)
        good = module is not None and self.judge(module, self._name(number, limit))
        self.tell(f"{'good' if good else 'bad '}  {self.passes[number - 1].name} with {limit} rewrites")
        return good

    # -- both
    def _run(self, number: int, limit: int | None) -> Module | None:
        """The module after pass `number` with at most `limit` rewrites in it; None if the pass fails."""
        self.last, self.failure = RewriteCounter(limit=limit), ""
        ctx = PassContext(target=self.target, options=self.options, counter=self.last)
        try:
            return PassManager([self.passes[number - 1]], (), ctx, crash_directory=None).run(
                self.prefixes[number - 1].clone()
            )
        except (CompilerError, InternalError) as failure:
            self.failure = failure.render() if isinstance(failure, CompilerError) else str(failure)
            if not self.stuck:
                self.tell(f"pass {self.passes[number - 1].name} fails: {self.failure}")
            return None

    def _name(self, count: int, limit: int | None = None) -> str:
        title = self.passes[count - 1].name if count else "input"
        return f"{count:02}-{title}.mlu" if limit is None else f"{count:02}-{title}-{limit}.mlu"


def _first_bad(good: int, bad: int, is_good: Callable[[int], bool]) -> int:
    """The smallest bad number above `good`, which is good; `bad` is bad."""
    while bad - good > 1:
        middle = (good + bad) // 2
        if is_good(middle):
            good = middle
        else:
            bad = middle
    return bad
