"""Condition -> Layout: which passes tile the rows, which walks visit the keys.

1. Token lists of rows are owned: a pass over those rows sees the whole condition and stores final results. So are the
   rows of a grid on which some term is a product over the axes; they are tiled by boxes.
2. The rest becomes terms; each asks isl for the sublattices of its rows and keys.
3. Terms with one tiling and one index map share a walk; different walks are made disjoint, dense before sparse,
   affine before listed, by exact difference where that is short and by a Boolean residual where it is not.
4. Rows on a sublattice without residues are owned as well; what is left is grouped into passes by tiling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from spattn.expressions.algebra import (
    add,
    conj,
    disj,
    eq,
    le,
    lt,
    mod,
    sub,
    subexpressions,
    substitute_bool,
)
from spattn.expressions.nodes import (
    FALSE,
    KV_LEN,
    TRUE,
    Bool,
    FloorDiv,
    K,
    Member,
    Node,
    Q,
    Relative,
    Tokens,
)
from spattn.layout.ir import Blocks, Grid, Layout, Listed, Pass, Walk
from spattn.layout.pieces import Pieces, Unplannable
from spattn.layout.walks import calculated_walk, plan_walks, walks_of
from spattn.relation.grids import on_grid
from spattn.relation.lattice import (
    CONTIGUOUS,
    Affine,
    Regular,
    Runs,
)
from spattn.relation.terms import disjunction

MAX_SPELLED = 8  # tokens of blocks; more make more ranges than a tile should walk


def plan(condition: Bool, direction: str = "queries") -> Layout:
    """The layout of a condition over q, k: for every length, exact; `direction="keys"` tiles the keys."""
    rows_first = spelled_out(condition if direction == "queries" else swapped(condition))
    passes: list[Pass] = []
    notes: list[str] = []
    skip: Bool = FALSE
    rest = rows_first
    for member in owned_lists(rows_first):
        walks, capped = plan_walks(substitute_bool(rest, {member: TRUE}), direction)
        passes.append(Pass(Listed(member.tokens), tuple(walks), skip=skip, owns=True))
        notes += capped
        skip = disj(skip, member)
        rest = substitute_bool(rest, {member: FALSE})
    for grid in owned_grids(rest):
        walks, capped = plan_walks(rest, direction, grid)
        passes.append(Pass(Grid(grid), tuple(walks), skip=skip, owns=True))
        notes += capped
        skip = disj(skip, conj(le(0, Q), le(Q, math.prod(grid) - 1)))
        rest = _off_grid(rest, grid)
    others, capped = _plan_rest(rest, skip, direction)
    return Layout((*passes, *others), condition, direction, tuple(dict.fromkeys(notes + capped)))


def spelled_out(condition: Bool) -> Bool:
    """Few constant tokens of blocks (`blockwise(64, global([0, -1]))`) as comparisons, which isl holds as intervals."""
    found: dict[Node, Node] = {}
    for part in subexpressions(condition):
        match part:
            case Member(FloorDiv() as position, Tokens(values, ()), length) if len(values) <= MAX_SPELLED:
                places = (eq(position, v) if v >= 0 else eq(position, add(length, v)) for v in values)
                found[part] = conj(le(0, position), lt(position, length), disj(*places))
    return substitute_bool(condition, found) if found else condition


def swapped(condition: Bool) -> Bool:
    """Queries and keys exchanged: the condition of the transposed layout."""
    if any(isinstance(part, Relative) for part in subexpressions(condition)):
        # a frame is counted from the row's document, and both sides of a pair share it
        condition = _swap_frames(condition)
    return substitute_bool(condition, {Q: K, K: Q})


def _swap_frames(condition: Bool) -> Bool:
    frames = {part for part in subexpressions(condition) if isinstance(part, Relative)}
    return substitute_bool(condition, {frame: Relative(frame.ids, swapped(frame.inner)) for frame in frames})


def owned_lists(condition: Bool) -> list[Member]:
    """Lists of row tokens that add pairs somewhere: in some term, not negated."""
    terms = disjunction(condition) or ()
    members = (guard for term in terms for guard in term.guards if isinstance(guard, Member))
    return list(dict.fromkeys(m for m in members if m.position == Q and m.length == KV_LEN))


def owned_grids(condition: Bool) -> list[tuple[int, ...]]:
    """Grids on which some term is a product over the axes; a pass tiles their rows by boxes, and owns them."""
    found = (on_grid(term.affine) for term in disjunction(condition) or ())
    return list(dict.fromkeys(grid.shape for grid in found if grid is not None))[:1]


def _off_grid(condition: Bool, shape: tuple[int, ...]) -> Bool:
    """The terms that may have pairs in rows outside a grid."""
    terms = disjunction(condition) or ()
    grids = [on_grid(term.affine) for term in terms]
    return disj(*(t.condition for t, g in zip(terms, grids, strict=True) if g is None or g.shape != shape))


def _plan_rest(condition: Bool, skip: Bool, direction: str) -> tuple[list[Pass], list[str]]:
    try:
        return _planned_rest(condition, skip, direction)
    except Unplannable:
        return [Pass(CONTIGUOUS, (calculated_walk(condition),), skip=skip)], ["interval calculus"]


def _planned_rest(condition: Bool, skip: Bool, direction: str) -> tuple[list[Pass], list[str]]:
    pieces = Pieces.of(condition, direction)
    passes: list[Pass] = []
    for rows in pieces.owned_rows():
        walks = walks_of(pieces.restricted(rows), rows)
        passes.append(Pass(rows, tuple(walks), block=_block(walks), skip=skip, owns=True))
        skip = disj(skip, row_condition(rows))
        pieces = pieces.without(rows)
    for tiling, residues in pieces.tilings():
        walks = walks_of(pieces, tiling)
        passes.append(Pass(tiling, tuple(walks), residues, _block(walks), skip))
    if all(p.owns for p in passes):
        passes.append(Pass(CONTIGUOUS, (), skip=skip))
    return passes, pieces.sets.capped


def _block(walks: Iterable[Walk]) -> int:
    """Rows of a tile share one row of each table."""
    return math.gcd(*(walk.keys.size for walk in walks if isinstance(walk.keys, Blocks))) or 1


def row_condition(rows: Regular) -> Bool:
    """Does row q lie on the sublattice?"""
    match rows:
        case Affine(step, phase):
            return eq(mod(sub(Q, phase), step), 0)
        case Runs(period, run, first):
            return le(mod(sub(Q, first), period), run - 1)
