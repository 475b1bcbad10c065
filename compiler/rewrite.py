"""Patterns over ops and the greedy rewriter that applies them until nothing matches.

A pattern says what a small piece of the graph looks like; a rewrite function changes it, or declines and says why. The
rewriter keeps a worklist, so the work is about linear in the ops that change; it observes what happened through the
module's mutation counter, counts every rewrite (bisection sets a limit on that count), unites the locations of the ops
it matched, and keeps names: a new value takes the name of the value it stands for. Which rewrites are worth doing is
the passes' business, not this module's.

    CONV_BN = pattern(BatchNorm, x=pattern(Conv2d, bind="conv"), scale=constant(), bind="bn")
    apply_rules(module, [Rule(CONV_BN, fold)])
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from compiler.ir.core import Block, Constant, Function, Module, Op, Value
from compiler.ir.location import Location
from compiler.ir.types import QuantType, TensorType

SHARED = "shared"
"""The reason counted when a pattern fits but for a value that something else takes too."""


class Declined(Exception):
    """Returned or raised by a rewrite function that leaves a match alone; the reason is counted."""

    @property
    def reason(self) -> str:
        return str(self.args[0]) if self.args else "declined"


# -- patterns ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _State:
    """What is matched so far; immutable, so that the other order of a commutative op can be tried."""

    bindings: dict[str, Any] = field(default_factory=dict)
    ops: tuple[Op, ...] = ()
    shared: bool = False
    """Whether a value on the way is shared that must not be: no match, but a reason."""

    def bound(self, name: str | None, thing: Any) -> _State | None:
        """With `name` standing for `thing`; None if it stands for something else already."""
        if name is None:
            return self
        if name in self.bindings:
            return self if self.bindings[name] is thing else None
        return replace(self, bindings={**self.bindings, name: thing})


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """What a value may be. `bind` names it in the match; `where` is a further condition on it."""

    bind: str | None = None
    where: Callable[[Any], bool] | None = None

    def matches(self, value: Value | None, state: _State) -> Iterator[_State]:
        """Every way the value fits."""
        if value is not None and self.accepts(value) and (self.where is None or self.where(value)):
            extended = state.bound(self.bind, value)
            if extended is not None:
                yield extended

    def accepts(self, value: Value) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class ConstantPattern(Pattern):
    """A constant of the module."""

    def accepts(self, value: Value) -> bool:
        return isinstance(value, Constant)


@dataclass(frozen=True, kw_only=True)
class AbsentPattern(Pattern):
    """An optional operand that is not there."""

    def matches(self, value: Value | None, state: _State) -> Iterator[_State]:
        if value is None:
            yield state


@dataclass(frozen=True, kw_only=True)
class OpPattern(Pattern):
    """The first result of an op called one of `names` (any op if empty) whose operands fit; `bind` binds the op."""

    names: tuple[str, ...] = ()
    operands: dict[str, Pattern] = field(default_factory=dict)
    allow_shared: bool = False

    def matches(self, value: Value | None, state: _State) -> Iterator[_State]:
        op = value.producer if value is not None else None
        if op is None or value is not op.results[0]:
            return
        if not self.allow_shared and not value.has_one_use:
            state = replace(state, shared=True)
        yield from self.match_op(op, state)

    def match_op(self, op: Op, state: _State) -> Iterator[_State]:
        """Every way the op itself fits, whatever its uses."""
        if (self.names and op.op_name not in self.names) or (self.where is not None and not self.where(op)):
            return
        extended = state.bound(self.bind, op)
        if extended is None:
            return
        extended = replace(extended, ops=(*extended.ops, op))
        for slots in self._orders(op):
            yield from self._match_operands(slots, extended)

    def _orders(self, op: Op) -> Iterator[list[tuple[Pattern, Value | None]]]:
        """The pattern's operands paired with the op's; commutative ops a second time with the first two swapped."""
        given = list(op.operands)
        indices = {spec.name: spec.index for spec in op.signature.operands}
        unknown = self.operands.keys() - indices.keys()
        if unknown:
            raise ValueError(f"pattern names operand {min(unknown)!r}, which {op.op_name} does not have")
        yield [(p, given[indices[name]]) for name, p in self.operands.items()]
        if "commutative" in op.signature.traits and any(indices[name] < 2 for name in self.operands):
            given[0], given[1] = given[1], given[0]
            yield [(p, given[indices[name]]) for name, p in self.operands.items()]

    def _match_operands(self, slots: Sequence[tuple[Pattern, Value | None]], state: _State) -> Iterator[_State]:
        if not slots:
            yield state
            return
        (first, value), *rest = slots
        for extended in first.matches(value, state):
            yield from self._match_operands(rest, extended)


def pattern(
    *kinds: type[Op] | str, bind: str | None = None, where: Callable[[Any], bool] | None = None, **operands: Pattern
) -> OpPattern:
    """An op of one of `kinds` (classes or names; none: any op), its operands by name fitting `operands`.

    Values between the ops of a pattern must have one use; see `shared`. For a commutative op either order of its first
    two operands will do. `bind` names the op in the match, `where` is a condition on it.
    """
    names = tuple(kind if isinstance(kind, str) else kind.signature.name for kind in kinds)
    return OpPattern(names=names, operands=operands, bind=bind, where=where)


def shared(inner: OpPattern) -> OpPattern:
    """The same pattern, also where something else takes the value."""
    return replace(inner, allow_shared=True)


def constant(bind: str | None = None, where: Callable[[Any], bool] | None = None) -> ConstantPattern:
    """A constant of the module; `where` is a condition on the `Constant`."""
    return ConstantPattern(bind=bind, where=where)


def anything(bind: str | None = None, where: Callable[[Any], bool] | None = None) -> Pattern:
    """Any value that is there; the same name twice means the same value twice."""
    return Pattern(bind=bind, where=where)


def absent() -> AbsentPattern:
    """An optional operand that is not given."""
    return AbsentPattern()


class Match:
    """One fit of a pattern: `root`, every op matched (`ops`, root first), and the bound names as attributes."""

    def __init__(self, root: Op, bindings: dict[str, Any], ops: tuple[Op, ...]) -> None:
        self.root: Any = root  # an Op; Any, because rules use the fields of the op they matched
        self.bindings = bindings
        self.ops = tuple(dict.fromkeys(ops))

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["bindings"][name]
        except KeyError:
            raise AttributeError(f"the pattern binds no {name!r}") from None

    @property
    def location(self) -> Location:
        """Where all matched ops came from."""
        return Location.union(op.location for op in self.ops)


def find_match(wanted: OpPattern, op: Op) -> Match | Declined | None:
    """The first way `op` is the root of a match; `Declined` if only a shared value was in the way; None otherwise."""
    in_the_way = False
    for state in wanted.match_op(op, _State()):
        if not state.shared:
            return Match(op, state.bindings, state.ops)
        in_the_way = True
    return Declined(SHARED) if in_the_way else None


# -- rules and counting ------------------------------------------------------------------------------------------------
RewriteFunction = Callable[[Match, "Rewriter"], object]


@dataclass(frozen=True, eq=False)
class Rule:
    """A pattern and what to do with a match of it.

    The function changes the graph through the rewriter (or the ops' own methods) or returns/raises `Declined`. What it
    changed is observed; its other return values mean nothing.
    """

    pattern: OpPattern
    function: RewriteFunction
    name: str = ""

    @property
    def label(self) -> str:
        return self.name or getattr(self.function, "__name__", type(self.function).__name__).strip("_")


@dataclass
class RewriteCounter:
    """Counts rewrites over a whole pipeline, and stops them at `limit`: what bisection turns."""

    count: int = 0
    limit: int | None = None
    last: str = ""

    @property
    def exhausted(self) -> bool:
        return self.limit is not None and self.count >= self.limit

    def take(self, description: str) -> bool:
        """Count one rewrite about to be made; False when the limit forbids it. For passes without rules."""
        if self.exhausted:
            return False
        self.count += 1
        self.last = description
        return True


@dataclass
class RewriteResult:
    """What a run of the rewriter did: rewrites by rule label, and the reasons of matches left alone."""

    applied: Counter[str] = field(default_factory=Counter)
    declined: Counter[str] = field(default_factory=Counter)

    @property
    def changed(self) -> bool:
        return bool(self.applied)


# -- the rewriter ------------------------------------------------------------------------------------------------------
class Rewriter:
    """What a rewrite function changes the graph with. Lives for one run; `match` is the match being rewritten."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.match: Match | None = None
        self._new: list[Op] = []
        self._seen: list[Op] = []
        self._derived: list[tuple[Constant, Constant]] = []

    def create(
        self,
        kind: type[Op],
        *operands: Value | None,
        before: Op | None = None,
        types: Sequence[TensorType] | None = None,
        names: Sequence[str] = (),
        location: Location | None = None,
        **attributes: Any,
    ) -> Op:
        """A new op in front of `before` (the match's root by default), with the locations of all matched ops united."""
        if location is None:
            location = self._match.location
        new = kind(*operands, types=types, names=names, location=location, **attributes)
        return self.insert(new, before)

    def insert(self, new: Op, before: Op | None = None) -> Op:
        """Put a detached op in front of `before` (the match's root by default)."""
        anchor = before if before is not None else self._match.root
        assert anchor.block is not None
        anchor.block.insert_before(anchor, new)
        self._new.append(new)
        return new

    def replace(self, old: Op, *values: Value) -> None:
        """Let `values` stand for the results of `old` and erase it; new nameless values take over the old names."""
        for result, value in zip(old.results, values, strict=True):
            if not isinstance(value, Value):
                raise TypeError(f"a value stands for a value, not {value!r}: give its .result")
            self.replace_value(result, value)
        self.erase(old)

    def replace_value(self, old: Value, new: Value) -> None:
        """Let every taker of `old` take `new`; a new nameless value takes the old name."""
        self._seen += old.users
        if not new.name and new.producer is not None:
            new.name = old.name
        keep_output_names(old, new)
        old.replace_all_uses_with(new)

    def erase(self, op: Op) -> None:
        """Remove an op nothing takes a result of, and whatever only it needed."""
        erase_dead(op, self._seen)

    def constant(self, name: str, data: np.ndarray, quant: QuantType | None = None) -> Constant:
        """A constant of the module."""
        return self.module.add_constant(name, data, quant)

    def derive(self, old: Constant, data: np.ndarray, quant: QuantType | None = None) -> Constant:
        """A constant computed from `old`; it takes over the name if nothing needs `old` when the rewrite is done."""
        new = self.module.add_constant(old.name, data, quant)
        if new is not old:
            self._derived.append((old, new))
        return new

    @property
    def _match(self) -> Match:
        if self.match is None:
            raise ValueError("no rewrite is under way")
        return self.match


def inherit_names(module: Module, derived: Sequence[tuple[Constant, Constant]]) -> None:
    """Let each new constant have the name and place of the old one it was computed from, if that is not needed any
    more.

    One pass over the constants, however many pairs there are.
    """
    constants = module.constants
    scales = {c.type.quant.params for c in constants.values() if c.type.quant is not None}
    successor: dict[Constant, Constant] = {}
    for old, new in derived:
        free = not old.uses and old.name not in scales and constants.get(old.name) is old
        if free and constants.get(new.name) is new and old not in successor:
            successor[old] = new
    if not successor:
        return
    moved = set(successor.values())
    kept = [c for c in constants.values() if c not in moved]
    constants.clear()
    for constant in kept:
        name = constant.name
        while constant in successor:
            constant = successor[constant]
        constant.name = name
        constants[name] = constant
    module.version += 1


def erase_dead(op: Op, freed: list[Op] | None = None) -> int:
    """Erase `op` if nothing takes its results, then the producers that only it needed; returns how many went.

    Producers that stay because something else takes them are added to `freed`.
    """
    stack, erased = [op], 0
    while stack:
        candidate = stack.pop()
        if candidate.block is None or "terminator" in candidate.signature.traits:
            continue
        if any(result.uses for result in candidate.results):
            if freed is not None:
                freed.append(candidate)
            continue
        producers = [p for v in candidate.inputs if (p := v.producer) is not None]
        for region in candidate.regions:
            producers += [p for o in region.block for v in o.inputs if (p := v.producer) is not None]
        candidate.erase()
        erased += 1
        stack += [p for p in producers if p.block is not None]
    return erased


def keep_output_names(old: Value, new: Value) -> None:
    """Before `new` takes the place of `old`: if a function returns `old`, keep the name users know the output by."""
    if old.name == new.name:
        return
    for user in old.users:
        function = user.function
        if user.op_name == "graph.return" and function is not None and not function.attributes.get("outputs"):
            function.attributes["outputs"] = function.output_names


class NotConverging(RuntimeError):
    """Rules undo one another: a mistake in a pass."""


class _Worklist:
    """Ops to look at, in order, each once."""

    def __init__(self) -> None:
        self._queue: deque[Op] = deque()
        self._waiting: set[Op] = set()

    def push(self, ops: Iterable[Op]) -> None:
        for op in ops:
            if op.block is not None and op not in self._waiting:
                self._waiting.add(op)
                self._queue.append(op)

    def __iter__(self) -> Iterator[Op]:
        while self._queue:
            op = self._queue.popleft()
            self._waiting.discard(op)
            if op.block is not None:
                yield op


def apply_rules(
    scope: Module | Function | Block, rules: Sequence[Rule], counter: RewriteCounter | None = None
) -> RewriteResult:
    """Apply `rules`, the earlier ones first, to every op of `scope` until none matches, and say what was done.

    Raises `NotConverging` when the rewrites do not end.
    """
    return _Run(scope, rules, counter or RewriteCounter()).run()


class _Run:
    """One run of the rewriter."""

    def __init__(self, scope: Module | Function | Block, rules: Sequence[Rule], counter: RewriteCounter) -> None:
        module = scope if isinstance(scope, Module) else scope.module
        if module is None:
            raise ValueError("cannot rewrite a function outside a module")
        self.scope = scope
        self.rewriter = Rewriter(module)
        self.module = module
        self.counter = counter
        self.result = RewriteResult()
        self.declines: dict[tuple[Op, Rule], str] = {}
        self.derived: list[tuple[Constant, Constant]] = []
        self.by_name: dict[str, list[Rule]] = {}
        self.rules = rules
        self.budget = 0

    def run(self) -> RewriteResult:
        changed = True
        self.budget = 1000 + 50 * sum(1 for _ in self._ops())
        # A function may change ops the rewriter cannot see it change, so sweeps repeat until one finds nothing.
        while changed and not self.counter.exhausted:
            worklist, changed = _Worklist(), False
            worklist.push(list(self._ops()))
            for op in worklist:
                touched = self._visit(op)
                if touched is not None:
                    changed = True
                    worklist.push(touched)
                if self.counter.exhausted:
                    break
        inherit_names(self.module, self.derived)
        for (op, rule), reason in self.declines.items():
            if op.block is not None:
                self.result.declined[f"{rule.label}: {reason}"] += 1
        return self.result

    def _ops(self) -> Iterator[Op]:
        if isinstance(self.scope, Module):
            return self.scope.ops()
        return self.scope.walk() if isinstance(self.scope, Function) else iter(self.scope)

    def _rules_for(self, op: Op) -> list[Rule]:
        found = self.by_name.get(op.op_name)
        if found is None:
            found = [r for r in self.rules if not r.pattern.names or op.op_name in r.pattern.names]
            self.by_name[op.op_name] = found
        return found

    def _visit(self, op: Op) -> list[Op] | None:
        """Try the rules on one op; the ops to look at again after a change, None if there was none.

        Rules reckon with shapes: what has an unknown one runs on the host, as it is.
        """
        if any(None in v.type.shape for v in (*op.inputs, *op.results)):
            return None
        for rule in self._rules_for(op):
            match = find_match(rule.pattern, op)
            if match is None:
                self.declines.pop((op, rule), None)  # what was declined once may have come apart since
                continue
            touched = match if isinstance(match, Declined) else self._rewrite(rule, match)
            if isinstance(touched, Declined):
                self.declines[op, rule] = touched.reason
            elif touched is not None:
                return touched
        return None

    def _rewrite(self, rule: Rule, match: Match) -> list[Op] | Declined | None:
        rewriter, version = self.rewriter, self.module.version
        label, place = rule.label, match.root.name
        around = list(_neighbours(match.ops))
        rewriter.match, rewriter._new, rewriter._seen, rewriter._derived = match, [], [], []
        try:
            outcome = rule.function(match, rewriter)
        except Declined as declined:
            outcome = declined
        rewriter.match = None
        if isinstance(outcome, Declined):
            if self.module.version != version:
                raise ValueError(f"rewrite {label!r} changed the module and then declined: {outcome.reason}")
            return outcome
        if self.module.version == version:
            return None
        self.declines.pop((match.root, rule), None)
        self._count(label, place)
        for op in match.ops:
            rewriter.erase(op)
        self.derived += rewriter._derived
        return [*rewriter._new, *around, *rewriter._seen, *_neighbours(rewriter._new)]

    def _count(self, label: str, place: str) -> None:
        self.counter.take(f"{label} at {place}")
        self.result.applied[label] += 1
        self.budget -= 1
        if self.budget < 0:
            raise NotConverging(f"rewrites do not end; the last was {label!r} at {place!r}")


def _neighbours(ops: Iterable[Op]) -> Iterator[Op]:
    """The ops, what they take and what takes them."""
    for op in ops:
        if op.block is None:
            continue
        yield op
        for value in op.inputs:
            if value.producer is not None:
                yield value.producer
        for result in op.results:
            yield from result.users
