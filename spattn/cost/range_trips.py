"""A walk over ranges, from sampled row tiles: the ends of each range, and the key tiles between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spattn.cost.samples import Samples, coordinate
from spattn.cost.sizes import LONG_WALK, Sizes
from spattn.expressions.algebra import subexpressions
from spattn.expressions.evaluation import IntArray, evaluate
from spattn.expressions.nodes import Expr, Int, Read
from spattn.expressions.tensors import NOTHING
from spattn.layout.ir import FrameClamp, SegmentClamp, Walk
from spattn.layout.trips import Ends, trips
from spattn.relation.bounds import Range
from spattn.relation.lattice import Affine, Regular

FloatArray = NDArray[np.float64]
Steps = tuple[FloatArray, FloatArray]
"""Key tiles [BLOCK_Ms, samples]: without a mask, and with one."""
IN_DOCUMENT = np.array([0, 9, 5, 13, 1, 15, 3, 11, 7, 15]) / 16
"""How far into its document each sample stands."""
OTHERS = {"c": 0, "h": 0, "b": 0, "num_heads": 16, "batch_size": 1}
"""Symbols that stand for one head among many."""


@dataclass(frozen=True)
class RangeTrips:
    """Ranges in ascending order.

    Attributes:
        straddling: Row tiles that see two documents, as a share, [BLOCK_Ms, 1]; these mask every tile.
        beside: Keys that such tiles visit besides.
    """

    keys: int
    ends: tuple[Ends, ...]
    straddling: FloatArray | None = None
    beside: int = 0

    def steps(self, block_n: int) -> Steps:
        """In tiles of `block_n` keys, one range behind the other."""
        total = full = np.zeros(self.ends[0].lo.shape if self.ends else (1, 1))
        cursor = np.full(total.shape, -(2**40))
        for ends in self.ends:
            seen = trips(ends, cursor, block_n)
            cursor, total, full = seen.cursor, total + seen.tiles, full + seen.full
        if self.straddling is None:
            return full, total - full
        masked = self.straddling * (total + self.beside / block_n)
        return full * (1 - self.straddling), (total - full) * (1 - self.straddling) + masked


def spans(walk: Walk, keys: Regular, seen: Samples, sizes: Sizes, residues: int) -> RangeTrips:
    """The ranges of a walk, cut by the documents of the rows; other clamps are taken to leave all."""
    ends_at = coordinate(keys, np.array(sizes.keys), seen.residue)
    begin, last = int(ends_at[0]), int(ends_at[1]) - 1
    env = {**OTHERS, "u0": seen.u0, "u1": seen.u1, "c": seen.residue, "kv_len": sizes.kv_len}
    env |= dict(zip(("row_begin", "row_end", "column_begin", "column_end"), (*sizes.rows, *sizes.keys), strict=True))
    env |= {"begin": begin, "last": last}
    found = [bounded(ends_of(r, env, begin, last), begin, last) for r in walk.ranges]
    every = max(last + 1 - begin, 0) * residues
    clamps = [clamp for clamp in walk.clamps if isinstance(clamp, SegmentClamp | FrameClamp)]
    if not clamps:
        return RangeTrips(every, tuple(found))
    length = min(sizes.document, max(sizes.kv_len, 1))
    for clamp in clamps:
        left = _document(clamp, seen, env, length)
        found = [_cut(ends, left, keys, seen.residue) for ends in found]
    straddling = np.minimum((seen.u1 - seen.u0 + 1).max(1, keepdims=True) * 2 / length, 1.0)
    whole = length if any(isinstance(clamp, FrameClamp) for clamp in clamps) else length // 2
    return RangeTrips(
        every, tuple(found), straddling, sizes.share(whole) // (keys.step if isinstance(keys, Affine) else 1)
    )


def _document(clamp: SegmentClamp | FrameClamp, seen: Samples, env: dict[str, Any], length: int) -> Ends:
    """The positions that a document of `length` tokens around each sample leaves."""
    start = np.maximum(seen.u0 - (IN_DOCUMENT * length).astype(np.int64), 0)
    if isinstance(clamp, SegmentClamp):
        return Ends(start, start + length - 1, start, start + length - 1)
    inner = {**env, "u0": seen.u0 - start, "u1": seen.u1 - start, "begin": 0, "last": length - 1, "kv_len": length}
    return _moved(ends_of(clamp.range, inner, 0, length - 1), start)


def ends_of(r: Range, env: dict[str, Any], begin: int, last: int) -> Ends:
    """The four bounds; where data decides, a long walk up to the row."""
    shape = np.shape(env["u0"])
    if _reads(r):
        return Ends(*(np.broadcast_to(np.int64(x), shape) for x in (begin, min(begin + LONG_WALK - 1, last), 0, -1)))
    return Ends(*(_value(end, env, shape) for end in (r.lo, r.hi, r.full_lo, r.full_hi)))


def _value(end: Expr, env: dict[str, Any], shape: tuple[int, ...]) -> IntArray:
    value = end.value if isinstance(end, Int) else evaluate(end, env, NOTHING)
    return np.broadcast_to(np.asarray(value, np.int64), shape)


@lru_cache(maxsize=4096)
def _reads(r: Range) -> bool:
    """Does a bound look into a tensor?"""
    ends = (r.lo, r.hi, r.full_lo, r.full_hi)
    return any(isinstance(part, Read) for end in ends for part in subexpressions(end))


def bounded(ends: Ends, begin: int, last: int) -> Ends:
    """What lies inside of the walk."""
    return Ends(np.maximum(ends.lo, begin), np.minimum(ends.hi, last), ends.full_lo, ends.full_hi)


def _moved(ends: Ends, by: IntArray) -> Ends:
    return Ends(ends.lo + by, ends.hi + by, ends.full_lo + by, ends.full_hi + by)


def _cut(ends: Ends, left: Ends, keys: Regular, residue: int) -> Ends:
    """What positions `left` leave of a range."""
    lo, full_lo = (coordinate(keys, at, residue) for at in (left.lo, left.full_lo))
    hi, full_hi = (coordinate(keys, at + 1, residue) - 1 for at in (left.hi, left.full_hi))
    return Ends(
        np.maximum(ends.lo, lo),
        np.minimum(ends.hi, hi),
        np.maximum(ends.full_lo, full_lo),
        np.minimum(ends.full_hi, full_hi),
    )
