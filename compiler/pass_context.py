"""What a pass is and what it is given: the base class, the context, the counts it leaves.

A pass is a frozen dataclass that rewrites a module in place; its fields are its options. It is found by name, never
registered by hand (see `pipelines`), and run by `pass_manager`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from compiler.errors import Diagnostic
from compiler.ir.core import Block, Function, Module
from compiler.rewrite import OpPattern, RewriteCounter, RewriteFunction, Rule, apply_rules

Patterns: TypeAlias = OpPattern | Rule | Sequence["Rule | tuple[OpPattern, RewriteFunction]"]


_DECLINED = " declined: "


@dataclass
class Statistics:
    """What passes counted, by pass and reason: "merged", "fold declined: scale too large"."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    current: str = ""

    def count(self, reason: str, amount: int = 1) -> None:
        """Add to a count of the pass that is running."""
        if amount:
            self.counts.setdefault(self.current, Counter())[reason] += amount

    def of(self, name: str) -> Counter[str]:
        """The counts of all runs of a pass."""
        return self.counts.get(name, Counter())

    def left_alone(self, name: str) -> dict[str, dict[str, int]]:
        """What a pass declined: rewrite → reason → how often."""
        found: dict[str, dict[str, int]] = {}
        for reason, amount in sorted(self.of(name).items()):
            label, declined, why = reason.partition(_DECLINED)
            if declined:
                found.setdefault(label, {})[why] = amount
        return found

    def __str__(self) -> str:
        lines = []
        for name, counts in self.counts.items():
            lines.append(name)
            done = {reason: amount for reason, amount in counts.items() if _DECLINED not in reason}
            lines += [f"  {amount:6}  {reason}" for reason, amount in sorted(done.items())]
            for label, reasons in self.left_alone(name).items():
                why = ", ".join(f"{amount} {reason}" for reason, amount in reasons.items())
                lines.append(f"  {sum(reasons.values()):6}  left alone by {label}: {why}")
        return "\n".join(lines)


@dataclass
class PassContext:
    """What a pass may ask and tell: the target, rewriting, statistics, diagnostics, the compilation's options.

    `target` follows the protocol of `compiler.target`; None where a pipeline is target-neutral. `options` hold what the
    whole compilation was asked for (plain data: they are written into reproducers). `counter` counts rewrites.
    """

    target: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=Statistics)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    counter: RewriteCounter = field(default_factory=RewriteCounter)

    def rewrite(
        self, scope: Module | Function | Block, patterns: Patterns, function: RewriteFunction | None = None
    ) -> int:
        """Rewrite to a fixpoint; returns the number of rewrites. Counts them by function, declines by reason.

        `ctx.rewrite(module, CONV_BN, self.fold)`, or a list of `Rule`s or (pattern, function) pairs, first ones first.
        """
        result = apply_rules(scope, as_rules(patterns, function), self.counter)
        for label, amount in result.applied.items():
            self.statistics.count(label, amount)
        for reason, amount in result.declined.items():
            label, _, why = reason.partition(": ")
            self.statistics.count(f"{label}{_DECLINED}{why}", amount)
        return sum(result.applied.values())

    def may_rewrite(self, description: str) -> bool:
        """Count one change a pass is about to make without `rewrite`; False when bisection has forbidden it."""
        return self.counter.take(description)

    def diagnose(self, code: str, message: str, *, severity: str = "warning", **fields: Any) -> None:
        """Tell the user something that does not stop the compilation; `fields` are those of `Diagnostic`."""
        self.diagnostics.append(Diagnostic(code=code, message=message, severity=severity, **fields))


def as_rules(patterns: Patterns, function: RewriteFunction | None = None) -> list[Rule]:
    """Rules of whatever `PassContext.rewrite` takes. Raises TypeError for a pattern without a function."""
    if isinstance(patterns, Rule):
        return [patterns]
    if isinstance(patterns, OpPattern):
        if function is None:
            raise TypeError("a pattern needs a rewrite function")
        return [Rule(patterns, function)]
    return [r if isinstance(r, Rule) else Rule(*r) for r in patterns]


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Base of all passes. Subclasses are frozen, keyword-only dataclasses with a `name`; their fields are the options.

    Supported kinds of options: int, float, bool, str, Literal[...], tuple[X, ...], `X | None`. A field with metadata
    `text=False` cannot be given in pipeline text.
    """

    name: ClassVar[str] = ""
    requires_target: ClassVar[bool] = False
    follows: ClassVar[str] = ""
    """Name of the pass whose rules (`compiler.ir.verifier.LEVELS`) must hold before this one can run."""

    def run(self, module: Module, ctx: PassContext) -> None:
        """Rewrite `module` in place."""
        raise NotImplementedError(f"pass {self.name!r} does not say what it does")

    @classmethod
    def summary(cls) -> str:
        """First line of the documentation."""
        return (cls.__doc__ or "").strip().partition("\n")[0]

    def __str__(self) -> str:
        from compiler.pipelines import print_pipeline

        return print_pipeline([self])


def function_pass(name: str, function: Callable[[Module, PassContext], None]) -> Pass:
    """A pass of one function, without options; for tests and scripts."""

    @dataclass(frozen=True, kw_only=True)
    class FunctionPass(Pass):
        def run(self, module: Module, ctx: PassContext) -> None:
            function(module, ctx)

    FunctionPass.name = name
    FunctionPass.__doc__ = function.__doc__
    return FunctionPass()
