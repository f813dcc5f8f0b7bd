"""`DecodeGroup`: the section of a run that decodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch._dynamo

from spattn.bench.deadline import Deadline
from spattn.bench.decode.bandwidth import bandwidth
from spattn.bench.decode.case import DecodeCase
from spattn.bench.decode.comparison import DecodeComparison
from spattn.bench.decode.peers.roster import DecodeRoster, decode_roster
from spattn.bench.decode.selection import decode_workloads
from spattn.bench.decode.workload import DecodeWorkload
from spattn.bench.machine import dtype_of
from spattn.bench.memory import release
from spattn.bench.options import Options
from spattn.bench.records import Decoded


@dataclass(frozen=True)
class DecodeGroup:
    """Workloads, and who takes part."""

    workloads: Sequence[DecodeWorkload]
    roster: DecodeRoster
    device: torch.device
    times: int

    @staticmethod
    def of(names: Iterable[str], options: Options, device: torch.device) -> DecodeGroup:
        """What is asked for; without a name, nothing and nobody.

        Raises:
            UnsupportedError: E041, a name is unknown.
            ArgumentError: E060, a length is none, or nothing is left.
        """
        workloads = decode_workloads(names, options, device)
        peers = decode_roster(options, device) if workloads else DecodeRoster((), {})
        return DecodeGroup(workloads, peers, device, options.times)

    def run(self, deadline: Deadline, facts: dict[str, str], report: Callable[[Decoded], None]) -> None:
        """All workloads; the memory's bandwidth, measured first, is added to the facts."""
        todo = [one for one in self.workloads if deadline.allows(one.name)]
        if not todo:
            return
        found = bandwidth(self.device)
        facts["bandwidth"] = f"{found / 1e9:.0f} GB/s"
        for one in todo:
            if deadline.allows(one.name):
                case = DecodeCase(one, self.device, dtype_of(self.device))
                DecodeComparison(case, self.roster.peers, found, self.times, deadline, report, self._forget).run()
                del case
                self._forget()

    def _forget(self) -> None:
        """Compiled code is kept by mask, and holds what the mask reads."""
        torch._dynamo.reset()
        release(self.device)
