"""What passes may ask of a target, and how targets are found.

A pass never imports a target and a target never imports a pass: the pass sees this protocol, and the target names its
passes as pipeline text. Facts of a chip stay behind these questions.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from compiler.errors import did_you_mean, error
from compiler.ir.core import Module, Op

TARGETS = {"mlu220": "targets.mlu220.target:Mlu220"}
"""Target name → "module:class". Data: nothing is imported before it is asked for."""

Role = Literal["anchor", "elementwise", "reduction", "movement", "view"]
Storage = Literal["own", "operand", "result"]


class Target(Protocol):
    """A chip, on a board, with a number of cores."""

    name: str
    cores: int
    lanes: int
    """Channels of a convolution's output at whose multiples the matrix unit is full."""
    memory_alignment: int
    """Bytes that every tensor in off-chip memory starts at a multiple of."""
    memory_bytes: int
    """Off-chip memory there is."""
    shared_alignment: int
    """Bytes that every tensor in the memory shared by the cores starts at a multiple of."""
    shared_bytes: int
    """Memory on the chip that its cores share."""
    pipeline: str
    """Text of the pipeline from a quantised module to scheduled kernels with addresses."""

    def supports(self, op: Op) -> str | None:
        """None if a neutral op (in the layout and types it has) can run on the chip, else the reason why not."""
        ...

    def role(self, op: Op) -> Role:
        """How a legalised op behaves in fusion. anchor: starts a kernel; elementwise: may follow one; reduction: may
        follow elementwise ops; movement: a kernel of its own; view: names memory, no instructions."""
        ...

    def reason_against_joining(self, group: Sequence[Op], op: Op) -> str | None:
        """None if `op` may join a kernel that holds `group`, else why not."""
        ...

    def storage(self, op: Op) -> Storage:
        """Where a view's bytes are: own (not a view), operand (result inside operand), result (operands inside
        result)."""
        ...

    def reason_against_chaining(self, first: Any, second: Any) -> str | None:
        """None if two kernels, the first feeding the second alone, may become one, else why not."""
        ...

    def best_schedule(self, kernel: Any, constraints: dict[str, Any]) -> tuple[dict[str, Any], float] | None:
        """The cheapest way to run a kernel that fits the chip's memories, as the value of its attribute `schedule`, and
        its modelled cycles; None if no way fits, or none takes less than the constraint `below`. The first of equals,
        so that the choice is deterministic."""
        ...

    def staged_parameters(self, kernel: Any) -> list[int]:
        """Bytes of each constant that a kernel loads as a whole and that can be brought to the shared memory in
        advance; 0 for those that cannot."""
        ...

    def emit(self, module: Module) -> Any:
        """The offline model of a module after the target's pipeline."""
        ...


def load_target(name: str, **options: Any) -> Target:
    """A target by name; `options` are those of its class (board, cores). Raises CompilerError E602 for an unknown
    name."""
    place = TARGETS.get(name)
    if place is None:
        raise error("E602", f"no target is called {name!r}", help=did_you_mean(name, TARGETS))
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)(**options)
