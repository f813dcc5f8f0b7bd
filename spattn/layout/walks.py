"""Pieces -> walks: pieces with one tiling and one index map share a walk, different walks are made disjoint.

By exact difference where that is short, by a Boolean residual where it is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from spattn.expressions.algebra import (
    conj,
    disj,
    is_about_pair,
    le,
    maximum,
    minimum,
    negate,
    pair_of,
    select,
    sub,
    subexpressions,
    symbols,
)
from spattn.expressions.nodes import (
    FALSE,
    TRUE,
    Bool,
    K,
    Le,
    Q,
    Relative,
    SameSegment,
)
from spattn.layout.intervals import U0, U1, calculated_range
from spattn.layout.ir import Box, Clamp, FrameClamp, LimitClamp, SegmentClamp, Walk
from spattn.layout.long_rows import LongRows
from spattn.layout.pieces import Piece, Pieces, Unplannable
from spattn.relation.affine import Sets, isl
from spattn.relation.bounds import EMPTY_FULL, WHOLE, Range, Ranges, everything, ranges_of
from spattn.relation.lattice import (
    CONTIGUOUS,
    PLAIN,
    Affine,
    Regular,
    Runs,
    Sublattice,
    guaranteed,
    in_coordinates,
)

if TYPE_CHECKING:
    IslMap = Any

MAX_PIECES = 8  # of an exact difference; a longer one makes a mask that costs more than a Boolean residual


def plan_walks(condition: Bool, direction: str, grid: tuple[int, ...] | None = None) -> tuple[list[Walk], list[str]]:
    """Walks for `condition` in one pass over listed rows or boxes, whose tiles need not lie in one row of a table."""
    try:
        found = Pieces.of(condition, direction, residues=False, grid=grid)
        # the pass tiles its own rows, wherever those of a piece lie
        pieces = [replace(piece.without_table(), rows=CONTIGUOUS) for piece in found.pieces]
        found = Pieces(found.sets, pieces)
        return walks_of(found, CONTIGUOUS), found.sets.capped
    except Unplannable:
        return [calculated_walk(condition)], ["interval calculus"]


def long_walks(long: LongRows, direction: str) -> tuple[list[Walk], list[str]]:
    """Walks of a pass over long rows. With a few short ones among them one walk has it all, masked for their sake."""
    if long.long is None:
        return plan_walks(long.inside, direction)
    (ends, beside), walk = long.long, calculated_walk(long.inside)
    every = conj(*(le(end, U0) for end in (ends.lo,) if end), *(le(U1, end) for end in (ends.hi,) if end))
    at_least = calculated_range(beside)
    full = select(every, at_least.full_lo, EMPTY_FULL[0]), select(every, at_least.full_hi, EMPTY_FULL[1])
    (touched,) = walk.ranges
    return [replace(walk, ranges=(Range(touched.lo, touched.hi, *full),))], []


def calculated_walk(condition: Bool) -> Walk:
    """One walk by the interval calculus, exactly masked."""
    return Walk(CONTIGUOUS, (calculated_range(condition),), True, (), False, condition)


def walks_of(all_pieces: Pieces, rows: Regular) -> list[Walk]:
    """The walks of the pass over `rows`; pairs of earlier pieces, in whatever pass, are theirs."""
    walks = []
    groups: dict[tuple[object, ...], list[Piece]] = {}
    for piece in all_pieces.pieces:
        groups.setdefault(piece.walk_key, []).append(piece)
    earlier: list[Piece] = []
    for group in groups.values():
        if group[0].rows == rows:
            walk = _walk(all_pieces.sets, group, earlier)
            if walk is not None:
                walks.append(walk)
        earlier += group
    return walks


def _walk(sets: Sets, group: list[Piece], earlier: list[Piece]) -> Walk | None:
    """The walk over a group of pieces with one index map and the same guards, less the earlier pieces' pairs."""
    first = group[0]
    rest = _difference(sets, group, earlier)
    if not rest.maps:
        return None
    if not isinstance(first.keys, Affine | Runs):
        if isinstance(first.keys, Box):
            residual = conj(*first.guards, rest.excluded)
        else:
            residual = conj(_affine_mask(sets, PLAIN, rest), *first.guards[1:], rest.excluded)
        return None if residual == FALSE else Walk(first.keys, (), True, (), False, residual)
    lattice = Sublattice(first.rows, first.keys)
    clamps = [clamp for guard in first.guards for clamp in _clamp(guard)]
    found = _ranges(sets, lattice, rest.maps, masked=rest.excluded != TRUE or len(clamps) < len(first.guards))
    if not found.ranges:
        return None
    interval = len(found.ranges) == 1 and found.ranges[0].exact
    inside = TRUE if interval else _affine_mask(sets, lattice, rest)
    residual = conj(inside, *first.guards, rest.excluded)
    return Walk(first.keys, found.ranges, found.ordered, tuple(clamps), interval, residual)


