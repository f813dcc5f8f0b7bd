"""The layout run in NumPy: which key tiles the row tiles of a pass visit, and the mask of each visit.

What the kernels do tile by tile is done here for all tiles at once: it rebuilds masks, counts work and drives the torch
backend. Rows outside the call, keys outside the call and rows that another pass owns are masked out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from spattn.expressions.algebra import sub
from spattn.expressions.evaluation import BoolArray, IntArray
from spattn.expressions.nodes import TRUE, InTable, Sym
from spattn.layout.boxes import axis_ends, key_sides
from spattn.layout.call import Call
from spattn.layout.clamps import reach
from spattn.layout.grid_index import places_of, positions_of
from spattn.layout.ir import COLUMN_BEGIN, COLUMN_END, Blocks, Box, Listed, Walk
from spattn.layout.tiles import NOWHERE, Tiles, padded
from spattn.layout.trips import Ends, Trips, trips
from spattn.relation.bounds import Range
from spattn.relation.lattice import Affine, Regular, Runs


@dataclass(frozen=True)
class Visits:
    """Key tiles in the order of row tiles: `tile[i]` sees walk coordinates `start[i] .. start[i] + BLOCK_N - 1`.

    Attributes:
        full: Every row of the tile sees every key of the visit.
    """

    tile: IntArray
    start: IntArray
    full: BoolArray

    def __len__(self) -> int:
        return len(self.tile)

    def taken(self, which: IntArray | BoolArray) -> Visits:
        """Some of the visits."""
        return Visits(self.tile[which], self.start[which], self.full[which])


def visits(walk: Walk, tiles: Tiles, call: Call, block_n: int) -> Visits:
    """The key tiles that a walk visits."""
    match walk.keys:
        case Listed(tokens):
            return _list_visits(len(call.tokens(tokens)), len(tiles.rows), block_n)
        case Box() as box:
            return _box_visits(box, tiles, block_n)
        case Blocks() as blocks:
            return _block_visits(blocks, tiles, call, block_n, walk.residual == TRUE)
        case Affine() | Runs() as keys:
            return _range_visits(walk, keys, tiles, call, block_n)
    raise AssertionError(walk.keys)


def _list_visits(length: int, count: int, block_n: int) -> Visits:
    starts = np.arange(0, length, block_n, dtype=np.int64)
    tile = np.repeat(np.arange(count), len(starts))
    return Visits(tile, np.tile(starts, count), np.zeros(len(tile), np.bool_))


def _box_visits(box: Box, tiles: Tiles, block_n: int) -> Visits:
    """Boxes of keys that cover each axis' range; `start` is a box's first corner."""
    sides = key_sides(box, tiles.rows.shape[1], block_n)
    places = _places(tiles.rows, box.shape)
    lows, counts = [], []
    for place, length, r, side in zip(places, box.shape, box.ranges, sides, strict=True):
        lo, hi = axis_ends(r, *tiles.ends(place), length)
        lows.append(lo)
        counts.append(np.maximum(-(-(hi - lo + 1) // side), 0))
    number = np.prod(counts, axis=0)
    tile = np.repeat(np.arange(len(number)), number)
    step = np.arange(len(tile)) - np.repeat(np.cumsum(number) - number, number)
    corner = []
    for lo, count, side in zip(reversed(lows), reversed(counts), reversed(sides), strict=True):
        corner.append(lo[tile] + step % count[tile] * side)
        step = step // count[tile]
    start = positions_of(corner[::-1], box.shape)
    return Visits(tile, np.asarray(start, np.int64), np.zeros(len(tile), np.bool_))


def _block_visits(blocks: Blocks, tiles: Tiles, call: Call, block_n: int, unmasked: bool) -> Visits:
    first, _ = tiles.ends(tiles.rows)
    tile, block = np.nonzero(_marked_blocks(blocks, first // blocks.size, call))
    parts = np.arange(0, blocks.size, block_n, dtype=np.int64)
    block = block + call.columns[0] // blocks.size
    start = (block[:, None] * blocks.size + parts).ravel()
    stop = np.minimum(np.repeat((block + 1) * blocks.size, len(parts)), call.columns[1])
    full = (start + block_n <= stop) & (start >= call.columns[0])
    return Visits(np.repeat(tile, len(parts)), start, full & unmasked).taken(start < stop)


def _marked_blocks(blocks: Blocks, row_block: IntArray, call: Call) -> BoolArray:
    """[tiles, column blocks]: the blocks that the table marks for the tile's row block."""
    begin, end = call.columns
    columns = np.arange(begin // blocks.size, -(-end // blocks.size), dtype=np.int64)[None, :]
    row, column = (columns, row_block[:, None]) if blocks.transposed else (row_block[:, None], columns)
    if not row.size or not column.size:
        return np.zeros((len(row_block), columns.shape[1]), np.bool_)
    return call.truth(InTable(blocks.table, Sym("row"), Sym("column")), row=row, column=column)


def _range_visits(walk: Walk, keys: Regular, tiles: Tiles, call: Call, block_n: int) -> Visits:
    found = [_ends(r, walk, keys, tiles, call) for r in walk.ranges]
    if not walk.ordered:
        found = _sorted(found)
    cursor = np.full(len(tiles.rows), -NOWHERE, np.int64)
    parts = [_no_visits()]
    for ends in found:
        seen = trips(ends, cursor, block_n)
        parts.append(_range_tiles(seen, block_n))
        cursor = seen.cursor
    joined = Visits(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("tile", "start", "full")))
    return joined.taken(np.argsort(joined.tile, kind="stable"))


