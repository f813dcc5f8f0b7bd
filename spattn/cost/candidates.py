"""Tiles that a pass may be run with: those that were measured, cut down to its rows, its blocks and the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from spattn.codegen.languages import serving
from spattn.codegen.tile import Tile, next_power
from spattn.cost.prediction import shared_bytes
from spattn.cost.rates import SHORT, TABLES, width_of
from spattn.cost.sizes import Sizes
from spattn.layout.ir import Blocks, Listed, Pass
from spattn.layout.tiling import rows_each
from spattn.machine.device import Device

RESIDENT = 4  # programs for each processor beyond which a pass is not split
MIN_STEPS = 8  # key tiles that a split does at least
MAX_SPLITS = 64
MOST_ROWS = 128
UNEVEN = 16  # times the mean: a program so long is split though there are many


def shapes(one: Pass, sizes: Sizes, device: Device, languages: tuple[str, ...]) -> tuple[Tile, ...]:
    """Tiles of all languages that serve the pass, without splits, each once."""
    listed = sizes.length(one.rows.tokens) if isinstance(one.rows, Listed) else 0
    rows = rows_each(one, sizes.rows, listed)
    most = min(next_power(rows), MOST_ROWS)
    names = serving(one, "forward", languages)
    return tuple(t for name in names for t in _shapes(name, one, sizes.head_dim, sizes.itemsize, most, device.shared))


@lru_cache(maxsize=4096)
def _shapes(language: str, one: Pass, head_dim: int, itemsize: int, rows: int, shared: int) -> tuple[Tile, ...]:
    row_bytes = next_power(head_dim) * itemsize
    cut = [(tile, _cut(tile, one, rows)) for tile in TABLES[language].forward[min(itemsize, 4), width_of(head_dim)]]
    # half of a tall tile is no better than a tile that was measured so
    kept = [ours for tile, ours in cut if tile.block_m in (ours.block_m, SHORT) or len(cut) == 1]
    return tuple(dict.fromkeys(_fitting(tile, row_bytes, shared) for tile in kept))


def splits(tile: Tile, tiles: int, steps: float, longest: float, device: Device) -> Iterator[Tile]:
    """The tile, and with splits where it has too few programs for the device, or one that is much too long."""
    yield tile
    wanted = min(longest / MIN_STEPS, MAX_SPLITS, RESIDENT * device.processors / max(tiles, 1))
    if longest > UNEVEN * steps:
        wanted = min(longest / MIN_STEPS, MAX_SPLITS)
    count = 2
    while count <= wanted:
        yield replace(tile, splits=count)
        count *= 2


def _cut(tile: Tile, one: Pass, rows: int) -> Tile:
    """No more rows than there are, no more keys than a block has."""
    block_m, block_n = min(tile.block_m, rows), tile.block_n
    if one.block > 1:
        block_m = min(block_m, next_power(one.block))
    for walk in one.walks:
        if isinstance(walk.keys, Blocks):
            block_n = min(block_n, next_power(walk.keys.size))
    registers = tile.registers if block_m == tile.block_m else 0
    return replace(tile, block_m=block_m, block_n=block_n, registers=registers)


def _fitting(tile: Tile, row_bytes: int, shared: int) -> Tile:
    """Fewer stages, then fewer keys a step, then fewer queries, until they fit into shared memory."""
    while shared_bytes(tile, row_bytes) > shared:
        if tile.num_stages > 1:
            tile = replace(tile, num_stages=tile.num_stages - 1)
        elif tile.block_n > 16:
            tile = replace(tile, block_n=tile.block_n // 2)
        elif tile.block_m > 16:
            tile = replace(tile, block_m=tile.block_m // 2, num_warps=4)
        else:
            break
    return tile
