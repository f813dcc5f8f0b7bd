"""Few rows that see nearly all keys where the other rows see few: `rows([0:64])`, `tail(64)`, a global block.

In a pass with the others they would keep the one program of their tile busy long after all others are done. In a pass
of their own their keys are shared by many programs, and no other tile has a range for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spattn.expressions.algebra import add, conj, disj, le, lt, sub, symbols
from spattn.expressions.evaluation import IntArray, evaluate
from spattn.expressions.nodes import (
    FALSE,
    KV_LEN,
    And,
    Bool,
    Expr,
    Int,
    InTable,
    K,
    Member,
    Q,
    Relative,
    SameSegment,
    Tokens,
)
from spattn.expressions.tensors import Tensors
from spattn.layout.intervals import Interval, interval_of_rows
from spattn.relation import affine
from spattn.relation.affine import Sets
from spattn.relation.grids import on_grid
from spattn.relation.lengths import band, never_negative
from spattn.relation.terms import Term, disjunction

MAX_ROWS = 1024  # more fill enough tiles to be no exception
GAIN = 4  # times the keys of the other rows
LENGTH = 2**16  # of the call in which some rows are tried
FAR = LENGTH // 4
TRIED = LENGTH // 2 + np.array([0, 1, 63, 127, 200, 333, 511])
STEP = 61  # every so many keys are looked at; no usual period has it as a factor
ONE_HEAD = {"h": 0, "b": 0, "num_heads": 1, "batch_size": 1}


@dataclass(frozen=True)
class LongRows:
    """Rows for a pass of their own.

    Attributes:
        tokens: The rows; some of them may see few keys.
        rows: Is q one of them? Comparisons alone.
        inside: What they see.
        outside: What all others see.
        long: Where not all of them are long, the interval of those that are, and what these see at least.
    """

    tokens: Tokens
    rows: Bool
    inside: Bool
    outside: Bool
    long: tuple[Interval, Bool] | None


def long_rows(condition: Bool, direction: str) -> LongRows | None:
    """The rows of terms that are alike but for their rows, where these are few and much longer than all others."""
    terms = disjunction(condition) or ()
    parts = {term: part for term in terms if (part := _part(term)) is not None}
    others = [term for term in terms if term not in parts]
    if not parts or not others:
        return None
    least = max(FAR, GAIN * int(np.median(sum(_keys(term, TRIED) for term in others))))
    long = {term: part for term, part in parts.items() if _keys(term, part.tried).max() >= least}
    if not long:
        return None
    form = next((part.beside, part.exact) for part in long.values())
    chosen = {term: part for term, part in long.items() if (part.beside, part.exact) == form}
    return _owned(chosen, [term for term in terms if term not in chosen], direction)


def _owned(chosen: dict[Term, _Part], left: list[Term], direction: str) -> LongRows:
    values = sorted({row for part in chosen.values() for row in range(part.first, part.last + 1)})
    seen = (part.beside if part.exact else term.condition for term, part in chosen.items())
    one = next(iter(chosen.values()))
    beyond = (_beyond(part, left) for part in chosen.values()) if direction == "queries" else ()
    kept = [term.condition for term in left]
    return LongRows(
        Tokens(tuple(values)),
        disj(*(part.owned(direction) for part in chosen.values())),
        disj(*seen, *kept),
        disj(*beyond, *kept),
        None if one.exact else (one.ends, one.beside),
    )


@dataclass(frozen=True)
class _Part:
    """A term in two: a condition on rows, and what stands beside it.

    Attributes:
        rows: On q and the length.
        ends: The interval that it means.
        first, last: Its positions in `0 .. kv_len-1`, negative ones from the end; a few more of them unless `exact`.
    """

    rows: Bool
    beside: Bool
    ends: Interval
    first: int
    last: int
    exact: bool

    @property
    def tried(self) -> IntArray:
        """Some of the rows in a call of LENGTH keys."""
        rows = np.array([self.first, (self.first + self.last) // 2, self.last])
        return rows + LENGTH if self.first < 0 else rows

    def owned(self, direction: str) -> Bool:
        """Is q one of the rows? Positions of keys end with the length."""
        distance = sub(Q, KV_LEN) if self.first < 0 else Q
        within = [le(0, Q), lt(Q, KV_LEN)] if direction == "queries" else []
        last = [le(distance, self.last)] if self.last != -1 else []
        return conj(le(self.first, distance), *last, *within)

    def outside(self) -> Bool:
        """The rows that are no positions of keys: queries before the first one or past the last."""
        low, high = self.ends.lo, self.ends.hi
        before = FALSE if low is not None and never_negative(low) else lt(Q, 0)
        past = FALSE if high is not None and never_negative(sub(sub(KV_LEN, 1), high)) else le(KV_LEN, Q)
        return conj(self.rows, disj(before, past))


def _part(term: Term) -> _Part | None:
    """A term whose rows are few, an interval that starts or ends at a constant distance from an end of the keys."""
    compared = term.affine.args if isinstance(term.affine, And) else (term.affine,)
    about_rows = [one for one in compared if symbols(one) <= {"q", "kv_len"}]
    if not any("q" in symbols(one) for one in about_rows) or any(map(_picks, term.guards)):
        return None
    rows = conj(*about_rows)
    ends = interval_of_rows(rows)
    found = None if ends is None else _positions(ends)
    if ends is None or found is None or not 0 <= found[1] - found[0] < MAX_ROWS:
        return None
    beside = conj(*(one for one in compared if one not in about_rows), *term.guards)
    return _Part(rows, beside, ends, *found)


def _picks(guard: Bool) -> bool:
    """May it leave a row only few keys?"""
    return isinstance(guard, Member | InTable | SameSegment | Relative)


def _positions(ends: Interval) -> tuple[int, int, bool] | None:
    """`first`, `last` and `exact` of a part with these ends."""
    lows = [low for low in ends.lows() if not never_negative(sub(0, low))]
    highs = [high for high in ends.highs() if not never_negative(sub(add(high, 1), KV_LEN))]
    match lows, highs:
        case [], [Int(last)]:
            return 0, last, True
        case [Int(first)], [Int(last)]:
            return first, last, True
        case [low], []:
            return _from_end(low, -1)
        case [low], [high]:
            distance = band(sub(high, KV_LEN))
            return _from_end(low, int(distance.low)) if distance is not None and distance.constant else None
    return None


def _from_end(low: Expr, last: int) -> tuple[int, int, bool] | None:
    """Positions that are counted from the end, where all are."""
    distance = band(sub(low, KV_LEN))
    if distance is None or distance.slope != 0 or last >= 0:
        return None
    return int(distance.low // 1), last, distance.constant


def _keys(term: Term, rows: IntArray) -> IntArray:
    """About how many keys rows have in a call of LENGTH keys, those of lists, tables and documents not counted."""
    if any(map(_picks, term.guards)):
        return np.zeros(len(rows), np.int64)
    keys = np.arange(0, LENGTH, STEP)
    env = {"q": rows[:, None], "k": keys, "kv_len": LENGTH, **ONE_HEAD}
    seen = np.broadcast_to(evaluate(term.affine, env, Tensors({}, LENGTH)), (len(rows), len(keys)))
    return np.asarray(seen.sum(1) * STEP)


def _beyond(part: _Part, left: list[Term]) -> Bool:
    """What a term has in rows that are no positions of keys, if other terms do not have it anyway."""
    rows = part.outside()
    if rows == FALSE:
        return FALSE
    # such a row past `first` has its keys before it, few of them
    return FALSE if part.first >= 0 and _within(conj(rows, le(0, K), lt(K, KV_LEN)), left) else conj(rows, part.beside)


def _within(condition: Bool, terms: list[Term]) -> bool:
    """Is it proved that each pair is in some of the terms?"""
    sets = Sets() if affine.available else None
    rest = None if sets is None else sets.pairs(condition)
    if sets is None or rest is None:
        return False
    for term in terms:
        pairs = None if term.guards or on_grid(term.affine) else sets.pairs(term.affine)
        less = None if pairs is None else sets.ask("within", lambda a=rest, b=pairs: a.subtract(b))  # type: ignore[misc]
        rest = rest if less is None else less
    return bool(rest.is_empty())
