"""Decode steps in times of their floor, logarithmic: a bar for spattn, marks for others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spattn.bench.decode.standing import DecodeStanding
from spattn.bench.pictures.bars import AHEAD, BEHIND, MARKS, OTHERS, quiet
from spattn.bench.spoken import microseconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TICKS = tuple(digit * 10.0**power for power in range(-3, 6) for digit in (1, 2, 5))
INEXACT = "none"
"""The face of a mark whose peer goes through all keys."""


def draw_steps(axes: Sequence[Axes], rows: Sequence[DecodeStanding]) -> None:
    """One bar a workload; all that was measured of others is marked."""
    one = axes[0]
    one.set_xscale("log")
    ours = [_times(row, row.ours.us if row.ours else None) for row in rows]
    colours = [AHEAD if (row.ratio or 1.0) >= 1 else BEHIND for row in rows]
    one.barh(range(len(rows)), [t - 1 for t in ours], left=1, height=0.62, color=colours, zorder=2)
    marked = [*_draw_others(one, rows), *enumerate(ours)]
    _draw_axis(one, [times for _, times in marked])
    for i, row in enumerate(rows):
        end = max(1.0, *(times for place, times in marked if place == i))
        one.annotate(
            _said(row), (end, i), xytext=(7, 0), textcoords="offset points", va="center", fontsize=8, color="#222222"
        )
    one.set_yticks(range(len(rows)), [row.first.workload for row in rows], fontsize=9)
    one.set_ylim(len(rows) - 0.4, -0.6)
    title = "decode: a step, in times of what memory takes for the needed keys and values"
    one.set_title(title, fontsize=11, loc="left")


def _draw_others(one: Axes, rows: Sequence[DecodeStanding]) -> list[tuple[int, float]]:
    """The row and the times of each mark."""
    found: list[tuple[int, float]] = []
    names = dict.fromkeys(peer.peer for row in rows for peer in row.all if peer.kind != "ours" and peer.us)
    for mark, name in zip(MARKS, names, strict=False):
        places = [(i, row.by_name[name]) for i, row in enumerate(rows) if name in row.by_name]
        points = [(i, _times(rows[i], peer.us), peer.exact) for i, peer in places if peer.us]
        faces = [OTHERS if exact else INEXACT for _, _, exact in points]
        x, y = [times for _, times, _ in points], [i for i, _, _ in points]
        one.scatter(x, y, marker=mark, s=26, c=faces, edgecolor=OTHERS, linewidth=0.8, label=name, zorder=3)
        found += [(i, times) for i, times, _ in points]
    if names:
        one.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.04), ncols=len(names))
    return found


def _times(row: DecodeStanding, us: float | None) -> float:
    return (us or 0.0) / row.first.floor_us


def _draw_axis(one: Axes, times: Sequence[float]) -> None:
    low, high = min(*times, 0.9) / 1.15, max(*times, 1.5) * 3  # room for what is written behind a bar
    shown = [tick for tick in TICKS if low <= tick <= high]
    one.set_xlim(low, high)
    shown = shown[:: 1 if len(shown) < 12 else 3]
    one.set_xticks(shown, [f"{tick:g}x" for tick in shown], fontsize=9)
    one.axvline(1, color="#444444", linewidth=1, zorder=3)
    quiet(one)


def _said(row: DecodeStanding) -> str:
    ours, best = row.ours, row.best
    found = microseconds(ours.us if ours else None)
    return f"{found}, {row.ratio:.3g}x as fast as {best.peer}" if best is not None and row.ratio else found
