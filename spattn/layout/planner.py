"""Condition -> Layout: which passes tile the rows, which walks visit the keys.

1. Token lists of rows are owned: a pass over those rows sees the whole condition and stores final results.
2. The rest becomes terms; each asks isl for the sublattices of its rows and keys.
3. Terms with one tiling and one index map share a walk; different walks are made disjoint, dense before sparse,
   affine before listed, by exact difference where that is short and by a Boolean residual where it is not.
4. Rows on a sublattice without residues are owned as well; what is left is grouped into passes by tiling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spattn.expressions.algebra import (
    add,
    conj,
    disj,
    eq,
    le,
    lt,
    mod,
    negate,
    sub,
    subexpressions,
    substitute_bool,
    symbols,
)
from spattn.expressions.nodes import (
    FALSE,
    KV_LEN,
    TRUE,
    Bool,
    Expr,
    FloorDiv,
    GivenTable,
    Int,
    InTable,
    Le,
    Member,
    Node,
    RandomTable,
    Relative,
    SameSegment,
    Sym,
    Tokens,
)
from spattn.layout.intervals import calculated_range
from spattn.layout.ir import Blocks, Box, Clamp, FrameClamp, Grid, Layout, LimitClamp, Listed, Pass, SegmentClamp, Walk
from spattn.relation import affine
from spattn.relation.affine import Sets, isl
from spattn.relation.bounds import BEGIN, LAST, WHOLE, Range, Ranges, bounds, everything, ranges_of, touched_set
from spattn.relation.grids import on_grid
from spattn.relation.lattice import (
    CONTIGUOUS,
    PLAIN,
    Affine,
    IndexMap,
    Regular,
    Runs,
    Sublattice,
    guaranteed,
    in_coordinates,
    positions,
    split_by_lattice,
)
from spattn.relation.terms import Term, disjunction

if TYPE_CHECKING:
    IslMap = Any

Q, K = Sym("q"), Sym("k")
MAX_PIECES = 8  # of an exact difference; a longer one makes a mask that costs more than a Boolean residual


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
            case Member(FloorDiv() as position, Tokens(values, ()), length) if len(values) <= MAX_PIECES:
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
    except _Unplannable:
        return [Pass(CONTIGUOUS, (_calculated_walk(condition),), skip=skip)], ["interval calculus"]


def _planned_rest(condition: Bool, skip: Bool, direction: str) -> tuple[list[Pass], list[str]]:
    planner = _Planner.of(condition, direction)
    passes: list[Pass] = []
    for rows in planner.owned_rows():
        walks = planner.restricted(rows).walks(rows)
        passes.append(Pass(rows, tuple(walks), block=_block(walks), skip=skip, owns=True))
        skip = disj(skip, row_condition(rows))
        planner = planner.without(rows)
    for tiling, residues in planner.tilings():
        walks = planner.walks(tiling)
        passes.append(Pass(tiling, tuple(walks), residues, _block(walks), skip))
    if all(p.owns for p in passes):
        passes.append(Pass(CONTIGUOUS, (), skip=skip))
    return passes, planner.sets.capped


def plan_walks(condition: Bool, direction: str, grid: tuple[int, ...] | None = None) -> tuple[list[Walk], list[str]]:
    """Walks for `condition` in one pass over listed rows or boxes, whose tiles need not lie in one row of a table."""
    try:
        planner = _Planner.of(condition, direction, residues=False, grid=grid)
        planner = _Planner(planner.sets, [piece.without_table() for piece in planner.pieces])
        return planner.walks(CONTIGUOUS), planner.sets.capped
    except _Unplannable:
        return [_calculated_walk(condition)], ["interval calculus"]


def _calculated_walk(condition: Bool) -> Walk:
    return Walk(CONTIGUOUS, (calculated_range(condition),), True, (), False, condition)


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


@dataclass(frozen=True)
class _Piece:
    """A part of a term on one sublattice (or under one list or table), with the guards of its term.

    Attributes:
        affine: The term's affine part as written: all of `pairs` if `whole`, else more.
    """

    keys: IndexMap
    rows: Regular
    residues: int
    pairs: IslMap
    affine: Bool
    guards: tuple[Bool, ...]
    whole: bool = True

    def without_table(self) -> _Piece:
        """Keys of a table's blocks are looked up row by row where a tile's rows lie in several blocks."""
        return replace(self, keys=CONTIGUOUS) if isinstance(self.keys, Blocks) else self

    @property
    def walk_key(self) -> tuple[object, ...]:
        return self.rows, self.keys, frozenset(self.guards)

    @property
    def condition(self) -> Bool:
        return conj(self.affine, *self.guards)


@dataclass
class _Planner:
    """The pieces of a condition, in the order in which they own pairs."""

    sets: Sets
    pieces: list[_Piece] = field(default_factory=list)

    @staticmethod
    def of(condition: Bool, direction: str, residues: bool = True, grid: tuple[int, ...] | None = None) -> _Planner:
        """The planner of a condition.

        Raises:
            _Unplannable: islpy is missing or cannot hold the condition.
        """
        terms = disjunction(condition) if affine.available else None
        if terms is None:
            raise _Unplannable
        planner = _Planner(Sets())
        for term in terms:
            box = _box(planner.sets, term, grid)
            if box is not None:
                planner.pieces.append(box)
                continue
            pairs = planner.sets.pairs(term.affine)
            if pairs is None:
                raise _Unplannable
            planner.pieces += _pieces(planner.sets, term, planner.seen(pairs, direction), residues)
        planner.pieces = [piece for piece in planner.pieces if not piece.pairs.is_empty()]
        planner.pieces.sort(key=lambda piece: _rank(planner.sets, piece))
        return planner

    def seen(self, pairs: IslMap, direction: str) -> IslMap:
        """`pairs` simplified, given that keys are not negative."""
        keys = self.sets.map(f"{{ [q] -> [k] : {'k' if direction == 'queries' else 'q'} >= 0 }}")
        simpler = self.sets.ask("keys", lambda: pairs.gist(keys).coalesce())
        return pairs if simpler is None else simpler

    def owned_rows(self) -> list[Regular]:
        """Row sublattices that are no partition into residues."""
        return list(dict.fromkeys(p.rows for p in self.pieces if p.rows != CONTIGUOUS and p.residues == 1))

    def restricted(self, rows: Regular) -> _Planner:
        """The condition on some rows only, all in one tiling."""
        domain = positions(self.sets, rows)
        pieces = []
        for piece in self.pieces:
            pairs = piece.pairs.intersect_domain(domain).coalesce()
            if piece.residues > 1:
                piece = replace(piece, keys=CONTIGUOUS, residues=1)
            if not pairs.is_empty():
                pieces.append(replace(piece.without_table(), pairs=pairs, rows=rows))
        return _Planner(self.sets, pieces)

    def without(self, rows: Regular) -> _Planner:
        """The pieces that have pairs in other rows too."""
        domain = positions(self.sets, rows)
        kept = [piece for piece in self.pieces if not piece.pairs.domain().is_subset(domain)]
        return _Planner(self.sets, kept)

    def tilings(self) -> list[tuple[Regular, int]]:
        """The tilings that are left, contiguous rows first."""
        found = dict.fromkeys((piece.rows, piece.residues) for piece in self.pieces)
        return sorted(found, key=lambda tiling: tiling[1])

    def walks(self, rows: Regular) -> list[Walk]:
        """The walks of the pass over `rows`; pairs of earlier pieces, in whatever pass, are theirs."""
        walks = []
        groups: dict[tuple[object, ...], list[_Piece]] = {}
        for piece in self.pieces:
            groups.setdefault(piece.walk_key, []).append(piece)
        earlier: list[_Piece] = []
        for group in groups.values():
            if group[0].rows == rows:
                walk = _walk(self.sets, group, earlier)
                if walk is not None:
                    walks.append(walk)
            earlier += group
        return walks


def _rank(sets: Sets, piece: _Piece) -> tuple[object, ...]:
    """Dense before sparse, affine before listed, few guards before many, large before small."""
    indirect = not isinstance(piece.keys, Affine | Runs)
    plain = piece.rows == CONTIGUOUS and piece.keys == CONTIGUOUS
    return indirect, len(piece.guards), not plain, -_extent(sets, piece.pairs)


def _extent(sets: Sets, pairs: IslMap) -> int:
    """How many pairs a row near position 512 has, about: for the order of terms, never for an answer."""
    row = pairs.intersect_domain(sets.set("{ [q] : q = 512 }")).intersect_range(sets.set("{ [k] : 0 <= k < 1024 }"))
    keys = row.range()
    keys = keys.project_out(isl.dim_type.param, 0, keys.dim(isl.dim_type.param))
    return sets.ask("extent", lambda: int(keys.count_val().to_python())) or 0


def _pieces(sets: Sets, term: Term, pairs: IslMap, residues: bool) -> list[_Piece]:
    driver = next(filter(None, map(_driver, term.guards)), None)
    if driver is not None:
        guard, keys = driver
        return [_Piece(keys, CONTIGUOUS, 1, pairs, term.affine, (guard, *(g for g in term.guards if g != guard)))]
    parts = split_by_lattice(sets, pairs, residues)
    return [
        _Piece(lattice.keys, lattice.rows, lattice.residues, part, term.affine, term.guards, whole=len(parts) == 1)
        for lattice, part in parts
    ]


def _box(sets: Sets, term: Term, shape: tuple[int, ...] | None) -> _Piece | None:
    """The piece of a term on the grid that a pass tiles. isl need not hold it: the boxes' own masks are exact."""
    found = None if shape is None else on_grid(term.affine)
    if found is None or found.shape != shape:
        return None
    ranges = tuple(_axis_range(sets, axis, length) for axis, length in zip(found.axes, found.shape, strict=True))
    everything = sets.map("{ [q] -> [k] }")
    return _Piece(Box(found.shape, found.axes, ranges), CONTIGUOUS, 1, everything, term.affine, term.guards)