def _no_visits() -> Visits:
    return Visits(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_))


def _range_tiles(seen: Trips, block_n: int) -> Visits:
    """The tiles of one range, for each row tile."""
    tile = np.repeat(np.arange(len(seen.tiles)), seen.tiles)
    number = np.arange(len(tile)) - np.repeat(np.cumsum(seen.tiles) - seen.tiles, seen.tiles)
    before, full = seen.before[tile], seen.full[tile]
    return Visits(tile, seen.lo[tile] + number * block_n, (before <= number) & (number < before + full))


def _sorted(found: list[Ends]) -> list[Ends]:
    """Ranges of each tile by first key, the empty ones last."""
    arrays = [np.stack([getattr(ends, name) for ends in found]) for name in ("lo", "hi", "full_lo", "full_hi")]
    key = np.where(arrays[0] <= arrays[1], arrays[0], NOWHERE)
    order = np.argsort(key, axis=0, kind="stable")
    arrays = [np.take_along_axis(array, order, 0) for array in arrays]
    return [Ends(*(array[i] for array in arrays)) for i in range(len(found))]


def _ends(r: Range, walk: Walk, keys: Regular, tiles: Tiles, call: Call) -> Ends:
    u0, u1 = tiles.ends(tiles.coordinates)
    env = {"u0": u0, "u1": u1, "c": tiles.residue}
    env = env | _walk_ends(keys, call, **env)
    lo, hi, full_lo, full_hi = (call.integer(end, **env) for end in (r.lo, r.hi, r.full_lo, r.full_hi))
    lo, hi = np.maximum(lo, env["begin"]), np.minimum(hi, env["last"])

    def at(position: IntArray) -> IntArray:
        return call.integer(keys.coordinate(Sym("x")), x=position, c=tiles.residue)

    for clamp in walk.clamps:
        left = reach(clamp, tiles, call)
        lo, hi = np.maximum(lo, at(left.first)), np.minimum(hi, at(left.last + 1) - 1)
        full_lo = np.maximum(full_lo, at(left.full_first))
        full_hi = np.minimum(full_hi, at(left.full_last + 1) - 1)
    return Ends(lo, hi, full_lo, full_hi)


def _walk_ends(keys: Regular, call: Call, **env: IntArray) -> dict[str, IntArray]:
    """`begin` and `last`: the first and last coordinate of the call's columns."""
    return {
        "begin": call.integer(keys.coordinate(COLUMN_BEGIN), **env),
        "last": call.integer(sub(keys.coordinate(COLUMN_END), 1), **env),
    }


