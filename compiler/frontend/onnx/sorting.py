"""Which nodes of an ONNX graph are needed, and in what order; with the faults of graphs that have no such order."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence

import onnx

from compiler.errors import CompilerError, Diagnostic, did_you_mean


def captured_names(node: onnx.NodeProto) -> list[str]:
    """Names a node reads: its inputs, and those its subgraphs take from outside."""
    names = [n for n in node.input if n]
    pending: list[tuple[onnx.GraphProto, frozenset[str]]] = [(g, frozenset()) for g in _subgraphs(node)]
    while pending:
        graph, around = pending.pop()
        own = around.union(
            (i.name for i in graph.input), (t.name for t in graph.initializer), *(inner.output for inner in graph.node)
        )
        names += [o.name for o in graph.output if o.name not in own]
        for inner in graph.node:
            names += [n for n in inner.input if n and n not in own]
            pending += [(g, own) for g in _subgraphs(inner)]
    return names


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [g for a in node.attribute for g in (*([a.g] if a.HasField("g") else []), *a.graphs)]


def needed_in_order(
    nodes: Sequence[onnx.NodeProto], outputs: Iterable[str], is_defined: Callable[[str], bool], where: str
) -> list[onnx.NodeProto]:
    """The nodes that `outputs` depend on, producers first, otherwise in the given order.

    `is_defined` tells the names that exist before the graph runs. Raises CompilerError for names nobody defines,
    names defined twice, and cycles.
    """
    faults: list[Diagnostic] = []
    producer = _producers(nodes, faults, where)
    needed: set[int] = set()
    pending = list(_sources(outputs, producer))
    while pending:
        index = pending.pop()
        if index not in needed:
            needed.add(index)
            pending += _sources(captured_names(nodes[index]), producer)
    for index in sorted(needed):
        faults += _undefined(nodes[index], producer, is_defined, where)
    for name in outputs:
        if name not in producer and not is_defined(name):
            faults.append(_undefined_name(name, "graph output", producer, where))
    if faults:
        raise CompilerError(faults)
    return _sorted(nodes, needed, producer, where)


def _producers(nodes: Sequence[onnx.NodeProto], faults: list[Diagnostic], where: str) -> dict[str, int]:
    producer: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.output:
            if name and name in producer:
                first = nodes[producer[name]].name
                faults.append(Diagnostic(
                    code="E215", where=where, op=node.op_type,
                    message=f"tensor {name!r} is defined twice, by nodes {first!r} and {node.name!r}",
                    help="every tensor must have one producer: repair the exported model",
                ))  # fmt: skip
            elif name:
                producer[name] = index
    return producer


def _sources(names: Iterable[str], producer: dict[str, int]) -> list[int]:
    return [producer[n] for n in names if n in producer]


def _undefined(
    node: onnx.NodeProto, producer: dict[str, int], is_defined: Callable[[str], bool], where: str
) -> list[Diagnostic]:
    return [
        _undefined_name(name, f"node {node.name or node.output[0]!r} ({node.op_type})", producer, where)
        for name in node.input
        if name and name not in producer and not is_defined(name)
    ]


def _undefined_name(name: str, user: str, producer: dict[str, int], where: str) -> Diagnostic:
    return Diagnostic(
        code="E213", where=where, message=f"{user} needs tensor {name!r}, which nothing in the model defines",
        help=did_you_mean(name, producer) or "an initialiser or a node is missing: export the model again",
    )  # fmt: skip


def _sorted(
    nodes: Sequence[onnx.NodeProto], needed: set[int], producer: dict[str, int], where: str
) -> list[onnx.NodeProto]:
    users: dict[int, list[int]] = {i: [] for i in needed}
    waiting: dict[int, int] = {}
    for index in needed:
        sources = set(_sources(captured_names(nodes[index]), producer))
        waiting[index] = len(sources)
        for source in sources:
            users[source].append(index)
    ready = [i for i in needed if waiting[i] == 0]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users[index]:
            waiting[user] -= 1
            if waiting[user] == 0:
                heapq.heappush(ready, user)
    if len(order) < len(needed):
        stuck = [nodes[i].name or nodes[i].output[0] for i in sorted(needed - set(order))]
        raise CompilerError([Diagnostic(
            code="E214", where=where, message=f"{len(stuck)} nodes wait for each other's outputs (a cycle)",
            notes=(", ".join(map(repr, stuck[:10])) + (" …" if len(stuck) > 10 else ""),),
            help="an ONNX graph must not have cycles; recurrence is expressed by LSTM, Loop or state inputs",
        )])  # fmt: skip
    return [nodes[i] for i in order]