def _axis_range(sets: Sets, axis: Bool, length: int) -> Range:
    """Coordinates that rows u0 .. u1 of an axis touch: by the interval calculus, and where it gives up by isl."""
    found = calculated_range(axis)
    if BEGIN not in (found.lo, found.hi) and LAST not in (found.lo, found.hi):
        return found
    inside = [le(0, x) for x in (Q, K)] + [le(x, length - 1) for x in (Q, K)]
    pairs = sets.pairs(conj(axis, *inside)) if affine.is_affine(axis) else None
    context = sets.set(f"[u0, u1] -> {{ : 0 <= u0 <= u1 < {length} }}")
    touched = None if pairs is None else sets.ask("touched", lambda: touched_set(sets, pairs, context))
    ends = None if touched is None else sets.ask("bounds", lambda: bounds(sets, touched, context))
    return found if ends is None else replace(found, lo=ends[0], hi=ends[1])


def _driver(guard: Bool) -> tuple[Bool, IndexMap] | None:
    """The guard that says which keys to visit, and how."""
    match guard:
        case Member(Sym("k"), tokens, length) if length == KV_LEN:
            return guard, Listed(tokens)
        case InTable(table, row, column):
            for transposed, (a, b) in ((False, (Q, K)), (True, (K, Q))):
                size = _divisor(row, a)
                # tiles of one row each gain nothing over a mask
                if size not in (None, 1) and size == _divisor(column, b) and not _framed(table):
                    return guard, Blocks(table, size, transposed)
    return None


