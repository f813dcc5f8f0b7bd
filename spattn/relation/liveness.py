"""Liveness: which keys a later query can still need, for every number of tokens at once.

With t tokens held the next query stands at t, and live(t) is the set of keys k < t that some query q >= t attends. A
key that has died stays dead. What never dies is kept *for ever*; of all other live keys none is older than the
*reach*, so that a ring of that many slots, and as many as a call adds or takes back, holds them.

isl decides under its cap; over it every key counts as live, and that is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from spattn.errors import ArgumentError, NotDecodableError, UnsupportedError
from spattn.expressions.algebra import conj, eq, le, lt, symbols
from spattn.expressions.evaluation import BoolArray, evaluate
from spattn.expressions.nodes import FALSE, TRUE, Bool, Int, K, Q, Sym
from spattn.expressions.tensors import NOTHING
from spattn.expressions.text import text
from spattn.relation.affine import Sets, TooHard, isl, isl_text
from spattn.relation.decoding import head_names, pair_at, steps
from spattn.relation.proofs import least_point, proof_sets
from spattn.relation.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Callable

    IslMap = Any
    IslSet = Any

T = TypeVar("T")
OPERATIONS = 200_000  # of a question; those of published patterns need less than 20,000
LONGEST_REACH = 1 << 63  # a reach beyond is none: no position is as far away
BAND = 1 << 20  # keys that are looked at together
MOST = 1 << 30  # tokens, as in a call
HELD = "[t] -> [k] : 0 <= k < t"
TOO_HARD = "isl finds no live keys within its cap: every key counts as live"


@dataclass(frozen=True)
class Liveness:
    """The keys that later queries need.

    Attributes:
        needed: Is key k live, where t tokens are held and the next query stands at t? Over t and k, for 0 <= k < t.
        kept: Is key k live for all t > k, in a call without end? Over k.
        reach: The greatest t - k of a live key that is not kept for ever, 0 if there is none; None if there is no
            greatest.
        length: No query stands there or later; None where a call may grow without end.
        assumed: Tests of lists, tables, documents and tensors that were taken as true, in words: more keys may be live
            here than are needed, never fewer.
        note: Why all keys count as live, where isl was not asked to the end; empty where it was.
        allowed: The pairs that were asked about; affine, over q, k, heads and batch entries. None where decode steps
            may not be able to compute the pattern.
    """

    needed: Bool
    kept: Bool
    reach: int | None
    length: int | None
    assumed: tuple[str, ...]
    note: str
    allowed: Bool | None

    @property
    def forever(self) -> str:
        """Which keys are kept for ever: a formula over k, in the language of `explain`; `true` is all, `false` none."""
        return text(self.kept)

    @property
    def exact(self) -> bool:
        """Is every live key one that a query attends?"""
        return not self.assumed and not self.note

    def formula(self) -> str:
        """Which keys are live: a formula over k and the number t of tokens held, in the language of `explain`.

        It holds for t < `length`; there and later no key is live.

        >>> from spattn import parse
        >>> parse("causal & (last(4096) | sink(64))").live().formula()
        'k <= 63 or t <= k + 4095'
        """
        return text(self.needed)

    def mask(self, t: int) -> BoolArray:
        """Which of t keys are live, `[t]` of bool.

        Raises:
            ArgumentError: E060, t is no number of tokens.
        """
        _check("t", t, 0, MOST)
        return self._evaluated(self.needed if self.length is None or t < self.length else FALSE, t)

    def kept_mask(self, t: int) -> BoolArray:
        """Which of t keys are kept for ever, `[t]` of bool; raises as `mask` does."""
        _check("t", t, 0, MOST)
        return self._evaluated(self.kept, t)

    def pages(self, t: int, size: int) -> NDArray[np.int64]:
        """The pages with a live key, ascending: page j has keys j * size .. j * size + size - 1 of t.

        A prefix of t tokens that others have cached is of use if these pages of it are there.

        Raises:
            ArgumentError: E060, t is no number of tokens, or size none of keys.
        """
        _check("size", size, 1, MOST)
        return np.unique(np.flatnonzero(self.mask(t)) // size)

    def page_formula(self, size: int) -> str | None:
        """Which pages are needed: a formula over j and t; None where isl does not find it within its cap.

        Raises:
            ArgumentError: E060, size is no number of keys.
        """
        _check("size", size, 1, MOST)
        if self.needed == TRUE:
            return text(TRUE)
        found = _pages(self.needed, int(size))
        return None if found is None else text(found)

    def slots(self, new: int = 1, rollback: int = 0) -> int:
        """The slots of a ring that holds whatever is not kept for ever; what is has slots of its own.

        Args:
            new: Tokens that a call adds, at most.
            rollback: Tokens that are taken back after a call beyond its own, at most.

        Returns:
            reach + new + rollback: key k may lie in slot k % slots.

        Raises:
            UnsupportedError: E062, no ring is long enough.
            ArgumentError: E060, `new` or `rollback` is no number of tokens.
        """
        _check("new", new, 1, MOST)
        _check("rollback", rollback, 0, MOST)
        if self.reach is None:
            raise UnsupportedError(
                "E062",
                f"no ring holds the live keys: {self.formula()}, however far back",
                hint="keep the keys in pages, and drop those that have no live key",
            )
        return self.reach + int(new) + int(rollback)

    def why(self, k: int, t: int) -> Witness | None:
        """The first query from t on that attends key k; None if the key may be dropped.

        Raises:
            ArgumentError: E060, key k is none of t.
            UnsupportedError: E096, isl met its cap here or before.
        """
        _check("t", t, 1, MOST)
        _check("k", k, 0, int(t) - 1)
        if self.allowed is None:
            raise UnsupportedError("E096", self.note)
        known = conj(self.allowed, le(Int(int(t)), Q), le(Int(int(k)), K), le(K, Int(int(k))))
        known = conj(known, lt(Q, Int(self.length))) if self.length is not None else known
        if known == FALSE:
            return None
        names = ["q", *head_names(symbols(known)), "k"]
        sets = proof_sets()
        point = least_point(sets, names, lambda: sets.set(f"{{ [{', '.join(names)}] : {isl_text(known)} }}"))
        return None if point is None else pair_at(point, point["q"] + 1)

    def _evaluated(self, condition: Bool, t: int) -> BoolArray:
        found = np.zeros(int(t), np.bool_)
        for first in range(0, int(t), BAND):
            band = found[first : first + BAND]
            env = {"t": int(t), "k": np.arange(first, first + len(band))}
            band[:] = evaluate(condition, env, NOTHING)
        return found


def _check(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        raise ArgumentError("E060", f"{name} is a number from {least} to {most}, not {value!r}")


def heads_of(condition: Bool, num_heads: int | None, num_kv_heads: int | None, kv_head: int | None) -> Bool:
    """A condition where there are so many query heads, and of these the ones of a key head.

    Args:
        condition: The pattern's.
        num_heads: Query heads; any number if None.
        num_kv_heads: Key heads, as many as query heads if None.
        kv_head: One of them; all if None.

    Raises:
        ArgumentError: E060, these do not fit each other.
    """
    if num_heads is None:
        if num_kv_heads is not None or kv_head is not None:
            raise ArgumentError("E060", "key heads have query heads: num_heads says how many there are")
        return condition
    _check("num_heads", num_heads, 1, MOST)
    groups = num_heads if num_kv_heads is None else num_kv_heads
    _check("num_kv_heads", groups, 1, MOST)
    if num_heads % groups:
        hint = "with GQA num_heads is a multiple of num_kv_heads"
        raise ArgumentError("E060", f"{groups} key heads do not divide {num_heads} query heads", hint=hint)
    if kv_head is not None:
        _check("kv_head", kv_head, 0, groups - 1)
    if not symbols(condition) & {"h", "num_heads"}:
        return condition
    facts = [eq(Sym("num_heads"), int(num_heads))]
    if kv_head is not None:
        each = int(num_heads) // int(groups)
        facts += [le(int(kv_head) * each, Sym("h")), lt(Sym("h"), (int(kv_head) + 1) * each)]
    return conj(condition, *facts)


@lru_cache(maxsize=256)
def liveness(condition: Bool, length: int | None = None) -> Liveness:
    """The keys that decode steps of a pattern need, of all its heads and batch entries together.

    Args:
        condition: The pattern's.
        length: No query stands there or later; None where a call may grow without end.

    Raises:
        NotDecodableError: E062, a row attends a key after it, or changes as the call grows.
        ArgumentError: E060, `length` is no number of tokens.
        MissingDependencyError: islpy is not installed.
    """
    if length is not None:
        _check("length", length, 1, MOST)
    try:
        seen = steps(condition)
    except NotDecodableError:
        raise
    except UnsupportedError as error:
        note = f"whether decode steps can compute it was not decided ({error.message}): every key counts as live"
        return Liveness(TRUE, TRUE, 0, length, (), note, None)
    assumed = tuple(map(text, seen.assumed))
    try:
        needed, kept, reach = _Asked(Sets(OPERATIONS)).sets_of(seen.allowed, length)
    except _Capped:
        return Liveness(TRUE, TRUE, 0, length, assumed, TOO_HARD, seen.allowed)
    return Liveness(needed, kept, reach, length, assumed, "", seen.allowed)


class _Capped(Exception):
    """isl met its cap."""


@dataclass(frozen=True)
class _Asked:
    """isl, where each question is answered or ends it all."""

    sets: Sets

    def sets_of(self, allowed: Bool, length: int | None) -> tuple[Bool, Bool, int | None]:
        """The live keys, those kept for ever, the reach of the others.

        Raises:
            _Capped: isl met its cap.
        """
        sets = self.sets
        pairs = self._without_heads(self._known(sets.pairs(allowed)))
        live = self._live(pairs, "")
        dying = self.ask(lambda: sets.explicit(sets.map(f"{{ {HELD} }}").subtract(live).range()).coalesce())
        kept = self.ask(lambda: sets.explicit(sets.set("{ [k] : 0 <= k }").subtract(dying)).coalesce())
        bound = "" if length is None else f" and t < {length}"
        live = live if length is None else self._live(pairs, f" and q < {length}")
        ages = self.ask(lambda: live.subtract_range(kept).reverse().deltas().coalesce())
        return (
            self._condition(live, "t", "k", f"0 <= k < t{bound}"),
            self._known(self.ask(lambda: sets.parameters_condition(kept, sets.set("[k] -> { : 0 <= k }")))),
            self._greatest(ages),
        )

    def _live(self, pairs: IslMap, bound: str) -> IslMap:
        """{[t] -> [k]} where a later query attends key k."""
        sets = self.sets
        later, held = sets.map(f"{{ [t] -> [q] : 0 <= t <= q{bound} }}"), sets.map(f"{{ {HELD} }}")
        return self.ask(lambda: sets.explicit(later.apply_range(pairs).intersect(held)).coalesce())

    def pages(self, needed: Bool, size: int) -> Bool:
        """The pages with a live key."""
        sets = self.sets
        text_of_live = f"{{ [t] -> [k] : 0 <= k < t and ({isl_text(needed)}) }}"
        page = f"{{ [k] -> [j] : {size} j <= k < {size} j + {size} }}"
        found = self.ask(lambda: sets.explicit(sets.map(text_of_live).apply_range(sets.map(page))).coalesce())
        return self._condition(found, "t", "j", f"0 <= {size} j < t")

    def ask(self, question: Callable[[], T]) -> T:
        """An answer of isl."""
        try:
            answer = self.sets.ask("liveness", lambda: (question(),))
        except TooHard:
            raise _Capped from None
        return self._known(answer)[0]

    def _known(self, answer: T | None) -> T:
        if answer is None:
            raise _Capped
        return answer

    def _without_heads(self, pairs: IslMap) -> IslMap:
        """The union over heads and batch entries, which are parameters of `pairs`."""
        count = pairs.dim(isl.dim_type.param)
        if not count:
            return pairs
        return self.ask(lambda: self.sets.explicit(pairs.project_out(isl.dim_type.param, 0, count)).coalesce())

    def _condition(self, pairs: IslMap, one: str, other: str, context: str) -> Bool:
        """A map as a condition over two names."""
        named = pairs.set_dim_name(isl.dim_type.in_, 0, one).set_dim_name(isl.dim_type.out, 0, other)
        return self._known(self.sets.condition(named, self.sets.set(f"[{one}, {other}] -> {{ : {context} }}")))

    def _greatest(self, values: IslSet) -> int | None:
        """The greatest of some numbers from 1, 0 if there are none, None if there is no end of them.

        By bisection: isl's own search for an optimum does not survive its cap.
        """

        def beyond(bound: int) -> bool:
            above = self.sets.set(f"{{ [x] : x > {bound} }}")
            return not self.ask(lambda: values.intersect(above).is_empty())

        if beyond(LONGEST_REACH):
            return None
        low, high = 0, LONGEST_REACH
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if beyond(middle) else (low, middle)
        return low


@lru_cache(maxsize=256)
def _pages(needed: Bool, size: int) -> Bool | None:
    try:
        return _Asked(Sets(OPERATIONS)).pages(needed, size)
    except _Capped:
        return None
