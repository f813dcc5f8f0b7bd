"""How long launches take on a GPU, by its own clock."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch

from spattn.codegen.tile import Tile

Clock = Callable[[tuple[Tile, ...], Callable[[], None]], float]
"""(the tile of each pass, what runs them) -> microseconds."""

WARM = 2  # runs before, the first of which compiles
REPEATED = 9
AHEAD = 2_000_000  # cycles that the GPU waits meanwhile, about a millisecond: the host's time is no part of the measure


def by_events(tiles: tuple[Tile, ...], run: Callable[[], None]) -> float:
    """The median of several runs between events, on the current stream."""
    del tiles
    for _ in range(WARM):
        run()
    torch.cuda.synchronize()
    events = [(_event(), _event()) for _ in range(REPEATED)]
    torch.cuda._sleep(AHEAD)  # type: ignore[no-untyped-call]
    for begin, end in events:
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return float(median(begin.elapsed_time(end) for begin, end in events)) * 1e3


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
