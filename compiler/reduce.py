"""The smallest part of a module that still fails: delta debugging over the ops of `@main`, and, where one call is left
of it, over those of the function it calls.

Any command is the judge, as in bisection: it gets an IR file and exits with 0 where nothing is wrong. An op that is
left out leaves its results behind as inputs of the same name and type; what nothing takes any more becomes an output.
A part counts as failing when the command ends with the same exit code as on the whole module, so that the search does
not slip to another fault. With sample inputs, every part gets a `.npz` file of the values its inputs really have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from compiler.bisect import Command, Judge, Remembering, told_by
from compiler.errors import CompilerError, error
from compiler.evaluate.interpreter import Inputs, Interpreter
from compiler.ir.core import Function, Module, Op, Value
from compiler.ir.verifier import verify
from compiler.ops.graph import Call, Return


@dataclass(frozen=True)
class Reduced:
    """What is left of a module: its ops, the IR file, and how many parts had to be judged."""

    module: Module
    path: Path
    ops: int
    ops_before: int
    judgements: int

    def __str__(self) -> str:
        return f"{self.ops} of {self.ops_before} ops still fail ({self.judgements} parts judged): {self.path}"


def reduce(
    module: Module,
    check: str | Judge,
    *,
    inputs: Inputs | None = None,
    directory: Path | str = "reduce",
    timeout: float | None = None,
    tell: Callable[[str], None] | None = None,
) -> Reduced:
    """The smallest part of `module` found on which `check` still says that something is wrong.

    `inputs`: one run's inputs of the module; beside each `part.mlu` a `part.npz` then holds the part's. The result is
    `reduced.mlu` in `directory`. Raises CompilerError E413 when the check finds nothing wrong with the whole module.
    """
    judge = Command(check, timeout) if isinstance(check, str) else check
    search = _Reduction(module, judge, Path(directory), tell or (lambda _: None), _values(module, inputs))
    return search.run()


# -- parts -----------------------------------------------------------------------------------------------------------
def part_of(
    module: Module, kept: Sequence[int], outputs: Sequence[str] | None = None, function: str = "main"
) -> Module:
    """A module of the ops of a function with these places, in order; `@main` calls it, if it is another one.

    Values that the ops left out define become inputs. Outputs are the results nothing in the part takes and those the
    function returns; `outputs` narrows them to these names.
    """
    part = module.clone()
    whole = part.functions[function]
    ops = _ops_of(whole)
    chosen = {ops[i] for i in kept}
    terminator = whole.body.terminator
    returned = set(terminator.inputs)
    terminator.erase()
    results = [r for op in ops if op in chosen for r in op.results]
    wanted = [r for r in results if r in returned or all(user not in chosen for user in r.users)]
    for op in reversed([op for op in ops if op not in chosen]):
        _leave_out(op, chosen, whole)
    whole.body.append(Return(*[r for r in wanted if outputs is None or r.name in outputs]))
    whole.attributes.pop("outputs", None)
    _drop_unused_arguments(whole)
    if whole is not part.main:
        _only_call(part.main, whole)
    _drop_unused(part)
    return part


def _ops_of(function: Function) -> list[Op]:
    return [op for op in function.body if "terminator" not in op.signature.traits]


def _leave_out(op: Op, chosen: set[Op], function: Function) -> None:
    for result in op.results:
        if any(user in chosen for user in result.users):
            result.replace_all_uses_with(function.add_argument(result.type, result.name))
    op.erase()


def _drop_unused_arguments(function: Function) -> None:
    for index in reversed(range(len(function.arguments))):
        if not function.arguments[index].uses:
            function.body.remove_argument(index)


def _only_call(main: Function, callee: Function) -> None:
    """Make `main` nothing but a call: it takes and gives what `callee` does."""
    for op in reversed(list(main.body)):
        op.erase()
    _drop_unused_arguments(main)
    inputs = [main.add_argument(a.type, a.name) for a in callee.arguments]
    types, names = [v.type for v in callee.outputs], [v.name for v in callee.outputs]
    call = Call(*inputs, types=types, names=names, callee=callee.name)
    main.body.append(call)
    main.body.append(Return(*call.results))
    main.attributes.pop("outputs", None)


def _drop_unused(part: Module) -> None:
    """Remove functions and constants that the part does not need."""
    main = part.main
    called, waiting = {"main"}, [main]
    while waiting:
        for op in waiting.pop().body:
            if op.op_name == "graph.call" and op.attributes["callee"] not in called:
                called.add(op.attributes["callee"])
                waiting.append(part.functions[op.attributes["callee"]])
    for name in [n for n in part.functions if n not in called]:
        for op in reversed(list(part.functions[name].body)):
            op.erase()
        part.remove_function(name)
    part.drop_unused_constants()


def _values(module: Module, inputs: Inputs | None) -> dict[str, np.ndarray]:
    """Every value of one run by name; those of called functions and kernels have names of the whole module."""
    found: dict[str, np.ndarray] = {}
    if inputs is None:
        return found

    def keep(value: Value, array: np.ndarray) -> None:
        found.setdefault(value.name, array)

    Interpreter(module).run(inputs, keep)
    return found


# -- the search ------------------------------------------------------------------------------------------------------
class _Reduction:
    """The search: first over sets of ops, then over outputs."""

    def __init__(
        self, module: Module, judge: Judge, folder: Path, tell: Callable[[str], None], values: Mapping[str, np.ndarray]
    ) -> None:
        self.module = module
        self.judge = Remembering(self._fails_like_the_whole(judge), folder)
        self.command = judge if isinstance(judge, Command) else None
        self.code: int | str | None = None
        self.tell = tell
        self.values = values
        self.function = "main"

    def run(self) -> Reduced:
        before = sum(len(_ops_of(f)) for f in self.module.functions.values())
        if not self._fails(self.module, "whole"):
            told = told_by(self.judge.judge if self.command is None else self.command)
            raise error("E413", "the check finds nothing wrong with the module", help="0 is good, as in bisect", **told)
        if self.command is not None:
            self.code = self.command.code
        kept = self._fewer_ops(list(range(len(_ops_of(self.module.main)))))
        while callee := self._only_callee(kept):
            self.function = callee
            kept = self._fewer_ops(list(range(len(_ops_of(self.module.functions[callee])))))
        part = self._fewer_outputs(kept)
        path = self.judge.folder / "reduced.mlu"
        self._write_values(part, path)
        self.judge(part, path.name)
        return Reduced(part, path, len(kept), before, self.judge.judgements)

    def _only_callee(self, kept: Sequence[int]) -> str | None:
        """The function that is called by the one op left, if it is a call."""
        ops = _ops_of(self.module.functions[self.function])
        only = ops[kept[0]] if len(kept) == 1 else None
        return only.attributes["callee"] if only is not None and only.op_name == "graph.call" else None

    def _fails_like_the_whole(self, judge: Judge) -> Judge:
        def good(path: Path) -> bool:
            if judge(path):
                return True
            return self.command is not None and self.code is not None and self.command.code != self.code

        return good

    def _fails(self, module: Module, name: str) -> bool:
        path = self.judge.folder / f"{name}.mlu"
        self._write_values(module, path)
        return not self.judge(module, path.name)

    def _write_values(self, module: Module, path: Path) -> None:
        if self.values:
            given = {a.name: self.values[a.name] for a in module.main.arguments}
            np.savez(path.with_suffix(".npz"), **given)  # type: ignore[arg-type]

    def _part_fails(self, kept: Sequence[int], outputs: Sequence[str] | None = None) -> bool:
        part = part_of(self.module, kept, outputs, self.function)
        try:
            verify(part)
        except CompilerError:
            return False
        fails = self._fails(part, "part")
        self.tell(f"{'fails' if fails else 'good '} {len(kept)} ops, {len(part.main.outputs)} outputs")
        return fails

    def _fewer_ops(self, kept: list[int]) -> list[int]:
        """Zeller's ddmin: try each of n parts alone, then without it; where neither fails, cut finer."""
        pieces = 2
        while len(kept) > 1:
            chunks = _chunks(kept, pieces)
            found = next((c for c in chunks if len(c) < len(kept) and self._part_fails(c)), None)
            if found is not None:
                kept, pieces = found, 2
                continue
            found = None
            if pieces > 2:
                rests = ([i for i in kept if i not in set(c)] for c in chunks)
                found = next((rest for rest in rests if self._part_fails(rest)), None)
            if found is not None:
                kept, pieces = found, max(pieces - 1, 2)
            elif pieces >= len(kept):
                break
            else:
                pieces = min(2 * pieces, len(kept))
        return kept

    def _fewer_outputs(self, kept: list[int]) -> Module:
        """The part with one output, where one still fails."""
        names = [v.name for v in part_of(self.module, kept, None, self.function).main.outputs]
        if len(names) > 1:
            for name in names:
                if self._part_fails(kept, [name]):
                    return part_of(self.module, kept, [name], self.function)
        return part_of(self.module, kept, None, self.function)


def _chunks(items: Sequence[int], pieces: int) -> list[list[int]]:
    """`items` cut into runs of nearly equal length."""
    bounds = [len(items) * k // pieces for k in range(pieces + 1)]
    return [list(items[a:b]) for a, b in pairwise(bounds) if a < b]
