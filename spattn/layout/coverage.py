"""What a layout computes at given lengths: tiles, visits and pairs, counted without looking at a pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from spattn.expressions.tensors import Tensors
from spattn.layout.call import Call, calls
from spattn.layout.ir import Blocks, Layout, Pass
from spattn.layout.tiles import kept_rows, row_tiles
from spattn.layout.visits import visits

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Coverage:
    """Work in tiles of `block_m` rows and `block_n` keys, narrower in passes that follow a table of smaller blocks.

    Attributes:
        row_tiles: Programs.
        full: Key tiles without a mask.
        partial: Key tiles with a mask.
        pairs: Pairs computed, allowed or not, filled-up tiles included.
        longest: Key tiles of the longest program.
    """

    row_tiles: int = 0
    full: int = 0
    partial: int = 0
    pairs: int = 0
    longest: int = 0

    def __add__(self, other: Coverage) -> Coverage:
        return Coverage(
            self.row_tiles + other.row_tiles,
            self.full + other.full,
            self.partial + other.partial,
            self.pairs + other.pairs,
            max(self.longest, other.longest),
        )


@dataclass(frozen=True)
class LayoutCoverage:
    """The coverage of each pass, over the (batch entry, head) pairs that differ from one another.

    Attributes:
        passes: One for each pass of the layout.
        calls: How many different (batch entry, head) pairs were counted.
    """

    passes: tuple[Coverage, ...]
    calls: int

    @property
    def total(self) -> Coverage:
        """All passes together."""
        return sum(self.passes, Coverage())


def coverage(
    layout: Layout,
    q_len: int,
    kv_len: int,
    block_m: int,
    block_n: int,
    *,
    q_offset: int | None = None,
    given: tuple[int, int] | None = None,
    num_heads: int = 1,
    batch_size: int = 1,
    tensors: Mapping[str, Any] = _NOTHING,
) -> LayoutCoverage:
    """The work of a layout over the keys at positions `given`, all of the whole where it is not said.

    Where no head or batch entry differs, it is that of one.
    """
    reads = Tensors(tensors, kv_len, batch_size, num_heads, q_len)
    sizes: dict[str, Any] = {"given": given, "batch_size": batch_size, "num_heads": num_heads}
    made = calls(layout, q_len, kv_len, reads, q_offset=q_offset, **sizes)
    counted = [[_pass_coverage(one, call, block_m, block_n) for one in layout.passes] for call in made]
    passes = tuple(sum(column, Coverage()) for column in zip(*counted, strict=True))
    return LayoutCoverage(passes or tuple(Coverage() for _ in layout.passes), len(counted))


def _pass_coverage(one: Pass, call: Call, block_m: int, block_n: int) -> Coverage:
    block_m, block_n = _sides(one, block_m, block_n)
    tiles = row_tiles(one, call, block_m)
    if not kept_rows(one, tiles, call).any():
        return Coverage()  # such a pass is not launched
    found = [visits(walk, tiles, call, block_n) for walk in one.walks]
    count = sum(map(len, found))
    full = sum(int(seen.full.sum()) for seen in found)
    length = sum((np.bincount(seen.tile, minlength=len(tiles.rows)) for seen in found), np.zeros(1, np.int64))
    longest = int(length.max(initial=0))
    return Coverage(len(tiles.rows), full, count - full, count * block_m * block_n, longest)


def _sides(one: Pass, block_m: int, block_n: int) -> tuple[int, int]:
    """A tile as a kernel has it where its pass follows a table: it has rows of one block, and steps within a block."""
    sizes = [walk.keys.size for walk in one.walks if isinstance(walk.keys, Blocks)]
    rows = block_m if one.block == 1 else min(block_m, _side(one.block))
    return rows, min([block_n, *map(_side, sizes)])


def _side(size: int) -> int:
    """The least side of a tile that holds a block."""
    return max(16, 1 << (size - 1).bit_length())
