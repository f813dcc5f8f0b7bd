"""Rings: the keys that are kept for ever as progressions with slots of their own, and what a ring does not hold.

isl says which keys these are. Each of its disjuncts becomes a progression or, where it repeats with a period, one for
each remainder; progressions may hold more keys than are kept, never fewer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from spattn.errors import UnsupportedError
from spattn.expressions.algebra import subexpressions
from spattn.expressions.nodes import FALSE, TRUE, Bool, FloorDiv, Int, Mod
from spattn.expressions.text import text
from spattn.relation.affine import Sets, isl_text
from spattn.relation.proofs import least_point, proof_sets

if TYPE_CHECKING:
    IslSet = Any

MAX_PROGRESSIONS = 64  # a kernel compares each key with each
MAX_PERIOD = 2048  # remainders that are looked at


@dataclass(frozen=True)
class Progression:
    """Positions first, first + step, .. below stop; without end where stop is None."""

    first: int
    step: int
    stop: int | None

    def count(self, tokens: int) -> int:
        """How many of them are below `tokens`."""
        end = tokens if self.stop is None else min(self.stop, tokens)
        return max(0, -(-(end - self.first) // self.step))

    @property
    def is_tail(self) -> bool:
        """Is every key from the first one on in it?"""
        return self.step == 1 and self.stop is None

    @property
    def isl(self) -> str:
        """The same as a condition of isl over k."""
        end = "" if self.stop is None else f" and k < {self.stop}"
        return f"k >= {self.first}{end} and k mod {self.step} = {self.first % self.step}"


@lru_cache(maxsize=256)
def progressions(kept: Bool) -> tuple[Progression, ...]:
    """Progressions that together hold the keys that are kept for ever; not all keys, unless these are kept.

    Args:
        kept: A condition over k; affine.

    Raises:
        UnsupportedError: E061, these keys are no few progressions; E096, isl met its cap.
        MissingDependencyError: islpy is not installed.
    """
    if kept == FALSE:
        return ()
    if kept == TRUE:
        return (Progression(0, 1, None),)
    sets = proof_sets()
    answer = sets.ask("progressions", lambda: (_progressions(sets, kept),))
    if answer is None:
        raise UnsupportedError("E096", "isl does not find the keys that are kept for ever within its cap")
    found = answer[0]
    if found is None or len(found) > MAX_PROGRESSIONS:
        raise UnsupportedError(
            "E061",
            f"the keys that are kept for ever take more than {MAX_PROGRESSIONS} progressions: {text(kept)}",
            hint="keep the keys in pages, and drop those that have no live key",
        )
    return found


def first_missing(needed: Bool, held: Iterable[Progression], age: int, tokens: int) -> tuple[int, int] | None:
    """A number t of tokens and a key that is needed and neither in a progression nor of that age; None if none is.

    Args:
        needed: Is key k live with t tokens held? Over t and k.
        held: What is kept for ever.
        age: The greatest t - k of the other keys that are held.
        tokens: No more are ever held.

    Raises:
        UnsupportedError: E096, isl met its cap.
    """
    if needed == FALSE:
        return None
    sets = proof_sets()
    there = f"0 <= k < t and t < {tokens} and t - k > {age} and ({isl_text(needed)})"

    def missing() -> IslSet:
        points = sets.explicit(sets.set(f"{{ [t, k] : {there} }}"))
        for one in held:
            points = points.subtract(sets.set(f"{{ [t, k] : {one.isl} }}"))
        return points

    point = least_point(sets, ["t", "k"], missing)
    return None if point is None else (point["t"], point["k"])


def _progressions(sets: Sets, kept: Bool) -> tuple[Progression, ...] | None:
    whole = sets.explicit(sets.set(f"{{ [k] : 0 <= k and ({isl_text(kept)}) }}")).coalesce()
    found: list[Progression] = []
    for basic in whole.get_basic_sets():
        part = basic.to_set()
        one = _hull(part)
        if one.stop is not None or _is_within(sets, one, whole):
            found.append(one)
            continue
        classes = _by_remainder(sets, part, whole, _periods(kept))
        if classes is None:
            return None
        found += classes
    return _without_repeats(sets, found)


def _by_remainder(sets: Sets, part: IslSet, whole: IslSet, periods: Iterable[int]) -> list[Progression] | None:
    """A progression for each remainder that a part has, by the first period where none has a key too many."""
    for period in periods:
        classes = (part.intersect(sets.set(f"{{ [k] : k mod {period} = {r} }}")) for r in range(period))
        found = [_hull(one) for one in classes if not one.is_empty()]
        if len(found) <= MAX_PROGRESSIONS and all(one.stop or _is_within(sets, one, whole) for one in found):
            return found
    return None


def _hull(part: IslSet) -> Progression:
    """The progression from the first key of a part to its last, with the step that all its keys have."""
    first = int(part.dim_min_val(0).to_python())
    last = part.dim_max_val(0)
    step = max(1, int(part.get_stride(0).to_python()))
    stop = int(last.to_python()) + 1 if last.is_int() else None
    return Progression(first, 1 if stop is not None and stop - first == 1 else step, stop)


def _is_within(sets: Sets, one: Progression, whole: IslSet) -> bool:
    return bool(sets.set(f"{{ [k] : {one.isl} }}").is_subset(whole))


def _without_repeats(sets: Sets, found: list[Progression]) -> tuple[Progression, ...]:
    """Without those whose keys earlier ones hold: finite ones first, then in the order of their first keys."""
    result: list[Progression] = []
    held = sets.set("{ [k] : 1 = 0 }")
    for one in sorted(set(found), key=lambda one: (one.stop is None, one.first, one.step)):
        own = sets.set(f"{{ [k] : {one.isl} }}")
        if not own.is_subset(held):
            result.append(one)
            held = held.union(own)
    return tuple(result)


def _periods(kept: Bool) -> list[int]:
    """The divisors that a condition has, ascending, and their least common multiple."""
    found = {
        part.divisor.value
        for part in subexpressions(kept)
        if isinstance(part, Mod | FloorDiv) and isinstance(part.divisor, Int)
    }
    return [one for one in sorted({*found, math.lcm(*found)}) if 1 < one <= MAX_PERIOD]
