"""Logarithmic bars: how many times as fast as its fastest rival spattn is, and how long the first answer takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spattn.bench.records import Started
from spattn.bench.spoken import milliseconds
from spattn.bench.standing import Standing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AHEAD, BEHIND, OTHERS = "#0f766e", "#c2410c", "#64748b"
COLD, WARM = "#1d4ed8", "#93c5fd"
HALF = 0.36
"""The height of one bar of two."""
MARKS = "DosX^v"
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def draw_bars(axes: Sequence[Axes], rows: Sequence[Standing]) -> None:
    """One bar a workload, others marked beside it."""
    one = axes[0]
    ratios = [row.ratio or 1.0 for row in rows]
    one.set_xscale("log")
    one.barh(
        range(len(rows)),
        [ratio - 1 for ratio in ratios],
        left=1,
        height=0.62,
        color=[AHEAD if ratio >= 1 else BEHIND for ratio in ratios],
        zorder=2,
    )
    marked = _draw_others(one, rows)
    _draw_axes(one, [*ratios, *(speed for _, speed in marked)])
    for i, (row, ratio) in enumerate(zip(rows, ratios, strict=True)):
        end = max(ratio, 1, *(speed for place, speed in marked if place == i))
        _write(one, _said(row, ratio), end, i)
    one.set_yticks(range(len(rows)), [row.workload for row in rows], fontsize=9)
    one.set_ylim(len(rows) - 0.4, -0.6)
    rivals = ", ".join(dict.fromkeys(peer.peer for row in rows for peer in row.all if peer.kind == "rival"))
    one.set_title(f"{rows[0].direction}: speed relative to the fastest of {rivals}", fontsize=11, loc="left")


def draw_starts(axes: Sequence[Axes], rows: Sequence[Started]) -> None:
    """Two bars for each peer and workload."""
    one = axes[0]
    one.set_xscale("log")
    bars = (("cold caches", COLD, [r.cold_ms for r in rows]), ("warm caches", WARM, [r.warm_ms for r in rows]))
    for shift, (label, colour, values) in enumerate(bars):
        places = [i + (shift - 0.5) * HALF for i in range(len(rows))]
        lengths = [value or 0.0 for value in values]
        one.barh(places, lengths, height=HALF * 0.92, color=colour, label=label, zorder=2)
        for place, value in zip(places, lengths, strict=True):
            at = (value, place)
            one.annotate(milliseconds(value), at, xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)
    one.set_yticks(range(len(rows)), [f"{r.workload}, {r.peer}" for r in rows], fontsize=9)
    one.set_ylim(len(rows) - 0.4, -0.6)
    one.set_xlim(right=one.get_xlim()[1] * 3)
    one.set_xlabel("milliseconds", fontsize=9)
    one.legend(fontsize=8, frameon=False, loc="lower right")
    one.set_title("first answer of a new process, after its imports", fontsize=11, loc="left")
    quiet(one)


def _draw_others(one: Axes, rows: Sequence[Standing]) -> list[tuple[int, float]]:
    """Marks of the peers that serve some patterns only or compute all pairs; the row and relative speed of each."""
    found: dict[str, list[tuple[int, float]]] = {}
    for i, row in enumerate(rows):
        for peer in row.all:
            if peer.kind == "other" and peer.ms and row.rival is not None and row.rival.ms:
                found.setdefault(peer.peer, []).append((i, row.rival.ms / peer.ms))
    for mark, (name, places) in zip(MARKS, found.items(), strict=False):
        y, x = zip(*places, strict=True)
        one.scatter(x, y, marker=mark, s=26, color=OTHERS, edgecolor="white", linewidth=0.6, label=name, zorder=3)
    if found:
        one.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(found), borderpad=0.1)
    return [place for places in found.values() for place in places]


def _draw_axes(one: Axes, speeds: Sequence[float]) -> None:
    low, high = min(*speeds, 0.9) / 1.15, max(*speeds, 1.5) * 2.6  # room for what is written behind a bar
    shown = [tick for tick in TICKS if low <= tick <= high]
    one.set_xlim(low, high)
    one.set_xticks(shown, [f"{tick:g}x" for tick in shown], fontsize=9)
    one.axvline(1, color="#444444", linewidth=1, zorder=3)
    quiet(one)


def _write(one: Axes, text: str, end: float, place: int) -> None:
    """Behind whatever stands in a row."""
    style: dict[str, Any] = {"va": "center", "fontsize": 8, "color": "#222222", "zorder": 4}
    style["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
    one.annotate(text, (end, place), xytext=(7, 0), textcoords="offset points", **style)


def _said(row: Standing, ratio: float) -> str:
    ours, rival = row.ours, row.rival
    assert ours is not None
    assert rival is not None
    tuned = " tuned" if "tuned" in rival.peer else ""
    return f"{ratio:.3g}x   {milliseconds(ours.ms)} : {milliseconds(rival.ms)}{tuned}"


def quiet(one: Axes) -> None:
    """Ticks by a grid, and no frame."""
    one.minorticks_off()
    one.grid(axis="x", color="#e5e7eb", zorder=0)
    one.tick_params(length=0)
    for side in ("top", "right", "left", "bottom"):
        one.spines[side].set_visible(False)
