"""A result as PNG, by matplotlib (extra `viz`): bars of relative speed, and what a length costs against it."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from spattn.bench.decode.standing import decode_standings
from spattn.bench.pictures.bars import draw_bars, draw_starts
from spattn.bench.pictures.curves import draw_curves
from spattn.bench.pictures.steps import draw_steps
from spattn.bench.records import Result
from spattn.bench.standing import Standing, standings
from spattn.errors import ArgumentError, MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 11.0
ROW = 0.36
CURVES = 4.2
MARGIN = 1.3


def require() -> type[Figure]:
    """matplotlib's figure, so that what is missing is said before a long run and not after it.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("E050", "a PNG needs matplotlib", hint="pip install 'spattn[viz]'") from error
    return Figure


def picture(result: Result) -> bytes:
    """The picture: one panel for each direction and section that has numbers.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ArgumentError: E060, there are no numbers.
    """
    panels = _panels(result)
    if not panels:
        raise ArgumentError("E060", "nothing in this result can be drawn", hint="measure spattn and a rival")
    heights = [height for height, _, _ in panels]
    figure = require()(figsize=(WIDTH, sum(heights) + 0.7), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(len(panels), 2, height_ratios=heights)
    for row, (_, draw, data) in enumerate(panels):
        both = draw is draw_curves
        axes = [figure.add_subplot(grid[row, i]) for i in (0, 1)] if both else [figure.add_subplot(grid[row, :])]
        draw(axes, data)
    figure.suptitle(_title(result), fontsize=10, color="#444444", x=0.01, ha="left", parse_math=False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _panels(result: Result) -> list[tuple[float, Any, Any]]:
    """Height, function and data of each."""
    found: list[tuple[float, Any, Any]] = []
    drawn = [one for one in standings(result.measured) if one.ratio is not None]
    for direction in dict.fromkeys(one.direction for one in drawn):
        rows: list[Standing] = [one for one in drawn if one.direction == direction]
        found.append((MARGIN + ROW * len(rows), draw_bars, rows))
    steps = [one for one in decode_standings(result.decoded) if one.ours is not None and one.ours.us]
    if steps:
        found.append((MARGIN + ROW * len(steps), draw_steps, steps))
    if any(one.length_ms is not None for one in result.built):
        found.append((CURVES, draw_curves, result.built))
    starts = [one for one in result.started if one.cold_ms is not None]
    if starts:
        found.append((MARGIN + 2 * ROW * len(starts), draw_starts, starts))
    return found


def _title(result: Result) -> str:
    facts = result.machine
    versions = ", ".join(f"{name} {facts[name]}" for name in ("torch", "triton") if name in facts)
    return ", ".join(part for part in (facts.get("device"), facts.get("dtype"), versions, facts.get("time")) if part)