@dataclass(frozen=True)
class _Rest:
    """What a group of pieces has beyond the earlier ones.

    Attributes:
        maps: Their pairs, less those of earlier pieces where isl could subtract these.
        written: The same as a condition over q and k, if the pieces are whole terms.
        excluded: True unless a pair is an earlier piece's that isl could not subtract.
    """

    maps: list[IslMap]
    written: Bool | None
    excluded: Bool


def _difference(sets: Sets, group: list[Piece], earlier: list[Piece]) -> _Rest:
    maps = [piece.pairs for piece in group]
    guards = set(group[0].guards)
    written = disj(*(piece.affine for piece in group)) if all(piece.whole for piece in group) else None
    excluded: list[Bool] = []
    for piece in earlier:
        if all(sets.ask("disjoint", lambda m=m, p=piece: m.is_disjoint(p.pairs)) for m in maps):  # type: ignore[misc]
            continue
        less = [_subtracted(sets, m, piece.pairs) for m in maps]
        boxes = isinstance(piece.keys, Box) or isinstance(group[0].keys, Box)
        if (
            not boxes
            and set(piece.guards) <= guards
            and all(m is not None and m.n_basic_map() <= MAX_PIECES for m in less)
        ):
            maps = [m for m in less if m is not None and not m.is_empty()]
            written = conj(written, negate(piece.affine)) if written is not None and piece.whole else None
        else:
            excluded.append(negate(piece.condition))
    return _Rest(maps, written, conj(*excluded))


def _subtracted(sets: Sets, pairs: IslMap, less: IslMap) -> IslMap | None:
    return sets.ask("difference", lambda: sets.explicit(pairs).subtract(sets.explicit(less)).coalesce())


def _affine_mask(sets: Sets, lattice: Sublattice, rest: _Rest) -> Bool:
    """What the index maps do not guarantee: as isl prints it, or as written, whichever is shorter."""
    visited = guaranteed(sets, lattice)
    printed: Bool | None = FALSE
    for pairs in rest.maps:
        gist = sets.ask("gist", lambda m=pairs: m.gist(visited).coalesce())  # type: ignore[misc]
        condition = sets.condition(pairs if gist is None else gist)
        printed = None if condition is None or printed is None else disj(printed, condition)
    candidates = [mask for mask in (printed, rest.written) if mask is not None]
    if not candidates:
        raise Unplannable
    return min(candidates, key=lambda mask: len(subexpressions(mask)))


def _ranges(sets: Sets, lattice: Sublattice, maps: list[IslMap], masked: bool) -> Ranges:
    inside = [in_coordinates(sets, lattice, pairs) for pairs in maps]
    found = {m.get_dim_name(isl.dim_type.param, i) for m in inside for i in range(m.dim(isl.dim_type.param))}
    residue = [f"0 <= c < {lattice.residues}"] if lattice.residues > 1 else []
    names = sorted(found | ({"c"} if residue else set()))
    known = " and ".join(filter(None, ["u0 <= u1", sets.facts(names), *residue]))
    context = sets.set(f"[{', '.join(['u0', 'u1', *names])}] -> {{ : {known} }}")
    if len(inside) == 1 and inside[0].is_equal(isl.Map.universe(inside[0].get_space())):
        return Ranges((everything(masked),))
    return ranges_of(sets, inside, context, masked)


def _clamp(guard: Bool) -> list[Clamp]:
    match guard:
        case SameSegment(documents, _, _) if is_about_pair(guard):
            rows = "keys" if documents.two_sided and pair_of(guard) == (K, Q) else "queries"
            return [SegmentClamp(documents, rows)]
        case Relative(documents, inner, rows):
            walks, _ = plan_walks(inner, rows)
            return [FrameClamp(documents, rows, _hull(walks))]
        case Le(left, right) if symbols(guard) & {"q", "k"} == {"k"}:
            last = sub(right, sub(left, K))
            return [] if "k" in symbols(last) else [LimitClamp(last)]
    return []


def _hull(walks: list[Walk]) -> Range:
    """The range of a frame: full only where one walk with one range has it all."""
    ranges = [r for walk in walks if walk.keys == CONTIGUOUS for r in walk.ranges]
    if not walks or any(walk.keys != CONTIGUOUS for walk in walks):
        return WHOLE
    if len(ranges) == 1 and walks[0].interval and walks[0].residual == TRUE:
        return ranges[0]
    lo, hi = minimum(*(r.lo for r in ranges)), maximum(*(r.hi for r in ranges))
    return Range(lo, hi, *EMPTY_FULL)
