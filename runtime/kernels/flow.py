"""The compiled passes of `dataflow.py` over atoms of memory."""

# mypy: ignore-errors
from __future__ import annotations

from compiler.native.borders import atom_at, mark, rank
from compiler.native.build import entry
from compiler.native.language import function
from compiler.native.memory import i64_at

NOBODY, SEVERAL, UNSEEN = -1, -2, -3
"""Sources of a read: memory that no operation wrote (constants, inputs), bytes of several writers, not looked at."""
UNMOVED = -(1 << 62)
"""The shift of an operation that does not copy."""
READ, NOTE_WRITER, NEXT_WRITER, READ_LEVEL, WRITE_LEVEL, NOTE_READ, NOTE_WRITE, READ_ORIGIN, NOTE_ORIGIN = range(9)
"""What a pass does with an access: see `sweep`."""
ROW = 8
"""Words of an access: base, run, three counts, three strides."""


@entry(6)
def cut(count, table, borders, ranks, words, result):
    """Mark where runs start and end, count the marks before each word; `result` gets the number of atoms."""
    for k in range(count):
        row = i64_at(table + k * ROW * 8)
        for i0 in range(row[2]):
            for i1 in range(row[3]):
                start = row[0] + i0 * row[5] + i1 * row[6]
                for _ in range(row[4]):
                    mark(borders, start)
                    mark(borders, start + row[1])
                    start += row[7]
    i64_at(result)[0] = rank(borders, ranks, words)


@function
def note_common(found, access, value):
    """`found` is the one value that all atoms of an access hold, or SEVERAL."""
    same = found[access] == UNSEEN or found[access] == value
    found[access] = value if same else SEVERAL


@entry(2)
def sweep(addresses, count):
    """Apply `count` events (what, access, operation) in order to the atoms of their accesses.

    READ: `found` of the access is the common last writer; count the operation among the writer's readers. NEXT_WRITER
    (backwards): `found` is the nearest writer. NOTE_WRITER: remember the operation as writer. Levels: `state` is the
    level after the last write, `other` that after the last write or read; READ_LEVEL and WRITE_LEVEL raise the
    operation's level above those, NOTE_READ and NOTE_WRITE raise them above the operation's. READ_ORIGIN: `found` is
    what all atoms hold. NOTE_ORIGIN: they hold what was found for the access before, the operation's shift further on.
    """
    a = i64_at(addresses)
    events, table, borders, ranks, state, other, readers, reader, found, level, shift = (
        i64_at(a[0]), a[1], a[2], a[3], i64_at(a[4]), i64_at(a[5]), i64_at(a[6]), i64_at(a[7]), i64_at(a[8]),
        i64_at(a[9]), i64_at(a[10]),
    )  # fmt: skip
    for e in range(count):
        what, access, me = events[3 * e], events[3 * e + 1], events[3 * e + 2]
        row = i64_at(table + access * ROW * 8)
        for i0 in range(row[2]):
            for i1 in range(row[3]):
                start = row[0] + i0 * row[5] + i1 * row[6]
                for _ in range(row[4]):
                    first, end = atom_at(borders, ranks, start), atom_at(borders, ranks, start + row[1])
                    start += row[7]
                    for atom in range(first, end):
                        value = state[atom]
                        if what == READ:
                            note_common(found, access, value)
                            if value >= 0 and reader[value] != me:
                                reader[value] = me
                                readers[value] += 1
                        elif what == NOTE_WRITER:
                            state[atom] = me
                        elif what == READ_ORIGIN:
                            note_common(found, access, value)
                        elif what == NOTE_ORIGIN:
                            moved = shift[me] != UNMOVED and found[access - 1] >= 0
                            state[atom] = found[access - 1] + shift[me] if moved else NOBODY
                        elif what == NEXT_WRITER:
                            found[access] = min(found[access], value)
                        elif what == READ_LEVEL:
                            level[me] = max(level[me], value)
                        elif what == WRITE_LEVEL:
                            level[me] = max(level[me], other[atom])
                        elif what == NOTE_READ:
                            other[atom] = max(other[atom], level[me] + 1)
                        else:
                            state[atom] = level[me] + 1
                            other[atom] = level[me] + 1
