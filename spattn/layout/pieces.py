"""A condition as pieces: each with an index map for its rows and one for its keys, in the order of ownership."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spattn.expressions.algebra import (
    conj,
    symbols,
)
from spattn.expressions.nodes import (
    KV_LEN,
    Bool,
    Expr,
    FloorDiv,
    Int,
    InTable,
    K,
    Member,
    Q,
    RandomTable,
    Sym,
    Table,
)
from spattn.layout.axes import axis_range
from spattn.layout.ir import Blocks, Box, Listed
from spattn.relation import affine
from spattn.relation.affine import Sets, isl
from spattn.relation.grids import on_grid
from spattn.relation.lattice import (
    CONTIGUOUS,
    Affine,
    IndexMap,
    Regular,
    Runs,
    positions,
    split_by_lattice,
)
from spattn.relation.terms import Term, disjunction

if TYPE_CHECKING:
    IslMap = Any


class Unplannable(Exception):
    """islpy is missing or met its cap where there is no approximation: the interval calculus takes over."""


@dataclass(frozen=True)
class Piece:
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

    def without_table(self) -> Piece:
        """Keys of a table's blocks are looked up row by row where a tile's rows lie in several blocks."""
        return replace(self, keys=CONTIGUOUS) if isinstance(self.keys, Blocks) else self

    @property
    def walk_key(self) -> tuple[object, ...]:
        """What pieces of one walk share."""
        return self.rows, self.keys, frozenset(self.guards)

    @property
    def condition(self) -> Bool:
        """The piece as one condition, of a part that is not whole with more pairs."""
        return conj(self.affine, *self.guards)


@dataclass
class Pieces:
    """The pieces of a condition: dense before sparse, affine before listed, few guards before many, large first."""

    sets: Sets
    pieces: list[Piece] = field(default_factory=list)

    @staticmethod
    def of(condition: Bool, direction: str, residues: bool = True, grid: tuple[int, ...] | None = None) -> Pieces:
        """The pieces of a condition.

        Raises:
            Unplannable: islpy is missing or cannot hold the condition.
        """
        terms = disjunction(condition) if affine.available else None
        if terms is None:
            raise Unplannable
        made = Pieces(Sets())
        for term in terms:
            box = _box(made.sets, term, grid)
            if box is not None:
                made.pieces.append(box)
                continue
            pairs = made.sets.pairs(term.affine)
            if pairs is None:
                raise Unplannable
            made.pieces += _pieces(made.sets, term, made.seen(pairs, direction), residues)
        made.pieces = _with_tables_that_fit([piece for piece in made.pieces if not piece.pairs.is_empty()])
        made.pieces.sort(key=lambda piece: _rank(made.sets, piece))
        return made

    def seen(self, pairs: IslMap, direction: str) -> IslMap:
        """`pairs` simplified, given that keys are not negative."""
        keys = self.sets.map(f"{{ [q] -> [k] : {'k' if direction == 'queries' else 'q'} >= 0 }}")
        simpler = self.sets.ask("keys", lambda: pairs.gist(keys).coalesce())
        return pairs if simpler is None else simpler

    def owned_rows(self) -> list[Regular]:
        """Row sublattices that are no partition into residues."""
        return list(dict.fromkeys(p.rows for p in self.pieces if p.rows != CONTIGUOUS and p.residues == 1))

    def restricted(self, rows: Regular) -> Pieces:
        """The condition on some rows only, all in one tiling."""
        domain = positions(self.sets, rows)
        pieces = []
        for piece in self.pieces:
            pairs = piece.pairs.intersect_domain(domain).coalesce()
            if piece.residues > 1:
                piece = replace(piece, keys=CONTIGUOUS, residues=1)
            if not pairs.is_empty():
                pieces.append(replace(piece.without_table(), pairs=pairs, rows=rows))
        return Pieces(self.sets, pieces)

    def without(self, rows: Regular) -> Pieces:
        """The pieces that have pairs in other rows too."""
        domain = positions(self.sets, rows)
        kept = [piece for piece in self.pieces if not piece.pairs.domain().is_subset(domain)]
        return Pieces(self.sets, kept)

    def tilings(self) -> list[tuple[Regular, int]]:
        """The tilings that are left, contiguous rows first."""
        found = dict.fromkeys((piece.rows, piece.residues) for piece in self.pieces)
        return sorted(found, key=lambda tiling: tiling[1])


def _with_tables_that_fit(pieces: list[Piece]) -> list[Piece]:
    """A tile lies in one block of each table: where sizes share no divisor, the largest blocks alone are walked."""
    sizes = [piece.keys.size for piece in pieces if isinstance(piece.keys, Blocks)]
    if math.gcd(*sizes) != 1:
        return pieces
    fits = [not isinstance(piece.keys, Blocks) or piece.keys.size == max(sizes) for piece in pieces]
    return [piece if fit else piece.without_table() for piece, fit in zip(pieces, fits, strict=True)]


def _rank(sets: Sets, piece: Piece) -> tuple[object, ...]:
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


def _pieces(sets: Sets, term: Term, pairs: IslMap, residues: bool) -> list[Piece]:
    driver = next(filter(None, map(_driver, term.guards)), None)
    if driver is not None:
        guard, keys = driver
        return [Piece(keys, CONTIGUOUS, 1, pairs, term.affine, (guard, *(g for g in term.guards if g != guard)))]
    parts = split_by_lattice(sets, pairs, residues)
    return [
        Piece(lattice.keys, lattice.rows, lattice.residues, part, term.affine, term.guards, whole=len(parts) == 1)
        for lattice, part in parts
    ]


def _box(sets: Sets, term: Term, shape: tuple[int, ...] | None) -> Piece | None:
    """The piece of a term on the grid that a pass tiles. isl need not hold it: the boxes' own masks are exact."""
    found = None if shape is None else on_grid(term.affine)
    if found is None or found.shape != shape:
        return None
    ranges = tuple(axis_range(axis, length) for axis, length in zip(found.axes, found.shape, strict=True))
    everything = sets.map("{ [q] -> [k] }")
    return Piece(Box(found.shape, found.axes, ranges), CONTIGUOUS, 1, everything, term.affine, term.guards)


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


def _framed(table: Table) -> bool:
    return isinstance(table, RandomTable) and not symbols(table.key_blocks) <= {"kv_len"}


def _divisor(expr: Expr, symbol: Sym) -> int | None:
    match expr:
        case Sym():
            return 1 if expr == symbol else None
        case FloorDiv(dividend, Int(divisor)) if dividend == symbol:
            return divisor
    return None
