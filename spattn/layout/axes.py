"""Ranges along one axis of a grid: what rows u0 .. u1 touch, as a formula; the axis' length is a constant."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spattn.expressions.algebra import le, minimum, select, sub, symbols
from spattn.expressions.evaluation import BoolArray, IntArray, evaluate
from spattn.expressions.nodes import Bool, Expr
from spattn.expressions.tensors import NOTHING
from spattn.layout.boxes import axis_ends
from spattn.layout.intervals import U0, U1, calculated_range
from spattn.relation.bounds import BEGIN, LAST, Range

MAX_LENGTH = 1024  # of an axis whose pairs are looked at one by one, in milliseconds


def axis_range(axis: Bool, length: int) -> Range:
    """Coordinates that rows u0 .. u1 of an axis touch: by the interval calculus, and where it gives up by looking.

    Whether it is exact is looked up too, on an axis that is not too long.
    """
    found = calculated_range(axis)
    if length > MAX_LENGTH or symbols(axis) - {"q", "k"}:
        return found
    place = np.arange(length)
    pairs = np.broadcast_to(evaluate(axis, {"q": place[:, None], "k": place}, NOTHING), (length, length))
    if BEGIN in (found.lo, found.hi) or LAST in (found.lo, found.hi):
        found = _looked_at(found, pairs, length)
    lo, hi = axis_ends(found, place, place, length)
    return replace(found, exact=bool((pairs == ((lo[:, None] <= place) & (place <= hi[:, None]))).all()))


def _looked_at(found: Range, pairs: BoolArray, length: int) -> Range:
    low, high = _Ramp.below(_lowest(pairs)), _Ramp.below(_lowest(pairs[::-1, ::-1]))
    mirrored = sub(length - 1, U1)
    return replace(found, lo=low.at(U0), hi=sub(length - 1, high.at(mirrored)))


def _lowest(pairs: BoolArray) -> IntArray:
    """The lowest key that a row or a later one has."""
    first = np.where(pairs.any(1), pairs.argmax(1), len(pairs))
    return np.minimum.accumulate(first[::-1])[::-1]


@dataclass(frozen=True)
class _Ramp:
    """`least` for u <= border, then `min(u - shift, most)`, or no minimum: nowhere above values that never fall."""

    border: int
    least: int
    shift: int
    most: int | None

    @staticmethod
    def below(values: IntArray) -> _Ramp:
        """The closest one."""
        place = np.arange(len(values))
        ramps = [_Ramp._of(values, int(shift)) for shift in np.unique(place - values)]
        return max(ramps, key=lambda ramp: int(ramp.values(place).sum()))

    @staticmethod
    def _of(values: IntArray, shift: int) -> _Ramp:
        above = np.flatnonzero(np.arange(len(values)) - shift > values)
        left, right = above[above < len(values) // 2], above[above >= len(values) // 2]
        most = int(values[right].min()) if len(right) else None
        return _Ramp(int(left.max(initial=-1)), int(values[0]), shift, most)

    def values(self, u: IntArray) -> IntArray:
        """It at the rows u."""
        rising = u - self.shift
        return np.where(u <= self.border, self.least, rising if self.most is None else np.minimum(rising, self.most))

    def at(self, u: Expr) -> Expr:
        """It as a formula."""
        rising = sub(u, self.shift) if self.most is None else minimum(sub(u, self.shift), self.most)
        return rising if self.border < 0 else select(le(u, self.border), self.least, rising)
