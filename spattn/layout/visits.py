"""The layout run in NumPy: which tiles each pass has, which key tiles they visit, and the mask of each visit.

What the kernels do tile by tile is done here for all tiles at once: it rebuilds masks, counts work and drives the torch
backend. Rows outside the call, keys outside the call and rows that another pass owns are masked out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spattn.expressions.algebra import add, sub
from spattn.expressions.evaluation import evaluate
from spattn.expressions.nodes import TRUE, Bool, Expr, GivenTable, RandomTable, Sym
from spattn.expressions.tensors import Tensors
from spattn.layout.ir import (
    COLUMN_BEGIN,
    COLUMN_END,
    Blocks,
    Clamp,
    FrameClamp,
    LimitClamp,
    Listed,
    Pass,
    SegmentClamp,
    Walk,
)
from spattn.relation.bounds import Range
from spattn.relation.lattice import Affine, Regular, Runs

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
NOWHERE = 2**40  # past every position


@dataclass(frozen=True)
class Call:
    """One (batch entry, head) of a launch: lengths in tokens, positions of rows and columns half-open."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    kv_len: int
    tensors: Tensors
    batch: int = 0
    head: int = 0

    @property
    def env(self) -> dict[str, int]:
        """Symbols of a launch."""
        return {
            "row_begin": self.rows[0],
            "row_end": self.rows[1],
            "column_begin": self.columns[0],
            "column_end": self.columns[1],
            "kv_len": self.kv_len,
            "h": self.head,
            "b": self.batch,
        }

    def value(self, node: Expr | Bool, **symbols: IntArray) -> NDArray[np.generic]:
        """A node at this call and the given symbols."""
        return np.asarray(evaluate(node, {**self.env, **symbols}, self.tensors))


