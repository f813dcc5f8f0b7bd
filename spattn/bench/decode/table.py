"""Decode workloads as a table: microseconds of a step, beside the best peer and beside memory's floor."""

from __future__ import annotations

from collections.abc import Sequence

from spattn.bench.columns import LOUD, aligned, filled, folded
from spattn.bench.decode.standing import DecodeStanding, decode_standings
from spattn.bench.records import Decoded, Outcome

HEADS = "ratio", "times the floor", "GB/s", "launches", "host us", "new lengths", "error"
MEANS = (
    "  keys: that a request needs; floor: their bytes by the bandwidth above; ratio: best other / spattn, but for",
    "  those in (..), which go through all keys; host us: of an eager step; new lengths: of one after all have changed",
)


def decoded(records: Sequence[Decoded]) -> str:
    """The table, and below it why some cells hold no number."""
    rows = decode_standings(records)
    if not rows:
        return ""
    peers = list(dict.fromkeys(one.peer for row in rows for one in row.all))
    head = ["microseconds a step", "keys", "floor", *peers, *HEADS]
    cells = [[*_shape(row), *(_cell(row, peer) for peer in peers), *_ours(row)] for row in rows]
    notes = ((one.workload, one) for row in rows for one in row.all)
    return "\n".join([aligned(filled([head, *cells])), *MEANS, *folded(notes)])


def plain(us: float) -> str:
    """Three digits or four."""
    return f"{us:.2f}" if us < 10 else f"{us:.1f}" if us < 1000 else f"{us:.0f}"


def _shape(row: DecodeStanding) -> list[str]:
    one = row.first
    return [one.workload, f"{one.keys / one.batch:.0f}" if one.keys else "", plain(one.floor_us) if one.keys else ""]


def _cell(row: DecodeStanding, peer: str) -> str:
    one = row.by_name.get(peer)
    if one is None:
        return ""
    if one.us is None:
        return LOUD.get(Outcome(one.outcome), one.outcome)
    return plain(one.us) if one.exact else f"({plain(one.us)})"


def _ours(row: DecodeStanding) -> list[str]:
    one, ratio = row.ours, row.ratio
    if one is None or one.us is None:
        return [""] * len(HEADS)
    return [
        f"{ratio:.2f}" if ratio is not None else "",
        f"{one.us / one.floor_us:.2f}" if one.floor_us else "",
        f"{one.gigabytes:.3g}" if one.gigabytes else "",
        f"{one.launches:.3g}" if one.launches else "",
        f"{one.host_us:.0f}" if one.host_us else "",
        f"{one.renewed_us:.0f}" if one.renewed_us else "",
        f"{one.error:.0e}" if one.error is not None else "",
    ]
