"""The tiles that a range of a walk is visited in: where they begin, how many there are, which are full.

The layout that runs in NumPy and the predictions of time ask here; the kernels' `tiles_of` says the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spattn.expressions.evaluation import IntArray


@dataclass(frozen=True)
class Trips:
    """Tiles of BLOCK_N columns; arrays of one shape, a range for each row tile.

    Attributes:
        lo: The first column.
        tiles: How many tiles there are.
        before: Those before the first full one.
        full: Those that need no mask; they are neighbours.
        cursor: Where the next range may begin.
    """

    lo: IntArray
    tiles: IntArray
    before: IntArray
    full: IntArray
    cursor: IntArray


@dataclass(frozen=True)
class Ends:
    """Bounds of a range for each row tile, in walk coordinates, ends included."""

    lo: IntArray
    hi: IntArray
    full_lo: IntArray
    full_hi: IntArray


def trips(ends: Ends, cursor: IntArray, block_n: int) -> Trips:
    """The tiles of a range, of which those before the cursor were visited with an earlier range."""
    lo = np.maximum(ends.lo, cursor)
    tiles = np.maximum(ends.hi - lo + block_n, 0) // block_n
    full_lo, full_hi = np.maximum(ends.full_lo, lo), np.minimum(ends.full_hi, ends.hi)
    before = np.minimum(-(-(full_lo - lo) // block_n), tiles)
    full = np.minimum(np.maximum(full_hi + 1 - lo - before * block_n, 0) // block_n, tiles - before)
    return Trips(lo, tiles, before, full, np.where(tiles > 0, lo + tiles * block_n, cursor))
