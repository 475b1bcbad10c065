"""Memory cut into atoms: the pieces between all points where some run of bytes starts or ends, numbered in order.

Borders are a bitmap, one bit per byte of memory in int64 words; `ranks` counts, per word, the borders before it.
"""

# mypy: ignore-errors
from __future__ import annotations

from compiler.native.language import function
from compiler.native.memory import i32_at, i64_at, popcount


@function
def mark(borders, position):
    """Make a border of a position."""
    words = i64_at(borders)
    words[position >> 6] = words[position >> 6] | (1 << (position & 63))


@function
def rank(borders, ranks, words):
    """Count the borders before each word, into `ranks` (int32); returns how many there are in all."""
    total = 0
    for word in range(words):
        i32_at(ranks)[word] = total
        total += popcount(i64_at(borders)[word])
    return total


@function
def atom_at(borders, ranks, position):
    """The atom that starts at `position`, which must be a border: the number of borders before it."""
    before = (1 << (position & 63)) - 1
    return i32_at(ranks)[position >> 6] + popcount(i64_at(borders)[position >> 6] & before)
