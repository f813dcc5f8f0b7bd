"""How long a program of a tile takes on the device that was measured, and so which tiles are worth considering."""

from __future__ import annotations

from functools import lru_cache
from math import log2

from spattn.codegen.tile import Tile, next_power
from spattn.cost.rates import triton
from spattn.cost.rates.table import Rates, RateTable

TABLES: dict[str, RateTable] = {"triton": triton.RATES}
"""Of each language."""
LOADED = 55e9  # bytes a second that a processor loads from the L2 cache, measured by the tiles of 64 rows: 7.3 TB/s
SHORT = 64  # rows; a program of fewer has registers to spare


def width_of(head_dim: int) -> int:
    """The class of a head dimension: 64, 128 or 256."""
    return min(max(next_power(head_dim), 64), 256)


@lru_cache(maxsize=1024)
def rates_of(tile: Tile, width: int, itemsize: int) -> Rates:
    """The rates of any tile: as measured, or scaled from the measured one that is most like it."""
    known = TABLES[tile.language].forward[min(itemsize, 4), width]
    found = known.get(tile)
    if found is not None:
        return found
    like = min(known, key=lambda other: _distance(tile, other))
    rates, by = known[like], tile.block_m * tile.block_n / (like.block_m * like.block_n)
    least = 2 * tile.block_n * width * itemsize / LOADED * 1e6
    full, partial = (max(rate * by, least) for rate in (rates.full, rates.partial))
    registers = tile.registers or (168 if tile.block_m < SHORT else rates.registers)
    return Rates(rates.program * max(by, 0.5), full, partial, registers)


def _distance(tile: Tile, other: Tile) -> float:
    sides = abs(log2(tile.block_n / other.block_n)) + abs(log2(tile.block_m / other.block_m))
    return sides + abs(tile.num_stages - other.num_stages) / 4 + (tile.registers != other.registers) / 16
