"""Nodes that run graphs: as they are, one of two, again and again, or once for every slice of tensors.

Where the network's data decide, the graphs become regions of host ops; where the program does, they are inlined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.frontend.aten.registry import convert
from compiler.frontend.common import control
from compiler.frontend.records import Malformed, Unsupported
from compiler.frontend.torch_export.schema import Subgraph, operator_of
from compiler.frontend.torchscript.tensors import Tensor
from compiler.ir.core import Constant, Value

if TYPE_CHECKING:
    from compiler.frontend.torch_export.nodes import Nodes

TOKEN = 0
"""Stands for the order of calls with effects."""

WRAPPERS = ("wrap_with_set_grad_enabled", "wrap_with_autocast", "wrap", "wrap_activation_checkpoint", "checkpoint",
            "hints_wrapper", "tag_activation_checkpoint", "invoke_subgraph")  # fmt: skip
"""Nodes that run a graph as it is."""

WRITES = "compute the new value and return it from the graph"


def run_subgraph(nodes: Nodes, name: str, args: Sequence[Any]) -> Any:
    """What a node of torch's higher-order operators gives."""
    kind = name.removeprefix("higher_order::")
    if kind in WRAPPERS:
        return _as_it_is(nodes, kind, args)
    runner = RUNNERS.get(kind)
    if runner is None:
        raise Unsupported("has no converter", "write the network with torch.cond, while_loop or scan, or without them")
    return runner(nodes, *args)


def _as_it_is(nodes: Nodes, kind: str, args: Sequence[Any]) -> Any:
    places = [i for i, a in enumerate(args) if isinstance(a, Subgraph)]
    if len(places) != 1:
        raise Malformed(f"runs {len(places)} graphs")
    rest = args[places[0] + 1 :]
    if kind == "invoke_subgraph" and rest and isinstance(rest[0], str):
        rest = rest[1:]
    return nodes.inlined(args[places[0]], rest)


def _in_order(nodes: Nodes, token: Any, target: Any, *args: Any) -> list[Any]:
    """A call that torch keeps in order with others by a token that goes in and comes out; nothing is reordered here
    that could matter.
    """
    if not isinstance(target, str):
        raise Malformed("does not name an operator")
    name, overload = operator_of(target)
    answer = convert(name, overload, nodes.builder, [nodes.plain(a) for a in args], {})
    return [TOKEN, *(nodes.wrapped(answer) if isinstance(answer, list | tuple) else [nodes.wrapped(answer)])]


# -- what is handed in and out -----------------------------------------------------------------------------------------
def _value(nodes: Nodes, x: Any) -> Value:
    """A tensor or number as a value."""
    if isinstance(x, Tensor):
        return nodes.value(x)
    if not isinstance(x, bool | int | float):
        raise Unsupported("gives something else than tensors and numbers", control.FIXED)
    return nodes.builder.constant(np.float32(x) if isinstance(x, float) else np.asarray(x))


def _known(nodes: Nodes, x: Any) -> bool | None:
    """A condition as a bool, where it is known."""
    value = nodes.value(x) if isinstance(x, Tensor) else None
    if value is not None and not isinstance(value, Constant):
        return None
    return bool(np.asarray(x if value is None else value.data).reshape(-1)[0])


def _own(nodes: Nodes, operands: Sequence[Any]) -> list[Any]:
    """Operands as tensors that share elements with nothing, read before the graph that takes them begins."""
    return [Tensor.of(nodes.value(x)) if isinstance(x, Tensor) else x for x in operands]


def _run(nodes: Nodes, graph: Any, operands: Sequence[Any]) -> list[Any]:
    """A graph inlined on operands of its own."""
    found = nodes.inlined(graph, operands)
    if any(isinstance(x, Tensor) and x.store.version for x in operands):
        raise Unsupported("writes to a tensor from outside its graph", WRITES)
    return found


