"""A condition as a disjunction of terms: an affine part, which isl holds exactly, times guards, which it never sees.

Token lists, tables, documents and tensors are guards: 64 tokens as points are more than isl can subtract from a band.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from spattn.expressions.algebra import add, conj, disj, negate, substitute_bool, symbols
from spattn.expressions.nodes import FALSE, TRUE, And, Bool, K, Not, Or, Q, Relative, Sym
from spattn.relation.affine import is_affine

MAX_TERMS = 64


@dataclass(frozen=True)
class Term:
    """`affine & guards[0] & ..`; a guard is no And and no Or, it may be a Not."""

    affine: Bool
    guards: tuple[Bool, ...] = ()

    @property
    def condition(self) -> Bool:
        """The term as one condition."""
        return conj(self.affine, *self.guards)


@lru_cache(maxsize=64)
def disjunction(condition: Bool) -> tuple[Term, ...] | None:
    """The terms of `condition` as written, `&` distributed over `|`; None where they are more than MAX_TERMS."""
    try:
        return tuple(term for term in _terms(condition) if term.condition != FALSE)
    except _TooMany:
        return None


class _TooMany(Exception):
    """More terms than anybody plans."""


def _terms(condition: Bool) -> list[Term]:
    match condition:
        case Or(args):
            return _checked([term for arg in args for term in _terms(arg)])
        case And(args):
            product = [Term(TRUE)]
            for arg in args:
                product = _checked([_both(left, right) for left in product for right in _terms(arg)])
            return product
        case Not(arg) if not is_affine(arg) and isinstance(arg, And | Or):
            return _terms(_de_morgan(arg))
        case Not(Relative() as frame):
            return _terms(replace(frame, inner=negate(frame.inner)))
        case Relative():
            return [_unframed(condition, term) for term in _terms(condition.inner)]
        case _ if is_affine(condition):
            return [Term(condition)]
        case _:
            return [Term(TRUE, (condition,))]


def _unframed(frame: Relative, term: Term) -> Term:
    """A term in a document's frame: what speaks of distances alone is the same outside of it, if on one side."""
    parts = term.affine.args if isinstance(term.affine, And) else (term.affine,)
    free = [part for part in parts if not frame.documents.two_sided and of_distance(part)]
    framed = conj(*(part for part in parts if part not in free), *term.guards)
    return Term(conj(*free), () if framed == TRUE else (replace(frame, inner=framed),))


def of_distance(part: Bool) -> bool:
    """Is it the same when q and k move together?"""
    there = Sym("there")
    moved = substitute_bool(part, {Q: add(Q, there), K: add(K, there)})
    return "kv_len" not in symbols(part) and moved == part


def _de_morgan(arg: And | Or) -> Bool:
    parts = tuple(negate(part) for part in arg.args)
    return disj(*parts) if isinstance(arg, And) else conj(*parts)


def _both(left: Term, right: Term) -> Term:
    affine = conj(left.affine, right.affine)
    guards = conj(*left.guards, *right.guards)
    if guards == FALSE:
        return Term(FALSE)
    return Term(affine, guards.args if isinstance(guards, And) else () if guards == TRUE else (guards,))


def _checked(terms: list[Term]) -> list[Term]:
    distinct = list(dict.fromkeys(term for term in terms if term.affine != FALSE))
    if len(distinct) > MAX_TERMS:
        raise _TooMany
    return distinct
