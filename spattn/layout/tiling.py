"""The row tiles of a pass: how many there are, and where each begins.

Launches, predictions and the layout that runs in NumPy ask here; generated code says the same in its tile's own words.
Each function takes integers or arrays of them.
"""

from __future__ import annotations

import math

import numpy as np

from spattn.expressions.evaluation import IntArray
from spattn.layout.ir import Grid, Listed, Pass, box_sides
from spattn.relation.lattice import Affine, Runs


def rows_each(one: Pass, rows: tuple[int, int], listed: int) -> int:
    """Rows of a residue class, at most.

    Args:
        one: The pass.
        rows: Positions of the call's rows, half-open.
        listed: How long the list is that the rows come from, where they do.
    """
    count = rows[1] - rows[0]
    match one.rows:
        case Listed():
            return listed
        case Grid(shape):
            return math.prod(shape)
        case Affine(step, _):
            return -(-count // step)
        case Runs(period, run, _):
            return (count // period + 2) * run
    return count


def row_tiles(one: Pass, rows: tuple[int, int], listed: int, block_m: int, *, by_request: bool = False) -> int:
    """Row tiles of a pass for each (batch, head), some of them perhaps without rows; arguments as of `rows_each`.

    `by_request`: requests begin anywhere, and so have rows of any residue class.
    """
    if isinstance(one.rows, Grid):
        sides = box_sides(block_m, len(one.rows.shape))
        return math.prod(-(-n // side) for n, side in zip(one.rows.shape, sides, strict=True))
    if one.block > 1:
        return tile_count(*rows, one.block, block_m)
    return -(-rows_each(one, rows, listed) // block_m) * (one.residues if by_request else present_residues(one, rows))


def present_residues(one: Pass, rows: tuple[int, int]) -> int:
    """Residue classes that the rows of a call are of; the i-th is that of its i-th row."""
    return min(one.residues, rows[1] - rows[0])


def tile_count(begin: int, end: int, block: int, block_m: int) -> int:
    """Tiles of `block_m` neighbours that cover `begin .. end - 1` and straddle no multiple of `block` (1: free)."""
    if block == 1:
        return max(-(-(end - begin) // block_m), 0)
    return max(-(-end // block) - begin // block, 0) * -(-block // block_m)


def tile_rows(tile: IntArray, begin: int, end: int, block: int, block_m: int) -> tuple[IntArray, IntArray]:
    """Where tiles begin, and one past where they stop; some may be empty, or begin before `begin`."""
    if block == 1:
        start = begin + tile * block_m
        return start, np.minimum(start + block_m, end)
    parts = -(-block // block_m)
    owner = begin // block + tile // parts
    start = owner * block + tile % parts * block_m
    return start, np.minimum(np.minimum(start + block_m, (owner + 1) * block), end)
