"""`Standing`: the peers of one workload in one direction, side by side, and who is ahead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from spattn.bench.records import Measured


@dataclass(frozen=True)
class Standing:
    """One row of the table."""

    all: tuple[Measured, ...]

    @property
    def workload(self) -> str:
        """Its name."""
        return self.all[0].workload

    @property
    def direction(self) -> str:
        """Forward or backward."""
        return self.all[0].direction

    @property
    def keys(self) -> float:
        """Allowed keys a row."""
        one = self.all[0]
        return one.pairs / max(one.batch * one.heads[0] * one.length, 1)

    @cached_property
    def by_name(self) -> dict[str, Measured]:
        """By the peer's name."""
        return {one.peer: one for one in self.all}

    @property
    def ours(self) -> Measured | None:
        """The fastest of spattn's backends, or the one that has no time."""
        return _fastest(self.all, "ours") or next((one for one in self.all if one.kind == "ours"), None)

    @property
    def rival(self) -> Measured | None:
        """The fastest rival that has a time."""
        return _fastest(self.all, "rival")

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the fastest rival spattn is."""
        ours, rival = self.ours, self.rival
        if ours is None or rival is None or not ours.ms or not rival.ms:
            return None
        return rival.ms / ours.ms


def standings(records: Iterable[Measured]) -> list[Standing]:
    """Rows in the order of their first records."""
    groups: dict[tuple[str, str], list[Measured]] = {}
    for one in records:
        groups.setdefault((one.workload, one.direction), []).append(one)
    return [Standing(tuple(group)) for group in groups.values()]


def _fastest(records: Iterable[Measured], kind: str) -> Measured | None:
    timed = [one for one in records if one.kind == kind and one.ms is not None]
    return min(timed, key=lambda one: one.ms or 0.0, default=None)
