"""Condition -> Layout: which passes tile the rows, which walks visit the keys.

1. Some rows are owned: a pass over them sees the whole condition and stores final results. These are rows given as a
   token list, few rows that see nearly all keys where the others do not (`long_rows`), and the rows of a grid on which
   some term is a product over the axes; they are tiled by boxes (`owners`).
2. The rest becomes terms; each asks isl for the sublattices of its rows and keys.
3. Terms with one tiling and one index map share a walk; different walks are made disjoint, dense before sparse,
   affine before listed, by exact difference where that is short and by a Boolean residual where it is not.
4. Rows on a sublattice without residues are owned as well; what is left is grouped into passes by tiling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from spattn.expressions.algebra import (
    add,
    conj,
    disj,
    le,
    scale,
    sub,
    subexpressions,
    substitute_bool,
)
from spattn.expressions.nodes import (
    FALSE,
    TRUE,
    Bool,
    Expr,
    FloorDiv,
    Int,
    K,
    Member,
    Node,
    Or,
    Q,
    Relative,
    Sym,
    Tokens,
)
from spattn.layout.intervals import Interval, interval_of_rows
from spattn.layout.ir import Blocks, Epilogue, Grid, Layout, Listed, Pass, Walk
from spattn.layout.long_rows import long_rows
from spattn.layout.owners import off_grid, owned_grids, owned_lists, row_condition
from spattn.layout.pieces import Pieces, Unplannable
from spattn.layout.walks import calculated_walk, long_walks, plan_walks, walks_of
from spattn.relation.lattice import CONTIGUOUS, IndexMap
from spattn.relation.lengths import never_negative

MAX_SPELLED = 8  # tokens of blocks; more make more ranges than a tile should walk


def plan(condition: Bool, direction: str = "queries", by_residue: bool = True) -> Layout:
    """The layout of a condition over q, k: for every length, exact.

    Args:
        condition: Which pairs are allowed.
        direction: "queries", or "keys" to tile the keys.
        by_residue: May rows be tiled by residue classes? Else they are masked as they come, which is quicker where few
            rows are left of a class.
    """
    rows_first = condition if direction == "queries" else swapped(condition)
    made = _Plan(spelled_out(rows_first, K if direction == "queries" else Q), direction)
    for member in owned_lists(made.rest):
        walks = plan_walks(substitute_bool(made.rest, {member: TRUE}), direction)
        made.own(Listed(member.tokens), walks, member, substitute_bool(made.rest, {member: FALSE}))
    while (long := long_rows(made.rest, direction)) is not None:
        made.own(Listed(long.tokens), long_walks(long, direction), long.rows, long.outside)
    for grid in owned_grids(made.rest):
        rows = conj(le(0, Q), le(Q, math.prod(grid) - 1))
        made.own(Grid(grid), plan_walks(made.rest, direction, grid), rows, off_grid(made.rest, grid))
    others, capped = _plan_rest(made.rest, made.skip, direction, by_residue)
    passes = _with_epilogues((*made.passes, *others))
    return Layout(passes, condition, direction, tuple(dict.fromkeys(made.notes + capped)))


def _with_epilogues(passes: tuple[Pass, ...]) -> tuple[Pass, ...]:
    """Passes that own no rows go on from each other's results, and the last of them stores."""
    shared = [i for i, one in enumerate(passes) if not one.owns]
    return tuple(
        replace(one, epilogue=Epilogue(one.owns or i == shared[-1], not one.owns and i != shared[0]))
        for i, one in enumerate(passes)
    )


@dataclass
class _Plan:
    """Passes that own their rows.

    Attributes:
        rest: What is left for the other rows.
        skip: Is a row owned?
    """

    rest: Bool
    direction: str
    skip: Bool = FALSE
    passes: list[Pass] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def own(self, rows: IndexMap, planned: tuple[list[Walk], list[str]], owned: Bool, rest: Bool) -> None:
        """Adds a pass over `rows`, which are those where `owned` holds."""
        walks, capped = planned
        self.passes.append(Pass(rows, tuple(walks), skip=self.skip, owns=True))
        self.notes += capped
        earlier = self.skip.args if isinstance(self.skip, Or) else (self.skip,)
        self.skip, self.rest = disj(*(part for part in earlier if not _is_within(part, owned)), owned), rest


def _is_within(part: Bool, rows: Bool) -> bool:
    """Are the rows of a part for sure among those of an interval with constant ends?"""
    match interval_of_rows(rows), part:
        case Interval(Int(first), Int(last)), Member(Sym("q"), Tokens(values, ()), _):
            return all(first <= value <= last for value in values)
        case Interval(Int(first), Int(last)), _:
            inner = interval_of_rows(part)
            return inner is not None and inner.is_within(first, last)
    return False


def spelled_out(condition: Bool, keys: Sym) -> Bool:
    """Few constant tokens of blocks (`blockwise(64, global([0, -1]))`) as comparisons, which isl holds as intervals.

    Args:
        condition: Any.
        keys: Positions of keys, which are not compared with the ends of the keys.
    """
    found: dict[Node, Node] = {}
    for part in subexpressions(condition):
        match part:
            case Member(FloorDiv(Sym() as x, Int(size)), Tokens(values, ()), length) if len(values) <= MAX_SPELLED:
                found[part] = disj(*(_in_block(x, size, value, length, x == keys) for value in values))
    return substitute_bool(condition, found) if found else condition


def _in_block(x: Expr, size: int, token: int, length: Expr, key: bool) -> Bool:
    """`x // size` is a token of `0 .. length-1`."""
    block: Expr = Int(token) if token >= 0 else add(length, token)
    there = sub(sub(length, 1), block) if token >= 0 else block
    ends = [le(scale(block, size), x), le(x, add(scale(block, size), size - 1))]
    if key:
        ends = [end for end, needed in zip(ends, (token != 0, token != -1), strict=True) if needed]
    return conj(TRUE if never_negative(there) else le(0, there), *ends)


def swapped(condition: Bool) -> Bool:
    """Queries and keys exchanged: the condition of the transposed layout."""
    if any(isinstance(part, Relative) for part in subexpressions(condition)):
        # a frame is counted from the row's document, and both sides of a pair share it
        condition = _swap_frames(condition)
    return substitute_bool(condition, {Q: K, K: Q})


def _swap_frames(condition: Bool) -> Bool:
    frames = {part for part in subexpressions(condition) if isinstance(part, Relative)}
    return substitute_bool(condition, {frame: _swapped_frame(frame) for frame in frames})


def _swapped_frame(frame: Relative) -> Relative:
    rows = "keys" if frame.documents.two_sided and frame.rows == "queries" else "queries"
    return Relative(frame.documents, swapped(frame.inner), rows)


def _plan_rest(condition: Bool, skip: Bool, direction: str, by_residue: bool) -> tuple[list[Pass], list[str]]:
    try:
        return _planned_rest(condition, skip, direction, by_residue)
    except Unplannable:
        return [Pass(CONTIGUOUS, (calculated_walk(condition),), skip=skip)], ["interval calculus"]


def _planned_rest(condition: Bool, skip: Bool, direction: str, by_residue: bool) -> tuple[list[Pass], list[str]]:
    pieces = Pieces.of(condition, direction, residues=by_residue)
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
