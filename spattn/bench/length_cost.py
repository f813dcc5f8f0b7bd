"""What one peer takes for one length: spattn's first call there, a rival's mask."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from spattn.bench.case import Case
from spattn.bench.memory import measured
from spattn.bench.peers.ours import Spattn, planned
from spattn.bench.peers.peer import Peer
from spattn.bench.timing import once
from spattn.bench.workloads.workload import Workload
from spattn.layout.planner import plan

LSE_BYTES = 4


@dataclass(frozen=True)
class LengthCost:
    """Fields of `records.Built`."""

    length_ms: float
    once_ms: float | None = None
    peak_bytes: int | None = None
    kept_bytes: int | None = None


def length_cost(peer: Peer, case: Case) -> LengthCost:
    """What comes before the first answer at this length."""
    if not isinstance(peer, Spattn):
        return _theirs(peer, case)
    with torch.no_grad():
        return _on_cpu(peer, case) if case.device.type == "cpu" else _on_gpu(peer, case)


def planning_ms(one: Workload) -> float:
    """From text to layout, with no memory of having done so."""
    begin = time.perf_counter()
    plan(one.pattern.condition)
    return (time.perf_counter() - begin) * 1e3


def _on_gpu(peer: Spattn, case: Case) -> LengthCost:
    """The host's time for the first call at this length, its kernels compiled by a call at half of it.

    The device works on while the host is done. Memory is counted beside the answer, out and lse; what out needs has
    been allocated and freed before, so that no call of the driver is in the time.
    """
    attn, tensors, inputs = planned(case.workload, peer.backend), dict(case.tensors), case.inputs
    half = Case(case.workload.at(max(case.workload.length // 2, 1)), case.device, case.dtype)
    attn(*half.inputs, **half.tensors)
    del half
    torch.empty_like(inputs[0])
    with measured(case.device) as memory:
        begin = time.perf_counter()
        out = attn(*inputs, **tensors)
        taken = (time.perf_counter() - begin) * 1e3
    peak = (memory.peak or 0) - out.nbytes - LSE_BYTES * out.shape[:-1].numel()
    kept = (memory.kept or 0) - out.nbytes
    return LengthCost(taken, planning_ms(case.workload), max(peak, 0), max(kept, 0))


def _on_cpu(peer: Spattn, case: Case) -> LengthCost:
    """What the first call takes longer than the second; host and device are one."""
    attn, tensors, inputs = planned(case.workload, peer.backend), dict(case.tensors), case.inputs
    first, again = (once(lambda: attn(*inputs, **tensors), case.device) for _ in range(2))
    return LengthCost(max(first - again, 0.0), planning_ms(case.workload))


def _theirs(peer: Peer, case: Case) -> LengthCost:
    found = peer.prepare(case)
    if found.again_ms is None:
        return LengthCost(found.first_ms, None, found.peak_bytes, found.kept_bytes)
    return LengthCost(found.again_ms, max(found.first_ms - found.again_ms, 0.0), found.peak_bytes, found.kept_bytes)
