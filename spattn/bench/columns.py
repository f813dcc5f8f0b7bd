"""Rows of cells as lines of text, and what is said below them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spattn.bench.records import Entry, Outcome

Row = Sequence[str]
LOUD = {Outcome.WRONG: "WRONG", Outcome.FAILED: "failed", Outcome.REFUSED: "-", Outcome.NO_GRADIENT: "no gradient"}


def aligned(rows: Sequence[Row], left: int = 1) -> str:
    """Rows of cells: the first columns to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(n) if i < left else cell.rjust(n) for i, (cell, n) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def filled(rows: Sequence[Row]) -> list[Row]:
    """Without the columns that hold nothing below their heads, as those of a GPU on a CPU."""
    kept = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    return [[row[i] for i in kept] for row in rows]


def folded(notes: Iterable[tuple[str, Entry]]) -> list[str]:
    """What is said of several workloads in the same words is said once."""
    said: dict[str, list[str]] = {}
    for place, one in notes:
        if one.detail:
            said.setdefault(f"{one.peer}: {one.detail}", []).append(place)
    return [
        f"  {why} ({', '.join(places) if len(places) <= 3 else f'{len(places)} rows'})" for why, places in said.items()
    ]
