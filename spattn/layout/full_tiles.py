"""When a whole tile is allowed: a condition on the ends of its rows u0 .. u1 and keys k0 .. k1.

It may only under-approximate: a tile that is called certain has every pair, another may have every pair too.
"""

from __future__ import annotations

from spattn.expressions.algebra import add, conj, disj, le, linear, lt, negate, scale, sub, substitute, symbols
from spattn.expressions.nodes import FALSE, And, Bool, Expr, FloorDiv, Int, K, Le, Node, Not, Or, Q, Sym, Truth

U0, U1, K0, K1 = (Sym(name) for name in ("u0", "u1", "k0", "k1"))


def certain(condition: Bool) -> Bool:
    """A condition on u0, u1, k0, k1 under which all pairs of the tile meet `condition`."""
    match condition:
        case Truth():
            return condition
        case And(args):
            return conj(*map(certain, args))
        case Or(args):
            return disj(*map(certain, args))
        case Le(left, right):
            least = _least(sub(right, left))
            return FALSE if least is None else le(0, least)
        case Not(And(args)):
            return disj(*(certain(negate(arg)) for arg in args))
        case Not(Or(args)):
            return conj(*(certain(negate(arg)) for arg in args))
        case Not(Le(left, right)):
            return certain(lt(right, left))
    return FALSE


def _least(slack: Expr) -> Expr | None:
    """The least value over the tile of a sum of terms that each grow or fall with q or k; None of others."""
    terms, constant = linear(slack)
    found: list[Expr] = []
    for term, coefficient in terms.items():
        if not symbols(term) & {"q", "k"}:
            found.append(scale(term, coefficient))
        elif _grows(term):
            ends: dict[Node, Node] = {Q: U0, K: K0} if coefficient > 0 else {Q: U1, K: K1}
            found.append(scale(substitute(term, ends), coefficient))
        else:
            return None
    return add(constant, *found)


def _grows(term: Expr) -> bool:
    """Does it never fall as q or k grows?"""
    match term:
        case Sym("q") | Sym("k"):
            return True
        case FloorDiv(dividend, Int(_)):
            terms, _ = linear(dividend)
            return all(c > 0 and (_grows(t) or not symbols(t) & {"q", "k"}) for t, c in terms.items())
    return False
