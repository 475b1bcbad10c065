"""Sums of products written with letters, as transposes, reshapes and matrix products."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from compiler.frontend.common.emitter import Emitter, reshape
from compiler.frontend.records import Malformed
from compiler.ir.core import Value
from compiler.ops import math, nn, reduce, tensor


@dataclass(frozen=True)
class Term:
    """A value whose axes have letters."""

    value: Value
    letters: str

    def size(self, letter: str) -> int:
        return self.value.type.static_shape[self.letters.index(letter)]


def einsum(e: Emitter, equation: str, operands: Sequence[Value]) -> Value:
    """The value of an equation: operands are multiplied from the left, letters summed once nobody needs them."""
    terms, output = parse_equation(equation, [v.type.rank for v in operands])
    pending = [_diagonal(e, Term(value, letters)) for value, letters in zip(operands, terms, strict=True)]
    result = pending.pop(0)
    while True:
        later = set(output).union(*(t.letters for t in pending))
        result = _summed(e, result, later)
        if not pending:
            return _arranged(e, result, output)
        other = pending.pop(0)
        later = set(output).union(*(t.letters for t in pending))
        result = _product(e, result, _summed(e, other, later | set(result.letters)), later)


def parse_equation(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Letters of every operand and of the result, an ellipsis replaced by capital letters that are not in use."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise Malformed(f"equation {equation!r} has {len(terms)} terms for {len(ranks)} operands")
    spare = [c for c in reversed(string.ascii_letters) if c not in equation]
    widths = [r - len(t.replace("...", "")) for t, r in zip(terms, ranks, strict=True) if "..." in t]
    ellipsis = "".join(spare[: max(widths, default=0)])
    full = []
    for term, rank in zip(terms, ranks, strict=True):
        width = rank - len(term.replace("...", ""))
        letters = term.replace("...", ellipsis[len(ellipsis) - width :] if width > 0 else "")
        if len(letters) != rank or (rank and not letters.isalpha()):
            raise Malformed(f"term {term!r} of equation {equation!r} does not fit an operand of rank {rank}")
        full.append(letters)
    if arrow:
        return full, right.replace("...", ellipsis)
    once = sorted(c for c in set("".join(full)) - set(ellipsis) if "".join(full).count(c) == 1)
    return full, ellipsis + "".join(once)


def _diagonal(e: Emitter, term: Term) -> Term:
    """The term with every letter once: axes that share one are read where their places are the same."""
    for letter in sorted({c for c in term.letters if term.letters.count(c) > 1}):
        while term.letters.count(letter) > 1:
            first, second = (i for i, c in enumerate(term.letters) if c == letter and term.letters[:i].count(c) < 2)
            rest = [i for i in range(len(term.letters)) if i not in (first, second)]
            size = term.size(letter)
            if term.value.type.static_shape[second] != size:
                raise Malformed(f"letter {letter!r} stands for axes of {size} and of another size")
            moved = e.emit(tensor.Transpose, term.value, perm=(first, second, *rest))
            flat = reshape(e, moved, (size * size, *moved.type.static_shape[2:]))
            cut = e.emit(tensor.Slice, flat, starts=[0] * (flat.type.rank), sizes=[size, *flat.type.static_shape[1:]],
                         steps=[size + 1, *[1] * (flat.type.rank - 1)])  # fmt: skip
            term = Term(cut, letter + "".join(term.letters[i] for i in rest))
    return term


def _summed(e: Emitter, term: Term, needed: set[str]) -> Term:
    """The term without the letters nobody needs any more."""
    axes = tuple(i for i, c in enumerate(term.letters) if c not in needed)
    if not axes:
        return term
    kept = "".join(c for c in term.letters if c in needed)
    return Term(e.emit(reduce.Sum, term.value, axes=axes, keepdims=False), kept)


def _arranged(e: Emitter, term: Term, letters: str) -> Value:
    """The term's value with its axes in the order of `letters`."""
    if sorted(term.letters) != sorted(letters):
        raise Malformed(f"the result {letters!r} names other axes than the operands")
    if term.letters == letters:
        return term.value
    return e.emit(tensor.Transpose, term.value, perm=tuple(term.letters.index(c) for c in letters))


def _product(e: Emitter, a: Term, b: Term, later: set[str]) -> Term:
    """The product of two terms, summed over the letters that only they have."""
    common = [c for c in a.letters if c in b.letters]
    summed = [c for c in common if c not in later]
    if not summed:
        return _elementwise(e, a, b)
    batch = [c for c in common if c in later]
    rows = [c for c in a.letters if c not in common]
    columns = [c for c in b.letters if c not in common]
    left = reshape(e, _arranged(e, a, "".join(batch + rows + summed)), [
        *(a.size(c) for c in batch), prod(a.size(c) for c in rows), prod(a.size(c) for c in summed)
    ])  # fmt: skip
    right = reshape(e, _arranged(e, b, "".join(batch + summed + columns)), [
        *(b.size(c) for c in batch), prod(b.size(c) for c in summed), prod(b.size(c) for c in columns)
    ])  # fmt: skip
    y = e.emit(nn.MatMul, left, right)
    leading = y.type.static_shape[: len(batch)]
    shape = [*leading, *(a.size(c) for c in rows), *(b.size(c) for c in columns)]
    return Term(reshape(e, y, shape), "".join(batch + rows + columns))


def _elementwise(e: Emitter, a: Term, b: Term) -> Term:
    letters = a.letters + "".join(c for c in b.letters if c not in a.letters)
    left = reshape(e, a.value, [*a.value.type.static_shape, *[1] * (len(letters) - len(a.letters))])
    order = "".join(c for c in letters if c in b.letters)
    right = reshape(e, _arranged(e, b, order), [b.size(c) if c in b.letters else 1 for c in letters])
    return Term(e.emit(math.Mul, left, right), letters)
