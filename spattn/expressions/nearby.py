"""What holds of a query where a condition holds of it or of one a little before it."""

from __future__ import annotations

from spattn.expressions.algebra import (
    add,
    conj,
    disj,
    floordiv,
    le,
    linear,
    maximum,
    minimum,
    negate,
    scale,
    sub,
    symbols,
)
from spattn.expressions.nodes import TRUE, And, Bool, Eq, Expr, FloorDiv, Int, Le, Max, Min, Mod, Not, Or, Q


def nearby(condition: Bool, back: int) -> Bool:
    """True at q if `condition` is true at one of q - back .. q, and perhaps elsewhere; what is affine stays so."""
    if "q" not in symbols(condition):
        return condition
    match condition:
        case And(args):
            return conj(*(nearby(arg, back) for arg in args))
        case Or(args):
            return disj(*(nearby(arg, back) for arg in args))
        case Not(And(args)):
            return disj(*(nearby(negate(arg), back) for arg in args))
        case Not(Or(args)):
            return conj(*(nearby(negate(arg), back) for arg in args))
        case Le(left, right):
            ends = _ends(sub(right, left), back)
            return TRUE if ends is None else le(0, ends[1])
        case Eq(left, right):
            return conj(nearby(le(left, right), back), nearby(le(right, left), back))
    return TRUE


def _ends(expr: Expr, back: int) -> tuple[Expr, Expr] | None:
    """Bounds of `expr` over queries q - back .. q, as expressions in q; None where there are none."""
    if "q" not in symbols(expr):
        return expr, expr
    match expr:
        case _ if expr == Q:
            return add(Q, -back), Q
        case Mod(_, Int(d)) if d > 0:
            return Int(0), Int(d - 1)
        case FloorDiv(dividend, Int(d)) if d > 0:
            inner = _ends(dividend, back)
            return None if inner is None else (floordiv(inner[0], d), floordiv(inner[1], d))
        case Min(args) | Max(args):
            found = [_ends(arg, back) for arg in args]
            known = [ends for ends in found if ends is not None]
            least = minimum if isinstance(expr, Min) else maximum
            lows, highs = [low for low, _ in known], [high for _, high in known]
            return (least(*lows), least(*highs)) if len(known) == len(found) else None
    terms, constant = linear(expr)
    return None if set(terms) == {expr} else _of_sum(terms, constant, back)


def _of_sum(terms: dict[Expr, int], constant: int, back: int) -> tuple[Expr, Expr] | None:
    low: Expr = Int(constant)
    high: Expr = Int(constant)
    for term, coefficient in terms.items():
        ends = _ends(term, back)
        if ends is None:
            return None
        one, other = (scale(end, coefficient) for end in (ends if coefficient > 0 else ends[::-1]))
        low, high = add(low, one), add(high, other)
    return low, high
