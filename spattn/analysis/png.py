"""A mask as PNG, by matplotlib (extra `viz`)."""

from __future__ import annotations

from io import BytesIO

import numpy as np

from spattn.analysis.cells import Cells
from spattn.analysis.svg import COLOURS
from spattn.analysis.text_picture import caveats, shades, size_text
from spattn.errors import MissingDependencyError


def png_picture(cells: Cells, title: str) -> bytes:
    """The picture: keys to the right, queries down.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.colors import ListedColormap
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("E050", "a PNG needs matplotlib", hint="pip install 'spattn[viz]'") from error
    figure = Figure(figsize=(6, 6.4), layout="constrained")
    axes = figure.subplots()
    extent = (int(cells.columns[0]), int(cells.columns[-1]), int(cells.rows[-1]), 0)
    colours = ListedColormap(["white", *COLOURS[1:]])
    axes.imshow(
        np.asarray(shades(cells)), cmap=colours, vmin=0, vmax=4, extent=extent, interpolation="nearest", aspect="auto"
    )
    axes.set_title(title if len(title) <= 60 else f"{title[:57]}...", fontsize=10, parse_math=False)
    axes.set_xlabel("key")
    axes.set_ylabel("query")
    figure.supxlabel("; ".join(_notes(cells)), fontsize=7, wrap=True)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _notes(cells: Cells) -> list[str]:
    size = "a cell is one pair" if cells.single else f"dark: all pairs, pale: some; a cell is {size_text(cells)}"
    return [size, *caveats(cells)]
