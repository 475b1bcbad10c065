"""`if`, `while` and `for` whose course the network's data decide: host ops that hold both branches, or the body.

Code is evaluated as ever, and what it changed is looked at (`memory`). A branch's changes become results of a
`graph.if`; where both branches leave the same, there is none. What a round of a loop changes is carried by a
`graph.loop`, which takes some trials to find out: what one trial leaves alone, the next may change once other values
have become the loop's own. A branch that raises an exception is taken for one that never runs.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.frontend.common import control
from compiler.frontend.records import NodeRecord, Unsupported
from compiler.frontend.torchscript.instances import ABSENT, Named, same
from compiler.frontend.torchscript.memory import SPLIT, Changes, Memory, Place
from compiler.frontend.torchscript.operators import BLOCKED, Refusal, Undecided, node_name
from compiler.frontend.torchscript.source import assigned, loads_of
from compiler.frontend.torchscript.tensors import Tensor
from compiler.ir.core import Value

if TYPE_CHECKING:
    from compiler.frontend.torchscript.evaluator import Evaluator, Frame

MOST_TRIALS = 12
"""Trials of a loop's body until it is known what it carries."""

RESULT = "return"
"""The variable (no code can have one of that name) that stands for what a branch gives."""

NUMBERS: dict[type, type] = {bool: np.bool_, int: np.int64, float: np.float32}
EARLY = "return in both branches, or after them"

UNSET: Any = type("Unset", (), {"__repr__": lambda _: "<unset>"})()
"""The value of a variable in a branch after which nothing reads it."""


# -- structures of tensors and numbers ---------------------------------------------------------------------------------
def is_leaf(x: Any) -> bool:
    return isinstance(x, Tensor) or type(x) in NUMBERS


def value_of(e: Evaluator, leaf: Any) -> Value:
    """A tensor or number as a value."""
    if isinstance(leaf, Tensor):
        return e.operators.value(leaf)
    return e.operators.builder.constant(np.asarray(leaf, NUMBERS[type(leaf)]))


def leaves(x: Any) -> Iterator[Any]:
    """The tensors and numbers of a value, in order."""
    if is_leaf(x):
        yield x
    elif isinstance(x, list | tuple | dict):
        for item in x.values() if isinstance(x, dict) else x:
            yield from leaves(item)


def paired(a: Any, b: Any, join: Callable[[Any, Any], Any]) -> Any:
    """Two values of one structure as one, `join` deciding about their tensors and numbers. Raises Unsupported where
    they are of different kinds.
    """
    if a is BLOCKED or b is BLOCKED:
        return BLOCKED
    if a is UNSET or b is UNSET:
        return b if a is UNSET else a
    if is_leaf(a) and is_leaf(b):
        return join(a, b)
    if isinstance(a, tuple | list) and type(a) is type(b) and len(a) == len(b):
        items = [paired(x, y, join) for x, y in zip(a, b, strict=True)]
        return Named.of(a.fields, items) if isinstance(a, Named) else type(a)(items)
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return {k: paired(v, b[k], join) for k, v in a.items()}
    if same(a, b):
        return a
    raise Unsupported(f"is {_kind(a)} or {_kind(b)}, as the network's data decide", SPLIT)


def _kind(x: Any) -> str:
    if isinstance(x, list | tuple | dict):
        return f"a {type(x).__name__} of {len(x)}"
    return "None" if x is None else "a tensor" if isinstance(x, Tensor) else "not set" if x is ABSENT else repr(x)


# -- branches ----------------------------------------------------------------------------------------------------------
def choose(e: Evaluator, node: ast.AST, frame: Frame, condition: Tensor, branches: Sequence[Callable[[], Any]]) -> Any:
    """Follow both branches. What they give is merged as what they change is."""
    return _Choice(e, node, frame, condition).of(branches)


