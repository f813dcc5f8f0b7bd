"""Time and memory against length, both logarithmic: one line for each peer and pattern."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from spattn.bench.lengths import short
from spattn.bench.records import Built
from spattn.bench.spoken import milliseconds, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"ours": ("#0f766e", "#14b8a6"), "rival": ("#c2410c", "#a16207", "#7c3aed")}
DASHES = ("-", "--", ":", "-.")
MARKS = ("o", "s", "D", "^")
LEAST_MS = 1e-3
LEAST_BYTES = 64

Point = tuple[int, float]


def draw_curves(axes: Sequence[Axes], rows: Sequence[Built]) -> None:
    """To the left milliseconds, to the right bytes, where they are known."""
    _draw(axes[0], rows, _time, 10, "time that a new length takes", milliseconds)
    _draw(axes[1], rows, _bytes, 16, "memory that it takes", lambda number: size(int(number)))
    for _, colour, _, _, line in _lines(rows):
        ended = next((row for row in line if row.length_ms is None), None)
        timed = [row for row in line if row.length_ms is not None]
        if ended is not None and timed:
            end = (timed[-1].length, _time(timed[-1]) or LEAST_MS)
            why = ended.detail.partition(",")[0]
            _note(axes[0], end, f"{ended.peer} at {short(ended.length)}: {why}", colour)
    axes[0].legend(fontsize=7.5, frameon=False, loc="upper left")
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low, high * 8 ** (1 + len(axes[0].lines) / 3))  # room for the legend


def _draw(
    one: Axes,
    rows: Sequence[Built],
    value: Callable[[Built], float | None],
    base: int,
    title: str,
    said: Callable[[float], str],
) -> None:
    _prepare(one, title, sorted({row.length for row in rows}))
    one.set_yscale("log", base=base)
    one.yaxis.set_major_formatter(lambda number, _: said(number))
    for label, colour, dash, mark, line in _lines(rows):
        points = [(row.length, found) for row in line if (found := value(row)) is not None]
        if points:
            x, y = zip(*points, strict=True)
            style: dict[str, Any] = {"color": colour, "linestyle": dash, "marker": mark, "markersize": 4}
            one.plot(x, y, label=label, linewidth=1.6, **style)
    one.minorticks_off()
    if not one.lines:
        one.set_yticks([])
        one.text(0.5, 0.5, "not known on this device", ha="center", transform=one.transAxes, color="#888888")


def _lines(rows: Sequence[Built]) -> Iterator[tuple[str, str, str, str, list[Built]]]:
    """Label, colour, dash, mark and rows of each peer on each pattern."""
    patterns = list(dict.fromkeys(one.pattern for one in rows))
    for peer, colour in _colours(rows).items():
        for pattern, dash, mark in zip(patterns, cycle(DASHES), cycle(MARKS), strict=False):
            line = [row for row in rows if (row.peer, row.pattern) == (peer, pattern)]
            if line:
                yield f"{peer}, {pattern}", colour, dash, mark, line


def _time(row: Built) -> float | None:
    return None if row.length_ms is None else max(row.length_ms, LEAST_MS)


def _bytes(row: Built) -> float | None:
    """The peak, or what stays where that alone is known; too little to be drawn is drawn at the bottom."""
    known = row.kept_bytes if row.peak_bytes is None else row.peak_bytes
    return None if known is None else max(known, LEAST_BYTES)


def _colours(rows: Sequence[Built]) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind, colours in COLOURS.items():
        peers = dict.fromkeys(row.peer for row in rows if row.kind == kind)
        found |= dict(zip(peers, cycle(colours), strict=False))
    return found


def _note(one: Axes, at: Point, text: str, colour: str) -> None:
    """Why a line ends, above its end."""
    style: dict[str, Any] = {"fontsize": 7, "color": colour, "ha": "center", "wrap": True}
    one.annotate(text[:60], at, xytext=(0, 7), textcoords="offset points", **style)


def _prepare(one: Axes, title: str, lengths: Sequence[int]) -> None:
    one.set_xscale("log", base=2)
    one.set_xticks(lengths, [short(n) for n in lengths], fontsize=9)
    one.grid(color="#e5e7eb")
    one.set_title(title, fontsize=11, loc="left")
    one.set_xlabel("tokens", fontsize=9)
    one.tick_params(axis="y", labelsize=9)
    for side in ("top", "right"):
        one.spines[side].set_visible(False)
