"""How long a step takes: on the device in a graph that goes round all layers, and of the host without one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from spattn.bench.decode.case import DecodeCase
from spattn.bench.decode.graph import captured, launches
from spattn.bench.decode.peers.peer import Ready
from spattn.bench.options import FEWEST
from spattn.bench.timing import SECONDS, milliseconds_of, synchronize

STEPS = 8
"""Of a graph, at least."""
WARM = 3
HOST_SAMPLES = 20


@dataclass(frozen=True)
class StepTimes:
    """Of one peer.

    Attributes:
        us: Median microseconds of a step: of replays of a graph by its steps, on a CPU of rounds.
        fastest_us: Of the fastest replay.
        samples: Replays.
        launches: Of a step; None where it is not known.
        host_us: Until an eager step of known lengths has been launched, from an empty queue; None on a CPU.
        renewed_us: The same of a step after all lengths have changed, with what the peer does then.
    """

    us: float
    fastest_us: float
    samples: int
    launches: float | None = None
    host_us: float | None = None
    renewed_us: float | None = None


def step_times(ready: Ready, case: DecodeCase, times: int) -> StepTimes:
    """Times of a peer that is ready and has run."""
    if case.device.type == "cpu":
        found = _samples(lambda: _round(ready, case, 1), case, times)
        steps = len(case.caches)
        return StepTimes(median(found) / steps, min(found) / steps, len(found))
    rounds = -(-STEPS // len(case.caches))
    steps = rounds * len(case.caches)
    graph = captured(lambda: _round(ready, case, rounds))
    found = _samples(graph.replay, case, times)
    count = launches(graph)
    graph.reset()
    host, renewed = _host(ready, case), _renewed(ready, case)
    launched = None if count is None else count / steps
    return StepTimes(median(found) / steps, min(found) / steps, len(found), launched, host, renewed)


def _round(ready: Ready, case: DecodeCase, rounds: int) -> None:
    for _ in range(rounds):
        for layer in range(len(case.caches)):
            ready.step(layer)


def _samples(call: Callable[[], None], case: DecodeCase, times: int) -> list[float]:
    """Microseconds."""
    for _ in range(WARM):
        call()
    found: list[float] = []
    begin, most = time.perf_counter(), SECONDS[case.device.type]
    while len(found) < times and (len(found) < FEWEST or time.perf_counter() - begin < most):
        found.append(milliseconds_of(call, case.device) * 1e3)
    return found


def _host(ready: Ready, case: DecodeCase) -> float:
    return median(_busy(lambda: ready.step(0), case.device) for _ in range(HOST_SAMPLES))


def _renewed(ready: Ready, case: DecodeCase) -> float:
    """Lengths go down by one and up again; to write them is not part of it."""

    def step() -> None:
        ready.renew()
        ready.step(0)

    found = []
    for by in (-1, 1) * (1 + HOST_SAMPLES // 2):
        case.lengths.shift(by)
        found.append(_busy(step, case.device))
    return median(found[2:])


def _busy(call: Callable[[], object], device: torch.device) -> float:
    """Microseconds of the host for a call that finds nothing queued."""
    synchronize(device)
    begin = time.perf_counter()
    call()
    busy = (time.perf_counter() - begin) * 1e6
    synchronize(device)
    return busy
