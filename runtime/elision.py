"""Reading data where it lies instead of copying it, and dropping the copies nobody needs any more.

An operand whose bytes all come, through copies, from one place is read at that place when the place still holds the
same bytes: always for constants and inputs, which are read-only, however many copies brought them in pieces; and for
other memory when one dense copy brought all of it and nothing writes there between that and the reader. Filters are
then read straight from the file's layout, small vectors straight from the constants; gathered tiles are left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from runtime.dataflow import Flow, analyse, origins
from runtime.kernels import layout as L  # noqa: N812
from runtime.lowering import Spaces, place_alone
from runtime.operations import Access, Operation

MAX_CHAIN = 4
"""Copies followed back from a reader: constants to SRAM to WRAM is two."""
ROUNDS = 4
"""Passes over the program: a dropped copy can leave the one before it without readers."""


def elide(operations: list[Operation], spaces: Spaces, size: int) -> list[Operation]:
    """The operations with operands read at their origin, and without the copies this leaves unread."""
    operations = list(operations)
    fixed = origins(operations, size, [_shift_of(o) for o in operations], lambda a: spaces.is_read_only(a.base))
    elision = _Elision(operations, analyse(operations, size), fixed)
    for index in range(len(operations)):
        elision.visit(index)
    return _without_dead_copies(operations, spaces, size)


class _Elision:
    def __init__(self, operations: list[Operation], flow: Flow, fixed: list[list[int | None]]):
        self.operations, self.flow, self.fixed = operations, flow, fixed
        self.originals = list(operations)

    def visit(self, index: int) -> None:
        operation = self.operations[index]
        for k, access in enumerate(operation.reads):
            relocate = _relocations(operation).get(k)
            if relocate is None:
                continue
            distance = self.fixed[index][k]
            origin = self._origin(index, k, access) if distance is None else access.base + distance
            if origin is not None and origin != access.base:
                moved = _shifted(access, origin)
                operation = relocate(operation, origin - access.base)
                operation.reads = [moved if j == k else a for j, a in enumerate(operation.reads)]
                self.operations[index] = operation

    def _origin(self, reader: int, k: int, access: Access) -> int | None:
        """Where the bytes of an access were copied from, as far back as they stay unchanged until `reader`."""
        index, where, found = reader, access, None
        for _ in range(MAX_CHAIN):
            writer = self.flow.read(index, k)
            if writer < 0 or self.originals[writer].kernel != "copy":
                break
            copy = self.originals[writer]
            start = _source_of(copy, where)
            if start is None:
                break
            where = _shifted(where, start)
            if not self._is_overwritten(writer, reader):  # a buffer between may well be reused: the origin counts
                found = start
            index, k = writer, 0
        return found

    def _is_overwritten(self, copy: int, reader: int) -> bool:
        """Whether anything writes to a copy's source before the reader does its work, or that does itself: an operand
        read at its origin would overlap what is stored."""
        return int(self.flow.next_write[self.flow.first[copy]]) <= reader


def _shift_of(operation: Operation) -> int | None:
    """How far from where a copy writes every byte it reads that byte; None for other operations, and where rows lie
    at other distances than before."""
    w = operation.words
    loops = ((L.N0, L.DST0, L.SRC0), (L.N1, L.DST1, L.SRC1), (L.N2, L.DST2, L.SRC2))
    if operation.kernel != "copy" or any(w[n] > 1 and w[dst] != w[src] for n, dst, src in loops):
        return None
    return w[L.SRC] - w[L.DST]


def _source_of(copy: Operation, access: Access) -> int | None:
    """The address that the bytes of `access` come from in one dense copy that wrote them all; None for other copies."""
    words = copy.words
    if words[L.N0] * words[L.N1] * words[L.N2] != 1:
        return None
    start = words[L.DST]
    inside = start <= access.base and access.end <= start + words[L.RUN]
    return access.base - start + words[L.SRC] if inside else None


def _shifted(access: Access, base: int) -> Access:
    return Access(base, access.run, access.counts, access.strides)


# -- operands that can move --------------------------------------------------------------------------------------------
Relocate = Callable[[Operation, int], Operation]


def _word(name: int) -> Relocate:
    def relocate(operation: Operation, distance: int) -> Operation:
        words = dict(operation.words)
        words[name] += distance
        return replace(operation, words=words)

    return relocate


def _vector_source(operation: Operation, distance: int) -> Operation:
    vector = operation.vector
    assert vector is not None
    source = vector.source._replace(offset=vector.source.offset + distance)
    return _with_vector(operation, source=source)


def _vector_second(operation: Operation, distance: int) -> Operation:
    vector = operation.vector
    assert vector is not None and vector.second is not None
    return _with_vector(operation, second=vector.second._replace(offset=vector.second.offset + distance))


def _with_vector(operation: Operation, **values: object) -> Operation:
    assert operation.vector is not None
    vector = replace(operation.vector, **values)  # type: ignore[arg-type]
    moved = replace(operation, vector=vector, words=dict(operation.words))
    place_alone(moved)
    return moved


def _relocations(operation: Operation) -> dict[int, Relocate]:
    """Per index of a read access, how to read it elsewhere."""
    if operation.vector is not None:
        return {0: _vector_source, 1: _vector_second}
    return _BY_KERNEL.get(operation.kernel, {})


_BY_KERNEL: dict[str, dict[int, Relocate]] = {
    "conv": {0: _word(L.SRC), 1: _word(L.FILTERS)},
    "conv_wide": {0: _word(L.SRC), 1: _word(L.FILTERS)},
    "depthwise": {0: _word(L.SRC), 1: _word(L.WEIGHTS)},
    "pool": {0: _word(L.SRC)},
    "reduce": {0: _word(L.SRC)},
    "transpose": {0: _word(L.SRC)},
    "reshape_filter": {0: _word(L.SRC)},
    "copy": {0: _word(L.SRC)},
}


# -- dead copies -------------------------------------------------------------------------------------------------------
def _without_dead_copies(operations: list[Operation], spaces: Spaces, size: int) -> list[Operation]:
    for _ in range(ROUNDS):
        flow = analyse(operations, size)
        kept = [
            operation
            for operation, readers in zip(operations, flow.readers.tolist(), strict=True)
            if readers or operation.kernel not in ("copy", "fill") or _writes_outputs(operation, spaces)
        ]
        if len(kept) == len(operations):
            break
        operations = kept
    return operations


def _writes_outputs(operation: Operation, spaces: Spaces) -> bool:
    return any(write.end > min(spaces.outputs, default=write.end) for write in operation.writes)
