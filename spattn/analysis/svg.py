"""A mask as SVG, written by hand: a rectangle for each run of cells of one shade."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from xml.sax.saxutils import escape

from spattn.analysis.cells import Cells
from spattn.analysis.text_picture import caveats, shades, size_text

SIDE = 512.0
MARGIN = 48.0
COLOURS = ("", "#c6dbef", "#9ecae1", "#6baed6", "#08519c")
"""From few to all pairs: told apart in grey too."""


def svg_picture(cells: Cells, title: str) -> str:
    """The picture: keys to the right, queries down."""
    rows, columns = cells.fraction.shape
    unit = SIDE / max(rows, columns, 1)
    width, height = columns * unit, rows * unit
    notes = [*_legend(cells), *caveats(cells)]
    total = height + 2 * MARGIN + 18 * len(notes)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(max(width, SIDE) + 2 * MARGIN)} {_n(total)}"'
        ' font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<text x="{_n(MARGIN)}" y="16">{escape(_short(title))}</text>',
        f'<g transform="translate({_n(MARGIN)} {_n(MARGIN)})">',
        *_rectangles(cells, unit),
        f'<rect width="{_n(width)}" height="{_n(height)}" fill="none" stroke="#888"/>',
        *_ticks(cells, unit),
        *(f'<text y="{_n(height + 18 * (i + 1.5))}">{escape(note)}</text>' for i, note in enumerate(notes)),
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _rectangles(cells: Cells, unit: float) -> Iterator[str]:
    for i, row in enumerate(shades(cells)):
        j = 0
        for shade, run in groupby(row):
            length = len(list(run))
            if shade:
                place = f'x="{_n(j * unit)}" y="{_n(i * unit)}" width="{_n(length * unit)}" height="{_n(unit)}"'
                yield f'<rect {place} fill="{COLOURS[shade]}"/>'
            j += length


def _ticks(cells: Cells, unit: float) -> Iterator[str]:
    """Positions at the four quarters of both axes."""
    for axis, edges in (("x", cells.columns), ("y", cells.rows)):
        count = len(edges) - 1
        for quarter in sorted({count * part // 4 for part in range(5)}):
            at = _n(quarter * unit)
            place = f'x="{at}" y="-6" text-anchor="middle"' if axis == "x" else f'x="-6" y="{at}" text-anchor="end"'
            yield f'<text {place} font-size="10">{edges[quarter]}</text>'


def _legend(cells: Cells) -> Iterator[str]:
    if cells.single:
        yield "a cell is one pair; keys to the right, queries down"
    else:
        yield f"dark: all pairs, pale: some; a cell is {size_text(cells)}; keys to the right, queries down"


def _short(title: str, length: int = 80) -> str:
    return title if len(title) <= length else title[: length - 3] + "..."


def _n(value: float) -> str:
    """A number without needless digits."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
