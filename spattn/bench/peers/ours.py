"""spattn as a peer, by one of its backends."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from spattn.attend import Attention
from spattn.attend import compile as compiled
from spattn.bench.case import Case
from spattn.bench.peers.peer import Kind, Peer, Prepared
from spattn.bench.workloads.workload import Workload


@dataclass(frozen=True)
class Spattn(Peer):
    """spattn; what a backend cannot do it says when it is called."""

    name: str = "spattn"
    kind: Kind = Kind.OURS
    backend: str = "triton"

    def prepare(self, case: Case) -> Prepared:
        """CompiledPattern. A plan knows no length, so the second time, at any length, there is nothing to do."""
        begin = time.perf_counter()
        attn = planned(case.workload, self.backend)
        first = (time.perf_counter() - begin) * 1e3
        tensors = dict(case.tensors)

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = attn(q, k, v, **tensors)
            return out

        return Prepared(attend, first_ms=first)


def planned(one: Workload, backend: str) -> Attention:
    """The attention of a workload's pattern, every group of heads planned."""
    attn = compiled(one.pattern, backend=backend)
    for values in attn.groups(one.batch, one.q_heads):
        attn.layout_of(values)
    return attn
