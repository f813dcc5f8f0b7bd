"""The curve: memory of keys and values against tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

COLOURS = {"full": "#64748b", "ring": "#0f766e"}


def draw(tokens: Sequence[int], memory: Mapping[str, Sequence[float]], title: str, file: Path) -> None:
    """Writes the picture, in the format that the file's name says; memory is in MiB."""
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, numbers in memory.items():
        axes.plot(tokens, numbers, color=COLOURS[name], label=name, linewidth=2)
    axes.set_xlabel("tokens decoded")
    axes.set_ylabel("keys and values, MiB")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(color="#e2e8f0")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(file, dpi=110)
