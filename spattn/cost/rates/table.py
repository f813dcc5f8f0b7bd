"""What is measured of a language's kernels on the device that stands for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spattn.codegen.tile import Tile
from spattn.expressions.frozen import frozen

SHORT_WALK = 448  # columns of a row from which it pays to keep more of them in registers
LONG_WALK = 1024  # columns from which a loop of its own for masked tiles pays; what a row sees where only data says


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


@dataclass(frozen=True)
class RateTable:
    """A language's tiles; keys are (bytes of an element, head dimension up to).

    Attributes:
        forward: Tiles worth considering, and their rates.
        backward: Columns that a row sees, from so many on -> the tiles of dq, and of dk and dv: the fastest.
        others: What else was fast somewhere, for dq, and for dk and dv: worth measuring.
    """

    forward: Mapping[tuple[int, int], Mapping[Tile, Rates]]
    backward: Mapping[tuple[int, int], Mapping[int, tuple[Tile, Tile]]]
    others: Mapping[tuple[int, int], tuple[tuple[Tile, ...], tuple[Tile, ...]]]
