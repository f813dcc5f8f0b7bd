"""A layout's visits as batches, which the torch backend computes one after another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from spattn.backends.torch.batch import Batch
from spattn.expressions.evaluation import BoolArray, IntArray
from spattn.layout.call import Call
from spattn.layout.ir import Layout, Listed, Pass
from spattn.layout.tiles import Tiles, kept_rows, row_tiles
from spattn.layout.visits import Visits, keys_of, visit_mask, visits

BLOCK_M, BLOCK_N = 64, 32  # wider tiles compute more pairs that are not allowed, narrower ones make thin products
TILES = 8  # that a batch has room for, if need be by cutting their programs: the product of one alone is half as fast


def batches(layout: Layout, call: Call, device: torch.device, pairs: int) -> Iterator[Batch]:
    """The batches of a call, each of about `pairs` pairs at most. No batch holds a row twice."""
    shared = False
    for one in layout.passes:
        yield from _pass_batches(one, call, device, pairs, fresh=one.owns or not shared)
        shared = shared or not one.owns


def _pass_batches(one: Pass, call: Call, device: torch.device, pairs: int, *, fresh: bool) -> Iterator[Batch]:
    tiles = row_tiles(one, call, _rows_of_a_tile(one, call))
    kept = kept_rows(one, tiles, call)
    alive = np.flatnonzero(kept.any(1))
    tiles, kept = tiles.taken(alive), kept[alive]
    if not len(alive):
        return
    found = _Program.of(one, tiles, call)
    most = max(pairs // tiles.rows.shape[1] // BLOCK_N, 1)
    for i, piece in enumerate(found.cut(max(most // TILES, 1))):
        for group in piece.groups(most):
            yield _batch(one, tiles, kept, group, call, device, fresh=fresh and i == 0)


def _rows_of_a_tile(one: Pass, call: Call) -> int:
    """BLOCK_M, or less where the pass has only few rows or its tiles lie in blocks."""
    count = call.rows[1] - call.rows[0]
    if isinstance(one.rows, Listed):
        count = min(count, len(call.tokens(one.rows.tokens)))
    count = min(max(count, 1), one.block if one.block > 1 else BLOCK_M)
    return min(BLOCK_M, 1 << (count - 1).bit_length())


@dataclass(frozen=True)
class _Program:
    """All visits of a pass, in the order of tiles: of which walk each is, and its place in the tile's program."""

    seen: Visits
    walk: IntArray
    place: IntArray

    @staticmethod
    def of(one: Pass, tiles: Tiles, call: Call) -> _Program:
        """The visits of all walks together."""
        found = [visits(walk, tiles, call, BLOCK_N) for walk in one.walks]
        if not found:
            none = np.zeros(0, np.int64)
            return _Program(Visits(none, none, none.astype(np.bool_)), none, none)
        seen = Visits(*(np.concatenate([getattr(v, name) for v in found]) for name in ("tile", "start", "full")))
        walk = np.repeat(np.arange(len(found)), [len(v) for v in found])
        order = np.lexsort((seen.full, seen.tile))
        seen, count = seen.taken(order), np.bincount(seen.tile, minlength=len(tiles.rows))
        place = np.arange(len(seen)) - np.repeat(np.cumsum(count) - count, count)
        return _Program(seen, walk[order], place)

    def taken(self, which: IntArray | BoolArray) -> _Program:
        """Some of the visits."""
        return _Program(self.seen.taken(which), self.walk[which], self.place[which])

    def cut(self, length: int) -> Iterator[_Program]:
        """Programs in which no tile has more than `length` visits; the last one has the ends of all that are cut."""
        number, count = self.place // length, np.bincount(self.seen.tile)[self.seen.tile]
        ends = (number > 0) & (number == (count - 1) // length)
        for i in range(int(number.max(initial=-1)) + 1):
            yield self.taken((number == i) & ~ends)
        yield self.taken(ends)

    def groups(self, most: int) -> Iterator[_Group]:
        """Tiles with about as many partial and full visits, at most `most` visits together."""
        tile, count = np.unique(self.seen.tile, return_counts=True)
        begin = np.cumsum(count) - count
        full = _rounded_down(np.add.reduceat(self.seen.full, begin, dtype=np.int64) if len(tile) else count)
        partial = _rounded_up(count - full)
        shapes, which = np.unique(np.stack([partial, full], 1), axis=0, return_inverse=True)
        for i, (n_partial, n_full) in enumerate(shapes.tolist()):
            mine = np.flatnonzero(which.ravel() == i)
            step = max(most // (n_partial + n_full), 1)
            for j in range(0, len(mine), step):
                some = mine[j : j + step]
                yield _Group(self, tile[some], begin[some], count[some], n_partial, n_full)


@dataclass(frozen=True)
class _Group:
    """Tiles of one batch: their visits are `begin .. begin + count - 1`, the last `n_full` of which stay unmasked."""

    program: _Program
    tile: IntArray
    begin: IntArray
    count: IntArray
    n_partial: int
    n_full: int

    def partial_visits(self) -> tuple[IntArray, BoolArray]:
        """[tiles, n_partial] indices of visits, and which of them are no filling."""
        step = np.arange(self.n_partial)[None, :]
        there = step < (self.count - self.n_full)[:, None]
        return np.where(there, self.begin[:, None] + step, self.begin[:, None]), there

    def full_visits(self) -> IntArray:
        """[tiles, n_full] indices of visits."""
        return (self.begin + self.count - self.n_full)[:, None] + np.arange(self.n_full)


def _rounded_down(count: IntArray) -> IntArray:
    """To three significant bits: tiles with like numbers of visits share a batch."""
    unit = 1 << np.maximum(np.frexp(count)[1] - 3, 0)
    return np.asarray(count // unit * unit, np.int64)


def _rounded_up(count: IntArray) -> IntArray:
    unit = 1 << np.maximum(np.frexp(count)[1] - 3, 0)
    return np.asarray(-(-count // unit) * unit, np.int64)


def _batch(
    one: Pass, tiles: Tiles, kept: BoolArray, group: _Group, call: Call, device: torch.device, *, fresh: bool
) -> Batch:
    part, there = group.partial_visits()
    keys, allowed = _pairs(one, tiles, group.program.taken(part.ravel()), call, masked=True)
    full_keys, _ = _pairs(one, tiles, group.program.taken(group.full_visits().ravel()), call, masked=False)
    count, width = len(group.tile), tiles.rows.shape[1]
    mine = kept[group.tile]
    # [tiles, visits, M, BLOCK_N] -> [tiles, M, keys]
    allowed = allowed.reshape(count, group.n_partial, width, BLOCK_N) & there[:, :, None, None]
    allowed = allowed.transpose(0, 2, 1, 3).reshape(count, width, -1) & mine[:, :, None]
    positions = np.concatenate([keys.reshape(count, -1), full_keys.reshape(count, -1)], 1)
    rows = np.where(mine, tiles.rows[group.tile], call.rows[0]) - call.rows[0]
    return Batch.of(rows, mine, positions - call.columns[0], allowed, device, fresh=fresh)


def _pairs(one: Pass, tiles: Tiles, program: _Program, call: Call, *, masked: bool) -> tuple[IntArray, BoolArray]:
    """(key positions [visits, BLOCK_N], allowed pairs [visits, M, BLOCK_N]); keys that are outside become the first."""
    positions = np.zeros((len(program.walk), BLOCK_N), np.int64)
    allowed = np.zeros((len(program.walk) if masked else 0, tiles.rows.shape[1], BLOCK_N), np.bool_)
    for i, walk in enumerate(one.walks):
        which = np.flatnonzero(program.walk == i)
        seen = program.seen.taken(which)
        if not len(which):
            continue
        keys = keys_of(walk, tiles, seen, call, BLOCK_N)
        positions[which] = np.where(keys.inside, keys.positions, call.columns[0])
        if masked:
            allowed[which] = visit_mask(walk, tiles, seen, keys, call)
    return positions, allowed
