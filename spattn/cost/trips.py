"""How many key tiles a walk visits from sampled row tiles, for any BLOCK_N: its bounds are evaluated once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from spattn.cost.range_trips import Steps, spans
from spattn.cost.samples import Places, Samples
from spattn.cost.sizes import Sizes
from spattn.expressions.evaluation import IntArray
from spattn.expressions.nodes import TRUE, RandomTable
from spattn.layout.boxes import axis_ends, covering_sides
from spattn.layout.ir import Blocks, Box, Listed, Walk
from spattn.relation.bounds import Range
from spattn.relation.lattice import Affine, Runs


class Reach(Protocol):
    """What a walk visits, and the keys of one (batch, head) that all row tiles together can see."""

    @property
    def keys(self) -> int:
        """Keys."""
        ...

    def steps(self, block_n: int) -> Steps:
        """In tiles of `block_n` keys."""
        ...


def reach(walk: Walk, seen: Samples, sizes: Sizes, residues: int) -> Reach:
    """The reach of a walk from sampled row tiles."""
    shape = seen.u0.shape
    match walk.keys:
        case Listed(tokens):
            return Even(shape, sizes.length(tokens), sizes.share(sizes.length(tokens)))
        case Blocks(table, size):
            listed = table.count * size if isinstance(table, RandomTable) else sizes.listed
            seen_of_row = sizes.share(min(listed, sizes.kv_len))
            return Even(shape, seen_of_row, sizes.num_keys, size, walk.residual == TRUE)
        case Box(grid, _, ranges):
            return Boxes(sizes.num_keys, _axes(ranges, grid, seen.places))
        case Affine() | Runs() as keys:
            return spans(walk, keys, seen, sizes, residues)
    raise AssertionError(walk.keys)


@dataclass(frozen=True)
class Even:
    """As many places for each tile, `length` of them, in blocks of `size` (1: none); `keys` are seen in all."""

    shape: tuple[int, ...]
    length: int
    keys: int
    size: int = 1
    unmasked: bool = False

    def steps(self, block_n: int) -> Steps:
        """In tiles of `block_n` keys, which do not straddle blocks."""
        each = -(-self.size // block_n) * (self.length / self.size) if self.size > 1 else -(-self.length // block_n)
        tiles, none = np.full(self.shape, float(each)), np.zeros(self.shape)
        return (tiles, none) if self.unmasked else (none, tiles)


@dataclass(frozen=True)
class Boxes:
    """A box of keys: the number of coordinates on each axis, [BLOCK_Ms, samples]."""

    keys: int
    axes: tuple[IntArray, ...]

    def steps(self, block_n: int) -> Steps:
        """In boxes of at most `block_n` keys, each with a mask."""
        tiles = np.zeros(self.axes[0].shape)
        for i, widths in enumerate(zip(*(np.maximum(axis, 0) for axis in self.axes), strict=True)):
            sides = covering_sides(block_n, widths)
            tiles[i] = np.prod([-(-width // side) for width, side in zip(widths, sides, strict=True)], axis=0)
        return np.zeros(tiles.shape), tiles


def _axes(ranges: tuple[Range, ...], grid: tuple[int, ...], places: Places) -> tuple[IntArray, ...]:
    """Coordinates of the box of keys on each axis."""
    ends = (axis_ends(r, u0, u1, length) for r, length, (u0, u1) in zip(ranges, grid, places, strict=True))
    return tuple(hi - lo + 1 for lo, hi in ends)
