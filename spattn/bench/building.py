"""What a length costs before its first answer: spattn's plan and tables beside masks, in time and memory.

One head, so that masks of all lengths have a chance. A peer that failed or took long at a length sits out the longer
ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from spattn.bench.case import Case
from spattn.bench.deadline import SPENT, Deadline
from spattn.bench.length_cost import length_cost
from spattn.bench.lengths import short
from spattn.bench.memory import release
from spattn.bench.peers.peer import Kind, Peer
from spattn.bench.records import Built, Outcome
from spattn.bench.trial import described
from spattn.bench.workloads.catalogue import FEW, WORKLOADS
from spattn.bench.workloads.workload import Workload

LENGTHS = {
    "cuda": tuple(4096 * 4**i for i in range(7)),
    "cpu": tuple(1024 * 4**i for i in range(3)),
}
PATIENCE_MS = 60_000


@dataclass
class Building:
    """The two patterns at growing lengths.

    Attributes:
        peers: Who builds.
        lengths: Ascending.
        deadline: Asked before each.
        report: Told of each record.
    """

    device: torch.device
    dtype: torch.dtype
    peers: Sequence[Peer]
    lengths: Sequence[int]
    deadline: Deadline
    report: Callable[[Built], None]
    _out: dict[tuple[str, str], str] = field(default_factory=dict, init=False)

    def run(self, forget: Callable[[], None]) -> None:
        """All of it; `forget` is called after each length."""
        for name in FEW:
            for length in self.lengths:
                case = Case(_one_head(WORKLOADS[name]).at(length), self.device, self.dtype)
                for peer in self.peers:
                    self.report(self._built(peer, case, name))
                forget()
                release(self.device)

    def _built(self, peer: Peer, case: Case, name: str) -> Built:
        one = case.workload
        record = Built(one.name, str(one.pattern), one.length, peer.name, peer.kind)
        if not self.deadline.allows(f"building {name} at {short(one.length)}, {peer.name}"):
            return replace(record, outcome=Outcome.LEFT_OUT, detail=SPENT)
        why = self._out.get((peer.name, name)) or peer.refusal(case)
        if why:
            return replace(record, outcome=Outcome.REFUSED, detail=why)
        try:
            found = replace(record, **vars(length_cost(peer, case)))
        except Exception as error:  # noqa: BLE001  out of memory, mostly
            release(self.device)
            self._out[peer.name, name] = f"failed at {short(one.length)}"
            return replace(record, outcome=Outcome.FAILED, detail=described(error))
        if peer.kind is not Kind.OURS and (found.once_ms or 0) > PATIENCE_MS:
            self._out[peer.name, name] = f"took {(found.once_ms or 0) / 1e3:.0f} s at {short(one.length)}"
        return found


def _one_head(one: Workload) -> Workload:
    return replace(one, q_heads=1, kv_heads=1, batch=1, head_dim=64)
