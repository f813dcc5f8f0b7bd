"""Rows that a pass of their own has: it sees all terms and stores final results, so that others skip them."""

from __future__ import annotations

from spattn.expressions.algebra import disj, eq, le, mod, sub
from spattn.expressions.nodes import KV_LEN, Bool, Member, Q
from spattn.relation.grids import on_grid
from spattn.relation.lattice import Affine, Regular, Runs
from spattn.relation.terms import disjunction


def owned_lists(condition: Bool) -> list[Member]:
    """Lists of row tokens that add pairs somewhere: in some term, not negated."""
    terms = disjunction(condition) or ()
    members = (guard for term in terms for guard in term.guards if isinstance(guard, Member))
    return list(dict.fromkeys(m for m in members if m.position == Q and m.length == KV_LEN))


def owned_grids(condition: Bool) -> list[tuple[int, ...]]:
    """Grids on which some term is a product over the axes; a pass tiles their rows by boxes, and owns them."""
    found = (on_grid(term.affine) for term in disjunction(condition) or ())
    return list(dict.fromkeys(grid.shape for grid in found if grid is not None))[:1]


def off_grid(condition: Bool, shape: tuple[int, ...]) -> Bool:
    """The terms that may have pairs in rows outside a grid."""
    terms = disjunction(condition) or ()
    grids = [on_grid(term.affine) for term in terms]
    return disj(*(t.condition for t, g in zip(terms, grids, strict=True) if g is None or g.shape != shape))


def row_condition(rows: Regular) -> Bool:
    """Does row q lie on the sublattice?"""
    match rows:
        case Affine(step, phase):
            return eq(mod(sub(Q, phase), step), 0)
        case Runs(period, run, first):
            return le(mod(sub(Q, first), period), run - 1)
