"""The block-layout IR: what a kernel does, for every length, tile size and device.

A *pass* tiles the rows; its *walks* visit the keys and share one online softmax. Rows are queries and columns keys in a
layout of direction "queries"; a layout of direction "keys", for dK and dV, has them the other way round. An *index map*
says where a coordinate lies; both sides of a pass have one. Symbols at a tile's clock: u0, u1 (first and last row
coordinate), c (residue); at a launch's: kv_len, row_begin, row_end, column_begin, column_end (positions, half-open).
"""

from __future__ import annotations

from typing import Any

from spattn.expressions.evaluation import BoolArray
from spattn.expressions.frozen import frozen
from spattn.expressions.nodes import (
    FALSE,
    TRUE,
    And,
    Bool,
    Documents,
    Expr,
    Int,
    Le,
    Sym,
    Table,
    Tokens,
)
from spattn.relation.bounds import BEGIN, LAST, Range
from spattn.relation.lattice import IndexMap


@frozen
class Listed(IndexMap):
    """`tokens[v]`, ascending."""

    tokens: Tokens


@frozen
class Blocks(IndexMap):
    """`size * list[v // size] + v % size`, the list of the row's block in a table; `transposed`: of the column's."""

    table: Table
    size: int
    transposed: bool = False


@frozen
class Grid(IndexMap):
    """Rows on a row-major grid, tiled by boxes; a coordinate is a position."""

    shape: tuple[int, ...]


@frozen
class Box(IndexMap):
    """Keys in a box of a grid: on each axis a range for the rows' box, masked by that axis' own condition.

    Attributes:
        axes: Conditions over q and k, the coordinates on that axis.
        ranges: Formulas in u0 and u1, the first and last row coordinate on that axis.
    """

    shape: tuple[int, ...]
    axes: tuple[Bool, ...]
    ranges: tuple[Range, ...]


def box_sides(block: int, rank: int) -> tuple[int, ...]:
    """Sides of a box of `block` tokens, a power of two: nearly a cube, longest along the fastest axis."""
    bits = block.bit_length() - 1
    if rank == 2:
        return 1 << bits // 2, 1 << bits - bits // 2
    depth = min(bits // 3, 2)
    height = min((bits - depth) // 2, 2)
    return 1 << depth, 1 << height, 1 << bits - depth - height


@frozen
class SegmentClamp:
    """Columns from the first to the last of the rows' documents; full inside the run that all rows share.

    Attributes:
        rows: "queries" or "keys": which side the rows are, on one side always "queries".
    """

    documents: Documents
    rows: str


@frozen
class FrameClamp:
    """The range that a pattern counted from the document's start allows; the whole document where rows have several.

    Attributes:
        rows: As of a `SegmentClamp`.
    """

    documents: Documents
    rows: str
    range: Range


@frozen
class LimitClamp:
    """Positions up to `last`, a formula at the launch's clock (lengths of a batch)."""

    last: Expr


Clamp = SegmentClamp | FrameClamp | LimitClamp


@frozen
class Walk:
    """Keys under one index map: ranges, clamps on them, and the mask of partial tiles.

    The mask is `residual`, and with `interval` also that the key lies in its row's own range.
    """

    keys: IndexMap
    ranges: tuple[Range, ...]
    ordered: bool
    clamps: tuple[Clamp, ...]
    interval: bool
    residual: Bool

    @property
    def masks_pairs(self) -> bool:
        """May a tile hold pairs that are not allowed, though their column is inside?"""
        cut = self.interval and any((r.lo, r.hi) != (BEGIN, LAST) for r in self.ranges)
        cut_box = isinstance(self.keys, Box) and any(axis != TRUE for axis in self.keys.axes)
        return self.residual != TRUE or cut or cut_box


@frozen
class Epilogue:
    """What a pass does with what it has summed up for a row.

    Attributes:
        stores_output: It is the call's result; else the next pass goes on from it.
        accumulates: It goes on from what an earlier pass left.
    """

    stores_output: bool = True
    accumulates: bool = False


@frozen
class Pass:
    """A tiling of the rows and the walks of its tiles.

    Attributes:
        rows: Their index map; `residues` of it, one for each c in 0 .. residues-1.
        block: Tiles do not straddle multiples of this (1: they may), since a walk follows a table.
        skip: Rows that an earlier pass owns.
        owns: No other pass adds to its rows.
        epilogue: How its results are kept.
    """

    rows: IndexMap
    walks: tuple[Walk, ...]
    residues: int = 1
    block: int = 1
    skip: Bool = FALSE
    owns: bool = False
    epilogue: Epilogue = Epilogue()

    @property
    def has_masked_tiles(self) -> bool:
        """Does some tile of columns hold one for one row that another row may not see?"""
        return any(walk.masks_pairs for walk in self.walks)

    def skips(self, first: int, stop: int) -> bool:
        """Do earlier passes own all rows from `first` to before `stop`? Known where what they own is an interval."""
        match self.skip:
            case And((Le(Int(begin), Sym("q")), Le(Sym("q"), Int(last)))):
                return begin <= first and stop - 1 <= last
        return False


@frozen
class Layout:
    """Passes in launch order. Owners first; those that own nothing are merged through (out, lse).

    Attributes:
        notes: What the planner approximated, for `explain`.
    """

    passes: tuple[Pass, ...]
    condition: Bool
    direction: str = "queries"
    notes: tuple[str, ...] = ()

    @property
    def in_classes(self) -> bool:
        """Are some rows tiled by residue classes?"""
        return any(one.residues > 1 for one in self.passes)

    def mask(self, q_len: int, kv_len: int, **call: Any) -> BoolArray:
        """The dense mask rebuilt from the tiles; arguments and result as of `spattn.layout.rebuild.layout_mask`."""
        from spattn.layout.rebuild import layout_mask

        return layout_mask(self, q_len, kv_len, **call)


ROW_BEGIN, ROW_END = Sym("row_begin"), Sym("row_end")
COLUMN_BEGIN, COLUMN_END = Sym("column_begin"), Sym("column_end")