# -- branches ----------------------------------------------------------------------------------------------------------
def _cond(nodes: Nodes, condition: Any, then: Any, other: Any, operands: Any = ()) -> list[Any]:
    known = _known(nodes, condition)
    if known is not None:
        return nodes.inlined(then if known else other, operands)
    chosen = nodes.value(condition)
    bodies = []
    for graph in (then, other):
        own = _own(nodes, operands)
        bodies.append(control.Body(nodes.builder))
        bodies[-1].close([_value(nodes, x) for x in _run(nodes, graph, own)])
    nodes.locate()
    return [Tensor.of(v) for v in control.choice(nodes.builder, chosen, *bodies)]


# -- loops -------------------------------------------------------------------------------------------------------------
def _while_loop(nodes: Nodes, test: Any, body: Any, carried: Any, others: Any = ()) -> list[Any]:
    """Unrolled as long as the condition is known; from the round on that the data decide, a region."""
    state, others = _own(nodes, carried), _own(nodes, others)
    (condition,) = _run(nodes, test, [*state, *others])
    for number in range(control.LONGEST_LOOP + 1):
        known = _known(nodes, condition)
        if known is None:
            return _repeated(nodes, test, body, state, others, _value(nodes, condition))
        if not known:
            return state
        first, mark = control.Body(nodes.builder), len(nodes.records)
        after = _own(nodes, _run(nodes, body, [*state, *others]))
        (condition,) = _run(nodes, test, [*after, *others])
        if number == 0 and _known(nodes, condition) is None:
            first.discard()
            del nodes.records[mark:]
            return _repeated(nodes, test, body, state, others, None)
        state = after
    raise Unsupported(f"has more than {control.LONGEST_LOOP} rounds", control.HOST_LOOP)


def _repeated(
    nodes: Nodes, test: Any, body: Any, state: Sequence[Any], others: Sequence[Any], first: Value | None
) -> list[Any]:
    initial = [_value(nodes, x) for x in state]
    names = ["round", "going", *(v.name or "carried" for v in initial)]
    loop = control.Loop(nodes.builder, initial, names)
    mark = len(nodes.records)
    while True:
        after = _own(nodes, _run(nodes, body, [*map(Tensor.of, loop.carried), *others]))
        (going,) = _run(nodes, test, [*after, *others])
        if loop.close(_value(nodes, going), [_value(nodes, x) for x in after]):
            nodes.locate()
            return [Tensor.of(v) for v in loop.results(None, first)]
        del nodes.records[mark:]
        loop = loop.again()


def _scan(nodes: Nodes, combine: Any, initial: Any, scanned: Any, others: Any = ()) -> list[Any]:
    """One round for each slice of `scanned` along their first axis; what a round gives beyond the state is stacked."""
    state, others, stacked = _own(nodes, initial), _own(nodes, others), []
    lengths = {nodes.value(x).type.static_shape[0] for x in scanned}
    if len(lengths) != 1 or not 1 <= max(lengths) <= control.LONGEST_LOOP:
        raise Unsupported(f"has {sorted(lengths)} rounds, 1 to {control.LONGEST_LOOP} are unrolled", control.HOST_LOOP)
    for number in range(lengths.pop()):
        mark = len(nodes.records)
        slices = [Tensor.of(nodes.call("aten::select", [nodes.value(x), 0, number], {})) for x in scanned]
        found = _own(nodes, _run(nodes, combine, [*state, *slices, *others]))
        state = found[: len(state)]
        stacked.append([_value(nodes, x) for x in found[len(state) :]])
        if number:
            del nodes.records[mark:]
    return [*state, *(Tensor.of(nodes.call("aten::stack", [list(v)], {})) for v in zip(*stacked, strict=True))]


def _map(nodes: Nodes, body: Any, mapped: Any, others: Any = ()) -> list[Any]:
    return _scan(nodes, body, [], mapped, others)


RUNNERS: dict[str, Callable[..., list[Any]]] = {
    "cond": _cond, "while_loop": _while_loop, "scan": _scan, "map_impl": _map, "with_effects": _in_order,
}  # fmt: skip
SUBGRAPHS = frozenset(f"higher_order::{name}" for name in (*WRAPPERS, *RUNNERS))
