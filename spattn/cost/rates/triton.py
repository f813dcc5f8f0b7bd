"""What was measured of Triton's kernels: rates of tiles forward, the fastest tiles of the gradients."""

from __future__ import annotations

from collections.abc import Mapping

from spattn.codegen.tile import Tile
from spattn.cost.rates.table import LONG_WALK, SHORT_WALK, Rates, RateTable

# One H200, bf16, Triton 3.6: least squares over twelve workloads, whose kernel times under steady load are in
# tests/backends/data/h200.json; `python -m tests.backends.calibrate` fits them again and prints these lines. Width 256
# and four bytes are not measured, but scaled by products and by loads from the L2 cache.
TABLE: Mapping[tuple[int, int], Mapping[Tile, Rates]] = {
    (2, 64): {
        Tile(64, 64, 4, 3, 128): Rates(0.64, 0.317, 0.494, 128),
        Tile(64, 64, 4, 2, 128): Rates(0.54, 0.318, 0.509, 128),
        Tile(64, 64, 4, 3): Rates(0.63, 0.325, 0.551, 136),
        Tile(64, 32, 4, 3): Rates(0.50, 0.192, 0.269, 96),
        Tile(128, 64, 8, 3, 128, peeled=True): Rates(2.14, 0.619, 0.827, 128),
        Tile(64, 64, 4, 3, 128, peeled=True): Rates(0.83, 0.313, 0.475, 128),
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
TILES: Mapping[tuple[int, int], Mapping[int, tuple[Tile, Tile]]] = {
    (2, 64): {
        0: (Tile(64, 32, 4, 3, 128), Tile(64, 32, 4, 3, 168)),
        SHORT_WALK: (Tile(64, 64, 4, 2, 128), Tile(64, 64, 4, 3, 168)),
    },
    (2, 128): {
        0: (Tile(64, 32, 4, 2, 168), Tile(64, 64, 4, 2)),
        SHORT_WALK: (Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
        LONG_WALK: (Tile(64, 64, 4, 2, peeled=True), Tile(64, 64, 4, 2)),
    },
    (2, 256): {0: (Tile(64, 32, 8, 1), Tile(64, 32, 8, 1))},
    (4, 64): {0: (Tile(32, 32, 4, 2), Tile(32, 32, 4, 2))},
    (4, 128): {0: (Tile(32, 16, 4, 1), Tile(32, 16, 4, 1))},
    (4, 256): {0: (Tile(16, 16, 4, 1), Tile(16, 16, 4, 1))},
}
"""(bytes of an element, head dimension up to) -> columns that a row sees, from so many on -> the tiles of dq, and of dk
and dv; of bf16 the fastest that were measured on an H200."""
OTHERS: Mapping[tuple[int, int], tuple[tuple[Tile, ...], tuple[Tile, ...]]] = {
    (2, 64): (
        (Tile(64, 64, 4, 3, 168), Tile(64, 64, 4, 2, 168, peeled=True)),
        (Tile(64, 64, 4, 2, 168, peeled=True), Tile(64, 32, 4, 3, 128)),
    ),
    (2, 128): ((Tile(128, 64, 8, 3, peeled=True),), (Tile(64, 32, 4, 3), Tile(64, 64, 4, 2, peeled=True))),
}
"""What else was fast somewhere: worth measuring."""

RATES = RateTable(TABLE, TILES, OTHERS)