@dataclass(frozen=True)
class Tiles:
    """The row tiles of a pass.

    Attributes:
        rows: Positions [tiles, BLOCK_M].
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


@dataclass(frozen=True)
class Visits:
    """Key tiles in the order of row tiles: `tile[i]` sees walk coordinates `start[i] .. start[i] + BLOCK_N - 1`.

    Attributes:
        keys: Positions [visits, BLOCK_N]; valid where `inside`.
        full: Every row of the tile sees every key of the visit.
    """

    tile: IntArray
    start: IntArray
    keys: IntArray
    inside: BoolArray
    full: BoolArray


def row_tiles(one: Pass, call: Call, block_m: int) -> Tiles:
    """The tiles of a pass, those without any row left out."""
    match one.rows:
        case Listed(tokens):
            found = tokens_of(tokens, call)
            coordinates = _padded(found, block_m)
            tiles = Tiles(coordinates, coordinates, coordinates < NOWHERE, np.zeros(len(coordinates), np.int64))
        case Affine() | Runs() as rows:
            tiles = _regular_tiles(one, rows, call, block_m)
        case _:
            raise AssertionError(one.rows)
    valid = tiles.valid & (tiles.rows >= call.rows[0]) & (tiles.rows < call.rows[1])
    kept = valid.any(1)
    return Tiles(tiles.rows[kept], tiles.coordinates[kept], valid[kept], tiles.residue[kept])


def _padded(values: IntArray, width: int) -> IntArray:
    count = -(-len(values) // width)
    padded = np.full(count * width, NOWHERE, np.int64)
    padded[: len(values)] = values
    return padded.reshape(count, width)


def tokens_of(tokens: object, call: Call) -> IntArray:
    """The positions that a token list names at this call, ascending, without repetition."""
    found = np.unique(np.asarray(call.tensors.tokens(tokens, call.kv_len, call.batch), np.int64))
    return found[(found >= 0) & (found < call.kv_len)]


def _regular_tiles(one: Pass, rows: Regular, call: Call, block_m: int) -> Tiles:
    parts = [_residue_tiles(one, rows, call, block_m, c) for c in range(one.residues)]
    return Tiles(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _residue_tiles(
    one: Pass, rows: Regular, call: Call, block_m: int, c: int
) -> tuple[IntArray, IntArray, BoolArray, IntArray]:
    residue = np.asarray(c, np.int64)
    begin, end = (int(call.value(rows.coordinate(Sym("x")), x=np.asarray(x, np.int64), c=residue)) for x in call.rows)
    if one.block > 1:
        starts, stops = _block_starts(begin, end, one.block, block_m)
    else:
        starts = np.arange(begin, max(end, begin), block_m, dtype=np.int64)
        stops = np.full_like(starts, end)
    u = starts[:, None] + np.arange(block_m)
    positions = call.value(rows.position(Sym("v")), v=u, c=residue).astype(np.int64)
    return positions, u, (u < stops[:, None]) & (u >= begin), np.full(len(starts), c, np.int64)


def _block_starts(begin: int, end: int, block: int, block_m: int) -> tuple[IntArray, IntArray]:
    """Tiles that do not straddle a multiple of `block`."""
    if end <= begin:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    blocks = np.arange(begin // block, -(-end // block), dtype=np.int64) * block
    parts = np.arange(0, block, block_m, dtype=np.int64)
    starts = (blocks[:, None] + parts).ravel()
    stops = np.minimum(np.repeat(blocks + block, len(parts)), end)
    return starts, stops


def visits(walk: Walk, one: Pass, tiles: Tiles, call: Call, block_n: int) -> Visits:
    """The key tiles that a walk visits."""
    match walk.keys:
        case Listed(tokens):
            keys = _padded(tokens_of(tokens, call), block_n)
            return _every_tile(tiles, keys, call)
        case Blocks() as blocks:
            return _block_visits(blocks, tiles, call, block_n, walk.residual == TRUE)
        case Affine() | Runs() as keys_map:
            return _range_visits(walk, keys_map, one, tiles, call, block_n)
    raise AssertionError(walk.keys)


def _every_tile(tiles: Tiles, keys: IntArray, call: Call) -> Visits:
    count = len(tiles.rows)
    tile = np.repeat(np.arange(count), len(keys))
    all_keys = np.tile(keys, (count, 1))
    inside = (all_keys >= call.columns[0]) & (all_keys < call.columns[1])
    return Visits(tile, np.zeros(len(tile), np.int64), all_keys, inside, np.zeros(len(tile), bool))


def _block_visits(blocks: Blocks, tiles: Tiles, call: Call, block_n: int, unmasked: bool) -> Visits:
    first, _ = tiles.ends(tiles.rows)
    row_block = first // blocks.size
    marked = marked_blocks(blocks.table, row_block, blocks, call)
    tile, block = np.nonzero(marked)
    parts = np.arange(0, blocks.size, block_n, dtype=np.int64)
    tile = np.repeat(tile, len(parts))
    start = (block[:, None] * blocks.size + parts).ravel()
    stop = np.repeat((block + 1) * blocks.size, len(parts))
    keys = start[:, None] + np.arange(block_n)
    inside = (keys < stop[:, None]) & (keys >= call.columns[0]) & (keys < call.columns[1])
    return Visits(tile, start, keys, inside, inside.all(1) & unmasked)


def marked_blocks(
    table: RandomTable | GivenTable, row_block: IntArray, blocks: Blocks, call: Call
) -> BoolArray:
    """[tiles, column blocks]: the blocks that the table marks for the tile's row block."""
    count = -(-call.columns[1] // blocks.size)
    columns = np.arange(max(count, 0), dtype=np.int64)[None, :]
    rows = row_block[:, None]
    row, column = (columns, rows) if blocks.transposed else (rows, columns)
    marked = call.tensors.in_table(table, row, column, {**call.env})
    return np.broadcast_to(np.asarray(marked, bool), (len(row_block), columns.shape[1]))


@dataclass
class _Ends:
    """Bounds of one range for each tile, in walk coordinates."""

    lo: IntArray
    hi: IntArray
    full_lo: IntArray
    full_hi: IntArray
    walk_env: dict[str, IntArray] = field(default_factory=dict)


def _range_visits(walk: Walk, keys: Regular, one: Pass, tiles: Tiles, call: Call, block_n: int) -> Visits:
    found = [_ends(r, walk, keys, tiles, call) for r in walk.ranges]
    if not walk.ordered:
        found = _sorted(found)
    cursor = np.full(len(tiles.rows), -NOWHERE, np.int64)
    parts: list[tuple[IntArray, IntArray, bool]] = []
    for ends in found:
        lo = np.maximum(ends.lo, cursor)
        some = lo <= ends.hi
        full_lo, full_hi = np.maximum(ends.full_lo, lo), np.minimum(ends.full_hi, ends.hi)
        a = lo + -(-(full_lo - lo) // block_n) * block_n
        b = a + np.maximum(full_hi + 1 - a, 0) // block_n * block_n
        parts.append((*_starts(lo, np.minimum(a, ends.hi + 1), some, block_n), False))
        parts.append((*_starts(a, b, some, block_n), True))
        parts.append((*_starts(np.maximum(a, b), ends.hi + 1, some, block_n), False))
        cursor = np.where(some, lo + -(-(ends.hi + 1 - lo) // block_n) * block_n, cursor)
    tile = np.concatenate([part[0] for part in parts])
    start = np.concatenate([part[1] for part in parts])
    full = np.concatenate([np.full(len(part[0]), part[2]) for part in parts])
    order = np.argsort(tile, kind="stable")
    tile, start, full = tile[order], start[order], full[order]
    v = start[:, None] + np.arange(block_n)
    positions = call.value(keys.position(Sym("v")), v=v, c=tiles.residue[tile][:, None]).astype(np.int64)
    inside = (positions >= call.columns[0]) & (positions < call.columns[1])
    return Visits(tile, start, positions, inside, full)


def _starts(begin: IntArray, end: IntArray, some: BoolArray, block_n: int) -> tuple[IntArray, IntArray]:
    """(tile, start) of steps of block_n from begin to before end, for each tile."""
    count = np.where(some, np.maximum(-(-(end - begin) // block_n), 0), 0)
    tile = np.repeat(np.arange(len(count)), count)
    step = np.arange(len(tile)) - np.repeat(np.cumsum(count) - count, count)
    return tile, begin[tile] + step * block_n


def _sorted(found: list[_Ends]) -> list[_Ends]:
    """Ranges of each tile by first key, the empty ones last."""
    arrays = [np.stack([getattr(ends, name) for ends in found]) for name in ("lo", "hi", "full_lo", "full_hi")]
    key = np.where(arrays[0] <= arrays[1], arrays[0], NOWHERE)
    order = np.argsort(key, axis=0, kind="stable")
    arrays = [np.take_along_axis(array, order, 0) for array in arrays]
    return [_Ends(*(array[i] for array in arrays)) for i in range(len(found))]


def _ends(r: Range, walk: Walk, keys: Regular, tiles: Tiles, call: Call) -> _Ends:
    u0, u1 = tiles.ends(tiles.coordinates)
    env = {"u0": u0, "u1": u1, "c": tiles.residue}
    begin = call.value(keys.coordinate(COLUMN_BEGIN), **env).astype(np.int64)
    last = call.value(sub(keys.coordinate(COLUMN_END), 1), **env).astype(np.int64)
    env |= {"begin": begin, "last": last}
    lo, hi, full_lo, full_hi = (
        np.broadcast_to(call.value(end, **env), u0.shape).astype(np.int64)
        for end in (r.lo, r.hi, r.full_lo, r.full_hi)
    )
    lo, hi = np.maximum(lo, begin), np.minimum(hi, last)
    for clamp in walk.clamps:
        first, final, full_first, full_final = _clamped(clamp, tiles, call)

        def at(position: IntArray, shift: int = 0) -> IntArray:
            x = {"x": np.clip(position, -(2**31), 2**31) + shift, "c": tiles.residue}
            return call.value(keys.coordinate(Sym("x")), **x).astype(np.int64)

        lo, hi = np.maximum(lo, at(first)), np.minimum(hi, at(final, 1) - 1)
        full_lo, full_hi = np.maximum(full_lo, at(full_first)), np.minimum(full_hi, at(full_final, 1) - 1)
    return _Ends(lo, hi, full_lo, full_hi)


def _clamped(clamp: Clamp, tiles: Tiles, call: Call) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Positions (first, last, first full, last full) that a clamp leaves to each tile."""
    match clamp:
        case LimitClamp(last):
            value = np.broadcast_to(call.value(last), (len(tiles.rows),)).astype(np.int64)
            low = np.full_like(value, -NOWHERE)
            return low, value, low, value
        case SegmentClamp(ids):
            first, last, run_first, run_last, _ = _segment(ids, tiles, call)
            return first, last, run_first, run_last
        case FrameClamp(ids, inner):
            return _frame(inner, _segment(ids, tiles, call), tiles, call)
    raise AssertionError(clamp)


def _segment(ids: str, tiles: Tiles, call: Call) -> tuple[IntArray, IntArray, IntArray, IntArray, BoolArray]:
    """Documents of each tile's rows: first and last position, the run that holds all rows, and whether there is one.

    A document's positions need not be adjacent: first and last are its occurrences, a run is adjacent.
    """
    rows = tiles.rows
    placed = tiles.valid & (rows >= 0) & (rows < call.kv_len)
    where = np.clip(rows, 0, max(call.kv_len - 1, 0))

    def read(name: str) -> IntArray:
        return np.asarray(call.tensors.read(f"{ids}.{name}", (where,), call.env), np.int64)

    first = np.where(placed, read("start"), NOWHERE).min(1)
    last = np.where(placed, read("stop") - 1, -NOWHERE).max(1)
    run_first = np.where(placed, read("run_start"), -NOWHERE).max(1)
    run_last = np.where(placed, read("run_stop") - 1, NOWHERE).min(1)
    u0, u1 = tiles.ends(tiles.rows)
    everyone = (placed == tiles.valid).all(1)
    run_last = np.where(everyone, run_last, -NOWHERE)
    return first, last, run_first, run_last, everyone & (run_first <= u0) & (u1 <= run_last)


def _frame(
    r: Range, segment: tuple[IntArray, IntArray, IntArray, IntArray, BoolArray], tiles: Tiles, call: Call
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    first, last, _, _, single = segment
    q0, q1 = tiles.ends(tiles.rows)
    length = last - first + 1
    env = {"u0": q0 - first, "u1": q1 - first, "kv_len": length, "begin": np.zeros_like(first), "last": length - 1}
    bounds = [first + evaluate(end, {**call.env, **env}, call.tensors) for end in (r.lo, r.hi, r.full_lo, r.full_hi)]
    lo, hi, full_lo, full_hi = (np.broadcast_to(bound, first.shape).astype(np.int64) for bound in bounds)
    return (
        np.where(single, lo, first),
        np.where(single, hi, last),
        np.where(single, full_lo, 0),
        np.where(single, full_hi, -1),
    )


def visit_mask(walk: Walk, one: Pass, tiles: Tiles, seen: Visits, call: Call) -> BoolArray:
    """[visits, BLOCK_M, BLOCK_N]: which pairs of each visit are allowed by this walk of this pass."""
    q = tiles.rows[seen.tile][:, :, None]
    k = np.where(seen.inside, seen.keys, 0)[:, None, :]
    allowed = np.broadcast_to(call.value(walk.residual, q=q, k=k), (*q.shape[:2], k.shape[2])).astype(bool)
    if walk.interval:
        allowed = allowed & _row_interval(walk, tiles, seen, call)
    allowed = allowed & seen.inside[:, None, :]
    allowed = np.where(seen.full[:, None, None], True, allowed)
    keep = tiles.valid & ~np.broadcast_to(call.value(one.skip, q=tiles.rows), tiles.rows.shape).astype(bool)
    return np.asarray(allowed & keep[seen.tile][:, :, None], bool)


def _row_interval(walk: Walk, tiles: Tiles, seen: Visits, call: Call) -> BoolArray:
    """Is each key inside its row's own range? The range's formulas at u0 = u1 = u."""
    assert isinstance(walk.keys, Affine | Runs)
    u = tiles.coordinates[seen.tile][:, :, None]
    residue = tiles.residue[seen.tile][:, None, None]
    env = {"u0": u, "u1": u, "c": residue}
    env["begin"] = call.value(walk.keys.coordinate(COLUMN_BEGIN), **env).astype(np.int64)
    env["last"] = call.value(add(walk.keys.coordinate(COLUMN_END), -1), **env).astype(np.int64)
    width = seen.keys.shape[1]
    v = seen.start[:, None, None] + np.arange(width)[None, None, :]
    (r,) = walk.ranges
    return np.asarray((call.value(r.lo, **env) <= v) & (v <= call.value(r.hi, **env)), bool)
