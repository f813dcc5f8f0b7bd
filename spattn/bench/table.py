"""A result as plain text: a table for each kind of record, and below it why some cells hold no number."""

from __future__ import annotations

from collections.abc import Sequence

from spattn.bench.columns import LOUD, aligned, filled, folded
from spattn.bench.decode.table import decoded
from spattn.bench.records import Built, Outcome, Result, Started
from spattn.bench.spoken import milliseconds, size
from spattn.bench.standing import Standing, standings


def table(result: Result) -> str:
    """All of a result."""
    facts = [f"{name} {value}" if name in ("torch", "triton") else value for name, value in _head(result)]
    head = [", ".join(facts), *(f"without {name}: {why}" for name, why in result.absent.items())]
    if result.left_out:
        head += ["left out, as the time was spent:", *(f"  {one}" for one in result.left_out)]
    tables = _measured(result), _built(result.built), _started(result.started), decoded(result.decoded)
    return "\n\n".join(part for part in ("\n".join(head), *tables) if part) + "\n"


def _head(result: Result) -> list[tuple[str, str]]:
    wanted = ("device", "dtype", "torch", "triton", "bandwidth", "time")
    return [(name, result.machine[name]) for name in wanted if name in result.machine]


def _measured(result: Result) -> str:
    found = standings(result.measured)
    if not found:
        return ""
    peers = list(dict.fromkeys(one.peer for row in found for one in row.all))
    head = ["milliseconds", "keys a row", *peers, "ratio", "TFLOP/s", "host us", "queued", "error"]
    rows = [[_title(row), f"{row.keys:.0f}", *(_cell(row, peer) for peer in peers), *_ours(row)] for row in found]
    notes = ((_title(row), one) for row in found for one in row.all)
    return "\n".join([aligned(filled([head, *rows])), *folded(notes)])


def _title(row: Standing) -> str:
    return row.workload if row.direction == "forward" else f"{row.workload} {row.direction}"


def _cell(row: Standing, peer: str) -> str:
    one = row.by_name.get(peer)
    if one is None:
        return ""
    return _plain(one.ms) if one.ms is not None else LOUD.get(Outcome(one.outcome), one.outcome)


def _ours(row: Standing) -> list[str]:
    one, ratio = row.ours, row.ratio
    if one is None or one.ms is None:
        return [""] * 5
    return [
        f"{ratio:.2f}" if ratio is not None else "",
        f"{one.tflops:.3g}" if one.tflops else "",
        f"{one.host_us:.0f}" if one.host_us else "",
        _plain(one.queued_ms) if one.queued_ms else "",
        f"{one.error:.0e}" if one.error is not None else "",
    ]


def _plain(ms: float) -> str:
    return f"{ms:.3f}" if ms < 10 else f"{ms:.1f}" if ms < 1000 else f"{ms:.0f}"


def _built(rows: Sequence[Built]) -> str:
    head = ["building for a length", "tokens", "peer", "once", "this length", "peak", "kept"]
    cells = [
        [
            one.workload.partition("@")[0],
            str(one.length),
            one.peer,
            milliseconds(one.once_ms),
            milliseconds(one.length_ms) or one.outcome,
            size(one.peak_bytes),
            size(one.kept_bytes),
        ]
        for one in rows
    ]
    notes = ((one.workload, one) for one in rows)
    return "\n".join([aligned(filled([head, *cells])), *folded(notes)]) if rows else ""


def _started(rows: Sequence[Started]) -> str:
    head = ["first answer of a process", "peer", "cold caches", "warm caches", "of it planning", "second call"]
    cells = [
        [
            one.workload,
            one.peer,
            milliseconds(one.cold_ms) or one.outcome,
            *map(milliseconds, (one.warm_ms, one.planning_ms, one.call_ms)),
        ]
        for one in rows
    ]
    notes = ((one.workload, one) for one in rows)
    return "\n".join([aligned(filled([head, *cells])), *folded(notes)]) if rows else ""
