"""Tiles by measuring: the few that are predicted best, on the tensors of the first call of its kind.

What was found is kept in the process, and in records that outlive it. A call that is being captured in a CUDA graph is
not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import torch

from spattn.call.prepared import Prepared, is_captured
from spattn.call.request import Records
from spattn.codegen.tile import Tile
from spattn.cost.tile_choice import Candidate, candidates
from spattn.gpu.clock import Clock, by_events
from spattn.gpu.problem import Problem
from spattn.gpu.tile_records import Measured, file, keep, key_of, known

CANDIDATES = 4  # of each pass
BETTER = 0.98  # of the best time that a tile must reach to take its place: less is noise


class Runnable(Protocol):
    """Launches that run on tensors."""

    def run(self, tensors: list[torch.Tensor], prepared: Prepared) -> None:
        """Runs them, on those of the kind and the pattern's."""
        ...


Planned = Callable[[tuple[Tile, ...]], Runnable]


@dataclass(frozen=True)
class Trial:
    """One candidate of one pass.

    Attributes:
        number: The pass.
        tile: Its tile; the other passes had the best that were known.
        predicted: Microseconds of all passes; None where nothing predicts them.
        measured: The same as measured; None where the tile did not run.
    """

    number: int
    tile: Tile
    predicted: float | None
    measured: float | None


@dataclass(frozen=True)
class Report:
    """What was measured for one layout.

    Attributes:
        kind: The name of what its passes compute.
        trials: In order.
        tiles: The best of each pass; None where nothing ran.
        microseconds: With these, all passes.
    """

    kind: str
    trials: tuple[Trial, ...]
    tiles: tuple[Tile, ...] | None
    microseconds: float | None


class Tuner:
    """Measures, and remembers.

    Args:
        records: What outlives the process.
        clock: Measures; by default the GPU's.
        heard: Is told what was measured.
        fresh: Measure again what is known.
    """

    def __init__(
        self,
        records: Records,
        clock: Clock = by_events,
        heard: Callable[[Report], None] | None = None,
        fresh: bool = False,
    ) -> None:
        self._records, self._clock, self._heard, self._fresh = records, clock, heard, fresh

    def tiles(self, problem: Problem, planned: Planned, tensors: list[torch.Tensor]) -> tuple[Tile, ...] | None:
        """The tile of each pass; None where nothing may be measured, or nothing runs.

        Args:
            problem: The passes, and the call.
            planned: Makes launches of a tile for each pass.
            tensors: Those of the kind, on which they run.
        """
        key = key_of(problem, problem.text)
        found = None if self._fresh else known(key, self._records, len(problem.layout.passes))
        if found is None and not _is_captured(problem):
            report = self._measured(problem, lambda tiles: self._timed(planned, tiles, tensors, problem))
            found = self._filed(key, report)
        if found is None:
            return None
        keep(key, found)
        return found.tiles

    def _filed(self, key: str, report: Report) -> Measured | None:
        if self._heard is not None:
            self._heard(report)
        if report.tiles is None:
            return None
        found = Measured(report.tiles, report.microseconds)
        file(key, found, self._records)
        return found

    def _measured(self, problem: Problem, timed: Callable[[tuple[Tile, ...]], float | None]) -> Report:
        """One pass after the other, the others as good as is known."""
        orders = [order[:CANDIDATES] for order in candidates(problem)]
        best, time = tuple(order[0] for order in orders), None
        trials = []
        for number, order in enumerate(orders):
            if problem.layout.passes[number].skips(*problem.rows):
                continue
            for candidate in order[0 if time is None else 1 :]:
                tried = (*best[:number], candidate, *best[number + 1 :])
                took = timed(tuple(one.tile for one in tried))
                trials.append(Trial(number, candidate.tile, _total(tried), took))
                if took is not None and (time is None or took < BETTER * time):
                    best, time = tried, took
        tiles = None if time is None else tuple(one.tile for one in best)
        return Report(problem.kind.name, tuple(trials), tiles, time)

    def _timed(
        self, planned: Planned, tiles: tuple[Tile, ...], tensors: list[torch.Tensor], problem: Problem
    ) -> float | None:
        """Microseconds of all passes; None where they do not run."""
        with suppress(Exception):  # too little shared memory, no registers: whatever a compiler or a driver says
            launch = planned(tiles)
            return self._clock(tiles, lambda: launch.run(tensors, problem.request.tensors))
        return None


def _total(tried: Iterable[Candidate]) -> float | None:
    predicted = [one.predicted for one in tried]
    return None if None in predicted else sum(one for one in predicted if one is not None)


def _is_captured(problem: Problem) -> bool:
    return is_captured(problem.request.q)
