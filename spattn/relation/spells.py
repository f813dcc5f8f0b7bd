"""Sums over rows in closed form: rows a period apart have counts in arithmetic progression until a decision changes.

Let P be a common period, so that floors and remainders at the rows r, r + P, r + 2P, .. are linear in their number, and
so is all that is made of them as long as each minimum takes the same side, the cuts keep their order and comparisons
keep their signs. A linear form with one sign at both ends of such a *spell* has it in between: where the decisions
agree at the ends they agree throughout, and the spell's counts add up to half its length times first plus last. Else it
is halved. The work follows the period and the logarithm of the length, not the rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from spattn.expressions.algebra import linear, sub, subexpressions
from spattn.expressions.evaluation import IntArray, evaluate
from spattn.expressions.nodes import Bool, Eq, Expr, FloorDiv, Int, Le, Max, Min, Mod, Node, Q
from spattn.relation.affine import is_affine
from spattn.relation.keys import Stair, common_period
from spattn.relation.rows import ROWS, KeyForm, Rows

MAX_SLOPES = 16  # ways in which one cut can follow the rows
CONSTANT = frozenset({Fraction(0)})
SHORT = 16  # rows of a spell that is not worth halving
GAIN = 8  # periods that the rows must have: below, they are counted one by one


@dataclass(frozen=True)
class Spells:
    """Rows `first + residue + period*n` for n = begin .. end, one spell an entry."""

    residue: IntArray
    begin: IntArray
    end: IntArray

    def taken(self, which: IntArray) -> Spells:
        """Some of them."""
        return Spells(self.residue[which], self.begin[which], self.end[which])

    def halved(self) -> Spells:
        """Each as two; short ones row by row."""
        length = int((self.end - self.begin).max()) + 1
        if length <= SHORT:
            n = self.begin[:, None] + np.arange(length)
            there = n <= self.end[:, None]
            return Spells(np.broadcast_to(self.residue[:, None], n.shape)[there], n[there], n[there])
        middle = (self.begin + self.end) // 2
        return Spells(
            np.concatenate([self.residue, self.residue]),
            np.concatenate([self.begin, middle + 1]),
            np.concatenate([middle, self.end]),
        )


def sum_of_rows(keys: KeyForm, rows: Rows) -> int | None:
    """The keys of all rows, None where their counts repeat with no period that is much shorter than the rows."""
    period = _period(keys)
    if period is None or period * GAIN > rows.q_len:
        return None
    residue = np.arange(period)
    todo, total = [Spells(residue, np.zeros_like(residue), (rows.q_len - 1 - residue) // period)], 0
    decisions = _Decisions.of(keys)
    while todo:
        spells = todo.pop()
        for part in (spells.taken(np.arange(i, min(i + ROWS, len(spells.begin)))) for i in _starts(spells)):
            settled, pairs = _settled(part, period, keys, decisions, rows)
            total += pairs
            rest = part.taken(np.flatnonzero(~settled))
            todo += [rest.halved()] if len(rest.begin) else []
    return total


def _starts(spells: Spells) -> range:
    return range(0, len(spells.begin), ROWS)


def _settled(spells: Spells, period: int, keys: KeyForm, decisions: _Decisions, rows: Rows) -> tuple[IntArray, int]:
    """Of which spells the decisions agree at both ends, and how many pairs these have."""
    first, last = (rows.first + spells.residue + period * n for n in (spells.begin, spells.end))
    one, other = decisions.at(first, keys, rows), decisions.at(last, keys, rows)
    settled = (one == other).all(1) | (spells.begin == spells.end)
    counts = keys.counts(first[settled], rows) + keys.counts(last[settled], rows)
    length = (spells.end - spells.begin + 1)[settled]
    # in Python's integers: 2**30 rows of 2**30 keys, twice
    return settled, sum(n * pairs for n, pairs in zip(length.tolist(), counts.tolist(), strict=True)) // 2


@dataclass(frozen=True)
class _Decisions:
    """What must not change within a spell.

    Attributes:
        extremes: Minima and maxima over q alone, inside cuts and keys.
        slacks: Of the comparisons, which are evaluated at the first key of each segment.
        inner: Minima and maxima inside these.
    """

    extremes: tuple[Min | Max, ...]
    slacks: tuple[Expr, ...]
    inner: tuple[Min | Max, ...]

    @staticmethod
    def of(keys: KeyForm) -> _Decisions:
        """The decisions of a form."""
        cuts = [cut.bound if isinstance(cut, Stair) else cut for cut in keys.cuts]
        slacks = dict.fromkeys(slack for _, case in keys.cases for slack in _slacks(case))
        return _Decisions(tuple(_extremes([*cuts, *keys.keys, keys.shift])), tuple(slacks), tuple(_extremes(slacks)))

    def at(self, q: IntArray, keys: KeyForm, rows: Rows) -> IntArray:
        """The decisions at rows q, one row an entry."""
        env = {**rows.env, "q": q[:, None]}
        ends = keys.ends(q, rows)
        inside = np.clip(ends, 0, rows.kv_len)
        order = np.argsort(inside, axis=1, kind="stable")
        begin = np.concatenate([np.zeros_like(q)[:, None], np.take_along_axis(inside, order, axis=1)], axis=1)
        found = [order, np.sign(ends), np.sign(ends - rows.kv_len)]
        found += [_side(extreme, env, rows) for extreme in self.extremes]
        found += [evaluate(key, env, rows.tensors) for key in keys.keys]
        there = {**env, "k": begin}
        found += [np.sign(evaluate(slack, there, rows.tensors)) for slack in self.slacks]
        found += [_side(extreme, there, rows) for extreme in self.inner]
        return np.concatenate([np.broadcast_to(x, (len(q), x.shape[-1] if x.ndim else 1)) for x in found], axis=1)


def _side(extreme: Min | Max, env: Mapping[str, Any], rows: Rows) -> IntArray:
    """Which argument a minimum or maximum takes."""
    values = np.stack(np.broadcast_arrays(*(evaluate(arg, env, rows.tensors) for arg in extreme.args)))
    return np.asarray(values.argmin(0) if isinstance(extreme, Min) else values.argmax(0))


def _extremes(exprs: Iterable[Expr]) -> Iterator[Min | Max]:
    for expr in exprs:
        yield from (part for part in subexpressions(expr) if isinstance(part, Min | Max))


def _slacks(condition: Bool) -> Iterator[Expr]:
    """`right - left` of the comparisons of a condition."""
    for part in subexpressions(condition):
        match part:
            case Le(left, right) | Eq(left, right):
                yield sub(right, left)


def _period(keys: KeyForm) -> int | None:
    """Rows after which all floors and remainders have moved by whole numbers, None where they need not."""
    cases = [case for _, case in keys.cases]
    if not all(map(is_affine, [*cases, *keys.periodic])) or any(_slopes(key) != CONSTANT for key in keys.keys):
        return None
    bounds = [cut.bound if isinstance(cut, Stair) else cut for cut in keys.cuts]
    nodes: list[Node] = [
        *keys.periodic,
        *bounds,
        keys.shift,
        *keys.keys,
        *(slack for case in cases for slack in _slacks(case)),
    ]
    moved = math.lcm(keys.period, *map(common_period, nodes))
    period = moved
    for cut in (*keys.cuts, keys.shift):
        slopes = _slopes(cut.bound if isinstance(cut, Stair) else cut)
        if slopes is None:
            return None
        period = math.lcm(period, *(_until_whole(cut, slope, moved) for slope in slopes))
    return period


def _until_whole(cut: Expr | Stair, slope: Fraction, moved: int) -> int:
    """Rows, a multiple of `moved`, after which a cut has moved by a multiple of `moved`."""
    if isinstance(cut, Stair):
        # first whole flights of the stair, then a multiple of `moved`
        flights = Fraction(slope * moved, cut.rise)
        return moved * (flights * Fraction(len(cut.steps), moved)).denominator * flights.denominator
    return moved * slope.denominator


def _slopes(expr: Expr) -> frozenset[Fraction] | None:
    """By how much an expression of q may grow a row, on average; None for too many ways."""
    match expr:
        case Int() | Mod():
            return CONSTANT
        case FloorDiv(dividend, Int(d)):
            inner = _slopes(dividend)
            return None if inner is None else frozenset(slope / d for slope in inner)
        case Min(args) | Max(args):
            found = [_slopes(arg) for arg in args]
            return None if None in found else frozenset().union(*(slopes or () for slopes in found))
    if expr == Q:
        return frozenset({Fraction(1)})
    terms, _ = linear(expr)
    sums = CONSTANT
    for term, c in terms.items():
        inner = None if term == expr else _slopes(term)
        if inner is None:
            return None
        sums = frozenset(total + c * slope for total in sums for slope in inner)
    return sums if len(sums) <= MAX_SLOPES else None