def _framed(table: RandomTable | GivenTable) -> bool:
    return isinstance(table, RandomTable) and not symbols(table.key_blocks) <= {"kv_len"}


def _divisor(expr: Expr, symbol: Sym) -> int | None:
    match expr:
        case Sym():
            return 1 if expr == symbol else None
        case FloorDiv(dividend, Int(divisor)) if dividend == symbol:
            return divisor
    return None


def _walk(sets: Sets, group: list[_Piece], earlier: list[_Piece]) -> Walk | None:
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


def _difference(sets: Sets, group: list[_Piece], earlier: list[_Piece]) -> _Rest:
    maps = [piece.pairs for piece in group]
    guards = set(group[0].guards)
    written = disj(*(piece.affine for piece in group)) if all(piece.whole for piece in group) else None
    excluded: list[Bool] = []
    for piece in earlier:
        if all(sets.ask("disjoint", lambda m=m, p=piece: m.is_disjoint(p.pairs)) for m in maps):  # type: ignore[misc]
            continue
        less = [sets.ask("difference", lambda m=m, p=piece: m.subtract(p.pairs).coalesce()) for m in maps]  # type: ignore[misc]
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
        raise _Unplannable
    return min(candidates, key=lambda mask: len(subexpressions(mask)))


class _Unplannable(Exception):
    """islpy is missing or met its cap where there is no approximation: the interval calculus takes over."""


def _ranges(sets: Sets, lattice: Sublattice, maps: list[IslMap], masked: bool) -> Ranges:
    inside = [in_coordinates(sets, lattice, pairs) for pairs in maps]
    found = {m.get_dim_name(isl.dim_type.param, i) for m in inside for i in range(m.dim(isl.dim_type.param))}
    residue = f" and 0 <= c < {lattice.residues}" if lattice.residues > 1 else ""
    length = " and kv_len >= 1" if "kv_len" in found else ""
    names = sorted(found | ({"c"} if residue else set()))
    context = sets.set(f"[{', '.join(['u0', 'u1', *names])}] -> {{ : u0 <= u1{length}{residue} }}")
    if len(inside) == 1 and inside[0].is_equal(isl.Map.universe(inside[0].get_space())):
        return Ranges((everything(masked),))
    return ranges_of(sets, inside, context, masked)


def _clamp(guard: Bool) -> list[Clamp]:
    match guard:
        case SameSegment(ids, left, right) if {left, right} == {Q, K}:
            return [SegmentClamp(ids)]
        case Relative(ids, inner):
            walks, _ = plan_walks(inner, "queries")
            return [FrameClamp(ids, _hull(walks))]
        case Le(left, right) if symbols(guard) & {"q", "k"} == {"k"}:
            last = sub(right, sub(left, K))
            return [] if "k" in symbols(last) else [LimitClamp(last)]
    return []


def _hull(walks: list[Walk]) -> Range:
    """The range of a frame: exact only where one walk with one range has it all."""
    if len(walks) == 1 and len(walks[0].ranges) == 1 and walks[0].keys == CONTIGUOUS and walks[0].interval:
        only = walks[0].ranges[0]
        return only if walks[0].residual == TRUE else replace(only, full_lo=Int(0), full_hi=Int(-1))
    return WHOLE
