"""Trains one small language model with several attentions and compares them: loss, seconds, tokens a second.

    python examples/train/train.py examples/train/cpu.yaml --plot curves.png

Weights, data and their order are the same for all; only the attention differs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from math import inf
from pathlib import Path
from typing import Annotated

import torch
import typer
from config import Config
from picture import draw
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from run import Run, train
from text import Text


def main(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A YAML file beside this program.")],
    attention: Annotated[list[str] | None, typer.Option(help="Only this one; may be said again.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the file's.")] = None,
    seconds: Annotated[float, typer.Option(help="Stop each training after so many.")] = inf,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the curves here.")] = None,
) -> None:
    """Trains the model of FILE once with each attention, from the same weights, on the same data."""
    config = Config.read(file)
    config = replace(config, attention=attention or config.attention, steps=steps or config.steps)
    text = Text(file.parent / config.text, config.length)
    device = torch.cuda.get_device_name() if config.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    title = f"{config.pattern}\n{config.length:,} tokens, {device}"
    about = {"device": device, "torch": torch.__version__, "config": asdict(config)}
    runs: list[Run] = []
    for run in compared(config, text, seconds):
        runs.append(run)
        if json_file is not None:  # at once: the next training may be stopped
            json_file.write_text(json.dumps({**about, "runs": [asdict(run) for run in runs]}, indent=2) + "\n")
    Console().print(f"\n{escape(title)}", table(runs, config.batch * config.length), sep="\n")
    if plot is not None:
        draw(runs, title, plot)


def compared(config: Config, text: Text, seconds: float) -> Iterator[Run]:
    """One training after the other, and how far each is."""
    columns = TextColumn("{task.description:6}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, TextColumn("{task.fields[loss]}"), console=Console(stderr=True)) as progress:
        for name in config.attention:
            task = progress.add_task(name, total=config.steps, loss="")

            def tell(steps: int, loss: float, task: TaskID = task) -> None:
                progress.update(task, completed=steps, loss=f"loss {loss:.3f}")

            yield train(name, config, text, seconds, tell)


def table(runs: Sequence[Run], tokens: int) -> Table:
    """One row an attention; `tokens` are those of a step."""
    shown = Table("attention")
    for column in ("steps", "seconds", "first step, s", "a step, ms", "tokens/s", "loss"):
        shown.add_column(column, justify="right")
    for run in runs:
        steps, seconds, loss = run.points[-1]
        clock = f"{seconds:.1f}", f"{run.step_seconds[0]:.1f}", f"{run.step * 1e3:.0f}", f"{tokens / run.step:,.0f}"
        shown.add_row(run.name, str(steps), *clock, f"{loss:.3f}")
    return shown


if __name__ == "__main__":
    typer.run(main)
