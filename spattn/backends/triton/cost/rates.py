"""How long a program of a tile takes on the device that was measured, and so which tiles are worth considering."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import log2

from spattn.backends.triton.tiles import Tile, next_power
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


# One H200, bf16, Triton 3.6: least squares over twelve workloads, each with seven tiles, whose kernel times are in
# tests/backends/data/h200.json; `python -m tests.backends.calibrate` fits them again and prints these lines. Width 256
# and four bytes are not measured, but scaled by products and by loads from the L2 cache.
TABLE: Mapping[tuple[int, int], Mapping[Tile, Rates]] = {
    (2, 64): {
        Tile(64, 64, 4, 3, 128): Rates(1.02, 0.296, 0.492, 128),
        Tile(64, 64, 4, 2, 128): Rates(0.77, 0.318, 0.542, 128),
        Tile(64, 32, 4, 3, 96): Rates(0.74, 0.194, 0.264, 96),
        Tile(64, 32, 4, 4, 128): Rates(0.80, 0.190, 0.294, 128),
        Tile(128, 64, 8, 3, 128, apart=True): Rates(3.84, 0.579, 0.579, 128),
        Tile(64, 64, 4, 3, 128, apart=True): Rates(1.23, 0.286, 0.459, 128),
        Tile(128, 128, 8, 3, apart=True): Rates(5.22, 1.457, 1.974, 246),
    },
    (2, 128): {
        Tile(64, 64, 4, 3): Rates(0.77, 0.546, 1.193, 255),
        Tile(64, 64, 4, 2): Rates(0.62, 0.606, 1.193, 250),
        Tile(64, 32, 4, 3, 168): Rates(1.81, 0.303, 0.303, 168),
        Tile(64, 32, 4, 2, 128): Rates(1.42, 0.315, 0.315, 128),
        Tile(128, 64, 8, 3, apart=True): Rates(2.17, 1.128, 2.055, 243),
        Tile(128, 128, 8, 3, apart=True): Rates(2.45, 2.022, 4.754, 255),
        Tile(64, 64, 4, 3, apart=True): Rates(2.40, 0.550, 0.650, 255),
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
LOADED = 51e9  # bytes a second that a processor loads from the L2 cache, measured by the tiles of 64 rows: 6.7 TB/s
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
