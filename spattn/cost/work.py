"""What the programs of a pass do: how many there are, the key tiles of each, the bytes that they move."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import ceil

import numpy as np

from spattn.codegen.tile import Tile
from spattn.cost.samples import MEAN, samples
from spattn.cost.sizes import Sizes
from spattn.cost.trips import reach
from spattn.layout.ir import Blocks, Pass
from spattn.layout.tiling import present_residues


@dataclass(frozen=True)
class Work:
    """The work of a pass with a tile.

    Attributes:
        programs: Of the main launch.
        full, partial: Key tiles of a program in the mean, without a mask and with one.
        longest: Key tiles of the longest program.
        latest: Key tiles of the program that starts last, the first row tile's.
        pairs: Query-key pairs computed, allowed or not.
        flops: Of the two matrix products.
        loaded: Bytes of keys and values that programs load, from the L2 cache mostly.
        moved: Bytes that memory must move: q, k, v and out once, and parts.
        resumed: Programs that begin with what an earlier pass left.
        combined: Row tiles whose splits a second launch combines.
        split_bytes: Written by the splits, and read to combine them.
        launches: Of kernels.
        repairs: Is there a launch that mends rows which inf or NaN spoiled?
        indirect: Are keys found in lists?
    """

    programs: int
    full: float
    partial: float
    longest: float
    latest: float
    pairs: float
    flops: float
    loaded: float
    moved: float
    resumed: int
    combined: int
    split_bytes: int
    launches: int
    repairs: bool
    indirect: bool

    @property
    def steps(self) -> float:
        """Key tiles of a program in the mean."""
        return self.full + self.partial


class Workload:
    """A pass at given sizes: its work with one tile or another.

    Args:
        one: The pass.
        sizes: Of the call.
        block_m: Row tiles' sizes that will be asked about.
    """

    def __init__(self, one: Pass, sizes: Sizes, block_m: tuple[int, ...]) -> None:
        self._one, self._sizes, self._block_m = one, sizes, block_m
        self._samples = samples(one, sizes, block_m)
        self._reaches = [reach(walk, self._samples, sizes, present_residues(one, sizes.rows)) for walk in one.walks]
        self._indirect = any(isinstance(walk.keys, Blocks) for walk in one.walks)
        self._steps: dict[int, list[tuple[float, float, float, float]]] = {}

    def tiles(self, block_m: int) -> int:
        """Row tiles of all (batch, head) pairs."""
        return self._samples.tiles[self._block_m.index(block_m)] * self._sizes.count

    def steps(self, block_m: int, block_n: int) -> tuple[float, float, float, float]:
        """(full, partial, longest, latest) key tiles of a row tile."""
        if block_n not in self._steps:
            self._steps[block_n] = self._counted(block_n)
        return self._steps[block_n][self._block_m.index(block_m)]

    def work(self, tile: Tile) -> Work:
        """The work with a tile."""
        sizes, epilogue, repairs = self._sizes, self._one.epilogue, self._one.has_masked_tiles
        tiles, (full, partial, longest, latest) = self.tiles(tile.block_m), self.steps(tile.block_m, tile.block_n)
        programs, rows = tiles * tile.splits, self._samples.rows * sizes.count
        row_bytes = sizes.head_dim * sizes.itemsize
        pairs = tiles * (full + partial) * tile.block_m * tile.block_n
        parts = rows * row_bytes * (epilogue.accumulates + (not epilogue.stores_output))
        keys = min(sum(one.keys for one in self._reaches), pairs / max(sizes.count * tile.block_m, 1))
        split = tile.splits > 1
        return Work(
            programs=programs,
            full=full / tile.splits,
            partial=partial / tile.splits,
            longest=float(ceil(longest / tile.splits)),
            latest=float(ceil(latest / tile.splits)),
            pairs=pairs,
            flops=4.0 * pairs * sizes.head_dim,
            loaded=2.0 * row_bytes * pairs / tile.block_m,
            moved=2.0 * rows * row_bytes + 2.0 * keys * row_bytes * sizes.count / sizes.group + parts,
            resumed=0 if split else programs * epilogue.accumulates,
            combined=tiles * split,
            split_bytes=2 * programs * tile.block_m * row_bytes * split,
            launches=1 + repairs + split,
            repairs=repairs,
            indirect=self._indirect,
        )

    def _counted(self, block_n: int) -> list[tuple[float, float, float, float]]:
        if not self._reaches:
            return [(0.0, 0.0, 0.0, 0.0)] * len(self._block_m)
        found = [one.steps(block_n) for one in self._reaches]
        full, partial = (reduce(np.add, (steps[i] for steps in found)) for i in (0, 1))
        total = full + partial
        columns = full @ MEAN, partial @ MEAN, total.max(1), total[:, 0]
        return list(zip(*(column.tolist() for column in columns), strict=True))