class _Choice:
    """A decision, and the values that its two branches leave becoming the results of one op."""

    def __init__(self, e: Evaluator, node: ast.AST, frame: Frame, condition: Tensor) -> None:
        self.e = e
        self.node = node
        self.frame = frame
        self.condition = condition
        self.record = e.operators.begin("prim::If", node_name(frame.path, "", "if"))
        self.chosen = e.operators.value(condition)
        self.memory = Memory(frame.names, e.instances)
        self.pairs: list[tuple[Value, Value]] = []
        self.results: list[Tensor] = []
        self.names: list[str] = []
        self._title = ""
        self._values: list[dict[int, Value]] = [{}, {}]
        self._kept: list[Tensor] = []
        self._joined: dict[tuple[int, int], Tensor] = {}

    def of(self, branches: Sequence[Callable[[], Any]]) -> Any:
        bodies: list[control.Body] = []
        found: list[Changes] = []
        for side, branch in enumerate(branches):
            bodies.append(control.Body(self.e.operators.builder))
            mark = self.e.operators.mark()
            try:
                found.append(self._followed(side, branch))
                bodies[side].take_out()
            except Refusal:
                bodies.pop().discard()
                self.e.operators.rewind(mark)
                break
            except Unsupported:
                bodies[side].discard()
                raise
            finally:
                self.memory.restore()
        if len(found) < 2:
            return self._without_choice(bodies, found, branches[1 - len(found)])
        try:
            merged = self._merged(*found)
        except Unsupported:
            self._give_up(bodies)
            raise
        self._emit(bodies)
        for place, value in merged.items():
            self.memory.put(place, value)
        return self.frame.names.pop(RESULT)

    def _followed(self, side: int, branch: Callable[[], Any]) -> Changes:
        """What a branch changes; its tensors are read while what that emits still belongs to it."""
        self.frame.names[RESULT] = branch()
        changes = self.memory.changes()
        for value in changes.values():
            for leaf in leaves(value):
                self._values[side][id(leaf)] = value_of(self.e, leaf)
                self._kept.append(leaf)
        return changes

    def _without_choice(
        self, bodies: Sequence[control.Body], found: Sequence[Changes], other: Callable[[], Any]
    ) -> Any:
        """The branch that does not raise, as if nothing had been to decide."""
        if not bodies:
            return other()
        bodies[0].put_back()
        for place, value in found[0].items():
            self.memory.put(place, value)
        return self.frame.names.pop(RESULT)

    # -- merging -----------------------------------------------------------------------------------------------------
    def _merged(self, left: Changes, right: Changes) -> Changes:
        """What all places that a branch changes hold afterwards."""
        own = loads_of(self.node)
        merged: dict[Place, Any] = {}
        for place in dict.fromkeys([*left, *right]):
            before = self.memory.before(place)
            a, b = left.get(place, before), right.get(place, before)
            self._title = place.title
            is_variable = place.holder is self.frame.names
            try:
                if is_variable and place.key != RESULT and self.frame.function.loads[place.key] == own[place.key]:
                    raise Unsupported(f"{place.key!r} is read by another round than the one that sets it", SPLIT)
                merged[place] = a if a is b else paired(a, b, self._join)
            except Unsupported as fault:
                if place.key == RESULT:
                    raise Unsupported("returns in one of two branches that the network's data choose between",
                                      EARLY) from None  # fmt: skip
                if not is_variable:
                    raise Unsupported(f"{place.title!r} {fault.reason}", fault.remedy) from None
                merged[place] = Undecided(fault)
        return merged

    def _join(self, a: Any, b: Any) -> Any:
        if same(a, b):
            return a
        if a is True and b is False:
            return self.condition
        known = self._joined.get((id(a), id(b)))
        if known is not None:
            return known
        pair = self._value(0, a), self._value(1, b)
        control.common_type(pair[0].type, pair[1].type)
        made = Tensor.of(pair[0])
        made.store.is_open = any(isinstance(x, Tensor) and self.memory.is_shared(x) for x in (a, b))
        if pair[0] is not pair[1]:
            self.pairs.append(pair)
            self.results.append(made)
            self.names.append(self._title)
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            self._joined[id(a), id(b)] = made
        return made

    def _value(self, side: int, leaf: Any) -> Value:
        found = self._values[side].get(id(leaf))
        return value_of(self.e, leaf) if found is None else found

    def _give_up(self, bodies: Sequence[control.Body]) -> None:
        for body in reversed(bodies):
            body.discard()

    def _emit(self, bodies: Sequence[control.Body]) -> None:
        """The op that chooses, where the branches leave different values."""
        if not self.pairs:
            self._give_up(bodies)
            return
        for side, body in enumerate(bodies):
            body.close([pair[side] for pair in self.pairs])
        builder = self.e.operators.builder
        self.e.operators.locate(self.record)
        values = control.choice(builder, self.chosen, *bodies)
        for tensor, value, name in zip(self.results, values, self.names, strict=True):
            value.name = builder.fresh_name(node_name(self.frame.path, "" if name == RESULT else name, "if"))
            tensor.store.value = tensor._value = value


# -- loops -------------------------------------------------------------------------------------------------------------
class Start:
    """The start of a loop whose first condition is known; to come back to where the data decide the next one."""

    def __init__(self, e: Evaluator, frame: Frame) -> None:
        self.e = e
        self.memory = Memory(frame.names, e.instances)
        self.body = control.Body(e.operators.builder)
        self.mark = e.operators.mark()

    def again(self) -> bool:
        """Undo the first round; gives the condition there was."""
        self.body.discard()
        self.memory.restore()
        self.e.operators.rewind(self.mark)
        return True


def repeat(
    e: Evaluator, node: ast.While | ast.For, frame: Frame, condition: Any, trips: Value | None,
    run: Callable[[Tensor], Any],
) -> None:  # fmt: skip
    """Follow a loop's body as one that the host repeats. `run` takes the round's number, follows the body once, and
    gives whether to go on.
    """
    _Repetition(e, node, frame, run).follow(condition, trips)


