"""One training: the loop, its clock, and what is recorded of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

import torch
from attention import attends
from config import Config
from model import Model
from text import Text
from torch import Tensor


@dataclass
class Run:
    """What became of one attention.

    Attributes:
        step_seconds: Of each step, without validation. The first one holds all planning and compilation.
        points: After how many steps and seconds the validation loss was what, in nats a byte.
    """

    name: str
    step_seconds: list[float] = field(default_factory=list)
    points: list[tuple[int, float, float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(self.step_seconds)

    @property
    def step(self) -> float:
        """The median step, in seconds."""
        return median(self.step_seconds)


def train(name: str, config: Config, text: Text, seconds: float, tell: Callable[[int, float], None]) -> Run:
    """Trains a model for the config's steps or so many seconds, whichever is less; tells steps and loss of each."""
    run, begin = Run(name), time.perf_counter()
    torch.manual_seed(config.seed)
    model = Model(config.width, config.heads, attends(name, config)).to(config.device)
    optimizer = torch.optim.AdamW(model.parameters(), config.rate, weight_decay=0.1, fused=True)
    cycle = {"total_steps": config.steps + 1, "pct_start": 0.1, "cycle_momentum": False}
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.rate, **cycle)
    for step, batch in enumerate(text.batches(config.batch, config.seed), start=1):
        loss = loss_of(model, batch, config.device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        tell(step, loss.item())  # item() waits for the device
        run.step_seconds.append(time.perf_counter() - begin)
        last = step == config.steps or run.seconds > seconds
        if last or step % config.validate_every == 0:
            run.points.append((step, run.seconds, validated(model, text.validation(config.windows), config.device)))
        if last:
            break
        begin = time.perf_counter()
    return run


def loss_of(model: Model, sequences: Tensor, device: str) -> Tensor:
    """The mean loss, in nats a byte; on a GPU matrices are multiplied in bfloat16."""
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        loss: Tensor = model(sequences.to(device))
    return loss


@torch.no_grad()
def validated(model: Model, sequences: Sequence[Tensor], device: str) -> float:
    """The mean loss over what was not learned."""
    return fmean(loss_of(model, one, device).item() for one in sequences)
