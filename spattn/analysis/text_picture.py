"""A mask in characters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from spattn.analysis.cells import Cells

TICK = 8


@dataclass(frozen=True)
class Glyphs:
    """A character for each of the five shades, and what stands left and right of a row."""

    of: str
    border: str


BLOCKS = Glyphs(" ░▒▓█", "│")
ASCII = Glyphs(" .-+#", "|")


def text_picture(cells: Cells, glyphs: Glyphs = BLOCKS, width: int = 80) -> Iterator[str]:
    """Lines: keys run to the right, queries down; two characters a cell where `width` has room for them."""
    count = cells.fraction.shape[1]
    margin = max((len(str(edge)) for edge in cells.rows[:-1]), default=1)
    wide = 2 if 2 * count + margin + 3 <= width else 1
    yield f"{'':{margin}}  {_ruler(cells, wide)}".rstrip()
    for i, row in enumerate(shades(cells)):
        tick = str(cells.rows[i]) if i % TICK == 0 else ""
        drawn = "".join(glyphs.of[shade] * wide for shade in row)
        yield f"{tick:>{margin}} {glyphs.border}{drawn}{glyphs.border}"
    yield from legend(cells, glyphs)


def shades(cells: Cells) -> list[list[int]]:
    """Of each cell: 0 none, 1 to 3 by its part, 4 every pair."""
    some = np.clip((cells.fraction * 3).astype(int) + 1, 1, 3)
    found: list[list[int]] = np.where(cells.full & cells.touched, 4, np.where(cells.touched, some, 0)).tolist()
    return found


def legend(cells: Cells, glyphs: Glyphs) -> Iterator[str]:
    """What the shades mean, and what was not looked at."""
    if cells.single:
        yield f"{glyphs.of[4]} allowed; a cell is one pair"
    else:
        parts = glyphs.of[1:4]
        yield f"{glyphs.of[4]} all pairs, {parts} some, blank none; a cell is {size_text(cells)}"
    yield from caveats(cells)


def size_text(cells: Cells) -> str:
    """`16 queries x 16 keys`."""
    sizes = (int(np.diff(edges).max(initial=0)) for edges in (cells.rows, cells.columns))
    queries, keys = sizes
    return f"{queries} queries x {keys} keys"


def caveats(cells: Cells) -> Iterator[str]:
    """Where the call stands, and how far the picture is to be trusted."""
    yield from cells.placement
    match cells.how:
        case "lines":
            yield "sampled: in each cell a few queries with all their keys, a few keys with all their queries"
        case "points":
            yield "sampled: a few pairs of each cell; thinner structures may be missing"
    if cells.sampled:
        yield "the pattern's tensors are examples"


def _ruler(cells: Cells, wide: int) -> str:
    """Positions of keys above every eighth cell, as far as they do not touch."""
    line = ""
    for j in range(0, cells.fraction.shape[1], TICK):
        if j * wide >= len(line) + (1 if line else 0):
            line = line.ljust(j * wide) + str(cells.columns[j])
    return line
