"""Joining runs of instructions into one kernel call: a convolution, pooling or elementwise head, elementwise steps,
a copy.

An elementwise instruction joins the group whose last result it alone reads, when the bytes between them are dead
afterwards. The group executes where its last member stood, so no operand of an earlier member may be overwritten in
between, except where the member's own result stood. Every step keeps its rounding: the bytes are the same. A copy of
the result may end a group: the store then goes where the copy would have taken it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from runtime.dataflow import Flow, analyse
from runtime.kernels import layout as L  # noqa: N812
from runtime.lowering import place_vector
from runtime.operations import Access, Geometry, Operation, Rows, Vector, merge

FLOATS = (L.TYPE_F16, L.TYPE_F32)


@dataclass
class _Group:
    """Operations to become one, in order, with the steps of all members under `geometry`. `swapped`: the members whose
    chained operand is their second one."""

    members: list[int]
    geometry: Geometry
    steps: list[list[int]]
    swapped: frozenset[int] = frozenset()


def fuse(operations: list[Operation], size: int) -> list[Operation]:
    """The operations with every legal group joined."""
    return _Fusion(operations, analyse(operations, size)).run()


class _Fusion:
    def __init__(self, operations: list[Operation], flow: Flow):
        self.operations, self.flow = operations, flow
        self.groups: dict[int, _Group] = {}
        """Last member → group."""
        self.vectors = {k: o.vector for k, o in enumerate(operations) if o.vector is not None}
        """Members as elementwise instructions; copies that joined a group are among them."""

    def run(self) -> list[Operation]:
        for index, operation in enumerate(self.operations):
            if operation.vector is not None:
                self._add(index, operation)
            elif operation.kernel == "copy":
                self._add_copy(index, operation)
            elif operation.target is not None and operation.geometry is not None:
                steps = [_rounding()] if operation.target.type == L.TYPE_F16 else []
                self.groups[index] = _Group([index], operation.geometry, steps)
        joined = {member for group in self.groups.values() for member in group.members}
        return [
            self._build(self.groups[index]) if index in self.groups else operation
            for index, operation in enumerate(self.operations)
            if index in self.groups or index not in joined
        ]

    def _add(self, index: int, operation: Operation) -> None:
        """Join an elementwise operation to a group, or start one with it."""
        for operand, swapped in self._operands(operation):
            writer = self.flow.read(index, operand)
            group = self.groups.get(writer)
            if group is None or not self._continues(writer, index, operand):
                continue
            larger = self._express([*group.members, index], group.swapped | ({index} if swapped else set()))
            if larger is not None and self._can_wait(larger, index):
                del self.groups[writer]
                self.groups[index] = larger
                return
        alone = self._express([index], frozenset())
        if alone is not None:
            self.groups[index] = alone

    def _add_copy(self, index: int, operation: Operation) -> None:
        """Let a group store where a copy of its result goes."""
        writer = self.flow.read(index, 0)
        group = self.groups.get(writer)
        if group is None or self.flow.readers[writer] != 1 or self.operations[writer].kernel == "copy":
            return
        before = self.operations[writer]
        assert before.target is not None
        vector = _copy_as_vector(operation, before.target.type)
        if vector is None or before.writes[-1] != operation.reads[0]:
            return
        self.vectors[index] = vector
        larger = self._express([*group.members, index], group.swapped)
        if larger is not None and self._can_wait(larger, index):
            del self.groups[writer]
            self.groups[index] = larger
        else:
            del self.vectors[index]

    @staticmethod
    def _operands(operation: Operation) -> Iterator[tuple[int, bool]]:
        """(index of the read access, whether it is the second operand) that a chain may continue through."""
        yield 0, False
        vector = operation.vector
        assert vector is not None
        if vector.kind < L.UNARY_BASE and vector.mode == L.FULL and operation.reads[0] != operation.reads[1]:
            yield 1, True

    def _continues(self, writer: int, index: int, operand: int) -> bool:
        """Whether `index` alone reads exactly what `writer` wrote, as floats, and through one operand only."""
        before, operation = self.operations[writer], self.operations[index]
        vector = operation.vector
        assert vector is not None
        result = before.writes[-1]
        others = [access for k, access in enumerate(operation.reads) if k != operand]
        return (
            self.flow.readers[writer] == 1
            and all(access.end <= result.base or result.end <= access.base for access in others)
            and before.target is not None
            and before.writes[-1] == operation.reads[operand]
            and before.target.type in FLOATS
            and before.target.type == vector.source.type
        )

    # -- geometry ------------------------------------------------------------------------------------------------------
    def _express(self, members: list[int], swapped: frozenset[int]) -> _Group | None:
        """The group under the first geometry in which every member can be said."""
        for geometry in self._geometries(members):
            steps = self._steps(members, swapped, geometry)
            if steps is not None and len(steps) <= L.MAX_STEPS:
                return _Group(members, geometry, steps, swapped)
        return None

    def _geometries(self, members: list[int]) -> list[Geometry]:
        head = self.operations[members[0]]
        if head.vector is None:
            assert head.geometry is not None
            return [head.geometry]
        vectors = [self.vectors[m] for m in members]
        plain = [Geometry(v.rows, 1, v.count) for v in vectors]
        return list(dict.fromkeys([*(v.natural for v in vectors), *plain]))

    def _steps(self, members: list[int], swapped: frozenset[int], geometry: Geometry) -> list[list[int]] | None:
        head = self.operations[members[0]]
        steps = [_rounding()] if head.vector is None and head.target and head.target.type == L.TYPE_F16 else []
        for member in members:
            vector = self.vectors.get(member)
            if vector is None:
                continue
            if vector.rows * vector.count != geometry.elements:
                return None
            if member == members[0] and vector.place(vector.source, geometry) is None:
                return None
            if vector.kind == L.NOTHING:
                steps += [_rounding()] if vector.rounded else []
                continue
            step = vector.step(geometry, member in swapped)
            if step is None:
                return None
            steps.append(step)
        last = self.vectors.get(members[-1])
        return steps if last is None or last.place(last.target, geometry) is not None else None

    # -- time ----------------------------------------------------------------------------------------------------------
    def _can_wait(self, group: _Group, last: int) -> bool:
        """Whether every operand from outside still holds its value where the last member stands."""
        inside = set(group.members[:-1])
        target = self.operations[last].writes[-1]
        for position, member in enumerate(group.members):
            operation = self.operations[member]
            for k, access in enumerate(operation.reads):
                chained = position > 0 and k == (1 if member in group.swapped else 0)
                if chained:
                    continue
                in_step = self._is_in_step(operation, k, last)
                if self._is_overwritten(member, k, access, inside, last, target if in_step else None):
                    return False
        return True

    def _is_in_step(self, operation: Operation, k: int, last: int) -> bool:
        """Whether an operand is read element by element as the last member stores. Elements of one size, or the same
        bytes could hold more of them, read several times."""
        vector = operation.vector
        if vector is None or not (k == 0 or vector.mode == L.FULL):
            return False
        return L.SIZES[vector.source.type] == L.SIZES[self.vectors[last].target.type]

    def _is_overwritten(
        self, member: int, k: int, access: Access, inside: set[int], last: int, target: Access | None
    ) -> bool:
        """Whether bytes of a read change before the group executes, or while it does: by its own store, unless that
        goes element by element over the same bytes (`target`)."""
        writer = int(self.flow.next_write[self.flow.first[member] + k])
        while writer in inside:  # a member's own result is not stored, so it overwrites nothing
            operation = self.operations[writer]
            if operation.writes[-1] != access:
                return True
            writer = int(self.flow.next_write[self.flow.first[writer] + len(operation.reads)])
        if member == last:  # an instruction reads and writes as `check` has proven legal
            return False
        return writer < last or (writer == last and access != target)

    # -- building ------------------------------------------------------------------------------------------------------
    def _build(self, group: _Group) -> Operation:
        first, last = self.operations[group.members[0]], self.operations[group.members[-1]]
        if len(group.members) == 1 and first.vector is None:
            return first
        fused = replace(first, words=dict(first.words), steps=group.steps)
        if first.vector is not None:
            place_vector(fused, group.geometry)
        final = self.vectors[group.members[-1]]
        fused.target = final.place(final.target, group.geometry)
        converting = self.operations[group.members[-2]] if last.kernel == "copy" else last
        if converting.vector is not None:
            fused.target_factor = converting.target_factor
            fused.words[L.ROUNDING] = converting.words[L.ROUNDING]
        fused.reads = merge([a for k, m in enumerate(group.members) for a in self._outside(group, k, m)])
        fused.writes = last.writes
        fused.core, fused.row = last.core, last.row
        return fused

    def _outside(self, group: _Group, position: int, member: int) -> list[Access]:
        """The reads of a member that do not come from the member before it."""
        reads = self.operations[member].reads
        chained = -1 if position == 0 else (1 if member in group.swapped else 0)
        return [access for k, access in enumerate(reads) if k != chained]


def _copy_as_vector(copy: Operation, kind: int) -> Vector | None:
    """A copy of rows as an elementwise instruction on elements of a type; None when it has more than rows."""
    words, size = copy.words, L.SIZES[kind]
    if words[L.N1] * words[L.N2] != 1 or words[L.RUN] % size:
        return None
    source, target = Rows(words[L.SRC], words[L.SRC0], kind), Rows(words[L.DST], words[L.DST0], kind)
    return Vector(rows=words[L.N0], count=words[L.RUN] // size, source=source, target=target, kind=L.NOTHING)


def _rounding() -> list[int]:
    """A step that only rounds to fp16."""
    step = [0] * L.STEP_WORDS
    step[L.KIND], step[L.ROUND] = L.NOTHING, 1
    return step
