"""One workload: every peer is made ready and checked, then every one that is right is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from spattn.bench.case import Case
from spattn.bench.deadline import SPENT, Deadline
from spattn.bench.judge import Judge
from spattn.bench.lengths import short
from spattn.bench.options import Direction
from spattn.bench.peers.peer import Peer
from spattn.bench.records import Measured, Outcome
from spattn.bench.spoken import say
from spattn.bench.trial import Ready, Trial, described


@dataclass(frozen=True)
class Comparison:
    """A case and those who are set side by side on it.

    Attributes:
        times: Samples of a measurement.
        deadline: Asked before anything that takes time.
        report: Told of each record as soon as it is known.
    """

    case: Case
    peers: Sequence[Peer]
    times: int
    deadline: Deadline
    report: Callable[[Measured], None]

    def run(self, directions: Iterable[Direction]) -> None:
        """All peers, in each direction."""
        ready: Ready = {}
        judge = Judge(self.case)
        try:
            allowed = self.case.pairs
        except Exception as error:  # noqa: BLE001  a workload that cannot be made, for want of memory mostly
            self._fail(directions, described(error))
            return
        say(self._said(allowed))
        for direction in directions:
            self._run(direction, ready, judge, allowed)

    def _run(self, direction: Direction, ready: Ready, judge: Judge, allowed: int) -> None:
        trials = [Trial(peer, self.case, direction) for peer in self.peers]
        for one in trials:
            if self._in_time(one):
                one.make_ready(ready)
                one.check(judge)
                say(f"  {one.peer.name}: {one.outcome}")
        partner = next((one for one in trials if one.partners), None)
        for one in trials:
            one.compare(partner, judge.tolerance)
        for one in trials:
            one.answer = None
        for one in trials:
            if one.outcome is Outcome.OK and self._in_time(one):
                one.time(self.times, self.case.operations(direction))
            self.report(self._record(one, allowed))

    def _said(self, allowed: int) -> str:
        one = self.case.workload
        keys = allowed / (one.batch * one.q_heads * one.length)
        return (
            f"{one.name}: {one.pattern}, {one.batch} x {one.q_heads}/{one.kv_heads} heads, "
            f"{short(one.length)} tokens, head dimension {one.head_dim}, {keys:.0f} keys a row"
        )

    def _in_time(self, one: Trial) -> bool:
        if self.deadline.allows(f"{self.case.workload.name}, {one.direction}, {one.peer.name}"):
            return True
        one.end(Outcome.LEFT_OUT, SPENT)
        return False

    def _fail(self, directions: Iterable[Direction], why: str) -> None:
        for direction in directions:
            for peer in self.peers:
                self.report(self._record(Trial(peer, self.case, direction, Outcome.FAILED, why), 0))

    def _record(self, one: Trial, allowed: int) -> Measured:
        work = self.case.workload
        return Measured(
            workload=work.name,
            pattern=str(work.pattern),
            length=work.length,
            head_dim=work.head_dim,
            heads=(work.q_heads, work.kv_heads),
            batch=work.batch,
            pairs=allowed,
            direction=one.direction,
            peer=one.peer.name,
            kind=one.peer.kind,
            outcome=one.outcome,
            detail=one.detail,
            **one.numbers,
        )
