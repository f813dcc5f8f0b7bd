"""How long a call takes: on the device, of the host, and in a queue of others. Medians of many."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from spattn.bench.options import FEWEST

WARM = 5
QUEUE = 20
SECONDS = {"cuda": 10.0, "cpu": 3.0}
"""A measurement that takes longer ends with fewer samples."""

Call = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Of one call.

    Attributes:
        ms: The median of single calls, each waited for: from before the host begins until the device is done.
        fastest_ms: The fastest of them.
        samples: How many there were.
        host_us: What the host is busy for while the device has others to do; None on a CPU, which does both.
        queued_ms: What a call adds to a queue of calls: the device alone, where the host is faster.
    """

    ms: float
    fastest_ms: float
    samples: int
    host_us: float | None = None
    queued_ms: float | None = None


def timed(call: Call, device: torch.device, times: int) -> Times:
    """Times of a call, after some to warm up."""
    begin = time.perf_counter()
    for _ in range(WARM):
        call()
        synchronize(device)
        if time.perf_counter() - begin > SECONDS[device.type] / 2:
            break
    found: list[float] = []
    begin = time.perf_counter()
    while len(found) < times and (len(found) < FEWEST or time.perf_counter() - begin < SECONDS[device.type]):
        found.append(milliseconds_of(call, device))
    host, queued = _queue(call, found) if device.type == "cuda" else (None, None)
    return Times(median(found), min(found), len(found), host, queued)


def synchronize(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def once(call: Call, device: torch.device) -> float:
    """Milliseconds until one call is done, host and device."""
    synchronize(device)
    begin = time.perf_counter()
    call()
    synchronize(device)
    return (time.perf_counter() - begin) * 1e3


def milliseconds_of(call: Call, device: torch.device) -> float:
    """One call between two marks in the queue of the device, or on a CPU."""
    return _on_gpu(call) if device.type == "cuda" else once(call, device)


def _events() -> tuple[Any, Any]:
    """Two marks in the device's queue."""
    event: Any = torch.cuda.Event
    return event(enable_timing=True), event(enable_timing=True)


def _on_gpu(call: Call) -> float:
    begin, end = _events()
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end))


def _queue(call: Call, found: list[float]) -> tuple[float, float]:
    """Microseconds of the host and milliseconds of the device for each of some calls in a row."""
    count = max(2, min(QUEUE, int(SECONDS["cuda"] * 1e3 / 2 / max(median(found), 1e-3))))
    begin, end = _events()
    torch.cuda.synchronize()
    started = time.perf_counter()
    begin.record()
    for _ in range(count):
        call()
    end.record()
    busy = time.perf_counter() - started
    torch.cuda.synchronize()
    return busy / count * 1e6, float(begin.elapsed_time(end)) / count
