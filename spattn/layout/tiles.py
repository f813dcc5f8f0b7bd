"""The row tiles of a pass at a call: which positions each tile holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spattn.expressions.evaluation import BoolArray, IntArray
from spattn.expressions.nodes import Sym
from spattn.layout.call import Call
from spattn.layout.grid_index import places_of, positions_of
from spattn.layout.ir import Grid, Listed, Pass, box_sides
from spattn.layout.tiling import present_residues, tile_count, tile_rows
from spattn.relation.lattice import Affine, Regular, Runs

NOWHERE = 2**40  # past every position


@dataclass(frozen=True)
class Tiles:
    """The row tiles of a pass.

    Attributes:
        rows: Positions [tiles, BLOCK_M]; the call's first where not valid.
        coordinates: Row coordinates [tiles, BLOCK_M].
        valid: Is the row one of the call's? [tiles, BLOCK_M]
        residue: [tiles].
    """

    rows: IntArray
    coordinates: IntArray
    valid: BoolArray
    residue: IntArray

    def ends(self, of: IntArray) -> tuple[IntArray, IntArray]:
        """(first, last) of `of` over the valid rows of each tile."""
        return (
            np.where(self.valid, of, NOWHERE).min(1, initial=NOWHERE),
            np.where(self.valid, of, -NOWHERE).max(1, initial=-NOWHERE),
        )

    def taken(self, which: IntArray) -> Tiles:
        """Some of the tiles."""
        return Tiles(self.rows[which], self.coordinates[which], self.valid[which], self.residue[which])


def row_tiles(one: Pass, call: Call, block_m: int) -> Tiles:
    """The tiles of a pass, those without any row left out."""
    match one.rows:
        case Listed(tokens):
            found = padded(call.tokens(tokens), block_m)
            tiles = Tiles(found, found, found < NOWHERE, np.zeros(len(found), np.int64))
        case Grid(shape):
            tiles = _grid_tiles(shape, block_m)
        case Affine() | Runs() as rows:
            tiles = _regular_tiles(one, rows, call, block_m)
        case _:
            raise AssertionError(one.rows)
    valid = tiles.valid & (tiles.rows >= call.rows[0]) & (tiles.rows < call.rows[1])
    # a row outside of the call stands where a mask may be evaluated
    placed = np.where(valid, tiles.rows, call.rows[0])
    return Tiles(placed, tiles.coordinates, valid, tiles.residue).taken(np.flatnonzero(valid.any(1)))


def kept_rows(one: Pass, tiles: Tiles, call: Call) -> BoolArray:
    """[tiles, BLOCK_M]: rows that this pass stores; the others are not the call's, or an earlier pass owns them."""
    return tiles.valid & ~call.truth(one.skip, q=tiles.rows)


def padded(values: IntArray, width: int) -> IntArray:
    """[n] as [n / width, width], filled up with NOWHERE."""
    count = -(-len(values) // width)
    result = np.full(count * width, NOWHERE, np.int64)
    result[: len(values)] = values
    return result.reshape(count, width)


def _grid_tiles(shape: tuple[int, ...], block_m: int) -> Tiles:
    """Boxes of a grid; the rows of one in row-major order."""
    sides = box_sides(block_m, len(shape))
    corners = np.meshgrid(*(np.arange(0, n, side) for n, side in zip(shape, sides, strict=True)), indexing="ij")
    places = places_of(np.arange(block_m), sides)
    along = [corner.ravel()[:, None] + place for corner, place in zip(corners, places, strict=True)]
    valid = np.logical_and.reduce([x < n for x, n in zip(along, shape, strict=True)])
    positions = positions_of([np.minimum(x, n - 1) for x, n in zip(along, shape, strict=True)], shape)
    return Tiles(positions, positions, valid, np.zeros(len(positions), np.int64))


def _regular_tiles(one: Pass, rows: Regular, call: Call, block_m: int) -> Tiles:
    present = max(present_residues(one, call.rows), 1)
    classes = ((call.rows[0] + i) % one.residues for i in range(present))
    parts = [_residue_tiles(one, rows, call, block_m, c) for c in classes]
    return Tiles(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _residue_tiles(
    one: Pass, rows: Regular, call: Call, block_m: int, c: int
) -> tuple[IntArray, IntArray, BoolArray, IntArray]:
    residue = np.asarray(c, np.int64)
    begin, end = (int(call.value(rows.coordinate(Sym("x")), x=np.asarray(x, np.int64), c=residue)) for x in call.rows)
    tiles = np.arange(tile_count(begin, end, one.block, block_m), dtype=np.int64)
    starts, stops = tile_rows(tiles, begin, end, one.block, block_m)
    u = starts[:, None] + np.arange(block_m)
    positions = call.integer(rows.position(Sym("v")), v=u, c=residue)
    return positions, u, (u < stops[:, None]) & (u >= begin), np.full(len(starts), c, np.int64)
