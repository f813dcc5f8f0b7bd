"""The curves: validation loss against steps, and against seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from run import Run

COLOURS = {"dense": "#64748b", "spattn": "#0f766e", "flex": "#c2410c"}


def draw(runs: Sequence[Run], title: str, file: Path) -> None:
    """Writes the picture, in the format that the file's name says."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for run in runs:
        steps, seconds, losses = zip(*run.points, strict=True)
        for one, x in zip(axes, (steps, seconds), strict=True):
            one.plot(x, losses, color=COLOURS[run.name], label=run.name, linewidth=2)
    for one, label in zip(axes, ("steps", "seconds of training"), strict=True):
        one.set_xlabel(label)
        one.set_xlim(left=0)
        one.grid(color="#e2e8f0")
        one.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("validation loss, nats a byte")
    axes[1].legend(frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(file, dpi=110)
