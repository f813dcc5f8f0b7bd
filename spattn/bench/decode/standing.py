"""`DecodeStanding`: the peers of one decode workload side by side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from spattn.bench.records import Decoded


@dataclass(frozen=True)
class DecodeStanding:
    """One row of the table."""

    all: tuple[Decoded, ...]

    @property
    def first(self) -> Decoded:
        """For what all say alike."""
        return self.all[0]

    @cached_property
    def by_name(self) -> dict[str, Decoded]:
        """By the peer's name."""
        return {one.peer: one for one in self.all}

    @property
    def ours(self) -> Decoded | None:
        """The fastest of spattn's backends, or the one that has no time."""
        return _fastest(self.all, ours=True) or next((one for one in self.all if one.kind == "ours"), None)

    @property
    def best(self) -> Decoded | None:
        """The fastest other peer whose answer is the pattern's."""
        return _fastest(self.all, ours=False)

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the best peer spattn is."""
        ours, best = self.ours, self.best
        return best.us / ours.us if ours is not None and best is not None and ours.us and best.us else None


def decode_standings(records: Iterable[Decoded]) -> list[DecodeStanding]:
    """Rows in the order of their first records."""
    groups: dict[str, list[Decoded]] = {}
    for one in records:
        groups.setdefault(one.workload, []).append(one)
    return [DecodeStanding(tuple(group)) for group in groups.values()]


def _fastest(records: Iterable[Decoded], *, ours: bool) -> Decoded | None:
    timed = [one for one in records if (one.kind == "ours") is ours and one.us is not None and one.exact]
    return min(timed, key=lambda one: one.us or 0.0, default=None)