@dataclass(frozen=True)
class Keys:
    """Positions [visits, BLOCK_N] of the keys of visits; `inside`: are they the visit's and the call's?"""

    positions: IntArray
    inside: BoolArray


def keys_of(walk: Walk, tiles: Tiles, seen: Visits, call: Call, block_n: int) -> Keys:
    """Where the keys of visits lie."""
    v = seen.start[:, None] + np.arange(block_n)
    stop = np.full(len(seen), NOWHERE)
    match walk.keys:
        case Listed(tokens):
            positions = padded(call.tokens(tokens), block_n)[seen.start // block_n]
        case Blocks(_, size, _):
            positions, stop = v, (seen.start // size + 1) * size
        case Box() as box:
            return _box_keys(box.shape, key_sides(box, tiles.rows.shape[1], block_n), seen, call, block_n)
        case Affine() | Runs() as keys:
            positions = call.integer(keys.position(Sym("v")), v=v, c=tiles.residue[seen.tile][:, None])
        case _:
            raise AssertionError(walk.keys)
    inside = (positions >= call.columns[0]) & (positions < np.minimum(stop, call.columns[1])[:, None])
    return Keys(positions, inside)


def _box_keys(shape: tuple[int, ...], sides: tuple[int, ...], seen: Visits, call: Call, block_n: int) -> Keys:
    corners = places_of(seen.start, shape)
    number = np.arange(block_n)
    places = places_of(np.minimum(number, prod(sides) - 1), sides)
    along = [corner[:, None] + place for corner, place in zip(corners, places, strict=True)]
    inside = np.logical_and.reduce([x < n for x, n in zip(along, shape, strict=True)])
    positions = positions_of([np.minimum(x, n - 1) for x, n in zip(along, shape, strict=True)], shape)
    inside = inside & (number < prod(sides)) & (positions >= call.columns[0]) & (positions < call.columns[1])
    return Keys(np.asarray(positions, np.int64), np.asarray(inside))


def visit_mask(walk: Walk, tiles: Tiles, seen: Visits, keys: Keys, call: Call) -> BoolArray:
    """[visits, BLOCK_M, BLOCK_N]: which pairs of each visit the walk allows, whether or not its pass keeps the row."""
    q = tiles.rows[seen.tile][:, :, None]
    k = np.where(keys.inside, keys.positions, 0)[:, None, :]
    allowed = call.truth(walk.residual, q=q, k=k)
    if isinstance(walk.keys, Box):
        allowed = allowed & _on_axes(walk.keys, q, k, call)
    if walk.interval:
        allowed = allowed & _row_interval(walk, tiles, seen, keys, call)
    return np.asarray(allowed & keys.inside[:, None, :] | seen.full[:, None, None])


def _on_axes(box: Box, q: IntArray, k: IntArray, call: Call) -> BoolArray:
    """Does each axis' condition hold for the coordinates of q and k?"""
    places = zip(_places(q, box.shape), _places(k, box.shape), strict=True)
    axes = zip(box.axes, places, strict=True)
    return np.asarray(np.logical_and.reduce([call.truth(axis, q=x, k=y) for axis, (x, y) in axes]))


def _row_interval(walk: Walk, tiles: Tiles, seen: Visits, keys: Keys, call: Call) -> BoolArray:
    """Is each key inside its row's own range? The range's formulas at u0 = u1 = u."""
    assert isinstance(walk.keys, Affine | Runs)
    u = tiles.coordinates[seen.tile][:, :, None]
    env = {"u0": u, "u1": u, "c": tiles.residue[seen.tile][:, None, None]}
    env = env | _walk_ends(walk.keys, call, **env)
    v = seen.start[:, None, None] + np.arange(keys.positions.shape[1])
    (r,) = walk.ranges
    return np.asarray((call.integer(r.lo, **env) <= v) & (v <= call.integer(r.hi, **env)))


def _places(positions: IntArray, shape: tuple[int, ...]) -> list[IntArray]:
    """Coordinates of positions; those outside the grid, which are masked, get some place on it."""
    return places_of(np.clip(positions, 0, prod(shape) - 1), shape)
