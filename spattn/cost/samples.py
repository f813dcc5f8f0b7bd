"""A few row tiles of a pass that stand for all: the first, the last, and eight in between."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from spattn.cost.sizes import Sizes
from spattn.expressions.evaluation import IntArray, evaluate
from spattn.expressions.tensors import NOTHING
from spattn.layout.grid_index import positions_of
from spattn.layout.ir import Grid, Listed, Pass, box_sides
from spattn.layout.tiling import present_residues, tile_count, tile_rows
from spattn.relation.lattice import Affine, Regular, Runs

SHARES = (0.0, 0.07, 0.19, 0.3, 0.44, 0.56, 0.7, 0.81, 0.93, 1.0)
"""Which tile, as a share of all: in pairs about the middle, so that what grows linearly has its mean, at no period."""
MEAN = np.array([0.0, *[1 / 8] * 8, 0.0])
"""What each counts in the mean."""

Places = tuple[tuple[IntArray, IntArray], ...]


@dataclass(frozen=True)
class Samples:
    """Row tiles for each of several BLOCK_M; arrays are [BLOCK_Ms, samples].

    Attributes:
        tiles: Row tiles of one (batch, head), residues included, for each BLOCK_M.
        rows: Rows of one (batch, head).
        u0, u1: First and last row coordinate.
        residue: The residue class that they are of, one of those that the rows are of.
        places: Of rows on a grid: u0 and u1 on each axis.
    """

    tiles: tuple[int, ...]
    rows: int
    u0: IntArray
    u1: IntArray
    residue: int = 0
    places: Places = ()


def samples(one: Pass, sizes: Sizes, block_m: tuple[int, ...]) -> Samples:
    """Tiles of a pass for each of the sizes in `block_m`."""
    match one.rows:
        case Listed(tokens):
            known = () if tokens.tensors else tokens.values
            return _listed(known, sizes.length(tokens), sizes.kv_len, block_m)
        case Grid(shape):
            return _on_grid(shape, block_m)
        case Affine() | Runs() as rows:
            return _regular(one, rows, sizes, block_m)
    raise AssertionError(one.rows)


def coordinate(side: Regular, position: IntArray, residue: int) -> IntArray:
    """The first coordinate at or after a position."""
    match side:
        case Affine(step, phase):
            first = evaluate(phase, {"c": residue}, NOTHING)
            return -((first - position) // step)
        case Runs(period, run, first_run):
            offset = position - first_run
            return offset // period * run + np.minimum(offset % period, run)
    raise AssertionError(side)


def _picked(tiles: int) -> IntArray:
    return np.array([min(int(share * tiles), tiles - 1) for share in SHARES], np.int64)


def _regular(one: Pass, rows: Regular, sizes: Sizes, block_m: tuple[int, ...]) -> Samples:
    present = present_residues(one, sizes.rows)
    residue = one.residues // 2
    if present < one.residues:
        residue = (sizes.rows[0] + present // 2) % one.residues
    ends = coordinate(rows, np.array(sizes.rows), residue)
    begin, end = int(ends[0]), max(int(ends[1]), int(ends[0]) + 1)
    made = [_neighbours(begin, end, one.block, m) for m in block_m]
    u0, u1 = (np.stack([found[i] for found in made]) for i in (1, 2))
    rows_each = int(ends[1] - ends[0])
    return Samples(tuple(found[0] * present for found in made), rows_each * present, u0, u1, residue)


def _neighbours(begin: int, end: int, block: int, block_m: int) -> tuple[int, IntArray, IntArray]:
    """(tiles, u0, u1): tiles of neighbouring coordinates, which do not straddle multiples of `block`."""
    tiles = tile_count(begin, end, block, block_m)
    start, stop = tile_rows(_picked(tiles), begin, end, block, block_m)
    return tiles, np.minimum(np.maximum(start, begin), stop - 1), stop - 1


def _listed(known: tuple[int, ...], length: int, kv_len: int, block_m: tuple[int, ...]) -> Samples:
    """Tokens in ascending order; those that a tensor names lie evenly."""
    places = sorted(v if v >= 0 else v + kv_len for v in known)
    position = np.array(places or [kv_len * i // max(length, 1) for i in range(length)] or [0], np.int64)
    counts = [-(-len(position) // m) for m in block_m]
    first = [_picked(count) * m for count, m in zip(counts, block_m, strict=True)]
    last = [np.minimum(start + m, len(position)) - 1 for start, m in zip(first, block_m, strict=True)]
    return Samples(tuple(counts), length, position[np.stack(first)], position[np.stack(last)])


def _on_grid(shape: tuple[int, ...], block_m: tuple[int, ...]) -> Samples:
    """Boxes: the same share of the way along each axis."""
    sides = [box_sides(m, len(shape)) for m in block_m]
    counts = [[-(-n // side) for n, side in zip(shape, own, strict=True)] for own in sides]
    places = []
    for axis, n in enumerate(shape):
        u0 = np.stack([_picked(count[axis]) * own[axis] for count, own in zip(counts, sides, strict=True)])
        width = np.array([own[axis] for own in sides])[:, None]
        places.append((u0, np.minimum(u0 + width, n) - 1))
    u0, u1 = (positions_of([axis[i] for axis in places], shape) for i in (0, 1))
    return Samples(tuple(map(prod, counts)), prod(shape), np.asarray(u0), np.asarray(u1), 0, tuple(places))
