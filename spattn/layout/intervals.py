"""The interval calculus: what a tile of rows may see and surely sees, without isl, along the condition's own tree.

One interval each. touched(A|B) holds both, touched(A&B) is inside their meeting, full(A|B) is the larger of the two,
full(A&B) their meeting, and a complement swaps the two. It serves where islpy is missing or meets its cap: the masks
stay exact, the kernel only does more work.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from spattn.expressions.algebra import (
    add,
    from_linear,
    le,
    linear,
    lt,
    maximum,
    minimum,
    scale,
    select,
    sub,
    subexpressions,
    substitute,
    substitute_bool,
    symbols,
)
from spattn.expressions.nodes import And, Bool, Eq, Expr, FloorDiv, Int, K, Le, Max, Min, Not, Or, Q, Sym, Truth
from spattn.relation.bounds import BEGIN, EMPTY_FULL, LAST, MAX_FORMULA, Range
from spattn.relation.lengths import never_negative

U0, U1 = Sym("u0"), Sym("u1")


@dataclass(frozen=True)
class Interval:
    """Keys `lo .. hi`; None where there is no end on that side."""

    lo: Expr | None
    hi: Expr | None

    def lows(self) -> tuple[Expr, ...]:
        """The first key is the greatest of these."""
        return () if self.lo is None else self.lo.args if isinstance(self.lo, Max) else (self.lo,)

    def highs(self) -> tuple[Expr, ...]:
        """The last key is the least of these."""
        return () if self.hi is None else self.hi.args if isinstance(self.hi, Min) else (self.hi,)

    def is_within(self, first: int, last: int) -> bool:
        """Is it proved that no key is outside of `first .. last`?"""
        low = any(never_negative(sub(low, first)) for low in self.lows())
        return low and any(never_negative(sub(last, high)) for high in self.highs())


ALL = Interval(None, None)
NONE = Interval(Int(0), Int(-1))


@dataclass(frozen=True)
class Sight:
    """`touched` may hold too many keys, `full` too few."""

    touched: Interval
    full: Interval


def calculated_range(condition: Bool) -> Range:
    """The range of a contiguous walk for `condition`."""
    sight = _sight(condition)
    full = sight.full
    inside = EMPTY_FULL if full == NONE else (full.lo or BEGIN, full.hi or LAST)
    return Range(sight.touched.lo or BEGIN, sight.touched.hi or LAST, *inside)


def _sight(condition: Bool) -> Sight:
    match condition:
        case Truth(value):
            return Sight(ALL, ALL) if value else Sight(NONE, NONE)
        case And(args):
            return reduce(_both, map(_sight, args))
        case Or(args):
            return reduce(_either, map(_sight, args))
        case Not(arg):
            inner = _sight(arg)
            return Sight(_outside(inner.full, ALL), _outside(inner.touched, NONE))
        case Le(Max(args), right):
            return reduce(_both, (_sight(le(arg, right)) for arg in args))
        case Le(left, Min(args)):
            return reduce(_both, (_sight(le(left, arg)) for arg in args))
        case Le(left, right):
            return _half_line(sub(right, left)) or Sight(ALL, NONE)
        case Eq(left, right):
            return _both(_sight(le(left, right)), _sight(le(right, left)))
    return Sight(ALL, NONE)


def interval_of_rows(condition: Bool) -> Interval | None:
    """The rows that meet a condition on q and lengths, where these are an interval for sure; None of others."""
    sight = _sight(substitute_bool(condition, {Q: K}))
    return sight.touched if sight.touched == sight.full else None


def _both(a: Sight, b: Sight) -> Sight:
    return Sight(_meet(a.touched, b.touched), _meet(a.full, b.full))


def _either(a: Sight, b: Sight) -> Sight:
    return Sight(_hull(a.touched, b.touched), _larger(a.full, b.full))


def _meet(a: Interval, b: Interval) -> Interval:
    lo = a.lo if b.lo is None else b.lo if a.lo is None else maximum(a.lo, b.lo)
    hi = a.hi if b.hi is None else b.hi if a.hi is None else minimum(a.hi, b.hi)
    return Interval(lo, hi)


def _hull(a: Interval, b: Interval) -> Interval:
    if NONE in (a, b):
        return b if a == NONE else a
    lo = None if a.lo is None or b.lo is None else minimum(a.lo, b.lo)
    hi = None if a.hi is None or b.hi is None else maximum(a.hi, b.hi)
    return Interval(lo, hi)


def _larger(a: Interval, b: Interval) -> Interval:
    """The one that surely or at run time holds more keys; its ends are always those of one of the two.

    The choice at run time names each end three times: of intervals whose ends are long already the first is taken.
    """
    if ALL in (a, b):
        return ALL
    if NONE in (a, b):
        return b if a == NONE else a
    if a.lo is None or a.hi is None or b.lo is None or b.hi is None:
        return b if (b.lo is None or b.hi is None) and a.lo is not None and a.hi is not None else a
    if sum(len(subexpressions(end)) for end in (a.lo, a.hi, b.lo, b.hi)) > MAX_FORMULA:
        return a
    smaller = lt(sub(a.hi, a.lo), sub(b.hi, b.lo))
    return Interval(select(smaller, b.lo, a.lo), select(smaller, b.hi, a.hi))


def _outside(inside: Interval, otherwise: Interval) -> Interval:
    """The complement, where it is one interval for all values: of nothing, everything and half-lines."""
    match inside:
        case Interval(None, None):
            return NONE
        case Interval(None, hi) if hi is not None:
            return Interval(add(hi, 1), None)
        case Interval(lo, None) if lo is not None:
            return Interval(None, sub(lo, 1))
    return ALL if inside == NONE else otherwise


def _half_line(slack: Expr) -> Sight | None:
    """`slack >= 0` as a bound on k, where k stands once with coefficient 1 or -1, perhaps under a floor division."""
    terms, constant = linear(slack)
    with_k = [term for term in terms if "k" in symbols(term)]
    if not with_k:
        return None
    rest = sub(slack, from_linear({term: terms[term] for term in with_k}, 0))
    if len(with_k) != 1 or abs(terms[with_k[0]]) != 1:
        return None
    positive = terms[with_k[0]] > 0
    # positive: inner(k) >= -rest; negative: inner(k) <= rest
    bound = scale(rest, -1) if positive else rest
    match with_k[0]:
        case Sym("k"):
            pass
        case FloorDiv(dividend, Int(divisor)) if linear(sub(dividend, K))[0] == {}:
            shift = linear(sub(dividend, K))[1]
            bound = sub(scale(bound, divisor) if positive else add(scale(bound, divisor), divisor - 1), shift)
        case _:
            return None
    ends = _over_rows(bound)
    if ends is None:
        return None
    least, most = ends
    if positive:
        return Sight(Interval(least, None), Interval(most, None))
    return Sight(Interval(None, most), Interval(None, least))


def _over_rows(bound: Expr) -> tuple[Expr, Expr] | None:
    """(least, most) value over rows u0 .. u1 of an expression that is monotone in q."""
    if "q" not in symbols(bound):
        return bound, bound
    at0, at1 = substitute(bound, {Q: U0}), substitute(bound, {Q: U1})
    match _direction(bound):
        case 1:
            return at0, at1
        case -1:
            return at1, at0
    return None


def _direction(expr: Expr) -> int | None:
    """1 if `expr` never falls as q grows, -1 if it never rises, 0 if q is not in it, None if unknown."""
    if "q" not in symbols(expr):
        return 0
    match expr:
        case Sym("q"):
            return 1
        case FloorDiv(dividend, Int(_)):
            return _direction(dividend)
        case Min(args) | Max(args):
            directions = {_direction(arg) for arg in args} - {0}
        case _:
            terms, _ = linear(expr)
            if set(terms) == {expr}:
                return None
            directions = set()
            for term, coefficient in terms.items():
                inner = _direction(term)
                directions.add(None if inner is None else inner * (1 if coefficient > 0 else -1))
            directions -= {0}
    return directions.pop() if len(directions) == 1 else None