class _Repetition:
    """A loop, and what it is found to carry from round to round."""

    def __init__(self, e: Evaluator, node: ast.While | ast.For, frame: Frame, run: Callable[[Tensor], Any]) -> None:
        self.e = e
        self.node = node
        self.frame = frame
        self.run = run
        self.record: NodeRecord = e.operators.begin("prim::Loop", node_name(frame.path, "", "loop"))
        self.memory = Memory(frame.names, e.instances)
        self.locals = _locals(node, frame)
        self.carried: list[Place] = []

    def follow(self, condition: Any, trips: Value | None) -> None:
        builder = self.e.operators.builder
        first = None if condition is None else value_of(self.e, condition)
        for _ in range(MOST_TRIALS):
            initial = [value_of(self.e, leaf) for place in self.carried for leaf in leaves(self.memory.before(place))]
            names = [place.title for place in self.carried for _ in leaves(self.memory.before(place))]
            loop: control.Loop | None = control.Loop(builder, initial, ["round", "going", *names])
            while loop is not None:
                mark = self.e.operators.mark()
                try:
                    found, going = self._trial(loop)
                    if found is None:
                        return
                    if found:
                        loop.discard()
                    elif loop.close(value_of(self.e, going), self._left()):
                        self._finish(loop, trips, first)
                        return
                except Unsupported:
                    loop.discard()
                    self.memory.restore()
                    raise
                self.memory.restore()
                self.e.operators.rewind(mark)
                loop = None if found else loop.again()
            self.carried += found or []
        raise Unsupported("carries values from round to round that never settle", control.HOST_LOOP)

    def _trial(self, loop: control.Loop) -> tuple[list[Place] | None, Any]:
        """Follow the body once: places it changes that are not carried yet (None where something was not converted),
        and whether to go on.
        """
        arguments = iter(loop.carried)
        for place in self.carried:
            self.memory.put(place, self._replaced(self.memory.before(place), arguments))
        going = self.run(Tensor.of(loop.number))
        changes = self.memory.changes()
        blocked = [place for place, value in changes.items() if _holds_blocked(value)]
        if going is BLOCKED or blocked:
            loop.discard()
            self.memory.restore()
            for place in changes:
                if place.holder is self.frame.names:
                    self.memory.put(place, BLOCKED)
            return None, going
        missing = [place for place in changes if place not in self.carried and self._matters(place)]
        for place in missing:
            self._check(place, self.memory.before(place), changes[place])
        return missing, going

    def _matters(self, place: Place) -> bool:
        """Whether a place keeps something from one round to the next, or beyond the loop."""
        if place.holder is not self.frame.names:
            return True
        return place.key not in self.locals and self.memory.before(place) is not ABSENT

    def _check(self, place: Place, before: Any, after: Any) -> None:
        """Raise Unsupported where a place changes its kind."""
        try:
            paired(before, after, lambda a, b: a)
        except Unsupported as fault:
            raise Unsupported(f"{place.title!r} {fault.reason}", fault.remedy) from None

    def _replaced(self, x: Any, values: Iterator[Value]) -> Any:
        """A value with other tensors in the places of its tensors and numbers."""

        def replace(leaf: Any, _: Any) -> Tensor:
            made = Tensor.of(next(values))
            made.store.is_open = isinstance(leaf, Tensor) and self.memory.is_shared(leaf)
            return made

        return paired(x, x, replace)

    def _left(self) -> list[Value]:
        """What the carried places hold after a round."""
        found: list[Value] = []
        for place in self.carried:
            after = self.memory.now(place)
            self._check(place, self.memory.before(place), after)
            found += [value_of(self.e, leaf) for leaf in leaves(after)]
        return found

    def _finish(self, loop: control.Loop, trips: Value | None, first: Value | None) -> None:
        builder = self.e.operators.builder
        self.memory.restore()
        self.e.operators.locate(self.record)
        results = loop.results(trips, first)
        for argument, result in zip(loop.names[2:], results, strict=True):
            result.name = builder.fresh_name(node_name(self.frame.path, argument, "loop"))
        values = iter(results)
        for place in self.carried:
            self.memory.put(place, self._replaced(self.memory.before(place), values))


def _holds_blocked(x: Any) -> bool:
    if isinstance(x, list | tuple | dict):
        return any(map(_holds_blocked, x.values() if isinstance(x, dict) else x))
    return x is BLOCKED


def _locals(node: ast.While | ast.For, frame: Frame) -> set[str]:
    """Variables that a round sets before it reads them, and that nothing outside the loop reads."""
    own, read = loads_of(node), set(loads_of(node.test) if isinstance(node, ast.While) else ())
    found = assigned(node.target) if isinstance(node, ast.For) else []
    for statement in node.body:
        read |= set(loads_of(statement))
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            found += [name for name in assigned(statement) if name not in read]
    return {name for name in found if frame.function.loads[name] == own[name]}
