"""Records in words: one line each, said while a run goes on."""

from __future__ import annotations

import sys

from spattn.bench.lengths import short
from spattn.bench.records import Built, Decoded, Measured, Outcome, Record, Started


def say(line: str) -> None:
    """A line on stderr, at once."""
    print(line, file=sys.stderr, flush=True)


def spoken(record: Record) -> str:
    """A record in one line."""
    match record:
        case Measured():
            head, parts = f"{record.workload} {record.direction}", _measured(record)
        case Built():
            head, parts = f"building {record.workload.partition('@')[0]} at {short(record.length)}", _built(record)
        case Started():
            head, parts = f"starting {record.workload}", _started(record)
        case Decoded():
            head, parts = record.workload, _decoded(record)
    if record.outcome != Outcome.OK:
        loud = record.outcome.upper() if record.outcome in (Outcome.WRONG, Outcome.FAILED) else record.outcome
        parts = [f"{loud}: {record.detail}"]
    return f"{head}, {record.peer}: {', '.join(part for part in parts if part)}"


def milliseconds(number: float | None) -> str:
    """Three digits, with the unit that suits them; nothing if there is no number."""
    if number is None:
        return ""
    if number < 0.1:
        return f"{number * 1e3:.3g} us"
    return f"{_digits(number)} ms" if number < 1e4 else f"{_digits(number / 1e3)} s"


def microseconds(number: float | None) -> str:
    """Three digits, with the unit that suits them; nothing if there is no number."""
    return "" if number is None else milliseconds(number / 1e3)


def size(number: int | None) -> str:
    """Bytes, with the unit that suits them; nothing if there is no number."""
    if number is None:
        return ""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if number >= 1 << power:
            return f"{_digits(number / (1 << power))} {unit}"
    return f"{number} B"


def _digits(number: float) -> str:
    return f"{number:.3g}" if number < 1000 else f"{number:.0f}"


def _measured(one: Measured) -> list[str]:
    return [
        milliseconds(one.ms),
        f"{one.tflops:.3g} TFLOP/s" if one.tflops else "",
        f"host {one.host_us:.0f} us" if one.host_us else "",
        f"queued {milliseconds(one.queued_ms)}" if one.queued_ms else "",
        f"error {one.error:.1e}" if one.error is not None else "",
        f"difference {one.difference:.1e}" if one.difference is not None else "",
        f"made ready in {milliseconds(one.building_ms)}" if one.building_ms else "",
        f"first call {milliseconds(one.compiling_ms)}" if one.compiling_ms else "",
    ]


def _built(one: Built) -> list[str]:
    return [
        f"{milliseconds(one.length_ms)} for the length",
        f"{milliseconds(one.once_ms)} once" if one.once_ms else "",
        f"peak {size(one.peak_bytes)}" if one.peak_bytes is not None else "",
        f"kept {size(one.kept_bytes)}" if one.kept_bytes is not None else "",
    ]


def _started(one: Started) -> list[str]:
    return [
        f"cold {milliseconds(one.cold_ms)}",
        f"warm {milliseconds(one.warm_ms)}",
        f"second call {milliseconds(one.call_ms)}",
    ]


def _decoded(one: Decoded) -> list[str]:
    return [
        microseconds(one.us),
        f"{one.us / one.floor_us:.3g} times the floor" if one.us and one.floor_us else "",
        f"{_digits(one.gigabytes)} GB/s" if one.gigabytes else "",
        f"{one.launches:.3g} launches" if one.launches else "",
        f"host {one.host_us:.0f} us" if one.host_us else "",
        f"new lengths {one.renewed_us:.0f} us" if one.renewed_us else "",
        f"error {one.error:.1e}" if one.error is not None else "",
        "all keys, whatever the pattern" if not one.exact else "",
        f"made ready in {milliseconds(one.building_ms)}" if one.building_ms else "",
        f"first step {milliseconds(one.compiling_ms)}" if one.compiling_ms else "",
    ]
