"""How long a program of a tile takes on the device that was measured, and so which tiles are worth considering."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import log2

from spattn.cost.tile import Tile, next_power
from spattn.expressions.frozen import frozen


@frozen
class Rates:
    """Microseconds of a processor that is full of such programs: a program's share of it, not how long it takes.

    Attributes:
        program: For a program besides its key tiles.
        full, partial: For a key tile without a mask, and with one.
        registers: Of a thread, as compiled for sm_90.
    """

    program: float
    full: float
    partial: float
    registers: int


# One H200, bf16, Triton 3.6: least squares over twelve workloads, whose kernel times under steady load are in
# tests/backends/data/h200.json; `python -m tests.backends.calibrate` fits them again and prints these lines. Width 256
# and four bytes are not measured, but scaled by products and by loads from the L2 cache.
TABLE: Mapping[tuple[int, int], Mapping[Tile, Rates]] = {
    (2, 64): {
        Tile(64, 64, 4, 3, 128): Rates(0.64, 0.317, 0.494, 128),
        Tile(64, 64, 4, 2, 128): Rates(0.54, 0.318, 0.509, 128),
        Tile(64, 64, 4, 3): Rates(0.63, 0.325, 0.551, 136),
        Tile(64, 32, 4, 3): Rates(0.50, 0.192, 0.269, 96),
        Tile(128, 64, 8, 3, 128, apart=True): Rates(2.14, 0.619, 0.827, 128),
        Tile(64, 64, 4, 3, 128, apart=True): Rates(0.83, 0.313, 0.475, 128),
    },
    (2, 128): {
        Tile(64, 64, 4, 3): Rates(1.86, 0.565, 0.565, 255),
        Tile(64, 64, 4, 2): Rates(1.67, 0.587, 0.621, 250),
        Tile(64, 32, 4, 3, 168): Rates(1.73, 0.314, 0.314, 168),
        Tile(64, 32, 4, 2, 128): Rates(1.69, 0.308, 0.308, 128),
        Tile(128, 64, 8, 2, 128): Rates(0.50, 1.097, 1.783, 128),
    },
    (2, 256): {
        Tile(64, 32, 4, 2): Rates(2.50, 0.700, 0.850, 255),
        Tile(128, 32, 8, 2): Rates(5.00, 1.250, 1.600, 253),
        Tile(128, 64, 8, 2): Rates(5.00, 2.450, 3.300, 255),
    },
    (4, 64): {Tile(64, 32, 4, 2): Rates(2.00, 2.400, 2.500, 255)},
    (4, 128): {Tile(32, 32, 4, 2): Rates(2.00, 2.400, 2.500, 255)},
    (4, 256): {Tile(16, 16, 4, 1): Rates(2.00, 1.200, 1.300, 255)},
}
LOADED = 55e9  # bytes a second that a processor loads from the L2 cache, measured by the tiles of 64 rows: 7.3 TB/s
SHORT = 64  # rows; a program of fewer has registers to spare


def width_of(head_dim: int) -> int:
    """The class of a head dimension: 64, 128 or 256."""
    return min(max(next_power(head_dim), 64), 256)


@lru_cache(maxsize=1024)
def rates_of(tile: Tile, width: int, itemsize: int) -> Rates:
    """The rates of any tile: as measured, or scaled from the measured one that is most like it."""
    known = TABLE[min(itemsize, 4), width]
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
