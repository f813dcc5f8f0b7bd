"""`DecodeTrial`: one peer on one case, from making ready to its times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from spattn.bench.decode.case import DecodeCase
from spattn.bench.decode.clock import step_times
from spattn.bench.decode.judge import DecodeJudge
from spattn.bench.decode.peers.peer import DecodePeer, Ready
from spattn.bench.memory import release
from spattn.bench.records import Outcome
from spattn.bench.timing import once
from spattn.bench.trial import described
from spattn.errors import UnsupportedError


@dataclass
class DecodeTrial:
    """A peer at work; whatever goes wrong becomes its outcome.

    Attributes:
        numbers: The fields of `Decoded` that are known so far.
    """

    peer: DecodePeer
    case: DecodeCase
    outcome: Outcome = Outcome.OK
    detail: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)

    def run(self, judge: DecodeJudge, times: int) -> None:
        """Makes it ready, looks at its answer, and times it if that is right."""
        refusal = self.peer.refusal(self.case)
        if refusal is not None:
            self.end(Outcome.REFUSED, refusal)
            return
        try:
            with torch.no_grad():
                self._run(judge, times)
        except UnsupportedError as error:
            self.end(Outcome.REFUSED, error.message)
        except Exception as error:  # noqa: BLE001  whatever a peer raises
            self.end(Outcome.FAILED, described(error))
        release(self.case.device)

    def end(self, outcome: Outcome, detail: str) -> None:
        """It goes no further."""
        self.outcome, self.detail = outcome, detail

    def _run(self, judge: DecodeJudge, times: int) -> None:
        ready: list[Ready] = []
        self.numbers["building_ms"] = self._once(lambda: ready.append(self.peer.prepare(self.case)))
        with ready[0].within():
            self.numbers["exact"] = ready[0].exact
            self.numbers["compiling_ms"] = self._once(lambda: ready[0].step(0))
            if ready[0].exact and not self._right(ready[0], judge):
                return
            found = step_times(ready[0], self.case, times)
        read = self.case.needed_bytes / found.us / 1e3 if ready[0].exact else None
        self.numbers |= {**vars(found), "gigabytes": read}

    def _right(self, ready: Ready, judge: DecodeJudge) -> bool:
        """The first request by the first layer, and the last by the last."""
        places = {(0, 0), (len(self.case.caches) - 1, self.case.workload.batch - 1)}
        error = max(judge.error(ready.step(layer), layer, request) for layer, request in sorted(places))
        self.numbers["error"] = error if error < float("inf") else None
        if error > judge.tolerance:
            allowed = f"where {judge.tolerance:.0e} is allowed"
            self.end(Outcome.WRONG, f"an error of {error:.1e} against float64, {allowed}")
        return error <= judge.tolerance

    def _once(self, call: Callable[[], object]) -> float:
        return once(call, self.case.device)
