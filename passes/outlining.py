"""What stands around a group of ops that is made a function or a kernel of its own."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.ir.core import Constant, Op, Result, Value


def boundary(ops: Sequence[Op]) -> tuple[list[Value], list[Result]]:
    """The values a group of ops takes from outside, constants excepted, and those of its own that others take; in
    order."""
    inside = set(ops)
    taken = dict.fromkeys(
        v for op in ops for v in op.inputs if not isinstance(v, Constant) and v.producer not in inside
    )
    given = [r for op in ops for r in op.results if any(user not in inside for user in r.users)]
    return list(taken), given
